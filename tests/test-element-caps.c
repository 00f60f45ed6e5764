/* SPDX-License-Identifier: Apache-2.0 */
/* Formats, sizes, caps, metas and bad buffers through the whole element, on the null engine. */
#include "test-element-util.h"

#include <string.h>

static const gchar *const formats[] = {"RGB", "BGR", "RGBx", "BGRx", "RGBA", "BGRA", "NV12", "I420"};

static gchar *caps_text(const gchar *format, gint width, gint height, const gchar *more) {
  return g_strdup_printf("video/x-raw,format=%s,width=%d,height=%d,framerate=10/1%s", format, width, height, more);
}

static GstVideoInfo out_info(Tester *t) {
  g_autoptr(GstCaps) caps = gst_pad_get_current_caps(t->h->sinkpad);
  GstVideoInfo info;
  g_assert_true(gst_video_info_from_caps(&info, caps));
  return info;
}

/* One frame in, one of the same caps out. */
static void check_one(Tester *t, const gchar *caps, guint n) {
  g_assert_cmpint(gst_harness_push(t->h, test_frame(caps, n, n)), ==, GST_FLOW_OK);
  g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
  GstVideoInfo info = out_info(t);
  g_assert_cmpuint(gst_buffer_get_size(out), ==, GST_VIDEO_INFO_SIZE(&info));
  g_autoptr(GstCaps) expected = gst_caps_from_string(caps), found = gst_pad_get_current_caps(t->h->sinkpad);
  g_assert_true(gst_caps_is_subset(found, expected));
}

static void test_format(gconstpointer data) {
  static const gint sizes[][2] = {{64, 48}, {1, 1}, {2, 1}, {15, 17}, {33, 17}};
  for (guint s = 0; s < G_N_ELEMENTS(sizes); s++) {
    g_autofree gchar *caps = caps_text(data, sizes[s][0], sizes[s][1], "");
    g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, caps);
    check_one(t, caps, 0);
    tester_collect(t);
    g_assert_cmpuint(t->errors, ==, 0);
  }
}

static void test_tall(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, RGB_CAPS(16, 4096));
  check_one(t, RGB_CAPS(16, 4096), 0);
}

/* Alpha is passed on: byte by byte where the size stays. */
static void test_alpha(void) {
  for (guint f = 4; f < 6; f++) {
    g_autofree gchar *caps = caps_text(formats[f], 64, 48, "");
    g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, caps);
    g_autoptr(GstBuffer) in = test_frame(caps, 3, 0);
    gst_harness_push(t->h, gst_buffer_ref(in));
    g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
    GstMapInfo a, b;
    gst_buffer_map(in, &a, GST_MAP_READ);
    gst_buffer_map(out, &b, GST_MAP_READ);
    guint changed = 0;
    for (gsize i = 0; i < a.size; i += 4) {
      g_assert_cmpuint(a.data[i + 3], ==, b.data[i + 3]);
      changed += a.data[i] != b.data[i];
    }
    g_assert_cmpuint(changed, >, 0);
    gst_buffer_unmap(in, &a);
    gst_buffer_unmap(out, &b);
  }
}

static void test_change_each_frame(void) {
  static const gint sizes[][2] = {{64, 48}, {1, 1}, {33, 17}, {2, 1}, {320, 240}, {15, 17}, {16, 256}, {256, 16}};
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "batch-size=2", NULL);
  guint n = 0;
  for (guint round = 0; round < 7; round++)
    for (guint s = 0; s < G_N_ELEMENTS(sizes); s++, n++) {
      g_autofree gchar *caps = caps_text(formats[n % G_N_ELEMENTS(formats)], sizes[s][0], sizes[s][1], "");
      gst_harness_set_src_caps_str(t->h, caps);
      g_assert_cmpint(gst_harness_push(t->h, test_frame(caps, n, n)), ==, GST_FLOW_OK);
    }
  gst_harness_push_event(t->h, gst_event_new_eos());
  g_assert_cmpuint(gst_harness_buffers_received(t->h), ==, n);
  for (guint i = 0; i < n; i++) {
    g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
    g_autofree gchar *caps = caps_text(formats[i % G_N_ELEMENTS(formats)], sizes[i % G_N_ELEMENTS(sizes)][0],
                                       sizes[i % G_N_ELEMENTS(sizes)][1], "");
    g_autoptr(GstBuffer) like = test_frame(caps, 0, 0);
    g_assert_cmpuint(GST_BUFFER_OFFSET(out), ==, i);
    g_assert_cmpuint(gst_buffer_get_size(out), ==, gst_buffer_get_size(like));
  }
  tester_collect(t);
  g_assert_cmpuint(t->errors, ==, 0);
}

