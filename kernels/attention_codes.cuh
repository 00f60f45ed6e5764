/* SPDX-License-Identifier: Apache-2.0 */
/* Codes of k and v for the attention kernels with heads of 128: int8 with a scale for each 128 rows of k; e4m3 with a
 * scale for each 128 or 1024 rows of v, which is also transposed. What both kinds of such kernels share. */
#ifndef FK_ATTENTION_CODES_CUH
#define FK_ATTENTION_CODES_CUH

#include "attention_store.cuh"
#include "tensormap.cuh"

/* Head h is columns 128 h.. of every row. Pointers are device memory, 16-byte aligned, codes and scales 256-byte; ld in
 * elements. */
typedef struct {
  const __nv_bfloat16 *q, *k, *v;
  int64_t ld_q, ld_k, ld_v;
  __nv_bfloat16 *o;
  int64_t ld_o;
  int sq, sk, heads;
  float scale;              /* of the softmax */
  uint8_t *k_codes;         /* [rows, heads * 128] */
  uint8_t *v_codes;         /* [heads * 128, keys padded to 128] */
  float *k_scale, *v_scale; /* [heads, tiles of 128 rows], [heads, blocks of 128 or 1024] */
  float *v_mean;            /* [heads * 128] or NULL */
  FkAttentionCodes codes;   /* of the result */
} FkAttnCodes;

static inline FkAttnCodes fk_attn_codes_of(FkCuda *cu, const FkAttention *a) {
  return FkAttnCodes{.q = (const __nv_bfloat16 *)a->q.data,
                     .k = (const __nv_bfloat16 *)a->k.data,
                     .v = (const __nv_bfloat16 *)a->v.data,
                     .ld_q = a->q.ld,
                     .ld_k = a->k.ld,
                     .ld_v = a->v.ld,
                     .o = (__nv_bfloat16 *)a->o.data,
                     .ld_o = a->o.ld,
                     .sq = (int)fk_tensor_rows(a->q),
                     .sk = (int)fk_tensor_rows(a->k),
                     .heads = (int)a->heads,
                     .scale = a->scale,
                     .k_codes = (uint8_t *)a->k_codes.data,
                     .v_codes = (uint8_t *)a->v_codes.data,
                     .k_scale = (float *)a->k_scale.data,
                     .v_scale = (float *)a->v_scale.data,
                     .v_mean = (float *)a->v_mean.data,
                     .codes = fk_attention_codes_of(cu, a)};
}

/* V^T as [keys, 128 columns, heads]; half a tile is a box. */
static inline bool fk_attn_values_map(const FkCuda *cu, CUtensorMap *map, const FkAttnCodes *x) {
  const cuuint64_t keys = ((cuuint64_t)x->sk + 127) / 128 * 128;
  const cuuint64_t dims[3] = {keys, 128, (cuuint64_t)x->heads}, strides[2] = {keys, keys * 128};
  const cuuint32_t box[3] = {128, 64, 1};
  return fk_tensor_map(cu, map, CU_TENSOR_MAP_DATA_TYPE_UINT8, x->v_codes, 3, dims, strides, box) == cudaSuccess;
}

namespace {

/* ---- kernels for any width, which follow the definition step by step: one query row of one head a block -----------
 */

constexpr int kAnyThreads = 128, kAnyColumns = 4; /* of a thread: heads up to 512 wide */

FK_DEVICE float number_of(uint8_t code) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3)));
}

/* Sum or maximum over the block, in an order that is fixed; all threads get it. */
template <bool Max> FK_DEVICE float block_fold(float x, float *part) {
#pragma unroll
  for (int i = 16; i; i /= 2) {
    const float other = __shfl_xor_sync(~0u, x, i);
    x = Max ? fmaxf(x, other) : x + other;
  }
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
  __syncthreads();
  x = part[0];
#pragma unroll
  for (int i = 1; i < kAnyThreads / 32; i++) x = Max ? fmaxf(x, part[i]) : x + part[i];
  __syncthreads();
  return x;
}

