/* SPDX-License-Identifier: Apache-2.0 */
/* The element in a program whose locale writes numbers with a comma: properties, presets, messages and trace files are
 * for machines and do not change. */
#include "test-element-util.h"

#include <glib/gstdio.h>
#include <locale.h>
#include <string.h>

static gboolean has_comma; /* the locale could be had */

/* In the environment too: libraries set the locale from there. */
static gboolean use_locale(const gchar *name) {
  g_setenv("LC_ALL", name, TRUE);
  return setlocale(LC_ALL, name) && *localeconv()->decimal_point == ',';
}

/* Locales that a system with a comma may have. */
static gboolean find_locale(void) {
  static const gchar *const names[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "es_ES.UTF-8", "ru_RU.UTF-8", "pt_BR.UTF-8"};
  for (guint i = 0; i < G_N_ELEMENTS(names); i++)
    if (use_locale(names[i])) return TRUE;
  return FALSE;
}

/* The German one made from the C library's sources in `folder`, where these are installed. */
static gboolean make_locale(const gchar *folder) {
  g_autofree gchar *target = g_build_filename(folder, "de_DE.UTF-8", NULL);
  const gchar *const command[] = {"localedef", "-i", "de_DE", "-f", "UTF-8", target, NULL};
  g_spawn_sync(NULL, (gchar **)command, NULL,
               G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, NULL, NULL,
               NULL, NULL);
  g_setenv("LOCPATH", folder, TRUE);
  return use_locale("de_DE.UTF-8");
}

/* Skips the test, which is counted, where there is no such locale. */
static gboolean skip(void) {
  if (!has_comma) g_test_skip("no locale with a comma can be found or made");
  return !has_comma;
}

/* The locale is what it should be: the C library's own numbers have a comma. */
static void test_locale(void) {
  if (skip()) return;
  g_autofree gchar *number = g_strdup_printf("%.1f", 1.5);
  g_assert_cmpstr(number, ==, "1,5");
}

/* In a launch line and back. */
static void test_properties(void) {
  gdouble guidance, merge;
  if (skip()) return;
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "guidance=3.25 token-merge=0.5", SMALL);
  tester_push(t, 0);
  g_object_get(t->element, "guidance", &guidance, "token-merge", &merge, NULL);
  g_assert_cmpfloat(guidance, ==, 3.25);
  g_assert_cmpfloat(merge, ==, 0.5);
  tester_collect(t);
  g_assert_cmpuint(t->errors + t->warnings, ==, 0);
}

/* A message names a value as it would have to be set. */
static void test_message(void) {
  if (skip()) return;
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "token-merge=0.3 context-reuse=2", SMALL);
  gst_harness_push(t->h, test_frame(SMALL, 0, 0));
  tester_assert_error(t, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS, "token-merge=0.3");
}

/* What `active` says of numbers. */
static void test_active(void) {
  if (skip()) return;
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "token-merge=0.25", SMALL);
  tester_push(t, 0);
  g_autoptr(GstStructure) active = NULL;
  g_object_get(t->element, "active", &active, NULL);
  g_assert_true(g_str_has_prefix(gst_structure_get_string(active, "token-merge"), "0.25 ("));
}

/* JSON knows no comma inside a number: "123,4" would be two values, or a name without quotes. */
static void test_trace(void) {
  if (skip()) return;
  g_autofree gchar *folder = g_dir_make_tmp("fluxkontext-XXXXXX", NULL),
                   *path = g_build_filename(folder, "t.json", NULL);
  g_autoptr(Tester) t = tester_new(NULL_ENGINE);
  g_object_set(t->element, "trace-file", path, NULL);
  tester_play(t, SMALL);
  tester_push(t, 0);
  g_autofree gchar *trace = NULL;
  g_assert_true(g_file_get_contents(path, &trace, NULL, NULL));
  g_autoptr(GRegex) comma = g_regex_new("[0-9],[0-9]", 0, 0, NULL);
  g_assert_false(g_regex_match(comma, trace, 0, NULL));
  g_autoptr(GRegex) point = g_regex_new("[0-9]\\.[0-9]", 0, 0, NULL);
  g_assert_true(g_regex_match(point, trace, 0, NULL));
  g_remove(path);
  g_rmdir(folder);
}

/* The installed presets, and one that is saved and loaded. */
static void test_presets(void) {
  gdouble guidance;
  if (skip()) return;
  g_autoptr(Tester) t = tester_new("");
  GstPreset *preset = GST_PRESET(t->element);
  g_assert_true(gst_preset_load_preset(preset, "Production"));
  g_object_get(t->element, "guidance", &guidance, NULL);
  g_assert_cmpfloat(guidance, ==, 4);
  g_object_set(t->element, "guidance", 1.5, NULL);
  g_assert_true(gst_preset_save_preset(preset, "Comma"));
  g_object_set(t->element, "guidance", 2.0, NULL);
  g_assert_true(gst_preset_load_preset(preset, "Comma"));
  g_object_get(t->element, "guidance", &guidance, NULL);
  g_assert_cmpfloat(guidance, ==, 1.5);
  g_assert_true(gst_preset_delete_preset(preset, "Comma"));
}

static void add_tests(void) {
  g_test_add_func("/element/locale/comma", test_locale);
  g_test_add_func("/element/locale/properties", test_properties);
  g_test_add_func("/element/locale/message", test_message);
  g_test_add_func("/element/locale/active", test_active);
  g_test_add_func("/element/locale/trace", test_trace);
  g_test_add_func("/element/locale/presets", test_presets);
}

/* The locale is set before any thread runs. Presets and the locale go to a folder of this run. */
int main(int argc, char **argv) {
  g_autofree gchar *folder = g_dir_make_tmp("fluxkontext-XXXXXX", NULL);
  has_comma = find_locale() || make_locale(folder);
  g_setenv("XDG_DATA_HOME", folder, TRUE);
  int result = tester_main(&argc, &argv, add_tests);
  drop_tree(folder);
  return result;
}
