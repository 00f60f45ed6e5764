/* SPDX-License-Identifier: Apache-2.0 */
/* Byte-pair encoding of one word, and the two files that describe it: vocab.json and merges.txt.
 *
 * Cutting a prompt into words is tokenizer-clip.c's. vocab.json has its own small reader because a general JSON library
 * keeps the last of two equal keys and says nothing, and because 49,408 entries are read in a few milliseconds so. */
#include "file.h"
#include "tokenizer-private.h"

#include <string.h>

enum { VOCABULARY_LIMIT = 64 << 20, MERGES_LIMIT = 64 << 20, ENTRY_LIMIT = FK_TOKEN_ID_LIMIT };

struct FkBpe {
  int32_t inner[256], last[256]; /* the ids of single bytes: inside a word, and at its end */
  FkMap merges;                  /* left id << 32 | right id: rank */
  int32_t *merged;               /* [rank]: the id that the pair becomes */
};

/* ---- vocab.json ---- */

typedef struct {
  const char *path, *text, *at, *end;
} Scanner;

static bool scan_fail(const Scanner *s, const char *what, const char *entry, GError **error) {
  g_autofree char *shown = g_filename_display_name(s->path);
  g_autofree char *escaped = fk_token_shown(entry, strlen(entry));
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: byte %" G_GSIZE_FORMAT ", entry \"%s\": %s", shown,
              (gsize)(s->at - s->text), escaped, what);
  return false;
}

static void scan_space(Scanner *s) {
  while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t')) s->at++;
}

/* Skips white space and then `c`. */
static bool scan_char(Scanner *s, char c) {
  scan_space(s);
  if (s->at >= s->end || *s->at != c) return false;
  s->at++;
  return true;
}

