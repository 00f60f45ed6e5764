/* SPDX-License-Identifier: Apache-2.0 */
/* fluxkontext-quality: what each way of saving work costs in quality. Edits the cases of tests/quality under a list of
 * settings, measures each result against our own exact one (28 Euler steps, preset=exact) and, where there is one,
 * against the right answer, and writes tables, plots, grids and docs/quality.md. On fk.h alone.
 *
 *   fluxkontext-quality --doc docs/quality.md          the default: some cases of each tier
 *   fluxkontext-quality --full --resume                every case; goes on where an earlier run was stopped
 *   fluxkontext-quality --full -b cuda --jobs 16       the cases shared out to 16 processes on one GPU
 *
 * Results are kept in --out as they come: results.jsonl (results-N.jsonl of job N), one line each; pictures of the
 * exact results and of each tier's first case. Drawing and tables are in the other quality-*.c. */
#include "picture.h"
#include "quality-lab.h"
#include "quality-layers.h"
#include "quality-search.h"
#include "tool.h"

#include <gio/gio.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char name[] = "fluxkontext-quality";

#define CALIBRATION 60        /* settings that --calibrate tries */
#define DEFAULT_LIMIT "8,4,4" /* cases of the tiers: below ten minutes on two cores */

/* ---- Which cases and settings ---- */

/* "8", or one number for each tier: "12,8,8"; the last one is also that of the tiers that are not named. */
static bool parse_limit(QualityLab *lab, GError **error) {
  g_auto(GStrv) parts = g_strsplit(lab->arguments->limit, ",", -1);
  const guint n = g_strv_length(parts);
  bool good = n >= 1 && n <= QUALITY_TIERS;
  for (guint t = 0; good && t < QUALITY_TIERS; t++) {
    guint64 value;
    good = g_ascii_string_to_unsigned(parts[MIN(t, n - 1)], 10, 1, G_MAXINT, &value, NULL);
    lab->limit[t] = good ? (int)value : 0;
  }
  if (!good)
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                "--limit \"%s\": expected numbers above 0: NAMED,VAGUE,OPEN,LOCAL,GLOBAL", lab->arguments->limit);
  return good;
}

/* Files that no option names are the project's, below the working directory: a message names the option. */
static GPtrArray *of_option(const char *option, GPtrArray *list, GError **error) {
  if (!list) g_prefix_error(error, "%s: ", option);
  return list;
}

static GPtrArray *read_cases(const QualityArguments *a, GError **error) {
  if (a->calibrate) return of_option("--calibrate", quality_cases_folder(a->calibrate, error), error);
  return of_option("--cases", quality_cases_read(a->cases_file, error), error);
}

static bool selected(const QualityLab *lab, const char *id) {
  for (guint i = 0; i < lab->cases->len; i++)
    if (!strcmp(((const QualityCase *)lab->cases->pdata[i])->id, id)) return true;
  return false;
}

static bool own_case(const QualityLab *lab, guint index) {
  return (int)index % lab->shards == lab->shard;
}

/* Drops the cases that are not asked for: other tiers, and beyond the limit in each tier. */
static void select_cases(QualityLab *lab) {
  for (guint i = 0; i < lab->cases->len;) {
    const QualityCase *c = lab->cases->pdata[i];
    const bool wanted =
        (lab->tiers & 1u << c->tier) && (lab->arguments->full || lab->chosen[c->tier] < lab->limit[c->tier]);
    lab->chosen[c->tier] += wanted;
    lab->there[c->tier]++;
    if (wanted)
      i++;
    else
      g_ptr_array_remove_index(lab->cases, i);
  }
  for (int t = 0; t < QUALITY_TIERS; t++)
    if (!lab->chosen[t]) lab->tiers &= ~(1u << t);
  for (guint i = 0; i < lab->cases->len; i++) {
    if (!own_case(lab, i)) continue;
    lab->total++;
    for (guint k = 0; k < lab->settings->len; k++)
      lab->total += quality_lab_takes(lab, lab->settings->pdata[k], lab->cases->pdata[i]);
  }
}

/* ---- One edit ---- */

/* Each job has a file of its own, so that none writes into another's line. */
static char *results_path(const QualityLab *lab) {
  g_autofree char *name = lab->arguments->shard ? g_strdup_printf("results-%d.jsonl", lab->shard) : NULL;
  return g_build_filename(lab->arguments->out, name ? name : "results.jsonl", NULL);
}

