/* SPDX-License-Identifier: Apache-2.0 */
/* Files that have what quantised matrices are to be: E4M3 with a scale for all, for each row, or none. Codes and scales
 * in memory are the file's, bit by bit, in every layout, on the host and by staging buffers; numbers are made of them
 * where adapters, other forms or twins want numbers, and without these the file's codes are back. */
#include "number.h"
#include "quantize.h"
#include "test-weights-specs.h"

enum { ROWS = 70, COLS = 256, WIDE = 4099, MANY = 4200 };
#define SCALE 0.37f

/* device: NULL: memory of the host; "": staging buffers; "codes": and codes made by the backend. */
static TestBackend *backend_of(gconstpointer device) {
  TestBackend *t = backend_new(device != NULL);
  if (!g_strcmp0(device, "codes")) t->ops.commit_codes = test_commit_codes;
  return t;
}

/* ---- Files ---- */

typedef struct {
  GString *header;
  GByteArray *data;
} File;

static File file_new(void) {
  return (File){g_string_new("{"), g_byte_array_new()};
}

static void put(File *f, const char *name, const char *type, const char *shape, const void *bytes, size_t n) {
  const guint begin = f->data->len;
  g_byte_array_append(f->data, bytes, (guint)n);
  g_string_append_printf(f->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%u,%u]}",
                         f->header->len > 1 ? "," : "", name, type, shape, begin, f->data->len);
}

static FkComponent *file_open(File *f, const char *folder) {
  g_autofree char *name = g_strconcat(folder, "/model.safetensors", NULL);
  g_string_append_c(f->header, '}');
  g_free(write_safetensors(name, f->header->str, f->data->data, f->data->len));
  g_string_free(f->header, TRUE);
  g_byte_array_unref(f->data);
  return open_part(folder);
}

/* Every code there is, those that are no number too; the largest of most rows is not the largest of the type. */
static uint8_t code_at(int64_t i) {
  const uint8_t code = (uint8_t)(i * 5 + i / 256);
  return i / COLS % 7 ? code & 0xb7 : code;
}

/* (transfer full): [n] from the first-th on */
static uint8_t *codes_from(int64_t first, int64_t n) {
  uint8_t *codes = g_malloc((gsize)n);
  for (int64_t i = 0; i < n; i++) codes[i] = code_at(first + i);
  return codes;
}

/* (transfer full): one scale for all rows, or different ones */
static float *scales_of(int64_t rows, float scale, bool differ) {
  float *scales = g_new(float, (gsize)rows);
  for (int64_t i = 0; i < rows; i++) scales[i] = differ ? scale * (float)(1 + i % 13) : scale;
  return scales;
}

static float *numbers_of(const uint8_t *codes, const float *scales, int64_t rows, int64_t cols) {
  float *numbers = g_new(float, (gsize)(rows * cols));
  for (int64_t i = 0; i < rows * cols; i++) numbers[i] = fk_e4m3_to_f32(codes[i]) * scales[i / cols];
  return numbers;
}

/* ---- What is in memory ---- */

static void assert_codes(const FkWeight *w, const uint8_t *codes, const float *scales) {
  g_assert_cmpint((int)w->scale.kind, ==, FK_SCALE_ROW);
  g_assert_cmpmem(w->data, (size_t)(w->out * w->in), codes, (size_t)(w->out * w->in));
  g_assert_cmpmem(w->scale.data, (size_t)w->out * sizeof(float), scales, (size_t)w->out * sizeof(float));
}

/* They are made of the numbers. */
static void assert_made(const FkWeight *w, const float *numbers, FkMx mx) {
  g_autofree uint8_t *codes = g_malloc((gsize)(w->out * w->in));
  g_autofree float *scales = g_new(float, (gsize)w->out), *row = g_new(float, (gsize)w->in);
  for (int64_t r = 0; r < w->out; r++) {
    memcpy(row, numbers + r * w->in, (size_t)w->in * sizeof *row);
    if (mx) fk_quant_mx(row, mx, w->in);
    scales[r] =
        mx ? fk_quant_row_power(codes + r * w->in, row, w->in) : fk_quant_row(codes + r * w->in, w->dtype, row, w->in);
  }
  assert_codes(w, codes, scales);
}

