/* SPDX-License-Identifier: Apache-2.0 */
/* The one place that calls a matrix library: a CBLAS, OpenBLAS on Debian.
 *
 * A product runs on the thread that asks for it: splitting is cpu.h's business, and the library's own split would
 * follow its number of threads, and so would the bytes. OpenBLAS knows one number for the whole process. It is 1 while
 * one of our products runs and what it was before when none does, so an application's own products between two edits
 * have the threads that it chose; those during an edit may run on one.
 *
 * oneDNN 2.6 was a sixth faster on the small blocks used here and is not used: with it, a signal handled during a
 * product corrupted the heap. */
#include "cpu.h"

#include <cblas.h>
#include <pthread.h>

#ifdef OPENBLAS_VERSION
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int running; /* products of all backends */
static int before;  /* the number to go back to */

/* A number other than 1 beside running products is the application's newest choice. */
static void enter(void) {
  pthread_mutex_lock(&lock);
  const int now = openblas_get_num_threads();
  if (running++ == 0 || now != 1) before = now;
  if (now != 1) openblas_set_num_threads(1);
  pthread_mutex_unlock(&lock);
}

static void leave(void) {
  pthread_mutex_lock(&lock);
  if (--running == 0 && before != 1 && openblas_get_num_threads() == 1) openblas_set_num_threads(before);
  pthread_mutex_unlock(&lock);
}
#else
static void enter(void) {}
static void leave(void) {}
#endif

void fk_cpu_gemm(bool transposed, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
                 const float *b, int64_t ldb, float beta, float *c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  enter();
  cblas_sgemm(CblasRowMajor, CblasNoTrans, transposed ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, alpha, a,
              (int)lda, b, (int)ldb, beta, c, (int)ldc);
  leave();
}

void fk_cpu_gemm_double(bool transposed, int64_t m, int64_t n, int64_t k, const double *a, int64_t lda, const double *b,
                        int64_t ldb, double beta, double *c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  enter();
  cblas_dgemm(CblasRowMajor, CblasNoTrans, transposed ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, 1.0, a,
              (int)lda, b, (int)ldb, beta, c, (int)ldc);
  leave();
}
