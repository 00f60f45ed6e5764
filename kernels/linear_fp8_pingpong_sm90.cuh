/* SPDX-License-Identifier: Apache-2.0 */
/* Device side of the e4m3 linear layers on sm_90a, and the kernel of short sums: all of K in the tensor core
 * (linear_fp8.h). Launch code is in linear_fp8.cu, the kernel of long sums in linear_fp8_sm90.cuh.
 *
 * Tiles, stages, turns of the two math warpgroups and epilogues are those of linear_pingpong_sm90.cuh: a stage has 128
 * bytes of each row, which are 128 codes here, so the copies see pairs of codes as bf16. What is new is the product
 * and a pass over finished sums that multiplies each with the scales of its token and of its feature. */
#ifndef FK_LINEAR_FP8_PINGPONG_SM90_CUH
#define FK_LINEAR_FP8_PINGPONG_SM90_CUH

#include "linear_pingpong_sm90.cuh"

/* GELU, and QKV with its MLP columns, leaving as codes under a given scale. */
constexpr int FK_FP8_GELU_CODES = FK_LINEAR_QKV + 1, FK_FP8_QKV_CODES = FK_LINEAR_QKV + 2;

typedef struct {
  uint8_t *y; /* of the first such column */
  int64_t ld;
  float *scale;
  FkGiven given;
} FkFp8Codes;

typedef struct {
  FkPpArgs pp; /* k_blocks: of 128 codes */
  const float *x_scale[2], *w_scale[2];
  float x_given[2];
  FkFp8Codes codes[2];
} FkFp8Args;

/* Shared memory: as FkPpShape, then the scales of a tile's tokens [2 warpgroups][2 tiles][BT]. */
template <int BT> struct FkFp8Shape {
  static constexpr int scales_at = FkPpShape<BT>::smem_bytes, smem_bytes = scales_at + 4 * BT * 4;
  static_assert(scales_at % 16 == 0 && smem_bytes <= FK_PP_SMEM, "scales fit behind the barriers");
};

/* Scales of a tile's tokens, to shared memory; 0 for those that do not exist. */
template <int BT> FK_DEVICE void fk_fp8_tokens(const FkFp8Args &a, const FkPpTile &t, float *to) {
  const float *from = a.x_scale[t.group];
  int m = a.pp.rows[t.group].m;
#pragma unroll
  for (int i = 0; i < (BT + 127) / 128; i++) {
    int at = (threadIdx.x & 127) + 128 * i;
    if (at < BT) to[at] = t.row + at < m ? __ldg(from + t.row + at) : 0.0f;
  }
}

/* The barriers: empty ones expect `warps` of each block of the cluster. All threads. */
template <int BT> FK_DEVICE void fk_fp8_begin(const FkFp8Args &a, uint32_t full, uint32_t empty, int warps, int rank) {
  if (threadIdx.x == 0) {
    for (int s = 0; s < FkPpShape<BT>::stages; s++) {
      fk_mbar_init(full + 8 * s, 1);
      fk_mbar_init(empty + 8 * s, warps * 2);
    }
    fk_fence_mbar_init();
    for (int i = 0; i < 2; i++)
      if (a.pp.row_tiles[i]) fk_tma_prefetch_map(&a.pp.x[i][rank]), fk_tma_prefetch_map(&a.pp.w[i]);
  }
  __syncthreads();
  fk_cluster_arrive(), fk_cluster_wait();
}

/* Nobody leaves while a neighbour may still arrive on its barriers or write its stages. */
FK_DEVICE void fk_fp8_end() {
  __syncwarp();
  fk_cluster_arrive(), fk_cluster_wait();
}

/* ---- short sums ------------------------------------------------------------------------------------------------- */

