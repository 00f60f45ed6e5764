/* SPDX-License-Identifier: Apache-2.0 */
/* Several reference pictures: their positions against ComfyUI's arithmetic, whole edits against diffusers' modules with
 * those positions in float32 (tests/golden/make_references.py), batches, plans, and what they combine with. */
#include "flux.h"
#include "latent.h"
#include "test-demo.h"
#include "test-files.h"
#include "test-picture.h"

#include <stdlib.h>

static FkEngine *engine;
static FkImage frame, rocket, shapes;

/* As written in python in make_references.py: (1, y, x) of pictures of rows x columns tokens. */
static void places(void) {
  static const struct {
    int n, rows[4], columns[4], y[4], x[4];
  } cases[] = {
      {1, {64}, {64}, {0}, {0}},
      {2, {64, 64}, {64, 64}, {0, 64}, {0, 0}},
      {3, {64, 64, 64}, {64, 64, 64}, {0, 64, 0}, {0, 0, 64}},
      {3, {42, 98, 64}, {98, 42, 64}, {0, 42, 0}, {0, 0, 98}},
      {4, {7, 13, 16, 16}, {10, 19, 16, 16}, {0, 7, 0, 20}, {0, 0, 19, 0}},
  };
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    FkPlace p[4];
    fk_latent_places(p, cases[i].rows, cases[i].columns, cases[i].n, false);
    for (int k = 0; k < cases[i].n; k++) {
      g_assert_cmpint(p[k].index, ==, 1);
      g_assert_cmpint(p[k].y, ==, cases[i].y[k]);
      g_assert_cmpint(p[k].x, ==, cases[i].x[k]);
    }
    fk_latent_places(p, cases[i].rows, cases[i].columns, cases[i].n, true);
    for (int k = 0; k < cases[i].n; k++) g_assert_true(p[k].index == k + 1 && !p[k].y && !p[k].x);
  }
}

/* "name=value,name=value" beside what all edits have. (transfer full) */
static FkSettings *settings_of(const char *pairs) {
  g_autoptr(GError) error = NULL;
  FkSettings *s = fk_settings_new();
  g_autofree char *all =
      g_strconcat("steps=6,guidance=2.5,max-area=17920,prompt=make it night,seed=8", *pairs ? "," : "", pairs, NULL);
  g_auto(GStrv) list = g_strsplit(all, ",", -1);
  for (char **p = list; *p; p++) {
    char *value = strchr(*p, '=');
    *value = 0;
    fk_settings_set(s, *p, value + 1, &error);
    g_assert_no_error(error);
  }
  return s;
}

static FkImage like(const FkImage *in) {
  FkImage out = *in;
  out.data = g_malloc0(in->stride * (size_t)in->height);
  return out;
}

/* (transfer full) pixels */
static FkImage edit(const FkImage *references, int n, const char *pairs, FkResult *result) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) s = settings_of(pairs);
  FkImage out = like(&frame);
  FkJob job = {.in = frame, .out = out, .settings = s, .references = references, .n_references = n};
  fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  if (result) *result = job.result;
  return out;
}

static void reference(void) {
  static const struct {
    const char *pairs, *name;
    int n;
  } cases[] = {{"", "offset-2.png", 1}, {"", "offset-3.png", 2}, {"reference-ids=index", "index-3.png", 2}};
  const FkImage pictures[2] = {rocket, shapes};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autofree char *path = g_build_filename(FK_TEST_DATA, "references", cases[i].name, NULL);
    FkImage want = read_png(path), have = edit(pictures, cases[i].n, cases[i].pairs, NULL);
    const double db = psnr(&have, &want);
    g_test_message("%s: %.1f dB", cases[i].name, db);
    g_assert_cmpfloat(db, >=, 60);
    g_free(want.data);
    g_free(have.data);
  }
}

static const char *const switches[] = {"",
                                       "reference-ids=index",
                                       "strength=0.6",
                                       "scheduler=heun",
                                       "negative-prompt=blur,true-cfg-scale=2",
                                       "step-cache=first-block,step-cache-threshold=0.4",
                                       "step-cache=dbcache,step-cache-front=1,step-cache-warmup=1,step-cache-back=1",
                                       "step-cache=teacache,step-cache-warmup=1,step-cache-forecast=taylor",
                                       "context-reuse=2",
                                       "context-reuse=2,negative-prompt=blur,true-cfg-scale=2",
                                       "token-merge=0.3",
                                       "draft=2",
                                       "vae-tiling=on"};

