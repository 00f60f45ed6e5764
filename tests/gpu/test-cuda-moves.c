/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA ops that handle elements and rows, and the machine slots (memory, staging, events, recordings, failures),
 * each against the CPU backend or against what the slot promises. TAP. Measure and tolerances: operands.h. */
#include "expand.h"
#include "operands.h"

static Pair shaped(FkDtype dtype, bool out, int64_t rows, int64_t cols, int64_t ld) {
  return out ? matrix_out(dtype, rows, cols, ld) : matrix(dtype, rows, cols, ld, 2);
}

/* One shape of everything that maps elements to elements. ld 0: dense. */
static void element_cases(FkDtype type, int64_t rows, int64_t cols, int64_t ld) {
  static const struct {
    FkAct act;
    const char *name;
  } acts[] = {{FK_ACT_SILU, "silu"}, {FK_ACT_GELU_TANH, "gelu-tanh"}, {FK_ACT_QUICK_GELU, "quick-gelu"}};
  char name[128], shape[64];
  snprintf(shape, sizeof shape, "%ldx%ld ld %ld%s", (long)rows, (long)cols, (long)(ld ? ld : cols),
           type == FK_F32 ? " float" : "");
  for (int i = 0; i < 3; i++) {
    Pair x = shaped(type, false, rows, cols, 0), y = shaped(type, true, rows, cols, ld);
    EACH_SIDE fk_op_act(side[s], y.t[s], x.t[s], acts[i].act);
    snprintf(name, sizeof name, "act %s %s", acts[i].name, shape);
    same(name, 1, &y);
  }
  Pair a = shaped(type, false, rows, cols, ld), b = shaped(type, false, rows, cols, 0);
  Pair sum = shaped(type, true, rows, cols, ld), product = shaped(type, true, rows, cols, 0);
  EACH_SIDE {
    fk_op_add(side[s], sum.t[s], a.t[s], b.t[s]);
    fk_op_mul(side[s], product.t[s], a.t[s], b.t[s]);
  }
  snprintf(name, sizeof name, "add, mul %s", shape);
  same(name, 2, (Pair[]){sum, product});

  Pair y = shaped(type, false, rows, cols, ld), x = shaped(type, false, rows, cols, 0), gate = vector(cols, 0, 1);
  EACH_SIDE fk_op_gate_add(side[s], y.t[s], x.t[s], gate.t[s]);
  snprintf(name, sizeof name, "gate_add %s", shape);
  same(name, 1, &y);

  Pair in_place = shaped(type, false, rows, cols, ld);
  EACH_SIDE fk_op_act(side[s], in_place.t[s], in_place.t[s], FK_ACT_SILU);
  snprintf(name, sizeof name, "act in place %s", shape);
  same(name, 1, &in_place);
}

static void copy_case(FkDtype to, FkDtype from, int64_t rows, int64_t cols, int64_t ld_to, int64_t ld_from) {
  Pair x = from == FK_I32 ? operand(FK_I32, 2, (int64_t[]){rows, cols}, ld_from, INDEX, 0, 2e9)
                          : matrix(from, rows, cols, ld_from, 3);
  Pair y = matrix_out(to, rows, cols, ld_to);
  EACH_SIDE fk_op_copy(side[s], y.t[s], x.t[s]);
  char name[128];
  snprintf(name, sizeof name, "copy %ldx%ld, dtype %d -> %d, ld %ld -> %ld", (long)rows, (long)cols, from, to,
           (long)x.t[0].ld, (long)y.t[0].ld);
  same(name, 1, &y);
}

static void test_elements(void) {
  element_cases(FK_BF16, 130, 512, 0);
  element_cases(FK_BF16, 77, 256, 1792);
  element_cases(FK_BF16, 13, 101, 0);
  element_cases(FK_F32, 64, 96, 128);
  element_cases(FK_F32, 3, 7, 9);
  copy_case(FK_BF16, FK_BF16, 300, 512, 1792, 0);
  copy_case(FK_BF16, FK_F32, 28, 256, 0, 0);
  copy_case(FK_F32, FK_BF16, 100, 33, 40, 35);
  copy_case(FK_F32, FK_F32, 1, 3456, 0, 0);
  copy_case(FK_I32, FK_I32, 20, 30, 0, 40);
}

