/* SPDX-License-Identifier: Apache-2.0 */
/* Weights that stay in memory as their files have them: for every type of numbers the bytes of edits are those of
 * expanded weights, with adapters, streaming and codes of 8 bits too, and memory is less by the plan and by what is
 * allocated. The files are written by coded-model.py. */
#include "adapters.h"
#include "backend.h"
#include "engine.h"
#include "test-files.h"

#include "coded-files.h"
#include "lora-files.h"

#define ADAPTER FK_DEMO_MODEL "/../cyanotype.safetensors"

static const char *const forms[] = {"Q4_0",    "Q4_1", "Q5_0",   "Q5_1",      "Q8_0",  "Q2_K", "Q3_K", "Q4_K",
                                    "Q5_K",    "Q6_K", "IQ4_NL", "IQ4_XS",    "mixed", "F16",  "BF16", "F8_E4M3",
                                    "F8_E5M2", "fp8",  "int8",   "int8-rows", "mxfp8", "nvfp4"};

static FkEngine *engine_of(const char *form, const char *const *pairs) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = coded_options(form, pairs);
  FkEngine *engine = fk_engine_new(options, &error);
  g_assert_no_error(error);
  return engine;
}

static FkSettings *settings_of(const char *loras) {
  FkSettings *s = fk_settings_new();
  fk_settings_set(s, "prompt", "make it night", NULL);
  fk_settings_set(s, "steps", "1", NULL);
  fk_settings_set(s, "max-area", "4096", NULL);
  fk_settings_set(s, "loras", loras, NULL);
  return s;
}

/* (transfer full) */
static char *edited_with(FkEngine *engine, const FkSettings *s) {
  static uint8_t in[64 * 64 * 3], out[64 * 64 * 3];
  g_autoptr(GError) error = NULL;
  for (size_t i = 0; i < sizeof in; i++) in[i] = (uint8_t)(i * 7 + i / 191);
  FkJob job = {.in = {in, 64, 64, 3, 192}, .out = {out, 64, 64, 3, 192}, .settings = s};
  fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  return g_compute_checksum_for_data(G_CHECKSUM_SHA256, out, sizeof out);
}

static char *edited(FkEngine *engine, const char *loras) {
  g_autoptr(FkSettings) s = settings_of(loras);
  return edited_with(engine, s);
}

static const char *const expanded[] = {"weight-storage", "expanded", NULL};
static const char *const filed[] = {"weight-storage", "file", NULL};

/* What an engine says of a property, with these adapters. (transfer full) */
static char *told(FkEngine *engine, const char *name, const char *loras) {
  g_autoptr(FkSettings) s = settings_of(loras);
  g_auto(GStrv) list = fk_engine_active(engine, s);
  for (char **p = list; *p; p += 2)
    if (!strcmp(*p, name)) return g_strdup(p[1]);
  return NULL;
}

/* ---- Memory ---- */

static GHashTable *blocks; /* address -> bytes */
static size_t held, peak;
static FkOps counting;

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

static void count_memory(FkEngine *engine) {
  counting = fk_cpu_ops;
  counting.alloc = counted_alloc;
  counting.release = counted_release;
  engine->be->ops = &counting;
  held = peak = 0;
}

static double planned_with(const char *form, const char *const *pairs, const char *loras) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = coded_options(form, pairs);
  g_autoptr(FkSettings) s = settings_of(loras);
  FkPlan p;
  fk_plan(fk_options_get(options, "model-path"), options, s, 64, 64, 4, &p, &error);
  g_assert_no_error(error);
  g_assert_cmpstr(p.storage, ==, pairs[1]);
  return p.placed_bytes + p.cache_bytes + p.arena_bytes;
}

static double planned(const char *form, const char *const *pairs) {
  return planned_with(form, pairs, "");
}

