/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU backend and a system that refuses: every allocation and every thread in turn. The build sends what core/ops
 * asks of the C library through the functions below. And memory that goes back to the system when it is released. */
#include "debug.h"
#include "ops.h"
#include "profile.h"
#include "test-held.h"

#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static int count, fail_at; /* calls since they were armed; the one that fails, 0: none */
static int threads_count, threads_fail_at;

static gboolean refuse(void) {
  return ++count == fail_at;
}

/* What `--wrap` makes of the names; __real_* is the C library's. */
void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
int __real_posix_memalign(void **memory, size_t alignment, size_t size);
void *__real_mmap64(void *at, size_t size, int protection, int flags, int file, off_t offset);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *data);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
int __wrap_posix_memalign(void **memory, size_t alignment, size_t size);
void *__wrap_mmap64(void *at, size_t size, int protection, int flags, int file, off_t offset);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *data);

void *__wrap_malloc(size_t size) {
  return refuse() ? NULL : __real_malloc(size);
}
void *__wrap_calloc(size_t n, size_t size) {
  return refuse() ? NULL : __real_calloc(n, size);
}
int __wrap_posix_memalign(void **memory, size_t alignment, size_t size) {
  return refuse() ? ENOMEM : __real_posix_memalign(memory, alignment, size);
}
void *__wrap_mmap64(void *at, size_t size, int protection, int flags, int file, off_t offset) {
  return refuse() ? MAP_FAILED : __real_mmap64(at, size, protection, flags, file, offset);
}
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *data) {
  return ++threads_count == threads_fail_at ? EAGAIN : __real_pthread_create(thread, attributes, run, data);
}

static FkBackend *open_cpu(int threads, FkFailure *failure, char message[256]) {
  message[0] = 0;
  *failure = FK_FAIL_NONE;
  return fk_backend_open("cpu", 0, threads, failure, message, 256);
}

/* Ops of every kind of memory that the backend takes while it runs: threads' scratch, partial sums, the arena's block.
 */
static void run_ops(FkBackend *be, float *y) {
  static float x[64 * 64], w[64 * 64], score[8], norm[8 * 64];
  static int32_t best[8];
  static uint8_t codes[64 * 64];
  static float scale[64];
  FkArena arena;
  for (int i = 0; i < 64 * 64; i++) x[i] = (float)(i % 17) - 8, w[i] = (float)(i % 13) - 6;
  if (!fk_arena_open(&arena, be, 1 << 16)) fk_backend_fail(be, FK_FAIL_MEMORY, "no memory for the arena");
  const FkTensor matrix = fk_tensor_2d(x, FK_F32, 64, 64), result = fk_tensor_2d(y, FK_F32, 64, 64);
  FkLinear l = {.x = matrix, .y = result, .w = {.data = w, .dtype = FK_F32, .out = 64, .in = 64}};
  l.epilogue = FK_EPI_ADD;
  fk_op_linear(be, &arena, &l, 1);
  fk_op_attention(be, &(FkAttention){.q = result, .k = matrix, .v = matrix, .o = result, .heads = 2, .scale = 0.1f});
  fk_op_match(be, fk_tensor_1d(best, FK_I32, 8), fk_tensor_1d(score, FK_F32, 8), fk_tensor_slice_rows(matrix, 0, 8),
              fk_tensor_slice_rows(matrix, 8, 50));
  fk_op_group_norm(be, &(FkGroupNorm){.x = fk_tensor_3d(x, FK_F32, 2, 4, 64),
                                      .y = fk_tensor_3d(norm, FK_F32, 2, 4, 64),
                                      .groups = 4,
                                      .eps = 1e-6f});
  fk_op_quantize(be, fk_tensor_2d(codes, FK_E4M3, 64, 64), fk_tensor_1d(scale, FK_F32, 64), result);
  l = (FkLinear){.x = fk_tensor_2d(codes, FK_E4M3, 64, 64), .x_scale = fk_tensor_1d(scale, FK_F32, 64), .y = result};
  l.w = (FkWeight){.data = codes, .dtype = FK_E4M3, .out = 64, .in = 64, .scale = {scale, FK_F32, FK_SCALE_ROW, 0}};
  fk_op_linear(be, &arena, &l, 1);
  FkAttention a = {.q = result, .k = matrix, .v = matrix, .o = result, .heads = 2, .scale = 0.1f};
  fk_op_attention_quantized(be, &arena, &a);
  fk_arena_close(&arena);
}

/* TRUE: everything worked. What did not is said, and a second try on the same backend gives the right numbers. */
static gboolean survive(const float *right) {
  g_autofree float *y = g_new0(float, 64 * 64);
  char message[256];
  FkFailure failure;
  FkBackend *be = open_cpu(3, &failure, message);
  if (!be) {
    g_assert_cmpint(failure, ==, FK_FAIL_MEMORY);
    g_assert_cmpuint(strlen(message), >, 10);
    return FALSE;
  }
  const gboolean profiled = fk_profile_start(be);
  run_ops(be, y);
  if (profiled) free(fk_profile_stop(be));
  const gboolean worked = be->failure == FK_FAIL_NONE && profiled;
  if (be->failure) g_assert_cmpint(be->failure, ==, FK_FAIL_MEMORY);
  if (be->failure) g_assert_cmpuint(strlen(be->message), >, 10);
  fail_at = 0;
  fk_backend_clear(be);
  memset(y, 0, 64 * 64 * sizeof *y);
  run_ops(be, y);
  g_assert_true(fk_backend_sync(be));
  if (right) g_assert_cmpmem(y, 64 * 64 * sizeof *y, right, 64 * 64 * sizeof *y);
  fk_backend_close(be);
  return worked;
}

