/* SPDX-License-Identifier: Apache-2.0 */
/* Files that the loader's tests write: a scratch folder, safetensors from a header's text, and the check of an error.
 */
#ifndef FK_TEST_FILES_H
#define FK_TEST_FILES_H

#include "fk.h"

#include <glib/gstdio.h>
#include <string.h>

static char *scratch; /* a folder of this process */

static inline void scratch_open(void) {
  scratch = g_dir_make_tmp("fk-test-XXXXXX", NULL);
  g_assert_nonnull(scratch);
}

/* Removes a file or a folder with all that is in it; links are not followed. */
static inline void remove_tree(const char *path) {
  GDir *dir = g_file_test(path, G_FILE_TEST_IS_SYMLINK) ? NULL : g_dir_open(path, 0, NULL);
  const char *name;
  while (dir && (name = g_dir_read_name(dir))) {
    g_autofree char *inner = g_build_filename(path, name, NULL);
    remove_tree(inner);
  }
  if (dir) g_dir_close(dir);
  g_remove(path);
}

static inline void scratch_close(void) {
  remove_tree(scratch);
  g_clear_pointer(&scratch, g_free);
}

static inline char *scratch_path(const char *name) {
  return g_build_filename(scratch, name, NULL);
}

static inline char *write_bytes(const char *name, const void *bytes, size_t size) {
  char *path = scratch_path(name);
  g_autofree char *folder = g_path_get_dirname(path);
  g_assert_cmpint(g_mkdir_with_parents(folder, 0700), ==, 0);
  /* Not g_file_set_contents: it syncs and renames, which ten thousand small files need not. */
  FILE *file = g_fopen(path, "wb");
  g_assert_nonnull(file);
  g_assert_cmpuint(fwrite(bytes, 1, size, file), ==, size);
  g_assert_cmpint(fclose(file), ==, 0);
  return path;
}

static inline char *write_text(const char *name, const char *text) {
  return write_bytes(name, text, strlen(text));
}

/* length (little-endian), header, data */
static inline GByteArray *safetensors_bytes(const char *header, size_t header_bytes, const void *data, size_t bytes) {
  GByteArray *file = g_byte_array_new();
  guint64 n = GUINT64_TO_LE((guint64)header_bytes);
  g_byte_array_append(file, (const guint8 *)&n, sizeof n);
  g_byte_array_append(file, (const guint8 *)header, (guint)header_bytes);
  if (bytes) g_byte_array_append(file, data, (guint)bytes);
  return file;
}

static inline char *write_safetensors(const char *name, const char *header, const void *data, size_t bytes) {
  g_autoptr(GByteArray) file = safetensors_bytes(header, strlen(header), data, bytes);
  return write_bytes(name, file->data, file->len);
}

/* The error is of this code, its message has both texts, and it is cleared. */
#define assert_error(error, code_, text_1, text_2)                                                                     \
  do {                                                                                                                 \
    g_assert_error(error, FK_ERROR, code_);                                                                            \
    if (!strstr((error)->message, text_1) || !strstr((error)->message, text_2))                                        \
      g_error("expected \"%s\" and \"%s\" in the message: %s", text_1, text_2, (error)->message);                      \
    g_assert_true(g_utf8_validate((error)->message, -1, NULL));                                                        \
    g_assert_cmpuint(strlen((error)->message), <, 2000);                                                               \
    g_clear_error(&(error));                                                                                           \
  } while (0)

#endif
