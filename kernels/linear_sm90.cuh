/* SPDX-License-Identifier: Apache-2.0 */
/* Device side of the bf16 linear layer on sm_90a for few rows, and for widths that linear_pingpong_sm90.cuh does not
 * take: y = epilogue(x W^T + bias), up to two groups of rows in one launch, bf16 or float32 result. Launch code is in
 * linear.cu.
 *
 * Reading the weights once is what it costs: persistent blocks, one warpgroup of copies, one of products with tiles of
 * 64 rows x BN columns, of which `step` are used so that the columns are dealt out evenly over the machine. */
#ifndef FK_LINEAR_SM90_CUH
#define FK_LINEAR_SM90_CUH

#include "linear_epilogue.cuh"

constexpr int FK_LINEAR_BK = 64, FK_LINEAR_ROWS = 64;
constexpr int FK_LINEAR_SMEM = 232448; /* what a block may have on sm_90 */

/* Units are tiles; those of group 0 come first, rows before columns. */
typedef struct {
  CUtensorMap x[2], w[2];
  FkLinearRows rows[2];
  int n, k_blocks, width; /* width: D of the QKV epilogue */
  int step, n_tiles;      /* columns of a tile, column tiles */
  int row_tiles[2];       /* of each group */
  int units;
} FkLinearArgs;

typedef struct {
  int group, row, col, end; /* row inside the group; columns col..end */
} FkLinearTile;

FK_DEVICE FkLinearTile fk_linear_tile(const FkLinearArgs &a, int unit) {
  int tiles = a.row_tiles[0] + a.row_tiles[1], row = unit % tiles;
  FkLinearTile t;
  t.col = unit / tiles * a.step;
  t.end = min(t.col + a.step, a.n);
  t.group = row >= a.row_tiles[0];
  t.row = (t.group ? row - a.row_tiles[0] : row) * FK_LINEAR_ROWS;
  return t;
}

/* A quad exchanges its pairs so that each thread holds eight neighbouring columns of each 32. */
template <int Regs> FK_DEVICE void fk_linear_transpose(float (&acc)[Regs]) {
  int p = threadIdx.x & 3;
#pragma unroll
  for (int t = 0; t < Regs / 16; t++)
#pragma unroll
    for (int b = 1; b < 4; b *= 2)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        if (i & b) continue;
#pragma unroll
        for (int e = 0; e < 4; e++) {
          float &lo = acc[16 * t + 4 * i + e], &hi = acc[16 * t + 4 * (i | b) + e];
          bool up = p & b;
          float got = __shfl_xor_sync(0xffffffffu, up ? lo : hi, b);
          if (up) lo = got;
          if (!up) hi = got;
        }
      }
}

/* Shared memory: stages, vectors of two tiles, barriers. */
template <int BN> struct FkLinearShape {
  static constexpr int x_bytes = FK_LINEAR_ROWS * FK_LINEAR_BK * 2, w_bytes = BN * FK_LINEAR_BK * 2;
  static constexpr int stage_bytes = x_bytes + w_bytes;
  static constexpr int vector_bytes = 2 * 2 * BN * 4; /* bias and gate or norm weights */
  static constexpr int fit = (FK_LINEAR_SMEM - 256 - vector_bytes) / stage_bytes, stages = fit < 8 ? fit : 8;
  static constexpr int smem_bytes = stages * stage_bytes + vector_bytes + stages * 16;
};

template <int BN>
FK_DEVICE void fk_linear_produce(const FkLinearArgs &a, uint32_t smem, uint32_t full, uint32_t empty) {
  using S = FkLinearShape<BN>;
  int stage = 0, phase = 1, bytes = S::x_bytes + a.step * FK_LINEAR_BK * 2;
  for (int unit = blockIdx.x; unit < a.units; unit += gridDim.x) {
    FkLinearTile t = fk_linear_tile(a, unit);
    for (int k = 0; k < a.k_blocks; k++) {
      uint32_t bar = full + 8 * stage, xs = smem + stage * S::stage_bytes;
      fk_mbar_wait(empty + 8 * stage, phase);
      fk_mbar_expect(bar, bytes);
      fk_tma_load_2d(xs, &a.x[t.group], bar, k * FK_LINEAR_BK, t.row);
      fk_tma_load_2d(xs + S::x_bytes, &a.w[t.group], bar, k * FK_LINEAR_BK, t.col);
      if (++stage == S::stages) stage = 0, phase ^= 1;
    }
  }
}

/* The products of one stage, left running. keep 0: start from zero. */
template <int BN> FK_DEVICE void fk_linear_block(float (&acc)[BN / 2], uint64_t xd, uint64_t wd, int keep) {
  fk_wgmma_fence();
  FkWgmma<BN>::ss(acc, xd, wd, keep);
#pragma unroll
  for (int j = 1; j < FK_LINEAR_BK / 16; j++) FkWgmma<BN>::ss(acc, xd + j * FK_DESC_K_STEP, wd + j * FK_DESC_K_STEP, 1);
  fk_wgmma_commit();
}

/* This thread's share of the vectors along a tile's columns, to shared memory [2][BN]. */
template <int Epi, int BN>
FK_DEVICE void fk_linear_vectors(const FkLinearArgs &a, const FkLinearTile &t, float *vectors) {
  const FkLinearRows &g = a.rows[t.group];
  int tid = threadIdx.x & 127;
#pragma unroll
  for (int i = 0; i < BN / 128; i++) {
    int at = tid + 128 * i, col = t.col + at;
    bool in = col < t.end;
    float bias = in && g.bias ? __ldg(g.bias + col) : 0, second = 1;
    if (Epi == FK_LINEAR_GATE && in && g.gate) second = __ldg(g.gate + col);
    if (Epi == FK_LINEAR_QKV) {
      int part = (t.col + 128 * i) / a.width;
      if (part == 0 || part == 2) second = __ldg((part ? g.q_norm : g.k_norm) + tid);
    }
    vectors[at] = bias, vectors[BN + at] = second;
  }
}

