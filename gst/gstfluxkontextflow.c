/* SPDX-License-Identifier: Apache-2.0 */
/* Frames in, batches, frames out. Everything here runs with the sink pad's stream lock and no other.
 *
 * A frame takes its settings and pixels when it enters. It waits until the batch is full, or until a serialized event,
 * new caps or settings that cannot share its batch drain it. Results come out in order of arrival.
 * Not here: which engine, how pixels are laid out, what messages look like. */
#include "gstfluxkontextflow.h"

#include "gstfluxkontextcancel.h"
#include "gstfluxkontextcuda.h"
#include "gstfluxkontextdevice.h"
#include "gstfluxkontextmask.h"
#include "gstfluxkontextpixels.h"
#include "gstfluxkontextpreview.h"
#include "gstfluxkontextreference.h"
#include "gstfluxkontextregions.h"
#include "gstfluxkontextreport.h"
#include "gstfluxkontextresult.h"
#include "gstfluxkontextschedule.h"

#define GST_CAT_DEFAULT gst_flux_kontext_edit_debug

/* A frame on its way. Owns what it points at. Output buffers in system memory are made one at a time, when they are
 * pushed: a pool of downstream may have fewer buffers than a batch has frames. */
typedef struct {
  GstBuffer *buffer;                /* as it came: time, flags, metas */
  GstFluxKontextSettings *settings; /* NULL when it was refused */
  FkImage image;                    /* what came; after the edit, the result; empty for a frame that passes unedited */
  GstStructure *result;             /* (nullable) its meta, when it was edited */
  GstFluxKontextReferences references;
  FkImage mask;                   /* from metas; else empty */
  FkImage before;                 /* what came, of a result under a mask; else empty */
  gboolean compared;              /* what similar frames are compared with */
  gboolean on_device;             /* edited where it is, in CUDA memory */
  GstFluxKontextPicture from, to; /* of `buffer` and of `out`, until the edit is done */
  GstBuffer *out;                 /* (nullable) the result, where it is written on the device */
} Frame;

/* What an edit was given and made on the device. The image of the frame is gone with it. */
static void leave_device(Frame *frame) {
  gst_flux_kontext_picture_clear(&frame->from);
  gst_flux_kontext_picture_clear(&frame->to);
}

/* (nullable members) */
static void frame_free(Frame *frame) {
  leave_device(frame);
  gst_clear_buffer(&frame->out);
  gst_clear_buffer(&frame->buffer);
  g_clear_pointer(&frame->settings, gst_flux_kontext_settings_unref);
  gst_flux_kontext_image_clear(&frame->image);
  g_clear_pointer(&frame->result, gst_structure_free);
  gst_flux_kontext_references_clear(&frame->references);
  gst_flux_kontext_image_clear(&frame->mask);
  gst_flux_kontext_image_clear(&frame->before);
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
  g_clear_error(&self->unfit);
  gst_caps_replace(&self->refused, NULL);
  g_clear_pointer(&self->warmed, gst_flux_kontext_settings_unref);
  g_clear_pointer(&self->checked, gst_flux_kontext_settings_unref);
  g_hash_table_remove_all(self->warned);
  gst_flux_kontext_schedule_clear(self);
  gst_flux_kontext_similar_clear(&self->similar);
  self->results = 0;
  self->drained = GST_FLOW_OK;
  self->warm_up = FALSE;
}

/* ---- Results ---- */

/* A writable buffer of the output with the times, flags and metas of `in`. The base class posts why a pool cannot be
 * activated, and nothing where the pool or the allocator has no buffer. */
static GstFlowReturn new_buffer(GstFluxKontextEdit *self, GstBuffer *in, GstBuffer **out) {
  GstBaseTransform *trans = GST_BASE_TRANSFORM(self);
  GstFlowReturn flow = GST_BASE_TRANSFORM_GET_CLASS(trans)->prepare_output_buffer(trans, in, out);
  if (flow != GST_FLOW_ERROR) return flow;
  g_autoptr(GstBufferPool) pool = gst_base_transform_get_buffer_pool(trans);
  if (pool && !gst_buffer_pool_is_active(pool)) return flow;
  g_autoptr(GError) error =
      g_error_new(FK_ERROR, FK_ERROR_MEMORY, "No buffer for a result of %dx%d, %" G_GSIZE_FORMAT " bytes.",
                  self->out.info.width, self->out.info.height, GST_VIDEO_INFO_SIZE(&self->out.info));
  gst_flux_kontext_edit_post_error(self, error, pool ? "downstream's buffer pool refused" : "the allocator refused");
  return flow;
}

