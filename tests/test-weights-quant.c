/* SPDX-License-Identifier: Apache-2.0 */
/* Matrices quantised while they are read: codes and scales are those of the op, on the host and by staging buffers; and
 * files whose numbers are codes. */
#include "test-weights-specs.h"
#include "number.h"
#include "number-reference.h"
#include "ops.h"

/* device: NULL: memory of the host; "": staging buffers; "codes": and codes made by the backend. */
static TestBackend *backend_of(gconstpointer device) {
  TestBackend *t = backend_new(device != NULL);
  if (!g_strcmp0(device, "codes")) t->ops.commit_codes = test_commit_codes;
  return t;
}

static void precision_of(FkPrecision *p, TestBackend *t, FkDtype codes, bool twins) {
  *p = fk_precision_uniform(t->be.dtype);
  p->form[FK_ROLE_QKV] = (FkForm){.dtype = codes, .scale = FK_SCALE_ROW, .twin = twins};
}

/* The weight's codes and scales are what the op makes of the numbers. */
static void assert_quantised(const FkWeight *w, FkDtype codes, const float *numbers) {
  char message[256];
  FkFailure failure;
  FkBackend *cpu = fk_backend_open("cpu", 0, 0, &failure, message, sizeof message);
  const size_t n = (size_t)(w->out * w->in);
  g_autofree uint8_t *expected = g_malloc(n);
  g_autofree float *scale = g_new(float, (size_t)w->out);
  fk_op_quantize(cpu, fk_tensor_2d(expected, codes, w->out, w->in), fk_tensor_1d(scale, FK_F32, w->out),
                 fk_tensor_2d((void *)numbers, FK_F32, w->out, w->in));
  g_assert_true(fk_backend_sync(cpu));
  g_assert_cmpint((int)w->dtype, ==, (int)codes);
  g_assert_cmpint((int)w->scale.kind, ==, FK_SCALE_ROW);
  g_assert_cmpint((int)w->scale.dtype, ==, FK_F32);
  g_assert_cmpmem(w->data, n, expected, n);
  g_assert_cmpmem(w->scale.data, (size_t)w->out * sizeof(float), scale, (size_t)w->out * sizeof(float));
  fk_backend_close(cpu);
}

static float *spec_values(const Spec *s) {
  float *values = g_new(float, (size_t)spec_count(s));
  for (int64_t i = 0; i < spec_count(s); i++) values[i] = made_value(s->name, i);
  return values;
}

