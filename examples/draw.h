/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of plots, drawn by cairo and written as PNG. */
#ifndef DRAW_H
#define DRAW_H

#include <cairo.h>
#include <glib.h>
#include <stdbool.h>

/* A white page with a font chosen. (transfer full): draw_end. */
cairo_t *draw_begin(int width, int height);
/* colour: 0xrrggbb; x, y: left end of the base line. */
void draw_colour(cairo_t *cr, guint32 colour);
void draw_text(cairo_t *cr, double x, double y, double size, const char *text);
void draw_line(cairo_t *cr, double x0, double y0, double x1, double y1, double width);
/* Writes the page and frees it, also after a failure. */
bool draw_end(cairo_t *cr, const char *path, GError **error);

#endif
