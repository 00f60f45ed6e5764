/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors as the op line sees them: a typed view of memory that somebody else owns. libc only.
 *
 * Shape letters used all over the project:
 *   S tokens, T text tokens, D model width, N attention heads, E head width, K inner size of a product,
 *   C channels, H height, W width. Images and feature maps are channels-last: [H, W, C].
 *
 * A view is row-major; the innermost axis is contiguous, and `ld` counts the elements from one row of the innermost
 * axis to the next, so a block of columns of a wider buffer is a view too. Outer axes follow each other without holes.
 */
#ifndef FK_TENSOR_H
#define FK_TENSOR_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
  FK_F32,
  FK_BF16,
  FK_F16,
  FK_I32,
  FK_U8,
  FK_I8,   /* codes of a symmetric grid: value = code * scale */
  FK_E4M3, /* 8-bit float of 4 exponent and 3 mantissa bits, no infinity, largest 448 */
  FK_E8M0, /* a power of two: scales of MX formats */
  FK_E2M1, /* 4-bit float, two in a byte */
  FK_DTYPES
} FkDtype;

static inline int fk_dtype_bits(FkDtype dtype) {
  static const uint8_t bits[FK_DTYPES] = {[FK_F32] = 32, [FK_BF16] = 16, [FK_F16] = 16, [FK_I32] = 32, [FK_U8] = 8,
                                          [FK_I8] = 8,   [FK_E4M3] = 8,  [FK_E8M0] = 8, [FK_E2M1] = 4};
  assert((unsigned)dtype < FK_DTYPES);
  return bits[dtype];
}

/* Bytes of one element; of types that fill whole bytes only. */
static inline size_t fk_dtype_size(FkDtype dtype) {
  assert(fk_dtype_bits(dtype) % 8 == 0);
  return (size_t)fk_dtype_bits(dtype) / 8;
}

typedef struct {
  void *data; /* backend memory (device memory on CUDA); NULL: no tensor, or a null backend */
  FkDtype dtype;
  int rank;       /* 1..3; 0: no tensor */
  int64_t dim[3]; /* outermost first */
  int64_t ld;     /* elements between rows of the innermost axis */
} FkTensor;

/* The absent tensor: an optional operand that is not given. */
static inline FkTensor fk_tensor_none(void) {
  return (FkTensor){0};
}
static inline bool fk_tensor_given(FkTensor t) {
  return t.rank > 0;
}

static inline FkTensor fk_tensor_1d(void *data, FkDtype dtype, int64_t n) {
  return (FkTensor){data, dtype, 1, {n, 0, 0}, n};
}

static inline FkTensor fk_tensor_2d(void *data, FkDtype dtype, int64_t rows, int64_t cols) {
  return (FkTensor){data, dtype, 2, {rows, cols, 0}, cols};
}

static inline FkTensor fk_tensor_3d(void *data, FkDtype dtype, int64_t a, int64_t b, int64_t c) {
  return (FkTensor){data, dtype, 3, {a, b, c}, c};
}

static inline int64_t fk_tensor_cols(FkTensor t) {
  return t.dim[t.rank - 1];
}

/* Rows of the innermost axis: the product of the outer axes. */
static inline int64_t fk_tensor_rows(FkTensor t) {
  return t.rank == 1 ? 1 : t.rank == 2 ? t.dim[0] : t.dim[0] * t.dim[1];
}

static inline int64_t fk_tensor_count(FkTensor t) {
  return fk_tensor_rows(t) * fk_tensor_cols(t);
}
static inline size_t fk_tensor_bytes(FkTensor t) {
  return (size_t)fk_tensor_count(t) * fk_dtype_size(t.dtype);
}

static inline void *fk_tensor_at(FkTensor t, int64_t element) {
  return t.data ? (char *)t.data + element * (int64_t)fk_dtype_size(t.dtype) : NULL;
}

/* [rows, cols] with the outer axes folded together. */
static inline FkTensor fk_tensor_flat(FkTensor t) {
  return (FkTensor){t.data, t.dtype, 2, {fk_tensor_rows(t), fk_tensor_cols(t), 0}, t.ld};
}

