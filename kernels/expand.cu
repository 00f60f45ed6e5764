/* SPDX-License-Identifier: Apache-2.0 */
/* Weights in the forms that files have to numbers (FkOps.expand), with the arithmetic of core/ops/blocks.c: each
 * product and sum rounded to float32, then once to the result's type. A thread makes eight neighbouring numbers of a
 * row: in no type have they more than one scale. Bound by memory: a byte or half of one is read for each two that are
 * written. */
#include <cuda_fp8.h>

#include "adapt.cuh"
#include "device.cuh"

namespace {

struct Args {
  const uint8_t *codes, *block_scale;
  const float *row_scale;
  int64_t rows, cols, row_bytes;
  int block; /* columns under a scale of block_scale */
  bool power;
  FkView y;
};

__constant__ float kE2m1[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
__constant__ int8_t kIq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

FK_DEVICE float half_at(const uint8_t *b) {
  return __half2float(__ushort_as_half((unsigned short)(b[0] | b[1] << 8)));
}

FK_DEVICE float e4m3(uint8_t code) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3)));
}

FK_DEVICE float e8m0(uint8_t code) {
  return __uint_as_float(code == 255 ? 0x7fc00000u : code ? (uint32_t)code << 23 : 0x00400000u);
}

FK_DEVICE float minus(float scale, int code, float min) {
  return __fsub_rn(__fmul_rn(scale, (float)code), min);
}
FK_DEVICE float plus(float scale, int code, float more) {
  return __fadd_rn(__fmul_rn(scale, (float)code), more);
}

/* Scale and minimum of sub-block j of 8, of 6 bits each, out of 12 bytes. */
FK_DEVICE int k_scale(const uint8_t *s, int j) {
  return j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
}
FK_DEVICE int k_min(const uint8_t *s, int j) {
  return j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
}

/* Bits of number i of a block of 32 whose second half has the upper nibbles. */
FK_DEVICE int nibble(const uint8_t *qs, int i) {
  return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
}

/* Numbers i..i+7 of block b, i a multiple of 8; of types without blocks b is at number i. */
template <FkCode C> FK_DEVICE void eight(const uint8_t *b, int i, float (&y)[8]) {
#define EACH _Pragma("unroll") for (int u = 0; u < 8; u++)
  if constexpr (C == FK_CODE_F32) {
    EACH y[u] = __uint_as_float(b[4 * u] | (uint32_t)b[4 * u + 1] << 8 | (uint32_t)b[4 * u + 2] << 16 |
                                (uint32_t)b[4 * u + 3] << 24);
  } else if constexpr (C == FK_CODE_F16) {
    EACH y[u] = half_at(b + 2 * u);
  } else if constexpr (C == FK_CODE_BF16) {
    EACH y[u] = __uint_as_float((uint32_t)b[2 * u] << 16 | (uint32_t)b[2 * u + 1] << 24);
  } else if constexpr (C == FK_CODE_E4M3) {
    EACH y[u] = e4m3(b[u]);
  } else if constexpr (C == FK_CODE_E5M2) {
    EACH y[u] = __half2float(__ushort_as_half((unsigned short)(b[u] << 8)));
  } else if constexpr (C == FK_CODE_I8) {
    EACH y[u] = (float)(int8_t)b[u];
  } else if constexpr (C == FK_CODE_E2M1) {
    EACH y[u] = kE2m1[u % 2 ? b[u / 2] & 15 : b[u / 2] >> 4];
  } else if constexpr (C == FK_CODE_Q4_0) {
    const float d = half_at(b);
    EACH y[u] = __fmul_rn(d, (float)(nibble(b + 2, i + u) - 8));
  } else if constexpr (C == FK_CODE_Q4_1) {
    const float d = half_at(b), m = half_at(b + 2);
    EACH y[u] = plus(d, nibble(b + 4, i + u), m);
  } else if constexpr (C == FK_CODE_Q5_0) {
    const float d = half_at(b);
    EACH y[u] = __fmul_rn(d, (float)((nibble(b + 6, i + u) | (b[2 + i / 8] >> u & 1) << 4) - 16));
  } else if constexpr (C == FK_CODE_Q5_1) {
    const float d = half_at(b), m = half_at(b + 2);
    EACH y[u] = plus(d, nibble(b + 8, i + u) | (b[4 + i / 8] >> u & 1) << 4, m);
  } else if constexpr (C == FK_CODE_Q8_0) {
    const float d = half_at(b);
    EACH y[u] = __fmul_rn(d, (float)(int8_t)b[2 + i + u]);
  } else if constexpr (C == FK_CODE_IQ4_NL) {
    const float d = half_at(b);
    EACH y[u] = __fmul_rn(d, (float)kIq4[nibble(b + 2, i + u)]);
  } else if constexpr (C == FK_CODE_Q2_K) {
    const int k = i / 16;
    const float scale = __fmul_rn(half_at(b + 80), (float)(b[k] & 15));
    const float min = __fmul_rn(half_at(b + 82), (float)(b[k] >> 4));
    const uint8_t *qs = b + 16 + k / 8 * 32 + i % 32;
    EACH y[u] = minus(scale, qs[u] >> (k % 8 / 2 * 2) & 3, min);
  } else if constexpr (C == FK_CODE_Q3_K) {
    const int k = i / 16, shift = k % 8 / 2;
    const uint8_t *s = b + 96, *qs = b + 32 + k / 8 * 32 + i % 32, *mask = b + i % 32;
    const int low = s[k % 8] >> 4 * (k / 8) & 15, high = s[8 + k % 4] >> 2 * (k / 4) & 3;
    const float scale = __fmul_rn(half_at(b + 108), (float)((low | high << 4) - 32));
    EACH y[u] = __fmul_rn(scale, (float)((qs[u] >> 2 * shift & 3) - (mask[u] >> (k / 8 * 4 + shift) & 1 ? 0 : 4)));
  } else if constexpr (C == FK_CODE_Q4_K || C == FK_CODE_Q5_K) {
    const int j = i / 32;
    const float scale = __fmul_rn(half_at(b), (float)k_scale(b + 4, j));
    const float min = __fmul_rn(half_at(b + 2), (float)k_min(b + 4, j));
    const uint8_t *qs = b + (C == FK_CODE_Q4_K ? 16 : 48) + j / 2 * 32 + i % 32, *high = b + 16 + i % 32;
    EACH {
      int code = qs[u] >> 4 * (j % 2) & 15;
      if (C == FK_CODE_Q5_K) code |= (high[u] >> j & 1) << 4;
      y[u] = minus(scale, code, min);
    }
  } else if constexpr (C == FK_CODE_Q6_K) {
    const int k = i / 16, part = k % 8 / 2;
    const float scale = __fmul_rn(half_at(b + 208), (float)(int8_t)b[192 + k]);
    const uint8_t *low = b + k / 8 * 64 + part % 2 * 32 + i % 32, *high = b + 128 + k / 8 * 32 + i % 32;
    EACH y[u] = __fmul_rn(scale, (float)(((low[u] >> 4 * (part / 2) & 15) | (high[u] >> 2 * part & 3) << 4) - 32));
  } else if constexpr (C == FK_CODE_IQ4_XS) {
    const int j = i / 32, high = b[2] | b[3] << 8;
    const float scale =
        __fmul_rn(half_at(b), (float)(((b[4 + j / 2] >> 4 * (j % 2) & 15) | (high >> 2 * j & 3) << 4) - 32));
    EACH y[u] = __fmul_rn(scale, (float)kIq4[nibble(b + 8 + 16 * j, i % 32 + u)]);
  }
#undef EACH
}

