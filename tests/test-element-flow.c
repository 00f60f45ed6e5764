/* SPDX-License-Identifier: Apache-2.0 */
/* Frames through the element on the null engine: batches, order, events, latency, QoS, pools.
 * Not here: flushing, cancelling and refusals downstream (test-element-stop.c). */
#include "test-element-util.h"

#include <stdlib.h>
#include <string.h>

/* ---- Batches ---- */

/* EOS with 0..batch frames waiting: all come out, in order, before EOS. */
static void test_eos(gconstpointer data) {
  gint batch = GPOINTER_TO_INT(data);
  for (gint frames = 0; frames <= batch + 1; frames++) {
    g_autoptr(Tester) t = tester_new_batch(batch);
    for (gint n = 0; n < frames; n++) tester_push(t, (guint)n);
    g_assert_cmpuint(gst_harness_buffers_received(t->h), ==, frames / batch * batch);
    g_assert_true(gst_harness_push_event(t->h, gst_event_new_eos()));
    g_assert_cmpuint(tester_take(t, 0), ==, frames);
    tester_collect(t);
    g_assert_cmpuint(t->errors, ==, 0);
    g_assert_cmpuint(stat_uint64(t->element, "frames"), ==, frames);
  }
}

/* A hundred streams one after the other, as concat sends them: other ids, caps and segments, one load. */
static void test_serial_streams(void) {
  g_autoptr(Tester) t = tester_new_batch(3);
  for (guint n = 0; n < 100; n++) {
    g_autofree gchar *id = g_strdup_printf("stream %u", n);
    GstSegment segment;
    gst_segment_init(&segment, GST_FORMAT_TIME);
    segment.base = n * GST_SECOND;
    gst_harness_push_event(t->h, gst_event_new_stream_start(id));
    gst_harness_set_src_caps_str(t->h, n % 2 ? RGB_CAPS(32, 16) : SMALL);
    gst_harness_push_event(t->h, gst_event_new_segment(&segment));
    for (guint i = 0; i < n % 4; i++) gst_harness_push(t->h, test_frame(n % 2 ? RGB_CAPS(32, 16) : SMALL, i, 0));
  }
  gst_harness_push_event(t->h, gst_event_new_eos());
  g_assert_cmpuint(gst_harness_buffers_received(t->h), ==, 25 * (0 + 1 + 2 + 3));
  tester_collect(t);
  g_assert_cmpuint(t->errors, ==, 0);
}

static void test_eos_is_last(void) {
  g_autoptr(Tester) t = tester_new_batch(4);
  tester_push(t, 0);
  tester_push(t, 1);
  gst_harness_push_event(t->h, gst_event_new_eos());
  g_assert_cmpuint(tester_take(t, 0), ==, 2);
  GstEvent *event, *last = NULL;
  while ((event = gst_harness_try_pull_event(t->h))) {
    gst_clear_event(&last);
    last = event;
  }
  g_assert_cmpint(GST_EVENT_TYPE(last), ==, GST_EVENT_EOS);
  gst_event_unref(last);
}

static GstEvent *make_event(GstEventType type) {
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  segment.start = GST_SECOND;
  switch (type) {
  case GST_EVENT_GAP: return gst_event_new_gap(GST_SECOND, GST_SECOND);
  case GST_EVENT_SEGMENT: return gst_event_new_segment(&segment);
  case GST_EVENT_SEGMENT_DONE: return gst_event_new_segment_done(GST_FORMAT_TIME, 0);
  case GST_EVENT_STREAM_START: return gst_event_new_stream_start("another");
  case GST_EVENT_TAG: return gst_event_new_tag(gst_tag_list_new(GST_TAG_TITLE, "title", NULL));
  default: g_assert_not_reached();
  }
}

