/* SPDX-License-Identifier: Apache-2.0 */
/* Weights in the form of their files, expanded in order and ahead: the same bytes whenever the second stream gets to
 * its work between the two events that bound it; each half is asked for behind its last product, and all of it is
 * waited for before the end. */
#include "adapted-reference.h"
#include "expand.h"

#include <glib.h>
#include <string.h>

enum { PRODUCTS = 9, ROWS = 5, IN = 64, MOST = 96 };

/* ---- A second stream that is as early, or as late, as events let it be ---- */

typedef struct {
  int slot;
  FkTensor y;
  FkCoded x;
} Pending;

static FkOps ops;
static bool late;
static GArray *pending;               /* Pending, of late */
static GString *events;               /* eS wS dS p: expand, wait, done of half S; product */
static bool resting[FK_STREAM_SLOTS]; /* marked as done since its last product */

static void fake_expand(FkBackend *be, int slot, FkTensor y, const FkCoded *x) {
  const Pending p = {slot, y, *x};
  g_assert_true(resting[slot]);
  g_string_append_printf(events, "e%d ", slot - FK_RING_SLOTS);
  if (late)
    g_array_append_val(pending, p);
  else
    fk_cpu_ops.expand(be, y, x);
}

static void fake_wait(FkBackend *be, int slot) {
  g_string_append_printf(events, "w%d ", slot - FK_RING_SLOTS);
  for (guint i = 0; i < pending->len;) {
    const Pending p = g_array_index(pending, Pending, i);
    if (p.slot == slot) {
      fk_cpu_ops.expand(be, p.y, &p.x);
      g_array_remove_index(pending, i);
    } else {
      i++;
    }
  }
  resting[slot] = false;
}

static void fake_done(FkBackend *be, int slot) {
  (void)be;
  g_string_append_printf(events, "d%d ", slot - FK_RING_SLOTS);
  resting[slot] = true;
}

static void fake_linear(FkBackend *be, const FkLinear *l) {
  g_string_append(events, "p ");
  fk_cpu_ops.linear(be, l);
}

static bool fake_fused(FkBackend *be, const FkLinear *l, int groups) {
  g_string_append(events, "p ");
  return fk_cpu_ops.linear_fused(be, l, groups);
}

static FkBackend *open_backend(const char *name) {
  char message[128];
  FkFailure failure;
  FkBackend *be = fk_backend_open(name, 0, 1, &failure, message, sizeof message);
  g_assert_nonnull(be);
  return be;
}

/* ---- Products ---- */

static struct {
  FkLinear l[2];
  int groups;
} products[PRODUCTS];
static float x[2][ROWS * IN], y[PRODUCTS][2][ROWS * MOST];
static int8_t codes[PRODUCTS][2][MOST * IN];
static float scales[PRODUCTS][2][MOST], plain[MOST * IN];
static FkCoded coded[PRODUCTS][2][2]; /* of a group, in one part or two */

static float number(int i) {
  return (float)((i * 7919) % 255 - 127) / 64;
}

/* Product 4 has no such weights, 5 has them in its second group alone; the last is of some rows of its matrix. */
static void make_products(void) {
  for (int i = 0; i < 2 * ROWS * IN; i++) x[i / (ROWS * IN)][i % (ROWS * IN)] = number(i);
  for (int i = 0; i < MOST * IN; i++) plain[i] = number(i + 3);
  for (int p = 0; p < PRODUCTS; p++) {
    const int64_t out = 32 + 8 * p;
    products[p].groups = 1 + (p % 3 == 2);
    for (int g = 0; g < products[p].groups; g++) {
      FkWeight w = {.dtype = FK_F32, .out = out, .in = IN};
      for (int i = 0; i < MOST * IN; i++) codes[p][g][i] = (int8_t)(i * (p + 3) + g);
      for (int i = 0; i < MOST; i++) scales[p][g][i] = 0.01f * (float)(i + p + 1);
      const int64_t first = p % 2 ? out : 24;
      coded[p][g][0] = (FkCoded){{FK_CODE_I8, true, 0, FK_F32}, first, IN, codes[p][g], scales[p][g], NULL};
      coded[p][g][1] = (FkCoded){{FK_CODE_I8, true, 0, FK_F32}, out - first,          IN,
                                 codes[p][g] + first * IN,      scales[p][g] + first, NULL};
      if (p == 4 || (p == 5 && g == 0))
        w.data = plain;
      else
        w.coded = coded[p][g];
      if (p == PRODUCTS - 1) w = fk_weight_rows(w, 16, 40);
      products[p].l[g] = (FkLinear){
          .x = fk_tensor_2d(x[g], FK_F32, ROWS, IN), .y = fk_tensor_2d(y[p][g], FK_F32, ROWS, w.out), .w = w};
    }
  }
}

