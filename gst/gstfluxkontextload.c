/* SPDX-License-Identifier: Apache-2.0 */
/* Which engine the element uses, and when its weights are there.
 *
 * Order: the `engine` property, a GstContext "gst.fluxkontext.engine" (from the application, a bin or a neighbour), the
 * process-wide registry behind fk_engine_new(). start() checks the model's files, so a wrong path fails the state
 * change; weights load in a thread, and the first frame waits for it. No HAVE_CONTEXT is posted: a bin would hand the
 * engine to all its elements, running or not, which then hold the weights, and the registry already shares it inside
 * the process. */
#include "gstfluxkontextload.h"

#include "gstfluxkontextcancel.h"
#include "gstfluxkontextdevice.h"
#include "gstfluxkontextflow.h"
#include "gstfluxkontextreference.h"
#include "gstfluxkontextreport.h"

#include <string.h>

#define GST_CAT_DEFAULT gst_flux_kontext_edit_debug

#define MIB (1024 * 1024)

/* ---- Contexts ---- */

/* Keeps the engine of a context of our type as the one on offer; TRUE if there was one. */
static gboolean take_context(GstFluxKontextEdit *self, GstContext *context) {
  if (!context || !gst_context_has_context_type(context, GST_FLUX_KONTEXT_ENGINE_CONTEXT)) return FALSE;
  const GstStructure *structure = gst_context_get_structure(context);
  FkEngine *engine = NULL;
  gchar *text = NULL;
  if (!gst_structure_get(structure, "engine", FK_TYPE_ENGINE, &engine, NULL) || !engine) return FALSE;
  gst_structure_get(structure, "options", G_TYPE_STRING, &text, NULL);
  g_mutex_lock(&self->lock);
  FkEngine *old = g_steal_pointer(&self->offered);
  g_free(self->offered_for);
  self->offered = engine;
  self->offered_for = text;
  g_mutex_unlock(&self->lock);
  fk_engine_unref(old);
  return TRUE;
}

void gst_flux_kontext_edit_set_context(GstElement *element, GstContext *context) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(element);
  if (!take_context(self, context)) gst_flux_kontext_device_take_context(self, context);
}

gboolean gst_flux_kontext_edit_answer_context(GstFluxKontextEdit *self, GstQuery *query) {
  const gchar *type;
  if (gst_flux_kontext_device_answer_context(self, query)) return TRUE;
  if (!gst_query_parse_context_type(query, &type) || !g_str_equal(type, GST_FLUX_KONTEXT_ENGINE_CONTEXT)) return FALSE;
  g_mutex_lock(&self->lock);
  g_autoptr(FkEngine) engine = self->engine ? fk_engine_ref(self->engine) : NULL;
  g_autofree gchar *text = g_strdup(self->options_text);
  g_mutex_unlock(&self->lock);
  if (!engine) return FALSE;
  GstContext *context = gst_context_new(GST_FLUX_KONTEXT_ENGINE_CONTEXT, FALSE);
  gst_structure_set(gst_context_writable_structure(context), "engine", FK_TYPE_ENGINE, engine, "options", G_TYPE_STRING,
                    text, NULL);
  gst_query_set_context(query, context);
  gst_context_unref(context);
  return TRUE;
}

/* The engine on offer where it is the one that these options ask for; an element that asks for nothing takes any. */
static FkEngine *matching_offer(GstFluxKontextEdit *self, const FkOptions *options) {
  g_autofree gchar *text = gst_flux_kontext_options_text(options);
  gboolean any = gst_flux_kontext_options_is_default(options);
  g_mutex_lock(&self->lock);
  gboolean match = self->offered && (any || g_strcmp0(self->offered_for, text) == 0);
  FkEngine *engine = match ? fk_engine_ref(self->offered) : NULL;
  g_mutex_unlock(&self->lock);
  if (engine && fk_engine_dead(engine)) g_clear_pointer(&engine, fk_engine_unref);
  return engine;
}