/* Both ways one picture, and the second in less memory; each as planned, but for what the backend's kernels take. */
static void every_form(void) {
  g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
    size_t most[2];
    char *hash[2];
    for (int way = 0; way < 2; way++) {
      FkEngine *engine = engine_of(forms[i], way ? filed : expanded);
      count_memory(engine);
      hash[way] = edited(engine, "");
      most[way] = peak;
      fk_engine_unref(engine);
      g_assert_cmpuint(held, ==, 0);
      const double plan = planned(forms[i], way ? filed : expanded);
      g_assert_cmpfloat((double)most[way], <=, plan * 1.02);
      g_assert_cmpfloat((double)most[way], >=, plan * 0.98);
    }
    g_test_message("%-9s %.16s  %zu bytes, expanded %zu", forms[i], hash[0], most[1], most[0]);
    if (strcmp(hash[0], hash[1])) g_error("%s: another picture", forms[i]);
    g_assert_cmpuint(most[1], <, most[0] - most[0] / 5);
    g_hash_table_add(seen, hash[0]);
    g_free(hash[1]);
  }
  g_assert_cmpuint(g_hash_table_size(seen), >, G_N_ELEMENTS(forms) / 2); /* pictures say something of the weights */
}

/* ---- Beside other options ---- */

static const struct {
  const char *form, *pairs[6];
} besides[] = {
    {"Q4_K", {"offload", "model"}},
    {"mixed", {"offload", "sequential"}},
    {"nvfp4", {"offload", "sequential"}},
    {"fp8", {"quantization", "fp8"}},
    {"Q4_K", {"modulation-quantization", "fp8"}},
    {"Q8_0", {"quantization", "fp8", "precision-first", "1", "text-quantization", "fp8"}},
};

/* Adapters come and go, and what they need goes with them. */
static void beside(gconstpointer data) {
  const size_t row = GPOINTER_TO_SIZE(data);
  static const char *const lists[] = {"", ADAPTER, ADAPTER ":0.5", ""};
  const char *const *extra = besides[row].pairs;
  g_autoptr(GPtrArray) pairs = g_ptr_array_new();
  for (int i = 0; i < 6 && extra[i]; i++) g_ptr_array_add(pairs, (gpointer)extra[i]);
  g_ptr_array_add(pairs, (gpointer) "weight-storage");
  g_ptr_array_add(pairs, (gpointer) "file");
  g_ptr_array_add(pairs, NULL);
  g_autoptr(FkEngine) file = engine_of(besides[row].form, (const char *const *)pairs->pdata);
  pairs->pdata[pairs->len - 2] = (gpointer) "expanded";
  g_autoptr(FkEngine) wide = engine_of(besides[row].form, (const char *const *)pairs->pdata);
  if (!strcmp(extra[1], "sequential")) {
    const FkPlacing p = {.swaps = true, .level = 4, .slots = 2, .text_level = 2};
    fk_model_place(wide->model, p);
    fk_model_place(file->model, (FkPlacing){true, p.level, p.slots, p.text_level, true});
  }
  size_t bytes[G_N_ELEMENTS(lists)];
  for (size_t i = 0; i < G_N_ELEMENTS(lists); i++) {
    g_autofree char *expects = edited(wide, lists[i]), *found = edited(file, lists[i]);
    bytes[i] = fk_model_weight_bytes(file->model);
    g_test_message("%.16s, %zu bytes with \"%s\"", found, bytes[i], lists[i]);
    g_assert_cmpstr(found, ==, expects);
    g_assert_cmpuint(bytes[i], <=, fk_model_weight_bytes(wide->model));
  }
  g_assert_cmpuint(bytes[3], ==, bytes[0]);
  if (strcmp(extra[0], "quantization")) g_assert_cmpuint(bytes[1], >, bytes[0]);
  if (file->model->part[FK_PART_FLUX].binder && !strcmp(extra[1], "sequential"))
    g_assert_cmpfloat(file->be->count.streamed, <, wide->be->count.streamed);
}

/* ---- Adapters ---- */

#define Q "transformer.transformer_blocks.0.attn.to_q"
#define MLP "transformer.single_transformer_blocks.1.proj_mlp"

