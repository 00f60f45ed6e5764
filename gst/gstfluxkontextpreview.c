/* SPDX-License-Identifier: Apache-2.0 */
/* Made on the streaming thread, in the middle of an edit: the sample is a copy, so that readers may keep it. */
#include "gstfluxkontextpreview.h"

#include <string.h>

static guint preview_signal;

void gst_flux_kontext_preview_class_init(GObjectClass *klass) {
  /**
   * GstFluxKontextEdit::preview:
   * @sample: the estimate in RGB, an eighth of the size at which the model works, with the time of its frame
   * @evaluation: evaluations of the model made so far
   * @evaluations: of so many
   *
   * Emitted on the streaming thread, which waits for it.
   */
  preview_signal = g_signal_new("preview", G_TYPE_FROM_CLASS(klass), G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL,
                                G_TYPE_NONE, 3, GST_TYPE_SAMPLE, G_TYPE_INT, G_TYPE_INT);
}

/* (transfer full, nullable) */
static GstSample *sample_of(const FkImage *image, GstBuffer *frame) {
  GstVideoInfo info;
  if (!gst_video_info_set_format(&info, GST_VIDEO_FORMAT_RGB, (guint)image->width, (guint)image->height)) return NULL;
  gsize stride = (gsize)GST_VIDEO_INFO_PLANE_STRIDE(&info, 0);
  guint8 *data = g_try_malloc0(GST_VIDEO_INFO_SIZE(&info));
  if (!data) return NULL;
  for (gint y = 0; y < image->height; y++)
    memcpy(data + (gsize)y * stride, image->data + (gsize)y * image->stride, (gsize)image->width * 3);
  g_autoptr(GstBuffer) buffer = gst_buffer_new_wrapped(data, GST_VIDEO_INFO_SIZE(&info));
  gst_buffer_copy_into(buffer, frame, GST_BUFFER_COPY_TIMESTAMPS, 0, (gsize)-1);
  g_autoptr(GstCaps) caps = gst_video_info_to_caps(&info);
  return gst_sample_new(buffer, caps, NULL, NULL);
}

/* A preview that memory cannot hold is left out: the result does not need it. */
static void on_preview(int evaluation, int evaluations, const FkImage *image, void *user_data) {
  const GstFluxKontextPreview *preview = user_data;
  g_autoptr(GstSample) sample = sample_of(image, preview->buffer);
  if (!sample) return;
  GstStructure *structure = gst_structure_new("fluxkontext-preview", "sample", GST_TYPE_SAMPLE, sample, "evaluation",
                                              G_TYPE_INT, evaluation, "evaluations", G_TYPE_INT, evaluations, NULL);
  g_signal_emit(preview->self, preview_signal, 0, sample, evaluation, evaluations);
  gst_element_post_message(GST_ELEMENT(preview->self), gst_message_new_element(GST_OBJECT(preview->self), structure));
}

void gst_flux_kontext_preview_ask(GstFluxKontextEdit *self, FkJob *job, GstFluxKontextPreview *preview,
                                  GstBuffer *buffer) {
  GST_OBJECT_LOCK(self);
  job->preview_every = self->props.preview_interval;
  GST_OBJECT_UNLOCK(self);
  *preview = (GstFluxKontextPreview){self, buffer};
  job->preview = on_preview;
  job->preview_data = preview;
}