/* ---- Caps ---- */

static void test_input_size_keeps_caps(void) {
  const gchar *caps = "video/x-raw,format=NV12,width=720,height=576,framerate=25/1,pixel-aspect-ratio=16/15,"
                      "colorimetry=bt709,chroma-site=mpeg2";
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, caps);
  check_one(t, caps, 0);
}

/* What downstream takes is what upstream is asked for. */
static void test_caps_query(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, NULL);
  gst_harness_set_sink_caps_str(t->h, "video/x-raw,format={NV12,RGB},width=[1,100],height=48");
  g_autoptr(GstPad) pad = gst_element_get_static_pad(t->element, "sink");
  g_autoptr(GstCaps) found = gst_pad_query_caps(pad, NULL);
  g_autoptr(GstCaps) good = gst_caps_from_string("video/x-raw,format=RGB,width=64,height=48,framerate=1/1");
  g_autoptr(GstCaps) bad = gst_caps_from_string("video/x-raw,format=BGR,width=64,height=48,framerate=1/1");
  g_autoptr(GstCaps) wide = gst_caps_from_string("video/x-raw,format=RGB,width=640,height=48,framerate=1/1");
  g_assert_true(gst_caps_can_intersect(found, good));
  g_assert_false(gst_caps_can_intersect(found, bad));
  g_assert_false(gst_caps_can_intersect(found, wide));
}

/* size-mode=native: the model's size, and pixels whose shape keeps the picture's. */
static void test_native(gconstpointer data) {
  const gint *size = data; /* width, height, par_n, par_d */
  g_autofree gchar *par = g_strdup_printf(",pixel-aspect-ratio=%d/%d", size[2], size[3]);
  g_autofree gchar *caps = caps_text("RGB", size[0], size[1], par);
  g_autoptr(Tester) t = tester_new_playing("backend=null steps=1 size-mode=native", caps);
  g_assert_cmpint(gst_harness_push(t->h, test_frame(caps, 0, 0)), ==, GST_FLOW_OK);
  GstVideoInfo info = out_info(t);
  g_assert_cmpint(info.width % 16, ==, 0);
  g_assert_cmpint(info.height % 16, ==, 0);
  g_assert_cmpint(ABS(info.width * info.height - 1024 * 1024), <, 60000); /* the preferred sizes are of one megapixel */
  gdouble in_dar = (gdouble)size[0] * size[2] / ((gdouble)size[1] * size[3]);
  gdouble out_dar = (gdouble)info.width * info.par_n / ((gdouble)info.height * info.par_d);
  g_assert_cmpfloat_with_epsilon(in_dar, out_dar, 1e-9);
  g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
  g_assert_cmpuint(gst_buffer_get_size(out), ==, GST_VIDEO_INFO_SIZE(&info));
}

static void test_native_into_another_size(void) {
  g_autoptr(Tester) t = tester_new("backend=null steps=1 size-mode=native");
  tester_play(t, NULL);
  gst_harness_set_sink_caps_str(t->h, "video/x-raw,format=RGB,width=320,height=240");
  gst_harness_set_src_caps_str(t->h, SMALL);
  gst_harness_push(t->h, test_frame(SMALL, 0, 0));
  tester_assert_error(t, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT, "320x240");
}

static void test_interlaced(gconstpointer data) {
  g_autofree gchar *more = g_strdup_printf(",interlace-mode=%s", (const gchar *)data);
  g_autofree gchar *caps = caps_text("RGB", 64, 48, more);
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, caps);
  g_assert_cmpint(gst_harness_push(t->h, test_frame(SMALL, 0, 0)), ==, GST_FLOW_NOT_NEGOTIATED);
  g_assert_cmpint(gst_harness_push(t->h, test_frame(SMALL, 1, 1)), ==, GST_FLOW_NOT_NEGOTIATED);
  tester_assert_error(t, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT, "deinterlace");
  gst_harness_set_src_caps_str(t->h, SMALL); /* progressive caps afterwards are fine */
  check_one(t, SMALL, 2);
}

