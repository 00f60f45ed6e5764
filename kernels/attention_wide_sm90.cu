/* SPDX-License-Identifier: Apache-2.0 */
/* Attention forward for Hopper, head width 512, no mask but the end of the keys: the middle of the autoencoder.
 * Heads of 128 are attention_sm90.cu, everything else is attention.cu.
 *
 * A block has 64 queries of one head. Neither the scores' operands nor the output of such a head fit one warpgroup's
 * registers, so the work is divided by kind: one warpgroup holds the queries in registers, makes the scores of a tile
 * of 64 keys and their softmax and leaves the weights in shared memory as bf16; two warpgroups multiply them with one
 * half of the value columns each and hold that half of the output; one warpgroup only starts copies. Keys and values
 * pass through two rings of shared memory. Two blocks have the same queries and one half of the keys each, so that a
 * small image, too, fills the processors; at the end each hands the other one half of its output columns.
 * Tiles are taken from the end of the keys to the front: only the very last one is ragged and needs a mask.
 * A row's result depends on its q and on k and v alone, never on the tile, block or machine that computed it. */
#include "ptx.cuh"
#include "tensormap.cuh"

namespace {

/* Stages_ of K and of V in shared memory, each a tile's keys x one half of the columns. */
template <int Stages_> struct Plan {
  static constexpr int Stages = Stages_, kRows = 64, kKeys = 64, kThreads = 512;
  static constexpr int kQHeld = 24; /* of 32 sixteen-column parts of the queries, those in registers */
  static constexpr int kQBytes = (32 - kQHeld) * 16 * 2 * kRows, kPBytes = kRows * kKeys * 2;
  static constexpr int kPiece = kKeys * 128, kStage = 4 * kPiece; /* 64 columns, 256 columns; bytes */
  static constexpr int kV = Stages * kStage, kP = kV + Stages * kStage, kQ = kP + 2 * kPBytes;
  static constexpr int kAlpha = kQ + kQBytes, kSums = kAlpha + 2 * kRows * 4, kBars = kSums + 2 * kRows * 8;
  /* Barriers, 8 bytes each: K full, K free, V full, V free [Stages each], P full, P free [2 each], Q full. */
  static constexpr int kShared = kBars + 8 * (4 * Stages + 5) + 1024; /* 1024: room to align the base */
  static_assert(kShared <= 232448 && kV >= kRows * 256 * 4, "tile");
};

struct Args {
  const __nv_bfloat16 *q;
  __nv_bfloat16 *o;
  int64_t ld_q, ld_o;
  int sq, sk;
  float scale; /* softmax scale times log2(e) */
};

/* What a block works on: its place in the pair, its first query, its tiles of keys [bottom, top). The lower half of
 * the keys is never empty, the upper one may be. */
template <class P> struct Part {
  int rank, row, bottom, top;
  __device__ __forceinline__ explicit Part(int sk) {
    const int tiles = (sk + P::kKeys - 1) / P::kKeys, half = (tiles + 1) / 2;
    rank = blockIdx.x % 2, row = blockIdx.x / 2 * P::kRows;
    bottom = rank ? half : 0, top = rank ? tiles : half;
  }
};

/* Starts the copies of every stage of K, or of V: of both, the two halves of the columns follow each other. One thread.
 */
template <class P> FK_DEVICE void load_halves(const CUtensorMap *map, uint32_t to, uint32_t full, const Part<P> &part) {
  FkRing<P::Stages> ring;
  for (int j = part.top - 1; j >= part.bottom; j--) {
    for (int half = 0; half < 2; half++, ring.next()) {
      const uint32_t at = to + ring.stage * P::kStage, bar = full + 8 * ring.stage;
      fk_mbar_wait(bar + 8 * P::Stages, ring.parity ^ 1);
      fk_mbar_expect(bar, P::kStage);
      fk_tma_load_3d(at, map, bar, 0, j * P::kKeys, 8 * blockIdx.y + 4 * half, FK_L2_EVICT_LAST);
    }
  }
}

/* The A operands of 64 rows and 16 Held columns of queries, rows past the end zero. */
template <int Held> FK_DEVICE void read_queries(uint32_t (&q)[Held][4], const Args &args, int row) {
  const __nv_bfloat16 *from = args.q + (int64_t)row * args.ld_q + blockIdx.y * 512 + threadIdx.x % 4 * 2;
  const bool in[2] = {row < args.sq, row + 8 < args.sq};
#pragma unroll
  for (int i = 0; i < Held; i++)
#pragma unroll
    for (int a = 0; a < 4; a++)
      q[i][a] = in[a % 2] ? *(const uint32_t *)(from + a % 2 * 8 * args.ld_q + 16 * i + a / 2 * 8) : 0u;
}

/* What a thread keeps of its two rows (g and g + 8): the reference the exponents are taken against, in units of log2,
 * and its part of the row's sum. */
struct Rows {
  float ref[2], sum[2];
};

/* s becomes exp2(scale * s - reference). The reference moves only where the tile's maximum lies more than 2^8 above
 * it; the first tile moves it from -inf. alpha: what earlier products are to be multiplied with. */
FK_DEVICE void softmax(float (&s)[32], Rows &rows, float (&alpha)[2], float scale) {
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float a = fmaxf(s[2 * r], s[2 * r + 1]), b = fmaxf(s[2 * r + 4], s[2 * r + 5]);
#pragma unroll
    for (int i = 8; i < 32; i += 8) {
      a = fmaxf(a, fmaxf(s[i + 2 * r], s[i + 2 * r + 1]));
      b = fmaxf(b, fmaxf(s[i + 2 * r + 4], s[i + 2 * r + 5]));
    }
    a = fmaxf(a, b);
    a = fmaxf(a, __shfl_xor_sync(~0u, a, 1));
    a = fmaxf(a, __shfl_xor_sync(~0u, a, 2)) * scale;
    alpha[r] = 1.f;
    if (a - rows.ref[r] > 8.f) {
      alpha[r] = fk_exp2(rows.ref[r] - a);
      rows.ref[r] = a, rows.sum[r] *= alpha[r];
    }
  }
  float sum[2][2] = {{0.f, 0.f}, {0.f, 0.f}};
#pragma unroll
  for (int i = 0; i < 32; i++) {
    int r = (i >> 1) & 1;
    s[i] = fk_exp2(fmaf(s[i], scale, -rows.ref[r]));
    sum[r][i & 1] += s[i];
  }
#pragma unroll
  for (int r = 0; r < 2; r++) rows.sum[r] += sum[r][0] + sum[r][1];
}

