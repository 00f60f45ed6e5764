/* SPDX-License-Identifier: Apache-2.0 */
/* The table of properties as Markdown: docs/tuning.md. */
#include "doctor.h"

#include <stdio.h>
#include <string.h>

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
    if ((p[i].scope == scope && p[i].optimization == FK_CLASS_NONE) || (scope == FK_SCOPE_OPTION && p[i].both))
      print_row(&p[i]);
}

static void print_optimizations(void) {
  static const char *const classes[] = {"", "same", "rounding", "lossy"};
  size_t n;
  const FkProperty *p = fk_properties(&n);
  printf("\n## Optimizations\n\n| property | class | values |");
  for (size_t i = 0; i < n; i++)
    for (int k = 0; !strcmp(p[i].name, "preset") && p[i].values[k]; k++) printf(" %s |", p[i].values[k]);
  printf(" what |\n| --- | --- | --- |");
  for (size_t k = 0; k < G_N_ELEMENTS(p->presets); k++) printf(" --- |");
  printf(" --- |\n");
  for (size_t i = 0; i < n; i++) {
    if (p[i].optimization == FK_CLASS_NONE) continue;
    g_autofree char *values = values_text(&p[i]);
    printf("| `%s` | %s | %s |", p[i].name, classes[p[i].optimization], values);
    for (size_t k = 0; k < G_N_ELEMENTS(p[i].presets); k++) printf(" %s |", p[i].presets[k] ? p[i].presets[k] : "");
    printf(" %s", p[i].help);
    for (int k = 0; p[i].meaning && p[i].values[k]; k++)
      printf("%s %s: %s", k ? ";" : ".", p[i].values[k], p[i].meaning[k]);
    printf(" |\n");
  }
}

/* ">0" -> "> 0", "<=1" -> "<= 1", "=text" -> "= text", "!text" -> "is not text", "!" -> "is set", "" -> "is not set".
 * (transfer full) */
static char *condition_text(const char *when) {
  const size_t signs = strspn(when, "<>=");
  if (!*when) return g_strdup("is not set");
  if (*when == '!') return when[1] ? g_strdup_printf("is not %s", when + 1) : g_strdup("is set");
  return g_strdup_printf("%.*s %s", (int)signs, when, when + signs);
}

static void print_pairs(void) {
  size_t n;
  const FkInteraction *t = fk_interactions(&n);
  printf("\n## Pairs that cannot be combined\n\nAll others can. Two explicit values of such a pair are an error before "
         "the first frame; where a preset chose one of them,\nthe preset's choice gives way.\n\n");
  for (size_t i = 0; i < n; i++) {
    g_autofree char *a = condition_text(t[i].a_when), *b = condition_text(t[i].b_when);
    printf("- `%s` %s and `%s` %s: %s\n", t[i].a, a, t[i].b, b, t[i].reason);
  }
}

void doctor_properties(void) {
  printf(
      "# Tuning: every property of the engine\n\n"
      "<!-- generated: fluxkontext-doctor --properties > docs/tuning.md -->\n\n"
      "Made from the table in `core/settings/properties.c`, from which the element's properties, the presets and the `active` "
      "report come\ntoo. An optimization left at `auto` (numbers: -1, `steps`: 0) is what `preset` says; an explicit "
      "value wins over the "
      "preset whatever\nthe order of setting, and one that cannot be had is an error before the first frame.\n\n"
      "Classes are promises that tests hold: *same*: not one byte of the result changes; *rounding*: results differ "
      "inside the\ntolerance of the op tests; *lossy*: another picture, at a measured distance.\n\n"
      "The element has more properties of its own (`gst-inspect-1.0 fluxkontextedit` lists all): they say how frames "
      "flow, not\nwhat the engine makes of them.\n");
  print_optimizations();
  print_scope("Settings of an edit", FK_SCOPE_SETTING);
  print_scope("Options of an engine", FK_SCOPE_OPTION);
  print_pairs();
}
