/* SPDX-License-Identifier: Apache-2.0 */
/* One job of the queue; see perform.h. */
#include "perform.h"

#include "batch/write.h"
#include "job.h"
#include "json.h"

#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define RECORD_BYTES (1 << 20) /* of a record that is read back */

/* Where a job's files are while it runs: the named ones themselves, or copies in a folder of its own. */
typedef struct {
  char *folder; /* NULL: none was needed */
  char *input, *output, *record;
  bool local; /* the output is a file: nothing is sent */
} Place;

static char *record_of(const char *uri) {
  return g_strconcat(uri, ".json", NULL);
}

/* The end of a URI's path: names of files keep their format. */
static char *name_of(const char *uri) {
  g_autofree char *plain = g_strndup(uri, strcspn(uri, "?#"));
  return g_path_get_basename(plain);
}

static void remove_file(const char *folder, const char *name) {
  g_autofree char *path = g_build_filename(folder, name, NULL);
  g_remove(path);
}

static void place_clear(Place *place) {
  if (place->folder) {
    g_autoptr(GDir) dir = g_dir_open(place->folder, 0, NULL);
    for (const char *name; dir && (name = g_dir_read_name(dir));) remove_file(place->folder, name);
    g_rmdir(place->folder);
  }
  g_free(place->folder);
  g_free(place->input);
  g_free(place->output);
  g_free(place->record);
}

static bool place_job(Perform *p, const JobMessage *m, Place *place, GCancellable *cancellable, GError **error) {
  if (!store_check(p->store, m->input, error) || !store_check(p->store, m->output, error)) return false;
  g_autofree char *out = name_of(m->output), *from = name_of(m->input), *in = g_strconcat("in-", from, NULL);
  place->input = store_path(p->store, m->input);
  place->output = store_path(p->store, m->output);
  place->local = place->output != NULL;
  g_autofree char *folder = place->local ? g_path_get_dirname(place->output) : NULL;
  if (folder && !write_folder(folder, error)) return false;
  if (!photo_check_name(out, false, error)) return false;
  if (!place->input || !place->output) place->folder = g_dir_make_tmp("fluxkontext-worker-XXXXXX", error);
  if ((!place->input || !place->output) && !place->folder) return false;
  if (!place->output) place->output = g_build_filename(place->folder, out, NULL);
  place->record = record_of(place->output);
  if (place->input) return true;
  place->input = g_build_filename(place->folder, in, NULL);
  return store_get(p->store, m->input, place->input, cancellable, error);
}

/* Is there a record of this id beside the output? Then the output is there: it was written before. */
static bool is_done(Perform *p, const JobMessage *m, const Place *place, const Work *work, const char *id,
                    GCancellable *cancellable) {
  if (place->local) return work_is_done(work, id);
  g_autofree char *uri = record_of(m->output), *record = store_read(p->store, uri, RECORD_BYTES, cancellable, NULL);
  g_autofree char *there = record ? job_json_member(record, "file", "job") : NULL;
  return !g_strcmp0(there, id);
}

static const char *type_of(const char *name) {
  const char *dot = strrchr(name, '.');
  if (!dot) return "application/octet-stream";
  return !g_ascii_strcasecmp(dot, ".png")                                        ? "image/png"
         : !g_ascii_strcasecmp(dot, ".webp")                                     ? "image/webp"
         : !g_ascii_strcasecmp(dot, ".avif")                                     ? "image/avif"
         : !g_ascii_strcasecmp(dot, ".tif") || !g_ascii_strcasecmp(dot, ".tiff") ? "image/tiff"
                                                                                 : "image/jpeg";
}

/* The image first: a record stands for a finished image. */
static bool send(Perform *p, const JobMessage *m, const Place *place, GCancellable *cancellable, GError **error) {
  g_autofree char *record = record_of(m->output);
  return place->local || (store_put(p->store, m->output, place->output, type_of(place->output), cancellable, error) &&
                          store_put(p->store, record, place->record, "application/json", cancellable, error));
}

/* What the worker was started with, under what the job says. */
static FkSettings *merge(const FkSettings *under, const FkSettings *over) {
  FkSettings *s = fk_settings_copy(under);
  size_t n;
  const FkProperty *p = fk_properties(&n);
  for (size_t i = 0; i < n; i++) {
    const char *value = p[i].scope == FK_SCOPE_SETTING ? fk_settings_get(over, p[i].name) : NULL;
    if (value && g_strcmp0(value, p[i].initial)) fk_settings_set(s, p[i].name, value, NULL);
  }
  return s;
}

