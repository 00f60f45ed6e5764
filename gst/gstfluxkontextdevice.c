/* SPDX-License-Identifier: Apache-2.0 */
/* Frames in CUDA memory. A start asks the engine which device it works on, then for a GstCudaContext of that device:
 * one that others of the pipeline use, else the engine's own CUDA context, which others are told of. Memory of another
 * context than the engine's is copied on the device (gstfluxkontextcuda.c).
 * Not here: pixels; which caps go together (gstfluxkontextcaps.c). */
#include "gstfluxkontextdevice.h"

#include "gstfluxkontextcuda.h"

#define GST_CAT_DEFAULT gst_flux_kontext_edit_debug

/* ---- Contexts ---- */

void gst_flux_kontext_edit_find_context(GstFluxKontextEdit *self, const gchar *type,
                                        gboolean (*take)(GstFluxKontextEdit *self, GstContext *context)) {
  GstContext *set = gst_element_get_context(GST_ELEMENT(self), type);
  gboolean taken = take(self, set);
  g_clear_pointer(&set, gst_context_unref);
  if (taken) return;
  GstPad *pads[] = {GST_BASE_TRANSFORM_SRC_PAD(self), GST_BASE_TRANSFORM_SINK_PAD(self)};
  for (guint i = 0; i < G_N_ELEMENTS(pads); i++) {
    g_autoptr(GstQuery) query = gst_query_new_context(type);
    GstContext *context = NULL;
    if (gst_pad_peer_query(pads[i], query)) gst_query_parse_context(query, &context);
    if (take(self, context)) return;
  }
  gst_element_post_message(GST_ELEMENT(self), gst_message_new_need_context(GST_OBJECT(self), type));
}

/* (transfer full, nullable) */
static GstObject *ref_context(GstFluxKontextEdit *self) {
  g_mutex_lock(&self->lock);
  GstObject *context = self->device.context ? gst_object_ref(self->device.context) : NULL;
  g_mutex_unlock(&self->lock);
  return context;
}

/* Contexts of another device than the engine's are left alone. */
gboolean gst_flux_kontext_device_take_context(GstFluxKontextEdit *self, GstContext *context) {
  if (!context || !gst_context_has_context_type(context, GST_FLUX_KONTEXT_CUDA_CONTEXT)) return FALSE;
  g_mutex_lock(&self->lock);
  gboolean taken =
      self->device.state == GST_FLUX_KONTEXT_DEVICE_OPEN &&
      gst_flux_kontext_cuda_context_take(GST_ELEMENT(self), context, self->device.ordinal, &self->device.context);
  g_mutex_unlock(&self->lock);
  return taken;
}

gboolean gst_flux_kontext_device_answer_context(GstFluxKontextEdit *self, GstQuery *query) {
  g_autoptr(GstObject) context = ref_context(self);
  return context && gst_flux_kontext_cuda_context_answer(GST_ELEMENT(self), query, context);
}

/* A context of our own, of which the others hear. */
static void make_context(GstFluxKontextEdit *self) {
  g_autoptr(GstObject) made = gst_flux_kontext_cuda_context_new(self->device.ordinal, self->device.engine);
  if (!made) return;
  GstContext *context = gst_flux_kontext_cuda_context_share(made);
  gst_element_set_context(GST_ELEMENT(self), context); /* takes it, unless somebody was faster */
  gst_element_post_message(GST_ELEMENT(self), gst_message_new_have_context(GST_OBJECT(self), context));
}

/* ---- Start and stop ---- */

static void set_state(GstFluxKontextEdit *self, GstFluxKontextDeviceState state) {
  g_mutex_lock(&self->lock);
  self->device.state = state;
  g_mutex_unlock(&self->lock);
}

/* FALSE: frames of the device cannot be had; *why is a sentence. */
static gboolean open_device(GstFluxKontextEdit *self, FkEngine *engine, const gchar **why) {
  *why = "the engine does not work on such memory";
  if (!fk_engine_device(engine, &self->device.ordinal, &self->device.engine)) return FALSE;
  if (!gst_flux_kontext_cuda_open(why)) return FALSE;
  set_state(self, GST_FLUX_KONTEXT_DEVICE_OPEN);
  gst_flux_kontext_edit_find_context(self, GST_FLUX_KONTEXT_CUDA_CONTEXT, gst_flux_kontext_device_take_context);
  g_autoptr(GstObject) found = ref_context(self);
  if (!found) make_context(self);
  g_autoptr(GstObject) context = ref_context(self);
  *why = "no CUDA context can be made";
  return context != NULL;
}

void gst_flux_kontext_device_start(GstFluxKontextEdit *self, FkEngine *engine) {
  const gchar *why;
  if (open_device(self, engine, &why)) {
    GST_INFO_OBJECT(self, "frames in CUDA memory of device %d", self->device.ordinal);
    return;
  }
  GST_INFO_OBJECT(self, "no frames in CUDA memory: %s", why);
  set_state(self, GST_FLUX_KONTEXT_DEVICE_NONE);
}

