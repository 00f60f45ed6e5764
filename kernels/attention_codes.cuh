/* SPDX-License-Identifier: Apache-2.0 */
/* Codes of q, k and v for attention_codes_sm90.cuh: int8 with a scale for each row of q and each 128 rows of k, e4m3
 * with a scale for each 128 rows of v, which is also transposed. The module makes those of v alone. */
#ifndef FK_ATTENTION_CODES_CUH
#define FK_ATTENTION_CODES_CUH

#include "attention_store.cuh"

/* Head h is columns 128 h.. of every row. Pointers are device memory, 16-byte aligned, codes and scales 256-byte; ld in
 * elements. */
typedef struct {
  const __nv_bfloat16 *q, *k, *v;
  int64_t ld_q, ld_k, ld_v;
  __nv_bfloat16 *o;
  int64_t ld_o;
  int sq, sk, heads;
  float scale;                        /* of the softmax */
  uint8_t *q_codes, *k_codes;         /* [rows, heads * 128] */
  uint8_t *v_codes;                   /* [heads * 128, keys padded to 128] */
  float *q_scale, *k_scale, *v_scale; /* [heads, ld_q_scale], [heads, tiles], [heads, tiles] */
  int ld_q_scale;
  FkAttentionCodes codes; /* of the result */
} FkAttnCodes;

/* Where key `key` of a tile of 128 stands in V^T: within 16 keys the order in which a thread of the products' first
 * operand holds them: place 4t + e is key 2t + (e & 1) + 8 (e >> 1). */
static __host__ __device__ inline int fk_attn_key_place(int key) {
  const int in = key & 15;
  return (key & ~15) + ((in & 7) >> 1) * 4 + (in >> 3) * 2 + (in & 1);
}

namespace {

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

/* limit / amax and amax / limit; 0 and 1 where amax is next to nothing. */
FK_DEVICE float code_inverse(float amax, float limit, float *scale) {
  const bool empty = amax < 0x1p-100f;
  *scale = empty ? 1.f : __fdiv_rn(amax, limit);
  return empty ? 0.f : __fdiv_rn(limit, amax);
}

/* Round to nearest even, -127..127; NaN to 0. */
FK_DEVICE uint32_t code_s8(float x) {
  const float rounded = rintf(x);
  return (uint32_t)(x == x ? (int)fminf(fmaxf(rounded, -127.f), 127.f) : 0) & 0xff;
}

/* A thread's share of a 128 x 128 block: two items of 4 rows x 8 columns. The rows of an item are those whose codes
 * stand next to each other in V^T; 16 neighbouring lanes hold the 16 pieces of 8 columns of the same rows. */
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

/* x[item][row][column]; rows past `rows` are zeros. */
FK_DEVICE void load_share(float (&x)[2][4][8], const Share &share, const __nv_bfloat16 *from, int64_t ld, int rows) {
  uint4 word[2][4];
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const int row = share.row(i / 4, i % 4);
    word[i / 4][i % 4] = row < rows ? *(const uint4 *)(from + row * ld + share.piece * 8) : make_uint4(0, 0, 0, 0);
  }
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const uint32_t w[4] = {word[i / 4][i % 4].x, word[i / 4][i % 4].y, word[i / 4][i % 4].z, word[i / 4][i % 4].w};
#pragma unroll
    for (int j = 0; j < 4; j++)
      x[i / 4][i % 4][2 * j] = __uint_as_float(w[j] << 16),
                          x[i / 4][i % 4][2 * j + 1] = __uint_as_float(w[j] & 0xffff0000u);
  }
}

FK_DEVICE float row_max(const float (&x)[8]) {
  float a = 0.f;
#pragma unroll
  for (int i = 0; i < 8; i++) a = fmaxf(a, fabsf(x[i]));
  return a;
}

