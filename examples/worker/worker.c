/* SPDX-License-Identifier: Apache-2.0 */
/* fluxkontext-worker: takes edits from a NATS JetStream queue until it is told to stop.
 *
 *   fluxkontext-worker -m MODEL --nats nats://host:4222 --root /shared [property=value ...]
 *
 * For each job: is its result there already (same id)? Then it is skipped. Otherwise read, edit, write the image whole,
 * then its record, then tell the queue. So a job that is given out twice, because a worker died or a network failed, is
 * done once or twice with the same bytes. What ends how: perform.c.
 * Threads: this one works; nats-queue.c reports in another that the job is alive; a third waits for signals.
 * Exit status: 0 stopped or idle, 1 an error (one line on stderr), 2 usage, 75 the GPU is lost and the process must be
 * started again. Standard output: one JSON object a line for each job. */
#include "metrics.h"
#include "nats-queue.h"
#include "perform.h"
#include "tool.h"

#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>

static const char name[] = "fluxkontext-worker";
static GCancellable *cancellable; /* of the job in flight */
static int stopping;              /* atomic: no further job */

typedef struct {
  char *model, *nats, *credentials, *queue, *endpoint, *region, *metrics, **roots, **urls;
  int max_jobs, exit_idle;
} Arguments;

/* The first signal lets the job in flight finish, the second gives it back to the queue. */
static gboolean on_signal(gpointer data) {
  (void)data;
  if (g_atomic_int_get(&stopping)) g_cancellable_cancel(cancellable);
  g_atomic_int_set(&stopping, 1);
  return G_SOURCE_CONTINUE;
}

static gpointer run_loop(gpointer loop) {
  g_main_loop_run(loop);
  return NULL;
}

static void watch_signals(void) {
  cancellable = g_cancellable_new();
  g_unix_signal_add(SIGINT, on_signal, NULL);
  g_unix_signal_add(SIGTERM, on_signal, NULL);
  g_thread_unref(g_thread_new("signals", run_loop, g_main_loop_new(NULL, FALSE)));
}

/* One job to its end. False: the process is of no use any more. */
static bool serve(Perform *p, NatsJob *job) {
  const PerformEnd end = perform(p, nats_job_text(job), nats_job_bytes(job), nats_job_deliveries(job), cancellable);
  metrics_count(end.result, end.ms);
  switch (end.after) {
  case AFTER_FINISH:
    if (!nats_job_finish(job)) fprintf(stderr, "%s: the server did not take the end of a job; it comes again\n", name);
    break;
  case AFTER_RETRY: nats_job_retry(job, end.seconds); break;
  case AFTER_DROP: nats_job_drop(job); break;
  }
  return !end.lost;
}

/* Exit status. Time counts as idle from the last job or error, at first from the first answer of the queue. */
static int work(Perform *p, NatsQueue *queue, int exit_idle) {
  gint64 last = 0;
  while (!g_atomic_int_get(&stopping)) {
    g_autoptr(GError) problem = NULL;
    NatsJob *job = nats_queue_next(queue, 1000, &problem);
    if (problem) { /* a server that is being started again refuses for a moment */
      fprintf(stderr, "%s: %s\n", name, problem->message);
      g_usleep(500000);
    }
    if (job && !serve(p, job)) return 75;
    const gint64 now = g_get_monotonic_time();
    if (job || problem || !last) last = now;
    if (exit_idle > 0 && now - last > exit_idle * G_TIME_SPAN_SECOND) return 0;
  }
  return 0;
}

static bool open_engine(const Arguments *a, char **pairs, FkEngine **engine, FkSettings *settings, GError **error) {
  g_autoptr(FkOptions) options = fk_options_new();
  if (a->model && !fk_options_set(options, "model-path", a->model, error)) return false;
  for (; *pairs; pairs++)
    if (!tool_set(options, settings, *pairs, error)) return false;
  if (!fk_settings_check(settings, error)) return false;
  tool_tell_idle(name, settings, false);
  return (*engine = fk_engine_open(options, cancellable, NULL, NULL, error)) != NULL;
}

