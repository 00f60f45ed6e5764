/* SPDX-License-Identifier: Apache-2.0 */
/* The element in a pipeline, disturbed at random instants, and for long: no error, nothing kept. On the null engine.
 * FK_TEST_COUNT: how many of each. */
#include "test-count.h"
#include "test-element-util.h"
#include "test-held.h"

typedef struct {
  GstElement *pipeline, *source;
  GstBus *bus;
  gint frames; /* atomic: that arrived */
} Stream;

static void on_frame(GstElement *sink, GstBuffer *buffer, GstPad *pad, gpointer data) {
  (void)sink;
  (void)buffer;
  (void)pad;
  g_atomic_int_inc(&((Stream *)data)->frames);
}

static Stream *stream_new(const gchar *properties) {
  g_autoptr(GError) error = NULL;
  g_autofree gchar *launch = g_strconcat("videotestsrc name=source ! " SMALL " ! fluxkontextedit " NULL_ENGINE,
                                         properties, " ! fakesink name=sink signal-handoffs=true", NULL);
  Stream *s = g_new0(Stream, 1);
  s->pipeline = gst_parse_launch(launch, &error);
  g_assert_no_error(error);
  g_autoptr(GstElement) sink = gst_bin_get_by_name(GST_BIN(s->pipeline), "sink");
  s->source = gst_bin_get_by_name(GST_BIN(s->pipeline), "source");
  s->bus = gst_element_get_bus(s->pipeline);
  g_signal_connect(sink, "handoff", G_CALLBACK(on_frame), s);
  return s;
}

static void stream_free(Stream *s) {
  gst_element_set_state(s->pipeline, GST_STATE_NULL);
  gst_object_unref(s->source);
  gst_object_unref(s->bus);
  gst_object_unref(s->pipeline);
  g_free(s);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Stream, stream_free)

/* Takes what was posted: no error, and since the pipeline was in NULL as many ends of progress as starts. */
static void collect(Stream *s, guint *starts, guint *ends) {
  GstMessage *message;
  while ((message = gst_bus_pop(s->bus))) {
    GstProgressType type;
    if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR) {
      g_autoptr(GError) error = NULL;
      gst_message_parse_error(message, &error, NULL);
      g_error("%s", error->message);
    }
    if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_PROGRESS) {
      gst_message_parse_progress(message, &type, NULL, NULL);
      *starts += type == GST_PROGRESS_TYPE_START;
      *ends +=
          type == GST_PROGRESS_TYPE_COMPLETE || type == GST_PROGRESS_TYPE_CANCELED || type == GST_PROGRESS_TYPE_ERROR;
    }
    gst_message_unref(message);
  }
}

static void set_state(Stream *s, GstState state) {
  g_assert_cmpint(gst_element_set_state(s->pipeline, state), !=, GST_STATE_CHANGE_FAILURE);
}

static void has_arrived(const GValue *item, gpointer all) {
  GstState state;
  if (gst_element_get_state(g_value_get_object(item), &state, NULL, 0) != GST_STATE_CHANGE_SUCCESS ||
      state != GST_STATE_PAUSED)
    *(gboolean *)all = FALSE;
}

/* In PAUSED. A bin on its way to PLAYING forgets itself where it is told to pause between its last element's preroll
 * and its own next step: it takes PAUSED for under way (gstbin.c: the next state comes from the old one) and leaves
 * that step, which the new request has replaced. Where all its elements have arrived it is told so. */
static void settle(Stream *s) {
  GstStateChangeReturn done;
  while ((done = gst_element_get_state(s->pipeline, NULL, NULL, GST_SECOND)) == GST_STATE_CHANGE_ASYNC) {
    g_autoptr(GstIterator) elements = gst_bin_iterate_elements(GST_BIN(s->pipeline));
    gboolean all = TRUE;
    g_assert_cmpint(gst_iterator_foreach(elements, has_arrived, &all), ==, GST_ITERATOR_DONE);
    if (!all) continue;
    g_test_message("the pipeline forgot that it had arrived");
    gst_element_continue_state(s->pipeline, GST_STATE_CHANGE_SUCCESS);
  }
  g_assert_cmpint(done, ==, GST_STATE_CHANGE_SUCCESS);
}

