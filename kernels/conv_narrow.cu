/* SPDX-License-Identifier: Apache-2.0 */
/* The two ends of the autoencoder at full size: 3x3 convolutions of stride 1 from at most three channels and to at most
 * three. Both are bound by memory (the wide side is read or written once), where the tensor-core tiles of the other
 * files would be nearly empty. Any architecture. */
#include "device.cuh"

namespace {

constexpr int kTileW = 16, kTileH = 8, kPixels = kTileW * kTileH;
constexpr int kInner = 32, kInPitch = kInner + 8; /* 9 taps of 3 channels, padded */
constexpr int kWide = 128;                        /* channels of the wide side at a time */

struct Args {
  FkView x, y, w;
  const float *bias;
  int h, width, in, out, tiles_x, tiles;
};

/* ---- from few channels: inner axis 9 C <= 32 in one piece ----------------------------------------------------------
 */

/* The nine taps of every pixel of the tile; rows are pixels. A thread takes one row of taps of one pixel. */
FK_DEVICE void gather_taps(const Args &a, int row, int col, __nv_bfloat16 (*taps)[kInPitch]) {
  for (int i = threadIdx.x; i < kPixels * 3; i += 256) {
    const int pixel = i % kPixels, ky = i / kPixels, y = row + pixel / kTileW + ky - 1, x0 = col + pixel % kTileW - 1;
    for (int kx = 0; kx < 3; kx++)
      for (int c = 0; c < a.in; c++) {
        const int x = x0 + kx;
        float v[1] = {0};
        if (y >= 0 && y < a.h && x >= 0 && x < a.width) fk_view_load<1>(a.x, (int64_t)y * a.width + x, c, v);
        taps[pixel][(ky * 3 + kx) * a.in + c] = __float2bfloat16_rn(v[0]);
      }
  }
}

/* 256 threads, three blocks a multiprocessor, persistent over tiles of 16 x 8 pixels; a warp makes one row of 16 pixels
 * x 128 channels. y bf16. 20,480 bytes shared, 80 registers. Bound by memory, the write of y; measured on an H200: 1024
 * x 1024, 3 -> 128 161 us (40 % of the floor). */
__global__ void __launch_bounds__(256, 3) conv_few_in_kernel(const Args a) {
  __shared__ __align__(16) __nv_bfloat16 w[kWide][kInPitch], taps[kPixels][kInPitch];
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3, n0 = blockIdx.y * kWide;
  for (int i = threadIdx.x; i < kWide * kInPitch; i += 256) {
    const int n = i / kInPitch, k = i % kInPitch;
    float v[1] = {0};
    if (n0 + n < a.out && k < 9 * a.in) fk_view_load<1>(a.w, n0 + n, k, v);
    w[n][k] = __float2bfloat16_rn(v[0]);
    taps[n % kPixels][k] = __float2bfloat16_rn(0.0f); /* the padding of the inner axis stays zero */
  }
  for (int tile = blockIdx.x; tile < a.tiles; tile += gridDim.x) {
    const int row = tile / a.tiles_x * kTileH, col = tile % a.tiles_x * kTileW;
    float d[kWide / 8][4] = {};
    __syncthreads();
    gather_taps(a, row, col, taps);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kInner; k += 16) {
      uint32_t x[4];
#pragma unroll
      for (int i = 0; i < 4; i++) x[i] = fk_load2(&taps[warp * 16 + g + (i & 1) * 8][k + 2 * t + (i & 2) * 4]);
#pragma unroll
      for (int n = 0; n < kWide / 8; n++) {
        const uint32_t b[2] = {fk_load2(&w[n * 8 + g][k + 2 * t]), fk_load2(&w[n * 8 + g][k + 2 * t + 8])};
        fk_mma(d[n], x, b[0], b[1]);
      }
    }
    if (row + warp >= a.h) continue;
#pragma unroll
    for (int q = 0; q < kWide / 32; q++) {
      const int mine = n0 + q * 32 + t * 8;
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int x = col + g + half * 8;
        uint32_t v[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const int c = n0 + q * 32 + j * 8 + t * 2;
          const float2 bias = a.bias && c < a.out ? __ldg((const float2 *)(a.bias + c)) : make_float2(0, 0);
          v[j] = fk_pack_bf16(d[q * 4 + j][2 * half] + bias.x, d[q * 4 + j][2 * half + 1] + bias.y);
        }
        fk_quad_transpose(v, t);
        if (x < a.width && mine < a.out)
          *(uint4 *)((__nv_bfloat16 *)a.y.data + ((int64_t)(row + warp) * a.width + x) * a.y.ld + mine) =
              make_uint4(v[0], v[1], v[2], v[3]);
      }
    }
  }
}

/* ---- to few channels: every input pixel times all 9 C' filters, then the sum over the taps -------------------------
 */

constexpr int kHaloW = kTileW + 2, kHalo = kHaloW * (kTileH + 2),
              kRows = 192; /* 180 pixels, padded to 12 warps of 16 */
constexpr int kPitch = kWide + 8, kFilters = 32, kSumPitch = kFilters + 1;
constexpr int kFewOutShared = (kRows + kFilters) * kPitch * 2;

