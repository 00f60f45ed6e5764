/* SPDX-License-Identifier: Apache-2.0 */
/* quantization=fp8-static on the GPU, on the demo checkpoint through fk.h alone, with scales that the CPU has measured:
 * one hash from 20 edits, in batches, with graphs and with results in codes or not; near the CPU's edit under the same
 * scales; what scales cut off is counted as on the CPU.
 *
 * Environment as for test-gpu-edit.c: BACKEND (default cuda; cpu runs the same checks with fewer steps), FK_SOURCE.
 * Without a usable device everything counts as skipped. */
#include "../test-picture.h"

#include <glib/gstdio.h>
#include <string.h>

/* Decibels between two named edits with 8-bit blocks, or one and the same without: what test-gpu-edit.c allows. */
enum { QUANTISED_DB = 38 };

static const char *backend, *root;
static bool gpu;
static char *folder, *path, *scales; /* of the calibration; its text */
static FkImage photo;

/* ---- Engines and edits ---- */

/* (transfer full, nullable) */
static FkEngine *open_on(const char *on, const char *quantization, GError **error) {
  g_autofree char *model = g_build_filename(root, "examples", "demo-model", "checkpoint", NULL);
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "model-path", model, NULL);
  fk_options_set(options, "backend", on, NULL);
  fk_options_set(options, "quantization", quantization, NULL);
  fk_options_set(options, "calibration-path", strcmp(quantization, "none") ? path : NULL, NULL);
  return fk_engine_open(options, NULL, NULL, NULL, error);
}

static FkEngine *open_static(const char *on) {
  g_autoptr(GError) error = NULL;
  FkEngine *engine = open_on(on, "fp8-static", &error);
  if (!engine) g_error("%s", error->message);
  return engine;
}

/* "name=value ..." on top of `prompt`. (transfer full) */
static FkSettings *settings_of(const char *prompt, const char *pairs) {
  g_auto(GStrv) list = g_strsplit(pairs, " ", -1);
  FkSettings *s = fk_settings_new();
  fk_settings_set(s, "prompt", prompt, NULL);
  for (char **p = list; *p; p++) {
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) pair = g_strsplit(*p, "=", 2);
    if (**p) fk_settings_set(s, pair[0], pair[1], &error);
    g_assert_no_error(error);
  }
  return s;
}

static FkImage edit(FkEngine *engine, const char *prompt, const char *pairs, FkResult *result) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) settings = settings_of(prompt, pairs);
  FkJob job = {.in = photo, .out = photo, .settings = settings};
  job.out.data = g_malloc0(photo.stride * (size_t)photo.height);
  fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  if (result) *result = job.result;
  return job.out;
}

static char *hash(const FkImage *image) {
  return g_compute_checksum_for_data(G_CHECKSUM_SHA256, image->data, image->stride * (size_t)image->height);
}

/* A vague edit, which shows a changed bit best. */
static char *vague_hash(FkEngine *engine, const char *pairs) {
  g_autofree char *all = g_strdup_printf("steps=%d seed=3 %s", gpu ? 28 : 2, pairs);
  FkImage image = edit(engine, "add a shape", all, NULL);
  char *h = hash(&image);
  g_free(image.data);
  return h;
}

/* ---- Scales ---- */

/* Those of one named edit of the CPU. (transfer full) */
static char *calibrate(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) engine = open_on("cpu", "none", &error);
  g_autoptr(FkLayers) layers = engine ? fk_layers_new(engine, &error) : NULL;
  g_autoptr(FkSettings) settings = settings_of("make it night", "steps=2");
  FkJob job = {.in = photo, .out = photo, .settings = settings};
  if (!layers) g_error("%s", error->message);
  job.out.data = g_malloc0(photo.stride * (size_t)photo.height);
  fk_layers_edit(layers, &job, 1, NULL, &error);
  g_assert_no_error(error);
  g_free(job.out.data);
  char *text = fk_layers_calibration(layers, &error);
  g_assert_no_error(error);
  return text;
}

