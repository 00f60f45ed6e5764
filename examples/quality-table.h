/* SPDX-License-Identifier: Apache-2.0 */
/* What the results say: one line for each setting in each tier, the comparison with plain Euler at the same FLOP, and
 * the document. */
#ifndef QUALITY_TABLE_H
#define QUALITY_TABLE_H

#include "quality-results.h"

#define QUALITY_CLOSE 30.0 /* dB from which a result counts as 28-step Euler's */

typedef struct {
  const QualitySetting *setting; /* NULL: the exact result itself */
  int cases;
  double psnr, worst, ssim, worst_ssim, edges, ms; /* medians over the cases; worst: the least of any */
  double flop, model_flop, evaluations, skipped;   /* means */
  int successes, answers;
  int close;        /* cases of at least QUALITY_CLOSE dB */
  char mask[128];   /* of the tier's first case */
  int masks;        /* different ones among the cases */
  double gain;      /* median over the cases of psnr less quality_rival; NAN where there is no such thing */
  double elsewhere; /* psnr as measured on another machine, on as many cases; NAN: not measured */
  int close_elsewhere;
} QualitySummary;

/* The exact result's line first, then the settings in their order, those without results left out. (transfer full) */
GArray *quality_summarize(const GPtrArray *rows, const GPtrArray *settings, QualityTier tier);
/* Fills `elsewhere` from summaries of the same settings. */
void quality_summaries_join(GArray *summaries, const GArray *elsewhere);
/* psnr of plain Euler on this case at this model_flop, linear in its logarithm between (beyond the last: along) the
 * measured step counts; NAN below the fewest steps, with under two counts, and where less than 3 % of the exact FLOP
 * are saved. */
double quality_rival(const GPtrArray *rows, const GPtrArray *settings, const char *id, double model_flop);
/* "first-block + taylor": what a setting does beside the number of steps. (transfer full): "" for plain Euler. */
char *quality_technique(const QualitySetting *setting);

/* Appends Markdown. all: the summaries by tier, NULL where a tier was not run. */
void quality_table_write(GString *out, const GArray *summaries);
void quality_verdicts_write(GString *out, GArray *const *all);
/* A tier's results by the share of the picture that the exact edit changes; nothing where no row knows it. */
void quality_areas_write(GString *out, const GPtrArray *rows, const GPtrArray *settings, QualityTier tier);
/* Summaries of all tiers as JSON. (transfer full) */
char *quality_summary_json(GArray *const *all, const char *machine, const char *model);

#endif
