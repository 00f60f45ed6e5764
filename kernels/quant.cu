/* SPDX-License-Identifier: Apache-2.0 */
/* Quantisation (FkOps.quantize): layer norm with modulation and whole rows to E4M3, bound by memory, because every
 * value is read once, into registers; any group of any size; and codes under a scale that is given. */
#include "device.cuh"
#include "quant.h"

namespace {

constexpr float kTiny = 7.8886090522101181e-31f; /* 2^-100 */
constexpr float kLimit = 448;

/* What turns a value into a code, and a code into a value. */
struct Factor {
  float inverse, scale;
};

FK_DEVICE Factor quant_factor(float amax, float limit) {
  const bool none = amax < kTiny;
  return Factor{none ? 0.0f : __fdiv_rn(limit, amax), none ? 1.0f : __fdiv_rn(amax, limit)};
}

/* Two codes, `low` in the low byte. One instruction since sm_89, arithmetic with the same bits before. */
FK_DEVICE uint32_t quant_two(float low, float high) {
  return __nv_cvt_float2_to_fp8x2(make_float2(low, high), __NV_SATFINITE, __NV_E4M3);
}

FK_DEVICE uint2 quant_eight(const float (&v)[8], Factor f) {
  float q[8];
#pragma unroll
  for (int i = 0; i < 8; i++) q[i] = __fmul_rn(v[i], f.inverse);
  return make_uint2(quant_two(q[0], q[1]) | quant_two(q[2], q[3]) << 16, quant_two(q[4], q[5]) | quant_two(q[6], q[7])
                                                                                                     << 16);
}

/* NaN loses against every number. */
FK_DEVICE float quant_max8(const float (&v)[8], float most) {
#pragma unroll
  for (int i = 0; i < 8; i++) most = fmaxf(most, fabsf(v[i]));
  return most;
}

/* The same under a given scale. Of eight numbers rarely one is infinite or beyond it: only then each is looked at. */
FK_DEVICE uint2 given_eight(const float (&v)[8], Factor f, float *beyond) {
  if (quant_max8(v, 0) * f.inverse <= kLimit) return quant_eight(v, f);
  uint32_t two[4];
#pragma unroll
  for (int i = 0; i < 4; i++) two[i] = fk_given_two(v[2 * i], v[2 * i + 1], f.inverse, beyond);
  return make_uint2(two[0] | two[1] << 16, two[2] | two[3] << 16);
}

FK_DEVICE float quant_warp_max(float x) { /* not negative, not NaN: ordered as integers are */
  return __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(x)));
}

/* ---- layer norm with modulation ---------------------------------------------------------------------------------- */

struct NormArgs {
  FkQuantNorm group[2];
  float eps;
  FkGiven given[2];
};

constexpr int kAhead = 2; /* rows whose loads are in flight */

/* As norm_long_rows of norm.cu, statistics and arithmetic in the same order, so that y has the same bits; then, unless
 * the scale is Given, a second barrier for the largest value of the row. */