/* The thread's place in the tile; vectors: of this tile, [2][BN] in shared memory. */
template <int Epi, int BN, bool F32>
FK_DEVICE FkLinearSpot fk_linear_spot(const FkLinearArgs &a, const FkLinearTile &t, const float *vectors) {
  const FkLinearRows &g = a.rows[t.group];
  int tid = threadIdx.x & 127, p = tid & 3, row = t.row + (tid >> 5) * 16 + ((tid & 31) >> 2);
  FkLinearSpot s;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    int r = min(row + 8 * h, g.m - 1); /* addresses stay inside even where nothing is read or written */
    s.ok[h] = row + 8 * h < g.m;
    s.y[h] = (char *)g.y + (r * g.ldy + t.col + 8 * p) * (F32 ? 4 : 2);
    s.rope[h] = Epi == FK_LINEAR_QKV ? (const float4 *)(g.rope + r * (int64_t)64 + 4 * p) : NULL;
  }
  s.left = t.end - t.col - 8 * p;
  s.bias = vectors + 8 * p;
  s.second = vectors + BN + 8 * p;
  return s;
}

template <int Epi, int BN, bool F32>
FK_DEVICE void fk_linear_consume(const FkLinearArgs &a, uint32_t smem, float *vectors, uint32_t full, uint32_t empty) {
  using S = FkLinearShape<BN>;
  constexpr int step = S::stage_bytes >> 4;
  int stage = 0, phase = 0, lane = threadIdx.x & 31;
  uint64_t xd = fk_desc(smem), wd = fk_desc(smem + S::x_bytes);
  float acc[BN / 2];
  for (int i = 0, unit = blockIdx.x; unit < a.units; i++, unit += gridDim.x) {
    fk_wgmma_hold(acc);
    fk_mbar_wait(full + 8 * stage, phase);
    fk_linear_block<BN>(acc, xd + stage * step, wd + stage * step, 0);
    /* What follows up to the loop runs under these products. */
    FkLinearTile t = fk_linear_tile(a, unit);
    float *vector = vectors + (i & 1) * 2 * BN;
    fk_linear_vectors<Epi, BN>(a, t, vector);
    FkLinearSpot s = fk_linear_spot<Epi, BN, F32>(a, t, vector);
    int before = stage;
    if (++stage == S::stages) stage = 0, phase ^= 1;
    for (int k = 1; k < a.k_blocks; k++) {
      fk_mbar_wait(full + 8 * stage, phase);
      fk_linear_block<BN>(acc, xd + stage * step, wd + stage * step, 1);
      fk_wgmma_wait<1>();
      if (lane == 0) fk_mbar_arrive(empty + 8 * before);
      before = stage;
      if (++stage == S::stages) stage = 0, phase ^= 1;
    }
    uint4 old[Epi == FK_LINEAR_GATE ? BN / 32 : 1][2];
    if constexpr (Epi == FK_LINEAR_GATE) fk_linear_residual(s, old);
    fk_wgmma_wait<0>();
    fk_wgmma_hold(acc);
    if (lane == 0) fk_mbar_arrive(empty + 8 * before);
    fk_bar_sync(1, 128); /* the vectors are there; two buffers, so nobody overwrites them early */
    fk_linear_transpose(acc);
    if constexpr (Epi == FK_LINEAR_GATE)
      fk_linear_gate(s, acc, old);
    else if constexpr (Epi == FK_LINEAR_QKV)
      fk_linear_qkv(s, t.col, a.width, acc);
    else
      fk_linear_map<Epi, 0, BN / 32, F32>(s, acc);
  }
}

/* Tile 64 rows x at most BN columns x 64; 256 threads, persistent; 198,784 (BN 128, 8 stages) or 208,976 bytes shared
 * (256, 5 stages); registers 110 to 163, or 171 to 237. Bound by memory: the weights, once. Measured on an H200: 1 x
 * 1026048 x 3072 1.53 ms (4.15 TB/s, 98 % of the floor), 2 x 18432 x 3072 39 us (68 %). */
template <int Epi, int BN, bool F32>
__global__ void __launch_bounds__(256, 1) linear_few_sm90_kernel(const __grid_constant__ FkLinearArgs a) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using S = FkLinearShape<BN>;
  extern __shared__ __align__(1024) uint8_t shared[];
  uint32_t smem = fk_smem(shared), full = smem + S::stages * S::stage_bytes + S::vector_bytes;
  uint32_t empty = full + 8 * S::stages;
  if (threadIdx.x == 0) {
    for (int s = 0; s < S::stages; s++) {
      fk_mbar_init(full + 8 * s, 1);
      fk_mbar_init(empty + 8 * s, 4);
    }
    fk_fence_mbar_init();
    for (int i = 0; i < 2; i++)
      if (a.row_tiles[i]) fk_tma_prefetch_map(&a.x[i]), fk_tma_prefetch_map(&a.w[i]);
  }
  __syncthreads();
  if (threadIdx.x == 0) fk_linear_produce<BN>(a, smem, full, empty);
  if (threadIdx.x >= 128)
    fk_linear_consume<Epi, BN, F32>(a, smem, (float *)(shared + S::stages * S::stage_bytes), full, empty);
#endif
}

#endif
