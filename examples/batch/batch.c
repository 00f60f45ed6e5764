/* SPDX-License-Identifier: Apache-2.0 */
/* fluxkontext-batch: edits many pictures.
 *
 *   fluxkontext-batch -m MODEL -p "make it night" -o OUT photos/
 *
 * Exit status: 0 all done, 1 some failed or an error, 2 usage, 75 a device was lost (start again with --resume), 130
 * interrupted. Threads: run.h. Not here: one edit (work.h), lists (items.h). */
#include "../tool.h"
#include "dry.h"
#include "items.h"
#include "progress.h"
#include "run.h"
#include "write.h"

#ifdef FK_QUEUE
#include "../worker/submit.h"
#endif

#include <glib-unix.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char name[] = "fluxkontext-batch";

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_LOST = 75, EXIT_INTERRUPTED = 130, MOST_DEVICES = 64, MOST_BATCH = 64 };

typedef struct {
  char *model, *prompt, *out, *format, *shard, *devices, *progress;
  gboolean recursive, zero, resume, overwrite, text, dry;
  gint quality, batch;
  gint64 max_pixels;
} Arguments;

/* ---- Interrupts ---- */

/* The first finishes what is under way; the second ends the process, and its temporary files. */
static gboolean on_signal(gpointer data) {
  static bool stopped;
  (void)data;
  if (stopped) {
    write_abandon();
    _exit(EXIT_INTERRUPTED);
  }
  stopped = true;
  run_stop();
  return G_SOURCE_CONTINUE;
}

static gpointer run_loop(gpointer loop) {
  g_main_loop_run(loop);
  return NULL;
}

static void watch_signals(void) {
  g_unix_signal_add(SIGINT, on_signal, NULL);
  g_unix_signal_add(SIGTERM, on_signal, NULL);
  g_thread_unref(g_thread_new("signals", run_loop, g_main_loop_new(NULL, FALSE)));
}

/* ---- Arguments ---- */

static bool bad(GError **error, const char *option, const char *value, const char *expected) {
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: \"%s\" is not %s", option, value, expected);
  return false;
}

static bool parse_shard(const char *text, ItemsRules *rules, GError **error) {
  char rest;
  rules->shard = rules->shards = 1;
  if (!text) return true;
  if (sscanf(text, "%9d/%9d%c", &rules->shard, &rules->shards, &rest) == 2 && rules->shard >= 1 &&
      rules->shard <= rules->shards)
    return true;
  return bad(error, "--shard", text, "I/N with I from 1 to N");
}

static bool check_numbers(const Arguments *a, GError **error) {
  g_autofree char *quality = g_strdup_printf("%d", a->quality), *batch = g_strdup_printf("%d", a->batch),
                  *pixels = g_strdup_printf("%" G_GINT64_FORMAT, a->max_pixels);
  if (a->quality < 1 || a->quality > 100) return bad(error, "--quality", quality, "an integer from 1 to 100");
  if (a->batch < 1 || a->batch > MOST_BATCH) return bad(error, "--batch", batch, "an integer from 1 to 64");
  return a->max_pixels >= 1 || bad(error, "--max-pixels", pixels, "1 or more");
}

/* PROPERTY=VALUE, unless a file has that name. */
static bool is_property(const char *argument) {
  const char *equals = strchr(argument, '=');
  size_t n;
  const FkProperty *p = fk_properties(&n);
  for (size_t i = 0; equals && i < n; i++)
    if (strlen(p[i].name) == (size_t)(equals - argument) && !strncmp(argument, p[i].name, strlen(p[i].name)))
      return !g_file_test(argument, G_FILE_TEST_EXISTS);
  return false;
}

/* Sets the properties; the rest are inputs. (transfer container) */
static char **sort_arguments(const Arguments *a, char **arguments, FkOptions *options, FkSettings *settings,
                             GError **error) {
  g_autoptr(GPtrArray) inputs = g_ptr_array_new();
  g_autofree char *text = a->prompt ? tool_utf8(a->prompt, error) : NULL;
  if (a->prompt && !text) return NULL;
  if (!fk_options_set(options, "model-path", a->model, error) || !fk_settings_set(settings, "prompt", text, error))
    return NULL;
  for (; *arguments; arguments++)
    if (!is_property(*arguments))
      g_ptr_array_add(inputs, *arguments);
    else if (!tool_set(options, settings, *arguments, error))
      return NULL;
  g_ptr_array_add(inputs, NULL);
  return (char **)g_ptr_array_free(g_steal_pointer(&inputs), FALSE);
}

/* ---- Engines ---- */

/* The engine of one GPU. NULL where there is none of that index; other failures too, but for the first. */
static FkEngine *open_device(const FkOptions *options, const char *device, GError **error) {
  g_autoptr(FkOptions) own = fk_options_copy(options);
  return fk_options_set(own, "cuda-device-id", device, error) ? fk_engine_new(own, error) : NULL;
}

