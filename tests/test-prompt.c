/* SPDX-License-Identifier: Apache-2.0 */
/* Prompts: transformers' embeddings through tokenizer and both encoders, the cache of sixteen with the same bytes and
 * nothing that did not run, and how much of a text each encoder read. */
#include "prompt.h"
#include "test-npy.h"

#include "backend.h"

#include <math.h>

typedef struct {
  FkBackend *be;
  FkModel *model;
  FkArena arena;
  FkPromptCache cache;
} Rig;

static Rig open_rig(void) {
  char message[256] = "";
  FkFailure failure;
  g_autoptr(GError) error = NULL;
  Rig r = {.be = fk_backend_open("cpu", 0, 0, &failure, message, sizeof message)};
  r.model = fk_model_open(FK_DEMO_MODEL, r.be, NULL, true, &error);
  g_assert_no_error(error);
  fk_model_load(r.model, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_assert_true(fk_arena_open(&r.arena, r.be, 32u << 20));
  fk_prompt_cache_init(&r.cache, r.model, r.be, r.be->ops->alloc(r.be, fk_prompt_cache_bytes(r.model, r.be)));
  return r;
}

static void close_rig(Rig *r) {
  fk_prompt_cache_clear(&r->cache);
  fk_arena_close(&r->arena);
  fk_model_free(r->model);
  fk_backend_close(r->be);
}

/* (transfer full) [T * width] then [pooled width]. */
static float *encode(Rig *r, const char *text, int length, FkPrompt *p) {
  g_autoptr(GError) error = NULL;
  const size_t mark = fk_arena_mark(&r->arena);
  fk_prompt_encode(r->model, r->be, &r->arena, &r->cache, text, length, p, &error);
  g_assert_no_error(error);
  g_assert_true(fk_backend_sync(r->be));
  fk_prompt_cache_settle(&r->cache, true);
  const size_t n = (size_t)fk_tensor_count(p->states), m = (size_t)fk_tensor_count(p->pooled);
  float *out = g_new(float, n + m);
  memcpy(out, p->states.data, n * sizeof(float));
  memcpy(out + n, p->pooled.data, m * sizeof(float));
  fk_arena_reset(&r->arena, mark);
  return out;
}

static void reference(void) {
  Rig r = open_rig();
  FkPrompt p;
  g_auto(Npy) states = npy_load("stages/demo-states"), pooled = npy_load("stages/demo-pooled");
  g_assert_cmpint(fk_prompt_length(r.model, 0), ==, 64);
  g_assert_cmpint(fk_prompt_length(r.model, 100), ==, 100);
  g_autofree float *have = encode(&r, "Make it look like night time, then add a red frame.", 64, &p);
  assert_close("states", have, (float *)states.data, npy_count(&states), 1e-4);
  assert_close("pooled", have + npy_count(&states), (float *)pooled.data, npy_count(&pooled), 1e-4);
  g_assert_false(p.cached);
  g_assert_cmpint(p.clip.read, ==, p.clip.tokens);
  g_assert_cmpint(p.t5.read, ==, p.t5.tokens);
  close_rig(&r);
}

/* The last sixteen texts are kept; the one used longest ago goes first. */
static void cache(void) {
  Rig r = open_rig();
  FkPrompt p;
  g_autofree float *first = encode(&r, "prompt 0", 64, &p);
  const size_t bytes = (size_t)(fk_tensor_count(p.states) + fk_tensor_count(p.pooled)) * sizeof(float);
  for (int i = 1; i < FK_PROMPT_ENTRIES; i++) {
    g_autofree char *text = g_strdup_printf("prompt %d", i);
    g_free(encode(&r, text, 64, &p));
    g_assert_false(p.cached);
  }
  g_autofree float *again = encode(&r, "prompt 0", 64, &p);
  g_assert_true(p.cached);
  g_assert_cmpmem(first, bytes, again, bytes);
  g_free(encode(&r, "prompt 0", 32, &p)); /* another length is another entry: it takes the place of prompt 1 */
  g_assert_false(p.cached);
  g_free(encode(&r, "prompt 0", 64, &p));
  g_assert_true(p.cached);
  g_free(encode(&r, "prompt 2", 64, &p));
  g_assert_true(p.cached);
  g_free(encode(&r, "prompt 1", 64, &p));
  g_assert_false(p.cached);
  close_rig(&r);
}

/* Tokens of n times "a": begin, n, end for CLIP; n and end for T5. */
static void reads(void) {
  static const struct {
    int words, length, clip_tokens, clip_read, t5_read; /* CLIP reads 77 */
  } cases[] = {{0, 64, 2, 2, 1},         {1, 64, 3, 3, 2},         {75, 128, 77, 77, 76},  {76, 128, 78, 77, 77},
               {127, 128, 129, 77, 128}, {128, 128, 130, 77, 128}, {1000, 4, 1002, 77, 4}, {300, 1, 302, 77, 1}};
  Rig r = open_rig();
  g_assert_cmpint(r.model->config.clip.max_tokens, ==, 77);
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
    for (int again = 0; again < 2; again++) { /* a hit says it too */
      FkPrompt p;
      g_autoptr(GString) text = g_string_new(NULL);
      for (int k = 0; k < cases[i].words; k++) g_string_append(text, k ? " a" : "a");
      g_free(encode(&r, text->str, cases[i].length, &p));
      g_assert_cmpint(p.clip.tokens, ==, cases[i].clip_tokens);
      g_assert_cmpint(p.clip.read, ==, cases[i].clip_read);
      g_assert_cmpint(p.t5.read, ==, cases[i].t5_read);
      /* "a a a": n words end before byte 2n - 1. */
      const size_t clip_words = (size_t)cases[i].clip_read - 2;
      g_assert_cmpuint(p.clip.read_bytes, >=, clip_words ? 2 * clip_words - 1 : 0);
      g_assert_cmpuint(p.clip.read_bytes, <=, MIN(2 * clip_words, text->len));
      g_assert_cmpuint(p.t5.read_bytes, <=, text->len);
      if (p.t5.read == p.t5.tokens) g_assert_cmpuint(p.t5.read_bytes, ==, text->len);
    }
  close_rig(&r);
}

/* The bytes that are said to be read give the same ids alone, and one character more does not fit; at a boundary of
 * characters. */
static void read_bytes(void) {
  static const char *const parts[] = {"make it night ", "\xe5\xa4\x9c\xe3\x81\xab ", "\xf0\x9f\x8c\x83",
                                      "<|endoftext|>",  "\xc3\xa9t\xc3\xa9 ",        "42,"};
  Rig r = open_rig();
  for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
    FkPrompt p;
    g_autoptr(GError) error = NULL;
    g_autoptr(GString) text = g_string_new(NULL);
    bool cut = false;
    int32_t whole[77], part[77];
    for (int k = 0; k < 200; k++) g_string_append(text, parts[i]);
    g_free(encode(&r, text->str, 16, &p));
    g_assert_cmpint(p.clip.read, <, p.clip.tokens);
    g_assert_cmpint(p.t5.read, <=, p.t5.tokens);
    g_assert_cmpuint(p.clip.read_bytes, >, 0);
    g_assert_true(g_utf8_validate(text->str, (gssize)p.clip.read_bytes, NULL));
    g_assert_true(g_utf8_validate(text->str, (gssize)p.t5.read_bytes, NULL));
    g_autofree char *read = g_strndup(text->str, p.clip.read_bytes);
    fk_clip_tokenizer_encode(r.model->clip_tokenizer, text->str, 77, whole, NULL, &error);
    fk_clip_tokenizer_encode(r.model->clip_tokenizer, read, 77, part, &cut, &error);
    g_assert_no_error(error);
    g_assert_false(cut);
    const char *next = g_utf8_next_char(text->str + p.clip.read_bytes);
    g_autofree char *more = g_strndup(text->str, (size_t)(next - text->str));
    g_assert_true(fk_clip_tokenizer_encode(r.model->clip_tokenizer, more, 77, part, &cut, &error));
    g_assert_true(cut);
  }
  close_rig(&r);
}

