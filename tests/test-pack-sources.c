/* SPDX-License-Identifier: Apache-2.0 */
/* What a packed model may be made of: single files, everything in one, GGUF, parts from elsewhere, adapters merged. Its
 * edits are those of an engine that opens the same files; its header names every one of them. */
#include "adapters.h"
#include "backend.h"
#include "config.h"
#include "engine.h"
#include "number.h"
#include "pack.h"
#include "test-files.h"
#include "test-weights-backend.h"

#include <json-glib/json-glib.h>
#include <math.h>
#include <sys/stat.h>

#define LORA FK_DEMO_MODEL "/../cyanotype.safetensors"
#define SECOND FK_TEST_DATA "/lora/second.safetensors"
#define KINDS FK_TEST_DATA "/lora/kinds.safetensors"

static char *made; /* folder of the files of rewrite-model.py */

/* NAME=VALUE; a path that does not begin with '/' is one of the made files. */
static FkOptions *options_of(const char *const *pairs) {
  FkOptions *options = fk_options_new();
  fk_options_set(options, "backend", "cpu", NULL);
  for (; *pairs; pairs++) {
    g_auto(GStrv) pair = g_strsplit(*pairs, "=", 2);
    const bool relative = g_str_has_suffix(pair[0], "-path") && *pair[1] != '/';
    g_autofree char *path = relative ? g_build_filename(made, pair[1], NULL) : NULL;
    g_assert_true(fk_options_set(options, pair[0], path ? path : pair[1], NULL));
  }
  return options;
}

/* SHA-256 of an edit. (transfer full): NULL with an error. */
static char *edit_hash(FkEngine *engine, const char *loras, GError **error) {
  g_autoptr(FkSettings) s = fk_settings_new();
  static uint8_t in[64 * 64 * 3], out[64 * 64 * 3];
  fk_settings_set(s, "prompt", "make it a cyanotype", NULL);
  fk_settings_set(s, "steps", "2", NULL);
  fk_settings_set(s, "max-area", "4096", NULL);
  fk_settings_set(s, "loras", loras, NULL);
  for (size_t i = 0; i < sizeof in; i++) in[i] = (uint8_t)(i * 7 + i / 191);
  FkJob job = {.in = {in, 64, 64, 3, 192}, .out = {out, 64, 64, 3, 192}, .settings = s};
  if (!fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, error)) return NULL;
  return g_compute_checksum_for_data(G_CHECKSUM_SHA256, out, sizeof out);
}

static char *edited(const char *const *pairs, const char *loras, GError **error) {
  g_autoptr(FkOptions) options = options_of(pairs);
  g_autoptr(FkEngine) engine = fk_engine_open(options, NULL, NULL, NULL, error);
  return engine ? edit_hash(engine, loras, error) : NULL;
}

static char *packed(const char *name, const char *const *pairs, const char *loras) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = options_of(pairs);
  char *path = scratch_path(name);
  fk_pack_adapted(options, loras, 4, path, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  return path;
}

static char *edited_pack(const char *path, GError **error) {
  g_autofree char *model = g_strconcat("model-path=", path, NULL);
  return edited((const char *const[]){model, NULL}, NULL, error);
}

#define DEMO(part) part "-path=" FK_DEMO_MODEL

static void files(void) {
  static const char *const forms[][6] = {
      {"model-path=bfl.safetensors", "vae-path=ae.safetensors", "clip-path=clip-f32.safetensors", "t5-path=t5.gguf",
       DEMO("tokenizer")},
      {"model-path=all.safetensors", DEMO("tokenizer")},
      {"model-path=flux.gguf", "vae-path=all.safetensors", "clip-path=clip.safetensors", "t5-path=t5.safetensors",
       DEMO("tokenizer")},
      {"model-path=comfy.safetensors", DEMO("vae"), DEMO("clip"), DEMO("t5"), DEMO("tokenizer")},
      {DEMO("model"), "vae-path=ae-f32.safetensors", "quantization=fp8"},
      {"model-path=folder", DEMO("tokenizer")}};
  for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
    g_autoptr(GError) error = NULL;
    g_autofree char *expected = edited(forms[i], NULL, &error), *path = NULL;
    g_assert_no_error(error);
    path = packed("files", forms[i], NULL);
    g_autofree char *found = edited_pack(path, &error);
    g_assert_no_error(error);
    g_test_message("%.16s %s", found, forms[i][0]);
    g_assert_cmpstr(found, ==, expected);
  }
}