/* Writes the weights of a warp's 16 rows as the swizzled A operand [64 rows][64 keys]: piece c (16 bytes) of row r
 * stands at c ^ r % 8. */
FK_DEVICE void write_weights(uint32_t at, const float (&s)[32]) {
  const int lane = threadIdx.x % 32, row = threadIdx.x % 128 / 32 * 16 + lane % 16;
#pragma unroll
  for (int j = 0; j < 4; j++) /* 16 keys: rows 0-7 and 8-15 of 8 keys, then of the next 8 */
    fk_stmatrix_x4(at + row * 128 + ((2 * j + lane / 16) ^ row % 8) * 16, fk_pack_bf16(s[8 * j], s[8 * j + 1]),
                   fk_pack_bf16(s[8 * j + 2], s[8 * j + 3]), fk_pack_bf16(s[8 * j + 4], s[8 * j + 5]),
                   fk_pack_bf16(s[8 * j + 6], s[8 * j + 7]));
}

/* Shared addresses of one block. sums[half of the keys][row]: reference and sum. */
template <class P> struct Shared {
  uint32_t k, v, p, q, sums_at, k_full, k_free, v_full, v_free, p_full, p_free, q_full;
  float *alpha;
  const float2 *sums;
  const float4 *given; /* what the other block sent: 32 x 128 threads x 4 accumulators, over the stages of K */
  __device__ __forceinline__ explicit Shared(char *shared) {
    char *aligned = shared + (1024 - fk_smem(shared) % 1024) % 1024;
    k = fk_smem(aligned), v = k + P::kV, p = k + P::kP, q = k + P::kQ, sums_at = k + P::kSums;
    k_full = k + P::kBars, k_free = k_full + 8 * P::Stages, v_full = k_free + 8 * P::Stages;
    v_free = v_full + 8 * P::Stages, p_full = v_free + 8 * P::Stages, p_free = p_full + 16, q_full = p_free + 16;
    alpha = (float *)(aligned + P::kAlpha), sums = (const float2 *)(aligned + P::kSums);
    given = (const float4 *)aligned;
  }
};