static bool add_all(GPtrArray *engines, const FkOptions *options, GError **error) {
  for (int i = 0; i < MOST_DEVICES; i++) {
    g_autofree char *device = g_strdup_printf("%d", i);
    g_autoptr(GError) problem = NULL;
    FkEngine *engine = open_device(options, device, &problem);
    if (engine && g_ptr_array_find(engines, engine, NULL)) {
      fk_engine_unref(engine); /* no GPU: each index is the same machine */
      return true;
    }
    if (engine) {
      g_ptr_array_add(engines, engine);
    } else if (engines->len && g_error_matches(problem, FK_ERROR, FK_ERROR_BACKEND_MISSING)) {
      return true;
    } else {
      g_propagate_error(error, g_steal_pointer(&problem));
      return false;
    }
  }
  return true;
}

static bool add_listed(GPtrArray *engines, const FkOptions *options, const char *list, GError **error) {
  g_auto(GStrv) devices = g_strsplit(list, ",", MOST_DEVICES);
  for (char **device = devices; *device; device++) {
    FkEngine *engine = open_device(options, *device, error);
    if (!engine) return false;
    if (g_ptr_array_find(engines, engine, NULL)) {
      fk_engine_unref(engine);
      return bad(error, "--devices", list, "a list of different devices");
    }
    g_ptr_array_add(engines, engine);
  }
  return true;
}

/* One for each device, and NULL behind the last. */
static GPtrArray *open_engines(const FkOptions *options, const char *devices, GError **error) {
  g_autoptr(GPtrArray) engines = g_ptr_array_new_with_free_func((GDestroyNotify)fk_engine_unref);
  FkEngine *one = devices ? NULL : fk_engine_new(options, error);
  if (one) g_ptr_array_add(engines, one);
  const bool ok = !devices                 ? one != NULL
                  : strcmp(devices, "all") ? add_listed(engines, options, devices, error)
                                           : add_all(engines, options, error);
  if (!ok) return NULL;
  g_ptr_array_add(engines, NULL);
  return g_steal_pointer(&engines);
}

/* ---- Running ---- */

static int status_of(RunEnd end) {
  if (end == RUN_STOPPED) return EXIT_INTERRUPTED;
  if (end == RUN_DEVICE_LOST) return EXIT_LOST;
  return progress_count(PROGRESS_FAILED) ? EXIT_FAILED : 0;
}

static void fail_films(const GPtrArray *films) {
  for (guint i = 0; i < films->len; i++) {
    const ItemsFilm *film = films->pdata[i];
    g_autofree char *shown = g_filename_display_name(film->name),
                    *text = g_strdup_printf("%s: %s", shown, film->reason);
    progress_item(film->name, "", PROGRESS_FAILED, text, 0);
  }
}

/* Folders of all results: made before the first edit, and rid of what a killed run left. */
static bool make_folders(const char *out, const GPtrArray *works, GError **error) {
  g_autoptr(GHashTable) made = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  if (!write_folder(out, error)) return false;
  for (guint i = 0; i < works->len; i++) {
    char *folder = g_path_get_dirname(((const Work *)works->pdata[i])->output);
    if (!g_hash_table_contains(made, folder) && !write_folder(folder, error)) {
      g_free(folder);
      return false;
    }
    if (g_hash_table_add(made, folder)) write_clean(folder);
  }
  return true;
}

static bool run_works(const Arguments *a, GPtrArray *works, const GPtrArray *films, const FkOptions *options,
                      int *status, GError **error) {
  static const char *const ends[] = {[RUN_ALL] = NULL,
                                     [RUN_STOPPED] = "interrupted",
                                     [RUN_FULL] = "the folder cannot be written",
                                     [RUN_DEVICE_LOST] = "the device was lost; start again with --resume"};
  RunRules rules = {.work = WORK_RULES, .resume = a->resume, .overwrite = a->overwrite, .batch = a->batch};
  ProgressKind kind;
  rules.work.quality = a->quality;
  rules.work.text = a->text;
  rules.work.max_pixels = a->max_pixels;
  if (!progress_kind(a->progress ? a->progress : "auto", &kind, error)) return false;
  g_autoptr(GPtrArray) engines = open_engines(options, a->devices, error);
  if (!engines) return false;
  if (works->len) /* the others differ from it by what a list says */
    tool_tell_idle(name, ((const Work *)works->pdata[0])->settings, true);
  FkEngine *const *list = (FkEngine *const *)engines->pdata;
  if (a->dry) {
    *status = dry_run(list, options, works, &rules.work, a->resume) && !films->len ? 0 : EXIT_FAILED;
    return true;
  }
  if (!make_folders(a->out, works, error)) return false;
  progress_start(name, kind, works->len + films->len);
  fail_films(films);
  const RunEnd end = run_all(list, works, &rules);
  progress_end(ends[end]);
  *status = status_of(end);
  return true;
}