static void test_no_caps(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, NULL);
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  gst_pad_push_event(t->h->srcpad, gst_event_new_stream_start("no caps"));
  gst_pad_push_event(t->h->srcpad, gst_event_new_segment(&segment));
  g_assert_cmpint(gst_pad_push(t->h->srcpad, test_frame(SMALL, 0, 0)), ==, GST_FLOW_NOT_NEGOTIATED);
}

/* ---- Metas ---- */

static void test_region_of_interest_scales(void) {
  g_autoptr(Tester) t = tester_new_playing("backend=null steps=1 size-mode=native", RGB_CAPS(256, 256));
  GstBuffer *in = test_frame(RGB_CAPS(256, 256), 0, 0);
  gst_buffer_add_video_region_of_interest_meta(in, "face", 64, 32, 128, 16);
  gst_harness_push(t->h, in);
  g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
  const GstVideoRegionOfInterestMeta *meta =
      (GstVideoRegionOfInterestMeta *)gst_buffer_get_meta(out, GST_VIDEO_REGION_OF_INTEREST_META_API_TYPE);
  g_assert_nonnull(meta);
  g_assert_cmpuint(meta->x, ==, 256); /* 1024 / 256 = 4 times as large */
  g_assert_cmpuint(meta->y, ==, 128);
  g_assert_cmpuint(meta->w, ==, 512);
  g_assert_cmpuint(meta->h, ==, 64);
}

static void test_reference_timestamp_stays(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, SMALL);
  GstBuffer *in = test_frame(SMALL, 0, 0);
  g_autoptr(GstCaps) reference = gst_caps_from_string("timestamp/x-unix");
  gst_buffer_add_reference_timestamp_meta(in, reference, 42, GST_CLOCK_TIME_NONE);
  gst_harness_push(t->h, in);
  g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
  const GstReferenceTimestampMeta *meta = gst_buffer_get_reference_timestamp_meta(out, reference);
  g_assert_nonnull(meta);
  g_assert_cmpuint(meta->timestamp, ==, 42);
}

/* Upstream is offered video metas and as many buffers as a batch holds, but no cropping. */
static void test_allocation_query(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "batch-size=4", NULL);
  gst_harness_add_propose_allocation_meta(t->h, GST_VIDEO_CROP_META_API_TYPE, NULL);
  gst_harness_set_src_caps_str(t->h, SMALL);
  g_autoptr(GstCaps) caps = gst_caps_from_string(SMALL);
  GstQuery *query = gst_query_new_allocation(caps, TRUE);
  g_assert_true(gst_pad_peer_query(t->h->srcpad, query));
  g_assert_true(gst_query_find_allocation_meta(query, GST_VIDEO_META_API_TYPE, NULL));
  g_assert_false(gst_query_find_allocation_meta(query, GST_VIDEO_CROP_META_API_TYPE, NULL));
  guint min;
  g_assert_cmpuint(gst_query_get_n_allocation_pools(query), ==, 1);
  gst_query_parse_nth_allocation_pool(query, 0, NULL, NULL, &min, NULL);
  g_assert_cmpuint(min, ==, 4);
  gst_query_unref(query);
}

/* ---- Buffers that cannot be read ---- */

static GstBuffer *short_frame(void) {
  return gst_buffer_new_allocate(NULL, 64 * 48 * 3 - 1, NULL);
}

static GstBuffer *lying_frame(void) {
  GstBuffer *buffer = test_frame(SMALL, 0, 0);
  gsize offset[4] = {0};
  gint stride[4] = {4096};
  gst_buffer_add_video_meta_full(buffer, GST_VIDEO_FRAME_FLAG_NONE, GST_VIDEO_FORMAT_RGB, 64, 48, 1, offset, stride);
  return buffer;
}

