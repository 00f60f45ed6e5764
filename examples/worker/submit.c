/* SPDX-License-Identifier: Apache-2.0 */
/* The client's side of the queue; see submit.h. Lists are those of the batch tool, results and records too, so that
 * `collect` finds out what is missing by the records alone, whatever became of queue and workers. */
#include "submit.h"

#include "../batch/items.h"
#include "../tool.h"
#include "job.h"
#include "nats-queue.h"

#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_FULL = 3 };

typedef struct {
  const char *command;
  char *prompt, *out, *format, *nats, *credentials, *queue, *class, **rewrite;
  gboolean recursive, zero, wait;
  int max_jobs;
} Arguments;

static const char *const commands[] = {"submit", "status", "collect", NULL};

bool submit_is_command(const char *argument) {
  return g_strv_contains(commands, argument);
}

static bool fail(GError **error, const char *format, const char *text) {
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, format, text);
  return false;
}

/* ---- Lists ---- */

/* Settings of all, and the inputs. (transfer container) */
static char **sort_arguments(const Arguments *a, char **arguments, FkSettings *settings, GError **error) {
  g_autoptr(GPtrArray) inputs = g_ptr_array_new();
  g_autofree char *text = a->prompt ? tool_utf8(a->prompt, error) : NULL;
  if (a->prompt && (!text || !fk_settings_set(settings, "prompt", text, error))) return NULL;
  for (; *arguments; arguments++)
    if (!strchr(*arguments, '=') || g_file_test(*arguments, G_FILE_TEST_EXISTS))
      g_ptr_array_add(inputs, *arguments);
    else if (!tool_set(NULL, settings, *arguments, error))
      return NULL;
  if (!inputs->len) {
    fail(error, "%s", "no pictures were named; see --help");
    return NULL;
  }
  g_ptr_array_add(inputs, NULL);
  return (char **)g_ptr_array_free(g_steal_pointer(&inputs), FALSE);
}

/* (transfer full) */
static GPtrArray *list_works(const Arguments *a, char **arguments, GError **error) {
  g_autoptr(FkSettings) settings = fk_settings_new();
  g_autoptr(GPtrArray) films = g_ptr_array_new_with_free_func((GDestroyNotify)items_film_free);
  const ItemsRules rules = {.out = a->out,
                            .format = a->format,
                            .settings = settings,
                            .recursive = a->recursive,
                            .zero = a->zero,
                            .shard = 1,
                            .shards = 1};
  g_autofree char **inputs = sort_arguments(a, arguments, settings, error);
  if (!inputs || !fk_settings_check(settings, error)) return NULL;
  g_autoptr(GPtrArray) works = items_list(inputs, &rules, films, error);
  if (works && films->len) {
    const ItemsFilm *film = films->pdata[0];
    g_autofree char *shown = g_filename_display_name(film->name);
    fail(error, "%s: a video; workers edit pictures", shown);
    return NULL;
  }
  return g_steal_pointer(&works);
}

/* A path as workers see it: below the first FROM of a FROM=TO it is TO and the rest, else a file: URI. (transfer full)
 */
static char *uri_of(const Arguments *a, const char *path, GError **error) {
  g_autofree char *whole = g_canonicalize_filename(path, NULL);
  for (char **rule = a->rewrite; rule && *rule; rule++) {
    const char *equals = strchr(*rule, '=');
    g_autofree char *from = g_strndup(*rule, (gsize)(equals - *rule)), *below = g_canonicalize_filename(from, NULL);
    const size_t n = strlen(below);
    if (!strncmp(whole, below, n) && whole[n] == '/') return g_strconcat(equals + 1, whole + n, NULL);
  }
  return g_filename_to_uri(whole, NULL, error);
}

/* ---- Commands ---- */

typedef struct {
  int stored, duplicate;
  bool full;
} Told;

/* With --wait a full queue is waited for. */
static bool submit_one(const Arguments *a, NatsQueue *queue, const Work *work, const char *class, Told *told,
                       GError **error) {
  g_autofree char *in = uri_of(a, work->input, error), *out = in ? uri_of(a, work->output, error) : NULL;
  if (!out) return false;
  g_autofree char *text = job_message_write(in, out, a->class, work->settings);
  g_autofree char *id = g_compute_checksum_for_string(G_CHECKSUM_SHA256, text, -1);
  NatsAnswer answer;
  if (strlen(text) > NATS_JOB_BYTES) return fail(error, "%s: its settings are longer than a job may be", in);
  do {
    if (!nats_queue_submit(queue, id, class, text, &answer, error)) return false;
    if (answer == NATS_FULL && a->wait) g_usleep(1000000);
  } while (answer == NATS_FULL && a->wait);
  told->stored += answer == NATS_STORED;
  told->duplicate += answer == NATS_DUPLICATE;
  told->full = answer == NATS_FULL;
  return true;
}

static bool submit(const Arguments *a, NatsQueue *queue, const GPtrArray *works, int *status, GError **error) {
  g_autofree char *class = a->class ? nats_queue_class(a->class) : NULL;
  Told told = {0};
  for (guint i = 0; i < works->len && !told.full; i++)
    if (!submit_one(a, queue, works->pdata[i], class, &told, error)) return false;
  printf("%d of %u submitted, %d of them known already\n", told.stored + told.duplicate, works->len, told.duplicate);
  if (!told.full) return true;
  fprintf(stderr, "fluxkontext-batch: the queue is full; submit the same again later, or with --wait\n");
  *status = EXIT_FULL;
  return true;
}

