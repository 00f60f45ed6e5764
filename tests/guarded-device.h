/* SPDX-License-Identifier: Apache-2.0 */
/* Device memory that the host cannot follow, for an engine on the CPU backend: its pages are open while an op runs that
 * takes pictures, and in copies of the device's own. Every other access ends the process, as one to a GPU's memory
 * does. Behind each block lies a page that is never open. Pictures of one engine at a time. */
#ifndef GUARDED_DEVICE_H
#define GUARDED_DEVICE_H

#include "backend.h"

#include <glib.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct {
  uint8_t *base, *data; /* data: so that its end is the block's, to 16 bytes */
  size_t open;          /* bytes from base on, whole pages */
} GuardedBlock;

static struct {
  GuardedBlock block[32];
  const FkOps *own;
  FkOps ops;
} guarded;

static void guard(int protection) {
  for (size_t i = 0; i < G_N_ELEMENTS(guarded.block); i++)
    if (guarded.block[i].base)
      g_assert_cmpint(mprotect(guarded.block[i].base, guarded.block[i].open, protection), ==, 0);
}

#define GUARDED(slot, parameters, ...)                                                                                 \
  static void guarded_##slot parameters {                                                                              \
    guard(PROT_READ | PROT_WRITE);                                                                                     \
    guarded.own->slot(__VA_ARGS__);                                                                                    \
    guard(PROT_NONE);                                                                                                  \
  }
GUARDED(upload, (FkBackend * be, void *to, const void *from, size_t bytes), be, to, from, bytes)
GUARDED(download, (FkBackend * be, void *to, const void *from, size_t bytes), be, to, from, bytes)
GUARDED(copy, (FkBackend * be, FkTensor y, FkTensor x), be, y, x)
GUARDED(frame_read, (FkBackend * be, FkTensor y, const FkFrame *f, int left, int top, int first), be, y, f, left, top,
        first)
GUARDED(frame_write, (FkBackend * be, const FkFrame *f, FkTensor x), be, f, x)
GUARDED(frame_keep, (FkBackend * be, const FkFrame *to, const FkFrame *from, FkTensor before, FkTensor after), be, to,
        from, before, after)

static void *guarded_alloc(FkBackend *be, size_t bytes) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), open = (bytes + page - 1) / page * page;
  size_t i = 0;
  (void)be;
  while (i < G_N_ELEMENTS(guarded.block) && guarded.block[i].base) i++;
  g_assert_cmpuint(i, <, G_N_ELEMENTS(guarded.block));
  uint8_t *base = mmap(NULL, open + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  g_assert_true(base != MAP_FAILED);
  guarded.block[i] = (GuardedBlock){base, base + open - (bytes + 15) / 16 * 16, open};
  return guarded.block[i].data;
}

static void guarded_release(FkBackend *be, void *memory) {
  size_t i = 0;
  (void)be;
  while (i < G_N_ELEMENTS(guarded.block) && guarded.block[i].data != memory) i++;
  g_assert_cmpuint(i, <, G_N_ELEMENTS(guarded.block));
  g_assert_cmpint(munmap(guarded.block[i].base, guarded.block[i].open + (size_t)sysconf(_SC_PAGESIZE)), ==, 0);
  guarded.block[i] = (GuardedBlock){0};
}

/* Ops of this backend may follow such memory from now on. */
static inline void guarded_ops(FkBackend *be) {
  guarded.own = &fk_cpu_ops;
  guarded.ops = fk_cpu_ops;
  guarded.ops.upload = guarded_upload;
  guarded.ops.download = guarded_download;
  guarded.ops.copy = guarded_copy;
  guarded.ops.frame_read = guarded_frame_read;
  guarded.ops.frame_write = guarded_frame_write;
  guarded.ops.frame_keep = guarded_frame_keep;
  be->ops = &guarded.ops;
}

/* Another backend, for its memory. fk_backend_close */
static inline FkBackend *guarded_memory(void) {
  static FkOps memory;
  char message[256];
  FkFailure failure;
  FkBackend *be = fk_backend_open("cpu", 0, 1, &failure, message, sizeof message);
  g_assert_nonnull(be);
  guarded_ops(be);
  memory = guarded.ops;
  memory.alloc = guarded_alloc;
  memory.release = guarded_release;
  be->ops = &memory;
  return be;
}

#endif
