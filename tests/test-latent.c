/* SPDX-License-Identifier: Apache-2.0 */
/* Packing, rotary tables, sinusoid and model times against diffusers and the specification's numbers. */
#include "latent.h"

#include <glib.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static GStrv golden_lines(void) {
  g_autofree char *path = g_build_filename(FK_TEST_DATA, "latent.txt", NULL);
  g_autofree char *text = NULL;
  g_autoptr(GError) error = NULL;
  g_file_get_contents(path, &text, NULL, &error);
  g_assert_no_error(error);
  return g_strsplit(text, "\n", -1);
}

static int32_t word_of(float x) {
  int32_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}

static void test_pack(void) {
  enum { C = 16, H = 6, W = 10 };
  float chw[C * H * W], tokens[C * H * W], back[C * H * W];
  for (int i = 0; i < C * H * W; i++) chw[i] = (float)i;
  fk_latent_pack_host(tokens, chw, C, H, W);
  /* Token (2,3), channel 5, lower right of its 2 x 2 patch. */
  g_assert_cmpfloat(tokens[(2 * (W / 2) + 3) * 4 * C + 5 * 4 + 3], ==, chw[(5 * H + 5) * W + 7]);
  g_assert_cmpfloat(tokens[1], ==, chw[1]);
  g_assert_cmpfloat(tokens[2], ==, chw[W]);
  g_assert_cmpfloat(tokens[4], ==, chw[H * W]);
  g_assert_cmpfloat(tokens[4 * C], ==, chw[2]);
  fk_latent_unpack_host(back, tokens, C, H, W);
  g_assert_cmpmem(back, sizeof back, chw, sizeof chw);
}

/* Spec 6.2: pairs 8, 9, 36, 63 of two positions. */
static void test_rope_vector(void) {
  const int axes[3] = {16, 56, 56};
  static const int pairs[4] = {8, 9, 36, 63};
  static const float target_cos[4] = {0.985896587f, 0.211291477f, -0.275163352f, 0.999997199f};
  static const float target_sin[4] = {0.167355701f, 0.977423072f, -0.961397469f, 0.00236214022f};
  static const float context_cos[4] = {-0.925147533f, 0.768391788f, 0.2836622f, 0.999999762f};
  static const float context_sin[4] = {0.379607737f, 0.63997972f, -0.958924294f, 0.000694747665f};
  enum { T = 2, H = 64, W = 18, CH = 98, CW = 6, E = 128 };
  g_autofree float *table = g_new(float, (T + H * W + CH * CW) * E);
  fk_rope_table(table, T, H, W, CH, CW, axes, 10000.0);
  const float *target = table + (T + 63 * W + 17) * E, *context = table + (T + H * W + 97 * CW + 5) * E;
  for (int i = 0; i < 4; i++) {
    g_assert_cmpfloat(target[2 * pairs[i]], ==, target_cos[i]);
    g_assert_cmpfloat(target[2 * pairs[i] + 1], ==, target_sin[i]);
    g_assert_cmpfloat(context[2 * pairs[i]], ==, context_cos[i]);
    g_assert_cmpfloat(context[2 * pairs[i] + 1], ==, context_sin[i]);
  }
  g_assert_cmpfloat(context[0], ==, 0.540302277f);
  g_assert_cmpfloat(context[1], ==, 0.841470957f);
  for (int i = 0; i < E; i++) g_assert_cmpfloat(table[i], ==, i % 2 ? 0.0f : 1.0f); /* text: no rotation */
}

/* At most one unit in the last place: torch's cos and sin in double are not the C library's. */
static void test_rope_reference(void) {
  g_auto(GStrv) lines = golden_lines();
  g_autofree float *table = g_new(float, (512 + 2 * 4116 + 8) * 128);
  int cases = 0, unequal = 0;
  for (char **line = lines; *line; line++) {
    int text, h, w, ch, cw, axes[3], row, pair;
    double theta;
    unsigned cosine, sine;
    if (sscanf(*line, "rope %d %d %d %d %d %d %d %d %lf %d %d %x %x", &text, &h, &w, &ch, &cw, &axes[0], &axes[1],
               &axes[2], &theta, &row, &pair, &cosine, &sine) != 13)
      continue;
    fk_rope_table(table, text, h, w, ch, cw, axes, theta);
    const float *got = table + row * (axes[0] + axes[1] + axes[2]) + 2 * pair;
    int worst = MAX(ABS(word_of(got[0]) - (int32_t)cosine), ABS(word_of(got[1]) - (int32_t)sine));
    unequal += worst > 0;
    g_assert_cmpint(worst, <=, 1);
    cases++;
  }
  g_test_message("%d rope entries, %d not bit-equal", cases, unequal);
  g_assert_cmpint(cases, >, 240);
}

