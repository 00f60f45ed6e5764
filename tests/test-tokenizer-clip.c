/* SPDX-License-Identifier: Apache-2.0 */
/* CLIP's tokenizer against transformers' ids, and on files and prompts that are wrong. */
#include "tokens.h"

#include "tokenizer.h"

static gpointer open_clip(const char *folder, GError **error) {
  return fk_clip_tokenizer_open(folder, error);
}
static void close_clip(gpointer tokenizer) {
  fk_clip_tokenizer_free(tokenizer);
}
static bool encode_clip(gpointer tokenizer, const char *text, int length, int32_t *ids, bool *truncated,
                        GError **error) {
  return fk_clip_tokenizer_encode(tokenizer, text, length, ids, truncated, error);
}
static const Kind clip = {open_clip, close_clip, encode_clip};

static FkClipTokenizer *open_demo(void) {
  g_autoptr(GError) error = NULL;
  FkClipTokenizer *tokenizer = fk_clip_tokenizer_open(FK_DEMO_MODEL "/tokenizer", &error);
  g_assert_no_error(error);
  return tokenizer;
}

static void test_demo(void) {
  g_autoptr(FkClipTokenizer) tokenizer = open_demo();
  g_assert_cmpint(fk_clip_tokenizer_rows(tokenizer), ==, 1083);
  check_golden(&clip, tokenizer, "tokens-clip-demo.jsonl.gz");
}

static void test_wide(void) {
  g_autofree char *folder = golden_path("tokens/clip");
  g_autoptr(GError) error = NULL;
  g_autoptr(FkClipTokenizer) tokenizer = fk_clip_tokenizer_open(folder, &error);
  g_assert_no_error(error);
  check_golden(&clip, tokenizer, "tokens-clip-wide.jsonl.gz");
}

/* Room for n ids of text: n, n + 1 and more ids; and lengths in which nothing fits. */
static void test_length(void) {
  g_autoptr(FkClipTokenizer) tokenizer = open_demo();
  int32_t ids[8];
  bool truncated;
  g_autoptr(GError) error = NULL;
  g_assert_true(fk_clip_tokenizer_encode(tokenizer, "a a a", 5, ids, &truncated, &error));
  g_assert_false(truncated);
  g_assert_true(fk_clip_tokenizer_encode(tokenizer, "a a a", 4, ids, &truncated, &error));
  g_assert_true(truncated);
  const int32_t expected[] = {1081, 320, 320, 1082};
  g_assert_cmpmem(ids, sizeof expected, expected, sizeof expected);
  g_assert_true(fk_clip_tokenizer_encode(tokenizer, "a", 2, ids, &truncated, &error));
  g_assert_true(truncated && ids[0] == 1081 && ids[1] == 1082);
  g_assert_true(fk_clip_tokenizer_encode(tokenizer, "", 2, ids, NULL, &error));
  for (int length = -1; length < 2; length++) {
    g_clear_error(&error);
    g_assert_false(fk_clip_tokenizer_encode(tokenizer, "a", length, ids, &truncated, &error));
    g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
  }
}

static void test_invalid_prompts(void) {
  g_autoptr(FkClipTokenizer) tokenizer = open_demo();
  check_invalid_prompts(&clip, tokenizer);
}

static void test_long_prompt(void) {
  g_autoptr(FkClipTokenizer) tokenizer = open_demo();
  check_long_prompt(&clip, tokenizer);
}

static void test_threads(void) {
  g_autoptr(FkClipTokenizer) tokenizer = open_demo();
  check_threads(&clip, tokenizer);
}

