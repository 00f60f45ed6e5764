/* SPDX-License-Identifier: Apache-2.0 */
/* Adapters: files of LoRA, LoHa, LoKr, DoRA and whole differences in every dialect (lora-names.h), read, checked and
 * turned into what they change (delta.h). The files are untrusted: every name, type, shape and number is checked before
 * anything of them is used. */
#ifndef FK_LORA_H
#define FK_LORA_H

#include "weights.h"

#define FK_LORA_MAX_FILES 32
#define FK_LORA_MAX_WEIGHT 1000.0

typedef struct FkLoras FkLoras;

/* "path[:weight]; path[:weight]"; NULL and "" are none. The files of a list that are the same as those of another, by
 * what the file system says of them, give the same text. FK_ERROR_OPTION_BAD, or that a file is not there.
 * (transfer full) */
char *fk_loras_identity(const char *list, GError **error);

/* The list alone, without a look at the files: FK_ERROR_OPTION_BAD. */
bool fk_loras_check(const char *list, GError **error);

/* A line "hash weight" for each file, by which results with the same adapters are the same wherever the files are: hash
 * as fk_hash_file. (transfer full) */
char *fk_loras_hashes(const char *list, GError **error);

/* The same for a reader: "hash BEFOREname:weight", with "sampled" behind the hash of a large file. (transfer full) */
char *fk_loras_sources(const char *list, const char *before, GError **error);

/* Opens and checks the files of a list for a model whose parts have been bound; binders: NULL where there is none.
 * Every number is read once. FK_ERROR_OPTION_BAD (the list), FK_ERROR_MODEL_MISSING, _DENIED, _BAD (a file), _MISMATCH
 * (not of this model, or of a kind that cannot be applied), _MEMORY. */
FkLoras *fk_loras_open(const char *list, FkBinder *const binders[FK_PARTS], GError **error);
void fk_loras_free(FkLoras *loras); /* (nullable) */
/* What is changed: canonical name -> FkDeltas. (transfer none) */
GHashTable *fk_loras_deltas(const FkLoras *loras, FkPart part);
/* Tensors of the files that have no place in the model. */
int fk_loras_unmatched(const FkLoras *loras);
/* "a.safetensors:0.8 (kohya, 304 modules)", and what has no place. (transfer full) */
char *fk_loras_text(const FkLoras *loras);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(FkLoras, fk_loras_free)

#endif
