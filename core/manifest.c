/* SPDX-License-Identifier: Apache-2.0 */
/* The record of one edit as JSON, its id, and the way back into options and settings.
 *
 * Values of properties are texts, as fk_set takes them, so that nothing is lost in a reader's numbers. Written is what
 * ran, with no `auto` left where the preset or the backend decided, so that a later version with other presets repeats
 * the same edit. What a result cannot depend on is not part of the id, and what names files or says where it ran is not
 * applied: a manifest may come from anybody. */
#include "manifest.h"

#include "engine.h"
#include "file.h"
#include "hash.h"
#include "json-scan.h"
#include "pictures.h"
#include "properties.h"
#include "surface.h"

#include <string.h>

/* Names the kernels that OpenBLAS chose for this processor; another BLAS has no such function. */
extern char *openblas_get_corename(void) __attribute__((weak));

/* ---- JSON ---- */

/* text: valid UTF-8, as all values of properties are; NULL: null */
static void quote(GString *s, const char *text) {
  if (!text) {
    g_string_append(s, "null");
    return;
  }
  g_string_append_c(s, '"');
  for (const char *p = text; *p; p++)
    if ((guchar)*p < 0x20)
      g_string_append_printf(s, "\\u%04x", *p);
    else if (*p == '"' || *p == '\\')
      g_string_append_printf(s, "\\%c", *p);
    else
      g_string_append_c(s, *p);
  g_string_append_c(s, '"');
}

/* A member's name, with a comma where one stands before it. */
static void key(GString *s, const char *name) {
  if (s->str[s->len - 1] != '{') g_string_append(s, ", ");
  quote(s, name);
  g_string_append(s, ": ");
}

/* A member of the object at the top, on a line of its own. */
static void top(GString *s, const char *name) {
  g_string_append(s, s->len > 1 ? ",\n " : "");
  quote(s, name);
  g_string_append(s, ": ");
}

static void member(GString *s, const char *name, const char *text) {
  key(s, name);
  quote(s, text);
}

static void number(GString *s, const char *name, gint64 value) {
  key(s, name);
  g_string_append_printf(s, "%" G_GINT64_FORMAT, value);
}

static void ms(GString *s, const char *name, double value) {
  char digits[G_ASCII_DTOSTR_BUF_SIZE];
  key(s, name);
  g_string_append(s, g_ascii_formatd(digits, sizeof digits, "%.3f", value));
}

/* ---- Hashes ---- */

char *fk_manifest_pixels(const FkImage *image) {
  if (!image->data) return NULL;
  g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
  for (int y = 0; y < image->height; y++)
    g_checksum_update(sum, image->data + (size_t)y * image->stride, (gssize)image->width * image->channels);
  return g_strdup(g_checksum_get_string(sum));
}

/* One file as an object of the list; also into the sum of all. */
static bool hash_file(GString *s, GChecksum *all, const char *path, const char *name, GError **error) {
  uint64_t bytes;
  bool sampled;
  g_autofree char *hash = fk_hash_file(path, &bytes, &sampled, error), *shown = fk_shown_path(name);
  if (!hash) return false;
  g_string_append(s, s->str[s->len - 1] == '[' ? "\n  {" : ",\n  {");
  member(s, "file", shown);
  number(s, "bytes", (gint64)bytes);
  member(s, sampled ? "sha256-sampled" : "sha256", hash);
  g_string_append_c(s, '}');
  g_checksum_update(all, (const guchar *)name, (gssize)strlen(name) + 1);
  g_checksum_update(all, (const guchar *)hash, (gssize)strlen(hash) + 1);
  return true;
}

/* A file, or those that are read of a folder. */
static bool hash_path(GString *list, GChecksum *all, const FkOptions *options, const char *property, const char *path,
                      GError **error) {
  g_auto(GStrv) names = fk_registry_read(options, property, path);
  g_autofree char *base = g_path_get_basename(path);
  if (!g_file_test(path, G_FILE_TEST_IS_DIR) && !hash_file(list, all, path, base, error)) return false;
  for (char **name = names; *name; name++) {
    g_autofree char *file = g_build_filename(path, *name, NULL);
    if (!hash_file(list, all, file, *name, error)) return false;
  }
  return true;
}

