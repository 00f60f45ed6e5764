/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers in the forms that files of weights have: plain ones, codes of 8 and 4 bits, blocks of codes with their scales
 * inside; beside them scales of rows and of blocks. Whatever they are they become float32, with one product for each
 * scale, and are rounded once to what is asked for. The loader and the CPU backend expand with this code. libc only. */
#ifndef FK_BLOCKS_H
#define FK_BLOCKS_H

#include "tensor.h"

/* Numbers come in blocks of fk_code_values that take fk_code_bytes; of the first ones a block is one number. */
typedef enum {
  FK_CODE_NONE, /* not numbers of weights */
  FK_CODE_F32,
  FK_CODE_F16,
  FK_CODE_BF16,
  FK_CODE_E4M3,
  FK_CODE_E5M2,
  FK_CODE_I8,
  FK_CODE_E2M1, /* two in a byte, the first in its upper half */
  FK_CODE_Q4_0, /* these as GGUF has them */
  FK_CODE_Q4_1,
  FK_CODE_Q5_0,
  FK_CODE_Q5_1,
  FK_CODE_Q8_0,
  FK_CODE_Q2_K,
  FK_CODE_Q3_K,
  FK_CODE_Q4_K,
  FK_CODE_Q5_K,
  FK_CODE_Q6_K,
  FK_CODE_IQ4_NL,
  FK_CODE_IQ4_XS,
  FK_CODES
} FkCode;

int fk_code_values(FkCode code); /* at most 256 */
int fk_code_bytes(FkCode code);  /* at most 256 */
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

/* Rows below each other, all dense. */
typedef struct FkCoded {
  FkCodedForm form;
  int64_t rows, cols;
  const void *codes;       /* [rows] of fk_coded_row_bytes; NULL: not in memory */
  const float *row_scale;  /* [rows] */
  const void *block_scale; /* [rows, cols / block] */
} FkCoded;

/* Rows first..first+n. */
FkCoded fk_coded_slice(FkCoded coded, int64_t first, int64_t n);
/* All of it as [rows, cols]. */
void fk_coded_expand(const FkCoded *coded, float *to);

#endif
