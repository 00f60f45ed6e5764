/* SPDX-License-Identifier: Apache-2.0 */
/* Lab of the e4m3 linear layers: checks the quantizers bit by bit against plain C and every kernel against float64 sums
 * of its codes, then times the six shapes of FLUX.1 beside cuBLASLt and the linear layers of a step in a row.
 *
 *     nvcc -std=c++20 -O3 -gencode arch=compute_90a,code=sm_90a -DFK_FP8_LAB -DFK_WAIT_TRAP -o lab-fp8 \
 *         tests/gpu/lab-fp8.cu kernels/linear_fp8.cu kernels/quant.cu -ldl
 *     ./lab-fp8 [quant] [check] [time] [few] [mix]      nothing named: all
 *
 * Every part runs in a process of its own with a limit of seconds, so a hang or a trap of one is a line of the table.
 * What fails its check is not timed. */
#include <cublasLt.h>
#include <dlfcn.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../kernels/linear_fp8.h"
#include "../../kernels/norm.cu"
#include "../../kernels/quant.h"

FkCuda *fk_cuda_enter(FkBackend *be) {
  return (FkCuda *)be->priv;
}
void fk_cuda_fail(FkBackend *, FkFailure, const char *, ...) {}
bool fk_cuda_ok(FkBackend *, const char *, cudaError_t status) {
  return status == cudaSuccess;
}