/* Channels c0.. of the tile and its border, and of the filters: row tap * out + n. */
FK_DEVICE void load_halo(const Args &a, int row, int col, int c0, __nv_bfloat16 (*x)[kPitch],
                         __nv_bfloat16 (*w)[kPitch]) {
  for (int i = threadIdx.x; i < (kRows + kFilters) * (kWide / 8); i += 384) {
    const int r = i / (kWide / 8), c = c0 + i % (kWide / 8) * 8, f = r - kRows;
    if (r < kRows) {
      const int iy = row + r / kHaloW - 1, ix = col + r % kHaloW - 1;
      const bool inside = r < kHalo && iy >= 0 && iy < a.h && ix >= 0 && ix < a.width && c < a.in;
      const int64_t at = inside ? ((int64_t)iy * a.width + ix) * a.x.ld + c : 0;
      fk_cp_async(fk_smem(&x[r][c - c0]), (const __nv_bfloat16 *)a.x.data + at, inside ? 16 : 0);
    } else {
      const bool inside = f < 9 * a.out && c < a.in;
      const int64_t at = inside ? (int64_t)(f % a.out) * a.w.ld + f / a.out * a.in + c : 0;
      fk_cp_async(fk_smem(&w[f][c - c0]), (const __nv_bfloat16 *)a.w.data + at, inside ? 16 : 0);
    }
  }
  fk_cp_wait_all();
}

/* 384 threads, one tile of 16 x 8 pixels; 60,928 bytes shared, three blocks a multiprocessor, 55 registers. Bound by
 * memory, the read of x with its border; measured on an H200: 1024 x 1024, 128 -> 3 204 to 244 us (27 to 32 %). */
__global__ void __launch_bounds__(384, 3) conv_few_out_kernel(const Args a) {
  extern __shared__ __align__(16) uint8_t raw[];
  __nv_bfloat16(*x)[kPitch] = (__nv_bfloat16(*)[kPitch])raw, (*w)[kPitch] = x + kRows;
  float(*sums)[kSumPitch] = (float(*)[kSumPitch])raw; /* over x, when that has been used */
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  const int row = blockIdx.x / a.tiles_x * kTileH, col = blockIdx.x % a.tiles_x * kTileW;
  float d[kFilters / 8][4] = {};
  for (int c0 = 0; c0 < a.in; c0 += kWide) {
    __syncthreads();
    load_halo(a, row, col, c0, x, w);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kWide; k += 16) {
      uint32_t v[4];
#pragma unroll
      for (int i = 0; i < 4; i++) v[i] = fk_load2(&x[warp * 16 + g + (i & 1) * 8][k + 2 * t + (i & 2) * 4]);
#pragma unroll
      for (int n = 0; n < kFilters / 8; n++) {
        const uint32_t b[2] = {fk_load2(&w[n * 8 + g][k + 2 * t]), fk_load2(&w[n * 8 + g][k + 2 * t + 8])};
        fk_mma(d[n], v, b[0], b[1]);
      }
    }
  }
  __syncthreads();
#pragma unroll
  for (int n = 0; n < kFilters / 8; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) sums[warp * 16 + g + (i & 2) * 4][n * 8 + 2 * t + (i & 1)] = d[n][i];
  __syncthreads();
  for (int i = threadIdx.x; i < kPixels * a.out; i += 384) {
    const int pixel = i / a.out, n = i % a.out, ty = pixel / kTileW, tx = pixel % kTileW;
    if (row + ty >= a.h || col + tx >= a.width) continue;
    float v[1] = {a.bias ? a.bias[n] : 0.0f};
#pragma unroll
    for (int tap = 0; tap < 9; tap++) v[0] += sums[(ty + tap / 3) * kHaloW + tx + tap % 3][tap * a.out + n];
    fk_view_store<1>(a.y, (int64_t)(row + ty) * a.width + col + tx, n, v);
  }
}

} // namespace

cudaError_t fk_cuda_conv_narrow(FkCuda *cu, const FkConv *c) {
  const FkTensor w = fk_tensor_2d((void *)c->w.data, c->w.dtype, c->w.out, c->w.in);
  Args a = {};
  if (c->kernel != 3 || c->stride != 1 || c->upsample || c->pad_before != 1 || c->pad_after != 1)
    return cudaErrorNotSupported;
  if (c->residual.rank || c->w.dtype != FK_BF16 || !fk_view_known(c->x) || !fk_view_known(c->y))
    return cudaErrorNotSupported;
  a.x = fk_view(c->x), a.y = fk_view(c->y), a.w = fk_view(w), a.bias = (const float *)c->bias.data;
  a.h = (int)c->x.dim[0], a.width = (int)c->x.dim[1], a.in = (int)c->x.dim[2], a.out = (int)c->w.out;
  a.tiles_x = (a.width + kTileW - 1) / kTileW;
  a.tiles = a.tiles_x * ((a.h + kTileH - 1) / kTileH);
  if (a.in <= 3 && a.out % 8 == 0 && c->y.dtype == FK_BF16 && fk_view_wide(c->y) && (uintptr_t)a.bias % 8 == 0) {
    const int most = cu->sms * 3;
    const dim3 grid((unsigned)(a.tiles < most ? a.tiles : most), (unsigned)((a.out + kWide - 1) / kWide));
    conv_few_in_kernel<<<grid, 256, 0, cu->stream>>>(a);
    return cudaGetLastError();
  }
  if (a.out <= 3 && a.in % 8 == 0 && c->x.dtype == FK_BF16 && fk_view_wide(c->x) && fk_view_wide(w)) {
    FK_CUDA_TRY(fk_cuda_prepare(cu, (const void *)conv_few_out_kernel, kFewOutShared));
    conv_few_out_kernel<<<(unsigned)a.tiles, 384, kFewOutShared, cu->stream>>>(a);
    return cudaGetLastError();
  }
  return cudaErrorNotSupported;
}
