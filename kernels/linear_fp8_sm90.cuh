/* SPDX-License-Identifier: Apache-2.0 */
/* Device side of the e4m3 linear layer on sm_90a (linear_fp8.h). Launch code is in linear_fp8.cu.
 *
 * Persistent and warp-specialised. A tile is 128 columns of y ("features") x BT rows ("tokens"); both math warpgroups
 * work on it, 64 features each. W is the first operand of the products and x the second, so that BT may be any multiple
 * of 8. A cluster of two blocks has neighbouring features and the same tokens; each block brings one half of the rows
 * of x for both.
 *
 * A thread has two sets of BT / 2 registers: what the tensor core adds to (acc) and the float32 sums. While one
 * warpgroup adds acc to its sums, the other multiplies. The sums of a finished tile go through the epilogue while the
 * first blocks of the next one run into acc, so the tensor core does not wait for it.
 *
 * Weight rows land in shared memory in an order that gives a thread two neighbouring features: place 16w + 8h + g holds
 * row 16w + 2g + h (four-axis tensor map); lane 4g + t of warp w has places g and g + 8, hence features 16w + 2g and
 * 2g + 1, of tokens 8j + 2t + {0, 1}: a pair of the rotation. Eight lanes store 32 bytes in a row. */
#ifndef FK_LINEAR_FP8_SM90_CUH
#define FK_LINEAR_FP8_SM90_CUH

#include "linear_epilogue.cuh"
#include "linear_fp8.h"

#define FK_FP8_BK 128
#define FK_FP8_FEATURES 128
#define FK_FP8_SMEM 232448 /* what a block may have on sm_90 */

/* ---- instructions ----------------------------------------------------------------------------------------------- */

/* m64nNk32, e4m3 x e4m3 -> float32, both K-major in shared memory; accumulators as FkWgmma's. */
template <int N> struct FkFp8Wgmma;

#define FK_LIST_200 FK_LIST_192 ",%96,%97,%98,%99"
#define FK_REGS_200 FK_REGS_192, "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99])

#define FK_FP8_WGMMA_DEFINE(N, p0, p1, p2)                                                                             \
  template <> struct FkFp8Wgmma<N> {                                                                                   \
    static __device__ __forceinline__ void ss(float (&d)[N / 2], uint64_t a, uint64_t b, int keep) {                   \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #p2 ", 0;\n"                                                   \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k32.f32.e4m3.e4m3 {" FK_LIST_##N "}, %" #p0 ", %" #p1       \
                                                                                            ", p, 1, 1;\n}"            \
                   : FK_REGS_##N                                                                                       \
                   : "l"(a), "l"(b), "r"(keep));                                                                       \
    }                                                                                                                  \
  };

FK_FP8_WGMMA_DEFINE(128, 64, 65, 66)
FK_FP8_WGMMA_DEFINE(160, 80, 81, 82)
FK_FP8_WGMMA_DEFINE(176, 88, 89, 90)
FK_FP8_WGMMA_DEFINE(192, 96, 97, 98)
FK_FP8_WGMMA_DEFINE(200, 100, 101, 102)

FK_DEVICE void fk_fp8_load_4d(uint32_t to, const CUtensorMap *map, uint32_t bar, int c0, int c1, int c2, int c3) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
               "l"(map), "r"(bar), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
               : "memory");
}

FK_DEVICE void fk_fp8_prefetch(const void *p, bool wanted) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %1, 0;\n@p prefetch.global.L2 [%0];\n}" ::"l"(p), "r"((int)wanted));
}

FK_DEVICE void fk_fp8_store(char *p, uint32_t v, bool wanted) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %2, 0;\n@p st.global.b32 [%1], %0;\n}" ::"r"(v), "l"(p),
               "r"((int)wanted)
               : "memory");
}

FK_DEVICE uint32_t fk_fp8_load_if(const char *p, bool wanted) {
  uint32_t v;
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %2, 0;\nmov.b32 %0, 0;\n@p ld.global.b32 %0, [%1];\n}"
               : "=r"(v)
               : "l"(p), "r"((int)wanted)
               : "memory");
  return v;
}

/* ---- tiles ------------------------------------------------------------------------------------------------------ */

typedef struct {
  const float *x_scale, *w_scale, *bias, *gate, *q_norm, *k_norm;
  const float2 *rope;
  __nv_bfloat16 *y;
  int64_t ldy;
  int m;
} FkFp8Rows;

