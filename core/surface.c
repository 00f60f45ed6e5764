/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures in device memory in an edit; see surface.h. What they are is checked in surface-check.c, the arithmetic of
 * their pixels is the op line's (ops/frame.h). Order and roundings are those of the host's way: colour and alpha
 * resized apart, then the mask, then the picture around a region, and last the layout. */
#include "surface.h"

#include "extras.h"

#include <string.h>

static bool no_memory(GError **error, const char *what) {
  g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: no host memory for tables of a picture in device memory", what);
  return false;
}

static FkFrame frame_of(const FkImage *i) {
  FkFrame f = {.width = i->width, .height = i->height, .channels = i->channels, .depth = 8};
  const FkPlanes *p = i->planes;
  if (!p) {
    f.data[0] = i->data;
    f.stride[0] = i->stride;
    for (int s = 0; s < i->channels; s++) f.sample[s] = (FkFrameSample){0, s, i->channels, 0, 0};
    return f;
  }
  for (int k = 0; k < 4; k++) {
    const FkSample *s = &p->sample[k];
    f.data[k] = p->data[k];
    f.stride[k] = p->stride[k];
    f.sample[k] = (FkFrameSample){s->plane, s->offset, s->step, s->shift_x, s->shift_y};
  }
  f.depth = p->depth;
  f.ycbcr = p->ycbcr;
  f.limited = p->limited;
  f.kr = p->kr;
  f.kb = p->kb;
  f.block_up = p->up == FK_CHROMA_BLOCK;
  f.block_down = p->down == FK_CHROMA_BLOCK;
  f.cosited_x = p->cosited_x;
  f.cosited_y = p->cosited_y;
  return f;
}

/* ---- Resizing ---- */

static FkTensor bytes_3d(const FkEdit *e, int64_t height, int64_t width, int64_t n) {
  return fk_arena_3d(e->arena, FK_U8, height, width, n);
}

static FkTensor numbers(const FkEdit *e, int64_t n, const int32_t *host) {
  FkTensor t = fk_arena_1d(e->arena, FK_I32, n);
  fk_op_upload(e->be, t, host);
  return t;
}

/* One axis. The tables go with the arena's mark, which may be before the device has read them: ops that reuse the
 * memory come later in its order. */
static void pass(const FkEdit *e, FkTensor y, FkTensor x, bool rows, const FkImageAxis *axis) {
  const int64_t n = y.dim[!rows];
  FkResize r = {.x = x, .y = y, .rows = rows};
  r.first = numbers(e, n, axis->first);
  r.count = numbers(e, n, axis->count);
  r.weight = fk_arena_2d(e->arena, FK_I32, n, axis->taps);
  fk_op_upload(e->be, r.weight, axis->weight);
  fk_op_resize(e->be, &r);
}

static bool filtered(const FkEdit *e, FkFilter filter, FkTensor y, FkTensor x, bool rows, GError **error) {
  FkImageAxis axis;
  if (!fk_image_axis_init(&axis, filter, (int)x.dim[!rows], (int)y.dim[!rows])) return no_memory(error, "resize");
  pass(e, y, x, rows, &axis);
  fk_image_axis_clear(&axis);
  return true;
}

bool fk_surface_resize(const FkEdit *e, FkFilter filter, FkTensor y, FkTensor x, GError **error) {
  const bool tall = x.dim[0] != y.dim[0], wide = x.dim[1] != y.dim[1];
  if (!tall && !wide) {
    fk_op_copy(e->be, fk_tensor_flat(y), fk_tensor_flat(x));
    return true;
  }
  if (!tall || !wide) return filtered(e, filter, y, x, tall, error);
  const bool rows = fk_image_rows_first((int)y.dim[1], (int)y.dim[0], (int)x.dim[1], (int)x.dim[0]);
  FkTensor middle = bytes_3d(e, rows ? y.dim[0] : x.dim[0], rows ? x.dim[1] : y.dim[1], x.dim[2]);
  return filtered(e, filter, middle, x, rows, error) && filtered(e, filter, y, middle, !rows, error);
}

static bool resize(const FkEdit *e, FkTensor y, FkTensor x, GError **error) {
  return fk_surface_resize(e, FK_FILTER_LANCZOS, y, x, error);
}

bool fk_surface_take(const FkEdit *e, const FkImage *image, FkMaskBox part, int first, FkTensor y, GError **error) {
  const FkFrame f = frame_of(image);
  const size_t mark = fk_arena_mark(e->arena);
  if (part.w == y.dim[1] && part.h == y.dim[0]) {
    fk_op_frame_read(e->be, y, &f, part.x, part.y, first);
    return true;
  }
  FkTensor own = bytes_3d(e, part.h, part.w, y.dim[2]);
  fk_op_frame_read(e->be, own, &f, part.x, part.y, first);
  const bool ok = resize(e, y, own, error);
  fk_arena_reset(e->arena, mark);
  return ok;
}

