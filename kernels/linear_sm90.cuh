/* SPDX-License-Identifier: Apache-2.0 */
/* Device side of the bf16 linear layer on sm_90a: y = epilogue(x W^T + bias), up to two groups of rows in one launch.
 * Launch code, shape table and the other paths are in linear.cu.
 *
 * Persistent and warp-specialised. A block owns a tile of 128 rows x BN columns, each of its two math warpgroups 64
 * rows. A cluster of CL blocks owns CL row tiles of the same columns and multicasts the weight tile.
 *
 * Weight rows land in shared memory in an order that gives a thread eight neighbouring output columns: place
 * 32t + 8i + 2p + e holds row 32t + 8p + 2i + e (five-axis tensor map), so that thread p of a quad, whose accumulators
 * are places 8j + 2p + {0, 1}, owns columns 32t + 8p .. + 7. Bias, gate, rotary table, residual and result then move in
 * 16-byte accesses straight between registers and memory.
 *
 * The last wave may be cut along K: piece after piece of a leftover tile is worked on by different clusters, each in a
 * later slot of its own sequence, handing the float32 accumulators over through memory. The order of summation is that
 * of the uncut tile, so the bytes do not depend on the cut, on M or on the other group. */
#ifndef FK_LINEAR_SM90_CUH
#define FK_LINEAR_SM90_CUH

#include "linear_epilogue.cuh"

#define FK_LINEAR_BK 64
#define FK_LINEAR_SMEM 232448 /* what a block may have on sm_90 */

/* A unit is CL row tiles x one column tile; units of group 0 come first. */
typedef struct {
  CUtensorMap x[2], w[2];
  FkLinearRows rows[2];
  int n, k_blocks, width; /* width: D of the QKV epilogue */
  int step, n_tiles;      /* columns of a tile (BN where reordered), column tiles */
  int row_units[2];       /* of each group */
  int super;              /* row units that walk over the columns together (weight tiles stay in L2) */
  int units, waves;       /* waves: full waves */
  int sharers, pieces;    /* clusters among which leftover units are cut, 0: not cut; flags of a unit */
  int lead;               /* k-blocks by which the first warpgroup starts ahead of the second */
  uint64_t x_policy, w_policy; /* L2 policies of the loads */
  float *partial;              /* [leftover unit][block of cluster][warpgroup][BN / 8][128][4] */
  uint32_t *flags;             /* [leftover unit][block of cluster][warpgroup][pieces], zero between launches */
} FkLinearArgs;

typedef struct {
  int unit, from, to; /* k-blocks */
  int leftover;       /* index among the leftover units, -1: whole unit */
  int piece;
} FkLinearWork;

/* The i-th piece of work of cluster c of `clusters`; false after the last. The leftover units' k-blocks, in a row, are
 * dealt out evenly to `sharers` clusters: a cluster gets the end or middle of one unit and at most the start of the
 * next. Piece p of a unit belongs to the cluster after that of piece p - 1 and is done before full wave p, so the
 * accumulators it starts from were finished about a wave earlier and nobody waits. */
FK_DEVICE bool fk_linear_work(const FkLinearArgs &a, int c, int clusters, int i, FkLinearWork &w) {
  int kb = a.k_blocks, full = a.waves * clusters;
  w.from = 0, w.to = kb, w.leftover = -1, w.piece = 0;
  if (c < a.sharers) {
    int total = (a.units - full) * kb, low = total * c / a.sharers, high = total * (c + 1) / a.sharers, u = low / kb;
    w.piece = c - ((u * kb + 1) * a.sharers - 1) / total;
    if (high > (u + 1) * kb) {
      if (i == 0) {
        w.unit = full + u + 1, w.leftover = u + 1, w.piece = 0;
        w.to = high - (u + 1) * kb;
        return true;
      }
      i--;
    }
    int turn = min(w.piece, a.waves);
    if (i == turn) {
      w.unit = full + u, w.leftover = u;
      w.from = low - u * kb, w.to = min(high - u * kb, kb);
      return true;
    }
    w.piece = 0;
    if (i > turn) i--;
  }
  w.unit = c + i * clusters;
  return a.sharers ? i < a.waves : w.unit < a.units;
}

typedef struct {
  int group, row, col, end; /* row inside the group; columns col..end */
} FkLinearTile;

