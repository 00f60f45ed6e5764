/* SPDX-License-Identifier: Apache-2.0 */
/* What policies promise of whole edits, on the demo model at a small size: off is off to the bit, every setting gives
 * one hash, decisions replay, a frame's bytes do not depend on its batch, pairs combine or are refused as the
 * table of interactions says. That the results are right is tested where each policy lives. */
#include "backend.h"
#include "edited.h"
#include "fk.h"
#include "interactions.h"
#include "properties.h"
#include "test-demo.h"
#include "tune.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 80, HEIGHT = 48, BYTES = WIDTH * HEIGHT * 3 };

static FkEngine *engine;

/* A smooth picture with an edge; `shift` makes others. */
static void paint(uint8_t *pixels, int shift) {
  for (int y = 0; y < HEIGHT; y++)
    for (int x = 0; x < WIDTH; x++) {
      uint8_t *p = pixels + (y * WIDTH + x) * 3;
      p[0] = (uint8_t)(x * 2 + shift);
      p[1] = (uint8_t)(y * 3);
      p[2] = x + shift > 40 && y > 15 ? 220 : 40;
    }
}

/* "name=value name=value": settings of a short edit at the model's size. (transfer full) */
static FkSettings *settings_of(const char *pairs) {
  g_autoptr(GError) error = NULL;
  FkSettings *s = fk_settings_new();
  g_autofree char *all = g_strconcat("steps=8 seed=3 max-area=3840 ", pairs, NULL);
  g_auto(GStrv) list = g_strsplit(all, " ", -1);
  for (int i = 0; list[i]; i++) {
    if (!*list[i]) continue;
    char *value = strchr(list[i], '=');
    *value = 0;
    fk_settings_set(s, list[i], value + 1, &error);
    g_assert_no_error(error);
  }
  fk_settings_set(s, "prompt", "add a shape", NULL);
  return s;
}

typedef struct {
  uint8_t pixels[BYTES];
  FkResult r;
} Edit;

static Edit *edit_settings(const FkSettings *s, int shift) {
  g_autoptr(GError) error = NULL;
  g_autofree uint8_t *in = g_malloc(BYTES);
  Edit *e = g_new0(Edit, 1);
  FkJob job = {.in = {in, WIDTH, HEIGHT, 3, WIDTH * 3}, .settings = s};
  int w, h;
  paint(in, shift);
  g_assert_true(fk_engine_output_size(engine, s, WIDTH, HEIGHT, &w, &h, NULL));
  g_autofree uint8_t *out = g_malloc0((size_t)w * (size_t)h * 3);
  job.out = (FkImage){out, w, h, 3, (size_t)w * 3};
  fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  memcpy(e->pixels, out, MIN(BYTES, w * h * 3));
  e->r = job.result;
  return e;
}

static Edit *edit(const char *pairs) {
  g_autoptr(FkSettings) s = settings_of(pairs);
  return edit_settings(s, 0);
}

static void assert_same(const Edit *a, const Edit *b) {
  g_assert_cmpint(memcmp(a->pixels, b->pixels, BYTES), ==, 0);
  g_assert_cmpstr(a->r.mask, ==, b->r.mask);
}

/* Values that mean off, and policies that never find anything similar. */
static void off(void) {
  static const char *const list[] = {"step-cache=none",
                                     "context-reuse=1",
                                     "token-merge=0",
                                     "step-cache-forecast=none",
                                     "draft=1 draft-share=0.5",
                                     "region-tokens=0",
                                     "region-tokens=100 region-warmup=9",
                                     "preset=exact",
                                     "step-cache=none context-reuse=1 token-merge=0"};
  static const char *const never[] = {
      "step-cache=first-block step-cache-threshold=0", "step-cache=dbcache step-cache-back=1 step-cache-max=0",
      "step-cache=teacache step-cache-last=0", "step-cache=first-block step-cache-mask=11111111"};
  g_free(edit("")); /* the prompt is encoded once: FLOP are compared without it */
  g_autofree Edit *plain = edit("");
  g_assert_cmpstr(plain->r.mask, ==, "11111111");
  g_assert_cmpint(plain->r.skipped, ==, 0);
  for (size_t i = 0; i < G_N_ELEMENTS(list); i++) {
    g_autofree Edit *e = edit(list[i]);
    assert_same(plain, e);
    g_assert_cmpfloat(plain->r.flop, ==, e->r.flop);
  }
  for (size_t i = 0; i < G_N_ELEMENTS(never); i++) {
    g_autofree Edit *e = edit(never[i]);
    assert_same(plain, e);
    g_assert_cmpint(e->r.skipped, ==, 0);
  }
}

