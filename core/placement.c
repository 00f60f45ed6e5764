/* SPDX-License-Identifier: Apache-2.0 */
/* Which parts of the model are in memory at a time; see placement.h. What a placement needs is known before anything is
 * allocated: sizes of parts (model.c) and the plan of the edit. Not here: parts that come and go (fk_model_bring). */
#include "placement.h"

#include "fk.h"

#include <string.h>

/* Of the ring: one copy is under way while another block waits, and a third is used. */
enum { SLOTS = 3 };

static FkPlacing smallest(const FkModel *m) {
  return (FkPlacing){true, fk_store_levels(fk_binder_store(m->part[FK_PART_FLUX].binder)), 1};
}

FkPlacing fk_placement_pick(const FkModel *m, int offload, bool streams, uint64_t most) {
  const FkPlacing none = {0}, model = {.swaps = true}, least = smallest(m);
  if (offload == FK_OFFLOAD_NONE || (offload < 0 && fk_model_placed_bytes(m, none) <= most)) return none;
  if (offload == FK_OFFLOAD_MODEL || fk_model_placed_bytes(m, model) <= most) return model;
  if (offload < 0 && !streams) return none;
  for (int level = 1; level <= least.level; level++) {
    const FkPlacing p = {true, level, SLOTS};
    if (fk_model_placed_bytes(m, p) <= most) return p;
  }
  for (int slots = SLOTS - 1; slots > 0; slots--) {
    const FkPlacing p = {true, least.level, slots};
    if (fk_model_placed_bytes(m, p) <= most) return p;
  }
  return offload < 0 ? none : least;
}

/* Where the host's memory is the device's, streaming would take more of it. */
static bool streams(const FkEngine *e) {
  return e->be->ops->stream_copy && e->be->ops != &fk_cpu_ops;
}

size_t fk_placement_least(const FkEngine *e) {
  const FkModel *m = e->model;
  const int offload = e->plan.offload;
  if (offload == FK_OFFLOAD_NONE) return fk_model_weight_bytes(m);
  if (offload == FK_OFFLOAD_MODEL || (offload < 0 && !streams(e)))
    return fk_model_placed_bytes(m, (FkPlacing){.swaps = true});
  return fk_model_placed_bytes(m, smallest(m));
}

static uint64_t limit_of(const FkEngine *e, uint64_t limit) {
  size_t free_bytes = 0, total = 0;
  e->be->ops->memory(e->be, &free_bytes, &total);
  return limit ? MIN(limit, total) : total;
}

static uint64_t less_of(uint64_t bytes, uint64_t others) {
  return bytes > others ? bytes - others : 1;
}

void fk_placement_suggest(const FkEngine *e, size_t work, uint64_t limit, GError **error) {
  static const char *const tries[][4] = {{"offload", "model", NULL, NULL},
                                         {"offload", "sequential", NULL, NULL},
                                         {"quantization", "fp8", NULL, NULL},
                                         {"quantization", "fp8", "offload", "model"},
                                         {"quantization", "fp8", "offload", "sequential"}};
  g_autoptr(GString) s = g_string_new(NULL);
  const char *path = e->model->path ? e->model->path : fk_options_get(e->options, "model-path");
  g_autoptr(FkSettings) settings = fk_settings_new();
  for (size_t i = 0; i < G_N_ELEMENTS(tries); i++) {
    g_autoptr(FkOptions) options = fk_options_copy(e->options);
    g_autofree char *text =
        g_strdup_printf("%" G_GUINT64_FORMAT, less_of(limit_of(e, limit), work + e->be->fixed_bytes));
    FkPlan p;
    bool ok = !e->model->pack && fk_options_set(options, "max-vram", text, NULL);
    for (int k = 0; ok && k < 4 && tries[i][k]; k += 2)
      ok = fk_options_set(options, tries[i][k], tries[i][k + 1], NULL);
    if (!ok ||
        !fk_plan(path ? path : "kontext-dev", options, settings, 64, 64, e->be->dtype == FK_F32 ? 4 : 2, &p, NULL))
      continue;
    const double bytes = p.placed_bytes + p.cache_bytes + (double)work + (double)e->be->fixed_bytes;
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
  const FkBudget budget = fk_budget_of(m, e->be, work);
  const uint64_t others = (uint64_t)budget.cache + budget.work + budget.fixed, most = limit_of(e, limit);
  const FkPlacing now = fk_model_placing(m);
  FkPlacing p = fk_placement_pick(m, e->plan.offload, streams(e), most > others ? most - others : 0);
  p.swaps |= now.swaps;
  if (p.level < now.level || (p.level == now.level && p.slots > now.slots)) p.level = now.level, p.slots = now.slots;
  if (p.swaps != now.swaps || p.level != now.level || p.slots != now.slots) {
    fk_backend_sync(e->be); /* nothing is under way; what goes is not used when it goes */
    fk_model_place(m, p);
    g_mutex_lock(&e->lock);
    e->placing = fk_model_placing(m);
    g_mutex_unlock(&e->lock);
  }
  return fk_budget_of(m, e->be, work);
}
