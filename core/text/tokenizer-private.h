/* SPDX-License-Identifier: Apache-2.0 */
/* What the two tokenizers share. Only tokenizer-*.c include this. */
#ifndef FK_TOKENIZER_PRIVATE_H
#define FK_TOKENIZER_PRIVATE_H

#include "fk-error.h"
#include "tokenizer.h"

/* Ids from this on are an error: no text encoder has an embedding table of that size. */
#define FK_TOKEN_ID_LIMIT (1 << 20)
/* Special tokens of one tokenizer. Published ones have 2 and 103. */
#define FK_SPECIAL_LIMIT 4096
/* Bytes of one of them. Published ones have at most 23. */
#define FK_SPECIAL_BYTES 64
/* Bytes of a prompt, and of what cleaning makes of it: the published character map makes up to 33 bytes of 3. Both
 * bound the time of encoding, which cannot be cancelled. */
#define FK_PROMPT_LIMIT (1 << 20)
#define FK_CLEAN_LIMIT (12 * FK_PROMPT_LIMIT)

/* ---- The ids being collected ---- */

typedef enum { FK_IDS_GOOD, FK_IDS_LONG, FK_IDS_MEMORY } FkIdsState;

typedef struct {
  int32_t *ids; /* room for `room` */
  int room, count;
  FkIdsState state; /* other than good: encoding stops with an error */
} FkIds;

/* `count` runs one past `room` and stops: that is how truncation shows. */
static inline void fk_ids_push(FkIds *ids, int32_t id) {
  if (ids->count < ids->room) ids->ids[ids->count] = id;
  if (ids->count <= ids->room) ids->count++;
}

/* Nothing that follows can change the result. */
static inline bool fk_ids_full(const FkIds *ids) {
  return ids->count > ids->room || ids->state != FK_IDS_GOOD;
}

/* Room for the work of one word; NULL sets the state. (transfer full): g_free. */
static inline gpointer fk_ids_work(FkIds *ids, gsize n, gsize size) {
  gpointer work = g_try_malloc_n(n, size);
  if (!work) ids->state = FK_IDS_MEMORY;
  return work;
}

/* ---- A map from 64-bit keys to non-negative numbers: merges by pair, trie edges by node and byte ---- */

typedef struct {
  guint64 *keys; /* key + 1; 0: free */
  gint32 *values;
  guint64 multiplier; /* of this process: no file can be made whose keys all collide */
  int shift;          /* 64 less the bits of a slot's number */
} FkMap;

/* Room for this many entries, never more. False: no memory. Clear it in either case. */
bool fk_map_init(FkMap *map, gsize entries);
void fk_map_clear(FkMap *map);
/* False when the key is there already. */
bool fk_map_add(FkMap *map, guint64 key, gint32 value);
/* -1: absent. */
gint32 fk_map_get(const FkMap *map, guint64 key);

/* ---- A trie over bytes. Node 0 is the root ---- */

typedef struct {
  FkMap edges;   /* node << 8 | byte: child */
  gint32 *value; /* [node]: of the text that ends there; -1: none does */
  gint32 nodes;
} FkTrie;

/* Room for texts of `bytes` bytes in all. False: no memory. Clear it in either case. */
bool fk_trie_init(FkTrie *trie, gsize bytes);
void fk_trie_clear(FkTrie *trie);
/* value >= 0. False when the text is there already. */
bool fk_trie_add(FkTrie *trie, const char *text, gsize bytes, gint32 value);
/* The value of a text; -1: it is not there. */
gint32 fk_trie_find(const FkTrie *trie, const char *text);
/* -1: no text goes on with this byte. */
static inline gint32 fk_trie_step(const FkTrie *trie, gint32 node, char byte) {
  return fk_map_get(&trie->edges, (guint64)node << 8 | (guint8)byte);
}

/* ---- Special tokens: literal texts of a prompt that become one id ---- */

typedef struct {
  char *text;
  int32_t id;
  bool normalized; /* looked for in the cleaned text, not in the raw one */
} FkSpecial;

/* What the JSON files of a tokenizer folder say. */
typedef struct {
  GArray *tokens;             /* FkSpecial */
  FkTrie found[2];            /* text to token, raw and normalized */
  int32_t bos, eos, unk, pad; /* ids; -1: the class has no such token */
  int extra_ids;              /* -1: not given */
  int rows;                   /* highest id plus one */
} FkSpecials;

/* The id of a token in the vocabulary, -1: none. */
typedef int32_t (*FkTokenId)(const char *token, gpointer user);

/* Reads the files. names: the class's bos, eos, unk and pad, used where the files name none; NULL: it has none. Tokens
 * that the vocabulary lacks keep the id that a file gives them, which must not be smaller than `entries`, the size of
 * the vocabulary. */
bool fk_specials_open(FkSpecials *specials, const char *folder, const char *const names[4], FkTokenId lookup,
                      gpointer user, int entries, GError **error);
void fk_specials_clear(FkSpecials *specials);
/* Adds one more unless its text is known. */
void fk_specials_add(FkSpecials *specials, const char *text, int32_t id, bool normalized);
/* After the last one, before encoding. False with FK_ERROR_MEMORY. */
bool fk_specials_finish(FkSpecials *specials, GError **error);

typedef struct {
  gconstpointer tokenizer;
  /* Appends the normalised text; may stop when it is longer than FK_CLEAN_LIMIT. */
  void (*clean)(gconstpointer tokenizer, const char *text, gsize bytes, GString *out);
  void (*words)(gconstpointer tokenizer, const char *text, gsize bytes, FkIds *ids);
} FkTextSteps;

/* Cuts special tokens out of `text`, cleans what lies between, cuts again, and hands the rest to `words`. False with
 * FK_ERROR_OPTION_BAD when `text` is not UTF-8 or too long, or with FK_ERROR_MEMORY. */
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

/* `blob` is copied. NULL blob or no bytes: the map that keeps every text. `path` is for the error: FK_ERROR_MODEL_BAD
 * or FK_ERROR_MEMORY. */
FkCharsmap *fk_charsmap_new(const guint8 *blob, gsize bytes, const char *path, GError **error);
void fk_charsmap_free(FkCharsmap *map);
/* Appends the normalised text; stops when `out` is longer than FK_CLEAN_LIMIT. */
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
