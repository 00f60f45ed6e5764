/* SPDX-License-Identifier: Apache-2.0 */
/* Which settings cannot be combined: every row of the table is refused, in both orders of setting; a preset's choice
 * gives way; nothing else is refused. Which have no effect beside others: each row is reported, and nothing else. */
#include "interactions.h"
#include "test-files.h"
#include "properties.h"
#include "tune.h"

/* A value of `p` for which `when` holds. (transfer full) */
static char *holding(const FkProperty *p, const char *when) {
  if (*when == '=') return g_strdup(when + 1);
  if (*when == '>') {
    const double above = g_ascii_strtod(when + 1, NULL);
    return p->kind == FK_KIND_INT ? g_strdup_printf("%d", (int)above + 1) : g_strdup_printf("%g", above + 0.25);
  }
  if (*when == '<') return g_strdup(when + 2);
  if (!strcmp(p->name, "step-cache-mask")) return g_strnfill(28, '1'); /* one for each evaluation of the default */
  if (!strcmp(p->name, "region-mask")) return g_strdup("1x1:8");
  for (int i = 0; p->values && p->values[i]; i++)
    if (strcmp(p->values[i], when + 1) && strcmp(p->values[i], "auto")) return g_strdup(p->values[i]);
  return g_strdup("x");
}

static void every_row_refuses(void) {
  size_t n;
  const FkInteraction *t = fk_interactions(&n);
  g_assert_cmpuint(n, >=, 1);
  for (size_t i = 0; i < n; i++) {
    const FkProperty *a = fk_properties_find(t[i].a), *b = fk_properties_find(t[i].b);
    g_assert_true(a && b && a != b);
    g_assert_true(t[i].reason && *t[i].reason);
    g_autofree char *x = holding(a, t[i].a_when), *y = holding(b, t[i].b_when);
    for (int order = 0; order < 2; order++) {
      g_autoptr(GError) error = NULL;
      g_autoptr(FkSettings) s = fk_settings_new();
      for (int k = 0; k < 2; k++)
        if (!fk_settings_set(s, k == order ? a->name : b->name, k == order ? x : y, &error))
          g_error("%s", error->message);
      g_assert_false(fk_settings_check(s, &error));
      assert_error(error, FK_ERROR_OPTION_BAD, a->name, b->name);
      g_assert_false(fk_settings_check(s, NULL)); /* and so nothing can run */
    }
  }
}

/* One side alone, and the defaults, are fine. */
static void alone(void) {
  size_t n;
  const FkInteraction *t = fk_interactions(&n);
  g_autoptr(FkSettings) none = fk_settings_new();
  g_assert_true(fk_settings_check(none, NULL));
  for (size_t i = 0; i < n; i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkSettings) s = fk_settings_new();
    const FkProperty *a = fk_properties_find(t[i].a);
    g_autofree char *x = holding(a, t[i].a_when);
    fk_settings_set(s, a->name, x, NULL);
    fk_settings_check(s, &error);
    g_assert_no_error(error);
  }
}

/* What a preset chooses is not an error beside an explicit value: it yields, and says why. */
static void presets_yield(void) {
  size_t n;
  const FkInteraction *t = fk_interactions(&n);
  for (size_t i = 0; i < n; i++) {
    g_autoptr(FkSettings) s = fk_settings_new();
    const FkValues *v = fk_settings_values(s);
    const FkProperty *a = fk_properties_find(t[i].a), *b = fk_properties_find(t[i].b);
    g_autofree char *x = holding(a, t[i].a_when), *y = holding(b, t[i].b_when);
    g_assert_null(fk_interactions_yield(v, "no-such-row", x));
    fk_settings_set(s, b->name, y, NULL);
    g_assert_cmpstr(fk_interactions_yield(v, a->name, x), ==, t[i].reason);
  }
}

/* Every preset resolves with every single explicit optimization. */
static void presets_combine(void) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  const FkProperty *preset = fk_properties_find("preset");
  for (int k = 0; preset->values[k]; k++)
    for (size_t i = 0; i < n; i++) {
      if (p[i].optimization == FK_CLASS_NONE || p[i].kind != FK_KIND_ENUM) continue;
      for (int v = 0; p[i].values[v]; v++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(FkSettings) s = fk_settings_new();
        fk_settings_set(s, "preset", preset->values[k], NULL);
        fk_settings_set(s, p[i].name, p[i].values[v], NULL);
        fk_settings_check(s, &error);
        g_assert_no_error(error);
      }
    }
}

