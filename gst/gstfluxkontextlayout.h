/* SPDX-License-Identifier: Apache-2.0 */
/* Where the planes of a foreign buffer are, checked against its bytes. */
#ifndef GST_FLUX_KONTEXT_LAYOUT_H
#define GST_FLUX_KONTEXT_LAYOUT_H

#include <gst/video/video.h>

G_BEGIN_DECLS

/* Bytes of a row and rows of a plane: what its components reach; of formats whose pixels are no whole bytes the
 * stride. */
void gst_flux_kontext_layout_plane(const GstVideoInfo *info, guint plane, gsize *row, gint *rows);
/* Where the planes of a buffer of `size` bytes are: as `info` says, or the buffer's GstVideoMeta. FALSE sets error,
 * GST_STREAM_ERROR_FORMAT: they do not fit the caps or the bytes. offset, stride: of GST_VIDEO_MAX_PLANES. */
gboolean gst_flux_kontext_layout_of(const GstVideoInfo *info, GstBuffer *buffer, gsize size, gsize *offset,
                                    gint *stride, GError **error);

G_END_DECLS

#endif
