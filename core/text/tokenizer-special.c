/* SPDX-License-Identifier: Apache-2.0 */
/* Special tokens: which literal texts of a prompt become one id, and cutting them out.
 *
 * They are declared in up to three files. transformers takes tokenizer_config.json's added_tokens_decoder when there is
 * one, and else special_tokens_map.json and tokenizer.json's added_tokens; so does this file. Flags lstrip and rstrip
 * are not looked at: they widen a match over neighbouring white space, which both tokenizers drop anyway. */
#include "file.h"
#include "json-scan.h"
#include "tokenizer-private.h"

#include <stdarg.h>
#include <string.h>

enum { CONFIG_LIMIT = 1 << 20, TOKENIZER_JSON_LIMIT = 64 << 20 }; /* bytes */

/* ---- JSON ---- */

/* Reads a JSON file of the folder; of tokenizer.json, which has megabytes of vocabulary, the member `only` alone. *tree
 * stays NULL when there is no such file. */
static bool read_json(const char *folder, const char *name, const char *only, FkJsonTree **tree, GError **error) {
  g_autofree char *path = g_build_filename(folder, name, NULL);
  g_autoptr(GError) failed = NULL;
  *tree = fk_json_load(path, only ? TOKENIZER_JSON_LIMIT : CONFIG_LIMIT, only, &failed);
  if (*tree || g_error_matches(failed, FK_ERROR, FK_ERROR_MODEL_MISSING)) return true;
  g_propagate_error(error, g_steal_pointer(&failed));
  return false;
}

/* The member of a file's object; NULL: there is none, or null, or no file. */
static const FkJsonNode *field(const FkJsonTree *tree, const char *name) {
  const FkJsonNode *node = tree ? fk_json_member(fk_json_root(tree), name) : NULL;
  return node && node->kind != FK_JSON_NULL ? node : NULL;
}

/* The text of a token, which is a string or an object with `content`. */
static const char *token_text(const FkJsonNode *token) {
  const FkJsonNode *content = fk_json_member(token, "content");
  return fk_json_text(content ? content : token);
}

static bool flag_of(const FkJsonNode *token, const char *name) {
  const FkJsonNode *node = fk_json_member(token, name);
  return node && node->kind == FK_JSON_TRUE;
}

/* A whole number from 0 to `most`; -1: something else. */
static int number_of(const FkJsonNode *node, int most) {
  if (!node || node->kind != FK_JSON_NUMBER || !node->whole) return -1;
  const int64_t value = fk_json_integer(node);
  return value >= 0 && value <= most ? (int)value : -1;
}

/* ---- Reading ---- */

typedef struct {
  FkSpecials *specials;
  const char *folder, *name; /* name: the file being read */
  FkTokenId lookup;
  gpointer user;
  int entries;
} Reader;

void fk_specials_add(FkSpecials *specials, const char *text, int32_t id, bool normalized) {
  for (guint i = 0; i < specials->tokens->len; i++)
    if (strcmp(g_array_index(specials->tokens, FkSpecial, i).text, text) == 0) return;
  FkSpecial token = {g_strdup(text), id, normalized};
  g_array_append_val(specials->tokens, token);
  specials->rows = MAX(specials->rows, id + 1);
}

G_GNUC_PRINTF(3, 4) static bool bad(const Reader *reader, GError **error, const char *format, ...) {
  va_list list;
  va_start(list, format);
  g_autofree char *text = g_strdup_vprintf(format, list);
  va_end(list);
  g_autofree char *path = g_build_filename(reader->folder, reader->name, NULL), *shown = fk_shown_path(path);
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: %s", shown, text);
  return false;
}

static bool token_bad(const Reader *reader, const char *text, const char *what, GError **error) {
  g_autofree char *shown = fk_shown_name(text);
  return bad(reader, error, "special token \"%s\" %s", shown, what);
}

/* `id` -1: the token must be in the vocabulary. */
static bool read_text(const Reader *reader, const char *text, int id, bool normalized, int32_t *found, GError **error) {
  if (!*text || strlen(text) > FK_SPECIAL_BYTES) return token_bad(reader, text, "is empty or too long", error);
  if (reader->specials->tokens->len >= FK_SPECIAL_LIMIT) return token_bad(reader, text, "is one too many", error);
  int32_t known = reader->lookup(text, reader->user);
  if (known < 0 && id < 0) return token_bad(reader, text, "is not in the vocabulary and has no id", error);
  if (known < 0 && id < reader->entries) return token_bad(reader, text, "has the id of another token", error);
  int32_t result = known >= 0 ? known : id;
  fk_specials_add(reader->specials, text, result, normalized);
  if (found) *found = result;
  return true;
}

static bool read_token(const Reader *reader, const FkJsonNode *token, int id, int32_t *found, GError **error) {
  const char *text = token_text(token);
  if (!text) return token_bad(reader, "", "has no text", error);
  if (flag_of(token, "single_word")) return token_bad(reader, text, "has the unknown kind single_word", error);
  return read_text(reader, text, id, flag_of(token, "normalized"), found, error);
}

