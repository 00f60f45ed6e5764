/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs that one engine edits together. */
#ifndef EDIT_RUN_H
#define EDIT_RUN_H

#include "jobs.h"

typedef struct {
  FkEngine *engine;
  gpointer device; /* whoever made it */
  Job **jobs;      /* [n], a reference each */
  int n;
  GCancellable *cancellable;
  char **active; /* after the edit, as fk_engine_active; nullable */
} Run;

/* Room for `most` jobs, none in it. Counted by GLib (g_atomic_rc_box_acquire); run_release gives a reference back. */
Run *run_new(FkEngine *engine, gpointer device, guint most);
void run_release(gpointer run);
/* All in one edit; where that fails, each by itself, so that nobody fails for what is another's. Of each job either
 * `out`, `results` and `manifests` are there then, or `trouble`. On the thread of the device: progress and previews are
 * posted. */
void run_edit(Run *run);
/* Calls `function` on the main thread, in the order of the calls; destroy: of data, afterwards (nullable). */
void run_post(GSourceFunc function, gpointer data, GDestroyNotify destroy);

#endif
