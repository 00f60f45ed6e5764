/* SPDX-License-Identifier: Apache-2.0 */
/* Edits that begin from the noised picture and true CFG in a part of the steps, against diffusers' pipelines in float32
 * (tests/golden/make_inpaint.py); how both go with schedulers, step caches and batches. */
#include "fk.h"
#include "scheduler.h"
#include "test-demo.h"
#include "test-files.h"
#include "test-picture.h"

#include <stdlib.h>

static FkEngine *engine;

static FkImage golden(const char *name) {
  g_autofree char *path = g_build_filename(FK_TEST_DATA, "inpaint", name, NULL);
  return read_png(path);
}

/* "name=value,name=value" beside what all edits have. (transfer full) */
static FkSettings *settings_of(const char *pairs) {
  g_autoptr(GError) error = NULL;
  FkSettings *s = fk_settings_new();
  g_autofree char *all = g_strconcat("steps=8,guidance=2.5,max-area=17920", *pairs ? "," : "", pairs, NULL);
  g_auto(GStrv) list = g_strsplit(all, ",", -1);
  for (char **p = list; *p; p++) {
    char *value = strchr(*p, '=');
    *value = 0;
    fk_settings_set(s, *p, value + 1, &error);
    g_assert_no_error(error);
  }
  return s;
}

/* (transfer full) pixels of the result */
static FkImage edit(const char *pairs, FkResult *result) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) s = settings_of(pairs);
  FkImage in = golden("source.png"), out = in;
  out.data = g_malloc0(in.stride * (size_t)in.height);
  FkJob job = {.in = in, .out = out, .settings = s};
  fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  if (result) *result = job.result;
  g_free(in.data);
  return out;
}

static void assert_picture(const char *pairs, const char *name, int evaluations) {
  FkResult r;
  FkImage have = edit(pairs, &r), want = golden(name);
  const double db = psnr(&have, &want);
  g_test_message("%s: %.1f dB", name, db);
  g_assert_cmpfloat(db, >=, 60);
  g_assert_cmpint(r.evaluations, ==, evaluations);
  g_free(have.data);
  g_free(want.data);
}

static void assert_equal(const char *a, const char *b) {
  FkResult x, y;
  FkImage have = edit(a, &x), want = edit(b, &y);
  g_assert_cmpint(memcmp(have.data, want.data, have.stride * (size_t)have.height), ==, 0);
  g_assert_cmpstr(x.mask, ==, y.mask);
  g_free(have.data);
  g_free(want.data);
}

static void strength(void) {
  assert_picture("prompt=invert the colors,seed=5,strength=0.6", "strength.png", 5);
  assert_equal("prompt=invert the colors,steps=3,strength=1", "prompt=invert the colors,steps=3");
  assert_equal("prompt=a boat,steps=2,task=generate,strength=0.4", "prompt=a boat,steps=2,task=generate");
}

