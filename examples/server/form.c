/* SPDX-License-Identifier: Apache-2.0 */
/* Fields of a request; see form.h. */
#include "form.h"

#include "../json.h"

#include <libsoup/soup.h>
#include <string.h>

enum { NAME_BYTES = 64 };

static void field_free(gpointer data) {
  FormField *field = data;
  g_free(field->name);
  g_free(field->text);
  if (field->file) g_bytes_unref(field->file);
  if (field->node) json_node_unref(field->node);
  g_free(field);
}

void form_clear(Form *form) {
  if (form->fields) g_ptr_array_unref(form->fields);
  form->fields = NULL;
}

static FormField *add(Form *form, const char *name, Failure *f) {
  if (form->fields->len >= FORM_FIELDS) {
    fail(f, 400, "invalid_body", NULL, "more than %d fields", FORM_FIELDS);
    return NULL;
  }
  if (!name || !*name || strlen(name) > NAME_BYTES || !g_utf8_validate(name, -1, NULL)) {
    fail(f, 400, "invalid_body", NULL, "a field's name has 1 to %d bytes of UTF-8", NAME_BYTES);
    return NULL;
  }
  FormField *field = g_new0(FormField, 1);
  field->name = g_strdup(name);
  g_ptr_array_add(form->fields, field);
  return field;
}

static bool add_text(Form *form, const char *name, const char *text, gsize bytes, Failure *f) {
  FormField *field = add(form, name, f);
  if (!field) return false;
  if (!g_utf8_validate_len(text, bytes, NULL))
    return fail(f, 400, "invalid_body", name, "%s: not UTF-8, or with a NUL", field->name);
  field->text = g_strndup(text, bytes);
  return true;
}

/* ---- multipart/form-data ---- */

static const char *find(const char *in, gsize n, const char *what, gsize length) {
  return n >= length ? memmem(in, n, what, length) : NULL;
}

/* One part: its head, an empty line, its body. */
static bool add_part(Form *form, GBytes *body, const char *part, gsize n, Failure *f) {
  const char *end = find(part, n, "\r\n\r\n", 4);
  g_autoptr(SoupMessageHeaders) headers = soup_message_headers_new(SOUP_MESSAGE_HEADERS_MULTIPART);
  g_autofree char *disposition = NULL;
  g_autoptr(GHashTable) parameters = NULL;
  if (!end || end - part > 4096) return fail(f, 400, "invalid_body", NULL, "a part without a head");
  g_autofree char *head = g_strndup(part, (gsize)(end - part) + 2);
  /* The parser takes what follows a first line. */
  g_autofree char *lines = g_strconcat("\r\n", head, NULL);
  if (!soup_headers_parse(lines, (int)strlen(lines), headers) ||
      !soup_message_headers_get_content_disposition(headers, &disposition, &parameters) || !disposition ||
      g_ascii_strcasecmp(disposition, "form-data"))
    return fail(f, 400, "invalid_body", NULL, "a part without \"Content-Disposition: form-data\"");
  const char *name = g_hash_table_lookup(parameters, "name"), *data = end + 4;
  const gsize bytes = n - (gsize)(data - part);
  if (!g_hash_table_lookup(parameters, "filename")) return add_text(form, name, data, bytes, f);
  FormField *field = add(form, name, f);
  if (!field) return false;
  field->file = g_bytes_new_from_bytes(body, (gsize)(data - (const char *)g_bytes_get_data(body, NULL)), bytes);
  return true;
}

/* "--boundary", then for each part CRLF, head, empty line, body, CRLF "--boundary"; the last is followed by "--". */
static bool parse_multipart(const char *boundary, GBytes *body, Form *form, Failure *f) {
  gsize n;
  const char *at = g_bytes_get_data(body, &n), *end = at + n;
  if (!boundary || !*boundary || strlen(boundary) > 70)
    return fail(f, 400, "invalid_body", NULL, "multipart/form-data with a boundary of 1 to 70 characters was expected");
  g_autofree char *mark = g_strconcat("\r\n--", boundary, NULL);
  const gsize length = strlen(mark);
  if (!at || n < length || memcmp(at, mark + 2, length - 2)) {
    at = at ? find(at, n, mark, length) : NULL;
    if (!at) return fail(f, 400, "invalid_body", NULL, "the body does not have the boundary that its type names");
    at += 2;
  }
  for (at += length - 2; end - at >= 2 && memcmp(at, "--", 2);) {
    const char *part = at + 2, *next = find(at, (gsize)(end - at), mark, length);
    if (memcmp(at, "\r\n", 2) || !next || next < part)
      return fail(f, 400, "invalid_body", NULL, "a part of the body has no end");
    if (!add_part(form, body, part, (gsize)(next - part), f)) return false;
    at = next + length;
  }
  return end - at >= 2 || fail(f, 400, "invalid_body", NULL, "the body has no end");
}

/* ---- JSON ---- */

/* The parser ends a text at a NUL; a backslash stands in texts alone. */
static bool check_json(const char *p, gsize n, Failure *f) {
  if (!g_utf8_validate_len(p, n, NULL)) return fail(f, 400, "invalid_json", NULL, "the body is not UTF-8");
  if (!json_is_shallow(p, n, FORM_DEPTH))
    return fail(f, 400, "invalid_json", NULL, "more than %d levels of brackets", FORM_DEPTH);
  for (gsize i = 0; i < n; i++) {
    if (p[i] != '\\') continue;
    if (n - i > 5 && !memcmp(p + i, "\\u0000", 6))
      return fail(f, 400, "invalid_json", NULL, "a text with a NUL (\\u0000)");
    i++;
  }
  return true;
}

