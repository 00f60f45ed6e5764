/* SPDX-License-Identifier: Apache-2.0 */
/* The draft: the first steps of an edit on a picture whose sides are N times shorter, then on at full size.
 *
 * With x = (1 - sigma) x0 + sigma noise (rectified flow: Liu et al. 2022, "Flow Straight and Fast"; Esser et al. 2024,
 * section 2) a velocity v = noise - x0 gives both ends of the straight line through x:
 *
 *   x0 = x - sigma v,  noise = x + (1 - sigma) v
 *
 * so the draft's last evaluation says what the picture is going to be and which noise it comes from. At full size the
 * line is the same with a larger picture and more noise:
 *
 *   x' = (1 - sigma') up(x0) + sigma' (e + spread(noise - shrink(e)))
 *
 * e: the edit's own noise, from its seed. shrink: the sum of each block of the full grid over the root of its size,
 * which is standard normal again; the draft starts from shrink(e), so that both sizes see one large-scale noise.
 * spread: back into the block, over the root of its size; it puts the draft's own noise in the place of shrink(e) and
 * leaves the detail of e, so x' is distributed as the flow's state at sigma'. up: linear between the centres of the
 * small grid. sigma and sigma' are of one step in two schedules: time is shifted by each size's own number of tokens
 * (spec 7.1).
 *
 * Host arrays of tokens; libc and libm only, fixed order of sums: bytes follow from the seed alone. */
#ifndef FK_DRAFT_H
#define FK_DRAFT_H

#include <stdbool.h>

/* Steps that run as a draft: 0 where divisor is below 2 or there is only one step; one step at least stays. */
int fk_draft_steps(int steps, int divisor, double share);

/* Tokens of both sizes. */
typedef struct {
  int h, w, small_h, small_w;
} FkDraftGrid;

FkDraftGrid fk_draft_grid(int h, int w, int divisor);

/* shrink(e): small [small_h small_w, 4 channels] of noise [h w, 4 channels]. False: no memory. */
bool fk_draft_shrink(const FkDraftGrid *grid, int channels, const float *noise, float *small);
/* x [h w, 4 channels] holds e on entry and x' on return. clean, noise [small_h small_w, 4 channels]: both ends of the
 * draft's line. False: no memory. */
bool fk_draft_lift(const FkDraftGrid *grid, int channels, const float *clean, const float *noise, float sigma,
                   float *x);

#endif
