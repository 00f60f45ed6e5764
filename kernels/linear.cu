/* SPDX-License-Identifier: Apache-2.0 */
/* Launch side of the bf16 linear layer: chooses the path and the tile for a shape (static, offline), makes the tensor
 * maps and launches. Kernels: linear_pingpong_sm90.cuh (many rows), linear_sm90.cuh (few rows), linear_any.cuh. */
#include "common.cuh"
#include "linear.h"
#include "linear_any.cuh"
#include "linear_pingpong_sm90.cuh"
#include "linear_sm90.cuh"
#include "tensormap.cuh"

/* A row of a box is 128 bytes: L2 fetches no more than that (256: 6 to 8 % more bytes through L2). */
static bool fk_linear_map(CUtensorMap *map, const void *base, int rank, const cuuint64_t *dims,
                          const cuuint64_t *strides, const cuuint32_t *box) {
  return fk_tensor_map(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, base, rank, dims, strides, box,
                       CU_TENSOR_MAP_L2_PROMOTION_L2_128B);
}

/* rows: of one copy. x, or W in its own order. */
static bool fk_linear_plain_map(CUtensorMap *map, const void *base, int64_t ld, int k, int m, int rows) {
  cuuint64_t dims[2] = {(cuuint64_t)k, (cuuint64_t)m}, strides[1] = {(cuuint64_t)ld * 2};
  cuuint32_t box[2] = {FK_LINEAR_BK, (cuuint32_t)rows};
  return fk_linear_map(map, base, 2, dims, strides, box);
}

/* Axes k, g, h, w, s of weight row 32w + 4g + 2s + h (linear_pingpong_sm90.cuh). */
static bool fk_linear_paired_map(CUtensorMap *map, const FkCudaLinearGroup *g, int n, int k) {
  cuuint64_t ld = (cuuint64_t)k * 2;
  cuuint64_t dims[5] = {(cuuint64_t)k, 8, 2, (cuuint64_t)n / 32, 2}, strides[4] = {4 * ld, ld, 32 * ld, 2 * ld};
  cuuint32_t box[5] = {FK_PP_BK, 8, 2, 4, 2};
  return fk_linear_map(map, g->w, 5, dims, strides, box);
}

static void fk_linear_rows(FkLinearRows *r, const FkCudaLinearGroup *g) {
  r->y = g->y;
  r->ldy = g->ldy;
  r->bias = g->bias, r->gate = g->gate, r->q_norm = g->q_norm, r->k_norm = g->k_norm;
  r->rope = g->rope;
  r->m = g->m;
}

/* ---- many rows -------------------------------------------------------------------------------------------------- */

/* Blocks of a cluster of two that the device runs at once in this kernel, 0 if it cannot. */
static int fk_pp_clusters(const void *kernel, cudaLaunchConfig_t *config) {
  int device = 0, sms = 0, clusters = 0;
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)config->dynamicSmemBytes) !=
      cudaSuccess)
    return 0;
  if (cudaGetDevice(&device) != cudaSuccess) return 0;
  cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device);
  config->gridDim = dim3(sms / 2 * 2);
  return cudaOccupancyMaxActiveClusters(&clusters, kernel, config) == cudaSuccess ? clusters : 0;
}

template <int Epi, int BT> static cudaError_t fk_pp_run(cudaStream_t stream, const FkPpArgs *a) {
  static int most = 0;
  auto kernel = linear_pingpong_sm90_kernel<Epi, BT>;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = 2, attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.blockDim = dim3(384), config.dynamicSmemBytes = FkPpShape<BT>::smem_bytes;
  config.stream = stream, config.attrs = &attribute, config.numAttrs = 1;
  if (!most) most = fk_pp_clusters((const void *)kernel, &config);
  if (!most) return cudaErrorNotSupported;
  config.gridDim = dim3(2 * min(most, a->units));
  return cudaLaunchKernelEx(&config, kernel, *a);
}

