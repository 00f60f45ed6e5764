/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of works; see items.h. */
#include "items.h"

#include "../json.h"
#include "../tool.h"

#include <glib/gstdio.h>
#include <glob.h>
#include <json-glib/json-glib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LIST_BYTES = 1 << 30 };

typedef struct {
  const ItemsRules *rules;
  GPtrArray *works, *films;
} Items;

static bool fail(GError **error, const char *name, guint line, const char *format, ...) G_GNUC_PRINTF(4, 5);
static bool fail(GError **error, const char *name, guint line, const char *format, ...) {
  va_list list;
  va_start(list, format);
  g_autofree char *what = g_strdup_vprintf(format, list), *shown = g_filename_display_name(name);
  va_end(list);
  if (line)
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s:%u: %s", shown, line, what);
  else
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: %s", shown, what);
  return false;
}

void items_film_free(ItemsFilm *film) {
  g_free(film->name);
  g_free(film->reason);
  g_free(film);
}

/* ---- One ---- */

static void add_film(Items *items, const char *path, const FkSettings *settings) {
  g_autofree char *quoted = g_shell_quote(path), *prompt = g_shell_quote(fk_settings_get(settings, "prompt"));
  ItemsFilm *film = g_new(ItemsFilm, 1);
  film->name = g_strdup(path);
  film->reason = g_strdup_printf(
      "a video; its frames are edited by: gst-launch-1.0 filesrc location=%s ! decodebin ! videoconvert ! "
      "fluxkontextedit model-path=FOLDER prompt=%s ! videoconvert ! x264enc ! mp4mux ! filesink location=OUT.mp4",
      quoted, prompt);
  g_ptr_array_add(items->films, film);
}

/* below: name of the result below the folder, with the input's ending or, `given`, with its own. */
static void add(Items *items, const char *path, const char *below, bool given, const FkSettings *settings) {
  g_autoptr(GString) name = g_string_new(below);
  char *const slash = strrchr(name->str, '/'), *const dot = strrchr(slash ? slash : name->str, '.');
  const bool gif = dot && !g_ascii_strcasecmp(dot, ".gif");
  const char *format = items->rules->format ? items->rules->format : gif || !dot ? "png" : NULL;
  if (photo_is_video(path)) {
    add_film(items, path, settings);
    return;
  }
  if (!given && format) {
    if (dot) g_string_truncate(name, (gsize)(dot - name->str));
    g_string_append_printf(name, ".%s", format);
  }
  g_autofree char *out = g_build_filename(items->rules->out, name->str, NULL);
  g_ptr_array_add(items->works, work_new(path, out, settings));
}

static void add_file(Items *items, const char *path, const FkSettings *settings) {
  g_autofree char *base = g_path_get_basename(path);
  add(items, path, base, false, settings);
}

/* ---- Folders ---- */

