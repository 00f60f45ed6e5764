/* SPDX-License-Identifier: Apache-2.0 */
/* The linear layer without conditions on M, N, K, strides or alignment, of bf16 numbers or of E4M3 codes, for sm_80 and
 * later: odd shapes, and architectures for which the Hopper kernels have no code. Written to be right, not fast. No QKV
 * epilogue: the op line composes it.
 *
 * Codes are multiplied as the bf16 numbers that they are exactly; after every FK_QUANT_PROMOTE of K their sum goes into
 * a second one (core/ops/backend.h). */
#ifndef FK_LINEAR_ANY_CUH
#define FK_LINEAR_ANY_CUH

#include <cuda_fp8.h>

#include "common.cuh"
#include "linear.h"
#include "module.cuh"

constexpr int FK_ANY_TILE = 64, FK_ANY_BK = 32;
constexpr int FK_ANY_PITCH = FK_ANY_BK + 8; /* 80-byte rows: the eight rows of a fragment fall into different banks */

/* One thread's share of a 64 x 32 tile: 16 elements of a row; zeros outside. fast: whole, aligned 16-byte vectors. */
FK_DEVICE void fk_any_fetch(const __nv_bfloat16 *base, int64_t ld, int row, int rows, int col, int cols, bool fast,
                            uint4 (&v)[2]) {
  const __nv_bfloat16 *p = base + row * ld + col;
  v[0] = v[1] = make_uint4(0, 0, 0, 0);
  if (row >= rows) return;
  if (fast && col + 16 <= cols) {
    v[0] = *(const uint4 *)p;
    v[1] = *((const uint4 *)p + 1);
    return;
  }
  uint32_t w[8];
#pragma unroll
  for (int i = 0; i < 8; i++) {
    uint32_t lo = col + 2 * i < cols ? (uint32_t)__bfloat16_as_ushort(p[2 * i]) : 0;
    uint32_t hi = col + 2 * i + 1 < cols ? (uint32_t)__bfloat16_as_ushort(p[2 * i + 1]) : 0;
    w[i] = lo | hi << 16;
  }
  v[0] = make_uint4(w[0], w[1], w[2], w[3]);
  v[1] = make_uint4(w[4], w[5], w[6], w[7]);
}

/* Two codes, the first in the low byte, as two bf16. */
FK_DEVICE uint32_t fk_any_decode(uint32_t two) {
  const float2 f = __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2((__nv_fp8x2_storage_t)two, __NV_E4M3)));
  return fk_pack_bf16(f.x, f.y);
}

/* The same for codes. */
FK_DEVICE void fk_any_fetch(const uint8_t *base, int64_t ld, int row, int rows, int col, int cols, bool fast,
                            uint4 (&v)[2]) {
  const uint8_t *p = base + row * ld + col;
  uint4 c = make_uint4(0, 0, 0, 0);
  if (row < rows && fast && col + 16 <= cols) {
    c = *(const uint4 *)p;
  } else if (row < rows) {
    uint32_t w[4] = {};
#pragma unroll
    for (int i = 0; i < 16; i++)
      if (col + i < cols) w[i / 4] |= (uint32_t)p[i] << 8 * (i % 4);
    c = make_uint4(w[0], w[1], w[2], w[3]);
  }
  v[0] = make_uint4(fk_any_decode(c.x & 0xffff), fk_any_decode(c.x >> 16), fk_any_decode(c.y & 0xffff),
                    fk_any_decode(c.y >> 16));
  v[1] = make_uint4(fk_any_decode(c.z & 0xffff), fk_any_decode(c.z >> 16), fk_any_decode(c.w & 0xffff),
                    fk_any_decode(c.w >> 16));
}

/* 32 x 32 of the tile by one warp, over one 64 x 32 pair of tiles. */
FK_DEVICE void fk_any_products(const __nv_bfloat16 *xs, const __nv_bfloat16 *ws, int row, int col,
                               float (&acc)[2][4][4]) {
  int lane = threadIdx.x & 31, g = lane / 4, p = lane & 3;
#pragma unroll
  for (int k = 0; k < FK_ANY_BK; k += 16) {
    uint32_t a[2][4], b[4][2];
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int j = 0; j < 4; j++)
        a[i][j] = fk_load2(xs + (row + 16 * i + g + 8 * (j & 1)) * FK_ANY_PITCH + k + 2 * p + 8 * (j / 2));
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 2; j++) b[i][j] = fk_load2(ws + (col + 8 * i + g) * FK_ANY_PITCH + k + 2 * p + 8 * j);
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) fk_mma(acc[i][j], a[i], b[j][0], b[j][1]);
  }
}

