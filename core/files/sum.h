/* SPDX-License-Identifier: Apache-2.0 */
/* A 64-bit sum of bytes, against damage and not against forgery: faster than memory, so that tens of gigabytes are
 * checked while they are read. Every step is a bijection of the state, so that a change of one word is always seen. */
#ifndef FK_SUM_H
#define FK_SUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FK_SUM_CHUNK (4u << 20) /* bytes under one sum of a packed model; part of its format */

static inline uint64_t fk_sum_step(uint64_t state, uint64_t word) {
  state = (state ^ word) * 0x9e3779b97f4a7c15u; /* odd; 2^64 divided by the golden ratio */
  return state << 29 | state >> 35;
}

/* Four chains, because one waits for its own multiplication. Words are little-endian. */
static inline uint64_t fk_sum(const void *bytes, size_t n) {
  const unsigned char *at = bytes;
  uint64_t a = n, b = 1, c = 2, d = 3, word[4]; /* four names: an array of states stays in memory, at half the rate */
  for (; n >= sizeof word; n -= sizeof word, at += sizeof word) {
    memcpy(word, at, sizeof word);
    a = fk_sum_step(a, word[0]);
    b = fk_sum_step(b, word[1]);
    c = fk_sum_step(c, word[2]);
    d = fk_sum_step(d, word[3]);
  }
  memset(word, 0, sizeof word);
  memcpy(word, at, n);
  a = fk_sum_step(a, word[0]);
  b = fk_sum_step(b, word[1]);
  c = fk_sum_step(c, word[2]);
  d = fk_sum_step(d, word[3]);
  return fk_sum_step(fk_sum_step(fk_sum_step(fk_sum_step(0, a), b), c), d);
}

#endif
