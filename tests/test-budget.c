/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that cannot be had is refused with what is needed, what there is, and what would help. */
#include "budget.h"
#include "test-files.h"

static size_t free_bytes, total_bytes;

static void memory(FkBackend *be, size_t *out_free, size_t *out_total) {
  (void)be;
  *out_free = free_bytes;
  *out_total = total_bytes;
}

static const FkBudget budget = {.weights = 1000, .cache = 100, .work = 50, .fixed = 7};

static void limit(void) {
  g_autoptr(GError) error = NULL;
  const FkBudget model = {.weights = 1000, .cache = 100, .fixed = 7};
  g_assert_true(fk_budget_within(&budget, 0, "an edit", &error));
  g_assert_true(fk_budget_within(&budget, 1157, "an edit", &error));
  g_assert_false(fk_budget_within(&budget, 1156, "an edit", &error));
  assert_error(error, FK_ERROR_MEMORY,
               "an edit needs 1157 bytes of device memory, and max-vram is 1156 bytes (weights 1000, "
               "prompt cache 100, work memory 50, kernels 7)",
               "a smaller max-area");
  g_assert_false(fk_budget_within(&budget, 1107, "an edit", &error));
  assert_error(error, FK_ERROR_MEMORY, "no setting of an edit makes it fit", "");
  g_assert_false(fk_budget_within(&model, 1106, "the model", &error));
  assert_error(error, FK_ERROR_MEMORY, "the model needs 1107", "kernels 7)");
}

/* On a device free memory counts, and what is given back; on a host how much there is. */
static void available(void) {
  char message[256] = "";
  FkFailure failure;
  g_autoptr(GError) error = NULL;
  FkBackend *be = fk_backend_open("null", 0, 0, &failure, message, sizeof message);
  FkOps ops = fk_null_ops;
  ops.memory = memory;
  be->ops = &ops;
  free_bytes = 1150; /* the backend's own 7 are taken already */
  g_assert_true(fk_budget_available(&budget, be, false, 0, "an edit", &error));
  free_bytes = 1149;
  g_assert_false(fk_budget_available(&budget, be, false, 0, "an edit", &error));
  assert_error(error, FK_ERROR_MEMORY, "an edit needs 1150 bytes", "free are 1149");
  g_assert_true(fk_budget_available(&budget, be, false, 1, "an edit", &error));
  g_assert_true(fk_budget_available(&budget, be, true, 0, "an edit", &error));
  free_bytes = 20;
  g_assert_false(fk_budget_available(&budget, be, true, 20, "an edit", &error));
  assert_error(error, FK_ERROR_MEMORY, "an edit needs 50 bytes", "free are 40");
  be->ops = &fk_null_ops;
  fk_backend_close(be);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/budget/limit", limit);
  g_test_add_func("/budget/available", available);
  return g_test_run();
}
