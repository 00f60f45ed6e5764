/* SPDX-License-Identifier: Apache-2.0 */
/* The engine: which machine, one shared object per model in the process, loading, the queue of edits, memory.
 * Top level: open, load, queue, memory plan. One edit is in edit.c.
 *
 * Locks: the registry's guards which engines there are; an engine's own guards its queue and its limit. Both are held
 * for a few instructions, never one inside the other and never over work. Work is guarded by `busy`: whoever has the
 * turn owns backend, arena, prompt cache and memory plan until engine_leave, and nobody else touches them.
 * After a failed or cancelled edit the weights, the arena, its plan and the captured graphs stay, because none of them
 * holds an edit's data; entries of the prompt cache that were being filled go (prompt.c), the arena starts over, and
 * the backend's failure is cleared, unless it is dead. The arena grows with the largest edit and is given back with the
 * engine: sizes that alternate would otherwise allocate anew each time. */
#include "engine.h"

#include "budget.h"
#include "calibration.h"
#include "extras.h"
#include "file.h"
#include "frames.h"
#include "given.h"
#include "image.h"
#include "loading.h"
#include "opening.h"
#include "packing.h"
#include "placement.h"
#include "plan.h"
#include "profile.h"
#include "surface.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

GType fk_engine_get_type(void) {
  static gsize type;
  if (g_once_init_enter(&type))
    g_once_init_leave(&type, g_boxed_type_register_static("FkEngine", (GBoxedCopyFunc)fk_engine_ref,
                                                          (GBoxedFreeFunc)fk_engine_unref));
  return type;
}

/* ---- Opening ---- */

/* The folder, or a published configuration's name where the backend needs no files. NULL: an error. */
static const char *model_path(const FkOptions *options, bool null, GError **error) {
  const char *path = fk_options_get(options, "model-path");
  const bool given = path && *path;
  if (!given && null) return "kontext-dev";
  if (given && (null || g_file_test(path, G_FILE_TEST_EXISTS))) return path;
  g_autofree char *shown = given ? fk_shown_path(path) : NULL;
  if (given)
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_MISSING, "model-path %s: no such folder or file", shown);
  else
    g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD, "model-path is not set");
  return NULL;
}

static void engine_free(FkEngine *e) {
  fk_prompt_cache_clear(&e->cache);
  fk_preview_map_clear(&e->previews);
  if (e->be) fk_masking_clear(&e->masks, e->be);
  if (e->be) fk_arena_close(&e->arena);
  fk_model_free(e->model);
  fk_backend_close(e->be);
  fk_settings_free(e->planned.settings);
  g_free(e->planned.surfaces);
  fk_options_free(e->options);
  g_free(e->why);
  g_free(e->files);
  g_free(e->hashes);
  g_free(e->calibration);
  g_free(e->adapted);
  g_free(e->adapters);
  g_free(e->timing);
  g_mutex_clear(&e->lock);
  g_cond_clear(&e->turn);
  g_free(e);
}

static void free_shared(FkShared *shared) {
  engine_free((FkEngine *)shared);
}

static FkPaths option_paths(const FkOptions *o, const char *model) {
  return (FkPaths){model, fk_options_get(o, "vae-path"), fk_options_get(o, "clip-path"), fk_options_get(o, "t5-path"),
                   fk_options_get(o, "tokenizer-path")};
}

/* With its backend, which says what the options come to, and with what the model's files say. */
static FkEngine *engine_create(const FkOptions *options, const char *path, GError **error) {
  const char *name = fk_options_get(options, "backend");
  FkEngine *e = g_new0(FkEngine, 1);
  g_autoptr(GError) unread = NULL;
  FkBackendStart opening;
  e->shared.refs = 1;
  g_mutex_init(&e->lock);
  g_cond_init(&e->turn);
  g_queue_init(&e->waiting);
  fk_backend_start(&opening, options);
  e->options = fk_options_copy(options);
  fk_packing_adopt(e->options, path);
  const FkPaths paths = option_paths(e->options, path);
  const gint64 start = g_get_monotonic_time();
  if (strcmp(name, "null")) e->model = fk_model_read(&paths, &unread);
  e->opening.files_ms = (double)(g_get_monotonic_time() - start) / 1000;
  e->be = fk_backend_started(e, &opening, path, error);
  if (e->be && e->be->ops != &fk_null_ops && e->be->ops != &fk_cpu_ops) e->host_memory = fk_host_memory;
  const bool resolved = e->be && fk_load_resolve(e->options, e->be, &e->plan, error);
  if (resolved && !unread) return e;
  if (resolved) g_propagate_error(error, g_steal_pointer(&unread));
  engine_free(e);
  return NULL;
}