static bool run(const Arguments *a, char **arguments, int *status, GError **error) {
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(FkSettings) settings = fk_settings_new();
  g_autoptr(GPtrArray) films = g_ptr_array_new_with_free_func((GDestroyNotify)items_film_free);
  ItemsRules rules = {
      .out = a->out, .format = a->format, .settings = settings, .recursive = a->recursive, .zero = a->zero};
  g_autofree char *example = g_strconcat("x.", a->format ? a->format : "png", NULL);
  if (!photo_start(name, error) || !check_numbers(a, error) || !parse_shard(a->shard, &rules, error)) return false;
  if (!photo_check_name(example, false, NULL))
    return bad(error, "--format", a->format, "an ending that pictures are written under, such as png or jpg");
  g_autofree char **inputs = sort_arguments(a, arguments, options, settings, error);
  if (!inputs || !fk_settings_check(settings, error)) return false;
  if (!*inputs) {
    g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD, "no pictures were named; see --help");
    return false;
  }
  g_autoptr(GPtrArray) works = items_list(inputs, &rules, films, error);
  if (!works) return false;
  return run_works(a, works, films, options, status, error);
}

int main(int argc, char **argv) {
  static Arguments a = {.quality = 95, .batch = 1, .max_pixels = (gint64)1 << 28};
  const GOptionEntry entries[] = {
      {"model", 'm', 0, G_OPTION_ARG_FILENAME, &a.model, "Folder of the model", "FOLDER"},
      {"prompt", 'p', 0, G_OPTION_ARG_FILENAME, &a.prompt, "What to change", "TEXT"},
      {"output", 'o', 0, G_OPTION_ARG_FILENAME, &a.out, "Folder of the results", "FOLDER"},
      {"resume", 'r', 0, G_OPTION_ARG_NONE, &a.resume, "Skip what is done, by the records; do the rest", NULL},
      {"overwrite", 0, 0, G_OPTION_ARG_NONE, &a.overwrite, "Replace results that are there", NULL},
      {"format", 'f', 0, G_OPTION_ARG_STRING, &a.format, "Ending of the results; else that of the input",
       "png|jpg|..."},
      {"quality", 'q', 0, G_OPTION_ARG_INT, &a.quality, "Of formats that lose: 1 to 100 (95)", "N"},
      {"text", 't', 0, G_OPTION_ARG_NONE, &a.text, "PNG: settings as web UIs read, and the record", NULL},
      {"recursive", 'R', 0, G_OPTION_ARG_NONE, &a.recursive, "Folders in folders too", NULL},
      {"null", '0', 0, G_OPTION_ARG_NONE, &a.zero, "Names in lists end with NUL", NULL},
      {"shard", 0, 0, G_OPTION_ARG_STRING, &a.shard, "The I-th of N parts of the list, from 1/N to N/N", "I/N"},
      {"devices", 'd', 0, G_OPTION_ARG_STRING, &a.devices, "GPUs, an engine each: all, or indices", "all|0,1,..."},
      {"batch", 'b', 0, G_OPTION_ARG_INT, &a.batch, "Pictures of one size in one edit, 1 to 64 (1)", "N"},
      {"dry-run", 'n', 0, G_OPTION_ARG_NONE, &a.dry, "Tell what would be done, work, memory and time", NULL},
      {"progress", 0, 0, G_OPTION_ARG_STRING, &a.progress, "auto, bar, lines, json (stdout), none", "KIND"},
      {"max-pixels", 0, 0, G_OPTION_ARG_INT64, &a.max_pixels, "Of one picture (268435456)", "N"},
      {NULL, 0, 0, 0, NULL, NULL, NULL}};
  g_autoptr(GError) error = NULL;
  int status = 0;
#ifdef FK_QUEUE
  if (argc > 1 && submit_is_command(argv[1])) return submit_main(argc - 1, argv + 1);
#endif
  if (!tool_begin(name, "IN... [PROPERTY=VALUE ...]",
                  "  fluxkontext-batch -m MODEL -p \"make it night\" -o night photos/ steps=20\n"
                  "Edits many pictures, each with a record beside it (OUT/NAME.json). IN is a\n"
                  "folder, a picture, a pattern, a list (.txt) or JSON lines (.jsonl: \"input\",\n"
                  "\"output\", any property). PROPERTY: see fluxkontext-properties(7).\n"
                  "Exit: 0 done, 1 some failed, 2 usage, 75 device lost, 130 interrupted.",
                  entries, &argc, &argv, &status))
    return status;
  if (!a.out) {
    fprintf(stderr, "%s: expected --output FOLDER; see --help\n", name);
    return EXIT_USAGE;
  }
  watch_signals();
  if (!run(&a, argv + 1, &status, &error)) {
    fprintf(stderr, "%s: %s\n", name, error->message);
    status = EXIT_FAILED;
  }
  return tool_end(name, status);
}
