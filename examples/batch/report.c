/* SPDX-License-Identifier: Apache-2.0 */
/* The runs of a determinism report; see report.h. */
#include "report.h"

#include "../json.h"
#include "write.h"

#include <stdio.h>
#include <string.h>

enum { BATCH = 3 };

typedef struct {
  const FkOptions *options;
  Work *work;
  int n;
  GPtrArray *modes;
  FkEngine *engine;  /* of the options as they are */
  const char *plain; /* hash of the plain edit */
} Report;

static void run_free(gpointer data) {
  ReportRun *r = data;
  g_free(r->sha);
  g_free(r->error);
  g_free(r->thumb.data);
  g_free(r);
}

static void mode_free(gpointer data) {
  ReportMode *m = data;
  g_free(m->mode);
  g_free(m->against);
  g_free(m->seed);
  g_free(m->steps);
  g_free(m->guidance);
  g_free(m->note);
  g_ptr_array_unref(m->runs);
  g_free(m);
}

static ReportMode *mode_new(Report *r, const char *mode, const char *against, const FkSettings *s) {
  ReportMode *m = g_new0(ReportMode, 1);
  m->mode = g_strdup(mode);
  m->against = g_strdup(against);
  m->seed = g_strdup(fk_settings_get(s, "seed"));
  m->steps = g_strdup(fk_settings_decided(s, "steps"));
  m->guidance = g_strdup(fk_settings_get(s, "guidance"));
  m->runs = g_ptr_array_new_with_free_func(run_free);
  g_ptr_array_add(r->modes, m);
  return m;
}

/* Nearest pixels: a thumbnail is to be recognised, not admired. */
static FkImage thumb_of(const FkImage *image) {
  const int side = MAX(image->width, image->height);
  FkImage t = {.width = MAX(1, image->width * REPORT_THUMB / side),
               .height = MAX(1, image->height * REPORT_THUMB / side),
               .channels = 3};
  t.stride = (size_t)t.width * 3;
  t.data = g_malloc(t.stride * (size_t)t.height);
  for (int y = 0; y < t.height; y++)
    for (int x = 0; x < t.width; x++)
      memcpy(t.data + (size_t)y * t.stride + (size_t)x * 3,
             image->data + (size_t)(y * image->height / t.height) * image->stride +
                 (size_t)(x * image->width / t.width) * (size_t)image->channels,
             3);
  return t;
}

/* ---- Edits ---- */

/* Frames of one edit: the first is the one that counts, the others are it upside down with other seeds. */
static bool edit(FkEngine *engine, const Report *r, const FkSettings *settings, int frames, FkJob *first,
                 GError **error) {
  FkJob jobs[BATCH] = {0};
  FkSettings *seeds[BATCH] = {NULL};
  const FkImage in = r->work->photo.image;
  const gsize bytes = in.stride * (gsize)in.height;
  g_autofree guint8 *other = g_malloc(bytes);
  for (gsize i = 0; i < bytes; i++) other[i] = in.data[bytes - 1 - i];
  bool ok = true;
  for (int i = 0; ok && i < frames; i++) {
    seeds[i] = fk_settings_copy(settings);
    g_autofree char *seed = g_strdup_printf("%d", 1000 + i);
    if (i) fk_settings_set(seeds[i], "seed", seed, NULL);
    jobs[i] = (FkJob){.in = in, .out = in, .settings = seeds[i]};
    if (i) jobs[i].in.data = other;
    jobs[i].out.data = NULL;
    ok = fk_engine_output_size(engine, settings, in.width, in.height, &jobs[i].out.width, &jobs[i].out.height, error);
    jobs[i].out.stride = (size_t)jobs[i].out.width * (size_t)in.channels;
    if (ok) jobs[i].out.data = g_malloc(jobs[i].out.stride * (size_t)jobs[i].out.height);
  }
  ok = ok && fk_engine_edit(engine, jobs, frames, NULL, NULL, NULL, error);
  *first = jobs[0];
  if (!ok) g_clear_pointer(&first->out.data, g_free);
  for (int i = 0; i < frames; i++) {
    if (i) g_free(jobs[i].out.data);
    fk_settings_free(seeds[i]);
  }
  return ok;
}

