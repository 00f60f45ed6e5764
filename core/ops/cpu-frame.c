/* SPDX-License-Identifier: Apache-2.0 */
/* Pixels as bytes on the CPU: resizing, pictures that somebody else laid out, masks. A task is a row. */
#include "cpu.h"

#include <string.h>

/* Weights sum up to 2^22 and are below 2^23 in size: a sum of products with bytes stays below 2^31. */
static uint8_t weigh(const uint8_t *from, size_t step, const int32_t *weight, int32_t count) {
  int32_t sum = 1 << (FK_RESIZE_BITS - 1);
  for (int32_t k = 0; k < count; k++) sum += weight[k] * from[(size_t)k * step];
  sum >>= FK_RESIZE_BITS;
  return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

static void resize_task(const void *data, int64_t y, float *scratch) {
  const FkResize *r = data;
  (void)scratch;
  const int32_t *first = r->first.data, *count = r->count.data, *weight = r->weight.data;
  const int64_t c = r->x.dim[2], width = r->y.dim[1], line = r->x.dim[1] * c, taps = r->weight.dim[1];
  uint8_t *to = (uint8_t *)r->y.data + y * width * c;
  const uint8_t *from = (const uint8_t *)r->x.data + (r->rows ? first[y] : y) * line;
  for (int64_t i = 0; i < width * c; i++) {
    const int64_t at = r->rows ? y : i / c;
    const uint8_t *start = r->rows ? from + i : from + first[at] * c + i % c;
    to[i] = weigh(start, (size_t)(r->rows ? line : c), weight + at * taps, count[at]);
  }
}

void fk_cpu_resize(FkBackend *be, const FkResize *r) {
  fk_cpu_run(be, r->y.dim[0], 0, resize_task, r);
}

typedef struct {
  const FkFrame *to, *from;
  FkTensor a, b;
  int left, top, first;
} FkFrameOp;

static void read_task(const void *data, int64_t y, float *scratch) {
  const FkFrameOp *op = data;
  (void)scratch;
  const int64_t n = op->a.dim[2], width = op->a.dim[1];
  uint8_t *to = (uint8_t *)op->a.data + y * width * n, rgba[4];
  for (int64_t x = 0; x < width; x++, to += n) {
    fk_frame_read_pixel(op->from, op->left + (int)x, op->top + (int)y, op->first, rgba);
    for (int64_t i = 0; i < n; i++) to[i] = rgba[op->first + i];
  }
}

void fk_cpu_frame_read(FkBackend *be, FkTensor y, const FkFrame *f, int left, int top, int first) {
  const FkFrameOp op = {.from = f, .a = y, .left = left, .top = top, .first = first};
  fk_cpu_run(be, y.dim[0], 0, read_task, &op);
}

/* Chroma of two rows begins in the first of them: no two tasks write one byte. */
static void write_task(const void *data, int64_t y, float *scratch) {
  const FkFrameOp *op = data;
  (void)scratch;
  for (int x = 0; x < op->to->width; x++) fk_frame_write_pixel(op->to, op->a.data, x, (int)y);
}

void fk_cpu_frame_write(FkBackend *be, const FkFrame *f, FkTensor x) {
  const FkFrameOp op = {.to = f, .a = x};
  fk_cpu_run(be, f->height, 0, write_task, &op);
}

static void keep_task(const void *data, int64_t y, float *scratch) {
  const FkFrameOp *op = data;
  (void)scratch;
  for (int x = 0; x < op->to->width; x++) fk_frame_keep_pixel(op->to, op->from, op->a.data, op->b.data, x, (int)y);
}

void fk_cpu_frame_keep(FkBackend *be, const FkFrame *to, const FkFrame *from, FkTensor before, FkTensor after) {
  const FkFrameOp op = {.to = to, .from = from, .a = before, .b = after};
  fk_cpu_run(be, to->height, 0, keep_task, &op);
}

void fk_cpu_mix(FkBackend *be, FkTensor y, FkTensor x, FkTensor fade) {
  (void)be;
  for (int64_t row = 0; row < fk_tensor_rows(y); row++)
    for (int64_t i = 0; i < fk_tensor_cols(y); i++) {
      uint8_t *to = fk_tensor_at(y, row * y.ld + i);
      const uint8_t *from = fk_tensor_at(x, row * x.ld + i);
      *to = fk_frame_mix(*to, *from, ((const uint8_t *)fade.data)[row]);
    }
}

/* ---- Masks ---- */

void fk_cpu_invert(FkBackend *be, FkTensor y, FkTensor x) {
  (void)be;
  const uint8_t *from = x.data;
  uint8_t *to = y.data;
  for (int64_t i = 0; i < fk_tensor_count(x); i++) to[i] = (uint8_t)(255 - from[i]);
}

typedef struct {
  FkTensor y, x;
  FkWindow window;
  int radius;
  bool columns;
} FkWindowOp;

static int window_of(const FkWindowOp *op, const uint8_t *line, int64_t step, int64_t n, int64_t i) {
  int most = 0, least = 255, sum = 0;
  for (int64_t k = i - op->radius; k <= i + op->radius; k++) {
    const int value = line[(k < 0 ? 0 : k >= n ? n - 1 : k) * step];
    most = value > most ? value : most;
    least = value < least ? value : least;
    sum += value;
  }
  const int count = 2 * op->radius + 1;
  return op->window == FK_WINDOW_MOST ? most : op->window == FK_WINDOW_LEAST ? least : (2 * sum + count) / (2 * count);
}

static void window_task(const void *data, int64_t y, float *scratch) {
  const FkWindowOp *op = data;
  (void)scratch;
  const int64_t h = op->x.dim[0], w = op->x.dim[1];
  const uint8_t *from = op->x.data;
  uint8_t *to = (uint8_t *)op->y.data + y * w;
  for (int64_t x = 0; x < w; x++)
    to[x] = (uint8_t)(op->columns ? window_of(op, from + x, w, h, y) : window_of(op, from + y * w, 1, w, x));
}

void fk_cpu_window(FkBackend *be, FkTensor y, FkTensor x, FkWindow window, int radius, bool columns) {
  fk_cpu_run(be, y.dim[0], 0, window_task, &(FkWindowOp){y, x, window, radius, columns});
}

void fk_cpu_bounds(FkBackend *be, FkTensor y, FkTensor x) {
  (void)be;
  const int32_t h = (int32_t)x.dim[0], w = (int32_t)x.dim[1];
  const uint8_t *from = x.data;
  int32_t *box = y.data, most[4] = {0};
  for (int32_t row = 0; row < h; row++)
    for (int32_t column = 0; column < w; column++) {
      const int32_t reach[4] = {w - column, h - row, column + 1, row + 1};
      for (int k = 0; from[(int64_t)row * w + column] && k < 4; k++) most[k] = reach[k] > most[k] ? reach[k] : most[k];
    }
  memcpy(box, most, sizeof most);
}

void fk_cpu_mask_tokens(FkBackend *be, FkTensor y, FkTensor x) {
  (void)be;
  const int64_t w = x.dim[1], across = w / 16, channels = y.dim[1] / 4;
  for (int64_t token = 0; token < y.dim[0]; token++)
    for (int64_t i = 0; i < 4 * channels; i++) {
      const int64_t row = token / across * 2 + i % 4 / 2, column = token % across * 2 + i % 2;
      const uint8_t first = ((const uint8_t *)x.data)[row * 8 * w + column * 8];
      *(float *)fk_tensor_at(y, token * y.ld + i) = first >= 128 ? 1.0f : 0.0f;
    }
}
