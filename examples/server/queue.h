/* SPDX-License-Identifier: Apache-2.0 */
/* The way of a job: decoded by a helper thread, waiting, edited by the thread of a device together with others of equal
 * settings, encoded by a helper thread. Functions here are for the main thread; results come back to it. */
#ifndef QUEUE_H
#define QUEUE_H

#include "jobs.h"
#include "metrics.h"

typedef struct Queue Queue;

typedef enum { QUEUE_LOADING, QUEUE_READY, QUEUE_DEAD } QueueState;

typedef struct {
  guint waiting;          /* most jobs that wait */
  int batch;              /* most pictures of one edit */
  const char *output_dir; /* results are written there too; nullable */
} QueueLimits;

/* Opens an engine for each of the options (headers are checked at once) and loads it in its thread. broken: called on
 * the main thread with the sentence when loading failed. engines, settings: as long as the queue. */
Queue *queue_new(FkOptions *const *options, const FkSettings *settings, QueueLimits limits, Jobs *jobs,
                 Metrics *metrics, void (*broken)(const char *message, gpointer data), gpointer data, GError **error);
/* Cancels what runs and joins the threads. */
void queue_free(Queue *q);
/* The job must be new; its bytes are counted. */
void queue_submit(Queue *q, Job *job);
/* Ends a job that has not ended, at once for those who watch, within a step for the device. */
void queue_cancel(Queue *q, Job *job, guint status, const char *code, const char *message);
/* Bytes that this job's pixels will take. */
gsize queue_bytes(const Ask *ask);

QueueState queue_state(const Queue *q);
guint queue_depth(const Queue *q);
guint queue_running(const Queue *q);
/* Nothing waits, runs or is being decoded or encoded. */
bool queue_idle(const Queue *q);
/* How many are before it; -1: it does not wait. */
int queue_position(Queue *q, const Job *job);
/* Until `position` jobs have ended, by the pace of the last ones. */
gint64 queue_eta_ms(const Queue *q, int position);
/* (transfer none): of the first device. */
FkEngine *queue_engine(const Queue *q);
/* (transfer full, nullable): as fk_engine_active of these settings. */
char **queue_active(const Queue *q, const FkSettings *settings);
/* Bytes of weights read and in all. */
void queue_loaded(const Queue *q, gint64 *done, gint64 *total);
/* The job that runs now. (nullable) */
Job *queue_current(const Queue *q);

#endif
