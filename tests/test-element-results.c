/* SPDX-License-Identifier: Apache-2.0 */
/* What the element says of its results and takes for single frames: metas, records, previews, repeated frames, settings
 * by meta and event; on the null engine. */
#include "../gst/gstfluxkontextmeta.h"
#include "test-element-util.h"

#include <glib/gstdio.h>
#include <string.h>

/* Frame n with the pixels of `seed` comes out edited; the fields of its result. The buffer is kept by the caller. */
static GstBuffer *edit(Tester *t, guint seed, guint n) {
  g_assert_cmpint(gst_harness_push(t->h, test_frame(SMALL, seed, n)), ==, GST_FLOW_OK);
  GstBuffer *buffer = gst_harness_try_pull(t->h);
  g_assert_nonnull(buffer);
  g_assert_nonnull(gst_flux_kontext_result(buffer));
  return buffer;
}

static guint64 seed_of(GstBuffer *buffer) {
  guint64 seed = 0;
  g_assert_true(gst_structure_get_uint64(gst_flux_kontext_result(buffer), "seed", &seed));
  return seed;
}

static gboolean repeated(GstBuffer *buffer) {
  gboolean value = FALSE;
  g_assert_true(gst_structure_get_boolean(gst_flux_kontext_result(buffer), "repeated", &value));
  return value;
}

/* ---- The meta ---- */

static void assert_result(GstBuffer *buffer) {
  const GstStructure *r = gst_flux_kontext_result(buffer);
  const GstStructure *settings = gst_value_get_structure(gst_structure_get_value(r, "settings"));
  gint evaluations = 0, width = 0;
  gdouble ms = -1;
  g_assert_cmpuint(seed_of(buffer), ==, 7);
  g_assert_true(gst_structure_get(r, "evaluations", G_TYPE_INT, &evaluations, "width", G_TYPE_INT, &width, "edit-ms",
                                  G_TYPE_DOUBLE, &ms, NULL));
  g_assert_cmpint(evaluations, ==, 2);
  g_assert_cmpint(width, >, 0);
  g_assert_cmpfloat(ms, >=, 0);
  g_assert_cmpstr(gst_structure_get_string(r, "step-mask"), ==, "11");
  g_assert_cmpuint(strlen(gst_structure_get_string(r, "hash")), ==, 64);
  g_assert_nonnull(gst_structure_get_string(r, "version"));
  g_assert_cmpstr(gst_structure_get_string(settings, "prompt"), ==, "night");
  g_assert_cmpstr(gst_structure_get_string(settings, "steps"), ==, "2");
  g_autofree gchar *text = gst_structure_to_string(r);
  g_autoptr(GstStructure) back = gst_structure_from_string(text, NULL);
  g_assert_true(gst_structure_is_equal(r, back));
}

static void test_meta(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "seed=7", SMALL);
  g_autoptr(GstBuffer) buffer = edit(t, 1, 0), copy = gst_buffer_copy(buffer);
  assert_result(buffer);
  assert_result(copy);
  /* RGB of 64 columns has no padding: the buffer is the pixels. */
  GstMapInfo map;
  g_assert_true(gst_buffer_map(buffer, &map, GST_MAP_READ));
  g_autofree gchar *hash = g_compute_checksum_for_data(G_CHECKSUM_SHA256, map.data, map.size);
  gst_buffer_unmap(buffer, &map);
  g_assert_cmpstr(gst_structure_get_string(gst_flux_kontext_result(buffer), "hash"), ==, hash);
}

