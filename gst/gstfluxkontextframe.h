/* SPDX-License-Identifier: Apache-2.0 */
/* Pixels between GstBuffer and FkImage. Here is every access to a buffer's memory; no element state. */
#ifndef GST_FLUX_KONTEXT_FRAME_H
#define GST_FLUX_KONTEXT_FRAME_H

#include <gst/video/video.h>

#include "fk.h"

G_BEGIN_DECLS

/* One negotiated format and the way to the engine's R G B (A) and back. Zero-initialised is empty. */
typedef struct {
  GstVideoInfo info;   /* of the caps: the only source of width, height and format */
  GstVideoInfo rgb;    /* same size in RGB, or RGBA where info has alpha: what the engine takes */
  GstVideoInfo middle; /* what the converters make and take (gstfluxkontextpixels.h) */
  GstVideoConverter *to_middle, *from_middle; /* NULL: the caps' format is what the engine takes */
  gboolean cuda;                              /* the caps say CUDA memory; set behind gst_flux_kontext_format_init */
} GstFluxKontextFormat;

/* FALSE where libgstvideo has no conversion; *format is then empty. */
gboolean gst_flux_kontext_format_init(GstFluxKontextFormat *format, const GstVideoInfo *info);
void gst_flux_kontext_format_clear(GstFluxKontextFormat *format);

/* Errors of the functions below: GST_STREAM_ERROR_FORMAT for a buffer whose layout does not fit its memory or the caps,
 * FK_ERROR_MEMORY for too little memory, which a frame's size may ask for. */

/* Copies the buffer's pixels into a new image (free with gst_flux_kontext_image_clear). The size is the caps'; strides
 * and offsets are the buffer's and are checked against its memory. */
gboolean gst_flux_kontext_format_read(const GstFluxKontextFormat *format, GstBuffer *buffer, FkImage *image,
                                      GError **error);
/* The reverse into a writable buffer of the same caps; image as gst_flux_kontext_format_new_image makes it. Bytes of
 * the buffer that are no pixels (between rows, planes, and behind them) become 0. */
gboolean gst_flux_kontext_format_write(const GstFluxKontextFormat *format, const FkImage *image, GstBuffer *buffer,
                                       GError **error);
/* The same for the result of a frame under a mask: what is not edited has the bytes of `in`, the frame's buffer, which
 * gst_flux_kontext_format_read made `before` of. */
gboolean gst_flux_kontext_format_write_kept(const GstFluxKontextFormat *format, const FkImage *image,
                                            const FkImage *before, GstBuffer *in, GstBuffer *out, GError **error);
gboolean gst_flux_kontext_format_new_image(const GstFluxKontextFormat *format, FkImage *image, GError **error);
void gst_flux_kontext_image_clear(FkImage *image);
/* The buffer's bytes in new memory laid out as `info`, with the checks of gst_flux_kontext_format_read. NULL sets
 * error. */
guint8 *gst_flux_kontext_frame_bytes(const GstVideoInfo *info, GstBuffer *buffer, GError **error);

/* Scales a buffer of one format into one of another (on-error=passthrough where the sizes differ). */
gboolean gst_flux_kontext_format_scale(const GstFluxKontextFormat *from, GstBuffer *in, const GstFluxKontextFormat *to,
                                       GstBuffer *out, GError **error);

G_END_DECLS

#endif
