/* SPDX-License-Identifier: Apache-2.0 */
/* A prompt's encodings, and the cache of the last 16. */
#ifndef FK_PROMPT_H
#define FK_PROMPT_H

#include "model.h"

#define FK_PROMPT_SLOTS 16

typedef struct {
  FkTensor states; /* [T, joint width] */
  FkTensor pooled; /* [1, pooled width] */
  bool cached, truncated;
} FkPrompt;

typedef struct {
  char *text;
  int length;
  uint64_t used; /* clock of the last use */
  bool truncated;
  FkTensor states, pooled;
} FkPromptSlot;

/* One block of backend memory for all slots, so that a new prompt allocates nothing. */
typedef struct {
  const FkModel *model;
  FkBackend *be;
  void *memory;
  uint64_t clock;
  FkPromptSlot slot[FK_PROMPT_SLOTS];
} FkPromptCache;

size_t fk_prompt_cache_bytes(const FkModel *model, const FkBackend *be);
/* memory: fk_prompt_cache_bytes of the backend's (transfer full), or NULL: a cache that holds nothing. */
void fk_prompt_cache_init(FkPromptCache *cache, const FkModel *model, FkBackend *be, void *memory);
void fk_prompt_cache_clear(FkPromptCache *cache);

/* T5 tokens used when `asked` is 0. */
int fk_prompt_length(const FkModel *model, int asked);
/* Tokenizes and encodes, or copies from the cache. The tensors come from `arena`. length: T5 tokens. */
bool fk_prompt_encode(const FkModel *model, FkBackend *be, FkArena *arena, FkPromptCache *cache, const char *text,
                      int length, FkPrompt *prompt, GError **error);

#endif
