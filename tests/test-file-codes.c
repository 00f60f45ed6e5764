/* SPDX-License-Identifier: Apache-2.0 */
/* Engines that compute in fp8 on files of fp8: what they hold is the files' codes and scales bit by bit, in every
 * layout one picture, also packed and streamed; adapters change it and leave nothing behind. The files are written by
 * coded-model.py. */
#include "backend.h"
#include "engine.h"
#include "number.h"
#include "numbers.h"
#include "test-files.h"

#include "coded-files.h"

#include <math.h>

#define ADAPTER FK_DEMO_MODEL "/../cyanotype.safetensors"

static const char *const forms[] = {"fp8", "fp8-new", "fp8-rows", "fp8-one", "fp8-mixed", "F8_E4M3"};
static const char *const codes[] = {
    "quantization", "fp8", "text-quantization", "fp8", "modulation-quantization", "fp8", "backend", "cpu", NULL};

static FkEngine *open_engine(FkOptions *options) {
  g_autoptr(GError) error = NULL;
  FkEngine *engine = fk_engine_open(options, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  return engine;
}

static FkEngine *engine_of(const char *form, const char *const *pairs) {
  g_autoptr(FkOptions) options = coded_options(form, pairs);
  return open_engine(options);
}

/* (transfer full) */
static char *edited_with(FkEngine *engine, const char *name, const char *value) {
  static uint8_t in[64 * 64 * 3], out[64 * 64 * 3];
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) s = fk_settings_new();
  fk_settings_set(s, "prompt", "make it night", NULL);
  fk_settings_set(s, "steps", "2", NULL);
  fk_settings_set(s, "max-area", "4096", NULL);
  g_assert_true(fk_settings_set(s, name, value, NULL));
  for (size_t i = 0; i < sizeof in; i++) in[i] = (uint8_t)(i * 7 + i / 191);
  FkJob job = {.in = {in, 64, 64, 3, 192}, .out = {out, 64, 64, 3, 192}, .settings = s};
  fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  return g_compute_checksum_for_data(G_CHECKSUM_SHA256, out, sizeof out);
}

static char *edited(FkEngine *engine, const char *loras) {
  return edited_with(engine, "loras", loras);
}

/* ---- Memory against the files ---- */

typedef struct {
  int codes, made, others; /* tensors whose codes are the file's, those that differ, those that it has otherwise */
  double error, most;      /* of numbers, squares of difference and of what the file says */
} Held;

/* Rows of a matrix in memory against the file's, read here on their own. */
static void compare(const FkNames *names, FkPart part, const FkBound *bound, Held *held) {
  g_autoptr(GError) error = NULL;
  FkSource s;
  const int64_t rows = bound->rows, cols = bound->cols;
  g_assert_true(fk_names_find(names, part, bound->name, &s));
  if (strcmp(fk_st_type_name(s.tensor), "F8_E4M3")) {
    held->others++;
    return;
  }
  const gsize n = (gsize)(rows * cols);
  const int64_t all = s.scale && s.scale->rank ? s.tensor->dim[0] : s.scale ? 1 : 0;
  g_autofree uint8_t *want = g_malloc(n);
  g_autofree float *scales = g_new(float, (gsize)MAX(1, all));
  scales[0] = 1;
  g_assert_true(fk_safetensors_read(s.file, s.tensor, (uint64_t)(s.first_row * cols), want, n, &error));
  if (all) fk_safetensors_read(s.scale_file, s.scale, 0, scales, (gsize)all * sizeof(float), &error);
  g_assert_no_error(error);
  bool same = true;
  const float *have = (const float *)bound->weight->scale.data + bound->first;
  const uint8_t *found = (const uint8_t *)bound->weight->data + bound->first * cols;
  for (int64_t r = 0; r < rows; r++) {
    const int64_t from = s.transform == FK_TRANSFORM_SWAP_HALVES ? (r + rows / 2) % rows : r;
    const float scale = scales[all > 1 ? s.first_row + from : 0];
    same = same && have[r] == scale && !memcmp(found + r * cols, want + from * cols, (size_t)cols);
    for (int64_t c = 0; c < cols; c++) {
      const float a = fk_e4m3_to_f32(found[r * cols + c]) * have[r], b = fk_e4m3_to_f32(want[from * cols + c]) * scale;
      held->error += pow((double)a - (double)b, 2);
      held->most += pow((double)b, 2);
    }
  }
  held->codes += same;
  held->made += !same;
}

static Held held_by(const FkEngine *engine, FkPart part) {
  Held held = {0};
  g_autoptr(GPtrArray) all = fk_binder_all(engine->model->part[part].binder);
  for (guint i = 0; i < all->len; i++) {
    const FkBound *bound = all->pdata[i];
    if (bound->weight && bound->weight->dtype == FK_E4M3) compare(&engine->model->names, part, bound, &held);
  }
  return held;
}

/* ---- Tests ---- */

