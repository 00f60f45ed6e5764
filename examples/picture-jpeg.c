/* SPDX-License-Identifier: Apache-2.0 */
/* JPEG as it is written, by libjpeg. See picture.h. */
#include "picture-formats.h"

#include <setjmp.h>
#include <stdio.h>

#include <jpeglib.h>

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

static struct jpeg_error_mgr *errors_init(Errors *errors, char *message) {
  jpeg_std_error(&errors->base);
  errors->base.error_exit = on_error;
  errors->message = message;
  return &errors->base;
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