static void test_bad_buffer(gconstpointer data) {
  GstBuffer *bad = GPOINTER_TO_INT(data) ? lying_frame() : short_frame();
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, SMALL);
  g_assert_cmpint(gst_harness_push(t->h, bad), ==, GST_FLOW_ERROR);
  tester_assert_error(t, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT, "bytes of the buffer");
  check_one(t, SMALL, 1); /* the next one is none the worse */
}

/* ---- Buffers with padded rows and planes ---- */

/* A copy of `in` with rows `pad` bytes further apart, as its GstVideoMeta says, filled up to `size` bytes. */
static GstBuffer *padded_frame(const GstVideoInfo *info, GstBuffer *in, gsize pad, gsize size) {
  gsize offset[GST_VIDEO_MAX_PLANES] = {0}, end = 0;
  gint stride[GST_VIDEO_MAX_PLANES] = {0};
  for (guint p = 0; p < GST_VIDEO_INFO_N_PLANES(info); p++) {
    stride[p] = GST_VIDEO_INFO_PLANE_STRIDE(info, p) + (gint)pad;
    offset[p] = end;
    end += (gsize)stride[p] * (gsize)(p ? GST_ROUND_UP_2(info->height) / 2 : info->height);
  }
  GstBuffer *out = gst_buffer_new_allocate(NULL, MAX(end, size), NULL);
  GstMapInfo from, to;
  gst_buffer_map(in, &from, GST_MAP_READ);
  gst_buffer_map(out, &to, GST_MAP_WRITE);
  memset(to.data, 0xee, to.size);
  for (guint p = 0; p < GST_VIDEO_INFO_N_PLANES(info); p++)
    for (gint y = 0; y < (p ? GST_ROUND_UP_2(info->height) / 2 : info->height); y++)
      memcpy(to.data + offset[p] + (gsize)(y * stride[p]),
             from.data + GST_VIDEO_INFO_PLANE_OFFSET(info, p) + (gsize)(y * GST_VIDEO_INFO_PLANE_STRIDE(info, p)),
             (gsize)GST_VIDEO_INFO_PLANE_STRIDE(info, p));
  gst_buffer_unmap(in, &from);
  gst_buffer_unmap(out, &to);
  gst_buffer_copy_into(out, in, GST_BUFFER_COPY_TIMESTAMPS, 0, (gsize)-1);
  gst_buffer_add_video_meta_full(out, GST_VIDEO_FRAME_FLAG_NONE, GST_VIDEO_INFO_FORMAT(info), (guint)info->width,
                                 (guint)info->height, GST_VIDEO_INFO_N_PLANES(info), offset, stride);
  return out;
}

/* The result has the size of the output's caps and the bytes of the same frame without padding, whether the padded size
 * is a multiple of the frame's or not. */
static void test_padded(gconstpointer data) {
  static const gint sizes[][2] = {{64, 48}, {66, 34}, {33, 17}};
  for (guint s = 0; s < G_N_ELEMENTS(sizes); s++) {
    g_autofree gchar *caps = caps_text(data, sizes[s][0], sizes[s][1], "");
    g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, caps);
    g_autoptr(GstBuffer) tight = test_frame(caps, 3, 0);
    GstVideoInfo info = out_info(t);
    g_autofree gchar *expected = NULL;
    for (guint kind = 0; kind < 4; kind++) {
      GstBuffer *in = kind == 0   ? gst_buffer_ref(tight)
                      : kind == 1 ? padded_frame(&info, tight, 64, 0)
                      : kind == 2 ? padded_frame(&info, tight, 0, 2 * GST_VIDEO_INFO_SIZE(&info))
                                  : padded_frame(&info, tight, 1, 3 * GST_VIDEO_INFO_SIZE(&info) + 1);
      g_assert_cmpint(gst_harness_push(t->h, in), ==, GST_FLOW_OK);
      g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
      g_assert_cmpuint(gst_buffer_get_size(out), ==, GST_VIDEO_INFO_SIZE(&info));
      g_autofree gchar *hash = buffer_hash(out);
      if (!expected) expected = g_strdup(hash);
      g_assert_cmpstr(hash, ==, expected);
    }
    tester_collect(t);
    g_assert_cmpuint(t->errors, ==, 0);
  }
}