/* Behind what pipelines put behind the element. */
static void test_meta_survives(gconstpointer data) {
  g_autofree gchar *line = g_strdup_printf("videotestsrc num-buffers=2 ! " SMALL " ! fluxkontextedit " NULL_ENGINE
                                           "seed=7 ! %s ! fakesink name=s "
                                           "signal-handoffs=true sync=false",
                                           (const gchar *)data);
  g_autoptr(GError) error = NULL;
  g_autoptr(GstElement) pipeline = gst_parse_launch(line, &error);
  g_assert_no_error(error);
  g_autoptr(GstElement) sink = gst_bin_get_by_name(GST_BIN(pipeline), "s");
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline);
  g_autoptr(GstSample) sample = NULL;
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  g_autoptr(GstMessage) message =
      gst_bus_timed_pop_filtered(bus, GST_CLOCK_TIME_NONE, GST_MESSAGE_EOS | GST_MESSAGE_ERROR);
  g_assert_cmpint(GST_MESSAGE_TYPE(message), ==, GST_MESSAGE_EOS);
  g_object_get(sink, "last-sample", &sample, NULL);
  assert_result(gst_sample_get_buffer(sample));
  g_clear_pointer(&sample, gst_sample_unref);
  gst_element_set_state(pipeline, GST_STATE_NULL);
}

/* ---- Records ---- */

static gchar *read_file(const gchar *folder, const gchar *name) {
  g_autofree gchar *path = g_build_filename(folder, name, NULL);
  gchar *text = NULL;
  g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
  return text;
}

static void test_manifest(void) {
  static const struct {
    const gchar *pattern, *first, *second;
  } cases[] = {{"", "000000.json", "000001.json"}, {"/a-%d.json", "a-0.json", "a-1.json"}, {"/%03d%%", "000%", "001%"}};
  for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autofree gchar *folder = g_dir_make_tmp("fk-manifest-XXXXXX", NULL);
    g_autoptr(Tester) t = tester_new(NULL_ENGINE);
    g_autofree gchar *path = g_strconcat(folder, cases[i].pattern, NULL);
    g_object_set(t->element, "manifest-path", path, NULL);
    tester_play(t, SMALL);
    g_autoptr(GstBuffer) a = edit(t, 1, 0), b = edit(t, 2, 1);
    g_autofree gchar *first = read_file(folder, cases[i].first), *second = read_file(folder, cases[i].second);
    g_assert_nonnull(strstr(first, gst_structure_get_string(gst_flux_kontext_result(a), "hash")));
    g_assert_nonnull(strstr(second, gst_structure_get_string(gst_flux_kontext_result(b), "hash")));
    drop_tree(folder);
  }
}

static void test_manifest_refused(void) {
  static const gchar *const bad[] = {"%s.json", "100%", "%5d", "%", "%ld", "%n"};
  for (gsize i = 0; i < G_N_ELEMENTS(bad); i++) {
    g_autoptr(Tester) t = tester_new(NULL_ENGINE);
    g_object_set(t->element, "manifest-path", bad[i], NULL);
    tester_play(t, SMALL);
    g_assert_cmpint(gst_harness_push(t->h, test_frame(SMALL, 1, 0)), ==, GST_FLOW_ERROR);
    tester_assert_error(t, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS, bad[i]);
    g_assert_cmpstr(t->property, ==, "manifest-path");
  }
  g_autoptr(Tester) t = tester_new(NULL_ENGINE "manifest-path=/nowhere/a.json");
  tester_play(t, SMALL);
  g_assert_cmpint(gst_harness_push(t->h, test_frame(SMALL, 1, 0)), ==, GST_FLOW_ERROR);
  tester_assert_error(t, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_OPEN_WRITE, "/nowhere/a.json");
  g_assert_cmpstr(t->property, ==, "manifest-path");
  g_autoptr(Tester) lenient = tester_new(NULL_ENGINE "on-error=passthrough manifest-path=/nowhere/a.json");
  tester_play(lenient, SMALL);
  for (guint n = 0; n < 3; n++) gst_buffer_unref(edit(lenient, n, n));
  tester_collect(lenient);
  g_assert_cmpuint(lenient->errors, ==, 0);
  g_assert_cmpuint(lenient->warnings, ==, 1);
}

