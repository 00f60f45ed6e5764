/* SPDX-License-Identifier: Apache-2.0 */
/* Attention of codes on the CPU, as FkAttention defines it: per head and block of query rows, step after step of keys.
 * Codes of k and v are made first, those of queries by the task that reads them. Scores are of codes, 64 keys a step,
 * or of numbers, 128 keys a step.
 *
 * Both sums of codes of products are exact in any order: scores are integers below 1024 * 127^2 < 2^24, which float32
 * holds; sums of 1024 products of E4M3 codes need 46 bits (cpu-quant-linear.c), which double holds. */
#include "cpu.h"
#include "quantize.h"

#include <math.h>
#include <string.h>

#define FK_QUANT_ROWS 144
#define FK_QUANT_HALF 64       /* keys under one reference, where scores are of codes */
#define FK_QUANT_SHIFT 5.0f    /* weights are codes of 2^5 p */
#define FK_QUANT_LARGEST 448.0 /* the largest code */

typedef struct {
  const FkAttention *a;
  bool codes;              /* scores are of codes */
  int64_t rows, row_parts; /* of queries */
  int64_t width;           /* E */
  float factor;            /* scale * log2(e) */
  double table[256];       /* E4M3 codes as numbers */
} FkQuantAttentionOp;

/* Scratch of a task. Of codes, acc and weight are the sums since the last promotion, under max; sum and o are under
 * held. Of numbers all are under max. */
typedef struct {
  double *p, *v, *acc;                /* [rows, 128], [128, E], [rows, E] */
  float *q, *k, *s, *o;               /* [rows, E], [128, E], [rows, 128], [rows, E] */
  float *max, *sum, *held, *q_scale;  /* [rows] */
  double *weight;                     /* [rows] */
  int64_t head, row, rows, key, keys; /* of the block and of the step */
  bool first;                         /* of the steps */
} FkQuantTile;

static int64_t doubles_of(int64_t rows, int64_t width) {
  return rows * (FK_QUANT_BLOCK + 1) + (FK_QUANT_BLOCK + rows) * width;
}

/* Floats behind `scratch`, of all arrays of a task. */
static size_t scratch_of(int64_t rows, int64_t width) {
  return (size_t)(2 * doubles_of(rows, width) + (2 * rows + FK_QUANT_BLOCK) * width + rows * (FK_QUANT_BLOCK + 4));
}

