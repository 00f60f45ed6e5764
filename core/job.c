/* SPDX-License-Identifier: Apache-2.0 */
/* Stopping, waiting and counting of one running batch; see job.h. */
#include "job.h"

static FkError error_code(const FkBackend *be) {
  if (be->dead) return FK_ERROR_DEVICE_LOST;
  switch (be->failure) {
  case FK_FAIL_MEMORY: return FK_ERROR_MEMORY;
  case FK_FAIL_NONFINITE: return FK_ERROR_NONFINITE;
  case FK_FAIL_UNSUPPORTED: return FK_ERROR_BACKEND_MISSING;
  default: return FK_ERROR_DEVICE;
  }
}

bool fk_job_cancelled(GCancellable *cancellable, GError **error) {
  if (!g_cancellable_is_cancelled(cancellable)) return false;
  g_set_error_literal(error, FK_ERROR, FK_ERROR_CANCELLED, "cancelled");
  return true;
}

bool fk_job_sync(FkBackend *be, GError **error) {
  if (fk_backend_sync(be)) return true;
  g_set_error(error, FK_ERROR, (int)error_code(be), "%s%s", be->message,
              be->failure == FK_FAIL_NONFINITE ? ": NaN or infinity" : "");
  return false;
}

double fk_job_flop(const FkBackend *be) {
  return be->count.linear_flop + be->count.attention_flop + be->count.conv_flop;
}
