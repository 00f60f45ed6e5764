/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked of the model (cases) and how (settings), read from the files of tests/quality. */
#ifndef QUALITY_CASES_H
#define QUALITY_CASES_H

#include <fk.h>

typedef enum { QUALITY_NAMED, QUALITY_VAGUE, QUALITY_OPEN, QUALITY_LOCAL, QUALITY_GLOBAL, QUALITY_TIERS } QualityTier;

extern const char *const quality_tier_names[QUALITY_TIERS + 1]; /* NULL-terminated */
extern const char *const quality_tier_titles[QUALITY_TIERS];    /* headings */

typedef struct {
  QualityTier tier;
  char *id, *kind, *prompt, *input; /* input: path of a PNG */
  char *target;                     /* path of the right answer; NULL: there is none */
  char *seed;
  double ceiling; /* dB of the autoencoder alone against the target */
} QualityCase;

typedef struct {
  char *name;
  char *text;      /* "property=value ...", as in the file; part of a result's key */
  char **pairs;    /* "property=value" of settings, and of rows that are both */
  char *options;   /* those that open an engine, joined by spaces; "": the lab's own engine */
  unsigned tiers;  /* bits 1 << QualityTier */
  int plain_steps; /* N where the text is "steps=N" alone: the rival of everything else; otherwise 0 */
} QualitySetting;

/* A JSON list of objects; paths are relative to the file. (transfer full): array of QualityCase, freed with it. */
GPtrArray *quality_cases_read(const char *path, GError **error);
/* A case of the open tier for each PNG and JPEG picture of a folder, in the order of their names, and each line of its
 * prompts.txt (without one: three prompts of the usual kinds). (transfer full): array of QualityCase. */
GPtrArray *quality_cases_folder(const char *folder, GError **error);
/* Lines "name: property=value ..."; "[named vague]" says for which tiers the following lines are; # comments.
 * (transfer full): array of QualitySetting. */
GPtrArray *quality_settings_read(const char *path, GError **error);
/* A line "name: property=value ...". (transfer full) */
QualitySetting *quality_setting_parse(const char *line, unsigned tiers, GError **error);
void quality_setting_free(gpointer setting); /* (nullable) */
/* Without pairs: what has results and is not run. (transfer full) */
QualitySetting *quality_setting_new(const char *name, const char *text, unsigned tiers);
/* Settings of an edit of `c`: preset=exact, the case's prompt and seed, then the pairs. setting NULL: none. */
FkSettings *quality_settings_apply(const QualitySetting *setting, const QualityCase *c, GError **error);
/* Bit mask of a list of tiers, e.g. "vague,open"; 0 with an error for an unknown one. */
unsigned quality_tiers_parse(const char *text, GError **error);
/* Sets the pairs of an options text. */
bool quality_options_apply(const char *text, FkOptions *options, GError **error);
/* As fk_image_read, without transparency. */
bool quality_picture_read(const char *path, FkImage *image, GError **error);

#endif
