/* SPDX-License-Identifier: Apache-2.0 */
/* What an edit finds in memory when it begins: weights, adapters, work memory; see loading.h. Which parts are in memory
 * at a time is placement.c, bytes of files files/weights-load.c. */
#include "loading.h"

#include "adapters.h"
#include "frames.h"
#include "given.h"
#include "placement.h"
#include "plan.h"
#include "surface.h"

#include <math.h>
#include <string.h>

static bool same_references(const FkFluxReferences *a, const FkFluxReferences *b) {
  const size_t n = (size_t)a->n * sizeof *a->rows;
  return a->n == b->n && a->apart == b->apart && !memcmp(a->rows, b->rows, n) && !memcmp(a->columns, b->columns, n);
}

static uint64_t limit_of(FkEngine *e) {
  g_mutex_lock(&e->lock);
  const uint64_t limit = e->max_vram;
  g_mutex_unlock(&e->lock);
  return limit;
}

static bool same_plan(FkEngine *e, const FkEdit *edit) {
  const FkPlanned *p = &e->planned;
  g_autofree char *surfaces = fk_surface_shape(edit);
  return p->settings && p->n == edit->n && p->width == edit->width && p->height == edit->height &&
         p->masked == edit->masked && e->masks.bytes <= p->masks && p->limit == limit_of(e) &&
         p->exchanges == e->model->exchanges && !strcmp(p->surfaces, surfaces) &&
         same_references(&p->references, &edit->references) && fk_tune_same_memory(&p->tune, edit->tune);
}

/* Work memory of this edit, and whether all that it needs can be had: before the first byte of it is allocated. */
static bool plan_memory(FkEngine *e, const FkEdit *edit, size_t *work, GError **error) {
  FkWork works;
  g_autofree char *what = g_strdup_printf("an edit at %dx%d", edit->width, edit->height);
  const uint64_t limit = limit_of(e);
  e->plans++;
  if (!fk_plan_works(edit, &works, error)) return false;
  for (int i = 0; i < 2; i++) works.bytes[i] = MAX(works.bytes[i], e->arena.size);
  const FkBudget budget = fk_placement_choose(e, &works, limit);
  const FkModel *m = e->model;
  *work = works.bytes[m->precision.as_filed];
  /* Parts that change places: what is there leaves before what is larger comes. Others are there already. */
  const size_t leaves = m->loaded && !m->swaps ? 0 : fk_model_held_bytes(m) + (e->cache.memory ? budget.cache : 0);
  if (fk_budget_within(&budget, limit, what, error) && fk_budget_host(&budget, fk_placement_host(e), what, error) &&
      fk_budget_available(&budget, e->be, m->loaded && !m->swaps, e->arena.size + leaves, what, error))
    return true;
  fk_placement_suggest(e, budget.work, limit, error);
  return false;
}

typedef struct {
  FkProgress progress;
  void *user_data;
} Listener;

static void report_open(int64_t done, int64_t total, void *user_data) {
  const Listener *l = user_data;
  if (l->progress) l->progress("open", done, total, l->user_data);
}

