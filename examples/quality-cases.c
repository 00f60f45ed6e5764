/* SPDX-License-Identifier: Apache-2.0 */
/* Reads cases, settings and pictures; see quality-cases.h. */
#include "quality-cases.h"

#include "picture.h"

#include <json-glib/json-glib.h>
#include <string.h>

const char *const quality_tier_names[QUALITY_TIERS + 1] = {"named", "vague", "open", "local", "global", NULL};
const char *const quality_tier_titles[QUALITY_TIERS] = {
    "Named edits: one right answer", "Vague edits: several answers", "Open edits: the noise decides",
    "Local edits: a part of the picture", "Global edits: the whole picture"};

static void case_free(gpointer data) {
  QualityCase *c = data;
  g_free(c->id);
  g_free(c->kind);
  g_free(c->prompt);
  g_free(c->input);
  g_free(c->target);
  g_free(c->seed);
  g_free(c);
}

void quality_setting_free(gpointer data) {
  QualitySetting *s = data;
  if (!s) return;
  g_free(s->name);
  g_free(s->text);
  g_free(s->options);
  g_strfreev(s->pairs);
  g_free(s);
}

static int tier_index(const char *name) {
  for (int i = 0; i < QUALITY_TIERS; i++)
    if (!g_strcmp0(quality_tier_names[i], name)) return i;
  return -1;
}

unsigned quality_tiers_parse(const char *text, GError **error) {
  g_auto(GStrv) names = g_strsplit_set(text, ", ", -1);
  unsigned tiers = 0;
  for (char **p = names; *p; p++) {
    if (!**p) continue;
    const int i = tier_index(*p);
    if (i < 0) {
      g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "tier \"%s\": expected named, vague, open, local or global",
                  *p);
      return 0;
    }
    tiers |= 1u << i;
  }
  if (!tiers) g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD, "no tier is named");
  return tiers;
}

static const char *text_of(JsonObject *o, const char *name) {
  return json_object_get_string_member_with_default(o, name, NULL);
}

static bool case_read(JsonNode *node, const char *folder, GPtrArray *cases) {
  JsonObject *o = JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
  if (!o) return false;
  const int tier = tier_index(text_of(o, "tier"));
  const char *target = text_of(o, "target");
  if (tier < 0 || !text_of(o, "id") || !text_of(o, "kind") || !text_of(o, "prompt") || !text_of(o, "input"))
    return false;
  QualityCase *c = g_new0(QualityCase, 1);
  c->tier = (QualityTier)tier;
  c->id = g_strdup(text_of(o, "id"));
  c->kind = g_strdup(text_of(o, "kind"));
  c->prompt = g_strdup(text_of(o, "prompt"));
  c->input = g_canonicalize_filename(text_of(o, "input"), folder);
  c->target = target ? g_canonicalize_filename(target, folder) : NULL;
  c->seed = g_strdup_printf("%" G_GINT64_FORMAT, json_object_get_int_member_with_default(o, "seed", 0));
  c->ceiling = json_object_get_double_member_with_default(o, "ceiling", 0);
  g_ptr_array_add(cases, c);
  return true;
}

GPtrArray *quality_cases_read(const char *path, GError **error) {
  g_autoptr(JsonParser) parser = json_parser_new();
  if (!json_parser_load_from_file(parser, path, error)) return NULL;
  JsonNode *root = json_parser_get_root(parser);
  JsonArray *list = root && JSON_NODE_HOLDS_ARRAY(root) ? json_node_get_array(root) : NULL;
  g_autoptr(GPtrArray) cases = g_ptr_array_new_with_free_func(case_free);
  g_autofree char *below = g_path_get_dirname(path), *folder = g_canonicalize_filename(below, NULL);
  for (guint i = 0; list && i < json_array_get_length(list); i++)
    if (!case_read(json_array_get_element(list, i), folder, cases)) {
      g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: case %u lacks tier, id, kind, prompt or input", path, i);
      return NULL;
    }
  if (cases->len) return g_steal_pointer(&cases);
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: no list of cases", path);
  return NULL;
}

