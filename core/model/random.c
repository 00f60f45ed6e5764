/* SPDX-License-Identifier: Apache-2.0 */
/* Noise of the first latent (stop "tokens" of an edit): torch.randn bit for bit, on the host.
 *
 * Two generators: mt19937 with torch's vectorised Box-Muller (torch-cpu), and Philox with CUDA's (torch-cuda). Both
 * transforms are reproduced operation by operation in float32, so fused multiply-adds stand exactly where fmaf() is
 * written and nowhere else: this file needs -ffp-contract=off. Rounding to bfloat16 and packing are not done here. */
#include "random.h"

#include <math.h>
#include <string.h>

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

/* fmaf() costs one instruction on CPUs that have it and a library call elsewhere; the result is the same. */
#if defined(__x86_64__) && defined(__GNUC__)
#define FK_INLINE static inline __attribute__((always_inline))
#define FK_WITH_FMA __attribute__((target("avx2,fma")))
#define FK_HAVE_FMA (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#else
#define FK_INLINE static inline
#define FK_WITH_FMA
#define FK_HAVE_FMA 0
#endif

static const double TWO_PI = 6.283185307179586476925286766559;

FK_INLINE uint32_t float_bits(float x) {
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}

FK_INLINE float bits_float(uint32_t u) {
  float x;
  memcpy(&x, &u, sizeof x);
  return x;
}

/* ---- mt19937 (spec 9.2) ---- */

#define MT_WORDS 624

typedef struct {
  uint32_t state[MT_WORDS];
  int next;
} Mt;

static void mt_seed(Mt *mt, uint64_t seed) {
  mt->state[0] = (uint32_t)seed; /* the high half of a 64-bit seed is ignored, as in torch */
  for (uint32_t j = 1; j < MT_WORDS; j++)
    mt->state[j] = 1812433253u * (mt->state[j - 1] ^ (mt->state[j - 1] >> 30)) + j;
  mt->next = MT_WORDS;
}

static uint32_t mt_mix(uint32_t high, uint32_t low) {
  uint32_t y = (high & 0x80000000u) | (low & 0x7fffffffu);
  return (y >> 1) ^ (-(y & 1u) & 0x9908b0dfu);
}

static void mt_twist(Mt *mt) {
  uint32_t *s = mt->state;
  int k = 0;
  for (; k < MT_WORDS - 397; k++) s[k] = s[k + 397] ^ mt_mix(s[k], s[k + 1]);
  for (; k < MT_WORDS - 1; k++) s[k] = s[k + 397 - MT_WORDS] ^ mt_mix(s[k], s[k + 1]);
  s[k] = s[396] ^ mt_mix(s[k], s[0]);
  mt->next = 0;
}

