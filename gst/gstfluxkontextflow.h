/* SPDX-License-Identifier: Apache-2.0 */
/* Frames in, batches, frames out. All with the stream lock, or while no stream runs. */
#ifndef GST_FLUX_KONTEXT_FLOW_H
#define GST_FLUX_KONTEXT_FLOW_H

#include "gstfluxkontextinstance.h"

G_BEGIN_DECLS

GstFlowReturn gst_flux_kontext_edit_submit(GstBaseTransform *trans, gboolean is_discont, GstBuffer *buffer);
GstFlowReturn gst_flux_kontext_edit_generate(GstBaseTransform *trans, GstBuffer **buffer);
/* Edits and pushes the waiting batch; on failure its frames are dropped. */
GstFlowReturn gst_flux_kontext_edit_drain(GstFluxKontextEdit *self);
/* The same before a serialized event or new caps, which have no flow return: the next frame returns a failure. */
void gst_flux_kontext_edit_drain_before(GstFluxKontextEdit *self);
/* Drops the frames that wait and the results that were not pushed. */
void gst_flux_kontext_edit_discard(GstFluxKontextEdit *self);
/* Forgets everything that belongs to one stream. */
void gst_flux_kontext_edit_reset_stream(GstFluxKontextEdit *self);
/* Asks for a warm-up edit where `warmup` is set and neither size nor settings are those of the last one. */
void gst_flux_kontext_edit_ask_warm_up(GstFluxKontextEdit *self);
/* Runs it; on cancellation it stays asked for. GST_FLOW_ERROR: posted. */
GstFlowReturn gst_flux_kontext_edit_warm_up(GstFluxKontextEdit *self);

G_END_DECLS

#endif
