/* SPDX-License-Identifier: Apache-2.0 */
/* Edits and their answers; see edits.h. */
#include "edits.h"

#include <string.h>

/* ---- Asking ---- */

static bool is_image(const char *name) {
  return !strcmp(name, "image") || !strcmp(name, "images") || !strcmp(name, "input_reference") ||
         g_str_has_prefix(name, "image[");
}

static bool read_pictures(Form *form, Ask *ask, Failure *f) {
  for (guint i = 0; i < form->fields->len; i++) {
    FormField *field = g_ptr_array_index(form->fields, i);
    if (!is_image(field->name)) continue;
    field->used = true;
    if (!ask_add_images(ask, field, f)) return false;
  }
  FormField *mask = form_take(form, "mask");
  if (!mask) return true;
  if (mask->text && ask_is_value("mask", mask->text)) return ask_set(ask, "mask", mask->text, f);
  const guint n = ask->images->len;
  if (!ask_add_images(ask, mask, f)) return false;
  if (ask->images->len != n + 1) return fail(f, 400, "invalid_value", "mask", "mask: expected one picture");
  ask->mask = g_ptr_array_steal_index(ask->images, n);
  return true;
}

static bool read_model(const Server *server, Form *form, Failure *f) {
  const char *model = form_text(form, "model", NULL, f);
  if (!model || !strcmp(model, server->model)) return !f->status;
  return fail(f, 404, "model_not_found", "model", "model: \"%.100s\"; this server has %s", model, server->model);
}

static bool read_format(Form *form, Ask *ask, Failure *f) {
  const char *format = form_text(form, "output_format", "png", f);
  return format && ask_format(ask, format, f) && form_integer(form, "output_compression", 0, 100, &ask->compression, f);
}

static bool read_answer(const Server *server, Form *form, Ask *ask, EditAnswer *answer, Failure *f) {
  const char *format = form_text(form, "response_format", "b64_json", f);
  if (!format || !form_bool(form, "stream", &answer->stream, f) ||
      !form_integer(form, "partial_images", 0, answer->most_previews, &ask->previews, f) ||
      !form_bool(form, "async", &answer->detached, f))
    return false;
  answer->url = !strcmp(format, "url");
  if (!answer->url && strcmp(format, "b64_json"))
    return fail(f, 400, "invalid_value", "response_format", "response_format: \"%.100s\" is neither b64_json nor url",
                format);
  if (answer->url && !server->output_dir)
    return fail(f, 400, "unsupported", "response_format",
                "response_format: url is for a server with --output-dir; use b64_json");
  return true;
}

/* What others make of these does not exist here; clients send them unasked. */
static void ignore(Exchange *x, Form *form) {
  static const char *const names[] = {"quality", "background", "input_fidelity",    "moderation",
                                      "user",    "style",      "safety_identifier", NULL};
  g_autoptr(GString) ignored = g_string_new(NULL);
  for (int i = 0; names[i]; i++)
    if (form_take(form, names[i])) g_string_append_printf(ignored, "%s%s", ignored->len ? ", " : "", names[i]);
  if (ignored->len) exchange_add(x, "X-Fk-Ignored", ignored->str);
}

bool edits_read(Exchange *x, Form *form, Ask *ask, EditAnswer *answer, Failure *f) {
  const char *size;
  ignore(x, form);
  if (!ask_prompt(ask, form, f) || !read_pictures(form, ask, f) || !read_model(x->server, form, f) ||
      !form_integer(form, "n", 1, ASK_RESULTS, &ask->n, f))
    return false;
  size = form_text(form, "size", "auto", f);
  return size && ask_size(ask, "size", size, f) && read_format(form, ask, f) &&
         read_answer(x->server, form, ask, answer, f) && ask_rest(ask, form, f);
}

/* ---- Answering ---- */

void edits_base64(Json *j, const char *name, const char *head, GBytes *file) {
  gsize n;
  const guchar *data = g_bytes_get_data(file, &n);
  g_autofree char *text = g_base64_encode(data, n), *quoted = g_strconcat("\"", head, text, "\"", NULL);
  json_raw(j, name, quoted);
}

char *edits_url(const Exchange *x, const Job *job, int i) {
  g_autofree char *base = exchange_base(x);
  return g_strdup_printf("%s/v1/files/%s-%d.%s", base, job->key, i, media_name(job->ask->format));
}

static void times(Json *j, const FkResult *r) {
  json_open(j, "ms", '{');
  json_number(j, "text", r->text_ms);
  json_number(j, "encode", r->encode_ms);
  json_number(j, "denoise", r->denoise_ms);
  json_number(j, "decode", r->decode_ms);
  json_number(j, "edit", r->edit_ms);
  json_close(j, '}');
}

/* How the picture came about. */
static void origin(Json *j, const Job *job, const JobPicture *p) {
  const FkResult *r = &p->result;
  g_autofree char *seed = g_strdup_printf("%" G_GUINT64_FORMAT, r->seed);
  json_open(j, "fk", '{');
  json_raw(j, "seed", seed);
  json_text(j, "sha256", p->hash);
  json_count(j, "evaluations", r->evaluations);
  json_count(j, "skipped", r->skipped);
  json_text(j, "mask", r->mask);
  json_raw(j, "truncated", r->truncated ? "true" : "false");
  times(j, r);
  json_open(j, "active", '[');
  for (char **pair = job->active; pair && *pair; pair += 2) {
    g_autofree char *text = g_strdup_printf("%s: %s", pair[0], pair[1]);
    json_text(j, NULL, text);
  }
  json_close(j, ']');
  if (p->manifest) json_raw(j, "manifest", p->manifest);
  json_close(j, '}');
}

void edits_picture(Json *j, const Exchange *x, const Job *job, int i, bool url) {
  const JobPicture *p = &job->pictures[i];
  g_autofree char *address = edits_url(x, job, i);
  if (url)
    json_text(j, "url", address);
  else
    edits_base64(j, "b64_json", "", p->file);
  origin(j, job, p);
}

char *edits_json(const Exchange *x, const Job *job, bool url) {
  GString *text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  g_autofree char *size = g_strdup_printf("%dx%d", job->pictures[0].width, job->pictures[0].height);
  json_open(&j, NULL, '{');
  json_count(&j, "created", job->created);
  json_open(&j, "data", '[');
  for (int i = 0; i < job->ask->n; i++) {
    json_open(&j, NULL, '{');
    edits_picture(&j, x, job, i, url);
    json_close(&j, '}');
  }
  json_close(&j, ']');
  json_text(&j, "output_format", media_name(job->ask->format));
  json_text(&j, "size", size);
  json_close(&j, '}');
  return g_string_free(text, FALSE);
}
