/* SPDX-License-Identifier: Apache-2.0 */
/* The one place that calls a matrix library: a CBLAS, OpenBLAS on Debian.
 *
 * It runs single-threaded here: splitting is cpu.h's business, and a library's own split would follow the number of
 * threads. oneDNN 2.6 was a sixth faster on the small blocks used here and is not used: with it, a signal handled
 * during a product corrupted the heap. */
#include "cpu.h"

#include <cblas.h>

void fk_cpu_gemm(bool transposed, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
                 const float *b, int64_t ldb, float beta, float *c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  cblas_sgemm(CblasRowMajor, CblasNoTrans, transposed ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, alpha, a,
              (int)lda, b, (int)ldb, beta, c, (int)ldc);
}

void fk_cpu_gemm_double(bool transposed, int64_t m, int64_t n, int64_t k, const double *a, int64_t lda, const double *b,
                        int64_t ldb, double beta, double *c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  cblas_dgemm(CblasRowMajor, CblasNoTrans, transposed ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, 1.0, a,
              (int)lda, b, (int)ldb, beta, c, (int)ldc);
}

/* OpenBLAS knows only one number for the whole process; another caller in it may raise it between two ops. */
void fk_cpu_gemm_enter(void) {
#ifdef OPENBLAS_VERSION
  if (openblas_get_num_threads() != 1) openblas_set_num_threads(1);
#endif
}
