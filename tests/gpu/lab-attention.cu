/* SPDX-License-Identifier: Apache-2.0 */
/* Attention in 8 bits by itself: codes against plain C, results against exact sums of the codes and against float64 of
 * the numbers, then times. `test-cuda-ops --time attention` has those of the bfloat16 kernel.
 *   nvcc -std=c++20 -O3 -gencode arch=compute_90a,code=sm_90a -o lab-attention tests/gpu/lab-attention.cu
 *   lab-attention [SECONDS_PER_TIMING] */
#include "../../kernels/attention_codes_sm90.cuh"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

#define TRY(x)                                                                                                         \
  do {                                                                                                                 \
    cudaError_t e_ = (x);                                                                                              \
    if (e_ != cudaSuccess) {                                                                                           \
      printf("%s:%d %s: %s\n", __FILE__, __LINE__, #x, cudaGetErrorString(e_));                                        \
      exit(1);                                                                                                         \
    }                                                                                                                  \
  } while (0)

static FkCuda device;
static uint64_t seed = 88172645463325252ull;
static double uniform() {
  seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
  return (double)(seed >> 11) * 0x1p-53;
}
static double normal() {
  return sqrt(-2 * log(uniform() + 1e-300)) * cos(6.283185307179586 * uniform());
}
static float bf(uint16_t x) {
  uint32_t b = (uint32_t)x << 16;
  float f;
  memcpy(&f, &b, 4);
  return f;
}
static uint16_t to_bf(float f) {
  uint32_t b;
  memcpy(&b, &f, 4);
  return (uint16_t)((b + 0x7fff + (b >> 16 & 1)) >> 16);
}
static double e4m3(uint8_t c) {
  int e = c >> 3 & 15, m = c & 7;
  double v = e ? ldexp(8 + m, e - 10) : ldexp(m, -9);
  return c & 128 ? -v : v;
}
static uint8_t to_e4m3(float v) {
  uint32_t b;
  memcpy(&b, &v, 4);
  uint32_t s = b & 0x7fffffff;
  uint8_t sign = b >> 24 & 0x80;
  float a;
  memcpy(&a, &s, 4);
  if (s > 0x7f800000) return 0x7f;
  if (a >= 448) return sign | 0x7e;
  if (a < 0x1p-6f) return sign | (uint8_t)lrintf(a * 0x1p9f);
  return sign | (uint8_t)((s - 0x3c000000u + 0x7ffffu + (s >> 20 & 1)) >> 20);
}

static size_t lab_bytes(int sq, int sk, int heads) {
  const size_t tiles = ((size_t)sk + 127) / 128, rows = ((size_t)sq + 127) / 128 * 128, width = (size_t)heads * 128;
  return width * (rows + 2 * tiles * 128) + 4 * (size_t)heads * (rows + 2 * tiles) + 1024;
}

static void places(uint8_t *scratch, int sq, int sk, int heads, FkAttnCodes *a) {
  const size_t tiles = ((size_t)sk + 127) / 128, rows = ((size_t)sq + 127) / 128 * 128, width = (size_t)heads * 128;
  a->q_codes = scratch, a->k_codes = a->q_codes + rows * width, a->v_codes = a->k_codes + tiles * 128 * width;
  a->q_scale = (float *)(a->v_codes + tiles * 128 * width), a->k_scale = a->q_scale + rows * (size_t)heads;
  a->v_scale = a->k_scale + tiles * (size_t)heads;
  a->sq = sq, a->sk = sk, a->heads = heads, a->ld_q_scale = (int)rows;
}

static cudaError_t lab_codes(const FkAttnCodes *x, bool values_alone) {
  const int blocks = (max(x->sq, x->sk) + 127) / 128;
  if (values_alone)
    attention_codes_kernel<true><<<dim3(blocks, x->heads), 256>>>(*x);
  else
    attention_codes_kernel<false><<<dim3(blocks, x->heads, 3), 256>>>(*x);
  return cudaGetLastError();
}

template <bool Codes> static cudaError_t lab_attention(const FkCuda *cu, const FkAttnCodes *x) {
  const cudaError_t status = cudaFuncSetAttribute(attention_codes_sm90_kernel<Codes>,
                                                  cudaFuncAttributeMaxDynamicSharedMemorySize, Plan<Codes>::kShared);
  return status == cudaSuccess ? attention_codes_start<Codes>(cu, x, 0) : status;
}

struct Problem {
  int sq, sk, heads;
  int64_t ld;
  std::vector<uint16_t> host; /* [rows, 3 * width]: K | V | Q */
  __nv_bfloat16 *wide, *o;
  void *scratch;
  size_t bytes;
  FkAttnCodes x;
};

static void make(Problem *p, int sq, int sk, int heads, double v_mean, double peak) {
  const int rows = sq > sk ? sq : sk, width = heads * 128;
  p->sq = sq, p->sk = sk, p->heads = heads, p->ld = 3 * width;
  p->host.resize((size_t)rows * p->ld);
  for (int r = 0; r < rows; r++)
    for (int c = 0; c < 3 * width; c++) {
      double v = normal();
      if (c >= width && c < 2 * width)
        v = v * 0.7 + v_mean;
      else if (c >= 2 * width)
        v *= peak;
      p->host[(size_t)r * p->ld + c] = to_bf((float)v);
    }
  p->bytes = lab_bytes(sq, sk, heads);
  TRY(cudaMalloc(&p->wide, p->host.size() * 2));
  TRY(cudaMalloc(&p->o, (size_t)rows * width * 2 + 4096));
  TRY(cudaMalloc(&p->scratch, p->bytes));
  TRY(cudaMemcpy(p->wide, p->host.data(), p->host.size() * 2, cudaMemcpyHostToDevice));
  TRY(cudaMemset(p->scratch, 0xee, p->bytes));
  TRY(cudaMemset(p->o, 0xff, (size_t)rows * width * 2));
  p->x = FkAttnCodes{};
  p->x.q = p->wide + 2 * width, p->x.k = p->wide, p->x.v = p->wide + width;
  p->x.ld_q = p->x.ld_k = p->x.ld_v = p->ld, p->x.o = p->o, p->x.ld_o = width, p->x.scale = 0.08838834764831845f;
  places((uint8_t *)p->scratch, sq, sk, heads, &p->x);
}
static void drop(Problem *p) {
  cudaFree(p->wide), cudaFree(p->o), cudaFree(p->scratch);
}

/* Codes and scales equal plain C's; counts differing bytes. */
static long check_codes(const Problem *p, std::vector<uint8_t> &s, FkAttnCodes *a) {
  s.resize(p->bytes);
  TRY(cudaMemcpy(s.data(), p->scratch, p->bytes, cudaMemcpyDeviceToHost));
  places(s.data(), p->sq, p->sk, p->heads, a);
  long bad = 0;
  const int width = p->heads * 128, tiles = (p->sk + 127) / 128;
  for (int h = 0; h < p->heads; h++) {
    for (int r = 0; r < p->sq; r++) {
      const uint16_t *q = &p->host[(size_t)r * p->ld + 2 * width + h * 128];
      float amax = 0;
      for (int c = 0; c < 128; c++) amax = fmaxf(amax, fabsf(bf(q[c])));
      float inv = 127.f / amax;
      bad += a->q_scale[(size_t)h * a->ld_q_scale + r] != amax / 127.f;
      for (int c = 0; c < 128; c++)
        bad += (int8_t)a->q_codes[(size_t)r * width + h * 128 + c] !=
               (int8_t)fminf(fmaxf(rintf(bf(q[c]) * inv), -127), 127);
    }
    for (int t = 0; t < tiles; t++) {
      const int n = p->sk - t * 128 < 128 ? p->sk - t * 128 : 128;
      float ak = 0, av = 0;
      for (int r = 0; r < n; r++)
        for (int c = 0; c < 128; c++) {
          const size_t at = (size_t)(t * 128 + r) * p->ld + h * 128 + c;
          ak = fmaxf(ak, fabsf(bf(p->host[at]))), av = fmaxf(av, fabsf(bf(p->host[at + width])));
        }
      bad += a->k_scale[h * tiles + t] != ak / 127.f, bad += a->v_scale[h * tiles + t] != av / 448.f;
      const float ik = 127.f / ak, iv = 448.f / av;
      for (int r = 0; r < 128; r++)
        for (int c = 0; c < 128; c++) {
          const size_t at = (size_t)(t * 128 + r) * p->ld + h * 128 + c;
          const uint8_t v = a->v_codes[((size_t)h * 128 + c) * tiles * 128 + t * 128 + fk_attn_key_place(r)];
          if (r >= n) {
            bad += (v & 0x7f) != 0;
            continue;
          }
          bad += (int8_t)a->k_codes[(size_t)(t * 128 + r) * width + h * 128 + c] !=
                 (int8_t)fminf(fmaxf(rintf(bf(p->host[at]) * ik), -127), 127);
          bad += v != to_e4m3(bf(p->host[at + width]) * iv);
        }
    }
  }
  return bad;
}

/* Some rows: against attention of the codes in float64 (P rounded to codes of 256 p under the row's true maximum), and
 * of the numbers. */
template <bool Codes> static void check(int sq, int sk, int heads, double v_mean, double peak) {
  Problem p;
  std::vector<uint8_t> s;
  FkAttnCodes a = {};
  make(&p, sq, sk, heads, v_mean, peak);
  TRY(lab_codes(&p.x, false)); /* all three: the check of codes wants them */
  TRY(lab_attention<Codes>(&device, &p.x));
  TRY(cudaDeviceSynchronize());
  const long bad = check_codes(&p, s, &a);
  const int width = heads * 128, tiles = (sk + 127) / 128;
  std::vector<uint16_t> o((size_t)sq * width), again(o.size());
  TRY(cudaMemcpy(o.data(), p.o, o.size() * 2, cudaMemcpyDeviceToHost));
  double ec = 0, en = 0, size = 0, gain = 0;
  long nan = 0;
  for (size_t i = 0; i < o.size(); i++) nan += !(bf(o[i]) == bf(o[i]));
  const int samples = sq < 24 ? sq : 24;
  std::vector<double> w(sk), v(sk);
  for (int n = 0; n < samples; n++) {
    const int r = samples == sq ? n : (int)(uniform() * sq), h = (int)(uniform() * heads);
    double top = -1e300, nt = -1e300, sum = 0, ns = 0;
    for (int k = 0; k < sk; k++) {
      long dot = 0;
      double d = 0;
      for (int c = 0; c < 128; c++) {
        dot += (long)(int8_t)a.q_codes[(size_t)r * width + h * 128 + c] *
               (int8_t)a.k_codes[(size_t)k * width + h * 128 + c];
        d +=
            (double)bf(p.host[(size_t)r * p.ld + 2 * width + h * 128 + c]) * bf(p.host[(size_t)k * p.ld + h * 128 + c]);
      }
      v[k] = d * p.x.scale;
      w[k] = Codes ? dot * (double)a.q_scale[(size_t)h * a.ld_q_scale + r] * a.k_scale[h * tiles + k / 128] * p.x.scale
                   : v[k];
      top = fmax(top, w[k]), nt = fmax(nt, v[k]);
    }
    for (int k = 0; k < sk; k++) w[k] = exp(w[k] - top), sum += w[k], v[k] = exp(v[k] - nt), ns += v[k];
    for (int c = 0; c < 128; c++) {
      double x = 0, y = 0;
      for (int k = 0; k < sk; k++) {
        x += e4m3(to_e4m3((float)(256 * w[k]))) / 256 *
             e4m3(a.v_codes[((size_t)h * 128 + c) * tiles * 128 + k / 128 * 128 + fk_attn_key_place(k % 128)]) *
             a.v_scale[h * tiles + k / 128];
        y += v[k] * bf(p.host[(size_t)k * p.ld + width + h * 128 + c]);
      }
      x /= sum, y /= ns;
      const double have = bf(o[(size_t)r * width + h * 128 + c]);
      ec += (have - x) * (have - x), en += (have - y) * (have - y), size += y * y, gain += have * x - x * x;
    }
  }
  TRY(cudaMemset(p.o, 0xff, o.size() * 2));
  TRY(lab_attention<Codes>(&device, &p.x));
  TRY(cudaMemcpy(again.data(), p.o, o.size() * 2, cudaMemcpyDeviceToHost));
  printf("%s scores, %5d x %5d x %2d mean %.1f peak %.0f: codes differ %ld, NaN %ld, to own codes %.4f %%, "
         "to numbers %.3f %%, gain %+.4f %%, again %s\n",
         Codes ? "int8" : "bf16", sq, sk, heads, v_mean, peak, bad, nan, 100 * sqrt(ec / size), 100 * sqrt(en / size),
         100 * gain / size, memcmp(o.data(), again.data(), o.size() * 2) ? "DIFFERS" : "equal");
  fflush(stdout);
  drop(&p);
}

template <class F> static double timed(F run, double seconds) {
  cudaEvent_t a, b;
  cudaEventCreate(&a), cudaEventCreate(&b);
  for (int i = 0; i < 5; i++) run();
  cudaEventRecord(a);
  run();
  cudaEventRecord(b);
  cudaEventSynchronize(b);
  float ms;
  cudaEventElapsedTime(&ms, a, b);
  int n = (int)(seconds * 1000 / ms) + 1;
  cudaEventRecord(a);
  for (int i = 0; i < n; i++) run();
  cudaEventRecord(b);
  TRY(cudaEventSynchronize(b));
  cudaEventElapsedTime(&ms, a, b);
  return ms / n;
}

template <bool Codes> static void check_all() {
  check<Codes>(300, 777, 3, 0, 1), check<Codes>(1, 1, 1, 0, 1), check<Codes>(129, 128, 2, 1, 1);
  check<Codes>(64, 129, 1, 0, 3), check<Codes>(700, 640, 2, 2, 1), check<Codes>(2560, 2560, 4, 0, 1);
  check<Codes>(512, 8704, 2, 0, 1), check<Codes>(512, 8704, 2, 2, 3);
}

template <bool Codes> static void time_one(Problem *p, double seconds) {
  const double flop = 4.0 * p->sq * p->sk * 3072, codes = timed([&] { lab_codes(&p->x, !Codes); }, 0.1);
  const double ms = timed([&] { lab_attention<Codes>(&device, &p->x); }, seconds);
  printf("%5d x %5d, %s scores: codes %.3f ms; attention %.3f ms = %.0f TFLOP/s\n", p->sq, p->sk,
         Codes ? "int8" : "bf16", codes, ms, flop / ms * 1e-9);
  fflush(stdout);
}

int main(int argc, char **argv) {
  const double seconds = argc > 1 ? atof(argv[1]) : 0.5;
  cudaDriverEntryPointQueryResult found;
  TRY(cudaDeviceGetAttribute(&device.sms, cudaDevAttrMultiProcessorCount, 0));
  TRY(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", (void **)&device.encode_map, 12000, cudaEnableDefault,
                                       &found));
  check_all<true>();
  check_all<false>();
  const int sizes[][2] = {{8704, 8704}, {4608, 8704}, {2560, 2560}};
  for (auto &z : sizes) {
    Problem p;
    make(&p, z[0], z[1], 24, 0, 1);
    time_one<true>(&p, seconds);
    time_one<false>(&p, seconds);
    time_one<true>(&p, seconds);
    time_one<false>(&p, seconds);
    drop(&p);
  }
  return 0;
}
