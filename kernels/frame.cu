/* SPDX-License-Identifier: Apache-2.0 */
/* Pixels as bytes: one pass of a resize, pictures that somebody else laid out, masks. The arithmetic of a pixel is
 * core/ops/frame.h's, in double and integers: this file is compiled with -fmad=false, so that its bytes are those of
 * the CPU backend.
 *
 * Blocks of 256 threads, one for each byte or pixel, no shared memory; bound by memory where double precision is not
 * slow, and short beside an evaluation of the model where it is. */
#include "module.cuh"

namespace {

constexpr unsigned THREADS = 256;

__device__ int64_t index() {
  return (int64_t)blockIdx.x * THREADS + threadIdx.x;
}

struct Resize {
  uint8_t *y;
  const uint8_t *x;
  const int *first, *count, *weight;
  int64_t n, line, width, channels, taps; /* bytes of y; of a row of x; pixels of a row of y */
  bool rows;
};

__global__ void resize_kernel(Resize r) {
  const int64_t i = index();
  if (i >= r.n) return;
  const int64_t channel = i % r.channels, column = i / r.channels % r.width, row = i / (r.channels * r.width);
  const int64_t at = r.rows ? row : column, step = r.rows ? r.line : r.channels;
  const uint8_t *from =
      r.x + channel + (r.rows ? column * r.channels + r.first[at] * r.line : row * r.line + r.first[at] * r.channels);
  const int *weight = r.weight + at * r.taps;
  int sum = 1 << (FK_RESIZE_BITS - 1);
  for (int k = 0; k < r.count[at]; k++) sum += weight[k] * from[k * step];
  sum >>= FK_RESIZE_BITS;
  r.y[i] = (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

__global__ void read_kernel(FkFrame f, uint8_t *y, int64_t n, int width, int values, int left, int top, int first) {
  const int64_t i = index();
  uint8_t rgba[4];
  if (i >= n) return;
  fk_frame_read_pixel(&f, left + (int)(i % width), top + (int)(i / width), first, rgba);
  for (int k = 0; k < values; k++) y[i * values + k] = rgba[first + k];
}

__global__ void write_kernel(FkFrame f, const uint8_t *x, int64_t n) {
  const int64_t i = index();
  if (i < n) fk_frame_write_pixel(&f, x, (int)(i % f.width), (int)(i / f.width));
}

__global__ void keep_kernel(FkFrame to, FkFrame from, const uint8_t *before, const uint8_t *after, int64_t n) {
  const int64_t i = index();
  if (i < n) fk_frame_keep_pixel(&to, &from, before, after, (int)(i % to.width), (int)(i / to.width));
}

__global__ void mix_kernel(uint8_t *y, int64_t ldy, const uint8_t *x, int64_t ldx, const uint8_t *fade, int64_t n,
                           int64_t cols) {
  const int64_t i = index(), row = i / cols, col = i % cols;
  if (i >= n) return;
  uint8_t *to = y + row * ldy + col;
  *to = fk_frame_mix(*to, x[row * ldx + col], fade[row]);
}

__global__ void invert_kernel(uint8_t *y, const uint8_t *x, int64_t n) {
  const int64_t i = index();
  if (i < n) y[i] = (uint8_t)(255 - x[i]);
}

/* Neighbours read the same values again, from the first cache. A window of 2,001 and sums of 255 stay in 32 bits. */
__global__ void window_kernel(uint8_t *y, const uint8_t *x, int height, int width, FkWindow window, int radius,
                              bool columns) {
  const int64_t i = index();
  if (i >= (int64_t)height * width) return;
  const int row = (int)(i / width), column = (int)(i % width), n = columns ? height : width;
  const int at = columns ? row : column, step = columns ? width : 1;
  const uint8_t *line = columns ? x + column : x + (int64_t)row * width;
  int most = 0, least = 255, sum = 0;
  for (int k = at - radius; k <= at + radius; k++) {
    const int value = line[(int64_t)max(0, min(n - 1, k)) * step];
    most = max(most, value);
    least = min(least, value);
    sum += value;
  }
  const int count = 2 * radius + 1;
  y[i] = (uint8_t)(window == FK_WINDOW_MOST    ? most
                   : window == FK_WINDOW_LEAST ? least
                                               : (2 * sum + count) / (2 * count));
}

/* box: zeros. Largest values of integers do not depend on the order of who brings them. */
__global__ void bounds_kernel(int *box, const uint8_t *x, int height, int width) {
  const int64_t i = index();
  const bool set = i < (int64_t)height * width && x[i];
  const int row = (int)(i / width), column = (int)(i % width);
  const int reach[4] = {width - column, height - row, column + 1, row + 1};
  for (int k = 0; k < 4; k++) {
    const int most = __reduce_max_sync(~0u, set ? reach[k] : 0);
    if (threadIdx.x % 32 == 0 && most > 0) atomicMax(&box[k], most);
  }
}

__global__ void mask_tokens_kernel(float *y, int64_t ldy, const uint8_t *x, int64_t n, int64_t cols, int width) {
  const int64_t i = index(), token = i / cols, k = i % cols, across = width / 16;
  if (i >= n) return;
  const int64_t row = token / across * 2 + k % 4 / 2, column = token % across * 2 + k % 2;
  y[token * ldy + k] = x[row * 8 * width + column * 8] >= 128 ? 1.0f : 0.0f;
}

unsigned blocks(int64_t n) {
  return (unsigned)((n + THREADS - 1) / THREADS);
}

} // namespace

/* The device's primary context, which the runtime holds until the process ends. */
void *fk_cuda_context(const FkCuda *cu) {
  int (*current)(void **) = (int (*)(void **))fk_cuda_driver("cuCtxGetCurrent", 4000);
  void *context = NULL;
  const bool set = cudaSetDevice(cu->device) == cudaSuccess;
  cudaGetLastError();
  return set && current && current(&context) == 0 ? context : NULL;
}

/* Memory of this device, and of no other context: a kernel that follows such an address ends the process' use of the
 * GPU. */
bool fk_cuda_reach(const FkCuda *cu, const void *memory, size_t bytes) {
  constexpr int CONTEXT = 1; /* CU_POINTER_ATTRIBUTE_CONTEXT; memory of a pool has none */
  int (*ask)(void *, int, uintptr_t) = (int (*)(void *, int, uintptr_t))fk_cuda_driver("cuPointerGetAttribute", 4000);
  const void *ends[] = {memory, (const char *)memory + (bytes ? bytes - 1 : 0)}, *own = fk_cuda_context(cu);
  for (const void *end : ends) {
    cudaPointerAttributes a;
    void *context = NULL;
    const bool known = cudaPointerGetAttributes(&a, end) == cudaSuccess;
    cudaGetLastError();
    if (!known || (a.type != cudaMemoryTypeDevice && a.type != cudaMemoryTypeManaged) || a.device != cu->device)
      return false;
    if (ask && ask(&context, CONTEXT, (uintptr_t)end) == 0 && context && own && context != own) return false;
  }
  return true;
}

cudaError_t fk_cuda_resize(FkCuda *cu, const FkResize *r) {
  const Resize a = {(uint8_t *)r->y.data,
                    (const uint8_t *)r->x.data,
                    (const int *)r->first.data,
                    (const int *)r->count.data,
                    (const int *)r->weight.data,
                    fk_tensor_count(r->y),
                    r->x.dim[1] * r->x.dim[2],
                    r->y.dim[1],
                    r->y.dim[2],
                    r->weight.dim[1],
                    r->rows};
  resize_kernel<<<blocks(a.n), THREADS, 0, cu->stream>>>(a);
  return cudaGetLastError();
}

cudaError_t fk_cuda_frame_read(FkCuda *cu, FkTensor y, const FkFrame *f, int left, int top, int first) {
  const int64_t n = y.dim[0] * y.dim[1];
  read_kernel<<<blocks(n), THREADS, 0, cu->stream>>>(*f, (uint8_t *)y.data, n, (int)y.dim[1], (int)y.dim[2], left, top,
                                                     first);
  return cudaGetLastError();
}

cudaError_t fk_cuda_frame_write(FkCuda *cu, const FkFrame *f, FkTensor x) {
  const int64_t n = (int64_t)f->width * f->height;
  write_kernel<<<blocks(n), THREADS, 0, cu->stream>>>(*f, (const uint8_t *)x.data, n);
  return cudaGetLastError();
}

cudaError_t fk_cuda_frame_keep(FkCuda *cu, const FkFrame *to, const FkFrame *from, FkTensor before, FkTensor after) {
  const int64_t n = (int64_t)to->width * to->height;
  keep_kernel<<<blocks(n), THREADS, 0, cu->stream>>>(*to, *from, (const uint8_t *)before.data,
                                                     (const uint8_t *)after.data, n);
  return cudaGetLastError();
}

cudaError_t fk_cuda_mix(FkCuda *cu, FkTensor y, FkTensor x, FkTensor fade) {
  const int64_t n = fk_tensor_count(y);
  mix_kernel<<<blocks(n), THREADS, 0, cu->stream>>>((uint8_t *)y.data, y.ld, (const uint8_t *)x.data, x.ld,
                                                    (const uint8_t *)fade.data, n, fk_tensor_cols(y));
  return cudaGetLastError();
}

cudaError_t fk_cuda_invert(FkCuda *cu, FkTensor y, FkTensor x) {
  const int64_t n = fk_tensor_count(x);
  invert_kernel<<<blocks(n), THREADS, 0, cu->stream>>>((uint8_t *)y.data, (const uint8_t *)x.data, n);
  return cudaGetLastError();
}

cudaError_t fk_cuda_window(FkCuda *cu, FkTensor y, FkTensor x, FkWindow window, int radius, bool columns) {
  window_kernel<<<blocks(fk_tensor_count(x)), THREADS, 0, cu->stream>>>(
      (uint8_t *)y.data, (const uint8_t *)x.data, (int)x.dim[0], (int)x.dim[1], window, radius, columns);
  return cudaGetLastError();
}

cudaError_t fk_cuda_bounds(FkCuda *cu, FkTensor y, FkTensor x) {
  const cudaError_t cleared = cudaMemsetAsync(y.data, 0, fk_tensor_bytes(y), cu->stream);
  if (cleared != cudaSuccess) return cleared;
  bounds_kernel<<<blocks(fk_tensor_count(x)), THREADS, 0, cu->stream>>>((int *)y.data, (const uint8_t *)x.data,
                                                                        (int)x.dim[0], (int)x.dim[1]);
  return cudaGetLastError();
}

cudaError_t fk_cuda_mask_tokens(FkCuda *cu, FkTensor y, FkTensor x) {
  const int64_t n = fk_tensor_count(y);
  mask_tokens_kernel<<<blocks(n), THREADS, 0, cu->stream>>>((float *)y.data, y.ld, (const uint8_t *)x.data, n,
                                                            fk_tensor_cols(y), (int)x.dim[1]);
  return cudaGetLastError();
}