/* A serialized event in the middle of a batch comes out after the frames that were before it. */
static void test_event_drains(gconstpointer data) {
  GstEventType type = (GstEventType)GPOINTER_TO_INT(data);
  g_autoptr(Tester) t = tester_new_batch(4);
  tester_push(t, 0);
  tester_push(t, 1);
  g_assert_cmpuint(gst_harness_buffers_received(t->h), ==, 0);
  g_assert_true(gst_harness_push_event(t->h, make_event(type)));
  g_assert_cmpuint(tester_take(t, 0), ==, 2);
  tester_push(t, 2);
  gst_harness_push_event(t->h, gst_event_new_eos());
  g_assert_cmpuint(tester_take(t, 2), ==, 1);
}

/* Upstream that needs its buffers back asks for it. */
static void test_drain_query(void) {
  g_autoptr(Tester) t = tester_new_batch(4);
  tester_push(t, 0);
  g_autoptr(GstQuery) query = gst_query_new_drain();
  gst_pad_peer_query(t->h->srcpad, query);
  g_assert_cmpuint(tester_take(t, 0), ==, 1);
}

static void test_same_caps_do_not_drain(void) {
  g_autoptr(Tester) t = tester_new_batch(3);
  tester_push(t, 0);
  g_autoptr(GstCaps) caps = gst_caps_from_string(SMALL);
  gst_harness_push_event(t->h, gst_event_new_caps(caps));
  g_assert_cmpuint(gst_harness_buffers_received(t->h), ==, 0);
  tester_push(t, 1);
  tester_push(t, 2);
  g_assert_cmpuint(tester_take(t, 0), ==, 3);
}

static void test_new_caps_drain(void) {
  g_autoptr(Tester) t = tester_new_batch(3);
  tester_push(t, 0);
  gst_harness_set_src_caps_str(t->h, RGB_CAPS(32, 16));
  g_autoptr(GstBuffer) old = gst_harness_pull(t->h);
  g_assert_cmpuint(gst_buffer_get_size(old), ==, 64 * 48 * 3);
  g_assert_cmpint(gst_harness_push(t->h, test_frame(RGB_CAPS(32, 16), 1, 1)), ==, GST_FLOW_OK);
  gst_harness_push_event(t->h, gst_event_new_eos());
  g_autoptr(GstBuffer) new = gst_harness_pull(t->h);
  g_assert_cmpuint(gst_buffer_get_size(new), ==, 32 * 16 * 3);
}

/* Settings of another kind do not share a batch; another seed does. */
static void test_settings_drain(void) {
  g_autoptr(Tester) t = tester_new_batch(3);
  tester_push(t, 0);
  g_object_set(t->element, "steps", 3, NULL);
  tester_push(t, 1);
  g_assert_cmpuint(tester_take(t, 0), ==, 1);
  g_object_set(t->element, "seed", (guint64)9, NULL);
  tester_push(t, 2);
  g_assert_cmpuint(tester_take(t, 1), ==, 0);
  tester_push(t, 3);
  g_assert_cmpuint(tester_take(t, 1), ==, 3);
}

/* Settings belong to the frame that entered with them. */
static void test_settings_are_snapshots(void) {
  g_autoptr(Tester) t = tester_new_batch(2);
  g_object_set(t->element, "seed", (guint64)5, NULL);
  tester_push(t, 0);
  g_object_set(t->element, "seed", (guint64)6, NULL);
  gst_harness_push_event(t->h, gst_event_new_eos());
  g_assert_cmpuint(stat_uint64(t->element, "seed"), ==, 5);
}

/* Downstream's pool has fewer buffers than a batch has frames. */
static GstPadProbeReturn offer_small_pool(GstPad *pad, GstPadProbeInfo *info, gpointer data) {
  GstQuery *query = GST_PAD_PROBE_INFO_QUERY(info);
  GstBufferPool *pool = data;
  (void)pad;
  if (GST_QUERY_TYPE(query) != GST_QUERY_ALLOCATION) return GST_PAD_PROBE_OK;
  gst_query_add_allocation_pool(query, pool, 64 * 48 * 3, 1, 1);
  return GST_PAD_PROBE_HANDLED;
}

static gpointer take_four(gpointer data) {
  GstHarness *h = data;
  for (guint n = 0; n < 4; n++) {
    g_autoptr(GstBuffer) buffer = gst_harness_pull(h);
    g_assert_cmpuint(GST_BUFFER_OFFSET(buffer), ==, n);
  }
  return NULL;
}

