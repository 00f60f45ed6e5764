/* SPDX-License-Identifier: Apache-2.0 */
/* CLIP's tokenizer: cleaning a prompt and cutting it into words, whose byte pairs tokenizer-bpe.c joins.
 *
 * Follows the fast tokenizer of transformers 5: NFC, white space to one space, lower case character by character (no
 * final sigma), then the words of one regular expression, here cut by hand (spec 3.1). That tokenizer's parts were
 * built with different versions of Unicode, none of them GLib's; the tables below are the difference, so that ids are
 * equal on every code point and not only on those that all versions know. */
#include "tokenizer-private.h"

#include <string.h>

struct FkClipTokenizer {
  FkBpe *bpe;
  FkSpecials specials;
};

/* ---- Unicode ---- */

/* Letters (1) and numbers (2) that are newer than GLib's Unicode 15: asked for only where GLib knows no character. */
static const FkRange new_letters[] = {
    {0x1C89, 0x1C8A, 1},   {0xA7CB, 0xA7CD, 1},   {0xA7DA, 0xA7DC, 1},   {0x105C0, 0x105F3, 1}, {0x10D40, 0x10D49, 2},
    {0x10D4A, 0x10D65, 1}, {0x10D6F, 0x10D85, 1}, {0x10EC2, 0x10EC4, 1}, {0x11380, 0x11389, 1}, {0x1138B, 0x1138B, 1},
    {0x1138E, 0x1138E, 1}, {0x11390, 0x113B5, 1}, {0x113B7, 0x113B7, 1}, {0x113D1, 0x113D1, 1}, {0x113D3, 0x113D3, 1},
    {0x116D0, 0x116E3, 2}, {0x11BC0, 0x11BE0, 1}, {0x11BF0, 0x11BF9, 2}, {0x13460, 0x143FA, 1}, {0x16100, 0x1611D, 1},
    {0x16130, 0x16139, 2}, {0x16D40, 0x16D6C, 1}, {0x16D70, 0x16D79, 2}, {0x18CFF, 0x18CFF, 1}, {0x1CCF0, 0x1CCF9, 2},
    {0x1E5D0, 0x1E5ED, 1}, {0x1E5F0, 0x1E5F0, 1}, {0x1E5F1, 0x1E5FA, 2}, {0x2EBF0, 0x2EE5D, 1},
};

/* What to add for the lower case where g_unichar_tolower says otherwise: Roman numerals and circled letters, which are
 * not letters to it, and pairs that are newer than it. */
static const FkRange more_lower[] = {
    {0x1C89, 0x1C89, 1}, {0x2160, 0x216F, 16},     {0x24B6, 0x24CF, 26},   {0xA7CB, 0xA7CB, -42343},
    {0xA7CC, 0xA7CC, 1}, {0xA7CE, 0xA7CE, 1},      {0xA7D2, 0xA7D2, 1},    {0xA7D4, 0xA7D4, 1},
    {0xA7DA, 0xA7DA, 1}, {0xA7DC, 0xA7DC, -42561}, {0x10D50, 0x10D65, 32}, {0x16EA0, 0x16EB8, 27},
};

/* Combining marks that the reference's NFC, which is older than GLib's, does not reorder. */
static const FkRange unordered[] = {
    {0x7FD, 0x7FD, 0},     {0x898, 0x89F, 0},     {0x8CA, 0x8D3, 0},     {0x9FE, 0x9FE, 0},     {0xC3C, 0xC3C, 0},
    {0xD3B, 0xD3C, 0},     {0xEBA, 0xEBA, 0},     {0x1715, 0x1715, 0},   {0x1ABF, 0x1ACE, 0},   {0x1DF6, 0x1DFA, 0},
    {0xA82C, 0xA82C, 0},   {0x10D24, 0x10D27, 0}, {0x10EAB, 0x10EAC, 0}, {0x10EFD, 0x10EFF, 0}, {0x10F46, 0x10F50, 0},
    {0x10F82, 0x10F85, 0}, {0x11070, 0x11070, 0}, {0x1133B, 0x1133B, 0}, {0x1145E, 0x1145E, 0}, {0x11839, 0x1183A, 0},
    {0x1193D, 0x1193E, 0}, {0x11943, 0x11943, 0}, {0x119E0, 0x119E0, 0}, {0x11A34, 0x11A34, 0}, {0x11A47, 0x11A47, 0},
    {0x11A99, 0x11A99, 0}, {0x11D42, 0x11D42, 0}, {0x11D44, 0x11D45, 0}, {0x11D97, 0x11D97, 0}, {0x11F41, 0x11F42, 0},
    {0x16FF0, 0x16FF1, 0}, {0x1E08F, 0x1E08F, 0}, {0x1E130, 0x1E136, 0}, {0x1E2AE, 0x1E2AE, 0}, {0x1E2EC, 0x1E2EF, 0},
    {0x1E4EC, 0x1E4EF, 0},
};

/* DIVES AKURU VOWEL SIGN O, the one composite that the reference's NFC is too old to take apart and put together. */
enum { NEWER_COMPOSITE = 0x11938 };