/* ---- Results ---- */

/* Of the frame, or all of a picture that has none. */
static FkMaskBox region_of(const FkEdit *e, const FkImage *image) {
  return e->region.w ? e->region : (FkMaskBox){0, 0, image->width, image->height};
}

/* Colour and alpha side by side. */
static bool with_alpha(const FkEdit *e, const FkJob *job, FkMaskBox part, FkTensor y, FkTensor pixels, GError **error) {
  const bool made = e->tune->task == FK_TASK_GENERATE; /* there is no input: opaque */
  FkImage opaque = job->out;
  FkTensor colour = bytes_3d(e, y.dim[0], y.dim[1], 3), alpha = bytes_3d(e, y.dim[0], y.dim[1], 1);
  opaque.channels = 3;
  opaque.planes = NULL;
  if (made) part = (FkMaskBox){0, 0, opaque.width, opaque.height};
  if (!resize(e, colour, pixels, error) || !fk_surface_take(e, made ? &opaque : &job->in, part, 3, alpha, error))
    return false;
  fk_op_copy(e->be, fk_tensor_slice_cols(y, 0, 3), fk_tensor_flat(colour));
  fk_op_copy(e->be, fk_tensor_slice_cols(y, 3, 1), fk_tensor_flat(alpha));
  return true;
}

/* Value i of n is that of `from` at i * from / n. */
static bool nearest(const FkEdit *e, FkTensor y, FkTensor x, bool rows, GError **error) {
  const int64_t n = y.dim[!rows];
  g_autofree int32_t *table = g_try_new(int32_t, 3 * (size_t)n);
  if (!table) return no_memory(error, "region-keep");
  for (int64_t i = 0; i < n; i++) {
    table[i] = (int32_t)(i * x.dim[!rows] / n);
    table[n + i] = 1;
    table[2 * n + i] = 1 << FK_RESIZE_BITS;
  }
  pass(e, y, x, rows, &(FkImageAxis){1, table, table + n, table + 2 * n});
  return true;
}

/* fade [H, W, 1]: 255 for pixels of tokens that were edited, else 0; fk_extras_edited at the size of the tokens. */
static bool edited(const FkEdit *e, const FkJob *job, FkTensor fade, GError **error) {
  const int rows = e->height / 16, columns = e->width / 16;
  FkTensor tokens = bytes_3d(e, rows, columns, 1), wide = bytes_3d(e, rows, fade.dim[1], 1);
  g_autofree uint8_t *host = g_try_malloc0((size_t)rows * (size_t)columns);
  if (!host) return no_memory(error, "region-keep");
  if (!e->dry_run && !fk_extras_edited(job->result.region, rows, columns, columns, rows, host, error)) return false;
  fk_op_upload(e->be, tokens, host);
  return nearest(e, wide, tokens, false, error) && nearest(e, fade, wide, true, error);
}

/* A part of one of a frame's masks, which lie in device memory: y [h, w, 1]. */
static void cut(const FkEdit *e, const FkExtras *x, uint8_t *mask, FkMaskBox part, FkTensor y) {
  FkTensor from = fk_tensor_2d(mask + (size_t)part.y * (size_t)x->width + (size_t)part.x, FK_U8, part.h, part.w);
  from.ld = x->width;
  fk_op_copy(e->be, fk_tensor_2d(y.data, FK_U8, part.h, part.w), from);
}

bool fk_surface_tokens(const FkEdit *e, const FkJob *job, FkTensor tokens, GError **error) {
  const FkExtras *x = e->extras ? &e->extras[job - e->jobs] : NULL;
  const FkMaskBox part = region_of(e, &job->in);
  const size_t mark = fk_arena_mark(e->arena);
  FkTensor own = bytes_3d(e, part.h, part.w, 1), sized = bytes_3d(e, e->height, e->width, 1);
  if (x) cut(e, x, x->mask, part, own);
  const bool ok = resize(e, sized, own, error);
  fk_op_mask_tokens(e->be, tokens, sized);
  fk_arena_reset(e->arena, mark);
  return ok;
}

