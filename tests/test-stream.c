/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks that come from host memory while others run: the bytes of edits are those of a transformer that stays, for
 * every number of blocks and of slots and whatever evaluations skip; memory is within what was planned. */
#include "backend.h"
#include "cpu.h"
#include "engine.h"
#include "placement.h"
#include "test-files.h"

#define ADAPTER FK_DEMO_MODEL "/../cyanotype.safetensors"

static FkEngine *new_engine(const char *const *pairs) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "model-path", FK_DEMO_MODEL, NULL);
  fk_options_set(options, "backend", "cpu", NULL);
  fk_options_set(options, "weight-storage", "expanded", NULL); /* else less would stream */
  for (; *pairs; pairs += 2) g_assert_true(fk_options_set(options, pairs[0], pairs[1], NULL));
  FkEngine *engine = fk_engine_new(options, &error);
  g_assert_no_error(error);
  return engine;
}

static FkStore *store_of(const FkEngine *engine) {
  return fk_binder_store(engine->model->part[FK_PART_FLUX].binder);
}

/* Settings of an edit, and its frames. */
typedef struct {
  const char *name, *set[10];
  int frames;
} Case;

static const Case cases[] = {
    {"plain", {NULL}, 1},
    {"true CFG", {"negative-prompt", "blur", "true-cfg-scale", "3"}, 1},
    {"batch", {NULL}, 2},
    {"step cache", {"step-cache", "first-block", "step-cache-threshold", "0.5", "step-cache-warmup", "1"}, 1},
    {"step cache mask", {"step-cache", "first-block", "step-cache-mask", "101"}, 1},
    {"context reuse", {"context-reuse", "2"}, 1},
    {"token merge", {"token-merge", "0.25"}, 1},
    {"adapter", {"loras", ADAPTER}, 1},
    {"without it", {NULL}, 1},
    {"adapter, another prompt", {"loras", ADAPTER, "prompt", "make it day"}, 1},
};

/* (transfer full): the hash of all frames. */
static char *edited(FkEngine *engine, const Case *c, GCancellable *cancellable, FkResult *result, GError **error) {
  enum { BYTES = 64 * 64 * 3 };
  static uint8_t in[3][BYTES], out[3][BYTES];
  g_autoptr(FkSettings) s = fk_settings_new();
  FkJob jobs[3] = {0};
  fk_settings_set(s, "prompt", "make it night", NULL);
  fk_settings_set(s, "steps", "3", NULL);
  fk_settings_set(s, "max-area", "4096", NULL);
  for (int i = 0; c->set[i]; i += 2) {
    fk_settings_set(s, c->set[i], c->set[i + 1], error);
    if (*error) g_error("%s: %s", c->name, (*error)->message);
  }
  for (int i = 0; i < c->frames; i++) {
    for (int k = 0; k < BYTES; k++) in[i][k] = (uint8_t)(k * 7 + k / (191 + i));
    jobs[i] = (FkJob){.in = {in[i], 64, 64, 3, 192}, .out = {out[i], 64, 64, 3, 192}, .settings = s};
  }
  if (!fk_engine_edit(engine, jobs, c->frames, cancellable, NULL, NULL, error)) return NULL;
  if (result) *result = jobs[0].result;
  return g_compute_checksum_for_data(G_CHECKSUM_SHA256, out[0], (gsize)(c->frames * BYTES));
}

static char *expected[2][G_N_ELEMENTS(cases)]; /* plain weights, codes */

static void check_all(FkEngine *engine, char **known) {
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GError) error = NULL;
    g_autofree char *hash = edited(engine, &cases[i], NULL, NULL, &error);
    g_assert_no_error(error);
    if (!known[i])
      known[i] = g_steal_pointer(&hash);
    else if (strcmp(hash, known[i]))
      g_error("%s: another picture", cases[i].name);
  }
}

static void stay(void) {
  static const char *const plain[] = {"offload", "none", NULL};
  static const char *const fp8[] = {"offload", "none", "quantization", "fp8", NULL};
  g_autoptr(FkEngine) a = new_engine(plain), b = new_engine(fp8);
  check_all(a, expected[0]);
  check_all(b, expected[1]);
  g_assert_cmpstr(expected[0][0], !=, expected[1][0]);
  g_assert_cmpstr(expected[0][0], ==, expected[0][8]);
}