static void test_small_pool(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "batch-size=4", NULL);
  g_autoptr(GstBufferPool) pool = gst_buffer_pool_new();
  g_autoptr(GstPad) pad = gst_element_get_static_pad(t->element, "src");
  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_QUERY_DOWNSTREAM, offer_small_pool, pool, NULL);
  gst_harness_set_src_caps_str(t->h, SMALL);
  GThread *taker = g_thread_new("taker", take_four, t->h);
  for (guint n = 0; n < 4; n++) tester_push(t, n);
  g_thread_join(taker);
}

static void test_no_allocation_answer(void) {
  GstHarness *h = gst_harness_new_parse("fluxkontextedit " NULL_ENGINE "! identity drop-allocation=true");
  gst_harness_set_src_caps_str(h, SMALL);
  g_assert_cmpint(gst_harness_push(h, test_frame(SMALL, 1, 0)), ==, GST_FLOW_OK);
  gst_buffer_unref(gst_harness_pull(h));
  gst_harness_teardown(h);
}

/* ---- Times, flags, segments ---- */

static void test_still_image(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, "video/x-raw,format=RGB,width=64,height=48,framerate=0/1");
  GstBuffer *buffer = test_frame(SMALL, 1, 0);
  GST_BUFFER_PTS(buffer) = GST_BUFFER_DURATION(buffer) = GST_CLOCK_TIME_NONE;
  g_assert_cmpint(gst_harness_push(t->h, buffer), ==, GST_FLOW_OK);
  g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
  g_assert_false(GST_BUFFER_PTS_IS_VALID(out));
  g_assert_false(GST_BUFFER_DURATION_IS_VALID(out));
}

static void test_flags(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, SMALL);
  tester_push(t, 0); /* the first one is a discontinuity anyway */
  gst_buffer_unref(gst_harness_pull(t->h));
  GstBuffer *buffer = test_frame(SMALL, 1, 1);
  GST_BUFFER_DTS(buffer) = 7 * GST_MSECOND;
  GST_BUFFER_FLAG_SET(buffer, GST_BUFFER_FLAG_MARKER | GST_BUFFER_FLAG_DISCONT);
  gst_harness_push(t->h, buffer);
  g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
  g_assert_true(GST_BUFFER_FLAG_IS_SET(out, GST_BUFFER_FLAG_MARKER));
  g_assert_true(GST_BUFFER_FLAG_IS_SET(out, GST_BUFFER_FLAG_DISCONT));
  g_assert_cmpuint(GST_BUFFER_DTS(out), ==, 7 * GST_MSECOND);
}

static void test_reverse_segment(void) {
  g_autoptr(Tester) t = tester_new_batch(2);
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  segment.rate = -1;
  segment.stop = 10 * GST_SECOND;
  gst_harness_push_event(t->h, gst_event_new_segment(&segment));
  for (guint n = 4; n > 0; n--) gst_harness_push(t->h, test_frame(SMALL, n, n));
  for (guint n = 4; n > 0; n--) {
    g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
    g_assert_cmpuint(GST_BUFFER_OFFSET(out), ==, n);
  }
}

/* ---- What it tells ---- */

static void test_progress(void) {
  g_autoptr(Tester) t = tester_new_playing("backend=null max-area=65536 steps=7 batch-size=2", SMALL);
  for (guint n = 0; n < 4; n++) tester_push(t, n);
  tester_collect(t);
  g_assert_cmpuint(t->steps, ==, 2 * 7);
  g_assert_cmpint(t->percent, ==, 100);
  g_assert_cmpuint(t->starts, ==, 3); /* the load and two batches */
  g_assert_cmpuint(t->completes, ==, 3);
}

static void test_no_progress(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "progress=false", SMALL);
  tester_push(t, 0);
  tester_collect(t);
  g_assert_cmpuint(t->steps, ==, 0);
  g_assert_cmpuint(t->starts, ==, 0);
}

static GstClockTime asked_latency(Tester *t) {
  return gst_harness_query_latency(t->h);
}