/* The products of one stage, left running: both halves of the features. keep 0: start from zero. */
template <int BT>
FK_DEVICE void fk_fp8_pp_block(float (&lo)[BT / 2], float (&hi)[BT / 2], uint64_t wd, uint64_t xd, int keep) {
  constexpr int half = 64 * FK_PP_BK * 2 >> 4;
  fk_wgmma_fence();
#pragma unroll
  for (int j = 0; j < FK_PP_BK / 16; j++) {
    FkWgmma<BT>::ss_e4m3(lo, wd + j * FK_DESC_K_STEP, xd + j * FK_DESC_K_STEP, j ? 1 : keep);
    FkWgmma<BT>::ss_e4m3(hi, wd + half + j * FK_DESC_K_STEP, xd + j * FK_DESC_K_STEP, j ? 1 : keep);
  }
  fk_wgmma_commit();
}

/* sum * scale of the feature + bias, in place: f has the scale that all tokens share in it. */
template <int BT> FK_DEVICE void fk_fp8_pp_scale(float4 f, float4 bias, float (&lo)[BT / 2], float (&hi)[BT / 2]) {
#pragma unroll
  for (int i = 0; i < BT / 2; i++) {
    lo[i] = __fmaf_rn(lo[i], i & 2 ? f.y : f.x, i & 2 ? bias.y : bias.x);
    hi[i] = __fmaf_rn(hi[i], i & 2 ? f.w : f.z, i & 2 ? bias.w : bias.z);
  }
}

/* (sum * scale of the token) * scale of the feature + bias, in place. tokens: at the thread's first token. */
template <int BT>
FK_DEVICE void fk_fp8_pp_scale(const float *tokens, float4 f, float4 bias, float (&lo)[BT / 2], float (&hi)[BT / 2]) {
#pragma unroll
  for (int j = 0; j < BT / 8; j++) {
    float2 q = *(const float2 *)(tokens + 8 * j);
#pragma unroll
    for (int e = 0; e < 2; e++) {
      float s = e ? q.y : q.x;
      lo[4 * j + e] = __fmaf_rn(__fmul_rn(lo[4 * j + e], s), f.x, bias.x);
      lo[4 * j + 2 + e] = __fmaf_rn(__fmul_rn(lo[4 * j + 2 + e], s), f.y, bias.y);
      hi[4 * j + e] = __fmaf_rn(__fmul_rn(hi[4 * j + e], s), f.z, bias.z);
      hi[4 * j + 2 + e] = __fmaf_rn(__fmul_rn(hi[4 * j + 2 + e], s), f.w, bias.w);
    }
  }
}

/* ---- results in codes ------------------------------------------------------------------------------------------- */

/* The scales of the tile's rows, written by the tiles of the first such column. */
template <int BT> FK_DEVICE void fk_fp8_fill_scale(const FkFp8Args &a, const FkPpTile &t, int first) {
  const FkFp8Codes &c = a.codes[t.group];
  if (t.col != first) return;
  for (int at = threadIdx.x & 127; at < BT && t.row + at < a.pp.rows[t.group].m; at += 128)
    c.scale[t.row + at] = c.given.scale;
}

/* A thread's place in a tile of which `first` is the first column in codes. */
FK_DEVICE FkPpSpot fk_fp8_codes_spot(const FkFp8Args &a, const FkPpTile &t, int first) {
  const FkFp8Codes &c = a.codes[t.group];
  int lane = threadIdx.x & 31, in = (threadIdx.x >> 5 & 3) * 32 + lane / 4 * 4, row = t.row + (lane & 3) * 2;
  FkPpSpot s = fk_pp_spot<FK_LINEAR_GELU>(a.pp, t);
  s.ld = c.ld;
  s.y = (char *)c.y + row * c.ld + t.col - first + in;
  return s;
}

FK_DEVICE void fk_fp8_store4(char *p, uint32_t v, bool wanted) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %2, 0;\n@p st.global.b32 [%1], %0;\n}" ::"r"(v), "l"(p),
               "r"((int)wanted)
               : "memory");
}

