/* SPDX-License-Identifier: Apache-2.0 */
/* Text to embeddings, once per prompt. Not here: tokenizers and encoders themselves.
 *
 * The cache: entries are found by text and T5 length, which alone decide an encoding; the one used longest ago makes
 * room. An entry is pending until the stage's wait has shown that its copies ran: an edit that fails before leaves no
 * entry whose memory nobody wrote. Lengths beyond the tokenizer's own are not kept, because an entry's memory is sized
 * for that. A hit is copied into the edit's arena instead of being used in place: the loop then reads the same
 * addresses whichever entry it was, and entries may be replaced while a graph still names those addresses. */
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

/* ---- Cache ---- */

size_t fk_prompt_cache_bytes(const FkModel *m, const FkBackend *be) {
  return FK_PROMPT_ENTRIES * (states_bytes(m, be) + pooled_bytes(m, be));
}

void fk_prompt_cache_init(FkPromptCache *c, const FkModel *model, FkBackend *be, void *memory) {
  *c = (FkPromptCache){.model = model, .be = be, .memory = memory};
}

void fk_prompt_cache_clear(FkPromptCache *c) {
  for (int i = 0; i < FK_PROMPT_ENTRIES; i++) g_free(c->entry[i].text);
  if (c->memory) c->be->ops->release(c->be, c->memory);
  *c = (FkPromptCache){0};
}

void fk_prompt_cache_forget(FkPromptCache *c) {
  for (int i = 0; i < FK_PROMPT_ENTRIES; i++) {
    g_clear_pointer(&c->entry[i].text, g_free);
    c->entry[i].used = 0;
  }
}

void fk_prompt_cache_settle(FkPromptCache *c, bool ran) {
  for (int i = 0; i < FK_PROMPT_ENTRIES; i++) {
    FkPromptEntry *e = &c->entry[i];
    if (!e->pending) continue;
    e->pending = false;
    if (ran) continue;
    g_clear_pointer(&e->text, g_free);
    e->used = 0; /* the next to be filled */
  }
}

/* A pending entry counts: whoever finds it enqueues behind its copies. */
static FkPromptEntry *find(FkPromptCache *c, const char *text, int length) {
  for (int i = 0; i < FK_PROMPT_ENTRIES; i++)
    if (c->entry[i].text && c->entry[i].length == length && !strcmp(c->entry[i].text, text)) return &c->entry[i];
  return NULL;
}

static bool keeps(const FkModel *m, const FkPromptCache *c, int length) {
  return c && c->memory && length <= m->config.t5.max_tokens;
}

bool fk_prompt_cached(const FkModel *m, FkPromptCache *c, const char *text, int length) {
  return keeps(m, c, length) && find(c, text, length);
}

static void keep(FkPromptCache *c, const char *text, int length, const FkPrompt *p) {
  int oldest = 0;
  for (int i = 1; i < FK_PROMPT_ENTRIES; i++)
    if (c->entry[i].used < c->entry[oldest].used) oldest = i;
  FkPromptEntry *e = &c->entry[oldest];
  char *base = (char *)c->memory + (size_t)oldest * (states_bytes(c->model, c->be) + pooled_bytes(c->model, c->be));
  g_free(e->text);
  *e = (FkPromptEntry){.text = g_strdup(text),
                       .length = length,
                       .pending = true,
                       .used = ++c->clock,
                       .clip = p->clip,
                       .t5 = p->t5,
                       .states = fk_tensor_2d(base, c->be->dtype, length, c->model->config.t5.width)};
  e->pooled = fk_tensor_2d(base + states_bytes(c->model, c->be), c->be->dtype, 1, c->model->config.clip.width);
  fk_op_copy(c->be, e->states, p->states);
  fk_op_copy(c->be, e->pooled, p->pooled);
}

/* ---- Tokens ---- */

/* One of the two tokenizers. */
typedef struct {
  const void *tokenizer;
  bool (*encode)(const void *tokenizer, const char *text, int length, int32_t *ids, bool *truncated, GError **error);
  int marks; /* ids that every text has: begin and end, or end alone */
} Tokens;

static bool clip_ids(const void *t, const char *text, int length, int32_t *ids, bool *truncated, GError **error) {
  return fk_clip_tokenizer_encode(t, text, length, ids, truncated, error);
}

static bool t5_ids(const void *t, const char *text, int length, int32_t *ids, bool *truncated, GError **error) {
  return fk_t5_tokenizer_encode(t, text, length, ids, truncated, error);
}

/* (transfer full) [length], zero; NULL with an error. */
static int32_t *new_ids(int length, GError **error) {
  int32_t *ids = g_try_new0(int32_t, (size_t)length);
  if (!ids) g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "prompt: no memory for %d tokens", length);
  return ids;
}

/* Ids of n up to and with the end mark. CLIP pads with the end mark itself. */
static bool count_ids(const Tokens *t, const int32_t *ids, int n, int *count, GError **error) {
  int32_t empty[3];
  if (!t->encode(t->tokenizer, "", t->marks + 1, empty, NULL, error)) return false;
  const int32_t end = empty[t->marks - 1], padding = empty[t->marks];
  *count = n;
  while (*count > t->marks && ids[*count - 1] == padding) --*count;
  if (end == padding && *count < n && ids[*count - 1] != end) ++*count;
  return true;
}

