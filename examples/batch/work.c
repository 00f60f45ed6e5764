/* SPDX-License-Identifier: Apache-2.0 */
/* One edit of a file; see work.h. */
#include "work.h"

#include "../json.h"
#include "png-text.h"
#include "write.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <json-glib/json-glib.h>
#include <string.h>

Work *work_new(const char *input, const char *output, const FkSettings *settings) {
  Work *w = g_new0(Work, 1);
  w->input = g_strdup(input);
  w->output = g_strdup(output);
  w->settings = fk_settings_copy(settings);
  return w;
}

void work_free(Work *w) {
  if (!w) return;
  g_free(w->input);
  g_free(w->output);
  fk_settings_free(w->settings);
  g_clear_pointer(&w->bytes, g_bytes_unref);
  g_free(w->input_sha);
  photo_clear(&w->photo);
  g_free(w->job.out.data);
  g_free(w->id);
  g_free(w);
}

/* ---- Reading ---- */

static bool fail(const char *path, const char *why, GError **error) {
  g_autofree char *shown = g_filename_display_name(path);
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: %s", shown, why);
  return false;
}

/* Regular files alone: a pipe among pictures would be waited for. */
static bool check_file(const char *path, gint64 max_bytes, GError **error) {
  GStatBuf st;
  g_autofree char *large = g_strdup_printf("more than the %" G_GINT64_FORMAT " bytes of a picture", max_bytes);
  if (g_stat(path, &st)) return fail(path, g_strerror(errno), error);
  if (!S_ISREG(st.st_mode)) return fail(path, "not a file", error);
  return st.st_size <= max_bytes || fail(path, large, error);
}

bool work_read(Work *w, const WorkRules *rules, GError **error) {
  g_autoptr(GError) problem = NULL;
  char *data;
  gsize bytes;
  if (!check_file(w->input, rules->max_bytes, error)) return false;
  if (!g_file_get_contents(w->input, &data, &bytes, &problem)) return fail(w->input, problem->message, error);
  w->bytes = g_bytes_new_take(data, bytes);
  w->input_sha = g_compute_checksum_for_bytes(G_CHECKSUM_SHA256, w->bytes);
  return true;
}

bool work_decode(Work *w, const WorkRules *rules, GError **error) {
  g_autofree char *shown = g_filename_display_name(w->input), *out = g_filename_display_name(w->output);
  gsize bytes;
  const guint8 *data = g_bytes_get_data(w->bytes, &bytes);
  const bool ok = photo_decode(shown, data, bytes, rules->max_pixels, &w->photo, error) &&
                  photo_check_name(out, w->photo.image.channels == 4, error);
  g_clear_pointer(&w->bytes, g_bytes_unref);
  return ok;
}

/* ---- What is done ---- */

static const char *ending(const char *path) {
  const char *dot = strrchr(path, '.');
  return dot ? dot : "";
}

char *work_id(const Work *w, FkEngine *engine, const WorkRules *rules, GError **error) {
  const FkJob none = {.settings = w->settings};
  g_autofree char *edit = fk_manifest_id(engine, &none, error);
  if (!edit) return NULL;
  g_autofree char *end = g_ascii_strdown(ending(w->output), -1);
  g_autofree char *text =
      g_strdup_printf("fluxkontext job 1\n%s\n%s\n%s %d %d\n", w->input_sha, edit, end, rules->quality, rules->text);
  return g_compute_checksum_for_string(G_CHECKSUM_SHA256, text, -1);
}

static const char *text_in(JsonObject *object, const char *name) {
  JsonNode *node = json_object_get_member(object, name);
  const bool text = node && JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_STRING;
  return text ? json_node_get_string(node) : "";
}

bool work_is_done(const Work *w, const char *id) {
  g_autofree char *record = g_strconcat(w->output, ".json", NULL), *json = NULL, *image = NULL, *sha = NULL;
  g_autoptr(JsonParser) parser = json_parser_new();
  gsize bytes;
  if (!g_file_get_contents(record, &json, &bytes, NULL) || !json_is_shallow(json, bytes, JSON_DEPTH) ||
      !json_parser_load_from_data(parser, json, -1, NULL))
    return false;
  JsonNode *root = json_parser_get_root(parser);
  JsonNode *node =
      root && JSON_NODE_HOLDS_OBJECT(root) ? json_object_get_member(json_node_get_object(root), "file") : NULL;
  JsonObject *file = node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
  if (!file || strcmp(text_in(file, "job"), id) || !g_file_get_contents(w->output, &image, &bytes, NULL)) return false;
  sha = g_compute_checksum_for_data(G_CHECKSUM_SHA256, (const guchar *)image, bytes);
  return !strcmp(sha, text_in(file, "sha256"));
}

