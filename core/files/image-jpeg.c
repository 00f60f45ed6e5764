/* SPDX-License-Identifier: Apache-2.0 */
/* JPEG by libjpeg with its defaults, which are Pillow's too: the accurate inverse DCT, smooth upsampling of the
 * colours. See image-file.h. */
#include "image-file.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

enum { EXIF_HEAD = 6 };

typedef struct {
  struct jpeg_error_mgr base; /* first: libjpeg has its address */
  jmp_buf back;
  char *message;
} Errors;

static void on_error(j_common_ptr jpeg) {
  Errors *errors = (Errors *)jpeg->err;
  char text[JMSG_LENGTH_MAX];
  jpeg->err->format_message(jpeg, text);
  g_strlcpy(errors->message, text, FK_IMAGE_MESSAGE);
  longjmp(errors->back, 1);
}

/* A file that ends too early is a warning to libjpeg, which fills the rest with grey. */
static void on_message(j_common_ptr jpeg, int level) {
  if (level < 0 && (jpeg->err->msg_code == JWRN_JPEG_EOF || jpeg->err->msg_code == JWRN_HIT_MARKER)) on_error(jpeg);
}

static struct jpeg_error_mgr *errors_init(Errors *errors, char *message) {
  jpeg_std_error(&errors->base);
  errors->base.error_exit = on_error;
  errors->base.emit_message = on_message;
  errors->message = message;
  return &errors->base;
}

static void orientation(const struct jpeg_decompress_struct *jpeg, FkImageFile *file) {
  for (jpeg_saved_marker_ptr m = jpeg->marker_list; m; m = m->next)
    if (m->marker == JPEG_APP0 + 1 && m->data_length > EXIF_HEAD && !memcmp(m->data, "Exif\0\0", EXIF_HEAD)) {
      file->orientation = fk_image_file_orientation(m->data + EXIF_HEAD, m->data_length - EXIF_HEAD);
      return;
    }
}

/* libjpeg comes back here by longjmp; nothing that changes is kept in a local variable. */
static bool decode(struct jpeg_decompress_struct *jpeg, Errors *errors, FkImageFile *file) {
  if (setjmp(errors->back)) return false;
  jpeg_create_decompress(jpeg);
  jpeg_mem_src(jpeg, file->data, file->bytes);
  jpeg_save_markers(jpeg, JPEG_APP0 + 1, 0xffff);
  jpeg_read_header(jpeg, TRUE);
  if (jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK) {
    g_strlcpy(file->message, "CMYK; expected RGB or grey", FK_IMAGE_MESSAGE);
    return false;
  }
  jpeg->out_color_space = JCS_RGB;
  orientation(jpeg, file);
  jpeg_start_decompress(jpeg);
  if (!fk_image_file_allocate(file, jpeg->output_width, jpeg->output_height, 3)) return false;
  while (jpeg->output_scanline < jpeg->output_height)
    jpeg_read_scanlines(jpeg, &(JSAMPROW){file->pixels + jpeg->output_scanline * file->stride}, 1);
  jpeg_finish_decompress(jpeg);
  return true;
}

bool fk_image_file_jpeg(FkImageFile *file) {
  struct jpeg_decompress_struct jpeg = {0};
  Errors errors;
  jpeg.err = errors_init(&errors, file->message);
  const bool ok = decode(&jpeg, &errors, file);
  jpeg_destroy_decompress(&jpeg);
  return ok;
}
