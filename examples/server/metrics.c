/* SPDX-License-Identifier: Apache-2.0 */
/* Counters and histograms in Prometheus' text format 0.0.4; see metrics.h. Seconds and bytes, no label with anything
 * that a client wrote. */
#include "metrics.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PREFIX "fluxkontext_"

static const double bounds[METRICS_BUCKETS] = {0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128};
const char *const metrics_api_names[METRICS_APIS] = {"openai", "native", "flux-fire", "bfl", "a1111"};
static const char *const results[METRICS_RESULTS] = {"ok", "client_error", "server_error", "cancelled", "timeout"};
static const char *const stages[] = {"text", "encode", "step", "decode"};
static const char *const reasons[] = {"queue_full", "too_large", "auth", "bad_request", "loading"};

static void observe(Histogram *h, double seconds) {
  int i = 0;
  while (i < METRICS_BUCKETS && seconds > bounds[i]) i++;
  h->bucket[i]++;
  h->sum += seconds;
}

static MetricsResult result_of(const Job *job) {
  if (job->state == JOB_DONE) return METRICS_OK;
  if (job->failure.status == 504) return METRICS_TIMEOUT;
  if (job->state == JOB_CANCELLED) return METRICS_CANCELLED;
  return job->failure.status < 500 ? METRICS_CLIENT_ERROR : METRICS_SERVER_ERROR;
}

static void count_picture(Metrics *m, const JobPicture *p) {
  const FkResult *r = &p->result;
  const double ms[] = {r->text_ms, r->encode_ms, r->denoise_ms, r->decode_ms};
  for (int i = 0; i < 4; i++) observe(&m->stage[i], ms[i] / 1000);
  m->computed += (guint64)(r->evaluations - r->skipped);
  m->reused += (guint64)r->skipped;
  m->pixels += (guint64)r->width * (guint64)r->height;
  if (r->prompt_cached)
    m->cache_hits++;
  else
    m->cache_misses++;
}

void metrics_job(Metrics *m, const Job *job) {
  int api = 0;
  while (api < METRICS_APIS - 1 && strcmp(metrics_api_names[api], job->api)) api++;
  m->jobs[api][result_of(job)]++;
  observe(&m->duration[api], (double)(job->ended_us - job->asked_us) / G_USEC_PER_SEC);
  if (job->started_us) observe(&m->queue, (double)(job->started_us - job->asked_us) / G_USEC_PER_SEC);
  for (int i = 0; job->pictures && i < job->ask->n; i++) count_picture(m, &job->pictures[i]);
  if (job->state == JOB_CANCELLED && !g_strcmp0(job->stage, "step")) m->wasted += (guint64)job->current;
}

void metrics_rejected(Metrics *m, const Failure *f) {
  const int reason = f->status == 429                       ? 0
                     : f->status == 413                     ? 1
                     : f->status == 401 || f->status == 403 ? 2
                     : f->status == 503                     ? 4
                                                            : 3;
  m->rejected[reason]++;
}

/* ---- Text ---- */

