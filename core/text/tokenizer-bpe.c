/* SPDX-License-Identifier: Apache-2.0 */
/* Byte-pair encoding of one word, and the two files that describe it: vocab.json and merges.txt.
 *
 * Cutting a prompt into words is tokenizer-clip.c's. A bad line of merges.txt is not shown in the error: unlike JSON
 * the file has no syntax by which a link to any other file of the user would be noticed first. */
#include "file.h"
#include "json-scan.h"
#include "tokenizer-private.h"

#include <string.h>

enum { VOCABULARY_LIMIT = 16 << 20, MERGES_LIMIT = 16 << 20 }; /* bytes; published files have 1.1 and 0.5 MB */

struct FkBpe {
  int32_t inner[256], last[256]; /* the ids of single bytes: inside a word, and at its end */
  FkMap merges;                  /* left id << 32 | right id: rank */
  int32_t *merged;               /* [rank]: the id that the pair becomes */
};

/* ---- vocab.json ---- */

static bool fail_entry(FkJson *j, const char *token, const char *what) {
  g_autofree char *shown = fk_shown_name(token);
  return fk_json_fail(j, "entry \"%s\": %s", shown, what);
}

/* taken: a bit for each id. */
static bool scan_vocabulary(FkJson *j, GHashTable *tokens, guint8 *taken) {
  char c = fk_json_open(j, "{}");
  for (; c == ','; c = fk_json_next(j, "{}")) {
    char *token;
    uint64_t id;
    if (!fk_json_key(j, &token)) return false;
    if (!fk_json_whole(j, &id) || id >= FK_TOKEN_ID_LIMIT)
      return fail_entry(j, token, "expected an id from 0 to 1048575");
    if (taken[id / 8] >> id % 8 & 1) return fail_entry(j, token, "has the id of another");
    taken[id / 8] |= (guint8)(1 << id % 8);
    if (!g_hash_table_insert(tokens, g_strdup(token), GINT_TO_POINTER((gint)id + 1)))
      return fail_entry(j, token, "is there twice");
  }
  return c && fk_json_finish(j);
}

/* Values of the table are ids plus one, so that NULL means absent. */
GHashTable *fk_vocabulary_open(const char *path, GError **error) {
  gsize size;
  g_autofree char *text = fk_file_load(path, VOCABULARY_LIMIT, &size, error);
  if (!text) return NULL;
  g_autoptr(GHashTable) tokens = g_hash_table_new_full(fk_text_hash, g_str_equal, g_free, NULL);
  g_autofree guint8 *taken = g_malloc0(FK_TOKEN_ID_LIMIT / 8);
  FkJson j;
  if (fk_json_start(&j, text, size) && scan_vocabulary(&j, tokens, taken)) return g_steal_pointer(&tokens);
  fk_json_report(&j, path, 0, error);
  return NULL;
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
    g_autofree char *folder = g_path_get_dirname(path), *shown = fk_shown_path(folder);
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
  if (memchr(line, 0, bytes)) return "a NUL byte";
  if (!space || memchr(space + 1, ' ', bytes - (gsize)(space + 1 - line))) return "expected two tokens and one space";
  g_string_truncate(joined, 0);
  g_string_append_len(joined, line, space - line);
  int32_t left = id_of(vocabulary, joined->str);
  g_string_truncate(joined, 0);
  g_string_append_len(joined, space + 1, (gssize)bytes - (space + 1 - line));
  int32_t right = id_of(vocabulary, joined->str);
  g_string_prepend_len(joined, line, space - line);
  int32_t both = id_of(vocabulary, joined->str);
  if (left < 0 || right < 0) return "a token that vocab.json lacks";
  if (both < 0) return "two tokens that make one that vocab.json lacks";
  if (!fk_map_add(&bpe->merges, (guint64)left << 32 | (guint64)right, rank)) return "two tokens that were there before";
  bpe->merged[rank] = both;
  return NULL;
}

static bool read_merges(FkBpe *bpe, const char *path, GHashTable *vocabulary, const char *text, gsize size,
                        GError **error) {
  g_autofree char *shown = fk_shown_path(path);
  gsize lines = 1;
  for (gsize i = 0; i < size; i++) lines += text[i] == '\n';
  /* Each merge makes a token; more lines than tokens cannot all be good, and sizes the tables by the smaller. */
  gsize limit = MIN(lines, 4 * (gsize)g_hash_table_size(vocabulary));
  bpe->merged = g_try_new(int32_t, limit);
  if (!fk_map_init(&bpe->merges, limit) || !bpe->merged) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: no memory for %" G_GSIZE_FORMAT " merges", shown, limit);
    return false;
  }
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
    const char *wrong =
        (gsize)rank < limit ? add_merge(bpe, vocabulary, line, bytes, rank, joined) : "one line too many";
    if (!wrong) rank++;
    if (!wrong) continue;
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: line %d: %s", shown, number, wrong);
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
  g_autofree Symbol *large_symbols = large ? fk_ids_work(ids, bytes, sizeof(Symbol)) : NULL;
  g_autofree guint64 *large_items = large ? fk_ids_work(ids, bytes, 3 * sizeof(guint64)) : NULL;
  if (large && !(large_symbols && large_items)) return;
  Symbol *symbols = large ? large_symbols : small_symbols;
  /* bytes - 1 candidates at the start, and two for each of at most bytes - 1 merges, which each took one out. */
  Heap heap = {large ? large_items : small_items, 0};
  gint32 n = (gint32)bytes;
  for (gint32 i = 0; i < n; i++) {
    const int32_t *table = i == n - 1 ? bpe->last : bpe->inner;
    symbols[i] = (Symbol){table[(guint8)word[i]], i - 1, i + 1 < n ? i + 1 : -1};
  }
  for (gint32 i = 0; i + 1 < n; i++) push_candidate(bpe, &heap, symbols, i);
  merge_all(bpe, symbols, &heap);
  for (gint32 i = 0; i >= 0 && !fk_ids_full(ids); i = symbols[i].next) fk_ids_push(ids, symbols[i].id);
}
