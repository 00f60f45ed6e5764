/* SPDX-License-Identifier: Apache-2.0 */
/* Special tokens: which literal texts of a prompt become one id, and cutting them out.
 *
 * They are declared in up to three files. transformers takes tokenizer_config.json's added_tokens_decoder when there is
 * one, and else special_tokens_map.json and tokenizer.json's added_tokens; so does this file. Flags lstrip and rstrip
 * are not looked at: they widen a match over neighbouring white space, which both tokenizers drop anyway. */
#include "file.h"
#include "tokenizer-private.h"

#include <json-glib/json-glib.h>
#include <string.h>

enum { CONFIG_LIMIT = 1 << 20, TOKENIZER_JSON_LIMIT = 64 << 20, PROMPT_LIMIT = 64 << 20 }; /* bytes */
enum { DEPTH_LIMIT = 64, TEXT_LIMIT = 256 };

char *fk_token_shown(const char *text, gsize bytes) {
  char beyond_ascii[129];
  for (int i = 0; i < 128; i++) beyond_ascii[i] = (char)(128 + i);
  beyond_ascii[128] = 0;
  g_autofree char *valid = g_utf8_make_valid(text, (gssize)MIN(bytes, 60));
  return g_strescape(valid, beyond_ascii);
}

/* ---- FkMap ---- */

void fk_map_init(FkMap *map, gsize entries) {
  gsize slots = 16;
  while (slots < entries * 2) slots *= 2;
  map->keys = g_new0(guint64, slots);
  map->values = g_new(gint32, slots);
  map->mask = slots - 1;
}

void fk_map_clear(FkMap *map) {
  g_clear_pointer(&map->keys, g_free);
  g_clear_pointer(&map->values, g_free);
}

/* The slot of `key`, or the free one where it would go. */
static gsize map_slot(const FkMap *map, guint64 key) {
  gsize slot = (gsize)((key * G_GUINT64_CONSTANT(0x9E3779B97F4A7C15)) >> 29) & map->mask;
  while (map->keys[slot] != 0 && map->keys[slot] != key + 1) slot = (slot + 1) & map->mask;
  return slot;
}

bool fk_map_add(FkMap *map, guint64 key, gint32 value) {
  gsize slot = map_slot(map, key);
  if (map->keys[slot]) return false;
  map->keys[slot] = key + 1;
  map->values[slot] = value;
  return true;
}

gint32 fk_map_get(const FkMap *map, guint64 key) {
  gsize slot = map_slot(map, key);
  return map->keys[slot] ? map->values[slot] : -1;
}

const FkRange *fk_range_find(const FkRange *ranges, gsize count, gunichar c) {
  gsize low = 0, high = count;
  while (low < high) {
    gsize middle = (low + high) / 2;
    if (c > ranges[middle].last)
      low = middle + 1;
    else
      high = middle;
  }
  return low < count && c >= ranges[low].first ? &ranges[low] : NULL;
}

/* ---- JSON ---- */

/* Finds the end of the JSON value that starts at `at` by counting brackets outside strings. 0: it has none, or it is
 * nested deeper than a tokenizer's files are, which the recursive parser behind it would not survive. */
static gsize value_end(const char *text, gsize bytes, gsize at) {
  int depth = 0;
  bool quoted = false;
  for (gsize i = at; i < bytes; i++) {
    char c = text[i];
    if (quoted && c == '\\') i++;
    if (c == '"') quoted = !quoted;
    if (quoted) continue;
    if ((c == '{' || c == '[') && ++depth > DEPTH_LIMIT) return 0;
    if ((c == '}' || c == ']') && --depth == 0) return i + 1;
  }
  return 0;
}

/* The part of a JSON object's text that is the array at its own key `key`, brackets included; without parsing the rest,
 * which in tokenizer.json is megabytes of vocabulary. NULL: none. */
static const char *find_array(const char *text, gsize bytes, const char *key, gsize *size) {
  gsize length = strlen(key);
  int depth = 0;
  for (gsize i = 0; i < bytes; i++) {
    if (text[i] == '{' || text[i] == '[') depth++;
    if (text[i] == '}' || text[i] == ']') depth--;
    if (text[i] != '"') continue;
    gsize start = ++i;
    for (; i < bytes && text[i] != '"'; i++) i += text[i] == '\\';
    if (depth != 1 || i - start != length || memcmp(text + start, key, length) != 0) continue;
    gsize at = i + 1;
    while (at < bytes && (g_ascii_isspace(text[at]) || text[at] == ':')) at++;
    if (at >= bytes || text[at] != '[') continue;
    gsize end = value_end(text, bytes, at);
    *size = end > at ? end - at : 0;
    return text + at;
  }
  return NULL;
}

