/* SPDX-License-Identifier: Apache-2.0 */
/* Timing of single ops on any backend, by its own events. Recordings (CUDA graphs) must be off while it runs.
 * Not here: which ops there are (ops.c) and what is done with the rows (engine-profile.c). */
#include "profile.h"

#include <stdio.h>
#include <stdlib.h>

bool fk_profile_start(FkBackend *be) {
  be->profile = calloc(1, sizeof *be->profile);
  if (!be->profile) return false;
  be->profile->stage = "";
  return true;
}

/* Closes the running op: its work is what the totals have grown by. */
static void finish_op(FkBackend *be) {
  struct FkProfile *p = be->profile;
  if (p->count == 0) return;
  FkProfileOp *o = &p->op[p->count - 1];
  o->flop = be->count.linear_flop - p->before.linear_flop + be->count.attention_flop - p->before.attention_flop +
            be->count.conv_flop - p->before.conv_flop;
  o->bytes = be->count.bytes - p->before.bytes;
}

void fk_profile_op(FkBackend *be, const char *op) {
  struct FkProfile *p = be->profile;
  if (p->count == FK_PROFILE_MAX) {
    p->dropped++;
    return;
  }
  finish_op(be);
  p->before = be->count;
  be->ops->event_record(be, FK_LOOP_EVENTS + p->count);
  p->op[p->count++] = (FkProfileOp){.stage = p->stage, .op = op};
}

void fk_profile_sizes(FkBackend *be, int64_t m, int64_t n, int64_t k) {
  struct FkProfile *p = be->profile;
  if (!p || p->count == 0 || p->dropped) return;
  FkProfileOp *o = &p->op[p->count - 1];
  o->m = m;
  o->n = n;
  o->k = k;
}

struct FkProfile *fk_profile_stop(FkBackend *be) {
  struct FkProfile *p = be->profile;
  finish_op(be);
  be->ops->event_record(be, FK_LOOP_EVENTS + p->count);
  fk_backend_sync(be);
  for (int i = 0; i < p->count && !be->failure; i++)
    p->op[i].ms = be->ops->elapsed_ms(be, FK_LOOP_EVENTS + i, FK_LOOP_EVENTS + i + 1);
  be->profile = NULL;
  return p;
}

bool fk_profile_write_trace(const struct FkProfile *p, const char *path) {
  FILE *f = fopen(path, "w");
  if (!f) return false;
  double at = 0; /* microseconds, as the format wants */
  fputs("{\"traceEvents\":[", f);
  for (int i = 0; i < p->count; i++) {
    const FkProfileOp *o = &p->op[i];
    fprintf(f,
            "%s\n{\"name\":\"%s\",\"cat\":\"%s\",\"ph\":\"X\",\"pid\":1,\"tid\":1,\"ts\":%.3f,\"dur\":%.3f,"
            "\"args\":{\"m\":%lld,\"n\":%lld,\"k\":%lld,\"gflop\":%.3f,\"mb\":%.3f}}",
            i ? "," : "", o->op, o->stage, at, o->ms * 1e3, (long long)o->m, (long long)o->n, (long long)o->k,
            o->flop / 1e9, o->bytes / 1e6);
    at += o->ms * 1e3;
  }
  fprintf(f, "\n],\"displayTimeUnit\":\"ms\",\"otherData\":{\"dropped\":%d}}\n", p->dropped);
  return fclose(f) == 0;
}
