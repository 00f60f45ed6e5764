/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of the model that come and go: the bytes of edits are the same, the memory is within what was planned, and what
 * cannot be had is refused with what could. */
#include "backend.h"
#include "engine.h"
#include "test-files.h"

#include "lora-files.h"

#include <unistd.h>

#define ADAPTER FK_DEMO_MODEL "/../cyanotype.safetensors"

static FkEngine *open_engine(const char *const *pairs, GError **error) {
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(FkSettings) settings = fk_settings_new();
  fk_options_set(options, "model-path", FK_DEMO_MODEL, NULL);
  fk_options_set(options, "backend", "cpu", NULL);
  fk_options_set(options, "weight-storage", "expanded", NULL); /* a placement that the checkpoint's type would spare */
  fk_settings_set(settings, "max-area", "4096", NULL);
  for (; *pairs; pairs += 2) g_assert_true(fk_options_set(options, pairs[0], pairs[1], NULL));
  g_autoptr(FkEngine) engine = fk_engine_new(options, error);
  if (!engine || !fk_engine_load_for(engine, settings, NULL, NULL, NULL, error)) return NULL;
  return g_steal_pointer(&engine);
}

static size_t resident(const FkEngine *engine) {
  size_t bytes = 0;
  for (int i = 0; i < FK_PARTS; i++) bytes += engine->model->part[i].loaded ? engine->model->part[i].bytes : 0;
  return bytes;
}

/* (transfer full) */
static char *adapted(FkEngine *engine, const char *prompt, const char *loras, GCancellable *cancellable,
                     GError **error) {
  static uint8_t in[64 * 64 * 3], out[64 * 64 * 3];
  g_autoptr(FkSettings) s = fk_settings_new();
  fk_settings_set(s, "prompt", prompt, NULL);
  g_assert_true(fk_settings_set(s, "loras", loras, NULL));
  fk_settings_set(s, "steps", "2", NULL);
  fk_settings_set(s, "max-area", "4096", NULL);
  for (size_t i = 0; i < sizeof in; i++) in[i] = (uint8_t)(i * 7 + i / 191);
  FkJob job = {.in = {in, 64, 64, 3, 192}, .out = {out, 64, 64, 3, 192}, .settings = s};
  if (!fk_engine_edit(engine, &job, 1, cancellable, NULL, NULL, error)) return NULL;
  return g_compute_checksum_for_data(G_CHECKSUM_SHA256, out, sizeof out);
}

static char *edited(FkEngine *engine, const char *prompt, GCancellable *cancellable, GError **error) {
  return adapted(engine, prompt, "", cancellable, error);
}

static char *decided(FkEngine *engine) {
  g_autoptr(FkSettings) s = fk_settings_new();
  g_auto(GStrv) list = fk_engine_active(engine, s);
  for (char **p = list; *p; p += 2)
    if (!strcmp(*p, "offload")) return g_strdup(p[1]);
  return NULL;
}

static const char *const prompts[] = {"make it night", "make it night", "paint it",
                                      "make it night", "paint it",      "other"};

