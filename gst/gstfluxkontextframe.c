/* SPDX-License-Identifier: Apache-2.0 */
/* Pixels between GstBuffer and FkImage: bounds, strides, planes, colour conversion.
 *
 * gst_video_frame_map() is not used on foreign buffers: it succeeds where a GstVideoMeta's stride runs past the memory,
 * reports the meta's size where that is larger than the caps', and prints criticals for other lies. So the buffer is
 * mapped as a whole, each plane is checked against the mapped bytes, and rows are copied into memory of our own, which
 * the converter then reads. The copy costs about 1 ms per megapixel, an edit at least a hundred times that.
 *
 * Not here: sizes that the engine chooses, alpha arithmetic (the engine resizes alpha and passes it on). */
#include "gstfluxkontextframe.h"

#include <string.h>

gboolean gst_flux_kontext_format_init(GstFluxKontextFormat *format, const GstVideoInfo *info) {
  memset(format, 0, sizeof(*format));
  gboolean alpha = GST_VIDEO_INFO_HAS_ALPHA(info);
  GstVideoInfo rgb;
  if (!gst_video_info_set_format(&rgb, alpha ? GST_VIDEO_FORMAT_RGBA : GST_VIDEO_FORMAT_RGB, info->width, info->height))
    return FALSE;
  format->info = *info;
  format->rgb = rgb;
  gboolean full_range = info->colorimetry.range != GST_VIDEO_COLOR_RANGE_16_235;
  if (GST_VIDEO_INFO_FORMAT(info) == GST_VIDEO_INFO_FORMAT(&rgb) && full_range) return TRUE;
  /* Only matrix and range change: primaries and transfer stay what the caps say they are. */
  format->rgb.colorimetry.primaries = info->colorimetry.primaries;
  format->rgb.colorimetry.transfer = info->colorimetry.transfer;
  /* The converter compares rates and refuses when they differ. */
  format->rgb.fps_n = info->fps_n;
  format->rgb.fps_d = info->fps_d;
  format->rgb.par_n = info->par_n;
  format->rgb.par_d = info->par_d;
  format->to_rgb = gst_video_converter_new(&format->info, &format->rgb, NULL);
  format->from_rgb = gst_video_converter_new(&format->rgb, &format->info, NULL);
  if (format->to_rgb && format->from_rgb) return TRUE;
  gst_flux_kontext_format_clear(format);
  return FALSE;
}

void gst_flux_kontext_format_clear(GstFluxKontextFormat *format) {
  g_clear_pointer(&format->to_rgb, gst_video_converter_free);
  g_clear_pointer(&format->from_rgb, gst_video_converter_free);
  memset(format, 0, sizeof(*format));
}

gboolean gst_flux_kontext_format_new_image(const GstFluxKontextFormat *format, FkImage *image) {
  *image = (FkImage){.data = g_try_malloc(GST_VIDEO_INFO_SIZE(&format->rgb)),
                     .width = format->rgb.width,
                     .height = format->rgb.height,
                     .channels = GST_VIDEO_INFO_HAS_ALPHA(&format->rgb) ? 4 : 3,
                     .stride = (size_t)GST_VIDEO_INFO_PLANE_STRIDE(&format->rgb, 0)};
  return image->data != NULL;
}

void gst_flux_kontext_image_clear(FkImage *image) {
  g_clear_pointer(&image->data, g_free);
  memset(image, 0, sizeof(*image));
}

/* A frame over plain memory laid out as `info` says; never unmapped. */
static void frame_over(GstVideoFrame *frame, const GstVideoInfo *info, guint8 *data) {
  memset(frame, 0, sizeof(*frame));
  frame->info = *info;
  frame->id = -1;
  for (guint plane = 0; plane < GST_VIDEO_INFO_N_PLANES(info); plane++)
    frame->data[plane] = data + GST_VIDEO_INFO_PLANE_OFFSET(info, plane);
}

/* Bytes of a row and rows of a plane; the first component that lies in the plane says both. */
static void plane_size(const GstVideoInfo *info, guint plane, gsize *row, gint *rows) {
  guint component = 0;
  while (GST_VIDEO_FORMAT_INFO_PLANE(info->finfo, component) != plane) component++;
  *row = (gsize)GST_VIDEO_INFO_COMP_WIDTH(info, component) * (gsize)GST_VIDEO_INFO_COMP_PSTRIDE(info, component);
  *rows = GST_VIDEO_INFO_COMP_HEIGHT(info, component);
}

/* Does the plane lie inside `size` bytes? Strides may be negative (bottom-up), rows may not overlap. */
static gboolean plane_fits(gsize offset, gint stride, gsize row, gint rows, gsize size) {
  if (offset > size || offset > G_MAXINT64 || (gsize)ABS((gint64)stride) < row) return FALSE;
  gint64 last = (gint64)offset + (gint64)stride * (rows - 1);
  gint64 low = MIN((gint64)offset, last), high = MAX((gint64)offset, last);
  return low >= 0 && (gsize)high <= size && row <= size - (gsize)high;
}

