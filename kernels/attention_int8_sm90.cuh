/* SPDX-License-Identifier: Apache-2.0 */
/* Attention forward in 8 bits for Hopper, head width 128: scores of int8 codes, exact in 32 bits, and values of e4m3
 * codes, as FkAttention has them with k_codes (core/ops/backend.h). The format fixes the order of keys, the references
 * and the promotions, so a row's result depends on its own operands alone.
 *
 * Three warpgroups of 64 query rows and one that only starts copies. The scores of 64 keys are started together with
 * the products of the last weights, which run under the softmax of those scores; three warpgroups that take no turns
 * cover each other. Tiles of 128 keys go from the end to the front. What else is special:
 * - Queries become codes in the registers that hold them, as the first operand of the scores.
 * - Weights are made before anything is known of the greatest score. A reference rises where a code came out as the
 *   largest there is, for a warp of 16 rows seldom; the weights are then made again. So no exponential waits for a
 *   maximum, and looking at 32 codes takes 12 instructions.
 * - Eight columns of ones behind V sum the rounded weights along with the products; these sums join float32 sums after
 *   each 256 keys, the products after each 1024, both in shared memory. The tensor core cuts each product 13 bits below
 *   the largest: values are taken less their mean, so that what is cut cancels.
 * - Weights leave the softmax in the order of its registers; the keys of V stand in that order (Share::row). */
#ifndef FK_ATTENTION_INT8_SM90_CUH
#define FK_ATTENTION_INT8_SM90_CUH

#include "attention_codes.cuh"
#include "attention_share.h"

namespace {

constexpr int kKeys = 128, kGroups = FK_SHARE_GROUPS, kCluster = FK_SHARE_BLOCKS, kStages = 3,
              kBlock = FK_QUANT_VALUES / kKeys, kSumBlock = 2; /* tiles */
constexpr int kThreads = (kGroups + 1) * 128;
constexpr int kKBytes = 128 * 128, kVBytes = 128 * 128, kVStride = kVBytes + 8 * 128;
constexpr int kSums = 18 * 16 * 128; /* of a warpgroup: its threads' words (Words) */
constexpr int kV = kStages * kKBytes, kO = kV + kStages * kVStride, kBars = kO + kGroups * kSums;
/* Barriers, 8 bytes each: K full, K free, V full, V free [stages each]. 1024: room to align the base. */
constexpr int kShared = kBars + 8 * 4 * kStages + 1024;
static_assert(kShared <= 232448, "shared memory");
constexpr float kPShift = 5.f; /* codes are of 2^5 p */
constexpr int kLargest = 0x7e; /* code of 448 */

#define FK_R8(i)                                                                                                       \
  "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3]), "+r"(d[i + 4]), "+r"(d[i + 5]), "+r"(d[i + 6]),          \
      "+r"(d[i + 7])
/* m64n64k32 and m64n136k32: A from registers, B K-major in shared memory. */
FK_DEVICE void wgmma_s8(int (&d)[32], const uint32_t *a, uint64_t b, int keep) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8 {" FK_LIST_64 "}, {%32, %33, %34, %35}, %36, p;\n}"
               : FK_R8(0), FK_R8(8), FK_R8(16), FK_R8(24)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));
}
FK_DEVICE void wgmma_e4m3(float (&d)[68], const uint32_t *a, uint64_t b, int keep) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %73, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n136k32.f32.e4m3.e4m3 {" FK_LIST_128
               ",%64,%65,%66,%67}, {%68, %69, %70, %71}, %72, p, 1, 1;\n}"
               : FK_REGS_128, "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));
}
template <class T, int Count> FK_DEVICE void hold(T (&d)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; i++) asm volatile("" : "+r"(d[i])::"memory");
}

/* Which item a cluster works on, and the block's part of it. Heads follow each other, so that the blocks that run
 * together share the keys of one or two heads in L2. */
struct Walk {
  int item;
  __device__ __forceinline__ Walk() { item = blockIdx.x / kCluster; }
  __device__ __forceinline__ bool valid(const FkShare &s) const { return item < fk_share_items(s); }
  __device__ __forceinline__ void next() { item += gridDim.x / kCluster; }
  __device__ __forceinline__ FkShareItem part(const FkShare &s) const {
    return fk_share_item(s, item, fk_cluster_rank());
  }
};

/* Copies of every tile of K (rows are keys) or of V^T (rows are columns of V); each block of the pair brings one half
 * of it to both. One thread. */
