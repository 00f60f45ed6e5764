/* SPDX-License-Identifier: Apache-2.0 */
/* Devices, batches and helper threads; see queue.h.
 *
 * Threads: `lock` guards what waits, which run a job belongs to, and `cancelled`. A run's jobs are the device thread's
 * from take() until on_edited comes to the main thread; a job's pixels then are a helper's until on_encoded. All else
 * is the main thread's. Messages to the main thread keep their order. */
#include "queue.h"

#include "../json.h"
#include "pixels.h"
#include "edit-run.h"

#include <string.h>

enum { HELPERS = 2 };

typedef struct {
  Queue *queue;
  FkEngine *engine;
  GThread *thread;
  bool ready, dead;          /* main thread */
  gint64 loaded, total;      /* main thread */
  GCancellable *cancellable; /* of loading */
} Device;

struct Queue {
  GMutex lock;
  GCond arrived;
  GQueue waiting; /* of Job, a reference each */
  bool stopping;
  /* Main thread. */
  Device *devices;
  guint n_devices, depth, running, active;
  double job_ms; /* of the last ones */
  gint64 began_us;
  GPtrArray *runs;
  GThreadPool *helpers;
  QueueLimits limits;
  Jobs *jobs;
  Metrics *metrics;
  const FkSettings *settings;
  void (*broken)(const char *message, gpointer data);
  gpointer broken_data;
};

/* ---- Loading ---- */

typedef struct {
  Device *device;
  gint64 current, total;
} Loading;

static gboolean on_report(gpointer data) {
  const Loading *l = data;
  l->device->loaded = l->current;
  l->device->total = l->total;
  return G_SOURCE_REMOVE;
}

static void on_loading(const char *stage, int64_t current, int64_t total, void *data) {
  (void)stage;
  Loading *l = g_new(Loading, 1);
  *l = (Loading){data, current, total};
  run_post(on_report, l, g_free);
}

/* ---- Helpers: decode and encode ---- */

typedef struct {
  Queue *queue;
  Job *job;
  bool encode;
} Chore;

static void chore_free(gpointer data) {
  Chore *c = data;
  job_unref(c->job);
  g_free(c);
}

static void end(Queue *q, Job *job, JobState state, const Failure *failure) {
  if (job_ended(job)) return;
  if (job->state == JOB_WAITING)
    q->depth--;
  else
    q->running--;
  jobs_end(q->jobs, job, state, failure);
  metrics_job(q->metrics, job);
}

/* Its way is over. */
static void settle(Queue *q, Job *job) {
  q->active--;
  jobs_settle(q->jobs, job);
}

static void tell_position(Queue *q, Job *job) {
  g_autoptr(GString) text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  const int position = queue_position(q, job);
  json_open(&j, NULL, '{');
  json_count(&j, "position", MAX(position, 0));
  json_count(&j, "eta_ms", queue_eta_ms(q, MAX(position, 0) + 1));
  json_close(&j, '}');
  job_event(job, "queued", g_strdup(text->str));
}

static gboolean on_decoded(gpointer data) {
  const Chore *c = data;
  Queue *q = c->queue;
  Job *job = c->job;
  if (!job_ended(job) && !job->trouble.status && queue_state(q) != QUEUE_DEAD) {
    job->queued_us = g_get_monotonic_time();
    g_mutex_lock(&q->lock);
    g_queue_push_tail(&q->waiting, job_ref(job));
    g_cond_signal(&q->arrived);
    g_mutex_unlock(&q->lock);
    tell_position(q, job);
    return G_SOURCE_REMOVE;
  }
  fail(&job->trouble, 500, "device_lost", NULL, "the device is lost; the server has to be restarted");
  end(q, job, JOB_FAILED, &job->trouble);
  settle(q, job);
  return G_SOURCE_REMOVE;
}

