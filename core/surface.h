/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures in the memory of the engine's device (FK_MEMORY_DEVICE): what is taken from them, and results given to them,
 * by ops, with the bytes that pixels in host memory give. */
#ifndef FK_SURFACE_H
#define FK_SURFACE_H

#include "image.h"
#include "job.h"

/* Rows of bytes that a picture lies in, one for each plane. */
typedef struct {
  uint8_t *data;
  size_t stride, row; /* bytes between rows, and of a row */
  int rows;
} FkSpan;

/* How many; 0: no picture, or one that fk_surface_check refuses. */
int fk_surface_spans(const FkImage *image, FkSpan span[4]);

/* FK_ERROR_OPTION_BAD: a picture of a call lies where this backend, or this part of a job, takes none, or is described
 * wrongly. be NULL: what works on pixels of host memory alone. reads: the input is read. */
bool fk_surface_check(FkBackend *be, const FkJob *jobs, int n, bool reads, GError **error);

/* y [H, W, n] bytes = values first.. of R G B A of a part of a picture, brought to this size. A picture without alpha
 * is opaque. FK_ERROR_MEMORY */
bool fk_surface_take(const FkEdit *edit, const FkImage *image, FkMaskBox part, int first, FkTensor y, GError **error);
/* Alpha, mask and the picture around a region, into the job's result. pixels [H, W, 3] bytes, of the size at which the
 * model works. FK_ERROR_MEMORY */
bool fk_surface_give(const FkEdit *edit, const FkJob *job, FkTensor pixels, GError **error);
/* y = x [H, W, n] bytes at another size, as fk_image_resize_*. FK_ERROR_MEMORY */
bool fk_surface_resize(const FkEdit *edit, FkFilter filter, FkTensor y, FkTensor x, GError **error);
/* What of a frame's latents is edited, [tokens, 4 channels] float32, as fk_extras_tokens. FK_ERROR_MEMORY */
bool fk_surface_tokens(const FkEdit *edit, const FkJob *job, FkTensor tokens, GError **error);
/* The frame's own bytes as its result. */
void fk_surface_leave(FkBackend *be, const FkJob *job);
/* What of the sizes of pictures the memory of an edit depends on; "" where they are in host memory. (transfer full) */
char *fk_surface_shape(const FkEdit *edit);

#endif