/* Of each source type, several chunks, and a stack, whose scales stand one below the other too. */
static void test_quantised(gconstpointer device) {
  static const Spec specs[] = {
      {"f", "F32", {3, 129}, 2},        {"h", "F16", {71, 90}, 2},       {"b", "BF16", {2100, 4099}, 2},
      {"q.weight", "BF16", {3, 40}, 2}, {"k.weight", "F16", {2, 40}, 2}, {"q.bias", "BF16", {3}, 1},
      {"k.bias", "F32", {2}, 1},        {"table", "BF16", {5, 7}, 2},    {"other", "BF16", {5, 7}, 2}};
  write_specs("quantised/model.safetensors", specs, G_N_ELEMENTS(specs));
  g_autoptr(FkComponent) c = open_part("quantised");
  for (int i = 0; i < 4; i++) {
    const FkDtype codes = i % 2 ? FK_I8 : FK_E4M3;
    const bool twins = i / 2;
    TestBackend *t = backend_of(device);
    FkPrecision precision;
    FkWeight w[3], stack, table, other;
    FkTensor bias;
    Watch seen = {0};
    precision_of(&precision, t, codes, twins);
    g_autoptr(GError) error = NULL;
    g_autoptr(FkBinder) b = binder_of(t, &precision, c, &plain);
    for (int k = 0; k < 3; k++)
      fk_bind_matrix(b, &w[k], FK_ROLE_QKV, specs[k].dim[0], specs[k].dim[1], "%s", specs[k].name);
    fk_bind_stack(b, &stack, &bias, FK_ROLE_QKV, 40, 2, (int64_t[]){2, 3}, (const char *const[]){"k", "q"});
    fk_bind_table(b, &table, 5, 7, "table");
    fk_bind_matrix(b, &other, FK_ROLE_OUT, 5, 7, "other");
    g_assert_true(fk_binder_finish(b, &error));
    g_assert_true(fk_binder_load(b, NULL, watch, &seen, &error));
    g_assert_no_error(error);
    g_assert_cmpint(seen.last, ==, (int64_t)fk_binder_bytes(b));
    const int rows = 3 + 71 + 2100 + 3 + 2;
    g_assert_cmpint(t->coded, ==, t->ops.commit_codes && codes == FK_E4M3 ? rows : 0);
    g_assert_cmpint(fk_binder_coded_rows(b), ==, rows);
    for (int k = 0; k < 3; k++) {
      g_autofree float *numbers = spec_values(&specs[k]);
      assert_quantised(&w[k], codes, numbers);
      g_assert_true((w[k].full != NULL) == twins);
      if (twins) assert_holds(w[k].full->data, t->be.dtype, &specs[k]);
    }
    g_autofree float *k_rows = spec_values(&specs[4]), *q_rows = spec_values(&specs[3]);
    const FkWeight k_part = fk_weight_rows(stack, 0, 2), q_part = fk_weight_rows(stack, 2, 3);
    assert_quantised(&k_part, codes, k_rows);
    assert_quantised(&q_part, codes, q_rows);
    if (twins) assert_holds(fk_weight_full(q_part).data, t->be.dtype, &specs[3]);
    assert_holds(bias.data, FK_F32, &specs[6]);
    assert_holds(table.data, t->be.dtype, &specs[7]);
    assert_holds(other.data, t->be.dtype, &specs[8]);
    g_assert_true(other.scale.kind == FK_SCALE_NONE && other.full == NULL);
    fk_binder_release(b);
    g_assert_true(stack.data == NULL && stack.scale.data == NULL && (!twins || stack.full->data == NULL));
    g_clear_pointer(&b, fk_binder_free);
    backend_free(t);
  }
}

/* Rows that have no good scale: of zeros, of tiny numbers, with an infinity, with NaN; and what lies beyond the codes.
 */
static void test_quantised_edges(gconstpointer device) {
  static const float rows[][4] = {{0, -0.0f, 0, 0},      {1e-40f, 0, -1e-38f, 0},     {1, INFINITY, -3, 0},
                                  {1, 2, NAN, -8},       {NAN, NAN, NAN, NAN},        {-3e38f, 1, 0.5f, 3e38f},
                                  {448, 17, 18, -0.01f}, {0x1p-99f, 0, 0, -0x1p-101f}};
  const char *header = "{\"m\":{\"dtype\":\"F32\",\"shape\":[8,4],\"data_offsets\":[0,128]}}";
  g_free(write_safetensors("edges/model.safetensors", header, rows, sizeof rows));
  g_autoptr(FkComponent) c = open_part("edges");
  for (int i = 0; i < 2; i++) {
    const FkDtype codes = i ? FK_I8 : FK_E4M3;
    TestBackend *t = backend_of(device);
    FkPrecision precision;
    FkWeight w;
    precision_of(&precision, t, codes, false);
    FkBinder *b = binder_of(t, &precision, c, &plain);
    fk_bind_matrix(b, &w, FK_ROLE_QKV, 8, 4, "m");
    g_assert_true(fk_binder_finish(b, NULL) && fk_binder_load(b, NULL, NULL, NULL, NULL));
    assert_quantised(&w, codes, &rows[0][0]);
    fk_binder_free(b);
    backend_free(t);
  }
}

/* ---- MX ---- */

/* The nearest number of a format of `mantissa` bits whose smallest step is 2^least, of two as near the even one. */
static double nearest(double x, int mantissa, int least) {
  int exponent;
  if (x == 0) return x;
  frexp(x, &exponent);
  const double step = ldexp(1, MAX(exponent - 1 - mantissa, least));
  return nearbyint(x / step) * step;
}

