/* SPDX-License-Identifier: Apache-2.0 */
/* fluxkontext-bench: medians of whole edits by stage, times of each kind of op against its floor, and what each switch
 * gains. Says machine, size, context, steps and precision; writes JSON beside the table. On fk.h alone. */
#include <fk.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  double load, text, encode, step, decode, edit; /* ms; step: one evaluation */
  int evaluations;
  FkResult result;
} Times;

/* Rates that floors are taken from; measured ceilings of the machine, settable. */
typedef struct {
  double tflops, tbs;
} Ceiling;

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(const double *values, int n, size_t stride) {
  g_autofree double *sorted = g_new(double, (size_t)n);
  for (int i = 0; i < n; i++) sorted[i] = *(const double *)((const char *)values + (size_t)i * stride);
  qsort(sorted, (size_t)n, sizeof *sorted, by_value);
  return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

/* A picture with the statistics of one: gradients and noise. (transfer full) */
static uint8_t *picture(int width, int height) {
  uint8_t *p = g_malloc((size_t)width * (size_t)height * 3);
  uint32_t state = 1;
  for (int i = 0; i < width * height * 3; i++) {
    state = state * 1664525u + 1013904223u;
    p[i] = (uint8_t)((i / 3 % width) * 160 / width + (i / 3 / width) * 60 / height + (int)(state >> 27));
  }
  return p;
}

static bool time_edits(FkEngine *engine, const FkSettings *settings, int width, int height, int runs, Times *out,
                       GError **error) {
  int ow, oh;
  if (!fk_engine_output_size(engine, settings, width, height, &ow, &oh, error)) return false;
  g_autofree uint8_t *in = picture(width, height), *result = g_malloc((size_t)ow * (size_t)oh * 3);
  g_autofree Times *t = g_new0(Times, (size_t)runs);
  for (int i = -1; i < runs; i++) { /* the first run is not counted */
    FkJob job = {.in = {in, width, height, 3, (size_t)width * 3}, .out = {result, ow, oh, 3, (size_t)ow * 3},
                 .settings = settings};
    if (!fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, error)) return false;
    const FkResult *r = &job.result;
    out->result = *r;
    if (i >= 0)
      t[i] = (Times){.text = r->text_ms, .encode = r->encode_ms, .step = r->denoise_ms / r->evaluations,
                     .decode = r->decode_ms, .edit = r->edit_ms};
  }
  out->text = median(&t->text, runs, sizeof *t);
  out->encode = median(&t->encode, runs, sizeof *t);
  out->step = median(&t->step, runs, sizeof *t);
  out->decode = median(&t->decode, runs, sizeof *t);
  out->edit = median(&t->edit, runs, sizeof *t);
  out->evaluations = out->result.evaluations;
  return true;
}

static int by_ms(const void *a, const void *b) {
  const double x = ((const FkProfileRow *)a)->ms, y = ((const FkProfileRow *)b)->ms;
  return (x < y) - (x > y);
}

/* Each kind of op: how often, time, rate and share of the floor (the larger of arithmetic and traffic). */
static bool print_ops(FkEngine *engine, FkSettings *settings, int width, int height, const Ceiling *c, FILE *json,
                      GError **error) {
  size_t n;
  g_autofree char *steps = g_strdup(fk_settings_get(settings, "steps"));
  fk_settings_set(settings, "steps", "2", NULL);
  g_autofree FkProfileRow *rows = fk_engine_profile(engine, settings, width, height, &n, error);
  fk_settings_set(settings, "steps", steps, NULL);
  if (!rows) return false;
  qsort(rows, n, sizeof *rows, by_ms);
  printf("\nops of one edit with 2 steps, by time (graphs off; floors at %.0f TFLOP/s and %.2f TB/s)\n", c->tflops, c->tbs);
  printf("%-8s %-14s %8s %8s %8s %6s %10s %9s %7s %7s\n", "stage", "op", "m", "n", "k", "count", "ms", "TFLOP/s", "TB/s",
         "floor");
  fprintf(json, ",\n \"ops\": [");
  for (size_t i = 0; i < n; i++) {
    const FkProfileRow *r = &rows[i];
    const double compute = r->flop / (c->tflops * 1e9), traffic = r->bytes / (c->tbs * 1e9);
    const double floor_ms = MAX(compute, traffic);
    if (i < 40)
      printf("%-8s %-14s %8" G_GINT64_FORMAT " %8" G_GINT64_FORMAT " %8" G_GINT64_FORMAT " %6d %10.3f %9.1f %7.2f %5.0f %%\n",
             r->stage, r->op, r->m, r->n, r->k, r->count, r->ms, r->flop / r->ms / 1e9, r->bytes / r->ms / 1e9,
             100 * floor_ms / r->ms);
    fprintf(json, "%s\n  {\"stage\": \"%s\", \"op\": \"%s\", \"m\": %" G_GINT64_FORMAT ", \"n\": %" G_GINT64_FORMAT
            ", \"k\": %" G_GINT64_FORMAT ", \"count\": %d, \"ms\": %.4f, \"flop\": %.6g, \"bytes\": %.6g}",
            i ? "," : "", r->stage, r->op, r->m, r->n, r->k, r->count, r->ms, r->flop, r->bytes);
  }
  fprintf(json, "]");
  return true;
}

