/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures in memory: PNG, JPEG and, where libwebp was there, WebP; by their first bytes, never by a name. */
#ifndef MEDIA_H
#define MEDIA_H

#include "failure.h"

typedef enum { MEDIA_NONE, MEDIA_PNG, MEDIA_JPEG, MEDIA_WEBP } MediaFormat;

/* How a picture gets another size: its middle in the new aspect ratio, or all of it. */
typedef enum { MEDIA_CROP, MEDIA_STRETCH } MediaFit;

enum { MEDIA_SIDE = 16384 };

/* "png", "jpeg", "webp"; MEDIA_NONE for others and for formats that this build has not. */
MediaFormat media_format(const char *name);
const char *media_name(MediaFormat format);
const char *media_type(MediaFormat format); /* "image/png" */
/* Size and format from the headers alone; no pixel is decoded, whatever the file declares. param: for the message. */
bool media_probe(GBytes *file, const char *param, gint64 max_pixels, int *width, int *height, Failure *f);
/* As fk_image_read. (transfer full): image->data, g_free. */
bool media_decode(GBytes *file, const char *param, FkImage *image, Failure *f);
/* compression: 0 to 100, quality of JPEG and WebP; -1: JPEG 95, WebP without loss. (transfer full, nullable) */
GBytes *media_encode(const FkImage *image, MediaFormat format, int compression, Failure *f);
/* Replaces the pixels by those of another size: a triangle filter as wide as the scale, like Pillow's BILINEAR. */
bool media_fit(FkImage *image, int width, int height, MediaFit fit, Failure *f);
/* SHA-256 of the rows without gaps, as in a manifest. (transfer full) */
char *media_hash(const FkImage *image);
/* Base64 or a data URL of it. NULL: it is neither. (transfer full) */
GBytes *media_from_base64(const char *text);

#endif
