/* SPDX-License-Identifier: Apache-2.0 */
/* The linear layer of bf16 numbers and weights in E4M3 codes (FkLinear, "w alone"), for few rows: modulations, of which
 * one product serves all evaluations. Bound by reading the codes once. No QKV epilogue: the op line composes it. */
#include "linear_any.cuh"

namespace {

constexpr int kFeatures = 16; /* of a block: rows of one tensor-core product */
constexpr int kWarps = 4;
constexpr int kTurn = 256; /* columns of K that a warp takes at a time */

/* 16 codes, or as many bf16 in two vectors; zeros outside. Wide: K is a multiple of 16 and everything is aligned. */
template <bool Wide> FK_DEVICE uint4 load_codes(const uint8_t *row, int col, int cols, bool inside) {
  uint4 v = make_uint4(0, 0, 0, 0);
  if (!inside || col >= cols) return v;
  if constexpr (Wide) {
    return __ldcs((const uint4 *)(row + col));
  } else {
    uint32_t w[4] = {};
#pragma unroll
    for (int i = 0; i < 16; i++)
      if (col + i < cols) w[i / 4] |= (uint32_t)row[col + i] << 8 * (i % 4);
    return make_uint4(w[0], w[1], w[2], w[3]);
  }
}

template <bool Wide>
FK_DEVICE void load_numbers(const __nv_bfloat16 *row, int col, int cols, bool inside, uint32_t (&v)[8]) {
  if constexpr (Wide) {
    const bool any = inside && col < cols;
    const uint4 a = any ? *(const uint4 *)(row + col) : make_uint4(0, 0, 0, 0);
    const uint4 b = any ? *(const uint4 *)(row + col + 8) : make_uint4(0, 0, 0, 0);
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
  } else {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const int c = col + 2 * i;
      const uint32_t low = inside && c < cols ? (uint32_t)__bfloat16_as_ushort(row[c]) : 0;
      const uint32_t high = inside && c + 1 < cols ? (uint32_t)__bfloat16_as_ushort(row[c + 1]) : 0;
      v[i] = low | high << 16;
    }
  }
}

/* 16 features and 8 T rows of x a block, 128 threads; grid: features, rows, groups. A warp takes 256 columns of K, then
 * the 256 behind those of the other three; the sums of the warps are added in their order, then scaled. So a result
 * depends on its own row of x and on K alone, not on T. Which columns of a fragment are which is a convention that x
 * and W share, so a lane reads 16 codes that lie together: columns 16 p.. of 64 for lane p of a quad.
 *
 * T = 1: 2 KB shared; T = 4: 8 KB; registers: 80 and 168 at most. Floor: bytes of W / 4.25 TB/s.
 * 28 rows of 3072 by 18432 on an H200: 31.7 us, 1.85 TB/s (docs/speed.md); x comes from the first-level cache. */
template <int T, bool Wide>
__global__ void __launch_bounds__(32 * kWarps, T == 1 ? 6 : 3)
    linear_weight_codes_kernel(const __grid_constant__ FkAnyArgs a) {
  __shared__ float part[kWarps][8 * T][kFeatures];
  const FkCudaLinearGroup &g = a.g[blockIdx.z];
  const int warp = threadIdx.x / 32, quad = threadIdx.x % 32 / 4, p = threadIdx.x & 3;
  const int n0 = blockIdx.x * kFeatures, m0 = blockIdx.y * 8 * T;
  const uint8_t *w = (const uint8_t *)g.w + (int64_t)(n0 + quad) * a.k;
  if (m0 >= g.m) return;
  float acc[T][4] = {};
  for (int k0 = warp * kTurn; k0 < a.k; k0 += kWarps * kTurn) {
    uint4 codes[kTurn / 64][2];
#pragma unroll
    for (int u = 0; u < kTurn / 64; u++)
#pragma unroll
      for (int h = 0; h < 2; h++)
        codes[u][h] = load_codes<Wide>(w + (int64_t)(8 * h) * a.k, k0 + 64 * u + 16 * p, a.k, n0 + quad + 8 * h < a.n);
#pragma unroll
    for (int u = 0; u < kTurn / 64; u++) {
      const uint32_t low[4] = {codes[u][0].x, codes[u][0].y, codes[u][0].z, codes[u][0].w};
      const uint32_t high[4] = {codes[u][1].x, codes[u][1].y, codes[u][1].z, codes[u][1].w};
      uint32_t x[T][8];
#pragma unroll
      for (int t = 0; t < T; t++) {
        const int row = m0 + 8 * t + quad;
        load_numbers<Wide>((const __nv_bfloat16 *)g.x + row * g.ldx, k0 + 64 * u + 16 * p, a.k, row < g.m, x[t]);
      }
#pragma unroll
      for (int s = 0; s < 4; s++) {
        const uint32_t f[4] = {fk_any_decode(low[s] & 0xffff), fk_any_decode(high[s] & 0xffff),
                               fk_any_decode(low[s] >> 16), fk_any_decode(high[s] >> 16)};
#pragma unroll
        for (int t = 0; t < T; t++) fk_mma(acc[t], f, x[t][2 * s], x[t][2 * s + 1]);
      }
    }
  }
#pragma unroll
  for (int t = 0; t < T; t++)
#pragma unroll
    for (int e = 0; e < 4; e++) part[warp][8 * t + 2 * p + e % 2][quad + 8 * (e / 2)] = acc[t][e];
  __syncthreads();
#pragma unroll
  for (int i = threadIdx.x; i < 8 * T * kFeatures; i += 32 * kWarps) {
    const int row = i / kFeatures, col = i % kFeatures;
    if (m0 + row >= g.m || n0 + col >= a.n) continue;
    float v = part[0][row][col];
#pragma unroll
    for (int j = 1; j < kWarps; j++) v += part[j][row][col];
    v *= a.w_scale[blockIdx.z][(n0 + col) * a.w_step[blockIdx.z]];
    fk_any_finish(g, m0 + row, n0 + col, v, a.epilogue, a.y_f32);
  }
}

template <int T> cudaError_t run(FkCuda *cu, const FkAnyArgs &a, int rows, int groups, bool wide) {
  const dim3 grid((a.n + kFeatures - 1) / kFeatures, (rows + 8 * T - 1) / (8 * T), groups);
  if (wide)
    linear_weight_codes_kernel<T, true><<<grid, 32 * kWarps, 0, cu->stream>>>(a);
  else
    linear_weight_codes_kernel<T, false><<<grid, 32 * kWarps, 0, cu->stream>>>(a);
  return cudaGetLastError();
}

} // namespace

cudaError_t fk_cuda_linear_weight_codes(FkCuda *cu, const FkAnyArgs *a, int groups) {
  int rows = 0;
  bool wide = a->k % 16 == 0;
  if (a->epilogue == FK_LINEAR_QKV) return cudaErrorNotSupported;
  for (int i = 0; i < groups; i++) {
    rows = a->g[i].m > rows ? a->g[i].m : rows;
    wide = wide && ((uintptr_t)a->g[i].x | (uintptr_t)a->g[i].w) % 16 == 0 && a->g[i].ldx % 8 == 0;
  }
  return rows <= 8 ? run<1>(cu, *a, rows, groups, wide) : run<4>(cu, *a, rows, groups, wide);
}
