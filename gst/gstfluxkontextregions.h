/* SPDX-License-Identifier: Apache-2.0 */
/* Masks of frames from the metas of their buffers: regions of interest, and what GstAnalytics (GStreamer 1.24,
 * segmentation 1.26) says. The library of GstAnalytics is found in the process, which has it when a buffer carries such
 * a meta; nothing here needs it to build or to load. */
#ifndef GST_FLUX_KONTEXT_REGIONS_H
#define GST_FLUX_KONTEXT_REGIONS_H

#include <gst/video/video.h>

#include "fk.h"

G_BEGIN_DECLS

/* The mask of what a buffer's metas cover: rectangles of GstVideoRegionOfInterestMeta, of GstAnalytics objects and
 * segmented regions. Of those of the type or class that `mask-type` names; where it names none of all but regions with
 * the number 0, the background. An object that has a segmentation is taken by it, others by their box. Empty where the
 * settings ask for no such mask. FALSE: no memory, or a segmentation that cannot be read. Free with
 * gst_flux_kontext_image_clear, also then. */
gboolean gst_flux_kontext_regions_mask(const FkSettings *settings, const GstVideoInfo *info, GstBuffer *buffer,
                                       FkImage *mask, GError **error);

G_END_DECLS

#endif