FK_DEVICE void fk_any_finish(const FkCudaLinearGroup &g, int row, int col, float v, int epilogue, int y_f32) {
  if (g.bias) v += g.bias[col];
  if (epilogue == FK_LINEAR_SILU) v = fk_silu(v);
  if (epilogue == FK_LINEAR_GELU) v = fk_gelu_tanh(v);
  if (epilogue == FK_LINEAR_QUICK_GELU) v = fk_quick_gelu(v);
  int64_t at = row * g.ldy + col;
  float *yf = (float *)g.y + at;
  __nv_bfloat16 *yb = (__nv_bfloat16 *)g.y + at;
  if (epilogue == FK_LINEAR_GATE) v = (y_f32 ? *yf : __bfloat162float(*yb)) + (g.gate ? g.gate[col] : 1.0f) * v;
  if (y_f32)
    *yf = v;
  else
    *yb = __float2bfloat16(v);
}

typedef struct {
  FkCudaLinearGroup g[2]; /* x, w: T */
  const float *x_scale[2], *w_scale[2];
  int w_step[2]; /* of codes: 1: w_scale [N], 0: [1] */
  int n, k, epilogue, y_f32;
} FkAnyArgs;

/* linear_weight_codes.cu: x bf16, w codes, whatever their sizes and alignment. */
cudaError_t fk_cuda_linear_weight_codes(FkCuda *cu, const FkAnyArgs *a, int groups);

/* Tile 64 x 64 x 32, 128 threads (four warps of 32 x 32), 10,240 bytes shared, 80 registers (codes: 126); grid:
 * columns, rows, groups. T: __nv_bfloat16, or uint8_t: codes. The next slice is read into registers while the present
 * one is multiplied; bound by the latency of these reads, and by fragments read from shared memory a word at a time.
 * Not measured: no layer of the model comes here on Hopper. */
template <class T> __global__ void __launch_bounds__(128) linear_any_kernel(const __grid_constant__ FkAnyArgs a) {
  constexpr bool codes = sizeof(T) == 1;
  constexpr int vector = 16 / sizeof(T);
  __shared__ __align__(16) __nv_bfloat16 xs[FK_ANY_TILE * FK_ANY_PITCH], ws[FK_ANY_TILE * FK_ANY_PITCH];
  const FkCudaLinearGroup &g = a.g[blockIdx.z];
  const T *x = (const T *)g.x, *w = (const T *)g.w;
  int col0 = blockIdx.x * FK_ANY_TILE, row0 = blockIdx.y * FK_ANY_TILE;
  int tid = threadIdx.x, line = tid / 2, at = (tid & 1) * 16, warp = tid / 32, lane = tid & 31;
  if (row0 >= g.m) return;
  bool fast_x = g.ldx % vector == 0 && (uintptr_t)x % 16 == 0, fast_w = a.k % vector == 0 && (uintptr_t)w % 16 == 0;
  float acc[2][4][4] = {}, sum[2][4][4] = {};
  uint4 xv[2], wv[2];
  fk_any_fetch(x, g.ldx, row0 + line, g.m, at, a.k, fast_x, xv);
  fk_any_fetch(w, a.k, col0 + line, a.n, at, a.k, fast_w, wv);
  for (int k = 0; k < a.k; k += FK_ANY_BK) {
    uint4 *xd = (uint4 *)(xs + line * FK_ANY_PITCH + at), *wd = (uint4 *)(ws + line * FK_ANY_PITCH + at);
    xd[0] = xv[0], xd[1] = xv[1], wd[0] = wv[0], wd[1] = wv[1];
    __syncthreads();
    if (k + FK_ANY_BK < a.k) {
      fk_any_fetch(x, g.ldx, row0 + line, g.m, k + FK_ANY_BK + at, a.k, fast_x, xv);
      fk_any_fetch(w, a.k, col0 + line, a.n, k + FK_ANY_BK + at, a.k, fast_w, wv);
    }
    fk_any_products(xs, ws, (warp & 1) * 32, (warp / 2) * 32, acc);
    __syncthreads();
    if (codes && ((k + FK_ANY_BK) % FK_QUANT_PROMOTE == 0 || k + FK_ANY_BK >= a.k))
#pragma unroll
      for (int i = 0; i < 32; i++) (&sum[0][0][0])[i] += (&acc[0][0][0])[i], (&acc[0][0][0])[i] = 0;
  }
#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        int row = row0 + (warp & 1) * 32 + 16 * i + lane / 4 + 8 * (e / 2);
        int col = col0 + (warp / 2) * 32 + 8 * j + 2 * (lane & 3) + e % 2;
        if (row >= g.m || col >= a.n) continue;
        float v = acc[i][j][e];
        if (codes) v = sum[i][j][e] * a.x_scale[blockIdx.z][row] * a.w_scale[blockIdx.z][col * a.w_step[blockIdx.z]];
        fk_any_finish(g, row, col, v, a.epilogue, a.y_f32);
      }
}

#endif
