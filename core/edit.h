/* SPDX-License-Identifier: Apache-2.0 */
/* The conductor's score: one batch of frames from pixels to pixels, in the order of docs/architecture.md.
 * The same code runs on every backend, and on the null backend to plan memory and count work. */
#ifndef FK_EDIT_H
#define FK_EDIT_H

#include "prompt.h"
#include "tune.h"

typedef enum { FK_STAGE_TEXT, FK_STAGE_ENCODE, FK_STAGE_DENOISE, FK_STAGE_DECODE, FK_STAGES } FkStage;

typedef struct {
  double ms, flop;
  size_t peak_bytes; /* of the arena inside the stage */
} FkStageCost;

typedef struct {
  const FkModel *model;
  FkBackend *be;
  FkArena *arena;
  FkPromptCache *cache; /* nullable */
  const FkTune *tune;
  FkJob *jobs;
  int n;
  int width, height; /* at which the model works; multiples of 16 */
  GCancellable *cancellable;
  FkProgress progress;
  void *user_data;
  bool plan;                   /* a walk on the null backend: no pixels, no noise, no text */
  FkStageCost cost[FK_STAGES]; /* written */
} FkEdit;

/* Size at which the model works on an input of this size, and the size of the result. */
void fk_edit_sizes(const FkModel *model, const FkTune *tune, int width, int height, int *model_width, int *model_height,
                   int *out_width, int *out_height);
bool fk_edit_run(FkEdit *edit, GError **error);
/* True, with FK_ERROR_CANCELLED, when the work is to stop. cancellable: nullable */
bool fk_edit_cancelled(GCancellable *cancellable, GError **error);
/* Waits for the backend and turns its first failure into a GError. */
bool fk_edit_sync(FkBackend *be, GError **error);

#endif
