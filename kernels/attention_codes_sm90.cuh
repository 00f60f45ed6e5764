/* SPDX-License-Identifier: Apache-2.0 */
/* Attention forward for Hopper, head width 128, of bfloat16 numbers whose values are e4m3 codes, with float32 sums
 * promoted after every 128 keys. Tiles of 128 keys are part of the format (core/ops/backend.h), so a row's result
 * depends on its own operands alone.
 *
 * The scheme is that of attention_sm90.cu: two warpgroups of 64 query rows and one that only starts copies; the scores
 * of the next tile and the products of this one are in flight while the other warpgroup computes its softmax; tiles go
 * from the end of the keys to the front. What differs:
 * - Queries stay in shared memory, until the scores of their last keys are there: beside the second accumulator there
 *   are no registers for them.
 * - The reference of a row is its running maximum, not a lazy bound: e4m3 holds 256 p up to 448 only.
 * - P leaves the softmax as e4m3 in the order of its registers; the keys of V stand in that order (Share::row).
 */
#ifndef FK_ATTENTION_CODES_SM90_CUH
#define FK_ATTENTION_CODES_SM90_CUH

#include "attention_codes.cuh"

namespace {

constexpr int kKeys = 128, kGroups = 2, kCluster = 2;
constexpr int kThreads = (kGroups + 1) * 128, kRows = kGroups * 64;
constexpr int kVBytes = 128 * 128;    /* one tile of V^T */
constexpr int kQBytes = 64 * 128 * 2; /* one warpgroup's queries */
constexpr int kKBytes = 128 * 128 * 2, kKStages = 3, kVStages = 4;
constexpr int kK = kGroups * kQBytes, kV = kK + kKStages * kKBytes, kBars = kV + kVStages * kVBytes;
/* Barriers, 8 bytes each: Q full, Q free [kGroups each], K full, K free, V full, V free [stages each]. 1024: room to
 * align the base. */
constexpr int kShared = kBars + 8 * (2 * kGroups + 2 * kKStages + 2 * kVStages) + 1024;
static_assert(kShared <= 232448, "shared memory");
constexpr float kPShift = 8.f; /* codes are of 2^8 p */

/* m64n128k32: A from registers, B K-major in shared memory. */
#define FK_R8(i)                                                                                                       \
  "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3]), "+r"(d[i + 4]), "+r"(d[i + 5]), "+r"(d[i + 6]),          \
      "+r"(d[i + 7])
FK_DEVICE void wgmma_e4m3(float (&d)[64], const uint32_t *a, uint64_t b, int keep) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {" FK_LIST_128
               "}, {%64, %65, %66, %67}, %68, p, 1, 1;\n}"
               : FK_REGS_128
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));
}
/* m64n128k16, float32 bits in d: A and B K-major in shared memory. */
FK_DEVICE void wgmma_bf16(int (&d)[64], uint64_t a, uint64_t b, int keep) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" FK_LIST_128 "}, %64, %65, p, 1, 1, 0, 0;\n}"
               : FK_R8(0), FK_R8(8), FK_R8(16), FK_R8(24), FK_R8(32), FK_R8(40), FK_R8(48), FK_R8(56)
               : "l"(a), "l"(b), "r"(keep));
}
FK_DEVICE void hold(int (&d)[64]) {
#pragma unroll
  for (int i = 0; i < 64; i++) asm volatile("" : "+r"(d[i])::"memory");
}

/* Which query tile a block works on: (head, query tile) pairs, queries fastest, so that the blocks that run together
 * share the keys of one or two heads in L2. A cluster takes two neighbouring query tiles. */
struct Walk {
  int tiles, total, step, tile, rank;
  __device__ __forceinline__ Walk(const FkAttnCodes &a, int cluster_rank) {
    tiles = (a.sq + kRows * kCluster - 1) / (kRows * kCluster);
    total = tiles * a.heads;
    step = gridDim.x / kCluster;
    tile = blockIdx.x / kCluster;
    rank = cluster_rank;
  }
  __device__ __forceinline__ bool valid() const { return tile < total; }
  __device__ __forceinline__ void next() { tile += step; }
  __device__ __forceinline__ int head() const { return tile / tiles; }
  __device__ __forceinline__ int row() const { return (tile % tiles * kCluster + rank) * kRows; }
};

