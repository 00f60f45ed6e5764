/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzz harnesses share: files of a checkpoint folder that are rewritten for each input without touching a
 * disk.
 *
 * A harness is one function, LLVMFuzzerTestOneInput, which libFuzzer calls (option fuzz) or replay.c, with the files of
 * corpus/NAME, in the ordinary suite. It aborts on what must not be; a GError is fine. */
#ifndef FK_FUZZ_H
#define FK_FUZZ_H

#include <glib/gstdio.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A file in memory that has the name `path`. */
typedef struct {
  char *path;
  int fd;
} FuzzFile;

/* A temporary folder of this process; removed when it ends. (transfer none) */
const char *fuzz_folder(void);
/* Makes folder/name a file in memory. */
FuzzFile fuzz_file(const char *folder, const char *name);
void fuzz_write(const FuzzFile *file, const void *data, size_t size);
/* Makes folder/name a link to `target`. */
void fuzz_link(const char *folder, const char *name, const char *target);

/* An error of the project's own, with a text for people, exactly when something was refused. */
void fuzz_check(const GError *error, gboolean taken);

#endif
