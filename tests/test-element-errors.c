/* SPDX-License-Identifier: Apache-2.0 */
/* Every way to fail: exactly one error message of the right domain and code, and a clean start afterwards in the same
 * process; and what on-error makes of a frame. FK_DEMO_MODEL (given by the build): the demo checkpoint, from which
 * broken ones are made. */
#include "test-element-util.h"

#include <dlfcn.h>
#include <errno.h>
#include <glib/gstdio.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

static GstFlowReturn push(Tester *t, guint n) {
  return gst_harness_push(t->h, test_frame(SMALL, n, n));
}

/* The same element with these properties set works: nothing of the failure is left. */
static void assert_restarts(Tester *t, const gchar *name, const gchar *value) {
  gst_element_set_state(t->element, GST_STATE_NULL);
  tester_forget(t);
  if (name) gst_util_set_object_arg(G_OBJECT(t->element), name, value);
  if (!t->h) {
    tester_play(t, SMALL);
  } else {
    GstSegment segment;
    gst_segment_init(&segment, GST_FORMAT_TIME);
    g_assert_cmpint(gst_element_set_state(t->element, GST_STATE_PLAYING), !=, GST_STATE_CHANGE_FAILURE);
    gst_harness_push_event(t->h, gst_event_new_stream_start("again"));
    gst_harness_set_src_caps_str(t->h, SMALL);
    gst_harness_push_event(t->h, gst_event_new_segment(&segment));
  }
  g_assert_cmpint(push(t, 0), ==, GST_FLOW_OK);
  tester_collect(t);
  g_assert_cmpuint(t->errors, ==, 0);
}

/* ---- Failures of the start ---- */

static void assert_start_fails(Tester *t, GQuark domain, gint code, const gchar *word) {
  for (guint again = 0; again < 2; again++) {
    tester_forget(t);
    g_assert_cmpint(gst_element_set_state(t->element, GST_STATE_PAUSED), ==, GST_STATE_CHANGE_FAILURE);
    tester_assert_error(t, domain, code, word);
    gst_element_set_state(t->element, GST_STATE_NULL);
  }
}

static void test_no_model_path(gconstpointer data) {
  g_autoptr(Tester) t = tester_new(data);
  gst_util_set_object_arg(G_OBJECT(t->element), "max-area", "65536");
  g_object_set(t->element, "steps", 1, NULL);
  assert_start_fails(t, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS, "model-path");
  assert_restarts(t, "backend", "null");
}

static void test_wrong_path(void) {
  g_autoptr(Tester) t = tester_new("model-path=/nonexistent/model backend=cpu");
  assert_start_fails(t, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND, "/nonexistent/model");
  g_assert_cmpstr(t->kind, ==, "model-missing");
}

/* The message says what to give instead, for every kind of path that people try. */
static void assert_hint(const gchar *path, const gchar *hint) {
  g_autoptr(Tester) t = tester_new("backend=cpu");
  g_object_set(t->element, "model-path", path, NULL);
  assert_start_fails(t, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND, hint);
  g_assert_nonnull(strstr(t->text, path));
}

static void test_path_hints(void) {
  g_autofree gchar *folder = g_dir_make_tmp("fluxkontext-XXXXXX", NULL);
  g_autofree gchar *snapshots = g_build_filename(folder, "snapshots", NULL);
  g_mkdir(snapshots, 0755);
  assert_hint(folder, "below snapshots");
  assert_hint(snapshots, "model_index.json");
  assert_hint("~/models/FLUX.1-Kontext-dev", "shell");
  assert_hint("black-forest-labs/FLUX.1-Kontext-dev", "download");
  assert_hint("models/of/nobody", "working directory");
  assert_hint(FK_DEMO_MODEL "/vae", "folder above");
  g_rmdir(snapshots);
  g_rmdir(folder);
}

static void test_empty_folder(void) {
  g_autofree gchar *folder = g_dir_make_tmp("fluxkontext-XXXXXX", NULL);
  g_autoptr(Tester) t = tester_new("backend=cpu");
  g_object_set(t->element, "model-path", folder, NULL);
  assert_start_fails(t, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND, "model_index.json");
  g_rmdir(folder);
}

static void test_path_not_utf8(void) {
  g_autoptr(Tester) t = tester_new("backend=cpu");
  g_object_set(t->element, "model-path", "/models/\xff\xfe", NULL);
  assert_start_fails(t, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS, "model-path");
  g_object_set(t->element, "model-path", NULL, NULL);
  gst_util_set_object_arg(G_OBJECT(t->element), "max-area", "65536");
  assert_restarts(t, "backend", "null");
}

