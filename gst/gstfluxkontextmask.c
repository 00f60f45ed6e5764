/* SPDX-License-Identifier: Apache-2.0 */
/* The frame's own bytes where nothing was edited; see gstfluxkontextmask.h.
 *
 * A result is made of R G B, which a frame's format may not return to the bytes that it came from: chroma of two
 * columns is one value, ten bits are eight. Where the engine gives a frame's pixel back, its bytes are copied instead.
 */
#include "gstfluxkontextmask.h"

#include <string.h>

gboolean gst_flux_kontext_mask_asked(const FkSettings *settings) {
  const char *path = fk_settings_get(settings, "mask-path");
  return g_strcmp0(fk_settings_get(settings, "mask"), "none") != 0 || (path && *path);
}

/* Columns x0..x1 and rows y0..y1, cut at the picture's ends. */
static gboolean unchanged(const FkImage *a, const FkImage *b, gint x0, gint y0, gint x1, gint y1) {
  gsize n = (gsize)(MIN(x1, a->width) - x0) * (gsize)a->channels, at = (gsize)x0 * (gsize)a->channels;
  for (gint y = y0; y < MIN(y1, a->height); y++)
    if (memcmp(a->data + (gsize)y * a->stride + at, b->data + (gsize)y * b->stride + at, n)) return FALSE;
  return TRUE;
}

/* What lies together in a plane: a unit of bytes, and the pixels that share it. bytes 0: across bytes. */
typedef struct {
  gint bytes, across, down;
} Unit;

static Unit unit_of(const GstVideoInfo *info, guint plane) {
  Unit unit = {0, 1, 1};
  for (guint c = 0; c < GST_VIDEO_INFO_N_COMPONENTS(info); c++) {
    if (GST_VIDEO_FORMAT_INFO_PLANE(info->finfo, c) != plane) continue;
    unit.bytes = MAX(unit.bytes, GST_VIDEO_INFO_COMP_PSTRIDE(info, c));
    unit.across = MAX(unit.across, 1 << GST_VIDEO_FORMAT_INFO_W_SUB(info->finfo, c));
    unit.down = MAX(unit.down, 1 << GST_VIDEO_FORMAT_INFO_H_SUB(info->finfo, c));
  }
  if (GST_VIDEO_FORMAT_INFO_IS_COMPLEX(info->finfo)) unit.bytes = 0;
  return unit;
}

static void keep_row(const FkImage *before, const FkImage *after, Unit unit, gint y, const guint8 *from, guint8 *to,
                     gsize bytes) {
  gint top = y * unit.down, bottom = top + unit.down;
  if (unchanged(before, after, 0, top, before->width, bottom)) {
    memcpy(to, from, bytes);
    return;
  }
  gsize at = 0;
  for (gint x = 0; unit.bytes && x < before->width; x += unit.across, at += (gsize)unit.bytes)
    if (at + (gsize)unit.bytes <= bytes && unchanged(before, after, x, top, x + unit.across, bottom))
      memcpy(to + at, from + at, (gsize)unit.bytes);
}

void gst_flux_kontext_mask_keep(const GstVideoInfo *info, const FkImage *before, const FkImage *after,
                                const guint8 *from, guint8 *to) {
  for (guint plane = 0; plane < GST_VIDEO_INFO_N_PLANES(info); plane++) {
    Unit unit = unit_of(info, plane);
    gsize start = GST_VIDEO_INFO_PLANE_OFFSET(info, plane), stride = (gsize)GST_VIDEO_INFO_PLANE_STRIDE(info, plane);
    for (gint y = 0; y * unit.down < info->height; y++)
      keep_row(before, after, unit, y, from + start + (gsize)y * stride, to + start + (gsize)y * stride, stride);
  }
}
