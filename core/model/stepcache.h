/* SPDX-License-Identifier: Apache-2.0 */
/* Step caches: evaluations whose middle blocks are not run because little has changed (spec 10.1 - 10.3).
 *
 * All of them are one scheme. The blocks are cut in front | middle | back. Front and back always run; when an
 * evaluation is skipped, the middle's effect is taken from earlier ones: hidden += R, R = what the middle added when it
 * last ran, or its Taylor forecast. The policies differ in the signal that decides:
 *
 * clang-format off
 *   first-block, dbcache   what the front added to the target rows, against its value at the last computed evaluation
 *   teacache               block 0's modulated input (front is empty), against the evaluation before; changes add up
 * clang-format on
 *
 * The signal covers the target rows alone: the reference image's are nearly static and would dilute it.
 *
 * Every frame of a batch decides for itself. With true CFG the positive branch decides and the negative one follows,
 * each with its own R, so that guidance never mixes a fresh velocity with a stale one. (The sources decide per branch.)
 * Decisions are a string of 0 and 1 that can be replayed; a replay reads nothing back. */
#ifndef FK_STEPCACHE_H
#define FK_STEPCACHE_H

#include "flux.h"
#include "merge.h"
#include "range.h"
#include "edited.h"

#define FK_FORECAST_ORDER 2 /* at most */
#define FK_FORECAST_COEFS 6 /* columns of a coefficient row, see fk_forecast_coefs */

typedef enum { FK_CACHE_NONE, FK_CACHE_FIRST_BLOCK, FK_CACHE_DBCACHE, FK_CACHE_TEACACHE, FK_CACHES } FkCacheKind;

/* The resolved step-cache settings. */
typedef struct {
  FkCacheKind kind;
  double threshold; /* below 0: the policy's own; as front, warmup and cooldown */
  int front, back, warmup, cooldown;
  int max, last;    /* -1: no limit */
  int growth;       /* of the longest run, from run to run */
  int forecast;     /* order of the Taylor forecast; 0 none */
  const char *mask; /* NULL or "": none */
} FkCacheTune;

/* Fixed for an edit. */
typedef struct {
  FkCacheKind kind;
  int evaluations;
  double threshold;
  int front, back; /* blocks */
  FkFullRange full;
  int max_skipped, max_run; /* in all, and one after the other at first; -1: no limit */
  int growth;               /* of max_run, with every run that has ended */
  int order;                /* of the forecast */
  const char *mask;         /* NULL: decide; (transfer none) */
  double polynomial[5];     /* teacache: coefficients of x^4 .. 1 */
} FkStepPolicy;

/* What one frame remembers. */
typedef struct {
  int skipped, run; /* skipped in all, and since the last computed evaluation */
  int runs;         /* that have ended */
  double sum;       /* teacache: change accumulated since then */
  bool compute;     /* the decision at hand */
  char mask[128];   /* decisions; at most 127 are kept */
} FkStepState;

/* `blocks` of the model. False with FK_ERROR_OPTION_BAD when front and back leave nothing between them. */
bool fk_step_policy_init(FkStepPolicy *policy, const FkCacheTune *tune, int blocks, int evaluations, GError **error);
/* 1: evaluation is to be computed, 0: skipped, whatever has changed; -1: it depends on the change. */
int fk_step_forced(const FkStepPolicy *policy, const FkStepState *state, int evaluation);
/* change = mean|s - s_before| / mean|s_before|; read only where fk_step_forced says -1. Writes and returns
 * state->compute. */
bool fk_step_decide(const FkStepPolicy *policy, FkStepState *state, int evaluation, double change);

/* Values Y(evaluation) known at some evaluations and extrapolated between them (TaylorSeer, spec 10.1):
 * divided differences of the last computed ones as derivatives. */
typedef struct {
  FkTensor term[FK_FORECAST_ORDER + 1]; /* Y, Y', Y'' at evaluation `last`; float32 */
  int order, terms;                     /* terms: how many are known; 0: nothing stored yet */
  int last;
} FkForecast;

/* Coefficients by distance k = 1..evaluations, rows k - 1: {1, 1, k, k^2/2, 1/k, -1/k}. */
FkTensor fk_forecast_coefs(FkBackend *be, FkArena *arena, int evaluations);
/* Y(evaluation) = after - before. */
void fk_forecast_store(FkForecast *f, FkBackend *be, FkTensor coefs, FkTensor after, FkTensor before, int evaluation);
/* y += forecast of Y(evaluation), evaluation > last. */
void fk_forecast_add(const FkForecast *f, FkBackend *be, FkTensor coefs, FkTensor y, int evaluation);

typedef struct FkStepCache FkStepCache;

/* Tensors come from `arena` and go with it. `plan`: nothing is read back and, without a mask, everything computed.
 * (transfer full) */
FkStepCache *fk_stepcache_open(const FkStepPolicy *policy, const FkFluxRun *run, FkArena *arena, int frames,
                               int branches, bool plan);
void fk_stepcache_free(FkStepCache *cache); /* (nullable) */
/* All target rows of a frame whose run has only some of them. */
typedef struct {
  FkFluxRun *run;  /* loaded */
  FkTensor places; /* [target] int32: where each row is among those of the frame's run; 0 where it is not */
} FkStepWhole;

/* fk_flux_forward with the policy: branch 0 of a frame first. True when the middle was computed; then, with `whole`, on
 * its rows: whole->run has the velocity, and what is remembered is of all rows until fk_stepcache_narrow. merge, whole:
 * nullable */
bool fk_stepcache_forward(FkStepCache *cache, FkFluxRun *run, const FkFluxPass *pass, FkMerge *merge,
                          const FkStepWhole *whole, int frame, int branch);
/* From here on this frame's run has only the target rows `rows` [n]: what is remembered becomes that of these; the
 * derivatives are those of `known` [n], where the number of target rows stands for none. Scratch from `arena` is given
 * back. */
void fk_stepcache_narrow(FkStepCache *cache, FkBackend *be, FkArena *arena, int frame, FkTensor rows, FkTensor known);
const FkStepState *fk_stepcache_state(const FkStepCache *cache, int frame);

#endif