static void test_rows(void) {
  static const int64_t cols[] = {256, 100};
  for (int i = 0; i < 2; i++) {
    char name[64];
    Pair table = matrix(FK_BF16, 400, cols[i], 0, 1), ids = indices(77, 400), y = matrix_out(FK_BF16, 77, cols[i], 0);
    EACH_SIDE fk_op_embed(side[s], y.t[s], weight_of(table, s), ids.t[s]);
    snprintf(name, sizeof name, "embed, width %ld", (long)cols[i]);
    same(name, 1, &y);

    Pair x = matrix(FK_BF16, 90, cols[i], 512, 1), index = indices(131, 90);
    Pair g = matrix_out(FK_BF16, 131, cols[i], 0);
    EACH_SIDE fk_op_gather_rows(side[s], g.t[s], x.t[s], index.t[s]);
    snprintf(name, sizeof name, "gather_rows, width %ld", (long)cols[i]);
    same(name, 1, &g);

    Pair many = matrix(FK_BF16, 90, cols[i], 0, 1), list = indices(150, 90), first = indices(61, 1);
    Pair mean = matrix_out(FK_BF16, 60, cols[i], 0);
    int32_t starts[61];
    for (int k = 0; k <= 60; k++) starts[k] = k * k * 150 / 3600; /* none, one or several rows each */
    EACH_SIDE {
      fk_op_upload(side[s], first.t[s], starts);
      fk_op_mean_rows(side[s], mean.t[s], many.t[s], first.t[s], list.t[s]);
    }
    snprintf(name, sizeof name, "mean_rows, width %ld", (long)cols[i]);
    same(name, 1, &mean);
  }
}

static void test_positions(void) {
  Pair x = matrix(FK_BF16, 150, 3 * 128, 1000, 1), table = matrix(FK_F32, 150, 128, 0, 0.7);
  EACH_SIDE fk_op_rope(side[s], x.t[s], table.t[s], 3);
  same("rope, heads of 128", 1, &x);
  Pair small = matrix(FK_BF16, 50, 2 * 12, 0, 1), angles = matrix(FK_F32, 50, 12, 0, 0.7);
  EACH_SIDE fk_op_rope(side[s], small.t[s], angles.t[s], 2);
  same("rope, heads of 12", 1, &small);

  Pair map = image(FK_BF16, 19, 23, 64, 0, 1), twice = image_out(FK_BF16, 38, 46, 64);
  EACH_SIDE side[s]->ops->upsample(side[s], twice.t[s], map.t[s]);
  same("upsample", 1, &twice);

  Pair moments = image(FK_BF16, 12, 18, 32, 0, 1), tokens = matrix_out(FK_F32, 54, 64, 0);
  EACH_SIDE fk_op_pack(side[s], tokens.t[s], moments.t[s], 0.3611f, 0.1159f);
  same("pack, 16 of 32 channels, float tokens", 1, &tokens);
  Pair packed = matrix(FK_F32, 54, 64, 0, 1), latent = image_out(FK_BF16, 12, 18, 16);
  EACH_SIDE fk_op_unpack(side[s], latent.t[s], packed.t[s], 0.3611f, 0.1159f);
  same("unpack, float tokens", 1, &latent);
  Pair half = matrix(FK_BF16, 54, 64, 128, 1), out = image_out(FK_F32, 12, 18, 16);
  EACH_SIDE fk_op_unpack(side[s], out.t[s], half.t[s], 0.3611f, 0.1159f);
  same("unpack, strided tokens", 1, &out);
}

