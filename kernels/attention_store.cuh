/* SPDX-License-Identifier: Apache-2.0 */
/* The end of an attention kernel with heads of 128 whose warpgroups have 64 query rows each (FkWgmma's accumulators):
 * as numbers, or as codes under given scales. */
#ifndef FK_ATTENTION_STORE_CUH
#define FK_ATTENTION_STORE_CUH

#include "device.cuh"

/* A result that leaves as codes (FkAttention.o_codes): rows below `rows` under given[0], the others under given[1]. */
typedef struct {
  uint8_t *codes; /* 16-byte aligned; NULL: it leaves as numbers */
  int64_t ld;     /* bytes, multiple of 16 */
  float *scale;   /* [query rows], filled by head 0 */
  int rows;
  FkGiven given[2];
} FkAttentionCodes;

/* Asked of a description with o_codes. */
static inline bool fk_attention_codes_fit(const FkAttention *a) {
  return a->o_scale.rank == 1 && a->given[0] > 0 && a->given[1] > 0 && (uintptr_t)a->o_codes.data % 16 == 0 &&
         a->o_codes.ld % 16 == 0;
}

static inline FkAttentionCodes fk_attention_codes_of(FkCuda *cu, const FkAttention *a) {
  if (!fk_tensor_given(a->o_codes)) return FkAttentionCodes{};
  return FkAttentionCodes{(uint8_t *)a->o_codes.data,
                          a->o_codes.ld,
                          (float *)a->o_scale.data,
                          (int)a->given_rows,
                          {fk_cuda_given(cu, a->given[0]), fk_cuda_given(cu, a->given[1])}};
}

/* Divides by the sums and writes 64 rows. A quad's 4x4 words are transposed so that each thread writes 16 bytes. */
FK_DEVICE void fk_attention_store(__nv_bfloat16 *o_rows, int64_t ld_o, int sq, const float (&o)[64],
                                  const float (&sums)[2], int row, int head) {
  int lane = threadIdx.x % 32, t = lane % 4;
  row += (threadIdx.x % 128) / 32 * 16 + lane / 4;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float sum = sums[r] + __shfl_xor_sync(~0u, sums[r], 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    float inverse = 1.f / sum;
    __nv_bfloat16 *to = o_rows + (int64_t)(row + 8 * r) * ld_o + head * 128 + t * 8;
#pragma unroll
    for (int m = 0; m < 4; m++) { /* 32 columns: x[i] holds columns 8i + 2t, 8i + 2t + 1; thread t ends with i = t */
      uint32_t x[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        int at = 16 * m + 4 * i + 2 * r;
        x[i] = fk_pack_bf16(o[at] * inverse, o[at + 1] * inverse);
      }
#pragma unroll
      for (int bit = 1; bit < 4; bit *= 2) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          if (i & bit) continue;
          uint32_t other = __shfl_xor_sync(~0u, (t & bit) ? x[i] : x[i | bit], bit);
          if (t & bit)
            x[i] = other;
          else
            x[i | bit] = other;
        }
      }
      if (row + 8 * r < sq) *(uint4 *)(to + 32 * m) = make_uint4(x[0], x[1], x[2], x[3]);
    }
  }
}

/* The same to codes of the numbers in bf16. A thread's word h of 32 columns m has the codes of columns 16h + 2t, + 1,
 * + 8 and + 9 of these; turned in the quad it has those of all four threads for the 32 columns t: 32 bytes. */
FK_DEVICE void fk_attention_store_codes(const FkAttentionCodes &c, int sq, const float (&o)[64], const float (&sums)[2],
                                        int row, int head) {
  int lane = threadIdx.x % 32, t = lane % 4;
  float beyond = 0;
  row += (threadIdx.x % 128) / 32 * 16 + lane / 4;
#pragma unroll
  for (int r = 0; r < 2; r++, row += 8) {
    float sum = sums[r] + __shfl_xor_sync(~0u, sums[r], 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    float inverse = 1.f / sum;
    const bool first = row < c.rows;
    const float factor = first ? c.given[0].inverse : c.given[1].inverse;
    float over = 0;
    uint32_t w[2][4];
#pragma unroll
    for (int h = 0; h < 2; h++) {
#pragma unroll
      for (int m = 0; m < 4; m++) {
        const int at = 16 * m + 8 * h + 2 * r;
        w[h][m] = fk_given_bf16(fk_pack_bf16(o[at] * inverse, o[at + 1] * inverse), factor, &over) |
                  fk_given_bf16(fk_pack_bf16(o[at + 4] * inverse, o[at + 5] * inverse), factor, &over) << 16;
      }
      fk_quad_transpose(w[h], t);
    }
    uint8_t *to = c.codes + row * c.ld + head * 128 + t * 32;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const uint4 v = make_uint4(__byte_perm(w[h][0], w[h][1], 0x5410), __byte_perm(w[h][2], w[h][3], 0x5410),
                                 __byte_perm(w[h][0], w[h][1], 0x7632), __byte_perm(w[h][2], w[h][3], 0x7632));
      if (row < sq) *(uint4 *)(to + 16 * h) = v;
    }
    if (row < sq && head == 0 && t == 0) c.scale[row] = first ? c.given[0].scale : c.given[1].scale;
    beyond += row < sq ? over : 0;
  }
  fk_given_count(c.given[0].saturated, beyond);
}

#endif