static void check_edits(const char *const *pairs, const char *mode) {
  g_autoptr(GError) error = NULL;
  const char *plain[] = {"offload", "none", NULL, NULL, NULL};
  for (int i = 0; pairs[i]; i += 2)
    if (!strcmp(pairs[i], "quantization")) memcpy(plain + 2, pairs + i, 2 * sizeof *plain);
  g_autoptr(FkEngine) all = open_engine(plain, &error);
  g_assert_no_error(error);
  g_autoptr(FkEngine) engine = open_engine(pairs, &error);
  g_assert_no_error(error);
  g_assert_true(all != engine);
  for (size_t i = 0; i < G_N_ELEMENTS(prompts); i++) {
    g_autofree char *expected = edited(all, prompts[i], NULL, &error),
                    *found = edited(engine, prompts[i], NULL, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(found, ==, expected);
    g_assert_cmpuint(resident(all), ==, fk_model_weight_bytes(all->model));
    if (!strcmp(mode, "model"))
      g_assert_cmpuint(resident(engine), <=, fk_model_placed_bytes(engine->model, (FkPlacing){.swaps = true}));
  }
  g_autofree char *text = decided(engine);
  g_test_message("offload %s; %zu of %zu bytes", text, resident(engine), resident(all));
  g_assert_true(g_str_has_prefix(text, mode));
}

static void same_bytes(void) {
  static const char *const model[] = {"offload", "model", NULL};
  static const char *const fp8[] = {"offload", "model", "quantization", "fp8", NULL};
  check_edits(model, "model");
  check_edits(fp8, "model");
}

static int coded_rows(const FkEngine *engine) {
  int rows = 0;
  for (int i = 0; i < FK_PARTS; i++) rows += fk_binder_coded_rows(engine->model->part[i].binder);
  return rows;
}

/* On a device codes are made once: parts that come again are copied from host memory, with the adapters that they have
 * got meanwhile, and with blocks that stream too. */
static void codes_kept(void) {
  static const char *const lists[] = {"", "", "", ADAPTER, ADAPTER, "", ""};
#define CODES "quantization", "fp8", "text-quantization", "fp8", "modulation-quantization", "fp8"
  static const char *const plain[] = {"offload", "none", CODES, NULL};
  static const char *const model[] = {"offload", "model", CODES, NULL};
  static const char *const ring[] = {"offload", "sequential", CODES, NULL};
  const FkOps device = fk_cpu_ops; /* whose memory is not the host's */
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) all = open_engine(plain, &error);
  g_assert_no_error(error);
  for (int k = 0; k < 2; k++) {
    FkEngine *engine = open_engine(k ? ring : model, &error);
    g_assert_no_error(error);
    engine->be->ops = &device;
    if (k) fk_model_place(engine->model, (FkPlacing){.swaps = true, .level = 3, .slots = 2, .text_level = 2});
    int rows[G_N_ELEMENTS(lists)];
    for (int i = 0; i < (int)G_N_ELEMENTS(lists); i++) {
      g_autofree char *prompt = g_strdup_printf("prompt %d", i); /* each needs both parts */
      g_autofree char *expected = adapted(all, prompt, lists[i], NULL, &error),
                      *found = adapted(engine, prompt, lists[i], NULL, &error);
      g_assert_no_error(error);
      g_assert_cmpstr(found, ==, expected);
      rows[i] = coded_rows(engine);
      g_test_message("%s: %d rows of codes made, %zu bytes in host memory", k ? "sequential" : "model", rows[i],
                     fk_model_host_bytes(engine->model));
    }
    g_assert_cmpint(rows[0], >, 0);
    g_assert_cmpint(rows[1], ==, rows[0]);
    g_assert_cmpint(rows[2], ==, rows[0]);
    g_assert_cmpint(rows[3], >, rows[2]);
    g_assert_cmpint(rows[4], ==, rows[3]);
    g_assert_cmpint(rows[5], >, rows[4]);
    g_assert_cmpint(rows[6], ==, rows[5]);
    fk_engine_unref(engine);
  }
}

/* Without room for copies of codes they are made at each return. */
static void codes_made_anew(void) {
  static const char *const plain[] = {"offload", "none", "quantization", "fp8", NULL};
  static const char *const model[] = {"offload", "model", "quantization", "fp8", NULL};
  const FkOps device = fk_cpu_ops;
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) all = open_engine(plain, &error);
  FkEngine *engine = open_engine(model, &error);
  g_assert_no_error(error);
  engine->be->ops = &device;
  fk_model_place(engine->model, (FkPlacing){.swaps = true, .remakes = true});
  g_assert_cmpuint(fk_model_host_bytes(engine->model), ==, 0);
  int rows[3];
  for (int i = 0; i < 3; i++) {
    g_autofree char *prompt = g_strdup_printf("anew %d", i);
    g_autofree char *expected = edited(all, prompt, NULL, &error), *found = edited(engine, prompt, NULL, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(found, ==, expected);
    rows[i] = coded_rows(engine);
  }
  g_assert_cmpint(rows[1], ==, 2 * rows[0]);
  g_assert_cmpint(rows[2], ==, 3 * rows[0]);
  g_assert_cmpuint(fk_model_pinned_bytes(engine->model), ==, 0);
  fk_engine_unref(engine);
}

/* ---- Memory of the host ---- */

static size_t given; /* bytes */

static FkHostMemory given_memory(const char *root) {
  (void)root;
  return (FkHostMemory){given, given};
}