/* rows: of a block's tile. */
FK_DEVICE FkLinearTile fk_linear_tile(const FkLinearArgs &a, int unit, int rows, int cl, int rank) {
  int all = a.row_units[0] + a.row_units[1], band = a.super * a.n_tiles;
  int s = unit / band, first = s * a.super, size = min(a.super, all - first), r = unit - s * band;
  int ru = first + r % size;
  FkLinearTile t;
  t.col = r / size * a.step;
  t.end = min(t.col + a.step, a.n);
  t.group = ru >= a.row_units[0];
  if (t.group) ru -= a.row_units[0];
  t.row = (ru * cl + rank) * rows;
  return t;
}

/* Without the reordering map: a quad exchanges its pairs so that each thread holds eight neighbouring columns. */
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

/* ---- handing accumulators from one piece of a leftover unit to the next ----------------------------------------- */

template <int Regs> FK_DEVICE void fk_linear_take(float *partial, uint32_t *flag, int wg, float (&acc)[Regs]) {
  int tid = threadIdx.x & 127;
  if (tid == 0) {
    uint32_t seen;
#ifdef FK_WAIT_TRAP
    long long start = clock64();
#endif
    do {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(flag) : "memory");
#ifdef FK_WAIT_TRAP
      if (clock64() - start > 4000000000ll) __trap();
#endif
    } while (!seen);
    *flag = 0; /* for the next launch; nobody else reads it in this one */
  }
  fk_bar_sync(2 + wg, 128);
  const float4 *from = (const float4 *)partial + tid;
#pragma unroll
  for (int i = 0; i < Regs / 4; i++) {
    float4 v = __ldcg(from + i * 128);
    acc[4 * i] = v.x, acc[4 * i + 1] = v.y, acc[4 * i + 2] = v.z, acc[4 * i + 3] = v.w;
  }
}

template <int Regs> FK_DEVICE void fk_linear_give(float *partial, uint32_t *flag, int wg, float (&acc)[Regs]) {
  int tid = threadIdx.x & 127;
  float4 *to = (float4 *)partial + tid;
#pragma unroll
  for (int i = 0; i < Regs / 4; i++)
    __stcg(to + i * 128, make_float4(acc[4 * i], acc[4 * i + 1], acc[4 * i + 2], acc[4 * i + 3]));
  __threadfence();
  fk_bar_sync(2 + wg, 128);
  if (tid == 0) asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(flag), "r"(1) : "memory");
}

/* ---- the kernel ------------------------------------------------------------------------------------------------- */

/* Math warpgroups MG of 64 rows each. */
template <int BN, int MG> struct FkLinearShape {
  static constexpr int threads = 128 + 128 * MG;
  static constexpr int x_bytes = 64 * MG * FK_LINEAR_BK * 2, w_bytes = BN * FK_LINEAR_BK * 2;
  static constexpr int stage_bytes = x_bytes + w_bytes;
  static constexpr int vector_bytes = MG * 2 * 2 * BN * 4; /* bias and gate or norm weights, two tiles */
  static constexpr int fit = (FK_LINEAR_SMEM - 256 - vector_bytes) / stage_bytes, stages = fit < 8 ? fit : 8;
  static constexpr int smem_bytes = stages * stage_bytes + vector_bytes + stages * 16;
};

