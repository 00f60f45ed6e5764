/* SPDX-License-Identifier: Apache-2.0 */
/* Operands for the tests of the CUDA ops: every tensor exists twice, in float32 on the CPU backend and in its own dtype
 * on the CUDA backend, with the same values (those that the CUDA dtype holds). Outputs start as NaN, and so does all
 * memory between and behind rows: it must neither be read nor written. Of a large tensor whose rows do not depend on
 * each other the CPU has a sample of the rows (row_operand, sample_rows), among them the first and the last.
 *
 * Measure: |gpu - cpu| / |cpu| in the Euclidean norm. bf16 results carry one rounding, 1.7e-3 for mantissas spread
 * evenly, and where an operand was rounded inside (softmax weights, a composition's intermediate) a second: 4e-3 lets
 * two pass and no third. Float32 results differ by the order of sums and by device functions good to a few units of the
 * last place: 1e-5. Integers must be equal.
 *
 * Sums of products of E4M3 codes with a mean shrink by what is cut, every element alike: 1e-3 allowed of the mean over
 * all elements (`sums`), in which their rounding to bf16 cancels. Without a mean the sum of n products is 1/sqrt(n) of
 * what was added, but each addition is still cut 13 bits below its largest operand: by an emulation of that, promoted
 * each 1024 keys, 3.9e-3 of the result at 1024 keys, 4.9e-3 at 2113 and 1.0e-2 at 8704, where the codes themselves
 * cost 3.8e-2: 1.5e-2 allowed (`cut`).
 *
 * Sums of products of E4M3 codes are cut in Hopper's tensor cores (kernels/linear_fp8.h), 1.1e-3 at K = 3072 and less
 * above 4096: with one or two roundings to bf16 2e-3 to 2.7e-3, so 4e-3 holds there too. Codes of `quantize` and their
 * scales are equal bit by bit. Codes of a layer norm may be the CPU's neighbours where its float32 value, whose
 * statistics are summed in another order, falls to the other side of a tie: one in some ten thousand, 1e-3 allowed. */
#ifndef FK_TEST_OPERANDS_H
#define FK_TEST_OPERANDS_H

#include "number.h"
#include "ops.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CPU, GPU, SIDES };
enum { GUARD = 256, MOST = 256 }; /* elements behind a tensor; tensors of a case */
enum { NORMALS = (1 << 19) - 1 }; /* random numbers that are drawn; a prime, so that rows differ */

typedef enum { OUTPUT, NORMAL, INDEX, BYTES } Fill;
/* Distance of an output's sides: in the Euclidean norm; share of elements with other bits; share of neighbouring codes.
 */
typedef enum { VALUES, BITS, CODES } Measure;

typedef struct {
  FkTensor t[SIDES];
  void *base[SIDES];      /* the memory behind it */
  size_t elements[SIDES]; /* of that memory, guard included */
  bool part;              /* t is a part of an operand, beside other values */
  int64_t sample;         /* rows that the CPU's side has; 0: all */
  bool sums;              /* sums of codes with a mean: their gain counts too */
  bool cut;               /* long sums of codes without a mean */
  Measure measure;
} Pair;

static FkBackend *side[SIDES];
static int first_side = CPU; /* GPU: operands for timing, nothing is compared */
static int64_t sample_rows;  /* of every row_operand with more; 0: all */
static void *held[SIDES][MOST];
static int holding;
static uint64_t random_state = 0x9E3779B97F4A7C15u;

