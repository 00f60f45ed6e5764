/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of quantised operands: products and attention of codes, with every kind of scale. References are in double
 * precision and round to float32 where backend.h says so; what is only products and sums is expected to the bit. */
#include "ops-cases.h"

#include "number-reference.h"

#include <string.h>

static double code_value(FkDtype dtype, guint8 code) {
  static double table[256];
  for (guint i = 0; table[1] == 0 && i < 256; i++) table[255 - i] = format_value(&format_e4m3, 255 - i);
  return dtype == FK_I8 ? (double)(gint8)code : table[code];
}

static double code_at(FkTensor t, gint64 row, gint64 col) {
  return code_value(t.dtype, ((const guint8 *)t.data)[row * t.ld + col]);
}

/* A product: block 0 is one scale for each row of x; weight_block 0 for each row of w, -1 for all of it. */
typedef struct {
  gint64 m[2], n, k;
  FkDtype dtype; /* of the weight, and of x unless it is numbers */
  gboolean numbers;
  gint64 block, weight_block;
  gboolean e8m0;
  FkEpilogue epilogue;
  FkAct act;
  gint64 width, head; /* QKV */
  gint64 y_block;     /* codes out: columns under one scale, -1: the row; 0: numbers out */
  float given;        /* that scale; 0: measured */
} QuantLinear;

static FkWeight weight_of(Case *c, const QuantLinear *s) {
  FkWeight w = {.data = case_codes(c, s->dtype, s->n, s->k, 0).data, .dtype = s->dtype, .out = s->n, .in = s->k};
  w.scale.kind = s->weight_block > 0 ? FK_SCALE_BLOCK : s->weight_block ? FK_SCALE_TENSOR : FK_SCALE_ROW;
  w.scale.block = (int)MAX(s->weight_block, 0);
  const gint64 count = s->weight_block > 0 ? s->n * s->k / s->weight_block : s->weight_block ? 1 : s->n;
  FkTensor scale = case_1d(c, count);
  w.scale.dtype = s->e8m0 ? FK_E8M0 : FK_F32;
  if (s->e8m0) scale = fk_tensor_row(case_codes(c, FK_E8M0, 1, count, 3), 0);
  w.scale.data = scale.data;
  for (gint64 i = 0; i < count; i++)
    if (s->e8m0)
      ((guint8 *)scale.data)[i] = (guint8)(120 + i % 9);
    else
      ((float *)scale.data)[i] = (float)exp2(4 * (double)((float *)scale.data)[i] - (s->numbers ? 12 : 0));
  return w;
}

static double weight_scale(const FkWeight *w, gint64 n, gint64 k) {
  const gint64 i = w->scale.kind == FK_SCALE_TENSOR ? 0
                   : w->scale.kind == FK_SCALE_ROW  ? n
                                                    : n * (w->in / w->scale.block) + k / w->scale.block;
  return w->scale.dtype == FK_F32 ? (double)((const float *)w->scale.data)[i]
                                  : ldexp(1, ((const guint8 *)w->scale.data)[i] - 127);
}

/* One number of the product: exact sums over a k-block, everything else rounded to float32. */
static double naive_codes(const FkLinear *l, gint64 m, gint64 n) {
  const gint64 all = l->w.in;
  const gboolean blocked = l->x_scale.rank == 2, weight_blocked = l->w.scale.kind == FK_SCALE_BLOCK;
  gint64 block = blocked ? 128 : l->x.dtype == FK_E4M3 ? 512 : all;
  if (weight_blocked) block = MIN(block, l->w.scale.block);
  float y = 0;
  for (gint64 k = 0; k < all; k += block) {
    double sum = 0;
    for (gint64 i = k; i < MIN(k + block, all); i++)
      sum += code_at(l->x, m, i) * code_value(l->w.dtype, ((const guint8 *)l->w.data)[n * all + i]);
    float scale = blocked ? (float)at(l->x_scale, m, k / 128) : 1;
    if (weight_blocked) scale *= (float)weight_scale(&l->w, n, k);
    y += scale * (float)sum;
  }
  if (!blocked) y *= (float)at(l->x_scale, 0, m);
  if (!weight_blocked) y *= (float)weight_scale(&l->w, n, 0);
  return (double)y;
}