/* Numbers col..col+7 of a row, with their scales. */
template <FkCode C, int VALUES, int BYTES>
FK_DEVICE void scaled(const Args &a, int64_t row, int64_t col, float (&y)[8]) {
  constexpr bool blocks = VALUES > 8;
  eight<C>(a.codes + row * a.row_bytes + col / VALUES * BYTES, blocks ? (int)(col % VALUES) : 0, y);
  if (a.row_scale || a.block) {
    float scale = a.row_scale ? a.row_scale[row] : 1.0f;
    if (a.block) {
      const uint8_t code = a.block_scale[row * (a.cols / a.block) + col / a.block];
      scale = __fmul_rn(scale, a.power ? e8m0(code) : e4m3(code));
    }
#pragma unroll
    for (int u = 0; u < 8; u++) y[u] = __fmul_rn(y[u], scale);
  }
}

template <FkCode C, int VALUES, int BYTES> __global__ void expand_kernel(Args a) {
  const int64_t per_row = a.cols / 8, t = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
  if (t >= a.rows * per_row) return;
  const int64_t row = t / per_row, col = t % per_row * 8;
  float y[8];
  scaled<C, VALUES, BYTES>(a, row, col, y);
  fk_view_store<8>(a.y, row, col, y);
}

/* What adapters add. */
struct Added {
  const void *right, *left; /* of each term [rank, q]; [rows, ranks] */
  int64_t ranks;
  int n;
  struct {
    int rank, q;
    float scale;
  } term[FK_ADAPTED_TERMS];
};

/* All terms, to the tile's numbers. l: for left parts; right, left: of the tile's rows. */
template <typename T>
FK_DEVICE void add_terms(float (*w)[kAdaptCols], float (*l)[kAdaptRows], const Added &d, const T *right, const T *left,
                         int rows, int64_t col) {
  for (int t = 0; t < d.n; t++) {
    const int rank = d.term[t].rank, q = d.term[t].q;
    const float scale = d.term[t].scale;
    float s[kAdaptRows][kAdaptPerThread] = {};
    fk_adapt_term(s, l, right, left, d.ranks, rows, rank, q, col);
#pragma unroll
    for (int i = 0; i < kAdaptRows; i++)
#pragma unroll
      for (int c = 0; c < kAdaptPerThread; c++) {
        float *to = &w[i][threadIdx.x + c * kAdaptThreads];
        if (col + c * kAdaptThreads < q) *to = __fadd_rn(*to, __fmul_rn(scale, s[i][c]));
      }
    left += rank;
    right += (int64_t)rank * q;
  }
}

