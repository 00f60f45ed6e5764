/* SPDX-License-Identifier: Apache-2.0 */
/* The cases of the op tests: ragged shapes, several blocks, strided views, results in place. */
#include "ops-cases.h"

#include <math.h>
#include <string.h>

/* Linear: group i has rows[i] rows; every epilogue. */
typedef struct {
  gint64 m[2], n, k;
  FkEpilogue epilogue;
  FkAct act;
  gint64 width, head; /* QKV */
} LinearShape;

static double *expect_linear(const FkLinear *l, const double *before) {
  gint64 n = l->w.out, d = l->width;
  double *y = naive_linear(l->x, l->w, l->bias);
  for (gint64 r = 0; r < fk_tensor_rows(l->x); r++) {
    double *row = y + r * n;
    for (gint64 c = 0; c < n; c++) {
      if (l->epilogue == FK_EPI_ACT)
        row[c] = naive_act(row[c], l->act);
      else if (l->epilogue == FK_EPI_ADD)
        row[c] += before[r * n + c];
      else if (l->epilogue == FK_EPI_GATE)
        row[c] = before[r * n + c] + at(l->gate, 0, c) * row[c];
      else if (c >= 3 * d)
        row[c] = naive_act(row[c], FK_ACT_GELU_TANH);
    }
    if (l->epilogue != FK_EPI_QKV) continue;
    naive_rms(row, d, l->k_norm, 1e-6);
    naive_rope(row, d, l->rope, r);
    naive_rms(row + 2 * d, d, l->q_norm, 1e-6);
    naive_rope(row + 2 * d, d, l->rope, r);
  }
  return y;
}

static void run_linear(Case *c, const LinearShape *shape) {
  LinearShape size = *shape, *s = &size;
  if (c->large) size = (LinearShape){{c->large->m, 0}, c->large->n, c->large->k, s->epilogue, s->act, 0, 0};
  if (c->large && shape->width) s->width = s->n / 7, s->head = 128; /* K, V, Q and four times as much MLP */
  int groups = s->m[1] ? 2 : 1;
  FkLinear l[2];
  double *before[2];
  for (int i = 0; i < groups; i++) {
    l[i] = (FkLinear){
        .x = case_2d(c, s->m[i], s->k, 5), .y = case_2d(c, s->m[i], s->n, 3), .w = case_weight(c, s->n, s->k)};
    l[i].epilogue = s->epilogue;
    l[i].act = s->act;
    l[i].width = s->width;
    l[i].bias = i == 0 ? case_1d(c, s->n) : fk_tensor_none();
    l[i].gate = case_1d(c, s->n);
    if (s->width) {
      l[i].q_norm = case_1d(c, s->head);
      l[i].k_norm = case_1d(c, s->head);
      l[i].rope = case_2d(c, s->m[i], s->head, 2);
    }
    before[i] = case_read(l[i].y);
  }
  FkArena arena;
  g_assert_true(fk_arena_open(&arena, c->be, 64 << 20));
  CASE_TIMES(c) fk_op_linear(c->be, &arena, l, groups);
  fk_arena_close(&arena);
  for (int i = 0; i < groups; i++) {
    if (!c->large) case_expect(c, l[i].y, expect_linear(&l[i], before[i]));
    g_free(before[i]);
  }
}

static void linear_small(Case *c) {
  run_linear(c, &(LinearShape){{1, 0}, 1, 1, FK_EPI_ACT, FK_ACT_NONE, 0, 0});
}
static void linear_ragged(Case *c) {
  run_linear(c, &(LinearShape){{37, 0}, 45, 29, FK_EPI_ACT, FK_ACT_NONE, 0, 0});
}
static void linear_blocks(Case *c) {
  run_linear(c, &(LinearShape){{577, 0}, 391, 65, FK_EPI_ACT, FK_ACT_NONE, 0, 0});
}
static void linear_groups(Case *c) {
  run_linear(c, &(LinearShape){{301, 7}, 270, 33, FK_EPI_ACT, FK_ACT_NONE, 0, 0});
}
static void linear_silu(Case *c) {
  run_linear(c, &(LinearShape){{3, 0}, 700, 64, FK_EPI_ACT, FK_ACT_SILU, 0, 0});
}
static void linear_gelu(Case *c) {
  run_linear(c, &(LinearShape){{203, 21}, 300, 31, FK_EPI_ACT, FK_ACT_GELU_TANH, 0, 0});
}
static void linear_quick(Case *c) {
  run_linear(c, &(LinearShape){{77, 0}, 95, 24, FK_EPI_ACT, FK_ACT_QUICK_GELU, 0, 0});
}
static void linear_gate(Case *c) {
  run_linear(c, &(LinearShape){{211, 13}, 261, 70, FK_EPI_GATE, FK_ACT_NONE, 0, 0});
}
static void linear_add(Case *c) {
  run_linear(c, &(LinearShape){{99, 0}, 131, 51, FK_EPI_ADD, FK_ACT_NONE, 0, 0});
}
static void linear_qkv(Case *c) {
  run_linear(c, &(LinearShape){{203, 0}, 902, 40, FK_EPI_QKV, FK_ACT_NONE, 256, 128});
}
static void linear_qkv_narrow(Case *c) {
  run_linear(c, &(LinearShape){{45, 9}, 144, 40, FK_EPI_QKV, FK_ACT_NONE, 48, 24});
}

