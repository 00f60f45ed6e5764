/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures by name; see picture.h. */
#include "picture.h"

#include "picture-formats.h"
#include "tool.h"

#include <stdlib.h>
#include <string.h>

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
  const bool ok = encoded && fk_file_write(path, data, bytes, error);
  free(data);
  return ok;
}