static bool bad(GError **error, const char *path, const char *what) {
  g_autofree char *shown = g_filename_display_name(path);
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: %s", shown, what);
  return false;
}

/* Loads and parses a small JSON file, or of tokenizer.json the array at `key`. *node stays NULL when the file, or the
 * array, is absent. */
static bool read_json(const char *folder, const char *name, const char *key, JsonNode **node, GError **error) {
  g_autofree char *path = g_build_filename(folder, name, NULL);
  g_autoptr(GError) failed = NULL;
  gsize size, limit = key ? TOKENIZER_JSON_LIMIT : CONFIG_LIMIT;
  g_autofree char *text = fk_file_load(path, limit, &size, &failed);
  if (!text && g_error_matches(failed, FK_ERROR, FK_ERROR_MODEL_MISSING)) return true;
  if (!text) {
    g_propagate_error(error, g_steal_pointer(&failed));
    return false;
  }
  const char *start = text;
  if (key) start = find_array(text, size, key, &size);
  if (!start) return true;
  if (size > CONFIG_LIMIT || value_end(start, size, 0) == 0)
    return bad(error, path, "expected one JSON object of modest size and depth, found none");
  g_autoptr(JsonParser) parser = json_parser_new_immutable();
  if (!json_parser_load_from_data(parser, start, (gssize)size, &failed)) return bad(error, path, failed->message);
  *node = json_node_ref(json_parser_get_root(parser));
  return true;
}

static JsonNode *member(JsonNode *object, const char *name) {
  return object && JSON_NODE_HOLDS_OBJECT(object) ? json_object_get_member(json_node_get_object(object), name) : NULL;
}

static const char *text_of(JsonNode *node) {
  return node && JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_STRING
             ? json_node_get_string(node)
             : NULL;
}

static bool flag_of(JsonNode *node) {
  return node && JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_BOOLEAN &&
         json_node_get_boolean(node);
}

/* -1: not a number. Larger ones than an int come out as INT_MAX. Files write 10^30 for "no limit", of which json-glib
 * keeps the lowest 64 bits of the saturated value: -1. */
static int number_of(JsonNode *node) {
  if (!node || !JSON_NODE_HOLDS_VALUE(node)) return -1;
  if (json_node_get_value_type(node) != G_TYPE_INT64 && json_node_get_value_type(node) != G_TYPE_DOUBLE) return -1;
  double value = json_node_get_double(node);
  if (value == -1) return G_MAXINT;
  return value >= G_MAXINT ? G_MAXINT : value >= 0 ? (int)value : -1;
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
  FkSpecial token = {g_strdup(text), strlen(text), id, normalized};
  g_array_append_val(specials->tokens, token);
  specials->rows = MAX(specials->rows, id + 1);
}

static bool token_bad(const Reader *reader, const char *text, const char *what, GError **error) {
  g_autofree char *path = g_build_filename(reader->folder, reader->name, NULL);
  g_autofree char *escaped = fk_token_shown(text, strlen(text));
  g_autofree char *message = g_strdup_printf("special token \"%s\" %s", escaped, what);
  return bad(error, path, message);
}

/* A token as text or as an object with content and flags. `id` -1: it must be in the vocabulary. */
static bool read_token(const Reader *reader, JsonNode *node, int id, int32_t *found, GError **error) {
  JsonNode *content = member(node, "content");
  const char *text = text_of(content ? content : node);
  if (!text) return token_bad(reader, "", "has no text", error);
  if (!*text || strlen(text) > TEXT_LIMIT) return token_bad(reader, text, "is empty or too long", error);
  if (reader->specials->tokens->len >= FK_SPECIAL_LIMIT) return token_bad(reader, text, "is one too many", error);
  if (flag_of(member(node, "single_word"))) return token_bad(reader, text, "has the unknown kind single_word", error);
  int32_t known = reader->lookup(text, reader->user);
  if (known < 0 && id < 0) return token_bad(reader, text, "is not in the vocabulary and has no id", error);
  if (known < 0 && (id < reader->entries || id >= FK_TOKEN_ID_LIMIT))
    return token_bad(reader, text, "has the id of another token, or one out of range", error);
  int32_t result = known >= 0 ? known : id;
  fk_specials_add(reader->specials, text, result, flag_of(member(node, "normalized")));
  if (found) *found = result;
  return true;
}

