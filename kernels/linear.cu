/* SPDX-License-Identifier: Apache-2.0 */
/* Launch side of the bf16 linear layer: chooses the path and the tile for a shape (static, offline), makes the tensor
 * maps and launches. Kernels: linear_sm90.cuh (main path). */
#include "common.cuh"
#include "linear.h"
#include "linear_any.cuh"
#include "linear_sm90.cuh"
#include "tensormap.cuh"


typedef struct {
  int bn, cl;  /* tile columns; blocks of a cluster */
  int mg;      /* math warpgroups, 64 rows each */
  int step;    /* columns used of a tile, 0: all; multiple of 8, not where reordered or in clusters */
  int super;   /* row units of a band */
  int lead;    /* k-blocks between the math warpgroups */
  int cut;     /* cut the last wave along K */
  int reorder; /* weight rows reordered by the tensor map */
  int keep;    /* L2: 1 x stays, 2 x goes first, 4 w stays, 8 w goes first */
} FkLinearPlan;

static bool fk_linear_x_map(CUtensorMap *map, const FkCudaLinearGroup *g, int k, int rows) {
  cuuint64_t dims[2] = {(cuuint64_t)k, (cuuint64_t)g->m}, strides[1] = {(cuuint64_t)g->ldx * 2};
  cuuint32_t box[2] = {FK_LINEAR_BK, (cuuint32_t)rows};
  return fk_tensor_map(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, g->x, 2, dims, strides, box);
}

/* rows: of one copy. Reordered: axes k, e, p, i, t of row 32t + 8p + 2i + e (linear_sm90.cuh). */
static bool fk_linear_w_map(CUtensorMap *map, const FkCudaLinearGroup *g, int n, int k, int rows, int reorder) {
  cuuint64_t ld = (cuuint64_t)k * 2;
  if (!reorder) {
    cuuint64_t dims[2] = {(cuuint64_t)k, (cuuint64_t)n}, strides[1] = {ld};
    cuuint32_t box[2] = {FK_LINEAR_BK, (cuuint32_t)rows};
    return fk_tensor_map(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, g->w, 2, dims, strides, box);
  }
  cuuint64_t dims[5] = {(cuuint64_t)k, 2, 4, 4, (cuuint64_t)n / 32}, strides[4] = {ld, 8 * ld, 2 * ld, 32 * ld};
  cuuint32_t box[5] = {FK_LINEAR_BK, 2, 4, 4, (cuuint32_t)rows / 32};
  return fk_tensor_map(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, g->w, 5, dims, strides, box);
}

static void fk_linear_rows(FkLinearRows *r, const FkCudaLinearGroup *g) {
  r->y = g->y;
  r->ldy = g->ldy;
  r->bias = g->bias, r->gate = g->gate, r->q_norm = g->q_norm, r->k_norm = g->k_norm;
  r->rope = g->rope;
  r->m = g->m;
}

/* Hand-over buffer: leftover units are fewer than the clusters of a 132-processor machine. */
#define FK_LINEAR_FLAG_BYTES 65536
#define FK_LINEAR_PARTIAL_BYTES ((size_t)132 * 128 * 256 * 4)
/* k-blocks by which cutting must shorten the last wave: handing over costs about as much as eight. */
#define FK_LINEAR_CUT_GAIN 12

typedef void (*FkLinearKernel)(const FkLinearArgs);

/* Clusters of this kernel that the device runs at once, 0 if it cannot. */
static int fk_linear_clusters(FkLinearKernel kernel, int cl, int threads, int smem) {
  int device = 0, sms = 0, clusters = 0;
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, smem) != cudaSuccess) return 0;
  if (cudaGetDevice(&device) != cudaSuccess) return 0;
  cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device);
  if (cl == 1) return sms;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = cl, attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(sms / cl * cl), config.blockDim = dim3(threads), config.dynamicSmemBytes = smem;
  config.attrs = &attribute, config.numAttrs = 1;
  if (cudaOccupancyMaxActiveClusters(&clusters, kernel, &config) != cudaSuccess) return 0;
  return clusters;
}

