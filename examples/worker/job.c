/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the queue; see job.h. */
#include "job.h"

#include "json.h"
#include "tool.h"

#include <json-glib/json-glib.h>
#include <string.h>

#define FORM 1
#define DEPTH 16 /* json-glib follows nesting with the stack */

static bool refuse(GError **error, const char *what) {
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "job: %s", what);
  return false;
}

/* (nullable) the object at the top */
static JsonObject *parse(JsonParser *parser, const char *text, GError **error) {
  if (!g_utf8_validate(text, -1, NULL) || !json_is_shallow(text, strlen(text), DEPTH)) {
    refuse(error, "expected JSON text in UTF-8, nested at most 16 deep");
    return NULL;
  }
  if (!json_parser_load_from_data(parser, text, -1, error)) return NULL;
  JsonNode *root = json_parser_get_root(parser);
  if (root && JSON_NODE_HOLDS_OBJECT(root)) return json_node_get_object(root);
  refuse(error, "expected an object");
  return NULL;
}

/* (nullable) (transfer none) */
static const char *text_of(JsonObject *o, const char *name) {
  JsonNode *node = json_object_get_member(o, name);
  return node && JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_STRING
             ? json_node_get_string(node)
             : NULL;
}

static bool read_settings(JobMessage *m, JsonObject *top, GError **error) {
  JsonNode *node = json_object_get_member(top, "settings");
  if (!node) return true;
  if (!JSON_NODE_HOLDS_OBJECT(node)) return refuse(error, "\"settings\": expected an object");
  JsonObject *settings = json_node_get_object(node);
  g_autoptr(GList) names = json_object_get_members(settings);
  for (GList *it = names; it; it = it->next) {
    const char *value = text_of(settings, it->data);
    if (!value) return refuse(error, "\"settings\": expected texts");
    if (!tool_set_foreign(m->settings, it->data, value, error)) return false;
  }
  return fk_settings_check(m->settings, error);
}

static bool read_message(JobMessage *m, const char *text, size_t bytes, GError **error) {
  if (strlen(text) != bytes) return refuse(error, "a NUL in the text");
  g_autoptr(JsonParser) parser = json_parser_new();
  g_autoptr(GError) problem = NULL;
  JsonObject *top = parse(parser, text, &problem);
  if (!top) return refuse(error, problem->message);
  m->input = g_strdup(text_of(top, "input"));
  m->output = g_strdup(text_of(top, "output"));
  m->class = g_strdup(text_of(top, "class"));
  JsonNode *form = json_object_get_member(top, "fluxkontext-job");
  if (!form || !JSON_NODE_HOLDS_VALUE(form) || json_node_get_int(form) != FORM)
    return refuse(error, "expected \"fluxkontext-job\": 1");
  if (!m->input || !m->output) return refuse(error, "expected \"input\" and \"output\"");
  return read_settings(m, top, error);
}

JobMessage *job_message_read(const char *text, size_t bytes, GError **error) {
  JobMessage *m = g_new0(JobMessage, 1);
  m->settings = fk_settings_new();
  read_message(m, text, bytes, error);
  return m;
}

void job_message_free(JobMessage *m) {
  if (!m) return;
  g_free(m->input);
  g_free(m->output);
  g_free(m->class);
  fk_settings_free(m->settings);
  g_free(m);
}

char *job_message_write(const char *input, const char *output, const char *class, const FkSettings *settings) {
  Json j = {.text = g_string_new(NULL), .line = TRUE};
  size_t n;
  const FkProperty *p = fk_properties(&n);
  json_open(&j, NULL, '{');
  json_count(&j, "fluxkontext-job", FORM);
  json_text(&j, "input", input);
  json_text(&j, "output", output);
  if (class) json_text(&j, "class", class);
  json_open(&j, "settings", '{');
  for (size_t i = 0; i < n; i++) {
    const char *value = p[i].scope == FK_SCOPE_SETTING ? fk_settings_get(settings, p[i].name) : NULL;
    if (value && g_strcmp0(value, p[i].initial)) json_text(&j, p[i].name, value);
  }
  json_close(&j, '}');
  json_close(&j, '}');
  return g_string_free(j.text, FALSE);
}

char *job_json_member(const char *text, const char *object, const char *member) {
  g_autoptr(JsonParser) parser = json_parser_new();
  JsonObject *top = parse(parser, text, NULL);
  JsonNode *node = top ? json_object_get_member(top, object) : NULL;
  return node && JSON_NODE_HOLDS_OBJECT(node) ? g_strdup(text_of(json_node_get_object(node), member)) : NULL;
}
