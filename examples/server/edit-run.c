/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs that one engine edits together: their frames, previews, results and records; see edit-run.h. */
#include "edit-run.h"

#include "../json.h"
#include "media.h"

#include <string.h>

static void run_clear(gpointer data) {
  Run *run = data;
  for (int i = 0; i < run->n; i++) job_unref(run->jobs[i]);
  g_free(run->jobs);
  g_object_unref(run->cancellable);
  g_strfreev(run->active);
}

void run_release(gpointer run) {
  g_atomic_rc_box_release_full(run, run_clear);
}

Run *run_new(FkEngine *engine, gpointer device, guint most) {
  Run *run = g_atomic_rc_box_new0(Run);
  run->engine = engine;
  run->device = device;
  run->cancellable = g_cancellable_new();
  run->jobs = g_new(Job *, most);
  return run;
}

/* Not g_main_context_invoke, which calls at once where no thread owns the context. */
void run_post(GSourceFunc function, gpointer data, GDestroyNotify destroy) {
  g_autoptr(GSource) source = g_idle_source_new();
  g_source_set_priority(source, G_PRIORITY_DEFAULT);
  g_source_set_callback(source, function, data, destroy);
  g_source_attach(source, NULL);
}

/* ---- Progress ---- */

typedef struct {
  Run *run;
  const char *stage;
  gint64 current, total;
} Report;

static void report_free(gpointer data) {
  Report *r = data;
  run_release(r->run);
  g_free(r);
}

static gboolean on_report(gpointer data) {
  const Report *r = data;
  for (int i = 0; i < r->run->n; i++) job_progress(r->run->jobs[i], r->stage, r->current, r->total);
  return G_SOURCE_REMOVE;
}

static void on_progress(const char *stage, int64_t current, int64_t total, void *data) {
  Report *r = g_new(Report, 1);
  *r = (Report){g_atomic_rc_box_acquire(data), stage, current, total};
  run_post(on_report, r, report_free);
}

/* ---- Previews ---- */

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
  run_post(on_previewed, p, preview_free);
}

/* ---- Edits ---- */

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
  const int steps = (int)g_ascii_strtoll(fk_settings_decided(ask->settings, "steps"), NULL, 10);
  FkImage out = job->in;
  if (!fk_engine_output_size(run->engine, ask->settings, out.width, out.height, &out.width, &out.height, error))
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
  FkEngine *engine = run->engine;
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

void run_edit(Run *run) {
  g_autoptr(GError) error = NULL;
  if (!edit(run, 0, run->n, &error))
    for (int i = 0; i < run->n; i++) {
      GError *own = NULL;
      const bool again = run->n > 1 && !g_cancellable_is_cancelled(run->cancellable) && !fk_engine_dead(run->engine);
      if (!again)
        own = g_error_copy(error);
      else if (edit(run, i, 1, &own))
        continue;
      fail_error(&run->jobs[i]->trouble, own);
    }
  run->active = fk_engine_active(run->engine, run->jobs[0]->ask->settings);
}
