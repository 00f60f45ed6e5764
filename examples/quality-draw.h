/* SPDX-License-Identifier: Apache-2.0 */
/* The two pictures of a tier, written as PNG by cairo: PSNR over FLOP, and a grid of results to look at. */
#ifndef QUALITY_DRAW_H
#define QUALITY_DRAW_H

#include "quality-table.h"

/* Median PSNR over the transformer's FLOP (logarithmic, as a share of the exact edit's): plain Euler as a line, every
 * other setting as a point named beside it. */
bool quality_plot(const char *path, const GArray *summaries, const char *title, GError **error);

/* One labelled row of the grid. */
typedef struct {
  char *label;   /* above the result */
  FkImage image; /* 8-bit RGB; owns data */
} QualityTile;

/* (transfer full): no tiles yet. */
GPtrArray *quality_tiles_new(void);
/* The picture of a file; the tile takes the label. */
bool quality_tiles_add(GPtrArray *tiles, const char *path, char *label, GError **error);
/* tiles: QualityTile; [0] the original, [1] the exact result, then the settings' results, each with its difference from
 * [1] times 8 (grey: none) beside it. All of one size, drawn with `cell` pixels on the longer side. */
bool quality_grid(const char *path, const GPtrArray *tiles, const char *title, int cell, GError **error);

/* tiles: an exact result and another of the same case in turn; two such pairs in a row, each with its difference, as
 * above. */
bool quality_grid_pairs(const char *path, const GPtrArray *tiles, const char *title, int cell, GError **error);

#endif
