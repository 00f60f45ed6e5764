/* SPDX-License-Identifier: Apache-2.0 */
/* What the server counts, as text for Prometheus. Main thread alone. */
#ifndef METRICS_H
#define METRICS_H

#include "jobs.h"

enum { METRICS_BUCKETS = 11 };

typedef struct {
  guint64 bucket[METRICS_BUCKETS + 1]; /* by upper bound; the last has none */
  double sum;
} Histogram;

typedef enum { METRICS_OPENAI, METRICS_NATIVE, METRICS_FLUX_FIRE, METRICS_BFL, METRICS_A1111, METRICS_APIS } MetricsApi;
typedef enum {
  METRICS_OK,
  METRICS_CLIENT_ERROR,
  METRICS_SERVER_ERROR,
  METRICS_CANCELLED,
  METRICS_TIMEOUT,
  METRICS_RESULTS
} MetricsResult;

typedef struct {
  guint64 jobs[METRICS_APIS][METRICS_RESULTS];
  Histogram duration[METRICS_APIS], queue, stage[4];
  guint64 computed, reused, pixels, wasted, cache_hits, cache_misses;
  guint64 rejected[5];
  double load_s;
} Metrics;

/* What is so at this moment. */
typedef struct {
  const char *version, *backend, *device;
  bool ready;
  guint depth, limit, running;
} MetricsNow;

extern const char *const metrics_api_names[METRICS_APIS]; /* a job's `api` is one of these */
void metrics_job(Metrics *m, const Job *job);
/* The request was refused before it was a job. */
void metrics_rejected(Metrics *m, const Failure *f);
/* (transfer full) */
char *metrics_text(const Metrics *m, const MetricsNow *now);

#endif
