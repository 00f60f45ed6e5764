/* SPDX-License-Identifier: Apache-2.0 */
/* T5's tokenizer: a unigram model over pieces, with the ids of transformers' T5Tokenizer.
 *
 * A prompt is normalised by the model's character map, split at white space, and every word is preceded by the marker
 * U+2581. Among all ways to cut a word into pieces the one of highest score is taken. libsentencepiece reads the pieces
 * from spiece.model; the map and the search are here because the library's differ from the reference's (see
 * tokenizer-charsmap.c and sentencepiece-shim.cc). Source: spec 3.2. */
#include "file.h"
#include "sentencepiece-shim.h"
#include "tokenizer-private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MARKER "\xE2\x96\x81" /* U+2581 */

enum { MODEL_LIMIT = 32 << 20, PIECE_LIMIT = FK_TOKEN_ID_LIMIT / 2 };
/* Bytes of one piece, which bound the search at each place of a word, and of all pieces. Published pieces have at most
 * 16 characters. */
enum { PIECE_BYTES = 128, ALL_PIECES_BYTES = 4 << 20 };
enum { DEFAULT_EXTRA_IDS = 100, EXTRA_BYTES = sizeof "<extra_id_4096>", MODEL_TYPE_UNIGRAM = 1 };

struct FkT5Tokenizer {
  FkCharsmap *map;
  FkSpecials specials;
  FkTrie trie;    /* text to piece */
  double *scores; /* [piece] */
  int pieces;     /* of the model and extra_id_N */
  double unknown; /* score of a character that no piece covers */
};

/* ---- spiece.model ----
 *
 * A protocol buffer: fields of tag and value. Read here for the character map, which the library does not hand out, and
 * to give the library a copy without any: it would follow a damaged map out of bounds. */

typedef struct {
  const guint8 *at, *end;
} Reader;

typedef struct {
  guint64 tag;         /* field number << 3 | wire type */
  const guint8 *start; /* of the whole field */
  const guint8 *data;  /* wire type 2: the bytes */
  gsize bytes;
  guint64 number; /* wire type 0 */
} Field;

