/* SPDX-License-Identifier: Apache-2.0 */
/* Conversions between number formats, bit for bit those of the hardware. libc only. */
#ifndef FK_NUMBER_H
#define FK_NUMBER_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t fk_float_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float fk_bits_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* Exact. A subnormal is mantissa * 2^-24. */
static inline float fk_f16_to_f32(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = half >> 10 & 31, mantissa = half & 1023u;
  if (exponent == 0) return (sign ? -1.0f : 1.0f) * (float)mantissa * 0x1p-24f;
  return fk_bits_float(sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13);
}

/* To nearest even; 65520 and above become infinity. */
static inline uint16_t fk_f32_to_f16(float value) {
  const uint32_t bits = fk_float_bits(value), size = bits & 0x7fffffffu;
  const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
  if (size > 0x7f800000u) return sign | 0x7e00u;
  if (size >= 0x477ff000u) return sign | 0x7c00u;
  if (size < 0x38800000u) return sign | (uint16_t)lrintf(fk_bits_float(size) * 0x1p24f); /* below 2^-14 */
  return sign | (uint16_t)((size - 0x38000000u + 0xfffu + (size >> 13 & 1)) >> 13);
}

static inline float fk_bf16_to_f32(uint16_t value) {
  return fk_bits_float((uint32_t)value << 16);
}

/* To nearest even; NaN stays NaN. */
static inline uint16_t fk_f32_to_bf16(float value) {
  const uint32_t bits = fk_float_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
  return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

/* E4M3 without infinity: exponent bias 7, subnormals down to 2^-9, largest 448, 0x7F and 0xFF NaN. Exact. */
static inline float fk_e4m3_to_f32(uint8_t code) {
  const uint32_t sign = (uint32_t)(code & 0x80u) << 24, exponent = code >> 3 & 15, mantissa = code & 7u;
  if ((code & 0x7fu) == 0x7fu) return fk_bits_float(sign | 0x7fc00000u);
  if (exponent == 0) return (sign ? -1.0f : 1.0f) * (float)mantissa * 0x1p-9f;
  return fk_bits_float(sign | (exponent + 120) << 23 | mantissa << 20);
}

/* To nearest even, saturated to +-448, infinity too; NaN gives 0x7F (cvt.rn.satfinite.e4m3x2.f32). */
static inline uint8_t fk_f32_to_e4m3(float value) {
  const uint32_t bits = fk_float_bits(value), size = bits & 0x7fffffffu;
  const uint8_t sign = (uint8_t)(bits >> 24 & 0x80u);
  if (size > 0x7f800000u) return 0x7f;
  if (size >= 0x43e00000u) return sign | 0x7eu;                                        /* 448 and above */
  if (size < 0x3c800000u) return sign | (uint8_t)lrintf(fk_bits_float(size) * 0x1p9f); /* below 2^-6 */
  return sign | (uint8_t)((size - 0x3c000000u + 0x7ffffu + (size >> 20 & 1)) >> 20);
}

/* E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6, the sign in bit 3. */
static inline float fk_e2m1_to_f32(uint8_t code) {
  static const float values[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  return code & 8 ? -values[code & 7] : values[code & 7];
}

/* To nearest even, saturated to +-6; NaN, which it has not, gives 0. */
static inline uint8_t fk_f32_to_e2m1(float value) {
  const float size = fabsf(value);
  const uint8_t sign = signbit(value) ? 8 : 0;
  if (isnan(value)) return 0;
  if (size >= 6.0f) return sign | 7;
  if (size < 2.0f) return sign | (uint8_t)lrintf(size * 2.0f);                       /* steps of 0.5 */
  return sign | (uint8_t)(size < 4.0f ? 2 + lrintf(size) : 4 + lrintf(size * 0.5f)); /* of 1, of 2 */
}

/* 2^(code - 127); 0xFF is NaN. */
static inline float fk_e8m0_to_f32(uint8_t code) {
  if (code == 0xff) return fk_bits_float(0x7fc00000u);
  return code ? fk_bits_float((uint32_t)code << 23) : 0x1p-127f;
}

#endif
