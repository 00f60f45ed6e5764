/* SPDX-License-Identifier: Apache-2.0 */
/* Ops of one profiled edit against their floors, as tables, JSON and bars; see bench.h. */
#include "bench.h"
#include "draw.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROFILE_STEPS = 2, SHOWN = 40, DRAWN = 14, GROUPS = 5 };
static const char *const group_name[GROUPS] = {"linear", "attention", "conv", "norms", "other"};

static int group_of(const char *op) {
  if (g_str_has_prefix(op, "linear")) return 0;
  if (g_str_has_prefix(op, "attention")) return 1;
  if (g_str_has_prefix(op, "conv")) return 2;
  return g_str_has_suffix(op, "_norm") ? 3 : 4;
}

/* The ops of one stage or group together. floor_ms: sum over its rows of the larger of arithmetic and traffic. */
typedef struct {
  const char *stage, *group;
  int count;
  double ms, floor_ms, flop, bytes;
} Group;

/* ms; 0 where there are no ceilings. */
static double floor_of(const FkProfileRow *r, const Bench *b) {
  return b->tflops > 0 && b->tbs > 0 ? MAX(r->flop / (b->tflops * 1e9), r->bytes / (b->tbs * 1e9)) : 0;
}

static int by_ms(const void *a, const void *b) {
  const double x = ((const FkProfileRow *)a)->ms, y = ((const FkProfileRow *)b)->ms;
  return (x < y) - (x > y);
}

/* "71 %"; more than 100 where an op's operands stay in a cache. */
static void print_row(const char *stage, const char *op, const char *sizes, int count, double ms, double flop,
                      double bytes, double floor_ms) {
  g_autofree char *share = floor_ms > 0 && ms > 0 ? g_strdup_printf("%.0f %%", 100 * floor_ms / ms) : g_strdup("-");
  printf("%-8s %-14s %-26s %6d %10.3f %9.3f %8.4f %7s\n", stage, op, sizes, count, ms, ms > 0 ? flop / ms / 1e9 : 0,
         ms > 0 ? bytes / ms / 1e9 : 0, share);
}

/* Sums of each stage's groups, stages in the order of their first row. (transfer full) */
static GArray *sum_groups(const BenchOps *ops, const Bench *b) {
  GArray *groups = g_array_new(FALSE, TRUE, sizeof(Group));
  for (size_t i = 0; i < ops->count; i++) {
    const FkProfileRow *r = &ops->rows[i];
    const char *kind = group_name[group_of(r->op)];
    Group *g = NULL;
    for (guint k = 0; k < groups->len && !g; k++) {
      Group *have = &g_array_index(groups, Group, k);
      if (have->group == kind && !strcmp(have->stage, r->stage)) g = have;
    }
    if (!g) {
      const Group fresh = {.stage = r->stage, .group = kind};
      g_array_append_val(groups, fresh);
      g = &g_array_index(groups, Group, groups->len - 1);
    }
    g->count += r->count;
    g->ms += r->ms;
    g->flop += r->flop;
    g->bytes += r->bytes;
    g->floor_ms += floor_of(r, b);
  }
  return groups;
}

static int by_stage(const void *a, const void *b) {
  static const char *const order[] = {"text", "encode", "denoise", "decode"};
  const Group *x = a, *y = b;
  int i = 0, k = 0;
  while (i < (int)G_N_ELEMENTS(order) && strcmp(order[i], x->stage)) i++;
  while (k < (int)G_N_ELEMENTS(order) && strcmp(order[k], y->stage)) k++;
  return i != k ? i - k : (x->ms < y->ms) - (x->ms > y->ms);
}