static void test_pixels(void) {
  for (int c = 3; c <= 4; c++) {
    const int64_t dim[3] = {37, 50, c};
    Pair bytes = operand(FK_U8, 3, dim, 0, BYTES, 0, 0), y = image_out(FK_BF16, 37, 50, c);
    Pair f = image_out(FK_F32, 37, 50, c);
    EACH_SIDE {
      fk_op_from_u8(side[s], y.t[s], bytes.t[s]);
      fk_op_from_u8(side[s], f.t[s], bytes.t[s]);
    }
    same(c == 3 ? "from_u8, 3 channels" : "from_u8, 4 channels", 2, (Pair[]){y, f});
    Pair x = image(c == 3 ? FK_BF16 : FK_F32, 37, 50, c, 0, 0.7), pixels = operand(FK_U8, 3, dim, 0, OUTPUT, 0, 0);
    EACH_SIDE fk_op_to_u8(side[s], pixels.t[s], x.t[s]);
    same(c == 3 ? "to_u8, 3 channels" : "to_u8, 4 channels", 1, &pixels);
  }
}

static void test_sums(void) {
  for (int n = 1; n <= FK_MAX_TERMS; n++) {
    Pair x[FK_MAX_TERMS], coef = vector(n, 0, 1),
                          y = n % 2 ? matrix_out(FK_F32, 60, 64, 0) : matrix_out(FK_BF16, 60, 64, 96);
    for (int i = 0; i < n; i++) x[i] = matrix(i % 2 ? FK_BF16 : FK_F32, 60, 64, i == 2 ? 80 : 0, 1);
    EACH_SIDE {
      FkTensor t[FK_MAX_TERMS];
      for (int i = 0; i < n; i++) t[i] = x[i].t[s];
      fk_op_combine(side[s], y.t[s], n, t, coef.t[s]);
    }
    same("combine", 1, &y);
  }
  Pair z = matrix(FK_F32, 60, 64, 0, 1), v = matrix(FK_F32, 60, 64, 0, 1), coef = vector(2, 0, 1);
  EACH_SIDE fk_op_combine(side[s], z.t[s], 2, (FkTensor[]){z.t[s], v.t[s]}, coef.t[s]);
  same("combine in place", 1, &z);

  static const int64_t shapes[][3] = {{300, 256, 0}, {70, 33, 40}, {4096, 256, 0}};
  for (int i = 0; i < 3; i++) {
    Pair a = matrix(FK_BF16, shapes[i][0], shapes[i][1], shapes[i][2], 1);
    Pair b = matrix(FK_BF16, shapes[i][0], shapes[i][1], shapes[i][2], 1);
    Pair out = operand(FK_F32, 1, (int64_t[]){2}, 0, OUTPUT, 0, 0);
    EACH_SIDE fk_op_distance(side[s], out.t[s], a.t[s], b.t[s]);
    same("distance", 1, &out);
  }
}

static void test_match(void) {
  static const int64_t shapes[][3] = {{96, 32, 256}, {131, 70, 96}, {10, 3, 50}};
  for (int i = 0; i < 3; i++) {
    const int64_t a = shapes[i][0], b = shapes[i][1], d = shapes[i][2];
    Pair src = matrix(FK_BF16, a, d, 0, 1), dst = matrix(FK_BF16, b, d, 0, 1);
    Pair best = operand(FK_I32, 1, (int64_t[]){a}, 0, OUTPUT, 0, 0);
    Pair score = operand(FK_F32, 1, (int64_t[]){a}, 0, OUTPUT, 0, 0);
    /* The last destination repeats the first: no source may choose it. */
    EACH_SIDE {
      fk_op_copy(side[s], fk_tensor_slice_rows(dst.t[s], b - 1, 1), fk_tensor_slice_rows(dst.t[s], 0, 1));
      fk_op_match(side[s], best.t[s], score.t[s], src.t[s], dst.t[s]);
    }
    same("match", 2, (Pair[]){best, score});
  }
}

/* ---- failures and machine slots --------------------------------------------------------------------------------- */

static void check_case(const char *name, FkDtype dtype, int64_t cols, int64_t ld, int64_t bad, float value) {
  FkBackend *be = side[GPU];
  Pair x = matrix(dtype, 50, cols, ld, 1);
  if (bad >= 0) {
    uint8_t raw[4];
    put(raw, dtype, 0, value);
    be->ops->upload(be, fk_tensor_at(x.t[GPU], bad / cols * x.t[GPU].ld + bad % cols), raw, fk_dtype_size(dtype));
  }
  fk_op_check(be, x.t[GPU], name);
  const bool fine = fk_backend_sync(be);
  report(bad < 0 ? fine : !fine && be->failure == FK_FAIL_NONFINITE && strcmp(be->message, name) == 0, name,
         be->message);
  fk_backend_clear(be);
  release_operands();
}

