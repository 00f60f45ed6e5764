/* SPDX-License-Identifier: Apache-2.0 */
/* Planes in device memory give the bytes that the element gives through system memory: the engine's arithmetic of a
 * pixel (core/ops/frame.h) against gst/gstfluxkontextframe.c, which converts with the libgstvideo that is installed. */
#include "../core/ops/frame.h"
#include "../gst/gstfluxkontextframe.h"
#include "../gst/gstfluxkontextmask.h"

#include <string.h>

static const gint sizes[][2] = {{1, 1}, {2, 1}, {1, 2}, {2, 2}, {3, 3}, {5, 4}, {4, 5}, {33, 17}, {64, 48}};

static void fill(guint8 *data, gsize size, guint32 x) {
  for (gsize i = 0; i < size; i++) {
    x = x * 1664525u + 1013904223u;
    data[i] = (guint8)(x >> 24);
  }
}

/* As the element describes a buffer's planes. */
static FkFrame frame_of(const GstVideoInfo *info, guint8 *data) {
  FkFrame f = {.width = info->width,
               .height = info->height,
               .channels = GST_VIDEO_INFO_HAS_ALPHA(info) ? 4 : 3,
               .depth = GST_VIDEO_INFO_COMP_DEPTH(info, 0),
               .ycbcr = GST_VIDEO_INFO_IS_YUV(info),
               .limited = info->colorimetry.range == GST_VIDEO_COLOR_RANGE_16_235,
               .cosited_x = info->chroma_site & GST_VIDEO_CHROMA_SITE_H_COSITED,
               .cosited_y = info->chroma_site & GST_VIDEO_CHROMA_SITE_V_COSITED};
  GstVideoFormat format = GST_VIDEO_INFO_FORMAT(info);
  f.block_up = format == GST_VIDEO_FORMAT_I420 || format == GST_VIDEO_FORMAT_YV12;
  f.block_down = f.block_up && info->width % 2 == 0 && info->height % 2 == 0;
  if (!gst_video_color_matrix_get_Kr_Kb(info->colorimetry.matrix, &f.kr, &f.kb))
    gst_video_color_matrix_get_Kr_Kb(GST_VIDEO_COLOR_MATRIX_BT601, &f.kr, &f.kb);
  for (guint p = 0; p < GST_VIDEO_INFO_N_PLANES(info); p++) {
    f.data[p] = data + GST_VIDEO_INFO_PLANE_OFFSET(info, p);
    f.stride[p] = (gsize)GST_VIDEO_INFO_PLANE_STRIDE(info, p);
  }
  gint used = 0;
  for (guint c = 0; c < GST_VIDEO_INFO_N_COMPONENTS(info); c++) {
    f.sample[c] =
        (FkFrameSample){(gint)GST_VIDEO_INFO_COMP_PLANE(info, c), (gint)GST_VIDEO_INFO_COMP_POFFSET(info, c),
                        GST_VIDEO_INFO_COMP_PSTRIDE(info, c), (gint)GST_VIDEO_FORMAT_INFO_W_SUB(info->finfo, c),
                        (gint)GST_VIDEO_FORMAT_INFO_H_SUB(info->finfo, c)};
    if (f.depth > 8 && f.sample[c].offset == 1) f.sample[c].offset = 2; /* as libgstvideo has it, in words */
    used += f.sample[c].offset;
  }
  /* The fourth byte of a pixel of four that has three values. */
  if (f.channels == 3 && GST_VIDEO_INFO_N_PLANES(info) == 1 && f.sample[0].step == 4)
    f.sample[3] = (FkFrameSample){0, 6 - used, 4, 0, 0};
  return f;
}

typedef struct {
  const gchar *format, *colorimetry;
  GstVideoChromaSite site; /* 0: the format's own */
} Case;

