/* SPDX-License-Identifier: Apache-2.0 */
/* Token merging: a middle stretch of blocks runs on fewer image tokens (bipartite soft matching, spec 10.4).
 *
 * Each grid (target, context, every picture beside it) is matched alone: their positions overlap, and a mixture of both
 * means nothing. One destination per 2x2 cell, its top-left token; all others are sources. A source's best destination
 * is that of the largest cosine of their normalised hidden rows; the best `ratio` of all tokens are merged, ties by
 * index. A group is the mean of its tokens and keeps the destination's position. On leaving, every token gets what its
 * group has gained, x + (out - in): its own detail stays, and a token that was alone comes out exactly as its row did.
 * Text is never merged. Only single blocks run merged, without the last tenth of the model: on the demo model merged
 * double blocks cost ten times their saving. */
#ifndef FK_MERGE_H
#define FK_MERGE_H

#include "flux.h"

#define FK_MERGE_PARTS 3 /* pieces that fk_merge_run_blocks records */

/* Which tokens of an h x w grid go together; sizes follow from h, w and ratio alone. */
typedef struct {
  int tokens, kept, sources, destinations;
  int32_t *source, *destination; /* [sources], [destinations]: tokens, rising */
  int32_t *first, *index;        /* groups: tokens index[first[g]] .. index[first[g + 1]] - 1, the owner first */
  int32_t *owner;                /* [kept]: token whose position the group keeps, rising */
  int32_t *group;                /* [tokens]: the group of each token */
} FkMergePlan;

/* ratio: of all tokens to merge away, 0 to 0.75. */
void fk_merge_plan_init(FkMergePlan *plan, int h, int w, double ratio);
void fk_merge_plan_clear(FkMergePlan *plan);
/* best [sources]: index into destination; score [sources]. Fills first, index, owner, group. */
void fk_merge_plan_match(FkMergePlan *plan, const int32_t *best, const float *score);

typedef struct FkMerge FkMerge;

/* Tensors come from `arena` and go with it. `plan`: matches are not read back. (transfer full) */
FkMerge *fk_merge_open(const FkFluxRun *run, const FkFluxShape *shape, double ratio, FkArena *arena, bool plan);
void fk_merge_free(FkMerge *merge); /* (nullable) */
/* fk_flux_run_blocks as parts part .. part + FK_MERGE_PARTS - 1, with the tokens merged where that is allowed.
 * merge NULL: nowhere. The pass may not reuse the context. */
void fk_merge_run_blocks(FkMerge *merge, FkFluxRun *run, const FkFluxPass *pass, int part, int first, int last);
/* fk_flux_forward with merging. */
void fk_merge_forward(FkMerge *merge, FkFluxRun *run, const FkFluxPass *pass);

#endif