char *fk_manifest_model(const char *path, const char *opened, const FkOptions *options, char **sum, GError **error) {
  static const char *const others[] = {"vae-path", "clip-path", "t5-path", "tokenizer-path"};
  g_autoptr(GChecksum) all = g_checksum_new(G_CHECKSUM_SHA256);
  g_autoptr(GString) list = g_string_new("[");
  if (path && !hash_path(list, all, options, "model-path", path, error)) return NULL;
  for (size_t i = 0; i < G_N_ELEMENTS(others); i++) {
    const char *other = fk_options_get(options, others[i]);
    if (path && other && *other && !hash_path(list, all, options, others[i], other, error)) return NULL;
  }
  g_autofree char *now = fk_registry_files(options);
  if (strcmp(now, opened)) {
    g_autofree char *shown = fk_shown_path(path ? path : "model");
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: files of the model have changed since it was opened", shown);
    return NULL;
  }
  GString *s = g_string_new("{");
  member(s, "sha256", g_checksum_get_string(all));
  if (sum) *sum = g_strdup(g_checksum_get_string(all));
  key(s, "files");
  g_string_append_printf(s, "%s]}", list->str);
  return g_string_free(s, FALSE);
}

/* (transfer none): as long as the engine. Two threads may hash at once, and both get what the first kept. */
static const char *model_hashes(FkEngine *e, GError **error) {
  g_mutex_lock(&e->lock);
  const char *known = e->hashes;
  g_mutex_unlock(&e->lock);
  if (known) return known;
  g_autofree char *hashes = fk_manifest_model(e->model->path, e->files, e->options, NULL, error);
  if (!hashes) return NULL;
  g_mutex_lock(&e->lock);
  if (!e->hashes) e->hashes = g_steal_pointer(&hashes);
  known = e->hashes;
  g_mutex_unlock(&e->lock);
  return known;
}

/* ---- Properties ---- */

typedef enum { RECORD, ID, APPLY } Use;

/* trace-file is a path on the machine that ran; what makes no difference to bytes does not make another id. */
static bool counts(const FkProperty *p, FkScope scope, Use use) {
  static const char *const where[] = {"cuda-device-id", "threads", "max-vram", "offload", "weight-storage", NULL};
  if (!fk_values_in_scope(p, scope) || !strcmp(p->name, "trace-file")) return false;
  if (use == RECORD) return true;
  if (use == APPLY && p->file) return false;
  if (scope == FK_SCOPE_OPTION && g_strv_contains(where, p->name)) return false;
  return use == APPLY ||
         (strcmp(p->name, "loras") && strcmp(p->name, "references") && /* files' hashes count, not their paths */
          !g_str_has_suffix(p->name, "-path") && strcmp(p->name, "preset") && p->optimization != FK_CLASS_SAME);
}

/* One spelling for each number: "2.50" asks for what "2.5" does. */
static char *canonical(const FkProperty *p, const char *text) {
  char digits[G_ASCII_DTOSTR_BUF_SIZE];
  const bool number = p->kind == FK_KIND_INT || p->kind == FK_KIND_DOUBLE;
  if (!number) return g_strdup(text);
  return g_strdup(g_ascii_dtostr(digits, sizeof digits, g_ascii_strtod(text, NULL)));
}

