/* SPDX-License-Identifier: Apache-2.0 */
/* fluxkontext-server: edits over HTTP.
 *
 *   fluxkontext-server -m MODEL [--listen 127.0.0.1:8000] [PROPERTY=VALUE ...]
 *
 * Threads: HTTP and all bookkeeping on the main thread; one thread for each device; two that decode and encode
 * pictures. Exit status: 0 after SIGTERM or SIGINT and a drained queue, 1 an error, 2 usage. */
#include "../tool.h"
#include "api.h"
#include "guard.h"
#include "listen.h"

#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static const char program[] = "fluxkontext-server";

static const HttpRoute routes[] = {
    {"POST", "/v1/images/edits", openai_edits, HTTP_WORK},
    {"POST", "/v1/images/generations", openai_generations, HTTP_WORK},
    {"GET", "/v1/models", openai_models, 0},
    {"GET", "/v1/models/*", openai_models, 0},
    {"POST", "/v1/edits", native_edits, HTTP_WORK},
    {"GET", "/v1/jobs/*", native_job, 0},
    {"DELETE", "/v1/jobs/*", native_cancel, 0},
    {"GET", "/v1/jobs/*/result", native_result, 0},
    {"GET", "/v1/jobs/*/events", native_events, 0},
    {"GET", "/v1/files/*", native_file, HTTP_OPEN},
    {"POST", "/inference", fire_inference, HTTP_WORK | HTTP_DETAIL},
    {"GET", "/benchmark", fire_benchmark, HTTP_WORK | HTTP_DETAIL},
    {"POST", "/v1/flux-kontext-pro", bfl_edit, HTTP_WORK | HTTP_DETAIL},
    {"POST", "/v1/flux-kontext-max", bfl_edit, HTTP_WORK | HTTP_DETAIL},
    {"POST", "/v1/flux-kontext-dev", bfl_edit, HTTP_WORK | HTTP_DETAIL},
    {"GET", "/v1/get_result", bfl_result, HTTP_DETAIL},
    {"POST", "/sdapi/v1/img2img", a1111_img2img, HTTP_WORK | HTTP_DETAIL},
    {"GET", "/sdapi/v1/options", a1111_options, HTTP_DETAIL},
    {"POST", "/sdapi/v1/options", a1111_set_options, HTTP_DETAIL},
    {"GET", "/sdapi/v1/sd-models", a1111_models, HTTP_DETAIL},
    {"GET", "/sdapi/v1/samplers", a1111_samplers, HTTP_DETAIL},
    {"GET", "/sdapi/v1/progress", a1111_progress, HTTP_DETAIL},
    {"POST", "/sdapi/v1/interrupt", a1111_interrupt, HTTP_DETAIL},
    {"GET", "/", page_html, HTTP_OPEN},
    {"GET", "/v1/settings", page_settings, 0},
    {"GET", "/openapi.json", page_openapi, HTTP_OPEN},
    {"GET", "/health", status_health, HTTP_OPEN},
    {"GET", "/livez", status_live, HTTP_OPEN},
    {"GET", "/readyz", status_ready, HTTP_OPEN},
    {"GET", "/metrics", status_metrics, 0},
    {0},
};

/* ---- Time ---- */

static void expire_jobs(Server *server, gint64 now) {
  g_autoptr(GPtrArray) late = g_ptr_array_new();
  GHashTableIter iter;
  gpointer value;
  g_hash_table_iter_init(&iter, server->jobs.by_id);
  while (g_hash_table_iter_next(&iter, NULL, &value)) {
    Job *job = value;
    if (!job_ended(job) && now - job->asked_us > server->limits.time_s * G_USEC_PER_SEC) g_ptr_array_add(late, job);
  }
  for (guint i = 0; i < late->len; i++)
    queue_cancel(server->queue, g_ptr_array_index(late, i), 504, "timeout", "the job took longer than --timeout");
  jobs_expire(&server->jobs, server->limits.keep_s, server->limits.keep_bytes);
}

/* Requests that have been read and not been answered. */
static bool answering(const Server *server) {
  for (guint i = 0; i < server->exchanges->len; i++)
    if (((const Exchange *)g_ptr_array_index(server->exchanges, i))->read) return true;
  return false;
}

