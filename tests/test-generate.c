/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures from text alone against diffusers' FluxPipeline in float32: a schnell-like model (no guidance embedding, its
 * own schedule without dynamic shift) and a dev-like one, and what refuses to go together. */
#include "config.h"
#include "fk.h"
#include "scheduler.h"

#include <math.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WIDTH = 96, HEIGHT = 64 };

static void link_part(const char *folder, const char *from, const char *part) {
  g_autofree char *real = g_canonicalize_filename(from, NULL), *target = g_build_filename(real, part, NULL);
  g_autofree char *name = g_build_filename(folder, part, NULL);
  g_assert_cmpint(symlink(target, name), ==, 0);
}

/* A FluxPipeline folder of the demo checkpoint's parts; schnell: with the golden transformer and scheduler.
 * (transfer full) */
static char *make_model(bool schnell) {
  static const char *const parts[] = {"text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae"};
  g_autoptr(GError) error = NULL;
  char *folder = g_dir_make_tmp("fk-generate-XXXXXX", &error);
  g_assert_no_error(error);
  g_autofree char *golden = g_build_filename(FK_TEST_DATA, "generate", "schnell", NULL);
  g_autofree char *index = g_build_filename(FK_DEMO_MODEL, "model_index.json", NULL), *text = NULL;
  g_autofree char *copy = g_build_filename(folder, "model_index.json", NULL);
  for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) link_part(folder, FK_DEMO_MODEL, parts[i]);
  link_part(folder, schnell ? golden : FK_DEMO_MODEL, "transformer");
  link_part(folder, schnell ? golden : FK_DEMO_MODEL, "scheduler");
  g_file_get_contents(index, &text, NULL, &error);
  g_assert_no_error(error);
  char **halves = g_strsplit(text, "FluxKontextPipeline", 2);
  g_autofree char *changed = g_strjoinv("FluxPipeline", halves);
  g_strfreev(halves);
  g_file_set_contents(copy, changed, -1, &error);
  g_assert_no_error(error);
  return folder;
}

static void remove_model(const char *folder) {
  g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
  for (const char *name; (name = g_dir_read_name(dir));) {
    g_autofree char *path = g_build_filename(folder, name, NULL);
    g_assert_cmpint(unlink(path), ==, 0);
  }
  g_assert_cmpint(rmdir(folder), ==, 0);
}

static FkEngine *open_model(const char *folder) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "model-path", folder, NULL);
  fk_options_set(options, "backend", "cpu", NULL);
  FkEngine *engine = fk_engine_open(options, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  return engine;
}

static bool generate(FkEngine *engine, const char *steps, const char *guidance, const char *task, uint8_t *pixels,
                     FkResult *result, GError **error) {
  g_autoptr(FkSettings) s = fk_settings_new();
  g_autofree uint8_t *in = g_malloc(WIDTH * HEIGHT * 3);
  memset(in, 77, WIDTH * HEIGHT * 3);
  fk_settings_set(s, "prompt", "a red square on a table", NULL);
  fk_settings_set(s, "seed", "7", NULL);
  fk_settings_set(s, "steps", steps, NULL);
  fk_settings_set(s, "guidance", guidance, NULL);
  fk_settings_set(s, "task", task, NULL);
  fk_settings_set(s, "max-area", "6144", NULL);
  FkJob job = {.in = {in, WIDTH, HEIGHT, 3, WIDTH * 3}, .out = {pixels, WIDTH, HEIGHT, 3, WIDTH * 3}, .settings = s};
  const bool ok = fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, error);
  if (result) *result = job.result;
  return ok;
}

/* A picture that the generator wrote; within 1 of 255 of ours: both round once. */
static void reference(gconstpointer data) {
  const bool schnell = data != NULL;
  g_autofree char *folder = make_model(schnell);
  g_autofree char *path = g_build_filename(FK_TEST_DATA, "generate", schnell ? "schnell.png" : "dev.png", NULL);
  uint8_t have[WIDTH * HEIGHT * 3], want[WIDTH * HEIGHT * 3];
  png_image png = {.version = PNG_IMAGE_VERSION};
  g_assert_true(png_image_begin_read_from_file(&png, path));
  png.format = PNG_FORMAT_RGB;
  g_assert_true(png.width == WIDTH && png.height == HEIGHT);
  g_assert_true(png_image_finish_read(&png, NULL, want, 0, NULL));
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) engine = open_model(folder);
  FkResult r;
  generate(engine, schnell ? "4" : "6", schnell ? "0" : "3.5", "generate", have, &r, &error);
  g_assert_no_error(error);
  g_assert_cmpint(r.evaluations, ==, schnell ? 4 : 6);
  int worst = 0;
  for (int i = 0; i < WIDTH * HEIGHT * 3; i++) worst = MAX(worst, abs(have[i] - want[i]));
  g_test_message("largest difference %d", worst);
  g_assert_cmpint(worst, <=, 1);
  remove_model(folder);
}

/* A model without a context cannot edit; the frame's pixels do not count when it generates. */
static void edit_refused(void) {
  g_autofree char *folder = make_model(true);
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) engine = open_model(folder);
  uint8_t pixels[WIDTH * HEIGHT * 3];
  g_assert_false(generate(engine, "1", "0", "edit", pixels, NULL, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
  g_assert_nonnull(strstr(error->message, "task=generate"));
  remove_model(folder);
}

/* 256 text tokens, no guidance input, an even ladder. */
static void published_schnell(void) {
  FkConfig c;
  g_assert_true(fk_config_preset(&c, "schnell"));
  g_assert_true(c.pipeline == FK_PIPELINE_FLUX && c.t5.max_tokens == 256 && !c.flux.guidance_embeds);
  FkSchedule *s = fk_schedule_build(FK_SCHEDULER_EULER, FK_SIGMAS_FLOW, 4, 4096, &c.scheduler);
  for (int i = 0; i <= 4; i++) g_assert_cmpfloat(s->sigmas[i], ==, 1 - 0.25f * (float)i);
  fk_schedule_free(s);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_data_func("/generate/schnell", "", reference);
  g_test_add_data_func("/generate/dev", NULL, reference);
  g_test_add_func("/generate/edit-refused", edit_refused);
  g_test_add_func("/generate/published-schnell", published_schnell);
  return g_test_run();
}
