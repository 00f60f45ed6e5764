/* SPDX-License-Identifier: Apache-2.0 */
/* The page of a determinism report: a row for each mode, a picture for each run in a green border where it is what it
 * had to be, else in a red one. */
#include "report.h"

#include "../draw.h"

enum {
  MARGIN = 16,
  TITLE = 44,
  LABEL = 220,
  BORDER = 5,
  GAP = 14,
  CELL = REPORT_THUMB + 2 * BORDER,
  CAPTION = 34,
  ROW = CELL + CAPTION + GAP,
  MOST_SHOWN = 10 /* runs of a row */
};

static const guint32 green = 0x1a9641, red = 0xd7191c, grey = 0x555555;

static void draw_thumb(cairo_t *cr, const FkImage *t, double x, double y) {
  cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, t->width, t->height);
  guint8 *data = cairo_image_surface_get_data(surface);
  const int stride = cairo_image_surface_get_stride(surface);
  for (int v = 0; data && v < t->height; v++)
    for (int u = 0; u < t->width; u++) {
      const guint8 *p = t->data + (size_t)v * t->stride + (size_t)u * 3;
      ((guint32 *)(void *)(data + (gsize)v * (gsize)stride))[u] = (guint32)p[0] << 16 | (guint32)p[1] << 8 | p[2];
    }
  cairo_surface_mark_dirty(surface);
  cairo_set_source_surface(cr, surface, x + (REPORT_THUMB - t->width) / 2.0, y + (REPORT_THUMB - t->height) / 2.0);
  cairo_paint(cr);
  cairo_surface_destroy(surface);
}

static void draw_run(cairo_t *cr, const ReportRun *run, double x, double y) {
  g_autofree char *time = run->error ? g_strdup("failed") : g_strdup_printf("%.0f ms", run->ms),
                  *hash = g_strndup(run->sha ? run->sha : "", 16);
  draw_colour(cr, run->equal ? green : red);
  cairo_rectangle(cr, x, y, CELL, CELL);
  cairo_fill(cr);
  draw_colour(cr, 0xffffff);
  cairo_rectangle(cr, x + BORDER, y + BORDER, REPORT_THUMB, REPORT_THUMB);
  cairo_fill(cr);
  if (run->thumb.data) draw_thumb(cr, &run->thumb, x + BORDER, y + BORDER);
  draw_colour(cr, run->equal ? 0 : red);
  draw_text(cr, x, y + CELL + 14, 12, hash);
  draw_colour(cr, grey);
  draw_text(cr, x, y + CELL + 28, 11, time);
}

static void draw_mode(cairo_t *cr, const ReportMode *m, double y) {
  g_autofree char *against = g_strdup_printf("equal to %s", m->against), *seed = g_strdup_printf("seed %s", m->seed),
                  *numbers = g_strdup_printf("%s steps, guidance %s", m->steps, m->guidance);
  draw_colour(cr, 0);
  draw_text(cr, MARGIN, y + 16, 15, m->mode);
  draw_colour(cr, grey);
  draw_text(cr, MARGIN, y + 36, 12, against);
  draw_text(cr, MARGIN, y + 54, 12, seed);
  draw_text(cr, MARGIN, y + 72, 12, numbers);
  draw_colour(cr, red);
  if (m->note) draw_text(cr, MARGIN + LABEL, y + 16, 12, m->note);
  for (guint i = 0; i < m->runs->len && i < MOST_SHOWN; i++)
    draw_run(cr, m->runs->pdata[i], MARGIN + LABEL + (double)i * (CELL + GAP), y);
}

bool report_page(const char *path, const char *title, const GPtrArray *modes, GError **error) {
  guint columns = 1;
  for (guint i = 0; i < modes->len; i++) columns = MAX(columns, ((const ReportMode *)modes->pdata[i])->runs->len);
  columns = MIN(columns, MOST_SHOWN);
  const int width = 2 * MARGIN + LABEL + (int)columns * (CELL + GAP) - GAP;
  cairo_t *cr = draw_begin(MAX(width, 640), 2 * MARGIN + TITLE + (int)modes->len * ROW - GAP);
  draw_text(cr, MARGIN, MARGIN + 18, 18, title);
  for (guint i = 0; i < modes->len; i++) draw_mode(cr, modes->pdata[i], MARGIN + TITLE + (double)i * ROW);
  return draw_end(cr, path, error);
}
