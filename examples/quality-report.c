/* SPDX-License-Identifier: Apache-2.0 */
/* What comes out of a run; see quality-lab.h. Tables and drawings themselves are in the other quality-*.c. */
#include "picture.h"
#include "quality-draw.h"
#include "quality-lab.h"

#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>

bool quality_lab_takes(const QualityLab *lab, const QualitySetting *s, const QualityCase *c) {
  const char *only = lab->arguments->only;
  return (s->tiers & lab->tiers & 1u << c->tier) && (!only || g_pattern_match_simple(only, s->name) || s->plain_steps);
}

const QualityCase *quality_lab_first(const QualityLab *lab, QualityTier tier) {
  for (guint i = 0; i < lab->cases->len; i++) {
    const QualityCase *c = lab->cases->pdata[i];
    if (c->tier == tier) return c;
  }
  return NULL;
}

char *quality_lab_picture(const QualityLab *lab, const QualityCase *c, const char *setting) {
  g_autofree char *folder = g_build_filename(lab->arguments->out, "pictures", c->id, NULL);
  g_autofree char *file = g_strconcat(setting, ".png", NULL);
  g_mkdir_with_parents(folder, 0777);
  return g_build_filename(folder, file, NULL);
}

/* few: only settings that run in every tier, smaller: for the document. */
static bool write_grid(const QualityLab *lab, QualityTier tier, const char *path, bool few, GError **error) {
  const QualityCase *c = quality_lab_first(lab, tier);
  g_autoptr(GPtrArray) tiles = quality_tiles_new();
  g_autofree char *exact = quality_lab_picture(lab, c, "exact");
  g_autofree char *title = g_strdup_printf("%s tier, case %s: \"%s\"; dB and SSIM to the exact result; beside each its "
                                           "difference from that, times 8",
                                           quality_tier_names[tier], c->id, c->prompt);
  if (!quality_tiles_add(tiles, c->input, g_strdup("original"), error) ||
      !quality_tiles_add(tiles, exact, g_strdup("exact: 28 steps"), error))
    return false;
  for (guint i = 0; i < lab->settings->len; i++) {
    const QualitySetting *s = lab->settings->pdata[i];
    const QualityRow *row = quality_rows_find(lab->rows, s->text, c->id);
    g_autofree char *picture = quality_lab_picture(lab, c, s->name);
    if (!row || !quality_lab_takes(lab, s, c) || (few && (s->tiers & lab->tiers) != lab->tiers) ||
        !g_file_test(picture, G_FILE_TEST_EXISTS))
      continue;
    if (!quality_tiles_add(tiles, picture, g_strdup_printf("%s  %.1f dB, %.2f", s->name, row->psnr, row->ssim), error))
      return false;
  }
  return quality_grid(path, tiles, title, few ? 104 : 160, error);
}

/* The pictures go to --out; with --doc also beside the document, in images/. */
static bool write_pictures(const QualityLab *lab, GArray *const *all, const char *folder, const char *stem,
                           GError **error) {
  g_mkdir_with_parents(folder, 0777);
  for (int t = 0; t < QUALITY_TIERS; t++) {
    if (!all[t]) continue;
    g_autofree char *plot = g_strdup_printf("%s/%splot-%s.png", folder, stem, quality_tier_names[t]);
    g_autofree char *grid = g_strdup_printf("%s/%sgrid-%s.png", folder, stem, quality_tier_names[t]);
    g_autofree char *title = g_strdup_printf("%s tier: median PSNR to the exact result over FLOP, %d cases",
                                             quality_tier_names[t], g_array_index(all[t], QualitySummary, 0).cases);
    if (!quality_plot(plot, all[t], title, error) || !write_grid(lab, (QualityTier)t, grid, *stem, error)) return false;
  }
  return true;
}

/* The case in which the setting is farthest from the exact result. NULL: none was run. */
static const QualityRow *worst_row(const QualityLab *lab, const QualitySetting *s, QualityTier tier) {
  const QualityRow *worst = NULL;
  for (guint i = 0; i < lab->rows->len; i++) {
    const QualityRow *row = lab->rows->pdata[i];
    if (row->tier == tier && !strcmp(row->text, s->text) && (!worst || row->psnr < worst->psnr)) worst = row;
  }
  return worst;
}

/* The pair of tiles of one setting and tier; its picture is made again where it was not kept. */
static bool add_worst(const QualityLab *lab, const QualitySetting *s, const QualityRow *row, GPtrArray *tiles,
                      GError **error) {
  guint i = 0;
  while (strcmp(((const QualityCase *)lab->cases->pdata[i])->id, row->id)) i++; /* rows are of these cases */
  const QualityCase *c = lab->cases->pdata[i];
  g_autofree char *exact = quality_lab_picture(lab, c, "exact"), *path = quality_lab_picture(lab, c, s->name);
  FkImage image = {0};
  QualityRow *again = quality_lab_edit(lab, s, c, &image, error);
  const bool made = again && picture_write(path, &image, error);
  if (again) quality_row_free(again);
  g_free(image.data);
  return made && quality_tiles_add(tiles, exact, g_strdup_printf("exact: %s", c->id), error) &&
         quality_tiles_add(tiles, path,
                           g_strdup_printf("%s, worst of %s: %.1f dB, %.2f", s->name, quality_tier_names[c->tier],
                                           row->psnr, row->ssim),
                           error);
}