#define TRY(call)                                                                                                      \
  do {                                                                                                                 \
    cudaError_t status_ = (call);                                                                                      \
    if (status_ != cudaSuccess) {                                                                                      \
      printf("FAILED %s:%d %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(status_));                         \
      fflush(stdout);                                                                                                  \
      _exit(2);                                                                                                        \
    }                                                                                                                  \
  } while (0)

/* ---- what is tried ---------------------------------------------------------------------------------------------- */

enum { VARIANTS = 9, CASES = 12, SHAPES = 6 };

typedef struct {
  const char *name;
  FkFp8Choice choice;
} Variant;

static const Variant variants[VARIANTS] = {
    {"row 200", {FK_FP8_ROW, 200, 0}},     {"once 200", {FK_FP8_ONCE, 200, 0}},   {"block 200", {FK_FP8_BLOCK, 200, 0}},
    {"row 176", {FK_FP8_ROW, 176, 0}},     {"row 160", {FK_FP8_ROW, 160, 0}},     {"row 128", {FK_FP8_ROW, 128, 0}},
    {"block 176", {FK_FP8_BLOCK, 176, 0}}, {"block 160", {FK_FP8_BLOCK, 160, 0}}, {"block 128", {FK_FP8_BLOCK, 128, 0}},
};

typedef struct {
  const char *name;
  int m[2], n, k, epilogue, width;
} Case;

static const Case cases[CASES] = {
    {"1 row", {1, 0}, 512, 512, FK_LINEAR_NONE, 0},
    {"7 rows, gelu", {7, 0}, 512, 3072, FK_LINEAR_GELU, 0},
    {"129 rows, K 400", {129, 0}, 768, 400, FK_LINEAR_NONE, 0},
    {"129 rows, gate", {129, 0}, 768, 1024, FK_LINEAR_GATE, 0},
    {"129 + 7, heads", {129, 7}, 1280, 640, FK_LINEAR_QKV, 256},
    {"2560 rows", {2560, 0}, 3072, 3072, FK_LINEAR_NONE, 0},
    {"qkv", {512, 8192}, 9216, 3072, FK_LINEAR_QKV, 3072},
    {"out", {512, 8192}, 3072, 3072, FK_LINEAR_GATE, 0},
    {"up", {512, 8192}, 12288, 3072, FK_LINEAR_GELU, 0},
    {"down", {512, 8192}, 3072, 12288, FK_LINEAR_GATE, 0},
    {"single in", {8704, 0}, 21504, 3072, FK_LINEAR_QKV, 3072},
    {"single out", {8704, 0}, 3072, 15360, FK_LINEAR_GATE, 0},
};
static const Case *const shapes = cases + 6;
static const int shape_count[SHAPES] = {19, 19, 19, 19, 38, 38}; /* in a step */

/* Shared among the processes. */
typedef struct {
  int quant_ok, ok[VARIANTS];
  unsigned long long hash[VARIANTS][CASES]; /* of the whole result, 0: not run */
} Board;
static Board *board;

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
  for (int i = 0; i < n; i++) codes[i] = none && !isnan(x[i]) ? 0 : ref_code(x[i] * inv);
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

/* Exact: sw (sum over blocks of sx sum of codes), for rows[i] x all n; a warp a value. */
static __global__ void ref_sums(double *out, const int *rows, FkCudaFp8Group g, int n, int k, int block) {
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
    sum += part * (block ? g.x_scale[b / 128 * g.ld_scale + row] : 1.0);
  }
  for (int i = 16; i; i /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, i);
  if (lane == 0) out[(int64_t)blockIdx.y * n + col] = sum * g.w_scale[col] * (block ? 1.0 : g.x_scale[row]);
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

/* y = -bf16(ref) in the sampled rows, so that a launch with GATE leaves the product's error. */
static __global__ void put_rows(const double *ref, const int *rows, __nv_bfloat16 *y, int64_t ld, int n) {
  const int col = blockIdx.x * 128 + threadIdx.x;
  y[rows[blockIdx.y] * ld + col] = __float2bfloat16_rn(-(float)ref[(int64_t)blockIdx.y * n + col]);
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

/* ---- operands of a case ------------------------------------------------------------------------------------------ */

enum { ROWS = 8704, SAMPLED = 56 };

/* One set for all cases, sized for the largest. */
typedef struct {
  __nv_bfloat16 *x, *y, *old; /* x: [8704, 15360]; y, old: [8704 + 64, 21504 + 64] */
  __nv_bfloat16 *w;           /* [21504, 3072] or as many elements */
  uint8_t *xq, *wq[2];
  float *sx, *sw[2], *vectors; /* sx: [120, 8704] */
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
  p->sx = (float *)device((size_t)120 * ROWS * 4);
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
    g[i].x_scale = p->sx + first, g[i].ld_scale = ROWS;
    g[i].w = p->wq[i], g[i].w_scale = p->sw[i];
    g[i].bias = p->vectors + i * 21504, g[i].gate = p->vectors + (2 + i) * 21504;
    g[i].q_norm = p->vectors + 4 * 21504 + i * 256, g[i].k_norm = g[i].q_norm + 128;
    g[i].rope = p->rope + first * 64;
    g[i].ldy = c->n + 64, g[i].y = p->y + first * g[i].ldy;
    g[i].m = c->m[i];
  }
}

static void operands(const Pool *p, const Case *c, FkFp8Sum sum, int x_kind, int w_kind, float by) {
  const int64_t rows = c->m[1] ? second_row(c) + c->m[1] : c->m[0];
  fill(p->x, rows * c->k, 10, x_kind, 1);
  FkQuantRows q = {p->x, c->k, p->xq, c->k, p->sx, ROWS, rows};
  TRY(sum == FK_FP8_BLOCK ? fk_cuda_quant_blocks(0, &q, c->k) : fk_cuda_quant_rows(0, &q, c->k));
  for (int i = 0; i < 2; i++) {
    fill(p->w, (int64_t)c->n * c->k, 20 + i, w_kind, by);
    FkQuantRows wq = {p->w, c->k, p->wq[i], c->k, p->sw[i], 0, c->n};
    TRY(fk_cuda_quant_rows(0, &wq, c->k));
  }
}

/* ---- checks of the linear kernels -------------------------------------------------------------------------------- */

static int sample(int m, int *rows) {
  static const int edges[] = {0,   1,   6,   7,   8,   103, 104, 127, 128,  159,
                              160, 175, 176, 199, 200, 201, 399, 400, 4095, 8191};
  int n = 0;
  for (unsigned i = 0; i < sizeof edges / sizeof *edges; i++)
    if (edges[i] < m) rows[n++] = edges[i];
  for (int i = 1; i <= 9 && m - i > 0; i++) rows[n++] = m - i;
  for (uint32_t i = 1; n < SAMPLED; i++) rows[n++] = (int)((i * 2654435761u >> 4) % (uint32_t)m);
  return n;
}

typedef struct {
  double error, gain, worst; /* relative L2, shrinking, largest error over its allowance */
} Errors;

static Errors compare(const double *ref, const double *got, int n, double loose) {
  double d2 = 0, r2 = 0, gr = 0, worst = 0;
  for (int i = 0; i < SAMPLED; i++) {
    double rms = 0;
    for (int j = 0; j < n; j++) rms += ref[(size_t)i * n + j] * ref[(size_t)i * n + j];
    rms = sqrt(rms / n);
    for (int j = 0; j < n; j++) {
      const double r = ref[(size_t)i * n + j], v = got[(size_t)i * n + j], d = v - r;
      const double over = fabs(d) / (fabs(r) / 200 + loose * rms);
      d2 += d * d, r2 += r * r, gr += v * r;
      if (!(over <= worst)) worst = over;
    }
  }
  return Errors{sqrt(d2 / r2), gr / r2 - 1, worst};
}

static double *host_rows(const double *p, int n) {
  double *h = (double *)malloc((size_t)SAMPLED * n * 8);
  TRY(cudaMemcpy(h, p, (size_t)SAMPLED * n * 8, cudaMemcpyDeviceToHost));
  return h;
}

/* Sets y as before a launch: `old` inside, a NaN outside. */
static void reset_y(const Pool *p, const Case *c, const FkCudaFp8Group *g) {
  fill_u16<<<2048, 256>>>((uint16_t *)p->y, kY, 0x7fc1);
  for (int i = 0; i < 2; i++)
    if (g[i].m)
      TRY(cudaMemcpy2D(g[i].y, g[i].ldy * 2, p->old + (g[i].y - p->y), g[i].ldy * 2, (size_t)c->n * 2, g[i].m,
                       cudaMemcpyDeviceToDevice));
}

/* True if rows around stayed as they were; the hash of the result. */
static bool untouched(const Pool *p, const Case *c, const FkCudaFp8Group *g, unsigned long long *hash) {
  unsigned long long h[2], sum = 0, outside = 0;
  for (int i = 0; i < 2; i++) {
    if (!g[i].m) continue;
    const int64_t rows = i ? g[i].m + 16 : c->m[1] ? second_row(c) : g[i].m + 16;
    TRY(cudaMemset(p->sums, 0, 16));
    hash_kernel<<<1024, 256>>>((const uint16_t *)g[i].y, g[i].ldy, rows, g[i].m, c->n, 0x7fc1, p->sums);
    TRY(cudaMemcpy(h, p->sums, 16, cudaMemcpyDeviceToHost));
    sum = sum * 31 + h[0], outside += h[1];
  }
  *hash = sum | 1;
  if (outside) printf("      %llu elements outside were written\n", outside);
  return outside == 0;
}

static FkFp8State state;

static bool check_case(const Pool *p, int v, int at) {
  const Case *c = &cases[at];
  const FkFp8Choice choice = variants[v].choice;
  FkCudaFp8Group g[2];
  int rows[SAMPLED];
  bool ok = true;
  unsigned long long hash = 0, again = 0;
  if (choice.sum == FK_FP8_BLOCK && (c->epilogue == FK_LINEAR_GELU || c->epilogue == FK_LINEAR_QKV || c->k % 128))
    return true;
  operands(p, c, choice.sum, c->k > 4096 ? GELU : NORMAL, NORMAL, 0.02f);
  groups_of(p, c, g);
  const int groups = c->m[1] ? 2 : 1;
  for (int run = 0; run < 3; run++) { /* the same bytes each time */
    reset_y(p, c, g);
    TRY(fk_cuda_linear_fp8(&state, 0, groups, g, c->n, c->k, c->epilogue, c->width, choice));
    TRY(cudaDeviceSynchronize());
    ok = untouched(p, c, g, run ? &again : &hash) && ok;
    if (run && again != hash) printf("      run %d has other bytes\n", run), ok = false;
  }
  for (int i = 0; i < groups; i++) {
    sample(g[i].m, rows);
    TRY(cudaMemcpy(p->rows, rows, sizeof rows, cudaMemcpyHostToDevice));
    ref_sums<<<dim3(c->n / 8, SAMPLED), 256>>>(p->ref, p->rows, g[i], c->n, c->k, choice.sum == FK_FP8_BLOCK);
    ref_epilogue<<<dim3(c->n / 128, SAMPLED), 128>>>(p->ref, p->rows, g[i], p->old + (g[i].y - p->y), c->n, c->epilogue,
                                                     c->width);
    take_rows<<<dim3(c->n / 128, SAMPLED), 128>>>(p->got, p->rows, g[i].y, g[i].ldy, c->n);
    TRY(cudaDeviceSynchronize());
    double *ref = host_rows(p->ref, c->n), *got = host_rows(p->got, c->n);
    const Errors e = compare(ref, got, c->n, choice.sum == FK_FP8_ONCE ? 0.05 : 0.005);
    const bool good = e.error < (choice.sum == FK_FP8_ONCE ? 0.01 : 0.004) && e.worst < 1;
    printf("  %-10s %-16s group %d: error %.3f %%  gain %+.4f %%  worst %.2f of allowed  %s\n", variants[v].name,
           c->name, i, e.error * 100, e.gain * 100, e.worst, good ? "ok" : "FAILED");
    ok = ok && good;
    free(ref), free(got);
  }
  board->hash[v][at] = hash;
  return ok;
}

/* The product alone against exact sums, without the rounding to bf16: y starts at -bf16(ref). */
static bool check_sums(const Pool *p, int v, const char *name, int k, int x_kind, int w_kind, double bound) {
  const Case c = {name, {1024, 0}, 3072, k, FK_LINEAR_GATE, 0};
  const FkFp8Choice choice = variants[v].choice;
  FkCudaFp8Group g[2];
  int rows[SAMPLED];
  operands(p, &c, choice.sum, x_kind, w_kind, 0.02f);
  groups_of(p, &c, g);
  g[0].bias = g[0].gate = NULL;
  sample(c.m[0], rows);
  TRY(cudaMemcpy(p->rows, rows, sizeof rows, cudaMemcpyHostToDevice));
  const dim3 grid(c.n / 128, SAMPLED);
  ref_sums<<<dim3(c.n / 8, SAMPLED), 256>>>(p->ref, p->rows, g[0], c.n, k, choice.sum == FK_FP8_BLOCK);
  put_rows<<<grid, 128>>>(p->ref, p->rows, g[0].y, g[0].ldy, c.n);
  take_rows<<<grid, 128>>>(p->ref + (size_t)SAMPLED * c.n, p->rows, g[0].y, g[0].ldy, c.n);
  TRY(fk_cuda_linear_fp8(&state, 0, 1, g, c.n, k, c.epilogue, 0, choice));
  take_rows<<<grid, 128>>>(p->got, p->rows, g[0].y, g[0].ldy, c.n);
  TRY(cudaDeviceSynchronize());
  double *ref = host_rows(p->ref, c.n), *start = host_rows(p->ref + (size_t)SAMPLED * c.n, c.n);
  double *got = host_rows(p->got, c.n);
  for (size_t i = 0; i < (size_t)SAMPLED * c.n; i++) got[i] -= start[i];
  const Errors e = compare(ref, got, c.n, 1);
  const bool good = bound == 0 || e.error <= bound;
  printf("  %-10s sums, %-22s K %5d: error %.4f %%  gain %+.4f %%  bound %.2f %%  %s\n", variants[v].name, name, k,
         e.error * 100, e.gain * 100, bound * 100,
         bound == 0 ? "(for comparison)"
         : good     ? "ok"
                    : "FAILED");
  free(ref), free(start), free(got);
  return good;
}

static int run_check(int v) {
  Pool p;
  bool ok = true;
  pool_make(&p);
  fill(p.old, kY, 5, NORMAL, 1);
  for (int i = 0; i < CASES; i++) ok = check_case(&p, v, i) && ok;
  const FkFp8Sum sum = variants[v].choice.sum;
  const double plain = sum == FK_FP8_ONCE ? 0 : 0.001, same = sum == FK_FP8_ROW     ? 0.008
                                                              : sum == FK_FP8_BLOCK ? 0.001
                                                                                    : 0;
  ok = check_sums(&p, v, "normal", 3072, NORMAL, NORMAL, plain) && ok;
  ok = check_sums(&p, v, "GELU x normal", 15360, GELU, NORMAL, plain) && ok;
  ok = check_sums(&p, v, "all positive", 15360, POSITIVE, POSITIVE, same) && ok;
  board->ok[v] = ok;
  return !ok;
}

/* Tiles do not change bytes: every variant of a kind has one hash a case. */
static bool compare_hashes(void) {
  int same = 0, other = 0;
  for (int a = 0; a < VARIANTS; a++)
    for (int b = a + 1; b < VARIANTS; b++)
      for (int c = 0; c < CASES; c++) {
        if (variants[a].choice.sum != variants[b].choice.sum || !board->hash[a][c] || !board->hash[b][c]) continue;
        if (board->hash[a][c] == board->hash[b][c]) {
          same++;
          continue;
        }
        other++;
        printf("  %s and %s differ in %s\n", variants[a].name, variants[b].name, cases[c].name);
      }
  printf("whole results equal between tiles: %d pairs, differing: %d\n", same, other);
  return other == 0;
}

/* ---- checks of the quantizers ------------------------------------------------------------------------------------ */

static int64_t differing(const float *v, const uint8_t *codes, const float *scale, int64_t rows, int cols, int group,
                         int64_t ld_scale) {
  uint8_t *want = (uint8_t *)malloc(cols);
  int64_t bad = 0;
  for (int64_t r = 0; r < rows; r++)
    for (int c = 0; c < cols; c += group) {
      float s;
      ref_group(v + r * cols + c, group, want, &s);
      const float *is = group == cols ? &scale[r] : &scale[c / group * ld_scale + r];
      bad += memcmp(&s, is, 4) != 0;
      for (int i = 0; i < group; i++) bad += want[i] != codes[r * cols + c + i];
    }
  free(want);
  return bad;
}

/* Rows with what is rare: zero, tiny, -0, NaN, infinity, one value only, exact ties. */
static void special_rows(uint16_t *x, int64_t ld, int cols) {
  for (int c = 0; c < cols; c++) {
    x[0 * ld + c] = c & 1 ? 0x8000 : 0;                              /* zeros of both signs */
    x[1 * ld + c] = (uint16_t)((c & 1 ? 0x8d00 : 0x0d00) + c % 128); /* below 2^-100 */
    x[2 * ld + c] = (uint16_t)(0x0d00 + c % 129);                    /* up to 2^-100 */
    x[3 * ld + c] = (uint16_t)(c * 37);                              /* every exponent, no NaN */
    if ((x[3 * ld + c] & 0x7f80) == 0x7f80) x[3 * ld + c] = 0x3f80;
    x[6 * ld + c] = (uint16_t)(0x3f80 + c % 128 + (c & 1 ? 0x8000 : 0)); /* 1..2, ties among them */
    x[7 * ld + c] = c == 77 ? 0x4248 : 0;
  }
  x[4 * ld + 5] = 0x7fc0, x[5 * ld + 9] = 0xff80;
  for (int c = 0; c < cols; c++) x[6 * ld + c] = c ? x[6 * ld + c] : 0x43e0; /* amax 448: inv is 1 */
}

static bool quant_case(const Pool *p, int64_t rows, int cols, int64_t ldx, int group, int kind) {
  const size_t all = (size_t)rows * ldx;
  uint16_t *x = (uint16_t *)malloc(all * 2);
  float *v = (float *)malloc((size_t)rows * cols * 4), *scale = (float *)malloc((size_t)120 * ROWS * 4);
  uint8_t *codes = (uint8_t *)malloc((size_t)rows * cols);
  fill(p->x, (int64_t)all, 30 + cols, kind, 1);
  TRY(cudaMemcpy(x, p->x, all * 2, cudaMemcpyDeviceToHost));
  if (rows >= 8) special_rows(x, ldx, cols);
  TRY(cudaMemcpy(p->x, x, all * 2, cudaMemcpyHostToDevice));
  for (int64_t r = 0; r < rows; r++)
    for (int c = 0; c < cols; c++) {
      const uint32_t u = (uint32_t)x[r * ldx + c] << 16;
      memcpy(&v[r * cols + c], &u, 4);
    }
  FkQuantRows q = {p->x, ldx, p->xq, cols, p->sx, ROWS, rows};
  TRY(group == cols ? fk_cuda_quant_rows(0, &q, cols) : fk_cuda_quant_blocks(0, &q, cols));
  TRY(cudaMemcpy(codes, p->xq, (size_t)rows * cols, cudaMemcpyDeviceToHost));
  TRY(cudaMemcpy(scale, p->sx, (size_t)120 * ROWS * 4, cudaMemcpyDeviceToHost));
  const int64_t bad = differing(v, codes, scale, rows, cols, group, ROWS);
  printf("  quantize %5ld x %5d, groups of %5d: %ld of %ld codes and scales differ  %s\n", (long)rows, cols, group,
         (long)bad, (long)(rows * cols + rows * (cols / group)), bad ? "FAILED" : "ok");
  free(x), free(v), free(scale), free(codes);
  return bad == 0;
}

/* Against plain C from the kernel's own float32 values, and these against norm.cu after rounding. */
static bool norm_case(const Pool *p, int64_t r0, int64_t r1, int cols, bool same_as_norm) {
  const int64_t rows = r0 + r1;
  float *plain = (float *)device((size_t)rows * cols * 4), *v = (float *)malloc((size_t)rows * cols * 4);
  uint16_t *y = (uint16_t *)malloc((size_t)rows * cols * 2);
  uint8_t *codes = (uint8_t *)malloc((size_t)rows * cols);
  float *scale = (float *)malloc(rows * 4);
  FkQuantNorm n[2] = {};
  RowArgs a = {};
  int64_t bad = 0, rounded = 0;
  fill(p->x, rows * cols, 40, NORMAL, 3);
  a.cols = cols, a.split = 1, a.eps = 1e-6f, a.center = true;
  for (int i = 0; i < 2; i++) {
    const int64_t first = i ? r0 : 0;
    const float *mul = p->vectors + i * 2 * 21504, *add = mul + 21504;
    n[i] = FkQuantNorm{{p->x + first * cols, cols, p->xq + first * cols, cols, p->sx + first, 0, i ? r1 : r0},
                       mul,
                       add,
                       1,
                       plain + first * cols};
    a.group[i] = RowGroup{{(char *)(p->x + first * cols), cols, FK_BF16},
                          {(char *)(p->y + first * cols), cols, FK_BF16},
                          mul,
                          add,
                          1,
                          i ? r1 : r0};
  }
  FkCuda cu = {};
  cu.sms = 132;
  TRY(fk_cuda_quant_norm(0, cu.sms, 2, n, cols, 1e-6f));
  if (same_as_norm) TRY(launch_rows(&cu, a, true));
  TRY(cudaMemcpy(v, plain, (size_t)rows * cols * 4, cudaMemcpyDeviceToHost));
  TRY(cudaMemcpy(y, p->y, (size_t)rows * cols * 2, cudaMemcpyDeviceToHost));
  TRY(cudaMemcpy(codes, p->xq, (size_t)rows * cols, cudaMemcpyDeviceToHost));
  TRY(cudaMemcpy(scale, p->sx, rows * 4, cudaMemcpyDeviceToHost));
  bad = differing(v, codes, scale, rows, cols, cols, 0);
  for (int64_t i = 0; same_as_norm && i < rows * cols; i++) {
    uint32_t u;
    memcpy(&u, &v[i], 4);
    rounded += (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16) != y[i];
  }
  printf("  norm + quantize %4ld + %4ld x %4d: %ld codes and scales differ; %s %ld  %s\n", (long)r0, (long)r1, cols,
         (long)bad, same_as_norm ? "bf16 of y against layer norm:" : "(layer norm not compared)", (long)rounded,
         bad || rounded ? "FAILED" : "ok");
  cudaFree(plain), free(v), free(y), free(codes), free(scale);
  return bad == 0 && rounded == 0;
}

static int run_quant(int) {
  Pool p;
  pool_make(&p);
  bool ok = quant_case(&p, 129, 3072, 3072, 3072, WIDE);
  ok = quant_case(&p, 512, 3072, 3072, 3072, NORMAL) && ok;
  ok = quant_case(&p, 65, 12288, 12288, 12288, GELU) && ok;
  ok = quant_case(&p, 300, 15360, 21504, 15360, NORMAL) && ok;
  ok = quant_case(&p, 33, 640, 648, 640, WIDE) && ok;
  ok = quant_case(&p, 1, 8, 8, 8, NORMAL) && ok;
  ok = quant_case(&p, 131, 3072, 3072, 128, WIDE) && ok;
  ok = quant_case(&p, 300, 15360, 21504, 128, NORMAL) && ok;
  ok = quant_case(&p, 7, 640, 648, 128, WIDE) && ok;
  ok = norm_case(&p, 512, 8192, 3072, true) && ok;
  ok = norm_case(&p, 2560, 1, 3072, true) && ok;
  ok = norm_case(&p, 3, 7, 3072, false) && ok;
  ok = norm_case(&p, 129, 7, 1280, false) && ok;
  board->quant_ok = ok;
  return !ok;
}

/* ---- the rival --------------------------------------------------------------------------------------------------- */

typedef struct {
  void *lib;
  cublasLtHandle_t handle;
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  void *space;
} Lt;

static const size_t kLtSpace = 64u << 20;

static bool lt_open(Lt *lt) {
  static const char *const names[] = {
      "libcublasLt.so.13",
      "/usr/local/cuda/lib64/libcublasLt.so.13",
      "/opt/torch/.venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcublasLt.so.13",
      "/opt/torch/.venv/lib/python3.12/site-packages/nvidia/cublas/lib/libcublasLt.so.13",
      "libcublasLt.so.12",
      "/opt/torch/.venv/lib/python3.12/site-packages/nvidia/cublas/lib/libcublasLt.so.12"};
  for (unsigned i = 0; i < sizeof names / sizeof *names && !lt->lib; i++) lt->lib = dlopen(names[i], RTLD_NOW);
  if (!lt->lib) {
    printf("  cuBLASLt not found, left out: %s\n", dlerror());
    return false;
  }
#define LT_GET(field, name) lt->field = (decltype(lt->field))dlsym(lt->lib, #name)
  LT_GET(create, cublasLtCreate), LT_GET(matmul, cublasLtMatmul), LT_GET(desc_create, cublasLtMatmulDescCreate);
  LT_GET(desc_set, cublasLtMatmulDescSetAttribute), LT_GET(layout_create, cublasLtMatrixLayoutCreate);
  LT_GET(preference_create, cublasLtMatmulPreferenceCreate);
  LT_GET(preference_set, cublasLtMatmulPreferenceSetAttribute), LT_GET(heuristic, cublasLtMatmulAlgoGetHeuristic);
  lt->space = device(kLtSpace);
  return lt->create && lt->matmul && lt->heuristic && lt->create(&lt->handle) == CUBLAS_STATUS_SUCCESS;
}

typedef struct {
  cublasLtMatmulDesc_t desc;
  cublasLtMatrixLayout_t a, b, d;
  cublasLtMatmulHeuristicResult_t found;
} LtPlan;

/* y[m, n] = x[m, k] w[n, k]^T: column-major D [n, m] = A^T B. rows: a scale a row of both, else one scale each. */
static bool lt_plan(const Lt *lt, LtPlan *plan, int m, int n, int k, bool rows, bool fast, const float *sw,
                    const float *sx) {
  const cublasOperation_t trans = CUBLAS_OP_T;
  const int8_t accumulate = fast;
  cublasLtMatmulPreference_t preference;
  int count = 0;
  if (lt->desc_create(&plan->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) != CUBLAS_STATUS_SUCCESS) return false;
  lt->desc_set(plan->desc, CUBLASLT_MATMUL_DESC_TRANSA, &trans, sizeof trans);
  lt->desc_set(plan->desc, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &accumulate, sizeof accumulate);
  if (rows) {
    const cublasLtMatmulMatrixScale_t outer = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    lt->desc_set(plan->desc, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &outer, sizeof outer);
    lt->desc_set(plan->desc, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &outer, sizeof outer);
  }
  lt->desc_set(plan->desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &sw, sizeof sw);
  lt->desc_set(plan->desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &sx, sizeof sx);
  lt->layout_create(&plan->a, CUDA_R_8F_E4M3, k, n, k);
  lt->layout_create(&plan->b, CUDA_R_8F_E4M3, k, m, k);
  lt->layout_create(&plan->d, CUDA_R_16BF, n, m, n);
  lt->preference_create(&preference);
  lt->preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kLtSpace, sizeof kLtSpace);
  return lt->heuristic(lt->handle, plan->desc, plan->a, plan->b, plan->d, plan->d, preference, 1, &plan->found,
                       &count) == CUBLAS_STATUS_SUCCESS &&
         count > 0;
}

static bool lt_run(const Lt *lt, const LtPlan *plan, const void *w, const void *x, void *y) {
  const float one = 1, zero = 0;
  return lt->matmul(lt->handle, plan->desc, &one, w, plan->a, x, plan->b, &zero, y, plan->d, y, plan->d,
                    &plan->found.algo, lt->space, kLtSpace, 0) == CUBLAS_STATUS_SUCCESS;
}

/* ---- time -------------------------------------------------------------------------------------------------------- */

/* The driver's own meters; without them the columns are zero. */
typedef struct {
  int (*power)(void *, unsigned *), (*clock)(void *, int, unsigned *);
  void *card;
} Meter;

static void meter_open(Meter *m) {
  void *lib = dlopen("libnvidia-ml.so.1", RTLD_NOW);
  if (!lib) return;
  int (*init)(void) = (int (*)(void))dlsym(lib, "nvmlInit_v2");
  int (*get)(unsigned, void **) = (int (*)(unsigned, void **))dlsym(lib, "nvmlDeviceGetHandleByIndex_v2");
  if (!init || !get || init() || get(0, &m->card)) return;
  m->power = (int (*)(void *, unsigned *))dlsym(lib, "nvmlDeviceGetPowerUsage");
  m->clock = (int (*)(void *, int, unsigned *))dlsym(lib, "nvmlDeviceGetClockInfo");
}

typedef struct {
  double us, tflops, watt, mhz, busy; /* busy: of what the tensor cores can do at this clock */
} Timing;

typedef bool (*Job)(void *);

/* `seconds` in a row, after a third of that. */
static bool timed(const Meter *m, Job job, void *arg, double flop, double seconds, Timing *t) {
  cudaEvent_t from, to;
  float ms = 0;
  TRY(cudaEventCreate(&from));
  TRY(cudaEventCreate(&to));
  for (int i = 0; i < 3; i++)
    if (!job(arg)) return false;
  TRY(cudaEventRecord(from));
  for (int i = 0; i < 5; i++) job(arg);
  TRY(cudaEventRecord(to));
  TRY(cudaEventSynchronize(to));
  TRY(cudaEventElapsedTime(&ms, from, to));
  const int runs = (int)(seconds * 1000 / (ms / 5)) + 1;
  for (int i = 0; i < runs / 3; i++) job(arg);
  double watt = 0, mhz = 0;
  int samples = 0;
  TRY(cudaEventRecord(from));
  for (int i = 0; i < runs; i++) {
    unsigned power = 0, clock = 0;
    job(arg);
    if (i < runs / 2 || i % (runs / 16 + 1) || !m->power || !m->clock) continue;
    if (!m->power(m->card, &power) && !m->clock(m->card, 1, &clock)) watt += power / 1000.0, mhz += clock, samples++;
  }
  TRY(cudaEventRecord(to));
  TRY(cudaEventSynchronize(to));
  TRY(cudaEventElapsedTime(&ms, from, to));
  TRY(cudaGetLastError());
  t->us = ms * 1000.0 / runs;
  t->tflops = flop / t->us * 1e-6;
  t->watt = samples ? watt / samples : 0, t->mhz = samples ? mhz / samples : 0;
  t->busy = samples ? t->tflops * 1e12 / (132 * 8192.0 * t->mhz * 1e6) : 0;
  cudaEventDestroy(from), cudaEventDestroy(to);
  return true;
}

typedef struct {
  const Lt *lt;
  LtPlan plan;
  FkCudaFp8Group g[2];
  Case c;
  FkFp8Choice choice;
} Single;

static bool job_ours(void *arg) {
  Single *s = (Single *)arg;
  return fk_cuda_linear_fp8(&state, 0, s->c.m[1] ? 2 : 1, s->g, s->c.n, s->c.k, s->c.epilogue, s->c.width, s->choice) ==
         cudaSuccess;
}
static bool job_lt(void *arg) {
  Single *s = (Single *)arg;
  return lt_run(s->lt, &s->plan, s->g[0].w, s->g[0].x, s->g[0].y);
}

typedef struct {
  double flop, us;
} Weighted;

static void print_timing(const char *who, const char *what, const Timing *t, Weighted *all, double flop, int count) {
  printf("  %-22s %-10s %8.1f us  %6.0f TFLOP/s  %4.0f W  %5.0f MHz  tensor %3.0f %%\n", who, what, t->us, t->tflops,
         t->watt, t->mhz, t->busy * 100);
  fflush(stdout);
  all->flop += flop * count, all->us += t->us * count;
}

/* What is timed: the variants, cuBLASLt with one scale and with scales of rows, bands of the first variant. */
static const int bands[] = {4, 22, 44};
enum { TIMED = VARIANTS + 2 + 3 };

static const char *name_of(int v) {
  static const char *const others[] = {"cuBLASLt tensor", "cuBLASLt rows", "row 200 band 4", "row 200 band 22",
                                       "row 200 band 44"};
  return v < VARIANTS ? variants[v].name : others[v - VARIANTS];
}

/* One shape, everything that passed, one after the other. few: 512 + 2048 rows and 2560. */
static void time_shape(const Pool *p, const Lt *lt, const Meter *meter, int at, bool few, Weighted *all) {
  Single s = {};
  s.lt = lt, s.c = shapes[at];
  if (few && s.c.m[1])
    s.c.m[1] = 2048;
  else if (few)
    s.c.m[0] = 2560;
  const int m = s.c.m[0] + s.c.m[1];
  const double flop = 2.0 * m * s.c.n * s.c.k;
  Timing t;
  TRY(cudaMemset(p->y, 0, kY * 2));
  for (int v = 0; v < TIMED; v++) {
    const int lt_rows = v == VARIANTS + 1;
    const bool rival = v == VARIANTS || lt_rows;
    s.choice = v < VARIANTS ? variants[v].choice : FkFp8Choice{FK_FP8_ROW, 200, rival ? 0 : bands[v - VARIANTS - 2]};
    if (v < VARIANTS && !board->ok[v]) continue;
    if (v < VARIANTS && s.choice.sum == FK_FP8_BLOCK &&
        (s.c.epilogue != FK_LINEAR_GATE || (!few && s.choice.tokens < 200)))
      continue;
    if (s.choice.band && (!board->ok[0] || few || (at != 0 && at < 4))) continue;
    operands(p, &s.c, s.choice.sum, s.c.k > 4096 ? GELU : NORMAL, NORMAL, 0.02f);
    groups_of(p, &s.c, s.g);
    for (int i = 0; i < 2; i++) s.g[i].ldy = s.c.n, s.g[i].y = p->y + (i ? (int64_t)s.c.m[0] * s.c.n : 0);
    if (rival &&
        (!lt->handle || !lt_plan(lt, &s.plan, m, s.c.n, s.c.k, lt_rows, true, s.g[0].w_scale, s.g[0].x_scale))) {
      printf("  %-22s %-10s no algorithm\n", name_of(v), s.c.name);
      continue;
    }
    if (timed(meter, rival ? job_lt : job_ours, &s, flop, 0.5, &t))
      print_timing(name_of(v), s.c.name, &t, &all[v], flop, shape_count[at]);
    else
      printf("  %-22s %-10s refused\n", name_of(v), s.c.name);
  }
}

static void print_weighted(const Weighted *all) {
  const double step = 2.0 * 8704 * 3072.0 * (19 * (9216.0 + 3072 + 2 * 12288) + 38 * (21504.0 + 15360));
  for (int v = 0; v < VARIANTS + 2; v++)
    if (all[v].us > 0)
      printf("  weighted: %-16s %6.0f TFLOP/s, %.1f ms%s\n", name_of(v), all[v].flop / all[v].us * 1e-6,
             all[v].us / 1000, all[v].flop < step * 0.99 ? " (a part of a step, or few rows)" : " a step");
}

static int run_time(int few) {
  Pool p;
  Lt lt = {};
  Meter meter = {};
  Weighted all[TIMED] = {};
  pool_make(&p);
  meter_open(&meter);
  lt_open(&lt);
  for (int i = 0; i < SHAPES; i++) time_shape(&p, &lt, &meter, i, few, all);
  print_weighted(all);
  return 0;
}

/* ---- quantizers alone, then the linear layers of a double block and two single blocks in a row ---------------------
 */

typedef struct {
  uint8_t *w[SHAPES][2];
  float *sw[SHAPES][2];
  __nv_bfloat16 *hidden, *wide, *mlp;
  uint8_t *codes;
  float *scale, *vectors;
  float2 *rope;
  FkFp8Sum inner; /* of out, down, single out */
  bool once, quantize, norm;
} Mix;

static bool mix_linear(const Mix *x, int at, __nv_bfloat16 *y, FkFp8Sum sum) {
  const Case *c = &shapes[at];
  FkCudaFp8Group g[2] = {};
  for (int i = 0; i < 2; i++) {
    const int64_t first = i ? c->m[0] : 0;
    g[i].x = x->codes + first * c->k, g[i].ldx = c->k, g[i].x_scale = x->scale + first, g[i].ld_scale = ROWS;
    g[i].w = x->w[at][i], g[i].w_scale = x->sw[at][i];
    g[i].bias = x->vectors, g[i].gate = x->vectors + 21504, g[i].q_norm = g[i].k_norm = x->vectors + 2 * 21504;
    g[i].rope = x->rope + first * 64, g[i].y = y + first * c->n, g[i].ldy = c->n, g[i].m = c->m[i];
  }
  return fk_cuda_linear_fp8(&state, 0, c->m[1] ? 2 : 1, g, c->n, c->k, c->epilogue, c->width,
                            FkFp8Choice{x->once ? FK_FP8_ONCE : sum, 0, 0}) == cudaSuccess;
}

static void mix_norm(const Mix *x, int64_t first) {
  FkQuantNorm n[2] = {};
  for (int i = 0; i < 2; i++) {
    const int64_t at = i ? first : 0, rows = i ? ROWS - first : first;
    n[i] = FkQuantNorm{{x->hidden + at * 3072, 3072, x->codes + at * 3072, 3072, x->scale + at, 0, rows},
                       x->vectors + 3 * 21504,
                       x->vectors + 4 * 21504,
                       1,
                       NULL};
  }
  if (x->norm) fk_cuda_quant_norm(0, 132, 2, n, 3072, 1e-6f);
}

static void mix_quant(const Mix *x, const __nv_bfloat16 *from, int64_t ld, int cols) {
  FkQuantRows q = {from, ld, x->codes, cols, x->scale, ROWS, ROWS};
  if (!x->quantize) return;
  if (x->inner == FK_FP8_BLOCK)
    fk_cuda_quant_blocks(0, &q, cols);
  else
    fk_cuda_quant_rows(0, &q, cols);
}

static bool job_mix(void *arg) {
  const Mix *x = (const Mix *)arg;
  bool ok = true;
  mix_norm(x, 512);
  ok = mix_linear(x, 0, x->wide, FK_FP8_ROW) && ok;
  mix_quant(x, x->wide, 9216, 3072);
  ok = mix_linear(x, 1, x->hidden, x->inner) && ok;
  mix_norm(x, 512);
  ok = mix_linear(x, 2, x->mlp, FK_FP8_ROW) && ok;
  mix_quant(x, x->mlp, 12288, 12288);
  ok = mix_linear(x, 3, x->hidden, x->inner) && ok;
  for (int i = 0; i < 2; i++) {
    mix_norm(x, ROWS);
    ok = mix_linear(x, 4, x->wide, FK_FP8_ROW) && ok;
    mix_quant(x, x->wide + 6144, 21504, 15360);
    ok = mix_linear(x, 5, x->hidden, x->inner) && ok;
  }
  return ok;
}

typedef struct {
  FkQuantNorm n[2];
  FkQuantRows q;
  int cols, kind; /* 0 norm, 1 rows, 2 blocks, 3 layer norm to bf16 */
  RowArgs a;
} Quant;

static bool job_quant(void *arg) {
  Quant *q = (Quant *)arg;
  if (q->kind == 0) return fk_cuda_quant_norm(0, 132, 2, q->n, 3072, 1e-6f) == cudaSuccess;
  if (q->kind == 1) return fk_cuda_quant_rows(0, &q->q, q->cols) == cudaSuccess;
  if (q->kind == 2) return fk_cuda_quant_blocks(0, &q->q, q->cols) == cudaSuccess;
  FkCuda cu = {};
  cu.sms = 132;
  return launch_rows(&cu, q->a, true) == cudaSuccess;
}

static void time_quants(const Mix *x, const Meter *meter) {
  static const struct {
    const char *name;
    int kind, cols, ld;
  } rows[] = {{"norm + quantize", 0, 3072, 3072},
              {"layer norm to bf16", 3, 3072, 3072},
              {"rows", 1, 3072, 9216},
              {"rows", 1, 12288, 12288},
              {"rows", 1, 15360, 21504},
              {"blocks", 2, 3072, 9216},
              {"blocks", 2, 12288, 12288},
              {"blocks", 2, 15360, 21504}};
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    Quant q = {};
    Timing t;
    q.kind = rows[i].kind, q.cols = rows[i].cols;
    q.q = FkQuantRows{x->wide, rows[i].ld, x->codes, q.cols, x->scale, ROWS, ROWS};
    q.a.cols = 3072, q.a.split = 1, q.a.eps = 1e-6f, q.a.center = true;
    for (int j = 0; j < 2; j++) {
      const int64_t at = j ? 512 : 0, m = j ? 8192 : 512;
      q.n[j] = FkQuantNorm{{x->hidden + at * 3072, 3072, x->codes + at * 3072, 3072, x->scale + at, 0, m},
                           x->vectors + 3 * 21504,
                           x->vectors + 4 * 21504,
                           1,
                           NULL};
      q.a.group[j] = RowGroup{{(char *)(x->hidden + at * 3072), 3072, FK_BF16},
                              {(char *)(x->mlp + at * 3072), 3072, FK_BF16},
                              q.n[j].mul,
                              q.n[j].add,
                              1,
                              m};
    }
    const double bytes = (double)ROWS * q.cols * (q.kind == 3 ? 4 : 3);
    if (timed(meter, job_quant, &q, bytes, 0.2, &t))
      printf("  %-20s 8704 x %5d: %6.1f us  %.2f TB/s\n", rows[i].name, q.cols, t.us, bytes / t.us * 1e-6);
  }
}

static void mix_make(Mix *x) {
  __nv_bfloat16 *w = (__nv_bfloat16 *)device(kW * 2);
  for (int at = 0; at < SHAPES; at++)
    for (int i = 0; i < (shapes[at].m[1] ? 2 : 1); i++) {
      const Case *c = &shapes[at];
      x->w[at][i] = (uint8_t *)device((size_t)c->n * c->k), x->sw[at][i] = (float *)device(c->n * 4);
      fill(w, (int64_t)c->n * c->k, 60 + at * 2 + i, NORMAL, 0.02f);
      FkQuantRows q = {w, c->k, x->w[at][i], c->k, x->sw[at][i], 0, c->n};
      TRY(fk_cuda_quant_rows(0, &q, c->k));
    }
  x->hidden = (__nv_bfloat16 *)device((size_t)ROWS * 3072 * 2),
  x->wide = (__nv_bfloat16 *)device((size_t)ROWS * 21504 * 2);
  x->mlp = (__nv_bfloat16 *)device((size_t)ROWS * 12288 * 2), x->codes = (uint8_t *)device((size_t)ROWS * 15360);
  x->scale = (float *)device((size_t)120 * ROWS * 4), x->vectors = (float *)device(5 * 21504 * 4);
  x->rope = (float2 *)device((size_t)ROWS * 64 * 8);
  fill(x->vectors, 21504, 1, 0.1f, 0), fill(x->vectors + 21504, 21504, 2, 0.05f, 0);
  fill(x->vectors + 2 * 21504, 3 * 21504, 3, 0.1f, 1);
  fill_rope<<<(ROWS * 64 + 255) / 256, 256>>>(x->rope, ROWS);
  fill(x->hidden, (int64_t)ROWS * 3072, 7, NORMAL, 1), fill(x->wide, (int64_t)ROWS * 21504, 8, NORMAL, 1);
  fill(x->mlp, (int64_t)ROWS * 12288, 9, GELU, 1);
  TRY(cudaDeviceSynchronize());
}

static int run_mix(int) {
  static const struct {
    const char *name;
    FkFp8Sum inner;
    bool once, quantize, norm;
    int needs;
  } kinds[] = {{"row scales, norm and quantizers", FK_FP8_ROW, false, true, true, 0},
               {"block scales, norm and quantizers", FK_FP8_BLOCK, false, true, true, 2},
               {"row scales, norm only", FK_FP8_ROW, false, false, true, 0},
               {"block scales, norm only", FK_FP8_BLOCK, false, false, true, 2},
               {"never promoted, norm and quantizers", FK_FP8_ROW, true, true, true, 1},
               {"row scales, norm and quantizers", FK_FP8_ROW, false, true, true, 0}};
  const double flop = 2.0 * 8704 * 3072 * (9216 + 3072 + 2 * 12288 + 2 * (21504 + 15360));
  Mix x = {};
  Meter meter = {};
  mix_make(&x);
  meter_open(&meter);
  time_quants(&x, &meter);
  for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    Timing t;
    if (!board->ok[0] || !board->ok[kinds[i].needs] || (kinds[i].once && !board->ok[1])) continue;
    x.inner = kinds[i].inner, x.once = kinds[i].once, x.quantize = x.norm = true;
    fill(x.hidden, (int64_t)ROWS * 3072, 7, NORMAL, 1);
    if (!job_mix(&x)) continue; /* codes and scales of the right kind, should they not be made again */
    x.quantize = kinds[i].quantize, x.norm = kinds[i].norm;
    if (timed(&meter, job_mix, &x, flop, 1.5, &t))
      printf("  %-38s %7.2f ms = %5.1f ms a step  %6.0f TFLOP/s  %4.0f W  %5.0f MHz  tensor %3.0f %%\n", kinds[i].name,
             t.us / 1000, t.us * 19 / 1000, t.tflops, t.watt, t.mhz, t.busy * 100);
    fflush(stdout);
  }
  return 0;
}

