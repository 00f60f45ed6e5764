/* SPDX-License-Identifier: Apache-2.0 */
/* How the time of a task grows with its size: against the same task at a quarter of the size, so that neither the
 * machine nor its load nor the sanitizers matter. */
#ifndef FK_TEST_GROWTH_H
#define FK_TEST_GROWTH_H

#include <glib.h>
#include <time.h>

/* Does the task once at its whole or at a quarter of its size; the same work each time. */
typedef void (*GrowthTask)(gpointer data, gboolean quarter);

/* Seconds of this thread on a processor. */
static double growth_time(GrowthTask task, gpointer data, gboolean quarter) {
  struct timespec start, end;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
  task(data, quarter);
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
  return (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
}

/* The whole takes at most eight times as long as the quarter, best of several each: 4 is linear, 16 would be quadratic,
 * and caches and neighbours explain the rest. */
static void assert_linear(const char *what, GrowthTask task, gpointer data) {
  double part = 1e9, whole = 1e9;
  for (int round = 0; round < 12; round++) {
    part = MIN(part, growth_time(task, data, TRUE));
    whole = MIN(whole, growth_time(task, data, FALSE));
    if (round && whole <= 8 * part) break;
  }
  g_test_message("%s: a quarter %.4f s, the whole %.4f s", what, part, whole);
  if (whole > 8 * part) g_error("%s: a quarter of its size takes %.4f s, the whole %.4f s", what, part, whole);
}

#endif