/* The same shared address in block `rank` of the cluster, and stores there. */
FK_DEVICE uint32_t remote_of(uint32_t at, uint32_t rank) {
  uint32_t remote;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(at), "r"(rank));
  return remote;
}
FK_DEVICE void send(uint32_t remote, float a, float b) {
  asm volatile("st.shared::cluster.v2.f32 [%0], {%1, %2};" ::"r"(remote), "f"(a), "f"(b) : "memory");
}
FK_DEVICE void send(uint32_t remote, float a, float b, float c, float d) {
  asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(remote), "f"(a), "f"(b), "f"(c), "f"(d)
               : "memory");
}

/* All threads of both blocks, what they wrote before seen by all. */
FK_DEVICE void meet() {
  __syncwarp();
  fk_cluster_arrive(), fk_cluster_wait();
}

/* One arrival a warp, after all its lanes' reads and writes of shared memory. */
FK_DEVICE void arrive(uint32_t bar) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) fk_mbar_arrive(bar);
}

/* s (+)= Q K^T over one half of the inner product, started. The last columns of the queries come from shared memory. */
template <class P>
FK_DEVICE void start_half(float (&s)[32], const uint32_t (&q)[P::kQHeld][4], uint64_t q_rest, uint64_t k, int half) {
#pragma unroll
  for (int i = 0; i < 16; i++) {
    const uint64_t b = k + i / 4 * (P::kPiece >> 4) + i % 4 * FK_DESC_K_STEP;
    const int c = half * 16 + i;
    if (c < P::kQHeld)
      FkWgmma<64>::rs<0>(s, q[c < P::kQHeld ? c : 0], b, c > 0);
    else
      FkWgmma<64>::ss<0>(s, q_rest + (c - P::kQHeld) / 4 * (P::kPiece >> 4) + c % 4 * FK_DESC_K_STEP, b, 1);
  }
  fk_wgmma_commit();
}

/* The warpgroup of scores and softmax. */
template <class P> FK_DEVICE void make_scores(const Shared<P> &at, const Args &args, const Part<P> &part) {
  const int lane = threadIdx.x % 32, row = threadIdx.x % 128 / 32 * 16 + lane / 4; /* of the block's 64, and row + 8 */
  const uint64_t k_desc = fk_desc(at.k), q_desc = fk_desc(at.q);
  uint32_t q[P::kQHeld][4];
  float s[32], alpha[2];
  Rows rows = {{-INFINITY, -INFINITY}, {0.f, 0.f}};
  FkRing<P::Stages> ring;
  FkRing<2> weights;
  read_queries(q, args, part.row + row);
  fk_mbar_wait(at.q_full, 0);
  for (int j = part.top - 1; j >= part.bottom; j--) {
    fk_wgmma_hold(s);
    for (int i = 0; i < P::kQHeld; i++) fk_wgmma_hold(q[i]);
    const int first = ring.stage; /* the stage of the first half */
#pragma unroll
    for (int half = 0; half < 2; half++) {
      fk_mbar_wait(at.k_full + 8 * ring.stage, ring.parity);
      if (half == 0) fk_wgmma_fence();
      start_half<P>(s, q, q_desc, k_desc + ring.stage * (P::kStage >> 4), half);
      if (half == 0) ring.next();
    }
    fk_wgmma_wait<1>();
    arrive(at.k_free + 8 * first);
    fk_wgmma_wait<0>();
    fk_wgmma_hold(s);
    arrive(at.k_free + 8 * ring.stage), ring.next();
    const int left = args.sk - j * P::kKeys; /* keys at or past this get weight 0 */
    if (left < P::kKeys) {
      for (int i = 0; i < 32; i++)
        if (2 * (lane % 4) + 8 * (i / 4) + (i & 1) >= left) s[i] = -INFINITY;
    }
    softmax(s, rows, alpha, args.scale);
    fk_mbar_wait(at.p_free + 8 * weights.stage, weights.parity ^ 1);
    write_weights(at.p + weights.stage * P::kPBytes, s);
    if (lane % 4 < 2) at.alpha[weights.stage * P::kRows + row + lane % 4 * 8] = lane % 4 ? alpha[1] : alpha[0];
    fk_fence_async();
    arrive(at.p_full + 8 * weights.stage);
    weights.next();
  }
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float sum = rows.sum[r] + __shfl_xor_sync(~0u, rows.sum[r], 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    /* Lanes 0 and 1 of a quad write to one block each. */
    if (lane % 4 < 2)
      send(remote_of(at.sums_at + (part.rank * P::kRows + row + 8 * r) * 8, lane % 4), rows.ref[r], sum);
  }
}

