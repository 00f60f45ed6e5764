/* SPDX-License-Identifier: Apache-2.0 */
/* Frames in the engine's device memory: whether they can be had, their context, their pools. */
#ifndef GST_FLUX_KONTEXT_DEVICE_H
#define GST_FLUX_KONTEXT_DEVICE_H

#include "gstfluxkontextinstance.h"

G_BEGIN_DECLS

/* Asks for a context of this type until `take` is TRUE of one: those that were set on the element, its neighbours,
 * downstream first, and last, by message, bins and the application, which set it. No lock held. */
void gst_flux_kontext_edit_find_context(GstFluxKontextEdit *self, const gchar *type,
                                        gboolean (*take)(GstFluxKontextEdit *self, GstContext *context));

/* Between start and stop, for this engine. What fails is in the debug log: frames are in system memory then. */
void gst_flux_kontext_device_start(GstFluxKontextEdit *self, FkEngine *engine);
void gst_flux_kontext_device_stop(GstFluxKontextEdit *self);
/* Any thread. */
gboolean gst_flux_kontext_device_take_context(GstFluxKontextEdit *self, GstContext *context);
gboolean gst_flux_kontext_device_answer_context(GstFluxKontextEdit *self, GstQuery *query);
/* Whether frames in CUDA memory are taken and given; before a start, when nobody knows, they are. Any thread. */
gboolean gst_flux_kontext_device_offered(GstFluxKontextEdit *self);
/* Whether they are now, since a start. Any thread. */
gboolean gst_flux_kontext_device_is_open(GstFluxKontextEdit *self);
/* `caps`, which it takes, without those in CUDA memory where these cannot be had. (transfer full) */
GstCaps *gst_flux_kontext_device_possible(GstFluxKontextEdit *self, GstCaps *caps);
/* The same frames in the other memory, behind `caps`, which it takes; each where the device has the format.
 * (transfer full) */
GstCaps *gst_flux_kontext_device_both(GstFluxKontextEdit *self, GstCaps *caps);
/* The CUcontext that pictures have to be in. */
gpointer gst_flux_kontext_device_home(GstFluxKontextEdit *self);

/* For an allocation query whose caps say CUDA memory: a pool for upstream; downstream's pool, or one of ours. */
gboolean gst_flux_kontext_device_propose(GstFluxKontextEdit *self, GstQuery *query, GstCaps *caps);
gboolean gst_flux_kontext_device_decide(GstFluxKontextEdit *self, GstQuery *query, GstCaps *caps);

G_END_DECLS

#endif
