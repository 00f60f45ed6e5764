/* SPDX-License-Identifier: Apache-2.0 */
/* Buffers <-> engine images (gst/gstfluxkontextframe.c): each format against formulas written here, strides, offsets,
 * several memories, metas that lie. */
#include "../gst/gstfluxkontextframe.h"
#include "../gst/gstfluxkontextpixels.h"

#include <math.h>
#include <string.h>

static const gchar *const formats[] = {"RGB", "BGR", "RGBx", "BGRx", "RGBA", "BGRA", "NV12", "I420"};
static const gint sizes[][2] = {{1, 1}, {2, 1}, {1, 2}, {15, 17}, {33, 17}, {16, 4096}, {64, 48}};

static void open_format(GstFluxKontextFormat *format, const gchar *name, gint width, gint height,
                        const gchar *colorimetry) {
  GstVideoInfo info;
  gst_video_info_init(&info);
  g_assert_true(gst_video_info_set_format(&info, gst_video_format_from_string(name), (guint)width, (guint)height));
  if (colorimetry) g_assert_true(gst_video_colorimetry_from_string(&info.colorimetry, colorimetry));
  g_assert_true(gst_flux_kontext_format_init(format, &info));
}

static void fill(guint8 *data, gsize size, guint32 x) {
  for (gsize i = 0; i < size; i++) {
    x = x * 1664525u + 1013904223u;
    data[i] = (guint8)(x >> 24);
  }
}

static GstBuffer *noise_buffer(const GstVideoInfo *info) {
  guint8 *data = g_malloc(GST_VIDEO_INFO_SIZE(info));
  fill(data, GST_VIDEO_INFO_SIZE(info), 17);
  return gst_buffer_new_wrapped(data, GST_VIDEO_INFO_SIZE(info));
}

static FkImage read_ok(const GstFluxKontextFormat *format, GstBuffer *buffer) {
  FkImage image;
  g_autoptr(GError) error = NULL;
  gst_flux_kontext_format_read(format, buffer, &image, &error);
  g_assert_no_error(error);
  return image;
}

static void assert_same_pixels(const FkImage *a, const FkImage *b) {
  g_assert_cmpint(a->width, ==, b->width);
  g_assert_cmpint(a->height, ==, b->height);
  for (gint y = 0; y < a->height; y++)
    g_assert_cmpint(
        memcmp(a->data + (gsize)y * a->stride, b->data + (gsize)y * b->stride, (gsize)(a->width * a->channels)), ==, 0);
}

/* ---- Formats ---- */

/* R G B A of one pixel of a buffer laid out as `info`: packed RGB by component offsets, YCbCr by matrix (Kr, Kb) and
 * range from ITU-R BT.601/709. */
static void expected_pixel(const GstVideoInfo *info, const guint8 *data, gint x, gint y, gdouble *rgba) {
  gdouble c[4] = {0, 0, 0, 255};
  for (guint i = 0; i < GST_VIDEO_INFO_N_COMPONENTS(info); i++) {
    guint plane = GST_VIDEO_INFO_COMP_PLANE(info, i);
    gint cx = x >> GST_VIDEO_FORMAT_INFO_W_SUB(info->finfo, i), cy = y >> GST_VIDEO_FORMAT_INFO_H_SUB(info->finfo, i);
    c[i] = data[GST_VIDEO_INFO_PLANE_OFFSET(info, plane) + (gsize)(cy * GST_VIDEO_INFO_PLANE_STRIDE(info, plane)) +
                (gsize)(cx * GST_VIDEO_INFO_COMP_PSTRIDE(info, i)) + (gsize)GST_VIDEO_INFO_COMP_POFFSET(info, i)];
  }
  memcpy(rgba, c, sizeof(c));
  if (!GST_VIDEO_INFO_IS_YUV(info)) return;
  gboolean bt709 = info->colorimetry.matrix == GST_VIDEO_COLOR_MATRIX_BT709;
  gboolean full = info->colorimetry.range == GST_VIDEO_COLOR_RANGE_0_255;
  gdouble kr = bt709 ? 0.2126 : 0.299, kb = bt709 ? 0.0722 : 0.114;
  gdouble luma = full ? c[0] : (c[0] - 16) * 255 / 219;
  gdouble cb = (c[1] - 128) * (full ? 1 : 255.0 / 224), cr = (c[2] - 128) * (full ? 1 : 255.0 / 224);
  rgba[0] = luma + 2 * (1 - kr) * cr;
  rgba[2] = luma + 2 * (1 - kb) * cb;
  rgba[1] = (luma - kr * rgba[0] - kb * rgba[2]) / (1 - kr - kb);
  rgba[3] = 255;
}

