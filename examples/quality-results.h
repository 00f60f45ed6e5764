/* SPDX-License-Identifier: Apache-2.0 */
/* One result for each (setting, case): a line of JSON in results.jsonl, appended as soon as it is known, so that a run
 * that was stopped goes on where it was. */
#ifndef QUALITY_RESULTS_H
#define QUALITY_RESULTS_H

#include "quality-cases.h"

typedef struct {
  char *setting, *text, *id; /* text: QualitySetting.text; text and id are the key */
  QualityTier tier;
  double psnr, ssim, edges; /* against the exact result */
  double answer;            /* dB against the right answer; -1: there is none */
  double changed;           /* share of the picture that the exact edit changes; -1: an earlier version's result */
  int success;              /* 1 yes, 0 no, -1: there is no right answer */
  double ms, flop;          /* of the whole edit */
  double model_flop;        /* of the transformer's evaluations alone */
  int evaluations, skipped;
  char mask[128]; /* FkResult.mask */
} QualityRow;

void quality_row_free(gpointer row);
/* The same numbers under another setting's name. (transfer full) */
QualityRow *quality_row_copy(const QualityRow *row, const QualitySetting *setting);
/* The demo checkpoint's measure: within 6 dB of what the autoencoder alone makes of the right answer, or over 26. */
bool quality_success(double answer, double ceiling);
/* FLOP of everything but the transformer, by the plan. */
bool quality_fixed_flop(const char *model, const FkSettings *settings, const FkImage *in, double *flop, GError **error);
/* Fills in what the picture is like: against the exact result, of the same size, and the case's right answer. */
bool quality_row_measure(QualityRow *row, const QualityCase *c, const FkImage *image, const FkImage *exact,
                         GError **error);
/* One line without its end. (transfer full) */
char *quality_row_to_json(const QualityRow *row);
/* NULL where the line is no result. (transfer full) */
QualityRow *quality_row_from_json(const char *line);
/* All results of a file; a missing file has none. An unfinished last line is dropped, another bad one is an error.
 * (transfer full): array of QualityRow. */
GPtrArray *quality_rows_load(const char *path, GError **error);
/* Those of all files of a folder, one for each job. (transfer full) */
GPtrArray *quality_rows_load_folder(const char *folder, GError **error);
/* Removes these files. */
void quality_rows_forget(const char *folder);
/* Appends and flushes; cuts an unfinished line first. */
bool quality_rows_append(const char *path, const QualityRow *row, GError **error);
/* (transfer none, nullable) */
const QualityRow *quality_rows_find(const GPtrArray *rows, const char *text, const char *id);

#endif
