/* SPDX-License-Identifier: Apache-2.0 */
/* Products that adapters add to rows of a matrix, on the CPU: the arithmetic of FkAdapted, for the loader too. Sums run
 * over the rank in its order, one rounding for each product and sum, so that bytes follow from the operands and from
 * nothing else. */
#include "cpu.h"
#include "number.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")
#endif

#define ROWS 4    /* of a product at a time */
#define PANEL 128 /* columns: what is right of them stays in the first-level cache up to rank 64 */

typedef struct {
  float *values; /* [n, stride] */
  const float *left, *right;
  int64_t stride, ld, rank, q;
  float scale;
} Product;

/* Columns from..end of row i, as the vectors have them. */
static void add_columns(const Product *p, int64_t i, int64_t from, int64_t end) {
  for (int64_t j = from; j < end; j++) {
    float sum = 0;
    for (int64_t k = 0; k < p->rank; k++) sum += p->left[i * p->ld + k] * p->right[k * p->q + j];
    p->values[i * p->stride + j] += p->scale * sum;
  }
}

/* Rows first..last, a whole number of groups: sums stay in registers, and what is right of them, a panel of columns, in
 * the first-level cache for all rows. A version for each width of vectors,
 * because those of the compiler are made before it clones functions. */
#define ADD_PRODUCT(name, attributes, wide, rows)                                                                      \
  attributes static void name(const Product *p, int64_t first, int64_t last) {                                         \
    typedef float Vector __attribute__((vector_size(4 * wide), aligned(4), may_alias));                                \
    for (int64_t from = 0; from < p->q; from += PANEL) {                                                               \
      const int64_t end = fk_cpu_min(from + PANEL, p->q);                                                              \
      for (int64_t i = first; i < last; i += rows) {                                                                   \
        float *row = p->values + i * p->stride;                                                                        \
        const float *l = p->left + i * p->ld;                                                                          \
        int64_t j = from;                                                                                              \
        for (; j + 2 * wide <= end; j += 2 * wide) {                                                                   \
          Vector s[rows][2] = {{{0}}};                                                                                 \
          for (int64_t k = 0; k < p->rank; k++) {                                                                      \
            const Vector *a = (const Vector *)(p->right + k * p->q + j);                                               \
            const Vector b = a[0], c = a[1];                                                                           \
            for (int r = 0; r < rows; r++) {                                                                           \
              s[r][0] += l[r * p->ld + k] * b;                                                                         \
              s[r][1] += l[r * p->ld + k] * c;                                                                         \
            }                                                                                                          \
          }                                                                                                            \
          for (int r = 0; r < rows; r++) {                                                                             \
            Vector *to = (Vector *)(row + r * p->stride + j);                                                          \
            to[0] += p->scale * s[r][0];                                                                               \
            to[1] += p->scale * s[r][1];                                                                               \
          }                                                                                                            \
        }                                                                                                              \
        for (int r = 0; r < rows; r++) add_columns(p, i + r, j, end);                                                  \
      }                                                                                                                \
    }                                                                                                                  \
  }

ADD_PRODUCT(add_product_4, , 4, ROWS)
ADD_PRODUCT(add_rest_4, , 4, 1)
#ifdef __x86_64__
ADD_PRODUCT(add_product_8, __attribute__((target("avx2"))), 8, ROWS)
ADD_PRODUCT(add_rest_8, __attribute__((target("avx2"))), 8, 1)
ADD_PRODUCT(add_product_16, __attribute__((target("avx512f"))), 16, ROWS)
ADD_PRODUCT(add_rest_16, __attribute__((target("avx512f"))), 16, 1)
#endif

void fk_cpu_add_product(float *values, int64_t stride, int64_t n, const float *left, int64_t ld, const float *right,
                        int64_t rank, int64_t q, float scale) {
  const Product p = {values, left, right, stride, ld, rank, q, scale};
  void (*add)(const Product *, int64_t, int64_t) = add_product_4,
                                        (*rest)(const Product *, int64_t, int64_t) = add_rest_4;
#ifdef __x86_64__
  const bool widest = __builtin_cpu_supports("avx512f"), wide = __builtin_cpu_supports("avx2");
  add = widest ? add_product_16 : wide ? add_product_8 : add;
  rest = widest ? add_rest_16 : wide ? add_rest_8 : rest;
#endif
  add(&p, 0, n - n % ROWS);
  rest(&p, n - n % ROWS, n);
}

/* n numbers as float32: in place, or in `work`. */
FK_CPU_CLONES static const float *widen(const void *from, FkDtype type, int64_t n, float *restrict work) {
  const uint16_t *half = from;
  if (type == FK_F32) return from;
  for (int64_t i = 0; type == FK_F16 && i < n; i++) work[i] = fk_f16_to_f32(half[i]);
  for (int64_t i = 0; type == FK_BF16 && i < n; i++) work[i] = fk_bf16_to_f32(half[i]);
  return work;
}

size_t fk_cpu_adapt_scratch(const FkCoded *x, int64_t rows) {
  int64_t most = 0;
  for (int t = 0; x->adapted && x->operands != FK_F32 && t < x->adapted->n; t++)
    most = fk_cpu_max(most, x->adapted->term[t].rank * x->adapted->term[t].q);
  return most ? (size_t)(most + rows * fk_adapted_ranks(x->adapted)) : 0;
}

void fk_cpu_adapt(const FkCoded *x, float *values, float *scratch) {
  const FkAdapted *m = x->adapted;
  const int64_t ranks = fk_adapted_ranks(m);
  const float *left = widen(x->left, x->operands, x->rows * ranks, scratch);
  const char *right = x->right;
  for (int t = 0; t < m->n; t++) {
    const int64_t rank = m->term[t].rank, q = m->term[t].q;
    const float *numbers = widen(right, x->operands, rank * q, scratch + x->rows * ranks);
    fk_cpu_add_product(values, x->cols, x->rows, left, ranks, numbers, rank, q, m->term[t].scale);
    left += rank;
    right += (size_t)(rank * q) * fk_dtype_size(x->operands);
  }
}
