/* SPDX-License-Identifier: Apache-2.0 */
/* A C face for libsentencepiece's reading of a model file: its pieces and their scores. */
#ifndef FK_SENTENCEPIECE_SHIM_H
#define FK_SENTENCEPIECE_SHIM_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct FkSentencePiece FkSentencePiece;

/* `data` is a serialised ModelProto and may go away afterwards. NULL: *error is why (malloc, the caller frees). */
FkSentencePiece *fk_sentencepiece_open(const void *data, size_t bytes, char **error);
void fk_sentencepiece_free(FkSentencePiece *model); /* (nullable) */
int fk_sentencepiece_count(const FkSentencePiece *model);
/* 0 <= id < count. (transfer none); UTF-8, `*bytes` long. */
const char *fk_sentencepiece_piece(const FkSentencePiece *model, int id, size_t *bytes);
float fk_sentencepiece_score(const FkSentencePiece *model, int id); /* log probability */

#ifdef __cplusplus
}
#endif

#endif