#define V "vocab.json"
#define M "merges.txt"
#define C "tokenizer_config.json"
static const Damage damages[] = {
    {V, NULL, NULL, 0, FK_ERROR_MODEL_MISSING, V},
    {M, NULL, NULL, 0, FK_ERROR_MODEL_MISSING, M},
    {V, NULL, "", 0, FK_ERROR_MODEL_BAD, "expected '{', found the end"},
    {V, NULL, "[1, 2]", 0, FK_ERROR_MODEL_BAD, "expected '{'"},
    {V, NULL, "{}", 0, FK_ERROR_MODEL_BAD, "no entry"},
    {V, NULL, "{\"a\": 0}", 0, FK_ERROR_MODEL_BAD, "no entry"},
    {V, NULL, "{\"a\": 0} x", 0, FK_ERROR_MODEL_BAD, "something follows"},
    {V, NULL, NULL, 1, FK_ERROR_MODEL_BAD, "expected '\"'"},
    {V, NULL, NULL, 2000, FK_ERROR_MODEL_BAD, "byte 2000"},
    {V, "\"a\": 64", "\"a\": 65", 0, FK_ERROR_MODEL_BAD, "\"b\": has the id of another"},
    {V, "\"a\": 64", "\"b\": 64", 0, FK_ERROR_MODEL_BAD, "\"b\": is there twice"},
    {V, "\"a\": 64", "\"\\u0062\": 64", 0, FK_ERROR_MODEL_BAD, "\"b\": is there twice"},
    {V, "\"a\": 64", "\"aa\": 64", 0, FK_ERROR_MODEL_BAD, "byte 0x61"},
    {V, "\"a\": 64", "\"a\": -1", 0, FK_ERROR_MODEL_BAD, "\"a\": expected an id"},
    {V, "\"a\": 64", "\"a\": 1048576", 0, FK_ERROR_MODEL_BAD, "\"a\": expected an id"},
    {V, "\"a\": 64", "\"a\": 99999999999999999999999", 0, FK_ERROR_MODEL_BAD, "\"a\": expected an id"},
    {V, "\"a\": 64", "\"a\": 64.5", 0, FK_ERROR_MODEL_BAD, "\"a\": expected an id"},
    {V, "\"a\": 64", "\"a\": \"64\"", 0, FK_ERROR_MODEL_BAD, "\"a\": expected an id"},
    {V, "\"a\": 64", "\"a\": {\"a\": 64}", 0, FK_ERROR_MODEL_BAD, "\"a\": expected an id"},
    {V, "\"a\": 64", "\"a\" 64", 0, FK_ERROR_MODEL_BAD, "expected ':'"},
    {V, "\"a\": 64", "\"a\": 64,", 0, FK_ERROR_MODEL_BAD, "expected '\"'"},
    {V, "\"a\": 64", "\"\\ud800\": 64", 0, FK_ERROR_MODEL_BAD, "surrogate"},
    {V, "\"a\": 64", "\"\\u0000\": 64", 0, FK_ERROR_MODEL_BAD, "NUL"},
    {V, "\"a\": 64", "\"\\x\": 64", 0, FK_ERROR_MODEL_BAD, "an escape"},
    {V, "\"a\": 64", "\"\xC3(\": 64", 0, FK_ERROR_MODEL_BAD, "not UTF-8"},
    {V, "\"a\": 64", "\"\\u001b[2J\": -1", 0, FK_ERROR_MODEL_BAD, "\"\\u001b[2J\": expected an id"},
    {V, "\"a</w>\"", "\"a<w>\"", 0, FK_ERROR_MODEL_BAD, "byte 0x61"},
    {M, "#version: 0.2\n", "#version: 0.2\na\n", 0, FK_ERROR_MODEL_BAD, "line 2: expected two tokens"},
    {M, "#version: 0.2\n", "#version: 0.2\na b c\n", 0, FK_ERROR_MODEL_BAD, "expected two tokens"},
    {M, "#version: 0.2\n", "#version: 0.2\na qqq\n", 0, FK_ERROR_MODEL_BAD, "line 2: a token that vocab.json lacks"},
    {M, "#version: 0.2\n", "#version: 0.2\n qqq\n", 0, FK_ERROR_MODEL_BAD, "line 2: a token that vocab.json lacks"},
    {M, "#version: 0.2\n", "#version: 0.2\nq z\n", 0, FK_ERROR_MODEL_BAD,
     "line 2: two tokens that make one that vocab.json lacks"},
    {M, "#version: 0.2\n", "#version: 0.2\nh a\nh a\n", 0, FK_ERROR_MODEL_BAD,
     "line 3: two tokens that were there before"},
    {M, "#version: 0.2\n", "#version: 0.2\n\xFF\xFE x\n", 0, FK_ERROR_MODEL_BAD, "line 2"},
    {M, NULL, NULL, 20, FK_ERROR_MODEL_BAD, "line 2"},
    {C, NULL, "{", 0, FK_ERROR_MODEL_BAD, C},
    {C, NULL, "12", 0, FK_ERROR_MODEL_BAD, "expected a JSON object"},
    {C, NULL, "{\"bos_token\": \"<a>\", \"bos_token\": \"<a>\"}", 0, FK_ERROR_MODEL_BAD,
     "key \"bos_token\" is there twice"},
    {C, NULL, "{\"extra_ids\": 0.5}", 0, FK_ERROR_MODEL_BAD, "expected a whole number from 0 to 4096, found 0.5"},
    {C, NULL, "{\"extra_ids\": -1}", 0, FK_ERROR_MODEL_BAD, "expected a whole number from 0 to 4096, found -1"},
    {C, NULL, "{\"bos_token\": 7}", 0, FK_ERROR_MODEL_BAD, "has no text"},
    {C, NULL, "{\"bos_token\": \"\"}", 0, FK_ERROR_MODEL_BAD, "is empty"},
    {C, NULL, "{\"eos_token\": \"<none>\"}", 0, FK_ERROR_MODEL_BAD, "\"<none>\" is not in the vocabulary"},
    {C, NULL, "{\"added_tokens_decoder\": {\"x\": {\"content\": \"<new>\"}}}", 0, FK_ERROR_MODEL_BAD, "not an id"},
    {C, NULL, "{\"added_tokens_decoder\": {\"3\": {\"content\": \"<new>\"}}}", 0, FK_ERROR_MODEL_BAD, "another token"},
    {C, NULL, "{\"added_tokens_decoder\": {\"9999999\": {\"content\": \"<new>\"}}}", 0, FK_ERROR_MODEL_BAD,
     "not an id"},
    {C, NULL, "{\"added_tokens_decoder\": {\"9999\": {\"content\": \"<n>\", \"single_word\": true}}}", 0,
     FK_ERROR_MODEL_BAD, "single_word"},
};

