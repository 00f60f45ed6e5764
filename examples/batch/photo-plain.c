/* SPDX-License-Identifier: Apache-2.0 */
/* Photographs where libvips is not there: PNG and JPEG, of which nothing but the pixels is kept. */
#include "photo.h"

#include "../picture-formats.h"
#include "../picture.h"

#include <stdlib.h>
#include <string.h>

bool photo_start(const char *program, GError **error) {
  (void)program;
  (void)error;
  return true;
}

void photo_clear(Photo *photo) {
  g_clear_pointer(&photo->image.data, g_free);
  if (photo->notes) g_string_free(photo->notes, TRUE);
  photo->notes = NULL;
}

bool photo_decode(const char *name, const guint8 *data, gsize bytes, gint64 max_pixels, Photo *photo, GError **error) {
  *photo = (Photo){.format = bytes && *data == 0x89 ? "png" : "jpeg", .notes = g_string_new(NULL)};
  if (!fk_image_decode(name, data, bytes, &photo->image, error)) return false;
  const gint64 pixels = (gint64)photo->image.width * photo->image.height;
  if (pixels <= max_pixels) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
              "%s: %dx%d: more than the %" G_GINT64_FORMAT " pixels of --max-pixels", name, photo->image.width,
              photo->image.height, max_pixels);
  return false;
}

bool photo_size(const char *name, const guint8 *data, gsize bytes, int *width, int *height, GError **error) {
  FkImage image;
  if (!fk_image_decode(name, data, bytes, &image, error)) return false;
  *width = image.width;
  *height = image.height;
  g_free(image.data);
  return true;
}

bool photo_check_name(const char *name, bool alpha, GError **error) {
  return picture_check_name(name, alpha, error);
}

bool photo_encode(const char *name, const FkImage *image, const Photo *like, int quality, guint8 **data, gsize *bytes,
                  GError **error) {
  char message[PICTURE_MESSAGE] = "";
  guint8 *encoded = NULL;
  (void)like;
  if (!picture_check_name(name, image->channels == 4, error)) return false;
  const bool png = !g_ascii_strcasecmp(name + strlen(name) - 4, ".png");
  const bool ok = png ? picture_png_write(image, &encoded, bytes, message)
                      : picture_jpeg_write(image, quality, &encoded, bytes, message);
  *data = ok ? g_memdup2(encoded, *bytes) : NULL;
  free(encoded);
  if (!ok) g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: %s", name, message);
  return ok;
}
