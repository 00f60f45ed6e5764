/* SPDX-License-Identifier: Apache-2.0 */
/* Convolution for Hopper as an implicit matrix product: rows are output pixels, columns output channels, and the inner
 * axis runs over (tap, 64 input channels). Nothing is unfolded in memory: one bulk copy fetches, for one tap, the 64
 * channels of a rectangle of input pixels, and coordinates outside the map read as zero, which is the padding. Other
 * shapes and architectures: conv.cu.
 *
 * The map is seen with five axes (channel, column parity, column, row parity, row). At stride 1 the parities have one
 * value. At stride 2 a tap reads one parity of the rows and columns, so its pixels lie one beside the other. After
 * doubling (upsample) the output pixels of one parity class read source pixels one beside the other: a tile holds one
 * class, and the doubled map never exists.
 *
 * Block: 384 threads, persistent over tiles of 16 x 8 M pixels x BN channels. One warp starts copies into a ring of
 * four stages; two warpgroups multiply, M x 64 pixels each against BN channels. Bytes shared: 197,696 (1 x 256, 2 x
 * 128), 164,928 (2 x 64); registers 168 at entry, then 232 (of which 128 accumulators in the two large forms) and 40.
 * Bound by the tensor cores: measured on an H200 66 to 74 % of their rate at stride 1, 52 to 68 % at stride 2; 1x1 by
 * memory. */
#include "device.cuh"
#include "tensormap.cuh"

namespace {

constexpr int kTileW = 16, kStages = 4, kThreads = 384, kChannels = 64;

struct Args {
  __nv_bfloat16 *y;
  const __nv_bfloat16 *residual;
  const float *bias;
  FkView any; /* y for the element-wise epilogue */
  int64_t ld_y, ld_residual;
  int out, out_w;               /* channels; columns of y */
  int grid_h, grid_w;           /* positions: pixels of y, of x where it is doubled */
  int up;                       /* 1: y pixel (2 i + a, 2 j + b) for position (i, j), class (a, b) */
  int kernel, pad, shift, mask; /* tap offset o = class + tap - pad: parity o & mask, step o >> shift */
  int in;                       /* channels of x */
  int tiles_x, tiles_y, tiles_n, total;
  bool vector; /* 16-byte stores: bf16, Cout % 8 == 0, aligned */
};

template <int M, int BN> struct Plan {
  static constexpr int kTileH = M * 8, kRows = 128 * M;
  static constexpr int kA = kRows * 128, kB = BN * 128, kStage = kA + kB;
  static constexpr int kBars = kStages * kStage;
  static constexpr int kShared = kBars + 16 * kStages + 1024; /* 1024: room to align the base */
  static_assert(kShared <= 232448, "shared memory");
};

/* Where a tile is: channels fastest, then parity class, so that blocks running together share input pixels in L2. */
struct Tile {
  int n, row, col, a, b;
};

template <int M> FK_DEVICE Tile tile_at(const Args &p, int index) {
  Tile t;
  t.n = index % p.tiles_n;
  index /= p.tiles_n;
  const int cls = p.up ? index & 3 : 0;
  index >>= p.up ? 2 : 0;
  t.a = cls >> 1, t.b = cls & 1;
  t.col = index % p.tiles_x * kTileW;
  t.row = index / p.tiles_x * (M * 8);
  return t;
}

/* Pixel of y in row-major order, or -1 outside. */
FK_DEVICE int64_t pixel_of(const Args &p, const Tile &t, int ty, int tx) {
  const int i = t.row + ty, j = t.col + tx;
  if (i >= p.grid_h || j >= p.grid_w) return -1;
  return p.up ? (int64_t)(2 * i + t.a) * p.out_w + 2 * j + t.b : (int64_t)i * p.out_w + j;
}

constexpr int kBatch = 4; /* 32-column pieces whose residual is in flight at a time */

/* The residual of one batch, as 16-byte vectors: [piece][pixel of the lane's two]. */
template <int BN>
FK_DEVICE void load_residual(const Args &p, const Tile &t, int ty, int lane, int batch, uint4 (&r)[kBatch][2]) {
  const int n0 = t.n * BN + batch * kBatch * 32 + (lane & 3) * 8;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int64_t pixel = pixel_of(p, t, ty, (lane >> 2) + h * 8);
    const __nv_bfloat16 *from = p.residual + pixel * p.ld_residual + n0;
#pragma unroll
    for (int q = 0; q < kBatch; q++)
      r[q][h] =
          q < BN / 32 && pixel >= 0 && n0 + q * 32 < p.out ? *(const uint4 *)(from + q * 32) : make_uint4(0, 0, 0, 0);
  }
}