/* Times of opening, and of the last reading of weights. */
static void note_timing(FkEngine *e) {
  const FkOpening *o = &e->opening;
  const double *b = e->be->open_ms;
  FkLoadTimes sum = {0};
  for (int i = 0; i < FK_PARTS; i++) {
    const FkLoadTimes *t = fk_binder_times(e->model->part[i].binder);
    sum.memory_ms += t->memory_ms;
    sum.readers_ms += t->readers_ms;
    sum.buffers_ms += t->buffers_ms;
    sum.end_ms += t->end_ms;
    sum.reading_ms += t->reading_ms;
    sum.checking_ms += t->checking_ms;
    sum.bytes += t->bytes;
    sum.readers = MAX(sum.readers, t->readers);
  }
  GString *s = g_string_new(NULL);
  g_string_append_printf(
      s,
      "backend %.0f ms (module %.0f, driver %.0f, device %.0f, memory %.0f), beside it files %.0f; tensors %.0f, plan "
      "%.0f, weights %.0f",
      o->backend_ms, b[FK_OPEN_MODULE], b[FK_OPEN_DRIVER], b[FK_OPEN_DEVICE], b[FK_OPEN_MEMORY], o->files_ms,
      o->bind_ms, o->plan_ms, o->weights_ms);
  if (o->adapters_ms > 0)
    g_string_append_printf(s, "; last adapters %.0f ms (files %.0f)", o->adapters_ms, e->model->adapters.files_ms);
  g_string_append_printf(s,
                         "; last read %.2f GB: memory %.0f ms, waiting for readers %.0f, for copies %.0f, end %.0f; %d "
                         "readers, together reading %.0f, sums %.0f",
                         (double)sum.bytes / 1e9, sum.memory_ms, sum.readers_ms, sum.buffers_ms, sum.end_ms,
                         sum.readers, sum.reading_ms, sum.checking_ms);
  g_mutex_lock(&e->lock);
  g_free(e->timing);
  e->timing = g_string_free(s, FALSE);
  g_mutex_unlock(&e->lock);
}

/* What weights that stay need of adapters; its time is the exchange's. */
static bool load_operands(FkEngine *e, const FkEdit *edit, GError **error) {
  const gint64 start = g_get_monotonic_time();
  if (!fk_model_missing_operands(e->model)) return true;
  if (!fk_model_load_operands(e->model, edit->cancellable, error)) {
    fk_backend_clear(e->be);
    return false;
  }
  const double ms = (double)(g_get_monotonic_time() - start) / 1000;
  e->opening.adapters_ms += ms;
  for (int i = 0; i < edit->n; i++) edit->jobs[i].result.adapters_ms += ms;
  note_timing(e);
  return true;
}

static bool load(FkEngine *e, const FkEdit *edit, GError **error) {
  Listener listener = {edit->progress, edit->user_data};
  if (e->model->loaded) return load_operands(e, edit, error);
  report_open(0, (int64_t)fk_model_open_bytes(e->model), &listener);
  const gint64 start = g_get_monotonic_time();
  fk_op_range(e->be, "load");
  const bool loaded = fk_model_load(e->model, edit->cancellable, report_open, &listener, error);
  fk_op_range(e->be, NULL);
  if (!loaded) {
    fk_backend_clear(e->be);
    return false;
  }
  e->opening.weights_ms = (double)(g_get_monotonic_time() - start) / 1000;
  note_timing(e);
  if (e->cache.memory) return true; /* parts were bound anew */
  void *cache = e->be->ops->alloc(e->be, fk_prompt_cache_bytes(e->model, e->be));
  fk_prompt_cache_init(&e->cache, e->model, e->be, cache);
  return true;
}

/* What has been made of the list, for reports. */
static void note_adapters(FkEngine *e, const char *list) {
  const FkLoras *loras = e->model->adapters.loras;
  char *text = loras ? fk_loras_text(loras) : g_strdup("none");
  g_mutex_lock(&e->lock);
  g_free(e->adapted);
  g_free(e->adapters);
  e->adapted = g_strdup(list ? list : "");
  e->adapters = text;
  g_mutex_unlock(&e->lock);
}

/* The adapters of this edit into the weights, or to where these come from when they are loaded. Every edit sets its
 * own: users of one engine do not see each other's. */
