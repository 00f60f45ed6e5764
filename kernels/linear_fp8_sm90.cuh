/* SPDX-License-Identifier: Apache-2.0 */
/* Device side of the e4m3 linear layer on sm_90a for long sums: float32 sums of FK_FP8_GROUP blocks (linear_fp8.h).
 * Epilogues NONE and GATE.
 *
 * Tiles, stages and copies as in linear_pingpong_sm90.cuh, but both math warpgroups work on one tile, 64 features each,
 * because a thread has two sets of BT / 2 registers: what the tensor core adds to (acc) and the float32 sums. While one
 * warpgroup adds acc to its sums, the other multiplies. The sums of a finished tile are stored while the first blocks
 * of the next one run into acc.
 *
 * Weight rows land in shared memory so that place 64s + 16w + 8h + g holds row 32w + 16s + 2g + h (five-axis tensor
 * map): lane 4g + t of warp w of warpgroup s has features 32w + 16s + 2g and the next one, of tokens 8j + 2t + {0, 1}.
 * Eight lanes store 32 bytes in a row. */
#ifndef FK_LINEAR_FP8_SM90_CUH
#define FK_LINEAR_FP8_SM90_CUH

#include "linear_fp8.h"
#include "linear_fp8_pingpong_sm90.cuh"

/* A thread's place in a tile whose sums are complete. */
typedef struct {
  char *y;              /* its first feature of its first token */
  int ld;               /* bytes from token to token */
  int left;             /* tokens from its first to the end of the group; 0: no tile */
  bool whole;           /* every token of the tile exists */
  const float *x_scale; /* shared memory, at its first token */
  float2 scale, bias;   /* of its features, times the gate */
} FkFp8Spot;

template <bool Gate, int BT> FK_DEVICE FkFp8Spot fk_fp8_spot(const FkFp8Args &a, const FkPpTile &t, int wg, bool real) {
  const FkLinearRows &g = a.pp.rows[t.group];
  int lane = threadIdx.x & 31, row = t.row + (lane & 3) * 2;
  int in = t.col + (threadIdx.x >> 5 & 3) * 32 + wg * 16 + lane / 4 * 2;
  FkFp8Spot s;
  s.ld = (int)g.ldy * 2;
  s.y = (char *)g.y + (row * g.ldy + in) * 2;
  s.left = real ? g.m - row : 0;
  s.whole = real && t.row + BT <= g.m;
  s.x_scale = NULL;
  s.scale = __ldg((const float2 *)(a.w_scale[t.group] + in));
  s.bias = g.bias ? __ldg((const float2 *)(g.bias + in)) : make_float2(0, 0);
  if (Gate && g.gate) {
    float2 gate = __ldg((const float2 *)(g.gate + in));
    s.scale.x *= gate.x, s.scale.y *= gate.y, s.bias.x *= gate.x, s.bias.y *= gate.y;
  }
  return s;
}