static void test_no_cuda(void) {
  if (g_file_test("/dev/nvidiactl", G_FILE_TEST_EXISTS)) {
    g_test_skip("this machine has a GPU");
    return;
  }
  g_autoptr(Tester) t = tester_new("backend=cuda");
  g_object_set(t->element, "model-path", FK_DEMO_MODEL, NULL);
  assert_start_fails(t, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_INIT, "cuda");
  g_assert_cmpstr(t->kind, ==, "backend-missing");
}

/* ---- Threads that cannot be created ---- */

static gint refuse_threads; /* how many of the next */

/* In front of the C library's, which GLib's threads come from. */
__attribute__((visibility("default"))) int pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                                                          void *(*run)(void *), void *data);
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *data) {
  int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
  *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
  if (g_atomic_int_get(&refuse_threads) > 0) {
    g_atomic_int_add(&refuse_threads, -1);
    return EAGAIN;
  }
  return real(thread, attributes, run, data);
}

static void test_no_thread(void) {
  g_autoptr(Tester) t = tester_new(NULL_ENGINE);
  g_atomic_int_set(&refuse_threads, 1);
  g_assert_cmpint(gst_element_set_state(t->element, GST_STATE_PAUSED), ==, GST_STATE_CHANGE_FAILURE);
  g_assert_cmpint(g_atomic_int_get(&refuse_threads), ==, 0);
  tester_assert_error(t, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_FAILED, "thread");
  g_assert_cmpuint(t->starts, ==, 1);
  g_assert_cmpuint(t->failed, ==, 1);
  assert_restarts(t, NULL, NULL);
}

/* ---- Failures of the load ---- */

/* Refused before a loader starts. */
static void test_max_vram(gconstpointer data) {
  g_autoptr(Tester) t = tester_new(NULL_ENGINE "max-vram=1000000");
  g_object_set(t->element, "async-load", GPOINTER_TO_INT(data), NULL);
  g_assert_cmpint(gst_element_set_state(t->element, GST_STATE_PAUSED), ==, GST_STATE_CHANGE_FAILURE);
  tester_assert_error(t, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NO_SPACE_LEFT, "1000000");
  assert_restarts(t, "max-vram", "0");
}

/* Reported once, by the loader; frames then fail without another message. The model alone fits, an edit does not. */
static void test_no_room(gconstpointer data) {
  gboolean async = GPOINTER_TO_INT(data);
  g_autoptr(Tester) t = tester_new(NULL_ENGINE "offload=none max-vram=33900000000");
  g_object_set(t->element, "async-load", async, NULL);
  if (async) {
    tester_play(t, SMALL);
    g_assert_cmpint(push(t, 0), ==, GST_FLOW_ERROR);
    g_assert_cmpint(push(t, 1), ==, GST_FLOW_ERROR);
    gst_harness_push_event(t->h, gst_event_new_eos());
  } else {
    g_assert_cmpint(gst_element_set_state(t->element, GST_STATE_PAUSED), ==, GST_STATE_CHANGE_FAILURE);
  }
  tester_assert_error(t, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NO_SPACE_LEFT, "33900000000");
  g_assert_cmpuint(t->starts, ==, 1);
  g_assert_cmpuint(t->failed, ==, 1);
  assert_restarts(t, "max-vram", "0");
}

/* A checkpoint of links to the demo's files, in which `name` has its own content. Removed by drop_model. */
static gchar *broken_model(const gchar *name, const gchar *content, gsize length) {
  static const gchar *const folders[] = {"scheduler",   "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2",
                                         "transformer", "vae"};
  gchar *folder = g_dir_make_tmp("fluxkontext-XXXXXX", NULL);
  for (guint i = 0; i <= G_N_ELEMENTS(folders); i++) {
    const gchar *sub = i < G_N_ELEMENTS(folders) ? folders[i] : "";
    g_autofree gchar *from = g_build_filename(FK_DEMO_MODEL, sub, NULL), *to = g_build_filename(folder, sub, NULL);
    g_mkdir_with_parents(to, 0755);
    g_autoptr(GDir) dir = g_dir_open(from, 0, NULL);
    const gchar *entry;
    while ((entry = g_dir_read_name(dir))) {
      g_autofree gchar *source = g_build_filename(from, entry, NULL), *target = g_build_filename(to, entry, NULL);
      if (!g_file_test(source, G_FILE_TEST_IS_DIR)) g_assert_cmpint(symlink(source, target), ==, 0);
    }
  }
  g_autofree gchar *path = g_build_filename(folder, name, NULL);
  g_assert_cmpint(g_unlink(path), ==, 0);
  if (content) g_assert_true(g_file_set_contents(path, content, (gssize)length, NULL));
  return folder;
}

