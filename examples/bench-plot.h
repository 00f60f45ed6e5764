/* SPDX-License-Identifier: Apache-2.0 */
/* Bars of fluxkontext-bench as a PNG. */
#ifndef BENCH_PLOT_H
#define BENCH_PLOT_H

#include <glib.h>
#include <stdbool.h>

/* One bar: `value` long, its first `floor` darker (0: none). Texts are (transfer none); `note` is written behind the
 * bar, `heading` true writes the label alone. */
typedef struct {
  char *label, *note;
  double value, floor;
  bool heading;
} BenchBar;

/* Bars below each other under a title; each heading begins a scale of its own. Domain G_FILE_ERROR. */
bool bench_plot_write(const char *path, const char *title, const BenchBar *bars, size_t count, GError **error);

#endif
