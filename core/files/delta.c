/* SPDX-License-Identifier: Apache-2.0 */
/* The arithmetic of adapters; see delta.h. Sums run over the rank in its order, one rounding for each product and sum,
 * so that bytes follow from the files and from nothing else. */
#include "delta.h"

#include "cpu.h" /* FK_CPU_CLONES */
#include "fk-error.h"
#include "number.h"

#include <string.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")
#endif

#define BLOCK 1024    /* columns at a time: a row of sums stays in the first-level cache */
#define NUMBERS 16384 /* of a file at a time */

/* ---- Numbers of files ---- */

FK_CPU_CLONES static void widen(float *to, const void *from, FkDtype type, int64_t n) {
  const uint16_t *half = from;
  const uint8_t *code = from;
  for (int64_t i = 0; type == FK_F16 && i < n; i++) to[i] = fk_f16_to_f32(half[i]);
  for (int64_t i = 0; type == FK_BF16 && i < n; i++) to[i] = fk_bf16_to_f32(half[i]);
  for (int64_t i = 0; type == FK_E4M3 && i < n; i++) to[i] = fk_e4m3_to_f32(code[i]);
}

bool fk_delta_numbers(const FkSafetensors *file, const FkStTensor *tensor, int64_t first, int64_t n, float *to,
                      GError **error) {
  FkDtype type = FK_F32;
  const bool usable = fk_st_type_usable(tensor, &type);
  const size_t size = fk_dtype_size(type);
  assert(usable);
  (void)usable;
  if (type == FK_F32) return fk_safetensors_read(file, tensor, (uint64_t)first * size, to, (size_t)n * size, error);
  uint16_t raw[NUMBERS];
  for (int64_t at = 0; at < n; at += NUMBERS) {
    const int64_t count = MIN(NUMBERS, n - at);
    if (!fk_safetensors_read(file, tensor, (uint64_t)(first + at) * size, raw, (size_t)count * size, error))
      return false;
    widen(to + at, raw, type, count);
  }
  return true;
}

/* ---- Runs ---- */

/* One delta's numbers for the run's rows. */
typedef struct {
  const FkDelta *delta;
  float *left[2];  /* [n, rank] or [n, q]: of each row */
  float *right[2]; /* [rank, q]; NULL: none */
  int64_t rank[2], q[2];
  float *magnitude; /* [n] or [cols] */
} Loaded;

struct FkDeltaRun {
  Loaded *loaded;
  guint count;
  int64_t cols;
  float *base, *sum, *other; /* [cols], [cols], [cols + 1]; base: where a delta needs what the checkpoint has */
  int64_t first, n;
};

static float *numbers(int64_t n, GError **error) {
  float *p = g_try_new(float, (gsize)MAX(n, 1));
  if (!p)
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY,
                "an adapter: an allocation of %" G_GINT64_FORMAT " numbers was refused", n);
  return p;
}

static int64_t module_row(const FkDelta *d, int64_t row) {
  return d->first + (d->swap ? (row + d->rows / 2) % d->rows : row);
}

/* The rows of `tensor` that the run's rows stand for: row i of the module is row (i / over) % of. (transfer full) */
static float *load_left(const FkDeltaRun *run, const FkDelta *d, const FkStTensor *tensor, int64_t over, int64_t of,
                        GError **error) {
  const int64_t width = tensor->rank > 1 ? tensor->dim[1] : 1;
  g_autofree float *to = numbers(run->n * width, error);
  if (!to) return NULL;
  for (int64_t i = 0; i < run->n;) {
    const int64_t row = module_row(d, run->first + i) / over % of;
    int64_t n = 1; /* rows that follow each other in the file are read at once */
    while (i + n < run->n && module_row(d, run->first + i + n) / over % of == row + n) n++;
    if (!fk_delta_numbers(d->file, tensor, row * width, n * width, to + i * width, error)) return NULL;
    i += n;
  }
  return g_steal_pointer(&to);
}

