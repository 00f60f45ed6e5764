/* SPDX-License-Identifier: Apache-2.0 */
/* Device side of the bf16 linear layer on sm_90a for many rows: y = epilogue(x W^T + bias), up to two groups of rows in
 * one launch. Launch code and shape table are in linear.cu, few rows and odd shapes in linear_sm90.cuh.
 *
 * Persistent and warp-specialised. A tile is 128 columns of y ("features") x BT rows ("tokens"). W is the first operand
 * of the products and x the second, so that BT may be any multiple of 8: it is chosen so that the tiles fill whole
 * waves. Two math warpgroups take turns, each with a whole tile: one stores while the other multiplies. A cluster of
 * two blocks has neighbouring columns and the same rows; each block brings one half of the rows of x for both.
 *
 * Weight rows land in shared memory in an order that gives a thread four neighbouring features: place 64s + 16w + 8h +
 * g holds row 32w + 4g + 2s + h (five-axis tensor map); a thread of warp w whose lane is 4g + t has places g + 8h of
 * both halves s, hence features 32w + 4g .. + 3 of tokens 8j + 2t + {0, 1}. Bias, gate and norm weights are then four
 * registers, the pairs of the rotation lie in one thread, and eight lanes store 64 bytes in a row.
 *
 * Every sum runs over K in one thread's order, so the bytes depend neither on BT nor on the number of rows. */
#ifndef FK_LINEAR_PINGPONG_SM90_CUH
#define FK_LINEAR_PINGPONG_SM90_CUH

#include "linear_epilogue.cuh"

constexpr int FK_PP_BK = 64, FK_PP_FEATURES = 128;
constexpr int FK_PP_SMEM = 232448; /* what a block may have on sm_90 */

/* A unit is one token tile x two neighbouring feature tiles, a cluster's work; units of group 0 come first. */
typedef struct {
  CUtensorMap x[2][2], w[2]; /* x: [group][block of the cluster] */
  FkLinearRows rows[2];
  int k_blocks, width; /* width: D of the QKV epilogue */
  int pairs;           /* of feature tiles */
  int row_tiles[2];    /* of each group */
  int band;            /* token tiles that walk over the features together */
  int units;
} FkPpArgs;

typedef struct {
  int group, row, col; /* row inside the group; the block's first column */
} FkPpTile;

FK_DEVICE FkPpTile fk_pp_tile(const FkPpArgs &a, int unit, int bt, int rank) {
  int all = a.row_tiles[0] + a.row_tiles[1], band = a.band * a.pairs;
  int s = unit / band, first = s * a.band, size = min(a.band, all - first), r = unit - s * band;
  int tile = first + r % size;
  FkPpTile t;
  t.col = (r / size * 2 + rank) * FK_PP_FEATURES;
  t.group = tile >= a.row_tiles[0];
  t.row = (t.group ? tile - a.row_tiles[0] : tile) * bt;
  return t;
}

/* Shared memory: stages (W, then x), sums of squares of each warpgroup, barriers. */
template <int BT> struct FkPpShape {
  static constexpr int w_bytes = FK_PP_FEATURES * FK_PP_BK * 2, stage_bytes = w_bytes + BT * FK_PP_BK * 2;
  static constexpr int half = (BT + 15) / 16 * 8; /* rows of x that block 0 brings */
  static constexpr int sums_bytes = 4 * BT * 4;
  static constexpr int fit = (FK_PP_SMEM - 128 - 2 * sums_bytes) / stage_bytes, stages = fit < 7 ? fit : 7;
  static constexpr int smem_bytes = stages * stage_bytes + 2 * sums_bytes + stages * 16;
};

template <int BT>
FK_DEVICE void fk_pp_produce(const FkPpArgs &a, uint32_t smem, uint32_t full, uint32_t empty, int rank) {
  using S = FkPpShape<BT>;
  int stage = 0, phase = 1;
  for (int unit = blockIdx.x / 2; unit < a.units; unit += gridDim.x / 2) {
    FkPpTile t = fk_pp_tile(a, unit, BT, rank);
    const CUtensorMap *xm = &a.x[t.group][rank], *wm = &a.w[t.group];
    int row = t.row + rank * S::half;
    for (int k = 0; k < a.k_blocks; k++) {
      uint32_t bar = full + 8 * stage, ws = smem + stage * S::stage_bytes;
      uint32_t xs = ws + S::w_bytes + rank * (S::half * FK_PP_BK * 2);
      fk_mbar_wait(empty + 8 * stage, phase);
      fk_mbar_expect(bar, S::stage_bytes);
      fk_tma_load_5d(ws, wm, bar, k * FK_PP_BK, 0, 0, t.col / 32, 0);
      fk_tma_multicast_2d(xs, xm, bar, 3, k * FK_PP_BK, row);
      if (++stage == S::stages) stage = 0, phase ^= 1;
    }
  }
}

