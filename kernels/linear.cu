/* SPDX-License-Identifier: Apache-2.0 */
/* Launch side of the linear layer: from the op line's description to the path and the tile for a shape (static,
 * offline), the tensor maps and the launch. Kernels: linear_pingpong_sm90.cuh (many rows), linear_sm90.cuh (few rows),
 * linear_fp8.cu (products of codes), linear_weight_codes.cu (numbers and codes), linear_any.cuh. A row's bytes depend
 * on neither the number of rows, nor the other group, nor the tile chosen. */
#include "common.cuh"
#include "linear.h"
#include "linear_any.cuh"
#include "linear_fp8.h"
#include "linear_pingpong_sm90.cuh"
#include "linear_sm90.cuh"
#include "tensormap.cuh"

namespace {

/* One launch: up to two groups of rows, n columns, k inner elements. width: D of the QKV epilogue. */
struct Problem {
  FkCudaLinearGroup g[FK_MAX_GROUPS];
  int groups, rows; /* rows: of the larger group */
  int n, k, width;
  FkLinearEpilogue epilogue;
  bool y_f32;
};

/* A row of a box is 128 bytes: L2 fetches no more than that (256: 6 to 8 % more bytes through L2). */
cudaError_t map_of(const FkCuda *cu, CUtensorMap *map, const void *base, int rank, const cuuint64_t *dims,
                   const cuuint64_t *strides, const cuuint32_t *box) {
  return fk_tensor_map(cu, map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, base, rank, dims, strides, box,
                       CU_TENSOR_MAP_L2_PROMOTION_L2_128B);
}

/* rows: of one copy. x, or W in its own order. */
cudaError_t plain_map(const FkCuda *cu, CUtensorMap *map, const void *base, int64_t ld, int k, int m, int rows) {
  const cuuint64_t dims[2] = {(cuuint64_t)k, (cuuint64_t)m}, strides[1] = {(cuuint64_t)ld * 2};
  const cuuint32_t box[2] = {FK_LINEAR_BK, (cuuint32_t)rows};
  return map_of(cu, map, base, 2, dims, strides, box);
}

/* Axes k, g, h, w, s of weight row 32w + 4g + 2s + h (linear_pingpong_sm90.cuh). */
cudaError_t paired_map(const FkCuda *cu, CUtensorMap *map, const void *base, int n, int k) {
  const cuuint64_t ld = (cuuint64_t)k * 2;
  const cuuint64_t dims[5] = {(cuuint64_t)k, 8, 2, (cuuint64_t)n / 32, 2};
  const cuuint64_t strides[4] = {4 * ld, ld, 32 * ld, 2 * ld};
  const cuuint32_t box[5] = {FK_PP_BK, 8, 2, 4, 2};
  return map_of(cu, map, base, 5, dims, strides, box);
}

FkLinearRows rows_of(const FkCudaLinearGroup &g) {
  return FkLinearRows{g.y, g.ldy, g.bias, g.gate, g.q_norm, g.k_norm, g.rope, g.m};
}

/* ---- many rows -------------------------------------------------------------------------------------------------- */

template <int Epi, int BT> cudaError_t many_run(FkCuda *cu, const FkPpArgs &a) {
  return fk_cuda_launch_pairs(cu, linear_pingpong_sm90_kernel<Epi, BT>, 384, FkPpShape<BT>::smem_bytes, a.units, a);
}

template <int BT> cudaError_t many(FkCuda *cu, const Problem &p) {
  FkPpArgs a = {};
  constexpr int half = FkPpShape<BT>::half;
  a.k_blocks = (p.k + FK_PP_BK - 1) / FK_PP_BK, a.width = p.width, a.pairs = p.n / (2 * FK_PP_FEATURES);
  a.band = 11; /* x 6 pairs at once on 132 processors: as square as 66 units of 160 x 256 can be */
  for (int i = 0; i < p.groups; i++) {
    const FkCudaLinearGroup &g = p.g[i];
    a.row_tiles[i] = (g.m + BT - 1) / BT;
    if (!a.row_tiles[i]) continue;
    FK_CUDA_TRY(plain_map(cu, &a.x[i][0], g.x, g.ldx, p.k, g.m, half));
    FK_CUDA_TRY(plain_map(cu, &a.x[i][1], g.x, g.ldx, p.k, g.m, BT - half));
    FK_CUDA_TRY(paired_map(cu, &a.w[i], g.w, p.n, p.k));
    a.rows[i] = rows_of(g);
  }
  a.units = (a.row_tiles[0] + a.row_tiles[1]) * a.pairs;
  switch (p.epilogue) {
  case FK_LINEAR_NONE: return many_run<FK_LINEAR_NONE, BT>(cu, a);
  case FK_LINEAR_SILU: return many_run<FK_LINEAR_SILU, BT>(cu, a);
  case FK_LINEAR_GELU: return many_run<FK_LINEAR_GELU, BT>(cu, a);
  case FK_LINEAR_QUICK_GELU: return many_run<FK_LINEAR_QUICK_GELU, BT>(cu, a);
  case FK_LINEAR_GATE: return many_run<FK_LINEAR_GATE, BT>(cu, a);
  case FK_LINEAR_QKV: return many_run<FK_LINEAR_QKV, BT>(cu, a);
  }
  return cudaErrorInvalidValue;
}

/* Tokens of a tile: fewest cycles in waves of one cluster for each two multiprocessors, whether or not the device runs
 * so many at once: the choice follows from the shape and the device alone. A tile costs about twelve tokens more than
 * it has; one of 128 as much as one of 140, because its operands then come slower than it multiplies. At 8704 rows 160
 * fills 55 x 24 of 10 x 132 tiles of 3072 columns; 512 + 8192 rows get 176 or 184. */
int many_tokens(const FkCuda *cu, const Problem &p) {
  constexpr int tokens[4] = {184, 176, 160, 128}, costs[4] = {196, 188, 172, 152};
  const int clusters = cu->sms / 2;
  int best = 0, least = 0;
  for (int i = 0; i < 4; i++) {
    int tiles = 0;
    for (int j = 0; j < p.groups; j++) tiles += (p.g[j].m + tokens[i] - 1) / tokens[i];
    const int waves = (tiles * (p.n / (2 * FK_PP_FEATURES)) + clusters - 1) / clusters;
    if (!best || waves * costs[i] < least) best = tokens[i], least = waves * costs[i];
  }
  return best;
}

cudaError_t launch_many(FkCuda *cu, const Problem &p) {
  switch (many_tokens(cu, p)) {
  case 128: return many<128>(cu, p);
  case 160: return many<160>(cu, p);
  case 176: return many<176>(cu, p);
  default: return many<184>(cu, p);
  }
}

/* ---- few rows --------------------------------------------------------------------------------------------------- */

template <int Epi, int BN, bool F32> cudaError_t few_run(FkCuda *cu, const FkLinearArgs &a) {
  constexpr int smem = FkLinearShape<BN>::smem_bytes;
  auto kernel = linear_few_sm90_kernel<Epi, BN, F32>;
  FK_CUDA_TRY(fk_cuda_prepare(cu, (const void *)kernel, smem));
  kernel<<<min(cu->sms, a.units), 256, smem, cu->stream>>>(a);
  return cudaGetLastError();
}

template <int BN, bool F32> cudaError_t few(FkCuda *cu, const FkLinearArgs &a, FkLinearEpilogue epilogue) {
  switch (epilogue) {
  case FK_LINEAR_NONE: return few_run<FK_LINEAR_NONE, BN, F32>(cu, a);
  case FK_LINEAR_SILU: return few_run<FK_LINEAR_SILU, BN, F32>(cu, a);
  case FK_LINEAR_GELU: return few_run<FK_LINEAR_GELU, BN, F32>(cu, a);
  case FK_LINEAR_QUICK_GELU: return few_run<FK_LINEAR_QUICK_GELU, BN, F32>(cu, a);
  default: break;
  }
  if constexpr (!F32) {
    if (epilogue == FK_LINEAR_GATE) return few_run<FK_LINEAR_GATE, BN, F32>(cu, a);
    if (epilogue == FK_LINEAR_QKV) return few_run<FK_LINEAR_QKV, BN, F32>(cu, a);
  }
  return cudaErrorNotSupported;
}

/* Bound by reading the weights once, so columns are dealt out evenly over the machine. */
cudaError_t launch_few(FkCuda *cu, const Problem &p) {
  FkLinearArgs a = {};
  int64_t columns = 0;
  for (int i = 0; i < p.groups; i++) {
    a.row_tiles[i] = (p.g[i].m + FK_LINEAR_ROWS - 1) / FK_LINEAR_ROWS;
    columns += (int64_t)p.n * a.row_tiles[i];
  }
  const int64_t sms = cu->sms, waves = (columns + sms * 256 - 1) / (sms * 256);
  a.step = (int)((columns + sms * waves - 1) / (sms * waves) + 7) / 8 * 8;
  if (p.epilogue == FK_LINEAR_QKV) a.step = (a.step + 127) / 128 * 128;
  a.n = p.n, a.k_blocks = (p.k + FK_LINEAR_BK - 1) / FK_LINEAR_BK, a.width = p.width;
  a.n_tiles = (p.n + a.step - 1) / a.step;
  a.units = (a.row_tiles[0] + a.row_tiles[1]) * a.n_tiles;
  for (int i = 0; i < p.groups; i++) {
    const FkCudaLinearGroup &g = p.g[i];
    if (!a.row_tiles[i]) continue;
    FK_CUDA_TRY(plain_map(cu, &a.x[i], g.x, g.ldx, p.k, g.m, FK_LINEAR_ROWS));
    FK_CUDA_TRY(plain_map(cu, &a.w[i], g.w, p.k, p.k, p.n, a.step));
    a.rows[i] = rows_of(g);
  }
  if (p.y_f32) return a.step > 128 ? few<256, true>(cu, a, p.epilogue) : few<128, true>(cu, a, p.epilogue);
  return a.step > 128 ? few<256, false>(cu, a, p.epilogue) : few<128, false>(cu, a, p.epilogue);
}

/* ---- all -------------------------------------------------------------------------------------------------------- */

FkAnyArgs any_args(const Problem &p, const FkLinear *l) {
  FkAnyArgs a = {};
  for (int i = 0; i < p.groups; i++) {
    a.g[i] = p.g[i];
    a.x_scale[i] = (const float *)l[i].x_scale.data, a.w_scale[i] = (const float *)l[i].w.scale.data;
    a.w_step[i] = l[i].w.scale.kind == FK_SCALE_ROW;
  }
  a.n = p.n, a.k = p.k, a.epilogue = p.epilogue, a.y_f32 = p.y_f32;
  return a;
}

/* T: of x and W, bf16 or codes. */
template <class T> cudaError_t launch_any(FkCuda *cu, const Problem &p, const FkLinear *l) {
  const FkAnyArgs a = any_args(p, l);
  if (p.epilogue == FK_LINEAR_QKV) return cudaErrorNotSupported;
  const dim3 grid((p.n + FK_ANY_TILE - 1) / FK_ANY_TILE, (p.rows + FK_ANY_TILE - 1) / FK_ANY_TILE, p.groups);
  linear_any_kernel<T><<<grid, 128, 0, cu->stream>>>(a);
  return cudaGetLastError();
}

/* Codes: the Hopper kernels where they have the case, which follows from N, K, epilogue and alignment alone. No other
 * leaves its result as codes. */
cudaError_t launch_codes(FkCuda *cu, const Problem &p, const FkLinear *l) {
  FkCudaFp8Group g[FK_MAX_GROUPS] = {};
  bool fast = !p.y_f32;
  for (int i = 0; i < p.groups; i++) {
    const FkCudaLinearGroup &from = p.g[i];
    g[i] = FkCudaFp8Group{(const uint8_t *)from.x,
                          from.ldx,
                          (const float *)l[i].x_scale.data,
                          l[i].w.x_scale,
                          (const uint8_t *)from.w,
                          (const float *)l[i].w.scale.data,
                          from.bias,
                          (__nv_bfloat16 *)from.y,
                          from.ldy,
                          from.gate,
                          from.q_norm,
                          from.k_norm,
                          from.rope,
                          from.m};
    fast = fast && l[i].w.scale.kind == FK_SCALE_ROW;
    if (!fk_tensor_given(l[i].y_codes)) continue;
    fast = fast && l[i].given > 0 && l[i].y_scale.rank == 1;
    g[i].codes = (uint8_t *)l[i].y_codes.data, g[i].ld_codes = l[i].y_codes.ld;
    g[i].codes_scale = (float *)l[i].y_scale.data, g[i].given = fk_cuda_given(cu, l[i].given);
  }
  const cudaError_t status =
      fast ? fk_cuda_linear_fp8(cu, p.groups, g, p.n, p.k, p.epilogue, p.width) : cudaErrorNotSupported;
  return status == cudaErrorNotSupported && !g[0].codes ? launch_any<uint8_t>(cu, p, l) : status;
}

/* What the tensor maps and the 16-byte accesses of the Hopper kernels ask for. */
bool aligned(const Problem &p, const FkCudaLinearGroup &g) {
  const uintptr_t bits = (uintptr_t)g.x | (uintptr_t)g.w | (uintptr_t)g.y | (uintptr_t)g.bias | (uintptr_t)g.gate |
                         (uintptr_t)g.q_norm | (uintptr_t)g.k_norm | (uintptr_t)g.rope;
  return bits % 16 == 0 && g.ldx % 8 == 0 && g.ldy % (p.y_f32 ? 4 : 8) == 0 && p.n % 8 == 0 && p.k % 8 == 0;
}

FkLinearEpilogue epilogue_of(const FkLinear *l) {
  switch (l->epilogue) {
  case FK_EPI_GATE:
  case FK_EPI_ADD: return FK_LINEAR_GATE;
  case FK_EPI_QKV: return FK_LINEAR_QKV;
  default: break;
  }
  switch (l->act) {
  case FK_ACT_SILU: return FK_LINEAR_SILU;
  case FK_ACT_GELU_TANH: return FK_LINEAR_GELU;
  case FK_ACT_QUICK_GELU: return FK_LINEAR_QUICK_GELU;
  default: return FK_LINEAR_NONE;
  }
}

/* bf16 in, weights without scales or E4M3 codes; or E4M3 codes in, with a scale for each row. Codes of W have a scale
 * for each row or one in all. bf16 or float32 out. The fused norm and rotation know heads of 128 and a table without
 * holes. */
bool takes(const FkLinear *l, FkDtype x, FkDtype w, FkDtype y) {
  const FkScale *s = &l->w.scale;
  const bool codes = s->dtype == FK_F32 && (s->kind == FK_SCALE_ROW || s->kind == FK_SCALE_TENSOR);
  const bool scales = w == FK_BF16 ? s->kind == FK_SCALE_NONE : codes && (x == FK_BF16 || l->x_scale.rank == 1);
  const bool pair = (x == FK_BF16 && (w == FK_BF16 || w == FK_E4M3)) || (x == FK_E4M3 && w == FK_E4M3);
  const bool types = pair && l->x.dtype == x && l->w.dtype == w && l->y.dtype == y && (y == FK_BF16 || y == FK_F32);
  return types && scales && (l->epilogue != FK_EPI_QKV || (l->q_norm.dim[0] == 128 && l->rope.ld == 128));
}

FkCudaLinearGroup group_of(const FkLinear *l) {
  FkCudaLinearGroup g = {};
  g.x = (const __nv_bfloat16 *)l->x.data, g.ldx = l->x.ld;
  g.w = (const __nv_bfloat16 *)l->w.data;
  g.bias = (const float *)l->bias.data;
  g.y = l->y.data, g.ldy = l->y.ld;
  g.gate = l->epilogue == FK_EPI_GATE ? (const float *)l->gate.data : NULL;
  g.q_norm = (const float *)l->q_norm.data, g.k_norm = (const float *)l->k_norm.data;
  g.rope = (const float2 *)l->rope.data;
  g.m = (int)fk_tensor_rows(l->x);
  return g;
}

} // namespace

