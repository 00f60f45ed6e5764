/* SPDX-License-Identifier: Apache-2.0 */
/* What the two tokenizer tests share: golden ids, damaged copies of a tokenizer folder, prompts that are not UTF-8.
 *
 * FK_TEST_DATA is the folder of the goldens (environment FK_TEST_GOLDEN overrides it), FK_DEMO_MODEL the demo
 * checkpoint. The goldens are transformers' ids, written by golden/make_tokens.py. */
#ifndef FK_TEST_TOKENS_H
#define FK_TEST_TOKENS_H

#include "fk.h"
#include "test-growth.h"

#include <glib/gstdio.h>
#include <json-glib/json-glib.h>
#include <stdlib.h>
#include <string.h>

#ifndef FK_TEST_DATA
#define FK_TEST_DATA "tests/golden"
#endif
#ifndef FK_DEMO_MODEL
#define FK_DEMO_MODEL "examples/demo-model/checkpoint"
#endif

/* One kind of tokenizer behind void pointers. */
typedef struct {
  gpointer (*open)(const char *folder, GError **error);
  void (*close)(gpointer tokenizer);
  bool (*encode)(gpointer tokenizer, const char *text, int length, int32_t *ids, bool *truncated, GError **error);
} Kind;

static char *golden_path(const char *name) {
  const char *folder = g_getenv("FK_TEST_GOLDEN");
  return g_build_filename(folder ? folder : FK_TEST_DATA, name, NULL);
}

/* ---- Golden ids ---- */

static void append_ids(GString *line, const char *label, const int32_t *ids, int n) {
  g_string_append_printf(line, "\n    %s", label);
  for (int i = 0; i < n; i++) g_string_append_printf(line, " %d", ids[i]);
}

static void report(const char *text, const int32_t *expected, const int32_t *found, int length) {
  int from = 0;
  while (from < length && expected[from] == found[from]) from++;
  g_autoptr(GString) line = g_string_new(NULL);
  int chars = 0;
  for (const char *p = text; *p && chars < 40; p = g_utf8_next_char(p), chars++)
    g_string_append_printf(line, " %04X", g_utf8_get_char(p));
  g_autofree char *start = g_utf8_substring(text, 0, chars);
  int first = MAX(0, from - 3), n = MIN(length - first, 16);
  g_string_prepend(line, start);
  g_string_append_printf(line, "\n    from token %d on:", first);
  append_ids(line, "expected", expected + first, n);
  append_ids(line, "found   ", found + first, n);
  g_printerr("  %s\n", line->str);
}

typedef struct {
  const Kind *kind;
  gpointer tokenizer;
  const char *whole, *quarter; /* prompts */
} Prompts;

static void encode_prompt(gpointer data, gboolean quarter) {
  const Prompts *p = data;
  int32_t ids[77];
  g_assert_true(p->kind->encode(p->tokenizer, quarter ? p->quarter : p->whole, 77, ids, NULL, NULL));
}

/* Best of three, of this thread on a processor. */
G_GNUC_UNUSED static double prompt_time(const Kind *kind, gpointer tokenizer, const char *text) {
  double best = 1e9;
  Prompts prompts = {kind, tokenizer, text, text};
  for (int i = 0; i < 3; i++) best = MIN(best, growth_time(encode_prompt, &prompts, FALSE));
  return best;
}

/* Time is linear in the prompt, whatever it repeats. */
static void check_growth(const Kind *kind, gpointer tokenizer, const char *text, guint repeat) {
  g_autoptr(GString) whole = g_string_new(NULL);
  for (guint i = 0; i < repeat; i++) g_string_append(whole, text);
  g_autofree char *quarter = g_strndup(whole->str, strlen(text) * (repeat / 4));
  g_autofree char *what = g_strdup_printf("prompt %.12s x %u", text, repeat);
  assert_linear(what, encode_prompt, &(Prompts){kind, tokenizer, whole->str, quarter});
}