template <int BT>
static cudaError_t fk_pp(cudaStream_t stream, int groups, const FkCudaLinearGroup *g, int n, int k, int epilogue,
                         int width) {
  FkPpArgs a = {};
  constexpr int half = FkPpShape<BT>::half;
  a.k_blocks = (k + FK_PP_BK - 1) / FK_PP_BK, a.width = width, a.pairs = n / (2 * FK_PP_FEATURES);
  a.band = 11; /* x 6 pairs at once on 132 processors: as square as 66 units of 160 x 256 can be */
  for (int i = 0; i < groups; i++) {
    a.row_tiles[i] = (g[i].m + BT - 1) / BT;
    if (!a.row_tiles[i]) continue;
    if (!fk_linear_plain_map(&a.x[i][0], g[i].x, g[i].ldx, k, g[i].m, half) ||
        !fk_linear_plain_map(&a.x[i][1], g[i].x, g[i].ldx, k, g[i].m, BT - half) ||
        !fk_linear_paired_map(&a.w[i], &g[i], n, k))
      return cudaErrorInvalidValue;
    fk_linear_rows(&a.rows[i], &g[i]);
  }
  a.units = (a.row_tiles[0] + a.row_tiles[1]) * a.pairs;
  switch (epilogue) {
  case FK_LINEAR_NONE: return fk_pp_run<FK_LINEAR_NONE, BT>(stream, &a);
  case FK_LINEAR_SILU: return fk_pp_run<FK_LINEAR_SILU, BT>(stream, &a);
  case FK_LINEAR_GELU: return fk_pp_run<FK_LINEAR_GELU, BT>(stream, &a);
  case FK_LINEAR_QUICK_GELU: return fk_pp_run<FK_LINEAR_QUICK_GELU, BT>(stream, &a);
  case FK_LINEAR_GATE: return fk_pp_run<FK_LINEAR_GATE, BT>(stream, &a);
  case FK_LINEAR_QKV: return fk_pp_run<FK_LINEAR_QKV, BT>(stream, &a);
  }
  return cudaErrorInvalidValue;
}

/* Tokens of a tile: fewest cycles in whole waves of the machine's clusters. A tile costs about twelve tokens more than
 * it has; one of 128 as much as one of 140, because its operands then come slower than it multiplies. At 8704 rows 160
 * fills 55 x 24 of 10 x 132 tiles of 3072 columns; 512 + 8192 rows get 176 or 184. */
static int fk_pp_tokens(int groups, const FkCudaLinearGroup *g, int n, int sms) {
  static const int tokens[4] = {184, 176, 160, 128}, costs[4] = {196, 188, 172, 152};
  int best = 0, least = 0;
  for (int i = 0; i < 4; i++) {
    int tiles = 0;
    for (int j = 0; j < groups; j++) tiles += (g[j].m + tokens[i] - 1) / tokens[i];
    int waves = (tiles * (n / (2 * FK_PP_FEATURES)) + sms / 2 - 1) / (sms / 2);
    if (!best || waves * costs[i] < least) best = tokens[i], least = waves * costs[i];
  }
  return best;
}

/* ---- few rows --------------------------------------------------------------------------------------------------- */

template <int Epi, int BN, bool F32>
static cudaError_t fk_linear_few_run(cudaStream_t stream, const FkLinearArgs *a, int sms) {
  static bool ready = false;
  constexpr int smem = FkLinearShape<BN>::smem_bytes;
  auto kernel = linear_few_sm90_kernel<Epi, BN, F32>;
  if (!ready) FK_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, smem));
  ready = true;
  kernel<<<min(sms, a->units), 256, smem, stream>>>(*a);
  return cudaGetLastError();
}

template <int BN, bool F32>
static cudaError_t fk_linear_few_epi(cudaStream_t stream, const FkLinearArgs *a, int sms, int epilogue) {
  switch (epilogue) {
  case FK_LINEAR_NONE: return fk_linear_few_run<FK_LINEAR_NONE, BN, F32>(stream, a, sms);
  case FK_LINEAR_SILU: return fk_linear_few_run<FK_LINEAR_SILU, BN, F32>(stream, a, sms);
  case FK_LINEAR_GELU: return fk_linear_few_run<FK_LINEAR_GELU, BN, F32>(stream, a, sms);
  case FK_LINEAR_QUICK_GELU: return fk_linear_few_run<FK_LINEAR_QUICK_GELU, BN, F32>(stream, a, sms);
  }
  if constexpr (!F32) {
    if (epilogue == FK_LINEAR_GATE) return fk_linear_few_run<FK_LINEAR_GATE, BN, F32>(stream, a, sms);
    if (epilogue == FK_LINEAR_QKV) return fk_linear_few_run<FK_LINEAR_QKV, BN, F32>(stream, a, sms);
  }
  return cudaErrorInvalidValue;
}

