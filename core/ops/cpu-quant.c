/* SPDX-License-Identifier: Apache-2.0 */
/* Quantisation on the CPU: the specification of every kernel's codes and scales (FkOps.quantize). Single float32
 * operations in the written order, so that another machine gives the same bits. */
#include "cpu.h"
#include "quantize.h"

#include <stdatomic.h>

typedef struct {
  FkTensor y, scale, x;
  int64_t height, width; /* of a group: rows and columns under one scale */
  float given;           /* 0: measured */
  _Atomic int64_t *saturated;
} FkQuantOp;

static float value_at(FkTensor x, int64_t row, int64_t col) {
  const int64_t at = row * x.ld + col;
  return x.dtype == FK_F32 ? ((const float *)x.data)[at] : fk_bf16_to_f32(((const uint16_t *)x.data)[at]);
}

/* The codes of one group under a scale that is known. */
static void given_task(const void *data, int64_t task, float *scratch) {
  const FkQuantOp *op = data;
  const int64_t groups = fk_tensor_cols(op->x) / op->width;
  const int64_t top = task / groups * op->height, left = task % groups * op->width;
  const int64_t bottom = fk_cpu_min(top + op->height, fk_tensor_rows(op->x)), right = left + op->width;
  const float inverse = 1.0f / op->given;
  int64_t saturated = 0;
  (void)scratch;
  fk_cpu_f32(op->scale, task / groups)[task % groups] = op->given;
  for (int64_t r = top; r < bottom; r++) {
    uint8_t *to = (uint8_t *)op->y.data + r * op->y.ld;
    for (int64_t c = left; c < right; c++) to[c] = fk_quant_given(value_at(op->x, r, c), inverse, &saturated);
  }
  if (saturated) atomic_fetch_add(op->saturated, saturated);
}

/* One scale and the codes under it. */
static void quantize_task(const void *data, int64_t task, float *scratch) {
  const FkQuantOp *op = data;
  const int64_t groups = fk_tensor_cols(op->x) / op->width;
  const int64_t top = task / groups * op->height, left = task % groups * op->width;
  const int64_t bottom = fk_cpu_min(top + op->height, fk_tensor_rows(op->x)), right = left + op->width;
  const FkDtype codes = op->y.dtype;
  FkQuantGroup group = {0};
  float inverse;
  (void)scratch;
  for (int64_t r = top; r < bottom; r++)
    for (int64_t c = left; c < right; c++) fk_quant_see(&group, codes, value_at(op->x, r, c));
  fk_cpu_f32(op->scale, task / groups)[task % groups] = fk_quant_scale(&group, codes, &inverse);
  for (int64_t r = top; r < bottom; r++) {
    uint8_t *to = (uint8_t *)op->y.data + r * op->y.ld;
    for (int64_t c = left; c < right; c++) to[c] = fk_quant_code(codes, value_at(op->x, r, c), inverse);
  }
}

/* What a scale covers follows from the shape of y_scale. A vector is a column of scales. */
void fk_cpu_quantize(FkBackend *be, FkTensor y, FkTensor y_scale, FkTensor x, float given) {
  const int64_t rows = fk_tensor_rows(x), cols = fk_tensor_cols(x);
  _Atomic int64_t saturated = 0;
  FkQuantOp op = {.y = fk_tensor_flat(y),
                  .scale = y_scale,
                  .x = fk_tensor_flat(x),
                  .height = 1,
                  .width = cols,
                  .given = given,
                  .saturated = &saturated};
  if (y_scale.rank == 1) {
    op.scale = fk_tensor_2d(y_scale.data, FK_F32, rows, 1);
  } else {
    op.height = fk_tensor_rows(y_scale) == rows ? 1 : FK_QUANT_BLOCK;
    op.width = cols / fk_tensor_cols(y_scale);
  }
  if (rows == 0 || cols == 0) return;
  fk_cpu_run(be, fk_cpu_parts(rows, op.height) * (cols / op.width), 0, given > 0 ? given_task : quantize_task, &op);
  be->count.saturated += saturated;
}