static void write_scales(const char *text) {
  g_autoptr(GError) error = NULL;
  g_file_set_contents(path, text, -1, &error);
  g_assert_no_error(error);
}

/* Every scale times `factor`. (transfer full) */
static char *scaled(double factor) {
  g_auto(GStrv) lines = g_strsplit(scales, "\n", -1);
  for (char **p = lines; *p; p++) {
    char *colon = strstr(*p, "\": "), digits[G_ASCII_DTOSTR_BUF_SIZE], *rest = NULL;
    if (!g_str_has_prefix(*p, "  \"") || !colon) continue;
    g_ascii_dtostr(digits, sizeof digits, g_ascii_strtod(colon + 3, &rest) * factor);
    char *line = g_strdup_printf("%.*s\": %s%s", (int)(colon - *p), *p, digits, rest);
    g_free(*p);
    *p = line;
  }
  return g_strjoinv("\n", lines);
}

/* ---- Tests ---- */

static void one_hash(void) {
  g_autoptr(FkEngine) engine = open_static(backend);
  g_autofree char *first = vague_hash(engine, "");
  g_test_message("hash %s", first);
  for (int i = 1; i < (gpu ? 20 : 2); i++) {
    g_autofree char *now = vague_hash(engine, "");
    g_assert_cmpstr(now, ==, first);
  }
  g_autoptr(FkEngine) again = open_static(backend);
  g_autofree char *plainly = vague_hash(again, "cuda-graph=off");
  g_assert_cmpstr(plainly, ==, first);
}

/* Results that leave their kernels as codes, and codes made of numbers: the same bytes, whatever attention is of. */
static void fused(void) {
  static const char *const attention[] = {"", "attention-precision=fp8-values", "attention-precision=fp8"};
  g_autoptr(FkEngine) engine = open_static(backend);
  g_autofree char *first = NULL;
  for (size_t i = 0; i < G_N_ELEMENTS(attention); i++) {
    g_autofree char *without = g_strdup_printf("%s fused-codes=off", attention[i]);
    g_autofree char *on = vague_hash(engine, attention[i]), *off = vague_hash(engine, without);
    g_autofree char *again = vague_hash(engine, attention[i]);
    g_assert_cmpstr(on, ==, off);
    g_assert_cmpstr(again, ==, on);
    if (first) g_assert_cmpstr(on, !=, first);
    if (!first) first = g_strdup(on);
  }
}

/* Two frames together and alone. */
static void batch(void) {
  static const char *const seeds[2] = {"steps=4 seed=20", "steps=4 seed=21"};
  g_autoptr(FkEngine) engine = open_static(backend);
  g_autoptr(GError) error = NULL;
  FkSettings *settings[2];
  FkJob jobs[2];
  for (int i = 0; i < 2; i++) {
    settings[i] = settings_of("add a shape", seeds[i]);
    jobs[i] = (FkJob){.in = photo, .out = photo, .settings = settings[i]};
    jobs[i].out.data = g_malloc0(photo.stride * (size_t)photo.height);
  }
  fk_engine_edit(engine, jobs, 2, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  for (int i = 0; i < 2; i++) {
    FkImage alone = edit(engine, "add a shape", seeds[i], NULL);
    g_autofree char *a = hash(&alone), *b = hash(&jobs[i].out);
    g_assert_cmpstr(a, ==, b);
    g_free(alone.data);
    g_free(jobs[i].out.data);
    fk_settings_free(settings[i]);
  }
}

static double decibels(const char *what, const FkImage *a, const FkImage *b) {
  const double db = psnr(a, b);
  g_test_message("%s: %.2f dB (limit %d)", what, db, QUANTISED_DB);
  g_assert_cmpfloat(db, >=, QUANTISED_DB);
  return db;
}

static void near_the_others(void) {
  static const char pairs[] = "steps=8 seed=1";
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) engine = open_static(backend), cpu = open_static("cpu");
  g_autoptr(FkEngine) plain = open_on(backend, "none", &error);
  FkResult result, on_cpu;
  FkImage have = edit(engine, "make it night", pairs, &result), same = edit(cpu, "make it night", pairs, &on_cpu);
  FkImage want = edit(plain, "make it night", pairs, NULL);
  g_assert_no_error(error);
  decibels("from the CPU's", &have, &same);
  g_assert_cmpfloat(decibels("from the unquantised edit", &have, &want), <, 999); /* else nothing was quantised */
  g_assert_cmpint(result.saturated, ==, 0);
  g_assert_cmpint(on_cpu.saturated, ==, 0);
  g_free(have.data);
  g_free(same.data);
  g_free(want.data);
}

