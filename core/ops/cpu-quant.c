/* SPDX-License-Identifier: Apache-2.0 */
/* Quantisation on the CPU: the specification of every kernel's codes and scales (FkOps.quantize). Single float32
 * operations in the written order, so that another machine gives the same bits. */
#include "cpu.h"
#include "number.h"

#include <math.h>

typedef struct {
  FkTensor y, scale, x;
  int64_t group; /* columns under one scale */
} FkQuantOp;

static float value_at(FkTensor x, int64_t row, int64_t col) {
  const int64_t at = row * x.ld + col;
  return x.dtype == FK_F32 ? ((const float *)x.data)[at] : fk_bf16_to_f32(((const uint16_t *)x.data)[at]);
}

/* -127..127; NaN has no code in integers and becomes 0, with a scale that is NaN. */
static int8_t to_i8(float value) {
  if (!(value == value)) return 0;
  const float rounded = rintf(value);
  return (int8_t)(rounded > 127.0f ? 127.0f : rounded < -127.0f ? -127.0f : rounded);
}

/* One scale and the codes under it. */
static void quantize_task(const void *data, int64_t task, float *scratch) {
  const FkQuantOp *op = data;
  const int64_t groups = fk_tensor_cols(op->x) / op->group, row = task / groups, first = task % groups * op->group;
  const bool floats = op->y.dtype == FK_E4M3;
  const float limit = floats ? 448.0f : 127.0f;
  float amax = 0;
  (void)scratch;
  for (int64_t c = first; c < first + op->group; c++)
    amax = fmaxf(amax, fabsf(value_at(op->x, row, c))); /* passes over NaN, in any order */
  const bool empty = amax < 0x1p-100f;
  const float inverse = empty ? 0.0f : limit / amax;
  float *scale = op->scale.rank == 1 ? (float *)op->scale.data + row
                                     : (float *)op->scale.data + row * op->scale.ld + task % groups;
  *scale = empty ? 1.0f : amax / limit;
  uint8_t *codes = (uint8_t *)op->y.data + row * op->y.ld;
  for (int64_t c = first; c < first + op->group; c++) {
    const float value = value_at(op->x, row, c) * inverse; /* NaN stays NaN where the inverse is 0 */
    codes[c] = floats ? fk_f32_to_e4m3(value) : (uint8_t)to_i8(value);
  }
}

void fk_cpu_quantize(FkBackend *be, FkTensor y, FkTensor y_scale, FkTensor x) {
  const int64_t cols = fk_tensor_cols(x);
  FkQuantOp op = {fk_tensor_flat(y), y_scale, fk_tensor_flat(x), y_scale.rank == 1 ? cols : FK_QUANT_BLOCK};
  fk_cpu_run(be, fk_tensor_rows(x) * (cols / op.group), 0, quantize_task, &op);
}
