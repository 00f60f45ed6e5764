/* SPDX-License-Identifier: Apache-2.0 */
/* Photographs from and to memory, with what a file says about them. By libvips: PNG, JPEG, WebP, TIFF, HEIF and AVIF,
 * and the first frame of a GIF; without it, by the reader of picture.h: PNG and JPEG alone.
 *
 * Pixels are those that picture.h gives: values of the file as they are, turned as EXIF says, 16 bits cut to the upper
 * 8, grey widened. CMYK and other colours that are not RGB are converted to sRGB, by their profile where there is one.
 * Profile, EXIF and XMP go over to the result; an embedded preview does not, for it shows what was there before. */
#ifndef PHOTO_H
#define PHOTO_H

#include <fk.h>

typedef struct {
  FkImage image;      /* 3 or 4 channels, rows without gaps; owned */
  void *about;        /* what the file says, for photo_encode; owned; NULL without libvips */
  const char *format; /* "png", "jpeg", "webp", "tiff", "heif", "gif" */
  GString *notes;     /* what was converted or left out, a sentence each, separated by "; "; empty: nothing */
} Photo;

/* Once, before all else. program: argv[0] */
bool photo_start(const char *program, GError **error);
void photo_clear(Photo *photo);
/* name: of the file, for messages. max_pixels: more are refused before memory is taken for them. */
bool photo_decode(const char *name, const guint8 *data, gsize bytes, gint64 max_pixels, Photo *photo, GError **error);
/* Width and height as they will be seen, from the head of the file. */
bool photo_size(const char *name, const guint8 *data, gsize bytes, int *width, int *height, GError **error);
/* May pictures be written under this name? Only its end counts. alpha: with transparency. */
bool photo_check_name(const char *name, bool alpha, GError **error);
/* `image` in the format that the end of `name` says, with what is known about `like`. quality: 1 to 100, of formats
 * that lose. The same input gives the same bytes. (transfer full): *data, g_free */
bool photo_encode(const char *name, const FkImage *image, const Photo *like, int quality, guint8 **data, gsize *bytes,
                  GError **error);
/* Names that end so are taken from a folder. video: films, which the element edits. */
bool photo_is_picture(const char *name);
bool photo_is_video(const char *name);

#endif
