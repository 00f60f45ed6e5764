/* SPDX-License-Identifier: Apache-2.0 */
/* Convolution on the CPU, channels-last, any square kernel, as `kernel` matrix products per tile of output pixels.
 *
 * A tile's input rows are spread along x only: buffer[iy][xo] holds the kernel * Cin values that output column xo needs
 * of input row iy. The product of kernel row ky then reads buffer rows yo * stride + ky, as they lie, with K = kernel *
 * Cin; its results add up in the tile. That copies a third of what im2col copies for a 3 x 3 kernel. Doubling the input
 * (upsample) happens in the spreading and costs nothing. A 1 x 1 kernel reads x directly. */
#include "cpu.h"

#include <string.h>

/* A spread row of at most 192 KB and up to 8 output rows: 1 to 2 MB a tile, the L2 of current server cores. */
#define FK_CONV_ROW_FLOATS (48 * 1024)
#define FK_CONV_ROWS 8

typedef struct {
  const FkConv *c;
  int64_t rows, cols; /* of a tile */
  int64_t row_parts, col_parts;
} FkConvOp;

/* Spreads columns xo..xo+cols of input row iy (of the doubled image, if any) into `to` [cols, kernel * Cin]. */
static void spread_row(const FkConv *c, float *to, int64_t iy, int64_t xo, int64_t cols) {
  int64_t up = c->upsample ? 2 : 1, channels = c->x.dim[2], height = c->x.dim[0] * up, width = c->x.dim[1] * up;
  int64_t taps = c->kernel;
  if (iy < 0 || iy >= height) {
    memset(to, 0, (size_t)(cols * taps * channels) * sizeof *to);
    return;
  }
  const float *row = (const float *)c->x.data + iy / up * c->x.dim[1] * c->x.ld;
  bool dense = up == 1 && c->x.ld == channels;
  size_t pixel = (size_t)channels * sizeof *to;
  for (int64_t x = 0; x < cols; x++, to += taps * channels) {
    int64_t ix = (xo + x) * c->stride - c->pad_before;
    if (dense && ix >= 0 && ix + taps <= width) {
      memcpy(to, row + ix * channels, (size_t)taps * pixel);
      continue;
    }
    for (int64_t t = 0; t < taps; t++) {
      if (ix + t < 0 || ix + t >= width)
        memset(to + t * channels, 0, pixel);
      else
        memcpy(to + t * channels, row + (ix + t) / up * c->x.ld, pixel);
    }
  }
}

/* out [rows * cols, Cout] from the spread rows. At stride 1 they follow each other as the outputs do: one product. */
static void conv_products(const FkConv *c, float *out, const float *spread, int64_t rows, int64_t cols) {
  int64_t k = c->kernel * c->x.dim[2], channels = c->y.dim[2];
  int64_t joined = c->stride == 1 ? rows : 1;
  for (int64_t r = 0; r < rows; r += joined)
    for (int64_t ky = 0; ky < c->kernel; ky++)
      fk_cpu_gemm(true, joined * cols, channels, k, 1.0f, spread + (r * c->stride + ky) * cols * k, k,
                  (const float *)c->w.data + ky * k, c->w.in, ky == 0 ? 0.0f : 1.0f, out + r * cols * channels,
                  channels);
}

/* One tile of output pixels: its input spread, `kernel` products, then bias and residual while it is in cache. */
static void conv_task(const void *data, int64_t task, float *scratch) {
  const FkConvOp *op = data;
  const FkConv *c = op->c;
  int64_t yo = task / op->col_parts * op->rows, xo = task % op->col_parts * op->cols;
  int64_t rows = fk_cpu_min(op->rows, c->y.dim[0] - yo), cols = fk_cpu_min(op->cols, c->y.dim[1] - xo);
  int64_t k = c->kernel * c->x.dim[2], width = c->y.dim[1], channels = c->y.dim[2];
  /* Whole rows of a dense y are computed in place, unless the residual lies there: 4 % faster than through a tile. */
  bool direct = cols == width && c->y.ld == channels && c->residual.data != c->y.data;
  float *out = direct ? fk_cpu_f32(c->y, yo * width) : scratch, *spread = scratch + op->rows * op->cols * channels;

  if (c->kernel == 1 && c->stride == 1 && !c->upsample && c->pad_before == 0) {
    for (int64_t r = 0; r < rows; r++)
      fk_cpu_gemm(true, cols, channels, k, 1.0f, fk_cpu_f32(c->x, (yo + r) * width + xo), c->x.ld, c->w.data, c->w.in,
                  0.0f, out + r * cols * channels, channels);
  } else {
    int64_t first = yo * c->stride - c->pad_before, count = (rows - 1) * c->stride + c->kernel;
    for (int64_t i = 0; i < count; i++) spread_row(c, spread + i * cols * k, first + i, xo, cols);
    conv_products(c, out, spread, rows, cols);
  }

  const float *bias = fk_tensor_given(c->bias) ? c->bias.data : NULL;
  for (int64_t r = 0; r < rows; r++) {
    int64_t at = (yo + r) * width + xo;
    const float *residual = fk_tensor_given(c->residual) ? fk_cpu_f32(c->residual, at) : NULL;
    fk_cpu_finish_rows(fk_cpu_f32(c->y, at), c->y.ld, out + r * cols * channels, cols, channels, bias, residual,
                       c->residual.ld);
  }
}

/* Declines nothing. */
bool fk_cpu_conv_fused(FkBackend *be, const FkConv *c) {
  assert(c->x.dtype == FK_F32 && c->y.dtype == FK_F32 && c->w.dtype == FK_F32 && c->w.scale.kind == FK_SCALE_NONE);
  int64_t k = c->kernel * c->x.dim[2], height = c->y.dim[0], width = c->y.dim[1];
  FkConvOp op = {.c = c};
  op.cols = fk_cpu_part(width, fk_cpu_max(FK_CONV_ROW_FLOATS / k, 16), 16);
  /* At least 8 tiles of rows where the image has them, so that threads share a small one too. */
  op.rows = fk_cpu_max(1, fk_cpu_min(FK_CONV_ROWS, height / 8));
  op.row_parts = fk_cpu_parts(height, op.rows);
  op.col_parts = fk_cpu_parts(width, op.cols);
  int64_t spread = ((op.rows - 1) * c->stride + c->kernel) * op.cols * k, out = op.rows * op.cols * c->y.dim[2];
  fk_cpu_run(be, op.row_parts * op.col_parts, (size_t)(spread + out), conv_task, &op);
  return true;
}

void fk_cpu_conv(FkBackend *be, const FkConv *c) {
  fk_cpu_conv_fused(be, c);
}

/* Nearest neighbour, x2; the composition's half of FkConv.upsample. Serial: it is only ever a reference. */
void fk_cpu_upsample(FkBackend *be, FkTensor y, FkTensor x) {
  (void)be;
  for (int64_t i = 0; i < y.dim[0]; i++)
    for (int64_t j = 0; j < y.dim[1]; j++)
      memcpy(fk_cpu_f32(y, i * y.dim[1] + j), fk_cpu_f32(x, i / 2 * x.dim[1] + j / 2),
             (size_t)x.dim[2] * sizeof(float));
}
