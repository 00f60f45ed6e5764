/* SPDX-License-Identifier: Apache-2.0 */
/* Which engine the element uses: start, stop and contexts. */
#ifndef GST_FLUX_KONTEXT_LOAD_H
#define GST_FLUX_KONTEXT_LOAD_H

#include "gstfluxkontextinstance.h"

G_BEGIN_DECLS

#define GST_FLUX_KONTEXT_ENGINE_CONTEXT "gst.fluxkontext.engine"

/* READY -> PAUSED and back. FALSE: posted. */
gboolean gst_flux_kontext_edit_start(GstBaseTransform *trans);
gboolean gst_flux_kontext_edit_stop(GstBaseTransform *trans);
/* Any thread, no lock held. */
void gst_flux_kontext_edit_set_context(GstElement *element, GstContext *context);
gboolean gst_flux_kontext_edit_answer_context(GstFluxKontextEdit *self, GstQuery *query);

G_END_DECLS

#endif
