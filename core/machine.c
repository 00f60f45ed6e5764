/* SPDX-License-Identifier: Apache-2.0 */
/* A device by itself, without a model: what it is called, its memory, and the rates that bound every op: a large matrix
 * product and the sum of two large arrays, by the op line that edits use. */
#include "fk.h"
#include "ops.h"

#include <string.h>

/* Sides of the square product and of the arrays, which fill the machine and take some milliseconds; a GPU runs several
 * before it is waited for, so that starting them costs nothing. */
typedef struct {
  int64_t product, array;
  int runs;
} Sizes;

/* Numbers in [-1, 1): a GPU's clock, and so its rate, depends on the bits that it moves. */
static bool fill(FkBackend *be, void *memory, size_t bytes) {
  enum { BLOCK = 1 << 20 };
  g_autofree uint8_t *block = g_malloc(BLOCK * sizeof(float));
  uint32_t state = 1;
  for (int i = 0; i < BLOCK; i++) {
    state = state * 1664525u + 1013904223u;
    const float value = (float)(int32_t)state / 2147483648.0f;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (be->dtype == FK_F32)
      memcpy(block + (size_t)i * 4, &bits, 4);
    else
      memcpy(block + (size_t)i * 2, (uint8_t *)&bits + 2, 2); /* bfloat16: the upper half, little-endian */
  }
  const size_t step = BLOCK * fk_dtype_size(be->dtype);
  for (size_t at = 0; at < bytes; at += step) be->ops->upload(be, (char *)memory + at, block, MIN(step, bytes - at));
  return fk_backend_sync(be);
}

static void multiply(FkBackend *be, void *memory, int64_t n) {
  char *at = memory;
  const size_t bytes = (size_t)(n * n) * fk_dtype_size(be->dtype);
  const FkWeight w = {.data = at + bytes, .dtype = be->dtype, .out = n, .in = n};
  const FkLinear l = {
      .x = fk_tensor_2d(at, be->dtype, n, n), .y = fk_tensor_2d(at + 2 * bytes, be->dtype, n, n), .w = w};
  fk_op_linear(be, NULL, &l, 1);
}

static void add(FkBackend *be, void *memory, int64_t n) {
  char *at = memory;
  const size_t bytes = (size_t)(n * n) * fk_dtype_size(be->dtype);
  fk_op_add(be, fk_tensor_2d(at + 2 * bytes, be->dtype, n, n), fk_tensor_2d(at, be->dtype, n, n),
            fk_tensor_2d(at + bytes, be->dtype, n, n));
}

/* Seconds of one run: the best of five rounds of `runs`, after one that does not count; 0 after a failure. */
static double best_time(FkBackend *be, void (*run)(FkBackend *, void *, int64_t), void *memory, int64_t n, int runs) {
  enum { ROUNDS = 5 };
  double best = 0;
  run(be, memory, n);
  for (int i = 0; fk_backend_sync(be) && i < ROUNDS; i++) {
    const gint64 start = g_get_monotonic_time();
    for (int k = 0; k < runs; k++) run(be, memory, n);
    if (!fk_backend_sync(be)) return 0;
    const double s = (double)(g_get_monotonic_time() - start) / 1e6 / runs;
    best = i && best < s ? best : s;
  }
  return best;
}

static bool measure(FkBackend *be, FkMachine *m) {
  const bool wide = be->dtype == FK_F32; /* the CPU */
  const Sizes sizes = wide ? (Sizes){1536, 4096, 1} : (Sizes){8192, 16384, 4};
  const int64_t largest = MAX(sizes.product, sizes.array);
  const size_t bytes = 3 * (size_t)(largest * largest) * fk_dtype_size(be->dtype);
  void *memory = be->ops->alloc(be, bytes);
  if (!memory) {
    fk_backend_fail(be, FK_FAIL_MEMORY, "measuring its rates takes %zu bytes of memory", bytes);
    return false;
  }
  if (fill(be, memory, bytes)) {
    const double product = best_time(be, multiply, memory, sizes.product, sizes.runs), n = (double)sizes.product;
    const double sum = best_time(be, add, memory, sizes.array, sizes.runs), area = (double)(sizes.array * sizes.array);
    if (product > 0) m->tflops = 2 * n * n * n / product / 1e12;
    if (sum > 0) m->tbs = 3 * area * (double)fk_dtype_size(be->dtype) / sum / 1e12;
  }
  be->ops->release(be, memory);
  return be->failure == FK_FAIL_NONE;
}

static int code_of(FkFailure failure) {
  return failure == FK_FAIL_MEMORY   ? FK_ERROR_MEMORY
         : failure == FK_FAIL_DEVICE ? FK_ERROR_DEVICE
                                     : FK_ERROR_BACKEND_MISSING;
}

bool fk_machine(const char *backend, int device, bool rates, FkMachine *machine, GError **error) {
  char message[256] = "";
  FkFailure failure = FK_FAIL_NONE;
  *machine = (FkMachine){0};
  if (strcmp(backend, "cpu") && strcmp(backend, "cuda")) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "backend \"%s\": expected cpu or cuda", backend);
    return false;
  }
  FkBackend *be = fk_backend_open(backend, device, 0, &failure, message, sizeof message);
  if (!be) {
    g_set_error(error, FK_ERROR, code_of(failure), "backend=%s: %s", backend, message);
    return false;
  }
  g_strlcpy(machine->name, be->machine, sizeof machine->name);
  be->ops->memory(be, &machine->free_bytes, &machine->total_bytes);
  const bool ok = !rates || measure(be, machine);
  if (!ok) g_set_error(error, FK_ERROR, code_of(be->failure), "%s: %s", machine->name, be->message);
  fk_backend_close(be);
  return ok;
}
