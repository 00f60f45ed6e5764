/* SPDX-License-Identifier: Apache-2.0 */
/* Prompts to token ids: CLIP's byte-pair encoding and T5's unigram model, with the ids of transformers 5.
 *
 * Both open a folder of the checkpoint and check its files as untrusted input: a fault is one GError that names the
 * file and the entry (FK_ERROR_MODEL_MISSING, FK_ERROR_MODEL_BAD). Sizes of files, pieces and special tokens are
 * limited so that the time to open is that of reading 16 MiB or so, and the time to encode linear in the prompt. An
 * open tokenizer never changes, so any number of threads may encode with it at once. Not here: how many tokens a model
 * takes (config.h), the slow tokenizers of transformers 4, ftfy's repairs, HTML unescaping.
 *
 * Sources: spec section 3; transformers models/clip/tokenization_clip.py and models/t5/tokenization_t5.py. */
#ifndef FK_TOKENIZER_H
#define FK_TOKENIZER_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct FkClipTokenizer FkClipTokenizer;
typedef struct FkT5Tokenizer FkT5Tokenizer;

/* `folder` is .../tokenizer with vocab.json and merges.txt; tokenizer_config.json, special_tokens_map.json and
 * tokenizer.json are read where present. (transfer full) */
FkClipTokenizer *fk_clip_tokenizer_open(const char *folder, GError **error);
void fk_clip_tokenizer_free(FkClipTokenizer *tokenizer); /* (nullable) */
/* The rows that the embedding table must have: the highest id plus one. */
int fk_clip_tokenizer_rows(const FkClipTokenizer *tokenizer);
/* Writes `length` ids: begin, at most length - 2 of the text, end, then padding. `text` is NUL-terminated UTF-8 of at
 * most 1 MiB; anything else is FK_ERROR_OPTION_BAD with the number of bytes or the offset of the first bad one.
 * `truncated` (nullable): whether ids were left out. length >= 2. Also FK_ERROR_MEMORY. */
bool fk_clip_tokenizer_encode(const FkClipTokenizer *tokenizer, const char *text, int length, int32_t *ids,
                              bool *truncated, GError **error);

/* `folder` is .../tokenizer_2 with spiece.model and the same optional files. (transfer full) */
FkT5Tokenizer *fk_t5_tokenizer_open(const char *folder, GError **error);
void fk_t5_tokenizer_free(FkT5Tokenizer *tokenizer); /* (nullable) */
int fk_t5_tokenizer_rows(const FkT5Tokenizer *tokenizer);
/* As above: at most length - 1 ids of the text, end, then padding. length >= 1. */
bool fk_t5_tokenizer_encode(const FkT5Tokenizer *tokenizer, const char *text, int length, int32_t *ids, bool *truncated,
                            GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(FkClipTokenizer, fk_clip_tokenizer_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(FkT5Tokenizer, fk_t5_tokenizer_free)

#endif
