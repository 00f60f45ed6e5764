/* SPDX-License-Identifier: Apache-2.0 */
/* Masks as pixels: 8-bit rows without gaps, 255 is edited, 0 kept. libc only; all results are integers of fixed order.
 *
 * The latents' mask is that of diffusers' FluxKontextInpaintPipeline: the mask at the model's size, 1 from 128 on, and
 * of each 8 x 8 pixels the first. */
#ifndef FK_MASK_H
#define FK_MASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
  int x, y, w, h; /* w 0: nothing */
} FkMaskBox;

/* Grows what is edited by `radius` pixels on each side (the largest value of a square). False: no memory. */
bool fk_mask_dilate(uint8_t *mask, int w, int h, int radius);
/* fade: the mask with an edge that rises from 0 over `width` pixels inside, so that what is kept stays kept. False: no
 * memory. */
bool fk_mask_feather(uint8_t *fade, const uint8_t *mask, int w, int h, int width);
/* Around all that is not 0. */
FkMaskBox fk_mask_box(const uint8_t *mask, int w, int h);
/* `box` with surroundings (a quarter of its longer side, at least 32 pixels, on each side), made longer to the aspect
 * of aspect_w : aspect_h as far as a frame of w x h has room. */
FkMaskBox fk_mask_surround(FkMaskBox box, int w, int h);
FkMaskBox fk_mask_stretch(FkMaskBox box, int aspect_w, int aspect_h, int w, int h);
/* tokens [(h/16)(w/16), 4 channels], 0 or 1, of a mask at the model's size; w, h multiples of 16. */
void fk_mask_tokens(float *tokens, const uint8_t *mask, int w, int h, int channels);
/* to = the share fade/255 of `to`, the rest of `from`; nearest, halves up. Where fade is 0 it is `from` exactly. Rows
 * of w pixels with `channels` interleaved values. */
void fk_mask_mix(uint8_t *to, const uint8_t *from, const uint8_t *fade, int w, int channels);

#endif