static double naive_numbers(const FkLinear *l, gint64 m, gint64 n) {
  double sum = 0;
  for (gint64 k = 0; k < l->w.in; k++) {
    const double code = code_value(l->w.dtype, ((const guint8 *)l->w.data)[n * l->w.in + k]);
    sum += at(l->x, m, k) * (double)(float)(code * weight_scale(&l->w, n, k));
  }
  return sum;
}

static double *expect(const FkLinear *l, const double *before) {
  const gint64 rows = fk_tensor_rows(l->x), n = l->w.out, d = l->width;
  double *y = g_new(double, rows *n);
  for (gint64 r = 0; r < rows; r++) {
    double *row = y + r * n;
    for (gint64 c = 0; c < n; c++) {
      float v = (float)(fk_tensor_given(l->x_scale) ? naive_codes(l, r, c) : naive_numbers(l, r, c));
      if (fk_tensor_given(l->bias)) v += (float)at(l->bias, 0, c);
      if (l->epilogue == FK_EPI_GATE) v *= (float)at(l->gate, 0, c);
      if (l->epilogue == FK_EPI_GATE || l->epilogue == FK_EPI_ADD) v += (float)before[r * n + c];
      row[c] = l->epilogue == FK_EPI_ACT ? naive_act((double)v, l->act)
               : c >= 3 * d && d > 0     ? naive_act((double)v, FK_ACT_GELU_TANH)
                                         : (double)v;
    }
    if (l->epilogue != FK_EPI_QKV) continue;
    naive_rms(row, d, l->k_norm, 1e-6);
    naive_rope(row, d, l->rope, r);
    naive_rms(row + 2 * d, d, l->q_norm, 1e-6);
    naive_rope(row + 2 * d, d, l->rope, r);
  }
  return y;
}

static FkLinear linear_of(Case *c, const QuantLinear *s, gint64 m) {
  FkLinear l = {.w = weight_of(c, s), .epilogue = s->epilogue, .act = s->act, .width = s->width};
  l.x = s->numbers ? case_2d(c, m, s->k, 5) : case_codes(c, s->dtype, m, s->k, 5);
  if (!s->numbers) l.x_scale = case_scales(c, m, s->block ? s->k / s->block : 0);
  for (gint64 i = 0; !s->numbers && i < fk_tensor_count(l.x_scale); i++) /* sums of about 1 behind the scales */
    ((float *)l.x_scale.data)[i / fk_tensor_cols(l.x_scale) * l.x_scale.ld + i % fk_tensor_cols(l.x_scale)] *= 0x1p-20f;
  l.y = case_2d(c, m, s->n, 3);
  if (s->y_block) {
    const gint64 cols = s->n - 3 * s->width;
    l.y_codes = case_codes(c, FK_E4M3, m, cols, 3);
    l.y_scale = case_scales(c, m, s->y_block > 0 ? cols / s->y_block : 0);
    l.given = s->given;
  }
  l.bias = case_1d(c, s->n);
  l.gate = case_1d(c, s->n);
  if (!s->width) return l;
  l.q_norm = case_1d(c, s->head);
  l.k_norm = case_1d(c, s->head);
  l.rope = case_2d(c, m, s->head, 2);
  return l;
}

/* Codes out: the same op with numbers out, then quantize; both have their own tests. The columns that leave as numbers
 * are the same too. */
static void expect_codes(Case *c, FkArena *arena, const FkLinear *l) {
  FkLinear numbers = *l;
  const gint64 rows = fk_tensor_rows(l->y), all = fk_tensor_cols(l->y), cols = fk_tensor_cols(l->y_codes);
  numbers.y_codes = numbers.y_scale = fk_tensor_none();
  numbers.y = case_2d(c, rows, all, 0);
  fk_op_linear(c->be, arena, &numbers, 1);
  FkTensor y = case_codes(c, FK_E4M3, rows, cols, 0), scale = case_2d(c, rows, fk_tensor_cols(l->y_scale), 0);
  if (l->y_scale.rank == 1) scale = case_1d(c, rows);
  fk_op_quantize_given(c->be, y, scale, fk_tensor_slice_cols(numbers.y, all - cols, cols), l->given);
  double *codes = g_new(double, rows *cols);
  for (gint64 i = 0; i < rows * cols; i++) codes[i] = ((const guint8 *)y.data)[i];
  case_expect(c, l->y_codes, codes);
  case_expect(c, l->y_scale, case_read(scale));
  if (cols < all)
    case_expect(c, fk_tensor_slice_cols(l->y, 0, all - cols),
                case_read(fk_tensor_slice_cols(numbers.y, 0, all - cols)));
}