/* (transfer full); NULL sets error. The only expensive part is fk_engine_new: it reads headers and configurations. */
static FkEngine *find_engine(GstFluxKontextEdit *self, const FkOptions *options, GError **error) {
  GST_OBJECT_LOCK(self);
  FkEngine *engine = self->given ? fk_engine_ref(self->given) : NULL;
  GST_OBJECT_UNLOCK(self);
  if (engine) return engine;
  engine = matching_offer(self, options);
  if (engine) return engine;
  gst_flux_kontext_edit_find_context(self, GST_FLUX_KONTEXT_ENGINE_CONTEXT, take_context);
  engine = matching_offer(self, options);
  return engine ? engine : fk_engine_new(options, error);
}

/* ---- Loading ---- */

typedef struct {
  GstFluxKontextEdit *self;
  GstFluxKontextSettings *settings; /* of the first edit, whose memory is checked before anything is loaded */
  gboolean progress;                /* post messages */
  gint64 percent;                   /* posted last */
} Loading;

static void loading_free(Loading *loading) {
  gst_flux_kontext_settings_unref(loading->settings);
  g_free(loading);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Loading, loading_free)

/* FkProgress of a load: from the working thread, no lock held. current and total in bytes. */
static void on_load_progress(const char *stage, int64_t current, int64_t total, void *user_data) {
  Loading *loading = user_data;
  if (!loading->progress || g_strcmp0(stage, "open") != 0 || total <= 0) return;
  gint64 percent = (gint64)(100.0 * (gdouble)current / (gdouble)total);
  if (percent == loading->percent) return; /* at most a hundred messages, however many tensors */
  loading->percent = percent;
  g_autofree gchar *text =
      g_strdup_printf("%" G_GINT64_FORMAT " of %" G_GINT64_FORMAT " MiB", current / MIB, (total + MIB - 1) / MIB);
  gst_flux_kontext_edit_post_progress(loading->self, GST_PROGRESS_TYPE_CONTINUE, "open", text);
}

/* Posts how the load ended and wakes the frames that wait: exactly one of complete, canceled, or an error message and
 * progress error. */
static gboolean end_load(Loading *loading, const GError *error) {
  static const gchar *const texts[] = {[GST_PROGRESS_TYPE_COMPLETE] = "Model loaded",
                                       [GST_PROGRESS_TYPE_CANCELED] = "Loading cancelled",
                                       [GST_PROGRESS_TYPE_ERROR] = "Loading failed"};
  GstFluxKontextEdit *self = loading->self;
  GstProgressType end = !error                                      ? GST_PROGRESS_TYPE_COMPLETE
                        : gst_flux_kontext_edit_is_cancelled(error) ? GST_PROGRESS_TYPE_CANCELED
                                                                    : GST_PROGRESS_TYPE_ERROR;
  if (end == GST_PROGRESS_TYPE_ERROR) gst_flux_kontext_edit_post_error(self, error, NULL);
  if (loading->progress) gst_flux_kontext_edit_post_progress(self, end, "open", texts[end]);
  g_mutex_lock(&self->lock);
  self->load = end == GST_PROGRESS_TYPE_COMPLETE   ? GST_FLUX_KONTEXT_LOAD_DONE
               : end == GST_PROGRESS_TYPE_CANCELED ? GST_FLUX_KONTEXT_LOAD_NONE
                                                   : GST_FLUX_KONTEXT_LOAD_FAILED;
  g_cond_broadcast(&self->changed);
  g_mutex_unlock(&self->lock);
  return !error;
}

/* Settings that fail are reported for the frames that have them; the load then asks for the memory of the defaults. */
static gboolean load(Loading *loading) {
  GstFluxKontextEdit *self = loading->self;
  g_mutex_lock(&self->lock);
  g_autoptr(FkEngine) engine = fk_engine_ref(self->engine);
  g_autoptr(GCancellable) cancellable = g_object_ref(self->loading);
  g_mutex_unlock(&self->lock);
  g_autoptr(GError) error = NULL;
  const FkSettings *settings = loading->settings->values;
  gint width, height;
  if (!fk_engine_output_size(engine, settings, 64, 64, &width, &height, NULL)) settings = NULL;
  fk_engine_load_for(engine, settings, cancellable, on_load_progress, loading, &error);
  return end_load(loading, error);
}