static gboolean on_tick(gpointer data) {
  Server *server = data;
  const gint64 now = g_get_monotonic_time();
  const bool busy = !queue_idle(server->queue) || answering(server);
  if (busy) server->busy_us = now;
  expire_jobs(server, now);
  const bool idle = server->limits.idle_s && now - server->busy_us > server->limits.idle_s * G_USEC_PER_SEC;
  if (idle || (server->draining && (!busy || now > server->drain_until_us))) g_main_loop_quit(server->loop);
  return G_SOURCE_CONTINUE;
}

/* The first signal drains; its source is gone then, so that a second one ends the process. */
static gboolean on_signal(gpointer data) {
  Server *server = data;
  if (!server->draining) {
    server->draining = true;
    server->drain_until_us = g_get_monotonic_time() + server->limits.drain_s * G_USEC_PER_SEC;
    g_printerr("%s: ending: %u jobs wait, %u run\n", program, queue_depth(server->queue), queue_running(server->queue));
  }
  return G_SOURCE_REMOVE;
}

static void on_broken(const char *message, gpointer data) {
  Server *server = data;
  g_printerr("%s: %s\n", program, message);
  server->status = 1;
  g_main_loop_quit(server->loop);
}

/* ---- Options ---- */

typedef struct {
  char *model, *name, *instance, *listen, *token_file, *origin, *output_dir, *devices;
  char **hosts;
  gboolean log_prompts;
  int queue, batch, connections, body, memory, pixels, time, keep, keep_memory, drain, idle;
} Arguments;

static bool in_range(const char *option, int value, int min, int max, GError **error) {
  if (value >= min && value <= max) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s=%d: expected %d to %d", option, value, min, max);
  return false;
}

static bool check_arguments(const Arguments *a, GError **error) {
  return in_range("--queue", a->queue, 1, 10000, error) && in_range("--batch", a->batch, 1, FK_FRAMES, error) &&
         in_range("--connections", a->connections, 1, 10000, error) &&
         in_range("--max-body", a->body, 1, 1024, error) && in_range("--max-memory", a->memory, 1, 1 << 20, error) &&
         in_range("--max-pixels", a->pixels, 1, 256, error) && in_range("--timeout", a->time, 1, 86400, error) &&
         in_range("--keep-results", a->keep, 0, 86400, error) &&
         in_range("--keep-memory", a->keep_memory, 0, 1 << 20, error) &&
         in_range("--drain", a->drain, 0, 86400, error) && in_range("--exit-idle", a->idle, 0, 86400 * 30, error);
}

static ServerLimits limits_of(const Arguments *a) {
  const gsize mib = 1 << 20;
  return (ServerLimits){.body = (gsize)a->body * mib,
                        .memory = (gsize)a->memory * mib,
                        .keep_bytes = (gsize)a->keep_memory * mib,
                        .pixels = (gint64)a->pixels * 1000000,
                        .queue = (guint)a->queue,
                        .batch = (guint)a->batch,
                        .connections = (guint)a->connections,
                        .time_s = (guint)a->time,
                        .keep_s = (guint)a->keep,
                        .drain_s = (guint)a->drain,
                        .idle_s = (guint)a->idle};
}

/* "0,2", "all", or NULL: one, as cuda-device-id says. (transfer full): the options of each, NULL-terminated. */
static FkOptions **device_options(const FkOptions *options, const char *devices, GError **error) {
  g_autoptr(GPtrArray) all = g_ptr_array_new();
  g_autoptr(GString) found = g_string_new(NULL);
  FkMachine machine;
  for (int i = 0; !g_strcmp0(devices, "all") && fk_machine("cuda", i, false, &machine, NULL); i++)
    g_string_append_printf(found, "%s%d", i ? "," : "", i);
  g_auto(GStrv) ids = g_strsplit(found->len ? found->str : devices ? devices : "", ",", -1);
  if (!devices) g_ptr_array_add(all, fk_options_copy(options));
  bool ok = true;
  for (char **id = ids; ok && devices && *id; id++) {
    g_ptr_array_add(all, fk_options_copy(options));
    ok = fk_options_set(g_ptr_array_index(all, all->len - 1), "cuda-device-id", *id, error);
  }
  g_ptr_array_add(all, NULL);
  if (ok) return (FkOptions **)g_ptr_array_free(g_steal_pointer(&all), FALSE);
  for (guint i = 0; i + 1 < all->len; i++) fk_options_free(g_ptr_array_index(all, i));
  return NULL;
}

