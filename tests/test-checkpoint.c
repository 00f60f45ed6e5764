/* SPDX-License-Identifier: Apache-2.0 */
/* One model in every layout and type of file that holds it gives the same picture, byte for byte; what files lack or
 * have too much is told by property and name. The files are written by rewrite-model.py. */
#include "checkpoint.h"
#include "test-files.h"
#include "test-picture.h"

#include <string.h>

static char *made; /* folder of the files */

static void set_path(FkOptions *options, const char *property, const char *file) {
  if (!file) return;
  g_autofree char *path = *file == '/' ? g_strdup(file) : g_build_filename(made, file, NULL);
  g_assert_true(fk_options_set(options, property, path, NULL));
}

typedef struct {
  const char *model, *vae, *clip, *t5, *tokenizer;
} Files;

static FkOptions *options_of(const Files *f) {
  FkOptions *options = fk_options_new();
  fk_options_set(options, "backend", "cpu", NULL);
  set_path(options, "model-path", f->model);
  set_path(options, "vae-path", f->vae);
  set_path(options, "clip-path", f->clip);
  set_path(options, "t5-path", f->t5);
  set_path(options, "tokenizer-path", f->tokenizer);
  return options;
}

/* SHA-256 of a picture of one step. (transfer full) */
static char *picture_hash(const Files *f) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = options_of(f);
  g_autoptr(FkEngine) engine = fk_engine_open(options, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_autoptr(FkSettings) settings = fk_settings_new();
  fk_settings_set(settings, "prompt", "make it night", NULL);
  fk_settings_set(settings, "steps", "1", NULL);
  fk_settings_set(settings, "max-area", "16384", NULL);
  FkImage in = read_png(FK_DEMO_PHOTOS "/coffee_256.png"), out = in;
  const size_t bytes = in.stride * (size_t)in.height;
  out.data = g_malloc0(bytes);
  FkJob job = {.in = in, .out = out, .settings = settings};
  fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  char *hash = g_compute_checksum_for_data(G_CHECKSUM_SHA256, out.data, bytes);
  g_free(in.data);
  g_free(out.data);
  return hash;
}

static void compare(const Files *first, const Files *others, size_t n) {
  g_autofree char *expected = picture_hash(first);
  g_test_message("%.16s %s", expected, first->model);
  for (size_t i = 0; i < n; i++) {
    g_autofree char *hash = picture_hash(&others[i]);
    g_test_message("%.16s %s %s %s %s", hash, others[i].model, others[i].vae ? others[i].vae : "-",
                   others[i].clip ? others[i].clip : "-", others[i].t5 ? others[i].t5 : "-");
    g_assert_cmpstr(hash, ==, expected);
  }
}

/* The autoencoder's configuration is the folder's. */
static void test_parts(void) {
  const char *demo = FK_DEMO_MODEL;
  const Files first = {demo, NULL, NULL, NULL, NULL};
  const Files others[] = {
      {demo, "ae.safetensors", NULL, NULL, NULL},
      {demo, "ae-f32.safetensors", "clip.safetensors", "t5.safetensors", demo},
      {demo, NULL, "clip-f32.safetensors", "t5.gguf", NULL},
      {demo, NULL, NULL, "t5-f32.safetensors", NULL},
      {"diffusers.safetensors", demo, demo, demo, demo},
      {"bfl.safetensors", FK_DEMO_MODEL "/vae", FK_DEMO_MODEL "/text_encoder", FK_DEMO_MODEL "/text_encoder_2", demo},
      {"bfl-f32.safetensors", demo, "clip.safetensors", "t5.safetensors", demo},
      {"comfy.safetensors", demo, "clip-f32.safetensors", "t5-f32.safetensors", demo},
      {"flux.gguf", demo, "clip.safetensors", "t5.gguf", demo},
      {"flux-f32.gguf", demo, "all.safetensors", "all.safetensors", demo},
  };
  compare(&first, others, G_N_ELEMENTS(others));
}

/* It is FLUX.1's. */
static void test_alone(void) {
  const Files first = {"folder", NULL, NULL, NULL, NULL};
  const Files others[] = {
      {"all.safetensors", NULL, NULL, NULL, FK_DEMO_MODEL},
      {"all.safetensors", "ae.safetensors", "clip.safetensors", "t5.gguf", FK_DEMO_MODEL},
      {"flux.gguf", "ae-f32.safetensors", "clip.safetensors", "t5.gguf", FK_DEMO_MODEL},
  };
  compare(&first, others, G_N_ELEMENTS(others));
}