/* Four hexadecimal digits; -1: they are not. */
static int scan_hex4(Scanner *s) {
  int value = 0;
  if (s->end - s->at < 4) return -1;
  for (int i = 0; i < 4; i++) {
    int digit = g_ascii_xdigit_value(*s->at++);
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

/* What follows a backslash. */
static bool scan_escape(Scanner *s, GString *out) {
  static const char plain[] = "\"\\/bfnrt", meaning[] = "\"\\/\b\f\n\r\t";
  char c = s->at < s->end ? *s->at++ : 0;
  const char *known = c ? strchr(plain, c) : NULL;
  if (known) {
    g_string_append_c(out, meaning[known - plain]);
    return true;
  }
  int code = c == 'u' ? scan_hex4(s) : -1;
  if (code >= 0xD800 && code < 0xDC00 && s->end - s->at >= 6 && s->at[0] == '\\' && s->at[1] == 'u') {
    s->at += 2;
    int low = scan_hex4(s);
    code = low >= 0xDC00 && low < 0xE000 ? 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00) : -1;
  }
  if (code <= 0 || (code >= 0xD800 && code < 0xE000)) return false;
  g_string_append_unichar(out, (gunichar)code);
  return true;
}

static bool scan_string(Scanner *s, GString *out) {
  g_string_truncate(out, 0);
  if (!scan_char(s, '"')) return false;
  while (s->at < s->end) {
    char c = *s->at++;
    if (c == '"') return true;
    if (c == '\\' && !scan_escape(s, out)) return false;
    if ((guint8)c < ' ') return false;
    if (c != '\\') g_string_append_c(out, c);
  }
  return false;
}

/* A non-negative whole number below FK_TOKEN_ID_LIMIT; -1: something else. */
static int scan_id(Scanner *s) {
  gint64 value = 0;
  int digits = 0;
  scan_space(s);
  for (; s->at < s->end && g_ascii_isdigit(*s->at) && value < FK_TOKEN_ID_LIMIT; digits++)
    value = value * 10 + (*s->at++ - '0');
  return digits && value < FK_TOKEN_ID_LIMIT ? (int)value : -1;
}

static bool scan_entry(Scanner *s, GString *key, GHashTable *tokens, GHashTable *ids, GError **error) {
  if (!scan_string(s, key)) return scan_fail(s, "expected a text in quotes", key->str, error);
  if (!g_utf8_validate(key->str, (gssize)key->len, NULL)) return scan_fail(s, "is not UTF-8", key->str, error);
  if (!scan_char(s, ':')) return scan_fail(s, "expected a colon", key->str, error);
  int id = scan_id(s);
  if (id < 0) return scan_fail(s, "expected an id from 0 to 1048575", key->str, error);
  if (!g_hash_table_add(ids, GINT_TO_POINTER(id + 1))) return scan_fail(s, "has the id of another", key->str, error);
  if (!g_hash_table_insert(tokens, g_strdup(key->str), GINT_TO_POINTER(id + 1)))
    return scan_fail(s, "is there twice", key->str, error);
  if (g_hash_table_size(tokens) > ENTRY_LIMIT) return scan_fail(s, "is one too many", key->str, error);
  return true;
}

/* Values of the table are ids plus one, so that NULL means absent. */
GHashTable *fk_vocabulary_open(const char *path, GError **error) {
  gsize size;
  g_autofree char *text = fk_file_load(path, VOCABULARY_LIMIT, &size, error);
  if (!text) return NULL;
  Scanner s = {path, text, text, text + size};
  g_autoptr(GHashTable) tokens = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  g_autoptr(GHashTable) ids = g_hash_table_new(NULL, NULL);
  g_autoptr(GString) key = g_string_new(NULL);
  if (!scan_char(&s, '{')) {
    scan_fail(&s, "expected one JSON object", "", error);
    return NULL;
  }
  do {
    if (!scan_entry(&s, key, tokens, ids, error)) return NULL;
  } while (scan_char(&s, ','));
  bool closed = scan_char(&s, '}');
  scan_space(&s);
  if (!closed || s.at < s.end) {
    scan_fail(&s, closed ? "expected the end of the file" : "expected a comma or the closing brace", key->str, error);
    return NULL;
  }
  return g_steal_pointer(&tokens);
}

/* ---- merges.txt ---- */

static int32_t id_of(GHashTable *vocabulary, const char *token) {
  return GPOINTER_TO_INT(g_hash_table_lookup(vocabulary, token)) - 1;
}

/* GPT-2's table: every byte as a visible character. 33-126, 161-172 and 174-255 stand for themselves, the others are
 * numbered from U+0100 in ascending order. */
static gunichar byte_symbol(int byte) {
  if ((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174) return (gunichar)byte;
  return (gunichar)(256 + (byte <= 32 ? byte : byte <= 160 ? byte - 94 : 67));
}

static bool find_bytes(FkBpe *bpe, const char *path, GHashTable *vocabulary, GError **error) {
  for (int byte = 0; byte < 256; byte++) {
    char symbol[8 + sizeof "</w>"];
    int length = g_unichar_to_utf8(byte_symbol(byte), symbol);
    symbol[length] = 0;
    bpe->inner[byte] = id_of(vocabulary, symbol);
    memcpy(symbol + length, "</w>", sizeof "</w>");
    bpe->last[byte] = id_of(vocabulary, symbol);
    if (bpe->inner[byte] >= 0 && bpe->last[byte] >= 0) continue;
    g_autofree char *folder = g_path_get_dirname(path);
    g_autofree char *shown = g_filename_display_name(folder);
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD,
                "%s/vocab.json: no entry \"%.*s\" or \"%s\" for the single byte 0x%02x", shown, length, symbol, symbol,
                (guint)byte);
    return false;
  }
  return true;
}

/* One line: two tokens of the vocabulary that become a third. NULL: done; otherwise what is wrong with it. */
static const char *add_merge(FkBpe *bpe, GHashTable *vocabulary, const char *line, gsize bytes, int rank,
                             GString *joined) {
  const char *space = memchr(line, ' ', bytes);
  if (memchr(line, 0, bytes)) return "has a NUL byte";
  if (!space || memchr(space + 1, ' ', bytes - (gsize)(space + 1 - line))) return "expected two tokens and one space";
  g_string_truncate(joined, 0);
  g_string_append_len(joined, line, space - line);
  int32_t left = id_of(vocabulary, joined->str);
  g_string_truncate(joined, 0);
  g_string_append_len(joined, space + 1, (gssize)bytes - (space + 1 - line));
  int32_t right = id_of(vocabulary, joined->str);
  g_string_prepend_len(joined, line, space - line);
  int32_t both = id_of(vocabulary, joined->str);
  if (left < 0 || right < 0) return "joins a token that vocab.json lacks";
  if (both < 0) return "makes a token that vocab.json lacks";
  if (!fk_map_add(&bpe->merges, (guint64)left << 32 | (guint64)right, rank)) return "is there twice";
  bpe->merged[rank] = both;
  return NULL;
}

static bool read_merges(FkBpe *bpe, const char *path, GHashTable *vocabulary, const char *text, gsize size,
                        GError **error) {
  gsize lines = 1;
  for (gsize i = 0; i < size; i++) lines += text[i] == '\n';
  /* Each merge makes a token; more lines than tokens cannot all be good, and sizes the tables by the smaller. */
  gsize limit = MIN(lines, 4 * (gsize)g_hash_table_size(vocabulary));
  fk_map_init(&bpe->merges, limit);
  bpe->merged = g_new(int32_t, limit);
  g_autoptr(GString) joined = g_string_new(NULL);
  int rank = 0, number = 0;
  for (gsize at = 0; at < size;) {
    const char *end = memchr(text + at, '\n', size - at);
    gsize next = end ? (gsize)(end - text) + 1 : size, bytes = next - at - (end != NULL);
    if (bytes && text[at + bytes - 1] == '\r') bytes--;
    const char *line = text + at;
    at = next;
    number++;
    if (bytes == 0 || (bytes >= 8 && memcmp(line, "#version", 8) == 0)) continue;
    const char *wrong = (gsize)rank < limit ? add_merge(bpe, vocabulary, line, bytes, rank, joined) : "is one too many";
    if (!wrong) rank++;
    if (!wrong) continue;
    g_autofree char *shown = g_filename_display_name(path);
    g_autofree char *escaped = fk_token_shown(line, bytes);
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: line %d \"%s\" %s", shown, number, escaped, wrong);
    return false;
  }
  return true;
}

