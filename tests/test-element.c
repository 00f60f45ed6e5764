/* SPDX-License-Identifier: Apache-2.0 */
/* The element as such: registration, properties against the engine's table, presets, controller, states. */
#include "fk.h"
#include "test-count.h"
#include "test-element-util.h"
#include "test-held.h"

#include <gst/controller/gstdirectcontrolbinding.h>
#include <gst/controller/gstinterpolationcontrolsource.h>
#include <string.h>

static void push(Tester *t, guint n) {
  g_assert_cmpint(gst_harness_push(t->h, test_frame(SMALL, n, n)), ==, GST_FLOW_OK);
}

/* ---- Registration ---- */

static void test_factory(void) {
  g_autoptr(GstElementFactory) factory = gst_element_factory_find("fluxkontextedit");
  g_assert_nonnull(factory);
  g_assert_cmpstr(gst_element_factory_get_metadata(factory, GST_ELEMENT_METADATA_KLASS), ==,
                  "Filter/Effect/Video/Hardware");
  g_assert_cmpuint(gst_plugin_feature_get_rank(GST_PLUGIN_FEATURE(factory)), ==, GST_RANK_NONE);
  g_autoptr(GstPlugin) plugin = gst_plugin_feature_get_plugin(GST_PLUGIN_FEATURE(factory));
  g_assert_cmpstr(gst_plugin_get_name(plugin), ==, "fluxkontext");
  g_assert_cmpstr(gst_plugin_get_license(plugin), ==, "Apache 2.0");
}

static void test_templates(void) {
  static const gchar *const formats[] = {"RGB",  "BGR",   "RGBx",      "BGRx",      "RGBA", "BGRA",     "NV12",
                                         "I420", "GRAY8", "P010_10LE", "Y444_16BE", "xBGR", "GBR_10LE", "v210"};
  static const gchar *const refused[] = {"video/x-raw,format=RGB8P,width=8,height=8,framerate=1/1",
                                         "video/x-raw,format=NV12_64Z32,width=8,height=8,framerate=1/1",
                                         "video/x-raw(memory:DMABuf),format=RGB,width=8,height=8,framerate=1/1"};
  g_autoptr(Tester) t = tester_new("");
  for (guint side = 0; side < 2; side++) {
    g_autoptr(GstPad) pad = gst_element_get_static_pad(t->element, side ? "src" : "sink");
    g_autoptr(GstCaps) all = gst_pad_get_pad_template_caps(pad);
    for (guint i = 0; i < G_N_ELEMENTS(formats); i++) {
      g_autoptr(GstCaps) caps =
          gst_caps_new_simple("video/x-raw", "format", G_TYPE_STRING, formats[i], "width", G_TYPE_INT, 1, "height",
                              G_TYPE_INT, 8191, "framerate", GST_TYPE_FRACTION, 0, 1, NULL);
      g_assert_true(gst_caps_is_subset(caps, all));
    }
    for (guint i = 0; i < G_N_ELEMENTS(refused); i++) {
      g_autoptr(GstCaps) other = gst_caps_from_string(refused[i]);
      g_assert_false(gst_caps_can_intersect(other, all));
    }
  }
}

/* ---- Properties ---- */

static GType type_of_kind(FkKind kind) {
  static const GType types[] = {
      [FK_KIND_BOOL] = G_TYPE_BOOLEAN,  [FK_KIND_INT] = G_TYPE_INT,       [FK_KIND_UINT64] = G_TYPE_UINT64,
      [FK_KIND_DOUBLE] = G_TYPE_DOUBLE, [FK_KIND_STRING] = G_TYPE_STRING, [FK_KIND_ENUM] = G_TYPE_ENUM,
      [FK_KIND_SWITCH] = G_TYPE_ENUM};
  return types[kind];
}

