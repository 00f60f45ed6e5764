/* SPDX-License-Identifier: Apache-2.0 */
/* Frames in CUDA memory through the element and upstream's cudaupload and cudadownload, on a driver whose device memory
 * is host memory (tests/standin) and engines that take it (FK_HOST_IS_DEVICE): the same pixels as through system
 * memory, no copies in between, contexts, pools, failures. The demo checkpoint (FK_DEMO_MODEL, given by the build) or
 * the null engine. */
#include "../gst/gstfluxkontextcuda.h"
#include "counted-backend.h"
#include "engine.h"
#include "test-element-util.h"

#include <dlfcn.h>
#include <string.h>

#define CUDA "video/x-raw(memory:CUDAMemory)"
#define CUDA_CAPS(format, w, h) CUDA ",format=" format ",width=" #w ",height=" #h ",framerate=10/1"

/* ---- The driver's counts ---- */

static struct {
  long (*live)(void);
  void (*copies)(long *up, long *down, long *between);
  void (*fail)(long n);
} driver;

typedef struct {
  long up, down, between;
} Copies;

static gboolean open_driver(void) {
  void *handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!handle) return FALSE;
  *(void **)&driver.live = dlsym(handle, "fk_standin_live");
  *(void **)&driver.copies = dlsym(handle, "fk_standin_copies");
  *(void **)&driver.fail = dlsym(handle, "fk_standin_fail");
  return driver.live && driver.copies && driver.fail;
}

/* Since `before`. */
static Copies copies_since(Copies before) {
  Copies now;
  driver.copies(&now.up, &now.down, &now.between);
  return (Copies){now.up - before.up, now.down - before.down, now.between - before.between};
}

/* ---- Pipelines ---- */

typedef struct {
  GChecksum *sum;
  guint frames;
  long live; /* allocations when the first of the last hundred frames came */
} Seen;

/* Of what is picture: padding may be anything. */
static void add_frame(GstElement *sink, GstBuffer *buffer, GstPad *pad, gpointer data) {
  Seen *seen = data;
  g_autoptr(GstCaps) caps = gst_pad_get_current_caps(pad);
  GstVideoInfo info;
  GstVideoFrame frame;
  g_assert_true(gst_video_info_from_caps(&info, caps));
  g_assert_true(gst_video_frame_map(&frame, &info, buffer, GST_MAP_READ));
  for (guint p = 0; p < GST_VIDEO_INFO_N_PLANES(&info); p++) {
    gsize row = 0;
    gint rows = 0;
    for (guint c = 0; c < GST_VIDEO_INFO_N_COMPONENTS(&info); c++) {
      if (GST_VIDEO_INFO_COMP_PLANE(&info, c) != p) continue;
      row = MAX(row, (gsize)GST_VIDEO_INFO_COMP_WIDTH(&info, c) * (gsize)GST_VIDEO_INFO_COMP_PSTRIDE(&info, c));
      rows = MAX(rows, GST_VIDEO_INFO_COMP_HEIGHT(&info, c));
    }
    for (gint y = 0; y < rows; y++)
      g_checksum_update(seen->sum, (const guchar *)frame.data[p] + (gssize)y * frame.info.stride[p], (gssize)row);
  }
  gst_video_frame_unmap(&frame);
  if (seen->frames++ % 100 == 0) seen->live = driver.live();
}

static FkEngine *demo; /* for all pipelines */

/* Runs to its end; the hash of all frames that came out. `line` has elements named e and s. */
static gchar *play(const gchar *line, Seen *seen, guint expected) {
  g_autoptr(GError) error = NULL;
  GstElement *pipeline = gst_parse_launch(line, &error);
  g_assert_no_error(error);
  g_autoptr(GstElement) e = gst_bin_get_by_name(GST_BIN(pipeline), "e");
  g_autoptr(GstElement) s = gst_bin_get_by_name(GST_BIN(pipeline), "s");
  g_object_set(s, "signal-handoffs", TRUE, "sync", FALSE, NULL);
  if (!strstr(line, "backend=null")) g_object_set(e, "engine", demo, NULL);
  *seen = (Seen){.sum = g_checksum_new(G_CHECKSUM_SHA256)};
  g_signal_connect(s, "handoff", G_CALLBACK(add_frame), seen);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline);
  GstMessage *end = gst_bus_timed_pop_filtered(bus, GST_CLOCK_TIME_NONE, GST_MESSAGE_EOS | GST_MESSAGE_ERROR);
  if (GST_MESSAGE_TYPE(end) == GST_MESSAGE_ERROR) {
    gst_message_parse_error(end, &error, NULL);
    g_error("%s: %s", line, error->message);
  }
  gst_message_unref(end);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
  g_assert_cmpuint(seen->frames, ==, expected);
  gchar *hash = g_strdup(g_checksum_get_string(seen->sum));
  g_checksum_free(seen->sum);
  return hash;
}