FkBpe *fk_bpe_open(const char *path, GHashTable *vocabulary, GError **error) {
  gsize size;
  g_autofree char *text = fk_file_load(path, MERGES_LIMIT, &size, error);
  if (!text) return NULL;
  FkBpe *bpe = g_new0(FkBpe, 1);
  if (find_bytes(bpe, path, vocabulary, error) && read_merges(bpe, path, vocabulary, text, size, error)) return bpe;
  fk_bpe_free(bpe);
  return NULL;
}

void fk_bpe_free(FkBpe *bpe) {
  if (!bpe) return;
  fk_map_clear(&bpe->merges);
  g_free(bpe->merged);
  g_free(bpe);
}

/* ---- Merging ---- */

typedef struct {
  int32_t id; /* -1: swallowed by the symbol on its left */
  int32_t previous, next;
} Symbol;

/* A binary heap of candidate merges, rank << 32 | position: the lowest rank first, the leftmost among equals.
 * Candidates are never taken out when a neighbour changes; they are checked when their turn comes. So a word of n bytes
 * costs O(n log n), however long it is. */
typedef struct {
  guint64 *items;
  gsize count;
} Heap;

static void heap_push(Heap *heap, guint64 item) {
  gsize at = heap->count++;
  for (; at > 0 && heap->items[(at - 1) / 2] > item; at = (at - 1) / 2) heap->items[at] = heap->items[(at - 1) / 2];
  heap->items[at] = item;
}

static guint64 heap_pop(Heap *heap) {
  guint64 top = heap->items[0], moved = heap->items[--heap->count];
  gsize at = 0;
  for (;;) {
    gsize child = 2 * at + 1;
    if (child + 1 < heap->count && heap->items[child + 1] < heap->items[child]) child++;
    if (child >= heap->count || heap->items[child] >= moved) break;
    heap->items[at] = heap->items[child];
    at = child;
  }
  heap->items[at] = moved;
  return top;
}

/* The rank at which the symbol at `at` merges with the next one; -1: never. */
static int32_t rank_at(const FkBpe *bpe, const Symbol *symbols, int32_t at) {
  if (at < 0 || symbols[at].id < 0 || symbols[at].next < 0) return -1;
  return fk_map_get(&bpe->merges, (guint64)symbols[at].id << 32 | (guint64)symbols[symbols[at].next].id);
}

static void push_candidate(const FkBpe *bpe, Heap *heap, const Symbol *symbols, int32_t at) {
  int32_t rank = rank_at(bpe, symbols, at);
  if (rank >= 0) heap_push(heap, (guint64)rank << 32 | (guint64)at);
}

static void merge_all(const FkBpe *bpe, Symbol *symbols, Heap *heap) {
  while (heap->count > 0) {
    guint64 top = heap_pop(heap);
    int32_t rank = (int32_t)(top >> 32), at = (int32_t)(top & 0xFFFFFFFF);
    if (rank_at(bpe, symbols, at) != rank) continue;
    int32_t right = symbols[at].next, after = symbols[right].next;
    symbols[at].id = bpe->merged[rank];
    symbols[at].next = after;
    symbols[right].id = -1;
    if (after >= 0) symbols[after].previous = at;
    push_candidate(bpe, heap, symbols, symbols[at].previous);
    push_candidate(bpe, heap, symbols, at);
  }
}

void fk_bpe_encode(const FkBpe *bpe, const char *word, gsize bytes, FkIds *ids) {
  enum { SMALL = 64 };
  Symbol small_symbols[SMALL];
  guint64 small_items[3 * SMALL];
  bool large = bytes > SMALL;
  Symbol *symbols = large ? g_new(Symbol, bytes) : small_symbols;
  /* bytes - 1 candidates at the start, and two for each of at most bytes - 1 merges, which each took one out. */
  Heap heap = {large ? g_new(guint64, 3 * bytes) : small_items, 0};
  gint32 n = (gint32)bytes;
  for (gint32 i = 0; i < n; i++) {
    const int32_t *table = i == n - 1 ? bpe->last : bpe->inner;
    symbols[i] = (Symbol){table[(guint8)word[i]], i - 1, i + 1 < n ? i + 1 : -1};
  }
  for (gint32 i = 0; i + 1 < n; i++) push_candidate(bpe, &heap, symbols, i);
  merge_all(bpe, symbols, &heap);
  for (gint32 i = 0; i >= 0 && !fk_ids_full(ids); i = symbols[i].next) fk_ids_push(ids, symbols[i].id);
  if (large) g_free(symbols);
  if (large) g_free(heap.items);
}