/* As fk_pp_map with GELU, whose bf16 numbers become codes: eight lanes store 32 bytes in a row. Two passes: the first
 * for numbers that the scale is large enough for; the other, over all again, where one was not. */
template <int BT, bool Again = false>
FK_DEVICE void fk_fp8_codes_map(const FkPpSpot &s, const FkGiven &given, const float (&lo)[BT / 2],
                                const float (&hi)[BT / 2]) {
  float beyond = 0;
  uint32_t top = 0;
#pragma unroll
  for (int j = 0; j < BT / 8; j++) {
    if (j % 4 == 0 && 8 * j >= s.left) break;
#pragma unroll
    for (int e = 0; e < 2; e++) {
      const bool there = 8 * j + e < s.left;
      const uint2 v = fk_pp_pack(fk_pp_act<FK_LINEAR_GELU>(fk_pp_value(lo, hi, j, e)));
      float over = 0;
      const uint32_t codes = Again ? fk_given_bf16(v.x, given.inverse, &over) | fk_given_bf16(v.y, given.inverse, &over)
                                                                                    << 16
                                   : fk_given_four(v, given.inverse, &top);
      fk_fp8_store4(s.y + (8 * j + e) * s.ld, codes, there);
      if (Again) beyond += there ? over : 0;
    }
  }
  if constexpr (Again)
    fk_given_count(given.saturated, beyond);
  else if (fk_given_short(top, given.inverse))
    fk_fp8_codes_map<BT, true>(s, given, lo, hi);
}

/* fk_pp_finish for the two that end in codes: part 3, of which all of GELU is. */
template <int Epi, int BT>
FK_DEVICE void fk_fp8_codes_finish(const FkPpSpot &s, const FkGiven &given, int part, float *sums, int bar,
                                   const float (&lo)[BT / 2], const float (&hi)[BT / 2]) {
  if (Epi == FK_FP8_GELU_CODES || part >= 3)
    fk_fp8_codes_map<BT>(s, given, lo, hi);
  else if (part == 1)
    fk_pp_map<FK_LINEAR_NONE, BT, true>(s, lo, hi);
  else
    fk_pp_head<BT, true>(s, sums, bar, lo, hi);
}

/* ---- the kernel of short sums ----------------------------------------------------------------------------------- */

/* As fk_pp_consume. A warpgroup writes the token scales of its unit before its turn, which is the barrier that makes
 * them visible; of the two buffers a slower warp can still be reading only the other one. */
