/* SPDX-License-Identifier: Apache-2.0 */
/* Attention of numbers whose values become codes (FkAttention.v_codes): heads of 128 by attention_codes_sm90.cuh, other
 * widths by a kernel that follows the definition step by step, for small models. */
#include "attention_codes_sm90.cuh"

namespace {

struct AnyArgs {
  const __nv_bfloat16 *q, *k;
  const uint8_t *v; /* codes, rows as in k */
  const float *v_scale;
  __nv_bfloat16 *o;
  int64_t ld_q, ld_k, ld_v, ld_o, ld_scale;
  int sk, width;
  float scale; /* times log2(e) */
};

/* One query row of one head a block; a thread has one key of each tile and up to four columns. Bound by latency. */
__global__ void __launch_bounds__(kAnyThreads) attention_value_codes_any_kernel(const AnyArgs a) {
  __shared__ float q[kAnyThreads * kAnyColumns], p[kAnyThreads], part[kAnyThreads / 32];
  const int head = blockIdx.y, t = threadIdx.x, first = head * a.width;
  const int64_t row = blockIdx.x;
  float o[kAnyColumns] = {}, top = -INFINITY, sum = 0.f;
  for (int c = t; c < a.width; c += kAnyThreads) q[c] = __bfloat162float(a.q[row * a.ld_q + first + c]);
  __syncthreads();
  const int last = (a.sk - 1) / kAnyThreads * kAnyThreads;
  for (int key = last; key >= 0; key -= kAnyThreads) {
    const int n = min(kAnyThreads, a.sk - key);
    float s = -INFINITY;
    if (t < n) {
      const __nv_bfloat16 *k = a.k + (int64_t)(key + t) * a.ld_k + first;
      float dot = 0.f;
      for (int c = 0; c < a.width; c++) dot = fmaf(q[c], __bfloat162float(k[c]), dot);
      s = dot * a.scale;
    }
    const float higher = fmaxf(top, block_fold<true>(s, part));
    const float ratio = key < last ? fk_exp2(top - higher) : 0.f, x = t < n ? fk_exp2(s - higher) : 0.f;
    sum = sum * ratio + block_fold<false>(x, part);
    p[t] = number_of((uint8_t)__nv_cvt_float_to_fp8(256.f * x, __NV_SATFINITE, __NV_E4M3));
    __syncthreads();
    const float v_scale = a.v_scale[key / kAnyThreads * a.ld_scale + head];
#pragma unroll
    for (int i = 0; i < kAnyColumns; i++) {
      const int c = t + i * kAnyThreads;
      if (c >= a.width) continue;
      float sum_of_codes = 0.f;
      for (int j = 0; j < n; j++)
        sum_of_codes = fmaf(p[j], number_of(a.v[(int64_t)(key + j) * a.ld_v + first + c]), sum_of_codes);
      o[i] = (key < last ? o[i] * ratio : 0.f) + v_scale * sum_of_codes;
    }
    __syncthreads();
    top = higher;
  }
#pragma unroll
  for (int i = 0; i < kAnyColumns; i++) {
    const int c = t + i * kAnyThreads;
    if (c < a.width) a.o[row * a.ld_o + first + c] = __float2bfloat16_rn(o[i] / (256.f * sum));
  }
}

cudaError_t launch_any(FkCuda *cu, const FkAttention *a) {
  const int width = (int)(fk_tensor_cols(a->q) / a->heads);
  const FkTensor codes = fk_tensor_slice_rows(a->v_codes, 0, fk_tensor_rows(a->v));
  FK_CUDA_TRY(fk_cuda_quantize(cu, codes, a->v_scale, a->v, 0));
  const AnyArgs args = {(const __nv_bfloat16 *)a->q.data,
                        (const __nv_bfloat16 *)a->k.data,
                        (const uint8_t *)codes.data,
                        (const float *)a->v_scale.data,
                        (__nv_bfloat16 *)a->o.data,
                        a->q.ld,
                        a->k.ld,
                        codes.ld,
                        a->o.ld,
                        a->v_scale.ld,
                        (int)fk_tensor_rows(a->k),
                        width,
                        a->scale * 1.4426950408889634f};
  attention_value_codes_any_kernel<<<dim3((unsigned)fk_tensor_rows(a->q), (unsigned)a->heads), kAnyThreads, 0,
                                     cu->stream>>>(args);
  return cudaGetLastError();
}

/* 128 values of a head: blockIdx.x, blockIdx.y. Reads 32 KB, writes 16 KB; bound by memory. */
__global__ void __launch_bounds__(256) attention_value_codes_kernel(const FkAttnCodes a) {
  code_values<1>(a, blockIdx.x, blockIdx.y);
}

template <bool Leave> cudaError_t launch_sm90(FkCuda *cu, const FkAttention *a) {
  const FkAttnCodes x = fk_attn_codes_of(cu, a);
  FK_CUDA_TRY(fk_cuda_prepare(cu, (const void *)attention_codes_sm90_kernel<Leave>, kShared));
  attention_value_codes_kernel<<<dim3((x.sk + 127) / 128, x.heads), 256, 0, cu->stream>>>(x);
  FK_CUDA_TRY(cudaGetLastError());
  return attention_codes_start<Leave>(cu, &x);
}

} // namespace

cudaError_t fk_cuda_attention_value_codes(FkCuda *cu, const FkAttention *a) {
  return launch_by_width(cu, a, launch_sm90<false>, launch_sm90<true>, launch_any);
}