template <bool Values>
FK_DEVICE void load_tiles(const CUtensorMap *map, uint32_t to, uint32_t full, uint32_t empty, const FkShare &share,
                          int tiles) {
  FkRing<kStages> ring;
  const int half = fk_cluster_rank() * 64;
  for (Walk walk; walk.valid(share); walk.next()) {
    const int head = walk.part(share).head;
    for (int j = tiles - 1; j >= 0; j--, ring.next()) {
      const uint32_t at = to + ring.stage * (Values ? kVStride : kKBytes) + half * 128;
      const int key = j * kKeys;
      fk_mbar_wait(empty + 8 * ring.stage, ring.parity ^ 1);
      fk_mbar_expect(full + 8 * ring.stage, 128 * 128);
      fk_tma_multicast_3d(at, map, full + 8 * ring.stage, 3, Values ? key : 0, Values ? half : key + half, head,
                          FK_L2_EVICT_LAST);
    }
  }
}

/* What a thread keeps of its two rows (g and g + 8) in shared memory, in words that are 128 words apart, because there
 * are no registers for it: sums of the blocks of keys so far, four a word; the references that these are under, and the
 * item of the walk; scales of the queries' codes times the softmax'; sums of weights under the present references. */
struct Words {
  float4 *at;
  __device__ __forceinline__ float4 &sums(int i) const { return at[128 * i]; }
  __device__ __forceinline__ float4 &held() const { return at[128 * 16]; }
  __device__ __forceinline__ float2 &scales() const { return *(float2 *)&at[128 * 17].x; }
  __device__ __forceinline__ float2 &weights() const { return *(float2 *)&at[128 * 17].z; }
};

/* Codes of 64 queries in the order of the scores' first operand: q[i][r + 2h] holds row g + 8r's columns 32i + 16h + 4t
 * to + 3. Rows that do not exist are zeros. scale: of the codes, times the softmax'. */
FK_DEVICE void take_queries(uint32_t (&q)[4][4], float (&scale)[2], const FkAttnCodes &a, int row, int head) {
  const int t = threadIdx.x % 4;
  row += threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const __nv_bfloat16 *from = a.q + (int64_t)(row + 8 * r) * a.ld_q + head * 128 + 4 * t;
    uint2 word[8];
    uint32_t most = 0;
    bool broken;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      word[i] = row + 8 * r < a.sq ? *(const uint2 *)(from + 16 * i) : make_uint2(0, 0);
      most = pair_most(pair_most(most, word[i].x), word[i].y);
    }
    float amax = pair_amax(most, &broken);
    amax = fmaxf(amax, __shfl_xor_sync(~0u, amax, 1));
    amax = fmaxf(amax, __shfl_xor_sync(~0u, amax, 2));
    broken = __ballot_sync(~0u, broken) >> (threadIdx.x % 32 & ~3) & 15;
    const float inverse = code_inverse(amax, 127.f, &scale[r], broken);
    scale[r] *= a.scale;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const float x[4] = {fk_pair_low(word[i].x), fk_pair_high(word[i].x), fk_pair_low(word[i].y),
                          fk_pair_high(word[i].y)};
      q[i / 2][r + 2 * (i % 2)] = pack_s8(x, inverse);
    }
  }
}

/* Scores of keys that do not exist: below every other. first: the column of s[0] in lane 0. */
FK_DEVICE void mask_keys(int (&s)[32], int first, int valid) {
  const int column = first + 2 * (threadIdx.x % 4);
#pragma unroll
  for (int i = 0; i < 32; i++)
    if (column + 8 * (i / 4) + (i & 1) >= valid) s[i] = INT_MIN;
}

/* Their weights: nothing, however small the scale is. */
FK_DEVICE void mask_weights(uint32_t (&p)[8], int first, int valid) {
  const int column = first + 2 * (threadIdx.x % 4);
#pragma unroll
  for (int i = 0; i < 8; i++)
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (column + 8 * (score_of(i, j) / 4) + (j & 1) >= valid) p[i] &= ~(0xffu << 8 * j);
}

/* Weights of exponents x less `less`, of rows r where it differs. Word 4i + r + 2h holds row r's keys of column groups
 * 4i + 2h, 4i + 2h + 1: the first operand of the products. */
FK_DEVICE void weigh(uint32_t (&p)[8], const int (&x)[32], const float *less) {
#pragma unroll
  for (int i = 0; i < 8; i++) {
    float y[4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const float exponent = __int_as_float(x[score_of(i, j)]);
      y[j] = fk_exp2(less ? exponent - less[i & 1] : exponent);
    }
    p[i] = pack_e4m3(y[0], y[1], y[2], y[3]);
  }
}

