/* SPDX-License-Identifier: Apache-2.0 */
/* Quantisation: codes and scales bit for bit against the definition, in double precision and with codes found by
 * search; groups of every shape, views with holes, and everything that is no ordinary number. */
#include "cpu.h"
#include "number.h"
#include "ops.h"

#include "number-reference.h"

#include <math.h>
#include <string.h>

static FkBackend *open_cpu(int threads) {
  FkFailure failure;
  char message[256];
  FkBackend *be = fk_backend_open("cpu", 0, threads, &failure, message, sizeof message);
  g_assert_nonnull(be);
  return be;
}

typedef struct {
  const char *name;
  gint64 rows, cols, height, width; /* a group: rows and columns */
  FkDtype y, x;
  gint64 pad; /* further columns of every buffer */
} QuantCase;

static const QuantCase cases[] = {
    {"e4m3-row", 37, 300, 1, 300, FK_E4M3, FK_F32, 0},
    {"i8-row", 37, 300, 1, 300, FK_I8, FK_F32, 0},
    {"e4m3-128", 9, 384, 1, 128, FK_E4M3, FK_F32, 5},
    {"i8-128", 9, 384, 1, 128, FK_I8, FK_F32, 5},
    {"e4m3-bf16", 21, 256, 1, 128, FK_E4M3, FK_BF16, 3},
    {"i8-bf16", 21, 77, 1, 77, FK_I8, FK_BF16, 3},
    {"i8-head", 33, 72, 1, 24, FK_I8, FK_F32, 1},
    {"i8-rows-head", 300, 72, 128, 24, FK_I8, FK_F32, 2},
    {"e4m3-rows-head", 256, 64, 128, 32, FK_E4M3, FK_F32, 0},
    {"e4m3-few-rows", 5, 64, 128, 32, FK_E4M3, FK_F32, 1},
    {"e4m3-one", 1, 1, 1, 1, FK_E4M3, FK_F32, 0},
    {"i8-one-head", 1, 128, 128, 64, FK_I8, FK_F32, 0},
    {"e4m3-rows-bf16", 130, 48, 128, 48, FK_E4M3, FK_BF16, 4},
};

/* Buffers of one case: numbers as they are and as x holds them; codes and scales with a margin of 0xAA. */
typedef struct {
  float *numbers; /* [rows, cols + pad] */
  guint16 *halves;
  guint8 *codes;
  float *scales; /* [groups down, groups across + pad] */
  gint64 ld, down, across, scale_ld;
  FkTensor x, y, y_scale;
} Buffers;

static void buffers_init(Buffers *b, const QuantCase *c) {
  b->ld = c->cols + c->pad;
  b->down = (c->rows + c->height - 1) / c->height;
  b->across = c->cols / c->width;
  const gboolean vector = c->height == 1 && c->width == c->cols;
  b->scale_ld = b->across + (vector ? 0 : c->pad);
  b->numbers = g_new0(float, c->rows * b->ld);
  b->halves = g_new0(guint16, c->rows * b->ld);
  b->codes = g_malloc((gsize)(c->rows * b->ld));
  memset(b->codes, 0xaa, (gsize)(c->rows * b->ld));
  b->scales = g_malloc((gsize)(b->down * b->scale_ld) * sizeof(float));
  memset(b->scales, 0xaa, (gsize)(b->down * b->scale_ld) * sizeof(float));
  b->x = fk_tensor_2d(c->x == FK_F32 ? (void *)b->numbers : b->halves, c->x, c->rows, c->cols);
  b->y = fk_tensor_2d(b->codes, c->y, c->rows, c->cols);
  b->x.ld = b->y.ld = b->ld;
  b->y_scale = vector ? fk_tensor_1d(b->scales, FK_F32, b->down) : fk_tensor_2d(b->scales, FK_F32, b->down, b->across);
  if (!vector) b->y_scale.ld = b->scale_ld;
}

static void buffers_clear(Buffers *b) {
  g_free(b->numbers);
  g_free(b->halves);
  g_free(b->codes);
  g_free(b->scales);
}