static gchar *demo_file(const gchar *name, gsize *length) {
  g_autofree gchar *path = g_build_filename(FK_DEMO_MODEL, name, NULL);
  gchar *content = NULL;
  g_assert_true(g_file_get_contents(path, &content, length, NULL));
  return content;
}

#define VAE "vae/diffusion_pytorch_model.safetensors"

typedef struct {
  const gchar *name, *file, *content; /* content NULL: the file is missing */
  gint code;                          /* of RESOURCE */
} Broken;

static const Broken broken[] = {
    {"config-not-json", "transformer/config.json", "{\"num_layers\": ", GST_RESOURCE_ERROR_READ},
    {"config-missing", "vae/config.json", NULL, GST_RESOURCE_ERROR_NOT_FOUND},
    {"weights-missing", VAE, NULL, GST_RESOURCE_ERROR_NOT_FOUND},
    {"weights-empty", VAE, "", GST_RESOURCE_ERROR_READ},
    {"weights-not-safetensors", VAE, "version https://git-lfs.github.com/spec/v1", GST_RESOURCE_ERROR_READ},
    {"tokenizer-missing", "tokenizer/vocab.json", NULL, GST_RESOURCE_ERROR_NOT_FOUND},
};

static void test_broken_model(gconstpointer data) {
  const Broken *b = data;
  g_autofree gchar *folder = broken_model(b->file, b->content, b->content ? strlen(b->content) : 0);
  g_autoptr(Tester) t = tester_new("backend=cpu");
  g_object_set(t->element, "model-path", folder, NULL);
  g_autofree gchar *file = g_path_get_basename(b->file);
  assert_start_fails(t, GST_RESOURCE_ERROR, b->code, file);
  drop_tree(folder);
}

static void test_truncated_weights(void) {
  gsize length;
  g_autofree gchar *content = demo_file(VAE, &length);
  g_autofree gchar *folder = broken_model(VAE, content, length - 1000);
  g_autoptr(Tester) t = tester_new("backend=cpu");
  g_object_set(t->element, "model-path", folder, NULL);
  assert_start_fails(t, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_READ, "diffusion_pytorch_model.safetensors");
  drop_tree(folder);
}

/* Weights that are not numbers load; the first edit says at which stage they came out. bf16 0x7fc0 is NaN. */
static void test_nan_weights(void) {
  gsize length;
  guint64 header = 0;
  g_autofree gchar *content = demo_file(VAE, &length);
  memcpy(&header, content, 8); /* little-endian, as the machines this runs on */
  for (gsize i = 8 + header; i + 1 < length; i += 2) memcpy(content + i, "\xc0\x7f", 2);
  g_autofree gchar *folder = broken_model(VAE, content, length);
  g_autoptr(Tester) t = tester_new("backend=cpu steps=1 max-area=4096");
  g_object_set(t->element, "model-path", folder, NULL);
  tester_play(t, SMALL);
  g_assert_cmpint(push(t, 0), ==, GST_FLOW_ERROR);
  tester_assert_error(t, GST_STREAM_ERROR, GST_STREAM_ERROR_FAILED, "context latents");
  g_assert_cmpstr(t->kind, ==, "nonfinite");
  drop_tree(folder);
}

/* ---- Failures of an edit ---- */

static void test_device(void) {
  null_engine(0, 2, 0);
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, SMALL);
  g_assert_cmpint(push(t, 0), ==, GST_FLOW_ERROR);
  tester_assert_error(t, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_FAILED, "step 2");
  g_assert_cmpstr(t->kind, ==, "device");
  g_assert_cmpint(t->restart_required, ==, FALSE);
  g_assert_cmpuint(t->starts, ==, t->ends);
  null_engine(0, 0, 0);
  assert_restarts(t, NULL, NULL);
}

