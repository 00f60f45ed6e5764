/* SPDX-License-Identifier: Apache-2.0 */
/* GObject properties made from the engine's table. Values are kept as the engine's own text: the table's parser is the
 * only one. A value that it refuses is kept, read back as it was set, and reported as an error where it would be used.
 *
 * Not here: locks, messages, and the properties that hold objects (engine, stats, active). */
#include "gstfluxkontextprops.h"

#include <string.h>

#define FLAGS (G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS)
#define READY (FLAGS | GST_PARAM_MUTABLE_READY)
#define PLAYING (FLAGS | GST_PARAM_MUTABLE_PLAYING)

/* The types of the element's own enumerations, made on first use from any thread; the gst-inspect pages show their
 * names, so these are an interface. */
static GType seed_mode_type(void) {
  static gsize type;
  static const GEnumValue values[] = {
      {GST_FLUX_KONTEXT_SEED_MODE_FIXED, "Every frame uses seed", "fixed"},
      {GST_FLUX_KONTEXT_SEED_MODE_INCREMENT, "Frame n since start, or since seed was set, uses seed + n", "increment"},
      {0, NULL, NULL}};
  if (g_once_init_enter(&type)) g_once_init_leave(&type, g_enum_register_static("GstFluxKontextSeedMode", values));
  return type;
}

static GType on_error_type(void) {
  static gsize type;
  static const GEnumValue values[] = {
      {GST_FLUX_KONTEXT_ON_ERROR_FAIL, "Post an error and stop", "fail"},
      {GST_FLUX_KONTEXT_ON_ERROR_PASSTHROUGH, "Push the unedited frame and count it", "passthrough"},
      {GST_FLUX_KONTEXT_ON_ERROR_DROP, "Drop the frame and count it", "drop"},
      {0, NULL, NULL}};
  if (g_once_init_enter(&type)) g_once_init_leave(&type, g_enum_register_static("GstFluxKontextOnError", values));
  return type;
}

/* One type for all of the table's switches: an application that knows one knows all. */
static GType switch_type(void) {
  static gsize type;
  static const GEnumValue values[] = {{0, "As the preset, machine and size decide", "auto"},
                                      {1, "On; an error where it is not available", "on"},
                                      {2, "Off", "off"},
                                      {0, NULL, NULL}};
  if (g_once_init_enter(&type)) g_once_init_leave(&type, g_enum_register_static("GstFluxKontextSwitch", values));
  return type;
}

/* "size-mode" -> GstFluxKontextSizeMode, values in the table's order. Called once for each row, from class_init. */
static GType table_enum_type(const FkProperty *row) {
  g_autoptr(GString) name = g_string_new("GstFluxKontext");
  gboolean upper = TRUE;
  for (const char *c = row->name; *c; c++) {
    if (*c != '-') g_string_append_c(name, upper ? g_ascii_toupper(*c) : *c);
    upper = *c == '-';
  }
  guint n = g_strv_length((gchar **)row->values);
  GEnumValue *values = g_new0(GEnumValue, n + 1); /* lives as long as the type: for ever */
  for (guint i = 0; i < n; i++)
    values[i] = (GEnumValue){(gint)i, row->meaning ? row->meaning[i] : row->values[i], row->values[i]};
  return g_enum_register_static(name->str, values);
}

/* Value of a nick; 0, which is each type's first value and default, for a text that is none. */
static gint enum_from_text(GType type, const char *text) {
  g_autoptr(GEnumClass) klass = g_type_class_ref(type);
  const GEnumValue *value = text ? g_enum_get_value_by_nick(klass, text) : NULL;
  return value ? value->value : 0;
}

/* Nick of an enumeration's value, as the table spells it. */
static const char *enum_to_text(const GValue *value) {
  g_autoptr(GEnumClass) klass = g_type_class_ref(G_VALUE_TYPE(value));
  const GEnumValue *found = g_enum_get_value(klass, g_value_get_enum(value));
  return found ? found->value_nick : NULL; /* a nick is static: it outlives the class reference */
}

/* The table's spelling: exactly "true" or "false". */
static gboolean bool_from_text(const char *text) {
  return g_strcmp0(text, "true") == 0;
}

/* One row as a GParamSpec: its strings are static, so they are not copied. A row without a default starts at NULL
 * (texts) or 0. */
