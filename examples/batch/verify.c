/* SPDX-License-Identifier: Apache-2.0 */
/* fluxkontext-verify: repeats edits from their records, and tells whether the results are equal.
 *
 *   fluxkontext-verify -m MODEL night/photo.png.json
 *   fluxkontext-verify --trust night/photo.png.json
 *   fluxkontext-verify -m MODEL -i photo.png --report report prompt="make it night"
 *
 * A record may come from anybody: what it names elsewhere is read with --trust alone.
 *
 * Exit status: 0 equal, 1 an error: nothing can be said, 2 usage, 3 differs. Not here: records (record.h), the report's
 * runs (report.h) and page (report-page.h). */
#include "../tool.h"
#include "record.h"
#include "report.h"
#include "work.h"

#include <stdio.h>
#include <string.h>

static const char name[] = "fluxkontext-verify";

enum { EXIT_ERROR = 1, EXIT_USAGE = 2, EXIT_DIFFERS = 3, MOST_RUNS = 100 };

typedef struct {
  char *model, *input, *report;
  gboolean trust; /* read what the record names */
  gint runs;
  char **given; /* PROPERTY=VALUE */
  char **records;
} Arguments;

/* ---- One record ---- */

static bool fail(GError **error, const char *what) {
  g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD, what);
  return false;
}

static bool is_option(const FkProperty *p) {
  return p->scope == FK_SCOPE_OPTION;
}

/* What a row that names files (FkProperty.file) has in the record; "": nothing. */
static const char *recorded_file(const Record *r, const FkProperty *p) {
  return record_text(r, is_option(p) ? "options" : "settings", p->name);
}

/* Model, adapters, mask and pictures beside the frame: as the record says where it is trusted. */
static bool take_files(const Arguments *a, const Record *r, FkOptions *options, FkSettings *settings, GError **error) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  bool ok = true;
  for (size_t i = 0; ok && a->trust && i < n; i++) {
    const char *path = recorded_file(r, &p[i]);
    if (p[i].file && *path)
      ok = is_option(&p[i]) ? fk_options_set(options, p[i].name, path, error)
                            : fk_settings_set(settings, p[i].name, path, error);
  }
  return ok;
}

/* Given by name, also as nothing: "vae-path=". */
static bool is_given(const Arguments *a, const FkProperty *p) {
  for (char **pair = a->given; *pair; pair++)
    if (g_str_has_prefix(*pair, p->name) && (*pair)[strlen(p->name)] == '=') return true;
  return is_option(p) && !strcmp(p->name, "model-path") && a->model;
}

/* Pictures that came without a file's name have to be given one. */
static bool pictures_named(const Record *r, const FkSettings *settings, GError **error) {
  const char *mask = fk_settings_get(settings, "mask-path"), *references = fk_settings_get(settings, "references");
  const guint expected = record_count(r, "references");
  if (record_has(r, "mask") && !(mask && *mask))
    return fail(error, "mask: the record has its hash alone: name its file with mask-path=FILE");
  g_auto(GStrv) names = g_strsplit(references ? references : "", ";", -1);
  const guint found = g_strv_length(names);
  if (!expected || expected == found) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
              "references: the record has %u pictures, %u are named: give all of them with references=\"A; B\"",
              expected, found);
  return false;
}

/* Is every file that the record names given, or taken from a trusted record? */
static bool files_named(const Arguments *a, const Record *r, const FkSettings *settings, GError **error) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  for (size_t i = 0; i < n; i++) {
    const char *path = p[i].file ? recorded_file(r, &p[i]) : "";
    if (!*path || a->trust || is_given(a, &p[i])) continue;
    g_autofree char *shown = g_strescape(path, NULL);
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                "%s: the record names \"%s\", which is not read unasked: name it with %s, or trust the record with "
                "--trust",
                p[i].name, shown, strcmp(p[i].name, "model-path") ? "NAME=FILE" : "--model");
    return false;
  }
  return pictures_named(r, settings, error);
}

/* Options, and settings that name files; for a report without a record all settings. */
static bool set_given(const Arguments *a, FkOptions *options, FkSettings *settings, GError **error) {
  if (a->model && !fk_options_set(options, "model-path", a->model, error)) return false;
  for (char **pair = a->given; *pair; pair++)
    if (!tool_set(options, a->report || tool_names_file(*pair, strcspn(*pair, "=")) ? settings : NULL, *pair, error))
      return false;
  return true;
}