/* A unit is one token tile x two neighbouring feature tiles, a cluster's work; units of group 0 come first. */
typedef struct {
  CUtensorMap x[2][2], w[2], scale[2]; /* x: [group][block of the cluster]; scale: BLOCK */
  FkFp8Rows rows[2];
  int k_blocks, width; /* width: D of the QKV epilogue */
  int pairs;           /* of feature tiles */
  int row_tiles[2];    /* of each group */
  int band;            /* token tiles that walk over the features together */
  int units;
} FkFp8Args;

typedef struct {
  int group, row, col; /* row inside the group; the block's first column */
} FkFp8Tile;

FK_DEVICE FkFp8Tile fk_fp8_tile(const FkFp8Args &a, int unit, int bt, int rank) {
  int all = a.row_tiles[0] + a.row_tiles[1], band = a.band * a.pairs;
  int s = unit / band, first = s * a.band, size = min(a.band, all - first), r = unit - s * band;
  int tile = first + r % size;
  FkFp8Tile t;
  t.col = (r / size * 2 + rank) * FK_FP8_FEATURES;
  t.group = tile >= a.row_tiles[0];
  t.row = (t.group ? tile - a.row_tiles[0] : tile) * bt;
  return t;
}

/* Shared memory: stages (W, then x), scales of each stage (BLOCK), then float32: scales of rows [2 warpgroups][2 tiles]
 * [BT], sums of squares [8 warps][BT], scales of heads [BT]; barriers. */
template <int BT, int Sum> struct FkFp8Shape {
  static constexpr int w_bytes = FK_FP8_FEATURES * FK_FP8_BK, stage_bytes = w_bytes + BT * FK_FP8_BK;
  static constexpr int half = (BT + 15) / 16 * 8; /* rows of x that block 0 brings */
  static constexpr int scale_bytes = Sum == FK_FP8_BLOCK ? 1024 : 0;
  static constexpr int rows_bytes = 4 * BT * 4, squares_bytes = 8 * BT * 4, heads_bytes = BT * 4;
  static constexpr int extra_bytes = rows_bytes + squares_bytes + heads_bytes;
  static constexpr int fit = (FK_FP8_SMEM - 128 - extra_bytes) / (stage_bytes + scale_bytes);
  static constexpr int stages = fit < 7 ? fit : 7;
  static constexpr int scales_at = stages * stage_bytes, extra_at = scales_at + stages * scale_bytes;
  static constexpr int bars_at = extra_at + extra_bytes, smem_bytes = bars_at + stages * 16;
};

template <int BT, int Sum>
FK_DEVICE void fk_fp8_produce(const FkFp8Args &a, uint32_t smem, uint32_t full, uint32_t empty, int rank) {
  using S = FkFp8Shape<BT, Sum>;
  int stage = 0, phase = 1;
  for (int unit = blockIdx.x / 2; unit < a.units; unit += gridDim.x / 2) {
    FkFp8Tile t = fk_fp8_tile(a, unit, BT, rank);
    const CUtensorMap *xm = &a.x[t.group][rank], *wm = &a.w[t.group], *sm = &a.scale[t.group];
    int row = t.row + rank * S::half;
    for (int k = 0; k < a.k_blocks; k++) {
      uint32_t bar = full + 8 * stage, ws = smem + stage * S::stage_bytes;
      uint32_t xs = ws + S::w_bytes + rank * (S::half * FK_FP8_BK);
      fk_mbar_wait(empty + 8 * stage, phase);
      fk_mbar_expect(bar, S::stage_bytes + (Sum == FK_FP8_BLOCK ? BT * 4 : 0));
      fk_fp8_load_4d(ws, wm, bar, k * FK_FP8_BK, 0, 0, t.col / 16);
      fk_tma_multicast_2d(xs, xm, bar, 3, k * FK_FP8_BK, row);
      if (Sum == FK_FP8_BLOCK) fk_tma_load_2d(smem + S::scales_at + stage * S::scale_bytes, sm, bar, t.row, k);
      if (++stage == S::stages) stage = 0, phase ^= 1;
    }
  }
}

/* ---- epilogues -------------------------------------------------------------------------------------------------- */

/* A thread's place in a tile whose sums are complete. */
typedef struct {
  char *y;                      /* its first feature of its first token */
  int ld;                       /* bytes from token to token */
  int left;                     /* tokens from its first to the end of the group; 0: no tile */
  const float2 *rope;           /* QKV: angles of its pair, 64 float2 a token */
  const float *x_scale;         /* shared memory, at its first token */
  float2 w_scale, bias, second; /* second: gate or norm weights */
} FkFp8Spot;