/* Numbers of very unlike sizes, with what is special planted in rows and columns of their own groups. */
static void fill(Buffers *b, const QuantCase *c, gboolean special) {
  static const float odd[] = {NAN,       INFINITY, -INFINITY, -0.0f,       0x1p-100f, 0x1p-101f,
                              0x1p-140f, 3.4e38f,  -3e38f,    0x1.8p-100f, -NAN,      1e-30f};
  guint32 random = 7;
  for (gint64 r = 0; r < c->rows; r++)
    for (gint64 k = 0; k < b->ld; k++) {
      random = random * 1664525u + 1013904223u;
      const double unit = (double)(gint32)random / 0x1p31;
      float v = (float)(unit * exp2((double)(random >> 8 & 7) - 4 + (double)(r % 11) * 3));
      if (special && r % 13 == 3) v = 0;          /* rows of zeros, some with one number */
      if (special && r % 13 == 5) v *= 0x1p-120f; /* rows below the least amax */
      if (special && (r * 7 + k) % 97 == 0) v = odd[(guint64)(r + k) % G_N_ELEMENTS(odd)];
      if (k >= c->cols) v = NAN; /* the margin is never read */
      b->numbers[r * b->ld + k] = v;
    }
  for (gint64 i = 0; i < c->rows * b->ld; i++) { /* toward zero: the numbers are what the halves say */
    guint32 bits;
    memcpy(&bits, &b->numbers[i], sizeof bits);
    b->halves[i] = (guint16)(bits >> 16);
    bits = (guint32)b->halves[i] << 16;
    if (c->x == FK_BF16) memcpy(&b->numbers[i], &bits, sizeof bits);
  }
}

static guint8 reference_code(FkDtype dtype, float product) {
  if (isnan(product)) return dtype == FK_E4M3 ? 0x7f : 0;
  if (dtype == FK_E4M3) return (guint8)format_round(&format_e4m3, (double)product);
  const double size = MIN(fabs((double)product), 1000), low = floor(size), rest = size - low;
  const double rounded = rest < 0.5 || (rest == 0.5 && fmod(low, 2) == 0) ? low : low + 1;
  return (guint8)(gint8)(copysign(MIN(rounded, 127), (double)product));
}

/* Division and product in double, rounded once to float32: double has more than twice its digits. */
static void check_group(const Buffers *b, const QuantCase *c, gint64 top, gint64 left) {
  const double limit = c->y == FK_E4M3 ? 448 : 127;
  double amax = 0;
  gboolean broken = FALSE;
  const gint64 bottom = MIN(top + c->height, c->rows), right = left + c->width;
  for (gint64 r = top; r < bottom; r++)
    for (gint64 k = left; k < right; k++) {
      const double v = (double)b->numbers[r * b->ld + k];
      if (isnan(v))
        broken = broken || c->y == FK_I8;
      else
        amax = MAX(amax, fabs(v));
    }
  const gboolean empty = amax < 0x1p-100;
  const float inverse = empty || broken ? 0.0f : (float)(limit / amax), scale = empty ? 1.0f : (float)(amax / limit);
  const float got = b->scales[top / c->height * b->scale_ld + left / c->width];
  if (broken)
    g_assert_true(isnan(got));
  else
    g_assert_true(got == scale);
  for (gint64 r = top; r < bottom; r++)
    for (gint64 k = left; k < right; k++) {
      const float x = b->numbers[r * b->ld + k], product = (float)((double)x * (double)inverse);
      const guint8 code = b->codes[r * b->ld + k], want = reference_code(c->y, broken ? 0.0f * x : product);
      if (code != want) g_error("row %d column %d: %a becomes %x, expected %x", (int)r, (int)k, (double)x, code, want);
    }
}

static void check_all(const Buffers *b, const QuantCase *c) {
  for (gint64 top = 0; top < c->rows; top += c->height)
    for (gint64 left = 0; left < c->cols; left += c->width) check_group(b, c, top, left);
  for (gint64 r = 0; r < c->rows; r++)
    for (gint64 k = c->cols; k < b->ld; k++) g_assert_cmphex(b->codes[r * b->ld + k], ==, 0xaa);
}

