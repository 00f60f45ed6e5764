/* SPDX-License-Identifier: Apache-2.0 */
/* Vector loops of the CPU backend: exp, activations, sums, epilogues. Plain C that the compiler vectorises; no threads,
 * no tensors.
 *
 * Sums keep FK_LANES partial sums whatever the vector width, folded in a fixed order at the end: the bytes are the same
 * on every machine. ISO C mode contracts no a * b + c into a fused multiply-add, for the same reason. */
#include "cpu.h"

#include <string.h>

/* gcc 12 vectorises loops of unknown length at -O3 only, and selects only when comparisons cannot trap. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")
#endif

#define FK_LANES 16

/* The lanes' sum, halves onto halves. */
static inline float fold(float *lane) {
  for (int width = FK_LANES / 2; width > 0; width /= 2)
    for (int j = 0; j < width; j++) lane[j] += lane[j + width];
  return lane[0];
}

static inline double fold_double(double *lane) {
  for (int width = FK_LANES / 2; width > 0; width /= 2)
    for (int j = 0; j < width; j++) lane[j] += lane[j + width];
  return lane[0];
}

/* The Taylor series of e^r to degree 7. */
static inline float series(float r) {
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  return p * (r * r) + r + 1.0f;
}

/* exp(x), error below 1.5 ulp in [-87.3, 88.3]; 0 below, about 2.4e38 above; NaN stays NaN.
 * x = n ln 2 + r with |r| <= ln(2)/2; ln 2 in two parts, the first short enough for n * part to be exact; the Taylor
 * series of degree 7 leaves r^8/8! < 5.2e-9. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits. */
static inline float exp_of(float x) {
  const float log2e = 1.44269504088896341f, magic = 12582912.0f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  float low = x < -87.33f ? -87.33f : x;
  float z = low > 88.37f ? 88.37f : low;
  float shifted = z * log2e + magic;
  float n = shifted - magic;
  float r = z - n * ln2_high - n * ln2_low;
  float p = series(r);
  union {
    float f;
    uint32_t u;
  } bits = {.f = shifted};
  bits.u = (bits.u << 23) + 0x3f800000u; /* 2^n */
  float y = p * bits.f;
  return x < -87.33f ? 0.0f : y;
}

/* All four are x / (1 + exp(-g)): tanh(u) = 2 / (1 + exp(-2u)) - 1, and 0.5 x (1 + tanh u) loses no digits this way. */
static inline float gelu_tanh(float x) {
  return x / (1.0f + exp_of(-1.5957691216057308f * (x + 0.044715f * x * x * x))); /* 2 sqrt(2/pi) */
}

FK_CPU_CLONES void fk_cpu_exp(float *y, const float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = exp_of(x[i]);
}

FK_CPU_CLONES static void silu_span(float *y, const float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] / (1.0f + exp_of(-x[i]));
}

FK_CPU_CLONES static void gelu_span(float *y, const float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = gelu_tanh(x[i]);
}

FK_CPU_CLONES static void quick_gelu_span(float *y, const float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] / (1.0f + exp_of(-1.702f * x[i]));
}

void fk_cpu_act_span(float *y, const float *x, int64_t n, FkAct act) {
  if (act == FK_ACT_SILU)
    silu_span(y, x, n);
  else if (act == FK_ACT_GELU_TANH)
    gelu_span(y, x, n);
  else if (act == FK_ACT_QUICK_GELU)
    quick_gelu_span(y, x, n);
  else if (y != x)
    memmove(y, x, (size_t)n * sizeof *y);
}

/* Over integers that are ordered as the floats are (negative ones count backwards), because a maximum of integers is
 * vectorised without leave to ignore NaN. A positive NaN is above everything and so comes through. */
FK_CPU_CLONES float fk_cpu_row_max(const float *x, int64_t n) {
  int32_t top = INT32_MIN;
  for (int64_t i = 0; i < n; i++) {
    int32_t bits;
    memcpy(&bits, x + i, sizeof bits);
    bits ^= bits >> 31 & INT32_MAX;
    top = bits > top ? bits : top;
  }
  top ^= top >> 31 & INT32_MAX;
  float max;
  memcpy(&max, &top, sizeof max);
  return max;
}

FK_CPU_CLONES float fk_cpu_softmax_span(float *x, int64_t n, float max) {
  float lane[FK_LANES] = {0};
  int64_t i = 0;
  for (; i + FK_LANES <= n; i += FK_LANES)
    for (int j = 0; j < FK_LANES; j++) {
      x[i + j] = exp_of(x[i + j] - max);
      lane[j] += x[i + j];
    }
  for (int j = 0; i < n; i++, j++) {
    x[i] = exp_of(x[i] - max);
    lane[j] += x[i];
  }
  return fold(lane);
}

