/* SPDX-License-Identifier: Apache-2.0 */
/* PSNR, SSIM and PSNR of gradients; see quality-metrics.h. Sums are of integers where they can be, so that the result
 * does not depend on the order. */
#include "quality-metrics.h"

#include <glib.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#define WINDOW 11
#define SIGMA 1.5
#define BLOCK 8 /* pixels */

static double decibels(uint64_t squares, uint64_t count) {
  if (!squares) return QUALITY_IDENTICAL;
  return 10 * log10(255.0 * 255.0 * (double)count / (double)squares);
}

double quality_psnr(const uint8_t *a, const uint8_t *b, int width, int height) {
  const uint64_t count = (uint64_t)width * (uint64_t)height * 3;
  uint64_t squares = 0;
  for (uint64_t i = 0; i < count; i++) squares += (uint64_t)((a[i] - b[i]) * (a[i] - b[i]));
  return decibels(squares, count);
}

double quality_edges(const uint8_t *a, const uint8_t *b, int width, int height) {
  const int row = width * 3;
  uint64_t squares = 0, count = 0;
  for (int y = 0; y < height; y++)
    for (int x = 0; x < row; x++) {
      const int i = y * row + x, d = a[i] - b[i];
      const int across = x + 3 < row ? a[i + 3] - b[i + 3] - d : 0;
      const int down = y + 1 < height ? a[i + row] - b[i + row] - d : 0;
      squares += (uint64_t)(across * across + down * down);
      count += (x + 3 < row) + (y + 1 < height);
    }
  return decibels(squares, count);
}

static bool block_changed(const uint8_t *a, const uint8_t *b, int width, int x0, int y0, int columns, int rows) {
  for (int c = 0; c < 3; c++) {
    int sum = 0;
    for (int y = y0; y < y0 + rows; y++)
      for (int x = x0; x < x0 + columns; x++) sum += a[(y * width + x) * 3 + c] - b[(y * width + x) * 3 + c];
    if (abs(sum) > QUALITY_CHANGED * rows * columns) return true;
  }
  return false;
}

double quality_changed(const uint8_t *a, const uint8_t *b, int width, int height) {
  int64_t changed = 0;
  for (int y = 0; y < height; y += BLOCK)
    for (int x = 0; x < width; x += BLOCK) {
      const int columns = MIN(BLOCK, width - x), rows = MIN(BLOCK, height - y);
      if (block_changed(a, b, width, x, y, columns, rows)) changed += columns * rows;
    }
  return (double)changed / ((double)width * height);
}

/* out[y][x] = window over in's columns, then rows; only where it fits: (height - 10) x (width - 10). */
static void blur(const double *in, double *between, double *out, int width, int height) {
  double weight[WINDOW], sum = 0;
  const int middle = WINDOW / 2;
  for (int i = 0; i < WINDOW; i++) sum += weight[i] = exp(-0.5 * pow((i - middle) / SIGMA, 2));
  const int w = width - WINDOW + 1, h = height - WINDOW + 1;
  for (int y = 0; y < height; y++)
    for (int x = 0; x < w; x++) {
      double v = 0;
      for (int i = 0; i < WINDOW; i++) v += weight[i] / sum * in[y * width + x + i];
      between[y * w + x] = v;
    }
  for (int y = 0; y < h; y++)
    for (int x = 0; x < w; x++) {
      double v = 0;
      for (int i = 0; i < WINDOW; i++) v += weight[i] / sum * between[(y + i) * w + x];
      out[y * w + x] = v;
    }
}

/* The five moments of one channel: a, b, a^2, b^2, ab. */
static double moment(int which, double a, double b) {
  const double values[] = {a, b, a * a, b * b, a * b};
  return values[which];
}

static double ssim_of_channel(const uint8_t *a, const uint8_t *b, int width, int height) {
  const size_t pixels = (size_t)width * (size_t)height;
  const int inside = (width - WINDOW + 1) * (height - WINDOW + 1);
  const double c1 = 0.01 * 255 * 0.01 * 255, c2 = 0.03 * 255 * 0.03 * 255;
  g_autofree double *plane = g_new(double, pixels), *between = g_new(double, pixels), *m = g_new(double, 5 * pixels);
  for (int k = 0; k < 5; k++) {
    for (size_t i = 0; i < pixels; i++) plane[i] = moment(k, a[3 * i], b[3 * i]);
    blur(plane, between, m + (size_t)k * pixels, width, height);
  }
  double sum = 0;
  for (int i = 0; i < inside; i++) {
    const double *v = m + i;
    const double ma = v[0], mb = v[pixels];
    const double va = v[2 * pixels] - ma * ma, vb = v[3 * pixels] - mb * mb, vab = v[4 * pixels] - ma * mb;
    sum += (2 * ma * mb + c1) * (2 * vab + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2));
  }
  return sum / inside;
}

double quality_ssim(const uint8_t *a, const uint8_t *b, int width, int height) {
  double sum = 0;
  for (int c = 0; c < 3; c++) sum += ssim_of_channel(a + c, b + c, width, height);
  return sum / 3;
}