void gst_flux_kontext_device_stop(GstFluxKontextEdit *self) {
  g_mutex_lock(&self->lock);
  GstObject *context = self->device.context;
  self->device = (GstFluxKontextDevice){0};
  g_mutex_unlock(&self->lock);
  gst_clear_object(&context);
}

gpointer gst_flux_kontext_device_home(GstFluxKontextEdit *self) {
  g_autoptr(GstObject) context = ref_context(self);
  if (self->device.engine || !context) return self->device.engine;
  return gst_flux_kontext_cuda_context_handle(context);
}

/* ---- Caps ---- */

static GstFluxKontextDeviceState state_of(GstFluxKontextEdit *self) {
  g_mutex_lock(&self->lock);
  GstFluxKontextDeviceState state = self->device.state;
  g_mutex_unlock(&self->lock);
  return state;
}

gboolean gst_flux_kontext_device_offered(GstFluxKontextEdit *self) {
  return state_of(self) != GST_FLUX_KONTEXT_DEVICE_NONE;
}

gboolean gst_flux_kontext_device_is_open(GstFluxKontextEdit *self) {
  return state_of(self) == GST_FLUX_KONTEXT_DEVICE_OPEN;
}

static gboolean is_system(GstCapsFeatures *features, GstStructure *structure, gpointer unused) {
  (void)structure;
  (void)unused;
  return !gst_flux_kontext_cuda_is(features);
}

static gboolean is_cuda(GstCapsFeatures *features, GstStructure *structure, gpointer unused) {
  return !is_system(features, structure, unused);
}

/* The structures of one memory, with the features of the other. (transfer full) */
static GstCaps *moved(const GstCaps *caps, GstCapsFilterMapFunc of, const gchar *feature) {
  GstCaps *result = gst_caps_copy(caps);
  gst_caps_filter_and_map_in_place(result, of, NULL);
  gst_caps_set_features_simple(result, gst_caps_features_new(feature, NULL));
  return result;
}

GstCaps *gst_flux_kontext_device_possible(GstFluxKontextEdit *self, GstCaps *caps) {
  if (gst_flux_kontext_device_offered(self)) return caps;
  caps = gst_caps_make_writable(caps);
  gst_caps_filter_and_map_in_place(caps, is_system, NULL);
  return caps;
}

GstCaps *gst_flux_kontext_device_both(GstFluxKontextEdit *self, GstCaps *caps) {
  caps = gst_flux_kontext_device_possible(self, caps);
  if (!gst_flux_kontext_device_offered(self)) return caps;
  g_autoptr(GstCaps) formats = gst_flux_kontext_cuda_caps();
  g_autoptr(GstCaps) up = moved(caps, is_system, GST_FLUX_KONTEXT_CUDA_MEMORY);
  GstCaps *cuda = gst_caps_intersect_full(up, formats, GST_CAPS_INTERSECT_FIRST);
  GstCaps *system = moved(caps, is_cuda, GST_CAPS_FEATURE_MEMORY_SYSTEM_MEMORY);
  return gst_caps_merge(gst_caps_merge(caps, cuda), system);
}

/* ---- Pools ---- */

gboolean gst_flux_kontext_device_propose(GstFluxKontextEdit *self, GstQuery *query, GstCaps *caps) {
  g_autoptr(GstObject) context = ref_context(self);
  guint size, min = self->batch_size > 1 ? (guint)self->batch_size : 0;
  g_autoptr(GstBufferPool) pool = context ? gst_flux_kontext_cuda_pool_new(context, caps, min, &size) : NULL;
  if (!pool) return FALSE;
  gst_query_add_allocation_pool(query, pool, size, min, 0);
  return TRUE;
}

/* Buffers of a batch are taken before any of them is pushed: a pool with a limit might not have them all. */
static gboolean usable(GstBufferPool *pool, guint max, GstObject *context) {
  return pool && max == 0 && gst_flux_kontext_cuda_pool_is(pool, context);
}

gboolean gst_flux_kontext_device_decide(GstFluxKontextEdit *self, GstQuery *query, GstCaps *caps) {
  g_autoptr(GstObject) context = ref_context(self);
  g_autoptr(GstBufferPool) pool = NULL;
  guint n = gst_query_get_n_allocation_pools(query), size = 0, min = 0, max = 0;
  for (guint i = 0; context && i < n && !pool; i++) {
    gst_query_parse_nth_allocation_pool(query, i, &pool, &size, &min, &max);
    if (!usable(pool, max, context)) gst_clear_object(&pool);
  }
  if (!pool && context) pool = gst_flux_kontext_cuda_pool_new(context, caps, min = 0, &size);
  if (!pool) return FALSE;
  if (n > 0)
    gst_query_set_nth_allocation_pool(query, 0, pool, size, min, 0);
  else
    gst_query_add_allocation_pool(query, pool, size, min, 0);
  return TRUE;
}