enum { FROM = 1, TO = 2 }; /* which side of the element is CUDA memory */

static gchar *line_of(const gchar *caps, guint frames, const gchar *edit, guint memory) {
  const gchar *alpha = strstr(edit, "mask=alpha") ? "alpha method=green ! videoconvert !" : ""; /* of one of its bars */
  return g_strdup_printf("videotestsrc num-buffers=%u ! %s %s ! %s fluxkontextedit name=e %s ! %s %s ! fakesink name=s",
                         frames, alpha, caps, memory & FROM ? "cudaupload ! " CUDA " !" : "", edit,
                         memory & TO ? CUDA " ! cudadownload !" : "", caps);
}

#define EDIT "prompt=red steps=1 max-area=1024 progress=false "

/* Where copies are compared: with CUDA memory on both sides, on any; `alone`: the others are not gone. */
typedef enum { NO_WAY, WHOLE_WAY, ALL_WAYS, WHOLE_WAY_ALONE } Counted;

/* The same picture through all ways, and what was copied on each: nothing between cudaupload and cudadownload, and once
 * for each frame where only one side is CUDA memory. */
static void check_ways(const gchar *caps, guint frames, const gchar *edit, Counted counted) {
  GstVideoInfo info;
  g_autoptr(GstCaps) parsed = gst_caps_from_string(caps);
  g_assert_true(gst_video_info_from_caps(&info, parsed));
  long planes = (long)frames * GST_VIDEO_INFO_N_PLANES(&info);
  g_autofree gchar *expected = NULL;
  for (guint memory = 0; memory <= (FROM | TO); memory += counted == WHOLE_WAY_ALONE ? FROM | TO : 1) {
    Copies before = copies_since((Copies){0});
    Seen seen;
    g_autofree gchar *line = line_of(caps, frames, edit, memory);
    g_autofree gchar *hash = play(line, &seen, frames);
    Copies made = copies_since(before);
    if (!expected) expected = g_strdup(hash);
    if (strcmp(hash, expected)) g_error("%s: other pixels than through system memory", line);
    g_assert_cmpint(driver.live(), ==, 0);
    if (counted == NO_WAY || (counted == WHOLE_WAY && memory != (FROM | TO))) continue;
    g_assert_cmpint(made.up, ==, memory & FROM ? planes : memory & TO ? frames : 0);
    g_assert_cmpint(made.down, ==, memory & TO ? planes : memory & FROM ? frames : 0);
    g_assert_cmpint(made.between, ==, 0);
  }
}

static void test_format(gconstpointer format) {
  static const gint sizes[][2] = {{33, 17}, {65, 49}, {79, 31}};
  for (guint s = 0; s < G_N_ELEMENTS(sizes); s++) {
    g_autofree gchar *caps = g_strdup_printf("video/x-raw,format=%s,width=%d,height=%d,framerate=10/1",
                                             (const gchar *)format, sizes[s][0], sizes[s][1]);
    check_ways(caps, 1, EDIT, s ? WHOLE_WAY_ALONE : ALL_WAYS);
  }
}

static void test_batch(void) {
  check_ways(RGB_CAPS(64, 48), 5, EDIT "batch-size=3", ALL_WAYS);
}

