/* SPDX-License-Identifier: Apache-2.0 */
/* Frames in, batches, frames out. Everything here runs with the sink pad's stream lock and no other.
 *
 * A frame takes its settings and pixels when it enters; it waits until the batch is full, or something that has to come
 * after it (an event, new caps, settings of another kind) drains the batch. Results come out in order of arrival.
 * Not here: which engine, how pixels are laid out, what messages look like. */
#include "gstfluxkontextflow.h"

#include "gstfluxkontextcancel.h"
#include "gstfluxkontextreport.h"

#define GST_CAT_DEFAULT gst_flux_kontext_edit_debug

/* A frame on its way. Owns all three. Output buffers are made one at a time, when they are pushed: a pool of downstream
 * may have fewer buffers than a batch has frames. */
typedef struct {
  GstBuffer *buffer;                /* as it came: time, flags, metas */
  GstFluxKontextSettings *settings; /* NULL when it was refused */
  FkImage image;                    /* what came; after the edit, the result; empty for a frame that passes unedited */
} Frame;

/* (nullable members) */
static void frame_free(Frame *frame) {
  gst_clear_buffer(&frame->buffer);
  g_clear_pointer(&frame->settings, gst_flux_kontext_settings_unref);
  gst_flux_kontext_image_clear(&frame->image);
  g_free(frame);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Frame, frame_free)

static void clear_queue(GQueue *queue) {
  g_queue_clear_full(queue, (GDestroyNotify)frame_free);
}

void gst_flux_kontext_edit_discard(GstFluxKontextEdit *self) {
  clear_queue(&self->waiting);
  clear_queue(&self->done);
}

void gst_flux_kontext_edit_reset_stream(GstFluxKontextEdit *self) {
  gst_flux_kontext_edit_discard(self);
  gst_flux_kontext_format_clear(&self->in);
  gst_flux_kontext_format_clear(&self->out);
  gst_caps_replace(&self->refused, NULL);
  g_hash_table_remove_all(self->warned);
  self->drained = GST_FLOW_OK;
  self->no_model_path = FALSE;
  self->warm_up = FALSE;
}

/* ---- Results ---- */

/* The next result as a buffer of the output; NULL with GST_FLOW_OK: there is none. An unedited frame is pushed as it is
 * where the sizes agree, else scaled. */
static GstFlowReturn pop_done(GstFluxKontextEdit *self, GstBuffer **buffer) {
  GstBaseTransform *trans = GST_BASE_TRANSFORM(self);
  *buffer = NULL;
  g_autoptr(Frame) frame = g_queue_pop_head(&self->done);
  if (!frame) return GST_FLOW_OK;
  gboolean edited = frame->image.data != NULL;
  gboolean same_size = self->in.info.width == self->out.info.width && self->in.info.height == self->out.info.height;
  if (!edited && same_size) {
    *buffer = g_steal_pointer(&frame->buffer);
    return GST_FLOW_OK;
  }
  g_autoptr(GstBuffer) out = NULL;
  GstFlowReturn flow = GST_BASE_TRANSFORM_GET_CLASS(trans)->prepare_output_buffer(trans, frame->buffer, &out);
  if (flow != GST_FLOW_OK) return flow;
  g_autofree gchar *why = NULL;
  gboolean written = edited ? gst_flux_kontext_format_write(&self->out, &frame->image, out, &why)
                            : gst_flux_kontext_format_scale(&self->in, frame->buffer, &self->out, out, &why);
  if (!written) {
    gst_flux_kontext_edit_post_format(self, "The result does not fit a buffer of the output's pool.", why);
    return GST_FLOW_ERROR;
  }
  *buffer = g_steal_pointer(&out);
  return GST_FLOW_OK;
}

/* ---- Frames that fail ---- */

/* Settles a frame that was not edited as on-error says; takes it. `format`: error is about its buffer, which then
 * cannot be passed on either. GST_FLOW_ERROR: posted, unless *told before. GST_FLOW_OK: will be pushed, or is dropped.
 */
