/* SPDX-License-Identifier: Apache-2.0 */
/* Where a file is written. One rule for all that the library, the element and the tools write:
 *
 * A regular file, or nothing, is replaced by renaming: it is there whole or not at all. A link is followed and stays. A
 * FIFO that is read and a character device (/dev/stdout, /dev/null) are written into. Everything else is refused: a
 * folder, a socket, a block device, a link to nothing. fk_file_write (fk.h) does it, and fk_file_check says before the
 * work what it would refuse. */
#ifndef FK_FILE_WRITE_H
#define FK_FILE_WRITE_H

#include <glib.h>
#include <stdbool.h>

/* The name to rename to or, with *into, to open: `path` with its links followed. (transfer full): NULL with
 * FK_ERROR_OPTION_BAD, which names `path` and what is there. */
char *fk_file_target(const char *path, bool *into, GError **error);

#endif