/* The smallest power of two s with amax <= limit s. */
static double power_over(double amax, double limit) {
  double s = 1;
  while (limit * s < amax) s *= 2;
  while (limit * s / 2 >= amax) s /= 2;
  return s;
}

static double largest(const double *x, int64_t n) {
  double most = 0;
  for (int64_t i = 0; i < n; i++) most = fmax(most, fabs(x[i]));
  return most;
}

/* In double precision, from the definition: blocks of 32 under a power of two that is rounded up. */
static void mx_by_definition(double *x, int64_t n, FkMx mx) {
  for (int64_t first = 0; first < n; first += 32) {
    const int64_t count = MIN(32, n - first);
    const double amax = largest(x + first, count), scale = amax > 0 ? power_over(amax, mx == FK_MX_FP4 ? 6 : 448) : 1;
    for (int64_t i = first; i < first + count; i++)
      x[i] = (mx == FK_MX_FP4 ? nearest(x[i] / scale, 1, -1) : nearest(x[i] / scale, 3, -9)) * scale;
  }
}

/* Codes and scales are powers of two times what the definition says; MXFP4 exactly. first: of a dithered pair. */
static void assert_mx(const FkWeight *w, const FkWeight *first, const float *numbers, FkMx mx) {
  g_autofree double *x = g_new(double, (size_t)w->in);
  for (int64_t r = 0; r < w->out; r++) {
    const uint8_t *codes = (const uint8_t *)w->data + r * w->in;
    const float scale = ((const float *)w->scale.data)[r];
    int exponent;
    for (int64_t c = 0; c < w->in; c++) {
      x[c] = (double)numbers[r * w->in + c];
      if (first)
        x[c] = (double)(2 * numbers[r * w->in + c] - fk_e4m3_to_f32(((const uint8_t *)first->data)[r * w->in + c]) *
                                                         ((const float *)first->scale.data)[r]);
    }
    if (mx) mx_by_definition(x, w->in, mx);
    const double amax = largest(x, w->in), want = amax > 0 ? power_over(amax, 448) : 1;
    g_assert_true((double)scale == want && frexp((double)scale, &exponent) == 0.5);
    for (int64_t c = 0; c < w->in; c++) {
      const double found = (double)fk_e4m3_to_f32(codes[c]) * (double)scale;
      g_assert_true(found == nearest(x[c] / want, 3, -9) * want);
      if (mx == FK_MX_FP4) g_assert_true(found == x[c]);
    }
  }
}

