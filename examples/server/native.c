/* SPDX-License-Identifier: Apache-2.0 */
/* The job API: POST /v1/edits, /v1/jobs/ID with result and events, and /v1/files. */
#include "api.h"
#include "edits.h"

#include <stdio.h>
#include <string.h>

static void add_error(Json *j, const Failure *f) {
  json_open(j, "error", '{');
  json_text(j, "message", f->message);
  json_text(j, "type", failure_type(f->status));
  json_text(j, "code", f->code);
  json_close(j, '}');
}

static void add_results(Json *j, const Exchange *x, const Job *job) {
  json_open(j, "results", '[');
  for (int i = 0; i < job->ask->n; i++) {
    json_open(j, NULL, '{');
    edits_picture(j, x, job, i, true);
    json_close(j, '}');
  }
  json_close(j, ']');
}

static char *job_json(const Exchange *x, const Job *job) {
  GString *text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  const gint64 eta = job_eta_ms(job);
  json_open(&j, NULL, '{');
  json_text(&j, "id", job->id);
  json_text(&j, "status", job_state_name(job));
  json_text(&j, "api", job->api);
  json_count(&j, "created", job->created);
  if (job->state == JOB_WAITING) {
    const int position = MAX(queue_position(x->server->queue, job), 0);
    json_count(&j, "position", position);
    json_count(&j, "eta_ms", queue_eta_ms(x->server->queue, position + 1));
  }
  if (job->state == JOB_RUNNING && job->stage) {
    json_text(&j, "stage", job->stage);
    json_count(&j, "step", job->current);
    json_count(&j, "steps", job->total);
    if (eta >= 0) json_count(&j, "eta_ms", eta);
  }
  if (job->state == JOB_DONE) add_results(&j, x, job);
  if (job->failure.status) add_error(&j, &job->failure);
  json_close(&j, '}');
  return g_string_free(text, FALSE);
}

static void send_picture(Exchange *x, const Job *job, gint64 i) {
  if (i < 0 || i >= job->ask->n)
    exchange_refuse(x, 404, "not_found", "the job has no result of this number");
  else
    exchange_bytes(x, 200, media_type(job->ask->format), job->pictures[i].file);
}

/* ---- POST /v1/edits ---- */

/* For curl -H 'Accept: image/png' -o. */
static bool wants_picture(const Exchange *x) {
  const char *accept = exchange_header(x, "Accept");
  return accept && g_str_has_prefix(accept, "image/");
}

static void answer(Exchange *x, Job *job, const EditAnswer *how) {
  g_autofree char *address = g_strconcat("/v1/jobs/", job->id, NULL);
  g_autofree char *text = how->detached ? job_json(x, job) : NULL;
  if (job->state == JOB_FAILED || (job_ended(job) && job->state != JOB_DONE)) {
    exchange_fail(x, &job->failure);
  } else if (how->detached) {
    job->detached = true;
    exchange_add(x, "Location", address);
    exchange_json(x, 202, text);
  } else if (wants_picture(x)) {
    send_picture(x, job, 0);
  } else {
    g_autofree char *result = edits_json(x, job, how->url);
    exchange_json(x, 200, result);
  }
}

/* A detached job is answered as soon as its picture was decoded, which is when it is queued. */
static void on_job(Exchange *x, Job *job, guint index, bool ended) {
  const EditAnswer *how = x->data;
  (void)index;
  if (!ended && !how->detached) return;
  g_autoptr(Job) alive = job_ref(job);
  answer(x, job, how);
  exchange_done(x);
}

void native_edits(Exchange *x) {
  g_auto(Form) form = {0};
  g_auto(Failure) f = {0};
  g_autoptr(Ask) ask = ask_new(x->server->defaults);
  EditAnswer how = {.most_previews = 50};
  const char *prefer = exchange_header(x, "Prefer");
  if (!exchange_form(x, &form, &f) || !edits_read(x, &form, ask, &how, &f)) {
    exchange_fail(x, &f);
    return;
  }
  if (how.stream) {
    exchange_refuse(x, 400, "unsupported", "stream: /v1/jobs/ID/events is the stream of a job");
    return;
  }
  how.detached = how.detached || (prefer && strstr(prefer, "respond-async"));
  g_autoptr(Job) job = exchange_submit(x, g_steal_pointer(&ask), "native", &f);
  if (!job) {
    exchange_fail(x, &f);
    return;
  }
  x->data = g_memdup2(&how, sizeof how);
  exchange_follow(x, job, on_job);
  if (job->events->len) on_job(x, job, 0, job_ended(job));
}

