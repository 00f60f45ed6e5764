/* SPDX-License-Identifier: Apache-2.0 */
/* JPEG by libjpeg with its defaults, which are Pillow's too: the accurate inverse DCT, smooth upsampling of the
 * colours. See picture.h. */
#include "picture-formats.h"

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
  g_strlcpy(errors->message, text, PICTURE_MESSAGE);
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

static void orientation(const struct jpeg_decompress_struct *jpeg, PictureFile *file) {
  for (jpeg_saved_marker_ptr m = jpeg->marker_list; m; m = m->next)
    if (m->marker == JPEG_APP0 + 1 && m->data_length > EXIF_HEAD && !memcmp(m->data, "Exif\0\0", EXIF_HEAD)) {
      file->orientation = picture_exif_orientation(m->data + EXIF_HEAD, m->data_length - EXIF_HEAD);
      return;
    }
}

/* libjpeg comes back here by longjmp; nothing that changes is kept in a local variable. */
static bool decode(struct jpeg_decompress_struct *jpeg, Errors *errors, PictureFile *file) {
  if (setjmp(errors->back)) return false;
  jpeg_create_decompress(jpeg);
  jpeg_mem_src(jpeg, file->data, file->bytes);
  jpeg_save_markers(jpeg, JPEG_APP0 + 1, 0xffff);
  jpeg_read_header(jpeg, TRUE);
  if (jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK) {
    g_strlcpy(file->message, "CMYK; expected RGB or grey", PICTURE_MESSAGE);
    return false;
  }
  jpeg->out_color_space = JCS_RGB;
  orientation(jpeg, file);
  jpeg_start_decompress(jpeg);
  if (!picture_allocate(file, jpeg->output_width, jpeg->output_height, 3)) return false;
  while (jpeg->output_scanline < jpeg->output_height)
    jpeg_read_scanlines(jpeg, &(JSAMPROW){file->image.data + jpeg->output_scanline * file->image.stride}, 1);
  jpeg_finish_decompress(jpeg);
  return true;
}

bool picture_jpeg_read(PictureFile *file) {
  struct jpeg_decompress_struct jpeg = {0};
  Errors errors;
  jpeg.err = errors_init(&errors, file->message);
  const bool ok = decode(&jpeg, &errors, file);
  jpeg_destroy_decompress(&jpeg);
  return ok;
}

static bool encode(struct jpeg_compress_struct *jpeg, Errors *errors, const FkImage *image, int quality, guint8 **data,
                   unsigned long *bytes) {
  if (setjmp(errors->back)) return false;
  jpeg_create_compress(jpeg);
  jpeg_mem_dest(jpeg, data, bytes);
  jpeg->image_width = (JDIMENSION)image->width;
  jpeg->image_height = (JDIMENSION)image->height;
  jpeg->input_components = 3;
  jpeg->in_color_space = JCS_RGB;
  jpeg_set_defaults(jpeg);
  jpeg_set_quality(jpeg, quality, TRUE);
  jpeg->comp_info[0].h_samp_factor = jpeg->comp_info[0].v_samp_factor = 1;
  jpeg_start_compress(jpeg, TRUE);
  while (jpeg->next_scanline < jpeg->image_height)
    jpeg_write_scanlines(jpeg, &(JSAMPROW){image->data + jpeg->next_scanline * image->stride}, 1);
  jpeg_finish_compress(jpeg);
  return true;
}

bool picture_jpeg_write(const FkImage *image, int quality, guint8 **data, gsize *bytes, char *message) {
  struct jpeg_compress_struct jpeg = {0};
  Errors errors;
  unsigned long size = 0;
  jpeg.err = errors_init(&errors, message);
  *data = NULL;
  const bool ok = encode(&jpeg, &errors, image, quality, data, &size);
  jpeg_destroy_compress(&jpeg);
  *bytes = size;
  return ok;
}
