/* SPDX-License-Identifier: Apache-2.0 */
/* Regular files of a model, read by position, and their names in messages. Used by everything that reads files.
 *
 * Nothing is mapped: a file that is shortened while it is read gives an error here and a SIGBUS with mmap. */
#ifndef FK_FILE_H
#define FK_FILE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Opens `path` (symbolic links are followed) for reading and gives its size in bytes. The caller closes the descriptor.
 * Folders, pipes and devices are refused without waiting for them. -1 with FK_ERROR_MODEL_MISSING, _DENIED or _BAD. */
int fk_file_open(const char *path, uint64_t *size, GError **error);
/* The same for a path that goes through a file as if that were a folder, "MODEL.safetensors/vae/config.json": a file
 * inside a packed model (pack.c). fk_file_open asks it where a path does. */
int fk_file_open_inside(const char *path, uint64_t *size, GError **error);
/* Reads exactly `bytes` bytes at `offset`; any thread. `path` is for the error (FK_ERROR_MODEL_BAD), which has the
 * byte where the file ended or could not be read. */
bool fk_file_read(int fd, const char *path, uint64_t offset, void *to, size_t bytes, GError **error);
/* The whole file of at most `limit` bytes, with a NUL behind it. Also FK_ERROR_MEMORY. (transfer full): g_free. */
char *fk_file_load(const char *path, size_t limit, size_t *size, GError **error);

/* The files that a property lists between semicolons, without blanks around them; none of NULL and "". An entry without
 * a name and more than `most` are FK_ERROR_OPTION_BAD, which names the property. (transfer full): g_strfreev. */
char **fk_file_list(const char *property, const char *list, guint most, GError **error);

/* A finite number in decimal digits, with a point and an exponent where there are any, and nothing around it:
 * g_ascii_strtod alone takes blanks in front, "0x1p4", "nan" and "inf". */
bool fk_decimal(const char *text, double *number);

/* What stands there by its st_mode, for a message: "a folder", "a FIFO", "a character device". */
const char *fk_file_kind(mode_t mode);

/* A name or a short value that a file gives, as it may stand in a message or on a terminal: UTF-8, at most 120 bytes
 * and
 * "..." behind them, never half a character, and what cannot be printed (control characters, bytes that are not UTF-8)
 * escaped. (transfer full) */
char *fk_shown_name(const char *name);
/* The same for a path, which is not cut. (transfer full) */
char *fk_shown_path(const char *path);

#endif
