/* SPDX-License-Identifier: Apache-2.0 */
/* Attention of any head width up to 512, with a causal mask and a bias by distance: the text encoders, and the plain
 * path of the transformer and the VAE's middle, whose fast kernels are attention_sm90.cu and attention_wide_sm90.cu.
 *
 * One block holds a tile of query rows of one head; keys and values pass by in tiles of 64 tokens, softmax online in
 * float32, so no S x S buffer exists. K of the next tile travels while V is multiplied, V while the scores are. */
#include "attention_store.cuh"
#include "common.cuh"
#include "module.cuh"

namespace {

struct Args {
  const __nv_bfloat16 *q, *k, *v;
  __nv_bfloat16 *o;
  int64_t ld_q, ld_k, ld_v, ld_o;
  int sq, sk, width;
  float scale; /* times log2(e) */
  const float *bias;
  bool causal;
};

/* Width: head width rounded up to 64, 128 or 512 (columns past the true width are zeros). A warp has M x 16 rows and
 * one of Cols column parts: Keys/Cols keys of the scores, Width/Cols columns of the output; Rows warps lie below it. */
template <int Width_, int M_, int Rows_, int Cols_, int Keys_> struct Plan {
  static constexpr int Width = Width_, M = M_, Rows = Rows_, Cols = Cols_;
  static constexpr int kQueries = 16 * M * Rows, kKeys = Keys_, kThreads = 32 * Rows * Cols;
  static constexpr int kPitch = 2 * Width + 16, kPitchP = 2 * kKeys + 16; /* bytes; the 16 spread rows over the banks */
  static constexpr int kQ = 0, kK = kQ + kQueries * kPitch, kV = kK + kKeys * kPitch, kP = kV + kKeys * kPitch;
  static constexpr int kRed = kP + kQueries * kPitchP, kBias = kRed + 4 * Cols * kQueries;
  static constexpr int kShared = kBias + 4 * (kQueries + kKeys);
  static constexpr int kNS = kKeys / Cols / 8, kNO = Width / Cols / 8; /* 8-wide products of a warp */
  static_assert(kShared <= 232448 && kNS % 2 == 0 && kNO % 2 == 0 && kKeys % 16 == 0, "tile");
};

/* Starts copying `rows` rows of a head, zeros past row `end` and column `width`. */
template <class P>
FK_DEVICE void load_rows(uint32_t to, const __nv_bfloat16 *from, int64_t ld, int rows, int first, int end, int width) {
  constexpr int kPieces = P::Width / 8;
  for (int i = threadIdx.x; i < rows * kPieces; i += P::kThreads) {
    int r = i / kPieces, c = i % kPieces * 8;
    bool in = first + r < end && c < width;
    fk_cp_async(to + r * P::kPitch + 2 * c, in ? from + (int64_t)(first + r) * ld + c : from, in ? 16 : 0);
  }
}

/* s = q k^T of this warp's rows and keys. q, k: shared addresses of its first row and first key. */
template <class P> FK_DEVICE void add_scores(float (&s)[P::M][P::kNS][4], uint32_t q, uint32_t k) {
  int lane = threadIdx.x % 32;
  q += (lane % 16) * P::kPitch + lane / 16 * 16;
  k += (lane / 16 * 8 + lane % 8) * P::kPitch + lane / 8 % 2 * 16;
#pragma unroll
  for (int m = 0; m < P::M; m++)
#pragma unroll
    for (int n = 0; n < P::kNS; n++) s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0.f;
#pragma unroll 4
  for (int i = 0; i < P::Width / 16; i++) {
    uint32_t a[P::M][4], b[4];
#pragma unroll
    for (int m = 0; m < P::M; m++) fk_ldmatrix_x4(a[m], q + m * 16 * P::kPitch + 32 * i);
#pragma unroll
    for (int n = 0; n < P::kNS; n += 2) {
      fk_ldmatrix_x4(b, k + n * 8 * P::kPitch + 32 * i);
#pragma unroll
      for (int m = 0; m < P::M; m++) fk_mma(s[m][n], a[m], b[0], b[1]), fk_mma(s[m][n + 1], a[m], b[2], b[3]);
    }
  }
}

/* o += p v of this warp's rows and columns. */
template <class P> FK_DEVICE void add_values(float (&o)[P::M][P::kNO][4], uint32_t p, uint32_t v) {
  int lane = threadIdx.x % 32;
  p += (lane % 16) * P::kPitchP + lane / 16 * 16;
  v += (lane % 16) * P::kPitch + lane / 16 * 16;
#pragma unroll
  for (int i = 0; i < P::kKeys / 16; i++) {
    uint32_t a[P::M][4], b[4];
#pragma unroll
    for (int m = 0; m < P::M; m++) fk_ldmatrix_x4(a[m], p + m * 16 * P::kPitchP + 32 * i);
#pragma unroll
    for (int n = 0; n < P::kNO; n += 2) {
      fk_ldmatrix_x4_trans(b, v + i * 16 * P::kPitch + 16 * n);
#pragma unroll
      for (int m = 0; m < P::M; m++) fk_mma(o[m][n], a[m], b[0], b[1]), fk_mma(o[m][n + 1], a[m], b[2], b[3]);
    }
  }
}

/* Widths to 128: tile 64 x 64, 128 threads, 37,632 (64) or 62,208 bytes shared, 95 or 160 registers. Width 512: tile
 * 64 x 64, 256 threads, 210,432 bytes, 236 registers; or 16 x 32, 64 threads, 84,800 bytes, 226 registers. By
 * arithmetic bound by reading fragments from shared memory (2 of the 4 clocks that a product takes at best, at width
 * 512). Measured on an H200: 64 heads of 64 over 512 tokens with bias 31 us (138 TFLOP/s), 1 head of 512 over 16384
 * tokens 2.75 ms (200), 24 of 128 over 8704 tokens 4.07 ms (229). */
template <class P> __global__ void __launch_bounds__(P::kThreads) attention_any_kernel(const Args args) {
  extern __shared__ __align__(128) char shared[];
  const uint32_t base = fk_smem(shared);
  float *red = (float *)(shared + P::kRed), *distance = (float *)(shared + P::kBias);
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, warp = threadIdx.x / 32;
  const int part = warp % P::Cols, top_row = warp / P::Cols * 16 * P::M; /* this warp's columns and first row */
  const int head = blockIdx.y, first = blockIdx.x * P::kQueries;
  const int64_t column = (int64_t)head * args.width;
  const __nv_bfloat16 *k = args.k + column, *v = args.v + column;
  const float *bias = args.bias ? args.bias + (int64_t)head * (args.sq + args.sk - 1) : nullptr;
  int keys = args.causal ? min(args.sk, first + P::kQueries) : args.sk; /* no row here looks further */

  float s[P::M][P::kNS][4], o[P::M][P::kNO][4], top[P::M][2], sum[P::M][2];
#pragma unroll
  for (int m = 0; m < P::M; m++) {
    top[m][0] = top[m][1] = -INFINITY, sum[m][0] = sum[m][1] = 0.f;
#pragma unroll
    for (int n = 0; n < P::kNO; n++) o[m][n][0] = o[m][n][1] = o[m][n][2] = o[m][n][3] = 0.f;
  }
  load_rows<P>(base + P::kQ, args.q + column, args.ld_q, P::kQueries, first, args.sq, args.width);
  load_rows<P>(base + P::kK, k, args.ld_k, P::kKeys, 0, args.sk, args.width);
  fk_cp_commit();

  for (int j0 = 0; j0 < keys; j0 += P::kKeys) {
    if (bias) { /* the distances j - i of this pair of tiles */
      for (int i = threadIdx.x; i < P::kQueries + P::kKeys; i += P::kThreads) {
        int at = j0 - first + i - P::kQueries + args.sq; /* i = j - j0 - (row - first) + kQueries - 1 */
        distance[i] = at >= 0 && at < args.sq + args.sk - 1 ? bias[at] * 1.4426950408889634f : 0.f;
      }
    }
    fk_cp_wait<0>();
    __syncthreads();
    load_rows<P>(base + P::kV, v, args.ld_v, P::kKeys, j0, args.sk, args.width);
    fk_cp_commit();
    const int key = part * (P::kKeys / P::Cols); /* this warp's first key of the tile */
    add_scores<P>(s, base + P::kQ + top_row * P::kPitch, base + P::kK + key * P::kPitch);

    float high[P::M][2], alpha[P::M][2];
#pragma unroll
    for (int m = 0; m < P::M; m++) {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        int row = top_row + 16 * m + 8 * r + g;
        int end = args.causal ? min(args.sk, first + row + 1) : args.sk;
        high[m][r] = -INFINITY;
#pragma unroll
        for (int i = 0; i < 2 * P::kNS; i++) {
          int j = key + 8 * (i / 2) + 2 * t + i % 2;
          float &x = s[m][i / 2][2 * r + i % 2];
          x *= args.scale;
          if (bias) x += distance[j - row + P::kQueries - 1];
          if (j0 + j >= end) x = -INFINITY;
          high[m][r] = fmaxf(high[m][r], x);
        }
        high[m][r] = fmaxf(high[m][r], __shfl_xor_sync(~0u, high[m][r], 1));
        high[m][r] = fmaxf(high[m][r], __shfl_xor_sync(~0u, high[m][r], 2));
        if (P::Cols > 1 && t == 0) red[part * P::kQueries + row] = high[m][r];
      }
    }
    if (P::Cols > 1) __syncthreads();
#pragma unroll
    for (int m = 0; m < P::M; m++) {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        int row = top_row + 16 * m + 8 * r + g;
#pragma unroll
        for (int c = 0; c < P::Cols; c++)
          if (P::Cols > 1) high[m][r] = fmaxf(high[m][r], red[c * P::kQueries + row]);
        high[m][r] = fmaxf(high[m][r], top[m][r]); /* finite: key 0 is seen by every row in the first tile */
        alpha[m][r] = fk_exp2(top[m][r] - high[m][r]);
        top[m][r] = high[m][r], sum[m][r] *= alpha[m][r];
#pragma unroll
        for (int n = 0; n < P::kNS; n++) {
          float a = fk_exp2(s[m][n][2 * r] - high[m][r]), b = fk_exp2(s[m][n][2 * r + 1] - high[m][r]);
          sum[m][r] += a + b;
          *(uint32_t *)(shared + P::kP + row * P::kPitchP + 2 * (key + 8 * n + 2 * t)) = fk_pack_bf16(a, b);
        }
      }
#pragma unroll
      for (int n = 0; n < P::kNO; n++) {
        o[m][n][0] *= alpha[m][0], o[m][n][1] *= alpha[m][0];
        o[m][n][2] *= alpha[m][1], o[m][n][3] *= alpha[m][1];
      }
    }
    fk_cp_wait<0>();
    __syncthreads();
    if (j0 + P::kKeys < keys) load_rows<P>(base + P::kK, k, args.ld_k, P::kKeys, j0 + P::kKeys, args.sk, args.width);
    fk_cp_commit();
    add_values<P>(o, base + P::kP + top_row * P::kPitchP, base + P::kV + part * (P::Width / P::Cols) * 2);
  }

