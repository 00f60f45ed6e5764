/* SPDX-License-Identifier: Apache-2.0 */
/* The one place that calls a matrix library: oneDNN's sgemm (FK_BLAS_DNNL) or a CBLAS.
 *
 * Both run single-threaded here: splitting is cpu.h's business, and a library's own split would follow the number of
 * threads. oneDNN 2.6 is 15-40 % faster than OpenBLAS 0.3.21 on the small blocks used here (AVX-512, one core:
 * 96x128x256 161 against 128 GFLOP/s, 192x256x256 178 against 152, 512x32x96 174 against 111). */
#include "cpu.h"

#ifdef FK_BLAS_DNNL

#include <dnnl.h>
#include <omp.h>

void fk_cpu_gemm(bool transposed, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
                 const float *b, int64_t ldb, float beta, float *c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  dnnl_status_t status = dnnl_sgemm('N', transposed ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  assert(status == dnnl_success);
  (void)status;
}

/* OpenMP keeps this number per thread, so nobody else sees it. */
int fk_cpu_gemm_enter(void) {
  int before = omp_get_max_threads();
  omp_set_num_threads(1);
  return before;
}

void fk_cpu_gemm_leave(int before) {
  omp_set_num_threads(before);
}

#else

#include <cblas.h>

void fk_cpu_gemm(bool transposed, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
                 const float *b, int64_t ldb, float beta, float *c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  cblas_sgemm(CblasRowMajor, CblasNoTrans, transposed ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, alpha, a,
              (int)lda, b, (int)ldb, beta, c, (int)ldc);
}

/* OpenBLAS knows only one number for the whole process; another caller in it may raise it between two ops. */
int fk_cpu_gemm_enter(void) {
#ifdef OPENBLAS_VERSION
  int before = openblas_get_num_threads();
  if (before != 1) openblas_set_num_threads(1);
#endif
  return 1;
}

void fk_cpu_gemm_leave(int before) {
  (void)before;
}

#endif
