/* SPDX-License-Identifier: Apache-2.0 */
/* A writer of JSON, and a look at what is read; see json.h. */
#include "json.h"

#include <math.h>

static void quote(GString *out, const char *text) {
  g_autofree char *valid = g_utf8_make_valid(text, -1);
  g_string_append_c(out, '"');
  for (const char *p = valid; *p; p++) {
    if ((guchar)*p < 0x20)
      g_string_append_printf(out, "\\u%04x", *p);
    else if (*p == '"' || *p == '\\')
      g_string_append_printf(out, "\\%c", *p);
    else
      g_string_append_c(out, *p);
  }
  g_string_append_c(out, '"');
}

/* Lines are as deep as the first two levels; what lies deeper shares one. */
static void begin(Json *j, const char *name) {
  if (j->more) g_string_append_c(j->text, ',');
  if (!j->line && j->depth > 0 && j->depth < 3)
    g_string_append_printf(j->text, "\n%*s", j->depth, "");
  else if (j->more)
    g_string_append_c(j->text, ' ');
  j->more = TRUE;
  if (!name) return;
  quote(j->text, name);
  g_string_append(j->text, ": ");
}

void json_open(Json *j, const char *name, char bracket) {
  begin(j, name);
  g_string_append_c(j->text, bracket);
  j->depth++;
  j->more = FALSE;
}

void json_close(Json *j, char bracket) {
  j->depth--;
  j->more = TRUE;
  g_string_append_c(j->text, bracket);
  if (!j->depth && !j->line) g_string_append_c(j->text, '\n');
}

void json_text(Json *j, const char *name, const char *value) {
  begin(j, name);
  quote(j->text, value);
}

void json_number(Json *j, const char *name, double value) {
  char digits[G_ASCII_DTOSTR_BUF_SIZE];
  begin(j, name);
  if (!isfinite(value)) {
    g_string_append(j->text, "null");
    return;
  }
  g_ascii_formatd(digits, sizeof digits, "%.15g", value);
  if (g_ascii_strtod(digits, NULL) != value) g_ascii_dtostr(digits, sizeof digits, value);
  g_string_append(j->text, digits);
}

void json_count(Json *j, const char *name, gint64 value) {
  begin(j, name);
  g_string_append_printf(j->text, "%" G_GINT64_FORMAT, value);
}

void json_raw(Json *j, const char *name, const char *value) {
  begin(j, name);
  g_string_append(j->text, value);
}

gboolean json_is_shallow(const char *text, gsize bytes, int most) {
  int depth = 0;
  gboolean quoted = FALSE;
  for (gsize i = 0; i < bytes; i++) {
    const char c = text[i];
    if (quoted && c == '\\')
      i++;
    else if (c == '"')
      quoted = !quoted;
    else if (!quoted)
      depth += (c == '{' || c == '[') - (c == '}' || c == ']');
    if (depth > most) return FALSE;
  }
  return TRUE;
}
