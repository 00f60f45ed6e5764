/* SPDX-License-Identifier: Apache-2.0 */
/* Times of exchanging adapters while an engine stays open: edits of one step at 256x256, with FILE and without in turn.
 * Taking it out must give the first result's bytes.
 *
 *   swap-adapters MODEL FILE RUNS [PROPERTY=VALUE ...]         make_lora.py writes a FILE for a random checkpoint
 *
 * Environment: BACKEND (default cuda). Lines: "in MILLISECONDS", "out MILLISECONDS", and where they went behind '#'.
 * Exit status 1 after an error, or if two results of one kind differ. */
#include "fk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 256 };

static void stop(const GError *error) {
  fprintf(stderr, "swap-adapters: %s\n", error ? error->message : "bad arguments");
  exit(1);
}

/* One edit; its hash (transfer full), and the time that the adapters took. */
static char *edit(FkEngine *engine, FkSettings *settings, const char *loras, double *ms) {
  g_autoptr(GError) error = NULL;
  int w = 0, h = 0;
  if (!fk_settings_set(settings, "loras", loras, &error) ||
      !fk_engine_output_size(engine, settings, SIDE, SIDE, &w, &h, &error))
    stop(error);
  const size_t bytes = (size_t)w * (size_t)h * 3;
  g_autofree uint8_t *in = g_malloc0((size_t)SIDE * SIDE * 3), *out = g_malloc0(bytes);
  FkJob job = {.in = {in, SIDE, SIDE, 3, (size_t)SIDE * 3}, .out = {out, w, h, 3, (size_t)w * 3}, .settings = settings};
  if (!fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error)) stop(error);
  *ms = job.result.adapters_ms;
  return g_compute_checksum_for_data(G_CHECKSUM_SHA256, out, bytes);
}

int main(int argc, char **argv) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(FkSettings) settings = fk_settings_new();
  const int runs = argc < 4 ? 0 : atoi(argv[3]);
  if (runs < 1) stop(NULL);
  const char *backend = g_getenv("BACKEND");
  fk_options_set(options, "model-path", argv[1], NULL);
  fk_options_set(options, "backend", backend ? backend : "cuda", NULL);
  fk_settings_set(settings, "steps", "1", NULL);
  for (int i = 4; i < argc; i++) {
    g_auto(GStrv) pair = g_strsplit(argv[i], "=", 2);
    if (!pair[0] || !pair[1]) stop(NULL);
    if (!fk_settings_set(settings, pair[0], pair[1], NULL) && !fk_options_set(options, pair[0], pair[1], &error))
      stop(error);
  }
  g_autoptr(FkEngine) engine = fk_engine_open(options, NULL, NULL, NULL, &error);
  if (!engine) stop(error);
  double ms;
  g_autofree char *without = edit(engine, settings, "", &ms), *with = NULL;
  int different = 0;
  for (int i = 0; i < 2 * runs; i++) {
    const bool in = i % 2 == 0;
    g_autofree char *now = edit(engine, settings, in ? argv[2] : "", &ms);
    g_autofree char *timing = fk_engine_timing(engine);
    printf("%s %.1f\n# %s\n", in ? "in" : "out", ms, timing);
    if (in && !with) with = g_strdup(now);
    different += strcmp(now, in ? with : without) != 0;
  }
  if (!strcmp(with, without)) printf("the adapters change nothing\n");
  if (different) printf("%d results differ\n", different);
  return different != 0 || !strcmp(with, without);
}