static void quantize(gconstpointer data) {
  const QuantCase *c = data;
  for (int special = 0; special < 2; special++) {
    g_autofree guint8 *first = NULL;
    for (int threads = 1; threads <= 3; threads++) {
      FkBackend *be = open_cpu(threads);
      Buffers b;
      buffers_init(&b, c);
      fill(&b, c, special);
      fk_op_quantize(be, b.y, b.y_scale, b.x);
      g_assert_true(fk_backend_sync(be));
      check_all(&b, c);
      if (first) g_assert_cmpmem(first, (gsize)(c->rows * b.ld), b.codes, (gsize)(c->rows * b.ld));
      if (!first) first = g_memdup2(b.codes, (gsize)(c->rows * b.ld));
      buffers_clear(&b);
      fk_backend_close(be);
    }
  }
}

/* What a group with something broken in it is worth after code * scale: never an ordinary number for what was none. */
static void broken_is_seen(void) {
  FkBackend *be = open_cpu(1);
  static const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
  for (guint i = 0; i < 2 * G_N_ELEMENTS(bad); i++) {
    const gboolean e4m3 = i % 2;
    float x[128], scale[2], decoded[128];
    guint8 codes[128];
    for (int k = 0; k < 128; k++) x[k] = (float)k;
    x[70] = bad[i / 2];
    const FkTensor y = fk_tensor_2d(codes, e4m3 ? FK_E4M3 : FK_I8, 2, 64);
    fk_op_quantize(be, y, fk_tensor_1d(scale, FK_F32, 2), fk_tensor_2d(x, FK_F32, 2, 64));
    fk_op_copy(be, fk_tensor_1d(decoded, FK_F32, 128), fk_tensor_1d(codes, y.dtype, 128));
    for (int k = 0; k < 128; k++) decoded[k] *= scale[k / 64];
    g_assert_true(!isfinite(decoded[70]));
    for (int k = 0; k < 64; k++) g_assert_true(isfinite(decoded[k])); /* the other row does not notice */
    if (isinf(x[70]) || !e4m3)
      for (int k = 64; k < 128; k++) g_assert_true(!isfinite(decoded[k]));
  }
  fk_backend_close(be);
}

enum { KEYS = 300, HEADS = 2, E = 16, D = HEADS * E };

static void random_numbers(float *x, gint64 n, guint32 seed) {
  for (gint64 i = 0; i < n; i++) {
    seed = seed * 1664525u + 1013904223u;
    x[i] = (float)(gint32)seed * 0x1p-31f;
  }
}

typedef struct {
  float q[KEYS * D], k[KEYS * D], v[KEYS * D], o[KEYS * D];
} Attention;

enum { NUMBERS, CODES, VALUE_CODES };

static void attend(FkBackend *be, Attention *a, int form) {
  FkArena arena;
  g_assert_true(fk_arena_open(&arena, be, 1 << 20));
  FkAttention op = {.heads = HEADS, .scale = 0.25f};
  op.q = fk_tensor_2d(a->q, FK_F32, KEYS, D);
  op.k = fk_tensor_2d(a->k, FK_F32, KEYS, D);
  op.v = fk_tensor_2d(a->v, FK_F32, KEYS, D);
  op.o = fk_tensor_2d(a->o, FK_F32, KEYS, D);
  if (form == CODES)
    fk_op_attention_quantized(be, &arena, &op);
  else if (form == VALUE_CODES)
    fk_op_attention_value_codes(be, &arena, &op);
  else
    fk_op_attention(be, &op);
  g_assert_true(fk_backend_sync(be));
  fk_arena_close(&arena);
}