/* As python's int(n - min(n * strength, n)); one step at least is left. */
static void left_out(void) {
  static const struct {
    int steps;
    double strength;
    int left_out;
  } cases[] = {{28, 1, 0},   {28, 0.6, 11},   {8, 0.7, 2}, {8, 0.6, 3},
               {10, 0.3, 7}, {28, 0.001, 27}, {1, 0.5, 0}, {1000, 0.001, 999}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
    g_assert_cmpint(fk_schedule_left_out(cases[i].steps, cases[i].strength), ==, cases[i].left_out);
}

/* Whatever the solver, the rest of the ladder is what the whole one has there. */
static void schedules(void) {
  const FkSchedulerConfig config = {.shift = 1,
                                    .num_train_timesteps = 1000,
                                    .base_image_seq_len = 256,
                                    .max_image_seq_len = 4096,
                                    .base_shift = 0.5,
                                    .max_shift = 1.15};
  for (int kind = 0; kind < FK_SCHEDULERS; kind++) {
    FkSchedule *whole = fk_schedule_build((FkSchedulerKind)kind, FK_SIGMAS_FLOW, 7, 256, &config);
    FkSchedule *rest = fk_schedule_from(whole, 3);
    const int from = whole->evaluations - rest->evaluations;
    g_assert_cmpint(rest->evaluations, ==, fk_schedule_evaluations((FkSchedulerKind)kind, 4));
    for (int i = 0; i < rest->evaluations; i++) {
      g_assert_cmpfloat(fk_schedule_sigma(rest, i), ==, fk_schedule_sigma(whole, from + i));
      g_assert_cmpfloat(rest->timesteps[i], ==, whole->timesteps[from + i]);
    }
    fk_schedule_free(whole);
    fk_schedule_free(rest);
  }
  for (int kind = 0; kind < FK_SCHEDULERS; kind++) {
    static const char *const names[] = {"euler", "dpmpp-2m", "unipc", "deis", "heun"};
    g_autofree char *pairs = g_strdup_printf("prompt=blur it,steps=4,strength=0.5,scheduler=%s", names[kind]);
    FkResult r;
    FkImage out = edit(pairs, &r);
    g_assert_cmpint(r.evaluations, ==, kind == FK_SCHEDULER_HEUN ? 3 : 2);
    g_free(out.data);
  }
}

#define CFG "prompt=make it night,negative-prompt=make it brighter,true-cfg-scale=2,seed=6"

static void range(void) {
  assert_picture(CFG ",guidance-start=0.25,guidance-end=0.75", "range.png", 8);
  assert_equal(CFG ",steps=2", CFG ",steps=2,guidance-start=0,guidance-end=1");
}

/* Outside the range an evaluation costs what it costs without guidance. */
static void range_flop(void) {
  FkResult none, half, all;
  g_free(edit(CFG, NULL).data); /* the prompts are encoded */
  g_free(edit("prompt=make it night,seed=6", &none).data);
  g_free(edit(CFG ",guidance-end=0.5", &half).data);
  g_free(edit(CFG, &all).data);
  g_test_message("%.3g, %.3g, %.3g FLOP", none.flop, half.flop, all.flop);
  g_assert_cmpfloat(half.flop - none.flop, >, 0.49 * (all.flop - none.flop));
  g_assert_cmpfloat(half.flop - none.flop, <, 0.52 * (all.flop - none.flop));
}

/* The negative branch joins where the cache skips: it computes, and does not forecast from nothing. With equal prompts
 * guidance changes nothing, so the result is that of the positive branch alone. */
static void late_branch(void) {
  static const char cached[] = "prompt=make it night,step-cache=first-block,step-cache-mask=11010010";
  g_autofree char *text =
      g_strconcat(cached, ",negative-prompt=make it night,true-cfg-scale=3,guidance-start=0.25", NULL);
  FkImage both = edit(text, NULL), one = edit(cached, NULL);
  const double db = psnr(&both, &one);
  g_test_message("%.1f dB", db);
  g_assert_cmpfloat(db, >, 30);
  g_free(both.data);
  g_free(one.data);
  text = (g_free(text), g_strconcat(cached, ",negative-prompt=blur,true-cfg-scale=3,guidance-start=0.25", NULL));
  assert_equal(text, text);
}

static void refused(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) s = settings_of("guidance-start=0.5,guidance-end=0.5");
  g_assert_false(fk_settings_check(s, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "guidance-start=0.5", "guidance-end=0.5");
  g_assert_false(fk_settings_set(s, "strength", "0", &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "strength", "0.001");
  g_autoptr(FkSettings) m = settings_of("strength=0.5,step-cache=dbcache,step-cache-mask=11111111");
  g_assert_false(fk_settings_check(m, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "8 characters", "4 evaluations");
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  engine = demo_engine("cpu");
  g_test_add_func("/blend/left-out", left_out);
  g_test_add_func("/blend/strength", strength);
  g_test_add_func("/blend/schedules", schedules);
  g_test_add_func("/blend/range", range);
  g_test_add_func("/blend/range-flop", range_flop);
  g_test_add_func("/blend/late-branch", late_branch);
  g_test_add_func("/blend/refused", refused);
  const int status = g_test_run();
  fk_engine_unref(engine);
  return status;
}