template <int Epi, int BN, int CL, int MG, bool Reorder, bool F32>
static cudaError_t fk_linear_sm90_run(cudaStream_t stream, const FkLinearPlan *plan, FkLinearArgs *a) {
  FkLinearKernel kernel = linear_bf16_sm90_kernel<Epi, BN, CL, MG, Reorder, F32>;
  static int most = 0;
  using S = FkLinearShape<BN, MG>;
  if (!most) most = fk_linear_clusters(kernel, CL, S::threads, S::smem_bytes);
  if (!most) return cudaErrorNotSupported;
  int clusters = min(most, a->units), rest = a->units % clusters;
  a->waves = a->units / clusters;
  int sharers = min(clusters, rest * (a->waves + 1));
  if (plan->cut && rest && a->partial && a->k_blocks - rest * a->k_blocks / sharers >= FK_LINEAR_CUT_GAIN)
    a->sharers = sharers, a->pieces = sharers / rest + 2;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = CL, attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(clusters * CL), config.blockDim = dim3(S::threads), config.dynamicSmemBytes = S::smem_bytes;
  config.stream = stream, config.attrs = &attribute, config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, *a);
}

template <int BN, int CL, int MG, bool Reorder, bool F32>
static cudaError_t fk_linear_sm90_epi(cudaStream_t stream, const FkLinearPlan *plan, FkLinearArgs *a, int epilogue) {
  switch (epilogue) {
  case FK_LINEAR_NONE: return fk_linear_sm90_run<FK_LINEAR_NONE, BN, CL, MG, Reorder, F32>(stream, plan, a);
  case FK_LINEAR_SILU: return fk_linear_sm90_run<FK_LINEAR_SILU, BN, CL, MG, Reorder, F32>(stream, plan, a);
  case FK_LINEAR_GELU: return fk_linear_sm90_run<FK_LINEAR_GELU, BN, CL, MG, Reorder, F32>(stream, plan, a);
  case FK_LINEAR_QUICK_GELU: return fk_linear_sm90_run<FK_LINEAR_QUICK_GELU, BN, CL, MG, Reorder, F32>(stream, plan, a);
  }
  if constexpr (!F32) {
    if (epilogue == FK_LINEAR_GATE)
      return fk_linear_sm90_run<FK_LINEAR_GATE, BN, CL, MG, Reorder, F32>(stream, plan, a);
    if (epilogue == FK_LINEAR_QKV) return fk_linear_sm90_run<FK_LINEAR_QKV, BN, CL, MG, Reorder, F32>(stream, plan, a);
  }
  return cudaErrorInvalidValue;
}

