/* SPDX-License-Identifier: Apache-2.0 */
/* Request pads of reference pictures: their names, that frames get what the library gives for the same pictures in the
 * order of the pads' numbers, waiting for the first picture, ends and stops. */
#include "fk.h"
#include "test-element-util.h"

#include <string.h>

#define RGBA_CAPS "video/x-raw,format=RGBA,width=40,height=64,framerate=0/1"
#define BGR_CAPS "video/x-raw,format=BGR,width=96,height=48,framerate=5/1"
#define CAPS RGB_CAPS(64, 64)

static Tester *model_tester(void) {
  Tester *t = tester_new("backend=cpu max-area=4096 steps=1 prompt=\"make it night\"");
  g_object_set(t->element, "model-path", FK_DEMO_MODEL, NULL);
  return t;
}

static void pads(void) {
  g_autoptr(Tester) t = tester_new(NULL_ENGINE);
  GstPad *list[8];
  list[0] = gst_element_request_pad_simple(t->element, "reference_%u");
  list[1] = gst_element_request_pad_simple(t->element, "reference_2");
  for (guint i = 2; i < 8; i++) list[i] = gst_element_request_pad_simple(t->element, "reference_%u");
  g_assert_null(gst_element_request_pad_simple(t->element, "reference_%u"));
  static const gchar *const names[] = {"reference_0", "reference_2", "reference_1", "reference_3"};
  for (guint i = 0; i < G_N_ELEMENTS(names); i++) g_assert_cmpstr(GST_PAD_NAME(list[i]), ==, names[i]);
  for (guint i = 0; i < 8; i++) {
    gst_element_release_request_pad(t->element, list[i]);
    gst_object_unref(list[i]);
  }
  GstPad *again = gst_element_request_pad_simple(t->element, "reference_%u");
  g_assert_cmpstr(GST_PAD_NAME(again), ==, "reference_0");
  gst_object_unref(again); /* stays with the element, which frees it */
}

/* A harness that feeds one pad of the element. */
static GstHarness *feed(Tester *t, const gchar *name, const gchar *caps) {
  GstHarness *h = gst_harness_new_with_element(t->element, name, NULL);
  gst_harness_set_src_caps_str(h, caps);
  return h;
}

/* R G B (A) of a frame in a packed format. (transfer full) */
static FkImage image_of(const gchar *text, guint seed) {
  g_autoptr(GstCaps) caps = gst_caps_from_string(text);
  GstVideoInfo info;
  g_assert_true(gst_video_info_from_caps(&info, caps));
  g_autoptr(GstBuffer) buffer = test_frame(text, seed, 0);
  GstVideoFrame f;
  g_assert_true(gst_video_frame_map(&f, &info, buffer, GST_MAP_READ));
  gint channels = GST_VIDEO_INFO_N_COMPONENTS(&info);
  FkImage image = {g_malloc((gsize)(info.width * info.height * channels)), info.width, info.height, channels,
                   (size_t)(info.width * channels)};
  for (gint y = 0; y < info.height; y++)
    for (gint x = 0; x < info.width; x++)
      for (gint c = 0; c < channels; c++)
        image.data[(y * info.width + x) * channels + c] = ((guint8 *)GST_VIDEO_FRAME_COMP_DATA(
            &f, c))[y * GST_VIDEO_FRAME_COMP_STRIDE(&f, c) + x * GST_VIDEO_FRAME_COMP_PSTRIDE(&f, c)];
  gst_video_frame_unmap(&f);
  return image;
}