static bool read_varint(Reader *r, guint64 *value) {
  *value = 0;
  for (int shift = 0; shift < 64 && r->at < r->end; shift += 7) {
    guint8 byte = *r->at++;
    *value |= (guint64)(byte & 0x7F) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

static bool read_field(Reader *r, Field *field) {
  *field = (Field){.start = r->at};
  if (!read_varint(r, &field->tag)) return false;
  guint64 size = 0;
  switch (field->tag & 7) {
  case 0: return read_varint(r, &field->number);
  case 1: size = 8; break;
  case 5: size = 4; break;
  case 2:
    if (!read_varint(r, &size)) return false;
    break;
  default: return false;
  }
  if (size > (guint64)(r->end - r->at)) return false;
  field->data = r->at;
  field->bytes = (gsize)size;
  r->at += size;
  return true;
}

enum { PIECES = 1 << 3 | 2, TRAINER = 2 << 3 | 2, NORMALIZER = 3 << 3 | 2 }; /* of the model */
enum { TRAINER_MODEL_TYPE = 3 << 3, NORMALIZER_CHARSMAP = 2 << 3 | 2 };      /* of those two */

/* The last field of this tag in a message; false: the message is damaged. field->tag stays 0 when there is none. */
static bool find_field(const Field *message, guint64 tag, Field *field) {
  Reader r = {message->data, message->data + message->bytes};
  while (r.at < r.end) {
    Field found;
    if (!read_field(&r, &found)) return false;
    if (found.tag == tag) *field = found;
  }
  return true;
}

/* What the library needs of a file: pieces, and which kind of model it is. The rest of trainer_spec and normalizer_spec
 * may have millions of lists and texts, each of which would be an object of the library. */
typedef struct {
  GByteArray *plain; /* a model of these pieces with a normaliser that has nothing to do */
  int pieces;
  Field charsmap;
} Split;

/* NULL: done; otherwise what is wrong. */
static const char *split_model(const char *text, gsize size, Split *split) {
  /* trainer_spec: unigram. normalizer_spec: name "identity", and no prefix, no trimming and no escaping. */
  static const guint8 rest[] = "\x12\x02\x18\x01\x1A\x10\x0A\x08identity\x18\x00\x20\x00\x28\x00";
  Reader r = {(const guint8 *)text, (const guint8 *)text + size};
  Field type = {.number = MODEL_TYPE_UNIGRAM};
  bool trainer = false, normalizer = false;
  while (r.at < r.end) {
    Field field;
    if (!read_field(&r, &field)) return "is not a sentencepiece model";
    if (field.tag == TRAINER && !find_field(&field, TRAINER_MODEL_TYPE, &type)) return "has a damaged trainer_spec";
    if (field.tag == NORMALIZER && !find_field(&field, NORMALIZER_CHARSMAP, &split->charsmap))
      return "has a damaged normalizer_spec";
    trainer |= field.tag == TRAINER;
    normalizer |= field.tag == NORMALIZER;
    if (field.tag != PIECES) continue;
    if (++split->pieces > PIECE_LIMIT) return "has too many pieces";
    g_byte_array_append(split->plain, field.start, (guint)(r.at - field.start));
  }
  if (type.number != MODEL_TYPE_UNIGRAM) return "is not a unigram model";
  /* They follow the pieces, so that a file cut off between two pieces shows. */
  if (!trainer || !normalizer) return "has no trainer_spec or no normalizer_spec, as if cut off";
  g_byte_array_append(split->plain, rest, sizeof rest - 1);
  return NULL;
}

static bool bad(GError **error, const char *path, const char *what) {
  g_autofree char *shown = fk_shown_path(path);
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: %s", shown, what);
  return false;
}

static bool no_memory(GError **error, const char *path) {
  g_autofree char *shown = fk_shown_path(path);
  g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: no memory for its pieces", shown);
  return false;
}

/* ---- Pieces ---- */

static bool add_piece(FkT5Tokenizer *t, const FkSentencePiece *model, int id, const char *path, GError **error) {
  gsize bytes;
  const char *piece = fk_sentencepiece_piece(model, id, &bytes);
  double score = (double)fk_sentencepiece_score(model, id);
  const char *wrong = NULL;
  if (!g_utf8_validate(piece, (gssize)bytes, NULL)) wrong = "is not UTF-8";
  if (!wrong && bytes == 0) wrong = "is empty";
  if (!wrong && bytes > PIECE_BYTES) wrong = "is longer than 128 bytes";
  if (!wrong && !isfinite(score)) wrong = "has a score that is not finite";
  if (!wrong && !fk_trie_add(&t->trie, piece, bytes, id)) wrong = "is there twice";
  if (wrong) {
    g_autofree char *text = g_strndup(piece, bytes), *shown = fk_shown_name(text);
    g_autofree char *message = g_strdup_printf("piece %d \"%s\" %s", id, shown, wrong);
    return bad(error, path, message);
  }
  t->scores[id] = score;
  t->unknown = MIN(t->unknown, score - 10);
  return true;
}

static bool add_pieces(FkT5Tokenizer *t, const FkSentencePiece *model, const char *path, GError **error) {
  int count = fk_sentencepiece_count(model);
  gsize bytes = 0, one;
  for (int id = 0; id < count; id++) bytes += (fk_sentencepiece_piece(model, id, &one), one);
  if (bytes > ALL_PIECES_BYTES) return bad(error, path, "has too long pieces");
  t->scores = g_try_new0(double, (gsize)count + FK_SPECIAL_LIMIT);
  /* Room for extra_id_N as well, which come with the special tokens. */
  if (!fk_trie_init(&t->trie, bytes + FK_SPECIAL_LIMIT * EXTRA_BYTES + 1) || !t->scores) return no_memory(error, path);
  t->pieces = count;
  for (int id = 0; id < count; id++)
    if (!add_piece(t, model, id, path, error)) return false;
  return true;
}

static bool read_model(FkT5Tokenizer *t, const char *folder, GError **error) {
  g_autofree char *path = g_build_filename(folder, "spiece.model", NULL);
  gsize size;
  g_autofree char *text = fk_file_load(path, MODEL_LIMIT, &size, error);
  if (!text) return false;
  g_autoptr(GByteArray) plain = g_byte_array_new();
  Split split = {.plain = plain};
  const char *wrong = split_model(text, size, &split);
  if (wrong) return bad(error, path, wrong);
  t->map = fk_charsmap_new(split.charsmap.data, split.charsmap.bytes, path, error);
  if (!t->map) return false;
  char *failure = NULL;
  FkSentencePiece *model = fk_sentencepiece_open(plain->data, plain->len, &failure);
  g_autofree char *shown = fk_shown_name(failure ? failure : "cannot be read");
  bool ok = model ? add_pieces(t, model, path, error) : bad(error, path, shown);
  fk_sentencepiece_free(model);
  free(failure);
  return ok;
}

/* extra_id_N: in the vocabulary, or behind it, the highest N first. They are pieces too, of score 0. */
static void add_extra_ids(FkT5Tokenizer *t) {
  int count = t->specials.extra_ids >= 0 ? t->specials.extra_ids : DEFAULT_EXTRA_IDS, pieces = t->pieces;
  for (int n = 0; n < count; n++) {
    char text[EXTRA_BYTES];
    g_snprintf(text, sizeof text, "<extra_id_%d>", n);
    int32_t id = fk_trie_find(&t->trie, text);
    if (id < 0) {
      id = pieces + count - 1 - n;
      fk_trie_add(&t->trie, text, strlen(text), id);
      t->pieces = MAX(t->pieces, id + 1);
    }
    fk_specials_add(&t->specials, text, id, false);
  }
}

/* ---- Encoding ---- */

typedef struct {
  double score; /* of the best way here */
  gint32 start; /* where its last piece begins; -1: no way here yet */
  int32_t id;   /* of that piece */
} Node;

static void offer(Node *node, double score, gint32 start, int32_t id) {
  if (node->start < 0 || score > node->score) *node = (Node){score, start, id};
}

/* Viterbi over the bytes of a word: among equals the longer way to come first wins, as in the reference. */
static void search(const FkT5Tokenizer *t, const char *word, gint32 bytes, Node *nodes) {
  for (gint32 i = 0; i <= bytes; i++) nodes[i].start = -1;
  nodes[0].score = 0;
  gint32 length;
  for (gint32 i = 0; i < bytes; i += length) {
    bool single = false;
    gint32 node = 0;
    length = (gint32)(g_utf8_next_char(word + i) - (word + i));
    for (gint32 k = i; k < bytes; k++) {
      node = fk_trie_step(&t->trie, node, word[k]);
      if (node < 0) break;
      int32_t id = t->trie.value[node];
      if (id < 0) continue;
      offer(&nodes[k + 1], t->scores[id] + nodes[i].score, i, id);
      single |= k + 1 - i == length;
    }
    if (!single) offer(&nodes[i + length], t->unknown + nodes[i].score, i, t->specials.unk);
  }
}

/* One word with its marker. Neighbouring unknowns are one id. */
static void encode_word(const FkT5Tokenizer *t, const GString *word, FkIds *ids) {
  enum { SMALL = 128 };
  Node small_nodes[SMALL + 1];
  gint32 bytes = (gint32)word->len, n = 0; /* at most FK_CLEAN_LIMIT and a marker */
  g_autofree Node *large_nodes = bytes > SMALL ? fk_ids_work(ids, (gsize)bytes + 1, sizeof(Node)) : NULL;
  if (bytes > SMALL && !large_nodes) return;
  Node *nodes = large_nodes ? large_nodes : small_nodes;
  search(t, word->str, bytes, nodes);
  /* Backwards from the end: ids of the best way are gathered behind it, at the end of the nodes. */
  int32_t next = -1;
  for (gint32 at = bytes; at > 0;) {
    const gint32 start = nodes[at].start;
    const int32_t id = nodes[at].id;
    if (next < 0 || id != t->specials.unk || next != t->specials.unk) nodes[bytes - n++].id = next = id;
    at = start;
  }
  for (gint32 i = n - 1; i >= 0 && !fk_ids_full(ids); i--) fk_ids_push(ids, nodes[bytes - i].id);
}

static void clean(gconstpointer tokenizer, const char *text, gsize bytes, GString *out) {
  fk_charsmap_apply(((const FkT5Tokenizer *)tokenizer)->map, text, bytes, out);
}

/* Splits at white space, and before each marker that the text itself has. */
static void words(gconstpointer tokenizer, const char *text, gsize bytes, FkIds *ids) {
  g_autoptr(GString) word = g_string_new(NULL);
  const char *end = text + bytes;
  for (const char *p = text; p < end && !fk_ids_full(ids); p = g_utf8_next_char(p)) {
    gunichar c = g_utf8_get_char(p);
    bool space = fk_is_space(c), marker = c == 0x2581;
    if (word->len > 0 && (space || marker)) {
      encode_word(tokenizer, word, ids);
      g_string_truncate(word, 0);
    }
    if (space) continue;
    if (word->len == 0) g_string_append(word, MARKER);
    if (!marker) g_string_append_len(word, p, g_utf8_next_char(p) - p);
  }
  if (word->len > 0 && !fk_ids_full(ids)) encode_word(tokenizer, word, ids);
}

/* ---- Opening ---- */

static int32_t lookup(const char *token, gpointer tokenizer) {
  return fk_trie_find(&((const FkT5Tokenizer *)tokenizer)->trie, token);
}

FkT5Tokenizer *fk_t5_tokenizer_open(const char *folder, GError **error) {
  static const char *const names[4] = {NULL, "</s>", "<unk>", "<pad>"};
  g_autoptr(FkT5Tokenizer) t = g_new0(FkT5Tokenizer, 1);
  if (!read_model(t, folder, error)) return NULL;
  if (!fk_specials_open(&t->specials, folder, names, lookup, t, t->pieces, error)) return NULL;
  add_extra_ids(t);
  if (!fk_specials_finish(&t->specials, error)) return NULL;
  t->specials.rows = MAX(t->specials.rows, t->pieces);
  return g_steal_pointer(&t);
}

void fk_t5_tokenizer_free(FkT5Tokenizer *tokenizer) {
  if (!tokenizer) return;
  fk_charsmap_free(tokenizer->map);
  fk_specials_clear(&tokenizer->specials);
  fk_trie_clear(&tokenizer->trie);
  g_free(tokenizer->scores);
  g_free(tokenizer);
}

int fk_t5_tokenizer_rows(const FkT5Tokenizer *tokenizer) {
  return tokenizer->specials.rows;
}

bool fk_t5_tokenizer_encode(const FkT5Tokenizer *tokenizer, const char *text, int length, int32_t *ids, bool *truncated,
                            GError **error) {
  if (length < 1) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "a prompt of %d tokens has no room for its end", length);
    return false;
  }
  FkIds content = {.ids = ids, .room = length - 1};
  const FkTextSteps steps = {tokenizer, clean, words};
  if (!fk_specials_encode(&tokenizer->specials, &steps, text, &content, error)) return false;
  if (truncated) *truncated = fk_ids_full(&content);
  int end = MIN(content.count, content.room);
  ids[end] = tokenizer->specials.eos;
  for (int i = end + 1; i < length; i++) ids[i] = tokenizer->specials.pad;
  return true;
}
