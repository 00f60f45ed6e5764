/* SPDX-License-Identifier: Apache-2.0 */
/* A libcuda.so.1 whose device memory is host memory: what libgstcuda 1.22 and the element ask for, so that upstream's
 * cudaupload and cudadownload run on a machine without a GPU. Fresh memory is 0xA5, pitches are multiples of
 * FK_STANDIN_PITCH, a call without a current context fails as the driver's does. Declared here and not by cuda.h, which
 * a machine without CUDA lacks; types and numbers are those of the driver's binary interface.
 *
 * FK_STANDIN_CLOSED=1: the host cannot follow the memory's addresses, as it cannot follow a GPU's: pages are open while
 * the driver copies, and between fk_standin_open(1) and (0). Behind each allocation lies a page that is never open.
 * FK_STANDIN_COUNTS: when the process ends, prints what was copied and what lives. FK_STANDIN_DEVICES: their number, 1.
 * FK_STANDIN_FAIL=n: the n-th allocation or copy and all after it fail; 0 or not set: none. Programs that open the
 * library themselves count by fk_standin_live() and fk_standin_copies(), and set failures by fk_standin_fail(). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FK_EXPORT __attribute__((visibility("default")))
#define FK_STANDIN_PITCH 512
#define CONTEXTS 64

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct Context *CUcontext;
typedef struct Stream *CUstream;
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, NOT_SUPPORTED = 801 };
enum { MEMORY_HOST = 1, MEMORY_DEVICE = 2 };
enum { TEXTURE_ALIGNMENT = 14, CAPABILITY_MAJOR = 75, CAPABILITY_MINOR = 76 };

struct Context {
  CUdevice device;
};
struct Stream {
  CUcontext context;
};

/* CUDA_MEMCPY2D */
typedef struct {
  size_t x, y;
  int kind;
  void *host;
  CUdeviceptr device;
  void *array;
  size_t pitch;
} Side;
typedef struct {
  Side src, dst;
  size_t width, height; /* bytes, rows */
} Copy2D;

static __thread CUcontext stack[CONTEXTS];
static __thread int depth;
static long live, uploads, downloads, inside, between; /* allocations that live; copies by direction */
static long work, fail_from;                           /* allocations and copies so far; 0: none fails */
static int closed;

__attribute__((constructor)) static void begin(void) {
  const char *asked = getenv("FK_STANDIN_FAIL");
  fail_from = asked ? atol(asked) : 0;
  asked = getenv("FK_STANDIN_CLOSED");
  closed = asked && !strcmp(asked, "1");
}

__attribute__((destructor)) static void tell(void) {
  if (!getenv("FK_STANDIN_COUNTS")) return;
  fprintf(stderr,
          "stand-in: %ld uploads, %ld downloads, %ld on the device, %ld between contexts, %ld allocations live\n",
          uploads, downloads, inside, between, live);
}

FK_EXPORT long fk_standin_live(void) {
  return __atomic_load_n(&live, __ATOMIC_RELAXED);
}

FK_EXPORT void fk_standin_copies(long *up, long *down, long *contexts) {
  *up = __atomic_load_n(&uploads, __ATOMIC_RELAXED);
  *down = __atomic_load_n(&downloads, __ATOMIC_RELAXED);
  *contexts = __atomic_load_n(&between, __ATOMIC_RELAXED);
}

/* The n-th allocation or copy from now on, and all after it; 0: none. */
FK_EXPORT void fk_standin_fail(long n) {
  __atomic_store_n(&fail_from, n ? __atomic_load_n(&work, __ATOMIC_RELAXED) + n : 0, __ATOMIC_RELAXED);
}

static int fails(void) {
  long done = __atomic_add_fetch(&work, 1, __ATOMIC_RELAXED), from = __atomic_load_n(&fail_from, __ATOMIC_RELAXED);
  return from && done >= from;
}

FK_EXPORT CUresult cuInit(unsigned flags) {
  return flags ? INVALID_VALUE : SUCCESS;
}

