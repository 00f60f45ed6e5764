/* SPDX-License-Identifier: Apache-2.0 */
/* Backends for the loader's tests, without ops: "test host" has its memory in the host's address space, "test device"
 * takes weights through stage and commit as a GPU does, converts on its own, and fails when told to. */
#ifndef FK_TEST_WEIGHTS_BACKEND_H
#define FK_TEST_WEIGHTS_BACKEND_H

#include "backend.h"
#include "quantize.h"

#include <glib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BUFFERS FK_STAGING

typedef struct {
  FkOps ops;
  FkBackend be;
  int live;                   /* allocations not yet released */
  size_t allocated;           /* bytes of the last one */
  bool refuse;                /* the next allocation */
  int fail_commit;            /* the n-th commit marks a failure; 0: none */
  int fail_stage;             /* the n-th stage gives no buffer */
  int commits, stages, coded; /* coded: rows */
  void *buffer[BUFFERS];
  size_t buffer_size[BUFFERS];
  GThread *thread;
} TestBackend;

static inline void *test_alloc(FkBackend *be, size_t bytes) {
  TestBackend *t = be->priv;
  if (t->refuse) return NULL;
  t->live++;
  t->allocated = bytes;
  char *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
  memset(memory, 0xaa, bytes);
  return memory;
}

static inline void test_release(FkBackend *be, void *memory) {
  ((TestBackend *)be->priv)->live--;
  free(memory);
}

static inline void test_memory(FkBackend *be, size_t *free_bytes, size_t *total_bytes) {
  (void)be;
  *free_bytes = 12345;
  *total_bytes = 99999;
}

static inline void test_sync(FkBackend *be) {
  (void)be;
}

static inline void *test_stage(FkBackend *be, int buffer, size_t bytes) {
  TestBackend *t = be->priv;
  g_assert_true(t->thread == g_thread_self());
  g_assert_cmpint(buffer, >=, 0);
  g_assert_cmpint(buffer, <, BUFFERS);
  if (++t->stages == t->fail_stage) return NULL;
  if (bytes > t->buffer_size[buffer]) {
    free(t->buffer[buffer]);
    t->buffer[buffer] = malloc(bytes);
    t->buffer_size[buffer] = bytes;
  }
  memset(t->buffer[buffer], 0xee, bytes);
  return t->buffer[buffer];
}

static float bf16_value(uint16_t bits) {
  union {
    uint32_t bits;
    float value;
  } u = {.bits = (uint32_t)bits << 16};
  return u.value;
}

/* By the definition of binary16, in double. */
static float f16_value(uint16_t bits) {
  int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double value = exponent == 0    ? ldexp(fraction, -24)
                 : exponent == 31 ? (fraction ? NAN : INFINITY)
                                  : ldexp(1024 + fraction, exponent - 25);
  return (float)(bits & 0x8000 ? -value : value);
}

/* The nearer of the two bfloat16 around a finite value, ties to the even one. */
static uint16_t bf16_nearest(float value) {
  union {
    float value;
    uint32_t bits;
  } u = {.value = value};
  uint16_t low = (uint16_t)(u.bits >> 16), high = (uint16_t)(low + 1);
  double down = fabs((double)value - (double)bf16_value(low));
  double up = isinf(bf16_value(high)) ? fabs(ldexp(1, 128) - fabs((double)value))
                                      : fabs((double)bf16_value(high) - (double)value);
  return down < up || (down == up && low % 2 == 0) ? low : high;
}

static float value_of(const void *data, FkDtype dtype, int64_t i) {
  if (dtype == FK_F32) return ((const float *)data)[i];
  uint16_t bits = ((const uint16_t *)data)[i];
  return dtype == FK_BF16 ? bf16_value(bits) : f16_value(bits);
}

static inline void test_upload(FkBackend *be, void *to, const void *from, size_t bytes) {
  g_assert_true(((TestBackend *)be->priv)->thread == g_thread_self());
  memcpy(to, from, bytes);
}

static inline void test_commit(FkBackend *be, int buffer, void *to, FkDtype as, FkDtype from, size_t count) {
  TestBackend *t = be->priv;
  g_assert_true(t->thread == g_thread_self());
  if (++t->commits == t->fail_commit) {
    be->failure = FK_FAIL_DEVICE;
    g_strlcpy(be->message, "a copy failed on purpose", sizeof be->message);
    return;
  }
  if (as == from) memcpy(to, t->buffer[buffer], count * fk_dtype_size(as));
  for (size_t i = 0; i < count && as != from; i++) {
    float value = value_of(t->buffer[buffer], from, (int64_t)i);
    if (as == FK_F32)
      ((float *)to)[i] = value;
    else
      ((uint16_t *)to)[i] = bf16_nearest(value);
  }
}

/* For FkOps.commit_codes, which a backend has that makes codes itself. */
static inline void test_commit_codes(FkBackend *be, int buffer, void *codes, float *scales, FkDtype from, int64_t rows,
                                     int64_t cols) {
  TestBackend *t = be->priv;
  g_assert_true(t->thread == g_thread_self());
  float *row = g_new(float, (size_t)cols);
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t c = 0; c < cols; c++) row[c] = value_of(t->buffer[buffer], from, r * cols + c);
    scales[r] = fk_quant_row((uint8_t *)codes + r * cols, FK_E4M3, row, cols);
  }
  t->coded += (int)rows;
  g_free(row);
}

static inline TestBackend *backend_new(bool device) {
  TestBackend *t = g_new0(TestBackend, 1);
  t->ops = (FkOps){.abi = FK_BACKEND_ABI,
                   .name = device ? "test device" : "test host",
                   .alloc = test_alloc,
                   .release = test_release,
                   .memory = test_memory,
                   .upload = test_upload,
                   .sync = test_sync};
  if (device) {
    t->ops.stage = test_stage;
    t->ops.commit = test_commit;
  }
  t->be.ops = &t->ops;
  t->be.priv = t;
  t->be.dtype = device ? FK_BF16 : FK_F32;
  g_strlcpy(t->be.machine, "a test machine", sizeof t->be.machine);
  t->thread = g_thread_self();
  return t;
}

static inline void backend_free(TestBackend *t) {
  g_assert_cmpint(t->live, ==, 0);
  for (int i = 0; i < BUFFERS; i++) free(t->buffer[i]);
  g_free(t);
}

#endif