/* The products of one stage, left running: both halves of the features. keep 0: start from zero. */
template <int BT>
FK_DEVICE void fk_pp_block(float (&lo)[BT / 2], float (&hi)[BT / 2], uint64_t wd, uint64_t xd, int keep) {
  constexpr int half = 64 * FK_PP_BK * 2 >> 4;
  fk_wgmma_fence();
#pragma unroll
  for (int j = 0; j < FK_PP_BK / 16; j++) {
    FkWgmma<BT>::ss(lo, wd + j * FK_DESC_K_STEP, xd + j * FK_DESC_K_STEP, j ? 1 : keep);
    FkWgmma<BT>::ss(hi, wd + half + j * FK_DESC_K_STEP, xd + j * FK_DESC_K_STEP, j ? 1 : keep);
  }
  fk_wgmma_commit();
}

/* ---- epilogues -------------------------------------------------------------------------------------------------- */

/* Tight: for a caller that has few registers left. Less is read ahead, and every few rows of eight tokens stands a
 * branch (out, past the last token), across which the compiler starts nothing early. */

/* A thread's place in the tile. */
typedef struct {
  char *y;             /* its first feature of its first token */
  int64_t ld;          /* bytes from token to token */
  const float4 *rope;  /* QKV: angles of its two pairs, 32 float4 a token */
  int left;            /* tokens from its first to the end of the group */
  float4 bias, second; /* second: gate or norm weights */
} FkPpSpot;

FK_DEVICE float4 fk_pp_four(const float *p, float otherwise) {
  return p ? __ldg((const float4 *)p) : make_float4(otherwise, otherwise, otherwise, otherwise);
}

template <int Epi> FK_DEVICE FkPpSpot fk_pp_spot(const FkPpArgs &a, const FkPpTile &t) {
  const FkLinearRows &g = a.rows[t.group];
  int lane = threadIdx.x & 31, in = (threadIdx.x >> 5 & 3) * 32 + lane / 4 * 4, row = t.row + (lane & 3) * 2;
  FkPpSpot s;
  s.ld = g.ldy * 2;
  s.y = (char *)g.y + row * s.ld + (t.col + in) * 2;
  s.left = g.m - row;
  s.bias = fk_pp_four(g.bias ? g.bias + t.col + in : NULL, 0);
  s.second = make_float4(1, 1, 1, 1);
  s.rope = NULL;
  if (Epi == FK_LINEAR_GATE) s.second = fk_pp_four(g.gate ? g.gate + t.col + in : NULL, 1);
  if (Epi == FK_LINEAR_QKV) {
    int part = t.col / a.width;
    if (part == 0 || part == 2) s.second = fk_pp_four((part ? g.q_norm : g.k_norm) + in, 1);
    s.rope = (const float4 *)(g.rope + (int64_t)min(row, g.m - 1) * 64) + in / 4; /* read even where no token is */
  }
  return s;
}

FK_DEVICE void fk_pp_store(char *p, uint2 v, bool wanted) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %3, 0;\n@p st.global.v2.b32 [%2], {%0, %1};\n}" ::"r"(v.x), "r"(v.y),
               "l"(p), "r"((int)wanted)
               : "memory");
}

FK_DEVICE uint2 fk_pp_load_if(const char *p, bool wanted) {
  uint2 v;
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %3, 0;\nmov.b32 %0, 0;\nmov.b32 %1, 0;\n"
               "@p ld.global.v2.b32 {%0, %1}, [%2];\n}"
               : "=r"(v.x), "=r"(v.y)
               : "l"(p), "r"((int)wanted)
               : "memory");
  return v;
}

/* Bias joins the sums; all that follows is of these. */
template <int Regs> FK_DEVICE void fk_pp_bias(float4 bias, float (&lo)[Regs], float (&hi)[Regs]) {
#pragma unroll
  for (int i = 0; i < Regs; i++) lo[i] += i & 2 ? bias.y : bias.x, hi[i] += i & 2 ? bias.w : bias.z;
}

