/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures by content and by name, and their orientation; see picture.h. */
#include "picture.h"

#include "picture-formats.h"
#include "tool.h"

#include <stdlib.h>
#include <string.h>

enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, ENTRY = 12 };

static guint number(const guint8 *p, int bytes, bool little) {
  guint value = 0;
  for (int i = 0; i < bytes; i++) value = value << 8 | p[little ? bytes - 1 - i : i];
  return value;
}

int picture_exif_orientation(const guint8 *tiff, gsize bytes) {
  if (bytes < 8 || (memcmp(tiff, "II*\0", 4) && memcmp(tiff, "MM\0*", 4))) return 1;
  const bool little = *tiff == 'I';
  const gsize at = number(tiff + 4, 4, little);
  if (at > bytes - 2) return 1;
  const guint entries = number(tiff + at, 2, little);
  for (guint i = 0; i < entries && at + 2 + (i + 1) * ENTRY <= bytes; i++) {
    const guint8 *entry = tiff + at + 2 + (gsize)i * ENTRY;
    if (number(entry, 2, little) != TAG_ORIENTATION || number(entry + 2, 2, little) != TYPE_SHORT) continue;
    const guint value = number(entry + 8, 2, little);
    return value >= 1 && value <= 8 ? (int)value : 1;
  }
  return 1;
}

bool picture_allocate(PictureFile *file, guint width, guint height, int channels) {
  if (!width || !height || width > PICTURE_SIDE || height > PICTURE_SIDE) {
    g_snprintf(file->message, PICTURE_MESSAGE, "%ux%u: sides go from 1 to %d", width, height, PICTURE_SIDE);
    return false;
  }
  file->image = (FkImage){.width = (int)width, .height = (int)height, .channels = channels};
  file->image.stride = (size_t)width * (size_t)channels;
  file->image.data = g_try_malloc(file->image.stride * height);
  if (!file->image.data) g_snprintf(file->message, PICTURE_MESSAGE, "%ux%u: too little memory", width, height);
  return file->image.data;
}

/* Rows and columns as they are to be seen. Orientations from 5 on exchange the axes; then x or y runs backwards. */
static bool turn(PictureFile *file) {
  const FkImage from = file->image;
  const int o = file->orientation;
  const bool swap = o >= 5, back_x = o == 2 || o == 3 || o == 7 || o == 8,
             back_y = o == 3 || o == 4 || o == 6 || o == 7;
  if (o == 1) return true;
  file->image.data = NULL;
  const bool ok = picture_allocate(file, (guint)(swap ? from.height : from.width),
                                   (guint)(swap ? from.width : from.height), from.channels);
  for (int y = 0; ok && y < file->image.height; y++)
    for (int x = 0; x < file->image.width; x++) {
      const int column = swap ? y : x, row = swap ? x : y;
      const int sx = back_x ? from.width - 1 - column : column, sy = back_y ? from.height - 1 - row : row;
      memcpy(file->image.data + (size_t)y * file->image.stride + (size_t)(x * from.channels),
             from.data + (size_t)sy * from.stride + (size_t)(sx * from.channels), (size_t)from.channels);
    }
  g_free(from.data);
  return ok;
}

bool picture_decode(const char *name, const guint8 *data, gsize bytes, FkImage *image, GError **error) {
  PictureFile file = {.data = data, .bytes = bytes, .orientation = 1};
  *image = (FkImage){0};
  const bool png = bytes >= 8 && !memcmp(data, "\x89PNG\r\n\x1a\n", 8);
  const bool jpeg = bytes >= 3 && !memcmp(data, "\xff\xd8\xff", 3);
  if (!png && !jpeg) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: neither PNG nor JPEG, which are the formats that are read",
                name);
    return false;
  }
  const bool ok = (png ? picture_png_read(&file) : picture_jpeg_read(&file)) && turn(&file);
  *image = file.image;
  if (ok) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: %s: %s", name, png ? "PNG" : "JPEG", file.message);
  g_clear_pointer(&image->data, g_free);
  return false;
}

bool picture_read(const char *path, FkImage *image, GError **error) {
  g_autofree char *data = NULL;
  gsize bytes;
  *image = (FkImage){0};
  return g_file_get_contents(path, &data, &bytes, error) &&
         picture_decode(path, (const guint8 *)data, bytes, image, error);
}

static bool ends(const char *path, const char *end) {
  const size_t a = strlen(path), b = strlen(end);
  return a > b && !g_ascii_strcasecmp(path + a - b, end);
}

static bool is_jpeg(const char *path) {
  return ends(path, ".jpg") || ends(path, ".jpeg");
}

bool picture_check_name(const char *path, bool alpha, GError **error) {
  if (ends(path, ".png") || (is_jpeg(path) && !alpha)) return true;
  if (is_jpeg(path))
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: JPEG has no transparency, which the picture has; use .png",
                path);
  else
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: the name says the format: expected .png, .jpg or .jpeg",
                path);
  return false;
}

bool picture_write(const char *path, const FkImage *image, GError **error) {
  char message[PICTURE_MESSAGE] = "";
  guint8 *data = NULL;
  gsize bytes = 0;
  if (!picture_check_name(path, image->channels == 4, error)) return false;
  const bool encoded = is_jpeg(path) ? picture_jpeg_write(image, PICTURE_QUALITY, &data, &bytes, message)
                                     : picture_png_write(image, &data, &bytes, message);
  if (!encoded) g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: %s", path, message);
  const bool ok = encoded && tool_write(path, data, bytes, error);
  free(data);
  return ok;
}
