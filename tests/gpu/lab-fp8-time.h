/* SPDX-License-Identifier: Apache-2.0 */
/* Time, power and clock of launches in a row; cuBLASLt as the rival, found at run time. */
#ifndef FK_LAB_FP8_TIME_H
#define FK_LAB_FP8_TIME_H

#include <cublasLt.h>
#include <dlfcn.h>

#include "lab-fp8-reference.h"

/* ---- the rival --------------------------------------------------------------------------------------------------- */

typedef struct {
  void *lib;
  cublasLtHandle_t handle;
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  void *space;
} Lt;

static const size_t kLtSpace = 64u << 20;

static bool lt_open(Lt *lt) {
  static const char *const names[] = {
      "libcublasLt.so.13",
      "/usr/local/cuda/lib64/libcublasLt.so.13",
      "/opt/torch/.venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcublasLt.so.13",
      "/opt/torch/.venv/lib/python3.12/site-packages/nvidia/cublas/lib/libcublasLt.so.13",
      "libcublasLt.so.12",
      "/opt/torch/.venv/lib/python3.12/site-packages/nvidia/cublas/lib/libcublasLt.so.12"};
  for (unsigned i = 0; i < sizeof names / sizeof *names && !lt->lib; i++) lt->lib = dlopen(names[i], RTLD_NOW);
  if (!lt->lib) {
    printf("  cuBLASLt not found, left out: %s\n", dlerror());
    return false;
  }
#define LT_GET(field, name) lt->field = (decltype(lt->field))dlsym(lt->lib, #name)
  LT_GET(create, cublasLtCreate), LT_GET(matmul, cublasLtMatmul), LT_GET(desc_create, cublasLtMatmulDescCreate);
  LT_GET(desc_set, cublasLtMatmulDescSetAttribute), LT_GET(layout_create, cublasLtMatrixLayoutCreate);
  LT_GET(preference_create, cublasLtMatmulPreferenceCreate);
  LT_GET(preference_set, cublasLtMatmulPreferenceSetAttribute), LT_GET(heuristic, cublasLtMatmulAlgoGetHeuristic);
  lt->space = device(kLtSpace);
  return lt->create && lt->matmul && lt->heuristic && lt->create(&lt->handle) == CUBLAS_STATUS_SUCCESS;
}

typedef struct {
  cublasLtMatmulDesc_t desc;
  cublasLtMatrixLayout_t a, b, d;
  cublasLtMatmulHeuristicResult_t found;
} LtPlan;

/* y[m, n] = x[m, k] w[n, k]^T: column-major D [n, m] = A^T B. rows: a scale a row of both, else one scale each. */
static bool lt_plan(const Lt *lt, LtPlan *plan, int m, int n, int k, bool rows, bool fast, const float *sw,
                    const float *sx) {
  const cublasOperation_t trans = CUBLAS_OP_T;
  const int8_t accumulate = fast;
  cublasLtMatmulPreference_t preference;
  int count = 0;
  if (lt->desc_create(&plan->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) != CUBLAS_STATUS_SUCCESS) return false;
  lt->desc_set(plan->desc, CUBLASLT_MATMUL_DESC_TRANSA, &trans, sizeof trans);
  lt->desc_set(plan->desc, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &accumulate, sizeof accumulate);
  if (rows) {
    const cublasLtMatmulMatrixScale_t outer = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    lt->desc_set(plan->desc, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &outer, sizeof outer);
    lt->desc_set(plan->desc, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &outer, sizeof outer);
  }
  lt->desc_set(plan->desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &sw, sizeof sw);
  lt->desc_set(plan->desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &sx, sizeof sx);
  lt->layout_create(&plan->a, CUDA_R_8F_E4M3, k, n, k);
  lt->layout_create(&plan->b, CUDA_R_8F_E4M3, k, m, k);
  lt->layout_create(&plan->d, CUDA_R_16BF, n, m, n);
  lt->preference_create(&preference);
  lt->preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kLtSpace, sizeof kLtSpace);
  return lt->heuristic(lt->handle, plan->desc, plan->a, plan->b, plan->d, plan->d, preference, 1, &plan->found,
                       &count) == CUBLAS_STATUS_SUCCESS &&
         count > 0;
}

static bool lt_run(const Lt *lt, const LtPlan *plan, const void *w, const void *x, void *y) {
  const float one = 1, zero = 0;
  return lt->matmul(lt->handle, plan->desc, &one, w, plan->a, x, plan->b, &zero, y, plan->d, y, plan->d,
                    &plan->found.algo, lt->space, kLtSpace, 0) == CUBLAS_STATUS_SUCCESS;
}

/* ---- time -------------------------------------------------------------------------------------------------------- */

/* The driver's own meters; without them the columns are zero. */
typedef struct {
  int (*power)(void *, unsigned *), (*clock)(void *, int, unsigned *);
  void *card;
} Meter;

static void meter_open(Meter *m) {
  void *lib = dlopen("libnvidia-ml.so.1", RTLD_NOW);
  if (!lib) return;
  int (*init)(void) = (int (*)(void))dlsym(lib, "nvmlInit_v2");
  int (*get)(unsigned, void **) = (int (*)(unsigned, void **))dlsym(lib, "nvmlDeviceGetHandleByIndex_v2");
  if (!init || !get || init() || get(0, &m->card)) return;
  m->power = (int (*)(void *, unsigned *))dlsym(lib, "nvmlDeviceGetPowerUsage");
  m->clock = (int (*)(void *, int, unsigned *))dlsym(lib, "nvmlDeviceGetClockInfo");
}

typedef struct {
  double us, tflops, watt, mhz, busy; /* busy: of what the tensor cores can do at this clock */
} Timing;

typedef bool (*Job)(void *);

/* `seconds` in a row, after a third of that. */
static bool timed(const Meter *m, Job job, void *arg, double flop, double seconds, Timing *t) {
  cudaEvent_t from, to;
  float ms = 0;
  TRY(cudaEventCreate(&from));
  TRY(cudaEventCreate(&to));
  for (int i = 0; i < 3; i++)
    if (!job(arg)) return false;
  TRY(cudaEventRecord(from));
  for (int i = 0; i < 5; i++) job(arg);
  TRY(cudaEventRecord(to));
  TRY(cudaEventSynchronize(to));
  TRY(cudaEventElapsedTime(&ms, from, to));
  const int runs = (int)(seconds * 1000 / (ms / 5)) + 1;
  for (int i = 0; i < runs / 3; i++) job(arg);
  double watt = 0, mhz = 0;
  int samples = 0;
  TRY(cudaEventRecord(from));
  for (int i = 0; i < runs; i++) {
    unsigned power = 0, clock = 0;
    job(arg);
    if (i < runs / 2 || i % (runs / 16 + 1) || !m->power || !m->clock) continue;
    if (!m->power(m->card, &power) && !m->clock(m->card, 1, &clock)) watt += power / 1000.0, mhz += clock, samples++;
  }
  TRY(cudaEventRecord(to));
  TRY(cudaEventSynchronize(to));
  TRY(cudaEventElapsedTime(&ms, from, to));
  TRY(cudaGetLastError());
  t->us = ms * 1000.0 / runs;
  t->tflops = flop / t->us * 1e-6;
  t->watt = samples ? watt / samples : 0, t->mhz = samples ? mhz / samples : 0;
  t->busy = samples ? t->tflops * 1e12 / (132 * 8192.0 * t->mhz * 1e6) : 0;
  cudaEventDestroy(from), cudaEventDestroy(to);
  return true;
}

#endif
