/* SPDX-License-Identifier: Apache-2.0 */
/* Edits with weights that stay as their files have them, on the GPU: the bytes of expanded weights, whether a matrix is
 * expanded in order or ahead, recorded or not, alone or among others, with blocks that stream and with adapters.
 *
 * Environment: BACKEND (default cuda; cpu runs the same), FK_SOURCE (the project's root, default: where this was
 * built). The files are written by coded-model.py; without a usable device, or without python3, everything counts as
 * skipped. */
#include "fk.h"

#include <glib/gstdio.h>
#include <string.h>

static const char *backend, *root;
static char *made, *demo;
static const char *const forms[] = {"Q4_K", "Q8_0", "fp8", "nvfp4"};
static const char *const scaled[] = {"fp8", "fp8-new", "fp8-rows", "fp8-mixed"};

static FkOptions *options_of(const char *form, const char *storage) {
  FkOptions *options = fk_options_new();
  static const char *const parts[][2] = {{"model-path", "flux"}, {"t5-path", "t5"}};
  for (int i = 0; i < 2; i++) {
    g_autofree char *gguf = g_strdup_printf("%s/%s-%s.gguf", made, form, parts[i][1]);
    g_autofree char *other = g_strdup_printf("%s/%s-%s.safetensors", made, form, parts[i][1]);
    fk_options_set(options, parts[i][0], g_file_test(gguf, G_FILE_TEST_EXISTS) ? gguf : other, NULL);
  }
  fk_options_set(options, "clip-path", demo, NULL);
  fk_options_set(options, "vae-path", demo, NULL);
  fk_options_set(options, "tokenizer-path", demo, NULL);
  fk_options_set(options, "backend", backend, NULL);
  fk_options_set(options, "weight-storage", storage, NULL);
  return options;
}

static FkEngine *open_engine(FkOptions *options) {
  g_autoptr(GError) error = NULL;
  FkEngine *engine = fk_engine_new(options, &error);
  g_assert_no_error(error);
  return engine;
}

/* The hash of all frames; `pairs` beside a prompt and few steps. (transfer full) */
static char *edit(FkEngine *engine, int frames, const char *pairs) {
  enum { SIDE = 128, BYTES = SIDE * SIDE * 3 };
  static uint8_t in[4][BYTES], out[4][BYTES];
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) s = fk_settings_new();
  g_autofree char *text = g_strconcat("steps=4 max-area=16384 ", pairs, NULL);
  g_auto(GStrv) list = g_strsplit(g_strstrip(text), " ", -1);
  FkJob jobs[4] = {0};
  fk_settings_set(s, "prompt", "make it night", NULL);
  for (int i = 0; list[i]; i++) {
    g_auto(GStrv) pair = g_strsplit(list[i], "=", 2);
    fk_settings_set(s, pair[0], pair[1], &error);
    g_assert_no_error(error);
  }
  for (int i = 0; i < frames; i++) {
    for (int k = 0; k < BYTES; k++) in[i][k] = (uint8_t)(k * 7 + k / (191 + i));
    jobs[i] = (FkJob){.in = {in[i], SIDE, SIDE, 3, SIDE * 3}, .out = {out[i], SIDE, SIDE, 3, SIDE * 3}, .settings = s};
  }
  fk_engine_edit(engine, jobs, frames, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  return g_compute_checksum_for_data(G_CHECKSUM_SHA256, out[0], (gsize)(frames * BYTES));
}

static bool active(FkEngine *engine, const char *name, const char *value) {
  g_autoptr(FkSettings) s = fk_settings_new();
  g_auto(GStrv) list = fk_engine_active(engine, s);
  for (int i = 0; list[i]; i += 2)
    if (!strcmp(list[i], name)) return g_str_has_prefix(list[i + 1], value);
  return false;
}

static void same(gconstpointer data) {
  static const char *const ways[] = {"expand-ahead=off", "expand-ahead=on",
                                     "expand-ahead=on step-cache=first-block step-cache-mask=1011",
                                     "expand-ahead=on true-cfg-scale=2 negative-prompt=blur"};
  const bool gpu = !strcmp(backend, "cuda");
  g_autoptr(FkOptions) wide = options_of(data, "expanded"), file = options_of(data, "file");
  g_autoptr(FkEngine) a = open_engine(wide), b = open_engine(file);
  for (size_t i = 0; i < G_N_ELEMENTS(ways); i++)
    for (int frames = 1; frames <= 3; frames += 2) {
      g_autofree char *plain = g_strdup(strchr(ways[i], ' ') ? strchr(ways[i], ' ') + 1 : "cuda-graph=auto");
      g_autofree char *unrecorded = g_strconcat(ways[i], gpu ? " cuda-graph=off" : "", NULL);
      g_autofree char *expects = edit(a, frames, plain);
      for (int run = 0; run < (gpu ? 5 : 1); run++) {
        g_autofree char *found = edit(b, frames, ways[i]), *once = edit(b, frames, unrecorded);
        g_test_message("%s, %d frames, %s: %.16s, expanded %.16s", (const char *)data, frames, ways[i], found, expects);
        g_assert_cmpstr(found, ==, expects);
        g_assert_cmpstr(once, ==, expects);
      }
    }
  g_assert_true(active(b, "weight-storage", "file"));
}