static void conditions(void) {
  static const struct {
    const char *when, *value;
    bool holds;
  } cases[] = {{"=x", "x", true},  {"=x", "y", false},  {"!x", "y", true},      {"!x", "x", false},
               {"!", "", false},   {"!", "y", true},    {">1", "1", false},     {">1", "1.5", true},
               {"<=1", "1", true}, {"<=1", "2", false}, {"<=-1", "-1.0", true}, {"", NULL, true},
               {"", "", false},    {"=x", NULL, false}, {"!x", NULL, false},    {">0", NULL, false}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
    if (fk_interactions_holds(cases[i].when, cases[i].value) != cases[i].holds)
      g_error("\"%s\" of %s", cases[i].when, cases[i].value ? cases[i].value : "nothing");
}

/* Sets what the row is about and asks. The condition on the other side is met by the defaults or is set too. */
static void assert_idle(const FkInteraction *t) {
  static const char *const others[] = {"0.5", "7", "taylor", "target", "true", "crop", "x", "1048576"};
  g_autoptr(FkSettings) s = fk_settings_new();
  const FkProperty *a = fk_properties_find(t->a), *b = t->b ? fk_properties_find(t->b) : NULL;
  g_assert_true(a && t->reason && *t->reason);
  if (t->a_when && *t->a_when == '>') fk_settings_set(s, t->a, "2", NULL);
  for (size_t i = 0; !t->a_when && i < G_N_ELEMENTS(others); i++)
    if (fk_settings_set(s, t->a, others[i], NULL)) break;
  if (b && *t->b_when == '=') fk_settings_set(s, t->b, t->b_when + 1, NULL);
  if (b && !strcmp(t->b_when, "!")) {
    fk_settings_set(s, "step-cache", "teacache", NULL);
    fk_settings_set(s, t->b, "1111111111111111111111111111", NULL);
  }
  g_auto(GStrv) list = fk_settings_idle(s);
  for (guint i = 0; list[i]; i += 2)
    if (!strcmp(list[i], t->a)) return;
  g_error("%s has an effect", t->a);
}

/* Empty prompt aside, the defaults are silent; every row speaks; each setting once. */
static void idle(void) {
  size_t n;
  const FkInteraction *t = fk_interactions_idle(&n);
  for (size_t i = 0; i < n; i++) assert_idle(&t[i]);
  g_autoptr(FkSettings) s = fk_settings_new();
  g_auto(GStrv) empty = fk_settings_idle(s);
  g_assert_cmpuint(g_strv_length(empty), ==, 2);
  g_assert_cmpstr(empty[0], ==, "prompt");
  fk_settings_set(s, "prompt", "make it night", NULL);
  g_auto(GStrv) none = fk_settings_idle(s);
  g_assert_cmpuint(g_strv_length(none), ==, 0);
  fk_settings_set(s, "step-cache-growth", "2", NULL);       /* no cache, and no limit that could grow: one reason */
  fk_settings_set(s, "step-cache-threshold", "-1.0", NULL); /* its default */
  g_auto(GStrv) one = fk_settings_idle(s);
  g_assert_cmpuint(g_strv_length(one), ==, 2);
  fk_settings_set(s, "preset", "few-step", NULL); /* and the cache's numbers as above */
  g_auto(GStrv) few = fk_settings_idle(s);
  g_assert_cmpuint(g_strv_length(few), ==, 4);
  g_assert_cmpstr(few[0], ==, "loras");
  g_assert_nonnull(strstr(few[1], "preset=few-step"));
  fk_settings_set(s, "loras", "few.safetensors:0.125", NULL);
  g_auto(GStrv) enough = fk_settings_idle(s);
  g_assert_cmpuint(g_strv_length(enough), ==, 2);
  fk_settings_set(s, "loras", NULL, NULL);
  fk_settings_set(s, "preset", "fast", NULL); /* now a cache runs, with runs that grow */
  g_auto(GStrv) used = fk_settings_idle(s);
  g_assert_cmpuint(g_strv_length(used), ==, 0);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/interactions/refuse", every_row_refuses);
  g_test_add_func("/interactions/alone", alone);
  g_test_add_func("/interactions/presets-yield", presets_yield);
  g_test_add_func("/interactions/presets-combine", presets_combine);
  g_test_add_func("/interactions/conditions", conditions);
  g_test_add_func("/interactions/idle", idle);
  return g_test_run();
}