static const char *const active[] = {
    "step-cache=first-block step-cache-threshold=0.3",
    "step-cache=first-block step-cache-threshold=0.3 step-cache-forecast=taylor2",
    "step-cache=dbcache step-cache-warmup=2 step-cache-threshold=0.3 step-cache-front=2 step-cache-back=1",
    "step-cache=dbcache step-cache-warmup=2 step-cache-threshold=1 step-cache-last=2 step-cache-forecast=taylor",
    "step-cache=teacache step-cache-warmup=1",
    "step-cache=teacache step-cache-warmup=1 step-cache-forecast=taylor",
    "context-reuse=2",
    "context-reuse=100",
    "token-merge=0.25",
    "token-merge=0.75",
    "region-tokens=100 region-warmup=2",
    "region-tokens=100 region-warmup=2 region-keys=reference region-refresh=2 scheduler=dpmpp-2m",
    "region-tokens=100 region-warmup=1 region-keys=target region-refresh=3 negative-prompt=blur true-cfg-scale=2",
    "region-tokens=0.5 region-warmup=2 step-cache=first-block step-cache-threshold=0.3 step-cache-forecast=taylor",
    "region-tokens=100 step-cache=teacache step-cache-warmup=2 step-cache-forecast=taylor2 region-refresh=2",
    "draft=2 region-tokens=100 region-warmup=1 context-reuse=2",
    "region-tokens=0.8 region-warmup=1 region-refresh=1 step-cache=first-block step-cache-last=1 "
    "step-cache-forecast=taylor",
    "region-tokens=1.3 region-warmup=1 region-refresh=1 step-cache=teacache step-cache-threshold=100 "
    "step-cache-warmup=2 step-cache-last=1 step-cache-forecast=taylor negative-prompt=blur true-cfg-scale=2",
    "draft=2",
    "draft=3 draft-share=0.7 scheduler=unipc",
    "draft=2 draft-share=0.4 step-cache=teacache step-cache-warmup=1 step-cache-forecast=taylor context-reuse=2",
    "step-cache=first-block step-cache-threshold=0.3 context-reuse=3",
    "step-cache=first-block step-cache-threshold=0.3 token-merge=0.4",
    "step-cache=teacache step-cache-warmup=1 context-reuse=2 scheduler=dpmpp-2m",
    "step-cache=first-block step-cache-threshold=0.3 negative-prompt=blur true-cfg-scale=2"};

/* 20 runs, one hash; it is not that of the plain edit; work is saved and counted the same each time. */
static void hashes(void) {
  g_free(edit(""));
  g_autofree Edit *plain = edit("");
  for (size_t i = 0; i < G_N_ELEMENTS(active); i++) {
    g_free(edit(active[i]));
    g_autofree Edit *first = edit(active[i]);
    g_assert_cmpint(memcmp(first->pixels, plain->pixels, BYTES), !=, 0);
    if (!strstr(active[i], "cfg")) g_assert_cmpfloat(first->r.flop, <, plain->r.flop);
    for (int k = 1; k < 20; k++) {
      g_autofree Edit *e = edit(active[i]);
      assert_same(first, e);
      g_assert_cmpfloat(e->r.flop, ==, first->r.flop);
    }
    g_test_message("%s: %s, %.2f of the FLOP", active[i], first->r.mask, first->r.flop / plain->r.flop);
  }
}