static void show_progress(const QualityLab *lab, const QualityCase *c, const char *setting) {
  if (lab->shard || !isatty(STDERR_FILENO)) return;
  const double spent = (double)(g_get_monotonic_time() - lab->began) / 1e6;
  const int left = lab->computed ? (int)(spent / lab->computed * (lab->total - lab->done)) : 0;
  char bar[31];
  for (int i = 0; i < 30; i++) bar[i] = i < 30 * lab->done / lab->total ? '#' : '.';
  bar[30] = 0;
  fprintf(stderr, "\r[%s] %d/%d %d:%02d left  %-5s %-24.24s", bar, lab->done, lab->total, left / 60, left % 60,
          quality_tier_names[c->tier], setting);
}

/* One for each set of options, kept to the end: settings of one case follow each other. (transfer none) */
static FkEngine *engine_for(const QualityLab *lab, const char *text, GError **error) {
  g_autoptr(FkOptions) options = fk_options_new();
  FkEngine *engine = *text ? g_hash_table_lookup(lab->engines, text) : lab->engine;
  if (engine) return engine;
  if (!fk_options_set(options, "model-path", lab->arguments->model, error) ||
      !fk_options_set(options, "backend", lab->arguments->backend, error) ||
      !quality_options_apply(text, options, error) || !(engine = fk_engine_open(options, NULL, NULL, NULL, error))) {
    g_prefix_error(error, "%s: ", text);
    return NULL;
  }
  g_hash_table_insert(lab->engines, g_strdup(text), engine);
  return engine;
}

QualityRow *quality_lab_edit(const QualityLab *lab, const QualitySetting *setting, const QualityCase *c, FkImage *image,
                             GError **error) {
  g_autoptr(FkSettings) settings = quality_settings_apply(setting, c, error);
  FkImage in;
  double fixed;
  if (!settings || !quality_picture_read(c->input, &in, error)) return NULL;
  *image = in;
  image->data = g_malloc((gsize)in.stride * (gsize)in.height);
  FkJob job = {.in = in, .out = *image, .settings = settings};
  FkEngine *engine = engine_for(lab, setting ? setting->options : "", error);
  const bool ok = engine && fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, error) &&
                  quality_fixed_flop(lab->arguments->model, settings, &in, &fixed, error);
  g_free(in.data);
  if (!ok) {
    g_prefix_error(error, "%s, case %s: ", setting ? setting->name : "exact", c->id);
    g_clear_pointer(&image->data, g_free);
    return NULL;
  }
  QualityRow *row = g_new0(QualityRow, 1);
  row->setting = g_strdup(setting ? setting->name : "exact");
  row->text = g_strdup(setting ? setting->text : "");
  row->id = g_strdup(c->id);
  row->tier = c->tier;
  row->ms = job.result.edit_ms;
  row->flop = job.result.flop;
  row->model_flop = job.result.flop - fixed;
  row->evaluations = job.result.evaluations;
  row->skipped = job.result.skipped;
  g_strlcpy(row->mask, job.result.mask, sizeof row->mask);
  return row;
}

/* Edits, measures, keeps. exact: NULL for the exact edit itself, whose picture is handed out in *image. */
static bool run_one(QualityLab *lab, const QualitySetting *setting, const QualityCase *c, const FkImage *exact,
                    FkImage *image, GError **error) {
  g_autofree char *file = results_path(lab);
  show_progress(lab, c, setting ? setting->name : "exact");
  QualityRow *row = quality_lab_edit(lab, setting, c, image, error);
  if (!row) return false;
  bool ok = quality_row_measure(row, c, image, exact ? exact : image, error);
  if (ok && (!setting || c == quality_lab_first(lab, c->tier))) {
    g_autofree char *path = quality_lab_picture(lab, c, row->setting);
    ok = picture_write(path, image, error);
  }
  ok = ok && quality_rows_append(file, row, error);
  g_ptr_array_add(lab->rows, row);
  lab->done++;
  lab->computed++;
  return ok;
}

/* The exact result: from the file of an earlier run, or made now. */
static bool exact_result(QualityLab *lab, const QualityCase *c, FkImage *exact, GError **error) {
  g_autofree char *path = quality_lab_picture(lab, c, "exact");
  if (!quality_rows_find(lab->rows, "", c->id)) return run_one(lab, NULL, c, NULL, exact, error);
  lab->done++;
  return quality_picture_read(path, exact, error);
}

