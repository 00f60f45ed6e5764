/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and reading regular files: what is not one is refused without waiting for it. */
#include "file.h"
#include "test-files.h"

#include <sys/stat.h>
#include <unistd.h>

static void refused(const char *path, int code, const char *word) {
  g_autoptr(GError) error = NULL;
  uint64_t size;
  g_assert_cmpint(fk_file_open(path, &size, &error), ==, -1);
  assert_error(error, code, path, word);
}

static void not_files(void) {
  g_autofree char *folder = scratch_path("folder"), *fifo = scratch_path("fifo"), *loop = scratch_path("loop");
  g_autofree char *missing = scratch_path("missing"), *file = write_text("file", "x");
  g_autofree char *inside = g_build_filename(file, "inside", NULL);
  g_assert_cmpint(g_mkdir(folder, 0700), ==, 0);
  g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
  g_assert_cmpint(symlink("loop", loop), ==, 0);
  refused(missing, FK_ERROR_MODEL_MISSING, "No such file");
  refused(inside, FK_ERROR_MODEL_MISSING, "");
  refused(folder, FK_ERROR_MODEL_BAD, "a folder");
  refused(fifo, FK_ERROR_MODEL_BAD, "something else"); /* nobody writes into it: no waiting */
  refused("/dev/zero", FK_ERROR_MODEL_BAD, "something else");
  refused(loop, FK_ERROR_MODEL_BAD, "");
}

static void denied(void) {
  g_autofree char *path = write_text("denied", "x");
  g_assert_cmpint(g_chmod(path, 0), ==, 0);
  if (geteuid() == 0)
    g_test_skip("root may read everything");
  else
    refused(path, FK_ERROR_MODEL_DENIED, "");
}

static void reads(void) {
  g_autoptr(GError) error = NULL;
  g_autofree char *path = write_bytes("reads", "0123456789", 10), *link = scratch_path("link");
  g_assert_cmpint(symlink("reads", link), ==, 0);
  uint64_t size = 0;
  const int fd = fk_file_open(link, &size, &error);
  g_assert_no_error(error);
  g_assert_cmpuint(size, ==, 10);
  char bytes[4] = "";
  g_assert_true(fk_file_read(fd, path, 7, bytes, 3, &error));
  g_assert_cmpmem(bytes, 3, "789", 3);
  g_assert_true(fk_file_read(fd, path, 10, bytes, 0, &error));
  g_assert_false(fk_file_read(fd, path, 8, bytes, 3, &error));
  assert_error(error, FK_ERROR_MODEL_BAD, "ends at byte 10", "1 more");
  g_assert_cmpint(truncate(path, 5), ==, 0); /* shortened while it is open: an error, no signal */
  g_assert_false(fk_file_read(fd, path, 7, bytes, 3, &error));
  assert_error(error, FK_ERROR_MODEL_BAD, path, "ends at byte");
  close(fd);
}

static void loads(void) {
  g_autoptr(GError) error = NULL;
  gsize size = 0;
  g_autofree char *path = write_bytes("loads", "a\0b", 3), *empty = write_bytes("empty", "", 0);
  g_autofree char *text = fk_file_load(path, 3, &size, &error);
  g_assert_no_error(error);
  g_assert_cmpmem(text, size, "a\0b", 3);
  g_assert_cmpint(text[3], ==, 0);
  g_assert_null(fk_file_load(path, 2, &size, &error));
  assert_error(error, FK_ERROR_MODEL_BAD, "at most 2", "found 3");
  g_autofree char *nothing = fk_file_load(empty, 3, &size, &error);
  g_assert_cmpuint(size, ==, 0);
  g_assert_cmpstr(nothing, ==, "");
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  g_test_add_func("/file/not-files", not_files);
  g_test_add_func("/file/denied", denied);
  g_test_add_func("/file/reads", reads);
  g_test_add_func("/file/loads", loads);
  const int status = g_test_run();
  scratch_close();
  return status;
}
