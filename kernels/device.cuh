/* SPDX-License-Identifier: Apache-2.0 */
/* Device views of op-line tensors: loads and stores of any dtype as float, one element or eight at a time, the launch
 * of elementwise kernels over them, and a helper of the convolutions' fragments. The dtype is a run-time value: the
 * branch on it is the same for a whole launch and costs nothing beside the memory access. */
#ifndef FK_DEVICE_CUH
#define FK_DEVICE_CUH

#include <cuda_fp16.h>

#include "common.cuh"
#include "module.cuh"

/* Rows of the innermost axis, `ld` elements apart. */
typedef struct {
  char *data;
  int64_t ld;
  int dtype;
} FkView;

static inline FkView fk_view(FkTensor t) {
  return FkView{(char *)t.data, t.ld, t.dtype};
}

/* What loads and stores know: numbers and bytes, not codes. */
static inline bool fk_view_known(FkTensor t) {
  return t.dtype <= FK_U8;
}

/* True when rows can be read eight elements at a time: 16-byte (bf16, f16), 32-byte (f32) or 8-byte (u8) pieces, of
 * which 16-byte alignment serves all. The column count is the caller's to check. */
static inline bool fk_view_wide(FkTensor t) {
  const size_t bytes = (size_t)t.ld * (size_t)fk_dtype_bits(t.dtype) / 8, align = t.dtype == FK_U8 ? 8 : 16;
  return t.dtype != FK_I32 && fk_view_known(t) && (uintptr_t)t.data % align == 0 && bytes % align == 0;
}

/* No hole between rows. */
static inline bool fk_view_dense(FkTensor t) {
  return t.ld == fk_tensor_cols(t);
}

template <int V> FK_DEVICE void fk_view_load(const FkView &t, int64_t row, int64_t col, float (&v)[V]);
template <int V> FK_DEVICE void fk_view_store(const FkView &t, int64_t row, int64_t col, const float (&v)[V]);

template <> __device__ __forceinline__ void fk_view_load<1>(const FkView &t, int64_t row, int64_t col, float (&v)[1]) {
  const int64_t i = row * t.ld + col;
  switch (t.dtype) {
  case FK_F32: v[0] = ((const float *)t.data)[i]; break;
  case FK_BF16: v[0] = __bfloat162float(((const __nv_bfloat16 *)t.data)[i]); break;
  case FK_F16: v[0] = __half2float(((const __half *)t.data)[i]); break;
  case FK_I32: v[0] = (float)((const int *)t.data)[i]; break;
  default: v[0] = (float)((const uint8_t *)t.data)[i];
  }
}

template <>
__device__ __forceinline__ void fk_view_store<1>(const FkView &t, int64_t row, int64_t col, const float (&v)[1]) {
  const int64_t i = row * t.ld + col;
  switch (t.dtype) {
  case FK_F32: ((float *)t.data)[i] = v[0]; break;
  case FK_BF16: ((__nv_bfloat16 *)t.data)[i] = __float2bfloat16_rn(v[0]); break;
  case FK_F16: ((__half *)t.data)[i] = __float2half_rn(v[0]); break;
  case FK_I32: ((int *)t.data)[i] = __float2int_rn(v[0]); break;
  default: ((uint8_t *)t.data)[i] = (uint8_t)__float2uint_rn(v[0]);
  }
}

