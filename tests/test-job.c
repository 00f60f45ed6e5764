/* SPDX-License-Identifier: Apache-2.0 */
/* What a failure of the backend becomes for the caller: its kind, and whether the process can go on. */
#include "job.h"
#include "test-files.h"

static void failures(void) {
  static const struct {
    FkFailure failure;
    bool dead;
    FkError code;
  } cases[] = {{FK_FAIL_MEMORY, false, FK_ERROR_MEMORY},
               {FK_FAIL_DEVICE, false, FK_ERROR_DEVICE},
               {FK_FAIL_NONFINITE, false, FK_ERROR_NONFINITE},
               {FK_FAIL_UNSUPPORTED, false, FK_ERROR_BACKEND_MISSING},
               /* Whatever failed first, a lost device is lost. */
               {FK_FAIL_MEMORY, true, FK_ERROR_DEVICE_LOST},
               {FK_FAIL_DEVICE, true, FK_ERROR_DEVICE_LOST},
               {FK_FAIL_NONFINITE, true, FK_ERROR_DEVICE_LOST},
               {FK_FAIL_UNSUPPORTED, true, FK_ERROR_DEVICE_LOST}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    char message[256] = "";
    FkFailure failure;
    g_autoptr(GError) error = NULL;
    FkBackend *be = fk_backend_open("null", 0, 0, &failure, message, sizeof message);
    g_assert_true(fk_job_sync(be, &error));
    fk_backend_fail(be, cases[i].failure, "the %s", "reason");
    be->dead = cases[i].dead;
    g_assert_false(fk_job_sync(be, &error));
    assert_error(error, (int)cases[i].code, "the reason", cases[i].failure == FK_FAIL_NONFINITE ? "NaN" : "");
    fk_backend_close(be);
  }
}

static void cancelled(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  g_assert_false(fk_job_cancelled(NULL, &error));
  g_assert_false(fk_job_cancelled(cancellable, &error));
  g_assert_no_error(error);
  g_cancellable_cancel(cancellable);
  g_assert_true(fk_job_cancelled(cancellable, NULL));
  g_assert_true(fk_job_cancelled(cancellable, &error));
  assert_error(error, FK_ERROR_CANCELLED, "cancelled", "");
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/job/failures", failures);
  g_test_add_func("/job/cancelled", cancelled);
  return g_test_run();
}
