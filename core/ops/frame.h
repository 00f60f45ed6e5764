/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures in memory that somebody else laid out, and the arithmetic of one pixel of them: what the CPU backend loops
 * over and a CUDA thread does once, from the same text. libc only.
 *
 * Values are R G B (A) bytes to the ops. Y' Cb Cr with Y' in 0..1 and Cb, Cr in -1/2..1/2 (ITU-R BT.601, BT.709,
 * BT.2020): Y' = Kr R + Kg G + Kb B, Cb = (B - Y') / 2(1 - Kb), Cr = (R - Y') / 2(1 - Kr), in double, each product and
 * sum rounded by itself. Chroma of fewer samples goes up and down as libgstvideo's resampler has it, in integers of the
 * samples' width: 16 bits for formats of more than 8, whose bits are the upper ones. */
#ifndef FK_FRAME_H
#define FK_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__ /* compiled with -fmad=false */
#define FK_PIXEL static __host__ __device__ inline
#else
#define FK_PIXEL static inline
#endif

/* A value of pixel x, y: at byte offset + (x >> shift_x) * step of row y >> shift_y of its plane. step 0: there is
 * none; it reads as the largest. */
typedef struct {
  int plane, offset, step, shift_x, shift_y;
} FkFrameSample;

typedef struct {
  uint8_t *data[4];
  size_t stride[4];
  FkFrameSample sample[4]; /* R G B A or Y' Cb Cr A; of 3 channels the last is written 255 and not read */
  int width, height, channels;
  int depth;           /* bits: 8, or 9 to 16 in the upper bits of little-endian words */
  bool ycbcr, limited; /* limited: Y' or R G B of 16..235 of 8 bits */
  double kr, kb;
  bool block_up, block_down; /* a sample for all its pixels; their mean */
  bool cosited_x, cosited_y; /* otherwise: where a sample lies */
} FkFrame;

FK_PIXEL int fk_frame_least(int a, int b) {
  return a < b ? a : b;
}

/* Nearest; halves go up. */
FK_PIXEL int fk_frame_round(double value, int most) {
  return (int)((value < 0 ? 0 : value > most ? most : value) + 0.5);
}

/* The share fade / 255 of `to`, the rest of `from`; nearest, halves up. */
FK_PIXEL uint8_t fk_frame_mix(int to, int from, int fade) {
  return (uint8_t)((2 * (fade * to + (255 - fade) * from) + 255) / 510);
}

/* R G B of limited range to all of a byte and back, nearest: no value lies between two. */
FK_PIXEL int fk_frame_widen(int value) {
  return value < 16 ? 0 : fk_frame_least((510 * (value - 16) + 219) / 438, 255);
}

FK_PIXEL int fk_frame_narrow(int value) {
  return 16 + (438 * value + 255) / 510;
}

/* ---- Samples ---- */

/* Sample `column` of `row` of a plane. */
FK_PIXEL uint8_t *fk_frame_at(const FkFrame *f, int s, int column, int row) {
  const FkFrameSample *p = &f->sample[s];
  return f->data[p->plane] + (size_t)row * f->stride[p->plane] + p->offset + (size_t)column * (size_t)p->step;
}

FK_PIXEL int fk_frame_get(const FkFrame *f, int s, int column, int row) {
  const uint8_t *at = fk_frame_at(f, s, column, row);
  return f->depth > 8 ? at[0] | at[1] << 8 : at[0];
}

/* Bits that the format has not are cut. */
FK_PIXEL void fk_frame_put(const FkFrame *f, int s, int column, int row, int value) {
  uint8_t *at = fk_frame_at(f, s, column, row);
  if (f->depth > 8) {
    value &= 0xffff << (16 - f->depth);
    at[1] = (uint8_t)(value >> 8);
  }
  at[0] = (uint8_t)value;
}

/* ---- Chroma up: columns, then rows ---- */

/* With the upper bits repeated in the lower ones. */
FK_PIXEL int fk_frame_chroma(const FkFrame *f, int s, int column, int row) {
  const int value = fk_frame_get(f, s, column, row);
  return f->depth > 8 ? value | value >> f->depth : value;
}

/* Three parts of the nearer one. */
FK_PIXEL int fk_frame_between(int near, int far) {
  return (3 * near + far + 2) >> 2;
}

FK_PIXEL int fk_frame_wide(const FkFrame *f, int s, int x, int row) {
  const int k = x >> f->sample[s].shift_x, own = fk_frame_chroma(f, s, k, row);
  if (!f->sample[s].shift_x || f->block_up) return own;
  if (x % 2 && x == f->width - 1) return own;
  if (f->cosited_x) return x % 2 ? (own + fk_frame_chroma(f, s, k + 1, row) + 1) >> 1 : own;
  if (x % 2) return fk_frame_between(own, fk_frame_chroma(f, s, k + 1, row));
  return x ? fk_frame_between(own, fk_frame_chroma(f, s, k - 1, row)) : own;
}

FK_PIXEL int fk_frame_full(const FkFrame *f, int s, int x, int y) {
  const int k = y >> f->sample[s].shift_y, own = fk_frame_wide(f, s, x, k);
  if (!f->sample[s].shift_y || f->block_up || f->cosited_y) return own;
  if (y % 2) return y < f->height - 1 ? fk_frame_between(own, fk_frame_wide(f, s, x, k + 1)) : own;
  return y ? fk_frame_between(own, fk_frame_wide(f, s, x, k - 1)) : own;
}

/* ---- Matrix ---- */

typedef struct {
  double kg;
  int luma_offset, luma_scale, chroma_offset, chroma_scale; /* of the samples' bits */
  int step, top; /* between two values of the format, and the largest, in what a sample holds */
} FkFrameMatrix;

FK_PIXEL FkFrameMatrix fk_frame_matrix(const FkFrame *f) {
  FkFrameMatrix m;
  const int more = 1 << (f->depth - 8);
  m.kg = 1 - f->kr - f->kb;
  m.step = f->depth > 8 ? 1 << (16 - f->depth) : 1;
  m.top = f->depth > 8 ? 65535 : 255;
  m.luma_offset = f->limited ? 16 * more * m.step : 0;
  m.luma_scale = (f->limited ? 219 * more : 256 * more - 1) * m.step;
  m.chroma_offset = 128 * more * m.step;
  m.chroma_scale = (f->limited ? 224 * more : 256 * more - 1) * m.step;
  return m;
}

FK_PIXEL void fk_frame_to_rgb(const FkFrame *f, int x, int y, uint8_t *rgb) {
  const FkFrameMatrix m = fk_frame_matrix(f);
  int cb = fk_frame_full(f, 1, x, y), cr = fk_frame_full(f, 2, x, y);
  if (m.step > 1) { /* repeated bits off again: 64 of 10 bits is 4096, not 4100 */
    cb -= cb >> f->depth;
    cr -= cr >> f->depth;
  }
  const int bits = fk_frame_get(f, 0, x, y) / m.step * m.step;
  const double luma = (double)(bits - m.luma_offset) / m.luma_scale;
  const double red = luma + 2 * (1 - f->kr) * (cr - m.chroma_offset) / m.chroma_scale;
  const double blue = luma + 2 * (1 - f->kb) * (cb - m.chroma_offset) / m.chroma_scale;
  rgb[0] = (uint8_t)fk_frame_round(255 * red, 255);
  rgb[1] = (uint8_t)fk_frame_round(255 * (luma - f->kr * red - f->kb * blue) / m.kg, 255);
  rgb[2] = (uint8_t)fk_frame_round(255 * blue, 255);
}

/* Value s (0: Y', 1: Cb, 2: Cr) of a pixel, the nearest that the format has. */
FK_PIXEL int fk_frame_from_rgb(const FkFrame *f, int s, const uint8_t *rgb) {
  const FkFrameMatrix m = fk_frame_matrix(f);
  const double red = rgb[0] / 255.0, blue = rgb[2] / 255.0;
  const double luma = f->kr * red + m.kg * (rgb[1] / 255.0) + f->kb * blue;
  const double value = s == 0   ? m.luma_offset + m.luma_scale * luma
                       : s == 1 ? m.chroma_offset + m.chroma_scale * (blue - luma) / (2 * (1 - f->kb))
                                : m.chroma_offset + m.chroma_scale * (red - luma) / (2 * (1 - f->kr));
  return fk_frame_round(value / m.step, (m.top + 1) / m.step - 1) * m.step;
}

/* ---- Pixels ---- */

/* R G B A of pixel x, y, from value `first` on. */
FK_PIXEL void fk_frame_read_pixel(const FkFrame *f, int x, int y, int first, uint8_t *rgba) {
  const bool alpha = f->channels == 4 && f->sample[3].step;
  if (first < 3 && f->ycbcr)
    fk_frame_to_rgb(f, x, y, rgba);
  else
    for (int s = first; s < 3; s++) {
      const int value = fk_frame_get(f, s, x, y);
      rgba[s] = (uint8_t)(f->limited ? fk_frame_widen(value) : value);
    }
  rgba[3] = 255;
  if (alpha) rgba[3] = (uint8_t)fk_frame_round(255.0 * fk_frame_chroma(f, 3, x, y) / (f->depth > 8 ? 65535 : 255), 255);
}

/* ---- Chroma down: rows, then columns. rgb: pixels of `channels` bytes, rows without gaps. ---- */

FK_PIXEL int fk_frame_column(const FkFrame *f, int s, const uint8_t *rgb, int x, int row) {
  const size_t line = (size_t)f->width * (size_t)f->channels, at = (size_t)x * (size_t)f->channels;
  const int y = row << f->sample[s].shift_y, own = fk_frame_from_rgb(f, s, rgb + (size_t)y * line + at);
  if (!f->sample[s].shift_y || (f->cosited_y && !f->block_down)) return own;
  return (own + fk_frame_from_rgb(f, s, rgb + (size_t)fk_frame_least(y + 1, f->height - 1) * line + at) + 1) >> 1;
}

FK_PIXEL int fk_frame_down(const FkFrame *f, int s, const uint8_t *rgb, int column, int row) {
  const int x = column << f->sample[s].shift_x, own = fk_frame_column(f, s, rgb, x, row);
  if (!f->sample[s].shift_x || f->width == 1) return own;
  if (!f->cosited_x || f->block_down)
    return x + 1 < f->width ? (own + fk_frame_column(f, s, rgb, x + 1, row) + 1) >> 1 : own;
  if (x == 0) return fk_frame_between(own, fk_frame_column(f, s, rgb, 1, row));
  const int before = fk_frame_column(f, s, rgb, x - 1, row);
  if (x >= f->width - 2) return fk_frame_between(own, before); /* the last one leaves its right neighbour out */
  return (before + 2 * own + fk_frame_column(f, s, rgb, x + 1, row) + 2) >> 2;
}

/* All samples that begin at pixel x, y of rgb, the whole picture. */
FK_PIXEL void fk_frame_write_pixel(const FkFrame *f, const uint8_t *rgb, int x, int y) {
  const uint8_t *own = rgb + ((size_t)y * (size_t)f->width + (size_t)x) * (size_t)f->channels;
  for (int s = 0; s < 4; s++) {
    const FkFrameSample *p = &f->sample[s];
    const int column = x >> p->shift_x, row = y >> p->shift_y;
    if (!p->step || column << p->shift_x != x || row << p->shift_y != y) continue;
    if (s == 3)
      fk_frame_put(f, s, column, row, (f->channels == 4 ? own[3] : 255) * (f->depth > 8 ? 257 : 1));
    else
      fk_frame_put(f, s, column, row,
                   f->ycbcr     ? fk_frame_down(f, s, rgb, column, row)
                   : f->limited ? fk_frame_narrow(own[s])
                                : own[s]);
  }
}

/* The bytes of `from` for those samples that begin at pixel x, y and all of whose pixels are the same in both pictures,
 * which lie as rgb above. */
FK_PIXEL void fk_frame_keep_pixel(const FkFrame *to, const FkFrame *from, const uint8_t *before, const uint8_t *after,
                                  int x, int y) {
  for (int s = 0; s < 4; s++) {
    const FkFrameSample *p = &to->sample[s];
    const int column = x >> p->shift_x, row = y >> p->shift_y;
    if (!p->step || column << p->shift_x != x || row << p->shift_y != y) continue;
    const int right = fk_frame_least(x + (1 << p->shift_x), to->width);
    const int bottom = fk_frame_least(y + (1 << p->shift_y), to->height);
    bool same = true;
    for (int j = y; j < bottom; j++)
      for (int i = x; i < right; i++)
        for (int c = 0; c < to->channels; c++) {
          const size_t at = ((size_t)j * (size_t)to->width + (size_t)i) * (size_t)to->channels + (size_t)c;
          same &= before[at] == after[at];
        }
    for (int b = 0; same && b < (to->depth > 8 ? 2 : 1); b++)
      fk_frame_at(to, s, column, row)[b] = fk_frame_at(from, s, column, row)[b];
  }
}

#endif