/* With heads of 128 on Hopper numbers or, where the result leaves as codes, codes; else any. */
typedef cudaError_t (*Launch)(FkCuda *, const FkAttention *);
static inline cudaError_t launch_by_width(FkCuda *cu, const FkAttention *a, Launch numbers, Launch codes, Launch any) {
  const int64_t width = fk_tensor_cols(a->q) / a->heads;
  const bool rows16 = fk_cuda_rows16(a->q) && fk_cuda_rows16(a->k) && fk_cuda_rows16(a->v) && fk_cuda_rows16(a->o);
  if (fk_tensor_rows(a->q) == 0 || fk_tensor_rows(a->k) == 0) return cudaSuccess;
  const bool leaves = fk_tensor_given(a->o_codes); /* asked for as a fused op, which may be declined */
  if (cu->arch == 90 && width == 128 && rows16 && a->scale > 0) return (leaves ? codes : numbers)(cu, a);
  if (leaves) return cudaErrorNotSupported;
  if (width > kAnyThreads * kAnyColumns || a->q.dtype != FK_BF16 || a->k.dtype != FK_BF16 || a->o.dtype != FK_BF16)
    return fk_cuda_decline(cu, "heads are %d wide; the kernels take up to %d", (int)width, kAnyThreads * kAnyColumns);
  return any(cu, a);
}

/* ---- codes --------------------------------------------------------------------------------------------------------
 */

/* Four floats to e4m3 codes, the first in the lowest byte. */
FK_DEVICE uint32_t pack_e4m3(float a, float b, float c, float d) {
  return __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3) |
         (uint32_t)__nv_cvt_float2_to_fp8x2(make_float2(c, d), __NV_SATFINITE, __NV_E4M3) << 16;
}

/* amax of `value` over the block's 256 threads. */
FK_DEVICE float block_max(float value) {
  __shared__ float part[8];
#pragma unroll
  for (int i = 16; i; i /= 2) value = fmaxf(value, __shfl_xor_sync(~0u, value, i));
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = value;
  __syncthreads();
  value = part[0];
  for (int i = 1; i < 8; i++) value = fmaxf(value, part[i]);
  __syncthreads();
  return value;
}

/* limit / amax and amax / limit; 0 and 1 where amax is next to nothing, 0 and NaN where the group is broken. */
FK_DEVICE float code_inverse(float amax, float limit, float *scale, bool broken = false) {
  const bool empty = amax < 0x1p-100f;
  *scale = broken ? __int_as_float(0x7fc00000) : empty ? 1.f : __fdiv_rn(amax, limit);
  return empty || broken ? 0.f : __fdiv_rn(limit, amax);
}

/* Round to nearest even, -127..127; NaN to 0. */
FK_DEVICE uint32_t code_s8(float x) {
  const float rounded = rintf(x);
  return (uint32_t)(x == x ? (int)fminf(fmaxf(rounded, -127.f), 127.f) : 0) & 0xff;
}
/* Codes of four numbers of a group whose inverse this is: a sum with 1.5 * 2^23 is rounded to an integer, whose low
 * byte it ends in. No number of the group is beyond the limit; where there is none, or an infinite one, inverse is 0
 * and so are the codes. */
FK_DEVICE uint32_t pack_s8(const float *x, float inverse) {
  uint32_t whole[4];
#pragma unroll
  for (int i = 0; i < 4; i++) whole[i] = __float_as_uint(__fadd_rn(__fmul_rn(x[i], inverse), 12582912.f));
  const uint32_t codes =
      __byte_perm(__byte_perm(whole[0], whole[1], 0x0040), __byte_perm(whole[2], whole[3], 0x0040), 0x5410);
  return inverse == 0.f ? 0 : codes;
}

/* Of pairs in bf16: the greater magnitudes, with any signs, and NaN where one is; the greater; the smaller numbers. */
FK_DEVICE uint32_t pair_most(uint32_t a, uint32_t b) {
  asm("max.NaN.xorsign.abs.bf16x2 %0, %0, %1;" : "+r"(a) : "r"(b));
  return a;
}
FK_DEVICE uint32_t pair_max(uint32_t a, uint32_t b) {
  asm("max.bf16x2 %0, %0, %1;" : "+r"(a) : "r"(b));
  return a;
}
FK_DEVICE uint32_t pair_min(uint32_t a, uint32_t b) {
  asm("min.bf16x2 %0, %0, %1;" : "+r"(a) : "r"(b));
  return a;
}
/* amax of what pair_most ends in. */
FK_DEVICE float pair_amax(uint32_t most, bool *broken) {
  const float low = fabsf(fk_pair_low(most)), high = fabsf(fk_pair_high(most));
  *broken = low != low || high != high;
  return fmaxf(low, high);
}

/* Of word i of the products' first operand byte j belongs to this score of its thread. */
FK_DEVICE constexpr int score_of(int i, int j) {
  return 16 * (i / 4) + 8 * ((i >> 1) & 1) + 2 * (i & 1) + (j & 1) + 4 * (j >> 1);
}