/* Chroma is constant, so that how it is sampled between pixels plays no part; luma and RGB are noise. */
static void check_format(const gchar *name, gint width, gint height, const gchar *colorimetry, gdouble tolerance) {
  GstFluxKontextFormat format;
  open_format(&format, name, width, height, colorimetry);
  g_autofree guint8 *data = g_malloc(GST_VIDEO_INFO_SIZE(&format.info));
  fill(data, GST_VIDEO_INFO_SIZE(&format.info), 5);
  gboolean yuv = GST_VIDEO_INFO_IS_YUV(&format.info);
  gsize chroma = yuv ? GST_VIDEO_INFO_PLANE_OFFSET(&format.info, 1) : 0;
  for (gsize i = 0; yuv && i < chroma; i++) data[i] = (guint8)(60 + data[i] / 2);
  if (yuv) memset(data + chroma, 115, GST_VIDEO_INFO_SIZE(&format.info) - chroma);
  g_autoptr(GstBuffer) buffer = gst_buffer_new_memdup(data, GST_VIDEO_INFO_SIZE(&format.info));
  FkImage image = read_ok(&format, buffer);
  g_assert_cmpint(image.width, ==, width);
  g_assert_cmpint(image.height, ==, height);
  g_assert_cmpint(image.channels, ==, GST_VIDEO_INFO_HAS_ALPHA(&format.info) ? 4 : 3);
  for (gint y = 0; y < height; y++)
    for (gint x = 0; x < width; x++) {
      gdouble expected[4];
      expected_pixel(&format.info, data, x, y, expected);
      for (gint c = 0; c < image.channels; c++) {
        gdouble found = image.data[(gsize)y * image.stride + (gsize)(x * image.channels + c)];
        g_assert_cmpfloat(fabs(found - CLAMP(expected[c], 0, 255)), <=, tolerance);
      }
    }
  gst_flux_kontext_image_clear(&image);
  gst_flux_kontext_format_clear(&format);
}

static void test_packed(void) {
  for (guint f = 0; f < 6; f++)
    for (guint s = 0; s < G_N_ELEMENTS(sizes); s++) check_format(formats[f], sizes[s][0], sizes[s][1], NULL, 0);
}

/* Half a step of rounding, and what the chroma filter's own rounding makes of a constant: nothing. */
static void test_ycbcr(void) {
  static const gchar *const colorimetry[] = {"bt601", "bt709", "1:4:5:3"}; /* the last: full range, BT.601 */
  for (guint f = 6; f < 8; f++)
    for (guint c = 0; c < G_N_ELEMENTS(colorimetry); c++) {
      check_format(formats[f], 64, 48, colorimetry[c], 0.501);
      check_format(formats[f], 33, 17, colorimetry[c], 0.501);
      check_format(formats[f], 1, 1, colorimetry[c], 0.501);
    }
}

static gint worst_difference(const FkImage *a, const FkImage *b) {
  gint worst = 0;
  for (gint y = 0; y < a->height; y++)
    for (gint i = 0; i < a->width * a->channels; i++)
      worst =
          MAX(worst, ABS((gint)a->data[(gsize)y * a->stride + (gsize)i] - b->data[(gsize)y * b->stride + (gsize)i]));
  return worst;
}

/* Grey has no chroma to resample: written and read back it is off by rounding only. */
static void test_grey(void) {
  for (guint f = 6; f < 8; f++)
    for (guint s = 0; s < G_N_ELEMENTS(sizes); s++) {
      GstFluxKontextFormat format;
      FkImage grey;
      open_format(&format, formats[f], sizes[s][0], sizes[s][1], s % 2 ? "bt709" : "bt601");
      g_assert_true(gst_flux_kontext_format_new_image(&format, &grey, NULL));
      for (gint y = 0; y < grey.height; y++)
        for (gint x = 0; x < grey.width; x++)
          memset(grey.data + (gsize)y * grey.stride + (gsize)(x * 3), (x * 7 + y * 13) % 256, 3);
      g_autoptr(GstBuffer) buffer = gst_buffer_new_allocate(NULL, GST_VIDEO_INFO_SIZE(&format.info), NULL);
      g_assert_true(gst_flux_kontext_format_write(&format, &grey, buffer, NULL));
      FkImage back = read_ok(&format, buffer);
      g_assert_cmpint(worst_difference(&grey, &back), <=, 1);
      gst_flux_kontext_image_clear(&grey);
      gst_flux_kontext_image_clear(&back);
      gst_flux_kontext_format_clear(&format);
    }
}

