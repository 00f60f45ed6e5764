/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON scanner and tree: against json-glib on whatever both take, and the limits that json-glib does not have. */
#include "json-scan.h"
#include "test-files.h"

#include <json-glib/json-glib.h>
#include <math.h>

static FkJsonTree *load(const char *text, const char *only, GError **error) {
  g_autofree char *path = write_text("t.json", text);
  return fk_json_load(path, 8 << 20, only, error);
}

/* ---- Against json-glib ---- */

static void compare(const FkJsonNode *node, JsonNode *other) {
  switch (node->kind) {
  case FK_JSON_NULL: g_assert_true(JSON_NODE_HOLDS_NULL(other)); return;
  case FK_JSON_FALSE:
  case FK_JSON_TRUE: g_assert_cmpint(json_node_get_boolean(other), ==, node->kind == FK_JSON_TRUE); return;
  case FK_JSON_STRING: g_assert_cmpstr(fk_json_text(node), ==, json_node_get_string(other)); return;
  case FK_JSON_NUMBER:
    g_assert_cmpint(json_node_get_value_type(other) == G_TYPE_INT64, ==, node->whole);
    /* From 2^63 on json-glib's number is another one. */
    if (node->whole && fabs(fk_json_double(node)) >= 0x1p63) return;
    if (node->whole) g_assert_cmpint(fk_json_integer(node), ==, json_node_get_int(other));
    g_assert_cmpfloat(fk_json_double(node), ==, json_node_get_double(other));
    return;
  default: break;
  }
  const bool list = node->kind == FK_JSON_LIST;
  g_assert_cmpuint(node->count, ==,
                   list ? json_array_get_length(json_node_get_array(other))
                        : json_object_get_size(json_node_get_object(other)));
  guint i = 0;
  for (const FkJsonNode *it = fk_json_first(node); it; it = fk_json_after(node, it), i++) {
    if (!list) g_assert_true(fk_json_member(node, it->key) == it);
    compare(it, list ? json_array_get_element(json_node_get_array(other), i)
                     : json_object_get_member(json_node_get_object(other), it->key));
  }
  g_assert_cmpuint(i, ==, node->count);
}

/* A random value as text. `n` numbers the members, which thus differ. */
static void append_value(GRand *rand, GString *out, int depth, int *n) {
  static const char *const plain[] = {"null",     "true",
                                      "false",    "0",
                                      "-1",       "9223372036854775807",
                                      "-12.5e-3", "1E+2",
                                      "\"\"",     "\"a\\n\\\"\\\\\\/\\u00e9\\ud83d\\ude00\xc3\xa9\""};
  static const char *const spaces[] = {"", "", "", " ", "\n\t "};
#define SPACE spaces[g_rand_int_range(rand, 0, G_N_ELEMENTS(spaces))]
  const bool list = g_rand_boolean(rand);
  if (depth == 0 || g_rand_int_range(rand, 0, 3) == 0) {
    g_string_append(out, plain[g_rand_int_range(rand, 0, G_N_ELEMENTS(plain))]);
    return;
  }
  g_string_append_c(out, list ? '[' : '{');
  for (int i = 0, count = g_rand_int_range(rand, 0, 5); i < count; i++) {
    g_string_append_printf(out, "%s%s", i ? "," : "", SPACE);
    if (!list) g_string_append_printf(out, "\"k%d\"%s:%s", (*n)++, SPACE, SPACE);
    append_value(rand, out, depth - 1, n);
    g_string_append(out, SPACE);
  }
  g_string_append(out, SPACE);
  g_string_append_c(out, list ? ']' : '}');
}

static void same_values(void) {
  g_autoptr(GRand) rand = g_rand_new_with_seed(7);
  g_autoptr(JsonParser) parser = json_parser_new();
  for (int i = 0; i < 1000; i++) {
    g_autoptr(GString) text = g_string_new("{\"top\":");
    g_autoptr(GError) error = NULL;
    int n = 0;
    append_value(rand, text, 6, &n);
    g_string_append(text, ", \"more\" : 1 }");
    g_autoptr(FkJsonTree) tree = load(text->str, NULL, &error);
    g_assert_no_error(error);
    g_assert_true(json_parser_load_from_data(parser, text->str, -1, &error));
    compare(fk_json_root(tree), json_parser_get_root(parser));
    g_autoptr(FkJsonTree) part = load(text->str, "top", &error);
    g_assert_no_error(error);
    g_assert_cmpuint(fk_json_root(part)->count, ==, 1);
    compare(fk_json_member(fk_json_root(part), "top"),
            json_object_get_member(json_node_get_object(json_parser_get_root(parser)), "top"));
    /* No beginning of a text is a text, and what is taken of a damaged one is what json-glib takes. */
    g_autofree char *cut = g_strndup(text->str, (gsize)g_rand_int_range(rand, 0, (gint32)text->len - 1));
    g_assert_null(load(cut, NULL, NULL));
    text->str[g_rand_int_range(rand, 1, (gint32)text->len - 1)] ^= (char)(1 << g_rand_int_range(rand, 0, 7));
    g_autoptr(FkJsonTree) damaged = load(text->str, NULL, NULL);
    if (!damaged) continue;
    g_assert_true(json_parser_load_from_data(parser, text->str, -1, &error));
    compare(fk_json_root(damaged), json_parser_get_root(parser));
  }
}

/* ---- Limits ---- */

static void refused(const char *text, const char *only, const char *message) {
  g_autoptr(GError) error = NULL;
  g_assert_null(load(text, only, &error));
  assert_error(error, FK_ERROR_MODEL_BAD, "t.json", message);
}