static bool show_status(NatsQueue *queue, GError **error) {
  uint64_t waiting;
  if (!nats_queue_depth(queue, &waiting, error)) return false;
  printf("%" G_GUINT64_FORMAT " not finished\n", waiting);
  return true;
}

/* Results that are not there, each with the reason that a worker left. Without a queue. */
static int collect(const GPtrArray *works) {
  guint done = 0, failed = 0;
  for (guint i = 0; i < works->len; i++) {
    const Work *work = works->pdata[i];
    g_autofree char *record = g_strconcat(work->output, ".json", NULL), *why = NULL;
    g_autofree char *failure = g_strconcat(work->output, ".failed.json", NULL);
    g_autofree char *shown = g_filename_display_name(work->output);
    if (g_file_test(record, G_FILE_TEST_EXISTS) && g_file_test(work->output, G_FILE_TEST_EXISTS)) {
      done++;
    } else if (g_file_get_contents(failure, &why, NULL, NULL)) {
      g_strdelimit(why, "\n", ' ');
      printf("failed %s: %s\n", shown, why);
      failed++;
    } else {
      printf("missing %s\n", shown);
    }
  }
  printf("%u done, %u failed, %u missing\n", done, failed, works->len - done - failed);
  return done == works->len ? 0 : EXIT_FAILED;
}

static bool run(const Arguments *a, char **arguments, int *status, GError **error) {
  const bool has_list = strcmp(a->command, "status") != 0, has_queue = strcmp(a->command, "collect") != 0;
  const NatsConfig config = {.url = a->nats, .credentials = a->credentials, .name = a->queue, .max_jobs = a->max_jobs};
  for (char **rule = a->rewrite; rule && *rule; rule++)
    if (!strchr(*rule, '=')) return fail(error, "--rewrite: \"%s\" is not FOLDER=URI", *rule);
  if (!photo_start("fluxkontext-batch", error)) return false;
  g_autoptr(GPtrArray) works = has_list ? list_works(a, arguments, error) : NULL;
  if (has_list && !works) return false;
  g_autoptr(NatsQueue) queue = has_queue ? nats_queue_open(&config, error) : NULL;
  if (has_queue && !queue) return false;
  if (!has_list) return show_status(queue, error);
  if (has_queue) return submit(a, queue, works, status, error);
  *status = collect(works);
  return true;
}

int submit_main(int argc, char **argv) {
  Arguments a = {.command = argv[0], .max_jobs = 100000};
  const GOptionEntry entries[] = {
      {"output", 'o', 0, G_OPTION_ARG_FILENAME, &a.out, "Folder of the results", "FOLDER"},
      {"prompt", 'p', 0, G_OPTION_ARG_FILENAME, &a.prompt, "What to change", "TEXT"},
      {"format", 'f', 0, G_OPTION_ARG_STRING, &a.format, "Ending of the results; else that of the input",
       "png|jpg|..."},
      {"recursive", 'R', 0, G_OPTION_ARG_NONE, &a.recursive, "Folders in folders too", NULL},
      {"null", '0', 0, G_OPTION_ARG_NONE, &a.zero, "Names in lists end with NUL", NULL},
      {"nats", 0, 0, G_OPTION_ARG_STRING, &a.nats, "Servers (default nats://127.0.0.1:4222)", "URL[,URL]"},
      {"credentials", 0, 0, G_OPTION_ARG_FILENAME, &a.credentials, "Credentials for the servers", "FILE"},
      {"queue", 'q', 0, G_OPTION_ARG_STRING, &a.queue, "Name of the queue (default edits)", "NAME"},
      {"max-jobs", 0, 0, G_OPTION_ARG_INT, &a.max_jobs, "Most jobs of a queue that is made now (100000)", "N"},
      {"class", 0, 0, G_OPTION_ARG_STRING, &a.class, "Only machines of this \"class\" of a record", "TEXT"},
      {"rewrite", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &a.rewrite, "Paths below FOLDER are URI/... for workers",
       "FOLDER=URI"},
      {"wait", 'w', 0, G_OPTION_ARG_NONE, &a.wait, "Wait while the queue is full", NULL},
      {NULL, 0, 0, 0, NULL, NULL, NULL}};
  g_autofree char *name = g_strconcat("fluxkontext-batch ", argv[0], NULL);
  g_autoptr(GError) error = NULL;
  int status = 0;
  if (!tool_begin(name, "IN... [PROPERTY=VALUE ...]",
                  "submit gives a list of edits to fluxkontext-worker, status tells how many are\n"
                  "not finished, collect lists what is not there:\n"
                  "  fluxkontext-batch submit -o /shared/night -p \"make it night\" /shared/photos/\n"
                  "  fluxkontext-batch collect -o /shared/night /shared/photos/\n"
                  "Exit: 0 all, 1 an error or not all there, 2 usage, 3 the queue is full.",
                  entries, &argc, &argv, &status))
    return status;
  if (!a.out && strcmp(a.command, "status")) {
    fprintf(stderr, "%s: expected --output FOLDER; see --help\n", name);
    return EXIT_USAGE;
  }
  if (!a.nats) a.nats = g_strdup("nats://127.0.0.1:4222");
  if (!a.queue) a.queue = g_strdup("edits");
  if (run(&a, argv + 1, &status, &error)) return tool_end(name, status);
  fprintf(stderr, "%s: %s\n", name, error->message);
  return EXIT_FAILED;
}
