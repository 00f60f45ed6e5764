/* SPDX-License-Identifier: Apache-2.0 */
/* mask=meta with what GstAnalytics says of a frame: boxes, segmentations, classes, lies. With GStreamer's library where
 * it is 1.26 or newer (GST_ANALYTICS, given by the build), else with a stand-in of the same name. */
#include "../gst/gstfluxkontextregions.h"

#include "test-element-util.h"

#ifdef GST_ANALYTICS
#include <gst/analytics/analytics.h>
#else
#include "stub-analytics.h"
#endif

#include <string.h>

enum { W = 64, H = 48 };

typedef struct {
  GstBuffer *buffer;
  GstAnalyticsRelationMeta *meta;
  guint8 expected[W * H];
} Case;

static Case *case_new(void) {
  Case *c = g_new0(Case, 1);
  c->buffer = test_frame(SMALL, 1, 0);
  c->meta = gst_buffer_add_analytics_relation_meta(c->buffer);
  return c;
}

static void case_free(Case *c) {
  gst_buffer_unref(c->buffer);
  g_free(c);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Case, case_free)

static guint add_object(Case *c, const gchar *type, gint x, gint y, gint w, gint h) {
  GstAnalyticsODMtd mtd;
  g_assert_true(gst_analytics_relation_meta_add_od_mtd(c->meta, g_quark_from_string(type), x, y, w, h, 0.5f, &mtd));
  return mtd.id;
}

/* A picture of regions, its value at x, y given by a function, in memory with gaps between rows. */
static GstBuffer *regions(GstVideoFormat format, gint w, gint h, guint (*value)(gint x, gint y)) {
  gint bytes = format == GST_VIDEO_FORMAT_GRAY8 ? 1 : 2, stride[GST_VIDEO_MAX_PLANES] = {w * bytes + 5};
  gsize offset[GST_VIDEO_MAX_PLANES] = {3}, size = 3 + (gsize)(stride[0] * h);
  guint8 *pixels = g_malloc(size);
  memset(pixels, 0xee, size);
  for (gint y = 0; y < h; y++)
    for (gint x = 0; x < w; x++) {
      guint8 *at = pixels + offset[0] + y * stride[0] + x * bytes;
      guint v = value(x, y);
      *at = (guint8)(format == GST_VIDEO_FORMAT_GRAY16_BE ? v >> 8 : v);
      if (bytes == 2) at[1] = (guint8)(format == GST_VIDEO_FORMAT_GRAY16_BE ? v : v >> 8);
    }
  GstBuffer *buffer = gst_buffer_new_wrapped(pixels, size);
  gst_buffer_add_video_meta_full(buffer, GST_VIDEO_FRAME_FLAG_NONE, format, (guint)w, (guint)h, 1, offset, stride);
  return buffer;
}

static guint add_regions(Case *c, GstBuffer *picture, guint *ids, gsize n, gint x, gint y, guint w, guint h) {
  GstAnalyticsSegmentationMtd mtd;
  g_assert_true(gst_analytics_relation_meta_add_segmentation_mtd(c->meta, picture, GST_SEGMENTATION_TYPE_SEMANTIC, n,
                                                                 ids, x, y, w, h, &mtd));
  return mtd.id;
}

static void add_classes(Case *c, guint segmentation, const gchar *a, const gchar *b, const gchar *d) {
  gfloat confidence[] = {0.5f, 0.5f, 0.5f};
  GQuark classes[] = {g_quark_from_string(a), g_quark_from_string(b), g_quark_from_string(d)};
  GstAnalyticsClsMtd mtd;
  g_assert_true(gst_analytics_relation_meta_add_cls_mtd(c->meta, 3, confidence, classes, &mtd));
  g_assert_true(gst_analytics_relation_meta_set_relation(c->meta, GST_ANALYTICS_REL_TYPE_N_TO_N, segmentation, mtd.id));
}

static void expect_box(Case *c, gint x0, gint y0, gint x1, gint y1) {
  for (gint y = 0; y < H; y++)
    for (gint x = 0; x < W; x++)
      if (x >= x0 && x < x1 && y >= y0 && y < y1) c->expected[y * W + x] = 255;
}

static gboolean mask_of(const Case *c, const gchar *type, FkImage *mask, GError **error) {
  g_autoptr(FkSettings) settings = fk_settings_new();
  GstVideoInfo info;
  g_assert_true(gst_video_info_set_format(&info, GST_VIDEO_FORMAT_RGB, W, H));
  g_assert_true(fk_settings_set(settings, "mask", "meta", NULL));
  if (type) g_assert_true(fk_settings_set(settings, "mask-type", type, NULL));
  return gst_flux_kontext_regions_mask(settings, &info, c->buffer, mask, error);
}

