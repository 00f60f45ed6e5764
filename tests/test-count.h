/* SPDX-License-Identifier: Apache-2.0 */
/* How often a test of chance runs: briefly in every run, a third of that under a sanitizer, FK_TEST_COUNT times in
 * tests/soak.sh. */
#ifndef TEST_COUNT_H
#define TEST_COUNT_H

#include <glib.h>

static inline guint test_count(guint brief) {
  const char *text = g_getenv("FK_TEST_COUNT");
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  brief = (brief + 2) / 3;
#endif
  return text ? (guint)g_ascii_strtoull(text, NULL, 10) : brief;
}

#endif
