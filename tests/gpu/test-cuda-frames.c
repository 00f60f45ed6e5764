/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA ops on pixels as bytes, equal to the CPU's: one pass of a resize by Pillow's weights, pictures laid out as
 * video has them, masks. TAP. Operands: operands.h. */
#include "operands.h"

#include "image.h"

static Pair bytes_of(int64_t h, int64_t w, int64_t c) {
  return operand(FK_U8, 3, (int64_t[]){h, w, c}, 0, BYTES, 0, 0);
}

static Pair bytes_out(int64_t h, int64_t w, int64_t c) {
  return operand(FK_U8, 3, (int64_t[]){h, w, c}, 0, OUTPUT, 0, 0);
}

static void resize_case(int from, int to, int64_t other, int64_t c, bool rows, FkFilter filter) {
  FkImageAxis axis;
  if (!fk_image_axis_init(&axis, filter, from, to)) abort();
  Pair x = rows ? bytes_of(from, other, c) : bytes_of(other, from, c);
  Pair y = rows ? bytes_out(to, other, c) : bytes_out(other, to, c);
  Pair first = indices(to, 1), count = indices(to, 1);
  Pair weight = operand(FK_I32, 2, (int64_t[]){to, axis.taps}, 0, INDEX, 0, 1);
  EACH_SIDE {
    fk_op_upload(side[s], first.t[s], axis.first);
    fk_op_upload(side[s], count.t[s], axis.count);
    fk_op_upload(side[s], weight.t[s], axis.weight);
    fk_op_resize(side[s], &(FkResize){x.t[s], y.t[s], first.t[s], count.t[s], weight.t[s], rows});
  }
  char name[96];
  snprintf(name, sizeof name, "resize %d to %d, %s, %d channels%s", from, to, rows ? "rows" : "columns", (int)c,
           filter == FK_FILTER_TRIANGLE ? ", triangle" : "");
  same(name, 1, &y);
  fk_image_axis_clear(&axis);
}

static void test_resize(void) {
  static const int sizes[][2] = {{1, 16}, {97, 16}, {17, 300}, {1000, 64}, {64, 1000}};
  for (int i = 0; i < 5; i++)
    for (int rows = 0; rows < 2; rows++)
      for (int c = 1; c <= 4; c += c == 1 ? 2 : 1)
        resize_case(sizes[i][0], sizes[i][1], 37, c, rows, FK_FILTER_LANCZOS);
  resize_case(203, 64, 50, 1, true, FK_FILTER_TRIANGLE);
}

enum { RGBA, BGRX, PLANAR, NV12, I420, P010, LAYOUTS };
static const char *const names[LAYOUTS] = {"rgba", "bgrx", "planar", "nv12", "i420", "p010"};

/* A frame in four planes of h rows behind each other. */
static FkFrame frame_of(int layout, int w, int h, bool cosited, uint8_t *data, size_t stride) {
  const int bytes = layout == P010 ? 2 : 1, packed = layout == RGBA || layout == BGRX ? 4 : 0;
  FkFrame f = {.width = w, .height = h, .channels = layout == RGBA ? 4 : 3, .depth = layout == P010 ? 10 : 8};
  f.ycbcr = layout >= NV12;
  f.limited = !cosited;
  f.kr = 0.2126;
  f.kb = 0.0722;
  f.block_up = f.block_down = layout == I420;
  f.cosited_x = f.cosited_y = cosited;
  for (int s = 0; s < 4; s++) {
    const int chroma = s == 1 || s == 2;
    f.data[s] = data + stride * (size_t)h * (size_t)s;
    f.stride[s] = stride;
    if (packed) f.sample[s] = (FkFrameSample){0, layout == BGRX && s < 3 ? 2 - s : s, 4, 0, 0};
    if (layout == PLANAR && s < 3) f.sample[s] = (FkFrameSample){2 - s, 0, 1, 0, 0};
    if (f.ycbcr && s < 3)
      f.sample[s] = (FkFrameSample){chroma, s == 2 ? bytes : 0, chroma ? 2 * bytes : bytes, chroma, chroma};
    if (layout == I420 && chroma) f.sample[s] = (FkFrameSample){s, 0, 1, 1, 1};
  }
  return f;
}

static void frame_case(int layout, int w, int h, bool cosited) {
  const size_t stride = (size_t)w * 4 + 6;
  char name[96];
  const int channels = layout == RGBA ? 4 : 3;
  Pair from = bytes_of(4 * h, (int64_t)stride, 1), to = bytes_of(4 * h, (int64_t)stride, 1);
  Pair y = bytes_out(h, w, channels), part = bytes_out(h - h / 3, w - w / 3, 3), alpha = bytes_out(h, w, 1);
  Pair x = bytes_of(h, w, channels), kept = bytes_of(4 * h, (int64_t)stride, 1);
  EACH_SIDE {
    const FkFrame f = frame_of(layout, w, h, cosited, from.t[s].data, stride);
    const FkFrame g = frame_of(layout, w, h, cosited, to.t[s].data, stride);
    const FkFrame k = frame_of(layout, w, h, cosited, kept.t[s].data, stride);
    fk_op_frame_read(side[s], y.t[s], &f, 0, 0, 0);
    fk_op_frame_read(side[s], part.t[s], &f, w / 3, h / 3, 0);
    fk_op_frame_read(side[s], alpha.t[s], &f, 0, 0, 3);
    fk_op_frame_write(side[s], &g, x.t[s]);
    /* The upper half of x is the frame's own. */
    fk_op_copy(side[s], fk_tensor_slice_rows(x.t[s], 0, (int64_t)w * (h / 2)),
               fk_tensor_slice_rows(y.t[s], 0, (int64_t)w * (h / 2)));
    fk_op_frame_write(side[s], &k, x.t[s]);
    fk_op_frame_keep(side[s], &k, &f, y.t[s], x.t[s]);
  }
  snprintf(name, sizeof name, "%s %dx%d%s: read, part, alpha, write, keep", names[layout], w, h,
           cosited ? ", cosited" : "");
  same(name, 5, (Pair[]){y, part, alpha, to, kept});
}

