/* SPDX-License-Identifier: Apache-2.0 */
/* Arenas: alignment, peak, counting without memory, running full, and the backend that gives none. */
#include "backend.h"

#include <glib.h>
#include <string.h>

static FkBackend *open_backend(const char *name) {
  FkFailure failure;
  char message[256];
  FkBackend *be = fk_backend_open(name, 0, 0, &failure, message, sizeof message);
  g_assert_nonnull(be);
  return be;
}

static void test_layout(void) {
  FkBackend *be = open_backend("cpu");
  FkArena arena;
  g_assert_true(fk_arena_open(&arena, be, 4096));
  FkTensor a = fk_arena_1d(&arena, FK_F32, 3), b = fk_arena_2d(&arena, FK_BF16, 5, 7);
  FkTensor c = fk_arena_3d(&arena, FK_U8, 2, 3, 101);
  g_assert_cmpuint((guintptr)a.data % 256, ==, 0);
  g_assert_true((char *)b.data == (char *)a.data + 256);
  g_assert_true((char *)c.data == (char *)b.data + 256);
  g_assert_cmpint(a.rank, ==, 1);
  g_assert_true(b.rank == 2 && b.dim[0] == 5 && b.dim[1] == 7 && b.ld == 7 && b.dtype == FK_BF16);
  g_assert_true(c.rank == 3 && c.dim[2] == 101 && c.ld == 101);
  g_assert_cmpuint(arena.used, ==, 256 + 256 + 768);
  for (int i = 0; i < 606; i++) ((guint8 *)c.data)[i] = 1; /* its own memory to the last byte */
  fk_arena_close(&arena);
  g_assert_null(arena.base);
  fk_backend_close(be);
}

static void test_mark_and_peak(void) {
  FkBackend *be = open_backend("cpu");
  FkArena arena;
  g_assert_true(fk_arena_open(&arena, be, 2048));
  void *first = fk_arena_alloc(&arena, 1);
  gsize mark = fk_arena_mark(&arena);
  void *second = fk_arena_alloc(&arena, 1000);
  fk_arena_reset(&arena, mark);
  g_assert_true(fk_arena_alloc(&arena, 10) == second);
  g_assert_true(first != second);
  g_assert_cmpuint(arena.used, ==, 512);
  g_assert_cmpuint(arena.peak, ==, 256 + 1024);
  fk_arena_close(&arena);
  fk_backend_close(be);
}

/* Exactly full is allowed; one byte more marks the backend with the numbers, and moves nothing. */
static void test_full(void) {
  FkBackend *be = open_backend("cpu");
  FkArena arena;
  g_assert_true(fk_arena_open(&arena, be, 512));
  g_assert_nonnull(fk_arena_alloc(&arena, 257));
  g_assert_true(fk_backend_sync(be));
  g_assert_null(fk_arena_alloc(&arena, 1));
  g_assert_false(fk_backend_sync(be));
  g_assert_cmpint(be->failure, ==, FK_FAIL_MEMORY);
  g_assert_nonnull(strstr(be->message, "512 bytes"));
  g_assert_cmpuint(arena.used, ==, 512);
  fk_backend_clear(be);
  g_assert_null(fk_arena_alloc(&arena, SIZE_MAX - 10)); /* rounding up must not wrap */
  g_assert_false(fk_backend_sync(be));
  for (int i = 0; i < 3; i++) { /* nor the product of sizes */
    const gint64 half = (gint64)1 << 32;
    fk_backend_clear(be);
    const FkTensor t = i == 0   ? fk_arena_1d(&arena, FK_F32, G_MAXINT64)
                       : i == 1 ? fk_arena_2d(&arena, FK_F32, half, half)
                                : fk_arena_3d(&arena, FK_BF16, half, half / 2, 2);
    g_assert_null(t.data);
    g_assert_cmpint(be->failure, ==, FK_FAIL_MEMORY);
  }
  fk_arena_close(&arena);
  fk_backend_close(be);
}

/* Size 0 counts: no memory, no end, the same peak as the arena it plans. */
static void test_counting(void) {
  FkBackend *be = open_backend("cpu");
  FkArena arena;
  g_assert_true(fk_arena_open(&arena, be, 0));
  FkTensor t = fk_arena_2d(&arena, FK_F32, 1 << 20, 1 << 20);
  g_assert_null(t.data);
  g_assert_null(fk_tensor_slice_rows(t, 5, 6).data);
  g_assert_null(fk_tensor_slice_cols(t, 5, 6).data);
  fk_arena_reset(&arena, 0);
  fk_arena_alloc(&arena, 5);
  g_assert_cmpuint(arena.peak, ==, (gsize)1 << 42);
  g_assert_cmpuint(arena.used, ==, 256);
  g_assert_true(fk_backend_sync(be));
  fk_arena_close(&arena);
  fk_backend_close(be);
}

static void test_refused(void) {
  g_setenv("FK_NULL_FAIL_ALLOC", "2", TRUE);
  FkBackend *be = open_backend("null");
  g_unsetenv("FK_NULL_FAIL_ALLOC");
  FkArena first, second;
  g_assert_true(fk_arena_open(&first, be, 1000));
  g_assert_false(fk_arena_open(&second, be, 1000));
  fk_arena_close(&second); /* half-built is fine */
  fk_arena_close(&first);
  g_assert_true(fk_backend_sync(be)); /* who asked decides what a refusal means */
  fk_backend_close(be);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/arena/layout", test_layout);
  g_test_add_func("/arena/mark-and-peak", test_mark_and_peak);
  g_test_add_func("/arena/full", test_full);
  g_test_add_func("/arena/counting", test_counting);
  g_test_add_func("/arena/refused", test_refused);
  return g_test_run();
}