static bool edit(Perform *p, const JobMessage *m, Place *place, bool *skipped, GCancellable *cancellable,
                 GError **error) {
  g_autoptr(FkSettings) settings = merge(p->settings, m->settings);
  if (!place_job(p, m, place, cancellable, error)) return false;
  g_autoptr(Work) work = work_new(place->input, place->output, settings);
  if (!work_read(work, &p->rules, error) || !work_decode(work, &p->rules, error)) return false;
  g_autofree char *id = work_id(work, p->engine, &p->rules, error);
  if (!id) return false;
  *skipped = is_done(p, m, place, work, id, cancellable);
  return *skipped || (work_edit(p->engine, &work, 1, &p->rules, cancellable, NULL, NULL, error) &&
                      work_write(work, p->engine, &p->rules, error) && send(p, m, place, cancellable, error));
}

/* ---- Ends ---- */

/* So that whoever looks for the result finds out why there is none. */
static void write_failure(Perform *p, const JobMessage *m, const char *why, int deliveries) {
  if (!m->output || !store_check(p->store, m->output, NULL)) return;
  Json j = {.text = g_string_new(NULL)};
  json_open(&j, NULL, '{');
  json_text(&j, "error", why);
  json_text(&j, "input", m->input ? m->input : "");
  json_count(&j, "deliveries", deliveries);
  json_close(&j, '}');
  g_autofree char *uri = g_strconcat(m->output, ".failed.json", NULL), *path = store_path(p->store, uri);
  if (path) {
    write_whole(path, j.text->str, j.text->len, NULL);
  } else {
    g_autofree char *folder = g_dir_make_tmp("fluxkontext-worker-XXXXXX", NULL);
    g_autofree char *copy = folder ? g_build_filename(folder, "failed.json", NULL) : NULL;
    if (copy && fk_file_write(copy, j.text->str, j.text->len, NULL))
      store_put(p->store, uri, copy, "application/json", NULL, NULL);
    if (copy) g_remove(copy);
    if (folder) g_rmdir(folder);
  }
  g_string_free(j.text, TRUE);
}

/* An earlier failure of what is now done. */
static void remove_failure(Perform *p, const JobMessage *m) {
  g_autofree char *uri = g_strconcat(m->output, ".failed.json", NULL), *path = store_path(p->store, uri);
  if (path) g_remove(path);
}

static PerformEnd judge(Perform *p, const JobMessage *m, const GError *error, int deliveries) {
  const bool mine = error->domain == FK_ERROR;
  PerformEnd end = {.result = "retried", .after = AFTER_RETRY};
  if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED) || (mine && error->code == FK_ERROR_CANCELLED))
    return end;
  end.lost = fk_engine_dead(p->engine);
  end.seconds = end.lost ? 0 : 10;
  const bool passes = end.lost || (mine && (error->code == FK_ERROR_MEMORY || error->code == FK_ERROR_DEVICE)) ||
                      g_error_matches(error, STORE_ERROR, STORE_ERROR_BUSY) || write_failed_for_all(error);
  if (passes && deliveries < PERFORM_DELIVERIES) return end;
  write_failure(p, m, error->message, deliveries);
  end.result = "failed";
  end.after = AFTER_DROP;
  return end;
}

static void log_end(const JobMessage *m, const PerformEnd *end, int deliveries, const char *why) {
  Json j = {.text = g_string_new(NULL), .line = TRUE};
  g_autofree char *in = m->input ? g_strndup(m->input, strcspn(m->input, "?#")) : g_strdup("");
  g_autofree char *out = m->output ? g_strndup(m->output, strcspn(m->output, "?#")) : g_strdup("");
  json_open(&j, NULL, '{');
  json_text(&j, "result", end->result);
  json_text(&j, "input", in);
  json_text(&j, "output", out);
  json_count(&j, "deliveries", deliveries);
  json_number(&j, "ms", end->ms);
  if (why) json_text(&j, "error", why);
  json_close(&j, '}');
  printf("%s\n", j.text->str);
  fflush(stdout);
  g_string_free(j.text, TRUE);
}

PerformEnd perform(Perform *p, const char *text, size_t bytes, int deliveries, GCancellable *cancellable) {
  const gint64 start = g_get_monotonic_time();
  g_autoptr(GError) error = NULL;
  g_autoptr(JobMessage) m = job_message_read(text, bytes, &error);
  Place place = {0};
  bool skipped = false;
  PerformEnd end = {.result = "done", .after = AFTER_FINISH};
  if (!error && deliveries > PERFORM_DELIVERIES)
    g_set_error(&error, FK_ERROR, FK_ERROR_OPTION_BAD, "given out %d times, and every worker that took it was gone",
                deliveries - 1);
  if (!error) edit(p, m, &place, &skipped, cancellable, &error);
  if (error)
    end = judge(p, m, error, deliveries);
  else
    remove_failure(p, m);
  if (!error && skipped) end.result = "skipped";
  end.ms = (double)(g_get_monotonic_time() - start) / 1000;
  log_end(m, &end, deliveries, error ? error->message : NULL);
  place_clear(&place);
  return end;
}