/* on-error never hides a device that failed. */
static void test_device_is_never_hidden(gconstpointer data) {
  null_engine(0, 1, 0);
  g_autoptr(Tester) t = tester_new(NULL_ENGINE "batch-size=2");
  gst_util_set_object_arg(G_OBJECT(t->element), "on-error", data);
  tester_play(t, SMALL);
  g_assert_cmpint(push(t, 0), ==, GST_FLOW_OK);
  g_assert_cmpint(push(t, 1), ==, GST_FLOW_ERROR);
  tester_assert_error(t, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_FAILED, NULL);
  g_assert_cmpuint(gst_harness_buffers_received(t->h), ==, 0);
  null_engine(0, 0, 0);
}

/* A failure in a batch that an event drains: one error, the next frame hears of it. */
static void test_device_in_drain(void) {
  null_engine(0, 1, 0);
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "batch-size=4", SMALL);
  push(t, 0);
  push(t, 1);
  gst_harness_push_event(t->h, gst_event_new_gap(0, GST_SECOND));
  g_assert_cmpint(push(t, 2), ==, GST_FLOW_ERROR);
  tester_assert_error(t, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_FAILED, NULL);
  null_engine(0, 0, 0);
}

/* Each allocation of a load and an edit in turn: either the message with the bytes, or it was not needed. */
static void test_allocations(void) {
  guint failures = 0;
  for (gint k = 1; k < 12; k++) {
    null_engine(0, 0, k);
    g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, SMALL);
    if (push(t, 0) == GST_FLOW_ERROR) {
      tester_assert_error(t, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NO_SPACE_LEFT, NULL);
      failures++;
    }
    tester_collect(t);
    g_assert_cmpuint(t->errors, <=, 1);
    null_engine(0, 0, 0);
    assert_restarts(t, NULL, NULL);
  }
  g_assert_cmpuint(failures, >, 0);
}

static void test_prompt_not_utf8(gconstpointer data) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, SMALL);
  gchar *read = NULL;
  g_object_set(t->element, (const gchar *)data, "night \xc3(", NULL);
  g_object_get(t->element, (const gchar *)data, &read, NULL);
  g_assert_cmpstr(read, ==, "night \xc3("); /* kept, as it was set */
  g_free(read);
  g_assert_cmpint(push(t, 0), ==, GST_FLOW_ERROR);
  tester_assert_error(t, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS, data);
  g_object_set(t->element, (const gchar *)data, "night", "true-cfg-scale", 2.0, NULL);
  g_assert_cmpint(push(t, 1), ==, GST_FLOW_OK);
}

/* ---- Settings that fail ---- */

typedef struct {
  const gchar *name, *properties, *property, *word;
  gint width, height;
} Failing;

/* However early it is noticed, a setting is never an error about the frame's format; the first word is in the details.
 */
static const Failing failing[] = {
    {"merge-and-reuse", "token-merge=0.3 context-reuse=2", "token-merge", "token-merge=0.3 and context-reuse=2", 64,
     48},
    {"teacache-front", "step-cache=teacache step-cache-front=3", "step-cache", "step-cache-front", 64, 48},
    {"mask-letter", "step-cache=first-block step-cache-mask=1x", "step-cache-mask", "step-cache-mask", 64, 48},
    {"mask-without-cache", "step-cache=none step-cache-mask=10", "step-cache", "step-cache-mask", 64, 48},
    {"generate-and-reuse", "task=generate context-reuse=2", "context-reuse", "task=generate", 64, 48},
    {"kernel-missing", "backend=cpu model-path=" FK_DEMO_MODEL " flash-attention=on", "flash-attention",
     "flash-attention", 64, 48},
    {"no-slicing", "vae-slicing=off", "vae-slicing", "vae-slicing", 64, 48},
    {"area", "max-area=1", "max-area", "max-area=1", 64, 64},
};

static void test_failing_setting(gconstpointer data) {
  const Failing *f = data;
  g_autofree gchar *caps =
      g_strdup_printf("video/x-raw,format=RGB,width=%d,height=%d,framerate=10/1", f->width, f->height);
  g_autofree gchar *properties = g_strconcat("backend=null steps=2 prompt=night ", f->properties, NULL);
  g_autoptr(Tester) t = tester_new_playing(properties, caps);
  g_assert_cmpint(gst_harness_push(t->h, test_frame(caps, 0, 0)), !=, GST_FLOW_OK);
  tester_assert_error(t, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS, f->word);
  g_assert_cmpstr(t->kind, ==, "option-bad");
  g_assert_cmpstr(t->property, ==, f->property);
}