static bool run_case(QualityLab *lab, const QualityCase *c, GError **error) {
  FkImage exact = {0}, image = {0};
  bool ok = exact_result(lab, c, &exact, error);
  for (guint i = 0; ok && i < lab->settings->len; i++) {
    const QualitySetting *s = lab->settings->pdata[i];
    if (!quality_lab_takes(lab, s, c)) continue;
    if (quality_rows_find(lab->rows, s->text, c->id)) {
      lab->done++;
      continue;
    }
    ok = run_one(lab, s, c, &exact, &image, error);
    if (ok) g_free(image.data);
  }
  if (exact.data) g_free(exact.data);
  return ok;
}

/* ---- The search ---- */

/* The row that is there, or a new one. */
static const QualityRow *judge(void *data, const QualitySetting *setting, const QualityCase *c, GError **error) {
  QualityLab *lab = data;
  FkImage exact = {0}, image = {0};
  const QualityRow *row = quality_rows_find(lab->rows, setting->text, c->id);
  if (row) return row;
  if (exact_result(lab, c, &exact, error) && run_one(lab, setting, c, &exact, &image, error))
    row = lab->rows->pdata[lab->rows->len - 1];
  g_free(image.data);
  g_free(exact.data);
  return row;
}

/* In place of the settings' file: what the search finds, beside plain Euler with the steps of the file. */
static bool search(QualityLab *lab, GError **error) {
  const QualityArguments *a = lab->arguments;
  const QualityCase *first = lab->cases->pdata[0];
  FkImage exact = {0};
  QualitySearch s = {lab->cases, judge, lab, a->search, (guint32)a->seed, a->floor, a->ssim, a->by, 0};
  if (!exact_result(lab, first, &exact, error)) return false;
  g_free(exact.data);
  s.exact = quality_rows_find(lab->rows, "", first->id)->model_flop;
  g_autoptr(GPtrArray) found = quality_search(&s, error);
  if (!found) return false;
  for (guint i = lab->settings->len; i-- > 0;)
    if (!((const QualitySetting *)lab->settings->pdata[i])->plain_steps) g_ptr_array_remove_index(lab->settings, i);
  if (!found->len) fprintf(stderr, "%s: no setting passes all cases\n", name);
  g_ptr_array_extend_and_steal(lab->settings, g_steal_pointer(&found));
  return true;
}

/* ---- The run ---- */

/* Results in a folder, of every job, for the selected cases. (transfer full) */
static GPtrArray *load_rows(const QualityLab *lab, const char *out, GError **error) {
  g_autoptr(GPtrArray) rows = quality_rows_load_folder(out, error);
  for (guint i = rows ? rows->len : 0;
       i-- > 0;) /* earlier results of other cases stay in the file and out of the tables */
    if (!selected(lab, ((const QualityRow *)rows->pdata[i])->id)) g_ptr_array_remove_index(rows, i);
  return g_steal_pointer(&rows);
}

static bool parse_shard(QualityLab *lab, GError **error) {
  const char *text = lab->arguments->shard;
  lab->shards = 1;
  char rest;
  if (!text) return true;
  if (sscanf(text, "%9d/%9d%c", &lab->shard, &lab->shards, &rest) == 2 && lab->shard >= 0 && lab->shard < lab->shards)
    return true;
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "--shard \"%s\": expected I/N with I below N", text);
  return false;
}

/* Cases, settings and earlier results; no engine. */
static bool open_lab(QualityLab *lab, GError **error) {
  const QualityArguments *a = lab->arguments;
  if (!(lab->tiers = quality_tiers_parse(a->tiers, error)) || !parse_limit(lab, error) || !parse_shard(lab, error))
    return false;
  if (!(lab->cases = read_cases(a, error))) return false;
  lab->settings = of_option("--settings", quality_settings_read(a->settings_file, error), error);
  if (!lab->settings) return false;
  select_cases(lab);
  for (guint i = 0; i < lab->settings->len; i++) { /* a pair that is refused shows before the first edit */
    g_autoptr(FkSettings) probe = quality_settings_apply(lab->settings->pdata[i], lab->cases->pdata[0], error);
    if (!probe) return false;
  }
  g_mkdir_with_parents(a->out, 0777);
  if (!a->resume && !a->report && !a->shard) quality_rows_forget(a->out);
  return (lab->rows = load_rows(lab, a->out, error));
}

