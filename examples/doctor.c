/* SPDX-License-Identifier: Apache-2.0 */
/* fluxkontext-doctor: what this machine can run, whether a model folder is sound, what an edit of a size costs, and the
 * table of properties as Markdown (docs/tuning.md). Everything it says comes from fk.h; no weights are loaded. */
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

/* ---- Plan ---- */

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
  printf("\nstep: %.3f TFLOP if every row of the last block were computed, as the reference does\n",
         p->whole_step_flop / 1e12);
  printf("memory needed: %s\n", bytes_text(p->weight_bytes + p->arena_bytes, a, sizeof a));
}

static bool plan(const char *model, const char *size, int bytes_per_value, char **pairs, GError **error) {
  int width = 0, height = 0;
  char rest;
  if (sscanf(size, "%5dx%5d%c", &width, &height, &rest) != 2 || width < 1 || height < 1) {
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

/* ---- Properties ---- */

/* "auto, on, off", "0 .. 4194304": what may be set. (transfer full) */
static char *values_text(const FkProperty *p) {
  switch (p->kind) {
  case FK_KIND_BOOL: return g_strdup("true, false");
  case FK_KIND_SWITCH: return g_strdup("auto, on, off");
  case FK_KIND_ENUM: return g_strjoinv(", ", (char **)p->values);
  case FK_KIND_INT: return g_strdup_printf("%.0f .. %.0f", p->min, p->max);
  case FK_KIND_DOUBLE: return g_strdup_printf("%g .. %g", p->min, p->max);
  case FK_KIND_UINT64: return g_strdup("0 .. 2^64 - 1");
  case FK_KIND_STRING: break;
  }
  return g_strdup("text");
}

static const char *initial_text(const FkProperty *p) {
  return !p->initial ? "not set" : *p->initial ? p->initial : "empty";
}

static void print_row(const FkProperty *p) {
  g_autofree char *values = values_text(p);
  printf("| `%s` | %s | %s | %s | %s", p->name, values, initial_text(p), p->playing ? "yes" : "no", p->help);
  for (int i = 0; p->meaning && p->values[i]; i++) printf("%s %s: %s", i ? ";" : ".", p->values[i], p->meaning[i]);
  printf(" |\n");
}

static void print_scope(const char *title, FkScope scope) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  printf("\n## %s\n\n| property | values | default | while playing | what |\n| --- | --- | --- | --- | --- |\n", title);
  for (size_t i = 0; i < n; i++)
    if (p[i].scope == scope && p[i].optimization == FK_CLASS_NONE) print_row(&p[i]);
}

static void print_optimizations(void) {
  static const char *const classes[] = {"", "same", "rounding", "lossy"};
  size_t n;
  const FkProperty *p = fk_properties(&n);
  printf("\n## Optimizations\n\n| property | class | values | exact | quality | balanced | fast | what |\n"
         "| --- | --- | --- | --- | --- | --- | --- | --- |\n");
  for (size_t i = 0; i < n; i++) {
    if (p[i].optimization == FK_CLASS_NONE) continue;
    g_autofree char *values = values_text(&p[i]);
    printf("| `%s` | %s | %s |", p[i].name, classes[p[i].optimization], values);
    for (int k = 0; k < 4; k++) printf(" %s |", p[i].presets[k] ? p[i].presets[k] : "");
    printf(" %s", p[i].help);
    for (int k = 0; p[i].meaning && p[i].values[k]; k++)
      printf("%s %s: %s", k ? ";" : ".", p[i].values[k], p[i].meaning[k]);
    printf(" |\n");
  }
}

/* ">0" -> "> 0", "=text" -> "= text", "!" -> "is set", "!text" -> "is not text". (transfer full) */
static char *condition_text(const char *when) {
  if (*when == '!') return when[1] ? g_strdup_printf("is not %s", when + 1) : g_strdup("is set");
  return g_strdup_printf("%c %s", *when, when + 1);
}

static void print_refusals(void) {
  size_t n;
  const FkInteraction *t = fk_interactions(&n);
  printf("\n## Pairs that refuse each other\n\nAll others combine. Two explicit values that refuse each other are an "
         "error "
         "before the first frame; where a preset chose\none of them, the preset's choice gives way.\n\n");
  for (size_t i = 0; i < n; i++) {
    g_autofree char *a = condition_text(t[i].a_when), *b = condition_text(t[i].b_when);
    printf("- `%s` %s and `%s` %s: %s\n", t[i].a, a, t[i].b, b, t[i].reason);
  }
}

static void print_properties(void) {
  printf(
      "# Tuning: every property of the engine\n\n"
      "<!-- generated: fluxkontext-doctor --properties > docs/tuning.md -->\n\n"
      "Made from the table in `core/properties.c`, from which the element's properties, the presets and the `active` report "
      "come\ntoo. An optimization left at `auto` (numbers: -1) is what `preset` says; an explicit value wins over the "
      "preset whatever\nthe order of setting, and one that cannot be had is an error before the first frame.\n\n"
      "Classes are promises that tests hold: *same*: not one byte of the result changes; *rounding*: results differ "
      "inside the\ntolerance of the op tests; *lossy*: another picture, at a measured distance.\n\n"
      "The element has more properties of its own (`gst-inspect-1.0 fluxkontextedit` lists all): they say how frames "
      "flow, not\nwhat the engine makes of them.\n");
  print_optimizations();
  print_scope("Settings of an edit", FK_SCOPE_SETTING);
  print_scope("Options of an engine", FK_SCOPE_OPTION);
  print_refusals();
}

/* ---- Check ---- */

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

/* Exit status 0 when the model opens on one backend at least. */
static int check_all(const char *model) {
  if (!model) {
    printf("no model folder given: nothing but the engine itself is checked\n");
    return check(NULL, "null") ? 0 : 1;
  }
  const bool cuda = check(model, "cuda"), cpu = check(model, "cpu");
  return cuda || cpu ? 0 : 1;
}

int main(int argc, char **argv) {
  g_autofree char *config = NULL, *size = NULL;
  gboolean wide = FALSE, properties = FALSE;
  const GOptionEntry entries[] = {
      {"plan", 'p', 0, G_OPTION_ARG_STRING, &size, "Cost of an edit of this size", "WIDTHxHEIGHT"},
      {"config", 'c', 0, G_OPTION_ARG_STRING, &config,
       "A published configuration instead of a folder: kontext-dev, dev, schnell", "NAME"},
      {"float32", 'f', 0, G_OPTION_ARG_NONE, &wide, "Plan in float32, as the CPU backend runs (default: bfloat16)",
       NULL},
      {"properties", 0, 0, G_OPTION_ARG_NONE, &properties, "Table of all properties as Markdown", NULL},
      {NULL, 0, 0, 0, NULL, NULL, NULL}};
  g_autoptr(GOptionContext) context = g_option_context_new("[MODEL] [PROPERTY=VALUE ...]");
  g_autoptr(GError) error = NULL;
  g_option_context_set_summary(context,
                               "Checks the machine and a model folder, or plans an edit without loading anything.");
  g_option_context_add_main_entries(context, entries, NULL);
  if (!g_option_context_parse(context, &argc, &argv, &error)) {
    fprintf(stderr, "fluxkontext-doctor: %s\n", error->message);
    return 2;
  }
  if (properties) return print_properties(), 0;
  const int first = argc > 1 && !strchr(argv[1], '=') ? 2 : 1;
  const char *model = config ? config : first == 2 ? argv[1] : NULL;
  if (!size) return check_all(model);
  if (plan(model ? model : "kontext-dev", size, wide ? 4 : 2, argv + first, &error)) return 0;
  fprintf(stderr, "fluxkontext-doctor: %s\n", error->message);
  return 1;
}
