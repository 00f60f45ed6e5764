/* SPDX-License-Identifier: Apache-2.0 */
/* The two formats of picture.h, from and to memory. Errors are sentences in `message`. */
#ifndef PICTURE_FORMATS_H
#define PICTURE_FORMATS_H

#include <fk.h>

enum { PICTURE_MESSAGE = 256, PICTURE_SIDE = 65535, PICTURE_QUALITY = 95 };

/* A file while it is read. On failure the caller frees image.data all the same. */
typedef struct {
  const guint8 *data;
  gsize bytes, at;
  FkImage image;
  int orientation; /* of EXIF, 1 to 8; 1: as it is */
  char message[PICTURE_MESSAGE];
} PictureFile;

bool picture_png_read(PictureFile *file);
bool picture_jpeg_read(PictureFile *file);
/* (transfer full): *data, free(); NULL where memory is missing. */
bool picture_png_write(const FkImage *image, guint8 **data, gsize *bytes, char *message);
/* Of 3 channels. quality: 0 to 100 */
bool picture_jpeg_write(const FkImage *image, int quality, guint8 **data, gsize *bytes, char *message);
/* Takes the pixels' memory; false with a message. */
bool picture_allocate(PictureFile *file, guint width, guint height, int channels);
/* The orientation of a TIFF directory (what follows "Exif\0\0" in a JPEG); 1 where there is none. */
int picture_exif_orientation(const guint8 *tiff, gsize bytes);

#endif