/* Under scales that are too small the counts agree but for what rounding moves across the limit. Each edit has its own
 * count, also where recordings are replayed. */
static void saturated(void) {
  g_autofree char *small = scaled(1.0 / 16);
  write_scales(small);
  FkEngine *engine = open_static(backend), *cpu = open_static("cpu");
  FkResult result[3], on_cpu;
  for (int i = 0; i < 3; i++) g_free(edit(engine, "make it night", "steps=2 seed=1", &result[i]).data);
  g_free(edit(cpu, "make it night", "steps=2 seed=1", &on_cpu).data);
  g_test_message("%" G_GINT64_FORMAT " cut off, on the CPU %" G_GINT64_FORMAT, result[0].saturated, on_cpu.saturated);
  g_assert_cmpint(on_cpu.saturated, >, 1000);
  g_assert_cmpfloat((double)result[0].saturated, >, 0.9 * (double)on_cpu.saturated);
  g_assert_cmpfloat((double)result[0].saturated, <, 1.1 * (double)on_cpu.saturated);
  g_assert_cmpint(result[1].saturated, ==, result[0].saturated);
  g_assert_cmpint(result[2].saturated, ==, result[0].saturated);
  fk_engine_unref(engine);
  fk_engine_unref(cpu);
  write_scales(scales);
}

/* NULL: usable, and the scales are there. (transfer full) */
static char *why_not(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) plain = open_on(backend, "none", &error);
  if (!plain) return g_strdup(error->message);
  scales = calibrate();
  write_scales(scales);
  g_autoptr(FkEngine) engine = open_on(backend, "fp8-static", &error);
  return engine ? NULL : g_strdup(error->message);
}

int main(int argc, char **argv) {
  g_autoptr(GError) error = NULL;
  backend = g_getenv("BACKEND") ? g_getenv("BACKEND") : "cuda";
  root = g_getenv("FK_SOURCE") ? g_getenv("FK_SOURCE") : FK_ROOT;
  gpu = !strcmp(backend, "cuda");
  g_test_init(&argc, &argv, NULL);
  g_test_set_nonfatal_assertions();
  g_autofree char *picture = g_build_filename(root, "examples", "demo-model", "photos", "coffee_256.png", NULL);
  photo = read_png(picture);
  folder = g_dir_make_tmp("gpu-static-XXXXXX", &error);
  g_assert_no_error(error);
  path = g_build_filename(folder, "calibration.json", NULL);
  g_autofree char *reason = why_not();
  int status = 0;
  if (reason) {
    printf("1..0 # SKIP %s\n", reason);
  } else {
    g_test_add_func("/gpu-static/one-hash", one_hash);
    g_test_add_func("/gpu-static/fused", fused);
    g_test_add_func("/gpu-static/batch", batch);
    g_test_add_func("/gpu-static/near-the-others", near_the_others);
    g_test_add_func("/gpu-static/saturated", saturated);
    status = g_test_run();
  }
  g_remove(path);
  g_rmdir(folder);
  g_free(path);
  g_free(folder);
  g_free(scales);
  g_free(photo.data);
  return status;
}