/* RGB whose black is 16. */
static void test_limited(void) {
  g_autofree gchar *mask = g_strdup_printf(EDIT "mask-path=%s", FK_DEMO_MASK);
  check_ways("video/x-raw,format=RGB,width=65,height=49,framerate=10/1,colorimetry=2:1:0:1", 1, EDIT, ALL_WAYS);
  check_ways("video/x-raw,format=BGRx,width=65,height=49,framerate=10/1,colorimetry=2:1:0:1", 1, mask, WHOLE_WAY);
}

static void test_native(void) {
  Seen seen;
  g_autofree gchar *plain = NULL;
  for (guint memory = 0; memory <= (FROM | TO); memory++) {
    g_autofree gchar *line = g_strdup_printf(
        "videotestsrc num-buffers=1 ! video/x-raw,format=NV12,width=65,height=49 ! %s fluxkontextedit name=e " EDIT
        "size-mode=native ! %s fakesink name=s",
        memory & FROM ? "cudaupload ! " CUDA " !" : "", memory & TO ? CUDA " ! cudadownload !" : "");
    g_autofree gchar *hash = play(line, &seen, 1);
    if (!plain) plain = g_strdup(hash);
    g_assert_cmpstr(hash, ==, plain);
  }
}

/* What the CPU has to do: frames are mapped, the pixels are the same. */
static void test_on_cpu(void) {
  g_autofree gchar *folder = g_dir_make_tmp("fluxkontext-XXXXXX", NULL);
  g_autofree gchar *records = g_strdup_printf(EDIT "manifest-path=%s", folder);
  check_ways("video/x-raw,format=NV12,width=65,height=49,framerate=10/1", 2, EDIT "similar-frame=auto", NO_WAY);
  check_ways(RGB_CAPS(64, 48), 2, records, NO_WAY);
  drop_tree(folder);
}

static gboolean has_alpha(const gchar *format) {
  return gst_video_format_get_info(gst_video_format_from_string(format))->flags & GST_VIDEO_FORMAT_FLAG_ALPHA;
}

/* Masks are made where the frames are: nothing of a frame's size is copied by the engine either, but the mask of a
 * file, once for a size. Frames are larger than what goes up at the size at which the model works. */
static void test_mask_format(gconstpointer data) {
  const gchar *format = data;
  static const gint sizes[][2] = {{287, 193}, {231, 271}, {259, 211}};
  static const gchar *const files[] = {"mask-feather=3 mask-dilate=2", "region=crop mask-feather=9 mask-dilate=5",
                                       "mask-invert=true mask-feather=1"};
  static const gchar *const alphas[] = {"mask-feather=5", "region=crop mask-dilate=3", "mask-invert=true"};
  for (guint s = 0; s < G_N_ELEMENTS(sizes); s++)
    for (gint alpha = 0; alpha <= has_alpha(format); alpha++) {
      g_autofree gchar *caps =
          g_strdup_printf("video/x-raw,format=%s,width=%d,height=%d,framerate=10/1", format, sizes[s][0], sizes[s][1]);
      g_autofree gchar *edit = alpha ? g_strdup_printf(EDIT "mask=alpha %s", alphas[s])
                                     : g_strdup_printf(EDIT "mask-path=%s %s", FK_DEMO_MASK, files[s]);
      count_on(demo->be, (gsize)sizes[s][0] * (gsize)sizes[s][1]); /* the driver does not see what the engine copies */
      check_ways(caps, 1, edit, WHOLE_WAY_ALONE);
      g_assert_cmpint(counted.downs, ==, 0);
      g_assert_cmpint(counted.ups, <=, alpha ? 0 : 1);
      count_off(demo->be);
    }
}

/* What a mask leaves has the frame's own bytes; a region is put back into its frame. */
static void test_mask(void) {
  g_autofree gchar *mask = g_strdup_printf(EDIT "mask-feather=3 mask-path=%s", FK_DEMO_MASK);
  g_autofree gchar *region = g_strconcat(mask, " region=crop", NULL);
  check_ways("video/x-raw,format=NV12,width=65,height=49,framerate=10/1", 1, mask, WHOLE_WAY);
  check_ways("video/x-raw,format=RGBA,width=65,height=49,framerate=10/1", 2, mask, WHOLE_WAY);
  check_ways("video/x-raw,format=P010_10LE,width=65,height=49,framerate=10/1", 1, region, WHOLE_WAY);
}