/* ---- Output buffers that cannot be had ---- */

typedef struct {
  GstBufferPool parent;
} EmptyPool;
typedef struct {
  GstBufferPoolClass parent;
} EmptyPoolClass;
static GType empty_pool_get_type(void);
G_DEFINE_TYPE(EmptyPool, empty_pool, GST_TYPE_BUFFER_POOL)

static GstFlowReturn acquire_nothing(GstBufferPool *pool, GstBuffer **buffer, GstBufferPoolAcquireParams *params) {
  (void)pool, (void)params;
  *buffer = NULL;
  return GST_FLOW_ERROR;
}

static void empty_pool_class_init(EmptyPoolClass *klass) {
  klass->parent.acquire_buffer = acquire_nothing;
}

static void empty_pool_init(EmptyPool *pool) {
  (void)pool;
}

static GstPadProbeReturn offer_pool(GstPad *pad, GstPadProbeInfo *info, gpointer data) {
  (void)pad;
  GstQuery *query = GST_PAD_PROBE_INFO_QUERY(info);
  if (GST_QUERY_TYPE(query) != GST_QUERY_ALLOCATION) return GST_PAD_PROBE_OK;
  gst_query_add_allocation_pool(query, data, 64 * 48 * 3, 1, 0);
  return GST_PAD_PROBE_HANDLED;
}

/* The base class says nothing when a pool has no buffer. */
static void test_no_output_buffer(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, NULL);
  g_autoptr(GstBufferPool) pool = gst_object_ref_sink(g_object_new(empty_pool_get_type(), NULL));
  g_autoptr(GstPad) pad = gst_element_get_static_pad(t->element, "src");
  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_QUERY_DOWNSTREAM, offer_pool, pool, NULL);
  gst_harness_set_src_caps_str(t->h, SMALL);
  g_assert_cmpint(gst_harness_push(t->h, test_frame(SMALL, 0, 0)), ==, GST_FLOW_ERROR);
  tester_assert_error(t, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NO_SPACE_LEFT, "64x48");
}

/* A frame that no memory can hold has no GstVideoInfo: still a message. */
static void test_no_such_frame(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, NULL);
  g_autofree gchar *caps = caps_text("RGBA", 65535, 65535, "");
  gst_harness_set_src_caps_str(t->h, caps);
  g_assert_cmpint(gst_harness_push(t->h, test_frame(SMALL, 0, 0)), ==, GST_FLOW_NOT_NEGOTIATED);
  tester_assert_error(t, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT, "memory");
}

/* ---- Caps that cannot be edited, one picture among others ---- */

typedef struct {
  const gchar *name, *properties, *more; /* more: of the caps in the middle */
  gint width, height;
} Unfit;

static const Unfit unfits[] = {
    {"narrow", "size-mode=input", "", 2, 900},
    {"interlaced", "size-mode=input", ",interlace-mode=interleaved", 64, 48},
    {"native-interlaced", "size-mode=native", ",interlace-mode=interleaved", 64, 48},
};

static void push_five(Tester *t, const Unfit *unfit) {
  g_autofree gchar *odd = caps_text("RGB", unfit->width, unfit->height, unfit->more);
  for (guint n = 0; n < 5; n++) {
    const gchar *caps = n == 2 ? odd : SMALL;
    gst_harness_set_src_caps_str(t->h, caps);
    g_assert_cmpint(gst_harness_push(t->h, test_frame(caps, n, n)), ==, GST_FLOW_OK);
  }
  tester_collect(t);
  g_assert_cmpuint(t->errors, ==, 0);
  g_assert_cmpuint(t->warnings, ==, 1);
  g_assert_cmpuint(stat_uint64(t->element, "errors"), ==, 1);
  g_assert_cmpuint(stat_uint64(t->element, "frames"), ==, 4);
}

static void test_unfit_dropped(gconstpointer data) {
  const Unfit *unfit = data;
  g_autofree gchar *properties =
      g_strconcat("backend=null steps=1 prompt=night on-error=drop ", unfit->properties, NULL);
  g_autoptr(Tester) t = tester_new_playing(properties, NULL);
  push_five(t, unfit);
  g_assert_cmpuint(stat_uint64(t->element, "dropped"), ==, 1);
  static const guint expected[] = {0, 1, 3, 4};
  for (guint i = 0; i < G_N_ELEMENTS(expected); i++) {
    g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
    g_assert_cmpuint(GST_BUFFER_OFFSET(out), ==, expected[i]);
  }
}

