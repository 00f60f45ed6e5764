/* SPDX-License-Identifier: Apache-2.0 */
/* Layer norm with modulation, RMS norm, group norm with SiLU. All are bound by memory. Layer norm and RMS norm read a
 * row once into registers (a warp a row) and take the variance about the mean from there. Group norm needs two passes
 * over the map: statistics, then the normalisation. Every sum has an order that follows from the shape alone. */
#include "device.cuh"

namespace {

/* ---- rows in registers: layer norm and RMS norm ----------------------------------------------------------------- */

struct RowGroup {
  FkView x, y;
  const float *mul, *add; /* [cols] or NULL: y = norm * (mul + one) + add */
  float one;
  int64_t rows;
};

struct RowArgs {
  RowGroup group[FK_MAX_GROUPS];
  int64_t cols, split; /* elements normalised together; such pieces in a row of the view */
  float eps;
  bool center; /* layer norm; else RMS norm */
};

constexpr int kRowWarps = 4;

/* A warp normalises one piece (a row, or a head of one), which it holds in registers: cols <= 256 * N, cols % 8 == 0,
 * bf16, 16-byte aligned rows. 128 threads, no shared memory; registers 40 (N = 1), 72 (8), 96 (12), 110 (16), of which
 * 4 N are the row. Bound by memory (one read, one write); below a few thousand pieces by its latency. */
template <int N> __global__ void __launch_bounds__(128) norm_rows_kernel(const RowArgs a) {
  const int lane = threadIdx.x & 31;
  int64_t piece = (int64_t)blockIdx.x * kRowWarps + (threadIdx.x >> 5);
  const bool second = piece >= a.group[0].rows * a.split;
  if (second) piece -= a.group[0].rows * a.split;
  const RowGroup &g = a.group[second];
  if (piece >= g.rows * a.split) return;
  const int64_t row = a.split == 1 ? piece : piece / a.split, first = a.split == 1 ? 0 : piece % a.split * a.cols;
  const int cols = (int)a.cols;
  const __nv_bfloat16 *x = (const __nv_bfloat16 *)g.x.data + row * g.x.ld + first;
  __nv_bfloat16 *y = (__nv_bfloat16 *)g.y.data + row * g.y.ld + first;
  uint4 raw[N];
  float v[8], sum = 0, squares = 0;
#pragma unroll
  for (int i = 0; i < N; i++) {
    const int c = (i * 32 + lane) * 8;
    raw[i] = c < cols ? *(const uint4 *)(x + c) : make_uint4(0, 0, 0, 0);
  }
  if (a.center) {
#pragma unroll
    for (int i = 0; i < N; i++) {
      fk_unpack8(raw[i], v);
      sum += ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
    }
    sum = fk_warp_sum(sum);
  }
  const float mean = sum / (float)cols;
#pragma unroll
  for (int i = 0; i < N; i++) {
    if ((i * 32 + lane) * 8 >= cols) break;
    fk_unpack8(raw[i], v);
#pragma unroll
    for (int k = 0; k < 8; k++) squares += (v[k] - mean) * (v[k] - mean);
  }
  const float scale = rsqrtf(fk_warp_sum(squares) / (float)cols + a.eps);
#pragma unroll
  for (int i = 0; i < N; i++) {
    const int c = (i * 32 + lane) * 8;
    if (c >= cols) break;
    float mul[8], add[8];
    fk_unpack8(raw[i], v);
    if (g.mul) fk_load8(g.mul + c, mul);
    if (g.add) fk_load8(g.add + c, add);
#pragma unroll
    for (int k = 0; k < 8; k++) {
      v[k] = (v[k] - mean) * scale;
      if (g.mul) v[k] *= mul[k] + g.one;
      if (g.add) v[k] += add[k];
    }
    fk_store8(y + c, v);
  }
}

/* ---- many long rows: the modulated layer norm of the transformer ------------------------------------------------- */

constexpr int kAhead = 2; /* rows whose loads are in flight */

/* A block of W warps takes every gridDim.x-th row of 256 W V columns, V vectors of 8 a thread, and keeps its columns'
 * factors in registers: reading those for every row would cost four times the row itself. One barrier a row: every
 * thread knows the mean of its own elements and the squares about it; lanes and then warps merge theirs. No sum of
 * squares about a far point, so no cancellation. The buffers of the barrier alternate: a warp may be one row ahead of
 * another. */
template <int W, int V>
FK_DEVICE void norm_long_rows(const RowGroup &g, float eps, int64_t first, int n, float2 (&part)[2][W]) {
  const int64_t step_x = g.x.ld * gridDim.x, step_y = g.y.ld * gridDim.x;
  constexpr int kEach = 8 * V, kWarp = 32 * kEach;
  const int c = threadIdx.x * 8;
  const __nv_bfloat16 *x = (const __nv_bfloat16 *)g.x.data + first * g.x.ld + c;
  __nv_bfloat16 *y = (__nv_bfloat16 *)g.y.data + first * g.y.ld + c;
  float mul[V][8] = {}, add[V][8] = {};
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
#pragma unroll
      for (int j = 0; j < V; j++) {
#pragma unroll
        for (int k = 0; k < 8; k++) v[j][k] = (v[j][k] - mean) * scale * mul[j][k] + add[j][k];
        fk_store8(y + j * W * 256, v[j]);
      }
      x += step_x, y += step_y;
    }
  }
}

