/* SPDX-License-Identifier: Apache-2.0 */
/* Cancelling and waiting. There are two cancellables: a flush cancels the edit and keeps the load, a stop cancels both.
 * Not here: who loads (gstfluxkontextload.c), who edits (gstfluxkontextflow.c). */
#include "gstfluxkontextcancel.h"

void gst_flux_kontext_edit_cancel(GstFluxKontextEdit *self, gboolean load) {
  g_mutex_lock(&self->lock);
  g_autoptr(GCancellable) flow = g_object_ref(self->flow);
  g_autoptr(GCancellable) loading = load ? g_object_ref(self->loading) : NULL;
  g_mutex_unlock(&self->lock);
  g_cancellable_cancel(flow); /* runs handlers: not under the lock */
  g_cancellable_cancel(loading);
  g_mutex_lock(&self->lock);
  g_cond_broadcast(&self->changed);
  g_mutex_unlock(&self->lock);
}

/* A GCancellable that was cancelled is replaced, not reset: another thread may still be returning because of it. */
static void renew(GCancellable **cancellable) {
  if (!g_cancellable_is_cancelled(*cancellable)) return;
  g_object_unref(*cancellable);
  *cancellable = g_cancellable_new();
}

void gst_flux_kontext_edit_renew(GstFluxKontextEdit *self, gboolean load) {
  g_mutex_lock(&self->lock);
  renew(&self->flow);
  if (load) renew(&self->loading);
  g_mutex_unlock(&self->lock);
}

GCancellable *gst_flux_kontext_edit_ref_flow(GstFluxKontextEdit *self) {
  g_mutex_lock(&self->lock);
  GCancellable *flow = g_object_ref(self->flow);
  g_mutex_unlock(&self->lock);
  return flow;
}

FkEngine *gst_flux_kontext_edit_ref_engine(GstFluxKontextEdit *self) {
  g_mutex_lock(&self->lock);
  FkEngine *engine = self->engine ? fk_engine_ref(self->engine) : NULL;
  g_mutex_unlock(&self->lock);
  return engine;
}

GstFlowReturn gst_flux_kontext_edit_wait(GstFluxKontextEdit *self) {
  g_mutex_lock(&self->lock);
  /* Cancelling sets the flag first and then broadcasts under this lock, so no wake-up is lost. */
  while (self->load == GST_FLUX_KONTEXT_LOAD_RUNNING && !g_cancellable_is_cancelled(self->flow))
    g_cond_wait(&self->changed, &self->lock);
  gboolean cancelled = g_cancellable_is_cancelled(self->flow) || self->load == GST_FLUX_KONTEXT_LOAD_NONE;
  GstFluxKontextLoad load = self->load;
  g_mutex_unlock(&self->lock);
  if (cancelled) return GST_FLOW_FLUSHING;
  return load == GST_FLUX_KONTEXT_LOAD_DONE ? GST_FLOW_OK : GST_FLOW_ERROR;
}
