/* SPDX-License-Identifier: Apache-2.0 */
/* A device without a model: its name and memory, its rates where they are asked for, and errors that say what is
 * missing. */
#include "fk.h"
#include "test-files.h"

static void cpu(void) {
  g_autoptr(GError) error = NULL;
  FkMachine m;
  g_assert_true(fk_machine("cpu", 0, false, &m, &error));
  g_assert_no_error(error);
  g_assert_true(g_str_has_prefix(m.name, "cpu ("));
  g_assert_cmpuint(m.total_bytes, >, 0);
  g_assert_cmpuint(m.free_bytes, <=, m.total_bytes);
  g_assert_cmpfloat(m.tflops, ==, 0);
  g_assert_cmpfloat(m.tbs, ==, 0);
}

/* Whatever the machine, a product computes more than it moves. Neighbours take from a rate and never add to it, so it
 * is the best of several rounds that are compared. */
static void rates(void) {
  double tflops = 0, tbs = 0;
  for (int round = 0; round < 12 && (!round || tflops <= tbs); round++) {
    g_autoptr(GError) error = NULL;
    FkMachine m;
    g_assert_true(fk_machine("cpu", 0, true, &m, &error));
    g_assert_no_error(error);
    g_test_message("%s: %.3f TFLOP/s, %.4f TB/s", m.name, m.tflops, m.tbs);
    g_assert_cmpfloat(m.tbs, >, 0);
    g_assert_cmpfloat(m.tflops, >, 0);
    tflops = MAX(tflops, m.tflops);
    tbs = MAX(tbs, m.tbs);
  }
  g_assert_cmpfloat(tflops, >, tbs);
}

static void missing(void) {
  g_autoptr(GError) error = NULL;
  FkMachine m;
  g_assert_false(fk_machine("abacus", 0, true, &m, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "abacus", "cpu or cuda");
  g_clear_error(&error);
  g_assert_false(fk_machine("null", 0, true, &m, &error)); /* it computes nothing */
  assert_error(error, FK_ERROR_OPTION_BAD, "null", "");
  g_clear_error(&error);
  g_setenv("FK_CUDA_MODULE", "/nowhere/fkcuda.so", TRUE);
  g_assert_false(fk_machine("cuda", 0, true, &m, &error));
  assert_error(error, FK_ERROR_BACKEND_MISSING, "/nowhere/fkcuda.so", "");
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/machine/cpu", cpu);
  g_test_add_func("/machine/rates", rates);
  g_test_add_func("/machine/missing", missing);
  return g_test_run();
}
