/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers to codes under one scale: the definition of FkOps.quantize in single float32 operations, shared by the CPU
 * backend and by the loader, which quantises weights as it reads them. libc only. */
#ifndef FK_QUANTIZE_H
#define FK_QUANTIZE_H

#include "number.h"
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
