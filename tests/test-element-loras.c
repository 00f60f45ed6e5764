/* SPDX-License-Identifier: Apache-2.0 */
/* Adapters through the element: the list changes between frames, a part of a file that is not of the model is a
 * warning, and a list that cannot be read is the frame's error. */
#include "test-element-util.h"

#include "test-files.h"

#define CAPS RGB_CAPS(64, 64)
#define LORA FK_DEMO_MODEL "/../cyanotype.safetensors"

static Tester *model_tester(const gchar *more) {
  g_autofree gchar *properties =
      g_strconcat("backend=cpu max-area=4096 steps=1 prompt=\"make it a cyanotype\" ", more, NULL);
  Tester *t = tester_new(properties);
  g_object_set(t->element, "model-path", FK_DEMO_MODEL, NULL);
  return t;
}

static gchar *pull_hash(Tester *t) {
  g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
  return buffer_hash(out);
}

static gchar *with(Tester *t, const gchar *list, guint n) {
  g_object_set(t->element, "loras", list, NULL);
  g_assert_cmpint(gst_harness_push(t->h, test_frame(CAPS, 1, n)), ==, GST_FLOW_OK);
  return pull_hash(t);
}

/* Frames that wait for their batch keep the list they came with. */
static void test_changes(void) {
  static const gchar *const lists[] = {NULL, LORA, LORA ":-0.5"};
  gchar *hash[3];
  for (guint i = 0; i < 3; i++) {
    g_autoptr(Tester) t = model_tester("");
    g_object_set(t->element, "loras", lists[i], NULL);
    tester_play(t, CAPS);
    hash[i] = with(t, lists[i], 0);
    for (guint k = 0; k < i; k++) g_assert_cmpstr(hash[i], !=, hash[k]);
  }
  g_autoptr(Tester) t = model_tester("batch-size=3");
  tester_play(t, CAPS);
  for (guint n = 0; n < 8; n++) {
    g_object_set(t->element, "loras", lists[n / 2 % 3], NULL);
    g_assert_cmpint(gst_harness_push(t->h, test_frame(CAPS, 1, n)), ==, GST_FLOW_OK);
  }
  gst_harness_push_event(t->h, gst_event_new_eos());
  for (guint n = 0; n < 8; n++) {
    g_autofree gchar *found = pull_hash(t);
    g_assert_cmpstr(found, ==, hash[n / 2 % 3]);
  }
  tester_collect(t);
  g_assert_cmpuint(t->errors + t->warnings, ==, 0);
  for (guint i = 0; i < 3; i++) g_free(hash[i]);
}

static void test_unmatched(void) {
  static const gchar header[] =
      "{\"transformer.x_embedder.lora_A.weight\":{\"dtype\":\"F32\",\"shape\":[1,64],\"data_offsets\":[0,256]},"
      "\"transformer.x_embedder.lora_B.weight\":{\"dtype\":\"F32\",\"shape\":[256,1],\"data_offsets\":[256,1280]},"
      "\"bundle_emb.a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1280,1284]}}";
  g_autofree gchar *data = g_malloc0(1284), *path = write_safetensors("part.safetensors", header, data, 1284);
  g_autoptr(Tester) t = model_tester("");
  tester_play(t, CAPS);
  for (guint n = 0; n < 3; n++) {
    g_autofree gchar *hash = with(t, path, n);
  }
  tester_collect(t);
  g_assert_cmpuint(t->warnings, ==, 1);
  g_assert_nonnull(strstr(t->warning, "1 tensors have no place in this model: bundle_emb.a"));
  g_assert_cmpuint(t->errors, ==, 0);
}

static void test_bad(void) {
  g_autoptr(Tester) t = model_tester("on-error=passthrough");
  tester_play(t, CAPS);
  g_autofree gchar *first = with(t, LORA, 0), *second = with(t, "nowhere.safetensors", 1), *third = with(t, LORA, 2);
  g_autoptr(GstBuffer) frame = test_frame(CAPS, 1, 0);
  g_autofree gchar *unedited = buffer_hash(frame);
  g_assert_cmpstr(first, ==, third);
  g_assert_cmpstr(second, ==, unedited);
  tester_collect(t);
  g_assert_cmpuint(t->errors, ==, 0);
  g_assert_cmpuint(t->warnings, ==, 1);
  g_assert_nonnull(strstr(t->warning, "nowhere.safetensors"));
  g_autoptr(Tester) fails = model_tester("");
  tester_play(fails, CAPS);
  g_object_set(fails->element, "loras", "a:7000", NULL);
  g_assert_cmpint(gst_harness_push(fails->h, test_frame(CAPS, 1, 0)), ==, GST_FLOW_ERROR);
  tester_assert_error(fails, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS, "a weight from -1000 to 1000");
  g_assert_cmpstr(fails->property, ==, "loras");
}

static void add_tests(void) {
  g_test_add_func("/element/loras/changes", test_changes);
  g_test_add_func("/element/loras/unmatched", test_unmatched);
  g_test_add_func("/element/loras/bad", test_bad);
}

int main(int argc, char **argv) {
  scratch_open();
  const int failed = tester_main(&argc, &argv, add_tests);
  scratch_close();
  return failed;
}