/* Near what numbers give, and not equal to it: something was quantised, and nothing else happened. */
static void attention_is_near(gconstpointer form) {
  FkBackend *be = open_cpu(2);
  g_autofree Attention *a = g_new(Attention, 1), *b = g_new(Attention, 1);
  random_numbers(a->q, 3 * KEYS * D, 1);
  *b = *a;
  attend(be, a, NUMBERS);
  attend(be, b, GPOINTER_TO_INT(form));
  double error = 0, size = 0;
  for (int i = 0; i < KEYS * D; i++) {
    error += pow((double)a->o[i] - (double)b->o[i], 2);
    size += pow((double)a->o[i], 2);
  }
  g_test_message("relative error %.2e", sqrt(error / size));
  g_assert_cmpfloat(sqrt(error / size), <, 0.05);
  g_assert_cmpfloat(sqrt(error / size), >, 0.001);
  fk_backend_close(be);
}

/* A NaN or an infinity in a query spoils its row of its head; in a key or a value, all rows of the head. But where
 * scores are of numbers, a key's infinity may be a score of minus infinity, which is a weight of 0. */
static void attention_broken(gconstpointer form) {
  FkBackend *be = open_cpu(2);
  static const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
  for (guint i = 0; i < 3 * G_N_ELEMENTS(bad); i++) {
    if (GPOINTER_TO_INT(form) == VALUE_CODES && i / 4 == 1 && isinf(bad[i % 4])) continue;
    g_autofree Attention *a = g_new(Attention, 1);
    random_numbers(a->q, 3 * KEYS * D, 1);
    const int row = 200, column = E + 3; /* of head 1, in the second tile */
    (i / 4 == 0 ? a->q : i / 4 == 1 ? a->k : a->v)[row * D + column] = bad[i % 4];
    attend(be, a, GPOINTER_TO_INT(form));
    for (int r = 0; r < KEYS; r++)
      for (int c = 0; c < D; c++) {
        const gboolean spoiled = c >= E && (i / 4 == 2 ? isinf(bad[i % 4]) || c == column : i / 4 == 1 || r == row);
        if (isfinite(a->o[r * D + c]) == spoiled)
          g_error("case %u, row %d, column %d: %a", i, r, c, (double)a->o[r * D + c]);
      }
  }
  fk_backend_close(be);
}

/* The vector form that attention rounds probabilities with is the conversion. */
static void round_span(void) {
  float x[3 * 0x80];
  double y[3 * 0x80];
  for (guint code = 0; code < 0x7f; code++) { /* numbers, the middles to the next, and one ulp beside them */
    const float low = fk_e4m3_to_f32((uint8_t)code), middle = (low + fk_e4m3_to_f32((uint8_t)(code + 1))) / 2;
    x[3 * code] = low;
    x[3 * code + 1] = code < 0x7e ? middle : 447;
    x[3 * code + 2] = code < 0x7e ? nextafterf(middle, code % 2 ? 0 : 500) : 1e-30f;
  }
  fk_cpu_round_e4m3_span(y, x, 3 * 0x7f);
  for (int i = 0; i < 3 * 0x7f; i++) g_assert_true(y[i] == (double)fk_e4m3_to_f32(fk_f32_to_e4m3(x[i])));
  x[0] = NAN;
  x[1] = INFINITY;
  fk_cpu_round_e4m3_span(y, x, 2);
  g_assert_true(isnan(y[0]) && !isfinite(y[1]));
}

/* A scale that is given: the same arithmetic with it, in any grouping; what it cuts off is counted, what is no number
 * stays none. */