/* What was read and is written back is what was there: exactly for RGB; Y'CbCr noise has colours outside RGB. */
static void test_round_trip(void) {
  for (guint f = 0; f < G_N_ELEMENTS(formats); f++)
    for (guint s = 0; s < G_N_ELEMENTS(sizes); s++) {
      GstFluxKontextFormat format;
      open_format(&format, formats[f], sizes[s][0], sizes[s][1], NULL);
      g_autoptr(GstBuffer) in = noise_buffer(&format.info);
      g_autoptr(GstBuffer) out = gst_buffer_new_allocate(NULL, GST_VIDEO_INFO_SIZE(&format.info), NULL);
      FkImage first = read_ok(&format, in);
      g_assert_true(gst_flux_kontext_format_write(&format, &first, out, NULL));
      FkImage second = read_ok(&format, out);
      if (!GST_VIDEO_INFO_IS_YUV(&format.info)) assert_same_pixels(&first, &second);
      gst_flux_kontext_image_clear(&first);
      gst_flux_kontext_image_clear(&second);
      gst_flux_kontext_format_clear(&format);
    }
}

/* ---- Every format ---- */

typedef void (*ForFormat)(GstVideoFormat format);

static void for_all_formats(ForFormat check) {
  g_autoptr(GstCaps) caps = gst_flux_kontext_pixels_caps();
  const GValue *names = gst_structure_get_value(gst_caps_get_structure(caps, 0), "format");
  g_assert_cmpuint(gst_value_list_get_size(names), >, 85);
  for (guint i = 0; i < gst_value_list_get_size(names); i++)
    check(gst_video_format_from_string(g_value_get_string(gst_value_list_get_value(names, i))));
}

/* A picture of one colour in codes of the format's own depth, through libgstvideo's packing: A Y' Cb Cr or A R G B. */
static GstBuffer *flat(const GstVideoInfo *info, const gint codes[4]) {
  const GstVideoFormatInfo *f = info->finfo;
  gint depth = (gint)GST_VIDEO_FORMAT_INFO_DEPTH(f, 0);
  gboolean wide = GST_VIDEO_FORMAT_INFO_BITS(gst_video_format_get_info(f->unpack_format)) > 8;
  GstBuffer *buffer = gst_buffer_new_allocate(NULL, GST_VIDEO_INFO_SIZE(info), NULL);
  GstVideoFrame frame;
  g_autofree guint16 *line = g_new0(guint16, 4 * ((gsize)info->width + 32));
  for (gint i = 0; i < 4 * (info->width + 32); i++) {
    if (wide)
      line[i] = (guint16)(codes[i % 4] << (16 - depth) | codes[i % 4] >> MAX(0, 2 * depth - 16));
    else
      ((guint8 *)line)[i] = (guint8)(depth < 8 ? codes[i % 4] << (8 - depth) : codes[i % 4]);
  }
  g_assert_true(gst_video_frame_map(&frame, info, buffer, GST_MAP_WRITE));
  for (gint y = 0; y < info->height; y += f->pack_lines)
    f->pack_func(f, GST_VIDEO_PACK_FLAG_NONE, line, 0, frame.data, frame.info.stride, GST_VIDEO_CHROMA_SITE_UNKNOWN, y,
                 info->width);
  gst_video_frame_unmap(&frame);
  return buffer;
}

static gdouble code_to_unit(gint code, gint depth, gboolean limited, gboolean chroma) {
  gint more = 1 << (depth - 8);
  if (chroma) return (code - 128.0 * more) / (limited ? 224 * more : 256 * more - 1);
  return limited ? (code - 16.0 * more) / (219 * more) : (gdouble)code / (256 * more - 1);
}

/* The colours that the codes stand for, to rounding; alpha where there is one. What is written of them is read again as
 * the same. */