template <int Epi, int BT>
FK_DEVICE void fk_fp8_pp_consume(const FkFp8Args &args, uint8_t *shared, uint32_t full, uint32_t empty, int rank) {
  using S = FkPpShape<BT>;
  const FkPpArgs &a = args.pp;
  constexpr int step = S::stage_bytes >> 4;
  constexpr bool Heads = Epi == FK_LINEAR_QKV || Epi == FK_FP8_QKV_CODES;
  constexpr bool Codes = Epi == FK_FP8_GELU_CODES || Epi == FK_FP8_QKV_CODES;
  constexpr int Numbers = Heads ? FK_LINEAR_QKV : Epi; /* what of the tile is no code */
  int wg = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0) - 1, clusters = gridDim.x / 2, lane = threadIdx.x & 31;
  uint32_t smem = fk_smem(shared);
  uint64_t wd = fk_desc(smem), xd = fk_desc(smem + S::w_bytes);
  float *sums = (float *)(shared + S::stages * S::stage_bytes) + wg * (S::sums_bytes / 4);
  float *scales = (float *)(shared + FkFp8Shape<BT>::scales_at) + wg * 2 * BT;
  float lo[BT / 2], hi[BT / 2];
  if (wg == 1) fk_bar_arrive(4, 256); /* warpgroup 0 begins */
  int block = wg * a.k_blocks;        /* of all that this cluster gets, the first of this unit */
  int buffer = 0;
  for (int unit = blockIdx.x / 2 + wg * clusters; unit < a.units; unit += 2 * clusters, block += 2 * a.k_blocks) {
    FkPpTile t = fk_pp_tile(a, unit, BT, rank);
    const float x_given = args.x_given[t.group];
    if (x_given <= 0) fk_fp8_tokens<BT>(args, t, scales + buffer);
    if (Codes) fk_fp8_fill_scale<BT>(args, t, Heads ? 3 * a.width : 0);
    int stage = block % S::stages, phase = block / S::stages & 1, before = stage;
    fk_bar_sync(4 + wg, 256);
    fk_wgmma_hold(lo), fk_wgmma_hold(hi);
    fk_mbar_wait(full + 8 * stage, phase);
    fk_fp8_pp_block<BT>(lo, hi, wd + stage * step, xd + stage * step, 0);
    if (a.k_blocks == 1) fk_bar_arrive(5 - wg, 256);
    if (++stage == S::stages) stage = 0, phase ^= 1;
    for (int k = 1; k < a.k_blocks; k++) {
      fk_mbar_wait(full + 8 * stage, phase);
      fk_fp8_pp_block<BT>(lo, hi, wd + stage * step, xd + stage * step, 1);
      if (k + 1 == a.k_blocks) fk_bar_arrive(5 - wg, 256);
      fk_wgmma_wait<1>();
      fk_pp_release(empty, before);
      before = stage;
      if (++stage == S::stages) stage = 0, phase ^= 1;
    }
    const float *features = args.w_scale[t.group] + t.col + (threadIdx.x >> 5 & 3) * 32 + lane / 4 * 4;
    float4 f = __ldg((const float4 *)features);
    bool coded = Codes && (!Heads || t.col >= 3 * a.width);
    FkPpSpot s = coded ? fk_fp8_codes_spot(args, t, Heads ? 3 * a.width : 0) : fk_pp_spot<Numbers>(a, t);
    fk_wgmma_wait<0>();
    fk_wgmma_hold(lo), fk_wgmma_hold(hi);
    fk_pp_release(empty, before);
    if (x_given > 0)
      fk_fp8_pp_scale<BT>(make_float4(f.x * x_given, f.y * x_given, f.z * x_given, f.w * x_given), s.bias, lo, hi);
    else
      fk_fp8_pp_scale<BT>(scales + buffer + 2 * (lane & 3), f, s.bias, lo, hi);
    if constexpr (Codes)
      fk_fp8_codes_finish<Epi, BT>(s, args.codes[t.group].given, Heads ? t.col / a.width : 3, sums, 2 + wg, lo, hi);
    else
      fk_pp_finish<Epi, BT, true>(s, Epi == FK_LINEAR_QKV ? t.col / a.width : 0, sums, 2 + wg, lo, hi);
    buffer ^= BT;
  }
}

/* A producer warpgroup and two math warpgroups. */
template <int Epi, int BT>
__global__ void __launch_bounds__(384, 1) linear_fp8_pingpong_sm90_kernel(const __grid_constant__ FkFp8Args a) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using S = FkPpShape<BT>;
  extern __shared__ __align__(1024) uint8_t shared[];
  uint32_t smem = fk_smem(shared), full = smem + S::stages * S::stage_bytes + 2 * S::sums_bytes;
  uint32_t empty = full + 8 * S::stages;
  int rank = (int)fk_cluster_rank();
  fk_fp8_begin<BT>(a, full, empty, 4, rank);
  if (threadIdx.x < 128) {
    fk_regs_dec<24>();
    if (threadIdx.x == 0) fk_pp_produce<BT>(a.pp, smem, full, empty, rank);
  } else {
    fk_regs_inc<240>();
    fk_fp8_pp_consume<Epi, BT>(a, shared, full, empty, rank);
  }
  fk_fp8_end();
#endif
}

#endif