/* Nothing is rounded; what a file has as numbers is made to codes as ever. */
static void taken(void) {
  static const FkPart parts[] = {FK_PART_FLUX, FK_PART_T5};
  for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
    g_autoptr(FkEngine) engine = engine_of(forms[i], codes);
    for (size_t p = 0; p < G_N_ELEMENTS(parts); p++) {
      const Held held = held_by(engine, parts[p]);
      g_test_message("%s %s: the file's codes %d, made of them %d, others %d, error %g", forms[i],
                     fk_part_name(parts[p]), held.codes, held.made, held.others, held.error / held.most);
      g_assert_cmpint(held.codes, >, 0);
      g_assert_cmpint(held.made, ==, 0);
      g_assert_true(held.error == 0);
      g_assert_true((held.others > 1) == !strcmp(forms[i], "fp8-mixed")); /* the last modulation is always numbers */
    }
  }
}

/* The same numbers are one picture: in other layouts, packed, from a ring. */
static void one_picture(void) {
  static const char *const same[][4] = {{"fp8", "fp8-new", "fp8-rows"}, {"fp8-one", "F8_E4M3"}, {"fp8-mixed"}};
  for (size_t k = 0; k < G_N_ELEMENTS(same); k++) {
    g_autofree char *first = NULL;
    for (int i = 0; same[k][i]; i++) {
      g_autoptr(GError) error = NULL;
      g_autoptr(FkOptions) options = coded_options(same[k][i], codes), alone = fk_options_new();
      g_autoptr(FkEngine) engine = open_engine(options);
      g_autofree char *hash = edited(engine, ""), *packed = scratch_path("codes.pack");
      if (!i) fk_model_place(engine->model, (FkPlacing){.swaps = true, .level = 4, .slots = 2, .text_level = 2});
      g_autofree char *again = i ? g_strdup(hash) : edited(engine, "");
      g_assert_true(fk_pack(options, 4, packed, NULL, NULL, NULL, &error));
      g_assert_no_error(error);
      fk_options_set(alone, "model-path", packed, NULL);
      fk_options_set(alone, "backend", "cpu", NULL);
      g_autoptr(FkEngine) other = open_engine(alone);
      g_autofree char *same_packed = edited(other, "");
      g_test_message("%s: %.16s", same[k][i], hash);
      g_assert_cmpstr(again, ==, hash);
      g_assert_cmpstr(same_packed, ==, hash);
      if (!first) first = g_strdup(hash);
      g_assert_cmpstr(hash, ==, first);
      g_assert_cmpint(g_remove(packed), ==, 0);
    }
  }
}

/* With an adapter what it changes is quantised anew, of one file as of the other; without it nothing is left of that.
 */
static void adapted(void) {
  g_autofree char *first = NULL, *changed = NULL;
  static const char *const of[] = {"fp8", "fp8-rows"};
  for (size_t i = 0; i < G_N_ELEMENTS(of); i++) {
    g_autoptr(FkEngine) engine = engine_of(of[i], codes);
    g_autofree char *plain = edited(engine, ""), *with = edited(engine, ADAPTER);
    const Held held = held_by(engine, FK_PART_FLUX);
    g_test_message("%s: %d matrices changed, %d not", of[i], held.made, held.codes);
    g_assert_cmpint(held.made, >, 0);
    g_assert_cmpstr(with, !=, plain);
    g_autofree char *without = edited(engine, "");
    const Held back = held_by(engine, FK_PART_FLUX);
    g_assert_cmpint(back.made, ==, 0);
    g_assert_cmpint(back.codes, ==, held.codes + held.made);
    g_assert_cmpstr(without, ==, plain);
    if (!first) first = g_strdup(plain);
    if (!changed) changed = g_strdup(with);
    g_assert_cmpstr(plain, ==, first);
    g_assert_cmpstr(with, ==, changed);
  }
}

/* Evaluations in full precision are those of the file's numbers; the other rounding of codes is none. */
static void beside(void) {
  static const char *const exact[] = {"backend", "cpu", NULL};
  static const char *const first[] = {"backend", "cpu", "quantization", "fp8", "precision-first", "2", NULL};
  static const char *const plain[] = {"backend", "cpu", "quantization", "fp8", NULL};
  static const char *const dither[] = {"backend", "cpu", "quantization", "fp8", "weight-dither", "on", NULL};
  g_autoptr(FkEngine) numbers = engine_of("fp8", exact), twins = engine_of("fp8", first);
  g_autofree char *want = edited(numbers, ""), *found = edited_with(twins, "precision-first", "2");
  g_assert_cmpstr(found, ==, want);
  g_autoptr(FkEngine) one = engine_of("fp8", plain), two = engine_of("fp8", dither);
  g_autofree char *once = edited(one, ""), *twice = edited(two, "");
  g_assert_cmpstr(twice, ==, once);
  g_assert_cmpstr(once, !=, want);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  coded_make(forms, G_N_ELEMENTS(forms));
  g_test_add_func("/file-codes/taken", taken);
  g_test_add_func("/file-codes/one-picture", one_picture);
  g_test_add_func("/file-codes/adapted", adapted);
  g_test_add_func("/file-codes/beside", beside);
  const int status = g_test_run();
  coded_clear();
  scratch_close();
  return status;
}
