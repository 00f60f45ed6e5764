/* SPDX-License-Identifier: Apache-2.0 */
/* A whole video with sound from file to file, and a live source that is faster than the edits; on the null engine. */
#include "test-element-util.h"

#include <glib/gstdio.h>
#include <string.h>

static gboolean has(const gchar *const *factories) {
  for (; *factories; factories++) {
    g_autoptr(GstElementFactory) factory = gst_element_factory_find(*factories);
    if (factory) continue;
    g_autofree gchar *reason = g_strdup_printf("%s is missing", *factories);
    g_test_skip(reason);
    return FALSE;
  }
  return TRUE;
}

/* What came through one pad. */
typedef struct {
  GArray *times; /* GstClockTime */
  GChecksum *sum;
  gchar *colorimetry;
  guint64 offset; /* of the last */
} Track;

static void track_clear(Track *t) {
  g_clear_pointer(&t->times, g_array_unref);
  g_clear_pointer(&t->sum, g_checksum_free);
  g_clear_pointer(&t->colorimetry, g_free);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Track, track_clear)

static GstPadProbeReturn on_buffer(GstPad *pad, GstPadProbeInfo *info, gpointer user_data) {
  Track *t = user_data;
  GstBuffer *buffer = GST_PAD_PROBE_INFO_BUFFER(info);
  GstClockTime pts = GST_BUFFER_PTS(buffer);
  GstMapInfo map;
  g_array_append_val(t->times, pts);
  t->offset = GST_BUFFER_OFFSET(buffer);
  g_assert_true(gst_buffer_map(buffer, &map, GST_MAP_READ));
  g_checksum_update(t->sum, map.data, (gssize)map.size);
  gst_buffer_unmap(buffer, &map);
  if (t->colorimetry) return GST_PAD_PROBE_OK;
  g_autoptr(GstCaps) caps = gst_pad_get_current_caps(pad);
  t->colorimetry = g_strdup(gst_structure_get_string(gst_caps_get_structure(caps, 0), "colorimetry"));
  return GST_PAD_PROBE_OK;
}

/* Runs a line to its end. Watched: pads "src" of v and a; NULL: not. stats: (out, nullable) of e. */
static void run(const gchar *line, Track *video, Track *audio, GstStructure **stats) {
  g_autoptr(GError) error = NULL;
  g_autoptr(GstElement) pipeline = gst_parse_launch(line, &error);
  g_assert_no_error(error);
  Track *const tracks[] = {video, audio};
  for (guint i = 0; i < 2; i++) {
    if (!tracks[i]) continue;
    g_autoptr(GstElement) element = gst_bin_get_by_name(GST_BIN(pipeline), i ? "a" : "v");
    g_autoptr(GstPad) pad = gst_element_get_static_pad(element, "src");
    *tracks[i] = (Track){g_array_new(FALSE, FALSE, sizeof(GstClockTime)), g_checksum_new(G_CHECKSUM_SHA256), NULL, 0};
    gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, on_buffer, tracks[i], NULL);
  }
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline);
  g_autoptr(GstMessage) message =
      gst_bus_timed_pop_filtered(bus, GST_CLOCK_TIME_NONE, GST_MESSAGE_EOS | GST_MESSAGE_ERROR);
  if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR) gst_message_parse_error(message, &error, NULL);
  g_assert_no_error(error);
  if (stats) {
    g_autoptr(GstElement) element = gst_bin_get_by_name(GST_BIN(pipeline), "e");
    g_object_get(element, "stats", stats, NULL);
  }
  gst_element_set_state(pipeline, GST_STATE_NULL);
}

#define SOURCE "uridecodebin3 uri=file://%s name=d  d. ! video/x-raw ! queue ! identity name=v ! "
#define SOUND " d. ! audio/x-raw ! queue ! audioconvert ! audio/x-raw,format=S16LE ! identity name=a ! "

/* 10 s, 10 frames a second of which five and five are alike, and a tone. */
static void make_video(const gchar *path) {
  g_autofree gchar *line = g_strdup_printf(
      "matroskamux name=m ! filesink location=%s "
      "videotestsrc num-buffers=20 pattern=ball ! video/x-raw,width=64,height=48,framerate=2/1 ! videorate ! "
      "video/x-raw,format=I420,framerate=10/1,colorimetry=bt709 ! vp8enc deadline=1 max-quantizer=8 ! m. "
      "audiotestsrc num-buffers=100 samplesperbuffer=4410 ! audio/x-raw,rate=44100,channels=1,format=S16LE ! flacenc ! "
      "m.",
      path);
  run(line, NULL, NULL, NULL);
}

static void watch(const gchar *path, Track *video, Track *audio) {
  g_autofree gchar *line = g_strdup_printf(SOURCE "fakesink" SOUND "fakesink", path);
  run(line, video, audio, NULL);
}