/* ---- Cases of a folder ---- */

/* prompts.txt by lines; a missing file has the usual ones. (transfer full) */
static char **prompts_of(const char *folder, GError **error) {
  g_autofree char *path = g_build_filename(folder, "prompts.txt", NULL), *text = NULL;
  g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func(g_free);
  if (!g_file_test(path, G_FILE_TEST_EXISTS))
    return g_strsplit("make it night|make it look like an oil painting|add a red hat", "|", -1);
  if (!g_file_get_contents(path, &text, NULL, error)) return NULL;
  g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
  for (char **p = lines; *p; p++)
    if (*g_strstrip(*p)) g_ptr_array_add(list, g_strdup(*p));
  if (!list->len) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: no prompt; expected one on each line", path);
    return NULL;
  }
  g_ptr_array_add(list, NULL);
  return g_strdupv((char **)list->pdata);
}

static int by_text(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_picture(const char *name) {
  g_autofree char *lower = g_ascii_strdown(name, -1);
  return g_str_has_suffix(lower, ".png") || g_str_has_suffix(lower, ".jpg") || g_str_has_suffix(lower, ".jpeg");
}

static QualityCase *open_case(const char *folder, const char *file, const char *prompt, int number) {
  QualityCase *c = g_new0(QualityCase, 1);
  c->tier = QUALITY_OPEN;
  c->id = g_strdup_printf("%s-%d", file, number);
  c->kind = g_strdup("open");
  c->prompt = g_strdup(prompt);
  c->input = g_build_filename(folder, file, NULL);
  c->seed = g_strdup("0");
  return c;
}

GPtrArray *quality_cases_folder(const char *folder, GError **error) {
  g_autoptr(GDir) dir = g_dir_open(folder, 0, error);
  g_auto(GStrv) prompts = dir ? prompts_of(folder, error) : NULL;
  g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func(g_free);
  if (!prompts) return NULL;
  for (const char *file; (file = g_dir_read_name(dir));)
    if (is_picture(file)) g_ptr_array_add(files, g_strdup(file));
  g_ptr_array_sort(files, by_text);
  GPtrArray *cases = g_ptr_array_new_with_free_func(case_free);
  for (guint i = 0; i < files->len; i++)
    for (int k = 0; prompts[k]; k++) g_ptr_array_add(cases, open_case(folder, files->pdata[i], prompts[k], k + 1));
  if (cases->len) return cases;
  g_ptr_array_unref(cases);
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: no PNG or JPEG picture", folder);
  return NULL;
}

/* ---- Settings ---- */

QualitySetting *quality_setting_new(const char *name, const char *text, unsigned tiers) {
  QualitySetting *s = g_new0(QualitySetting, 1);
  s->name = g_strdup(name);
  s->text = g_strdup(text);
  s->options = g_strdup("");
  s->pairs = g_new0(char *, 1);
  s->tiers = tiers;
  return s;
}

/* A pair that opens an engine is kept apart; one of a row that is both goes to both. */
static bool take_pair(QualitySetting *s, GPtrArray *pairs, GString *options, const char *text, GError **error) {
  g_autoptr(FkSettings) settings = fk_settings_new();
  g_autoptr(FkOptions) probe = fk_options_new();
  g_auto(GStrv) pair = g_strsplit(text, "=", 2);
  if (!pair[0] || !pair[1]) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: \"%s\": expected property=value", s->name, text);
    return false;
  }
  if (!fk_set(probe, settings, pair[0], pair[1], error)) {
    g_prefix_error(error, "%s: ", s->name);
    return false;
  }
  if (fk_settings_set(settings, pair[0], pair[1], NULL)) g_ptr_array_add(pairs, g_strdup(text));
  if (fk_options_set(probe, pair[0], pair[1], NULL) && strcmp(pair[0], "preset"))
    g_string_append_printf(options, "%s%s", options->len ? " " : "", text);
  return true;
}