/* added_tokens_decoder: ids as keys. */
static bool read_decoder(const Reader *reader, JsonNode *node, GError **error) {
  JsonObjectIter iter;
  const char *key;
  JsonNode *token;
  json_object_iter_init_ordered(&iter, json_node_get_object(node));
  while (json_object_iter_next_ordered(&iter, &key, &token)) {
    guint64 id;
    if (!g_ascii_string_to_unsigned(key, 10, 0, FK_TOKEN_ID_LIMIT - 1, &id, NULL))
      return token_bad(reader, key, "is not an id in range", error);
    if (!read_token(reader, token, (int)id, NULL, error)) return false;
  }
  return true;
}

static bool read_added(const Reader *reader, JsonNode *node, GError **error) {
  JsonArray *array = json_node_get_array(node);
  for (guint i = 0; i < json_array_get_length(array); i++) {
    JsonNode *token = json_array_get_element(array, i);
    if (!read_token(reader, token, number_of(member(token, "id")), NULL, error)) return false;
  }
  return true;
}

/* The tokens with a role, and those with none. Roles that neither file names are filled in from `names`. */
static bool read_roles(Reader *reader, JsonNode *config, JsonNode *map, const char *const names[4], GError **error) {
  static const char *const keys[] = {"bos_token", "eos_token", "unk_token", "pad_token",
                                     "sep_token", "cls_token", "mask_token"};
  FkSpecials *s = reader->specials;
  int32_t *const ids[] = {&s->bos, &s->eos, &s->unk, &s->pad};
  for (gsize i = 0; i < G_N_ELEMENTS(keys); i++) {
    JsonNode *node = member(map, keys[i]);
    reader->name = node ? "special_tokens_map.json" : "tokenizer_config.json";
    g_autoptr(JsonNode) fallback = NULL;
    if (!node) node = member(config, keys[i]);
    if (node && JSON_NODE_HOLDS_NULL(node)) node = NULL;
    if (!node && i < 4 && names[i]) node = fallback = json_node_init_string(json_node_alloc(), names[i]);
    if (node && !read_token(reader, node, -1, i < 4 ? ids[i] : NULL, error)) return false;
  }
  return true;
}

/* additional_special_tokens of either file: those with an id. Others (extra_id_N of a model without tokenizer.json) are
 * numbered by the tokenizer. */
static bool read_more(Reader *reader, JsonNode *file, const char *name, GError **error) {
  JsonNode *node = member(file, "additional_special_tokens");
  reader->name = name;
  if (!node || !JSON_NODE_HOLDS_ARRAY(node)) return true;
  JsonArray *array = json_node_get_array(node);
  for (guint i = 0; i < json_array_get_length(array); i++) {
    JsonNode *token = json_array_get_element(array, i);
    JsonNode *content = member(token, "content");
    const char *text = text_of(content ? content : token);
    if (text && g_str_has_prefix(text, "<extra_id_")) continue;
    if (!read_token(reader, token, -1, NULL, error)) return false;
  }
  return true;
}

static bool read_files(Reader *reader, const char *const names[4], JsonNode *config, GError **error) {
  JsonNode *decoder = member(config, "added_tokens_decoder");
  g_autoptr(JsonNode) map = NULL;
  g_autoptr(JsonNode) added = NULL;
  if (decoder && !JSON_NODE_HOLDS_OBJECT(decoder)) decoder = NULL;
  if (decoder && !read_decoder(reader, decoder, error)) return false;
  if (!decoder) {
    if (!read_json(reader->folder, "special_tokens_map.json", NULL, &map, error)) return false;
    if (!read_json(reader->folder, "tokenizer.json", "added_tokens", &added, error)) return false;
    reader->name = "tokenizer.json";
    if (added && !read_added(reader, added, error)) return false;
  }
  if (!read_roles(reader, config, map, names, error)) return false;
  return read_more(reader, config, "tokenizer_config.json", error) &&
         read_more(reader, map, "special_tokens_map.json", error);
}