/* 3072 columns (W = 4, V = 3): 128 threads, four blocks a multiprocessor; 64 bytes shared; 128 registers. Bound by
 * memory. Measured on an H200: 8704 rows 31.8 us (79 % of the floor), 65536 rows 214 us (89 %). */
template <int W, int V, int Blocks>
__global__ void __launch_bounds__(W * 32, Blocks) norm_long_kernel(const RowArgs a) {
  __shared__ float2 part[2][W];
  int64_t first = blockIdx.x;
#pragma unroll
  for (int g = 0; g < FK_MAX_GROUPS; g++) { /* a block's rows pass from the first group to the second */
    const int64_t left = a.group[g].rows - first;
    const int n = left > 0 ? (int)((left + gridDim.x - 1) / gridDim.x) : 0;
    if (n > 0) norm_long_rows<W, V>(a.group[g], a.eps, first, n, part);
    __syncthreads();
    first += (int64_t)n * gridDim.x - a.group[g].rows;
  }
}

/* Any width, dtype and alignment: a block of 256 threads a piece, which is read three times (twice from L1), an element
 * at a time; 64 bytes shared, 32 registers. Bound by the latency of these reads. */
__global__ void __launch_bounds__(256) norm_any_kernel(const RowArgs a) {
  __shared__ float scratch[2][8];
  int64_t piece = blockIdx.x;
  const bool second = piece >= a.group[0].rows * a.split;
  if (second) piece -= a.group[0].rows * a.split;
  const RowGroup &g = a.group[second];
  const int64_t row = piece / a.split, first = piece % a.split * a.cols;
  float v[1], sum = 0, squares = 0;
  for (int64_t c = threadIdx.x; a.center && c < a.cols; c += blockDim.x) {
    fk_view_load<1>(g.x, row, first + c, v);
    sum += v[0];
  }
  const float mean = fk_block_sum(sum, scratch[0]) / (float)a.cols;
  for (int64_t c = threadIdx.x; c < a.cols; c += blockDim.x) {
    fk_view_load<1>(g.x, row, first + c, v);
    squares += (v[0] - mean) * (v[0] - mean);
  }
  const float scale = rsqrtf(fk_block_sum(squares, scratch[1]) / (float)a.cols + a.eps);
  for (int64_t c = threadIdx.x; c < a.cols; c += blockDim.x) {
    fk_view_load<1>(g.x, row, first + c, v);
    v[0] = (v[0] - mean) * scale;
    if (g.mul) v[0] *= g.mul[c] + g.one;
    if (g.add) v[0] += g.add[c];
    fk_view_store<1>(g.y, row, first + c, v);
  }
}

bool row_fast(FkTensor x, FkTensor y) {
  return fk_cuda_rows16(x) && fk_cuda_rows16(y);
}

bool vector_fast(const float *p) {
  return (uintptr_t)p % 16 == 0;
}

cudaError_t launch_rows(FkCuda *cu, const RowArgs &a, bool fast) {
  const int64_t pieces = (a.group[0].rows + a.group[1].rows) * a.split;
  const unsigned blocks = (unsigned)((pieces + kRowWarps - 1) / kRowWarps);
  if (pieces == 0) return cudaSuccess;
  if (fast && a.center && a.cols == 3072 && pieces >= 1024) { /* enough rows to fill the machine with such blocks */
    const int64_t resident = 4 * cu->sms;
    norm_long_kernel<4, 3, 4><<<(unsigned)(pieces < resident ? pieces : resident), 128, 0, cu->stream>>>(a);
    return cudaGetLastError();
  }
  if (!fast || a.cols % 8 || a.cols > 4096)
    norm_any_kernel<<<(unsigned)pieces, 256, 0, cu->stream>>>(a);
  else if (a.cols <= 256)
    norm_rows_kernel<1><<<blocks, 128, 0, cu->stream>>>(a);
  else if (a.cols <= 768)
    norm_rows_kernel<3><<<blocks, 128, 0, cu->stream>>>(a);
  else if (a.cols <= 2048)
    norm_rows_kernel<8><<<blocks, 128, 0, cu->stream>>>(a);
  else if (a.cols <= 3072)
    norm_rows_kernel<12><<<blocks, 128, 0, cu->stream>>>(a);
  else
    norm_rows_kernel<16><<<blocks, 128, 0, cu->stream>>>(a);
  return cudaGetLastError();
}

