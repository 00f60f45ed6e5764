/* SPDX-License-Identifier: Apache-2.0 */
/* Which parts of the model are in memory at a time; see placement.h. What a placement needs is known before anything is
 * allocated: sizes of parts (model.c) and the plan of the edit. Not here: parts that come and go (fk_model_bring). */
#include "placement.h"

#include "fk.h"

#include <string.h>

/* Of the ring: one copy is under way while another block waits, and a third is used. */
enum { SLOTS = 3 };

static FkStore *store_of(const FkModel *m, FkPart part) {
  return fk_binder_store(m->part[part].binder);
}

/* Whether matrices stay as filed where few bytes matter most. */
static bool last_form(const FkModel *m) {
  return m->precision.as_filed || m->other;
}

static FkPlacing smallest(const FkModel *m) {
  return (FkPlacing){.swaps = true,
                     .level = fk_store_levels(store_of(m, FK_PART_FLUX)),
                     .slots = 1,
                     .text_level = fk_store_levels(store_of(m, FK_PART_T5)),
                     .as_filed = last_form(m)};
}

static bool fits_device(const FkModel *m, FkPlacing p, const FkRoom *room) {
  return fk_model_placed_bytes(m, p) <= room->most[p.as_filed];
}

static bool fits(const FkModel *m, FkPlacing p, const FkRoom *room) {
  return fits_device(m, p, room) && fk_model_placed_host_bytes(m, p) <= room->host;
}

/* Without a ring, expanded before as filed. False: neither fits; *p is the last. */
static bool pick_form(const FkModel *m, bool swaps, bool remakes, const FkRoom *room, FkPlacing *p) {
  *p = (FkPlacing){.swaps = swaps, .remakes = remakes, .as_filed = m->other ? false : m->precision.as_filed};
  if (fits(m, *p, room) || !m->other) return fits(m, *p, room);
  p->as_filed = true;
  return fits(m, *p, room);
}

/* As few blocks of T5 and of the transformer as possible, which is least for the host too; *p: what is left where
 * nothing fits. */
static bool pick_ring(const FkModel *m, bool remakes, const FkRoom *room, FkPlacing *p) {
  FkPlacing least = smallest(m);
  least.remakes = remakes;
  *p = least;
  for (p->text_level = 0; p->text_level < least.text_level && !fits_device(m, *p, room);) p->text_level++;
  p->slots = SLOTS;
  for (p->level = 0; p->level < least.level && !fits_device(m, *p, room);) p->level++;
  while (p->slots > 1 && !fits_device(m, *p, room)) p->slots--;
  if (!p->level) p->slots = 0;
  return fits(m, *p, room);
}

/* Parts that change places, and then a ring. */
static bool pick_places(const FkModel *m, int offload, bool streams, bool remakes, const FkRoom *room, FkPlacing *p) {
  if (pick_form(m, true, remakes, room, p)) return true;
  return offload != FK_OFFLOAD_MODEL && streams && pick_ring(m, remakes, room, p);
}

FkPlacing fk_placement_pick(const FkModel *m, int offload, bool streams, const FkRoom *room) {
  const FkRoom device = {{room->most[0], room->most[1]}, UINT64_MAX};
  FkPlacing none, p;
  if (offload <= FK_OFFLOAD_NONE && (pick_form(m, false, false, room, &none) || offload == FK_OFFLOAD_NONE))
    return none;
  if (pick_places(m, offload, streams || offload >= 0, false, room, &p)) return p;
  if (offload < 0 && pick_places(m, offload, streams, true, room, &p)) return p;
  return pick_places(m, offload, streams || offload >= 0, offload < 0, &device, &p) || offload >= 0 ? p : none;
}

/* Where the host's memory is the device's, streaming would take more of it. */
static bool streams(const FkEngine *e) {
  return e->be->ops->stream_copy && e->be->ops != &fk_cpu_ops;
}

