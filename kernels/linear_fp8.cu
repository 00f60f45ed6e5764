/* SPDX-License-Identifier: Apache-2.0 */
/* Launch side of the e4m3 linear layer: chooses the tile for a shape, makes the tensor maps and launches. Kernel:
 * linear_fp8_sm90.cuh. FK_FP8_LAB: with the kernels that exist to compare with. */
#include "common.cuh"
#include "linear_fp8.h"
#include "linear_fp8_sm90.cuh"
#include "tensormap.cuh"

/* A row of a box is 128 bytes: L2 fetches no more than that. */
static bool fk_fp8_map_codes(CUtensorMap *map, const void *base, int rank, const cuuint64_t *dims,
                             const cuuint64_t *strides, const cuuint32_t *box) {
  return fk_tensor_map(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, base, rank, dims, strides, box,
                       CU_TENSOR_MAP_L2_PROMOTION_L2_128B);
}

static bool fk_fp8_map_x(CUtensorMap *map, const FkCudaFp8Group *g, int k, int rows) {
  const cuuint64_t dims[2] = {(cuuint64_t)k, (cuuint64_t)g->m}, strides[1] = {(cuuint64_t)g->ldx};
  const cuuint32_t box[2] = {FK_FP8_BK, (cuuint32_t)rows};
  return fk_fp8_map_codes(map, g->x, 2, dims, strides, box);
}

/* Axes k, g, h, w of weight row 16w + 2g + h (linear_fp8_sm90.cuh). */
static bool fk_fp8_map_w(CUtensorMap *map, const uint8_t *w, int n, int k) {
  const cuuint64_t ld = (cuuint64_t)k, dims[4] = {ld, 8, 2, (cuuint64_t)n / 16}, strides[3] = {2 * ld, ld, 16 * ld};
  const cuuint32_t box[4] = {FK_FP8_BK, 8, 2, FK_FP8_FEATURES / 16};
  return fk_fp8_map_codes(map, w, 4, dims, strides, box);
}

/* One row of a box: the scales of a tile's tokens for one block of 128 columns. */
static bool fk_fp8_map_scale(CUtensorMap *map, const FkCudaFp8Group *g, int k_blocks, int tokens) {
  const cuuint64_t dims[2] = {(cuuint64_t)g->m, (cuuint64_t)k_blocks}, strides[1] = {(cuuint64_t)g->ld_scale * 4};
  const cuuint32_t box[2] = {(cuuint32_t)tokens, 1}, ones[2] = {1, 1};
  FkTensorMapEncode encode = fk_tensor_map_encoder();
  return encode && encode(map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, (void *)g->x_scale, dims, strides, box, ones,
                          CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_NONE,
                          CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

static void fk_fp8_rows(FkFp8Rows *r, const FkCudaFp8Group *g) {
  r->x_scale = g->x_scale, r->w_scale = g->w_scale;
  r->bias = g->bias, r->gate = g->gate, r->q_norm = g->q_norm, r->k_norm = g->k_norm;
  r->rope = g->rope;
  r->y = g->y, r->ldy = g->ldy;
  r->m = g->m;
}

/* Clusters of two that the device runs at once in this kernel, 0 if it cannot. */
static int fk_fp8_clusters(const void *kernel, int sms, cudaLaunchConfig_t *config) {
  int clusters = 0;
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)config->dynamicSmemBytes) !=
      cudaSuccess)
    return 0;
  config->gridDim = dim3(sms / 2 * 2);
  return cudaOccupancyMaxActiveClusters(&clusters, kernel, config) == cudaSuccess ? clusters : 0;
}

static const int fk_fp8_tokens[4] = {200, 176, 160, 128}; /* of a tile */

template <int Epi, int Tile, int Sum>
static cudaError_t fk_fp8_run(FkFp8State *state, cudaStream_t stream, const FkFp8Args *a) {
  constexpr int tokens = Tile == 0 ? 200 : Tile == 1 ? 176 : Tile == 2 ? 160 : 128;
  constexpr int slot = (Sum * 4 + Tile) * 4 + (Epi == FK_LINEAR_NONE   ? 0
                                               : Epi == FK_LINEAR_GELU ? 1
                                               : Epi == FK_LINEAR_GATE ? 2
                                                                       : 3);
  static_assert(slot < FK_FP8_KERNELS, "a slot for each kernel");
  auto kernel = linear_fp8_sm90_kernel<Epi, tokens, Sum>;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = 2, attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.blockDim = dim3(384), config.dynamicSmemBytes = FkFp8Shape<tokens, Sum>::smem_bytes;
  config.stream = stream, config.attrs = &attribute, config.numAttrs = 1;
  int *most = &state->clusters[slot];
  if (!*most) *most = fk_fp8_clusters((const void *)kernel, state->sms, &config);
  if (!*most) return cudaErrorNotSupported;
  config.gridDim = dim3(2 * min(*most, a->units));
  return cudaLaunchKernelEx(&config, kernel, *a);
}

template <int Tile, int Sum>
static cudaError_t fk_fp8_epilogue(FkFp8State *state, cudaStream_t stream, const FkFp8Args *a, int epilogue) {
  switch (epilogue) {
  case FK_LINEAR_NONE: return fk_fp8_run<FK_LINEAR_NONE, Tile, Sum>(state, stream, a);
  case FK_LINEAR_GATE: return fk_fp8_run<FK_LINEAR_GATE, Tile, Sum>(state, stream, a);
  }
  if constexpr (Sum != FK_FP8_BLOCK) { /* inputs of these have one scale a row */
    if (epilogue == FK_LINEAR_GELU) return fk_fp8_run<FK_LINEAR_GELU, Tile, Sum>(state, stream, a);
    if (epilogue == FK_LINEAR_QKV) return fk_fp8_run<FK_LINEAR_QKV, Tile, Sum>(state, stream, a);
  }
  return cudaErrorNotSupported;
}