/* The four features of token 8j + 2t + e. */
template <int Regs> FK_DEVICE float4 fk_pp_value(const float (&lo)[Regs], const float (&hi)[Regs], int j, int e) {
  return make_float4(lo[4 * j + e], lo[4 * j + 2 + e], hi[4 * j + e], hi[4 * j + 2 + e]);
}

template <int Epi> FK_DEVICE float4 fk_pp_act(float4 v) {
  return make_float4(fk_linear_act<Epi>(v.x), fk_linear_act<Epi>(v.y), fk_linear_act<Epi>(v.z),
                     fk_linear_act<Epi>(v.w));
}

FK_DEVICE uint2 fk_pp_pack(float4 v) {
  return make_uint2(fk_pack_bf16(v.x, v.y), fk_pack_bf16(v.z, v.w));
}

template <int Epi, int BT, bool Tight>
FK_DEVICE void fk_pp_map(const FkPpSpot &s, const float (&lo)[BT / 2], const float (&hi)[BT / 2]) {
#pragma unroll
  for (int j = 0; j < BT / 8; j++) {
    if (Tight && j % 4 == 0 && 8 * j >= s.left) break;
#pragma unroll
    for (int e = 0; e < 2; e++)
      fk_pp_store(s.y + (8 * j + e) * s.ld, fk_pp_pack(fk_pp_act<Epi>(fk_pp_value(lo, hi, j, e))), 8 * j + e < s.left);
  }
}

/* The residual is read four rows of eight tokens ahead. */
template <int BT, bool Tight>
FK_DEVICE void fk_pp_gate(const FkPpSpot &s, const float (&lo)[BT / 2], const float (&hi)[BT / 2]) {
  constexpr int rows = BT / 8, ahead = Tight ? 3 : 4;
  uint2 old[rows][2];
#pragma unroll
  for (int j = 0; j < rows + ahead; j++) {
#pragma unroll
    for (int e = 0; e < 2 && j < rows; e++) old[j][e] = fk_pp_load_if(s.y + (8 * j + e) * s.ld, 8 * j + e < s.left);
    int n = j - ahead;
#pragma unroll
    for (int e = 0; e < 2 && n >= 0; e++) {
      float4 v = fk_pp_value(lo, hi, n, e);
      uint2 o = old[n][e];
      v.x = __fmaf_rn(s.second.x, v.x, fk_pair_low(o.x));
      v.y = __fmaf_rn(s.second.y, v.y, fk_pair_high(o.x));
      v.z = __fmaf_rn(s.second.z, v.z, fk_pair_low(o.y));
      v.w = __fmaf_rn(s.second.w, v.w, fk_pair_high(o.y));
      fk_pp_store(s.y + (8 * n + e) * s.ld, fk_pp_pack(v), 8 * n + e < s.left);
    }
  }
}

