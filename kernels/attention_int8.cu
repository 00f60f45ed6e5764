/* SPDX-License-Identifier: Apache-2.0 */
/* Attention of numbers whose queries, keys and values become codes (FkAttention.k_codes): heads of 128 by
 * attention_int8_sm90.cuh, other widths by a kernel that follows the definition step by step, for small models. */
#include "attention_int8_sm90.cuh"

namespace {

/* 128 rows of a head, blockIdx.x and y; blockIdx.z 0: of the values, 1: of the keys. Clusters of kBlock; 256 threads;
 * reads two bytes a number, writes one; bound by memory. */
__global__ void __launch_bounds__(256) attention_int8_codes_kernel(const FkAttnCodes a) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  if (blockIdx.z == 0)
    code_values<kBlock>(a, blockIdx.x, blockIdx.y);
  else if ((int)blockIdx.x * 128 < a.sk)
    code_keys(a, blockIdx.x, blockIdx.y);
#endif
}

/* [128 bytes, rows, heads] of codes; half a tile is a box. */
bool keys_map(const FkCuda *cu, CUtensorMap *map, const FkAttnCodes *x) {
  const cuuint64_t ld = (cuuint64_t)x->heads * 128;
  const cuuint64_t dims[3] = {128, (cuuint64_t)x->sk, (cuuint64_t)x->heads}, strides[2] = {ld, 128};
  const cuuint32_t box[3] = {128, 64, 1};
  return fk_tensor_map(cu, map, CU_TENSOR_MAP_DATA_TYPE_UINT8, x->k_codes, 3, dims, strides, box) == cudaSuccess;
}

template <bool Leave> cudaError_t launch_sm90(FkCuda *cu, const FkAttention *a) {
  FkAttnCodes x = fk_attn_codes_of(cu, a);
  CUtensorMap map_k, map_v;
  auto kernel = attention_int8_sm90_kernel<Leave>;
  FK_CUDA_TRY(fk_cuda_prepare(cu, (const void *)kernel, kShared));
  if (!keys_map(cu, &map_k, &x) || !fk_attn_values_map(cu, &map_v, &x)) return cudaErrorInvalidValue;
  const int blocks = (x.sk + FK_QUANT_VALUES - 1) / FK_QUANT_VALUES * kBlock;
  cudaLaunchAttribute attribute;
  cudaLaunchConfig_t config = fk_cuda_in_clusters(&attribute, kBlock, dim3(blocks, x.heads, 2), 256, 0, cu->stream);
  FK_CUDA_TRY(cudaLaunchKernelEx(&config, attention_int8_codes_kernel, x));
  x.scale *= 1.4426950408889634f; /* log2(e) */
  const int clusters = cu->sms / kCluster;
  const FkShare share = fk_share_out(x.sq, x.heads, clusters);
  const dim3 grid(min(fk_share_items(share), clusters) * kCluster);
  config = fk_cuda_in_clusters(&attribute, kCluster, grid, kThreads, kShared, cu->stream);
  return cudaLaunchKernelEx(&config, kernel, map_k, map_v, x, share);
}

/* ---- any width ----------------------------------------------------------------------------------------------------
 */

struct AnyArgs {
  const __nv_bfloat16 *q, *values;
  const uint8_t *k;
  uint8_t *v; /* codes, rows as in the numbers */
  const float *k_scale;
  float *v_scale, *v_mean;
  __nv_bfloat16 *o;
  int64_t ld_q, ld_values, ld_k, ld_v, ld_o, ld_k_scale, ld_v_scale;
  int sk, width;
  float scale; /* times log2(e) */
};