template <int BN, int CL, int MG, bool Reorder>
FK_DEVICE void fk_linear_produce(const FkLinearArgs &a, uint32_t smem, uint32_t full, uint32_t empty, int rank) {
  using S = FkLinearShape<BN, MG>;
  int c = blockIdx.x / CL, clusters = gridDim.x / CL, stage = 0, phase = 1;
  int bytes = S::x_bytes + a.step * FK_LINEAR_BK * 2;
  FkLinearWork w;
  for (int i = 0; fk_linear_work(a, c, clusters, i, w); i++) {
    FkLinearTile t = fk_linear_tile(a, w.unit, 64 * MG, CL, rank);
    const CUtensorMap *xm = &a.x[t.group], *wm = &a.w[t.group];
    int col = t.col + rank * (BN / CL);
    for (int k = w.from; k < w.to; k++) {
      uint32_t bar = full + 8 * stage, xs = smem + stage * S::stage_bytes;
      uint32_t ws = xs + S::x_bytes + rank * (S::w_bytes / CL);
      fk_mbar_wait(empty + 8 * stage, phase);
      fk_mbar_expect(bar, bytes);
      fk_tma_load_2d(xs, xm, bar, k * FK_LINEAR_BK, t.row, a.x_policy);
      if (CL > 1 && Reorder)
        fk_tma_multicast_5d(ws, wm, bar, (1 << CL) - 1, k * FK_LINEAR_BK, 0, 0, 0, col / 32, a.w_policy);
      if (CL > 1 && !Reorder) fk_tma_multicast_2d(ws, wm, bar, (1 << CL) - 1, k * FK_LINEAR_BK, col, a.w_policy);
      if (CL == 1 && Reorder) fk_tma_load_5d(ws, wm, bar, k * FK_LINEAR_BK, 0, 0, 0, col / 32, a.w_policy);
      if (CL == 1 && !Reorder) fk_tma_load_2d(ws, wm, bar, k * FK_LINEAR_BK, col, a.w_policy);
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

/* One lane for each block of the cluster tells its producer that this warp no longer reads the stage. */
template <int CL> FK_DEVICE void fk_linear_release(uint32_t empty, int stage) {
  int lane = threadIdx.x & 31;
  if (CL == 1 && lane == 0) fk_mbar_arrive(empty + 8 * stage);
  if (CL > 1 && lane < CL) fk_mbar_arrive_cluster(empty + 8 * stage, lane);
}

/* This thread's share of the vectors along a tile's columns. */
template <int Epi, int BN>
FK_DEVICE void fk_linear_fetch(const FkLinearArgs &a, const FkLinearTile &t, float (&v)[2][BN / 128]) {
  const FkLinearRows &g = a.rows[t.group];
  int tid = threadIdx.x & 127;
#pragma unroll
  for (int i = 0; i < BN / 128; i++) {
    int at = tid + 128 * i, col = t.col + at;
    bool in = col < t.end;
    v[0][i] = in && g.bias ? __ldg(g.bias + col) : 0;
    v[1][i] = 1;
    if (Epi == FK_LINEAR_GATE && in && g.gate) v[1][i] = __ldg(g.gate + col);
    if (Epi == FK_LINEAR_QKV) {
      int part = (t.col + 128 * i) / a.width;
      if (part == 0 || part == 2) v[1][i] = __ldg((part ? g.q_norm : g.k_norm) + tid);
    }
  }
}

/* The thread's place in the tile; vectors: of this warpgroup and tile, [2][BN] in shared memory. */
template <int Epi, int BN, bool F32>
FK_DEVICE FkLinearSpot fk_linear_spot(const FkLinearArgs &a, const FkLinearTile &t, int wg, const float *vectors) {
  const FkLinearRows &g = a.rows[t.group];
  int tid = threadIdx.x & 127, p = tid & 3, row = t.row + wg * 64 + (tid >> 5) * 16 + ((tid & 31) >> 2);
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

template <int Epi, int BN, int CL, int MG, bool Reorder, bool F32>
FK_DEVICE void fk_linear_consume(const FkLinearArgs &a, uint32_t smem, float *vectors, uint32_t full, uint32_t empty,
                                 int rank) {
  using S = FkLinearShape<BN, MG>;
  constexpr int step = S::stage_bytes >> 4;
  int c = blockIdx.x / CL, clusters = gridDim.x / CL, stage = 0, phase = 0;
  int tid = threadIdx.x & 127, wg = threadIdx.x / 128 - 1;
  uint64_t xd = fk_desc(smem + wg * 64 * FK_LINEAR_BK * 2), wd = fk_desc(smem + S::x_bytes);
  float acc[BN / 2];
  vectors += wg * 4 * BN;
  FkLinearWork w, next;
  FkLinearTile t, next_t;
  bool more = fk_linear_work(a, c, clusters, 0, w);
  if (more) t = fk_linear_tile(a, w.unit, 64 * MG, CL, rank);
  int ahead = MG == 2 && more ? min(a.lead, w.to - w.from - 1) : 0; /* in the first piece of work only */
  for (int i = 0; more; i++) {
    int slot = (w.leftover * CL + rank) * MG + wg, keep = w.piece > 0;
    bool last = w.to == a.k_blocks;
    float *partial = a.partial + (int64_t)slot * 64 * BN, *vector = vectors + (i & 1) * 2 * BN;
    uint32_t *flag = a.flags + slot * a.pieces + w.piece;
    if (keep) fk_linear_take(partial, flag - 1, wg, acc);
    if (ahead > 0 && wg == 1) fk_bar_sync(1, 256), ahead = -1;
    fk_wgmma_hold(acc);
    fk_mbar_wait(full + 8 * stage, phase);
    fk_linear_block<BN>(acc, xd + stage * step, wd + stage * step, keep);
    /* What follows up to the loop runs under these products. */
    float v[2][BN / 128];
    fk_linear_fetch<Epi, BN>(a, t, v);
    if (Epi == FK_LINEAR_GATE && last) fk_linear_warm<BN>(a.rows[t.group], t.row + wg * 64, t.col, t.end);
#pragma unroll
    for (int j = 0; j < BN / 128; j++) vector[tid + 128 * j] = v[0][j], vector[BN + tid + 128 * j] = v[1][j];
    FkLinearSpot s = fk_linear_spot<Epi, BN, F32>(a, t, wg, vector);
    more = fk_linear_work(a, c, clusters, i + 1, next);
    if (more) next_t = fk_linear_tile(a, next.unit, 64 * MG, CL, rank);
    int before = stage;
    if (++stage == S::stages) stage = 0, phase ^= 1;
    for (int k = w.from + 1; k < w.to; k++) {
      fk_mbar_wait(full + 8 * stage, phase);
      fk_linear_block<BN>(acc, xd + stage * step, wd + stage * step, 1);
      fk_wgmma_wait<1>();
      fk_linear_release<CL>(empty, before);
      if (k - w.from == ahead) fk_bar_arrive(1, 256);
      before = stage;
      if (++stage == S::stages) stage = 0, phase ^= 1;
    }
    ahead = -1;
    uint4 old[Epi == FK_LINEAR_GATE ? BN / 32 : 1][2];
    if constexpr (Epi == FK_LINEAR_GATE) fk_linear_residual(s, last, old);
    fk_wgmma_wait<0>();
    fk_wgmma_hold(acc);
    fk_linear_release<CL>(empty, before);
    fk_bar_sync(2 + wg, 128); /* the vectors are there; two buffers, so nobody overwrites them early */
    if (!last) {
      fk_linear_give(partial, flag, wg, acc);
    } else {
      if (!Reorder) fk_linear_transpose(acc);
      if constexpr (Epi == FK_LINEAR_GATE)
        fk_linear_gate(s, acc, old);
      else if constexpr (Epi == FK_LINEAR_QKV)
        fk_linear_qkv(s, t.col, a.width, acc);
      else
        fk_linear_map<Epi, 0, BN / 32, F32>(s, acc);
    }
    w = next, t = next_t;
  }
}

/* Tile 64 MG x BN x 64; a producer warpgroup and MG math warpgroups. */
template <int Epi, int BN, int CL, int MG, bool Reorder, bool F32>
__global__ void __launch_bounds__(128 + 128 * MG, 1) linear_bf16_sm90_kernel(const __grid_constant__ FkLinearArgs a) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using S = FkLinearShape<BN, MG>;
  extern __shared__ __align__(1024) uint8_t shared[];
  uint32_t smem = fk_smem(shared), full = smem + S::stages * S::stage_bytes + S::vector_bytes;
  uint32_t empty = full + 8 * S::stages;
  int rank = CL > 1 ? (int)fk_cluster_rank() : 0;
  if (threadIdx.x == 0) {
    for (int s = 0; s < S::stages; s++) {
      fk_mbar_init(full + 8 * s, 1);
      fk_mbar_init(empty + 8 * s, 4 * MG * CL);
    }
    fk_fence_mbar_init();
    for (int i = 0; i < 2; i++)
      if (a.row_units[i]) fk_tma_prefetch_map(&a.x[i]), fk_tma_prefetch_map(&a.w[i]);
  }
  __syncthreads();
  if (CL > 1) fk_cluster_arrive(), fk_cluster_wait();
  if (threadIdx.x < 128) {
    fk_regs_dec<40>();
    if (threadIdx.x == 0) fk_linear_produce<BN, CL, MG, Reorder>(a, smem, full, empty, rank);
  } else {
    fk_regs_inc<232>();
    fk_linear_consume<Epi, BN, CL, MG, Reorder, F32>(a, smem, (float *)(shared + S::stages * S::stage_bytes), full,
                                                     empty, rank);
  }
  if (CL > 1) { /* nobody leaves while a neighbour may still arrive on its barriers or write its stages */
    __syncwarp();
    fk_cluster_arrive(), fk_cluster_wait();
  }
#endif
}

#endif
