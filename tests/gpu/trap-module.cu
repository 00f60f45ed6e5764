/* SPDX-License-Identifier: Apache-2.0 */
/* A GPU that fails in the middle of an edit: a CUDA module that is the real one (FK_REAL_MODULE), except that after
 * FK_TRAP_AFTER layer norms a kernel of its own executes a trap. The driver then ends the process's context, as it does
 * after an uncorrectable memory error. For run-on-gpu.sh: one clear message, no crash, no hang. */
#include "../../kernels/module.cuh"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static const FkOps *real;
static FkOps table;
static int left;

__global__ void trap_kernel(void) {
  asm("trap;");
}

static void layer_norm(FkBackend *be, const FkLayerNorm *n, int groups) {
  if (left-- == 0) trap_kernel<<<1, 1>>>();
  real->layer_norm(be, n, groups);
}

extern "C" __attribute__((visibility("default"))) const FkOps *fk_cuda_backend(void);
const FkOps *fk_cuda_backend(void) {
  void *module = dlopen(getenv("FK_REAL_MODULE"), RTLD_NOW | RTLD_LOCAL);
  if (!module) {
    fprintf(stderr, "%s\n", dlerror());
    return NULL;
  }
  real = ((const FkOps *(*)(void))dlsym(module, "fk_cuda_backend"))();
  left = atoi(getenv("FK_TRAP_AFTER"));
  table = *real;
  table.layer_norm = layer_norm;
  return &table;
}
