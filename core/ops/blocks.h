/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers in the forms that files of weights have: plain ones, codes of 8 and 4 bits, blocks of codes with their scales
 * inside; beside them scales of rows and of blocks. Whatever they are they become float32, with one product for each
 * scale, and are rounded once to what is asked for. The loader and the CPU backend expand with this code. libc only. */
#ifndef FK_BLOCKS_H
#define FK_BLOCKS_H

#include "tensor.h"

/* X(name, values, bytes): numbers come in blocks of so many values that take so many bytes, at most 256 of either; of
 * the first ones a block is one number. E2M1: two in a byte, the first in its upper half. From Q4_0 on as GGUF has
 * them. */
/* clang-format off */
#define FK_CODE_LIST(X)                                                                                                \
  X(F32, 1, 4) X(F16, 1, 2) X(BF16, 1, 2) X(E4M3, 1, 1) X(E5M2, 1, 1) X(I8, 1, 1) X(E2M1, 2, 1)                         \
  X(Q4_0, 32, 18) X(Q4_1, 32, 20) X(Q5_0, 32, 22) X(Q5_1, 32, 24) X(Q8_0, 32, 34) X(IQ4_NL, 32, 18)                     \
  X(Q2_K, 256, 84) X(Q3_K, 256, 110) X(Q4_K, 256, 144) X(Q5_K, 256, 176) X(Q6_K, 256, 210) X(IQ4_XS, 256, 136)
/* clang-format on */

typedef enum {
  FK_CODE_NONE, /* not numbers of weights */
#define FK_CODE_NAME(name, values, bytes) FK_CODE_##name,
  FK_CODE_LIST(FK_CODE_NAME)
#undef FK_CODE_NAME
      FK_CODES
} FkCode;

static inline int fk_code_values(FkCode code) {
#define FK_CODE_VALUES(name, values, bytes) values,
  static const uint16_t values[FK_CODES] = {1, FK_CODE_LIST(FK_CODE_VALUES)};
#undef FK_CODE_VALUES
  assert(code > FK_CODE_NONE && code < FK_CODES);
  return values[code];
}

static inline int fk_code_bytes(FkCode code) {
#define FK_CODE_BYTES(name, values, bytes) bytes,
  static const uint16_t bytes[FK_CODES] = {0, FK_CODE_LIST(FK_CODE_BYTES)};
#undef FK_CODE_BYTES
  assert(code > FK_CODE_NONE && code < FK_CODES);
  return bytes[code];
}

/* FK_CODE_F32, F16, BF16: they are float32 without arithmetic. */
static inline bool fk_code_plain(FkCode code) {
  return code == FK_CODE_F32 || code == FK_CODE_F16 || code == FK_CODE_BF16;
}

/* What a number is made of: value = code * (row's scale * block's scale), those that there are. */
typedef struct {
  FkCode code;
  bool row_scale;      /* a float32 for each row */
  int block;           /* columns of a row under one scale of block_dtype; 0: none */
  FkDtype block_dtype; /* FK_E8M0, FK_E4M3 */
} FkCodedForm;

static inline size_t fk_coded_row_bytes(FkCodedForm form, int64_t cols) { /* of codes */
  return (size_t)(cols / fk_code_values(form.code)) * (size_t)fk_code_bytes(form.code);
}
static inline size_t fk_coded_row_scales(FkCodedForm form, int64_t cols) { /* scales of a row's blocks, a byte each */
  return form.block ? (size_t)(cols / form.block) : 0;
}

/* Rows below each other, all dense. What adapters add to them (FkAdapted) is no part of fk_coded_expand. */
typedef struct FkCoded {
  FkCodedForm form;
  int64_t rows, cols;
  const void *codes;               /* [rows] of fk_coded_row_bytes; NULL: not in memory */
  const float *row_scale;          /* [rows] */
  const void *block_scale;         /* [rows, cols / block] */
  const struct FkAdapted *adapted; /* is added to the numbers before they are rounded, of whatever rows these are; NULL:
                                      nothing. In memory, of type `operands` (float32, bfloat16, float16): */
  const void *right, *left;        /* the terms' right parts one behind the other; [rows, ranks of all terms] */
  FkDtype operands;
} FkCoded;

/* Rows first..first+n. */
FkCoded fk_coded_slice(FkCoded coded, int64_t first, int64_t n);
/* All of it as [rows, cols]. */
void fk_coded_expand(const FkCoded *coded, float *to);

#endif
