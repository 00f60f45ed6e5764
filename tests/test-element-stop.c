/* SPDX-License-Identifier: Apache-2.0 */
/* The element on the null engine when it is interrupted: flushes, cancelled edits, stops at random instants, refusals
 * downstream. Frames that pass undisturbed: test-element-flow.c. */
#include "test-element-util.h"

/* A thread that pushes is refused, and over before the pad takes buffers again, which it does before it has a segment.
 */
static void flush(Tester *t, GThread *pushing) {
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  g_assert_true(gst_harness_push_event(t->h, gst_event_new_flush_start()));
  if (pushing) g_thread_join(pushing);
  g_assert_true(gst_harness_push_event(t->h, gst_event_new_flush_stop(TRUE)));
  g_assert_true(gst_harness_push_event(t->h, gst_event_new_segment(&segment)));
}

static void test_flush_discards(void) {
  g_autoptr(Tester) t = tester_new_batch(3);
  tester_push(t, 0);
  tester_push(t, 1);
  flush(t, NULL);
  for (guint n = 2; n < 5; n++) tester_push(t, n);
  g_assert_cmpuint(tester_take(t, 2), ==, 3);
  g_assert_cmpuint(stat_uint64(t->element, "frames"), ==, 3);
}

typedef struct {
  GstHarness *h;
  GstFlowReturn flow;
} Push;

static gpointer push_one(gpointer data) {
  Push *p = data;
  p->flow = gst_harness_push(p->h, test_frame(SMALL, 1, 0));
  return NULL;
}

/* The streaming thread stops in its third step message until the element was cancelled, so that what follows is counted
 * from there, however slow the machine is. */
typedef struct {
  GstPad *src;
  gint steps;   /* atomic: posted */
  gint arrived; /* atomic: it waits */
  gint after;   /* atomic: steps posted when it went on */
} Gate;

static GstBusSyncReply hold_third_step(GstBus *bus, GstMessage *message, gpointer data) {
  Gate *gate = data;
  (void)bus;
  const GstStructure *structure = gst_message_get_structure(message);
  if (GST_MESSAGE_TYPE(message) != GST_MESSAGE_ELEMENT || !gst_structure_has_name(structure, "progress"))
    return GST_BUS_PASS;
  if (g_atomic_int_add(&gate->steps, 1) + 1 != 3) return GST_BUS_PASS;
  g_atomic_int_set(&gate->arrived, 1);
  while (!GST_PAD_IS_FLUSHING(gate->src)) g_usleep(1000); /* both ways to cancel do so before this flag is set */
  g_atomic_int_set(&gate->after, g_atomic_int_get(&gate->steps));
  return GST_BUS_PASS;
}

/* A cancelled edit of 25 steps is left within one step. */
static void test_cancel_mid_step(gconstpointer data) {
  gboolean by_flush = GPOINTER_TO_INT(data);
  null_engine(1, 0, 0);
  for (guint run = 0; run < 5; run++) {
    g_autoptr(Tester) t = tester_new_playing("backend=null max-area=65536 prompt=night steps=25", SMALL);
    g_autoptr(GstPad) src = gst_element_get_static_pad(t->element, "src");
    Gate gate = {src, 0, 0, 0};
    Push p = {t->h, GST_FLOW_OK};
    gst_bus_set_sync_handler(t->bus, hold_third_step, &gate, NULL);
    GThread *thread = g_thread_new("push", push_one, &p);
    while (!g_atomic_int_get(&gate.arrived)) g_usleep(1000);
    if (by_flush)
      gst_harness_push_event(t->h, gst_event_new_flush_start());
    else
      gst_element_set_state(t->element, GST_STATE_NULL);
    g_thread_join(thread);
    g_assert_cmpint(p.flow, ==, GST_FLOW_FLUSHING);
    g_assert_cmpint(gate.after, ==, 3);
    g_assert_cmpint(gate.steps, <=, gate.after + 1);
    tester_collect(t);
    g_assert_cmpuint(t->errors, ==, 0);
    g_assert_cmpuint(t->canceled, ==, 1);
    if (by_flush) gst_harness_push_event(t->h, gst_event_new_flush_stop(TRUE));
    gst_bus_set_sync_handler(t->bus, NULL, NULL, NULL);
  }
  null_engine(0, 0, 0);
}

/* After a cancelled edit the next one gives the bytes that it would have given. */
static void test_cancel_then_edit(void) {
  null_engine(5, 0, 0);
  g_autoptr(Tester) t = tester_new_playing("backend=null max-area=65536 steps=6", SMALL);
  tester_push(t, 0);
  g_autoptr(GstBuffer) first = gst_harness_pull(t->h);
  g_autofree gchar *expected = buffer_hash(first);
  g_autoptr(GRand) random = g_rand_new_with_seed(7);
  for (guint run = 0; run < 40; run++) {
    Push p = {t->h, GST_FLOW_OK};
    GThread *thread = g_thread_new("push", push_one, &p);
    g_usleep((gulong)g_rand_int_range(random, 0, 40000));
    flush(t, thread);
    while (gst_harness_buffers_in_queue(t->h)) gst_buffer_unref(gst_harness_pull(t->h));
    tester_push(t, 0);
    g_autoptr(GstBuffer) again = gst_harness_pull(t->h);
    g_autofree gchar *hash = buffer_hash(again);
    g_assert_cmpstr(hash, ==, expected);
  }
  tester_collect(t);
  g_assert_cmpuint(t->errors, ==, 0);
  null_engine(0, 0, 0);
}