static void test_damage(void) {
  g_autofree char *wide = golden_path("tokens/clip");
  for (gsize i = 0; i < G_N_ELEMENTS(damages); i++) check_damage(&clip, wide, &damages[i]);
}

/* What a linked file of the user has is in no message. */
static void test_secrets(void) {
  static const char *const files[] = {V, M, C}, secret[] = "hunter2 correct horse battery";
  g_autofree char *wide = golden_path("tokens/clip");
  for (gsize i = 0; i < G_N_ELEMENTS(files); i++) {
    g_autofree char *folder = copy_folder(wide);
    apply_damage(folder, &(Damage){.file = files[i], .put = secret});
    g_autoptr(GError) error = NULL;
    g_assert_null(fk_clip_tokenizer_open(folder, &error));
    remove_folder(folder);
    g_assert_error(error, FK_ERROR, FK_ERROR_MODEL_BAD);
    g_assert_null(strstr(error->message, "hunter2"));
    g_assert_null(strstr(error->message, "horse"));
  }
}

/* A vocabulary without the token that begins every prompt: the error names the token and the file that asks for it. */
static void test_lost_special(void) {
  g_autofree char *folder = copy_folder(FK_DEMO_MODEL "/tokenizer");
  apply_damage(folder, &(Damage){.file = V, .find = "\"<|startoftext|>\"", .put = "\"<|start|>\""});
  g_autoptr(GError) error = NULL;
  g_assert_null(fk_clip_tokenizer_open(folder, &error));
  remove_folder(folder);
  g_assert_error(error, FK_ERROR, FK_ERROR_MODEL_BAD);
  g_assert_nonnull(strstr(error->message, "special_tokens_map.json: special token \"<|startoftext|>\""));
}

/* Nesting that a recursive parser does not survive, in each of the JSON files, and behind a quote in a comment. */
static void test_depth(void) {
  static const char *const texts[] = {"{\"added_tokens\": [", "{\"added_tokens\": [/*\"*/", "{\"x\": "};
  static const char *const files[] = {C, "special_tokens_map.json", "tokenizer.json"};
  for (gsize i = 0; i < G_N_ELEMENTS(texts) * G_N_ELEMENTS(files); i++) {
    g_autoptr(GString) deep = g_string_new(texts[i / G_N_ELEMENTS(files)]);
    for (int k = 0; k < 100000; k++) g_string_append_c(deep, '[');
    const bool comment = i / G_N_ELEMENTS(files) == 1;
    if (comment) g_string_append(deep, "/*\"*/}");
    const Damage damage = {files[i % G_N_ELEMENTS(files)],
                           NULL,
                           deep->str,
                           0,
                           FK_ERROR_MODEL_BAD,
                           comment ? "expected a JSON value" : "nested deeper than 64 levels"};
    check_damage(&clip, FK_DEMO_MODEL "/tokenizer", &damage);
  }
}

typedef struct {
  char *folder, *quarter;
} Folders;

static void open_folder(gpointer data, gboolean quarter) {
  const Folders *f = data;
  g_autoptr(GError) error = NULL;
  g_autoptr(FkClipTokenizer) tokenizer = fk_clip_tokenizer_open(quarter ? f->quarter : f->folder, &error);
  g_assert_no_error(error);
  g_assert_nonnull(tokenizer);
}

