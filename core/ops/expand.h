/* SPDX-License-Identifier: Apache-2.0 */
/* Weights that are kept as their files have them (FkWeight.coded) become numbers just before the product that reads
 * them: in order, in scratch of that product; or ahead, while the ops before it run, in the other of two halves of a
 * scratch. What comes next is not known to a product, so the ops of a walk are listed first, by walking it on a backend
 * that only counts. Bytes are the same. libc only. */
#ifndef FK_EXPAND_H
#define FK_EXPAND_H

#include "ops.h"

/* A product with such weights. */
typedef struct {
  FkWeight w[FK_MAX_GROUPS]; /* of groups that have none `coded` is NULL */
  int groups;
  bool apart; /* the bytes come with the ops before it (a ring): nothing of it is expanded before these */
} FkAheadUse;

typedef struct FkAhead {
  FkAheadUse *use; /* [room], the caller's */
  int n, room;
  bool apart;   /* of the next that is listed */
  bool listed;  /* begun: the list is being walked */
  size_t bytes; /* of the largest */
  char *half[FK_AHEAD_SLOTS];
  int at, begun; /* uses so far, and those whose expansion has been asked for: at most one more */
} FkAhead;

/* The list is made by products on a backend whose `ahead` it is. Between begin and end the same products follow in the
 * same order on `be`; the halves are in `arena` meanwhile. A fixed order of events: the expansion of use i + 1 follows
 * the product of use i - 1, which had its half, and the product of use i waits for the expansion of use i. All that was
 * asked for is waited for at the end, so that whatever comes later finds memory at rest and a recording is whole. */
void fk_ahead_begin(FkAhead *ahead, FkBackend *be, FkArena *arena);
void fk_ahead_end(FkBackend *be);

/* For fk_op_linear: numbers instead of codes, in `arena`, until that is given back. The slot to be marked as done
 * behind the product, -1: none. */
int fk_expand_operands(FkBackend *be, FkArena *arena, FkLinear *l, int groups);

#endif
