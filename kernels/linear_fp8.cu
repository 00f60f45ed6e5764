/* SPDX-License-Identifier: Apache-2.0 */
/* Launch side of the e4m3 linear layer: kernel and tile for a shape, tensor maps, launch. Kernels:
 * linear_fp8_pingpong_sm90.cuh (short sums), linear_fp8_sm90.cuh (long sums). */
#include "linear_fp8.h"
#include "linear_fp8_sm90.cuh"
#include "tensormap.cuh"

namespace {

/* Codes in pairs, as bf16: bytes are copied, zeros are zeros. dims[0] and strides in bytes. */
cudaError_t map_codes(const FkCuda *cu, CUtensorMap *map, const void *base, int rank, const cuuint64_t *dims,
                      const cuuint64_t *strides, const cuuint32_t *box) {
  return fk_tensor_map(cu, map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, base, rank, dims, strides, box,
                       CU_TENSOR_MAP_L2_PROMOTION_L2_128B);
}

cudaError_t map_x(const FkCuda *cu, CUtensorMap *map, const FkCudaFp8Group &g, int k, int rows) {
  const cuuint64_t dims[2] = {(cuuint64_t)k / 2, (cuuint64_t)g.m}, strides[1] = {(cuuint64_t)g.ldx};
  const cuuint32_t box[2] = {FK_PP_BK, (cuuint32_t)rows};
  return map_codes(cu, map, g.x, 2, dims, strides, box);
}

/* Axes k, g, h, w, s of weight row 32w + 4g + 2s + h (linear_pingpong_sm90.cuh), or, promoted, 32w + 16s + 2g + h
 * (linear_fp8_sm90.cuh). */
cudaError_t map_w(const FkCuda *cu, CUtensorMap *map, const uint8_t *w, int n, int k, bool promoted) {
  const cuuint64_t ld = (cuuint64_t)k, dims[5] = {ld / 2, 8, 2, (cuuint64_t)n / 32, 2};
  const cuuint64_t strides[4] = {(promoted ? 2 : 4) * ld, ld, 32 * ld, (promoted ? 16 : 2) * ld};
  const cuuint32_t box[5] = {FK_PP_BK, 8, 2, 4, 2};
  return map_codes(cu, map, w, 5, dims, strides, box);
}

/* ---- launch ----------------------------------------------------------------------------------------------------- */

template <int BT> cudaError_t run(FkCuda *cu, const FkFp8Args &a, void (*kernel)(const FkFp8Args)) {
  return fk_cuda_launch_pairs(cu, kernel, 384, FkFp8Shape<BT>::smem_bytes, a.pp.units, a);
}

template <int BT> cudaError_t short_sums(FkCuda *cu, const FkFp8Args &a, int epilogue) {
  switch (epilogue) {
  case FK_LINEAR_NONE: return run<BT>(cu, a, linear_fp8_pingpong_sm90_kernel<FK_LINEAR_NONE, BT>);
  case FK_LINEAR_GELU: return run<BT>(cu, a, linear_fp8_pingpong_sm90_kernel<FK_LINEAR_GELU, BT>);
  case FK_LINEAR_GATE: return run<BT>(cu, a, linear_fp8_pingpong_sm90_kernel<FK_LINEAR_GATE, BT>);
  case FK_LINEAR_QKV: return run<BT>(cu, a, linear_fp8_pingpong_sm90_kernel<FK_LINEAR_QKV, BT>);
  case FK_FP8_GELU_CODES: return run<BT>(cu, a, linear_fp8_pingpong_sm90_kernel<FK_FP8_GELU_CODES, BT>);
  case FK_FP8_QKV_CODES: return run<BT>(cu, a, linear_fp8_pingpong_sm90_kernel<FK_FP8_QKV_CODES, BT>);
  default: return cudaErrorNotSupported;
  }
}

template <int BT> cudaError_t long_sums(FkCuda *cu, const FkFp8Args &a, int epilogue) {
  switch (epilogue) {
  case FK_LINEAR_NONE: return run<BT>(cu, a, linear_fp8_sm90_kernel<false, BT>);
  case FK_LINEAR_GATE: return run<BT>(cu, a, linear_fp8_sm90_kernel<true, BT>);
  default: return cudaErrorNotSupported;
  }
}

cudaError_t launch(FkCuda *cu, const FkFp8Args &a, int epilogue, const FkFp8Plan &plan) {
  switch (plan.promoted * 1000 + plan.tokens) {
  case 128: return short_sums<128>(cu, a, epilogue);
  case 160: return short_sums<160>(cu, a, epilogue);
  case 176: return short_sums<176>(cu, a, epilogue);
  case 184: return short_sums<184>(cu, a, epilogue);
  case 1128: return long_sums<128>(cu, a, epilogue);
  case 1160: return long_sums<160>(cu, a, epilogue);
  case 1176: return long_sums<176>(cu, a, epilogue);
  case 1200: return long_sums<200>(cu, a, epilogue);
  default: return cudaErrorInvalidValue;
  }
}

bool aligned(const FkCudaFp8Group &g) {
  const uintptr_t bits = (uintptr_t)g.x | (uintptr_t)g.w | (uintptr_t)g.w_scale | (uintptr_t)g.y | (uintptr_t)g.bias |
                         (uintptr_t)g.gate | (uintptr_t)g.q_norm | (uintptr_t)g.k_norm | (uintptr_t)g.rope;
  return bits % 16 == 0 && g.ldx % 16 == 0 && g.ldy % 8 == 0 && (uintptr_t)g.codes % 4 == 0 && g.ld_codes % 4 == 0;
}

/* The one that leaves codes; -1: there is none. */
int with_codes(FkLinearEpilogue epilogue) {
  return epilogue == FK_LINEAR_GELU ? FK_FP8_GELU_CODES : epilogue == FK_LINEAR_QKV ? FK_FP8_QKV_CODES : -1;
}

} // namespace

