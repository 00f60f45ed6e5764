/* SPDX-License-Identifier: Apache-2.0 */
/* Quantisation on the CPU: the specification of every kernel's codes and scales (FkOps.quantize). Single float32
 * operations in the written order, so that another machine gives the same bits. */
#include "cpu.h"
#include "number.h"

#include <math.h>

typedef struct {
  FkTensor y, scale, x;
  int64_t height, width; /* of a group: rows and columns under one scale */
} FkQuantOp;

static float value_at(FkTensor x, int64_t row, int64_t col) {
  const int64_t at = row * x.ld + col;
  return x.dtype == FK_F32 ? ((const float *)x.data)[at] : fk_bf16_to_f32(((const uint16_t *)x.data)[at]);
}

/* -127..127; a NaN, which only a group without numbers has here, becomes 0. */
static int8_t to_i8(float value) {
  if (isnan(value)) return 0;
  const float rounded = rintf(value);
  return (int8_t)(rounded > 127.0f ? 127.0f : rounded < -127.0f ? -127.0f : rounded);
}

/* One scale and the codes under it. */
static void quantize_task(const void *data, int64_t task, float *scratch) {
  const FkQuantOp *op = data;
  const int64_t groups = fk_tensor_cols(op->x) / op->width;
  const int64_t top = task / groups * op->height, left = task % groups * op->width;
  const int64_t bottom = fk_cpu_min(top + op->height, fk_tensor_rows(op->x)), right = left + op->width;
  const bool floats = op->y.dtype == FK_E4M3;
  const float limit = floats ? 448.0f : 127.0f;
  float amax = 0;
  bool broken = false; /* a NaN, which codes of integers cannot say */
  (void)scratch;
  for (int64_t r = top; r < bottom; r++)
    for (int64_t c = left; c < right; c++) {
      const float value = value_at(op->x, r, c);
      broken = broken || (!floats && isnan(value));
      amax = fmaxf(amax, fabsf(value)); /* passes over NaN, in any order */
    }
  const bool empty = amax < 0x1p-100f;
  const float inverse = empty || broken ? 0.0f : limit / amax;
  fk_cpu_f32(op->scale, task / groups)[task % groups] = broken ? NAN : empty ? 1.0f : amax / limit;
  for (int64_t r = top; r < bottom; r++) {
    uint8_t *codes = (uint8_t *)op->y.data + r * op->y.ld;
    for (int64_t c = left; c < right; c++) {
      const float value = value_at(op->x, r, c) * inverse; /* NaN stays NaN where the inverse is 0 */
      codes[c] = floats ? fk_f32_to_e4m3(value) : (uint8_t)to_i8(value);
    }
  }
}

/* What a scale covers follows from the shape of y_scale. A vector is a column of scales. */
void fk_cpu_quantize(FkBackend *be, FkTensor y, FkTensor y_scale, FkTensor x) {
  const int64_t rows = fk_tensor_rows(x), cols = fk_tensor_cols(x);
  FkQuantOp op = {.y = fk_tensor_flat(y), .scale = y_scale, .x = fk_tensor_flat(x), .height = 1, .width = cols};
  if (y_scale.rank == 1) {
    op.scale = fk_tensor_2d(y_scale.data, FK_F32, rows, 1);
  } else {
    op.height = fk_tensor_rows(y_scale) == rows ? 1 : FK_QUANT_BLOCK;
    op.width = cols / fk_tensor_cols(y_scale);
  }
  if (rows > 0 && cols > 0) fk_cpu_run(be, fk_cpu_parts(rows, op.height) * (cols / op.width), 0, quantize_task, &op);
}