/* ---- group norm ------------------------------------------------------------------------------------------------- */

constexpr int kGroupBlocks = 512; /* partial sums of a map at most; from the shape alone */
constexpr int kGroupUnroll = 4;   /* loads of 16 bytes in flight a thread */
constexpr int kMaxGroups = 64;

struct GroupArgs {
  FkView x, y;
  const float *weight, *bias;
  int64_t rows, rows_a_block;
  int channels, groups, width; /* channels a group */
  float eps;
  bool silu;
  float2 *partial; /* [blocks][groups] sums of (x - pivot) and its square */
  float2 *stats;   /* [groups] mean, 1 / sqrt(var + eps) */
  unsigned *counter;
};

/* First element of the group: sums are taken about it, so that a large mean does not swallow the variance. */
FK_DEVICE float group_pivot(const GroupArgs &a, int group) {
  float v[1];
  fk_view_load<1>(a.x, 0, group * a.width, v);
  return v[0];
}

/* The last block to finish adds the partial sums, block by block in order, in double. Eight threads a group. */
FK_DEVICE void group_finish(const GroupArgs &a, int tid, int threads, int blocks, double2 *shared) {
  for (int i = tid; i < a.groups * 8; i += threads) {
    const int g = i >> 3;
    double sum = 0, squares = 0;
#pragma unroll 16
    for (int b = i & 7; b < blocks; b += 8) {
      const float2 p = __ldcg(&a.partial[(int64_t)b * a.groups + g]);
      sum += p.x, squares += p.y;
    }
    shared[i] = make_double2(sum, squares);
  }
  __syncthreads();
  for (int g = tid; g < a.groups; g += threads) {
    double sum = 0, squares = 0;
    for (int k = 0; k < 8; k++) sum += shared[g * 8 + k].x, squares += shared[g * 8 + k].y;
    const double n = (double)a.rows * a.width, mean = sum / n, var = squares / n - mean * mean;
    a.stats[g] = make_float2((float)(mean + group_pivot(a, g)), (float)(1.0 / sqrt((var > 0 ? var : 0) + a.eps)));
  }
}

/* Block: (channels / 8, rows at a time), up to 256 threads, a column of 8 channels a thread, four rows in flight. Part
 * = channels of a thread that share a group: 8, 4, 2 or 1. Shared: one float2 for each such part and the last block's
 * sums, 10 (Part 8) to 24 KB (Part 1); 48 to 64 registers. Bound by memory: one read of the map. */