/* It comes out as it went in; where the output has another size, scaled. */
static void test_unfit_passed(gconstpointer data) {
  const Unfit *unfit = data;
  g_autofree gchar *properties =
      g_strconcat("backend=null steps=1 prompt=night on-error=passthrough ", unfit->properties, NULL);
  g_autofree gchar *odd = caps_text("RGB", unfit->width, unfit->height, unfit->more);
  g_autoptr(Tester) t = tester_new_playing(properties, NULL);
  g_autoptr(GstBuffer) in = test_frame(odd, 2, 2);
  g_autofree gchar *expected = buffer_hash(in);
  push_five(t, unfit);
  g_assert_cmpuint(stat_uint64(t->element, "dropped"), ==, 0);
  for (guint n = 0; n < 5; n++) {
    g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
    g_assert_cmpuint(GST_BUFFER_OFFSET(out), ==, n);
    g_autofree gchar *hash = buffer_hash(out);
    if (n == 2 && !g_str_equal(unfit->name, "native-interlaced")) g_assert_cmpstr(hash, ==, expected);
  }
}

/* on-error may change while frames flow: the caps were taken, each frame now fails. */
static void test_unfit_then_fail(void) {
  g_autoptr(Tester) t = tester_new_playing("backend=null steps=1 prompt=night on-error=drop", RGB_CAPS(2, 900));
  g_assert_cmpint(gst_harness_push(t->h, test_frame(RGB_CAPS(2, 900), 0, 0)), ==, GST_FLOW_OK);
  gst_util_set_object_arg(G_OBJECT(t->element), "on-error", "fail");
  g_assert_cmpint(gst_harness_push(t->h, test_frame(RGB_CAPS(2, 900), 1, 1)), ==, GST_FLOW_ERROR);
  tester_assert_error(t, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT, "2x900");
  g_assert_cmpstr(t->kind, ==, "format");
}

/* ---- Caps that say what an edit does not heed ---- */

typedef struct {
  const gchar *name, *more, *word; /* word NULL: no warning */
} Heeded;

static const Heeded heeded[] = {
    {"pq", ",colorimetry=bt2100-pq", "bt2100-pq"},
    {"hlg", ",colorimetry=bt2100-hlg", "bt2100-hlg"},
    {"linear", ",colorimetry=2:4:1:4", "colorimetry"},
    {"bt709", ",colorimetry=bt709", NULL},
    {"bt2020", ",colorimetry=bt2020", NULL},
    {"srgb", ",colorimetry=sRGB", NULL},
    {"wide-pixels", ",pixel-aspect-ratio=64/45", "64:45"},
    {"square-pixels", ",pixel-aspect-ratio=1/1", NULL},
};

static void test_heeded(gconstpointer data) {
  const Heeded *h = data;
  g_autofree gchar *caps = caps_text("I420", 64, 48, h->more);
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, caps);
  for (guint n = 0; n < 2; n++) check_one(t, caps, n);
  tester_collect(t);
  g_assert_cmpuint(t->errors, ==, 0);
  g_assert_cmpuint(t->warnings, ==, h->word ? 1 : 0);
  if (h->word) g_assert_nonnull(strstr(t->warning, h->word));
}

/* A bad frame in the middle of a batch: those before it come out, it does not, those after it do. */
static void test_bad_buffer_in_batch(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "batch-size=3 on-error=drop", SMALL);
  gst_harness_push(t->h, test_frame(SMALL, 0, 0));
  g_assert_cmpint(gst_harness_push(t->h, short_frame()), ==, GST_FLOW_OK);
  for (guint n = 2; n < 5; n++) gst_harness_push(t->h, test_frame(SMALL, n, n));
  static const guint expected[] = {0, 2, 3, 4};
  for (guint i = 0; i < G_N_ELEMENTS(expected); i++) {
    g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
    g_assert_cmpuint(GST_BUFFER_OFFSET(out), ==, expected[i]);
  }
  g_assert_cmpuint(stat_uint64(t->element, "dropped"), ==, 1);
  g_assert_cmpuint(stat_uint64(t->element, "errors"), ==, 1);
  g_assert_cmpuint(stat_uint64(t->element, "frames"), ==, 4);
}

