/* SPDX-License-Identifier: Apache-2.0 */
/* From the draft's size to the full one; see draft.h. Not here: the evaluations of both (denoise.c). */
#include "draft.h"

#include "latent.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>

int fk_draft_steps(int steps, int divisor, double share) {
  if (divisor < 2 || steps < 2) return 0;
  const int n = (int)floor(share * steps + 0.5);
  return n < 1 ? 1 : n > steps - 1 ? steps - 1 : n;
}

FkDraftGrid fk_draft_grid(int h, int w, int divisor) {
  return (FkDraftGrid){h, w, (h + divisor - 1) / divisor, (w + divisor - 1) / divisor};
}

/* Latents lie in planes of 2h x 2w here, one for each channel; tokens hold 2x2 of each. */
static float *planes(int channels, int h, int w) {
  return malloc((size_t)channels * (size_t)h * (size_t)w * 4 * sizeof(float));
}

static float *unpacked(const float *tokens, int channels, int h, int w) {
  float *p = planes(channels, h, w);
  if (p) fk_latent_unpack_host(p, tokens, channels, 2 * h, 2 * w);
  return p;
}

/* Small row of a full one; blocks differ by one row where the sizes do not divide. */
static int block(int i, int full, int small) {
  return (int)((long long)i * small / full);
}

/* Rows of the full grid in the block of full row i. */
static int block_size(int i, int full, int small) {
  const int b = block(i, full, small);
  int first = i, last = i;
  while (first > 0 && block(first - 1, full, small) == b) first--;
  while (last + 1 < full && block(last + 1, full, small) == b) last++;
  return last - first + 1;
}

/* to [small] = sum of each block / root of its size, or from [full] += (small value) / root of its size. */
static void shrink_plane(const FkDraftGrid *g, const float *from, float *to) {
  const int h = 2 * g->h, w = 2 * g->w, sh = 2 * g->small_h, sw = 2 * g->small_w;
  for (int i = 0; i < sh * sw; i++) to[i] = 0;
  for (int y = 0; y < h; y++)
    for (int x = 0; x < w; x++) {
      const float size = (float)(block_size(y, h, sh) * block_size(x, w, sw));
      to[block(y, h, sh) * sw + block(x, w, sw)] += from[y * w + x] / sqrtf(size);
    }
}

bool fk_draft_shrink(const FkDraftGrid *g, int channels, const float *noise, float *small) {
  float *full = unpacked(noise, channels, g->h, g->w), *to = planes(channels, g->small_h, g->small_w);
  const bool ok = full && to;
  for (int c = 0; ok && c < channels; c++)
    shrink_plane(g, full + (size_t)c * (size_t)(g->h * g->w) * 4,
                 to + (size_t)c * (size_t)(g->small_h * g->small_w) * 4);
  if (ok) fk_latent_pack_host(small, to, channels, 2 * g->small_h, 2 * g->small_w);
  free(full);
  free(to);
  return ok;
}

/* Where the centre of full row i lies between small rows *low and *low + 1, the last of which is clamped. */
static float between(int i, int full, int small, int *low, int *high) {
  const float at = ((float)i + 0.5f) * (float)small / (float)full - 0.5f, below = floorf(at);
  const int first = (int)below;
  *low = first < 0 ? 0 : first;
  *high = first + 1 > small - 1 ? small - 1 : first + 1;
  return at - below;
}

/* x = (1 - sigma) up(clean) + sigma (x + spread(noise - started)). */
static void lift_plane(const FkDraftGrid *g, const float *clean, const float *noise, const float *started, float sigma,
                       float *x) {
  const int h = 2 * g->h, w = 2 * g->w, sh = 2 * g->small_h, sw = 2 * g->small_w;
  for (int i = 0; i < h; i++) {
    int top, bottom;
    const float v = between(i, h, sh, &top, &bottom);
    for (int k = 0; k < w; k++) {
      int left, right;
      const float u = between(k, w, sw, &left, &right);
      const float a = clean[top * sw + left] * (1 - u) + clean[top * sw + right] * u;
      const float b = clean[bottom * sw + left] * (1 - u) + clean[bottom * sw + right] * u;
      const int at = block(i, h, sh) * sw + block(k, w, sw);
      const float size = (float)(block_size(i, h, sh) * block_size(k, w, sw));
      const float detail = x[i * w + k] + (noise[at] - started[at]) / sqrtf(size);
      x[i * w + k] = (1 - sigma) * (a * (1 - v) + b * v) + sigma * detail;
    }
  }
}

bool fk_draft_lift(const FkDraftGrid *g, int channels, const float *clean, const float *noise, float sigma, float *x) {
  const size_t full = (size_t)(g->h * g->w) * 4, small = (size_t)(g->small_h * g->small_w) * 4;
  float *e = unpacked(x, channels, g->h, g->w), *started = planes(1, g->small_h, g->small_w);
  float *from = unpacked(clean, channels, g->small_h, g->small_w);
  float *drawn = unpacked(noise, channels, g->small_h, g->small_w);
  const bool ok = e && started && from && drawn;
  for (int c = 0; ok && c < channels; c++) {
    float *plane = e + (size_t)c * full;
    shrink_plane(g, plane, started);
    lift_plane(g, from + (size_t)c * small, drawn + (size_t)c * small, started, sigma, plane);
  }
  if (ok) fk_latent_pack_host(x, e, channels, 2 * g->h, 2 * g->w);
  free(e);
  free(started);
  free(from);
  free(drawn);
  return ok;
}