/* (transfer full) */
static char *hash_of(const char *path) {
  g_autofree char *bytes = NULL;
  gsize n;
  g_assert_true(g_file_get_contents(path, &bytes, &n, NULL));
  return g_compute_checksum_for_data(G_CHECKSUM_SHA256, (guchar *)bytes, n);
}

/* The line of a source whose name is `name` has its hash. */
static void named(const FkPack *pack, const char *name, const char *path) {
  g_autofree char *hash = hash_of(path);
  g_autofree char *line = g_strdup_printf("%s %s\n", hash, name);
  if (!strstr(fk_pack_text(pack, "sources"), line)) g_error("expected %s in:\n%s", line, fk_pack_text(pack, "sources"));
}

static void sources(void) {
  const char *const pairs[] = {"model-path=bfl.safetensors", "vae-path=ae.safetensors", DEMO("clip"),
                               "t5-path=t5.safetensors",     DEMO("tokenizer"),         NULL};
  g_autofree char *path = packed("sources", pairs, LORA ":0.8; " SECOND), *bfl = NULL, *ae = NULL;
  g_autoptr(FkPack) pack = fk_pack_open(path, NULL);
  g_assert_nonnull(pack);
  bfl = g_build_filename(made, "bfl.safetensors", NULL);
  ae = g_build_filename(made, "ae.safetensors", NULL);
  named(pack, "bfl.safetensors", bfl);
  named(pack, "vae-path=ae.safetensors", ae);
  named(pack, "clip-path=text_encoder/model.safetensors", FK_DEMO_MODEL "/text_encoder/model.safetensors");
  named(pack, "tokenizer-path=tokenizer/vocab.json", FK_DEMO_MODEL "/tokenizer/vocab.json");
  named(pack, "loras=cyanotype.safetensors:0.8", LORA);
  named(pack, "loras=second.safetensors:1", SECOND);
  g_assert_nonnull(strstr(fk_pack_text(pack, "adapters"), "cyanotype.safetensors:0.8"));
}

/* Of the model's folder no part that an option replaced, but for the configuration beside a file of weights; of the
 * folder that replaced it that part alone. */
static void read_sources(void) {
  static const struct {
    const char *option, *has[3], *lacks[4];
  } cases[] = {{"vae-path=ae-f32.safetensors",
                {" vae/config.json\n", " vae-path=ae-f32.safetensors\n", " text_encoder/model.safetensors\n"},
                {" vae/diffusion"}},
               {"clip-path=folder",
                {" clip-path=text_encoder/config.json\n", " clip-path=text_encoder/model.safetensors\n"},
                {" text_encoder/", "clip-path=model_index", "clip-path=transformer/", "clip-path=tokenizer/"}},
               {"vae-path=" FK_DEMO_MODEL "/vae",
                {" vae-path=config.json\n", " vae-path=diffusion_pytorch_model.safetensors\n"},
                {" vae/"}},
               {"tokenizer-path=folder",
                {" tokenizer-path=tokenizer/vocab.json\n", " tokenizer-path=tokenizer_2/spiece.model\n"},
                {" tokenizer/", " tokenizer_2/", "tokenizer-path=vae/", "tokenizer-path=text_encoder"}}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    const char *const pairs[] = {DEMO("model"), cases[i].option, NULL};
    g_autofree char *path = packed("read", pairs, NULL);
    g_autoptr(FkPack) pack = fk_pack_open(path, NULL);
    const char *text = fk_pack_text(pack, "sources");
    for (size_t k = 0; k < G_N_ELEMENTS(cases[i].has) && cases[i].has[k]; k++)
      if (!strstr(text, cases[i].has[k])) g_error("%s: expected %s in:\n%s", cases[i].option, cases[i].has[k], text);
    for (size_t k = 0; k < G_N_ELEMENTS(cases[i].lacks) && cases[i].lacks[k]; k++)
      if (strstr(text, cases[i].lacks[k])) g_error("%s: %s is not read:\n%s", cases[i].option, cases[i].lacks[k], text);
  }
}

