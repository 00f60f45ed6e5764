/* SPDX-License-Identifier: Apache-2.0 */
/* FK_DUMP: one file per named tensor, readable by NumPy (its format 1.0, checked here byte by byte), nothing without it
 * and nothing after a failure. */
#include "debug.h"
#include "test-files.h"

static FkBackend *open_cpu(void) {
  char message[128];
  FkFailure failure;
  return fk_backend_open("cpu", 0, 0, &failure, message, sizeof message);
}

static int files_in(const char *folder) {
  g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
  int n = 0;
  while (g_dir_read_name(dir)) n++;
  return n;
}

/* The file's header has this shape and type, its data these bytes. */
static void assert_npy(const char *name, const char *descr, const char *shape, const void *data, size_t bytes) {
  g_autofree char *path = g_build_filename(scratch, name, NULL), *text = NULL;
  gsize size = 0;
  if (!g_file_get_contents(path, &text, &size, NULL)) g_error("no file %s", path);
  g_assert_cmpmem(text, 8, "\x93NUMPY\x01\x00", 8);
  const size_t header = (guint8)text[8] + 256u * (guint8)text[9];
  g_assert_cmpuint((10 + header) % 64, ==, 0);
  g_assert_cmpint(text[9 + header], ==, '\n');
  g_autofree char *dictionary = g_strndup(text + 10, header);
  g_assert_nonnull(strstr(dictionary, descr));
  g_assert_nonnull(strstr(dictionary, shape));
  g_assert_nonnull(strstr(dictionary, "'fortran_order': False"));
  g_assert_cmpmem(text + 10 + header, size - 10 - header, data, bytes);
}

static void types(void) {
  FkBackend *be = open_cpu();
  float f32[6] = {1, 2, 3, 4, 5, 6};
  int32_t i32[3] = {7, -8, 9};
  const uint16_t f16[2] = {0x3c00, 0xc000}; /* 1, -2 */
  const float wide[2] = {1, -2};
  g_setenv("FK_DUMP", scratch, TRUE);
  fk_debug_dump(be, "three", fk_tensor_3d(f32, FK_F32, 1, 2, 3));
  fk_debug_dump(be, "ids/x", fk_tensor_1d(i32, FK_I32, 3));
  fk_debug_dump(be, "half", fk_tensor_1d((void *)f16, FK_F16, 2));
  fk_debug_dump(be, "columns", fk_tensor_slice_cols(fk_tensor_2d(f32, FK_F32, 2, 3), 1, 2));
  g_unsetenv("FK_DUMP");
  const float columns[4] = {2, 3, 5, 6};
  assert_npy("0000-three.npy", "'<f4'", "(1,2,3,)", f32, sizeof f32);
  assert_npy("0001-ids.x.npy", "'<i4'", "(3,)", i32, sizeof i32);
  assert_npy("0002-half.npy", "'<f4'", "(2,)", wide, sizeof wide);
  assert_npy("0003-columns.npy", "'<f4'", "(2,2,)", columns, sizeof columns);
  fk_backend_close(be);
}

static void silent(void) {
  FkBackend *be = open_cpu();
  float x[1] = {1};
  const int before = files_in(scratch);
  const FkTensor t = fk_tensor_1d(x, FK_F32, 1);
  fk_debug_dump(be, "unset", t);
  g_setenv("FK_DUMP", "", TRUE);
  fk_debug_dump(be, "empty", t);
  g_setenv("FK_DUMP", "/nowhere/at/all", TRUE);
  fk_debug_dump(be, "nowhere", t); /* left out, and the edit goes on */
  g_setenv("FK_DUMP", scratch, TRUE);
  fk_debug_dump(be, "absent", fk_tensor_none());
  fk_backend_fail(be, FK_FAIL_DEVICE, "made up");
  fk_debug_dump(be, "failed", t);
  g_unsetenv("FK_DUMP");
  g_assert_cmpint(files_in(scratch), ==, before);
  fk_backend_close(be);
}

enum { DUMPS = 200 };

static gpointer dump_many(gpointer data) {
  FkBackend *be = data;
  float x = (float)(be->device);
  for (int i = 0; i < DUMPS; i++) fk_debug_dump(be, "many", fk_tensor_1d(&x, FK_F32, 1));
  return NULL;
}

/* Two backends at the same time: each has its numbers without gaps, and what is in a file is its backend's. */
static void two_backends(void) {
  FkBackend *be[2] = {open_cpu(), open_cpu()};
  g_autofree char *folder = g_build_filename(scratch, "two", NULL);
  GThread *threads[2];
  g_assert_cmpint(g_mkdir(folder, 0700), ==, 0);
  g_setenv("FK_DUMP", folder, TRUE);
  for (int i = 0; i < 2; i++) be[i]->device = 10 + i;
  for (int i = 0; i < 2; i++) threads[i] = g_thread_new("dump", dump_many, be[i]);
  for (int i = 0; i < 2; i++) g_thread_join(threads[i]);
  g_unsetenv("FK_DUMP");
  g_assert_cmpuint(be[0]->dumper, !=, be[1]->dumper);
  g_assert_cmpint(files_in(folder), ==, 2 * DUMPS);
  for (int i = 0; i < 2; i++) {
    const float x = (float)be[i]->device;
    for (int k = 0; k < DUMPS; k++) {
      g_autofree char *name = g_strdup_printf("two/%u-%04d-many.npy", be[i]->dumper, k);
      assert_npy(name, "'<f4'", "(1,)", &x, sizeof x);
    }
    fk_backend_close(be[i]);
  }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  g_test_add_func("/debug/types", types);
  g_test_add_func("/debug/silent", silent);
  g_test_add_func("/debug/two-backends", two_backends);
  const int status = g_test_run();
  scratch_close();
  return status;
}