/* ---- Editing ---- */

static bool make_job(FkEngine *engine, Work *w, GError **error) {
  FkJob *job = &w->job;
  *job = (FkJob){.in = w->photo.image, .out = w->photo.image, .settings = w->settings};
  job->out.data = NULL;
  if (!fk_engine_output_size(engine, w->settings, job->in.width, job->in.height, &job->out.width, &job->out.height,
                             error))
    return false;
  job->out.stride = (size_t)job->out.width * (size_t)job->out.channels;
  job->out.data = g_try_malloc(job->out.stride * (size_t)job->out.height);
  if (job->out.data) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "no memory for a result of %dx%d", job->out.width, job->out.height);
  return false;
}

/* Runs copies of the jobs, side by side as fk_engine_edit wants them. */
static bool edit_all(FkEngine *engine, Work **works, int n, GCancellable *cancellable, FkProgress progress,
                     void *user_data, GError **error) {
  g_autofree FkJob *jobs = g_new0(FkJob, (guint)n);
  for (int i = 0; i < n; i++) jobs[i] = works[i]->job;
  if (!fk_engine_edit(engine, jobs, n, cancellable, progress, user_data, error)) return false;
  for (int i = 0; i < n; i++) works[i]->job.result = jobs[i].result;
  return true;
}

bool work_edit(FkEngine *engine, Work **works, int n, const WorkRules *rules, GCancellable *cancellable,
               FkProgress progress, void *user_data, GError **error) {
  g_autofree char *shown = g_filename_display_name(works[0]->input);
  bool ok = true;
  for (int i = 0; ok && i < n; i++) ok = make_job(engine, works[i], error);
  ok = ok && edit_all(engine, works, n, cancellable, progress, user_data, error);
  for (int i = 0; ok && i < n; i++) {
    works[i]->id = work_id(works[i], engine, rules, error);
    ok = works[i]->id != NULL;
  }
  if (ok) return true;
  for (int i = 0; i < n; i++) g_clear_pointer(&works[i]->job.out.data, g_free);
  g_prefix_error(error, "%s: ", shown);
  return false;
}

/* ---- Writing ---- */

/* The record without the end of its object, to be gone on with; without `times` where it has to be repeatable. */
static char *record_start(FkEngine *engine, const Work *w, GError **error) {
  char *text = fk_manifest(engine, &w->job, error);
  if (text) *strrchr(text, '}') = 0;
  return text;
}

/* The member "file" of the record. */
static void append_file(GString *record, const Work *w, const char *sha, gsize bytes) {
  g_autofree char *in = g_filename_display_name(w->input), *out = g_path_get_basename(w->output);
  g_autofree char *name = g_filename_display_name(out);
  Json j = {.text = record, .line = TRUE};
  g_string_append(record, ",\n \"file\": ");
  json_open(&j, NULL, '{');
  json_text(&j, "job", w->id);
  json_text(&j, "input", in);
  json_text(&j, "input-sha256", w->input_sha);
  json_text(&j, "input-format", w->photo.format);
  json_text(&j, "notes", w->photo.notes->str);
  json_text(&j, "output", name);
  json_text(&j, "sha256", sha);
  json_count(&j, "bytes", (gint64)bytes);
  json_close(&j, '}');
  g_string_append(record, "}\n");
}

bool work_write(const Work *w, FkEngine *engine, const WorkRules *rules, GError **error) {
  g_autofree char *start = record_start(engine, w, error), *shown = g_filename_display_name(w->output);
  g_autofree guint8 *data = NULL;
  gsize bytes = 0;
  if (!start || !photo_encode(shown, &w->job.out, &w->photo, rules->quality, &data, &bytes, error)) return false;
  if (rules->text) png_text_add(&data, &bytes, &w->job, start);
  g_autofree char *sha = g_compute_checksum_for_data(G_CHECKSUM_SHA256, data, bytes),
                  *path = g_strconcat(w->output, ".json", NULL);
  g_autoptr(GString) record = g_string_new(start);
  append_file(record, w, sha, bytes);
  return write_whole(w->output, data, bytes, error) && write_whole(path, record->str, record->len, error);
}

bool work_run(Work *w, FkEngine *engine, const WorkRules *rules, GCancellable *cancellable, FkProgress progress,
              void *user_data, GError **error) {
  return work_read(w, rules, error) && work_decode(w, rules, error) &&
         work_edit(engine, &w, 1, rules, cancellable, progress, user_data, error) &&
         work_write(w, engine, rules, error);
}
