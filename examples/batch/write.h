/* SPDX-License-Identifier: Apache-2.0 */
/* Files that appear whole or not at all, whatever happens to the process or the machine: a temporary name in the same
 * folder, fsync, rename, fsync of the folder. Temporary names start with a dot and hold host and process, so that what
 * a killed process left is known and removed by the next. */
#ifndef WRITE_H
#define WRITE_H

#include <gio/gio.h>
#include <stdbool.h>

/* G_FILE_ERROR with the path. A file of that name is replaced. */
bool write_whole(const char *path, const void *data, gsize bytes, GError **error);
/* Is it the disk or the folder that failed, and not this one name? The next file would fail too. */
bool write_failed_for_all(const GError *error);
/* Makes the folder and those above it where they are missing, and checks that files can be made there. */
bool write_folder(const char *folder, GError **error);
/* Removes what processes of this host that are no more have left in the folder. */
void write_clean(const char *folder);
/* Before the process ends at once: removes the temporary files of all threads; none can be made from then on. */
void write_abandon(void);

#endif