/* Joins this block's products of half `rank` of the columns with the other block's, divides by the sums and writes
 * them. row: of the block's 64, and row + 8. */
template <class P>
FK_DEVICE void store_half(const Shared<P> &at, const Args &args, const Part<P> &part, const float (&o)[2][64],
                          int row) {
  float own[2], other[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const float2 a = at.sums[part.rank * P::kRows + row + 8 * r], b = at.sums[(1 - part.rank) * P::kRows + row + 8 * r];
    const float top = fmaxf(a.x, b.x);
    own[r] = fk_exp2(a.x - top), other[r] = fk_exp2(b.x - top);
    const float inverse = 1.f / fmaf(own[r], a.y, other[r] * b.y);
    own[r] *= inverse, other[r] *= inverse;
  }
  const int first = part.row + row;
  __nv_bfloat16 *to = args.o + (int64_t)first * args.ld_o + blockIdx.y * 512 + part.rank * 256 + threadIdx.x % 4 * 2;
#pragma unroll
  for (int i = 0; i < 32; i++) {
    const float4 given = at.given[i * 128 + threadIdx.x % 128];
    const float *x = o[i / 16] + i % 16 * 4;
    if (first < args.sq)
      *(uint32_t *)(to + 8 * i) =
          fk_pack_bf16(fmaf(x[0], own[0], given.x * other[0]), fmaf(x[1], own[0], given.y * other[0]));
    if (first + 8 < args.sq)
      *(uint32_t *)(to + 8 * args.ld_o + 8 * i) =
          fk_pack_bf16(fmaf(x[2], own[1], given.z * other[1]), fmaf(x[3], own[1], given.w * other[1]));
  }
}

/* The warpgroup of output columns [256 half, 256 half + 256). */
template <class P> FK_DEVICE void make_values(const Shared<P> &at, const Args &args, const Part<P> &part, int half) {
  const int lane = threadIdx.x % 32, row = threadIdx.x % 128 / 32 * 16 + lane / 4; /* of the block's 64, and row + 8 */
  const uint64_t p_desc = fk_desc(at.p), v_desc = fk_desc(at.v, P::kPiece);
  float o[2][64]; /* two products of 128 columns: one of 256 is not compiled for the registers of 512 threads */
  FkRing<P::Stages> ring;
  FkRing<2> weights;
#pragma unroll
  for (int i = 0; i < 64; i++) o[0][i] = o[1][i] = 0.f;
  if (half) ring.next();
  for (int left = part.top - part.bottom; left > 0; left--) {
    fk_mbar_wait(at.p_full + 8 * weights.stage, weights.parity);
    const float *alpha = at.alpha + weights.stage * P::kRows + row;
    if (__any_sync(~0u, alpha[0] != 1.f || alpha[8] != 1.f)) {
      const float by[2] = {alpha[0], alpha[8]};
#pragma unroll
      for (int i = 0; i < 64; i++) o[0][i] *= by[(i >> 1) & 1], o[1][i] *= by[(i >> 1) & 1];
    }
    fk_mbar_wait(at.v_full + 8 * ring.stage, ring.parity);
    fk_wgmma_hold(o[0]), fk_wgmma_hold(o[1]), fk_wgmma_fence();
    const uint64_t p = p_desc + weights.stage * (P::kPBytes >> 4), v = v_desc + ring.stage * (P::kStage >> 4);
#pragma unroll
    for (int i = 0; i < P::kKeys / 16; i++)
#pragma unroll
      for (int c = 0; c < 2; c++)
        FkWgmma<128>::ss<1>(o[c], p + i * FK_DESC_K_STEP, v + c * (2 * P::kPiece >> 4) + i * FK_DESC_MN_STEP, 1);
    fk_wgmma_commit();
    fk_wgmma_wait<0>();
    fk_wgmma_hold(o[0]), fk_wgmma_hold(o[1]);
    arrive(at.v_free + 8 * ring.stage), ring.next(), ring.next();
    arrive(at.p_free + 8 * weights.stage), weights.next();
  }
  meet(); /* the sums are there, and neither block needs its stages any more */
  if (half != part.rank) {
    const uint32_t to = remote_of(at.k, half) + threadIdx.x % 128 * 16;
#pragma unroll
    for (int i = 0; i < 32; i++)
      send(to + i * 2048, o[i / 16][i % 16 * 4], o[i / 16][i % 16 * 4 + 1], o[i / 16][i % 16 * 4 + 2],
           o[i / 16][i % 16 * 4 + 3]);
  }
  meet();
  if (half == part.rank) store_half(at, args, part, o, row); /* half 0 by block 0, half 1 by block 1 */
}