static void test_wanted(void) {
  static const struct {
    Files files;
    int code;
    const char *text_1, *text_2;
  } cases[] = {
      {{"bfl.safetensors", NULL, NULL, NULL, NULL},
       FK_ERROR_OPTION_BAD,
       "does not have vae (vae-path), text_encoder (clip-path), text_encoder_2 (t5-path), tokenizers (tokenizer-path",
       "bfl.safetensors"},
      {{"all.safetensors", NULL, NULL, NULL, NULL},
       FK_ERROR_OPTION_BAD,
       "does not have tokenizers (tokenizer-path",
       "all.safetensors"},
      {{"/dev/null", NULL, NULL, NULL, NULL}, FK_ERROR_MODEL_BAD, "model-path /dev/null", "found a character device"},
      {{FK_DEMO_MODEL, "/dev/null", NULL, NULL, NULL}, FK_ERROR_MODEL_BAD, "vae-path /dev/null", "a character device"},
      {{FK_DEMO_MODEL, NULL, NULL, NULL, "/dev/null"}, FK_ERROR_MODEL_BAD, "tokenizer-path /dev/null", "found a char"},
      {{"t5.gguf", NULL, NULL, NULL, NULL},
       FK_ERROR_MODEL_MISMATCH,
       "expected tensors of transformer",
       "found text_encoder_2"},
      {{FK_DEMO_MODEL, "bfl.safetensors", NULL, NULL, NULL}, FK_ERROR_MODEL_MISMATCH, "vae-path", "found transformer"},
      {{FK_DEMO_MODEL, NULL, NULL, "clip.safetensors", NULL},
       FK_ERROR_MODEL_MISMATCH,
       "t5-path",
       "expected tensors of text_encoder_2, found text_encoder"},
      {{FK_DEMO_MODEL, NULL, "nothing", NULL, NULL}, FK_ERROR_MODEL_MISSING, "nothing", ""},
      {{FK_DEMO_MODEL, NULL, NULL, NULL, "folder/vae"}, FK_ERROR_MODEL_MISSING, "tokenizer", "folder/vae"},
      {{FK_DEMO_PHOTOS "/coffee_256.png", NULL, NULL, NULL, NULL}, FK_ERROR_MODEL_BAD, "safetensors", "coffee"},
  };
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkOptions) options = options_of(&cases[i].files);
    g_assert_null(fk_engine_new(options, &error));
    g_test_message("%s", error->message);
    assert_error(error, cases[i].code, cases[i].text_1, cases[i].text_2);
  }
}

/* ---- Marks of quantisation ---- */

static void test_marks(void) {
  static const struct {
    const char *mark;
    bool metadata;
    const char *text; /* NULL: read */
  } cases[] = {
      {"{\"format\": \"float8_e4m3fn\", \"full_precision_matrix_mult\": true}", false, NULL},
      {"{\"format\": \"nvfp4\"}", false, NULL},
      {"{\"format\": \"int8_tensorwise\", \"convrot\": false}", false, NULL},
      {"{\"format\": \"int8_tensorwise\", \"convrot\": true}", false, "found \"convrot\""},
      {"{\"format\": \"awq_w4a16\"}", false, "found \"awq_w4a16\""},
      {"{\"format\": 7}", false, "found \"none\""},
      {"[1]", false, "comfy_quant"},
      {"{", false, "comfy_quant"},
      {"{\\\"format_version\\\": \\\"1.0\\\", \\\"layers\\\": {\\\"a\\\": {\\\"format\\\": \\\"mxfp8\\\"}}}", true,
       NULL},
      {"{\\\"layers\\\": {\\\"a\\\": {\\\"format\\\": \\\"int8_blockwise\\\"}}}", true, "found \"int8_blockwise\""},
      {"{\\\"layers\\\": [1]}", true, "found \"none\""},
      {"{\\\"layers\\\": 1}", true, NULL},
      {"nothing", true, "_quantization_metadata"},
  };
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    const size_t n = strlen(cases[i].mark);
    g_autofree char *header =
        cases[i].metadata
            ? g_strdup_printf("{\"__metadata__\":{\"_quantization_metadata\":\"%s\"}}", cases[i].mark)
            : g_strdup_printf("{\"a.comfy_quant\":{\"dtype\":\"U8\",\"shape\":[%zu],\"data_offsets\":[0,%zu]}}", n, n);
    g_autofree char *path =
        write_safetensors("marks/vae.safetensors", header, cases[i].mark, cases[i].metadata ? 0 : n);
    const FkPaths paths = {.model = FK_DEMO_MODEL, .vae = path};
    FkCheckpoint c;
    g_autoptr(GError) error = NULL;
    g_assert_false(fk_checkpoint_open(&c, &paths, FK_FILES_ALL, &error));
    g_test_message("%s", error->message);
    const char *text = cases[i].text ? cases[i].text : "expected tensors of vae, found nothing";
    g_assert_nonnull(strstr(error->message, text));
  }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  made = scratch_path("made");
  const char *const command[] = {"python3", FK_REWRITE_MODEL, FK_DEMO_MODEL, made, NULL};
  int status = 1;
  if (!g_spawn_sync(NULL, (char **)command, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, &status, NULL) || status)
    g_error("rewrite-model.py failed");
  g_test_add_func("/checkpoint/parts", test_parts);
  g_test_add_func("/checkpoint/alone", test_alone);
  g_test_add_func("/checkpoint/wanted", test_wanted);
  g_test_add_func("/checkpoint/marks", test_marks);
  status = g_test_run();
  g_free(made);
  scratch_close();
  return status;
}