FK_DEVICE float2 fk_fp8_two(const float *p, float otherwise) {
  return p ? __ldg((const float2 *)p) : make_float2(otherwise, otherwise);
}

template <int Epi> FK_DEVICE FkFp8Spot fk_fp8_spot(const FkFp8Args &a, const FkFp8Tile &t, int wg, bool real) {
  const FkFp8Rows &g = a.rows[t.group];
  int lane = threadIdx.x & 31, in = wg * 64 + (threadIdx.x >> 5 & 3) * 16 + lane / 4 * 2, row = t.row + (lane & 3) * 2;
  FkFp8Spot s;
  s.ld = (int)g.ldy * 2;
  s.y = (char *)(g.y + row * g.ldy + t.col + in);
  s.left = real ? g.m - row : 0;
  s.w_scale = __ldg((const float2 *)(g.w_scale + t.col + in));
  s.bias = fk_fp8_two(g.bias ? g.bias + t.col + in : NULL, 0);
  s.second = make_float2(1, 1);
  s.rope = NULL;
  s.x_scale = NULL;
  if (Epi == FK_LINEAR_GATE) s.second = fk_fp8_two(g.gate ? g.gate + t.col + in : NULL, 1);
  if (Epi == FK_LINEAR_QKV) {
    int part = t.col / a.width;
    if (part == 0 || part == 2) s.second = fk_fp8_two((part ? g.q_norm : g.k_norm) + in, 1);
    s.rope = g.rope + (int64_t)min(row, g.m - 1) * 64 + in / 2; /* read even where no token is */
  }
  return s;
}

/* Scales of the tile's rows, to shared memory. */
template <int BT> FK_DEVICE void fk_fp8_scales(const FkFp8Args &a, const FkFp8Tile &t, float *to) {
  const FkFp8Rows &g = a.rows[t.group];
#pragma unroll
  for (int i = 0; i < (BT + 127) / 128; i++) {
    int at = (threadIdx.x & 127) + 128 * i, row = t.row + at;
    if (at < BT) to[at] = row < g.m ? __ldg(g.x_scale + row) : 0;
  }
}

/* Both features of tokens 8j + 2t and the next one: x, y of the first, z, w of the second. */
template <int Sum, int Regs> FK_DEVICE float4 fk_fp8_value(const FkFp8Spot &s, const float (&sum)[Regs], int j) {
  float2 q = Sum == FK_FP8_BLOCK ? make_float2(1, 1) : *(const float2 *)(s.x_scale + 8 * j);
  float4 v = make_float4(sum[4 * j], sum[4 * j + 2], sum[4 * j + 1], sum[4 * j + 3]);
  if (Sum != FK_FP8_BLOCK)
    v = make_float4(__fmul_rn(v.x, q.x), __fmul_rn(v.y, q.x), __fmul_rn(v.z, q.y), __fmul_rn(v.w, q.y));
  return make_float4(__fmaf_rn(v.x, s.w_scale.x, s.bias.x), __fmaf_rn(v.y, s.w_scale.y, s.bias.y),
                     __fmaf_rn(v.z, s.w_scale.x, s.bias.x), __fmaf_rn(v.w, s.w_scale.y, s.bias.y));
}

/* Two values of one token share a reciprocal; never those of two tokens, whose bytes would then depend on each other.
 */
FK_DEVICE void fk_fp8_gelu(float &a, float &b) {
  float da = 1.0f + fk_exp2(fminf(fk_gelu_arg(a), FK_EXP2_LIMIT));
  float db = 1.0f + fk_exp2(fminf(fk_gelu_arg(b), FK_EXP2_LIMIT));
  float r = fk_rcp(da * db);
  a *= r * db;
  b *= r * da;
}

FK_DEVICE void fk_fp8_put(const FkFp8Spot &s, int token, uint32_t v) {
  fk_fp8_store(s.y + (int64_t)token * s.ld, v, token < s.left);
}