/* Of rank 3, of two matrices that are rows of others. decomposed: the second by more than a sum. (transfer full) */
static char *adapter_of(const char *name, const char *type, bool decomposed) {
  enum { D = 256, WIDE = 1024, RANK = 3 };
  static float values[WIDE * RANK];
  LoraFile f = lora_file_new();
  f.type = type;
  for (int i = 0; i < WIDE * RANK; i++) values[i] = 0.05f * (float)((i * 7919 + name[0]) % 255 - 127) / 127;
  lora_put(&f, Q ".lora_A.weight", "[3,256]", values, RANK * D);
  lora_put(&f, Q ".lora_B.weight", "[256,3]", values + 11, RANK * D);
  lora_put(&f, MLP ".lora_A.weight", "[3,256]", values + 5, RANK * D);
  lora_put(&f, MLP ".lora_B.weight", "[1024,3]", values, RANK * WIDE);
  if (decomposed) lora_put(&f, MLP ".dora_scale", "[1024]", values, WIDE);
  return lora_write(&f, name);
}

/* Of so many ranks that it takes more memory than the matrix. */
static char *large_adapter(void) {
  enum { N = 200 * 256 };
  g_autofree float *values = g_new(float, N);
  LoraFile f = lora_file_new();
  /* Large enough for another picture whatever the processor and compiler round. */
  for (int i = 0; i < N; i++) values[i] = 0.1f * (float)(i * 7919 % 255 - 127) / 127;
  lora_put(&f, Q ".lora_A.weight", "[200,256]", values, N);
  lora_put(&f, Q ".lora_B.weight", "[256,200]", values, N);
  return lora_write(&f, "large.safetensors");
}

/* Operands are in memory in the files' type, where that is one; matrices that are changed by more than a sum are
 * expanded, and what stands below them in the same memory. */
static void kinds(void) {
  g_autofree char *bf16 = adapter_of("bf16.safetensors", "BF16", false);
  g_autofree char *f16 = adapter_of("f16.safetensors", "F16", false);
  g_autofree char *f8 = adapter_of("g8.safetensors", "F8_E4M3", false);
  g_autofree char *dora = adapter_of("dora.safetensors", "F32", true);
  g_autofree char *large = large_adapter(), *two = g_strconcat(bf16, ":0.7; ", f16, NULL),
                  *mixed = g_strconcat(dora, "; ", f16, NULL);
  const size_t one = 3 * (256 + 256 + 256 + 1024);
  const struct {
    const char *list;
    int changed;
    size_t operands;
  } rows[] = {{bf16, 2, 2 * one},  {f16, 2, 2 * one},        {f8, 2, 4 * one}, {two, 2, 2 * 4 * one},
              {dora, 1, 4 * 1536}, {mixed, 1, 2 * 4 * 1536}, {large, 0, 0},    {"", 0, 0}};
  g_autoptr(FkEngine) wide = engine_of("Q4_K", expanded), file = engine_of("Q4_K", filed);
  g_autofree char *none = edited(file, "");
  const size_t bytes = fk_model_weight_bytes(file->model);
  for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
    g_autofree char *expects = edited(wide, rows[i].list), *found = edited(file, rows[i].list);
    const FkModel *m = file->model;
    size_t operands = 0;
    for (int k = 0; k < FK_PARTS; k++) operands += fk_binder_held_operand_bytes(m->part[k].binder);
    g_test_message("%s: %d changed, %zu bytes; %zu bytes more", rows[i].list, fk_model_changed(m), operands,
                   fk_model_weight_bytes(m) - bytes);
    g_assert_cmpstr(found, ==, expects);
    g_assert_true(!strcmp(found, none) == !*rows[i].list);
    g_assert_cmpint(fk_model_changed(m), ==, rows[i].changed);
    g_autofree char *told_of = told(file, "loras", rows[i].list);
    g_autofree char *each = g_strdup_printf("; added at each use to %d tensors", rows[i].changed);
    g_assert_true((strstr(told_of, each) != NULL) == (rows[i].changed > 0));
    g_assert_cmpuint(operands, >=, rows[i].operands);
    g_assert_cmpuint(operands, <=, rows[i].operands + 2 * FK_WEIGHT_ALIGN);
    if (rows[i].changed == 2) g_assert_cmpuint(fk_model_weight_bytes(m), ==, bytes + operands);
    g_assert_cmpuint(fk_model_changed(wide->model), ==, 0);
    const double more = planned_with("Q4_K", filed, rows[i].list) - planned("Q4_K", filed);
    g_assert_cmpfloat(more, ==, (double)(fk_model_weight_bytes(m) - bytes));
  }
}