/* One batch of a 64-pixel block: a warp holds 16 pixels of one row. Bias and residual are added in float32. Stores of
 * 16 bytes: the lanes of a quad trade their 2-column pieces of four 8-column groups for one whole group each, and the
 * residual the other way round. */
template <int BN>
FK_DEVICE void store_batch(const Args &p, const Tile &t, const float (&d)[BN / 2], int ty, int lane, int batch,
                           const uint4 (&res)[kBatch][2]) {
  const int quad = lane & 3, g = lane >> 2;
  const int64_t pixel[2] = {pixel_of(p, t, ty, g), pixel_of(p, t, ty, g + 8)};
#pragma unroll
  for (int i = 0; i < (BN / 32 < kBatch ? BN / 32 : kBatch); i++) {
    const int q = batch * kBatch + i, n0 = t.n * BN + q * 32;
    float2 bias[4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int c = n0 + j * 8 + quad * 2;
      bias[j] = p.bias && c < p.out ? __ldg((const float2 *)(p.bias + c)) : make_float2(0, 0);
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      uint32_t r[4] = {res[i][h].x, res[i][h].y, res[i][h].z, res[i][h].w}, v[4];
      if (p.residual) fk_quad_transpose(r, quad);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const float *x = d + (q * 4 + j) * 4 + 2 * h;
        v[j] = fk_pack_bf16(x[0] + bias[j].x + fk_pair_low(r[j]), x[1] + bias[j].y + fk_pair_high(r[j]));
      }
      fk_quad_transpose(v, quad);
      if (pixel[h] >= 0 && n0 + quad * 8 < p.out)
        *(uint4 *)(p.y + pixel[h] * p.ld_y + n0 + quad * 8) = make_uint4(v[0], v[1], v[2], v[3]);
    }
  }
}

/* Asks for the tile's residual in L2 while the products run: 256 bytes a thread of the 256 that multiply. */
template <int M, int BN> FK_DEVICE void prefetch_residual(const Args &p, const Tile &t) {
  constexpr int each = BN * 2 < 256 ? BN * 2 : 256, pieces = BN * 2 / each;
  const int i = threadIdx.x - 128, row = i / pieces, c = t.n * BN + i % pieces * (each / 2);
  if (row >= 128 * M || c + each / 2 > p.out) return;
  const int64_t pixel = pixel_of(p, t, row / kTileW, row % kTileW);
  if (pixel < 0) return;
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p.residual + pixel * p.ld_residual + c), "n"(each)
               : "memory");
}

/* The same for any channel count and dtype of y, an element at a time. */
template <int BN>
FK_DEVICE void store_elements(const Args &p, const Tile &t, const float (&d)[BN / 2], int ty, int lane) {
#pragma unroll
  for (int i = 0; i < BN / 2; i++) {
    const int c = t.n * BN + i / 4 * 8 + (lane & 3) * 2 + (i & 1);
    const int64_t pixel = pixel_of(p, t, ty, (lane >> 2) + (i & 2) * 4);
    if (c >= p.out || pixel < 0) continue;
    float v[1] = {d[i] + (p.bias ? p.bias[c] : 0.0f)};
    if (p.residual) v[0] += __bfloat162float(p.residual[pixel * p.ld_residual + c]);
    fk_view_store<1>(p.any, pixel, c, v);
  }
}

template <int M, int BN>
FK_DEVICE void produce(const CUtensorMap &x, const CUtensorMap &w, const Args &p, uint32_t base, int slices) {
  using P = Plan<M, BN>;
  int stage = 0, parity = 1;
  for (int index = blockIdx.x; index < p.total; index += gridDim.x) {
    const Tile t = tile_at<M>(p, index);
    for (int tap = 0; tap < p.kernel * p.kernel; tap++) {
      const int oy = t.a + tap / p.kernel - p.pad, ox = t.b + tap % p.kernel - p.pad;
      for (int s = 0; s < slices; s++) {
        const uint32_t full = base + P::kBars + 16 * stage, at = base + stage * P::kStage;
        fk_mbar_wait(full + 8, parity);
        fk_mbar_expect(full, P::kStage);
        fk_tma_load_5d(at, &x, full, s * kChannels, ox & p.mask, t.col + (ox >> p.shift), oy & p.mask,
                       t.row + (oy >> p.shift));
        fk_tma_load_2d(at + P::kA, &w, full, tap * p.in + s * kChannels, t.n * BN, FK_L2_EVICT_LAST);
        if (++stage == kStages) stage = 0, parity ^= 1;
      }
    }
  }
}