template <int W, int V, bool Given>
FK_DEVICE void quant_norm_rows(const FkQuantNorm &g, const FkGiven &given, float eps, int64_t first, int n,
                               float2 (&part)[2][W], float (&most)[2][W]) {
  const int64_t step_x = g.rows.ldx * gridDim.x;
  constexpr int kEach = 8 * V, kWarp = 32 * kEach;
  const int c = threadIdx.x * 8;
  const __nv_bfloat16 *x = g.rows.x + first * g.rows.ldx + c;
  float mul[V][8] = {}, add[V][8] = {};
  float beyond = 0;
  uint4 ahead[kAhead][V];
#pragma unroll
  for (int u = 0; u < kAhead; u++)
#pragma unroll
    for (int j = 0; j < V; j++)
      if (u < n) ahead[u][j] = __ldcs((const uint4 *)(x + u * step_x + j * W * 256));
#pragma unroll
  for (int j = 0; j < V; j++) {
    if (g.mul) fk_load8(g.mul + c + j * W * 256, mul[j]);
    if (g.add) fk_load8(g.add + c + j * W * 256, add[j]);
#pragma unroll
    for (int k = 0; k < 8; k++) mul[j][k] = g.mul ? mul[j][k] + g.one : 1.0f;
  }
  for (int i = 0; i < n; i += kAhead) {
#pragma unroll
    for (int u = 0; u < kAhead; u++) {
      if (i + u >= n) break;
      float v[V][8], mean = 0, squares = 0;
#pragma unroll
      for (int j = 0; j < V; j++) {
        fk_unpack8(ahead[u][j], v[j]);
        if (i + u + kAhead < n) ahead[u][j] = __ldcs((const uint4 *)(x + kAhead * step_x + j * W * 256));
        mean += ((v[j][0] + v[j][1]) + (v[j][2] + v[j][3])) + ((v[j][4] + v[j][5]) + (v[j][6] + v[j][7]));
      }
      mean *= 1.0f / kEach;
#pragma unroll
      for (int j = 0; j < V; j++)
#pragma unroll
        for (int k = 0; k < 8; k++) squares += (v[j][k] - mean) * (v[j][k] - mean);
#pragma unroll
      for (int lanes = 1; lanes < 32; lanes *= 2) { /* both sides hold kEach * lanes elements */
        const float other = __shfl_xor_sync(0xffffffffu, mean, lanes), apart = other - mean;
        squares += __shfl_xor_sync(0xffffffffu, squares, lanes) + apart * apart * (0.5f * kEach * lanes);
        mean = 0.5f * (mean + other);
      }
      if ((threadIdx.x & 31) == 0) part[u & 1][threadIdx.x >> 5] = make_float2(mean, squares);
      __syncthreads();
      mean = squares = 0;
#pragma unroll
      for (int w = 0; w < W; w++) mean += part[u & 1][w].x;
      mean *= 1.0f / W;
#pragma unroll
      for (int w = 0; w < W; w++) {
        const float2 p = part[u & 1][w];
        squares += p.y + (p.x - mean) * (p.x - mean) * kWarp;
      }
      const float scale = rsqrtf(squares * (1.0f / (W * kWarp)) + eps);
      float top = 0;
#pragma unroll
      for (int j = 0; j < V; j++) {
#pragma unroll
        for (int k = 0; k < 8; k++) v[j][k] = (v[j][k] - mean) * scale * mul[j][k] + add[j][k];
        if (!Given) top = quant_max8(v[j], top);
      }
      Factor f = {given.inverse, given.scale};
      if (!Given) {
        top = quant_warp_max(top);
        if ((threadIdx.x & 31) == 0) most[u & 1][threadIdx.x >> 5] = top;
        __syncthreads();
#pragma unroll
        for (int w = 0; w < W; w++) top = fmaxf(top, most[u & 1][w]);
        f = quant_factor(top, kLimit);
      }
      const int64_t row = first + (int64_t)(i + u) * gridDim.x;
#pragma unroll
      for (int j = 0; j < V; j++) {
        *(uint2 *)(g.rows.codes + row * g.rows.ld_codes + c + j * W * 256) =
            Given ? given_eight(v[j], f, &beyond) : quant_eight(v[j], f);
        if (g.plain) fk_store8(g.plain + row * (W * 256 * V) + c + j * W * 256, v[j]);
      }
      if (threadIdx.x == 0) g.rows.scale[row] = f.scale;
      x += step_x;
    }
  }
  if (Given) fk_given_count(given.saturated, beyond);
}

/* 3072 columns (W = 4, V = 3): 128 threads, four blocks a multiprocessor; 96 bytes shared. With one barrier a row, the
 * two buffers of `part` are enough: a warp that writes one has passed the barrier behind which the other was read. */
