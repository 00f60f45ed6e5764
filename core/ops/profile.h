/* SPDX-License-Identifier: Apache-2.0 */
/* Times of single ops: one event before each op, so an op's time runs to the start of the next. libc only. */
#ifndef FK_OP_PROFILE_H
#define FK_OP_PROFILE_H

#include "backend.h"

#include <stdio.h>

/* One event for each row and one behind the last. The last row is for ops that have none of their own. */
#define FK_PROFILE_ROWS (FK_EVENTS - FK_LOOP_EVENTS - 1)
#define FK_PROFILE_MAX (FK_PROFILE_ROWS - 1)

typedef struct {
  const char *stage, *op; /* literals */
  int64_t m, n, k;        /* sizes of a product or attention (rows, columns or keys, inner or head width); 0: none */
  double ms, flop, bytes;
} FkProfileOp;

struct FkProfile {
  const char *stage;
  int count;      /* rows */
  int dropped;    /* ops past FK_PROFILE_MAX: their time and work are one row, of stage and op "dropped" */
  FkCount before; /* totals when the running row began */
  FkProfileOp op[FK_PROFILE_ROWS];
};

/* Starts profiling: be->profile is set. False: no memory. */
bool fk_profile_start(FkBackend *be);
/* Called by ops.c when an op begins. */
void fk_profile_op(FkBackend *be, const char *op);
void fk_profile_sizes(FkBackend *be, int64_t m, int64_t n, int64_t k);
/* Waits, fills the times in, and hands the profile over (transfer full: free); be->profile is NULL again. */
struct FkProfile *fk_profile_stop(FkBackend *be);
/* Chrome trace (chrome://tracing, Perfetto): one event a row, in order. False: not all of it could be written. */
bool fk_profile_write_trace(const struct FkProfile *profile, FILE *to);

#endif