/* The mask of a run, replayed under a threshold that would decide otherwise. */
static void replay(void) {
  int replayed = 0;
  for (size_t i = 0; i < G_N_ELEMENTS(active); i++) {
    if (!strstr(active[i], "step-cache=")) continue;
    g_free(edit(active[i]));
    g_autofree Edit *first = edit(active[i]);
    g_autofree char *text = g_strdup_printf("%s step-cache-threshold=0 step-cache-mask=%s", active[i], first->r.mask);
    g_autofree Edit *again = edit(text);
    g_assert_cmpint(first->r.skipped, >, 0);
    assert_same(first, again);
    g_assert_cmpint(again->r.skipped, ==, first->r.skipped);
    g_assert_cmpfloat(again->r.flop, ==, first->r.flop);
    replayed++;
  }
  g_assert_cmpint(replayed, >=, 8);
}

/* The tokens of a run, replayed under a threshold that would find others; and a mask that is none of this size. */
static void region_replay(void) {
  int partly = 0, changed = 0;
  for (size_t i = 0; i < G_N_ELEMENTS(active); i++) {
    g_autoptr(FkSettings) s = settings_of(active[i]);
    if (!strstr(active[i], "region-tokens=")) continue;
    const bool again_found = strstr(active[i], "region-refresh") != NULL;
    g_free(edit(active[i]));
    g_autofree Edit *first = edit(active[i]);
    g_assert_true(g_str_has_prefix(first->r.region, again_found ? "v2:5x3:" : "5x3:"));
    fk_settings_set(s, "region-tokens", "0.001", NULL);
    fk_settings_set(s, "region-mask", first->r.region, NULL);
    g_autofree Edit *again = edit_settings(s, 0);
    assert_same(first, again);
    g_assert_cmpstr(first->r.region, ==, again->r.region);
    g_assert_cmpfloat(first->r.flop, ==, again->r.flop);
    partly += strcmp(first->r.region, "5x3:fffe") != 0;
    for (const char *later = strchr(first->r.region, '+'); later; later = strchr(later + 1, '+'))
      changed += strncmp(strchr(later, ':'), ":i", 2) != 0;
    g_test_message("%s: %s", active[i], first->r.region);
  }
  g_assert_cmpint(partly, >=, 4);
  g_assert_cmpint(changed, >=, 2);
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) wrong = settings_of("region-tokens=1 region-mask=4x4:ffff");
  g_autofree uint8_t *memory = g_malloc0(2 * BYTES);
  FkJob job = {.in = {memory, WIDTH, HEIGHT, 3, WIDTH * 3},
               .out = {memory + BYTES, WIDTH, HEIGHT, 3, WIDTH * 3},
               .settings = wrong};
  g_assert_false(fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
  g_assert_nonnull(strstr(error->message, "region-mask"));
}

/* Tokens that are not edited keep their pixels, to the byte; all else is as without. */
static void region_keep(void) {
  g_autofree Edit *plain = edit("region-tokens=100 region-warmup=2");
  g_autofree Edit *kept = edit("region-tokens=100 region-warmup=2 region-keep=true");
  g_autofree Edit *off = edit("region-keep=true"), *nothing = edit("");
  g_autofree uint8_t *in = g_malloc(BYTES);
  int changed = 0;
  uint8_t edited[15] = {0};
  paint(in, 0);
  assert_same(off, nothing);
  g_assert_cmpstr(plain->r.region, ==, kept->r.region);
  g_assert_true(fk_edited_last(kept->r.region, edited, 3, 5));
  for (int y = 0; y < HEIGHT; y++)
    for (int x = 0; x < WIDTH; x++) {
      const size_t at = (size_t)(y * WIDTH + x) * 3;
      const bool here = edited[y * 3 / HEIGHT * 5 + x * 5 / WIDTH];
      g_assert_cmpmem(kept->pixels + at, 3, (here ? plain->pixels : in) + at, 3);
      changed += memcmp(kept->pixels + at, in + at, 3) != 0;
    }
  g_assert_cmpint(changed, >, 0);
}

