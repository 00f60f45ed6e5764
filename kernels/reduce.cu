/* SPDX-License-Identifier: Apache-2.0 */
/* Ops that read much and answer little: mean distance of two tensors, the search for NaN and infinity, the best match
 * of every row among others. Sums are taken in an order that follows from the shape alone; no atomics on floats. */
#include "device.cuh"

#include <string.h>

namespace {

constexpr int kPartBlocks = 512; /* partial sums at most */

/* Element i of the flattened rows. */
template <int V> FK_DEVICE void load_flat(const FkView &t, int64_t i, int64_t cols, bool dense, float (&v)[V]) {
  if (dense)
    fk_view_load<V>(t, 0, i, v);
  else
    fk_view_load<V>(t, i / cols, i % cols, v);
}

/* partial[block] = sums of |a - b| and |b| over the elements that fall to the block. Up to 512 blocks of 256 threads,
 * eight elements of each operand at a time (V = 8); 64 bytes shared, 32 registers. Bound by memory: one read of both.
 */
template <int V>
__global__ void __launch_bounds__(256)
    distance_kernel(FkView a, FkView b, int64_t count, int64_t cols, bool dense, float2 *partial) {
  __shared__ float scratch[2][8];
  float apart = 0, size = 0, v[V], w[V];
  for (int64_t i = ((int64_t)blockIdx.x * 256 + threadIdx.x) * V; i < count; i += (int64_t)gridDim.x * 256 * V) {
    load_flat<V>(a, i, cols, dense, v);
    load_flat<V>(b, i, cols, dense, w);
#pragma unroll
    for (int k = 0; k < V; k++) apart += fabsf(v[k] - w[k]), size += fabsf(w[k]);
  }
  apart = fk_block_sum(apart, scratch[0]);
  size = fk_block_sum(size, scratch[1]);
  if (threadIdx.x == 0) partial[blockIdx.x] = make_float2(apart, size);
}

/* One thread adds the partial sums in order, at most 512 from L2, eight in flight; 32 registers. Bound by their
 * latency.
 */
__global__ void distance_finish_kernel(const float2 *partial, int blocks, int64_t count, float *out) {
  double apart = 0, size = 0;
#pragma unroll 8
  for (int i = 0; i < blocks; i++) apart += partial[i].x, size += partial[i].y;
  out[0] = (float)(apart / (double)count);
  out[1] = (float)(size / (double)count);
}

/* Eight blocks of 256 threads a multiprocessor, eight elements at a time (V = 8); 22 registers. Bound by memory: one
 * read. */
template <int V>
__global__ void __launch_bounds__(256) check_kernel(FkView x, int64_t count, int64_t cols, bool dense, int *flag) {
  bool bad = false;
  float v[V];
  for (int64_t i = ((int64_t)blockIdx.x * 256 + threadIdx.x) * V; i < count; i += (int64_t)gridDim.x * 256 * V) {
    load_flat<V>(x, i, cols, dense, v);
#pragma unroll
    for (int k = 0; k < V; k++) bad = bad || !isfinite(v[k]);
  }
  if (bad) *(volatile int *)flag = 1; /* every writer writes the same */
}

/* Scores of 32 source rows (block) against all destinations, 32 at a time: 256 threads as 16 x 16, each 2 x 2 products,
 * D in slices of 32 through shared memory (8,448 bytes); 48 registers. Float32 throughout. Ties go to the lower
 * destination. Bound by shared memory: four words for the eight multiply-adds of a column. */
constexpr int kMatch = 32;

struct MatchBest {
  float score;
  int index;
};

FK_DEVICE MatchBest better(MatchBest a, MatchBest b) {
  return b.score > a.score || (b.score == a.score && b.index < a.index) ? b : a;
}

FK_DEVICE void match_slice(const FkView &t, int64_t first, int64_t rows, int64_t col, int64_t cols,
                           float (&to)[kMatch][kMatch + 1]) {
  for (int i = threadIdx.x; i < kMatch * kMatch; i += 256) {
    const int r = i / kMatch, c = i % kMatch;
    float v[1] = {0};
    if (first + r < rows && col + c < cols) fk_view_load<1>(t, first + r, col + c, v);
    to[r][c] = v[0];
  }
}

__global__ void __launch_bounds__(256)
    match_kernel(FkView src, FkView dst, int64_t a, int64_t b, int64_t d, int *best, float *score) {
  __shared__ float s[kMatch][kMatch + 1], t[kMatch][kMatch + 1];
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
  const int64_t first = (int64_t)blockIdx.x * kMatch;
  MatchBest top[2] = {{-INFINITY, 0}, {-INFINITY, 0}};
  for (int64_t j = 0; j < b; j += kMatch) {
    float dot[2][2] = {}, ss[2] = {}, tt[2] = {};
    for (int64_t col = 0; col < d; col += kMatch) {
      __syncthreads();
      match_slice(src, first, a, col, d, s);
      match_slice(dst, j, b, col, d, t);
      __syncthreads();
#pragma unroll
      for (int c = 0; c < kMatch; c++) {
        const float p[2] = {s[y][c], s[y + 16][c]}, q[2] = {t[x][c], t[x + 16][c]};
#pragma unroll
        for (int m = 0; m < 2; m++) {
          ss[m] += p[m] * p[m], tt[m] += q[m] * q[m];
          dot[m][0] += p[m] * q[0], dot[m][1] += p[m] * q[1];
        }
      }
    }
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
      for (int n = 0; n < 2; n++) {
        const int64_t to = j + x + 16 * n;
        const float both = sqrtf(ss[m]) * sqrtf(tt[n]);
        if (to < b) top[m] = better(top[m], MatchBest{both > 0 ? dot[m][n] / both : 0.0f, (int)to});
      }
  }
#pragma unroll
  for (int m = 0; m < 2; m++) {
    for (int i = 8; i; i >>= 1) {
      const MatchBest other = {__shfl_xor_sync(0xffffffffu, top[m].score, i),
                               __shfl_xor_sync(0xffffffffu, top[m].index, i)};
      top[m] = better(top[m], other);
    }
    const int64_t row = first + y + 16 * m;
    if (x == 0 && row < a) best[row] = top[m].index, score[row] = top[m].score;
  }
}

int64_t blocks_for(int64_t count, int vector, int64_t most) {
  const int64_t blocks = (count + 256 * vector - 1) / (256 * vector);
  return blocks < 1 ? 1 : blocks < most ? blocks : most;
}

/* The word of a stage's name; the last one serves all names past the table. */
int stage_flag(FkCuda *cu, const char *stage) {
  for (int i = 0; i < cu->stages; i++)
    if (strcmp(cu->stage[i], stage) == 0) return i;
  if (cu->stages == FK_CUDA_STAGES) return FK_CUDA_STAGES - 1;
  cu->stage[cu->stages] = stage;
  return cu->stages++;
}

} // namespace