static void given(void) {
  enum { ROWS = 5, COLS = 256 };
  static const float scales[] = {0.01f, 1.0f, 0.3f, 3e-20f};
  FkBackend *be = open_cpu(2);
  GRand *rand = g_rand_new_with_seed(7);
  float x[ROWS * COLS], scale[ROWS * 2];
  guint8 codes[ROWS * COLS];
  for (int i = 0; i < ROWS * COLS; i++) x[i] = (float)(g_rand_double_range(rand, -1, 1) * pow(10, i % 7 - 3));
  x[3] = INFINITY;
  x[COLS + 1] = -INFINITY;
  x[COLS + 2] = NAN;
  x[9] = -0.0f;
  for (size_t s = 0; s < G_N_ELEMENTS(scales); s++)
    for (int across = 1; across <= 2; across++) {
      const FkTensor y = fk_tensor_2d(codes, FK_E4M3, ROWS, COLS), numbers = fk_tensor_2d(x, FK_F32, ROWS, COLS);
      const FkTensor y_scale = across == 1 ? fk_tensor_1d(scale, FK_F32, ROWS) : fk_tensor_2d(scale, FK_F32, ROWS, 2);
      const gint64 before = be->count.saturated;
      gint64 cut = 0;
      fk_op_quantize_given(be, y, y_scale, numbers, scales[s]);
      for (int i = 0; i < ROWS * across; i++) g_assert_true(scale[i] == scales[s]);
      for (int i = 0; i < ROWS * COLS; i++) {
        const float inverse = 1.0f / scales[s], value = x[i] * inverse;
        const guint8 want = isfinite(x[i]) ? fk_f32_to_e4m3(value) : 0x7f;
        cut += isfinite(x[i]) && fabsf(value) > 448;
        g_assert_cmpint(codes[i] & (isfinite(x[i]) ? 0xff : 0x7f), ==, want);
      }
      g_assert_cmpint(be->count.saturated - before, ==, cut);
    }
  g_rand_free(rand);
  fk_backend_close(be);
}

/* ---- Results in codes: which slot is asked for what ---- */

static struct {
  int fused, coded, attention, quantize; /* calls; of them with codes as the result */
  float given[2];                        /* of the last two quantize */
  gint64 rows[2];
} asked;
static bool declines; /* codes as the result */

static void note_quantize(FkBackend *be, FkTensor y, FkTensor y_scale, FkTensor x, float given) {
  (void)be;
  g_assert_cmpint(fk_tensor_rows(y), ==, fk_tensor_rows(x));
  g_assert_cmpint(fk_tensor_cols(y), ==, fk_tensor_cols(x));
  g_assert_cmpint(fk_tensor_rows(y), ==, y_scale.dim[0]);
  asked.given[asked.quantize % 2] = given;
  asked.rows[asked.quantize++ % 2] = fk_tensor_rows(y);
}

static bool note_linear(FkBackend *be, const FkLinear *l, int groups) {
  (void)be;
  (void)groups;
  asked.fused++;
  asked.coded += fk_tensor_given(l->y_codes);
  return !declines || !fk_tensor_given(l->y_codes);
}

static bool note_flash(FkBackend *be, const FkAttention *a) {
  (void)be;
  asked.fused++;
  asked.coded += fk_tensor_given(a->o_codes);
  return !fk_tensor_given(a->v_codes) && (!declines || !fk_tensor_given(a->o_codes));
}

static void note_attention(FkBackend *be, const FkAttention *a) {
  (void)be;
  g_assert_false(fk_tensor_given(a->o_codes));
  asked.attention++;
}

/* The single block's projection and its attention over two ranges of rows. */
static void leave(FkBackend *be, bool values) {
  enum { ROWS = 12, D = 128, E = 64 };
  static char memory[1 << 20]; /* nobody follows it */
  FkArena arena = {0};
  const FkTensor wide = fk_tensor_2d(memory, FK_BF16, ROWS, 7 * D), codes = fk_tensor_2d(memory, FK_E4M3, ROWS, 5 * D);
  const FkTensor scale = fk_tensor_1d(memory, FK_F32, ROWS), vector = fk_tensor_1d(memory, FK_F32, E);
  FkLinear l = {
      .x = fk_tensor_slice_cols(codes, 0, D), .x_scale = scale, .y = wide, .epilogue = FK_EPI_QKV, .width = D};
  l.w = (FkWeight){.data = memory, .dtype = FK_E4M3, .out = 7 * D, .in = D};
  l.w.scale = (FkScale){.data = memory, .dtype = FK_F32, .kind = FK_SCALE_ROW};
  l.q_norm = l.k_norm = vector;
  l.rope = fk_tensor_2d(memory, FK_F32, ROWS, E);
  l.y_codes = fk_tensor_slice_cols(codes, D, 4 * D);
  l.y_scale = scale;
  l.given = 0.5f;
  FkAttention a = {.heads = 2, .scale = 1, .given = {0.25f, 0.125f}, .given_rows = 5};
  a.k = fk_tensor_slice_cols(wide, 0, D);
  a.v = fk_tensor_slice_cols(wide, D, D);
  a.q = a.o = fk_tensor_slice_cols(wide, 2 * D, D);
  a.o_codes = fk_tensor_slice_cols(codes, 0, D);
  a.o_scale = scale;
  memset(&asked, 0, sizeof asked);
  g_assert_true(fk_arena_open(&arena, be, 1 << 20));
  if (!values) fk_op_linear(be, &arena, &l, 1);
  if (values)
    fk_op_attention_value_codes(be, &arena, &a);
  else
    fk_op_attention(be, &a);
  g_assert_true(fk_backend_sync(be));
  fk_arena_close(&arena);
}

