/* SPDX-License-Identifier: Apache-2.0 */
/* What a result under a mask keeps of the frame's bytes; masks from metas: gstfluxkontextregions.h. */
#ifndef GST_FLUX_KONTEXT_MASK_H
#define GST_FLUX_KONTEXT_MASK_H

#include <gst/video/video.h>

#include "fk.h"

G_BEGIN_DECLS

/* Whether frames with these settings have a mask. */
gboolean gst_flux_kontext_mask_asked(const FkSettings *settings);
/* Copies the bytes of `from` (the frame) over those of `to` (its result) wherever every pixel that shares them is the
 * same in both pictures. from, to: plain memory laid out as `info`; before, after: the pictures, of its size. Of
 * formats whose pixels lie across bytes (v210 and the like) whole rows are copied or none of a row. */
void gst_flux_kontext_mask_keep(const GstVideoInfo *info, const FkImage *before, const FkImage *after,
                                const guint8 *from, guint8 *to);

G_END_DECLS

#endif
