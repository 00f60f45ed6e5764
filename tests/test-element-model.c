/* SPDX-License-Identifier: Apache-2.0 */
/* The element with the demo checkpoint (FK_DEMO_MODEL, given by the build) on the CPU: real pixels. The same frame
 * gives the same bytes in every position, batch, format and start; loading can be left at any instant. */
#include "test-element-util.h"
#include "test-held.h"

#include <string.h>

#define CAPS RGB_CAPS(64, 64)
#define MODEL "backend=cpu max-area=4096 steps=2 prompt=\"make it night\" "

static Tester *model_tester(const gchar *more) {
  g_autofree gchar *properties = g_strconcat(MODEL, more, NULL);
  Tester *t = tester_new(properties);
  g_object_set(t->element, "model-path", FK_DEMO_MODEL, NULL);
  return t;
}

static gchar *pull_hash(Tester *t) {
  g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
  return buffer_hash(out);
}

/* What the frame `seed` becomes alone, in its own start. */
static gchar *alone(guint seed) {
  g_autoptr(Tester) t = model_tester("");
  tester_play(t, CAPS);
  g_assert_cmpint(gst_harness_push(t->h, test_frame(CAPS, seed, 0)), ==, GST_FLOW_OK);
  return pull_hash(t);
}

static void test_batches(void) {
  g_autofree gchar *one = alone(1), *two = alone(2);
  g_assert_cmpstr(one, !=, two);
  for (gint batch = 1; batch <= 4; batch++) {
    g_autofree gchar *more = g_strdup_printf("batch-size=%d", batch);
    g_autoptr(Tester) t = model_tester(more);
    tester_play(t, CAPS);
    for (guint n = 0; n < 5; n++)
      g_assert_cmpint(gst_harness_push(t->h, test_frame(CAPS, 1 + n % 2, n)), ==, GST_FLOW_OK);
    gst_harness_push_event(t->h, gst_event_new_eos());
    for (guint n = 0; n < 5; n++) {
      g_autofree gchar *hash = pull_hash(t);
      g_assert_cmpstr(hash, ==, n % 2 ? two : one);
    }
  }
}

/* Prompt and seed matter, and going back to them gives the old bytes. */
static void test_settings(void) {
  g_autoptr(Tester) t = model_tester("");
  tester_play(t, CAPS);
  gchar *hash[4];
  for (guint n = 0; n < 4; n++) {
    g_object_set(t->element, "seed", (guint64)(n == 1), "prompt", n == 2 ? "make it sepia" : "make it night", NULL);
    gst_harness_push(t->h, test_frame(CAPS, 1, n));
    hash[n] = pull_hash(t);
  }
  g_assert_cmpstr(hash[0], !=, hash[1]);
  g_assert_cmpstr(hash[0], !=, hash[2]);
  g_assert_cmpstr(hash[0], ==, hash[3]);
  for (guint n = 0; n < 4; n++) g_free(hash[n]);
}

/* The same pixels in another order of channels give the same edit. */
static void test_formats(void) {
  static const gchar *const formats[] = {"RGB", "BGR", "RGBx", "BGRx", "RGBA", "BGRA"};
  guint8 first[64 * 64 * 3];
  g_autoptr(Tester) t = model_tester("");
  tester_play(t, NULL);
  for (guint f = 0; f < G_N_ELEMENTS(formats); f++) {
    GstVideoInfo info;
    gst_video_info_set_format(&info, gst_video_format_from_string(formats[f]), 64, 64);
    g_autofree gchar *caps = g_strdup_printf("video/x-raw,format=%s,width=64,height=64,framerate=10/1", formats[f]);
    gst_harness_set_src_caps_str(t->h, caps);
    GstBuffer *in = test_frame(caps, 0, f);
    GstMapInfo map;
    gst_buffer_map(in, &map, GST_MAP_WRITE);
    for (guint i = 0; i < 64 * 64; i++)
      for (guint c = 0; c < 3; c++)
        map.data[i * (guint)info.finfo->pixel_stride[0] + (guint)info.finfo->poffset[c]] = (guint8)(i * 7 / 5 + c * 60);
    gst_buffer_unmap(in, &map);
    g_assert_cmpint(gst_harness_push(t->h, in), ==, GST_FLOW_OK);
    g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
    gst_buffer_map(out, &map, GST_MAP_READ);
    for (guint i = 0; i < 64 * 64; i++)
      for (guint c = 0; c < 3; c++) {
        guint8 found = map.data[i * (guint)info.finfo->pixel_stride[0] + (guint)info.finfo->poffset[c]];
        if (f == 0) first[i * 3 + c] = found;
        g_assert_cmpuint(found, ==, first[i * 3 + c]);
      }
    gst_buffer_unmap(out, &map);
  }
}