/* Rows of whole and of broken blocks, blocks that differ much, and their other copies. */
static void test_mx(gconstpointer device) {
  enum { ROWS = 6, COLS = 77 };
  float numbers[ROWS][COLS];
  for (int r = 0; r < ROWS; r++)
    for (int c = 0; c < COLS; c++)
      numbers[r][c] = (float)(sin(r * 91 + c * 1.7) * pow(2, c / 32 * (r - 2)) * (r == 5 ? 0 : 1));
  const char *header = "{\"m\":{\"dtype\":\"F32\",\"shape\":[6,77],\"data_offsets\":[0,1848]}}";
  g_free(write_safetensors("mx/model.safetensors", header, numbers, sizeof numbers));
  g_autoptr(FkComponent) c = open_part("mx");
  for (int i = 0; i < 6; i++) {
    const FkMx mx = i % 3 == 0 ? FK_MX_NONE : i % 3 == 1 ? FK_MX_FP8 : FK_MX_FP4;
    const bool dither = i / 3;
    TestBackend *t = backend_of(device);
    FkPrecision precision = fk_precision_uniform(t->be.dtype);
    FkWeight w;
    g_autoptr(GError) error = NULL;
    precision.form[FK_ROLE_QKV] = (FkForm){.dtype = FK_E4M3, .scale = FK_SCALE_ROW, .mx = mx, .dither = dither};
    FkBinder *b = binder_of(t, &precision, c, &plain);
    fk_bind_matrix(b, &w, FK_ROLE_QKV, ROWS, COLS, "m");
    g_assert_true(fk_binder_finish(b, NULL) && fk_binder_load(b, NULL, NULL, NULL, &error));
    g_assert_no_error(error);
    g_assert_true((w.odd != NULL) == dither);
    if (mx) assert_mx(&w, NULL, &numbers[0][0], mx);
    if (!mx) assert_quantised(&w, FK_E4M3, &numbers[0][0]);
    if (mx && dither) assert_mx(w.odd, &w, &numbers[0][0], mx);
    if (dither) {
      const FkWeight part = fk_weight_odd(fk_weight_rows(w, 2, 3));
      g_assert_true(part.out == 3 && part.data == (const char *)w.odd->data + 2 * COLS);
      double one = 0, both = 0;
      for (int r = 0; r < ROWS; r++)
        for (int k = 0; k < COLS; k++) {
          const double a =
              (double)(fk_e4m3_to_f32(((const uint8_t *)w.data)[r * COLS + k]) * ((const float *)w.scale.data)[r]);
          const double o = (double)(fk_e4m3_to_f32(((const uint8_t *)w.odd->data)[r * COLS + k]) *
                                    ((const float *)w.odd->scale.data)[r]);
          one += pow(a - (double)numbers[r][k], 2);
          both += pow((a + o) / 2 - (double)numbers[r][k], 2);
        }
      g_assert_cmpfloat(both, <, 0.5 * one); /* the mean of both roundings is nearer */
    }
    fk_binder_release(b);
    g_assert_true(!dither || (w.odd->data == NULL && w.odd->scale.data == NULL));
    fk_binder_free(b);
    backend_free(t);
  }
}

/* ---- Codes of the file ---- */

/* Every code: "s.weight" has the file's scale 0.37, the others none; `scale` may be another type or value. */
static FkComponent *write_codes(const char *type, const char *shape, float scale) {
  uint8_t data[3 * 256 + 4];
  for (int i = 0; i < 3 * 256; i++) data[i] = (uint8_t)(i * 5 + i / 256);
  memcpy(data + 768, &scale, 4);
  g_autofree char *header =
      g_strdup_printf("{\"s.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[8,32],\"data_offsets\":[0,256]},"
                      "\"u.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[4,64],\"data_offsets\":[256,512]},"
                      "\"v\":{\"dtype\":\"F8_E4M3\",\"shape\":[256],\"data_offsets\":[512,768]},"
                      "\"s.scale_weight\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[768,772]}}",
                      type, shape);
  g_free(write_safetensors("codes/model.safetensors", header, data, sizeof data));
  return open_part("codes");
}

static const FkNameTable scaled = {NULL, 0, NULL};

typedef struct {
  FkWeight s, u;
  FkTensor v;
} Codes;

static FkBinder *bind_codes(TestBackend *t, const FkPrecision *precision, const FkComponent *c, Codes *codes) {
  FkBinder *b = binder_of(t, precision, c, &scaled);
  fk_bind_matrix(b, &codes->s, FK_ROLE_QKV, 8, 32, "s.weight");
  fk_bind_matrix(b, &codes->u, FK_ROLE_OUT, 4, 64, "u.weight");
  fk_bind_vector(b, &codes->v, 256, "v");
  return b;
}

/* Rounded once: code * scale in float32, then to the memory's type. */
static void assert_expanded(const void *data, FkDtype dtype, int third, float scale) {
  for (int i = 0; i < 256; i++) {
    const int at = third * 256 + i;
    const float value = (float)(format_value(&format_e4m3, (guint8)(at * 5 + at / 256)) * (double)scale);
    const float found = value_of(data, dtype, i);
    const float expected = dtype == FK_BF16 && isfinite(value) ? bf16_value(bf16_nearest(value)) : value;
    g_assert_true(isnan(expected) ? isnan(found) : found == expected && !signbit(found) == !signbit(expected));
  }
}

