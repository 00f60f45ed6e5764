/* SPDX-License-Identifier: Apache-2.0 */
/* The engines of this process, by what they are: users whose options come to the same share one. */
#ifndef FK_REGISTRY_H
#define FK_REGISTRY_H

#include "fk.h"

/* What is shared: the first member of FkEngine. */
typedef struct {
  int refs;
} FkShared;

/* The files that the options name: resolved path, inode, size and time of each file of the model that an engine reads.
 * A changed file is another model; a changed README is not. (transfer full) */
char *fk_registry_files(const FkOptions *options);
/* What model.c and the tokenizers open in a checkpoint folder: names below it, in a fixed order, NULL-terminated. Empty
 * where `folder` is none. (transfer full): g_strfreev */
char **fk_registry_checkpoint(const char *folder);

/* Those of them that are read of `path`, which option `property` names, where the others are what `options` say: of a
 * model's folder no part that comes from elsewhere, of another folder the part that it is named for. (transfer full):
 * g_strfreev */
char **fk_registry_read(const FkOptions *options, const char *property, const char *path);

/* The engine of this name, with a reference more. (transfer full, nullable) */
FkShared *fk_registry_find(const char *name);
/* Registers `shared` (transfer full) as `name`, or frees it and returns the one that another thread registered
 * meanwhile. */
FkShared *fk_registry_add(FkShared *shared, const char *name, void (*free_shared)(FkShared *));
/* Another name for a registered engine; the first owner of a name keeps it. */
void fk_registry_alias(FkShared *shared, const char *name);
/* Drops one reference; true when it was the last and the object is to be freed. Its names are gone then. */
bool fk_registry_drop(FkShared *shared);

#endif
