/* SPDX-License-Identifier: Apache-2.0 */
/* Results by the share of the picture that the exact edit changes; see quality-table.h. */
#include "quality-table.h"

#include <stdlib.h>
#include <string.h>

/* Shares from the one before (at first 0) up to these. */
static const double bounds[] = {0.05, 0.2, 0.4, 0.6, 1};
#define BANDS ((int)G_N_ELEMENTS(bounds))

static int band_of(double share) {
  int band = 0;
  while (band < BANDS - 1 && share > bounds[band]) band++;
  return band;
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* PSNR of one setting's results in one band, ascending. (element-type double) (transfer full) */
static GArray *band_psnr(const GPtrArray *rows, const char *text, QualityTier tier, int band) {
  GArray *found = g_array_new(FALSE, FALSE, sizeof(double));
  for (guint i = 0; i < rows->len; i++) {
    const QualityRow *r = rows->pdata[i];
    if (r->tier != tier || r->changed < 0 || strcmp(r->text, text) || band_of(r->changed) != band) continue;
    g_array_append_val(found, r->psnr);
  }
  g_array_sort(found, by_value);
  return found;
}

/* "33.1, 27.0, 4/5": median, worst, and of how many cases how many are close. */
static void add_band(GString *out, const GArray *psnr) {
  const double *v = (const double *)(const void *)psnr->data;
  const guint n = psnr->len;
  int close = 0;
  if (!n) {
    g_string_append(out, " -- |");
    return;
  }
  for (guint i = 0; i < n; i++) close += v[i] >= QUALITY_CLOSE;
  g_string_append_printf(out, " %.1f, %.1f, %d/%u |", (v[(n - 1) / 2] + v[n / 2]) / 2, v[0], close, n);
}

void quality_areas_write(GString *out, const GPtrArray *rows, const GPtrArray *settings, QualityTier tier) {
  int cases[BANDS] = {0}, known = 0;
  for (int b = 0; b < BANDS; b++) {
    g_autoptr(GArray) exact = band_psnr(rows, "", tier, b);
    known += cases[b] = (int)exact->len;
  }
  if (!known) return;
  g_string_append(out, "\nBy the share of the picture that the exact edit changes: PSNR, worst, close.\n\n| setting |");
  for (int b = 0; b < BANDS; b++)
    if (cases[b])
      g_string_append_printf(out, " %.0f to %.0f %%: %d cases |", b ? 100 * bounds[b - 1] : 0, 100 * bounds[b],
                             cases[b]);
  g_string_append(out, "\n| --- |");
  for (int b = 0; b < BANDS; b++)
    if (cases[b]) g_string_append(out, " ---: |");
  g_string_append_c(out, '\n');
  for (guint i = 0; i < settings->len; i++) {
    const QualitySetting *s = settings->pdata[i];
    g_autoptr(GString) line = g_string_new(NULL);
    guint n = 0;
    for (int b = 0; b < BANDS; b++) {
      if (!cases[b]) continue;
      g_autoptr(GArray) psnr = band_psnr(rows, s->text, tier, b);
      n += psnr->len;
      add_band(line, psnr);
    }
    if (n) g_string_append_printf(out, "| %s |%s\n", s->name, line->str);
  }
}
