/* SPDX-License-Identifier: Apache-2.0 */
/* Formats between those of libgstvideo and the engine's R G B (A): which one stands between, and the arithmetic that
 * libgstvideo does too coarsely. Plain memory, no buffers. */
#ifndef GST_FLUX_KONTEXT_PIXELS_H
#define GST_FLUX_KONTEXT_PIXELS_H

#include <gst/video/video.h>

#include "fk.h"

G_BEGIN_DECLS

/* Formats that the element takes: all raw ones but tiled and palette formats, the plain ones first. (transfer full) */
GstCaps *gst_flux_kontext_pixels_caps(void);
/* FALSE: tiled, a palette, or an odd width whose last column has no chroma of its own in a packed format:
 * libgstvideo 1.22 reads and writes memory that is not the picture's then. */
gboolean gst_flux_kontext_pixels_convertible(const GstVideoInfo *info);
/* The format that a converter makes of `info` and takes for it; `rgb` where that is what the engine takes. */
GstVideoFormat gst_flux_kontext_pixels_middle(const GstVideoInfo *info, GstVideoFormat rgb);
/* Where the values of pixels lie, for the engine's own conversion on its device; addresses and strides are left 0.
 * FALSE: it has none for such frames. planes: nullable. */
gboolean gst_flux_kontext_pixels_planes(const GstVideoInfo *info, FkPlanes *planes);
/* middle: of the memory, never the engine's own; depth: bits of the format that it was made of, or that is made of it;
 * image: of the same size. */
void gst_flux_kontext_pixels_to_rgb(const GstVideoInfo *middle, guint depth, const guint8 *data, FkImage *image);
void gst_flux_kontext_pixels_from_rgb(const GstVideoInfo *middle, guint depth, const FkImage *image, guint8 *data);
/* Whether R G B goes from 16 to 235; and such values to 0..255 (widen) or back, nearest, alpha left alone. */
gboolean gst_flux_kontext_pixels_limited(const GstVideoInfo *info);
void gst_flux_kontext_pixels_range(FkImage *image, gboolean widen);

G_END_DECLS

#endif