/* Pair k of the delta's parts: its left one by rows, its right one whole. */
static bool load_pair(const FkDeltaRun *run, Loaded *l, int k, int64_t over, int64_t of, GError **error) {
  const FkStTensor *left = l->delta->part[2 * k], *right = l->delta->part[2 * k + 1];
  l->rank[k] = left->rank > 1 ? left->dim[1] : 1;
  l->left[k] = load_left(run, l->delta, left, over, of, error);
  if (!l->left[k]) return false;
  l->q[k] = right ? right->dim[1] : l->rank[k];
  if (!right) return true;
  l->right[k] = numbers(l->rank[k] * l->q[k], error);
  return l->right[k] && fk_delta_numbers(l->delta->file, right, 0, l->rank[k] * l->q[k], l->right[k], error);
}

static bool load_delta(const FkDeltaRun *run, Loaded *l, GError **error) {
  const FkDelta *d = l->delta;
  const int64_t low = d->kind == FK_DELTA_KRONECKER ? d->part[2]->dim[0] : 1; /* rows of W2 */
  if (!load_pair(run, l, 0, low, d->rows, error)) return false;
  if (d->part[2] && !load_pair(run, l, 1, 1, d->kind == FK_DELTA_KRONECKER ? low : d->rows, error)) return false;
  if (!d->magnitude) return true;
  if (!d->norm) return (l->magnitude = load_left(run, d, d->magnitude, 1, d->rows, error)) != NULL;
  l->magnitude = numbers(d->cols, error);
  return l->magnitude && fk_delta_numbers(d->file, d->magnitude, 0, d->cols, l->magnitude, error);
}

FkDeltaRun *fk_delta_begin(const FkDeltas *deltas, int64_t first, int64_t n, GError **error) {
  g_autoptr(FkDeltaRun) run = g_new0(FkDeltaRun, 1);
  *run = (FkDeltaRun){.loaded = g_new0(Loaded, deltas->len), .count = deltas->len, .first = first, .n = n};
  run->cols = g_array_index(deltas, FkDelta, 0).cols;
  bool keeps = false;
  for (guint i = 0; i < deltas->len; i++) {
    run->loaded[i].delta = &g_array_index(deltas, FkDelta, i);
    keeps |= run->loaded[i].delta->magnitude != NULL;
    if (!load_delta(run, &run->loaded[i], error)) return NULL;
  }
  run->sum = numbers(2 * run->cols + 1, error);
  run->base = keeps ? numbers(run->cols, error) : NULL;
  if (!run->sum || (keeps && !run->base)) return NULL;
  run->other = run->sum + run->cols;
  return g_steal_pointer(&run);
}

void fk_delta_end(FkDeltaRun *run) {
  if (!run) return;
  for (guint i = 0; i < run->count; i++) {
    for (int k = 0; k < 2; k++) g_free(run->loaded[i].left[k]), g_free(run->loaded[i].right[k]);
    g_free(run->loaded[i].magnitude);
  }
  g_free(run->loaded);
  g_free(run->base);
  g_free(run->sum);
  g_free(run);
}

/* ---- For a backend that adds ---- */

bool fk_delta_terms(const FkDeltas *deltas, FkAdapted *m) {
  *m = (FkAdapted){.cols = g_array_index(deltas, FkDelta, 0).cols, .n = (int)deltas->len};
  if (deltas->len > FK_ADAPTED_TERMS) return false;
  for (guint i = 0; i < deltas->len; i++) {
    const FkDelta *d = &g_array_index(deltas, FkDelta, i);
    if (d->kind != FK_DELTA_PRODUCT || d->magnitude) return false;
    m->term[i].rank = d->part[1]->dim[0];
    m->term[i].q = d->part[1]->dim[1];
    m->term[i].scale = (float)(d->weight * d->scale);
  }
  return true;
}

size_t fk_delta_operand_numbers(const FkAdapted *m) {
  return fk_adapted_right(m) / sizeof(float) + (size_t)(m->rows * fk_adapted_ranks(m));
}

