/* SPDX-License-Identifier: Apache-2.0 */
/* What the element reports: errors, warnings, progress, stats, active, latency.
 *
 * Every function here posts or builds messages and so is called with no lock but the stream's. Errors carry a
 * structure for programs: `code` (nick of the FkError), `property` where one has a bad value, and `restart-required`
 * where a device failed. Texts are UTF-8 whatever they were made from: a GstStructure drops strings that are not, and
 * bindings of other languages raise errors. */
#include "gstfluxkontextreport.h"

#include "gstfluxkontextcancel.h"

#include <string.h>

#define GST_CAT_DEFAULT gst_flux_kontext_edit_debug

#define LATENCY_HEADROOM 1.05 /* over the slowest of the last batches */
#define LATENCY_MOVES 0.25    /* posted again when it moves by more than this share */

typedef enum { LIBRARY, RESOURCE, STREAM } Domain;

/* In the order of FkError. */
static const struct {
  const gchar *nick;
  Domain domain;
  gint code;
} kinds[] = {
    {"model-missing", RESOURCE, GST_RESOURCE_ERROR_NOT_FOUND},
    {"model-denied", RESOURCE, GST_RESOURCE_ERROR_NOT_AUTHORIZED},
    {"model-bad", RESOURCE, GST_RESOURCE_ERROR_READ},
    {"model-mismatch", LIBRARY, GST_LIBRARY_ERROR_SETTINGS},
    {"backend-missing", LIBRARY, GST_LIBRARY_ERROR_INIT},
    {"option-bad", LIBRARY, GST_LIBRARY_ERROR_SETTINGS},
    {"memory", RESOURCE, GST_RESOURCE_ERROR_NO_SPACE_LEFT},
    {"device", RESOURCE, GST_RESOURCE_ERROR_FAILED},
    {"device-lost", RESOURCE, GST_RESOURCE_ERROR_FAILED},
    {"nonfinite", STREAM, GST_STREAM_ERROR_FAILED},
    {"cancelled", LIBRARY, GST_LIBRARY_ERROR_FAILED},
    {"format", STREAM, GST_STREAM_ERROR_FORMAT},
};

/* The quarks are functions, which a static table cannot hold. */
static GQuark domain_quark(Domain domain) {
  switch (domain) {
  case RESOURCE: return GST_RESOURCE_ERROR;
  case STREAM: return GST_STREAM_ERROR;
  case LIBRARY: break;
  }
  return GST_LIBRARY_ERROR;
}

gboolean gst_flux_kontext_edit_is_cancelled(const GError *error) {
  return g_error_matches(error, FK_ERROR, FK_ERROR_CANCELLED) ||
         g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
}

gboolean gst_flux_kontext_edit_is_device(const GError *error) {
  return g_error_matches(error, FK_ERROR, FK_ERROR_DEVICE) || g_error_matches(error, FK_ERROR, FK_ERROR_DEVICE_LOST);
}

/* (transfer full, nullable) */
static gchar *utf8(const gchar *text) {
  return text ? g_utf8_make_valid(text, -1) : NULL;
}

/* Domain and code of a message, and the nick in its details. Errors of GStreamer's own domains are posted as they are.
 */
static const gchar *kind_of(const GError *error, GQuark *domain, gint *code) {
  gboolean known = error->domain == FK_ERROR && (guint)error->code < G_N_ELEMENTS(kinds);
  gboolean gst = error->domain == GST_RESOURCE_ERROR || error->domain == GST_STREAM_ERROR;
  *domain = known ? domain_quark(kinds[error->code].domain) : gst ? error->domain : GST_LIBRARY_ERROR;
  *code = known ? kinds[error->code].code : gst ? error->code : GST_LIBRARY_ERROR_FAILED;
  if (known) return kinds[error->code].nick;
  if (g_error_matches(error, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT)) return "format";
  return g_error_matches(error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS) ? "option-bad" : "failed";
}