/* What ran, on the model and machine that were named instead. */
static bool prepare(const Arguments *a, const Record *r, FkOptions *options, FkSettings *settings, GError **error) {
  if (r && (!fk_manifest_apply(r->text, options, settings, error) || !take_files(a, r, options, settings, error)))
    return false;
  return set_given(a, options, settings, error) && (!r || files_named(a, r, settings, error));
}

/* The picture that was edited: -i, one beside the record, or where a trusted record says. (transfer full) */
static Work *read_input(const Arguments *a, const Record *r, const FkSettings *settings, GError **error) {
  const char *path = a->input ? a->input : r ? record_input(r, a->trust) : NULL;
  const WorkRules rules = WORK_RULES;
  if (!path) {
    fail(error, "the picture that was edited is not beside the record: name it with --input, or trust the record's "
                "name of it with --trust");
    return NULL;
  }
  g_autoptr(Work) w = work_new(path, "result.png", settings);
  return work_read(w, &rules, error) && work_decode(w, &rules, error) ? g_steal_pointer(&w) : NULL;
}

static char *hash_pixels(const FkImage *image) {
  return g_compute_checksum_for_data(G_CHECKSUM_SHA256, image->data, image->stride * (gsize)image->height);
}

/* The image beside the record, or around it, against what the record says of it. */
static bool check_image(const Record *r, GPtrArray *differences, GError **error) {
  if (!r->image) return true;
  const char *expected = record_text(r, "file", "sha256"), *found;
  const WorkRules rules = WORK_RULES;
  g_autofree char *pixels = NULL;
  g_autoptr(FkSettings) none = fk_settings_new();
  g_autoptr(Work) w = work_new(r->image, r->image, none);
  if (!work_read(w, &rules, error)) return false;
  found = w->input_sha;
  if (!*expected) {
    if (!work_decode(w, &rules, error)) return false;
    found = pixels = hash_pixels(&w->photo.image);
    expected = record_text(r, "result", "sha256");
  }
  if (strcmp(found, expected))
    g_ptr_array_add(differences, g_strdup_printf("%s: expected %.12s, found %.12s", r->image, expected, found));
  return true;
}

/* Runs it again; sentences about what differs. engine: of the record before, kept for the next; replaced. */
static bool rerun(const Arguments *a, const Record *r, FkEngine **engine, GPtrArray *differences, GError **error) {
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(FkSettings) settings = fk_settings_new();
  const WorkRules rules = WORK_RULES;
  if (!prepare(a, r, options, settings, error)) return false;
  g_autoptr(Work) w = read_input(a, r, settings, error);
  FkEngine *now = w ? fk_engine_new(options, error) : NULL;
  if (!now) return false;
  fk_engine_unref(*engine);
  *engine = now;
  g_autofree char *pixels = hash_pixels(&w->photo.image);
  const char *expected = record_text(r, "input", "sha256");
  if (strcmp(pixels, expected)) {
    g_ptr_array_add(differences, g_strdup_printf("input, %s: expected %.12s, found %.12s", w->input, expected, pixels));
    return true;
  }
  if (!work_edit(now, &w, 1, &rules, NULL, NULL, NULL, error)) return false;
  char *text = fk_manifest(now, &w->job, error);
  g_autoptr(Record) found = text ? record_parse(text, error) : NULL;
  if (!found) return false;
  /* Another version or another machine with the same pixels is what was hoped for. */
  if (!strcmp(record_text(r, "result", "sha256"), record_text(found, "result", "sha256"))) return true;
  g_autoptr(GPtrArray) list = record_differences(r, found);
  g_ptr_array_extend_and_steal(differences, g_steal_pointer(&list));
  return true;
}

static int verify_one(const Arguments *a, const char *path, FkEngine **engine) {
  g_autoptr(GError) error = NULL;
  g_autoptr(GPtrArray) differences = g_ptr_array_new_with_free_func(g_free);
  g_autofree char *shown = tool_printable(path);
  g_autoptr(Record) r = record_read(path, &error);
  if (!r || !check_image(r, differences, &error) || !rerun(a, r, engine, differences, &error)) {
    g_autofree char *why = tool_printable(error->message);
    fprintf(stderr, "%s: %s\n", name, why);
    return EXIT_ERROR;
  }
  if (!differences->len) {
    printf("%s: equal\n", shown);
    return 0;
  }
  for (guint i = 0; i < differences->len; i++) {
    g_autofree char *what = tool_printable(differences->pdata[i]);
    printf("%s: %s\n", shown, what);
  }
  return EXIT_DIFFERS;
}

