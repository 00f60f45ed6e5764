/* SPDX-License-Identifier: Apache-2.0 */
/* One run of fluxkontext-quality: what was asked for, and what is open and known so far. */
#ifndef QUALITY_LAB_H
#define QUALITY_LAB_H

#include "quality-results.h"

typedef struct {
  char *model, *backend, *cases_file, *settings_file, *tiers, *only, *out, *doc, *text, *limit, *other, *shard,
      *calibrate;
  gboolean full, resume, report, layers, json, worst;
  int jobs, search, seed;
  double floor, ssim, by;
} QualityArguments;

typedef struct {
  const QualityArguments *arguments;
  FkEngine *engine;
  GHashTable *engines; /* by QualitySetting.options, for settings that have some */
  char *machine;
  GPtrArray *cases, *settings, *rows; /* of this run; rows: also earlier results */
  GPtrArray *elsewhere;               /* results of another machine; NULL: not asked for */
  int shard, shards;                  /* of the cases, every shards-th is edited here */
  unsigned tiers;
  int limit[QUALITY_TIERS], chosen[QUALITY_TIERS], there[QUALITY_TIERS]; /* cases: most, taken, in the file */
  int total, done;
  gint64 began;
  int computed; /* since `began` */
} QualityLab;

/* Whether the setting runs on the case. */
bool quality_lab_takes(const QualityLab *lab, const QualitySetting *s, const QualityCase *c);
/* The tier's first case. (transfer none, nullable) */
const QualityCase *quality_lab_first(const QualityLab *lab, QualityTier tier);
/* Where the picture of a case under a setting is kept; its folder is there. (transfer full) */
char *quality_lab_picture(const QualityLab *lab, const QualityCase *c, const char *setting);
/* setting NULL: the exact edit. image: RGB of the input's size; (transfer full) data. (transfer full) */
QualityRow *quality_lab_edit(const QualityLab *lab, const QualitySetting *setting, const QualityCase *c, FkImage *image,
                             GError **error);

/* Tables, plots, grids and the document, from the results that are there (quality-report.c). */
bool quality_report_write(const QualityLab *lab, GError **error);
/* worst.png: the case in which each setting is farthest from the exact result, in each tier. An engine is open. */
bool quality_report_worst(const QualityLab *lab, GError **error);

#endif