/* expected NULL: the mode's first run. */
static void run_once(Report *r, ReportMode *m, FkEngine *engine, const FkSettings *settings, int frames,
                     const char *expected) {
  g_autoptr(GError) error = NULL;
  ReportRun *run = g_new0(ReportRun, 1);
  const ReportRun *before = m->runs->len ? m->runs->pdata[0] : NULL;
  FkJob job;
  if (!expected && before) expected = before->sha ? before->sha : "a result";
  run->expected = expected;
  if (edit(engine, r, settings, frames, &job, &error)) {
    run->sha = g_compute_checksum_for_data(G_CHECKSUM_SHA256, job.out.data, job.out.stride * (gsize)job.out.height);
    run->ms = job.result.edit_ms;
    run->thumb = thumb_of(&job.out);
    g_free(job.out.data);
  } else {
    run->error = g_strdup(error->message);
  }
  run->equal = run->sha && (!expected || !strcmp(run->sha, expected));
  g_ptr_array_add(m->runs, run);
}

/* ---- Modes ---- */

static void plain(Report *r, const char *expected) {
  ReportMode *m = mode_new(r, "plain", expected ? "the record" : "its first run", r->work->settings);
  for (int i = 0; i < r->n; i++) run_once(r, m, r->engine, r->work->settings, 1, expected);
  const ReportRun *first = m->runs->pdata[0];
  r->plain = first->sha ? first->sha : "a result";
}

/* Whether the work's own value is not to stay: a record has all by value. Steps and solver stay where all presets have
 * the same, or where this one has the default's. */
static bool is_preset_s(const FkProperty *p, int preset) {
  if (p->scope != FK_SCOPE_SETTING || !p->presets[0]) return false;
  const bool one_edit = !strcmp(p->name, "steps") || !strcmp(p->name, "scheduler") || !strcmp(p->name, "sigmas");
  return !one_edit || strcmp(p->presets[preset], p->presets[0]);
}

/* What presets decide is theirs again. */
static void presets(Report *r) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  const char *const *names = NULL;
  for (size_t i = 0; i < n; i++)
    if (!strcmp(p[i].name, "preset")) names = p[i].values;
  for (int k = 0; names && names[k]; k++) {
    g_autoptr(FkSettings) settings = fk_settings_copy(r->work->settings);
    g_autofree char *mode = g_strdup_printf("preset=%s", names[k]);
    for (size_t i = 0; i < n; i++)
      if (is_preset_s(&p[i], k)) fk_settings_set(settings, p[i].name, NULL, NULL);
    fk_settings_set(settings, "preset", names[k], NULL);
    ReportMode *m = mode_new(r, mode, "its first run", settings);
    for (int i = 0; i < r->n; i++) run_once(r, m, r->engine, settings, 1, NULL);
  }
}

static void batches(Report *r) {
  ReportMode *m = mode_new(r, "in a batch of 3", "plain", r->work->settings);
  for (int i = 0; i < r->n; i++) run_once(r, m, r->engine, r->work->settings, BATCH, r->plain);
}

/* Threads of a CPU; graphs of a GPU. */
static void otherwise(Report *r) {
  g_auto(GStrv) active = fk_engine_active(r->engine, r->work->settings);
  const bool cuda = g_str_has_prefix(active[1], "cuda");
  if (cuda) {
    g_autoptr(FkSettings) settings = fk_settings_copy(r->work->settings);
    fk_settings_set(settings, "cuda-graph", "off", NULL);
    ReportMode *m = mode_new(r, "cuda-graph=off", "plain", settings);
    for (int i = 0; i < r->n; i++) run_once(r, m, r->engine, settings, 1, r->plain);
    return;
  }
  for (int threads = 1; threads <= 3; threads += 2) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkOptions) options = fk_options_copy(r->options);
    g_autofree char *text = g_strdup_printf("%d", threads), *mode = g_strdup_printf("threads=%d", threads);
    fk_options_set(options, "threads", text, NULL);
    g_autoptr(FkEngine) engine = fk_engine_new(options, &error);
    ReportMode *m = mode_new(r, mode, "plain", r->work->settings);
    if (!engine) m->note = g_strdup(error->message);
    for (int i = 0; engine && i < r->n; i++) run_once(r, m, engine, r->work->settings, 1, r->plain);
  }
}

/* Other prompts, other sizes and failures leave nothing behind. */
static void between(Report *r) {
  ReportMode *m = mode_new(r, "other edits between", "plain", r->work->settings);
  for (int i = 0; i < r->n; i++) {
    g_autoptr(FkSettings) other = fk_settings_copy(r->work->settings);
    g_autofree char *prompt = g_strdup_printf("something else, %d", i), *area = g_strdup_printf("%d", 4096 << i % 3);
    FkJob job;
    fk_settings_set(other, "prompt", prompt, NULL);
    fk_settings_set(other, "seed", "77", NULL);
    fk_settings_set(other, "max-area", area, NULL);
    fk_settings_set(other, "steps", "1", NULL);
    fk_settings_set(other, "step-cache-mask", "", NULL);
    if (edit(r->engine, r, other, 1, &job, NULL)) g_free(job.out.data);
    run_once(r, m, r->engine, r->work->settings, 1, r->plain);
  }
}