/* Tile 64 queries x 64 keys; 512 threads; 232,072 bytes shared; registers 128 at entry, then 168 (scores), 160 (each
 * half of the output), 24 (copies). By arithmetic bound by shared memory: at the
 * products' full rate it would fill 64 bytes a clock and read 88, of the 128 there are.
 * Measured on an H200, TFLOP/s short / long (989 on the datasheet): 1 head, 16384 tokens 614 / 550 (895 us),
 * 4096 tokens 489 / 510 (70 us). */
template <class P>
__global__ void __launch_bounds__(P::kThreads, 1)
    attention_wide_sm90_kernel(const __grid_constant__ CUtensorMap map_q, const __grid_constant__ CUtensorMap map_k,
                               const __grid_constant__ CUtensorMap map_v, const Args args) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char shared[];
  const Shared<P> at(shared);
  const int group = __shfl_sync(~0u, threadIdx.x / 128, 0), warp = __shfl_sync(~0u, threadIdx.x / 32 % 4, 0);
  const int lane = threadIdx.x % 32;
  const Part<P> part(args.sk);
  if (threadIdx.x == 0) {
    for (int i = 0; i < P::Stages; i++) {
      fk_mbar_init(at.k_full + 8 * i, 1), fk_mbar_init(at.k_free + 8 * i, 4);
      fk_mbar_init(at.v_full + 8 * i, 1), fk_mbar_init(at.v_free + 8 * i, 4);
    }
    for (int i = 0; i < 2; i++) fk_mbar_init(at.p_full + 8 * i, 4), fk_mbar_init(at.p_free + 8 * i, 8);
    fk_mbar_init(at.q_full, 1);
    fk_fence_mbar_init();
  }
  meet(); /* the other block's shared memory may be written from here on */
  if (group == 1 || group == 2) {
    fk_regs_inc<160>();
    make_values<P>(at, args, part, group - 1);
    return;
  }
  if (group == 0) {
    fk_regs_inc<168>();
    make_scores<P>(at, args, part);
  } else {
    fk_regs_dec<24>();
    if (warp == 0 && lane == 0) load_halves<P>(&map_k, at.k, at.k_full, part);
    if (warp == 1 && lane == 0) load_halves<P>(&map_v, at.v, at.v_full, part);
    if (warp == 2 && lane == 0) {
      fk_mbar_expect(at.q_full, P::kQBytes);
      fk_tma_load_3d(at.q, &map_q, at.q_full, 0, part.row, 8 * blockIdx.y + P::kQHeld / 4);
    }
  }
  meet();
  meet();
#endif
}

template <class P> cudaError_t launch(FkCuda *cu, const FkAttention *a) {
  auto kernel = attention_wide_sm90_kernel<P>;
  CUtensorMap map_q, map_k, map_v;
  const int sq = (int)fk_tensor_rows(a->q), sk = (int)fk_tensor_rows(a->k), heads = (int)a->heads;
  FK_CUDA_TRY(fk_cuda_prepare(cu, (const void *)kernel, P::kShared));
  FK_CUDA_TRY(fk_tensor_map_heads(cu, &map_q, a->q.data, a->q.ld, sq, 8 * heads, P::kRows, (32 - P::kQHeld) / 4));
  FK_CUDA_TRY(fk_tensor_map_heads(cu, &map_k, a->k.data, a->k.ld, sk, 8 * heads, P::kKeys, 4));
  FK_CUDA_TRY(fk_tensor_map_heads(cu, &map_v, a->v.data, a->v.ld, sk, 8 * heads, P::kKeys, 4));
  const Args args = {(const __nv_bfloat16 *)a->q.data, (__nv_bfloat16 *)a->o.data, a->q.ld, a->o.ld, sq, sk,
                     a->scale * 1.4426950408889634f};
  cudaLaunchAttribute attribute;
  const cudaLaunchConfig_t config = fk_cuda_in_clusters(&attribute, 2, dim3((sq + P::kRows - 1) / P::kRows * 2, heads),
                                                        P::kThreads, P::kShared, cu->stream);
  return cudaLaunchKernelEx(&config, kernel, map_q, map_k, map_v, args);
}

} // namespace

cudaError_t fk_cuda_attention_wide_sm90(FkCuda *cu, const FkAttention *a) {
  return launch<Plan<3>>(cu, a);
}
