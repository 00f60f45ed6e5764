/* SPDX-License-Identifier: Apache-2.0 */
/* A Y' Cb Cr to R G B and back, and 16 bits to 8 and back.
 *
 * libgstvideo changes the chroma resolution and the layout and nothing else: between 8-bit Y'CbCr and RGB it multiplies
 * in 8 bits, up to 6 off and 2.4 too dark on average, which an edit would add twice, and it dithers when bits go. With
 * Y' in 0..1 and Cb, Cr in -1/2..1/2 (ITU-R BT.601, BT.709, BT.2020): Y' = Kr R + Kg G + Kb B, Cb = (B - Y') / 2(1 -
 * Kb), Cr = (R - Y') / 2(1 - Kr). Grey is Y' without colour. */
#include "gstfluxkontextpixels.h"

/* ---- Which formats ---- */

/* Tiles are a hardware decoder's layout; a palette has too few colours to say an edit in. */
static gboolean is_taken(GstVideoFormat format) {
  const GstVideoFormatInfo *info = gst_video_format_get_info(format);
  return !GST_VIDEO_FORMAT_INFO_IS_TILED(info) && !GST_VIDEO_FORMAT_INFO_HAS_PALETTE(info);
}

gboolean gst_flux_kontext_pixels_convertible(const GstVideoInfo *info) {
  gboolean packed = GST_VIDEO_INFO_N_PLANES(info) == 1 || GST_VIDEO_FORMAT_INFO_IS_COMPLEX(info->finfo) ||
                    GST_VIDEO_INFO_FORMAT(info) == GST_VIDEO_FORMAT_NV61;
  gboolean shared = GST_VIDEO_INFO_IS_YUV(info) && GST_VIDEO_FORMAT_INFO_W_SUB(info->finfo, 1) > 0;
  return is_taken(GST_VIDEO_INFO_FORMAT(info)) && !(packed && shared && info->width % 2);
}

GstCaps *gst_flux_kontext_pixels_caps(void) {
  static const GstVideoFormat plain[] = {GST_VIDEO_FORMAT_RGB,  GST_VIDEO_FORMAT_BGR,  GST_VIDEO_FORMAT_RGBx,
                                         GST_VIDEO_FORMAT_BGRx, GST_VIDEO_FORMAT_RGBA, GST_VIDEO_FORMAT_BGRA,
                                         GST_VIDEO_FORMAT_NV12, GST_VIDEO_FORMAT_I420};
  guint n;
  const GstVideoFormat *all = gst_video_formats_raw(&n);
  g_autoptr(GArray) taken = g_array_new(FALSE, FALSE, sizeof(GstVideoFormat));
  g_array_append_vals(taken, plain, G_N_ELEMENTS(plain));
  for (guint i = 0; i < n; i++) {
    gboolean listed = !is_taken(all[i]);
    for (guint k = 0; k < G_N_ELEMENTS(plain); k++) listed |= all[i] == plain[k];
    if (!listed) g_array_append_val(taken, all[i]);
  }
  return gst_video_make_raw_caps((const GstVideoFormat *)(const void *)taken->data, taken->len);
}

GstVideoFormat gst_flux_kontext_pixels_middle(const GstVideoInfo *info, GstVideoFormat rgb) {
  gboolean wide = GST_VIDEO_INFO_COMP_DEPTH(info, 0) > 8;
  if (GST_VIDEO_INFO_IS_YUV(info) || GST_VIDEO_INFO_IS_GRAY(info))
    return wide ? GST_VIDEO_FORMAT_AYUV64 : GST_VIDEO_FORMAT_AYUV;
  return wide ? GST_VIDEO_FORMAT_ARGB64 : rgb;
}

/* ---- Planes ---- */