static GstFlowReturn settle(GstFluxKontextEdit *self, Frame *taken, const GError *error, gboolean format,
                            gboolean *told) {
  g_autoptr(Frame) frame = taken;
  GST_OBJECT_LOCK(self);
  GstFluxKontextOnError mode = self->props.on_error;
  self->stats.errors++;
  GST_OBJECT_UNLOCK(self);
  if (mode == GST_FLUX_KONTEXT_ON_ERROR_FAIL || gst_flux_kontext_edit_is_device(error)) {
    if (!*told && format) gst_flux_kontext_edit_post_format(self, error->message, "The frame was not edited");
    if (!*told && !format) gst_flux_kontext_edit_post_error(self, error);
    *told = TRUE;
    return GST_FLOW_ERROR;
  }
  GST_WARNING_OBJECT(self, "frame not edited: %s", error->message);
  g_autofree gchar *text = g_strdup_printf("A frame was not edited: %s", error->message);
  gst_flux_kontext_edit_warn_once(self, error->message, GST_STREAM_ERROR, GST_STREAM_ERROR_FAILED, text);
  if (mode == GST_FLUX_KONTEXT_ON_ERROR_PASSTHROUGH && !format) {
    gst_flux_kontext_image_clear(&frame->image);
    g_queue_push_tail(&self->done, g_steal_pointer(&frame));
    return GST_FLOW_OK;
  }
  GST_OBJECT_LOCK(self);
  self->stats.dropped++;
  GST_OBJECT_UNLOCK(self);
  return GST_FLOW_OK;
}

/* ---- A batch ---- */

typedef struct {
  GstFluxKontextEdit *self;
  gboolean tell;
} Editing;

/* FkProgress of an edit: stages by name, steps by number, each step also as an element message for programs. */
static void on_edit_progress(const char *stage, int64_t current, int64_t total, void *user_data) {
  const Editing *editing = user_data;
  if (!editing->tell) return;
  gboolean step = g_str_equal(stage, "step");
  if (!step && current == 0) /* the stages around the steps: told as they begin */
    gst_flux_kontext_edit_post_progress(editing->self, GST_PROGRESS_TYPE_CONTINUE, "edit", stage);
  if (!step || current == 0) return;
  g_autofree gchar *text =
      g_strdup_printf("step %" G_GINT64_FORMAT " of %" G_GINT64_FORMAT, (gint64)current, (gint64)total);
  gst_flux_kontext_edit_post_progress(editing->self, GST_PROGRESS_TYPE_CONTINUE, "edit", text);
  gst_flux_kontext_edit_post_step(editing->self, current, total);
}

/* One call of the engine between a progress start and its one end. */
static gboolean edit(GstFluxKontextEdit *self, FkEngine *engine, FkJob *jobs, gint n, GError **error) {
  GST_OBJECT_LOCK(self);
  Editing editing = {self, self->props.progress};
  GST_OBJECT_UNLOCK(self);
  g_autoptr(GCancellable) flow = gst_flux_kontext_edit_ref_flow(self);
  if (editing.tell) {
    g_autofree gchar *text = n > 1 ? g_strdup_printf("Editing %d frames", n) : g_strdup("Editing a frame");
    gst_flux_kontext_edit_post_progress(self, GST_PROGRESS_TYPE_START, "edit", text);
  }
  GError *failure = NULL;
  gboolean edited = fk_engine_edit(engine, jobs, n, flow, on_edit_progress, &editing, &failure);
  if (editing.tell) {
    gboolean cancelled = !edited && gst_flux_kontext_edit_is_cancelled(failure);
    gst_flux_kontext_edit_post_progress(self,
                                        edited      ? GST_PROGRESS_TYPE_COMPLETE
                                        : cancelled ? GST_PROGRESS_TYPE_CANCELED
                                                    : GST_PROGRESS_TYPE_ERROR,
                                        "edit",
                                        edited      ? "Edited"
                                        : cancelled ? "Edit cancelled"
                                                    : "Edit failed");
  }
  if (failure) g_propagate_error(error, failure);
  return edited;
}