static void test_check(void) {
  check_case("check: all finite", FK_BF16, 256, 0, -1, 0);
  check_case("check: finite inside, NaN between rows", FK_BF16, 100, 104, -1, 0);
  check_case("check: NaN last", FK_BF16, 256, 0, 50 * 256 - 1, NAN);
  check_case("check: infinity first", FK_BF16, 256, 0, 0, INFINITY);
  check_case("check: NaN in float", FK_F32, 33, 40, 700, NAN);
  check_case("check: again all finite", FK_F32, 33, 0, -1, 0);
}

/* One buffer of the loader's ring, filled, sent and read back. */
static bool staged(int buffer, FkDtype as, FkDtype from, size_t count) {
  FkBackend *be = side[GPU];
  uint8_t *bytes = be->ops->stage(be, buffer, count * fk_dtype_size(from));
  float *values = malloc(count * sizeof *values);
  if (!bytes || !values) return false;
  for (size_t i = 0; i < count; i++) values[i] = put(bytes, from, i, (float)random_normal());
  Pair to = operand(as, 1, (int64_t[]){(int64_t)count}, 0, OUTPUT, 0, 0);
  be->ops->commit(be, buffer, to.t[GPU].data, as, from, count);
  void *got = fetch(to, GPU);
  bool ok = ((uint8_t *)got)[count * fk_dtype_size(as)] == 0xFF;
  for (size_t i = 0; i < count; i++)
    ok = ok && get(got, as, i) == (as == FK_BF16 ? from_bf16(to_bf16(values[i])) : values[i]);
  free(got);
  free(values);
  release_operands();
  return ok;
}

static void test_staging(void) {
  FkBackend *be = side[GPU];
  static const FkDtype types[][2] = {{FK_BF16, FK_BF16}, {FK_BF16, FK_F32}, {FK_F32, FK_BF16}, {FK_F32, FK_F32}};
  bool ok = true;
  for (int round = 0; round < 12; round++) /* more rounds than buffers: each is reused while copies run */
    ok = ok && staged(round % 8, types[round % 4][0], types[round % 4][1], 100003);
  report(ok && be->failure == FK_FAIL_NONE, "stage and commit convert and arrive", be->message);
  ok =
      staged(3, FK_BF16, FK_F32, 4 << 20) && staged(4, FK_F32, FK_BF16, 8 << 20) && staged(5, FK_BF16, FK_F32, 3000001);
  report(ok && be->failure == FK_FAIL_NONE, "whole buffers of 16 MiB are converted", be->message);
  const void *none = be->ops->stage(be, 0, (16 << 20) + 1);
  report(!none && be->failure == FK_FAIL_MEMORY && strstr(be->message, "16777217"), "a larger piece is refused",
         be->message);
  fk_backend_clear(be);
}

/* Codes move as bytes. */
static void test_codes(void) {
  static const FkDtype types[] = {FK_I8, FK_E4M3};
  for (int i = 0; i < 2; i++) {
    Pair x = operand(FK_U8, 2, (int64_t[]){60, 96}, 128, BYTES, 0, 0), index = indices(77, 60);
    Pair y = operand(FK_U8, 2, (int64_t[]){60, 96}, 0, OUTPUT, 0, 0);
    Pair g = operand(FK_U8, 2, (int64_t[]){77, 96}, 0, OUTPUT, 0, 0);
    EACH_SIDE {
      FkTensor from = x.t[s], to = y.t[s], rows = g.t[s];
      from.dtype = to.dtype = rows.dtype = types[i];
      fk_op_copy(side[s], to, from);
      fk_op_gather_rows(side[s], rows, from, index.t[s]);
    }
    same(i ? "copy, gather_rows of E4M3" : "copy, gather_rows of I8", 2, (Pair[]){y, g});
  }
}

