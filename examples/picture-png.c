/* SPDX-License-Identifier: Apache-2.0 */
/* PNG as it is written, by libpng. See picture.h. */
#include "picture-formats.h"

#include <png.h>
#include <stdlib.h>

bool picture_png_write(const FkImage *image, guint8 **data, gsize *bytes, char *message) {
  png_image png = {.version = PNG_IMAGE_VERSION,
                   .width = (png_uint_32)image->width,
                   .height = (png_uint_32)image->height,
                   .format = image->channels == 4 ? PNG_FORMAT_RGBA : PNG_FORMAT_RGB};
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png);
  *data = malloc(size);
  const bool ok =
      *data && png_image_write_to_memory(&png, *data, &size, 0, image->data, (png_int_32)image->stride, NULL);
  if (!ok) g_strlcpy(message, *data ? png.message : "too little memory", PICTURE_MESSAGE);
  *bytes = size;
  return ok;
}