/* The property that a message about a value begins with: "steps: ...", "task=edit: ..."; NULL: none. */
static const gchar *named_property(GstFluxKontextEdit *self, const GError *error) {
  gsize length = strspn(error->message, "abcdefghijklmnopqrstuvwxyz0123456789-");
  g_autofree gchar *name = g_strndup(error->message, length);
  const GParamSpec *spec = g_object_class_find_property(G_OBJECT_GET_CLASS(self), name);
  return spec ? spec->name : NULL;
}

void gst_flux_kontext_edit_post_error(GstFluxKontextEdit *self, const GError *error, const gchar *debug) {
  GQuark domain;
  gint code;
  const gchar *nick = kind_of(error, &domain, &code);
  gboolean unwritable = g_error_matches(error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_OPEN_WRITE);
  const gchar *property = g_str_equal(nick, "option-bad") || unwritable ? named_property(self, error) : NULL;
  GstStructure *details = gst_structure_new("fluxkontext-error", "code", G_TYPE_STRING, nick, NULL);
  if (property) gst_structure_set(details, "property", G_TYPE_STRING, property, NULL);
  if (gst_flux_kontext_edit_is_device(error)) {
    g_autoptr(FkEngine) engine = gst_flux_kontext_edit_ref_engine(self);
    gboolean restart = g_error_matches(error, FK_ERROR, FK_ERROR_DEVICE_LOST) || (engine && fk_engine_dead(engine));
    gst_structure_set(details, "restart-required", G_TYPE_BOOLEAN, restart, NULL);
  }
  gst_element_message_full_with_details(GST_ELEMENT(self), GST_MESSAGE_ERROR, domain, code, utf8(error->message),
                                        utf8(debug ? debug : nick), __FILE__, GST_FUNCTION, __LINE__, details);
}

static void post_warning(GstFluxKontextEdit *self, GQuark domain, gint code, const gchar *text, const gchar *debug) {
  gst_element_message_full(GST_ELEMENT(self), GST_MESSAGE_WARNING, domain, code, utf8(text), utf8(debug), __FILE__,
                           GST_FUNCTION, __LINE__);
}

/* A stream may have a new text for each frame (a prompt, a number in a message): keys are kept as checksums, and no
 * more than a fixed number of them. */
void gst_flux_kontext_edit_warn_once(GstFluxKontextEdit *self, const gchar *key, GQuark domain, gint code,
                                     const gchar *text, const gchar *debug) {
  guint posted = g_hash_table_size(self->warned);
  GST_WARNING_OBJECT(self, "%s", text);
  if (posted > GST_FLUX_KONTEXT_WARNINGS) return;
  if (!g_hash_table_add(self->warned, g_compute_checksum_for_string(G_CHECKSUM_SHA256, key, -1))) return;
  if (posted < GST_FLUX_KONTEXT_WARNINGS)
    post_warning(self, domain, code, text, debug);
  else
    post_warning(self, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_FAILED,
                 "More warnings follow: they are written to the debug log only (GST_DEBUG=fluxkontextedit:2).", NULL);
}

void gst_flux_kontext_edit_warn_unmatched(GstFluxKontextEdit *self, FkEngine *engine, const FkSettings *settings) {
  g_auto(GStrv) active = fk_engine_active(engine, settings);
  const gchar *text = "";
  for (gchar **pair = active; pair[0] && pair[1]; pair += 2)
    if (g_str_equal(pair[0], "loras")) text = pair[1];
  g_autofree gchar *message = g_strdup_printf("loras: a part of the files is not of this model: %s.", text);
  gst_flux_kontext_edit_warn_once(self, message, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS, message, NULL);
}

/* ---- Prompts that are longer than the model reads ---- */

#define SHOWN_CHARACTERS 40 /* of the words that are not read: enough to find them */

/* "T5 reads the first 512 of 700 tokens, not "and a moon..."", or that it reads all of it. */
static void append_reading(GString *text, const gchar *encoder, const gchar *prompt, const FkTextRead *read) {
  if (read->read >= read->tokens) {
    g_string_append_printf(text, "%s reads all of it", encoder);
    return;
  }
  gsize length = strlen(prompt), from = MIN(read->read_bytes, length);
  while (from < length && (prompt[from] == ' ' || (prompt[from] & 0xc0) == 0x80)) from++; /* to a word's beginning */
  glong rest = g_utf8_strlen(prompt + from, -1);
  g_autofree gchar *shown = g_utf8_substring(prompt + from, 0, MIN(rest, SHOWN_CHARACTERS));
  g_string_append_printf(text, "%s reads the first %d of %d tokens, not \"%s%s\"", encoder, read->read, read->tokens,
                         shown, rest > SHOWN_CHARACTERS ? "..." : "");
}

