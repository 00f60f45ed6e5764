/* SPDX-License-Identifier: Apache-2.0 */
/* Attention of codes on the CPU, as FkAttention defines it: per head and block of query rows, tile after tile of 128
 * keys. The tile is a part of the format: one scale of k and v, one rounding of the probabilities' sums. Scores are of
 * codes, or of numbers.
 *
 * Both sums of codes of products are exact in any order: scores are integers below 1024 * 127^2 < 2^24, which float32
 * holds; sums of 128 products of E4M3 codes need 43 bits (cpu-quant-linear.c), which double holds. */
#include "cpu.h"
#include "number.h"

#include <math.h>
#include <string.h>

#define FK_QUANT_ROWS 144

typedef struct {
  const FkAttention *a;
  int64_t rows, row_parts; /* of queries */
  int64_t width;           /* E */
  float factor;            /* scale * log2(e) */
  double table[256];       /* E4M3 codes as numbers */
} FkQuantAttentionOp;

/* Scratch of a task. */
typedef struct {
  double *p, *v, *acc;                /* [rows, 128], [128, E], [rows, E] */
  float *q, *k, *s, *o, *max, *sum;   /* [rows, E], [128, E], [rows, 128], [rows, E], [rows], [rows] */
  int64_t head, row, rows, key, keys; /* of the block and of the tile */
  bool first;                         /* of the tiles */
} FkQuantTile;

static int64_t doubles_of(int64_t rows, int64_t width) {
  return rows * FK_QUANT_BLOCK + (FK_QUANT_BLOCK + rows) * width;
}

/* Floats behind `scratch`, of all arrays of a task. */
static size_t scratch_of(int64_t rows, int64_t width) {
  return (size_t)(2 * doubles_of(rows, width) + (2 * rows + FK_QUANT_BLOCK) * width + rows * (FK_QUANT_BLOCK + 2));
}

/* Where each array of a task lies in `scratch`. Doubles come first, so that they are aligned. */
static void lay_out(FkQuantTile *t, float *scratch, int64_t rows, int64_t width) {
  t->p = (double *)scratch;
  t->v = t->p + rows * FK_QUANT_BLOCK;
  t->acc = t->v + FK_QUANT_BLOCK * width;
  t->q = scratch + 2 * doubles_of(rows, width);
  t->k = t->q + rows * width;
  t->s = t->k + FK_QUANT_BLOCK * width;
  t->o = t->s + rows * FK_QUANT_BLOCK;
  t->max = t->o + rows * width;
  t->sum = t->max + rows;
}

/* Rows x one head as float32, dense: integers of codes, or numbers. */
static void widen(float *to, FkTensor from_all, int64_t row, int64_t rows, int64_t first, int64_t width) {
  for (int64_t r = 0; r < rows; r++) {
    if (from_all.dtype == FK_F32) {
      memcpy(to + r * width, fk_cpu_f32(from_all, row + r) + first, (size_t)width * sizeof *to);
      continue;
    }
    const int8_t *from = (const int8_t *)from_all.data + (row + r) * from_all.ld + first;
    for (int64_t c = 0; c < width; c++) to[r * width + c] = (float)from[c];
  }
}

/* s_j of the tile, and with its maximum the probabilities' codes; rescales what the tiles before left. */
static void score_row(const FkQuantAttentionOp *op, const FkQuantTile *t, int64_t r) {
  const FkAttention *a = op->a;
  float *s = t->s + r * t->keys, *o = t->o + r * op->width;
  const bool codes = fk_tensor_given(a->q_scale);
  const float q_scale = codes ? fk_cpu_f32(a->q_scale, t->row + r)[t->head] : 1;
  const float k_scale = codes ? fk_cpu_f32(a->k_scale, t->key / FK_QUANT_BLOCK)[t->head] : 1;
  fk_cpu_scale_span(s, t->keys, q_scale * k_scale * op->factor);
  const float top = fk_cpu_row_max(s, t->keys);
  if (t->first) {
    t->max[r] = top;
    t->sum[r] = 0;
  } else if (top > t->max[r]) {
    float ratio = t->max[r];
    fk_cpu_exp2_span(&ratio, 1, top);
    t->sum[r] *= ratio;
    fk_cpu_scale_span(o, op->width, ratio);
    t->max[r] = top;
  }
  t->sum[r] += fk_cpu_exp2_span(s, t->keys, t->max[r]);
  fk_cpu_scale_span(s, t->keys, 256.0f); /* a power of two: exact */
  fk_cpu_round_e4m3_span(t->p + r * t->keys, s, t->keys);
}

