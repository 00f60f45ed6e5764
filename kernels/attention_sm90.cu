/* SPDX-License-Identifier: Apache-2.0 */
/* Attention forward for Hopper, head width 128, no mask but the end of the keys: the joint text and image attention.
 * Everything else (other widths, causal, bias) is attention.cu.
 *
 * One block holds W warpgroups of 64 query rows each and one warpgroup that only starts copies. Queries stay in
 * registers, keys and values pass through shared memory in tiles of N tokens. The scores of tile i+1 are started before
 * tile i is multiplied with V, so the softmax of one tile runs under the products of another. Blocks stay resident and
 * walk over (head, query tile); the first scores of the next query tile are started with the last products of this one.
 * Tiles are taken from the end of the keys to the front: only the first one taken is ragged and needs a mask.
 * A row's result depends on its q, k and v alone, never on the tile, block or machine that computed it. */
#include "attention_store.cuh"
#include "ptx.cuh"
#include "tensormap.cuh"

namespace {

/* W_ warpgroups of 64 queries, N_ keys a tile, Stages_ tiles of K and of V in shared memory, Cluster_ neighbouring
 * blocks (1 or 2) that bring each tile once for both. */
template <int W_, int N_, int Stages_, int Cluster_> struct Plan {
  static constexpr int W = W_, N = N_, Stages = Stages_, Cluster = Cluster_;
  static constexpr int kThreads = (W + 1) * 128, kRows = W * 64;
  static constexpr int kQBytes = 64 * 256;   /* one warpgroup's queries: two halves [64 rows][64 columns] */
  static constexpr int kTileBytes = N * 256; /* one tile of K or V: two halves [N][64] */
  static constexpr int kK = W * kQBytes, kV = kK + Stages * kTileBytes, kBars = kV + Stages * kTileBytes;
  /* Barriers, 8 bytes each: Q full [W], Q free [W], K full, K free, V full, V free [Stages each]. */
  static constexpr int kShared = kBars + 8 * (2 * W + 4 * Stages) + 1024; /* 1024: room to align the base */
  static_assert(kShared <= 232448 && kTileBytes % 2048 == 0 && (Cluster == 1 || Cluster == 2), "tile");
};

struct Args {
  __nv_bfloat16 *o;
  int64_t ld_o;
  int sq, sk, heads;
  float scale; /* softmax scale times log2(e) */
  FkAttentionCodes codes;
};

/* Which query tile a block works on: `tile` counts (head, query tile) pairs, queries fastest, so that the blocks that
 * run together share the keys of one or two heads in L2. A cluster takes `Cluster` neighbouring query tiles. */
template <class P> struct Walk {
  int tiles, total, step, tile, rank; /* tiles: of one head */
  __device__ __forceinline__ Walk(const Args &a, int cluster_rank) {
    tiles = (a.sq + P::kRows * P::Cluster - 1) / (P::kRows * P::Cluster);
    total = tiles * a.heads;
    step = gridDim.x / P::Cluster;
    tile = blockIdx.x / P::Cluster;
    rank = cluster_rank;
  }
  __device__ __forceinline__ bool valid() const { return tile < total; }
  __device__ __forceinline__ void next() { tile += step; }
  __device__ __forceinline__ int head() const { return tile / tiles; }
  __device__ __forceinline__ int row() const { return (tile % tiles * P::Cluster + rank) * P::kRows; }
};

/* Starts the copies of every K (or V) tile this block uses. One thread. */
template <class P>
FK_DEVICE void load_tiles(const CUtensorMap *map, uint32_t to, uint32_t full, uint32_t empty, Walk<P> walk, int sk) {
  FkRing<P::Stages> ring;
  int tiles = (sk + P::N - 1) / P::N;
  for (; walk.valid(); walk.next()) {
    int head = walk.head();
    for (int j = tiles - 1; j >= 0; j--, ring.next()) {
      uint32_t at = to + ring.stage * P::kTileBytes, bar = full + 8 * ring.stage;
      fk_mbar_wait(empty + 8 * ring.stage, ring.parity ^ 1);
      fk_mbar_expect(bar, P::kTileBytes);
      if (P::Cluster == 1)
        fk_tma_load_3d(at, map, bar, 0, j * P::N, 2 * head, FK_L2_EVICT_LAST);
      else /* each block of the pair brings one half of the columns to both */
        fk_tma_multicast_3d(at + walk.rank * (P::kTileBytes / 2), map, bar, 3, 0, j * P::N, 2 * head + walk.rank,
                            FK_L2_EVICT_LAST);
    }
  }
}

/* Starts the copies of the queries, one warpgroup's 64 rows at a time, as soon as it has taken the last ones into
 * registers. */
template <class P>
FK_DEVICE void load_queries(const CUtensorMap *map, uint32_t to, uint32_t full, uint32_t empty, Walk<P> walk) {
  for (int parity = 0; walk.valid(); walk.next(), parity ^= 1) {
    for (int w = 0; w < P::W; w++) {
      fk_mbar_wait(empty + 8 * w, parity ^ 1);
      fk_mbar_expect(full + 8 * w, P::kQBytes);
      fk_tma_load_3d(to + w * P::kQBytes, map, full + 8 * w, 0, walk.row() + w * 64, 2 * walk.head(),
                     FK_L2_EVICT_FIRST);
    }
  }
}

/* The A operands of a warpgroup's queries, from its swizzled tile: piece c (16 bytes) of row r stands at c ^ r % 8. */
FK_DEVICE void read_queries(uint32_t (&q)[8][4], uint32_t at) {
  int row = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 16, piece = threadIdx.x % 32 / 16;
#pragma unroll
  for (int i = 0; i < 8; i++)
    fk_ldmatrix_x4(q[i], at + i / 4 * (64 * 128) + row * 128 + ((i % 4 * 2 + piece) ^ row % 8) * 16);
}

/* s = Q K^T of one tile, started. Q in registers: read from shared memory at every tile it costs energy, and energy
 * is what bounds this kernel. */
template <int N> FK_DEVICE void start_scores(float (&s)[N / 2], const uint32_t (&q)[8][4], uint64_t k) {
#pragma unroll
  for (int i = 0; i < 8; i++)
    FkWgmma<N>::template rs<0>(s, q[i], k + (i / 4) * (N * 128 >> 4) + (i % 4) * FK_DESC_K_STEP, i > 0);
}

/* o += P V of one tile, started. */
template <int N> FK_DEVICE void start_values(float (&o)[64], const uint32_t (&p)[N / 4], uint64_t v) {
#pragma unroll
  for (int i = 0; i < N / 16; i++) FkWgmma<128>::rs<1>(o, p + 4 * i, v + i * FK_DESC_MN_STEP, 1);
}

/* Keys at or past `valid` of this tile get weight 0. */
template <int N> FK_DEVICE void mask_keys(float (&s)[N / 2], int valid) {
  int column = 2 * (threadIdx.x % 4);
#pragma unroll
  for (int i = 0; i < N / 2; i++)
    if (column + 8 * (i / 4) + (i & 1) >= valid) s[i] = -INFINITY;
}

/* What a thread keeps of its two rows (g and g + 8): the reference the exponents are taken against, in units of log2,
 * and its part of the row's sum. */
struct Rows {
  float ref[2], sum[2];
};

/* Whether a score of row r (0 or 1) may exceed its reference by more than 2^8. Compares three words at a time as
 * integers: their order is that of floats where one is positive, and where none is, 0 is taken as the bound. */
template <int N> FK_DEVICE bool any_above(const float (&s)[N / 2], const Rows &rows, float scale) {
  bool above = false;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    int a = 0, b = 0;
#pragma unroll
    for (int i = 0; i < N / 2; i += 8) {
      a = __vimax3_s32(a, __float_as_int(s[i + 2 * r]), __float_as_int(s[i + 2 * r + 1]));
      b = __vimax3_s32(b, __float_as_int(s[i + 2 * r + 4]), __float_as_int(s[i + 2 * r + 5]));
    }
    above |= fmaf(__int_as_float(max(a, b)), scale, -rows.ref[r]) > 8.f;
  }
  return above;
}