/* Static scales, where the options ask for them and there is a model to have them. */
static bool calibrate(FkEngine *e, GError **error) {
  if (e->plan.quantization != FK_QUANTIZATION_FP8_STATIC || e->plan.backend == FK_ENGINE_NULL) return true;
  return fk_calibration_apply(e->model, e->plan.calibration_path, e->files, e->options, &e->hashes, &e->calibration,
                              error);
}

/* The engine that is the same as `e` in all but the spelling of its options, else `e` with its model. Takes `e`. */
static FkEngine *engine_share(FkEngine *e, const char *path, const char *files, GError **error) {
  g_autofree char *resolved = fk_load_identity(&e->plan), *name = g_strconcat(resolved, files, NULL);
  FkEngine *other = (FkEngine *)fk_registry_find(name);
  if (other) {
    engine_free(e);
    return other;
  }
  e->files = g_strdup(files);
  const FkPaths paths = option_paths(e->options, path);
  const gint64 start = g_get_monotonic_time();
  const bool bound = e->model
                         ? fk_model_begin(e->model, e->be, &e->plan.precision, error)
                         : (e->model = fk_model_open_paths(&paths, e->be, &e->plan.precision, false, error)) != NULL;
  e->opening.bind_ms = (double)(g_get_monotonic_time() - start) / 1000;
  if (bound && calibrate(e, error)) return (FkEngine *)fk_registry_add(&e->shared, name, free_shared);
  engine_free(e);
  return NULL;
}

/* One more user's limit: refused if the engine is above it already, else it holds for everybody, because memory that
 * several share is under the limits of all of them. */
static bool lower_limit(FkEngine *e, const FkOptions *options, GError **error) {
  const uint64_t limit = g_ascii_strtoull(fk_options_get(options, "max-vram"), NULL, 10);
  FkBudget budget = fk_budget_of(e->model, e->be, 0);
  if (!e->model->loaded) budget.weights = fk_placement_least(e);
  if (!limit) return true;
  if (!fk_budget_within(&budget, limit, "the model", error)) {
    fk_placement_suggest(e, 0, limit, error);
    return false;
  }
  g_mutex_lock(&e->lock);
  e->max_vram = e->max_vram ? MIN(e->max_vram, limit) : limit;
  g_mutex_unlock(&e->lock);
  return true;
}

/* A name for the options as they are spelled finds an engine without opening a backend, which takes time, and memory
 * that an engine in use may not have left. */
FkEngine *fk_engine_new(const FkOptions *options, GError **error) {
  g_autofree char *files = fk_registry_files(options), *spelling = fk_load_spelling(options);
  g_autofree char *name = g_strconcat(spelling, files, NULL);
  g_autoptr(FkEngine) e = (FkEngine *)fk_registry_find(name);
  if (!e) {
    const char *path = model_path(options, !strcmp(fk_options_get(options, "backend"), "null"), error);
    FkEngine *created = path ? engine_create(options, path, error) : NULL;
    e = created ? engine_share(created, path, files, error) : NULL;
    if (e) fk_registry_alias(&e->shared, name);
  }
  return e && lower_limit(e, options, error) ? g_steal_pointer(&e) : NULL;
}

FkEngine *fk_engine_ref(FkEngine *e) {
  g_atomic_int_inc(&e->shared.refs);
  return e;
}

void fk_engine_unref(FkEngine *e) {
  if (e && fk_registry_drop(&e->shared)) engine_free(e);
}

const char *fk_engine_machine(FkEngine *e) {
  return e->be->machine;
}

char *fk_engine_timing(FkEngine *e) {
  g_mutex_lock(&e->lock);
  char *text = g_strdup(e->timing ? e->timing : "nothing is loaded");
  g_mutex_unlock(&e->lock);
  return text;
}

