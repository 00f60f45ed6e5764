/* SPDX-License-Identifier: Apache-2.0 */
/* Frames that hardly differ from the last one that was edited: their result is repeated (similar-frame). */
#ifndef GST_FLUX_KONTEXT_SIMILAR_H
#define GST_FLUX_KONTEXT_SIMILAR_H

#include <gst/gst.h>

#include "fk.h"

G_BEGIN_DECLS

/* What similar-frame=auto stands for. */
#define GST_FLUX_KONTEXT_SIMILAR_AUTO 4.0

/* The frame that was taken for an edit last, and what became of it. Zero-initialised is none. */
typedef struct {
  guint8 *luma; /* of the reference, reduced; NULL: none */
  gint in_width, in_height;
  FkSettings *settings;
  FkImage result;     /* empty: not edited yet, or not edited */
  GstStructure *meta; /* (nullable) of the result */
} GstFluxKontextSimilar;

void gst_flux_kontext_similar_clear(GstFluxKontextSimilar *similar);
/* "off", "auto" or a number from 0 to 255: the largest difference that is still similar, -1 for off. FALSE sets error.
 */
gboolean gst_flux_kontext_similar_parse(const gchar *text, gdouble *threshold, GError **error);
/* Largest mean difference of luma in any cell of 16x16 against the reference; 256 where size or settings are others or
 * there is no reference. `luma`: (out, transfer full, nullable) of the frame. */
gdouble gst_flux_kontext_similar_measure(const GstFluxKontextSimilar *similar, const FkImage *image,
                                         const FkSettings *settings, guint8 **luma);
/* Makes this frame the reference, without a result; takes luma. */
void gst_flux_kontext_similar_start(GstFluxKontextSimilar *similar, const FkImage *image, const FkSettings *settings,
                                    guint8 *luma);
/* Keeps a copy of the reference's result. Where memory refuses it there is none. */
void gst_flux_kontext_similar_keep(GstFluxKontextSimilar *similar, const FkImage *result, const GstStructure *meta);
/* (transfer full): a copy of the result; empty where there is none or memory refuses it. */
FkImage gst_flux_kontext_similar_copy(const GstFluxKontextSimilar *similar);

G_END_DECLS

#endif