/* One form of weights, alone and with what adapters add: float32 has the CPU's bits, bfloat16 those rounded; a view of
 * rows too. The halves and floats in it are finite: the bytes that hold their exponents, `upper`, have some bits less
 * (-1: every byte). */
static void expand_case(const char *name, FkCodedForm form, const int *upper) {
  enum { ROWS = 33, COLS = 512 };
  const int64_t row = (int64_t)fk_coded_row_bytes(form, COLS), size = fk_code_bytes(form.code);
  const int64_t scales = form.block ? COLS / form.block : 8;
  Pair codes = operand(FK_U8, 2, (int64_t[]){ROWS, row}, 0, BYTES, 0, 0);
  Pair own = vector(ROWS, 1, 0.1), block = operand(FK_U8, 2, (int64_t[]){ROWS, scales}, 0, BYTES, 0, 0);
  Pair wide = matrix_out(FK_F32, ROWS, COLS, 0), half = matrix_out(FK_BF16, ROWS, COLS, 0);
  Pair some = matrix_out(FK_BF16, 9, COLS, COLS + 64);
  /* More ranks than the kernel takes at a time, and fewer columns than the matrix has. */
  static const FkAdapted terms = {.n = 2, .term = {{70, COLS, 0.3f}, {3, 200, -1.5f}}};
  static const FkDtype types[] = {FK_BF16, FK_F16, FK_F32};
  static int cases;
  const FkDtype type = types[cases++ % 3];
  Pair right = matrix(type, 1, 70 * COLS + 3 * 200, 0, 0.5), left = matrix(type, ROWS, 73, 0, 0.5);
  Pair added = matrix_out(FK_F32, ROWS, COLS, 0), some_added = matrix_out(FK_BF16, 9, COLS, COLS + 64);
  uint8_t *bytes = malloc((size_t)(ROWS * row)), less[ROWS * COLS];
  if (!bytes) abort();
  for (int64_t i = 0; i < ROWS * row; i++) {
    const int at = (int)(i % size);
    bytes[i] = (uint8_t)random_bits();
    if (upper[0] < 0 || at == upper[0] || at == upper[1]) bytes[i] &= 0xbf;
  }
  for (int64_t i = 0; i < ROWS * scales; i++) less[i] = (uint8_t)(form.block_dtype == FK_E8M0 ? 110 + i % 23 : i % 120);
  EACH_SIDE {
    side[s]->ops->upload(side[s], codes.t[s].data, bytes, (size_t)(ROWS * row));
    side[s]->ops->upload(side[s], block.t[s].data, less, (size_t)(ROWS * scales));
    const FkCoded x = {.form = form,
                       .rows = ROWS,
                       .cols = COLS,
                       .codes = codes.t[s].data,
                       .row_scale = own.t[s].data,
                       .block_scale = block.t[s].data};
    FkCoded given = x;
    if (!form.row_scale) given.row_scale = NULL;
    if (!form.block) given.block_scale = NULL;
    const FkCoded rows = fk_coded_slice(given, 17, 9);
    fk_op_expand(side[s], wide.t[s], &given);
    fk_op_expand(side[s], half.t[s], &given);
    fk_op_expand(side[s], some.t[s], &rows);
    given.adapted = &terms;
    given.right = right.t[s].data;
    given.left = left.t[s].data;
    given.operands = right.t[s].dtype;
    const FkCoded more = fk_coded_slice(given, 17, 9);
    fk_op_expand(side[s], added.t[s], &given);
    fk_op_expand(side[s], some_added.t[s], &more);
  }
  wide.measure = added.measure = BITS;
  char text[64];
  snprintf(text, sizeof text, "expand %s", name);
  same(text, 5, (Pair[]){wide, half, some, added, some_added});
  free(bytes);
}

static void test_expand(void) {
#define PLAIN_(code)                                                                                                   \
  {                                                                                                                    \
#code, {FK_CODE_##code }, {                                                                                        \
      -1, -1                                                                                                           \
    }                                                                                                                  \
  }