/* Rows of eight tokens From..To-1. */
template <int Epi, int Sum, int From, int To, int Regs>
FK_DEVICE void fk_fp8_map(const FkFp8Spot &s, const float (&sum)[Regs]) {
#pragma unroll
  for (int j = From; j < To; j++) {
    float4 v = fk_fp8_value<Sum>(s, sum, j);
    if (Epi == FK_LINEAR_GELU) fk_fp8_gelu(v.x, v.y), fk_fp8_gelu(v.z, v.w);
    fk_fp8_put(s, 8 * j, fk_pack_bf16(v.x, v.y));
    fk_fp8_put(s, 8 * j + 1, fk_pack_bf16(v.z, v.w));
  }
}

FK_DEVICE uint32_t fk_fp8_added(float2 gate, float x, float y, uint32_t old) {
  return fk_pack_bf16(__fmaf_rn(gate.x, x, __uint_as_float(old << 16)),
                      __fmaf_rn(gate.y, y, __uint_as_float(old & 0xffff0000u)));
}

template <int Sum, int From, int To, int Regs>
FK_DEVICE void fk_fp8_gate(const FkFp8Spot &s, const float (&sum)[Regs]) {
  uint32_t old[To - From][2];
#pragma unroll
  for (int j = From; j < To; j++)
#pragma unroll
    for (int e = 0; e < 2; e++)
      old[j - From][e] = fk_fp8_load_if(s.y + (int64_t)(8 * j + e) * s.ld, 8 * j + e < s.left);
#pragma unroll
  for (int j = From; j < To; j++) {
    float4 v = fk_fp8_value<Sum>(s, sum, j);
    fk_fp8_put(s, 8 * j, fk_fp8_added(s.second, v.x, v.y, old[j - From][0]));
    fk_fp8_put(s, 8 * j + 1, fk_fp8_added(s.second, v.z, v.w, old[j - From][1]));
  }
}

/* Of eight values a thread, the sums over the eight lanes of a column of tokens: lane 4g + t gets that of value g. The
 * order is that of fk_fp8_over8. */
FK_DEVICE float fk_fp8_each8(float (&q)[8], int g) {
#pragma unroll
  for (int step = 4; step; step /= 2)
#pragma unroll
    for (int i = 0; i < step; i++) {
      bool up = g & step;
      float send = up ? q[i] : q[i + step], mine = up ? q[i + step] : q[i];
      q[i] = mine + __shfl_xor_sync(0xffffffffu, send, 4 * step);
    }
  return q[0];
}
FK_DEVICE float fk_fp8_over8(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 16);
  x += __shfl_xor_sync(0xffffffffu, x, 8);
  return x + __shfl_xor_sync(0xffffffffu, x, 4);
}

/* First part of a head: values in place of the sums, then 1 / RMS of each token over the 128 features, which are spread
 * over the eight warps. Order of summation: two features, eight lanes, eight warps, as trees. */
template <int BT, int Sum>
FK_DEVICE void fk_fp8_squares(const FkFp8Spot &s, float (&sum)[BT / 2], float *squares, float *heads) {
  constexpr int rows = BT / 8;
  int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3, tid = threadIdx.x - 128;
  float *mine = squares + (tid >> 5) * BT;
#pragma unroll
  for (int j = 0; j < rows; j++) {
    float4 v = fk_fp8_value<Sum>(s, sum, j);
    sum[4 * j] = v.x, sum[4 * j + 2] = v.y, sum[4 * j + 1] = v.z, sum[4 * j + 3] = v.w;
    if (j % 4 == 3) {
      float q[8];
#pragma unroll
      for (int i = 0; i < 8; i++) {
        float a = sum[4 * (j - 3 + i / 2) + i % 2], b = sum[4 * (j - 3 + i / 2) + 2 + i % 2];
        q[i] = __fmaf_rn(b, b, __fmul_rn(a, a));
      }
      mine[8 * (j - 3) + 8 * (g >> 1) + 2 * t + (g & 1)] = fk_fp8_each8(q, g);
    } else if (j >= rows / 4 * 4) {
      float a = fk_fp8_over8(__fmaf_rn(v.y, v.y, __fmul_rn(v.x, v.x)));
      float b = fk_fp8_over8(__fmaf_rn(v.w, v.w, __fmul_rn(v.z, v.z)));
      if (g == 0) mine[8 * j + 2 * t] = a, mine[8 * j + 2 * t + 1] = b;
    }
  }
  fk_bar_sync(3, 256);
  if (tid < BT) {
    float q[8];
#pragma unroll
    for (int w = 0; w < 8; w++) q[w] = squares[w * BT + tid];
    float low = __fadd_rn(__fadd_rn(q[0], q[1]), __fadd_rn(q[2], q[3]));
    float high = __fadd_rn(__fadd_rn(q[4], q[5]), __fadd_rn(q[6], q[7]));
    heads[tid] = rsqrtf(__fmaf_rn(__fadd_rn(low, high), 1.0f / 128, 1e-6f));
  }
  fk_bar_sync(3, 256); /* a thread comes to the next tile's first barrier when it has read these */
}

