/* SPDX-License-Identifier: Apache-2.0 */
/* Convolution of any square kernel, stride, padding, width and dtype, on every architecture: an implicit matrix product
 * that gathers its rows from the map, on the warp-level tensor-core instruction. It serves what neither conv_narrow.cu
 * nor conv_sm90.cu takes, and other architectures than theirs.
 *
 * Block: 256 threads, 128 output pixels x 64 channels, the inner axis (row and column of the tap, channel) in slices of
 * 32. The next slice is read into registers while the present one is multiplied. 16,384 bytes shared; 82 registers, 92
 * without whole vectors. Bound by the gather: its addresses, and the latency of its reads. */
#include "device.cuh"

namespace {

constexpr int kPixels = 128, kOut = 64, kSlice = 32;
constexpr int kPitch = kSlice + 8; /* 20 words a row: the fragment reads of a warp fall into 32 different banks */

struct Args {
  FkView x, y, residual, w;
  const float *bias;
  int64_t pixels; /* of y */
  int out, inner, channels;
  int h, width;  /* of x, doubled if `up` */
  int out_w, up; /* columns of y; 1 or 2 */
  int kernel, stride, pad;
  bool add, pairs; /* residual given; y in pairs of bf16 */
};

struct Place {
  int y, x; /* of the first tap in the (doubled) map; y far outside for rows past the end */
};

/* V consecutive inner elements from k on, of the pixel at `at`. */
template <int V> FK_DEVICE void gather(const Args &a, Place at, int k, float (&v)[V]) {
  const int tap = k / a.channels, c = k - tap * a.channels;
  const int y = at.y + tap / a.kernel, x = at.x + tap % a.kernel;
  if (k < a.inner && y >= 0 && y < a.h && x >= 0 && x < a.width) {
    const int64_t row = a.up == 2 ? (int64_t)(y >> 1) * (a.width >> 1) + (x >> 1) : (int64_t)y * a.width + x;
    fk_view_load<V>(a.x, row, c, v);
  } else {
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = 0;
  }
}

/* A thread's share of a slice, in steps of V elements (8: whole vectors, 1: single ones): row and inner element of step
 * i. */
template <int V> FK_DEVICE void share(int i, int &row, int &k) {
  constexpr int across = kSlice / V;
  row = threadIdx.x / across + i * (256 / across);
  k = threadIdx.x % across * V;
}

template <int V>
FK_DEVICE void load_part(const Args &a, const Place *place, int k0, int n0, float (&x)[16], float (&w)[8]) {
#pragma unroll
  for (int i = 0; i < 16 / V; i++) {
    int row, k;
    float v[V];
    share<V>(i, row, k);
    gather<V>(a, place[row], k0 + k, v);
#pragma unroll
    for (int j = 0; j < V; j++) x[i * V + j] = v[j];
  }
#pragma unroll
  for (int i = 0; i < 8 / V; i++) {
    int row, k;
    float v[V] = {};
    share<V>(i, row, k);
    if (n0 + row < a.out && k0 + k < a.inner) fk_view_load<V>(a.w, n0 + row, k0 + k, v);
#pragma unroll
    for (int j = 0; j < V; j++) w[i * V + j] = v[j];
  }
}

template <int V, int Count> FK_DEVICE void keep_part(__nv_bfloat16 (*to)[kPitch], const float (&from)[Count]) {
#pragma unroll
  for (int i = 0; i < Count / V; i++) {
    int row, k;
    float v[V];
    share<V>(i, row, k);
#pragma unroll
    for (int j = 0; j < V; j++) v[j] = from[i * V + j];
    if constexpr (V == 8)
      fk_store8(&to[row][k], v);
    else
      to[row][k] = __float2bfloat16_rn(v[0]);
  }
}

/* A warp's 32 x 32 part of the slice's product: two m16 by four n8 blocks. */
FK_DEVICE void multiply_slice(const __nv_bfloat16 (*x)[kPitch], const __nv_bfloat16 (*w)[kPitch], float (&d)[2][4][4]) {
  const int g = threadIdx.x >> 2 & 7, t = threadIdx.x & 3;
#pragma unroll
  for (int k = 0; k < kSlice; k += 16) {
    uint32_t a[2][4], b[4][2];
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
      for (int i = 0; i < 4; i++) a[m][i] = fk_load2(&x[m * 16 + g + (i & 1) * 8][k + 2 * t + (i & 2) * 4]);
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
      for (int i = 0; i < 2; i++) b[n][i] = fk_load2(&w[n * 8 + g][k + 2 * t + i * 8]);
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
      for (int n = 0; n < 4; n++) fk_mma(d[m][n], a[m], b[n][0], b[n][1]);
  }
}

/* Columns c and c + 1 of one pixel. */
FK_DEVICE void store_pair(const Args &a, int64_t pixel, int c, float v0, float v1) {
  float v[2] = {v0, v1};
#pragma unroll
  for (int i = 0; i < 2; i++) {
    float r[1] = {0};
    if (c + i >= a.out) return;
    if (a.bias) v[i] += a.bias[c + i];
    if (a.add) fk_view_load<1>(a.residual, pixel, c + i, r);
    v[i] += r[0];
    if (a.pairs) continue;
    r[0] = v[i];
    fk_view_store<1>(a.y, pixel, c + i, r);
  }
  if (a.pairs) *(uint32_t *)((__nv_bfloat16 *)a.y.data + pixel * a.y.ld + c) = fk_pack_bf16(v[0], v[1]);
}

template <int V> __global__ void __launch_bounds__(256) conv_kernel(const Args a) {
  __shared__ __nv_bfloat16 x[kPixels][kPitch], w[kOut][kPitch];
  __shared__ Place place[kPixels];
  const int64_t first = (int64_t)blockIdx.x * kPixels;
  const int n0 = blockIdx.y * kOut, warp = threadIdx.x >> 5, m0 = warp / 2 * 32, c0 = warp % 2 * 32;
  if (threadIdx.x < kPixels) {
    const int64_t p = first + threadIdx.x;
    const int oy = (int)(p / a.out_w), ox = (int)(p % a.out_w);
    place[threadIdx.x] = Place{p < a.pixels ? oy * a.stride - a.pad : -(1 << 30), ox * a.stride - a.pad};
  }
  __syncthreads();
  float d[2][4][4] = {}, next_x[16], next_w[8];
  load_part<V>(a, place, 0, n0, next_x, next_w);
  for (int k = 0; k < a.inner; k += kSlice) {
    __syncthreads();
    keep_part<V>(x, next_x);
    keep_part<V>(w, next_w);
    __syncthreads();
    if (k + kSlice < a.inner) load_part<V>(a, place, k + kSlice, n0, next_x, next_w);
    multiply_slice(&x[m0], &w[c0], d);
  }
  const int g = threadIdx.x >> 2 & 7, t = threadIdx.x & 3;
#pragma unroll
  for (int m = 0; m < 2; m++)
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int64_t pixel = first + m0 + m * 16 + g + half * 8;
        if (pixel < a.pixels) store_pair(a, pixel, n0 + c0 + n * 8 + 2 * t, d[m][n][2 * half], d[m][n][2 * half + 1]);
      }
}

