/* SPDX-License-Identifier: Apache-2.0 */
/* The e4m3 linear layer of the CUDA module: y = epilogue((sum over K of x w * sx[m]) * sw[n] + bias), codes and scales
 * as quant.h makes them. Epilogues are those of linear.h (NONE, GELU, GATE, QKV); y is bf16. Hopper only.
 *
 * Sums. Of its 32 products and the sum so far the tensor core cuts each toward zero at 2^-13 of the largest, so long
 * sums of one sign shrink. Up to FK_FP8_ONCE_K all of K is added there: 0.1 % of error at K = 3072 on data without a
 * mean, a thirtieth of the quantisation's; 5 % too little where all products are positive. Above, after each
 * FK_FP8_GROUP blocks of 128 the sum so far is added in float32: 0.04 %, and 0.6 % too little. The order is part of the
 * format: it depends on K alone. */
#ifndef FK_LINEAR_FP8_H
#define FK_LINEAR_FP8_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include "linear.h"
#include "module.cuh"

constexpr int FK_FP8_ONCE_K = 4096, FK_FP8_GROUP = 4;

/* All pointers are device memory, all but x_scale 16-byte aligned. */
typedef struct {
  const uint8_t *x;     /* [m, K] codes */
  int64_t ldx;          /* bytes, multiple of 16 */
  const float *x_scale; /* [m] */
  float x_given;        /* what all of x_scale are, where that is known; else 0 */
  const uint8_t *w;     /* [N, K] codes, dense */
  const float *w_scale; /* [N] */
  const float *bias;    /* [N] or NULL */
  __nv_bfloat16 *y;     /* [m, N] */
  int64_t ldy;          /* elements, multiple of 8 */
  const float *gate;    /* [N] or NULL: 1 */
  const float *q_norm, *k_norm;
  const float2 *rope; /* [m, 64] */
  int m;
  /* GELU and QKV: the last columns of y, all or those of the MLP, rounded to bf16, leave as codes under a given scale
   * instead (FkLinear.y_codes). NULL: they leave as numbers. */
  uint8_t *codes;     /* [m, N or N - 3 D], multiples of 4 bytes */
  int64_t ld_codes;   /* bytes, multiple of 4 */
  float *codes_scale; /* [m], filled with the scale */
  FkGiven given;
} FkCudaFp8Group;

/* What is launched for a shape. band: token tiles that walk over the features together. */
typedef struct {
  bool promoted; /* sums in float32: the kernel of linear_fp8_sm90.cuh */
  int tokens;    /* of a tile */
  int band;
} FkFp8Plan;

/* Static, offline: follows from the shape and the number of multiprocessors. */
FkFp8Plan fk_cuda_linear_fp8_plan(int sms, int groups, const FkCudaFp8Group *g, int n, int k);

/* One launch for 1 or 2 groups of N columns; width: D of the QKV epilogue; plan NULL: the one above. Asynchronous; fit
 * for graph capture once the same kernel ran. cudaErrorNotSupported, with nothing enqueued: another architecture,
 * N % 256, K % 16, misaligned operands, SILU and QUICK_GELU, GELU and QKV above FK_FP8_ONCE_K, codes of the others. A
 * row's bytes depend on neither m, nor the other group, nor the tile.
 *
 * GATE above FK_FP8_ONCE_K: gate * (...) is rounded to bf16 and added in memory, which rounds again. */
cudaError_t fk_cuda_linear_fp8(FkCuda *cu, int groups, const FkCudaFp8Group *g, int n, int k, FkLinearEpilogue epilogue,
                               int width, const FkFp8Plan *plan = NULL);

#endif