template <int Part> __global__ void __launch_bounds__(256) group_stats_kernel(const GroupArgs a) {
  __shared__ float2 part[256 * 8 / Part];
  __shared__ double2 shared[kMaxGroups * 8];
  __shared__ bool last;
  const int col = threadIdx.x * 8, parts = a.channels / Part, tid = threadIdx.y * blockDim.x + threadIdx.x;
  const int threads = blockDim.x * blockDim.y;
  float pivot[8 / Part], sum[8 / Part] = {}, squares[8 / Part] = {};
#pragma unroll
  for (int i = 0; i < 8 / Part; i++) pivot[i] = group_pivot(a, (col + i * Part) / a.width);
  const int64_t begin = blockIdx.x * a.rows_a_block, step = blockDim.y;
  const int64_t end = begin + a.rows_a_block < a.rows ? begin + a.rows_a_block : a.rows;
  for (int64_t row = begin + threadIdx.y; row < end; row += step * kGroupUnroll) {
    uint4 raw[kGroupUnroll];
#pragma unroll
    for (int u = 0; u < kGroupUnroll; u++)
      if (row + u * step < end)
        raw[u] = *(const uint4 *)((const __nv_bfloat16 *)a.x.data + (row + u * step) * a.x.ld + col);
#pragma unroll
    for (int u = 0; u < kGroupUnroll; u++) {
      if (row + u * step >= end) break;
      float v[8];
      fk_unpack8(raw[u], v);
#pragma unroll
      for (int k = 0; k < 8; k++) {
        const float d = v[k] - pivot[k / Part];
        sum[k / Part] += d;
        squares[k / Part] += d * d;
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 8 / Part; i++)
    part[threadIdx.y * parts + threadIdx.x * (8 / Part) + i] = make_float2(sum[i], squares[i]);
  __syncthreads();
  for (int g = tid; g < a.groups; g += threads) {
    const int each = a.width / Part;
    float s = 0, q = 0;
    for (unsigned r = 0; r < blockDim.y; r++)
      for (int i = 0; i < each; i++) {
        const float2 p = part[r * parts + g * each + i];
        s += p.x, q += p.y;
      }
    a.partial[(int64_t)blockIdx.x * a.groups + g] = make_float2(s, q);
  }
  __threadfence();
  __syncthreads();
  if (tid == 0) last = atomicInc(a.counter, gridDim.x - 1) == gridDim.x - 1; /* leaves zero behind */
  __syncthreads();
  if (last) group_finish(a, tid, threads, gridDim.x, shared);
}

/* Same block; each thread keeps the factors of its 8 channels; no shared memory, 64 registers. Bound by memory: the
 * second read of the map (of a small one from L2) and one write. Measured on an H200, both kernels, SiLU: 1024 x 1024 x
 * 256 423 us (90 % of the floor), 128 x 128 x 512 22 to 24 us (50 to 54 %: two launches). */
__global__ void __launch_bounds__(256) group_apply_kernel(const GroupArgs a) {
  const int col = threadIdx.x * 8;
  float mul[8], add[8];
#pragma unroll
  for (int k = 0; k < 8; k++) {
    const float2 s = a.stats[(col + k) / a.width];
    mul[k] = s.y * (a.weight ? a.weight[col + k] : 1.0f);
    add[k] = (a.bias ? a.bias[col + k] : 0.0f) - s.x * mul[k];
  }
  const int64_t step = blockDim.y, span = step * kGroupUnroll;
  for (int64_t row = blockIdx.x * span + threadIdx.y; row < a.rows; row += gridDim.x * span) {
    uint4 raw[kGroupUnroll];
#pragma unroll
    for (int u = 0; u < kGroupUnroll; u++)
      if (row + u * step < a.rows)
        raw[u] = *(const uint4 *)((const __nv_bfloat16 *)a.x.data + (row + u * step) * a.x.ld + col);
#pragma unroll
    for (int u = 0; u < kGroupUnroll; u++) {
      if (row + u * step >= a.rows) break;
      float v[8];
      fk_unpack8(raw[u], v);
#pragma unroll
      for (int k = 0; k < 8; k++) v[k] = v[k] * mul[k] + add[k];
      if (a.silu) {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = fk_silu(v[i]);
      }
      fk_store8((__nv_bfloat16 *)a.y.data + (row + u * step) * a.y.ld + col, v);
    }
  }
}

/* Any channel count, dtype and alignment: one block of 256 threads a group, three walks over it, an element at a time;
 * 64 bytes shared, 32 registers. Bound by latency: as many blocks as groups. */
__global__ void __launch_bounds__(256) group_any_kernel(const GroupArgs a) {
  __shared__ float scratch[2][8];
  const int64_t n = a.rows * a.width;
  const int first = blockIdx.x * a.width;
  float v[1], sum = 0, squares = 0;
  for (int64_t i = threadIdx.x; i < n; i += 256) {
    fk_view_load<1>(a.x, i / a.width, first + i % a.width, v);
    sum += v[0];
  }
  const float mean = fk_block_sum(sum, scratch[0]) / (float)n;
  for (int64_t i = threadIdx.x; i < n; i += 256) {
    fk_view_load<1>(a.x, i / a.width, first + i % a.width, v);
    squares += (v[0] - mean) * (v[0] - mean);
  }
  const float scale = rsqrtf(fk_block_sum(squares, scratch[1]) / (float)n + a.eps);
  for (int64_t i = threadIdx.x; i < n; i += 256) {
    const int c = first + (int)(i % a.width);
    fk_view_load<1>(a.x, i / a.width, c, v);
    v[0] = (v[0] - mean) * scale * (a.weight ? a.weight[c] : 1.0f) + (a.bias ? a.bias[c] : 0.0f);
    if (a.silu) v[0] = fk_silu(v[0]);
    fk_view_store<1>(a.y, i / a.width, c, v);
  }
}

cudaError_t launch_group_norm(FkCuda *cu, const FkGroupNorm *n, bool silu) {
  GroupArgs a = {};
  if (!fk_view_known(n->x) || !fk_view_known(n->y)) return cudaErrorNotSupported;
  const int64_t channels = fk_tensor_cols(n->x);
  a.x = fk_view(n->x), a.y = fk_view(n->y);
  a.weight = (const float *)n->weight.data, a.bias = (const float *)n->bias.data;
  a.rows = fk_tensor_rows(n->x), a.channels = (int)channels, a.groups = n->groups;
  a.width = a.channels / a.groups, a.eps = n->eps, a.silu = silu;
  a.partial = (float2 *)cu->scratch, a.stats = a.partial + kGroupBlocks * kMaxGroups, a.counter = cu->counter;
  static_assert((kGroupBlocks + 1) * kMaxGroups * sizeof *a.partial <= FK_CUDA_SCRATCH_BYTES, "scratch");
  const int part = a.width % 8 == 0 ? 8 : 8 % a.width == 0 ? a.width : 0;
  if (!row_fast(n->x, n->y) || channels % 8 || channels > 2048 || a.groups > kMaxGroups || !part) {
    group_any_kernel<<<a.groups, 256, 0, cu->stream>>>(a);
    return cudaGetLastError();
  }
  const dim3 block(a.channels / 8, channels >= 2048 ? 1 : 2048 / a.channels);
  const int64_t span = (int64_t)block.y * kGroupUnroll, spans = (a.rows + span - 1) / span;
  /* At least four spans a block: with less, adding up the partial sums costs more than it spares. */
  const int64_t each = (spans + kGroupBlocks - 1) / kGroupBlocks;
  a.rows_a_block = (each < 4 ? 4 : each) * span;
  const unsigned blocks = (unsigned)((a.rows + a.rows_a_block - 1) / a.rows_a_block);
  if (part == 8)
    group_stats_kernel<8><<<blocks, block, 0, cu->stream>>>(a);
  else if (part == 4)
    group_stats_kernel<4><<<blocks, block, 0, cu->stream>>>(a);
  else if (part == 2)
    group_stats_kernel<2><<<blocks, block, 0, cu->stream>>>(a);
  else
    group_stats_kernel<1><<<blocks, block, 0, cu->stream>>>(a);
  FK_CUDA_TRY(cudaGetLastError());
  const int64_t waves = (int64_t)cu->sms * 16;
  group_apply_kernel<<<(unsigned)(spans < waves ? spans : waves), block, 0, cu->stream>>>(a);
  return cudaGetLastError();
}

} // namespace

cudaError_t fk_cuda_layer_norm(FkCuda *cu, const FkLayerNorm *n, int groups) {
  RowArgs a = {};
  bool fast = true, known = true;
  assert(groups >= 1 && groups <= FK_MAX_GROUPS);
  a.cols = fk_tensor_cols(n[0].x), a.split = 1, a.eps = n[0].eps, a.center = true;
  for (int i = 0; i < groups; i++) {
    const bool modulated = fk_tensor_given(n[i].scale) || fk_tensor_given(n[i].shift);
    RowGroup *g = &a.group[i];
    g->x = fk_view(n[i].x), g->y = fk_view(n[i].y), g->rows = fk_tensor_rows(n[i].x);
    g->mul = (const float *)(modulated ? n[i].scale.data : n[i].weight.data);
    g->add = (const float *)(modulated ? n[i].shift.data : n[i].bias.data);
    g->one = modulated ? 1.0f : 0.0f;
    fast = fast && row_fast(n[i].x, n[i].y) && vector_fast(g->mul) && vector_fast(g->add);
    known = known && fk_view_known(n[i].x) && fk_view_known(n[i].y) && !fk_tensor_given(n[i].y_scale);
  }
  return known ? launch_rows(cu, a, fast) : cudaErrorNotSupported;
}

cudaError_t fk_cuda_rms_norm(FkCuda *cu, FkTensor y, FkTensor x, FkTensor weight, float eps) {
  RowArgs a = {};
  if (!fk_view_known(x) || !fk_view_known(y)) return cudaErrorNotSupported;
  a.cols = fk_tensor_given(weight) ? weight.dim[0] : fk_tensor_cols(x);
  a.split = fk_tensor_cols(x) / a.cols, a.eps = eps, a.center = false;
  a.group[0] = RowGroup{fk_view(x), fk_view(y), (const float *)weight.data, NULL, 0.0f, fk_tensor_rows(x)};
  return launch_rows(cu, a, row_fast(x, y) && vector_fast(a.group[0].mul));
}

cudaError_t fk_cuda_group_norm(FkCuda *cu, const FkGroupNorm *n) {
  return launch_group_norm(cu, n, false);
}

cudaError_t fk_cuda_group_norm_silu(FkCuda *cu, const FkGroupNorm *n) {
  return launch_group_norm(cu, n, n->silu);
}