/* Jobs for any machine, and those for machines of this one's class. */
static NatsQueue *open_queue(const Arguments *a, FkEngine *engine, GError **error) {
  const NatsConfig config = {.url = a->nats, .credentials = a->credentials, .name = a->queue, .max_jobs = a->max_jobs};
  g_autoptr(NatsQueue) queue = nats_queue_open(&config, error);
  if (!queue) return NULL;
  g_autofree char *class = fk_engine_class(engine), *part = nats_queue_class(class);
  return nats_queue_take_class(queue, part, error) ? g_steal_pointer(&queue) : NULL;
}

static bool run(const Arguments *a, char **pairs, int *status, GError **error) {
  const StoreConfig config = {.roots = (const char *const *)a->roots,
                              .prefixes = (const char *const *)a->urls,
                              .endpoint = a->endpoint,
                              .region = a->region,
                              .max_bytes = (uint64_t)1 << 30,
                              .attempts = 5};
  g_autoptr(Store) store = store_new(&config, error);
  g_autoptr(FkSettings) settings = fk_settings_new();
  g_autoptr(FkEngine) engine = NULL;
  if (!store || !open_engine(a, pairs, &engine, settings, error)) return false;
  g_autoptr(NatsQueue) queue = open_queue(a, engine, error);
  if (!queue || (a->metrics && !metrics_listen(a->metrics, engine, error))) return false;
  Perform p = {.engine = engine, .store = store, .settings = settings, .rules = WORK_RULES};
  fprintf(stderr, "%s: waiting for jobs of queue %s on %s\n", name, a->queue, fk_engine_machine(engine));
  *status = work(&p, queue, a->exit_idle);
  return true;
}

int main(int argc, char **argv) {
  Arguments a = {.max_jobs = 100000};
  const GOptionEntry entries[] = {
      {"model", 'm', 0, G_OPTION_ARG_FILENAME, &a.model, "The model", "PATH"},
      {"nats", 0, 0, G_OPTION_ARG_STRING, &a.nats, "Servers (default nats://127.0.0.1:4222)", "URL[,URL]"},
      {"credentials", 0, 0, G_OPTION_ARG_FILENAME, &a.credentials, "Credentials for the servers", "FILE"},
      {"queue", 'q', 0, G_OPTION_ARG_STRING, &a.queue, "Name of the queue (default edits)", "NAME"},
      {"max-jobs", 0, 0, G_OPTION_ARG_INT, &a.max_jobs, "Most jobs of a queue that is made now", "N"},
      {"root", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &a.roots, "Folder that file: URIs may be in; again for more", "DIR"},
      {"allow-url", 0, 0, G_OPTION_ARG_STRING_ARRAY, &a.urls, "Prefix that presigned URLs may have", "URL/"},
      {"s3-endpoint", 0, 0, G_OPTION_ARG_STRING, &a.endpoint, "Store of s3: URIs; keys from the environment", "URL"},
      {"s3-region", 0, 0, G_OPTION_ARG_STRING, &a.region, "Its region (default us-east-1)", "NAME"},
      {"exit-idle", 0, 0, G_OPTION_ARG_INT, &a.exit_idle, "End after so long without a job; 0 = never", "SECONDS"},
      {"metrics", 0, 0, G_OPTION_ARG_STRING, &a.metrics, "Serve /metrics and /readyz here", "HOST:PORT"},
      {NULL, 0, 0, 0, NULL, NULL, NULL}};
  g_autoptr(GError) error = NULL;
  int status = 0;
  if (!tool_begin(name, "[PROPERTY=VALUE ...]",
                  "Takes edits from a queue on NATS JetStream, until SIGTERM:\n"
                  "  fluxkontext-worker -m MODEL --nats nats://host:4222 --root /shared\n"
                  "PROPERTY=VALUE: options of the engine, and settings of jobs that say nothing\n"
                  "else. `fluxkontext-batch submit --help` is the other side.\n"
                  "Exit: 0 stopped or idle, 1 error, 2 usage, 75 GPU lost (start again).",
                  entries, &argc, &argv, &status))
    return status;
  if (!a.nats) a.nats = g_strdup("nats://127.0.0.1:4222");
  if (!a.queue) a.queue = g_strdup("edits");
  if (!photo_start(argv[0], &error)) {
    fprintf(stderr, "%s: %s\n", name, error->message);
    return 1;
  }
  watch_signals();
  if (run(&a, argv + 1, &status, &error)) return tool_end(name, status);
  fprintf(stderr, "%s: %s\n", name, error->message);
  return g_error_matches(error, FK_ERROR, FK_ERROR_CANCELLED) ? 0 : 1;
}
