/* SPDX-License-Identifier: Apache-2.0 */
/* Ops on the CPU backend: each case of ops-cases.c and ops-cases-quant.c against double precision, with 1, 2 and 3
 * threads to the byte, and fused against composed. Then what has no number to compare with: pixels, dtypes, checks,
 * counts, failures.
 *
 * `test-ops --bench [word]` times instead the cases that have a large size (and the word in their name) on all
 * processors: the least of a few runs. */
#include "ops-cases.h"
#include "profile.h"

#include <math.h>
#include <string.h>

static FkBackend *open_cpu(int threads) {
  FkFailure failure;
  char message[256];
  FkBackend *be = fk_backend_open("cpu", 0, threads, &failure, message, sizeof message);
  g_assert_nonnull(be);
  return be;
}

static double relative_error(const float *y, const double *reference, guint n) {
  double error = 0, size = 0;
  for (guint i = 0; i < n; i++) {
    error += ((double)y[i] - reference[i]) * ((double)y[i] - reference[i]);
    size += reference[i] * reference[i];
  }
  return size > 0 ? sqrt(error / size) : sqrt(error);
}

/* Runs one case; the result is what the op wrote. */
static GArray *run_case(const CaseRow *row, int threads, gboolean fused, double *error) {
  FkBackend *be = open_cpu(threads);
  if (!fused) be->use = 0;
  Case c;
  case_init(&c, be);
  row->run(&c);
  g_assert_true(fk_backend_sync(be));
  case_check_padding(&c);
  *error = relative_error((float *)(gpointer)c.result->data, (double *)(gpointer)c.reference->data, c.result->len);
  GArray *result = g_array_ref(c.result);
  case_clear(&c);
  fk_backend_close(be);
  return result;
}

static void assert_equal_bytes(GArray *a, GArray *b) {
  g_assert_cmpmem(a->data, a->len * sizeof(float), b->data, b->len * sizeof(float));
}

static void test_reference(gconstpointer data) {
  const CaseRow *row = data;
  double error;
  g_autoptr(GArray) one = run_case(row, 1, TRUE, &error);
  g_test_message("relative error %.2e", error);
  g_assert_cmpfloat(error, <=, row->tolerance);
  for (int threads = 2; threads <= 3; threads++) {
    g_autoptr(GArray) more = run_case(row, threads, TRUE, &error);
    assert_equal_bytes(one, more);
  }
}

/* Both keep the tolerance against the reference, and each other's within it. */
static void test_composition(gconstpointer data) {
  const CaseRow *row = data;
  double error;
  g_autoptr(GArray) fused = run_case(row, 2, TRUE, &error);
  g_autoptr(GArray) composed = run_case(row, 2, FALSE, &error);
  g_assert_cmpfloat(error, <=, row->tolerance);
  g_assert_cmpuint(fused->len, ==, composed->len);
  double difference = 0, size = 0;
  for (guint i = 0; i < fused->len; i++) {
    double a = (double)g_array_index(fused, float, i), b = (double)g_array_index(composed, float, i);
    difference += (a - b) * (a - b);
    size += b * b;
  }
  g_test_message("fused against composed %.2e", sqrt(difference / size));
  if (row->tolerance == 0) assert_equal_bytes(fused, composed);
  g_assert_cmpfloat(sqrt(difference / size), <=, 1e-6);
}

/* Each number on its own: silu(x), gelu(x), quick_gelu(x) and through them exp, over the whole useful range. */
static void test_act_accuracy(void) {
  const FkAct acts[] = {FK_ACT_SILU, FK_ACT_GELU_TANH, FK_ACT_QUICK_GELU};
  enum { N = 40001 };
  g_autofree float *x = g_new(float, N), *y = g_new(float, N);
  FkBackend *be = open_cpu(2);
  for (int i = 0; i < N; i++) x[i] = ((float)i - N / 2) * 4e-4f; /* -8..8 */
  for (guint k = 0; k < G_N_ELEMENTS(acts); k++) {
    double worst = 0;
    fk_op_act(be, fk_tensor_1d(y, FK_F32, N), fk_tensor_1d(x, FK_F32, N), acts[k]);
    for (int i = 0; i < N; i++) {
      /* 1 + tanh(u) = 2 / (1 + exp(-2u)) loses no digits at negative u, 1 + tanh itself does. */
      double v = (double)x[i], u = sqrt(2 / G_PI) * (v + 0.044715 * v * v * v);
      double exact = acts[k] == FK_ACT_GELU_TANH ? v / (1 + exp(-2 * u)) : naive_act(v, acts[k]);
      worst = MAX(worst, fabs((double)y[i] - exact) / MAX(fabs(exact), 1e-10));
    }
    g_test_message("act %d: worst relative error %.2e", (int)acts[k], worst);
    g_assert_cmpfloat(worst, <=, 3e-6); /* the argument reaches 50 in gelu at -8: 50 * 2^-24 */
  }
  const float edges[] = {-INFINITY, -1e30f, -200, -0.0f, 0, 200, 1e30f, INFINITY, NAN};
  float out[G_N_ELEMENTS(edges)];
  fk_op_act(be, fk_tensor_1d(out, FK_F32, 9), fk_tensor_1d((void *)edges, FK_F32, 9), FK_ACT_SILU);
  g_assert_true(fabsf(out[2]) < 1e-30f && out[3] == 0 && out[4] == 0 && out[5] == 200 && out[6] == 1e30f);
  g_assert_true(isinf(out[7]) && isnan(out[8]));
  fk_backend_close(be);
}

