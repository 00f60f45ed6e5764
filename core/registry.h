/* SPDX-License-Identifier: Apache-2.0 */
/* The engines of this process, by what they were opened with: elements with equal options share one. */
#ifndef FK_REGISTRY_H
#define FK_REGISTRY_H

#include "fk.h"

/* Options plus path, inode, size and time of every file of the model: a changed folder is another model. (transfer
 * full) */
char *fk_registry_identity(const FkOptions *options);
/* What is shared: the first member of FkEngine. */
typedef struct {
  int refs;
  char *identity;
} FkShared;

/* (transfer full, nullable) */
FkShared *fk_registry_find(const char *identity);
/* Registers `shared` (transfer full), or frees it and returns the one that another thread registered meanwhile. */
FkShared *fk_registry_add(FkShared *shared, void (*free_shared)(FkShared *));
/* Drops one reference; true when it was the last and the object is to be freed. */
bool fk_registry_drop(FkShared *shared);

#endif