template <int Sum>
static cudaError_t fk_fp8_tile_of(FkFp8State *state, cudaStream_t stream, const FkFp8Args *a, int tokens,
                                  int epilogue) {
  switch (tokens) {
  case 200: return fk_fp8_epilogue<0, Sum>(state, stream, a, epilogue);
  case 176: return fk_fp8_epilogue<1, Sum>(state, stream, a, epilogue);
  case 160: return fk_fp8_epilogue<2, Sum>(state, stream, a, epilogue);
  case 128: return fk_fp8_epilogue<3, Sum>(state, stream, a, epilogue);
  }
  return cudaErrorInvalidValue;
}

/* Fewest cycles in whole waves of the machine's clusters; a tile costs about eight tokens more than it has. 44 tiles of
 * 200 are 8704 rows, as one group and as 512 + 8192, and 44 x 12 pairs of features are 8 waves of 66 clusters. */
static int fk_fp8_choose(int groups, const FkCudaFp8Group *g, int n, int sms) {
  int best = 0, least = 0;
  for (int i = 0; i < 4; i++) {
    int tiles = 0, tokens = fk_fp8_tokens[i];
    for (int j = 0; j < groups; j++) tiles += (g[j].m + tokens - 1) / tokens;
    int waves = (tiles * (n / (2 * FK_FP8_FEATURES)) + sms / 2 - 1) / (sms / 2), cost = waves * (tokens + 8);
    if (!best || cost < least) best = tokens, least = cost;
  }
  return best;
}

static bool fk_fp8_aligned(const FkCudaFp8Group *g, FkFp8Sum sum) {
  uintptr_t bits = (uintptr_t)g->x | (uintptr_t)g->x_scale | (uintptr_t)g->w | (uintptr_t)g->w_scale | (uintptr_t)g->y |
                   (uintptr_t)g->bias | (uintptr_t)g->gate | (uintptr_t)g->q_norm | (uintptr_t)g->k_norm |
                   (uintptr_t)g->rope;
  return bits % 16 == 0 && g->ldx % 16 == 0 && g->ldy % 8 == 0 && (sum != FK_FP8_BLOCK || g->ld_scale % 4 == 0);
}

cudaError_t fk_cuda_linear_fp8(FkFp8State *state, cudaStream_t stream, int groups, const FkCudaFp8Group *g, int n,
                               int k, int epilogue, int width, FkFp8Choice choice) {
  if (!state->sms) {
    int device = 0;
    FK_CUDA_TRY(cudaGetDevice(&device));
    FK_CUDA_TRY(cudaDeviceGetAttribute(&state->major, cudaDevAttrComputeCapabilityMajor, device));
    FK_CUDA_TRY(cudaDeviceGetAttribute(&state->sms, cudaDevAttrMultiProcessorCount, device));
  }
  FkFp8Args a = {};
  a.k_blocks = (k + FK_FP8_BK - 1) / FK_FP8_BK, a.width = width, a.pairs = n / (2 * FK_FP8_FEATURES);
  a.band = choice.band ? choice.band : 11;
  if (state->major != 9 || n % (2 * FK_FP8_FEATURES) || k % 16 || a.k_blocks < FK_FP8_GROUP)
    return cudaErrorNotSupported;
  for (int i = 0; i < groups; i++)
    if (!fk_fp8_aligned(&g[i], choice.sum)) return cudaErrorNotSupported;
  int tokens = choice.tokens ? choice.tokens : fk_fp8_choose(groups, g, n, state->sms), half = (tokens + 15) / 16 * 8;
  for (int i = 0; i < groups; i++) {
    a.row_tiles[i] = (g[i].m + tokens - 1) / tokens;
    if (!a.row_tiles[i]) continue;
    if (!fk_fp8_map_x(&a.x[i][0], &g[i], k, half) || !fk_fp8_map_x(&a.x[i][1], &g[i], k, tokens - half) ||
        !fk_fp8_map_w(&a.w[i], g[i].w, n, k))
      return cudaErrorInvalidValue;
    if (choice.sum == FK_FP8_BLOCK && !fk_fp8_map_scale(&a.scale[i], &g[i], a.k_blocks, tokens))
      return cudaErrorInvalidValue;
    fk_fp8_rows(&a.rows[i], &g[i]);
  }
  a.units = (a.row_tiles[0] + a.row_tiles[1]) * a.pairs;
  if (a.units == 0) return cudaSuccess;
  switch (choice.sum) {
  case FK_FP8_ROW: return fk_fp8_tile_of<FK_FP8_ROW>(state, stream, &a, tokens, epilogue);
  case FK_FP8_BLOCK: return fk_fp8_tile_of<FK_FP8_BLOCK>(state, stream, &a, tokens, epilogue);
#ifdef FK_FP8_LAB
  case FK_FP8_ONCE:
    if (tokens == 200) return fk_fp8_epilogue<0, FK_FP8_ONCE>(state, stream, &a, epilogue);
#endif
  default: return cudaErrorNotSupported;
  }
}