/* 2^x, error below 1.5 ulp in [-126, 127]; 0 below. As exp_of, without the division by ln 2. */
static inline float exp2_of(float x) {
  const float magic = 12582912.0f;
  float low = x < -126.0f ? -126.0f : x;
  float z = low > 127.0f ? 127.0f : low;
  float shifted = z + magic;
  float r = (z - (shifted - magic)) * 0.693147181f;
  float p = series(r);
  union {
    float f;
    uint32_t u;
  } bits = {.f = shifted};
  bits.u = (bits.u << 23) + 0x3f800000u;
  float y = p * bits.f;
  return x < -126.0f ? 0.0f : y;
}

FK_CPU_CLONES float fk_cpu_exp2_span(float *x, int64_t n, float max) {
  float lane[FK_LANES] = {0};
  int64_t i = 0;
  for (; i + FK_LANES <= n; i += FK_LANES)
    for (int j = 0; j < FK_LANES; j++) {
      x[i + j] = exp2_of(x[i + j] - max);
      lane[j] += x[i + j];
    }
  for (int j = 0; i < n; i++, j++) {
    x[i] = exp2_of(x[i] - max);
    lane[j] += x[i];
  }
  return fold(lane);
}

FK_CPU_CLONES void fk_cpu_scale_span(float *x, int64_t n, float factor) {
  for (int64_t i = 0; i < n; i++) x[i] *= factor;
}

FK_CPU_CLONES void fk_cpu_axpy_span(float *y, const float *x, int64_t n, float factor) {
  for (int64_t i = 0; i < n; i++) y[i] += factor * x[i];
}

FK_CPU_CLONES double fk_cpu_sum(const float *x, int64_t n) {
  double lane[FK_LANES] = {0};
  int64_t i = 0;
  for (; i + FK_LANES <= n; i += FK_LANES)
    for (int j = 0; j < FK_LANES; j++) lane[j] += (double)x[i + j];
  for (int j = 0; i < n; i++, j++) lane[j] += (double)x[i];
  return fold_double(lane);
}

FK_CPU_CLONES double fk_cpu_sum_squares(const float *x, int64_t n, double mean) {
  double lane[FK_LANES] = {0};
  int64_t i = 0;
  for (; i + FK_LANES <= n; i += FK_LANES)
    for (int j = 0; j < FK_LANES; j++) lane[j] += ((double)x[i + j] - mean) * ((double)x[i + j] - mean);
  for (int j = 0; i < n; i++, j++) lane[j] += ((double)x[i] - mean) * ((double)x[i] - mean);
  return fold_double(lane);
}

FK_CPU_CLONES float fk_cpu_dot(const float *a, const float *b, int64_t n) {
  float lane[FK_LANES] = {0};
  int64_t i = 0;
  for (; i + FK_LANES <= n; i += FK_LANES)
    for (int j = 0; j < FK_LANES; j++) lane[j] += a[i + j] * b[i + j];
  for (int j = 0; i < n; i++, j++) lane[j] += a[i] * b[i];
  return fold(lane);
}

FK_CPU_CLONES void fk_cpu_add_span(float *y, const float *a, const float *b, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

FK_CPU_CLONES void fk_cpu_mul_span(float *y, const float *a, const float *b, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = a[i] * b[i];
}

FK_CPU_CLONES void fk_cpu_bias_rows(float *y, int64_t ld, int64_t rows, int64_t cols, const float *bias) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < cols; c++) y[r * ld + c] += bias[c];
}

FK_CPU_CLONES void fk_cpu_add_rows(float *y, int64_t ld, const float *x, int64_t ldx, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < cols; c++) y[r * ld + c] += x[r * ldx + c];
}

FK_CPU_CLONES void fk_cpu_finish_rows(float *y, int64_t ld, const float *x, int64_t rows, int64_t cols,
                                      const float *bias, const float *residual, int64_t ldr) {
  for (int64_t r = 0; r < rows; r++, y += ld, x += cols) {
    const float *add = residual ? residual + r * ldr : NULL;
    if (bias && add)
      for (int64_t c = 0; c < cols; c++) y[c] = x[c] + bias[c] + add[c];
    else if (bias || add)
      for (int64_t c = 0; c < cols; c++) y[c] = x[c] + (bias ? bias : add)[c];
    else if (y != x)
      memcpy(y, x, (size_t)cols * sizeof *y);
  }
}

FK_CPU_CLONES void fk_cpu_gate_rows(float *y, int64_t ld, const float *x, int64_t ldx, int64_t rows, int64_t cols,
                                    const float *gate) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < cols; c++) y[r * ld + c] += gate[c] * x[r * ldx + c];
}

FK_CPU_CLONES void fk_cpu_affine_rows(float *y, int64_t ld, const float *x, int64_t ldx, int64_t rows, int64_t cols,
                                      const float *mean, const float *scale, const float *shift) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < cols; c++) y[r * ld + c] = (x[r * ldx + c] - mean[c]) * scale[c] + shift[c];
}

