/* SPDX-License-Identifier: Apache-2.0 */
/* The Markdown of docs/quality.md: a table for each tier and the verdicts; see quality-table.h. */
#include "quality-table.h"

#include <math.h>
#include <string.h>

#define EARNS 3.0  /* dB over plain Euler at the same FLOP from which a technique earns its place */
#define CLOSE 30.0 /* dB from which a result counts as 28-step Euler's */

static void add_gain(GString *out, double gain) {
  if (isnan(gain))
    g_string_append(out, " -- |");
  else
    g_string_append_printf(out, " %+.1f |", gain);
}

/* "1110" becomes 3x1 1x0 where it is long, so that a table stays readable. */
static void add_mask(GString *out, const char *mask) {
  g_string_append(out, " `");
  for (const char *p = mask; *p;) {
    const size_t run = strspn(p, *p == '1' ? "1" : "0");
    if (run > 3)
      g_string_append_printf(out, "%c(%zu)", *p, run);
    else
      g_string_append_len(out, p, (gssize)run);
    p += run;
  }
  g_string_append(out, "` |");
}

void quality_table_write(GString *out, const GArray *summaries) {
  const QualitySummary *exact = &g_array_index(summaries, QualitySummary, 0);
  const bool answers = exact->answers > 0;
  g_string_append_printf(
      out,
      "%d cases.\n\n| setting | n | PSNR | worst | SSIM | edges |%s ms | TFLOP | times fewer | "
      "of the edit | evaluated | first mask | masks | over Euler |\n"
      "| --- | ---: | ---: | ---: | ---: | ---: |%s ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |\n",
      exact->cases, answers ? " success |" : "", answers ? " ---: |" : "");
  for (guint i = 0; i < summaries->len; i++) {
    const QualitySummary *s = &g_array_index(summaries, QualitySummary, i);
    g_string_append_printf(out, "| %s | %d |", s->setting ? s->setting->name : "exact", s->cases);
    if (s->psnr >= 99)
      g_string_append(out, " same |");
    else
      g_string_append_printf(out, " %.1f |", s->psnr);
    if (s->worst >= 99)
      g_string_append(out, " same |");
    else
      g_string_append_printf(out, " %.1f |", s->worst);
    g_string_append_printf(out, " %.4f | %.1f |", s->ssim, s->edges);
    if (answers) g_string_append_printf(out, " %d/%d |", s->successes, s->answers);
    g_string_append_printf(out, " %.0f | %.4f | %.2f | %.2f | %.1f/%.0f |", s->ms, s->flop / 1e12,
                           exact->model_flop / s->model_flop, exact->flop / s->flop, s->evaluations - s->skipped,
                           s->evaluations);
    add_mask(out, s->mask);
    g_string_append_printf(out, " %d |", s->masks);
    add_gain(out, s->gain);
    g_string_append_c(out, '\n');
  }
}

/* Whether a setting has run on every case of the tier: others are not compared. */
static bool complete(const GArray *summaries, const QualitySummary *s) {
  return s->cases == g_array_index(summaries, QualitySummary, 0).cases;
}

/* The best setting of a technique in a tier. NULL: none has a rival. */
static const QualitySummary *best_of(const GArray *summaries, const char *technique) {
  const QualitySummary *best = NULL;
  for (guint i = 0; summaries && i < summaries->len; i++) {
    const QualitySummary *s = &g_array_index(summaries, QualitySummary, i);
    if (!s->setting || isnan(s->gain) || !complete(summaries, s)) continue;
    g_autofree char *own = quality_technique(s->setting);
    if (!strcmp(own, technique) && (!best || s->gain > best->gain)) best = s;
  }
  return best;
}

/* The cheapest setting whose result counts as the exact one. */
static const QualitySummary *cheapest(const GArray *summaries, bool plain) {
  const QualitySummary *best = NULL;
  for (guint i = 1; summaries && i < summaries->len; i++) {
    const QualitySummary *s = &g_array_index(summaries, QualitySummary, i);
    if (s->psnr < CLOSE || (plain && !s->setting->plain_steps) || !complete(summaries, s)) continue;
    if (!best || s->model_flop < best->model_flop) best = s;
  }
  return best;
}

static void add_best(GString *out, const QualitySummary *s) {
  if (s)
    g_string_append_printf(out, " %+.1f (%s: %.1f dB) |", s->gain, s->setting->name, s->psnr);
  else
    g_string_append(out, " -- |");
}

static void techniques_write(GString *out, GArray *const *all) {
  g_autoptr(GPtrArray) seen = g_ptr_array_new_with_free_func(g_free);
  g_string_append_printf(out,
                         "| technique | best on vague | best on open | earns its place (%+.0f dB) |\n"
                         "| --- | --- | --- | --- |\n",
                         EARNS);
  for (int t = QUALITY_VAGUE; t < QUALITY_TIERS; t++)
    for (guint i = 1; all[t] && i < all[t]->len; i++) {
      const QualitySummary *s = &g_array_index(all[t], QualitySummary, i);
      g_autofree char *technique = quality_technique(s->setting);
      if (!*technique || g_ptr_array_find_with_equal_func(seen, technique, g_str_equal, NULL)) continue;
      const QualitySummary *vague = best_of(all[QUALITY_VAGUE], technique),
                           *open = best_of(all[QUALITY_OPEN], technique);
      const bool on_vague = vague && vague->gain >= EARNS, on_open = open && open->gain >= EARNS;
      g_string_append_printf(out, "| %s |", technique);
      add_best(out, vague);
      add_best(out, open);
      g_string_append_printf(out, " %s |\n",
                             on_vague && on_open ? "yes, on both"
                             : on_vague          ? "on vague"
                             : on_open           ? "on open"
                             : vague || open     ? "no"
                                                 : "no rival at its FLOP");
      g_ptr_array_add(seen, g_steal_pointer(&technique));
    }
}

void quality_verdicts_write(GString *out, GArray *const *all) {
  techniques_write(out, all);
  g_string_append_printf(out,
                         "\nCheapest setting whose median is at least %.0f dB from 28-step Euler's result "
                         "(times fewer FLOP in the transformer, of the whole edit in brackets):\n\n",
                         CLOSE);
  for (int t = 0; t < QUALITY_TIERS; t++) {
    if (!all[t]) continue;
    const QualitySummary *exact = &g_array_index(all[t], QualitySummary, 0);
    const QualitySummary *any = cheapest(all[t], false), *plain = cheapest(all[t], true);
    g_string_append_printf(out, "- %s: ", quality_tier_names[t]);
    if (any)
      g_string_append_printf(out, "`%s` (%s), %.1f dB, %.1fx (%.1fx)", any->setting->name, any->setting->text,
                             any->psnr, exact->model_flop / any->model_flop, exact->flop / any->flop);
    else
      g_string_append(out, "none");
    if (plain)
      g_string_append_printf(out, "; of plain Euler `%s`, %.1f dB, %.1fx (%.1fx)", plain->setting->name, plain->psnr,
                             exact->model_flop / plain->model_flop, exact->flop / plain->flop);
    g_string_append(out, ".\n");
  }
}