static void run_linear(Case *c, const QuantLinear *shape) {
  QuantLinear s = *shape;
  if (c->large) s.m[0] = c->large->m, s.m[1] = 0, s.n = c->large->n, s.k = c->large->k;
  if (c->large && s.width) s.width = s.n / 7, s.head = 128;
  const int groups = s.m[1] ? 2 : 1;
  FkLinear l[2];
  double *before[2];
  for (int i = 0; i < groups; i++) {
    l[i] = linear_of(c, &s, s.m[i]);
    before[i] = s.y_block ? NULL : case_read(l[i].y);
  }
  FkArena arena;
  g_assert_true(fk_arena_open(&arena, c->be, 64 << 20));
  CASE_TIMES(c) fk_op_linear(c->be, &arena, l, groups);
  for (int i = 0; i < groups; i++) {
    if (s.y_block && !c->large)
      expect_codes(c, &arena, &l[i]);
    else if (!c->large)
      case_expect(c, l[i].y, expect(&l[i], before[i]));
    g_free(before[i]);
  }
  fk_arena_close(&arena);
}

#define LINEAR(name, ...)                                                                                              \
  static void name(Case *c) {                                                                                          \
    run_linear(c, &(QuantLinear){__VA_ARGS__});                                                                        \
  }
LINEAR(e4m3_row, .m = {37}, .n = 45, .k = 1100, .dtype = FK_E4M3)
LINEAR(e4m3_small, .m = {1}, .n = 1, .k = 1, .dtype = FK_E4M3)
LINEAR(e4m3_blocks, .m = {301}, .n = 391, .k = 129, .dtype = FK_E4M3, .weight_block = -1)
LINEAR(e4m3_128, .m = {33}, .n = 70, .k = 640, .dtype = FK_E4M3, .block = 128)
LINEAR(e4m3_add, .m = {19, 5}, .n = 130, .k = 515, .dtype = FK_E4M3, .epilogue = FK_EPI_ADD)
LINEAR(e4m3_gate, .m = {77, 13}, .n = 261, .k = 256, .dtype = FK_E4M3, .block = 128, .epilogue = FK_EPI_GATE)
LINEAR(e4m3_gelu, .m = {40, 9}, .n = 300, .k = 256, .dtype = FK_E4M3, .act = FK_ACT_GELU_TANH)
LINEAR(e4m3_qkv, .m = {45}, .n = 902, .k = 200, .dtype = FK_E4M3, .epilogue = FK_EPI_QKV, .width = 256, .head = 128)
LINEAR(e4m3_w128, .m = {21}, .n = 50, .k = 1024, .dtype = FK_E4M3, .weight_block = 128)
LINEAR(e4m3_w32, .m = {21}, .n = 50, .k = 256, .dtype = FK_E4M3, .block = 128, .weight_block = 32, .e8m0 = TRUE)
LINEAR(e4m3_w1024, .m = {5}, .n = 30, .k = 2048, .dtype = FK_E4M3, .weight_block = 1024)
LINEAR(e4m3_e8m0, .m = {5}, .n = 30, .k = 77, .dtype = FK_E4M3, .e8m0 = TRUE)
LINEAR(e4m3_codes, .m = {29}, .n = 256, .k = 300, .dtype = FK_E4M3, .y_block = 128)
LINEAR(e4m3_codes_gelu, .m = {29, 3}, .n = 77, .k = 300, .dtype = FK_E4M3, .act = FK_ACT_GELU_TANH, .y_block = -1)
LINEAR(e4m3_codes_given, .m = {29, 7}, .n = 96, .k = 300, .dtype = FK_E4M3, .act = FK_ACT_GELU_TANH, .y_block = -1,
       .given = 0.003f)
LINEAR(e4m3_codes_qkv, .m = {45}, .n = 902, .k = 200, .dtype = FK_E4M3, .epilogue = FK_EPI_QKV, .width = 256,
       .head = 128, .y_block = -1, .given = 0.01f)