/* A hit leaves the arena as a miss does, and the tensors lie where they lay. */
static void same_addresses(void) {
  Rig r = open_rig();
  FkPrompt miss, hit, none;
  const size_t mark = fk_arena_mark(&r.arena);
  g_assert_true(fk_prompt_encode(r.model, r.be, &r.arena, &r.cache, "x", 64, &miss, NULL));
  const size_t used = fk_arena_mark(&r.arena);
  fk_arena_reset(&r.arena, mark);
  g_assert_true(fk_prompt_encode(r.model, r.be, &r.arena, &r.cache, "x", 64, &hit, NULL));
  g_assert_true(hit.cached && !miss.cached);
  g_assert_cmpuint(fk_arena_mark(&r.arena), ==, used);
  g_assert_true(hit.states.data == miss.states.data && hit.pooled.data == miss.pooled.data);
  fk_arena_reset(&r.arena, mark);
  g_assert_true(fk_prompt_encode(r.model, r.be, &r.arena, NULL, "y", 64, &none, NULL));
  g_assert_cmpuint(fk_arena_mark(&r.arena), ==, used);
  g_assert_true(none.states.data == miss.states.data && none.pooled.data == miss.pooled.data);
  close_rig(&r);
}

static FkOps failing;
static int copies; /* until one fails */

