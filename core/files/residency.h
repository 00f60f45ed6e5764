/* SPDX-License-Identifier: Apache-2.0 */
/* Backend memory of one part's weights. It is laid out in groups: what an evaluation uses together (a block, an
 * encoder) stands together, so that it can be placed as one. Which tensors a group has is weights.h. */
#ifndef FK_RESIDENCY_H
#define FK_RESIDENCY_H

#include "backend.h"

#include <glib.h>

#define FK_WEIGHT_ALIGN 256u /* bytes */

/* When a group is used: all the time, once before the loop, or once in each evaluation, in the order of groups. */
typedef enum { FK_USE_ALWAYS, FK_USE_BEFORE, FK_USE_EACH, FK_USES } FkUse;

typedef struct {
  char *name;       /* "transformer_blocks.7" */
  size_t at, bytes; /* places: `at` is aligned, groups follow each other in order */
  FkUse use;
  int slot;       /* of the ring, -1: it stays in memory */
  size_t where;   /* bytes of the store's memory: its own, or its slot's */
  size_t host_at; /* bytes of the host copy, of a group with a slot */
} FkGroup;

/* Without a ring memory is laid out as places are. With one, groups that stay stand at its front and R slots of the
 * largest other group's size behind them; each of the others has one slot for good, so that addresses never change, and
 * comes from a copy in host memory when it is needed. What uses a slot next is copied as soon as the slot is free. */
typedef struct {
  FkBackend *be;
  GArray *groups;      /* FkGroup, at least one */
  size_t bytes;        /* of all groups */
  void *memory;        /* NULL: not in memory */
  int level, slots;    /* level 0: everything stays, no slots */
  size_t memory_bytes; /* that fk_store_alloc asks for */
  void *host;          /* copies of the groups with slots; NULL: none */
  size_t host_bytes;
  bool host_filled;
  size_t stay_bytes; /* of memory, from its front on: what has no slot */
  void *kept;        /* a copy of these; NULL: none */
  bool kept_filled;
  bool once; /* the groups that each evaluation uses are not used again at once: none is copied ahead for that */
  int occupant[FK_RING_SLOTS]; /* group whose bytes are in the slot, or on their way; -1: none */
} FkStore;

void fk_store_init(FkStore *store, FkBackend *be);
/* Gives the memory back too. */
void fk_store_clear(FkStore *store);

/* Laying out, before any memory is there. group: what is placed from now on belongs to it; until the first, to one
 * without a name. place: `bytes` more at the next aligned place, which is returned. */
void fk_store_group(FkStore *store, const char *name, FkUse use);
size_t fk_store_place(FkStore *store, size_t bytes);
static inline const FkGroup *fk_store_at(const FkStore *store, int group) {
  return &g_array_index(store->groups, FkGroup, group);
}

static inline bool fk_store_streams(const FkStore *store) {
  return store->level > 0;
}
/* Levels of streaming: 1: what is used before the loop, 1 + k: k of the groups that each evaluation uses, spread evenly
 * over it. Slots: 1 to FK_RING_SLOTS, fewer where there are fewer groups. */
int fk_store_levels(const FkStore *store);
/* Bytes of memory with this level and ring. */
size_t fk_store_level_bytes(const FkStore *store, int level, int slots);
/* The same of host memory: copies of what has a slot, and with `keeps` of what has none. */
size_t fk_store_level_host_bytes(const FkStore *store, int level, int slots, bool keeps);
/* Of host memory that it has now. */
size_t fk_store_pinned_bytes(const FkStore *store);
/* From the next fk_store_alloc on; nothing is in memory. Gives the host copy back. */
void fk_store_stream(FkStore *store, int level, int slots);
/* The host copy's memory, unless it is there. */
bool fk_store_alloc_host(FkStore *store, const char *what, GError **error);
/* The group that a place belongs to. */
int fk_store_group_at(const FkStore *store, size_t place);
/* Where a place is; NULL: not in memory. Of a group with a slot it has the group's bytes from need to done. */
void *fk_store_address(const FkStore *store, size_t place);
/* Ops from now on find the group's bytes; ops so far were the last of its use. Nothing for groups that stay. */
void fk_store_need(FkStore *store, int group);
void fk_store_done(FkStore *store, int group);
/* Ops from now on may write to slots, and nothing is known of what they have: the next need copies anew. */
void fk_store_settle(FkStore *store);

/* Memory for all groups, its content undefined. FK_ERROR_MEMORY, with `what` at the head of the message. */
bool fk_store_alloc(FkStore *store, const char *what, GError **error);
/* The caller has waited for what used it. */
void fk_store_release(FkStore *store);
/* A copy of what stays in memory, in host memory, before it is released: unless there is one. False: that memory was
 * refused, or the backend has failed; there is none. */
bool fk_store_keep(FkStore *store);
/* The copy back into memory; false: there is none. */
bool fk_store_restore(FkStore *store);

#endif