/* One line of a golden file; true when the ids are equal. */
static bool check_row(const Kind *kind, gpointer tokenizer, JsonArray *row, int length, int pad) {
  const char *text = json_array_get_string_element(row, 0);
  JsonArray *stored = json_array_get_array_element(row, 1);
  guint repeat = json_array_get_length(row) > 3 ? (guint)json_array_get_int_element(row, 3) : 1;
  g_autoptr(GString) whole = g_string_new(NULL);
  for (guint i = 0; i < repeat; i++) g_string_append(whole, text);
  g_autofree int32_t *expected = g_new(int32_t, length), *found = g_new0(int32_t, length);
  for (int i = 0; i < length; i++)
    expected[i] = (guint)i < json_array_get_length(stored) ? (int32_t)json_array_get_int_element(stored, i) : pad;
  bool truncated = false;
  g_autoptr(GError) error = NULL;
  g_assert_true(kind->encode(tokenizer, whole->str, length, found, &truncated, &error));
  if (whole->len >= 100000) check_growth(kind, tokenizer, text, repeat); /* shorter ones take microseconds */
  if (memcmp(expected, found, sizeof(int32_t) * (gsize)length) != 0) {
    report(text, expected, found, length);
    return false;
  }
  if (truncated != (json_array_get_int_element(row, 2) != 0)) g_printerr("  truncated is %d: %.60s\n", truncated, text);
  return truncated == (json_array_get_int_element(row, 2) != 0);
}

/* Compares every string of `name` and fails with the first five that differ. */
static void check_golden(const Kind *kind, gpointer tokenizer, const char *name) {
  g_autofree char *path = golden_path(name);
  g_autoptr(GFile) file = g_file_new_for_path(path);
  g_autoptr(GError) error = NULL;
  g_autoptr(GFileInputStream) raw = g_file_read(file, NULL, &error);
  g_assert_no_error(error);
  g_autoptr(GZlibDecompressor) gzip = g_zlib_decompressor_new(G_ZLIB_COMPRESSOR_FORMAT_GZIP);
  g_autoptr(GInputStream) text = g_converter_input_stream_new(G_INPUT_STREAM(raw), G_CONVERTER(gzip));
  g_autoptr(GDataInputStream) lines = g_data_input_stream_new(text);
  g_autoptr(JsonParser) parser = json_parser_new();
  int length = 0, pad = 0, rows = 0, wrong = 0;
  for (;;) {
    g_autofree char *line = g_data_input_stream_read_line_utf8(lines, NULL, NULL, &error);
    g_assert_no_error(error);
    if (!line) break;
    g_assert_true(json_parser_load_from_data(parser, line, -1, &error));
    JsonNode *root = json_parser_get_root(parser);
    if (JSON_NODE_HOLDS_OBJECT(root)) {
      length = (int)json_object_get_int_member(json_node_get_object(root), "length");
      pad = (int)json_object_get_int_member(json_node_get_object(root), "pad");
      continue;
    }
    rows++;
    if (!check_row(kind, tokenizer, json_node_get_array(root), length, pad) && ++wrong >= 5) break;
  }
  g_test_message("%s: %d strings compared, %d differ", name, rows, wrong);
  g_assert_cmpint(rows, >=, 1000);
  g_assert_cmpint(wrong, ==, 0);
}

/* ---- Damaged folders ---- */

/* What to do to one file: NULL `find` replaces the whole file by `put`, NULL `put` deletes it; `keep` > 0 first cuts
 * the file to that many bytes. The error must have `code` and contain `says`. */
typedef struct {
  const char *file, *find, *put;
  gsize keep;
  FkError code;
  const char *says;
} Damage;

static void remove_folder(const char *folder) {
  g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
  const char *name;
  while (dir && (name = g_dir_read_name(dir))) {
    g_autofree char *path = g_build_filename(folder, name, NULL);
    g_remove(path);
  }
  g_rmdir(folder);
}