bool quality_report_worst(const QualityLab *lab, GError **error) {
  g_autoptr(GPtrArray) tiles = quality_tiles_new();
  g_autofree char *path = g_build_filename(lab->arguments->out, "worst.png", NULL);
  for (guint i = 0; i < lab->settings->len; i++)
    for (int t = 0; t < QUALITY_TIERS; t++) {
      const QualitySetting *s = lab->settings->pdata[i];
      const QualityRow *row = worst_row(lab, s, (QualityTier)t);
      if (row && !add_worst(lab, s, row, tiles, error)) return false;
    }
  return quality_grid_pairs(path, tiles,
                            "Worst case of each setting in each tier: dB and SSIM to the exact result before "
                            "it; behind it the difference, times 8",
                            160, error);
}

static void write_document(const QualityLab *lab, GArray *const *all, GString *out) {
  g_string_append_printf(out, "## What was run\n\n%s, model `%s`, %u settings, cases:", lab->machine,
                         lab->arguments->model, lab->settings->len);
  for (int t = 0, listed = 0; t < QUALITY_TIERS; t++)
    if (lab->there[t])
      g_string_append_printf(out, "%s %d of %d %s", listed++ ? "," : "", lab->chosen[t], lab->there[t],
                             quality_tier_names[t]);
  g_string_append(out, ".\n\n## Verdicts\n\n");
  quality_verdicts_write(out, all);
  for (int t = 0; t < QUALITY_TIERS; t++) {
    if (!all[t]) continue;
    g_string_append_printf(out, "\n## %s\n\n", quality_tier_titles[t]);
    quality_table_write(out, all[t]);
    quality_areas_write(out, lab->rows, lab->settings, (QualityTier)t);
    if (lab->arguments->doc)
      g_string_append_printf(out,
                             "\n![PSNR over FLOP](images/quality-plot-%s.png)\n"
                             "\n![results and their differences](images/quality-grid-%s.png)\n",
                             quality_tier_names[t], quality_tier_names[t]);
  }
  g_string_append(out, "\n## The settings\n\n| setting | properties |\n| --- | --- |\n");
  for (guint i = 0; i < lab->settings->len; i++) {
    const QualitySetting *s = lab->settings->pdata[i];
    g_string_append_printf(out, "| %s | `%s` |\n", s->name, s->text);
  }
}

bool quality_report_write(const QualityLab *lab, GError **error) {
  const QualityArguments *a = lab->arguments;
  GArray *all[QUALITY_TIERS] = {NULL};
  g_autoptr(GString) body = g_string_new(NULL);
  g_autofree char *json_path = g_build_filename(a->out, "summary.json", NULL);
  g_autofree char *table_path = g_build_filename(a->out, "table.md", NULL);
  g_autofree char *prose = NULL;
  for (int t = 0; t < QUALITY_TIERS; t++) {
    if (!quality_lab_first(lab, (QualityTier)t)) continue;
    all[t] = quality_summarize(lab->rows, lab->settings, (QualityTier)t);
    if (lab->elsewhere) {
      g_autoptr(GArray) other = quality_summarize(lab->elsewhere, lab->settings, (QualityTier)t);
      quality_summaries_join(all[t], other);
    }
    if (!all[t]->len) g_clear_pointer(&all[t], g_array_unref);
  }
  write_document(lab, all, body);
  g_autofree char *json = quality_summary_json(all, lab->machine, a->model);
  bool ok = fk_file_write(json_path, json, strlen(json), error) &&
            fk_file_write(table_path, body->str, body->len, error) && write_pictures(lab, all, a->out, "", error);
  if (ok && a->doc) {
    g_autofree char *folder = g_path_get_dirname(a->doc);
    g_autofree char *images = g_build_filename(folder, "images", NULL);
    ok = g_file_get_contents(a->text, &prose, NULL, error) && write_pictures(lab, all, images, "quality-", error);
    g_autofree char *text = ok ? g_strconcat(prose, "\n", body->str, NULL) : NULL;
    ok = ok && fk_file_write(a->doc, text, strlen(text), error);
  }
  for (int t = 0; t < QUALITY_TIERS; t++) g_clear_pointer(&all[t], g_array_unref);
  if (ok) printf("%s\n%s: results.jsonl, summary.json, table.md, plot-*.png, grid-*.png\n", body->str, a->out);
  return ok;
}