/* An odd size is edited at another and comes back at its own. */
static void test_odd_sizes(void) {
  static const gint sizes[][2] = {{1, 1}, {33, 17}, {70, 50}};
  for (guint s = 0; s < G_N_ELEMENTS(sizes); s++) {
    g_autofree gchar *caps =
        g_strdup_printf("video/x-raw,format=I420,width=%d,height=%d,framerate=10/1", sizes[s][0], sizes[s][1]);
    g_autoptr(Tester) t = model_tester("");
    tester_play(t, caps);
    g_autoptr(GstBuffer) in = test_frame(caps, 1, 0);
    g_assert_cmpint(gst_harness_push(t->h, gst_buffer_ref(in)), ==, GST_FLOW_OK);
    g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
    g_assert_cmpuint(gst_buffer_get_size(out), ==, gst_buffer_get_size(in));
  }
}

/* n words that are numbered, so that it shows where an encoder ended. (transfer full) */
static gchar *numbered_words(guint n) {
  GString *text = g_string_new(NULL);
  for (guint i = 0; i < n; i++) g_string_append_printf(text, "%snight %u \360\237\214\231", i ? " " : "", i);
  return g_string_free(text, FALSE);
}

/* The words between the quotes behind `encoder`; NULL: it reads all. (transfer full) */
static gchar *unread_by(const gchar *warning, const gchar *encoder) {
  g_autofree gchar *all = g_strconcat(encoder, " reads all of it", NULL);
  g_autofree gchar *some = g_strconcat(encoder, " reads the first ", NULL);
  if (strstr(warning, all)) return NULL;
  const gchar *from = strstr(warning, some);
  g_assert_nonnull(from);
  gchar **parts = g_strsplit(from, "\"", 3);
  gchar *words = g_str_has_suffix(parts[1], "...") ? g_strndup(parts[1], strlen(parts[1]) - 3) : g_strdup(parts[1]);
  g_strfreev(parts);
  return words;
}

/* Which of the two encoders did not read which words, once for each text. */
static void test_truncated_prompt(void) {
  g_autofree gchar *some = numbered_words(30), *many = numbered_words(300);
  g_autoptr(Tester) t = model_tester("max-sequence-length=512");
  g_object_set(t->element, "prompt", some, NULL);
  tester_play(t, CAPS);
  for (guint n = 0; n < 2; n++) gst_harness_push(t->h, test_frame(CAPS, 1, n));
  tester_collect(t);
  g_assert_cmpuint(t->warnings, ==, 1);
  g_autofree gchar *clip_some = unread_by(t->warning, "CLIP"), *t5_some = unread_by(t->warning, "T5");
  g_assert_null(t5_some);
  g_assert_nonnull(clip_some);
  g_assert_nonnull(strstr(some, clip_some));
  g_object_set(t->element, "prompt", many, NULL); /* another text: reported again, now with both */
  gst_harness_push(t->h, test_frame(CAPS, 1, 2));
  tester_collect(t);
  g_assert_cmpuint(t->warnings, ==, 2);
  g_autofree gchar *clip_many = unread_by(t->warning, "CLIP"), *t5_many = unread_by(t->warning, "T5");
  g_assert_nonnull(t5_many);
  g_assert_cmpuint(strlen(many) - strlen(strstr(many, clip_many)), <, strlen(many) - strlen(strstr(many, t5_many)));
  g_assert_cmpuint(t->errors, ==, 0);
}

