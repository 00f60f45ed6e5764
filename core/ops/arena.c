/* SPDX-License-Identifier: Apache-2.0 */
/* Arenas: one block of backend memory, handed out front to back. The plan runs the same code on a counting arena and
 * reads `peak`; the frame then never allocates. Not thread-safe: an arena belongs to the running edit. libc only. */
#include "backend.h"

#define FK_ARENA_ALIGN 256 /* what alloc promises too; covers vector loads and TMA descriptors */

bool fk_arena_open(FkArena *arena, FkBackend *be, size_t bytes) {
  *arena = (FkArena){.be = be};
  if (bytes == 0) return true;
  arena->base = be->ops->alloc(be, bytes);
  arena->size = arena->base ? bytes : 0;
  return arena->base != NULL;
}

void fk_arena_close(FkArena *arena) {
  if (arena->base) arena->be->ops->release(arena->be, arena->base);
  *arena = (FkArena){0};
}

void *fk_arena_alloc(FkArena *arena, size_t bytes) {
  size_t rounded = (bytes + FK_ARENA_ALIGN - 1) / FK_ARENA_ALIGN * FK_ARENA_ALIGN;
  size_t used = arena->used + rounded;
  bool wrapped = rounded < bytes || used < arena->used;
  if (!wrapped && used > arena->peak) arena->peak = used;
  if (wrapped || (arena->base && used > arena->size)) {
    fk_backend_fail(arena->be, FK_FAIL_MEMORY, "arena of %zu bytes is full: %zu in use, %zu more asked for",
                    arena->size, arena->used, bytes);
    return NULL;
  }
  void *memory = arena->base ? arena->base + arena->used : NULL;
  arena->used = used;
  return memory;
}

/* Bytes of a tensor; what a size cannot say is more than any arena has. */
static size_t bytes_of(FkDtype dtype, int64_t a, int64_t b, int64_t c) {
  size_t bytes = fk_dtype_size(dtype);
  const int64_t dim[3] = {a, b, c};
  for (int i = 0; i < 3; i++)
    if (dim[i] < 0 || __builtin_mul_overflow(bytes, (size_t)dim[i], &bytes)) return SIZE_MAX;
  return bytes;
}

FkTensor fk_arena_1d(FkArena *arena, FkDtype dtype, int64_t n) {
  return fk_tensor_1d(fk_arena_alloc(arena, bytes_of(dtype, n, 1, 1)), dtype, n);
}

FkTensor fk_arena_2d(FkArena *arena, FkDtype dtype, int64_t rows, int64_t cols) {
  return fk_tensor_2d(fk_arena_alloc(arena, bytes_of(dtype, rows, cols, 1)), dtype, rows, cols);
}

FkTensor fk_arena_3d(FkArena *arena, FkDtype dtype, int64_t a, int64_t b, int64_t c) {
  return fk_tensor_3d(fk_arena_alloc(arena, bytes_of(dtype, a, b, c)), dtype, a, b, c);
}