/* *p = v, or *p += v, two bf16, each sum rounded to nearest even. */
template <bool Gate> FK_DEVICE void fk_fp8_put(char *p, uint32_t v) {
  if (Gate)
    asm volatile("red.relaxed.gpu.global.add.noftz.bf16x2 [%0], %1;" ::"l"(p), "r"(v) : "memory");
  else
    asm volatile("st.global.b32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}

/* Quarter Q of a tile's epilogue: values of two tokens and two features at a time. With Gate the memory adds: nothing
 * is waited for, and every element gets one addition, so the bytes do not depend on an order. Whole: every token
 * exists; otherwise there is a branch at each access. */
template <bool Gate, int BT, int Q, bool Whole>
FK_DEVICE void fk_fp8_rows(const FkFp8Spot &s, const float (&sum)[BT / 2]) {
  constexpr int rows = BT / 8;
#pragma unroll
  for (int j = rows * Q / 4; j < rows * (Q + 1) / 4; j++) {
    float2 q = *(const float2 *)(s.x_scale + 8 * j);
#pragma unroll
    for (int e = 0; e < 2; e++) {
      float x = e ? q.y : q.x;
      uint32_t v = fk_pack_bf16(__fmaf_rn(__fmul_rn(sum[4 * j + e], x), s.scale.x, s.bias.x),
                                __fmaf_rn(__fmul_rn(sum[4 * j + 2 + e], x), s.scale.y, s.bias.y));
      if (Whole || 8 * j + e < s.left) fk_fp8_put<Gate>(s.y + (int64_t)(8 * j + e) * s.ld, v);
    }
  }
}

template <bool Gate, int BT, int Q> FK_DEVICE void fk_fp8_quarter(const FkFp8Spot &s, const float (&sum)[BT / 2]) {
  if (s.whole)
    fk_fp8_rows<Gate, BT, Q, true>(s, sum);
  else
    fk_fp8_rows<Gate, BT, Q, false>(s, sum);
}

/* A warpgroup's walk over the stages. */
template <int BT> struct FkFp8Walk {
  using S = FkPpShape<BT>;
  uint64_t wd, xd;
  uint32_t full, empty;
  int stage, phase;

  /* The products of the next stage, left running. keep 0: start from zero. */
  __device__ __forceinline__ void issue(float (&acc)[BT / 2], int keep) {
    constexpr int step = S::stage_bytes >> 4;
    fk_mbar_wait(full + 8 * stage, phase);
    fk_wgmma_fence();
#pragma unroll
    for (int j = 0; j < FK_PP_BK / 16; j++)
      FkWgmma<BT>::ss_e4m3(acc, wd + stage * step + j * FK_DESC_K_STEP, xd + stage * step + j * FK_DESC_K_STEP,
                           j ? 1 : keep);
    fk_wgmma_commit();
    if (++stage == S::stages) stage = 0, phase ^= 1;
  }
  /* The stage n blocks before the next one is read no more. */
  __device__ __forceinline__ void release(int n) {
    int at = stage - n;
    fk_pp_release(empty, at < 0 ? at + S::stages : at);
  }
  /* One block more, if there are any, under a quarter of the epilogue. */
  __device__ __forceinline__ void next(float (&acc)[BT / 2], bool more, bool last) {
    if (!more) return;
    fk_wgmma_wait<1>();
    release(2);
    if (!last) issue(acc, 1);
  }
};

/* Both warpgroups walk over all stages. A round is the first group of blocks of a unit, between them the epilogue of
 * the unit before, then the other groups; the first round has no unit before, the last one has no blocks. At most two
 * blocks of a warpgroup are unfinished, so the slower one always finds its stage full. */
template <bool Gate, int BT>
FK_DEVICE void fk_fp8_consume(const FkFp8Args &args, uint8_t *shared, uint32_t full, uint32_t empty, int rank) {
  using S = FkPpShape<BT>;
  const FkPpArgs &a = args.pp;
  int wg = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0) - 1, clusters = gridDim.x / 2;
  uint32_t smem = fk_smem(shared);
  float *scales = (float *)(shared + FkFp8Shape<BT>::scales_at) + wg * 2 * BT;
  FkFp8Walk<BT> walk = {fk_desc(smem + wg * (64 * 128)), fk_desc(smem + S::w_bytes), full, empty, 0, 0};
  float acc[BT / 2], sum[BT / 2] = {};
  bool real = false; /* sum holds a tile */
  int buffer = 0;
  for (int unit = blockIdx.x / 2; unit < a.units + clusters; unit += clusters) {
    bool more = unit < a.units;
    int k_blocks = more ? a.k_blocks : 0;
    fk_wgmma_hold(acc);
    if (more) walk.issue(acc, 0), walk.issue(acc, 1);
    FkPpTile t = fk_pp_tile(a, real ? unit - clusters : unit, BT, rank);
    FkFp8Spot s = fk_fp8_spot<Gate, BT>(args, t, wg, real);
    fk_fp8_tokens<BT>(args, t, scales + buffer); /* two buffers: nobody is two barriers ahead of a reader */
    fk_bar_sync(1 + wg, 128);
    s.x_scale = scales + buffer + 2 * (threadIdx.x & 3);
    buffer ^= BT;
    fk_fp8_quarter<Gate, BT, 0>(s, sum);
    walk.next(acc, more, false);
    fk_fp8_quarter<Gate, BT, 1>(s, sum);
    walk.next(acc, more, false);
    fk_fp8_quarter<Gate, BT, 2>(s, sum);
    walk.next(acc, more, true);
    fk_fp8_quarter<Gate, BT, 3>(s, sum);
    real = true;
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
  }
}

/* A producer warpgroup and two math warpgroups. */
template <bool Gate, int BT>
__global__ void __launch_bounds__(384, 1) linear_fp8_sm90_kernel(const __grid_constant__ FkFp8Args a) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using S = FkPpShape<BT>;
  extern __shared__ __align__(1024) uint8_t shared[];
  uint32_t smem = fk_smem(shared), full = smem + S::stages * S::stage_bytes + 2 * S::sums_bytes;
  uint32_t empty = full + 8 * S::stages;
  int rank = (int)fk_cluster_rank();
  fk_fp8_begin<BT>(a, full, empty, 8, rank);
  if (threadIdx.x < 128) {
    fk_regs_dec<24>();
    if (threadIdx.x == 0) fk_pp_produce<BT>(a.pp, smem, full, empty, rank);
  } else {
    fk_regs_inc<240>();
    fk_fp8_consume<Gate, BT>(a, shared, full, empty, rank);
  }
  fk_fp8_end();
#endif
}

#endif