/* ---- Settings of one frame ---- */

static GstEvent *settings_event(gboolean upstream, const gchar *fields) {
  g_autofree gchar *text = g_strconcat(GST_FLUX_KONTEXT_SETTINGS_EVENT ",", fields, NULL);
  GstStructure *structure = gst_structure_from_string(text, NULL);
  g_assert_nonnull(structure);
  return gst_event_new_custom(upstream ? GST_EVENT_CUSTOM_UPSTREAM : GST_EVENT_CUSTOM_DOWNSTREAM, structure);
}

static void test_one_frame(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "seed=7", SMALL);
  g_assert_true(gst_harness_push_event(t->h, settings_event(FALSE, "seed=(guint64)8,steps=3,guidance=(double)1.5")));
  g_assert_true(gst_harness_push_upstream_event(t->h, settings_event(TRUE, "steps=(string)4")));
  GstBuffer *in = test_frame(SMALL, 1, 0);
  gst_structure_set(gst_flux_kontext_frame_settings(in), "seed", G_TYPE_STRING, "9", "prompt", G_TYPE_STRING, "Grüße",
                    NULL);
  g_assert_cmpint(gst_harness_push(t->h, in), ==, GST_FLOW_OK);
  g_autoptr(GstBuffer) out = gst_harness_try_pull(t->h), next = edit(t, 1, 1);
  const GstStructure *settings =
      gst_value_get_structure(gst_structure_get_value(gst_flux_kontext_result(out), "settings"));
  g_assert_cmpuint(seed_of(out), ==, 9);
  g_assert_cmpstr(gst_structure_get_string(settings, "prompt"), ==, "Grüße");
  g_assert_cmpstr(gst_structure_get_string(settings, "steps"), ==, "4");
  g_assert_cmpstr(gst_structure_get_string(settings, "guidance"), ==, "1.5");
  g_assert_null(gst_buffer_get_custom_meta(out, GST_FLUX_KONTEXT_SETTINGS_META));
  assert_result(next);
}

/* In a batch: frames whose settings cannot share it leave it first. */
static void test_one_frame_of_batch(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "seed=7 batch-size=3", SMALL);
  tester_push(t, 0);
  GstBuffer *in = test_frame(SMALL, 1, 1);
  gst_structure_set(gst_flux_kontext_frame_settings(in), "steps", G_TYPE_INT, 5, NULL);
  g_assert_cmpint(gst_harness_push(t->h, in), ==, GST_FLOW_OK);
  g_assert_cmpuint(gst_harness_buffers_received(t->h), ==, 1);
  tester_push(t, 2);
  g_assert_cmpuint(gst_harness_buffers_received(t->h), ==, 2);
  gst_harness_push_event(t->h, gst_event_new_eos());
  static const gint evaluations[] = {2, 5, 2};
  for (guint n = 0; n < 3; n++) {
    g_autoptr(GstBuffer) out = gst_harness_try_pull(t->h);
    gint found;
    g_assert_true(gst_structure_get_int(gst_flux_kontext_result(out), "evaluations", &found));
    g_assert_cmpint(found, ==, evaluations[n]);
    g_assert_cmpuint(GST_BUFFER_OFFSET(out), ==, n);
  }
}

static void test_one_frame_refused(void) {
  static const struct {
    const gchar *fields, *word, *property;
  } cases[] = {{"steps=-1", "steps", "steps"},
               {"steps=(string)many", "many", "steps"},
               {"size-mode=native", "READY", "size-mode"},
               {"model-path=/x", "no setting", "model-path"},
               {"colour=red", "no setting", NULL},
               {"seed=-1", "seed", "seed"}};
  for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, SMALL);
    gst_harness_push_event(t->h, settings_event(FALSE, cases[i].fields));
    g_assert_cmpint(gst_harness_push(t->h, test_frame(SMALL, 1, 0)), ==, GST_FLOW_ERROR);
    tester_assert_error(t, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS, cases[i].word);
    g_assert_cmpstr(t->property, ==, cases[i].property);
    g_autoptr(Tester) lenient = tester_new_playing(NULL_ENGINE "on-error=drop seed=7", SMALL);
    gst_harness_push_event(lenient->h, settings_event(FALSE, cases[i].fields));
    gst_harness_push(lenient->h, test_frame(SMALL, 1, 0));
    g_assert_cmpuint(gst_harness_buffers_received(lenient->h), ==, 0);
    g_autoptr(GstBuffer) next = edit(lenient, 1, 1);
    assert_result(next);
  }
}