/* The published model on a backend that takes nothing, with so much host memory. NULL: *error. */
static FkEngine *placed(const char *const *pairs, size_t host, GError **error) {
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(FkSettings) settings = fk_settings_new();
  fk_options_set(options, "backend", "null", NULL);
  for (; *pairs; pairs += 2) g_assert_true(fk_options_set(options, pairs[0], pairs[1], NULL));
  g_autoptr(FkEngine) engine = fk_engine_new(options, error);
  g_assert_no_error(*error);
  given = host;
  engine->host_memory = given_memory;
  return fk_engine_load_for(engine, settings, NULL, NULL, NULL, error) ? g_steal_pointer(&engine) : NULL;
}

/* Copies that the host has no room for: an error with both numbers before anything is loaded, where a placement was
 * asked for or none is left; else without copies of codes. */
static void host(void) {
  static const char *const none[] = {"offload", "none", NULL};
  static const char *const bf16[] = {"max-vram", "12000000000", NULL};
  static const char *const fp8[] = {"max-vram", "16000000000", "quantization", "fp8", "text-quantization", "fp8", NULL};
  static const char *const model[] = {"offload", "model", "quantization", "fp8", NULL};
  static const char *const ring[] = {"max-vram", "8000000000", "offload", "sequential", "quantization", "fp8", NULL};
  static const char *const parts[] = {"max-vram", "20000000000", "quantization", "fp8", "text-quantization",
                                      "fp8",      NULL};
  static const struct {
    const char *const *pairs;
    double gb;
    const char *offload; /* NULL: refused */
    bool codes;          /* made at each return; of an error: a packed file needs less */
  } rows[] = {{none, 0, "none", false},      {bf16, 40, "sequential", false}, {bf16, 10, NULL, false},
              {parts, 40, "model", false},   {parts, 1, "model", true},       {fp8, 40, "sequential", false},
              {fp8, 10, "sequential", true}, {fp8, 1, NULL, false},           {model, 40, "model", false},
              {model, 1, NULL, true},        {ring, 60, "sequential", false}, {ring, 5, NULL, true}};
  for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkEngine) engine = placed(rows[i].pairs, (size_t)(rows[i].gb * 1e9), &error);
    if (!rows[i].offload) {
      g_autofree char *number = g_strdup_printf("there are %.0f bytes", rows[i].gb * 1e9);
      g_assert_null(engine);
      g_test_message("%s", error->message);
      g_assert_true((strstr(error->message, "fluxkontext-pack") != NULL) == rows[i].codes);
      assert_error(error, FK_ERROR_MEMORY, "bytes of host memory for copies of weights", number);
      continue;
    }
    g_assert_no_error(error);
    g_autofree char *text = decided(engine);
    g_test_message("%.0f GB: %.2f GB of copies, %s", rows[i].gb, (double)fk_model_host_bytes(engine->model) / 1e9,
                   text);
    g_assert_true(g_str_has_prefix(text, rows[i].offload));
    g_assert_cmpuint(fk_model_host_bytes(engine->model), <=, given);
    g_assert_true((strstr(text, "no memory for copies of codes") != NULL) == rows[i].codes);
  }
}

/* All of a folder but one, as links. */
static void link_all(const char *from, const char *to, const char *but) {
  g_autoptr(GDir) dir = g_dir_open(from, 0, NULL);
  const char *name;
  while ((name = g_dir_read_name(dir))) {
    g_autofree char *a = g_build_filename(from, name, NULL), *b = g_build_filename(to, name, NULL);
    if (strcmp(name, but)) g_assert_cmpint(symlink(a, b), ==, 0);
  }
}

/* An adapter of both text encoders. (transfer full) */
static char *text_adapter(void) {
  static const struct {
    const char *name, *shape;
    size_t n;
  } tensors[] = {{"text_encoder.text_model.encoder.layers.1.mlp.fc1.lora_A.weight", "[2,128]", 256},
                 {"text_encoder.text_model.encoder.layers.1.mlp.fc1.lora_B.weight", "[512,2]", 1024},
                 {"text_encoder_2.encoder.block.2.layer.1.DenseReluDense.wi_1.lora_A.weight", "[2,256]", 512},
                 {"text_encoder_2.encoder.block.2.layer.1.DenseReluDense.wi_1.lora_B.weight", "[512,2]", 1024}};
  float values[1024];
  LoraFile f = lora_file_new();
  for (size_t i = 0; i < G_N_ELEMENTS(values); i++) values[i] = (float)((int)(i * 37 % 101) - 50) / 100.0f;
  for (size_t i = 0; i < G_N_ELEMENTS(tensors); i++)
    lora_put(&f, tensors[i].name, tensors[i].shape, values, tensors[i].n);
  return lora_write(&f, "text.safetensors");
}