static void print_groups(const GArray *groups, Json *json) {
  printf("\ngroups of ops of one edit with %d steps. An op's time runs to the start of the next: the last op of a "
         "stage\n(among \"other\") holds the host's work between stages. Floors above 100 %%: operands stayed in a "
         "cache, or the machine was busier when its rates were measured\n%-8s %-14s %-26s %6s %10s %9s %8s %7s\n",
         PROFILE_STEPS, "stage", "group", "", "count", "ms", "TFLOP/s", "TB/s", "floor");
  json_open(json, "groups", '[');
  for (guint i = 0; i < groups->len; i++) {
    const Group *g = &g_array_index(groups, Group, i);
    print_row(g->stage, g->group, "", g->count, g->ms, g->flop, g->bytes, g->floor_ms);
    json_open(json, NULL, '{');
    json_text(json, "stage", g->stage);
    json_text(json, "group", g->group);
    json_count(json, "count", g->count);
    json_number(json, "ms", g->ms);
    json_number(json, "flop", g->flop);
    json_number(json, "bytes", g->bytes);
    json_number(json, "floor_ms", g->floor_ms);
    json_close(json, '}');
  }
  json_close(json, ']');
}

/* Sizes of a product as "8704 x 3072 x 15360"; empty where they say nothing. (transfer full) */
static char *sizes_of(const FkProfileRow *r) {
  if (!r->m) return g_strdup("");
  return g_strdup_printf("%" G_GINT64_FORMAT " x %" G_GINT64_FORMAT " x %" G_GINT64_FORMAT, r->m, r->n, r->k);
}

static void print_rows(const BenchOps *ops, const Bench *b) {
  printf("\nops of one edit with %d steps, by time (graphs off; floors at %.4g TFLOP/s and %.3g TB/s, %s)\n"
         "%-8s %-14s %-26s %6s %10s %9s %8s %7s\n",
         PROFILE_STEPS, b->tflops, b->tbs, b->measured, "stage", "op", "rows x columns x inner", "count", "ms",
         "TFLOP/s", "TB/s", "floor");
  json_count(b->json, "profile_steps", PROFILE_STEPS);
  json_number(b->json, "ceiling_tflops", b->tflops);
  json_number(b->json, "ceiling_tbs", b->tbs);
  json_text(b->json, "ceilings", b->measured);
  json_open(b->json, "ops", '[');
  for (size_t i = 0; i < ops->count; i++) {
    const FkProfileRow *r = &ops->rows[i];
    g_autofree char *sizes = sizes_of(r);
    if (i < SHOWN) print_row(r->stage, r->op, sizes, r->count, r->ms, r->flop, r->bytes, floor_of(r, b));
    json_open(b->json, NULL, '{');
    json_text(b->json, "stage", r->stage);
    json_text(b->json, "op", r->op);
    json_count(b->json, "m", r->m);
    json_count(b->json, "n", r->n);
    json_count(b->json, "k", r->k);
    json_count(b->json, "count", r->count);
    json_number(b->json, "ms", r->ms);
    json_number(b->json, "flop", r->flop);
    json_number(b->json, "bytes", r->bytes);
    json_close(b->json, '}');
  }
  json_close(b->json, ']');
  if (ops->count > SHOWN) printf("... and %zu more, in the JSON\n", ops->count - SHOWN);
}

bool bench_ops_run(const Bench *b, BenchOps *ops, GError **error) {
  g_autoptr(FkSettings) few = fk_settings_copy(b->settings);
  g_autofree char *steps = g_strdup_printf("%d", PROFILE_STEPS);
  if (!fk_settings_set(few, "steps", steps, error)) return false;
  /* The first run at a size loads kernels. */
  if (!fk_engine_warmup(b->engine, few, b->width, b->height, NULL, error)) return false;
  ops->rows = fk_engine_profile(b->engine, few, b->width, b->height, &ops->count, error);
  if (!ops->rows) return false;
  qsort(ops->rows, ops->count, sizeof *ops->rows, by_ms);
  ops->groups = sum_groups(ops, b);
  qsort(ops->groups->data, ops->groups->len, sizeof(Group), by_stage);
  print_groups(ops->groups, b->json);
  print_rows(ops, b);
  return true;
}

void bench_ops_clear(BenchOps *ops) {
  g_clear_pointer(&ops->rows, g_free);
  g_clear_pointer(&ops->groups, g_array_unref);
}

/* ---- Plot: bars below each other, each heading with a scale of its own ---- */

enum { WIDTH = 1040, LINE = 22, TOP = 44, LEFT = 390, RIGHT = 780, MARGIN = 12, INDENT = 24 };
enum { INK = 0x202020, BAR = 0x9ec5e8, FLOOR = 0x2f6ea5, HEADING = 0x8a3b12 };