LINEAR(i8_row, .m = {37}, .n = 45, .k = 1100, .dtype = FK_I8)
LINEAR(i8_128, .m = {33}, .n = 70, .k = 640, .dtype = FK_I8, .block = 128, .weight_block = -1)
LINEAR(i8_w256, .m = {9}, .n = 31, .k = 768, .dtype = FK_I8, .weight_block = 256)
LINEAR(numbers_e4m3, .m = {61}, .n = 77, .k = 130, .dtype = FK_E4M3, .numbers = TRUE)
LINEAR(numbers_i8, .m = {9, 4}, .n = 300, .k = 2100, .dtype = FK_I8, .numbers = TRUE, .epilogue = FK_EPI_GATE)
LINEAR(numbers_w64, .m = {12}, .n = 40, .k = 256, .dtype = FK_E4M3, .numbers = TRUE, .weight_block = 64,
       .act = FK_ACT_SILU)

/* Operands of attention as its definition reads them: numbers, or codes that `quantize` made. Where scores are of
 * codes, `values` are those of v's codes, times their scale. */
typedef struct {
  FkTensor q, k, v, q_scale, k_scale, v_scale;
  double *values;
  float *mean; /* of each column of v */
  gint64 heads;
  float scale;
} Coded;

static double weight_code(double x) {
  return format_value(&format_e4m3, format_round(&format_e4m3, x));
}

/* Scores of numbers, one query and head: tiles of 128 keys with a running maximum. */
static void naive_row_values(const Coded *a, gint64 i, gint64 head, double *o) {
  const gint64 e = fk_tensor_cols(a->q) / a->heads, keys = fk_tensor_rows(a->k), first = head * e;
  double max = -INFINITY, sum = 0, s[128];
  for (gint64 d = 0; d < e; d++) o[d] = 0;
  for (gint64 key = (keys - 1) / 128 * 128; key >= 0; key -= 128) {
    const gint64 n = MIN(128, keys - key);
    double top = max;
    for (gint64 j = 0; j < n; j++) {
      double dot = 0;
      for (gint64 d = first; d < first + e; d++) dot += at(a->q, i, d) * at(a->k, key + j, d);
      s[j] = (double)((float)dot * (a->scale * 1.44269504f));
      top = MAX(top, s[j]);
    }
    const double ratio = exp2(max - top);
    sum *= ratio;
    for (gint64 d = 0; d < e; d++) o[d] *= ratio;
    for (gint64 j = 0; j < n; j++) {
      const double p = exp2(s[j] - top), code = weight_code(256 * p);
      sum += p;
      for (gint64 d = 0; d < e; d++) o[d] += at(a->v_scale, key / 128, head) * code * code_at(a->v, key + j, first + d);
    }
    max = top;
  }
  for (gint64 d = 0; d < e; d++) o[d] /= 256 * sum;
}

/* Scores of codes: 64 keys a step, under a reference that rises where a weight's code is the largest, and is the
 * greatest score in the first step; sums of the weights' codes. Promotion is exact in double, where it does not matter
 * when it happens. */
static void naive_row_codes(const Coded *a, gint64 i, gint64 head, double *o) {
  const gint64 e = fk_tensor_cols(a->q) / a->heads, keys = fk_tensor_rows(a->k), first = head * e;
  float reference = 0;
  double sum = 0;
  gboolean begun = FALSE;
  for (gint64 d = 0; d < e; d++) o[d] = 0;
  for (gint64 step = (keys - 1) / 128 * 2; step >= 0; step = step % 2 ? step - 3 : step + 1) {
    const gint64 key = step * 64, n = MIN(64, keys - key);
    if (n <= 0) continue;
    const float factor =
        (float)at(a->q_scale, i, head) * (a->scale * 1.44269504f) * (float)at(a->k_scale, key / 128, head);
    float x[64], top = -INFINITY;
    gboolean over = !begun;
    for (gint64 j = 0; j < n; j++) {
      double exact = 0;
      for (gint64 d = first; d < first + e; d++) exact += code_at(a->q, i, d) * code_at(a->k, key + j, d);
      x[j] = (float)(exact * (double)factor + (double)(5 - reference));
      top = MAX(top, x[j]);
      over |= weight_code(exp2((double)x[j])) >= 448;
    }
    const float up = over ? top - 5 : 0;
    if (over) {
      const double ratio = begun ? exp2(-(double)up) : 0;
      reference += up;
      sum *= ratio;
      for (gint64 d = 0; d < e; d++) o[d] *= ratio;
    }
    begun = TRUE;
    for (gint64 j = 0; j < n; j++) {
      const double w = weight_code(exp2((double)(x[j] - up)));
      sum += w;
      for (gint64 d = 0; d < e; d++) o[d] += w * a->values[(key + j) * a->heads * e + first + d];
    }
  }
  for (gint64 d = 0; d < e; d++) o[d] = o[d] / sum + (double)a->mean[first + d];
}

