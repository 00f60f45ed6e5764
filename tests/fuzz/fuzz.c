/* SPDX-License-Identifier: Apache-2.0 */
/* Files of the fuzz harnesses; see fuzz.h. */
#include "fuzz.h"

#include "fk-error.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static char *folder;

static void remove_tree(const char *path) {
  GDir *dir = g_file_test(path, G_FILE_TEST_IS_SYMLINK) ? NULL : g_dir_open(path, 0, NULL);
  const char *name;
  while (dir && (name = g_dir_read_name(dir))) {
    g_autofree char *inner = g_build_filename(path, name, NULL);
    remove_tree(inner);
  }
  if (dir) g_dir_close(dir);
  g_remove(path);
}

static void remove_folder(void) {
  remove_tree(folder);
}

const char *fuzz_folder(void) {
  if (folder) return folder;
  folder = g_dir_make_tmp("fk-fuzz-XXXXXX", NULL);
  g_assert_nonnull(folder);
  atexit(remove_folder);
  return folder;
}

void fuzz_link(const char *in, const char *name, const char *target) {
  g_autofree char *path = g_build_filename(in, name, NULL), *parent = g_path_get_dirname(path);
  g_assert_cmpint(g_mkdir_with_parents(parent, 0700), ==, 0);
  g_assert_cmpint(symlink(target, path), ==, 0);
}

FuzzFile fuzz_file(const char *in, const char *name) {
  FuzzFile file = {g_build_filename(in, name, NULL), memfd_create("fuzz", 0)};
  g_assert_cmpint(file.fd, >=, 0);
  g_autofree char *target = g_strdup_printf("/proc/self/fd/%d", file.fd);
  fuzz_link(in, name, target);
  return file;
}

void fuzz_write(const FuzzFile *file, const void *data, size_t size) {
  g_assert_cmpint(ftruncate(file->fd, 0), ==, 0);
  g_assert_cmpint(pwrite(file->fd, data, size, 0), ==, (gssize)size);
}

void fuzz_check(const GError *error, gboolean taken) {
  g_assert_true((error == NULL) == taken);
  if (!error) return;
  g_assert_true(error->domain == FK_ERROR);
  g_assert_true(g_utf8_validate(error->message, -1, NULL));
  for (const char *c = error->message; *c; c++) g_assert_true(*c < 0 || *c >= ' '); /* bytes of UTF-8 are negative */
  g_assert_cmpuint(strlen(error->message), <, 2000);
}
