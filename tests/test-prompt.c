/* SPDX-License-Identifier: Apache-2.0 */
/* Prompts: transformers' embeddings through tokenizer and both encoders, the cache of sixteen with the same bytes, and
 * truncation that is told. */
#include "prompt.h"
#include "test-npy.h"

#include "backend.h"

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
  g_assert_false(p.cached || p.truncated);
  close_rig(&r);
}

/* The last sixteen texts are kept; the one used longest ago goes first. */
static void cache(void) {
  Rig r = open_rig();
  FkPrompt p;
  g_autofree float *first = encode(&r, "prompt 0", 64, &p);
  const size_t bytes = (size_t)(fk_tensor_count(p.states) + fk_tensor_count(p.pooled)) * sizeof(float);
  for (int i = 1; i < FK_PROMPT_SLOTS; i++) {
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

static void truncation(void) {
  Rig r = open_rig();
  FkPrompt p;
  g_autoptr(GString) text = g_string_new(NULL);
  for (int i = 0; i < 100; i++) g_string_append(text, "make it night ");
  g_free(encode(&r, text->str, 64, &p));
  g_assert_true(p.truncated && !p.cached);
  g_free(encode(&r, text->str, 64, &p));
  g_assert_true(p.truncated && p.cached); /* a hit tells it too */
  g_free(encode(&r, "", 64, &p));
  g_assert_false(p.truncated);
  close_rig(&r);
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
  g_test_add_func("/prompt/truncation", truncation);
  g_test_add_func("/prompt/no-cache", no_cache);
  return g_test_run();
}
