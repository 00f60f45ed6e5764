/* SPDX-License-Identifier: Apache-2.0 */
/* fluxkontext-bench: medians of whole edits by stage, times of each kind of op against its floor, and what each switch
 * gains. Says machine, size, context, steps and precision; writes JSON and a plot beside the tables. On fk.h alone.
 * Not here: a timeline (property trace-file) and NVTX ranges, which the CUDA module opens around stages and evaluations
 * for any profiler. */
#include "bench-plot.h"

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
    FkJob job = {.in = {in, width, height, 3, (size_t)width * 3},
                 .out = {result, ow, oh, 3, (size_t)ow * 3},
                 .settings = settings};
    if (!fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, error)) return false;
    const FkResult *r = &job.result;
    out->result = *r;
    if (i >= 0)
      t[i] = (Times){.text = r->text_ms,
                     .encode = r->encode_ms,
                     .step = r->denoise_ms / r->evaluations,
                     .decode = r->decode_ms,
                     .edit = r->edit_ms};
  }
  out->text = median(&t->text, runs, sizeof *t);
  out->encode = median(&t->encode, runs, sizeof *t);
  out->step = median(&t->step, runs, sizeof *t);
  out->decode = median(&t->decode, runs, sizeof *t);
  out->edit = median(&t->edit, runs, sizeof *t);
  out->evaluations = out->result.evaluations;
  return true;
}

/* ---- Ops ---- */

enum { PROFILE_STEPS = 2, SHOWN = 40, GROUPS = 5 };
static const char *const group_name[GROUPS] = {"linear", "attention", "conv", "norms", "other"};

static int group_of(const char *op) {
  if (g_str_has_prefix(op, "linear")) return 0;
  if (g_str_has_prefix(op, "attention")) return 1;
  if (g_str_has_prefix(op, "conv")) return 2;
  return g_str_has_suffix(op, "_norm") ? 3 : 4;
}

/* The ops of one stage or group together. floor_ms: sum over its rows of the larger of arithmetic and traffic. */
typedef struct {
  const char *stage, *group;
  int count;
  double ms, floor_ms, flop, bytes;
} Group;

static double floor_of(const FkProfileRow *r, const Ceiling *c) {
  return MAX(r->flop / (c->tflops * 1e9), r->bytes / (c->tbs * 1e9));
}

static int by_ms(const void *a, const void *b) {
  const double x = ((const FkProfileRow *)a)->ms, y = ((const FkProfileRow *)b)->ms;
  return (x < y) - (x > y);
}

static void print_row(const char *stage, const char *op, const char *sizes, int count, double ms, double flop,
                      double bytes, double floor_ms) {
  printf("%-8s %-14s %-26s %6d %10.3f %9.1f %7.2f %5.0f %%\n", stage, op, sizes, count, ms, flop / ms / 1e9,
         bytes / ms / 1e9, 100 * floor_ms / ms);
}

/* Sums of each stage's groups, stages in the order of their first row. (transfer full) */
static GArray *sum_groups(const FkProfileRow *rows, size_t n, const Ceiling *c) {
  GArray *groups = g_array_new(FALSE, TRUE, sizeof(Group));
  for (size_t i = 0; i < n; i++) {
    const FkProfileRow *r = &rows[i];
    const char *name = group_name[group_of(r->op)];
    Group *g = NULL;
    for (guint k = 0; k < groups->len && !g; k++) {
      Group *have = &g_array_index(groups, Group, k);
      if (have->group == name && !strcmp(have->stage, r->stage)) g = have;
    }
    if (!g) {
      const Group fresh = {.stage = r->stage, .group = name};
      g_array_append_val(groups, fresh);
      g = &g_array_index(groups, Group, groups->len - 1);
    }
    g->count += r->count;
    g->ms += r->ms;
    g->flop += r->flop;
    g->bytes += r->bytes;
    g->floor_ms += floor_of(r, c);
  }
  return groups;
}