/* Every code both ways, halves to even, clamping, and a strided image. */
static void test_pixels(void) {
  FkBackend *be = open_cpu(2);
  guint8 codes[256 * 4], back[256 * 4];
  float values[256 * 3];
  for (int i = 0; i < 256 * 4; i++) codes[i] = (guint8)(i / 4), back[i] = 77;
  FkTensor rgbx = fk_tensor_3d(codes, FK_U8, 16, 16, 3), out = fk_tensor_3d(back, FK_U8, 16, 16, 3);
  rgbx.ld = out.ld = 4;
  FkTensor y = fk_tensor_3d(values, FK_F32, 16, 16, 3);
  fk_op_from_u8(be, y, rgbx);
  for (int i = 0; i < 256 * 3; i++) {
    float expected = (float)(i / 3) / 255.0f * 2.0f - 1.0f;
    g_assert_true(values[i] == expected);
  }
  fk_op_to_u8(be, out, y);
  for (int i = 0; i < 256 * 4; i++) g_assert_cmpint(back[i], ==, i % 4 == 3 ? 77 : codes[i]);
  const float edge[] = {-3, -1, 1, 3, (2.5f / 255 - 0.5f) * 2, (3.5f / 255 - 0.5f) * 2, NAN};
  fk_op_to_u8(be, fk_tensor_1d(back, FK_U8, 7), fk_tensor_1d((void *)edge, FK_F32, 7));
  for (int i = 0; i < 6; i++) {
    float v = edge[i] * 0.5f + 0.5f;
    g_assert_cmpint(back[i], ==, (int)rintf((v < 0 ? 0 : v > 1 ? 1 : v) * 255.0f));
  }
  g_assert_cmpint(back[6], ==, 0);
  fk_backend_close(be);
}

/* Values that each 16-bit format holds or rounds in a known way. */
static void test_dtypes(void) {
  FkBackend *be = open_cpu(1);
  enum { N = 12 };
  const float x[N] = {
      1,       -2.5f, 0.1f, 65504, 65520, 1e-7f, 0x1p-14f, 1 + 0x1p-9f, 1 + 3 * 0x1p-9f, 1 + 0x1p-11f, 1 + 3 * 0x1p-11f,
      INFINITY};
  const guint16 bf16[N] = {0x3f80, 0xc020, 0x3dcd, 0x4780, 0x4780, 0x33d7,
                           0x3880, 0x3f80, 0x3f81, 0x3f80, 0x3f80, 0x7f80};
  const guint16 f16[N] = {0x3c00, 0xc100, 0x2e66, 0x7bff, 0x7c00, 0x0002,
                          0x0400, 0x3c02, 0x3c06, 0x3c00, 0x3c02, 0x7c00};
  guint16 y[N];
  float back[N];
  FkTensor from = fk_tensor_1d((void *)x, FK_F32, N);
  fk_op_copy(be, fk_tensor_1d(y, FK_BF16, N), from);
  for (int i = 0; i < N; i++) g_assert_cmphex(y[i], ==, bf16[i]);
  fk_op_copy(be, fk_tensor_1d(back, FK_F32, N), fk_tensor_1d(y, FK_BF16, N));
  for (int i = 0; i < N; i++) {
    guint32 bits;
    memcpy(&bits, back + i, sizeof bits);
    g_assert_cmphex(bits, ==, (guint32)bf16[i] << 16);
  }
  fk_op_copy(be, fk_tensor_1d(y, FK_F16, N), from);
  for (int i = 0; i < N; i++) g_assert_cmphex(y[i], ==, f16[i]);
  fk_op_copy(be, fk_tensor_1d(back, FK_F32, N), fk_tensor_1d(y, FK_F16, N));
  g_assert_true(back[0] == 1.0f && back[1] == -2.5f && back[3] == 65504.0f && isinf(back[4]) && back[5] == 0x1p-23f);
  fk_backend_close(be);
}

