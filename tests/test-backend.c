/* SPDX-License-Identifier: Apache-2.0 */
/* Opening backends, the sticky failure, threads, dumps, the null backend's promises, and everything that can be wrong
 * with the CUDA module. The stub module's path is the environment variable FK_STUB_MODULE (set by the build); without
 * it those cases are skipped. */
#include "debug.h"
#include "ops.h"

#include <cblas.h>
#include <dlfcn.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <math.h>
#include <string.h>

static FkBackend *open_threads(const char *name, int threads) {
  FkFailure failure = FK_FAIL_DEVICE;
  char message[512] = "";
  FkBackend *be = fk_backend_open(name, 0, threads, &failure, message, sizeof message);
  g_test_message("%s", message);
  g_assert_nonnull(be);
  g_assert_cmpint(failure, ==, FK_FAIL_NONE);
  return be;
}

static FkBackend *open_backend(const char *name) {
  return open_threads(name, 0);
}

/* Fails to open; the message holds each of the words. */
static void assert_refused(const char *name, const char *word, const char *other) {
  FkFailure failure = FK_FAIL_NONE;
  char message[512] = "";
  g_assert_null(fk_backend_open(name, 3, 0, &failure, message, sizeof message));
  g_test_message("%s", message);
  g_assert_cmpint(failure, ==, FK_FAIL_UNSUPPORTED);
  g_assert_nonnull(strstr(message, word));
  g_assert_nonnull(strstr(message, other));
}

static void test_names(void) {
  assert_refused("tpu", "'tpu'", "cpu, cuda, null");
  const char *names[] = {"cpu", "null"};
  for (int i = 0; i < 2; i++) {
    FkBackend *be = open_backend(names[i]);
    g_assert_cmpstr(be->ops->name, ==, names[i]);
    g_assert_cmpuint(be->ops->abi, ==, FK_BACKEND_ABI);
    g_assert_true(fk_backend_uses(be, FK_CAN_FUSED_LINEAR | FK_CAN_FUSED_QKV | FK_CAN_FUSED_CONV));
    g_assert_cmpuint(be->use, ==, be->can);
    g_assert_true(fk_backend_uses(be, FK_CAN_GRAPH) == !strcmp(names[i], "null")); /* which plans for any device */
    gsize free_bytes = 0, total_bytes = 0;
    be->ops->memory(be, &free_bytes, &total_bytes);
    g_assert_cmpuint(free_bytes, >, 1 << 20);
    g_assert_cmpuint(free_bytes, <=, total_bytes);
    fk_backend_close(be);
  }
  fk_backend_close(NULL);
}

static void test_threads(void) {
  g_setenv("FK_THREADS", "3", TRUE);
  FkBackend *be = open_backend("cpu");
  g_assert_cmpstr(be->machine, ==, "cpu (3 threads)");
  g_assert_cmpint(be->threads, ==, 3);
  fk_backend_close(be);
  be = open_threads("cpu", 1); /* the caller's word wins over the environment's */
  g_assert_cmpstr(be->machine, ==, "cpu (1 thread)");
  g_assert_cmpint(be->threads, ==, 1);
  fk_backend_close(be);
  g_unsetenv("FK_THREADS");
  be = open_backend("cpu");
  g_assert_cmpint(be->threads, ==, (int)MIN(g_get_num_processors(), 256));
  fk_backend_close(be);
}

/* A number of threads that cannot be had is refused with the number, whoever asked for it. */
static void test_threads_refused(void) {
  static const char *const bad[] = {"rubbish", "3x", "-1", "257", "99999999999999999999"};
  for (guint i = 0; i < G_N_ELEMENTS(bad); i++) {
    g_setenv("FK_THREADS", bad[i], TRUE);
    assert_refused("cpu", bad[i], "from 0 to 256");
  }
  g_unsetenv("FK_THREADS");
  FkFailure failure = FK_FAIL_NONE;
  for (int i = 0; i < 2; i++) {
    char message[512] = "";
    g_assert_null(fk_backend_open("cpu", 0, i ? -7 : 257, &failure, message, sizeof message));
    g_assert_nonnull(strstr(message, i ? "-7 threads" : "257 threads"));
    g_assert_cmpint(failure, ==, FK_FAIL_UNSUPPORTED);
  }
}

