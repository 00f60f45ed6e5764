/* SPDX-License-Identifier: Apache-2.0 */
/* The element: type, pads, properties, state changes, events, queries. docs/element.md is its documentation.
 *
 * Not here: caps (gstfluxkontextcaps.c), engine and loading (gstfluxkontextload.c), frames (gstfluxkontextflow.c),
 * messages (gstfluxkontextreport.c), cancelling (gstfluxkontextcancel.c). */

/**
 * SECTION:element-fluxkontextedit
 * @title: fluxkontextedit
 *
 * Edits video frames and still images by instruction with FLUX.1-Kontext.
 *
 * ## Example launch line
 * |[
 * gst-launch-1.0 filesrc location=in.png ! pngdec ! videoconvert ! fluxkontextedit model-path=FLUX.1-Kontext-dev \
 *     prompt="make it night" ! videoconvert ! pngenc ! filesink location=out.png
 * ]|
 *
 * Since: 0.1
 */
#include "gstfluxkontextedit.h"

#include "gstfluxkontextcancel.h"
#include "gstfluxkontextcaps.h"
#include "gstfluxkontextcuda.h"
#include "gstfluxkontextflow.h"
#include "gstfluxkontextload.h"
#include "gstfluxkontextpixels.h"
#include "gstfluxkontextpreview.h"
#include "gstfluxkontextreference.h"
#include "gstfluxkontextreport.h"
#include "gstfluxkontextresult.h"
#include "gstfluxkontextschedule.h"

GST_DEBUG_CATEGORY(gst_flux_kontext_edit_debug);
#define GST_CAT_DEFAULT gst_flux_kontext_edit_debug

static gchar **preset_names(GstPreset *preset) {
  (void)preset;
  return gst_flux_kontext_props_preset_names();
}

static void preset_init(gpointer iface, gpointer data) {
  (void)data;
  ((GstPresetInterface *)iface)->get_property_names = preset_names;
}

G_DEFINE_FINAL_TYPE_WITH_CODE(GstFluxKontextEdit, gst_flux_kontext_edit, GST_TYPE_BASE_TRANSFORM,
                              G_IMPLEMENT_INTERFACE(GST_TYPE_PRESET, preset_init))
GST_ELEMENT_REGISTER_DEFINE(fluxkontextedit, "fluxkontextedit", GST_RANK_NONE, GST_TYPE_FLUX_KONTEXT_EDIT)

/* ---- Properties ---- */

static void set_property(GObject *object, guint id, const GValue *value, GParamSpec *pspec) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(object);
  FkEngine *old = NULL;
  gboolean later = FALSE, known = TRUE;
  GST_OBJECT_LOCK(self);
  if (id == GST_FLUX_KONTEXT_PROP_ENGINE) {
    old = self->given;
    self->given = g_value_dup_boxed(value);
    later = self->props.running;
  } else {
    known = gst_flux_kontext_props_set(&self->props, id, value, &later);
  }
  GST_OBJECT_UNLOCK(self);
  fk_engine_unref(old); /* may free a model: not under the lock */
  if (!known) G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
  if (later) GST_WARNING_OBJECT(self, "%s is used from the next READY to PAUSED on", pspec->name);
}

static void get_property(GObject *object, guint id, GValue *value, GParamSpec *pspec) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(object);
  gboolean known = TRUE;
  switch (id) {
  case GST_FLUX_KONTEXT_PROP_STATS: g_value_take_boxed(value, gst_flux_kontext_edit_stats(self)); break;
  case GST_FLUX_KONTEXT_PROP_ACTIVE: g_value_take_boxed(value, gst_flux_kontext_edit_active(self)); break;
  case GST_FLUX_KONTEXT_PROP_ENGINE: {
    FkEngine *engine = gst_flux_kontext_edit_ref_engine(self); /* what runs, else what was given */
    GST_OBJECT_LOCK(self);
    if (!engine && self->given) engine = fk_engine_ref(self->given);
    GST_OBJECT_UNLOCK(self);
    g_value_take_boxed(value, engine);
    break;
  }
  default:
    GST_OBJECT_LOCK(self);
    known = gst_flux_kontext_props_get(&self->props, id, value);
    GST_OBJECT_UNLOCK(self);
    break;
  }
  if (!known) G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
}