static void check_colours(GstVideoFormat format, gint width, gint height) {
  GstFluxKontextFormat f;
  gint depth = (gint)GST_VIDEO_FORMAT_INFO_DEPTH(gst_video_format_get_info(format), 0), most = (1 << depth) - 1;
  GstVideoInfo info;
  g_assert_true(gst_video_info_set_format(&info, format, (guint)width, (guint)height));
  if (!gst_flux_kontext_pixels_convertible(&info)) {
    g_assert_true(width % 2 && !gst_flux_kontext_format_init(&f, &info));
    return;
  }
  open_format(&f, gst_video_format_to_string(format), width, height, NULL);
  gboolean yuv = GST_VIDEO_INFO_IS_YUV(&f.info), grey = GST_VIDEO_INFO_IS_GRAY(&f.info);
  const gint codes[4] = {most * 3 / 4, most * 5 / 8 + 1, grey ? (most + 1) / 2 : most * 4 / 10,
                         grey ? (most + 1) / 2 : most * 6 / 10};
  gdouble expected[4] = {255.0 * codes[1] / most, 255.0 * codes[2] / most, 255.0 * codes[3] / most,
                         255.0 * codes[0] / most};
  if (yuv || grey) {
    gboolean limited = f.info.colorimetry.range == GST_VIDEO_COLOR_RANGE_16_235;
    gdouble kr = 0.299, kb = 0.114, luma = code_to_unit(codes[1], depth, limited, FALSE);
    gst_video_color_matrix_get_Kr_Kb(f.info.colorimetry.matrix, &kr, &kb);
    expected[2] = 255 * (luma + 2 * (1 - kb) * code_to_unit(codes[2], depth, limited, TRUE));
    expected[0] = 255 * (luma + 2 * (1 - kr) * code_to_unit(codes[3], depth, limited, TRUE));
    expected[1] = (255 * luma - kr * expected[0] - kb * expected[2]) / (1 - kr - kb);
  }
  g_autoptr(GstBuffer) in = flat(&f.info, codes),
                       out = gst_buffer_new_allocate(NULL, GST_VIDEO_INFO_SIZE(&f.info), NULL);
  FkImage image = read_ok(&f, in);
  for (gint y = 0; y < height; y++)
    for (gint x = 0; x < width; x++)
      for (gint c = 0; c < image.channels; c++) {
        gdouble found = image.data[(gsize)y * image.stride + (gsize)(x * image.channels + c)];
        /* Few bits of alpha: RGB10A2. Chroma of NV12_10LE32 and such is unpacked without its lower bits. */
        gdouble tolerance = depth < 8 ? 5 : c == 3 ? 64 : GST_VIDEO_FORMAT_INFO_IS_COMPLEX(f.info.finfo) ? 0.8 : 0.52;
        if (fabs(found - expected[c]) > tolerance)
          g_error("%s, channel %d of (%d, %d): %f for %f", gst_video_format_to_string(format), c, x, y, found,
                  expected[c]);
      }
  g_assert_true(gst_flux_kontext_format_write(&f, &image, out, NULL));
  FkImage back = read_ok(&f, out);
  gint worst = worst_difference(&image, &back);
  if (worst > (depth < 8 ? 16 : yuv && depth == 8 ? 2 : 0))
    g_error("%s at %dx%d: written and read %d off", gst_video_format_to_string(format), width, height, worst);
  gst_flux_kontext_image_clear(&image);
  gst_flux_kontext_image_clear(&back);
  gst_flux_kontext_format_clear(&f);
}

static void check_sizes(GstVideoFormat format) {
  static const gint some[][2] = {{64, 48}, {34, 17}, {33, 17}, {6, 3}, {5, 3}, {2, 1}, {1, 1}};
  for (guint s = 0; s < G_N_ELEMENTS(some); s++) check_colours(format, some[s][0], some[s][1]);
}

static void test_every_format(void) {
  for_all_formats(check_sizes);
}