/* A thread's share of a 128 x 128 block: two items of 4 rows x 8 columns. The rows of an item are those whose codes
 * stand next to each other in V^T: within 16 keys the order in which a thread of the products' first operand holds
 * them, place 4t + e is key 2t + (e & 1) + 8 (e >> 1). 16 neighbouring lanes hold the 16 pieces of 8 columns of the
 * same rows. */
struct Share {
  int piece, quad[2]; /* column / 8; the item's place in V^T / 4 */
  __device__ __forceinline__ Share() {
    piece = threadIdx.x % 16;
    quad[0] = threadIdx.x / 16, quad[1] = quad[0] + 16;
  }
  __device__ __forceinline__ int row(int item, int e) const {
    return (quad[item] & ~3) * 4 + 2 * (quad[item] & 3) + (e & 1) + 8 * (e >> 1);
  }
};

/* word[item][row]: 8 columns. In place of rows past `rows` stands the last one, so that it does not change what is
 * greatest; without rows zeros. */
FK_DEVICE void load_share(uint4 (&word)[2][4], const Share &share, const __nv_bfloat16 *from, int64_t ld, int rows) {
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const int row = min(share.row(i / 4, i % 4), rows - 1),
              at = row * (int)ld + share.piece * 8; /* of 128 rows: fits */
    word[i / 4][i % 4] = row >= 0 ? *(const uint4 *)(from + at) : make_uint4(0, 0, 0, 0);
  }
}

/* amax of the numbers less the means of their columns, NaN passed over. The rounded difference is greatest where the
 * number is. */
FK_DEVICE float share_max(const uint4 (&word)[2][4], const float (&mean)[8]) {
  uint4 top = word[0][0], low = top;
#pragma unroll
  for (int i = 1; i < 8; i++) {
    const uint4 w = word[i / 4][i % 4];
    top = make_uint4(pair_max(top.x, w.x), pair_max(top.y, w.y), pair_max(top.z, w.z), pair_max(top.w, w.w));
    low = make_uint4(pair_min(low.x, w.x), pair_min(low.y, w.y), pair_min(low.z, w.z), pair_min(low.w, w.w));
  }
  float x[8], y[8], amax = 0.f;
  fk_unpack8(top, x), fk_unpack8(low, y);
#pragma unroll
  for (int c = 0; c < 8; c++) amax = fmaxf(amax, fmaxf(fabsf(x[c] - mean[c]), fabsf(y[c] - mean[c])));
  return amax;
}

/* Means of FK_QUANT_MEAN of the values' rows (FkAttention.v_mean), of the columns of a thread's share. A thread adds
 * two columns of the rows of one part, all of which it asks for at once. */
FK_DEVICE void value_means(float (&mean)[8], const FkAttnCodes &a, const Share &share, int head) {
  constexpr int parts = FK_QUANT_MEAN / FK_QUANT_MEAN_PART;
  static_assert(parts * 64 == 256, "a thread for each two columns of a part");
  __shared__ float2 sums[parts][64];
  const int part = threadIdx.x / 64, pair = threadIdx.x % 64;
  float2 sum = make_float2(0.f, 0.f);
  uint32_t word[FK_QUANT_MEAN_PART];
#pragma unroll
  for (int i = 0; i < FK_QUANT_MEAN_PART; i++) {
    const unsigned row = (unsigned)(part * FK_QUANT_MEAN_PART + i) * (unsigned)a.sk / FK_QUANT_MEAN;
    word[i] = fk_load2(a.v + row * a.ld_v + head * 128 + 2 * pair);
  }
#pragma unroll
  for (int i = 0; i < FK_QUANT_MEAN_PART; i++) sum.x += fk_pair_low(word[i]), sum.y += fk_pair_high(word[i]);
  sums[part][pair] = sum;
  __syncthreads();
#pragma unroll
  for (int c = 0; c < 8; c++) {
    mean[c] = 0.f;
#pragma unroll
    for (int i = 0; i < parts; i++) mean[c] += ((const float *)sums[i])[share.piece * 8 + c];
    mean[c] *= 1.f / FK_QUANT_MEAN;
  }
}

/* Codes of a tile's values: turned[column][place of the key / 4]; word w of column c stands at w ^ 2 (c / 8), so that
 * neither the writes of a column nor the reads of 16 bytes meet in one bank. */
