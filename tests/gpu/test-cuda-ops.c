/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA ops that compute: linear, attention, norms, convolution, each against the CPU backend on random data. TAP.
 * Measure and tolerances: operands.h. The ops that move or combine elements: test-cuda-moves.c. */
#include "operands.h"

static void use(uint32_t what, bool on) {
  side[GPU]->use = on ? side[GPU]->use | what : side[GPU]->use & ~what;
}

/* ---- linear ----------------------------------------------------------------------------------------------------- */

typedef struct {
  const char *name;
  int64_t m[2], n, k;
  FkEpilogue epilogue;
  FkAct act;
  FkDtype y;
  int64_t width, head, ldx, ldy;
} LinearCase;

static void linear_case(const LinearCase *c, bool fused) {
  const int groups = c->m[1] ? 2 : 1;
  FkLinear l[SIDES][2] = {0};
  Pair y[2];
  char name[128];
  for (int g = 0; g < groups; g++) {
    Pair x = matrix(FK_BF16, c->m[g], c->k, c->ldx, 1), w = matrix(FK_BF16, c->n, c->k, 0, 1 / sqrt((double)c->k));
    Pair bias = vector(c->n, 0, 0.5), gate = vector(c->n, 0, 1), q = nothing(), k = nothing(), rope = nothing();
    y[g] = c->epilogue == FK_EPI_GATE || c->epilogue == FK_EPI_ADD ? matrix(c->y, c->m[g], c->n, c->ldy, 1)
                                                                   : matrix_out(c->y, c->m[g], c->n, c->ldy);
    if (c->epilogue == FK_EPI_QKV) {
      q = vector(c->head, 1, 0.2), k = vector(c->head, 1, 0.2);
      rope = matrix(FK_F32, c->m[g], c->head, 0, 0.7);
    }
    EACH_SIDE l[s][g] = (FkLinear){.x = x.t[s],
                                   .y = y[g].t[s],
                                   .bias = bias.t[s],
                                   .w = weight_of(w, s),
                                   .gate = c->epilogue == FK_EPI_GATE ? gate.t[s] : fk_tensor_none(),
                                   .epilogue = c->epilogue,
                                   .act = c->act,
                                   .q_norm = q.t[s],
                                   .k_norm = k.t[s],
                                   .rope = rope.t[s],
                                   .width = c->width};
  }
  FkArena arena[SIDES];
  use(FK_CAN_FUSED_LINEAR, fused);
  EACH_SIDE {
    fk_arena_open(&arena[s], side[s], (size_t)(c->m[0] + c->m[1] + 64) * (size_t)(c->n + 64) * 4);
    fk_op_linear(side[s], &arena[s], l[s], groups);
  }
  EACH_SIDE fk_arena_close(&arena[s]);
  use(FK_CAN_FUSED_LINEAR, true);
  snprintf(name, sizeof name, "linear %s %s %ldx%ldx%ld", c->name, fused ? "fused" : "composed",
           (long)(c->m[0] + c->m[1]), (long)c->n, (long)c->k);
  same(name, groups, y);
}

