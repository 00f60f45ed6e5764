/* SPDX-License-Identifier: Apache-2.0 */
/* What the two tokenizers share. Only tokenizer-*.c include this. */
#ifndef FK_TOKENIZER_PRIVATE_H
#define FK_TOKENIZER_PRIVATE_H

#include "fk-error.h"
#include "tokenizer.h"

/* Ids above this are taken for damage: no text encoder has an embedding table of that size. */
#define FK_TOKEN_ID_LIMIT (1 << 20)
/* Special tokens of one tokenizer. Published ones have 2 and 103. */
#define FK_SPECIAL_LIMIT 4096

/* The start of a token or line of a file, for an error: UTF-8 with control characters escaped. (transfer full) */
char *fk_token_shown(const char *text, gsize bytes);

/* ---- The ids being collected ---- */

typedef struct {
  int32_t *ids; /* room for `room` */
  int room, count;
} FkIds;

/* `count` runs one past `room` and stops: that is how truncation shows. */
static inline void fk_ids_push(FkIds *ids, int32_t id) {
  if (ids->count < ids->room) ids->ids[ids->count] = id;
  if (ids->count <= ids->room) ids->count++;
}

/* Nothing that follows can change the result. */
static inline bool fk_ids_full(const FkIds *ids) {
  return ids->count > ids->room;
}

/* ---- A map from 64-bit keys to non-negative numbers: merges by pair, trie edges by node and byte ---- */

typedef struct {
  guint64 *keys; /* key + 1; 0: free */
  gint32 *values;
  gsize mask;
} FkMap;

void fk_map_init(FkMap *map, gsize entries); /* room for this many, never more */
void fk_map_clear(FkMap *map);
/* False when the key is there already. */
bool fk_map_add(FkMap *map, guint64 key, gint32 value);
/* -1: absent. */
gint32 fk_map_get(const FkMap *map, guint64 key);

/* ---- Special tokens: literal texts of a prompt that become one id ---- */

typedef struct {
  char *text;
  gsize bytes;
  int32_t id;
  bool normalized; /* looked for in the cleaned text, not in the raw one */
} FkSpecial;

/* What the JSON files of a tokenizer folder say. */
typedef struct {
  GArray *tokens;             /* FkSpecial, longest first */
  int32_t bos, eos, unk, pad; /* ids; -1: the class has no such token */
  int max_length;             /* model_max_length; 0: not given or beyond any use */
  int extra_ids;              /* -1: not given */
  int rows;                   /* highest id plus one */
} FkSpecials;

/* The id of a token in the vocabulary, -1: none. */
typedef int32_t (*FkTokenId)(const char *token, gpointer user);

/* names: the class's bos, eos, unk and pad, used where the files name none; NULL: it has none. Tokens that the
 * vocabulary lacks keep the id that a file gives them, which must not be smaller than `entries`, the size of the
 * vocabulary. */
bool fk_specials_open(FkSpecials *specials, const char *folder, const char *const names[4], FkTokenId lookup,
                      gpointer user, int entries, GError **error);
void fk_specials_clear(FkSpecials *specials);
/* Adds one more unless its text is known. */
void fk_specials_add(FkSpecials *specials, const char *text, int32_t id, bool normalized);
/* After the last one: longest first, so that the first that fits is the longest. */
void fk_specials_sort(FkSpecials *specials);

typedef struct {
  gconstpointer tokenizer;
  void (*clean)(gconstpointer tokenizer, const char *text, gsize bytes, GString *out);
  void (*words)(gconstpointer tokenizer, const char *text, gsize bytes, FkIds *ids);
} FkTextSteps;

/* Cuts special tokens out of `text`, cleans what lies between, cuts again, and hands the rest to `words`. False with
 * FK_ERROR_OPTION_BAD when `text` is not UTF-8. */
bool fk_specials_encode(const FkSpecials *specials, const FkTextSteps *steps, const char *text, FkIds *ids,
                        GError **error);

/* ---- Byte-pair encoding (tokenizer-bpe.c) ---- */

typedef struct FkBpe FkBpe;

/* vocab.json: token text to id. (transfer full) */
GHashTable *fk_vocabulary_open(const char *path, GError **error);
/* merges.txt, on this vocabulary. (transfer full) */
FkBpe *fk_bpe_open(const char *path, GHashTable *vocabulary, GError **error);
void fk_bpe_free(FkBpe *bpe);
/* One word: never empty. */
void fk_bpe_encode(const FkBpe *bpe, const char *word, gsize bytes, FkIds *ids);

/* ---- sentencepiece's precompiled character map (tokenizer-charsmap.c) ---- */

typedef struct FkCharsmap FkCharsmap;

/* `blob` is copied. NULL blob or no bytes: the map that keeps every text. `path` is for the error. */
FkCharsmap *fk_charsmap_new(const guint8 *blob, gsize bytes, const char *path, GError **error);
void fk_charsmap_free(FkCharsmap *map);
/* Appends the normalised text. */
void fk_charsmap_apply(const FkCharsmap *map, const char *text, gsize bytes, GString *out);

/* The end of the grapheme cluster that starts at p < end (tokenizer-graphemes.c). */
const char *fk_grapheme_end(const char *p, const char *end);

/* Unicode's White_Space. */
static inline bool fk_is_space(gunichar c) {
  return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

typedef struct {
  guint32 first, last;
  gint32 value;
} FkRange;

/* The range that holds `c`; NULL: none. `ranges` ascend. */
const FkRange *fk_range_find(const FkRange *ranges, gsize count, gunichar c);

#endif