/* The reference for a row whose maximum so far is `top`. A maximum a little below 0 takes 0 instead, so that the
 * integer comparison has a true bound; weights down to 2^-64 lose nothing in float32 and bf16. */
FK_DEVICE float reference_of(float top) {
  return top < 0.f && top > -64.f ? 0.f : top;
}

/* Takes a row's true maximum for its reference where it lies more than 2^8 above (fresh: in any case, there is no
 * earlier tile). alpha: what earlier sums and products are to be multiplied with. */
template <int N>
FK_DEVICE void raise_reference(const float (&s)[N / 2], Rows &rows, float (&alpha)[2], float scale, bool fresh) {
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float a = fmaxf(s[2 * r], s[2 * r + 1]), b = fmaxf(s[2 * r + 4], s[2 * r + 5]);
#pragma unroll
    for (int i = 8; i < N / 2; i += 8) {
      a = fmaxf(a, fmaxf(s[i + 2 * r], s[i + 2 * r + 1]));
      b = fmaxf(b, fmaxf(s[i + 2 * r + 4], s[i + 2 * r + 5]));
    }
    a = fmaxf(a, b);
    a = fmaxf(a, __shfl_xor_sync(~0u, a, 1));
    a = fmaxf(a, __shfl_xor_sync(~0u, a, 2));
    if (fresh) {
      rows.ref[r] = reference_of(a * scale), rows.sum[r] = 0.f, alpha[r] = 1.f;
    } else {
      float top = fmaf(a, scale, -rows.ref[r]) > 8.f ? reference_of(a * scale) : rows.ref[r];
      alpha[r] = fk_exp2(rows.ref[r] - top);
      rows.ref[r] = top, rows.sum[r] *= alpha[r];
    }
  }
}

