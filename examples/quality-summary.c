/* SPDX-License-Identifier: Apache-2.0 */
/* Medians over the cases and the rival at the same FLOP; see quality-table.h. Nothing is written here but the JSON. */
#include "json.h"
#include "quality-metrics.h"
#include "quality-table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(const GPtrArray *rows, size_t offset) {
  g_autofree double *v = g_new(double, rows->len);
  for (guint i = 0; i < rows->len; i++) v[i] = G_STRUCT_MEMBER(double, rows->pdata[i], offset);
  qsort(v, rows->len, sizeof *v, by_value);
  return (v[(rows->len - 1) / 2] + v[rows->len / 2]) / 2;
}

/* rows: at least one, of one setting and tier. */
static QualitySummary summary_of(const QualitySetting *setting, const GPtrArray *rows) {
  const QualityRow *first = rows->pdata[0];
  g_autoptr(GHashTable) masks = g_hash_table_new(g_str_hash, g_str_equal);
  QualitySummary s = {.setting = setting,
                      .cases = (int)rows->len,
                      .worst = first->psnr,
                      .worst_ssim = first->ssim,
                      .gain = NAN,
                      .elsewhere = NAN};
  for (guint i = 0; i < rows->len; i++) {
    const QualityRow *r = rows->pdata[i];
    s.worst = MIN(s.worst, r->psnr);
    s.worst_ssim = MIN(s.worst_ssim, r->ssim);
    s.flop += r->flop / rows->len;
    s.model_flop += r->model_flop / rows->len;
    s.evaluations += (double)r->evaluations / rows->len;
    s.skipped += (double)r->skipped / rows->len;
    s.successes += r->success == 1;
    s.answers += r->success >= 0;
    s.close += r->psnr >= QUALITY_CLOSE;
    g_hash_table_add(masks, (gpointer)r->mask);
  }
  s.psnr = median(rows, G_STRUCT_OFFSET(QualityRow, psnr));
  s.ssim = median(rows, G_STRUCT_OFFSET(QualityRow, ssim));
  s.edges = median(rows, G_STRUCT_OFFSET(QualityRow, edges));
  s.ms = median(rows, G_STRUCT_OFFSET(QualityRow, ms));
  s.masks = (int)g_hash_table_size(masks);
  g_strlcpy(s.mask, first->mask, sizeof s.mask);
  return s;
}

static void add_summary(GArray *out, const GPtrArray *rows, const GPtrArray *settings, const QualitySetting *setting,
                        QualityTier tier) {
  g_autoptr(GPtrArray) own = g_ptr_array_new();
  g_autofree double *gains = g_new(double, rows->len);
  int n = 0;
  for (guint i = 0; i < rows->len; i++) {
    QualityRow *r = rows->pdata[i];
    if (r->tier != tier || strcmp(r->text, setting ? setting->text : "")) continue;
    g_ptr_array_add(own, r);
    if (!setting || setting->plain_steps) continue;
    const double gain = r->psnr - quality_rival(rows, settings, r->id, r->model_flop);
    if (!isnan(gain)) gains[n++] = gain;
  }
  if (!own->len) return;
  QualitySummary s = summary_of(setting, own);
  qsort(gains, (size_t)n, sizeof *gains, by_value);
  if (n) s.gain = (gains[(n - 1) / 2] + gains[n / 2]) / 2;
  g_array_append_val(out, s);
}

GArray *quality_summarize(const GPtrArray *rows, const GPtrArray *settings, QualityTier tier) {
  GArray *out = g_array_new(FALSE, FALSE, sizeof(QualitySummary));
  add_summary(out, rows, settings, NULL, tier);
  for (guint i = 0; i < settings->len; i++) add_summary(out, rows, settings, settings->pdata[i], tier);
  return out;
}

void quality_summaries_join(GArray *summaries, const GArray *elsewhere) {
  for (guint i = 0; i < summaries->len; i++)
    for (guint k = 0; k < elsewhere->len; k++) {
      QualitySummary *s = &g_array_index(summaries, QualitySummary, i);
      const QualitySummary *other = &g_array_index(elsewhere, QualitySummary, k);
      if (!s->setting || s->setting != other->setting || s->cases != other->cases) continue;
      s->elsewhere = other->psnr;
      s->close_elsewhere = other->close;
    }
}

static int by_flop(const void *a, const void *b) {
  const QualityRow *x = *(QualityRow *const *)a, *y = *(QualityRow *const *)b;
  return (x->model_flop > y->model_flop) - (x->model_flop < y->model_flop);
}

