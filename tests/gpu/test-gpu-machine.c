/* SPDX-License-Identifier: Apache-2.0 */
/* A GPU without a model: its name, memory and rates, and the end of the list of devices. */
#include "fk.h"

#include <string.h>

static void rates(void) {
  g_autoptr(GError) error = NULL;
  FkMachine m;
  if (!fk_machine("cuda", -1, true, &m, &error)) {
    g_assert_true(g_error_matches(error, FK_ERROR, FK_ERROR_BACKEND_MISSING));
    g_test_skip(error->message);
    return;
  }
  g_test_message("%s: %.0f of %.0f MB free, %.0f TFLOP/s, %.2f TB/s", m.name, (double)m.free_bytes / 1e6,
                 (double)m.total_bytes / 1e6, m.tflops, m.tbs);
  g_assert_cmpuint(strlen(m.name), >, 0);
  g_assert_cmpuint(m.free_bytes, <=, m.total_bytes);
  g_assert_cmpfloat(m.tbs, >, 0);
  g_assert_cmpfloat(m.tflops, >, m.tbs); /* a large product computes more than it moves */
}

static void last(void) {
  g_autoptr(GError) error = NULL;
  FkMachine m;
  g_assert_false(fk_machine("cuda", 1000, false, &m, &error));
  g_assert_true(g_error_matches(error, FK_ERROR, FK_ERROR_BACKEND_MISSING));
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/gpu-machine/rates", rates);
  g_test_add_func("/gpu-machine/last-device", last);
  return g_test_run();
}
