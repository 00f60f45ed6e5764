/* SPDX-License-Identifier: Apache-2.0 */
/* What a model folder holds, read from its own headers and tokenizer files after an engine has checked them. */
#include "doctor.h"
#include "json.h"

#include <json-glib/json-glib.h>
#include <stdio.h>
#include <string.h>

enum { MAX_HEADER = 100000000 }; /* bytes, the format's limit */

typedef struct {
  int files;
  gint64 tensors, values;
  double bytes;
  GHashTable *types; /* "BF16" -> number of tensors */
} Part;

/* (transfer none, nullable): the parser's. The text is a model's, which is not trusted. */
static JsonNode *parse(JsonParser *parser, const char *text, gsize bytes) {
  return text && json_is_shallow(text, bytes, JSON_DEPTH) &&
                 json_parser_load_from_data(parser, text, (gssize)bytes, NULL)
             ? json_parser_get_root(parser)
             : NULL;
}

static JsonNode *parse_file(JsonParser *parser, const char *path) {
  g_autoptr(GMappedFile) file = g_mapped_file_new(path, FALSE, NULL);
  return file ? parse(parser, g_mapped_file_get_contents(file), g_mapped_file_get_length(file)) : NULL;
}

static JsonObject *object_of(JsonNode *node) {
  return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

/* "" where there is no such text. (transfer none): the object's */
static const char *text_in(JsonObject *o, const char *name) {
  JsonNode *node = json_object_get_member(o, name);
  return node && JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_STRING
             ? json_node_get_string(node)
             : "";
}

/* NULL where there is none of at least so many elements, all numbers. */
static JsonArray *numbers_in(JsonObject *o, const char *name, guint least) {
  JsonNode *node = json_object_get_member(o, name);
  JsonArray *array = node && JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node) : NULL;
  const guint n = array ? json_array_get_length(array) : 0;
  for (guint i = 0; i < n; i++)
    if (!JSON_NODE_HOLDS_VALUE(json_array_get_element(array, i))) return NULL;
  return n >= least ? array : NULL;
}

/* What describes no tensor is not counted. */
static void count_tensor(JsonObject *object, const char *name, JsonNode *node, gpointer data) {
  Part *part = data;
  (void)object;
  if (!strcmp(name, "__metadata__") || !JSON_NODE_HOLDS_OBJECT(node)) return;
  JsonObject *tensor = json_node_get_object(node);
  JsonArray *shape = numbers_in(tensor, "shape", 0), *range = numbers_in(tensor, "data_offsets", 2);
  const char *type = text_in(tensor, "dtype");
  double values = 1;
  if (!shape || !range) return;
  for (guint i = 0; i < json_array_get_length(shape); i++) values *= json_array_get_double_element(shape, i);
  part->tensors++;
  part->values += values < 9e18 ? (gint64)values : 0;
  part->bytes += json_array_get_double_element(range, 1) - json_array_get_double_element(range, 0);
  const int seen = GPOINTER_TO_INT(g_hash_table_lookup(part->types, type));
  g_hash_table_insert(part->types, g_strdup(type), GINT_TO_POINTER(seen + 1));
}

/* Of a safetensors file: 8 bytes with the length of a JSON header, then that. (transfer none): the parser's. NULL: none
 */
static JsonObject *header_of(GMappedFile *file, JsonParser *parser) {
  guint64 length = 0;
  if (g_mapped_file_get_length(file) < 8) return NULL;
  memcpy(&length, g_mapped_file_get_contents(file), 8);
  length = GUINT64_FROM_LE(length);
  if (length > MAX_HEADER || length > g_mapped_file_get_length(file) - 8) return NULL;
  return object_of(parse(parser, g_mapped_file_get_contents(file) + 8, length));
}

static bool count_file(const char *path, Part *part) {
  g_autoptr(GMappedFile) file = g_mapped_file_new(path, FALSE, NULL);
  g_autoptr(JsonParser) parser = json_parser_new();
  JsonObject *header = file ? header_of(file, parser) : NULL;
  if (!header) return false;
  json_object_foreach_member(header, count_tensor, part);
  part->files++;
  return true;
}

/* "BF16", or "BF16 (200), F32 (4)". (transfer full) */
static char *types_text(GHashTable *types) {
  GHashTableIter iter;
  gpointer name, count;
  GString *text = g_string_new(NULL);
  g_hash_table_iter_init(&iter, types);
  while (g_hash_table_iter_next(&iter, &name, &count)) {
    g_string_append_printf(text, "%s%s", text->len ? ", " : "", (char *)name);
    if (g_hash_table_size(types) > 1) g_string_append_printf(text, " (%d)", GPOINTER_TO_INT(count));
  }
  return g_string_free(text, FALSE);
}

static void print_part(const char *label, const Part *part) {
  char buffer[32];
  g_autofree char *types = part->types ? types_text(part->types) : g_strdup("");
  printf("  %-18s %5d %8" G_GINT64_FORMAT " %15" G_GINT64_FORMAT " %11s  %s\n", label, part->files, part->tensors,
         part->values, doctor_bytes(part->bytes, buffer, sizeof buffer), types);
}