typedef struct {
  char *label;
  double ms, floor_ms; /* ms < 0: a heading */
} Bar;

static void bar_clear(gpointer data) {
  g_free(((Bar *)data)->label);
}

static void add(GArray *bars, char *label, double ms, double floor_ms) {
  const Bar bar = {label, ms, floor_ms};
  g_array_append_val(bars, bar);
}

static GArray *bars_of(const Bench *b, const BenchTimes *t, const BenchOps *ops) {
  GArray *bars = g_array_new(FALSE, TRUE, sizeof(Bar));
  g_array_set_clear_func(bars, bar_clear);
  add(bars, g_strdup_printf("stages of an edit, %d evaluations", t->result.evaluations), -1, 0);
  add(bars, g_strdup("text"), t->text, 0);
  add(bars, g_strdup("vae encode"), t->encode, 0);
  add(bars, g_strdup("one evaluation"), t->step, 0);
  add(bars, g_strdup("vae decode"), t->decode, 0);
  if (!ops->rows) return bars;
  add(bars, g_strdup_printf("groups of ops, %d steps (dark: floor)", PROFILE_STEPS), -1, 0);
  for (guint i = 0; i < ops->groups->len; i++) {
    const Group *g = &g_array_index(ops->groups, Group, i);
    add(bars, g_strdup_printf("%s: %s", g->stage, g->group), g->ms, g->floor_ms);
  }
  add(bars, g_strdup("costliest ops (dark: floor)"), -1, 0);
  for (size_t i = 0; i < MIN(ops->count, DRAWN); i++) {
    const FkProfileRow *r = &ops->rows[i];
    g_autofree char *sizes = sizes_of(r);
    add(bars, g_strdup_printf("%s %s", r->op, r->m ? sizes : r->stage), r->ms, floor_of(r, b));
  }
  return bars;
}

/* The longest bar from `first` to the next heading. */
static double longest(const GArray *bars, guint first) {
  double most = 0;
  for (guint i = first; i < bars->len && g_array_index(bars, Bar, i).ms >= 0; i++)
    most = MAX(most, g_array_index(bars, Bar, i).ms);
  return most;
}

static void draw_bar(cairo_t *cr, const Bar *bar, double scale, double y) {
  const double length = MAX(bar->ms * scale, 1), dark = MIN(bar->floor_ms * scale, length);
  g_autofree char *note = bar->floor_ms > 0
                              ? g_strdup_printf("%.2f ms, %.0f %%", bar->ms, 100 * bar->floor_ms / bar->ms)
                              : g_strdup_printf("%.2f ms", bar->ms);
  draw_colour(cr, BAR);
  cairo_rectangle(cr, LEFT, y, length, LINE - 4);
  cairo_fill(cr);
  draw_colour(cr, FLOOR);
  cairo_rectangle(cr, LEFT, y, dark, LINE - 4);
  cairo_fill(cr);
  draw_colour(cr, INK);
  draw_text(cr, LEFT + length + 8, y + 14, 13, note);
}

bool bench_plot(const char *path, const char *title, const Bench *b, const BenchTimes *t, const BenchOps *ops,
                GError **error) {
  g_autoptr(GArray) bars = bars_of(b, t, ops);
  cairo_t *cr = draw_begin(WIDTH, TOP + LINE * ((int)bars->len + 1));
  double scale = 0;
  draw_text(cr, MARGIN, 24, 15, title);
  for (guint i = 0; i < bars->len; i++) {
    const Bar *bar = &g_array_index(bars, Bar, i);
    const bool heading = bar->ms < 0;
    const double y = TOP + LINE * (double)i, most = heading ? longest(bars, i + 1) : 0;
    draw_colour(cr, heading ? HEADING : INK);
    draw_text(cr, heading ? MARGIN : INDENT, y + 14, 13, bar->label);
    if (heading)
      scale = most > 0 ? (RIGHT - LEFT) / most : 0;
    else
      draw_bar(cr, bar, scale, y);
  }
  return draw_end(cr, path, error);
}
