/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures by content, and their orientation; see image-file.h. */
#include "image-file.h"

#include "fk-error.h"

#include <string.h>

enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, ENTRY = 12 };

static guint number(const uint8_t *p, int bytes, bool little) {
  guint value = 0;
  for (int i = 0; i < bytes; i++) value = value << 8 | p[little ? bytes - 1 - i : i];
  return value;
}

int fk_image_file_orientation(const uint8_t *tiff, size_t bytes) {
  if (bytes < 8 || (memcmp(tiff, "II*\0", 4) && memcmp(tiff, "MM\0*", 4))) return 1;
  const bool little = *tiff == 'I';
  const size_t at = number(tiff + 4, 4, little);
  if (at > bytes - 2) return 1;
  const guint entries = number(tiff + at, 2, little);
  for (guint i = 0; i < entries && at + 2 + (i + 1) * ENTRY <= bytes; i++) {
    const uint8_t *entry = tiff + at + 2 + (size_t)i * ENTRY;
    if (number(entry, 2, little) != TAG_ORIENTATION || number(entry + 2, 2, little) != TYPE_SHORT) continue;
    const guint value = number(entry + 8, 2, little);
    return value >= 1 && value <= 8 ? (int)value : 1;
  }
  return 1;
}

bool fk_image_file_allocate(FkImageFile *file, unsigned width, unsigned height, int channels) {
  if (!width || !height || width > FK_IMAGE_SIDE || height > FK_IMAGE_SIDE) {
    g_snprintf(file->message, FK_IMAGE_MESSAGE, "%ux%u: sides go from 1 to %d", width, height, FK_IMAGE_SIDE);
    return false;
  }
  file->width = (int)width;
  file->height = (int)height;
  file->channels = channels;
  file->stride = (size_t)width * (size_t)channels;
  file->pixels = g_try_malloc(file->stride * height);
  if (!file->pixels) g_snprintf(file->message, FK_IMAGE_MESSAGE, "%ux%u: too little memory", width, height);
  return file->pixels;
}

/* Rows and columns as they are to be seen. Orientations from 5 on exchange the axes; then x or y runs backwards. */
static bool turn(FkImageFile *file) {
  const FkImageFile from = *file;
  const int o = file->orientation;
  const bool swap = o >= 5, back_x = o == 2 || o == 3 || o == 7 || o == 8,
             back_y = o == 3 || o == 4 || o == 6 || o == 7;
  if (o == 1) return true;
  file->pixels = NULL;
  const bool ok = fk_image_file_allocate(file, (unsigned)(swap ? from.height : from.width),
                                         (unsigned)(swap ? from.width : from.height), from.channels);
  for (int y = 0; ok && y < file->height; y++)
    for (int x = 0; x < file->width; x++) {
      const int column = swap ? y : x, row = swap ? x : y;
      const int sx = back_x ? from.width - 1 - column : column, sy = back_y ? from.height - 1 - row : row;
      memcpy(file->pixels + (size_t)y * file->stride + (size_t)(x * from.channels),
             from.pixels + (size_t)sy * from.stride + (size_t)(sx * from.channels), (size_t)from.channels);
    }
  g_free(from.pixels);
  return ok;
}

bool fk_image_file_decode(FkImageFile *file, const char *name, GError **error) {
  const bool png = file->bytes >= 8 && !memcmp(file->data, "\x89PNG\r\n\x1a\n", 8);
  const bool jpeg = file->bytes >= 3 && !memcmp(file->data, "\xff\xd8\xff", 3);
  file->orientation = 1;
  file->pixels = NULL;
  if (!png && !jpeg) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: neither PNG nor JPEG, which are the formats that are read",
                name);
    return false;
  }
  if ((png ? fk_image_file_png(file) : fk_image_file_jpeg(file)) && turn(file)) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: %s: %s", name, png ? "PNG" : "JPEG", file->message);
  g_clear_pointer(&file->pixels, g_free);
  return false;
}