bool fk_engine_device(FkEngine *e, int *ordinal, void **context) {
  if (!(e->be->can & FK_CAN_DEVICE_IMAGES)) return false;
  if (ordinal) *ordinal = e->be->device;
  if (context) *context = e->be->ops->context ? e->be->ops->context(e->be) : NULL;
  return true;
}
bool fk_engine_dead(FkEngine *e) {
  return e->be->dead;
}

/* ---- The queue: first come, first served; the head runs ---- */

static void wake(GCancellable *cancellable, gpointer engine) {
  FkEngine *e = engine;
  (void)cancellable;
  g_mutex_lock(&e->lock);
  g_cond_broadcast(&e->turn);
  g_mutex_unlock(&e->lock);
}

static void engine_leave(FkEngine *e) {
  g_mutex_lock(&e->lock);
  e->busy = false;
  g_cond_broadcast(&e->turn);
  g_mutex_unlock(&e->lock);
}

/* Waits for the turn. False, without it: cancelled meanwhile, or the device is lost. */
static bool engine_enter(FkEngine *e, GCancellable *cancellable, GError **error) {
  int mine = 0; /* its address is the ticket */
  const gulong id = cancellable ? g_cancellable_connect(cancellable, G_CALLBACK(wake), e, NULL) : 0;
  g_mutex_lock(&e->lock);
  g_queue_push_tail(&e->waiting, &mine);
  while ((e->busy || g_queue_peek_head(&e->waiting) != &mine) && !g_cancellable_is_cancelled(cancellable))
    g_cond_wait(&e->turn, &e->lock);
  g_queue_remove(&e->waiting, &mine);
  const bool cancelled = fk_job_cancelled(cancellable, error);
  if (!cancelled) e->busy = true;
  g_cond_broadcast(&e->turn);
  g_mutex_unlock(&e->lock);
  if (cancellable) g_cancellable_disconnect(cancellable, id);
  if (cancelled) return false;
  if (!e->be->dead) return true;
  g_set_error_literal(error, FK_ERROR, FK_ERROR_DEVICE_LOST, e->be->message);
  engine_leave(e);
  return false;
}

/* ---- Loading ---- */

bool fk_engine_load_for(FkEngine *e, const FkSettings *settings, GCancellable *cancellable, FkProgress progress,
                        void *user_data, GError **error) {
  g_autoptr(FkSettings) defaults = settings ? NULL : fk_settings_new();
  FkTune tune;
  FkJob job = {.settings = settings ? settings : defaults};
  FkEdit edit = {.model = e->model,
                 .be = e->be,
                 .tune = &tune,
                 .jobs = &job,
                 .n = 1,
                 .cancellable = cancellable,
                 .progress = progress,
                 .user_data = user_data};
  if (!fk_tune_resolve(job.settings, e->be, &tune, error) || !engine_enter(e, cancellable, error)) return false;
  const bool ok = fk_loading_first(e, &edit, error);
  engine_leave(e);
  return ok;
}

bool fk_engine_load(FkEngine *e, GCancellable *cancellable, FkProgress progress, void *user_data, GError **error) {
  return fk_engine_load_for(e, NULL, cancellable, progress, user_data, error);
}

FkEngine *fk_engine_open(const FkOptions *options, GCancellable *cancellable, FkProgress progress, void *user_data,
                         GError **error) {
  g_autoptr(FkEngine) e = fk_engine_new(options, error);
  if (!e || !fk_engine_load(e, cancellable, progress, user_data, error)) return NULL;
  return g_steal_pointer(&e);
}

/* ---- Edits ---- */

static bool write_trace(const struct FkProfile *p, const char *path, GError **error) {
  char *text = NULL;
  size_t bytes = 0;
  FILE *f = open_memstream(&text, &bytes);
  bool ok = f && fk_profile_write_trace(p, f);
  ok = f && fclose(f) == 0 && ok;
  if (!ok)
    g_set_error_literal(error, FK_ERROR, FK_ERROR_MEMORY, "trace-file: out of memory");
  else if (!(ok = fk_file_write(path, text, bytes, error)))
    g_prefix_error(error, "trace-file ");
  free(text);
  return ok;
}

