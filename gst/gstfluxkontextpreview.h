/* SPDX-License-Identifier: Apache-2.0 */
/* Previews: the running estimate of a frame as an element message and as a signal. */
#ifndef GST_FLUX_KONTEXT_PREVIEW_H
#define GST_FLUX_KONTEXT_PREVIEW_H

#include "gstfluxkontextinstance.h"

G_BEGIN_DECLS

/* One frame that is being edited; lives as long as the edit. */
typedef struct {
  GstFluxKontextEdit *self;
  GstBuffer *buffer; /* (transfer none) as it came: time */
} GstFluxKontextPreview;

void gst_flux_kontext_preview_class_init(GObjectClass *klass);
/* Asks for previews in `job` where preview-interval says so. `preview` is filled. Stream lock. */
void gst_flux_kontext_preview_ask(GstFluxKontextEdit *self, FkJob *job, GstFluxKontextPreview *preview,
                                  GstBuffer *buffer);

G_END_DECLS

#endif
