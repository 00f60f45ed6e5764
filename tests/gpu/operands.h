/* SPDX-License-Identifier: Apache-2.0 */
/* Operands for the tests of the CUDA ops: every tensor exists twice, in float32 on the CPU backend and in its own dtype
 * on the CUDA backend, with the same values (those that the CUDA dtype holds). Outputs start as NaN, and so does all
 * memory between and behind rows: it must neither be read nor written.
 *
 * Measure: |gpu - cpu| / |cpu| in the Euclidean norm. bf16 results carry one rounding, 1.7e-3 for mantissas spread
 * evenly, and where an operand was rounded inside (softmax weights, a composition's intermediate) a second: 4e-3 lets
 * two pass and no third. Float32 results differ by the order of sums and by device functions good to a few units of the
 * last place: 1e-5. Integers must be equal. */
#ifndef FK_TEST_OPERANDS_H
#define FK_TEST_OPERANDS_H

#include "ops.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CPU, GPU, SIDES };
enum { GUARD = 256, MOST = 256 }; /* elements behind a tensor; tensors of a case */

typedef enum { OUTPUT, NORMAL, INDEX, BYTES } Fill;

typedef struct {
  FkTensor t[SIDES];
  void *base[SIDES]; /* the memory behind it */
  size_t elements;   /* of that memory, guard included */
  bool part;         /* t is a part of an operand, beside other values */
} Pair;

static FkBackend *side[SIDES];
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
static inline double random_normal(void) {
  return sqrt(-2 * log(random_unit())) * cos(6.283185307179586 * random_unit());
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
  if (dtype == FK_I32) return (float)(((int32_t *)data)[i] = (int32_t)v);
  if (dtype == FK_U8) return (float)(((uint8_t *)data)[i] = (uint8_t)v);
  return ((float *)data)[i] = v;
}

static inline float get(const void *data, FkDtype dtype, size_t i) {
  if (dtype == FK_BF16) return from_bf16(((const uint16_t *)data)[i]);
  if (dtype == FK_I32) return (float)((const int32_t *)data)[i];
  if (dtype == FK_U8) return (float)((const uint8_t *)data)[i];
  return ((const float *)data)[i];
}

static inline void release_operands(void) {
  for (int s = 0; s < SIDES; s++) {
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

/* dims as in FkTensor; ld 0: dense. On the CPU integers stay what they are and all else is float32. */
static inline Pair operand(FkDtype dtype, int rank, const int64_t *dim, int64_t ld, Fill fill, double mean,
                           double scale) {
  Pair p = {.t[GPU] = {.dtype = dtype, .rank = rank, .ld = ld ? ld : dim[rank - 1]}};
  for (int i = 0; i < rank; i++) p.t[GPU].dim[i] = dim[i];
  p.t[CPU] = p.t[GPU];
  p.t[CPU].dtype = dtype == FK_I32 || dtype == FK_U8 ? dtype : FK_F32;
  const int64_t rows = fk_tensor_rows(p.t[GPU]), cols = fk_tensor_cols(p.t[GPU]);
  p.elements = (size_t)(rows * p.t[GPU].ld + GUARD);
  void *host[SIDES];
  for (int s = 0; s < SIDES; s++) {
    const size_t bytes = p.elements * fk_dtype_size(p.t[s].dtype);
    host[s] = malloc(bytes);
    memset(host[s], 0xFF, bytes); /* NaN in every float type */
    p.t[s].data = p.base[s] = held[s][holding] = side[s]->ops->alloc(side[s], bytes);
    if (!p.t[s].data) abort();
  }
  holding++;
  for (int64_t r = 0; fill != OUTPUT && r < rows; r++)
    for (int64_t c = 0; c < cols; c++) {
      const size_t i = (size_t)(r * p.t[GPU].ld + c);
      put(host[CPU], p.t[CPU].dtype, i, put(host[GPU], dtype, i, draw(fill, mean, scale)));
    }
  for (int s = 0; s < SIDES; s++) {
    side[s]->ops->upload(side[s], p.t[s].data, host[s], p.elements * fk_dtype_size(p.t[s].dtype));
    free(host[s]);
  }
  return p;
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

/* All memory behind one side of an operand; free() it. */
static inline void *fetch(Pair p, int s) {
  const size_t bytes = p.elements * fk_dtype_size(p.t[s].dtype);
  void *host = malloc(bytes);
  side[s]->ops->download(side[s], host, p.base[s], bytes);
  return host;
}

/* ---- verdicts --------------------------------------------------------------------------------------------------- */

static const double tol_bf16 = 4e-3, tol_f32 = 1e-5;
static int tests, failures;

static inline void report(bool ok, const char *name, const char *detail) {
  tests++;
  failures += !ok;
  printf("%s %d - %s%s%s\n", ok ? "ok" : "not ok", tests, name, *detail ? " # " : "", detail);
}

/* Distance of one output's two sides, or what is wrong with it; also that nothing was written around it. */
static inline bool compare(Pair p, double *distance, char *why, size_t size) {
  const FkTensor t = p.t[GPU], c = p.t[CPU];
  void *gpu = fetch(p, GPU), *cpu = fetch(p, CPU);
  const int64_t rows = fk_tensor_rows(t), cols = fk_tensor_cols(t);
  double error = 0, norm = 0;
  size_t stray = 0, missing = 0;
  const int64_t first = ((char *)t.data - (char *)p.base[GPU]) / (int64_t)fk_dtype_size(t.dtype);
  for (size_t i = 0; i < p.elements; i++) {
    const int64_t at = (int64_t)i - first;
    const bool inside = at >= 0 && at / t.ld < rows && at % t.ld < cols;
    const float g = get(gpu, t.dtype, i), r = get(cpu, c.dtype, i);
    if (!inside && p.part) continue;
    if (!inside) {
      for (size_t b = 0; b < fk_dtype_size(t.dtype); b++)
        stray += ((uint8_t *)gpu)[i * fk_dtype_size(t.dtype) + b] != 0xFF;
      continue;
    }
    missing += !isfinite(g);
    error += ((double)g - r) * ((double)g - r);
    norm += (double)r * r;
  }
  free(gpu);
  free(cpu);
  *distance = sqrt(error / (norm > 0 ? norm : 1));
  snprintf(why, size, "%zu not finite, %zu bytes written outside", missing, stray);
  return missing == 0 && stray == 0 && norm > 0;
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
    const double tol = dtype == FK_BF16 ? tol_bf16 : dtype == FK_F32 ? tol_f32 : 0;
    const bool whole = compare(out[i], &d, why, sizeof why);
    used += (size_t)snprintf(detail + used, sizeof detail - used, "%.2e%s%s ", d, whole ? "" : " ", whole ? "" : why);
    ok = whole && d <= tol;
  }
  report(ok, name, detail);
  release_operands();
}

#define EACH_SIDE for (int s = 0; s < SIDES; s++)

/* False: no CUDA device, and the plan says why. */
static inline bool open_sides(void) {
  FkFailure failure;
  char message[256];
  setvbuf(stdout, NULL, _IOLBF, 0);
  side[CPU] = fk_backend_open("cpu", 0, 0, &failure, message, sizeof message);
  if (side[CPU]) side[GPU] = fk_backend_open("cuda", 0, 0, &failure, message, sizeof message);
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
