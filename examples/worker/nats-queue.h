/* SPDX-License-Identifier: Apache-2.0 */
/* The queue of edit jobs on NATS JetStream. One stream for each queue name, on disk, where every job is given out until
 * somebody says that it is finished:
 *
 *   stream FK_<queue>       subjects edit.<queue> and edit.<queue>.<class>, refuses more than max_jobs
 *   consumer any            of edit.<queue>: jobs that any worker may do
 *   consumer <class>        of edit.<queue>.<class>: jobs for machines whose results have equal bytes
 *
 * A job that nobody reports on for NATS_ACK_SECONDS is given to another worker; a thread here reports while the job is
 * worked on. Not here: what a job says (job.c) and what is done with it (worker.c). */
#ifndef NATS_QUEUE_H
#define NATS_QUEUE_H

#include <gio/gio.h>
#include <stdbool.h>
#include <stdint.h>

#define NATS_ACK_SECONDS 30
#define NATS_JOB_BYTES 65536 /* longest message */

typedef struct NatsQueue NatsQueue;
typedef struct NatsJob NatsJob;

typedef enum { NATS_STORED, NATS_DUPLICATE, NATS_FULL } NatsAnswer;

typedef struct {
  const char *url;         /* "nats://host:4222"; several with commas */
  const char *credentials; /* (nullable) a file as `nsc` writes it */
  const char *name;        /* letters, digits, _ and - */
  int64_t max_jobs;        /* of a stream that is made now */
} NatsConfig;

/* Connects and makes the stream where there is none. Lost connections are taken up again by themselves. (transfer
 * full); errors: G_IO_ERROR_INVALID_ARGUMENT, G_IO_ERROR_CONNECTION_REFUSED, G_IO_ERROR_FAILED */
NatsQueue *nats_queue_open(const NatsConfig *config, GError **error);
void nats_queue_close(NatsQueue *queue); /* (nullable) */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(NatsQueue, nats_queue_close)

/* "0123456789ab": a determinism class (fk_manifest's "class") as part of a subject. (transfer full) */
char *nats_queue_class(const char *class);
/* id: jobs of one id within two minutes are one job. class: nats_queue_class, or NULL for any worker. */
bool nats_queue_submit(NatsQueue *queue, const char *id, const char *class, const char *text, NatsAnswer *answer,
                       GError **error);
/* Jobs that nobody has finished, those that are being worked on included. */
bool nats_queue_depth(NatsQueue *queue, uint64_t *waiting, GError **error);

/* From now on nats_queue_next also takes the jobs of this class. */
bool nats_queue_take_class(NatsQueue *queue, const char *class, GError **error);
/* The next job, or NULL without an error after wait_ms without one. Only one job at a time. (transfer full) */
NatsJob *nats_queue_next(NatsQueue *queue, int wait_ms, GError **error);
const char *nats_job_text(const NatsJob *job); /* NUL-terminated; may hold anything */
size_t nats_job_bytes(const NatsJob *job);
int nats_job_deliveries(const NatsJob *job); /* 1: the first time */

/* Each ends the job and frees it. */
/* Finished: nobody else gets it. False: the server does not say so; it may be given out again. */
bool nats_job_finish(NatsJob *job);
/* Given out again after seconds; as often as anybody asks for it. */
void nats_job_retry(NatsJob *job, int seconds);
/* Never given out again. */
void nats_job_drop(NatsJob *job);

#endif