static int by_name(gconstpointer a, gconstpointer b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorted by bytes: the order does not follow the file system or the locale. */
static bool add_folder(Items *items, const char *top, const char *below, GError **error) {
  g_autofree char *folder = g_build_filename(top, below, NULL);
  g_autoptr(GDir) dir = g_dir_open(folder, 0, error);
  g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
  const char *name;
  if (!dir) return false;
  while ((name = g_dir_read_name(dir)))
    if (*name != '.') g_ptr_array_add(names, g_strdup(name));
  g_ptr_array_sort(names, by_name);
  for (guint i = 0; i < names->len; i++) {
    g_autofree char *inner = *below ? g_build_filename(below, names->pdata[i], NULL) : g_strdup(names->pdata[i]),
                    *path = g_build_filename(top, inner, NULL);
    if (g_file_test(path, G_FILE_TEST_IS_DIR)) {
      const bool link = g_file_test(path, G_FILE_TEST_IS_SYMLINK); /* may lead round in a circle */
      if (items->rules->recursive && !link && !add_folder(items, top, inner, error)) return false;
    } else if (photo_is_picture(path) || photo_is_video(path)) {
      add(items, path, inner, false, items->rules->settings);
    }
  }
  return true;
}

/* ---- Lists ---- */

static char *read_list(const char *name, gsize *bytes, GError **error) {
  char *text = NULL;
  if (strcmp(name, "-")) return g_file_get_contents(name, &text, bytes, error) ? text : NULL;
  GString *all = g_string_new(NULL);
  char buffer[65536];
  size_t n;
  while ((n = fread(buffer, 1, sizeof buffer, stdin)) && all->len < LIST_BYTES)
    g_string_append_len(all, buffer, (gssize)n);
  *bytes = all->len;
  return g_string_free(all, FALSE);
}

/* Relative names of a list are below its folder; of standard input, below the working directory. */
static char *resolve(const char *list, const char *name) {
  g_autofree char *folder = g_path_get_dirname(list);
  return g_path_is_absolute(name) || !strcmp(list, "-") || !strcmp(folder, ".") ? g_strdup(name)
                                                                                : g_build_filename(folder, name, NULL);
}

/* A number or a text or true and false, as fk_settings_set takes it; NULL: null, or none of these (*bad). */
static char *value_text(JsonNode *node, bool *bad) {
  char digits[G_ASCII_DTOSTR_BUF_SIZE];
  *bad = false;
  if (JSON_NODE_HOLDS_NULL(node)) return NULL;
  if (JSON_NODE_HOLDS_VALUE(node)) switch (json_node_get_value_type(node)) {
    case G_TYPE_STRING: return g_strdup(json_node_get_string(node));
    case G_TYPE_INT64: return g_strdup_printf("%" G_GINT64_FORMAT, json_node_get_int(node));
    case G_TYPE_DOUBLE: return g_strdup(g_ascii_dtostr(digits, sizeof digits, json_node_get_double(node)));
    case G_TYPE_BOOLEAN: return g_strdup(json_node_get_boolean(node) ? "on" : "off");
    default: break;
    }
  *bad = true;
  return NULL;
}

static bool is_below(const char *name) {
  g_auto(GStrv) parts = g_strsplit(name, "/", -1);
  return !g_path_is_absolute(name) && *name && !g_strv_contains((const char *const *)parts, "..");
}

/* One line of JSON. Names of settings may be written with _ for -. */
static bool add_object(Items *items, const char *list, guint line, JsonObject *object, GError **error) {
  g_autoptr(FkSettings) settings = fk_settings_copy(items->rules->settings);
  g_autoptr(GList) names = json_object_get_members(object);
  g_autofree char *input = NULL, *output = NULL;
  for (GList *it = names; it; it = it->next) {
    bool bad;
    g_autofree char *value = value_text(json_object_get_member(object, it->data), &bad),
                    *name = g_strdelimit(g_strdup(it->data), "_", '-');
    g_autoptr(GError) problem = NULL;
    if (bad) return fail(error, list, line, "%s: expected a text, a number, true or false", (char *)it->data);
    if (!strcmp(name, "input"))
      input = g_steal_pointer(&value);
    else if (!strcmp(name, "output"))
      output = g_steal_pointer(&value);
    else if (!fk_settings_set(settings, name, value, &problem))
      return fail(error, list, line, "%s", problem->message);
  }
  if (!input || !*input) return fail(error, list, line, "expected \"input\", the name of a picture");
  if (output && !is_below(output)) return fail(error, list, line, "output \"%s\" is not below the folder", output);
  g_autofree char *path = resolve(list, input);
  if (output)
    add(items, path, output, true, settings);
  else
    add_file(items, path, settings);
  return true;
}

static bool add_json_line(Items *items, const char *list, guint line, const char *text, GError **error) {
  g_autoptr(JsonParser) parser = json_parser_new();
  g_autoptr(GError) problem = NULL;
  if (!json_is_shallow(text, strlen(text), JSON_DEPTH))
    return fail(error, list, line, "more than %d levels of brackets", JSON_DEPTH);
  if (!json_parser_load_from_data(parser, text, -1, &problem)) return fail(error, list, line, "%s", problem->message);
  JsonNode *root = json_parser_get_root(parser);
  if (!root || !JSON_NODE_HOLDS_OBJECT(root)) return fail(error, list, line, "expected a JSON object");
  return add_object(items, list, line, json_node_get_object(root), error);
}

static bool add_list(Items *items, const char *list, bool json, GError **error) {
  gsize bytes = 0, at = 0;
  g_autofree char *text = read_list(list, &bytes, error);
  const char end = items->rules->zero && !json ? '\0' : '\n';
  if (!text) return false;
  for (guint line = 1; at < bytes; line++) {
    char *one = text + at, *stop = memchr(one, end, bytes - at);
    const gsize length = stop ? (gsize)(stop - one) : bytes - at;
    at += length + 1;
    one[length] = 0;
    if (strlen(one) < length) return fail(error, list, line, "a NUL in a line; see --null");
    if (end == '\n' && g_str_has_suffix(one, "\r")) one[length - 1] = 0;
    if (!*one) continue;
    g_autofree char *path = json ? NULL : resolve(list, one);
    if (json && !add_json_line(items, list, line, one, error)) return false;
    if (!json) add_file(items, path, items->rules->settings);
  }
  return true;
}

/* ---- All ---- */

static bool add_pattern(Items *items, const char *pattern, GError **error) {
  glob_t found;
  const int status = glob(pattern, 0, NULL, &found);
  for (size_t i = 0; !status && i < found.gl_pathc; i++) add_file(items, found.gl_pathv[i], items->rules->settings);
  if (!status) globfree(&found);
  return !status || fail(error, pattern, 0, "no such file or folder, and no file matches it");
}

static bool ends(const char *name, const char *end) {
  return g_str_has_suffix(name, end);
}

static bool add_input(Items *items, const char *input, GError **error) {
  if (!strcmp(input, "-")) return add_list(items, input, false, error);
  if (!strcmp(input, "-.jsonl")) return add_list(items, "-", true, error);
  if (g_file_test(input, G_FILE_TEST_IS_DIR)) return add_folder(items, input, "", error);
  if (!g_file_test(input, G_FILE_TEST_EXISTS)) return add_pattern(items, input, error);
  if (ends(input, ".jsonl") || ends(input, ".txt")) return add_list(items, input, ends(input, ".jsonl"), error);
  add_file(items, input, items->rules->settings);
  return true;
}

/* Two results of one name, and results in the place of inputs. */
static bool check_names(const Items *items, GError **error) {
  g_autoptr(GHashTable) outputs = g_hash_table_new(g_str_hash, g_str_equal);
  for (guint i = 0; i < items->works->len; i++) {
    const Work *w = items->works->pdata[i], *other = g_hash_table_lookup(outputs, w->output);
    g_autofree char *out = g_filename_display_name(w->output), *in = g_filename_display_name(w->input);
    if (other) {
      g_autofree char *first = g_filename_display_name(other->input);
      return fail(error, w->output, 0, "the result of %s and of %s; name them in a list with \"output\"", first, in);
    }
    g_hash_table_insert(outputs, w->output, (gpointer)w);
    GStatBuf a, b;
    if (!g_stat(w->input, &a) && !g_stat(w->output, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
      return fail(error, w->output, 0, "would replace the picture itself; name another folder");
  }
  return true;
}

static void keep_shard(Items *items) {
  GPtrArray *kept = g_ptr_array_new_with_free_func((GDestroyNotify)work_free);
  for (guint i = 0; i < items->works->len; i++) {
    Work *w = items->works->pdata[i];
    if ((int)(i % (guint)items->rules->shards) == items->rules->shard - 1)
      g_ptr_array_add(kept, w);
    else
      work_free(w);
  }
  g_ptr_array_set_free_func(items->works, NULL);
  g_ptr_array_unref(items->works);
  items->works = kept;
  for (guint i = items->films->len; i-- > 0;)
    if ((int)(i % (guint)items->rules->shards) != items->rules->shard - 1) g_ptr_array_remove_index(items->films, i);
}

GPtrArray *items_list(char *const *inputs, const ItemsRules *rules, GPtrArray *films, GError **error) {
  Items items = {rules, g_ptr_array_new_with_free_func((GDestroyNotify)work_free), films};
  bool ok = true;
  for (; ok && *inputs; inputs++) ok = add_input(&items, *inputs, error);
  if (ok && !items.works->len && !films->len) {
    g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD, "nothing to do: no picture was named");
    ok = false;
  }
  if (ok && check_names(&items, error)) {
    keep_shard(&items);
    return items.works;
  }
  g_ptr_array_unref(items.works);
  return NULL;
}