static gpointer load_thread(gpointer user_data) {
  g_autoptr(Loading) loading = user_data;
  load(loading);
  return NULL;
}

/* Takes `loading`. FALSE: no thread can be created; posted. */
static gboolean load_in_thread(GstFluxKontextEdit *self, Loading *taken) {
  g_autoptr(Loading) loading = taken;
  g_autoptr(GError) failure = NULL, error = NULL;
  self->loader = g_thread_try_new("fluxkontext-load", load_thread, loading, &failure);
  if (self->loader) {
    loading = NULL; /* the thread's */
    return TRUE;
  }
  g_set_error(&error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_FAILED,
              "The model cannot be loaded, because no thread can be created: %s.", failure->message);
  return end_load(loading, error);
}

/* ---- Start ---- */

/* An automatic backend that ended on the CPU is slower than the user may expect. The reason is the debug text. */
static void warn_fallback(GstFluxKontextEdit *self, FkEngine *engine) {
  g_autoptr(GstStructure) active = gst_flux_kontext_edit_active(self);
  const gchar *backend = gst_structure_get_string(active, "backend"), *machine = fk_engine_machine(engine);
  if (!backend || !g_str_has_prefix(backend, "cpu (auto")) return;
  g_autofree gchar *text = g_strdup_printf("No GPU can be used: edits run on the CPU%s. fluxkontext-doctor says why.",
                                           g_str_has_prefix(machine, "cpu") ? machine + strlen("cpu") : "");
  gst_flux_kontext_edit_warn_once(self, "backend", GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_INIT, text, backend);
}

/* What is on offer may be another engine than the one in use: nobody would free it. */
static void release_offer(GstFluxKontextEdit *self) {
  g_mutex_lock(&self->lock);
  FkEngine *offered = g_steal_pointer(&self->offered);
  g_clear_pointer(&self->offered_for, g_free);
  g_mutex_unlock(&self->lock);
  fk_engine_unref(offered);
}

/* Lets go of the engine; the last reference may free gigabytes, so not under a lock. */
static void release_engine(GstFluxKontextEdit *self) {
  g_mutex_lock(&self->lock);
  FkEngine *engine = g_steal_pointer(&self->engine);
  g_clear_pointer(&self->options_text, g_free);
  self->load = GST_FLUX_KONTEXT_LOAD_NONE;
  g_mutex_unlock(&self->lock);
  fk_engine_unref(engine);
}

/* The engine of this start, in place of one that keep-loaded kept. */
static void use_engine(GstFluxKontextEdit *self, FkEngine *engine, const FkOptions *options) {
  g_mutex_lock(&self->lock);
  FkEngine *kept = self->engine;
  self->engine = fk_engine_ref(engine);
  g_free(self->options_text);
  self->options_text = gst_flux_kontext_options_text(options);
  self->load = GST_FLUX_KONTEXT_LOAD_RUNNING;
  g_mutex_unlock(&self->lock);
  fk_engine_unref(kept); /* before the load: two models may not fit */
  release_offer(self);
}

/* Takes the properties as they are now; NULL sets error. */
static FkOptions *begin(GstFluxKontextEdit *self, gboolean *async, Loading *loading, GError **error) {
  GST_OBJECT_LOCK(self);
  FkOptions *options = gst_flux_kontext_props_start(&self->props, error);
  self->batch_size = self->props.batch_size;
  self->stats = (GstFluxKontextStats){0};
  *async = self->props.async_load;
  *loading = (Loading){self, gst_flux_kontext_props_live(&self->props), self->props.progress, -1};
  GST_OBJECT_UNLOCK(self);
  return options;
}

/* A start that failed leaves nothing: the next one begins afresh. error NULL: posted already. */
static gboolean fail_start(GstFluxKontextEdit *self, const GError *error) {
  if (error) gst_flux_kontext_edit_post_error(self, error, NULL);
  gst_flux_kontext_device_stop(self);
  release_engine(self);
  release_offer(self);
  GST_OBJECT_LOCK(self);
  gst_flux_kontext_props_stop(&self->props);
  GST_OBJECT_UNLOCK(self);
  return FALSE;
}