static cudaError_t fk_linear_sm90(cudaStream_t stream, const FkLinearPlan *plan, int groups, const FkCudaLinearGroup *g,
                                  int n, int k, int epilogue, int width, int y_f32, void *workspace) {
  FkLinearArgs a = {};
  a.n = n, a.k_blocks = (k + FK_LINEAR_BK - 1) / FK_LINEAR_BK, a.width = width;
  a.step = plan->step ? plan->step : plan->bn;
  a.n_tiles = (n + a.step - 1) / a.step;
  a.x_policy = plan->keep & 1 ? FK_L2_EVICT_LAST : plan->keep & 2 ? FK_L2_EVICT_FIRST : FK_L2_EVICT_NORMAL;
  a.w_policy = plan->keep & 4 ? FK_L2_EVICT_LAST : plan->keep & 8 ? FK_L2_EVICT_FIRST : FK_L2_EVICT_NORMAL;
  int rows = 64 * plan->mg;
  for (int i = 0; i < groups; i++) {
    a.row_units[i] = (g[i].m + rows * plan->cl - 1) / (rows * plan->cl);
    if (!a.row_units[i]) continue;
    if (!fk_linear_x_map(&a.x[i], &g[i], k, rows) ||
        !fk_linear_w_map(&a.w[i], &g[i], n, k, a.step / plan->cl, plan->reorder))
      return cudaErrorInvalidValue;
    fk_linear_rows(&a.rows[i], &g[i]);
  }
  a.units = (a.row_units[0] + a.row_units[1]) * a.n_tiles;
  if (!a.units) return cudaSuccess;
  a.super = plan->super, a.lead = plan->lead;
  if (workspace) a.flags = (uint32_t *)workspace, a.partial = (float *)((char *)workspace + FK_LINEAR_FLAG_BYTES);
  if (plan->mg == 1 && y_f32) {
    if (plan->bn == 256) return fk_linear_sm90_epi<256, 1, 1, false, true>(stream, plan, &a, epilogue);
    return fk_linear_sm90_epi<128, 1, 1, false, true>(stream, plan, &a, epilogue);
  }
  if (plan->mg == 1 && plan->bn == 256) return fk_linear_sm90_epi<256, 1, 1, false, false>(stream, plan, &a, epilogue);
  if (plan->mg == 1) return fk_linear_sm90_epi<128, 1, 1, false, false>(stream, plan, &a, epilogue);
  if (plan->bn == 256) return fk_linear_sm90_epi<256, 2, 2, true, false>(stream, plan, &a, epilogue);
  return fk_linear_sm90_epi<128, 2, 2, true, false>(stream, plan, &a, epilogue);
}

/* Few rows: bound by reading the weights once, so columns are dealt out evenly over the machine. */
static FkLinearPlan fk_linear_plan_few(int groups, const FkCudaLinearGroup *g, int n, int epilogue, int sms) {
  FkLinearPlan p = {256, 1, 1, 0, 1, 0, 0, 0, 0};
  int64_t columns = 0;
  for (int i = 0; i < groups; i++) columns += (int64_t)n * ((g[i].m + 63) / 64);
  int64_t waves = (columns + sms * 256 - 1) / (sms * 256);
  p.step = (int)((columns + sms * waves - 1) / (sms * waves) + 7) / 8 * 8;
  if (epilogue == FK_LINEAR_QKV) p.step = (p.step + 127) / 128 * 128;
  if (p.step <= 128) p.bn = 128;
  return p;
}

/* Time of a tile width in full waves of 256 columns: whole waves, or a cut last one; a 128-wide tile takes 0.55. */
static double fk_linear_cost(int row_units, int n, int bn, int clusters) {
  int units = row_units * ((n + bn - 1) / bn), waves = units / clusters, rest = units % clusters;
  double last = rest == 0 ? 0 : waves == 0 || rest > clusters * 3 / 4 ? 1 : (double)rest / clusters + 0.1;
  return (waves + last) * (bn == 256 ? 1.0 : 0.55);
}

static FkLinearPlan fk_linear_plan_many(int groups, const FkCudaLinearGroup *g, int n, int sms) {
  FkLinearPlan p = {256, 2, 2, 0, 8, 2, 1, 1, 0};
  int row_units = 0;
  for (int i = 0; i < groups; i++) row_units += (g[i].m + 255) / 256;
  if (fk_linear_cost(row_units, n, 128, sms / 2) < fk_linear_cost(row_units, n, 256, sms / 2)) p.bn = 128;
  return p;
}

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

size_t fk_cuda_linear_workspace(void) {
  return FK_LINEAR_FLAG_BYTES + FK_LINEAR_PARTIAL_BYTES;
}

cudaError_t fk_cuda_linear(cudaStream_t stream, int groups, const FkCudaLinearGroup *g, int n, int k, int epilogue,
                           int width, int y_f32, void *workspace) {
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
  bool few = most <= 128 || y_f32 || n % 32;
  FkLinearPlan plan = few ? fk_linear_plan_few(groups, g, n, epilogue, sms) : fk_linear_plan_many(groups, g, n, sms);
  return fk_linear_sm90(stream, &plan, groups, g, n, k, epilogue, width, y_f32, workspace);
}
