/* SPDX-License-Identifier: Apache-2.0 */
/* Properties of the element: every row of fk_properties() and the few that only an element has.
 *
 * A GstFluxKontextProps is guarded by its element's object lock: call everything but `install` with it held, and post
 * no message there. */
#ifndef GST_FLUX_KONTEXT_PROPS_H
#define GST_FLUX_KONTEXT_PROPS_H

#include <gst/gst.h>

#include "fk.h"

G_BEGIN_DECLS

typedef enum { GST_FLUX_KONTEXT_SEED_MODE_FIXED, GST_FLUX_KONTEXT_SEED_MODE_INCREMENT } GstFluxKontextSeedMode;

typedef enum {
  GST_FLUX_KONTEXT_ON_ERROR_FAIL,
  GST_FLUX_KONTEXT_ON_ERROR_PASSTHROUGH,
  GST_FLUX_KONTEXT_ON_ERROR_DROP
} GstFluxKontextOnError;

/* Property ids: these, then the rows of the table in its order. */
typedef enum {
  GST_FLUX_KONTEXT_PROP_SEED_MODE = 1,
  GST_FLUX_KONTEXT_PROP_BATCH_SIZE,
  GST_FLUX_KONTEXT_PROP_ASYNC_LOAD,
  GST_FLUX_KONTEXT_PROP_KEEP_LOADED,
  GST_FLUX_KONTEXT_PROP_WARMUP,
  GST_FLUX_KONTEXT_PROP_ON_ERROR,
  GST_FLUX_KONTEXT_PROP_PROGRESS,
  GST_FLUX_KONTEXT_PROP_REPORT_LATENCY,
  GST_FLUX_KONTEXT_PROP_PREVIEW_INTERVAL,
  GST_FLUX_KONTEXT_PROP_MANIFEST_PATH,
  GST_FLUX_KONTEXT_PROP_SIMILAR_FRAME,
  GST_FLUX_KONTEXT_PROP_ENGINE, /* engine, stats and active are read and written by the element itself */
  GST_FLUX_KONTEXT_PROP_STATS,
  GST_FLUX_KONTEXT_PROP_ACTIVE,
  GST_FLUX_KONTEXT_PROP_TABLE
} GstFluxKontextProp;

/* Settings that frames share: never changed while more than one reference is held. */
typedef struct {
  FkSettings *values;
  gint refs;        /* atomic */
  gboolean checked; /* object lock: fk_settings_check has passed */
} GstFluxKontextSettings;

/* Takes the values. */
GstFluxKontextSettings *gst_flux_kontext_settings_new(FkSettings *values);
GstFluxKontextSettings *gst_flux_kontext_settings_ref(GstFluxKontextSettings *settings);
void gst_flux_kontext_settings_unref(GstFluxKontextSettings *settings); /* (nullable) */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(GstFluxKontextSettings, gst_flux_kontext_settings_unref)
/* May frames with these run as one batch: all equal, `seed` aside. */
gboolean gst_flux_kontext_settings_batchable(const GstFluxKontextSettings *a, const GstFluxKontextSettings *b);
/* Does an edit with one prepare the machine for an edit with the other: equal in all that decides about memory. */
gboolean gst_flux_kontext_settings_same_memory(const GstFluxKontextSettings *a, const GstFluxKontextSettings *b);

typedef struct {
  FkOptions *options;
  FkSettings *settings; /* what the properties read */
  /* What the next frame uses: while frames flow, rows that change in READY only keep their value. Frames hold
   * references; a setter copies them first where one is held. */
  GstFluxKontextSettings *live;
  GHashTable
      *refused;     /* name -> text that the engine's table refused, with its error for the start or the next frame */
  gboolean running; /* between READY->PAUSED and PAUSED->READY */
  guint64 frame;    /* since READY->PAUSED or since `seed` was set: what seed-mode=increment adds */
  GstFluxKontextSeedMode seed_mode;
  GstFluxKontextOnError on_error;
  gint batch_size, preview_interval;
  gchar *manifest_path, *similar_frame; /* (nullable); similar_frame as it was set: read when a frame enters */
  gboolean async_load, keep_loaded, warmup, progress, report_latency;
} GstFluxKontextProps;

void gst_flux_kontext_props_install(GObjectClass *klass);
void gst_flux_kontext_props_init(GstFluxKontextProps *props);
void gst_flux_kontext_props_clear(GstFluxKontextProps *props);

/* FALSE: no such id. *later: stored, but used only at the next start. */
gboolean gst_flux_kontext_props_set(GstFluxKontextProps *props, guint id, const GValue *value, gboolean *later);
gboolean gst_flux_kontext_props_get(const GstFluxKontextProps *props, guint id, GValue *value);

/* Start: from here on `live` is fixed but for the rows that may change while frames flow. (transfer full); NULL sets
 * error when a property of the engine was refused. */
FkOptions *gst_flux_kontext_props_start(GstFluxKontextProps *props, GError **error);
void gst_flux_kontext_props_stop(GstFluxKontextProps *props);
/* The settings of the frame that enters now, with its own seed; counts the frame. (transfer full); NULL sets error when
 * a setting was refused or contradicts another. */
GstFluxKontextSettings *gst_flux_kontext_props_next(GstFluxKontextProps *props, GError **error);
/* Those of now, for questions that are about no frame. (transfer full) */
GstFluxKontextSettings *gst_flux_kontext_props_live(const GstFluxKontextProps *props);

/* Two elements want the same engine exactly when these texts are equal. */
gchar *gst_flux_kontext_options_text(const FkOptions *options);
/* Does the text say something else than all defaults? */
gboolean gst_flux_kontext_options_is_default(const FkOptions *options);

/* What a GstPreset keeps: how to edit; not where the model lies nor which machine runs it, and no texts, because
 * GstPreset cannot read back what it wrote of them (it escapes twice and unescapes once). (transfer full) */
gchar **gst_flux_kontext_props_preset_names(void);

G_END_DECLS

#endif