/* The machine is noted beside the results, for reports that are written elsewhere. */
static bool open_engine(QualityLab *lab, GError **error) {
  const QualityArguments *a = lab->arguments;
  g_autoptr(FkOptions) options = fk_options_new();
  g_autofree char *file = g_build_filename(a->out, "machine.txt", NULL);
  if (!fk_options_set(options, "model-path", a->model, error) ||
      !fk_options_set(options, "backend", a->backend, error) ||
      !(lab->engine = fk_engine_open(options, NULL, NULL, NULL, error)))
    return false;
  const char *machine = fk_engine_machine(lab->engine);
  return fk_file_write(file, machine, strlen(machine), error);
}

static bool run_cases(QualityLab *lab, GError **error) {
  if (!open_engine(lab, error)) return false;
  lab->began = g_get_monotonic_time();
  if (lab->arguments->search && !search(lab, error)) return false;
  for (guint i = 0; i < lab->cases->len; i++) {
    if (!own_case(lab, i)) continue;
    if (!run_case(lab, lab->cases->pdata[i], error)) return false;
    if (!lab->shard && !isatty(STDERR_FILENO)) fprintf(stderr, "%d of %d\n", lab->done, lab->total);
  }
  if (!lab->shard && isatty(STDERR_FILENO)) fprintf(stderr, "\r%100s\r", "");
  return true;
}

/* This program once for each share of the cases; the first shows how far it is. */
static bool run_jobs(QualityLab *lab, char **argv, GError **error) {
  const int jobs = lab->arguments->jobs;
  g_autoptr(GPtrArray) running = g_ptr_array_new_with_free_func(g_object_unref);
  bool ok = true;
  for (int i = 0; ok && i < jobs; i++) {
    g_autoptr(GPtrArray) own = g_ptr_array_new();
    g_autofree char *shard = g_strdup_printf("--shard=%d/%d", i, jobs);
    for (char **p = argv; *p; p++) g_ptr_array_add(own, *p);
    g_ptr_array_add(own, shard);
    g_ptr_array_add(own, NULL);
    GSubprocess *job = g_subprocess_newv((const char *const *)own->pdata, G_SUBPROCESS_FLAGS_NONE, error);
    if ((ok = job)) g_ptr_array_add(running, job);
  }
  for (guint i = 0; i < running->len; i++)
    ok = g_subprocess_wait_check(running->pdata[i], NULL, ok ? error : NULL) && ok;
  g_clear_pointer(&lab->rows, g_ptr_array_unref);
  return ok && (lab->rows = load_rows(lab, lab->arguments->out, error));
}

/* What another machine measured; and a line that says how far its exact results are from this one's. */
static bool join_elsewhere(QualityLab *lab, GError **error) {
  g_autofree char *file = g_build_filename(lab->arguments->other, "machine.txt", NULL), *machine = NULL;
  if (!(lab->elsewhere = load_rows(lab, lab->arguments->other, error)) ||
      !g_file_get_contents(file, &machine, NULL, error))
    return false;
  QualitySetting *s = quality_setting_new("exact-elsewhere", machine, (1u << QUALITY_TIERS) - 1);
  g_ptr_array_insert(lab->settings, 0, s);
  for (guint i = 0; i < lab->cases->len; i++) {
    const QualityCase *c = lab->cases->pdata[i];
    const QualityRow *own = quality_rows_find(lab->rows, "", c->id);
    g_autofree char *here = quality_lab_picture(lab, c, "exact");
    g_autofree char *there = g_build_filename(lab->arguments->other, "pictures", c->id, "exact.png", NULL);
    FkImage a = {0}, b = {0};
    if (!own || !g_file_test(there, G_FILE_TEST_EXISTS)) continue;
    bool ok = quality_picture_read(here, &a, error) && quality_picture_read(there, &b, error);
    if (ok) {
      QualityRow *row = quality_row_copy(own, s);
      ok = quality_row_measure(row, c, &b, &a, error);
      g_ptr_array_add(lab->rows, row);
    }
    g_free(a.data);
    g_free(b.data);
    if (!ok) return false;
  }
  return true;
}

/* Before all edits: that it can be written, and what it begins with is there. */
static bool check_document(const QualityArguments *a, GError **error) {
  g_autofree char *text = NULL;
  if (!a->doc || a->shard) return true;
  if (g_file_get_contents(a->text, &text, NULL, error)) return tool_check_output(a->doc, error);
  g_prefix_error(error, "--text: ");
  return false;
}

