/* SPDX-License-Identifier: Apache-2.0 */
/* What several kernels share: loads and stores of eight elements, activation functions, fixed-order reductions over a
 * warp and a block. One-instruction wrappers are in ptx.cuh, tensor maps in
 * tensormap.cuh. */
#ifndef FK_COMMON_CUH
#define FK_COMMON_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include "ptx.cuh"

/* ---- vectors of 8 elements: one 16-byte (bf16) or two (float32) accesses, addresses aligned to 16 bytes ---------- */

/* The two numbers of a pair in bf16. */
FK_DEVICE float fk_pair_low(uint32_t pair) {
  return __uint_as_float(pair << 16);
}
FK_DEVICE float fk_pair_high(uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000u);
}

FK_DEVICE void fk_unpack8(uint4 u, float (&v)[8]) {
  const uint32_t w[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
  for (int i = 0; i < 4; i++) v[2 * i] = fk_pair_low(w[i]), v[2 * i + 1] = fk_pair_high(w[i]);
}

/* Two neighbouring bf16 elements as they lie. */
FK_DEVICE uint32_t fk_load2(const __nv_bfloat16 *p) {
  return *(const uint32_t *)p;
}

FK_DEVICE uint4 fk_pack8(const float (&v)[8]) {
  return make_uint4(fk_pack_bf16(v[0], v[1]), fk_pack_bf16(v[2], v[3]), fk_pack_bf16(v[4], v[5]),
                    fk_pack_bf16(v[6], v[7]));
}

FK_DEVICE void fk_load8(const __nv_bfloat16 *p, float (&v)[8]) {
  fk_unpack8(*(const uint4 *)p, v);
}

/* Read-only for the whole kernel. */
FK_DEVICE void fk_load8(const float *p, float (&v)[8]) {
  float4 a = __ldg((const float4 *)p), b = __ldg((const float4 *)p + 1);
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
  v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

FK_DEVICE void fk_store8(__nv_bfloat16 *p, const float (&v)[8]) {
  *(uint4 *)p = fk_pack8(v);
}

FK_DEVICE void fk_store8(float *p, const float (&v)[8]) {
  *(float4 *)p = make_float4(v[0], v[1], v[2], v[3]);
  *((float4 *)p + 1) = make_float4(v[4], v[5], v[6], v[7]);
}

/* ---- activations ------------------------------------------------------------------------------------------------ */

/* -log2(e) times the argument z of x * sigmoid(z): silu z = x, quick-gelu z = 1.702 x, and
 * gelu-tanh z = 2 * sqrt(2/pi) * (x + 0.044715 x^3), because 0.5 (1 + tanh(u)) = sigmoid(2u). */
FK_DEVICE float fk_silu_arg(float x) {
  return -1.44269504f * x;
}
FK_DEVICE float fk_quick_gelu_arg(float x) {
  return -1.702f * 1.44269504f * x;
}
FK_DEVICE float fk_gelu_arg(float x) {
  return x * __fmaf_rn(x * x, -0.10294324f, -2.30220820f);
}

FK_DEVICE float fk_rcp(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/* x * sigmoid(z), a = -log2(e) z. Four instructions: fewer than with a reciprocal that several values share, and what
 * counts beside products is the energy of each instruction. Very large a: exp2 is infinite, its reciprocal 0. */
FK_DEVICE float fk_gated(float x, float a) {
  return x * fk_rcp(1.0f + fk_exp2(a));
}

FK_DEVICE float fk_silu(float x) {
  return fk_gated(x, fk_silu_arg(x));
}
FK_DEVICE float fk_quick_gelu(float x) {
  return fk_gated(x, fk_quick_gelu_arg(x));
}
FK_DEVICE float fk_gelu_tanh(float x) {
  return fk_gated(x, fk_gelu_arg(x));
}

/* ---- reductions, same order at every run ------------------------------------------------------------------------ */

FK_DEVICE float fk_warp_sum(float x) {
#pragma unroll
  for (int i = 16; i; i >>= 1) x += __shfl_xor_sync(0xffffffffu, x, i);
  return x;
}

/* Sum over the block, to every thread. `scratch`: one float a warp; free again after the next __syncthreads. */
FK_DEVICE float fk_block_sum(float x, float *scratch) {
  x = fk_warp_sum(x);
  if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = x;
  __syncthreads();
  float sum = 0;
  for (unsigned i = 0; i < (blockDim.x + 31) / 32; i++) sum += scratch[i];
  return sum;
}

#endif