static double *naive_coded(const Coded *a) {
  const gint64 rows = fk_tensor_rows(a->q), cols = fk_tensor_cols(a->q), e = cols / a->heads;
  double *o = g_new(double, rows *cols);
  for (gint64 i = 0; i < rows; i++)
    for (gint64 h = 0; h < a->heads; h++)
      (fk_tensor_given(a->q_scale) ? naive_row_codes : naive_row_values)(a, i, h, o + i * cols + h * e);
  return o;
}

static FkTensor quantized(Case *c, FkTensor numbers, FkDtype dtype, gint64 height, gint64 heads, FkTensor *scale) {
  const gint64 rows = fk_tensor_rows(numbers);
  const FkTensor codes = case_codes(c, dtype, rows, fk_tensor_cols(numbers), 3);
  *scale = case_scales(c, (rows + height - 1) / height, heads);
  fk_op_quantize(c->be, codes, *scale, numbers);
  return codes;
}

/* Values less the mean of 64 of their column, as codes of a head's 1024 rows make them. */
static void code_values(Coded *a, FkTensor v) {
  const gint64 rows = fk_tensor_rows(v), cols = fk_tensor_cols(v), e = cols / a->heads;
  a->values = g_new(double, rows *cols);
  a->mean = g_new0(float, cols);
  for (gint64 c = 0; c < cols; c++) {
    for (gint64 part = 0; part < 64; part += 16) {
      float sum = 0;
      for (gint64 i = part; i < part + 16; i++) sum += (float)at(v, i * rows / 64, c);
      a->mean[c] += sum;
    }
    a->mean[c] /= 64;
  }
  for (gint64 top = 0; top < rows; top += 1024)
    for (gint64 first = 0; first < cols; first += e) {
      const gint64 end = MIN(top + 1024, rows);
      float most = 0;
      for (gint64 r = top; r < end; r++)
        for (gint64 c = first; c < first + e; c++) most = MAX(most, fabsf((float)at(v, r, c) - a->mean[c]));
      const float inverse = most > 0 ? 448 / most : 0, scale = most > 0 ? most / 448 : 1;
      for (gint64 r = top; r < end; r++)
        for (gint64 c = first; c < first + e; c++)
          a->values[r * cols + c] = (double)scale * weight_code((double)(((float)at(v, r, c) - a->mean[c]) * inverse));
    }
}

/* sharp: rows with one probability near 1. codes: scores of codes. mean: of the values. low: all scores far below 0. */
typedef struct {
  gint64 rows, keys, heads, width;
  float sharp, mean;
  gboolean codes, low;
} Sizes;

static void run_attention(Case *c, Sizes z) {
  if (c->large) z.rows = c->large->m, z.keys = c->large->n, z.heads = c->large->k, z.width = 128;
  const gint64 cols = z.heads * z.width;
  FkAttention a = {.q = case_2d(c, z.rows, cols, 6), .k = case_2d(c, z.keys, cols, 2), .heads = z.heads};
  a.v = case_2d(c, z.keys, cols, 9);
  a.o = case_2d(c, z.rows, cols, 4);
  a.scale = z.sharp / sqrtf((float)z.width);
  for (gint64 i = 0; z.mean != 0 && i < z.keys; i++)
    for (gint64 d = 0; d < cols; d++) ((float *)a.v.data)[i * a.v.ld + d] += z.mean;
  for (gint64 i = 0; z.low && i < MAX(z.rows, z.keys); i++)
    for (gint64 d = 0; d < cols; d++) {
      float *from = (float *)a.q.data + i * a.q.ld + d, *to = (float *)a.k.data + i * a.k.ld + d;
      if (i < z.rows) *from = 1 + fabsf(*from);
      if (i < z.keys) *to = -1 - fabsf(*to);
    }
  Coded q = {.q = a.q, .k = a.k, .heads = z.heads, .scale = a.scale};
  if (!z.codes) q.v = quantized(c, a.v, FK_E4M3, 128, z.heads, &q.v_scale);
  if (z.codes) {
    code_values(&q, a.v);
    q.q = quantized(c, a.q, FK_I8, 1, z.heads, &q.q_scale);
    q.k = quantized(c, a.k, FK_I8, 128, z.heads, &q.k_scale);
  }
  FkArena arena;
  g_assert_true(fk_arena_open(&arena, c->be, 64 << 20));
  CASE_TIMES(c)(z.codes ? fk_op_attention_quantized : fk_op_attention_value_codes)(c->be, &arena, &a);
  g_assert_cmpuint(arena.used, ==, 0);
  if (!c->large) case_expect(c, a.o, naive_coded(&q));
  g_free(q.values);
  g_free(q.mean);
  fk_arena_close(&arena);
}

