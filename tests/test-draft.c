/* SPDX-License-Identifier: Apache-2.0 */
/* draft.c against its formula, element by element in double: which steps run small, the noise of the small size, and
 * the way up for sizes that divide and that do not. Whole edits with a draft: test-denoise.c. */
#include "draft.h"
#include "latent.h"
#include "random.h"

#include <glib.h>
#include <math.h>

enum { C = 3 };

static void steps(void) {
  static const struct {
    int steps, divisor;
    double share;
    int want;
  } cases[] = {{28, 1, 0.5, 0},  {28, 0, 0.5, 0}, {1, 2, 0.5, 0}, {2, 2, 0.5, 1},
               {28, 2, 0.25, 7}, {28, 2, 0, 1},   {28, 2, 1, 27}, {10, 4, 0.25, 3}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
    g_assert_cmpint(fk_draft_steps(cases[i].steps, cases[i].divisor, cases[i].share), ==, cases[i].want);
}

static void grids(void) {
  const FkDraftGrid g = fk_draft_grid(64, 63, 2), one = fk_draft_grid(1, 3, 8);
  g_assert_cmpint(g.small_h, ==, 32);
  g_assert_cmpint(g.small_w, ==, 32);
  g_assert_cmpint(one.small_h * one.small_w, ==, 1);
}

/* Tokens of [C, 2h, 2w] normal numbers, and the numbers. (transfer full) */
static float *drawn(int h, int w, uint64_t seed, float **chw) {
  const size_t n = (size_t)(C * 4 * h * w);
  float *tokens = g_new(float, n);
  *chw = g_new(float, n);
  fk_noise_normal(*chw, (int64_t)n, seed, FK_RNG_TORCH_CPU);
  fk_latent_pack_host(tokens, *chw, C, 2 * h, 2 * w);
  return tokens;
}

/* Full rows i..last of one block of the small grid. */
static int last_of_block(int i, int full, int small) {
  while (i + 1 < full && (i + 1) * small / full == i * small / full) i++;
  return i;
}

typedef struct {
  int h, w, divisor;
} Size;
static const Size sizes[] = {{4, 6, 2}, {5, 7, 2}, {3, 5, 4}, {1, 2, 2}, {8, 9, 3}};

/* Each small value is the sum of its block over the root of the block's size. */
static void shrinks(void) {
  for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
    const FkDraftGrid g = fk_draft_grid(sizes[i].h, sizes[i].w, sizes[i].divisor);
    const int h = 2 * g.h, w = 2 * g.w, sh = 2 * g.small_h, sw = 2 * g.small_w;
    g_autofree float *e = NULL, *noise = drawn(g.h, g.w, i, &e);
    g_autofree float *small = g_new(float, (size_t)(C * sh * sw)), *have = g_new(float, (size_t)(C * sh * sw));
    g_assert_true(fk_draft_shrink(&g, C, noise, small));
    fk_latent_unpack_host(have, small, C, sh, sw);
    for (int c = 0; c < C; c++)
      for (int top = 0; top < h; top = last_of_block(top, h, sh) + 1)
        for (int left = 0; left < w; left = last_of_block(left, w, sw) + 1) {
          double sum = 0;
          int count = 0;
          for (int y = top; y <= last_of_block(top, h, sh); y++)
            for (int x = left; x <= last_of_block(left, w, sw); x++, count++) sum += (double)e[(c * h + y) * w + x];
          const float got = have[(c * sh + top * sh / h) * sw + left * sw / w];
          g_assert_cmpfloat(fabs(sum / sqrt(count) - (double)got), <, 1e-5);
        }
  }
}

/* The small noise of a large draw is standard normal: mean and variance within five of their standard errors. */
static void normal(void) {
  const FkDraftGrid g = fk_draft_grid(64, 64, 2);
  const int n = C * 4 * 32 * 32;
  g_autofree float *e = NULL, *noise = drawn(64, 64, 7, &e), *small = g_new(float, (size_t)n);
  double sum = 0, squares = 0;
  g_assert_true(fk_draft_shrink(&g, C, noise, small));
  for (int i = 0; i < n; i++) {
    sum += (double)small[i];
    squares += (double)small[i] * (double)small[i];
  }
  g_assert_cmpfloat(fabs(sum / n), <, 5 / sqrt(n));
  g_assert_cmpfloat(fabs(squares / n - 1), <, 5 * sqrt(2.0 / n));
}

