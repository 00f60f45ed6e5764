/* SPDX-License-Identifier: Apache-2.0 */
/* Products of quantised operands on the CPU: one block of rows x columns, for cpu-linear.c. The specification of what a
 * kernel sums where (FkLinear).
 *
 * Codes are widened to double and multiplied by the matrix library, whatever its order of summation: the sums are
 * exact. An E4M3 number is a multiple of 2^-9 of at most 448 < 2^9, so a product is a multiple of 2^-18 below 2^18, and
 * every partial sum of 2^17 products is a multiple of 2^-18 below 2^35: 53 bits, which double holds. A product of int8
 * codes is an integer of at most 127^2 < 2^14: 2^17 products stay below 2^31. FK_QUANT_MAX_K is 2^17. */
#include "cpu.h"
#include "number.h"

/* Columns of K that are widened at a time: with blocks of 288 x 256, 2.2 MB of doubles. A k-block of E4M3. */
#define FK_QUANT_PANEL 512
/* Columns of K of a weight that is made numbers: 1 MB of float32. */
#define FK_QUANT_NUMBERS 1024

/* What codes stand for, without scale. */
static void code_table(double *table, FkDtype dtype) {
  for (int i = 0; i < 256; i++) table[i] = dtype == FK_I8 ? (double)(int8_t)i : (double)fk_e4m3_to_f32((uint8_t)i);
}

static void widen(double *to, const double *table, const uint8_t *codes, int64_t ld, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < cols; c++) to[r * cols + c] = table[codes[r * ld + c]];
}

static float scale_at(FkScale scale, int64_t i) {
  return scale.dtype == FK_E8M0 ? fk_e8m0_to_f32(((const uint8_t *)scale.data)[i]) : ((const float *)scale.data)[i];
}

/* The weight's scale for row n and column k of it. */
static float weight_scale(const FkWeight *w, int64_t n, int64_t k) {
  switch (w->scale.kind) {
  case FK_SCALE_TENSOR: return scale_at(w->scale, 0);
  case FK_SCALE_ROW: return scale_at(w->scale, n);
  case FK_SCALE_BLOCK: return scale_at(w->scale, n * (w->in / w->scale.block) + k / w->scale.block);
  case FK_SCALE_NONE: break;
  }
  return 1.0f;
}

/* x has a scale for each 128 columns of a row. */
static bool is_blocked(const FkLinear *l) {
  return l->x_scale.rank > 1;
}

/* Columns of K whose products make one number `acc` of the specification. */
static int64_t block_size(const FkLinear *l) {
  const int64_t all = l->w.in;
  int64_t size = is_blocked(l) ? FK_QUANT_BLOCK : l->x.dtype == FK_E4M3 ? FK_QUANT_PROMOTE : all;
  if (l->w.scale.kind == FK_SCALE_BLOCK) size = fk_cpu_min(size, l->w.scale.block);
  return fk_cpu_min(size, all);
}

typedef struct {
  const FkLinear *l;
  int64_t row, rows, col, cols; /* of the block */
  float *y;
  int64_t ld;
  double *x, *w, *acc; /* [rows, panel], [cols, panel], [rows, cols] */
  double table[256];
} FkQuantBlock;

/* acc = the sums of products over columns first..first+n of K. */
static void sum_codes(FkQuantBlock *b, int64_t first, int64_t n) {
  const FkLinear *l = b->l;
  for (int64_t k = first; k < first + n; k += FK_QUANT_PANEL) {
    const int64_t panel = fk_cpu_min(FK_QUANT_PANEL, first + n - k);
    widen(b->x, b->table, (const uint8_t *)l->x.data + b->row * l->x.ld + k, l->x.ld, b->rows, panel);
    widen(b->w, b->table, (const uint8_t *)l->w.data + b->col * l->w.in + k, l->w.in, b->cols, panel);
    fk_cpu_gemm_double(true, b->rows, b->cols, panel, b->x, panel, b->w, panel, k == first ? 0.0 : 1.0, b->acc,
                       b->cols);
  }
}