/* The texts of the rows that count, as JSON members, or as lines for the id. */
static void append_values(GString *s, FkEngine *e, const FkValues *v, FkScope scope, Use use) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  for (size_t i = 0; i < n; i++) {
    if (!counts(&p[i], scope, use)) continue;
    g_autofree char *shown = NULL;
    const char *text = strcmp(p[i].name, "backend") ? fk_tune_ran(v, &p[i], e->be) : e->be->ops->name;
    if (!strcmp(p[i].name, "threads")) text = shown = g_strdup_printf("%d", e->plan.threads);
    if (!strcmp(p[i].name, "cuda-device-id")) text = shown = g_strdup_printf("%d", e->plan.device);
    if (use == RECORD) {
      member(s, p[i].name, text);
    } else {
      g_autofree char *one = canonical(&p[i], text);
      g_string_append_printf(s, "%s=", p[i].name);
      quote(s, one);
      g_string_append_c(s, '\n');
    }
  }
}

/* Those that were set, as they were. */
static void append_asked(GString *s, const FkValues *v, FkScope scope) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  for (size_t i = 0; i < n; i++) {
    const char *text = fk_values_get(v, &p[i]);
    if (counts(&p[i], scope, RECORD) && p[i].scope == scope && g_strcmp0(text, p[i].initial))
      member(s, p[i].name, text);
  }
}

/* What runs of one id need in common beside it, for equal bytes. */
char *fk_engine_class(FkEngine *e) {
  const bool cpu = e->plan.backend == FK_ENGINE_CPU;
  const char *core = cpu && openblas_get_corename ? openblas_get_corename() : NULL;
  return g_strdup_printf("%s %s %s", e->be->ops->name, core ? core : cpu ? "unknown" : e->be->machine, FK_VERSION);
}

/* adapters: fk_loras_hashes of the settings' list */
static char *make_id(FkEngine *e, const FkJob *job, const char *pixels, const char *model, const char *adapters,
                     const char *class) {
  g_autoptr(GString) s = g_string_new("fluxkontext edit 1\n");
  g_string_append_printf(s, "%dx%dx%d %s\n%s\n%s\n", job->in.width, job->in.height, job->in.channels,
                         pixels ? pixels : "none", class, model);
  if (job->mask) {
    g_autofree char *mask = fk_manifest_pixels(job->mask);
    g_string_append_printf(s, "mask %dx%d %s\n", job->mask->width, job->mask->height, mask ? mask : "none");
  }
  for (int i = 0; i < job->n_references; i++) {
    g_autofree char *picture = fk_manifest_pixels(&job->references[i]);
    g_string_append_printf(s, "reference %dx%dx%d %s\n", job->references[i].width, job->references[i].height,
                           job->references[i].channels, picture ? picture : "none");
  }
  if (e->calibration) g_string_append_printf(s, "calibration %s\n", e->calibration);
  append_values(s, e, fk_options_values(e->options), FK_SCOPE_OPTION, ID);
  append_values(s, e, fk_settings_values(job->settings), FK_SCOPE_SETTING, ID);
  g_string_append(s, adapters);
  return g_compute_checksum_for_string(G_CHECKSUM_SHA256, s->str, (gssize)s->len);
}

/* A job with all that lies beside its frame: the files that settings name, as if it had been given them. */
typedef struct {
  FkJob job;
  FkPictures files;
  FkImage references[FK_REFERENCES];
} Whole;

/* False: the settings cannot run, or a file cannot be read; *whole is zero. */
static bool whole_init(Whole *w, const FkEngine *e, const FkJob *job, GError **error) {
  FkTune tune;
  *w = (Whole){0};
  if (!job->settings) {
    g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD, "the job has no settings");
    return false;
  }
  if (!fk_surface_check(NULL, job, 1, true, error) || !fk_tune_resolve(job->settings, e->be, &tune, error) ||
      !fk_pictures_take(&w->files, job->mask ? NULL : tune.mask_path, tune.references, error))
    return false;
  w->job = *job;
  if (w->files.mask.data) w->job.mask = &w->files.mask;
  if (!w->files.n_references) return true;
  int n = 0;
  for (int i = 0; i < job->n_references && n < FK_REFERENCES; i++) w->references[n++] = job->references[i];
  for (int i = 0; i < w->files.n_references && n < FK_REFERENCES; i++) w->references[n++] = w->files.references[i];
  w->job.references = w->references;
  w->job.n_references = n;
  return true;
}