static bool run(const QualityArguments *a, char **argv, GError **error) {
  QualityLab lab = {.arguments = a};
  lab.engines = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)fk_engine_unref);
  g_autofree char *file = g_build_filename(a->out, "machine.txt", NULL);
  bool ok = open_lab(&lab, error) && check_document(a, error);
  if (ok && !a->report) ok = a->jobs > 1 && !a->shard ? run_jobs(&lab, argv, error) : run_cases(&lab, error);
  if (ok && !a->shard)
    ok = g_file_get_contents(file, &lab.machine, NULL, error) && (!a->other || join_elsewhere(&lab, error)) &&
         (!a->worst || ((lab.engine || open_engine(&lab, error)) && quality_report_worst(&lab, error))) &&
         quality_report_write(&lab, error);
  g_hash_table_unref(lab.engines);
  fk_engine_unref(lab.engine);
  g_free(lab.machine);
  g_clear_pointer(&lab.cases, g_ptr_array_unref);
  g_clear_pointer(&lab.settings, g_ptr_array_unref);
  g_clear_pointer(&lab.rows, g_ptr_array_unref);
  g_clear_pointer(&lab.elsewhere, g_ptr_array_unref);
  return ok;
}

/* The inputs of a model's layers, instead of pictures: the first cases of each tier. */
static bool run_layers(const QualityArguments *a, GError **error) {
  QualityLab lab = {.arguments = a};
  bool ok = (lab.tiers = quality_tiers_parse(a->tiers, error)) && parse_limit(&lab, error) &&
            (lab.cases = of_option("--cases", quality_cases_read(a->cases_file, error), error)) &&
            (lab.settings = g_ptr_array_new());
  if (ok) {
    lab.shards = 1;
    select_cases(&lab);
    ok = quality_layers(a->model, a->backend, lab.cases, a->json, error);
  }
  g_clear_pointer(&lab.cases, g_ptr_array_unref);
  g_clear_pointer(&lab.settings, g_ptr_array_unref);
  return ok;
}

/* A file of the project, in an installed program's data or in the working directory. (transfer full) */
static char *project_file(const char *path) {
  g_autofree char *program = g_file_read_link("/proc/self/exe", NULL);
  g_autofree char *folder = program ? g_path_get_dirname(program) : g_strdup(".");
  g_autofree char *data = g_canonicalize_filename(FK_TOOL_DATA, folder);
  char *installed = g_build_filename(data, path, NULL);
  if (g_file_test(installed, G_FILE_TEST_EXISTS)) return installed;
  g_free(installed);
  return g_strdup(path);
}

static void defaults(QualityArguments *a) {
  char **const files[] = {&a->model, &a->cases_file, &a->settings_file, &a->text};
  const char *const paths[] = {"examples/demo-model/checkpoint", "tests/quality/cases.json",
                               "tests/quality/settings.txt", "tests/quality/head.md"};
  char **const texts[] = {&a->backend, &a->tiers, &a->out, &a->limit};
  const char *const values[] = {"auto", "named,vague,open,local,global", "quality-output",
                                a->layers ? "1" : DEFAULT_LIMIT};
  for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
    if (!*files[i]) *files[i] = project_file(paths[i]);
    if (!*texts[i]) *texts[i] = g_strdup(values[i]);
  }
}