cudaError_t conv_any(FkCuda *cu, const FkConv *c) {
  const FkTensor w = fk_tensor_2d((void *)c->w.data, c->w.dtype, c->w.out, c->w.in);
  Args a = {};
  if (!fk_view_known(c->x) || !fk_view_known(c->y) || !fk_view_known(w)) return cudaErrorNotSupported;
  a.x = fk_view(c->x), a.y = fk_view(c->y), a.residual = fk_view(c->residual), a.w = fk_view(w);
  a.bias = (const float *)c->bias.data;
  a.pixels = fk_tensor_rows(c->y);
  a.out = (int)c->w.out, a.inner = (int)c->w.in, a.channels = (int)c->x.dim[2];
  a.up = c->upsample ? 2 : 1;
  a.h = (int)c->x.dim[0] * a.up, a.width = (int)c->x.dim[1] * a.up;
  a.out_w = (int)c->y.dim[1];
  a.kernel = c->kernel, a.stride = c->stride, a.pad = c->pad_before;
  a.add = fk_tensor_given(c->residual);
  a.pairs = c->y.dtype == FK_BF16 && a.out % 2 == 0 && c->y.ld % 2 == 0 && (uintptr_t)c->y.data % 4 == 0;
  if (a.pixels == 0) return cudaSuccess;
  const dim3 grid((unsigned)((a.pixels + kPixels - 1) / kPixels), (unsigned)((a.out + kOut - 1) / kOut));
  const bool wide = a.channels % 8 == 0 && fk_view_wide(c->x) && fk_view_wide(w);
  if (wide)
    conv_kernel<8><<<grid, 256, 0, cu->stream>>>(a);
  else
    conv_kernel<1><<<grid, 256, 0, cu->stream>>>(a);
  return cudaGetLastError();
}

} // namespace

cudaError_t fk_cuda_conv(FkCuda *cu, const FkConv *c) {
  if (c->w.scale.kind != FK_SCALE_NONE) return cudaErrorNotSupported;
  cudaError_t status = fk_cuda_conv_narrow(cu, c);
  if (status == cudaErrorNotSupported) status = fk_cuda_conv_sm90(cu, c);
  if (status == cudaErrorNotSupported) status = conv_any(cu, c);
  return status;
}
