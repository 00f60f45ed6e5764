/* SPDX-License-Identifier: Apache-2.0 */
/* One engine for several elements: by equal options, by property, by context; who keeps it and who frees it. */
#include "fk.h"
#include "test-element-util.h"

#include <string.h>

#define CONTEXT "gst.fluxkontext.engine"

static GstFlowReturn push(Tester *t, guint n) {
  return gst_harness_push(t->h, test_frame(SMALL, n, n));
}

static FkEngine *engine_of(Tester *t) {
  FkEngine *engine = NULL;
  g_object_get(t->element, "engine", &engine, NULL);
  return engine;
}

static FkEngine *open_null(const gchar *max_vram) {
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(GError) error = NULL;
  fk_options_set(options, "backend", "null", &error);
  fk_options_set(options, "max-vram", max_vram, &error);
  FkEngine *engine = fk_engine_open(options, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  return engine;
}

static void test_equal_options(void) {
  g_autoptr(Tester) a = tester_new_playing(NULL_ENGINE, SMALL);
  g_autoptr(Tester) b = tester_new_playing(NULL_ENGINE "steps=3 prompt=other batch-size=2", SMALL);
  g_autoptr(Tester) c = tester_new_playing(NULL_ENGINE "model-path=" FK_DEMO_MODEL, SMALL);
  g_autoptr(Tester) d = tester_new_playing(NULL_ENGINE "max-vram=99999999999999", SMALL); /* a limit, not a model */
  g_autoptr(FkEngine) one = engine_of(a), two = engine_of(b), three = engine_of(c), four = engine_of(d);
  g_assert_nonnull(one);
  g_assert_true(one == two);
  g_assert_true(one != three);
  g_assert_true(one == four);
  g_assert_cmpint(push(a, 0), ==, GST_FLOW_OK);
  g_assert_cmpint(push(c, 0), ==, GST_FLOW_OK);
}

static void test_property(void) {
  g_autoptr(FkEngine) engine = open_null("88888888888888");
  g_autoptr(Tester) t = tester_new("max-area=65536 steps=1"); /* no model-path, no backend: not needed */
  g_object_set(t->element, "engine", engine, NULL);
  tester_play(t, SMALL);
  g_assert_cmpint(push(t, 0), ==, GST_FLOW_OK);
  g_autoptr(FkEngine) used = engine_of(t);
  g_assert_true(used == engine);
  gst_element_set_state(t->element, GST_STATE_NULL);
  g_object_set(t->element, "engine", NULL, NULL);
  g_autoptr(FkEngine) none = engine_of(t);
  g_assert_null(none);
}

/* A setting that is wrong stays a setting's error when the engine was handed in. */
static void test_property_bad_setting(void) {
  g_autoptr(FkEngine) engine = open_null("0");
  g_autoptr(Tester) t = tester_new("max-area=65536 steps=1");
  g_object_set(t->element, "engine", engine, "prompt", "\xff", NULL);
  tester_play(t, SMALL);
  g_assert_cmpint(push(t, 0), ==, GST_FLOW_ERROR);
  tester_assert_error(t, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS, "prompt");
}

static GstContext *context_with(FkEngine *engine, const gchar *options, gboolean persistent) {
  GstContext *context = gst_context_new(CONTEXT, persistent);
  gst_structure_set(gst_context_writable_structure(context), "engine", FK_TYPE_ENGINE, engine, NULL);
  if (options) gst_structure_set(gst_context_writable_structure(context), "options", G_TYPE_STRING, options, NULL);
  return context;
}

static void test_context_set(void) {
  g_autoptr(FkEngine) engine = open_null("77777777777777");
  g_autoptr(GstContext) context = context_with(engine, NULL, FALSE);
  g_autoptr(Tester) t = tester_new("max-area=65536 steps=1");
  gst_element_set_context(t->element, context);
  tester_play(t, SMALL);
  g_assert_cmpint(push(t, 0), ==, GST_FLOW_OK);
  g_autoptr(FkEngine) used = engine_of(t);
  g_assert_true(used == engine);
}

/* GStreamer keeps persistent contexts over READY, and drops the others there. */
static void test_context_survives_ready(void) {
  g_autoptr(FkEngine) engine = open_null("0");
  g_autoptr(GstContext) context = context_with(engine, NULL, TRUE);
  g_autoptr(Tester) t = tester_new("");
  gst_element_set_context(t->element, context);
  for (guint run = 0; run < 3; run++) {
    g_assert_cmpint(gst_element_set_state(t->element, GST_STATE_PAUSED), ==, GST_STATE_CHANGE_SUCCESS);
    g_assert_cmpint(gst_element_set_state(t->element, GST_STATE_READY), ==, GST_STATE_CHANGE_SUCCESS);
  }
}

/* An element that asks for another model does not take what is on offer. */
static void test_context_of_another_model(void) {
  g_autoptr(FkEngine) engine = open_null("0");
  g_autoptr(GstContext) context = context_with(engine, "model-path=/another\nbackend=null\n", FALSE);
  g_autoptr(Tester) t = tester_new("model-path=/nonexistent backend=cpu");
  gst_element_set_context(t->element, context);
  g_assert_cmpint(gst_element_set_state(t->element, GST_STATE_PAUSED), ==, GST_STATE_CHANGE_FAILURE);
  tester_assert_error(t, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND, "/nonexistent");
}

static void test_context_without_engine(void) {
  g_autoptr(GstContext) context = gst_context_new(CONTEXT, TRUE);
  g_autoptr(Tester) t = tester_new(NULL_ENGINE);
  gst_element_set_context(t->element, context);
  tester_play(t, SMALL);
  g_assert_cmpint(push(t, 0), ==, GST_FLOW_OK);
}

static void test_context_need(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, SMALL);
  tester_collect(t);
  g_assert_cmpuint(t->need_contexts, ==, 1);
}

