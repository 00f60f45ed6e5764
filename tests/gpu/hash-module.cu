/* SPDX-License-Identifier: Apache-2.0 */
/* Which op has other bytes? A CUDA module that is the real one (FK_REAL_MODULE), except that it hashes the output of
 * every op on the device, right after it, and writes one line an op to FK_HASHES when the backend is closed. Recordings
 * are off, so that every op passes by. hashes.py compares the edits of a process with each other: the first line that
 * differs names the op whose kernel races. The hashing kernels also change the timing between ops, which shows races
 * that kernels issued back to back hide. For run-on-gpu.sh. */
#include "../../kernels/module.cuh"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 1 << 20 }; /* lines */

typedef struct {
  const char *op;
  long rows, cols;
} Line;

static const FkOps *real;
static FkOps table;
static unsigned long long *hashes; /* on the device */
static Line *lines;
static int count;

/* Sum over all words of a mix of value and place: integers, so that the order of addition does not matter. */
__global__ void hash_kernel(const char *data, long rows, long words, long pitch, unsigned long long *out) {
  unsigned long long sum = 0;
  for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < rows * words; i += (long)gridDim.x * blockDim.x) {
    unsigned long long x =
        *(const unsigned *)(data + i / words * pitch + i % words * 4) + 0x9E3779B97F4A7C15ull * (i + 1);
    x = (x ^ x >> 31) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ x >> 29) * 0x94D049BB133111EBull;
    sum += x ^ x >> 32;
  }
  for (int s = 16; s; s /= 2) sum += __shfl_xor_sync(~0u, sum, s);
  if (threadIdx.x % 32 == 0) atomicAdd(out, sum);
}

static void note(FkBackend *be, const char *op, FkTensor t) {
  if (!t.data || be->failure || count == MOST) return;
  if (!hashes) {
    cudaMalloc(&hashes, MOST * sizeof *hashes);
    cudaMemset(hashes, 0, MOST * sizeof *hashes);
    lines = (Line *)calloc(MOST, sizeof *lines);
    cudaDeviceSynchronize();
  }
  const long size = (long)fk_dtype_size(t.dtype);
  long rows = (long)fk_tensor_rows(t), bytes = (long)fk_tensor_cols(t) * size, pitch = (long)t.ld * size;
  lines[count] = {op, rows, (long)fk_tensor_cols(t)};
  if (bytes % 4) bytes *= rows, rows = 1; /* pixels: dense */
  hash_kernel<<<264, 256, 0, ((FkCuda *)be->priv)->stream>>>((const char *)t.data, rows, bytes / 4, pitch,
                                                             hashes + count++);
}

/* What an op writes, from its arguments: the first tensor, or the output named in its description. */
static FkTensor output(FkTensor y, ...) {
  return y;
}
static FkTensor output(const FkLinear *l) {
  return l->y;
}
static FkTensor output(const FkAttention *a) {
  return fk_tensor_given(a->o_codes) ? a->o_codes : a->o;
}
static FkTensor output(const FkConv *c) {
  return c->y;
}
static FkTensor output(const FkGroupNorm *n) {
  return n->y;
}

/* An op of the table with the note after it; ops on groups note each of them. */
template <auto Slot> struct Hashed;
template <class First, class... Rest, void (*FkOps::*Slot)(FkBackend *, First, Rest...)> struct Hashed<Slot> {
  static inline const char *name;
  static void run(FkBackend *be, First first, Rest... rest) {
    (real->*Slot)(be, first, rest...);
    note(be, name, output(first));
  }
};
template <class First, bool (*FkOps::*Slot)(FkBackend *, const First *)> struct Hashed<Slot> {
  static inline const char *name;
  static bool run(FkBackend *be, const First *first) {
    const bool done = (real->*Slot)(be, first);
    if (done) note(be, name, output(first));
    return done;
  }
};

static void layer_norm(FkBackend *be, const FkLayerNorm *n, int groups) {
  real->layer_norm(be, n, groups);
  for (int i = 0; i < groups; i++) note(be, "layer_norm", n[i].y);
}

static bool layer_norm_quantized(FkBackend *be, const FkLayerNorm *n, int groups) {
  const bool done = real->layer_norm_quantized(be, n, groups);
  for (int i = 0; done && i < groups; i++) note(be, "layer_norm codes", n[i].y);
  return done;
}

static bool linear_fused(FkBackend *be, const FkLinear *l, int groups) {
  static const char *const names[] = {"linear act", "linear gate", "linear add", "linear qkv"};
  const bool done = real->linear_fused(be, l, groups);
  for (int i = 0; done && i < groups; i++) {
    const int64_t numbers = l[i].w.out - (fk_tensor_given(l[i].y_codes) ? fk_tensor_cols(l[i].y_codes) : 0);
    if (numbers) note(be, names[l->epilogue], fk_tensor_slice_cols(l[i].y, 0, numbers));
    note(be, names[l->epilogue], l[i].y_codes);
  }
  return done;
}

static void close_backend(FkBackend *be) {
  const char *path = getenv("FK_HASHES");
  unsigned long long *host = (unsigned long long *)malloc((size_t)count * sizeof *host + 1);
  cudaDeviceSynchronize();
  FILE *f = path ? fopen(path, "w") : NULL;
  if (f && cudaMemcpy(host, hashes, (size_t)count * sizeof *host, cudaMemcpyDeviceToHost) == cudaSuccess)
    for (int i = 0; i < count; i++)
      fprintf(f, "%s\t%ld x %ld\t%016llx\n", lines[i].op, lines[i].rows, lines[i].cols, host[i]);
  if (f) fclose(f);
  free(host);
  real->close(be);
}

#define HASH(slot) Hashed<&FkOps::slot>::name = #slot, table.slot = Hashed<&FkOps::slot>::run

extern "C" __attribute__((visibility("default"))) const FkOps *fk_cuda_backend(void);
const FkOps *fk_cuda_backend(void) {
  void *module = real ? NULL : dlopen(getenv("FK_REAL_MODULE"), RTLD_NOW | RTLD_LOCAL);
  if (real) return &table;
  if (!module) {
    fprintf(stderr, "%s\n", dlerror());
    return NULL;
  }
  real = ((const FkOps *(*)(void))dlsym(module, "fk_cuda_backend"))();
  table = *real;
  table.graph_begin = NULL;
  table.close = close_backend;
  table.layer_norm = layer_norm;
  table.layer_norm_quantized = layer_norm_quantized;
  table.linear_fused = linear_fused;
  HASH(linear), HASH(rms_norm), HASH(rope), HASH(attention), HASH(act), HASH(add), HASH(mul), HASH(gate_add);
  HASH(copy), HASH(embed), HASH(gather_rows), HASH(quantize), HASH(conv), HASH(expand), HASH(group_norm),
      HASH(upsample), HASH(pack), HASH(unpack);
  HASH(from_u8), HASH(to_u8), HASH(combine), HASH(distance), HASH(match), HASH(mean_rows);
  HASH(conv_fused), HASH(group_norm_silu), HASH(flash_attention);
  return &table;
}