static void run_layer_norm(Case *c, gboolean modulated, gboolean in_place) {
  const gint64 rows[2] = {c->large ? c->large->m : 301, 5}, cols = c->large ? c->large->n : 131;
  FkLayerNorm n[2];
  double *y[2];
  for (int i = 0; i < 2; i++) {
    n[i] = (FkLayerNorm){.x = case_2d(c, rows[i], cols, 4), .eps = 1e-5f};
    n[i].y = in_place ? n[i].x : case_2d(c, rows[i], cols, 1);
    FkTensor scale = case_1d(c, cols), shift = case_1d(c, cols);
    if (modulated)
      n[i].scale = scale, n[i].shift = shift;
    else
      n[i].weight = scale, n[i].bias = shift;
    y[i] = case_read(n[i].x);
    for (gint64 r = 0; r < rows[i]; r++) {
      double *row = y[i] + r * cols, mean = 0, variance = 0;
      for (gint64 k = 0; k < cols; k++) mean += row[k] / (double)cols;
      for (gint64 k = 0; k < cols; k++) variance += pow(row[k] - mean, 2) / (double)cols;
      for (gint64 k = 0; k < cols; k++)
        row[k] = (row[k] - mean) / sqrt(variance + (double)n[i].eps) * ((modulated ? 1 : 0) + at(scale, 0, k)) +
                 at(shift, 0, k);
    }
  }
  CASE_TIMES(c) fk_op_layer_norm(c->be, NULL, n, 2);
  for (int i = 0; i < 2; i++) case_expect(c, n[i].y, y[i]);
}

static void layer_norm_modulated(Case *c) {
  run_layer_norm(c, TRUE, FALSE);
}
static void layer_norm_weighted(Case *c) {
  run_layer_norm(c, FALSE, FALSE);
}
static void layer_norm_in_place(Case *c) {
  run_layer_norm(c, TRUE, TRUE);
}

static void rms_norm_heads(Case *c) {
  const gint64 rows = c->large ? c->large->m : 400, cols = c->large ? c->large->n : 96;
  FkTensor x = case_2d(c, rows, cols, 7), weight = case_1d(c, 32);
  double *y = case_read(x);
  for (gint64 r = 0; r < rows; r++) naive_rms(y + r * cols, cols, weight, 1e-6);
  CASE_TIMES(c) fk_op_rms_norm(c->be, x, x, weight, 1e-6f);
  case_expect(c, x, y);
}

static void rope(Case *c) {
  const gint64 rows = c->large ? c->large->m : 300, heads = c->large ? c->large->n : 3;
  FkTensor x = case_2d(c, rows, heads * 40, 8), table = case_2d(c, rows, 40, 0);
  double *y = case_read(x);
  for (gint64 r = 0; r < rows; r++) naive_rope(y + r * heads * 40, heads * 40, table, r);
  CASE_TIMES(c) fk_op_rope(c->be, x, table, heads);
  case_expect(c, x, y);
}