FK_EXPORT CUresult cuDriverGetVersion(int *version) {
  *version = 12000;
  return SUCCESS;
}

FK_EXPORT CUresult cuGetErrorName(CUresult result, const char **text) {
  *text = result ? "STAND_IN_ERROR" : "CUDA_SUCCESS";
  return SUCCESS;
}

FK_EXPORT CUresult cuGetErrorString(CUresult result, const char **text) {
  *text = result ? "the stand-in driver refused" : "no error";
  return SUCCESS;
}

FK_EXPORT CUresult cuDeviceGetCount(int *count) {
  const char *asked = getenv("FK_STANDIN_DEVICES");
  *count = asked ? atoi(asked) : 1;
  return SUCCESS;
}

FK_EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  *device = ordinal;
  return SUCCESS;
}

FK_EXPORT CUresult cuDeviceGetName(char *name, int size, CUdevice device) {
  snprintf(name, (size_t)size, "stand-in %d", device);
  return SUCCESS;
}

FK_EXPORT CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
  (void)device;
  *value = attribute == TEXTURE_ALIGNMENT  ? FK_STANDIN_PITCH
           : attribute == CAPABILITY_MAJOR ? 9
           : attribute == CAPABILITY_MINOR ? 0
                                           : 1;
  return SUCCESS;
}

/* ---- contexts ---- */

FK_EXPORT CUresult cuCtxPushCurrent_v2(CUcontext context) {
  if (depth == CONTEXTS) return INVALID_CONTEXT;
  stack[depth++] = context;
  return SUCCESS;
}

FK_EXPORT CUresult cuCtxPopCurrent_v2(CUcontext *context) {
  if (!depth) return INVALID_CONTEXT;
  depth--;
  if (context) *context = stack[depth];
  return SUCCESS;
}

FK_EXPORT CUresult cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device) {
  (void)flags;
  if (depth == CONTEXTS) return INVALID_CONTEXT;
  *context = malloc(sizeof **context);
  if (!*context) return OUT_OF_MEMORY;
  (*context)->device = device;
  return cuCtxPushCurrent_v2(*context);
}

FK_EXPORT CUresult cuCtxDestroy_v2(CUcontext context) {
  free(context);
  return SUCCESS;
}

FK_EXPORT CUresult cuCtxSynchronize(void) {
  return depth ? SUCCESS : INVALID_CONTEXT;
}

FK_EXPORT CUresult cuCtxEnablePeerAccess(CUcontext context, unsigned flags) {
  (void)context;
  return flags ? INVALID_VALUE : SUCCESS;
}

FK_EXPORT CUresult cuCtxDisablePeerAccess(CUcontext context) {
  (void)context;
  return SUCCESS;
}

FK_EXPORT CUresult cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer) {
  *can = device != peer;
  return SUCCESS;
}

/* ---- memory ---- */

/* Which context an address belongs to, and the pages that it lies in. */
typedef struct Block {
  struct Block *next;
  uint8_t *at, *page;
  size_t bytes, pages; /* both in bytes */
  CUcontext context;
} Block;

static Block *blocks;
static int opens; /* who follows addresses now */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int protection(void) {
  return closed && !opens ? PROT_NONE : PROT_READ | PROT_WRITE;
}

/* The memory's end is the pages' as far as the alignment allows. */
static Block *map(size_t bytes) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (bytes + page - 1) / page * page;
  Block *block = malloc(sizeof *block);
  uint8_t *at = mmap(NULL, pages + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (!block || at == MAP_FAILED || mprotect(at + pages, page, PROT_NONE)) abort();
  const size_t end = (bytes + FK_STANDIN_PITCH - 1) / FK_STANDIN_PITCH * FK_STANDIN_PITCH;
  *block = (Block){NULL, at + pages - end, at, bytes, pages, stack[depth - 1]};
  return block;
}

/* Of this context; NULL: of any. */
static Block *find(const uint8_t *at, size_t bytes, CUcontext context) {
  Block *block = blocks;
  while (block && (at < block->at || at + bytes > block->at + block->bytes)) block = block->next;
  return block && (!context || block->context == context) ? block : NULL;
}