FK_DEVICE uint2 codes_s8(const float (&x)[8], float inverse) {
  uint32_t w[2];
#pragma unroll
  for (int i = 0; i < 2; i++)
    w[i] = code_s8(x[4 * i] * inverse) | code_s8(x[4 * i + 1] * inverse) << 8 | code_s8(x[4 * i + 2] * inverse) << 16 |
           code_s8(x[4 * i + 3] * inverse) << 24;
  return make_uint2(w[0], w[1]);
}

/* One block of 128 rows of one head: blockIdx.z 0 values (one scale, transposed), 1 keys (one scale), 2 queries (a
 * scale for each row). Values: of blockIdx.z 0 alone. 256 threads; reads 32 KB, writes 16 KB; bound by memory. */
template <bool Values> __global__ void __launch_bounds__(256) attention_codes_kernel(const FkAttnCodes a) {
  const int block = blockIdx.x, head = blockIdx.y, what = Values ? 0 : blockIdx.z, tiles = (a.sk + 127) / 128;
  const int rows = min(128, (what == 2 ? a.sq : a.sk) - block * 128);
  if (rows <= 0) return;
  const int64_t ld = what == 0 ? a.ld_v : what == 1 ? a.ld_k : a.ld_q;
  const __nv_bfloat16 *from = (what == 0 ? a.v : what == 1 ? a.k : a.q) + (int64_t)block * 128 * ld + head * 128;
  const Share share;
  float x[2][4][8], scale, inverse, amax = 0.f;
  load_share(x, share, from, ld, rows);
  if (what == 2) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const int row = share.row(i / 4, i % 4);
      amax = row_max(x[i / 4][i % 4]);
#pragma unroll
      for (int lanes = 8; lanes; lanes /= 2) amax = fmaxf(amax, __shfl_xor_sync(~0u, amax, lanes));
      inverse = code_inverse(amax, 127.f, &scale);
      if (row >= rows) continue;
      if (share.piece == 0) a.q_scale[(int64_t)head * a.ld_q_scale + block * 128 + row] = scale;
      *(uint2 *)(a.q_codes + ((int64_t)block * 128 + row) * a.heads * 128 + head * 128 + share.piece * 8) =
          codes_s8(x[i / 4][i % 4], inverse);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; i++) amax = fmaxf(amax, row_max(x[i / 4][i % 4]));
  amax = block_max(amax);
  inverse = code_inverse(amax, what == 1 ? 127.f : 448.f, &scale);
  if (threadIdx.x == 0) (what == 1 ? a.k_scale : a.v_scale)[head * tiles + block] = scale;
  if (what == 1) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const int row = share.row(i / 4, i % 4);
      if (row < rows)
        *(uint2 *)(a.k_codes + ((int64_t)block * 128 + row) * a.heads * 128 + head * 128 + share.piece * 8) =
            codes_s8(x[i / 4][i % 4], inverse);
    }
    return;
  }
  /* V: [column][place of the key] in words of 4 places; word w of column c stands at w ^ 2 (c / 8), so that neither the
   * writes of a column nor the reads of 16 bytes meet in one bank. */
  __shared__ __align__(16) uint32_t turned[128][32];
#pragma unroll
  for (int item = 0; item < 2; item++)
#pragma unroll
    for (int c = 0; c < 8; c++)
      turned[share.piece * 8 + c][share.quad[item] ^ (2 * share.piece)] =
          pack_e4m3(x[item][0][c] * inverse, x[item][1][c] * inverse, x[item][2][c] * inverse, x[item][3][c] * inverse);
  __syncthreads();
  const int64_t keys = (int64_t)tiles * 128;
  for (int i = threadIdx.x; i < 128 * 8; i += 256) {
    const int column = i / 8, piece = column / 8;
    const uint4 w = *(const uint4 *)&turned[column][(i % 8 ^ piece / 2) * 4];
    *(uint4 *)(a.v_codes + ((int64_t)head * 128 + column) * keys + block * 128 + i % 8 * 16) =
        piece & 1 ? make_uint4(w.z, w.w, w.x, w.y) : w;
  }
}

} // namespace

#endif
