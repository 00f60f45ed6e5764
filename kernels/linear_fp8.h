/* SPDX-License-Identifier: Apache-2.0 */
/* The e4m3 linear layer of the CUDA module: y = epilogue(sw[n] * sum over K of x w + bias), codes and scales as
 * quant.h makes them. Epilogues are those of linear.h (NONE, GELU, GATE, QKV); y is bf16. Hopper only.
 *
 * Sums: the tensor core adds up to FK_FP8_GROUP blocks of 128 columns of K (it keeps 14 bits below the largest term),
 * then the block's sum is added in float32. This order is part of the format: it depends on no tile. */
#ifndef FK_LINEAR_FP8_H
#define FK_LINEAR_FP8_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include "linear.h"

#define FK_FP8_GROUP 4

typedef enum {
  FK_FP8_ROW,   /* one scale a row of x; float32 sums of 4 blocks: y = (sum * sx[m]) * sw[n] + bias */
  FK_FP8_BLOCK, /* one scale a row and 128 columns of x; each block times its scale: y = sum * sw[n] + bias */
  FK_FP8_ONCE   /* as ROW, all of K in the tensor core; to compare with */
} FkFp8Sum;

/* All pointers are device memory and 16-byte aligned. */
typedef struct {
  const uint8_t *x; /* [m, K] codes */
  int64_t ldx;      /* bytes, multiple of 16 */
  const float *x_scale;
  int64_t ld_scale;     /* BLOCK: x_scale is [K / 128, ld_scale], a row of tokens a block; multiple of 4 */
  const uint8_t *w;     /* [N, K] codes, dense */
  const float *w_scale; /* [N] */
  const float *bias;    /* [N] or NULL */
  __nv_bfloat16 *y;     /* [m, N] */
  int64_t ldy;          /* elements, multiple of 8 */
  const float *gate;    /* [N] or NULL: 1 */
  const float *q_norm, *k_norm;
  const float2 *rope; /* [m, 64] */
  int m;
} FkCudaFp8Group;

#define FK_FP8_KERNELS 64

/* What the launcher learns of a device at the first launch of a kernel; zeroed by the owner, one a device. */
typedef struct {
  int sms, major;
  int clusters[FK_FP8_KERNELS]; /* that run at once, 0: not asked yet */
} FkFp8State;

/* tokens: of a tile, 0: chosen from the shape; band: token tiles that walk over the features together, 0: 11. */
typedef struct {
  FkFp8Sum sum;
  int tokens, band;
} FkFp8Choice;

/* One launch for 1 or 2 groups; asynchronous, fit for graph capture once the same kernel ran. cudaErrorNotSupported,
 * with nothing enqueued: another architecture, N % 256, K % 16, K <= 384, misaligned operands, an epilogue without a
 * kernel. A row's bytes depend on neither m, nor the other group, nor the tile. */
cudaError_t fk_cuda_linear_fp8(FkFp8State *state, cudaStream_t stream, int groups, const FkCudaFp8Group *g, int n,
                               int k, int epilogue, int width, FkFp8Choice choice);

#endif