static void test_linear(void) {
  static const LinearCase cases[] = {
      {"plain", {77, 0}, 768, 768, FK_EPI_ACT, FK_ACT_NONE, FK_BF16, 0, 0, 0, 0},
      {"plain", {300, 0}, 64, 3072, FK_EPI_ACT, FK_ACT_NONE, FK_F32, 0, 0, 0, 0},
      {"one row, float out", {1, 0}, 1536, 256, FK_EPI_ACT, FK_ACT_NONE, FK_F32, 0, 0, 0, 2048},
      {"28 rows, float out", {28, 0}, 1536, 512, FK_EPI_ACT, FK_ACT_NONE, FK_F32, 0, 0, 0, 0},
      {"odd sizes", {37, 0}, 53, 50, FK_EPI_ACT, FK_ACT_NONE, FK_BF16, 0, 0, 0, 0},
      {"silu", {130, 0}, 256, 768, FK_EPI_ACT, FK_ACT_SILU, FK_BF16, 0, 0, 0, 0},
      {"quick-gelu", {77, 0}, 512, 128, FK_EPI_ACT, FK_ACT_QUICK_GELU, FK_BF16, 0, 0, 0, 0},
      {"gelu, two groups", {96, 517}, 1024, 256, FK_EPI_ACT, FK_ACT_GELU_TANH, FK_BF16, 0, 0, 0, 1792},
      {"gate, two groups", {64, 300}, 256, 1024, FK_EPI_GATE, FK_ACT_NONE, FK_BF16, 0, 0, 1792, 0},
      {"gate, wide", {513, 0}, 512, 1280, FK_EPI_GATE, FK_ACT_NONE, FK_BF16, 0, 0, 0, 0},
      {"add", {200, 0}, 256, 512, FK_EPI_ADD, FK_ACT_NONE, FK_BF16, 0, 0, 0, 0},
      {"qkv, two groups", {64, 450}, 768, 256, FK_EPI_QKV, FK_ACT_NONE, FK_BF16, 256, 128, 0, 1792},
      {"qkv and mlp", {514, 0}, 1792, 256, FK_EPI_QKV, FK_ACT_NONE, FK_BF16, 256, 128, 0, 0},
      {"keys and values", {300, 0}, 768, 256, FK_EPI_QKV, FK_ACT_NONE, FK_BF16, 256, 128, 0, 1024},
      {"qkv, heads of 64", {100, 0}, 384, 128, FK_EPI_QKV, FK_ACT_NONE, FK_BF16, 128, 64, 0, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    linear_case(&cases[i], true);
    if (cases[i].epilogue != FK_EPI_ACT || cases[i].act != FK_ACT_NONE) linear_case(&cases[i], false);
  }
}

/* ---- attention -------------------------------------------------------------------------------------------------- */

typedef struct {
  int64_t sq, sk, heads, width;
  bool causal, bias, packed; /* packed: q, k, v are columns of one matrix and the result replaces q */
  bool flash;
} AttentionCase;

static void attention_case(const AttentionCase *c) {
  const int64_t d = c->heads * c->width, ld = c->packed ? 3 * d + 64 : 0;
  Pair k = matrix(FK_BF16, c->sk, c->packed ? 3 * d : d, ld, 1), v = k, q = k;
  if (!c->packed) v = matrix(FK_BF16, c->sk, d, 0, 1), q = matrix(FK_BF16, c->sq, d, 0, 1);
  Pair bias = c->bias ? matrix(FK_F32, c->heads, c->sq + c->sk - 1, 0, 2) : nothing();
  Pair o = c->packed ? k : matrix_out(FK_BF16, c->sq, d, 0);
  use(FK_CAN_FLASH, c->flash);
  EACH_SIDE {
    FkAttention a = {.k = k.t[s],
                     .v = v.t[s],
                     .q = q.t[s],
                     .o = o.t[s],
                     .bias = bias.t[s],
                     .heads = c->heads,
                     .scale = (float)(1 / sqrt((double)c->width)),
                     .causal = c->causal};
    if (c->packed) {
      a.k = fk_tensor_slice_cols(k.t[s], 0, d);
      a.v = fk_tensor_slice_cols(k.t[s], d, d);
      a.q = a.o = fk_tensor_slice_cols(fk_tensor_slice_rows(k.t[s], 0, c->sq), 2 * d, d);
    }
    fk_op_attention(side[s], &a);
  }
  use(FK_CAN_FLASH, true);
  if (c->packed) /* k and v lie in the same memory: only the result's columns are compared */
    EACH_SIDE o.t[s] = fk_tensor_slice_cols(fk_tensor_slice_rows(k.t[s], 0, c->sq), 2 * d, d);
  o.part = c->packed;
  char name[128];
  snprintf(name, sizeof name, "attention %ldx%ld, %ld heads of %ld%s%s%s%s", (long)c->sq, (long)c->sk, (long)c->heads,
           (long)c->width, c->causal ? ", causal" : "", c->bias ? ", bias" : "", c->packed ? ", in place" : "",
           c->flash ? "" : ", general");
  same(name, 1, &o);
}

static void test_attention(void) {
  static const AttentionCase cases[] = {
      {320, 320, 2, 128, false, false, false, true}, {577, 577, 2, 128, false, false, true, true},
      {200, 450, 3, 128, false, false, true, true},  {577, 577, 2, 128, false, false, true, false},
      {77, 77, 12, 64, true, false, false, true},    {128, 128, 4, 64, false, true, false, true},
      {1, 1, 2, 64, false, false, false, true},      {512, 512, 4, 64, false, true, true, true},
      {576, 576, 1, 512, false, false, true, true},  {256, 256, 1, 128, false, false, true, true},
      {1, 65, 2, 512, false, false, false, true},    {130, 300, 3, 512, false, false, false, true},
      {128, 128, 1, 512, false, false, true, false},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) attention_case(&cases[i]);
}

/* ---- norms ------------------------------------------------------------------------------------------------------ */

static void layer_norm_case(FkDtype dtype, int64_t rows0, int64_t rows1, int64_t d, int64_t ld, bool modulate) {
  const int groups = rows1 ? 2 : 1;
  FkLayerNorm n[SIDES][2] = {0};
  Pair y[2];
  char name[128];
  for (int g = 0; g < groups; g++) {
    Pair x = operand(dtype, 2, (int64_t[]){g ? rows1 : rows0, d}, ld, NORMAL, 3, 2);
    Pair a = vector(d, modulate ? 0 : 1, 0.3), b = vector(d, 0, 0.3);
    y[g] = matrix_out(dtype, g ? rows1 : rows0, d, ld);
    EACH_SIDE n[s][g] =
        modulate ? (FkLayerNorm){.x = x.t[s], .y = y[g].t[s], .scale = a.t[s], .shift = b.t[s], .eps = 1e-6f}
                 : (FkLayerNorm){.x = x.t[s], .y = y[g].t[s], .weight = a.t[s], .bias = b.t[s], .eps = 1e-5f};
  }
  EACH_SIDE fk_op_layer_norm(side[s], NULL, n[s], groups);
  snprintf(name, sizeof name, "layer_norm %ld+%ld rows of %ld %s%s", (long)rows0, (long)rows1, (long)d,
           modulate ? "modulated" : "weighted", dtype == FK_F32 ? ", float" : "");
  same(name, groups, y);
}

static void rms_norm_case(FkDtype dtype, int64_t rows, int64_t heads, int64_t e, int64_t ld) {
  Pair x = matrix(dtype, rows, heads * e, ld, 2), w = vector(e, 1, 0.3), y = matrix_out(dtype, rows, heads * e, 0);
  EACH_SIDE fk_op_rms_norm(side[s], y.t[s], x.t[s], w.t[s], 1e-6f);
  char name[128];
  snprintf(name, sizeof name, "rms_norm %ld rows of %ld x %ld", (long)rows, (long)heads, (long)e);
  same(name, 1, &y);
}

static void group_norm_case(FkDtype dtype, int64_t h, int64_t w, int64_t c, bool silu, bool in_place, double mean) {
  Pair x = image(dtype, h, w, c, mean, 1.5), a = vector(c, 1, 0.3), b = vector(c, 0, 0.3);
  Pair y = in_place ? x : image_out(dtype, h, w, c);
  EACH_SIDE {
    FkGroupNorm n = {
        .x = x.t[s], .y = y.t[s], .weight = a.t[s], .bias = b.t[s], .groups = 32, .eps = 1e-6f, .silu = silu};
    fk_op_group_norm(side[s], &n);
  }
  char name[128];
  snprintf(name, sizeof name, "group_norm %ldx%ldx%ld%s%s mean %g", (long)h, (long)w, (long)c, silu ? " silu" : "",
           in_place ? " in place" : "", mean);
  same(name, 1, &y);
}

static void test_norms(void) {
  layer_norm_case(FK_BF16, 100, 0, 3072, 0, true);
  layer_norm_case(FK_BF16, 37, 131, 3072, 0, true);
  layer_norm_case(FK_BF16, 1500, 0, 3072, 0, true);
  layer_norm_case(FK_BF16, 301, 1111, 3072, 3328, true);
  layer_norm_case(FK_BF16, 1029, 1, 3072, 0, false);
  layer_norm_case(FK_BF16, 77, 0, 768, 0, false);
  layer_norm_case(FK_BF16, 64, 513, 256, 320, true);
  layer_norm_case(FK_BF16, 77, 0, 128, 0, false);
  layer_norm_case(FK_BF16, 9, 0, 2056, 0, false);
  layer_norm_case(FK_BF16, 5, 6, 101, 0, true);
  layer_norm_case(FK_F32, 33, 0, 256, 0, true);
  rms_norm_case(FK_BF16, 512, 1, 4096, 0);
  rms_norm_case(FK_BF16, 65, 1, 256, 0);
  rms_norm_case(FK_BF16, 130, 3, 128, 1000);
  rms_norm_case(FK_BF16, 50, 2, 64, 0);
  rms_norm_case(FK_F32, 7, 2, 30, 0);
  static const int64_t channels[] = {32, 64, 128, 256, 512};
  for (size_t i = 0; i < sizeof channels / sizeof *channels; i++) {
    group_norm_case(FK_BF16, 33, 47, channels[i], true, false, 0.5);
    group_norm_case(FK_BF16, 128, 130, channels[i], false, true, -4);
  }
  group_norm_case(FK_BF16, 5, 3, 96, true, false, 0);
  group_norm_case(FK_F32, 16, 16, 64, true, false, 0);
  use(FK_CAN_FUSED_GROUP_NORM, false);
  group_norm_case(FK_BF16, 40, 40, 128, true, false, 0);
  use(FK_CAN_FUSED_GROUP_NORM, true);
}

/* ---- convolution ------------------------------------------------------------------------------------------------ */

typedef struct {
  int64_t h, w, in, out;
  int kernel, stride, before, after;
  bool up, residual;
} ConvCase;

static void conv_case(const ConvCase *c, bool fused, FkDtype x_type, FkDtype y_type) {
  const int64_t up = c->up ? 2 : 1, pad = c->before + c->after, k = (int64_t)c->kernel * c->kernel * c->in;
  const int64_t ho = (c->h * up + pad - c->kernel) / c->stride + 1, wo = (c->w * up + pad - c->kernel) / c->stride + 1;
  Pair x = image(x_type, c->h, c->w, c->in, 0.1, 1), w = matrix(FK_BF16, c->out, k, 0, 1 / sqrt((double)k));
  Pair bias = vector(c->out, 0, 0.5), y = image_out(y_type, ho, wo, c->out);
  Pair residual = c->residual ? image(y_type, ho, wo, c->out, 0, 1) : nothing();
  FkArena arena[SIDES];
  use(FK_CAN_FUSED_CONV, fused);
  EACH_SIDE {
    fk_arena_open(&arena[s], side[s], (size_t)(ho * wo * (c->in + c->out) * 4 + 4096));
    FkConv conv = {.x = x.t[s],
                   .y = y.t[s],
                   .bias = bias.t[s],
                   .residual = residual.t[s],
                   .w = weight_of(w, s),
                   .kernel = c->kernel,
                   .stride = c->stride,
                   .pad_before = c->before,
                   .pad_after = c->after,
                   .upsample = c->up};
    fk_op_conv(side[s], &arena[s], &conv);
  }
  use(FK_CAN_FUSED_CONV, true);
  char name[160];
  snprintf(name, sizeof name, "conv %dx%d /%d pad %d,%d %ldx%ldx%ld -> %ld%s%s%s", c->kernel, c->kernel, c->stride,
           c->before, c->after, (long)c->h, (long)c->w, (long)c->in, (long)c->out, c->up ? " doubled" : "",
           c->residual ? " residual" : "", fused ? "" : " composed");
  same(name, 1, &y);
  EACH_SIDE fk_arena_close(&arena[s]);
}

static void test_conv(void) {
  static const ConvCase cases[] = {
      {40, 56, 3, 128, 3, 1, 1, 1, false, false},   {19, 23, 16, 512, 3, 1, 1, 1, false, false},
      {33, 50, 32, 32, 3, 1, 1, 1, false, true},    {33, 50, 32, 64, 3, 1, 1, 1, false, false},
      {30, 47, 64, 64, 3, 1, 1, 1, false, true},    {31, 45, 128, 128, 3, 1, 1, 1, false, true},
      {21, 37, 128, 256, 3, 1, 1, 1, false, false}, {18, 20, 512, 512, 3, 1, 1, 1, false, true},
      {17, 33, 256, 256, 3, 1, 1, 1, true, false},  {24, 17, 64, 64, 3, 1, 1, 1, true, false},
      {20, 23, 128, 128, 3, 1, 1, 1, true, true},   {34, 52, 128, 128, 3, 2, 0, 1, false, false},
      {20, 38, 512, 512, 3, 2, 0, 1, false, false}, {32, 32, 32, 32, 3, 2, 0, 1, false, false},
      {33, 35, 64, 128, 3, 2, 1, 1, false, false},  {34, 36, 64, 128, 3, 2, 1, 1, false, true},
      {25, 41, 256, 128, 1, 1, 0, 0, false, false}, {25, 41, 512, 256, 1, 1, 0, 0, false, true},
      {29, 31, 32, 64, 1, 1, 0, 0, false, false},   {40, 40, 128, 3, 3, 1, 1, 1, false, false},
      {16, 16, 512, 32, 3, 1, 1, 1, false, false},  {23, 29, 96, 40, 3, 1, 1, 1, false, true},
      {23, 29, 13, 7, 3, 1, 1, 1, true, true},      {1, 1, 64, 64, 3, 1, 1, 1, false, false},
      {35, 50, 32, 3, 3, 1, 1, 1, false, false},    {9, 17, 160, 2, 3, 1, 1, 1, false, false},
      {35, 21, 2, 40, 3, 1, 1, 1, false, false},    {64, 130, 3, 256, 3, 1, 1, 1, false, false},
      {96, 112, 64, 128, 3, 1, 1, 1, false, true},  {50, 90, 64, 256, 3, 1, 1, 1, false, true},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) conv_case(&cases[i], true, FK_BF16, FK_BF16);
  for (size_t i = 8; i < 12; i++) conv_case(&cases[i], false, FK_BF16, FK_BF16);
  conv_case(&cases[0], true, FK_F32, FK_BF16);
  conv_case(&cases[19], true, FK_BF16, FK_F32);
  conv_case(&cases[5], true, FK_F32, FK_BF16);
}

/* An argument (linear, attention, norms, conv) limits the run to that part. */
int main(int argc, char **argv) {
  static const struct {
    const char *name;
    void (*run)(void);
  } parts[] = {{"linear", test_linear}, {"attention", test_attention}, {"norms", test_norms}, {"conv", test_conv}};
  if (!open_sides()) return 0;
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    if (argc < 2 || !strcmp(argv[1], parts[i].name)) parts[i].run();
  return close_sides();
}
