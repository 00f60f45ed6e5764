/* SPDX-License-Identifier: Apache-2.0 */
/* Works through a list: decoding, editing and encoding on threads of their own, one engine for each device. */
#ifndef RUN_H
#define RUN_H

#include "work.h"

typedef struct {
  WorkRules work;
  bool resume;    /* what is done already is skipped, what is there otherwise replaced */
  bool overwrite; /* results that are there are replaced; else they are failures */
  int batch;      /* most works of one size and equal settings that share an edit */
} RunRules;

/* How a run ended. */
typedef enum { RUN_ALL, RUN_STOPPED, RUN_FULL, RUN_DEVICE_LOST } RunEnd;

/* engines: NULL-terminated, in use until it returns. works: taken out of the list as they are finished. Tells
 * progress.h of each. */
RunEnd run_all(FkEngine *const *engines, GPtrArray *works, const RunRules *rules);
/* From any thread: edits under way are finished and written, nothing new is begun. Says so. */
void run_stop(void);

#endif
