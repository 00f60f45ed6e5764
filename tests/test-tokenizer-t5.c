/* SPDX-License-Identifier: Apache-2.0 */
/* T5's tokenizer against transformers' ids, and on files and prompts that are wrong. */
#include "tokens.h"

#include "tokenizer.h"

static gpointer open_t5(const char *folder, GError **error) {
  return fk_t5_tokenizer_open(folder, error);
}
static void close_t5(gpointer tokenizer) {
  fk_t5_tokenizer_free(tokenizer);
}
static bool encode_t5(gpointer tokenizer, const char *text, int length, int32_t *ids, bool *truncated, GError **error) {
  return fk_t5_tokenizer_encode(tokenizer, text, length, ids, truncated, error);
}
static const Kind t5 = {open_t5, close_t5, encode_t5};

static FkT5Tokenizer *open_good(const char *folder) {
  g_autoptr(GError) error = NULL;
  FkT5Tokenizer *tokenizer = fk_t5_tokenizer_open(folder, &error);
  g_assert_no_error(error);
  return tokenizer;
}

static FkT5Tokenizer *open_demo(void) {
  return open_good(FK_DEMO_MODEL "/tokenizer_2");
}

static void test_demo(void) {
  g_autoptr(FkT5Tokenizer) tokenizer = open_demo();
  g_assert_cmpint(fk_t5_tokenizer_max_length(tokenizer), ==, 64);
  g_assert_cmpint(fk_t5_tokenizer_rows(tokenizer), ==, 377);
  check_golden(&t5, tokenizer, "tokens-t5-demo.jsonl.gz");
}

/* 100 extra ids and added_tokens_decoder, as the published folders have them. */
static void test_wide(void) {
  g_autofree char *folder = golden_path("tokens/t5");
  g_autoptr(FkT5Tokenizer) tokenizer = open_good(folder);
  g_assert_cmpint(fk_t5_tokenizer_max_length(tokenizer), ==, 512);
  check_golden(&t5, tokenizer, "tokens-t5-wide.jsonl.gz");
}

/* Nothing but spiece.model: special tokens, extra ids and length are the class's own. */
static void test_plain(void) {
  g_autofree char *wide = golden_path("tokens/t5"), *folder = copy_folder(wide);
  apply_damage(folder, &(Damage){.file = "tokenizer_config.json"});
  g_autoptr(FkT5Tokenizer) tokenizer = open_good(folder);
  remove_folder(folder);
  g_assert_cmpint(fk_t5_tokenizer_max_length(tokenizer), ==, 512);
  check_golden(&t5, tokenizer, "tokens-t5-plain.jsonl.gz");
}

static void test_length(void) {
  g_autoptr(FkT5Tokenizer) tokenizer = open_demo();
  int32_t ids[8];
  bool truncated;
  g_autoptr(GError) error = NULL;
  g_assert_true(fk_t5_tokenizer_encode(tokenizer, "a a a", 4, ids, &truncated, &error));
  g_assert_false(truncated);
  g_assert_true(fk_t5_tokenizer_encode(tokenizer, "a a a", 3, ids, &truncated, &error));
  g_assert_true(truncated);
  const int32_t expected[] = {4, 4, 1};
  g_assert_cmpmem(ids, sizeof expected, expected, sizeof expected);
  g_assert_true(fk_t5_tokenizer_encode(tokenizer, "a", 1, ids, &truncated, &error));
  g_assert_true(truncated && ids[0] == 1);
  for (int length = -1; length < 1; length++) {
    g_clear_error(&error);
    g_assert_false(fk_t5_tokenizer_encode(tokenizer, "a", length, ids, &truncated, &error));
    g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
  }
}

static void test_invalid_prompts(void) {
  g_autoptr(FkT5Tokenizer) tokenizer = open_demo();
  check_invalid_prompts(&t5, tokenizer);
}

static void test_threads(void) {
  g_autoptr(FkT5Tokenizer) tokenizer = open_demo();
  check_threads(&t5, tokenizer);
}