/* The level is set before anything is loaded; the engine keeps what streams already. */
static void stream(gconstpointer data) {
  const int *p = data;
  static const char *const plain[] = {"offload", "sequential", NULL};
  static const char *const fp8[] = {"offload", "sequential", "quantization", "fp8", NULL};
  for (int form = 0; form <= (p[0] == 4); form++) {
    g_autoptr(FkEngine) engine = new_engine(form ? fp8 : plain);
    FkStore *s = store_of(engine);
    fk_model_place(engine->model, (FkPlacing){true, p[0], p[1]});
    check_all(engine, expected[form]);
    g_test_message("level %d of %d, %d slots: %zu of %zu bytes, %.0f streamed", s->level, fk_store_levels(s), s->slots,
                   s->memory_bytes, s->bytes, engine->be->count.streamed);
    g_assert_cmpint(s->level, ==, p[0]);
    g_assert_cmpuint(s->memory_bytes, ==, fk_store_level_bytes(s, p[0], p[1]));
    g_assert_cmpfloat(engine->be->count.streamed, >, 0);
  }
}

/* An edit that runs every block copies each of those that stream once an evaluation; the modulations once. */
static void counted(void) {
  static const char *const pairs[] = {"offload", "sequential", NULL};
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) engine = new_engine(pairs);
  FkStore *s = store_of(engine);
  double each = 0, before = 0, largest = 0;
  FkResult result;
  fk_model_place(engine->model, (FkPlacing){true, fk_store_levels(s), 2});
  for (int i = 0; i < (int)s->groups->len; i++) {
    const FkGroup *g = fk_store_at(s, i);
    *(g->use == FK_USE_EACH ? &each : &before) += g->slot < 0 ? 0 : (double)g->bytes;
    if (g->slot >= 0) largest = MAX(largest, (double)g->bytes);
  }
  g_autofree char *hash = edited(engine, &cases[0], NULL, &result, &error);
  g_assert_no_error(error);
  const double streamed = engine->be->count.streamed, expects = result.evaluations * each + before;
  g_test_message("%.0f bytes for %d evaluations of %.0f and %.0f before", streamed, result.evaluations, each, before);
  g_assert_cmpfloat(streamed, >=, expects);
  g_assert_cmpfloat(streamed, <=, expects + 2 * largest); /* copied ahead for an evaluation that does not come */
}

/* Blocks of T5: each prompt that is not known copies those that stream once, in the order of their use. */
static void text(void) {
  static const char *const forms[][7] = {{"offload", "none", NULL},
                                         {"offload", "none", "text-quantization", "fp8", NULL},
                                         {"offload", "sequential", NULL},
                                         {"offload", "sequential", "text-quantization", "fp8", NULL}};
  static const Case prompts[] = {{"first", {"prompt", "a"}, 1}, {"second", {"prompt", "b", "steps", "1"}, 1}};
  for (int form = 0; form < 2; form++) {
    g_autoptr(FkEngine) all = new_engine(forms[form]);
    const int levels = fk_store_levels(fk_binder_store(all->model->part[FK_PART_T5].binder));
    for (int level = 1; level <= levels; level += levels - 1) {
      g_autoptr(FkEngine) engine = new_engine(forms[2 + form]);
      FkStore *s = fk_binder_store(engine->model->part[FK_PART_T5].binder);
      fk_model_place(engine->model, (FkPlacing){.swaps = true, .text_level = level});
      double each = 0, before = 0;
      for (int i = 0; i < (int)s->groups->len; i++)
        each += fk_store_at(s, i)->slot < 0 ? 0 : (double)fk_store_at(s, i)->bytes;
      for (int i = 0; i < 4; i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *expects = edited(all, &prompts[i % 2], NULL, NULL, &error),
                        *found = edited(engine, &prompts[i % 2], NULL, NULL, &error);
        g_assert_no_error(error);
        g_assert_cmpstr(found, ==, expects);
        const double streamed = engine->be->count.streamed - before;
        g_assert_cmpfloat(streamed, ==, i < 2 ? each : 0); /* then the prompt is known */
        before = engine->be->count.streamed;
      }
      g_test_message("level %d of %d: %zu of %zu bytes, %.0f a prompt", level, levels, s->memory_bytes, s->bytes, each);
      g_assert_cmpuint(s->memory_bytes, ==, fk_store_level_bytes(s, level, FK_TEXT_SLOTS));
    }
  }
}

/* ---- Memory ---- */

static GHashTable *blocks; /* address -> bytes */
static size_t held, peak;

static void *counted_alloc(FkBackend *be, size_t bytes) {
  void *memory = fk_cpu_ops.alloc(be, bytes);
  if (!memory) return NULL;
  g_hash_table_insert(blocks, memory, GSIZE_TO_POINTER(bytes));
  held += bytes;
  peak = MAX(peak, held);
  return memory;
}

