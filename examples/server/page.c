/* SPDX-License-Identifier: Apache-2.0 */
/* The page, the table of settings that it is made of, and the description of all routes. */
#include "api.h"
#include "resources.h"

#include <string.h>

void page_html(Exchange *x) {
  g_autoptr(GBytes) bytes = g_bytes_new_static(resource_page, strlen(resource_page));
  exchange_add(x, "Content-Security-Policy",
               "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; "
               "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'");
  exchange_bytes(x, 200, "text/html; charset=utf-8", bytes);
}

/* ---- GET /v1/settings ---- */

static void add_text(Json *j, const char *name, const char *value) {
  if (value)
    json_text(j, name, value);
  else
    json_raw(j, name, "null");
}

static void add_values(Json *j, const char *name, const FkProperty *p) {
  static const char *const on_off[] = {"auto", "on", "off", NULL}, *const boolean[] = {"true", "false", NULL};
  const char *const *values = p->kind == FK_KIND_SWITCH ? on_off : p->kind == FK_KIND_BOOL ? boolean : p->values;
  if (!values) return;
  json_open(j, name, '[');
  for (; *values; values++) json_text(j, NULL, *values);
  json_close(j, ']');
}

static void add_property(Json *j, const Server *server, const FkProperty *p) {
  static const char *const kinds[] = {"bool", "int", "uint64", "double", "string", "enum", "switch"};
  json_open(j, NULL, '{');
  json_text(j, "name", p->name);
  json_text(j, "nick", p->nick);
  json_text(j, "help", p->help);
  json_text(j, "kind", kinds[p->kind]);
  add_text(j, "default", fk_settings_get(server->defaults, p->name));
  add_text(j, "initial", p->initial);
  if (p->kind == FK_KIND_INT || p->kind == FK_KIND_DOUBLE) {
    json_number(j, "min", p->min);
    json_number(j, "max", p->max);
  }
  add_values(j, "values", p);
  json_close(j, '}');
}

/* Folders of this machine are told to its own users, for the line that repeats an edit: not where a token shows that
 * others may come. */
static void add_option(Json *j, const Server *server, const FkProperty *p, const char *value) {
  g_autofree char *base = server->token && p->file ? g_path_get_basename(value) : NULL;
  json_text(j, p->name, base ? base : value);
}

void page_settings(Exchange *x) {
  g_autoptr(GString) text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  const Server *server = x->server;
  size_t n;
  const FkProperty *p = fk_properties(&n);
  json_open(&j, NULL, '{');
  json_text(&j, "model", server->model);
  json_open(&j, "options", '{');
  for (size_t i = 0; i < n; i++) {
    const char *value = p[i].scope == FK_SCOPE_OPTION ? fk_options_get(server->options[0], p[i].name) : NULL;
    if (value && g_strcmp0(value, p[i].initial)) add_option(&j, server, &p[i], value);
  }
  json_close(&j, '}');
  json_open(&j, "properties", '[');
  for (size_t i = 0; i < n; i++)
    if (ask_is_setting(p[i].name)) add_property(&j, server, &p[i]);
  json_close(&j, ']');
  json_close(&j, '}');
  exchange_json(x, 200, text->str);
}

/* ---- GET /openapi.json ---- */

static void add_schema(Json *j, const FkProperty *p) {
  g_autofree char *name = g_strdelimit(g_strdup(p->name), "-", '_');
  json_open(j, name, '{');
  json_text(j, "description", p->help);
  if (p->kind == FK_KIND_BOOL) {
    json_text(j, "type", "boolean");
  } else if (p->kind == FK_KIND_STRING) {
    json_text(j, "type", "string");
  } else if (p->kind == FK_KIND_UINT64) {
    json_text(j, "type", "integer");
    json_count(j, "minimum", 0);
    json_count(j, "maximum", G_MAXINT64);
  } else if (p->kind == FK_KIND_INT || p->kind == FK_KIND_DOUBLE) {
    json_text(j, "type", p->kind == FK_KIND_INT ? "integer" : "number");
    json_number(j, "minimum", p->min);
    json_number(j, "maximum", p->max);
  } else {
    add_values(j, "enum", p);
  }
  json_close(j, '}');
}

/* (transfer full) */
static char *settings_schema(void) {
  GString *text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  size_t n;
  const FkProperty *p = fk_properties(&n);
  json_open(&j, NULL, '{');
  json_text(&j, "type", "object");
  json_open(&j, "properties", '{');
  for (size_t i = 0; i < n; i++)
    if (ask_is_setting(p[i].name) && strcmp(p[i].name, "prompt") && strcmp(p[i].name, "mask")) add_schema(&j, &p[i]);
  json_close(&j, '}');
  json_close(&j, '}');
  return g_string_free(text, FALSE);
}

void page_openapi(Exchange *x) {
  g_autofree char *schema = settings_schema();
  g_autoptr(GString) text = g_string_new(resource_openapi);
  g_string_replace(text, "\"@SETTINGS@\"", schema, 1);
  g_string_replace(text, "@VERSION@", FK_VERSION, 1);
  exchange_json(x, 200, text->str);
}