static void test_reference(void) {
  g_autofree gchar *plain = NULL;
  for (guint memory = 0; memory < 2; memory++) {
    Seen seen;
    Copies before = copies_since((Copies){0});
    g_autofree gchar *line =
        g_strdup_printf("videotestsrc num-buffers=2 ! " RGB_CAPS(
                            64, 48) " ! %s fluxkontextedit name=e " EDIT " ! %s fakesink name=s "
                                    "videotestsrc num-buffers=1 pattern=ball ! " RGB_CAPS(40, 32) " ! %s e.reference_0",
                        memory ? "cudaupload ! " CUDA " !" : "", memory ? CUDA " ! cudadownload !" : "",
                        memory ? "cudaupload ! " CUDA " !" : "");
    g_autofree gchar *hash = play(line, &seen, 2);
    Copies made = copies_since(before);
    if (!plain) plain = g_strdup(hash);
    g_assert_cmpstr(hash, ==, plain);
    g_assert_cmpint(made.up, ==, memory ? 3 : 0);
    g_assert_cmpint(made.down, ==, memory ? 2 : 0);
    g_assert_cmpint(driver.live(), ==, 0);
  }
}

/* Memory of a long stream does not grow. */
static void test_long(void) {
  Seen seen;
  g_autofree gchar *line = line_of(RGB_CAPS(64, 48), 1000, NULL_ENGINE "progress=false", FROM | TO);
  g_autofree gchar *hash = play(line, &seen, 1000);
  g_assert_nonnull(hash);
  g_assert_cmpint(seen.live, >, 0);
  g_assert_cmpint(seen.live, <=, 16);
  g_assert_cmpint(driver.live(), ==, 0);
}

/* ---- Buffers of contexts that the test makes ---- */

/* A frame as test_frame() in memory of a pool of `context`. Not of three planes: see GstFluxKontextBytes. */
static GstBuffer *cuda_frame(GstObject *context, const gchar *format, gint width, gint height, guint seed, guint n) {
  g_autofree gchar *fields = g_strdup_printf(",format=%s,width=%d,height=%d,framerate=10/1", format, width, height);
  g_autofree gchar *cuda = g_strconcat(CUDA, fields, NULL), *system = g_strconcat("video/x-raw", fields, NULL);
  g_autoptr(GstCaps) caps = gst_caps_from_string(cuda);
  g_autoptr(GstBuffer) plain = test_frame(system, seed, n);
  guint size;
  g_autoptr(GstBufferPool) pool = gst_flux_kontext_cuda_pool_new(context, caps, 0, &size);
  GstBuffer *buffer = NULL;
  GstVideoInfo info;
  GstVideoFrame from, to;
  g_assert_nonnull(pool);
  g_assert_true(gst_buffer_pool_set_active(pool, TRUE));
  g_assert_cmpint(gst_buffer_pool_acquire_buffer(pool, &buffer, NULL), ==, GST_FLOW_OK);
  g_assert_true(gst_video_info_from_caps(&info, caps));
  g_assert_true(gst_video_frame_map(&from, &info, plain, GST_MAP_READ));
  g_assert_true(gst_video_frame_map(&to, &info, buffer, GST_MAP_WRITE));
  gst_video_frame_copy(&to, &from);
  gst_video_frame_unmap(&from);
  gst_video_frame_unmap(&to);
  GST_BUFFER_PTS(buffer) = GST_BUFFER_PTS(plain);
  GST_BUFFER_DURATION(buffer) = GST_BUFFER_DURATION(plain);
  GST_BUFFER_OFFSET(buffer) = n;
  gst_buffer_pool_set_active(pool, FALSE);
  return buffer;
}

/* The hash of what is picture. */
static gchar *seen_hash(GstHarness *h, GstBuffer *buffer) {
  Seen seen = {.sum = g_checksum_new(G_CHECKSUM_SHA256)};
  add_frame(NULL, buffer, h->sinkpad, &seen);
  gchar *hash = g_strdup(g_checksum_get_string(seen.sum));
  g_checksum_free(seen.sum);
  return hash;
}