static gboolean on_encoded(gpointer data) {
  const Chore *c = data;
  const double ms = (double)(g_get_monotonic_time() - c->job->started_us) / 1000;
  Queue *q = c->queue;
  if (!c->job->trouble.status) q->job_ms = q->job_ms > 0 ? 0.7 * q->job_ms + 0.3 * ms : ms;
  end(q, c->job, c->job->trouble.status ? JOB_FAILED : JOB_DONE, &c->job->trouble);
  settle(q, c->job);
  return G_SOURCE_REMOVE;
}

static void help(gpointer data, gpointer user_data) {
  Chore *c = data;
  (void)user_data;
  if (c->encode)
    pixels_encode(c->job, c->queue->limits.output_dir);
  else
    pixels_decode(c->job);
  run_post(c->encode ? on_encoded : on_decoded, c, chore_free);
}

static void start_chore(Queue *q, Job *job, bool encode_it) {
  Chore *c = g_new(Chore, 1);
  *c = (Chore){q, job_ref(job), encode_it};
  g_thread_pool_push(q->helpers, c, NULL);
}

/* ---- The thread of a device ---- */

static bool together(const Job *a, const Job *b) {
  return !a->mask.data && !b->mask.data && !a->n_references && !b->n_references && a->in.width == b->in.width &&
         a->in.height == b->in.height && a->in.channels == b->in.channels &&
         fk_settings_batchable(a->ask->settings, b->ask->settings);
}

/* The first that waits, and those behind it that may share its edit. NULL: the end. */
static Run *take(Device *d) {
  Queue *q = d->queue;
  Run *run = NULL;
  g_mutex_lock(&q->lock);
  while (!q->stopping && g_queue_is_empty(&q->waiting)) g_cond_wait(&q->arrived, &q->lock);
  if (!q->stopping) {
    run = run_new(d->engine, d, q->waiting.length);
    int pictures = 0;
    for (GList *link = q->waiting.head; link;) {
      GList *next = link->next;
      Job *job = link->data;
      const bool fits = !run->n || (pictures + job->ask->n <= q->limits.batch && together(run->jobs[0], job));
      if (fits) {
        pictures += job->ask->n;
        job->run = run;
        run->jobs[run->n++] = job; /* with the reference of the queue */
        g_queue_delete_link(&q->waiting, link);
      }
      link = next;
    }
  }
  g_mutex_unlock(&q->lock);
  return run;
}

static gboolean on_started(gpointer data) {
  Run *run = data;
  Queue *q = ((Device *)run->device)->queue;
  g_ptr_array_add(q->runs, run);
  for (int i = 0; i < run->n; i++) {
    Job *job = run->jobs[i];
    if (job_ended(job)) continue;
    q->depth--;
    q->running++;
    job->state = JOB_RUNNING;
    job->started_us = g_get_monotonic_time();
  }
  return G_SOURCE_REMOVE;
}

static void fail_waiting(Queue *q) {
  Failure f = {0};
  fail(&f, 500, "device_lost", NULL, "the device is lost; the server has to be restarted");
  for (Job *job; (job = g_queue_pop_head(&q->waiting));) {
    end(q, job, JOB_FAILED, &f);
    settle(q, job);
    job_unref(job);
  }
  failure_clear(&f);
}

static gboolean on_edited(gpointer data) {
  Run *run = data;
  Queue *q = ((Device *)run->device)->queue;
  g_ptr_array_remove_fast(q->runs, run);
  g_mutex_lock(&q->lock);
  for (int i = 0; i < run->n; i++) run->jobs[i]->run = NULL;
  g_mutex_unlock(&q->lock);
  for (int i = 0; i < run->n; i++) {
    Job *job = run->jobs[i];
    if (!job_ended(job) && !job->trouble.status) {
      job->active = g_strdupv(run->active);
      start_chore(q, job, true);
      continue;
    }
    end(q, job, JOB_FAILED, &job->trouble);
    settle(q, job);
  }
  ((Device *)run->device)->dead = fk_engine_dead(run->engine);
  if (queue_state(q) == QUEUE_DEAD) fail_waiting(q); /* its only threads have ended */
  return G_SOURCE_REMOVE;
}

