/* SPDX-License-Identifier: Apache-2.0 */
/* What a file's name says; see photo.h. */
#include "photo.h"

#include <string.h>

static bool ends(const char *name, const char *const *list) {
  const char *dot = strrchr(name, '.');
  for (; dot && *list; list++)
    if (!g_ascii_strcasecmp(dot + 1, *list)) return true;
  return false;
}

bool photo_is_picture(const char *name) {
  static const char *const list[] = {"png",  "jpg", "jpeg", "jpe",  "webp", "tif",
                                     "tiff", "gif", "heic", "heif", "avif", NULL};
  return ends(name, list);
}

bool photo_is_video(const char *name) {
  static const char *const list[] = {"mp4", "mkv", "webm", "mov", "avi", "m4v", "mpg", "mpeg", "ts", "ogv", NULL};
  return ends(name, list);
}