/* Thousands of tiny ops on more threads than processors: every task once, none lost, no thread stuck. */
static void test_pool(void) {
  FkBackend *be = open_threads("cpu", 5);
  enum { ROWS = 9, COLS = 8192, TIMES = 3000 };
  g_autofree float *y = g_new0(float, ROWS *COLS), *one = g_new(float, COLS);
  for (int i = 0; i < COLS; i++) one[i] = 1;
  FkTensor t = fk_tensor_2d(y, FK_F32, ROWS, COLS), gate = fk_tensor_1d(one, FK_F32, COLS);
  FkTensor ones = fk_tensor_2d(one, FK_F32, ROWS, COLS);
  ones.ld = 0; /* the same row nine times */
  for (int i = 0; i < TIMES; i++) {
    fk_op_gate_add(be, t, ones, gate);
    if (i % 500 == 0) g_usleep(2000); /* lets the workers fall asleep */
  }
  for (int i = 0; i < ROWS * COLS; i++) g_assert_true(y[i] == TIMES);
  fk_backend_close(be);
}

#ifdef OPENBLAS_VERSION
/* A product on a thread of its own, again and again. */
static gpointer multiply(gpointer stop) {
  FkBackend *be = open_threads("cpu", 2);
  g_autofree float *data = g_new0(float, 3 * 300 * 300);
  const FkLinear l = {.x = fk_tensor_2d(data, FK_F32, 300, 300),
                      .y = fk_tensor_2d(data + 2 * 300 * 300, FK_F32, 300, 300),
                      .w = {.data = data + 300 * 300, .dtype = FK_F32, .out = 300, .in = 300}};
  do fk_op_linear(be, NULL, &l, 1);
  while (stop && !g_atomic_int_get((int *)stop));
  fk_backend_close(be);
  return NULL;
}

/* The library's number of threads is the application's: unchanged behind our products, and a number that it chooses
 * while they run is kept. */
static void test_library_threads(void) {
  const int before = openblas_get_num_threads();
  for (int n = 1; n <= 2; n++) {
    openblas_set_num_threads(n);
    multiply(NULL);
    g_assert_cmpint(openblas_get_num_threads(), ==, n);
  }
  int stop = FALSE;
  GThread *threads[2];
  for (int i = 0; i < 2; i++) threads[i] = g_thread_new("multiply", multiply, &stop);
  for (int i = 0; i < 5; i++) { /* a choice may be lost in the instant in which ours changes */
    g_usleep(5000);
    openblas_set_num_threads(3);
  }
  g_atomic_int_set(&stop, TRUE);
  for (int i = 0; i < 2; i++) g_thread_join(threads[i]);
  g_assert_cmpint(openblas_get_num_threads(), ==, 3);
  openblas_set_num_threads(before);
}
#endif

static void test_failure(void) {
  FkBackend *be = open_backend("cpu");
  g_assert_true(fk_backend_sync(be));
  fk_backend_fail(be, FK_FAIL_DEVICE, "kernel %s: %d", "linear", 719);
  fk_backend_fail(be, FK_FAIL_MEMORY, "second");
  g_assert_false(fk_backend_sync(be));
  g_assert_cmpint(be->failure, ==, FK_FAIL_DEVICE);
  g_assert_cmpstr(be->message, ==, "kernel linear: 719");
  fk_backend_clear(be);
  g_assert_true(fk_backend_sync(be));
  fk_backend_fail(be, FK_FAIL_DEVICE, "%0300d", 7); /* longer than the message: cut, not overrun */
  g_assert_cmpuint(strlen(be->message), ==, sizeof be->message - 1);
  be->dead = true;
  fk_backend_clear(be);
  g_assert_false(fk_backend_sync(be));
  fk_backend_close(be);
}