#define BLOCK_(code, a, b)                                                                                             \
  {                                                                                                                    \
#code, {FK_CODE_##code }, {                                                                                        \
      a, b                                                                                                             \
    }                                                                                                                  \
  }
  static const struct {
    const char *name;
    FkCodedForm form;
    int upper[2];
  } cases[] = {
      PLAIN_(F32),
      PLAIN_(F16),
      PLAIN_(BF16),
      PLAIN_(E4M3),
      PLAIN_(E5M2),
      PLAIN_(I8),
      PLAIN_(E2M1),
      BLOCK_(Q4_0, 1, 1),
      BLOCK_(Q4_1, 1, 3),
      BLOCK_(Q5_0, 1, 1),
      BLOCK_(Q5_1, 1, 3),
      BLOCK_(Q8_0, 1, 1),
      BLOCK_(IQ4_NL, 1, 1),
      BLOCK_(Q2_K, 81, 83),
      BLOCK_(Q3_K, 109, 109),
      BLOCK_(Q4_K, 1, 3),
      BLOCK_(Q5_K, 1, 3),
      BLOCK_(Q6_K, 209, 209),
      BLOCK_(IQ4_XS, 1, 1),
      {"E4M3, a scale a row", {FK_CODE_E4M3, true, 0, FK_F32}, {-1, -1}},
      {"I8, a scale a row", {FK_CODE_I8, true, 0, FK_F32}, {-1, -1}},
      {"MXFP8", {FK_CODE_E4M3, false, 32, FK_E8M0}, {-1, -1}},
      {"NVFP4", {FK_CODE_E2M1, true, 16, FK_E4M3}, {-1, -1}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) expand_case(cases[i].name, cases[i].form, cases[i].upper);
}

/* What no kernel takes is a failure that names it, and leaves the device as it was. */
static void test_declined(void) {
  FkBackend *be = side[GPU];
  static const int64_t widths[] = {12, 520};
  for (int i = 0; i < 2; i++) {
    Pair q = matrix(FK_BF16, 32, widths[i], 0, 1), o = matrix_out(FK_BF16, 32, widths[i], 0);
    FkAttention a = {.q = q.t[GPU], .k = q.t[GPU], .v = q.t[GPU], .o = o.t[GPU], .heads = 1, .scale = 1};
    fk_op_attention(be, &a);
    report(be->failure == FK_FAIL_UNSUPPORTED && strstr(be->message, i ? "520 wide" : "12 wide"),
           "a head that no kernel takes is named", be->message);
    fk_backend_clear(be);
    release_operands();
  }
  Pair x = matrix(FK_BF16, 32, 64, 0, 1), w = matrix(FK_F32, 64, 64, 0, 1), y = matrix_out(FK_BF16, 32, 64, 0);
  FkLinear l = {.x = x.t[GPU], .y = y.t[GPU], .w = weight_of(w, GPU), .act = FK_ACT_SILU};
  fk_op_linear(be, NULL, &l, 1);
  report(be->failure == FK_FAIL_UNSUPPORTED && strstr(be->message, "type"), "weights of another type are named",
         be->message);
  fk_backend_clear(be);
  release_operands();
  element_cases(FK_BF16, 20, 64, 0);
}

/* A recording serves many runs: its operands' contents are read at each run. */
static void test_recording(void) {
  FkBackend *be = side[GPU];
  Pair x = matrix(FK_BF16, 64, 256, 0, 1), y = matrix_out(FK_BF16, 64, 256, 0), w = matrix(FK_BF16, 256, 256, 0, 0.06);
  Pair norm = vector(256, 1, 0.1);
  int issued = 0;
  bool ok = true;
  void *expected = NULL;
  for (int run = 0; run < 5; run++) {
    if (run == 4) fk_op_copy(be, x.t[GPU], fk_tensor_slice_rows(w.t[GPU], 0, 64));
    if (fk_op_graph_begin(be, 7)) {
      FkLinear l = {.x = x.t[GPU], .y = y.t[GPU], .w = weight_of(w, GPU), .act = FK_ACT_GELU_TANH};
      fk_op_linear(be, NULL, &l, 1);
      fk_op_rms_norm(be, y.t[GPU], y.t[GPU], norm.t[GPU], 1e-6f);
      issued++;
    }
    fk_op_graph_end(be, 7);
    void *got = fetch(y, GPU);
    if (run == 0)
      expected = got;
    else {
      const bool equal = memcmp(expected, got, y.elements[GPU] * 2) == 0;
      ok = ok && equal == (run < 4);
      free(got);
    }
  }
  free(expected);
  char detail[320];
  snprintf(detail, sizeof detail, "issued %d times %s", issued, be->message);
  report(ok && issued >= 1 && issued <= 2 && be->failure == FK_FAIL_NONE, "a recording replays on new contents",
         detail);
  be->ops->graph_forget(be);
  report(fk_op_graph_begin(be, 7), "a forgotten recording is issued again", "");
  fk_op_graph_end(be, 7);
  be->ops->graph_forget(be);
  release_operands();
}