/* Stopped at random instants of loading and editing: every progress ends exactly once, nothing is an error. */
static void test_random_stops(void) {
  null_engine(3, 0, 0);
  g_autoptr(GRand) random = g_rand_new_with_seed(11);
  guint starts = 0;
  for (guint run = 0; run < 150; run++) {
    g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "batch-size=2", SMALL);
    Push p = {t->h, GST_FLOW_OK}, q = {t->h, GST_FLOW_OK};
    GThread *one = g_thread_new("push", push_one, &p), *two = g_thread_new("push", push_one, &q);
    g_usleep((gulong)g_rand_int_range(random, 0, 20000));
    gst_element_set_state(t->element, GST_STATE_NULL);
    g_thread_join(one);
    g_thread_join(two);
    tester_collect(t);
    g_assert_cmpuint(t->errors, ==, 0);
    g_assert_cmpuint(t->starts, ==, t->ends);
    starts += t->starts;
  }
  g_assert_cmpuint(starts, >, 150);
  null_engine(0, 0, 0);
}

static void test_downstream_flushing(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, SMALL);
  gst_pad_set_active(t->h->sinkpad, FALSE);
  g_assert_cmpint(gst_harness_push(t->h, test_frame(SMALL, 1, 0)), ==, GST_FLOW_FLUSHING);
  tester_collect(t);
  g_assert_cmpuint(t->errors, ==, 0);
  gst_pad_set_active(t->h->sinkpad, TRUE);
}

static GstPadProbeReturn refuse_buffers(GstPad *pad, GstPadProbeInfo *info, gpointer data) {
  (void)pad;
  GST_PAD_PROBE_INFO_FLOW_RETURN(info) = (GstFlowReturn)GPOINTER_TO_INT(data);
  gst_clear_buffer((GstBuffer **)&info->data);
  return GST_PAD_PROBE_HANDLED;
}

/* What downstream answers is what upstream hears, at once or, for a push that an event caused, with the next frame. */
static void test_downstream_answers(gconstpointer data) {
  GstFlowReturn answer = (GstFlowReturn)GPOINTER_TO_INT(data);
  for (gint batch = 1; batch <= 2; batch++) {
    g_autoptr(Tester) t = tester_new_batch(batch);
    g_autoptr(GstPad) pad = gst_element_get_static_pad(t->element, "src");
    gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, refuse_buffers, (gpointer)data, NULL);
    GstFlowReturn flow = gst_harness_push(t->h, test_frame(SMALL, 0, 0));
    if (batch == 2) {
      g_assert_cmpint(flow, ==, GST_FLOW_OK);
      gst_harness_push_event(t->h, gst_event_new_tag(gst_tag_list_new(GST_TAG_TITLE, "title", NULL)));
      flow = gst_harness_push(t->h, test_frame(SMALL, 1, 1));
    }
    g_assert_cmpint(flow, ==, answer);
    tester_collect(t);
    g_assert_cmpuint(t->errors, ==, 0);
  }
}

static GstPadProbeReturn refuse_first(GstPad *pad, GstPadProbeInfo *info, gpointer data) {
  gint *left = data;
  if ((*left)-- <= 0) return GST_PAD_PROBE_OK;
  return refuse_buffers(pad, info, GINT_TO_POINTER(GST_FLOW_NOT_LINKED));
}

/* What was left of a batch that downstream did not take is not pushed later in front of newer frames. */
static void test_refused_once(void) {
  g_autoptr(Tester) t = tester_new_batch(2);
  g_autoptr(GstPad) pad = gst_element_get_static_pad(t->element, "src");
  gint left = 1;
  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, refuse_first, &left, NULL);
  tester_push(t, 0);
  g_assert_cmpint(gst_harness_push(t->h, test_frame(SMALL, 1, 1)), ==, GST_FLOW_NOT_LINKED);
  tester_push(t, 2);
  tester_push(t, 3);
  g_assert_cmpuint(tester_take(t, 2), ==, 2);
}

static void add_tests(void) {
  g_test_add_func("/element/stop/flush/discards", test_flush_discards);
  g_test_add_data_func("/element/stop/cancel/stop-mid-step", GINT_TO_POINTER(FALSE), test_cancel_mid_step);
  g_test_add_data_func("/element/stop/cancel/flush-mid-step", GINT_TO_POINTER(TRUE), test_cancel_mid_step);
  g_test_add_func("/element/stop/cancel/then-edit", test_cancel_then_edit);
  g_test_add_func("/element/stop/cancel/random-stops", test_random_stops);
  g_test_add_func("/element/stop/downstream/inactive", test_downstream_flushing);
  g_test_add_data_func("/element/stop/downstream/flushing", GINT_TO_POINTER(GST_FLOW_FLUSHING),
                       test_downstream_answers);
  g_test_add_data_func("/element/stop/downstream/eos", GINT_TO_POINTER(GST_FLOW_EOS), test_downstream_answers);
  g_test_add_func("/element/stop/downstream/refuses-once", test_refused_once);
  g_test_add_data_func("/element/stop/downstream/error", GINT_TO_POINTER(GST_FLOW_ERROR), test_downstream_answers);
}

int main(int argc, char **argv) {
  return tester_main(&argc, &argv, add_tests);
}
