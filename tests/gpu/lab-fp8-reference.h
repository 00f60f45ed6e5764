/* SPDX-License-Identifier: Apache-2.0 */
/* What lab-fp8.cu compares with: the quantizer in plain C, linear layers in float64 on the device; operands; and the
 * part of the module that launchers use. */
#ifndef FK_LAB_FP8_REFERENCE_H
#define FK_LAB_FP8_REFERENCE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../kernels/linear_fp8.h"
#include "../../kernels/quant.h"

#define TRY(call)                                                                                                      \
  do {                                                                                                                 \
    cudaError_t status_ = (call);                                                                                      \
    if (status_ != cudaSuccess) {                                                                                      \
      printf("FAILED %s:%d %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(status_));                         \
      fflush(stdout);                                                                                                  \
      _exit(2);                                                                                                        \
    }                                                                                                                  \
  } while (0)

/* ---- what the module gives its kernels ----------------------------------------------------------------------------
 */

static FkCuda cu;

static void cu_open(void) {
  cudaDriverEntryPointQueryResult found;
  cu.arch = 90, cu.sms = 132, cu.shared_bytes = 232448;
  TRY(cudaDeviceGetAttribute(&cu.sms, cudaDevAttrMultiProcessorCount, 0));
  TRY(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &cu.encode_map, 12000, cudaEnableDefault, &found));
}

cudaError_t fk_cuda_prepare(FkCuda *, const void *kernel, int shared_bytes) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
}
int fk_cuda_clusters(FkCuda *c, const void *kernel, const cudaLaunchConfig_t *config) {
  for (int i = 0; i < c->kernels; i++)
    if (c->kernel[i].kernel == kernel) return c->kernel[i].clusters;
  int clusters = 0;
  TRY(cudaOccupancyMaxActiveClusters(&clusters, kernel, config));
  c->kernel[c->kernels++] = FkCudaKernel{kernel, 0, clusters};
  return clusters;
}
cudaError_t fk_cuda_decline(FkCuda *, const char *, ...) {
  return cudaErrorNotSupported;
}

/* ---- reference of the quantizer, plain C ------------------------------------------------------------------------- */

static uint8_t ref_code(float x) {
  const uint8_t sign = signbit(x) ? 0x80 : 0;
  float a = fabsf(x);
  if (isnan(x)) return 0x7F;
  if (a >= 448) return sign | 0x7E;
  if (a < 0.015625f) return sign | (uint8_t)nearbyintf(a * 512);
  int e;
  const float m = frexpf(a, &e) * 2; /* 1..2; the value is m 2^(e-1) */
  const int q = (int)nearbyintf(m * 8), code = (e + 6) * 8 + q - 8;
  return sign | (uint8_t)(code > 0x7E ? 0x7E : code);
}

static void ref_group(const float *x, int n, uint8_t *codes, float *scale) {
  float amax = 0;
  for (int i = 0; i < n; i++)
    if (fabsf(x[i]) > amax) amax = fabsf(x[i]);
  const bool none = amax < 0x1p-100f;
  const float inv = none ? 0 : 448.0f / amax;
  *scale = none ? 1 : amax / 448.0f;
  for (int i = 0; i < n; i++) codes[i] = ref_code(x[i] * inv);
}

/* ---- device helpers ---------------------------------------------------------------------------------------------- */

static __device__ uint32_t mixed(uint32_t x) {
  x ^= x >> 16, x *= 0x7feb352du, x ^= x >> 15, x *= 0x846ca68bu;
  return x ^ x >> 16;
}

enum { NORMAL, POSITIVE, GELU, WIDE };

static __device__ float drawn(uint32_t seed, uint32_t i, int kind) {
  const uint32_t a = mixed(i * 2 + seed * 0x9e3779b9u), b = mixed(a + 0x68bc21ebu);
  const float u = ((a >> 8) + 1) * (1.0f / 16777217), v = (b >> 8) * (1.0f / 16777216);
  const float n = sqrtf(-2 * logf(u)) * cosf(6.2831853f * v);
  if (kind == POSITIVE) return fabsf(n) + 0.05f;
  if (kind == GELU) return n * 0.5f * (1 + tanhf(0.79788456f * (n + 0.044715f * n * n * n)));
  if (kind == WIDE) return n * exp2f(40 * v - 20);
  return n;
}

static __global__ void fill_bf16(__nv_bfloat16 *p, int64_t n, uint32_t seed, int kind, float by) {
  const int64_t step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
    p[i] = __float2bfloat16_rn(by * drawn(seed, (uint32_t)i, kind));
}
static __global__ void fill_f32(float *p, int64_t n, uint32_t seed, float by, float about) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) p[i] = about + by * drawn(seed, (uint32_t)i, NORMAL);
}
static __global__ void fill_rope(float2 *p, int rows) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, row = i / 64, pair = i % 64;
  if (row < rows) p[i] = make_float2(cosf(row * exp2f(-pair * 0.2f)), sinf(row * exp2f(-pair * 0.2f)));
}
static __global__ void fill_u16(uint16_t *p, int64_t n, uint16_t v) {
  const int64_t step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) p[i] = v;
}