int main(int argc, char **argv) {
  QualityArguments a = {.floor = 25, .ssim = 0.9, .by = 3};
  const GOptionEntry entries[] = {
      {"model", 'm', 0, G_OPTION_ARG_FILENAME, &a.model, "Folder of the model", "FOLDER"},
      {"backend", 'b', 0, G_OPTION_ARG_FILENAME, &a.backend, "auto, cpu or cuda", "NAME"},
      {"tiers", 't', 0, G_OPTION_ARG_FILENAME, &a.tiers, "Tiers to run (default: all that have cases)", "LIST"},
      {"only", 0, 0, G_OPTION_ARG_FILENAME, &a.only, "Settings by name, e.g. \"teacache*\"; plain too", "GLOB"},
      {"limit", 'n', 0, G_OPTION_ARG_FILENAME, &a.limit, "Cases of the tiers (default " DEFAULT_LIMIT ")", "N,N,..."},
      {"full", 'f', 0, G_OPTION_ARG_NONE, &a.full, "All cases", NULL},
      {"resume", 'r', 0, G_OPTION_ARG_NONE, &a.resume, "Keep the results in --out and add what is missing", NULL},
      {"report", 0, 0, G_OPTION_ARG_NONE, &a.report, "Run nothing: tables and pictures from --out", NULL},
      {"worst", 'w', 0, G_OPTION_ARG_NONE, &a.worst, "Draw each setting's worst case of each tier: worst.png", NULL},
      {"jobs", 'j', 0, G_OPTION_ARG_INT, &a.jobs, "Processes that share the cases out (default 1)", "N"},
      {"shard", 0, 0, G_OPTION_ARG_FILENAME, &a.shard, "Only share I of N, without a report", "I/N"},
      {"search", 0, 0, G_OPTION_ARG_INT, &a.search, "Draw N settings at random and near the best so far", "N"},
      {"calibrate", 0, 0, G_OPTION_ARG_FILENAME, &a.calibrate, "Search for this model, on pictures + prompts.txt",
       "FOLDER"},
      {"seed", 0, 0, G_OPTION_ARG_INT, &a.seed, "With --search: of its random numbers (default 0)", "N"},
      {"floor", 0, 0, G_OPTION_ARG_DOUBLE, &a.floor, "With --search: dB of the worst case (default 25)", "DB"},
      {"ssim", 0, 0, G_OPTION_ARG_DOUBLE, &a.ssim, "With --search: SSIM of the worst case (default 0.9)", "N"},
      {"by", 0, 0, G_OPTION_ARG_DOUBLE, &a.by, "With --search: times fewer FLOP at least (default 3)", "N"},
      {"elsewhere", 0, 0, G_OPTION_ARG_FILENAME, &a.other, "Another machine's --out, to compare with", "FOLDER"},
      {"layers", 'l', 0, G_OPTION_ARG_NONE, &a.layers, "Measure inputs of layers and what 8 bits cost each", NULL},
      {"json", 0, 0, G_OPTION_ARG_NONE, &a.json, "With --layers: JSON instead of a table", NULL},
      {"cases", 0, 0, G_OPTION_ARG_FILENAME, &a.cases_file, "List of cases", "FILE"},
      {"settings", 's', 0, G_OPTION_ARG_FILENAME, &a.settings_file, "List of settings", "FILE"},
      {"out", 'o', 0, G_OPTION_ARG_FILENAME, &a.out, "Where results go (default quality-output)", "FOLDER"},
      {"doc", 'd', 0, G_OPTION_ARG_FILENAME, &a.doc, "Write this document too; pictures in images/", "FILE"},
      {"text", 0, 0, G_OPTION_ARG_FILENAME, &a.text, "What the document begins with", "FILE"},
      {NULL, 0, 0, 0, NULL, NULL, NULL}};
  g_autoptr(GError) error = NULL;
  g_auto(GStrv) command = g_strdupv(argv);
  int status;
  if (!tool_begin(name, NULL,
                  "  fluxkontext-quality -m MODEL --tiers named --limit 4\n"
                  "  fluxkontext-quality -m MODEL --layers\n"
                  "  fluxkontext-quality -m MODEL --limit 6 --search 100 --resume\n"
                  "  fluxkontext-quality -m MODEL --calibrate FOLDER --resume\n"
                  "Measures what settings cost in quality, against the exact result.\n"
                  "Exit: 0 done, 1 an error or results that are missing, 2 usage.",
                  entries, &argc, &argv, &status))
    return status;
  defaults(&a);
  if (a.calibrate) a.full = TRUE;
  if (a.calibrate && !a.search) a.search = CALIBRATION;
  if (argc > 1) g_set_error(&error, FK_ERROR, FK_ERROR_OPTION_BAD, "\"%s\" is not expected; see --help", argv[1]);
  if (a.json && !a.layers) g_set_error(&error, FK_ERROR, FK_ERROR_OPTION_BAD, "--json is for --layers; see --help");
  if (a.search && (a.jobs > 1 || a.report || a.shard))
    g_set_error(&error, FK_ERROR, FK_ERROR_OPTION_BAD, "--search runs in one process: no --jobs, --shard or --report");
  const bool ok = !error && (a.layers ? run_layers(&a, &error) : run(&a, command, &error));
  if (error) fprintf(stderr, "%s: %s\n", name, error->message);
  char *texts[] = {a.model, a.backend, a.cases_file, a.settings_file, a.tiers, a.only,     a.out,
                   a.doc,   a.text,    a.limit,      a.other,         a.shard, a.calibrate};
  for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) g_free(texts[i]);
  return tool_end(name, ok ? 0 : 1);
}
