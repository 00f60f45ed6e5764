/* SPDX-License-Identifier: Apache-2.0 */
/* What the element reports: messages, and the stats and active properties. No lock held but the stream's. */
#ifndef GST_FLUX_KONTEXT_REPORT_H
#define GST_FLUX_KONTEXT_REPORT_H

#include "gstfluxkontextinstance.h"

G_BEGIN_DECLS

gboolean gst_flux_kontext_edit_is_cancelled(const GError *error);
gboolean gst_flux_kontext_edit_is_device(const GError *error);
/* Posts the one error message for `error`, whose kind it keeps. debug: (nullable) what it was about, for developers. */
void gst_flux_kontext_edit_post_error(GstFluxKontextEdit *self, const GError *error, const gchar *debug);
/* Posts a warning unless one for `key` was posted since start. After GST_FLUX_KONTEXT_WARNINGS different ones a last
 * message says that the others are in the debug log only. Stream lock. */
#define GST_FLUX_KONTEXT_WARNINGS 64
void gst_flux_kontext_edit_warn_once(GstFluxKontextEdit *self, const gchar *key, GQuark domain, gint code,
                                     const gchar *text, const gchar *debug);
/* Adapters of which a part has no place in the model: once for each list. */
void gst_flux_kontext_edit_warn_unmatched(GstFluxKontextEdit *self, FkEngine *engine, const FkSettings *settings);
/* Prompts that were read in part: once for each text. */
void gst_flux_kontext_edit_warn_truncated(GstFluxKontextEdit *self, const FkSettings *settings, const FkResult *result);
void gst_flux_kontext_edit_post_progress(GstFluxKontextEdit *self, GstProgressType type, const gchar *code,
                                         const gchar *text);
void gst_flux_kontext_edit_post_step(GstFluxKontextEdit *self, gint64 current, gint64 total);
GstStructure *gst_flux_kontext_edit_stats(GstFluxKontextEdit *self);  /* (transfer full) */
GstStructure *gst_flux_kontext_edit_active(GstFluxKontextEdit *self); /* (transfer full) */
/* Counts n edited frames that took `ms` together; posts a latency message when the estimate moved. */
void gst_flux_kontext_edit_count(GstFluxKontextEdit *self, const FkResult *last, guint n, gdouble ms);
/* Time that the element adds, or 0. */
GstClockTime gst_flux_kontext_edit_latency(GstFluxKontextEdit *self);

G_END_DECLS

#endif
