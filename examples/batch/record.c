/* SPDX-License-Identifier: Apache-2.0 */
/* Records; see record.h. */
#include "record.h"

#include "../tool.h"
#include "png-text.h"

#include <string.h>

enum { SHOWN = 12 /* digits of a hash in a sentence */ };

static bool fail(const char *path, const char *why, GError **error) {
  g_autofree char *shown = g_filename_display_name(path);
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: %s", shown, why);
  return false;
}

void record_free(Record *r) {
  if (!r) return;
  g_free(r->text);
  g_clear_object(&r->parser);
  g_free(r->image);
  g_free(r->beside);
  g_free(r);
}

Record *record_parse(char *text, GError **error) {
  g_autoptr(Record) r = g_new0(Record, 1);
  r->text = text;
  r->parser = json_parser_new();
  if (!fk_manifest_apply(text, NULL, NULL, error) || !json_parser_load_from_data(r->parser, text, -1, error))
    return NULL;
  r->top = json_node_get_object(json_parser_get_root(r->parser)); /* fk_manifest_apply has seen the object */
  return g_steal_pointer(&r);
}

static JsonObject *object_in(JsonObject *object, const char *name) {
  JsonNode *node = object ? json_object_get_member(object, name) : NULL;
  return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

static const char *text_in(JsonObject *object, const char *name) {
  JsonNode *node = object ? json_object_get_member(object, name) : NULL;
  const bool text = node && JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_STRING;
  return text ? json_node_get_string(node) : "";
}

const char *record_text(const Record *r, const char *member, const char *name) {
  return name ? text_in(object_in(r->top, member), name) : text_in(r->top, member);
}

bool record_has(const Record *r, const char *member) {
  return json_object_has_member(r->top, member);
}

guint record_count(const Record *r, const char *member) {
  JsonNode *node = json_object_get_member(r->top, member);
  return node && JSON_NODE_HOLDS_ARRAY(node) ? json_array_get_length(json_node_get_array(node)) : 0;
}

/* A file of the input's name beside the record; where that is the record's own result, the input lay elsewhere. */
static char *find_beside(const Record *r, const char *path) {
  const char *name = record_text(r, "file", "input");
  if (!*name) return NULL;
  g_autofree char *folder = g_path_get_dirname(path), *base = g_path_get_basename(name);
  g_autofree char *beside = g_build_filename(folder, base, NULL);
  if (r->image && !strcmp(r->image, beside)) return NULL;
  return g_file_test(beside, G_FILE_TEST_EXISTS) ? g_steal_pointer(&beside) : NULL;
}

const char *record_input(const Record *r, bool trust) {
  const char *name = record_text(r, "file", "input");
  return trust && *name && g_file_test(name, G_FILE_TEST_EXISTS) ? name : r->beside;
}

Record *record_read(const char *path, GError **error) {
  g_autofree char *data = NULL;
  gsize bytes;
  if (!g_file_get_contents(path, &data, &bytes, error)) return NULL;
  const bool png = bytes && (guint8)*data == 0x89;
  char *text = png ? png_text_record((const guint8 *)data, bytes) : g_strndup(data, bytes);
  if (!text) {
    fail(path, "the picture holds no record", error);
    return NULL;
  }
  Record *r = record_parse(text, error);
  if (!r) {
    g_prefix_error(error, "%s: ", path);
    return NULL;
  }
  if (png) r->image = g_strdup(path);
  if (!png && g_str_has_suffix(path, ".json")) r->image = g_strndup(path, strlen(path) - strlen(".json"));
  if (r->image && !g_file_test(r->image, G_FILE_TEST_EXISTS)) g_clear_pointer(&r->image, g_free);
  r->beside = find_beside(r, path);
  return r;
}

/* ---- Comparing ---- */

/* The first characters. */
static char *beginning(const char *text, int most) {
  return g_utf8_strlen(text, -1) > most ? g_utf8_substring(text, 0, most) : g_strdup(text);
}

static void differ(GPtrArray *list, const char *what, const char *expected, const char *found) {
  if (!strcmp(expected, found)) return;
  const bool hashes = strlen(expected) == 64 && strlen(found) == 64;
  const int most = hashes ? SHOWN : 200;
  g_autofree char *a = beginning(expected, most), *b = beginning(found, most);
  g_ptr_array_add(list, g_strdup_printf("%s: expected %s, found %s", what, a, b));
}

static void compare(GPtrArray *list, const Record *a, const Record *b, const char *what, const char *member,
                    const char *name) {
  differ(list, what, record_text(a, member, name), record_text(b, member, name));
}

/* Name -> hash of the model's files. */
static GHashTable *files_of(const Record *r) {
  GHashTable *table = g_hash_table_new(g_str_hash, g_str_equal);
  JsonObject *model = object_in(r->top, "model");
  JsonNode *node = model ? json_object_get_member(model, "files") : NULL;
  JsonArray *files = node && JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node) : NULL;
  for (guint i = 0; files && i < json_array_get_length(files); i++) {
    JsonNode *one = json_array_get_element(files, i);
    JsonObject *file = JSON_NODE_HOLDS_OBJECT(one) ? json_node_get_object(one) : NULL;
    const char *sampled = text_in(file, "sha256-sampled");
    if (*text_in(file, "file"))
      g_hash_table_insert(table, (gpointer)text_in(file, "file"),
                          (gpointer)(*sampled ? sampled : text_in(file, "sha256")));
  }
  return table;
}

