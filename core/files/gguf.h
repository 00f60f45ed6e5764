/* SPDX-License-Identifier: Apache-2.0 */
/* GGUF files: the same object as of a safetensors file. Shapes are turned around, outermost first; of the key-value
 * pairs only the alignment counts. */
#ifndef FK_GGUF_H
#define FK_GGUF_H

#include "safetensors.h"

/* The file begins with "GGUF"; false also where it cannot be read. */
bool fk_gguf_is(const char *path);
/* Reads and checks a header of at most `limit` bytes. NULL with FK_ERROR_MODEL_MISSING, _DENIED, _BAD or _MEMORY. */
FkSafetensors *fk_gguf_open_within(const char *path, size_t limit, GError **error);

#endif