/* Frames of a batch decide for themselves: bytes, decisions and FLOP of each are those it has alone. */
static void batches(void) {
  enum { N = 3 };
  for (size_t i = 0; i < G_N_ELEMENTS(active); i++) {
    FkJob jobs[N];
    FkSettings *s[N];
    g_autofree uint8_t *memory = g_malloc0(2 * N * BYTES);
    g_autoptr(GError) error = NULL;
    for (int k = 0; k < N; k++) {
      g_autofree char *text = g_strdup_printf("%s seed=%d", active[i], 10 + k);
      s[k] = settings_of(text);
      uint8_t *in = memory + 2 * k * BYTES;
      paint(in, 25 * k);
      jobs[k] = (FkJob){
          .in = {in, WIDTH, HEIGHT, 3, WIDTH * 3}, .out = {in + BYTES, WIDTH, HEIGHT, 3, WIDTH * 3}, .settings = s[k]};
    }
    fk_engine_edit(engine, jobs, N, NULL, NULL, NULL, &error);
    g_assert_no_error(error);
    for (int k = 0; k < N; k++) {
      g_autofree Edit *alone = edit_settings(s[k], 25 * k);
      g_assert_cmpint(memcmp(alone->pixels, jobs[k].out.data, BYTES), ==, 0);
      g_assert_cmpstr(alone->r.mask, ==, jobs[k].result.mask);
      g_assert_cmpint(alone->r.skipped, ==, jobs[k].result.skipped);
      fk_settings_free(s[k]);
    }
  }
}