static void leaving(void) {
  FkFailure failure;
  char message[256];
  FkBackend *be = fk_backend_open("null", 0, 0, &failure, message, sizeof message);
  FkOps table = *be->ops;
  g_assert_true(be->can & FK_CAN_FUSED_CODES);
  table.linear_fused = note_linear;
  table.flash_attention = note_flash;
  table.attention = note_attention;
  table.quantize = note_quantize;
  be->ops = &table;
  leave(be, false); /* both leave their kernels as codes */
  g_assert_cmpint(asked.fused, ==, 2);
  g_assert_cmpint(asked.coded, ==, 2);
  g_assert_cmpint(asked.quantize + asked.attention, ==, 0);
  for (int i = 0; i < 2; i++) { /* no kernel has them; nobody may ask */
    declines = i == 0;
    be->use = declines ? be->can : be->can & ~(uint32_t)FK_CAN_FUSED_CODES;
    leave(be, false);
    g_assert_cmpint(asked.coded, ==, declines ? 2 : 0);
    g_assert_cmpint(asked.fused, ==, declines ? 4 : 2);
    g_assert_cmpint(asked.attention, ==, 0);
    g_assert_cmpint(asked.quantize, ==, 3);
    g_assert_cmpfloat((double)asked.given[1], ==, 0.25); /* the second and the third */
    g_assert_cmpfloat((double)asked.given[0], ==, 0.125);
    g_assert_cmpint(asked.rows[1], ==, 5);
    g_assert_cmpint(asked.rows[0], ==, 7);
  }
  declines = false;
  be->use = be->can & ~(uint32_t)FK_CAN_FLASH; /* the general attention has no codes, whatever is fused */
  leave(be, false);
  g_assert_cmpint(asked.coded, ==, 1);
  g_assert_cmpint(asked.attention, ==, 1);
  g_assert_cmpint(asked.quantize, ==, 2);
  be->use = be->can;
  leave(be, true); /* declined; values in codes are the basic slot's */
  g_assert_cmpint(asked.coded, ==, 1);
  g_assert_cmpint(asked.attention, ==, 1);
  g_assert_cmpint(asked.quantize, ==, 2);
  be->ops = &fk_null_ops;
  fk_backend_close(be);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autofree char *path = g_strdup_printf("/quant/codes/%s", cases[i].name);
    g_test_add_data_func(path, &cases[i], quantize);
  }
  g_test_add_func("/quant/broken-is-seen", broken_is_seen);
  g_test_add_func("/quant/round-span", round_span);
  g_test_add_func("/quant/given", given);
  g_test_add_func("/quant/leaving", leaving);
  g_test_add_data_func("/quant/attention/near", GINT_TO_POINTER(CODES), attention_is_near);
  g_test_add_data_func("/quant/attention/broken", GINT_TO_POINTER(CODES), attention_broken);
  g_test_add_data_func("/quant/attention/value-codes-near", GINT_TO_POINTER(VALUE_CODES), attention_is_near);
  g_test_add_data_func("/quant/attention/value-codes-broken", GINT_TO_POINTER(VALUE_CODES), attention_broken);
  return g_test_run();
}
