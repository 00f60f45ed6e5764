/* SPDX-License-Identifier: Apache-2.0 */
/* fluxkontext-bench: medians of whole edits by stage, times of each kind of op against its floor, and what each switch
 * gains. Says machine, size, context, steps and precision; writes JSON and a plot beside the tables. On fk.h alone.
 * Not here: a timeline (property trace-file) and NVTX ranges, which the CUDA module opens around stages and evaluations
 * for any profiler. */
#include "bench.h"

#include "tool.h"

#include <stdio.h>
#include <stdlib.h>

static const char name[] = "fluxkontext-bench";

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Of every stride-th byte on a double. */
static double median(const double *values, int n, size_t stride) {
  g_autofree double *sorted = g_new(double, (size_t)n);
  for (int i = 0; i < n; i++) sorted[i] = *(const double *)(const void *)((const char *)values + (size_t)i * stride);
  qsort(sorted, (size_t)n, sizeof *sorted, by_value);
  return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

/* A picture with the statistics of one: gradients and noise. (transfer full, nullable) */
static uint8_t *picture(int width, int height) {
  const size_t bytes = (size_t)width * (size_t)height * 3;
  uint8_t *p = g_try_malloc(bytes);
  uint32_t state = 1;
  for (size_t i = 0; p && i < bytes; i++) {
    const size_t x = i / 3 % (size_t)width, y = i / 3 / (size_t)width;
    state = state * 1664525u + 1013904223u;
    p[i] = (uint8_t)(x * 160 / (size_t)width + y * 60 / (size_t)height + (state >> 27));
  }
  return p;
}

bool bench_edits(const Bench *b, BenchTimes *out, GError **error) {
  int ow, oh;
  if (!fk_engine_output_size(b->engine, b->settings, b->width, b->height, &ow, &oh, error)) return false;
  g_autofree uint8_t *in = picture(b->width, b->height), *result = g_try_malloc((size_t)ow * (size_t)oh * 3);
  g_autofree BenchTimes *t = g_new0(BenchTimes, (size_t)b->runs);
  if (!in || !result) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "no memory for pictures of %dx%d", b->width, b->height);
    return false;
  }
  for (int i = -1; i < b->runs; i++) {
    FkJob job = {.in = {in, b->width, b->height, 3, (size_t)b->width * 3},
                 .out = {result, ow, oh, 3, (size_t)ow * 3},
                 .settings = b->settings};
    if (!fk_engine_edit(b->engine, &job, 1, NULL, NULL, NULL, error)) return false;
    const FkResult *r = &job.result;
    out->result = *r;
    if (i < 0) continue;
    t[i] = (BenchTimes){.text = r->text_ms, .encode = r->encode_ms, .decode = r->decode_ms, .edit = r->edit_ms};
    t[i].step = r->denoise_ms / r->evaluations;
  }
  out->text = median(&t->text, b->runs, sizeof *t);
  out->encode = median(&t->encode, b->runs, sizeof *t);
  out->step = median(&t->step, b->runs, sizeof *t);
  out->decode = median(&t->decode, b->runs, sizeof *t);
  out->edit = median(&t->edit, b->runs, sizeof *t);
  return true;
}

void bench_print_times(const char *label, const BenchTimes *t) {
  printf("%-34s text %7.2f  encode %7.2f  step %8.3f  decode %7.2f  edit %9.1f ms  %8.4g TFLOP/s\n", label, t->text,
         t->encode, t->step, t->decode, t->edit, t->result.flop / t->edit / 1e9);
}

typedef struct {
  char *model, *size, *json, *plot;
  int runs;
  gboolean ops, switches;
  double tflops, tbs;
} Arguments;

static bool on_gpu(const Bench *b) {
  return !g_str_has_prefix(fk_engine_machine(b->engine), "cpu");
}