/* The demo's vocabulary and n tokens that have one hash in GLib's own function: 33 a + b is equal in "Ab" and "BA". */
static char *flooded(int n) {
  char *folder = copy_folder(FK_DEMO_MODEL "/tokenizer");
  g_autoptr(GString) more = g_string_new("{");
  for (int i = 0; i < n; i++) {
    char name[41] = "";
    for (int k = 0; k < 20; k++) memcpy(name + 2 * k, i >> k & 1 ? "BA" : "Ab", 2);
    g_string_append_printf(more, "\"%s\": %d,", name, 100000 + i);
  }
  apply_damage(folder, &(Damage){.file = V, .find = "{", .put = more->str});
  return folder;
}

static void test_flood(void) {
  g_autofree char *folder = flooded(40000), *quarter = flooded(10000);
  assert_linear("tokens of one hash", open_folder, &(Folders){folder, quarter});
  remove_folder(folder);
  remove_folder(quarter);
}

/* Special tokens that all begin and end like the prompt, and differ in between. */
static void test_special_flood(void) {
  g_autoptr(GString) config = g_string_new("{\"added_tokens_decoder\": {");
  for (int i = 0; i < 4000; i++) {
    g_autofree char *a = g_strnfill(28, 'a');
    g_string_append_printf(config, "%s\"%d\": {\"content\": \"%s%04d%s\"}", i ? "," : "", 100000 + i, a, i, a);
  }
  g_autofree char *folder = copy_folder(FK_DEMO_MODEL "/tokenizer");
  apply_damage(folder, &(Damage){.file = C, .put = g_string_append(config, "}}")->str});
  g_autoptr(GError) error = NULL;
  g_autoptr(FkClipTokenizer) few = open_demo(), many = fk_clip_tokenizer_open(folder, &error);
  g_assert_no_error(error);
  remove_folder(folder);
  g_autofree char *text = g_strnfill(1 << 18, 'a');
  const double plain = prompt_time(&clip, few, text), flooded_time = prompt_time(&clip, many, text);
  g_test_message("no special tokens: %.4f s, 4000: %.4f s", plain, flooded_time);
  g_assert_cmpfloat(flooded_time, <, 200 * plain); /* comparing with each of them costs some thousand times as much */
  int32_t ids[4];
  g_string_assign(config, "");
  for (int i = 0; i < 28; i++) g_string_append_c(config, 'a');
  g_autofree char *prompt = g_strdup_printf("%s0123%s", config->str, config->str);
  g_assert_true(fk_clip_tokenizer_encode(many, prompt, 4, ids, NULL, &error));
  g_assert_cmpint(ids[1], ==, 100123);
}

static void test_random_damage(void) {
  g_autofree char *wide = golden_path("tokens/clip");
  check_random_damage(&clip, wide, V, 150);
  check_random_damage(&clip, wide, M, 150);
  check_random_damage(&clip, wide, C, 150);
}

/* A folder with nothing but the two files that there must be: the class's own special tokens. */
static void test_bare_folder(void) {
  g_autofree char *folder = copy_folder(FK_DEMO_MODEL "/tokenizer");
  apply_damage(folder, &(Damage){.file = C});
  apply_damage(folder, &(Damage){.file = "special_tokens_map.json"});
  g_autoptr(GError) error = NULL;
  g_autoptr(FkClipTokenizer) tokenizer = fk_clip_tokenizer_open(folder, &error);
  remove_folder(folder);
  g_assert_no_error(error);
  int32_t ids[6];
  g_assert_true(fk_clip_tokenizer_encode(tokenizer, "a<|endoftext|>", 6, ids, NULL, &error));
  const int32_t expected[] = {1081, 320, 1082, 1082, 1082, 1082};
  g_assert_cmpmem(ids, sizeof ids, expected, sizeof expected);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/tokenizer/clip/demo", test_demo);
  g_test_add_func("/tokenizer/clip/wide", test_wide);
  g_test_add_func("/tokenizer/clip/length", test_length);
  g_test_add_func("/tokenizer/clip/invalid-prompts", test_invalid_prompts);
  g_test_add_func("/tokenizer/clip/threads", test_threads);
  g_test_add_func("/tokenizer/clip/bare-folder", test_bare_folder);
  g_test_add_func("/tokenizer/clip/damage", test_damage);
  g_test_add_func("/tokenizer/clip/lost-special", test_lost_special);
  g_test_add_func("/tokenizer/clip/secrets", test_secrets);
  g_test_add_func("/tokenizer/clip/depth", test_depth);
  g_test_add_func("/tokenizer/clip/flood", test_flood);
  g_test_add_func("/tokenizer/clip/special-flood", test_special_flood);
  g_test_add_func("/tokenizer/clip/long-prompt", test_long_prompt);
  g_test_add_func("/tokenizer/clip/random-damage", test_random_damage);
  return g_test_run();
}