/* Scores of 64 keys, which become their exponents, to codes of their weights; scale: of a thread's two rows. first: of
 * all steps. Returns whether any of the warp's references rose; alpha is then what sums so far are to be multiplied
 * with. Whether a row's reference rises depends on its own scores alone. */
FK_DEVICE bool softmax(uint32_t (&p)[8], int (&s)[32], float (&reference)[2], float (&alpha)[2], float2 scale,
                       bool first) {
  const float bias[2] = {kPShift - reference[0], kPShift - reference[1]};
  uint32_t over[2] = {0, 0}; /* bit 7 of a byte: a code is the largest, or no number */
#pragma unroll
  for (int i = 0; i < 32; i++) {
    const int r = i >> 1 & 1;
    s[i] = __float_as_int(fmaf(__int2float_rn(s[i]), r ? scale.y : scale.x, bias[r]));
  }
  weigh(p, s, NULL);
#pragma unroll
  for (int i = 0; i < 8; i++) over[i & 1] |= p[i] + 0x01010101u * (0x80 - kLargest);
  if (__builtin_expect(!__any_sync(~0u, first || ((over[0] | over[1]) & 0x80808080u)), 1)) return false;
  float up[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float top = __int_as_float(s[2 * r]);
#pragma unroll
    for (int i = 0; i < 32; i++)
      if ((i >> 1 & 1) == r) top = fmaxf(top, __int_as_float(s[i]));
#pragma unroll
    for (int lane = 1; lane < 4; lane *= 2) {
      over[r] |= __shfl_xor_sync(~0u, over[r], lane);
      top = fmaxf(top, __shfl_xor_sync(~0u, top, lane));
    }
    up[r] = first || (over[r] & 0x80808080u) ? top - kPShift : 0.f;
    alpha[r] = fk_exp2(-up[r]);
    reference[r] += up[r];
  }
  weigh(p, s, up);
  return true;
}

/* The accumulators of one block of keys join the sums. first: there are none yet. last: the sums end in acc. */
FK_DEVICE void promote(float (&acc)[68], const Words &o, const float (&reference)[2], float v_scale, bool first,
                       bool last) {
  float2 &held = *(float2 *)&o.held();
  const float f[2] = {first ? 0.f : fk_exp2(held.x - reference[0]), first ? 0.f : fk_exp2(held.y - reference[1])};
  const bool moved = __any_sync(~0u, f[0] != 1.f || f[1] != 1.f);
  if (!last) held = make_float2(reference[0], reference[1]);
#pragma unroll
  for (int i = 0; i < 16; i++) {
    float4 x = first ? make_float4(0.f, 0.f, 0.f, 0.f) : o.sums(i);
    if (moved) x.x *= f[0], x.y *= f[0], x.z *= f[1], x.w *= f[1];
    x = make_float4(fmaf(acc[4 * i], v_scale, x.x), fmaf(acc[4 * i + 1], v_scale, x.y),
                    fmaf(acc[4 * i + 2], v_scale, x.z), fmaf(acc[4 * i + 3], v_scale, x.w));
    if (last)
      acc[4 * i] = x.x, acc[4 * i + 1] = x.y, acc[4 * i + 2] = x.z, acc[4 * i + 3] = x.w;
    else
      o.sums(i) = x;
  }
}

/* Adds the means of the columns to what the sums will be divided by. Each lane of a quad has the whole sums, of which a
 * quarter is left, as the stores add all four. */
FK_DEVICE void finish(float (&o)[64], float (&sum)[2], const float (&acc)[68], const float *v_mean) {
#pragma unroll
  for (int i = 0; i < 16; i++) {
    const float2 mean = __ldg((const float2 *)(v_mean + 8 * i + 2 * (threadIdx.x % 4)));
    o[4 * i] = fmaf(sum[0], mean.x, acc[4 * i]), o[4 * i + 1] = fmaf(sum[0], mean.y, acc[4 * i + 1]);
    o[4 * i + 2] = fmaf(sum[1], mean.x, acc[4 * i + 2]), o[4 * i + 3] = fmaf(sum[1], mean.y, acc[4 * i + 3]);
  }
  sum[0] *= .25f, sum[1] *= .25f;
}

/* Tile up to 192 queries x 128 keys in clusters of 2; 512 threads; registers 128 at entry, then 160 in the three
 * warpgroups that compute and 32 in the one that copies. A tile's products take 1584 clocks, its exponentials 1536:
 * bound by how well the three warpgroups cover each other. */