template <int W, int V, int Blocks, bool Given>
__global__ void __launch_bounds__(W * 32, Blocks) quant_norm_long_kernel(const NormArgs a) {
  __shared__ float2 part[2][W];
  __shared__ float most[2][W];
  int64_t first = blockIdx.x;
#pragma unroll
  for (int g = 0; g < 2; g++) { /* a block's rows pass from the first group to the second */
    const int64_t left = a.group[g].rows.rows - first;
    const int n = left > 0 ? (int)((left + gridDim.x - 1) / gridDim.x) : 0;
    if (n > 0) quant_norm_rows<W, V, Given>(a.group[g], a.given[g], a.eps, first, n, part, most);
    __syncthreads();
    first += (int64_t)n * gridDim.x - a.group[g].rows.rows;
  }
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* A block a row of at most 8 T V columns: 384 threads are 15360 columns with five vectors each. */
template <int T, int V> __global__ void __launch_bounds__(T) quant_rows_kernel(const FkQuantRows q, int cols) {
  __shared__ float part[T / 32];
  const __nv_bfloat16 *x = q.x + blockIdx.x * q.ldx;
  float v[8], top = 0;
  uint4 raw[V];
#pragma unroll
  for (int j = 0; j < V; j++) {
    const int c = (j * T + threadIdx.x) * 8;
    raw[j] = c < cols ? *(const uint4 *)(x + c) : make_uint4(0, 0, 0, 0);
  }
#pragma unroll
  for (int j = 0; j < V; j++) {
    fk_unpack8(raw[j], v);
    top = quant_max8(v, top);
  }
  top = quant_warp_max(top);
  if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = top;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < T / 32; w++) top = fmaxf(top, part[w]);
  const Factor f = quant_factor(top, kLimit);
  uint8_t *codes = q.codes + blockIdx.x * q.ld_codes;
#pragma unroll
  for (int j = 0; j < V; j++) {
    const int c = (j * T + threadIdx.x) * 8;
    fk_unpack8(raw[j], v);
    if (c < cols) *(uint2 *)(codes + c) = quant_eight(v, f);
  }
  if (threadIdx.x == 0) q.scale[blockIdx.x] = f.scale;
}

/* ---- any groups -------------------------------------------------------------------------------------------------- */

struct AnyArgs {
  FkView x;
  uint8_t *codes;
  float *scale;
  int64_t ld_codes, ld_scale, rows, height, width, across; /* of a group; groups beside each other */
};

/* A block of 256 threads a group, which is read twice, an element at a time; 32 bytes shared. I8, or E4M3. */
template <bool I8> __global__ void __launch_bounds__(256) quant_any_kernel(const AnyArgs a) {
  __shared__ float part[8];
  const int64_t down = blockIdx.x / a.across, right = blockIdx.x % a.across;
  const int64_t first = down * a.height, left = right * a.width;
  const int64_t n = (first + a.height < a.rows ? a.height : a.rows - first) * a.width;
  float v[1], top = 0;
  bool broken = false;
  for (int64_t i = threadIdx.x; i < n; i += 256) {
    fk_view_load<1>(a.x, first + i / a.width, left + i % a.width, v);
    top = fmaxf(top, fabsf(v[0])); /* NaN loses against every number */
    broken = broken || (I8 && isnan(v[0]));
  }
  top = quant_warp_max(top);
  if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = top;
  broken = __syncthreads_or(broken);
#pragma unroll
  for (int w = 0; w < 8; w++) top = fmaxf(top, part[w]);
  Factor f = quant_factor(top, I8 ? 127.0f : kLimit);
  if (broken) f = Factor{0, __int_as_float(0x7fc00000)};
  for (int64_t i = threadIdx.x; i < n; i += 256) {
    fk_view_load<1>(a.x, first + i / a.width, left + i % a.width, v);
    const float x = __fmul_rn(v[0], f.inverse);
    uint8_t code = __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
    if (I8) code = isnan(x) ? 0 : (uint8_t)__float2int_rn(fminf(fmaxf(x, -127.0f), 127.0f));
    a.codes[(first + i / a.width) * a.ld_codes + left + i % a.width] = code;
  }
  if (threadIdx.x == 0) a.scale[down * a.ld_scale + right] = f.scale;
}

cudaError_t launch_any(FkCuda *cu, FkTensor y, FkTensor y_scale, FkTensor x) {
  AnyArgs a = {};
  const int64_t rows = fk_tensor_rows(x), cols = fk_tensor_cols(x);
  a.x = fk_view(x), a.codes = (uint8_t *)y.data, a.ld_codes = y.ld, a.scale = (float *)y_scale.data;
  a.rows = rows, a.height = 1, a.width = cols, a.across = 1, a.ld_scale = 1;
  if (y_scale.rank > 1) {
    a.height = fk_tensor_rows(y_scale) == rows ? 1 : FK_QUANT_BLOCK;
    a.across = fk_tensor_cols(y_scale), a.ld_scale = y_scale.ld, a.width = cols / a.across;
  }
  const unsigned blocks = (unsigned)((rows + a.height - 1) / a.height * a.across);
  if (y.dtype == FK_I8)
    quant_any_kernel<true><<<blocks, 256, 0, cu->stream>>>(a);
  else
    quant_any_kernel<false><<<blocks, 256, 0, cu->stream>>>(a);
  return cudaGetLastError();
}

/* ---- a scale that is given --------------------------------------------------------------------------------------- */