/* What is kept of the region's own pixels. */
static bool mix(const FkEdit *e, const FkJob *job, const FkExtras *x, FkMaskBox part, FkTensor after, FkTensor before,
                GError **error) {
  FkTensor fade = bytes_3d(e, part.h, part.w, 1), line = fk_tensor_1d(fade.data, FK_U8, (int64_t)part.w * part.h);
  if (e->tune->edited.keep) {
    if (!edited(e, job, fade, error)) return false;
    fk_op_mix(e->be, fk_tensor_flat(after), fk_tensor_flat(before), line);
  }
  if (!x || !x->mask) return true;
  cut(e, x, x->fade, part, fade);
  fk_op_mix(e->be, fk_tensor_flat(after), fk_tensor_flat(before), line);
  return true;
}

/* The region's pixels in those of the whole frame. */
static FkTensor around(const FkEdit *e, FkMaskBox part, FkTensor region, FkTensor frame) {
  FkTensor all = bytes_3d(e, frame.dim[0], frame.dim[1], frame.dim[2]);
  const int64_t n = all.dim[2], line = all.dim[1] * n;
  FkTensor to = {fk_tensor_at(all, part.y * line + part.x * n), FK_U8, 2, {part.h, part.w * n, 0}, line};
  FkTensor from = {region.data, FK_U8, 2, {part.h, part.w * n, 0}, part.w * n};
  fk_op_copy(e->be, fk_tensor_flat(all), fk_tensor_flat(frame));
  fk_op_copy(e->be, to, from);
  return all;
}

static bool give(const FkEdit *e, const FkJob *job, FkTensor pixels, GError **error) {
  const FkImage *in = &job->in, *out = &job->out;
  const FkExtras *extras = e->extras ? &e->extras[job - e->jobs] : NULL;
  const bool masked = e->dry_run ? e->masked : extras && extras->mask;
  const bool keep = e->tune->edited.keep && e->tune->task == FK_TASK_EDIT;
  const FkMaskBox part = region_of(e, in);
  const bool crop = part.w != in->width || part.h != in->height;
  const FkFrame from = frame_of(in), to = frame_of(out);
  FkTensor after = bytes_3d(e, crop ? part.h : out->height, crop ? part.w : out->width, out->channels), before;
  if (!(out->channels == 4 ? with_alpha(e, job, part, after, pixels, error) : resize(e, after, pixels, error)))
    return false;
  if (masked || keep) {
    before = bytes_3d(e, part.h, part.w, in->channels);
    fk_op_frame_read(e->be, before, &from, part.x, part.y, 0);
    if (!mix(e, job, extras, part, after, before, error)) return false;
  }
  if (crop) {
    before = bytes_3d(e, in->height, in->width, in->channels);
    fk_op_frame_read(e->be, before, &from, 0, 0, 0);
    after = around(e, part, after, before);
  }
  fk_op_frame_write(e->be, &to, after);
  if (masked && out->planes) fk_op_frame_keep(e->be, &to, &from, before, after);
  return true;
}

bool fk_surface_give(const FkEdit *e, const FkJob *job, FkTensor pixels, GError **error) {
  const size_t mark = fk_arena_mark(e->arena);
  const bool ok = give(e, job, pixels, error);
  fk_arena_reset(e->arena, mark);
  return ok;
}

/* ---- Without an edit ---- */

void fk_surface_leave(FkBackend *be, const FkJob *job) {
  FkSpan from[4], to[4];
  const int n = fk_surface_spans(&job->in, from);
  fk_surface_spans(&job->out, to);
  for (int i = 0; i < n; i++) {
    const int64_t row = (int64_t)from[i].row;
    fk_op_copy(be, (FkTensor){to[i].data, FK_U8, 2, {to[i].rows, row, 0}, (int64_t)to[i].stride},
               (FkTensor){from[i].data, FK_U8, 2, {from[i].rows, row, 0}, (int64_t)from[i].stride});
  }
}

/* ---- Plans ---- */

static void add_shape(GString *s, const char *what, const FkImage *i) {
  if (i->memory == FK_MEMORY_DEVICE)
    g_string_append_printf(s, "%s %dx%dx%d%s;", what, i->width, i->height, i->channels, i->planes ? " planes" : "");
}

char *fk_surface_shape(const FkEdit *e) {
  GString *s = g_string_new("");
  for (int i = 0; i < e->n; i++) {
    add_shape(s, "frame", &e->jobs[i].out);
    if (e->tune->task == FK_TASK_EDIT) add_shape(s, "of", &e->jobs[i].in);
    for (int k = 0; e->extras && k < e->references.n; k++) add_shape(s, "with", &e->extras[i].references[k]);
  }
  if (*s->str) g_string_append_printf(s, "%dx%d%s", e->region.w, e->region.h, e->tune->edited.keep ? " keep" : "");
  return g_string_free(s, FALSE);
}
