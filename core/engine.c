/* SPDX-License-Identifier: Apache-2.0 */
/* The engine: which machine, one shared object per model in the process, loading, the queue of edits, memory plans.
 * The table of contents of a run; never arithmetic (edit.c conducts one). */
#include "engine.h"

#include "image.h"
#include "plan.h"
#include "profile.h"
#include "values.h"

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

static int backend_error(FkFailure failure) {
  return failure == FK_FAIL_MEMORY ? FK_ERROR_MEMORY : FK_ERROR_BACKEND_MISSING;
}

static FkBackend *open_backend(const char *name, int device, GError **error) {
  char message[256] = "";
  FkFailure failure = FK_FAIL_NONE;
  FkBackend *be = fk_backend_open(name, device, 0, &failure, message, sizeof message);
  if (!be) g_set_error(error, FK_ERROR, backend_error(failure), "backend=%s: %s", name, message);
  return be;
}

/* backend=auto: CUDA, else the CPU where one edit with default settings is at most 20 TFLOP, else a sentence that says
 * what is missing. */
static FkBackend *choose_backend(FkEngine *e, const char *path, int device, GError **error) {
  g_autoptr(GError) no_cuda = NULL;
  FkBackend *be = open_backend("cuda", device, &no_cuda);
  if (be) {
    e->why = g_strdup("a usable device is present");
    return be;
  }
  g_autoptr(FkSettings) settings = fk_settings_new();
  FkPlan plan;
  if (!fk_plan(path, settings, 1024, 1024, 4, &plan, error)) return NULL;
  if (plan.flop > 20e12) {
    g_set_error(
        error, FK_ERROR, FK_ERROR_BACKEND_MISSING,
        "no usable GPU (%s), and one edit of this model is %.0f TFLOP: more than the 20 that backend=auto gives "
        "to the CPU",
        no_cuda->message, plan.flop / 1e12);
    return NULL;
  }
  e->why = g_strdup_printf("no usable GPU (%s)", no_cuda->message);
  return open_backend("cpu", 0, error);
}

static bool engine_setup(FkEngine *e, GError **error) {
  const char *path = fk_options_get(e->options, "model-path"), *name = fk_options_get(e->options, "backend");
  const int device = (int)g_ascii_strtoll(fk_options_get(e->options, "cuda-device-id"), NULL, 10);
  const bool null = !strcmp(name, "null");
  if (!path || !*path) {
    if (!null) {
      g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD, "model-path is not set");
      return false;
    }
    path = "kontext-dev";
  } else if (!null && !g_file_test(path, G_FILE_TEST_EXISTS)) {
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_MISSING, "model-path %s: no such folder", path);
    return false;
  }
  e->be = strcmp(name, "auto") ? open_backend(name, device, error) : choose_backend(e, path, device, error);
  if (!e->be) return false;
  if (!e->why) e->why = g_strdup("asked for");
  e->model = fk_model_open(path, e->be, NULL, !null, error);
  return e->model != NULL;
}

static void engine_free(FkEngine *e) {
  fk_prompt_cache_clear(&e->cache);
  if (e->be) fk_arena_close(&e->arena);
  fk_model_free(e->model);
  if (e->be) fk_backend_close(e->be);
  fk_settings_free(e->planned);
  fk_options_free(e->options);
  g_free(e->shared.identity);
  g_free(e->why);
  g_mutex_clear(&e->lock);
  g_cond_clear(&e->turn);
  g_free(e);
}

static void free_shared(FkShared *shared) {
  engine_free((FkEngine *)shared);
}

FkEngine *fk_engine_new(const FkOptions *options, GError **error) {
  g_autofree char *identity = fk_registry_identity(options);
  FkEngine *e = (FkEngine *)fk_registry_find(identity);
  if (e) return e;
  e = g_new0(FkEngine, 1);
  e->shared.refs = 1;
  e->options = fk_options_copy(options);
  e->shared.identity = g_steal_pointer(&identity);
  g_mutex_init(&e->lock);
  g_cond_init(&e->turn);
  g_queue_init(&e->waiting);
  if (engine_setup(e, error)) return (FkEngine *)fk_registry_add(&e->shared, free_shared);
  engine_free(e);
  return NULL;
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
  fk_engine_leave(e);
  return false;
}

