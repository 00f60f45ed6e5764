/* SPDX-License-Identifier: Apache-2.0 */
/* What an adapter adds to the rows of a weight, in float32. Where adapters come from is lora.h. */
#ifndef FK_DELTA_H
#define FK_DELTA_H

#include "backend.h"
#include "safetensors.h"

/* By kind, with p x q the module's size, r the rank, [..] a tensor's shape:
 * PRODUCT    part 0 [p, r] times part 1 [r, q]; part 1 may have fewer columns, the others are then 0
 * HADAMARD   (part 0 [p, r] times part 1 [r, q]), element by element times the same of parts 2 and 3
 * KRONECKER  W1 x W2; W1 is part 0 [p1, q1], or part 0 [p1, r] times part 1 [r, q1]; W2 likewise of parts 2 and 3
 * FULL       part 0 [p, q] */
typedef enum { FK_DELTA_PRODUCT, FK_DELTA_HADAMARD, FK_DELTA_KRONECKER, FK_DELTA_FULL } FkDeltaKind;
#define FK_DELTA_PARTS 4

/* One adapter's change of one tensor of the model: rows of the change of a module.
 * Without a magnitude: W + weight * (scale * D). With one, m (weight-decomposed, DoRA): V = W + scale * D,
 * W + weight * (m V / |V| - W), where |V| is a row's norm, or a column's over all rows of the module. */
typedef struct {
  FkDeltaKind kind;
  const FkSafetensors *file; /* (transfer none) */
  const FkStTensor *part[FK_DELTA_PARTS];
  int64_t rows, cols; /* of the module */
  int64_t first;      /* the module's row for row 0 of the tensor */
  bool swap;          /* the tensor has the second half of the module's rows first */
  double weight, scale;
  const FkStTensor *magnitude; /* NULL: none */
  const float *norm;           /* [cols]: of the columns; NULL: of rows. (transfer none) */
} FkDelta;

/* Of several adapters, in their order. */
typedef GArray FkDeltas; /* FkDelta */

/* What a range of rows needs of the adapters' files, in memory. */
typedef struct FkDeltaRun FkDeltaRun;

/* Reads what rows first..first+n of the tensor need; any thread. NULL with FK_ERROR_MODEL_* or FK_ERROR_MEMORY. */
FkDeltaRun *fk_delta_begin(const FkDeltas *deltas, int64_t first, int64_t n, GError **error);
void fk_delta_end(FkDeltaRun *run); /* (nullable) */
/* values [n, cols]: rows at..at+n of the run's as the checkpoint has them, and then with the changes. */
void fk_delta_rows(const FkDeltaRun *run, int64_t at, int64_t n, float *values);

/* The changes as terms that a backend can add (FkOps.expand, and FkOps.commit_adapted as far as a buffer takes them);
 * false where one of them is no product without magnitudes, or where they are more than FK_ADAPTED_TERMS. Rows, and
 * where the numbers come from, are left to the caller. */
bool fk_delta_terms(const FkDeltas *deltas, FkAdapted *adapted);
/* Numbers of both factors of all terms. */
size_t fk_delta_operand_numbers(const FkAdapted *adapted);
/* What such a backend needs of the files for rows first..first+adapted->rows of the tensor, in its order: to
 * [fk_adapted_right(adapted) / 4 + rows * fk_adapted_ranks(adapted)]. Any thread. */
bool fk_delta_operands(const FkDeltas *deltas, const FkAdapted *adapted, int64_t first, float *to, GError **error);

/* The type in which all that the terms need is in the files: float32, bfloat16, float16; float32 where it differs. */
FkDtype fk_delta_type(const FkDeltas *deltas);
/* fk_delta_operands of all rows of the tensor, adapted->rows, in that type. */
bool fk_delta_operands_as(const FkDeltas *deltas, const FkAdapted *adapted, FkDtype type, void *to, GError **error);

/* Numbers of a tensor as float32; any type that fk_st_type_usable takes. */
bool fk_delta_numbers(const FkSafetensors *file, const FkStTensor *tensor, int64_t first, int64_t n, float *to,
                      GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(FkDeltaRun, fk_delta_end)

#endif
