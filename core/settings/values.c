/* SPDX-License-Identifier: Apache-2.0 */
/* Storing, parsing and comparing property values. Options and settings hold one string per row of the table, so there
 * is one parser and one place that says what is wrong with a value. Not here: what values mean (tune.c).
 *
 * Values stay the text that was set until an edit resolves them: a text is what presets, documents, the element and
 * error messages show, "not set" differs from empty, and comparing two frames' settings is comparing texts. Nothing is
 * lost on the way: g_ascii_dtostr writes a double so that reading it gives the same bits. */
#include "values.h"

#include "file.h"
#include "properties.h"

#include <string.h>

struct FkValues {
  FkScope scope;
  char **text; /* [rows of the table]: rows of the other scope keep their default; NULL: not set */
};

struct FkOptions {
  FkValues values;
};

struct FkSettings {
  FkValues values;
};

GQuark fk_error_quark(void) {
  return g_quark_from_static_string("fk-error-quark");
}

static void values_init(FkValues *v, FkScope scope) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  *v = (FkValues){scope, g_new0(char *, n)};
  for (size_t i = 0; i < n; i++) v->text[i] = g_strdup(p[i].initial);
}

static void values_clear(FkValues *v) {
  size_t n;
  fk_properties(&n);
  for (size_t i = 0; i < n; i++) g_free(v->text[i]);
  g_free(v->text);
}

static void values_copy(FkValues *to, const FkValues *from) {
  size_t n;
  fk_properties(&n);
  *to = (FkValues){from->scope, g_new0(char *, n)};
  for (size_t i = 0; i < n; i++) to->text[i] = g_strdup(from->text[i]);
}

static bool bad(GError **error, const FkProperty *p, const char *value, const char *expected) {
  g_autofree char *text = fk_shown_name(value);
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: \"%s\" is not %s", p->name, text, expected);
  return false;
}

static bool one_of(const FkProperty *p, const char *value, const char *const *nicks, GError **error) {
  if (g_strv_contains(nicks, value)) return true;
  g_autofree char *list = g_strjoinv(", ", (char **)nicks);
  g_autofree char *expected = g_strconcat("one of ", list, NULL);
  return bad(error, p, value, expected);
}

/* Decimal digits and a sign in front of a negative one: "2e1" and "0x2" mean other numbers to other readers. */
static bool integer_in_range(const FkProperty *p, const char *value, GError **error) {
  const gint64 min = (gint64)p->min, max = (gint64)p->max;
  if (*value != '+' && g_ascii_string_to_signed(value, 10, min, max, NULL, NULL)) return true;
  g_autofree char *range = g_strdup_printf("an integer from %" G_GINT64_FORMAT " to %" G_GINT64_FORMAT, min, max);
  return bad(error, p, value, range);
}

static bool number_in_range(const FkProperty *p, const char *value, GError **error) {
  double d;
  if (fk_decimal(value, &d) && d >= p->min && d <= p->max) return true;
  g_autofree char *range = g_strdup_printf("a number from %g to %g", p->min, p->max);
  return bad(error, p, value, range);
}

static bool short_text(const FkProperty *p, const char *value, GError **error) {
  const size_t bytes = strlen(value);
  const char *end = NULL;
  if (bytes > FK_TEXT_BYTES)
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: %zu bytes of text; at most %d are taken", p->name, bytes,
                FK_TEXT_BYTES);
  else if (!g_utf8_validate(value, (gssize)bytes, &end))
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: not UTF-8 at byte %zu", p->name, (size_t)(end - value));
  else
    return true;
  return false;
}

bool fk_values_parse(const FkProperty *p, const char *value, GError **error) {
  static const char *const boolean[] = {"true", "false", NULL}, *const sw[] = {"auto", "on", "off", NULL};
  switch (p->kind) {
  case FK_KIND_BOOL: return one_of(p, value, boolean, error);
  case FK_KIND_SWITCH: return one_of(p, value, sw, error);
  case FK_KIND_ENUM: return one_of(p, value, p->values, error);
  case FK_KIND_INT: return integer_in_range(p, value, error);
  case FK_KIND_DOUBLE: return number_in_range(p, value, error);
  case FK_KIND_UINT64:
    if (g_ascii_string_to_unsigned(value, 10, 0, G_MAXUINT64, NULL, NULL)) return true;
    return bad(error, p, value, "an integer from 0 to 18446744073709551615");
  case FK_KIND_STRING: return short_text(p, value, error) && (!p->check || !*value || p->check(value, error));
  }
  return false;
}