/* Bound by reading the weights once, so columns are dealt out evenly over the machine. */
static cudaError_t fk_linear_few(cudaStream_t stream, int groups, const FkCudaLinearGroup *g, int n, int k,
                                 int epilogue, int width, int y_f32, int sms) {
  FkLinearArgs a = {};
  int64_t columns = 0;
  for (int i = 0; i < groups; i++) {
    a.row_tiles[i] = (g[i].m + FK_LINEAR_ROWS - 1) / FK_LINEAR_ROWS;
    columns += (int64_t)n * a.row_tiles[i];
  }
  int64_t waves = (columns + sms * 256 - 1) / (sms * 256);
  a.step = (int)((columns + sms * waves - 1) / (sms * waves) + 7) / 8 * 8;
  if (epilogue == FK_LINEAR_QKV) a.step = (a.step + 127) / 128 * 128;
  a.n = n, a.k_blocks = (k + FK_LINEAR_BK - 1) / FK_LINEAR_BK, a.width = width;
  a.n_tiles = (n + a.step - 1) / a.step;
  a.units = (a.row_tiles[0] + a.row_tiles[1]) * a.n_tiles;
  for (int i = 0; i < groups; i++) {
    if (!a.row_tiles[i]) continue;
    if (!fk_linear_plain_map(&a.x[i], g[i].x, g[i].ldx, k, g[i].m, FK_LINEAR_ROWS) ||
        !fk_linear_plain_map(&a.w[i], g[i].w, k, k, n, a.step))
      return cudaErrorInvalidValue;
    fk_linear_rows(&a.rows[i], &g[i]);
  }
  if (y_f32 && a.step > 128) return fk_linear_few_epi<256, true>(stream, &a, sms, epilogue);
  if (y_f32) return fk_linear_few_epi<128, true>(stream, &a, sms, epilogue);
  if (a.step > 128) return fk_linear_few_epi<256, false>(stream, &a, sms, epilogue);
  return fk_linear_few_epi<128, false>(stream, &a, sms, epilogue);
}

/* ---- all -------------------------------------------------------------------------------------------------------- */

static bool fk_linear_aligned(const FkCudaLinearGroup *g, int n, int k, int y_f32) {
  uintptr_t bits = (uintptr_t)g->x | (uintptr_t)g->w | (uintptr_t)g->y | (uintptr_t)g->bias | (uintptr_t)g->gate |
                   (uintptr_t)g->q_norm | (uintptr_t)g->k_norm | (uintptr_t)g->rope;
  return bits % 16 == 0 && g->ldx % 8 == 0 && g->ldy % (y_f32 ? 4 : 8) == 0 && n % 8 == 0 && k % 8 == 0;
}

static cudaError_t fk_linear_any(cudaStream_t stream, int groups, const FkCudaLinearGroup *g, int n, int k,
                                 int epilogue, int y_f32) {
  FkAnyArgs a = {};
  int rows = 0;
  if (epilogue == FK_LINEAR_QKV) return cudaErrorNotSupported;
  for (int i = 0; i < groups; i++) a.g[i] = g[i], rows = max(rows, g[i].m);
  a.n = n, a.k = k, a.epilogue = epilogue, a.y_f32 = y_f32;
  dim3 grid((n + FK_ANY_TILE - 1) / FK_ANY_TILE, (rows + FK_ANY_TILE - 1) / FK_ANY_TILE, groups);
  linear_any_kernel<<<grid, 128, 0, stream>>>(a);
  return cudaGetLastError();
}

cudaError_t fk_cuda_linear(cudaStream_t stream, int groups, const FkCudaLinearGroup *g, int n, int k, int epilogue,
                           int width, int y_f32) {
  static int major = 0, sms = 0;
  int device = 0, most = 0;
  bool aligned = true;
  if (!major) {
    FK_CUDA_TRY(cudaGetDevice(&device));
    FK_CUDA_TRY(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device));
    FK_CUDA_TRY(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  }
  for (int i = 0; i < groups; i++) aligned = aligned && fk_linear_aligned(&g[i], n, k, y_f32), most = max(most, g[i].m);
  if (most == 0 || n == 0) return cudaSuccess;
  if (major != 9 || !aligned || (y_f32 && epilogue == FK_LINEAR_GATE))
    return fk_linear_any(stream, groups, g, n, k, epilogue, y_f32);
  if (most <= 128 || y_f32 || n % (2 * FK_PP_FEATURES))
    return fk_linear_few(stream, groups, g, n, k, epilogue, width, y_f32, sms);
  switch (fk_pp_tokens(groups, g, n, sms)) {
  case 128: return fk_pp<128>(stream, groups, g, n, k, epilogue, width);
  case 160: return fk_pp<160>(stream, groups, g, n, k, epilogue, width);
  case 176: return fk_pp<176>(stream, groups, g, n, k, epilogue, width);
  default: return fk_pp<184>(stream, groups, g, n, k, epilogue, width);
  }
}
