/* SPDX-License-Identifier: Apache-2.0 */
/* Normalisations and the rotary embedding on the CPU. Statistics are double precision sums; what is applied to the
 * elements is float32. */
#include "cpu.h"

#include <math.h>

/* Elements of a task, as in cpu-elementwise.c. */
#define FK_NORM_ELEMENTS 32768

/* A row is never cut: its statistics are one task's. */
static int64_t rows_per_task(FkTensor x) {
  return fk_cpu_max(1, FK_NORM_ELEMENTS / fk_cpu_max(1, fk_tensor_cols(x)));
}

typedef struct {
  const FkLayerNorm *n;
  int64_t part[FK_MAX_GROUPS], parts[FK_MAX_GROUPS];
} FkLayerNormOp;

static void layer_norm_task(const void *data, int64_t task, float *scratch) {
  const FkLayerNormOp *op = data;
  (void)scratch;
  int group = 0;
  for (; task >= op->parts[group]; group++) task -= op->parts[group];
  const FkLayerNorm *n = &op->n[group];
  int64_t cols = fk_tensor_cols(n->x), first = task * op->part[group];
  int64_t last = fk_cpu_min(first + op->part[group], fk_tensor_rows(n->x));
  /* scale is around 0 (modulation), weight around 1. */
  bool modulated = fk_tensor_given(n->scale) || fk_tensor_given(n->shift);
  const float *scale = modulated ? n->scale.data : n->weight.data, *shift = modulated ? n->shift.data : n->bias.data;
  for (int64_t row = first; row < last; row++) {
    const float *x = fk_cpu_f32(n->x, row);
    double mean = fk_cpu_sum(x, cols) / (double)cols;
    double variance = fk_cpu_sum_squares(x, cols, mean) / (double)cols;
    fk_cpu_norm_span(fk_cpu_f32(n->y, row), x, cols, (float)mean, (float)(1.0 / sqrt(variance + (double)n->eps)),
                     modulated ? 1.0f : 0.0f, scale, shift);
  }
}

void fk_cpu_layer_norm(FkBackend *be, const FkLayerNorm *n, int groups) {
  FkLayerNormOp op = {.n = n};
  int64_t tasks = 0;
  for (int i = 0; i < groups; i++) {
    op.part[i] = rows_per_task(n[i].x);
    op.parts[i] = fk_cpu_parts(fk_tensor_rows(n[i].x), op.part[i]);
    tasks += op.parts[i];
  }
  fk_cpu_run(be, tasks, 0, layer_norm_task, &op);
}

/* x / sqrt(mean x^2 + eps) * weight for each group of `width` columns; weight may be NULL. */
void fk_cpu_rms_heads(float *y, const float *x, int64_t cols, int64_t width, const float *weight, float eps) {
  for (int64_t c = 0; c < cols; c += width) {
    double square = fk_cpu_sum_squares(x + c, width, 0.0) / (double)width;
    fk_cpu_norm_span(y + c, x + c, width, 0.0f, (float)(1.0 / sqrt(square + (double)eps)), 0.0f, weight, NULL);
  }
}

typedef struct {
  FkTensor y, x, vector; /* vector: weight [E] or table [S, E] */
  int64_t width, part;
  float eps;
} FkHeadsOp;

static void rms_task(const void *data, int64_t task, float *scratch) {
  const FkHeadsOp *op = data;
  (void)scratch;
  int64_t last = fk_cpu_min((task + 1) * op->part, fk_tensor_rows(op->x));
  for (int64_t row = task * op->part; row < last; row++)
    fk_cpu_rms_heads(fk_cpu_f32(op->y, row), fk_cpu_f32(op->x, row), fk_tensor_cols(op->x), op->width, op->vector.data,
                     op->eps);
}

/* E is the weight's size: columns may be N heads of E beside each other. */
void fk_cpu_rms_norm(FkBackend *be, FkTensor y, FkTensor x, FkTensor weight, float eps) {
  int64_t width = fk_tensor_given(weight) ? weight.dim[0] : fk_tensor_cols(x);
  FkHeadsOp op = {y, x, weight, width, rows_per_task(x), eps};
  fk_cpu_run(be, fk_cpu_parts(fk_tensor_rows(x), op.part), 0, rms_task, &op);
}

static void rope_task(const void *data, int64_t task, float *scratch) {
  const FkHeadsOp *op = data;
  (void)scratch;
  int64_t last = fk_cpu_min((task + 1) * op->part, fk_tensor_rows(op->x));
  for (int64_t row = task * op->part; row < last; row++)
    for (int64_t c = 0; c < fk_tensor_cols(op->x); c += op->width)
      fk_cpu_rope_span(fk_cpu_f32(op->x, row) + c, fk_cpu_f32(op->vector, row), op->width);
}