/* A neighbour's question is answered with the engine in use. */
static void test_context_query(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, SMALL);
  g_autoptr(FkEngine) engine = engine_of(t), found = NULL;
  GstQuery *query = gst_query_new_context(CONTEXT);
  GstContext *context = NULL;
  g_assert_true(gst_pad_peer_query(t->h->srcpad, query));
  gst_query_parse_context(query, &context);
  g_assert_true(gst_structure_get(gst_context_get_structure(context), "engine", FK_TYPE_ENGINE, &found, NULL));
  g_assert_true(found == engine);
  gst_query_unref(query);
  GstQuery *other = gst_query_new_context("something.else");
  g_assert_false(gst_pad_peer_query(t->h->srcpad, other));
  gst_query_unref(other);
}

/* Two in a row in one pipeline: the second to start finds the first by asking its neighbour. */
static void test_neighbours(void) {
  g_autoptr(FkEngine) engine = open_null("66666666666666");
  GstHarness *h = gst_harness_new_parse("fluxkontextedit name=first max-area=65536 steps=1 max-vram=66666666666666 "
                                        "backend=null ! fluxkontextedit name=last max-area=65536 steps=1 "
                                        "max-vram=66666666666666 backend=null");
  gst_harness_set_src_caps_str(h, SMALL);
  g_assert_cmpint(gst_harness_push(h, test_frame(SMALL, 0, 0)), ==, GST_FLOW_OK);
  gst_buffer_unref(gst_harness_pull(h));
  g_autoptr(GstElement) first = gst_bin_get_by_name(GST_BIN(h->element), "first");
  FkEngine *used = NULL;
  g_object_get(first, "engine", &used, NULL);
  g_assert_true(used == engine);
  fk_engine_unref(used);
  gst_harness_teardown(h);
}

/* ---- Who keeps it ---- */

static void test_released_in_ready(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, SMALL);
  push(t, 0);
  gst_element_set_state(t->element, GST_STATE_READY);
  g_autoptr(FkEngine) engine = engine_of(t);
  g_assert_null(engine);
}

static void test_keep_loaded(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "keep-loaded=true", SMALL);
  push(t, 0);
  g_autoptr(FkEngine) before = engine_of(t);
  gst_element_set_state(t->element, GST_STATE_NULL);
  g_autoptr(FkEngine) kept = engine_of(t);
  g_assert_true(before == kept);
  gst_element_set_state(t->element, GST_STATE_PAUSED);
  g_autoptr(FkEngine) again = engine_of(t);
  g_assert_true(before == again);
  gst_element_set_state(t->element, GST_STATE_READY);
  g_object_set(t->element, "model-path", FK_DEMO_MODEL, NULL); /* another engine: the kept one goes */
  gst_element_set_state(t->element, GST_STATE_PAUSED);
  g_autoptr(FkEngine) other = engine_of(t);
  g_assert_true(other != before);
}

static void count_call(const char *stage, int64_t current, int64_t total, void *data) {
  (void)stage, (void)current, (void)total;
  (*(guint *)data)++;
}

/* Whether an engine of these options is loaded in this process: a load of one that is says nothing. */
static gboolean is_loaded(const gchar *model_path) {
  g_autoptr(FkOptions) options = fk_options_new();
  guint calls = 0;
  fk_options_set(options, "backend", "null", NULL);
  fk_options_set(options, "model-path", model_path, NULL);
  g_autoptr(FkEngine) engine = fk_engine_open(options, NULL, count_call, &calls, NULL);
  g_assert_nonnull(engine);
  return calls == 0;
}

/* keep-loaded keeps the engine in use, not one that a context offered and nobody took: before start or after it. */
static void test_keep_loaded_lets_offers_go(gconstpointer data) {
  gboolean before = GPOINTER_TO_INT(data);
  g_autoptr(Tester) t = tester_new(NULL_ENGINE "keep-loaded=true");
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "backend", "null", NULL);
  fk_options_set(options, "model-path", FK_DEMO_MODEL, NULL);
  FkEngine *other = fk_engine_open(options, NULL, NULL, NULL, NULL);
  GstContext *context = context_with(other, "another", FALSE);
  fk_engine_unref(other);
  if (!before) tester_play(t, SMALL);
  gst_element_set_context(t->element, context);
  gst_context_unref(context);
  if (before) tester_play(t, SMALL);
  g_assert_cmpint(push(t, 0), ==, GST_FLOW_OK);
  g_assert_true(is_loaded(FK_DEMO_MODEL)); /* GStreamer holds the context until READY */
  gst_element_set_state(t->element, GST_STATE_READY);
  g_assert_false(is_loaded(FK_DEMO_MODEL));
  g_autoptr(FkEngine) kept = engine_of(t);
  g_assert_nonnull(kept);
}