static void print_times(const char *name, const Times *t) {
  printf("%-28s text %7.2f  encode %7.2f  step %8.3f  decode %7.2f  edit %9.1f ms  %6.1f TFLOP/s\n", name, t->text,
         t->encode, t->step, t->decode, t->edit, t->result.flop / t->edit / 1e9);
}

/* Every switch with a same or rounding class: all off, each alone, all on. */
static bool print_switches(FkEngine *engine, FkSettings *settings, int width, int height, int runs, FILE *json,
                           GError **error) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  g_autoptr(GPtrArray) names = g_ptr_array_new();
  for (size_t i = 0; i < n; i++)
    if (p[i].kind == FK_KIND_SWITCH && (p[i].optimization == FK_CLASS_SAME || p[i].optimization == FK_CLASS_ROUNDING) &&
        strcmp(p[i].name, "vae-slicing") && strcmp(p[i].name, "prompt-cache"))
      g_ptr_array_add(names, (gpointer)p[i].name);
  printf("\nswitches (medians of %d)\n", runs);
  fprintf(json, ",\n \"switches\": [");
  for (guint row = 0; row <= names->len + 1; row++) {
    Times t;
    for (guint i = 0; i < names->len; i++)
      fk_settings_set(settings, names->pdata[i], row == names->len + 1 || row == i + 1 ? "auto" : "off", NULL);
    g_autofree char *label = row == 0 ? g_strdup("all off") : row > names->len ? g_strdup("all on")
                                                        : g_strdup_printf("only %s", (char *)names->pdata[row - 1]);
    if (!time_edits(engine, settings, width, height, runs, &t, error)) return false;
    print_times(label, &t);
    fprintf(json, "%s\n  {\"set\": \"%s\", \"step_ms\": %.4f, \"encode_ms\": %.4f, \"decode_ms\": %.4f, \"edit_ms\": %.4f}",
            row ? "," : "", label, t.step, t.encode, t.decode, t.edit);
  }
  fprintf(json, "]");
  return true;
}

typedef struct {
  char *model, *size, *json;
  int runs;
  gboolean ops, switches;
  double tflops, tbs;
} Arguments;

