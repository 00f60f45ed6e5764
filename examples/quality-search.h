/* SPDX-License-Identifier: Apache-2.0 */
/* Looks for settings that cost little: random ones and small changes of the best so far. */
#ifndef QUALITY_SEARCH_H
#define QUALITY_SEARCH_H

#include "quality-results.h"

/* The result of a setting on a case: measured now, or before. (transfer none); NULL: an error is set. */
typedef const QualityRow *(*QualityJudge)(void *data, const QualitySetting *setting, const QualityCase *c,
                                          GError **error);

typedef struct {
  const GPtrArray *cases; /* QualityCase: all that a setting has to pass */
  QualityJudge judge;
  void *data;
  int count;              /* settings to try */
  guint32 seed;           /* the same seed, cases and results: the same settings in the same order */
  double floor, ssim, by; /* a setting is given up at the first case below `floor` dB or below this SSIM, or with less
                             than `by` times fewer FLOP */
  double exact;           /* FLOP of the transformer in an exact edit */
} QualitySearch;

/* Settings that pass all cases and that no other one is better than: more dB or SSIM in the worst case, or fewer FLOP.
 * In order of their FLOP. (transfer full): array of QualitySetting, freed with it. */
GPtrArray *quality_search(const QualitySearch *search, GError **error);

#endif