/* Once for each prompt: 60 characters of it are enough to know it by. */
static void warn_truncated(GstFluxKontextEdit *self, const FkSettings *settings) {
  const char *prompt = fk_settings_get(settings, "prompt");
  g_autofree gchar *key = g_strconcat("prompt ", prompt, NULL);
  g_autofree gchar *shown = g_utf8_substring(prompt, 0, MIN(g_utf8_strlen(prompt, -1), 60));
  g_autofree gchar *text = g_strdup_printf("The model reads the beginning only of the prompt \"%s...\".", shown);
  gst_flux_kontext_edit_warn_once(self, key, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS, text);
}

/* Frames that the edit left unedited, each as on-error says. */
static GstFlowReturn settle_batch(GstFluxKontextEdit *self, GQueue *frames, const GError *error) {
  if (gst_flux_kontext_edit_is_cancelled(error)) return GST_FLOW_FLUSHING;
  gboolean told = FALSE;
  GstFlowReturn flow = GST_FLOW_OK;
  Frame *frame;
  while ((frame = g_queue_pop_head(frames))) {
    GstFlowReturn one = settle(self, frame, error, FALSE, &told);
    if (one != GST_FLOW_OK) flow = one;
  }
  return flow;
}

/* Results replace the frames' pixels and go to `done`. */
static void finish_batch(GstFluxKontextEdit *self, GQueue *frames, FkJob *jobs) {
  Frame *frame;
  for (guint i = 0; (frame = g_queue_pop_head(frames)); i++) {
    if (jobs[i].result.truncated) warn_truncated(self, frame->settings->values);
    gst_flux_kontext_image_clear(&frame->image);
    frame->image = jobs[i].out;
    jobs[i].out = (FkImage){0};
    g_queue_push_tail(&self->done, frame);
  }
}

/* Edits the frames, which are of one size and batchable; empties the queue unless cancelled. */
static GstFlowReturn edit_frames(GstFluxKontextEdit *self, FkEngine *engine, GQueue *frames) {
  guint n = g_queue_get_length(frames), i = 0;
  g_autofree FkJob *jobs = g_new0(FkJob, n);
  g_autoptr(GError) error = NULL;
  gboolean room = TRUE;
  for (const GList *item = frames->head; item; item = item->next, i++) {
    const Frame *frame = item->data;
    jobs[i].in = frame->image;
    jobs[i].settings = frame->settings->values;
    room = gst_flux_kontext_format_new_image(&self->out, &jobs[i].out) && room;
  }
  gint64 began = g_get_monotonic_time();
  gboolean edited = FALSE;
  if (room)
    edited = edit(self, engine, jobs, (gint)n, &error);
  else
    g_set_error(&error, FK_ERROR, FK_ERROR_MEMORY, "No memory for %u results of %dx%d", n, self->out.info.width,
                self->out.info.height);
  gdouble ms = (gdouble)(g_get_monotonic_time() - began) / 1000.0;
  GstFlowReturn flow = GST_FLOW_OK;
  if (edited) {
    gst_flux_kontext_edit_count(self, &jobs[n - 1].result, n, ms);
    finish_batch(self, frames, jobs);
  } else {
    flow = settle_batch(self, frames, error);
  }
  for (i = 0; i < n; i++) gst_flux_kontext_image_clear(&jobs[i].out);
  return flow;
}

/* Edits all that waits. */
static GstFlowReturn run(GstFluxKontextEdit *self) {
  if (g_queue_is_empty(&self->waiting)) return GST_FLOW_OK;
  GstFlowReturn flow = gst_flux_kontext_edit_wait(self);
  if (flow == GST_FLOW_OK) flow = gst_flux_kontext_edit_warm_up(self);
  if (flow != GST_FLOW_OK) return flow;
  g_autoptr(FkEngine) engine = gst_flux_kontext_edit_ref_engine(self);
  return edit_frames(self, engine, &self->waiting);
}