void fk_engine_leave(FkEngine *e) {
  g_mutex_lock(&e->lock);
  e->busy = false;
  g_cond_broadcast(&e->turn);
  g_mutex_unlock(&e->lock);
}

/* ---- Loading ---- */

typedef struct {
  FkProgress progress;
  void *user_data;
} Told;

static void tell_open(int64_t done, int64_t total, void *user_data) {
  const Told *t = user_data;
  if (t->progress) t->progress("open", done, total, t->user_data);
}

static bool within_limit(const FkEngine *e, size_t arena, GError **error) {
  const uint64_t limit = g_ascii_strtoull(fk_options_get(e->options, "max-vram"), NULL, 10);
  const uint64_t need = fk_model_weight_bytes(e->model) + fk_prompt_cache_bytes(e->model, e->be) + arena;
  if (!limit || need <= limit) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_MEMORY,
              "max-vram is %" G_GUINT64_FORMAT " bytes; the plan needs %" G_GUINT64_FORMAT " (weights %zu, work %zu)",
              limit, need, fk_model_weight_bytes(e->model), arena);
  return false;
}

static bool load(FkEngine *e, GCancellable *cancellable, FkProgress progress, void *user_data, GError **error) {
  Told told = {progress, user_data};
  if (e->model->loaded) return true;
  if (!within_limit(e, 0, error)) return false;
  tell_open(0, (int64_t)fk_model_weight_bytes(e->model), &told);
  fk_op_range(e->be, "load");
  const bool loaded = fk_model_load(e->model, cancellable, tell_open, &told, error);
  fk_op_range(e->be, NULL);
  if (!loaded) {
    fk_backend_clear(e->be);
    return false;
  }
  void *cache = e->be->ops->alloc(e->be, fk_prompt_cache_bytes(e->model, e->be));
  fk_prompt_cache_init(&e->cache, e->model, e->be, cache);
  return true;
}

bool fk_engine_load(FkEngine *e, GCancellable *cancellable, FkProgress progress, void *user_data, GError **error) {
  if (!engine_enter(e, cancellable, error)) return false;
  const bool ok = load(e, cancellable, progress, user_data, error);
  fk_engine_leave(e);
  return ok;
}

FkEngine *fk_engine_open(const FkOptions *options, GCancellable *cancellable, FkProgress progress, void *user_data,
                         GError **error) {
  g_autoptr(FkEngine) e = fk_engine_new(options, error);
  if (!e || !fk_engine_load(e, cancellable, progress, user_data, error)) return NULL;
  return g_steal_pointer(&e);
}

/* ---- Edits ---- */

/* Makes the arena large enough for this edit. The same settings and size need no second walk. */
static bool plan_memory(FkEngine *e, const FkEdit *edit, GError **error) {
  const bool same = e->planned && e->planned_n == edit->n && e->planned_width == edit->width &&
                    e->planned_height == edit->height && fk_settings_batchable(e->planned, edit->jobs[0].settings);
  if (same) return true;
  size_t bytes = 0;
  if (!fk_plan_arena(edit, &bytes, error) || !within_limit(e, bytes, error)) return false;
  if (e->be->ops->graph_forget) e->be->ops->graph_forget(e->be);
  g_clear_pointer(&e->planned, fk_settings_free);
  if (e->arena.size < bytes) {
    size_t free_bytes = 0, total = 0;
    fk_arena_close(&e->arena);
    e->be->ops->memory(e->be, &free_bytes, &total);
    if (!fk_arena_open(&e->arena, e->be, bytes)) {
      g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "an edit at %dx%d needs %zu bytes of work memory; %zu are free",
                  edit->width, edit->height, bytes, free_bytes);
      return false;
    }
  }
  e->planned = fk_settings_copy(edit->jobs[0].settings);
  e->planned_n = edit->n;
  e->planned_width = edit->width;
  e->planned_height = edit->height;
  return true;
}