/* ---- States, events, queries ---- */

/* Pads are deactivated inside the parent's change: it waits for the streaming thread, so an edit has to be cancelled
 * before. */
static GstStateChangeReturn change_state(GstElement *element, GstStateChange transition) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(element);
  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY) gst_flux_kontext_edit_cancel(self, TRUE);
  return GST_ELEMENT_CLASS(gst_flux_kontext_edit_parent_class)->change_state(element, transition);
}

static gboolean sink_event(GstBaseTransform *trans, GstEvent *event) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(trans);
  if (gst_flux_kontext_schedule_event(self, event)) {
    gst_event_unref(event);
    return TRUE;
  }
  switch (GST_EVENT_TYPE(event)) {
  case GST_EVENT_FLUSH_START: gst_flux_kontext_edit_cancel(self, FALSE); break;
  case GST_EVENT_FLUSH_STOP:
    gst_flux_kontext_edit_discard(self);
    gst_flux_kontext_schedule_clear(self);
    self->drained = GST_FLOW_OK;
    gst_flux_kontext_edit_renew(self, FALSE);
    break;
  case GST_EVENT_CAPS: break; /* set_caps drains, where they differ */
  default:
    if (GST_EVENT_IS_SERIALIZED(event)) gst_flux_kontext_edit_drain_before(self);
    break;
  }
  return GST_BASE_TRANSFORM_CLASS(gst_flux_kontext_edit_parent_class)->sink_event(trans, event);
}

static gboolean src_event(GstBaseTransform *trans, GstEvent *event) {
  if (gst_flux_kontext_schedule_event(GST_FLUX_KONTEXT_EDIT(trans), event)) {
    gst_event_unref(event);
    return TRUE;
  }
  return GST_BASE_TRANSFORM_CLASS(gst_flux_kontext_edit_parent_class)->src_event(trans, event);
}

/* Upstream's latency and, in a live pipeline, ours. */
static gboolean answer_latency(GstFluxKontextEdit *self, GstQuery *query) {
  if (!gst_pad_peer_query(GST_BASE_TRANSFORM_SINK_PAD(self), query)) return FALSE;
  gboolean live;
  GstClockTime min, max;
  gst_query_parse_latency(query, &live, &min, &max);
  GstClockTime ours = live ? gst_flux_kontext_edit_latency(self) : 0;
  if (ours == 0) return TRUE;
  gst_query_set_latency(query, live, min + ours, GST_CLOCK_TIME_IS_VALID(max) ? max + ours : max);
  return TRUE;
}

static gboolean query(GstBaseTransform *trans, GstPadDirection direction, GstQuery *query) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(trans);
  if (GST_QUERY_TYPE(query) == GST_QUERY_LATENCY && direction == GST_PAD_SRC) return answer_latency(self, query);
  if (GST_QUERY_TYPE(query) == GST_QUERY_DRAIN && direction == GST_PAD_SINK) gst_flux_kontext_edit_drain_before(self);
  if (GST_QUERY_TYPE(query) == GST_QUERY_CONTEXT && gst_flux_kontext_edit_answer_context(self, query)) return TRUE;
  return GST_BASE_TRANSFORM_CLASS(gst_flux_kontext_edit_parent_class)->query(trans, direction, query);
}

static void set_context(GstElement *element, GstContext *context) {
  gst_flux_kontext_edit_set_context(element, context);
  GST_ELEMENT_CLASS(gst_flux_kontext_edit_parent_class)->set_context(element, context);
}

/* Never called: generate_output makes the frames. Its presence tells the base class that buffers are not edited in
 * place, without which it would not negotiate a pool. */