static void test_latency(void) {
  null_engine(20, 0, 0);
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, SMALL);
  gst_harness_set_upstream_latency(t->h, 10 * GST_MSECOND);
  g_assert_cmpuint(asked_latency(t), ==, 10 * GST_MSECOND); /* nothing measured yet */
  gint64 began = g_get_monotonic_time();
  tester_push(t, 0);
  GstClockTime whole = (GstClockTime)(g_get_monotonic_time() - began) * GST_USECOND;
  GstClockTime one = asked_latency(t);
  g_assert_cmpuint(one, >, (10 + 40) * GST_MSECOND);                             /* two steps of 20 ms on top */
  g_assert_cmpuint(one, <=, 10 * GST_MSECOND + whole / 100 * 105 + GST_MSECOND); /* the edit is a part of the push */
  tester_collect(t);
  g_assert_cmpuint(t->latencies, ==, 1);
  g_object_set(t->element, "report-latency", FALSE, NULL);
  g_assert_cmpuint(asked_latency(t), ==, 10 * GST_MSECOND);
  null_engine(0, 0, 0);
}

/* Frames of a batch wait for it to fill: 3 more at 10 per second. */
static void test_latency_of_batch(void) {
  g_autoptr(Tester) t = tester_new_batch(4);
  gst_harness_set_upstream_latency(t->h, 0);
  for (guint n = 0; n < 4; n++) tester_push(t, n);
  g_assert_cmpuint(asked_latency(t), >=, 300 * GST_MSECOND);
}

static void test_latency_not_live(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, SMALL);
  gst_harness_set_live(t->h, FALSE);
  tester_push(t, 0);
  g_assert_cmpuint(asked_latency(t), ==, 0);
}

static void test_qos(gconstpointer data) {
  gboolean on = GPOINTER_TO_INT(data);
  g_autoptr(Tester) t = tester_new_playing(on ? NULL_ENGINE "qos=true" : NULL_ENGINE, SMALL);
  /* Everything before 350 ms is late. */
  gst_harness_push_upstream_event(t->h,
                                  gst_event_new_qos(GST_QOS_TYPE_UNDERFLOW, 2, 100 * GST_MSECOND, 250 * GST_MSECOND));
  for (guint n = 0; n < 6; n++) tester_push(t, n);
  guint64 frames = stat_uint64(t->element, "frames"), dropped = stat_uint64(t->element, "dropped");
  g_assert_cmpuint(frames + dropped, ==, 6);
  g_assert_cmpuint(gst_harness_buffers_received(t->h), ==, frames);
  if (on)
    g_assert_cmpuint(dropped, >=, 3);
  else
    g_assert_cmpuint(dropped, ==, 0);
}

static void test_stats(void) {
  g_autoptr(Tester) t = tester_new_playing("backend=null max-area=65536 steps=5 seed=77", SMALL);
  tester_push(t, 0);
  tester_push(t, 1);
  g_autoptr(GstStructure) stats = NULL;
  g_object_get(t->element, "stats", &stats, NULL);
  gint evaluations, skipped;
  gdouble edit_ms, step_ms, text_ms, vae_ms;
  g_assert_true(gst_structure_get(stats, "evaluations", G_TYPE_INT, &evaluations, "skipped", G_TYPE_INT, &skipped,
                                  "edit-ms", G_TYPE_DOUBLE, &edit_ms, "step-ms", G_TYPE_DOUBLE, &step_ms, "text-ms",
                                  G_TYPE_DOUBLE, &text_ms, "vae-ms", G_TYPE_DOUBLE, &vae_ms, NULL));
  g_assert_cmpint(evaluations, ==, 5);
  g_assert_cmpint(skipped, ==, 0);
  g_assert_cmpstr(gst_structure_get_string(stats, "step-mask"), ==, "11111");
  g_assert_true(g_str_has_prefix(gst_structure_get_string(stats, "machine"), "null"));
  g_assert_cmpfloat(edit_ms, >=, 5 * step_ms);
  g_assert_cmpuint(stat_uint64(t->element, "seed"), ==, 77);
  g_assert_cmpuint(stat_uint64(t->element, "frames"), ==, 2);
  g_assert_cmpuint(stat_uint64(t->element, "errors"), ==, 0);
}

