/* SPDX-License-Identifier: Apache-2.0 */
/* FkOptions and FkSettings: every row of the table is set at its ends and past them, and what is refused is named. */
#include "test-files.h"
#include "values.h"

static bool set(FkOptions *o, FkSettings *s, const FkProperty *p, const char *value, GError **error) {
  return p->scope == FK_SCOPE_OPTION ? fk_options_set(o, p->name, value, error)
                                     : fk_settings_set(s, p->name, value, error);
}

static const char *get(FkOptions *o, FkSettings *s, const FkProperty *p) {
  return p->scope == FK_SCOPE_OPTION ? fk_options_get(o, p->name) : fk_settings_get(s, p->name);
}

static void refused(FkOptions *o, FkSettings *s, const FkProperty *p, const char *value) {
  g_autoptr(GError) error = NULL;
  g_autofree char *before = g_strdup(get(o, s, p));
  if (set(o, s, p, value, &error)) g_error("%s took \"%s\"", p->name, value);
  assert_error(error, FK_ERROR_OPTION_BAD, p->name, "");
  g_assert_cmpstr(get(o, s, p), ==, before); /* the old value stays */
}

static void taken(FkOptions *o, FkSettings *s, const FkProperty *p, const char *value) {
  g_autoptr(GError) error = NULL;
  set(o, s, p, value, &error);
  g_assert_no_error(error);
  g_assert_cmpstr(get(o, s, p), ==, value);
}

static void number(FkOptions *o, FkSettings *s, const FkProperty *p) {
  g_autofree char *low = g_strdup_printf("%.17g", p->min), *high = g_strdup_printf("%.17g", p->max);
  g_autofree char *under = g_strdup_printf("%.17g", p->min - 1), *over = g_strdup_printf("%.17g", p->max + 1);
  static const char *const bad[] = {"",      " ",   "1x",  "nan", "inf",   "-inf", "0x",
                                    "1e999", "one", "1,5", "0x1", "0x1p0", " 1",   "1 "};
  static const char *const no_integers[] = {"1.5", "1.0", "1e0", "2e0", "0x2", "+1", "--1"};
  taken(o, s, p, low);
  taken(o, s, p, high);
  refused(o, s, p, under);
  refused(o, s, p, over);
  for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) refused(o, s, p, bad[i]);
  for (size_t i = 0; p->kind == FK_KIND_INT && i < G_N_ELEMENTS(no_integers); i++) refused(o, s, p, no_integers[i]);
}

static void one_row(FkOptions *o, FkSettings *s, const FkProperty *p) {
  switch (p->kind) {
  case FK_KIND_INT:
  case FK_KIND_DOUBLE: number(o, s, p); break;
  case FK_KIND_UINT64:
    taken(o, s, p, "18446744073709551615");
    refused(o, s, p, "18446744073709551616");
    refused(o, s, p, "-1");
    refused(o, s, p, "1.0");
    refused(o, s, p, "8e9");
    refused(o, s, p, "0x8");
    refused(o, s, p, "+8");
    break;
  case FK_KIND_ENUM:
    for (int i = 0; p->values[i]; i++) taken(o, s, p, p->values[i]);
    refused(o, s, p, "no-such-value");
    refused(o, s, p, "");
    break;
  case FK_KIND_SWITCH:
    taken(o, s, p, "on");
    taken(o, s, p, "off");
    taken(o, s, p, "auto");
    refused(o, s, p, "yes");
    break;
  case FK_KIND_BOOL:
    taken(o, s, p, "true");
    taken(o, s, p, "false");
    refused(o, s, p, "1");
    break;
  case FK_KIND_STRING:
    if (p->check)
      refused(o, s, p, "\xc3\xa9\xf0\x9f\x98\x80");
    else
      taken(o, s, p, "\xc3\xa9\xf0\x9f\x98\x80");
    refused(o, s, p, "ab\xff");
    refused(o, s, p, "\xed\xa0\x80"); /* a surrogate */
    break;
  }
}

/* The property, the value and the whole range. */
static void told(void) {
  static const char *const cases[][3] = {{"steps", "2e0", "\"2e0\" is not an integer from 0 to 1000"},
                                         {"max-area", "0x2", "\"0x2\" is not an integer from 0 to 4194304"},
                                         {"strength", "0x1", "\"0x1\" is not a number from 0.001 to 1"}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(FkSettings) s = fk_settings_new();
    g_autoptr(GError) error = NULL;
    g_assert_false(fk_settings_set(s, cases[i][0], cases[i][1], &error));
    assert_error(error, FK_ERROR_OPTION_BAD, cases[i][0], cases[i][2]);
  }
}

