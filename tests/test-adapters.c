/* SPDX-License-Identifier: Apache-2.0 */
/* Adapters of an open engine: put in, exchanged and taken out they leave no trace, whatever form the weights have and
 * however the exchange ended; each edit has its own; kinds and pictures are those of peft and diffusers. */
#include "adapters.h"
#include "cpu.h"
#include "engine.h"
#include "test-files.h"
#include "test-held.h"

#include "lora-files.h"
#include "test-npy.h"
#include "test-picture.h"

#define DEMO_LORA FK_DEMO_MODEL "/../cyanotype.safetensors"
#define SECOND FK_TEST_DATA "/lora/second.safetensors"
#define KINDS FK_TEST_DATA "/lora/kinds.safetensors"

static FkBackend *be;

static FkModel *open_model(const FkPrecision *precision) {
  g_autoptr(GError) error = NULL;
  FkModel *m = fk_model_open(FK_DEMO_MODEL, be, precision, true, &error);
  g_assert_no_error(error);
  fk_model_load(m, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  return m;
}

static guint64 weights_hash(const FkModel *m) {
  guint64 h = 0xcbf29ce484222325u;
  for (int i = 0; i < FK_PARTS; i++) {
    const FkStore *store = fk_binder_store(m->part[i].binder);
    const guint32 *words = store->memory;
    for (size_t k = 0; k < store->bytes / 4; k++) h = (h ^ words[k]) * 0x100000001b3u;
  }
  return h;
}

static void set(FkModel *m, const char *list) {
  g_autoptr(GError) error = NULL;
  bool text;
  fk_adapters_set(m, list, &text, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
}

/* 100 times in, exchanged, out: the first bytes at the first addresses, and no memory kept. */
static void hundred_times(void) {
  FkModel *m = open_model(NULL);
  const guint64 plain = weights_hash(m);
  const void *place = fk_binder_store(m->part[FK_PART_FLUX].binder)->memory;
  set(m, DEMO_LORA ":0.5");
  const guint64 one = weights_hash(m);
  set(m, SECOND ";" DEMO_LORA);
  const guint64 two = weights_hash(m);
  set(m, NULL);
  gsize before = 0;
  g_assert_true(plain != one && one != two && two != plain);
  for (int i = 0; i < 100; i++) {
    set(m, DEMO_LORA ":0.5");
    g_assert_cmpuint(weights_hash(m), ==, one);
    set(m, SECOND ";" DEMO_LORA);
    if (i % 10 == 0) g_assert_cmpuint(weights_hash(m), ==, two);
    set(m, i % 2 ? "" : NULL);
    g_assert_cmpuint(weights_hash(m), ==, plain);
    if (i == 10) before = held_bytes();
  }
  const gsize after = held_bytes();
  g_test_message("held after 11 and 100 times: %" G_GSIZE_FORMAT " and %" G_GSIZE_FORMAT " bytes", before, after);
  g_assert_cmpuint(after, <=, before + (1 << 20)); /* a header or a matrix kept each time would be 20 times as much */
  g_assert_true(fk_binder_store(m->part[FK_PART_FLUX].binder)->memory == place);
  fk_model_free(m);
}

/* The same of codes with their scales, and of twins. */
static void quantised(void) {
  FkPrecision p = fk_precision_uniform(FK_F32);
  for (int i = FK_ROLE_QKV; i <= FK_ROLE_SINGLE_OUT; i++)
    p.form[i] = (FkForm){.dtype = FK_E4M3, .scale = FK_SCALE_ROW, .twin = true};
  FkModel *m = open_model(&p);
  const guint64 plain = weights_hash(m);
  set(m, DEMO_LORA);
  const guint64 one = weights_hash(m);
  g_assert_cmpuint(one, !=, plain);
  set(m, SECOND);
  set(m, DEMO_LORA);
  g_assert_cmpuint(weights_hash(m), ==, one);
  set(m, NULL);
  g_assert_cmpuint(weights_hash(m), ==, plain);
  fk_model_free(m);
}

/* Adapters that are there before the weights are the same as those that come after; parts come and go. */
static void before_load(void) {
  g_autoptr(GError) error = NULL;
  FkModel *loaded = open_model(NULL), *m = fk_model_open(FK_DEMO_MODEL, be, NULL, true, &error);
  g_assert_no_error(error);
  set(m, DEMO_LORA);
  set(loaded, DEMO_LORA);
  fk_model_load(m, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_assert_cmpuint(weights_hash(m), ==, weights_hash(loaded));
  fk_model_release_part(m, FK_PART_FLUX);
  set(m, SECOND);
  fk_model_load_part(m, FK_PART_FLUX, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  set(loaded, SECOND);
  g_assert_cmpuint(weights_hash(m), ==, weights_hash(loaded));
  fk_model_free(loaded);
  fk_model_free(m);
}

typedef struct {
  GCancellable *cancellable;
  int64_t last, total;
} Stop;

static void stop(int64_t done, int64_t total, void *user_data) {
  Stop *s = user_data;
  g_assert_true(done >= s->last && done <= total);
  s->last = done;
  s->total = total;
  if (done > 0) g_cancellable_cancel(s->cancellable);
}

/* Left in the middle, the next exchange makes everything what it says. */
static void cancelled(void) {
  FkModel *m = open_model(NULL);
  const guint64 plain = weights_hash(m);
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  g_autoptr(GError) error = NULL;
  Stop s = {.cancellable = cancellable};
  bool text;
  g_assert_false(fk_adapters_set(m, DEMO_LORA, &text, cancellable, stop, &s, &error));
  assert_error(error, FK_ERROR_CANCELLED, "", "");
  g_assert_cmpint(s.total, >, 1 << 20);
  g_assert_cmpint(s.last, <, s.total);
  set(m, NULL);
  g_assert_cmpuint(weights_hash(m), ==, plain);
  g_assert_false(fk_adapters_set(m, SECOND "; nowhere", &text, NULL, NULL, NULL, &error));
  assert_error(error, FK_ERROR_MODEL_MISSING, "nowhere", "");
  g_assert_cmpuint(weights_hash(m), ==, plain);
  fk_model_free(m);
}

/* A file that is another one under its old name. */
static void file_changed(void) {
  FkModel *m = open_model(NULL);
  g_autofree char *bytes = NULL, *path = scratch_path("a.safetensors"), *list = g_strdup_printf(" %s", path);
  gsize size;
  g_assert_true(g_file_get_contents(DEMO_LORA, &bytes, &size, NULL));
  g_free(write_bytes("a.safetensors", bytes, size));
  set(m, list);
  const guint64 one = weights_hash(m);
  g_clear_pointer(&bytes, g_free);
  g_assert_true(g_file_get_contents(SECOND, &bytes, &size, NULL));
  g_free(write_bytes("a.safetensors", bytes, size));
  set(m, list);
  const guint64 two = weights_hash(m);
  g_assert_cmpuint(two, !=, one);
  set(m, SECOND);
  g_assert_cmpuint(weights_hash(m), ==, two);
  fk_model_free(m);
}

/* DoRA by rows and by columns, LoHa and LoKr, as peft merges them; and at half the weight, half the change. */
static void kinds(void) {
  static const char *const names[] = {"to_q", "to_k", "to_v", "add_q_proj"};
  g_auto(Npy) want = npy_load("lora/kinds");
  FkModel *m = open_model(NULL);
  const FkBinder *b = m->part[FK_PART_FLUX].binder;
  for (int half = 0; half < 2; half++) {
    set(m, half ? KINDS ":0.5" : KINDS);
    for (int i = 0; i < 4; i++) {
      g_autofree char *name = g_strdup_printf("transformer_blocks.1.attn.%s.weight", names[i]);
      const FkBound *bound = fk_binder_find(b, name);
      const float *have = (const float *)(const void *)((const char *)fk_binder_store(b)->memory + bound->place);
      g_autofree float *base = g_new(float, 32 * 256), *expected = g_new(float, 32 * 256);
      g_assert_true(fk_binder_read(b, name, 0, 32, base, NULL));
      for (int k = 0; k < 32 * 256; k++)
        expected[k] = base[k] + (half ? 0.5f : 1.0f) * (((float *)want.data)[i * 32 * 256 + k] - base[k]);
      const double error = relative_error(have, expected, 32 * 256), change = relative_error(base, expected, 32 * 256);
      g_test_message("%s: %.1e of a change of %.2f", names[i], error, change);
      g_assert_cmpfloat(error, <, 1e-6);
      g_assert_cmpfloat(change, >, 0.01);
    }
  }
  fk_model_free(m);
}

/* ---- Edits ---- */

static FkEngine *open_engine(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "model-path", FK_DEMO_MODEL, NULL);
  fk_options_set(options, "backend", "cpu", NULL);
  FkEngine *engine = fk_engine_new(options, &error);
  g_assert_no_error(error);
  return engine;
}

static FkImage crop(void) {
  g_autofree char *path = g_build_filename(FK_DEMO_PHOTOS, "coffee_256.png", NULL);
  FkImage photo = read_png(path), part = {g_malloc(128 * 128 * 3), 128, 128, 3, 128 * 3};
  for (size_t y = 0; y < 128; y++)
    memcpy(part.data + y * part.stride, photo.data + (y + 64) * photo.stride + 64 * 3, part.stride);
  g_free(photo.data);
  return part;
}

static FkSettings *settings_of(const char *loras, const char *steps) {
  FkSettings *s = fk_settings_new();
  fk_settings_set(s, "prompt", "make it a cyanotype", NULL);
  fk_settings_set(s, "max-area", "16384", NULL);
  fk_settings_set(s, "max-sequence-length", "64", NULL);
  fk_settings_set(s, "steps", steps, NULL);
  fk_settings_set(s, "loras", loras, NULL);
  return s;
}

static bool try_edit(FkEngine *engine, const char *loras, const char *steps, const FkImage *in, FkImage *out,
                     FkResult *result, GError **error) {
  g_autoptr(FkSettings) s = settings_of(loras, steps);
  FkJob job = {.in = *in, .out = *in, .settings = s};
  job.out.data = g_malloc0(128 * 128 * 3);
  const bool ok = fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, error);
  if (result) *result = job.result;
  *out = job.out;
  return ok;
}

static FkResult edit(FkEngine *engine, const char *loras, const char *steps, const FkImage *in, FkImage *out) {
  g_autoptr(GError) error = NULL;
  FkResult result;
  try_edit(engine, loras, steps, in, out, &result, &error);
  g_assert_no_error(error);
  return result;
}

/* diffusers' pipeline in float32 with the adapters fused. */
static void pictures(void) {
  static const char *const cases[][2] = {{"one", DEMO_LORA}, {"two", DEMO_LORA ":0.7; " SECOND ":-0.3"}};
  g_autoptr(FkEngine) engine = open_engine();
  FkImage in = crop();
  for (int i = 0; i < 2; i++) {
    g_autofree char *path = g_strdup_printf("%s/lora/%s.png", FK_TEST_DATA, cases[i][0]);
    FkImage want = read_png(path), have;
    edit(engine, cases[i][1], "4", &in, &have);
    g_test_message("%s: %.1f dB", cases[i][0], psnr(&have, &want));
    g_assert_cmpfloat(psnr(&have, &want), >=, 60);
    g_free(want.data);
    g_free(have.data);
  }
  g_free(in.data);
}

static void assert_timing(FkEngine *engine, const char *says, const char * not ) {
  g_autofree char *text = fk_engine_timing(engine);
  g_test_message("%s", text);
  g_assert_nonnull(strstr(text, says));
  g_assert_true(!not || !strstr(text, not ));
}

/* Users of one engine with lists of their own: each has its pictures, whoever was before it. A bad list is one edit's
 * error. */
static void shared(void) {
  static const char *const lists[] = {NULL, DEMO_LORA, SECOND, DEMO_LORA ":0.5"};
  g_autoptr(FkEngine) engine = open_engine(), other = open_engine();
  FkImage in = crop(), first[4], again;
  g_assert_true(engine == other);
  assert_timing(engine, "nothing is loaded", NULL);
  for (int i = 0; i < 4; i++) {
    edit(engine, lists[i], "1", &in, &first[i]);
    assert_timing(engine, "; last read ", i ? NULL : "last adapters");
    assert_timing(engine, i ? "; last adapters " : "backend ", NULL);
  }
  for (int i = 0; i < 12; i++) {
    const int k = i * 3 % 4;
    if (i % 5 == 0) {
      g_autoptr(GError) error = NULL;
      g_assert_false(try_edit(other, "nowhere:1", "1", &in, &again, NULL, &error));
      assert_error(error, FK_ERROR_MODEL_MISSING, "nowhere", "loras");
      g_free(again.data);
    }
    const FkResult r = edit(i % 2 ? engine : other, lists[k], "1", &in, &again);
    g_assert_true(r.unmatched == 0 && r.adapters_ms >= 0 && r.prompt_cached); /* text encoders are as they were */
    g_assert_cmpmem(again.data, 128 * 128 * 3, first[k].data, 128 * 128 * 3);
    g_free(again.data);
  }
  for (int i = 0; i < 3; i++) { /* the last one's, another one's, the same again */
    const FkResult r = edit(engine, lists[i ? 2 : 1], "1", &in, &again);
    g_assert_true((r.adapters_ms > 0) == (i == 1));
    g_free(again.data);
  }
  for (int i = 0; i < 4; i++)
    for (int k = 0; k < i; k++) g_assert_cmpfloat(psnr(&first[i], &first[k]), <, 90);
  for (int i = 0; i < 4; i++) g_free(first[i].data);
  g_free(in.data);
}

static char *active(FkEngine *engine, const char *loras) {
  g_autoptr(FkSettings) s = settings_of(loras, "1");
  g_auto(GStrv) pairs = fk_engine_active(engine, s);
  for (char **p = pairs; *p; p += 2)
    if (!strcmp(p[0], "loras")) return g_strdup(p[1]);
  return NULL;
}

/* An adapter of a text encoder makes its own encodings; what has no place is counted and named. */
static void text_encoder(void) {
#define Q "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
  LoraFile f = lora_file_new();
  float values[128];
  for (int i = 0; i < 128; i++) values[i] = (float)(i % 7) - 3;
  lora_put(&f, Q ".lora_down.weight", "[1,128]", values, 128);
  lora_put(&f, Q ".lora_up.weight", "[128,1]", values, 128);
  lora_put(&f, "lora_te1_text_model_encoder_layers_11_mlp_fc1.lora_up.weight", "[128,1]", values, 128);
  g_autofree char *path = lora_write(&f, "text.safetensors");
  g_autoptr(FkEngine) engine = open_engine();
  FkImage in = crop(), plain, with, again;
  edit(engine, NULL, "1", &in, &plain);
  FkResult r = edit(engine, path, "1", &in, &with);
  g_assert_true(!r.prompt_cached && r.unmatched == 1);
  g_autofree char *text = active(engine, path), *other = active(engine, SECOND), *none = active(engine, NULL);
  g_test_message("%s", text);
  g_assert_nonnull(strstr(text, "text.safetensors:1 (kohya, 1 modules; 1 tensors have no place in this model: lora_te1_"
                                "text_model_encoder_layers_11_mlp_fc1.lora_up.weight)"));
  g_assert_nonnull(strstr(other, "not in the weights yet"));
  g_assert_nonnull(strstr(none, "none"));
  r = edit(engine, "", "1", &in, &again);
  g_assert_false(r.prompt_cached);
  g_assert_cmpmem(again.data, 128 * 128 * 3, plain.data, 128 * 128 * 3);
  g_assert_cmpfloat(psnr(&plain, &with), <, 90);
  g_free(in.data);
  g_free(plain.data);
  g_free(with.data);
  g_free(again.data);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  char message[256];
  FkFailure failure;
  be = fk_backend_open("cpu", -1, 1, &failure, message, sizeof message);
  g_test_add_func("/adapters/hundred-times", hundred_times);
  g_test_add_func("/adapters/quantised", quantised);
  g_test_add_func("/adapters/before-load", before_load);
  g_test_add_func("/adapters/cancelled", cancelled);
  g_test_add_func("/adapters/file-changed", file_changed);
  g_test_add_func("/adapters/kinds", kinds);
  g_test_add_func("/adapters/pictures", pictures);
  g_test_add_func("/adapters/shared", shared);
  g_test_add_func("/adapters/text-encoder", text_encoder);
  const int failed = g_test_run();
  fk_backend_close(be);
  scratch_close();
  return failed;
}