static bool add_value(Form *form, const char *name, JsonNode *node, Failure *f) {
  char digits[G_ASCII_DTOSTR_BUF_SIZE];
  if (JSON_NODE_HOLDS_NULL(node)) return true;
  if (!JSON_NODE_HOLDS_VALUE(node)) {
    FormField *field = add(form, name, f);
    if (field) field->node = json_node_ref(node);
    return field;
  }
  const GType type = json_node_get_value_type(node);
  if (type == G_TYPE_STRING) {
    const char *text = json_node_get_string(node);
    return add_text(form, name, text, strlen(text), f);
  }
  if (type == G_TYPE_BOOLEAN)
    return add_text(form, name, json_node_get_boolean(node) ? "true" : "false", json_node_get_boolean(node) ? 4 : 5, f);
  if (type == G_TYPE_INT64)
    g_snprintf(digits, sizeof digits, "%" G_GINT64_FORMAT, json_node_get_int(node));
  else
    g_ascii_dtostr(digits, sizeof digits, json_node_get_double(node));
  return add_text(form, name, digits, strlen(digits), f);
}

static bool parse_json(GBytes *body, Form *form, Failure *f) {
  gsize n;
  const char *text = g_bytes_get_data(body, &n);
  g_autoptr(JsonParser) parser = json_parser_new_immutable();
  g_autoptr(GError) error = NULL;
  if (!text || !n) return fail(f, 400, "invalid_json", NULL, "an empty body; expected a JSON object");
  if (!check_json(text, n, f)) return false;
  if (!json_parser_load_from_data(parser, text, (gssize)n, &error))
    return fail(f, 400, "invalid_json", NULL, "%s", error->message);
  JsonNode *root = json_parser_get_root(parser);
  if (!root || !JSON_NODE_HOLDS_OBJECT(root))
    return fail(f, 400, "invalid_json", NULL, "the body is JSON, but no object");
  JsonObjectIter iter;
  const char *name;
  JsonNode *node;
  json_object_iter_init_ordered(&iter, json_node_get_object(root));
  while (json_object_iter_next_ordered(&iter, &name, &node))
    if (!add_value(form, name, node, f)) return false;
  return true;
}

bool form_parse(const char *type, GBytes *body, Form *form, Failure *f) {
  g_autoptr(GHashTable) parameters = NULL;
  g_autoptr(SoupMessageHeaders) headers = soup_message_headers_new(SOUP_MESSAGE_HEADERS_REQUEST);
  form->fields = g_ptr_array_new_with_free_func(field_free);
  if (type) soup_message_headers_append(headers, "Content-Type", type);
  const char *kind = type ? soup_message_headers_get_content_type(headers, &parameters) : NULL;
  if (kind && !g_ascii_strcasecmp(kind, "multipart/form-data"))
    return parse_multipart(g_hash_table_lookup(parameters, "boundary"), body, form, f);
  if (kind && !g_ascii_strcasecmp(kind, "application/json")) return parse_json(body, form, f);
  return fail(f, 415, "unsupported_media_type", NULL,
              "Content-Type: \"%s\"; expected multipart/form-data or application/json", type ? type : "");
}

/* ---- Reading ---- */

static void hash_part(GChecksum *sum, const void *data, gsize bytes) {
  const guint64 length = bytes;
  g_checksum_update(sum, (const guchar *)&length, sizeof length);
  if (bytes) g_checksum_update(sum, data, (gssize)bytes);
}

char *form_hash(const Form *form) {
  g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
  for (guint i = 0; i < form->fields->len; i++) {
    const FormField *field = g_ptr_array_index(form->fields, i);
    g_autofree char *json = field->node ? json_to_string(field->node, FALSE) : NULL;
    const char *text = json ? json : field->text;
    hash_part(sum, field->name, strlen(field->name));
    if (field->file)
      hash_part(sum, g_bytes_get_data(field->file, NULL), g_bytes_get_size(field->file));
    else
      hash_part(sum, text, strlen(text));
  }
  return g_strdup(g_checksum_get_string(sum));
}

FormField *form_take(Form *form, const char *name) {
  FormField *found = NULL;
  for (guint i = 0; i < form->fields->len; i++) {
    FormField *field = g_ptr_array_index(form->fields, i);
    if (strcmp(field->name, name)) continue;
    field->used = true;
    found = field;
  }
  return found;
}

const char *form_text(Form *form, const char *name, const char *initial, Failure *f) {
  const FormField *field = form_take(form, name);
  if (!field) return initial;
  if (field->text) return field->text;
  fail(f, 400, "invalid_value", name, "%s: expected a text", name);
  return NULL;
}

bool form_integer(Form *form, const char *name, int min, int max, int *value, Failure *f) {
  const char *text = form_text(form, name, NULL, f);
  gint64 number;
  if (!text) return !f->status;
  g_autofree char *digits = g_str_has_suffix(text, ".0") ? g_strndup(text, strlen(text) - 2) : g_strdup(text);
  if (!g_ascii_string_to_signed(digits, 10, min, max, &number, NULL))
    return fail(f, 400, "invalid_value", name, "%s: \"%.100s\" is not an integer from %d to %d", name, text, min, max);
  *value = (int)number;
  return true;
}

bool form_bool(Form *form, const char *name, bool *value, Failure *f) {
  const char *text = form_text(form, name, NULL, f);
  if (!text) return !f->status;
  const bool yes = !g_ascii_strcasecmp(text, "true") || !strcmp(text, "1");
  if (!yes && g_ascii_strcasecmp(text, "false") && strcmp(text, "0"))
    return fail(f, 400, "invalid_value", name, "%s: \"%.100s\" is neither true nor false", name, text);
  *value = yes;
  return true;
}
