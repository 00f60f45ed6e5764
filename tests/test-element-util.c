/* SPDX-License-Identifier: Apache-2.0 */
#include "test-element-util.h"

#include <glib/gstdio.h>

int tester_main(int *argc, char ***argv, void (*add)(void)) {
  g_setenv("GST_TRACERS", "leaks", FALSE);
  gst_init(argc, argv);
  g_test_init(argc, argv, NULL); /* makes warnings fatal, the leaks tracer's among them */
  add();
  int result = g_test_run();
  gst_deinit();
  return result;
}

Tester *tester_new(const gchar *properties) {
  g_autoptr(GError) error = NULL;
  g_autofree gchar *launch = g_strconcat("fluxkontextedit ", properties, NULL);
  Tester *t = g_new0(Tester, 1);
  t->element = gst_parse_launch(launch, &error);
  g_assert_no_error(error);
  gst_object_ref_sink(t->element);
  t->bus = gst_bus_new();
  gst_element_set_bus(t->element, t->bus);
  t->restart_required = -1;
  return t;
}

void tester_play(Tester *t, const gchar *caps) {
  t->h = gst_harness_new_with_element(t->element, "sink", "src");
  if (caps) gst_harness_set_src_caps_str(t->h, caps);
}

Tester *tester_new_playing(const gchar *properties, const gchar *caps) {
  Tester *t = tester_new(properties);
  tester_play(t, caps);
  return t;
}

void tester_free(Tester *t) {
  gst_element_set_state(t->element, GST_STATE_NULL);
  tester_collect(t);
  g_assert_cmpuint(t->starts, ==, t->ends);
  if (t->h) gst_harness_teardown(t->h);
  gst_element_set_bus(t->element, NULL);
  gst_object_unref(t->element);
  gst_object_unref(t->bus);
  g_free(t->text);
  g_free(t->warning);
  g_free(t->kind);
  g_free(t->property);
  g_free(t);
}

static void assert_utf8(const gchar *text) {
  g_assert_true(!text || g_utf8_validate(text, -1, NULL));
}

static void count_progress(Tester *t, GstMessage *message) {
  GstProgressType type;
  g_autofree gchar *code = NULL, *text = NULL;
  gst_message_parse_progress(message, &type, &code, &text);
  assert_utf8(text);
  t->starts += type == GST_PROGRESS_TYPE_START;
  t->warmups += type == GST_PROGRESS_TYPE_START && g_str_equal(code, "warmup");
  t->completes += type == GST_PROGRESS_TYPE_COMPLETE;
  t->canceled += type == GST_PROGRESS_TYPE_CANCELED;
  t->failed += type == GST_PROGRESS_TYPE_ERROR;
  t->ends = t->completes + t->canceled + t->failed;
}

static void keep_error(Tester *t, GstMessage *message) {
  g_autoptr(GError) error = NULL;
  const GstStructure *details = NULL;
  gboolean restart;
  g_autofree gchar *debug = NULL;
  gst_message_parse_error(message, &error, &debug);
  assert_utf8(error->message);
  assert_utf8(debug);
  gst_message_parse_error_details(message, &details);
  t->errors++;
  t->domain = error->domain;
  t->code = error->code;
  g_free(t->text);
  t->text = g_strdup(error->message);
  g_free(t->kind);
  t->kind = details ? g_strdup(gst_structure_get_string(details, "code")) : NULL;
  g_free(t->property);
  t->property = details ? g_strdup(gst_structure_get_string(details, "property")) : NULL;
  t->restart_required = details && gst_structure_get_boolean(details, "restart-required", &restart) ? restart : -1;
}

static void count_step(Tester *t, GstMessage *message) {
  const GstStructure *structure = gst_message_get_structure(message);
  gdouble percent;
  gint64 current, total;
  if (!gst_structure_has_name(structure, "progress")) return;
  t->steps++;
  g_assert_true(gst_structure_get(structure, "percent", G_TYPE_INT, &t->percent, "percent-double", G_TYPE_DOUBLE,
                                  &percent, "current", G_TYPE_INT64, &current, "total", G_TYPE_INT64, &total, NULL));
  g_assert_cmpint(current, >=, 1);
  g_assert_cmpint(current, <=, total);
  g_assert_cmpint(t->percent, ==, (gint)(100 * current / total));
  g_assert_cmpfloat_with_epsilon(percent, 100.0 * (gdouble)current / (gdouble)total, 1e-9);
}

void tester_collect(Tester *t) {
  GstMessage *message;
  while ((message = gst_bus_pop(t->bus))) {
    switch (GST_MESSAGE_TYPE(message)) {
    case GST_MESSAGE_ERROR: keep_error(t, message); break;
    case GST_MESSAGE_WARNING: {
      g_autoptr(GError) error = NULL;
      g_autofree gchar *debug = NULL;
      gst_message_parse_warning(message, &error, &debug);
      assert_utf8(error->message);
      assert_utf8(debug);
      t->warnings++;
      g_free(t->warning);
      t->warning = g_strdup(error->message);
      break;
    }
    case GST_MESSAGE_PROGRESS: count_progress(t, message); break;
    case GST_MESSAGE_ELEMENT: count_step(t, message); break;
    case GST_MESSAGE_LATENCY: t->latencies++; break;
    case GST_MESSAGE_NEED_CONTEXT: t->need_contexts++; break;
    default: break;
    }
    gst_message_unref(message);
  }
}

