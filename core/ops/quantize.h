/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers to codes under one scale: the definition of FkOps.quantize in single float32 operations, shared by the CPU
 * backend and by the loader, which quantises weights as it reads them. libc only. */
#ifndef FK_QUANTIZE_H
#define FK_QUANTIZE_H

#include "number.h"
#include "precision.h"
#include "tensor.h"

/* What is known of a group of numbers before its scale is. Zeroed at first. */
typedef struct {
  uint32_t amax; /* bits of max |x|: for numbers without a sign the order of bits is the order of values */
  bool broken;   /* a NaN, which codes of integers cannot say */
} FkQuantGroup;

static inline void fk_quant_see(FkQuantGroup *g, FkDtype codes, float value) {
  const uint32_t size = fk_float_bits(value) & 0x7fffffffu;
  if (size > 0x7f800000u)
    g->broken |= codes == FK_I8;
  else if (size > g->amax)
    g->amax = size;
}

/* The scale; *inverse: what the numbers are multiplied by, 0 where no scale fits them. */
static inline float fk_quant_scale(const FkQuantGroup *g, FkDtype codes, float *inverse) {
  const float limit = codes == FK_E4M3 ? 448.0f : 127.0f, amax = fk_bits_float(g->amax);
  const bool empty = amax < 0x1p-100f;
  *inverse = empty || g->broken ? 0.0f : limit / amax;
  return g->broken ? NAN : empty ? 1.0f : amax / limit;
}

/* NaN stays NaN in E4M3, also where the inverse is 0; in integers it becomes 0. */
static inline uint8_t fk_quant_code(FkDtype codes, float value, float inverse) {
  const float x = value * inverse;
  if (codes == FK_E4M3) return fk_f32_to_e4m3(x);
  if (isnan(x)) return 0;
  const float rounded = rintf(x);
  return (uint8_t)(int8_t)(rounded > 127.0f ? 127.0f : rounded < -127.0f ? -127.0f : rounded);
}

/* The code under a scale that was given. Infinity is no large number: it stays visible. */
static inline uint8_t fk_quant_given(float value, float inverse, int64_t *saturated) {
  const float x = value * inverse;
  if (isinf(value)) return 0x7f;
  *saturated += fabsf(x) > 448.0f;
  return fk_f32_to_e4m3(x);
}

/* The smallest power of two that brings amax to `limit` or below; 1 for what counts as zeros. */
static inline float fk_quant_power(float amax, float limit) {
  int exponent;
  if (amax < 0x1p-100f) return 1.0f;
  frexpf(amax / limit, &exponent); /* amax / limit is below 2^exponent, and rounded */
  while (ldexpf(limit, exponent - 1) >= amax) exponent--;
  return ldexpf(1.0f, exponent);
}

/* MX: the numbers of a row as they are after rounding to blocks of 32 under a power of two (the last one may be
 * shorter). The scale is rounded up (RCEIL), so that nothing saturates. What is no number stays none, with its block.
 */
static inline void fk_quant_mx(float *x, FkMx mx, int64_t n) {
  for (int64_t first = 0; first < n; first += 32) {
    const int64_t end = first + 32 < n ? first + 32 : n;
    FkQuantGroup group = {0};
    for (int64_t i = first; i < end; i++) fk_quant_see(&group, FK_I8, x[i]);
    const float amax = fk_bits_float(group.amax);
    if (group.broken || isinf(amax)) {
      for (int64_t i = first; i < end; i++) x[i] = NAN;
      continue;
    }
    const float scale = fk_quant_power(amax, mx == FK_MX_FP4 ? 6.0f : 448.0f);
    for (int64_t i = first; i < end; i++)
      x[i] = amax < 0x1p-100f  ? 0.0f
             : mx == FK_MX_FP4 ? fk_e2m1_to_f32(fk_f32_to_e2m1(x[i] / scale)) * scale
                               : fk_e4m3_to_f32(fk_f32_to_e4m3(x[i] / scale)) * scale;
  }
}

/* A row under the smallest power of two as its scale: exact for what MX has made, as long as the row's blocks differ by
 * at most 2^14 (MXFP4), or but for what falls below 2^-9 of the scale (MXFP8). The scale is returned. */
static inline float fk_quant_row_power(uint8_t *to, const float *x, int64_t n) {
  FkQuantGroup group = {0};
  for (int64_t i = 0; i < n; i++) fk_quant_see(&group, FK_E4M3, x[i]);
  const float amax = fk_bits_float(group.amax);
  const float scale = isinf(amax) ? amax : fk_quant_power(amax, 448.0f);
  for (int64_t i = 0; i < n; i++) to[i] = fk_quant_code(FK_E4M3, x[i], amax < 0x1p-100f ? 0.0f : 1.0f / scale);
  return scale;
}

/* n numbers under one scale, which is returned. */
static inline float fk_quant_row(uint8_t *to, FkDtype codes, const float *x, int64_t n) {
  FkQuantGroup group = {0};
  float inverse;
  for (int64_t i = 0; i < n; i++) fk_quant_see(&group, codes, x[i]);
  const float scale = fk_quant_scale(&group, codes, &inverse);
  for (int64_t i = 0; i < n; i++) to[i] = fk_quant_code(codes, x[i], inverse);
  return scale;
}

#endif
