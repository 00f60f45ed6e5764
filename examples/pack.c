/* SPDX-License-Identifier: Apache-2.0 */
/* fluxkontext-pack: a model as one file with what an engine holds, which opens as fast as it can be read. */
#include "tool.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char name[] = "fluxkontext-pack";

static void show(const char *stage, int64_t current, int64_t total, void *user_data) {
  (void)stage;
  (void)user_data;
  fprintf(stderr, "\r%.2f of %.2f GB", (double)current / 1e9, (double)total / 1e9);
}

static bool run(char **words, bool wide, GError **error) {
  g_autoptr(FkOptions) options = fk_options_new();
  const char *loras = NULL;
  if (!fk_options_set(options, "model-path", words[0], error)) return false;
  for (char **pair = words + 2; *pair; pair++) {
    if (g_str_has_prefix(*pair, "loras="))
      loras = *pair + strlen("loras=");
    else if (!tool_set(options, NULL, *pair, error))
      return false;
  }
  const char *backend = fk_options_get(options, "backend");
  if (wide && !strcmp(backend, "cuda")) {
    g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD, "--float32 is for the CPU, and backend=cuda is given");
    return false;
  }
  wide = wide || !strcmp(backend, "cpu");
  const bool seen = isatty(STDERR_FILENO);
  const bool ok = fk_pack_adapted(options, loras, wide ? 4 : 2, words[1], NULL, seen ? show : NULL, NULL, error);
  if (seen) fprintf(stderr, "\n");
  return ok;
}

int main(int argc, char **argv) {
  gboolean wide = FALSE;
  const GOptionEntry entries[] = {
      {"float32", 'f', 0, G_OPTION_ARG_NONE, &wide, "For the CPU, as backend=cpu (default: bfloat16, for CUDA)", NULL},
      {NULL, 0, 0, 0, NULL, NULL, NULL}};
  g_autoptr(GError) error = NULL;
  int status;
  if (!tool_begin(name, "MODEL FILE [OPTION=VALUE ...]",
                  "  fluxkontext-pack FLUX.1-Kontext-dev kontext.safetensors quantization=fp8\n"
                  "Writes what an engine with these options holds as one file, which model-path\n"
                  "takes. MODEL is what model-path takes; vae-path=FILE and the like go with it;\n"
                  "loras=FILE:WEIGHT;... are merged into the weights.\n"
                  "Exit: 0 done, 1 an error, 2 usage.",
                  entries, &argc, &argv, &status))
    return status;
  if (argc < 3) {
    fprintf(stderr, "%s: expected MODEL and FILE; see --help\n", name);
    return 2;
  }
  const bool ok = run(argv + 1, wide, &error);
  if (error) fprintf(stderr, "%s: %s\n", name, error->message);
  return tool_end(name, ok ? 0 : 1);
}
