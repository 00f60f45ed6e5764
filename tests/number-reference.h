/* SPDX-License-Identifier: Apache-2.0 */
/* Number formats from their definitions, in double precision and by search: what core/ops/number.h is compared with. */
#ifndef NUMBER_REFERENCE_H
#define NUMBER_REFERENCE_H

#include <glib.h>
#include <math.h>

/* A sign, `exponent` bits with bias 2^(exponent - 1) - 1, `mantissa` bits. Exponents of all ones: infinity and NaN, or
 * (infinities FALSE, as in E4M3) numbers like others, but for mantissa and exponent of all ones, which is NaN. */
typedef struct {
  int exponent, mantissa;
  gboolean infinities;
} Format;

static const Format format_f16 = {5, 10, TRUE}, format_bf16 = {8, 7, TRUE}, format_e4m3 = {4, 3, FALSE};

static inline guint format_codes(const Format *f) {
  return 1u << (1 + f->exponent + f->mantissa);
}

static inline double format_value(const Format *f, guint code) {
  const guint ones = (1u << f->exponent) - 1, steps = 1u << f->mantissa;
  const guint e = code >> f->mantissa & ones, m = code & (steps - 1);
  const int bias = (1 << (f->exponent - 1)) - 1;
  const double sign = code & (format_codes(f) / 2) ? -1 : 1;
  if (e == ones && f->infinities) return m ? NAN : sign * INFINITY;
  if (e == ones && m == steps - 1) return NAN;
  if (e == 0) return sign * ldexp((double)m, 1 - bias - f->mantissa);
  return sign * ldexp((double)(steps + m), (int)e - bias - f->mantissa);
}

/* The largest code of a positive number. */
static inline guint format_largest(const Format *f) {
  guint code = format_codes(f) / 2 - 1;
  while (!isfinite(format_value(f, code))) code--;
  return code;
}

/* The nearest code, of two as near the even one. Past the largest number: saturated, or where the format has infinities
 * that, from the middle of the last number and the next step on. NaN has no place here. */
static inline guint format_round(const Format *f, double x) {
  const guint sign = signbit(x) ? format_codes(f) / 2 : 0, last = format_largest(f);
  const double size = fabs(x), top = format_value(f, last);
  if (size >= top)
    return sign | (f->infinities && size >= top + (top - format_value(f, last - 1)) / 2 ? last + 1 : last);
  guint low = 0, high = last; /* value(low) <= size < value(high) */
  while (high - low > 1) {
    const guint middle = (low + high) / 2;
    if (format_value(f, middle) <= size)
      low = middle;
    else
      high = middle;
  }
  const double below = size - format_value(f, low), above = format_value(f, high) - size;
  return sign | (below < above || (below == above && low % 2 == 0) ? low : high);
}

#endif