/* Codes of the values of a block of keys, blockIdx.x, of a head, blockIdx.y. */
__global__ void __launch_bounds__(kAnyThreads) attention_int8_any_values_kernel(const AnyArgs a) {
  __shared__ float mean[kAnyThreads * kAnyColumns], part[kAnyThreads / 32];
  const int top = blockIdx.x * FK_QUANT_VALUES, rows = min(FK_QUANT_VALUES, a.sk - top), first = blockIdx.y * a.width;
  float amax = 0.f, scale;
  for (int c = threadIdx.x; c < a.width; c += kAnyThreads) {
    float sum = 0.f, term = 0.f;
    for (int i = 0; i < FK_QUANT_MEAN; i++) {
      term += __bfloat162float(a.values[(int64_t)i * a.sk / FK_QUANT_MEAN * a.ld_values + first + c]);
      if (i % FK_QUANT_MEAN_PART == FK_QUANT_MEAN_PART - 1) sum += term, term = 0.f;
    }
    mean[c] = sum * (1.f / FK_QUANT_MEAN);
    if (blockIdx.x == 0) a.v_mean[first + c] = mean[c];
  }
  __syncthreads();
  const __nv_bfloat16 *from = a.values + (int64_t)top * a.ld_values + first;
  for (int i = threadIdx.x; i < rows * a.width; i += kAnyThreads)
    amax = fmaxf(amax, fabsf(__bfloat162float(from[i / a.width * a.ld_values + i % a.width]) - mean[i % a.width]));
  const float inverse = code_inverse(block_fold<true>(amax, part), 448.f, &scale);
  if (threadIdx.x == 0) a.v_scale[blockIdx.x * a.ld_v_scale + blockIdx.y] = scale;
  for (int i = threadIdx.x; i < rows * a.width; i += kAnyThreads) {
    const float x = __bfloat162float(from[i / a.width * a.ld_values + i % a.width]) - mean[i % a.width];
    a.v[(int64_t)(top + i / a.width) * a.ld_v + first + i % a.width] =
        (uint8_t)__nv_cvt_float_to_fp8(x * inverse, __NV_SATFINITE, __NV_E4M3);
  }
}

/* The codes of one query in shared memory; returns its scale. */
FK_DEVICE float any_query(int8_t *codes, const __nv_bfloat16 *q, int width, float *part) {
  float amax = 0.f, scale;
  bool broken = false;
  for (int c = threadIdx.x; c < width; c += kAnyThreads) {
    const float x = __bfloat162float(q[c]);
    amax = fmaxf(amax, fabsf(x)), broken |= x != x;
  }
  amax = block_fold<true>(amax, part);
  const float inverse = code_inverse(amax, 127.f, &scale, __syncthreads_or(broken));
  for (int c = threadIdx.x; c < width; c += kAnyThreads) codes[c] = (int8_t)code_s8(__bfloat162float(q[c]) * inverse);
  __syncthreads();
  return scale;
}