static const Case cases[] = {{"RGB", NULL, 0},
                             {"BGR", NULL, 0},
                             {"RGBx", NULL, 0},
                             {"BGRx", NULL, 0},
                             {"xRGB", NULL, 0},
                             {"xBGR", NULL, 0},
                             {"RGBA", NULL, 0},
                             {"BGRA", NULL, 0},
                             {"ARGB", NULL, 0},
                             {"ABGR", NULL, 0},
                             {"GBR", NULL, 0},
                             {"RGBP", NULL, 0},
                             {"BGRP", NULL, 0},
                             {"GBRA", NULL, 0},
                             {"RGB", "2:1:0:1", 0},
                             {"BGRx", "2:1:7:1", 0},
                             {"ARGB", "2:1:0:1", 0},
                             {"GBRA", "2:1:0:1", 0},
                             {"NV12", NULL, 0},
                             {"NV12", "bt709", 0},
                             {"NV12", "1:4:0:0", GST_VIDEO_CHROMA_SITE_JPEG},
                             {"NV12", NULL, GST_VIDEO_CHROMA_SITE_JPEG},
                             {"NV12", NULL, GST_VIDEO_CHROMA_SITE_COSITED},
                             {"NV21", NULL, 0},
                             {"I420", NULL, 0},
                             {"I420", "bt709", GST_VIDEO_CHROMA_SITE_JPEG},
                             {"YV12", NULL, 0},
                             {"Y444", NULL, 0},
                             {"NV24", NULL, 0},
                             {"AYUV", NULL, 0},
                             {"VUYA", NULL, 0},
                             {"NV16", NULL, 0},
                             {"P010_10LE", NULL, 0},
                             {"P010_10LE", "bt2020-10", GST_VIDEO_CHROMA_SITE_JPEG},
                             {"P010_10LE", "bt709", GST_VIDEO_CHROMA_SITE_COSITED},
                             {"P012_LE", NULL, 0},
                             {"P016_LE", "bt709", 0}};

static gboolean open_format(GstFluxKontextFormat *format, const Case *c, gint w, gint h) {
  GstVideoInfo info;
  gst_video_info_init(&info);
  g_assert_true(gst_video_info_set_format(&info, gst_video_format_from_string(c->format), (guint)w, (guint)h));
  if (c->colorimetry) g_assert_true(gst_video_colorimetry_from_string(&info.colorimetry, c->colorimetry));
  if (c->site) info.chroma_site = c->site;
  return gst_flux_kontext_format_init(format, &info);
}

static GstBuffer *buffer_of(gsize size, guint32 seed) {
  guint8 *data = g_malloc(size);
  fill(data, size, seed);
  return gst_buffer_new_wrapped(data, size);
}

/* The image, tightly. */
static guint8 *packed(const FkImage *image) {
  gsize row = (gsize)(image->width * image->channels);
  guint8 *rgb = g_malloc(row * (gsize)image->height);
  for (gint y = 0; y < image->height; y++) memcpy(rgb + (gsize)y * row, image->data + (gsize)y * image->stride, row);
  return rgb;
}

static void assert_bytes(const Case *c, const gchar *what, gint w, gint h, const guint8 *have, const guint8 *want,
                         gsize n) {
  for (gsize i = 0; i < n; i++)
    if (have[i] != want[i])
      g_error("%s %s %s site %d, %dx%d: byte %" G_GSIZE_FORMAT " is %d, not %d", what, c->format,
              c->colorimetry ? c->colorimetry : "", c->site, w, h, i, have[i], want[i]);
}