/* Adapters of the transformer and of the text encoders are in parts that have been away, and out of them again. */
static void adapters(void) {
  g_autofree char *text = text_adapter(), *both = g_strconcat(ADAPTER ":0.5; ", text, NULL);
  const char *const lists[] = {"", ADAPTER, ADAPTER ":0.5", text, "", both, text};
  static const char *const model[] = {"offload", "model", NULL}, *const none[] = {"offload", "none", NULL};
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) all = open_engine(none, &error), engine = open_engine(model, &error);
  g_assert_no_error(error);
  g_autofree char *first = NULL;
  for (int i = 0; i < 2 * (int)G_N_ELEMENTS(lists); i++) {
    const char *list = lists[i / 2], *prompt = prompts[(i * 2) % (int)G_N_ELEMENTS(prompts)];
    g_autofree char *expected = adapted(all, prompt, list, NULL, &error),
                    *found = adapted(engine, prompt, list, NULL, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(found, ==, expected);
    if (i == 0) first = g_strdup(found);
    if (i == 2) g_assert_cmpstr(found, !=, first);
  }
}

/* Headers of all parts are read when the model is opened, also of those that come later. */
static void damaged(void) {
  static const char *const files[] = {"transformer/diffusion_pytorch_model-00002-of-00003.safetensors",
                                      "vae/diffusion_pytorch_model.safetensors"};
  for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkOptions) options = fk_options_new();
    g_autofree char *folder = g_strdup_printf("%s/%zu", scratch, i), *part = g_path_get_dirname(files[i]);
    g_autofree char *demo = g_build_filename(FK_DEMO_MODEL, part, NULL), *own = g_build_filename(folder, part, NULL);
    g_assert_cmpint(g_mkdir_with_parents(folder, 0700), ==, 0);
    link_all(FK_DEMO_MODEL, folder, part);
    g_assert_cmpint(g_mkdir_with_parents(own, 0700), ==, 0);
    g_autofree char *file = g_path_get_basename(files[i]), *whole = g_build_filename(demo, file, NULL), *bytes = NULL;
    gsize size;
    link_all(demo, own, file);
    g_assert_true(g_file_get_contents(whole, &bytes, &size, NULL));
    g_autofree char *name = g_strdup_printf("%zu/%s", i, files[i]), *path = write_bytes(name, bytes, size - 1);
    fk_options_set(options, "model-path", folder, NULL);
    fk_options_set(options, "backend", "cpu", NULL);
    fk_options_set(options, "offload", "model", NULL);
    g_assert_null(fk_engine_new(options, &error));
    g_test_message("%s", error->message);
    assert_error(error, FK_ERROR_MODEL_BAD, file, "");
  }
}

/* Bytes that an edit of this size needs, by the plan. */
static double planned(const char *form, bool swaps) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(FkSettings) s = fk_settings_new();
  FkPlan p;
  fk_settings_set(s, "max-area", "4096", NULL);
  fk_options_set(options, "quantization", form, NULL);
  fk_plan(FK_DEMO_MODEL, options, s, 64, 64, 4, &p, &error);
  g_assert_no_error(error);
  return (swaps ? p.resident_bytes : p.weight_bytes) + p.cache_bytes + p.arena_bytes;
}

/* auto: by the limit. A little room for what the backend's own kernels need. */
static void automatic(void) {
  g_autofree char *less = g_strdup_printf("%.0f", planned("none", false) * 0.95);
  g_autofree char *enough = g_strdup_printf("%.0f", planned("none", false) * 1.2);
  const char *const model[] = {"max-vram", less, NULL}, *const none[] = {"max-vram", enough, NULL};
  g_assert_cmpfloat(planned("none", true), <, planned("none", false) * 0.94);
  check_edits(model, "model");
  check_edits(none, "none");
}