/* Copies of every K tile (rows are keys); each block of the pair brings half of the columns to both. One thread. */
FK_DEVICE void load_keys(const CUtensorMap *map, uint32_t to, uint32_t full, uint32_t empty, Walk walk, int tiles) {
  FkRing<kKStages> ring;
  for (; walk.valid(); walk.next()) {
    const int head = walk.head();
    for (int j = tiles - 1; j >= 0; j--, ring.next()) {
      const uint32_t at = to + ring.stage * kKBytes + walk.rank * (kKBytes / 2), bar = full + 8 * ring.stage;
      fk_mbar_wait(empty + 8 * ring.stage, ring.parity ^ 1);
      fk_mbar_expect(bar, kKBytes);
      fk_tma_multicast_3d(at, map, bar, 3, 0, j * kKeys, 2 * head + walk.rank, FK_L2_EVICT_LAST);
    }
  }
}

/* The same of V^T tiles (rows are columns of V). */
FK_DEVICE void load_values(const CUtensorMap *map, uint32_t to, uint32_t full, uint32_t empty, Walk walk, int tiles) {
  FkRing<kVStages> ring;
  for (; walk.valid(); walk.next()) {
    const int head = walk.head();
    for (int j = tiles - 1; j >= 0; j--, ring.next()) {
      const uint32_t at = to + ring.stage * kVBytes + walk.rank * (kVBytes / 2), bar = full + 8 * ring.stage;
      fk_mbar_wait(empty + 8 * ring.stage, ring.parity ^ 1);
      fk_mbar_expect(bar, kVBytes);
      fk_tma_multicast_3d(at, map, bar, 3, j * kKeys, walk.rank * 64, head, FK_L2_EVICT_LAST);
    }
  }
}

/* Copies of the queries, one warpgroup's rows at a time, as soon as it has done with the last ones. */
FK_DEVICE void load_queries(const CUtensorMap *map, uint32_t to, uint32_t full, uint32_t empty, Walk walk) {
  for (int parity = 0; walk.valid(); walk.next(), parity ^= 1) {
    for (int w = 0; w < kGroups; w++) {
      fk_mbar_wait(empty + 8 * w, parity ^ 1);
      fk_mbar_expect(full + 8 * w, kQBytes);
      fk_tma_load_3d(to + w * kQBytes, map, full + 8 * w, 0, walk.row() + w * 64, 2 * walk.head(), FK_L2_EVICT_FIRST);
    }
  }
}

/* What a thread keeps of its two rows (g and g + 8): running maximum in units of log2 and its part of the sum of
 * 2^8 p. */
struct Rows {
  float top[2], sum[2];
};

/* The new reference of row r, whose scores in this tile reach `top`, in units of log2. alpha: what earlier sums and
 * products are to be multiplied with; returns whether it is another than 1. */
template <bool Fresh> FK_DEVICE bool raise(Rows &rows, float (&alpha)[2], int r, float top) {
  if (Fresh) {
    rows.top[r] = top, rows.sum[r] = 0.f, alpha[r] = 1.f;
    return false;
  }
  const float higher = fmaxf(rows.top[r], top);
  const bool moved = higher > rows.top[r];
  alpha[r] = fk_exp2(rows.top[r] - higher);
  rows.top[r] = higher;
  return moved;
}

/* The greatest of row r's words as integers: of floats that of the greatest, where any is positive. */
FK_DEVICE int top_word(const int (&s)[64], int r) {
  int a = s[2 * r], b = s[2 * r + 1];
#pragma unroll
  for (int i = 4; i < 64; i += 8) {
    a = __vimax3_s32(a, s[i + 2 * r], s[i + 2 * r + 1]);
    if (i + 4 < 64) b = __vimax3_s32(b, s[i + 4 + 2 * r], s[i + 5 + 2 * r]);
  }
  return max(a, b);
}

