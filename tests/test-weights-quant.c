/* SPDX-License-Identifier: Apache-2.0 */
/* Matrices quantised while they are read: codes and scales are those of the op, on the host and by staging buffers. */
#include "test-weights-specs.h"
#include "ops.h"

static void precision_of(FkPrecision *p, TestBackend *t, FkDtype codes, bool twins) {
  *p = fk_precision_uniform(t->be.dtype);
  p->form[FK_ROLE_QKV] = (FkForm){.dtype = codes, .scale = FK_SCALE_ROW};
  p->twins = twins;
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
      {"f", "F32", {3, 129}, 2},        {"h", "F16", {71, 90}, 2},   {"b", "BF16", {2100, 4099}, 2},
      {"q.weight", "BF16", {3, 40}, 2}, {"k.weight", "F16", {2, 40}, 2}, {"q.bias", "BF16", {3}, 1},
      {"k.bias", "F32", {2}, 1},        {"table", "BF16", {5, 7}, 2},    {"other", "BF16", {5, 7}, 2}};
  write_specs("quantised/model.safetensors", specs, G_N_ELEMENTS(specs));
  g_autoptr(FkComponent) c = open_part("quantised");
  for (int i = 0; i < 4; i++) {
    const FkDtype codes = i % 2 ? FK_I8 : FK_E4M3;
    const bool twins = i / 2;
    TestBackend *t = backend_new(device != NULL);
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
    TestBackend *t = backend_new(device != NULL);
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

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  g_test_add_data_func("/weights-quant/numbers/host", NULL, test_quantised);
  g_test_add_data_func("/weights-quant/numbers/device", "", test_quantised);
  g_test_add_data_func("/weights-quant/edges/host", NULL, test_quantised_edges);
  g_test_add_data_func("/weights-quant/edges/device", "", test_quantised_edges);
  int status = g_test_run();
  scratch_close();
  return status;
}
