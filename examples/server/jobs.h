/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs: their states, who watches them, what happened to them, and for how long their results are kept. All of it
 * belongs to the main thread but for what is marked.
 *
 *   waiting -> running -> done | failed
 *           \-> cancelled <-/
 */
#ifndef JOBS_H
#define JOBS_H

#include "ask.h"

typedef enum { JOB_WAITING, JOB_RUNNING, JOB_DONE, JOB_FAILED, JOB_CANCELLED } JobState;

/* "INSTANCE-" where servers share an address, and 128 random bits in hexadecimal. */
enum { JOB_INSTANCE = 32, JOB_RANDOM = 32, JOB_ID = JOB_INSTANCE + 1 + JOB_RANDOM };

typedef struct Job Job;

/* Something was added to the job's events, or it has ended; index: of the event. */
typedef void (*JobWatch)(Job *job, guint index, gpointer data);

/* What a job tells while it runs: "queued", "progress", "preview", "done", "error". */
typedef struct {
  const char *name;
  char *data; /* JSON in one line */
} JobEvent;

typedef struct {
  GBytes *file;
  FkResult result;
  char *hash;     /* media_hash */
  char *manifest; /* fk_manifest in one line; nullable */
  int width, height;
} JobPicture;

struct Job {
  gatomicrefcount refs; /* any thread */
  char id[JOB_ID + 1];
  char key[JOB_ID + 1]; /* another, for the address of its results, which is open to whoever knows it */
  const char *api;      /* literal: "openai" */
  Ask *ask;
  JobState state;
  Failure failure;                                  /* state JOB_FAILED, JOB_CANCELLED */
  gint64 created;                                   /* seconds since 1970 */
  gint64 asked_us, queued_us, started_us, ended_us; /* monotonic; 0: not yet */
  const char *stage;                                /* literal; NULL: none yet */
  gint64 current, total;
  GArray *events;       /* of JobEvent */
  bool detached;        /* goes on when nobody watches */
  JobPicture *pictures; /* [ask->n] when done */
  char **active;        /* as fk_engine_active; when done */
  gsize held;           /* bytes counted for it */
  char *idempotency, *body_hash;
  GArray *watches;
  /* While it is being worked on; see queue.c. */
  FkImage in, mask; /* mask: data NULL where there is none */
  FkImage references[FK_REFERENCES];
  int n_references;
  FkImage *out; /* [ask->n] */
  FkResult *results;
  char **manifests; /* [ask->n], as in JobPicture */
  int previews;     /* that were told; main thread */
  Failure trouble;
  bool working;   /* from queue_submit until no other thread looks at it any more */
  bool cancelled; /* under the queue's lock, as `run` */
  void *run;
};

typedef struct {
  const char *instance; /* with which ids start; NULL: none */
  GHashTable *by_id, *by_key, *by_idempotency;
  GQueue ended; /* oldest first; a reference each */
  gsize held;   /* bytes of all jobs */
  gsize kept;   /* of these, of those that have ended */
} Jobs;

/* instance: nullable, kept by the caller; jobs_is_instance */
void jobs_init(Jobs *jobs, const char *instance);
void jobs_clear(Jobs *jobs);
/* 1 to JOB_INSTANCE ASCII letters and digits, so that it is a part of paths and patterns as it stands. */
bool jobs_is_instance(const char *name);
/* A waiting job, with a reference for the caller besides that of `jobs`. ask: (transfer full) */
Job *jobs_add(Jobs *jobs, Ask *ask, const char *api);
Job *job_ref(Job *job);
void job_unref(Job *job);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Job, job_unref)
/* (transfer none, nullable) */
Job *jobs_find(Jobs *jobs, const char *id);
Job *jobs_find_key(Jobs *jobs, const char *key);
/* Same key and body: the job; the same key of another body: a failure. */
Job *jobs_find_idempotent(Jobs *jobs, const char *key, const char *body_hash, Failure *f);
void jobs_set_idempotent(Jobs *jobs, Job *job, const char *key, const char *body_hash);
/* Bytes that a job holds from now on. */
void jobs_hold(Jobs *jobs, Job *job, gsize bytes);

bool job_ended(const Job *job);
const char *job_state_name(const Job *job);
/* data: (transfer full). Tells the watches. */
void job_event(Job *job, const char *name, char *data);
void job_progress(Job *job, const char *stage, gint64 current, gint64 total);
/* Milliseconds that a running job still needs by its own pace; -1: not known yet. */
gint64 job_eta_ms(const Job *job);
/* Ends it for those who watch. `failure` is copied, NULL for JOB_DONE. */
void jobs_end(Jobs *jobs, Job *job, JobState state, const Failure *failure);
/* No other thread looks at it any more: gives back what it held for working, once it has ended. */
void jobs_settle(Jobs *jobs, Job *job);
/* Forgets ended jobs that nobody watches: those that ended more than keep_s ago, and the oldest beyond keep_bytes. */
void jobs_expire(Jobs *jobs, guint keep_s, gsize keep_bytes);

void job_watch(Job *job, JobWatch watch, gpointer data);
void job_unwatch(Job *job, gpointer data);
bool job_watched(const Job *job);

#endif
