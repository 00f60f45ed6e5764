/* SPDX-License-Identifier: Apache-2.0 */
/* Sigmas and solver steps in flow-matching form (spec 7): pure functions over small arrays, no tensors.
 *
 * Conventions: x = alpha * x0 + sigma * noise with alpha = 1 - sigma; the model returns the velocity v = noise - x0, so
 * x0 = x - sigma * v. A solver is a list of linear combinations, which the denoising loop runs on any backend:
 *
 *   v = model(x, timestep[i])
 *   if n_predict:   m2 = m1; m1 = m0; m0 = sum of predict   (over x, v)
 *   if n_correct:   x = sum of correct
 *   if save_sample: saved = x
 *   x = sum of advance
 *
 * Must be compiled with -ffp-contract=off: float32 sigmas are those of the reference. */
#ifndef FK_SCHEDULER_H
#define FK_SCHEDULER_H

#include "config.h"

#include <stdint.h>

typedef enum {
  FK_SCHEDULER_EULER,
  FK_SCHEDULER_DPMPP_2M,
  FK_SCHEDULER_UNIPC,
  FK_SCHEDULER_DEIS,
  FK_SCHEDULER_HEUN,
  FK_SCHEDULERS
} FkSchedulerKind;

/* flow: the shifted ladder, or what the model's own configuration names. The others run between its ends. */
typedef enum { FK_SIGMAS_FLOW, FK_SIGMAS_KARRAS, FK_SIGMAS_EXPONENTIAL, FK_SIGMAS_BETA, FK_SIGMAS_KINDS } FkSigmasKind;

typedef struct {
  FkSchedulerKind kind;
  int steps;
  int evaluations;  /* of the model: steps, or 2 * steps - 1 for Heun */
  float *sigmas;    /* [steps + 1], falling; the last is 0 */
  float *timesteps; /* [evaluations], sigma * num_train_timesteps, not truncated */
} FkSchedule;

typedef enum {
  FK_OPERAND_X,     /* the current sample */
  FK_OPERAND_V,     /* the model's velocity at (x, timestep) */
  FK_OPERAND_SAVED, /* the sample kept by save_sample */
  FK_OPERAND_M0,    /* predictions, newest first */
  FK_OPERAND_M1,
  FK_OPERAND_M2,
  FK_OPERANDS
} FkOperand;

typedef struct {
  FkOperand operand;
  float coef;
} FkTerm;

#define FK_SOLVER_TERMS 4

typedef struct {
  FkTerm predict[FK_SOLVER_TERMS], correct[FK_SOLVER_TERMS], advance[FK_SOLVER_TERMS];
  int n_predict, n_correct, n_advance;
  bool save_sample;
} FkSolverStep;

/* Number of model evaluations of `steps` steps. */
int fk_schedule_evaluations(FkSchedulerKind kind, int steps);

/* The schedule of an edit with `target_tokens` image tokens (they set the dynamic shift). steps >= 1. NULL: out of
 * memory. (transfer full) */
FkSchedule *fk_schedule_build(FkSchedulerKind kind, FkSigmasKind sigmas_kind, int steps, int64_t target_tokens,
                              const FkSchedulerConfig *config);

/* The same solver on given sigmas [steps + 1] and timesteps [evaluations]; both are copied. With the arrays of another
 * implementation it repeats that implementation's trajectory, also where the last sigma is not 0. NULL: out of memory.
 * (transfer full) */
FkSchedule *fk_schedule_build_explicit(FkSchedulerKind kind, int steps, const float *sigmas, const float *timesteps);

void fk_schedule_free(FkSchedule *schedule);

/* Steps left out at the start when an edit begins from the noised picture: int(n - min(n * strength, n)) as diffusers'
 * get_timesteps, and never all of them. strength above 0, at most 1 */
int fk_schedule_left_out(int steps, double strength);
/* What is left of a schedule from its step `first` on. NULL: out of memory. (transfer full) */
FkSchedule *fk_schedule_from(const FkSchedule *schedule, int first);

/* sigma at which evaluation i sees the sample. */
float fk_schedule_sigma(const FkSchedule *schedule, int evaluation);

/* What to do after evaluation i, 0 <= i < evaluations. */
void fk_schedule_step(const FkSchedule *schedule, int evaluation, FkSolverStep *step);

#endif
