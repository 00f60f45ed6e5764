/* SPDX-License-Identifier: Apache-2.0 */
/* What adapters add to a weight, on the device: w = w + scale * (left right), term by term, as FkAdapted says, every
 * product and sum rounded (no fused multiply-add), so that the bytes are those of cpu-adapt.c.
 *
 * Tile: 16 rows x 256 columns a block of 128 threads, two columns a thread; 64 sums and numbers in registers, 4 KiB of
 * shared memory with the rows' left parts, 64 ranks at a time. Bound by arithmetic: a product and a sum for each rank,
 * 64 instructions on 2 loads of `right` (second-level cache) and 4 of shared memory. Rank 32 on 11.9 G weights: 24 G
 * instructions of a warp, 27 ms on 132 processors of 4 a clock at 1.7 GHz; the weights read and written: 48 GB, 12 ms.
 * Not measured. */
#include "adapt.cuh"
#include "common.cuh"
#include "module.cuh"

namespace {

constexpr int kRows = kAdaptRows, kThreads = kAdaptThreads, kPerThread = kAdaptPerThread, kCols = kAdaptCols;

typedef struct {
  void *to;
  const void *from;   /* [rows, cols]; may be `to` */
  const float *left;  /* [rows, ranks] */
  const float *right; /* of each term [rank, q] */
  int64_t rows, cols, ranks;
  int n;
  struct {
    int rank, q;
    float scale;
  } term[FK_ADAPTED_TERMS];
} Args;

FK_DEVICE void store(float *p, float v) {
  *p = v;
}
FK_DEVICE void store(__nv_bfloat16 *p, float v) {
  *p = __float2bfloat16_rn(v);
}

/* blockIdx.x: 16 rows; blockIdx.y: 256 columns. */
template <typename To, typename From> __global__ __launch_bounds__(kThreads) void adapt_rows_kernel(Args a) {
  __shared__ __align__(16) float l[kAdaptRanks][kRows];
  const int64_t row = (int64_t)blockIdx.x * kRows, col = (int64_t)blockIdx.y * kCols + threadIdx.x;
  const int rows = (int)(a.rows - row < kRows ? a.rows - row : kRows);
  const From *from = (const From *)a.from + row * a.cols + col;
  const float *left = a.left + row * a.ranks, *right = a.right;
  float w[kRows][kPerThread];
#pragma unroll
  for (int i = 0; i < kRows; i++)
#pragma unroll
    for (int c = 0; c < kPerThread; c++)
      w[i][c] = i < rows && col + c * kThreads < a.cols ? fk_adapt_wide(from[i * a.cols + c * kThreads]) : 0.0f;
  for (int t = 0; t < a.n; t++) {
    const int rank = a.term[t].rank, q = a.term[t].q;
    const float scale = a.term[t].scale;
    float s[kRows][kPerThread] = {};
    fk_adapt_term(s, l, right, left, a.ranks, rows, rank, q, col);
#pragma unroll
    for (int i = 0; i < kRows; i++)
#pragma unroll
      for (int c = 0; c < kPerThread; c++)
        if (col + c * kThreads < q) w[i][c] = __fadd_rn(w[i][c], __fmul_rn(scale, s[i][c]));
    left += rank;
    right += (int64_t)rank * q;
  }
  To *to = (To *)a.to + row * a.cols + col;
#pragma unroll
  for (int i = 0; i < kRows; i++)
#pragma unroll
    for (int c = 0; c < kPerThread; c++)
      if (i < rows && col + c * kThreads < a.cols) store(to + i * a.cols + c * kThreads, w[i][c]);
}

template <typename To, typename From> cudaError_t launch(FkCuda *cu, const Args &a) {
  const dim3 grid((unsigned)((a.rows + kRows - 1) / kRows), (unsigned)((a.cols + kCols - 1) / kCols));
  adapt_rows_kernel<To, From><<<grid, kThreads, 0, cu->stream>>>(a);
  return cudaGetLastError();
}

template <typename To> cudaError_t launch_from(FkCuda *cu, const Args &a, FkDtype from) {
  switch (from) {
  case FK_F32: return launch<To, float>(cu, a);
  case FK_F16: return launch<To, __half>(cu, a);
  case FK_BF16: return launch<To, __nv_bfloat16>(cu, a);
  default: return cudaErrorNotSupported;
  }
}

cudaError_t to_device(FkCuda *cu, void *to, const void *from, size_t bytes) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, cu->stream);
}

static_assert(FK_CUDA_SCRATCH_BYTES >= FK_ADAPTED_RIGHT + FK_ADAPTED_ROW, "at least one row a launch");

} // namespace

/* Scratch memory has the right parts, then the left ones of as many rows as fit, and the rows' numbers where these are
 * of another type than memory; else they go to their place at once. */
cudaError_t fk_cuda_upload_adapted(FkCuda *cu, const void *buffer, void *to, FkDtype as, const FkAdapted *m) {
  const int64_t ranks = fk_adapted_ranks(m);
  const size_t begin = fk_adapted_begin(m), right = fk_adapted_right(m), left = (size_t)ranks * sizeof(float);
  const size_t row = (size_t)m->cols * fk_dtype_size(m->from), room = FK_CUDA_SCRATCH_BYTES - right;
  const bool between = as != m->from;
  const char *host = (const char *)buffer;
  if ((as != FK_F32 && as != FK_BF16) || m->n > FK_ADAPTED_TERMS || (m->in_place && between) ||
      right > FK_ADAPTED_RIGHT || left + (size_t)m->cols * sizeof(float) > FK_ADAPTED_ROW)
    return cudaErrorNotSupported;
  if (m->rows == 0 || m->cols == 0) return cudaSuccess;
  const int64_t most = (int64_t)(room / (left + (between ? row : 0)));
  Args a = {.right = (const float *)cu->scratch, .cols = m->cols, .ranks = ranks, .n = m->n};
  for (int i = 0; i < m->n; i++) a.term[i] = {(int)m->term[i].rank, (int)m->term[i].q, m->term[i].scale};
  FK_CUDA_TRY(to_device(cu, cu->scratch, host + begin, right));
  if (!m->in_place && !between) FK_CUDA_TRY(to_device(cu, to, host, (size_t)m->rows * row));
  for (int64_t at = 0; at < m->rows; at += most) {
    a.rows = m->rows - at < most ? m->rows - at : most;
    char *lefts = cu->scratch + right, *numbers = lefts + (size_t)a.rows * left;
    a.left = (const float *)lefts;
    a.to = (char *)to + (size_t)(at * m->cols) * fk_dtype_size(as);
    a.from = between ? numbers : a.to;
    FK_CUDA_TRY(to_device(cu, lefts, host + begin + right + (size_t)at * left, (size_t)a.rows * left));
    if (between) FK_CUDA_TRY(to_device(cu, numbers, host + (size_t)at * row, (size_t)a.rows * row));
    FK_CUDA_TRY(as == FK_F32 ? launch_from<float>(cu, a, m->from) : launch_from<__nv_bfloat16>(cu, a, m->from));
  }
  return cudaSuccess;
}
