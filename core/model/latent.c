/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens and their positions (stop "tokens" of an edit). Noise is drawn elsewhere (random.c); scaling by the VAE's
 * factors is the op line's. */
#include "latent.h"

#include "number.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Offset of element (c, y, x) of a [channels, h, w] latent in its tokens. */
static size_t token_offset(int channels, int w, int c, int y, int x) {
  size_t token = (size_t)(y / 2) * (size_t)(w / 2) + (size_t)(x / 2);
  return token * (size_t)channels * 4 + (size_t)(c * 4 + y % 2 * 2 + x % 2);
}

void fk_latent_pack_host(float *tokens, const float *chw, int channels, int h, int w) {
  assert(channels > 0 && h > 0 && w > 0 && h % 2 == 0 && w % 2 == 0);
  for (int c = 0; c < channels; c++) {
    for (int y = 0; y < h; y++) {
      for (int x = 0; x < w; x++) tokens[token_offset(channels, w, c, y, x)] = *chw++;
    }
  }
}

void fk_latent_unpack_host(float *chw, const float *tokens, int channels, int h, int w) {
  assert(channels > 0 && h > 0 && w > 0 && h % 2 == 0 && w % 2 == 0);
  for (int c = 0; c < channels; c++) {
    for (int y = 0; y < h; y++) {
      for (int x = 0; x < w; x++) *chw++ = tokens[token_offset(channels, w, c, y, x)];
    }
  }
}

/* `width` floats of one axis: (cos, sin) of position * theta^(-2i/width); double, then rounded once. */
static void rope_axis(float *out, int width, int position, double theta) {
  for (int i = 0; i < width / 2; i++) {
    double angle = position * (1.0 / pow(theta, 2.0 * i / width));
    out[2 * i] = (float)cos(angle);
    out[2 * i + 1] = (float)sin(angle);
  }
}

/* An axis' part is the same for all rows that share its position: computed once, copied. */
void fk_rope_grid(float *out, FkPlace at, int h, int w, const int axes[3], double theta) {
  const size_t row = (size_t)axes[0] + (size_t)axes[1] + (size_t)axes[2];
  const size_t y_at = (size_t)axes[0], x_at = y_at + (size_t)axes[1];
  for (int y = 0; y < h; y++) {
    float *line = out + (size_t)y * (size_t)w * row;
    for (int x = 0; x < w; x++) {
      float *to = line + (size_t)x * row;
      if (x == 0) {
        rope_axis(to, axes[0], at.index, theta);
        rope_axis(to + y_at, axes[1], at.y + y, theta);
      } else {
        memcpy(to, line, x_at * sizeof *to);
      }
      if (y == 0)
        rope_axis(to + x_at, axes[2], at.x + x, theta);
      else
        memcpy(to + x_at, out + (size_t)x * row + x_at, (size_t)axes[2] * sizeof *to);
    }
  }
}

void fk_rope_table(float *out, int text, int h2, int w2, int ch2, int cw2, const int axes[3], double theta) {
  const size_t row = (size_t)axes[0] + (size_t)axes[1] + (size_t)axes[2];
  assert(text >= 0 && axes[0] % 2 == 0 && axes[1] % 2 == 0 && axes[2] % 2 == 0);
  for (int t = 0; t < text; t++) fk_rope_grid(out + (size_t)t * row, (FkPlace){0, 0, 0}, 1, 1, axes, theta);
  out += (size_t)text * row;
  fk_rope_grid(out, (FkPlace){0, 0, 0}, h2, w2, axes, theta);
  out += (size_t)h2 * (size_t)w2 * row;
  fk_rope_grid(out, (FkPlace){1, 0, 0}, ch2, cw2, axes, theta);
}

void fk_latent_places(FkPlace *places, const int *rows, const int *columns, int n, bool apart) {
  int h = 0, w = 0; /* of all so far */
  for (int i = 0; i < n; i++) {
    const bool right = !apart && rows[i] + h > columns[i] + w;
    const FkPlace at = {apart ? i + 1 : 1, !apart && !right ? h : 0, right ? w : 0};
    if (at.y + rows[i] > h) h = at.y + rows[i];
    if (at.x + columns[i] > w) w = at.x + columns[i];
    places[i] = at;
  }
}

void fk_sinusoid(float *out, float t) {
  const int half = FK_SINUSOID / 2;
  for (int i = 0; i < half; i++) {
    float exponent = -9.210340371976184f * (float)i / (float)half; /* -ln 10000; product and quotient in float32 */
    float angle = t * (float)exp((double)exponent);
    out[i] = (float)cos((double)angle);
    out[half + i] = (float)sin((double)angle);
  }
}

static float round_bf16(float x) {
  return fk_bf16_to_f32(fk_f32_to_bf16(x));
}

float fk_timestep_seen(float timestep, bool bf16) {
  if (!bf16) return timestep / 1000.0f * 1000.0f; /* the pipeline divides, the model multiplies */
  float t = round_bf16(round_bf16(timestep) / 1000.0f);
  return round_bf16(t * 1000.0f);
}

float fk_guidance_seen(float guidance, bool bf16) {
  return bf16 ? round_bf16(round_bf16(guidance) * 1000.0f) : guidance * 1000.0f;
}