/* A flush takes back what was asked of a frame that will not come. */
static void test_one_frame_flushed(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "seed=7", SMALL);
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  gst_harness_push_event(t->h, settings_event(FALSE, "seed=8"));
  gst_harness_push_event(t->h, gst_event_new_flush_start());
  gst_harness_push_event(t->h, gst_event_new_flush_stop(TRUE));
  gst_harness_push_event(t->h, gst_event_new_segment(&segment));
  g_autoptr(GstBuffer) out = edit(t, 1, 0);
  g_assert_cmpuint(seed_of(out), ==, 7);
}

/* ---- Previews ---- */

static void on_preview(GstElement *element, GstSample *sample, gint evaluation, gint evaluations, gpointer user_data) {
  (void)element;
  g_assert_cmpint(evaluation, <, evaluations);
  g_assert_nonnull(gst_sample_get_caps(sample));
  ++*(gint *)user_data;
}

static void test_previews(void) {
  gint signals = 0, messages = 0;
  g_autoptr(Tester) t = tester_new(NULL_ENGINE "steps=7 preview-interval=2 batch-size=2"),
                    plain = tester_new_playing(NULL_ENGINE "steps=7", SMALL);
  g_signal_connect(t->element, "preview", G_CALLBACK(on_preview), &signals);
  tester_play(t, SMALL);
  tester_push(t, 0);
  tester_push(t, 1);
  g_assert_cmpint(signals, ==, 2 * 3);
  for (GstMessage *m; (m = gst_bus_pop_filtered(t->bus, GST_MESSAGE_ELEMENT)); gst_message_unref(m)) {
    const GstStructure *structure = gst_message_get_structure(m);
    if (!gst_structure_has_name(structure, "fluxkontext-preview")) continue;
    GstSample *sample = gst_value_get_sample(gst_structure_get_value(structure, "sample"));
    GstVideoInfo info;
    gint evaluation;
    g_assert_true(gst_video_info_from_caps(&info, gst_sample_get_caps(sample)));
    g_assert_cmpuint(gst_buffer_get_size(gst_sample_get_buffer(sample)), ==, info.size);
    g_assert_true(gst_structure_get_int(structure, "evaluation", &evaluation));
    g_assert_cmpint(evaluation, ==, 2 * (messages / 2 + 1));
    g_assert_cmpuint(GST_BUFFER_PTS(gst_sample_get_buffer(sample)), ==, (guint)(messages % 2) * 100 * GST_MSECOND);
    messages++;
  }
  g_assert_cmpint(messages, ==, 6);
  g_autoptr(GstBuffer) out = gst_harness_try_pull(t->h), same = edit(plain, 0, 0);
  g_autofree gchar *a = buffer_hash(out), *b = buffer_hash(same);
  g_assert_cmpstr(a, ==, b);
  g_object_set(t->element, "preview-interval", 0, NULL);
  gst_buffer_unref(gst_harness_pull(t->h));
  tester_push(t, 2);
  tester_push(t, 3);
  g_assert_cmpint(signals, ==, 6);
  tester_collect(t);
}

/* ---- Similar frames ---- */

