/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs; see jobs.h. */
#include "jobs.h"

#include "../json.h"

#include <string.h>
#include <unistd.h>

enum { JOB_BYTES = 8192, EVENT_BYTES = 64 };

typedef struct {
  JobWatch watch;
  gpointer data;
} Watch;

/* ---- One job ---- */

static void random_id(const Jobs *jobs, char id[JOB_ID + 1]) {
  guint8 bits[JOB_RANDOM / 2];
  if (getentropy(bits, sizeof bits)) g_error("getentropy: no random bits");
  if (jobs->instance) id += g_snprintf(id, JOB_INSTANCE + 2, "%s-", jobs->instance);
  for (guint i = 0; i < sizeof bits; i++) g_snprintf(id + 2 * i, 3, "%02x", bits[i]);
}

static void event_clear(gpointer event) {
  g_free(((JobEvent *)event)->data);
}

static void picture_clear(JobPicture *p) {
  if (p->file) g_bytes_unref(p->file);
  g_free(p->hash);
  g_free(p->manifest);
}

/* What only the work needs. */
static void drop_work(Job *job) {
  g_clear_pointer(&job->in.data, g_free);
  g_clear_pointer(&job->mask.data, g_free);
  for (int i = 0; i < job->n_references; i++) g_clear_pointer(&job->references[i].data, g_free);
  job->n_references = 0;
  for (int i = 0; job->out && i < job->ask->n; i++) g_free(job->out[i].data);
  g_clear_pointer(&job->out, g_free);
  g_clear_pointer(&job->results, g_free);
  for (int i = 0; job->manifests && i < job->ask->n; i++) g_free(job->manifests[i]);
  g_clear_pointer(&job->manifests, g_free);
  g_ptr_array_set_size(job->ask->images, 0);
  g_clear_pointer(&job->ask->mask, g_bytes_unref);
}

Job *job_ref(Job *job) {
  g_atomic_ref_count_inc(&job->refs);
  return job;
}

void job_unref(Job *job) {
  if (!g_atomic_ref_count_dec(&job->refs)) return;
  drop_work(job);
  for (int i = 0; job->pictures && i < job->ask->n; i++) picture_clear(&job->pictures[i]);
  g_free(job->pictures);
  g_strfreev(job->active);
  ask_free(job->ask);
  g_array_unref(job->events);
  g_array_unref(job->watches);
  failure_clear(&job->failure);
  failure_clear(&job->trouble);
  g_free(job->idempotency);
  g_free(job->body_hash);
  g_free(job);
}

bool job_ended(const Job *job) {
  return job->state >= JOB_DONE;
}

const char *job_state_name(const Job *job) {
  static const char *const names[] = {"queued", "running", "done", "failed", "cancelled"};
  return names[job->state];
}

/* A watch may take itself away, and no other. */
void job_event(Job *job, const char *name, char *data) {
  const JobEvent event = {name, data};
  const guint index = job->events->len;
  g_autoptr(Job) alive = job_ref(job);
  g_array_append_val(job->events, event);
  for (guint i = job->watches->len; i-- > 0;) {
    const Watch w = g_array_index(job->watches, Watch, i);
    w.watch(alive, index, w.data);
  }
}

gint64 job_eta_ms(const Job *job) {
  if (job->state != JOB_RUNNING || g_strcmp0(job->stage, "step") || job->current < 1) return -1;
  const gint64 ms = (g_get_monotonic_time() - job->started_us) / 1000;
  return ms * (job->total - job->current) / job->current;
}

void job_progress(Job *job, const char *stage, gint64 current, gint64 total) {
  g_autoptr(GString) text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  if (job_ended(job)) return;
  job->stage = stage;
  job->current = current;
  job->total = total;
  json_open(&j, NULL, '{');
  json_text(&j, "stage", stage);
  json_count(&j, "current", current);
  json_count(&j, "total", total);
  const gint64 eta = job_eta_ms(job);
  if (eta >= 0) json_count(&j, "eta_ms", eta);
  json_close(&j, '}');
  job_event(job, "progress", g_strdup(text->str));
}

void job_watch(Job *job, JobWatch watch, gpointer data) {
  const Watch w = {watch, data};
  g_array_append_val(job->watches, w);
}

void job_unwatch(Job *job, gpointer data) {
  for (guint i = job->watches->len; i-- > 0;)
    if (g_array_index(job->watches, Watch, i).data == data) g_array_remove_index(job->watches, i);
}

bool job_watched(const Job *job) {
  return job->watches->len;
}

/* ---- All jobs ---- */

bool jobs_is_instance(const char *name) {
  const gsize n = strlen(name);
  for (gsize i = 0; i < n; i++)
    if (!g_ascii_isalnum(name[i])) return false;
  return n && n <= JOB_INSTANCE;
}

void jobs_init(Jobs *jobs, const char *instance) {
  *jobs = (Jobs){.instance = instance,
                 .by_id = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)job_unref),
                 .by_key = g_hash_table_new(g_str_hash, g_str_equal),
                 .by_idempotency = g_hash_table_new(g_str_hash, g_str_equal)};
  g_queue_init(&jobs->ended);
}

