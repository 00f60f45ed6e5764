/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes the model works at (spec 2.1, 2.2) and the 8-bit Lanczos resize of Pillow 13 (spec 2.3). libc and libm only.
 *
 * Images are interleaved 8-bit rows, `stride` bytes apart. All sides are positive. */
#ifndef FK_IMAGE_H
#define FK_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Sides of images the model sees are multiples of this: 8 of the VAE times 2 of the latent packing. */
#define FK_SIZE_MULTIPLE 16

/* Area of the model that the list of preferred sizes belongs to. */
#define FK_SIZE_PREFERRED_AREA (1024 * 1024)

/* input: work at the input's size where the model can, else at its aspect ratio. native: at a preferred size. */
typedef enum { FK_SIZE_INPUT, FK_SIZE_NATIVE, FK_SIZE_MODES } FkSizeMode;

/* Aspect ratio of w x h at `max_area` pixels, sides rounded half to even, then down to multiples of 16, at least 16. */
void fk_size_target(int w, int h, int64_t max_area, int *tw, int *th);

/* The size a reference image is brought to. model_area is the square of vae.sample_size: for the 1 MP model the entry
 * of the 17 preferred sizes nearest in aspect, for others the square of that area. */
void fk_size_preferred(int w, int h, int64_t model_area, int *tw, int *th);

/* The size one edit of a w x h frame works at. FK_SIZE_INPUT: w x h itself if both sides are multiples of 16 and
 * max_area / 2 <= w * h <= 1.1 * max_area, else fk_size_target. FK_SIZE_NATIVE: fk_size_preferred (max_area: the
 * model's own area). */
void fk_size_plan(FkSizeMode mode, int w, int h, int64_t max_area, int *mw, int *mh);

/* Resizes src (sw x sh) to dst (dw x dh) with the bytes of Pillow 13's Image.resize(size, LANCZOS); channels 1, 3 or 4,
 * each filtered for itself (no premultiplication by alpha). src and dst do not overlap. False: out of memory, dst
 * untouched. Errors of shape are assertions. */
bool fk_image_resize_lanczos(uint8_t *dst, int dw, int dh, size_t dst_stride, const uint8_t *src, int sw, int sh,
                             size_t src_stride, int channels);
/* The same with Pillow's BILINEAR, whose weights are not negative: no overshoot. */
bool fk_image_resize_triangle(uint8_t *dst, int dw, int dh, size_t dst_stride, const uint8_t *src, int sw, int sh,
                              size_t src_stride, int channels);

/* For who resizes elsewhere with the same bytes: columns and rows apart, rounded to bytes between, sides that do not
 * change left out, rows first where this says so. */
typedef enum { FK_FILTER_LANCZOS, FK_FILTER_TRIANGLE } FkFilter;
bool fk_image_rows_first(int dw, int dh, int sw, int sh);
/* Output pixel i is the sum over k < count[i] of weight[i * taps + k] * input[first[i] + k], of 2^22. */
typedef struct {
  int taps;
  int32_t *first, *count, *weight;
} FkImageAxis;
bool fk_image_axis_init(FkImageAxis *axis, FkFilter filter, int in, int out); /* false: out of memory, *axis is zero */
void fk_image_axis_clear(FkImageAxis *axis);

#endif