static int by_text(gconstpointer a, gconstpointer b) {
  return strcmp(a, b);
}

static void compare_files(GPtrArray *list, const Record *expected, const Record *found) {
  g_autoptr(GHashTable) a = files_of(expected), b = files_of(found);
  g_autoptr(GList) names = g_list_sort(g_hash_table_get_keys(a), by_text);
  for (GList *it = names; it; it = it->next) {
    const char *other = g_hash_table_lookup(b, it->data);
    g_autofree char *what = g_strdup_printf("model, %s", (char *)it->data);
    differ(list, what, g_hash_table_lookup(a, it->data), other ? other : "no such file");
  }
}

/* "HASH at WEIGHT, ..." (transfer full) */
static char *adapters_of(const Record *r) {
  JsonNode *node = json_object_get_member(r->top, "loras");
  JsonArray *list = node && JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node) : NULL;
  GString *text = g_string_new(NULL);
  for (guint i = 0; list && i < json_array_get_length(list); i++) {
    JsonNode *one = json_array_get_element(list, i);
    JsonObject *adapter = JSON_NODE_HOLDS_OBJECT(one) ? json_node_get_object(one) : NULL;
    g_string_append_printf(text, "%s%.*s at %s", i ? ", " : "", SHOWN, text_in(adapter, "sha256"),
                           text_in(adapter, "weight"));
  }
  return g_string_free(text, FALSE);
}

static void compare_adapters(GPtrArray *list, const Record *expected, const Record *found) {
  g_autofree char *a = adapters_of(expected), *b = adapters_of(found);
  differ(list, "adapters", *a ? a : "none", *b ? b : "none");
}

/* Hashes of the pictures beside the frame, in order. (transfer full) */
static char *references_of(const Record *r) {
  GString *text = g_string_new(NULL);
  JsonNode *node = json_object_get_member(r->top, "references");
  for (guint i = 0; i < record_count(r, "references"); i++) {
    JsonNode *one = json_array_get_element(json_node_get_array(node), i);
    JsonObject *picture = JSON_NODE_HOLDS_OBJECT(one) ? json_node_get_object(one) : NULL;
    g_string_append_printf(text, "%s%.*s", i ? ", " : "", SHOWN, text_in(picture, "sha256"));
  }
  return g_string_free(text, FALSE);
}

static void compare_references(GPtrArray *list, const Record *expected, const Record *found) {
  g_autofree char *a = references_of(expected), *b = references_of(found);
  differ(list, "references", *a ? a : "none", *b ? b : "none");
}

/* Values of "settings" and "options" that matter: those that both have, where the result may depend on them;
 * files count by their hashes, not by their names. */
static void compare_values(GPtrArray *list, const Record *a, const Record *b, const char *member) {
  static const char *const where[] = {"cuda-device-id", "threads", "max-vram", NULL};
  JsonObject *all = object_in(a->top, member), *others = object_in(b->top, member);
  g_autoptr(GList) names = all ? json_object_get_members(all) : NULL;
  for (GList *it = names; it; it = it->next)
    if (others && json_object_has_member(others, it->data) && !g_strv_contains(where, it->data) &&
        !tool_names_file(it->data, strlen(it->data)))
      differ(list, it->data, text_in(all, it->data), text_in(others, it->data));
}

GPtrArray *record_differences(const Record *a, const Record *b) {
  GPtrArray *list = g_ptr_array_new_with_free_func(g_free);
  compare(list, a, b, "input", "input", "sha256");
  compare(list, a, b, "mask", "mask", "sha256");
  compare_references(list, a, b);
  compare_values(list, a, b, "options");
  compare_values(list, a, b, "settings");
  compare_files(list, a, b);
  compare_adapters(list, a, b);
  if (!list->len) compare(list, a, b, "model", "model", "sha256");
  compare(list, a, b, "version", "versions", "fluxkontext");
  compare(list, a, b, "determinism class", "class", NULL);
  compare(list, a, b, "decisions", "ran", "mask");
  compare(list, a, b, "result", "result", "sha256");
  return list;
}