FK_DEVICE float4 fk_pp_angle(const FkPpSpot &s, int token) {
  float4 v;
  asm volatile("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "l"(s.rope + (token < s.left ? token * 32 : 0)));
  return v;
}

/* Sums over the eight lanes that differ in bits 2 to 4, of x[i] in the lane whose number is i there: neighbours first,
 * then those two and four apart. */
template <int Step> FK_DEVICE float fk_pp_halve(float even, float odd, int lane) {
  const bool mine = lane & 4 * Step; /* of the two, this lane goes on with one */
  return (mine ? odd : even) + __shfl_xor_sync(0xffffffffu, mine ? even : odd, 4 * Step);
}
FK_DEVICE float fk_pp_lane_sums(const float (&x)[8], int lane) {
  const float a = fk_pp_halve<1>(x[0], x[1], lane), b = fk_pp_halve<1>(x[2], x[3], lane);
  const float c = fk_pp_halve<1>(x[4], x[5], lane), d = fk_pp_halve<1>(x[6], x[7], lane);
  return fk_pp_halve<4>(fk_pp_halve<2>(a, b, lane), fk_pp_halve<2>(c, d, lane), lane);
}

/* A head: RMS norm over its 128 features, which four warps share, then rotation of neighbouring pairs. Angles are read
 * four rows of eight tokens ahead. sums: [4][BT] of this warpgroup, whose first row becomes 1 / RMS; the order of
 * summation is that of fk_linear_head. Nobody writes the sums again before all have begun the next tile. */
template <int BT, bool Tight>
FK_DEVICE void fk_pp_head(const FkPpSpot &s, float *sums, int bar, const float (&lo)[BT / 2],
                          const float (&hi)[BT / 2]) {
  constexpr int rows = BT / 8, ahead = Tight ? 2 : 4;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5 & 3, t = lane & 3;
  float4 angle[rows][2];
#pragma unroll
  for (int j = 0; j < ahead; j++) angle[j][0] = fk_pp_angle(s, 8 * j), angle[j][1] = fk_pp_angle(s, 8 * j + 1);
#pragma unroll
  for (int first = 0; first < rows; first += 4) {
    float x[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
      x[i] = 0;
      if (first + i / 2 >= rows) continue;
      const float4 v = fk_pp_value(lo, hi, first + i / 2, i % 2);
      x[i] = fk_linear_squares(v.x, v.y, v.z, v.w);
    }
    const float sum = fk_pp_lane_sums(x, lane);
    if (first + lane / 8 < rows) sums[warp * BT + 8 * (first + lane / 8) + 2 * t + lane / 4 % 2] = sum;
  }
  fk_bar_sync(bar, 128);
#pragma unroll
  for (int i = threadIdx.x & 127; i < BT; i += 128)
    sums[i] = fk_linear_scale(sums[i], sums[BT + i], sums[2 * BT + i], sums[3 * BT + i]);
  fk_bar_sync(bar, 128);
#pragma unroll
  for (int j = 0; j < rows; j++) {
    if (Tight && j % 4 == 0 && 8 * j >= s.left) break;
    if (j + ahead < rows)
      angle[j + ahead][0] = fk_pp_angle(s, 8 * (j + ahead)), angle[j + ahead][1] = fk_pp_angle(s, 8 * (j + ahead) + 1);
    const float2 scales = *(const float2 *)(sums + 8 * j + 2 * t);
#pragma unroll
    for (int e = 0; e < 2; e++) {
      const float4 cs = angle[j][e];
      const float scale = e ? scales.y : scales.x;
      float4 v = fk_pp_value(lo, hi, j, e);
      v.x *= scale * s.second.x, v.y *= scale * s.second.y, v.z *= scale * s.second.z, v.w *= scale * s.second.w;
      uint2 r = make_uint2(fk_linear_rotate(v.x, v.y, cs.x, cs.y), fk_linear_rotate(v.z, v.w, cs.z, cs.w));
      fk_pp_store(s.y + (8 * j + e) * s.ld, r, 8 * j + e < s.left);
    }
  }
}

/* part: of the QKV epilogue. */
template <int Epi, int BT, bool Tight>
FK_DEVICE void fk_pp_finish(const FkPpSpot &s, int part, float *sums, int bar, const float (&lo)[BT / 2],
                            const float (&hi)[BT / 2]) {
  if (Epi == FK_LINEAR_GATE)
    fk_pp_gate<BT, Tight>(s, lo, hi);
  else if (Epi != FK_LINEAR_QKV)
    fk_pp_map<Epi, BT, Tight>(s, lo, hi);
  else if (part == 1)
    fk_pp_map<FK_LINEAR_NONE, BT, Tight>(s, lo, hi);
  else if (part >= 3)
    fk_pp_map<FK_LINEAR_GELU, BT, Tight>(s, lo, hi);
  else
    fk_pp_head<BT, Tight>(s, sums, bar, lo, hi);
}

/* ---- the kernel ------------------------------------------------------------------------------------------------- */

/* One lane for each block of the cluster tells its producer that this warp no longer reads the stage. */
FK_DEVICE void fk_pp_release(uint32_t empty, int stage) {
  int lane = threadIdx.x & 31;
  if (lane < 2) fk_mbar_arrive_cluster(empty + 8 * stage, lane);
}

/* Warpgroup wg has every other unit of its cluster. Named barrier 4 + wg is its turn: the other one arrives when it has
 * issued the last products of its unit. Without it a warpgroup could wait for a stage that is more than a lap ahead,
 * whose parity is that of an earlier lap. */
template <int Epi, int BT>
FK_DEVICE void fk_pp_consume(const FkPpArgs &a, uint32_t smem, float *sums, uint32_t full, uint32_t empty, int rank) {
  using S = FkPpShape<BT>;
  constexpr int step = S::stage_bytes >> 4;
  constexpr bool Tight = BT >= 176 && Epi != FK_LINEAR_NONE && Epi != FK_LINEAR_GATE; /* else registers spill */
  int wg = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0) - 1, clusters = gridDim.x / 2;
  uint64_t wd = fk_desc(smem), xd = fk_desc(smem + S::w_bytes);
  float lo[BT / 2], hi[BT / 2];
  sums += wg * (S::sums_bytes / 4);
  if (wg == 1) fk_bar_arrive(4, 256); /* warpgroup 0 begins */
  int block = wg * a.k_blocks;        /* of all that this cluster gets, the first of this unit */
  for (int unit = blockIdx.x / 2 + wg * clusters; unit < a.units; unit += 2 * clusters, block += 2 * a.k_blocks) {
    FkPpTile t = fk_pp_tile(a, unit, BT, rank);
    FkPpSpot s = fk_pp_spot<Epi>(a, t);
    int stage = block % S::stages, phase = block / S::stages & 1, before = stage;
    fk_bar_sync(4 + wg, 256);
    fk_wgmma_hold(lo), fk_wgmma_hold(hi);
    fk_mbar_wait(full + 8 * stage, phase);
    fk_pp_block<BT>(lo, hi, wd + stage * step, xd + stage * step, 0);
    if (a.k_blocks == 1) fk_bar_arrive(5 - wg, 256);
    if (++stage == S::stages) stage = 0, phase ^= 1;
    for (int k = 1; k < a.k_blocks; k++) {
      fk_mbar_wait(full + 8 * stage, phase);
      fk_pp_block<BT>(lo, hi, wd + stage * step, xd + stage * step, 1);
      if (k + 1 == a.k_blocks) fk_bar_arrive(5 - wg, 256);
      fk_wgmma_wait<1>();
      fk_pp_release(empty, before);
      before = stage;
      if (++stage == S::stages) stage = 0, phase ^= 1;
    }
    fk_wgmma_wait<0>();
    fk_wgmma_hold(lo), fk_wgmma_hold(hi);
    fk_pp_release(empty, before);
    fk_pp_bias(s.bias, lo, hi);
    fk_pp_finish<Epi, BT, Tight>(s, Epi == FK_LINEAR_QKV ? t.col / a.width : 0, sums, 2 + wg, lo, hi);
  }
}

