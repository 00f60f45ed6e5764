/* SPDX-License-Identifier: Apache-2.0 */
/* What belongs to one running batch, for everything that takes part in it: its frames, its backend and memory, who
 * listens, and how it is stopped. */
#ifndef FK_JOB_H
#define FK_JOB_H

#include "mask.h"
#include "prompt.h"
#include "tune.h"

typedef enum { FK_STAGE_TEXT, FK_STAGE_ENCODE, FK_STAGE_DENOISE, FK_STAGE_DECODE, FK_STAGES } FkStage;

typedef struct {
  double ms, flop;
  size_t peak_bytes; /* of the arena inside the stage */
} FkStageCost;

struct FkPreviewMap;

typedef struct {
  const FkModel *model;
  FkBackend *be;
  FkArena *arena;
  FkPromptCache *cache;          /* nullable */
  struct FkPreviewMap *previews; /* where a job wants them; see preview.h */
  const FkTune *tune;
  const struct FkExtras *extras; /* per frame; NULL: no frame has any */
  FkMaskBox region; /* of the frames that have them; the jobs' images are of it alone, but for those in device memory */
  bool masked;      /* a frame may have a mask: it takes memory */
  FkFluxReferences references; /* of every frame; the pictures are its extras' */
  FkJob *jobs;
  int n;
  int width, height; /* at which the model works; multiples of 16 */
  GCancellable *cancellable;
  FkProgress progress;
  void *user_data;
  /* Has the parts of a stage in memory; NULL: they are. */
  bool (*bring)(void *owner, bool text, GCancellable *cancellable, GError **error);
  void *owner;
  FkObserver *observer;        /* of the products while it runs; nullable */
  bool leave;                  /* nothing is edited: results are their frames, which lie in device memory */
  bool dry_run;                /* a plan's walk on the null backend: no pixels, no noise, no text */
  FkStageCost cost[FK_STAGES]; /* written */
} FkEdit;

/* True, with FK_ERROR_CANCELLED, when the work is to stop. cancellable: nullable */
bool fk_job_cancelled(GCancellable *cancellable, GError **error);
/* Waits for the backend and turns its first failure into a GError; one that leaves the device dead is
 * FK_ERROR_DEVICE_LOST, whatever failed first. */
bool fk_job_sync(FkBackend *be, GError **error);
/* FLOP asked of the backend so far. */
double fk_job_flop(const FkBackend *be);

#endif