/* far: all scores lie near -400, so that only their maximum keeps exp from vanishing. */
static void run_attention(Case *c, gint64 rows, gint64 keys, gint64 heads, gint64 e, gboolean causal, gboolean bias,
                          gboolean in_place, float scale, gboolean far) {
  if (c->large) rows = c->large->m, keys = c->large->n, heads = c->large->k, e = 128;
  FkAttention a = {.q = case_2d(c, rows, heads * e, 6), .k = case_2d(c, keys, heads * e, 2), .heads = heads};
  a.v = case_2d(c, keys, heads * e, 9);
  a.o = in_place ? a.q : case_2d(c, rows, heads * e, 4);
  a.scale = scale;
  a.causal = causal;
  if (bias) a.bias = case_2d(c, heads, rows + keys - 1, 1);
  for (gint64 i = 0; far && i < heads * (rows + keys - 1); i++) {
    gint64 n = rows + keys - 1;
    ((float *)a.bias.data)[i / n * a.bias.ld + i % n] -= 400.0f;
  }
  double *o = c->large ? NULL : naive_attention(&a);
  CASE_TIMES(c) fk_op_attention(c->be, &a);
  case_expect(c, a.o, o);
}

static void attention_small(Case *c) {
  run_attention(c, 3, 5, 1, 8, FALSE, FALSE, FALSE, 0.3f, FALSE);
}
static void attention_ragged(Case *c) {
  run_attention(c, 101, 701, 3, 24, FALSE, FALSE, FALSE, 0.2f, FALSE);
}
static void attention_keys(Case *c) {
  run_attention(c, 200, 1100, 2, 16, FALSE, FALSE, FALSE, 8.0f, FALSE);
}
static void attention_causal(Case *c) {
  run_attention(c, 77, 77, 2, 32, TRUE, FALSE, FALSE, 0.2f, FALSE);
}
static void attention_causal_blocks(Case *c) {
  run_attention(c, 601, 601, 1, 16, TRUE, FALSE, FALSE, 0.3f, FALSE);
}
static void attention_bias(Case *c) {
  run_attention(c, 130, 90, 2, 16, FALSE, TRUE, FALSE, 1.0f, FALSE);
}
static void attention_far(Case *c) {
  run_attention(c, 40, 90, 1, 16, FALSE, TRUE, FALSE, 30.0f, TRUE);
}
static void attention_in_place(Case *c) {
  run_attention(c, 250, 250, 2, 32, FALSE, FALSE, TRUE, 0.2f, FALSE);
}

static void run_act(Case *c, FkAct act, gboolean in_place) {
  const gint64 rows = c->large ? c->large->m : 113, cols = c->large ? c->large->n : 601;
  FkTensor x = case_2d(c, rows, cols, in_place ? 0 : 2), y = in_place ? x : case_2d(c, rows, cols, 1);
  for (gint64 r = 0; r < rows; r++)
    for (gint64 k = 0; k < cols; k++) ((float *)x.data)[r * x.ld + k] *= 12.0f;
  double *ref = case_read(x);
  for (gint64 i = 0; i < rows * cols; i++) ref[i] = naive_act(ref[i], act);
  CASE_TIMES(c) fk_op_act(c->be, y, x, act);
  case_expect(c, y, ref);
}

static void act_silu(Case *c) {
  run_act(c, FK_ACT_SILU, FALSE);
}
static void act_gelu(Case *c) {
  run_act(c, FK_ACT_GELU_TANH, TRUE);
}
static void act_quick(Case *c) {
  run_act(c, FK_ACT_QUICK_GELU, FALSE);
}

static void add_mul_gate(Case *c) {
  FkTensor a = case_2d(c, 310, 211, 3), b = case_2d(c, 310, 211, 0), y = case_2d(c, 310, 211, 5);
  FkTensor gate = case_1d(c, 211), z = case_2d(c, 310, 211, 2);
  double *sum = case_read(a), *product = case_read(a), *gated = case_read(z);
  for (gint64 i = 0; i < 310 * 211; i++) {
    double other = at(b, i / 211, i % 211);
    sum[i] += other;
    product[i] *= other;
    gated[i] += at(gate, 0, i % 211) * other;
  }
  fk_op_add(c->be, y, a, b);
  fk_op_mul(c->be, a, a, b);
  fk_op_gate_add(c->be, z, b, gate);
  case_expect(c, y, sum);
  case_expect(c, a, product);
  case_expect(c, z, gated);
}

/* y is one of the terms. */
static void combine(Case *c) {
  FkTensor x[4] = {case_2d(c, 150, 300, 1), case_2d(c, 150, 300, 0), case_2d(c, 150, 300, 2), case_2d(c, 150, 300, 1)};
  FkTensor coef = case_1d(c, 4);
  double *ref = g_new0(double, 150 * 300);
  for (int i = 0; i < 4; i++)
    for (gint64 k = 0; k < 150 * 300; k++) ref[k] += at(coef, 0, i) * at(x[i], k / 300, k % 300);
  fk_op_combine(c->be, x[2], 4, x, coef);
  case_expect(c, x[2], ref);
}