/* The writing half: a result of noise, then one that has a frame's pixels in its upper left part. */
static void check_write(const Case *c, GstBuffer *in, const FkImage *before, gboolean kept) {
  g_autoptr(GError) error = NULL;
  FkImage image;
  gint w = before->width, h = before->height;
  GstFluxKontextFormat opened, *format = &opened;
  g_assert_true(open_format(format, c, w, h));
  gsize size = GST_VIDEO_INFO_SIZE(&format->info), row = (gsize)(w * before->channels);
  g_assert_true(gst_flux_kontext_format_new_image(format, &image, &error));
  g_autoptr(GstBuffer) out = buffer_of(size, 9);
  g_autofree guint8 *plain = g_malloc0(size), *first = packed(before);
  fill(image.data, image.stride * (gsize)h, 77);
  for (gint y = 0; kept && y < h - h / 3; y++)
    memcpy(image.data + (gsize)y * image.stride, before->data + (gsize)y * before->stride, row - row / 3);
  g_autofree guint8 *rgb = packed(&image);
  if (kept)
    gst_flux_kontext_format_write_kept(format, &image, before, in, out, &error);
  else
    gst_flux_kontext_format_write(format, &image, out, &error);
  g_assert_no_error(error);
  GstMapInfo have, from;
  gst_buffer_map(out, &have, GST_MAP_READ);
  gst_buffer_map(in, &from, GST_MAP_READ);
  FkFrame f = frame_of(&format->info, plain), source = frame_of(&format->info, from.data);
  for (gint i = 0; i < w * h; i++) fk_frame_write_pixel(&f, rgb, i % w, i / w);
  for (gint i = 0; kept && i < w * h; i++) fk_frame_keep_pixel(&f, &source, first, rgb, i % w, i / w);
  assert_bytes(c, kept ? "keep" : "write", w, h, plain, have.data, size);
  gst_buffer_unmap(out, &have);
  gst_buffer_unmap(in, &from);
  gst_flux_kontext_image_clear(&image);
  gst_flux_kontext_format_clear(format);
}

static void check(const Case *c, gint w, gint h) {
  GstFluxKontextFormat format;
  g_autoptr(GError) error = NULL;
  FkImage image;
  g_assert_true(open_format(&format, c, w, h));
  gsize size = GST_VIDEO_INFO_SIZE(&format.info);
  g_autoptr(GstBuffer) in = buffer_of(size, 5);
  gst_flux_kontext_format_read(&format, in, &image, &error);
  g_assert_no_error(error);
  g_autofree guint8 *want = packed(&image), *rgb = g_malloc((gsize)(w * h * image.channels));
  GstMapInfo map;
  gst_buffer_map(in, &map, GST_MAP_READ);
  FkFrame f = frame_of(&format.info, map.data);
  for (gint i = 0; i < w * h; i++) {
    guint8 rgba[4];
    fk_frame_read_pixel(&f, i % w, i / w, 0, rgba);
    memcpy(rgb + (gsize)(i * image.channels), rgba, (gsize)image.channels);
  }
  gst_buffer_unmap(in, &map);
  assert_bytes(c, "read", w, h, rgb, want, (gsize)(w * h * image.channels));
  check_write(c, in, &image, FALSE);
  check_write(c, in, &image, TRUE);
  gst_flux_kontext_image_clear(&image);
  gst_flux_kontext_format_clear(&format);
}

static void formats(void) {
  for (gsize i = 0; i < G_N_ELEMENTS(cases); i++)
    for (gsize k = 0; k < G_N_ELEMENTS(sizes); k++) check(&cases[i], sizes[k][0], sizes[k][1]);
}

/* 16 is black and 235 white, what is outside is cut, and what is inside comes back as it was; of 8 bits and of 16,
 * whose white is 235 of the upper ones. */