static void pause_it(Stream *s) {
  set_state(s, GST_STATE_PAUSED);
  settle(s);
  set_state(s, GST_STATE_PLAYING);
}

static void seek_it(Stream *s) {
  g_assert_true(gst_element_seek_simple(s->pipeline, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH, 0));
}

/* Without a seek. */
static void flush_it(Stream *s) {
  g_assert_true(gst_element_send_event(s->source, gst_event_new_flush_start()));
  g_assert_true(gst_element_send_event(s->source, gst_event_new_flush_stop(TRUE)));
}

static void stop_it(Stream *s) {
  set_state(s, GST_STATE_NULL);
  set_state(s, GST_STATE_PLAYING);
}

static const struct {
  const gchar *name;
  void (*disturb)(Stream *s);
} kinds[] = {{"pause", pause_it}, {"seek", seek_it}, {"flush", flush_it}, {"null", stop_it}};

/* Disturbed within loading or the edits of the first frames; each time frames come again. */
static void test_instants(gconstpointer data) {
  gsize kind = GPOINTER_TO_SIZE(data);
  guint starts = 0, ends = 0, instants = test_count(40);
  g_autoptr(GRand) random = g_rand_new_with_seed(3);
  null_engine(2, 0, 0);
  {
    g_autoptr(Stream) s = stream_new("batch-size=2");
    set_state(s, GST_STATE_PLAYING);
    for (guint n = 0; n < instants; n++) {
      g_usleep((gulong)g_rand_int_range(random, 0, 15000));
      kinds[kind].disturb(s);
      gint before = g_atomic_int_get(&s->frames);
      while (g_atomic_int_get(&s->frames) == before) {
        collect(s, &starts, &ends);
        g_usleep(200);
      }
    }
    gst_element_set_state(s->pipeline, GST_STATE_READY); /* NULL would empty the bus */
    collect(s, &starts, &ends);
    if (kinds[kind].disturb != stop_it) g_assert_cmpuint(starts, ==, ends);
    g_assert_cmpuint(starts, >, 0);
  }
  null_engine(0, 0, 0);
}

typedef struct {
  guint threads, files;
  gsize bytes;
} Usage;

static Usage usage(guint threads) {
  return (Usage){held_threads(threads), held_files(), held_bytes()};
}

/* n more of what has run often enough before: less than 64 bytes of each stay, and no thread and no file. */
static void assert_flat(Usage before, guint n) {
  Usage after = usage(before.threads + 2); /* GLib's pools come and go */
  gssize more = (gssize)after.bytes - (gssize)before.bytes;
  g_test_message("%u more: %" G_GSSIZE_FORMAT " bytes", n, more);
  g_assert_cmpint(more, <, 64 * (gssize)n + 16384);
  g_assert_cmpuint(after.threads, <=, before.threads + 2);
  g_assert_cmpuint(after.files, ==, before.files);
}

/* From NULL through an edited frame back to NULL. */
static void cycles(guint n) {
  for (guint i = 0; i < n; i++) {
    g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, SMALL);
    tester_push(t, 0);
    g_assert_cmpuint(tester_take(t, 0), ==, 1);
  }
}

static void test_cycles(void) {
  guint n = test_count(200);
  cycles(50);
  Usage before = usage(G_MAXUINT);
  cycles(n);
  assert_flat(before, n);
}

static void frames(Tester *t, guint first, guint n) {
  for (guint i = first; i < first + n; i++) {
    tester_push(t, i);
    g_assert_cmpuint(tester_take(t, i), ==, 1);
    tester_collect(t);
  }
}

static void test_frames(void) {
  guint n = test_count(300);
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, SMALL);
  frames(t, 0, 100);
  Usage before = usage(G_MAXUINT);
  frames(t, 100, n);
  assert_flat(before, n);
}

static void add(void) {
  for (gsize i = 0; i < G_N_ELEMENTS(kinds); i++) {
    g_autofree gchar *name = g_strconcat("/element/soak/", kinds[i].name, NULL);
    g_test_add_data_func(name, GSIZE_TO_POINTER(i), test_instants);
  }
  g_test_add_func("/element/soak/cycles", test_cycles);
  g_test_add_func("/element/soak/frames", test_frames);
}

int main(int argc, char **argv) {
  return tester_main(&argc, &argv, add);
}