/* An element that plays with the demo engine and was given this context. context: nullable. */
static Tester *demo_tester(GstObject *context, const gchar *in, const gchar *out) {
  Tester *t = tester_new(EDIT);
  g_object_set(t->element, "engine", demo, NULL);
  if (context) {
    GstContext *shared = gst_flux_kontext_cuda_context_share(context);
    gst_element_set_context(t->element, shared);
    gst_context_unref(shared);
  }
  tester_play(t, NULL);
  gst_harness_set_sink_caps_str(t->h, out);
  gst_harness_set_src_caps_str(t->h, in);
  return t;
}

static gchar *system_hash(const gchar *caps, guint seed) {
  g_autoptr(Tester) t = demo_tester(NULL, caps, caps);
  g_assert_cmpint(gst_harness_push(t->h, test_frame(caps, seed, 0)), ==, GST_FLOW_OK);
  g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
  return seen_hash(t->h, out);
}

/* Of the memory of a buffer. (transfer none) */
static GstObject *context_of(GstBuffer *buffer) {
  struct {
    GstMemory parent;
    GstObject *context;
  } *memory = (void *)gst_buffer_peek_memory(buffer, 0);
  return memory->context;
}

/* Frames of another context, and of another device, are copied on the device; results are in the element's. */
static void test_foreign(gconstpointer data) {
  gint other = GPOINTER_TO_INT(data);
  g_autoptr(GstObject) ours = gst_flux_kontext_cuda_context_new(0, NULL);
  g_autoptr(GstObject) theirs = gst_flux_kontext_cuda_context_new(other, NULL);
  g_autofree gchar *expected = system_hash(RGB_CAPS(65, 49), 5);
  {
    g_autoptr(Tester) t = demo_tester(ours, CUDA_CAPS("RGB", 65, 49), CUDA);
    for (guint n = 0; n < 3; n++) {
      GstObject *context = n == 1 ? ours : theirs;
      Copies before = copies_since((Copies){0});
      GstBuffer *in = cuda_frame(context, "RGB", 65, 49, 5, n);
      g_assert_cmpint(gst_harness_push(t->h, in), ==, GST_FLOW_OK);
      g_assert_cmpint(copies_since(before).between, ==, context == theirs);
      g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
      g_autofree gchar *hash = seen_hash(t->h, out);
      g_assert_cmpstr(hash, ==, expected);
      g_assert_true(context_of(out) == ours);
    }
    tester_collect(t);
    g_assert_cmpuint(t->errors, ==, 0);
  }
  g_assert_cmpint(driver.live(), ==, 0);
}

/* A context of another device is not taken: results are on the engine's. Without any the element makes one, tells its
 * bus, and answers with it. */
static void test_contexts(void) {
  g_autoptr(GstObject) far = gst_flux_kontext_cuda_context_new(1, NULL);
  g_autoptr(Tester) t = demo_tester(far, CUDA_CAPS("RGB", 64, 48), CUDA);
  g_autoptr(GstMessage) have = gst_bus_pop_filtered(t->bus, GST_MESSAGE_HAVE_CONTEXT);
  g_assert_nonnull(have);
  g_assert_cmpint(gst_harness_push(t->h, cuda_frame(far, "RGB", 64, 48, 1, 0)), ==, GST_FLOW_OK);
  g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
  g_assert_cmpint(gst_flux_kontext_cuda_context_device(context_of(out)), ==, 0);
  g_autoptr(GstPad) pad = gst_element_get_static_pad(t->element, "sink");
  g_autoptr(GstQuery) query = gst_query_new_context(GST_FLUX_KONTEXT_CUDA_CONTEXT);
  GstContext *answer = NULL;
  GstObject *found = NULL;
  g_assert_true(gst_pad_query(pad, query));
  gst_query_parse_context(query, &answer);
  g_assert_true(gst_flux_kontext_cuda_context_take(t->element, answer, 0, &found));
  g_assert_true(found == context_of(out));
  gst_object_unref(found);
}

