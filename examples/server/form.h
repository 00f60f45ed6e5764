/* SPDX-License-Identifier: Apache-2.0 */
/* The fields of a request, whether they came as multipart/form-data or as one JSON object. */
#ifndef FORM_H
#define FORM_H

#include "failure.h"

#include <json-glib/json-glib.h>

typedef struct {
  char *name;
  char *text;     /* UTF-8; a number or a boolean as it is written in JSON; NULL for the other two */
  GBytes *file;   /* a part with a file name */
  JsonNode *node; /* an array or an object of JSON */
  bool used;
} FormField;

typedef struct {
  GPtrArray *fields; /* of FormField, in their order */
} Form;

enum { FORM_FIELDS = 256, FORM_DEPTH = 32 };

/* type: the Content-Type, nullable. JSON's null counts as absent. Nothing of `body` is copied into files. */
bool form_parse(const char *type, GBytes *body, Form *form, Failure *f);
void form_clear(Form *form);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Form, form_clear)
/* SHA-256 of names and values, in their order: whatever the boundary. (transfer full) */
char *form_hash(const Form *form);
/* The field of this name, marked as used; the last of several, as JSON has it. (nullable) */
FormField *form_take(Form *form, const char *name);
/* Its text; `initial` where there is none. A failure where the field is no text. */
const char *form_text(Form *form, const char *name, const char *initial, Failure *f);
/* Its number. */
bool form_integer(Form *form, const char *name, int min, int max, int *value, Failure *f);
bool form_bool(Form *form, const char *name, bool *value, Failure *f);

#endif
