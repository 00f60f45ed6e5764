/* SPDX-License-Identifier: Apache-2.0 */
/* The engine in use, waiting for its weights, and cancelling what it does. Any thread, no lock held. */
#ifndef GST_FLUX_KONTEXT_CANCEL_H
#define GST_FLUX_KONTEXT_CANCEL_H

#include "gstfluxkontextinstance.h"

G_BEGIN_DECLS

/* Cancels the running edit and, with `load`, the running load; wakes a frame that waits. */
void gst_flux_kontext_edit_cancel(GstFluxKontextEdit *self, gboolean load);
/* Edits, and with `load` loads, may run again. */
void gst_flux_kontext_edit_renew(GstFluxKontextEdit *self, gboolean load);
/* What cancels the edits of now; (transfer full). */
GCancellable *gst_flux_kontext_edit_ref_flow(GstFluxKontextEdit *self);
/* (transfer full, nullable): NULL before the first start and, without keep-loaded, after a stop. */
FkEngine *gst_flux_kontext_edit_ref_engine(GstFluxKontextEdit *self);
/* Waits until weights are loaded. GST_FLOW_FLUSHING when cancelled, GST_FLOW_ERROR when loading failed (posted). */
GstFlowReturn gst_flux_kontext_edit_wait(GstFluxKontextEdit *self);

G_END_DECLS

#endif