/* added_tokens_decoder: ids as keys. */
static bool read_decoder(const Reader *reader, const FkJsonNode *decoder, GError **error) {
  for (const FkJsonNode *it = fk_json_first(decoder); it; it = fk_json_after(decoder, it)) {
    guint64 id;
    if (!g_ascii_string_to_unsigned(it->key, 10, 0, FK_TOKEN_ID_LIMIT - 1, &id, NULL))
      return token_bad(reader, it->key, "is not an id in range", error);
    if (!read_token(reader, it, (int)id, NULL, error)) return false;
  }
  return true;
}

/* added_tokens of tokenizer.json. */
static bool read_added(const Reader *reader, const FkJsonNode *list, GError **error) {
  if (list->kind != FK_JSON_LIST) return bad(reader, error, "field \"added_tokens\": expected a list");
  for (const FkJsonNode *it = fk_json_first(list); it; it = fk_json_after(list, it)) {
    const FkJsonNode *id = fk_json_member(it, "id");
    const char *text = token_text(it);
    const int number = number_of(id, FK_TOKEN_ID_LIMIT - 1);
    if (id && number < 0) return token_bad(reader, text ? text : "", "has an id that is not in range", error);
    if (!read_token(reader, it, number, NULL, error)) return false;
  }
  return true;
}

/* The tokens with a role, and those with none. Roles that neither file names are filled in from `names`. */
static bool read_roles(Reader *reader, const FkJsonTree *config, const FkJsonTree *map, const char *const names[4],
                       GError **error) {
  static const char *const keys[] = {"bos_token", "eos_token", "unk_token", "pad_token",
                                     "sep_token", "cls_token", "mask_token"};
  FkSpecials *s = reader->specials;
  int32_t *const ids[G_N_ELEMENTS(keys)] = {&s->bos, &s->eos, &s->unk, &s->pad};
  for (gsize i = 0; i < G_N_ELEMENTS(keys); i++) {
    /* A null of the map is an answer: the configuration is not asked. */
    const bool mapped = map && fk_json_member(fk_json_root(map), keys[i]);
    const FkJsonNode *node = field(mapped ? map : config, keys[i]);
    reader->name = mapped ? "special_tokens_map.json" : "tokenizer_config.json";
    if (node && !read_token(reader, node, -1, ids[i], error)) return false;
    if (!node && i < 4 && names[i] && !read_text(reader, names[i], -1, false, ids[i], error)) return false;
  }
  return true;
}

/* additional_special_tokens of either file: those with an id. Others (extra_id_N of a model without tokenizer.json) are
 * numbered by the tokenizer. */
static bool read_more(Reader *reader, const FkJsonTree *file, const char *name, GError **error) {
  const FkJsonNode *list = field(file, "additional_special_tokens");
  reader->name = name;
  if (!list || list->kind != FK_JSON_LIST) return true;
  for (const FkJsonNode *it = fk_json_first(list); it; it = fk_json_after(list, it)) {
    const char *text = token_text(it);
    if (text && g_str_has_prefix(text, "<extra_id_")) continue;
    if (!read_token(reader, it, -1, NULL, error)) return false;
  }
  return true;
}

static bool read_files(Reader *reader, const char *const names[4], const FkJsonTree *config, GError **error) {
  const FkJsonNode *decoder = field(config, "added_tokens_decoder");
  g_autoptr(FkJsonTree) map = NULL;
  g_autoptr(FkJsonTree) json = NULL;
  if (decoder && decoder->kind != FK_JSON_OBJECT) decoder = NULL;
  if (decoder && !read_decoder(reader, decoder, error)) return false;
  if (!decoder) {
    if (!read_json(reader->folder, "special_tokens_map.json", NULL, &map, error)) return false;
    if (!read_json(reader->folder, "tokenizer.json", "added_tokens", &json, error)) return false;
    reader->name = "tokenizer.json";
    const FkJsonNode *added = field(json, "added_tokens");
    if (added && !read_added(reader, added, error)) return false;
  }
  if (!read_roles(reader, config, map, names, error)) return false;
  return read_more(reader, config, "tokenizer_config.json", error) &&
         read_more(reader, map, "special_tokens_map.json", error);
}

bool fk_specials_open(FkSpecials *specials, const char *folder, const char *const names[4], FkTokenId lookup,
                      gpointer user, int entries, GError **error) {
  *specials = (FkSpecials){.tokens = g_array_new(FALSE, FALSE, sizeof(FkSpecial)),
                           .bos = -1,
                           .eos = -1,
                           .unk = -1,
                           .pad = -1,
                           .extra_ids = -1};
  Reader reader = {specials, folder, "tokenizer_config.json", lookup, user, entries};
  g_autoptr(FkJsonTree) config = NULL;
  if (!read_json(folder, reader.name, NULL, &config, error) || !read_files(&reader, names, config, error)) return false;
  const FkJsonNode *extra = field(config, "extra_ids");
  specials->extra_ids = number_of(extra, FK_SPECIAL_LIMIT);
  if (!extra || specials->extra_ids >= 0) return true;
  g_autofree char *found = fk_json_shown(extra);
  reader.name = "tokenizer_config.json";
  return bad(&reader, error, "field \"extra_ids\": expected a whole number from 0 to %d, found %s", FK_SPECIAL_LIMIT,
             found);
}

