/* SPDX-License-Identifier: Apache-2.0 */
/* Whole edits through fk.h on the CPU: pixels of diffusers' pipeline in float32 (its own float64 and float32 agree to
 * 87 to 95 dB), and the same bytes whatever the threads, the batch, the position and the prompt cache. */
#include "backend.h"
#include "test-picture.h"

#include <stdlib.h>
#include <string.h>

static FkImage golden_png(const char *name) {
  g_autofree char *path = g_build_filename(FK_TEST_DATA, "edits", name, NULL);
  return read_png(path);
}

static FkImage photo(const char *name) {
  g_autofree char *path = g_build_filename(FK_DEMO_PHOTOS, name, NULL);
  return read_png(path);
}

/* threads NULL: the default. */
static FkEngine *open_with(const char *threads) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "model-path", FK_DEMO_MODEL, NULL);
  fk_options_set(options, "backend", "cpu", NULL);
  fk_options_set(options, "threads", threads, NULL);
  FkEngine *engine = fk_engine_open(options, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  return engine;
}

static FkEngine *open_demo(void) {
  return open_with(NULL);
}

/* A NULL-terminated list of names and values. */
static FkSettings *settings_of(const char *first, ...) {
  g_autoptr(GError) error = NULL;
  FkSettings *s = fk_settings_new();
  va_list list;
  va_start(list, first);
  for (const char *name = first; name; name = va_arg(list, const char *)) {
    fk_settings_set(s, name, va_arg(list, const char *), &error);
    g_assert_no_error(error);
  }
  va_end(list);
  return s;
}

static FkImage like(const FkImage *in) {
  FkImage out = *in;
  out.data = g_malloc(in->stride * (size_t)in->height);
  memset(out.data, 0xa5, in->stride * (size_t)in->height);
  return out;
}

static FkResult edit(FkEngine *engine, const FkImage *in, const FkImage *out, const FkSettings *settings) {
  g_autoptr(GError) error = NULL;
  FkJob job = {.in = *in, .out = *out, .settings = settings};
  fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  return job.result;
}

static void compare(const char *what, const FkImage *have, const FkImage *want) {
  const size_t n = have->stride * (size_t)have->height;
  const double db = psnr(have, want);
  int worst = 0;
  for (size_t i = 0; i < n; i++) worst = MAX(worst, abs(have->data[i] - want->data[i]));
  g_test_message("%s: %.1f dB, largest difference %d", what, db, worst);
  g_assert_cmpfloat(db, >=, 60);
  g_assert_cmpint(worst, <=, 2);
}

static void reference_edits(void) {
  static const char *const prompts[] = {"make it black and white", "make it night", "turn it upside down",
                                        "add a shape", ""};
  g_autoptr(FkEngine) engine = open_demo();
  FkImage inputs[2] = {photo("coffee_256.png"), golden_png("rocket_304x208.png")};
  static const char *const shapes[2] = {"square", "wide"};
  for (int i = 0; i < 5; i++)
    for (int k = 0; k < 2; k++) {
      g_autofree char *name = g_strdup_printf("%s-%d.png", shapes[k], i), *seed = g_strdup_printf("%d", i);
      g_autoptr(FkSettings) s = settings_of("prompt", prompts[i], "seed", seed, NULL);
      FkImage want = golden_png(name), have = like(&inputs[k]);
      const FkResult r = edit(engine, &inputs[k], &have, s);
      g_assert_cmpint(r.width, ==, inputs[k].width);
      g_assert_cmpint(r.evaluations, ==, 28);
      compare(name, &have, &want);
      g_free(want.data);
      g_free(have.data);
    }
  g_free(inputs[0].data);
  g_free(inputs[1].data);
}

static void true_cfg(void) {
  g_autoptr(FkEngine) engine = open_demo();
  g_autoptr(FkSettings) s = settings_of("prompt", "make it night", "negative-prompt", "make it brighter",
                                        "true-cfg-scale", "2", "steps", "8", "seed", "6", NULL);
  FkImage in = photo("coffee_256.png"), want = golden_png("cfg.png"), have = like(&in);
  edit(engine, &in, &have, s);
  compare("true CFG", &have, &want);
  g_free(in.data);
  g_free(want.data);
  g_free(have.data);
}

static char *hash(const FkImage *image) {
  return g_compute_checksum_for_data(G_CHECKSUM_SHA256, image->data, image->stride * (size_t)image->height);
}

/* Bytes for 1, 2 and 3 threads, which the option wins for whatever the environment says. */
static void threads(void) {
  g_autofree char *first = NULL;
  FkImage in = photo("coffee_256.png");
  g_setenv("FK_THREADS", "4", TRUE);
  for (int n = 1; n <= 3; n++) {
    const char number[2] = {(char)('0' + n), 0};
    g_autoptr(FkEngine) engine = open_with(number);
    g_autofree char *machine = g_strdup_printf("cpu (%d thread", n);
    g_assert_true(g_str_has_prefix(fk_engine_machine(engine), machine));
    g_autoptr(FkSettings) s = settings_of("prompt", "add a shape", "steps", "2", NULL);
    FkImage out = like(&in);
    edit(engine, &in, &out, s);
    g_autofree char *now = hash(&out);
    if (!first) first = g_strdup(now);
    g_assert_cmpstr(now, ==, first);
    g_free(out.data);
  }
  g_unsetenv("FK_THREADS");
  g_free(in.data);
}