/* FLOP of a batch are shared out: each frame its own, the common ones in parts. */
static void batch_flop(void) {
  FkJob jobs[2];
  g_autoptr(FkSettings) s = settings_of("context-reuse=4");
  g_autofree uint8_t *memory = g_malloc0(4 * BYTES);
  g_autoptr(GError) error = NULL;
  g_free(edit(""));
  for (int k = 0; k < 2; k++)
    jobs[k] = (FkJob){.in = {memory + 2 * k * BYTES, WIDTH, HEIGHT, 3, WIDTH * 3},
                      .out = {memory + (2 * k + 1) * BYTES, WIDTH, HEIGHT, 3, WIDTH * 3},
                      .settings = s};
  fk_engine_edit(engine, jobs, 2, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_free(edit("context-reuse=4"));
  g_autofree Edit *alone = edit("context-reuse=4");
  g_assert_cmpfloat(jobs[0].result.flop, ==, jobs[1].result.flop);
  g_assert_cmpfloat(jobs[0].result.flop, <=, alone->r.flop); /* text and modulations are paid once */
  g_assert_cmpfloat(jobs[0].result.flop, >, 0.8 * alone->r.flop);
}

/* Equal prompts on both branches: guidance then changes nothing, so a cached edit with it must be the one without it,
 * but for rounding. Branches that shared a state would forecast from each other's values. */
static void guidance(void) {
  static const char cached[] = "step-cache=first-block step-cache-mask=11010010 step-cache-forecast=taylor2";
  g_autofree char *text = g_strconcat(cached, " true-cfg-scale=3", NULL);
  g_autoptr(FkSettings) s = settings_of(text);
  fk_settings_set(s, "negative-prompt", "add a shape", NULL);
  g_autofree Edit *both = edit_settings(s, 0), *one = edit(cached);
  int worst = 0;
  for (int i = 0; i < BYTES; i++) worst = MAX(worst, abs(both->pixels[i] - one->pixels[i]));
  g_test_message("largest difference %d", worst);
  g_assert_cmpint(worst, <=, 2);
}

static void refuse(const char *pairs, const char *a, const char *b) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) s = settings_of(pairs);
  g_assert_false(fk_settings_check(s, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
  g_assert_nonnull(strstr(error->message, a));
  if (b) g_assert_nonnull(strstr(error->message, b));
}

static void refusals(void) {
  refuse("token-merge=0.2 context-reuse=2", "token-merge", "context-reuse");
  refuse("context-reuse=2 task=generate", "context-reuse", "task=generate");
  refuse("context-reuse=2 step-cache=dbcache step-cache-back=1", "context-reuse", "step-cache-back");
  refuse("step-cache=teacache step-cache-front=0", "step-cache=teacache", "step-cache-front");
  refuse("step-cache=teacache step-cache-back=2", "step-cache=teacache", "step-cache-back");
  refuse("step-cache-mask=11111111", "step-cache=none", "step-cache-mask");
  refuse("step-cache=dbcache step-cache-mask=1101", "step-cache-mask: 4 characters for 8", NULL);
  refuse("step-cache=dbcache scheduler=heun step-cache-mask=11111111", "8 characters for 15", NULL);
  refuse("step-cache=dbcache step-cache-mask=11x11111", "step-cache-mask: character 3", NULL);
  refuse("region-tokens=1 task=generate", "region-tokens", "task=generate");
  refuse("region-tokens=1 token-merge=0.2", "region-tokens", "token-merge");
  refuse("region-mask=4x4:ffff", "region-tokens=0", "region-mask");
  refuse("region-tokens=1 region-mask=v2:4x4:ffff+2:i", "region-mask", "region-refresh=0");
  refuse("draft=2 scheduler=heun", "draft", "scheduler=heun");
  refuse("draft=2 draft-share=0.5 step-cache=dbcache step-cache-mask=11110111", "evaluation 5 is skipped", "first 5");
  refuse("step-cache=dbcache step-cache-mask=01111111", "step-cache-mask: the first", NULL);
}

/* Blocks are the model's affair: known when it runs. */
static void no_block_left(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) s = settings_of("step-cache=dbcache step-cache-front=5 step-cache-back=2");
  g_autofree uint8_t *memory = g_malloc0(2 * BYTES);
  FkJob job = {
      .in = {memory, WIDTH, HEIGHT, 3, WIDTH * 3}, .out = {memory + BYTES, WIDTH, HEIGHT, 3, WIDTH * 3}, .settings = s};
  g_assert_false(fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
  g_assert_nonnull(strstr(error->message, "step-cache-front 5"));
  g_autofree Edit *after = edit(""); /* and the engine goes on */
  g_assert_cmpint(after->r.evaluations, ==, 8);
}

/* Every row names properties that exist and gives a reason; presets alone never refuse themselves. */
static void table(void) {
  static const char *const presets[] = {"exact", "quality", "balanced", "fast", "turbo", "sprint", "few-step"};
  size_t n;
  const FkInteraction *t = fk_interactions(&n);
  for (size_t i = 0; i < n; i++) {
    g_assert_true(fk_properties_find(t[i].a) && fk_properties_find(t[i].b));
    g_assert_true(strchr("=!>", t[i].a_when[0]) && strchr("=!><", t[i].b_when[0]));
    g_assert_cmpint((int)strlen(t[i].reason), >, 10);
  }
  for (size_t i = 0; i < G_N_ELEMENTS(presets); i++) {
    g_autofree char *text = g_strdup_printf("preset=%s", presets[i]);
    g_autoptr(FkSettings) s = settings_of(text);
    g_assert_true(fk_settings_check(s, NULL));
    fk_settings_set(s, "task", "generate", NULL); /* a preset's choice gives way */
    g_assert_true(fk_settings_check(s, NULL));
  }
}

static const char *const switches[] = {"step-cache=first-block step-cache-threshold=0.3",
                                       "step-cache=dbcache step-cache-warmup=1 step-cache-threshold=0.4",
                                       "step-cache=teacache step-cache-warmup=1",
                                       "step-cache-forecast=taylor2",
                                       "step-cache-back=1",
                                       "step-cache-last=1",
                                       "context-reuse=2",
                                       "token-merge=0.3",
                                       "draft=2",
                                       "strength=0.6",
                                       "guidance-end=0.5 negative-prompt=dark true-cfg-scale=3",
                                       "region-tokens=100 region-warmup=2",
                                       "scheduler=dpmpp-2m",
                                       "scheduler=unipc",
                                       "scheduler=deis",
                                       "scheduler=heun",
                                       "sigmas=karras",
                                       "sigmas=beta",
                                       "negative-prompt=blur true-cfg-scale=2",
                                       "task=generate",
                                       "rng=torch-cuda",
                                       "vae-tiling=on",
                                       "prompt-cache=off",
                                       "max-sequence-length=32"};

/* Pairs with one name ask for two things of one switch. */
static bool same_switch(const char *a, const char *b) {
  const size_t n = strcspn(a, "=");
  return !strncmp(a, b, n + 1);
}

static void pairwise(void) {
  int allowed = 0, refused = 0;
  for (size_t i = 0; i < G_N_ELEMENTS(switches); i++)
    for (size_t k = 0; k < i; k++) {
      g_autoptr(GError) error = NULL;
      g_autofree char *text = g_strdup_printf("%s %s steps=4", switches[k], switches[i]);
      if (same_switch(switches[i], switches[k])) continue;
      g_autoptr(FkSettings) s = settings_of(text);
      if (!fk_settings_check(s, &error)) {
        g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
        refused++;
        continue;
      }
      g_autofree Edit *a = edit_settings(s, 0), *b = edit_settings(s, 0); /* NaN is an error of its own */
      assert_same(a, b);
      int low = 255, high = 0;
      for (int p = 0; p < BYTES; p++) {
        low = MIN(low, a->pixels[p]);
        high = MAX(high, a->pixels[p]);
      }
      g_assert_cmpint(high - low, >, 30);
      allowed++;
    }
  g_test_message("%d pairs run, %d refused", allowed, refused);
  g_assert_cmpint(allowed, >, 150);
  g_assert_cmpint(refused, ==, 9);
}

static double loop_ms(FkEngine *e, const FkSettings *s, int runs) {
  g_autofree uint8_t *memory = g_malloc0((size_t)2 * 256 * 256 * 3);
  double best = HUGE_VAL;
  for (int i = 0; i < runs; i++) {
    g_autoptr(GError) error = NULL;
    FkJob job = {.in = {memory, 256, 256, 3, 768}, .out = {memory + 256 * 256 * 3, 256, 256, 3, 768}, .settings = s};
    fk_engine_edit(e, &job, 1, NULL, NULL, NULL, &error);
    g_assert_no_error(error);
    best = MIN(best, job.result.denoise_ms);
  }
  return best;
}

/* With every policy off, all that is not computing (loop, schedule, policies, checks of every op) as the null backend
 * runs it takes less than 0.5 % of a 256x256 edit. */
static void cost_off(void) {
  g_autoptr(FkSettings) s = fk_settings_new();
  g_autoptr(FkEngine) null = demo_engine("null");
  const double host = loop_ms(null, s, 10), all = loop_ms(engine, s, 1);
  g_test_message("loop on the null backend %.3f ms, on the CPU %.0f ms: %.3f %%", host, all, 100 * host / all);
  g_assert_cmpfloat(host, <, 0.005 * all);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  engine = demo_engine("cpu");
  g_test_add_func("/denoise/off", off);
  g_test_add_func("/denoise/hashes", hashes);
  g_test_add_func("/denoise/replay", replay);
  g_test_add_func("/denoise/region-replay", region_replay);
  g_test_add_func("/denoise/region-keep", region_keep);
  g_test_add_func("/denoise/batches", batches);
  g_test_add_func("/denoise/batch-flop", batch_flop);
  g_test_add_func("/denoise/guidance", guidance);
  g_test_add_func("/denoise/refusals", refusals);
  g_test_add_func("/denoise/no-block-left", no_block_left);
  g_test_add_func("/denoise/table", table);
  g_test_add_func("/denoise/cost-off", cost_off);
  g_test_add_func("/denoise/pairwise", pairwise);
  const int status = g_test_run();
  fk_engine_unref(engine);
  return status;
}
