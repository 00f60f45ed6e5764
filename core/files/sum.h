/* SPDX-License-Identifier: Apache-2.0 */
/* A 64-bit sum of bytes, against damage and not against forgery. Every step is a bijection of the state, so that a
 * change of one word is always seen. */
#ifndef FK_SUM_H
#define FK_SUM_H

#include <stddef.h>
#include <stdint.h>

#define FK_SUM_CHUNK (4u << 20) /* bytes under one sum of a packed model; part of its format */
#define FK_SUM_LANES 64
#define FK_SUM_BLOCK (FK_SUM_LANES * 4) /* bytes: a little-endian word for each lane */

typedef struct {
  uint32_t lane[FK_SUM_LANES];
  uint64_t bytes;                   /* so far */
  unsigned char rest[FK_SUM_BLOCK]; /* those behind the last whole block */
} FkSum;

void fk_sum_begin(FkSum *sum);
void fk_sum_add(FkSum *sum, const void *bytes, size_t n);
/* Of all that was added, however it was cut. */
uint64_t fk_sum_end(const FkSum *sum);
uint64_t fk_sum(const void *bytes, size_t n);

#endif