/* The edited frames in `video`. */
static void edit_video(const gchar *from, const gchar *to, Track *video, GstStructure **stats) {
  g_autofree gchar *line = g_strdup_printf(
      "uridecodebin3 uri=file://%s name=d  d. ! video/x-raw ! queue ! videoconvert ! "
      "fluxkontextedit name=e " NULL_ENGINE "similar-frame=auto ! identity name=v ! videoconvert ! vp8enc deadline=1 ! "
      "matroskamux name=m ! filesink location=%s d. ! audio/x-raw ! queue ! audioconvert ! flacenc ! m.",
      from, to);
  run(line, video, NULL, stats);
}

static void assert_same_times(const Track *a, const Track *b) {
  g_assert_cmpuint(a->times->len, ==, b->times->len);
  for (guint i = 0; i < a->times->len; i++)
    g_assert_cmpuint(g_array_index(a->times, GstClockTime, i), ==, g_array_index(b->times, GstClockTime, i));
}

static guint64 count(const GstStructure *stats, const gchar *field) {
  guint64 value = 0;
  g_assert_true(gst_structure_get_uint64(stats, field, &value));
  return value;
}

static void test_file(void) {
  static const gchar *const needs[] = {"uridecodebin3", "matroskamux", "matroskademux", "vp8enc",    "vp8dec",
                                       "flacenc",       "flacdec",     "flacparse",     "videorate", NULL};
  if (!has(needs)) return;
  g_autofree gchar *folder = g_dir_make_tmp("fk-video-XXXXXX", NULL);
  g_autofree gchar *in = g_build_filename(folder, "in.mkv", NULL), *out = g_build_filename(folder, "out.mkv", NULL);
  g_autoptr(GstStructure) stats = NULL, again_stats = NULL;
  g_auto(Track) video = {0}, audio = {0}, edited = {0}, again = {0}, back_video = {0}, back_audio = {0};
  make_video(in);
  watch(in, &video, &audio);
  edit_video(in, out, &edited, &stats);
  watch(out, &back_video, &back_audio);
  g_test_message("frames in %u, edited %" G_GUINT64_FORMAT ", repeated %" G_GUINT64_FORMAT ", out %u", video.times->len,
                 count(stats, "frames"), count(stats, "repeated"), back_video.times->len);
  g_assert_cmpuint(video.times->len, >=, 90);
  g_assert_cmpuint(count(stats, "frames") + count(stats, "repeated"), ==, video.times->len);
  g_assert_cmpuint(count(stats, "repeated"), >=, 60);
  g_assert_cmpuint(count(stats, "dropped"), ==, 0);
  assert_same_times(&video, &edited);
  assert_same_times(&video, &back_video);
  g_assert_cmpstr(video.colorimetry, ==, "bt709");
  g_assert_cmpstr(edited.colorimetry, ==, video.colorimetry);
  g_assert_cmpstr(back_video.colorimetry, ==, video.colorimetry);
  g_assert_cmpstr(g_checksum_get_string(audio.sum), ==, g_checksum_get_string(back_audio.sum));
  edit_video(in, out, &again, &again_stats);
  g_assert_cmpstr(g_checksum_get_string(edited.sum), ==, g_checksum_get_string(again.sum));
  g_assert_cmpuint(count(stats, "repeated"), ==, count(again_stats, "repeated"));
  drop_tree(folder);
}

/* What comes during an edit is dropped in front, but not the newest: the last frame of all comes out. */
static void test_live(void) {
  static const gchar *const needs[] = {"videotestsrc", "queue", NULL};
  if (!has(needs)) return;
  g_auto(Track) out = {0};
  null_engine(60, 0, 0);
  run("videotestsrc is-live=true num-buffers=30 ! video/x-raw,format=RGB,width=64,height=48,framerate=20/1 ! "
      "queue leaky=downstream max-size-buffers=1 ! fluxkontextedit " NULL_ENGINE
      "! identity name=v ! fakesink sync=false",
      &out, NULL, NULL);
  null_engine(0, 0, 0);
  g_test_message("30 live frames, %u came out", out.times->len);
  g_assert_cmpuint(out.times->len, >=, 1);
  g_assert_cmpuint(out.times->len, <, 30);
  for (guint i = 1; i < out.times->len; i++)
    g_assert_cmpuint(g_array_index(out.times, GstClockTime, i), >, g_array_index(out.times, GstClockTime, i - 1));
  g_assert_cmpuint(out.offset, ==, 29);
}

static void add(void) {
  g_test_add_func("/element/video/file", test_file);
  g_test_add_func("/element/video/live", test_live);
}

int main(int argc, char **argv) {
  return tester_main(&argc, &argv, add);
}