static inline uint64_t random_bits(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

/* In (0, 1). */
static inline double random_unit(void) {
  return ((double)(random_bits() >> 12) + 0.5) / 4503599627370496.0;
}
/* N(0, 1), the same half a million again and again. */
static inline double random_normal(void) {
  static float *all;
  static int at;
  if (!all) {
    all = malloc(NORMALS * sizeof *all);
    if (!all) abort();
    for (int i = 0; i < NORMALS; i++)
      all[i] = (float)(sqrt(-2 * log(random_unit())) * cos(6.283185307179586 * random_unit()));
  }
  at = at + 1 < NORMALS ? at + 1 : 0;
  return all[at];
}

static inline uint16_t to_bf16(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

static inline float from_bf16(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

/* Writes v as element i of `data`; returns what was stored. */
static inline float put(void *data, FkDtype dtype, size_t i, float v) {
  if (dtype == FK_BF16) return from_bf16(((uint16_t *)data)[i] = to_bf16(v));
  if (dtype == FK_F16) return fk_f16_to_f32(((uint16_t *)data)[i] = fk_f32_to_f16(v));
  if (dtype == FK_E4M3) return fk_e4m3_to_f32(((uint8_t *)data)[i] = fk_f32_to_e4m3(v));
  if (dtype == FK_I32) return (float)(((int32_t *)data)[i] = (int32_t)v);
  if (dtype == FK_U8) return (float)(((uint8_t *)data)[i] = (uint8_t)v);
  return ((float *)data)[i] = v;
}

static inline float get(const void *data, FkDtype dtype, size_t i) {
  if (dtype == FK_BF16) return from_bf16(((const uint16_t *)data)[i]);
  if (dtype == FK_F16) return fk_f16_to_f32(((const uint16_t *)data)[i]);
  if (dtype == FK_E4M3) return fk_e4m3_to_f32(((const uint8_t *)data)[i]);
  if (dtype == FK_I8) return (float)((const int8_t *)data)[i];
  if (dtype == FK_I32) return (float)((const int32_t *)data)[i];
  if (dtype == FK_U8) return (float)((const uint8_t *)data)[i];
  return ((const float *)data)[i];
}

#define EACH_SIDE for (int s = first_side; s < SIDES; s++)

static inline void release_operands(void) {
  EACH_SIDE {
    side[s]->ops->sync(side[s]);
    for (int i = 0; i < holding; i++) side[s]->ops->release(side[s], held[s][i]);
  }
  holding = 0;
}

/* NORMAL: mean + scale * N(0, 1). INDEX: 0..scale-1. BYTES: 0..255. */
static inline float draw(Fill fill, double mean, double scale) {
  if (fill == NORMAL) return (float)(mean + scale * random_normal());
  return (float)(random_bits() % (uint64_t)(fill == BYTES ? 256 : scale));
}

/* Which row of all is number i of the sample. */
static inline int64_t sampled_row(int64_t i, int64_t sample, int64_t rows) {
  return sample > 1 ? i * (rows - 1) / (sample - 1) : 0;
}

/* What the CPU has for it: integers and codes stay what they are and all else is float32. */
static inline FkDtype cpu_dtype(FkDtype dtype) {
  return dtype == FK_BF16 || dtype == FK_F16 ? FK_F32 : dtype;
}

/* dims as in FkTensor; ld 0: dense. */
static inline Pair operand_of(int64_t sample, FkDtype dtype, int rank, const int64_t *dim, int64_t ld, Fill fill,
                              double mean, double scale) {
  Pair p = {.t[GPU] = {.dtype = dtype, .rank = rank, .ld = ld ? ld : dim[rank - 1]}};
  for (int i = 0; i < rank; i++) p.t[GPU].dim[i] = dim[i];
  const int64_t rows = fk_tensor_rows(p.t[GPU]), cols = fk_tensor_cols(p.t[GPU]);
  p.sample = sample && sample < rows ? sample : 0;
  p.t[CPU] = p.t[GPU];
  p.t[CPU].dtype = cpu_dtype(dtype);
  if (p.sample) p.t[CPU].dim[0] = p.sample;
  void *host[SIDES] = {NULL, NULL};
  EACH_SIDE {
    p.elements[s] = (size_t)(fk_tensor_rows(p.t[s]) * p.t[s].ld + GUARD);
    const size_t bytes = p.elements[s] * fk_dtype_size(p.t[s].dtype);
    host[s] = malloc(bytes);
    p.t[s].data = p.base[s] = held[s][holding] = side[s]->ops->alloc(side[s], bytes);
    if (!host[s] || !p.t[s].data) abort();
    memset(host[s], 0xFF, bytes); /* NaN in every float type */
  }
  holding++;
  for (int64_t r = 0, k = 0; fill != OUTPUT && r < rows; r++) {
    const bool both = host[CPU] && (!p.sample || r == sampled_row(k, p.sample, rows));
    for (int64_t c = 0; c < cols; c++) {
      const float v = put(host[GPU], dtype, (size_t)(r * p.t[GPU].ld + c), draw(fill, mean, scale));
      if (both) put(host[CPU], p.t[CPU].dtype, (size_t)(k * p.t[CPU].ld + c), v);
    }
    k += both;
  }
  EACH_SIDE {
    side[s]->ops->upload(side[s], p.t[s].data, host[s], p.elements[s] * fk_dtype_size(p.t[s].dtype));
    free(host[s]);
  }
  return p;
}

static inline Pair operand(FkDtype dtype, int rank, const int64_t *dim, int64_t ld, Fill fill, double mean,
                           double scale) {
  return operand_of(0, dtype, rank, dim, ld, fill, mean, scale);
}
/* A matrix of which the CPU may have a sample. */
static inline Pair row_operand(FkDtype dtype, int64_t rows, int64_t cols, int64_t ld, Fill fill, double mean,
                               double scale) {
  return operand_of(sample_rows, dtype, 2, (int64_t[]){rows, cols}, ld, fill, mean, scale);
}

static inline Pair vector(int64_t n, double mean, double scale) {
  return operand(FK_F32, 1, (int64_t[]){n}, 0, NORMAL, mean, scale);
}
static inline Pair matrix(FkDtype dtype, int64_t rows, int64_t cols, int64_t ld, double scale) {
  return operand(dtype, 2, (int64_t[]){rows, cols}, ld, NORMAL, 0, scale);
}
static inline Pair matrix_out(FkDtype dtype, int64_t rows, int64_t cols, int64_t ld) {
  return operand(dtype, 2, (int64_t[]){rows, cols}, ld, OUTPUT, 0, 0);
}
static inline Pair image(FkDtype dtype, int64_t h, int64_t w, int64_t c, double mean, double scale) {
  return operand(dtype, 3, (int64_t[]){h, w, c}, 0, NORMAL, mean, scale);
}
static inline Pair image_out(FkDtype dtype, int64_t h, int64_t w, int64_t c) {
  return operand(dtype, 3, (int64_t[]){h, w, c}, 0, OUTPUT, 0, 0);
}
static inline Pair indices(int64_t n, int64_t most) {
  return operand(FK_I32, 1, (int64_t[]){n}, 0, INDEX, 0, (double)most);
}

/* The absent operand on both sides. */
static inline Pair nothing(void) {
  return (Pair){0};
}

static inline FkWeight weight_of(Pair p, int s) {
  return (FkWeight){.data = p.t[s].data, .dtype = p.t[s].dtype, .out = p.t[s].dim[0], .in = p.t[s].dim[1]};
}

/* A scale for each row of a matrix, as a matrix of one column: the CPU may have a sample. */
static inline Pair row_scales(int64_t rows, Fill fill, double mean) {
  return row_operand(FK_F32, rows, 1, 0, fill, mean, mean / 10);
}
static inline FkTensor as_vector(FkTensor t) {
  return fk_tensor_1d(t.data, t.dtype, fk_tensor_rows(t));
}

/* One element, a value that both sides' types hold. */
static inline void set_element(Pair p, int64_t row, int64_t col, float v) {
  EACH_SIDE {
    uint32_t word = 0;
    put(&word, p.t[s].dtype, 0, v);
    side[s]->ops->upload(side[s], fk_tensor_at(p.t[s], row * p.t[s].ld + col), &word, fk_dtype_size(p.t[s].dtype));
  }
}

/* All memory behind one side of an operand; free() it. */
static inline void *fetch(Pair p, int s) {
  const size_t bytes = p.elements[s] * fk_dtype_size(p.t[s].dtype);
  void *host = malloc(bytes);
  if (!host) abort();
  side[s]->ops->download(side[s], host, p.base[s], bytes);
  return host;
}

/* ---- verdicts --------------------------------------------------------------------------------------------------- */

static const double tol_bf16 = 4e-3, tol_f32 = 1e-5, tol_codes = 1e-3, tol_gain = 1e-3, tol_cut = 1.5e-2;
static int tests, failures;

static inline void report(bool ok, const char *name, const char *detail) {
  tests++;
  failures += !ok;
  printf("%s %d - %s%s%s\n", ok ? "ok" : "not ok", tests, name, *detail ? " # " : "", detail);
}

/* How far two elements of `size` bytes are apart: 0 where their bits are equal, 1 where they are not; no limit for
 * codes that are not neighbours. */
static inline double apart(Measure measure, const uint8_t *a, const uint8_t *b, size_t size) {
  if (!memcmp(a, b, size)) return 0;
  const int x = *a & 0x80 ? -(*a & 0x7f) : *a, y = *b & 0x80 ? -(*b & 0x7f) : *b;
  return measure == BITS || abs(x - y) <= 1 ? 1 : INFINITY;
}

/* Distance of one output's two sides, or what is wrong with it; also that nothing was written around it. */
static inline bool compare(Pair p, double *distance, char *why, size_t why_size) {
  const FkTensor t = p.t[GPU], c = p.t[CPU];
  void *gpu = fetch(p, GPU), *cpu = fetch(p, CPU);
  const int64_t rows = fk_tensor_rows(t), cols = fk_tensor_cols(t);
  double error = 0, norm = 0, gain = 0;
  const bool values = p.measure == VALUES;
  size_t stray = 0, missing = 0;
  const size_t size = fk_dtype_size(t.dtype);
  const size_t first = (size_t)((char *)t.data - (char *)p.base[GPU]) / size;
  const size_t first_cpu = (size_t)((char *)c.data - (char *)p.base[CPU]) / fk_dtype_size(c.dtype);
  size_t passed = 0; /* bytes up to here were looked at, or belong to the tensor */
  for (int64_t row = 0; row <= rows && !p.part; row++) {
    const size_t begin = row < rows ? (first + (size_t)(row * t.ld)) * size : p.elements[GPU] * size;
    for (; passed < begin; passed++) stray += ((uint8_t *)gpu)[passed] != 0xFF;
    passed = begin + (size_t)cols * size;
  }
  for (int64_t row = 0, k = 0; row < rows; row++) {
    const bool both = !p.sample || row == sampled_row(k, p.sample, rows);
    for (int64_t col = 0; col < cols; col++) {
      const size_t at = first + (size_t)(row * t.ld + col), at_cpu = first_cpu + (size_t)(k * c.ld + col);
      const float g = get(gpu, t.dtype, at);
      missing += p.measure != BITS && !isfinite(g);
      if (!both) continue;
      if (!values) {
        error += apart(p.measure, (const uint8_t *)gpu + at * size, (const uint8_t *)cpu + at_cpu * size, size);
        norm++;
        continue;
      }
      const float r = get(cpu, c.dtype, at_cpu);
      error += ((double)g - r) * ((double)g - r);
      norm += (double)r * r;
      gain += ((double)g - r) * r;
    }
    k += both;
  }
  free(gpu);
  free(cpu);
  gain /= norm > 0 ? norm : 1;
  *distance = error / (norm > 0 ? norm : 1);
  if (values) *distance = sqrt(*distance);
  snprintf(why, why_size, "%zu not finite, %zu bytes written outside, gain %.1e", missing, stray, gain);
  return missing == 0 && stray == 0 && norm > 0 && (!p.sums || fabs(gain) <= tol_gain);
}

/* Ends a case: syncs, compares `n` outputs, frees all operands. */
static inline void same(const char *name, int n, const Pair *out) {
  char detail[400], why[128];
  bool ok = true;
  size_t used = 0;
  detail[0] = 0;
  for (int s = 0; s < SIDES; s++)
    if (!fk_backend_sync(side[s])) {
      ok = false;
      used += (size_t)snprintf(detail + used, sizeof detail - used, "%s: %s; ", side[s]->ops->name, side[s]->message);
      fk_backend_clear(side[s]);
    }
  for (int i = 0; ok && i < n; i++) {
    double d = 0;
    const FkDtype dtype = out[i].t[GPU].dtype;
    const double tol = out[i].measure == BITS    ? 0
                       : out[i].measure == CODES ? tol_codes
                       : out[i].cut              ? tol_cut
                       : dtype == FK_BF16        ? tol_bf16
                       : dtype == FK_F32         ? tol_f32
                                                 : 0;
    const bool whole = compare(out[i], &d, why, sizeof why);
    used += (size_t)snprintf(detail + used, sizeof detail - used, "%.2e%s%s ", d, whole && !out[i].sums ? "" : " ",
                             whole && !out[i].sums ? "" : why);
    ok = whole && d <= tol;
  }
  report(ok, name, detail);
  release_operands();
}

/* The GPU that is tested: environment DEVICE, default 0. */
static inline int device_asked(void) {
  const char *device = getenv("DEVICE");
  return device ? atoi(device) : 0;
}

/* False: no CUDA device, and the plan says why. */
static inline bool open_sides(void) {
  FkFailure failure;
  char message[256];
  setvbuf(stdout, NULL, _IOLBF, 0);
  side[CPU] = fk_backend_open("cpu", 0, 0, &failure, message, sizeof message);
  if (side[CPU]) side[GPU] = fk_backend_open("cuda", device_asked(), 0, &failure, message, sizeof message);
  if (!side[GPU])
    printf("1..0 # SKIP %s\n", message);
  else
    printf("# %s\n", side[GPU]->machine);
  return side[GPU] != NULL;
}

/* The exit status. */
static inline int close_sides(void) {
  printf("1..%d\n", tests);
  for (int s = 0; s < SIDES; s++) fk_backend_close(side[s]);
  return failures != 0;
}

#endif