/* Values of 8 bits, or of more in the upper bits of little-endian words. */
static gboolean is_plain(const GstVideoFormatInfo *format) {
  gint depth = (gint)GST_VIDEO_FORMAT_INFO_DEPTH(format, 0);
  gboolean upper = GST_VIDEO_FORMAT_INFO_IS_LE(format) && (gint)GST_VIDEO_FORMAT_INFO_SHIFT(format, 0) == 16 - depth;
  return !GST_VIDEO_FORMAT_INFO_IS_COMPLEX(format) && !GST_VIDEO_FORMAT_INFO_IS_TILED(format) &&
         !GST_VIDEO_FORMAT_INFO_HAS_PALETTE(format) && (depth == 8 || (depth > 8 && upper));
}

static FkSample sample_of(const GstVideoFormatInfo *format, guint c) {
  gint offset = (gint)GST_VIDEO_FORMAT_INFO_POFFSET(format, c);
  gboolean in_words = GST_VIDEO_FORMAT_INFO_DEPTH(format, c) > 8 && offset == 1; /* P010's and P016's V */
  return (FkSample){.plane = (int)GST_VIDEO_FORMAT_INFO_PLANE(format, c),
                    .offset = in_words ? 2 : offset,
                    .step = GST_VIDEO_FORMAT_INFO_PSTRIDE(format, c),
                    .shift_x = (int)GST_VIDEO_FORMAT_INFO_W_SUB(format, c),
                    .shift_y = (int)GST_VIDEO_FORMAT_INFO_H_SUB(format, c)};
}

/* The byte that RGBx and the like leave to nobody. */
static FkSample filler_of(const FkSample *sample) {
  if (sample[0].step != 4) return (FkSample){0};
  return (FkSample){.offset = 0 + 1 + 2 + 3 - sample[0].offset - sample[1].offset - sample[2].offset, .step = 4};
}

static void chroma_of(const GstVideoInfo *info, FkPlanes *planes) {
  GstVideoFormat format = GST_VIDEO_INFO_FORMAT(info);
  gboolean whole = info->width % 2 == 0 && info->height % 2 == 0;
  gboolean blocks = format == GST_VIDEO_FORMAT_I420 || format == GST_VIDEO_FORMAT_YV12;
  if (!gst_video_color_matrix_get_Kr_Kb(info->colorimetry.matrix, &planes->kr, &planes->kb))
    gst_video_color_matrix_get_Kr_Kb(GST_VIDEO_COLOR_MATRIX_BT601, &planes->kr, &planes->kb);
  planes->up = blocks ? FK_CHROMA_BLOCK : FK_CHROMA_LINEAR;
  planes->down = blocks && whole ? FK_CHROMA_BLOCK : FK_CHROMA_LINEAR;
  planes->cosited_x = (info->chroma_site & GST_VIDEO_CHROMA_SITE_H_COSITED) != 0;
  planes->cosited_y = (info->chroma_site & GST_VIDEO_CHROMA_SITE_V_COSITED) != 0;
}

gboolean gst_flux_kontext_pixels_planes(const GstVideoInfo *info, FkPlanes *planes) {
  const GstVideoFormatInfo *format = info->finfo;
  FkPlanes unused;
  if (!planes) planes = &unused;
  *planes = (FkPlanes){.depth = GST_VIDEO_FORMAT_INFO_DEPTH(format, 0), .ycbcr = GST_VIDEO_INFO_IS_YUV(info)};
  if (!is_plain(format) || (!planes->ycbcr && !GST_VIDEO_INFO_IS_RGB(info))) return FALSE;
  if (!planes->ycbcr && planes->depth > 8) return FALSE;
  planes->limited = info->colorimetry.range == GST_VIDEO_COLOR_RANGE_16_235;
  for (guint c = 0; c < GST_VIDEO_FORMAT_INFO_N_COMPONENTS(format); c++) planes->sample[c] = sample_of(format, c);
  if (!planes->ycbcr && !GST_VIDEO_FORMAT_INFO_HAS_ALPHA(format)) planes->sample[3] = filler_of(planes->sample);
  if (planes->ycbcr) chroma_of(info, planes);
  return TRUE;
}

/* ---- Arithmetic ---- */

