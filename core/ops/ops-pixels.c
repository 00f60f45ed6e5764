/* SPDX-License-Identifier: Apache-2.0 */
/* The op line (ops.h) for pixels as bytes: resizing, pictures that somebody else laid out, masks. libc only. */
#include "op.h"

/* Bytes of an image behind each other. */
static inline bool is_image(FkTensor t, int64_t height, int64_t width) {
  return t.dtype == FK_U8 && t.rank == 3 && t.ld == t.dim[2] && t.dim[0] == height && t.dim[1] == width;
}

void fk_op_resize(FkBackend *be, const FkResize *r) {
  assert(is_image(r->x, r->x.dim[0], r->x.dim[1]) && is_image(r->y, r->y.dim[0], r->y.dim[1]));
  assert(r->x.dim[2] == r->y.dim[2] && r->x.dim[r->rows] == r->y.dim[r->rows]);
  assert(is_index(r->first, r->y.dim[!r->rows]) && is_index(r->count, r->y.dim[!r->rows]));
  assert(r->weight.dtype == FK_I32 && r->weight.rank == 2 && r->weight.dim[0] == r->y.dim[!r->rows]);
  if (BEGIN(be, bytes_of(r->x) + bytes_of(r->y) + bytes_of(r->weight))) be->ops->resize(be, r);
}

void fk_op_frame_read(FkBackend *be, FkTensor y, const FkFrame *f, int left, int top, int first) {
  assert(is_image(y, y.dim[0], y.dim[1]) && first >= 0 && first + y.dim[2] <= 4);
  assert(left >= 0 && top >= 0 && left + y.dim[1] <= f->width && top + y.dim[0] <= f->height);
  if (BEGIN(be, 2 * bytes_of(y))) be->ops->frame_read(be, y, f, left, top, first);
}

void fk_op_frame_write(FkBackend *be, const FkFrame *f, FkTensor x) {
  assert(is_image(x, f->height, f->width) && x.dim[2] == f->channels);
  if (BEGIN(be, 2 * bytes_of(x))) be->ops->frame_write(be, f, x);
}

void fk_op_frame_keep(FkBackend *be, const FkFrame *to, const FkFrame *from, FkTensor before, FkTensor after) {
  assert(is_image(before, to->height, to->width) && is_image(after, to->height, to->width));
  assert(before.dim[2] == to->channels && after.dim[2] == to->channels);
  assert(from->width == to->width && from->height == to->height && from->depth == to->depth);
  if (BEGIN(be, 2 * bytes_of(before) + 2 * bytes_of(after))) be->ops->frame_keep(be, to, from, before, after);
}

void fk_op_mix(FkBackend *be, FkTensor y, FkTensor x, FkTensor fade) {
  assert(same_shape(x, y) && y.dtype == FK_U8 && x.dtype == FK_U8);
  assert(fade.dtype == FK_U8 && fade.rank == 1 && fade.dim[0] == fk_tensor_rows(y));
  if (BEGIN(be, 2 * bytes_of(y) + bytes_of(x))) be->ops->mix(be, y, x, fade);
}

static inline bool is_mask(FkTensor t) {
  return t.dtype == FK_U8 && t.rank == 3 && t.ld == 1 && t.dim[2] == 1;
}

void fk_op_invert(FkBackend *be, FkTensor y, FkTensor x) {
  assert(is_mask(x) && is_mask(y) && same_shape(x, y));
  if (BEGIN(be, bytes_of(x) + bytes_of(y))) be->ops->invert(be, y, x);
}

void fk_op_window(FkBackend *be, FkTensor y, FkTensor x, FkWindow window, int radius, bool columns) {
  assert(is_mask(x) && is_mask(y) && same_shape(x, y) && (!x.data || x.data != y.data) && radius >= 0);
  if (BEGIN(be, bytes_of(x) + bytes_of(y))) be->ops->window(be, y, x, window, radius, columns);
}

void fk_op_bounds(FkBackend *be, FkTensor y, FkTensor x) {
  assert(is_mask(x) && is_index(y, 4));
  if (BEGIN(be, bytes_of(x))) be->ops->bounds(be, y, x);
}

void fk_op_mask_tokens(FkBackend *be, FkTensor y, FkTensor x) {
  assert(is_mask(x) && x.dim[0] % 16 == 0 && x.dim[1] % 16 == 0);
  assert(y.dtype == FK_F32 && y.rank == 2 && y.dim[0] == x.dim[0] / 16 * (x.dim[1] / 16) && y.dim[1] % 4 == 0);
  if (BEGIN(be, bytes_of(y))) be->ops->mask_tokens(be, y, x);
}
