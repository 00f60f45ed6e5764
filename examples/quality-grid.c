/* SPDX-License-Identifier: Apache-2.0 */
/* Results side by side with their differences from the exact one; see quality-draw.h. */
#include "quality-draw.h"

#include "draw.h"

#include <string.h>

#define GAP 4
#define CAPTION 16 /* height of a label */
#define PAIRS 5    /* of result and difference in one row */
#define HEAD 24

static void tile_free(gpointer data) {
  QualityTile *t = data;
  g_free(t->label);
  g_free(t->image.data);
  g_free(t);
}

GPtrArray *quality_tiles_new(void) {
  return g_ptr_array_new_with_free_func(tile_free);
}

bool quality_tiles_add(GPtrArray *tiles, const char *path, char *label, GError **error) {
  QualityTile *t = g_new0(QualityTile, 1);
  t->label = label;
  g_ptr_array_add(tiles, t);
  return quality_picture_read(path, &t->image, error);
}

/* 8-bit RGB as cairo holds it. (transfer full) */
static cairo_surface_t *surface_of(const uint8_t *rgb, int width, int height) {
  cairo_surface_t *s = cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height);
  uint8_t *data = cairo_image_surface_get_data(s);
  const int stride = cairo_image_surface_get_stride(s);
  for (int y = 0; y < height; y++)
    for (int x = 0; x < width; x++) {
      const uint8_t *p = rgb + 3 * (y * width + x);
      const uint32_t v = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
      memcpy(data + y * stride + 4 * x, &v, sizeof v);
    }
  cairo_surface_mark_dirty(s);
  return s;
}

static void draw_picture(cairo_t *cr, double x, double y, const uint8_t *rgb, int width, int height, int cell) {
  cairo_surface_t *s = surface_of(rgb, width, height);
  const double scale = (double)cell / MAX(width, height);
  cairo_save(cr);
  cairo_translate(cr, x, y);
  cairo_scale(cr, scale, scale);
  cairo_set_source_surface(cr, s, 0, 0);
  cairo_pattern_set_filter(cairo_get_source(cr), CAIRO_FILTER_GOOD);
  cairo_rectangle(cr, 0, 0, width, height);
  cairo_fill(cr);
  cairo_restore(cr);
  cairo_surface_destroy(s);
}

/* 128 + 8 (a - b), clipped. */
static void draw_difference(cairo_t *cr, double x, double y, const FkImage *a, const FkImage *b, int cell) {
  const int count = a->width * a->height * 3;
  g_autofree uint8_t *d = g_malloc((gsize)count);
  for (int i = 0; i < count; i++) d[i] = (uint8_t)CLAMP(128 + 8 * (a->data[i] - b->data[i]), 0, 255);
  draw_picture(cr, x, y, d, a->width, a->height, cell);
}

static void caption(cairo_t *cr, double x, double y, const char *text, int width) {
  cairo_save(cr);
  cairo_rectangle(cr, x, y - CAPTION, width, CAPTION + 4);
  cairo_clip(cr);
  draw_text(cr, x, y - 4, 11, text);
  cairo_restore(cr);
}

bool quality_grid(const char *path, const GPtrArray *tiles, const char *title, int cell, GError **error) {
  const int pairs = (int)tiles->len - 1, rows = (pairs + PAIRS - 1) / PAIRS; /* original and exact share the first */
  const int width = PAIRS * 2 * (cell + GAP) + GAP, height = HEAD + rows * (cell + CAPTION + GAP);
  cairo_t *cr = draw_begin(width, height);
  draw_text(cr, GAP, 17, 14, title);
  const QualityTile *exact = tiles->pdata[1];
  for (int i = 0; i < pairs; i++) {
    const int row = i / PAIRS, column = i % PAIRS;
    const double x = GAP + column * 2 * (cell + GAP), y = HEAD + row * (cell + CAPTION + GAP) + CAPTION;
    const QualityTile *left = tiles->pdata[i ? i + 1 : 0];
    caption(cr, x, y, left->label, i ? 2 * cell : cell);
    draw_picture(cr, x, y, left->image.data, left->image.width, left->image.height, cell);
    if (i) {
      draw_difference(cr, x + cell + GAP, y, &left->image, &exact->image, cell);
      continue;
    }
    caption(cr, x + cell + GAP, y, exact->label, cell);
    draw_picture(cr, x + cell + GAP, y, exact->image.data, exact->image.width, exact->image.height, cell);
  }
  return draw_end(cr, path, error);
}

bool quality_grid_pairs(const char *path, const GPtrArray *tiles, const char *title, int cell, GError **error) {
  const int pairs = (int)tiles->len / 2, rows = (pairs + 1) / 2, step = cell + GAP;
  cairo_t *cr = draw_begin(6 * step + GAP, HEAD + rows * (cell + CAPTION + GAP));
  draw_text(cr, GAP, 17, 14, title);
  for (int i = 0; i < pairs; i++) {
    const int row = i / 2, column = i % 2;
    const double x = GAP + column * 3 * step, y = HEAD + row * (cell + CAPTION + GAP) + CAPTION;
    const QualityTile *exact = tiles->pdata[2 * i], *other = tiles->pdata[2 * i + 1];
    caption(cr, x, y, exact->label, cell);
    draw_picture(cr, x, y, exact->image.data, exact->image.width, exact->image.height, cell);
    caption(cr, x + step, y, other->label, 2 * cell);
    draw_picture(cr, x + step, y, other->image.data, other->image.width, other->image.height, cell);
    draw_difference(cr, x + 2 * step, y, &other->image, &exact->image, cell);
  }
  return draw_end(cr, path, error);
}
