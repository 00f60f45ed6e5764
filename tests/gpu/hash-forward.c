/* SPDX-License-Identifier: Apache-2.0 */
/* Hashes and times of a build, to be compared with those of another: every evaluation's velocity, the final latents,
 * the decoded picture and the bytes of the result, and the median time of a step. On fk.h alone, with no other
 * dependency than GLib. compare-builds.sh runs it for two builds in turn.
 *
 *   hash-forward MODEL WIDTHxHEIGHT STEPS RUNS [PROPERTY=VALUE ...]
 *
 * The tensors come from one edit under FK_DUMP (environment), the result and the times from RUNS edits without it.
 * Environment: BACKEND (default cuda). PROPERTY: of an edit, or of the engine (cuda-device-id, ...).
 * Lines: "hash NAME SHA256", "time NAME MILLISECONDS". Exit status 1 after an error, or if two runs differ. */
#include "fk.h"

#include <glib/gstdio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  FkEngine *engine;
  FkSettings *settings;
  FkImage in, out;
} Run;

static void stop(const GError *error) {
  fprintf(stderr, "hash-forward: %s\n", error ? error->message : "bad arguments");
  exit(1);
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static int by_name(gconstpointer a, gconstpointer b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static FkImage blank(int width, int height) {
  return (FkImage){g_malloc0((size_t)width * (size_t)height * 3), width, height, 3, (size_t)width * 3};
}

/* Gradients and noise. */
static FkImage made_up(int width, int height) {
  FkImage image = blank(width, height);
  uint32_t state = 1;
  for (int i = 0; i < width * height * 3; i++) {
    state = state * 1664525u + 1013904223u;
    image.data[i] = (uint8_t)((i / 3 % width) * 160 / width + (i / 3 / width) * 60 / height + (int)(state >> 27));
  }
  return image;
}

static FkResult edit(const Run *run) {
  g_autoptr(GError) error = NULL;
  FkJob job = {.in = run->in, .out = run->out, .settings = run->settings};
  if (!fk_engine_edit(run->engine, &job, 1, NULL, NULL, NULL, &error)) stop(error);
  return job.result;
}

/* (transfer full) */
static char *hash_of_result(const Run *run) {
  return g_compute_checksum_for_data(G_CHECKSUM_SHA256, run->out.data, run->out.stride * (size_t)run->out.height);
}

/* The tensor's name in a file name NUMBER-NAME.npy. (transfer full) */
static char *tensor_name(const char *file) {
  const char *dash = strchr(file, '-');
  char *name = g_strdup(dash ? dash + 1 : file);
  if (g_str_has_suffix(name, ".npy")) name[strlen(name) - 4] = 0;
  return name;
}

/* Hashes of the dumped tensors, in the order in which they were written, those of one name numbered; removes the files.
 */
static void print_tensors(const char *folder) {
  g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
  g_autoptr(GError) error = NULL;
  g_autoptr(GDir) dir = g_dir_open(folder, 0, &error);
  g_autofree char *before = g_strdup("");
  const char *file;
  if (!dir) stop(error);
  while ((file = g_dir_read_name(dir))) g_ptr_array_add(names, g_strdup(file));
  g_ptr_array_sort(names, by_name);
  for (guint i = 0, number = 0; i < names->len; i++) {
    g_autofree char *path = g_build_filename(folder, names->pdata[i], NULL), *data = NULL;
    gsize size = 0;
    if (!g_file_get_contents(path, &data, &size, &error)) stop(error);
    g_autofree char *hash = g_compute_checksum_for_data(G_CHECKSUM_SHA256, (const guchar *)data, size);
    g_autofree char *name = tensor_name(names->pdata[i]);
    number = strcmp(name, before) ? 0 : number + 1;
    printf("hash %s-%u %s\n", name, number, hash);
    g_free(before);
    before = g_steal_pointer(&name);
    g_remove(path);
  }
  g_rmdir(folder);
}

static void hash_tensors(const Run *run) {
  g_autoptr(GError) error = NULL;
  g_autofree char *folder = g_dir_make_tmp("hash-forward-XXXXXX", &error);
  if (!folder) stop(error);
  g_setenv("FK_DUMP", folder, TRUE);
  edit(run);
  g_unsetenv("FK_DUMP");
  print_tensors(folder);
}

/* False: two results differ. */
static bool time_runs(const Run *run, int runs) {
  g_autofree double *step = g_new(double, (size_t)runs), *whole = g_new(double, (size_t)runs);
  g_autofree char *first = NULL;
  int different = 0;
  edit(run); /* CUDA graphs are captured here */
  for (int i = 0; i < runs; i++) {
    const FkResult r = edit(run);
    g_autofree char *now = hash_of_result(run);
    step[i] = r.denoise_ms / r.evaluations;
    whole[i] = r.edit_ms;
    if (!first) first = g_strdup(now);
    different += strcmp(now, first) != 0;
  }
  qsort(step, (size_t)runs, sizeof *step, by_value);
  qsort(whole, (size_t)runs, sizeof *whole, by_value);
  printf("hash result %s\ntime step %.3f\ntime edit %.3f\n", first, step[runs / 2], whole[runs / 2]);
  if (different) printf("%d of %d results differ\n", different, runs);
  return !different;
}

int main(int argc, char **argv) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(FkSettings) settings = fk_settings_new();
  int width = 0, height = 0, ow = 0, oh = 0;
  if (argc < 5 || sscanf(argv[2], "%dx%d", &width, &height) != 2 || width < 1 || height < 1 || atoi(argv[4]) < 1)
    stop(NULL);
  const char *backend = g_getenv("BACKEND");
  fk_options_set(options, "model-path", argv[1], NULL);
  fk_options_set(options, "backend", backend ? backend : "cuda", NULL);
  fk_settings_set(settings, "prompt", "add a shape", NULL);
  fk_settings_set(settings, "seed", "3", NULL);
  if (!fk_settings_set(settings, "steps", argv[3], &error)) stop(error);
  for (int i = 5; i < argc; i++) {
    g_auto(GStrv) pair = g_strsplit(argv[i], "=", 2);
    if (!pair[0] || !pair[1]) stop(NULL);
    if (!fk_settings_set(settings, pair[0], pair[1], NULL) && !fk_options_set(options, pair[0], pair[1], &error))
      stop(error);
  }
  g_autoptr(FkEngine) engine = fk_engine_open(options, NULL, NULL, NULL, &error);
  if (!engine || !fk_engine_output_size(engine, settings, width, height, &ow, &oh, &error)) stop(error);
  Run run = {engine, settings, made_up(width, height), blank(ow, oh)};
  printf("machine %s\n", fk_engine_machine(engine));
  hash_tensors(&run);
  const bool same = time_runs(&run, atoi(argv[4]));
  g_free(run.in.data);
  g_free(run.out.data);
  return !same;
}