/* Once for each text. `property`: the one that holds it. */
static void warn_truncated(GstFluxKontextEdit *self, const FkSettings *settings, const gchar *property,
                           const FkTextRead *clip, const FkTextRead *t5) {
  const char *prompt = fk_settings_get(settings, property);
  gboolean t5_cut = t5->read < t5->tokens, clip_cut = clip->read < clip->tokens;
  if (!prompt || (!t5_cut && !clip_cut)) return;
  g_autofree gchar *key = g_strconcat(property, " ", prompt, NULL);
  g_autoptr(GString) text = g_string_new("Not all of ");
  g_string_append_printf(text, "%s is read: ", property);
  append_reading(text, t5_cut ? "T5" : "CLIP", prompt, t5_cut ? t5 : clip);
  g_string_append(text, "; ");
  append_reading(text, t5_cut ? "CLIP" : "T5", prompt, t5_cut ? clip : t5);
  g_string_append_c(text, '.');
  gst_flux_kontext_edit_warn_once(self, key, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS, text->str, NULL);
}

void gst_flux_kontext_edit_warn_truncated(GstFluxKontextEdit *self, const FkSettings *settings, const FkResult *r) {
  warn_truncated(self, settings, "prompt", &r->clip, &r->t5);
  warn_truncated(self, settings, "negative-prompt", &r->negative_clip, &r->negative_t5);
}

/* ---- Progress ---- */

void gst_flux_kontext_edit_post_progress(GstFluxKontextEdit *self, GstProgressType type, const gchar *code,
                                         const gchar *text) {
  g_autofree gchar *valid = utf8(text);
  gst_element_post_message(GST_ELEMENT(self), gst_message_new_progress(GST_OBJECT(self), type, code, valid));
}

/* The form of GStreamer's progressreport element, so that its readers read ours. */
void gst_flux_kontext_edit_post_step(GstFluxKontextEdit *self, gint64 current, gint64 total) {
  gdouble percent = total > 0 ? 100.0 * (gdouble)current / (gdouble)total : 100.0;
  GstStructure *progress =
      gst_structure_new("progress", "percent", G_TYPE_INT, (gint)percent, "percent-double", G_TYPE_DOUBLE, percent,
                        "current", G_TYPE_INT64, current, "total", G_TYPE_INT64, total, NULL);
  gst_element_post_message(GST_ELEMENT(self), gst_message_new_element(GST_OBJECT(self), progress));
}

/* A copy is made under the lock and the structure built outside: building allocates. Times in milliseconds; step-ms is
 * the mean over the evaluations of the last edit, vae-ms its encode and decode together; throughput: frames in a second
 * of the last batches. */
GstStructure *gst_flux_kontext_edit_stats(GstFluxKontextEdit *self) {
  g_autoptr(FkEngine) engine = gst_flux_kontext_edit_ref_engine(self);
  GST_OBJECT_LOCK(self);
  GstFluxKontextStats stats = self->stats;
  GST_OBJECT_UNLOCK(self);
  const FkResult *last = &stats.last;
  g_autofree gchar *machine = utf8(engine ? fk_engine_machine(engine) : "");
  gdouble ms = 0, n = 0;
  for (guint i = 0; i < MIN(stats.n_recent, G_N_ELEMENTS(stats.recent_ms)); i++) {
    ms += stats.recent_ms[i];
    n += stats.recent_frames[i];
  }
  gdouble latency_ms = (gdouble)gst_flux_kontext_edit_latency(self) / GST_MSECOND;
  gdouble step_ms = last->evaluations > 0 ? last->denoise_ms / last->evaluations : 0;
  return gst_structure_new("fluxkontext-stats", "frames", G_TYPE_UINT64, stats.frames, "dropped", G_TYPE_UINT64,
                           stats.dropped, "errors", G_TYPE_UINT64, stats.errors, "repeated", G_TYPE_UINT64,
                           stats.repeated, "throughput", G_TYPE_DOUBLE, ms > 0 ? 1000 * n / ms : 0.0, "latency-ms",
                           G_TYPE_DOUBLE, latency_ms, "seed", G_TYPE_UINT64, (guint64)last->seed, "edit-ms",
                           G_TYPE_DOUBLE, last->edit_ms, "step-ms", G_TYPE_DOUBLE, step_ms, "text-ms", G_TYPE_DOUBLE,
                           last->text_ms, "vae-ms", G_TYPE_DOUBLE, last->encode_ms + last->decode_ms, "evaluations",
                           G_TYPE_INT, last->evaluations, "skipped", G_TYPE_INT, last->skipped, "step-mask",
                           G_TYPE_STRING, last->mask, "machine", G_TYPE_STRING, machine, NULL);
}