/* NaN or infinity anywhere is found and names the stage; later ops then do nothing; clear starts over. */
static void test_check(void) {
  FkBackend *be = open_cpu(2);
  g_autofree float *x = g_new0(float, 70000);
  FkTensor t = fk_tensor_2d(x, FK_F32, 700, 100);
  fk_op_check(be, t, "decoder");
  g_assert_true(fk_backend_sync(be));
  const float bad[] = {NAN, INFINITY, -INFINITY};
  for (int i = 0; i < 3; i++) {
    x[69999 - i] = bad[i];
    fk_op_check(be, t, "decoder");
    g_assert_false(fk_backend_sync(be));
    g_assert_cmpint(be->failure, ==, FK_FAIL_NONFINITE);
    g_assert_cmpstr(be->message, ==, "decoder");
    fk_op_add(be, t, t, fk_tensor_2d(x, FK_F32, 700, 100));
    float downloaded[2] = {5, 5};
    fk_op_download(be, downloaded, fk_tensor_1d(x, FK_F32, 2));
    g_assert_true(downloaded[0] == 0 && downloaded[1] == 0);
    fk_backend_clear(be);
    x[69999 - i] = 3e38f;
    fk_op_check(be, t, "decoder");
    g_assert_true(fk_backend_sync(be));
  }
  fk_backend_close(be);
}

/* FLOP of a linear, an attention (full and causal) and a convolution, by hand. */
static void test_counts(void) {
  FkBackend *be = open_cpu(1);
  Case c;
  case_init(&c, be);
  FkLinear l = {.x = case_2d(&c, 10, 20, 0), .y = case_2d(&c, 10, 30, 0), .w = case_weight(&c, 30, 20)};
  fk_op_linear(be, NULL, &l, 1);
  g_assert_cmpfloat(be->count.linear_flop, ==, 2.0 * 10 * 20 * 30);
  g_assert_cmpfloat(be->count.bytes, ==, 4.0 * (10 * 20 + 10 * 30 + 20 * 30));
  g_assert_cmpint(be->count.ops, ==, 1);
  FkTensor q = case_2d(&c, 4, 16, 0);
  FkAttention a = {.q = q, .k = q, .v = q, .o = case_2d(&c, 4, 16, 0), .heads = 2, .scale = 1};
  fk_op_attention(be, &a);
  g_assert_cmpfloat(be->count.attention_flop, ==, 4.0 * 4 * 4 * 16);
  a.causal = true;
  fk_op_attention(be, &a);
  g_assert_cmpfloat(be->count.attention_flop, ==, 4.0 * (4 * 4 + 10) * 16);
  FkArena arena;
  g_assert_true(fk_arena_open(&arena, be, 0));
  FkConv conv = {.x = case_3d(&c, 5, 6, 3, 0),
                 .y = case_3d(&c, 5, 6, 7, 0),
                 .w = case_weight(&c, 7, 27),
                 .kernel = 3,
                 .stride = 1,
                 .pad_before = 1,
                 .pad_after = 1};
  fk_op_conv(be, &arena, &conv);
  g_assert_cmpfloat(be->count.conv_flop, ==, 2.0 * 5 * 6 * 7 * 27);
  fk_arena_close(&arena);
  case_clear(&c);
  fk_backend_close(be);
}

/* The op of a case is the last that it runs; those before build its operands. */
static void bench_case(const CaseRow *row) {
  FkBackend *be = open_cpu(0);
  Case c;
  case_init(&c, be);
  c.large = &row->large;
  g_assert_true(fk_profile_start(be));
  row->run(&c);
  struct FkProfile *p = fk_profile_stop(be);
  g_assert_true(fk_backend_sync(be));
  const FkProfileOp *best = NULL;
  for (int i = 0; i < p->count; i++)
    if (!best || strcmp(best->op, p->op[i].op) || p->op[i].ms < best->ms) best = &p->op[i];
  g_print("%-36s %-20s %6d %6d %6d %10.3f ms %8.1f GFLOP/s %6.1f GB/s\n", row->name, best->op, (int)best->m,
          (int)best->n, (int)best->k, best->ms, best->flop / best->ms / 1e6, best->bytes / best->ms / 1e6);
  free(p);
  case_clear(&c);
  fk_backend_close(be);
}

static void bench(const CaseRow *rows, guint n, const char *word) {
  for (guint i = 0; i < n; i++)
    if (rows[i].large.m && (!word || strstr(rows[i].name, word))) bench_case(&rows[i]);
}

static void add_cases(const CaseRow *rows, guint n) {
  for (guint i = 0; i < n; i++) {
    g_autofree char *path = g_strdup_printf("/ops/reference/%s", rows[i].name);
    g_test_add_data_func(path, &rows[i], test_reference);
    g_autofree char *fused = g_strdup_printf("/ops/composition/%s", rows[i].name);
    if (rows[i].fused) g_test_add_data_func(fused, &rows[i], test_composition);
  }
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "--bench")) {
    bench(ops_cases, ops_case_count, argc > 2 ? argv[2] : NULL);
    bench(ops_quant_cases, ops_quant_case_count, argc > 2 ? argv[2] : NULL);
    return 0;
  }
  g_test_init(&argc, &argv, NULL);
  add_cases(ops_cases, ops_case_count);
  add_cases(ops_quant_cases, ops_quant_case_count);
  g_test_add_func("/ops/act-accuracy", test_act_accuracy);
  g_test_add_func("/ops/pixels", test_pixels);
  g_test_add_func("/ops/dtypes", test_dtypes);
  g_test_add_func("/ops/check", test_check);
  g_test_add_func("/ops/counts", test_counts);
  return g_test_run();
}