double quality_rival(const GPtrArray *rows, const GPtrArray *settings, const char *id, double model_flop) {
  g_autoptr(GPtrArray) plain = g_ptr_array_new();
  const QualityRow *exact = quality_rows_find(rows, "", id);
  for (guint i = 0; i < settings->len; i++) {
    const QualitySetting *s = settings->pdata[i];
    const QualityRow *r = s->plain_steps ? quality_rows_find(rows, s->text, id) : NULL;
    if (r && r->psnr < QUALITY_IDENTICAL) g_ptr_array_add(plain, (gpointer)r);
  }
  g_ptr_array_sort(plain, by_flop);
  QualityRow *const *p = (QualityRow *const *)plain->pdata;
  /* 0.1 %: a technique that adds a hair's breadth to the cheapest rival still has that one. */
  if (!exact || plain->len < 2 || model_flop < 0.999 * p[0]->model_flop || model_flop > 0.97 * exact->model_flop)
    return NAN;
  guint i = 1;
  while (i + 1 < plain->len && model_flop > p[i]->model_flop) i++;
  const double at = log(model_flop / p[i - 1]->model_flop) / log(p[i]->model_flop / p[i - 1]->model_flop);
  return p[i - 1]->psnr + at * (p[i]->psnr - p[i - 1]->psnr);
}

char *quality_technique(const QualitySetting *setting) {
  const char *const by_name[] = {"context-reuse", "token-merge", "draft", "region-tokens"};
  const char *const by_value[] = {"scheduler", "sigmas", "step-cache", "step-cache-forecast", "preset"};
  g_autoptr(GPtrArray) parts = g_ptr_array_new_with_free_func(g_free);
  for (char **p = setting->pairs; *p; p++) {
    g_auto(GStrv) pair = g_strsplit(*p, "=", 2);
    for (size_t i = 0; i < G_N_ELEMENTS(by_name); i++)
      if (!strcmp(pair[0], by_name[i])) g_ptr_array_add(parts, g_strdup(pair[0]));
    for (size_t i = 0; i < G_N_ELEMENTS(by_value); i++)
      if (!strcmp(pair[0], by_value[i]))
        g_ptr_array_add(parts,
                        g_strconcat(i == 1 || i == 4 ? pair[0] : "", i == 1 || i == 4 ? " " : "", pair[1], NULL));
  }
  g_ptr_array_add(parts, NULL);
  return g_strjoinv(" + ", (char **)parts->pdata);
}

static void add_summary_json(Json *j, const QualitySummary *s) {
  json_open(j, NULL, '{');
  json_text(j, "setting", s->setting ? s->setting->name : "exact");
  json_text(j, "text", s->setting ? s->setting->text : "");
  json_text(j, "first_mask", s->mask);
  json_count(j, "cases", s->cases);
  json_number(j, "psnr", s->psnr);
  json_number(j, "worst_psnr", s->worst);
  json_number(j, "ssim", s->ssim);
  json_number(j, "worst_ssim", s->worst_ssim);
  json_number(j, "edges", s->edges);
  json_count(j, "successes", s->successes);
  json_count(j, "answers", s->answers);
  json_count(j, "close", s->close);
  json_number(j, "ms", s->ms);
  json_number(j, "flop", s->flop);
  json_number(j, "model_flop", s->model_flop);
  json_number(j, "evaluations", s->evaluations);
  json_number(j, "skipped", s->skipped);
  json_count(j, "masks", s->masks);
  json_number(j, "gain", s->gain);
  json_number(j, "elsewhere", s->elsewhere);
  json_number(j, "close_elsewhere", isnan(s->elsewhere) ? NAN : s->close_elsewhere);
  json_close(j, '}');
}

char *quality_summary_json(GArray *const *all, const char *machine, const char *model) {
  Json j = {.text = g_string_new(NULL)};
  json_open(&j, NULL, '{');
  json_text(&j, "machine", machine);
  json_text(&j, "model", model);
  for (int t = 0; t < QUALITY_TIERS; t++) {
    if (!all[t]) continue;
    json_open(&j, quality_tier_names[t], '[');
    for (guint i = 0; i < all[t]->len; i++) add_summary_json(&j, &g_array_index(all[t], QualitySummary, i));
    json_close(&j, ']');
  }
  json_close(&j, '}');
  return g_string_free(j.text, FALSE);
}