/* The edit with every op timed: graphs are off, so that each op is issued by itself. */
static bool run_profiled(FkEngine *e, FkEdit *edit, struct FkProfile **profile, GError **error) {
  const char *path = edit->tune->trace_file;
  e->be->use &= ~(uint32_t)FK_CAN_GRAPH;
  if (!fk_profile_start(e->be)) {
    g_set_error_literal(error, FK_ERROR, FK_ERROR_MEMORY, "trace: out of memory");
    return false;
  }
  bool ok = fk_edit_run(edit, error);
  struct FkProfile *p = fk_profile_stop(e->be);
  ok = ok && (!path || write_trace(p, path, error));
  if (profile && ok)
    *profile = p;
  else
    free(p);
  return ok;
}

static uint64_t seed_of(const FkJob *job) {
  return g_ascii_strtoull(fk_settings_get(job->settings, "seed"), NULL, 10);
}

static bool run(FkEngine *e, FkEdit *edit, struct FkProfile **profile, GError **error) {
  for (int i = 0; i < edit->n; i++) edit->jobs[i].result = (FkResult){.seed = seed_of(&edit->jobs[i])};
  fk_tune_apply(edit->tune, e->be);
  if (edit->observer && !fk_model_stay_expanded(e->model, error)) return false;
  if (!fk_loading_adapt(e, edit, error) || !fk_loading_prepare(e, edit, error)) return false;
  if (fk_model_placing(e->model).level > 1) e->be->use &= ~(uint32_t)FK_CAN_GRAPH; /* copies are not recorded */
  edit->arena = &e->arena;
  edit->bring = e->model->swaps ? fk_loading_bring : NULL;
  edit->owner = e;
  e->be->observer = edit->observer;
  if (edit->observer) e->be->use &= ~(uint32_t)FK_CAN_GRAPH;
  const bool ok = edit->tune->trace_file || profile ? run_profiled(e, edit, profile, error) : fk_edit_run(edit, error);
  e->be->observer = NULL;
  if (!ok) {
    fk_backend_sync(e->be);
    fk_backend_clear(e->be);
    for (int i = 0; i < FK_PARTS; i++) /* copies may have failed */
      fk_store_settle(fk_binder_store(e->model->part[i].binder));
    e->arena.used = 0;
  }
  return ok;
}

/* What would otherwise be followed before anything is resolved. */
static bool check_call(const FkJob *jobs, int n, GError **error) {
  if (n < 0 || n > FK_FRAMES || !jobs) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%d frames in one edit: expected 0 to %d, and their array", n,
                FK_FRAMES);
    return false;
  }
  for (int i = 0; i < n; i++) {
    if (!jobs[i].settings) {
      g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "frame %d has no settings", i);
      return false;
    }
    if (jobs[i].preview_every < 0) {
      g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "frame %d: preview_every: expected 0 or more, found %d", i,
                  jobs[i].preview_every);
      return false;
    }
  }
  return true;
}

static bool leave_frame(FkEngine *e, const FkJob *job, GError **error) {
  fk_surface_leave(e->be, job);
  const bool ok = fk_job_sync(e->be, error);
  if (!ok) fk_backend_clear(e->be);
  return ok;
}

/* Frames that are fit for it at this size. profile not NULL: every op is timed, and *profile is (transfer full): free.
 */
static bool edit_frames(FkEngine *e, FkEdit *edit, const FkFrameSize *size, struct FkProfile **profile,
                        GError **error) {
  edit->model = e->model;
  edit->be = e->be;
  edit->cache = &e->cache;
  edit->previews = &e->previews;
  edit->width = size->width;
  edit->height = size->height;
  if (!engine_enter(e, edit->cancellable, error)) return false;
  const bool ok = edit->leave ? leave_frame(e, edit->jobs, error) : run(e, edit, profile, error);
  engine_leave(e);
  return ok;
}

