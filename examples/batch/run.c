/* SPDX-License-Identifier: Apache-2.0 */
/* The threads of a run; see run.h.
 *
 *   readers -> decoded -> engines -> edited -> writers
 *
 * Both queues hold a few pictures, so that memory depends on their size and not on the length of the list, and a work
 * belongs to the thread or the queue that has it. */
#include "run.h"

#include "progress.h"
#include "bounded-queue.h"
#include "write.h"

#include <string.h>

enum { MOST_HELPERS = 4 /* threads that decode, and as many that encode */ };

typedef struct {
  FkEngine *const *engines;
  GPtrArray *works;
  const RunRules *rules;
  Queue decoded, edited;
  gint next; /* atomic: first work that nobody has */
  gint end;  /* atomic: a RunEnd */
} Run;

typedef struct {
  Run *run;
  FkEngine *engine;
} Worker;

/* An edited work and the engine that did it. */
typedef struct {
  Work *work;
  FkEngine *engine;
} Edited;

static GMutex lock;  /* guards the two */
static Run *current; /* NULL: none is running */
static bool stopping;

static void free_work(gpointer work) {
  work_free(work);
}

static void end_early(Run *r, RunEnd end) {
  g_atomic_int_compare_and_exchange(&r->end, RUN_ALL, (gint)end);
  queue_abandon(&r->decoded, free_work);
}

static bool ended(const Run *r) {
  return g_atomic_int_get(&r->end) != RUN_ALL;
}

void run_stop(void) {
  g_mutex_lock(&lock);
  stopping = true;
  if (current) end_early(current, RUN_STOPPED);
  g_mutex_unlock(&lock);
  progress_say("stopping: what is being edited is finished and written; a second interrupt drops it");
}

static void failed(Work *w, const GError *error) {
  progress_item(w->input, w->output, PROGRESS_FAILED, error->message, 0);
  work_free(w);
}

/* ---- Reading ---- */

/* An engine of the run would do the same again. */
static bool done_before(const Run *r, const Work *w, bool *done, GError **error) {
  *done = false;
  for (FkEngine *const *e = r->engines; *e && !*done; e++) {
    g_autofree char *id = work_id(w, *e, &r->rules->work, error);
    if (!id) return false;
    *done = work_is_done(w, id);
  }
  return true;
}

static bool check_output(const Run *r, const Work *w, GError **error) {
  if (r->rules->resume || r->rules->overwrite || !g_file_test(w->output, G_FILE_TEST_EXISTS)) return true;
  g_autofree char *shown = g_filename_display_name(w->output);
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: is there already; see --resume and --overwrite", shown);
  return false;
}

static void read_one(Run *r, Work *w) {
  g_autoptr(GError) error = NULL;
  g_autofree char *shown = g_filename_display_name(w->input);
  bool done = false;
  if (!check_output(r, w, &error) || !work_read(w, &r->rules->work, &error) ||
      (r->rules->resume && !done_before(r, w, &done, &error))) {
    failed(w, error);
  } else if (done) {
    progress_item(w->input, w->output, PROGRESS_SKIPPED, NULL, 0);
    work_free(w);
  } else if (!work_decode(w, &r->rules->work, &error)) {
    failed(w, error);
  } else if (!queue_push(&r->decoded, w)) {
    work_free(w);
  }
}

static gpointer reader(gpointer data) {
  Run *r = data;
  while (!ended(r)) {
    const guint i = (guint)g_atomic_int_add(&r->next, 1);
    if (i >= r->works->len) break;
    read_one(r, g_steal_pointer(&r->works->pdata[i]));
  }
  queue_done(&r->decoded);
  return NULL;
}

/* ---- Editing ---- */

static void step(const char *stage, int64_t at, int64_t total, void *work) {
  const Work *w = work;
  progress_step(w->input, stage, at, total);
}

static bool fits(gpointer item, gpointer first) {
  const Work *a = first, *b = item;
  const FkImage *x = &a->photo.image, *y = &b->photo.image;
  return x->width == y->width && x->height == y->height && x->channels == y->channels &&
         fk_settings_batchable(a->settings, b->settings);
}

