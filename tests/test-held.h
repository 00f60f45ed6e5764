/* SPDX-License-Identifier: Apache-2.0 */
/* What this process holds, for tests that nothing stays. */
#ifndef FK_TEST_HELD_H
#define FK_TEST_HELD_H

#include <glib.h>
#include <malloc.h>
#include <stdio.h>
#include <unistd.h>

/* Bytes that malloc has given and not got back; 0 where a sanitizer stands in its place. */
static inline gsize held_bytes(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return 0;
#else
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
#endif
}

/* Bytes of the pages that it has. For large memory alone: which heap a thread gets is chance, and a heap keeps pages
 * whose bytes were given back. */
static inline gsize held_pages(void) {
  g_autofree char *text = NULL;
  gsize pages = 0;
  g_assert_true(g_file_get_contents("/proc/self/statm", &text, NULL, NULL));
  g_assert_cmpint(sscanf(text, "%*u %zu", &pages), ==, 1);
  return pages * (gsize)sysconf(_SC_PAGESIZE);
}

static inline guint held_entries(const char *folder) {
  g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
  guint n = 0;
  while (g_dir_read_name(dir)) n++;
  return n;
}

static inline guint held_files(void) {
  return held_entries("/proc/self/fd");
}

/* Threads, of which as many as `expected` should be left: one that was joined is listed for a moment more. */
static inline guint held_threads(guint expected) {
  guint n = held_entries("/proc/self/task");
  for (guint i = 0; i < 5000 && n > expected; i++) {
    g_usleep(1000);
    n = held_entries("/proc/self/task");
  }
  return n;
}

#endif