static int by_stage(const void *a, const void *b) {
  static const char *const order[] = {"text", "encode", "denoise", "decode"};
  const Group *x = a, *y = b;
  int i = 0, k = 0;
  while (i < (int)G_N_ELEMENTS(order) && strcmp(order[i], x->stage)) i++;
  while (k < (int)G_N_ELEMENTS(order) && strcmp(order[k], y->stage)) k++;
  return i != k ? i - k : (x->ms < y->ms) - (x->ms > y->ms);
}

static void print_groups(const GArray *groups, FILE *json) {
  printf(
      "\ngroups of ops of one edit with %d steps. An op's time runs to the start of the next: the last op of a stage\n"
      "(among \"other\") holds the host's work between stages.\n%-8s %-14s %-26s %6s %10s %9s %7s %7s\n",
      PROFILE_STEPS, "stage", "group", "", "count", "ms", "TFLOP/s", "TB/s", "floor");
  fprintf(json, ",\n \"groups\": [");
  for (guint i = 0; i < groups->len; i++) {
    const Group *g = &g_array_index(groups, Group, i);
    print_row(g->stage, g->group, "", g->count, g->ms, g->flop, g->bytes, g->floor_ms);
    fprintf(json,
            "%s\n  {\"stage\": \"%s\", \"group\": \"%s\", \"count\": %d, \"ms\": %.4f, \"flop\": %.6g, "
            "\"bytes\": %.6g, \"floor_ms\": %.4f}",
            i ? "," : "", g->stage, g->group, g->count, g->ms, g->flop, g->bytes, g->floor_ms);
  }
  fprintf(json, "]");
}

/* Sizes of a product as "8704 x 3072 x 15360"; empty where they say nothing. (transfer full) */
static char *sizes_of(const FkProfileRow *r) {
  if (!r->m) return g_strdup("");
  return g_strdup_printf("%" G_GINT64_FORMAT " x %" G_GINT64_FORMAT " x %" G_GINT64_FORMAT, r->m, r->n, r->k);
}

static void print_rows(const FkProfileRow *rows, size_t n, const Ceiling *c, FILE *json) {
  printf("\nops of one edit with %d steps, by time (graphs off; floors at %.0f TFLOP/s and %.2f TB/s)\n"
         "%-8s %-14s %-26s %6s %10s %9s %7s %7s\n",
         PROFILE_STEPS, c->tflops, c->tbs, "stage", "op", "rows x columns x inner", "count", "ms", "TFLOP/s", "TB/s",
         "floor");
  fprintf(json, ",\n \"profile_steps\": %d, \"ceiling_tflops\": %g, \"ceiling_tbs\": %g,\n \"ops\": [", PROFILE_STEPS,
          c->tflops, c->tbs);
  for (size_t i = 0; i < n; i++) {
    const FkProfileRow *r = &rows[i];
    g_autofree char *sizes = sizes_of(r);
    if (i < SHOWN) print_row(r->stage, r->op, sizes, r->count, r->ms, r->flop, r->bytes, floor_of(r, c));
    fprintf(json,
            "%s\n  {\"stage\": \"%s\", \"op\": \"%s\", \"m\": %" G_GINT64_FORMAT ", \"n\": %" G_GINT64_FORMAT
            ", \"k\": %" G_GINT64_FORMAT ", \"count\": %d, \"ms\": %.4f, \"flop\": %.6g, \"bytes\": %.6g}",
            i ? "," : "", r->stage, r->op, r->m, r->n, r->k, r->count, r->ms, r->flop, r->bytes);
  }
  fprintf(json, "]");
}

