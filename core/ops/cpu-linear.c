/* SPDX-License-Identifier: Apache-2.0 */
/* Linear layers on the CPU: blocks of rows x columns, one product each, with the epilogue while the block is in cache.
 *
 * The plain op and every epilogue take the same blocks and the same roundings, so a fused linear and its composition
 * (ops.c) give the same bytes as long as heads divide FK_LINEAR_UNIT. */
#include "cpu.h"

/* clang-format off */
/* Blocks of 288 x 256 reach the full rate of the product; half as many rows lose 4 %, half of both 8 %. Where that
 * makes too few blocks to share, rows are halved first, then columns:
 *   576 x 1792   14 blocks of 288 x 256
 *   512 x 1024   16 blocks of 128 x 256
 *   576 x  256    8 blocks of 144 x 128
 * Columns are cut at multiples of a head, so that a row of a head lies in one block. */
/* clang-format on */
#define FK_LINEAR_ROWS 288
#define FK_LINEAR_COLS 256
#define FK_LINEAR_UNIT 128
#define FK_LINEAR_BLOCKS 12

typedef struct {
  int64_t rows, cols;           /* of a block */
  int64_t row_parts, col_parts; /* blocks */
} FkLinearGrid;

typedef struct {
  const FkLinear *l;
  int groups;
  FkLinearGrid grid[FK_MAX_GROUPS];
  size_t product_scratch; /* floats of a task before those of its block */
} FkLinearOp;

/* Blocks of a product, by its shape alone. */
static FkLinearGrid grid_of(int64_t m, int64_t n, int64_t unit) {
  FkLinearGrid g = {0};
  for (int halvings = 0; halvings <= 2 && g.row_parts * g.col_parts < FK_LINEAR_BLOCKS; halvings++) {
    g.rows = fk_cpu_part(m, halvings > 0 ? FK_LINEAR_ROWS / 2 : FK_LINEAR_ROWS, 16);
    g.cols = fk_cpu_part(n, halvings > 1 ? FK_LINEAR_COLS / 2 : FK_LINEAR_COLS, unit);
    g.row_parts = fk_cpu_parts(m, g.rows);
    g.col_parts = fk_cpu_parts(n, g.cols);
  }
  return g;
}

/* Columns first..first+cols of the blocks [K | V | Q | MLP], see FK_EPI_QKV. */
static void finish_qkv(const FkLinear *l, float *y, int64_t row, int64_t rows, int64_t first, int64_t cols) {
  for (int64_t c = first; c < first + cols;) {
    int64_t part = c / l->width;
    int64_t end = part < 3 ? fk_cpu_min((part + 1) * l->width, first + cols) : first + cols;
    FkTensor norm = part == 0 ? l->k_norm : l->q_norm;
    for (int64_t r = 0; r < rows && part != 1; r++) {
      float *at = y + r * l->y.ld + c - first;
      if (part >= 3) {
        fk_cpu_act_span(at, at, end - c, FK_ACT_GELU_TANH);
        continue;
      }
      int64_t width = norm.dim[0];
      fk_cpu_rms_heads(at, at, end - c, width, norm.data, 1e-6f);
      for (int64_t head = 0; head < end - c; head += width)
        fk_cpu_rope_span(at + head, fk_cpu_f32(l->rope, row + r), width);
    }
    c = end;
  }
}

/* One block of one group: product, bias, epilogue. A residual block is computed in scratch and then added to y. */
static void linear_task(const void *data, int64_t task, float *scratch) {
  const FkLinearOp *op = data;
  int group = 0;
  for (; task >= op->grid[group].row_parts * op->grid[group].col_parts; group++)
    task -= op->grid[group].row_parts * op->grid[group].col_parts;
  const FkLinear *l = &op->l[group];
  const FkLinearGrid *g = &op->grid[group];

  int64_t row = task / g->col_parts * g->rows, col = task % g->col_parts * g->cols;
  int64_t rows = fk_cpu_min(g->rows, fk_tensor_rows(l->y) - row), cols = fk_cpu_min(g->cols, l->w.out - col);
  float *y = fk_cpu_f32(l->y, row) + col;
  bool residual = l->epilogue == FK_EPI_GATE || l->epilogue == FK_EPI_ADD;
  float *out = residual ? scratch + op->product_scratch : y;
  int64_t ld = residual ? cols : l->y.ld;

  if (l->w.scale.kind != FK_SCALE_NONE)
    fk_cpu_quant_product(l, row, rows, col, cols, out, ld, scratch);
  else
    fk_cpu_gemm(true, rows, cols, l->w.in, 1.0f, fk_cpu_f32(l->x, row), l->x.ld,
                (const float *)l->w.data + col * l->w.in, l->w.in, 0.0f, out, ld);
  if (fk_tensor_given(l->bias)) fk_cpu_bias_rows(out, ld, rows, cols, (const float *)l->bias.data + col);
  if (l->epilogue == FK_EPI_GATE)
    fk_cpu_gate_rows(y, l->y.ld, out, ld, rows, cols, (const float *)l->gate.data + col);
  else if (l->epilogue == FK_EPI_ADD)
    fk_cpu_add_rows(y, l->y.ld, out, ld, rows, cols);
  else if (l->epilogue == FK_EPI_QKV)
    finish_qkv(l, y, row, rows, col, cols);
  else if (l->act != FK_ACT_NONE)
    for (int64_t r = 0; r < rows; r++) fk_cpu_act_span(y + r * l->y.ld, y + r * l->y.ld, cols, l->act);
}

bool fk_cpu_linear_fused(FkBackend *be, const FkLinear *l, int groups) {
  FkLinearOp op = {.l = l, .groups = groups};
  int64_t tasks = 0, block = 0;
  assert(!fk_tensor_given(l->y_codes)); /* without FK_CAN_FUSED_CODES nobody asks */
  for (int i = 0; i < groups; i++) {
    const bool quantised = l[i].w.scale.kind != FK_SCALE_NONE;
    assert(l[i].y.dtype == FK_F32 && (quantised || (l[i].x.dtype == FK_F32 && l[i].w.dtype == FK_F32)));
    int64_t unit = FK_LINEAR_UNIT;
    if (l[i].epilogue == FK_EPI_QKV)
      while (unit % l[i].q_norm.dim[0] != 0) unit += FK_LINEAR_UNIT;
    op.grid[i] = grid_of(fk_tensor_rows(l[i].y), l[i].w.out, unit);
    tasks += op.grid[i].row_parts * op.grid[i].col_parts;
    const size_t product = quantised ? fk_cpu_quant_scratch(&l[i], op.grid[i].rows, op.grid[i].cols) : 0;
    if (product > op.product_scratch) op.product_scratch = product;
    block = fk_cpu_max(block, op.grid[i].rows * op.grid[i].cols);
  }
  fk_cpu_run(be, tasks, op.product_scratch + (size_t)block, linear_task, &op);
  return true;
}

void fk_cpu_linear(FkBackend *be, const FkLinear *l) {
  fk_cpu_linear_fused(be, l, 1);
}
