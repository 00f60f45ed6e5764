/* SPDX-License-Identifier: Apache-2.0 */
/* The end of an attention kernel with heads of 128 whose warpgroups have 64 query rows each (FkWgmma's accumulators).
 */
#ifndef FK_ATTENTION_STORE_CUH
#define FK_ATTENTION_STORE_CUH

#include "ptx.cuh"

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

#endif