static void head(GString *out, const char *name, const char *type, const char *help) {
  g_string_append_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void number(GString *out, double value) {
  char digits[G_ASCII_DTOSTR_BUF_SIZE];
  g_string_append_printf(out, " %s\n", g_ascii_dtostr(digits, sizeof digits, value));
}

static void single(GString *out, const char *name, const char *type, const char *help, double value) {
  head(out, name, type, help);
  g_string_append(out, name);
  number(out, value);
}

/* label: "api=\"openai\"", or "". */
static void histogram(GString *out, const char *name, const char *label, const Histogram *h) {
  const char *comma = *label ? "," : "", *open = *label ? "{" : "", *close = *label ? "}" : "";
  guint64 count = 0;
  for (int i = 0; i <= METRICS_BUCKETS; i++) {
    char bound[G_ASCII_DTOSTR_BUF_SIZE] = "+Inf";
    if (i < METRICS_BUCKETS) g_ascii_formatd(bound, sizeof bound, "%g", bounds[i]);
    count += h->bucket[i];
    g_string_append_printf(out, "%s_bucket{%s%sle=\"%s\"} %" G_GUINT64_FORMAT "\n", name, label, comma, bound, count);
  }
  g_string_append_printf(out, "%s_sum%s%s%s", name, open, label, close);
  number(out, h->sum);
  g_string_append_printf(out, "%s_count%s%s%s %" G_GUINT64_FORMAT "\n", name, open, label, close, count);
}

static void jobs_text(GString *out, const Metrics *m) {
  head(out, PREFIX "jobs_total", "counter", "Jobs that have ended");
  for (int a = 0; a < METRICS_APIS; a++)
    for (int r = 0; r < METRICS_RESULTS; r++)
      g_string_append_printf(out, PREFIX "jobs_total{api=\"%s\",result=\"%s\"} %" G_GUINT64_FORMAT "\n",
                             metrics_api_names[a], results[r], m->jobs[a][r]);
  head(out, PREFIX "rejected_total", "counter", "Requests that did not become a job");
  for (guint r = 0; r < G_N_ELEMENTS(reasons); r++)
    g_string_append_printf(out, PREFIX "rejected_total{reason=\"%s\"} %" G_GUINT64_FORMAT "\n", reasons[r],
                           m->rejected[r]);
  head(out, PREFIX "job_duration_seconds", "histogram", "From request to result");
  for (int a = 0; a < METRICS_APIS; a++) {
    g_autofree char *label = g_strdup_printf("api=\"%s\"", metrics_api_names[a]);
    histogram(out, PREFIX "job_duration_seconds", label, &m->duration[a]);
  }
  head(out, PREFIX "queue_duration_seconds", "histogram", "From request to the start of work");
  histogram(out, PREFIX "queue_duration_seconds", "", &m->queue);
  head(out, PREFIX "stage_duration_seconds", "histogram", "Time of each stage of an edit");
  for (int s = 0; s < 4; s++) {
    g_autofree char *label = g_strdup_printf("stage=\"%s\"", stages[s]);
    histogram(out, PREFIX "stage_duration_seconds", label, &m->stage[s]);
  }
}

static void work_text(GString *out, const Metrics *m) {
  head(out, PREFIX "steps_total", "counter", "Evaluations of the model");
  g_string_append_printf(out, PREFIX "steps_total{kind=\"computed\"} %" G_GUINT64_FORMAT "\n", m->computed);
  g_string_append_printf(out, PREFIX "steps_total{kind=\"reused\"} %" G_GUINT64_FORMAT "\n", m->reused);
  single(out, PREFIX "pixels_total", "counter", "Pixels at which the model worked", (double)m->pixels);
  single(out, PREFIX "cancelled_steps_wasted_total", "counter", "Evaluations of jobs that were cancelled",
         (double)m->wasted);
  single(out, PREFIX "text_cache_hits_total", "counter", "Prompts that were encoded before", (double)m->cache_hits);
  single(out, PREFIX "text_cache_misses_total", "counter", "Prompts that were encoded", (double)m->cache_misses);
  single(out, PREFIX "model_load_duration_seconds", "gauge", "Time that loading the weights took", m->load_s);
}

/* ---- The process ---- */

static double statm_pages(int field) {
  g_autofree char *text = NULL;
  if (!g_file_get_contents("/proc/self/statm", &text, NULL, NULL)) return 0;
  g_auto(GStrv) words = g_strsplit(text, " ", -1);
  return g_strv_length(words) > (guint)field ? g_ascii_strtod(words[field], NULL) : 0;
}

/* Fields of /proc/self/stat, counted from 1 as in proc(5); the second ends at the last ')'. */
static double stat_field(int field) {
  g_autofree char *text = NULL;
  if (!g_file_get_contents("/proc/self/stat", &text, NULL, NULL)) return 0;
  char *rest = strrchr(text, ')');
  g_auto(GStrv) words = rest ? g_strsplit(rest + 2, " ", -1) : NULL;
  return words && g_strv_length(words) > (guint)field - 3 ? g_ascii_strtod(words[field - 3], NULL) : 0;
}

static double boot_time(void) {
  g_autofree char *text = NULL;
  if (!g_file_get_contents("/proc/stat", &text, NULL, NULL)) return 0;
  const char *line = strstr(text, "\nbtime ");
  return line ? g_ascii_strtod(line + 7, NULL) : 0;
}

static int open_files(void) {
  int n = 0;
  g_autoptr(GDir) folder = g_dir_open("/proc/self/fd", 0, NULL);
  while (folder && g_dir_read_name(folder)) n++;
  return n ? n - 1 : 0; /* one is the folder itself */
}

static void process_text(GString *out) {
  const double ticks = (double)sysconf(_SC_CLK_TCK);
  single(out, "process_resident_memory_bytes", "gauge", "Resident memory",
         statm_pages(1) * (double)sysconf(_SC_PAGESIZE));
  single(out, "process_cpu_seconds_total", "counter", "Processor time", (stat_field(14) + stat_field(15)) / ticks);
  single(out, "process_open_fds", "gauge", "Open files", open_files());
  single(out, "process_start_time_seconds", "gauge", "Start, since 1970", boot_time() + stat_field(22) / ticks);
}

char *metrics_text(const Metrics *m, const MetricsNow *now) {
  GString *out = g_string_new(NULL);
  g_autofree char *device = g_strdelimit(g_strdup(now->device), "\"\\\n", ' ');
  head(out, PREFIX "build_info", "gauge", "Version, backend and device");
  g_string_append_printf(out, PREFIX "build_info{version=\"%s\",backend=\"%s\",device=\"%s\"} 1\n", now->version,
                         now->backend, device);
  single(out, PREFIX "up", "gauge", "The process answers", 1);
  single(out, PREFIX "ready", "gauge", "Edits are taken", now->ready);
  single(out, PREFIX "queue_depth", "gauge", "Jobs that wait", now->depth);
  single(out, PREFIX "queue_limit", "gauge", "Most jobs that may wait", now->limit);
  single(out, PREFIX "jobs_running", "gauge", "Jobs that run", now->running);
  jobs_text(out, m);
  work_text(out, m);
  process_text(out);
  return g_string_free(out, FALSE);
}