static void copy_or_fail(FkBackend *be, FkTensor y, FkTensor x) {
  if (copies-- == 0)
    fk_backend_fail(be, FK_FAIL_DEVICE, "copy");
  else
    fk_cpu_ops.copy(be, y, x);
}

/* The k-th copy of an encoding fails: until it has run the text is not in the cache, and others stay. */
static void failed_copies(void) {
  Rig r = open_rig();
  FkPrompt p;
  g_free(encode(&r, "kept", 64, &p));
  failing = fk_cpu_ops;
  failing.copy = copy_or_fail;
  r.be->ops = &failing;
  copies = G_MAXINT;
  g_free(encode(&r, "counted", 64, &p));
  const int last = G_MAXINT - copies;
  for (int k = 1; k <= 2; k++) { /* the last two are the cache's */
    g_autoptr(GError) error = NULL;
    const size_t mark = fk_arena_mark(&r.arena);
    copies = last - k;
    fk_prompt_encode(r.model, r.be, &r.arena, &r.cache, "lost", 64, &p, &error);
    g_assert_no_error(error);
    g_assert_false(fk_backend_sync(r.be));
    fk_prompt_cache_settle(&r.cache, false);
    fk_backend_clear(r.be);
    fk_arena_reset(&r.arena, mark);
    copies = G_MAXINT;
    g_free(encode(&r, "kept", 64, &p));
    g_assert_true(p.cached);
    g_free(encode(&r, "lost", 64, &p));
    g_assert_false(p.cached);
    for (int i = 0; i < FK_PROMPT_ENTRIES; i++)
      if (!g_strcmp0(r.cache.entry[i].text, "lost")) r.cache.entry[i].pending = true;
    fk_prompt_cache_settle(&r.cache, false); /* forget it for the next round */
  }
  r.be->ops = &fk_cpu_ops;
  close_rig(&r);
}

/* NaN in an encoder's weights is found behind that encoder and under its name. */
static void not_finite(void) {
  for (int k = 0; k < 2; k++) {
    Rig r = open_rig();
    FkPrompt p;
    float *weight = k ? r.model->t5.final_norm.data : r.model->clip.final_norm.data;
    weight[3] = NAN;
    g_assert_true(fk_prompt_encode(r.model, r.be, &r.arena, NULL, "x", 64, &p, NULL));
    g_assert_false(fk_backend_sync(r.be));
    g_assert_cmpint(r.be->failure, ==, FK_FAIL_NONFINITE);
    g_assert_cmpstr(r.be->message, ==, k ? "text_encoder_2 (T5)" : "text_encoder (CLIP)");
    close_rig(&r);
  }
}

/* Without memory for it, and longer than a slot: nothing is kept, the result is the same. */
static void no_cache(void) {
  Rig r = open_rig();
  FkPrompt p;
  FkPromptCache none;
  g_autofree float *a = encode(&r, "x", 80, &p), *b = encode(&r, "x", 80, &p);
  g_assert_false(p.cached);
  g_assert_cmpmem(a, (size_t)fk_tensor_count(p.states) * 4, b, (size_t)fk_tensor_count(p.states) * 4);
  fk_prompt_cache_init(&none, r.model, r.be, NULL);
  for (int i = 0; i < 2; i++) {
    g_autoptr(GError) error = NULL;
    g_assert_true(fk_prompt_encode(r.model, r.be, &r.arena, i ? NULL : &none, "x", 64, &p, &error));
    g_assert_false(p.cached);
  }
  fk_prompt_cache_clear(&none);
  close_rig(&r);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/prompt/reference", reference);
  g_test_add_func("/prompt/cache", cache);
  g_test_add_func("/prompt/reads", reads);
  g_test_add_func("/prompt/read-bytes", read_bytes);
  g_test_add_func("/prompt/same-addresses", same_addresses);
  g_test_add_func("/prompt/failed-copies", failed_copies);
  g_test_add_func("/prompt/not-finite", not_finite);
  g_test_add_func("/prompt/no-cache", no_cache);
  return g_test_run();
}