static void gather_and_embed(Case *c) {
  const gint32 ids[] = {4, 0, 6, 6, 1};
  FkTensor index = case_index(c, 5, ids), x = case_2d(c, 7, 33, 2);
  FkTensor y = case_2d(c, 5, 33, 1), z = case_2d(c, 5, 33, 3);
  FkWeight table = case_weight(c, 7, 33);
  double *rows = g_new(double, 5 * 33), *words = g_new(double, 5 * 33);
  for (gint64 i = 0; i < 5 * 33; i++) {
    rows[i] = at(x, ids[i / 33], i % 33);
    words[i] = (double)((const float *)table.data)[ids[i / 33] * 33 + i % 33];
  }
  fk_op_gather_rows(c->be, y, x, index);
  fk_op_embed(c->be, z, table, index);
  case_expect(c, y, rows);
  case_expect(c, z, words);
}

/* residual: beside y, or y itself (in_place). */
static void run_conv(Case *c, gint64 height, gint64 width, gint64 in, gint64 out, FkConv conv, gboolean residual,
                     gboolean in_place) {
  if (c->large) height = c->large->m, width = c->large->n, in = c->large->k, out = in;
  gint64 up = conv.upsample ? 2 : 1, pad = conv.pad_before + conv.pad_after - conv.kernel;
  gboolean dense = !residual || in_place; /* both ways through memory get their cases */
  conv.x = case_3d(c, height, width, in, dense ? 0 : 3);
  conv.w = case_weight(c, out, conv.kernel * conv.kernel * in);
  conv.bias = case_1d(c, out);
  conv.y = case_3d(c, (height * up + pad) / conv.stride + 1, (width * up + pad) / conv.stride + 1, out, dense ? 0 : 2);
  if (residual) conv.residual = in_place ? conv.y : case_3d(c, conv.y.dim[0], conv.y.dim[1], out, 1);
  FkArena arena;
  g_assert_true(fk_arena_open(&arena, c->be, 4 << 20));
  double *ref = c->large ? NULL : naive_conv(&conv);
  CASE_TIMES(c) fk_op_conv(c->be, &arena, &conv);
  g_assert_cmpuint(fk_arena_mark(&arena), ==, 0);
  case_expect(c, conv.y, ref);
  fk_arena_close(&arena);
}

#define SAME .kernel = 3, .stride = 1, .pad_before = 1, .pad_after = 1
static void conv_same(Case *c) {
  run_conv(c, 13, 17, 5, 7, (FkConv){SAME}, FALSE, FALSE);
}
static void conv_one_row(Case *c) {
  run_conv(c, 1, 2, 3, 4, (FkConv){SAME}, FALSE, FALSE);
}
static void conv_wide(Case *c) {
  run_conv(c, 9, 400, 64, 3, (FkConv){SAME}, TRUE, FALSE);
}
static void conv_down(Case *c) {
  run_conv(c, 20, 30, 9, 11, (FkConv){.kernel = 3, .stride = 2, .pad_after = 1}, FALSE, FALSE);
}
static void conv_point(Case *c) {
  run_conv(c, 19, 21, 16, 6, (FkConv){.kernel = 1, .stride = 1}, TRUE, FALSE);
}
static void conv_up(Case *c) {
  run_conv(c, 11, 9, 8, 5, (FkConv){SAME, .upsample = true}, FALSE, FALSE);
}
static void conv_up_residual(Case *c) {
  run_conv(c, 10, 12, 4, 6, (FkConv){SAME, .upsample = true}, TRUE, FALSE);
}
static void conv_in_place(Case *c) {
  run_conv(c, 16, 15, 6, 6, (FkConv){SAME}, TRUE, TRUE);
}

static void run_group_norm(Case *c, gint64 height, gint64 width, gint64 channels, int groups, gboolean silu,
                           gint64 pad) {
  if (c->large) height = c->large->m, width = c->large->n, channels = c->large->k;
  FkGroupNorm n = {.x = case_3d(c, height, width, channels, pad), .y = case_3d(c, height, width, channels, pad)};
  n.weight = case_1d(c, channels);
  n.bias = case_1d(c, channels);
  n.groups = groups;
  n.eps = 1e-6f;
  n.silu = silu;
  double *ref = c->large ? NULL : naive_group_norm(&n);
  CASE_TIMES(c) fk_op_group_norm(c->be, &n);
  case_expect(c, n.y, ref);
}

