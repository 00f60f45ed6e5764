/* SPDX-License-Identifier: Apache-2.0 */
/* JSON scanner and tree; see json-scan.h.
 *
 * Not a JSON library: those keep the last of two equal keys and say nothing, hash names without a key, recurse, take
 * comments, and keep numbers of more than 53 or 64 bits as another number. */
#include "json-scan.h"

#include "file.h"
#include "fk-error.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* ---- Scanner ---- */

bool fk_json_fail(FkJson *j, const char *format, ...) {
  va_list list;
  va_start(list, format);
  g_vsnprintf(j->problem, sizeof j->problem, format, list);
  va_end(list);
  return false;
}

void fk_json_report(const FkJson *j, const char *path, size_t before, GError **error) {
  g_autofree char *shown = fk_shown_path(path);
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: byte %" G_GSIZE_FORMAT " of the file: %s", shown,
              before + (size_t)(j->at - j->text), j->problem);
}

bool fk_json_start(FkJson *j, char *text, size_t bytes) {
  *j = (FkJson){.text = text, .at = text, .end = text + bytes};
  const char *bad;
  if (g_utf8_validate_len(text, bytes, &bad)) return true;
  j->at = text + (bad - text);
  return fk_json_fail(j, "not UTF-8");
}

static inline char skip_space(FkJson *j) {
  while (*j->at == ' ' || *j->at == '\n' || *j->at == '\r' || *j->at == '\t') j->at++;
  return *j->at;
}

bool fk_json_finish(FkJson *j) {
  skip_space(j);
  return j->at == j->end || fk_json_fail(j, "something follows the JSON value");
}

/* The character found is not shown: the file may be a link to any other file. */
static bool fail_expected(FkJson *j, const char *expected) {
  return fk_json_fail(j, "expected %s, found %s", expected, j->at == j->end ? "the end" : "another character");
}

/* White space, then `one` or, unless it is 0, `other`. */
static inline char scan_char(FkJson *j, char one, char other) {
  char c = skip_space(j);
  if (c && (c == one || c == other)) {
    j->at++;
    return c;
  }
  const char expected[] = {'\'', one, '\'', 0};
  fail_expected(j, expected);
  return 0;
}

char fk_json_open(FkJson *j, const char *brackets) {
  if (!scan_char(j, brackets[0], 0)) return 0;
  if (skip_space(j) != brackets[1]) return ',';
  j->at++;
  return brackets[1];
}

char fk_json_next(FkJson *j, const char *brackets) {
  return scan_char(j, brackets[1], ',');
}