typedef enum { KIND_SPACE, KIND_LETTER, KIND_NUMBER, KIND_OTHER } Kind;

static Kind kind_of(gunichar c) {
  if (fk_is_space(c)) return KIND_SPACE;
  switch (g_unichar_type(c)) {
  case G_UNICODE_LOWERCASE_LETTER:
  case G_UNICODE_UPPERCASE_LETTER:
  case G_UNICODE_TITLECASE_LETTER:
  case G_UNICODE_MODIFIER_LETTER:
  case G_UNICODE_OTHER_LETTER: return KIND_LETTER;
  case G_UNICODE_DECIMAL_NUMBER:
  case G_UNICODE_LETTER_NUMBER:
  case G_UNICODE_OTHER_NUMBER: return KIND_NUMBER;
  case G_UNICODE_UNASSIGNED: {
    const FkRange *range = fk_range_find(new_letters, G_N_ELEMENTS(new_letters), c);
    return !range ? KIND_OTHER : range->value == 1 ? KIND_LETTER : KIND_NUMBER;
  }
  default: return KIND_OTHER;
  }
}

/* Appends the full lower case of `c`; only U+0130 has more than one character. */
static void append_lower(GString *out, gunichar c) {
  if (c < 0x80) {
    g_string_append_c(out, g_ascii_tolower((char)c));
    return;
  }
  const FkRange *range = fk_range_find(more_lower, G_N_ELEMENTS(more_lower), c);
  if (c == 0x130)
    g_string_append(out, "i\xCC\x87");
  else
    g_string_append_unichar(out, range ? (gunichar)((gint32)c + range->value) : g_unichar_tolower(c));
}

static int combining_class(gunichar c) {
  if (c < 0x300) return 0;
  int class = g_unichar_combining_class(c);
  return class && fk_range_find(unordered, G_N_ELEMENTS(unordered), c) ? 0 : class;
}

/* ---- NFC ----
 *
 * Not g_utf8_normalize: its reordering is quadratic in the number of marks on one letter, so that a prompt of a
 * megabyte of marks would take hours, and it would follow GLib's classes. Characters are held as class << 24 | code
 * point. */

static gint by_class(gconstpointer a, gconstpointer b, gpointer user) {
  (void)user;
  guint32 x = *(const guint32 *)a >> 24, y = *(const guint32 *)b >> 24;
  return x < y ? -1 : x > y;
}

static void decompose(const char *text, gsize bytes, GArray *out) {
  for (const char *p = text; p < text + bytes; p = g_utf8_next_char(p)) {
    gunichar parts[G_UNICHAR_MAX_DECOMPOSITION_LENGTH] = {g_utf8_get_char(p)};
    bool whole = parts[0] < 0xC0 || parts[0] == NEWER_COMPOSITE;
    gsize n = whole ? 1 : g_unichar_fully_decompose(parts[0], FALSE, parts, G_N_ELEMENTS(parts));
    for (gsize i = 0; i < n; i++) {
      guint32 packed = (guint32)combining_class(parts[i]) << 24 | parts[i];
      g_array_append_val(out, packed);
    }
  }
}

/* Sorts each run of marks by class, keeping the order of equals. */
static void reorder(GArray *chars) {
  guint32 *c = (guint32 *)(gpointer)chars->data;
  for (guint i = 0; i < chars->len;) {
    guint run = i;
    while (run < chars->len && c[run] >> 24) run++;
    if (run - i > 1) g_qsort_with_data(c + i, (gint)(run - i), sizeof *c, by_class, NULL);
    i = run + 1;
  }
}

/* Joins marks to the last starter unless one of the same or a higher class stands between. */
static void compose(GArray *chars) {
  guint32 *c = (guint32 *)(gpointer)chars->data;
  gint starter = -1, last = -1; /* last: class of what stands between, -1 when nothing does */
  guint n = 0;
  for (guint i = 0; i < chars->len; i++) {
    gint class = (gint)(c[i] >> 24);
    gunichar code = c[i] & 0xFFFFFF, joined;
    if (starter >= 0 && last < class && g_unichar_compose(c[starter] & 0xFFFFFF, code, &joined) &&
        joined != NEWER_COMPOSITE) {
      c[starter] = joined;
      continue;
    }
    if (class == 0) starter = (gint)n;
    last = class == 0 ? -1 : class;
    c[n++] = c[i];
  }
  g_array_set_size(chars, n);
}

static void clean(gconstpointer tokenizer, const char *text, gsize bytes, GString *out) {
  (void)tokenizer;
  g_autoptr(GArray) chars = g_array_sized_new(FALSE, FALSE, sizeof(guint32), (guint)bytes);
  decompose(text, bytes, chars);
  reorder(chars);
  compose(chars);
  bool spaced = false;
  for (guint i = 0; i < chars->len; i++) {
    gunichar c = g_array_index(chars, guint32, i) & 0xFFFFFF;
    bool space = fk_is_space(c);
    if (space && !spaced) g_string_append_c(out, ' ');
    if (!space) append_lower(out, c);
    spaced = space;
  }
}

/* ---- Words ---- */

