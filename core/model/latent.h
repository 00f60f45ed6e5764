/* SPDX-License-Identifier: Apache-2.0 */
/* Latents as tokens: packing, positions as rotary tables, and the scalars the model sees (spec 6.1 - 6.3).
 * Host memory, libc and libm only; the op line has the same packing for backend memory (pack, unpack). */
#ifndef FK_LATENT_H
#define FK_LATENT_H

#include <stdbool.h>

/* Length of the sinusoidal embedding of timestep and guidance. */
#define FK_SINUSOID 256

/* tokens [(h/2)(w/2), channels*4] from chw [channels, h, w]; h, w even; column c*4 + py*2 + px holds c, 2y+py, 2x+px.
 */
void fk_latent_pack_host(float *tokens, const float *chw, int channels, int h, int w);
void fk_latent_unpack_host(float *chw, const float *tokens, int channels, int h, int w);

/* out [text + h2*w2 + ch2*cw2, E], E = axes[0] + axes[1] + axes[2], each even: for every head channel pair its (cos,
 * sin). Rows: text at position (0,0,0), target tokens (0,y,x), context tokens (1,y,x); ch2 = cw2 = 0: no context. */
void fk_rope_table(float *out, int text, int h2, int w2, int ch2, int cw2, const int axes[3], double theta);

/* Where a grid of tokens stands: position (index, y + row, x + column). */
typedef struct {
  int index, y, x;
} FkPlace;

/* out [h*w, E] as fk_rope_table. */
void fk_rope_grid(float *out, FkPlace place, int h, int w, const int axes[3], double theta);

/* Places of n context pictures of rows[i] x columns[i] tokens, the first at (1, 0, 0). apart: an index for each. Else
 * ("offset", as ComfyUI's model and what the released weights take): all have index 1, and each stands below or to the
 * right of those before, where the square around all grows less. */
void fk_latent_places(FkPlace *places, const int *rows, const int *columns, int n, bool apart);

/* out [FK_SINUSOID] = cosines, then sines, of t * 10000^(-i/128). */
void fk_sinusoid(float *out, float t);

/* What reaches the sinusoid for a scheduler timestep (sigma * 1000) and for a guidance scale. bf16: with the roundings
 * of a reference whose modules run in bfloat16; otherwise those of float32. */
float fk_timestep_seen(float timestep, bool bf16);
float fk_guidance_seen(float guidance, bool bf16);

#endif