static bool read_options(Server *server, const Arguments *a, char **pairs, GError **error) {
  g_autoptr(FkOptions) options = fk_options_new();
  if (!fk_options_set(options, "model-path", a->model, error)) return false;
  for (char **pair = pairs; *pair; pair++)
    if (!tool_set(options, server->defaults, *pair, error)) return false;
  server->options = device_options(options, a->devices, error);
  if (!server->options || !fk_settings_check(server->defaults, error)) return false;
  tool_tell_idle(program, server->defaults, false);
  const char *path = fk_options_get(options, "model-path");
  g_autofree char *base = path && *path ? g_path_get_basename(path) : g_strdup("fluxkontext");
  server->model = g_utf8_make_valid(a->name ? a->name : base, -1);
  server->source = g_strdup(path);
  return true;
}

static bool prepare(Server *server, const Arguments *a, char **pairs, GError **error) {
  server->defaults = fk_settings_new();
  server->limits = limits_of(a);
  server->hosts = g_strdupv(a->hosts);
  server->origin = g_strdup(a->origin);
  server->output_dir = g_strdup(a->output_dir);
  server->log_prompts = a->log_prompts;
  server->started = g_get_real_time() / G_USEC_PER_SEC;
  server->busy_us = g_get_monotonic_time();
  if (a->instance && !jobs_is_instance(a->instance)) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "--instance %s: expected 1 to %d letters and digits", a->instance,
                JOB_INSTANCE);
    return false;
  }
  if (!check_arguments(a, error) || !read_options(server, a, pairs, error)) return false;
  if (a->token_file && !(server->token = guard_read_token(a->token_file, error))) return false;
  if (!a->output_dir || g_file_test(a->output_dir, G_FILE_TEST_IS_DIR)) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "--output-dir %s: no such folder", a->output_dir);
  return false;
}

/* ---- Life ---- */

static bool run(Server *server, const Arguments *a, char **pairs, GError **error) {
  if (!prepare(server, a, pairs, error)) return false;
  const QueueLimits limits = {server->limits.queue, (int)server->limits.batch, server->output_dir};
  server->loop = g_main_loop_new(NULL, FALSE);
  jobs_init(&server->jobs, a->instance);
  server->queue =
      queue_new(server->options, server->defaults, limits, &server->jobs, &server->metrics, on_broken, server, error);
  if (!server->queue) return false;
  http_start(server, routes);
  if (!listen_start(server, a->listen, error)) return false;
  g_unix_signal_add(SIGTERM, on_signal, server);
  g_unix_signal_add(SIGINT, on_signal, server);
  g_timeout_add(200, on_tick, server);
  g_main_loop_run(server->loop);
  return true;
}

static void server_clear(Server *server) {
  if (server->queue) queue_free(server->queue); /* answers those who still wait */
  for (int i = 0; i < 100 && server->soup && answering(server); i++) {
    g_main_context_iteration(NULL, FALSE);
    g_usleep(10000);
  }
  listen_stop(server);
  if (server->soup) http_stop(server);
  if (server->jobs.by_id) jobs_clear(&server->jobs);
  for (FkOptions **o = server->options; o && *o; o++) fk_options_free(*o);
  g_free(server->options);
  fk_settings_free(server->defaults);
  g_clear_pointer(&server->loop, g_main_loop_unref);
  g_strfreev(server->hosts);
  g_free(server->model);
  g_free(server->source);
  g_free(server->token);
  g_free(server->origin);
  g_free(server->output_dir);
}

static int serve(Arguments *a, char **pairs) {
  Server server = {0};
  g_autoptr(GError) error = NULL;
  signal(SIGPIPE, SIG_IGN);
  const bool ok = run(&server, a, pairs, &error);
  server_clear(&server);
  listen_remove(a->listen);
  if (ok) return server.status;
  fprintf(stderr, "%s: %s\n", program, error->message);
  return 1;
}