/* blockIdx.x: 16 rows; blockIdx.y: 256 columns. The tile's numbers are in shared memory between their codes, eight a
 * thread, and their store; a thread adds to those of its two columns. */
template <FkCode C, int VALUES, int BYTES>
__global__ __launch_bounds__(kAdaptThreads) void expand_adapted_kernel(Args a, Added d, int type) {
  __shared__ __align__(16) float w[kAdaptRows][kAdaptCols];
  __shared__ __align__(16) float l[kAdaptRanks][kAdaptRows];
  constexpr int per_row = kAdaptCols / 8;
  const int64_t first = (int64_t)blockIdx.x * kAdaptRows, begin = (int64_t)blockIdx.y * kAdaptCols;
  const int64_t col = begin + threadIdx.x;
  const int rows = (int)(a.rows - first < kAdaptRows ? a.rows - first : kAdaptRows);
  for (int i = threadIdx.x; i < kAdaptRows * per_row; i += kAdaptThreads) {
    const int row = i / per_row, at = i % per_row * 8;
    float y[8];
    if (row >= rows || begin + at >= a.cols) continue;
    scaled<C, VALUES, BYTES>(a, first + row, begin + at, y);
#pragma unroll
    for (int u = 0; u < 8; u += 4) *(float4 *)&w[row][at + u] = make_float4(y[u], y[u + 1], y[u + 2], y[u + 3]);
  }
  const int64_t left = first * d.ranks;
  if (type == FK_BF16)
    add_terms(w, l, d, (const __nv_bfloat16 *)d.right, (const __nv_bfloat16 *)d.left + left, rows, col);
  else if (type == FK_F16)
    add_terms(w, l, d, (const __half *)d.right, (const __half *)d.left + left, rows, col);
  else
    add_terms(w, l, d, (const float *)d.right, (const float *)d.left + left, rows, col);
  __syncthreads();
  for (int i = threadIdx.x; i < kAdaptRows * per_row; i += kAdaptThreads) {
    const int row = i / per_row, at = i % per_row * 8;
    float y[8];
    if (row >= rows || begin + at >= a.cols) continue;
#pragma unroll
    for (int u = 0; u < 8; u++) y[u] = w[row][at + u];
    fk_view_store<8>(a.y, first + row, begin + at, y);
  }
}

template <FkCode C, int VALUES, int BYTES>
cudaError_t launch_adapted(cudaStream_t stream, const Args &a, const FkCoded *x) {
  const int64_t down = (a.rows + kAdaptRows - 1) / kAdaptRows, across = (a.cols + kAdaptCols - 1) / kAdaptCols;
  const FkAdapted *m = x->adapted;
  Added d = {x->right, x->left, fk_adapted_ranks(m), m->n, {}};
  if (down > INT32_MAX || across > 65535 || m->n > FK_ADAPTED_TERMS) return cudaErrorNotSupported;
  for (int i = 0; i < m->n; i++) d.term[i] = {(int)m->term[i].rank, (int)m->term[i].q, m->term[i].scale};
  const dim3 grid((unsigned)down, (unsigned)across);
  expand_adapted_kernel<C, VALUES, BYTES><<<grid, kAdaptThreads, 0, stream>>>(a, d, x->operands);
  return cudaGetLastError();
}

template <FkCode C, int VALUES, int BYTES> cudaError_t launch(cudaStream_t stream, const Args &a, const FkCoded *x) {
  if (x->adapted) return launch_adapted<C, VALUES, BYTES>(stream, a, x);
  const int64_t threads = a.rows * (a.cols / 8), grid = (threads + 255) / 256;
  if (grid > INT32_MAX) return cudaErrorNotSupported;
  expand_kernel<C, VALUES, BYTES><<<(unsigned)grid, 256, 0, stream>>>(a);
  return cudaGetLastError();
}

} // namespace

cudaError_t fk_cuda_expand(FkCuda *cu, FkTensor y, const FkCoded *x, cudaStream_t stream) {
  const Args a = {(const uint8_t *)x->codes,
                  (const uint8_t *)x->block_scale,
                  x->row_scale,
                  x->rows,
                  x->cols,
                  (int64_t)fk_coded_row_bytes(x->form, x->cols),
                  x->form.block,
                  x->form.block_dtype == FK_E8M0,
                  fk_view(y)};
  if (x->cols % 8 || !fk_view_wide(y)) return fk_cuda_decline(cu, "rows of %lld numbers", (long long)x->cols);
  if (x->rows == 0 || x->cols == 0) return cudaSuccess;
  switch (x->form.code) {
#define LAUNCH(name, values, bytes)                                                                                    \
  case FK_CODE_##name: return launch<FK_CODE_##name, values, bytes>(stream ? stream : cu->stream, a, x);
    FK_CODE_LIST(LAUNCH)
  default: return cudaErrorNotSupported;
  }
}
