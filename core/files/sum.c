/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes that do not wait for each other: as many words at a time as the processor has, so that a sum costs a small part
 * of the copy that brought its bytes. See sum.h. */
#include "sum.h"

#include "cpu.h" /* FK_CPU_CLONES */

#include <string.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif

FK_CPU_CLONES static void add_blocks(uint32_t *lane, const unsigned char *bytes, size_t blocks) {
  uint32_t state[FK_SUM_LANES];
  memcpy(state, lane, sizeof state);
  for (; blocks; blocks--, bytes += FK_SUM_BLOCK) {
    for (int i = 0; i < FK_SUM_LANES; i++) {
      uint32_t word;
      memcpy(&word, bytes + 4 * i, sizeof word);
      word = (state[i] ^ word) * 0x9e3779b1u; /* odd; 2^32 divided by the golden ratio */
      state[i] = word << 13 | word >> 19;
    }
  }
  memcpy(lane, state, sizeof state);
}

void fk_sum_begin(FkSum *sum) {
  for (uint32_t i = 0; i < FK_SUM_LANES; i++) sum->lane[i] = i;
  sum->bytes = 0;
}

void fk_sum_add(FkSum *sum, const void *bytes, size_t n) {
  const unsigned char *at = bytes;
  const size_t rest = sum->bytes % FK_SUM_BLOCK;
  sum->bytes += n;
  if (rest) {
    const size_t more = n < FK_SUM_BLOCK - rest ? n : FK_SUM_BLOCK - rest;
    memcpy(sum->rest + rest, at, more);
    at += more;
    n -= more;
    if (rest + more < FK_SUM_BLOCK) return;
    add_blocks(sum->lane, sum->rest, 1);
  }
  add_blocks(sum->lane, at, n / FK_SUM_BLOCK);
  memcpy(sum->rest, at + n / FK_SUM_BLOCK * FK_SUM_BLOCK, n % FK_SUM_BLOCK);
}

/* 2^64 divided by the golden ratio. */
static uint64_t fold(uint64_t state, uint64_t word) {
  state = (state ^ word) * 0x9e3779b97f4a7c15u;
  return state << 29 | state >> 35;
}

uint64_t fk_sum_end(const FkSum *sum) {
  FkSum s = *sum;
  uint64_t state = s.bytes;
  const size_t rest = s.bytes % FK_SUM_BLOCK;
  if (rest) {
    memset(s.rest + rest, 0, FK_SUM_BLOCK - rest);
    add_blocks(s.lane, s.rest, 1);
  }
  for (int i = 0; i < FK_SUM_LANES; i++) state = fold(state, s.lane[i]);
  return state;
}

uint64_t fk_sum(const void *bytes, size_t n) {
  FkSum sum;
  fk_sum_begin(&sum);
  fk_sum_add(&sum, bytes, n);
  return fk_sum_end(&sum);
}