static void test_frames(void) {
  static const int sizes[][2] = {{1, 1}, {2, 3}, {33, 17}, {64, 48}};
  for (int layout = 0; layout < LAYOUTS; layout++)
    for (int i = 0; i < 4; i++)
      for (int cosited = 0; cosited < 2; cosited++) frame_case(layout, sizes[i][0], sizes[i][1], cosited);
}

static void test_mix(void) {
  Pair y = bytes_of(60, 1, 4), x = bytes_of(60, 1, 4), fade = operand(FK_U8, 1, (int64_t[]){60}, 0, BYTES, 0, 0);
  EACH_SIDE fk_op_mix(side[s], fk_tensor_flat(y.t[s]), fk_tensor_flat(x.t[s]), fade.t[s]);
  same("mix", 1, &y);
}

/* Sizes of one block of threads and of many, windows wider than the mask; a box in a corner, in the middle, none. */
static void mask_case(int w, int h, int radius) {
  Pair x = bytes_of(h, w, 1), inverse = bytes_out(h, w, 1), y[6], box = indices(4, 1), low = bytes_out(h, w, 1);
  Pair corner = indices(4, 1), none = indices(4, 1);
  for (int i = 0; i < 6; i++) y[i] = bytes_out(h, w, 1);
  box.measure = corner.measure = none.measure = BITS; /* zeros have no relative error */
  EACH_SIDE {
    const uint8_t zero = 0, one = 1;
    uint8_t *host = calloc((size_t)h, (size_t)w);
    fk_op_invert(side[s], inverse.t[s], x.t[s]);
    for (int i = 0; i < 6; i++) fk_op_window(side[s], y[i].t[s], x.t[s], (FkWindow)(i / 2), radius, i % 2);
    fk_op_upload(side[s], low.t[s], host);
    fk_op_bounds(side[s], none.t[s], low.t[s]);
    host[(size_t)w * (size_t)h - 1] = one;
    fk_op_upload(side[s], low.t[s], host);
    fk_op_bounds(side[s], corner.t[s], low.t[s]);
    host[(size_t)w * (size_t)h - 1] = zero;
    host[(size_t)(h / 2) * (size_t)w + (size_t)w / 3] = one;
    fk_op_upload(side[s], low.t[s], host);
    fk_op_bounds(side[s], box.t[s], low.t[s]);
    free(host);
  }
  char name[96];
  snprintf(name, sizeof name, "mask %dx%d, radius %d: invert, windows, bounds", w, h, radius);
  same(name, 10, (Pair[]){inverse, y[0], y[1], y[2], y[3], y[4], y[5], box, corner, none});
}

static void tokens_case(int w, int h, int channels) {
  Pair x = bytes_of(h, w, 1);
  Pair y = operand(FK_F32, 2, (int64_t[]){(int64_t)w * h / 256, 4 * channels}, 4 * channels + 3, OUTPUT, 0, 0);
  EACH_SIDE fk_op_mask_tokens(side[s], y.t[s], x.t[s]);
  char name[64];
  snprintf(name, sizeof name, "mask tokens %dx%d, %d channels", w, h, channels);
  same(name, 1, &y);
}

static void test_masks(void) {
  mask_case(1, 1, 2);
  mask_case(33, 17, 1);
  mask_case(17, 300, 40);
  mask_case(1000, 701, 9);
  mask_case(64, 48, 1000);
  tokens_case(16, 16, 16);
  tokens_case(48, 160, 3);
}

/* What ops may follow: the device's own memory, whole; not the host's, nor an address of nobody. */
static void test_reach(void) {
  FkBackend *be = side[GPU];
  uint8_t host[16];
  void *memory = be->ops->alloc(be, 4096);
  const bool own = be->ops->reach(be, memory, 4096), far = be->ops->reach(be, memory, (size_t)1 << 46);
  const bool other = be->ops->reach(be, host, sizeof host), nobody = be->ops->reach(be, (void *)(uintptr_t)4096, 1);
  be->ops->release(be, memory);
  report(own && !far && !other && !nobody, "reach", "");
  report(be->ops->context(be) != NULL, "context", "");
  report(fk_backend_sync(be), "no failure is left by asking", be->message);
}

int main(void) {
  if (!open_sides()) return 0;
  test_resize();
  test_frames();
  test_mix();
  test_masks();
  test_reach();
  return close_sides();
}
