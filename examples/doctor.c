/* SPDX-License-Identifier: Apache-2.0 */
/* fluxkontext-doctor: what this machine can run, whether a model folder is sound, and what an edit of a size costs.
 * Everything it says comes from fk.h; nothing is loaded. */
#include <fk.h>

#include <stdio.h>
#include <string.h>

static const char *bytes_text(double bytes, char *buffer, size_t size) {
  if (bytes >= 1e9)
    snprintf(buffer, size, "%.2f GB", bytes / 1e9);
  else
    snprintf(buffer, size, "%.1f MB", bytes / 1e6);
  return buffer;
}

static void print_plan(const FkPlan *p, const char *model, int bytes_per_value) {
  char a[32], b[32];
  printf("%s, edited at %dx%d: %" G_GINT64_FORMAT " text + %" G_GINT64_FORMAT " target + %" G_GINT64_FORMAT
         " context tokens, %d evaluations, %s\n\n",
         model, p->width, p->height, p->text_tokens, p->target_tokens, p->context_tokens, p->evaluations,
         bytes_per_value == 2 ? "bfloat16" : "float32");
  printf("%-12s %16s %12s %14s %14s\n", "stage", "parameters", "weights", "work memory", "TFLOP");
  for (int i = 0; i < FK_PLAN_STAGES; i++) {
    const FkPlanStage *s = &p->stage[i];
    printf("%-12s %16" G_GINT64_FORMAT " %12s %14s %14.3f\n", s->stage, s->parameters,
           bytes_text(s->weight_bytes, a, sizeof a), bytes_text(s->activation_bytes, b, sizeof b), s->flop / 1e12);
  }
  printf("%-12s %16" G_GINT64_FORMAT " %12s %14s %14.3f\n", "edit", p->parameters,
         bytes_text(p->weight_bytes, a, sizeof a), bytes_text(p->arena_bytes, b, sizeof b), p->flop / 1e12);
  printf("\nmemory needed: %s\n", bytes_text(p->weight_bytes + p->arena_bytes, a, sizeof a));
}

/* Opens (without loading) with one backend; prints what it found. */
static bool check(const char *model, const char *backend) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "backend", backend, NULL);
  if (model && !fk_options_set(options, "model-path", model, &error)) {
    printf("%-8s %s\n", backend, error->message);
    return false;
  }
  g_autoptr(FkEngine) engine = fk_engine_new(options, &error);
  printf("%-8s %s\n", backend, engine ? fk_engine_machine(engine) : error->message);
  return engine != NULL;
}

static bool plan(const char *model, const char *size, int bytes_per_value, char **pairs, GError **error) {
  int width = 0, height = 0;
  char rest;
  if (sscanf(size, "%dx%d%c", &width, &height, &rest) != 2 || width < 1 || height < 1) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "--plan: \"%s\" is not WIDTHxHEIGHT", size);
    return false;
  }
  g_autoptr(FkSettings) settings = fk_settings_new();
  for (char **p = pairs; p && *p; p++) {
    g_auto(GStrv) pair = g_strsplit(*p, "=", 2);
    if (!pair[0] || !fk_settings_set(settings, pair[0], pair[1], error)) return false;
  }
  FkPlan result;
  if (!fk_plan(model, settings, width, height, bytes_per_value, &result, error)) return false;
  print_plan(&result, model, bytes_per_value);
  return true;
}

int main(int argc, char **argv) {
  g_autofree char *config = NULL, *size = NULL;
  gboolean wide = FALSE;
  const GOptionEntry entries[] = {
      {"plan", 'p', 0, G_OPTION_ARG_STRING, &size, "Cost of an edit of this size", "WIDTHxHEIGHT"},
      {"config", 'c', 0, G_OPTION_ARG_STRING, &config, "A published configuration instead of a folder: kontext-dev, schnell",
       "NAME"},
      {"float32", 'f', 0, G_OPTION_ARG_NONE, &wide, "Plan in float32, as the CPU backend runs (default: bfloat16)", NULL},
      {NULL, 0, 0, 0, NULL, NULL, NULL}};
  g_autoptr(GOptionContext) context = g_option_context_new("[MODEL] [PROPERTY=VALUE ...]");
  g_autoptr(GError) error = NULL;
  g_option_context_set_summary(context, "Checks the machine and a model folder, or plans an edit without loading anything.");
  g_option_context_add_main_entries(context, entries, NULL);
  if (!g_option_context_parse(context, &argc, &argv, &error)) {
    fprintf(stderr, "fluxkontext-doctor: %s\n", error->message);
    return 2;
  }
  const int first = argc > 1 && !strchr(argv[1], '=') ? 2 : 1;
  const char *model = config ? config : first == 2 ? argv[1] : NULL;
  if (size) {
    if (plan(model ? model : "kontext-dev", size, wide ? 4 : 2, argv + first, &error)) return 0;
    fprintf(stderr, "fluxkontext-doctor: %s\n", error->message);
    return 1;
  }
  if (!model) printf("no model folder given: only the backends are checked\n");
  const bool any = model ? check(model, "cuda") | check(model, "cpu") : check(NULL, "null");
  return any ? 0 : 1;
}
