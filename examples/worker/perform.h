/* SPDX-License-Identifier: Apache-2.0 */
/* One job of the queue from its message to its end:
 *
 *   the result is there, of the same id          skipped, finished
 *   edited, written                              done, finished
 *   message, URI, picture or settings are wrong  OUTPUT.failed.json, dropped
 *   a store is busy, memory was short            retried after a while, up to PERFORM_DELIVERIES times, then as above
 *   given out more often than that               the job ends the process that does it: as above, without a try
 *   stopped by a signal                          given back at once
 *   the GPU is lost                              given back; the process ends
 */
#ifndef PERFORM_H
#define PERFORM_H

#include "batch/work.h"
#include "store.h"

#define PERFORM_DELIVERIES 3

typedef struct {
  FkEngine *engine;
  Store *store;
  const FkSettings *settings; /* of jobs that say nothing else */
  WorkRules rules;
} Perform;

typedef enum { AFTER_FINISH, AFTER_RETRY, AFTER_DROP } PerformAfter;

typedef struct {
  const char *result; /* "done", "skipped", "failed", "retried" */
  PerformAfter after;
  int seconds; /* AFTER_RETRY: not before */
  bool lost;   /* the engine cannot be used any more */
  double ms;   /* from message to end */
} PerformEnd;

/* Writes one line of JSON about it to standard output. deliveries: how often the job was given out, this time included.
 */
PerformEnd perform(Perform *p, const char *text, size_t bytes, int deliveries, GCancellable *cancellable);

#endif