/* Four hexadecimal digits; -1 when they are not. */
static int32_t scan_hex4(FkJson *j) {
  int32_t value = 0;
  for (int i = 0; i < 4; i++) {
    int digit = g_ascii_xdigit_value(j->at[i]); /* the NUL at the end is no digit */
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  j->at += 4;
  return value;
}

/* What follows a backslash and a u: one or two UTF-16 units. Writes UTF-8 to *to, which trails the reading. */
static bool scan_unicode(FkJson *j, char **to) {
  int32_t unit = scan_hex4(j);
  if (unit < 0) return fk_json_fail(j, "expected four hexadecimal digits after \\u");
  gunichar c = (gunichar)unit;
  if (unit >= 0xd800 && unit < 0xdc00 && j->at[0] == '\\' && j->at[1] == 'u') {
    j->at += 2;
    int32_t low = scan_hex4(j);
    if (low < 0xdc00 || low > 0xdfff) return fk_json_fail(j, "a surrogate without its other half");
    c = 0x10000 + (((gunichar)unit - 0xd800) << 10) + ((gunichar)low - 0xdc00);
  }
  if (c >= 0xd800 && c < 0xe000) return fk_json_fail(j, "a surrogate without its other half");
  if (c == 0) return fk_json_fail(j, "a string with a NUL in it");
  *to += g_unichar_to_utf8(c, *to); /* at most 4 bytes for the 6 or 12 read */
  return true;
}

bool fk_json_string(FkJson *j, char **string) {
  if (!scan_char(j, '"', 0)) return false;
  char *to = *string = j->at;
  for (;;) {
    unsigned char c = (unsigned char)*j->at;
    if (c == '"') break;
    if (c < 0x20) {
      return j->at == j->end ? fk_json_fail(j, "a string without an end")
                             : fk_json_fail(j, "a control character in a string");
    }
    j->at++;
    if (c != '\\') {
      *to++ = (char)c;
      continue;
    }
    static const char escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    char kind = *j->at;
    const char *found = kind ? strchr(escapes, kind) : NULL;
    if (!found && kind != 'u') return fk_json_fail(j, "an escape that JSON does not have");
    j->at++;
    if (found)
      *to++ = meant[found - escapes];
    else if (!scan_unicode(j, &to))
      return false;
  }
  j->at++;
  *to = 0;
  return true;
}

bool fk_json_key(FkJson *j, char **key) {
  return fk_json_string(j, key) && scan_char(j, ':', 0);
}

bool fk_json_whole(FkJson *j, uint64_t *value) {
  skip_space(j);
  const char *first = j->at;
  uint64_t v = 0;
  for (; g_ascii_isdigit(*j->at); j->at++) {
    unsigned digit = (unsigned)(*j->at - '0');
    if (v > ((uint64_t)INT64_MAX - digit) / 10) return fk_json_fail(j, "a number of 2^63 or more");
    v = v * 10 + digit;
  }
  bool whole = j->at > first && *j->at != '.' && *j->at != 'e' && *j->at != 'E';
  if (!whole || (*first == '0' && j->at > first + 1)) return fk_json_fail(j, "expected a whole number, 0 or more");
  *value = v;
  return true;
}

/* ---- Any value ---- */

static bool skip_digits(FkJson *j) {
  const char *first = j->at;
  while (g_ascii_isdigit(*j->at)) j->at++;
  return j->at > first || fail_expected(j, "a digit");
}

static bool scan_number(FkJson *j, FkJsonNode *node) {
  node->kind = FK_JSON_NUMBER;
  node->text = j->at;
  node->whole = true;
  if (*j->at == '-') j->at++;
  const char *first = j->at;
  if (!skip_digits(j)) return false;
  if (*first == '0' && j->at > first + 1) return fk_json_fail(j, "a number that begins with 0");
  if (*j->at == '.') {
    node->whole = false;
    j->at++;
    if (!skip_digits(j)) return false;
  }
  if (*j->at == 'e' || *j->at == 'E') {
    node->whole = false;
    j->at++;
    if (*j->at == '+' || *j->at == '-') j->at++;
    if (!skip_digits(j)) return false;
  }
  node->bytes = (uint32_t)(j->at - node->text);
  return true;
}

/* A value with nothing inside it. */
static bool scan_plain(FkJson *j, FkJsonNode *node) {
  static const char *const words[] = {[FK_JSON_NULL] = "null", [FK_JSON_FALSE] = "false", [FK_JSON_TRUE] = "true"};
  char c = skip_space(j), *text;
  if (c == '-' || g_ascii_isdigit(c)) return scan_number(j, node);
  for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
    if (strncmp(j->at, words[i], strlen(words[i]))) continue;
    node->kind = (uint8_t)i;
    j->at += strlen(words[i]);
    return true;
  }
  if (c != '"') return fail_expected(j, "a JSON value");
  if (!fk_json_string(j, &text)) return false;
  node->kind = FK_JSON_STRING;
  node->text = text;
  node->bytes = (uint32_t)strlen(text);
  return true;
}

