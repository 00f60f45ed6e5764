/* SPDX-License-Identifier: Apache-2.0 */
/* Devices, batches and helper threads; see queue.h.
 *
 * Threads: `lock` guards what waits, which run a job belongs to, and `cancelled`. A run's jobs are the device thread's
 * from take() until on_edited comes to the main thread; a job's pixels then are a helper's until on_encoded. All else
 * is the main thread's. Messages to the main thread keep their order. */
#include "queue.h"

#include "../json.h"
#include "pixels.h"

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

/* Jobs that are edited together. */
typedef struct {
  Queue *queue;
  Device *device;
  Job **jobs; /* [n], a reference each */
  int n;
  GCancellable *cancellable;
  char **active;
} Run;

static void run_clear(gpointer data) {
  Run *run = data;
  for (int i = 0; i < run->n; i++) job_unref(run->jobs[i]);
  g_free(run->jobs);
  g_object_unref(run->cancellable);
  g_strfreev(run->active);
}

static void run_release(gpointer run) {
  g_atomic_rc_box_release_full(run, run_clear);
}

/* ---- To the main thread ---- */

/* Not g_main_context_invoke, which calls at once where no thread owns the context. */
static void post(GSourceFunc function, gpointer data, GDestroyNotify destroy) {
  g_autoptr(GSource) source = g_idle_source_new();
  g_source_set_priority(source, G_PRIORITY_DEFAULT);
  g_source_set_callback(source, function, data, destroy);
  g_source_attach(source, NULL);
}

typedef struct {
  Device *device;
  Run *run; /* NULL: loading */
  const char *stage;
  gint64 current, total;
} Report;

static void report_free(gpointer data) {
  Report *r = data;
  if (r->run) run_release(r->run);
  g_free(r);
}

static gboolean on_report(gpointer data) {
  const Report *r = data;
  if (!r->run) {
    r->device->loaded = r->current;
    r->device->total = r->total;
  }
  for (int i = 0; r->run && i < r->run->n; i++) job_progress(r->run->jobs[i], r->stage, r->current, r->total);
  return G_SOURCE_REMOVE;
}

static void report(Device *device, Run *run, const char *stage, int64_t current, int64_t total) {
  Report *r = g_new(Report, 1);
  *r = (Report){device, run ? g_atomic_rc_box_acquire(run) : NULL, stage, current, total};
  post(on_report, r, report_free);
}

static void on_progress(const char *stage, int64_t current, int64_t total, void *data) {
  Run *run = data;
  report(run->device, run, stage, current, total);
}

static void on_loading(const char *stage, int64_t current, int64_t total, void *data) {
  report(data, NULL, stage, current, total);
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
  post(c->encode ? on_encoded : on_decoded, c, chore_free);
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
    run = g_atomic_rc_box_new0(Run);
    run->queue = q;
    run->device = d;
    run->cancellable = g_cancellable_new();
    run->jobs = g_new(Job *, q->waiting.length);
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

typedef struct {
  Run *run;
  Job *job;
  int picture, evaluation, evaluations;
  GBytes *file; /* PNG */
} Preview;

static void preview_free(gpointer data) {
  Preview *p = data;
  run_release(p->run);
  job_unref(p->job);
  g_bytes_unref(p->file);
  g_free(p);
}

static gboolean on_previewed(gpointer data) {
  const Preview *p = data;
  g_autoptr(GString) text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  gsize n;
  const guchar *file = g_bytes_get_data(p->file, &n);
  g_autofree char *base64 = g_base64_encode(file, n);
  if (job_ended(p->job) || p->job->previews >= p->job->ask->previews * p->job->ask->n) return G_SOURCE_REMOVE;
  json_open(&j, NULL, '{');
  json_count(&j, "index", p->job->previews++);
  json_count(&j, "picture", p->picture);
  json_count(&j, "evaluation", p->evaluation);
  json_count(&j, "evaluations", p->evaluations);
  json_text(&j, "output_format", "png");
  json_text(&j, "b64_json", base64);
  json_close(&j, '}');
  job_event(p->job, "preview", g_strdup(text->str));
  return G_SOURCE_REMOVE;
}

/* data: one of the templates of make_frames. */
static void on_preview(int evaluation, int evaluations, const FkImage *image, void *data) {
  const Preview *target = data;
  g_auto(Failure) f = {0};
  GBytes *file = media_encode(image, MEDIA_PNG, -1, &f);
  if (!file) return;
  Preview *p = g_new(Preview, 1);
  *p = (Preview){
      g_atomic_rc_box_acquire(target->run), job_ref(target->job), target->picture, evaluation, evaluations, file};
  post(on_previewed, p, preview_free);
}

/* A failure to read the model's files again leaves it out. */
static char *manifest_of(FkEngine *engine, const FkJob *frame) {
  g_autofree char *text = fk_manifest(engine, frame, NULL);
  g_autoptr(JsonNode) node = text ? json_from_string(text, NULL) : NULL;
  return node ? json_to_string(node, FALSE) : NULL;
}

/* The pictures of one job of a run, from its own index on; previews: a template for each. */
static bool make_frames(Run *run, Job *job, FkJob *frames, Preview *previews, FkSettings **settings, GError **error) {
  const Ask *ask = job->ask;
  const guint64 seed = g_ascii_strtoull(fk_settings_get(ask->settings, "seed"), NULL, 10);
  const int steps = (int)g_ascii_strtoll(fk_settings_get(ask->settings, "steps"), NULL, 10);
  FkImage out = job->in;
  if (!fk_engine_output_size(run->device->engine, ask->settings, out.width, out.height, &out.width, &out.height, error))
    return false;
  out.stride = (size_t)out.width * (size_t)out.channels;
  if (!job->out) job->out = g_new0(FkImage, (gsize)ask->n);
  for (int i = 0; i < ask->n; i++) {
    g_autofree char *text = g_strdup_printf("%" G_GUINT64_FORMAT, seed + (guint64)i);
    settings[i] = fk_settings_copy(ask->settings);
    if (!fk_settings_set(settings[i], "seed", text, error)) return false;
    g_free(job->out[i].data);
    job->out[i] = out;
    job->out[i].data = g_try_malloc(out.stride * (size_t)out.height);
    if (!job->out[i].data) {
      g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "no memory for a result of %dx%d", out.width, out.height);
      return false;
    }
    previews[i] = (Preview){.run = run, .job = job, .picture = i};
    frames[i] = (FkJob){.in = job->in,
                        .out = job->out[i],
                        .settings = settings[i],
                        .mask = job->mask.data ? &job->mask : NULL,
                        .references = job->references,
                        .n_references = job->n_references,
                        .preview = on_preview,
                        .preview_every = ask->previews ? MAX(1, steps / (ask->previews + 1)) : 0,
                        .preview_data = &previews[i]};
  }
  return true;
}