/* A draft that kept its noise and predicts one flat picture gives (1 - sigma) picture + sigma e. */
static void lifts_flat(void) {
  for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
    const FkDraftGrid g = fk_draft_grid(sizes[i].h, sizes[i].w, sizes[i].divisor);
    const int n = C * 4 * g.h * g.w, m = C * 4 * g.small_h * g.small_w;
    g_autofree float *chw = NULL, *e = drawn(g.h, g.w, i, &chw), *x = g_memdup2(e, (size_t)n * sizeof *e);
    g_autofree float *clean = g_new(float, (size_t)m), *noise = g_new(float, (size_t)m);
    for (int k = 0; k < m; k++) clean[k] = 0.75f;
    g_assert_true(fk_draft_shrink(&g, C, e, noise));
    g_assert_true(fk_draft_lift(&g, C, clean, noise, 0.8f, x));
    for (int k = 0; k < n; k++) g_assert_cmpfloat(fabs((double)x[k] - 0.2 * 0.75 - 0.8 * (double)e[k]), <, 1e-5);
  }
}

/* What the lifted state shrinks to at sigma 1 is the draft's own noise, whatever e was: detail alone comes from e. */
static void keeps_noise(void) {
  for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
    const FkDraftGrid g = fk_draft_grid(sizes[i].h, sizes[i].w, sizes[i].divisor);
    const int m = C * 4 * g.small_h * g.small_w;
    g_autofree float *chw = NULL, *other = NULL, *x = drawn(g.h, g.w, i, &chw);
    g_autofree float *noise = drawn(g.small_h, g.small_w, 50 + i, &other), *back = g_new(float, (size_t)m);
    g_autofree float *clean = g_new0(float, (size_t)m);
    g_assert_true(fk_draft_lift(&g, C, clean, noise, 1, x));
    g_assert_true(fk_draft_shrink(&g, C, x, back));
    for (int k = 0; k < m; k++) g_assert_cmpfloat(fabs((double)back[k] - (double)noise[k]), <, 1e-5);
  }
}

/* A ramp comes up as the same ramp between the outer centres (linear interpolation reproduces it). */
static void lifts_ramp(void) {
  const FkDraftGrid g = fk_draft_grid(6, 8, 2);
  const int n = C * 4 * 6 * 8, m = C * 4 * 3 * 4;
  g_autofree float *ramp = g_new(float, (size_t)m), *clean = g_new(float, (size_t)m), *noise = g_new0(float, (size_t)m);
  g_autofree float *x = g_new0(float, (size_t)n), *have = g_new(float, (size_t)n);
  for (int k = 0; k < m; k++) ramp[k] = (float)(k % 8) + 10 * (float)(k / 8 % 6);
  fk_latent_pack_host(clean, ramp, C, 6, 8);
  g_assert_true(fk_draft_lift(&g, C, clean, noise, 0, x));
  fk_latent_unpack_host(have, x, C, 12, 16);
  for (int y = 1; y < 11; y++)
    for (int k = 1; k < 15; k++) {
      const double want = (k + 0.5) / 2 - 0.5 + 10 * ((y + 0.5) / 2 - 0.5);
      g_assert_cmpfloat(fabs((double)have[y * 16 + k] - want), <, 1e-4);
    }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/draft/steps", steps);
  g_test_add_func("/draft/grids", grids);
  g_test_add_func("/draft/shrinks", shrinks);
  g_test_add_func("/draft/normal", normal);
  g_test_add_func("/draft/lifts-flat", lifts_flat);
  g_test_add_func("/draft/keeps-noise", keeps_noise);
  g_test_add_func("/draft/lifts-ramp", lifts_ramp);
  return g_test_run();
}
