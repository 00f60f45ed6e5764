/* SPDX-License-Identifier: Apache-2.0 */
/* Codes under a scale that is given, as FkOps.quantize has them: what kernels that end in them share. */
#ifndef FK_GIVEN_CUH
#define FK_GIVEN_CUH

#include <cuda_fp8.h>

#include "common.cuh"

/* Zeroed: no scale is given. */
typedef struct {
  float scale, inverse;          /* inverse: 1 / scale, rounded */
  unsigned long long *saturated; /* device memory: finite numbers that the scale was too small for */
} FkGiven;

/* x * inverse, rounded once; NaN where x is infinite. x - x is 0 or NaN, and adding -0 changes nothing, -0 included. */
FK_DEVICE float fk_given_product(float x, float inverse) {
  return __fmaf_rn(x, inverse, -__fsub_rn(x, x));
}

/* 1 where a product saturates, else 0: one instruction. */
FK_DEVICE float fk_given_over(float product) {
  float over;
  asm("set.gt.f32.f32 %0, %1, 0f43E00000;" : "=f"(over) : "f"(fabsf(product)));
  return over;
}

/* Two codes, `low` in the low byte. *beyond: counts what saturates, exact below 2^24. */
FK_DEVICE uint32_t fk_given_two(float low, float high, float inverse, float *beyond) {
  const float a = fk_given_product(low, inverse), b = fk_given_product(high, inverse);
  *beyond += fk_given_over(a) + fk_given_over(b);
  return __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3);
}

/* The same of two numbers in bf16. */
FK_DEVICE uint32_t fk_given_bf16(uint32_t pair, float inverse, float *beyond) {
  return fk_given_two(fk_pair_low(pair), fk_pair_high(pair), inverse, beyond);
}

/* Codes of four numbers in bf16 that are neither infinite nor beyond the scale; *top: pairs of the greatest so far,
 * with any signs, by which fk_given_short tells afterwards whether all were. */
FK_DEVICE uint32_t fk_given_four(uint2 pairs, float inverse, uint32_t *top) {
  asm("max.xorsign.abs.bf16x2 %0, %0, %1;" : "+r"(*top) : "r"(pairs.x));
  asm("max.xorsign.abs.bf16x2 %0, %0, %1;" : "+r"(*top) : "r"(pairs.y));
  const float a = fk_pair_low(pairs.x), b = fk_pair_high(pairs.x);
  const float c = fk_pair_low(pairs.y), d = fk_pair_high(pairs.y);
  return __nv_cvt_float2_to_fp8x2(make_float2(a * inverse, b * inverse), __NV_SATFINITE, __NV_E4M3) |
         (uint32_t)__nv_cvt_float2_to_fp8x2(make_float2(c * inverse, d * inverse), __NV_SATFINITE, __NV_E4M3) << 16;
}
FK_DEVICE bool fk_given_short(uint32_t top, float inverse) {
  return fk_given_over(fk_pair_low(top) * inverse) + fk_given_over(fk_pair_high(top) * inverse) > 0;
}

/* Integers: the sum is the same in any order. */
FK_DEVICE void fk_given_count(unsigned long long *saturated, float beyond) {
  if (beyond > 0) atomicAdd(saturated, (unsigned long long)beyond);
}

#endif
