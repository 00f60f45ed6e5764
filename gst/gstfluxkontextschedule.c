/* SPDX-License-Identifier: Apache-2.0 */
/* Values are handed to the engine's table as text, as properties are, and fail as they do: when the frame enters. */
#include "gstfluxkontextschedule.h"

#include "gstfluxkontextmeta.h"

static gboolean copy_field(GQuark field, const GValue *value, gpointer structure) {
  gst_structure_id_set_value(structure, field, value);
  return TRUE;
}

gboolean gst_flux_kontext_schedule_event(GstFluxKontextEdit *self, GstEvent *event) {
  const GstStructure *structure = gst_event_get_structure(event);
  if (!structure || !gst_structure_has_name(structure, GST_FLUX_KONTEXT_SETTINGS_EVENT)) return FALSE;
  GST_OBJECT_LOCK(self);
  if (!self->next) self->next = gst_structure_new_empty(GST_FLUX_KONTEXT_SETTINGS_EVENT);
  gst_structure_foreach(structure, copy_field, self->next);
  GST_OBJECT_UNLOCK(self);
  return TRUE;
}

void gst_flux_kontext_schedule_clear(GstFluxKontextEdit *self) {
  GST_OBJECT_LOCK(self);
  g_clear_pointer(&self->next, gst_structure_free);
  GST_OBJECT_UNLOCK(self);
}

static const FkProperty *setting_row(const gchar *name) {
  size_t count;
  const FkProperty *rows = fk_properties(&count);
  for (size_t i = 0; i < count; i++)
    if (rows[i].scope == FK_SCOPE_SETTING && g_str_equal(rows[i].name, name)) return &rows[i];
  return NULL;
}

/* As the table reads it; NULL where the value has no such text. (transfer full) */
static gchar *value_text(const GValue *value) {
  gchar digits[G_ASCII_DTOSTR_BUF_SIZE];
  if (G_VALUE_HOLDS_STRING(value)) return g_value_dup_string(value);
  if (G_VALUE_HOLDS_BOOLEAN(value)) return g_strdup(g_value_get_boolean(value) ? "true" : "false");
  if (G_VALUE_HOLDS_DOUBLE(value)) return g_strdup(g_ascii_dtostr(digits, sizeof(digits), g_value_get_double(value)));
  if (G_VALUE_HOLDS_ENUM(value)) {
    g_autoptr(GEnumClass) klass = g_type_class_ref(G_VALUE_TYPE(value));
    const GEnumValue *found = g_enum_get_value(klass, g_value_get_enum(value));
    return g_strdup(found ? found->value_nick : NULL);
  }
  return gst_value_serialize(value); /* integers */
}

typedef struct {
  FkSettings *values;
  GError *error;
} Applying;

static gboolean apply_field(GQuark field, const GValue *value, gpointer user_data) {
  Applying *a = user_data;
  const gchar *name = g_quark_to_string(field);
  const FkProperty *row = setting_row(name);
  if (!row || !row->playing) {
    g_set_error(&a->error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: %s", name,
                row ? "cannot be set for one frame: it may change in READY only" : "no setting of a frame");
    return FALSE;
  }
  g_autofree gchar *text = value_text(value);
  return fk_settings_set(a->values, name, text, &a->error);
}

/* (transfer full, nullable) */
static GstStructure *asked_for(GstFluxKontextEdit *self, GstBuffer *buffer) {
  GST_OBJECT_LOCK(self);
  GstStructure *asked = g_steal_pointer(&self->next);
  GST_OBJECT_UNLOCK(self);
  GstCustomMeta *meta = gst_buffer_get_custom_meta(buffer, GST_FLUX_KONTEXT_SETTINGS_META);
  if (!meta) return asked;
  if (!asked) return gst_structure_copy(gst_custom_meta_get_structure(meta));
  gst_structure_foreach(gst_custom_meta_get_structure(meta), copy_field, asked);
  return asked;
}

GstFluxKontextSettings *gst_flux_kontext_schedule_apply(GstFluxKontextEdit *self, GstFluxKontextSettings *settings,
                                                        GstBuffer *buffer, GError **error) {
  g_autoptr(GstStructure) asked = asked_for(self, buffer);
  if (!asked || gst_structure_n_fields(asked) == 0) return settings;
  Applying a = {.values = fk_settings_copy(settings->values)};
  gst_flux_kontext_settings_unref(settings);
  if (gst_structure_foreach(asked, apply_field, &a) && fk_settings_check(a.values, &a.error))
    return gst_flux_kontext_settings_new(a.values);
  g_propagate_error(error, a.error);
  fk_settings_free(a.values);
  return NULL;
}