/* Walks an op of the 12 B model: made-up memory is never followed, costs are counted. */
static void test_null_walk(void) {
  FkBackend *be = open_backend("null");
  FkArena arena;
  g_assert_true(fk_arena_open(&arena, be, (gsize)1 << 40));
  FkTensor x = fk_arena_2d(&arena, FK_BF16, 8704, 3072), y = fk_arena_2d(&arena, FK_BF16, 8704, 21504);
  FkLinear l = {.x = x, .y = y, .w = {.data = NULL, .dtype = FK_BF16, .out = 21504, .in = 3072}, .act = FK_ACT_SILU};
  fk_op_linear(be, NULL, &l, 1);
  FkTensor q = fk_tensor_slice_cols(y, 0, 3072);
  fk_op_attention(be, &(FkAttention){.q = q, .k = q, .v = q, .o = q, .heads = 24, .scale = 1});
  g_assert_cmpfloat(be->count.linear_flop, ==, 2.0 * 8704 * 3072 * 21504);
  g_assert_cmpfloat(be->count.attention_flop, ==, 4.0 * 8704 * 8704 * 3072);
  guint8 bytes[300];
  fk_op_download(be, bytes, fk_tensor_1d(x.data, FK_U8, 300));
  for (int i = 0; i < 300; i++) g_assert_cmpint(bytes[i], ==, (guint8)(i * 37 + 11));
  void *a = be->ops->alloc(be, 1000), *b = be->ops->alloc(be, 1000);
  g_assert_true(a && b && a != b && (guintptr)a % 256 == 0 && (char *)b - (char *)a >= 1000);
  g_assert_true(fk_backend_sync(be));
  fk_arena_close(&arena);
  fk_backend_close(be);
}

/* The k-th event recorded fails, counted anew after clear. */
static void test_null_fail_step(void) {
  g_setenv("FK_NULL_FAIL_STEP", "3", TRUE);
  FkBackend *be = open_backend("null");
  g_unsetenv("FK_NULL_FAIL_STEP");
  for (int round = 0; round < 2; round++) {
    fk_op_event_record(be, 0);
    fk_backend_clear(be);
    for (int step = 1; step <= 2; step++) {
      fk_op_event_record(be, step);
      g_assert_true(fk_backend_sync(be));
    }
    fk_op_event_record(be, 3);
    g_assert_false(fk_backend_sync(be));
    g_assert_cmpint(be->failure, ==, FK_FAIL_DEVICE);
    g_assert_cmpstr(be->message, ==, "null backend: failure asked for at step 3");
    fk_backend_clear(be);
  }
  fk_backend_close(be);
}

static void test_null_step_ms(void) {
  g_setenv("FK_NULL_STEP_MS", "20", TRUE);
  FkBackend *be = open_backend("null");
  g_unsetenv("FK_NULL_STEP_MS");
  gint64 start = g_get_monotonic_time();
  fk_op_event_record(be, 0);
  fk_op_event_wait(be, 0);
  fk_op_event_wait(be, 0); /* once per record */
  fk_op_event_record(be, 1);
  fk_op_event_wait(be, 1);
  g_assert_cmpint(g_get_monotonic_time() - start, >=, 40000); /* a sleep may last longer, never less */
  g_assert_cmpfloat(be->ops->elapsed_ms(be, 0, 1), ==, 20);
  fk_backend_close(be);
}

