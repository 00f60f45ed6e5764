/* SPDX-License-Identifier: Apache-2.0 */
/* A model's parts wherever their files are: a diffusers folder, single files, one file of several parts, or a mixture.
 * What a file is is seen from its tensors' names, never from its own. */
#ifndef FK_CHECKPOINT_H
#define FK_CHECKPOINT_H

#include "config.h"

/* Paths as the properties of these names give them; NULL and "": not given. */
typedef struct {
  const char *model;           /* folder or file */
  const char *vae, *clip, *t5; /* file, the part's folder or a whole model's: instead of the model's own */
  const char *tokenizer;       /* folder with tokenizer/ and tokenizer_2/ */
} FkPaths;

typedef struct {
  FkComponent *component[FK_PARTS]; /* NULL: not opened */
  FkNames names;
  FkConfig config;
  char *tokenizers; /* folder with tokenizer/ and tokenizer_2/; NULL: not asked for */
} FkCheckpoint;

/* Which files of weights are opened and kept: none, but where the configuration is in them; those that can be had, for
 * the forms of their numbers, and whatever is wrong with others is not told; all. */
typedef enum { FK_FILES_NONE, FK_FILES_FORMS, FK_FILES_ALL } FkFiles;

/* Opens headers and configurations. FK_ERROR_OPTION_BAD names the properties whose paths are wanted and not given; else
 * FK_ERROR_MODEL_* as fk_config_load and fk_component_open. */
bool fk_checkpoint_open(FkCheckpoint *checkpoint, const FkPaths *paths, FkFiles files, GError **error);
void fk_checkpoint_clear(FkCheckpoint *checkpoint);

#endif