static void group_norm(Case *c) {
  run_group_norm(c, 33, 40, 24, 6, FALSE, 2);
}
static void group_norm_silu(Case *c) {
  run_group_norm(c, 90, 61, 32, 32, TRUE, 0);
}
static void group_norm_large(Case *c) {
  run_group_norm(c, 260, 270, 32, 8, TRUE, 0);
}
static void group_norm_silu_view(Case *c) {
  run_group_norm(c, 7, 5, 12, 3, TRUE, 1);
}

/* tokens <-> latent of which only the first 3 of 5 channels are read or written. */
static void pack_unpack(Case *c) {
  FkTensor latent = case_3d(c, 6, 8, 5, 1), tokens = case_2d(c, 12, 12, 2), back = case_3d(c, 6, 8, 5, 0);
  double *packed = g_new(double, 12 * 12), *unpacked = case_read(back);
  for (gint64 y = 0; y < 6; y++)
    for (gint64 x = 0; x < 8; x++)
      for (gint64 k = 0; k < 3; k++) {
        gint64 token = y / 2 * 4 + x / 2, channel = k * 4 + y % 2 * 2 + x % 2;
        double z = (at(latent, y * 8 + x, k) - (double)0.1159f) * (double)0.3611f;
        packed[token * 12 + channel] = z;
        unpacked[(y * 8 + x) * 5 + k] = z / (double)0.5f + (double)0.25f;
      }
  fk_op_pack(c->be, tokens, latent, 0.3611f, 0.1159f);
  fk_op_unpack(c->be, back, tokens, 0.5f, 0.25f);
  case_expect(c, tokens, packed);
  case_expect(c, back, unpacked);
}

static void distance(Case *c) {
  FkTensor a = case_2d(c, 700, 203, 1), b = case_2d(c, 700, 203, 2), out = case_1d(c, 2);
  double *ref = g_new0(double, 2);
  for (gint64 i = 0; i < 700 * 203; i++) {
    ref[0] += fabs(at(a, i / 203, i % 203) - at(b, i / 203, i % 203)) / (700 * 203);
    ref[1] += fabs(at(b, i / 203, i % 203)) / (700 * 203);
  }
  fk_op_distance(c->be, out, a, b);
  case_expect(c, out, ref);
}

/* Rows 3 and 9 of dst are equal: a tie belongs to 3. Source 5 is a multiple of them, source 6 is zero. */
static void match(Case *c) {
  const gint64 rows = 40, count = 23, d = 51;
  FkTensor src = case_2d(c, rows, d, 2), dst = case_2d(c, count, d, 3), score = case_1d(c, rows);
  FkTensor best = case_index(c, rows, (gint32[40]){0});
  for (gint64 k = 0; k < d; k++) {
    ((float *)dst.data)[9 * dst.ld + k] = ((float *)dst.data)[3 * dst.ld + k];
    ((float *)src.data)[5 * src.ld + k] = 2.0f * ((float *)dst.data)[3 * dst.ld + k];
    ((float *)src.data)[6 * src.ld + k] = 0;
  }
  double *top = g_new(double, rows);
  gint32 where[40];
  for (gint64 i = 0; i < rows; i++) {
    top[i] = -INFINITY;
    for (gint64 j = 0; j < count; j++) {
      double dot = 0, a = 0, b = 0;
      for (gint64 k = 0; k < d; k++) {
        dot += at(src, i, k) * at(dst, j, k);
        a += at(src, i, k) * at(src, i, k);
        b += at(dst, j, k) * at(dst, j, k);
      }
      double s = a > 0 ? dot / sqrt(a * b) : 0;
      if (s > top[i]) {
        top[i] = s;
        where[i] = (gint32)j;
      }
    }
  }
  fk_op_match(c->be, best, score, src, dst);
  g_assert_cmpint(((gint32 *)best.data)[5], ==, 3);
  g_assert_cmpint(((gint32 *)best.data)[6], ==, 0);
  g_assert_cmpmem(best.data, sizeof where, where, sizeof where);
  case_expect(c, score, top);
}

