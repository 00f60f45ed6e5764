/* SPDX-License-Identifier: Apache-2.0 */
/* Limits of device memory; see budget.h. Not here: how much work memory an edit needs (plan.c). */
#include "budget.h"

#include "fk.h"
#include "prompt.h"

FkBudget fk_budget_of(const FkModel *m, const FkBackend *be, size_t work) {
  return (FkBudget){.weights = fk_model_placed_bytes(m, fk_model_placing(m)),
                    .cache = fk_prompt_cache_bytes(m, be),
                    .operands = fk_model_missing_operands(m),
                    .work = work,
                    .fixed = be->fixed_bytes,
                    .host = fk_model_host_bytes(m),
                    .kept = fk_model_keeps(m)};
}

/* need > have. The parts, and whether another edit would help. */
static bool refuse(const FkBudget *b, const char *what, const char *against, uint64_t need, uint64_t have,
                   GError **error) {
  const char *help = !b->work                ? ""
                     : need - b->work < have ? "; a smaller max-area or vae-tiling=on makes the work memory smaller"
                                             : "; no setting of an edit makes it fit";
  g_autofree char *masks = b->masks ? g_strdup_printf(", masks %zu", b->masks) : g_strdup("");
  g_set_error(error, FK_ERROR, FK_ERROR_MEMORY,
              "%s needs %" G_GUINT64_FORMAT " bytes of device memory, and %s %" G_GUINT64_FORMAT
              " bytes (weights %zu, prompt cache %zu, work memory %zu, kernels %zu%s)%s",
              what, need, against, have, b->weights, b->cache, b->work, b->fixed, masks, help);
  return false;
}

uint64_t fk_budget_bytes(const FkBudget *b) {
  return (uint64_t)b->weights + b->cache + b->work + b->fixed + b->masks;
}

bool fk_budget_within(const FkBudget *b, uint64_t limit, const char *what, GError **error) {
  const uint64_t need = fk_budget_bytes(b);
  return !limit || need <= limit || refuse(b, what, "max-vram is", need, limit, error);
}

bool fk_budget_host(const FkBudget *b, uint64_t available, const char *what, GError **error) {
  if (b->host <= available) return true;
  g_set_error(
      error, FK_ERROR, FK_ERROR_MEMORY,
      "%s needs %zu bytes of host memory for copies of weights that leave the device, and there are "
      "%" G_GUINT64_FORMAT " bytes (available, and within the limits of control groups)%s",
      what, b->host, available,
      b->kept ? "; a file of fluxkontext-pack with the same quantization needs less: its codes are not made anew" : "");
  return false;
}

/* Memory of a host can be made free by the system (page cache, swap), so there what counts is how much there is at all;
 * memory of a device is free or it is not. */
bool fk_budget_available(const FkBudget *b, FkBackend *be, bool loaded, size_t held, const char *what, GError **error) {
  size_t free_bytes = 0, total = 0;
  const uint64_t need = (loaded ? b->operands : (uint64_t)b->weights + b->cache) + b->work;
  be->ops->memory(be, &free_bytes, &total);
  if (be->ops == &fk_cpu_ops)
    return need + b->host <= total || refuse(b, what, "all there is are", need + b->host, total, error);
  return need <= (uint64_t)free_bytes + held || refuse(b, what, "free are", need, (uint64_t)free_bytes + held, error);
}