/* A frame's bytes alone, repeated (second time from the prompt cache), after other frames, and in a batch of 3. */
static void same_bytes(void) {
  g_autoptr(FkEngine) engine = open_demo();
  FkImage in = photo("coffee_256.png"), other = photo("rocket_256.png");
  g_autoptr(FkSettings) s = settings_of("prompt", "add a shape", "steps", "2", "seed", "9", NULL);
  g_autoptr(FkSettings) t = settings_of("prompt", "add a shape", "steps", "2", "seed", "10", NULL);
  g_autoptr(FkSettings) u = settings_of("prompt", "make it night", "steps", "3", NULL);
  FkImage out = like(&in), b = like(&in), c = like(&in);
  g_assert_false(edit(engine, &in, &out, s).prompt_cached);
  g_autofree char *alone = hash(&out);
  edit(engine, &other, &out, u);
  memset(out.data, 0, out.stride);
  g_assert_true(edit(engine, &in, &out, s).prompt_cached);
  g_autofree char *again = hash(&out);
  g_assert_cmpstr(alone, ==, again);

  g_autoptr(GError) error = NULL;
  FkJob jobs[3] = {{.in = other, .out = b, .settings = t},
                   {.in = in, .out = out, .settings = s},
                   {.in = in, .out = c, .settings = t}};
  memset(out.data, 0, out.stride);
  fk_engine_edit(engine, jobs, 3, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_autofree char *batched = hash(&out), *seeded = hash(&c);
  g_assert_cmpstr(alone, ==, batched);
  g_assert_cmpstr(alone, !=, seeded);
  g_free(in.data);
  g_free(other.data);
  g_free(out.data);
  g_free(b.data);
  g_free(c.data);
}

/* Sizes of issue: 600x400 works at 304x208, odd ones come back at their own size, alpha passes. */
static void sizes(void) {
  static const struct {
    int w, h, mw, mh;
  } cases[] = {{600, 400, 304, 208}, {33, 17, 352, 176}, {1, 1, 256, 256}, {256, 256, 256, 256}};
  g_autoptr(FkEngine) engine = open_demo();
  g_autoptr(FkSettings) s = settings_of("prompt", "make it night", "steps", "1", NULL);
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    const size_t n = (size_t)cases[i].w * (size_t)cases[i].h * 4;
    FkImage in = {g_malloc(n), cases[i].w, cases[i].h, 4, (size_t)cases[i].w * 4};
    memset(in.data, 77, n);
    FkImage out = like(&in);
    const FkResult r = edit(engine, &in, &out, s);
    g_assert_cmpint(r.width, ==, cases[i].mw);
    g_assert_cmpint(r.height, ==, cases[i].mh);
    for (size_t k = 3; k < n; k += 4) g_assert_cmpint(out.data[k], ==, 77);
    g_free(in.data);
    g_free(out.data);
  }
}

typedef struct {
  GCancellable *cancellable;
  int at, calls;
} Stop;

static void stop_at(const char *stage, int64_t current, int64_t total, void *user_data) {
  Stop *s = user_data;
  (void)total;
  if (strcmp(stage, "step")) return;
  s->calls++;
  if (current == s->at) g_cancellable_cancel(s->cancellable);
}

/* Cancelled at a step: stops there, and the next edit has the bytes it would have had. */
static void cancel(void) {
  g_autoptr(FkEngine) engine = open_demo();
  g_autoptr(FkSettings) s = settings_of("prompt", "add a shape", "steps", "3", NULL);
  FkImage in = photo("coffee_256.png"), out = like(&in);
  edit(engine, &in, &out, s);
  g_autofree char *before = hash(&out);
  g_autoptr(GError) error = NULL;
  Stop stop = {g_cancellable_new(), 1, 0};
  FkJob job = {.in = in, .out = out, .settings = s};
  g_assert_false(fk_engine_edit(engine, &job, 1, stop.cancellable, stop_at, &stop, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_CANCELLED);
  g_assert_cmpint(stop.calls, <=, 3);
  g_object_unref(stop.cancellable);
  edit(engine, &in, &out, s);
  g_autofree char *after = hash(&out);
  g_assert_cmpstr(before, ==, after);
  g_free(in.data);
  g_free(out.data);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/edit/reference", reference_edits);
  g_test_add_func("/edit/true-cfg", true_cfg);
  g_test_add_func("/edit/threads", threads);
  g_test_add_func("/edit/same-bytes", same_bytes);
  g_test_add_func("/edit/sizes", sizes);
  g_test_add_func("/edit/cancel", cancel);
  return g_test_run();
}
