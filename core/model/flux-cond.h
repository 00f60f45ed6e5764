/* SPDX-License-Identifier: Apache-2.0 */
/* Conditioning of the transformer: time, guidance and pooled text become the modulation of every evaluation. */
#ifndef FK_FLUX_COND_H
#define FK_FLUX_COND_H

#include "flux.h"

/* Conditioning of one branch (positive or negative prompt) for all evaluations of an edit. */
typedef struct {
  FkTensor text; /* [T, D]: context_embedder's output */
  FkTensor temb; /* [evaluations, D]: silu of the conditioning vector */
  FkTensor mod;  /* [up to 32, mod_total] float32: modulations of evaluations first..first+rows */
  int first, rows;
} FkFluxCond;

/* text_states [T, joint width], pooled [1, pooled width]; t [n] and guidance as the model sees them (times 1000). */
void fk_flux_condition(const FkFluxRun *run, FkArena *arena, FkFluxCond *cond, FkTensor text_states, FkTensor pooled,
                       const float *t, int n, float guidance);

/* Makes sure that evaluation i's modulation is at hand; computes the next ones when those at hand are used up. */
void fk_flux_modulate(const FkFluxRun *run, FkFluxCond *cond, int evaluation);
/* Copies evaluation i's modulation and the branch's text rows into the run's buffers. Outside any recording: it
 * is what differs from step to step. */
void fk_flux_load(FkFluxRun *run, FkFluxCond *cond, int evaluation);

#endif
