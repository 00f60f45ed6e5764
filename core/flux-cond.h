/* SPDX-License-Identifier: Apache-2.0 */
/* Between flux.c and flux-cond.c: where a block's modulation lies, and making one evaluation current. */
#ifndef FK_FLUX_COND_H
#define FK_FLUX_COND_H

#include "flux.h"

/* Offset of block i's modulation in FkFluxRun.mod; double blocks image then text; i = blocks: norm_out. */
int64_t fk_flux_mod_offset(const FkFlux *flux, int block);
/* Makes sure that evaluation i's modulation is at hand; computes the next ones when those at hand are used up. */
void fk_flux_modulate(const FkFluxRun *run, FkFluxCond *cond, int evaluation);
/* Copies evaluation i's modulation and the branch's text rows into the run's buffers. Outside any recording: it
 * is what differs from step to step. */
void fk_flux_load(FkFluxRun *run, FkFluxCond *cond, int evaluation);

#endif