#define S "spiece.model"
#define C "tokenizer_config.json"
static const Damage damages[] = {
    {S, NULL, NULL, 0, FK_ERROR_MODEL_MISSING, S},
    {S, NULL, "", 0, FK_ERROR_MODEL_BAD, "has no trainer_spec"},
    {S, NULL, "not a model at all", 0, FK_ERROR_MODEL_BAD, "not a sentencepiece model"},
    {S, NULL, "\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", 0, FK_ERROR_MODEL_BAD, "not a sentencepiece model"},
    {S, NULL, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 0, FK_ERROR_MODEL_BAD, "not a sentencepiece model"},
    {S, NULL, "\x12\x02\x18\x02", 0, FK_ERROR_MODEL_BAD, "not a unigram model"},
    {S, NULL, "\x12\x02\x18\xFF", 0, FK_ERROR_MODEL_BAD, "damaged trainer_spec"},
    {S, NULL, "\x1A\x02\x12\x7F", 0, FK_ERROR_MODEL_BAD, "damaged normalizer_spec"},
    {S, NULL, "\x12\x02\x18\x01\x1A\x04\x12\x02xx", 0, FK_ERROR_MODEL_BAD, "precompiled_charsmap: has no trie"},
    {S, NULL, "\x12\x02\x18\x01\x1A\x0A\x12\x08\x7F\x7F\x7F\x7Fxxxx", 0, FK_ERROR_MODEL_BAD,
     "the trie's size is wrong"},
    {S, NULL, "\x12\x02\x18\x01", 0, FK_ERROR_MODEL_BAD, "has no trainer_spec or no normalizer_spec"},
    {S, NULL, "\x0A\x03\x0A\x01x\x12\x02\x18\x01\x1A\x02\x18\x01", 0, FK_ERROR_MODEL_BAD, "unk is not defined"},
    {S, NULL, "\x0A\x07\x0A\x01x\x18\x02\x18\x02\x0A\x03\x0A\x01x\x12\x02\x18\x01\x1A\x02\x18\x01", 0,
     FK_ERROR_MODEL_BAD, "piece 1 \"x\" is there twice"},
    {S, NULL, "\x0A\x05\x0A\x01x\x18\x02\x0A\x08\x0A\x01y\x15\x01\x01\x80\x7F\x12\x02\x18\x01\x1A\x02\x18\x01", 0,
     FK_ERROR_MODEL_BAD, "piece 1 \"y\" has a score that is not finite"},
    {S, NULL, "\x0A\x05\x0A\x01x\x18\x02\x0A\x04\x0A\x02\xC3(\x12\x02\x18\x01\x1A\x02\x18\x01", 0, FK_ERROR_MODEL_BAD,
     "is not UTF-8"},
    {S, NULL, NULL, 1, FK_ERROR_MODEL_BAD, "not a sentencepiece model"},
    {S, NULL, NULL, 1000, FK_ERROR_MODEL_BAD, S},
    {S, NULL, NULL, 100000, FK_ERROR_MODEL_BAD, S},
    {C, NULL, "{", 0, FK_ERROR_MODEL_BAD, C},
    {C, NULL, "{\"model_max_length\": 0}", 0, FK_ERROR_MODEL_BAD, "out of range"},
    {C, NULL, "{\"extra_ids\": 100000}", 0, FK_ERROR_MODEL_BAD, "out of range"},
    {C, NULL, "{\"eos_token\": \"<none>\"}", 0, FK_ERROR_MODEL_BAD, "\"<none>\" is not in the vocabulary"},
    {C, NULL, "{\"added_tokens_decoder\": {\"5\": {\"content\": \"<new>\"}}}", 0, FK_ERROR_MODEL_BAD, "another token"},
    {"tokenizer.json", NULL, "{\"added_tokens\": [{\"content\": \"<new>\"}]}", 0, FK_ERROR_MODEL_BAD, "has no id"},
    {"tokenizer.json", NULL, "{\"added_tokens\": [{\"content\": 1}]}", 0, FK_ERROR_MODEL_BAD, "has no text"},
    {"tokenizer.json", NULL, "{\"added_tokens\": [1, 2", 0, FK_ERROR_MODEL_BAD, "modest size and depth"},
    {"tokenizer.json", NULL, "{\"added_tokens\": [{]}]}", 0, FK_ERROR_MODEL_BAD, "tokenizer.json"},
};

static void test_damage(void) {
  g_autofree char *wide = golden_path("tokens/t5");
  for (gsize i = 0; i < G_N_ELEMENTS(damages); i++) {
    /* tokenizer.json counts where there is no added_tokens_decoder: in the demo's folder. */
    bool json = strcmp(damages[i].file, "tokenizer.json") == 0;
    check_damage(&t5, json ? FK_DEMO_MODEL "/tokenizer_2" : wide, &damages[i]);
  }
}

/* Limits of what transformers writes for "no limit", and of what the pipeline takes. */
static void test_max_length(void) {
  static const struct {
    const char *config;
    int length;
  } cases[] = {{"{\"model_max_length\": 1000000000000000019884624838656}", 512},
               {"{\"model_max_length\": 513}", 512},
               {"{\"model_max_length\": 256}", 256},
               {"{}", 512}};
  g_autofree char *wide = golden_path("tokens/t5"), *folder = copy_folder(wide);
  for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
    apply_damage(folder, &(Damage){.file = C, .put = cases[i].config});
    g_autoptr(FkT5Tokenizer) tokenizer = open_good(folder);
    g_assert_cmpint(fk_t5_tokenizer_max_length(tokenizer), ==, cases[i].length);
  }
  remove_folder(folder);
}

static void test_random_damage(void) {
  g_autofree char *wide = golden_path("tokens/t5");
  check_random_damage(&t5, wide, S, 400);
  check_random_damage(&t5, wide, C, 50);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/tokenizer/t5/demo", test_demo);
  g_test_add_func("/tokenizer/t5/wide", test_wide);
  g_test_add_func("/tokenizer/t5/plain", test_plain);
  g_test_add_func("/tokenizer/t5/length", test_length);
  g_test_add_func("/tokenizer/t5/invalid-prompts", test_invalid_prompts);
  g_test_add_func("/tokenizer/t5/threads", test_threads);
  g_test_add_func("/tokenizer/t5/damage", test_damage);
  g_test_add_func("/tokenizer/t5/max-length", test_max_length);
  g_test_add_func("/tokenizer/t5/random-damage", test_random_damage);
  return g_test_run();
}