bool fk_delta_operands(const FkDeltas *deltas, const FkAdapted *m, int64_t first, float *to, GError **error) {
  g_autoptr(FkDeltaRun) run = fk_delta_begin(deltas, first, m->rows, error);
  if (!run) return false;
  for (guint k = 0; k < run->count; k++) {
    const Loaded *l = &run->loaded[k];
    assert(l->right[0]); /* of a product */
    memcpy(to, l->right[0], (size_t)(l->rank[0] * l->q[0]) * sizeof *to);
    to += l->rank[0] * l->q[0];
  }
  for (int64_t i = 0; i < m->rows; i++)
    for (guint k = 0; k < run->count; k++) {
      const Loaded *l = &run->loaded[k];
      memcpy(to, l->left[0] + i * l->rank[0], (size_t)l->rank[0] * sizeof *to);
      to += l->rank[0];
    }
  return true;
}

FkDtype fk_delta_type(const FkDeltas *deltas) {
  FkDtype type = FK_F32, other;
  for (guint i = 0; i < deltas->len; i++)
    for (int k = 0; k < 2; k++) {
      fk_st_type_usable(g_array_index(deltas, FkDelta, i).part[k], &other);
      if (i + (guint)k > 0 && other != type) return FK_F32;
      type = other;
    }
  return type == FK_BF16 || type == FK_F16 ? type : FK_F32;
}

/* A tensor's bytes as they are. (transfer full) */
static char *read_bytes(const FkSafetensors *file, const FkStTensor *tensor, size_t bytes, GError **error) {
  g_autofree char *to = g_try_malloc(MAX(bytes, 1));
  if (!to) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "an adapter: an allocation of %zu bytes was refused", bytes);
    return NULL;
  }
  return fk_safetensors_read(file, tensor, 0, to, bytes, error) ? g_steal_pointer(&to) : NULL;
}

bool fk_delta_operands_as(const FkDeltas *deltas, const FkAdapted *m, FkDtype type, void *to, GError **error) {
  const size_t size = fk_dtype_size(type), row = (size_t)fk_adapted_ranks(m) * size;
  char *right = to, *left = right + fk_adapted_right(m) / sizeof(float) * size;
  if (type == FK_F32) return fk_delta_operands(deltas, m, 0, to, error);
  for (guint k = 0; k < deltas->len; k++) {
    const FkDelta *d = &g_array_index(deltas, FkDelta, k);
    const size_t n = (size_t)m->term[k].rank * size, bytes = n * (size_t)m->term[k].q;
    if (!fk_safetensors_read(d->file, d->part[1], 0, right, bytes, error)) return false;
    g_autofree char *rows = read_bytes(d->file, d->part[0], (size_t)d->part[0]->dim[0] * n, error);
    if (!rows) return false;
    for (int64_t i = 0; i < m->rows; i++) memcpy(left + (size_t)i * row, rows + (size_t)module_row(d, i) * n, n);
    right += bytes;
    left += n;
  }
  return true;
}

/* ---- Rows ---- */

/* sum[j] = left[0] right[0, j] + left[1] right[1, j] + ...; right [rank, q] */
FK_CPU_CLONES static void product(float *restrict sum, const float *restrict left, const float *restrict right,
                                  int64_t rank, int64_t q) {
  memset(sum, 0, (size_t)q * sizeof *sum);
  for (int64_t from = 0; from < q; from += BLOCK) {
    const int64_t n = MIN(BLOCK, q - from);
    float *restrict s = sum + from;
    int64_t k = 0;
    for (; k + 4 <= rank; k += 4) {
      const float *restrict a = right + k * q + from, *restrict b = a + q, *restrict c = b + q, *restrict d = c + q;
      const float u = left[k], v = left[k + 1], w = left[k + 2], x = left[k + 3];
      for (int64_t j = 0; j < n; j++) s[j] = s[j] + u * a[j] + v * b[j] + w * c[j] + x * d[j];
    }
    for (; k < rank; k++) {
      const float *restrict a = right + k * q + from;
      const float u = left[k];
      for (int64_t j = 0; j < n; j++) s[j] += u * a[j];
    }
  }
}

FK_CPU_CLONES static void add_scaled(float *restrict values, const float *restrict sum, float scale, int64_t n) {
  for (int64_t j = 0; j < n; j++) values[j] += scale * sum[j];
}

