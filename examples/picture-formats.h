/* SPDX-License-Identifier: Apache-2.0 */
/* The two formats of picture.h, to memory. Errors are sentences in `message`. */
#ifndef PICTURE_FORMATS_H
#define PICTURE_FORMATS_H

#include <fk.h>

enum { PICTURE_MESSAGE = 256, PICTURE_QUALITY = 95 };

/* (transfer full): *data, free(); NULL where memory is missing. */
bool picture_png_write(const FkImage *image, guint8 **data, gsize *bytes, char *message);
/* Of 3 channels. quality: 0 to 100 */
bool picture_jpeg_write(const FkImage *image, int quality, guint8 **data, gsize *bytes, char *message);

#endif