static int compare_keys(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Ends the list or object nodes[at]. */
static bool close_node(FkJson *j, GArray *nodes, guint at) {
  FkJsonNode *node = &g_array_index(nodes, FkJsonNode, at);
  node->span = nodes->len - at;
  if (node->kind != FK_JSON_OBJECT || node->count < 2) return true;
  g_autofree const char **keys = g_new(const char *, node->count);
  uint32_t n = 0;
  for (const FkJsonNode *it = fk_json_first(node); it; it = fk_json_after(node, it)) keys[n++] = it->key;
  qsort(keys, n, sizeof *keys, compare_keys);
  for (uint32_t i = 1; i < n; i++) {
    if (strcmp(keys[i - 1], keys[i])) continue;
    g_autofree char *shown = fk_shown_name(keys[i]);
    return fk_json_fail(j, "key \"%s\" is there twice", shown);
  }
  return true;
}

/* One value of any kind inside the one at the top. `nodes` NULL: drops it. */
static bool scan_value(FkJson *j, const char *key, GArray *nodes) {
  struct {
    const char *brackets;
    guint node;
  } level[FK_JSON_DEPTH - 1];
  guint depth = 0;
  for (;;) {
    FkJsonNode node = {.key = key, .span = 1};
    char c = skip_space(j);
    const char *brackets = c == '{' ? "{}" : c == '[' ? "[]" : NULL;
    if (brackets)
      node.kind = c == '{' ? FK_JSON_OBJECT : FK_JSON_LIST;
    else if (!scan_plain(j, &node))
      return false;
    if (depth == G_N_ELEMENTS(level) && brackets) return fk_json_fail(j, "nested deeper than %d levels", FK_JSON_DEPTH);
    if (nodes) {
      if (nodes->len == FK_JSON_NODES) return fk_json_fail(j, "more than %d values", FK_JSON_NODES);
      if (depth) g_array_index(nodes, FkJsonNode, level[depth - 1].node).count++;
      g_array_append_val(nodes, node);
    }
    if (brackets) {
      level[depth].brackets = brackets;
      level[depth++].node = nodes ? nodes->len - 1 : 0;
    }
    if (!depth) return true;
    c = brackets ? fk_json_open(j, brackets) : fk_json_next(j, level[depth - 1].brackets);
    while (c == '}' || c == ']') {
      if (nodes && !close_node(j, nodes, level[depth - 1].node)) return false;
      if (--depth == 0) return true;
      c = fk_json_next(j, level[depth - 1].brackets);
    }
    char *name = NULL;
    if (!c || (*level[depth - 1].brackets == '{' && !fk_json_key(j, &name))) return false;
    key = name;
  }
}

/* ---- Tree ---- */

struct FkJsonTree {
  char *text;
  GArray *nodes; /* FkJsonNode; the object at the top first */
};

static bool scan_top(FkJson *j, const char *only, GArray *nodes) {
  const FkJsonNode top = {.kind = FK_JSON_OBJECT, .span = 1};
  g_array_append_val(nodes, top);
  if (skip_space(j) != '{') return fk_json_fail(j, "expected a JSON object");
  char c = fk_json_open(j, "{}");
  for (; c == ','; c = fk_json_next(j, "{}")) {
    char *key;
    if (!fk_json_key(j, &key)) return false;
    bool kept = !only || !strcmp(key, only);
    if (!scan_value(j, key, kept ? nodes : NULL)) return false;
    if (kept) g_array_index(nodes, FkJsonNode, 0).count++;
  }
  return c && close_node(j, nodes, 0) && fk_json_finish(j);
}

/* Takes `text`, whose error was set where it is NULL. */
static FkJsonTree *tree_of(char *text, size_t size, const char *path, const char *only, GError **error) {
  g_autoptr(FkJsonTree) tree = g_new0(FkJsonTree, 1);
  tree->nodes = g_array_new(FALSE, FALSE, sizeof(FkJsonNode));
  tree->text = text;
  if (!text) return NULL;
  FkJson j;
  if (fk_json_start(&j, tree->text, size) && scan_top(&j, only, tree->nodes)) return g_steal_pointer(&tree);
  fk_json_report(&j, path, 0, error);
  return NULL;
}

FkJsonTree *fk_json_load(const char *path, size_t limit, const char *only, GError **error) {
  size_t size = 0;
  char *text = fk_file_load(path, limit, &size, error);
  return tree_of(text, size, path, only, error);
}

FkJsonTree *fk_json_parse(const char *text, const char *what, GError **error) {
  return tree_of(g_strdup(text), strlen(text), what, NULL, error);
}

void fk_json_free(FkJsonTree *tree) {
  if (!tree) return;
  g_array_unref(tree->nodes);
  g_free(tree->text);
  g_free(tree);
}

const FkJsonNode *fk_json_root(const FkJsonTree *tree) {
  return &g_array_index(tree->nodes, FkJsonNode, 0);
}

const FkJsonNode *fk_json_first(const FkJsonNode *of) {
  return of->count ? of + 1 : NULL;
}

const FkJsonNode *fk_json_after(const FkJsonNode *of, const FkJsonNode *it) {
  it += it->span;
  return it < of + of->span ? it : NULL;
}

const FkJsonNode *fk_json_member(const FkJsonNode *object, const char *key) {
  if (!object || object->kind != FK_JSON_OBJECT) return NULL;
  for (const FkJsonNode *it = fk_json_first(object); it; it = fk_json_after(object, it))
    if (!strcmp(it->key, key)) return it;
  return NULL;
}

const char *fk_json_text(const FkJsonNode *node) {
  return node && node->kind == FK_JSON_STRING ? node->text : NULL;
}

int64_t fk_json_integer(const FkJsonNode *number) {
  return g_ascii_strtoll(number->text, NULL, 10); /* the limits of 64 bits for what is beyond them */
}

double fk_json_double(const FkJsonNode *number) {
  return g_ascii_strtod(number->text, NULL);
}

char *fk_json_shown(const FkJsonNode *node) {
  switch (node->kind) {
  case FK_JSON_NULL: return g_strdup("null");
  case FK_JSON_FALSE: return g_strdup("false");
  case FK_JSON_TRUE: return g_strdup("true");
  case FK_JSON_LIST: return g_strdup_printf("a list of %u", node->count);
  case FK_JSON_OBJECT: return g_strdup("an object");
  }
  g_autofree char *text = g_strndup(node->text, node->bytes), *shown = fk_shown_name(text);
  return node->kind == FK_JSON_NUMBER ? g_steal_pointer(&shown) : g_strdup_printf("\"%s\"", shown);
}

/* ---- Hashes ---- */

static const uint64_t *process_key(void) {
  static uint64_t key[2];
  static gsize ready;
  if (g_once_init_enter(&ready)) {
    for (int i = 0; i < 2; i++) key[i] = (uint64_t)g_random_int() << 32 | g_random_int();
    g_once_init_leave(&ready, 1);
  }
  return key;
}

uint64_t fk_hash_multiplier(void) {
  return process_key()[0] | 1;
}

static inline uint64_t rotate(uint64_t x, int bits) {
  return x << bits | x >> (64 - bits);
}

static void sip_round(uint64_t v[4]) {
  v[0] += v[1], v[1] = rotate(v[1], 13) ^ v[0], v[0] = rotate(v[0], 32);
  v[2] += v[3], v[3] = rotate(v[3], 16) ^ v[2];
  v[0] += v[3], v[3] = rotate(v[3], 21) ^ v[0];
  v[2] += v[1], v[1] = rotate(v[1], 17) ^ v[2], v[2] = rotate(v[2], 32);
}

/* SipHash-1-3 (Aumasson, Bernstein 2012). */
guint fk_text_hash(gconstpointer text) {
  const uint64_t *key = process_key();
  uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du, key[0] ^ 0x6c7967656e657261u,
                   key[1] ^ 0x7465646279746573u};
  const size_t bytes = strlen(text);
  for (size_t at = 0; at <= bytes; at += 8) {
    uint64_t word = 0;
    if (bytes - at >= 8)
      memcpy(&word, (const char *)text + at, 8);
    else
      memcpy(&word, (const char *)text + at, bytes - at), word |= (uint64_t)bytes << 56;
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
  }
  v[2] ^= 0xff;
  for (int i = 0; i < 3; i++) sip_round(v);
  uint64_t h = v[0] ^ v[1] ^ v[2] ^ v[3];
  return (guint)(h ^ h >> 32);
}