/* The record of an edit has them by name: files with their hashes and the options that gave them, adapters with their
 * weights; the id is that of an edit with this file, and the record can be applied. */
static void recorded(void) {
  const char *const pairs[] = {
      "model-path=bfl.safetensors", DEMO("vae"), DEMO("clip"), DEMO("t5"), DEMO("tokenizer"), NULL};
  g_autofree char *path = packed("recorded", pairs, LORA ":0.75"), *model = g_strconcat("model-path=", path, NULL);
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = options_of((const char *const[]){model, NULL});
  g_autoptr(FkEngine) engine = fk_engine_open(options, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  static uint8_t in[64 * 64 * 3], out[64 * 64 * 3];
  g_autoptr(FkSettings) s = fk_settings_new();
  fk_settings_set(s, "steps", "1", NULL);
  fk_settings_set(s, "max-area", "4096", NULL);
  fk_settings_set(s, "loras", SECOND, NULL);
  FkJob job = {.in = {in, 64, 64, 3, 192}, .out = {out, 64, 64, 3, 192}, .settings = s};
  fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_autofree char *text = fk_manifest(engine, &job, &error), *bfl = g_build_filename(made, "bfl.safetensors", NULL);
  g_assert_no_error(error);
  g_autoptr(JsonParser) parser = json_parser_new();
  json_parser_load_from_data(parser, text, -1, &error);
  g_assert_no_error(error);
  JsonObject *record = json_node_get_object(json_parser_get_root(parser)),
             *had = json_object_get_object_member(record, "packed");
  JsonArray *sources = json_object_get_array_member(had, "sources"),
            *loras = json_object_get_array_member(had, "loras");
  const struct {
    const char *file, *property, *path;
  } expects[] = {
      {"bfl.safetensors", NULL, bfl},
      {"vae/diffusion_pytorch_model.safetensors", "vae-path", FK_DEMO_MODEL "/vae/diffusion_pytorch_model.safetensors"},
      {"tokenizer/vocab.json", "tokenizer-path", FK_DEMO_MODEL "/tokenizer/vocab.json"}};
  for (size_t i = 0; i < G_N_ELEMENTS(expects); i++) {
    g_autofree char *hash = hash_of(expects[i].path);
    int found = 0;
    for (guint k = 0; k < json_array_get_length(sources); k++) {
      JsonObject *o = json_array_get_object_element(sources, k);
      if (strcmp(json_object_get_string_member(o, "file"), expects[i].file)) continue;
      if (g_strcmp0(json_object_get_string_member_with_default(o, "property", NULL), expects[i].property)) continue;
      g_assert_cmpstr(json_object_get_string_member(o, "sha256"), ==, hash);
      found++;
    }
    g_assert_cmpint(found, ==, 1);
  }
  g_autofree char *lora = hash_of(LORA), *second = hash_of(SECOND);
  g_assert_cmpuint(json_array_get_length(loras), ==, 1);
  JsonObject *o = json_array_get_object_element(loras, 0);
  g_assert_cmpstr(json_object_get_string_member(o, "file"), ==, "cyanotype.safetensors");
  g_assert_cmpstr(json_object_get_string_member(o, "weight"), ==, "0.75");
  g_assert_cmpstr(json_object_get_string_member(o, "sha256"), ==, lora);
  o = json_array_get_object_element(json_object_get_array_member(record, "loras"), 0); /* those of the edit */
  g_assert_cmpstr(json_object_get_string_member(o, "sha256"), ==, second);
  g_autofree char *id = fk_manifest_id(engine, &job, &error);
  g_assert_cmpstr(json_object_get_string_member(record, "id"), ==, id);
  g_autoptr(FkOptions) again = fk_options_new();
  g_autoptr(FkSettings) settings = fk_settings_new();
  g_assert_true(fk_manifest_apply(text, again, settings, &error));
}

/* As the adapters' own setting gives, in every form of weights; the file is the same each time. */
static void merged(void) {
  static const char *const forms[][3] = {{DEMO("model")}, {DEMO("model"), "quantization=fp8"}};
  static const char list[] = LORA ":0.7; " SECOND;
  g_autofree char *plain = edited(forms[0], NULL, NULL);
  for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
    g_autoptr(GError) error = NULL;
    g_autofree char *expected = edited(forms[i], list, &error), *path = packed("merged", forms[i], list);
    g_autofree char *again = packed("again", forms[i], list), *x = NULL, *y = NULL;
    g_assert_no_error(error);
    g_autofree char *found = edited_pack(path, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(found, ==, expected);
    g_assert_cmpstr(found, !=, plain);
    gsize n = 0, m = 0;
    g_assert_true(g_file_get_contents(path, &x, &n, NULL) && g_file_get_contents(again, &y, &m, NULL));
    g_assert_cmpmem(x, n, y, m);
  }
}

/* ---- Adapters on top of what is packed ---- */

static FkModel *model_of(FkBackend *be, const char *path) {
  g_autoptr(GError) error = NULL;
  FkModel *m = fk_model_open(path, be, NULL, true, &error);
  g_assert_no_error(error);
  return m;
}

static void adapt(FkModel *m, const char *list) {
  g_autoptr(GError) error = NULL;
  bool text;
  fk_adapters_set(m, list, &text, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  fk_model_load(m, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
}

/* Weights in memory: numbers with other bytes, and the error of all, relative in the Euclidean norm. */
static int differing(const FkModel *a, const FkModel *b, double *error) {
  int n = 0;
  double squares = 0, sum = 0;
  for (int i = 0; i < FK_PARTS; i++) {
    g_autoptr(GPtrArray) all = fk_binder_all(a->part[i].binder);
    for (guint k = 0; k < all->len; k++) {
      const FkBound *x = all->pdata[k], *y = fk_binder_find(b->part[i].binder, x->name);
      const bool half = x->weight && x->weight->dtype == FK_BF16;
      const char *p = (const char *)fk_binder_store(a->part[i].binder)->memory + x->place,
                 *q = (const char *)fk_binder_store(b->part[i].binder)->memory + y->place;
      for (int64_t e = 0; e < x->rows * x->cols; e++) {
        float u, v;
        if (half) {
          u = fk_bf16_to_f32(((const uint16_t *)(const void *)p)[e]);
          v = fk_bf16_to_f32(((const uint16_t *)(const void *)q)[e]);
        } else {
          memcpy(&u, p + 4 * e, 4);
          memcpy(&v, q + 4 * e, 4);
        }
        n += memcmp(&u, &v, 4) != 0;
        squares += ((double)u - v) * ((double)u - v);
        sum += (double)u * u;
      }
    }
  }
  *error = sqrt(squares / sum);
  return n;
}

static void device_memory(FkBackend *be, size_t *free_bytes, size_t *total_bytes) {
  (void)be;
  *free_bytes = *total_bytes = (size_t)1 << 40;
}

static void device_download(FkBackend *be, void *to, const void *from, size_t bytes) {
  (void)be;
  memcpy(to, from, bytes);
}

/* Takes weights as a GPU does. */
static TestBackend *open_device(void) {
  TestBackend *t = backend_new(true);
  t->ops.memory = device_memory;
  t->ops.download = device_download;
  return t;
}

/* The bytes of the folder with the same list, each time that it changes and after the parts have been away; where some
 * are merged already, of both lists in turn, as far as the packed numbers go: in float32 all bits. */
static void on_top(gconstpointer data) {
  const bool device = GPOINTER_TO_INT(data) == 1;
  const int size = device ? 2 : GPOINTER_TO_INT(data);
  TestBackend *gpu = device ? open_device() : NULL;
  static const char *const lists[] = {SECOND, LORA ":0.7; " SECOND, "", KINDS, LORA};
  static const char *const folder[] = {DEMO("model"), NULL};
  char message[128];
  FkFailure failure;
  g_autoptr(GError) error = NULL;
  FkBackend *be = fk_backend_open("cpu", 0, 0, &failure, message, sizeof message);
  be->dtype = size == 2 ? FK_BF16 : FK_F32;
  g_autoptr(FkOptions) options = options_of(folder);
  for (int merged = 0; merged < 2; merged++) {
    g_autofree char *path = scratch_path("top");
    fk_pack_adapted(options, merged ? LORA ":0.5" : NULL, size, path, NULL, NULL, NULL, &error);
    g_assert_no_error(error);
    FkModel *a = model_of(be, FK_DEMO_MODEL), *b = model_of(gpu ? &gpu->be : be, path);
    for (size_t i = 0; i < G_N_ELEMENTS(lists); i++) {
      if (merged && strstr(lists[i], LORA)) continue;
      g_autofree char *both = g_strconcat(merged ? LORA ":0.5" : "", merged && *lists[i] ? "; " : "", lists[i], NULL);
      double away;
      adapt(a, both);
      if (i == 3)
        for (int part = 0; part < FK_PARTS; part++) fk_model_release_part(b, (FkPart)part);
      adapt(b, lists[i]);
      const int n = differing(a, b, &away);
      g_test_message("%d bytes a number, %s%s: %d other numbers, %.2g", size, merged ? "on top, " : "", lists[i], n,
                     away);
      const bool norms = merged && !strcmp(lists[i], KINDS); /* a DoRA's norms of columns are of the file's numbers */
      if (!merged || (size == 4 && !norms) || !*lists[i]) g_assert_cmpint(n, ==, 0);
      if (!norms) g_assert_cmpfloat(away, <, 1.0 / 512); /* one rounding to bfloat16, of some of the weights */
    }
    fk_model_free(a);
    fk_model_free(b);
  }
  fk_backend_close(be);
  if (gpu) backend_free(gpu);
}

static void flip(const char *path, goffset at) {
  char byte = 0;
  FILE *file = g_fopen(path, "r+b");
  fseek(file, at, SEEK_SET);
  g_assert_cmpint(fread(&byte, 1, 1, file), ==, 1);
  byte ^= 1;
  fseek(file, at, SEEK_SET);
  fwrite(&byte, 1, 1, file);
  fclose(file);
}

/* What adapters are added to is held against the sums too: also of a file that is damaged once it is open. */
static void on_top_damaged(void) {
  static const char *const folder[] = {DEMO("model"), NULL};
  char message[128];
  FkFailure failure;
  bool text;
  g_autofree char *path = packed("changes", folder, NULL);
  FkBackend *be = fk_backend_open("cpu", 0, 1, &failure, message, sizeof message);
  FkModel *m = model_of(be, path);
  adapt(m, "");
  GHashTableIter it;
  gpointer name;
  g_autoptr(GError) error = NULL;
  adapt(m, SECOND);
  g_hash_table_iter_init(&it, fk_loras_deltas(m->adapters.loras, FK_PART_FLUX));
  g_assert_true(g_hash_table_iter_next(&it, &name, NULL));
  const FkBinder *b = m->part[FK_PART_FLUX].binder;
  const FkBound *bound = fk_binder_find(b, name);
  const FkGroup *g = fk_store_at(fk_binder_store(b), bound->group);
  g_autofree char *group = fk_binder_packed_name(b, bound->group);
  const FkStTensor *t = fk_safetensors_find(fk_pack_file(m->pack), group);
  const goffset at = (goffset)(t->begin + bound->place - g->at);
  for (int i = 0; i < 2; i++) { /* without adapters, and with the others */
    flip(path, at);
    g_assert_false(fk_adapters_set(m, i ? LORA : "", &text, NULL, NULL, NULL, &error));
    assert_error(error, FK_ERROR_MODEL_BAD, group, "the packed model is damaged");
    flip(path, at);
    adapt(m, i ? "" : SECOND);
  }
  fk_model_free(m);
  fk_backend_close(be);
}

/* Whole edits, with parts and blocks that come and go, and the list once more without. */
static void on_top_edits(void) {
  static const char *const folder[] = {DEMO("model"), NULL}, *const lists[] = {SECOND, "", SECOND};
  g_autofree char *path = packed("merged-top", folder, LORA ":0.5"), *model = g_strconcat("model-path=", path, NULL);
  const char *const ways[][3] = {{model}, {model, "offload=model"}, {model, "offload=sequential"}};
  g_autoptr(GError) error = NULL;
  g_autofree char *first = edited(folder, LORA ":0.5", &error), *both = edited(folder, LORA ":0.5; " SECOND, &error);
  g_assert_no_error(error);
  for (size_t i = 0; i < G_N_ELEMENTS(ways); i++) {
    g_autoptr(FkOptions) options = options_of(ways[i]);
    g_autoptr(FkEngine) engine = fk_engine_new(options, &error);
    g_assert_no_error(error);
    if (i == 2) fk_model_place(engine->model, (FkPlacing){.swaps = true, .level = 4, .slots = 2, .text_level = 2});
    for (size_t k = 0; k < G_N_ELEMENTS(lists); k++) {
      g_autofree char *found = edit_hash(engine, lists[k], &error);
      g_assert_no_error(error);
      g_assert_cmpstr(found, ==, *lists[k] ? both : first);
    }
    g_autoptr(FkSettings) s = fk_settings_new();
    g_auto(GStrv) list = fk_engine_active(engine, s);
    const char *text = list[g_strv_length(list) - 1];
    g_test_message("%s: %s", ways[i][1] ? ways[i][1] : "all", text);
    g_assert_nonnull(strstr(text, "merged in the packed model: "));
  }
}

static bool pack_refused(const char *const *pairs, const char *loras, GError **error) {
  g_autoptr(FkOptions) options = options_of(pairs);
  g_autofree char *path = scratch_path("refused");
  const bool ok = fk_pack_adapted(options, loras, 4, path, NULL, NULL, NULL, error);
  g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
  return !ok;
}

static void refused(void) {
  g_autoptr(GError) error = NULL;
  static const char *const folder[] = {DEMO("model"), NULL}, *const lacks[] = {"model-path=bfl.safetensors", NULL};
  g_autofree char *path = packed("whole", folder, NULL), *model = g_strconcat("model-path=", path, NULL);
  g_assert_true(pack_refused((const char *const[]){model, NULL}, NULL, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "whole", "pack what it was made of");
  g_assert_true(pack_refused(lacks, NULL, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "vae (vae-path)", "tokenizers (tokenizer-path");
  g_assert_true(pack_refused(folder, "nowhere.safetensors", &error));
  assert_error(error, FK_ERROR_MODEL_MISSING, "nowhere.safetensors", "");
  g_assert_true(pack_refused(folder, LORA ":5000", &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "loras", "from -1000 to 1000");
  g_autofree char *codes = packed("codes", (const char *const[]){DEMO("model"), "quantization=fp8", NULL}, NULL);
  g_autofree char *with = g_strconcat("model-path=", codes, NULL);
  g_assert_null(edited((const char *const[]){with, NULL}, SECOND, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "loras: the packed model has \"", "as codes, which nothing can be added to");
  g_autofree char *sealed = packed("sealed", folder, LORA ":0.7"), *has = g_strconcat("model-path=", sealed, NULL);
  g_assert_null(edited((const char *const[]){has, NULL}, SECOND "; " LORA, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "loras: the packed model has", "cyanotype.safetensors:0.7 already");
  static const char *const properties[] = {"vae-path", "clip-path", "t5-path", "tokenizer-path"};
  for (size_t i = 0; i < G_N_ELEMENTS(properties); i++) {
    g_autofree char *other = g_strconcat(properties[i], "=" FK_DEMO_MODEL, NULL);
    g_assert_null(edited((const char *const[]){model, other, NULL}, NULL, &error));
    assert_error(error, FK_ERROR_OPTION_BAD, properties[i], "packed model");
    if (i == 3) continue; /* tokenizers may be inside one */
    g_autofree char *part = g_strconcat(properties[i], "=", path, NULL);
    g_assert_null(edited((const char *const[]){DEMO("model"), part, NULL}, NULL, &error));
    assert_error(error, FK_ERROR_MODEL_MISMATCH, properties[i], "a packed model, which only model-path takes");
  }
}

/* A file that is written replaces no source, no folder and nothing that is no file; else what was there. */
static void targets(void) {
  g_autofree char *folder = scratch_path("target-folder"), *pipe = scratch_path("pipe"), *file = scratch_path("x");
  g_autofree char *own = scratch_path("own.safetensors"), *lora = scratch_path("own-lora.safetensors"), *bytes = NULL;
  g_autofree char *bfl = g_build_filename(made, "bfl.safetensors", NULL), *list = g_strconcat(lora, ":0.5", NULL);
  const char *const links[][2] = {{bfl, own}, {LORA, lora}};
  g_autofree char *busy = scratch_path("busy"), *part = write_text("busy.part", "");
  gsize n;
  for (int i = 0; i < 2; i++) {
    g_assert_true(g_file_get_contents(links[i][0], &bytes, &n, NULL));
    g_assert_true(g_file_set_contents(links[i][1], bytes, (gssize)n, NULL));
    g_free(bytes);
  }
  bytes = NULL;
  g_assert_cmpint(g_mkdir(folder, 0700), ==, 0);
  g_assert_cmpint(mkfifo(pipe, 0600), ==, 0);
  g_autofree char *model = g_strconcat("model-path=", own, NULL);
  const char *const words[] = {model, DEMO("vae"), DEMO("clip"), DEMO("t5"), DEMO("tokenizer"), NULL};
  const struct {
    const char *path, *loras, *says;
  } cases[] = {{own, NULL, "one of those that it would be made of"},
               {lora, list, "one of those that it would be made of"},
               {FK_DEMO_MODEL "/vae/config.json", NULL, "one of those that it would be made of"},
               {folder, NULL, "a new file, or of one to replace, found a folder"},
               {pipe, NULL, "a new file, or of one to replace, found a FIFO"},
               {"/dev/null", NULL, "a new file, or of one to replace, found a character device"},
               {busy, NULL, ".part: expected no such file"},
               {file, NULL, NULL},
               {file, NULL, NULL}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkOptions) options = options_of(words);
    const bool ok = fk_pack_adapted(options, cases[i].loras, 4, cases[i].path, NULL, NULL, NULL, &error);
    g_assert_true(ok == !cases[i].says);
    if (!ok) assert_error(error, FK_ERROR_OPTION_BAD, cases[i].path, cases[i].says);
  }
}

/* What is written of a configuration is read to the same. */
static void configurations(void) {
  static const char *const names[] = {
      "model_index.json",         "transformer/config.json",    "vae/config.json",
      "text_encoder/config.json", "text_encoder_2/config.json", "scheduler/scheduler_config.json"};
  static FkConfig configs[4], found;
  g_autoptr(GError) error = NULL;
  g_assert_true(fk_config_preset(&configs[0], "kontext-dev") && fk_config_preset(&configs[1], "schnell"));
  g_assert_true(fk_config_load(&configs[2], FK_DEMO_MODEL, NULL));
  configs[3] = configs[2];
  configs[3].scheduler.shift_terminal = 0.1;
  configs[3].scheduler.time_shift_type = FK_TIME_SHIFT_LINEAR;
  configs[3].scheduler.use_karras_sigmas = true;
  configs[3].clip.quick_gelu = false;
  configs[3].clip.eps = 1.1e-5f;
  configs[3].t5.max_distance = 129;
  configs[3].flux.axes[0] = 32;
  configs[3].flux.axes[1] = 40;
  for (size_t i = 0; i < G_N_ELEMENTS(configs); i++) {
    for (size_t k = 0; k < G_N_ELEMENTS(names); k++) {
      g_autofree char *text = fk_config_text(&configs[i], names[k]), *path = NULL;
      g_autofree char *name = g_strconcat("config/", names[k], NULL);
      path = write_text(name, text);
    }
    g_autofree char *limit = g_strdup_printf("{\"model_max_length\": %d}", configs[i].t5.max_tokens);
    g_autofree char *folder = scratch_path("config"), *a = NULL, *b = NULL;
    a = write_text("config/tokenizer/tokenizer_config.json", "{\"model_max_length\": 77}");
    b = write_text("config/tokenizer_2/tokenizer_config.json", limit);
    g_assert_true(fk_config_load(&found, folder, &error));
    g_assert_no_error(error);
    g_assert_cmpmem(&found.flux, sizeof found.flux, &configs[i].flux, sizeof found.flux);
    g_assert_cmpmem(&found.vae, sizeof found.vae, &configs[i].vae, sizeof found.vae);
    g_assert_cmpmem(&found.clip, sizeof found.clip, &configs[i].clip, sizeof found.clip);
    g_assert_cmpmem(&found.t5, sizeof found.t5, &configs[i].t5, sizeof found.t5);
    g_assert_cmpmem(&found.scheduler, sizeof found.scheduler, &configs[i].scheduler, sizeof found.scheduler);
    g_assert_cmpint(found.pipeline, ==, configs[i].pipeline);
  }
  g_assert_null(fk_config_text(&configs[0], "tokenizer/vocab.json"));
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  made = scratch_path("made");
  const char *const command[] = {"python3", FK_REWRITE_MODEL, FK_DEMO_MODEL, made, NULL};
  int status = 1;
  if (!g_spawn_sync(NULL, (char **)command, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, &status, NULL) || status)
    g_error("rewrite-model.py failed");
  g_test_add_func("/pack-sources/configurations", configurations);
  g_test_add_func("/pack-sources/files", files);
  g_test_add_func("/pack-sources/sources", sources);
  g_test_add_func("/pack-sources/read", read_sources);
  g_test_add_func("/pack-sources/recorded", recorded);
  g_test_add_func("/pack-sources/merged", merged);
  g_test_add_data_func("/pack-sources/on-top-float32", GINT_TO_POINTER(4), on_top);
  g_test_add_data_func("/pack-sources/on-top-bfloat16", GINT_TO_POINTER(2), on_top);
  g_test_add_data_func("/pack-sources/on-top-device", GINT_TO_POINTER(1), on_top);
  g_test_add_func("/pack-sources/on-top-damaged", on_top_damaged);
  g_test_add_func("/pack-sources/on-top-edits", on_top_edits);
  g_test_add_func("/pack-sources/refused", refused);
  g_test_add_func("/pack-sources/targets", targets);
  status = g_test_run();
  g_free(made);
  scratch_close();
  return status;
}