/* True: the engine can go on. */
static bool edit(Worker *worker, Work **works, int n) {
  Run *r = worker->run;
  g_autoptr(GError) error = NULL;
  if (work_edit(worker->engine, works, n, &r->rules->work, NULL, step, works[0], &error)) {
    for (int i = 0; i < n; i++) {
      Edited *edited = g_new(Edited, 1);
      *edited = (Edited){works[i], worker->engine};
      queue_push(&r->edited, edited);
    }
    return true;
  }
  const bool lost = fk_engine_dead(worker->engine);
  /* Together they may have been too much, or one of them wrong. */
  if (n > 1 && !lost) {
    bool on = true;
    for (int i = 0; i < n; i++) {
      if (on)
        on = edit(worker, &works[i], 1);
      else
        failed(works[i], error);
    }
    return on;
  }
  for (int i = 0; i < n; i++) failed(works[i], error);
  return !lost;
}

static gpointer editor(gpointer data) {
  Worker *worker = data;
  Run *r = worker->run;
  g_autofree Work **works = g_new0(Work *, (guint)r->rules->batch);
  bool on = true;
  while (on && (works[0] = queue_pop(&r->decoded))) {
    int n = 1;
    while (n < r->rules->batch && (works[n] = queue_pop_if(&r->decoded, fits, works[0]))) n++;
    on = edit(worker, works, n);
  }
  /* The other devices go on; who is the last ends the run. */
  bool any = false;
  for (FkEngine *const *e = r->engines; *e; e++) any |= !fk_engine_dead(*e);
  if (!on && !any) end_early(r, RUN_DEVICE_LOST);
  queue_done(&r->edited);
  return NULL;
}

/* ---- Writing ---- */

static void write_one(Run *r, Edited *e) {
  g_autoptr(GError) error = NULL;
  if (work_write(e->work, e->engine, &r->rules->work, &error)) {
    progress_item(e->work->input, e->work->output, PROGRESS_DONE, e->work->photo.notes->str,
                  e->work->job.result.edit_ms);
    work_free(e->work);
  } else {
    if (write_failed_for_all(error)) end_early(r, RUN_FULL);
    failed(e->work, error);
  }
  g_free(e);
}

static gpointer writer(gpointer data) {
  Run *r = data;
  Edited *e;
  while ((e = queue_pop(&r->edited))) write_one(r, e);
  return NULL;
}

/* ---- All ---- */

static void begin(Run *r) {
  g_mutex_lock(&lock);
  current = r;
  const bool stop = stopping;
  g_mutex_unlock(&lock);
  if (stop) end_early(r, RUN_STOPPED);
}

static void finish(void) {
  g_mutex_lock(&lock);
  current = NULL;
  g_mutex_unlock(&lock);
}

RunEnd run_all(FkEngine *const *engines, GPtrArray *works, const RunRules *rules) {
  Run r = {.engines = engines, .works = works, .rules = rules};
  g_autoptr(GPtrArray) threads = g_ptr_array_new();
  guint devices = 0;
  while (engines[devices]) devices++;
  const guint helpers = MIN(devices, MOST_HELPERS);
  g_autofree Worker *workers = g_new0(Worker, devices);
  queue_init(&r.decoded, devices * (guint)rules->batch + 1, helpers);
  queue_init(&r.edited, devices * (guint)rules->batch + 1, devices);
  begin(&r);
  for (guint i = 0; i < helpers; i++) g_ptr_array_add(threads, g_thread_new("read", reader, &r));
  for (guint i = 0; i < devices; i++) {
    workers[i] = (Worker){&r, engines[i]};
    g_ptr_array_add(threads, g_thread_new("edit", editor, &workers[i]));
  }
  for (guint i = 0; i < helpers; i++) g_ptr_array_add(threads, g_thread_new("write", writer, &r));
  for (guint i = 0; i < threads->len; i++) g_thread_join(threads->pdata[i]);
  finish();
  queue_clear(&r.decoded);
  queue_clear(&r.edited);
  return (RunEnd)r.end;
}