/* 100 exchanges: the first picture again, and the memory of before whenever the list is empty; weights are not read
 * again. */
static void exchanged(void) {
  g_autofree char *bf16 = adapter_of("bf16.safetensors", "BF16", false);
  g_autofree char *two = g_strconcat(bf16, ":0.7; ", ADAPTER, NULL);
  const char *const lists[] = {ADAPTER, two, bf16, ""};
  g_autoptr(FkEngine) engine = engine_of("Q4_K", filed);
  g_autoptr(GError) error = NULL;
  count_memory(engine);
  g_autofree char *first = edited(engine, "");
  const size_t before = held;
  for (size_t i = 0; i < 100; i++) {
    bool text;
    g_assert_true(fk_adapters_set(engine->model, lists[i % 4], &text, NULL, NULL, NULL, &error));
    g_assert_true(fk_model_load_operands(engine->model, NULL, &error));
    g_assert_true(engine->model->loaded && !fk_model_missing_operands(engine->model));
    g_assert_cmpuint(held, ==,
                     before + fk_model_weight_bytes(engine->model) - engine->model->part[FK_PART_CLIP].bytes -
                         engine->model->part[FK_PART_T5].bytes - engine->model->part[FK_PART_FLUX].bytes -
                         engine->model->part[FK_PART_VAE].bytes);
    g_assert_true((held == before) == (i % 4 == 3));
  }
  g_autofree char *last = edited(engine, "");
  g_assert_cmpstr(last, ==, first);
  g_assert_cmpuint(held, ==, before);
}

/* ---- Expanded ahead ---- */

/* Settings of an edit; with `ring` blocks stream too. */
static const struct {
  const char *form, *name, *options[2], *set[6];
  bool ring;
} aheads[] = {
    {"Q4_K", "plain", {NULL}, {NULL}, false},
    {"nvfp4", "stream", {"offload", "sequential"}, {NULL}, true},
    {"mixed", "true-cfg", {NULL}, {"negative-prompt", "blur", "true-cfg-scale", "3"}, false},
    {"fp8", "step-cache", {NULL}, {"step-cache", "first-block", "step-cache-mask", "101"}, false},
    {"Q8_0", "context-reuse", {NULL}, {"context-reuse", "2"}, false},
    {"Q5_1", "adapter", {NULL}, {"loras", ADAPTER}, false},
    {"int8-rows", "merge", {NULL}, {"token-merge", "0.25"}, false},
};

/* Expansions wait until something waits for them: as late as a second stream may be. */
typedef struct {
  int slot;
  FkTensor y;
  FkCoded x;
} Pending;
static GArray *pending;
static FkOps lazy;
static int64_t expansions;

static void lazy_expand(FkBackend *be, int slot, FkTensor y, const FkCoded *x) {
  const Pending p = {slot, y, *x};
  (void)be;
  g_array_append_val(pending, p);
  expansions++;
}

static void lazy_wait(FkBackend *be, int slot) {
  for (guint i = 0; i < pending->len;) {
    const Pending p = g_array_index(pending, Pending, i);
    if (p.slot != slot) {
      i++;
      continue;
    }
    fk_cpu_ops.expand(be, p.y, &p.x);
    g_array_remove_index(pending, i);
  }
}