size_t fk_placement_least(const FkEngine *e) {
  const FkModel *m = e->model;
  const int offload = e->plan.offload;
  FkPlacing p = smallest(m);
  if (offload == FK_OFFLOAD_NONE) p.swaps = false;
  if (offload == FK_OFFLOAD_NONE || offload == FK_OFFLOAD_MODEL || (offload < 0 && !streams(e)))
    p.level = p.text_level = 0;
  return fk_model_placed_bytes(m, p);
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
                                         {"weight-storage", "file", NULL, NULL},
                                         {"weight-storage", "file", "offload", "model"},
                                         {"weight-storage", "file", "offload", "sequential"},
                                         {"quantization", "fp8", NULL, NULL},
                                         {"quantization", "fp8", "offload", "model"},
                                         {"quantization", "fp8", "offload", "sequential"}};
  g_autoptr(GString) s = g_string_new(NULL);
  const char *path = e->model->path ? e->model->path : fk_options_get(e->options, "model-path");
  g_autoptr(FkSettings) settings = fk_settings_new();
  if (!work) fk_settings_set(settings, "max-area", "4096", NULL); /* no edit is known: the smallest, which needs some */
  for (size_t i = 0; i < G_N_ELEMENTS(tries); i++) {
    const bool form = !strcmp(tries[i][0], "weight-storage");
    if (form && g_strcmp0(fk_options_get(e->options, "weight-storage"), "expanded")) continue; /* no other choice */
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
    if (form && strcmp(p.storage, "file")) continue; /* files have no such forms */
    const double least = work ? (double)work : p.arena_bytes;
    const double bytes = p.placed_bytes + p.cache_bytes + least + (double)e->be->fixed_bytes;
    if (bytes > (double)limit_of(e, limit) || p.host_bytes > (double)fk_placement_host(e)) continue;
    g_string_append_printf(s, "%s%s=%s", s->len ? ", or " : "", tries[i][0], tries[i][1]);
    if (tries[i][2]) g_string_append_printf(s, " %s=%s", tries[i][2], tries[i][3]);
    g_string_append_printf(s, " (%.0f bytes)", bytes);
  }
  if (s->len && error && *error) {
    g_autofree char *text =
        g_strconcat((*error)->message, "; what fits: ", s->str, work ? "" : ", with an edit at 64x64", NULL);
    g_free((*error)->message);
    (*error)->message = g_steal_pointer(&text);
  }
}

/* What a larger edit has made smaller stays so. */
static FkPlacing grown(FkPlacing now, FkPlacing p) {
  p.swaps |= now.swaps;
  p.as_filed |= now.as_filed;
  p.remakes |= now.remakes;
  p.text_level = MAX(p.text_level, now.text_level);
  if (p.level < now.level || (p.level == now.level && p.slots > now.slots)) p.level = now.level, p.slots = now.slots;
  return p;
}

static bool same(FkPlacing a, FkPlacing b) {
  return a.swaps == b.swaps && a.level == b.level && a.slots == b.slots && a.text_level == b.text_level &&
         a.as_filed == b.as_filed && a.remakes == b.remakes;
}

uint64_t fk_placement_host(const FkEngine *e) {
  if (!e->host_memory) return UINT64_MAX;
  return (uint64_t)e->host_memory("").available + fk_model_pinned_bytes(e->model);
}

FkBudget fk_placement_choose(FkEngine *e, const FkWork *work, uint64_t limit) {
  FkModel *m = e->model;
  FkRoom room = {.host = fk_placement_host(e)};
  const uint64_t all = limit_of(e, limit);
  for (int i = 0; i < 2; i++) {
    const FkBudget b = fk_budget_of(m, e->be, work->bytes[i]);
    const uint64_t others = (uint64_t)b.cache + b.work + b.fixed + fk_masking_used(&e->masks);
    room.most[i] = all > others ? all - others : 0;
  }
  const FkPlacing now = fk_model_placing(m), p = grown(now, fk_placement_pick(m, e->plan.offload, streams(e), &room));
  if (!same(p, now)) {
    fk_backend_sync(e->be); /* nothing is under way; what goes is not used when it goes */
    fk_model_place(m, p);
  }
  g_mutex_lock(&e->lock);
  e->placing = fk_model_placing(m);
  e->changed = fk_model_changed(m);
  g_mutex_unlock(&e->lock);
  FkBudget budget = fk_budget_of(m, e->be, work->bytes[m->precision.as_filed]);
  budget.masks = e->masks.bytes;
  if (fk_budget_bytes(&budget) > all) fk_masking_clear(&e->masks, e->be); /* what is kept for later goes first */
  budget.masks = e->masks.bytes;
  return budget;
}
