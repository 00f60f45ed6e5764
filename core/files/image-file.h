/* SPDX-License-Identifier: Apache-2.0 */
/* PNG and JPEG files as the reference sees them (diffusers' load_image, by Pillow): the raw values of the file, without
 * any gamma or colour profile; 16 bits cut to the upper 8; grey and palettes widened to RGB; turned as its EXIF
 * orientation says. The element gets the same values from pngdec and jpegdec. */
#ifndef FK_IMAGE_FILE_H
#define FK_IMAGE_FILE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FK_IMAGE_MESSAGE = 256, FK_IMAGE_SIDE = 65535 };

/* A file while it is read. */
typedef struct {
  const uint8_t *data;
  size_t bytes, at;
  uint8_t *pixels; /* 8-bit RGB, or RGBA where the file has transparency */
  int width, height, channels;
  size_t stride;   /* rows without gaps */
  int orientation; /* of EXIF, 1 to 8; 1: as it is */
  char message[FK_IMAGE_MESSAGE];
} FkImageFile;

/* PNG or JPEG by content, from data and bytes. name: for the message. FK_ERROR_OPTION_BAD, with pixels NULL. (transfer
 * full): pixels, g_free. */
bool fk_image_file_decode(FkImageFile *file, const char *name, GError **error);

/* One format each. On failure pixels are to be freed all the same; `message` is a sentence. */
bool fk_image_file_png(FkImageFile *file);
bool fk_image_file_jpeg(FkImageFile *file);
/* Takes the pixels' memory; false with a message. */
bool fk_image_file_allocate(FkImageFile *file, unsigned width, unsigned height, int channels);
/* The orientation of a TIFF directory (what follows "Exif\0\0" in a JPEG); 1 where there is none. */
int fk_image_file_orientation(const uint8_t *tiff, size_t bytes);

#endif