void jobs_clear(Jobs *jobs) {
  g_queue_clear_full(&jobs->ended, (GDestroyNotify)job_unref);
  g_hash_table_unref(jobs->by_idempotency);
  g_hash_table_unref(jobs->by_key);
  g_hash_table_unref(jobs->by_id);
}

Job *jobs_add(Jobs *jobs, Ask *ask, const char *api) {
  Job *job = g_new0(Job, 1);
  g_atomic_ref_count_init(&job->refs);
  random_id(jobs, job->id);
  random_id(jobs, job->key);
  job->api = api;
  job->ask = ask;
  job->created = g_get_real_time() / G_USEC_PER_SEC;
  job->asked_us = g_get_monotonic_time();
  job->events = g_array_new(FALSE, FALSE, sizeof(JobEvent));
  g_array_set_clear_func(job->events, event_clear);
  job->watches = g_array_new(FALSE, FALSE, sizeof(Watch));
  g_hash_table_insert(jobs->by_id, job->id, job_ref(job));
  g_hash_table_insert(jobs->by_key, job->key, job);
  return job;
}

Job *jobs_find(Jobs *jobs, const char *id) {
  return g_hash_table_lookup(jobs->by_id, id);
}

Job *jobs_find_key(Jobs *jobs, const char *key) {
  return g_hash_table_lookup(jobs->by_key, key);
}

Job *jobs_find_idempotent(Jobs *jobs, const char *key, const char *body_hash, Failure *f) {
  Job *job = g_hash_table_lookup(jobs->by_idempotency, key);
  if (!job || !strcmp(job->body_hash, body_hash)) return job;
  fail(f, 422, "idempotency_mismatch", NULL, "Idempotency-Key: it was used with another request");
  return NULL;
}

void jobs_set_idempotent(Jobs *jobs, Job *job, const char *key, const char *body_hash) {
  job->idempotency = g_strdup(key);
  job->body_hash = g_strdup(body_hash);
  g_hash_table_insert(jobs->by_idempotency, job->idempotency, job);
}

void jobs_hold(Jobs *jobs, Job *job, gsize bytes) {
  jobs->held += bytes - job->held;
  job->held = bytes;
}

static char *end_data(const Job *job) {
  GString *text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  json_open(&j, NULL, '{');
  json_text(&j, "id", job->id);
  json_text(&j, "status", job_state_name(job));
  if (job->failure.status) {
    json_text(&j, "code", job->failure.code);
    json_text(&j, "message", job->failure.message);
  }
  json_close(&j, '}');
  return g_string_free(text, FALSE);
}

static gsize text_bytes(const char *text) {
  return text ? strlen(text) : 0;
}

/* JOB_BYTES: the job itself, its settings, and what allocations take beside what is in them. */
static gsize kept_bytes(const Job *job) {
  gsize bytes = JOB_BYTES + text_bytes(fk_settings_get(job->ask->settings, "prompt")) +
                text_bytes(fk_settings_get(job->ask->settings, "negative-prompt"));
  for (guint i = 0; i < job->events->len; i++)
    bytes += EVENT_BYTES + text_bytes(g_array_index(job->events, JobEvent, i).data);
  for (int i = 0; job->pictures && i < job->ask->n; i++)
    bytes += g_bytes_get_size(job->pictures[i].file) + text_bytes(job->pictures[i].manifest);
  return bytes;
}

static void unlink_idempotent(Jobs *jobs, Job *job) {
  if (job->idempotency && g_hash_table_lookup(jobs->by_idempotency, job->idempotency) == job)
    g_hash_table_remove(jobs->by_idempotency, job->idempotency);
}

void jobs_settle(Jobs *jobs, Job *job) {
  job->working = false;
  if (!job_ended(job)) return;
  drop_work(job);
  jobs_hold(jobs, job, kept_bytes(job));
  jobs->kept += job->held;
  g_queue_push_tail(&jobs->ended, job_ref(job));
}

void jobs_end(Jobs *jobs, Job *job, JobState state, const Failure *failure) {
  if (job_ended(job)) return;
  job->state = state;
  job->ended_us = g_get_monotonic_time();
  if (failure) job->failure = failure_copy(failure);
  if (state != JOB_DONE) unlink_idempotent(jobs, job); /* a key that led to nothing may be used again */
  if (!job->working) jobs_settle(jobs, job);
  job_event(job, state == JOB_DONE ? "done" : "error", end_data(job));
}

static void forget(Jobs *jobs, Job *job) {
  jobs->kept -= job->held;
  jobs_hold(jobs, job, 0);
  unlink_idempotent(jobs, job);
  g_hash_table_remove(jobs->by_key, job->key);
  g_hash_table_remove(jobs->by_id, job->id);
}

void jobs_expire(Jobs *jobs, guint keep_s, gsize keep_bytes) {
  const gint64 before = g_get_monotonic_time() - (gint64)keep_s * G_USEC_PER_SEC;
  for (GList *link = jobs->ended.head; link;) {
    Job *job = link->data;
    GList *next = link->next;
    if (job->ended_us > before && jobs->kept <= keep_bytes) return;
    if (!job_watched(job)) {
      forget(jobs, job);
      g_queue_delete_link(&jobs->ended, link);
      job_unref(job);
    }
    link = next;
  }
}