/* The other way round: a picture's shape is its own fault, and the limit that it breaks is named. */
static void test_failing_shape(void) {
  const gchar *caps = "video/x-raw,format=RGB,width=4,height=4000,framerate=10/1";
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, caps);
  g_assert_cmpint(gst_harness_push(t->h, test_frame(caps, 0, 0)), ==, GST_FLOW_NOT_NEGOTIATED);
  tester_assert_error(t, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT, "4x4000");
  g_assert_nonnull(strstr(t->text, "max-area=65536"));
  g_assert_cmpstr(t->kind, ==, "format");
  g_assert_null(t->property);
}

/* Frames are dropped or passed while a setting fails, and edited when it is set right: the caps were not refused. */
static void test_setting_set_right(gconstpointer data) {
  g_autofree gchar *properties =
      g_strconcat(NULL_ENGINE "step-cache=first-block step-cache-mask=101 on-error=", data, NULL);
  g_autoptr(Tester) t = tester_new_playing(properties, SMALL);
  for (guint n = 0; n < 3; n++) g_assert_cmpint(push(t, n), ==, GST_FLOW_OK);
  g_object_set(t->element, "steps", 3, NULL);
  for (guint n = 3; n < 5; n++) g_assert_cmpint(push(t, n), ==, GST_FLOW_OK);
  tester_collect(t);
  g_assert_cmpuint(t->errors, ==, 0);
  g_assert_cmpuint(t->warnings, ==, 1);
  g_assert_cmpuint(stat_uint64(t->element, "errors"), ==, 3);
  g_assert_cmpuint(stat_uint64(t->element, "frames"), ==, 2);
  g_assert_cmpuint(gst_harness_buffers_received(t->h), ==, g_str_equal(data, "drop") ? 2 : 5);
}

/* ---- on-error ---- */

#define BAD_PROMPT "\xff"

/* A stream in which every frame has another text to warn about posts a fixed number of them and says that it does. */
static void test_warnings_are_bounded(void) {
  g_autofree gchar *mask = g_strnfill(999, '1');
  g_autoptr(Tester) t = tester_new(NULL_ENGINE "step-cache=first-block on-error=drop");
  g_object_set(t->element, "step-cache-mask", mask, NULL);
  tester_play(t, SMALL);
  for (guint n = 0; n < 300; n++) {
    g_object_set(t->element, "steps", (gint)n + 1, NULL); /* "999 characters for n evaluations" */
    g_assert_cmpint(push(t, n), ==, GST_FLOW_OK);
  }
  tester_collect(t);
  g_assert_cmpuint(t->warnings, ==, 64 + 1);
  g_assert_nonnull(strstr(t->warning, "GST_DEBUG"));
  g_assert_cmpuint(stat_uint64(t->element, "dropped"), ==, 300);
}

static void test_passthrough(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "on-error=passthrough batch-size=2", SMALL);
  push(t, 0);
  g_object_set(t->element, "prompt", BAD_PROMPT, NULL);
  GstBuffer *second = test_frame(SMALL, 1, 1);
  g_autofree gchar *expected = buffer_hash(second);
  g_assert_cmpint(gst_harness_push(t->h, second), ==, GST_FLOW_OK);
  push(t, 2);
  g_assert_cmpuint(gst_harness_buffers_received(t->h), ==, 3);
  for (guint n = 0; n < 3; n++) {
    g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
    g_assert_cmpuint(GST_BUFFER_OFFSET(out), ==, n);
    g_autofree gchar *hash = buffer_hash(out);
    if (n == 1) g_assert_cmpstr(hash, ==, expected);
  }
  tester_collect(t);
  g_assert_cmpuint(t->errors, ==, 0);
  g_assert_cmpuint(t->warnings, ==, 1);
  g_assert_cmpuint(stat_uint64(t->element, "errors"), ==, 2);
  g_assert_cmpuint(stat_uint64(t->element, "frames"), ==, 1);
  g_assert_cmpuint(stat_uint64(t->element, "dropped"), ==, 0);
}