#define ATTENTION(name, ...)                                                                                           \
  static void name(Case *c) {                                                                                          \
    run_attention(c, (Sizes){__VA_ARGS__});                                                                            \
  }
ATTENTION(values_small, 3, 5, 1, 8, .sharp = 1)
ATTENTION(values_tiles, 150, 300, 2, 24, .sharp = 6)
ATTENTION(values_sharp, 33, 400, 1, 64, .sharp = 60)
ATTENTION(codes_one, 1, 1, 1, 8, .sharp = 1, .codes = TRUE)
ATTENTION(codes_small, 3, 5, 1, 8, .sharp = 1, .codes = TRUE)
ATTENTION(codes_half, 5, 64, 1, 32, .sharp = 3, .codes = TRUE)
ATTENTION(codes_more, 63, 65, 2, 16, .sharp = 3, .codes = TRUE)
ATTENTION(codes_tiles, 150, 300, 2, 24, .sharp = 6, .codes = TRUE)
ATTENTION(codes_blocks, 70, 777, 2, 32, .sharp = 1, .codes = TRUE)
ATTENTION(codes_mean, 20, 2100, 1, 32, .sharp = 1, .mean = 3, .codes = TRUE)
ATTENTION(codes_sharp, 33, 400, 1, 64, .sharp = 60, .codes = TRUE)
ATTENTION(codes_low, 9, 130, 2, 32, .sharp = 60, .codes = TRUE, .low = TRUE)
enum { OF_NUMBERS, OF_CODES, OF_VALUE_CODES };

static void run_form(Case *c, FkArena *arena, const FkAttention *a, int form) {
  if (form == OF_CODES)
    fk_op_attention_quantized(c->be, arena, a);
  else if (form == OF_VALUE_CODES)
    fk_op_attention_value_codes(c->be, arena, a);
  else
    fk_op_attention(c->be, a);
}

/* The result in numbers, quantised: `first` rows under one scale and the others under another, or all measured. o is
 * the queries' place, as in the model. */
static void run_to_codes(Case *c, int form, gint64 first, float given) {
  enum { ROWS = 40, KEYS = 140, COLS = 256 };
  FkAttention a = {.q = case_2d(c, ROWS, COLS, 1), .k = case_2d(c, KEYS, COLS, 2), .v = case_2d(c, KEYS, COLS, 0)};
  a.heads = 2;
  a.scale = 0.1f;
  FkAttention numbers = a;
  FkArena arena;
  numbers.o = case_2d(c, ROWS, COLS, 0);
  g_assert_true(fk_arena_open(&arena, c->be, 1 << 20));
  run_form(c, &arena, &numbers, form);
  a.o = a.q;
  a.o_codes = case_codes(c, FK_E4M3, ROWS, COLS, 3);
  a.o_scale = case_scales(c, ROWS, given > 0 ? 0 : 2);
  a.given[0] = given;
  a.given[1] = 2 * given;
  a.given_rows = first;
  run_form(c, &arena, &a, form);
  g_assert_cmpuint(arena.used, ==, 0);
  double *want = g_new(double, ROWS *COLS), *scales = g_new(double, ROWS *(given > 0 ? 1 : 2));
  for (int part = 0; part < 2; part++) {
    const gint64 from = part ? first : 0, n = part ? ROWS - first : first;
    if (n == 0) continue;
    FkTensor codes = case_codes(c, FK_E4M3, n, COLS, 0), scale = case_scales(c, n, given > 0 ? 0 : 2);
    fk_op_quantize_given(c->be, codes, scale, fk_tensor_slice_rows(numbers.o, from, n), a.given[part]);
    for (gint64 i = 0; i < n * COLS; i++) want[from * COLS + i] = ((const guint8 *)codes.data)[i];
    g_autofree double *s = case_read(scale);
    memcpy(scales + from * (given > 0 ? 1 : 2), s, (size_t)(n * (given > 0 ? 1 : 2)) * sizeof *s);
  }
  case_expect(c, a.o_codes, want);
  case_expect(c, a.o_scale, scales);
  fk_arena_close(&arena);
}