static void limited(void) {
  for (gint v = 0; v < 256; v++) {
    gint whole = (gint)(CLAMP((v - 16) * 255 / 219.0, 0, 255) + 0.5);
    g_assert_cmpint(fk_frame_widen(v), ==, whole);
    g_assert_cmpint(fk_frame_narrow(v), ==, (gint)(16 + v * 219 / 255.0 + 0.5));
    if (v >= 16 && v <= 235) g_assert_cmpint(fk_frame_narrow(whole), ==, v);
  }
  static const gchar *const formats[] = {"RGB", "ARGB64", "r210", "GBR_10LE"};
  for (gsize i = 0; i < G_N_ELEMENTS(formats); i++) {
    const Case c = {formats[i], "2:1:0:1", 0};
    GstFluxKontextFormat format;
    g_autoptr(GError) error = NULL;
    FkImage image, back;
    g_assert_true(open_format(&format, &c, 4, 3));
    g_assert_true(gst_flux_kontext_format_new_image(&format, &image, &error));
    for (gint y = 0; y < 3; y++)
      memset(image.data + (gsize)y * image.stride, y == 0 ? 0 : y == 1 ? 255 : 100, (gsize)(4 * image.channels));
    g_autoptr(GstBuffer) out = buffer_of(GST_VIDEO_INFO_SIZE(&format.info), 9);
    g_assert_true(gst_flux_kontext_format_write(&format, &image, out, &error));
    g_assert_true(gst_flux_kontext_format_read(&format, out, &back, &error));
    for (gint y = 0; y < 3; y++)
      g_assert_cmpmem(back.data + (gsize)y * back.stride, 12, image.data + (gsize)y * image.stride, 12);
    GstMapInfo map;
    gst_buffer_map(out, &map, GST_MAP_READ);
    const guint stride = (guint)GST_VIDEO_INFO_PLANE_STRIDE(&format.info, 0);
    if (i == 0) g_assert_true(map.data[0] == 16 && map.data[stride] == 235);
    if (i == 3) g_assert_true(GST_READ_UINT16_LE(map.data) == 64 && GST_READ_UINT16_LE(map.data + stride) == 940);
    gst_buffer_unmap(out, &map);
    gst_flux_kontext_image_clear(&image);
    gst_flux_kontext_image_clear(&back);
    gst_flux_kontext_format_clear(&format);
  }
}

/* One converter for all frames of a stream: low ones of libgstvideo 1.22 give the first frame's bytes again. */
static void again(void) {
  for (gsize i = 0; i < G_N_ELEMENTS(cases); i++)
    for (gint h = 1; h <= 4; h++) {
      GstFluxKontextFormat format;
      g_autoptr(GError) error = NULL;
      g_assert_true(open_format(&format, &cases[i], 33, h));
      gsize size = GST_VIDEO_INFO_SIZE(&format.info);
      for (guint32 frame = 0; frame < 3; frame++) {
        FkImage image, back;
        g_autoptr(GstBuffer) out = buffer_of(size, 9);
        g_assert_true(gst_flux_kontext_format_new_image(&format, &image, &error));
        fill(image.data, image.stride * (gsize)h, 77 + frame);
        gst_flux_kontext_format_write(&format, &image, out, &error);
        g_assert_no_error(error);
        g_autofree guint8 *plain = g_malloc0(size), *rgb = packed(&image), *want = g_malloc((gsize)(33 * h * 4));
        FkFrame f = frame_of(&format.info, plain);
        for (gint k = 0; k < 33 * h; k++) fk_frame_write_pixel(&f, rgb, k % 33, k / 33);
        GstMapInfo map;
        gst_buffer_map(out, &map, GST_MAP_READ);
        assert_bytes(&cases[i], "write again", 33, h, map.data, plain, size);
        gst_buffer_unmap(out, &map);
        gst_flux_kontext_format_read(&format, out, &back, &error);
        g_assert_no_error(error);
        for (gint k = 0; k < 33 * h; k++) {
          guint8 rgba[4];
          fk_frame_read_pixel(&f, k % 33, k / 33, 0, rgba);
          memcpy(want + (gsize)(k * back.channels), rgba, (gsize)back.channels);
        }
        g_autofree guint8 *have = packed(&back);
        assert_bytes(&cases[i], "read again", 33, h, have, want, (gsize)(33 * h * back.channels));
        gst_flux_kontext_image_clear(&image);
        gst_flux_kontext_image_clear(&back);
      }
      gst_flux_kontext_format_clear(&format);
    }
}

int main(int argc, char **argv) {
  gst_init(&argc, &argv);
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/planes/formats", formats);
  g_test_add_func("/planes/again", again);
  g_test_add_func("/planes/limited", limited);
  return g_test_run();
}