static void mean_rows(Case *c) {
  const gint32 first[] = {0, 1, 4, 4, 6}, index[] = {5, 0, 2, 2, 7, 1};
  FkTensor x = case_2d(c, 8, 67, 3), y = case_2d(c, 4, 67, 2);
  double *ref = g_new0(double, 4 * 67);
  for (int i = 0; i < 4; i++)
    for (gint32 k = first[i]; k < first[i + 1]; k++)
      for (gint64 j = 0; j < 67; j++) ref[i * 67 + j] += at(x, index[k], j) / (first[i + 1] - first[i]);
  fk_op_mean_rows(c->be, y, x, case_index(c, 5, first), case_index(c, 6, index));
  case_expect(c, y, ref);
}

/* Tolerances: float32 products of a few hundred terms stay near 2e-7; attention and the activations behind a linear add
 * the rounding of the exponent's argument. */
const CaseRow ops_cases[] = {
    {"linear/small", linear_small, 1e-6, FALSE},
    {"linear/ragged", linear_ragged, 1e-6, FALSE},
    {"linear/blocks", linear_blocks, 1e-6, FALSE, {1024, 3072, 3072}},
    {"linear/groups", linear_groups, 1e-6, TRUE},
    {"linear/silu", linear_silu, 1e-6, TRUE},
    {"linear/gelu-groups", linear_gelu, 1e-6, TRUE, {1024, 3072, 768}},
    {"linear/quick-gelu", linear_quick, 1e-6, TRUE},
    {"linear/gate-groups", linear_gate, 1e-6, TRUE, {1024, 3072, 3072}},
    {"linear/add", linear_add, 1e-6, TRUE},
    {"linear/qkv", linear_qkv, 1e-6, TRUE, {576, 1792, 256}},
    {"linear/qkv-narrow-groups", linear_qkv_narrow, 1e-6, TRUE},
    {"layer-norm/modulated", layer_norm_modulated, 1e-6, FALSE, {4608, 3072}},
    {"layer-norm/weighted", layer_norm_weighted, 1e-6, FALSE},
    {"layer-norm/in-place", layer_norm_in_place, 1e-6, FALSE},
    {"rms-norm/heads", rms_norm_heads, 1e-6, FALSE, {4608, 3072}},
    {"rope", rope, 1e-6, FALSE, {4608, 77}},
    {"attention/small", attention_small, 1e-6, FALSE},
    {"attention/ragged", attention_ragged, 1e-6, FALSE, {1024, 1024, 4}},
    {"attention/sharp-keys", attention_keys, 1e-6, FALSE},
    {"attention/causal", attention_causal, 1e-6, FALSE},
    {"attention/causal-blocks", attention_causal_blocks, 1e-6, FALSE},
    {"attention/bias", attention_bias, 1e-6, FALSE},
    {"attention/far-below-zero", attention_far, 1e-4, FALSE}, /* scores near -400 carry 400 * 2^-24 into the exponent */
    {"attention/in-place", attention_in_place, 1e-6, FALSE},
    {"act/silu", act_silu, 1e-6, FALSE, {4608, 3072}},
    {"act/gelu-in-place", act_gelu, 1e-6, FALSE, {4608, 3072}},
    {"act/quick-gelu", act_quick, 1e-6, FALSE},
    {"add-mul-gate", add_mul_gate, 1e-6, FALSE},
    {"combine", combine, 1e-6, FALSE},
    {"gather-embed", gather_and_embed, 0, FALSE},
    {"conv/same", conv_same, 1e-6, FALSE, {128, 128, 128}},
    {"conv/one-row", conv_one_row, 1e-6, FALSE},
    {"conv/wide-residual", conv_wide, 1e-6, TRUE},
    {"conv/down", conv_down, 1e-6, FALSE},
    {"conv/point-residual", conv_point, 1e-6, TRUE},
    {"conv/up", conv_up, 1e-6, TRUE, {64, 64, 128}},
    {"conv/up-residual", conv_up_residual, 1e-6, TRUE},
    {"conv/residual-in-place", conv_in_place, 1e-6, TRUE},
    {"group-norm", group_norm, 1e-6, FALSE},
    {"group-norm/silu", group_norm_silu, 1e-6, TRUE, {256, 256, 128}},
    {"group-norm/large", group_norm_large, 1e-6, TRUE},
    {"group-norm/silu-view", group_norm_silu_view, 1e-6, TRUE},
    {"pack-unpack", pack_unpack, 1e-6, FALSE},
    {"distance", distance, 1e-6, FALSE},
    {"match", match, 1e-6, FALSE},
    {"mean-rows", mean_rows, 1e-6, FALSE},
};
const guint ops_case_count = G_N_ELEMENTS(ops_cases);
