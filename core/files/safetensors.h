/* SPDX-License-Identifier: Apache-2.0 */
/* One safetensors file: names, types, shapes and places of its tensors, and their bytes. Which tensors a model wants is
 * component.h and weights.h.
 *
 * The file is untrusted: every bound is checked before it is used, memory follows the header's own size, time
 * is linear in it but for a sort that well-made files do not need. */
#ifndef FK_SAFETENSORS_H
#define FK_SAFETENSORS_H

#include "tensor.h"

#include <glib.h>

#define FK_ST_MAX_HEADER 100000000u /* bytes; the format's limit */
#define FK_ST_MAX_RANK 8            /* ours; the format has no limit */
#define FK_ST_MAX_NAME 4096         /* bytes of a tensor name; ours */

typedef struct FkSafetensors FkSafetensors;

typedef struct {
  const char *name;   /* UTF-8 without control characters, owned by the file */
  const int64_t *dim; /* rank dimensions, outermost first, each >= 0 */
  uint64_t begin;     /* position in the file, in bytes; unaligned */
  uint64_t bytes;
  uint8_t type; /* row of the table of types (types.h) */
  uint8_t rank; /* 0: a scalar */
} FkStTensor;

/* Reads and checks the header. NULL with FK_ERROR_MODEL_MISSING, _DENIED, _BAD (the message names file and tensor with
 * expected and found value) or _MEMORY. */
FkSafetensors *fk_safetensors_open(const char *path, GError **error);
/* The same for a header of at most `limit` bytes. */
FkSafetensors *fk_safetensors_open_within(const char *path, size_t limit, GError **error);
void fk_safetensors_free(FkSafetensors *st); /* (nullable) */
/* The path given to open, for messages: printable UTF-8. */
const char *fk_safetensors_path(const FkSafetensors *st);
size_t fk_safetensors_header_bytes(const FkSafetensors *st);

size_t fk_safetensors_count(const FkSafetensors *st);
/* Tensors in the order of their bytes. */
const FkStTensor *fk_safetensors_at(const FkSafetensors *st, size_t index);
/* (nullable) */
const FkStTensor *fk_safetensors_find(const FkSafetensors *st, const char *name);
/* A text of __metadata__; NULL: it has none of that key. */
const char *fk_safetensors_metadata(const FkSafetensors *st, const char *key);
/* Reads `bytes` bytes of a tensor from its byte `offset` on; any thread. The range must lie inside the tensor. */
bool fk_safetensors_read(const FkSafetensors *st, const FkStTensor *tensor, uint64_t offset, void *to, size_t bytes,
                         GError **error);

/* The format's name of the tensor's type, such as "BF16". */
const char *fk_st_type_name(const FkStTensor *tensor);
/* True for F32, F16, BF16 and F8_E4M3, which are numbers by themselves; weights may have other types too (numbers.h).
 */
bool fk_st_type_usable(const FkStTensor *tensor, FkDtype *dtype);
/* "[3072,64]". (transfer full) */
char *fk_st_shape_text(const int64_t *dim, int rank);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(FkSafetensors, fk_safetensors_free)

#endif
