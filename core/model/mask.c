/* SPDX-License-Identifier: Apache-2.0 */
/* Growing, fading, boxes and tokens of masks; see mask.h. Not here: where a mask comes from (extras.c), what the loop
 * does with it (blend.c). */
#include "mask.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static int least(int a, int b) {
  return a < b ? a : b;
}

static int most(int a, int b) {
  return a > b ? a : b;
}

/* ---- One line at a time: `n` values `step` apart, windows of 2 r + 1, the ends repeated ---- */

/* Extremes by van Herk's method: within blocks of the window's length, running from both ends; what a window needs is
 * one value of each. sign 1: largest, -1: smallest. */
typedef struct {
  uint8_t *line, *forward, *backward; /* [n + 2 r] each */
} Buffers;

static uint8_t extreme(uint8_t a, uint8_t b, int sign) {
  return (a > b) == (sign > 0) ? a : b;
}

static void line_extreme(uint8_t *values, size_t step, int n, int r, int sign, const Buffers *b) {
  const int window = 2 * r + 1, all = n + 2 * r;
  for (int i = 0; i < all; i++) b->line[i] = values[(size_t)most(0, least(n - 1, i - r)) * step];
  for (int i = 0; i < all; i++) b->forward[i] = i % window ? extreme(b->forward[i - 1], b->line[i], sign) : b->line[i];
  for (int i = all - 1; i >= 0; i--)
    b->backward[i] = i == all - 1 || (i + 1) % window == 0 ? b->line[i] : extreme(b->backward[i + 1], b->line[i], sign);
  for (int i = 0; i < n; i++) values[(size_t)i * step] = extreme(b->backward[i], b->forward[i + window - 1], sign);
}

/* Means, nearest, halves up. */
static void line_mean(uint8_t *values, size_t step, int n, int r, uint8_t *line) {
  const int window = 2 * r + 1;
  int64_t sum = 0;
  for (int i = 0; i < n; i++) line[i] = values[(size_t)i * step];
  for (int k = -r; k <= r; k++) sum += line[most(0, least(n - 1, k))];
  for (int i = 0; i < n; i++) {
    values[(size_t)i * step] = (uint8_t)((2 * sum + window) / (2 * window));
    sum += line[least(n - 1, i + r + 1)] - line[most(0, i - r)];
  }
}

/* Rows, then columns. */
static bool extremes(uint8_t *mask, int w, int h, int r, int sign) {
  const size_t n = (size_t)most(w, h) + 2 * (size_t)r;
  uint8_t *memory = malloc(3 * n);
  if (!memory) return false;
  const Buffers b = {memory, memory + n, memory + 2 * n};
  for (int y = 0; y < h; y++) line_extreme(mask + (size_t)y * (size_t)w, 1, w, r, sign, &b);
  for (int x = 0; x < w; x++) line_extreme(mask + x, (size_t)w, h, r, sign, &b);
  free(memory);
  return true;
}

bool fk_mask_dilate(uint8_t *mask, int w, int h, int radius) {
  return radius == 0 || extremes(mask, w, h, radius, 1);
}

/* Shrunk by half the width and averaged over it: the mean's window reaches back to the mask's edge and not across. */
bool fk_mask_feather(uint8_t *fade, const uint8_t *mask, int w, int h, int width) {
  const int r = (width + 1) / 2;
  memcpy(fade, mask, (size_t)w * (size_t)h);
  if (r == 0) return true;
  uint8_t *line = malloc((size_t)most(w, h));
  const bool ok = line && extremes(fade, w, h, r, -1);
  for (int y = 0; ok && y < h; y++) line_mean(fade + (size_t)y * (size_t)w, 1, w, r, line);
  for (int x = 0; ok && x < w; x++) line_mean(fade + x, (size_t)w, h, r, line);
  free(line);
  return ok;
}

/* ---- Boxes ---- */

FkMaskBox fk_mask_box(const uint8_t *mask, int w, int h) {
  int left = w, right = -1, top = h, bottom = -1;
  for (int y = 0; y < h; y++) {
    const uint8_t *row = mask + (size_t)y * (size_t)w;
    int first = 0, last = w - 1;
    while (first < w && !row[first]) first++;
    if (first == w) continue;
    while (!row[last]) last--;
    left = least(left, first);
    right = most(right, last);
    top = least(top, y);
    bottom = y;
  }
  return right < 0 ? (FkMaskBox){0} : (FkMaskBox){left, top, right - left + 1, bottom - top + 1};
}

/* A side of `length` from `at`, made `want` long around its middle inside 0..limit. */
static void widen(int *at, int *length, int want, int limit) {
  want = least(most(want, *length), limit);
  *at = most(0, least(limit - want, *at - (want - *length) / 2));
  *length = want;
}

FkMaskBox fk_mask_surround(FkMaskBox b, int w, int h) {
  const int margin = most(32, most(b.w, b.h) / 4);
  const int right = least(w, b.x + b.w + margin), bottom = least(h, b.y + b.h + margin);
  b.x = most(0, b.x - margin);
  b.y = most(0, b.y - margin);
  b.w = right - b.x;
  b.h = bottom - b.y;
  return b;
}

FkMaskBox fk_mask_stretch(FkMaskBox b, int aspect_w, int aspect_h, int w, int h) {
  const int64_t wide = ((int64_t)b.h * aspect_w + aspect_h / 2) / aspect_h;
  const int64_t high = ((int64_t)b.w * aspect_h + aspect_w / 2) / aspect_w;
  if (wide > b.w)
    widen(&b.x, &b.w, (int)(wide < w ? wide : w), w);
  else
    widen(&b.y, &b.h, (int)(high < h ? high : h), h);
  return b;
}

/* ---- Latents and pixels ---- */

void fk_mask_tokens(float *tokens, const uint8_t *mask, int w, int h, int channels) {
  assert(w % 16 == 0 && h % 16 == 0);
  for (int y = 0; y < h / 8; y++)
    for (int x = 0; x < w / 8; x++) {
      const float value = mask[(size_t)y * 8 * (size_t)w + (size_t)x * 8] >= 128 ? 1.0f : 0.0f;
      float *token = tokens + ((size_t)(y / 2) * (size_t)(w / 16) + (size_t)(x / 2)) * (size_t)channels * 4;
      for (int c = 0; c < channels; c++) token[c * 4 + y % 2 * 2 + x % 2] = value;
    }
}

void fk_mask_mix(uint8_t *to, const uint8_t *from, const uint8_t *fade, int w, int channels) {
  for (int x = 0; x < w; x++, to += channels, from += channels)
    for (int c = 0; c < channels; c++)
      to[c] = (uint8_t)((2 * (fade[x] * to[c] + (255 - fade[x]) * from[c]) + 255) / 510);
}