bool fk_specials_open(FkSpecials *specials, const char *folder, const char *const names[4], FkTokenId lookup,
                      gpointer user, int entries, GError **error) {
  *specials = (FkSpecials){g_array_new(FALSE, FALSE, sizeof(FkSpecial)), -1, -1, -1, -1, 0, -1, 0};
  Reader reader = {specials, folder, "tokenizer_config.json", lookup, user, entries};
  g_autoptr(JsonNode) config = NULL;
  if (!read_json(folder, reader.name, NULL, &config, error)) return false;
  if (!read_files(&reader, names, config, error)) return false;
  reader.name = "tokenizer_config.json";
  JsonNode *node = member(config, "model_max_length");
  int length = node ? number_of(node) : G_MAXINT;
  specials->max_length = length < G_MAXINT ? length : 0;
  specials->extra_ids = number_of(member(config, "extra_ids"));
  if (length < 2 || specials->extra_ids > FK_SPECIAL_LIMIT) {
    g_autofree char *path = g_build_filename(folder, reader.name, NULL);
    return bad(error, path, "model_max_length or extra_ids is out of range");
  }
  fk_specials_sort(specials);
  return true;
}

void fk_specials_clear(FkSpecials *specials) {
  for (guint i = 0; specials->tokens && i < specials->tokens->len; i++)
    g_free(g_array_index(specials->tokens, FkSpecial, i).text);
  g_clear_pointer(&specials->tokens, g_array_unref);
}

static gint by_length(gconstpointer a, gconstpointer b) {
  const FkSpecial *x = a, *y = b;
  return x->bytes != y->bytes ? (x->bytes > y->bytes ? -1 : 1) : strcmp(x->text, y->text);
}

void fk_specials_sort(FkSpecials *specials) {
  g_array_sort(specials->tokens, by_length);
}

/* ---- Cutting ---- */

/* The first special token in text[from, bytes), the longest where several begin; NULL: none. */
static const FkSpecial *find_special(const FkSpecials *specials, bool normalized, const char *text, gsize bytes,
                                     gsize from, gsize *at) {
  const FkSpecial *tokens = (const FkSpecial *)(gconstpointer)specials->tokens->data;
  bool starts[256] = {false};
  for (guint i = 0; i < specials->tokens->len; i++)
    starts[(guint8)tokens[i].text[0]] |= tokens[i].normalized == normalized;
  for (gsize p = from; p < bytes; p++) {
    if (!starts[(guint8)text[p]]) continue;
    for (guint i = 0; i < specials->tokens->len; i++) {
      const FkSpecial *token = &tokens[i];
      if (token->normalized != normalized || token->bytes > bytes - p) continue;
      /* The last byte first: it tells apart more candidates than the first ones, which they share. */
      if (text[p + token->bytes - 1] != token->text[token->bytes - 1]) continue;
      if (memcmp(text + p, token->text, token->bytes) != 0) continue;
      *at = p;
      return token;
    }
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
  encode_part(specials, steps, true, clean->str, clean->len, ids);
}

static void encode_part(const FkSpecials *specials, const FkTextSteps *steps, bool cleaned, const char *text,
                        gsize bytes, FkIds *ids) {
  gsize from = 0;
  while (from < bytes && !fk_ids_full(ids)) {
    gsize at = bytes;
    const FkSpecial *token = find_special(specials, cleaned, text, bytes, from, &at);
    if (at > from) encode_plain(specials, steps, cleaned, text + from, at - from, ids);
    if (token) fk_ids_push(ids, token->id);
    from = at + (token ? token->bytes : 0);
  }
}

bool fk_specials_encode(const FkSpecials *specials, const FkTextSteps *steps, const char *text, FkIds *ids,
                        GError **error) {
  gsize bytes = strlen(text);
  const char *end;
  if (bytes > PROMPT_LIMIT) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "the prompt has %" G_GSIZE_FORMAT " bytes, at most %d are taken",
                bytes, PROMPT_LIMIT);
    return false;
  }
  if (!g_utf8_validate(text, (gssize)bytes, &end)) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                "the prompt is not UTF-8: byte %" G_GSIZE_FORMAT " of %" G_GSIZE_FORMAT " is 0x%02x",
                (gsize)(end - text), bytes, (guint)(guint8)*end);
    return false;
  }
  encode_part(specials, steps, false, text, bytes, ids);
  return true;
}