/* Scores, probabilities and their part of the result, for one tile of keys. */
static void run_tile(const FkQuantAttentionOp *op, const FkQuantTile *t) {
  const FkAttention *a = op->a;
  const int64_t width = op->width, first = t->head * width;
  const float v_scale = fk_cpu_f32(a->v_scale, t->key / FK_QUANT_BLOCK)[t->head];
  widen(t->k, a->k, t->key, t->keys, first, width);
  for (int64_t j = 0; j < t->keys; j++) {
    const uint8_t *v = (const uint8_t *)a->v.data + (t->key + j) * a->v.ld + first;
    for (int64_t c = 0; c < width; c++) t->v[j * width + c] = op->table[v[c]];
  }
  fk_cpu_gemm(true, t->rows, t->keys, width, 1.0f, t->q, width, t->k, width, 0.0f, t->s, t->keys);
  for (int64_t r = 0; r < t->rows; r++) score_row(op, t, r);
  fk_cpu_gemm_double(false, t->rows, width, t->keys, t->p, t->keys, t->v, width, 0.0, t->acc, width);
  for (int64_t r = 0; r < t->rows; r++) fk_cpu_promote_span(t->o + r * width, t->acc + r * width, width, v_scale, NULL);
}

/* One head of one block of query rows, over all keys. */
static void attention_task(const void *data, int64_t task, float *scratch) {
  const FkQuantAttentionOp *op = data;
  const FkAttention *a = op->a;
  const int64_t width = op->width, keys = fk_tensor_rows(a->k);
  FkQuantTile t;
  lay_out(&t, scratch, op->rows, width);
  t.head = task / op->row_parts;
  t.row = task % op->row_parts * op->rows;
  t.rows = fk_cpu_min(op->rows, fk_tensor_rows(a->q) - t.row);
  widen(t.q, a->q, t.row, t.rows, t.head * width, width);
  for (int64_t i = 0; i < t.rows * width; i++) t.o[i] = 0;
  for (int64_t tile = fk_cpu_parts(keys, FK_QUANT_BLOCK) - 1; tile >= 0; tile--) {
    t.key = tile * FK_QUANT_BLOCK;
    t.keys = fk_cpu_min(FK_QUANT_BLOCK, keys - t.key);
    t.first = t.key + t.keys == keys;
    run_tile(op, &t);
  }
  for (int64_t r = 0; r < t.rows; r++) {
    float *o = fk_cpu_f32(a->o, t.row + r) + t.head * width;
    for (int64_t c = 0; c < width; c++) o[c] = t.o[r * width + c] / (256.0f * t.sum[r]);
  }
}

void fk_cpu_attention_quantized(FkBackend *be, const FkAttention *a) {
  FkQuantAttentionOp op = {.a = a, .width = fk_tensor_cols(a->q) / a->heads, .factor = a->scale * 1.44269504f};
  for (int i = 0; i < 256; i++) op.table[i] = (double)fk_e4m3_to_f32((uint8_t)i);
  op.rows = fk_cpu_part(fk_tensor_rows(a->q), FK_QUANT_ROWS, 16);
  op.row_parts = fk_cpu_parts(fk_tensor_rows(a->q), op.rows);
  fk_cpu_run(be, a->heads * op.row_parts, scratch_of(op.rows, op.width), attention_task, &op);
}

void fk_cpu_attention_value_codes(FkBackend *be, const FkAttention *a) {
  FkAttention codes = *a;
  codes.v = fk_tensor_slice_rows(a->v_codes, 0, fk_tensor_rows(a->v));
  be->ops->quantize(be, codes.v, a->v_scale, a->v, 0);
  if (be->failure == FK_FAIL_NONE) fk_cpu_attention_quantized(be, &codes);
}