static GParamSpec *table_spec(const FkProperty *row) {
  GParamFlags flags = (GParamFlags)(FLAGS | (row->playing ? GST_PARAM_MUTABLE_PLAYING : GST_PARAM_MUTABLE_READY));
  if (row->controllable) flags |= GST_PARAM_CONTROLLABLE;
  const char *initial = row->initial ? row->initial : "0";
  switch (row->kind) {
  case FK_KIND_BOOL: return g_param_spec_boolean(row->name, row->nick, row->help, bool_from_text(row->initial), flags);
  case FK_KIND_INT:
    return g_param_spec_int(row->name, row->nick, row->help, (gint)row->min, (gint)MIN(row->max, G_MAXINT),
                            (gint)g_ascii_strtoll(initial, NULL, 10), flags);
  case FK_KIND_UINT64:
    return g_param_spec_uint64(row->name, row->nick, row->help, 0, G_MAXUINT64, g_ascii_strtoull(initial, NULL, 10),
                               flags);
  case FK_KIND_DOUBLE:
    return g_param_spec_double(row->name, row->nick, row->help, row->min, row->max, g_ascii_strtod(initial, NULL),
                               flags);
  case FK_KIND_STRING: return g_param_spec_string(row->name, row->nick, row->help, row->initial, flags);
  case FK_KIND_ENUM:
  case FK_KIND_SWITCH: break;
  }
  GType type = row->kind == FK_KIND_SWITCH ? switch_type() : table_enum_type(row);
  gst_type_mark_as_plugin_api(type, 0);
  return g_param_spec_enum(row->name, row->nick, row->help, type, enum_from_text(type, row->initial), flags);
}

/* The element's own properties, which the engine knows nothing of. */
static void install_own(GObjectClass *klass) {
  gst_type_mark_as_plugin_api(seed_mode_type(), 0);
  gst_type_mark_as_plugin_api(on_error_type(), 0);
  const struct {
    guint id;
    GParamSpec *spec;
  } own[] = {
      {GST_FLUX_KONTEXT_PROP_SEED_MODE,
       g_param_spec_enum("seed-mode", "Seed mode", "Whether frames share a seed or count up from it", seed_mode_type(),
                         GST_FLUX_KONTEXT_SEED_MODE_FIXED, (GParamFlags)PLAYING)},
      {GST_FLUX_KONTEXT_PROP_BATCH_SIZE,
       g_param_spec_int("batch-size", "Batch size",
                        "Frames edited together; each result is the one that the frame would have alone", 1, 64, 1,
                        (GParamFlags)READY)},
      {GST_FLUX_KONTEXT_PROP_ASYNC_LOAD,
       g_param_spec_boolean(
           "async-load", "Asynchronous load",
           "Load weights in a thread (progress messages with code open) instead of in the state change", TRUE,
           (GParamFlags)READY)},
      {GST_FLUX_KONTEXT_PROP_KEEP_LOADED,
       g_param_spec_boolean("keep-loaded", "Keep loaded",
                            "Keep the weights in READY and NULL until the element is gone", FALSE, (GParamFlags)READY)},
      {GST_FLUX_KONTEXT_PROP_WARMUP,
       g_param_spec_boolean("warmup", "Warm-up", "Run one edit on made-up pixels before the first frame of a new size",
                            FALSE, (GParamFlags)READY)},
      {GST_FLUX_KONTEXT_PROP_ON_ERROR,
       g_param_spec_enum("on-error", "On error",
                         "What to do with a frame that cannot be edited; a device that fails is always an error",
                         on_error_type(), GST_FLUX_KONTEXT_ON_ERROR_FAIL, (GParamFlags)PLAYING)},
      {GST_FLUX_KONTEXT_PROP_PROGRESS,
       g_param_spec_boolean("progress", "Progress",
                            "Post progress messages while loading, and two messages for each step", TRUE,
                            (GParamFlags)PLAYING)},
      {GST_FLUX_KONTEXT_PROP_REPORT_LATENCY,
       g_param_spec_boolean("report-latency", "Report latency",
                            "Add the measured edit time to the latency of a live pipeline", TRUE,
                            (GParamFlags)PLAYING)},
      {GST_FLUX_KONTEXT_PROP_PREVIEW_INTERVAL,
       g_param_spec_int("preview-interval", "Preview interval",
                        "Show the running estimate after every n-th evaluation, as a message and a signal; 0: never", 0,
                        G_MAXINT, 0, (GParamFlags)PLAYING)},
      {GST_FLUX_KONTEXT_PROP_MANIFEST_PATH,
       g_param_spec_string("manifest-path", "Manifest path",
                           "Folder, or file name with %d, for a JSON record of each result", NULL,
                           (GParamFlags)PLAYING)},
      {GST_FLUX_KONTEXT_PROP_SIMILAR_FRAME,
       g_param_spec_string("similar-frame", "Similar frame",
                           "Repeat the last result for a frame that hardly differs from the one it was made of: off, "
                           "auto, or the largest difference in grey levels, 0 to 255",
                           "off", (GParamFlags)PLAYING)},
      {GST_FLUX_KONTEXT_PROP_ENGINE,
       g_param_spec_boxed("engine", "Engine", "An open engine to use instead of model-path", FK_TYPE_ENGINE,
                          (GParamFlags)READY)},
  };
  for (gsize i = 0; i < G_N_ELEMENTS(own); i++) g_object_class_install_property(klass, own[i].id, own[i].spec);
}