/* A negative prompt is read by the same encoders. */
static void test_truncated_negative_prompt(void) {
  g_autofree gchar *many = numbered_words(300);
  g_autoptr(Tester) t = model_tester("true-cfg-scale=2");
  g_object_set(t->element, "negative-prompt", many, NULL);
  tester_play(t, CAPS);
  for (guint n = 0; n < 2; n++) gst_harness_push(t->h, test_frame(CAPS, 1, n));
  tester_collect(t);
  g_assert_cmpuint(t->warnings, ==, 1);
  g_assert_true(g_str_has_prefix(t->warning, "Not all of negative-prompt is read"));
}

/* backend=auto that ends on the CPU says so, once. */
static void test_fallback(void) {
  if (g_file_test("/dev/nvidiactl", G_FILE_TEST_EXISTS)) {
    g_test_skip("this machine has a GPU");
    return;
  }
  g_autoptr(Tester) t = model_tester("");
  gst_util_set_object_arg(G_OBJECT(t->element), "backend", "auto");
  tester_play(t, CAPS);
  gst_harness_push(t->h, test_frame(CAPS, 1, 0));
  gst_harness_push(t->h, test_frame(CAPS, 1, 1));
  tester_collect(t);
  g_assert_cmpuint(t->errors, ==, 0);
  g_assert_cmpuint(t->warnings, ==, 1);
  g_assert_nonnull(strstr(t->warning, "CPU"));
  g_assert_null(strstr(t->warning, ".so")); /* the reason is for developers: the debug text */
}

/* The loader stops in its first message until the element was stopped. */
static GstBusSyncReply hold_load(GstBus *bus, GstMessage *message, gpointer data) {
  GstProgressType type;
  (void)bus;
  if (GST_MESSAGE_TYPE(message) != GST_MESSAGE_PROGRESS) return GST_BUS_PASS;
  gst_message_parse_progress(message, &type, NULL, NULL);
  while (type == GST_PROGRESS_TYPE_CONTINUE && !GST_PAD_IS_FLUSHING(GST_PAD(data))) g_usleep(1000);
  return GST_BUS_PASS;
}

/* A load that is stopped ends as cancelled: it does not go on to its end. */
static void test_stop_leaves_load(void) {
  g_autoptr(Tester) t = model_tester("");
  g_autoptr(GstPad) src = gst_element_get_static_pad(t->element, "src");
  gst_bus_set_sync_handler(t->bus, hold_load, src, NULL);
  g_assert_cmpint(gst_element_set_state(t->element, GST_STATE_PAUSED), ==, GST_STATE_CHANGE_SUCCESS);
  gst_element_set_state(t->element, GST_STATE_NULL);
  gst_bus_set_sync_handler(t->bus, NULL, NULL, NULL);
  tester_collect(t);
  g_assert_cmpuint(t->canceled, ==, 1);
  g_assert_cmpuint(t->errors + t->completes, ==, 0);
}

/* Left at 60 instants of loading and of the first edit; then it still works. */
static void test_stop_while_loading(void) {
  g_autoptr(GRand) random = g_rand_new_with_seed(3);
  for (guint run = 0; run < 60; run++) {
    g_autoptr(Tester) t = model_tester("");
    g_assert_cmpint(gst_element_set_state(t->element, GST_STATE_PAUSED), ==, GST_STATE_CHANGE_SUCCESS);
    g_usleep((gulong)g_rand_int_range(random, 0, 60000));
    gst_element_set_state(t->element, GST_STATE_NULL);
    tester_collect(t);
    g_assert_cmpuint(t->errors, ==, 0);
    g_assert_cmpuint(t->starts, ==, 1);
    g_assert_cmpuint(t->ends, ==, 1);
  }
  g_autofree gchar *hash = alone(1);
  g_assert_cmpuint(strlen(hash), ==, 64);
}

/* 200 frames in one start: the first picture gives the same bytes each time, whatever came between, and memory stays.
 */