static void codes_to_codes(Case *c) {
  run_to_codes(c, OF_CODES, 40, 0);
}
static void codes_to_given(Case *c) {
  run_to_codes(c, OF_CODES, 7, 0.001f);
}
static void numbers_to_given(Case *c) {
  run_to_codes(c, OF_NUMBERS, 33, 0.002f);
}
static void values_to_given(Case *c) {
  run_to_codes(c, OF_VALUE_CODES, 0, 0.002f);
}

/* Tolerances: 0 where float32 steps follow the definition; 1e-6 behind an activation or float32 sums; attention
 * as well, as long as no probability lies within an ulp of the middle of two codes. Scores of numbers are rounded sums
 * of some tens: their absolute error, up to 1e-4, is the relative one of a probability. */
const CaseRow ops_quant_cases[] = {
    {"linear/e4m3-row", e4m3_row, 0, TRUE, {1024, 3072, 3072}},
    {"linear/e4m3-small", e4m3_small, 0, TRUE},
    {"linear/e4m3-blocks", e4m3_blocks, 0, TRUE},
    {"linear/e4m3-128", e4m3_128, 0, TRUE, {1024, 3072, 3072}},
    {"linear/e4m3-add-groups", e4m3_add, 0, TRUE},
    {"linear/e4m3-gate-groups", e4m3_gate, 0, TRUE},
    {"linear/e4m3-gelu-groups", e4m3_gelu, 1e-6, TRUE, {1024, 3072, 768}},
    {"linear/e4m3-qkv", e4m3_qkv, 1e-6, TRUE},
    {"linear/e4m3-weight-128", e4m3_w128, 0, TRUE},
    {"linear/e4m3-weight-32", e4m3_w32, 0, TRUE},
    {"linear/e4m3-weight-1024", e4m3_w1024, 0, TRUE},
    {"linear/e4m3-e8m0", e4m3_e8m0, 0, TRUE},
    {"linear/e4m3-codes", e4m3_codes, 0, TRUE},
    {"linear/e4m3-codes-gelu-groups", e4m3_codes_gelu, 0, TRUE},
    {"linear/e4m3-codes-given-groups", e4m3_codes_given, 0, TRUE},
    {"linear/e4m3-codes-qkv", e4m3_codes_qkv, 0, TRUE},
    {"linear/i8-row", i8_row, 0, TRUE, {1024, 3072, 3072}},
    {"linear/i8-128", i8_128, 0, TRUE},
    {"linear/i8-weight-256", i8_w256, 0, TRUE},
    {"linear/numbers-e4m3", numbers_e4m3, 1e-6, TRUE, {1024, 3072, 3072}},
    {"linear/numbers-i8-gate-groups", numbers_i8, 1e-6, TRUE},
    {"linear/numbers-weight-64", numbers_w64, 1e-6, TRUE},
    {"attention/codes-one", codes_one, 1e-6, FALSE},
    {"attention/codes-small", codes_small, 1e-6, FALSE},
    {"attention/codes-half", codes_half, 1e-6, FALSE},
    {"attention/codes-more", codes_more, 1e-6, FALSE},
    {"attention/codes-tiles", codes_tiles, 1e-6, FALSE, {1024, 1024, 4}},
    {"attention/codes-blocks", codes_blocks, 1e-6, FALSE},
    {"attention/codes-mean", codes_mean, 1e-6, FALSE},
    {"attention/codes-sharp", codes_sharp, 1e-6, FALSE},
    {"attention/codes-low", codes_low, 1e-6, FALSE},
    {"attention/codes-to-codes", codes_to_codes, 0, FALSE},
    {"attention/codes-to-given", codes_to_given, 0, FALSE},
    {"attention/numbers-to-given", numbers_to_given, 0, FALSE},
    {"attention/value-codes-to-given", values_to_given, 0, FALSE},
    {"attention/value-codes-small", values_small, 1e-6, FALSE},
    {"attention/value-codes-tiles", values_tiles, 1e-4, FALSE, {1024, 1024, 4}},
    {"attention/value-codes-sharp", values_sharp, 1e-4, FALSE},
};
const guint ops_quant_case_count = G_N_ELEMENTS(ops_quant_cases);