/* The layout of this buffer: the caps', or its GstVideoMeta's where that can be believed. */
static gboolean buffer_layout(const GstVideoInfo *info, GstBuffer *buffer, gsize *offset, gint *stride, gchar **why) {
  const GstVideoMeta *meta = gst_buffer_get_video_meta(buffer);
  guint n_planes = GST_VIDEO_INFO_N_PLANES(info);
  if (meta && (meta->format != GST_VIDEO_INFO_FORMAT(info) || meta->n_planes != n_planes)) {
    *why = g_strdup_printf("The buffer's video meta says %s with %u planes, the caps say %s with %u.",
                           gst_video_format_to_string(meta->format), meta->n_planes,
                           gst_video_format_to_string(GST_VIDEO_INFO_FORMAT(info)), n_planes);
    return FALSE;
  }
  if (meta && (meta->width < (guint)info->width || meta->height < (guint)info->height)) {
    *why = g_strdup_printf("The buffer's video meta says %ux%u, less than the %dx%d of the caps.", meta->width,
                           meta->height, info->width, info->height);
    return FALSE;
  }
  for (guint plane = 0; plane < n_planes; plane++) {
    offset[plane] = meta ? meta->offset[plane] : GST_VIDEO_INFO_PLANE_OFFSET(info, plane);
    stride[plane] = meta ? meta->stride[plane] : GST_VIDEO_INFO_PLANE_STRIDE(info, plane);
  }
  return TRUE;
}

/* Copies all planes between a foreign buffer and memory laid out as `info` (to_buffer: which way). */
static gboolean copy_planes(const GstVideoInfo *info, GstBuffer *buffer, guint8 *plain, gboolean to_buffer,
                            gchar **why) {
  gsize offset[GST_VIDEO_MAX_PLANES];
  gint stride[GST_VIDEO_MAX_PLANES];
  if (!buffer_layout(info, buffer, offset, stride, why)) return FALSE;
  GstMapInfo map;
  if (!gst_buffer_map(buffer, &map, to_buffer ? GST_MAP_WRITE : GST_MAP_READ)) {
    *why = g_strdup("The buffer's memory cannot be mapped.");
    return FALSE;
  }
  for (guint plane = 0; plane < GST_VIDEO_INFO_N_PLANES(info) && !*why; plane++) {
    gsize row;
    gint rows;
    plane_size(info, plane, &row, &rows);
    if (!plane_fits(offset[plane], stride[plane], row, rows, map.size)) {
      *why = g_strdup_printf("Plane %u (%d rows of %" G_GSIZE_FORMAT " bytes, stride %d, offset %" G_GSIZE_FORMAT
                             ") does not lie inside the %" G_GSIZE_FORMAT " bytes of the buffer.",
                             plane, rows, row, stride[plane], offset[plane], map.size);
      break;
    }
    guint8 *ours = plain + GST_VIDEO_INFO_PLANE_OFFSET(info, plane);
    guint8 *theirs = map.data + offset[plane];
    for (gint y = 0; y < rows; y++) {
      guint8 *our_row = ours + (gssize)y * GST_VIDEO_INFO_PLANE_STRIDE(info, plane);
      guint8 *their_row = theirs + (gssize)y * stride[plane];
      memcpy(to_buffer ? their_row : our_row, to_buffer ? our_row : their_row, row);
    }
  }
  gst_buffer_unmap(buffer, &map);
  return *why == NULL;
}

gboolean gst_flux_kontext_format_read(const GstFluxKontextFormat *format, GstBuffer *buffer, FkImage *image,
                                      gchar **why) {
  *why = NULL;
  if (!gst_flux_kontext_format_new_image(format, image)) {
    *why = g_strdup_printf("No memory for a frame of %dx%d.", format->info.width, format->info.height);
    return FALSE;
  }
  g_autofree guint8 *plain = format->to_rgb ? g_malloc(GST_VIDEO_INFO_SIZE(&format->info)) : NULL;
  if (!copy_planes(&format->info, buffer, plain ? plain : image->data, FALSE, why)) {
    gst_flux_kontext_image_clear(image);
    return FALSE;
  }
  if (!plain) return TRUE;
  GstVideoFrame from, to;
  frame_over(&from, &format->info, plain);
  frame_over(&to, &format->rgb, image->data);
  gst_video_converter_frame(format->to_rgb, &from, &to);
  return TRUE;
}

gboolean gst_flux_kontext_format_write(const GstFluxKontextFormat *format, const FkImage *image, GstBuffer *buffer,
                                       gchar **why) {
  *why = NULL;
  if (!format->from_rgb) return copy_planes(&format->info, buffer, image->data, TRUE, why);
  g_autofree guint8 *plain = g_malloc(GST_VIDEO_INFO_SIZE(&format->info));
  GstVideoFrame from, to;
  frame_over(&from, &format->rgb, image->data);
  frame_over(&to, &format->info, plain);
  gst_video_converter_frame(format->from_rgb, &from, &to);
  return copy_planes(&format->info, buffer, plain, TRUE, why);
}

gboolean gst_flux_kontext_format_scale(const GstFluxKontextFormat *from, GstBuffer *in, const GstFluxKontextFormat *to,
                                       GstBuffer *out, gchar **why) {
  *why = NULL;
  g_autofree guint8 *source = g_malloc(GST_VIDEO_INFO_SIZE(&from->info));
  g_autofree guint8 *result = g_malloc(GST_VIDEO_INFO_SIZE(&to->info));
  if (!copy_planes(&from->info, in, source, FALSE, why)) return FALSE;
  GstVideoConverter *scaler = gst_video_converter_new(&from->info, &to->info, NULL);
  if (!scaler) {
    *why = g_strdup("The frame cannot be scaled to the output's size.");
    return FALSE;
  }
  GstVideoFrame source_frame, result_frame;
  frame_over(&source_frame, &from->info, source);
  frame_over(&result_frame, &to->info, result);
  gst_video_converter_frame(scaler, &source_frame, &result_frame);
  gst_video_converter_free(scaler);
  return copy_planes(&to->info, out, result, TRUE, why);
}
