/* SPDX-License-Identifier: Apache-2.0 */
/* The element's instance, shared by the sources that implement it; not installed. A source includes the headers below
 * it and never one above:
 *
 *   gstfluxkontextedit.c    type, pads, properties, state changes, events, queries
 *   gstfluxkontextcaps.c    caps, sizes, metas
 *   gstfluxkontextload.c    which engine, loading
 *   gstfluxkontextflow.c    frames in, batches, frames out
 *   gstfluxkontextpreview.c previews;  gstfluxkontextresult.c  metas and records of results
 *   gstfluxkontextschedule.c settings of one frame
 *   gstfluxkontextreference.c  pads of reference pictures
 *   gstfluxkontextreport.c  errors, warnings, progress, stats, latency
 *   gstfluxkontextdevice.c  frames in CUDA memory: device, context, pools
 *   gstfluxkontextcancel.c  the engine in use, waiting for it, cancelling
 *   gstfluxkontextmask.c    masks of metas, bytes that a result keeps;
 *   gstfluxkontextcuda.c    the libraries of CUDA memory, bytes and pictures of buffers;
 *   gstfluxkontextlayout.c  where a buffer's planes are; gstfluxkontextframe.c   pixels;
 *   gstfluxkontextprops.c   property values;
 *   gstfluxkontextsimilar.c frames that hardly differ: all five without an instance
 *
 * Three owners of the fields: the object lock (properties, counts), `lock` (engine, loading, cancelling) and the sink
 * pad's stream lock (the stream itself). The two locks are never held together, nor over a push, a post, an edit or a
 * load. */
#ifndef GST_FLUX_KONTEXT_INSTANCE_H
#define GST_FLUX_KONTEXT_INSTANCE_H

#include <gst/base/gstbasetransform.h>

#include "fk.h"
#include "gstfluxkontextframe.h"
#include "gstfluxkontextprops.h"
#include "gstfluxkontextsimilar.h"

G_BEGIN_DECLS

#define GST_TYPE_FLUX_KONTEXT_EDIT (gst_flux_kontext_edit_get_type())
G_DECLARE_FINAL_TYPE(GstFluxKontextEdit, gst_flux_kontext_edit, GST, FLUX_KONTEXT_EDIT, GstBaseTransform)

typedef enum {
  GST_FLUX_KONTEXT_LOAD_NONE,
  GST_FLUX_KONTEXT_LOAD_RUNNING,
  GST_FLUX_KONTEXT_LOAD_DONE,
  GST_FLUX_KONTEXT_LOAD_FAILED /* posted: frames return GST_FLOW_ERROR without another message */
} GstFluxKontextLoad;

typedef enum {
  GST_FLUX_KONTEXT_DEVICE_UNKNOWN, /* not started */
  GST_FLUX_KONTEXT_DEVICE_NONE,    /* system memory alone */
  GST_FLUX_KONTEXT_DEVICE_OPEN
} GstFluxKontextDeviceState;

/* Of a start; `engine` and `ordinal` change while no stream runs, the rest under `lock`. */
typedef struct {
  GstFluxKontextDeviceState state;
  GstObject *context; /* (nullable) GstCudaContext of the buffers that we make */
  gpointer engine;    /* (nullable) CUcontext that the engine works in */
  gint ordinal;       /* of the CUDA device */
} GstFluxKontextDevice;

typedef struct {
  guint64 frames, dropped, errors, repeated; /* since READY->PAUSED */
  FkResult last;                             /* of the last frame edited */
  gdouble recent_ms[8];                      /* times of the last batches, a ring */
  guint recent_frames[8];                    /* and their sizes */
  guint n_recent;                            /* batches since start */
  GstClockTime gather;                       /* for a batch to fill; 0: batch of one or no frame rate */
  GstClockTime reported;                     /* latency posted last */
} GstFluxKontextStats;

struct _GstFluxKontextEdit {
  GstBaseTransform parent;

  /* object lock */
  GstFluxKontextProps props;
  FkEngine *given; /* (nullable) the `engine` property */
  GstFluxKontextStats stats;
  GstStructure *next; /* (nullable) settings of the next frame alone */

  /* lock */
  GMutex lock;
  GCond changed; /* load, or flow cancelled */
  GstFluxKontextLoad load;
  FkEngine *engine;             /* (nullable) in use since start, or kept by keep-loaded */
  FkEngine *offered;            /* (nullable) from a GstContext, until start() has chosen */
  gchar *offered_for;           /* (nullable) the options it was opened with */
  gchar *options_text;          /* (nullable) the options of `engine` */
  GCancellable *flow, *loading; /* the running edit; the running load */
  GThread *loader;              /* touched by start() and stop() only */
  GList *references;            /* pads by number (gstfluxkontextreference.c) */
  GstFluxKontextDevice device;

  /* stream lock */
  gint batch_size;                /* as start() found it */
  GstFluxKontextFormat in, out;   /* empty before the first caps */
  GError *unfit;                  /* (nullable) why frames of these caps cannot be edited */
  GstCaps *refused;               /* (nullable) input caps that set_caps refused, with a message */
  gboolean warm_up;               /* asked for and not done for this size and these settings */
  GstFluxKontextSettings *warmed; /* (nullable) of the last warm-up */
  gint warmed_width, warmed_height;
  GstFluxKontextSettings *checked; /* (nullable) those whose values without effect were reported last */
  GQueue waiting;                  /* frames of the next batch (gstfluxkontextflow.c) */
  GQueue done;                     /* frames whose results are to be pushed */
  GstFlowReturn drained;           /* of pushes outside the chain function; returned for the next frame */
  GstFluxKontextSimilar similar;
  guint64 results;    /* since start: numbers of records */
  GHashTable *warned; /* checksums of the warnings posted since start */
};

GST_DEBUG_CATEGORY_EXTERN(gst_flux_kontext_edit_debug);

G_END_DECLS

#endif
