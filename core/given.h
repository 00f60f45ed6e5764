/* SPDX-License-Identifier: Apache-2.0 */
/* One call's frames, sorted by what each is given beside its pixels (extras.h): those in which nothing is edited, those
 * with a region of their own, and the others, which run together. */
#ifndef FK_GIVEN_H
#define FK_GIVEN_H

#include "extras.h"
#include "frames.h"
#include "job.h"

/* Runs frames of one size together. */
typedef bool (*FkGivenRun)(void *data, FkEdit *edit, const FkFrameSize *size, GError **error);
/* Makes masks of those frames that have an origin in extras: frames in device memory (fk_masking_prepare). */
typedef bool (*FkGivenMasks)(void *data, const FkEdit *edit, FkExtras *extras, GError **error);
typedef struct {
  FkGivenRun run;
  FkGivenMasks masks;
  void *data;
} FkGivenEngine;

/* all: frames that are fit for an edit at this size, with model and settings. Writes their results. */
bool fk_given_edit(const FkEdit *all, const FkFrameSize *size, const FkGivenEngine *engine, GError **error);

/* What is known of an edit of this size before there is a frame: whether it has a mask, the references' sizes, and with
 * region=crop the part that a mask of a file leaves, which changes *size. Errors as of reading the files. */
bool fk_given_foresee(FkEdit *edit, int width, int height, FkFrameSize *size, GError **error);

#endif
