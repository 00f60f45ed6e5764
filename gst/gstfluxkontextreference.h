/* SPDX-License-Identifier: Apache-2.0 */
/* Request pads reference_%u: pictures that the prompt may refer to, each with its own caps. */
#ifndef GST_FLUX_KONTEXT_REFERENCE_H
#define GST_FLUX_KONTEXT_REFERENCE_H

#include "gstfluxkontextinstance.h"

G_BEGIN_DECLS

/* Pictures that a frame refers to, in the order of their pads' numbers; held until cleared. Zero: none. */
typedef struct {
  gpointer held[FK_REFERENCES];
  FkImage images[FK_REFERENCES];
  gint n;
} GstFluxKontextReferences;

/* The pad template, and how pads come and go. */
void gst_flux_kontext_reference_class_init(GstElementClass *klass, GstCaps *caps);
/* The latest picture of each linked pad. Waits until each has had one or has ended; GST_FLOW_FLUSHING when cancelled.
 */
GstFlowReturn gst_flux_kontext_reference_take(GstFluxKontextEdit *self, GstFluxKontextReferences *references);
void gst_flux_kontext_references_clear(GstFluxKontextReferences *references);
/* Forgets the pictures (stop). */
void gst_flux_kontext_reference_reset(GstFluxKontextEdit *self);

G_END_DECLS

#endif