static GstFlowReturn transform(GstBaseTransform *trans, GstBuffer *in, GstBuffer *out) {
  (void)trans;
  (void)in;
  (void)out;
  return GST_FLOW_NOT_SUPPORTED;
}

/* ---- Life ---- */

static void gst_flux_kontext_edit_init(GstFluxKontextEdit *self) {
  gst_flux_kontext_props_init(&self->props);
  g_mutex_init(&self->lock);
  g_cond_init(&self->changed);
  self->flow = g_cancellable_new();
  self->loading = g_cancellable_new();
  g_queue_init(&self->waiting);
  g_queue_init(&self->done);
  self->batch_size = 1;
  self->warned = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
}

static void finalize(GObject *object) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(object);
  g_clear_pointer(&self->references, g_list_free); /* the pads are gone */
  gst_flux_kontext_edit_reset_stream(self);
  g_clear_pointer(&self->warned, g_hash_table_unref);
  g_clear_object(&self->flow);
  g_clear_object(&self->loading);
  g_clear_pointer(&self->engine, fk_engine_unref);
  g_clear_pointer(&self->offered, fk_engine_unref);
  g_clear_pointer(&self->given, fk_engine_unref);
  g_clear_pointer(&self->offered_for, g_free);
  g_clear_pointer(&self->options_text, g_free);
  gst_flux_kontext_props_clear(&self->props);
  g_cond_clear(&self->changed);
  g_mutex_clear(&self->lock);
  G_OBJECT_CLASS(gst_flux_kontext_edit_parent_class)->finalize(object);
}

static void gst_flux_kontext_edit_class_init(GstFluxKontextEditClass *klass) {
  GObjectClass *object = G_OBJECT_CLASS(klass);
  GstElementClass *element = GST_ELEMENT_CLASS(klass);
  GstBaseTransformClass *base = GST_BASE_TRANSFORM_CLASS(klass);
  GST_DEBUG_CATEGORY_INIT(gst_flux_kontext_edit_debug, "fluxkontextedit", 0, "FLUX.1-Kontext image editing");
  object->set_property = set_property;
  object->get_property = get_property;
  object->finalize = finalize;
  gst_flux_kontext_props_install(object);
  gst_flux_kontext_preview_class_init(object);
  gst_flux_kontext_result_register();
  gst_element_class_set_static_metadata(element, "FLUX.1-Kontext image editing", "Filter/Effect/Video/Hardware",
                                        "Edits video frames and still images by instruction",
                                        "The fluxkontext authors");
  g_autoptr(GstCaps) caps = gst_caps_merge(gst_flux_kontext_cuda_caps(), gst_flux_kontext_pixels_caps());
  gst_element_class_add_pad_template(element, gst_pad_template_new("sink", GST_PAD_SINK, GST_PAD_ALWAYS, caps));
  gst_element_class_add_pad_template(element, gst_pad_template_new("src", GST_PAD_SRC, GST_PAD_ALWAYS, caps));
  gst_flux_kontext_reference_class_init(element, caps);
  element->change_state = GST_DEBUG_FUNCPTR(change_state);
  element->set_context = GST_DEBUG_FUNCPTR(set_context);
  gst_flux_kontext_edit_caps_class_init(base);
  base->start = GST_DEBUG_FUNCPTR(gst_flux_kontext_edit_start);
  base->stop = GST_DEBUG_FUNCPTR(gst_flux_kontext_edit_stop);
  base->sink_event = GST_DEBUG_FUNCPTR(sink_event);
  base->src_event = GST_DEBUG_FUNCPTR(src_event);
  base->query = GST_DEBUG_FUNCPTR(query);
  base->submit_input_buffer = GST_DEBUG_FUNCPTR(gst_flux_kontext_edit_submit);
  base->generate_output = GST_DEBUG_FUNCPTR(gst_flux_kontext_edit_generate);
  base->transform = GST_DEBUG_FUNCPTR(transform);
}