static void test_active(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "prompt-cache=off", SMALL);
  tester_push(t, 0);
  g_autoptr(GstStructure) active = NULL;
  g_object_get(t->element, "active", &active, NULL);
  g_assert_true(g_str_has_prefix(gst_structure_get_string(active, "backend"), "null (null;"));
  g_assert_true(g_str_has_prefix(gst_structure_get_string(active, "prompt-cache"), "off (off;"));
  g_assert_true(g_str_has_prefix(gst_structure_get_string(active, "vae-tiling"), "off (auto;"));
}

/* Settings that change nothing, and what the warning names; both NULL: nothing to warn about. */
static const gchar *const idle[][2] = {
    {"negative-prompt=blurry", "negative-prompt has no effect"},
    {"true-cfg-scale=2", "true-cfg-scale has no effect"},
    {"step-cache=none step-cache-threshold=0.1", "step-cache-threshold has no effect"},
    {"prompt=\"\"", "prompt has no effect"},
    {"negative-prompt=blurry true-cfg-scale=2", NULL},
    {"step-cache=first-block step-cache-threshold=0.1", NULL},
};

static void test_idle(gconstpointer data) {
  const gchar *const *pair = data;
  g_autofree gchar *properties = g_strconcat(NULL_ENGINE, pair[0], NULL);
  g_autoptr(Tester) t = tester_new_playing(properties, SMALL);
  for (guint n = 0; n < 3; n++) {
    g_object_set(t->element, "seed", (guint64)n, NULL);
    tester_push(t, n);
  }
  tester_collect(t);
  g_assert_cmpuint(t->warnings, ==, pair[1] ? 1 : 0);
  if (pair[1]) g_assert_true(g_str_has_prefix(t->warning, pair[1]));
}

/* One that is set while frames flow is warned about too. */
static void test_idle_later(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, SMALL);
  tester_push(t, 0);
  tester_collect(t);
  g_assert_cmpuint(t->warnings, ==, 0);
  g_object_set(t->element, "true-cfg-scale", 2.0, NULL);
  tester_push(t, 1);
  tester_push(t, 2);
  tester_collect(t);
  g_assert_cmpuint(t->warnings, ==, 1);
}

static void test_seed_mode(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "seed=5 seed-mode=increment", SMALL);
  guint64 seed;
  for (guint n = 0; n < 3; n++) {
    tester_push(t, n);
    g_assert_cmpuint(stat_uint64(t->element, "seed"), ==, 5 + n);
  }
  g_object_get(t->element, "seed", &seed, NULL);
  g_assert_cmpuint(seed, ==, 5);
  g_object_set(t->element, "seed", G_MAXUINT64, NULL);
  tester_push(t, 3);
  g_assert_cmpuint(stat_uint64(t->element, "seed"), ==, G_MAXUINT64);
  tester_push(t, 4);
  g_assert_cmpuint(stat_uint64(t->element, "seed"), ==, 0);
}

static void test_warmup(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "warmup=true", SMALL);
  tester_push(t, 0);
  g_assert_cmpuint(tester_take(t, 0), ==, 1);
  g_assert_cmpuint(stat_uint64(t->element, "frames"), ==, 1);
}

/* Warm-ups of a stream: for a new size and for settings that need other memory, and for nothing else. */
static void test_warmup_only_when_needed(void) {
  static const struct {
    const gchar *caps, *setting, *value;
    guint warmups;
  } frames[] = {
      {SMALL, NULL, NULL, 1},
      {"video/x-raw,format=BGR,width=64,height=48,framerate=10/1", NULL, NULL, 0},
      {"video/x-raw,format=BGR,width=64,height=48,framerate=25/1", NULL, NULL, 0},
      {"video/x-raw,format=RGB,width=64,height=48,framerate=25/1", "prompt", "day", 0},
      {"video/x-raw,format=RGB,width=64,height=48,framerate=30/1", "steps", "3", 1},
      {RGB_CAPS(32, 16), NULL, NULL, 1},
      {SMALL, NULL, NULL, 1},
  };
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "warmup=true", NULL);
  for (guint n = 0; n < G_N_ELEMENTS(frames); n++) {
    if (frames[n].setting) gst_util_set_object_arg(G_OBJECT(t->element), frames[n].setting, frames[n].value);
    gst_harness_set_src_caps_str(t->h, frames[n].caps);
    g_assert_cmpint(gst_harness_push(t->h, test_frame(frames[n].caps, n, n)), ==, GST_FLOW_OK);
    tester_collect(t);
    g_assert_cmpuint(t->warmups, ==, frames[n].warmups);
    g_assert_cmpuint(t->starts, ==, t->ends);
    tester_forget(t);
  }
}