/* What was timed, for tables, JSON and plot. *title: (transfer full). */
static bool head(const Bench *b, const Arguments *a, const FkOptions *options, const BenchTimes *t, char **title,
                 GError **error) {
  FkPlan plan;
  const char *precision = on_gpu(b) ? "bfloat16" : "float32", *machine = fk_engine_machine(b->engine);
  if (!fk_plan(a->model, options, b->settings, b->width, b->height, on_gpu(b) ? 2 : 4, &plan, error)) return false;
  const double bytes = plan.weight_bytes + plan.cache_bytes + plan.arena_bytes;
  printf("%s, %s, %dx%d, %" G_GINT64_FORMAT " text + %" G_GINT64_FORMAT " target + %" G_GINT64_FORMAT
         " context tokens, %d evaluations, %s, median of %d\n",
         machine, a->model, plan.width, plan.height, plan.text_tokens, plan.target_tokens, plan.context_tokens,
         t->result.evaluations, precision, a->runs);
  g_autofree char *timing = fk_engine_timing(b->engine);
  printf("open %.0f ms (backend, files, weights); memory planned %.2f GB\n", t->load, bytes / 1e9);
  printf("of these: %s\n", timing);
  bench_print_times("edit", t);
  json_text(b->json, "machine", machine);
  json_text(b->json, "model", a->model);
  json_count(b->json, "width", plan.width);
  json_count(b->json, "height", plan.height);
  json_text(b->json, "precision", precision);
  json_count(b->json, "text_tokens", plan.text_tokens);
  json_count(b->json, "target_tokens", plan.target_tokens);
  json_count(b->json, "context_tokens", plan.context_tokens);
  json_count(b->json, "evaluations", t->result.evaluations);
  json_count(b->json, "runs", a->runs);
  json_number(b->json, "open_ms", t->load);
  json_text(b->json, "open", timing);
  json_number(b->json, "text_ms", t->text);
  json_number(b->json, "encode_ms", t->encode);
  json_number(b->json, "step_ms", t->step);
  json_number(b->json, "decode_ms", t->decode);
  json_number(b->json, "edit_ms", t->edit);
  json_number(b->json, "flop", t->result.flop);
  json_number(b->json, "planned_bytes", bytes);
  *title = g_strdup_printf("%s, %dx%d, %" G_GINT64_FORMAT " tokens, %s, edit %.1f ms", machine, plan.width, plan.height,
                           plan.text_tokens + plan.target_tokens + plan.context_tokens, precision, t->edit);
  return true;
}

/* Floors come from what this machine reaches, measured before the weights take its memory, or from the command line. */
static bool ceilings(Bench *b, const Arguments *a, const FkOptions *options, GError **error) {
  FkMachine machine;
  b->tflops = a->tflops;
  b->tbs = a->tbs;
  b->measured = "as given";
  if (!a->ops || g_str_has_prefix(fk_engine_machine(b->engine), "null") || (a->tflops > 0 && a->tbs > 0)) return true;
  const int device = (int)g_ascii_strtoll(fk_options_get(options, "cuda-device-id"), NULL, 10);
  if (!fk_machine(on_gpu(b) ? "cuda" : "cpu", device, true, &machine, error)) return false;
  if (b->tflops <= 0) b->tflops = machine.tflops;
  if (b->tbs <= 0) b->tbs = machine.tbs;
  b->measured = a->tflops > 0 || a->tbs > 0 ? "one given, one measured here" : "measured here";
  return true;
}

/* Opens the model; seconds of the ceilings are not part of the time. */
static bool open_engine(Bench *b, const Arguments *a, const FkOptions *options, double *ms, GError **error) {
  gint64 start = g_get_monotonic_time();
  if (!(b->engine = fk_engine_new(options, error))) return false;
  *ms = (double)(g_get_monotonic_time() - start) / 1000;
  if (!ceilings(b, a, options, error)) return false;
  start = g_get_monotonic_time();
  const bool ok = fk_engine_load_for(b->engine, b->settings, NULL, NULL, NULL, error);
  *ms += (double)(g_get_monotonic_time() - start) / 1000;
  return ok;
}