FK_CPU_CLONES void fk_cpu_norm_span(float *y, const float *x, int64_t n, float mean, float rstd, float plus_one,
                                    const float *scale, const float *shift) {
  if (scale && shift) {
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * rstd * (plus_one + scale[i]) + shift[i];
    return;
  }
  for (int64_t i = 0; i < n; i++) {
    float z = (x[i] - mean) * rstd;
    y[i] = (scale ? z * (plus_one + scale[i]) : z) + (shift ? shift[i] : 0.0f);
  }
}

FK_CPU_CLONES void fk_cpu_column_moments(double *sum, double *square, const float *x, int64_t ld, int64_t rows,
                                         int64_t cols) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < cols; c++) {
      double v = (double)x[r * ld + c];
      sum[c] += v;
      square[c] += v * v;
    }
}

/* (a, b) -> (a cos - b sin, b cos + a sin); two products and a sum, as the reference evaluates it. */
FK_CPU_CLONES void fk_cpu_rope_span(float *x, const float *table, int64_t n) {
  for (int64_t i = 0; i < n; i += 2) {
    float a = x[i], b = x[i + 1], cosine = table[i], sine = table[i + 1];
    x[i] = a * cosine - b * sine;
    x[i + 1] = b * cosine + a * sine;
  }
}

FK_CPU_CLONES void fk_cpu_distance_span(double *sum, const float *a, const float *b, int64_t n) {
  double difference[FK_LANES] = {0}, size[FK_LANES] = {0};
  int64_t i = 0;
  for (; i + FK_LANES <= n; i += FK_LANES)
    for (int j = 0; j < FK_LANES; j++) {
      float d = a[i + j] - b[i + j], v = b[i + j];
      difference[j] += (double)(d < 0 ? -d : d);
      size[j] += (double)(v < 0 ? -v : v);
    }
  for (int j = 0; i < n; i++, j++) {
    float d = a[i] - b[i], v = b[i];
    difference[j] += (double)(d < 0 ? -d : d);
    size[j] += (double)(v < 0 ? -v : v);
  }
  sum[0] = sum[1] = 0;
  for (int j = 0; j < FK_LANES; j++) {
    sum[0] += difference[j];
    sum[1] += size[j];
  }
}

FK_CPU_CLONES void fk_cpu_promote_span(float *y, const double *x, int64_t n, float sa, const float *sw) {
  if (!sw)
    for (int64_t i = 0; i < n; i++) y[i] += sa * (float)x[i];
  else
    for (int64_t i = 0; i < n; i++) y[i] += (sa * sw[i]) * (float)x[i];
}

/* As fk_f32_to_e4m3 and back, for numbers from 0 to 448 in a form that is vectorised: above 2^-6 three bits behind the
 * leading one are kept, below it multiples of 2^-9, to which adding and taking away 1.5 * 2^14 rounds. */
FK_CPU_CLONES void fk_cpu_round_e4m3_span(double *y, const float *x, int64_t n) {
  const float magic = 24576.0f;
  for (int64_t i = 0; i < n; i++) {
    union {
      float f;
      uint32_t u;
    } bits = {.f = x[i]};
    bits.u = (bits.u + 0x7ffffu + (bits.u >> 20 & 1)) & 0xfff00000u;
    const float low = x[i] + magic - magic;
    y[i] = (double)(x[i] < 0x1p-6f ? low : bits.f);
  }
}

/* By bits, because no compiler option may assume these away: an exponent of all ones is infinity or NaN. */
FK_CPU_CLONES bool fk_cpu_finite(const float *x, int64_t n) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; i++) {
    uint32_t bits;
    memcpy(&bits, x + i, sizeof bits);
    bad |= (bits & 0x7f800000u) == 0x7f800000u;
  }
  return bad == 0;
}

FK_CPU_CLONES void fk_cpu_from_u8_span(float *y, const uint8_t *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = 2.0f * ((float)x[i] / 255.0f) - 1.0f;
}

/* Adding and taking away 1.5 * 2^23 rounds to the nearest integer, half to even. NaN gives 0. */
FK_CPU_CLONES void fk_cpu_to_u8_span(uint8_t *y, const float *x, int64_t n) {
  const float magic = 12582912.0f;
  for (int64_t i = 0; i < n; i++) {
    float v = x[i] * 0.5f + 0.5f;
    float low = v > 0.0f ? v : 0.0f;
    float z = low < 1.0f ? low : 1.0f;
    union {
      float f;
      uint32_t u;
    } bits = {.f = z * 255.0f + magic};
    y[i] = (uint8_t)(bits.u & 0xff);
  }
}

FK_CPU_CLONES void fk_cpu_bf16_to_f32_span(float *y, const uint16_t *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    uint32_t bits = (uint32_t)x[i] << 16;
    memcpy(y + i, &bits, sizeof bits);
  }
}