/* Value i of 8 or, in the machine's order, of 16 bits. */
static gint get(const guint8 *data, gsize i, gboolean wide) {
  return wide ? ((const guint16 *)(const void *)data)[i] : data[i];
}

static void put(guint8 *data, gsize i, gboolean wide, gint value) {
  if (wide)
    ((guint16 *)(void *)data)[i] = (guint16)value;
  else
    data[i] = (guint8)value;
}

/* Nearest; halves go up. */
static guint8 to_byte(gdouble value) {
  return (guint8)(CLAMP(value, 0, 255) + 0.5);
}

typedef struct {
  gdouble kr, kg, kb;
  gint luma_offset, luma_scale, chroma_offset, chroma_scale; /* 16, 219, 128 and 224 or 0, 255, 128 and 255 of 8 bits */
  guint depth;                                               /* bits of the format on the other side of the converter */
  gint step; /* of its values in the memory: its bits are the upper ones */
  gint top;  /* largest value of the memory */
} Matrix;

static Matrix matrix_of(const GstVideoInfo *middle, guint depth) {
  gboolean wide = GST_VIDEO_INFO_COMP_DEPTH(middle, 0) > 8;
  gboolean limited = middle->colorimetry.range == GST_VIDEO_COLOR_RANGE_16_235;
  Matrix m = {.depth = depth, .step = wide ? 1 << (16 - depth) : 1, .top = wide ? 65535 : 255};
  if (!gst_video_color_matrix_get_Kr_Kb(middle->colorimetry.matrix, &m.kr, &m.kb))
    gst_video_color_matrix_get_Kr_Kb(GST_VIDEO_COLOR_MATRIX_BT601, &m.kr, &m.kb);
  m.kg = 1 - m.kr - m.kb;
  gint more = 1 << (depth - 8);
  m.luma_offset = limited ? 16 * more * m.step : 0;
  m.luma_scale = (limited ? 219 * more : 256 * more - 1) * m.step;
  m.chroma_offset = 128 * more * m.step;
  m.chroma_scale = (limited ? 224 * more : 256 * more - 1) * m.step;
  return m;
}

/* Luma is never resampled: its bits are as they were. */
static gint taken_luma(const Matrix *m, const guint8 *data, gsize i) {
  return get(data, i, m->top > 255) / m->step * m->step;
}

/* Value i of the memory. The converter repeats the upper bits in the lower ones, which are taken off: 64 of 10 bits is
 * 4096, not 4100. */
static gint taken(const Matrix *m, const guint8 *data, gsize i) {
  gint value = get(data, i, m->top > 255);
  return m->step > 1 ? value - (value >> m->depth) : value;
}

/* The nearest one that the format behind has. */
static gint to_value(const Matrix *m, gdouble value) {
  gint most = (m->top + 1) / m->step - 1;
  return (gint)(CLAMP(value / m->step, 0, most) + 0.5) * m->step;
}

static void row_ycbcr_to_rgb(const Matrix *m, const guint8 *from, guint8 *to, gint width, gint channels) {
  gboolean wide = m->top > 255;
  for (gsize i = 0; i < 4 * (gsize)width; i += 4, to += channels) {
    gdouble luma = (gdouble)(taken_luma(m, from, i + 1) - m->luma_offset) / m->luma_scale;
    gdouble red = luma + 2 * (1 - m->kr) * (taken(m, from, i + 3) - m->chroma_offset) / m->chroma_scale;
    gdouble blue = luma + 2 * (1 - m->kb) * (taken(m, from, i + 2) - m->chroma_offset) / m->chroma_scale;
    to[0] = to_byte(255 * red);
    to[1] = to_byte(255 * (luma - m->kr * red - m->kb * blue) / m->kg);
    to[2] = to_byte(255 * blue);
    if (channels == 4) to[3] = to_byte(255.0 * get(from, i, wide) / m->top);
  }
}