/* Noise in any RGB format of 8 bits: the bytes of libgstvideo's own conversion to RGB or RGBA, as videoconvert does. */
static void check_as_videoconvert(GstVideoFormat format) {
  const GstVideoFormatInfo *info = gst_video_format_get_info(format);
  if (!GST_VIDEO_FORMAT_INFO_IS_RGB(info) || GST_VIDEO_FORMAT_INFO_DEPTH(info, 0) > 8) return;
  GstFluxKontextFormat f;
  open_format(&f, gst_video_format_to_string(format), 33, 17, NULL);
  g_autoptr(GstBuffer) in = noise_buffer(&f.info),
                       out = gst_buffer_new_allocate(NULL, GST_VIDEO_INFO_SIZE(&f.rgb), NULL);
  GstVideoFrame from, to;
  g_assert_true(gst_video_frame_map(&from, &f.info, in, GST_MAP_READ) &&
                gst_video_frame_map(&to, &f.rgb, out, GST_MAP_WRITE));
  GstVideoConverter *convert = gst_video_converter_new(&f.info, &f.rgb, NULL);
  gst_video_converter_frame(convert, &from, &to);
  gst_video_converter_free(convert);
  FkImage image = read_ok(&f, in);
  for (gint y = 0; y < 17; y++)
    g_assert_cmpmem(image.data + (gsize)y * image.stride, (gsize)(33 * image.channels),
                    (guint8 *)to.data[0] + (gsize)y * (gsize)to.info.stride[0], (gsize)(33 * image.channels));
  gst_video_frame_unmap(&from);
  gst_video_frame_unmap(&to);
  gst_flux_kontext_image_clear(&image);
  gst_flux_kontext_format_clear(&f);
}

static void test_as_videoconvert(void) {
  for_all_formats(check_as_videoconvert);
}

/* ---- Layouts that are allowed ---- */

/* A copy of `in` whose rows are `pad` bytes further apart and whose planes start `lead` bytes late. */
static GstBuffer *padded(const GstVideoInfo *info, GstBuffer *in, gsize lead, gsize pad) {
  GstVideoFrame frame;
  g_assert_true(gst_video_frame_map(&frame, info, in, GST_MAP_READ));
  gsize offset[4] = {0}, size = 0;
  gint stride[4] = {0};
  for (guint p = 0; p < GST_VIDEO_INFO_N_PLANES(info); p++) {
    stride[p] = GST_VIDEO_INFO_PLANE_STRIDE(info, p) + (gint)pad;
    offset[p] = size + lead;
    size = offset[p] + (gsize)stride[p] * (gsize)GST_VIDEO_INFO_COMP_HEIGHT(info, p);
  }
  GstBuffer *out = gst_buffer_new_allocate(NULL, size, NULL);
  GstMapInfo map;
  gst_buffer_map(out, &map, GST_MAP_WRITE);
  memset(map.data, 0xee, map.size);
  for (guint p = 0; p < GST_VIDEO_INFO_N_PLANES(info); p++)
    for (gint y = 0; y < GST_VIDEO_INFO_COMP_HEIGHT(info, p); y++)
      memcpy(map.data + offset[p] + (gsize)(y * stride[p]),
             (guint8 *)frame.data[p] + (gsize)(y * GST_VIDEO_INFO_PLANE_STRIDE(info, p)),
             (gsize)GST_VIDEO_INFO_PLANE_STRIDE(info, p));
  gst_buffer_unmap(out, &map);
  gst_video_frame_unmap(&frame);
  gst_buffer_add_video_meta_full(out, GST_VIDEO_FRAME_FLAG_NONE, GST_VIDEO_INFO_FORMAT(info), (guint)info->width,
                                 (guint)info->height, GST_VIDEO_INFO_N_PLANES(info), offset, stride);
  return out;
}

static void test_padded(void) {
  for (guint f = 0; f < G_N_ELEMENTS(formats); f++) {
    GstFluxKontextFormat format;
    open_format(&format, formats[f], 33, 17, NULL);
    g_autoptr(GstBuffer) tight = noise_buffer(&format.info);
    g_autoptr(GstBuffer) loose = padded(&format.info, tight, 7, 13);
    FkImage a = read_ok(&format, tight), b = read_ok(&format, loose);
    assert_same_pixels(&a, &b);
    gst_flux_kontext_image_clear(&a);
    gst_flux_kontext_image_clear(&b);
    gst_flux_kontext_format_clear(&format);
  }
}