/* s becomes exp2(scale * s - reference). Returns whether earlier products must be multiplied with alpha; the same for
 * all lanes of a warp. The reference of a row follows from that row's scores alone. */
template <int N> FK_DEVICE bool softmax(float (&s)[N / 2], Rows &rows, float (&alpha)[2], float scale, bool fresh) {
  bool moved = fresh || __any_sync(~0u, any_above<N>(s, rows, scale));
  if (moved) {
    raise_reference<N>(s, rows, alpha, scale, fresh);
    if (!fresh) moved = __any_sync(~0u, alpha[0] != 1.f || alpha[1] != 1.f); /* not if only the bound was weak */
  }
  float sum[2][2] = {{0.f, 0.f}, {0.f, 0.f}};
#pragma unroll
  for (int i = 0; i < N / 2; i++) {
    int r = (i >> 1) & 1;
    s[i] = fk_exp2(fmaf(s[i], scale, -rows.ref[r]));
    sum[r][i & 1] += s[i];
  }
#pragma unroll
  for (int r = 0; r < 2; r++) rows.sum[r] += sum[r][0] + sum[r][1];
  return moved && !fresh;
}

template <int N> FK_DEVICE void pack_weights(uint32_t (&p)[N / 4], const float (&s)[N / 2]) {
#pragma unroll
  for (int i = 0; i < N / 4; i++) p[i] = fk_pack_bf16(s[2 * i], s[2 * i + 1]);
}

FK_DEVICE void rescale(float (&o)[64], const float (&alpha)[2]) {
#pragma unroll
  for (int i = 0; i < 64; i++) o[i] *= alpha[(i >> 1) & 1];
}

/* Tile 128 queries x 128 keys in clusters of 2; 384 threads; 230,528 bytes shared; registers 168 at entry, then 240 in
 * the two warpgroups that compute and 24 in the one that copies. Bound by power: at 8704 x 8704 x 24 heads the H200
 * runs at 1659 MHz in a short burst and 1488 MHz for long, with the tensor cores busy in 89 % of the clocks. Measured,
 * TFLOP/s short / long (989 on the datasheet): 8704 x 8704 792 / 724 (80 % / 73 %), 4608 x 8704 773 / 714,
 * 4608 x 4608 762 / 705, 2560 x 2560 674 / 662; cuDNN 9 at 8704 x 8704 in the same run 649 / 623. */