/* A composition takes what it keeps from the arena: none left is a failure of the backend, not a crash. */
static void test_scratch(void) {
  FkBackend *be = open_backend("null");
  FkArena arena;
  be->use = 0;
  FkTensor x = fk_tensor_2d(NULL, FK_BF16, 8, 4), gate = fk_tensor_1d(NULL, FK_F32, 6);
  FkLinear l = {.x = x, .y = fk_tensor_2d(NULL, FK_BF16, 8, 6), .gate = gate, .epilogue = FK_EPI_GATE};
  l.w = (FkWeight){.dtype = FK_BF16, .out = 6, .in = 4};
  g_assert_true(fk_arena_open(&arena, be, 90));
  fk_op_linear(be, &arena, &l, 1);
  g_assert_false(fk_backend_sync(be));
  g_assert_cmpint(be->failure, ==, FK_FAIL_MEMORY);
  fk_backend_clear(be);
  fk_arena_close(&arena);
  g_assert_true(fk_arena_open(&arena, be, 0)); /* counts only */
  fk_op_linear(be, &arena, &l, 1);
  g_assert_true(fk_backend_sync(be));
  g_assert_cmpuint(arena.peak, ==, 256); /* 8 * 6 * 2, aligned */
  g_assert_cmpuint(arena.used, ==, 0);
  fk_arena_close(&arena);
  fk_backend_close(be);
}

static size_t big_scratch(const FkBackend *be, const FkLinear *l, int groups) {
  g_assert_cmpuint(be->can, ==, 77);
  return (size_t)(groups * 1000 * fk_tensor_rows(l->x));
}

/* A walk on the null backend counts the scratch of the backend that will run. */
static void test_scratch_of_real(void) {
  FkBackend *be = open_backend("null");
  const FkOps ops = {.scratch = big_scratch};
  const FkBackend real = {.ops = &ops, .can = 77};
  FkArena arena;
  g_assert_true(fk_arena_open(&arena, be, 0));
  FkLinear l = {.x = fk_tensor_2d(NULL, FK_BF16, 8, 4), .y = fk_tensor_2d(NULL, FK_BF16, 8, 6)};
  l.w = (FkWeight){.dtype = FK_BF16, .out = 6, .in = 4};
  fk_op_linear(be, &arena, &l, 1);
  g_assert_cmpuint(arena.peak, ==, 0);
  be->real = &real;
  fk_op_linear(be, &arena, &l, 1);
  g_assert_cmpuint(arena.peak, ==, 8192); /* 8000, aligned */
  fk_arena_close(&arena);
  fk_backend_close(be);
}

/* A strided bf16 view arrives as a dense float32 .npy. */
static void test_dump(void) {
  g_autofree char *directory = g_dir_make_tmp("fk-dump-XXXXXX", NULL);
  g_autofree char *path = g_build_filename(directory, "0000-block.0.x.npy", NULL);
  const guint16 values[] = {0x3f80, 0x4000, 0, 0x4040, 0xc080, 0};
  const float expected[] = {1, 2, 3, -4};
  FkBackend *be = open_backend("cpu");
  FkTensor t = fk_tensor_2d((void *)values, FK_BF16, 2, 2);
  t.ld = 3;
  fk_debug_dump(be, "block/0/x", t); /* not asked for: writes nothing and does not count */
  g_setenv("FK_DUMP", directory, TRUE);
  fk_debug_dump(be, "block/0/x", t);
  g_unsetenv("FK_DUMP");
  g_autofree char *text = NULL;
  gsize size = 0;
  g_assert_true(g_file_get_contents(path, &text, &size, NULL));
  g_assert_cmpuint(size % 64, ==, sizeof expected);
  g_assert_cmpmem(text, 8, "\x93NUMPY\x01\x00", 8);
  gsize header = (guint8)text[8] + 256u * (guint8)text[9];
  g_assert_cmpuint(10 + header, ==, size - sizeof expected);
  g_assert_cmpint(text[9 + header], ==, '\n');
  g_assert_nonnull(
      g_strstr_len(text + 10, (gssize)header, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,2,), }"));
  g_assert_cmpmem(text + size - sizeof expected, sizeof expected, expected, sizeof expected);
  fk_backend_close(be);
  g_remove(path);
  g_rmdir(directory);
}