/* ---- /v1/jobs/ID ---- */

static Job *find(Exchange *x) {
  Job *job = jobs_find(&x->server->jobs, x->argument);
  if (!job) exchange_refuse(x, 404, "job_not_found", "there is no such job, or its results are no longer kept");
  return job;
}

void native_job(Exchange *x) {
  const Job *job = find(x);
  if (!job) return;
  g_autofree char *text = job_json(x, job);
  exchange_json(x, 200, text);
}

void native_cancel(Exchange *x) {
  Job *job = find(x);
  if (!job) return;
  queue_cancel(x->server->queue, job, 409, "cancelled", "the job was cancelled");
  g_autofree char *text = job_json(x, job);
  exchange_json(x, 200, text);
}

void native_result(Exchange *x) {
  const Job *job = find(x);
  const char *number = exchange_query(x, "i");
  gint64 i = 0;
  if (!job) return;
  if (job->failure.status) {
    exchange_fail(x, &job->failure);
    return;
  }
  if (job->state != JOB_DONE) {
    exchange_refuse(x, 404, "not_ready", "the job has no result yet: GET /v1/jobs/ID says how far it is");
    return;
  }
  if (number && !g_ascii_string_to_signed(number, 10, 0, ASK_RESULTS, &i, NULL)) i = -1;
  send_picture(x, job, i);
}

/* ---- Events ---- */

static void on_event(Exchange *x, Job *job, guint index, bool ended) {
  const JobEvent *event = &g_array_index(job->events, JobEvent, index);
  exchange_event(x, (int)index, event->name, event->data);
  if (ended) exchange_stream_end(x);
}

void native_events(Exchange *x) {
  Job *job = find(x);
  const char *last = job ? exchange_header(x, "Last-Event-ID") : NULL;
  guint64 next = 0;
  if (!job) return;
  if (!last) last = exchange_query(x, "last_event_id");
  if (last && g_ascii_string_to_unsigned(last, 10, 0, G_MAXINT, &next, NULL)) next++;
  exchange_stream(x);
  exchange_follow(x, job, on_event);
  g_autoptr(Job) alive = job_ref(job);
  exchange_keep_alive(x);
  for (; next < job->events->len; next++) {
    const JobEvent *event = &g_array_index(job->events, JobEvent, next);
    exchange_event(x, (int)next, event->name, event->data);
  }
  if (job_ended(job)) exchange_stream_end(x);
}

/* ---- /v1/files/KEY-NUMBER.FORMAT: whoever knows the 128 bits may have the picture ---- */

/* Of this server or of another one that writes to the same folder. */
static bool is_key(const char *key) {
  const char *dash = strchr(key, '-'), *bits = dash ? dash + 1 : key;
  g_autofree char *instance = dash ? g_strndup(key, (gsize)(dash - key)) : NULL;
  return (!instance || jobs_is_instance(instance)) && strlen(bits) == JOB_RANDOM &&
         strspn(bits, "0123456789abcdef") == JOB_RANDOM;
}

void native_file(Exchange *x) {
  const char *dash = strrchr(x->argument, '-');
  g_autofree char *key = dash ? g_strndup(x->argument, (gsize)(dash - x->argument)) : g_strdup("");
  char end[8] = "", rest;
  int i;
  const bool named = dash && is_key(key) && sscanf(dash, "-%2d.%7[a-z]%c", &i, end, &rest) == 2 && media_format(end);
  const Job *job = named ? jobs_find_key(&x->server->jobs, key) : NULL;
  if (job && job->state == JOB_DONE && !strcmp(end, media_name(job->ask->format))) {
    send_picture(x, job, i);
    return;
  }
  if (named && x->server->output_dir) {
    g_autofree char *name = g_strdup_printf("%s-%d.%s", key, i, end);
    g_autofree char *path = g_build_filename(x->server->output_dir, name, NULL), *data = NULL;
    gsize n;
    if (g_file_get_contents(path, &data, &n, NULL)) {
      g_autoptr(GBytes) bytes = g_bytes_new_take(g_steal_pointer(&data), n);
      exchange_bytes(x, 200, media_type(media_format(end)), bytes);
      return;
    }
  }
  exchange_refuse(x, 404, "not_found", "there is no such picture, or it is no longer kept");
}