#pragma unroll
  for (int m = 0; m < P::M; m++) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      sum[m][r] += __shfl_xor_sync(~0u, sum[m][r], 1);
      sum[m][r] += __shfl_xor_sync(~0u, sum[m][r], 2);
      if (P::Cols > 1 && t == 0) red[part * P::kQueries + top_row + 16 * m + 8 * r + g] = sum[m][r];
    }
  }
  if (P::Cols > 1) __syncthreads();
#pragma unroll
  for (int m = 0; m < P::M; m++) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      int row = top_row + 16 * m + 8 * r + g;
      float total = P::Cols > 1 ? 0.f : sum[m][r];
#pragma unroll
      for (int c = 0; c < P::Cols; c++)
        if (P::Cols > 1) total += red[c * P::kQueries + row];
      float inverse = 1.f / total;
      if (first + row >= args.sq) continue;
      __nv_bfloat16 *to = args.o + (int64_t)(first + row) * args.ld_o + column;
#pragma unroll
      for (int n = 0; n < P::kNO; n++) {
        int c = part * (P::Width / P::Cols) + 8 * n + 2 * t;
        if (c < args.width)
          *(uint32_t *)(to + c) = fk_pack_bf16(o[m][n][2 * r] * inverse, o[m][n][2 * r + 1] * inverse);
      }
    }
  }
}