static gboolean on_loaded(gpointer data) {
  Device *d = data;
  d->ready = true;
  d->queue->metrics->load_s = (double)(g_get_monotonic_time() - d->queue->began_us) / G_USEC_PER_SEC;
  return G_SOURCE_REMOVE;
}

typedef struct {
  Queue *queue;
  char *message;
} Broken;

static void broken_free(gpointer data) {
  Broken *b = data;
  g_free(b->message);
  g_free(b);
}

static gboolean on_broken(gpointer data) {
  const Broken *b = data;
  if (b->queue->broken) b->queue->broken(b->message, b->queue->broken_data);
  return G_SOURCE_REMOVE;
}

static gpointer device_main(gpointer data) {
  Device *d = data;
  g_autoptr(GError) error = NULL;
  if (!fk_engine_load_for(d->engine, d->queue->settings, d->cancellable, on_loading, d, &error)) {
    Broken *b = g_new(Broken, 1);
    *b = (Broken){d->queue, g_strdup(error->message)};
    run_post(on_broken, b, broken_free);
    return NULL;
  }
  run_post(on_loaded, d, NULL);
  for (Run *run; !fk_engine_dead(d->engine) && (run = take(d));) {
    run_post(on_started, g_atomic_rc_box_acquire(run), run_release);
    run_edit(run);
    run_post(on_edited, run, run_release);
  }
  return NULL;
}

/* ---- For the main thread ---- */

Queue *queue_new(FkOptions *const *options, const FkSettings *settings, QueueLimits limits, Jobs *jobs,
                 Metrics *metrics, void (*broken)(const char *message, gpointer data), gpointer data, GError **error) {
  Queue *q = g_new0(Queue, 1);
  guint n = 0;
  while (options[n]) n++;
  g_mutex_init(&q->lock);
  g_cond_init(&q->arrived);
  g_queue_init(&q->waiting);
  q->devices = g_new0(Device, n);
  q->runs = g_ptr_array_new();
  q->limits = limits;
  q->jobs = jobs;
  q->metrics = metrics;
  q->settings = settings;
  q->began_us = g_get_monotonic_time();
  q->broken = broken;
  q->broken_data = data;
  q->helpers = g_thread_pool_new(help, q, HELPERS, FALSE, NULL);
  for (; q->n_devices < n; q->n_devices++) {
    Device *d = &q->devices[q->n_devices];
    *d =
        (Device){.queue = q, .engine = fk_engine_new(options[q->n_devices], error), .cancellable = g_cancellable_new()};
    if (d->engine) continue;
    g_object_unref(d->cancellable);
    queue_free(q);
    return NULL;
  }
  for (guint i = 0; i < n; i++) q->devices[i].thread = g_thread_new("device", device_main, &q->devices[i]);
  return q;
}

/* While there are jobs the threads are alive. */
static void cancel_all(Queue *q) {
  GHashTableIter iter;
  gpointer job;
  g_autoptr(GPtrArray) all = g_ptr_array_new();
  g_hash_table_iter_init(&iter, q->jobs->by_id);
  while (g_hash_table_iter_next(&iter, NULL, &job)) g_ptr_array_add(all, job);
  for (guint i = 0; i < all->len; i++)
    queue_cancel(q, g_ptr_array_index(all, i), 503, "shutting_down", "the server ends");
  while (q->active) g_main_context_iteration(NULL, TRUE);
}

void queue_free(Queue *q) {
  q->broken = NULL;
  for (guint i = 0; i < q->n_devices; i++) g_cancellable_cancel(q->devices[i].cancellable);
  cancel_all(q);
  g_mutex_lock(&q->lock);
  q->stopping = true;
  g_cond_broadcast(&q->arrived);
  g_mutex_unlock(&q->lock);
  for (guint i = 0; i < q->n_devices; i++)
    if (q->devices[i].thread) g_thread_join(q->devices[i].thread);
  while (g_main_context_iteration(NULL, FALSE)) {
  } /* what the threads have posted */
  g_thread_pool_free(q->helpers, FALSE, TRUE);
  for (guint i = 0; i < q->n_devices; i++) {
    fk_engine_unref(q->devices[i].engine);
    g_object_unref(q->devices[i].cancellable);
  }
  g_ptr_array_unref(q->runs);
  g_free(q->devices);
  g_mutex_clear(&q->lock);
  g_cond_clear(&q->arrived);
  g_free(q);
}