bool quality_options_apply(const char *text, FkOptions *options, GError **error) {
  g_auto(GStrv) list = g_strsplit(text, " ", -1);
  for (char **p = list; *p; p++) {
    g_auto(GStrv) pair = g_strsplit(*p, "=", 2);
    if (**p && !fk_options_set(options, pair[0], pair[1], error)) return false;
  }
  return true;
}

QualitySetting *quality_setting_parse(const char *line, unsigned tiers, GError **error) {
  const char *colon = strchr(line, ':');
  if (!colon || colon == line) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "\"%s\": expected \"name: property=value ...\"", line);
    return NULL;
  }
  g_autofree char *name = g_strndup(line, (gsize)(colon - line)), *text = g_strstrip(g_strdup(colon + 1));
  QualitySetting *s = quality_setting_new(name, text, tiers);
  g_auto(GStrv) list = g_strsplit(s->text, " ", -1);
  g_autoptr(GPtrArray) pairs = g_ptr_array_new();
  g_autoptr(GString) options = g_string_new(NULL);
  if (g_str_has_prefix(s->text, "steps=") && !list[1]) s->plain_steps = (int)g_ascii_strtoll(s->text + 6, NULL, 10);
  bool ok = true;
  for (char **p = list; ok && *p; p++) ok = take_pair(s, pairs, options, *p, error);
  g_ptr_array_add(pairs, NULL);
  g_strfreev(s->pairs);
  s->pairs = g_strdupv((char **)pairs->pdata);
  g_strfreev((char **)g_ptr_array_free(g_steal_pointer(&pairs), FALSE));
  g_free(s->options);
  s->options = g_strdup(options->str);
  if (ok) return s;
  quality_setting_free(s);
  return NULL;
}

GPtrArray *quality_settings_read(const char *path, GError **error) {
  g_autofree char *text = NULL;
  if (!g_file_get_contents(path, &text, NULL, error)) return NULL;
  g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
  g_autoptr(GPtrArray) settings = g_ptr_array_new_with_free_func(quality_setting_free);
  unsigned tiers = (1u << QUALITY_TIERS) - 1;
  for (char **p = lines; *p; p++) {
    const char *line = g_strstrip(*p);
    const size_t length = strlen(line);
    if (!length || *line == '#') continue;
    if (*line == '[' && line[length - 1] == ']') {
      g_autofree char *inside = g_strndup(line + 1, length - 2);
      if (!(tiers = quality_tiers_parse(inside, error))) return NULL;
      continue;
    }
    QualitySetting *s = quality_setting_parse(line, tiers, error);
    if (!s) return NULL;
    g_ptr_array_add(settings, s);
  }
  if (settings->len) return g_steal_pointer(&settings);
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: no settings", path);
  return NULL;
}

FkSettings *quality_settings_apply(const QualitySetting *setting, const QualityCase *c, GError **error) {
  g_autoptr(FkSettings) s = fk_settings_new();
  /* Without the prompt cache every edit counts the same FLOP, whatever came before it. */
  const char *const fixed[][2] = {
      {"preset", "exact"}, {"prompt-cache", "off"}, {"prompt", c->prompt}, {"seed", c->seed}};
  for (size_t i = 0; i < G_N_ELEMENTS(fixed); i++)
    if (!fk_settings_set(s, fixed[i][0], fixed[i][1], error)) return NULL;
  for (char **p = setting ? setting->pairs : NULL; p && *p; p++) {
    g_auto(GStrv) pair = g_strsplit(*p, "=", 2);
    if (!fk_settings_set(s, pair[0], pair[1], error)) return NULL;
  }
  if (!fk_settings_check(s, error)) {
    g_prefix_error(error, "%s: ", setting ? setting->name : "exact");
    return NULL;
  }
  return g_steal_pointer(&s);
}

bool quality_picture_read(const char *path, FkImage *image, GError **error) {
  if (!fk_image_read(path, image, error)) return false;
  if (image->channels == 3) return true;
  const size_t count = (size_t)image->width * (size_t)image->height;
  for (size_t i = 0; i < count; i++) memmove(image->data + 3 * i, image->data + 4 * i, 3);
  image->channels = 3;
  image->stride = (size_t)image->width * 3;
  return true;
}