template <> __device__ __forceinline__ void fk_view_load<8>(const FkView &t, int64_t row, int64_t col, float (&v)[8]) {
  const int64_t i = row * t.ld + col;
  if (t.dtype == FK_BF16) {
    fk_load8((const __nv_bfloat16 *)t.data + i, v);
  } else if (t.dtype == FK_F32) {
    const float4 *p = (const float4 *)((const float *)t.data + i);
    const float4 a = p[0], b = p[1];
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
  } else if (t.dtype == FK_F16) {
    const uint4 u = *(const uint4 *)((const __half *)t.data + i);
    const uint32_t w[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
    for (int k = 0; k < 4; k++) {
      const float2 f = __half22float2(*(const __half2 *)&w[k]);
      v[2 * k] = f.x, v[2 * k + 1] = f.y;
    }
  } else {
    const uint2 u = *(const uint2 *)((const uint8_t *)t.data + i);
#pragma unroll
    for (int k = 0; k < 4; k++) {
      v[k] = (float)(u.x >> (8 * k) & 255);
      v[k + 4] = (float)(u.y >> (8 * k) & 255);
    }
  }
}

template <>
__device__ __forceinline__ void fk_view_store<8>(const FkView &t, int64_t row, int64_t col, const float (&v)[8]) {
  const int64_t i = row * t.ld + col;
  if (t.dtype == FK_BF16) {
    fk_store8((__nv_bfloat16 *)t.data + i, v);
  } else if (t.dtype == FK_F32) {
    fk_store8((float *)t.data + i, v);
  } else if (t.dtype == FK_F16) {
    uint32_t w[4];
#pragma unroll
    for (int k = 0; k < 4; k++) {
      const __half2 h = __floats2half2_rn(v[2 * k], v[2 * k + 1]);
      w[k] = *(const uint32_t *)&h;
    }
    *(uint4 *)((__half *)t.data + i) = make_uint4(w[0], w[1], w[2], w[3]);
  } else {
    uint2 u = make_uint2(0, 0);
#pragma unroll
    for (int k = 0; k < 4; k++) {
      u.x |= (__float2uint_rn(v[k]) & 255) << (8 * k);
      u.y |= (__float2uint_rn(v[k + 4]) & 255) << (8 * k);
    }
    *(uint2 *)((uint8_t *)t.data + i) = u;
  }
}

/* Two single elements: pairs in views that are not aligned. */
template <> __device__ __forceinline__ void fk_view_load<2>(const FkView &t, int64_t row, int64_t col, float (&v)[2]) {
  float a[1], b[1];
  fk_view_load<1>(t, row, col, a);
  fk_view_load<1>(t, row, col + 1, b);
  v[0] = a[0], v[1] = b[0];
}

template <>
__device__ __forceinline__ void fk_view_store<2>(const FkView &t, int64_t row, int64_t col, const float (&v)[2]) {
  const float a[1] = {v[0]}, b[1] = {v[1]};
  fk_view_store<1>(t, row, col, a);
  fk_view_store<1>(t, row, col + 1, b);
}

/* ---- fragments -------------------------------------------------------------------------------------------------- */

/* 4 x 4 transpose over the lanes of a quad: lane t's r[j] <-> lane j's r[t]. */
FK_DEVICE void fk_quad_transpose(uint32_t (&r)[4], int t) {
  const bool odd = t & 1, high = t & 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const uint32_t got = __shfl_xor_sync(0xffffffffu, odd ? r[i] : r[i + 1], 1);
    if (odd)
      r[i] = got;
    else
      r[i + 1] = got;
  }
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const uint32_t got = __shfl_xor_sync(0xffffffffu, high ? r[i] : r[i + 2], 2);
    if (high)
      r[i] = got;
    else
      r[i + 2] = got;
  }
}

/* ---- elementwise launches --------------------------------------------------------------------------------------- */

/* op.run<V>(row, col) handles V elements of one row. Threads of a block cover blockDim.y rows of blockDim.x vectors. */
template <int V, class Op> __global__ void map_kernel(Op op, int64_t rows, int64_t vectors) {
  const int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  for (int64_t c = blockIdx.y * blockDim.x + threadIdx.x; c < vectors; c += (int64_t)gridDim.y * blockDim.x)
    op.template run<V>(row, c * V);
}

/* The same over one long row: tensors without holes. */
template <int V, class Op> __global__ void map_dense_kernel(Op op, int64_t vectors) {
  const int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (c < vectors) op.template run<V>(0, c * V);
}

/* Runs op over [rows, cols], V elements at a time (cols % V == 0). dense: the op may see it as one row. Blocks of 256
 * threads, no shared memory. */
template <int V, class Op> static cudaError_t fk_map(const FkCuda *cu, Op op, int64_t rows, int64_t cols, bool dense) {
  if (rows <= 0 || cols <= 0) return cudaSuccess;
  if (dense) {
    const int64_t vectors = rows * cols / V;
    map_dense_kernel<V><<<(unsigned)((vectors + 255) / 256), 256, 0, cu->stream>>>(op, vectors);
    return cudaGetLastError();
  }
  const int64_t vectors = cols / V;
  unsigned x = 1;
  while (x < 256 && x < vectors) x *= 2;
  const dim3 block(x, 256 / x);
  const int64_t across = (vectors + x - 1) / x;
  const dim3 grid((unsigned)((rows + block.y - 1) / block.y), (unsigned)(across < 65535 ? across : 65535));
  map_kernel<V><<<grid, block, 0, cu->stream>>>(op, rows, vectors);
  return cudaGetLastError();
}

#endif
