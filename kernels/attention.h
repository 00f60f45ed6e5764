/* SPDX-License-Identifier: Apache-2.0 */
/* Attention of the CUDA module, as its other files call it: o = softmax(q k^T * scale + bias) v per head.
 * Head h is columns [E h, E h + E) of every row. Pointers are device memory, 16-byte aligned; ld in elements between
 * rows, multiples of 8. o may be q itself (same pointer and ld) and must not overlap k or v. Rows past sq are not
 * written. Results do not depend on the run, on the machine, or on which other rows are asked for. */
#ifndef FK_ATTENTION_H
#define FK_ATTENTION_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#define FK_ATTN_DEVICES 64 /* device numbers the launchers keep state for */

/* Head width 128, no mask, no bias, scale > 0, Hopper. False: nothing was enqueued. */
bool fk_cuda_attention_sm90(cudaStream_t stream, const __nv_bfloat16 *q, const __nv_bfloat16 *k, const __nv_bfloat16 *v,
                            __nv_bfloat16 *o, int64_t ld_q, int64_t ld_k, int64_t ld_v, int64_t ld_o, int sq, int sk,
                            int heads, float scale);

/* The same for head width 512. */
bool fk_cuda_attention_wide_sm90(cudaStream_t stream, const __nv_bfloat16 *q, const __nv_bfloat16 *k,
                                 const __nv_bfloat16 *v, __nv_bfloat16 *o, int64_t ld_q, int64_t ld_k, int64_t ld_v,
                                 int64_t ld_o, int sq, int sk, int heads, float scale);

/* Head width E: a multiple of 8 up to 512. bias: NULL or [heads, sq + sk - 1] by (j - i + sq - 1), finite.
 * causal: j <= i. False: nothing was enqueued. */
bool fk_cuda_attention_general(cudaStream_t stream, const __nv_bfloat16 *q, const __nv_bfloat16 *k,
                               const __nv_bfloat16 *v, __nv_bfloat16 *o, int64_t ld_q, int64_t ld_k, int64_t ld_v,
                               int64_t ld_o, int sq, int sk, int heads, int width, float scale, const float *bias,
                               bool causal);

#endif