bool fk_loading_adapt(FkEngine *e, const FkEdit *edit, GError **error) {
  Listener listener = {edit->progress, edit->user_data};
  const gint64 start = g_get_monotonic_time();
  g_autofree char *before = g_strdup(e->model->adapters.identity);
  const bool any = (before && *before) || (edit->tune->loras && *edit->tune->loras);
  bool text_changed;
  if (any) fk_op_range(e->be, "adapters");
  const bool ok =
      fk_adapters_set(e->model, edit->tune->loras, &text_changed, edit->cancellable, report_open, &listener, error);
  if (any) fk_op_range(e->be, NULL);
  if (text_changed) fk_prompt_cache_forget(&e->cache);
  if (!ok) {
    fk_backend_clear(e->be);
    return false;
  }
  const FkLoras *loras = e->model->adapters.loras;
  const bool changed = strcmp(e->model->adapters.identity, before ? before : "");
  if (changed) e->opening.adapters_ms = (double)(g_get_monotonic_time() - start) / 1000;
  if (changed && e->model->loaded) note_timing(e);
  if (changed || !e->adapted || g_strcmp0(e->adapted, edit->tune->loras)) note_adapters(e, edit->tune->loras);
  for (int i = 0; i < edit->n; i++) {
    edit->jobs[i].result.unmatched = loras ? fk_loras_unmatched(loras) : 0;
    if (changed) edit->jobs[i].result.adapters_ms = (double)(g_get_monotonic_time() - start) / 1000.0;
  }
  return true;
}

/* Work memory for an edit that was planned. Captured graphs name addresses in the old one, and ops of the old plan. */
static bool open_memory(FkEngine *e, const FkEdit *edit, size_t work, GError **error) {
  FkPlanned *p = &e->planned;
  if (e->be->ops->graph_forget) e->be->ops->graph_forget(e->be);
  g_clear_pointer(&p->settings, fk_settings_free);
  g_clear_pointer(&p->surfaces, g_free);
  if (e->arena.size < work) {
    fk_arena_close(&e->arena);
    if (!fk_arena_open(&e->arena, e->be, work)) {
      g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "an edit at %dx%d: %zu bytes of work memory were refused",
                  edit->width, edit->height, work);
      return false;
    }
  }
  *p = (FkPlanned){fk_settings_copy(edit->jobs[0].settings),
                   *edit->tune,
                   edit->n,
                   edit->width,
                   edit->height,
                   edit->masked,
                   edit->references,
                   fk_surface_shape(edit),
                   e->masks.bytes,
                   limit_of(e),
                   e->model->exchanges};
  return true;
}

/* Weights and work memory for this edit: at once where an edit like it has run before. */
bool fk_loading_prepare(FkEngine *e, const FkEdit *edit, GError **error) {
  size_t work;
  if (e->model->loaded && same_plan(e, edit)) return true;
  return plan_memory(e, edit, &work, error) && load(e, edit, error) && open_memory(e, edit, work, error);
}

/* An edit at the model's own area, for its memory. */
bool fk_loading_first(FkEngine *e, FkEdit *edit, GError **error) {
  const FkTune *t = edit->tune;
  const double area = t->max_area ? t->max_area : (double)fk_model_area(e->model);
  const int side = MAX(FK_SIZE_MULTIPLE, (int)sqrt(area) / FK_SIZE_MULTIPLE * FK_SIZE_MULTIPLE);
  size_t work;
  FkFrameSize size;
  if (e->model->loaded) return true;
  if (!fk_frames_size(e->model, t, side, side, &size, error) || !fk_given_foresee(edit, side, side, &size, error))
    return false;
  edit->width = size.width;
  edit->height = size.height;
  fk_tune_apply(t, e->be);
  if (!fk_loading_adapt(e, edit, error)) return false;
  const gint64 start = g_get_monotonic_time();
  if (!plan_memory(e, edit, &work, error)) return false;
  e->opening.plan_ms = (double)(g_get_monotonic_time() - start) / 1000;
  return load(e, edit, error);
}

/* FkEdit.bring. Recordings name the addresses of weights that go. */
bool fk_loading_bring(void *owner, bool text, GCancellable *cancellable, GError **error) {
  FkEngine *e = owner;
  if (e->model->part[text ? FK_PART_T5 : FK_PART_VAE].loaded) return true; /* the last of them to come */
  if (e->be->ops->graph_forget) e->be->ops->graph_forget(e->be);
  return fk_model_bring(e->model, text, cancellable, error);
}
