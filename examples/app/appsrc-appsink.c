/* SPDX-License-Identifier: Apache-2.0 */
/* An application that has pixels and wants pixels: appsrc ! fluxkontextedit ! appsink.
 *
 *   cc appsrc-appsink.c $(pkg-config --cflags --libs gstreamer-app-1.0 gstreamer-video-1.0)
 *   appsrc-appsink IN.ppm OUT.ppm model-path=FOLDER prompt="make it night" [property=value ...]
 *
 * One frame goes in and one comes out; a stream pushes more before the end, each with its time. The element posts
 * progress and one error message on the bus (docs/element.md). Exit status: 0 done, 1 an error. */
#include <gst/app/app.h>
#include <gst/video/video.h>
#include <stdio.h>
#include <string.h>

/* Reads an 8-bit binary PPM. (transfer full): a buffer of RGB with *info. */
static GstBuffer *read_ppm(const char *path, GstVideoInfo *info) {
  FILE *file = fopen(path, "rb");
  guint width = 0, height = 0;
  GstVideoFrame frame;
  gboolean ok = file && fscanf(file, "P6 %5u %5u 255", &width, &height) == 2 && fgetc(file) != EOF && width && height;
  if (ok) ok = gst_video_info_set_format(info, GST_VIDEO_FORMAT_RGB, width, height);
  GstBuffer *buffer = ok ? gst_buffer_new_allocate(NULL, info->size, NULL) : NULL;
  if (buffer && (ok = gst_video_frame_map(&frame, info, buffer, GST_MAP_WRITE))) {
    /* Rows of a GstVideoFrame are padded: to 4 bytes, or to what the buffer's own layout says. */
    for (guint y = 0; ok && y < height; y++) {
      guint8 *row = (guint8 *)GST_VIDEO_FRAME_PLANE_DATA(&frame, 0) + y * GST_VIDEO_FRAME_PLANE_STRIDE(&frame, 0);
      ok = fread(row, 3, width, file) == width;
    }
    gst_video_frame_unmap(&frame);
  }
  if (file) fclose(file);
  if (ok) return buffer;
  if (buffer) gst_buffer_unref(buffer);
  fprintf(stderr, "%s: not a whole binary PPM\n", path);
  return NULL;
}

static gboolean write_ppm(const char *path, GstSample *sample) {
  GstVideoInfo info;
  GstVideoFrame frame;
  if (!gst_video_info_from_caps(&info, gst_sample_get_caps(sample)) ||
      !gst_video_frame_map(&frame, &info, gst_sample_get_buffer(sample), GST_MAP_READ))
    return FALSE;
  FILE *file = fopen(path, "wb");
  gboolean ok = file && fprintf(file, "P6\n%d %d\n255\n", info.width, info.height) > 0;
  for (gint y = 0; ok && y < info.height; y++) {
    const guint8 *row = (guint8 *)GST_VIDEO_FRAME_PLANE_DATA(&frame, 0) + y * GST_VIDEO_FRAME_PLANE_STRIDE(&frame, 0);
    ok = fwrite(row, 3, (size_t)info.width, file) == (size_t)info.width;
  }
  gst_video_frame_unmap(&frame);
  if (file && fclose(file)) ok = FALSE;
  if (!ok) fprintf(stderr, "%s: could not be written\n", path);
  return ok;
}

/* "property=value": as on a command line. */
static gboolean set_property(GstElement *element, const char *pair) {
  const char *equals = strchr(pair, '=');
  g_autofree char *name = g_strndup(pair, equals ? (gsize)(equals - pair) : 0);
  if (!equals || !g_object_class_find_property(G_OBJECT_GET_CLASS(element), name)) {
    fprintf(stderr, "\"%s\": expected property=value\n", pair);
    return FALSE;
  }
  gst_util_set_object_arg(G_OBJECT(element), name, equals + 1);
  return TRUE;
}

/* The next frame; NULL after an error, which is printed, and at the end. An edit may take minutes: what the element
 * posts meanwhile is looked at between short waits. */
static GstSample *pull(GstElement *pipeline, GstAppSink *sink) {
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline);
  for (;;) {
    GstSample *sample = gst_app_sink_try_pull_sample(sink, 50 * GST_MSECOND);
    if (sample || gst_app_sink_is_eos(sink)) return sample;
    g_autoptr(GstMessage) message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR);
    if (!message) continue;
    g_autoptr(GError) error = NULL;
    gst_message_parse_error(message, &error, NULL);
    fprintf(stderr, "%s\n", error->message);
    return NULL;
  }
}

/* Takes the frame. */
static gboolean edit(GstElement *pipeline, GstBuffer *frame, const GstVideoInfo *info, const char *out) {
  g_autoptr(GstElement) source = gst_bin_get_by_name(GST_BIN(pipeline), "source"),
                        sink = gst_bin_get_by_name(GST_BIN(pipeline), "sink");
  g_autoptr(GstCaps) caps = gst_video_info_to_caps(info);
  gst_app_src_set_caps(GST_APP_SRC(source), caps);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  GST_BUFFER_PTS(frame) = 0;
  gst_app_src_push_buffer(GST_APP_SRC(source), frame);
  gst_app_src_end_of_stream(GST_APP_SRC(source));
  g_autoptr(GstSample) sample = pull(pipeline, GST_APP_SINK(sink));
  const gboolean ok = sample && write_ppm(out, sample);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  return ok;
}

int main(int argc, char **argv) {
  g_autoptr(GError) error = NULL;
  GstVideoInfo info;
  gst_init(&argc, &argv);
  if (argc < 3) {
    fprintf(stderr, "usage: appsrc-appsink IN.ppm OUT.ppm [property=value ...]\n");
    return 1;
  }
  g_autoptr(GstElement) pipeline = gst_parse_launch(
      "appsrc name=source format=time ! fluxkontextedit name=edit ! appsink name=sink sync=false", &error);
  if (!pipeline) {
    fprintf(stderr, "%s\n", error->message);
    return 1;
  }
  g_autoptr(GstElement) element = gst_bin_get_by_name(GST_BIN(pipeline), "edit");
  for (int i = 3; i < argc; i++)
    if (!set_property(element, argv[i])) return 1;
  GstBuffer *frame = read_ppm(argv[1], &info);
  return frame && edit(pipeline, frame, &info, argv[2]) ? 0 : 1;
}
