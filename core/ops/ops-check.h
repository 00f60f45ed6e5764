/* SPDX-License-Identifier: Apache-2.0 */
/* What every op of the op line does first: its operands are looked at and counted. For ops.c and ops-pixels.c. */
#ifndef FK_OPS_CHECK_H
#define FK_OPS_CHECK_H

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

#endif
