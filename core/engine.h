/* SPDX-License-Identifier: Apache-2.0 */
/* What an FkEngine holds. Private to engine.c; everything is freed in reverse order. */
#ifndef FK_ENGINE_H
#define FK_ENGINE_H

#include "edit.h"
#include "registry.h"

struct FkEngine {
  FkShared shared; /* first: what the registry knows of it */
  FkOptions *options;
  FkBackend *be;
  char *why; /* why this backend */
  FkModel *model;
  FkArena arena;
  FkPromptCache cache;
  /* What the arena was planned for. */
  FkSettings *planned;
  int planned_n, planned_width, planned_height;
  /* Order of arrival; `lock` guards these three only and is never held over work. */
  GMutex lock;
  GCond turn;
  GQueue waiting;
  bool busy;
};

struct FkProfile;
/* fk_engine_edit; with profile not NULL every op is timed and *profile is (transfer full: free). */
bool fk_engine_edit_profiled(FkEngine *engine, FkJob *jobs, int n, GCancellable *cancellable, FkProgress progress,
                             void *user_data, struct FkProfile **profile, GError **error);
/* Lets the next in the queue run. */
void fk_engine_leave(FkEngine *engine);

#endif
