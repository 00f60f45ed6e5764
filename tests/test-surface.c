/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures in device memory: which engines take them, where, and what the others say. */
#include "engine.h"
#include "test-files.h"

enum { SIDE = 32, ROW = SIDE * 3 };

static FkEngine *open_engine(const char *backend) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "backend", backend, NULL);
  if (!strcmp(backend, "cpu")) fk_options_set(options, "model-path", FK_DEMO_MODEL, NULL);
  FkEngine *engine = fk_engine_new(options, &error);
  g_assert_no_error(error);
  return engine;
}

/* One picture of a job at a time lies where it is not taken. */
static void refused(void) {
  static const char *const backends[] = {"cpu", "null"};
  static const char *const names[] = {"input image", "result image", "mask", "reference 1", "input image"};
  static uint8_t in[SIDE * ROW], out[SIDE * ROW], mask[SIDE * SIDE];
  static const FkPlanes planes;
  for (int b = 0; b < 2; b++) {
    g_autoptr(FkEngine) engine = open_engine(backends[b]);
    g_autoptr(FkSettings) settings = fk_settings_new();
    int ordinal = -5;
    void *context = &ordinal;
    g_assert_false(fk_engine_device(engine, &ordinal, &context));
    g_assert_true(ordinal == -5 && context == &ordinal);
    for (int i = 0; i < 5; i++) {
      g_autoptr(GError) error = NULL, manifest = NULL;
      FkImage given = {mask, SIDE, SIDE, 1, SIDE}, references[2] = {{in, SIDE, SIDE, 3, ROW}, {in, SIDE, SIDE, 3, ROW}};
      FkJob job = {.in = references[0], .out = {out, SIDE, SIDE, 3, ROW}, .settings = settings};
      job.mask = &given;
      job.references = references;
      job.n_references = 2;
      FkImage *const image[] = {&job.in, &job.out, &given, &references[1], &job.in};
      image[i]->memory = i < 4 ? FK_MEMORY_DEVICE : FK_MEMORY_HOST;
      if (i == 4) job.in.planes = &planes;
      g_autofree char *what = g_strdup_printf("frame 0: %s: expected pixels in host memory, found %s", names[i],
                                              i == 4 ? "planes" : "device memory");
      g_assert_false(fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error));
      assert_error(error, FK_ERROR_OPTION_BAD, what, i == 2 ? "" : fk_engine_machine(engine));
      g_assert_null(fk_manifest(engine, &job, &manifest));
      assert_error(manifest, FK_ERROR_OPTION_BAD, what, "");
    }
  }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/surface/refused", refused);
  return g_test_run();
}