/* Profiles an edit of PROFILE_STEPS steps and prints it; *rows sorted by time. (transfer full): rows, *groups. */
static FkProfileRow *print_ops(FkEngine *engine, FkSettings *settings, int width, int height, const Ceiling *c,
                               FILE *json, size_t *n, GArray **groups, GError **error) {
  g_autofree char *steps = g_strdup(fk_settings_get(settings, "steps")), *few = g_strdup_printf("%d", PROFILE_STEPS);
  fk_settings_set(settings, "steps", few, NULL);
  /* The first run at a size loads kernels. */
  FkProfileRow *rows = fk_engine_warmup(engine, settings, width, height, NULL, error)
                           ? fk_engine_profile(engine, settings, width, height, n, error)
                           : NULL;
  fk_settings_set(settings, "steps", steps, NULL);
  if (!rows) return NULL;
  qsort(rows, *n, sizeof *rows, by_ms);
  *groups = sum_groups(rows, *n, c);
  qsort((*groups)->data, (*groups)->len, sizeof(Group), by_stage);
  print_groups(*groups, json);
  print_rows(rows, *n, c, json);
  return rows;
}

/* ---- Plot ---- */

static void bar(GArray *bars, bool heading, char *label, double value, double floor, char *note) {
  const BenchBar b = {.label = label, .note = note, .value = value, .floor = floor, .heading = heading};
  g_array_append_val(bars, b);
}

static void clear_bar(gpointer data) {
  BenchBar *b = data;
  g_free(b->label);
  g_free(b->note);
}

static char *share(double ms, double floor_ms) {
  return floor_ms > 0 ? g_strdup_printf("%.2f ms, %.0f %%", ms, 100 * floor_ms / ms) : g_strdup_printf("%.2f ms", ms);
}

/* Stages of the edit, groups and the costliest ops. Without rows: stages alone. */
static bool plot(const char *path, const char *title, const Times *t, const GArray *groups, const FkProfileRow *rows,
                 size_t n, const Ceiling *c, GError **error) {
  g_autoptr(GArray) bars = g_array_new(FALSE, TRUE, sizeof(BenchBar));
  g_array_set_clear_func(bars, clear_bar);
  bar(bars, true, g_strdup_printf("stages of an edit, %d evaluations", t->evaluations), 0, 0, NULL);
  bar(bars, false, g_strdup("text"), t->text, 0, share(t->text, 0));
  bar(bars, false, g_strdup("vae encode"), t->encode, 0, share(t->encode, 0));
  bar(bars, false, g_strdup("one evaluation"), t->step, 0, share(t->step, 0));
  bar(bars, false, g_strdup("vae decode"), t->decode, 0, share(t->decode, 0));
  if (rows) bar(bars, true, g_strdup_printf("groups of ops, %d steps (dark: floor)", PROFILE_STEPS), 0, 0, NULL);
  for (guint i = 0; rows && i < groups->len; i++) {
    const Group *g = &g_array_index(groups, Group, i);
    bar(bars, false, g_strdup_printf("%s: %s", g->stage, g->group), g->ms, g->floor_ms, share(g->ms, g->floor_ms));
  }
  if (rows) bar(bars, true, g_strdup("costliest ops (dark: floor)"), 0, 0, NULL);
  for (size_t i = 0; rows && i < MIN(n, 14); i++) {
    const FkProfileRow *r = &rows[i];
    g_autofree char *sizes = sizes_of(r);
    bar(bars, false, g_strdup_printf("%s %s", r->op, r->m ? sizes : r->stage), r->ms, floor_of(r, c),
        share(r->ms, floor_of(r, c)));
  }
  return bench_plot_write(path, title, (const BenchBar *)(void *)bars->data, bars->len, error);
}

/* ---- Switches ---- */

static void print_times(const char *name, const Times *t) {
  printf("%-28s text %7.2f  encode %7.2f  step %8.3f  decode %7.2f  edit %9.1f ms  %6.1f TFLOP/s\n", name, t->text,
         t->encode, t->step, t->decode, t->edit, t->result.flop / t->edit / 1e9);
}