static void test_soak(void) {
  g_autoptr(Tester) t = model_tester("steps=1 progress=false");
  tester_play(t, RGB_CAPS(128, 128));
  g_autofree gchar *expected = NULL;
  gsize before = 0;
  for (guint n = 0; n < 200; n++) {
    if (n == 60) before = held_bytes();
    g_assert_cmpint(gst_harness_push(t->h, test_frame(RGB_CAPS(128, 128), n % 3, n)), ==, GST_FLOW_OK);
    g_autofree gchar *hash = pull_hash(t);
    if (!expected) expected = g_strdup(hash);
    if (n % 3 == 0)
      g_assert_cmpstr(hash, ==, expected);
    else
      g_assert_cmpstr(hash, !=, expected);
  }
  gsize after = held_bytes();
  g_test_message("%.2f MiB grown in 140 frames", ((gdouble)after - (gdouble)before) / 1048576);
  g_assert_cmpuint(after, <=, before + 140 * 128 * 128 * 3 / 2); /* half of one frame leaked each time */
}

static void test_eos_while_loading(void) {
  g_autoptr(Tester) t = model_tester("batch-size=3");
  tester_play(t, CAPS);
  for (guint n = 0; n < 2; n++) gst_harness_push(t->h, test_frame(CAPS, 1, n));
  gst_harness_push_event(t->h, gst_event_new_eos());
  g_assert_cmpuint(gst_harness_buffers_received(t->h), ==, 2);
}

/* Caps that cannot be edited are refused after the load that still runs, not in the middle of it: an error that comes
 * while the application still sets the state may go unnoticed. */
static void test_refused_after_load(void) {
  g_autoptr(Tester) t = model_tester("");
  gboolean loaded = FALSE;
  tester_play(t, NULL);
  gst_harness_set_src_caps_str(t->h, "video/x-raw,format=RGB,width=8000,height=16,framerate=10/1");
  g_autoptr(GstMessage) error = NULL;
  while (!error) {
    GstMessage *m = gst_bus_timed_pop_filtered(t->bus, 10 * GST_SECOND, GST_MESSAGE_ERROR | GST_MESSAGE_PROGRESS);
    g_assert_nonnull(m);
    GstProgressType type = GST_PROGRESS_TYPE_START;
    if (GST_MESSAGE_TYPE(m) == GST_MESSAGE_PROGRESS) gst_message_parse_progress(m, &type, NULL, NULL);
    t->starts += GST_MESSAGE_TYPE(m) == GST_MESSAGE_PROGRESS && type == GST_PROGRESS_TYPE_START;
    t->ends += type == GST_PROGRESS_TYPE_COMPLETE;
    loaded |= type == GST_PROGRESS_TYPE_COMPLETE;
    if (GST_MESSAGE_TYPE(m) == GST_MESSAGE_ERROR)
      error = m;
    else
      gst_message_unref(m);
  }
  g_assert_true(loaded);
}

/* Stopped and started again: the same caps are judged anew, with one message. */
static void test_refused_after_restart(void) {
  for (guint run = 0; run < 10; run++) {
    g_autoptr(Tester) t = model_tester("");
    tester_play(t, NULL);
    gst_element_set_state(t->element, GST_STATE_READY);
    gst_element_set_state(t->element, GST_STATE_PLAYING);
    gst_harness_set_src_caps_str(t->h, "video/x-raw,format=RGB,width=8000,height=16,framerate=10/1");
    tester_collect(t);
    g_assert_cmpuint(t->errors, ==, 1);
    tester_forget(t);
  }
}

static void add_tests(void) {
  g_test_add_func("/element/model/refused-after-load", test_refused_after_load);
  g_test_add_func("/element/model/refused-after-restart", test_refused_after_restart);
  g_test_add_func("/element/model/batches", test_batches);
  g_test_add_func("/element/model/settings", test_settings);
  g_test_add_func("/element/model/formats", test_formats);
  g_test_add_func("/element/model/odd-sizes", test_odd_sizes);
  g_test_add_func("/element/model/truncated/prompt", test_truncated_prompt);
  g_test_add_func("/element/model/truncated/negative-prompt", test_truncated_negative_prompt);
  g_test_add_func("/element/model/stop-leaves-load", test_stop_leaves_load);
  g_test_add_func("/element/model/fallback", test_fallback);
  g_test_add_func("/element/model/stop-while-loading", test_stop_while_loading);
  g_test_add_func("/element/model/soak", test_soak);
  g_test_add_func("/element/model/eos-while-loading", test_eos_while_loading);
}

int main(int argc, char **argv) {
  return tester_main(&argc, &argv, add_tests);
}
