/* SPDX-License-Identifier: Apache-2.0 */
/* What codes and blocks mean; see blocks.h. A block's arithmetic is float32 in the order in which ggml writes it (scale
 * of the block times scale of the sub-block, times the code, minus the minimum): each product and sum is rounded, and
 * the results are the gguf package's bit for bit. Everything is little-endian. */
#include "blocks.h"

#include "backend.h"
#include "number.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3", "fp-contract=off")
#endif
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

static float half_at(const uint8_t *b) {
  return fk_f16_to_f32((uint16_t)(b[0] | b[1] << 8));
}

static uint32_t word_at(const uint8_t *b) {
  return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

/* ---- One number at a time ---- */

static void expand_f32(float *to, const uint8_t *from, int64_t n) {
  for (int64_t i = 0; i < n; i++) to[i] = fk_bits_float(word_at(from + 4 * i));
}

static void expand_f16(float *to, const uint8_t *from, int64_t n) {
  for (int64_t i = 0; i < n; i++) to[i] = half_at(from + 2 * i);
}

static void expand_bf16(float *to, const uint8_t *from, int64_t n) {
  for (int64_t i = 0; i < n; i++) to[i] = fk_bits_float((uint32_t)from[2 * i] << 16 | (uint32_t)from[2 * i + 1] << 24);
}

static void expand_e4m3(float *to, const uint8_t *from, int64_t n) {
  for (int64_t i = 0; i < n; i++) to[i] = fk_e4m3_to_f32(from[i]);
}

/* Five exponent bits as in a half, whose upper byte it is. */
static void expand_e5m2(float *to, const uint8_t *from, int64_t n) {
  for (int64_t i = 0; i < n; i++) to[i] = fk_f16_to_f32((uint16_t)(from[i] << 8));
}

static void expand_i8(float *to, const uint8_t *from, int64_t n) {
  for (int64_t i = 0; i < n; i++) to[i] = (float)(int8_t)from[i];
}

/* Two in a byte, the first in its upper half. */
static void expand_e2m1(float *to, const uint8_t *from, int64_t pairs) {
  static const float e2m1[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                 -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
  for (int64_t i = 0; i < pairs; i++) {
    to[2 * i] = e2m1[from[i] >> 4];
    to[2 * i + 1] = e2m1[from[i] & 15];
  }
}

/* ---- Blocks of 32 ---- */

static void expand_q4_0(float *y, const uint8_t *b, int64_t blocks) {
  for (; blocks--; b += 18, y += 32) {
    const float d = half_at(b);
    for (int j = 0; j < 16; j++) {
      y[j] = d * (float)((b[2 + j] & 15) - 8);
      y[j + 16] = d * (float)((b[2 + j] >> 4) - 8);
    }
  }
}

static void expand_q4_1(float *y, const uint8_t *b, int64_t blocks) {
  for (; blocks--; b += 20, y += 32) {
    const float d = half_at(b), m = half_at(b + 2);
    for (int j = 0; j < 16; j++) {
      y[j] = d * (float)(b[4 + j] & 15) + m;
      y[j + 16] = d * (float)(b[4 + j] >> 4) + m;
    }
  }
}

/* The code of value j: four bits of a byte, and the fifth of the word `high`. */
static int five(const uint8_t *qs, uint32_t high, int j) {
  return (j < 16 ? qs[j] & 15 : qs[j - 16] >> 4) | (int)(high >> j & 1) << 4;
}

static void expand_q5_0(float *y, const uint8_t *b, int64_t blocks) {
  for (; blocks--; b += 22, y += 32) {
    const float d = half_at(b);
    for (int j = 0; j < 32; j++) y[j] = d * (float)(five(b + 6, word_at(b + 2), j) - 16);
  }
}

static void expand_q5_1(float *y, const uint8_t *b, int64_t blocks) {
  for (; blocks--; b += 24, y += 32) {
    const float d = half_at(b), m = half_at(b + 2);
    for (int j = 0; j < 32; j++) y[j] = d * (float)five(b + 8, word_at(b + 4), j) + m;
  }
}

static void expand_q8_0(float *y, const uint8_t *b, int64_t blocks) {
  for (; blocks--; b += 34, y += 32) {
    const float d = half_at(b);
    for (int j = 0; j < 32; j++) y[j] = d * (float)(int8_t)b[2 + j];
  }
}

/* The 16 values of a code of IQ4 types. */
static const int8_t iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static void expand_iq4_nl(float *y, const uint8_t *b, int64_t blocks) {
  for (; blocks--; b += 18, y += 32) {
    const float d = half_at(b);
    for (int j = 0; j < 16; j++) {
      y[j] = d * (float)iq4[b[2 + j] & 15];
      y[j + 16] = d * (float)iq4[b[2 + j] >> 4];
    }
  }
}

/* ---- Blocks of 256: sub-blocks of 16 or 32 with scales of their own ---- */

static void expand_q2_k(float *y, const uint8_t *b, int64_t blocks) {
  for (; blocks--; b += 84, y += 256) {
    const float d = half_at(b + 80), dmin = half_at(b + 82);
    for (int k = 0; k < 16; k++) { /* of 16 values */
      const float scale = d * (float)(b[k] & 15), min = dmin * (float)(b[k] >> 4);
      const uint8_t *qs = b + 16 + k / 8 * 32 + k % 2 * 16;
      for (int l = 0; l < 16; l++) y[16 * k + l] = scale * (float)(qs[l] >> (k % 8 / 2 * 2) & 3) - min;
    }
  }
}

static void expand_q3_k(float *y, const uint8_t *b, int64_t blocks) {
  for (; blocks--; b += 110, y += 256) {
    const uint8_t *s = b + 96; /* sixteen scales of 6 bits: 4 low ones, 2 high ones */
    const float d = half_at(b + 108);
    for (int k = 0; k < 16; k++) {
      const int low = s[k % 8] >> 4 * (k / 8) & 15, high = s[8 + k % 4] >> 2 * (k / 4) & 3;
      const float scale = d * (float)((low | high << 4) - 32);
      const int shift = k % 8 / 2; /* of the codes; the third bit is inverted in the mask */
      const uint8_t *qs = b + 32 + k / 8 * 32 + k % 2 * 16, *mask = b + k % 2 * 16;
      for (int l = 0; l < 16; l++)
        y[16 * k + l] = scale * (float)((qs[l] >> 2 * shift & 3) - (mask[l] >> (k / 8 * 4 + shift) & 1 ? 0 : 4));
    }
  }
}

/* Scale and minimum of sub-block j of 8, of 6 bits each, out of 12 bytes. */
static int k_scale(const uint8_t *s, int j) {
  return j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
}
static int k_min(const uint8_t *s, int j) {
  return j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
}

static void expand_q4_k(float *y, const uint8_t *b, int64_t blocks) {
  for (; blocks--; b += 144, y += 256) {
    const float d = half_at(b), dmin = half_at(b + 2);
    for (int j = 0; j < 8; j++) {
      const float scale = d * (float)k_scale(b + 4, j), min = dmin * (float)k_min(b + 4, j);
      const uint8_t *qs = b + 16 + j / 2 * 32;
      for (int l = 0; l < 32; l++) y[32 * j + l] = scale * (float)(qs[l] >> 4 * (j % 2) & 15) - min;
    }
  }
}

static void expand_q5_k(float *y, const uint8_t *b, int64_t blocks) {
  for (; blocks--; b += 176, y += 256) {
    const float d = half_at(b), dmin = half_at(b + 2);
    for (int j = 0; j < 8; j++) {
      const float scale = d * (float)k_scale(b + 4, j), min = dmin * (float)k_min(b + 4, j);
      const uint8_t *high = b + 16, *qs = b + 48 + j / 2 * 32;
      for (int l = 0; l < 32; l++)
        y[32 * j + l] = scale * (float)((qs[l] >> 4 * (j % 2) & 15) | (high[l] >> j & 1) << 4) - min;
    }
  }
}

static void expand_q6_k(float *y, const uint8_t *b, int64_t blocks) {
  for (; blocks--; b += 210, y += 256) {
    const float d = half_at(b + 208);
    for (int k = 0; k < 16; k++) {
      const float scale = d * (float)(int8_t)b[192 + k];
      const int part = k % 8 / 2; /* of the four of 32 in a half */
      const uint8_t *low = b + k / 8 * 64 + part % 2 * 32 + k % 2 * 16, *high = b + 128 + k / 8 * 32 + k % 2 * 16;
      for (int l = 0; l < 16; l++)
        y[16 * k + l] = scale * (float)(((low[l] >> 4 * (part / 2) & 15) | (high[l] >> 2 * part & 3) << 4) - 32);
    }
  }
}

static void expand_iq4_xs(float *y, const uint8_t *b, int64_t blocks) {
  for (; blocks--; b += 136, y += 256) {
    const float d = half_at(b);
    const int high = b[2] | b[3] << 8;
    for (int j = 0; j < 8; j++) {
      const float scale = d * (float)(((b[4 + j / 2] >> 4 * (j % 2) & 15) | (high >> 2 * j & 3) << 4) - 32);
      const uint8_t *qs = b + 8 + 16 * j;
      for (int l = 0; l < 16; l++) {
        y[32 * j + l] = scale * (float)iq4[qs[l] & 15];
        y[32 * j + l + 16] = scale * (float)iq4[qs[l] >> 4];
      }
    }
  }
}

/* ---- The table ---- */

static void (*const expand[FK_CODES])(float *to, const uint8_t *from, int64_t blocks) = {
    [FK_CODE_F32] = expand_f32,       [FK_CODE_F16] = expand_f16,   [FK_CODE_BF16] = expand_bf16,
    [FK_CODE_E4M3] = expand_e4m3,     [FK_CODE_E5M2] = expand_e5m2, [FK_CODE_I8] = expand_i8,
    [FK_CODE_E2M1] = expand_e2m1,     [FK_CODE_Q4_0] = expand_q4_0, [FK_CODE_Q4_1] = expand_q4_1,
    [FK_CODE_Q5_0] = expand_q5_0,     [FK_CODE_Q5_1] = expand_q5_1, [FK_CODE_Q8_0] = expand_q8_0,
    [FK_CODE_Q2_K] = expand_q2_k,     [FK_CODE_Q3_K] = expand_q3_k, [FK_CODE_Q4_K] = expand_q4_k,
    [FK_CODE_Q5_K] = expand_q5_k,     [FK_CODE_Q6_K] = expand_q6_k, [FK_CODE_IQ4_NL] = expand_iq4_nl,
    [FK_CODE_IQ4_XS] = expand_iq4_xs,
};

FkCoded fk_coded_slice(FkCoded c, int64_t first, int64_t n) {
  assert(first >= 0 && n >= 0 && first + n <= c.rows);
  c.rows = n;
  if (c.codes) c.codes = (const char *)c.codes + (size_t)first * fk_coded_row_bytes(c.form, c.cols);
  if (c.row_scale) c.row_scale += first;
  if (c.block_scale) c.block_scale = (const char *)c.block_scale + (size_t)first * fk_coded_row_scales(c.form, c.cols);
  if (c.adapted && c.left)
    c.left = (const char *)c.left + (size_t)(first * fk_adapted_ranks(c.adapted)) * fk_dtype_size(c.operands);
  return c;
}

/* A row's numbers times the scales beside them. */
static void scale_row(const FkCoded *c, int64_t row, float *to) {
  const uint8_t *block = c->block_scale;
  const float own = c->form.row_scale ? c->row_scale[row] : 1.0f;
  const int64_t n = c->form.block ? c->form.block : c->cols, per_row = c->cols / n;
  for (int64_t b = 0; b < per_row; b++) {
    float scale = own;
    if (c->form.block) {
      const uint8_t code = block[row * per_row + b];
      scale *= c->form.block_dtype == FK_E8M0 ? fk_e8m0_to_f32(code) : fk_e4m3_to_f32(code);
    }
    for (int64_t i = b * n; i < (b + 1) * n; i++) to[i] *= scale;
  }
}

void fk_coded_expand(const FkCoded *c, float *to) {
  expand[c->form.code](to, c->codes, c->rows * c->cols / fk_code_values(c->form.code));
  if (!c->form.row_scale && !c->form.block) return;
  for (int64_t r = 0; r < c->rows; r++) scale_row(c, r, to + r * c->cols);
}