/* The same bytes alone and in a batch, whose frames may have references of other sizes, or none. */
static void batches(void) {
  enum { N = 3 };
  const FkImage cut = {rocket.data + 3 * 7, 300, 311, 3, rocket.stride};
  const FkImage *const own[N] = {&shapes, NULL, &cut};
  for (size_t i = 0; i < G_N_ELEMENTS(switches); i++) {
    g_autoptr(GError) error = NULL;
    g_autofree char *text = g_strconcat("steps=2", *switches[i] ? "," : "", switches[i], NULL);
    g_autoptr(FkSettings) s = settings_of(text);
    FkJob jobs[N];
    for (int k = 0; k < N; k++)
      jobs[k] = (FkJob){
          .in = frame, .out = like(&frame), .settings = s, .references = own[k], .n_references = own[k] ? 1 : 0};
    fk_engine_edit(engine, jobs, N, NULL, NULL, NULL, &error);
    g_assert_no_error(error);
    for (int k = 0; k < N; k++) {
      FkResult r;
      FkImage alone = edit(own[k], own[k] ? 1 : 0, text, &r);
      g_assert_cmpint(memcmp(alone.data, jobs[k].out.data, alone.stride * (size_t)alone.height), ==, 0);
      g_assert_cmpstr(r.mask, ==, jobs[k].result.mask);
      g_free(alone.data);
    }
    g_assert_cmpint(memcmp(jobs[0].out.data, jobs[1].out.data, frame.stride * (size_t)frame.height), !=, 0);
    for (int k = 0; k < N; k++) g_free(jobs[k].out.data);
  }
}

/* With a mask too, a region of it, and alpha that is not read. */
static void masks(void) {
  FkImage mask = {g_malloc0(160 * 112), 160, 112, 1, 160}, alpha = {g_malloc(64 * 64 * 4), 64, 64, 4, 256},
          opaque = {g_malloc(64 * 64 * 3), 64, 64, 3, 192};
  for (int y = 20; y < 60; y++) memset(mask.data + 160 * y + 30, 255, 50);
  for (int i = 0; i < 64 * 64; i++)
    for (int c = 0; c < 4; c++) {
      alpha.data[4 * i + c] = (uint8_t)(i * 7 + c * 50);
      if (c < 3) opaque.data[3 * i + c] = alpha.data[4 * i + c];
    }
  for (int region = 0; region < 2; region++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkSettings) s = settings_of(region ? "steps=2,region=crop" : "steps=2");
    FkJob jobs[2] = {{.in = frame, .out = like(&frame), .settings = s, .mask = &mask, .references = &alpha},
                     {.in = frame, .out = like(&frame), .settings = s, .mask = &mask, .references = &opaque}};
    jobs[0].n_references = jobs[1].n_references = 1;
    fk_engine_edit(engine, jobs, 2, NULL, NULL, NULL, &error);
    g_assert_no_error(error);
    g_assert_cmpint(memcmp(jobs[0].out.data, jobs[1].out.data, frame.stride * (size_t)frame.height), ==, 0);
    for (int i = 0; i < 160 * 112; i++)
      if (!mask.data[i]) g_assert_cmpint(memcmp(jobs[0].out.data + 3 * i, frame.data + 3 * i, 3), ==, 0);
    g_free(jobs[0].out.data);
    g_free(jobs[1].out.data);
  }
  g_free(mask.data);
  g_free(alpha.data);
  g_free(opaque.data);
}

static void refuse(const FkImage *references, int n, const char *pairs, const char *a, const char *b) {
  const int code = strcmp(b, "aspect ratio") ? FK_ERROR_OPTION_BAD : FK_ERROR_SHAPE;
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) s = settings_of(pairs);
  FkImage out = like(&frame);
  FkJob job = {.in = frame, .out = out, .settings = s, .references = references, .n_references = n};
  g_assert_false(fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error));
  assert_error(error, code, a, b);
  g_free(out.data);
}

static void refused(void) {
  uint8_t bytes[64] = {0};
  const FkImage grey = {bytes, 2, 2, 1, 2}, none = {NULL, 2, 2, 3, 6}, narrow = {bytes, 4, 1, 3, 11},
                good = {bytes, 2, 2, 3, 6}, thin = {rocket.data, 1, 400, 3, rocket.stride};
  refuse(&grey, 1, "", "reference 0", "2x2 with 1");
  refuse(&none, 1, "", "reference 0", "no data");
  refuse(&narrow, 1, "", "reference 0", "rows of 11");
  refuse(&good, 9, "", "9 references", "0 to 8");
  refuse(NULL, 1, "", "1 references", "array");
  refuse(&good, 1, "task=generate", "references", "task=generate");
  refuse(&thin, 1, "", "1x400", "aspect ratio");
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  frame = read_png(FK_TEST_DATA "/inpaint/source.png");
  rocket = read_png(FK_DEMO_PHOTOS "/rocket.png");
  shapes = read_png(FK_DEMO_PHOTOS "/shapes_256.png");
  engine = demo_engine("cpu");
  g_test_add_func("/references/places", places);
  g_test_add_func("/references/reference", reference);
  g_test_add_func("/references/masks", masks);
  g_test_add_func("/references/refused", refused);
  g_test_add_func("/references/batches", batches);
  const int status = g_test_run();
  fk_engine_unref(engine);
  g_free(frame.data);
  g_free(rocket.data);
  g_free(shapes.data);
  return status;
}
