/* SPDX-License-Identifier: Apache-2.0 */
/* Backend memory of one part's weights. It is laid out in groups: what an evaluation uses together (a block, an
 * encoder) stands together, so that it can be placed as one. Which tensors a group has is weights.h. */
#ifndef FK_RESIDENCY_H
#define FK_RESIDENCY_H

#include "backend.h"

#include <glib.h>

#define FK_WEIGHT_ALIGN 256u /* bytes */

typedef struct {
  char *name;       /* "transformer_blocks.7" */
  size_t at, bytes; /* of the store's memory; `at` is aligned, groups follow each other in order */
} FkGroup;

typedef struct {
  FkBackend *be;
  GArray *groups; /* FkGroup, at least one */
  size_t bytes;   /* of all groups */
  void *memory;   /* NULL: not in memory */
} FkStore;

void fk_store_init(FkStore *store, FkBackend *be);
/* Gives the memory back too. */
void fk_store_clear(FkStore *store);

/* Laying out, before any memory is there. group: what is placed from now on belongs to it; until the first, to one
 * without a name. place: `bytes` more at the next aligned place, which is returned. */
void fk_store_group(FkStore *store, const char *name);
size_t fk_store_place(FkStore *store, size_t bytes);
static inline const FkGroup *fk_store_at(const FkStore *store, int group) {
  return &g_array_index(store->groups, FkGroup, group);
}

/* Memory for all groups, its content undefined. FK_ERROR_MEMORY, with `what` at the head of the message. */
bool fk_store_alloc(FkStore *store, const char *what, GError **error);
/* The caller has waited for what used it. */
void fk_store_release(FkStore *store);

#endif