static bool report(Bench *b, const Arguments *a, const FkOptions *options, GError **error) {
  BenchTimes t = {0};
  BenchOps ops = {0};
  g_autofree char *title = NULL;
  bool ok =
      open_engine(b, a, options, &t.load, error) && bench_edits(b, &t, error) && head(b, a, options, &t, &title, error);
  if (ok && a->ops) ok = bench_ops_run(b, &ops, error);
  if (ok && a->plot) ok = bench_plot(a->plot, title, b, &t, &ops, error);
  if (ok && a->switches) ok = bench_switches(b, error);
  bench_ops_clear(&ops);
  g_clear_pointer(&b->engine, fk_engine_unref);
  return ok;
}

static bool bench(const Arguments *a, char **pairs, GError **error) {
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(FkSettings) settings = fk_settings_new();
  g_autoptr(GString) text = g_string_new(NULL);
  Json json = {.text = text};
  Bench b = {.settings = settings, .runs = a->runs, .json = &json};
  if (!tool_size("--size", a->size ? a->size : "1024x1024", &b.width, &b.height, error)) return false;
  if (!a->model) {
    g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD, "--model is not given; see --help");
    return false;
  }
  if (a->runs < 1) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "--runs %d: expected at least 1", a->runs);
    return false;
  }
  fk_settings_set(settings, "prompt", "make it night", NULL);
  fk_settings_set(settings, "prompt-cache", "off", NULL);
  if (!fk_options_set(options, "model-path", a->model, error)) return false;
  for (char **p = pairs; *p; p++)
    if (!tool_set(options, settings, *p, error)) return false;
  if ((a->json && !tool_check_output(a->json, error)) || (a->plot && !tool_check_output(a->plot, error))) return false;
  json_open(&json, NULL, '{');
  if (!report(&b, a, options, error)) return false;
  json_close(&json, '}');
  return !a->json || fk_file_write(a->json, text->str, text->len, error);
}

int main(int argc, char **argv) {
  Arguments a = {.runs = 5};
  const GOptionEntry entries[] = {
      {"model", 'm', 0, G_OPTION_ARG_FILENAME, &a.model, "Folder of the model", "FOLDER"},
      {"size", 's', 0, G_OPTION_ARG_FILENAME, &a.size, "Size of the picture (default 1024x1024)", "WIDTHxHEIGHT"},
      {"runs", 'n', 0, G_OPTION_ARG_INT, &a.runs, "Counted runs after one warm-up (default 5)", "N"},
      {"ops", 'o', 0, G_OPTION_ARG_NONE, &a.ops, "Tables of groups of ops and of ops", NULL},
      {"switches", 'w', 0, G_OPTION_ARG_NONE, &a.switches, "Every optimization alone, and the presets", NULL},
      {"json", 'j', 0, G_OPTION_ARG_FILENAME, &a.json, "Write everything to this file too", "FILE"},
      {"plot", 'p', 0, G_OPTION_ARG_FILENAME, &a.plot, "Draw stages, with --ops groups and ops, as PNG", "FILE"},
      {"tflops", 0, 0, G_OPTION_ARG_DOUBLE, &a.tflops, "Arithmetic ceiling instead of a measured one", "X"},
      {"tbs", 0, 0, G_OPTION_ARG_DOUBLE, &a.tbs, "Memory ceiling in TB/s, likewise", "X"},
      {NULL, 0, 0, 0, NULL, NULL, NULL}};
  g_autoptr(GError) error = NULL;
  int status;
  if (!tool_begin(name, "[PROPERTY=VALUE ...]",
                  "  fluxkontext-bench -m MODEL --ops --plot bench.png preset=fast\n"
                  "Times whole edits by stage, single ops, and what each optimization gains.\n"
                  "Exit: 0 done, 1 an error, 2 usage.",
                  entries, &argc, &argv, &status))
    return status;
  const bool ok = bench(&a, argv + 1, &error);
  if (error) fprintf(stderr, "%s: %s\n", name, error->message);
  g_free(a.model);
  g_free(a.size);
  g_free(a.json);
  g_free(a.plot);
  return tool_end(name, ok ? 0 : 1);
}