cudaError_t fk_cuda_distance(FkCuda *cu, FkTensor out, FkTensor a, FkTensor b) {
  const int64_t count = fk_tensor_count(a), cols = fk_tensor_cols(a);
  const bool dense = fk_view_dense(a) && fk_view_dense(b);
  const bool wide = fk_view_wide(a) && fk_view_wide(b) && (dense ? count : cols) % 8 == 0;
  const int64_t blocks = blocks_for(count, wide ? 8 : 1, kPartBlocks);
  float2 *partial = (float2 *)cu->scratch;
  static_assert(kPartBlocks * sizeof *partial <= FK_CUDA_SCRATCH_BYTES, "scratch");
  if (!fk_view_known(a) || !fk_view_known(b)) return cudaErrorNotSupported;
  if (wide)
    distance_kernel<8><<<(unsigned)blocks, 256, 0, cu->stream>>>(fk_view(a), fk_view(b), count, cols, dense, partial);
  else
    distance_kernel<1><<<(unsigned)blocks, 256, 0, cu->stream>>>(fk_view(a), fk_view(b), count, cols, dense, partial);
  FK_CUDA_TRY(cudaGetLastError());
  distance_finish_kernel<<<1, 1, 0, cu->stream>>>(partial, (int)blocks, count, (float *)out.data);
  return cudaGetLastError();
}

cudaError_t fk_cuda_check(FkCuda *cu, FkTensor x, const char *stage) {
  const int64_t count = fk_tensor_count(x), cols = fk_tensor_cols(x);
  if (count == 0 || x.dtype == FK_I32 || x.dtype == FK_U8 || x.dtype == FK_I8) return cudaSuccess; /* always finite */
  if (!fk_view_known(x)) return cudaErrorNotSupported;
  const bool dense = fk_view_dense(x), wide = fk_view_wide(x) && (dense ? count : cols) % 8 == 0;
  const unsigned blocks = (unsigned)blocks_for(count, wide ? 8 : 1, (int64_t)cu->sms * 8);
  int *flag = cu->flags_device + stage_flag(cu, stage);
  if (wide)
    check_kernel<8><<<blocks, 256, 0, cu->stream>>>(fk_view(x), count, cols, dense, flag);
  else
    check_kernel<1><<<blocks, 256, 0, cu->stream>>>(fk_view(x), count, cols, dense, flag);
  return cudaGetLastError();
}

cudaError_t fk_cuda_match(FkCuda *cu, FkTensor best, FkTensor score, FkTensor src, FkTensor dst) {
  const int64_t a = fk_tensor_rows(src), b = fk_tensor_rows(dst);
  if (!fk_view_known(src) || !fk_view_known(dst)) return cudaErrorNotSupported;
  if (a == 0) return cudaSuccess;
  match_kernel<<<(unsigned)((a + kMatch - 1) / kMatch), 256, 0, cu->stream>>>(
      fk_view(src), fk_view(dst), a, b, fk_tensor_cols(src), (int *)best.data, (float *)score.data);
  return cudaGetLastError();
}