FK_DEVICE float2 fk_fp8_angle(const FkFp8Spot &s, int token) {
  float2 v;
  asm volatile("ld.global.nc.v2.f32 {%0, %1}, [%2];"
               : "=f"(v.x), "=f"(v.y)
               : "l"(s.rope + (token < s.left ? token * 64 : 0)));
  return v;
}

/* Second part: norm weights, rotation, store; angles are read four rows of eight tokens ahead. */
template <int From, int To, int Regs>
FK_DEVICE void fk_fp8_rotate(const FkFp8Spot &s, const float (&sum)[Regs], const float *heads) {
  constexpr int ahead = 4;
  float2 angle[To - From + ahead][2];
#pragma unroll
  for (int j = From; j < To + ahead; j++) {
#pragma unroll
    for (int e = 0; e < 2 && j < To; e++) angle[j - From][e] = fk_fp8_angle(s, 8 * j + e);
    int n = j - ahead;
    if (n < From) continue;
    float2 scale = *(const float2 *)(heads + 8 * n);
#pragma unroll
    for (int e = 0; e < 2; e++) {
      float q = e ? scale.y : scale.x;
      float2 cs = angle[n - From][e];
      float x = sum[4 * n + e] * (q * s.second.x), y = sum[4 * n + 2 + e] * (q * s.second.y);
      fk_fp8_put(s, 8 * n + e, fk_linear_rotate(x, y, cs.x, cs.y));
    }
  }
}

/* Quarter Q of a tile's epilogue. */
template <int Epi, int BT, int Sum, int Q>
FK_DEVICE void fk_fp8_quarter(const FkFp8Spot &s, int part, float (&sum)[BT / 2], float *squares, float *heads) {
  constexpr int rows = BT / 8, from = rows * Q / 4, to = rows * (Q + 1) / 4;
  constexpr int head_from = Q ? rows * (Q - 1) / 3 : 0, head_to = rows * Q / 3;
  if constexpr (Epi == FK_LINEAR_GATE) { /* the first quarter in two: most registers are taken then */
    constexpr int middle = Q ? from : (from + to) / 2;
    if (Q == 0) fk_fp8_gate<Sum, from, Q ? to : middle>(s, sum);
    fk_fp8_gate<Sum, middle, to>(s, sum);
  } else if constexpr (Epi != FK_LINEAR_QKV) {
    fk_fp8_map<Epi, Sum, from, to>(s, sum);
  } else {
    if (part == 1)
      fk_fp8_map<FK_LINEAR_NONE, Sum, from, to>(s, sum);
    else if (part >= 3)
      fk_fp8_map<FK_LINEAR_GELU, Sum, from, to>(s, sum);
    else if constexpr (Q == 0)
      fk_fp8_squares<BT, Sum>(s, sum, squares, heads);
    else
      fk_fp8_rotate<head_from, head_to>(s, sum, heads + 2 * (threadIdx.x & 3));
  }
}

/* ---- the kernel ------------------------------------------------------------------------------------------------- */

/* The products of one stage, left running. keep 0: start from zero. */
template <int BT> FK_DEVICE void fk_fp8_block(float (&acc)[BT / 2], uint64_t wd, uint64_t xd, int keep) {
  fk_wgmma_fence();
#pragma unroll
  for (int j = 0; j < FK_FP8_BK / 32; j++)
    FkFp8Wgmma<BT>::ss(acc, wd + j * FK_DESC_K_STEP, xd + j * FK_DESC_K_STEP, j ? 1 : keep);
  fk_wgmma_commit();
}

/* One lane for each block of the cluster tells its producer that this warp no longer reads the stage. */
FK_DEVICE void fk_fp8_release(uint32_t empty, int stage) {
  int lane = threadIdx.x & 31;
  if (lane < 2) fk_mbar_arrive_cluster(empty + 8 * stage, lane);
}

