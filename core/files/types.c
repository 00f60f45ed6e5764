/* SPDX-License-Identifier: Apache-2.0 */
/* Types of numbers in files and what their blocks mean; see types.h. A block's arithmetic is float32 in the order in
 * which ggml writes it (scale of the block times scale of the sub-block, times the code, minus the minimum): each
 * product and sum is rounded, and the results are the gguf package's bit for bit. Halves are little-endian. */
#include "types.h"

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

/* ---- Numbers of one byte ---- */

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

static uint32_t word_at(const uint8_t *b) {
  return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
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

#define ST(name, values, bytes, expand)                                                                                \
  { name, values, bytes, -1, true, false, FK_F32, expand }
#define PLAIN(name, bytes, ggml, dtype)                                                                                \
  { name, 1, bytes, ggml, true, true, dtype, NULL }
#define GG(name, values, bytes, ggml, expand)                                                                          \
  { name, values, bytes, ggml, false, false, FK_F32, expand }
static const FkNumberType types[] = {
    PLAIN("F32", 4, 0, FK_F32),
    PLAIN("F16", 2, 1, FK_F16),
    PLAIN("BF16", 2, 30, FK_BF16),
    ST("F64", 1, 8, NULL),
    ST("I64", 1, 8, NULL),
    ST("I32", 1, 4, NULL),
    ST("I16", 1, 2, NULL),
    ST("I8", 1, 1, expand_i8),
    ST("U64", 1, 8, NULL),
    ST("U32", 1, 4, NULL),
    ST("U16", 1, 2, NULL),
    ST("U8", 1, 1, NULL),
    ST("BOOL", 1, 1, NULL),
    ST("F8_E4M3", 1, 1, expand_e4m3),
    ST("F8_E5M2", 1, 1, expand_e5m2),
    ST("F8_E8M0", 1, 1, NULL),
    ST("F8_E4M3FNUZ", 1, 1, NULL),
    ST("F8_E5M2FNUZ", 1, 1, NULL),
    ST("F4", 2, 1, NULL),
    ST("F6_E2M3", 4, 3, NULL),
    ST("F6_E3M2", 4, 3, NULL),
    ST("C64", 1, 8, NULL),
    GG("Q4_0", 32, 18, 2, expand_q4_0),
    GG("Q4_1", 32, 20, 3, expand_q4_1),
    GG("Q5_0", 32, 22, 6, expand_q5_0),
    GG("Q5_1", 32, 24, 7, expand_q5_1),
    GG("Q8_0", 32, 34, 8, expand_q8_0),
    GG("Q2_K", 256, 84, 10, expand_q2_k),
    GG("Q3_K", 256, 110, 11, expand_q3_k),
    GG("Q4_K", 256, 144, 12, expand_q4_k),
    GG("Q5_K", 256, 176, 13, expand_q5_k),
    GG("Q6_K", 256, 210, 14, expand_q6_k),
    GG("IQ4_NL", 32, 18, 20, expand_iq4_nl),
    GG("IQ4_XS", 256, 136, 23, expand_iq4_xs),
};
enum { TYPES = sizeof types / sizeof *types };

const FkNumberType *fk_number_type(int row) {
  return row >= 0 && row < TYPES ? &types[row] : NULL;
}

int fk_number_type_named(const char *name) {
  for (int i = 0; i < TYPES; i++)
    if (types[i].safetensors && !strcmp(name, types[i].name)) return i;
  return -1;
}

int fk_number_type_ggml(uint32_t number) {
  for (int i = 0; i < TYPES; i++)
    if (types[i].ggml >= 0 && number == (uint32_t)types[i].ggml) return i;
  return -1;
}

const char *fk_ggml_type_name(uint32_t number) {
  static const char *const names[] = {
      "F32",        "F16",        "Q4_0",       "Q4_1",  "Q4_2",     "Q4_3",     "Q5_0",     "Q5_1",    "Q8_0",
      "Q8_1",       "Q2_K",       "Q3_K",       "Q4_K",  "Q5_K",     "Q6_K",     "Q8_K",     "IQ2_XXS", "IQ2_XS",
      "IQ3_XXS",    "IQ1_S",      "IQ4_NL",     "IQ3_S", "IQ2_S",    "IQ4_XS",   "I8",       "I16",     "I32",
      "I64",        "F64",        "IQ1_M",      "BF16",  "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",   "TQ2_0",
      "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4", "NVFP4"};
  return number < sizeof names / sizeof *names ? names[number] : NULL;
}