static void assert_mask(const Case *c, const gchar *type) {
  g_autoptr(GError) error = NULL;
  FkImage mask;
  g_assert_true(mask_of(c, type, &mask, &error));
  g_assert_no_error(error);
  g_assert_cmpmem(mask.data, W * H, c->expected, W * H);
  g_free(mask.data);
}

/* Boxes are cut at the frame's ends, of the type that is asked for, and join regions of interest. */
static void test_objects(void) {
  g_autoptr(Case) all = case_new(), faces = case_new();
  Case *const both[] = {all, faces};
  for (guint i = 0; i < 2; i++) {
    add_object(both[i], "face", -5, -7, 12, 10);
    add_object(both[i], "dog", 20, 10, 7, 9);
    add_object(both[i], "face", W - 4, 30, G_MAXINT, 3);
    add_object(both[i], "face", G_MININT, G_MININT, G_MAXINT, G_MAXINT);
    add_object(both[i], "face", 5, 5, -3, -3);
    gst_buffer_add_video_region_of_interest_meta(both[i]->buffer, "face", 40, 40, 2, 3);
    expect_box(both[i], 0, 0, 7, 3);
    expect_box(both[i], W - 4, 30, W, 33);
    expect_box(both[i], 40, 40, 42, 43);
  }
  expect_box(all, 20, 10, 27, 19);
  assert_mask(all, NULL);
  assert_mask(faces, "face");
  memset(all->expected, 0, sizeof all->expected);
  assert_mask(all, "horse");
}

static guint quarters(gint x, gint y) {
  return (guint[]){0, 7, 12, 31}[(y / 3 % 2) * 2 + x / 4 % 2];
}

static guint wide_quarters(gint x, gint y) {
  return quarters(x, y) * 2000;
}

/* The regions' picture is 8x6 and lies over 32x24 pixels from 10, -4 on: a pixel of it covers 4x4. */
static void test_segmentation(gconstpointer data) {
  GstVideoFormat format = (GstVideoFormat)GPOINTER_TO_INT(data);
  gboolean wide = format != GST_VIDEO_FORMAT_GRAY8;
  guint factor = wide ? 2000 : 1, ids[] = {0, 12 * factor, 31 * factor, 100000};
  g_autoptr(Case) all = case_new(), leaves = case_new(), none = case_new(), ground = case_new();
  Case *const each[] = {all, leaves, none, ground};
  for (guint i = 0; i < 4; i++) {
    GstBuffer *picture = regions(format, 8, 6, wide ? wide_quarters : quarters);
    guint id = add_regions(each[i], picture, ids, G_N_ELEMENTS(ids), 10, -4, 32, 24);
    if (i != 2) add_classes(each[i], id, "background", "strawberry", "leaf");
  }
  /* 7 is no region of the segmentation. */
  expect_box(all, 10, 8, 26, 20);
  expect_box(all, 26, 8, 42, 20);
  expect_box(leaves, 26, 8, 42, 20);
  expect_box(ground, 10, 0, 26, 8);
  assert_mask(all, NULL);
  assert_mask(leaves, "leaf");
  assert_mask(none, "leaf"); /* without classes */
  assert_mask(ground, "background");
}

/* Of an object that has a segmentation the box is not taken. */
static void test_object_with_segmentation(void) {
  guint ids[] = {0, 12};
  for (guint i = 0; i < 2; i++) {
    g_autoptr(Case) c = case_new();
    guint object = add_object(c, "berry", 0, 0, W, H);
    guint id = add_regions(c, regions(GST_VIDEO_FORMAT_GRAY8, W, H, quarters), ids, 2, 0, 0, W, H);
    g_assert_true(gst_analytics_relation_meta_set_relation(c->meta, GST_ANALYTICS_REL_TYPE_CONTAIN, object, id));
    for (gint y = 0; y < H; y++)
      for (gint x = 0; x < W; x++) c->expected[y * W + x] = quarters(x, y) == 12 ? 255 : 0;
    assert_mask(c, i ? "berry" : NULL);
  }
}

static void assert_refused(const Case *c, const gchar *word) {
  g_autoptr(GError) error = NULL;
  FkImage mask;
  g_assert_false(mask_of(c, NULL, &mask, &error));
  g_assert_error(error, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT);
  if (!strstr(error->message, "segmentation") || !strstr(error->message, word))
    g_error("\"%s\" does not name %s", error->message, word);
  g_free(mask.data);
}