/* Two of torch's 128 frequencies differ by one unit (spec 6.3), 6e-8 of the angle t * f. */
static void test_sinusoid(void) {
  static const int index[8] = {0, 1, 2, 32, 64, 128, 129, 130};
  static const double t988[8] = {0.0308846,  -0.4700083, 0.4893160, -0.1594892,
                                 -0.8981634, 0.9995229,  0.8826620, 0.8721066};
  float out[FK_SINUSOID];
  fk_sinusoid(out, 988.0f);
  for (int i = 0; i < 8; i++) g_assert_cmpfloat_with_epsilon((double)out[index[i]], t988[i], 1e-7);
  g_auto(GStrv) lines = golden_lines();
  int cases = 0;
  double worst = 0;
  for (char **line = lines; *line; line++) {
    double t, value;
    int i;
    if (sscanf(*line, "sinusoid %lf %d %lf", &t, &i, &value) != 3) continue;
    fk_sinusoid(out, (float)t);
    worst = fmax(worst, fabs((double)out[i] - value));
    g_assert_cmpfloat_with_epsilon((double)out[i], value, 1e-7 + t * 6e-8);
    cases++;
  }
  g_test_message("%d sinusoid values, largest difference %.2e", cases, worst);
  g_assert_cmpint(cases, ==, 96);
}

static void test_seen(void) {
  g_auto(GStrv) lines = golden_lines();
  int cases = 0;
  for (char **line = lines; *line; line++) {
    double t, seen;
    int bf16;
    if (sscanf(*line, "seen %lf %d %lf", &t, &bf16, &seen) != 3) continue;
    g_assert_cmpfloat(fk_timestep_seen((float)t, bf16), ==, (float)seen);
    cases++;
  }
  g_assert_cmpint(cases, ==, 126);
  static const float few[][2] = {{251, 252}, {253, 254}, {255, 256},           {502, 504},
                                 {506, 508}, {510, 512}, {104.720898f, 104.5f}};
  for (gsize i = 0; i < G_N_ELEMENTS(few); i++) g_assert_cmpfloat(fk_timestep_seen(few[i][0], true), ==, few[i][1]);
  /* Every bfloat16 in 1..1000: the round trip changes 27 of 1,275, each upwards (spec 6.3). */
  int values = 0, changed = 0;
  for (uint32_t high = 0x3f80; high <= 0x447a; high++) {
    uint32_t u = high << 16;
    float t;
    memcpy(&t, &u, sizeof t);
    values++;
    changed += fk_timestep_seen(t, true) != t;
    g_assert_cmpfloat(fk_timestep_seen(t, true), >=, t);
  }
  g_assert_cmpint(values, ==, 1275);
  g_assert_cmpint(changed, ==, 27);
  g_assert_cmpfloat(fk_guidance_seen(2.5f, true), ==, 2496.0f);
  g_assert_cmpfloat(fk_guidance_seen(3.0f, true), ==, 3008.0f);
  g_assert_cmpfloat(fk_guidance_seen(3.5f, true), ==, 3504.0f);
  g_assert_cmpfloat(fk_guidance_seen(30.0f, true), ==, 29952.0f);
  g_assert_cmpfloat(fk_guidance_seen(2.5f, false), ==, 2500.0f);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/latent/pack", test_pack);
  g_test_add_func("/latent/rope/vector", test_rope_vector);
  g_test_add_func("/latent/rope/reference", test_rope_reference);
  g_test_add_func("/latent/sinusoid", test_sinusoid);
  g_test_add_func("/latent/seen", test_seen);
  return g_test_run();
}