/* What only can be read. */
static void install_observing(GObjectClass *klass) {
  const GParamFlags flags = (GParamFlags)(G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);
  g_object_class_install_property(
      klass, GST_FLUX_KONTEXT_PROP_STATS,
      g_param_spec_boxed("stats", "Statistics",
                         "Counts since start, and times in ms, evaluations and seed of the last edit",
                         GST_TYPE_STRUCTURE, flags));
  g_object_class_install_property(klass, GST_FLUX_KONTEXT_PROP_ACTIVE,
                                  g_param_spec_boxed("active", "Active",
                                                     "Resolved value of each switch: decided (asked; why)",
                                                     GST_TYPE_STRUCTURE, flags));
}

void gst_flux_kontext_props_install(GObjectClass *klass) {
  gst_type_mark_as_plugin_api(FK_TYPE_ENGINE, 0);
  install_own(klass);
  install_observing(klass);
  size_t count;
  const FkProperty *rows = fk_properties(&count);
  for (size_t i = 0; i < count; i++)
    g_object_class_install_property(klass, (guint)(GST_FLUX_KONTEXT_PROP_TABLE + i), table_spec(&rows[i]));
}

/* ---- Settings that frames share ---- */

GstFluxKontextSettings *gst_flux_kontext_settings_new(FkSettings *values) {
  GstFluxKontextSettings *settings = g_new0(GstFluxKontextSettings, 1);
  *settings = (GstFluxKontextSettings){.values = values, .refs = 1};
  return settings;
}

GstFluxKontextSettings *gst_flux_kontext_settings_ref(GstFluxKontextSettings *settings) {
  g_atomic_int_inc(&settings->refs);
  return settings;
}

void gst_flux_kontext_settings_unref(GstFluxKontextSettings *settings) {
  if (!settings || !g_atomic_int_dec_and_test(&settings->refs)) return;
  fk_settings_free(settings->values);
  g_free(settings);
}

gboolean gst_flux_kontext_settings_batchable(const GstFluxKontextSettings *a, const GstFluxKontextSettings *b) {
  return a == b || fk_settings_batchable(a->values, b->values);
}

/* Of texts only whether they are given matters: what they say changes contents, not sizes. */
gboolean gst_flux_kontext_settings_same_memory(const GstFluxKontextSettings *a, const GstFluxKontextSettings *b) {
  size_t count;
  const FkProperty *rows = fk_properties(&count);
  for (size_t i = 0; i < count; i++) {
    if (rows[i].scope != FK_SCOPE_SETTING || !rows[i].memory) continue;
    const char *x = fk_settings_get(a->values, rows[i].name), *y = fk_settings_get(b->values, rows[i].name);
    gboolean same = rows[i].kind == FK_KIND_STRING ? (x && *x) == (y && *y) : g_strcmp0(x, y) == 0;
    if (!same) return FALSE;
  }
  return TRUE;
}

/* ---- Values ---- */

/* A text that the table refused. The user reads it back, and its error is reported where the value would be used. */
typedef struct {
  gchar *text;
  GError *error;
} Refused;

static void refused_free(gpointer data) {
  Refused *refused = data;
  g_free(refused->text);
  g_error_free(refused->error);
  g_free(refused);
}

void gst_flux_kontext_props_init(GstFluxKontextProps *props) {
  *props = (GstFluxKontextProps){.options = fk_options_new(),
                                 .settings = fk_settings_new(),
                                 .live = gst_flux_kontext_settings_new(fk_settings_new()),
                                 .refused = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, refused_free),
                                 .batch_size = 1,
                                 .async_load = TRUE,
                                 .progress = TRUE,
                                 .similar_frame = g_strdup("off"),
                                 .report_latency = TRUE};
}