/* Written into a padded buffer: rows land where the meta says and the gaps become 0. */
static void test_padded_write(void) {
  GstFluxKontextFormat format;
  open_format(&format, "BGR", 5, 3, NULL);
  g_autoptr(GstBuffer) tight = noise_buffer(&format.info);
  g_autoptr(GstBuffer) loose = padded(&format.info, tight, 4, 9);
  FkImage image = read_ok(&format, tight);
  image.data[0] ^= 0xff;
  g_assert_true(gst_flux_kontext_format_write(&format, &image, loose, NULL));
  FkImage back = read_ok(&format, loose);
  assert_same_pixels(&image, &back);
  GstMapInfo map;
  gst_buffer_map(loose, &map, GST_MAP_READ);
  for (guint i = 0; i < 4; i++) g_assert_cmpuint(map.data[i], ==, 0);
  for (guint y = 0; y < 3; y++) /* stride 16 + 9; a row is 15 bytes and one of its own padding */
    for (guint i = 15; i < 25; i++) g_assert_cmpuint(map.data[4 + y * 25 + i], ==, 0);
  gst_buffer_unmap(loose, &map);
  gst_flux_kontext_image_clear(&image);
  gst_flux_kontext_image_clear(&back);
  gst_flux_kontext_format_clear(&format);
}

/* A buffer that held something else: what is no pixel is 0 in every format, and nothing of it is left. Two buffers with
 * other contents become the same bytes, and the last byte of each row of padding is 0. */
static void test_padding(void) {
  static const gint padded_sizes[][2] = {{66, 34}, {33, 17}, {1, 1}, {5, 3}};
  for (guint f = 0; f < G_N_ELEMENTS(formats); f++)
    for (guint s = 0; s < G_N_ELEMENTS(padded_sizes); s++) {
      GstFluxKontextFormat format;
      open_format(&format, formats[f], padded_sizes[s][0], padded_sizes[s][1], NULL);
      gsize size = GST_VIDEO_INFO_SIZE(&format.info) + 100;
      g_autoptr(GstBuffer) in = noise_buffer(&format.info);
      g_autoptr(GstBuffer) one = gst_buffer_new_allocate(NULL, size, NULL);
      g_autoptr(GstBuffer) two = gst_buffer_new_allocate(NULL, size, NULL);
      FkImage image = read_ok(&format, in);
      gst_buffer_memset(one, 0, 0xee, size);
      gst_buffer_memset(two, 0, 0x11, size);
      g_assert_true(gst_flux_kontext_format_write(&format, &image, one, NULL));
      g_assert_true(gst_flux_kontext_format_write(&format, &image, two, NULL));
      GstMapInfo a, b;
      gst_buffer_map(one, &a, GST_MAP_READ);
      gst_buffer_map(two, &b, GST_MAP_READ);
      g_assert_cmpmem(a.data, a.size, b.data, b.size);
      for (gsize i = size - 100; i < size; i++) g_assert_cmpuint(a.data[i], ==, 0);
      gsize row = (gsize)(format.info.width * GST_VIDEO_INFO_COMP_PSTRIDE(&format.info, 0));
      for (gint y = 0; y < format.info.height; y++)
        for (gsize i = row; i < (gsize)GST_VIDEO_INFO_PLANE_STRIDE(&format.info, 0); i++)
          g_assert_cmpuint(a.data[(gsize)(y * GST_VIDEO_INFO_PLANE_STRIDE(&format.info, 0)) + i], ==, 0);
      gst_buffer_unmap(one, &a);
      gst_buffer_unmap(two, &b);
      gst_flux_kontext_image_clear(&image);
      gst_flux_kontext_format_clear(&format);
    }
}

