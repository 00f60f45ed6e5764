/* SPDX-License-Identifier: Apache-2.0 */
/* The Markdown of docs/quality.md: a table for each tier and the verdicts; see quality-table.h. */
#include "quality-table.h"

#include <math.h>
#include <string.h>

#define EARNS 3.0 /* dB over plain Euler at the same FLOP from which a technique earns its place */

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

static bool measured_elsewhere(const GArray *summaries) {
  for (guint i = 0; i < summaries->len; i++)
    if (!isnan(g_array_index(summaries, QualitySummary, i).elsewhere)) return true;
  return false;
}

void quality_table_write(GString *out, const GArray *summaries) {
  const QualitySummary *exact = &g_array_index(summaries, QualitySummary, 0);
  const bool answers = exact->answers > 0, elsewhere = measured_elsewhere(summaries);
  g_string_append_printf(
      out,
      "%d cases.\n\n| setting | n | PSNR |%s worst | close | SSIM | worst SSIM | edges |%s ms | TFLOP | times fewer | "
      "of the edit | evaluated | first mask | masks | over Euler |\n"
      "| --- | ---: | ---: |%s ---: | ---: | ---: | ---: | ---: |%s ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |\n",
      exact->cases, elsewhere ? " elsewhere |" : "", answers ? " success |" : "", elsewhere ? " ---: |" : "",
      answers ? " ---: |" : "");
  for (guint i = 0; i < summaries->len; i++) {
    const QualitySummary *s = &g_array_index(summaries, QualitySummary, i);
    g_string_append_printf(out, "| %s | %d |", s->setting ? s->setting->name : "exact", s->cases);
    if (s->psnr >= 99)
      g_string_append(out, " same |");
    else
      g_string_append_printf(out, " %.1f |", s->psnr);
    if (elsewhere && isnan(s->elsewhere))
      g_string_append(out, " -- |");
    else if (elsewhere)
      g_string_append_printf(out, " %.1f, %d/%d |", s->elsewhere, s->close_elsewhere, s->cases);
    if (s->worst >= 99)
      g_string_append(out, " same |");
    else
      g_string_append_printf(out, " %.1f |", s->worst);
    g_string_append_printf(out, " %d/%d | %.4f | %.4f | %.1f |", s->close, s->cases, s->ssim, s->worst_ssim, s->edges);
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

/* When a setting's results count as the exact ones. */
static const char *const bars[] = {"median", "nine of ten cases", "every case"};

/* Here and, where it was measured, elsewhere. */
static bool passes(const QualitySummary *s, int bar) {
  const bool other = !isnan(s->elsewhere);
  const double psnr = other ? MIN(s->psnr, s->elsewhere) : s->psnr;
  const int close = other ? MIN(s->close, s->close_elsewhere) : s->close;
  if (bar == 0) return psnr >= QUALITY_CLOSE;
  return bar == 1 ? 10 * close >= 9 * s->cases : close == s->cases;
}

/* The cheapest setting that passes. NULL: none does. */
static const QualitySummary *cheapest(const GArray *summaries, int bar, bool plain) {
  const QualitySummary *best = NULL;
  const double exact = g_array_index(summaries, QualitySummary, 0).model_flop;
  for (guint i = 1; i < summaries->len; i++) {
    const QualitySummary *s = &g_array_index(summaries, QualitySummary, i);
    if (s->model_flop > 0.97 * exact) continue; /* nothing saved */
    if (!passes(s, bar) || (plain && !s->setting->plain_steps) || !complete(summaries, s)) continue;
    if (!best || s->model_flop < best->model_flop) best = s;
  }
  return best;
}

static void add_best(GString *out, const GArray *summaries, const QualitySummary *s) {
  if (s)
    g_string_append_printf(out, " %+.1f (%s: %.1f dB, %.1fx) |", s->gain, s->setting->name, s->psnr,
                           g_array_index(summaries, QualitySummary, 0).model_flop / s->model_flop);
  else
    g_string_append(out, " -- |");
}

/* Where a technique earns its place, of the tiers that ran. */
static void add_places(GString *out, GArray *const *all, const char *technique) {
  g_autoptr(GString) places = g_string_new(NULL);
  int ran = 0, earned = 0, rivals = 0;
  for (int t = QUALITY_VAGUE; t < QUALITY_TIERS; t++) {
    const QualitySummary *best = best_of(all[t], technique);
    const bool earns = best && best->gain >= EARNS;
    if (earns) g_string_append_printf(places, "%s%s", places->len ? ", " : "on ", quality_tier_names[t]);
    ran += all[t] != NULL;
    rivals += best != NULL;
    earned += earns;
  }
  if (!earned)
    g_string_append(out, rivals ? " no |\n" : " no rival at its FLOP |\n");
  else if (earned == ran && ran > 1)
    g_string_append_printf(out, " yes, on %s |\n", ran == 2 ? "both" : "all");
  else
    g_string_append_printf(out, " %s |\n", places->str);
}

static void techniques_write(GString *out, GArray *const *all) {
  g_autoptr(GPtrArray) seen = g_ptr_array_new_with_free_func(g_free);
  g_autoptr(GString) rule = g_string_new("| --- |");
  g_string_append(out, "| technique |");
  for (int t = QUALITY_VAGUE; t < QUALITY_TIERS; t++) {
    if (!all[t]) continue;
    g_string_append_printf(out, " best on %s |", quality_tier_names[t]);
    g_string_append(rule, " --- |");
  }
  g_string_append_printf(out, " earns its place (%+.0f dB) |\n%s --- |\n", EARNS, rule->str);
  for (int t = QUALITY_VAGUE; t < QUALITY_TIERS; t++)
    for (guint i = 1; all[t] && i < all[t]->len; i++) {
      const QualitySummary *s = &g_array_index(all[t], QualitySummary, i);
      g_autofree char *technique = quality_technique(s->setting);
      if (!*technique || g_ptr_array_find_with_equal_func(seen, technique, g_str_equal, NULL)) continue;
      g_string_append_printf(out, "| %s |", technique);
      for (int k = QUALITY_VAGUE; k < QUALITY_TIERS; k++)
        if (all[k]) add_best(out, all[k], best_of(all[k], technique));
      add_places(out, all, technique);
      g_ptr_array_add(seen, g_steal_pointer(&technique));
    }
}

static void add_cheapest(GString *out, const QualitySummary *exact, const QualitySummary *s) {
  if (s)
    g_string_append_printf(out, " `%s`: %.1fx (%.1fx), %.1f dB, %d/%d |", s->setting->name,
                           exact->model_flop / s->model_flop, exact->flop / s->flop, s->psnr, s->close, s->cases);
  else
    g_string_append(out, " none |");
}

void quality_verdicts_write(GString *out, GArray *const *all) {
  techniques_write(out, all);
  g_string_append_printf(
      out,
      "\nCheapest setting that is at least %.0f dB from 28-step Euler's result: times fewer FLOP in the "
      "transformer (of the whole edit), median, and in how many cases it is. It has to pass here and, where "
      "it was measured, elsewhere.\n\n"
      "| tier | by | of all settings | of plain Euler |\n| --- | --- | --- | --- |\n",
      QUALITY_CLOSE);
  for (int t = 0; t < QUALITY_TIERS; t++)
    for (int bar = 0; all[t] && bar < (int)G_N_ELEMENTS(bars); bar++) {
      const QualitySummary *exact = &g_array_index(all[t], QualitySummary, 0);
      g_string_append_printf(out, "| %s | %s |", quality_tier_names[t], bars[bar]);
      add_cheapest(out, exact, cheapest(all[t], bar, false));
      add_cheapest(out, exact, cheapest(all[t], bar, true));
      g_string_append_c(out, '\n');
    }
}
