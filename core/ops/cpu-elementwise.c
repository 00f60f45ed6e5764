/* SPDX-License-Identifier: Apache-2.0 */
/* Element by element on the CPU: activations, sums, pixels, and the two checks that read everything (distance, finite).
 * The loops are in cpu-math.c; here they meet tensors and threads. */
#include "cpu.h"

/* Elements of a task: 128 KB of float32, some ten times what handing out a task costs. */
#define FK_SPAN_ELEMENTS 32768
#define FK_COMBINE_BLOCK 512

typedef struct {
  const FkTensor *t;
  int count;
  int64_t rows, cols;         /* of the walk: one long row when no tensor has holes */
  int64_t row_part, col_part; /* of a task */
  FkCpuSpan span;
  const void *argument;
} FkSpansOp;

/* Some rows, or some columns of the one long row. */
static void spans_task(const void *data, int64_t task, float *scratch) {
  const FkSpansOp *op = data;
  (void)scratch;
  int64_t parts = fk_cpu_parts(op->cols, op->col_part);
  int64_t col = task % parts * op->col_part, first = task / parts * op->row_part;
  int64_t n = fk_cpu_min(op->col_part, op->cols - col), last = fk_cpu_min(first + op->row_part, op->rows);
  for (int64_t row = first; row < last; row++) {
    void *at[FK_MAX_TERMS + 1];
    for (int i = 0; i < op->count; i++) at[i] = fk_tensor_at(op->t[i], row * op->t[i].ld + col);
    op->span(at, n, op->argument);
  }
}

/* Tensors without holes are walked as one row and cut anywhere; a cut changes no byte, as no element sees another. */
void fk_cpu_spans(FkBackend *be, int count, const FkTensor *t, FkCpuSpan span, const void *argument) {
  FkSpansOp op = {.t = t, .count = count, .span = span, .argument = argument};
  bool dense = true;
  for (int i = 0; i < count; i++) dense = dense && t[i].ld == fk_tensor_cols(t[i]);
  op.rows = dense ? 1 : fk_tensor_rows(t[0]);
  op.cols = dense ? fk_tensor_count(t[0]) : fk_tensor_cols(t[0]);
  if (op.rows == 0 || op.cols == 0) return;
  op.col_part = dense ? FK_SPAN_ELEMENTS : op.cols;
  op.row_part = fk_cpu_max(1, FK_SPAN_ELEMENTS / op.cols);
  fk_cpu_run(be, fk_cpu_parts(op.rows, op.row_part) * fk_cpu_parts(op.cols, op.col_part), 0, spans_task, &op);
}

static void act_span(void *const *t, int64_t n, const void *act) {
  fk_cpu_act_span(t[0], t[1], n, *(const FkAct *)act);
}

static void add_span(void *const *t, int64_t n, const void *argument) {
  (void)argument;
  fk_cpu_add_span(t[0], t[1], t[2], n);
}

static void mul_span(void *const *t, int64_t n, const void *argument) {
  (void)argument;
  fk_cpu_mul_span(t[0], t[1], t[2], n);
}

static void from_u8_span(void *const *t, int64_t n, const void *argument) {
  (void)argument;
  fk_cpu_from_u8_span(t[0], t[1], n);
}

static void to_u8_span(void *const *t, int64_t n, const void *argument) {
  (void)argument;
  fk_cpu_to_u8_span(t[0], t[1], n);
}

void fk_cpu_act(FkBackend *be, FkTensor y, FkTensor x, FkAct act) {
  fk_cpu_spans(be, 2, (FkTensor[]){y, x}, act_span, &act);
}

void fk_cpu_add(FkBackend *be, FkTensor y, FkTensor a, FkTensor b) {
  fk_cpu_spans(be, 3, (FkTensor[]){y, a, b}, add_span, NULL);
}

void fk_cpu_mul(FkBackend *be, FkTensor y, FkTensor a, FkTensor b) {
  fk_cpu_spans(be, 3, (FkTensor[]){y, a, b}, mul_span, NULL);
}

void fk_cpu_from_u8(FkBackend *be, FkTensor y, FkTensor x) {
  fk_cpu_spans(be, 2, (FkTensor[]){y, x}, from_u8_span, NULL);
}

void fk_cpu_to_u8(FkBackend *be, FkTensor y, FkTensor x) {
  fk_cpu_spans(be, 2, (FkTensor[]){y, x}, to_u8_span, NULL);
}

typedef struct {
  FkTensor y, x;
  const float *gate;
  int64_t part;
} FkGateOp;

static void gate_task(const void *data, int64_t task, float *scratch) {
  const FkGateOp *op = data;
  (void)scratch;
  int64_t row = task * op->part, rows = fk_cpu_min(op->part, fk_tensor_rows(op->y) - row);
  fk_cpu_gate_rows(fk_cpu_f32(op->y, row), op->y.ld, fk_cpu_f32(op->x, row), op->x.ld, rows, fk_tensor_cols(op->y),
                   op->gate);
}