cudaError_t fk_cuda_linear(FkCuda *cu, const FkLinear *l, int groups) {
  Problem p = {.groups = groups, .n = (int)l->w.out, .k = (int)l->w.in, .width = (int)l->width};
  p.epilogue = epilogue_of(l), p.y_f32 = l->y.dtype == FK_F32;
  bool fast = cu->arch == 90 && !(p.y_f32 && p.epilogue == FK_LINEAR_GATE);
  if (fk_tensor_given(l->y_codes) && (l->x.dtype != FK_E4M3 || l->y.dtype != FK_BF16)) return cudaErrorNotSupported;
  for (int i = 0; i < groups; i++) {
    if (!takes(&l[i], l->x.dtype, l->w.dtype, l->y.dtype))
      return fk_cuda_decline(cu, "no kernel for x of type %d, weights of type %d (scales %d), y of type %d",
                             l[i].x.dtype, l[i].w.dtype, l[i].w.scale.kind, l[i].y.dtype);
    p.g[i] = group_of(&l[i]);
    p.rows = max(p.rows, p.g[i].m);
    fast = fast && aligned(p, p.g[i]);
  }
  if (p.rows == 0 || p.n == 0) return cudaSuccess;
  if (l->x.dtype == FK_E4M3) return launch_codes(cu, p, l);
  if (l->w.dtype == FK_E4M3) {
    const FkAnyArgs a = any_args(p, l);
    return fk_cuda_linear_weight_codes(cu, &a, groups);
  }
  if (!fast) return launch_any<__nv_bfloat16>(cu, p, l);
  const bool wide = p.rows > 128 && !p.y_f32 && p.n % (2 * FK_PP_FEATURES) == 0;
  const cudaError_t status = wide ? launch_many(cu, p) : cudaErrorNotSupported;
  return status == cudaErrorNotSupported ? launch_few(cu, p) : status;
}
