/* SPDX-License-Identifier: Apache-2.0 */
/* The linear layer of the CUDA module as its kernels see it. The operation is that of core/ops/backend.h (FkLinear):
 * y = epilogue(x W^T + bias); shapes below are per group, N and K are common to both groups. */
#ifndef FK_LINEAR_H
#define FK_LINEAR_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

typedef enum {
  FK_LINEAR_NONE,
  FK_LINEAR_SILU,
  FK_LINEAR_GELU,
  FK_LINEAR_QUICK_GELU,
  FK_LINEAR_GATE, /* y += gate * (x W^T + bias); gate NULL: 1 */
  FK_LINEAR_QKV   /* columns [K | V | Q | MLP] of widths D, D, D, N - 3D; heads of 128 */
} FkLinearEpilogue;

/* All pointers are device memory and 16-byte aligned; ld in elements, multiples of 8. */
typedef struct {
  const __nv_bfloat16 *x; /* [m, K] */
  int64_t ldx;
  const __nv_bfloat16 *w; /* [N, K] dense */
  const float *bias;      /* [N] or NULL */
  void *y;                /* [m, N] bf16, or float32 where y_f32 */
  int64_t ldy;
  const float *gate;            /* [N] */
  const float *q_norm, *k_norm; /* [128] */
  const float2 *rope;           /* [m, 64] (cos, sin) of this group's rows */
  int m;
} FkCudaLinearGroup;

#endif
