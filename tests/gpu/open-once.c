/* SPDX-License-Identifier: Apache-2.0 */
/* Opens a model once, and says how long that took and where the time went; open.sh makes a table of it.
 *
 *   open-once MODEL [PROPERTY=VALUE ...]
 *
 * Environment: BACKEND (default cuda); BEGIN, the wall clock in nanoseconds when the process was asked for. Lines:
 * "open MILLISECONDS", "process MILLISECONDS" from BEGIN on, "of these: " and the parts. */
#include "fk.h"

#include <stdio.h>
#include <stdlib.h>

static void stop(const GError *error) {
  fprintf(stderr, "open-once: %s\n", error ? error->message : "bad arguments");
  exit(1);
}

int main(int argc, char **argv) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  const char *backend = g_getenv("BACKEND"), *begin = g_getenv("BEGIN");
  if (argc < 2) stop(NULL);
  fk_options_set(options, "model-path", argv[1], NULL);
  fk_options_set(options, "backend", backend ? backend : "cuda", NULL);
  for (int i = 2; i < argc; i++) {
    g_auto(GStrv) pair = g_strsplit(argv[i], "=", 2);
    if (!pair[0] || !pair[1]) stop(NULL);
    if (!fk_options_set(options, pair[0], pair[1], &error)) stop(error);
  }
  const gint64 start = g_get_monotonic_time();
  g_autoptr(FkEngine) engine = fk_engine_open(options, NULL, NULL, NULL, &error);
  if (!engine) stop(error);
  printf("open %.0f\n", (double)(g_get_monotonic_time() - start) / 1000);
  if (begin) printf("process %.0f\n", (double)g_get_real_time() / 1000 - g_ascii_strtod(begin, NULL) / 1e6);
  g_autofree char *timing = fk_engine_timing(engine);
  printf("of these: %s\n", timing);
  return 0;
}