/* A temporary folder with the files of `from`. (transfer full): remove_folder, g_free. */
static char *copy_folder(const char *from) {
  char *folder = g_dir_make_tmp("fk-tokens-XXXXXX", NULL);
  g_autoptr(GDir) dir = g_dir_open(from, 0, NULL);
  const char *name;
  g_assert_nonnull(dir);
  while ((name = g_dir_read_name(dir))) {
    g_autofree char *source = g_build_filename(from, name, NULL), *target = g_build_filename(folder, name, NULL);
    g_autofree char *data = NULL;
    gsize size;
    g_assert_true(g_file_get_contents(source, &data, &size, NULL));
    g_assert_true(g_file_set_contents(target, data, (gssize)size, NULL));
  }
  return folder;
}

static void apply_damage(const char *folder, const Damage *damage) {
  g_autofree char *path = g_build_filename(folder, damage->file, NULL), *data = NULL;
  gsize size = 0;
  if (damage->find || damage->keep) g_assert_true(g_file_get_contents(path, &data, &size, NULL));
  if (damage->keep) {
    g_assert_true(g_file_set_contents(path, data, (gssize)MIN(size, damage->keep), NULL));
  } else if (damage->find) {
    g_autoptr(GString) text = g_string_new_len(data, (gssize)size);
    g_assert_cmpuint(g_string_replace(text, damage->find, damage->put, 1), ==, 1);
    g_assert_true(g_file_set_contents(path, text->str, (gssize)text->len, NULL));
  } else if (damage->put) {
    g_assert_true(g_file_set_contents(path, damage->put, -1, NULL));
  } else {
    g_assert_cmpint(g_remove(path), ==, 0);
  }
}

/* Applies the damage to a copy of `base` and expects its error, which must name the file. */
static void check_damage(const Kind *kind, const char *base, const Damage *damage) {
  g_autofree char *folder = copy_folder(base);
  apply_damage(folder, damage);
  g_autoptr(GError) error = NULL;
  gpointer tokenizer = kind->open(folder, &error);
  remove_folder(folder);
  g_test_message("%s %s: %s", damage->file, damage->find ? damage->find : "", error ? error->message : "no error");
  g_assert_null(tokenizer);
  g_assert_error(error, FK_ERROR, (gint)damage->code);
  g_assert_nonnull(strstr(error->message, damage->file));
  g_assert_nonnull(strstr(error->message, damage->says));
  g_assert_cmpuint(strlen(error->message), <, 600);
  g_assert_true(g_utf8_validate(error->message, -1, NULL));
}

/* Bit flips and cuts at random places of `file`: any error or a tokenizer that encodes, but nothing else.
 * FK_TEST_ROUNDS in the environment multiplies the rounds. */
static const char anything[] = "Make it ²́ night, don't ＜pad＞ été 日本!";

