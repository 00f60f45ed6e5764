/* SPDX-License-Identifier: Apache-2.0 */
/* PSNR over FLOP; see quality-draw.h. */
#include "quality-draw.h"

#include "draw.h"

#include <math.h>
#include <string.h>

#define WIDTH 1600
#define HEIGHT 900
#define LEFT 60
#define RIGHT 390
#define TOP 40
#define BOTTOM 50
#define LABEL_HEIGHT 11.0

/* Where the axes lie: share of the exact FLOP from least to 1, dB from low to high. */
typedef struct {
  double least, low, high, exact; /* exact: model_flop of the exact edit */
} Axes;

static const guint32 colours[] = {0x1f78b5, 0xe31a1c, 0x33a12b, 0x6b3d99, 0xff8000,
                                  0xb05929, 0x009999, 0xe63399, 0x666619, 0x4d4de6};
enum { INK = 0x000000, DARK = 0x333333, GRID = 0xd9d9d9 };

static double at_x(const Axes *a, double flop) {
  return LEFT + (WIDTH - LEFT - RIGHT) * log(flop / a->exact / a->least) / log(1 / a->least);
}

static double at_y(const Axes *a, double db) {
  return TOP + (HEIGHT - TOP - BOTTOM) * (a->high - db) / (a->high - a->low);
}

static Axes axes_of(const GArray *summaries) {
  Axes a = {.least = 0.5, .low = 30, .high = 40, .exact = g_array_index(summaries, QualitySummary, 0).model_flop};
  for (guint i = 1; i < summaries->len; i++) {
    const QualitySummary *s = &g_array_index(summaries, QualitySummary, i);
    a.least = MIN(a.least, 0.9 * s->model_flop / a.exact);
    a.low = MIN(a.low, floor((s->psnr - 1) / 5) * 5);
    if (s->psnr < 99) a.high = MAX(a.high, ceil((s->psnr + 1) / 5) * 5);
  }
  return a;
}

static void draw_axes(cairo_t *cr, const Axes *a, const char *title) {
  const double shares[] = {1, 0.5, 0.333333, 0.25, 0.2, 0.142857, 0.1, 0.0714286, 0.05, 0.0333333};
  for (int i = 0; a->low + 5 * i <= a->high; i++) {
    const double db = a->low + 5 * i;
    g_autofree char *label = g_strdup_printf("%.0f dB", db);
    draw_colour(cr, GRID);
    draw_line(cr, LEFT, at_y(a, db), WIDTH - RIGHT, at_y(a, db), 1);
    draw_colour(cr, DARK);
    draw_text(cr, 10, at_y(a, db) + 4, 12, label);
  }
  for (size_t i = 0; i < G_N_ELEMENTS(shares); i++) {
    if (shares[i] < a->least) break;
    const double x = at_x(a, shares[i] * a->exact);
    g_autofree char *label = i ? g_strdup_printf("1/%.0f", 1 / shares[i]) : g_strdup("1");
    draw_colour(cr, GRID);
    draw_line(cr, x, TOP, x, HEIGHT - BOTTOM, 1);
    draw_colour(cr, DARK);
    draw_text(cr, x - 10, HEIGHT - BOTTOM + 18, 12, label);
  }
  draw_text(cr, LEFT, HEIGHT - 12, 12, "FLOP in the transformer, as a share of the exact edit (28 Euler steps)");
  draw_text(cr, LEFT, 25, 15, title);
}

/* Black, with the number of steps at each point. */
static void draw_rival(cairo_t *cr, const Axes *a, const GArray *summaries) {
  const QualitySummary *before = NULL;
  draw_colour(cr, INK);
  for (int steps = 1; steps <= 1000; steps++)
    for (guint i = 1; i < summaries->len; i++) {
      const QualitySummary *s = &g_array_index(summaries, QualitySummary, i);
      if (s->setting->plain_steps != steps || s->psnr >= 99) continue;
      const double x = at_x(a, s->model_flop), y = at_y(a, s->psnr);
      if (before) draw_line(cr, at_x(a, before->model_flop), at_y(a, before->psnr), x, y, 2);
      cairo_arc(cr, x, y, 4, 0, 2 * G_PI);
      cairo_fill(cr);
      g_autofree char *label = g_strdup_printf("%d", steps);
      draw_text(cr, x + 3, y + 15, 11, label);
      before = s;
    }
}

/* A free height for a label at x, from y on downwards or upwards: taken holds x, y pairs of earlier ones. */
static double free_height(GArray *taken, double x, double y) {
  for (int attempt = 0; attempt < 40; attempt++) {
    const int away = (attempt + 1) / 2;
    const double here = y + (attempt % 2 ? -away : away) * LABEL_HEIGHT;
    bool clear = true;
    for (guint i = 0; i + 1 < taken->len && clear; i += 2)
      clear = fabs(g_array_index(taken, double, i) - x) > 170 ||
              fabs(g_array_index(taken, double, i + 1) - here) >= LABEL_HEIGHT;
    if (!clear) continue;
    g_array_append_val(taken, x);
    g_array_append_val(taken, here);
    return here;
  }
  return y;
}

static void draw_points(cairo_t *cr, const Axes *a, const GArray *summaries) {
  g_autoptr(GPtrArray) seen = g_ptr_array_new_with_free_func(g_free);
  g_autoptr(GArray) taken = g_array_new(FALSE, FALSE, sizeof(double));
  for (guint i = 1; i < summaries->len; i++) {
    const QualitySummary *s = &g_array_index(summaries, QualitySummary, i);
    guint which = 0;
    if (s->setting->plain_steps || s->model_flop > 0.97 * a->exact) continue; /* nothing saved: no point */
    g_autofree char *technique = quality_technique(s->setting);
    if (!g_ptr_array_find_with_equal_func(seen, technique, g_str_equal, &which)) {
      which = seen->len;
      g_ptr_array_add(seen, g_strdup(technique));
    }
    const double x = at_x(a, s->model_flop), y = at_y(a, MIN(s->psnr, a->high)), label = free_height(taken, x, y + 4);
    draw_colour(cr, colours[which % G_N_ELEMENTS(colours)]);
    cairo_arc(cr, x, y, 4, 0, 2 * G_PI);
    cairo_fill(cr);
    draw_line(cr, x, y, x + 10, label - 4, 0.5);
    draw_text(cr, x + 11, label, 10, s->setting->name);
  }
  draw_colour(cr, INK);
  draw_text(cr, WIDTH - RIGHT + 25, TOP + 12, 11, "plain Euler (line)");
  for (guint i = 0; i < seen->len; i++) {
    draw_colour(cr, colours[i % G_N_ELEMENTS(colours)]);
    draw_text(cr, WIDTH - RIGHT + 25, TOP + 28 + 15 * i, 11, seen->pdata[i]);
  }
}

bool quality_plot(const char *path, const GArray *summaries, const char *title, GError **error) {
  cairo_t *cr = draw_begin(WIDTH, HEIGHT);
  const Axes a = axes_of(summaries);
  draw_axes(cr, &a, title);
  draw_rival(cr, &a, summaries);
  draw_points(cr, &a, summaries);
  return draw_end(cr, path, error);
}