/* Every switch with a same or rounding class: all off, each alone, all on. The prompt cache, which the other lines
 * leave off so that the text is timed, comes last: its line is an edit whose prompt was met before. */
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
  for (guint row = 0; row <= names->len + 2; row++) {
    Times t;
    for (guint i = 0; i < names->len; i++)
      fk_settings_set(settings, names->pdata[i], row > names->len || row == i + 1 ? "auto" : "off", NULL);
    fk_settings_set(settings, "prompt-cache", row == names->len + 2 ? "on" : "off", NULL);
    g_autofree char *label = row == 0                ? g_strdup("all off")
                             : row <= names->len     ? g_strdup_printf("only %s", (char *)names->pdata[row - 1])
                             : row == names->len + 1 ? g_strdup("all on")
                                                     : g_strdup("all on, prompt-cache");
    if (!time_edits(engine, settings, width, height, runs, &t, error)) return false;
    print_times(label, &t);
    fprintf(json,
            "%s\n  {\"set\": \"%s\", \"text_ms\": %.4f, \"step_ms\": %.4f, \"encode_ms\": %.4f, \"decode_ms\": %.4f, "
            "\"edit_ms\": %.4f}",
            row ? "," : "", label, t.text, t.step, t.encode, t.decode, t.edit);
  }
  fk_settings_set(settings, "prompt-cache", "off", NULL);
  fprintf(json, "]");
  return true;
}

/* ---- The program ---- */

typedef struct {
  char *model, *size, *json, *plot;
  int runs;
  gboolean ops, switches;
  Ceiling ceiling;
} Arguments;

/* PROPERTY=VALUE: options and settings by name. */
static bool take_pairs(char **pairs, FkOptions *options, FkSettings *settings, GError **error) {
  for (char **p = pairs; *p; p++) {
    g_auto(GStrv) pair = g_strsplit(*p, "=", 2);
    size_t n;
    const FkProperty *table = fk_properties(&n);
    bool option = false;
    for (size_t i = 0; i < n; i++) option |= table[i].scope == FK_SCOPE_OPTION && !g_strcmp0(table[i].name, pair[0]);
    if (!(option ? fk_options_set(options, pair[0], pair[1], error)
                 : fk_settings_set(settings, pair[0], pair[1], error)))
      return false;
  }
  return true;
}

/* What was timed, for tables, JSON and plot. *title: (transfer full). */
static bool head(FkEngine *engine, const Arguments *a, const FkSettings *settings, int width, int height,
                 const Times *t, FILE *json, char **title, GError **error) {
  FkPlan plan;
  const bool gpu = !g_str_has_prefix(fk_engine_machine(engine), "cpu");
  const char *precision = gpu ? "bfloat16" : "float32";
  if (!fk_plan(a->model, settings, width, height, gpu ? 2 : 4, &plan, error)) return false;
  const double bytes = plan.weight_bytes + plan.arena_bytes;
  printf("%s, %s, %dx%d, %" G_GINT64_FORMAT " text + %" G_GINT64_FORMAT " target + %" G_GINT64_FORMAT
         " context tokens, %d evaluations, %s, median of %d\n",
         fk_engine_machine(engine), a->model, plan.width, plan.height, plan.text_tokens, plan.target_tokens,
         plan.context_tokens, t->evaluations, precision, a->runs);
  printf("open %.0f ms (backend, files, weights); memory planned %.2f GB\n", t->load, bytes / 1e9);
  print_times("edit", t);
  fprintf(json,
          "{\"machine\": \"%s\", \"model\": \"%s\", \"width\": %d, \"height\": %d, \"precision\": \"%s\",\n"
          " \"text_tokens\": %" G_GINT64_FORMAT ", \"target_tokens\": %" G_GINT64_FORMAT
          ", \"context_tokens\": %" G_GINT64_FORMAT
          ", \"evaluations\": %d, \"runs\": %d,\n \"open_ms\": %.1f, \"text_ms\": %.4f, \"encode_ms\": %.4f, "
          "\"step_ms\": %.4f, \"decode_ms\": %.4f, \"edit_ms\": %.4f,\n \"flop\": %.6g, \"planned_bytes\": %.6g",
          fk_engine_machine(engine), a->model, plan.width, plan.height, precision, plan.text_tokens, plan.target_tokens,
          plan.context_tokens, t->evaluations, a->runs, t->load, t->text, t->encode, t->step, t->decode, t->edit,
          t->result.flop, bytes);
  *title =
      g_strdup_printf("%s, %dx%d, %" G_GINT64_FORMAT " tokens, %s, edit %.1f ms", fk_engine_machine(engine), plan.width,
                      plan.height, plan.text_tokens + plan.target_tokens + plan.context_tokens, precision, t->edit);
  return true;
}

