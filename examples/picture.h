/* SPDX-License-Identifier: Apache-2.0 */
/* PNG and JPEG files as the reference sees them (diffusers' load_image, by Pillow): the raw values of the file, without
 * any gamma or colour profile; 16 bits cut to the upper 8; grey and palettes widened to RGB; turned as its EXIF
 * orientation says. The element gets the same values from pngdec and jpegdec. */
#ifndef PICTURE_H
#define PICTURE_H

#include <fk.h>

/* PNG or JPEG by content. 8-bit RGB, or RGBA where the file has transparency, rows without gaps; (transfer full):
 * image->data, g_free. */
bool picture_read(const char *path, FkImage *image, GError **error);
/* The same of a file in memory. name: for the message. */
bool picture_decode(const char *name, const guint8 *data, gsize bytes, FkImage *image, GError **error);
/* May pictures with (alpha) or without transparency be written under this name? Only its end counts: .png, and .jpg or
 * .jpeg without alpha. */
bool picture_check_name(const char *path, bool alpha, GError **error);
/* Format by the name; JPEG at quality 95 without subsampling. */
bool picture_write(const char *path, const FkImage *image, GError **error);

#endif