/* Pictures whose engine works in another context than their memory's, as on a GPU where upstream made the context. */
static void test_pictures(void) {
  g_autoptr(GstObject) engine = gst_flux_kontext_cuda_context_new(0, NULL);
  g_autoptr(GstObject) theirs = gst_flux_kontext_cuda_context_new(0, NULL);
  gpointer home = gst_flux_kontext_cuda_context_handle(engine);
  g_autoptr(GstBuffer) buffer = cuda_frame(theirs, "NV12", 33, 17, 3, 0);
  g_autoptr(GstBuffer) copy = cuda_frame(theirs, "NV12", 33, 17, 4, 0);
  g_autoptr(GError) error = NULL;
  GstFluxKontextPicture from, to;
  FkImage in, out;
  GstVideoInfo info;
  gst_video_info_set_format(&info, GST_VIDEO_FORMAT_NV12, 33, 17);
  Copies before = copies_since((Copies){0});
  g_assert_true(gst_flux_kontext_picture_open(&from, &info, buffer, home, FALSE, &in, &error));
  g_assert_true(gst_flux_kontext_picture_open(&to, &info, copy, home, TRUE, &out, &error));
  g_assert_cmpint(in.memory, ==, FK_MEMORY_DEVICE);
  g_assert_cmpuint(in.planes->stride[0], ==, 512);
  g_assert_true(in.planes->data[1] == in.planes->data[0] + 512 * 17);
  for (guint p = 0; p < 2; p++) {
    for (gint i = 0; i < 33; i++) g_assert_cmpint(out.planes->data[p][i], ==, 0);
    for (gint y = 0; y < (p ? 9 : 17); y++) memcpy(out.planes->data[p] + 512 * y, in.planes->data[p] + 512 * y, 34);
  }
  g_assert_true(gst_flux_kontext_picture_finish(&from, &error) && gst_flux_kontext_picture_finish(&to, &error));
  gst_flux_kontext_picture_clear(&from);
  gst_flux_kontext_picture_clear(&to);
  g_assert_cmpint(copies_since(before).between, ==, 2);
  GstVideoFrame a, b;
  g_assert_true(gst_video_frame_map(&a, &info, buffer, GST_MAP_READ) &&
                gst_video_frame_map(&b, &info, copy, GST_MAP_READ));
  for (gint y = 0; y < 17; y++) g_assert_cmpmem((guint8 *)a.data[0] + 512 * y, 33, (guint8 *)b.data[0] + 512 * y, 33);
  gst_video_frame_unmap(&a);
  gst_video_frame_unmap(&b);
}

/* ---- Caps that change, buffers that lie ---- */

static void test_renegotiation(void) {
  g_autoptr(GstObject) context = gst_flux_kontext_cuda_context_new(0, NULL);
  g_autoptr(Tester) t = demo_tester(context, CUDA_CAPS("RGB", 65, 49), "ANY");
  static const gint sizes[][2] = {{65, 49}, {33, 17}, {64, 48}};
  static const gchar *const formats[] = {"RGB", "NV12", "RGBA", "P010_10LE"};
  for (guint n = 0; n < 12; n++) {
    gint w = sizes[n % 3][0], h = sizes[n % 3][1];
    const gchar *format = formats[n % 4];
    gboolean cuda = n % 5 != 3;
    g_autofree gchar *fields = g_strdup_printf(",format=%s,width=%d,height=%d,framerate=10/1", format, w, h);
    g_autofree gchar *caps = g_strconcat(cuda ? CUDA : "video/x-raw", fields, NULL);
    g_autofree gchar *system = g_strconcat("video/x-raw", fields, NULL);
    g_autofree gchar *expected = system_hash(system, n);
    gst_harness_set_src_caps_str(t->h, caps);
    GstBuffer *in = cuda ? cuda_frame(context, format, w, h, n, 0) : test_frame(system, n, 0);
    g_assert_cmpint(gst_harness_push(t->h, in), ==, GST_FLOW_OK);
    g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
    g_autofree gchar *hash = seen_hash(t->h, out);
    g_assert_cmpstr(hash, ==, expected);
  }
  tester_collect(t);
  g_assert_cmpuint(t->errors, ==, 0);
}