GstFlowReturn gst_flux_kontext_edit_warm_up(GstFluxKontextEdit *self) {
  if (!self->warm_up) return GST_FLOW_OK;
  GstFlowReturn flow = gst_flux_kontext_edit_wait(self);
  if (flow != GST_FLOW_OK) return flow;
  g_autoptr(FkEngine) engine = gst_flux_kontext_edit_ref_engine(self);
  g_autoptr(GCancellable) cancellable = gst_flux_kontext_edit_ref_flow(self);
  GST_OBJECT_LOCK(self);
  g_autoptr(GstFluxKontextSettings) settings = gst_flux_kontext_props_live(&self->props);
  GST_OBJECT_UNLOCK(self);
  g_autoptr(GError) error = NULL;
  const GstVideoInfo *info = &self->in.info;
  if (fk_engine_warmup(engine, settings->values, info->width, info->height, cancellable, &error)) {
    self->warm_up = FALSE;
    return GST_FLOW_OK;
  }
  if (gst_flux_kontext_edit_is_cancelled(error)) return GST_FLOW_FLUSHING;
  gst_flux_kontext_edit_post_error(self, error);
  return GST_FLOW_ERROR;
}

GstFlowReturn gst_flux_kontext_edit_drain(GstFluxKontextEdit *self) {
  GstFlowReturn flow = run(self);
  while (flow == GST_FLOW_OK) {
    GstBuffer *buffer;
    flow = pop_done(self, &buffer);
    if (flow != GST_FLOW_OK || !buffer) break;
    flow = gst_pad_push(GST_BASE_TRANSFORM_SRC_PAD(self), buffer);
  }
  if (flow != GST_FLOW_OK) gst_flux_kontext_edit_discard(self);
  return flow;
}

void gst_flux_kontext_edit_drain_before(GstFluxKontextEdit *self) {
  GstFlowReturn flow = gst_flux_kontext_edit_drain(self);
  if (flow != GST_FLOW_OK) self->drained = flow;
}

/* ---- A frame enters ---- */

/* Settings that were asked for and do nothing are said once. */
static void warn_useless(GstFluxKontextEdit *self, const FkSettings *settings) {
  const char *negative = fk_settings_get(settings, "negative-prompt");
  const char *scale = fk_settings_get(settings, "true-cfg-scale");
  gboolean above_one = scale && g_ascii_strtod(scale, NULL) > 1;
  if (negative && !above_one)
    gst_flux_kontext_edit_warn_once(self, "negative-prompt", GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS,
                                    "negative-prompt has no effect: true-cfg-scale is not above 1.");
  if (!negative && above_one)
    gst_flux_kontext_edit_warn_once(self, "true-cfg-scale", GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS,
                                    "true-cfg-scale has no effect: negative-prompt is not set.");
}

/* Controlled properties take the frame's stream time; then its settings are fixed. */
static GstFluxKontextSettings *take_settings(GstFluxKontextEdit *self, GstBuffer *buffer, GError **error) {
  const GstSegment *segment = &GST_BASE_TRANSFORM(self)->segment;
  GstClockTime time = segment->format == GST_FORMAT_TIME
                          ? gst_segment_to_stream_time(segment, GST_FORMAT_TIME, GST_BUFFER_PTS(buffer))
                          : GST_CLOCK_TIME_NONE;
  if (GST_CLOCK_TIME_IS_VALID(time)) gst_object_sync_values(GST_OBJECT(self), time);
  GST_OBJECT_LOCK(self);
  GstFluxKontextSettings *settings = gst_flux_kontext_props_next(&self->props, error);
  GST_OBJECT_UNLOCK(self);
  return settings;
}