/* Hash of [m, n] and count of what is not `pad` around it, in [rows, ld]. */
static __global__ void hash_kernel(const uint16_t *y, int64_t ld, int64_t rows, int m, int n, uint16_t pad,
                                   unsigned long long *out) {
  const int64_t step = (int64_t)gridDim.x * blockDim.x;
  unsigned long long h = 0, outside = 0;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < rows * ld; i += step) {
    if (i / ld < m && i % ld < n)
      h += (unsigned long long)mixed((uint32_t)i) * (y[i] * 2654435761ull + mixed(y[i]));
    else
      outside += y[i] != pad;
  }
  atomicAdd(out, h);
  if (outside) atomicAdd(out + 1, outside);
}

static __device__ double decoded(uint8_t c) {
  const int e = c >> 3 & 15, m = c & 7;
  const double v = e ? ldexp(8.0 + m, e - 10) : ldexp((double)m, -9);
  return c & 0x80 ? -v : v;
}

/* Exact: sx sw (sum of codes), for rows[i] x all n; a warp a value. */
static __global__ void ref_sums(double *out, const int *rows, FkCudaFp8Group g, int n, int k) {
  __shared__ float table[256];
  table[threadIdx.x] = (float)decoded((uint8_t)threadIdx.x);
  __syncthreads();
  const int lane = threadIdx.x & 31, col = blockIdx.x * 8 + (threadIdx.x >> 5), row = rows[blockIdx.y];
  const uint8_t *x = g.x + row * g.ldx, *w = g.w + (int64_t)col * k;
  double sum = 0;
  for (int b = 0; b < k; b += 128) {
    double part = 0;
    for (int i = b + lane * 4; i < min(b + 128, k) && i < b + 128; i += 128) {
      const uint32_t p = *(const uint32_t *)(x + i), q = *(const uint32_t *)(w + i);
      for (int j = 0; j < 32; j += 8) part += table[p >> j & 255] * table[q >> j & 255];
    }
    sum += part;
  }
  for (int i = 16; i; i /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, i);
  if (lane == 0) out[(int64_t)blockIdx.y * n + col] = sum * g.w_scale[col] * g.x_scale[row];
}

/* The epilogue in float64, in place; a block a row and 128 columns. old: y before the launch. */
static __global__ void ref_epilogue(double *v, const int *rows, FkCudaFp8Group g, const __nv_bfloat16 *old, int n,
                                    int epilogue, int width) {
  __shared__ double head[128];
  const int t = threadIdx.x, col = blockIdx.x * 128 + t, row = rows[blockIdx.y];
  double x = v[(int64_t)blockIdx.y * n + col] + (g.bias ? g.bias[col] : 0.0f);
  const int part = epilogue == FK_LINEAR_QKV ? col / width : -1;
  if (epilogue == FK_LINEAR_GELU || part >= 3) x = x / (1 + exp(-2 * 0.7978845608028654 * (x + 0.044715 * x * x * x)));
  if (epilogue == FK_LINEAR_GATE)
    x = (double)__bfloat162float(old[row * g.ldy + col]) + (g.gate ? g.gate[col] : 1.0f) * x;
  if (part == 0 || part == 2) {
    head[t] = x;
    __syncthreads();
    double s = 0;
    for (int i = 0; i < 128; i++) s += head[i] * head[i];
    const double scale = 1 / sqrt(s / 128 + 1e-6);
    const float *w = part ? g.q_norm : g.k_norm;
    const double a = head[t & ~1] * scale * w[t & ~1], b = head[t | 1] * scale * w[t | 1];
    const float2 cs = g.rope[row * (int64_t)64 + t / 2];
    x = t & 1 ? b * cs.x + a * cs.y : a * cs.x - b * cs.y;
  }
  v[(int64_t)blockIdx.y * n + col] = x;
}

static __global__ void take_rows(double *out, const int *rows, const __nv_bfloat16 *y, int64_t ld, int n) {
  const int col = blockIdx.x * 128 + threadIdx.x;
  out[(int64_t)blockIdx.y * n + col] = (double)__bfloat162float(y[rows[blockIdx.y] * ld + col]);
}

static void *device(size_t bytes) {
  void *p = NULL;
  TRY(cudaMalloc(&p, bytes + 4096));
  return p;
}

