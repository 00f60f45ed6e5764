/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of adapters call the modules of a model: every spelling of every dialect. */
#ifndef FK_LORA_NAMES_H
#define FK_LORA_NAMES_H

#include "weights.h"

#define FK_LORA_PIECES 4

/* A linear or a norm as a file has it: one tensor of the model, or several that stand one below the other there. */
typedef struct {
  char *name;
  FkPart part;
  int n;
  const FkBound *piece[FK_LORA_PIECES]; /* weights */
  int64_t first[FK_LORA_PIECES];        /* the module's row of each piece's first */
  int64_t rows, cols;
  bool swap; /* the second half of the rows is the tensor's first */
  bool pads; /* the file's columns may be fewer: the others have no change */
} FkLoraModule;

typedef struct {
  const FkLoraModule *module;
  const char *dialect; /* who writes such names */
} FkLoraSpelling;

typedef struct FkLoraNames FkLoraNames;

/* Of all modules that have been bound. binders: NULL where a part is not there; they must outlive the names. */
FkLoraNames *fk_lora_names_new(FkBinder *const binders[FK_PARTS]);
void fk_lora_names_free(FkLoraNames *names); /* (nullable) */
/* (nullable) */
const FkLoraSpelling *fk_lora_names_find(const FkLoraNames *names, const char *spelling);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(FkLoraNames, fk_lora_names_free)

#endif