static void assert_range(const FkProperty *row, GParamSpec *spec) {
  if (row->kind == FK_KIND_INT) {
    g_assert_cmpint(G_PARAM_SPEC_INT(spec)->minimum, ==, row->min);
    g_assert_cmpint(G_PARAM_SPEC_INT(spec)->maximum, ==, row->max);
  }
  if (row->kind == FK_KIND_DOUBLE) {
    g_assert_cmpfloat(G_PARAM_SPEC_DOUBLE(spec)->minimum, ==, row->min);
    g_assert_cmpfloat(G_PARAM_SPEC_DOUBLE(spec)->maximum, ==, row->max);
  }
  if (row->kind == FK_KIND_SWITCH) g_assert_cmpstr(g_type_name(spec->value_type), ==, "GstFluxKontextSwitch");
  if (row->kind != FK_KIND_ENUM) return;
  GEnumClass *klass = G_PARAM_SPEC_ENUM(spec)->enum_class;
  g_assert_cmpuint(klass->n_values, ==, g_strv_length((gchar **)row->values));
  for (guint i = 0; i < klass->n_values; i++) g_assert_cmpstr(klass->values[i].value_nick, ==, row->values[i]);
}

/* Each row of the engine's table is a property of the same name, kind, range, flags and default. */
static void test_table(void) {
  g_autoptr(Tester) t = tester_new("");
  size_t count;
  const FkProperty *rows = fk_properties(&count);
  for (size_t i = 0; i < count; i++) {
    GParamSpec *spec = g_object_class_find_property(G_OBJECT_GET_CLASS(t->element), rows[i].name);
    g_assert_nonnull(spec);
    g_assert_true(g_type_is_a(spec->value_type, type_of_kind(rows[i].kind)));
    g_assert_cmpstr(g_param_spec_get_nick(spec), ==, rows[i].nick);
    g_assert_cmpstr(g_param_spec_get_blurb(spec), ==, rows[i].help);
    g_assert_cmpint(!!(spec->flags & GST_PARAM_MUTABLE_PLAYING), ==, rows[i].playing);
    g_assert_cmpint(!!(spec->flags & GST_PARAM_MUTABLE_READY), ==, !rows[i].playing);
    g_assert_cmpint(!!(spec->flags & GST_PARAM_CONTROLLABLE), ==, rows[i].controllable);
    assert_range(&rows[i], spec);
    g_auto(GValue) value = G_VALUE_INIT;
    g_object_get_property(G_OBJECT(t->element), rows[i].name, &value);
    g_assert_true(g_param_value_defaults(spec, &value));
  }
}

static void test_own_defaults(void) {
  g_autoptr(Tester) t = tester_new("");
  gint batch, seed_mode, on_error;
  gboolean async, keep, warmup, progress, latency, qos;
  g_object_get(t->element, "batch-size", &batch, "seed-mode", &seed_mode, "on-error", &on_error, "async-load", &async,
               "keep-loaded", &keep, "warmup", &warmup, "progress", &progress, "report-latency", &latency, "qos", &qos,
               NULL);
  g_assert_cmpint(batch, ==, 1);
  g_assert_cmpint(seed_mode, ==, 0);
  g_assert_cmpint(on_error, ==, 0);
  g_assert_true(async && progress && latency);
  g_assert_false(keep || warmup || qos);
}

/* Values at the ends of a range come back as they went in, doubles bit for bit. */
static void test_round_trip(void) {
  g_autoptr(Tester) t = tester_new("");
  GObject *object = G_OBJECT(t->element);
  guint n;
  g_autofree GParamSpec **specs = g_object_class_list_properties(G_OBJECT_GET_CLASS(object), &n);
  for (guint i = 0; i < n; i++) {
    if (!(specs[i]->flags & G_PARAM_WRITABLE)) continue;
    for (guint end = 0; end < 2; end++) {
      g_auto(GValue) in = G_VALUE_INIT, out = G_VALUE_INIT;
      g_value_init(&in, specs[i]->value_type);
      if (G_IS_PARAM_SPEC_INT(specs[i]))
        g_value_set_int(&in, end ? G_PARAM_SPEC_INT(specs[i])->maximum : G_PARAM_SPEC_INT(specs[i])->minimum);
      else if (G_IS_PARAM_SPEC_UINT64(specs[i]))
        g_value_set_uint64(&in, end ? G_MAXUINT64 : 0);
      else if (G_IS_PARAM_SPEC_DOUBLE(specs[i]))
        g_value_set_double(&in,
                           end ? G_PARAM_SPEC_DOUBLE(specs[i])->maximum : G_PARAM_SPEC_DOUBLE(specs[i])->maximum / 3);
      else if (G_IS_PARAM_SPEC_BOOLEAN(specs[i]))
        g_value_set_boolean(&in, end != 0);
      else if (G_IS_PARAM_SPEC_ENUM(specs[i]))
        g_value_set_enum(&in, end ? (gint)G_PARAM_SPEC_ENUM(specs[i])->enum_class->n_values - 1 : 0);
      else if (G_IS_PARAM_SPEC_STRING(specs[i]) && strcmp(specs[i]->name, "name") != 0)
        g_value_set_string(&in, end ? "Grüße 🌙" : "");
      else
        continue;
      g_object_set_property(object, specs[i]->name, &in);
      g_object_get_property(object, specs[i]->name, &out);
      g_assert_cmpint(g_param_values_cmp(specs[i], &in, &out), ==, 0);
    }
  }
}