static void counted_release(FkBackend *be, void *memory) {
  held -= GPOINTER_TO_SIZE(g_hash_table_lookup(blocks, memory));
  g_hash_table_remove(blocks, memory);
  fk_cpu_ops.release(be, memory);
}

/* Peak of what is allocated, against the limit; the limits are shares of what offload=none takes. */
static void limited(void) {
  static const double shares[] = {0.84, 0.45};
  static const char *const none[] = {"offload", "none", NULL};
  g_autoptr(FkEngine) all = new_engine(none);
  const double whole = (double)fk_model_weight_bytes(all->model);
  FkOps counting = fk_cpu_ops;
  counting.alloc = counted_alloc;
  counting.release = counted_release;
  blocks = g_hash_table_new(NULL, NULL);
  for (size_t i = 0; i < G_N_ELEMENTS(shares); i++) {
    g_autoptr(GError) error = NULL;
    const guint64 limit = (guint64)(whole * shares[i]);
    g_autofree char *text = g_strdup_printf("%" G_GUINT64_FORMAT, limit);
    const char *const pairs[] = {"offload", "sequential", "max-vram", text, NULL};
    FkEngine *engine = new_engine(pairs);
    engine->be->ops = &counting;
    peak = held = 0;
    g_autofree char *hash = edited(engine, &cases[0], NULL, NULL, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(hash, ==, expected[0][0]);
    g_test_message("limit %" G_GUINT64_FORMAT ": peak %zu, level %d of %d", limit, peak, store_of(engine)->level,
                   fk_store_levels(store_of(engine)));
    g_assert_cmpuint(peak, <=, limit);
    g_assert_cmpint(store_of(engine)->level, >, 0);
    fk_engine_unref(engine);
    g_assert_cmpuint(held, ==, 0);
  }
  g_hash_table_unref(blocks);
}

/* A larger edit has more blocks stream; a smaller one then changes nothing. */
static void grows(void) {
  static const char *const plain[] = {"offload", "sequential", NULL};
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) engine = new_engine(plain);
  FkStore *s = store_of(engine);
  for (int level = 0; level <= fk_store_levels(s); level += 4) {
    fk_model_place(engine->model, (FkPlacing){true, level, 3});
    g_autofree char *hash = edited(engine, &cases[0], NULL, NULL, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(hash, ==, expected[0][0]);
  }
}

static void stopped(void) {
  static const char *const plain[] = {"offload", "sequential", NULL};
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) engine = new_engine(plain);
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  fk_model_place(engine->model, (FkPlacing){true, fk_store_levels(store_of(engine)), 2});
  g_cancellable_cancel(cancellable);
  g_assert_null(edited(engine, &cases[9], cancellable, NULL, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_CANCELLED);
  g_clear_error(&error);
  g_autofree char *hash = edited(engine, &cases[9], NULL, NULL, &error);
  g_assert_no_error(error);
  g_assert_cmpstr(hash, ==, expected[0][9]);
}

/* What was asked for while the backend had failed has not come. */
static void failed(void) {
  static const char *const plain[] = {"offload", "sequential", NULL};
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) engine = new_engine(plain);
  fk_model_place(engine->model, (FkPlacing){true, fk_store_levels(store_of(engine)), 8});
  g_autofree char *first = edited(engine, &cases[0], NULL, NULL, &error);
  g_assert_no_error(error);
  memset(store_of(engine)->memory, 0xff, store_of(engine)->memory_bytes / 2);
  fk_backend_fail(engine->be, FK_FAIL_DEVICE, "made by the test");
  g_assert_null(edited(engine, &cases[1], NULL, NULL, &error));
  assert_error(error, FK_ERROR_DEVICE, "made by the test", "");
  fk_model_release_part(engine->model, FK_PART_FLUX); /* what stays was overwritten too */
  fk_model_release_part(engine->model, FK_PART_VAE);
  g_autofree char *hash = edited(engine, &cases[0], NULL, NULL, &error);
  g_assert_no_error(error);
  g_assert_cmpstr(hash, ==, expected[0][0]);
  g_assert_cmpstr(first, ==, hash);
}