/* What the library makes of the frame and these pictures. */
static void expect(Tester *t, const FkImage *references, gint n, GstBuffer *out) {
  g_autoptr(GError) error = NULL;
  FkEngine *engine = NULL;
  g_object_get(t->element, "engine", &engine, NULL);
  g_autoptr(FkSettings) s = fk_settings_new();
  fk_settings_set(s, "max-area", "4096", NULL);
  fk_settings_set(s, "steps", "1", NULL);
  fk_settings_set(s, "prompt", "make it night", NULL);
  FkImage in = image_of(CAPS, 1);
  g_autofree guint8 *pixels = g_malloc(64 * 64 * 3);
  FkJob job = {.in = in, .out = {pixels, 64, 64, 3, 192}, .settings = s, .references = references, .n_references = n};
  g_assert_true(fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error));
  g_assert_cmpint(gst_buffer_memcmp(out, 0, pixels, 64 * 64 * 3), ==, 0);
  fk_engine_unref(engine);
  g_free(in.data);
}

static void pictures(void) {
  g_autoptr(Tester) t = model_tester();
  GstHarness *two = feed(t, "reference_2", RGBA_CAPS), *one = feed(t, "reference_1", BGR_CAPS);
  tester_play(t, CAPS);
  g_assert_cmpint(gst_harness_push(two, test_frame(RGBA_CAPS, 5, 0)), ==, GST_FLOW_OK);
  gst_harness_push_event(two, gst_event_new_eos()); /* a still image stays */
  FkImage first = image_of(BGR_CAPS, 6), second = image_of(RGBA_CAPS, 5), later = image_of(BGR_CAPS, 7);
  for (guint n = 0; n < 3; n++) {
    if (n != 1) g_assert_cmpint(gst_harness_push(one, test_frame(BGR_CAPS, n ? 7 : 6, n)), ==, GST_FLOW_OK);
    g_assert_cmpint(gst_harness_push(t->h, test_frame(CAPS, 1, n)), ==, GST_FLOW_OK);
    g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
    expect(t, (const FkImage[]){n == 2 ? later : first, second}, 2, out);
  }
  g_free(first.data);
  g_free(second.data);
  g_free(later.data);
  gst_harness_teardown(one);
  gst_harness_teardown(two);
}

static gpointer push_late(gpointer harness) {
  g_usleep(100000);
  gst_harness_push(harness, test_frame(BGR_CAPS, 6, 0));
  return NULL;
}

/* A frame waits for the first picture; a pad that ends without one has none. */
static void waits(void) {
  g_autoptr(Tester) t = model_tester();
  GstHarness *one = feed(t, "reference_%u", BGR_CAPS), *none = feed(t, "reference_%u", RGBA_CAPS);
  tester_play(t, CAPS);
  gst_harness_push_event(none, gst_event_new_eos());
  GThread *thread = g_thread_new("late", push_late, one);
  g_assert_cmpint(gst_harness_push(t->h, test_frame(CAPS, 1, 0)), ==, GST_FLOW_OK);
  g_thread_join(thread);
  g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
  FkImage picture = image_of(BGR_CAPS, 6);
  expect(t, &picture, 1, out);
  g_free(picture.data);
  gst_harness_teardown(one);
  gst_harness_teardown(none);
}

static gpointer flush_late(gpointer tester) {
  g_usleep(100000);
  gst_harness_push_event(((Tester *)tester)->h, gst_event_new_flush_start());
  return NULL;
}

/* Nothing waits longer than until a flush. */
static void flushes(void) {
  g_autoptr(Tester) t = model_tester();
  GstHarness *one = feed(t, "reference_%u", BGR_CAPS);
  tester_play(t, CAPS);
  GThread *thread = g_thread_new("flush", flush_late, t);
  g_assert_cmpint(gst_harness_push(t->h, test_frame(CAPS, 1, 0)), ==, GST_FLOW_FLUSHING);
  g_thread_join(thread);
  gst_harness_teardown(one);
}

static void add(void) {
  g_test_add_func("/element-reference/pads", pads);
  g_test_add_func("/element-reference/pictures", pictures);
  g_test_add_func("/element-reference/waits", waits);
  g_test_add_func("/element-reference/flushes", flushes);
}

int main(int argc, char **argv) {
  return tester_main(&argc, &argv, add);
}