static void check_random_damage(const Kind *kind, const char *base, const char *file, int rounds) {
  g_autofree char *folder = copy_folder(base), *path = g_build_filename(folder, file, NULL), *data = NULL;
  gsize size;
  g_assert_true(g_file_get_contents(path, &data, &size, NULL));
  const char *more = g_getenv("FK_TEST_ROUNDS");
  rounds *= more ? atoi(more) : 1;
  g_autoptr(GRand) rand = g_rand_new_with_seed(11);
  int opened = 0;
  for (int i = 0; i < rounds; i++) {
    g_autofree char *bad = g_memdup2(data, size);
    /* Half of the flips in the first part, where the structure is. */
    gsize range = i & 1 ? size : MIN(size, 4096);
    for (int k = 0; k < 1 + i % 3; k++)
      bad[(gsize)g_rand_int_range(rand, 0, (gint32)range)] ^= (char)(1 << g_rand_int_range(rand, 0, 8));
    gsize bytes = i % 5 == 4 ? (gsize)g_rand_int_range(rand, 0, (gint32)size) : size;
    g_assert_true(g_file_set_contents_full(path, bad, (gssize)bytes, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
    g_autoptr(GError) error = NULL;
    gpointer tokenizer = kind->open(folder, &error);
    g_assert_true((tokenizer == NULL) == (error != NULL));
    int32_t ids[77];
    if (tokenizer) g_assert_true(kind->encode(tokenizer, anything, 77, ids, NULL, &error));
    if (tokenizer) opened++, kind->close(tokenizer);
  }
  remove_folder(folder);
  g_test_message("%s: %d of %d damaged files could still be opened", file, opened, rounds);
}

/* ---- Prompts ---- */

/* Every way in which bytes are not UTF-8: the offset of the first bad byte is told. */
static void check_invalid_prompts(const Kind *kind, gpointer tokenizer) {
  static const struct {
    const char *text;
    int offset;
  } bad[] = {
      {"\x80", 0},                 /* continuation alone */
      {"ab\xBFz", 2},              /* the highest one */
      {"a\xC3", 1},                /* two bytes, cut off */
      {"a\xC3(", 1},               /* two bytes, second wrong */
      {"\xC0\xAF", 0},             /* overlong slash */
      {"\xC1\xBF", 0},             /* overlong */
      {"x\xE2\x82", 1},            /* three bytes, cut off */
      {"x\xE2(\xA1", 1},           /* three bytes, second wrong */
      {"\xE0\x80\xAF", 0},         /* overlong */
      {"\xED\xA0\x80", 0},         /* surrogate, high */
      {"\xED\xBF\xBF", 0},         /* surrogate, low */
      {"\xF0\x9F\x98", 0},         /* four bytes, cut off */
      {"\xF0\x28\x8C\xBC", 0},     /* four bytes, second wrong */
      {"\xF0\x80\x80\xAF", 0},     /* overlong */
      {"\xF4\x90\x80\x80", 0},     /* beyond U+10FFFF */
      {"\xF5\x80\x80\x80", 0},     /* lead byte that never occurs */
      {"\xF8\x88\x80\x80\x80", 0}, /* five bytes */
      {"\xFE", 0},
      {"\xFF", 0},
      {"\xC3\xA9t\xC3\xA9 \xE9t\xE9", 6}, /* Latin-1 after good text */
  };
  int32_t ids[64];
  for (gsize i = 0; i < G_N_ELEMENTS(bad); i++) {
    g_autoptr(GError) error = NULL;
    g_autofree char *offset = g_strdup_printf("byte %d of", bad[i].offset);
    g_assert_false(kind->encode(tokenizer, bad[i].text, 64, ids, NULL, &error));
    g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
    g_assert_nonnull(strstr(error->message, offset));
    g_assert_true(g_utf8_validate(error->message, -1, NULL));
  }
}

/* A megabyte is taken, a byte more is not. */
static void check_long_prompt(const Kind *kind, gpointer tokenizer) {
  g_autofree char *text = g_strnfill((1 << 20) + 1, 'a');
  int32_t ids[64];
  g_autoptr(GError) error = NULL;
  g_assert_false(kind->encode(tokenizer, text, 64, ids, NULL, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
  g_assert_nonnull(strstr(error->message, "1048577 bytes, expected at most 1048576"));
  g_clear_error(&error);
  text[1 << 20] = 0;
  g_assert_true(kind->encode(tokenizer, text, 64, ids, NULL, &error));
}

/* The same prompts from several threads at once give the ids that one gives. */
typedef struct {
  const Kind *kind;
  gpointer tokenizer;
} Shared;

static gpointer encode_often(gpointer data) {
  Shared *shared = data;
  guint64 sum = 0;
  for (int i = 0; i < 2000; i++) {
    g_autofree char *text = g_strdup_printf("make the %d cats wear \xC2\xB2\xCC\x81 red hats <pad> %d", i, i * 77);
    int32_t ids[48];
    if (!shared->kind->encode(shared->tokenizer, text, 48, ids, NULL, NULL)) return NULL;
    for (int k = 0; k < 48; k++) sum = sum * 1000003 + (guint64)ids[k];
  }
  return g_memdup2(&sum, sizeof sum);
}

static void check_threads(const Kind *kind, gpointer tokenizer) {
  Shared shared = {kind, tokenizer};
  g_autofree guint64 *alone = encode_often(&shared);
  GThread *threads[3];
  for (int i = 0; i < 3; i++) threads[i] = g_thread_new("encode", encode_often, &shared);
  for (int i = 0; i < 3; i++) {
    g_autofree guint64 *sum = g_thread_join(threads[i]);
    g_assert_nonnull(sum);
    g_assert_true(*sum == *alone);
  }
}

#endif
