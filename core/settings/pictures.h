/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures that settings name: mask-path and references, read once. */
#ifndef FK_PICTURES_H
#define FK_PICTURES_H

#include "fk.h"

/* Of one edit; zero: none. The pixels are shared with other edits and are not written. */
typedef struct {
  FkImage mask;    /* 3 or 4 channels; data NULL: none */
  int mask_number; /* another for each decoding of a file in this process */
  FkImage references[FK_REFERENCES];
  int n_references;
  void *held[1 + FK_REFERENCES]; /* what is to be given back */
  int n_held;
} FkPictures;

/* The files of the setting `references`, "a.png; b.jpg", in order. FK_ERROR_OPTION_BAD: an empty entry, or more than
 * FK_REFERENCES. (transfer full): g_strfreev; NULL: an error. */
char **fk_pictures_names(const char *references, GError **error);
/* Reads what the settings name, or finds it as it was read before: a file is the same while path, device, number, size
 * and times are. mask_path, references: nullable. FK_ERROR_OPTION_BAD, _MEMORY, with the setting and the file; then
 * *pictures is zero. */
bool fk_pictures_take(FkPictures *pictures, const char *mask_path, const char *references, GError **error);
void fk_pictures_drop(FkPictures *pictures);
/* Files that were decoded in this process so far; for tests. */
int fk_pictures_decoded(void);

#endif