/* `base` with `delta` added to a square of `side` pixels. */
static GstBuffer *changed(guint n, gint side, gint delta) {
  GstBuffer *buffer = test_frame(SMALL, 1, n);
  GstMapInfo map;
  g_assert_true(gst_buffer_map(buffer, &map, GST_MAP_READWRITE));
  for (gint y = 0; y < 48; y++)
    for (gint x = 0; x < 64 * 3; x++) {
      guint8 *p = map.data + y * 64 * 3 + x;
      *p = (guint8)(*p / 2 + 20 + (y < side && x < side * 3 ? delta : 0));
    }
  gst_buffer_unmap(buffer, &map);
  return buffer;
}

static void push_changed(Tester *t, guint n, gint side, gint delta, gboolean expected) {
  guint64 before = stat_uint64(t->element, "repeated");
  g_assert_cmpint(gst_harness_push(t->h, changed(n, side, delta)), ==, GST_FLOW_OK);
  g_autoptr(GstBuffer) out = gst_harness_try_pull(t->h);
  g_assert_nonnull(out);
  g_assert_cmpint(repeated(out), ==, expected);
  g_assert_cmpuint(stat_uint64(t->element, "repeated"), ==, before + (expected ? 1 : 0));
  g_assert_cmpuint(GST_BUFFER_PTS(out), ==, n * 100 * GST_MSECOND);
}

static void test_similar(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "seed=7 similar-frame=auto", SMALL);
  push_changed(t, 0, 0, 0, FALSE);
  push_changed(t, 1, 0, 0, TRUE);
  push_changed(t, 2, 48, 3, TRUE);   /* a little everywhere */
  push_changed(t, 3, 16, 40, FALSE); /* much in one place */
  push_changed(t, 4, 16, 41, TRUE);
  push_changed(t, 5, 16, 45, FALSE); /* slow changes add up */
  g_object_set(t->element, "seed", (guint64)8, NULL);
  push_changed(t, 6, 16, 45, FALSE);
  push_changed(t, 7, 16, 45, TRUE);
  g_object_set(t->element, "similar-frame", "off", NULL);
  push_changed(t, 8, 16, 45, FALSE);
  g_object_set(t->element, "similar-frame", "0", NULL);
  push_changed(t, 9, 16, 45, TRUE);
  push_changed(t, 10, 16, 46, FALSE);
  g_object_set(t->element, "similar-frame", "255", NULL);
  push_changed(t, 11, 64, 100, TRUE);
  g_assert_cmpuint(stat_uint64(t->element, "frames"), ==, 6);
}

/* Another size is another picture; what is repeated is the result, and counts up from a seed never repeat. */
static void test_similar_streams(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "similar-frame=auto", SMALL);
  g_autoptr(GstBuffer) a = edit(t, 1, 0), b = edit(t, 1, 1);
  g_autofree gchar *x = buffer_hash(a), *y = buffer_hash(b);
  g_assert_true(repeated(b));
  g_assert_cmpstr(x, ==, y);
  gst_harness_set_src_caps_str(t->h, RGB_CAPS(48, 64));
  g_assert_cmpint(gst_harness_push(t->h, test_frame(RGB_CAPS(48, 64), 1, 2)), ==, GST_FLOW_OK);
  g_autoptr(GstBuffer) c = gst_harness_try_pull(t->h);
  g_assert_false(repeated(c));
  g_autoptr(Tester) counting = tester_new_playing(NULL_ENGINE "similar-frame=auto seed-mode=increment", SMALL);
  for (guint n = 0; n < 3; n++) {
    g_autoptr(GstBuffer) out = edit(counting, 1, n);
    g_assert_false(repeated(out));
  }
}

