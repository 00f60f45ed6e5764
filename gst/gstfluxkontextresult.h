/* SPDX-License-Identifier: Apache-2.0 */
/* What stays of an edit beside its pixels: the meta of the buffer, and the record that manifest-path asks for. */
#ifndef GST_FLUX_KONTEXT_RESULT_H
#define GST_FLUX_KONTEXT_RESULT_H

#include "gstfluxkontextinstance.h"

G_BEGIN_DECLS

/* Makes the metas known to the process. */
void gst_flux_kontext_result_register(void);
/* Fields of the result meta for a job that was edited. (transfer full) */
GstStructure *gst_flux_kontext_result_new(const FkJob *job);
/* Puts them on a writable buffer, in place of what an element before left there. */
void gst_flux_kontext_result_add(GstBuffer *buffer, const GstStructure *result);
/* Writes the record of the stream's n-th result where manifest-path says; TRUE where it says nothing. `job` still has
 * all its pixels. FALSE sets error. Stream lock. */
gboolean gst_flux_kontext_result_write(GstFluxKontextEdit *self, FkEngine *engine, const FkJob *job, guint64 n,
                                       GError **error);

G_END_DECLS

#endif