/* The edit with every op timed: recordings are off, so that each op is issued by itself. */
static bool run_profiled(FkEngine *e, FkEdit *edit, struct FkProfile **profile, GError **error) {
  const char *path = edit->tune->trace_file;
  e->be->use &= ~(uint32_t)FK_CAN_GRAPH;
  if (!fk_profile_start(e->be)) {
    g_set_error_literal(error, FK_ERROR, FK_ERROR_MEMORY, "trace: out of memory");
    return false;
  }
  bool ok = fk_edit_run(edit, error);
  struct FkProfile *p = fk_profile_stop(e->be);
  if (ok && path && !fk_profile_write_trace(p, path)) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "trace-file %s: %s", path, g_strerror(errno));
    ok = false;
  }
  if (profile && ok)
    *profile = p;
  else
    free(p);
  return ok;
}

static bool run(FkEngine *e, FkEdit *edit, struct FkProfile **profile, GError **error) {
  for (int i = 0; i < edit->n; i++)
    edit->jobs[i].result =
        (FkResult){.seed = g_ascii_strtoull(fk_settings_get(edit->jobs[i].settings, "seed"), NULL, 10)};
  if (!load(e, edit->cancellable, edit->progress, edit->user_data, error)) return false;
  fk_tune_apply(edit->tune, e->be);
  if (!plan_memory(e, edit, error)) return false;
  edit->arena = &e->arena;
  const bool ok = edit->tune->trace_file || profile ? run_profiled(e, edit, profile, error) : fk_edit_run(edit, error);
  if (!ok) {
    fk_backend_sync(e->be);
    fk_backend_clear(e->be);
    e->arena.used = 0;
  }
  return ok;
}

enum { MAX_SIDE = 256 * FK_SIZE_MULTIPLE }; /* 256 tokens: four times the largest side the model was trained on */

/* A very long or narrow frame has no size near the asked area whose sides are at least 16. */
static bool work_size(const FkEngine *e, const FkTune *t, int width, int height, FkEdit *edit, int *ow, int *oh,
                      GError **error) {
  const int64_t area = t->native_size || !t->max_area ? fk_model_area(e->model) : t->max_area;
  if (width < 1 || height < 1 || width > 65535 || height > 65535) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "image %dx%d: sides go from 1 to 65535", width, height);
    return false;
  }
  fk_edit_sizes(e->model, t, width, height, &edit->width, &edit->height, ow, oh);
  if (edit->width <= MAX_SIDE && edit->height <= MAX_SIDE && (int64_t)edit->width * edit->height <= 2 * area)
    return true;
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
              "image %dx%d: its aspect ratio cannot be edited (the model would work at %dx%d; at most %d a side and "
              "%" G_GINT64_FORMAT " pixels)",
              width, height, edit->width, edit->height, MAX_SIDE, 2 * area);
  return false;
}

static bool check_jobs(const FkEngine *e, const FkTune *tune, const FkJob *jobs, int n, FkEdit *edit, GError **error) {
  if (e->model->config.pipeline == FK_PIPELINE_FLUX && tune->task == FK_TASK_EDIT) {
    g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                        "task=edit: this model makes images from text alone "
                        "(FluxPipeline); it runs with task=generate");
    return false;
  }
  for (int i = 0; i < n; i++) {
    const FkImage *in = &jobs[i].in, *out = &jobs[i].out;
    int ow, oh;
    if (!work_size(e, tune, in->width, in->height, edit, &ow, &oh, error)) return false;
    if (out->width != ow || out->height != oh || out->channels != in->channels ||
        (in->channels != 3 && in->channels != 4)) {
      g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                  "result image: expected %dx%d with %d channels (3 or 4), found "
                  "%dx%d with %d",
                  ow, oh, in->channels, out->width, out->height, out->channels);
      return false;
    }
    if (i && (in->width != jobs[0].in.width || in->height != jobs[0].in.height ||
              !fk_settings_batchable(jobs[0].settings, jobs[i].settings))) {
      g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                  "frame %d of the batch differs from the first in size or "
                  "settings",
                  i);
      return false;
    }
  }
  return true;
}