static void test_out_of_range(gconstpointer data) {
  const gchar *const *pair = data; /* name, value */
  g_autoptr(Tester) t = tester_new("");
  g_auto(GValue) before = G_VALUE_INIT, after = G_VALUE_INIT, value = G_VALUE_INIT;
  g_object_get_property(G_OBJECT(t->element), pair[0], &before);
  g_value_init(&value, G_TYPE_INT64);
  g_value_set_int64(&value, g_ascii_strtoll(pair[1], NULL, 10));
  g_test_expect_message("GLib-GObject", G_LOG_LEVEL_WARNING, "*invalid or out of range*");
  g_object_set_property(G_OBJECT(t->element), pair[0], &value);
  g_test_assert_expected_messages();
  g_object_get_property(G_OBJECT(t->element), pair[0], &after);
  g_assert_cmpint(gst_value_compare(&before, &after), ==, GST_VALUE_EQUAL);
}

static void count_notify(GObject *object, GParamSpec *spec, gpointer data) {
  (void)object;
  (void)spec;
  g_atomic_int_inc((gint *)data);
}

static void test_notify(void) {
  g_autoptr(Tester) t = tester_new("");
  gint count = 0;
  g_signal_connect(t->element, "notify::guidance", G_CALLBACK(count_notify), &count);
  g_object_set(t->element, "guidance", 3.0, "steps", 4, NULL);
  g_object_set(t->element, "guidance", 4.0, NULL);
  g_assert_cmpint(count, ==, 2);
}

typedef struct {
  GstElement *element;
  gint *stop;
  guint seed;
} Setter;

static gpointer set_at_random(gpointer data) {
  const Setter *s = data;
  g_autoptr(GRand) random = g_rand_new_with_seed(s->seed);
  while (!g_atomic_int_get(s->stop)) {
    g_autofree gchar *prompt = g_strdup_printf("prompt %u", g_rand_int(random));
    g_autoptr(GstStructure) stats = NULL, active = NULL;
    gdouble guidance;
    gchar *read = NULL;
    g_object_set(s->element, "prompt", prompt, "guidance", g_rand_double_range(random, 0, 10), "steps",
                 g_rand_int_range(random, 1, 3), "seed", (guint64)g_rand_int(random), NULL);
    g_object_get(s->element, "guidance", &guidance, "prompt", &read, "stats", &stats, "active", &active, NULL);
    g_assert_true(guidance >= 0 && guidance <= 10);
    g_assert_true(g_str_has_prefix(read, "prompt "));
    g_free(read);
  }
  return NULL;
}

static void test_threads(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "batch-size=2 progress=false prompt=\"prompt 0\"", SMALL);
  gint stop = 0;
  Setter setters[8];
  GThread *threads[8];
  for (guint i = 0; i < 8; i++) {
    setters[i] = (Setter){t->element, &stop, i};
    threads[i] = g_thread_new("setter", set_at_random, &setters[i]);
  }
  guint frames = 0;
  for (gint64 end = g_get_monotonic_time() + test_count(2) * G_USEC_PER_SEC; g_get_monotonic_time() < end; frames++)
    push(t, frames);
  g_atomic_int_set(&stop, 1);
  for (guint i = 0; i < 8; i++) g_thread_join(threads[i]);
  gst_harness_push_event(t->h, gst_event_new_eos());
  g_assert_cmpuint(gst_harness_buffers_received(t->h), ==, frames);
  tester_collect(t);
  g_assert_cmpuint(t->errors, ==, 0);
}

