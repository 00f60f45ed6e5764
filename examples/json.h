/* SPDX-License-Identifier: Apache-2.0 */
/* Writes JSON into a string: escaped, valid UTF-8, numbers with a point in any locale, commas where they belong; and
 * what is to be asked of a text before json-glib reads it. */
#ifndef JSON_H
#define JSON_H

#include <glib.h>

/* Zero-initialised but for `text`, which the caller owns, and `line`. */
typedef struct {
  GString *text;
  gboolean line; /* all in one line, without an end */
  int depth;
  gboolean more; /* a value stands before the next one */
} Json;

/* name: of the member of an object; NULL in an array and at the top. bracket: '{' or '['. */
void json_open(Json *j, const char *name, char bracket);
void json_close(Json *j, char bracket); /* '}' or ']' */
void json_text(Json *j, const char *name, const char *value);
/* The shortest digits that read back as this number; null for NaN and infinities. */
void json_number(Json *j, const char *name, double value);
void json_count(Json *j, const char *name, gint64 value);
/* What is JSON already: "true", "null", another document. */
void json_raw(Json *j, const char *name, const char *value);

/* Brackets outside of texts, at most so many open at a time: json-glib's parser calls itself for each, and a text of
 * some hundred thousand of them ends the process. most: JSON_DEPTH, or a caller's own. */
enum { JSON_DEPTH = 64 };
gboolean json_is_shallow(const char *text, gsize bytes, int most);

#endif
