/* SPDX-License-Identifier: Apache-2.0 */
/* A prompt's encodings, and the cache of the last 16. */
#ifndef FK_PROMPT_H
#define FK_PROMPT_H

#include "fk.h"
#include "model.h"

#define FK_PROMPT_ENTRIES 16

typedef struct {
  FkTensor states; /* [T, joint width] */
  FkTensor pooled; /* [1, pooled width] */
  bool cached;
  FkTextRead clip, t5;
} FkPrompt;

/* One text at one number of T5 tokens. */
typedef struct {
  char *text; /* NULL: free */
  int length;
  bool pending;  /* its copies are enqueued and not yet known to have run */
  uint64_t used; /* clock of the last use */
  FkTextRead clip, t5;
  FkTensor states, pooled;
} FkPromptEntry;

/* One block of backend memory for all entries, so that a new prompt allocates nothing there. */
typedef struct {
  const FkModel *model;
  FkBackend *be;
  void *memory;
  uint64_t clock;
  FkPromptEntry entry[FK_PROMPT_ENTRIES];
} FkPromptCache;

size_t fk_prompt_cache_bytes(const FkModel *model, const FkBackend *be);
/* memory: fk_prompt_cache_bytes of the backend's (transfer full), or NULL: a cache that holds nothing. */
void fk_prompt_cache_init(FkPromptCache *cache, const FkModel *model, FkBackend *be, void *memory);
void fk_prompt_cache_clear(FkPromptCache *cache);
/* Drops all entries: the encoders are others. */
void fk_prompt_cache_forget(FkPromptCache *cache);
/* After the backend was waited for: entries made since the last call stay (ran) or are dropped. */
void fk_prompt_cache_settle(FkPromptCache *cache, bool ran);

/* T5 tokens used when `asked` is 0. */
int fk_prompt_length(const FkModel *model, int asked);
/* fk_prompt_encode would copy it. cache: nullable */
bool fk_prompt_cached(const FkModel *model, FkPromptCache *cache, const char *text, int length);
/* Tokenizes and encodes, or copies from the cache. length: T5 tokens. cache: nullable. The tensors come from `arena`,
 * and what else is taken from it is given back: the arena stands the same after a hit and after a miss, so that a
 * captured graph finds the buffers behind them. Errors: FK_ERROR_OPTION_BAD (a text that is no UTF-8),
 * FK_ERROR_MEMORY; what fails on the backend is found by the next wait, NaN under the encoder's name. */
bool fk_prompt_encode(const FkModel *model, FkBackend *be, FkArena *arena, FkPromptCache *cache, const char *text,
                      int length, FkPrompt *prompt, GError **error);

#endif