/* ---- Telling ---- */

static bool all_equal(const GPtrArray *modes) {
  bool equal = true;
  for (guint i = 0; i < modes->len; i++) {
    const ReportMode *m = modes->pdata[i];
    equal = equal && m->runs->len;
    for (guint k = 0; k < m->runs->len; k++) equal = equal && ((const ReportRun *)m->runs->pdata[k])->equal;
  }
  return equal;
}

static void print_table(const GPtrArray *modes) {
  printf("%-22s %3s %20s %5s %8s %9s  %-16s %s\n", "mode", "run", "seed", "steps", "guidance", "ms", "sha256",
         "verdict");
  for (guint i = 0; i < modes->len; i++) {
    const ReportMode *m = modes->pdata[i];
    if (m->note) printf("%-22s %s\n", m->mode, m->note);
    for (guint k = 0; k < m->runs->len; k++) {
      const ReportRun *run = m->runs->pdata[k];
      g_autofree char *verdict = run->error ? g_strdup(run->error)
                                 : !run->expected
                                     ? g_strdup("first")
                                     : g_strdup_printf("%s %s", run->equal ? "equal to" : "DIFFERS from", m->against);
      printf("%-22s %3u %20s %5s %8s %9.1f  %.16s %s\n", m->mode, k + 1, m->seed, m->steps, m->guidance, run->ms,
             run->sha ? run->sha : "-", verdict);
    }
  }
}

static char *to_json(const Report *r, bool equal) {
  Json j = {.text = g_string_new(NULL)};
  json_open(&j, NULL, '{');
  json_text(&j, "report", "fluxkontext-verify " FK_VERSION);
  json_text(&j, "device", fk_engine_machine(r->engine));
  json_text(&j, "input", r->work->input);
  json_text(&j, "prompt", fk_settings_get(r->work->settings, "prompt"));
  json_text(&j, "verdict", equal ? "equal" : "differs");
  json_open(&j, "modes", '[');
  for (guint i = 0; i < r->modes->len; i++) {
    const ReportMode *m = r->modes->pdata[i];
    json_open(&j, NULL, '{');
    json_text(&j, "mode", m->mode);
    json_text(&j, "against", m->against);
    json_text(&j, "seed", m->seed);
    json_text(&j, "steps", m->steps);
    json_text(&j, "guidance", m->guidance);
    if (m->note) json_text(&j, "error", m->note);
    json_open(&j, "runs", '[');
    for (guint k = 0; k < m->runs->len; k++) {
      const ReportRun *run = m->runs->pdata[k];
      json_open(&j, NULL, '{');
      json_number(&j, "ms", run->ms);
      json_text(&j, "sha256", run->sha ? run->sha : "");
      json_text(&j, "verdict", run->error ? run->error : run->equal ? "equal" : "differs");
      json_close(&j, '}');
    }
    json_close(&j, ']');
    json_close(&j, '}');
  }
  json_close(&j, ']');
  json_close(&j, '}');
  return g_string_free(j.text, FALSE);
}

static bool write_all(const Report *r, const char *folder, bool equal, GError **error) {
  g_autofree char *json = to_json(r, equal), *json_path = g_build_filename(folder, "report.json", NULL),
                  *page = g_build_filename(folder, "report.png", NULL),
                  *title = g_strdup_printf("fluxkontext " FK_VERSION " on %s: %s", fk_engine_machine(r->engine),
                                           equal ? "all results equal" : "results DIFFER");
  return write_whole(json_path, json, strlen(json), error) && report_page(page, title, r->modes, error);
}

bool report_run(const FkOptions *options, Work *work, const char *expected, int n, const char *folder, bool *equal,
                GError **error) {
  g_autoptr(FkEngine) engine = NULL;
  g_autoptr(GPtrArray) modes = g_ptr_array_new_with_free_func(mode_free);
  Report r = {.options = options, .work = work, .n = n, .modes = modes};
  if (!fk_settings_check(work->settings, error) || !write_folder(folder, error) ||
      !(engine = fk_engine_new(options, error)))
    return false;
  r.engine = engine;
  plain(&r, expected);
  presets(&r);
  batches(&r);
  otherwise(&r);
  between(&r);
  *equal = all_equal(modes);
  print_table(modes);
  return write_all(&r, folder, *equal, error);
}