static void row_rgb_to_ycbcr(const Matrix *m, const guint8 *from, guint8 *to, gint width, gint channels) {
  gboolean wide = m->top > 255;
  for (gsize i = 0; i < 4 * (gsize)width; i += 4, from += channels) {
    gdouble red = from[0] / 255.0, blue = from[2] / 255.0;
    gdouble luma = m->kr * red + m->kg * (from[1] / 255.0) + m->kb * blue;
    put(to, i, wide, channels == 4 ? from[3] * (m->top / 255) : m->top);
    put(to, i + 1, wide, to_value(m, m->luma_offset + m->luma_scale * luma));
    put(to, i + 2, wide, to_value(m, m->chroma_offset + m->chroma_scale * (blue - luma) / (2 * (1 - m->kb))));
    put(to, i + 3, wide, to_value(m, m->chroma_offset + m->chroma_scale * (red - luma) / (2 * (1 - m->kr))));
  }
}

gboolean gst_flux_kontext_pixels_limited(const GstVideoInfo *info) {
  return GST_VIDEO_INFO_IS_RGB(info) && info->colorimetry.range == GST_VIDEO_COLOR_RANGE_16_235;
}

void gst_flux_kontext_pixels_range(FkImage *image, gboolean widen) {
  for (gint y = 0; y < image->height; y++) {
    guint8 *p = image->data + (gsize)y * image->stride;
    for (gint x = 0; x < image->width; x++, p += image->channels)
      for (gint c = 0; c < 3; c++) p[c] = to_byte(widen ? (p[c] - 16) * 255 / 219.0 : 16 + p[c] * 219 / 255.0);
  }
}

/* A R G B of 16 bits. */
static void row_narrow(const guint8 *from, guint8 *to, gint width, gint channels, gint step) {
  for (gsize i = 0; i < 4 * (gsize)width; i += 4, to += channels) {
    for (gsize c = 0; c < 3; c++) to[c] = to_byte((gdouble)get(from, i + c + 1, TRUE) / step);
    if (channels == 4) to[3] = to_byte(get(from, i, TRUE) / 257.0);
  }
}

static void row_widen(const guint8 *from, guint8 *to, gint width, gint channels, gint step) {
  for (gsize i = 0; i < 4 * (gsize)width; i += 4, from += channels) {
    put(to, i, TRUE, channels == 4 ? from[3] * 257 : 65535);
    for (gsize c = 0; c < 3; c++) put(to, i + c + 1, TRUE, from[c] * step);
  }
}

/* Of 16 bits to one of 8: white is all bits, or 235 of the upper ones. */
static gint step_of(const GstVideoInfo *middle) {
  return gst_flux_kontext_pixels_limited(middle) ? 256 : 257;
}

void gst_flux_kontext_pixels_to_rgb(const GstVideoInfo *middle, guint depth, const guint8 *data, FkImage *image) {
  const Matrix m = matrix_of(middle, MAX(depth, 8));
  for (gint y = 0; y < image->height; y++) {
    const guint8 *from = data + (gsize)y * (gsize)GST_VIDEO_INFO_PLANE_STRIDE(middle, 0);
    guint8 *to = image->data + (gsize)y * image->stride;
    if (GST_VIDEO_INFO_IS_YUV(middle))
      row_ycbcr_to_rgb(&m, from, to, image->width, image->channels);
    else
      row_narrow(from, to, image->width, image->channels, step_of(middle));
  }
}

void gst_flux_kontext_pixels_from_rgb(const GstVideoInfo *middle, guint depth, const FkImage *image, guint8 *data) {
  const Matrix m = matrix_of(middle, MAX(depth, 8));
  for (gint y = 0; y < image->height; y++) {
    const guint8 *from = image->data + (gsize)y * image->stride;
    guint8 *to = data + (gsize)y * (gsize)GST_VIDEO_INFO_PLANE_STRIDE(middle, 0);
    if (GST_VIDEO_INFO_IS_YUV(middle))
      row_rgb_to_ycbcr(&m, from, to, image->width, image->channels);
    else
      row_widen(from, to, image->width, image->channels, step_of(middle));
  }
}