static void refused(void) {
  g_autoptr(GError) error = NULL;
  g_autofree char *less = g_strdup_printf("%.0f", planned("none", false) * 0.95);
  const char *const all[] = {"offload", "none", "max-vram", less, NULL}, *const tiny[] = {"max-vram", "1000000", NULL};
  g_assert_null(open_engine(all, &error));
  g_test_message("%s", error->message);
  assert_error(error, FK_ERROR_MEMORY, "max-vram", "what fits: offload=model (");
  g_assert_null(open_engine(tiny, &error));
  g_test_message("%s", error->message);
  assert_error(error, FK_ERROR_MEMORY, "max-vram is 1000000", "");
}

/* What an error says would fit opens, whatever the limit. */
static void suggested(void) {
  int some = 0;
  for (int megabytes = 16; megabytes < 140; megabytes += 3) {
    g_autoptr(GError) error = NULL;
    g_autofree char *limit = g_strdup_printf("%d000000", megabytes);
    const char *const none[] = {"offload", "none", "max-vram", limit, NULL};
    g_autoptr(FkEngine) engine = open_engine(none, &error);
    const char *says = engine ? NULL : strstr(error->message, "what fits: ");
    if (!says) continue;
    g_auto(GStrv) all = g_strsplit(says + strlen("what fits: "), ", or ", -1);
    for (char **one = all; *one; one++, some++) {
      const char *pairs[7] = {"max-vram", limit};
      g_autoptr(GError) wrong = NULL;
      g_auto(GStrv) words = g_strsplit_set(*one, " =", -1);
      for (int i = 0; *words[i] != '('; i++) pairs[2 + i] = words[i];
      g_autoptr(FkEngine) other = open_engine(pairs, &wrong);
      g_test_message("%s: %s", limit, *one);
      g_assert_no_error(wrong);
    }
  }
  g_assert_cmpint(some, >, 3);
}

/* An edit that is stopped while parts change leaves an engine that goes on. */
static void stopped(void) {
  static const char *const model[] = {"offload", "model", NULL};
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) engine = open_engine(model, &error);
  g_assert_no_error(error);
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  g_autofree char *first = edited(engine, prompts[0], NULL, &error);
  g_cancellable_cancel(cancellable);
  g_assert_null(edited(engine, "new", cancellable, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_CANCELLED);
  g_clear_error(&error);
  /* as a part that could not be read would leave it */
  for (int i = 0; i < FK_PARTS; i++) fk_model_release_part(engine->model, (FkPart)i);
  g_autofree char *again = edited(engine, prompts[0], NULL, &error);
  g_assert_no_error(error);
  g_assert_cmpstr(again, ==, first);
}

/* Peak of the published model with each way, bfloat16 and fp8: a table. */
static void published(void) {
  static const char *const forms[] = {"none", "fp8"};
  g_autoptr(FkSettings) s = fk_settings_new();
  for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkOptions) options = fk_options_new();
    FkPlan p;
    fk_options_set(options, "quantization", forms[i], NULL);
    fk_options_set(options, "text-quantization", forms[i], NULL);
    fk_plan("kontext-dev", options, s, 1024, 1024, 2, &p, &error);
    g_assert_no_error(error);
    const double more = p.cache_bytes + p.arena_bytes;
    g_test_message("quantization=%s: offload=none %.2f GB, offload=model %.2f GB", forms[i],
                   (p.weight_bytes + more) / 1e9, (p.resident_bytes + more) / 1e9);
    g_assert_cmpfloat(p.resident_bytes, <, p.weight_bytes);
    g_assert_cmpfloat(p.resident_bytes, >=, p.stage[3].weight_bytes);
  }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  g_test_add_func("/offload/same-bytes", same_bytes);
  g_test_add_func("/offload/adapters", adapters);
  g_test_add_func("/offload/codes-kept", codes_kept);
  g_test_add_func("/offload/codes-made-anew", codes_made_anew);
  g_test_add_func("/offload/host", host);
  g_test_add_func("/offload/damaged", damaged);
  g_test_add_func("/offload/automatic", automatic);
  g_test_add_func("/offload/refused", refused);
  g_test_add_func("/offload/suggested", suggested);
  g_test_add_func("/offload/stopped", stopped);
  g_test_add_func("/offload/published", published);
  const int status = g_test_run();
  scratch_close();
  return status;
}