/* A property for READY, set while frames flow, keeps its old effect until the next start. */
static void test_ready_only(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, SMALL);
  push(t, 0);
  g_object_set(t->element, "batch-size", 3, NULL);
  gst_util_set_object_arg(G_OBJECT(t->element), "size-mode", "native");
  push(t, 1);
  g_assert_cmpuint(gst_harness_buffers_received(t->h), ==, 2);
  g_autoptr(GstBuffer) out = gst_harness_pull(t->h);
  g_assert_cmpuint(gst_buffer_get_size(out), ==, 64 * 48 * 3);
  gint batch;
  g_object_get(t->element, "batch-size", &batch, NULL);
  g_assert_cmpint(batch, ==, 3);
}

/* ---- Controller ---- */

static void test_controller(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE, SMALL);
  GstControlSource *source = gst_interpolation_control_source_new();
  g_object_set(source, "mode", GST_INTERPOLATION_MODE_LINEAR, NULL);
  gst_timed_value_control_source_set(GST_TIMED_VALUE_CONTROL_SOURCE(source), 0, 0.0);
  gst_timed_value_control_source_set(GST_TIMED_VALUE_CONTROL_SOURCE(source), GST_SECOND, 1.0);
  gst_object_add_control_binding(GST_OBJECT(t->element),
                                 gst_direct_control_binding_new(GST_OBJECT(t->element), "guidance", source));
  gst_object_unref(source);
  for (guint n = 0; n <= 10; n += 5) {
    gdouble guidance;
    push(t, n);
    g_object_get(t->element, "guidance", &guidance, NULL);
    g_assert_cmpfloat_with_epsilon(guidance, 10.0 * n, 1e-6); /* 0..100 over one second, 100 ms a frame */
  }
}

/* ---- Presets ---- */

static void test_preset_file(void) {
  g_autoptr(Tester) t = tester_new("");
  gint steps;
  gdouble guidance;
  guint64 seed;
  g_assert_true(gst_preset_load_preset(GST_PRESET(t->element), "Production"));
  g_object_get(t->element, "steps", &steps, "guidance", &guidance, "seed", &seed, NULL);
  g_assert_cmpint(steps, ==, 20);
  g_assert_cmpfloat(guidance, ==, 4);
  g_assert_cmpuint(seed, ==, 618854);
  g_assert_true(gst_preset_load_preset(GST_PRESET(t->element), "Quick look"));
  g_object_get(t->element, "steps", &steps, NULL);
  g_assert_cmpint(steps, ==, 8);
  g_assert_false(gst_preset_load_preset(GST_PRESET(t->element), "Nothing of this name"));
}

/* What a preset of the engine decides is not written down: loaded, it decides again. */
static void test_preset_leaves_steps(void) {
  g_autoptr(Tester) t = tester_new("preset=few-step");
  GstPreset *preset = GST_PRESET(t->element);
  gint steps, scheduler;
  g_assert_true(gst_preset_save_preset(preset, "Few"));
  gst_util_set_object_arg(G_OBJECT(t->element), "preset", "exact");
  gst_util_set_object_arg(G_OBJECT(t->element), "scheduler", "heun");
  g_object_set(t->element, "steps", 28, NULL);
  g_assert_true(gst_preset_load_preset(preset, "Few"));
  g_object_get(t->element, "steps", &steps, "scheduler", &scheduler, NULL);
  g_assert_cmpint(steps, ==, 0);
  g_assert_cmpint(scheduler, ==, 0);
  g_assert_true(gst_preset_delete_preset(preset, "Few"));
}

