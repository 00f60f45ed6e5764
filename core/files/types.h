/* SPDX-License-Identifier: Apache-2.0 */
/* The types that numbers have in files: those of safetensors and of GGUF in one table. */
#ifndef FK_TYPES_H
#define FK_TYPES_H

#include "blocks.h"

/* Numbers come in blocks of `values` that take `bytes`; of most types a block is one number. */
typedef struct {
  const char *name;  /* as the format calls it */
  int values, bytes; /* values <= 256, bytes <= 256 */
  int ggml;          /* GGUF's number of the type; -1: not in GGUF */
  bool safetensors;  /* that format has the name */
  bool plain;        /* `dtype` is the same number */
  FkDtype dtype;
  FkCode code; /* of its blocks; FK_CODE_NONE: nothing that weights are made of by itself */
} FkNumberType;

/* NULL: no such row. */
const FkNumberType *fk_number_type(int row);
/* The row of a name of safetensors, or of GGUF's number; -1: there is none. */
int fk_number_type_named(const char *name);
int fk_number_type_ggml(uint32_t number);
/* By the name that either format has; FK_CODE_NONE: there is none, or weights are not made of it. */
FkCode fk_number_code(const char *name);

/* What GGUF calls a type that is not read here; NULL: no such type. */
const char *fk_ggml_type_name(uint32_t number);

#endif
