/* SPDX-License-Identifier: Apache-2.0 */
/* What a model's file holds, as a hash that does not depend on its name, place or time. */
#ifndef FK_HASH_H
#define FK_HASH_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define FK_HASH_WHOLE (64u << 20) /* bytes of the largest file that is read whole */

/* SHA-256 in hexadecimal of the whole file (*sampled false, as sha256sum prints it), or of a larger file of its size
 * in decimal digits, its first and last MiB and the first 4 KiB of each MiB between. Errors as fk_file_open and
 * fk_file_read. (transfer full) */
char *fk_hash_file(const char *path, uint64_t *bytes, bool *sampled, GError **error);

#endif