void fk_cpu_rope(FkBackend *be, FkTensor x, FkTensor table, int64_t heads) {
  FkHeadsOp op = {x, x, table, fk_tensor_cols(x) / heads, rows_per_task(x), 0};
  fk_cpu_run(be, fk_cpu_parts(fk_tensor_rows(x), op.part), 0, rope_task, &op);
}

/* Two passes over the pixels: moments per channel and task, then (x - mean) * scale + shift per channel. */
typedef struct {
  const FkGroupNorm *n;
  bool silu;
  int64_t part;
  double *moments;             /* [tasks, 2, C] */
  float *mean, *scale, *shift; /* [C] */
} FkGroupNormOp;

static void moments_task(const void *data, int64_t task, float *scratch) {
  const FkGroupNormOp *op = data;
  (void)scratch;
  FkTensor x = op->n->x;
  int64_t channels = fk_tensor_cols(x), row = task * op->part;
  double *sum = op->moments + 2 * channels * task;
  for (int64_t c = 0; c < 2 * channels; c++) sum[c] = 0;
  fk_cpu_column_moments(sum, sum + channels, fk_cpu_f32(x, row), x.ld, fk_cpu_min(op->part, fk_tensor_rows(x) - row),
                        channels);
}

static void apply_task(const void *data, int64_t task, float *scratch) {
  const FkGroupNormOp *op = data;
  (void)scratch;
  FkTensor x = op->n->x, y = op->n->y;
  int64_t channels = fk_tensor_cols(x), row = task * op->part;
  int64_t rows = fk_cpu_min(op->part, fk_tensor_rows(x) - row);
  float *to = fk_cpu_f32(y, row);
  fk_cpu_affine_rows(to, y.ld, fk_cpu_f32(x, row), x.ld, rows, channels, op->mean, op->scale, op->shift);
  if (op->silu && y.ld == channels)
    fk_cpu_act_span(to, to, rows * channels, FK_ACT_SILU);
  else if (op->silu)
    for (int64_t r = 0; r < rows; r++) fk_cpu_act_span(to + r * y.ld, to + r * y.ld, channels, FK_ACT_SILU);
}

/* Per channel: the group's mean, rstd * weight, bias. */
static void channel_vectors(const FkGroupNormOp *op, int64_t tasks) {
  const FkGroupNorm *n = op->n;
  int64_t channels = fk_tensor_cols(n->x), width = channels / n->groups;
  double count = (double)(fk_tensor_rows(n->x) * width);
  for (int64_t group = 0; group < n->groups; group++) {
    double sum = 0, square = 0;
    for (int64_t task = 0; task < tasks; task++)
      for (int64_t c = group * width; c < (group + 1) * width; c++) {
        sum += op->moments[2 * channels * task + c];
        square += op->moments[2 * channels * task + channels + c];
      }
    double mean = sum / count, variance = square / count - mean * mean;
    double rstd = 1.0 / sqrt((variance > 0 ? variance : 0) + (double)n->eps);
    for (int64_t c = group * width; c < (group + 1) * width; c++) {
      op->mean[c] = (float)mean;
      op->scale[c] = (float)(rstd * (fk_tensor_given(n->weight) ? (double)((const float *)n->weight.data)[c] : 1.0));
      op->shift[c] = fk_tensor_given(n->bias) ? ((const float *)n->bias.data)[c] : 0.0f;
    }
  }
}

/* The number of tasks of the first pass, whose sums are added in task order, is bounded for memory. */
static void group_norm(FkBackend *be, const FkGroupNorm *n, bool silu) {
  int64_t channels = fk_tensor_cols(n->x), rows = fk_tensor_rows(n->x);
  FkGroupNormOp op = {.n = n, .silu = silu};
  op.part = fk_cpu_max(rows_per_task(n->x), fk_cpu_parts(rows, FK_CPU_PARTIALS));
  op.moments = fk_cpu_partial(be, (size_t)(channels * (2 * FK_CPU_PARTIALS + 2)));
  if (!op.moments) return;
  op.mean = (float *)(op.moments + 2 * channels * FK_CPU_PARTIALS);
  op.scale = op.mean + channels;
  op.shift = op.scale + channels;
  int64_t tasks = fk_cpu_parts(rows, op.part);
  fk_cpu_run(be, tasks, 0, moments_task, &op);
  channel_vectors(&op, tasks);
  fk_cpu_run(be, tasks, 0, apply_task, &op);
}

void fk_cpu_group_norm(FkBackend *be, const FkGroupNorm *n) {
  group_norm(be, n, false);
}

bool fk_cpu_group_norm_silu(FkBackend *be, const FkGroupNorm *n) {
  group_norm(be, n, n->silu);
  return true;
}