bool fk_values_in_scope(const FkProperty *p, FkScope scope) {
  return p->scope == scope || p->both;
}

static size_t row_of(const FkProperty *p) {
  size_t n;
  return (size_t)(p - fk_properties(&n));
}

static bool values_set(FkValues *v, const char *name, const char *value, GError **error) {
  const FkProperty *p = fk_properties_find(name);
  if (!p || !fk_values_in_scope(p, v->scope)) {
    g_autofree char *text = fk_shown_name(name);
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "no %s is called \"%s\"",
                v->scope == FK_SCOPE_OPTION ? "option" : "setting", text);
    return false;
  }
  const char *text = value ? value : p->initial;
  if (text && !fk_values_parse(p, text, error)) return false;
  char *copy = g_strdup(text); /* before the old value goes: they may be one */
  g_free(v->text[row_of(p)]);
  v->text[row_of(p)] = copy;
  return true;
}

const char *fk_values_get(const FkValues *v, const FkProperty *p) {
  return p && fk_values_in_scope(p, v->scope) ? v->text[row_of(p)] : NULL;
}

const FkValues *fk_options_values(const FkOptions *options) {
  return &options->values;
}

const FkValues *fk_settings_values(const FkSettings *settings) {
  return &settings->values;
}

bool fk_set(FkOptions *options, FkSettings *settings, const char *name, const char *value, GError **error) {
  const FkProperty *p = fk_properties_find(name);
  const bool option = p && options && fk_values_in_scope(p, FK_SCOPE_OPTION);
  const bool setting = p && settings && fk_values_in_scope(p, FK_SCOPE_SETTING);
  if (!option && !setting) {
    g_autofree char *text = fk_shown_name(name);
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "no property is called \"%s\"", text);
    return false;
  }
  return (!option || values_set(&options->values, name, value, error)) &&
         (!setting || values_set(&settings->values, name, value, error));
}

FkOptions *fk_options_new(void) {
  FkOptions *o = g_new0(FkOptions, 1);
  values_init(&o->values, FK_SCOPE_OPTION);
  return o;
}

FkOptions *fk_options_copy(const FkOptions *options) {
  FkOptions *o = g_new0(FkOptions, 1);
  values_copy(&o->values, &options->values);
  return o;
}

void fk_options_free(FkOptions *options) {
  if (!options) return;
  values_clear(&options->values);
  g_free(options);
}

bool fk_options_set(FkOptions *options, const char *name, const char *value, GError **error) {
  return values_set(&options->values, name, value, error);
}

const char *fk_options_get(const FkOptions *options, const char *name) {
  return fk_values_get(&options->values, fk_properties_find(name));
}

FkSettings *fk_settings_new(void) {
  FkSettings *s = g_new0(FkSettings, 1);
  values_init(&s->values, FK_SCOPE_SETTING);
  return s;
}

FkSettings *fk_settings_copy(const FkSettings *settings) {
  FkSettings *s = g_new0(FkSettings, 1);
  values_copy(&s->values, &settings->values);
  return s;
}

void fk_settings_free(FkSettings *settings) {
  if (!settings) return;
  values_clear(&settings->values);
  g_free(settings);
}

bool fk_settings_set(FkSettings *settings, const char *name, const char *value, GError **error) {
  return values_set(&settings->values, name, value, error);
}

const char *fk_settings_get(const FkSettings *settings, const char *name) {
  return fk_values_get(&settings->values, fk_properties_find(name));
}

/* The frames of a batch share text, conditioning and schedule, which every setting may change; the seed alone changes
 * only the noise that each frame starts from. */
bool fk_settings_batchable(const FkSettings *a, const FkSettings *b) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  for (size_t i = 0; i < n; i++)
    if (strcmp(p[i].name, "seed") && g_strcmp0(a->values.text[i], b->values.text[i])) return false;
  return true;
}