static void whole_clear(Whole *w) {
  fk_pictures_drop(&w->files);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Whole, whole_clear)

char *fk_manifest_id(FkEngine *e, const FkJob *given, GError **error) {
  g_auto(Whole) whole = {0};
  const FkJob *job = &whole.job;
  const char *model = whole_init(&whole, e, given, error) ? model_hashes(e, error) : NULL;
  g_autofree char *adapters = model ? fk_loras_hashes(fk_settings_get(job->settings, "loras"), error) : NULL;
  if (!adapters) return NULL;
  g_autofree char *pixels = fk_manifest_pixels(&job->in), *class = fk_engine_class(e);
  return make_id(e, job, pixels, model, adapters, class);
}

/* ---- Writing ---- */

static void append_image(GString *s, const FkImage *image, const char *pixels) {
  g_string_append_c(s, '{');
  number(s, "width", image->width);
  number(s, "height", image->height);
  number(s, "channels", image->channels);
  member(s, "sha256", pixels);
  g_string_append_c(s, '}');
}

static void write_image(GString *s, const char *name, const FkImage *image, const char *pixels) {
  top(s, name);
  append_image(s, image, pixels);
}

static void write_references(GString *s, const FkJob *job) {
  top(s, "references");
  for (int i = 0; i < job->n_references; i++) {
    g_autofree char *pixels = fk_manifest_pixels(&job->references[i]);
    g_string_append(s, i ? ", " : "[");
    append_image(s, &job->references[i], pixels);
  }
  g_string_append_c(s, ']');
}

static void write_read(GString *s, const char *name, const FkTextRead *r) {
  if (!r->tokens) return;
  key(s, name);
  g_string_append_c(s, '{');
  number(s, "tokens", r->tokens);
  number(s, "read", r->read);
  g_string_append_c(s, '}');
}

static void write_properties(GString *s, FkEngine *e, const FkJob *job) {
  const FkValues *options = fk_options_values(e->options), *settings = fk_settings_values(job->settings);
  top(s, "settings");
  g_string_append_c(s, '{');
  append_values(s, e, settings, FK_SCOPE_SETTING, RECORD);
  g_string_append_c(s, '}');
  top(s, "options");
  g_string_append_c(s, '{');
  append_values(s, e, options, FK_SCOPE_OPTION, RECORD);
  g_string_append_c(s, '}');
  top(s, "asked");
  g_string_append_c(s, '{');
  append_asked(s, options, FK_SCOPE_OPTION);
  append_asked(s, settings, FK_SCOPE_SETTING);
  g_string_append_c(s, '}');
  g_auto(GStrv) active = fk_engine_active(e, job->settings);
  top(s, "switches");
  g_string_append_c(s, '{');
  for (char **p = active; *p; p += 2) member(s, p[0], p[1]);
  g_string_append_c(s, '}');
}

static void write_ran(GString *s, const FkResult *r, bool calibrated) {
  top(s, "ran");
  g_string_append_c(s, '{');
  number(s, "width", r->width);
  number(s, "height", r->height);
  number(s, "evaluations", r->evaluations);
  number(s, "skipped", r->skipped);
  member(s, "mask", r->mask);
  if (*r->region) member(s, "region", r->region);
  if (calibrated) number(s, "saturated", r->saturated);
  write_read(s, "clip", &r->clip);
  write_read(s, "t5", &r->t5);
  write_read(s, "negative-clip", &r->negative_clip);
  write_read(s, "negative-t5", &r->negative_t5);
  g_string_append_c(s, '}');
}

static void write_machine(GString *s, const FkEngine *e, const char *class) {
  g_autofree char *glib = g_strdup_printf("%u.%u.%u", glib_major_version, glib_minor_version, glib_micro_version);
  top(s, "class");
  quote(s, class);
  top(s, "device");
  quote(s, e->be->machine);
  top(s, "versions");
  g_string_append_c(s, '{');
  member(s, "fluxkontext", FK_VERSION);
  member(s, "glib", glib);
  g_string_append_c(s, '}');
}