template <int M, int BN> FK_DEVICE void consume(const Args &p, uint32_t base, int steps) {
  using P = Plan<M, BN>;
  const int group = (threadIdx.x >> 7) - 1, warp = threadIdx.x >> 5 & 3, lane = threadIdx.x & 31;
  int stage = 0, parity = 0;
  for (int index = blockIdx.x; index < p.total; index += gridDim.x) {
    const Tile t = tile_at<M>(p, index);
    float d[M][BN / 2];
    if (p.residual && p.vector) prefetch_residual<M, BN>(p, t);
    for (int k = 0; k < steps; k++) {
      const uint32_t full = base + P::kBars + 16 * stage, at = base + stage * P::kStage;
      const uint64_t b = fk_desc(at + P::kA);
      fk_mbar_wait(full, parity);
#pragma unroll
      for (int m = 0; m < M; m++) fk_wgmma_hold(d[m]);
      fk_wgmma_fence();
#pragma unroll
      for (int m = 0; m < M; m++) {
        const uint64_t a = fk_desc(at + (group * M + m) * 8192);
#pragma unroll
        for (int i = 0; i < kChannels / 16; i++)
          FkWgmma<BN>::ss(d[m], a + i * FK_DESC_K_STEP, b + i * FK_DESC_K_STEP, k > 0 || i > 0);
      }
      fk_wgmma_commit();
#pragma unroll
      for (int m = 0; m < M; m++) fk_wgmma_hold(d[m]);
      /* The previous step's products are done: its stage may be filled again. */
      fk_wgmma_wait<1>();
      if (k > 0 && lane == 0) fk_mbar_arrive(base + P::kBars + 16 * ((stage + kStages - 1) % kStages) + 8);
      if (++stage == kStages) stage = 0, parity ^= 1;
    }
    constexpr int batches = BN / 32 > kBatch ? BN / 32 / kBatch : 1;
    uint4 residual[kBatch][2] = {};
    if (p.residual && p.vector) load_residual<BN>(p, t, group * M * 4 + warp, lane, 0, residual);
    fk_wgmma_wait<0>();
#pragma unroll
    for (int m = 0; m < M; m++) fk_wgmma_hold(d[m]);
    if (lane == 0) fk_mbar_arrive(base + P::kBars + 16 * ((stage + kStages - 1) % kStages) + 8);
#pragma unroll
    for (int m = 0; m < M; m++) {
      const int ty = (group * M + m) * 4 + warp;
      if (!p.vector) store_elements<BN>(p, t, d[m], ty, lane);
#pragma unroll
      for (int i = 0; i < batches; i++) {
        if (!p.vector) break;
        if (p.residual && (m || i)) load_residual<BN>(p, t, ty, lane, i, residual);
        store_batch<BN>(p, t, d[m], ty, lane, i, residual);
      }
    }
  }
}

template <int M, int BN>
__global__ void __launch_bounds__(kThreads, 1)
    conv_sm90_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap w, const Args p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using P = Plan<M, BN>;
  extern __shared__ uint8_t raw[];
  const uint32_t base = (fk_smem(raw) + 1023) & ~1023u;
  const int slices = (p.in + kChannels - 1) / kChannels;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; i++) {
      fk_mbar_init(base + P::kBars + 16 * i, 1);     /* full: the copy engine's bytes */
      fk_mbar_init(base + P::kBars + 16 * i + 8, 8); /* free: every math warp */
    }
    fk_fence_mbar_init();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    fk_regs_dec<40>();
    if (threadIdx.x == 0) {
      fk_tma_prefetch_map(&x);
      fk_tma_prefetch_map(&w);
      produce<M, BN>(x, w, p, base, slices);
    }
  } else {
    fk_regs_inc<232>();
    consume<M, BN>(p, base, slices * p.kernel * p.kernel);
  }
#endif
}

