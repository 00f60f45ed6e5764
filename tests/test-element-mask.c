/* SPDX-License-Identifier: Apache-2.0 */
/* Masks in the element, with the demo checkpoint (FK_DEMO_MODEL, given by the build) on the CPU: from regions of
 * interest and from alpha; what lies outside has the bytes of the frame in its own format, with rows and planes laid
 * out in any way. */
#include "test-element-util.h"

#include <string.h>

enum { W = 64, H = 48, X = 11, Y = 9, RW = 30, RH = 21 };

static Tester *model_tester(const gchar *more) {
  g_autofree gchar *properties =
      g_strconcat("backend=cpu max-area=3072 steps=1 prompt=\"invert the colors\" ", more, NULL);
  Tester *t = tester_new(properties);
  g_object_set(t->element, "model-path", FK_DEMO_MODEL, NULL);
  return t;
}

/* A smooth picture of this format in memory with gaps between rows and before planes. */
static GstBuffer *picture(const GstVideoInfo *info, guint32 seed) {
  gsize offset[GST_VIDEO_MAX_PLANES] = {0}, size = 48;
  gint stride[GST_VIDEO_MAX_PLANES] = {0};
  for (guint p = 0; p < GST_VIDEO_INFO_N_PLANES(info); p++) {
    stride[p] = GST_VIDEO_INFO_PLANE_STRIDE(info, p) + 16;
    offset[p] = size;
    size += (gsize)stride[p] * H + 32;
  }
  GstBuffer *buffer = gst_buffer_new_allocate(NULL, size, NULL);
  gst_buffer_memset(buffer, 0, 0xee, size);
  gst_buffer_add_video_meta_full(buffer, GST_VIDEO_FRAME_FLAG_NONE, GST_VIDEO_INFO_FORMAT(info), W, H,
                                 GST_VIDEO_INFO_N_PLANES(info), offset, stride);
  GstVideoInfo argb;
  gst_video_info_set_format(&argb, GST_VIDEO_FORMAT_ARGB, W, H);
  argb.fps_n = info->fps_n;
  argb.fps_d = info->fps_d;
  g_autofree guint8 *pixels = g_malloc(W * H * 4);
  for (gint i = 0; i < W * H; i++) {
    guint8 *p = pixels + 4 * i;
    seed = seed * 1664525u + 1013904223u;
    p[0] = 255;
    p[1] = (guint8)(40 + 2 * (i % W) + (gint)(seed >> 29));
    p[2] = (guint8)(60 + 3 * (i / W));
    p[3] = i % W + i / W > 50 ? 200 : 30;
  }
  g_autoptr(GstBuffer) plain = gst_buffer_new_memdup(pixels, W * H * 4);
  GstVideoFrame from, to;
  g_assert_true(gst_video_frame_map(&from, &argb, plain, GST_MAP_READ));
  g_assert_true(gst_video_frame_map(&to, info, buffer, GST_MAP_WRITE));
  GstVideoConverter *converter = gst_video_converter_new(&argb, info, NULL);
  gst_video_converter_frame(converter, &from, &to);
  gst_video_converter_free(converter);
  gst_video_frame_unmap(&from);
  gst_video_frame_unmap(&to);
  GST_BUFFER_PTS(buffer) = 0;
  GST_BUFFER_DURATION(buffer) = 100 * GST_MSECOND;
  return buffer;
}

static void add_region(GstBuffer *buffer, const gchar *type, guint x, guint y, guint w, guint h) {
  gst_buffer_add_video_region_of_interest_meta(buffer, type, x, y, w, h);
}

/* Bytes of a unit that pixels of a plane share, and how many of these it covers. */
static void unit(const GstVideoInfo *info, guint plane, gint *bytes, gint *across, gint *down) {
  *bytes = *across = *down = 1;
  for (guint c = 0; c < GST_VIDEO_INFO_N_COMPONENTS(info); c++) {
    if (GST_VIDEO_FORMAT_INFO_PLANE(info->finfo, c) != plane) continue;
    *bytes = MAX(*bytes, GST_VIDEO_INFO_COMP_PSTRIDE(info, c));
    *across = MAX(*across, 1 << GST_VIDEO_FORMAT_INFO_W_SUB(info->finfo, c));
    *down = MAX(*down, 1 << GST_VIDEO_FORMAT_INFO_H_SUB(info->finfo, c));
  }
}