void fk_cpu_gate_add(FkBackend *be, FkTensor y, FkTensor x, FkTensor gate) {
  FkGateOp op = {y, x, gate.data, fk_cpu_max(1, FK_SPAN_ELEMENTS / fk_cpu_max(1, fk_tensor_cols(y)))};
  fk_cpu_run(be, fk_cpu_parts(fk_tensor_rows(y), op.part), 0, gate_task, &op);
}

typedef struct {
  int n;
  const float *coef;
} FkCombine;

/* In blocks, because y may be any of the x: all are read before y is written. */
static void combine_span(void *const *t, int64_t n, const void *argument) {
  const FkCombine *combine = argument;
  for (int64_t i = 0; i < n; i += FK_COMBINE_BLOCK) {
    float sum[FK_COMBINE_BLOCK], *y = (float *)t[0] + i;
    int64_t block = fk_cpu_min(FK_COMBINE_BLOCK, n - i);
    for (int64_t j = 0; j < block; j++) sum[j] = combine->coef[0] * ((const float *)t[1])[i + j];
    for (int k = 1; k < combine->n; k++) fk_cpu_axpy_span(sum, (const float *)t[k + 1] + i, block, combine->coef[k]);
    for (int64_t j = 0; j < block; j++) y[j] = sum[j];
  }
}

void fk_cpu_combine(FkBackend *be, FkTensor y, int n, const FkTensor *x, FkTensor coef) {
  FkTensor t[FK_MAX_TERMS + 1] = {y};
  for (int i = 0; i < n; i++) t[i + 1] = x[i];
  FkCombine combine = {n, coef.data};
  fk_cpu_spans(be, n + 1, t, combine_span, &combine);
}

/* Reductions over all elements: rows of the tensors in at most FK_CPU_PARTIALS tasks. */
typedef struct {
  FkTensor a, b;
  int64_t part;
  double *partial; /* [tasks, 2] */
} FkReduceOp;

/* Two sums over some rows; the op adds the tasks' up in their order. */
static void distance_task(const void *data, int64_t task, float *scratch) {
  const FkReduceOp *op = data;
  (void)scratch;
  double *sum = op->partial + 2 * task;
  sum[0] = sum[1] = 0;
  int64_t last = fk_cpu_min((task + 1) * op->part, fk_tensor_rows(op->a));
  for (int64_t row = task * op->part; row < last; row++) {
    double part[2];
    fk_cpu_distance_span(part, fk_cpu_f32(op->a, row), fk_cpu_f32(op->b, row), fk_tensor_cols(op->a));
    sum[0] += part[0];
    sum[1] += part[1];
  }
}

/* Number of rows with something that is not finite. */
static void check_task(const void *data, int64_t task, float *scratch) {
  const FkReduceOp *op = data;
  (void)scratch;
  int64_t last = fk_cpu_min((task + 1) * op->part, fk_tensor_rows(op->a));
  op->partial[task] = 0;
  for (int64_t row = task * op->part; row < last; row++)
    op->partial[task] += !fk_cpu_finite(fk_cpu_f32(op->a, row), fk_tensor_cols(op->a));
}

/* Number of tasks; 0 when there is nothing to do or no memory. */
static int64_t reduce_rows(FkBackend *be, FkReduceOp *op, FkCpuTask run) {
  int64_t rows = fk_tensor_rows(op->a);
  op->partial = fk_cpu_partial(be, 2 * FK_CPU_PARTIALS);
  op->part = fk_cpu_max(fk_cpu_parts(rows, FK_CPU_PARTIALS), FK_SPAN_ELEMENTS / fk_cpu_max(1, fk_tensor_cols(op->a)));
  op->part = fk_cpu_max(op->part, 1);
  int64_t tasks = op->partial ? fk_cpu_parts(rows, op->part) : 0;
  fk_cpu_run(be, tasks, 0, run, op);
  return tasks;
}

void fk_cpu_distance(FkBackend *be, FkTensor out, FkTensor a, FkTensor b) {
  FkReduceOp op = {.a = a, .b = b};
  int64_t tasks = reduce_rows(be, &op, distance_task);
  double sum[2] = {0, 0}, count = (double)fk_tensor_count(a);
  for (int64_t i = 0; i < tasks; i++) {
    sum[0] += op.partial[2 * i];
    sum[1] += op.partial[2 * i + 1];
  }
  ((float *)out.data)[0] = (float)(sum[0] / count);
  ((float *)out.data)[1] = (float)(sum[1] / count);
}

void fk_cpu_check(FkBackend *be, FkTensor x, const char *stage) {
  FkReduceOp op = {.a = x};
  int64_t tasks = reduce_rows(be, &op, check_task);
  double bad = 0;
  for (int64_t i = 0; i < tasks; i++) bad += op.partial[i];
  if (bad > 0) fk_backend_fail(be, FK_FAIL_NONFINITE, "%s", stage);
}