static uint32_t mt_u32(Mt *mt) {
  if (mt->next == MT_WORDS) mt_twist(mt);
  uint32_t y = mt->state[mt->next++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680u;
  y ^= (y << 15) & 0xefc60000u;
  return y ^ (y >> 18);
}

static float mt_uniform(Mt *mt) {
  return (float)(mt_u32(mt) & 0xffffffu) * 0x1p-24f;
}

static double mt_uniform_double(Mt *mt) {
  uint64_t high = mt_u32(mt);
  uint64_t word = (high << 32) | mt_u32(mt);
  return (double)(word & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;
}

/* ---- torch-cpu: Box-Muller of the AVX2 kernel (spec 9.3) ---- */

/* Cephes logf, one lane. 0 < x <= 1. */
FK_INLINE float cpu_log(float x) {
  if (x < 0x1p-126f) x = 0x1p-126f;
  uint32_t bits = float_bits(x);
  float e = (float)((int)(bits >> 23) - 126);
  float m = bits_float((bits & 0x007fffffu) | 0x3f000000u); /* [0.5, 1) */
  int low = m < 0.707106781186547524f;
  e = low ? e - 1.0f : e;
  x = low ? (m - 1.0f) + m : m - 1.0f;
  float z = x * x;
  float y = 7.0376836292e-2f;
  y = fmaf(y, x, -1.1514610310e-1f);
  y = fmaf(y, x, 1.1676998740e-1f);
  y = fmaf(y, x, -1.2420140846e-1f);
  y = fmaf(y, x, 1.4249322787e-1f);
  y = fmaf(y, x, -1.6668057665e-1f);
  y = fmaf(y, x, 2.0000714765e-1f);
  y = fmaf(y, x, -2.4999993993e-1f);
  y = fmaf(y, x, 3.3333331174e-1f);
  y = y * x;
  y = fmaf(y, z, e * -2.12194440e-4f);
  y = fmaf(-z, 0.5f, y);
  x = x + y;
  return fmaf(e, 0.693359375f, x);
}

/* Cephes sine and cosine of x >= 0, one lane. */
FK_INLINE void cpu_sincos(float x, float *sine, float *cosine) {
  int j = ((int)(x * 1.27323954473516f) + 1) & ~1; /* even octant */
  float y = (float)j;
  x = fmaf(y, -0.78515625f, x);
  x = fmaf(y, -2.4187564849853515625e-4f, x);
  x = fmaf(y, -3.77489497744594108e-8f, x);
  float z = x * x;
  float c = 2.443315711809948e-5f;
  c = fmaf(c, z, -1.388731625493765e-3f);
  c = fmaf(c, z, 4.166664568298827e-2f);
  c = c * z;
  c = fmaf(c, z, -(z * 0.5f)) + 1.0f;
  float s = -1.9515295891e-4f;
  s = fmaf(s, z, 8.3321608736e-3f);
  s = fmaf(s, z, -1.6666654611e-1f);
  s = s * z;
  s = fmaf(s, x, x);
  float sn = j & 2 ? c : s, cs = j & 2 ? s : c;
  *sine = j & 4 ? -sn : sn;
  *cosine = ~(j - 2) & 4 ? -cs : cs;
}

/* Turns each block of 16 uniforms into 16 normals: element j pairs with element j + 8. */
FK_INLINE void cpu_blocks_body(float *d, int64_t blocks) {
  for (int64_t b = 0; b < blocks; b++, d += 16) {
    float radius[8];
    for (int j = 0; j < 8; j++) radius[j] = -2.0f * cpu_log(1.0f - d[j]);
    for (int j = 0; j < 8; j++) radius[j] = sqrtf(radius[j]);
    for (int j = 0; j < 8; j++) {
      float s, c;
      cpu_sincos(6.283185307179586f * d[j + 8], &s, &c);
      d[j] = radius[j] * c + 0.0f; /* + mean 0: turns -0 into +0, as torch does */
      d[j + 8] = radius[j] * s + 0.0f;
    }
  }
}

static void cpu_blocks_generic(float *d, int64_t blocks) {
  cpu_blocks_body(d, blocks);
}

FK_WITH_FMA static void cpu_blocks_fma(float *d, int64_t blocks) {
  cpu_blocks_body(d, blocks);
}

static void cpu_blocks(float *d, int64_t blocks) {
  if (FK_HAVE_FMA)
    cpu_blocks_fma(d, blocks);
  else
    cpu_blocks_generic(d, blocks);
}

/* Fewer than 16 elements: scalar Box-Muller in double, both results used in turn (spec 9.5). */
static void cpu_few(float *out, int64_t n, Mt *mt) {
  for (int64_t i = 0; i < n; i += 2) {
    double u1 = mt_uniform_double(mt);
    double u2 = mt_uniform_double(mt);
    double radius = sqrt(-2.0 * log1p(-u2));
    double angle = TWO_PI * u1;
    out[i] = (float)(radius * cos(angle));
    if (i + 1 < n) out[i + 1] = (float)(radius * sin(angle));
  }
}

static void cpu_normal(float *out, int64_t n, uint64_t seed) {
  Mt mt;
  mt_seed(&mt, seed);
  if (n < 16) {
    cpu_few(out, n, &mt);
    return;
  }
  for (int64_t i = 0; i < n; i++) out[i] = mt_uniform(&mt);
  cpu_blocks(out, n / 16);
  if (n % 16 == 0) return;
  float *tail = out + n - 16; /* drawn anew; overwrites the end of the last complete block */
  for (int i = 0; i < 16; i++) tail[i] = mt_uniform(&mt);
  cpu_blocks(tail, 1);
}

/* ---- torch-cuda: Philox and the device's Box-Muller (spec 9.6) ---- */

void fk_noise_philox(uint32_t words[4], uint64_t seed, uint64_t offset, uint64_t thread) {
  uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
  uint32_t c0 = (uint32_t)(offset / 4), c1 = (uint32_t)(offset / 4 >> 32);
  uint32_t c2 = (uint32_t)thread, c3 = (uint32_t)(thread >> 32);
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = UINT64_C(0xd2511f53) * c0, p1 = UINT64_C(0xcd9e8d57) * c2;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ key0;
    c1 = (uint32_t)p1;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ key1;
    c3 = (uint32_t)p0;
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

/* logf of the CUDA math library for normal x > 0, coefficients as nvcc emits them. The mantissa is taken around 1 by
 * subtracting the bits of 2/3 before masking the exponent. */
FK_INLINE float cuda_log(float x) {
  uint32_t bits = float_bits(x);
  uint32_t exponent = (bits - 0x3f2aaaabu) & 0xff800000u;
  float f = bits_float(bits - exponent) - 1.0f;
  float e = (float)(int32_t)exponent * 0x1p-23f;
  float r = bits_float(0xbe055027u);
  r = fmaf(r, f, bits_float(0x3e1039f6u));
  r = fmaf(r, f, bits_float(0xbdf8cdccu));
  r = fmaf(r, f, bits_float(0x3e0f2955u));
  r = fmaf(r, f, bits_float(0xbe2ad8b9u));
  r = fmaf(r, f, bits_float(0x3e4ced0bu));
  r = fmaf(r, f, bits_float(0xbe7fff22u));
  r = fmaf(r, f, bits_float(0x3eaaaa78u));
  r = fmaf(r, f, -0.5f);
  r = r * f;
  r = fmaf(r, f, f);
  return fmaf(e, bits_float(0x3f317218u), r);
}

/* Sine table of the special function unit: value (26 bits), slope (15), curvature (11, negative) at 64 points of a
 * quarter turn. Contents of the hardware's ROM; measured first for the envytools project (nvhw/sfu_tab.c) on older
 * chips, and reproducing the published H200 values of spec 13.3 to the bit. */
static const struct {
  int32_t value, slope, curve;
} SFU_SIN[64] = {
    {0x0000000, 0x6489, -14},   {0x019214e, 0x6482, -48},   {0x0323ec8, 0x646a, -76},   {0x04b547c, 0x6444, -110},
    {0x0645e94, 0x640d, -137},  {0x07d5934, 0x63c8, -171},  {0x096407a, 0x6373, -201},  {0x0af109c, 0x630e, -229},
    {0x0c7c5ba, 0x629b, -262},  {0x0e05c10, 0x6218, -292},  {0x0f8cfc8, 0x6186, -322},  {0x1111d24, 0x60e5, -352},
    {0x129405e, 0x6035, -381},  {0x14135ca, 0x5f76, -410},  {0x158f9a2, 0x5ea9, -441},  {0x170884c, 0x5dcd, -470},
    {0x187de2a, 0x5ce2, -497},  {0x19ef796, 0x5be9, -525},  {0x1b5d0fe, 0x5ae2, -553},  {0x1cc66e8, 0x59cd, -581},
    {0x1e2b5d4, 0x58aa, -608},  {0x1f8ba48, 0x577a, -637},  {0x20e70ec, 0x563c, -664},  {0x223d66c, 0x54f0, -688},
    {0x238e760, 0x5398, -715},  {0x24da0a8, 0x5232, -738},  {0x261fefc, 0x50c0, -763},  {0x275ff44, 0x4f42, -790},
    {0x2899e5e, 0x4db7, -812},  {0x29cd952, 0x4c21, -839},  {0x2afad20, 0x4a7e, -859},  {0x2c216e4, 0x48d0, -881},
    {0x2d413ca, 0x4717, -904},  {0x2e5a104, 0x4553, -926},  {0x2f6bbe4, 0x4384, -946},  {0x30761be, 0x41ab, -967},
    {0x3179008, 0x3fc8, -988},  {0x327444c, 0x3dda, -1004}, {0x3367c04, 0x3be4, -1025}, {0x34534f2, 0x39e4, -1043},
    {0x3536cc0, 0x37db, -1059}, {0x361214e, 0x35c9, -1074}, {0x36e5064, 0x33b0, -1093}, {0x37af812, 0x318e, -1107},
    {0x3871658, 0x2f65, -1123}, {0x392a960, 0x2d34, -1136}, {0x39daf5c, 0x2afc, -1148}, {0x3a82698, 0x28be, -1162},
    {0x3b20d7a, 0x2679, -1172}, {0x3bb6274, 0x242f, -1185}, {0x3c4241c, 0x21df, -1196}, {0x3cc511e, 0x1f89, -1203},
    {0x3d3e82c, 0x1d2f, -1213}, {0x3dae822, 0x1ad0, -1220}, {0x3e14fda, 0x186e, -1230}, {0x3e71e78, 0x1607, -1236},
    {0x3ec52fc, 0x139d, -1242}, {0x3f0eca0, 0x1130, -1247}, {0x3f4eab2, 0x0ec0, -1250}, {0x3f84c8e, 0x0c4f, -1258},
    {0x3fb11b2, 0x09db, -1260}, {0x3fd39ba, 0x0765, -1260}, {0x3fec43c, 0x04ef, -1263}, {0x3ffb10c, 0x0278, -1265},
};

/* The unit's squarer drops the low half of every partial product of x * x (x of 17 bits, result of 16). */
FK_INLINE uint32_t sfu_square(uint32_t x) {
  uint32_t sum = 0;
  for (int i = 0; i < 17; i++) sum += (x >> (18 - i)) & -(x >> i & 1u);
  return sum >> 1;
}

/* sin.approx (quarter = 0) or cos.approx (quarter = 1) of an angle in turns, 0 <= turns <= 1: the angle is cut to
 * 2^-25 turns, folded into a quarter turn, interpolated in fixed point and normalised by truncation. */
FK_INLINE float sfu_sine(float turns, uint32_t quarter) {
  uint32_t angle = (uint32_t)(turns * 0x1p25f);
  uint32_t fraction = angle & 0x7fffffu;
  quarter += angle >> 23;
  if (quarter & 1) fraction = ~fraction & 0x7fffffu;
  uint32_t i = fraction >> 17, x = fraction & 0x1ffffu;
  int64_t sum = (int64_t)SFU_SIN[i].value * 2048 + (int64_t)SFU_SIN[i].slope * x +
                (int64_t)SFU_SIN[i].curve * sfu_square(x); /* value * 2^37 */
  float magnitude = (float)sum;                            /* rounded to 24 bits; step back where that went up */
  if ((int64_t)magnitude > sum) magnitude = bits_float(float_bits(magnitude) - 1);
  magnitude *= 0x1p-37f;
  return quarter & 2 ? -magnitude : magnitude;
}

/* Component ii (0..3) of the four normals made from one thread's words: sine then cosine of each pair. */
FK_INLINE float cuda_normal(const uint32_t words[4], int ii) {
  const uint32_t *pair = words + (ii & 2);
  float u = fmaf((float)pair[0], 0x1p-32f, 0x1p-33f);
  float v = fmaf((float)pair[1], bits_float(0x30c90fdbu), bits_float(0x30490fdbu)); /* 2 pi / 2^32, half of it */
  float radius = sqrtf(-2.0f * cuda_log(u));
  /* The unit wants turns: a float32 product rounded towards zero. It is exact in double (48 bits). */
  double turns = (double)v * (double)0.15915494f;
  float cut = (float)turns;
  if ((double)cut > turns) cut = bits_float(float_bits(cut) - 1);
  return radius * sfu_sine(cut, ii & 1);
}

FK_INLINE void cuda_fill_body(float *out, int64_t n, uint64_t seed, uint64_t offset, int64_t threads) {
  for (int64_t k = 0; 4 * k * threads < n; k++) {
    for (int64_t idx = 0; idx < threads && idx + 4 * k * threads < n; idx++) {
      uint32_t words[4];
      fk_noise_philox(words, seed, offset + 4 * (uint64_t)k, (uint64_t)idx);
      int64_t element = idx + 4 * k * threads;
      for (int ii = 0; ii < 4 && element < n; ii++, element += threads) out[element] = cuda_normal(words, ii);
    }
  }
}

static void cuda_fill_generic(float *out, int64_t n, uint64_t seed, uint64_t offset, int64_t threads) {
  cuda_fill_body(out, n, seed, offset, threads);
}

FK_WITH_FMA static void cuda_fill_fma(float *out, int64_t n, uint64_t seed, uint64_t offset, int64_t threads) {
  cuda_fill_body(out, n, seed, offset, threads);
}

static int64_t cuda_threads(int64_t n, int sms, int blocks_per_sm) {
  int64_t blocks = (n + 255) / 256, limit = (int64_t)sms * blocks_per_sm;
  return 256 * (blocks < limit ? blocks : limit);
}

uint64_t fk_noise_cuda_advance(int64_t n, int sms, int blocks_per_sm) {
  if (n <= 0) return 0;
  return ((uint64_t)(n - 1) / (uint64_t)(4 * cuda_threads(n, sms, blocks_per_sm)) + 1) * 4;
}

void fk_noise_cuda(float *out, int64_t n, uint64_t seed, uint64_t offset, int sms, int blocks_per_sm) {
  if (n <= 0) return;
  int64_t threads = cuda_threads(n, sms, blocks_per_sm);
  if (FK_HAVE_FMA)
    cuda_fill_fma(out, n, seed, offset, threads);
  else
    cuda_fill_generic(out, n, seed, offset, threads);
}

void fk_noise_normal(float *out, int64_t n, uint64_t seed, FkRng rng) {
  if (rng == FK_RNG_TORCH_CUDA)
    fk_noise_cuda(out, n, seed, 0, FK_NOISE_CUDA_SMS, FK_NOISE_CUDA_BLOCKS_PER_SM);
  else
    cpu_normal(out, n, seed);
}