template <bool Leave>
__global__ void __launch_bounds__(kThreads, 1)
    attention_int8_sm90_kernel(const __grid_constant__ CUtensorMap map_k, const __grid_constant__ CUtensorMap map_v,
                               const FkAttnCodes args, const FkShare share) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char shared[];
  const uint32_t base = (fk_smem(shared) + 1023) & ~1023u, k_full = base + kBars, k_free = k_full + 8 * kStages,
                 v_full = k_free + 8 * kStages, v_free = v_full + 8 * kStages;
  char *const aligned = shared + (base - fk_smem(shared));
  const int group = __shfl_sync(~0u, threadIdx.x / 128, 0), warp = __shfl_sync(~0u, threadIdx.x / 32 % 4, 0);
  const int lane = threadIdx.x % 32, tiles = (args.sk + kKeys - 1) / kKeys;

  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; i++) {
      fk_mbar_init(k_full + 8 * i, 1), fk_mbar_init(k_free + 8 * i, 4 * kGroups * kCluster);
      fk_mbar_init(v_full + 8 * i, 1), fk_mbar_init(v_free + 8 * i, 4 * kGroups * kCluster);
    }
    fk_fence_mbar_init();
  }
  if (threadIdx.x < 256)
    for (int i = 0; i < kStages; i++)
      *(uint32_t *)(aligned + kV + i * kVStride + kVBytes + threadIdx.x * 4) = 0x38383838; /* e4m3: 1 */
  fk_fence_async();
  __syncthreads();
  fk_cluster_arrive(), fk_cluster_wait();

  if (group == kGroups) {
    fk_regs_dec<32>();
    if (warp == 0 && lane == 0) load_tiles<false>(&map_k, base, k_full, k_free, share, tiles);
    if (warp == 1 && lane == 0) load_tiles<true>(&map_v, base + kV, v_full, v_free, share, tiles);
    __syncwarp();
  } else {
    fk_regs_inc<160>();
    const uint64_t k_desc = fk_desc(base), v_desc = fk_desc(base + kV);
    const Words o = {(float4 *)(aligned + kO + group * kSums) + threadIdx.x % 128};
    float acc[68], reference[2], alpha[2];
    int s[32];
    uint32_t p[2][8], q[4][4]; /* p: weights of the two halves of a tile */
    FkRing<kStages> k_ring, v_ring;

    auto release = [&](uint32_t bar) {
      uint32_t rank; /* read here: no register holds it through the softmax */
      asm volatile("mov.u32 %0, %%laneid;" : "=r"(rank));
      if (rank < kCluster) fk_mbar_arrive_cluster(bar, rank);
    };
    /* Products of the weights of half `half`. keep: 0 begins a block of keys. */
    auto products_start = [&](int half, int keep) {
      const uint64_t v = v_desc + v_ring.stage * (kVStride >> 4) + half * (2 * FK_DESC_K_STEP);
#pragma unroll
      for (int i = 0; i < 2; i++) wgmma_e4m3(acc, p[half] + 4 * i, v + i * FK_DESC_K_STEP, i > 0 || keep);
      fk_wgmma_commit();
    };
    auto fence = [&](int half) {
      fk_wgmma_hold(acc), hold(s), hold(p[half]);
#pragma unroll
      for (int i = 0; i < 4; i++) hold(q[i]);
      fk_wgmma_fence();
    };
    /* Scores of half `half` beside the products of the last weights, which are of the other half. */
    auto step = [&](int half, int keep) {
      const uint64_t k = k_desc + k_ring.stage * (kKBytes >> 4) + half * (64 * 128 >> 4);
      fence(half ^ 1);
#pragma unroll
      for (int i = 0; i < 4; i++) wgmma_s8(s, q[i], k + i * FK_DESC_K_STEP, i > 0);
      fk_wgmma_commit();
      products_start(half ^ 1, keep);
      fk_wgmma_wait<1>();
      hold(s);
    };
    /* The softmax that made the weights of half `half` ran under the products, not after them. */
    auto drain = [&](int half) {
      hold(p[half]);
      fk_wgmma_wait<0>();
      fk_wgmma_hold(acc), hold(p[half ^ 1]);
    };
    auto rescale = [&](bool rose) {
      if (__builtin_expect(!rose, 1)) return;
#pragma unroll
      for (int i = 0; i < 68; i++) acc[i] *= alpha[(i >> 1) & 1];
      o.weights() = make_float2(o.weights().x * alpha[0], o.weights().y * alpha[1]);
    };
    auto add_weights = [&]() {
      o.weights() = make_float2(o.weights().x + acc[64], o.weights().y + acc[66]);
      acc[64] = acc[65] = acc[66] = acc[67] = 0.f;
    };

    for (Walk walk; walk.valid(share); walk.next()) {
      const FkShareItem part = walk.part(share);
      if (group >= part.groups || part.row + group * 64 >= args.sq) { /* no rows: only the copies are counted */
        for (int j = 0; j < tiles; j++, k_ring.next(), v_ring.next()) {
          fk_mbar_wait(k_full + 8 * k_ring.stage, k_ring.parity), release(k_free + 8 * k_ring.stage);
          fk_mbar_wait(v_full + 8 * v_ring.stage, v_ring.parity), release(v_free + 8 * v_ring.stage);
        }
        continue;
      }
      const int last = args.sk - (tiles - 1) * kKeys;
      const float *k_scale = args.k_scale + part.head * tiles;
      const float *v_scale = args.v_scale + part.head * ((tiles + kBlock - 1) / kBlock);
      /* First: the tile at the end, in which keys may be missing. The products beside its first scores are of no
       * weights, and of its own values. */
      auto tile = [&]<bool First>(int j) {
        const float scale = __ldg(k_scale + j);
        auto weights = [&](int half, float2 of_queries) {
          if (First && last < kKeys) mask_keys(s, 64 * half, last);
          const bool rose = softmax(p[half], s, reference, alpha,
                                    make_float2(of_queries.x * scale, of_queries.y * scale), First && half == 0);
          if (First && last < kKeys) mask_weights(p[half], 64 * half, last);
          return rose;
        };
        float2 scales = o.scales();
        step(0, 1);
        bool rose = weights(0, scales), promoted = false;
        if constexpr (First) {
          drain(0);
        } else {
          FkRing<kStages> ring = v_ring;
          ring.next();
          fk_mbar_wait(v_full + 8 * ring.stage, ring.parity);
          drain(0);
          release(v_free + 8 * v_ring.stage);
          rescale(rose);
          if ((j + 1) % kSumBlock == 0) add_weights();
          promoted = (j + 1) % kBlock == 0;
          if (promoted) promote(acc, o, reference, __ldg(v_scale + (j + 1) / kBlock), j + 1 + kBlock >= tiles, false);
          v_ring = ring;
        }
        scales = o.scales();
        step(1, !promoted);
        rose = weights(1, scales);
        FkRing<kStages> ring = k_ring;
        ring.next();
        if (j > 0) fk_mbar_wait(k_full + 8 * ring.stage, ring.parity);
        drain(1);
        release(k_free + 8 * k_ring.stage);
        rescale(rose);
        k_ring = ring;
      };
      float scale[2];
      take_queries(q, scale, args, part.row + group * 64, part.head);
      o.scales() = make_float2(scale[0], scale[1]), o.weights() = make_float2(0.f, 0.f);
      o.held().z = __int_as_float(walk.item);
      reference[0] = reference[1] = 0.f;
#pragma unroll
      for (int i = 0; i < 68; i++) acc[i] = 0.f;
#pragma unroll
      for (int i = 0; i < 8; i++) p[1][i] = 0;
      fk_mbar_wait(k_full + 8 * k_ring.stage, k_ring.parity);
      fk_mbar_wait(v_full + 8 * v_ring.stage, v_ring.parity);
      tile.template operator()<true>(tiles - 1);
#pragma unroll 1
      for (int j = tiles - 2; j >= 0; j--) tile.template operator()<false>(j);
      fence(1);
      products_start(1, 1);
      drain(1);
      release(v_free + 8 * v_ring.stage), v_ring.next();
      add_weights();
      promote(acc, o, reference, __ldg(v_scale), tiles <= kBlock, true);
      walk.item = __shfl_sync(~0u, __float_as_int(o.held().z), 0); /* the same, not a register through the loop */
      const FkShareItem mine = walk.part(share);
      float sum[2] = {o.weights().x, o.weights().y}, result[64];
      finish(result, sum, acc, args.v_mean + mine.head * 128);
      if constexpr (Leave)
        fk_attention_store_codes(args.codes, args.sq, result, sum, mine.row + group * 64, mine.head);
      else
        fk_attention_store(args.o, args.ld_o, args.sq, result, sum, mine.row + group * 64, mine.head);
    }
  }
  fk_cluster_arrive(), fk_cluster_wait();
#endif
}

} // namespace

#endif
