/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU backend: float32, the specification of every op and the way to run small models anywhere. libc, threads and
 * one matrix product (cpu-gemm.c) only. This file: memory, events and the op table; the ops are in cpu-*.c.
 *
 * Ops run when they are called, so nothing is in flight: an event has been reached when it is recorded. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "cpu.h"
#include "host.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define FK_CPU_MAX_THREADS 256

/* Processors this process may run on. */
static int processors(void) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  long online = sysconf(_SC_NPROCESSORS_ONLN);
  return online > 0 ? (int)online : 1;
}

/* What was asked for, else FK_THREADS, else one for each processor; 0 with a message: a number that cannot be had. */
static int choose_threads(int asked, char *message, size_t size) {
  const char *text = secure_getenv("FK_THREADS");
  char *end = NULL;
  if (asked == 0 && text && *text) {
    const long number = strtol(text, &end, 10);
    asked = *end == 0 && number >= 0 && number <= FK_CPU_MAX_THREADS ? (int)number : -1;
  }
  if (asked >= 0 && asked <= FK_CPU_MAX_THREADS)
    return asked ? asked : (int)fk_cpu_min(processors(), FK_CPU_MAX_THREADS);
  if (end)
    snprintf(message, size, "FK_THREADS is '%.40s': expected a whole number from 0 to %d", text, FK_CPU_MAX_THREADS);
  else
    snprintf(message, size, "%d threads for the cpu backend: expected 0 to %d", asked, FK_CPU_MAX_THREADS);
  return 0;
}

static bool cpu_open(FkBackend *be, int device, char *message, size_t size) {
  (void)device; /* there is one */
  const int threads = choose_threads(be->threads, message, size);
  if (threads == 0) return false;
  int error = ENOMEM;
  FkCpu *cpu = calloc(1, sizeof *cpu);
  if (cpu) cpu->pool = fk_cpu_pool_new(threads, &error);
  if (!cpu || !cpu->pool) {
    free(cpu);
    be->failure = FK_FAIL_MEMORY; /* or of what the system allows, which is as temporary */
    snprintf(message, size, "cannot start %d thread%s for the cpu backend: %s", threads, threads == 1 ? "" : "s",
             strerror(error));
    return false;
  }
  be->priv = cpu;
  be->threads = threads;
  be->can = FK_CAN_FP8 | FK_CAN_QUANT_ATTENTION | FK_CAN_GIVEN_SCALE | FK_CAN_VALUE_CODES | FK_CAN_WEIGHT_CODES |
            fk_backend_host_device(be);
  be->dtype = FK_F32;
  snprintf(be->machine, sizeof be->machine, "cpu (%d thread%s)", threads, threads == 1 ? "" : "s");
  return true;
}

static void cpu_close(FkBackend *be) {
  FkCpu *cpu = be->priv;
  fk_cpu_pool_free(cpu->pool);
  free(cpu->partial);
  free(cpu);
  be->priv = NULL;
}

static void cpu_memory(FkBackend *be, size_t *free_bytes, size_t *total_bytes) {
  const FkHostMemory m = fk_host_memory("");
  (void)be;
  *total_bytes = m.total;
  *free_bytes = m.available;
}

/* Mapped: the C library would keep what a thread has freed for that thread. Not under sanitizers, which find what lies
 * outside a block of their own allocator alone. The page in front holds the length. */
#define HUGE_FROM (8u << 20) /* bytes of a block: four of the pages that x86-64 has */

#ifdef FK_CPU_SANITIZED
void *fk_cpu_block(size_t bytes) {
  void *memory;
  return posix_memalign(&memory, 256, bytes ? bytes : 1) == 0 ? memory : NULL;
}

void fk_cpu_block_free(void *memory) {
  free(memory);
}
#else
void *fk_cpu_block(size_t bytes) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), length = page + (bytes ? bytes : 1);
  if (length < bytes) return NULL;
  size_t *block = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (block == MAP_FAILED) return NULL;
  /* Weights are filled once, at 16000 small pages for 64 MiB: faults took two thirds of a load. */
  if (length >= HUGE_FROM) madvise(block, length, MADV_HUGEPAGE);
  *block = length;
  return (char *)block + page;
}

void fk_cpu_block_free(void *memory) {
  if (!memory) return;
  size_t *block = (size_t *)(void *)((char *)memory - sysconf(_SC_PAGESIZE));
  munmap(block, *block);
}
#endif

static bool cpu_reach(FkBackend *be, const void *memory, size_t bytes) {
  (void)be;
  (void)bytes;
  return memory != NULL;
}

static void *cpu_alloc(FkBackend *be, size_t bytes) {
  (void)be;
  return fk_cpu_block(bytes);
}