/* Units that no pixel of the region shares have the frame's bytes; of the others, how many differ. */
static gint compare(const GstVideoInfo *info, GstBuffer *in, GstBuffer *out) {
  GstVideoFrame a, b;
  gint changed = 0;
  g_assert_true(gst_video_frame_map(&a, info, in, GST_MAP_READ) && gst_video_frame_map(&b, info, out, GST_MAP_READ));
  gboolean rows_only = GST_VIDEO_FORMAT_INFO_IS_COMPLEX(info->finfo);
  for (guint p = 0; p < GST_VIDEO_INFO_N_PLANES(info); p++) {
    gint bytes, across, down;
    unit(info, p, &bytes, &across, &down);
    for (gint y = 0; y * down < H; y++)
      for (gint x = 0; x * across < W; x++) {
        const guint8 *u =
            (guint8 *)GST_VIDEO_FRAME_PLANE_DATA(&a, p) + y * GST_VIDEO_FRAME_PLANE_STRIDE(&a, p) + x * bytes;
        const guint8 *v =
            (guint8 *)GST_VIDEO_FRAME_PLANE_DATA(&b, p) + y * GST_VIDEO_FRAME_PLANE_STRIDE(&b, p) + x * bytes;
        gboolean row = (y + 1) * down > Y && y * down < Y + RH;
        gboolean inside = row && (rows_only || ((x + 1) * across > X && x * across < X + RW));
        if (rows_only && x * bytes * 2 >= GST_VIDEO_INFO_PLANE_STRIDE(info, p)) break;
        gboolean same = memcmp(u, v, (gsize)bytes) == 0;
        if (!inside && !same) g_error("plane %u, %d,%d differs outside", p, x, y);
        changed += !same;
      }
  }
  gst_video_frame_unmap(&a);
  gst_video_frame_unmap(&b);
  return changed;
}

static const gchar *const formats[] = {"RGB",  "BGR",  "RGBx",      "BGRx", "RGBA",  "BGRA",  "NV12",
                                       "I420", "YUY2", "P010_10LE", "Y444", "GRAY8", "RGB16", "v210"};

static void test_formats(void) {
  g_autoptr(Tester) t = model_tester("mask=meta");
  tester_play(t, NULL);
  for (guint f = 0; f < G_N_ELEMENTS(formats); f++) {
    g_autofree gchar *caps =
        g_strdup_printf("video/x-raw,format=%s,width=%d,height=%d,framerate=10/1", formats[f], W, H);
    g_autoptr(GstCaps) parsed = gst_caps_from_string(caps);
    GstVideoInfo info;
    g_assert_true(gst_video_info_from_caps(&info, parsed));
    gst_harness_set_src_caps_str(t->h, caps);
    g_autoptr(GstBuffer) in = picture(&info, f);
    add_region(in, "face", X, Y, RW, RH);
    g_assert_cmpint(gst_harness_push(t->h, gst_buffer_ref(in)), ==, GST_FLOW_OK);
    g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
    gint changed = compare(&info, in, out);
    g_test_message("%s: %d units of the region changed", formats[f], changed);
    g_assert_cmpint(changed, >, 60);
  }
}

/* Types are told apart; a frame without a region is as it came; a region that leaves the frame is cut. */
static void test_types(void) {
  GstVideoInfo info;
  gst_video_info_set_format(&info, GST_VIDEO_FORMAT_NV12, W, H);
  g_autoptr(Tester) t = model_tester("mask=meta mask-type=face region=crop");
  tester_play(t, "video/x-raw,format=NV12,width=64,height=48,framerate=10/1");
  for (gint n = 0; n < 3; n++) {
    g_autoptr(GstBuffer) in = picture(&info, 3);
    if (n < 2) add_region(in, "dog", 0, 0, W, H);
    if (n == 1) add_region(in, "face", X, Y, RW, RH);
    if (n == 2) add_region(in, "face", G_MAXUINT - 3, 0, 9, 9);
    g_assert_cmpint(gst_harness_push(t->h, gst_buffer_ref(in)), ==, GST_FLOW_OK);
    g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
    gint changed = compare(&info, in, out);
    g_assert_true(n == 1 ? changed > 60 : changed == 0);
  }
}

/* What is transparent is edited, and stays transparent. */
static void test_alpha(void) {
  GstVideoInfo info;
  gst_video_info_set_format(&info, GST_VIDEO_FORMAT_BGRA, W, H);
  g_autoptr(Tester) t = model_tester("mask=alpha mask-feather=4");
  tester_play(t, "video/x-raw,format=BGRA,width=64,height=48,framerate=10/1");
  g_autoptr(GstBuffer) in = picture(&info, 3);
  GstVideoFrame frame;
  gst_video_frame_map(&frame, &info, in, GST_MAP_WRITE);
  for (gint y = Y; y < Y + RH; y++)
    for (gint x = X; x < X + RW; x++)
      ((guint8 *)GST_VIDEO_FRAME_PLANE_DATA(&frame, 0))[y * GST_VIDEO_FRAME_PLANE_STRIDE(&frame, 0) + 4 * x + 3] = 0;
  gst_video_frame_unmap(&frame);
  g_assert_cmpint(gst_harness_push(t->h, gst_buffer_ref(in)), ==, GST_FLOW_OK);
  g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
  g_assert_cmpint(compare(&info, in, out), >, 60);
}

/* A frame that the mask does not fit is one error that says why. */
static void test_errors(void) {
  g_autoptr(Tester) t = model_tester("mask=alpha");
  tester_play(t, RGB_CAPS(64, 48));
  g_assert_cmpint(gst_harness_push(t->h, test_frame(RGB_CAPS(64, 48), 1, 0)), ==, GST_FLOW_ERROR);
  tester_assert_error(t, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS, "mask=alpha");
}

static void add(void) {
  g_test_add_func("/element-mask/formats", test_formats);
  g_test_add_func("/element-mask/types", test_types);
  g_test_add_func("/element-mask/alpha", test_alpha);
  g_test_add_func("/element-mask/errors", test_errors);
}

int main(int argc, char **argv) {
  return tester_main(&argc, &argv, add);
}