/* Edits `n` jobs of the run from `first` on, in one call. */
static bool edit(Run *run, int first, int n, GError **error) {
  FkEngine *engine = run->device->engine;
  int count = 0, at = 0;
  for (int i = 0; i < n; i++) count += run->jobs[first + i]->ask->n;
  g_autofree FkJob *frames = g_new0(FkJob, (gsize)count);
  g_autofree Preview *previews = g_new0(Preview, (gsize)count);
  FkSettings **settings = g_new0(FkSettings *, (gsize)count);
  bool ok = true;
  for (int i = 0; ok && i < n; i++) {
    Job *job = run->jobs[first + i];
    ok = make_frames(run, job, frames + at, previews + at, settings + at, error);
    at += job->ask->n;
  }
  ok = ok && fk_engine_edit(engine, frames, count, run->cancellable, on_progress, run, error);
  at = 0;
  for (int i = 0; ok && i < n; i++) {
    Job *job = run->jobs[first + i];
    job->results = g_new(FkResult, (gsize)job->ask->n);
    job->manifests = g_new0(char *, (gsize)job->ask->n);
    for (int k = 0; k < job->ask->n; k++, at++) {
      job->results[k] = frames[at].result;
      job->manifests[k] = manifest_of(engine, &frames[at]);
    }
  }
  for (int i = 0; i < count; i++) fk_settings_free(settings[i]);
  g_free(settings);
  return ok;
}

static gboolean on_started(gpointer data) {
  Run *run = data;
  Queue *q = run->queue;
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
  Queue *q = run->queue;
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
  run->device->dead = fk_engine_dead(run->device->engine);
  if (queue_state(q) == QUEUE_DEAD) fail_waiting(q); /* its only threads have ended */
  return G_SOURCE_REMOVE;
}

/* All in one edit; where that fails, each by itself, so that nobody fails for what is another's. */
static void execute(Run *run) {
  g_autoptr(GError) error = NULL;
  post(on_started, g_atomic_rc_box_acquire(run), run_release);
  if (!edit(run, 0, run->n, &error))
    for (int i = 0; i < run->n; i++) {
      GError *own = NULL;
      const bool again =
          run->n > 1 && !g_cancellable_is_cancelled(run->cancellable) && !fk_engine_dead(run->device->engine);
      if (!again)
        own = g_error_copy(error);
      else if (edit(run, i, 1, &own))
        continue;
      fail_error(&run->jobs[i]->trouble, own);
    }
  run->active = fk_engine_active(run->device->engine, run->jobs[0]->ask->settings);
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
    post(on_broken, b, broken_free);
    return NULL;
  }
  post(on_loaded, d, NULL);
  for (Run *run; !fk_engine_dead(d->engine) && (run = take(d));) {
    execute(run);
    post(on_edited, run, run_release);
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