/* ---- Together ---- */

#define USERS 8
#define FRAMES 10

typedef struct {
  Tester *t;
  GstFlowReturn flow;
} User;

static gpointer push_many(gpointer data) {
  User *user = data;
  for (guint n = 0; n < FRAMES && user->flow == GST_FLOW_OK; n++) user->flow = push(user->t, n);
  return NULL;
}

/* Eight elements in eight threads; one is stopped in the middle, the others notice nothing. */
static void test_eight(void) {
  null_engine(5, 0, 0);
  User users[USERS];
  GThread *threads[USERS];
  for (guint i = 0; i < USERS; i++) users[i] = (User){tester_new_playing(NULL_ENGINE, SMALL), GST_FLOW_OK};
  for (guint i = 0; i < USERS; i++) threads[i] = g_thread_new("user", push_many, &users[i]);
  tester_wait_for_step(users[0].t);
  gst_element_set_state(users[0].t->element, GST_STATE_NULL);
  for (guint i = 0; i < USERS; i++) g_thread_join(threads[i]);
  g_autofree gchar *expected = NULL;
  for (guint i = 0; i < USERS; i++) {
    tester_collect(users[i].t);
    g_assert_cmpuint(users[i].t->errors, ==, 0);
    if (i == 0)
      g_assert_cmpint(users[i].flow, ==, GST_FLOW_FLUSHING);
    else
      g_assert_cmpuint(gst_harness_buffers_received(users[i].t->h), ==, FRAMES);
    for (guint n = 0; i > 0 && n < FRAMES; n++) {
      g_autoptr(GstBuffer) out = gst_harness_pull(users[i].t->h);
      g_assert_cmpuint(GST_BUFFER_OFFSET(out), ==, n);
      g_autofree gchar *hash = buffer_hash(out);
      if (!expected) expected = g_strdup(hash);
      g_assert_cmpstr(hash, ==, expected);
    }
    tester_free(users[i].t);
  }
  null_engine(0, 0, 0);
}

/* First come, first served: of two that push without pause neither gets far ahead, counted from when both are at work.
 * An edit takes much longer than a thread needs to come back with its next frame. */
static void test_fair(void) {
  null_engine(20, 0, 0);
  User users[2];
  GThread *threads[2];
  for (guint i = 0; i < 2; i++) users[i] = (User){tester_new_playing(NULL_ENGINE, SMALL), GST_FLOW_OK};
  for (guint i = 0; i < 2; i++) threads[i] = g_thread_new("user", push_many, &users[i]);
  for (guint i = 0; i < 2; i++) tester_wait_for_step(users[i].t);
  guint left = FRAMES - gst_harness_buffers_received(users[0].t->h);
  g_thread_join(threads[0]);
  guint other = gst_harness_buffers_received(users[1].t->h);
  g_assert_cmpuint(2 * other + 3, >=, left); /* half of them; the one in work may not be counted yet */
  g_thread_join(threads[1]);
  for (guint i = 0; i < 2; i++) tester_free(users[i].t);
  null_engine(0, 0, 0);
}

static void add_tests(void) {
  g_test_add_func("/element/share/equal-options", test_equal_options);
  g_test_add_func("/element/share/property", test_property);
  g_test_add_func("/element/share/property-bad-setting", test_property_bad_setting);
  g_test_add_func("/element/share/context/set", test_context_set);
  g_test_add_func("/element/share/context/survives-ready", test_context_survives_ready);
  g_test_add_func("/element/share/context/of-another-model", test_context_of_another_model);
  g_test_add_func("/element/share/context/without-engine", test_context_without_engine);
  g_test_add_func("/element/share/context/need", test_context_need);
  g_test_add_func("/element/share/context/query", test_context_query);
  g_test_add_func("/element/share/neighbours", test_neighbours);
  g_test_add_func("/element/share/released-in-ready", test_released_in_ready);
  g_test_add_func("/element/share/keep-loaded", test_keep_loaded);
  g_test_add_data_func("/element/share/keep-loaded/offer-before-start", GINT_TO_POINTER(TRUE),
                       test_keep_loaded_lets_offers_go);
  g_test_add_data_func("/element/share/keep-loaded/offer-after-start", GINT_TO_POINTER(FALSE),
                       test_keep_loaded_lets_offers_go);
  g_test_add_func("/element/share/eight", test_eight);
  g_test_add_func("/element/share/fair", test_fair);
}

int main(int argc, char **argv) {
  return tester_main(&argc, &argv, add_tests);
}