/* What becomes of a frame with this error. A device that failed is never hidden. */
static GstFluxKontextOnError on_error(GstFluxKontextEdit *self, const GError *error) {
  GST_OBJECT_LOCK(self);
  GstFluxKontextOnError mode = self->props.on_error;
  GST_OBJECT_UNLOCK(self);
  return gst_flux_kontext_edit_is_device(error) ? GST_FLUX_KONTEXT_ON_ERROR_FAIL : mode;
}

/* on-error is not fail: the stream goes on, and the reason is reported once. */
static void warn_not_edited(GstFluxKontextEdit *self, const gchar *what, const GError *error) {
  g_autofree gchar *text = g_strdup_printf("%s: %s", what, error->message);
  gst_flux_kontext_edit_warn_once(self, text, GST_STREAM_ERROR, GST_STREAM_ERROR_FAILED, text, NULL);
}

/* A result that could not be written: no pixels to pass on, so it is an error or dropped. */
static GstFlowReturn lose_result(GstFluxKontextEdit *self, const GError *error) {
  gboolean fail = on_error(self, error) == GST_FLUX_KONTEXT_ON_ERROR_FAIL;
  GST_OBJECT_LOCK(self);
  self->stats.errors++;
  if (!fail) self->stats.dropped++;
  GST_OBJECT_UNLOCK(self);
  if (fail)
    gst_flux_kontext_edit_post_error(self, error, "a result into a buffer of the output");
  else
    warn_not_edited(self, "A result was dropped", error);
  return fail ? GST_FLOW_ERROR : GST_FLOW_OK;
}

/* A frame as a buffer of the output; NULL with GST_FLOW_OK: dropped. An unedited frame is pushed as it is where size
 * and memory agree, else scaled. */
static GstFlowReturn to_output(GstFluxKontextEdit *self, Frame *frame, GstBuffer **buffer) {
  gboolean edited = frame->image.data != NULL;
  gboolean same = self->in.info.width == self->out.info.width && self->in.info.height == self->out.info.height &&
                  self->in.cuda == self->out.cuda;
  if (frame->out) {
    gst_flux_kontext_result_add(frame->out, frame->result);
    *buffer = g_steal_pointer(&frame->out);
    return GST_FLOW_OK;
  }
  if (!edited && same) {
    *buffer = g_steal_pointer(&frame->buffer);
    return GST_FLOW_OK;
  }
  g_autoptr(GstBuffer) out = NULL;
  GstFlowReturn flow = new_buffer(self, frame->buffer, &out);
  if (flow != GST_FLOW_OK) return flow;
  g_autoptr(GError) error = NULL;
  gboolean written = frame->before.data ? gst_flux_kontext_format_write_kept(&self->out, &frame->image, &frame->before,
                                                                             frame->buffer, out, &error)
                     : edited           ? gst_flux_kontext_format_write(&self->out, &frame->image, out, &error)
                              : gst_flux_kontext_format_scale(&self->in, frame->buffer, &self->out, out, &error);
  if (!written) return lose_result(self, error);
  if (frame->result) gst_flux_kontext_result_add(out, frame->result);
  *buffer = g_steal_pointer(&out);
  return GST_FLOW_OK;
}

/* The next result as a buffer of the output; NULL with GST_FLOW_OK: there is none. */
static GstFlowReturn pop_done(GstFluxKontextEdit *self, GstBuffer **buffer) {
  GstFlowReturn flow = GST_FLOW_OK;
  *buffer = NULL;
  while (flow == GST_FLOW_OK && !*buffer && !g_queue_is_empty(&self->done)) {
    g_autoptr(Frame) frame = g_queue_pop_head(&self->done);
    flow = to_output(self, frame, buffer);
  }
  return flow;
}

