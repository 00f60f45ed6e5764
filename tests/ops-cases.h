/* SPDX-License-Identifier: Apache-2.0 */
/* A case of an op test: builds its inputs from fixed random numbers, runs one op on the given backend, and hands in the
 * result beside a naive reference in double precision. The driver (test-ops.c) runs a case with 1, 2 and 3 threads and
 * with the fused slots on and off.
 *
 * Every tensor lies in a wider buffer whose remaining numbers are NaN: an op that reads past its view spoils its
 * result, one that writes past it is found by case_check_padding. */
#ifndef OPS_CASES_H
#define OPS_CASES_H

#include "ops.h"

#include <glib.h>

/* What a case measures instead where `--bench` asks: its sizes, and how often it runs its op. */
typedef struct {
  gint64 m, n, k; /* rows, columns, inner size; rows, keys, heads of 128; height, width, channels */
} CaseSize;

typedef struct {
  FkBackend *be;
  const CaseSize *large; /* NULL: the case's own sizes, once, and compared with the reference */
  guint64 random;
  GPtrArray *buffers; /* CaseBuffer, freed with the case */
  GArray *result;     /* float: what the op wrote */
  GArray *reference;  /* double: what it should have written */
} Case;

typedef struct {
  const char *name;
  void (*run)(Case *c);
  double tolerance; /* relative L2; 0: to the bit */
  gboolean fused;   /* has a composition to compare with */
  CaseSize large;   /* none: not timed */
} CaseRow;

typedef struct {
  guint8 *all; /* [rows, ld] of `size` bytes */
  gsize size;
  gint64 rows, ld, first, cols;
} CaseBuffer;

/* Around the op that a case is about. */
#define CASE_TIMES(c) for (int time_ = 0; time_ < ((c)->large ? 3 : 1); time_++)

void case_init(Case *c, FkBackend *be);
void case_clear(Case *c);
void case_check_padding(Case *c);

/* Uniform in -1..1. */
double case_random(Case *c);

/* Random tensors with `pad` NaNs on either side of each row. */
FkTensor case_2d(Case *c, gint64 rows, gint64 cols, gint64 pad);
FkTensor case_3d(Case *c, gint64 height, gint64 width, gint64 channels, gint64 pad);
FkTensor case_1d(Case *c, gint64 n);
FkTensor case_index(Case *c, gint64 n, const gint32 *values);
FkWeight case_weight(Case *c, gint64 out, gint64 in);
/* Random codes, all but NaN; scales 2^-4..2^4 as a vector (cols 0) or a matrix. */
FkTensor case_codes(Case *c, FkDtype dtype, gint64 rows, gint64 cols, gint64 pad);
FkTensor case_scales(Case *c, gint64 rows, gint64 cols);

/* Element of a flattened view. */
static inline double at(FkTensor t, gint64 row, gint64 col) {
  return (double)((const float *)t.data)[row * t.ld + col];
}

/* Copy of a view's numbers as double, row after row; freed by the caller. */
double *case_read(FkTensor t);

/* Hands in y and what it should be: rows * cols numbers, freed here. y of codes: the codes' bit patterns. */
void case_expect(Case *c, FkTensor y, double *reference);

/* Naive definitions, double precision; results are allocated. */
double *naive_linear(FkTensor x, FkWeight w, FkTensor bias);
double naive_act(double x, FkAct act);
double *naive_attention(const FkAttention *a);
double *naive_conv(const FkConv *conv);
double *naive_group_norm(const FkGroupNorm *n);
void naive_rms(double *x, gint64 n, FkTensor weight, double eps);
void naive_rope(double *x, gint64 n, FkTensor table, gint64 row);

extern const CaseRow ops_cases[], ops_quant_cases[];
extern const guint ops_case_count, ops_quant_case_count;

#endif