void fk_specials_clear(FkSpecials *specials) {
  for (guint i = 0; specials->tokens && i < specials->tokens->len; i++)
    g_free(g_array_index(specials->tokens, FkSpecial, i).text);
  g_clear_pointer(&specials->tokens, g_array_unref);
  for (int i = 0; i < 2; i++) fk_trie_clear(&specials->found[i]);
}

bool fk_specials_finish(FkSpecials *specials, GError **error) {
  for (int normalized = 0; normalized < 2; normalized++) {
    FkTrie *trie = &specials->found[normalized];
    const FkSpecial *tokens = (const FkSpecial *)(gconstpointer)specials->tokens->data;
    gsize bytes = 0;
    for (guint i = 0; i < specials->tokens->len; i++)
      if (tokens[i].normalized == (bool)normalized) bytes += strlen(tokens[i].text);
    if (!fk_trie_init(trie, bytes)) {
      g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "no memory for %u special tokens", specials->tokens->len);
      return false;
    }
    for (guint i = 0; i < specials->tokens->len; i++)
      if (tokens[i].normalized == (bool)normalized)
        fk_trie_add(trie, tokens[i].text, strlen(tokens[i].text), (gint32)i);
  }
  return true;
}

/* ---- Cutting ---- */

/* The first special token in text[*from, bytes), the longest where several begin; NULL: none. *from and *end become its
 * place. */
static const FkSpecial *find_special(const FkSpecials *specials, bool normalized, const char *text, gsize bytes,
                                     gsize *from, gsize *end) {
  const FkTrie *trie = &specials->found[normalized];
  for (gsize start = *from; start < bytes; start++) {
    gint32 node = fk_trie_step(trie, 0, text[start]), found = -1;
    for (gsize at = start + 1; node >= 0; at++) {
      if (trie->value[node] >= 0) found = trie->value[node], *end = at;
      node = at < bytes ? fk_trie_step(trie, node, text[at]) : -1;
    }
    if (found < 0) continue;
    *from = start;
    return &g_array_index(specials->tokens, FkSpecial, found);
  }
  return NULL;
}

static void encode_part(const FkSpecials *specials, const FkTextSteps *steps, bool cleaned, const char *text,
                        gsize bytes, FkIds *ids);

/* Text in which there is no special token of this kind. */
static void encode_plain(const FkSpecials *specials, const FkTextSteps *steps, bool cleaned, const char *text,
                         gsize bytes, FkIds *ids) {
  if (cleaned) {
    steps->words(steps->tokenizer, text, bytes, ids);
    return;
  }
  g_autoptr(GString) clean = g_string_sized_new(bytes + 16);
  steps->clean(steps->tokenizer, text, bytes, clean);
  if (clean->len > FK_CLEAN_LIMIT)
    ids->state = FK_IDS_LONG;
  else
    encode_part(specials, steps, true, clean->str, clean->len, ids);
}

static void encode_part(const FkSpecials *specials, const FkTextSteps *steps, bool cleaned, const char *text,
                        gsize bytes, FkIds *ids) {
  for (gsize from = 0; from < bytes && !fk_ids_full(ids);) {
    gsize at = from, end = bytes;
    const FkSpecial *token = find_special(specials, cleaned, text, bytes, &at, &end);
    if (!token) at = bytes;
    if (at > from) encode_plain(specials, steps, cleaned, text + from, at - from, ids);
    if (token) fk_ids_push(ids, token->id);
    from = end;
  }
}

static bool fail_prompt(GError **error, FkError code, gsize bytes, const char *what, int limit) {
  g_set_error(error, FK_ERROR, code, "the prompt has %" G_GSIZE_FORMAT " bytes%s %d", bytes, what, limit);
  return false;
}

bool fk_specials_encode(const FkSpecials *specials, const FkTextSteps *steps, const char *text, FkIds *ids,
                        GError **error) {
  gsize bytes = strlen(text);
  const char *end;
  if (bytes > FK_PROMPT_LIMIT)
    return fail_prompt(error, FK_ERROR_OPTION_BAD, bytes, ", expected at most", FK_PROMPT_LIMIT);
  if (!g_utf8_validate(text, (gssize)bytes, &end)) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                "the prompt is not UTF-8: byte %" G_GSIZE_FORMAT " of %" G_GSIZE_FORMAT " is 0x%02x",
                (gsize)(end - text), bytes, (guint)(guint8)*end);
    return false;
  }
  encode_part(specials, steps, false, text, bytes, ids);
  if (ids->state == FK_IDS_LONG)
    return fail_prompt(error, FK_ERROR_OPTION_BAD, bytes, ", and with its characters normalised more than",
                       FK_CLEAN_LIMIT);
  if (ids->state == FK_IDS_MEMORY)
    return fail_prompt(error, FK_ERROR_MEMORY, bytes, " and not enough memory to encode it; at most", FK_PROMPT_LIMIT);
  return true;
}