void tester_forget(Tester *t) {
  tester_collect(t);
  t->errors = t->warnings = t->steps = t->latencies = t->need_contexts = t->warmups = 0;
  t->completes = t->canceled = t->failed = t->starts = t->ends = 0;
}

void tester_assert_error(Tester *t, GQuark domain, gint code, const gchar *word) {
  tester_collect(t);
  g_assert_cmpuint(t->errors, ==, 1);
  g_assert_cmpstr(g_quark_to_string(t->domain), ==, g_quark_to_string(domain));
  g_assert_cmpint(t->code, ==, code);
  g_assert_nonnull(t->kind);
  if (word && !strstr(t->text, word)) g_error("\"%s\" does not name %s", t->text, word);
}

void tester_wait_for_step(Tester *t) {
  while (t->steps == 0) {
    g_usleep(1000);
    tester_collect(t);
  }
}

static void set_number(const gchar *name, gint value) {
  g_autofree gchar *text = g_strdup_printf("%d", value);
  if (value)
    g_setenv(name, text, TRUE);
  else
    g_unsetenv(name);
}

void null_engine(gint step_ms, gint fail_step, gint fail_alloc) {
  set_number("FK_NULL_STEP_MS", step_ms);
  set_number("FK_NULL_FAIL_STEP", fail_step);
  set_number("FK_NULL_FAIL_ALLOC", fail_alloc);
}

GstBuffer *test_frame(const gchar *caps_text, guint seed, guint n) {
  g_autoptr(GstCaps) caps = gst_caps_from_string(caps_text);
  GstVideoInfo info;
  g_assert_true(gst_video_info_from_caps(&info, caps));
  GstBuffer *buffer = gst_buffer_new_allocate(NULL, GST_VIDEO_INFO_SIZE(&info), NULL);
  GstMapInfo map;
  g_assert_true(gst_buffer_map(buffer, &map, GST_MAP_WRITE));
  guint32 x = seed * 2654435761u + 1;
  for (gsize i = 0; i < map.size; i++) {
    x = x * 1664525u + 1013904223u;
    map.data[i] = (guint8)(x >> 24);
  }
  gst_buffer_unmap(buffer, &map);
  GST_BUFFER_PTS(buffer) = n * 100 * GST_MSECOND;
  GST_BUFFER_DURATION(buffer) = 100 * GST_MSECOND;
  GST_BUFFER_OFFSET(buffer) = n;
  return buffer;
}

gchar *buffer_hash(GstBuffer *buffer) {
  GstMapInfo map;
  g_assert_true(gst_buffer_map(buffer, &map, GST_MAP_READ));
  gchar *hash = g_compute_checksum_for_data(G_CHECKSUM_SHA256, map.data, map.size);
  gst_buffer_unmap(buffer, &map);
  return hash;
}

guint64 stat_uint64(GstElement *element, const gchar *field) {
  g_autoptr(GstStructure) stats = NULL;
  guint64 value = G_MAXUINT64;
  g_object_get(element, "stats", &stats, NULL);
  g_assert_true(gst_structure_get_uint64(stats, field, &value));
  return value;
}

void tester_push(Tester *t, guint n) {
  g_assert_cmpint(gst_harness_push(t->h, test_frame(SMALL, n, n)), ==, GST_FLOW_OK);
}

guint tester_take(Tester *t, guint first) {
  GstBuffer *buffer;
  guint n = first;
  while ((buffer = gst_harness_try_pull(t->h))) {
    g_assert_cmpuint(GST_BUFFER_PTS(buffer), ==, n * 100 * GST_MSECOND);
    g_assert_cmpuint(GST_BUFFER_DURATION(buffer), ==, 100 * GST_MSECOND);
    g_assert_cmpuint(GST_BUFFER_OFFSET(buffer), ==, n);
    gst_buffer_unref(buffer);
    n++;
  }
  return n - first;
}

Tester *tester_new_batch(gint batch) {
  g_autofree gchar *properties = g_strdup_printf(NULL_ENGINE "batch-size=%d", batch);
  return tester_new_playing(properties, SMALL);
}

void drop_tree(const gchar *folder) {
  g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
  const gchar *entry;
  while ((entry = g_dir_read_name(dir))) {
    g_autofree gchar *path = g_build_filename(folder, entry, NULL);
    if (g_file_test(path, G_FILE_TEST_IS_SYMLINK) || !g_file_test(path, G_FILE_TEST_IS_DIR))
      g_unlink(path);
    else
      drop_tree(path);
  }
  g_rmdir(folder);
}
