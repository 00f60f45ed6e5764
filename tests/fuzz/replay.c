/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a fuzz harness on the files of a folder, in the order of their names. TAP.
 *
 * usage: replay-NAME FOLDER */
#include "fuzz.h"

static gint compare(gconstpointer a, gconstpointer b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int main(int argc, char **argv) {
  g_autoptr(GError) error = NULL;
  g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
  g_autoptr(GDir) dir = argc == 2 ? g_dir_open(argv[1], 0, &error) : NULL;
  const char *name;
  if (!dir) {
    g_print("Bail out! %s\n", error ? error->message : "usage: replay-NAME FOLDER");
    return 1;
  }
  while ((name = g_dir_read_name(dir))) g_ptr_array_add(names, g_strdup(name));
  g_ptr_array_sort(names, compare);
  g_print("1..%u\n", names->len);
  for (guint i = 0; i < names->len; i++) {
    g_autofree char *path = g_build_filename(argv[1], g_ptr_array_index(names, i), NULL), *data = NULL;
    gsize size;
    if (!g_file_get_contents(path, &data, &size, &error)) g_error("%s", error->message);
    /* A block of exactly this size, so that a sanitizer sees a byte too far. */
    g_autofree uint8_t *exact = size ? g_memdup2(data, size) : g_new0(uint8_t, 1);
    LLVMFuzzerTestOneInput(exact, size);
    g_print("ok %u %s\n", i + 1, (const char *)g_ptr_array_index(names, i));
  }
  return 0;
}