/* One picture in order, ahead and early, ahead and late; memory as planned. */
static void ahead(gconstpointer data) {
  const size_t row = GPOINTER_TO_SIZE(data);
  const char *const *o = aheads[row].options, *const *set = aheads[row].set;
  const char *const pairs[] = {"weight-storage", "file", o[0], o[1], NULL};
  char *hash[3];
  size_t work[3];
  for (int way = 0; way < 3; way++) {
    g_autoptr(FkEngine) engine = engine_of(aheads[row].form, pairs);
    g_autoptr(FkSettings) s = settings_of("");
    lazy = fk_cpu_ops;
    lazy.stream_expand = lazy_expand;
    lazy.stream_wait = lazy_wait;
    expansions = 0;
    if (way == 2) engine->be->ops = &lazy;
    if (aheads[row].ring) fk_model_place(engine->model, (FkPlacing){true, 4, 2, 2, true});
    fk_settings_set(s, "steps", "3", NULL);
    for (int i = 0; i < 6 && set[i]; i += 2) g_assert_true(fk_settings_set(s, set[i], set[i + 1], NULL));
    g_assert_true(fk_settings_set(s, "expand-ahead", way ? "on" : "off", NULL));
    hash[way] = edited_with(engine, s);
    work[way] = engine->arena.size;
    g_assert_true(work[way] > 0 && engine->arena.peak <= work[way]);
    g_assert_true((expansions > 0) == (way == 2));
  }
  g_test_message("%s %s: %.16s, work memory %zu, ahead %zu", aheads[row].form, aheads[row].name, hash[0], work[0],
                 work[1]);
  g_assert_cmpstr(hash[1], ==, hash[0]);
  g_assert_cmpstr(hash[2], ==, hash[0]);
  g_assert_cmpuint(work[1], >=, work[0]);
  g_assert_cmpuint(work[1], ==, work[2]);
  for (int way = 0; way < 3; way++) g_free(hash[way]);
}

/* The published model's second scratch, by the plan. */
static void ahead_planned(void) {
  double bytes[2], flop[2];
  for (int way = 0; way < 2; way++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkOptions) options = fk_options_new();
    g_autoptr(FkSettings) s = fk_settings_new();
    FkPlan p;
    fk_options_set(options, "weight-storage", "file", NULL);
    fk_settings_set(s, "expand-ahead", way ? "on" : "off", NULL);
    fk_plan("kontext-dev:Q4_K", options, s, 1024, 1024, 2, &p, &error);
    g_assert_no_error(error);
    bytes[way] = p.stage[3].activation_bytes;
    flop[way] = p.flop;
  }
  const double half = 2.0 * 12288 * 3072 * 2; /* feed-forward of text and image, bfloat16 */
  g_test_message("work memory of a step %.0f, ahead %.0f", bytes[0], bytes[1]);
  g_assert_cmpfloat(bytes[1] - bytes[0], <=, half);
  g_assert_cmpfloat(bytes[1] - bytes[0], >, 0);
  g_assert_cmpfloat(flop[0], ==, flop[1]);
}

/* ---- What auto takes ---- */

static void automatic(void) {
  const double all = planned("Q4_K", expanded), file = planned("Q4_K", filed);
  static const struct {
    double all, file; /* shares of the limit */
    const char *storage, *offload;
  } rows[] = {{1.1, 0, "expanded", "none"}, {0.1, 0.95, "file", "none"}, {0, 0.97, "file", "model"}};
  g_autoptr(FkEngine) wide = engine_of("Q4_K", expanded);
  g_autofree char *expects = edited(wide, "");
  for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
    g_autofree char *limit = g_strdup_printf("%.0f", rows[i].all * all + rows[i].file * file);
    const char *const pairs[] = {"max-vram", limit, NULL};
    g_autoptr(FkEngine) engine = engine_of("Q4_K", pairs);
    g_autofree char *hash = edited(engine, ""), *storage = told(engine, "weight-storage", ""),
                    *offload = told(engine, "offload", "");
    g_test_message("%s of %.0f and %.0f: weight-storage %s; offload %s", limit, all, file, storage, offload);
    g_assert_true(g_str_has_prefix(storage, rows[i].storage));
    g_assert_true(g_str_has_prefix(offload, rows[i].offload));
    g_assert_cmpstr(hash, ==, expects);
  }
}