/* A thread has one key of each 64 and up to four columns. Bound by latency. */
__global__ void __launch_bounds__(kAnyThreads) attention_int8_any_kernel(const AnyArgs a) {
  __shared__ int8_t q[kAnyThreads * kAnyColumns];
  __shared__ float p[64], part[kAnyThreads / 32];
  const int head = blockIdx.y, t = threadIdx.x, first_column = head * a.width;
  const int64_t row = blockIdx.x;
  const float q_scale = any_query(q, a.q + row * a.ld_q + first_column, a.width, part) * a.scale;
  float o[kAnyColumns] = {}, acc[kAnyColumns] = {}, reference = 0.f, held = -INFINITY, sum = 0.f, weight = 0.f;
  bool first = true; /* of the steps */
  for (int step = (a.sk - 1) / 128 * 2; step >= 0; step += step % 2 ? -3 : 1, first = false) {
    const int key = step * 64, n = min(64, a.sk - key);
    const float factor = q_scale * a.k_scale[key / 128 * a.ld_k_scale + head];
    float x = -INFINITY; /* exponent of the thread's key */
    if (t < n) {
      const uint8_t *k = a.k + (int64_t)(key + t) * a.ld_k + first_column;
      int exact = 0;
      for (int c = 0; c < a.width; c++) exact += q[c] * (int8_t)k[c];
      x = fmaf((float)exact, factor, kPShift - reference);
    }
    uint8_t code = (uint8_t)__nv_cvt_float_to_fp8(fk_exp2(x), __NV_SATFINITE, __NV_E4M3);
    if (__syncthreads_or(first || code >= kLargest)) {
      const float up = block_fold<true>(x, part) - kPShift, ratio = first ? 0.f : fk_exp2(-up);
      reference += up, weight *= ratio;
#pragma unroll
      for (int i = 0; i < kAnyColumns; i++) acc[i] *= ratio;
      code = (uint8_t)__nv_cvt_float_to_fp8(fk_exp2(x - up), __NV_SATFINITE, __NV_E4M3);
    }
    if (t < 64) p[t] = t < n ? number_of(code) : 0.f;
    __syncthreads();
    for (int j = 0; j < n; j++) weight += p[j];
#pragma unroll
    for (int i = 0; i < kAnyColumns; i++) {
      const int c = t + i * kAnyThreads;
      for (int j = 0; j < n && c < a.width; j++)
        acc[i] = fmaf(p[j], number_of(a.v[(int64_t)(key + j) * a.ld_v + first_column + c]), acc[i]);
    }
    __syncthreads();
    if (step % (2 * kBlock) != 1) continue; /* the last of a block of keys */
    const float ratio = held == reference ? 1.f : fk_exp2(held - reference),
                v_scale = a.v_scale[key / FK_QUANT_VALUES * a.ld_v_scale + head];
    held = reference, sum = sum * ratio + weight, weight = 0.f;
#pragma unroll
    for (int i = 0; i < kAnyColumns; i++) o[i] = fmaf(acc[i], v_scale, o[i] * ratio), acc[i] = 0.f;
  }
#pragma unroll
  for (int i = 0; i < kAnyColumns; i++) {
    const int c = t + i * kAnyThreads;
    if (c < a.width)
      a.o[row * a.ld_o + first_column + c] = __float2bfloat16_rn(o[i] / sum + a.v_mean[first_column + c]);
  }
}

cudaError_t launch_any(FkCuda *cu, const FkAttention *a) {
  const int width = (int)(fk_tensor_cols(a->q) / a->heads);
  FK_CUDA_TRY(fk_cuda_quantize(cu, a->k_codes, a->k_scale, a->k, 0));
  const AnyArgs args = {.q = (const __nv_bfloat16 *)a->q.data,
                        .values = (const __nv_bfloat16 *)a->v.data,
                        .k = (const uint8_t *)a->k_codes.data,
                        .v = (uint8_t *)a->v_codes.data,
                        .k_scale = (const float *)a->k_scale.data,
                        .v_scale = (float *)a->v_scale.data,
                        .v_mean = (float *)a->v_mean.data,
                        .o = (__nv_bfloat16 *)a->o.data,
                        .ld_q = a->q.ld,
                        .ld_values = a->v.ld,
                        .ld_k = a->k_codes.ld,
                        .ld_v = a->v_codes.ld,
                        .ld_o = a->o.ld,
                        .ld_k_scale = a->k_scale.ld,
                        .ld_v_scale = a->v_scale.ld,
                        .sk = (int)fk_tensor_rows(a->k),
                        .width = width,
                        .scale = a->scale * 1.4426950408889634f};
  const dim3 blocks((unsigned)((args.sk + FK_QUANT_VALUES - 1) / FK_QUANT_VALUES), (unsigned)a->heads);
  attention_int8_any_values_kernel<<<blocks, kAnyThreads, 0, cu->stream>>>(args);
  FK_CUDA_TRY(cudaGetLastError());
  const dim3 grid((unsigned)fk_tensor_rows(a->q), (unsigned)a->heads);
  attention_int8_any_kernel<<<grid, kAnyThreads, 0, cu->stream>>>(args);
  return cudaGetLastError();
}

} // namespace

cudaError_t fk_cuda_attention_int8(FkCuda *cu, const FkAttention *a) {
  return launch_by_width(cu, a, launch_sm90<false>, launch_sm90<true>, launch_any);
}
