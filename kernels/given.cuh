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

/* Two codes, `low` in the low byte. *beyond: counts what saturates. */
FK_DEVICE uint32_t fk_given_two(float low, float high, float inverse, unsigned *beyond) {
  const float a = fk_given_product(low, inverse), b = fk_given_product(high, inverse);
  *beyond += (fabsf(a) > 448.0f) + (fabsf(b) > 448.0f);
  return __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3);
}

/* Integers: the sum is the same in any order. */
FK_DEVICE void fk_given_count(unsigned long long *saturated, unsigned beyond) {
  if (beyond) atomicAdd(saturated, (unsigned long long)beyond);
}

#endif