/* System memory under caps that say otherwise is one error of the stream. */
static void test_lie(void) {
  g_autoptr(Tester) t = demo_tester(NULL, CUDA_CAPS("RGB", 64, 48), CUDA);
  g_assert_cmpint(gst_harness_push(t->h, test_frame(SMALL, 1, 0)), ==, GST_FLOW_ERROR);
  tester_assert_error(t, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT, "CUDA memory");
}

/* on-error=passthrough gives the frame's own pixels in the output's memory. */
static void test_passthrough(gconstpointer out_caps) {
  g_autoptr(GstObject) context = gst_flux_kontext_cuda_context_new(0, NULL);
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "on-error=passthrough async-load=false", NULL);
  g_object_set(t->element, "references", "/nonexistent.png", NULL);
  gst_harness_set_sink_caps_str(t->h, out_caps);
  gst_harness_set_src_caps_str(t->h, CUDA_CAPS("RGB", 64, 48));
  g_autoptr(GstBuffer) in = cuda_frame(context, "RGB", 64, 48, 1, 0);
  g_assert_cmpint(gst_harness_push(t->h, gst_buffer_ref(in)), ==, GST_FLOW_OK);
  g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
  g_autofree gchar *a = seen_hash(t->h, in), *b = seen_hash(t->h, out);
  g_assert_cmpstr(a, ==, b);
  tester_collect(t);
  g_assert_cmpuint(t->errors, ==, 0);
  g_assert_cmpuint(t->warnings, ==, 1);
}

/* ---- Failures ---- */

/* The k-th allocation or copy of a frame fails, and all after it: one error, and all memory comes back. */
static void test_failures(void) {
  g_autoptr(GstObject) ours = gst_flux_kontext_cuda_context_new(0, NULL);
  g_autoptr(GstObject) theirs = gst_flux_kontext_cuda_context_new(0, NULL);
  gboolean failed = TRUE;
  for (glong k = 1; failed; k++) {
    g_assert_cmpint(k, <, 20);
    {
      g_autoptr(Tester) t = demo_tester(ours, CUDA_CAPS("RGB", 64, 48), CUDA);
      GstBuffer *in = cuda_frame(theirs, "RGB", 64, 48, 1, 0);
      driver.fail(k);
      failed = gst_harness_push(t->h, in) != GST_FLOW_OK;
      driver.fail(0);
      tester_collect(t);
      g_assert_cmpuint(t->errors, ==, failed);
      g_assert_cmpuint(gst_harness_buffers_received(t->h), ==, !failed);
    }
    g_assert_cmpint(driver.live(), ==, 0);
  }
}

/* ---- Without what it takes ---- */

static gboolean offers_cuda(Tester *t, const gchar *name) {
  g_autoptr(GstPad) pad = gst_element_get_static_pad(t->element, name);
  g_autoptr(GstCaps) caps = gst_pad_query_caps(pad, NULL), cuda = gst_caps_from_string(CUDA);
  return gst_caps_can_intersect(caps, cuda);
}

static void check_without(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, NULL);
  g_assert_false(offers_cuda(t, "sink"));
  g_assert_false(offers_cuda(t, "src"));
  g_autoptr(GstPad) reference = gst_element_request_pad_simple(t->element, "reference_%u");
  g_autofree gchar *name = gst_pad_get_name(reference);
  g_assert_false(offers_cuda(t, name));
  gst_element_release_request_pad(t->element, reference);
  gst_harness_set_src_caps_str(t->h, SMALL);
  tester_push(t, 0);
  g_assert_cmpuint(tester_take(t, 0), ==, 1);
  tester_collect(t);
  g_assert_cmpuint(t->errors, ==, 0);
}

/* In a process of its own, which opens libraries anew. */
static void test_without(gconstpointer data) {
  const gchar *what = data;
  if (g_test_subprocess()) {
    check_without();
    return;
  }
  g_autofree gchar *before = g_strdup(g_getenv("LD_LIBRARY_PATH")),
                   *folder = g_dir_make_tmp("fluxkontext-XXXXXX", NULL);
  g_autofree gchar *library = g_build_filename(folder, what, NULL), *path = g_strconcat(folder, ":", before, NULL);
  g_assert_true(g_file_set_contents(library, "no library", -1, NULL));
  g_setenv("LD_LIBRARY_PATH", path, TRUE);
  g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
  g_setenv("LD_LIBRARY_PATH", before, TRUE);
  g_test_trap_assert_passed();
  drop_tree(folder);
}

