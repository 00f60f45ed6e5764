/* SPDX-License-Identifier: Apache-2.0 */
/* Quantisation of rows to E4M3 codes and float32 scales as FkOps.quantize has it (core/ops/backend.h), by the kernels
 * that read every value once. */
#ifndef FK_CUDA_QUANT_H
#define FK_CUDA_QUANT_H

#include "given.cuh"

/* Rows of bf16 and where their codes go. Pointers 16-byte aligned; cols and ldx multiples of 8, ld_codes of 16. */
typedef struct {
  const __nv_bfloat16 *x;
  int64_t ldx;
  uint8_t *codes;
  int64_t ld_codes;
  float *scale; /* [rows] */
  int64_t rows;
} FkQuantRows;

/* Layer norm with modulation, y = norm(x) * (mul + one) + add, quantised from the float32 y by rows. mul, add: [cols]
 * or NULL. y has the bits that layer norm has for many rows before it rounds to bf16, for any number of rows. plain:
 * [rows, cols] float32 or NULL: y as well. */
typedef struct {
  FkQuantRows rows;
  const float *mul, *add;
  float one;
  float *plain;
} FkQuantNorm;

/* Both asynchronous; cudaErrorNotSupported, with nothing enqueued, where a size or an alignment is none of these.
 * given: a scale for each group; NULL: one a row, measured. */
cudaError_t fk_cuda_quant_norm(cudaStream_t stream, int sms, int groups, const FkQuantNorm *n, int cols, float eps,
                               const FkGiven *given = NULL);
/* A scale a row: activations and weights. cols <= 24576. */
cudaError_t fk_cuda_quant_rows(cudaStream_t stream, const FkQuantRows *q, int cols);

#endif