/* Codes of rows, V elements at a time; where a row has one scale, the row's first thread writes it. */
struct GivenOp {
  FkView x;
  uint8_t *codes;
  int64_t ld_codes;
  float *scale; /* [rows] or NULL */
  FkGiven given;
  template <int V> __device__ __forceinline__ void run(int64_t row, int64_t col) const {
    float beyond = 0;
    float v[V];
    fk_view_load<V>(x, row, col, v);
    uint8_t *to = codes + row * ld_codes + col;
    if constexpr (V == 8)
      *(uint2 *)to = given_eight(v, Factor{given.inverse, given.scale}, &beyond);
    else
      *to = (uint8_t)fk_given_two(v[0], 0, given.inverse, &beyond);
    if (scale && col == 0) scale[row] = given.scale;
    fk_given_count(given.saturated, beyond);
  }
};

struct FillOp {
  float *to, value;
  int64_t ld;
  template <int V> __device__ __forceinline__ void run(int64_t row, int64_t col) const { to[row * ld + col] = value; }
};

/* Bound by memory: 3 bytes a number. */
cudaError_t launch_given(FkCuda *cu, FkTensor y, FkTensor y_scale, FkTensor x, float given) {
  const int64_t rows = fk_tensor_rows(x), cols = fk_tensor_cols(x);
  const bool vector = y_scale.rank == 1;
  const bool wide = fk_view_wide(x) && (uintptr_t)y.data % 8 == 0 && y.ld % 8 == 0 && cols % 8 == 0;
  const GivenOp op = {fk_view(x), (uint8_t *)y.data, y.ld, vector ? (float *)y_scale.data : NULL,
                      fk_cuda_given(cu, given)};
  if (!vector)
    FK_CUDA_TRY(fk_map<1>(cu, FillOp{(float *)y_scale.data, given, y_scale.ld}, fk_tensor_rows(y_scale),
                          fk_tensor_cols(y_scale), false));
  return wide ? fk_map<8>(cu, op, rows, cols, false) : fk_map<1>(cu, op, rows, cols, false);
}

/* ---- launch ------------------------------------------------------------------------------------------------------ */

bool quant_fits(const FkQuantRows *q, int cols) {
  const uintptr_t bits = (uintptr_t)q->x | (uintptr_t)q->codes;
  return bits % 16 == 0 && q->ldx % 8 == 0 && q->ld_codes % 16 == 0 && cols % 8 == 0 && cols > 0;
}

} // namespace

cudaError_t fk_cuda_quant_norm(cudaStream_t stream, int sms, int groups, const FkQuantNorm *n, int cols, float eps,
                               const FkGiven *given) {
  NormArgs a = {};
  int64_t rows = 0;
  a.eps = eps;
  for (int i = 0; i < groups; i++) {
    if (given) a.given[i] = given[i];
    const uintptr_t bits = (uintptr_t)n[i].mul | (uintptr_t)n[i].add | (uintptr_t)n[i].plain;
    if (!quant_fits(&n[i].rows, cols) || bits % 16 || cols != 3072) return cudaErrorNotSupported;
    a.group[i] = n[i];
    rows += n[i].rows.rows;
  }
  if (rows == 0) return cudaSuccess;
  const unsigned blocks = (unsigned)(rows < 4 * sms ? rows : 4 * sms);
  if (given)
    quant_norm_long_kernel<4, 3, 4, true><<<blocks, 128, 0, stream>>>(a);
  else
    quant_norm_long_kernel<4, 3, 4, false><<<blocks, 128, 0, stream>>>(a);
  return cudaGetLastError();
}

cudaError_t fk_cuda_quant_rows(cudaStream_t stream, const FkQuantRows *q, int cols) {
  if (!quant_fits(q, cols) || cols > 24576) return cudaErrorNotSupported;
  if (q->rows == 0) return cudaSuccess;
  const unsigned rows = (unsigned)q->rows;
  if (cols <= 3072)
    quant_rows_kernel<128, 3><<<rows, 128, 0, stream>>>(*q, cols);
  else if (cols <= 12288)
    quant_rows_kernel<384, 4><<<rows, 384, 0, stream>>>(*q, cols);
  else if (cols <= 15360)
    quant_rows_kernel<384, 5><<<rows, 384, 0, stream>>>(*q, cols);
  else
    quant_rows_kernel<512, 6><<<rows, 512, 0, stream>>>(*q, cols);
  return cudaGetLastError();
}