void gst_flux_kontext_props_clear(GstFluxKontextProps *props) {
  g_clear_pointer(&props->options, fk_options_free);
  g_clear_pointer(&props->settings, fk_settings_free);
  g_clear_pointer(&props->live, gst_flux_kontext_settings_unref);
  g_clear_pointer(&props->refused, g_hash_table_unref);
  g_clear_pointer(&props->manifest_path, g_free);
  g_clear_pointer(&props->similar_frame, g_free);
}

/* The row behind a property id; NULL for the element's own. */
static const FkProperty *table_row(guint id) {
  size_t count;
  const FkProperty *rows = fk_properties(&count);
  return id >= GST_FLUX_KONTEXT_PROP_TABLE && id - GST_FLUX_KONTEXT_PROP_TABLE < count
             ? &rows[id - GST_FLUX_KONTEXT_PROP_TABLE]
             : NULL;
}

/* The shortest text that reads back as the same bits: 0.3, not 0.29999999999999999. 17 digits always do. */
static gchar *double_to_text(gdouble value) {
  gchar text[G_ASCII_DTOSTR_BUF_SIZE];
  for (gint digits = 15; digits <= 17; digits++) {
    gchar format[8];
    g_snprintf(format, sizeof(format), "%%.%dg", digits);
    gdouble back = g_ascii_strtod(g_ascii_formatd(text, sizeof(text), format, value), NULL);
    if (memcmp(&back, &value, sizeof(value)) == 0) break;
  }
  return g_strdup(text);
}

/* As fk_set takes it; (transfer full, nullable). */
static gchar *value_to_text(const FkProperty *row, const GValue *value) {
  switch (row->kind) {
  case FK_KIND_BOOL: return g_strdup(g_value_get_boolean(value) ? "true" : "false");
  case FK_KIND_INT: return g_strdup_printf("%d", g_value_get_int(value));
  case FK_KIND_UINT64: return g_strdup_printf("%" G_GUINT64_FORMAT, g_value_get_uint64(value));
  case FK_KIND_DOUBLE: return double_to_text(g_value_get_double(value));
  case FK_KIND_STRING: return g_value_dup_string(value);
  case FK_KIND_ENUM:
  case FK_KIND_SWITCH: return g_strdup(enum_to_text(value));
  }
  return NULL;
}

/* The reverse, for texts that the table took or handed out: they parse. NULL reads as 0, off or NULL by kind. */
static void text_to_value(const FkProperty *row, const char *text, GValue *value) {
  const char *number = text ? text : "0";
  switch (row->kind) {
  case FK_KIND_BOOL: g_value_set_boolean(value, bool_from_text(text)); break;
  case FK_KIND_INT: g_value_set_int(value, (gint)g_ascii_strtoll(number, NULL, 10)); break;
  case FK_KIND_UINT64: g_value_set_uint64(value, g_ascii_strtoull(number, NULL, 10)); break;
  case FK_KIND_DOUBLE: g_value_set_double(value, g_ascii_strtod(number, NULL)); break;
  case FK_KIND_STRING: g_value_set_string(value, text); break;
  case FK_KIND_ENUM:
  case FK_KIND_SWITCH: g_value_set_enum(value, enum_from_text(G_VALUE_TYPE(value), text)); break;
  }
}

/* Replaces `live` by these values, which it takes. */
static void renew_live(GstFluxKontextProps *props, FkSettings *values) {
  gst_flux_kontext_settings_unref(props->live);
  props->live = gst_flux_kontext_settings_new(values);
}

/* `live` to be changed: a copy where a frame holds it. */
static FkSettings *writable_live(GstFluxKontextProps *props) {
  if (g_atomic_int_get(&props->live->refs) > 1) renew_live(props, fk_settings_copy(props->live->values));
  props->live->checked = FALSE;
  return props->live->values;
}

/* Hands the text to the table. A refused text is kept beside it, under the row's static name. */
static void store(GstFluxKontextProps *props, const FkProperty *row, const gchar *text) {
  GError *error = NULL;
  if (!fk_set(props->options, props->settings, row->name, text, &error)) {
    Refused *refused = g_new0(Refused, 1);
    *refused = (Refused){g_strdup(text), error};
    g_hash_table_insert(props->refused, (gpointer)row->name, refused);
    return;
  }
  g_hash_table_remove(props->refused, row->name);
  if (row->scope == FK_SCOPE_SETTING && (row->playing || !props->running))
    fk_settings_set(writable_live(props), row->name, text, NULL);
}