/* Rows first..first+n of the flattened view. */
static inline FkTensor fk_tensor_slice_rows(FkTensor t, int64_t first, int64_t n) {
  assert(first >= 0 && n >= 0 && first + n <= fk_tensor_rows(t));
  return (FkTensor){fk_tensor_at(t, first * t.ld), t.dtype, 2, {n, fk_tensor_cols(t), 0}, t.ld};
}

/* Columns first..first+n of every row of the flattened view. */
static inline FkTensor fk_tensor_slice_cols(FkTensor t, int64_t first, int64_t n) {
  assert(first >= 0 && n >= 0 && first + n <= fk_tensor_cols(t));
  return (FkTensor){fk_tensor_at(t, first), t.dtype, 2, {fk_tensor_rows(t), n, 0}, t.ld};
}

/* One row as a vector. */
static inline FkTensor fk_tensor_row(FkTensor t, int64_t row) {
  assert(row >= 0 && row < fk_tensor_rows(t));
  return fk_tensor_1d(fk_tensor_at(t, row * t.ld), t.dtype, fk_tensor_cols(t));
}

/* n elements of a vector. */
static inline FkTensor fk_tensor_slice(FkTensor t, int64_t first, int64_t n) {
  assert(t.rank == 1 && first >= 0 && first + n <= t.dim[0]);
  return fk_tensor_1d(fk_tensor_at(t, first), t.dtype, n);
}

/* What one scale covers: the whole matrix, an output row, or `block` neighbouring elements of an output row. */
typedef enum { FK_SCALE_NONE, FK_SCALE_TENSOR, FK_SCALE_ROW, FK_SCALE_BLOCK } FkScaleKind;

/* data: [1], [out] or [out, in / block] by kind, float32 or E8M0. value = code * scale. */
typedef struct {
  const void *data;
  FkDtype dtype;
  FkScaleKind kind;
  int block;
} FkScale;

/* Order of a matrix' elements in memory. */
typedef enum { FK_LAYOUT_ROWS /* row-major */ } FkLayout;

/* A matrix of parameters. A linear op takes this and never a bare matrix, so quantised and packed weights need no slot.
 */
typedef struct FkWeight {
  const void *data; /* [out, in]; convolution: [out, kh, kw, in] with in = kh * kw * C */
  FkDtype dtype;
  FkLayout layout;
  int64_t out, in;
  FkScale scale;
  float x_scale; /* the input's scale where that is fixed by calibration; 0: measured per row at run time */
  const struct FkWeight *full; /* the same matrix unquantised, for evaluations in full precision; NULL: not held */
  const struct FkWeight *odd;  /* the matrix in other codes, for evaluations of odd number; NULL: not held */
  const struct FkCoded *coded; /* the matrix as its file has it, in parts below each other (blocks.h), `data` NULL: made
                                  numbers of `dtype` just before it is used; NULL: data are what they are */
  int64_t first;               /* row of `full`, `odd` and `coded` that is this one's row 0 */
} FkWeight;

/* Output rows first..first+n of a weight: fused projections are stored one below the other. */
static inline FkWeight fk_weight_rows(FkWeight w, int64_t first, int64_t n) {
  assert(first >= 0 && first + n <= w.out);
  const int64_t per_row = w.scale.kind == FK_SCALE_ROW ? 1 : w.scale.kind == FK_SCALE_BLOCK ? w.in / w.scale.block : 0;
  if (w.data) w.data = (const char *)w.data + first * w.in * fk_dtype_bits(w.dtype) / 8;
  if (w.scale.data) w.scale.data = (const char *)w.scale.data + first * per_row * fk_dtype_bits(w.scale.dtype) / 8;
  w.first += first;
  w.out = n;
  return w;
}

/* The weight in full precision: itself, or its twin. */
static inline FkWeight fk_weight_full(FkWeight w) {
  return w.full ? fk_weight_rows(*w.full, w.first, w.out) : w;
}

/* The weight of evaluations of odd number: its other codes, where it has some. */
static inline FkWeight fk_weight_odd(FkWeight w) {
  if (!w.odd) return w;
  FkWeight odd = fk_weight_rows(*w.odd, w.first, w.out);
  odd.x_scale = w.x_scale;
  return odd;
}

#endif