static int belongs(CUdeviceptr address, size_t bytes, CUcontext context) {
  pthread_mutex_lock(&lock);
  const int found = find((const uint8_t *)(uintptr_t)address, bytes, context) != NULL;
  pthread_mutex_unlock(&lock);
  return found;
}

/* context NULL: of any. */
FK_EXPORT int fk_standin_belongs(const void *memory, size_t bytes, CUcontext context) {
  return belongs((CUdeviceptr)(uintptr_t)memory, bytes, context);
}

FK_EXPORT void fk_standin_open(int open) {
  if (!closed) return;
  pthread_mutex_lock(&lock);
  opens += open ? 1 : -1;
  for (const Block *b = blocks; b; b = b->next)
    if (mprotect(b->page, b->pages, protection())) abort();
  pthread_mutex_unlock(&lock);
}

FK_EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *at, size_t bytes) {
  if (!depth) return INVALID_CONTEXT;
  if (!bytes) return INVALID_VALUE;
  if (fails()) return OUT_OF_MEMORY;
  Block *block = map(bytes);
  memset(block->at, 0xA5, bytes);
  *at = (CUdeviceptr)(uintptr_t)block->at;
  pthread_mutex_lock(&lock);
  if (mprotect(block->page, block->pages, protection())) abort();
  block->next = blocks;
  blocks = block;
  pthread_mutex_unlock(&lock);
  __atomic_add_fetch(&live, 1, __ATOMIC_RELAXED);
  return SUCCESS;
}

FK_EXPORT CUresult cuMemAllocPitch_v2(CUdeviceptr *at, size_t *pitch, size_t width, size_t height, unsigned element) {
  (void)element;
  *pitch = (width + FK_STANDIN_PITCH - 1) / FK_STANDIN_PITCH * FK_STANDIN_PITCH;
  return cuMemAlloc_v2(at, *pitch * height);
}

FK_EXPORT CUresult cuMemFree_v2(CUdeviceptr at) {
  if (!depth) return INVALID_CONTEXT;
  pthread_mutex_lock(&lock);
  Block **link = &blocks;
  while (*link && (*link)->at != (uint8_t *)(uintptr_t)at) link = &(*link)->next;
  Block *found = *link;
  if (found) *link = found->next;
  pthread_mutex_unlock(&lock);
  if (!found) return INVALID_VALUE;
  munmap(found->page, found->pages + (size_t)sysconf(_SC_PAGESIZE));
  free(found);
  __atomic_sub_fetch(&live, 1, __ATOMIC_RELAXED);
  return SUCCESS;
}

FK_EXPORT CUresult cuMemAllocHost_v2(void **at, size_t bytes) {
  *at = fails() ? NULL : malloc(bytes);
  return *at ? SUCCESS : OUT_OF_MEMORY;
}

FK_EXPORT CUresult cuMemFreeHost(void *at) {
  free(at);
  return SUCCESS;
}

static uint8_t *first_byte(const Side *side) {
  uint8_t *base = side->kind == MEMORY_HOST ? side->host : (uint8_t *)(uintptr_t)side->device;
  return base + side->y * side->pitch + side->x;
}

FK_EXPORT CUresult cuMemcpy2D_v2(const Copy2D *copy) {
  const Side *src = &copy->src, *dst = &copy->dst;
  if (!depth) return INVALID_CONTEXT;
  if (fails()) return INVALID_VALUE;
  if (src->kind < MEMORY_HOST || src->kind > MEMORY_DEVICE || dst->kind < MEMORY_HOST || dst->kind > MEMORY_DEVICE)
    return INVALID_VALUE;
  long *counter = src->kind == MEMORY_HOST ? &uploads : dst->kind == MEMORY_HOST ? &downloads : &inside;
  __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
  const uint8_t *from = first_byte(src);
  uint8_t *to = first_byte(dst);
  fk_standin_open(1);
  for (size_t y = 0; y < copy->height; y++) memcpy(to + y * dst->pitch, from + y * src->pitch, copy->width);
  fk_standin_open(0);
  return SUCCESS;
}