/* What is repeated is the result of the frame that was compared with, not of one that came after it. */
static void test_similar_between(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "seed=7 similar-frame=auto", SMALL);
  g_autoptr(GstBuffer) a = edit(t, 1, 0);
  g_object_set(t->element, "similar-frame", "off", "seed", (guint64)9, NULL);
  g_autoptr(GstBuffer) b = edit(t, 2, 1);
  g_object_set(t->element, "similar-frame", "auto", "seed", (guint64)7, NULL);
  g_autoptr(GstBuffer) c = edit(t, 1, 2);
  guint64 seed = 0;
  g_assert_false(repeated(b));
  g_assert_true(repeated(c));
  g_assert_true(gst_structure_get_uint64(gst_flux_kontext_result(c), "seed", &seed));
  g_assert_cmpuint(seed, ==, 7);
}

/* The frame that is repeated may still wait for its batch to fill. */
static void test_similar_batch(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "similar-frame=auto batch-size=3", SMALL);
  static const guint seeds[] = {1, 2, 2, 2, 3, 3};
  for (guint n = 0; n < G_N_ELEMENTS(seeds); n++)
    g_assert_cmpint(gst_harness_push(t->h, test_frame(SMALL, seeds[n], n)), ==, GST_FLOW_OK);
  g_assert_cmpuint(stat_uint64(t->element, "repeated"), ==, 3);
  g_assert_cmpuint(stat_uint64(t->element, "frames"), ==, 3);
  g_assert_cmpuint(tester_take(t, 0), ==, 6);
}

static void test_similar_refused(void) {
  static const gchar *const bad[] = {"on", "-1", "256", "4x", "nan", "inf", "", " 4", "0x10"};
  for (gsize i = 0; i < G_N_ELEMENTS(bad); i++) {
    g_autoptr(Tester) t = tester_new(NULL_ENGINE);
    g_object_set(t->element, "similar-frame", bad[i], NULL);
    tester_play(t, SMALL);
    g_assert_cmpint(gst_harness_push(t->h, test_frame(SMALL, 1, 0)), ==, GST_FLOW_ERROR);
    tester_assert_error(t, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS, "similar-frame");
    g_assert_cmpstr(t->property, ==, "similar-frame");
  }
}

/* ---- Stats ---- */

static void test_stats(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, SMALL);
  tester_push(t, 0);
  g_autoptr(GstStructure) stats = NULL;
  gdouble throughput = 0, latency = 0;
  g_object_get(t->element, "stats", &stats, NULL);
  g_assert_true(
      gst_structure_get(stats, "throughput", G_TYPE_DOUBLE, &throughput, "latency-ms", G_TYPE_DOUBLE, &latency, NULL));
  g_assert_cmpfloat(throughput, >, 0);
  g_assert_cmpfloat(latency, >, 0);
}

static void add(void) {
  g_test_add_func("/element/results/meta", test_meta);
  g_test_add_data_func("/element/results/meta/convert",
                       "videoconvert ! video/x-raw,format=I420 ! videoscale ! "
                       "video/x-raw,width=32 ! queue",
                       test_meta_survives);
  g_test_add_data_func("/element/results/meta/png", "pngenc", test_meta_survives);
  g_test_add_func("/element/results/manifest", test_manifest);
  g_test_add_func("/element/results/manifest/refused", test_manifest_refused);
  g_test_add_func("/element/results/one-frame", test_one_frame);
  g_test_add_func("/element/results/one-frame/batch", test_one_frame_of_batch);
  g_test_add_func("/element/results/one-frame/refused", test_one_frame_refused);
  g_test_add_func("/element/results/one-frame/flushed", test_one_frame_flushed);
  g_test_add_func("/element/results/previews", test_previews);
  g_test_add_func("/element/results/similar", test_similar);
  g_test_add_func("/element/results/similar/streams", test_similar_streams);
  g_test_add_func("/element/results/similar/between", test_similar_between);
  g_test_add_func("/element/results/similar/batch", test_similar_batch);
  g_test_add_func("/element/results/similar/refused", test_similar_refused);
  g_test_add_func("/element/results/stats", test_stats);
}

int main(int argc, char **argv) {
  return tester_main(&argc, &argv, add);
}
