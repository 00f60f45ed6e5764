/* SPDX-License-Identifier: Apache-2.0 */
/* Where the pixels of a buffer are; see gstfluxkontextlayout.h. */
#include "gstfluxkontextlayout.h"

void gst_flux_kontext_layout_plane(const GstVideoInfo *info, guint plane, gsize *row, gint *rows) {
  *row = 0;
  *rows = 0;
  for (guint c = 0; c < GST_VIDEO_INFO_N_COMPONENTS(info); c++) {
    if (GST_VIDEO_FORMAT_INFO_PLANE(info->finfo, c) != plane) continue;
    gsize pixel = (gsize)GST_VIDEO_INFO_COMP_PSTRIDE(info, c);
    gsize bytes =
        pixel ? (gsize)GST_VIDEO_INFO_COMP_WIDTH(info, c) * pixel : (gsize)GST_VIDEO_INFO_PLANE_STRIDE(info, plane);
    *row = MAX(*row, bytes);
    *rows = MAX(*rows, GST_VIDEO_INFO_COMP_HEIGHT(info, c));
  }
}

/* Does the plane lie inside `size` bytes? Strides may be negative (bottom-up), rows may not overlap. */
static gboolean plane_fits(gsize offset, gint stride, gsize row, gint rows, gsize size) {
  if (offset > size || offset > G_MAXINT64 || (gsize)ABS((gint64)stride) < row) return FALSE;
  gint64 last = (gint64)offset + (gint64)stride * (rows - 1);
  gint64 low = MIN((gint64)offset, last), high = MAX((gint64)offset, last);
  return low >= 0 && (gsize)high <= size && row <= size - (gsize)high;
}

/* FALSE, with an error about the buffer. */
static gboolean refuse(GError **error, const gchar *format, ...) G_GNUC_PRINTF(2, 3);
static gboolean refuse(GError **error, const gchar *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  g_propagate_error(error, g_error_new_valist(GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT, format, arguments));
  va_end(arguments);
  return FALSE;
}

/* The layout of this buffer: the caps', or its GstVideoMeta's if consistent with the caps. */
static gboolean buffer_layout(const GstVideoInfo *info, GstBuffer *buffer, gsize *offset, gint *stride,
                              GError **error) {
  const GstVideoMeta *meta = gst_buffer_get_video_meta(buffer);
  guint n_planes = GST_VIDEO_INFO_N_PLANES(info);
  if (meta && (meta->format != GST_VIDEO_INFO_FORMAT(info) || meta->n_planes != n_planes))
    return refuse(error, "The buffer's video meta says %s and planes: %u; its caps say %s and planes: %u.",
                  gst_video_format_to_string(meta->format), meta->n_planes,
                  gst_video_format_to_string(GST_VIDEO_INFO_FORMAT(info)), n_planes);
  if (meta && (meta->width < (guint)info->width || meta->height < (guint)info->height))
    return refuse(error, "The buffer's video meta says %ux%u, less than the %dx%d of its caps.", meta->width,
                  meta->height, info->width, info->height);
  for (guint plane = 0; plane < n_planes; plane++) {
    offset[plane] = meta ? meta->offset[plane] : GST_VIDEO_INFO_PLANE_OFFSET(info, plane);
    stride[plane] = meta ? meta->stride[plane] : GST_VIDEO_INFO_PLANE_STRIDE(info, plane);
  }
  return TRUE;
}

/* Whether all planes lie inside a buffer of `size` bytes. */
static gboolean check_planes(const GstVideoInfo *info, const gsize *offset, const gint *stride, gsize size,
                             GError **error) {
  for (guint plane = 0; plane < GST_VIDEO_INFO_N_PLANES(info); plane++) {
    gsize row;
    gint rows;
    gst_flux_kontext_layout_plane(info, plane, &row, &rows);
    if (!plane_fits(offset[plane], stride[plane], row, rows, size))
      return refuse(error,
                    "Plane %u (rows: %d of %" G_GSIZE_FORMAT " bytes, stride %d, offset %" G_GSIZE_FORMAT
                    ") does not lie inside the %" G_GSIZE_FORMAT " bytes of the buffer.",
                    plane, rows, row, stride[plane], offset[plane], size);
  }
  return TRUE;
}

gboolean gst_flux_kontext_layout_of(const GstVideoInfo *info, GstBuffer *buffer, gsize size, gsize *offset,
                                    gint *stride, GError **error) {
  return buffer_layout(info, buffer, offset, stride, error) && check_planes(info, offset, stride, size, error);
}
