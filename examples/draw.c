/* SPDX-License-Identifier: Apache-2.0 */
/* Pages by cairo; see draw.h. */
#include "draw.h"

#include "tool.h"

cairo_t *draw_begin(int width, int height) {
  cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height);
  cairo_t *cr = cairo_create(surface);
  cairo_surface_destroy(surface); /* the context has it */
  draw_colour(cr, 0xffffff);
  cairo_paint(cr);
  cairo_select_font_face(cr, "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
  draw_colour(cr, 0);
  return cr;
}

void draw_colour(cairo_t *cr, guint32 colour) {
  cairo_set_source_rgb(cr, (colour >> 16 & 255) / 255.0, (colour >> 8 & 255) / 255.0, (colour & 255) / 255.0);
}

void draw_text(cairo_t *cr, double x, double y, double size, const char *text) {
  cairo_set_font_size(cr, size);
  cairo_move_to(cr, x, y);
  cairo_show_text(cr, text);
}

void draw_line(cairo_t *cr, double x0, double y0, double x1, double y1, double width) {
  cairo_set_line_width(cr, width);
  cairo_move_to(cr, x0, y0);
  cairo_line_to(cr, x1, y1);
  cairo_stroke(cr);
}

static cairo_status_t append(void *closure, const unsigned char *data, unsigned length) {
  g_byte_array_append(closure, data, length);
  return CAIRO_STATUS_SUCCESS;
}

bool draw_end(cairo_t *cr, const char *path, GError **error) {
  g_autoptr(GByteArray) png = g_byte_array_new();
  cairo_status_t status = cairo_status(cr);
  if (!status) status = cairo_surface_write_to_png_stream(cairo_get_target(cr), append, png);
  cairo_destroy(cr);
  if (!status) return fk_file_write(path, png->data, png->len, error);
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: %s", path, cairo_status_to_string(status));
  return false;
}