FK_DEVICE float top_float(const int (&s)[64], int r) {
  float a = __int_as_float(s[2 * r]), b = __int_as_float(s[2 * r + 1]);
#pragma unroll
  for (int i = 4; i < 64; i += 4) {
    a = fmaxf(a, __int_as_float(s[i + 2 * r]));
    b = fmaxf(b, __int_as_float(s[i + 2 * r + 1]));
  }
  return fmaxf(a, b);
}

/* s: scores, the bits of float32, become 2^8 p. Returns whether any of a warp's rows has another alpha than 1. valid:
 * keys of this tile that exist. */
template <bool Fresh> FK_DEVICE bool softmax(int (&s)[64], Rows &rows, float (&alpha)[2], float scale, int valid) {
  if (Fresh && valid < kKeys) {
    const int column = 2 * (threadIdx.x % 4);
#pragma unroll
    for (int i = 0; i < 64; i++)
      if (column + 8 * (i / 4) + (i & 1) >= valid) s[i] = __float_as_int(-INFINITY);
  }
  bool moved = false;
  float bias[2];
  int word[2] = {top_word(s, 0), top_word(s, 1)};
  if (__any_sync(~0u, word[0] <= 0 || word[1] <= 0)) /* negative floats have the order of integers reversed */
    word[0] = __float_as_int(top_float(s, 0)), word[1] = __float_as_int(top_float(s, 1));
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float a = __int_as_float(word[r]);
    a = fmaxf(a, __shfl_xor_sync(~0u, a, 1));
    a = fmaxf(a, __shfl_xor_sync(~0u, a, 2));
    moved |= raise<Fresh>(rows, alpha, r, a * scale);
    bias[r] = kPShift - rows.top[r];
  }
  if (!Fresh) {
    moved = __any_sync(~0u, moved);
    if (moved) rows.sum[0] *= alpha[0], rows.sum[1] *= alpha[1];
  }
  float sum[2][2] = {{0.f, 0.f}, {0.f, 0.f}};
#pragma unroll
  for (int i = 0; i < 64; i++) {
    const int r = (i >> 1) & 1;
    const float x = fk_exp2(fmaf(__int_as_float(s[i]), scale, bias[r]));
    sum[r][i & 1] += x;
    s[i] = __float_as_int(x);
  }
#pragma unroll
  for (int r = 0; r < 2; r++) rows.sum[r] += sum[r][0] + sum[r][1];
  return moved;
}

/* P as the first operand of its products: word 4i + r + 2h holds row r's keys of column groups 4i + 2h, 4i + 2h + 1. */
FK_DEVICE void pack(uint32_t (&p)[16], const int (&s)[64]) {
#pragma unroll
  for (int i = 0; i < 16; i++)
    p[i] = pack_e4m3(__int_as_float(s[score_of(i, 0)]), __int_as_float(s[score_of(i, 1)]),
                     __int_as_float(s[score_of(i, 2)]), __int_as_float(s[score_of(i, 3)]));
}

/* Tile 128 queries x 128 keys in clusters of 2; 384 threads; registers 168 at entry, then 240 in the two warpgroups
 * that compute and 24 in the one that copies. Exponentials take 1024 clocks a tile, products 1536, everything
 * else of the softmax about 800 issue slots: bound by how well the two warpgroups cover each other. */
