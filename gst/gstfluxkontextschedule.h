/* SPDX-License-Identifier: Apache-2.0 */
/* Settings of one frame, from a meta on its buffer or an event before it; see gstfluxkontextmeta.h. */
#ifndef GST_FLUX_KONTEXT_SCHEDULE_H
#define GST_FLUX_KONTEXT_SCHEDULE_H

#include "gstfluxkontextinstance.h"

G_BEGIN_DECLS

/* Keeps the settings of such an event for the next frame; FALSE: another event. Does not take it. */
gboolean gst_flux_kontext_schedule_event(GstFluxKontextEdit *self, GstEvent *event);
/* Forgets them. */
void gst_flux_kontext_schedule_clear(GstFluxKontextEdit *self);
/* `settings`, which it takes, with what is asked for this frame alone; NULL sets error. (transfer full) */
GstFluxKontextSettings *gst_flux_kontext_schedule_apply(GstFluxKontextEdit *self, GstFluxKontextSettings *settings,
                                                        GstBuffer *buffer, GError **error);

G_END_DECLS

#endif