static void every_row(void) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  for (size_t i = 0; i < n; i++) {
    g_autoptr(FkOptions) o = fk_options_new();
    g_autoptr(FkSettings) s = fk_settings_new();
    g_assert_cmpstr(get(o, s, &p[i]), ==, p[i].initial);
    one_row(o, s, &p[i]);
    g_assert_true(set(o, s, &p[i], NULL, NULL)); /* NULL: the default again */
    g_assert_cmpstr(get(o, s, &p[i]), ==, p[i].initial);
  }
}

static void unknown(void) {
  g_autoptr(FkOptions) o = fk_options_new();
  g_autoptr(FkSettings) s = fk_settings_new();
  g_autoptr(GError) error = NULL;
  g_assert_false(fk_options_set(o, "prompt", "x", &error)); /* a setting, not an option */
  assert_error(error, FK_ERROR_OPTION_BAD, "prompt", "no option");
  g_assert_false(fk_settings_set(s, "model-path", "x", &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "model-path", "no setting");
  g_assert_false(fk_settings_set(s, "Prompt", "x", &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "Prompt", "no setting");
  g_assert_null(fk_settings_get(s, "model-path"));
  g_assert_null(fk_options_get(o, "nothing"));
}

/* A value may be set to itself, and copies live on their own. */
static void copies(void) {
  g_autoptr(FkSettings) a = fk_settings_new();
  fk_settings_set(a, "prompt", "make it night", NULL);
  fk_settings_set(a, "prompt", fk_settings_get(a, "prompt"), NULL);
  g_assert_cmpstr(fk_settings_get(a, "prompt"), ==, "make it night");
  g_autoptr(FkSettings) b = fk_settings_copy(a);
  fk_settings_set(a, "prompt", "x", NULL);
  g_assert_cmpstr(fk_settings_get(b, "prompt"), ==, "make it night");
  g_autoptr(FkOptions) o = fk_options_new();
  fk_options_set(o, "model-path", "m", NULL);
  g_autoptr(FkOptions) c = fk_options_copy(o);
  fk_options_set(o, "model-path", NULL, NULL);
  g_assert_cmpstr(fk_options_get(c, "model-path"), ==, "m");
  fk_options_free(NULL);
  fk_settings_free(NULL);
}

/* Frames may share a batch when all but the seed is equal; not set and empty differ. */
static void batchable(void) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  for (size_t i = 0; i < n; i++) {
    if (p[i].scope != FK_SCOPE_SETTING) continue;
    g_autoptr(FkSettings) a = fk_settings_new(), b = fk_settings_new();
    const char *other = p[i].check                    ? "1x1:8"
                        : p[i].kind == FK_KIND_STRING ? "1"
                        : p[i].kind == FK_KIND_ENUM   ? p[i].values[g_strcmp0(p[i].values[0], p[i].initial) ? 0 : 1]
                        : p[i].kind == FK_KIND_SWITCH ? "on"
                        : p[i].kind == FK_KIND_BOOL   ? (g_str_equal(p[i].initial, "true") ? "false" : "true")
                        : p[i].min > 0                ? (p[i].max > 1 ? "17" : "0.5")
                        : p[i].kind == FK_KIND_INT    ? (g_str_equal(p[i].initial, "0") ? "1" : "0")
                                                      : "0.0";
    if (p[i].kind == FK_KIND_UINT64) other = "17";
    if (!fk_settings_set(b, p[i].name, other, NULL)) g_error("%s did not take %s", p[i].name, other);
    g_assert_true(fk_settings_batchable(a, a));
    g_assert_cmpint(fk_settings_batchable(a, b), ==, g_str_equal(p[i].name, "seed"));
  }
  g_autoptr(FkSettings) a = fk_settings_new(), b = fk_settings_new();
  fk_settings_set(b, "negative-prompt", "", NULL);
  g_assert_false(fk_settings_batchable(a, b));
}

/* A text either names files of this machine, and then is not taken from requests, or is one of these. */
static void files(void) {
  static const char *const texts[] = {"prompt", "negative-prompt", "step-cache-mask", "region-mask", "mask-type", NULL};
  size_t n;
  const FkProperty *p = fk_properties(&n);
  for (size_t i = 0; i < n; i++)
    if (p[i].file != (p[i].kind == FK_KIND_STRING && !g_strv_contains(texts, p[i].name)))
      g_error("%s: names files or not?", p[i].name);
}

/* A text has a limit, and what is refused is shown as text that a terminal can take. */
static void long_and_strange(void) {
  g_autoptr(FkSettings) s = fk_settings_new();
  g_autoptr(GError) error = NULL;
  g_autofree char *most = g_strnfill(FK_TEXT_BYTES, 'a'), *more = g_strnfill(FK_TEXT_BYTES + 1, 'a');
  g_assert_true(fk_settings_set(s, "prompt", most, &error));
  g_assert_false(fk_settings_set(s, "prompt", more, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "prompt: 1048577 bytes", "1048576");
  g_assert_cmpstr(fk_settings_get(s, "prompt"), ==, most);
  g_autoptr(GString) wide = g_string_new("x");
  for (int i = 0; i < 100; i++) g_string_append(wide, "\xc3\xa9"); /* 80 bytes end inside a character */
  const char *const bad[] = {wide->str, "\x1b[31mred", "a\xff", "two\nlines", ""};
  for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
    g_assert_false(fk_settings_set(s, "scheduler", bad[i], &error));
    for (const char *c = error->message; *c; c++) g_assert_false(g_ascii_iscntrl(*c));
    assert_error(error, FK_ERROR_OPTION_BAD, "scheduler", "one of auto, euler");
    g_assert_false(fk_settings_set(s, bad[i], "1", &error));
    assert_error(error, FK_ERROR_OPTION_BAD, "no setting", "");
  }
}

/* A text with a form of its own is refused when it is set, whatever the other settings are; the value stays. */
static void form(void) {
  g_autoptr(FkSettings) s = fk_settings_new();
  g_autoptr(GError) error = NULL;
  g_assert_true(fk_settings_set(s, "region-mask", "5x3:a0fa", &error));
  g_assert_false(fk_settings_set(s, "region-mask", "5x3:a0f", &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "region-mask", "expected 4 hexadecimal digits for 5x3, found 3");
  g_assert_cmpstr(fk_settings_get(s, "region-mask"), ==, "5x3:a0fa");
  g_assert_true(fk_settings_set(s, "region-mask", "", &error) && fk_settings_set(s, "region-mask", NULL, &error));
}

/* One door for both: by scope, and preset in both. */
static void either(void) {
  g_autoptr(FkOptions) o = fk_options_new();
  g_autoptr(FkSettings) s = fk_settings_new();
  g_autoptr(GError) error = NULL;
  g_assert_true(fk_set(o, s, "model-path", "m", &error));
  g_assert_true(fk_set(o, s, "steps", "5", &error));
  g_assert_true(fk_set(o, s, "preset", "fast", &error));
  g_assert_cmpstr(fk_options_get(o, "model-path"), ==, "m");
  g_assert_cmpstr(fk_settings_get(s, "steps"), ==, "5");
  g_assert_cmpstr(fk_settings_get(s, "preset"), ==, "fast");
  g_assert_cmpstr(fk_options_get(o, "preset"), ==, "fast");
  g_assert_false(fk_set(o, s, "nothing", "1", &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "no property", "nothing");
  g_assert_false(fk_set(NULL, s, "model-path", "m", &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "no property", "model-path");
  g_assert_false(fk_set(o, NULL, "steps", "5", &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "no property", "steps");
  g_assert_false(fk_set(o, s, "steps", "-1", &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "steps", "from 0 to 1000");
  g_assert_true(fk_set(NULL, s, "preset", "exact", &error));
  g_assert_cmpstr(fk_options_get(o, "preset"), ==, "fast");
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/values/files", files);
  g_test_add_func("/values/every-row", every_row);
  g_test_add_func("/values/told", told);
  g_test_add_func("/values/unknown", unknown);
  g_test_add_func("/values/copies", copies);
  g_test_add_func("/values/batchable", batchable);
  g_test_add_func("/values/long-and-strange", long_and_strange);
  g_test_add_func("/values/form", form);
  g_test_add_func("/values/either", either);
  return g_test_run();
}