/* Products whose weights are in their files' form, in order, ahead on the second stream, and recorded: one set of
 * bytes. Large enough that a product runs while the next weights are expanded. */
static void test_ahead(void) {
  enum { N = 6, K = 2048, OUT = 4096, ROWS = 512 };
  FkBackend *be = side[GPU];
  const FkCodedForm form = {FK_CODE_I8, true, 0, FK_F32};
  Pair x = matrix(FK_BF16, ROWS, K, 0, 1), y = matrix_out(FK_BF16, ROWS, OUT, 0);
  Pair back = matrix_out(FK_BF16, ROWS, K, 0), scale = vector(OUT, 0.01, 0.001);
  Pair right = matrix(FK_BF16, 1, 32 * OUT, 0, 0.01), left = matrix(FK_BF16, OUT, 32, 0, 0.01);
  Pair code[N];
  FkCoded coded[N];
  FkAdapted added[N];
  FkLinear l[N];
  for (int i = 0; i < N; i++) {
    const int64_t out = i % 2 ? K : OUT, in = i % 2 ? OUT : K;
    code[i] = operand(FK_U8, 2, (int64_t[]){out, in}, 0, BYTES, 0, 0);
    coded[i] = (FkCoded){form, out, in, code[i].t[GPU].data, scale.t[GPU].data, NULL};
    added[i] = (FkAdapted){.n = 1, .term = {{32, in, 1}}};
    if (i >= N / 2) coded[i].adapted = &added[i];
    coded[i].right = right.t[GPU].data;
    coded[i].left = left.t[GPU].data;
    coded[i].operands = FK_BF16;
    const FkWeight w = {.dtype = FK_BF16, .out = out, .in = in, .coded = &coded[i]};
    l[i] = (FkLinear){.x = i == 0  ? x.t[GPU]
                           : i % 2 ? y.t[GPU]
                                   : back.t[GPU],
                      .y = i % 2 ? back.t[GPU] : y.t[GPU],
                      .w = w};
  }
  FkArena arena;
  FkAheadUse use[N];
  FkBackend counter = {.ops = &fk_null_ops, .can = be->can, .use = be->use, .dtype = FK_BF16};
  void *expected = NULL;
  bool ok = fk_arena_open(&arena, be, (size_t)3 * OUT * K * 2);
  for (int run = 0; run < 44 && ok; run++) { /* 0: in order; to 3: ahead; then recorded, replayed 39 times */
    FkAhead ahead = {.use = use, .room = N};
    if (run <= 3 || fk_op_graph_begin(be, 8)) {
      counter.ahead = &ahead;
      for (int i = 0; i < N && run; i++) fk_op_linear(&counter, &arena, &l[i], 1);
      if (run) fk_ahead_begin(&ahead, be, &arena);
      for (int i = 0; i < N; i++) fk_op_linear(be, &arena, &l[i], 1);
      if (run) fk_ahead_end(be);
      fk_arena_reset(&arena, 0);
    }
    if (run > 3) fk_op_graph_end(be, 8);
    void *got = fetch(back, GPU);
    if (run) {
      ok = ok && memcmp(expected, got, back.elements[GPU] * 2) == 0;
      free(got);
    } else {
      expected = got;
    }
  }
  free(expected);
  report(ok && be->failure == FK_FAIL_NONE, "expanded ahead: the bytes of expanding in order, recorded too",
         be->message);
  be->ops->graph_forget(be);
  fk_arena_close(&arena);
  fk_backend_clear(be);
  release_operands();
}