static void replace_text(gchar **text, const GValue *value) {
  g_free(*text);
  *text = g_value_dup_string(value);
}

/* FALSE: no property of this id is kept here. */
static gboolean set_own(GstFluxKontextProps *props, guint id, const GValue *value) {
  switch (id) {
  case GST_FLUX_KONTEXT_PROP_SEED_MODE: props->seed_mode = (GstFluxKontextSeedMode)g_value_get_enum(value); break;
  case GST_FLUX_KONTEXT_PROP_BATCH_SIZE: props->batch_size = g_value_get_int(value); break;
  case GST_FLUX_KONTEXT_PROP_ASYNC_LOAD: props->async_load = g_value_get_boolean(value); break;
  case GST_FLUX_KONTEXT_PROP_KEEP_LOADED: props->keep_loaded = g_value_get_boolean(value); break;
  case GST_FLUX_KONTEXT_PROP_WARMUP: props->warmup = g_value_get_boolean(value); break;
  case GST_FLUX_KONTEXT_PROP_ON_ERROR: props->on_error = (GstFluxKontextOnError)g_value_get_enum(value); break;
  case GST_FLUX_KONTEXT_PROP_PROGRESS: props->progress = g_value_get_boolean(value); break;
  case GST_FLUX_KONTEXT_PROP_REPORT_LATENCY: props->report_latency = g_value_get_boolean(value); break;
  case GST_FLUX_KONTEXT_PROP_PREVIEW_INTERVAL: props->preview_interval = g_value_get_int(value); break;
  case GST_FLUX_KONTEXT_PROP_MANIFEST_PATH: replace_text(&props->manifest_path, value); break;
  case GST_FLUX_KONTEXT_PROP_SIMILAR_FRAME: replace_text(&props->similar_frame, value); break;
  default: return FALSE;
  }
  return TRUE;
}

gboolean gst_flux_kontext_props_set(GstFluxKontextProps *props, guint id, const GValue *value, gboolean *later) {
  const FkProperty *row = table_row(id);
  *later = FALSE;
  if (!row) {
    *later = props->running && (id == GST_FLUX_KONTEXT_PROP_BATCH_SIZE || id == GST_FLUX_KONTEXT_PROP_ASYNC_LOAD ||
                                id == GST_FLUX_KONTEXT_PROP_WARMUP);
    return set_own(props, id, value);
  }
  g_autofree gchar *text = value_to_text(row, value);
  store(props, row, text);
  if (g_str_equal(row->name, "seed")) props->frame = 0; /* seed-mode=increment counts from the new one */
  *later = props->running && !row->playing;
  return TRUE;
}

gboolean gst_flux_kontext_props_get(const GstFluxKontextProps *props, guint id, GValue *value) {
  switch (id) {
  case GST_FLUX_KONTEXT_PROP_SEED_MODE: g_value_set_enum(value, (gint)props->seed_mode); return TRUE;
  case GST_FLUX_KONTEXT_PROP_BATCH_SIZE: g_value_set_int(value, props->batch_size); return TRUE;
  case GST_FLUX_KONTEXT_PROP_ASYNC_LOAD: g_value_set_boolean(value, props->async_load); return TRUE;
  case GST_FLUX_KONTEXT_PROP_KEEP_LOADED: g_value_set_boolean(value, props->keep_loaded); return TRUE;
  case GST_FLUX_KONTEXT_PROP_WARMUP: g_value_set_boolean(value, props->warmup); return TRUE;
  case GST_FLUX_KONTEXT_PROP_ON_ERROR: g_value_set_enum(value, (gint)props->on_error); return TRUE;
  case GST_FLUX_KONTEXT_PROP_PROGRESS: g_value_set_boolean(value, props->progress); return TRUE;
  case GST_FLUX_KONTEXT_PROP_REPORT_LATENCY: g_value_set_boolean(value, props->report_latency); return TRUE;
  case GST_FLUX_KONTEXT_PROP_PREVIEW_INTERVAL: g_value_set_int(value, props->preview_interval); return TRUE;
  case GST_FLUX_KONTEXT_PROP_MANIFEST_PATH: g_value_set_string(value, props->manifest_path); return TRUE;
  case GST_FLUX_KONTEXT_PROP_SIMILAR_FRAME: g_value_set_string(value, props->similar_frame); return TRUE;
  default: break;
  }
  const FkProperty *row = table_row(id);
  if (!row) return FALSE;
  const Refused *refused = g_hash_table_lookup(props->refused, row->name);
  if (refused) /* read back as it was set */
    text_to_value(row, refused->text, value);
  else if (row->scope == FK_SCOPE_OPTION)
    text_to_value(row, fk_options_get(props->options, row->name), value);
  else
    text_to_value(row, fk_settings_get(props->settings, row->name), value);
  return TRUE;
}

