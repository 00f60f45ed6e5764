/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of fluxkontext-bench: whole edits, ops against their floors, switches. Tables go to standard output, the
 * same numbers to the JSON. */
#ifndef BENCH_H
#define BENCH_H

#include "json.h"

#include <fk.h>

/* Medians in ms; step: one evaluation. */
typedef struct {
  double load, text, encode, step, decode, edit;
  FkResult result; /* of the last run */
} BenchTimes;

typedef struct {
  FkEngine *engine;
  FkSettings *settings;
  int width, height, runs;
  double tflops, tbs;   /* what floors are taken from; 0: no floors */
  const char *measured; /* where these come from */
  Json *json;
} Bench;

/* One edit that is not counted, then `runs` edits of made-up pixels. */
bool bench_edits(const Bench *b, BenchTimes *out, GError **error);
void bench_print_times(const char *label, const BenchTimes *t);

/* A profiled edit: its ops by time, and their sums by stage and kind. */
typedef struct {
  FkProfileRow *rows;
  size_t count;
  GArray *groups;
} BenchOps;

bool bench_ops_run(const Bench *b, BenchOps *ops, GError **error);
void bench_ops_clear(BenchOps *ops);
/* Bars of the stages, and of groups and ops where there are any, as a PNG. */
bool bench_plot(const char *path, const char *title, const Bench *b, const BenchTimes *t, const BenchOps *ops,
                GError **error);

/* Every optimization alone, the presets, and a prompt met before. */
bool bench_switches(const Bench *b, GError **error);

#endif