static void test_codes(gconstpointer device) {
  const float scale = 0.37f;
  g_autoptr(FkComponent) c = write_codes("F32", device ? "[]" : "[1]", scale);
  for (int quantised = 0; quantised < 2; quantised++) {
    TestBackend *t = backend_of(device);
    FkPrecision precision;
    Codes codes;
    precision_of(&precision, t, FK_I8, false);
    g_autoptr(GError) error = NULL;
    FkBinder *b = bind_codes(t, quantised ? &precision : NULL, c, &codes);
    g_assert_true(fk_binder_finish(b, &error));
    g_assert_true(fk_binder_load(b, NULL, NULL, NULL, &error));
    g_assert_no_error(error);
    assert_expanded(codes.u.data, t->be.dtype, 1, 1);
    assert_expanded(codes.v.data, FK_F32, 2, 1);
    if (quantised) {
      float numbers[256];
      for (int i = 0; i < 256; i++) numbers[i] = (float)(format_value(&format_e4m3, (guint8)(i * 5)) * (double)scale);
      assert_quantised(&codes.s, FK_I8, numbers);
    } else {
      assert_expanded(codes.s.data, t->be.dtype, 0, scale);
    }
    fk_binder_free(b);
    backend_free(t);
  }
}

static void test_bad_scales(void) {
  static const struct {
    const char *type, *shape;
    float scale;
    int code;
    const char *text_1, *text_2;
  } cases[] = {
      {"F32", "[1]", 0, FK_ERROR_MODEL_BAD, "\"s.weight\": its scale \"s.scale_weight\"",
       "expected a positive number, found 0"},
      {"F32", "[1]", -1, FK_ERROR_MODEL_BAD, "s.scale_weight", "found -1"},
      {"F32", "[1]", NAN, FK_ERROR_MODEL_BAD, "s.scale_weight", "found "},
      {"F32", "[1]", INFINITY, FK_ERROR_MODEL_BAD, "s.scale_weight", "found inf"},
      {"BF16", "[2]", 1, FK_ERROR_MODEL_MISMATCH,
       "\"s.scale_weight\": expected one F32 or one of each row beside codes of 8 bits, found BF16 of shape [2]",
       "1 of another shape or type, 0 unknown"},
      {"I32", "[1]", 1, FK_ERROR_MODEL_MISMATCH, "found I32", "1 of another shape or type, 0 unknown"},
  };
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(FkComponent) c = write_codes(cases[i].type, cases[i].shape, cases[i].scale);
    TestBackend *t = backend_new(false);
    Codes codes;
    g_autoptr(GError) error = NULL;
    FkBinder *b = bind_codes(t, NULL, c, &codes);
    g_assert_false(fk_binder_finish(b, &error) && fk_binder_load(b, NULL, NULL, NULL, &error));
    g_test_message("%s", error->message);
    assert_error(error, cases[i].code, cases[i].text_1, cases[i].text_2);
    g_assert_cmpint(t->live, ==, 0);
    fk_binder_free(b);
    backend_free(t);
  }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  g_test_add_data_func("/weights-quant/numbers/host", NULL, test_quantised);
  g_test_add_data_func("/weights-quant/numbers/device", "", test_quantised);
  g_test_add_data_func("/weights-quant/numbers/coding-device", "codes", test_quantised);
  g_test_add_data_func("/weights-quant/edges/host", NULL, test_quantised_edges);
  g_test_add_data_func("/weights-quant/edges/device", "", test_quantised_edges);
  g_test_add_data_func("/weights-quant/edges/coding-device", "codes", test_quantised_edges);
  g_test_add_data_func("/weights-quant/codes/host", NULL, test_codes);
  g_test_add_data_func("/weights-quant/codes/device", "", test_codes);
  g_test_add_data_func("/weights-quant/codes/coding-device", "codes", test_codes);
  g_test_add_data_func("/weights-quant/mx/host", NULL, test_mx);
  g_test_add_data_func("/weights-quant/mx/device", "", test_mx);
  g_test_add_data_func("/weights-quant/mx/coding-device", "codes", test_mx);
  g_test_add_func("/weights-quant/bad-scales", test_bad_scales);
  int status = g_test_run();
  scratch_close();
  return status;
}