/* The special tokens and contractions of the regular expression, in its order. The two special tokens, which get here
 * when the prompt had them in capitals, are cut once more by the expression of the byte step. */
static const struct {
  const char *text;
  int pieces[3]; /* bytes of each word it makes */
} literals[] = {
    {"<|startoftext|>", {2, 11, 2}},
    {"<|endoftext|>", {2, 9, 2}},
    {"'s", {2}},
    {"'t", {2}},
    {"'re", {3}},
    {"'ve", {3}},
    {"'m", {2}},
    {"'ll", {3}},
    {"'d", {2}},
};

/* Encodes the literal that `text` starts with; the bytes that it has, or 0. */
static gsize encode_literal(const FkClipTokenizer *tokenizer, const char *text, gsize bytes, FkIds *ids) {
  if (*text != '<' && *text != '\'') return 0;
  for (gsize i = 0; i < G_N_ELEMENTS(literals); i++) {
    gsize length = strlen(literals[i].text);
    if (length > bytes || memcmp(text, literals[i].text, length) != 0) continue;
    const char *word = text;
    for (gsize k = 0; k < G_N_ELEMENTS(literals[i].pieces) && literals[i].pieces[k]; k++) {
      fk_bpe_encode(tokenizer->bpe, word, (gsize)literals[i].pieces[k], ids);
      word += literals[i].pieces[k];
    }
    return length;
  }
  return 0;
}

/* A run of letters, one number, or a run of anything else that is not white space. */
static void words(gconstpointer self, const char *text, gsize bytes, FkIds *ids) {
  const FkClipTokenizer *tokenizer = self;
  const char *p = text, *end = text + bytes;
  while (p < end && !fk_ids_full(ids)) {
    gsize literal = encode_literal(tokenizer, p, (gsize)(end - p), ids);
    Kind kind = kind_of(g_utf8_get_char(p));
    const char *start = p;
    p = literal ? p + literal : g_utf8_next_char(p);
    if (literal || kind == KIND_SPACE) continue;
    while (kind != KIND_NUMBER && p < end && kind_of(g_utf8_get_char(p)) == kind) p = g_utf8_next_char(p);
    fk_bpe_encode(tokenizer->bpe, start, (gsize)(p - start), ids);
  }
}

/* ---- Opening and encoding ---- */

static int32_t lookup(const char *token, gpointer vocabulary) {
  return GPOINTER_TO_INT(g_hash_table_lookup(vocabulary, token)) - 1;
}

static int highest_id(GHashTable *vocabulary) {
  GHashTableIter iter;
  gpointer value;
  int highest = 0;
  g_hash_table_iter_init(&iter, vocabulary);
  while (g_hash_table_iter_next(&iter, NULL, &value)) highest = MAX(highest, GPOINTER_TO_INT(value) - 1);
  return highest;
}

FkClipTokenizer *fk_clip_tokenizer_open(const char *folder, GError **error) {
  static const char *const names[4] = {"<|startoftext|>", "<|endoftext|>", "<|endoftext|>", "<|endoftext|>"};
  g_autofree char *vocabulary_path = g_build_filename(folder, "vocab.json", NULL);
  g_autofree char *merges_path = g_build_filename(folder, "merges.txt", NULL);
  g_autoptr(FkClipTokenizer) tokenizer = g_new0(FkClipTokenizer, 1);
  g_autoptr(GHashTable) vocabulary = fk_vocabulary_open(vocabulary_path, error);
  if (!vocabulary) return NULL;
  tokenizer->bpe = fk_bpe_open(merges_path, vocabulary, error);
  if (!tokenizer->bpe) return NULL;
  int rows = highest_id(vocabulary) + 1;
  FkSpecials *specials = &tokenizer->specials;
  if (!fk_specials_open(specials, folder, names, lookup, vocabulary, rows, error)) return NULL;
  if (!fk_specials_finish(specials, error)) return NULL;
  specials->rows = MAX(specials->rows, rows);
  return g_steal_pointer(&tokenizer);
}

void fk_clip_tokenizer_free(FkClipTokenizer *tokenizer) {
  if (!tokenizer) return;
  fk_bpe_free(tokenizer->bpe);
  fk_specials_clear(&tokenizer->specials);
  g_free(tokenizer);
}

int fk_clip_tokenizer_rows(const FkClipTokenizer *tokenizer) {
  return tokenizer->specials.rows;
}

bool fk_clip_tokenizer_encode(const FkClipTokenizer *tokenizer, const char *text, int length, int32_t *ids,
                              bool *truncated, GError **error) {
  if (length < 2) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "a prompt of %d tokens has no room for its begin and end",
                length);
    return false;
  }
  FkIds content = {.ids = ids + 1, .room = length - 2};
  const FkTextSteps steps = {tokenizer, clean, words};
  if (!fk_specials_encode(&tokenizer->specials, &steps, text, &content, error)) return false;
  if (truncated) *truncated = fk_ids_full(&content);
  int end = 1 + MIN(content.count, content.room);
  ids[0] = tokenizer->specials.bos;
  ids[end] = tokenizer->specials.eos;
  for (int i = end + 1; i < length; i++) ids[i] = tokenizer->specials.pad;
  return true;
}