FK_DEVICE void store_values(const FkAttnCodes &a, const uint4 (&word)[2][4], const Share &share, const float (&mean)[8],
                            float inverse, int tile, int head) {
  __shared__ __align__(16) uint32_t turned[128][32];
#pragma unroll
  for (int item = 0; item < 2; item++) {
    float x[4][8];
#pragma unroll
    for (int e = 0; e < 4; e++) fk_unpack8(word[item][e], x[e]);
#pragma unroll
    for (int c = 0; c < 8; c++)
      turned[share.piece * 8 + c][share.quad[item] ^ (2 * share.piece)] =
          pack_e4m3((x[0][c] - mean[c]) * inverse, (x[1][c] - mean[c]) * inverse, (x[2][c] - mean[c]) * inverse,
                    (x[3][c] - mean[c]) * inverse);
  }
  __syncthreads();
  const int64_t keys = (a.sk + 127) / 128 * (int64_t)128;
  for (int i = threadIdx.x; i < 128 * 8; i += 256) {
    const int column = i / 8, piece = column / 8;
    const uint4 w = *(const uint4 *)&turned[column][(i % 8 ^ piece / 2) * 4];
    *(uint4 *)(a.v_codes + ((int64_t)head * 128 + column) * keys + tile * 128 + i % 8 * 16) =
        piece & 1 ? make_uint4(w.z, w.w, w.x, w.y) : w;
  }
}

/* The greatest of one number of each block of a cluster. */
FK_DEVICE float cluster_max(float value, int blocks) {
  __shared__ float mine;
  if (threadIdx.x == 0) mine = value;
  fk_cluster_arrive(), fk_cluster_wait();
  for (int i = 0; i < blocks; i++) value = fmaxf(value, fk_cluster_load(&mine, i));
  fk_cluster_arrive_relaxed(), fk_cluster_wait(); /* nobody leaves while others read */
  return value;
}

/* 128 rows of the values of a head. Tiles: of so many tiles under one scale, which the blocks of a cluster make; all of
 * them come here, also where no rows are left. More than one: less the means. */
template <int Tiles> FK_DEVICE void code_values(const FkAttnCodes &a, int tile, int head) {
  const int blocks = (a.sk + Tiles * 128 - 1) / (Tiles * 128), rows = a.sk - tile * 128;
  const Share share;
  uint4 word[2][4];
  float scale, mean[8] = {};
  load_share(word, share, a.v + (int64_t)tile * 128 * a.ld_v + head * 128, a.ld_v, rows);
  if constexpr (Tiles > 1) value_means(mean, a, share, head);
  float amax = block_max(rows > 0 ? share_max(word, mean) : 0.f);
  if constexpr (Tiles > 1) amax = cluster_max(amax, Tiles);
  const float inverse = code_inverse(amax, 448.f, &scale);
  if (threadIdx.x == 0 && tile % Tiles == 0) a.v_scale[head * blocks + tile / Tiles] = scale;
  if (Tiles > 1 && tile == 0 && threadIdx.x < 16) {
#pragma unroll
    for (int c = 0; c < 8; c++) a.v_mean[head * 128 + threadIdx.x * 8 + c] = mean[c];
  }
  if (rows > 0) store_values(a, word, share, mean, inverse, tile, head);
}

/* 128 rows of the keys of a head. */
FK_DEVICE void code_keys(const FkAttnCodes &a, int tile, int head) {
  const Share share;
  uint4 word[2][4];
  float scale;
  uint32_t most = 0;
  bool broken;
  load_share(word, share, a.k + (int64_t)tile * 128 * a.ld_k + head * 128, a.ld_k, a.sk - tile * 128);
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const uint4 w = word[i / 4][i % 4];
    most = pair_most(pair_most(pair_most(pair_most(most, w.x), w.y), w.z), w.w);
  }
  const float amax = block_max(pair_amax(most, &broken));
  const float inverse = code_inverse(amax, 127.f, &scale, __syncthreads_or(broken));
  if (threadIdx.x == 0) a.k_scale[head * ((a.sk + 127) / 128) + tile] = scale;
  uint8_t *to = a.k_codes + ((int64_t)tile * 128 * a.heads + head) * 128 + share.piece * 8;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const int row = share.row(i / 4, i % 4);
    float x[8];
    fk_unpack8(word[i / 4][i % 4], x);
    if (tile * 128 + row < a.sk)
      *(uint2 *)(to + row * (a.heads * 128)) = make_uint2(pack_s8(x, inverse), pack_s8(x + 4, inverse));
  }
}

} // namespace

#endif