static char *nest(int levels, bool lists) {
  GString *text = g_string_new("");
  for (int i = 0; i < levels; i++) g_string_append(text, lists && i ? "[" : "{\"a\":");
  g_string_append(text, "1");
  for (int i = levels - 1; i >= 0; i--) g_string_append(text, lists && i ? "]" : "}");
  return g_string_free(text, FALSE);
}

static void depth(void) {
  for (int lists = 0; lists < 2; lists++) {
    g_autofree char *most = nest(FK_JSON_DEPTH, lists), *more = nest(FK_JSON_DEPTH + 1, lists);
    g_autoptr(GError) error = NULL;
    g_autoptr(FkJsonTree) tree = load(most, NULL, &error);
    g_assert_no_error(error);
    g_assert_nonnull(tree);
    refused(more, NULL, "nested deeper than 64 levels");
    refused(more, "another", "nested deeper than 64 levels"); /* what is dropped too */
  }
}

static void members(void) {
  refused("{\"a\":1,\"b\":2,\"a\":3}", NULL, "key \"a\" is there twice");
  refused("{\"a\":1,\"b\":2,\"a\":3}", "a", "key \"a\" is there twice");
  refused("{\"b\":[{\"\":1,\"\":2}]}", NULL, "key \"\" is there twice");
  g_autoptr(GError) error = NULL;
  g_autoptr(GString) many = g_string_new("{\"a\":[0");
  for (int i = 0; i < FK_JSON_NODES; i++) g_string_append(many, ",{}");
  g_string_append(many, "],\"b\":{\"c\":null}}");
  refused(many->str, NULL, "more than 131072 values");
  refused(many->str, "a", "more than 131072 values");
  g_autoptr(FkJsonTree) tree = load(many->str, "b", &error);
  g_assert_no_error(error);
  const FkJsonNode *b = fk_json_member(fk_json_root(tree), "b");
  g_assert_cmpint(fk_json_member(b, "c")->kind, ==, FK_JSON_NULL);
  g_assert_null(fk_json_member(b, "d"));
  g_assert_null(fk_json_member(fk_json_first(b), "d"));
  g_assert_null(fk_json_member(NULL, "d"));
  g_assert_null(fk_json_text(b));
}

static void numbers(void) {
  static const struct {
    const char *text;
    bool whole;
    gint64 integer;
    double real;
  } cases[] = {{"-0", true, 0, 0},
               {"9223372036854775807", true, G_MAXINT64, 9223372036854775807.0},
               {"9223372036854775808", true, G_MAXINT64, 9223372036854775808.0},
               {"-99999999999999999999", true, G_MININT64, -1e20},
               {"1000000000000000019884624838656", true, G_MAXINT64, 1e30},
               {"0.5", false, 0, 0.5},
               {"1e2", false, 0, 100},
               {"1e999", false, 0, INFINITY}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GError) error = NULL;
    g_autofree char *text = g_strdup_printf("{\"a\":%s}", cases[i].text);
    g_autoptr(FkJsonTree) tree = load(text, NULL, &error);
    g_assert_no_error(error);
    const FkJsonNode *node = fk_json_first(fk_json_root(tree));
    g_assert_cmpint(node->whole, ==, cases[i].whole);
    if (node->whole) g_assert_cmpint(fk_json_integer(node), ==, cases[i].integer);
    g_assert_cmpfloat(fk_json_double(node), ==, cases[i].real);
    g_autofree char *shown = fk_json_shown(node);
    g_assert_cmpstr(shown, ==, cases[i].text);
  }
}

/* Values in messages: short, printable, without what is inside them. */
static void shown(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkJsonTree) tree =
      load("{\"a\":[1,\"secret\"],\"b\":{\"c\":1},\"d\":\"\\u001b[2J\",\"e\":null}", NULL, &error);
  static const char *const texts[] = {"a list of 2", "an object", "\"\\u001b[2J\"", "null"};
  const FkJsonNode *root = fk_json_root(tree), *it = fk_json_first(root);
  for (size_t i = 0; i < G_N_ELEMENTS(texts); i++, it = fk_json_after(root, it)) {
    g_autofree char *text = fk_json_shown(it);
    g_assert_cmpstr(text, ==, texts[i]);
  }
  g_assert_null(it);
}

static void hashes(void) {
  char text[] = "xblocks.0.weight";
  g_assert_cmpuint(fk_text_hash(text + 1), ==, fk_text_hash("blocks.0.weight"));
  g_assert_true(fk_hash_multiplier() & 1);
  g_assert_true(fk_hash_multiplier() == fk_hash_multiplier());
  /* 2^16 names of one g_str_hash spread over 2^16 buckets as random numbers do: 41,427 of them are met. */
  g_autofree guint8 *met = g_malloc0(1 << 16);
  int different = 0;
  for (int i = 0; i < 1 << 16; i++) {
    char name[33] = "";
    for (int k = 0; k < 16; k++) memcpy(name + 2 * k, i >> k & 1 ? "BA" : "Ab", 2);
    g_assert_cmpuint(g_str_hash(name), ==, g_str_hash("AbAbAbAbAbAbAbAbAbAbAbAbAbAbAbAb"));
    guint8 *bucket = &met[fk_text_hash(name) & 0xFFFF];
    different += !*bucket;
    *bucket = 1;
  }
  g_assert_cmpint(ABS(different - 41427), <, 700); /* 9 standard deviations */
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  g_test_add_func("/json-scan/same-values", same_values);
  g_test_add_func("/json-scan/depth", depth);
  g_test_add_func("/json-scan/members", members);
  g_test_add_func("/json-scan/numbers", numbers);
  g_test_add_func("/json-scan/shown", shown);
  g_test_add_func("/json-scan/hashes", hashes);
  const int status = g_test_run();
  scratch_close();
  return status;
}