/* apart: the product whose bytes come with what is before it; -1: none. */
static void walk(FkBackend *be, FkArena *arena, int apart) {
  for (int p = 0; p < PRODUCTS; p++) {
    if (p == apart && be->ahead) be->ahead->apart = true;
    fk_op_linear(be, arena, products[p].l, products[p].groups);
  }
}

static char *hash(void) {
  return g_compute_checksum_for_data(G_CHECKSUM_SHA256, (const guchar *)y, sizeof y);
}

static FkAhead listed(FkAheadUse *use, FkArena *arena, int apart) {
  FkBackend *counter = open_backend("null");
  FkAhead ahead = {.use = use, .room = PRODUCTS};
  counter->dtype = FK_F32;
  counter->ahead = &ahead;
  walk(counter, arena, apart);
  fk_backend_close(counter);
  return ahead;
}

static const char *const orders[] = {"d0 d1 e0 e0 e1 w0 p d0 e0 e0 e0 e0 w1 p d1 e1 w0 p d0 e0 w1 p d1 "
                                     "p e1 e1 w0 p d0 e0 w1 p d1 e1 e1 e1 e1 w0 p d0 w1 p d1 ",
                                     "d0 d1 e0 e0 e1 w0 p d0 e0 e0 e0 e0 w1 p d1 e1 w0 p d0 e0 w1 p d1 "
                                     "p w0 p d0 d1 e1 e1 e0 w1 p d1 e1 e1 e1 e1 w0 p d0 w1 p d1 "};

static void same_bytes(void) {
  FkBackend *be = open_backend("cpu");
  FkArena arena;
  g_assert_true(fk_arena_open(&arena, be, 1 << 20));
  g_assert_true(fk_backend_uses(be, FK_CAN_EXPAND_AHEAD));
  make_products();
  memset(y, 0xff, sizeof y);
  walk(be, &arena, -1);
  g_assert_true(fk_backend_sync(be));
  const size_t in_order = arena.peak;
  g_autofree char *expects = hash();
  const double bytes = be->count.bytes;
  ops = fk_cpu_ops;
  ops.stream_expand = fake_expand;
  ops.stream_wait = fake_wait;
  ops.stream_done = fake_done;
  ops.linear = fake_linear;
  ops.linear_fused = fake_fused;
  be->ops = &ops;
  pending = g_array_new(FALSE, FALSE, sizeof(Pending));
  events = g_string_new(NULL);
  for (int round = 0; round < 4; round++) {
    FkAheadUse use[PRODUCTS];
    const int apart = round < 2 ? -1 : 6;
    late = round % 2;
    memset(y, 0xff, sizeof y);
    memset(arena.base, 0xff, arena.size);
    g_string_truncate(events, 0);
    be->count = (FkCount){0};
    FkAhead ahead = listed(use, &arena, apart);
    g_assert_cmpint(ahead.n, ==, PRODUCTS - 1);
    arena.peak = 0;
    const size_t mark = fk_arena_mark(&arena);
    fk_ahead_begin(&ahead, be, &arena);
    walk(be, &arena, apart);
    fk_ahead_end(be);
    fk_arena_reset(&arena, mark);
    g_assert_true(fk_backend_sync(be));
    g_assert_cmpuint(pending->len, ==, 0);
    g_autofree char *found = hash();
    g_test_message("%s: %zu bytes of scratch, in order %zu: %s", late ? "late" : "early", arena.peak, in_order,
                   events->str);
    g_assert_cmpstr(found, ==, expects);
    g_assert_cmpuint(arena.peak, ==, 2 * ahead.bytes);
    g_assert_cmpfloat(be->count.bytes, ==, bytes);
    /* Each before the product in front of it, but for the first, and for what comes with the ops before it. */
    g_assert_cmpstr(events->str, ==, orders[apart >= 0]);
  }
  g_string_free(events, TRUE);
  g_array_unref(pending);
  fk_arena_close(&arena);
  be->ops = &fk_cpu_ops;
  fk_backend_close(be);
}