static void allocations(void) {
  g_autofree float *right = g_new0(float, 64 * 64);
  char message[256];
  FkFailure failure;
  FkBackend *be = open_cpu(1, &failure, message);
  run_ops(be, right);
  g_assert_true(fk_backend_sync(be));
  fk_backend_close(be);
  int k = 1;
  for (;; k++) {
    count = 0;
    fail_at = k;
    if (survive(right)) break;
  }
  fail_at = 0;
  g_test_message("%d allocations", k - 1);
  g_assert_cmpint(k, >, 10); /* else nothing was wrapped */
}

/* A dump is left out where memory is missing; the backend goes on. */
static void dump(void) {
  g_autofree char *folder = g_dir_make_tmp("fk-cpu-XXXXXX", NULL);
  char message[256];
  FkFailure failure;
  FkBackend *be = open_cpu(1, &failure, message);
  float x[4] = {0};
  g_setenv("FK_DUMP", folder, TRUE);
  for (fail_at = 1; fail_at <= 3; fail_at++) {
    count = 0;
    fk_debug_dump(be, "x", fk_tensor_1d(x, FK_F32, 4));
    g_assert_true(fk_backend_sync(be));
  }
  fail_at = 0;
  g_unsetenv("FK_DUMP");
  g_autofree char *third = g_build_filename(folder, "0002-x.npy", NULL),
                  *first = g_build_filename(folder, "0000-x.npy", NULL);
  g_assert_false(g_file_test(first, G_FILE_TEST_EXISTS));
  g_assert_cmpint(remove(third), ==, 0);
  g_assert_cmpint(remove(folder), ==, 0);
  fk_backend_close(be);
}

/* No thread, or only some of them: an error with the reason, and the threads that were there are gone. */
static void threads(void) {
  for (int k = 1; k <= 5; k++) {
    char message[256];
    FkFailure failure;
    threads_count = 0;
    threads_fail_at = k;
    FkBackend *be = open_cpu(5, &failure, message);
    if (k == 5) {
      g_assert_nonnull(be); /* the caller is the fifth */
      fk_backend_close(be);
      break;
    }
    g_assert_null(be);
    g_assert_cmpint(failure, ==, FK_FAIL_MEMORY);
    g_assert_nonnull(strstr(message, "5 threads"));
    g_assert_nonnull(strstr(message, g_strerror(EAGAIN)));
  }
  threads_fail_at = 0;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static void memory_goes_back(void) {
  g_test_skip("the sanitizer keeps what is freed");
}
#else
static gpointer load_and_unload(gpointer data) {
  char message[256];
  FkFailure failure;
  FkBackend *be = open_cpu(1, &failure, message);
  for (int i = 0; i < 3; i++) {
    const gsize bytes = 8 << 20;
    void *a = be->ops->alloc(be, bytes), *b = be->ops->alloc(be, bytes);
    g_assert_true(a && b && (guintptr)a % 256 == 0);
    memset(a, 1, bytes);
    memset(b, 1, bytes);
    be->ops->release(be, a);
    be->ops->release(be, b);
  }
  fk_backend_close(be);
  return data;
}

/* Models that come and go, on threads that do too. */
static void memory_goes_back(void) {
  load_and_unload(NULL);
  const gsize before = held_pages();
  GThread *running[4];
  for (int i = 0; i < 4; i++) running[i] = g_thread_new("load", load_and_unload, NULL);
  for (int i = 0; i < 4; i++) g_thread_join(running[i]);
  const gsize after = held_pages();
  g_test_message("%zu bytes more", after > before ? after - before : 0);
  g_assert_cmpuint(after, <, before + (4 << 20));
}
#endif

/* Sizes at the edges: nothing, and more than there is. */
static void sizes(void) {
  char message[256];
  FkFailure failure;
  FkBackend *be = open_cpu(1, &failure, message);
  void *nothing = be->ops->alloc(be, 0);
  g_assert_nonnull(nothing);
  be->ops->release(be, nothing);
  be->ops->release(be, NULL);
#ifndef __SANITIZE_THREAD__
  g_assert_null(be->ops->alloc(be, SIZE_MAX - 100));
  g_assert_null(be->ops->alloc(be, SIZE_MAX / 4));
#endif
  g_assert_true(fk_backend_sync(be));
  fk_backend_close(be);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/cpu/allocations", allocations);
  g_test_add_func("/cpu/dump", dump);
  g_test_add_func("/cpu/threads", threads);
  g_test_add_func("/cpu/memory-goes-back", memory_goes_back);
  g_test_add_func("/cpu/sizes", sizes);
  return g_test_run();
}