static bool bench(const Arguments *a, char **pairs, FILE *json, GError **error) {
  int width = 0, height = 0;
  Times t = {0};
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(FkSettings) settings = fk_settings_new();
  if (sscanf(a->size, "%dx%d", &width, &height) != 2 || width < 1 || height < 1 || a->runs < 1) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "--size \"%s\" --runs %d: expected WIDTHxHEIGHT and a count", a->size,
                a->runs);
    return false;
  }
  fk_settings_set(settings, "prompt", "make it night", NULL);
  fk_settings_set(settings, "prompt-cache", "off", NULL);
  if (!fk_options_set(options, "model-path", a->model, error)) return false;
  for (char **p = pairs; *p; p++) {
    g_auto(GStrv) pair = g_strsplit(*p, "=", 2);
    if (fk_options_get(options, pair[0]) || !strcmp(pair[0], "backend")) {
      if (!fk_options_set(options, pair[0], pair[1], error)) return false;
    } else if (!fk_settings_set(settings, pair[0], pair[1], error)) {
      return false;
    }
  }
  const gint64 start = g_get_monotonic_time();
  g_autoptr(FkEngine) engine = fk_engine_open(options, NULL, NULL, NULL, error);
  if (!engine) return false;
  t.load = (double)(g_get_monotonic_time() - start) / 1000;
  if (!time_edits(engine, settings, width, height, a->runs, &t, error)) return false;
  FkPlan plan;
  const bool gpu = !g_str_has_prefix(fk_engine_machine(engine), "cpu");
  if (!fk_plan(a->model, settings, width, height, gpu ? 2 : 4, &plan, error)) return false;
  printf("%s, %s, %dx%d, %" G_GINT64_FORMAT " text + %" G_GINT64_FORMAT " target + %" G_GINT64_FORMAT
         " context tokens, %d evaluations, %s, median of %d\n", fk_engine_machine(engine), a->model, plan.width, plan.height,
         plan.text_tokens, plan.target_tokens, plan.context_tokens, t.evaluations, gpu ? "bfloat16" : "float32", a->runs);
  printf("open %.0f ms (backend, files, weights); memory planned %.2f GB\n", t.load,
         (plan.weight_bytes + plan.arena_bytes) / 1e9);
  print_times("edit", &t);
  fprintf(json, "{\"machine\": \"%s\", \"model\": \"%s\", \"width\": %d, \"height\": %d, \"evaluations\": %d, \"runs\": %d,\n"
          " \"open_ms\": %.1f, \"text_ms\": %.4f, \"encode_ms\": %.4f, \"step_ms\": %.4f, \"decode_ms\": %.4f, \"edit_ms\": %.4f,\n"
          " \"flop\": %.6g, \"planned_bytes\": %.6g", fk_engine_machine(engine), a->model, plan.width, plan.height,
          t.evaluations, a->runs, t.load, t.text, t.encode, t.step, t.decode, t.edit, t.result.flop,
          plan.weight_bytes + plan.arena_bytes);
  const Ceiling c = {a->tflops, a->tbs};
  if (a->ops && !print_ops(engine, settings, width, height, &c, json, error)) return false;
  if (a->switches && !print_switches(engine, settings, width, height, a->runs, json, error)) return false;
  fprintf(json, "}\n");
  return true;
}

int main(int argc, char **argv) {
  Arguments a = {.runs = 5, .tflops = 790, .tbs = 4.25};
  const GOptionEntry entries[] = {
      {"model", 'm', 0, G_OPTION_ARG_FILENAME, &a.model, "Folder of the model", "FOLDER"},
      {"size", 's', 0, G_OPTION_ARG_STRING, &a.size, "Size of the picture (default 1024x1024)", "WIDTHxHEIGHT"},
      {"runs", 'n', 0, G_OPTION_ARG_INT, &a.runs, "Counted runs after one warm-up (default 5)", "N"},
      {"ops", 'o', 0, G_OPTION_ARG_NONE, &a.ops, "Table of ops", NULL},
      {"switches", 'w', 0, G_OPTION_ARG_NONE, &a.switches, "All switches off, each alone, all on", NULL},
      {"json", 'j', 0, G_OPTION_ARG_FILENAME, &a.json, "Write everything to this file too", "FILE"},
      {"tflops", 0, 0, G_OPTION_ARG_DOUBLE, &a.tflops, "Arithmetic ceiling for floors (default 790: measured, H200)", "X"},
      {"tbs", 0, 0, G_OPTION_ARG_DOUBLE, &a.tbs, "Memory ceiling for floors (default 4.25: measured, H200)", "X"},
      {NULL, 0, 0, 0, NULL, NULL, NULL}};
  g_autoptr(GOptionContext) context = g_option_context_new("[PROPERTY=VALUE ...]");
  g_autoptr(GError) error = NULL;
  g_option_context_set_summary(context, "Times whole edits by stage, single ops, and what each switch gains.");
  g_option_context_add_main_entries(context, entries, NULL);
  bool ok = g_option_context_parse(context, &argc, &argv, &error);
  if (ok && !a.model) g_set_error_literal(&error, FK_ERROR, FK_ERROR_OPTION_BAD, "--model is not given; see --help");
  if (!a.size) a.size = g_strdup("1024x1024");
  FILE *json = error ? NULL : fopen(a.json ? a.json : "/dev/null", "w");
  if (!error && !json) g_set_error(&error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: cannot be written", a.json);
  ok = !error && bench(&a, argv + 1, json, &error);
  if (json) fclose(json);
  if (error) fprintf(stderr, "fluxkontext-bench: %s\n", error->message);
  g_free(a.model);
  g_free(a.size);
  g_free(a.json);
  return ok ? 0 : 1;
}
