/* SPDX-License-Identifier: Apache-2.0 */
/* The element's property values (gst/gstfluxkontextprops.c) without an element: numbers as text, settings that frames
 * share, values that the table refuses. */
#include "../gst/gstfluxkontextprops.h"

#include <string.h>

/* The id of a row of the table, as the element's class installs it. */
static guint id_of(const gchar *name) {
  size_t count;
  const FkProperty *rows = fk_properties(&count);
  guint i = 0;
  while (strcmp(rows[i].name, name) != 0) i++;
  return GST_FLUX_KONTEXT_PROP_TABLE + i;
}

static void set_double(GstFluxKontextProps *props, const gchar *name, gdouble number) {
  g_auto(GValue) value = G_VALUE_INIT;
  gboolean later;
  g_value_init(&value, G_TYPE_DOUBLE);
  g_value_set_double(&value, number);
  g_assert_true(gst_flux_kontext_props_set(props, id_of(name), &value, &later));
}

static void set_string(GstFluxKontextProps *props, const gchar *name, const gchar *text) {
  g_auto(GValue) value = G_VALUE_INIT;
  gboolean later;
  g_value_init(&value, G_TYPE_STRING);
  g_value_set_string(&value, text);
  g_assert_true(gst_flux_kontext_props_set(props, id_of(name), &value, &later));
}

/* ---- Numbers ---- */

/* As a person writes them: these texts stand in error messages. */
static void test_number_texts(void) {
  static const struct {
    gdouble value;
    const gchar *text;
  } cases[] = {{0.3, "0.3"},
               {0.1 + 0.2, "0.30000000000000004"},
               {2.5, "2.5"},
               {100, "100"},
               {1.0 / 3, "0.3333333333333333"},
               {1e-7, "1e-07"},
               {0, "0"},
               {12.345678, "12.345678"}};
  GstFluxKontextProps props;
  gst_flux_kontext_props_init(&props);
  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    set_double(&props, "guidance", cases[i].value);
    g_assert_cmpstr(fk_settings_get(props.settings, "guidance"), ==, cases[i].text);
  }
  gst_flux_kontext_props_clear(&props);
}

/* Whatever bits go in come out. */
static void test_number_bits(void) {
  GstFluxKontextProps props;
  g_autoptr(GRand) random = g_rand_new_with_seed(5);
  gst_flux_kontext_props_init(&props);
  for (guint i = 0; i < 10000; i++) {
    gdouble in = g_rand_double_range(random, 0, 100), out;
    g_auto(GValue) value = G_VALUE_INIT;
    set_double(&props, "guidance", in);
    g_value_init(&value, G_TYPE_DOUBLE);
    g_assert_true(gst_flux_kontext_props_get(&props, id_of("guidance"), &value));
    out = g_value_get_double(&value);
    g_assert_cmpint(memcmp(&in, &out, sizeof(in)), ==, 0);
  }
  gst_flux_kontext_props_clear(&props);
}

/* ---- Settings that frames share ---- */

static void test_shared_until_changed(void) {
  GstFluxKontextProps props;
  gst_flux_kontext_props_init(&props);
  g_autoptr(GstFluxKontextSettings) one = gst_flux_kontext_props_next(&props, NULL);
  g_autoptr(GstFluxKontextSettings) two = gst_flux_kontext_props_next(&props, NULL);
  g_autoptr(GstFluxKontextSettings) asked = gst_flux_kontext_props_live(&props);
  g_assert_true(one == two);
  g_assert_true(one == asked);
  set_double(&props, "guidance", 3);
  g_autoptr(GstFluxKontextSettings) three = gst_flux_kontext_props_next(&props, NULL);
  g_assert_true(three != one);
  g_assert_cmpstr(fk_settings_get(one->values, "guidance"), ==, "2.5"); /* a frame keeps what it entered with */
  g_assert_cmpstr(fk_settings_get(three->values, "guidance"), ==, "3");
  g_assert_false(gst_flux_kontext_settings_batchable(one, three));
  gst_flux_kontext_props_clear(&props);
}