template <bool Leave>
__global__ void __launch_bounds__(kThreads, 1)
    attention_codes_sm90_kernel(const __grid_constant__ CUtensorMap map_q, const __grid_constant__ CUtensorMap map_k,
                                const __grid_constant__ CUtensorMap map_v, const FkAttnCodes args) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char shared[];
  const uint32_t base = (fk_smem(shared) + 1023) & ~1023u, bars = base + kBars;
  const uint32_t q_full = bars, q_free = q_full + 8 * kGroups, k_full = q_free + 8 * kGroups,
                 k_free = k_full + 8 * kKStages, v_full = k_free + 8 * kKStages, v_free = v_full + 8 * kVStages;
  const int group = __shfl_sync(~0u, threadIdx.x / 128, 0), warp = __shfl_sync(~0u, threadIdx.x / 32 % 4, 0);
  const int lane = threadIdx.x % 32, tiles = (args.sk + kKeys - 1) / kKeys;
  Walk walk(args, fk_cluster_rank());

  if (threadIdx.x == 0) {
    for (int w = 0; w < kGroups; w++) fk_mbar_init(q_full + 8 * w, 1), fk_mbar_init(q_free + 8 * w, 4);
    for (int i = 0; i < kKStages; i++)
      fk_mbar_init(k_full + 8 * i, 1), fk_mbar_init(k_free + 8 * i, 4 * kGroups * kCluster);
    for (int i = 0; i < kVStages; i++)
      fk_mbar_init(v_full + 8 * i, 1), fk_mbar_init(v_free + 8 * i, 4 * kGroups * kCluster);
    fk_fence_mbar_init();
  }
  __syncthreads();
  fk_cluster_arrive(), fk_cluster_wait();

  if (group == kGroups) {
    fk_regs_dec<24>();
    if (warp == 0 && lane == 0) load_keys(&map_k, base + kK, k_full, k_free, walk, tiles);
    if (warp == 1 && lane == 0) load_values(&map_v, base + kV, v_full, v_free, walk, tiles);
    if (warp == 2 && lane == 0) load_queries(&map_q, base, q_full, q_free, walk);
    __syncwarp();
  } else {
    fk_regs_inc<240>();
    const uint64_t q_desc = fk_desc(base + group * kQBytes), k_desc = fk_desc(base + kK), v_desc = fk_desc(base + kV);
    const int last = args.sk - (tiles - 1) * kKeys, turn = 1 + group, other = 1 + (group + 1) % kGroups;
    float o[64], acc[64], alpha[2];
    int s[64];
    uint32_t p[16];
    Rows rows;
    FkRing<kKStages> k_ring;
    FkRing<kVStages> v_ring;
    int q_parity = 0;

    auto release = [&](uint32_t bar) {
      if (lane < kCluster) fk_mbar_arrive_cluster(bar, lane);
    };
    auto queries_free = [&]() {
      if (lane == 0) fk_mbar_arrive(q_free + 8 * group);
    };
    auto queries_take = [&]() { fk_mbar_wait(q_full + 8 * group, q_parity), q_parity ^= 1; };
    auto scores_start = [&]() {
      hold(s);
      const uint64_t k = k_desc + k_ring.stage * (kKBytes >> 4);
      fk_wgmma_fence();
#pragma unroll
      for (int i = 0; i < 8; i++)
        wgmma_bf16(s, q_desc + (i / 4) * (64 * 128 >> 4) + (i % 4) * FK_DESC_K_STEP,
                   k + (i / 4) * (kKeys * 128 >> 4) + (i % 4) * FK_DESC_K_STEP, i > 0);
      fk_wgmma_commit();
    };
    auto scores_done = [&]() {
      hold(s);
      release(k_free + 8 * k_ring.stage);
      k_ring.next();
    };
    auto products_start = [&]() {
      fk_mbar_wait(v_full + 8 * v_ring.stage, v_ring.parity);
      fk_wgmma_hold(acc), fk_wgmma_hold(p);
      fk_wgmma_fence();
#pragma unroll
      for (int i = 0; i < 4; i++)
        wgmma_e4m3(acc, p + 4 * i, v_desc + v_ring.stage * (kVBytes >> 4) + i * FK_DESC_K_STEP, i > 0);
      fk_wgmma_commit();
    };
    auto products_done = [&]() {
      hold(s); /* the softmax runs under the products, not after them */
      fk_wgmma_wait<0>();
      fk_wgmma_hold(acc), fk_wgmma_hold(p);
      release(v_free + 8 * v_ring.stage);
      v_ring.next();
    };
    /* Sums so far in units of the new maximum, before the products that are still in flight join them. A branch of its
     * own: it also keeps the wait for those products behind the softmax, which runs under them. */
    auto rescale = [&](bool moved) {
      if (moved) {
#pragma unroll
        for (int i = 0; i < 64; i++) o[i] *= alpha[(i >> 1) & 1];
      }
    };
    auto promote = [&](float scale0, float scale1) {
#pragma unroll
      for (int i = 0; i < 64; i++) o[i] = fmaf(acc[i], (i >> 1) & 1 ? scale1 : scale0, o[i]);
    };
    /* Scores of the next key tile beside the products of the present one. */
    auto step = [&]() {
      fk_mbar_wait(k_full + 8 * k_ring.stage, k_ring.parity);
      fk_bar_sync(turn, 256);
      scores_start();
      products_start();
      fk_bar_arrive(other, 256);
      fk_wgmma_wait<1>();
      scores_done();
    };
    auto clear = [&]() {
#pragma unroll
      for (int i = 0; i < 64; i++) o[i] = 0.f;
    };

    if (group == kGroups - 1) fk_bar_arrive(other, 256);
    if (walk.valid()) {
      queries_take();
      fk_mbar_wait(k_full, 0);
      scores_start();
      fk_wgmma_wait<0>();
      scores_done();
      if (tiles == 1) queries_free();
      softmax<true>(s, rows, alpha, args.scale, last);
      pack(p, s);
      clear();
    }
    while (walk.valid()) {
      int head = walk.head();
      const float *v_scale = args.v_scale + head * tiles;
      for (int left = tiles - 1; left > 0; left--) {
        const float vs = __ldg(v_scale + left);
        step();
        if (left == 1) queries_free(); /* these were the scores of their last keys */
        const bool moved = softmax<false>(s, rows, alpha, args.scale, kKeys);
        rescale(moved);
        products_done();
        pack(p, s);
        promote(vs * alpha[0], vs * alpha[1]);
      }
      const int row = walk.row() + group * 64;
      const float sum[2] = {rows.sum[0], rows.sum[1]}, vs = __ldg(v_scale);
      walk.next();
      if (walk.valid()) {
        queries_take();
        step();
        if (tiles == 1) queries_free();
        softmax<true>(s, rows, alpha, args.scale, last);
        products_done();
        pack(p, s);
      } else {
        products_start();
        products_done();
      }
      promote(vs, vs);
      if constexpr (Leave)
        fk_attention_store_codes(args.codes, args.sq, o, sum, row, head);
      else
        fk_attention_store(args.o, args.ld_o, args.sq, o, sum, row, head);
      clear();
    }
  }
  fk_cluster_arrive(), fk_cluster_wait();
