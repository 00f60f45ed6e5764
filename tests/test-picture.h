/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures of tests/golden and of the demo checkpoint. */
#ifndef TEST_PICTURE_H
#define TEST_PICTURE_H

#include "fk.h"

#include <glib.h>
#include <math.h>
#include <png.h>

/* (transfer full) RGB */
static inline FkImage read_png(const char *path) {
  png_image png = {.version = PNG_IMAGE_VERSION};
  if (!png_image_begin_read_from_file(&png, path)) g_error("%s: %s", path, png.message);
  png.format = PNG_FORMAT_RGB;
  FkImage image = {g_malloc(PNG_IMAGE_SIZE(png)), (int)png.width, (int)png.height, 3, (size_t)png.width * 3};
  if (!png_image_finish_read(&png, NULL, image.data, 0, NULL)) g_error("%s: %s", path, png.message);
  return image;
}

/* Peak signal to noise ratio of two pictures of one size in dB; 999 for equal ones. */
static inline double psnr(const FkImage *a, const FkImage *b) {
  const size_t n = a->stride * (size_t)a->height;
  double sum = 0;
  for (size_t i = 0; i < n; i++) {
    const double d = a->data[i] - b->data[i];
    sum += d * d;
  }
  return sum > 0 ? 10 * log10(255.0 * 255.0 * (double)n / sum) : 999;
}

#endif
