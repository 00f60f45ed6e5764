/* SPDX-License-Identifier: Apache-2.0 */
/* Text to embeddings, once per prompt. Stop "prompt" of the tour. Not here: the encoders themselves. */
#include "prompt.h"

#include <string.h>

enum { ALIGN = 256 };

static size_t aligned(size_t bytes) {
  return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static size_t states_bytes(const FkModel *m, const FkBackend *be) {
  return aligned((size_t)m->config.t5.max_tokens * (size_t)m->config.t5.width * fk_dtype_size(be->dtype));
}

static size_t pooled_bytes(const FkModel *m, const FkBackend *be) {
  return aligned((size_t)m->config.clip.width * fk_dtype_size(be->dtype));
}

size_t fk_prompt_cache_bytes(const FkModel *m, const FkBackend *be) {
  return FK_PROMPT_SLOTS * (states_bytes(m, be) + pooled_bytes(m, be));
}

void fk_prompt_cache_init(FkPromptCache *c, const FkModel *model, FkBackend *be, void *memory) {
  *c = (FkPromptCache){.model = model, .be = be, .memory = memory};
}

void fk_prompt_cache_clear(FkPromptCache *c) {
  for (int i = 0; i < FK_PROMPT_SLOTS; i++) g_free(c->slot[i].text);
  if (c->memory) c->be->ops->release(c->be, c->memory);
  *c = (FkPromptCache){0};
}

static FkPromptSlot *find(FkPromptCache *c, const char *text, int length) {
  for (int i = 0; i < FK_PROMPT_SLOTS; i++)
    if (c->slot[i].text && c->slot[i].length == length && !strcmp(c->slot[i].text, text)) return &c->slot[i];
  return NULL;
}

static void keep(FkPromptCache *c, const char *text, int length, const FkPrompt *p) {
  int oldest = 0;
  for (int i = 1; i < FK_PROMPT_SLOTS; i++)
    if (c->slot[i].used < c->slot[oldest].used) oldest = i;
  FkPromptSlot *s = &c->slot[oldest];
  char *base = (char *)c->memory + (size_t)oldest * (states_bytes(c->model, c->be) + pooled_bytes(c->model, c->be));
  g_free(s->text);
  *s = (FkPromptSlot){.text = g_strdup(text), .length = length, .used = ++c->clock, .truncated = p->truncated};
  s->states = fk_tensor_2d(base, c->be->dtype, length, c->model->config.t5.width);
  s->pooled = fk_tensor_2d(base + states_bytes(c->model, c->be), c->be->dtype, 1, c->model->config.clip.width);
  fk_op_copy(c->be, s->states, p->states);
  fk_op_copy(c->be, s->pooled, p->pooled);
}

int fk_prompt_length(const FkModel *m, int asked) {
  return asked ? asked : m->config.t5.max_tokens;
}

bool fk_prompt_encode(const FkModel *m, FkBackend *be, FkArena *arena, FkPromptCache *cache, const char *text,
                      int length, FkPrompt *p, GError **error) {
  *p = (FkPrompt){.states = fk_arena_2d(arena, be->dtype, length, m->config.t5.width),
                  .pooled = fk_arena_2d(arena, be->dtype, 1, m->config.clip.width)};
  const bool keeps = cache && cache->memory && length <= m->config.t5.max_tokens;
  FkPromptSlot *hit = keeps ? find(cache, text, length) : NULL;
  if (hit) {
    hit->used = ++cache->clock;
    p->cached = true;
    p->truncated = hit->truncated;
    fk_op_copy(be, p->states, hit->states);
    fk_op_copy(be, p->pooled, hit->pooled);
    return true;
  }
  const int clip_length = m->config.clip.max_tokens;
  g_autofree int32_t *clip_ids = g_new0(int32_t, (size_t)clip_length), *t5_ids = g_new0(int32_t, (size_t)length);
  bool clip_cut = false, t5_cut = false;
  if (m->clip_tokenizer && !fk_clip_tokenizer_encode(m->clip_tokenizer, text, clip_length, clip_ids, &clip_cut, error))
    return false;
  if (m->t5_tokenizer && !fk_t5_tokenizer_encode(m->t5_tokenizer, text, length, t5_ids, &t5_cut, error)) return false;
  if (!m->clip_tokenizer) clip_ids[clip_length - 1] = m->config.clip.vocab - 1; /* the null walk counts all rows */
  p->truncated = clip_cut || t5_cut;
  fk_clip_encode(&m->clip, be, arena, clip_ids, clip_length, p->pooled);
  fk_t5_encode(&m->t5, be, arena, t5_ids, length, p->states);
  if (keeps && !be->failure) keep(cache, text, length, p);
  return true;
}