/* Unquantised evaluations need the weights that the engine was opened to hold. */
static bool check_precision(const FkEngine *e, const FkTune *t, GError **error) {
  const bool asked = t->precision_first > 0 || t->precision_last > 0;
  if (!asked || e->plan.quantization == FK_QUANTIZATION_NONE || e->plan.twins) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
              "precision-first=%d, precision-last=%d: the model was opened without its unquantised weights; set one of "
              "them as an option too",
              t->precision_first, t->precision_last);
  return false;
}

static bool run_given(void *engine, FkEdit *edit, const FkFrameSize *size, GError **error) {
  return edit_frames(engine, edit, size, NULL, error);
}

static bool prepare_masks(void *engine, const FkEdit *edit, FkExtras *extras, GError **error) {
  FkEngine *e = engine;
  bool ok = true;
  if (!engine_enter(e, edit->cancellable, error)) return false;
  for (int i = 0; ok && i < edit->n; i++)
    ok = !extras[i].origin.image.width || fk_masking_prepare(&e->masks, e->be, edit->tune, &extras[i], error);
  engine_leave(e);
  return ok;
}

bool fk_engine_edit_observed(FkEngine *e, FkObserver *observer, FkJob *jobs, int n, GCancellable *cancellable,
                             FkProgress progress, void *user_data, GError **error) {
  FkTune tune;
  FkFrameSize size;
  FkEdit edit = {.model = e->model,
                 .tune = &tune,
                 .jobs = jobs,
                 .n = n,
                 .cancellable = cancellable,
                 .progress = progress,
                 .user_data = user_data,
                 .observer = observer};
  const FkGivenEngine given = {run_given, prepare_masks, e};
  if (n == 0) return true;
  return check_call(jobs, n, error) && fk_tune_resolve(jobs[0].settings, e->be, &tune, error) &&
         fk_surface_check(e->be, jobs, n, tune.task == FK_TASK_EDIT, error) && check_precision(e, &tune, error) &&
         fk_frames_check(e->model, &tune, jobs, n, &size, error) && fk_given_edit(&edit, &size, &given, error);
}

bool fk_engine_edit(FkEngine *e, FkJob *jobs, int n, GCancellable *cancellable, FkProgress progress, void *user_data,
                    GError **error) {
  return fk_engine_edit_observed(e, NULL, jobs, n, cancellable, progress, user_data, error);
}

bool fk_engine_output_size(FkEngine *e, const FkSettings *settings, int width, int height, int *ow, int *oh,
                           GError **error) {
  FkTune tune;
  FkFrameSize size;
  if (!fk_tune_resolve(settings, e->be, &tune, error) || !fk_frames_size(e->model, &tune, width, height, &size, error))
    return false;
  *ow = size.out_width;
  *oh = size.out_height;
  return true;
}

/* One edit of made-up pixels, which are given at the size at which the model works: resizing is the host's and needs no
 * rehearsal, and a frame of 65535 x 65535 needs no memory. */
static bool rehearse(FkEngine *e, const FkSettings *settings, int width, int height, GCancellable *cancellable,
                     struct FkProfile **profile, GError **error) {
  FkTune tune;
  FkFrameSize size;
  if (!fk_tune_resolve(settings, e->be, &tune, error) ||
      !fk_frames_size(e->model, &tune, width, height, &size, error) || !fk_frames_task(e->model, &tune, error))
    return false;
  FkEdit edit = {.model = e->model, .tune = &tune, .n = 1, .cancellable = cancellable};
  if (!fk_given_foresee(&edit, width, height, &size, error)) return false;
  const size_t stride = (size_t)size.width * 3, bytes = stride * (size_t)size.height;
  g_autofree uint8_t *in = g_try_malloc(bytes), *out = g_try_malloc(bytes);
  if (!in || !out) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "no memory for an image of %dx%d and its result", size.width,
                size.height);
    return false;
  }
  for (size_t i = 0; i < bytes; i++) in[i] = (uint8_t)(i * 37 + i / 977);
  FkJob job = {.in = {in, size.width, size.height, 3, stride},
               .out = {out, size.width, size.height, 3, stride},
               .settings = settings};
  edit.jobs = &job;
  FkExtras extras = {.width = size.width, .height = size.height, .n_references = edit.references.n};
  for (int i = 0; i < extras.n_references; i++) extras.references[i] = job.in;
  edit.extras = &extras;
  return edit_frames(e, &edit, &size, profile, error);
}