/* It cannot be passed on either: nobody could read it. */
static void test_bad_buffer_passthrough(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "on-error=passthrough", SMALL);
  g_assert_cmpint(gst_harness_push(t->h, lying_frame()), ==, GST_FLOW_OK);
  g_assert_cmpuint(gst_harness_buffers_received(t->h), ==, 0);
  g_assert_cmpuint(stat_uint64(t->element, "dropped"), ==, 1);
}

static void add_tests(void) {
  static const gint native[][4] = {{600, 400, 1, 1}, {720, 576, 16, 15}, {1920, 1080, 1, 1}, {100, 1000, 1, 1}};
  for (gsize i = 0; i < G_N_ELEMENTS(formats); i++) {
    g_autofree gchar *name = g_strconcat("/element/caps/format/", formats[i], NULL);
    g_test_add_data_func(name, formats[i], test_format);
  }
  g_test_add_func("/element/caps/tall", test_tall);
  g_test_add_func("/element/caps/alpha", test_alpha);
  g_test_add_func("/element/caps/change-each-frame", test_change_each_frame);
  g_test_add_func("/element/caps/input-size-keeps-caps", test_input_size_keeps_caps);
  g_test_add_func("/element/caps/query", test_caps_query);
  for (gsize i = 0; i < G_N_ELEMENTS(native); i++) {
    g_autofree gchar *name = g_strdup_printf("/element/caps/native/%dx%d", native[i][0], native[i][1]);
    g_test_add_data_func(name, native[i], test_native);
  }
  g_test_add_func("/element/caps/native/into-another-size", test_native_into_another_size);
  g_test_add_data_func("/element/caps/interlaced/interleaved", "interleaved", test_interlaced);
  g_test_add_data_func("/element/caps/interlaced/mixed", "mixed", test_interlaced);
  g_test_add_func("/element/caps/none", test_no_caps);
  g_test_add_func("/element/meta/region-of-interest", test_region_of_interest_scales);
  g_test_add_func("/element/meta/reference-timestamp", test_reference_timestamp_stays);
  g_test_add_func("/element/meta/allocation-query", test_allocation_query);
  g_test_add_data_func("/element/buffer/short", GINT_TO_POINTER(FALSE), test_bad_buffer);
  g_test_add_data_func("/element/buffer/lying-meta", GINT_TO_POINTER(TRUE), test_bad_buffer);
  g_test_add_func("/element/buffer/in-batch", test_bad_buffer_in_batch);
  g_test_add_func("/element/buffer/passthrough", test_bad_buffer_passthrough);
  for (gsize i = 0; i < G_N_ELEMENTS(formats); i++) {
    g_autofree gchar *name = g_strconcat("/element/buffer/padded/", formats[i], NULL);
    g_test_add_data_func(name, formats[i], test_padded);
  }
  g_test_add_func("/element/buffer/no-output", test_no_output_buffer);
  g_test_add_func("/element/caps/no-such-frame", test_no_such_frame);
  for (gsize i = 0; i < G_N_ELEMENTS(unfits); i++) {
    g_autofree gchar *drop = g_strconcat("/element/caps/unfit/drop/", unfits[i].name, NULL);
    g_autofree gchar *pass = g_strconcat("/element/caps/unfit/passthrough/", unfits[i].name, NULL);
    g_test_add_data_func(drop, &unfits[i], test_unfit_dropped);
    g_test_add_data_func(pass, &unfits[i], test_unfit_passed);
  }
  g_test_add_func("/element/caps/unfit/then-fail", test_unfit_then_fail);
  for (gsize i = 0; i < G_N_ELEMENTS(heeded); i++) {
    g_autofree gchar *name = g_strconcat("/element/caps/heeded/", heeded[i].name, NULL);
    g_test_add_data_func(name, &heeded[i], test_heeded);
  }
}

int main(int argc, char **argv) {
  return tester_main(&argc, &argv, add_tests);
}