int main(int argc, char **argv) {
  Arguments a = {.queue = 16,
                 .batch = 4,
                 .connections = 64,
                 .body = 32,
                 .memory = 256,
                 .pixels = 64,
                 .time = 600,
                 .keep = 600,
                 .keep_memory = 128,
                 .drain = 30};
  const GOptionEntry entries[] = {
      {"model", 'm', 0, G_OPTION_ARG_FILENAME, &a.model, "Folder of the model", "FOLDER"},
      {"name", 0, 0, G_OPTION_ARG_STRING, &a.name, "Name of the model for clients", "NAME"},
      {"instance", 0, 0, G_OPTION_ARG_STRING, &a.instance, "Start of its ids, for proxies before several", "NAME"},
      {"devices", 0, 0, G_OPTION_ARG_STRING, &a.devices, "GPUs, one engine each: 0,1 or all", "LIST"},
      {"listen", 'l', 0, G_OPTION_ARG_STRING, &a.listen, "127.0.0.1:8000, [::1]:8000 or unix:PATH", "ADDRESS"},
      {"token-file", 0, 0, G_OPTION_ARG_FILENAME, &a.token_file, "File with the token that clients send", "FILE"},
      {"host", 0, 0, G_OPTION_ARG_STRING_ARRAY, &a.hosts, "Further name of this server in Host", "NAME"},
      {"allow-origin", 0, 0, G_OPTION_ARG_STRING, &a.origin, "Origin of a page that may read answers", "URL"},
      {"output-dir", 0, 0, G_OPTION_ARG_FILENAME, &a.output_dir, "Also write results here", "FOLDER"},
      {"queue", 0, 0, G_OPTION_ARG_INT, &a.queue, "Jobs that may wait (16)", "N"},
      {"batch", 0, 0, G_OPTION_ARG_INT, &a.batch, "Pictures in one edit (4)", "N"},
      {"connections", 0, 0, G_OPTION_ARG_INT, &a.connections, "Open connections (64)", "N"},
      {"max-body", 0, 0, G_OPTION_ARG_INT, &a.body, "MiB of one request (32)", "MIB"},
      {"max-memory", 0, 0, G_OPTION_ARG_INT, &a.memory, "MiB of requests and pictures in work (256)", "MIB"},
      {"max-pixels", 0, 0, G_OPTION_ARG_INT, &a.pixels, "Megapixels of one picture (64)", "MP"},
      {"timeout", 0, 0, G_OPTION_ARG_INT, &a.time, "Seconds that a job may take (600)", "S"},
      {"keep-results", 0, 0, G_OPTION_ARG_INT, &a.keep, "Seconds for which results are kept (600)", "S"},
      {"keep-memory", 0, 0, G_OPTION_ARG_INT, &a.keep_memory, "MiB of results that are kept (128)", "MIB"},
      {"drain", 0, 0, G_OPTION_ARG_INT, &a.drain, "Seconds for the queue after SIGTERM (30)", "S"},
      {"exit-idle", 0, 0, G_OPTION_ARG_INT, &a.idle, "End after so long without a request", "S"},
      {"log-prompts", 0, 0, G_OPTION_ARG_NONE, &a.log_prompts, "Write prompts to standard error", NULL},
      {NULL, 0, 0, 0, NULL, NULL, NULL}};
  int status;
  if (!tool_begin(program, "[PROPERTY=VALUE ...]",
                  "  fluxkontext-server -m MODEL preset=balanced\n"
                  "Edits pictures over HTTP, with a page for browsers. PROPERTY: see\n"
                  "fluxkontext-properties(7).\n"
                  "Exit: 0 ended by a signal, 1 an error, 2 usage.",
                  entries, &argc, &argv, &status))
    return status;
  if (!a.listen) a.listen = g_strdup("127.0.0.1:8000");
  status = serve(&a, argv + 1);
  g_strfreev(a.hosts);
  char *const texts[] = {a.model, a.name, a.instance, a.listen, a.token_file, a.origin, a.output_dir, a.devices};
  for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) g_free(texts[i]);
  return tool_end(program, status);
}
