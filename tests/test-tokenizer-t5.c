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
  g_assert_cmpint(fk_t5_tokenizer_rows(tokenizer), ==, 377);
  check_golden(&t5, tokenizer, "tokens-t5-demo.jsonl.gz");
}

/* 100 extra ids and added_tokens_decoder, as the published folders have them. */
static void test_wide(void) {
  g_autofree char *folder = golden_path("tokens/t5");
  g_autoptr(FkT5Tokenizer) tokenizer = open_good(folder);
  check_golden(&t5, tokenizer, "tokens-t5-wide.jsonl.gz");
}

/* Nothing but spiece.model: special tokens, extra ids and length are the class's own. */
static void test_plain(void) {
  g_autofree char *wide = golden_path("tokens/t5"), *folder = copy_folder(wide);
  apply_damage(folder, &(Damage){.file = "tokenizer_config.json"});
  g_autoptr(FkT5Tokenizer) tokenizer = open_good(folder);
  remove_folder(folder);
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
    {C, NULL, "{\"extra_ids\": 100000}", 0, FK_ERROR_MODEL_BAD, "from 0 to 4096, found 100000"},
    {C, NULL, "{\"extra_ids\": 1.5}", 0, FK_ERROR_MODEL_BAD, "from 0 to 4096, found 1.5"},
    {C, NULL, "{\"eos_token\": \"<none>\"}", 0, FK_ERROR_MODEL_BAD, "\"<none>\" is not in the vocabulary"},
    {C, NULL, "{\"added_tokens_decoder\": {\"5\": {\"content\": \"<new>\"}}}", 0, FK_ERROR_MODEL_BAD, "another token"},
    {"tokenizer.json", NULL, "{\"added_tokens\": [{\"content\": \"<new>\"}]}", 0, FK_ERROR_MODEL_BAD, "has no id"},
    {"tokenizer.json", NULL, "{\"added_tokens\": [{\"content\": 1}]}", 0, FK_ERROR_MODEL_BAD, "has no text"},
    {"tokenizer.json", NULL, "{\"added_tokens\": [{\"content\": \"<new>\", \"id\": 400.7}]}", 0, FK_ERROR_MODEL_BAD,
     "has an id that is not in range"},
    {"tokenizer.json", NULL, "{\"added_tokens\": [{\"content\": \"<new>\", \"id\": 1048576}]}", 0, FK_ERROR_MODEL_BAD,
     "has an id that is not in range"},
    {"tokenizer.json", NULL, "{\"added_tokens\": [{\"content\": \"\\u001b[2J\"}]}", 0, FK_ERROR_MODEL_BAD,
     "\"\\u001b[2J\" is not in the vocabulary"},
    {"tokenizer.json", NULL, "{\"added_tokens\": [1, 2", 0, FK_ERROR_MODEL_BAD, "found the end"},
    {"tokenizer.json", NULL, "{\"added_tokens\": {}}", 0, FK_ERROR_MODEL_BAD, "expected a list"},
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

/* ---- Models that are made here ---- */

static void append_field(GByteArray *out, guint8 tag, const void *data, gsize bytes) {
  g_byte_array_append(out, &tag, 1);
  for (gsize rest = bytes;; rest >>= 7) {
    const guint8 byte = (guint8)((rest & 0x7F) | (rest > 0x7F ? 0x80 : 0));
    g_byte_array_append(out, &byte, 1);
    if (rest <= 0x7F) break;
  }
  g_byte_array_append(out, data, (guint)bytes);
}

static void append_piece(GByteArray *model, const char *text, guint8 type) {
  g_autoptr(GByteArray) piece = g_byte_array_new();
  append_field(piece, 0x0A, text, strlen(text));
  const guint8 rest[] = {0x15, 0, 0, 0, 0xBF, 0x18, type}; /* score -0.5 */
  g_byte_array_append(piece, rest, sizeof rest);
  append_field(model, 0x0A, piece->data, piece->len);
}

/* Unknown, pad and end, pieces of their own, and a character map (nullable). */
static GByteArray *small_model(const char *const *pieces, const GByteArray *charsmap) {
  static const guint8 trainer[] = {0x18, 1};
  GByteArray *model = g_byte_array_new();
  append_piece(model, "<unk>", 2);
  append_piece(model, "<pad>", 3);
  append_piece(model, "</s>", 3);
  for (; *pieces; pieces++) append_piece(model, *pieces, 1);
  append_field(model, 0x12, trainer, sizeof trainer);
  g_autoptr(GByteArray) normalizer = g_byte_array_new();
  if (charsmap) append_field(normalizer, 0x12, charsmap->data, charsmap->len);
  append_field(model, 0x1A, normalizer->data, normalizer->len);
  return model;
}

/* A folder with nothing but this model, which is taken. */
static char *model_folder(GByteArray *model) {
  char *folder = g_dir_make_tmp("fk-tokens-XXXXXX", NULL);
  g_autofree char *path = g_build_filename(folder, S, NULL);
  g_assert_true(g_file_set_contents(path, (const char *)model->data, (gssize)model->len, NULL));
  g_byte_array_unref(model);
  return folder;
}

static FkT5Tokenizer *open_model(GByteArray *model, GError **error) {
  g_autofree char *folder = model_folder(model);
  FkT5Tokenizer *tokenizer = fk_t5_tokenizer_open(folder, error);
  remove_folder(folder);
  return tokenizer;
}

/* A double array with the one key "a", whose replacement is `text`. */
static GByteArray *charsmap_of_a(const char *text) {
  guint32 units[257] = {[0] = GUINT32_TO_LE(1024)};                 /* its bytes */
  units[1] = GUINT32_TO_LE(0x80u << 10);                            /* root: children at 0x80 ^ byte */
  units[1 + (0x80 ^ 'a')] = GUINT32_TO_LE(1u << 10 | 0x100u | 'a'); /* a leaf follows at this place ^ 1 */
  units[1 + (0x80 ^ 'a' ^ 1)] = GUINT32_TO_LE(0x80000000u);         /* offset 0 of the texts */
  GByteArray *map = g_byte_array_new();
  g_byte_array_append(map, (const guint8 *)units, sizeof units);
  g_byte_array_append(map, (const guint8 *)text, (guint)strlen(text) + 1);
  return map;
}

/* A character map that makes 128 bytes of one: a megabyte would become 128. */
static void test_long_replacement(void) {
  g_autofree char *text = g_strnfill(128, 'b'), *long_prompt = g_strnfill(1 << 20, 'a');
  g_autoptr(GByteArray) map = charsmap_of_a(text);
  g_autoptr(GError) error = NULL;
  const char *const pieces[] = {"b", NULL};
  g_autoptr(FkT5Tokenizer) tokenizer = open_model(small_model(pieces, map), &error);
  g_assert_no_error(error);
  int32_t ids[8];
  bool truncated;
  g_assert_true(fk_t5_tokenizer_encode(tokenizer, "a", 8, ids, &truncated, &error));
  g_assert_true(truncated && ids[0] == 0 && ids[1] == 3 && ids[6] == 3 && ids[7] == 2);
  g_assert_false(fk_t5_tokenizer_encode(tokenizer, long_prompt, 8, ids, NULL, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
  g_assert_nonnull(strstr(error->message, "1048576 bytes, and with its characters normalised more than 12582912"));
  g_clear_error(&error);
  g_autofree char *too_long = g_strnfill(129, 'b');
  g_autoptr(GByteArray) bad_map = charsmap_of_a(too_long);
  g_assert_null(open_model(small_model(pieces, bad_map), &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_MODEL_BAD);
  g_assert_nonnull(strstr(error->message, "longer than 128 bytes"));
}

/* A piece of a megabyte would make the search of a word quadratic. */
static void test_long_piece(void) {
  g_autofree char *good = g_strnfill(128, 'a'), *bad = g_strnfill(129, 'a');
  const char *const pieces[2][2] = {{good, NULL}, {bad, NULL}};
  g_autoptr(GError) error = NULL;
  g_autoptr(FkT5Tokenizer) tokenizer = open_model(small_model(pieces[0], NULL), &error);
  g_assert_no_error(error);
  g_assert_nonnull(tokenizer);
  g_assert_null(open_model(small_model(pieces[1], NULL), &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_MODEL_BAD);
  g_assert_nonnull(strstr(error->message, "aaaaa...\" is longer than 128 bytes"));
}

/* Millions of empty pieces and of empty texts in trainer_spec, each of which the library would make an object of. */
static void test_many_objects(void) {
  const guint n = 600000;
  g_autoptr(GError) error = NULL;
  GByteArray *model = g_byte_array_new();
  for (guint i = 0; i < n; i++) append_field(model, 0x0A, "", 0);
  g_assert_null(open_model(model, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_MODEL_BAD);
  g_assert_nonnull(strstr(error->message, "too many pieces"));
  g_clear_error(&error);
  g_autoptr(GByteArray) trainer = g_byte_array_new();
  for (guint i = 0; i < n; i++) append_field(trainer, 0x0A, "", 0); /* input files */
  const char *const pieces[] = {"b", NULL};
  model = small_model(pieces, NULL);
  append_field(model, 0x12, trainer->data, trainer->len);
  g_autoptr(FkT5Tokenizer) tokenizer = open_model(model, &error);
  g_assert_no_error(error);
  g_assert_nonnull(tokenizer);
}

static void test_long_prompt(void) {
  g_autoptr(FkT5Tokenizer) tokenizer = open_demo();
  check_long_prompt(&t5, tokenizer);
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
  g_test_add_func("/tokenizer/t5/long-replacement", test_long_replacement);
  g_test_add_func("/tokenizer/t5/long-piece", test_long_piece);
  g_test_add_func("/tokenizer/t5/many-objects", test_many_objects);
  g_test_add_func("/tokenizer/t5/long-prompt", test_long_prompt);
  g_test_add_func("/tokenizer/t5/random-damage", test_random_damage);
  return g_test_run();
}
