/* SPDX-License-Identifier: Apache-2.0 */
/* What each optimization gains by itself; see bench.h. */
#include "bench.h"

#include <stdio.h>
#include <string.h>

/* Every optimization off: preset=exact, and each switch that it would leave on and that can be off. (transfer full) */
static FkSettings *all_off(const Bench *b) {
  size_t n;
  int width, height;
  const FkProperty *p = fk_properties(&n);
  FkSettings *s = fk_settings_copy(b->settings);
  fk_settings_set(s, "preset", "exact", NULL);
  for (size_t i = 0; i < n; i++) {
    if (p[i].kind != FK_KIND_SWITCH || p[i].optimization == FK_CLASS_NONE) continue;
    fk_settings_set(s, p[i].name, "off", NULL);
    if (!fk_engine_output_size(b->engine, s, b->width, b->height, &width, &height, NULL))
      fk_settings_set(s, p[i].name, "auto", NULL);
  }
  return s;
}

/* One line. What this machine or the other settings do not allow is told in its place. */
static bool line(const Bench *b, const char *label, FkSettings *settings, GError **error) {
  g_autoptr(GError) refused = NULL;
  Bench own = *b;
  BenchTimes t = {0};
  own.settings = settings;
  const bool ok = bench_edits(&own, &t, &refused);
  json_open(b->json, NULL, '{');
  json_text(b->json, "set", label);
  if (ok) {
    bench_print_times(label, &t);
    json_number(b->json, "text_ms", t.text);
    json_number(b->json, "encode_ms", t.encode);
    json_number(b->json, "step_ms", t.step);
    json_number(b->json, "decode_ms", t.decode);
    json_number(b->json, "edit_ms", t.edit);
    json_number(b->json, "flop", t.result.flop);
    json_count(b->json, "skipped", t.result.skipped);
  } else {
    printf("%-34s not here: %s\n", label, refused->message);
    json_text(b->json, "refused", refused->message);
  }
  json_close(b->json, '}');
  if (ok || g_error_matches(refused, FK_ERROR, FK_ERROR_OPTION_BAD)) return true;
  g_propagate_error(error, g_steal_pointer(&refused));
  return false;
}

static bool alone(const Bench *b, const char *name, const char *value, GError **error) {
  g_autoptr(FkSettings) s = all_off(b);
  const bool forecast = !strcmp(name, "step-cache-forecast"); /* of what a step cache skips */
  g_autofree char *label = g_strdup_printf("%s=%s", name, value);
  if (forecast && !fk_settings_set(s, "step-cache", "teacache", error)) return false;
  return fk_settings_set(s, name, value, error) && line(b, label, s, error);
}

/* An optimization that a run has from the start. */
static void option_line(const Bench *b, const FkProperty *p) {
  g_autofree char *label = g_strdup_printf("%s=", p->name);
  printf("%-34s not here: an option of the engine, to be given to a run of its own\n", label);
  json_open(b->json, NULL, '{');
  json_text(b->json, "set", label);
  json_text(b->json, "refused", "an option of the engine");
  json_close(b->json, '}');
}

static bool one_property(const Bench *b, const FkProperty *p, GError **error) {
  char middle[G_ASCII_DTOSTR_BUF_SIZE];
  if (p->scope == FK_SCOPE_OPTION) {
    option_line(b, p);
    return true;
  }
  if (p->kind == FK_KIND_SWITCH) return alone(b, p->name, "on", error);
  if (p->kind == FK_KIND_INT) return alone(b, p->name, "2", error);
  if (p->kind == FK_KIND_DOUBLE)
    return alone(b, p->name, g_ascii_formatd(middle, sizeof middle, "%g", p->max / 2), error);
  for (int i = 0; p->kind == FK_KIND_ENUM && p->values[i]; i++)
    if (strcmp(p->values[i], "auto") && strcmp(p->values[i], "none") && !alone(b, p->name, p->values[i], error))
      return false;
  return true;
}

static bool presets(const Bench *b, GError **error) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  for (size_t i = 0; i < n; i++)
    for (int k = 0; !strcmp(p[i].name, "preset") && p[i].values[k]; k++) {
      g_autoptr(FkSettings) s = fk_settings_copy(b->settings);
      g_autofree char *label = g_strdup_printf("preset=%s", p[i].values[k]);
      if (!fk_settings_set(s, "preset", p[i].values[k], error) || !line(b, label, s, error)) return false;
    }
  return true;
}

bool bench_switches(const Bench *b, GError **error) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  g_autoptr(FkSettings) off = all_off(b);
  printf("\nswitches, each alone, the others off (medians of %d). prompt-cache=on is an edit whose prompt was met "
         "before; forecasts\nare those of step-cache=teacache; the presets encode the prompt anew\n",
         b->runs);
  json_open(b->json, "switches", '[');
  if (!line(b, "all off", off, error)) return false;
  for (size_t i = 0; i < n; i++)
    if (p[i].optimization != FK_CLASS_NONE && !one_property(b, &p[i], error)) return false;
  if (!presets(b, error)) return false;
  json_close(b->json, ']');
  return true;
}