/* Rows to E4M3 from bf16 that lie as vectors ask for, or anything. */
cudaError_t fk_cuda_quantize(FkCuda *cu, FkTensor y, FkTensor y_scale, FkTensor x, float given) {
  const int64_t rows = fk_tensor_rows(x), cols = fk_tensor_cols(x);
  if ((y.dtype != FK_E4M3 && y.dtype != FK_I8) || !fk_view_known(x) || y_scale.dtype != FK_F32)
    return cudaErrorNotSupported;
  if (rows == 0 || cols == 0) return cudaSuccess;
  if (given != 0) return launch_given(cu, y, y_scale, x, given);
  const FkQuantRows q = {(const __nv_bfloat16 *)x.data, x.ld, (uint8_t *)y.data, y.ld, (float *)y_scale.data, rows};
  const bool fast = y.dtype == FK_E4M3 && x.dtype == FK_BF16 && y_scale.rank == 1 && cols <= INT32_MAX;
  const cudaError_t status = fast ? fk_cuda_quant_rows(cu->stream, &q, (int)cols) : cudaErrorNotSupported;
  return status == cudaErrorNotSupported ? launch_any(cu, y, y_scale, x) : status;
}

/* Through the scratch memory, whole rows at a time; kernels take a small part of the time of the copies. */
cudaError_t fk_cuda_upload_codes(FkCuda *cu, const void *from, void *codes, float *scales, FkDtype is, int64_t rows,
                                 int64_t cols) {
  const size_t row = (size_t)cols * fk_dtype_size(is);
  const int64_t most = row ? (int64_t)(FK_CUDA_SCRATCH_BYTES / row) : 0;
  if (most == 0) return cudaErrorNotSupported;
  for (int64_t at = 0; at < rows; at += most) {
    const int64_t n = rows - at < most ? rows - at : most;
    FK_CUDA_TRY(cudaMemcpyAsync(cu->scratch, (const char *)from + (size_t)at * row, (size_t)n * row,
                                cudaMemcpyHostToDevice, cu->stream));
    FK_CUDA_TRY(fk_cuda_quantize(cu, fk_tensor_2d((uint8_t *)codes + at * cols, FK_E4M3, n, cols),
                                 fk_tensor_1d(scales + at, FK_F32, n), fk_tensor_2d(cu->scratch, is, n, cols), 0));
  }
  return cudaSuccess;
}

cudaError_t fk_cuda_layer_norm_quantized(FkCuda *cu, const FkLayerNorm *n, int groups) {
  FkQuantNorm q[FK_MAX_GROUPS] = {};
  FkGiven given[FK_MAX_GROUPS] = {};
  for (int i = 0; i < groups; i++) {
    const bool modulated = fk_tensor_given(n[i].scale) || fk_tensor_given(n[i].shift);
    const FkTensor x = n[i].x, y = n[i].y;
    if (x.dtype != FK_BF16 || y.dtype != FK_E4M3 || n[i].y_scale.rank != 1 || fk_tensor_cols(x) != 3072)
      return cudaErrorNotSupported;
    if ((n[i].given != 0) != (n[0].given != 0)) return cudaErrorNotSupported;
    if (n[i].given != 0) given[i] = fk_cuda_given(cu, n[i].given);
    q[i].rows = FkQuantRows{
        (const __nv_bfloat16 *)x.data, x.ld, (uint8_t *)y.data, y.ld, (float *)n[i].y_scale.data, fk_tensor_rows(x)};
    q[i].mul = (const float *)(modulated ? n[i].scale.data : n[i].weight.data);
    q[i].add = (const float *)(modulated ? n[i].shift.data : n[i].bias.data);
    q[i].one = modulated ? 1.0f : 0.0f;
  }
  return fk_cuda_quant_norm(cu->stream, cu->sms, groups, q, 3072, n[0].eps, n[0].given != 0 ? given : NULL);
}

cudaError_t fk_cuda_saturated(FkCuda *cu, int64_t *since) {
  unsigned long long now = 0;
  FK_CUDA_TRY(cudaMemcpyAsync(&now, fk_cuda_cut(cu), sizeof now, cudaMemcpyDeviceToHost, cu->stream));
  FK_CUDA_TRY(cudaStreamSynchronize(cu->stream));
  *since = (int64_t)(now - cu->collected);
  cu->collected = now;
  return cudaSuccess;
}