/* A producer warpgroup and two math warpgroups. Tile 128 features x BT tokens x 64, clusters of two; 384 threads; bytes
 * shared: BT 128 200,800 (6 stages), 160 226,400 (6), 176 200,272 (5), 184 205,648 (5); registers 168 at entry, then
 * 240 (products) and 24 (copies). Bound by power: the card is at its limit, and a clock's products cost what the
 * operands' values cost. Measured on an H200, launches in a row (single launches): 8704 x 21504 x 3072 with the QKV
 * epilogue 666 (756) TFLOP/s, 8704 x 3072 x 15360 with gate 686 (785), of 989 on the datasheet. */
template <int Epi, int BT>
__global__ void __launch_bounds__(384, 1) linear_pingpong_sm90_kernel(const __grid_constant__ FkPpArgs a) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using S = FkPpShape<BT>;
  extern __shared__ __align__(1024) uint8_t shared[];
  float *sums = (float *)(shared + S::stages * S::stage_bytes);
  uint32_t smem = fk_smem(shared), full = smem + S::stages * S::stage_bytes + 2 * S::sums_bytes;
  uint32_t empty = full + 8 * S::stages;
  int rank = (int)fk_cluster_rank();
  if (threadIdx.x == 0) {
    for (int s = 0; s < S::stages; s++) {
      fk_mbar_init(full + 8 * s, 1);
      fk_mbar_init(empty + 8 * s, 4 * 2); /* a warpgroup in each block */
    }
    fk_fence_mbar_init();
    for (int i = 0; i < 2; i++)
      if (a.row_tiles[i]) fk_tma_prefetch_map(&a.x[i][rank]), fk_tma_prefetch_map(&a.w[i]);
  }
  __syncthreads();
  fk_cluster_arrive(), fk_cluster_wait();
  if (threadIdx.x < 128) {
    fk_regs_dec<24>();
    if (threadIdx.x == 0) fk_pp_produce<BT>(a, smem, full, empty, rank);
  } else {
    fk_regs_inc<240>();
    fk_pp_consume<Epi, BT>(a, smem, sums, full, empty, rank);
  }
  /* Nobody leaves while a neighbour may still arrive on its barriers or write its stages. */
  __syncwarp();
  fk_cluster_arrive(), fk_cluster_wait();
#endif
}

#endif
