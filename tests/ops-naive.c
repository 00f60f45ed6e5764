/* SPDX-License-Identifier: Apache-2.0 */
/* Helpers of the op tests (ops-cases.h): tensors in poisoned buffers, and the definitions of backend.h as plain loops
 * in double precision, written without a look at the backends. */
#include "ops-cases.h"

#include <math.h>
#include <string.h>

#define POISON 0x7f /* in every byte: a NaN as float32 and as E4M3 */

void case_init(Case *c, FkBackend *be) {
  *c = (Case){.be = be, .random = 12345, .buffers = g_ptr_array_new()};
  c->result = g_array_new(FALSE, FALSE, sizeof(float));
  c->reference = g_array_new(FALSE, FALSE, sizeof(double));
}

void case_clear(Case *c) {
  for (guint i = 0; i < c->buffers->len; i++) {
    CaseBuffer *b = c->buffers->pdata[i];
    g_free(b->all);
    g_free(b);
  }
  g_ptr_array_unref(c->buffers);
  g_array_unref(c->result);
  g_array_unref(c->reference);
}

void case_check_padding(Case *c) {
  for (guint i = 0; i < c->buffers->len; i++) {
    const CaseBuffer *b = c->buffers->pdata[i];
    for (gint64 r = 0; r < b->rows; r++)
      for (gint64 k = 0; k < b->ld; k++)
        for (gsize j = 0; j < b->size && (k < b->first || k >= b->first + b->cols); j++)
          g_assert_cmphex(b->all[(gsize)(r * b->ld + k) * b->size + j], ==, POISON);
  }
}

double case_random(Case *c) {
  c->random = c->random * 6364136223846793005u + 1442695040888963407u;
  return (double)(c->random >> 11) / (double)(1ull << 52) - 1.0;
}

static FkTensor case_buffer(Case *c, FkDtype dtype, gint64 rows, gint64 cols, gint64 pad) {
  CaseBuffer *b = g_new0(CaseBuffer, 1);
  const gsize size = fk_dtype_size(dtype), bytes = (gsize)(rows * (cols + 2 * pad)) * size;
  *b = (CaseBuffer){g_malloc(bytes), size, rows, cols + 2 * pad, pad, cols};
  memset(b->all, POISON, bytes);
  g_ptr_array_add(c->buffers, b);
  FkTensor t = fk_tensor_2d(b->all + (gsize)pad * size, dtype, rows, cols);
  t.ld = b->ld;
  return t;
}

FkTensor case_2d(Case *c, gint64 rows, gint64 cols, gint64 pad) {
  const FkTensor t = case_buffer(c, FK_F32, rows, cols, pad);
  for (gint64 r = 0; r < rows; r++)
    for (gint64 k = 0; k < cols; k++) ((float *)t.data)[r * t.ld + k] = (float)case_random(c);
  return t;
}

FkTensor case_codes(Case *c, FkDtype dtype, gint64 rows, gint64 cols, gint64 pad) {
  const FkTensor t = case_buffer(c, dtype, rows, cols, pad);
  for (gint64 r = 0; r < rows; r++)
    for (gint64 k = 0; k < cols; k++) {
      const guint8 code = (guint8)(c->random >> 40);
      ((guint8 *)t.data)[r * t.ld + k] = (dtype == FK_I8 ? code == 0x80 : (code & 0x7f) == 0x7f) ? 1 : code;
      case_random(c);
    }
  return t;
}

FkTensor case_scales(Case *c, gint64 rows, gint64 cols) {
  const FkTensor t = cols ? case_2d(c, rows, cols, 2) : case_1d(c, rows);
  for (gint64 r = 0; r < fk_tensor_rows(t); r++)
    for (gint64 k = 0; k < fk_tensor_cols(t); k++) {
      float *scale = (float *)t.data + r * t.ld + k;
      *scale = (float)exp2(4 * (double)*scale);
    }
  return t;
}

FkTensor case_3d(Case *c, gint64 height, gint64 width, gint64 channels, gint64 pad) {
  FkTensor flat = case_2d(c, height * width, channels, pad);
  FkTensor t = fk_tensor_3d(flat.data, FK_F32, height, width, channels);
  t.ld = flat.ld;
  return t;
}

FkTensor case_1d(Case *c, gint64 n) {
  return fk_tensor_row(case_2d(c, 1, n, 3), 0);
}

FkTensor case_index(Case *c, gint64 n, const gint32 *values) {
  FkTensor t = case_1d(c, n);
  memcpy(t.data, values, (gsize)n * sizeof *values);
  t.dtype = FK_I32;
  return t;
}

FkWeight case_weight(Case *c, gint64 out, gint64 in) {
  return (FkWeight){.data = case_2d(c, out, in, 0).data, .dtype = FK_F32, .out = out, .in = in};
}

double *case_read(FkTensor t) {
  gint64 rows = fk_tensor_rows(t), cols = fk_tensor_cols(t);
  double *copy = g_new(double, rows *cols);
  for (gint64 r = 0; r < rows; r++)
    for (gint64 k = 0; k < cols; k++) copy[r * cols + k] = at(t, r, k);
  return copy;
}

void case_expect(Case *c, FkTensor y, double *reference) {
  if (c->large) {
    g_free(reference);
    return;
  }
  gint64 rows = fk_tensor_rows(y), cols = fk_tensor_cols(y);
  for (gint64 r = 0; r < rows; r++)
    for (gint64 k = 0; k < cols; k++) {
      const float number = y.dtype == FK_F32 ? (float)at(y, r, k) : (float)((guint8 *)y.data)[r * y.ld + k];
      g_array_append_val(c->result, number);
    }
  g_array_append_vals(c->reference, reference, (guint)(rows * cols));
  g_free(reference);
}