/* The table's error of the first row of this scope whose text it refused; TRUE: there is one. */
static gboolean find_refused(const GstFluxKontextProps *props, FkScope scope, GError **error) {
  if (g_hash_table_size(props->refused) == 0) return FALSE;
  size_t count;
  const FkProperty *rows = fk_properties(&count);
  for (size_t i = 0; i < count; i++) {
    const Refused *refused = rows[i].scope == scope ? g_hash_table_lookup(props->refused, rows[i].name) : NULL;
    if (!refused) continue;
    g_propagate_error(error, g_error_copy(refused->error));
    return TRUE;
  }
  return FALSE;
}

FkOptions *gst_flux_kontext_props_start(GstFluxKontextProps *props, GError **error) {
  if (find_refused(props, FK_SCOPE_OPTION, error)) return NULL;
  renew_live(props, fk_settings_copy(props->settings));
  props->frame = 0;
  props->running = TRUE;
  return fk_options_copy(props->options);
}

void gst_flux_kontext_props_stop(GstFluxKontextProps *props) {
  props->running = FALSE;
  renew_live(props, fk_settings_copy(props->settings));
}

GstFluxKontextSettings *gst_flux_kontext_props_live(const GstFluxKontextProps *props) {
  return gst_flux_kontext_settings_ref(props->live);
}

/* `live` with the seed of frame n. Unsigned: past the largest seed it starts again at 0. NULL sets error. */
static GstFluxKontextSettings *with_seed(const GstFluxKontextSettings *live, guint64 n, GError **error) {
  const char *base = fk_settings_get(live->values, "seed");
  g_autofree gchar *seed = g_strdup_printf("%" G_GUINT64_FORMAT, g_ascii_strtoull(base ? base : "0", NULL, 10) + n);
  g_autoptr(FkSettings) values = fk_settings_copy(live->values);
  return fk_settings_set(values, "seed", seed, error) ? gst_flux_kontext_settings_new(g_steal_pointer(&values)) : NULL;
}

GstFluxKontextSettings *gst_flux_kontext_props_next(GstFluxKontextProps *props, GError **error) {
  guint64 frame = props->frame++;
  if (find_refused(props, FK_SCOPE_SETTING, error)) return NULL;
  if (!props->live->checked && !fk_settings_check(props->live->values, error)) return NULL;
  props->live->checked = TRUE;
  return props->seed_mode == GST_FLUX_KONTEXT_SEED_MODE_INCREMENT ? with_seed(props->live, frame, error)
                                                                  : gst_flux_kontext_props_live(props);
}

/* name=value lines in the table's order. */
gchar *gst_flux_kontext_options_text(const FkOptions *options) {
  GString *text = g_string_new(NULL);
  size_t count;
  const FkProperty *rows = fk_properties(&count);
  for (size_t i = 0; i < count; i++)
    if (rows[i].scope == FK_SCOPE_OPTION) {
      const char *value = fk_options_get(options, rows[i].name);
      g_string_append_printf(text, "%s=%s\n", rows[i].name, value ? value : "");
    }
  return g_string_free(text, FALSE);
}

gboolean gst_flux_kontext_options_is_default(const FkOptions *options) {
  g_autoptr(FkOptions) fresh = fk_options_new();
  g_autofree gchar *ours = gst_flux_kontext_options_text(options);
  g_autofree gchar *defaults = gst_flux_kontext_options_text(fresh);
  return g_str_equal(ours, defaults);
}

gchar **gst_flux_kontext_props_preset_names(void) {
  GPtrArray *names = g_ptr_array_new();
  size_t count;
  const FkProperty *rows = fk_properties(&count);
  for (size_t i = 0; i < count; i++)
    if (rows[i].scope == FK_SCOPE_SETTING && rows[i].kind != FK_KIND_STRING)
      g_ptr_array_add(names, g_strdup(rows[i].name));
  g_ptr_array_add(names, g_strdup("seed-mode"));
  g_ptr_array_add(names, g_strdup("on-error"));
  g_ptr_array_add(names, NULL);
  return (gchar **)g_ptr_array_free(names, FALSE);
}