static int by_name(gconstpointer a, gconstpointer b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names in a folder, sorted. (transfer full) */
static GPtrArray *names_in(const char *folder) {
  GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
  g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
  for (const char *name; dir && (name = g_dir_read_name(dir));) g_ptr_array_add(names, g_strdup(name));
  g_ptr_array_sort(names, by_name);
  return names;
}

/* The weight files of one folder, or of the model's own. */
static void report_part(const char *folder, const char *label, Part *total) {
  g_autoptr(GPtrArray) names = names_in(folder);
  g_autoptr(GHashTable) types = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  Part part = {.types = types};
  for (guint i = 0; i < names->len; i++) {
    g_autofree char *path = g_build_filename(folder, names->pdata[i], NULL);
    if (g_str_has_suffix(path, ".safetensors") && !count_file(path, &part)) printf("  %s: no header\n", path);
  }
  if (!part.files) return;
  print_part(label, &part);
  total->files += part.files;
  total->tensors += part.tensors;
  total->values += part.values;
  total->bytes += part.bytes;
}

/* Members of an object, or elements of an array, at a path such as "model/vocab"; -1: not there. */
static int entries_at(const char *file, const char *path) {
  g_autoptr(JsonParser) parser = json_parser_new();
  JsonNode *node = parse_file(parser, file);
  g_auto(GStrv) steps = g_strsplit(path, "/", -1);
  for (char **step = steps; *step && node; step++) {
    JsonObject *object = JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
    if (**step) node = object ? json_object_get_member(object, *step) : NULL;
  }
  if (node && JSON_NODE_HOLDS_OBJECT(node)) return (int)json_object_get_size(json_node_get_object(node));
  return node && JSON_NODE_HOLDS_ARRAY(node) ? (int)json_array_get_length(json_node_get_array(node)) : -1;
}

static void report_tokenizer(const char *folder, const char *name) {
  g_autofree char *own = g_build_filename(folder, name, NULL), *vocab = g_build_filename(own, "vocab.json", NULL);
  g_autofree char *whole = g_build_filename(own, "tokenizer.json", NULL);
  g_autoptr(GPtrArray) names = names_in(own);
  int tokens = entries_at(vocab, "");
  if (tokens < 0) tokens = entries_at(whole, "model/vocab");
  if (!names->len) return;
  printf("  %-18s", name);
  if (tokens > 0) printf(" %d tokens;", tokens);
  for (guint i = 0; i < names->len; i++) printf("%s %s", i ? "," : "", (char *)names->pdata[i]);
  printf("\n");
}

char *doctor_pipeline(const char *folder) {
  g_autofree char *path = g_build_filename(folder, "model_index.json", NULL);
  g_autoptr(JsonParser) parser = json_parser_new();
  JsonObject *o = object_of(parse_file(parser, path));
  const char *name = o ? text_in(o, "_class_name") : "";
  return *name ? g_strdup(name) : NULL;
}

static const char *metadata(JsonObject *header, const char *key) {
  JsonNode *node = json_object_get_member(header, "__metadata__");
  JsonObject *o = node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
  return o ? text_in(o, key) : "";
}

bool doctor_packed(const char *path) {
  g_autoptr(GMappedFile) file = g_mapped_file_new(path, FALSE, NULL);
  g_autoptr(JsonParser) parser = json_parser_new();
  JsonObject *header = file ? header_of(file, parser) : NULL;
  return header && *metadata(header, "fluxkontext.pack");
}

/* A packed model says what it is; the engine has checked it. */
static void report_packed(const char *path) {
  g_autoptr(GMappedFile) file = g_mapped_file_new(path, FALSE, NULL);
  g_autoptr(JsonParser) parser = json_parser_new();
  JsonObject *header = file ? header_of(file, parser) : NULL;
  char size[32];
  if (!header) return;
  g_autofree char *options = g_strdelimit(g_strchomp(g_strdup(metadata(header, "fluxkontext.options"))), "\n", ' ');
  printf("\nmodel      %s, packed for %s, %s, by version %s, %s\n", path, metadata(header, "fluxkontext.values"),
         options, metadata(header, "fluxkontext.version"),
         doctor_bytes((double)g_mapped_file_get_length(file), size, sizeof size));
  g_auto(GStrv) sources = g_strsplit(metadata(header, "fluxkontext.sources"), "\n", -1);
  for (char **line = sources; *line && **line; line++) printf("  made of %s\n", *line);
  const char *adapters = metadata(header, "fluxkontext.adapters");
  if (*adapters) printf("  with adapters merged: %s\n", adapters);
}

void doctor_model(const char *folder) {
  if (!g_file_test(folder, G_FILE_TEST_IS_DIR)) {
    g_autofree char *text = doctor_packed(folder) ? NULL : fk_describe_file(folder, NULL);
    if (text)
      printf("\n%s", text);
    else
      report_packed(folder);
    return;
  }

  static const char *const parts[] = {"transformer", "text_encoder", "text_encoder_2", "vae"};
  g_autofree char *pipeline = doctor_pipeline(folder);
  Part total = {0};
  printf("\nmodel      %s%s%s\n", folder, pipeline ? ", " : "", pipeline ? pipeline : "");
  printf("  %-18s %5s %8s %15s %11s  %s\n", "weights", "files", "tensors", "values", "bytes", "types");
  for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
    g_autofree char *path = g_build_filename(folder, parts[i], NULL);
    report_part(path, parts[i], &total);
  }
  print_part("in all", &total);
  Part beside = {0};
  report_part(folder, "beside, not read", &beside);
  report_tokenizer(folder, "tokenizer");
  report_tokenizer(folder, "tokenizer_2");
}