bool fk_engine_edit_profiled(FkEngine *e, FkJob *jobs, int n, GCancellable *cancellable, FkProgress progress,
                             void *user_data, struct FkProfile **profile, GError **error) {
  FkTune tune;
  FkEdit edit = {.model = e->model,
                 .be = e->be,
                 .cache = &e->cache,
                 .tune = &tune,
                 .jobs = jobs,
                 .n = n,
                 .cancellable = cancellable,
                 .progress = progress,
                 .user_data = user_data};
  if (n < 1) return true;
  if (!fk_tune_resolve(jobs[0].settings, e->be, &tune, error) || !check_jobs(e, &tune, jobs, n, &edit, error))
    return false;
  if (!engine_enter(e, cancellable, error)) return false;
  const bool ok = run(e, &edit, profile, error);
  fk_engine_leave(e);
  return ok;
}

bool fk_engine_edit(FkEngine *e, FkJob *jobs, int n, GCancellable *cancellable, FkProgress progress, void *user_data,
                    GError **error) {
  return fk_engine_edit_profiled(e, jobs, n, cancellable, progress, user_data, NULL, error);
}

bool fk_engine_output_size(FkEngine *e, const FkSettings *settings, int width, int height, int *ow, int *oh,
                           GError **error) {
  FkTune tune;
  FkEdit edit;
  return fk_tune_resolve(settings, e->be, &tune, error) && work_size(e, &tune, width, height, &edit, ow, oh, error);
}

/* One edit of made-up pixels. */
static bool rehearse(FkEngine *e, const FkSettings *settings, int width, int height, GCancellable *cancellable,
                     struct FkProfile **profile, GError **error) {
  int ow, oh;
  if (!fk_engine_output_size(e, settings, width, height, &ow, &oh, error)) return false;
  g_autofree uint8_t *in = g_malloc((size_t)width * (size_t)height * 3), *out = g_malloc((size_t)ow * (size_t)oh * 3);
  for (size_t i = 0; i < (size_t)width * (size_t)height * 3; i++) in[i] = (uint8_t)(i * 37 + i / 977);
  FkJob job = {
      .in = {in, width, height, 3, (size_t)width * 3}, .out = {out, ow, oh, 3, (size_t)ow * 3}, .settings = settings};
  return fk_engine_edit_profiled(e, &job, 1, cancellable, NULL, NULL, profile, error);
}

bool fk_engine_warmup(FkEngine *e, const FkSettings *settings, int width, int height, GCancellable *cancellable,
                      GError **error) {
  return rehearse(e, settings, width, height, cancellable, NULL, error);
}

static bool same_row(const FkProfileRow *r, const FkProfileOp *o) {
  return r->m == o->m && r->n == o->n && r->k == o->k && !strcmp(r->op, o->op) && !strcmp(r->stage, o->stage);
}

FkProfileRow *fk_engine_profile(FkEngine *e, const FkSettings *settings, int width, int height, size_t *count,
                                GError **error) {
  struct FkProfile *p = NULL;
  if (!rehearse(e, settings, width, height, NULL, &p, error)) return NULL;
  FkProfileRow *rows = g_new0(FkProfileRow, (size_t)p->count);
  size_t n = 0, i;
  for (int k = 0; k < p->count; k++) {
    const FkProfileOp *o = &p->op[k];
    for (i = 0; i < n && !same_row(&rows[i], o); i++) continue;
    if (i == n) rows[n++] = (FkProfileRow){.stage = o->stage, .op = o->op, .m = o->m, .n = o->n, .k = o->k};
    rows[i].count++;
    rows[i].ms += o->ms;
    rows[i].flop += o->flop;
    rows[i].bytes += o->bytes;
  }
  free(p);
  *count = n;
  return rows;
}

char **fk_engine_active(FkEngine *e, const FkSettings *settings) {
  GPtrArray *list = g_ptr_array_new();
  g_auto(GStrv) tuned = fk_tune_report(settings, e->be);
  g_ptr_array_add(list, g_strdup("backend"));
  g_ptr_array_add(list,
                  g_strdup_printf("%s (%s; %s)", e->be->ops->name, fk_options_get(e->options, "backend"), e->why));
  g_ptr_array_add(list, g_strdup("precision"));
  g_ptr_array_add(list, g_strdup(e->be->dtype == FK_F32 ? "float32 (auto; the CPU's)" : "bfloat16 (auto; the GPU's)"));
  for (int i = 0; tuned[i]; i++) g_ptr_array_add(list, g_strdup(tuned[i]));
  g_ptr_array_add(list, NULL);
  return (char **)g_ptr_array_free(list, FALSE);
}
