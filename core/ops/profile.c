/* SPDX-License-Identifier: Apache-2.0 */
/* Timing of single ops on any backend, by its own events. Recordings (CUDA graphs) must be off while it runs.
 * Not here: which ops there are (ops.c) and what is made of the rows (engine.c). */
#include "profile.h"

#include "print.h"

#include <errno.h>
#include <stdlib.h>

bool fk_profile_start(FkBackend *be) {
  be->profile = calloc(1, sizeof *be->profile);
  if (!be->profile) return false;
  be->profile->stage = "";
  return true;
}

/* Closes the running row: its work is what the totals have grown by. */
static void finish_row(FkBackend *be) {
  struct FkProfile *p = be->profile;
  if (p->count == 0) return;
  FkProfileOp *o = &p->op[p->count - 1];
  o->flop = be->count.linear_flop - p->before.linear_flop + be->count.attention_flop - p->before.attention_flop +
            be->count.conv_flop - p->before.conv_flop;
  o->bytes = be->count.bytes - p->before.bytes;
}

void fk_profile_op(FkBackend *be, const char *op) {
  struct FkProfile *p = be->profile;
  const bool full = p->count >= FK_PROFILE_MAX;
  if (full && p->dropped++ > 0) return;
  finish_row(be);
  p->before = be->count;
  be->ops->event_record(be, FK_LOOP_EVENTS + p->count);
  p->op[p->count++] =
      full ? (FkProfileOp){.stage = "dropped", .op = "dropped"} : (FkProfileOp){.stage = p->stage, .op = op};
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
  finish_row(be);
  be->ops->event_record(be, FK_LOOP_EVENTS + p->count);
  fk_backend_sync(be);
  for (int i = 0; i < p->count && !be->failure; i++)
    p->op[i].ms = be->ops->elapsed_ms(be, FK_LOOP_EVENTS + i, FK_LOOP_EVENTS + i + 1);
  be->profile = NULL;
  return p;
}

/* False: the stream is broken. Names are literals of this library and need no escapes. */
static bool write_row(FILE *f, const FkProfileOp *o, bool first, double at_us) {
  char ts[32], dur[32], gflop[32], mb[32];
  return fprintf(f,
                 "%s\n{\"name\":\"%s\",\"cat\":\"%s\",\"ph\":\"X\",\"pid\":1,\"tid\":1,\"ts\":%s,\"dur\":%s,"
                 "\"args\":{\"m\":%lld,\"n\":%lld,\"k\":%lld,\"gflop\":%s,\"mb\":%s}}",
                 first ? "" : ",", o->op, o->stage, fk_print_number(ts, sizeof ts, at_us, 3),
                 fk_print_number(dur, sizeof dur, o->ms * 1e3, 3), (long long)o->m, (long long)o->n, (long long)o->k,
                 fk_print_number(gflop, sizeof gflop, o->flop / 1e9, 3),
                 fk_print_number(mb, sizeof mb, o->bytes / 1e6, 3)) >= 0;
}

bool fk_profile_write_trace(const struct FkProfile *p, FILE *f) {
  double at = 0; /* microseconds, as the format wants */
  bool ok = fputs("{\"traceEvents\":[", f) >= 0;
  for (int i = 0; ok && i < p->count; i++) {
    ok = write_row(f, &p->op[i], i == 0, at);
    at += p->op[i].ms * 1e3;
  }
  return ok && fprintf(f, "\n],\"displayTimeUnit\":\"ms\",\"otherData\":{\"dropped\":%d}}\n", p->dropped) >= 0;
}