/* An adapter needs more than a limit allows beside all parts. */
static void limited(void) {
  g_autofree char *limit = g_strdup_printf("%.0f", planned("Q4_K", filed) * 1.005);
  const char *const pairs[] = {"weight-storage", "file", "max-vram", limit, NULL};
  g_autoptr(FkEngine) wide = engine_of("Q4_K", expanded), engine = engine_of("Q4_K", pairs);
  count_memory(engine);
  for (int i = 0; i < 3; i++) {
    const char *list = i == 1 ? ADAPTER : "";
    g_autofree char *expects = edited(wide, list), *found = edited(engine, list);
    g_assert_cmpstr(found, ==, expects);
    g_assert_cmpuint(peak, <=, (size_t)g_ascii_strtoull(limit, NULL, 10));
    g_assert_true(fk_model_placing(engine->model).swaps == (i > 0));
  }
  g_test_message("%s, at most %zu", limit, peak);
}

/* Where expanded matrices were asked for and do not fit, the error has the files' form among what does. */
static void suggested(void) {
  g_autoptr(GError) error = NULL;
  g_autofree char *limit = g_strdup_printf("%.0f", planned("Q4_K", filed) * 1.1);
  const char *const pairs[] = {"weight-storage", "expanded", "offload", "none", "max-vram", limit, NULL};
  const char *const says[] = {"weight-storage", "file", "offload", "none", "max-vram", limit, NULL};
  g_autoptr(FkOptions) options = coded_options("Q4_K", pairs);
  g_assert_null(fk_engine_new(options, &error));
  g_test_message("%s", error->message);
  assert_error(error, FK_ERROR_MEMORY, "weight-storage=file (", "with an edit at 64x64");
  g_autoptr(FkEngine) engine = engine_of("Q4_K", says);
  g_autofree char *hash = edited(engine, "");
}

static void refused(void) {
  g_autoptr(GError) error = NULL;
  g_autofree char *packed = scratch_path("demo.pack");
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "model-path", FK_DEMO_MODEL, NULL);
  fk_options_set(options, "weight-storage", "file", NULL);
  g_assert_false(fk_pack(options, 4, packed, NULL, NULL, NULL, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "weight-storage=file", "packed model has expanded weights");
  g_clear_error(&error);
  fk_options_set(options, "weight-storage", "auto", NULL);
  g_assert_true(fk_pack(options, 4, packed, NULL, NULL, NULL, &error));
  g_assert_no_error(error);
  fk_options_set(options, "model-path", packed, NULL);
  fk_options_set(options, "backend", "cpu", NULL);
  fk_options_set(options, "weight-storage", "file", NULL);
  g_assert_null(fk_engine_new(options, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "weight-storage=file", "open what it was packed from");
}

/* Scales that are no numbers are told by name when they are read, whichever way the codes go. */
static void damaged(void) {
  static const char *const kinds[] = {"fp8", "int8-rows", "mxfp8", "nvfp4"};
  for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
    g_autofree char *path = coded_file(kinds[i], "flux"), *bytes = NULL;
    char *messages[2];
    gsize size;
    g_assert_true(g_file_get_contents(path, &bytes, &size, NULL));
    g_autofree char *key = g_strdup_printf("\"double_blocks.1.img_mlp.0.%s\"", i ? "weight_scale" : "scale_weight");
    const char *entry = g_strstr_len(bytes + 8, (gssize)size - 8, key), *at = strstr(entry, "data_offsets");
    guint64 header = 0;
    memcpy(&header, bytes, 8);
    const guint64 begin = 8 + header + g_ascii_strtoull(strchr(at, '[') + 1, NULL, 10);
    memset(bytes + begin, 0xff, 4);
    g_autofree char *bad = g_strdup_printf("bad-%s-flux.safetensors", kinds[i]),
                    *name = g_strdup_printf("bad-%s", kinds[i]);
    g_autofree char *to = g_build_filename(coded_folder, bad, NULL), *t5 = coded_file(kinds[i], "t5");
    g_assert_true(g_file_set_contents(to, bytes, (gssize)size, NULL));
    for (int way = 0; way < 2; way++) {
      g_autoptr(GError) error = NULL;
      g_autoptr(FkOptions) options = coded_options(name, way ? filed : expanded);
      g_assert_true(fk_options_set(options, "t5-path", t5, NULL));
      g_assert_null(fk_engine_open(options, NULL, NULL, NULL, &error));
      messages[way] = g_strdup(error->message);
      assert_error(error, FK_ERROR_MODEL_BAD, "transformer: tensor \"double_blocks.1.img_mlp.0.weight\"",
                   "expected a positive number");
    }
    g_assert_cmpstr(messages[0], ==, messages[1]);
    g_free(messages[0]);
    g_free(messages[1]);
  }
}

