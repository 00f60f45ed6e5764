/* SPDX-License-Identifier: Apache-2.0 */
/* Metas and events of fluxkontextedit for applications: names, fields, and functions to reach them. Installed; needs
 * GStreamer 1.20 alone, no library of ours.
 *
 * What the element wrote about a result, on each edited buffer (a GstCustomMeta without tags: it stays on copies, and
 * behind converters, scalers and encoders that copy metas):
 *
 *   seed uint64            settings    GstStructure: every setting of the frame that has a value, as text
 *   width, height int      at which the model worked
 *   evaluations int        of the model; skipped int: of these, answered by a step cache
 *   step-mask string       one character for each of the first 127 evaluations: 1 computed, 0 skipped
 *   repeated boolean       the result of an earlier frame (similar-frame)
 *   truncated boolean      not all of a prompt was read
 *   text-ms, encode-ms, denoise-ms, decode-ms, edit-ms double; of a repeated frame those of the edit
 *   hash string            SHA-256 of the result's pixels, R G B (A) rows without padding, before they are converted to
 *                          the output's format; as "sha256" of "out" in the record of manifest-path;
 *                          not of results in CUDA memory, which would have to be copied for it
 *   version string         of the element
 *
 * Settings of one frame: a structure whose fields are names of properties that may change while frames flow, with
 * values of the property's type or texts as on a command line. As a meta on the buffer, or as an event for the frame
 * that enters next; of the same name the meta's wins, then the event's, then the property's. */
#ifndef GST_FLUX_KONTEXT_META_H
#define GST_FLUX_KONTEXT_META_H

#include <gst/gst.h>

G_BEGIN_DECLS

#define GST_FLUX_KONTEXT_RESULT_META "GstFluxKontextResultMeta"
#define GST_FLUX_KONTEXT_SETTINGS_META "GstFluxKontextSettingsMeta"
/* Structure of a custom event, downstream (serialized with the frames) or upstream. */
#define GST_FLUX_KONTEXT_SETTINGS_EVENT "fluxkontext-settings"

/* Makes a meta known to the process; the element does, and an application that adds one before. */
static inline void gst_flux_kontext_meta_register(const gchar *name) {
  static const gchar *no_tags[] = {NULL};
  if (!gst_meta_get_info(name)) gst_meta_register_custom(name, no_tags, NULL, NULL, NULL);
}

/* (transfer none, nullable): as long as the buffer. */
static inline GstStructure *gst_flux_kontext_result(GstBuffer *buffer) {
  GstCustomMeta *meta = gst_meta_get_info(GST_FLUX_KONTEXT_RESULT_META)
                            ? gst_buffer_get_custom_meta(buffer, GST_FLUX_KONTEXT_RESULT_META)
                            : NULL;
  return meta ? gst_custom_meta_get_structure(meta) : NULL;
}

/* The settings of this frame alone, to be filled with gst_structure_set(); the buffer is writable. (transfer none) */
static inline GstStructure *gst_flux_kontext_frame_settings(GstBuffer *buffer) {
  gst_flux_kontext_meta_register(GST_FLUX_KONTEXT_SETTINGS_META);
  GstCustomMeta *meta = gst_buffer_get_custom_meta(buffer, GST_FLUX_KONTEXT_SETTINGS_META);
  if (!meta) meta = gst_buffer_add_custom_meta(buffer, GST_FLUX_KONTEXT_SETTINGS_META);
  return gst_custom_meta_get_structure(meta);
}

G_END_DECLS

#endif