/* After a failure nothing is enqueued, and the list ends where the walk does. */
static void failed(void) {
  FkBackend *be = open_backend("cpu");
  FkArena arena;
  FkAheadUse use[PRODUCTS];
  g_assert_true(fk_arena_open(&arena, be, 1 << 20));
  make_products();
  for (int round = 0; round < 2; round++) {
    FkAhead ahead = listed(use, &arena, -1);
    if (round) { /* no room for its halves */
      fk_arena_close(&arena);
      g_assert_true(fk_arena_open(&arena, be, ahead.bytes + 256));
    }
    fk_ahead_begin(&ahead, be, &arena);
    if (!round) fk_backend_fail(be, FK_FAIL_DEVICE, "made by the test");
    walk(be, &arena, -1);
    fk_ahead_end(be);
    fk_arena_reset(&arena, 0);
    g_assert_false(fk_backend_sync(be));
    fk_backend_clear(be);
  }
  fk_arena_close(&arena);
  fk_backend_close(be);
}

/* ---- With what adapters add ---- */

/* Operands of float32 and of halves, float32 and bfloat16 of the result with a hole between rows, any rows of it. */
static void adapted(void) {
  enum { N = 37, K = 96, LD = 112 };
  static int8_t code[N * K];
  static float scale[N];
  const FkAdapted m = {.rows = N, .cols = K, .from = FK_F32, .n = 3, .term = {{5, K, 0.3f}, {67, 51, -2}, {1, K, 1}}};
  const size_t rights = fk_adapted_right(&m) / sizeof(float), operands = rights + (size_t)(N * fk_adapted_ranks(&m));
  const size_t begin = fk_adapted_begin(&m);
  g_autofree char *buffer = g_malloc(begin + operands * sizeof(float));
  g_autofree uint16_t *half = g_new(uint16_t, operands);
  float *numbers = (float *)(void *)buffer, *all = (float *)(void *)(buffer + begin), to[N * LD], want[N * K];
  FkBackend *be = open_backend("cpu");
  for (int i = 0; i < N * K; i++) code[i] = (int8_t)(i * 31);
  for (int i = 0; i < N; i++) scale[i] = 0.003f * (float)(i + 1);
  for (int type = FK_F32; type <= FK_F16; type++) {
    FkCoded c = {{FK_CODE_I8, true, 0, FK_F32}, N, K, code, scale, NULL, &m, NULL, NULL, (FkDtype)type};
    for (size_t i = 0; i < operands; i++) {
      const float v = number((int)i + 5) * 0.37f;
      half[i] = type == FK_F16 ? fk_f32_to_f16(v) : fk_f32_to_bf16(v);
      all[i] = type == FK_F32 ? v : adapted_number(half, (FkDtype)type, (int64_t)i);
    }
    c.right = type == FK_F32 ? (void *)all : half;
    c.left = type == FK_F32 ? (void *)(all + rights) : half + rights;
    fk_coded_expand(&c, numbers);
    for (int as = FK_F32; as <= FK_BF16; as++)
      for (int64_t first = 0; first < N; first += 9) {
        const int64_t n = N - first, ld = first ? LD : K;
        const FkCoded rows = fk_coded_slice(c, first, n);
        FkTensor y = fk_tensor_2d(to, (FkDtype)as, n, K);
        y.ld = ld;
        adapted_reference(want, (FkDtype)as, buffer, &m);
        fk_op_expand(be, y, &rows);
        g_assert_true(fk_backend_sync(be));
        for (int64_t r = 0; r < n; r++)
          g_assert_cmpmem(fk_tensor_at(y, r * ld), K * fk_dtype_size(y.dtype),
                          (char *)want + (size_t)((first + r) * K) * fk_dtype_size(y.dtype),
                          K * fk_dtype_size(y.dtype));
      }
  }
  fk_backend_close(be);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/expand/adapted", adapted);
  g_test_add_func("/expand/same-bytes", same_bytes);
  g_test_add_func("/expand/failed", failed);
  return g_test_run();
}