bool fk_engine_warmup(FkEngine *e, const FkSettings *settings, int width, int height, GCancellable *cancellable,
                      GError **error) {
  return rehearse(e, settings, width, height, cancellable, NULL, error);
}

/* ---- Reports ---- */

static bool same_row(const FkProfileRow *r, const FkProfileOp *o) {
  return r->m == o->m && r->n == o->n && r->k == o->k && !strcmp(r->op, o->op) && !strcmp(r->stage, o->stage);
}

FkProfileRow *fk_engine_profile(FkEngine *e, const FkSettings *settings, int width, int height, size_t *count,
                                GError **error) {
  struct FkProfile *p = NULL;
  *count = 0;
  if (!rehearse(e, settings, width, height, NULL, &p, error)) return NULL;
  FkProfileRow *rows = g_try_new0(FkProfileRow, (size_t)p->count + 1);
  size_t n = 0, i;
  for (int k = 0; rows && k < p->count; k++) {
    const FkProfileOp *o = &p->op[k];
    for (i = 0; i < n && !same_row(&rows[i], o); i++) continue;
    if (i == n) rows[n++] = (FkProfileRow){.stage = o->stage, .op = o->op, .m = o->m, .n = o->n, .k = o->k};
    rows[i].count += k < FK_PROFILE_MAX ? 1 : p->dropped; /* the row behind the last is what was dropped */
    rows[i].ms += o->ms;
    rows[i].flop += o->flop;
    rows[i].bytes += o->bytes;
  }
  if (!rows) g_set_error_literal(error, FK_ERROR, FK_ERROR_MEMORY, "no memory for the rows of a profile");
  free(p);
  *count = n;
  return rows;
}

/* (transfer full) */
static char *report_list(FkEngine *e, const FkSettings *settings) {
  const char *asked = fk_settings_get(settings, "loras");
  if (!asked || !*asked) return g_strdup("none (none asked for)");
  g_mutex_lock(&e->lock);
  char *text = e->adapted && !strcmp(e->adapted, asked) ? g_strdup(e->adapters) : NULL;
  const int changed = e->changed;
  g_mutex_unlock(&e->lock);
  if (text && changed) {
    char *more =
        g_strdup_printf("%s; added at each use to %d tensors that stay as their files have them", text, changed);
    g_free(text);
    return more;
  }
  return text ? text : g_strdup("not in the weights yet: the next edit reads them in");
}

/* With what a packed model has merged. (transfer full) */
static char *report_adapters(FkEngine *e, const FkSettings *settings) {
  g_autofree char *list = report_list(e, settings);
  const char *merged = e->model->pack ? fk_pack_text(e->model->pack, "adapters") : "";
  g_autofree char *shown = *merged ? fk_shown_name(merged) : NULL;
  return shown ? g_strdup_printf("%s; merged in the packed model: %s", list, shown) : g_steal_pointer(&list);
}

char **fk_engine_active(FkEngine *e, const FkSettings *settings) {
  FkLoadPlan plan = e->plan;
  g_mutex_lock(&e->lock);
  if (e->placing.swaps && plan.offload < 0) plan.offload = FK_OFFLOAD_MODEL;
  if (e->placing.level || e->placing.text_level) plan.offload = FK_OFFLOAD_SEQUENTIAL;
  if (plan.storage < 0) plan.storage = e->placing.as_filed ? FK_STORAGE_FILE : FK_STORAGE_EXPANDED;
  plan.has_forms = e->model->has_forms;
  plan.streamed = MAX(e->placing.level - 1, 0);
  plan.remakes = e->placing.remakes;
  g_mutex_unlock(&e->lock);
  char **opened = fk_load_report(e->options, &plan, e->be, e->why), **tuned = fk_tune_report(settings, e->be);
  const guint n = g_strv_length(opened), m = g_strv_length(tuned);
  char **list = g_new0(char *, n + m + 3);
  memcpy(list, opened, n * sizeof *list);
  memcpy(list + n, tuned, m * sizeof *list);
  list[n + m] = g_strdup("loras");
  list[n + m + 1] = report_adapters(e, settings);
  g_free(opened);
  g_free(tuned);
  return list;
}