static void test_module_missing(void) {
  g_setenv("FK_CUDA_MODULE", "/nowhere/fkcuda.so", TRUE);
  assert_refused("cuda", "/nowhere/fkcuda.so", "cannot open");
  g_unsetenv("FK_CUDA_MODULE");
  g_setenv("FK_MODULE_DIR", "/nowhere-else", TRUE);
  assert_refused("cuda", "/nowhere-else/fkcuda.so", "cannot open");
  g_unsetenv("FK_MODULE_DIR");
}

static void test_module_foreign(void) {
  Dl_info glib;
  g_assert_true(dladdr((void *)(guintptr)g_free, &glib));
  g_autofree char *path = g_canonicalize_filename(glib.dli_fname, NULL);
  g_setenv("FK_CUDA_MODULE", path, TRUE);
  assert_refused("cuda", path, "fk_cuda_backend");
  g_unsetenv("FK_CUDA_MODULE");
}

/* Neither the current folder nor the linker's search path decides which code is run. */
static void test_module_relative(void) {
  static const char *const relative[] = {"libm.so.6", "kernels/fkcuda.so", "./fkcuda.so", "~/fkcuda.so"};
  for (guint i = 0; i < 2 * G_N_ELEMENTS(relative); i++) {
    const char *name = i % 2 ? "FK_MODULE_DIR" : "FK_CUDA_MODULE";
    g_setenv(name, relative[i / 2], TRUE);
    g_autofree char *is = g_strdup_printf("%s is '%s'", name, relative[i / 2]);
    assert_refused("cuda", is, "starts with /");
    g_unsetenv(name);
  }
  g_autofree char *deep = g_strnfill(5000, '/');
  g_setenv("FK_MODULE_DIR", deep, TRUE);
  assert_refused("cuda", "5010 bytes", "at most 4095");
  g_unsetenv("FK_MODULE_DIR");
}

static void test_module_stub(void) {
  const char *stub = g_getenv("FK_STUB_MODULE");
  if (!stub) {
    g_test_skip("FK_STUB_MODULE is not set");
    return;
  }
  g_setenv("FK_CUDA_MODULE", stub, TRUE);
  g_setenv("FK_STUB", "abi", TRUE);
  g_autofree char *numbers = g_strdup_printf("interface %d, this program needs %d", FK_BACKEND_ABI + 1, FK_BACKEND_ABI);
  assert_refused("cuda", numbers, stub);
  g_setenv("FK_STUB", "sizes", TRUE); /* the right number, other structs */
  assert_refused("cuda", "other headers", stub);
  g_setenv("FK_STUB", "open", TRUE);
  assert_refused("cuda", "no CUDA device 3", "driver");
  g_unsetenv("FK_STUB");
  FkBackend *be = open_backend("cuda");
  g_assert_cmpstr(be->machine, ==, "stub 0");
  g_assert_nonnull(be->module);
  fk_backend_close(be);
  g_unsetenv("FK_CUDA_MODULE");
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/backend/names", test_names);
  g_test_add_func("/backend/threads", test_threads);
  g_test_add_func("/backend/threads-refused", test_threads_refused);
  g_test_add_func("/backend/pool", test_pool);
#ifdef OPENBLAS_VERSION
  g_test_add_func("/backend/library-threads", test_library_threads);
#endif
  g_test_add_func("/backend/failure", test_failure);
  g_test_add_func("/backend/null-walk", test_null_walk);
  g_test_add_func("/backend/null-fail-step", test_null_fail_step);
  g_test_add_func("/backend/null-step-ms", test_null_step_ms);
  g_test_add_func("/backend/scratch", test_scratch);
  g_test_add_func("/backend/scratch-of-real", test_scratch_of_real);
  g_test_add_func("/backend/dump", test_dump);
  g_test_add_func("/backend/module-missing", test_module_missing);
  g_test_add_func("/backend/module-foreign", test_module_foreign);
  g_test_add_func("/backend/module-relative", test_module_relative);
  g_test_add_func("/backend/module-stub", test_module_stub);
  return g_test_run();
}
