/* SPDX-License-Identifier: Apache-2.0 */
/* Moving data on the CPU: copies with dtype conversion, rows by index, latent tokens, token merging. */
#include "cpu.h"
#include "number.h"

#include <math.h>
#include <string.h>

/* One element as a number; codes without their scale. */
static float load_element(const void *from, FkDtype dtype, int64_t i) {
  switch (dtype) {
  case FK_F32: return ((const float *)from)[i];
  case FK_F16: return fk_f16_to_f32(((const uint16_t *)from)[i]);
  case FK_BF16: return fk_bf16_to_f32(((const uint16_t *)from)[i]);
  case FK_I32: return (float)((const int32_t *)from)[i];
  case FK_U8: return (float)((const uint8_t *)from)[i];
  case FK_I8: return (float)((const int8_t *)from)[i];
  case FK_E4M3: return fk_e4m3_to_f32(((const uint8_t *)from)[i]);
  case FK_E8M0: return fk_e8m0_to_f32(((const uint8_t *)from)[i]);
  case FK_E2M1:
  case FK_DTYPES: break;
  }
  assert(!"a type without a conversion");
  return 0;
}

/* A number as one element: floats to nearest even, integers toward zero. */
static void store_element(void *to, FkDtype dtype, int64_t i, float value) {
  switch (dtype) {
  case FK_F32: ((float *)to)[i] = value; break;
  case FK_F16: ((uint16_t *)to)[i] = fk_f32_to_f16(value); break;
  case FK_BF16: ((uint16_t *)to)[i] = fk_f32_to_bf16(value); break;
  case FK_I32: ((int32_t *)to)[i] = (int32_t)value; break;
  case FK_U8: ((uint8_t *)to)[i] = (uint8_t)value; break;
  case FK_I8: ((int8_t *)to)[i] = (int8_t)value; break;
  case FK_E4M3: ((uint8_t *)to)[i] = fk_f32_to_e4m3(value); break;
  default: assert(!"a type without a conversion");
  }
}

/* Through float32, rounding to nearest even; integers truncate. */
void fk_cpu_convert(void *to, FkDtype as, const void *from, FkDtype dtype, int64_t n) {
  if (as == dtype) {
    memmove(to, from, (size_t)n * fk_dtype_size(as));
    return;
  }
  if (as == FK_F32 && dtype == FK_BF16) { /* every weight of a bf16 checkpoint */
    fk_cpu_bf16_to_f32_span(to, from, n);
    return;
  }
  for (int64_t i = 0; i < n; i++) store_element(to, as, i, load_element(from, dtype, i));
}

static void convert_span(void *const *t, int64_t n, const void *argument) {
  const FkDtype *dtypes = argument;
  fk_cpu_convert(t[0], dtypes[0], t[1], dtypes[1], n);
}

void fk_cpu_copy(FkBackend *be, FkTensor y, FkTensor x) {
  fk_cpu_spans(be, 2, (FkTensor[]){y, x}, convert_span, (FkDtype[]){y.dtype, x.dtype});
}

enum { EXPAND_ROWS = 16 };

typedef struct {
  FkTensor y;
  const FkCoded *x;
} FkExpandOp;

/* Some rows. Of float32 without holes in place, else through scratch. */
static void expand_task(const void *data, int64_t task, float *scratch) {
  const FkExpandOp *op = data;
  const int64_t first = task * EXPAND_ROWS, n = fk_cpu_min(EXPAND_ROWS, op->x->rows - first), cols = op->x->cols;
  const FkCoded rows = fk_coded_slice(*op->x, first, n);
  const FkTensor y = fk_tensor_slice_rows(op->y, first, n);
  const bool direct = y.dtype == FK_F32 && y.ld == cols;
  float *numbers = direct ? y.data : scratch;
  fk_coded_expand(&rows, numbers);
  if (rows.adapted) fk_cpu_adapt(&rows, numbers, scratch + EXPAND_ROWS * cols);
  for (int64_t r = 0; !direct && r < n; r++)
    fk_cpu_convert(fk_tensor_at(y, r * y.ld), y.dtype, scratch + r * cols, FK_F32, cols);
}

void fk_cpu_expand(FkBackend *be, FkTensor y, const FkCoded *x) {
  const FkExpandOp op = {fk_tensor_flat(y), x};
  const size_t scratch = (size_t)(EXPAND_ROWS * x->cols) + fk_cpu_adapt_scratch(x, EXPAND_ROWS);
  fk_cpu_run(be, fk_cpu_parts(x->rows, EXPAND_ROWS), scratch, expand_task, &op);
}

void fk_cpu_embed(FkBackend *be, FkTensor y, FkWeight table, FkTensor ids) {
  (void)be;
  size_t row = (size_t)table.in * fk_dtype_size(table.dtype);
  for (int64_t i = 0; i < ids.dim[0]; i++) {
    int32_t id = ((const int32_t *)ids.data)[i];
    assert(id >= 0 && id < table.out);
    fk_cpu_convert(fk_tensor_at(y, i * y.ld), y.dtype, (const char *)table.data + (size_t)id * row, table.dtype,
                   table.in);
  }
}

