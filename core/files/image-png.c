/* SPDX-License-Identifier: Apache-2.0 */
/* PNG by libpng's own interface: the simplified one applies gAMA. See image-file.h. */
#include "image-file.h"

#include <png.h>
#include <string.h>

static void on_error(png_structp png, png_const_charp text) {
  g_strlcpy(png_get_error_ptr(png), text, FK_IMAGE_MESSAGE);
  png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text) {
  (void)png;
  (void)text;
}

static void take(png_structp png, png_bytep to, size_t bytes) {
  FkImageFile *file = png_get_io_ptr(png);
  if (bytes > file->bytes - file->at) png_error(png, "the file ends too early");
  memcpy(to, file->data + file->at, bytes);
  file->at += bytes;
}

/* Whatever the file holds becomes 8-bit RGB or RGBA; no png_set_gamma, so values stay. */
static void widen(png_structp png, png_infop info) {
  png_set_expand(png);
  png_set_strip_16(png);
  png_set_gray_to_rgb(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
}

static void orientation(png_structp png, png_infop info, FkImageFile *file) {
  png_uint_32 bytes;
  png_bytep exif;
  if (png_get_eXIf_1(png, info, &bytes, &exif)) file->orientation = fk_image_file_orientation(exif, bytes);
}

/* libpng comes back here by longjmp; nothing that changes is kept in a local variable. */
static bool decode(png_structp png, png_infop info, FkImageFile *file) {
  if (setjmp(png_jmpbuf(png))) return false;
  png_set_user_limits(png, FK_IMAGE_SIDE, FK_IMAGE_SIDE);
  png_set_read_fn(png, file, take);
  png_read_info(png, info);
  widen(png, info);
  orientation(png, info, file);
  if (!fk_image_file_allocate(file, png_get_image_width(png, info), png_get_image_height(png, info),
                              png_get_channels(png, info)))
    return false;
  for (int pass = png_get_interlace_type(png, info) == PNG_INTERLACE_ADAM7 ? 7 : 1; pass > 0; pass--)
    for (int y = 0; y < file->height; y++) png_read_row(png, file->pixels + (size_t)y * file->stride, NULL);
  png_read_end(png, info);
  orientation(png, info, file); /* the chunk may also stand behind the pixels */
  return true;
}

bool fk_image_file_png(FkImageFile *file) {
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, file->message, on_error, on_warning);
  png_infop info = png ? png_create_info_struct(png) : NULL;
  if (!info) g_strlcpy(file->message, "too little memory", FK_IMAGE_MESSAGE);
  const bool ok = info && decode(png, info, file);
  png_destroy_read_struct(&png, &info, NULL);
  return ok;
}