/* A limit under which some blocks stream. */
static guint64 limit_of(const char *form) {
  g_autoptr(FkSettings) s = fk_settings_new();
  fk_settings_set(s, "max-area", "16384", NULL);
  for (guint64 mb = 128; mb > 2; mb -= 2) {
    g_autoptr(FkOptions) options = options_of(form, "file");
    g_autofree char *text = g_strdup_printf("%" G_GUINT64_FORMAT, mb << 20);
    FkPlan p;
    fk_options_set(options, "max-vram", text, NULL);
    fk_options_set(options, "offload", "sequential", NULL);
    if (fk_plan(fk_options_get(options, "model-path"), options, s, 128, 128, strcmp(backend, "cuda") ? 4 : 2, &p,
                NULL) &&
        p.streamed_blocks >= 3)
      return mb << 20;
  }
  g_assert_not_reached();
}

/* The demo's adapter as a setting. (transfer full) */
static char *list_of(const char *weight) {
  g_autofree char *lora = g_build_filename(root, "examples", "demo-model", "cyanotype.safetensors", NULL);
  return g_strconcat("loras=", lora, ":", weight, NULL);
}

static void streamed(void) {
  g_autoptr(FkOptions) wide = options_of("Q8_0", "expanded"), file = options_of("Q8_0", "file");
  const guint64 held =
      strcmp(backend, "cuda") ? 0 : 9 << 20; /* by the kernels, which a plan of no device does not know */
  g_autofree char *text = g_strdup_printf("%" G_GUINT64_FORMAT, limit_of("Q8_0") + held);
  fk_options_set(file, "offload", "sequential", NULL);
  fk_options_set(file, "max-vram", text, NULL);
  g_autoptr(FkEngine) a = open_engine(wide), b = open_engine(file);
  g_autofree char *list = list_of("1"), *expects = edit(a, 1, ""), *other = edit(a, 1, list);
  for (int run = 0; run < 10; run++) {
    g_autofree char *pairs =
        g_strconcat(run % 2 ? "expand-ahead=on " : "expand-ahead=off ", run % 4 < 2 ? "" : list, NULL);
    g_autofree char *found = edit(b, 1, pairs);
    g_assert_cmpstr(found, ==, run % 4 < 2 ? expects : other);
  }
  g_test_message("max-vram=%s", text);
  g_assert_true(active(b, "offload", "sequential"));
}

/* Adapters of matrices that stay as their files have them come and go, recorded and ahead: the bytes of expanded ones.
 * 100 exchanges give the first hashes again. */
static void adapted(gconstpointer data) {
  const bool gpu = !strcmp(backend, "cuda");
  g_autofree char *one = list_of("1"), *half = list_of("0.5");
  const char *const lists[] = {"", one, half, "", half};
  g_autoptr(FkOptions) wide = options_of(data, "expanded"), file = options_of(data, "file");
  g_autoptr(FkEngine) a = open_engine(wide), b = open_engine(file);
  char *expects[G_N_ELEMENTS(lists)];
  for (size_t i = 0; i < G_N_ELEMENTS(lists); i++) {
    expects[i] = edit(a, 1, lists[i]);
    for (int run = 0; run < (gpu ? 6 : 1); run++) {
      g_autofree char *pairs = g_strconcat(run % 2 ? "expand-ahead=on " : "expand-ahead=off ", lists[i], NULL);
      g_autofree char *found = edit(b, 1, pairs);
      g_assert_cmpstr(found, ==, expects[i]);
    }
  }
  for (size_t i = 0; i < (gpu ? 100 : 5); i++) {
    const size_t k = i % G_N_ELEMENTS(lists);
    g_autofree char *found = edit(b, 1, lists[k]);
    g_assert_cmpstr(found, ==, expects[k]);
  }
  g_assert_cmpstr(expects[0], !=, expects[1]);
  g_assert_true(active(b, "weight-storage", "file"));
  for (size_t i = 0; i < G_N_ELEMENTS(lists); i++) g_free(expects[i]);
}

