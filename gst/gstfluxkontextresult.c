/* SPDX-License-Identifier: Apache-2.0 */
/* The meta is a GstCustomMeta: applications read it without our library, and it serialises as a GstStructure. The
 * record is the engine's own (fk_manifest), one file for each result.
 * Not here: when results are made (gstfluxkontextflow.c). */
#include "gstfluxkontextresult.h"

#include "gstfluxkontextmeta.h"

#include <string.h>

void gst_flux_kontext_result_register(void) {
  gst_flux_kontext_meta_register(GST_FLUX_KONTEXT_RESULT_META);
  gst_flux_kontext_meta_register(GST_FLUX_KONTEXT_SETTINGS_META);
}

/* ---- The meta ---- */

/* (transfer full) */
static gchar *pixel_hash(const FkImage *image) {
  g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
  for (gint y = 0; y < image->height; y++)
    g_checksum_update(sum, image->data + (gsize)y * image->stride, (gssize)image->width * image->channels);
  return g_strdup(g_checksum_get_string(sum));
}

/* Every setting that has a value, once the preset has decided it. (transfer full) */
static GstStructure *settings_structure(const FkSettings *settings) {
  GstStructure *structure = gst_structure_new_empty("settings");
  size_t count;
  const FkProperty *rows = fk_properties(&count);
  for (size_t i = 0; i < count; i++) {
    const char *value = rows[i].scope == FK_SCOPE_SETTING ? fk_settings_decided(settings, rows[i].name) : NULL;
    if (value) gst_structure_set(structure, rows[i].name, G_TYPE_STRING, value, NULL);
  }
  return structure;
}

GstStructure *gst_flux_kontext_result_new(const FkJob *job) {
  const FkResult *r = &job->result;
  g_autofree gchar *hash = job->out.memory == FK_MEMORY_HOST ? pixel_hash(&job->out) : NULL;
  g_autoptr(GstStructure) settings = settings_structure(job->settings);
  GstStructure *result = gst_structure_new(
      GST_FLUX_KONTEXT_RESULT_META, "seed", G_TYPE_UINT64, (guint64)r->seed, "settings", GST_TYPE_STRUCTURE, settings,
      "width", G_TYPE_INT, r->width, "height", G_TYPE_INT, r->height, "evaluations", G_TYPE_INT, r->evaluations,
      "skipped", G_TYPE_INT, r->skipped, "step-mask", G_TYPE_STRING, r->mask, "repeated", G_TYPE_BOOLEAN, FALSE,
      "truncated", G_TYPE_BOOLEAN, (gboolean)r->truncated, "text-ms", G_TYPE_DOUBLE, r->text_ms, "encode-ms",
      G_TYPE_DOUBLE, r->encode_ms, "denoise-ms", G_TYPE_DOUBLE, r->denoise_ms, "decode-ms", G_TYPE_DOUBLE, r->decode_ms,
      "edit-ms", G_TYPE_DOUBLE, r->edit_ms, "version", G_TYPE_STRING, PACKAGE_VERSION, NULL);
  if (hash) gst_structure_set(result, "hash", G_TYPE_STRING, hash, NULL);
  return result;
}

static gboolean copy_field(GQuark field, const GValue *value, gpointer structure) {
  gst_structure_id_set_value(structure, field, value);
  return TRUE;
}

void gst_flux_kontext_result_add(GstBuffer *buffer, const GstStructure *result) {
  GstCustomMeta *meta = gst_buffer_get_custom_meta(buffer, GST_FLUX_KONTEXT_RESULT_META);
  if (!meta) meta = gst_buffer_add_custom_meta(buffer, GST_FLUX_KONTEXT_RESULT_META);
  GstStructure *fields = gst_custom_meta_get_structure(meta);
  gst_structure_remove_all_fields(fields);
  gst_structure_foreach(result, copy_field, fields);
  GstCustomMeta *settings = gst_buffer_get_custom_meta(buffer, GST_FLUX_KONTEXT_SETTINGS_META);
  if (settings) gst_buffer_remove_meta(buffer, &settings->meta); /* they were for this edit */
}

/* ---- The record ---- */

/* `pattern` with n in place of %d or %0Nd, and % for %%. The pattern comes from outside and is no format string. NULL
 * sets error. (transfer full) */
static gchar *expand(const gchar *pattern, guint64 n, GError **error) {
  g_autoptr(GString) path = g_string_new(NULL);
  for (const gchar *c = pattern; *c; c++) {
    if (*c != '%') {
      g_string_append_c(path, *c);
      continue;
    }
    gsize digits = strspn(c + 1, "0123456789");
    gchar kind = c[1 + digits];
    gboolean number = kind == 'd' && digits < 4 && (digits == 0 || c[1] == '0');
    if (!number && (kind != '%' || digits > 0)) {
      g_set_error(error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS,
                  "manifest-path=%s: expected one number as %%d or %%05d, and %%%% for a percent sign", pattern);
      return NULL;
    }
    if (number) {
      g_autofree gchar *text = g_strdup_printf("%" G_GUINT64_FORMAT, n);
      gint width = MIN((gint)g_ascii_strtoull(c + 1, NULL, 10), 200);
      for (gint have = (gint)strlen(text); have < width; have++) g_string_append_c(path, '0');
      g_string_append(path, text);
    } else {
      g_string_append_c(path, '%');
    }
    c += digits + 1;
  }
  return g_string_free(g_steal_pointer(&path), FALSE);
}

/* (transfer full, nullable): NULL sets error. */
static gchar *record_path(const gchar *where, guint64 n, GError **error) {
  if (!g_file_test(where, G_FILE_TEST_IS_DIR)) return expand(where, n, error);
  g_autofree gchar *name = g_strdup_printf("%06" G_GUINT64_FORMAT ".json", n);
  return g_build_filename(where, name, NULL);
}

gboolean gst_flux_kontext_result_write(GstFluxKontextEdit *self, FkEngine *engine, const FkJob *job, guint64 n,
                                       GError **error) {
  GST_OBJECT_LOCK(self);
  g_autofree gchar *where = g_strdup(self->props.manifest_path);
  GST_OBJECT_UNLOCK(self);
  if (!where || !*where) return TRUE;
  g_autofree gchar *path = record_path(where, n, error);
  g_autofree gchar *record = path ? fk_manifest(engine, job, error) : NULL;
  g_autoptr(GError) failure = NULL;
  if (!record) return FALSE;
  if (fk_file_write(path, record, strlen(record), &failure)) return TRUE;
  g_autofree gchar *shown = g_filename_display_name(path);
  const gchar *reason = strrchr(failure->message, ':'); /* before it the path */
  g_set_error(error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_OPEN_WRITE, "manifest-path: %s cannot be written%s", shown,
              reason ? reason : "");
  return FALSE;
}
