/* SPDX-License-Identifier: Apache-2.0 */
/* What the loop does to the latents beside the solver: beginning from the noised picture (`strength`), and keeping what
 * lies outside a mask, as diffusers' FluxKontextInpaintPipeline. With x0 the picture's own latents and e the edit's
 * noise:
 *
 *   begin:                x = sigma e + (1 - sigma) x0, sigma of the first evaluation
 *   after evaluation i:   x = (1 - m) (sigma' e + (1 - sigma') x0) + m x, sigma' of evaluation i + 1, 0 after the last
 */
#ifndef FK_BLEND_H
#define FK_BLEND_H

#include "denoise.h"
#include "scheduler.h"

typedef struct FkBlend FkBlend;

/* Before the first evaluation, while the frames' latents are noise. start: begin from the noised picture. Tensors come
 * from the edit's arena and go with it. NULL where there is nothing to do; (transfer full) */
FkBlend *fk_blend_open(const FkEdit *edit, const FkDenoiseFrame *frames, const FkSchedule *schedule, bool start);
void fk_blend_free(FkBlend *blend); /* (nullable) */
/* After the solver's step of evaluation i. */
void fk_blend_step(const FkBlend *blend, int frame, int evaluation);

#endif
