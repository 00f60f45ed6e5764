/* SPDX-License-Identifier: Apache-2.0 */
/* One adapter's file: its tensors by module, checked. For lora.c. */
#ifndef FK_LORA_FILE_H
#define FK_LORA_FILE_H

#include "json-scan.h"
#include "lora-names.h"

#define FK_LORA_MAX_RANK 1024
#define FK_LORA_SHOWN 8 /* names of tensors without a place that are kept */

/* What a tensor of a module is, by the end of its name. */
typedef enum {
  FK_SLOT_UP,
  FK_SLOT_DOWN,
  FK_SLOT_HADA_W1A,
  FK_SLOT_HADA_W1B,
  FK_SLOT_HADA_W2A,
  FK_SLOT_HADA_W2B,
  FK_SLOT_LOKR_W1,
  FK_SLOT_LOKR_W1A,
  FK_SLOT_LOKR_W1B,
  FK_SLOT_LOKR_W2,
  FK_SLOT_LOKR_W2A,
  FK_SLOT_LOKR_W2B,
  FK_SLOT_DIFF,
  FK_SLOT_DIFF_BIAS,
  FK_SLOT_UP_BIAS,
  FK_SLOT_ALPHA,
  FK_SLOT_MAGNITUDE,
  FK_SLOTS
} FkLoraSlot;

typedef struct {
  const FkLoraModule *module;
  char *stem; /* what the file calls it */
  const FkStTensor *slot[FK_SLOTS];
  /* Known after the check. */
  bool changes_weight, changes_bias;
  FkDelta weight, bias; /* without first, swap, weight and norm */
} FkLoraGroup;

typedef struct {
  FkSafetensors *file;
  FkJsonTree *metadata; /* peft's; NULL: none */
  GPtrArray *groups;    /* FkLoraGroup, owned; in the order of the file's bytes */
  bool adapters;        /* some tensor is one by its name */
  const char *dialect;
  char *shown[FK_LORA_SHOWN]; /* of the first of these */
  int unmatched;
} FkLoraFile;

/* Opens and checks. Errors as fk_loras_open, without those of the list. */
FkLoraFile *fk_lora_file_open(const char *path, const FkLoraNames *names, GError **error);
void fk_lora_file_free(FkLoraFile *file); /* (nullable) */
/* Lines on a file of adapters, for people, by its names alone. (transfer full): NULL: it has none. */
char *fk_lora_file_describe(const FkSafetensors *file);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(FkLoraFile, fk_lora_file_free)

#endif