/* x as (channel, column parity, column, row parity, row); a box is one tile of positions. */
cudaError_t map_of_x(const FkCuda *cu, CUtensorMap *map, const FkConv *c, int tile_h) {
  const cuuint64_t h = (cuuint64_t)c->x.dim[0], w = (cuuint64_t)c->x.dim[1], s = (cuuint64_t)c->stride;
  const cuuint64_t ld = (cuuint64_t)c->x.ld * 2;
  const cuuint64_t dims[5] = {(cuuint64_t)c->x.dim[2], s, w / s, s, h / s};
  const cuuint64_t strides[4] = {ld, ld * s, ld * w, ld * w * s};
  const cuuint32_t box[5] = {kChannels, 1, kTileW, 1, (cuuint32_t)tile_h};
  return fk_tensor_map(cu, map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, c->x.data, 5, dims, strides, box);
}

cudaError_t map_of_w(const FkCuda *cu, CUtensorMap *map, const FkConv *c, int rows) {
  const cuuint64_t dims[2] = {(cuuint64_t)c->w.in, (cuuint64_t)c->w.out}, strides[1] = {(cuuint64_t)c->w.in * 2};
  const cuuint32_t box[2] = {kChannels, (cuuint32_t)rows};
  return fk_tensor_map(cu, map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, c->w.data, 2, dims, strides, box);
}

template <int M, int BN> cudaError_t launch(FkCuda *cu, const FkConv *c, Args p) {
  using P = Plan<M, BN>;
  auto kernel = conv_sm90_kernel<M, BN>;
  CUtensorMap x, w;
  FK_CUDA_TRY(map_of_x(cu, &x, c, P::kTileH));
  FK_CUDA_TRY(map_of_w(cu, &w, c, BN));
  p.tiles_x = (p.grid_w + kTileW - 1) / kTileW;
  p.tiles_y = (p.grid_h + P::kTileH - 1) / P::kTileH;
  p.tiles_n = (p.out + BN - 1) / BN;
  p.total = p.tiles_x * p.tiles_y * p.tiles_n * (p.up ? 4 : 1);
  const int blocks = p.total < cu->sms ? p.total : cu->sms;
  FK_CUDA_TRY(fk_cuda_prepare(cu, (const void *)kernel, P::kShared));
  kernel<<<blocks, kThreads, P::kShared, cu->stream>>>(x, w, p);
  return cudaGetLastError();
}

bool takes(const FkCuda *cu, const FkConv *c) {
  const bool same = c->kernel == 3 && c->stride == 1 && c->pad_before == 1 && c->pad_after == 1;
  if (cu->arch != 90 || c->w.dtype != FK_BF16 || (uintptr_t)c->w.data % 16 || c->w.in % 8) return false;
  if (!fk_cuda_rows16(c->x) || (c->residual.rank && c->residual.dtype != FK_BF16) || !fk_view_known(c->y)) return false;
  if (c->stride > 2 || (c->upsample && !same)) return false;
  return c->stride == 1 || (c->x.dim[0] % 2 == 0 && c->x.dim[1] % 2 == 0);
}

} // namespace

cudaError_t fk_cuda_conv_sm90(FkCuda *cu, const FkConv *c) {
  const bool up = c->upsample;
  Args p = {};
  if (!takes(cu, c)) return cudaErrorNotSupported;
  p.y = (__nv_bfloat16 *)c->y.data, p.any = fk_view(c->y), p.ld_y = c->y.ld;
  p.residual = (const __nv_bfloat16 *)c->residual.data, p.ld_residual = c->residual.ld;
  p.bias = (const float *)c->bias.data;
  p.out = (int)c->w.out, p.in = (int)c->x.dim[2], p.out_w = (int)c->y.dim[1];
  p.grid_h = (int)(up ? c->x.dim[0] : c->y.dim[0]), p.grid_w = (int)(up ? c->x.dim[1] : c->y.dim[1]);
  p.up = up, p.kernel = c->kernel, p.pad = c->pad_before;
  p.shift = up || c->stride == 2, p.mask = c->stride == 2;
  p.vector = fk_cuda_rows16(c->y) && p.out % 8 == 0 && (!c->residual.rank || fk_cuda_rows16(c->residual)) &&
             (uintptr_t)p.bias % 8 == 0;
  if (p.out > 128) return launch<1, 256>(cu, c, p);
  if (p.out > 64) return launch<2, 128>(cu, c, p);
  return launch<2, 64>(cu, c, p);
}
