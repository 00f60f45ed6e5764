/* SPDX-License-Identifier: Apache-2.0 */
/* What launchers know of a kernel on this device, learnt once: that it may have its shared memory, and how many
 * clusters of it run at once; and why they decline. */
#include "module.cuh"

#include <stdarg.h>
#include <stdio.h>

namespace {

/* NULL: the table is full; such a kernel is set up at each launch. */
FkCudaKernel *kernel_row(FkCuda *cu, const void *kernel) {
  for (int i = 0; i < cu->kernels; i++)
    if (cu->kernel[i].kernel == kernel) return &cu->kernel[i];
  if (cu->kernels == FK_CUDA_KERNELS) return NULL;
  FkCudaKernel *k = &cu->kernel[cu->kernels++];
  *k = FkCudaKernel{kernel, 0, -1};
  return k;
}

} // namespace

cudaError_t fk_cuda_prepare(FkCuda *cu, const void *kernel, int shared_bytes) {
  FkCudaKernel *k = kernel_row(cu, kernel);
  if (k && shared_bytes <= k->shared_bytes) return cudaSuccess;
  if (shared_bytes > cu->shared_bytes) return cudaErrorNotSupported;
  const cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  if (status != cudaSuccess)
    cudaGetLastError(); /* reported by this call alone, not by the launch of another kernel */
  else if (k)
    k->shared_bytes = shared_bytes;
  return status;
}

int fk_cuda_clusters(FkCuda *cu, const void *kernel, const cudaLaunchConfig_t *config) {
  FkCudaKernel *k = kernel_row(cu, kernel);
  int clusters = 0;
  if (k && k->clusters >= 0) return k->clusters;
  if (cudaOccupancyMaxActiveClusters(&clusters, kernel, config) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  if (k) k->clusters = clusters;
  return clusters;
}

cudaError_t fk_cuda_decline(FkCuda *cu, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(cu->declined, sizeof cu->declined, format, args);
  va_end(args);
  return cudaErrorNotSupported;
}