/* Row i of pair k, [q]: the product, or the left part itself. */
static const float *pair_row(const Loaded *l, int k, int64_t i, float *to) {
  const float *left = l->left[k] + i * l->rank[k];
  if (!l->right[k]) return left;
  product(to, left, l->right[k], l->rank[k], l->q[k]);
  return to;
}

/* Row i of D in run->sum; *cols: how many of its columns are not 0. */
static const float *delta_row(const FkDeltaRun *run, const Loaded *l, int64_t i, int64_t *cols) {
  float *sum = run->sum, *other = run->other;
  *cols = l->delta->cols;
  switch (l->delta->kind) {
  case FK_DELTA_PRODUCT:
  case FK_DELTA_FULL: *cols = l->q[0]; return pair_row(l, 0, i, sum);
  case FK_DELTA_HADAMARD: {
    const float *a = pair_row(l, 0, i, sum), *b = pair_row(l, 1, i, other);
    for (int64_t j = 0; j < *cols; j++) sum[j] = a[j] * b[j];
    return sum;
  }
  case FK_DELTA_KRONECKER: break;
  }
  /* The rows of W1 and W2 stand in `other`: q1 q2 = cols, so q1 + q2 <= cols + 1. */
  const float *a = pair_row(l, 0, i, other), *b = pair_row(l, 1, i, other + l->q[0]);
  for (int64_t j = 0; j < l->q[0]; j++)
    for (int64_t k = 0; k < l->q[1]; k++) sum[j * l->q[1] + k] = a[j] * b[k];
  return sum;
}

/* values += weight * (m V / |V| - W): a row's norm is of the row, a column's is given. */
static void add_decomposed(const FkDeltaRun *run, const Loaded *l, int64_t i, const float *sum, int64_t cols,
                           float *values) {
  const FkDelta *d = l->delta;
  const float scale = (float)d->scale, weight = (float)d->weight;
  double squares = 0;
  float *v = run->other;
  for (int64_t j = 0; j < d->cols; j++) {
    v[j] = run->base[j] + (j < cols ? scale * sum[j] : 0.0f);
    squares += (double)v[j] * v[j];
  }
  const float row = (float)sqrt(squares);
  for (int64_t j = 0; j < d->cols; j++) {
    const float norm = d->norm ? d->norm[j] : row, m = l->magnitude[d->norm ? j : i];
    values[j] += weight * ((norm > 0 ? m * v[j] / norm : 0.0f) - run->base[j]);
  }
}

/* One delta's change of row i, which is at `values`. */
static void add_row(const FkDeltaRun *run, const Loaded *l, int64_t i, float *values) {
  int64_t cols;
  const float *sum = delta_row(run, l, i, &cols);
  if (l->magnitude)
    add_decomposed(run, l, i, sum, cols, values);
  else
    add_scaled(values, sum, (float)(l->delta->weight * l->delta->scale), cols);
}

/* n rows from row i on, where no delta needs what the checkpoint has. */
static void add_rows(const FkDeltaRun *run, int64_t i, int64_t n, float *values) {
  for (guint k = 0; k < run->count; k++) {
    const Loaded *l = &run->loaded[k];
    const float scale = (float)(l->delta->weight * l->delta->scale);
    if (l->delta->kind == FK_DELTA_PRODUCT) {
      fk_cpu_add_product(values, run->cols, n, l->left[0] + i * l->rank[0], l->rank[0], l->right[0], l->rank[0],
                         l->q[0], scale);
      continue;
    }
    for (int64_t r = 0; r < n; r++) add_row(run, l, i + r, values + r * run->cols);
  }
}

void fk_delta_rows(const FkDeltaRun *run, int64_t at, int64_t n, float *values) {
  if (!run->base) {
    add_rows(run, at, n, values);
    return;
  }
  for (int64_t i = at; i < at + n; i++, values += run->cols) {
    memcpy(run->base, values, (size_t)run->cols * sizeof *values);
    for (guint k = 0; k < run->count; k++) add_row(run, &run->loaded[k], i, values);
  }
}