#endif
}

/* Asynchronous; the kernel has been made ready for kShared bytes, its codes have been made. */
template <bool Leave> cudaError_t attention_codes_start(const FkCuda *cu, const FkAttnCodes *x) {
  CUtensorMap map_q, map_k, map_v;
  FK_CUDA_TRY(fk_tensor_map_heads(cu, &map_q, x->q, x->ld_q, x->sq, 2 * x->heads, 64, 2));
  FK_CUDA_TRY(fk_tensor_map_heads(cu, &map_k, x->k, x->ld_k, x->sk, 2 * x->heads, kKeys, 2 / kCluster));
  if (!fk_attn_values_map(cu, &map_v, x)) return cudaErrorInvalidValue;
  FkAttnCodes args = *x;
  args.scale *= 1.4426950408889634f; /* log2(e) */
  const int work = (x->sq + kRows * kCluster - 1) / (kRows * kCluster) * x->heads * kCluster;
  cudaLaunchAttribute attribute;
  const cudaLaunchConfig_t config = fk_cuda_in_clusters(
      &attribute, kCluster, dim3(min(work, cu->sms / kCluster * kCluster)), kThreads, kShared, cu->stream);
  return cudaLaunchKernelEx(&config, attention_codes_sm90_kernel<Leave>, map_q, map_k, map_v, args);
}

} // namespace

#endif
