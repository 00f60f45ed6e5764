/* SPDX-License-Identifier: Apache-2.0 */
/* The element's instance, shared by the files that implement it; not installed.
 *
 *   gstfluxkontextedit.c    type, pads, properties, state changes, events, queries
 *   gstfluxkontextcaps.c    caps, sizes, metas
 *   gstfluxkontextload.c    which engine, loading, waiting for it
 *   gstfluxkontextflow.c    frames in, batches, frames out
 *   gstfluxkontextreport.c  errors, warnings, progress, stats, latency
 *
 * Three owners of the fields below: the object lock (properties, counts), `lock` (engine, loading, cancelling) and the
 * sink pad's stream lock (the stream itself). The two locks are never held together, nor over a push, a post, an edit
 * or a load. */
#ifndef GST_FLUX_KONTEXT_EDIT_H
#define GST_FLUX_KONTEXT_EDIT_H

#include <gst/base/gstbasetransform.h>

#include "fk.h"
#include "gstfluxkontextframe.h"
#include "gstfluxkontextprops.h"

G_BEGIN_DECLS

#define GST_TYPE_FLUX_KONTEXT_EDIT (gst_flux_kontext_edit_get_type())
G_DECLARE_FINAL_TYPE(GstFluxKontextEdit, gst_flux_kontext_edit, GST, FLUX_KONTEXT_EDIT, GstBaseTransform)
GST_ELEMENT_REGISTER_DECLARE(fluxkontextedit)

#define GST_FLUX_KONTEXT_ENGINE_CONTEXT "gst.fluxkontext.engine"

typedef enum {
  GST_FLUX_KONTEXT_LOAD_NONE,
  GST_FLUX_KONTEXT_LOAD_RUNNING,
  GST_FLUX_KONTEXT_LOAD_DONE,
  GST_FLUX_KONTEXT_LOAD_FAILED /* told already: frames return GST_FLOW_ERROR without another message */
} GstFluxKontextLoad;

typedef struct {
  guint64 frames, dropped, errors; /* since READY->PAUSED */
  FkResult last;                   /* of the last frame edited */
  gdouble recent_ms[8];            /* times of the last batches, a ring */
  guint n_recent;                  /* batches since start */
  GstClockTime gather;             /* for a batch to fill; 0: batch of one or no frame rate */
  GstClockTime reported;           /* latency told last */
} GstFluxKontextStats;

struct _GstFluxKontextEdit {
  GstBaseTransform parent;

  /* object lock */
  GstFluxKontextProps props;
  FkEngine *given; /* (nullable) the `engine` property */
  GstFluxKontextStats stats;

  /* lock */
  GMutex lock;
  GCond changed;
  GstFluxKontextLoad load;
  FkEngine *engine;             /* (nullable) in use since start, or kept by keep-loaded */
  FkEngine *offered;            /* (nullable) from a GstContext */
  gchar *offered_for;           /* (nullable) the options it was opened with */
  gchar *options_text;          /* (nullable) the options of `engine` */
  GCancellable *flow, *loading; /* the running edit; the running load */
  GThread *loader;              /* touched by start() and stop() only */

  /* stream lock */
  gboolean no_model_path;       /* start() found none set and no engine given: which error that is */
  gint batch_size;              /* as start() found it */
  gboolean warm_up;             /* the size is new and asked to be warmed up */
  GstFluxKontextFormat in, out; /* empty before the first caps */
  GstCaps *refused;             /* (nullable) input caps that set_caps refused, with a message */
  GQueue waiting;               /* frames of the next batch (gstfluxkontextflow.c) */
  GQueue done;                  /* frames whose results are to be pushed */
  GstFlowReturn drained;        /* of pushes outside the chain function; told at the next frame */
  GHashTable *warned;           /* texts of warnings posted since start */
};

/* caps */
void gst_flux_kontext_edit_caps_class_init(GstBaseTransformClass *klass);

/* load */
gboolean gst_flux_kontext_edit_start(GstBaseTransform *trans);
gboolean gst_flux_kontext_edit_stop(GstBaseTransform *trans);
/* Cancels the running edit and, with `load`, the running load; wakes a frame that waits. Any thread. */
void gst_flux_kontext_edit_cancel(GstFluxKontextEdit *self, gboolean load);
void gst_flux_kontext_edit_renew(GstFluxKontextEdit *self, gboolean load);
/* Waits until weights are loaded. GST_FLOW_FLUSHING when cancelled, GST_FLOW_ERROR when loading failed (told). */
GstFlowReturn gst_flux_kontext_edit_wait(GstFluxKontextEdit *self);
FkEngine *gst_flux_kontext_edit_ref_engine(GstFluxKontextEdit *self);   /* (transfer full, nullable) */
GCancellable *gst_flux_kontext_edit_ref_flow(GstFluxKontextEdit *self); /* (transfer full) */
void gst_flux_kontext_edit_set_context(GstElement *element, GstContext *context);
gboolean gst_flux_kontext_edit_answer_context(GstFluxKontextEdit *self, GstQuery *query);

/* flow: all with the stream lock */
GstFlowReturn gst_flux_kontext_edit_submit(GstBaseTransform *trans, gboolean is_discont, GstBuffer *buffer);
GstFlowReturn gst_flux_kontext_edit_generate(GstBaseTransform *trans, GstBuffer **buffer);
/* Edits and pushes all that waits; on failure it is gone. */
GstFlowReturn gst_flux_kontext_edit_drain(GstFluxKontextEdit *self);
/* The same before an event or new caps, which have no flow return: the next frame returns a failure. */
void gst_flux_kontext_edit_drain_before(GstFluxKontextEdit *self);
void gst_flux_kontext_edit_discard(GstFluxKontextEdit *self);
/* Runs the warm-up edit that a new size asked for; on cancellation it stays asked for. */
GstFlowReturn gst_flux_kontext_edit_warm_up(GstFluxKontextEdit *self);

/* report: no lock held */
gboolean gst_flux_kontext_edit_is_cancelled(const GError *error);
gboolean gst_flux_kontext_edit_is_device(const GError *error);
/* Posts the one error message for `error`. */
void gst_flux_kontext_edit_post_error(GstFluxKontextEdit *self, const GError *error);
/* The same for a buffer or caps that cannot be used: STREAM/FORMAT. */
void gst_flux_kontext_edit_post_format(GstFluxKontextEdit *self, const gchar *text, const gchar *debug);
/* Posts a warning unless one for `key` was posted since start. Stream lock. */
void gst_flux_kontext_edit_warn_once(GstFluxKontextEdit *self, const gchar *key, GQuark domain, gint code,
                                     const gchar *text);
void gst_flux_kontext_edit_post_progress(GstFluxKontextEdit *self, GstProgressType type, const gchar *code,
                                         const gchar *text);
void gst_flux_kontext_edit_post_step(GstFluxKontextEdit *self, gint64 current, gint64 total);
GstStructure *gst_flux_kontext_edit_stats(GstFluxKontextEdit *self);  /* (transfer full) */
GstStructure *gst_flux_kontext_edit_active(GstFluxKontextEdit *self); /* (transfer full) */
/* Counts n edited frames that took `ms` together; posts a latency message when the estimate moved. */
void gst_flux_kontext_edit_count(GstFluxKontextEdit *self, const FkResult *last, guint n, gdouble ms);
/* Time that the element adds, or 0. */
GstClockTime gst_flux_kontext_edit_latency(GstFluxKontextEdit *self);

GST_DEBUG_CATEGORY_EXTERN(gst_flux_kontext_edit_debug);

G_END_DECLS

#endif