/* In a launch line a preset is applied after the properties, wherever it stands; what it does not name stays. */
static void test_preset_launch(void) {
  g_autoptr(Tester) t = tester_new("@preset=Production steps=3 max-area=65536");
  gint steps, max_area;
  guint64 seed;
  g_object_get(t->element, "steps", &steps, "seed", &seed, "max-area", &max_area, NULL);
  g_assert_cmpint(steps, ==, 20);
  g_assert_cmpuint(seed, ==, 618854);
  g_assert_cmpint(max_area, ==, 65536);
}

static void test_preset_round_trip(void) {
  g_autoptr(Tester) t = tester_new("");
  GstPreset *preset = GST_PRESET(t->element);
  g_object_set(t->element, "prompt", "make it night", "guidance", 1.0 / 3, "seed", G_MAXUINT64, "model-path", "/one",
               NULL);
  gst_util_set_object_arg(G_OBJECT(t->element), "scheduler", "heun");
  gst_util_set_object_arg(G_OBJECT(t->element), "prompt-cache", "off");
  g_assert_true(gst_preset_save_preset(preset, "Mine"));
  g_object_set(t->element, "prompt", "kept", "guidance", 1.0, "seed", (guint64)0, "model-path", "/two", NULL);
  gst_util_set_object_arg(G_OBJECT(t->element), "scheduler", "euler");
  gst_util_set_object_arg(G_OBJECT(t->element), "prompt-cache", "auto");
  g_assert_true(gst_preset_load_preset(preset, "Mine"));
  g_autofree gchar *prompt = NULL, *path = NULL;
  gdouble guidance;
  guint64 seed;
  gint scheduler, cache;
  g_object_get(t->element, "prompt", &prompt, "guidance", &guidance, "seed", &seed, "scheduler", &scheduler,
               "prompt-cache", &cache, "model-path", &path, NULL);
  g_assert_cmpfloat_with_epsilon(guidance, 1.0 / 3, 1e-12);
  g_assert_cmpuint(seed, ==, G_MAXUINT64);
  g_assert_cmpint(scheduler, ==, 5);
  g_assert_cmpint(cache, ==, 2);
  g_assert_cmpstr(prompt, ==, "kept"); /* what to edit and where the model lies are no matter of a preset */
  g_assert_cmpstr(path, ==, "/two");
  g_assert_true(gst_preset_delete_preset(preset, "Mine"));
  g_assert_false(gst_preset_load_preset(preset, "Mine"));
}

/* ---- States ---- */

static void set_state(Tester *t, GstState state) {
  g_assert_cmpint(gst_element_set_state(t->element, state), ==, GST_STATE_CHANGE_SUCCESS);
}

static void test_null_ready(void) {
  g_autoptr(Tester) t = tester_new(""); /* no model: not needed before PAUSED */
  for (guint i = 0; i < 1000; i++) {
    set_state(t, GST_STATE_READY);
    set_state(t, GST_STATE_NULL);
  }
  tester_collect(t);
  g_assert_cmpuint(t->errors + t->warnings, ==, 0);
}

/* Threads and open files return to what they were. */
static void test_ready_paused(gconstpointer data) {
  g_autofree gchar *properties = g_strdup_printf(NULL_ENGINE "async-load=%s", (const gchar *)data);
  g_autoptr(Tester) t = tester_new(properties);
  set_state(t, GST_STATE_PAUSED);
  set_state(t, GST_STATE_READY);
  guint threads = held_threads(G_MAXUINT), files = held_files();
  for (guint i = 0; i < 100; i++) {
    set_state(t, GST_STATE_PAUSED);
    set_state(t, GST_STATE_READY);
  }
  g_assert_cmpuint(held_threads(threads), ==, threads);
  g_assert_cmpuint(held_files(), ==, files);
  tester_collect(t);
  g_assert_cmpuint(t->errors, ==, 0);
  g_assert_cmpuint(t->starts, ==, 101);
  g_assert_cmpuint(t->ends, ==, 101);
}