/* What was checked is checked again after a change. */
static void test_checked_again(void) {
  GstFluxKontextProps props;
  g_autoptr(GError) error = NULL;
  gst_flux_kontext_props_init(&props);
  gst_flux_kontext_settings_unref(gst_flux_kontext_props_next(&props, NULL));
  set_string(&props, "step-cache-mask", "0");
  g_assert_null(gst_flux_kontext_props_next(&props, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
  set_string(&props, "step-cache-mask", "");
  g_autoptr(GstFluxKontextSettings) good = gst_flux_kontext_props_next(&props, NULL);
  g_assert_nonnull(good);
  gst_flux_kontext_props_clear(&props);
}

static void test_seeds_differ(void) {
  GstFluxKontextProps props;
  gst_flux_kontext_props_init(&props);
  props.seed_mode = GST_FLUX_KONTEXT_SEED_MODE_INCREMENT;
  g_autoptr(GstFluxKontextSettings) one = gst_flux_kontext_props_next(&props, NULL);
  g_autoptr(GstFluxKontextSettings) two = gst_flux_kontext_props_next(&props, NULL);
  g_assert_cmpstr(fk_settings_get(one->values, "seed"), ==, "0");
  g_assert_cmpstr(fk_settings_get(two->values, "seed"), ==, "1");
  g_assert_true(gst_flux_kontext_settings_batchable(one, two));
  gst_flux_kontext_props_clear(&props);
}

/* ---- Values that the table refuses ---- */

/* Read back as set, an error where they would be used, and forgotten when a good one is set. */
static void test_refused(void) {
  GstFluxKontextProps props;
  g_autoptr(GError) setting = NULL, option = NULL;
  g_auto(GValue) value = G_VALUE_INIT;
  gst_flux_kontext_props_init(&props);
  set_string(&props, "prompt", "night \xc3(");
  set_string(&props, "model-path", "/models/\xff");
  g_value_init(&value, G_TYPE_STRING);
  gst_flux_kontext_props_get(&props, id_of("prompt"), &value);
  g_assert_cmpstr(g_value_get_string(&value), ==, "night \xc3(");
  g_assert_null(gst_flux_kontext_props_start(&props, &option));
  g_assert_error(option, FK_ERROR, FK_ERROR_OPTION_BAD);
  g_assert_true(g_str_has_prefix(option->message, "model-path"));
  g_assert_null(gst_flux_kontext_props_next(&props, &setting));
  g_assert_error(setting, FK_ERROR, FK_ERROR_OPTION_BAD);
  g_assert_true(g_str_has_prefix(setting->message, "prompt"));
  set_string(&props, "prompt", "night");
  set_string(&props, "model-path", NULL);
  g_autoptr(FkOptions) options = gst_flux_kontext_props_start(&props, NULL);
  g_autoptr(GstFluxKontextSettings) settings = gst_flux_kontext_props_next(&props, NULL);
  g_assert_nonnull(options);
  g_assert_nonnull(settings);
  gst_flux_kontext_props_clear(&props);
}

/* A row that is an option and a setting is set as both. Enumerations have types once a class has the properties. */
typedef GObject Host;
typedef GObjectClass HostClass;
static GType host_get_type(void);
G_DEFINE_TYPE(Host, host, G_TYPE_OBJECT)

static void no_set(GObject *object, guint id, const GValue *value, GParamSpec *spec) {
  (void)object, (void)id, (void)value, (void)spec;
}

static void no_get(GObject *object, guint id, GValue *value, GParamSpec *spec) {
  (void)object, (void)id, (void)value, (void)spec;
}

static void host_class_init(HostClass *klass) {
  klass->set_property = no_set;
  klass->get_property = no_get;
  gst_flux_kontext_props_install(klass);
}

static void host_init(Host *host) {
  (void)host;
}

static void test_both(void) {
  g_autoptr(GTypeClass) klass = g_type_class_ref(host_get_type());
  GstFluxKontextProps props;
  g_auto(GValue) value = G_VALUE_INIT;
  gboolean later;
  gst_flux_kontext_props_init(&props);
  g_value_init(&value, g_object_class_find_property(G_OBJECT_CLASS(klass), "preset")->value_type);
  g_value_set_enum(&value, 3);
  g_assert_true(gst_flux_kontext_props_set(&props, id_of("preset"), &value, &later));
  g_assert_cmpstr(fk_settings_get(props.settings, "preset"), ==, "fast");
  g_assert_cmpstr(fk_settings_get(props.live->values, "preset"), ==, "fast");
  g_assert_cmpstr(fk_options_get(props.options, "preset"), ==, "fast");
  gst_flux_kontext_props_clear(&props);
}

int main(int argc, char **argv) {
  gst_init(&argc, &argv);
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/element/props/numbers/texts", test_number_texts);
  g_test_add_func("/element/props/numbers/bits", test_number_bits);
  g_test_add_func("/element/props/settings/shared-until-changed", test_shared_until_changed);
  g_test_add_func("/element/props/settings/checked-again", test_checked_again);
  g_test_add_func("/element/props/settings/seeds-differ", test_seeds_differ);
  g_test_add_func("/element/props/refused", test_refused);
  g_test_add_func("/element/props/both", test_both);
  return g_test_run();
}
