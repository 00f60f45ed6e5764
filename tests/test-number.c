/* SPDX-License-Identifier: Apache-2.0 */
/* Conversions between number formats: every code of float16, bfloat16 and E4M3 against its definition, and every place
 * where rounding changes its mind. */
#include "number.h"

#include "number-reference.h"

typedef struct {
  const Format *format;
  float (*widen)(guint code);
  guint (*narrow)(float value);
  guint nan; /* what NaN becomes, its sign aside; 0: any NaN */
} Conversion;

static float widen_f16(guint code) {
  return fk_f16_to_f32((uint16_t)code);
}
static guint narrow_f16(float value) {
  return fk_f32_to_f16(value);
}
static float widen_bf16(guint code) {
  return fk_bf16_to_f32((uint16_t)code);
}
static guint narrow_bf16(float value) {
  return fk_f32_to_bf16(value);
}
static float widen_e4m3(guint code) {
  return fk_e4m3_to_f32((uint8_t)code);
}
static guint narrow_e4m3(float value) {
  return fk_f32_to_e4m3(value);
}

static const Conversion f16 = {&format_f16, widen_f16, narrow_f16, 0},
                        bf16 = {&format_bf16, widen_bf16, narrow_bf16, 0},
                        e4m3 = {&format_e4m3, widen_e4m3, narrow_e4m3, 0x7f};

static gboolean is_nan(const Conversion *c, guint code) {
  return isnan(format_value(c->format, code));
}

/* Every code is its number, and the number its code. */
static void codes(gconstpointer data) {
  const Conversion *c = data;
  for (guint code = 0; code < format_codes(c->format); code++) {
    const double value = format_value(c->format, code);
    const float wide = c->widen(code);
    if (isnan(value)) {
      g_assert_true(isnan(wide) && is_nan(c, c->narrow(wide)));
      continue;
    }
    g_assert_true((double)wide == value && !signbit(wide) == !signbit(value));
    g_assert_cmphex(c->narrow(wide), ==, code);
  }
}

static void check(const Conversion *c, float x) {
  const guint got = c->narrow(x), want = format_round(c->format, (double)x);
  if (got != want)
    g_error("%a becomes code %x (%a), expected %x (%a)", (double)x, got, (double)c->widen(got), want,
            format_value(c->format, want));
}

/* Between each two neighbours: the middle and the numbers beside it; past the largest. */
static void ties(gconstpointer data) {
  const Conversion *c = data;
  const guint last = format_largest(c->format);
  for (int sign = -1; sign <= 1; sign += 2)
    for (guint code = 0; code <= last; code++) {
      const double low = format_value(c->format, code);
      const double high = code < last ? format_value(c->format, code + 1) : 2 * low - format_value(c->format, code - 1);
      const float middle = (float)(sign * (low + (high - low) / 2));
      check(c, middle);
      check(c, nextafterf(middle, 0));
      check(c, nextafterf(middle, sign * INFINITY));
      check(c, (float)(sign * low));
      check(c, nextafterf((float)(sign * low), 0));
      check(c, nextafterf((float)(sign * low), sign * INFINITY));
    }
  check(c, 3.4e38f);
  check(c, -3.4e38f);
}

static void not_numbers(gconstpointer data) {
  const Conversion *c = data;
  static const guint32 nans[] = {0x7fc00000, 0xffc00000, 0x7f800001, 0xff800001, 0x7fffffff, 0xffffffff};
  for (guint i = 0; i < G_N_ELEMENTS(nans); i++) {
    const guint code = c->narrow(fk_bits_float(nans[i]));
    g_assert_true(is_nan(c, code));
    if (c->nan) g_assert_cmphex(code, ==, c->nan);
  }
  const float wide[2] = {c->widen(c->narrow(INFINITY)), c->widen(c->narrow(-INFINITY))};
  const float top = c->format->infinities ? INFINITY : (float)format_value(c->format, format_largest(c->format));
  g_assert_true(wide[0] == top && wide[1] == -top);
}

/* Numbers of all sizes, not only those near a code. */
static void random_bits(gconstpointer data) {
  const Conversion *c = data;
  guint32 bits = 12345;
  for (int i = 0; i < 60000; i++) {
    bits = bits * 1664525u + 1013904223u;
    const float x = fk_bits_float(bits ^ bits >> 13);
    if (isfinite(x)) check(c, x);
  }
}

static void e8m0(void) {
  for (guint code = 0; code < 255; code++)
    g_assert_true((double)fk_e8m0_to_f32((uint8_t)code) == ldexp(1, (int)code - 127));
  g_assert_true(isnan(fk_e8m0_to_f32(255)));
}

/* E2M1 by search: the nearest of its 8 sizes, of two as near the even code, saturated; every code back. */
static void e2m1(void) {
  static const double sizes[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  for (guint code = 0; code < 16; code++) {
    g_assert_true((double)fk_e2m1_to_f32((uint8_t)code) == (code & 8 ? -sizes[code & 7] : sizes[code & 7]));
    g_assert_cmphex(fk_f32_to_e2m1(fk_e2m1_to_f32((uint8_t)code)), ==, code);
  }
  for (int i = -4000; i <= 4000; i++) {
    const double x = i / 512.0;
    guint want = 0;
    for (guint k = 1; k < 8; k++) {
      const double apart = fabs(fabs(x) - sizes[k]), before = fabs(fabs(x) - sizes[want]);
      if (apart < before || (apart == before && k % 2 == 0)) want = k;
    }
    g_assert_cmphex(fk_f32_to_e2m1((float)x), ==, want | (signbit(x) ? 8 : 0));
  }
  g_assert_cmphex(fk_f32_to_e2m1(INFINITY), ==, 7);
  g_assert_cmphex(fk_f32_to_e2m1(-0.0f), ==, 8);
  g_assert_cmphex(fk_f32_to_e2m1(NAN), ==, 0);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  static const struct {
    const char *name;
    const Conversion *conversion;
  } formats[] = {{"f16", &f16}, {"bf16", &bf16}, {"e4m3", &e4m3}};
  static const struct {
    const char *name;
    void (*run)(gconstpointer);
  } tests[] = {{"codes", codes}, {"ties", ties}, {"not-numbers", not_numbers}, {"random", random_bits}};
  for (guint f = 0; f < G_N_ELEMENTS(formats); f++)
    for (guint t = 0; t < G_N_ELEMENTS(tests); t++) {
      g_autofree char *path = g_strdup_printf("/number/%s/%s", formats[f].name, tests[t].name);
      g_test_add_data_func(path, formats[f].conversion, tests[t].run);
    }
  g_test_add_func("/number/e8m0", e8m0);
  g_test_add_func("/number/e2m1", e2m1);
  return g_test_run();
}
