/* SPDX-License-Identifier: Apache-2.0 */
/* GStreamer's library for CUDA memory and the driver under it, both opened while the program runs: the plugin is linked
 * to neither, and loads on machines that have none. Contexts, pools, and buffers as pictures of the engine's device; no
 * element state. */
#ifndef GST_FLUX_KONTEXT_CUDA_H
#define GST_FLUX_KONTEXT_CUDA_H

#include <gst/video/video.h>

#include "fk.h"

G_BEGIN_DECLS

#define GST_FLUX_KONTEXT_CUDA_MEMORY "memory:CUDAMemory"
#define GST_FLUX_KONTEXT_CUDA_CONTEXT "gst.cuda.context"

/* ---- The libraries ---- */

/* Opens both at the first call, for the rest of the process. FALSE: they cannot be used; *why is a sentence. Before it
 * has been TRUE nothing below but the functions of caps may be called. why: (transfer none), nullable. */
gboolean gst_flux_kontext_cuda_open(const gchar **why);

/* ---- Caps: plain data, without the libraries ---- */

/* Whether these are frames in CUDA memory. */
gboolean gst_flux_kontext_cuda_is(const GstCapsFeatures *features);
/* The formats of such frames that an edit takes from the device and gives back there. (transfer full) */
GstCaps *gst_flux_kontext_cuda_caps(void);

/* ---- Contexts: a GstCudaContext is known here as the GstObject that it is ---- */

/* For a CUcontext of this device, or one of its own where handle is NULL. (transfer full, nullable) */
GstObject *gst_flux_kontext_cuda_context_new(gint device, gpointer handle);
gint gst_flux_kontext_cuda_context_device(GstObject *context);
gpointer gst_flux_kontext_cuda_context_handle(GstObject *context); /* CUcontext */
/* As gst_cuda_handle_set_context(): keeps the context in *mine, if that is NULL and it is of this device. */
gboolean gst_flux_kontext_cuda_context_take(GstElement *element, GstContext *context, gint device, GstObject **mine);
gboolean gst_flux_kontext_cuda_context_answer(GstElement *element, GstQuery *query, GstObject *context);
GstContext *gst_flux_kontext_cuda_context_share(GstObject *context); /* (transfer full) */

/* ---- Pools ---- */

/* A pool for frames of these caps; *size: of its buffers, whose rows are padded. (transfer full); NULL: refused. */
GstBufferPool *gst_flux_kontext_cuda_pool_new(GstObject *context, GstCaps *caps, guint min_buffers, guint *size);
/* Whether it is such a pool, of this context. */
gboolean gst_flux_kontext_cuda_pool_is(GstBufferPool *pool, GstObject *context);

/* ---- Bytes for the CPU ---- */

/* All bytes of a buffer. Of CUDA memory a copy, made by the driver: libgstcuda 1.22 maps only as many bytes of a row as
 * the first plane has, which of I420 with an odd number of rows is not the third plane. */
typedef struct {
  guint8 *data;
  gsize size;
  GstMapInfo map;
  gpointer context; /* CUcontext of CUDA memory; NULL: the bytes are the buffer's own */
  gboolean written;
} GstFluxKontextBytes;

/* write: for writing alone, all of it. FALSE sets error: GST_STREAM_ERROR_FORMAT, FK_ERROR_MEMORY or FK_ERROR_DEVICE.
 */
gboolean gst_flux_kontext_bytes_open(GstFluxKontextBytes *bytes, GstBuffer *buffer, gboolean write, GError **error);
/* Always closes. keep: what was written goes to the buffer; FALSE sets error where it does not. */
gboolean gst_flux_kontext_bytes_close(GstFluxKontextBytes *bytes, GstBuffer *buffer, gboolean keep, GError **error);

/* ---- Pictures ---- */

/* A buffer of CUDA memory, mapped for the device. Zero-initialised is none. It may not be moved: an FkImage points into
 * it. */
typedef struct {
  GstBuffer *buffer; /* (nullable): none */
  GstMapInfo map;
  gboolean written;
  gpointer home, away; /* CUcontexts: of the engine, of the memory */
  guint64 copy;        /* address of the memory's copy in `home`; 0: none, the two are one */
  FkPlanes planes;
} GstFluxKontextPicture;

/* Maps a buffer whose caps are `info` and makes *image of it, for an engine whose CUcontext is `engine` (NULL: any). A
 * written one is set to 0 first. Memory of another context or device is copied on the device. FALSE sets error, as the
 * functions of gstfluxkontextframe.h, or FK_ERROR_DEVICE. */
gboolean gst_flux_kontext_picture_open(GstFluxKontextPicture *picture, const GstVideoInfo *info, GstBuffer *buffer,
                                       gpointer engine, gboolean write, FkImage *image, GError **error);
/* Brings what was written to the buffer. FALSE sets error. */
gboolean gst_flux_kontext_picture_finish(GstFluxKontextPicture *picture, GError **error);
/* Unmaps and forgets. */
void gst_flux_kontext_picture_clear(GstFluxKontextPicture *picture);

G_END_DECLS

#endif