/* y += acc with the scales that belong to these columns of K alone. */
static void add_terms(const FkQuantBlock *b, int64_t k, float *scale) {
  const FkLinear *l = b->l;
  const bool of_x = is_blocked(l), of_w = l->w.scale.kind == FK_SCALE_BLOCK;
  for (int64_t c = 0; of_w && c < b->cols; c++) scale[c] = weight_scale(&l->w, b->col + c, k);
  for (int64_t r = 0; r < b->rows; r++) {
    const float sa = of_x ? fk_cpu_f32(l->x_scale, b->row + r)[k / FK_QUANT_BLOCK] : 1.0f;
    fk_cpu_promote_span(b->y + r * b->ld, b->acc + r * b->cols, b->cols, sa, of_w ? scale : NULL);
  }
}

/* y times the scales that hold for all of K: a row's of x, then the weight's. */
static void apply_scales(const FkQuantBlock *b, float *scale) {
  const FkLinear *l = b->l;
  const bool of_w = l->w.scale.kind != FK_SCALE_BLOCK;
  for (int64_t c = 0; c < b->cols; c++) scale[c] = of_w ? weight_scale(&l->w, b->col + c, 0) : 1.0f;
  for (int64_t r = 0; r < b->rows; r++) {
    float *y = b->y + r * b->ld;
    if (!is_blocked(l)) fk_cpu_scale_span(y, b->cols, ((const float *)l->x_scale.data)[b->row + r]);
    fk_cpu_mul_span(y, y, scale, b->cols);
  }
}

size_t fk_cpu_quant_scratch(const FkLinear *l, int64_t rows, int64_t cols) {
  if (!fk_tensor_given(l->x_scale)) return (size_t)(cols * fk_cpu_min(FK_QUANT_NUMBERS, l->w.in));
  return (size_t)(2 * ((rows + cols) * fk_cpu_min(FK_QUANT_PANEL, l->w.in) + rows * cols) + cols);
}

/* Block after block of K in order: each ends in float32. */
static void codes_product(const FkLinear *l, int64_t row, int64_t rows, int64_t col, int64_t cols, float *y, int64_t ld,
                          float *scratch) {
  const int64_t panel = fk_cpu_min(FK_QUANT_PANEL, l->w.in), size = block_size(l);
  FkQuantBlock b = {
      .l = l, .row = row, .rows = rows, .col = col, .cols = cols, .y = y, .ld = ld, .x = (double *)scratch};
  b.w = b.x + rows * panel;
  b.acc = b.w + cols * panel;
  float *scale = (float *)(b.acc + rows * cols);
  code_table(b.table, l->x.dtype);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < cols; c++) y[r * ld + c] = 0;
  for (int64_t k = 0; k < l->w.in; k += size) {
    sum_codes(&b, k, fk_cpu_min(size, l->w.in - k));
    add_terms(&b, k, scale);
  }
  apply_scales(&b, scale);
}

/* x in numbers: the weight is made numbers, FK_QUANT_NUMBERS columns of K at a time. */
static void numbers_product(const FkLinear *l, int64_t row, int64_t rows, int64_t col, int64_t cols, float *y,
                            int64_t ld, float *scratch) {
  double table[256];
  code_table(table, l->w.dtype);
  for (int64_t k = 0; k < l->w.in; k += FK_QUANT_NUMBERS) {
    const int64_t n = fk_cpu_min(FK_QUANT_NUMBERS, l->w.in - k);
    for (int64_t c = 0; c < cols; c++) {
      const uint8_t *codes = (const uint8_t *)l->w.data + (col + c) * l->w.in + k;
      for (int64_t i = 0; i < n; i++) scratch[c * n + i] = (float)table[codes[i]] * weight_scale(&l->w, col + c, k + i);
    }
    fk_cpu_gemm(true, rows, cols, n, 1.0f, fk_cpu_f32(l->x, row) + k, l->x.ld, scratch, n, k == 0 ? 0.0f : 1.0f, y, ld);
  }
}

void fk_cpu_quant_product(const FkLinear *l, int64_t row, int64_t rows, int64_t col, int64_t cols, float *y, int64_t ld,
                          float *scratch) {
  if (fk_tensor_given(l->x_scale))
    codes_product(l, row, rows, col, cols, y, ld, scratch);
  else
    numbers_product(l, row, rows, col, cols, y, ld, scratch);
}