/* ---- parts ------------------------------------------------------------------------------------------------------- */

static void late(int) {
  static const char text[] = "FAILED: over its time, ended\n";
  if (write(1, text, sizeof text - 1) < 0) _exit(4);
  _exit(3);
}

/* Runs a part in a process of its own, before which this one never touches the device. */
static bool part(const char *name, int (*run)(int), int arg, int seconds) {
  struct timespec from, to;
  int status = 0;
  printf("== %s\n", name);
  fflush(stdout);
  clock_gettime(CLOCK_MONOTONIC, &from);
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGALRM, late);
    alarm(seconds);
    const int rc = run(arg);
    fflush(stdout);
    _exit(rc);
  }
  waitpid(child, &status, 0);
  clock_gettime(CLOCK_MONOTONIC, &to);
  const bool ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  printf("   %s: %s (%.1f s)\n", name, ok ? "passed" : "FAILED",
         (to.tv_sec - from.tv_sec) + (to.tv_nsec - from.tv_nsec) * 1e-9);
  return ok;
}

static bool wanted(int argc, char **argv, const char *name) {
  for (int i = 1; i < argc; i++)
    if (strcmp(argv[i], name) == 0) return true;
  return argc == 1;
}

int main(int argc, char **argv) {
  char name[64];
  bool ok = true;
  board = (Board *)mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (board == MAP_FAILED) return 1;
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (wanted(argc, argv, "quant")) ok = part("quantizers against plain C", run_quant, 0, 60) && ok;
  if (wanted(argc, argv, "check")) {
    for (int v = 0; v < VARIANTS; v++) {
      snprintf(name, sizeof name, "check of %s", variants[v].name);
      ok = part(name, run_check, v, 60) && ok;
    }
    ok = compare_hashes() && ok;
  } else {
    for (int v = 0; v < VARIANTS; v++) board->ok[v] = 1;
  }
  if (wanted(argc, argv, "mix")) ok = part("quantizers, and linear layers of a step in a row", run_mix, 0, 90) && ok;
  if (wanted(argc, argv, "time")) ok = part("shapes at 8704 rows", run_time, 0, 120) && ok;
  if (wanted(argc, argv, "few")) ok = part("shapes at 2560 rows", run_time, 1, 120) && ok;
  printf("lab-fp8: %s\n", ok ? "passed" : "FAILED");
  return !ok;
}