/* Too little memory is no fault of the buffer's format. */
static void test_no_memory(void) {
  GstFluxKontextFormat format;
  g_autoptr(GError) error = NULL;
  FkImage image;
  open_format(&format, "RGB", 8, 4, NULL);
  format.rgb.size = G_MAXSIZE / 2; /* as if the caps asked for that */
  g_assert_false(gst_flux_kontext_format_new_image(&format, &image, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_MEMORY);
  gst_flux_kontext_format_clear(&format);
}

static GstBuffer *with_meta(GstBuffer *buffer, const gchar *format, guint width, guint height, gsize offset,
                            gint stride) {
  gsize offsets[4] = {offset};
  gint strides[4] = {stride};
  gst_buffer_add_video_meta_full(buffer, GST_VIDEO_FRAME_FLAG_NONE, gst_video_format_from_string(format), width, height,
                                 1, offsets, strides);
  return buffer;
}

/* Bottom-up rows: the first row lies last, the stride is negative. */
static void test_bottom_up(void) {
  GstFluxKontextFormat format;
  open_format(&format, "RGB", 8, 5, NULL);
  g_autoptr(GstBuffer) top_down = noise_buffer(&format.info);
  g_autoptr(GstBuffer) bottom_up = with_meta(gst_buffer_copy_deep(top_down), "RGB", 8, 5, 4 * 24, -24);
  FkImage a = read_ok(&format, top_down), b = read_ok(&format, bottom_up);
  for (gint y = 0; y < 5; y++)
    g_assert_cmpint(memcmp(a.data + (gsize)y * a.stride, b.data + (gsize)(4 - y) * b.stride, 24), ==, 0);
  gst_flux_kontext_image_clear(&a);
  gst_flux_kontext_image_clear(&b);
  gst_flux_kontext_format_clear(&format);
}

/* A meta larger than the caps: the caps' part, from the meta's strides. */
static void test_larger_meta(void) {
  GstFluxKontextFormat format;
  open_format(&format, "RGB", 8, 4, NULL);
  g_autoptr(GstBuffer) buffer =
      with_meta(gst_buffer_new_memdup((guint8[16 * 8 * 3]){1, 2, 3}, 16 * 8 * 3), "RGB", 16, 8, 0, 48);
  FkImage image = read_ok(&format, buffer);
  g_assert_cmpint(image.width, ==, 8);
  g_assert_cmpint(image.height, ==, 4);
  g_assert_cmpuint(image.data[1], ==, 2);
  gst_flux_kontext_image_clear(&image);
  gst_flux_kontext_format_clear(&format);
}

static void test_two_memories(void) {
  GstFluxKontextFormat format;
  open_format(&format, "NV12", 16, 8, NULL);
  g_autoptr(GstBuffer) one = noise_buffer(&format.info);
  g_autoptr(GstBuffer) two = gst_buffer_new();
  g_autoptr(GstBuffer) tail =
      gst_buffer_copy_region(one, GST_BUFFER_COPY_MEMORY | GST_BUFFER_COPY_DEEP, 100, (gsize)-1);
  g_autoptr(GstBuffer) head = gst_buffer_copy_region(one, GST_BUFFER_COPY_MEMORY | GST_BUFFER_COPY_DEEP, 0, 100);
  gst_buffer_append_memory(two, gst_buffer_get_all_memory(head));
  gst_buffer_append_memory(two, gst_buffer_get_all_memory(tail));
  g_assert_cmpuint(gst_buffer_n_memory(two), ==, 2);
  FkImage a = read_ok(&format, one), b = read_ok(&format, two);
  assert_same_pixels(&a, &b);
  gst_flux_kontext_image_clear(&a);
  gst_flux_kontext_image_clear(&b);
  gst_flux_kontext_format_clear(&format);
}

static void test_read_only(void) {
  static const guint8 pixels[8 * 4 * 3] = {9, 8, 7};
  GstFluxKontextFormat format;
  open_format(&format, "RGB", 8, 4, NULL);
  g_autoptr(GstBuffer) buffer = gst_buffer_new_wrapped_full(GST_MEMORY_FLAG_READONLY, (gpointer)pixels, sizeof(pixels),
                                                            0, sizeof(pixels), NULL, NULL);
  FkImage image = read_ok(&format, buffer);
  g_assert_cmpuint(image.data[0], ==, 9);
  image.data[0] = 1; /* GStreamer replaces the memory of a buffer that we own: the read-only bytes stay */
  g_assert_true(gst_flux_kontext_format_write(&format, &image, buffer, NULL));
  g_assert_cmpuint(pixels[0], ==, 9);
  gst_flux_kontext_image_clear(&image);
  gst_flux_kontext_format_clear(&format);
}

/* ---- Layouts that are refused: a sentence, no access outside the memory ---- */

typedef struct {
  const gchar *name;
  gsize bytes;
  const gchar *format; /* of the meta; NULL: no meta */
  guint width, height;
  gsize offset;
  gint stride;
} Lie;

/* Caps are RGB 8x4: 4 rows of 24 bytes. */
static const Lie lies[] = {
    {"no-bytes", 0, NULL, 0, 0, 0, 0},
    {"one-byte-short", 95, NULL, 0, 0, 0, 0},
    {"stride-past-memory", 96, "RGB", 8, 4, 0, 4096},
    {"stride-one-past", 96, "RGB", 8, 4, 0, 25},
    {"stride-of-two-gigabytes", 96, "RGB", 8, 4, 0, G_MAXINT},
    {"stride-below-the-row", 96, "RGB", 8, 4, 0, 23},
    {"stride-zero", 96, "RGB", 8, 4, 0, 0},
    {"negative-stride-from-the-top", 96, "RGB", 8, 4, 0, -24},
    {"negative-stride-least", 96, "RGB", 8, 4, 72, G_MININT},
    {"offset-past-memory", 96, "RGB", 8, 4, 97, 24},
    {"offset-one", 96, "RGB", 8, 4, 1, 24},
    {"offset-largest", 96, "RGB", 8, 4, G_MAXSIZE, 24},
    {"smaller-than-caps", 96, "RGB", 7, 4, 0, 24},
    {"lower-than-caps", 96, "RGB", 8, 3, 0, 24},
    {"of-another-format", 96, "BGR", 8, 4, 0, 24},
    {"of-another-kind", 96, "GRAY8", 8, 4, 0, 8},
};

static void test_lie(gconstpointer data) {
  const Lie *lie = data;
  GstFluxKontextFormat format;
  open_format(&format, "RGB", 8, 4, NULL);
  g_autoptr(GstBuffer) buffer = gst_buffer_new_allocate(NULL, lie->bytes, NULL);
  if (lie->format) with_meta(buffer, lie->format, lie->width, lie->height, lie->offset, lie->stride);
  FkImage image;
  g_autoptr(GError) reading = NULL, writing = NULL;
  g_assert_false(gst_flux_kontext_format_read(&format, buffer, &image, &reading));
  g_assert_error(reading, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT);
  g_assert_true(g_str_has_suffix(reading->message, "."));
  g_assert_null(image.data);
  g_assert_true(gst_flux_kontext_format_new_image(&format, &image, NULL));
  g_assert_false(gst_flux_kontext_format_write(&format, &image, buffer, &writing));
  g_assert_error(writing, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT);
  gst_flux_kontext_image_clear(&image);
  gst_flux_kontext_format_clear(&format);
}

static void test_second_plane_lies(void) {
  GstFluxKontextFormat format;
  open_format(&format, "NV12", 16, 8, NULL);
  g_autoptr(GstBuffer) buffer = noise_buffer(&format.info);
  gsize offset[4] = {0, 16 * 8 + 1};
  gint stride[4] = {16, 16};
  gst_buffer_add_video_meta_full(buffer, GST_VIDEO_FRAME_FLAG_NONE, GST_VIDEO_FORMAT_NV12, 16, 8, 2, offset, stride);
  FkImage image;
  g_autoptr(GError) error = NULL;
  g_assert_false(gst_flux_kontext_format_read(&format, buffer, &image, &error));
  g_assert_error(error, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT);
  g_assert_nonnull(strstr(error->message, "Plane 1"));
  gst_flux_kontext_format_clear(&format);
}

int main(int argc, char **argv) {
  gst_init(&argc, &argv);
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/element/pixels/every-format", test_every_format);
  g_test_add_func("/element/pixels/as-videoconvert", test_as_videoconvert);
  g_test_add_func("/element/pixels/packed", test_packed);
  g_test_add_func("/element/pixels/ycbcr", test_ycbcr);
  g_test_add_func("/element/pixels/grey", test_grey);
  g_test_add_func("/element/pixels/round-trip", test_round_trip);
  g_test_add_func("/element/pixels/padded", test_padded);
  g_test_add_func("/element/pixels/padded-write", test_padded_write);
  g_test_add_func("/element/pixels/padding", test_padding);
  g_test_add_func("/element/pixels/no-memory", test_no_memory);
  g_test_add_func("/element/pixels/bottom-up", test_bottom_up);
  g_test_add_func("/element/pixels/larger-meta", test_larger_meta);
  g_test_add_func("/element/pixels/two-memories", test_two_memories);
  g_test_add_func("/element/pixels/read-only", test_read_only);
  for (gsize i = 0; i < G_N_ELEMENTS(lies); i++) {
    g_autofree gchar *name = g_strconcat("/element/pixels/refused/", lies[i].name, NULL);
    g_test_add_data_func(name, &lies[i], test_lie);
  }
  g_test_add_func("/element/pixels/refused/second-plane", test_second_plane_lies);
  return g_test_run();
}