/* All tokens of a text that has more than `length`. */
static bool count_all(const Tokens *t, const char *text, int length, int *count, GError **error) {
  for (bool truncated = true; truncated;) {
    length *= 4; /* a text of FK_TEXT_BYTES ends long before this overflows */
    g_autofree int32_t *ids = new_ids(length, error);
    if (!ids || !t->encode(t->tokenizer, text, length, ids, &truncated, error)) return false;
    if (!truncated && !count_ids(t, ids, length, count, error)) return false;
  }
  return true;
}

/* Bytes of the longest beginning of `text` whose tokens all fit: what behind it stands is not read. */
static bool count_read(const Tokens *t, const char *text, int length, size_t *bytes, GError **error) {
  g_autofree int32_t *ids = new_ids(length, error);
  size_t fits = 0, cut = strlen(text); /* beginnings of these lengths fit and do not */
  size_t next = 64;                    /* from the front: the part that is read may be a small one; 0: halve */
  while (ids && fits + 1 < cut) {
    size_t at = next && next < cut ? next : fits + (cut - fits) / 2;
    while (at > fits && ((uint8_t)text[at] & 0xc0) == 0x80) at--; /* to the start of a character */
    if (at == fits) break;
    g_autofree char *beginning = g_strndup(text, at);
    bool truncated = false;
    if (!t->encode(t->tokenizer, beginning, length, ids, &truncated, error)) return false;
    *(truncated ? &cut : &fits) = at;
    next = truncated || !next ? 0 : 4 * at;
  }
  *bytes = fits;
  return ids != NULL;
}

/* The `length` ids of a text, and how much of it they are. (transfer full) */
static int32_t *encode(const Tokens *t, const char *text, int length, FkTextRead *read, GError **error) {
  bool cut = false;
  g_autofree int32_t *ids = new_ids(length, error);
  *read = (FkTextRead){.read = length, .read_bytes = strlen(text)};
  if (!ids || !t->encode(t->tokenizer, text, length, ids, &cut, error)) return NULL;
  if (!(cut ? count_all(t, text, length, &read->tokens, error) : count_ids(t, ids, length, &read->read, error)))
    return NULL;
  if (cut && !count_read(t, text, length, &read->read_bytes, error)) return NULL;
  /* A text of written-out end marks looks shorter than it is. */
  read->tokens = cut ? MAX(read->tokens, length + 1) : read->read;
  return g_steal_pointer(&ids);
}

/* ---- Encoding ---- */

int fk_prompt_length(const FkModel *m, int asked) {
  return asked ? asked : m->config.t5.max_tokens;
}

/* Without tokenizers, in a dry run: no token means anything, and CLIP's end stands last so that all rows count. */
static bool make_ids(const FkModel *m, const char *text, int length, FkPrompt *p, int32_t **clip, int32_t **t5,
                     GError **error) {
  const int clip_length = m->config.clip.max_tokens;
  const Tokens clip_tokens = {m->clip_tokenizer, clip_ids, 2}, t5_tokens = {m->t5_tokenizer, t5_ids, 1};
  *clip = m->clip_tokenizer ? encode(&clip_tokens, text, clip_length, &p->clip, error) : new_ids(clip_length, error);
  if (!*clip) return false;
  if (!m->clip_tokenizer) (*clip)[clip_length - 1] = m->config.clip.vocab - 1;
  *t5 = m->t5_tokenizer ? encode(&t5_tokens, text, length, &p->t5, error) : new_ids(length, error);
  return *t5 != NULL;
}

bool fk_prompt_encode(const FkModel *m, FkBackend *be, FkArena *arena, FkPromptCache *cache, const char *text,
                      int length, FkPrompt *p, GError **error) {
  *p = (FkPrompt){.states = fk_arena_2d(arena, be->dtype, length, m->config.t5.width),
                  .pooled = fk_arena_2d(arena, be->dtype, 1, m->config.clip.width)};
  const bool kept = keeps(m, cache, length);
  FkPromptEntry *hit = kept ? find(cache, text, length) : NULL;
  if (hit) {
    hit->used = ++cache->clock;
    p->cached = true;
    p->clip = hit->clip;
    p->t5 = hit->t5;
    fk_op_copy(be, p->states, hit->states);
    fk_op_copy(be, p->pooled, hit->pooled);
    return true;
  }
  g_autofree int32_t *clip = NULL, *t5 = NULL;
  if (!make_ids(m, text, length, p, &clip, &t5, error)) return false;
  fk_clip_encode(&m->clip, be, arena, clip, m->config.clip.max_tokens, p->pooled);
  fk_op_check(be, p->pooled, "text_encoder (CLIP)");
  fk_t5_encode(&m->t5, be, arena, t5, length, p->states);
  fk_op_check(be, p->states, "text_encoder_2 (T5)");
  if (kept && !be->failure) keep(cache, text, length, p);
  return true;
}
