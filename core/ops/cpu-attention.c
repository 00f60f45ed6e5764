/* SPDX-License-Identifier: Apache-2.0 */
/* Attention on the CPU: per head and block of query rows, key block after key block with the running maximum and sum of
 * the softmax, so no Sq x Sk matrix exists.
 *
 *   m' = max(m, max_j s_j);  c = exp(m - m');  l' = c l + sum_j exp(s_j - m');  O' = c O + exp(s - m') V;  o = O / l
 *
 * Scores, probabilities and O are float32; l is summed in double over the key blocks. */
#include "cpu.h"

#include <math.h>
#include <string.h>

/* 144 rows x up to 512 keys of scores are 295 KB: together with the K and V blocks of a 128-wide head (0.5 MB) in L2.
 */
#define FK_ATTENTION_ROWS 144
#define FK_ATTENTION_KEYS 512

typedef struct {
  const FkAttention *a;
  int64_t rows, keys; /* block sizes */
  int64_t row_parts;
  int64_t width; /* E */
} FkAttentionOp;

/* Adds the bias and masks j > i of scores [rows, keys] that start at query `row`, key `key`. */
static void add_bias(const FkAttentionOp *op, float *s, int64_t head, int64_t row, int64_t rows, int64_t key,
                     int64_t keys) {
  const FkAttention *a = op->a;
  int64_t queries = fk_tensor_rows(a->q);
  for (int64_t r = 0; r < rows; r++) {
    int64_t i = row + r;
    if (fk_tensor_given(a->bias))
      fk_cpu_add_span(s + r * keys, s + r * keys, fk_cpu_f32(a->bias, head) + key - i + queries - 1, keys);
    for (int64_t j = a->causal ? fk_cpu_max(i + 1 - key, 0) : keys; j < keys; j++) s[r * keys + j] = -INFINITY;
  }
}

/* Scores to probabilities of one key block; rescales what the blocks before left in `o`. */
static void softmax_rows(float *s, int64_t rows, int64_t keys, float *max, double *sum, float *o, int64_t width,
                         bool first) {
  for (int64_t r = 0; r < rows; r++) {
    float block = fk_cpu_row_max(s + r * keys, keys);
    float top = first || block > max[r] ? block : max[r];
    if (first) {
      sum[r] = 0;
    } else if (top > max[r]) {
      float factor;
      fk_cpu_exp(&factor, &(float){max[r] - top}, 1);
      sum[r] *= (double)factor;
      fk_cpu_scale_span(o + r * width, width, factor);
    }
    max[r] = top;
    sum[r] += (double)fk_cpu_softmax_span(s + r * keys, keys, top);
  }
}

/* One head of one block of query rows, over all keys it may see. */
static void attention_task(const void *data, int64_t task, float *scratch) {
  const FkAttentionOp *op = data;
  const FkAttention *a = op->a;
  int64_t head = task / op->row_parts, row = task % op->row_parts * op->rows, width = op->width;
  int64_t rows = fk_cpu_min(op->rows, fk_tensor_rows(a->q) - row), total = fk_tensor_rows(a->k);
  if (a->causal) total = fk_cpu_min(total, row + rows);
  /* scratch: scores [rows, keys], O [rows, width], running maximum [rows]. */
  float *s = scratch, *o = s + op->rows * op->keys, *max = o + op->rows * width;
  double sum[FK_ATTENTION_ROWS];
  const float *q = fk_cpu_f32(a->q, row) + head * width;

  for (int64_t key = 0; key < total; key += op->keys) {
    int64_t keys = fk_cpu_min(op->keys, total - key);
    fk_cpu_gemm(true, rows, keys, width, a->scale, q, a->q.ld, fk_cpu_f32(a->k, key) + head * width, a->k.ld, 0.0f, s,
                keys);
    add_bias(op, s, head, row, rows, key, keys);
    softmax_rows(s, rows, keys, max, sum, o, width, key == 0);
    fk_cpu_gemm(false, rows, width, keys, 1.0f, s, keys, fk_cpu_f32(a->v, key) + head * width, a->v.ld,
                key == 0 ? 0.0f : 1.0f, o, width);
  }
  /* Only now, because o may be q. */
  for (int64_t r = 0; r < rows; r++) {
    float *out = fk_cpu_f32(a->o, row + r) + head * width;
    memcpy(out, o + r * width, (size_t)width * sizeof *out);
    fk_cpu_scale_span(out, width, (float)(1.0 / sum[r]));
  }
}

/* Codes have a file of their own. */
void fk_cpu_attention(FkBackend *be, const FkAttention *a) {
  if (fk_tensor_given(a->v_codes)) {
    fk_cpu_attention_codes(be, a);
    return;
  }
  FkAttentionOp op = {.a = a, .width = fk_tensor_cols(a->q) / a->heads};
  op.rows = fk_cpu_part(fk_tensor_rows(a->q), FK_ATTENTION_ROWS, 16);
  op.keys = fk_cpu_part(fk_tensor_rows(a->k), FK_ATTENTION_KEYS, 16);
  op.row_parts = fk_cpu_parts(fk_tensor_rows(a->q), op.rows);
  size_t scratch = (size_t)(op.rows * (op.keys + op.width + 1));
  fk_cpu_run(be, a->heads * op.row_parts, scratch, attention_task, &op);
}