static bool bench(const Arguments *a, char **pairs, FILE *json, GError **error) {
  int width = 0, height = 0;
  size_t n = 0;
  Times t = {0};
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(FkSettings) settings = fk_settings_new();
  g_autoptr(GArray) groups = NULL;
  g_autofree FkProfileRow *rows = NULL;
  g_autofree char *title = NULL;
  if (sscanf(a->size, "%dx%d", &width, &height) != 2 || width < 1 || height < 1 || a->runs < 1) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "--size \"%s\" --runs %d: expected WIDTHxHEIGHT and a count",
                a->size, a->runs);
    return false;
  }
  fk_settings_set(settings, "prompt", "make it night", NULL);
  fk_settings_set(settings, "prompt-cache", "off", NULL);
  if (!fk_options_set(options, "model-path", a->model, error) || !take_pairs(pairs, options, settings, error))
    return false;
  const gint64 start = g_get_monotonic_time();
  g_autoptr(FkEngine) engine = fk_engine_open(options, NULL, NULL, NULL, error);
  if (!engine) return false;
  t.load = (double)(g_get_monotonic_time() - start) / 1000;
  if (!time_edits(engine, settings, width, height, a->runs, &t, error)) return false;
  if (!head(engine, a, settings, width, height, &t, json, &title, error)) return false;
  if (a->ops) rows = print_ops(engine, settings, width, height, &a->ceiling, json, &n, &groups, error);
  if (a->ops && !rows) return false;
  if (a->plot && !plot(a->plot, title, &t, groups, rows, n, &a->ceiling, error)) return false;
  if (a->switches && !print_switches(engine, settings, width, height, a->runs, json, error)) return false;
  fprintf(json, "}\n");
  return true;
}

int main(int argc, char **argv) {
  Arguments a = {.runs = 5, .ceiling = {790, 4.25}};
  const GOptionEntry entries[] = {
      {"model", 'm', 0, G_OPTION_ARG_FILENAME, &a.model, "Folder of the model", "FOLDER"},
      {"size", 's', 0, G_OPTION_ARG_STRING, &a.size, "Size of the picture (default 1024x1024)", "WIDTHxHEIGHT"},
      {"runs", 'n', 0, G_OPTION_ARG_INT, &a.runs, "Counted runs after one warm-up (default 5)", "N"},
      {"ops", 'o', 0, G_OPTION_ARG_NONE, &a.ops, "Tables of groups of ops and of ops", NULL},
      {"switches", 'w', 0, G_OPTION_ARG_NONE, &a.switches, "All switches off, each alone, all on", NULL},
      {"json", 'j', 0, G_OPTION_ARG_FILENAME, &a.json, "Write everything to this file too", "FILE"},
      {"plot", 'p', 0, G_OPTION_ARG_FILENAME, &a.plot, "Draw stages, and with --ops groups and ops, as a PNG", "FILE"},
      {"tflops", 0, 0, G_OPTION_ARG_DOUBLE, &a.ceiling.tflops,
       "Arithmetic ceiling for floors (default 790: measured, H200)", "X"},
      {"tbs", 0, 0, G_OPTION_ARG_DOUBLE, &a.ceiling.tbs, "Memory ceiling for floors (default 4.25: measured, H200)",
       "X"},
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
  g_free(a.plot);
  return ok ? 0 : 1;
}