/* Where the output has another size, the frame is scaled to it. */
static void test_passthrough_scales(void) {
  g_autoptr(Tester) t = tester_new_playing("backend=null steps=1 size-mode=native on-error=passthrough", SMALL);
  g_object_set(t->element, "prompt", BAD_PROMPT, NULL);
  g_assert_cmpint(push(t, 0), ==, GST_FLOW_OK);
  g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
  g_autoptr(GstCaps) caps = gst_pad_get_current_caps(t->h->sinkpad);
  GstVideoInfo info;
  gst_video_info_from_caps(&info, caps);
  g_assert_cmpuint(gst_buffer_get_size(out), ==, GST_VIDEO_INFO_SIZE(&info));
  g_assert_cmpint(info.width, >, 64);
}

static void test_drop(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "on-error=drop", SMALL);
  push(t, 0);
  g_object_set(t->element, "prompt", BAD_PROMPT, NULL);
  g_assert_cmpint(push(t, 1), ==, GST_FLOW_OK);
  g_object_set(t->element, "prompt", "night", NULL);
  push(t, 2);
  g_assert_cmpuint(gst_harness_buffers_received(t->h), ==, 2);
  gst_buffer_unref(gst_harness_pull(t->h));
  g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
  g_assert_cmpuint(GST_BUFFER_OFFSET(out), ==, 2);
  g_assert_true(GST_BUFFER_IS_DISCONT(out));
  g_assert_cmpuint(stat_uint64(t->element, "dropped"), ==, 1);
}

static void add_tests(void) {
  g_test_add_data_func("/element/error/model-path/unset", "backend=cpu", test_no_model_path);
  g_test_add_data_func("/element/error/model-path/empty", "model-path=\"\"", test_no_model_path);
  g_test_add_func("/element/error/model-path/wrong", test_wrong_path);
  g_test_add_func("/element/error/model-path/hints", test_path_hints);
  g_test_add_func("/element/error/model-path/empty-folder", test_empty_folder);
  g_test_add_func("/element/error/model-path/not-utf8", test_path_not_utf8);
  g_test_add_func("/element/error/no-cuda", test_no_cuda);
  g_test_add_data_func("/element/error/max-vram/async", GINT_TO_POINTER(TRUE), test_max_vram);
  g_test_add_data_func("/element/error/max-vram/sync", GINT_TO_POINTER(FALSE), test_max_vram);
  g_test_add_data_func("/element/error/no-room/async", GINT_TO_POINTER(TRUE), test_no_room);
  g_test_add_data_func("/element/error/no-room/sync", GINT_TO_POINTER(FALSE), test_no_room);
  for (gsize i = 0; i < G_N_ELEMENTS(broken); i++) {
    g_autofree gchar *name = g_strconcat("/element/error/model/", broken[i].name, NULL);
    g_test_add_data_func(name, &broken[i], test_broken_model);
  }
  g_test_add_func("/element/error/model/weights-truncated", test_truncated_weights);
  g_test_add_func("/element/error/model/weights-nan", test_nan_weights);
  g_test_add_func("/element/error/device/step", test_device);
  g_test_add_data_func("/element/error/device/passthrough", "passthrough", test_device_is_never_hidden);
  g_test_add_data_func("/element/error/device/drop", "drop", test_device_is_never_hidden);
  g_test_add_func("/element/error/device/drain", test_device_in_drain);
  g_test_add_func("/element/error/allocations", test_allocations);
  g_test_add_data_func("/element/error/utf8/prompt", "prompt", test_prompt_not_utf8);
  g_test_add_data_func("/element/error/utf8/negative-prompt", "negative-prompt", test_prompt_not_utf8);
  g_test_add_func("/element/error/no-thread", test_no_thread);
  for (gsize i = 0; i < G_N_ELEMENTS(failing); i++) {
    g_autofree gchar *name = g_strconcat("/element/error/setting/", failing[i].name, NULL);
    g_test_add_data_func(name, &failing[i], test_failing_setting);
  }
  g_test_add_func("/element/error/shape", test_failing_shape);
  g_test_add_data_func("/element/on-error/setting-set-right/drop", "drop", test_setting_set_right);
  g_test_add_data_func("/element/on-error/setting-set-right/passthrough", "passthrough", test_setting_set_right);
  g_test_add_func("/element/on-error/warnings-are-bounded", test_warnings_are_bounded);
  g_test_add_func("/element/on-error/passthrough", test_passthrough);
  g_test_add_func("/element/on-error/passthrough-scales", test_passthrough_scales);
  g_test_add_func("/element/on-error/drop", test_drop);
}

int main(int argc, char **argv) {
  return tester_main(&argc, &argv, add_tests);
}
