/* SPDX-License-Identifier: Apache-2.0 */
/* Storing, parsing and comparing property values. Both kinds of bag hold one string per row of the table, so there is
 * one parser and one place that says what is wrong with a value. Not here: what values mean (tune.c). */
#include "values.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "properties.h"

typedef struct {
  FkScope scope;
  char **text; /* one per row of the table; NULL: none */
} Bag;

struct FkOptions {
  Bag bag;
};

struct FkSettings {
  Bag bag;
};

GQuark fk_error_quark(void) {
  return g_quark_from_static_string("fk-error-quark");
}

static void bag_init(Bag *bag, FkScope scope) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  *bag = (Bag){scope, g_new0(char *, n)};
  for (size_t i = 0; i < n; i++) bag->text[i] = g_strdup(p[i].initial);
}

static void bag_clear(Bag *bag) {
  size_t n;
  fk_properties(&n);
  for (size_t i = 0; i < n; i++) g_free(bag->text[i]);
  g_free(bag->text);
}

static void bag_copy(Bag *to, const Bag *from) {
  size_t n;
  fk_properties(&n);
  *to = (Bag){from->scope, g_new0(char *, n)};
  for (size_t i = 0; i < n; i++) to->text[i] = g_strdup(from->text[i]);
}

static bool bad(GError **error, const FkProperty *p, const char *value, const char *expected) {
  g_autofree char *shown = g_strndup(value, 80);
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: \"%s\" is not %s", p->name, shown, expected);
  return false;
}

static bool one_of(const FkProperty *p, const char *value, const char *const *nicks, GError **error) {
  if (g_strv_contains(nicks, value)) return true;
  g_autofree char *list = g_strjoinv(", ", (char **)nicks);
  g_autofree char *expected = g_strconcat("one of ", list, NULL);
  return bad(error, p, value, expected);
}

static bool number_in_range(const FkProperty *p, const char *value, GError **error) {
  g_autofree char *range =
      g_strdup_printf("%s from %g to %g", p->kind == FK_KIND_INT ? "an integer" : "a number", p->min, p->max);
  char *end = NULL;
  const double d = g_ascii_strtod(value, &end);
  if (end == value || *end || !isfinite(d) || d < p->min || d > p->max) return bad(error, p, value, range);
  if (p->kind == FK_KIND_INT && d != floor(d)) return bad(error, p, value, range);
  return true;
}

bool fk_values_parse(const FkProperty *p, const char *value, GError **error) {
  static const char *const boolean[] = {"true", "false", NULL}, *const sw[] = {"auto", "on", "off", NULL};
  const char *end = NULL;
  switch (p->kind) {
  case FK_KIND_BOOL: return one_of(p, value, boolean, error);
  case FK_KIND_SWITCH: return one_of(p, value, sw, error);
  case FK_KIND_ENUM: return one_of(p, value, p->values, error);
  case FK_KIND_INT:
  case FK_KIND_DOUBLE: return number_in_range(p, value, error);
  case FK_KIND_UINT64:
    if (g_ascii_string_to_unsigned(value, 10, 0, G_MAXUINT64, NULL, NULL)) return true;
    return bad(error, p, value, "an integer from 0 to 18446744073709551615");
  case FK_KIND_STRING:
    if (g_utf8_validate(value, -1, &end)) return true;
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: not UTF-8 at byte %zu", p->name, (size_t)(end - value));
    return false;
  }
  return false;
}

static bool bag_set(Bag *bag, const char *name, const char *value, GError **error) {
  size_t n;
  const FkProperty *first = fk_properties(&n), *p = fk_properties_find(name);
  if (!p || p->scope != bag->scope) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "no %s is called \"%s\"",
                bag->scope == FK_SCOPE_OPTION ? "option" : "setting", name);
    return false;
  }
  const char *text = value ? value : p->initial;
  if (text && !fk_values_parse(p, text, error)) return false;
  char *copy = g_strdup(text); /* before the old value goes: they may be one */
  g_free(bag->text[p - first]);
  bag->text[p - first] = copy;
  return true;
}

static const char *bag_get(const Bag *bag, const char *name) {
  size_t n;
  const FkProperty *first = fk_properties(&n), *p = fk_properties_find(name);
  return p && p->scope == bag->scope ? bag->text[p - first] : NULL;
}

FkOptions *fk_options_new(void) {
  FkOptions *o = g_new0(FkOptions, 1);
  bag_init(&o->bag, FK_SCOPE_OPTION);
  return o;
}

FkOptions *fk_options_copy(const FkOptions *options) {
  FkOptions *o = g_new0(FkOptions, 1);
  bag_copy(&o->bag, &options->bag);
  return o;
}

void fk_options_free(FkOptions *options) {
  if (!options) return;
  bag_clear(&options->bag);
  g_free(options);
}

bool fk_options_set(FkOptions *options, const char *name, const char *value, GError **error) {
  return bag_set(&options->bag, name, value, error);
}

const char *fk_options_get(const FkOptions *options, const char *name) {
  return bag_get(&options->bag, name);
}

char *fk_options_identity(const FkOptions *options) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  GString *s = g_string_new(NULL);
  for (size_t i = 0; i < n; i++)
    if (p[i].scope == FK_SCOPE_OPTION)
      g_string_append_printf(s, "%s=%s\n", p[i].name, options->bag.text[i] ? options->bag.text[i] : "");
  return g_string_free(s, FALSE);
}

FkSettings *fk_settings_new(void) {
  FkSettings *s = g_new0(FkSettings, 1);
  bag_init(&s->bag, FK_SCOPE_SETTING);
  return s;
}

FkSettings *fk_settings_copy(const FkSettings *settings) {
  FkSettings *s = g_new0(FkSettings, 1);
  bag_copy(&s->bag, &settings->bag);
  return s;
}

void fk_settings_free(FkSettings *settings) {
  if (!settings) return;
  bag_clear(&settings->bag);
  g_free(settings);
}

bool fk_settings_set(FkSettings *settings, const char *name, const char *value, GError **error) {
  return bag_set(&settings->bag, name, value, error);
}

const char *fk_settings_get(const FkSettings *settings, const char *name) {
  return bag_get(&settings->bag, name);
}

bool fk_settings_batchable(const FkSettings *a, const FkSettings *b) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  for (size_t i = 0; i < n; i++)
    if (strcmp(p[i].name, "seed") && g_strcmp0(a->bag.text[i], b->bag.text[i])) return false;
  return true;
}