/* The published model on a backend that takes nothing. */
static void published(void) {
  static const struct {
    const char *form;
    int bytes;
    const char *limit, *storage, *offload;
  } rows[] = {
      {"Q8_0", 2, "24000000000", "file", "none"},          {"Q8_0", 2, "16000000000", "file", "model"},
      {"Q4_K", 2, "12000000000", "file", "none"},          {"Q4_K", 2, "8000000000", "file", "sequential"},
      {"F8_E4M3", 2, "24000000000", "file", "none"},       {"F8_E4M3", 2, "8000000000", "file", "sequential"},
      {"BF16", 2, "8000000000", "expanded", "sequential"}, {"Q4_K", 4, "16000000000", "file", "none"},
  };
  for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkOptions) options = fk_options_new();
    g_autoptr(FkSettings) s = fk_settings_new();
    g_autofree char *model = g_strconcat("kontext-dev:", rows[i].form, NULL);
    FkPlan p;
    fk_options_set(options, "max-vram", rows[i].limit, NULL);
    fk_plan(model, options, s, 1024, 1024, rows[i].bytes, &p, &error);
    g_assert_no_error(error);
    const double bytes = p.placed_bytes + p.cache_bytes + p.arena_bytes;
    g_test_message(
        "%s in %s: %s %s, %.2f GB, %d blocks and %.2f GB of them stream, T5 %.2f GB, host %.2f GB, work %.2f",
        rows[i].form, rows[i].limit, p.storage, p.offload, bytes / 1e9, p.streamed_blocks, p.streamed_bytes / 1e9,
        p.streamed_text_bytes / 1e9, p.host_bytes / 1e9, p.arena_bytes / 1e9);
    g_assert_cmpstr(p.storage, ==, rows[i].storage);
    g_assert_cmpstr(p.offload, ==, rows[i].offload);
    g_assert_cmpfloat(bytes, <=, g_ascii_strtod(rows[i].limit, NULL));
  }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  coded_make(forms, G_N_ELEMENTS(forms));
  blocks = g_hash_table_new(NULL, NULL);
  g_test_add_func("/storage/every-form", every_form);
  for (size_t i = 0; i < G_N_ELEMENTS(besides); i++) {
    g_autofree char *name = g_strdup_printf("/storage/beside/%s-%s", besides[i].pairs[0], besides[i].form);
    g_test_add_data_func(name, GSIZE_TO_POINTER(i), beside);
  }
  pending = g_array_new(FALSE, FALSE, sizeof(Pending));
  for (size_t i = 0; i < G_N_ELEMENTS(aheads); i++) {
    g_autofree char *name = g_strdup_printf("/storage/ahead/%s-%s", aheads[i].form, aheads[i].name);
    g_test_add_data_func(name, GSIZE_TO_POINTER(i), ahead);
  }
  g_test_add_func("/storage/ahead-planned", ahead_planned);
  g_test_add_func("/storage/kinds", kinds);
  g_test_add_func("/storage/exchanged", exchanged);
  g_test_add_func("/storage/automatic", automatic);
  g_test_add_func("/storage/limited", limited);
  g_test_add_func("/storage/suggested", suggested);
  g_test_add_func("/storage/refused", refused);
  g_test_add_func("/storage/damaged", damaged);
  g_test_add_func("/storage/published", published);
  const int status = g_test_run();
  g_hash_table_unref(blocks);
  g_array_unref(pending);
  coded_clear();
  scratch_close();
  return status;
}