/* Before the first start there is no engine and nothing was decided: an empty structure. */
GstStructure *gst_flux_kontext_edit_active(GstFluxKontextEdit *self) {
  GstStructure *active = gst_structure_new_empty("fluxkontext-active");
  g_autoptr(FkEngine) engine = gst_flux_kontext_edit_ref_engine(self);
  if (!engine) return active; /* nothing runs yet */
  GST_OBJECT_LOCK(self);
  g_autoptr(GstFluxKontextSettings) settings = gst_flux_kontext_props_live(&self->props);
  GST_OBJECT_UNLOCK(self);
  g_auto(GStrv) pairs = fk_engine_active(engine, settings->values);
  for (gchar **pair = pairs; pair && pair[0] && pair[1]; pair += 2) {
    g_autofree gchar *text = utf8(pair[1]);
    gst_structure_set(active, pair[0], G_TYPE_STRING, text, NULL);
  }
  return active;
}

/* The slowest of the last batches with headroom, and the time for a batch to fill. Object lock. */
static GstClockTime estimate(const GstFluxKontextEdit *self) {
  const GstFluxKontextStats *stats = &self->stats;
  if (!self->props.report_latency || stats->n_recent == 0) return 0;
  gdouble slowest = 0;
  for (guint i = 0; i < MIN(stats->n_recent, G_N_ELEMENTS(stats->recent_ms)); i++)
    slowest = MAX(slowest, stats->recent_ms[i]);
  return (GstClockTime)(slowest * LATENCY_HEADROOM * GST_MSECOND) + stats->gather;
}

GstClockTime gst_flux_kontext_edit_latency(GstFluxKontextEdit *self) {
  GST_OBJECT_LOCK(self);
  GstClockTime latency = estimate(self);
  GST_OBJECT_UNLOCK(self);
  return latency;
}

void gst_flux_kontext_edit_count(GstFluxKontextEdit *self, const FkResult *last, guint n, gdouble ms) {
  GST_OBJECT_LOCK(self);
  GstFluxKontextStats *stats = &self->stats;
  stats->frames += n;
  stats->last = *last;
  stats->recent_frames[stats->n_recent % G_N_ELEMENTS(stats->recent_ms)] = n;
  stats->recent_ms[stats->n_recent++ % G_N_ELEMENTS(stats->recent_ms)] = ms;
  GstClockTime now = estimate(self);
  gdouble moved = ABS((gdouble)now - (gdouble)stats->reported);
  gboolean post = moved > LATENCY_MOVES * (gdouble)stats->reported;
  if (post) stats->reported = now;
  gboolean first = stats->n_recent == 1;
  GST_OBJECT_UNLOCK(self);
  GST_DEBUG_OBJECT(self, "edited %u frames in %.1f ms, seed of the last %" G_GUINT64_FORMAT, n, ms, last->seed);
  if (first) {
    g_autoptr(GstStructure) active = gst_flux_kontext_edit_active(self);
    GST_INFO_OBJECT(self, "runs as %" GST_PTR_FORMAT, (gpointer)active);
  }
  if (post) gst_element_post_message(GST_ELEMENT(self), gst_message_new_latency(GST_OBJECT(self)));
}