static void add_tests(void) {
  for (gint batch = 1; batch <= 4; batch++) {
    g_autofree gchar *name = g_strdup_printf("/element/flow/eos/batch-%d", batch);
    g_test_add_data_func(name, GINT_TO_POINTER(batch), test_eos);
  }
  g_test_add_func("/element/flow/eos/hundred-streams", test_serial_streams);
  g_test_add_func("/element/flow/eos/last", test_eos_is_last);
  g_test_add_data_func("/element/flow/drain/gap", GINT_TO_POINTER(GST_EVENT_GAP), test_event_drains);
  g_test_add_data_func("/element/flow/drain/segment", GINT_TO_POINTER(GST_EVENT_SEGMENT), test_event_drains);
  g_test_add_data_func("/element/flow/drain/segment-done", GINT_TO_POINTER(GST_EVENT_SEGMENT_DONE), test_event_drains);
  g_test_add_data_func("/element/flow/drain/stream-start", GINT_TO_POINTER(GST_EVENT_STREAM_START), test_event_drains);
  g_test_add_data_func("/element/flow/drain/tag", GINT_TO_POINTER(GST_EVENT_TAG), test_event_drains);
  g_test_add_func("/element/flow/drain/query", test_drain_query);
  g_test_add_func("/element/flow/drain/same-caps-do-not", test_same_caps_do_not_drain);
  g_test_add_func("/element/flow/drain/new-caps", test_new_caps_drain);
  g_test_add_func("/element/flow/drain/settings", test_settings_drain);
  g_test_add_func("/element/flow/settings-are-snapshots", test_settings_are_snapshots);
  g_test_add_func("/element/flow/pool/one-buffer", test_small_pool);
  g_test_add_func("/element/flow/pool/no-answer", test_no_allocation_answer);
  g_test_add_func("/element/flow/still-image", test_still_image);
  g_test_add_func("/element/flow/flags", test_flags);
  g_test_add_func("/element/flow/reverse-segment", test_reverse_segment);
  g_test_add_func("/element/flow/progress/each-step", test_progress);
  g_test_add_func("/element/flow/progress/off", test_no_progress);
  g_test_add_func("/element/flow/latency/live", test_latency);
  g_test_add_func("/element/flow/latency/batch", test_latency_of_batch);
  g_test_add_func("/element/flow/latency/not-live", test_latency_not_live);
  g_test_add_data_func("/element/flow/qos/on", GINT_TO_POINTER(TRUE), test_qos);
  g_test_add_data_func("/element/flow/qos/off", GINT_TO_POINTER(FALSE), test_qos);
  g_test_add_func("/element/flow/stats", test_stats);
  g_test_add_func("/element/flow/active", test_active);
  for (gsize i = 0; i < G_N_ELEMENTS(idle); i++) {
    g_autofree gchar *name = g_strdup_printf("/element/flow/idle/%" G_GSIZE_FORMAT, i);
    g_test_add_data_func(name, idle[i], test_idle);
  }
  g_test_add_func("/element/flow/idle/later", test_idle_later);
  g_test_add_func("/element/flow/seed-mode", test_seed_mode);
  g_test_add_func("/element/flow/warmup/once", test_warmup);
  g_test_add_func("/element/flow/warmup/only-when-needed", test_warmup_only_when_needed);
}

int main(int argc, char **argv) {
  return tester_main(&argc, &argv, add_tests);
}