static void write_times(GString *s, const FkResult *r) {
  g_autoptr(GDateTime) now = g_date_time_new_now_utc();
  g_autofree char *written = g_date_time_format(now, "%Y-%m-%dT%H:%M:%SZ");
  top(s, "times");
  g_string_append_c(s, '{');
  member(s, "written", written);
  ms(s, "text_ms", r->text_ms);
  ms(s, "encode_ms", r->encode_ms);
  ms(s, "denoise_ms", r->denoise_ms);
  ms(s, "decode_ms", r->decode_ms);
  ms(s, "edit_ms", r->edit_ms);
  g_string_append_c(s, '}');
}

/* Lines of "hash weight" as a list. */
static void write_adapters(GString *s, const char *adapters) {
  g_auto(GStrv) lines = g_strsplit(adapters, "\n", -1);
  g_string_append_c(s, '[');
  for (int i = 0; lines[i] && *lines[i]; i++) {
    char *weight = strchr(lines[i], ' ');
    *weight++ = 0;
    g_string_append(s, i ? ", {" : "{");
    member(s, "sha256", lines[i]);
    member(s, "weight", weight);
    g_string_append_c(s, '}');
  }
  g_string_append_c(s, ']');
}

/* The name of a packed model's source behind the property that gave it, whose name is written. */
static const char *write_property(GString *s, const char *name) {
  static const char *const properties[] = {"vae-path=", "clip-path=", "t5-path=", "tokenizer-path="};
  for (size_t i = 0; i < G_N_ELEMENTS(properties); i++) {
    if (!g_str_has_prefix(name, properties[i])) continue;
    g_autofree char *property = g_strndup(properties[i], strlen(properties[i]) - 1);
    member(s, "property", property);
    return name + strlen(properties[i]);
  }
  return name;
}

/* Lines of a packed model's sources (pack.h) as a list: of the adapters in it, or of all else. What is no such line is
 * left out: the file may be anybody's. */
static void write_sources(GString *s, const char *sources, bool adapters) {
  static const char loras[] = "loras=";
  g_auto(GStrv) lines = g_strsplit(sources, "\n", -1);
  g_string_append_c(s, '[');
  for (char **line = lines; *line; line++) {
    const size_t digits = strspn(*line, "0123456789abcdef");
    char *name = *line + digits;
    const bool sampled = g_str_has_prefix(name, " sampled ");
    if (digits != 64 || *name != ' ') continue;
    *name = 0;
    name += 1 + (sampled ? strlen("sampled ") : 0);
    if (g_str_has_prefix(name, loras) != adapters) continue;
    g_string_append(s, s->str[s->len - 1] == '[' ? "\n  {" : ",\n  {");
    char *weight = adapters ? strrchr(name, ':') : NULL;
    if (weight) *weight++ = 0;
    const char *file = adapters ? name + strlen(loras) : write_property(s, name);
    member(s, "file", file);
    member(s, sampled ? "sha256-sampled" : "sha256", *line);
    if (weight) member(s, "weight", weight);
    g_string_append_c(s, '}');
  }
  g_string_append_c(s, ']');
}

/* What the model's file was made of. Not part of the id, which has the file itself. */
static void write_packed(GString *s, const FkPack *pack) {
  const char *sources = fk_pack_text(pack, "sources");
  top(s, "packed");
  g_string_append_c(s, '{');
  member(s, "version", fk_pack_text(pack, "version"));
  key(s, "sources");
  write_sources(s, sources, false);
  key(s, "loras");
  write_sources(s, sources, true);
  g_string_append_c(s, '}');
}