/* Without memory: what an edit of the published model copies, counted by the backend that does nothing else. */
static void walked(void) {
  static const char *const pairs[] = {"backend", "null", "offload", "sequential", "max-vram", "12000000000", NULL};
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  for (int i = 0; pairs[i]; i += 2) g_assert_true(fk_options_set(options, pairs[i], pairs[i + 1], NULL));
  g_autoptr(FkEngine) engine = fk_engine_new(options, &error);
  g_assert_no_error(error);
  FkResult result;
  g_autofree char *hash = edited(engine, &cases[0], NULL, &result, &error);
  g_assert_no_error(error);
  const FkStore *s = store_of(engine);
  double each = 0, before = 0;
  for (int i = 0; i < (int)s->groups->len; i++) {
    const FkGroup *g = fk_store_at(s, i);
    if (g->slot >= 0) *(g->use == FK_USE_EACH ? &each : &before) += (double)g->bytes;
  }
  const double expects = result.evaluations * each + before;
  g_test_message("%.2f GB for %d evaluations", engine->be->count.streamed / 1e9, result.evaluations);
  g_assert_cmpfloat(engine->be->count.streamed, >=, expects);
  g_assert_cmpfloat(engine->be->count.streamed, <, expects + each);
}

static char *decided(FkEngine *engine) {
  g_autoptr(FkSettings) s = fk_settings_new();
  g_auto(GStrv) list = fk_engine_active(engine, s);
  for (char **p = list; *p; p += 2)
    if (!strcmp(*p, "offload")) return g_strdup(p[1]);
  return NULL;
}

/* The published model on the null backend, which takes nothing: what auto makes of limits, as plan and as engine. */
static void published(void) {
  static const struct {
    const char *form, *limit, *offload;
  } rows[] = {{"none", "0", "none"},
              {"none", "24000000000", "sequential"},
              {"none", "16000000000", "sequential"},
              {"none", "12000000000", "sequential"},
              {"fp8", "24000000000", "none"},
              {"fp8", "16000000000", "sequential"},
              {"fp8", "12000000000", "sequential"},
              {"fp8", "8000000000", "sequential"}};
  for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkOptions) options = fk_options_new();
    g_autoptr(FkSettings) s = fk_settings_new();
    FkPlan p;
    fk_options_set(options, "backend", "null", NULL);
    fk_options_set(options, "quantization", rows[i].form, NULL);
    fk_options_set(options, "text-quantization", rows[i].form, NULL);
    fk_options_set(options, "max-vram", rows[i].limit, NULL);
    fk_plan("kontext-dev", options, s, 1024, 1024, 2, &p, &error);
    g_assert_no_error(error);
    const double bytes = p.placed_bytes + p.cache_bytes + p.arena_bytes, limit = g_ascii_strtod(rows[i].limit, NULL);
    g_test_message("%s, %.0f GB: %s, %.2f GB in memory, %d of %d blocks stream, %.2f GB an evaluation", rows[i].form,
                   limit / 1e9, p.offload, bytes / 1e9, p.streamed_blocks, p.blocks, p.streamed_bytes / 1e9);
    g_assert_cmpstr(p.offload, ==, rows[i].offload);
    if (limit > 0) g_assert_cmpfloat(bytes, <=, limit);
    g_autoptr(FkEngine) engine = fk_engine_new(options, &error);
    g_assert_no_error(error);
    g_assert_true(fk_engine_load_for(engine, s, NULL, NULL, NULL, &error));
    g_autofree char *text = decided(engine);
    g_test_message("%s", text);
    g_assert_true(g_str_has_prefix(text, rows[i].offload));
  }
}

int main(int argc, char **argv) {
  static const int levels[][2] = {{1, 3}, {4, 2}, {8, 1}, {8, 3}};
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/stream/stay", stay); /* first: what the others expect */
  for (size_t i = 0; i < G_N_ELEMENTS(levels); i++) {
    g_autofree char *name = g_strdup_printf("/stream/level-%d-slots-%d", levels[i][0], levels[i][1]);
    g_test_add_data_func(name, levels[i], stream);
  }
  g_test_add_func("/stream/counted", counted);
  g_test_add_func("/stream/text", text);
  g_test_add_func("/stream/limited", limited);
  g_test_add_func("/stream/grows", grows);
  g_test_add_func("/stream/stopped", stopped);
  g_test_add_func("/stream/failed", failed);
  g_test_add_func("/stream/walked", walked);
  g_test_add_func("/stream/published", published);
  const int status = g_test_run();
  for (int i = 0; i < 2 * (int)G_N_ELEMENTS(cases); i++)
    g_free(expected[i / (int)G_N_ELEMENTS(cases)][i % (int)G_N_ELEMENTS(cases)]);
  return status;
}