/* What waits goes first, then this frame that cannot be edited; takes it. */
static GstFlowReturn refuse(GstFluxKontextEdit *self, Frame *frame, const GError *error, gboolean format) {
  gboolean told = FALSE;
  GstFlowReturn flow = gst_flux_kontext_edit_drain(self);
  if (flow != GST_FLOW_OK)
    frame_free(frame);
  else
    flow = settle(self, frame, error, format, &told);
  if (flow != GST_FLOW_OK) return flow;
  return g_queue_is_empty(&self->done) ? GST_BASE_TRANSFORM_FLOW_DROPPED : GST_FLOW_OK;
}

/* Takes the buffer. GST_FLOW_OK: it waits, or its unedited result does; DROPPED: it is gone. */
static GstFlowReturn enter(GstFluxKontextEdit *self, GstBuffer *buffer) {
  g_autoptr(GError) error = NULL;
  g_autoptr(Frame) frame = g_new0(Frame, 1);
  frame->buffer = buffer;
  frame->settings = take_settings(self, buffer, &error);
  if (!frame->settings) return refuse(self, g_steal_pointer(&frame), error, FALSE);
  warn_useless(self, frame->settings->values);
  g_autofree gchar *why = NULL;
  if (!gst_flux_kontext_format_read(&self->in, buffer, &frame->image, &why)) {
    g_set_error_literal(&error, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT, why);
    return refuse(self, g_steal_pointer(&frame), error, TRUE);
  }
  const Frame *first = g_queue_peek_head(&self->waiting);
  GstFlowReturn flow = GST_FLOW_OK;
  if (first && !gst_flux_kontext_settings_batchable(first->settings, frame->settings))
    flow = gst_flux_kontext_edit_drain(self);
  if (flow == GST_FLOW_OK) g_queue_push_tail(&self->waiting, g_steal_pointer(&frame));
  return flow;
}

/* The base class negotiates and applies QoS, then leaves the buffer in queued_buf. */
GstFlowReturn gst_flux_kontext_edit_submit(GstBaseTransform *trans, gboolean is_discont, GstBuffer *buffer) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(trans);
  GstBaseTransformClass *parent = g_type_class_peek(GST_TYPE_BASE_TRANSFORM);
  clear_queue(&self->done); /* left when downstream did not take the one before: upstream was told */
  GstFlowReturn flow = parent->submit_input_buffer(trans, is_discont, buffer);
  if (flow == GST_BASE_TRANSFORM_FLOW_DROPPED) { /* late: quality of service is on */
    GST_OBJECT_LOCK(self);
    self->stats.dropped++;
    GST_OBJECT_UNLOCK(self);
  }
  if (flow != GST_FLOW_OK) return flow;
  g_autoptr(GstBuffer) queued = g_steal_pointer(&trans->queued_buf);
  flow = self->drained; /* of a push that an event or new caps caused */
  self->drained = GST_FLOW_OK;
  if (flow != GST_FLOW_OK) return flow;
  return enter(self, g_steal_pointer(&queued));
}

/* Called until it gives NULL: the first call after a batch is full edits it, each one pushes one frame of it. */
GstFlowReturn gst_flux_kontext_edit_generate(GstBaseTransform *trans, GstBuffer **buffer) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(trans);
  *buffer = NULL;
  gboolean full = g_queue_get_length(&self->waiting) >= (guint)self->batch_size;
  GstFlowReturn flow = full ? run(self) : GST_FLOW_OK;
  if (flow == GST_FLOW_OK) flow = pop_done(self, buffer);
  if (flow != GST_FLOW_OK) gst_flux_kontext_edit_discard(self);
  /* The batch is gone and left nothing: dropped, so that the next frame is marked as a discontinuity. */
  return flow == GST_FLOW_OK && full && !*buffer ? GST_BASE_TRANSFORM_FLOW_DROPPED : flow;
}