void fk_cpu_gather_rows(FkBackend *be, FkTensor y, FkTensor x, FkTensor index) {
  (void)be;
  size_t row = (size_t)fk_tensor_cols(y) * fk_dtype_size(y.dtype);
  for (int64_t i = 0; i < index.dim[0]; i++) {
    int32_t from = ((const int32_t *)index.data)[i];
    assert(from >= 0 && from < fk_tensor_rows(x));
    memcpy(fk_tensor_at(y, i * y.ld), fk_tensor_at(x, from * x.ld), row);
  }
}

/* The latent's value behind token (ty, tx), channel c, corner (py, px), and the token's; C = channels of the tokens. */
typedef struct {
  float *token, *latent;
} FkPacked;

static FkPacked packed_at(FkTensor tokens, FkTensor latent, int64_t token, int64_t i) {
  int64_t width = latent.dim[1], tx = token % (width / 2), ty = token / (width / 2);
  int64_t c = i / 4, py = i / 2 % 2, px = i % 2;
  return (FkPacked){fk_cpu_f32(tokens, token) + i, fk_cpu_f32(latent, (2 * ty + py) * width + 2 * tx + px) + c};
}

void fk_cpu_pack(FkBackend *be, FkTensor tokens, FkTensor latent, float scale, float shift) {
  (void)be;
  for (int64_t token = 0; token < fk_tensor_rows(tokens); token++)
    for (int64_t i = 0; i < fk_tensor_cols(tokens); i++) {
      FkPacked at = packed_at(tokens, latent, token, i);
      *at.token = (*at.latent - shift) * scale;
    }
}

void fk_cpu_unpack(FkBackend *be, FkTensor latent, FkTensor tokens, float scale, float shift) {
  (void)be;
  for (int64_t token = 0; token < fk_tensor_rows(tokens); token++)
    for (int64_t i = 0; i < fk_tensor_cols(tokens); i++) {
      FkPacked at = packed_at(tokens, latent, token, i);
      *at.latent = *at.token / scale + shift;
    }
}

typedef struct {
  FkTensor best, score, src, dst;
  const double *sizes; /* |dst_j| */
} FkMatchOp;

/* One source row. Every product is the same fixed sum wherever its row lies, so equal rows tie exactly. */
static void match_task(const void *data, int64_t i, float *scratch) {
  const FkMatchOp *op = data;
  int64_t width = fk_tensor_cols(op->src);
  const float *src = fk_cpu_f32(op->src, i);
  double size = sqrt((double)fk_cpu_dot(src, src, width));
  float top = -INFINITY;
  int32_t best = 0;
  (void)scratch;
  for (int64_t j = 0; j < fk_tensor_rows(op->dst); j++) {
    double both = size * op->sizes[j];
    float score = both > 0 ? (float)((double)fk_cpu_dot(src, fk_cpu_f32(op->dst, j), width) / both) : 0.0f;
    if (score > top) {
      top = score;
      best = (int32_t)j;
    }
  }
  ((int32_t *)op->best.data)[i] = best;
  ((float *)op->score.data)[i] = top;
}

/* A zero row scores 0 with everything. */
void fk_cpu_match(FkBackend *be, FkTensor best, FkTensor score, FkTensor src, FkTensor dst) {
  int64_t count = fk_tensor_rows(dst), width = fk_tensor_cols(dst);
  double *sizes = fk_cpu_partial(be, (size_t)count);
  if (!sizes) return;
  for (int64_t j = 0; j < count; j++)
    sizes[j] = sqrt((double)fk_cpu_dot(fk_cpu_f32(dst, j), fk_cpu_f32(dst, j), width));
  FkMatchOp op = {best, score, src, dst, sizes};
  fk_cpu_run(be, fk_tensor_rows(src), 0, match_task, &op);
}

typedef struct {
  FkTensor y, x, first, index;
} FkMeanOp;

/* One row of the result. */
static void mean_task(const void *data, int64_t i, float *scratch) {
  const FkMeanOp *op = data;
  (void)scratch;
  const int32_t *first = op->first.data, *index = op->index.data;
  int64_t cols = fk_tensor_cols(op->y);
  float *y = fk_cpu_f32(op->y, i);
  if (first[i] == first[i + 1])
    memset(y, 0, (size_t)cols * sizeof *y);
  else
    memcpy(y, fk_cpu_f32(op->x, index[first[i]]), (size_t)cols * sizeof *y);
  for (int32_t k = first[i] + 1; k < first[i + 1]; k++) fk_cpu_add_span(y, y, fk_cpu_f32(op->x, index[k]), cols);
  if (first[i + 1] > first[i] + 1) fk_cpu_scale_span(y, cols, 1.0f / (float)(first[i + 1] - first[i]));
}

/* A row with no source is 0; a row with one source is that source, bit for bit. */
void fk_cpu_mean_rows(FkBackend *be, FkTensor y, FkTensor x, FkTensor first, FkTensor index) {
  FkMeanOp op = {y, x, first, index};
  fk_cpu_run(be, fk_tensor_rows(y), 0, mean_task, &op);
}