char *fk_manifest(FkEngine *e, const FkJob *given, GError **error) {
  g_auto(Whole) whole = {0};
  const FkJob *job = &whole.job;
  const char *model = whole_init(&whole, e, given, error) ? model_hashes(e, error) : NULL;
  g_autofree char *adapters = model ? fk_loras_hashes(fk_settings_get(job->settings, "loras"), error) : NULL;
  if (!adapters) return NULL;
  g_autofree char *in = fk_manifest_pixels(&job->in), *out = fk_manifest_pixels(&job->out), *class = fk_engine_class(e),
                  *id = make_id(e, job, in, model, adapters, class);
  GString *s = g_string_new("{");
  top(s, "fluxkontext-manifest");
  g_string_append_printf(s, "%d", FK_MANIFEST_FORM);
  top(s, "id");
  quote(s, id);
  write_image(s, "input", &job->in, in);
  write_image(s, "result", &job->out, out);
  if (job->mask) {
    g_autofree char *mask = fk_manifest_pixels(job->mask);
    write_image(s, "mask", job->mask, mask);
  }
  if (job->n_references) write_references(s, job);
  write_properties(s, e, job);
  write_ran(s, &job->result, e->calibration != NULL);
  top(s, "model");
  g_string_append(s, model);
  if (e->model->pack) write_packed(s, e->model->pack);
  if (e->calibration) {
    top(s, "calibration");
    quote(s, e->calibration);
  }
  top(s, "loras");
  write_adapters(s, adapters);
  write_machine(s, e, class);
  write_times(s, &job->result);
  g_string_append(s, "}\n");
  return g_string_free(s, FALSE);
}

/* ---- Applying ---- */

static bool bad(GError **error, const char *what) {
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "manifest: %s", what);
  return false;
}

/* The member is an object of texts, or absent. */
static bool apply_list(const FkJsonNode *list, FkScope scope, FkOptions *options, FkSettings *settings,
                       GError **error) {
  if (!list || list->kind != FK_JSON_OBJECT)
    return bad(error, scope == FK_SCOPE_OPTION ? "\"options\" is no object" : "\"settings\" is no object");
  for (const FkJsonNode *it = fk_json_first(list); it; it = fk_json_after(list, it)) {
    const FkProperty *p = fk_properties_find(it->key);
    if (it->kind != FK_JSON_STRING && it->kind != FK_JSON_NULL) {
      g_autofree char *name = fk_shown_name(it->key), *shown = fk_json_shown(it);
      g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "manifest: %s: expected a text, found %s", name, shown);
      return false;
    }
    if (p && fk_values_in_scope(p, scope) && !counts(p, scope, APPLY)) continue;
    const char *text = fk_json_text(it);
    const bool ok = scope == FK_SCOPE_OPTION ? fk_options_set(options, it->key, text, error)
                                             : fk_settings_set(settings, it->key, text, error);
    if (ok) continue;
    g_prefix_error(error, "manifest: ");
    return false;
  }
  return true;
}

bool fk_manifest_apply(const char *json, FkOptions *options, FkSettings *settings, GError **error) {
  g_autoptr(GError) problem = NULL;
  g_autoptr(FkJsonTree) tree = fk_json_parse(json, "manifest", &problem);
  if (!tree) {
    g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD, problem->message);
    return false;
  }
  const FkJsonNode *root = fk_json_root(tree), *form = fk_json_member(root, "fluxkontext-manifest");
  if (!form || form->kind != FK_JSON_NUMBER)
    return bad(error, "expected a member \"fluxkontext-manifest\" with a number");
  if (!form->whole || fk_json_integer(form) != FK_MANIFEST_FORM) {
    g_autofree char *shown = fk_json_shown(form);
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "manifest: form %s; this version reads %d", shown,
                FK_MANIFEST_FORM);
    return false;
  }
  return (!options || apply_list(fk_json_member(root, "options"), FK_SCOPE_OPTION, options, NULL, error)) &&
         (!settings || apply_list(fk_json_member(root, "settings"), FK_SCOPE_SETTING, NULL, settings, error));
}