template <class P> cudaError_t launch(FkCuda *cu, const Args &args, int heads) {
  auto kernel = attention_any_kernel<P>;
  const dim3 grid((args.sq + P::kQueries - 1) / P::kQueries, heads);
  FK_CUDA_TRY(fk_cuda_prepare(cu, (const void *)kernel, P::kShared));
  kernel<<<grid, P::kThreads, P::kShared, cu->stream>>>(args);
  return cudaGetLastError();
}

bool aligned(const FkAttention *a) {
  return fk_cuda_rows16(a->q) && fk_cuda_rows16(a->k) && fk_cuda_rows16(a->v) && fk_cuda_rows16(a->o);
}

} // namespace

cudaError_t fk_cuda_attention(FkCuda *cu, const FkAttention *a) {
  const int heads = (int)a->heads, width = (int)(fk_tensor_cols(a->q) / heads);
  if (fk_tensor_given(a->k_codes)) return fk_cuda_attention_int8(cu, a);
  if (fk_tensor_given(a->v_codes)) return fk_cuda_attention_value_codes(cu, a);
  const Args args = {.q = (const __nv_bfloat16 *)a->q.data,
                     .k = (const __nv_bfloat16 *)a->k.data,
                     .v = (const __nv_bfloat16 *)a->v.data,
                     .o = (__nv_bfloat16 *)a->o.data,
                     .ld_q = a->q.ld,
                     .ld_k = a->k.ld,
                     .ld_v = a->v.ld,
                     .ld_o = a->o.ld,
                     .sq = (int)fk_tensor_rows(a->q),
                     .sk = (int)fk_tensor_rows(a->k),
                     .width = width,
                     .scale = a->scale * 1.4426950408889634f,
                     .bias = (const float *)a->bias.data,
                     .causal = a->causal};
  if (width % 8 || width < 8 || width > 512)
    return fk_cuda_decline(cu, "heads are %d wide; the kernels take multiples of 8 up to 512", width);
  if (!aligned(a)) return cudaErrorNotSupported;
  if (args.sq == 0) return cudaSuccess;
  if (width <= 64) return launch<Plan<64, 1, 4, 1, 64>>(cu, args, heads);
  if (width <= 128) return launch<Plan<128, 1, 4, 1, 64>>(cu, args, heads);
  const cudaError_t status = launch<Plan<512, 2, 2, 4, 64>>(cu, args, heads);
  /* The small tile is for devices of about 100 KB of shared memory a block. */
  return status == cudaErrorNotSupported ? launch<Plan<512, 1, 1, 2, 32>>(cu, args, heads) : status;
}

/* Hopper, heads of 128 or 512, no mask; everything else is the basic slot's. With o_codes heads of 128, of
 * operands in codes too. */
cudaError_t fk_cuda_flash_attention(FkCuda *cu, const FkAttention *a) {
  const int64_t width = fk_tensor_cols(a->q) / a->heads;
  if (cu->arch != 90 || !aligned(a) || a->causal || fk_tensor_given(a->bias)) return cudaErrorNotSupported;
  if (fk_tensor_rows(a->q) == 0 || !(a->scale > 0)) return cudaErrorNotSupported;
  if (fk_tensor_given(a->o_codes) && (width != 128 || !fk_attention_codes_fit(a))) return cudaErrorNotSupported;
  if (fk_tensor_given(a->k_codes)) return fk_cuda_attention_int8(cu, a);
  if (fk_tensor_given(a->v_codes)) return fk_cuda_attention_value_codes(cu, a);
  if (width == 128) return fk_cuda_attention_sm90(cu, a);
  if (width == 512) return fk_cuda_attention_wide_sm90(cu, a);
  return cudaErrorNotSupported;
}