/* An error weighs more than a difference: of that record nothing is known. */
static int verify_all(const Arguments *a) {
  g_autoptr(FkEngine) engine = NULL;
  int worst = 0;
  for (char **path = a->records; *path; path++) {
    const int status = verify_one(a, *path, &engine);
    if (status == EXIT_ERROR || !worst) worst = status;
    fflush(stdout);
  }
  return worst;
}

/* ---- A report ---- */

static int report(const Arguments *a) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(FkSettings) settings = fk_settings_new();
  g_autoptr(Record) r = *a->records ? record_read(*a->records, &error) : NULL;
  bool equal = true;
  if (!error && prepare(a, r, options, settings, &error)) {
    g_autoptr(Work) w = read_input(a, r, settings, &error);
    const char *expected = r ? record_text(r, "result", "sha256") : NULL;
    if (w && report_run(options, w, expected, a->runs, a->report, &equal, &error)) return equal ? 0 : EXIT_DIFFERS;
  }
  fprintf(stderr, "%s: %s\n", name, error->message);
  return EXIT_ERROR;
}

/* ---- Arguments ---- */

static bool is_property(const char *argument) {
  return strchr(argument, '=') && !g_file_test(argument, G_FILE_TEST_EXISTS);
}

/* What is wrong with the arguments; NULL: nothing. */
static const char *sort_arguments(Arguments *a, char **arguments) {
  g_autoptr(GPtrArray) given = g_ptr_array_new(), records = g_ptr_array_new();
  for (; *arguments; arguments++) g_ptr_array_add(is_property(*arguments) ? given : records, *arguments);
  g_ptr_array_add(given, NULL);
  g_ptr_array_add(records, NULL);
  const guint n = records->len - 1;
  a->given = (char **)g_ptr_array_free(g_steal_pointer(&given), FALSE);
  a->records = (char **)g_ptr_array_free(g_steal_pointer(&records), FALSE);
  if (a->report && n > 1) return "a report is made of one record";
  if (a->report && !n && !a->input) return "expected a record or --input";
  if (!a->report && !n) return "expected records";
  if (a->input && n > 1) return "--input goes with one record";
  return a->runs >= 1 && a->runs <= MOST_RUNS ? NULL : "--runs: expected 1 to 100";
}

int main(int argc, char **argv) {
  static Arguments a = {.runs = 3};
  const GOptionEntry entries[] = {
      {"model", 'm', 0, G_OPTION_ARG_FILENAME, &a.model, "Folder of the model", "FOLDER"},
      {"input", 'i', 0, G_OPTION_ARG_FILENAME, &a.input, "What was edited; else beside the record", "FILE"},
      {"trust", 't', 0, G_OPTION_ARG_NONE, &a.trust, "Read files where the record says: your own", NULL},
      {"report", 'r', 0, G_OPTION_ARG_FILENAME, &a.report, "Runs in several modes: report.json and .png in it",
       "FOLDER"},
      {"runs", 'n', 0, G_OPTION_ARG_INT, &a.runs, "Of each mode of a report (3)", "N"},
      {NULL, 0, 0, 0, NULL, NULL, NULL}};
  g_autoptr(GError) error = NULL;
  int status = 0;
  if (!tool_begin(name, "[RECORD...] [PROPERTY=VALUE ...]",
                  "  fluxkontext-verify -m MODEL night/photo.png.json\n"
                  "  fluxkontext-verify -m MODEL -i in.png --report out prompt=\"make it night\"\n"
                  "Repeats edits and tells whether the results are equal, or what differs. RECORD\n"
                  "is the .json beside a result, or a PNG that holds one (fluxkontext-batch -t).\n"
                  "Exit: 0 equal, 1 an error, 2 usage, 3 differs.",
                  entries, &argc, &argv, &status))
    return status;
  const char *wrong = sort_arguments(&a, argv + 1);
  if (wrong) {
    fprintf(stderr, "%s: %s; see --help\n", name, wrong);
    status = EXIT_USAGE;
  } else if (!photo_start(name, &error)) {
    fprintf(stderr, "%s: %s\n", name, error->message);
    status = EXIT_ERROR;
  } else {
    status = a.report ? report(&a) : verify_all(&a);
  }
  g_free(a.given);
  g_free(a.records);
  return tool_end(name, status);
}