/* A segmentation that cannot be read is told: other formats, no meta, a meta that lies about its memory. */
static void test_lies(void) {
  guint ids[] = {1, 2};
  GstVideoMeta *meta;
  g_autoptr(Case) colour = case_new(), shorter = case_new(), flat = case_new(), empty = case_new(), bare = case_new();
  GstBuffer *picture = regions(GST_VIDEO_FORMAT_GRAY8, 8, 6, quarters);
  add_regions(shorter, picture, ids, 2, 0, 0, W, H);
  gst_buffer_get_video_meta(picture)->stride[0] = 4000;
  assert_refused(shorter, "4000");
  picture = regions(GST_VIDEO_FORMAT_GRAY8, 8, 6, quarters);
  add_regions(colour, picture, ids, 2, 0, 0, W, H);
  gst_buffer_get_video_meta(picture)->format = GST_VIDEO_FORMAT_RGB;
  assert_refused(colour, "RGB");
  picture = regions(GST_VIDEO_FORMAT_GRAY8, 8, 6, quarters);
  add_regions(flat, picture, ids, 2, 0, 0, W, H);
  gst_buffer_get_video_meta(picture)->height = 0;
  assert_refused(flat, "8x0");
  picture = regions(GST_VIDEO_FORMAT_GRAY8, 8, 6, quarters);
  add_regions(bare, picture, ids, 2, 0, 0, W, H);
  meta = gst_buffer_get_video_meta(picture);
  g_assert_true(gst_buffer_remove_meta(picture, (GstMeta *)meta));
  assert_refused(bare, "no video meta");
  /* Over nothing. */
  add_regions(empty, regions(GST_VIDEO_FORMAT_GRAY8, 8, 6, quarters), ids, 2, 0, 0, 0, 0);
  assert_mask(empty, NULL);
}

/* In the element: what lies outside comes back as it was, a lie is one error of the frame. */
static void test_element(void) {
  g_autoptr(Tester) t = tester_new("backend=cpu max-area=3072 steps=1 prompt=\"invert the colors\" mask=meta");
  g_object_set(t->element, "model-path", FK_DEMO_MODEL, NULL);
  tester_play(t, SMALL);
  g_autoptr(Case) c = case_new(), lie = case_new();
  add_object(c, "face", 11, 9, 30, 21);
  expect_box(c, 11, 9, 41, 30);
  g_assert_cmpint(gst_harness_push(t->h, gst_buffer_ref(c->buffer)), ==, GST_FLOW_OK);
  g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
  GstMapInfo before, after;
  g_assert_true(gst_buffer_map(c->buffer, &before, GST_MAP_READ) && gst_buffer_map(out, &after, GST_MAP_READ));
  guint changed = 0;
  for (gint i = 0; i < W * H; i++) {
    gboolean same = memcmp(before.data + 3 * i, after.data + 3 * i, 3) == 0;
    if (!c->expected[i]) g_assert_true(same);
    changed += !same;
  }
  gst_buffer_unmap(c->buffer, &before);
  gst_buffer_unmap(out, &after);
  g_assert_cmpuint(changed, >, 60);
  guint ids[] = {1};
  GstBuffer *picture = regions(GST_VIDEO_FORMAT_GRAY8, 8, 6, quarters);
  add_regions(lie, picture, ids, 1, 0, 0, W, H);
  gst_buffer_get_video_meta(picture)->offset[0] = G_MAXSIZE;
  g_assert_cmpint(gst_harness_push(t->h, gst_buffer_ref(lie->buffer)), ==, GST_FLOW_ERROR);
  tester_assert_error(t, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT, "segmentation");
}

static void add(void) {
  g_test_add_func("/element/analytics/objects", test_objects);
  g_test_add_data_func("/element/analytics/segmentation/gray8", GINT_TO_POINTER(GST_VIDEO_FORMAT_GRAY8),
                       test_segmentation);
  g_test_add_data_func("/element/analytics/segmentation/gray16le", GINT_TO_POINTER(GST_VIDEO_FORMAT_GRAY16_LE),
                       test_segmentation);
  g_test_add_data_func("/element/analytics/segmentation/gray16be", GINT_TO_POINTER(GST_VIDEO_FORMAT_GRAY16_BE),
                       test_segmentation);
  g_test_add_func("/element/analytics/object-with-segmentation", test_object_with_segmentation);
  g_test_add_func("/element/analytics/lies", test_lies);
  g_test_add_func("/element/analytics/element", test_element);
}

int main(int argc, char **argv) {
  return tester_main(&argc, &argv, add);
}