/* An engine that does not work on device memory. */
static void test_host_engine(void) {
  g_unsetenv("FK_HOST_IS_DEVICE");
  check_without();
  g_setenv("FK_HOST_IS_DEVICE", "1", TRUE);
}

static void test_offered(void) {
  g_autoptr(Tester) t = tester_new(NULL_ENGINE);
  g_assert_true(offers_cuda(t, "sink")); /* nobody knows yet: it can be linked */
  tester_play(t, NULL);
  g_assert_true(offers_cuda(t, "sink"));
  gst_element_set_state(t->element, GST_STATE_NULL);
  g_assert_true(offers_cuda(t, "sink"));
}

static void test_skipped(void) {
  g_test_skip("no element cudaupload on the stand-in driver: the package gstreamer1.0-plugins-bad is missing");
}

static FkEngine *open_demo(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "backend", "cpu", NULL);
  fk_options_set(options, "model-path", FK_DEMO_MODEL, NULL);
  FkEngine *engine = fk_engine_open(options, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  return engine;
}

static void add(void) {
  static const gchar *const formats[] = {"RGB",  "BGR",       "RGBx", "BGRx",    "RGBA", "BGRA", "NV12",
                                         "I420", "P010_10LE", "ARGB", "ABGR",    "RGBP", "BGRP", "GBR",
                                         "GBRA", "NV21",      "YV12", "P016_LE", "Y42B", "Y444", "Y444_16LE"};
  g_test_add_data_func("/element/cuda/without/driver", "libcuda.so.1", test_without);
  g_test_add_data_func("/element/cuda/without/library", "libgstcuda-1.0.so.0", test_without);
  g_test_add_func("/element/cuda/without/engine", test_host_engine);
  g_autoptr(GstElementFactory) upload = gst_element_factory_find("cudaupload");
  if (!g_test_subprocess() && (!upload || !open_driver() || !gst_flux_kontext_cuda_open(NULL))) {
    g_test_add_func("/element/cuda/skipped", test_skipped);
    return;
  }
  if (!g_test_subprocess()) demo = open_demo();
  for (guint f = 0; f < G_N_ELEMENTS(formats); f++) {
    g_autofree gchar *name = g_strconcat("/element/cuda/same/", formats[f], NULL);
    g_test_add_data_func(name, formats[f], test_format);
  }
  for (guint f = 0; f < G_N_ELEMENTS(formats); f++) {
    g_autofree gchar *name = g_strconcat("/element/cuda/masked/", formats[f], NULL);
    g_test_add_data_func(name, formats[f], test_mask_format);
  }
  g_test_add_func("/element/cuda/batch", test_batch);
  g_test_add_func("/element/cuda/limited", test_limited);
  g_test_add_func("/element/cuda/native", test_native);
  g_test_add_func("/element/cuda/on-cpu", test_on_cpu);
  g_test_add_func("/element/cuda/mask", test_mask);
  g_test_add_func("/element/cuda/reference", test_reference);
  g_test_add_func("/element/cuda/long", test_long);
  g_test_add_data_func("/element/cuda/foreign/context", GINT_TO_POINTER(0), test_foreign);
  g_test_add_data_func("/element/cuda/foreign/device", GINT_TO_POINTER(1), test_foreign);
  g_test_add_func("/element/cuda/contexts", test_contexts);
  g_test_add_func("/element/cuda/pictures", test_pictures);
  g_test_add_func("/element/cuda/renegotiation", test_renegotiation);
  g_test_add_func("/element/cuda/lie", test_lie);
  g_test_add_data_func("/element/cuda/passthrough/cuda", CUDA, test_passthrough);
  g_test_add_data_func("/element/cuda/passthrough/system", "video/x-raw", test_passthrough);
  g_test_add_func("/element/cuda/failures", test_failures);
  g_test_add_func("/element/cuda/offered", test_offered);
}

int main(int argc, char **argv) {
  int result = tester_main(&argc, &argv, add);
  fk_engine_unref(demo);
  return result;
}