/* Adapters beside a packed model, which come and go: the bytes of the folder's. */
static void packed(void) {
  g_autofree char *path = g_build_filename(made, "packed", NULL);
  g_autofree char *list = list_of("0.5");
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) folder = fk_options_new();
  fk_options_set(folder, "model-path", demo, NULL);
  fk_options_set(folder, "backend", backend, NULL);
  fk_pack(folder, strcmp(backend, "cuda") ? 4 : 2, path, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_autoptr(FkOptions) file = fk_options_copy(folder);
  fk_options_set(file, "model-path", path, NULL);
  g_autoptr(FkEngine) a = open_engine(folder), b = open_engine(file);
  for (int run = 0; run < 6; run++) {
    const char *pairs = run % 2 ? list : "";
    g_autofree char *expects = edit(a, 1, pairs), *found = edit(b, 1, pairs);
    g_assert_cmpstr(found, ==, expects);
  }
}

/* Computed in fp8, files of fp8 are one picture whatever the layout, also packed and with adapters. */
static void codes(void) {
  g_autofree char *lora = g_build_filename(root, "examples", "demo-model", "cyanotype.safetensors", NULL);
  g_autofree char *list = g_strconcat("loras=", lora, NULL), *first = NULL, *changed = NULL;
  g_autofree char *path = g_build_filename(made, "codes", NULL);
  for (size_t i = 0; i < G_N_ELEMENTS(scaled); i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkOptions) options = options_of(scaled[i], "auto"), alone = fk_options_new();
    fk_options_set(options, "quantization", "fp8", NULL);
    fk_options_set(options, "text-quantization", "fp8", NULL);
    fk_options_set(options, "modulation-quantization", "fp8", NULL);
    g_autoptr(FkEngine) engine = open_engine(options);
    g_autofree char *plain = edit(engine, 1, ""), *with = edit(engine, 1, list), *without = edit(engine, 1, "");
    g_test_message("%s: %.16s, with an adapter %.16s", scaled[i], plain, with);
    g_assert_cmpstr(plain, ==, without);
    g_assert_cmpstr(plain, !=, with);
    fk_pack(options, strcmp(backend, "cuda") ? 4 : 2, path, NULL, NULL, NULL, &error);
    g_assert_no_error(error);
    fk_options_set(alone, "model-path", path, NULL);
    fk_options_set(alone, "backend", backend, NULL);
    g_autoptr(FkEngine) other = open_engine(alone);
    g_autofree char *packed_one = edit(other, 1, "");
    g_assert_cmpstr(packed_one, ==, plain);
    if (!strcmp(scaled[i], "fp8-mixed")) continue; /* other numbers */
    if (!first) first = g_strdup(plain);
    if (!changed) changed = g_strdup(with);
    g_assert_cmpstr(plain, ==, first);
    g_assert_cmpstr(with, ==, changed);
  }
}

/* NULL: all is there. (transfer full) */
static char *why_not(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "model-path", demo, NULL);
  fk_options_set(options, "backend", backend, NULL);
  g_autoptr(FkEngine) engine = fk_engine_open(options, NULL, NULL, NULL, &error);
  if (!engine) return g_strdup(error->message);
  g_autofree char *script = g_build_filename(root, "tests", "coded-model.py", NULL);
  char *command[4 + G_N_ELEMENTS(forms) + G_N_ELEMENTS(scaled)] = {(char *)"python3", script, demo, made};
  int status = 1;
  for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) command[4 + i] = (char *)forms[i];
  for (size_t i = 1; i < G_N_ELEMENTS(scaled); i++) command[3 + G_N_ELEMENTS(forms) + i] = (char *)scaled[i];
  if (g_spawn_sync(NULL, command, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, &status, NULL) && !status)
    return NULL;
  return g_strdup("python3 with coded-model.py failed");
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  backend = g_getenv("BACKEND") ? g_getenv("BACKEND") : "cuda";
  root = g_getenv("FK_SOURCE") ? g_getenv("FK_SOURCE") : FK_ROOT;
  demo = g_build_filename(root, "examples", "demo-model", "checkpoint", NULL);
  made = g_dir_make_tmp("fk-files-XXXXXX", NULL);
  g_autofree char *reason = why_not();
  int status = 0;
  if (reason) {
    printf("1..0 # SKIP %s\n", reason);
  } else {
    for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
      g_autofree char *name = g_strdup_printf("/gpu-files/same/%s", forms[i]);
      g_test_add_data_func(name, forms[i], same);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
      g_autofree char *name = g_strdup_printf("/gpu-files/adapted/%s", forms[i]);
      g_test_add_data_func(name, forms[i], adapted);
    }
    g_test_add_func("/gpu-files/streamed", streamed);
    g_test_add_func("/gpu-files/packed", packed);
    g_test_add_func("/gpu-files/codes", codes);
    status = g_test_run();
  }
  const char *file;
  GDir *dir = g_dir_open(made, 0, NULL);
  while (dir && (file = g_dir_read_name(dir))) {
    g_autofree char *path = g_build_filename(made, file, NULL);
    g_unlink(path);
  }
  if (dir) g_dir_close(dir);
  g_rmdir(made);
  g_free(made);
  g_free(demo);
  return status;
}