template <class P, bool Codes>
__global__ void __launch_bounds__(P::kThreads, 1)
    attention_sm90_kernel(const __grid_constant__ CUtensorMap map_q, const __grid_constant__ CUtensorMap map_k,
                          const __grid_constant__ CUtensorMap map_v, const Args args) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  constexpr int W = P::W, N = P::N, Stages = P::Stages, Cluster = P::Cluster;
  constexpr int kRegsMath = W == 2 ? 240 : 160, kRegsCopy = W == 2 ? 24 : 32;
  extern __shared__ char shared[];
  const uint32_t base = (fk_smem(shared) + 1023) & ~1023u, bars = base + P::kBars;
  const uint32_t q_full = bars, q_free = q_full + 8 * W, k_full = q_free + 8 * W, k_free = k_full + 8 * Stages,
                 v_full = k_free + 8 * Stages, v_free = v_full + 8 * Stages;
  const int group = __shfl_sync(~0u, threadIdx.x / 128, 0), warp = __shfl_sync(~0u, threadIdx.x / 32 % 4, 0);
  const int lane = threadIdx.x % 32;
  Walk<P> walk(args, Cluster > 1 ? fk_cluster_rank() : 0);

  if (threadIdx.x == 0) {
    for (int w = 0; w < W; w++) fk_mbar_init(q_full + 8 * w, 1), fk_mbar_init(q_free + 8 * w, 4);
    for (int i = 0; i < Stages; i++) {
      fk_mbar_init(k_full + 8 * i, 1), fk_mbar_init(k_free + 8 * i, 4 * W * Cluster);
      fk_mbar_init(v_full + 8 * i, 1), fk_mbar_init(v_free + 8 * i, 4 * W * Cluster);
    }
    fk_fence_mbar_init();
  }
  __syncthreads();
  if (Cluster > 1) fk_cluster_arrive(), fk_cluster_wait();

  if (group == W) {
    fk_regs_dec<kRegsCopy>();
    if (warp == 0 && lane == 0) load_tiles<P>(&map_k, base + P::kK, k_full, k_free, walk, args.sk);
    if (warp == 1 && lane == 0) load_tiles<P>(&map_v, base + P::kV, v_full, v_free, walk, args.sk);
    if (warp == 2 && lane == 0) load_queries<P>(&map_q, base, q_full, q_free, walk);
    __syncwarp();
  } else {
    fk_regs_inc<kRegsMath>();
    const uint64_t k_desc = fk_desc(base + P::kK), v_desc = fk_desc(base + P::kV, N * 128);
    const int tiles = (args.sk + N - 1) / N, ragged = args.sk % N, turn = 1 + group, other = 1 + (group + 1) % W;
    float o[64], s[N / 2], alpha[2];
    uint32_t p[N / 4], q[8][4];
    Rows rows;
    FkRing<Stages> k_ring, v_ring;
    int q_parity = 0;

    /* One arrival a warp on each block of the cluster. */
    auto release = [&](uint32_t bar) {
      if (Cluster > 1) {
        if (lane < Cluster) fk_mbar_arrive_cluster(bar, lane);
      } else {
        if (lane == 0) fk_mbar_arrive(bar);
      }
    };
    auto queries_take = [&]() {
      fk_mbar_wait(q_full + 8 * group, q_parity), q_parity ^= 1;
      read_queries(q, base + group * P::kQBytes);
      /* Every lane's reads must end before the arrival lets the next copy write here: nothing else waits for them, and
       * the copy engine is another proxy. Without this, rows of a block's first query tile were at times wrong. */
      fk_fence_async(), __syncwarp();
      if (lane == 0) fk_mbar_arrive(q_free + 8 * group);
    };
    auto scores_start = [&]() {
      fk_wgmma_hold(s);
      for (int i = 0; i < 8; i++) fk_wgmma_hold(q[i]);
      fk_wgmma_fence();
      start_scores<N>(s, q, k_desc + k_ring.stage * (P::kTileBytes >> 4));
      fk_wgmma_commit();
    };
    auto scores_done = [&]() {
      fk_wgmma_hold(s);
      release(k_free + 8 * k_ring.stage);
      k_ring.next();
    };
    auto products_start = [&]() {
      fk_mbar_wait(v_full + 8 * v_ring.stage, v_ring.parity);
      fk_wgmma_fence();
      start_values<N>(o, p, v_desc + v_ring.stage * (P::kTileBytes >> 4));
      fk_wgmma_commit();
    };
    auto products_done = [&]() {
      fk_wgmma_wait<0>();
      fk_wgmma_hold(o), fk_wgmma_hold(p);
      release(v_free + 8 * v_ring.stage);
      v_ring.next();
    };
    /* Scores of the next key tile beside the products of the present one. */
    auto step = [&]() {
      fk_mbar_wait(k_full + 8 * k_ring.stage, k_ring.parity);
      fk_bar_sync(turn, 256);
      fk_wgmma_hold(o), fk_wgmma_hold(p);
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

    if (group == W - 1) fk_bar_arrive(other, 256);
    if (walk.valid()) {
      queries_take();
      fk_mbar_wait(k_full, 0);
      scores_start();
      fk_wgmma_wait<0>();
      scores_done();
      if (ragged) mask_keys<N>(s, ragged);
      softmax<N>(s, rows, alpha, args.scale, true);
      pack_weights<N>(p, s);
      clear();
    }
    while (walk.valid()) {
      for (int left = tiles - 1; left > 0; left--) {
        step();
        bool moved = softmax<N>(s, rows, alpha, args.scale, false);
        products_done();
        pack_weights<N>(p, s);
        if (moved) rescale(o, alpha);
      }
      int row = walk.row() + group * 64, head = walk.head();
      const float sum[2] = {rows.sum[0], rows.sum[1]};
      walk.next();
      if (walk.valid()) {
        queries_take();
        step();
        if (ragged) mask_keys<N>(s, ragged);
        softmax<N>(s, rows, alpha, args.scale, true);
      } else {
        fk_wgmma_hold(o), fk_wgmma_hold(p);
        products_start();
      }
      products_done();
      pack_weights<N>(p, s);
      if constexpr (Codes)
        fk_attention_store_codes(args.codes, args.sq, o, sum, row, head);
      else
        fk_attention_store(args.o, args.ld_o, args.sq, o, sum, row, head);
      clear();
    }
  }
  if (Cluster > 1) fk_cluster_arrive(), fk_cluster_wait();
#endif
}