static void assert_numbers(const FkWeight *w, FkDtype dtype, const float *numbers) {
  for (int64_t i = 0; i < w->out * w->in; i++) {
    const float want = dtype == FK_BF16 && isfinite(numbers[i]) ? bf16_value(bf16_nearest(numbers[i])) : numbers[i];
    const float found = value_of(w->data, dtype, i);
    g_assert_true(isnan(want) ? isnan(found) : found == want);
  }
}

static FkPrecision precision_of(const TestBackend *t, FkForm form) {
  FkPrecision p = fk_precision_uniform(t->be.dtype);
  p.form[FK_ROLE_QKV] = form;
  return p;
}

static const FkForm plain_form = {.dtype = FK_E4M3, .scale = FK_SCALE_ROW};

static void load(FkBinder *b) {
  g_autoptr(GError) error = NULL;
  fk_binder_finish(b, &error);
  g_assert_no_error(error);
  fk_binder_load(b, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
}

/* ---- One matrix in every layout ---- */

static const struct {
  const char *name, *shape;
  bool rows;
} layouts[] = {{"scale_weight", "[]", false},    {"scale_weight", "[1]", false},
               {"weight_scale", "[]", false},    {"weight_scale", "[1,1]", false},
               {"weight_scale", "[70,1]", true}, {"weight_scale", "[70]", true},
               {"scale_weight", "[70,1]", true}, {NULL, NULL, false}};

static FkComponent *write_layout(size_t k, const uint8_t *codes, const float *scales) {
  File f = file_new();
  put(&f, "m.weight", "F8_E4M3", "[70,256]", codes, ROWS * COLS);
  g_autofree char *name = g_strconcat("m.", layouts[k].name ? layouts[k].name : "", NULL);
  if (layouts[k].name) put(&f, name, "F32", layouts[k].shape, scales, (layouts[k].rows ? ROWS : 1) * sizeof(float));
  return file_open(&f, "layout");
}

/* The file's codes and scales are in memory, and nobody made any. */
static void assert_taken(gconstpointer device, FkComponent *c, int64_t rows, int64_t cols, const uint8_t *codes,
                         const float *scales) {
  TestBackend *t = backend_of(device);
  const FkPrecision p = precision_of(t, plain_form);
  FkWeight w;
  FkBinder *b = binder_of(t, &p, c, &plain);
  fk_bind_matrix(b, &w, FK_ROLE_QKV, rows, cols, "m.weight");
  load(b);
  assert_codes(&w, codes, scales);
  g_assert_cmpint(fk_binder_coded_rows(b), ==, 0);
  g_assert_cmpint(t->coded, ==, 0);
  fk_binder_free(b);
  backend_free(t);
}

/* The same numbers, the same bytes; a scale that is 1 is as none. */
static void test_layouts(gconstpointer device) {
  g_autofree uint8_t *codes = codes_from(0, ROWS * COLS);
  for (size_t k = 0; k < 2 * G_N_ELEMENTS(layouts); k++) {
    const size_t layout = k / 2;
    const bool differ = k % 2 && layouts[layout].rows;
    g_autofree float *scales = scales_of(ROWS, !layouts[layout].name || k % 2 ? 1 : SCALE, differ);
    g_autoptr(FkComponent) c = write_layout(layout, codes, scales);
    assert_taken(device, c, ROWS, COLS, codes, scales);
  }
}

/* Other forms have what the numbers make, twins the numbers; rounded the other way nothing is left over. */
static void test_forms(gconstpointer device) {
  static const FkForm forms[] = {{.dtype = FK_E4M3, .scale = FK_SCALE_ROW, .twin = true},
                                 {.dtype = FK_E4M3, .scale = FK_SCALE_ROW, .dither = true},
                                 {.dtype = FK_E4M3, .scale = FK_SCALE_ROW, .dither = true, .twin = true},
                                 {.dtype = FK_E4M3, .scale = FK_SCALE_ROW, .mx = FK_MX_FP8},
                                 {.dtype = FK_E4M3, .scale = FK_SCALE_ROW, .mx = FK_MX_FP4},
                                 {.dtype = FK_I8, .scale = FK_SCALE_ROW}};
  g_autofree uint8_t *codes = codes_from(0, ROWS * COLS);
  g_autofree float *scales = scales_of(ROWS, SCALE, true), *numbers = numbers_of(codes, scales, ROWS, COLS);
  g_autoptr(FkComponent) c = write_layout(4, codes, scales);
  for (size_t k = 0; k < G_N_ELEMENTS(forms); k++) {
    TestBackend *t = backend_of(device);
    const FkPrecision p = precision_of(t, forms[k]);
    FkWeight w;
    FkBinder *b = binder_of(t, &p, c, &plain);
    fk_bind_matrix(b, &w, FK_ROLE_QKV, ROWS, COLS, "m.weight");
    load(b);
    const bool taken = w.dtype == FK_E4M3 && !forms[k].mx;
    if (taken) assert_codes(&w, codes, scales);
    if (!taken) assert_made(&w, numbers, forms[k].mx);
    if (w.odd) assert_codes(w.odd, codes, scales);
    if (w.full) assert_numbers(w.full, t->be.dtype, numbers);
    g_assert_true(!!w.odd == forms[k].dither && !!w.full == forms[k].twin);
    g_assert_cmpint(fk_binder_coded_rows(b), ==, taken ? 0 : ROWS);
    fk_binder_free(b);
    backend_free(t);
  }
}

/* ---- Several in one ---- */

static const FkNameRow fused_rows[] = {{"q", "qkv", 0, 3, 5, FK_TRANSFORM_NONE},
                                       {"k", "qkv", 3, 2, 5, FK_TRANSFORM_NONE},
                                       {"s", "s", 0, 0, 0, FK_TRANSFORM_SWAP_HALVES}};
static const FkNameTable fused = {fused_rows, G_N_ELEMENTS(fused_rows), NULL, NULL};

/* A stack of rows of a fused tensor, of one with another scale, of numbers and of codes of another type: scales go by
 * parts, and only what has to be is made. */
static void test_stack(gconstpointer device) {
  g_autofree uint8_t *qkv = codes_from(0, 5 * COLS), *v = codes_from(7 * COLS, 4 * COLS), *s = codes_from(99, 6 * COLS);
  const float one = SCALE, other = 3;
  uint16_t brain[2 * COLS];
  uint8_t fives[2 * COLS];
  float numbers[2 * COLS], five_numbers[2 * COLS];
  for (int i = 0; i < 2 * COLS; i++) {
    brain[i] = bf16_nearest(numbers[i] = made_value("b", i));
    fives[i] = (uint8_t)(i * 3 % 0x7c);
    five_numbers[i] = fk_f16_to_f32((uint16_t)(fives[i] << 8)) * other;
  }
  File f = file_new();
  put(&f, "qkv.weight", "F8_E4M3", "[5,256]", qkv, 5 * COLS);
  put(&f, "qkv.scale_weight", "F32", "[]", &one, 4);
  put(&f, "v.weight", "F8_E4M3", "[4,256]", v, 4 * COLS);
  put(&f, "v.weight_scale", "F32", "[1]", &other, 4);
  put(&f, "b.weight", "BF16", "[2,256]", brain, sizeof brain);
  put(&f, "e.weight", "F8_E5M2", "[2,256]", fives, sizeof fives);
  put(&f, "e.weight_scale", "F32", "[]", &other, 4);
  put(&f, "s.weight", "F8_E4M3", "[6,256]", s, 6 * COLS);
  g_autofree float *s_scales = scales_of(6, 1, true);
  put(&f, "s.weight_scale", "F32", "[6,1]", s_scales, 6 * sizeof(float));
  g_autoptr(FkComponent) c = file_open(&f, "fused");
  TestBackend *t = backend_of(device);
  const FkPrecision p = precision_of(t, plain_form);
  FkWeight w, swapped;
  FkBinder *b = binder_of(t, &p, c, &fused);
  fk_bind_stack(b, &w, NULL, FK_ROLE_QKV, COLS, 5, (int64_t[]){2, 3, 4, 2, 2},
                (const char *const[]){"k", "q", "v", "b", "e"});
  fk_bind_matrix(b, &swapped, FK_ROLE_QKV, 6, COLS, "s.weight");
  load(b);
  const float filled[4] = {one, one, one, one}, others[4] = {other, other, other, other};
  const FkWeight k_rows = fk_weight_rows(w, 0, 2), q_rows = fk_weight_rows(w, 2, 3), v_rows = fk_weight_rows(w, 5, 4),
                 b_rows = fk_weight_rows(w, 9, 2), e_rows = fk_weight_rows(w, 11, 2),
                 second = fk_weight_rows(swapped, 0, 3), first = fk_weight_rows(swapped, 3, 3);
  assert_codes(&k_rows, qkv + 3 * COLS, filled);
  assert_codes(&q_rows, qkv, filled);
  assert_codes(&v_rows, v, others);
  assert_made(&b_rows, numbers, FK_MX_NONE);
  assert_made(&e_rows, five_numbers, FK_MX_NONE);
  assert_codes(&second, s + 3 * COLS, s_scales + 3);
  assert_codes(&first, s, s_scales);
  g_assert_cmpint(fk_binder_coded_rows(b), ==, 4);
  g_assert_cmpint(t->coded, ==, t->ops.commit_codes ? 2 : 0); /* the backend has the numbers of "b" alone */
  fk_binder_free(b);
  backend_free(t);
}

/* Of several chunks, in pieces. */
static void test_large(gconstpointer device) {
  g_autofree uint8_t *codes = codes_from(0, (int64_t)MANY * WIDE);
  g_autofree float *scales = scales_of(MANY, SCALE, true);
  File f = file_new();
  put(&f, "m.weight", "F8_E4M3", "[4200,4099]", codes, (size_t)MANY * WIDE);
  put(&f, "m.weight_scale", "F32", "[4200,1]", scales, MANY * sizeof(float));
  g_autoptr(FkComponent) c = file_open(&f, "large");
  assert_taken(device, c, MANY, WIDE, codes, scales);
}

/* ---- Adapters ---- */

static FkComponent *write_delta(void) {
  static const Spec parts[] = {{"up", "F32", {ROWS, 3}, 2}, {"down", "F32", {3, COLS}, 2}};
  write_specs("delta/model.safetensors", parts, 2);
  return open_part("delta");
}

/* With a delta the codes are those of the sum, as of a file that has the numbers; without it the file's again. */
static void test_adapted(gconstpointer device) {
  g_autofree uint8_t *codes = codes_from(0, ROWS * COLS);
  for (int i = 0; i < ROWS * COLS; i++)
    if ((codes[i] & 127) == 127) codes[i]--; /* sums with what is no number are some NaN */
  g_autofree float *scales = scales_of(ROWS, SCALE, true), *numbers = numbers_of(codes, scales, ROWS, COLS);
  File f = file_new();
  put(&f, "m.weight", "F32", "[70,256]", numbers, ROWS * COLS * sizeof(float));
  g_autoptr(FkComponent) coded = write_layout(4, codes, scales), wide = file_open(&f, "wide"), delta = write_delta();
  g_autoptr(GArray) deltas = g_array_new(FALSE, TRUE, sizeof(FkDelta));
  const FkSafetensors *file = fk_component_shard(delta, 0);
  const FkDelta d = {.file = file,
                     .part = {fk_safetensors_find(file, "up"), fk_safetensors_find(file, "down")},
                     .weight = 0.01,
                     .scale = 1,
                     .rows = ROWS,
                     .cols = COLS};
  g_array_append_val(deltas, d);
  g_autoptr(GHashTable) changed = g_hash_table_new(g_str_hash, g_str_equal);
  g_hash_table_insert(changed, (gpointer) "m.weight", deltas);
  FkForm form = plain_form;
  form.dither = true;
  for (int turn = 0; turn < 2; turn++) {
    TestBackend *t[2];
    FkBinder *b[2];
    FkWeight w[2];
    for (int i = 0; i < 2; i++) {
      t[i] = backend_of(device);
      const FkPrecision p = precision_of(t[i], form);
      b[i] = binder_of(t[i], &p, i ? wide : coded, &plain);
      fk_bind_matrix(b[i], &w[i], FK_ROLE_QKV, ROWS, COLS, "m.weight");
      if (turn) fk_binder_adapt(b[i], changed); /* from the beginning */
      load(b[i]);
      fk_binder_adapt(b[i], changed);
      g_assert_true(fk_binder_reload(b[i], changed, NULL, NULL, NULL, NULL));
    }
    assert_codes(&w[0], w[1].data, w[1].scale.data);
    assert_codes(w[0].odd, w[1].odd->data, w[1].odd->scale.data);
    g_assert_cmpint(memcmp(w[0].data, codes, ROWS * COLS), !=, 0);
    fk_binder_adapt(b[0], NULL);
    g_assert_true(fk_binder_reload(b[0], changed, NULL, NULL, NULL, NULL));
    assert_codes(&w[0], codes, scales);
    assert_codes(w[0].odd, codes, scales);
    for (int i = 0; i < 2; i++) {
      fk_binder_free(b[i]);
      backend_free(t[i]);
    }
  }
}

/* ---- Scales that are none ---- */

static void test_bad_scales(gconstpointer device) {
  static const float bad[] = {0, -0.0f, -1, NAN, INFINITY};
  g_autofree uint8_t *codes = codes_from(0, ROWS * COLS);
  for (size_t k = 0; k < G_N_ELEMENTS(layouts) - 1; k++)
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
      g_autofree float *scales = scales_of(ROWS, SCALE, false);
      scales[layouts[k].rows ? ROWS - 1 : 0] = bad[i];
      g_autoptr(FkComponent) c = write_layout(k, codes, scales);
      g_autoptr(GError) error = NULL;
      TestBackend *t = backend_of(device);
      const FkPrecision p = precision_of(t, plain_form);
      FkWeight w;
      FkBinder *b = binder_of(t, &p, c, &plain);
      fk_bind_matrix(b, &w, FK_ROLE_QKV, ROWS, COLS, "m.weight");
      g_assert_true(fk_binder_finish(b, &error));
      const bool zeros = layouts[k].rows && bad[i] == 0; /* a row of zeros may have the scale 0 */
      g_assert_true(fk_binder_load(b, NULL, NULL, NULL, &error) == zeros);
      if (zeros)
        assert_codes(&w, codes, scales);
      else
        assert_error(error, FK_ERROR_MODEL_BAD, "\"m.weight\": its scale", "expected a positive number, found");
      fk_binder_free(b);
      backend_free(t);
    }
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    GTestDataFunc run;
  } tests[] = {{"layouts", test_layouts}, {"forms", test_forms},     {"stack", test_stack},
               {"large", test_large},     {"adapted", test_adapted}, {"bad-scales", test_bad_scales}};
  static const char *const devices[][2] = {{"host", NULL}, {"device", ""}, {"coding-device", "codes"}};
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  for (size_t i = 0; i < G_N_ELEMENTS(tests); i++)
    for (size_t k = 0; k < G_N_ELEMENTS(devices); k++) {
      g_autofree char *name = g_strdup_printf("/weights-codes/%s/%s", tests[i].name, devices[k][0]);
      g_test_add_data_func(name, devices[k][1], tests[i].run);
    }
  const int status = g_test_run();
  scratch_close();
  return status;
}
