/* SPDX-License-Identifier: Apache-2.0 */
/* The sums of adapters' products in registers: s = s + left[k] * right[k] for k in order, every product and sum rounded
 * (no fused multiply-add), so that the bytes are those of cpu-adapt.c. A thread has columns `col` and `col` +
 * kAdaptThreads of kAdaptRows rows, a block kAdaptCols columns; left parts of kAdaptRanks ranks at a time are in shared
 * memory. */
#ifndef FK_ADAPT_CUH
#define FK_ADAPT_CUH

#include <cuda_fp16.h>

#include "common.cuh"

constexpr int kAdaptRows = 16, kAdaptThreads = 128, kAdaptPerThread = 2, kAdaptRanks = 64;
constexpr int kAdaptCols = kAdaptThreads * kAdaptPerThread;

FK_DEVICE float fk_adapt_wide(float v) {
  return v;
}
FK_DEVICE float fk_adapt_wide(__half v) {
  return __half2float(v);
}
FK_DEVICE float fk_adapt_wide(__nv_bfloat16 v) {
  return __bfloat162float(v);
}

/* l [rank of this pass][kAdaptRows] = columns first..first+ranks of the rows' left parts [rows, ld]; the rest is 0. */
template <typename T>
FK_DEVICE void fk_adapt_stage(float (*l)[kAdaptRows], const T *left, int64_t ld, int rows, int first, int ranks) {
  for (int i = threadIdx.x; i < kAdaptRows * kAdaptRanks; i += kAdaptThreads) {
    const int r = i / kAdaptRanks, k = i % kAdaptRanks;
    l[k][r] = r < rows && k < ranks ? fk_adapt_wide(__ldg(left + r * ld + first + k)) : 0.0f;
  }
}

/* right [ranks, q] */
template <typename T>
FK_DEVICE void fk_adapt_add(float (&s)[kAdaptRows][kAdaptPerThread], const float (*l)[kAdaptRows], const T *right,
                            int ranks, int64_t q, int64_t col) {
  const bool there[kAdaptPerThread] = {col < q, col + kAdaptThreads < q};
#pragma unroll 4
  for (int k = 0; k < ranks; k++, right += q) {
    float r[kAdaptPerThread];
#pragma unroll
    for (int c = 0; c < kAdaptPerThread; c++)
      r[c] = there[c] ? fk_adapt_wide(__ldg(right + col + c * kAdaptThreads)) : 0.0f;
#pragma unroll
    for (int i = 0; i < kAdaptRows; i += 4) {
      const float4 a = *(const float4 *)&l[k][i];
      const float four[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
      for (int m = 0; m < 4; m++)
#pragma unroll
        for (int c = 0; c < kAdaptPerThread; c++) s[i + m][c] = __fadd_rn(s[i + m][c], __fmul_rn(four[m], r[c]));
    }
  }
}

/* s = the sums of a term: of the tile's rows `left`, [rows, ld], of all threads; right [rank, q]. */
template <typename T>
FK_DEVICE void fk_adapt_term(float (&s)[kAdaptRows][kAdaptPerThread], float (*l)[kAdaptRows], const T *right,
                             const T *left, int64_t ld, int rows, int rank, int q, int64_t col) {
  for (int first = 0; first < rank; first += kAdaptRanks) {
    const int ranks = rank - first < kAdaptRanks ? rank - first : kAdaptRanks;
    __syncthreads(); /* the pass before has read l, and what the block wrote before is there */
    fk_adapt_stage(l, left, ld, rows, first, ranks);
    __syncthreads();
    fk_adapt_add(s, l, right + (int64_t)first * q, ranks, q, col);
  }
}

#endif