template <class P, bool Codes> cudaError_t launch(FkCuda *cu, const FkAttention *a) {
  auto kernel = attention_sm90_kernel<P, Codes>;
  CUtensorMap map_q, map_k, map_v;
  const int sq = (int)fk_tensor_rows(a->q), sk = (int)fk_tensor_rows(a->k), heads = (int)a->heads;
  FK_CUDA_TRY(fk_cuda_prepare(cu, (const void *)kernel, P::kShared));
  FK_CUDA_TRY(fk_tensor_map_heads(cu, &map_q, a->q.data, a->q.ld, sq, 2 * heads, 64, 2));
  FK_CUDA_TRY(fk_tensor_map_heads(cu, &map_k, a->k.data, a->k.ld, sk, 2 * heads, P::N, 2 / P::Cluster));
  FK_CUDA_TRY(fk_tensor_map_heads(cu, &map_v, a->v.data, a->v.ld, sk, 2 * heads, P::N, 2 / P::Cluster));
  const Args args = {(__nv_bfloat16 *)a->o.data,  a->o.ld, sq, sk, heads, a->scale * 1.4426950408889634f,
                     fk_attention_codes_of(cu, a)};
  const int tiles = (sq + P::kRows * P::Cluster - 1) / (P::kRows * P::Cluster) * heads * P::Cluster;
  cudaLaunchAttribute attribute;
  const dim3 grid(tiles < cu->sms ? tiles : cu->sms / P::Cluster * P::Cluster);
  const cudaLaunchConfig_t config =
      fk_cuda_in_clusters(&attribute, P::Cluster, grid, P::kThreads, P::kShared, cu->stream);
  return cudaLaunchKernelEx(&config, kernel, map_q, map_k, map_v, args);
}

} // namespace

cudaError_t fk_cuda_attention_sm90(FkCuda *cu, const FkAttention *a) {
  using P = Plan<2, 128, 3, 2>;
  return fk_tensor_given(a->o_codes) ? launch<P, true>(cu, a) : launch<P, false>(cu, a);
}