static void cpu_release(FkBackend *be, void *memory) {
  (void)be;
  fk_cpu_block_free(memory);
}

static void cpu_move(FkBackend *be, void *to, const void *from, size_t bytes) {
  (void)be;
  memcpy(to, from, bytes);
}

static void cpu_sync(FkBackend *be) {
  (void)be;
}

static void cpu_event_record(FkBackend *be, int event) {
  struct timespec now;
  assert(event >= 0 && event < FK_EVENTS);
  clock_gettime(CLOCK_MONOTONIC, &now);
  ((FkCpu *)be->priv)->event_ms[event] = (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static void cpu_event_wait(FkBackend *be, int event) {
  (void)be;
  (void)event;
}

static double cpu_elapsed_ms(FkBackend *be, int from, int to) {
  const FkCpu *cpu = be->priv;
  return cpu->event_ms[to] - cpu->event_ms[from];
}

/* Nothing is in flight: a copy is made where it is asked for, and so are numbers. */
static void cpu_stream_copy(FkBackend *be, int slot, void *to, const void *from, size_t bytes) {
  (void)be;
  (void)slot;
  memcpy(to, from, bytes);
}

static void cpu_stream_expand(FkBackend *be, int slot, FkTensor y, const FkCoded *x) {
  (void)slot;
  fk_cpu_expand(be, y, x);
}

static void cpu_stream_mark(FkBackend *be, int slot) {
  (void)be;
  (void)slot;
}

void fk_cpu_run(FkBackend *be, int64_t tasks, size_t scratch_floats, FkCpuTask run, const void *op) {
  if (!fk_cpu_pool_run(((FkCpu *)be->priv)->pool, tasks, scratch_floats, run, op))
    fk_backend_fail(be, FK_FAIL_MEMORY, "no memory for %zu bytes of scratch per thread",
                    scratch_floats * sizeof(float));
}

double *fk_cpu_partial(FkBackend *be, size_t count) {
  FkCpu *cpu = be->priv;
  if (count > cpu->partial_count) {
    free(cpu->partial);
    cpu->partial = malloc(count * sizeof *cpu->partial);
    cpu->partial_count = cpu->partial ? count : 0;
    if (!cpu->partial) fk_backend_fail(be, FK_FAIL_MEMORY, "no memory for %zu partial sums", count);
  }
  return cpu->partial;
}

const FkOps fk_cpu_ops = {
    .abi = FK_BACKEND_ABI,
    .sizes = FK_BACKEND_SIZES,
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .reach = cpu_reach,
    .memory = cpu_memory,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .upload = cpu_move,
    .download = cpu_move,
    .sync = cpu_sync,
    .event_record = cpu_event_record,
    .event_wait = cpu_event_wait,
    .elapsed_ms = cpu_elapsed_ms,
    .host_alloc = cpu_alloc,
    .host_release = cpu_release,
    .stream_copy = cpu_stream_copy,
    .stream_wait = cpu_stream_mark,
    .stream_done = cpu_stream_mark,
    .stream_expand = cpu_stream_expand,
    .linear = fk_cpu_linear,
    .layer_norm = fk_cpu_layer_norm,
    .rms_norm = fk_cpu_rms_norm,
    .rope = fk_cpu_rope,
    .attention = fk_cpu_attention,
    .act = fk_cpu_act,
    .add = fk_cpu_add,
    .mul = fk_cpu_mul,
    .gate_add = fk_cpu_gate_add,
    .copy = fk_cpu_copy,
    .embed = fk_cpu_embed,
    .gather_rows = fk_cpu_gather_rows,
    .quantize = fk_cpu_quantize,
    .expand = fk_cpu_expand,
    .conv = fk_cpu_conv,
    .group_norm = fk_cpu_group_norm,
    .upsample = fk_cpu_upsample,
    .pack = fk_cpu_pack,
    .unpack = fk_cpu_unpack,
    .from_u8 = fk_cpu_from_u8,
    .to_u8 = fk_cpu_to_u8,
    .resize = fk_cpu_resize,
    .frame_read = fk_cpu_frame_read,
    .frame_write = fk_cpu_frame_write,
    .frame_keep = fk_cpu_frame_keep,
    .mix = fk_cpu_mix,
    .invert = fk_cpu_invert,
    .window = fk_cpu_window,
    .bounds = fk_cpu_bounds,
    .mask_tokens = fk_cpu_mask_tokens,
    .combine = fk_cpu_combine,
    .distance = fk_cpu_distance,
    .check = fk_cpu_check,
    .match = fk_cpu_match,
    .mean_rows = fk_cpu_mean_rows,
    .linear_fused = fk_cpu_linear_fused,
    .conv_fused = fk_cpu_conv_fused,
    .group_norm_silu = fk_cpu_group_norm_silu,
};