/* ---- Frames that fail ---- */

/* Settles a frame that was not edited as on-error says; takes it. Only a `readable` buffer can be passed on.
 * GST_FLOW_ERROR: posted, unless *posted before. GST_FLOW_OK: will be pushed, or is dropped. */
static GstFlowReturn settle(GstFluxKontextEdit *self, Frame *taken, const GError *error, gboolean readable,
                            gboolean *posted) {
  g_autoptr(Frame) frame = taken;
  GstFluxKontextOnError mode = on_error(self, error);
  GST_OBJECT_LOCK(self);
  self->stats.errors++;
  GST_OBJECT_UNLOCK(self);
  if (mode == GST_FLUX_KONTEXT_ON_ERROR_FAIL) {
    if (!*posted) gst_flux_kontext_edit_post_error(self, error, "the frame was not edited");
    *posted = TRUE;
    return GST_FLOW_ERROR;
  }
  warn_not_edited(self, "A frame was not edited", error);
  if (mode == GST_FLUX_KONTEXT_ON_ERROR_PASSTHROUGH && readable) {
    gst_flux_kontext_image_clear(&frame->image);
    leave_device(frame);
    gst_clear_buffer(&frame->out);
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
  gboolean progress; /* post messages */
} Editing;

/* FkProgress of an edit: stages by name, steps by number, each step as an element message too, for programs. */
static void on_edit_progress(const char *stage, int64_t current, int64_t total, void *user_data) {
  const Editing *editing = user_data;
  if (!editing->progress) return;
  gboolean step = g_str_equal(stage, "step");
  if (!step && current == 0) /* the stages around the steps: posted as they begin */
    gst_flux_kontext_edit_post_progress(editing->self, GST_PROGRESS_TYPE_CONTINUE, "edit", stage);
  if (!step || current == 0) return;
  g_autofree gchar *text =
      g_strdup_printf("step %" G_GINT64_FORMAT " of %" G_GINT64_FORMAT, (gint64)current, (gint64)total);
  gst_flux_kontext_edit_post_progress(editing->self, GST_PROGRESS_TYPE_CONTINUE, "edit", text);
  gst_flux_kontext_edit_post_step(editing->self, current, total);
}

/* Ends a progress that was started with `code`; failure NULL: complete. */
static void post_end(GstFluxKontextEdit *self, const gchar *code, const GError *failure) {
  if (!failure)
    gst_flux_kontext_edit_post_progress(self, GST_PROGRESS_TYPE_COMPLETE, code, "Done");
  else if (gst_flux_kontext_edit_is_cancelled(failure))
    gst_flux_kontext_edit_post_progress(self, GST_PROGRESS_TYPE_CANCELED, code, "Cancelled");
  else
    gst_flux_kontext_edit_post_progress(self, GST_PROGRESS_TYPE_ERROR, code, "Failed");
}

/* The `progress` property, which may change while frames flow. */
static gboolean posts_progress(GstFluxKontextEdit *self) {
  GST_OBJECT_LOCK(self);
  gboolean progress = self->props.progress;
  GST_OBJECT_UNLOCK(self);
  return progress;
}

/* One call of the engine between a progress start and its one end. */
static gboolean edit(GstFluxKontextEdit *self, FkEngine *engine, FkJob *jobs, gint n, GError **error) {
  Editing editing = {self, posts_progress(self)};
  g_autoptr(GCancellable) flow = gst_flux_kontext_edit_ref_flow(self);
  if (editing.progress) {
    g_autofree gchar *text = n > 1 ? g_strdup_printf("Editing %d frames", n) : g_strdup("Editing a frame");
    gst_flux_kontext_edit_post_progress(self, GST_PROGRESS_TYPE_START, "edit", text);
  }
  GError *failure = NULL;
  gboolean edited = fk_engine_edit(engine, jobs, n, flow, on_edit_progress, &editing, &failure);
  if (editing.progress) post_end(self, "edit", failure);
  if (failure) g_propagate_error(error, failure);
  return edited;
}

/* ---- The end of a batch ---- */

/* Frames that the edit left unedited, each as on-error says. */
static GstFlowReturn settle_batch(GstFluxKontextEdit *self, GQueue *frames, const GError *error) {
  if (gst_flux_kontext_edit_is_cancelled(error)) return GST_FLOW_FLUSHING;
  gboolean posted = FALSE;
  GstFlowReturn flow = GST_FLOW_OK;
  Frame *frame;
  while ((frame = g_queue_pop_head(frames))) {
    GstFlowReturn one = settle(self, frame, error, TRUE, &posted);
    if (one != GST_FLOW_OK) flow = one;
  }
  return flow;
}

/* The record of a result. One that cannot be written is an error as one of its frame would be, but the frame is there.
 * FALSE: posted. */
static gboolean record(GstFluxKontextEdit *self, FkEngine *engine, const FkJob *job) {
  g_autoptr(GError) error = NULL;
  if (gst_flux_kontext_result_write(self, engine, job, self->results++, &error)) return TRUE;
  gboolean fail = on_error(self, error) == GST_FLUX_KONTEXT_ON_ERROR_FAIL;
  if (fail)
    gst_flux_kontext_edit_post_error(self, error, "the record of a result");
  else
    gst_flux_kontext_edit_warn_once(self, error->message, error->domain, error->code, error->message, NULL);
  return !fail;
}

/* Results replace the frames' pixels and go to `done`. GST_FLOW_ERROR: posted. */
static GstFlowReturn finish_batch(GstFluxKontextEdit *self, FkEngine *engine, GQueue *frames, FkJob *jobs) {
  Frame *frame;
  for (guint i = 0; (frame = g_queue_pop_head(frames)); i++) {
    const FkResult *r = &jobs[i].result;
    if (!frame->on_device && !record(self, engine, &jobs[i])) {
      frame_free(frame);
      return GST_FLOW_ERROR;
    }
    frame->result = gst_flux_kontext_result_new(&jobs[i]);
    if (frame->compared) gst_flux_kontext_similar_keep(&self->similar, &jobs[i].out, frame->result);
    if (r->truncated) gst_flux_kontext_edit_warn_truncated(self, frame->settings->values, r);
    if (!frame->on_device && gst_flux_kontext_mask_asked(frame->settings->values))
      frame->before = frame->image;
    else
      gst_flux_kontext_image_clear(&frame->image);
    frame->image = frame->out ? (FkImage){0} : jobs[i].out;
    jobs[i].out = (FkImage){0};
    leave_device(frame);
    g_queue_push_tail(&self->done, frame);
  }
  return GST_FLOW_OK;
}

/* Where the result of a frame is written. GST_FLOW_OK with error, or another flow return, posted: there is no room. */
static GstFlowReturn make_room(GstFluxKontextEdit *self, Frame *frame, FkImage *image, GError **error) {
  if (!frame->on_device) {
    gst_flux_kontext_format_new_image(&self->out, image, error);
    return GST_FLOW_OK;
  }
  GstFlowReturn flow = new_buffer(self, frame->buffer, &frame->out);
  if (flow == GST_FLOW_OK)
    gst_flux_kontext_picture_open(&frame->to, &self->out.info, frame->out, gst_flux_kontext_device_home(self), TRUE,
                                  image, error);
  return flow;
}

/* Results on the device into their buffers. */
static gboolean finish_pictures(GQueue *frames, GError **error) {
  for (const GList *item = frames->head; item; item = item->next) {
    Frame *frame = item->data;
    if (frame->out && !gst_flux_kontext_picture_finish(&frame->to, error)) return FALSE;
  }
  return TRUE;
}

static void fill_job(FkJob *job, const Frame *frame) {
  job->in = frame->image;
  job->settings = frame->settings->values;
  job->mask = frame->mask.data ? &frame->mask : NULL;
  job->references = frame->references.images;
  job->n_references = frame->references.n;
}

/* Edits the frames, which are of one size and batchable; empties the queue unless cancelled. */
static GstFlowReturn edit_frames(GstFluxKontextEdit *self, FkEngine *engine, GQueue *frames) {
  guint n = g_queue_get_length(frames), i = 0;
  g_autofree FkJob *jobs = g_new0(FkJob, n);
  g_autofree GstFluxKontextPreview *previews = g_new0(GstFluxKontextPreview, n);
  g_autoptr(GError) error = NULL;
  GstFlowReturn flow = GST_FLOW_OK;
  for (const GList *item = frames->head; item && flow == GST_FLOW_OK && !error; item = item->next, i++) {
    Frame *frame = item->data;
    fill_job(&jobs[i], frame);
    gst_flux_kontext_preview_ask(self, &jobs[i], &previews[i], frame->buffer);
    flow = make_room(self, frame, &jobs[i].out, &error);
  }
  gint64 began = g_get_monotonic_time();
  gboolean edited =
      flow == GST_FLOW_OK && !error && edit(self, engine, jobs, (gint)n, &error) && finish_pictures(frames, &error);
  gdouble ms = (gdouble)(g_get_monotonic_time() - began) / 1000.0;
  if (edited) {
    gst_flux_kontext_edit_count(self, &jobs[n - 1].result, n, ms);
    if (jobs[0].result.unmatched) gst_flux_kontext_edit_warn_unmatched(self, engine, jobs[0].settings);
    flow = finish_batch(self, engine, frames, jobs);
  } else if (flow == GST_FLOW_OK) {
    flow = settle_batch(self, frames, error);
  }
  for (i = 0; i < n; i++) gst_flux_kontext_image_clear(&jobs[i].out);
  return flow;
}

/* Edits the waiting batch. */
static GstFlowReturn run(GstFluxKontextEdit *self) {
  if (g_queue_is_empty(&self->waiting)) return GST_FLOW_OK;
  GstFlowReturn flow = gst_flux_kontext_edit_wait(self);
  if (flow == GST_FLOW_OK) flow = gst_flux_kontext_edit_warm_up(self);
  if (flow != GST_FLOW_OK) return flow;
  g_autoptr(FkEngine) engine = gst_flux_kontext_edit_ref_engine(self);
  return edit_frames(self, engine, &self->waiting);
}

/* ---- Warm-up ---- */

/* One edit on made-up pixels between a progress start and its end. */
static gboolean rehearse(GstFluxKontextEdit *self, const FkSettings *settings, GError **error) {
  g_autoptr(FkEngine) engine = gst_flux_kontext_edit_ref_engine(self);
  g_autoptr(GCancellable) flow = gst_flux_kontext_edit_ref_flow(self);
  gint width = self->in.info.width, height = self->in.info.height;
  gboolean progress = posts_progress(self);
  g_autofree gchar *text = g_strdup_printf("Warming up at %dx%d", width, height);
  if (progress) gst_flux_kontext_edit_post_progress(self, GST_PROGRESS_TYPE_START, "warmup", text);
  GError *failure = NULL;
  gboolean done = fk_engine_warmup(engine, settings, width, height, flow, &failure);
  if (progress) post_end(self, "warmup", failure);
  if (failure) g_propagate_error(error, failure);
  return done;
}

void gst_flux_kontext_edit_ask_warm_up(GstFluxKontextEdit *self) {
  GST_OBJECT_LOCK(self);
  gboolean asked = self->props.warmup;
  g_autoptr(GstFluxKontextSettings) live = gst_flux_kontext_props_live(&self->props);
  GST_OBJECT_UNLOCK(self);
  gboolean warm = self->warmed && self->warmed_width == self->in.info.width &&
                  self->warmed_height == self->in.info.height &&
                  gst_flux_kontext_settings_same_memory(self->warmed, live);
  self->warm_up = asked && !warm && !self->unfit;
}

GstFlowReturn gst_flux_kontext_edit_warm_up(GstFluxKontextEdit *self) {
  if (!self->warm_up) return GST_FLOW_OK;
  GstFlowReturn flow = gst_flux_kontext_edit_wait(self);
  if (flow != GST_FLOW_OK) return flow;
  GST_OBJECT_LOCK(self);
  g_autoptr(GstFluxKontextSettings) settings = gst_flux_kontext_props_live(&self->props);
  GST_OBJECT_UNLOCK(self);
  g_autoptr(GError) error = NULL;
  if (!rehearse(self, settings->values, &error) && gst_flux_kontext_edit_is_cancelled(error)) return GST_FLOW_FLUSHING;
  self->warm_up = FALSE;
  if (error && on_error(self, error) == GST_FLUX_KONTEXT_ON_ERROR_FAIL) {
    gst_flux_kontext_edit_post_error(self, error, "the warm-up edit failed");
    return GST_FLOW_ERROR;
  }
  if (error) {
    warn_not_edited(self, "The warm-up edit failed", error);
    return GST_FLOW_OK;
  }
  g_clear_pointer(&self->warmed, gst_flux_kontext_settings_unref);
  self->warmed = g_steal_pointer(&settings);
  self->warmed_width = self->in.info.width;
  self->warmed_height = self->in.info.height;
  return GST_FLOW_OK;
}

/* ---- Draining ---- */

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

/* Settings that were set and have no effect are reported once. Looked for again only where they changed. */
static void warn_idle(GstFluxKontextEdit *self, GstFluxKontextSettings *settings) {
  if (self->checked && gst_flux_kontext_settings_batchable(self->checked, settings)) return;
  gst_flux_kontext_settings_unref(self->checked);
  self->checked = gst_flux_kontext_settings_ref(settings);
  g_auto(GStrv) idle = fk_settings_idle(settings->values);
  for (gchar **pair = idle; pair[0] && pair[1]; pair += 2) {
    g_autofree gchar *text = g_strdup_printf("%s has no effect: %s.", pair[0], pair[1]);
    gst_flux_kontext_edit_warn_once(self, text, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS, text, NULL);
  }
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
  return settings ? gst_flux_kontext_schedule_apply(self, settings, buffer, error) : NULL;
}

/* Whether the last result is repeated for this frame, whose pixels it then has; else the frame is what later ones are
 * compared with. *flow: of draining the batch that the last frame may still wait in. FALSE with error: similar-frame is
 * no value. */
static gboolean repeat(GstFluxKontextEdit *self, Frame *frame, GstFlowReturn *flow, GError **error) {
  GST_OBJECT_LOCK(self);
  gdouble threshold;
  gboolean valid = gst_flux_kontext_similar_parse(self->props.similar_frame, &threshold, error);
  GST_OBJECT_UNLOCK(self);
  if (!valid || threshold < 0) return FALSE;
  g_autofree guint8 *luma = NULL;
  gdouble found = gst_flux_kontext_similar_measure(&self->similar, &frame->image, frame->settings->values, &luma);
  GST_LOG_OBJECT(self, "largest difference of a cell: %.2f", found);
  if (found <= threshold) {
    *flow = gst_flux_kontext_edit_drain(self);
    if (*flow != GST_FLOW_OK) return FALSE;
    FkImage result = gst_flux_kontext_similar_copy(&self->similar);
    if (result.data) {
      gst_flux_kontext_image_clear(&frame->image);
      frame->image = result;
      frame->result = gst_structure_copy(self->similar.meta);
      return TRUE;
    }
  }
  gst_flux_kontext_similar_start(&self->similar, &frame->image, frame->settings->values, g_steal_pointer(&luma));
  frame->compared = TRUE;
  return FALSE;
}

/* Drains the batch, then settles this frame that cannot be edited; takes it. */
static GstFlowReturn refuse(GstFluxKontextEdit *self, Frame *frame, const GError *error, gboolean readable) {
  gboolean posted = FALSE;
  GstFlowReturn flow = gst_flux_kontext_edit_drain(self);
  if (flow != GST_FLOW_OK)
    frame_free(frame);
  else
    flow = settle(self, frame, error, readable, &posted);
  if (flow != GST_FLOW_OK) return flow;
  return g_queue_is_empty(&self->done) ? GST_BASE_TRANSFORM_FLOW_DROPPED : GST_FLOW_OK;
}

/* Whether a frame in CUDA memory is edited where it is: the result has to be in such memory too, and similar frames are
 * compared, records hashed on the CPU. */
static gboolean stays_on_device(GstFluxKontextEdit *self) {
  GST_OBJECT_LOCK(self);
  gboolean compared = self->props.similar_frame && !g_str_equal(self->props.similar_frame, "off");
  gboolean recorded = self->props.manifest_path && *self->props.manifest_path;
  GST_OBJECT_UNLOCK(self);
  return self->in.cuda && self->out.cuda && !compared && !recorded && gst_flux_kontext_device_is_open(self) &&
         gst_flux_kontext_pixels_planes(&self->in.info, NULL);
}

static gboolean read_frame(GstFluxKontextEdit *self, Frame *frame, GError **error) {
  frame->on_device = stays_on_device(self);
  if (!frame->on_device) return gst_flux_kontext_format_read(&self->in, frame->buffer, &frame->image, error);
  return gst_flux_kontext_picture_open(&frame->from, &self->in.info, frame->buffer, gst_flux_kontext_device_home(self),
                                       FALSE, &frame->image, error);
}

static gboolean share_batch(const Frame *a, const Frame *b) {
  return a->on_device == b->on_device && gst_flux_kontext_settings_batchable(a->settings, b->settings);
}

/* Takes the buffer. GST_FLOW_OK: it waits, or its unedited result does; DROPPED: it is gone. */
static GstFlowReturn enter(GstFluxKontextEdit *self, GstBuffer *buffer) {
  g_autoptr(GError) error = NULL;
  g_autoptr(Frame) frame = g_new0(Frame, 1);
  frame->buffer = buffer;
  frame->settings = take_settings(self, buffer, &error);
  if (!frame->settings) return refuse(self, g_steal_pointer(&frame), error, TRUE);
  if (self->unfit) return refuse(self, g_steal_pointer(&frame), self->unfit, TRUE);
  warn_idle(self, frame->settings);
  if (!read_frame(self, frame, &error)) {
    gboolean readable = !g_error_matches(error, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT);
    return refuse(self, g_steal_pointer(&frame), error, readable);
  }
  if (!gst_flux_kontext_regions_mask(frame->settings->values, &self->in.info, buffer, &frame->mask, &error))
    return refuse(self, g_steal_pointer(&frame), error, TRUE);
  GstFlowReturn flow = gst_flux_kontext_reference_take(self, &frame->references);
  if (flow != GST_FLOW_OK) return flow;
  /* What a mask keeps is this frame's own, and other pictures make another result. */
  gboolean alone = frame->on_device || gst_flux_kontext_mask_asked(frame->settings->values) || frame->references.n > 0;
  if (!alone && repeat(self, frame, &flow, &error)) {
    GST_OBJECT_LOCK(self);
    self->stats.repeated++;
    GST_OBJECT_UNLOCK(self);
    g_queue_push_tail(&self->done, g_steal_pointer(&frame));
    return GST_FLOW_OK;
  }
  if (error) return refuse(self, g_steal_pointer(&frame), error, TRUE);
  const Frame *first = g_queue_peek_head(&self->waiting);
  if (flow == GST_FLOW_OK && first && !share_batch(first, frame)) flow = gst_flux_kontext_edit_drain(self);
  if (flow == GST_FLOW_OK) g_queue_push_tail(&self->waiting, g_steal_pointer(&frame));
  return flow;
}

/* The base class negotiates and applies QoS, then leaves the buffer in queued_buf. */
GstFlowReturn gst_flux_kontext_edit_submit(GstBaseTransform *trans, gboolean is_discont, GstBuffer *buffer) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(trans);
  GstBaseTransformClass *parent = g_type_class_peek(GST_TYPE_BASE_TRANSFORM);
  clear_queue(&self->done); /* left over when a push failed: upstream has its flow return */
  GstFlowReturn flow = parent->submit_input_buffer(trans, is_discont, buffer);
  if (flow == GST_BASE_TRANSFORM_FLOW_DROPPED) { /* late: QoS is on */
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