void queue_submit(Queue *q, Job *job) {
  job->working = true;
  q->depth++;
  q->active++;
  start_chore(q, job, false);
}

/* Takes it out of what waits, or stops the run when nobody needs any of it. True: no other thread has it. */
static bool withdraw(Queue *q, Job *job) {
  g_autoptr(GCancellable) stop = NULL;
  g_mutex_lock(&q->lock);
  const bool waited = g_queue_remove(&q->waiting, job);
  Run *run = job->run;
  job->cancelled = true;
  bool all = run;
  for (int i = 0; run && i < run->n; i++) all = all && run->jobs[i]->cancelled;
  if (all) stop = g_object_ref(run->cancellable);
  g_mutex_unlock(&q->lock);
  if (stop) g_cancellable_cancel(stop);
  return waited;
}

void queue_cancel(Queue *q, Job *job, guint status, const char *code, const char *message) {
  g_auto(Failure) f = {0};
  g_autoptr(Job) alive = job_ref(job);
  if (job_ended(job)) return;
  fail(&f, status, code, NULL, "%s", message);
  const bool waited = withdraw(q, alive);
  end(q, alive, JOB_CANCELLED, &f);
  if (!waited) return;
  settle(q, alive);
  job_unref(job); /* the reference of what waits */
}

gsize queue_bytes(const Ask *ask) {
  const gsize in = (gsize)ask->image_width * (gsize)ask->image_height * (ask->mask ? 2 : 1);
  const gsize out = ask->width ? (gsize)ask->width * (gsize)ask->height : in;
  gsize files = 0;
  for (guint i = 0; i < ask->images->len; i++) files += g_bytes_get_size(g_ptr_array_index(ask->images, i));
  return files + 4 * (MAX(in, out) + ask->reference_pixels + (gsize)ask->n * out);
}

QueueState queue_state(const Queue *q) {
  guint dead = 0, ready = 0;
  for (guint i = 0; i < q->n_devices; i++) {
    dead += q->devices[i].dead;
    ready += q->devices[i].ready && !q->devices[i].dead;
  }
  return ready ? QUEUE_READY : dead == q->n_devices ? QUEUE_DEAD : QUEUE_LOADING;
}

guint queue_depth(const Queue *q) {
  return q->depth;
}

guint queue_running(const Queue *q) {
  return q->running;
}

bool queue_idle(const Queue *q) {
  return !q->active;
}

int queue_position(Queue *q, const Job *job) {
  g_mutex_lock(&q->lock);
  const int position = g_queue_index(&q->waiting, job);
  g_mutex_unlock(&q->lock);
  return position;
}

gint64 queue_eta_ms(const Queue *q, int position) {
  const double before = (double)(position + (q->running ? 1 : 0)) / MAX(q->n_devices, 1);
  return (gint64)(q->job_ms * before);
}

FkEngine *queue_engine(const Queue *q) {
  return q->devices[0].engine;
}

char **queue_active(const Queue *q, const FkSettings *settings) {
  return queue_state(q) == QUEUE_READY ? fk_engine_active(q->devices[0].engine, settings) : NULL;
}

void queue_loaded(const Queue *q, gint64 *done, gint64 *total) {
  *done = *total = 0;
  for (guint i = 0; i < q->n_devices; i++) {
    *done += q->devices[i].loaded;
    *total += q->devices[i].total;
  }
}

Job *queue_current(const Queue *q) {
  for (guint r = 0; r < q->runs->len; r++) {
    const Run *run = g_ptr_array_index(q->runs, r);
    for (int i = 0; i < run->n; i++)
      if (!job_ended(run->jobs[i])) return run->jobs[i];
  }
  return NULL;
}
