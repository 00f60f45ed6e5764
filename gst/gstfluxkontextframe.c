/* SPDX-License-Identifier: Apache-2.0 */
/* Pixels between GstBuffer and FkImage: bounds, strides, planes, layouts; colours are gstfluxkontextpixels.c's.
 *
 * gst_video_frame_map() is not used on foreign buffers: it succeeds where a GstVideoMeta's stride runs past the memory,
 * reports the meta's size where that is larger than the caps', and prints criticals for other lies. So the buffer is
 * mapped as a whole, each plane is checked against the mapped bytes (gstfluxkontextlayout.c), and rows are copied into
 * memory of our own, which the converter then reads. The copy costs about 1 ms per megapixel, an edit at least a
 * hundred times that.
 *
 * Not here: sizes that the engine chooses, alpha arithmetic (the engine resizes alpha and passes it on). */
#include "gstfluxkontextframe.h"

#include "gstfluxkontextcuda.h"
#include "gstfluxkontextlayout.h"
#include "gstfluxkontextmask.h"
#include "gstfluxkontextpixels.h"

#include <string.h>

/* Same picture as `info` in another format of the same family, or in RGB. Between RGB and RGB the range stays: what
 * libgstvideo does there is not the same in all versions, 1.22 nothing. */
static gboolean like(GstVideoInfo *result, GstVideoFormat format, const GstVideoInfo *info) {
  if (!gst_video_info_set_format(result, format, (guint)info->width, (guint)info->height)) return FALSE;
  if (GST_VIDEO_INFO_IS_YUV(result)) {
    result->colorimetry = info->colorimetry;
    result->chroma_site = info->chroma_site;
  }
  if (GST_VIDEO_INFO_IS_RGB(result) && GST_VIDEO_INFO_IS_RGB(info)) result->colorimetry.range = info->colorimetry.range;
  result->colorimetry.primaries = info->colorimetry.primaries;
  result->colorimetry.transfer = info->colorimetry.transfer;
  result->fps_n = info->fps_n; /* the converter refuses where these differ */
  result->fps_d = info->fps_d;
  result->par_n = info->par_n;
  result->par_d = info->par_d;
  return TRUE;
}

/* Options of a converter to `info`. Values come rounded to more than 8 bits already; 5 and 6 bits are dithered, as
 * videoconvert does. (transfer full, nullable) */
static GstStructure *plain(const GstVideoInfo *info) {
  if (GST_VIDEO_INFO_COMP_DEPTH(info, 0) < 8) return NULL;
  return gst_structure_new("options", GST_VIDEO_CONVERTER_OPT_DITHER_METHOD, GST_TYPE_VIDEO_DITHER_METHOD,
                           GST_VIDEO_DITHER_NONE, NULL);
}

gboolean gst_flux_kontext_format_init(GstFluxKontextFormat *format, const GstVideoInfo *info) {
  memset(format, 0, sizeof(*format));
  if (!gst_flux_kontext_pixels_convertible(info)) return FALSE;
  GstVideoFormat rgb = GST_VIDEO_INFO_HAS_ALPHA(info) ? GST_VIDEO_FORMAT_RGBA : GST_VIDEO_FORMAT_RGB;
  GstVideoFormat middle = gst_flux_kontext_pixels_middle(info, rgb);
  if (!like(&format->rgb, rgb, info) || !like(&format->middle, middle, info)) return FALSE;
  format->info = *info;
  gboolean full_range = info->colorimetry.range != GST_VIDEO_COLOR_RANGE_16_235;
  if (GST_VIDEO_INFO_FORMAT(info) == rgb && full_range) return TRUE;
  format->to_middle = gst_video_converter_new(&format->info, &format->middle, NULL);
  format->from_middle = gst_video_converter_new(&format->middle, &format->info, plain(info));
  if (format->to_middle && format->from_middle) return TRUE;
  gst_flux_kontext_format_clear(format);
  return FALSE;
}

void gst_flux_kontext_format_clear(GstFluxKontextFormat *format) {
  g_clear_pointer(&format->to_middle, gst_video_converter_free);
  g_clear_pointer(&format->from_middle, gst_video_converter_free);
  memset(format, 0, sizeof(*format));
}