/* Where each array of a task lies in `scratch`. Doubles come first, so that they are aligned. */
static void lay_out(FkQuantTile *t, float *scratch, int64_t rows, int64_t width) {
  t->p = (double *)scratch;
  t->v = t->p + rows * FK_QUANT_BLOCK;
  t->acc = t->v + FK_QUANT_BLOCK * width;
  t->weight = t->acc + rows * width;
  t->q = scratch + 2 * doubles_of(rows, width);
  t->k = t->q + rows * width;
  t->s = t->k + FK_QUANT_BLOCK * width;
  t->o = t->s + rows * FK_QUANT_BLOCK;
  t->max = t->o + rows * width;
  t->sum = t->max + rows;
  t->held = t->sum + rows;
  t->q_scale = t->held + rows;
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

static void find_mean(const FkAttention *a) {
  const int64_t rows = fk_tensor_rows(a->v), cols = fk_tensor_cols(a->v);
  float *mean = a->v_mean.data;
  for (int64_t c = 0; c < cols; c++) {
    float sum = 0;
    for (int64_t first = 0; first < FK_QUANT_MEAN; first += FK_QUANT_MEAN_PART) {
      float part = 0;
      for (int64_t i = first; i < first + FK_QUANT_MEAN_PART; i++)
        part += fk_cpu_f32(a->v, i * rows / FK_QUANT_MEAN)[c];
      sum += part;
    }
    mean[c] = sum * (1.0f / FK_QUANT_MEAN);
  }
}

/* Codes and scale of one block of values of one head. */
static void values_task(const void *data, int64_t task, float *scratch) {
  const FkQuantAttentionOp *op = data;
  const FkAttention *a = op->a;
  const int64_t head = task % a->heads, first = head * op->width, block = task / a->heads;
  const int64_t top = block * FK_QUANT_VALUES, end = fk_cpu_min(top + FK_QUANT_VALUES, fk_tensor_rows(a->v));
  const float *mean = (const float *)a->v_mean.data + first;
  FkQuantGroup group = {0};
  float inverse;
  (void)scratch;
  for (int64_t r = top; r < end; r++)
    for (int64_t c = 0; c < op->width; c++) fk_quant_see(&group, FK_E4M3, fk_cpu_f32(a->v, r)[first + c] - mean[c]);
  fk_cpu_f32(a->v_scale, block)[head] = fk_quant_scale(&group, FK_E4M3, &inverse);
  for (int64_t r = top; r < end; r++) {
    uint8_t *to = (uint8_t *)a->v_codes.data + r * a->v_codes.ld + first;
    for (int64_t c = 0; c < op->width; c++)
      to[c] = fk_quant_code(FK_E4M3, fk_cpu_f32(a->v, r)[first + c] - mean[c], inverse);
  }
}

/* The queries of the block, or their codes as integers. */
static void take_queries(const FkQuantAttentionOp *op, const FkQuantTile *t) {
  uint8_t codes[FK_QUANT_HEAD];
  widen(t->q, op->a->q, t->row, t->rows, t->head * op->width, op->width);
  for (int64_t r = 0; op->codes && r < t->rows; r++) {
    float *q = t->q + r * op->width;
    t->q_scale[r] = fk_quant_row(codes, FK_I8, q, op->width);
    for (int64_t c = 0; c < op->width; c++) q[c] = (float)(int8_t)codes[c];
  }
}

/* Scores of numbers to the weights' codes; rescales what the steps before left. */
static void weigh_numbers(const FkQuantAttentionOp *op, const FkQuantTile *t, int64_t r) {
  float *s = t->s + r * t->keys, *o = t->o + r * op->width;
  fk_cpu_scale_span(s, t->keys, op->factor);
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

/* Codes of the weights of exponents x less `less`. Returns whether one is the largest, or no number. */
static bool weigh(double *p, const float *x, int64_t keys, float less) {
  float w[FK_QUANT_HALF];
  bool over = false;
  memcpy(w, x, (size_t)keys * sizeof *w);
  fk_cpu_exp2_span(w, keys, less);
  fk_cpu_round_e4m3_span(p, w, keys);
  for (int64_t j = 0; j < keys; j++) over |= !(p[j] < FK_QUANT_LARGEST);
  return over;
}

/* Scores of codes to the weights' codes, whose sum is taken as they are after rounding. */
static void weigh_codes(const FkQuantAttentionOp *op, const FkQuantTile *t, int64_t r) {
  float *x = t->s + r * t->keys;
  double *p = t->p + r * t->keys, *acc = t->acc + r * op->width;
  const float k_scale = fk_cpu_f32(op->a->k_scale, t->key / FK_QUANT_BLOCK)[t->head];
  const float factor = t->q_scale[r] * op->factor * k_scale, bias = FK_QUANT_SHIFT - t->max[r];
  for (int64_t j = 0; j < t->keys; j++) x[j] = fmaf(x[j], factor, bias);
  if (t->first || weigh(p, x, t->keys, 0)) {
    const float up = fk_cpu_row_max(x, t->keys) - FK_QUANT_SHIFT;
    float ratio = -up;
    fk_cpu_exp2_span(&ratio, 1, 0);
    weigh(p, x, t->keys, up);
    t->max[r] += up;
    t->weight[r] *= (double)ratio;
    for (int64_t c = 0; c < op->width; c++) acc[c] *= (double)ratio;
  }
  for (int64_t j = 0; j < t->keys; j++) t->weight[r] += p[j];
}

/* What the weights since the last promotion gave joins the sums in float32. */
static void promote(const FkQuantAttentionOp *op, const FkQuantTile *t, int64_t r) {
  float *o = t->o + r * op->width, ratio = t->held[r];
  double *acc = t->acc + r * op->width;
  fk_cpu_exp2_span(&ratio, 1, t->max[r]);
  t->held[r] = t->max[r];
  t->sum[r] = t->sum[r] * ratio + (float)t->weight[r];
  fk_cpu_scale_span(o, op->width, ratio);
  fk_cpu_promote_span(o, acc, op->width, fk_cpu_f32(op->a->v_scale, t->key / FK_QUANT_VALUES)[t->head], NULL);
  t->weight[r] = 0;
  memset(acc, 0, (size_t)op->width * sizeof *acc);
}

/* Scores, weights and their part of the result, for one step of keys. */
static void run_step(const FkQuantAttentionOp *op, const FkQuantTile *t) {
  const FkAttention *a = op->a;
  const int64_t width = op->width, first = t->head * width;
  widen(t->k, op->codes ? a->k_codes : a->k, t->key, t->keys, first, width);
  for (int64_t j = 0; j < t->keys; j++) {
    const uint8_t *v = (const uint8_t *)a->v_codes.data + (t->key + j) * a->v_codes.ld + first;
    for (int64_t c = 0; c < width; c++) t->v[j * width + c] = op->table[v[c]];
  }
  fk_cpu_gemm(true, t->rows, t->keys, width, 1.0f, t->q, width, t->k, width, 0.0f, t->s, t->keys);
  for (int64_t r = 0; r < t->rows; r++) (op->codes ? weigh_codes : weigh_numbers)(op, t, r);
  fk_cpu_gemm_double(false, t->rows, width, t->keys, t->p, t->keys, t->v, width, op->codes ? 1.0 : 0.0, t->acc, width);
  if (op->codes) return;
  const float v_scale = fk_cpu_f32(a->v_scale, t->key / FK_QUANT_BLOCK)[t->head];
  for (int64_t r = 0; r < t->rows; r++) fk_cpu_promote_span(t->o + r * width, t->acc + r * width, width, v_scale, NULL);
}

/* Keys in steps, tile after tile from the last; a tile's steps in order. */
static void run_tile(const FkQuantAttentionOp *op, FkQuantTile *t, int64_t tile) {
  const int64_t total = fk_tensor_rows(op->a->k), step = op->codes ? FK_QUANT_HALF : FK_QUANT_BLOCK;
  const int64_t top = tile * FK_QUANT_BLOCK, end = fk_cpu_min(top + FK_QUANT_BLOCK, total);
  for (t->key = top; t->key < end; t->key += step, t->first = false) {
    t->keys = fk_cpu_min(step, end - t->key);
    run_step(op, t);
  }
  t->key = top;
  if (op->codes && top % FK_QUANT_VALUES == 0)
    for (int64_t r = 0; r < t->rows; r++) promote(op, t, r);
}

/* One head of one block of query rows, over all keys. */
static void attention_task(const void *data, int64_t task, float *scratch) {
  const FkQuantAttentionOp *op = data;
  const FkAttention *a = op->a;
  const int64_t width = op->width;
  FkQuantTile t;
  lay_out(&t, scratch, op->rows, width);
  t.head = task / op->row_parts;
  t.row = task % op->row_parts * op->rows;
  t.rows = fk_cpu_min(op->rows, fk_tensor_rows(a->q) - t.row);
  t.first = true;
  take_queries(op, &t);
  for (int64_t i = 0; i < t.rows * width; i++) t.o[i] = 0, t.acc[i] = 0;
  for (int64_t r = 0; r < t.rows; r++) t.max[r] = 0, t.held[r] = -INFINITY, t.sum[r] = 0, t.weight[r] = 0;
  for (int64_t tile = fk_cpu_parts(fk_tensor_rows(a->k), FK_QUANT_BLOCK) - 1; tile >= 0; tile--) run_tile(op, &t, tile);
  for (int64_t r = 0; r < t.rows; r++) {
    float *o = fk_cpu_f32(a->o, t.row + r) + t.head * width;
    const float sum = (op->codes ? 1.0f : 256.0f) * t.sum[r];
    for (int64_t c = 0; c < width; c++) o[c] = t.o[r * width + c] / sum;
    if (op->codes) fk_cpu_add_span(o, o, (const float *)a->v_mean.data + t.head * width, width);
  }
}

void fk_cpu_attention_codes(FkBackend *be, const FkAttention *attention) {
  FkAttention a = *attention;
  FkQuantAttentionOp op = {.a = &a, .codes = fk_tensor_given(a.k_codes)};
  op.width = fk_tensor_cols(a.q) / a.heads;
  op.factor = a.scale * 1.44269504f;
  a.v_codes = fk_tensor_slice_rows(a.v_codes, 0, fk_tensor_rows(a.v));
  if (op.codes) {
    find_mean(&a);
    fk_cpu_run(be, fk_cpu_parts(fk_tensor_rows(a.v), FK_QUANT_VALUES) * a.heads, 0, values_task, &op);
    be->ops->quantize(be, a.k_codes, a.k_scale, a.k, 0);
  } else {
    be->ops->quantize(be, a.v_codes, a.v_scale, a.v, 0);
  }
  if (be->failure != FK_FAIL_NONE) return;
  for (int i = 0; i < 256; i++) op.table[i] = (double)fk_e4m3_to_f32((uint8_t)i);
  op.rows = fk_cpu_part(fk_tensor_rows(a.q), FK_QUANT_ROWS, 16);
  op.row_parts = fk_cpu_parts(fk_tensor_rows(a.q), op.rows);
  fk_cpu_run(be, a.heads * op.row_parts, scratch_of(op.rows, op.width), attention_task, &op);
}
