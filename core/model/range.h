/* SPDX-License-Identifier: Apache-2.0 */
/* Evaluations of an edit that a policy leaves alone: "the first a and the last b run in full". Step caches use it for
 * skipping; anything that changes precision along the schedule uses the same words. */
#ifndef FK_RANGE_H
#define FK_RANGE_H

#include <stdbool.h>

typedef struct {
  int first, last; /* how many at the start, how many at the end */
} FkFullRange;

static inline bool fk_range_full(FkFullRange r, int evaluation, int evaluations) {
  return evaluation < r.first || evaluation >= evaluations - r.last;
}

#endif