static void test_state_walks(void) {
  static const GstState walks[][6] = {
      {GST_STATE_READY, GST_STATE_PAUSED, GST_STATE_PLAYING, GST_STATE_PAUSED, GST_STATE_READY, GST_STATE_NULL},
      {GST_STATE_PLAYING, GST_STATE_NULL, GST_STATE_PLAYING, GST_STATE_READY, GST_STATE_PLAYING, GST_STATE_NULL},
      {GST_STATE_PAUSED, GST_STATE_PLAYING, GST_STATE_PAUSED, GST_STATE_NULL, GST_STATE_PAUSED, GST_STATE_NULL}};
  g_autoptr(Tester) t = tester_new(NULL_ENGINE);
  for (guint run = 0; run < 20; run++)
    for (guint w = 0; w < G_N_ELEMENTS(walks); w++)
      for (guint i = 0; i < G_N_ELEMENTS(walks[w]); i++) set_state(t, walks[w][i]);
  tester_collect(t);
  g_assert_cmpuint(t->errors, ==, 0);
}

/* What belongs to the stream is gone after READY: counts, waiting frames, the frame number of seed-mode. */
static void test_restart(void) {
  g_autoptr(Tester) t = tester_new_playing(NULL_ENGINE "batch-size=2 seed=3 seed-mode=increment", SMALL);
  for (guint n = 0; n < 3; n++) push(t, n);
  g_assert_cmpuint(stat_uint64(t->element, "frames"), ==, 2);
  set_state(t, GST_STATE_READY);
  set_state(t, GST_STATE_PLAYING);
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  gst_harness_push_event(t->h, gst_event_new_stream_start("again"));
  gst_harness_set_src_caps_str(t->h, SMALL);
  gst_harness_push_event(t->h, gst_event_new_segment(&segment));
  push(t, 0);
  g_assert_cmpuint(stat_uint64(t->element, "frames"), ==, 0);
  push(t, 1);
  g_assert_cmpuint(stat_uint64(t->element, "frames"), ==, 2);
  g_assert_cmpuint(stat_uint64(t->element, "seed"), ==, 4);
}

static void add_tests(void) {
  static const gchar *const out_of_range[][2] = {{"steps", "-1"},      {"steps", "1001"},        {"batch-size", "0"},
                                                 {"batch-size", "65"}, {"cuda-device-id", "-2"}, {"max-area", "-1"}};
  g_test_add_func("/element/factory", test_factory);
  g_test_add_func("/element/templates", test_templates);
  g_test_add_func("/element/properties/table", test_table);
  g_test_add_func("/element/properties/own-defaults", test_own_defaults);
  g_test_add_func("/element/properties/round-trip", test_round_trip);
  for (gsize i = 0; i < G_N_ELEMENTS(out_of_range); i++) {
    g_autofree gchar *name =
        g_strdup_printf("/element/properties/out-of-range/%s/%s", out_of_range[i][0], out_of_range[i][1]);
    g_test_add_data_func(name, out_of_range[i], test_out_of_range);
  }
  g_test_add_func("/element/properties/notify", test_notify);
  g_test_add_func("/element/properties/eight-threads", test_threads);
  g_test_add_func("/element/properties/ready-only", test_ready_only);
  g_test_add_func("/element/properties/controller", test_controller);
  g_test_add_func("/element/preset/file", test_preset_file);
  g_test_add_func("/element/preset/launch", test_preset_launch);
  g_test_add_func("/element/preset/leaves-steps", test_preset_leaves_steps);
  g_test_add_func("/element/preset/round-trip", test_preset_round_trip);
  g_test_add_func("/element/state/null-ready", test_null_ready);
  g_test_add_data_func("/element/state/ready-paused/async", "true", test_ready_paused);
  g_test_add_data_func("/element/state/ready-paused/sync", "false", test_ready_paused);
  g_test_add_func("/element/state/walks", test_state_walks);
  g_test_add_func("/element/state/restart", test_restart);
}

/* Presets are saved under XDG_DATA_HOME: not the user's. */
int main(int argc, char **argv) {
  g_autofree gchar *home = g_dir_make_tmp("fluxkontext-XXXXXX", NULL);
  g_setenv("XDG_DATA_HOME", home, TRUE);
  int result = tester_main(&argc, &argv, add_tests);
  drop_tree(home);
  return result;
}