static gboolean exists_in(const gchar *folder, const gchar *name) {
  g_autofree gchar *path = g_build_filename(folder, name, NULL);
  return g_file_test(path, G_FILE_TEST_EXISTS);
}

/* What to give instead of a model-path that is no model; NULL: the path is not what is wrong. */
static const gchar *path_hint(const gchar *path) {
  const gchar *slash = strchr(path, '/');
  if (exists_in(path, "model_index.json")) return NULL;
  if (*path == '~') return "A shell replaces ~, an application does not: give the whole path.";
  if (exists_in(path, "snapshots")) return "This is a folder of the hub's cache: give the one below snapshots in it.";
  if (exists_in(path, "../model_index.json")) return "This is a part of a model: give the folder above.";
  if (g_file_test(path, G_FILE_TEST_IS_DIR)) return "Give the folder that holds model_index.json.";
  if (g_file_test(path, G_FILE_TEST_EXISTS)) return NULL;
  if (slash && slash != path && *path != '.' && !strchr(slash + 1, '/'))
    return "If this is a name at the hub: download the model, and give the folder that it was written to.";
  return "Give the folder that holds model_index.json; a relative path counts from the working directory.";
}

/* The error of a path says what to do next; one that was never set is the application's, not the model's. */
static void explain_path(const FkOptions *options, GError **error) {
  const char *path = fk_options_get(options, "model-path");
  if (!path || !*path) {
    if (!g_error_matches(*error, FK_ERROR, FK_ERROR_OPTION_BAD)) return;
    g_clear_error(error);
    g_set_error_literal(error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS,
                        "model-path is not set: give the folder or file of a model, such as "
                        "FLUX.1-Kontext-dev.");
    return;
  }
  if (!g_error_matches(*error, FK_ERROR, FK_ERROR_MODEL_MISSING)) return;
  const gchar *hint = path_hint(path);
  if (!hint) return;
  g_autofree gchar *text = g_strdup_printf("%s. %s", (*error)->message, hint);
  g_free((*error)->message);
  (*error)->message = g_steal_pointer(&text);
}

/* READY -> PAUSED, before any data flows. Fails at once for what can be seen without the weights: properties, paths,
 * headers, configurations, the device. The weights follow in a thread, or here with async-load=false. */
gboolean gst_flux_kontext_edit_start(GstBaseTransform *trans) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(trans);
  g_autoptr(GError) error = NULL;
  g_autoptr(Loading) loading = g_new0(Loading, 1);
  gboolean async;
  gst_flux_kontext_edit_reset_stream(self);
  gst_flux_kontext_edit_renew(self, TRUE);
  g_autoptr(FkOptions) options = begin(self, &async, loading, &error);
  if (!options) return fail_start(self, error);
  g_autoptr(FkEngine) engine = find_engine(self, options, &error);
  if (!engine) {
    explain_path(options, &error);
    return fail_start(self, error);
  }
  use_engine(self, engine, options);
  gst_flux_kontext_device_start(self, engine);
  warn_fallback(self, engine);
  if (loading->progress)
    gst_flux_kontext_edit_post_progress(self, GST_PROGRESS_TYPE_START, "open", "Loading the model");
  if (async ? load_in_thread(self, g_steal_pointer(&loading)) : load(loading)) return TRUE;
  return fail_start(self, NULL);
}

/* PAUSED -> READY, after the streaming thread has left. The loader may still run: it leaves after its current read. */
gboolean gst_flux_kontext_edit_stop(GstBaseTransform *trans) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(trans);
  gst_flux_kontext_edit_cancel(self, TRUE);
  if (self->loader) g_thread_join(g_steal_pointer(&self->loader));
  gst_flux_kontext_edit_reset_stream(self);
  gst_flux_kontext_reference_reset(self);
  gst_flux_kontext_device_stop(self);
  GST_OBJECT_LOCK(self);
  gboolean keep = self->props.keep_loaded;
  gst_flux_kontext_props_stop(&self->props);
  GST_OBJECT_UNLOCK(self);
  if (!keep) release_engine(self);
  release_offer(self); /* set while the stream ran */
  return TRUE;
}