/* Fewest cycles in waves of one cluster for each two multiprocessors. A tile costs some tokens more than it has. Bands
 * of about as many token tiles as were fastest, as even as they can be: wider ones read the weights less often, and
 * their activations leave L2. */
FkFp8Plan fk_cuda_linear_fp8_plan(int sms, int groups, const FkCudaFp8Group *g, int n, int k) {
  static const struct {
    int tokens, cost;
  } tiles[2][4] = {{{184, 196}, {176, 188}, {160, 172}, {128, 152}}, {{200, 208}, {176, 184}, {160, 168}, {128, 136}}};
  FkFp8Plan best = {k > FK_FP8_ONCE_K, 0, 0};
  const int wanted = best.promoted ? 11 : 17;
  int least = 0;
  for (int i = 0; i < 4; i++) {
    const int tokens = tiles[best.promoted][i].tokens, clusters = sms / 2;
    int all = 0;
    for (int j = 0; j < groups; j++) all += (g[j].m + tokens - 1) / tokens;
    const int waves = (all * (n / (2 * FK_PP_FEATURES)) + clusters - 1) / clusters;
    const int cost = waves * tiles[best.promoted][i].cost;
    if (best.tokens && cost >= least) continue;
    const int bands = (all + wanted / 2) / wanted;
    best.tokens = tokens, least = cost, best.band = bands > 1 ? (all + bands - 1) / bands : all;
  }
  return best;
}

cudaError_t fk_cuda_linear_fp8(FkCuda *cu, int groups, const FkCudaFp8Group *g, int n, int k, FkLinearEpilogue epilogue,
                               int width, const FkFp8Plan *forced) {
  const FkFp8Plan plan = forced ? *forced : fk_cuda_linear_fp8_plan(cu->sms, groups, g, n, k);
  const int tokens = plan.tokens, half = (tokens + 15) / 16 * 8;
  FkFp8Args a = {};
  a.pp.k_blocks = (k + 127) / 128, a.pp.width = width, a.pp.pairs = n / (2 * FK_PP_FEATURES), a.pp.band = plan.band;
  if (cu->arch != 90 || n % (2 * FK_PP_FEATURES) || k % 16 || (plan.promoted && a.pp.k_blocks < FK_FP8_GROUP))
    return cudaErrorNotSupported;
  for (int i = 0; i < groups; i++) {
    if (!aligned(g[i]) || !g[i].codes != !g[0].codes) return cudaErrorNotSupported;
    a.pp.row_tiles[i] = (g[i].m + tokens - 1) / tokens;
    if (!a.pp.row_tiles[i]) continue;
    FK_CUDA_TRY(map_x(cu, &a.pp.x[i][0], g[i], k, half));
    FK_CUDA_TRY(map_x(cu, &a.pp.x[i][1], g[i], k, tokens - half));
    FK_CUDA_TRY(map_w(cu, &a.pp.w[i], g[i].w, n, k, plan.promoted));
    a.pp.rows[i] = FkLinearRows{g[i].y, g[i].ldy, g[i].bias, g[i].gate, g[i].q_norm, g[i].k_norm, g[i].rope, g[i].m};
    a.x_scale[i] = g[i].x_scale, a.x_given[i] = g[i].x_given, a.w_scale[i] = g[i].w_scale;
    a.codes[i] = FkFp8Codes{g[i].codes, g[i].ld_codes, g[i].codes_scale, g[i].given};
  }
  a.pp.units = (a.pp.row_tiles[0] + a.pp.row_tiles[1]) * a.pp.pairs;
  return a.pp.units ? launch(cu, a, g[0].codes ? with_codes(epilogue) : epilogue, plan) : cudaSuccess;
}