FK_EXPORT CUresult cuMemcpy2DAsync_v2(const Copy2D *copy, CUstream stream) {
  (void)stream;
  return cuMemcpy2D_v2(copy);
}

FK_EXPORT CUresult cuMemsetD8_v2(CUdeviceptr at, unsigned char value, size_t bytes) {
  if (!depth) return INVALID_CONTEXT;
  if (fails() || !belongs(at, bytes, stack[depth - 1])) return INVALID_VALUE;
  fk_standin_open(1);
  memset((void *)(uintptr_t)at, value, bytes);
  fk_standin_open(0);
  return SUCCESS;
}

FK_EXPORT CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes) {
  if (!depth) return INVALID_CONTEXT;
  if (fails() || !belongs(to, bytes, stack[depth - 1])) return INVALID_VALUE;
  fk_standin_open(1);
  memcpy((void *)(uintptr_t)to, from, bytes);
  fk_standin_open(0);
  __atomic_add_fetch(&uploads, 1, __ATOMIC_RELAXED);
  return SUCCESS;
}

FK_EXPORT CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes) {
  if (!depth) return INVALID_CONTEXT;
  if (fails() || !belongs(from, bytes, stack[depth - 1])) return INVALID_VALUE;
  fk_standin_open(1);
  memcpy(to, (const void *)(uintptr_t)from, bytes);
  fk_standin_open(0);
  __atomic_add_fetch(&downloads, 1, __ATOMIC_RELAXED);
  return SUCCESS;
}

FK_EXPORT CUresult cuMemcpyPeer(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context,
                                size_t bytes) {
  if (!depth) return INVALID_CONTEXT;
  if (fails() || !belongs(to, bytes, to_context) || !belongs(from, bytes, from_context)) return INVALID_VALUE;
  fk_standin_open(1);
  memcpy((void *)(uintptr_t)to, (const void *)(uintptr_t)from, bytes);
  fk_standin_open(0);
  __atomic_add_fetch(&between, 1, __ATOMIC_RELAXED);
  return SUCCESS;
}

/* ---- streams: everything has happened when a call returns ---- */

FK_EXPORT CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
  (void)flags;
  if (!depth) return INVALID_CONTEXT;
  *stream = malloc(sizeof **stream);
  if (!*stream) return OUT_OF_MEMORY;
  (*stream)->context = stack[depth - 1];
  return SUCCESS;
}

FK_EXPORT CUresult cuStreamDestroy_v2(CUstream stream) {
  free(stream);
  return SUCCESS;
}

FK_EXPORT CUresult cuStreamDestroy(CUstream stream) {
  return cuStreamDestroy_v2(stream);
}

FK_EXPORT CUresult cuStreamSynchronize(CUstream stream) {
  (void)stream;
  return SUCCESS;
}

/* ---- asked for by name when libgstcuda opens the driver, and refused when called ---- */

#define REFUSED(name)                                                                                                  \
  FK_EXPORT CUresult name(void) {                                                                                      \
    return NOT_SUPPORTED;                                                                                              \
  }
REFUSED(cuGLGetDevices_v2)
REFUSED(cuGraphicsGLRegisterBuffer)
REFUSED(cuGraphicsGLRegisterImage)
REFUSED(cuGraphicsMapResources)
REFUSED(cuGraphicsResourceGetMappedPointer_v2)
REFUSED(cuGraphicsResourceSetMapFlags_v2)
REFUSED(cuGraphicsSubResourceGetMappedArray)
REFUSED(cuGraphicsUnmapResources)
REFUSED(cuGraphicsUnregisterResource)
REFUSED(cuLaunchKernel)
REFUSED(cuModuleGetFunction)
REFUSED(cuModuleLoadData)
REFUSED(cuModuleUnload)
REFUSED(cuTexObjectCreate)
REFUSED(cuTexObjectDestroy)
