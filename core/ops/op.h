/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the op line (ops.h) share: how an op begins, and what is asked of its operands. libc only. */
#ifndef FK_OP_H
#define FK_OP_H

#include "ops.h"
#include "profile.h"

/* As many rows and columns: an image and its rows are the same to an op on elements. */
static inline bool same_shape(FkTensor a, FkTensor b) {
  return fk_tensor_rows(a) == fk_tensor_rows(b) && fk_tensor_cols(a) == fk_tensor_cols(b);
}

/* n float32 numbers behind each other. */
static inline bool is_vector(FkTensor t, int64_t n) {
  return t.dtype == FK_F32 && t.rank == 1 && t.dim[0] == n;
}
/* Not given, or n float32 numbers. */
static inline bool is_optional_vector(FkTensor t, int64_t n) {
  return !fk_tensor_given(t) || is_vector(t, n);
}
/* n int32 numbers behind each other. */
static inline bool is_index(FkTensor t, int64_t n) {
  return t.dtype == FK_I32 && t.rank == 1 && t.dim[0] == n;
}

/* Of what is read or written once; holes of a view are not counted. */
static inline double bytes_of(FkTensor t) {
  return fk_tensor_given(t) ? (double)fk_tensor_bytes(t) : 0;
}

/* False: the backend has failed, do nothing. */
static inline bool begin_op(FkBackend *be, const char *op, double bytes) {
  if (be->failure != FK_FAIL_NONE) return false;
  if (be->profile) fk_profile_op(be, op);
  be->count.ops++;
  be->count.bytes += bytes;
  return true;
}

/* The op's name is its function's without "fk_op_". */
#define BEGIN(be, bytes) begin_op(be, __func__ + 6, bytes)

/* Scales of codes [rows, cols]: one for each row, or for `block` columns of `height` rows. */
static inline bool is_block_scale(FkTensor scale, FkTensor codes, int64_t height, int64_t block) {
  const int64_t rows = (fk_tensor_rows(codes) + height - 1) / height, cols = fk_tensor_cols(codes);
  return scale.dtype == FK_F32 && (codes.dtype == FK_E4M3 || codes.dtype == FK_I8) && scale.rank == 2 && block > 0 &&
         scale.dim[0] == rows && scale.dim[1] * block == cols;
}

/* Scales of a product's operand: one for each row, or for each 128 columns of it. */
static inline bool is_scale(FkTensor scale, FkTensor codes) {
  return is_block_scale(scale, codes, 1, FK_QUANT_BLOCK) ||
         (scale.dtype == FK_F32 && (codes.dtype == FK_E4M3 || codes.dtype == FK_I8) && scale.rank == 1 &&
          scale.dim[0] == fk_tensor_rows(codes));
}

static inline bool is_given(const FkBackend *be, FkTensor codes, float given) {
  return given >= 0 && (given <= 0 || (codes.dtype == FK_E4M3 && (be->can & FK_CAN_GIVEN_SCALE)));
}

/* Codes of the last columns of y, with their scales. */
static inline bool is_coded(FkTensor codes, FkTensor scale, FkTensor y) {
  return codes.dtype == FK_E4M3 && fk_tensor_rows(codes) == fk_tensor_rows(y) &&
         fk_tensor_cols(codes) <= fk_tensor_cols(y) && (y.dtype == FK_F32 || y.dtype == FK_BF16) &&
         is_scale(scale, codes);
}

/* Of a result that leaves as numbers, or in its last columns as codes. */
static inline double result_bytes(FkTensor y, FkTensor codes, FkTensor scale) {
  if (!fk_tensor_given(codes)) return bytes_of(y);
  const double numbers = 1 - (double)fk_tensor_cols(codes) / (double)fk_tensor_cols(y);
  return bytes_of(y) * numbers + bytes_of(codes) + bytes_of(scale);
}

#endif
