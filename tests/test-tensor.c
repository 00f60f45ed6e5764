/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes of the number formats, views of tensors, and rows of weights with what belongs to them: scales and the twin in
 * full precision. */
#include "tensor.h"

#include <glib.h>

static void dtypes(void) {
  static const int bits[FK_DTYPES] = {[FK_F32] = 32, [FK_BF16] = 16, [FK_F16] = 16, [FK_I32] = 32, [FK_U8] = 8,
                                      [FK_I8] = 8,   [FK_E4M3] = 8,  [FK_E8M0] = 8, [FK_E2M1] = 4};
  for (int i = 0; i < FK_DTYPES; i++) {
    g_assert_cmpint(bits[i], >, 0); /* a type was added without its row here */
    g_assert_cmpint(fk_dtype_bits((FkDtype)i), ==, bits[i]);
    if (bits[i] % 8 == 0) g_assert_cmpuint(fk_dtype_size((FkDtype)i), ==, (gsize)bits[i] / 8);
  }
}

/* Rows and columns of a view with holes; nothing is reached through a tensor without memory. */
static void views(void) {
  guint16 memory[6 * 10];
  FkTensor t = fk_tensor_3d(memory, FK_BF16, 2, 3, 8);
  t.ld = 10;
  g_assert_cmpint(fk_tensor_rows(t), ==, 6);
  g_assert_cmpint(fk_tensor_count(t), ==, 48);
  const FkTensor rows = fk_tensor_slice_rows(t, 2, 3), cols = fk_tensor_slice_cols(rows, 5, 2);
  g_assert_true(rows.data == memory + 20 && rows.dim[0] == 3 && rows.dim[1] == 8 && rows.ld == 10);
  g_assert_true(cols.data == memory + 25 && cols.dim[0] == 3 && cols.dim[1] == 2 && cols.ld == 10);
  g_assert_true(fk_tensor_row(t, 4).data == memory + 40 && fk_tensor_row(t, 4).dim[0] == 8);
  t.data = NULL;
  g_assert_null(fk_tensor_slice_rows(t, 2, 3).data);
  g_assert_null(fk_tensor_slice_cols(t, 2, 3).data);
}

/* Bytes of matrix and of scales that 5 rows lie behind row 3 of [16, 64]. */
static void weight_rows(void) {
  static char matrix[4096], scales[4096], full_matrix[16 * 64 * 4 * 2];
  static const struct {
    FkDtype dtype, scale;
    FkScaleKind kind;
    int block;
    gsize data_at, scale_at;
  } cases[] = {
      {FK_F32, FK_F32, FK_SCALE_NONE, 0, 768, 0},     {FK_BF16, FK_F32, FK_SCALE_NONE, 0, 384, 0},
      {FK_E4M3, FK_F32, FK_SCALE_TENSOR, 0, 192, 0},  {FK_E4M3, FK_F32, FK_SCALE_ROW, 0, 192, 12},
      {FK_I8, FK_F32, FK_SCALE_BLOCK, 32, 192, 24},   {FK_I8, FK_E8M0, FK_SCALE_BLOCK, 32, 192, 6},
      {FK_E4M3, FK_E8M0, FK_SCALE_ROW, 0, 192, 3},    {FK_E2M1, FK_E8M0, FK_SCALE_BLOCK, 32, 96, 6},
      {FK_E2M1, FK_E4M3, FK_SCALE_BLOCK, 16, 96, 12},
  };
  const FkWeight full = {.data = full_matrix, .dtype = FK_F32, .out = 32, .in = 64};
  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    const FkWeight w = {.data = matrix,
                        .dtype = cases[i].dtype,
                        .out = 16,
                        .in = 64,
                        .scale = {cases[i].kind ? scales : NULL, cases[i].scale, cases[i].kind, cases[i].block},
                        .x_scale = 0.5f,
                        .full = &full,
                        .first = 7};
    const FkWeight rows = fk_weight_rows(w, 3, 5);
    g_assert_true((const char *)rows.data == matrix + cases[i].data_at);
    g_assert_true(rows.out == 5 && rows.in == 64 && rows.dtype == w.dtype && rows.x_scale == 0.5f);
    g_assert_true(rows.scale.kind == w.scale.kind && rows.scale.block == w.scale.block);
    if (cases[i].kind)
      g_assert_true((const char *)rows.scale.data == scales + cases[i].scale_at);
    else
      g_assert_null(rows.scale.data);
    const FkWeight twin = fk_weight_full(fk_weight_rows(rows, 1, 2)); /* rows of rows */
    g_assert_true((const char *)twin.data == full_matrix + (7 + 3 + 1) * 64 * 4 && twin.out == 2);
    g_assert_cmpint(twin.dtype, ==, FK_F32);
  }
  const FkWeight plain = {.dtype = FK_F32, .out = 4, .in = 2}; /* no memory, as in a plan; no twin: itself */
  g_assert_null(fk_weight_rows(plain, 1, 2).data);
  g_assert_cmpint(fk_weight_full(plain).out, ==, 4);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/tensor/dtypes", dtypes);
  g_test_add_func("/tensor/views", views);
  g_test_add_func("/tensor/weight-rows", weight_rows);
  return g_test_run();
}
