/* SPDX-License-Identifier: Apache-2.0 */
/* Which parts of the model are in memory at a time; see placement.h. What a placement needs is known before anything is
 * allocated: sizes of parts (model.c) and the plan of the edit. Not here: parts that come and go (fk_model_bring). */
#include "placement.h"

#include "fk.h"

#include <string.h>

/* Bytes with the parts placed so. */
static uint64_t need(const FkEngine *e, bool swaps, size_t work) {
  FkBudget b = fk_budget_of(e->model, e->be, work);
  b.weights = fk_model_resident_bytes(e->model, swaps);
  return (uint64_t)b.weights + b.cache + b.work + b.fixed;
}

static uint64_t limit_of(const FkEngine *e, uint64_t limit) {
  size_t free_bytes = 0, total = 0;
  e->be->ops->memory(e->be, &free_bytes, &total);
  return limit ? MIN(limit, total) : total;
}

void fk_placement_suggest(const FkEngine *e, size_t work, uint64_t limit, GError **error) {
  static const char *const tries[][4] = {{"offload", "model", NULL, NULL},
                                         {"quantization", "fp8", NULL, NULL},
                                         {"quantization", "fp8", "offload", "model"}};
  g_autoptr(GString) s = g_string_new(NULL);
  const char *path = e->model->path ? e->model->path : fk_options_get(e->options, "model-path");
  g_autoptr(FkSettings) settings = fk_settings_new();
  for (size_t i = 0; i < G_N_ELEMENTS(tries); i++) {
    g_autoptr(FkOptions) options = fk_options_copy(e->options);
    FkPlan p;
    bool model = e->plan.offload == FK_OFFLOAD_MODEL, ok = !e->model->pack;
    for (int k = 0; ok && k < 4 && tries[i][k]; k += 2) {
      ok = fk_options_set(options, tries[i][k], tries[i][k + 1], NULL);
      model |= !strcmp(tries[i][k], "offload");
    }
    if (!ok ||
        !fk_plan(path ? path : "kontext-dev", options, settings, 64, 64, e->be->dtype == FK_F32 ? 4 : 2, &p, NULL))
      continue;
    const double bytes =
        (model ? p.resident_bytes : p.weight_bytes) + p.cache_bytes + (double)work + (double)e->be->fixed_bytes;
    if (bytes > (double)limit_of(e, limit)) continue;
    g_string_append_printf(s, "%s%s=%s", s->len ? ", or " : "", tries[i][0], tries[i][1]);
    if (tries[i][2]) g_string_append_printf(s, " %s=%s", tries[i][2], tries[i][3]);
    g_string_append_printf(s, " (%.0f bytes)", bytes);
  }
  if (s->len && error && *error) {
    g_autofree char *text = g_strconcat((*error)->message, "; what fits: ", s->str, NULL);
    g_free((*error)->message);
    (*error)->message = g_steal_pointer(&text);
  }
}

FkBudget fk_placement_choose(FkEngine *e, size_t work, uint64_t limit) {
  FkModel *m = e->model;
  const uint64_t most = limit_of(e, limit);
  const bool swaps = e->plan.offload == FK_OFFLOAD_MODEL ||
                     (e->plan.offload < 0 && need(e, false, work) > most && need(e, true, work) <= most);
  if (swaps && !m->swaps) {
    m->swaps = true;
    g_mutex_lock(&e->lock);
    e->swaps = true;
    g_mutex_unlock(&e->lock);
    fk_backend_sync(e->be); /* nothing is under way; what goes is not used when it goes */
    if (m->loaded) fk_model_release_part(m, FK_PART_CLIP);
    if (m->loaded) fk_model_release_part(m, FK_PART_T5);
  }
  return fk_budget_of(m, e->be, work);
}
