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

/* Opens headers and configurations. with_files false: files are opened only where the configuration is in them, and
 * not kept. FK_ERROR_OPTION_BAD names the properties whose paths are wanted and not given; else FK_ERROR_MODEL_* as
 * fk_config_load and fk_component_open. */
bool fk_checkpoint_open(FkCheckpoint *checkpoint, const FkPaths *paths, bool with_files, GError **error);
void fk_checkpoint_clear(FkCheckpoint *checkpoint);

#endif