/* A warpgroup's walk over the stages. */
template <int BT, int Sum> struct FkFp8Walk {
  using S = FkFp8Shape<BT, Sum>;
  uint64_t wd, xd;
  uint32_t full, empty;
  int stage, phase, before; /* before: the stage issued last */

  __device__ __forceinline__ void issue(float (&acc)[BT / 2], int keep) {
    constexpr int step = S::stage_bytes >> 4;
    fk_mbar_wait(full + 8 * stage, phase);
    fk_fp8_block<BT>(acc, wd + stage * step, xd + stage * step, keep);
    before = stage;
    if (++stage == S::stages) stage = 0, phase ^= 1;
  }
  /* The stage n blocks before the next one is read no more. */
  __device__ __forceinline__ void release(int n) {
    int at = stage - n;
    fk_fp8_release(empty, at < 0 ? at + S::stages : at);
  }
};

/* sum (+)= acc times the scales of the stage that was issued last. */
template <int BT, bool First>
FK_DEVICE void fk_fp8_add_scaled(float (&sum)[BT / 2], const float (&acc)[BT / 2], const float *scales) {
#pragma unroll
  for (int j = 0; j < BT / 8; j++) {
    float2 q = *(const float2 *)(scales + 8 * j);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float by = i % 2 ? q.y : q.x;
      sum[4 * j + i] = First ? __fmul_rn(acc[4 * j + i], by) : __fmaf_rn(acc[4 * j + i], by, sum[4 * j + i]);
    }
  }
}

/* The residual of a tile, on its way to L2: 128 bytes a row of each warpgroup. */
template <int BT> FK_DEVICE void fk_fp8_ahead(const FkFp8Args &a, const FkFp8Tile &t, int wg) {
  const FkFp8Rows &g = a.rows[t.group];
#pragma unroll
  for (int i = 0; i < (BT + 127) / 128; i++) {
    int at = (threadIdx.x & 127) + 128 * i;
    fk_fp8_prefetch(g.y + (t.row + at) * g.ldy + t.col + wg * 64, at < BT && t.row + at < g.m);
  }
}

/* Both warpgroups walk over all stages. A round is the first blocks of a unit, between them the epilogue of the unit
 * before, then the other blocks; the first round has no unit before, the last one has no blocks. At most two blocks of
 * a warpgroup are unfinished, so the slower one always finds its stage full. */
