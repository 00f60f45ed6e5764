/* SPDX-License-Identifier: Apache-2.0 */
/* What the layers of a model see, as a table or as JSON; see fk_layers_* of fk.h for what is measured. */
#include "quality-layers.h"

#include "json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* One exact edit, measured. */
static bool edit_case(FkLayers *layers, const QualityCase *c, GError **error) {
  g_autoptr(FkSettings) settings = quality_settings_apply(NULL, c, error);
  FkImage in;
  if (!settings || !quality_picture_read(c->input, &in, error)) return false;
  FkImage out = in;
  out.data = g_malloc((gsize)in.stride * (gsize)in.height);
  FkJob job = {.in = in, .out = out, .settings = settings};
  const bool ok = fk_layers_edit(layers, &job, 1, NULL, error);
  g_free(in.data);
  g_free(out.data);
  if (!ok) g_prefix_error(error, "case %s: ", c->id);
  return ok;
}

/* NaN: there was nothing to divide by. */
static char *ratio(double value, int digits) {
  return isnan(value) ? g_strdup("-") : g_strdup_printf("%.*f", digits, value);
}

static void print_table(const FkLayerRow *rows, size_t n, int cases, const char *machine) {
  int width = 0;
  for (size_t i = 0; i < n; i++) width = MAX(width, (int)strlen(rows[i].name));
  printf(
      "%d edits of 28 steps on %s. peak: largest number / RMS. at 448, zeros, error: as quantization=fp8 makes codes\n\n",
      cases, machine);
  printf("%-*s %11s %9s %7s %6s %6s %6s %7s %5s %7s %7s %6s\n", width, "layer", "out x in", "largest", "RMS", "peak",
         "most", "of 128", "mean", "above", "at 448", "zeros", "error");
  printf("%-*s %11s %9s %7s %6s %6s %6s %7s %5s %7s %7s %6s\n", width, "", "", "", "", "row", "row", "", "/ RMS",
         "5 RMS", "%", "%", "%");
  for (size_t i = 0; i < n; i++) {
    const FkLayerRow *r = &rows[i];
    g_autofree char *size = g_strdup_printf("%dx%d", (int)r->out, (int)r->in), *mean = ratio(r->mean, 2);
    g_autofree char *zeros = ratio(100 * r->zeros, 3), *error = ratio(100 * r->error, 2);
    printf("%-*s %11s %9.4g %7.3g %6.1f %6.1f %6.1f %7s %5d %7.3f %7s %6s\n", width, r->name, size, r->amax, r->rms,
           r->peak, r->peak_most, r->peak_block, mean, (int)r->mean_columns, 100 * r->saturated, zeros, error);
  }
  printf("\n%zu layers\n", n);
}

static void print_json(const FkLayerRow *rows, size_t n, int cases, const char *model, const char *machine) {
  g_autoptr(GString) text = g_string_new(NULL);
  Json j = {.text = text};
  json_open(&j, NULL, '{');
  json_text(&j, "model", model);
  json_text(&j, "machine", machine);
  json_count(&j, "edits", cases);
  json_open(&j, "layers", '[');
  for (size_t i = 0; i < n; i++) {
    const FkLayerRow *r = &rows[i];
    json_open(&j, NULL, '{');
    json_text(&j, "name", r->name);
    json_text(&j, "role", r->role);
    json_count(&j, "out", r->out);
    json_count(&j, "in", r->in);
    json_count(&j, "evaluations", r->evaluations);
    json_count(&j, "rows", r->rows);
    json_number(&j, "amax", r->amax);
    json_number(&j, "rms", r->rms);
    json_number(&j, "peak", r->peak);
    json_number(&j, "peak_most", r->peak_most);
    json_number(&j, "peak_block", r->peak_block);
    json_number(&j, "mean", r->mean);
    json_count(&j, "mean_columns", r->mean_columns);
    json_number(&j, "saturated", r->saturated);
    json_number(&j, "zeros", r->zeros);
    json_number(&j, "error", r->error);
    json_close(&j, '}');
  }
  json_close(&j, ']');
  json_close(&j, '}');
  fputs(text->str, stdout);
}

bool quality_layers(const char *model, const char *backend, const GPtrArray *cases, bool json, GError **error) {
  g_autoptr(FkOptions) options = fk_options_new();
  if (!fk_options_set(options, "model-path", model, error) || !fk_options_set(options, "backend", backend, error))
    return false;
  g_autoptr(FkEngine) engine = fk_engine_open(options, NULL, NULL, NULL, error);
  g_autoptr(FkLayers) layers = engine ? fk_layers_new(engine, error) : NULL;
  if (!layers) return false;
  for (guint i = 0; i < cases->len; i++) {
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r%u of %u ", i, cases->len);
    if (!edit_case(layers, cases->pdata[i], error)) return false;
  }
  if (isatty(STDERR_FILENO)) fprintf(stderr, "\r%20s\r", "");
  size_t n;
  g_autofree FkLayerRow *rows = fk_layers_rows(layers, &n);
  if (json)
    print_json(rows, n, (int)cases->len, model, fk_engine_machine(engine));
  else
    print_table(rows, n, (int)cases->len, fk_engine_machine(engine));
  return true;
}
