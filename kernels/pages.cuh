/* SPDX-License-Identifier: Apache-2.0 */
/* Host memory of the weight loader's ring. For module.cu. */
#ifndef FK_PAGES_CUH
#define FK_PAGES_CUH

#include "module.cuh"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

constexpr size_t FK_RING_ALL = FK_CUDA_RING * FK_CUDA_RING_BYTES, FK_HUGE_PAGE = 2 << 20;

/* Pages for the ring, got by a thread while the driver starts: it would get them one by one afterwards. */
struct FkPages {
  pthread_t thread;
  bool running;
  bool stop;    /* atomic: there is no device to need them */
  char *memory; /* NULL: refused */
};

static inline void *fk_pages_get(void *data) {
  FkPages *p = (FkPages *)data;
  void *memory = NULL;
  if (posix_memalign(&memory, FK_HUGE_PAGE, FK_RING_ALL) != 0) return NULL;
  madvise(memory, FK_RING_ALL, MADV_HUGEPAGE); /* fewer to pin; as good without */
  p->memory = (char *)memory;
  for (size_t at = 0; at < FK_RING_ALL && !__atomic_load_n(&p->stop, __ATOMIC_RELAXED); at += FK_HUGE_PAGE)
    memset(p->memory + at, 0, FK_HUGE_PAGE);
  return NULL;
}

static inline void fk_pages_start(FkPages *p) {
  *p = FkPages{};
  p->running = pthread_create(&p->thread, NULL, fk_pages_get, p) == 0;
}

/* (transfer full): free, once they are not pinned */
static inline char *fk_pages_finish(FkPages *p, bool wanted) {
  __atomic_store_n(&p->stop, !wanted, __ATOMIC_RELAXED);
  if (p->running) pthread_join(p->thread, NULL);
  return p->memory;
}

/* The driver's own memory where it cannot pin the process's. */
static inline cudaError_t fk_ring_pin(FkCuda *cu) {
  if (cu->pages && cudaHostRegister(cu->pages, FK_RING_ALL, cudaHostRegisterDefault) == cudaSuccess) {
    cu->ring_memory = cu->pages;
    return cudaSuccess;
  }
  cudaGetLastError();
  free(cu->pages);
  cu->pages = NULL;
  return cudaHostAlloc((void **)&cu->ring_memory, FK_RING_ALL, cudaHostAllocDefault);
}

/* Of both. */
static inline void fk_ring_release(FkCuda *cu) {
  if (!cu->pages && cu->ring_memory) cudaFreeHost(cu->ring_memory);
  if (!cu->pages) return;
  if (!cu->ring_memory || cudaHostUnregister(cu->pages) == cudaSuccess) free(cu->pages); /* else it is still pinned */
  cu->pages = NULL;
  cudaGetLastError();
}

#endif