static void fill(__nv_bfloat16 *p, int64_t n, uint32_t seed, int kind, float by) {
  fill_bf16<<<2048, 256>>>(p, n, seed, kind, by);
}
static void fill(float *p, int64_t n, uint32_t seed, float by, float about) {
  fill_f32<<<(unsigned)((n + 255) / 256), 256>>>(p, n, seed, by, about);
}

typedef struct {
  const char *name;
  int m[2], n, k;
  FkLinearEpilogue epilogue;
  int width;
} Case;

/* ---- operands of a case ------------------------------------------------------------------------------------------ */

enum { ROWS = 8704, SAMPLED = 56 };

/* One set for all cases, sized for the largest. */
typedef struct {
  __nv_bfloat16 *x, *y, *old; /* x: [8704, 15360]; y, old: [8704 + 64, 21504 + 64] */
  __nv_bfloat16 *w;           /* [21504, 3072] or as many elements */
  uint8_t *xq, *wq[2];
  float *sx, *sw[2], *vectors; /* sx: [8704] */
  float2 *rope;
  double *ref, *got;
  int *rows;
  unsigned long long *sums;
} Pool;

static const int64_t kW = (int64_t)21504 * 3072, kY = (int64_t)(ROWS + 64) * (21504 + 64);

static void pool_make(Pool *p) {
  p->x = (__nv_bfloat16 *)device((size_t)ROWS * 15360 * 2);
  p->y = (__nv_bfloat16 *)device(kY * 2), p->old = (__nv_bfloat16 *)device(kY * 2);
  p->w = (__nv_bfloat16 *)device(kW * 2);
  p->xq = (uint8_t *)device((size_t)ROWS * 15360);
  p->sx = (float *)device(ROWS * 4);
  for (int i = 0; i < 2; i++) p->wq[i] = (uint8_t *)device(kW), p->sw[i] = (float *)device(21504 * 4);
  p->vectors = (float *)device(8 * 21504 * 4);
  p->rope = (float2 *)device((size_t)ROWS * 64 * 8);
  p->ref = (double *)device((size_t)2 * SAMPLED * 21504 * 8), p->got = (double *)device((size_t)SAMPLED * 21504 * 8);
  p->rows = (int *)device(2 * SAMPLED * 4);
  p->sums = (unsigned long long *)device(64);
  fill(p->vectors, 2 * 21504, 1, 0.3f, 0);                /* bias */
  fill(p->vectors + 2 * 21504, 2 * 21504, 2, 0.3f, 0.1f); /* gate */
  fill(p->vectors + 4 * 21504, 4 * 128, 3, 0.2f, 1);      /* norm weights */
  fill_rope<<<(ROWS * 64 + 255) / 256, 256>>>(p->rope, ROWS);
}

/* First row of the second group: its scales start at a multiple of 16 bytes, so the first group's rows may be followed
 * by unused ones. */
static int second_row(const Case *c) {
  return (c->m[0] + 7) / 8 * 8;
}

/* Groups of a case, with 64 columns beside y that nobody may write. */
static void groups_of(const Pool *p, const Case *c, FkCudaFp8Group *g) {
  for (int i = 0; i < 2; i++) {
    const int64_t first = i ? second_row(c) : 0;
    g[i] = FkCudaFp8Group{};
    g[i].x = p->xq + first * c->k, g[i].ldx = c->k;
    g[i].x_scale = p->sx + first;
    g[i].w = p->wq[i], g[i].w_scale = p->sw[i];
    g[i].bias = p->vectors + i * 21504, g[i].gate = p->vectors + (2 + i) * 21504;
    g[i].q_norm = p->vectors + 4 * 21504 + i * 256, g[i].k_norm = g[i].q_norm + 128;
    g[i].rope = p->rope + first * 64;
    g[i].ldy = c->n + 64, g[i].y = p->y + first * g[i].ldy;
    g[i].m = c->m[i];
  }
}

static void operands(const Pool *p, const Case *c, int x_kind, int w_kind, float by) {
  const int64_t rows = c->m[1] ? second_row(c) + c->m[1] : c->m[0];
  fill(p->x, rows * c->k, 10, x_kind, 1);
  FkQuantRows q = {p->x, c->k, p->xq, c->k, p->sx, rows};
  TRY(fk_cuda_quant_rows(0, &q, c->k));
  for (int i = 0; i < 2; i++) {
    fill(p->w, (int64_t)c->n * c->k, 20 + i, w_kind, by);
    FkQuantRows wq = {p->w, c->k, p->wq[i], c->k, p->sw[i], c->n};
    TRY(fk_cuda_quant_rows(0, &wq, c->k));
  }
}

#endif