double *naive_linear(FkTensor x, FkWeight w, FkTensor bias) {
  double *y = g_new(double, fk_tensor_rows(x) * w.out);
  for (gint64 r = 0; r < fk_tensor_rows(x); r++)
    for (gint64 n = 0; n < w.out; n++) {
      double sum = fk_tensor_given(bias) ? at(bias, 0, n) : 0;
      for (gint64 k = 0; k < w.in; k++) sum += at(x, r, k) * (double)((const float *)w.data)[n * w.in + k];
      y[r * w.out + n] = sum;
    }
  return y;
}

double naive_act(double x, FkAct act) {
  switch (act) {
  case FK_ACT_NONE: return x;
  case FK_ACT_SILU: return x / (1 + exp(-x));
  case FK_ACT_QUICK_GELU: return x / (1 + exp(-1.702 * x));
  case FK_ACT_GELU_TANH: return 0.5 * x * (1 + tanh(sqrt(2 / G_PI) * (x + 0.044715 * x * x * x)));
  }
  return NAN;
}

double *naive_attention(const FkAttention *a) {
  gint64 rows = fk_tensor_rows(a->q), keys = fk_tensor_rows(a->k), cols = fk_tensor_cols(a->q), e = cols / a->heads;
  double *o = g_new0(double, rows *cols), *p = g_new(double, keys);
  for (gint64 h = 0; h < a->heads; h++)
    for (gint64 i = 0; i < rows; i++) {
      double top = -INFINITY, sum = 0;
      gint64 seen = a->causal ? MIN(i + 1, keys) : keys;
      for (gint64 j = 0; j < seen; j++) {
        p[j] = 0;
        for (gint64 d = h * e; d < (h + 1) * e; d++) p[j] += at(a->q, i, d) * at(a->k, j, d);
        p[j] *= (double)a->scale;
        if (fk_tensor_given(a->bias)) p[j] += at(a->bias, h, j - i + rows - 1);
        top = MAX(top, p[j]);
      }
      for (gint64 j = 0; j < seen; j++) sum += p[j] = exp(p[j] - top);
      for (gint64 j = 0; j < seen; j++)
        for (gint64 d = h * e; d < (h + 1) * e; d++) o[i * cols + d] += p[j] / sum * at(a->v, j, d);
    }
  g_free(p);
  return o;
}

/* One output number. */
static double naive_conv_at(const FkConv *conv, gint64 y, gint64 x, gint64 n) {
  gint64 up = conv->upsample ? 2 : 1, channels = conv->x.dim[2], k = conv->kernel;
  double sum = fk_tensor_given(conv->bias) ? at(conv->bias, 0, n) : 0;
  for (gint64 i = 0; i < k; i++)
    for (gint64 j = 0; j < k; j++) {
      gint64 iy = y * conv->stride + i - conv->pad_before, ix = x * conv->stride + j - conv->pad_before;
      if (iy < 0 || iy >= conv->x.dim[0] * up || ix < 0 || ix >= conv->x.dim[1] * up) continue;
      const float *w = (const float *)conv->w.data + (n * k * k + i * k + j) * channels;
      for (gint64 c = 0; c < channels; c++) sum += at(conv->x, iy / up * conv->x.dim[1] + ix / up, c) * (double)w[c];
    }
  if (fk_tensor_given(conv->residual)) sum += at(conv->residual, y * conv->y.dim[1] + x, n);
  return sum;
}

double *naive_conv(const FkConv *conv) {
  gint64 height = conv->y.dim[0], width = conv->y.dim[1], out = conv->y.dim[2];
  double *y = g_new(double, height *width *out);
  for (gint64 i = 0; i < height; i++)
    for (gint64 j = 0; j < width; j++)
      for (gint64 n = 0; n < out; n++) y[(i * width + j) * out + n] = naive_conv_at(conv, i, j, n);
  return y;
}

double *naive_group_norm(const FkGroupNorm *n) {
  gint64 rows = fk_tensor_rows(n->x), cols = fk_tensor_cols(n->x), width = cols / n->groups;
  double *y = case_read(n->x);
  for (gint64 g = 0; g < n->groups; g++) {
    double mean = 0, variance = 0, count = (double)(rows * width);
    for (gint64 r = 0; r < rows; r++)
      for (gint64 c = g * width; c < (g + 1) * width; c++) mean += y[r * cols + c] / count;
    for (gint64 r = 0; r < rows; r++)
      for (gint64 c = g * width; c < (g + 1) * width; c++) variance += pow(y[r * cols + c] - mean, 2) / count;
    for (gint64 r = 0; r < rows; r++)
      for (gint64 c = g * width; c < (g + 1) * width; c++) {
        double z = (y[r * cols + c] - mean) / sqrt(variance + (double)n->eps) * at(n->weight, 0, c) + at(n->bias, 0, c);
        y[r * cols + c] = n->silu ? naive_act(z, FK_ACT_SILU) : z;
      }
  }
  return y;
}

void naive_rms(double *x, gint64 n, FkTensor weight, double eps) {
  gint64 width = weight.dim[0];
  for (gint64 first = 0; first < n; first += width) {
    double square = 0;
    for (gint64 c = 0; c < width; c++) square += x[first + c] * x[first + c] / (double)width;
    for (gint64 c = 0; c < width; c++) x[first + c] *= at(weight, 0, c) / sqrt(square + eps);
  }
}

void naive_rope(double *x, gint64 n, FkTensor table, gint64 row) {
  gint64 width = fk_tensor_cols(table);
  for (gint64 i = 0; i < n; i += 2) {
    double a = x[i], b = x[i + 1], cosine = at(table, row, i % width), sine = at(table, row, i % width + 1);
    x[i] = a * cosine - b * sine;
    x[i + 1] = a * sine + b * cosine;
  }
}
