/* SPDX-License-Identifier: Apache-2.0 */
/* The backend is opened while files are read: whichever fails, one error, the backend's first; and nothing is left. */
#include "test-files.h"

static void both_fail(void) {
  static const struct {
    const char *backend;
    bool broken;
    int code;
    const char *says;
  } cases[] = {{"cuda", false, FK_ERROR_BACKEND_MISSING, "/nowhere/fkcuda.so"},
               {"cuda", true, FK_ERROR_BACKEND_MISSING, "/nowhere/fkcuda.so"},
               {"cpu", true, FK_ERROR_MODEL_BAD, "safetensors"},
               {"auto", true, FK_ERROR_MODEL_BAD, "safetensors"}};
  g_autofree char *bad = write_text("bad", "no model");
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(FkOptions) options = fk_options_new();
    g_autoptr(GError) error = NULL;
    fk_options_set(options, "model-path", cases[i].broken ? bad : FK_DEMO_MODEL, NULL);
    fk_options_set(options, "backend", cases[i].backend, NULL);
    g_assert_null(fk_engine_new(options, &error));
    assert_error(error, cases[i].code, cases[i].says, "");
  }
}

/* The CPU where there is no GPU; the times of both sides are told. */
static void automatic(void) {
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(GError) error = NULL;
  fk_options_set(options, "model-path", FK_DEMO_MODEL, NULL);
  fk_options_set(options, "backend", "auto", NULL);
  g_autoptr(FkEngine) engine = fk_engine_open(options, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_assert_true(g_str_has_prefix(fk_engine_machine(engine), "cpu ("));
  g_autofree char *timing = fk_engine_timing(engine);
  g_test_message("%s", timing);
  g_assert_nonnull(strstr(timing, "beside it files "));
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_setenv("FK_CUDA_MODULE", "/nowhere/fkcuda.so", TRUE);
  scratch_open();
  g_test_add_func("/opening/both-fail", both_fail);
  g_test_add_func("/opening/automatic", automatic);
  const int status = g_test_run();
  scratch_close();
  return status;
}
