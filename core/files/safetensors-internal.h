/* SPDX-License-Identifier: Apache-2.0 */
/* An open file of tensors, as its readers (safetensors.c, gguf.c) fill it. For these alone. */
#ifndef FK_SAFETENSORS_INTERNAL_H
#define FK_SAFETENSORS_INTERNAL_H

#include "safetensors.h"

struct FkSafetensors {
  int fd;
  char *path, *shown; /* as given; as UTF-8 for messages */
  uint64_t size;      /* of the file */
  char *header;       /* names and texts point into it */
  size_t header_bytes;
  GArray *tensors;      /* FkStTensor, by begin */
  GArray *dims;         /* int64_t of all shapes */
  GHashTable *by_name;  /* FkStTensor as a set */
  GHashTable *metadata; /* key -> text, both in the header */
};

/* An object without tensors, its file open; NULL: an error. */
FkSafetensors *fk_safetensors_create(const char *path, GError **error);
/* After all tensors are there, with their shapes: the table of names, of which none may be there twice. */
bool fk_safetensors_index(FkSafetensors *st, GError **error);

#endif