/* Memory for a frame laid out as `info`, all 0: what a converter leaves out (padding) is defined. A frame's size comes
 * from outside and may be too large, which does not end the application. NULL sets error. */
static guint8 *frame_memory(const GstVideoInfo *info, GError **error) {
  guint8 *memory = g_try_malloc0(GST_VIDEO_INFO_SIZE(info));
  if (!memory)
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "No memory for a frame of %dx%d, %" G_GSIZE_FORMAT " bytes.",
                info->width, info->height, GST_VIDEO_INFO_SIZE(info));
  return memory;
}

gboolean gst_flux_kontext_format_new_image(const GstFluxKontextFormat *format, FkImage *image, GError **error) {
  *image = (FkImage){.data = frame_memory(&format->rgb, error),
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

/* Copies all planes between a foreign buffer and memory laid out as `info` (to_buffer: which way). A buffer that is
 * written is set to 0 first: its padding goes to other programs and must not hold what its memory was used for. */
static gboolean copy_planes(const GstVideoInfo *info, GstBuffer *buffer, guint8 *plain, gboolean to_buffer,
                            GError **error) {
  gsize offset[GST_VIDEO_MAX_PLANES];
  gint stride[GST_VIDEO_MAX_PLANES];
  GstFluxKontextBytes bytes;
  if (!gst_flux_kontext_bytes_open(&bytes, buffer, to_buffer, error)) return FALSE;
  gboolean fits = gst_flux_kontext_layout_of(info, buffer, bytes.size, offset, stride, error);
  if (fits && to_buffer) memset(bytes.data, 0, bytes.size);
  for (guint plane = 0; fits && plane < GST_VIDEO_INFO_N_PLANES(info); plane++) {
    gsize row;
    gint rows;
    gst_flux_kontext_layout_plane(info, plane, &row, &rows);
    guint8 *ours = plain + GST_VIDEO_INFO_PLANE_OFFSET(info, plane);
    guint8 *theirs = bytes.data + offset[plane];
    for (gint y = 0; y < rows; y++) {
      guint8 *our_row = ours + (gssize)y * GST_VIDEO_INFO_PLANE_STRIDE(info, plane);
      guint8 *their_row = theirs + (gssize)y * stride[plane];
      memcpy(to_buffer ? their_row : our_row, to_buffer ? our_row : their_row, row);
    }
  }
  return gst_flux_kontext_bytes_close(&bytes, buffer, fits, error) && fits;
}

guint8 *gst_flux_kontext_frame_bytes(const GstVideoInfo *info, GstBuffer *buffer, GError **error) {
  g_autofree guint8 *plain = frame_memory(info, error);
  return plain && copy_planes(info, buffer, plain, FALSE, error) ? g_steal_pointer(&plain) : NULL;
}

/* Whether the converter's format is what the engine takes. */
static gboolean is_direct(const GstFluxKontextFormat *format) {
  return GST_VIDEO_INFO_FORMAT(&format->middle) == GST_VIDEO_INFO_FORMAT(&format->rgb);
}

/* With a converter of its own where there are one or two rows: of such, libgstvideo 1.22 gives the first 4:2:0 frame
 * again. */
static void convert(GstVideoConverter *kept, const GstVideoFrame *from, GstVideoFrame *to) {
  if (from->info.height > 2) {
    gst_video_converter_frame(kept, from, to);
    return;
  }
  GstVideoConverter *once =
      gst_video_converter_new(&from->info, &to->info, gst_structure_copy(gst_video_converter_get_config(kept)));
  gst_video_converter_frame(once ? once : kept, from, to);
  g_clear_pointer(&once, gst_video_converter_free);
}

static guint depth_of(const GstFluxKontextFormat *format) {
  return (guint)GST_VIDEO_INFO_COMP_DEPTH(&format->info, 0);
}

gboolean gst_flux_kontext_format_read(const GstFluxKontextFormat *format, GstBuffer *buffer, FkImage *image,
                                      GError **error) {
  gboolean direct = is_direct(format);
  g_autofree guint8 *plain = NULL, *middle = NULL;
  if (!gst_flux_kontext_format_new_image(format, image, error)) return FALSE;
  if ((format->to_middle && !(plain = frame_memory(&format->info, error))) ||
      (!direct && !(middle = frame_memory(&format->middle, error))) ||
      !copy_planes(&format->info, buffer, plain ? plain : image->data, FALSE, error)) {
    gst_flux_kontext_image_clear(image);
    return FALSE;
  }
  if (!plain) return TRUE;
  GstVideoFrame from, to;
  frame_over(&from, &format->info, plain);
  frame_over(&to, &format->middle, direct ? image->data : middle);
  convert(format->to_middle, &from, &to);
  if (!direct) gst_flux_kontext_pixels_to_rgb(&format->middle, depth_of(format), middle, image);
  if (gst_flux_kontext_pixels_limited(&format->info)) gst_flux_kontext_pixels_range(image, TRUE);
  return TRUE;
}

/* before, in: nullable together. */
static gboolean write_image(const GstFluxKontextFormat *format, const FkImage *image, const FkImage *before,
                            GstBuffer *in, GstBuffer *buffer, GError **error) {
  if (!format->from_middle) return copy_planes(&format->info, buffer, image->data, TRUE, error);
  gboolean direct = is_direct(format);
  g_autofree guint8 *plain = frame_memory(&format->info, error), *middle = NULL, *narrow = NULL;
  if (!plain || (!direct && !(middle = frame_memory(&format->middle, error)))) return FALSE;
  const FkImage *result = image;
  FkImage own = *image;
  if (gst_flux_kontext_pixels_limited(&format->info)) {
    if (!(narrow = frame_memory(&format->rgb, error))) return FALSE;
    memcpy(narrow, image->data, image->stride * (gsize)image->height);
    own.data = narrow;
    gst_flux_kontext_pixels_range(&own, FALSE);
    image = &own;
  }
  if (!direct) gst_flux_kontext_pixels_from_rgb(&format->middle, depth_of(format), image, middle);
  GstVideoFrame from, to;
  frame_over(&from, &format->middle, direct ? image->data : middle);
  frame_over(&to, &format->info, plain);
  convert(format->from_middle, &from, &to);
  if (before) {
    g_autofree guint8 *source = frame_memory(&format->info, error);
    if (!source || !copy_planes(&format->info, in, source, FALSE, error)) return FALSE;
    gst_flux_kontext_mask_keep(&format->info, before, result, source, plain);
  }
  return copy_planes(&format->info, buffer, plain, TRUE, error);
}

gboolean gst_flux_kontext_format_write(const GstFluxKontextFormat *format, const FkImage *image, GstBuffer *buffer,
                                       GError **error) {
  return write_image(format, image, NULL, NULL, buffer, error);
}

gboolean gst_flux_kontext_format_write_kept(const GstFluxKontextFormat *format, const FkImage *image,
                                            const FkImage *before, GstBuffer *in, GstBuffer *out, GError **error) {
  return write_image(format, image, before, in, out, error);
}

static gboolean refuse_scale(GError **error) {
  g_set_error_literal(error, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT,
                      "The frame cannot be scaled to the output's size.");
  return FALSE;
}

gboolean gst_flux_kontext_format_scale(const GstFluxKontextFormat *from, GstBuffer *in, const GstFluxKontextFormat *to,
                                       GstBuffer *out, GError **error) {
  if (!gst_flux_kontext_pixels_convertible(&from->info) || !gst_flux_kontext_pixels_convertible(&to->info))
    return refuse_scale(error);
  g_autofree guint8 *source = frame_memory(&from->info, error), *result = NULL;
  if (!source || !(result = frame_memory(&to->info, error)) || !copy_planes(&from->info, in, source, FALSE, error))
    return FALSE;
  GstVideoConverter *scaler = gst_video_converter_new(&from->info, &to->info, NULL);
  if (!scaler) return refuse_scale(error);
  GstVideoFrame source_frame, result_frame;
  frame_over(&source_frame, &from->info, source);
  frame_over(&result_frame, &to->info, result);
  gst_video_converter_frame(scaler, &source_frame, &result_frame);
  gst_video_converter_free(scaler);
  return copy_planes(&to->info, out, result, TRUE, error);
}