static void test_limits(void) {
  FkBackend *be = side[GPU];
  size_t free_bytes = 0, total = 0;
  be->ops->memory(be, &free_bytes, &total);
  report(free_bytes > 0 && free_bytes <= total, "memory", "");
  report(be->fixed_bytes >= 8 << 20 && be->fixed_bytes < 64 << 20, "fixed_bytes: what the backend holds for itself",
         "");
  void *none = be->ops->alloc(be, total * 2);
  report(!none && be->failure == FK_FAIL_NONE, "too much memory is refused without a failure", be->message);
  void *some = be->ops->alloc(be, 1 << 20);
  report(some && (uintptr_t)some % 256 == 0, "memory is to be had afterwards", "");
  be->ops->release(be, some);

  be->ops->event_record(be, 0);
  Pair x = matrix(FK_BF16, 2048, 2048, 0, 1), y = matrix_out(FK_BF16, 2048, 2048, 0);
  fk_op_act(be, y.t[GPU], x.t[GPU], FK_ACT_SILU);
  be->ops->event_record(be, 63);
  be->ops->event_wait(be, 63);
  const double ms = be->ops->elapsed_ms(be, 0, 63);
  report(ms > 0 && ms < 1e4 && be->failure == FK_FAIL_NONE, "events pass in order", be->message);
  release_operands();

  FkFailure failure;
  char message[256] = "";
  FkBackend *other = fk_backend_open("cuda", 4711, 0, &failure, message, sizeof message);
  report(!other && failure == FK_FAIL_UNSUPPORTED && strstr(message, "4711"), "a device that is not there is named",
         message);
}

/* Same bytes at every run: what the reductions and the products promise. */
static void test_repeats(void) {
  FkBackend *be = side[GPU];
  Pair x = image(FK_BF16, 100, 120, 128, 0, 1), n = image_out(FK_BF16, 100, 120, 128),
       y = image_out(FK_BF16, 100, 120, 128);
  Pair a = vector(128, 1, 0.1), w = matrix(FK_BF16, 128, 9 * 128, 0, 0.03), d = vector(2, 0, 0);
  void *first[3] = {NULL, NULL, NULL};
  bool ok = true;
  for (int run = 0; run < 20; run++) {
    FkGroupNorm norm = {
        .x = x.t[GPU], .y = n.t[GPU], .weight = a.t[GPU], .bias = a.t[GPU], .groups = 32, .eps = 1e-6f, .silu = true};
    FkConv conv = {.x = n.t[GPU],
                   .y = y.t[GPU],
                   .bias = a.t[GPU],
                   .residual = x.t[GPU],
                   .w = weight_of(w, GPU),
                   .kernel = 3,
                   .stride = 1,
                   .pad_before = 1,
                   .pad_after = 1};
    fk_op_group_norm(be, &norm);
    fk_op_conv(be, NULL, &conv);
    fk_op_distance(be, d.t[GPU], x.t[GPU], y.t[GPU]);
    const Pair out[3] = {n, y, d};
    for (int i = 0; i < 3; i++) {
      void *got = fetch(out[i], GPU);
      if (run) ok = ok && memcmp(got, first[i], out[i].elements[GPU] * fk_dtype_size(out[i].t[GPU].dtype)) == 0;
      if (run)
        free(got);
      else
        first[i] = got;
    }
  }
  for (int i = 0; i < 3; i++) free(first[i]);
  report(ok && be->failure == FK_FAIL_NONE, "group norm, convolution, distance: equal bytes in 20 runs", be->message);
  release_operands();
}

int main(void) {
  if (!open_sides()) return 0;
  test_elements();
  test_rows();
  test_positions();
  test_pixels();
  test_sums();
  test_match();
  test_check();
  test_staging();
  test_codes();
  test_expand();
  test_declined();
  test_recording();
  test_ahead();
  test_limits();
  test_repeats();
  return close_sides();
}