template <int Epi, int BT, int Sum>
FK_DEVICE void fk_fp8_consume(const FkFp8Args &a, uint8_t *shared, uint32_t full, uint32_t empty, int rank) {
  using S = FkFp8Shape<BT, Sum>;
  constexpr bool ahead = Sum != FK_FP8_BLOCK; /* four blocks under the epilogue, else one */
  int wg = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0) - 1, clusters = gridDim.x / 2;
  uint32_t smem = fk_smem(shared);
  float *extra = (float *)(shared + S::extra_at), *squares = extra + 4 * BT, *heads = squares + 8 * BT;
  const float *scales = (const float *)(shared + S::scales_at) + 2 * (threadIdx.x & 3);
  FkFp8Walk<BT, Sum> walk = {fk_desc(smem + wg * (64 * FK_FP8_BK)), fk_desc(smem + S::w_bytes), full, empty, 0, 0, 0};
  float acc[BT / 2], sum[BT / 2] = {};
  bool real = false; /* sum holds a tile */
  int odd = 0;
  for (int unit = blockIdx.x / 2; unit < a.units + clusters; unit += clusters, odd ^= 1) {
    bool more = unit < a.units;
    int k_blocks = more ? a.k_blocks : 0;
    fk_wgmma_hold(acc);
    if (more) {
      walk.issue(acc, 0);
      if (ahead) walk.issue(acc, 1);
    }
    FkFp8Tile t = fk_fp8_tile(a, real ? unit - clusters : unit, BT, rank);
    FkFp8Spot s = fk_fp8_spot<Epi>(a, t, wg, real);
    int part = Epi == FK_LINEAR_QKV ? t.col / a.width : 0;
    if (Sum != FK_FP8_BLOCK) { /* two buffers: nobody is two barriers ahead of a reader */
      float *rows = extra + (2 * wg + odd) * BT;
      fk_fp8_scales<BT>(a, t, rows);
      fk_bar_sync(1 + wg, 128);
      s.x_scale = rows + 2 * (threadIdx.x & 3);
    }
    fk_fp8_quarter<Epi, BT, Sum, 0>(s, part, sum, squares, heads);
    if (ahead && more) {
      fk_wgmma_wait<1>();
      walk.release(2);
      walk.issue(acc, 1);
    }
    fk_fp8_quarter<Epi, BT, Sum, 1>(s, part, sum, squares, heads);
    if (ahead && more) {
      fk_wgmma_wait<1>();
      walk.release(2);
      walk.issue(acc, 1);
    }
    fk_fp8_quarter<Epi, BT, Sum, 2>(s, part, sum, squares, heads);
    if (ahead && more) {
      fk_wgmma_wait<1>();
      walk.release(2);
    }
    fk_fp8_quarter<Epi, BT, Sum, 3>(s, part, sum, squares, heads);
    real = true;
    if (Epi == FK_LINEAR_GATE && more) fk_fp8_ahead<BT>(a, fk_fp8_tile(a, unit, BT, rank), wg);
    if (Sum == FK_FP8_ROW) {
      fk_wgmma_wait<0>();
      fk_wgmma_hold(acc);
      if (more) walk.release(1);
#pragma unroll
      for (int i = 0; i < BT / 2; i++) sum[i] = acc[i];
      for (int k = FK_FP8_GROUP; k < k_blocks; k += FK_FP8_GROUP) {
        int end = min(k + FK_FP8_GROUP, k_blocks);
        walk.issue(acc, 0);
        for (int i = k + 1; i < end; i++) {
          walk.issue(acc, 1);
          fk_wgmma_wait<1>();
          walk.release(2);
        }
        fk_wgmma_wait<0>();
        fk_wgmma_hold(acc);
        walk.release(1);
#pragma unroll
        for (int i = 0; i < BT / 2; i++) sum[i] += acc[i];
      }
    } else if (Sum == FK_FP8_ONCE) {
      for (int k = FK_FP8_GROUP; k < k_blocks; k++) {
        walk.issue(acc, 1);
        fk_wgmma_wait<1>();
        walk.release(2);
      }
      fk_wgmma_wait<0>();
      fk_wgmma_hold(acc);
      if (more) walk.release(1);
#pragma unroll
      for (int i = 0; i < BT / 2; i++) sum[i] = acc[i];
    } else {
      fk_wgmma_wait<0>();
      fk_wgmma_hold(acc);
      fk_fp8_add_scaled<BT, true>(sum, acc, scales + walk.before * (S::scale_bytes / 4));
      for (int k = 1; k < k_blocks; k++) {
        fk_fence_async(); /* the scales were read by the threads themselves */
        __syncwarp();
        walk.release(1);
        walk.issue(acc, 0);
        fk_wgmma_wait<0>();
        fk_wgmma_hold(acc);
        fk_fp8_add_scaled<BT, false>(sum, acc, scales + walk.before * (S::scale_bytes / 4));
      }
      fk_fence_async();
      __syncwarp();
      if (more) walk.release(1);
    }
  }
}

/* A producer warpgroup and two math warpgroups. */
template <int Epi, int BT, int Sum>
__global__ void __launch_bounds__(384, 1) linear_fp8_sm90_kernel(const __grid_constant__ FkFp8Args a) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using S = FkFp8Shape<BT, Sum>;
  extern __shared__ __align__(1024) uint8_t shared[];
  uint32_t smem = fk_smem(shared), full = smem + S::bars_at, empty = full + 8 * S::stages;
  int rank = (int)fk_cluster_rank();
  if (threadIdx.x == 0) {
    for (int s = 0; s < S::stages; s++) {
      fk_mbar_init(full + 8 * s, 1);
      fk_mbar_init(empty + 8 * s, 8 * 2); /* eight warps in each block */
    }
    fk_fence_mbar_init();
    for (int i = 0; i < 2; i++)
      if (a.row_tiles[i]) fk_tma_prefetch_map(&a.x[i][rank]), fk_tma_prefetch_map(&a.w[i]);
  }
  __syncthreads();
  fk_cluster_arrive(), fk_cluster_wait();
  if (threadIdx.x < 128) {
    fk_regs_dec<24>();
    if (threadIdx.x == 0) fk_fp8_produce<BT, Sum>(a, smem, full, empty, rank);
  } else {
    fk_regs_inc<240>();
    fk_fp8_consume<Epi, BT, Sum>(a, shared, full, empty, rank);
  }
  /* Nobody leaves while a neighbour may still arrive on its barriers or write its stages. */
  __syncwarp();
  fk_cluster_arrive(), fk_cluster_wait();
#endif
}

#endif
