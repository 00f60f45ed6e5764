/* SPDX-License-Identifier: Apache-2.0 */
/* What an FkEngine holds. Private to engine.c; everything is freed in reverse order. */
#ifndef FK_ENGINE_H
#define FK_ENGINE_H

#include "edit.h"
#include "host.h"
#include "masking.h"
#include "preview.h"
#include "registry.h"

/* The edit that the arena was planned for, and that captured graphs belong to. */
typedef struct {
  FkSettings *settings; /* what the texts in `tune` point into; NULL: no edit yet */
  FkTune tune;
  int n, width, height;
  bool masked;
  FkFluxReferences references;
  char *surfaces;     /* fk_surface_shape */
  size_t masks;       /* bytes beside the arena */
  uint64_t limit;     /* FkEngine.max_vram */
  uint32_t exchanges; /* FkModel's */
} FkPlanned;

/* What opening took. */
typedef struct {
  double backend_ms, files_ms; /* at the same time */
  double bind_ms, plan_ms, weights_ms;
  double adapters_ms; /* the last exchange; 0: none yet */
} FkOpening;

struct FkEngine {
  FkShared shared; /* first: what the registry knows of it */
  FkOptions *options;
  FkLoadPlan plan; /* its texts are the options' */
  FkBackend *be;
  FkHostMemory (*host_memory)(const char *root); /* NULL: no matter, nothing is in memory */
  char *why;                                     /* why this backend */
  char *files; /* what the model's files were when it was opened (fk_registry_files) */
  FkModel *model;

  /* `lock` guards these and is never held over work. */
  GMutex lock;
  GCond turn;
  GQueue waiting;           /* tickets in order of arrival */
  bool busy;                /* somebody's turn */
  FkPlacing placing;        /* the model's, for who has not the turn */
  int changed;              /* likewise fk_model_changed */
  uint64_t max_vram;        /* the lowest of all users'; 0: none has a limit */
  char *adapted, *adapters; /* the list of adapters that the weights have, and what of it there is; NULL: none yet */
  char *timing;             /* fk_engine_timing; NULL: nothing is loaded */
  char *calibration;        /* hash of the file with static scales; NULL: none */
  char *hashes;             /* of the model's files as a manifest has them; NULL: not asked for yet */

  /* Who has the turn owns all below, and the backend. */
  FkArena arena;
  FkPromptCache cache;
  FkPreviewMap previews;
  FkMasks masks;
  FkPlanned planned;
  FkOpening opening;
  int plans; /* walks of an edit to plan its memory, so far */
};

/* fk_engine_edit with every matrix product shown to `observer` (nullable) before it runs, graphs off. */
bool fk_engine_edit_observed(FkEngine *engine, FkObserver *observer, FkJob *jobs, int n, GCancellable *cancellable,
                             FkProgress progress, void *user_data, GError **error);

#endif
