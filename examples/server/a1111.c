/* SPDX-License-Identifier: Apache-2.0 */
/* The part of the A1111 API that edits a picture: img2img, options, models, samplers, progress and interrupt. Its
 * clients send all of their settings with every request; what is not taken here is named in the answer's info. */
#include "api.h"
#include "edits.h"

#include <string.h>

/* Names that its clients know; "Euler a" is what they send when nobody has chosen. */
static const struct {
  const char *name, *scheduler;
} samplers[] = {{"Euler", "euler"}, {"DPM++ 2M", "dpmpp-2m"}, {"UniPC", "unipc"}, {"DEIS", "deis"}, {"Heun", "heun"}};

static bool read_sampler(Form *form, Ask *ask, Failure *f) {
  const char *name = form_text(form, "sampler_name", NULL, f);
  const char *old = form_text(form, "sampler_index", NULL, f);
  name = name ? name : old;
  if (!name || !*name || !strcmp(name, "Euler a") || !strcmp(name, "Automatic")) return !f->status;
  for (guint i = 0; i < G_N_ELEMENTS(samplers); i++)
    if (!strcmp(samplers[i].name, name)) return ask_set(ask, "scheduler", samplers[i].scheduler, f);
  return fail(f, 404, "invalid_value", "sampler_name", "Sampler not found: \"%.100s\"", name);
}

static bool read_seed(Form *form, Ask *ask, Failure *f) {
  const char *seed = form_text(form, "seed", "-1", f);
  g_autofree char *chance = g_strdup_printf("%u", g_random_int());
  return seed && ask_set(ask, "seed", strcmp(seed, "-1") ? seed : chance, f);
}

/* cfg_scale is classifier-free guidance, which needs something to guide away from; the model's own is
 * distilled_cfg_scale, as in Forge. */
static bool read_guidance(Form *form, Ask *ask, Failure *f) {
  const char *negative = form_text(form, "negative_prompt", "", f), *cfg = form_text(form, "cfg_scale", NULL, f);
  const char *distilled = form_text(form, "distilled_cfg_scale", NULL, f);
  if (f->status || (distilled && !ask_set(ask, "guidance", distilled, f))) return false;
  if (!*negative) return true;
  return ask_set(ask, "negative-prompt", negative, f) && (!cfg || ask_set(ask, "true-cfg-scale", cfg, f));
}

static bool read_size(Form *form, Ask *ask, Failure *f) {
  int width = 0, height = 0, mode = 0;
  if (!form_integer(form, "width", 16, MEDIA_SIDE, &width, f) ||
      !form_integer(form, "height", 16, MEDIA_SIDE, &height, f) || !form_integer(form, "resize_mode", 0, 3, &mode, f))
    return false;
  if (mode > 1) return fail(f, 400, "unsupported", "resize_mode", "resize_mode: expected 0 (stretch) or 1 (crop)");
  ask->fit = mode ? MEDIA_CROP : MEDIA_STRETCH;
  if (!width != !height) return fail(f, 400, "invalid_value", "width", "width and height: expected both or none");
  ask->width = width;
  ask->height = height;
  return true;
}

static bool read_mask(Ask *ask, const FormField *mask, Failure *f) {
  const guint n = ask->images->len;
  if (!mask->text) return fail(f, 400, "invalid_image", "mask", "mask: expected base64");
  if (!ask_add_image(ask, "mask", mask->text, f)) return false;
  ask->mask = g_ptr_array_steal_index(ask->images, n);
  ask->mask_white = true;
  return true;
}

static bool read_form(Form *form, Ask *ask, GString *ignored, Failure *f) {
  int batch = 1, rounds = 1;
  const char *steps = form_text(form, "steps", "20", f);
  const FormField *images = form_take(form, "init_images"), *mask = form_take(form, "mask");
  if (!steps || !ask_set(ask, "steps", steps, f) || !ask_prompt(ask, form, f) ||
      (images && !ask_add_images(ask, images, f)) || !form_integer(form, "batch_size", 1, ASK_RESULTS, &batch, f) ||
      !form_integer(form, "n_iter", 1, ASK_RESULTS, &rounds, f) || !read_seed(form, ask, f) ||
      !read_sampler(form, ask, f) || !read_guidance(form, ask, f) || !read_size(form, ask, f))
    return false;
  if (mask && !read_mask(ask, mask, f)) return false;
  ask->n = batch * rounds;
  if (ask->n > ASK_RESULTS)
    return fail(f, 400, "invalid_value", "batch_size", "batch_size times n_iter: at most %d", ASK_RESULTS);
  for (guint i = 0; i < form->fields->len; i++) {
    const FormField *field = g_ptr_array_index(form->fields, i);
    if (!field->used) g_string_append_printf(ignored, "%s%s", ignored->len ? " " : "", field->name);
  }
  return true;
}

/* ---- Answer ---- */

static void add_seeds(Json *j, const Job *job) {
  json_open(j, "all_seeds", '[');
  for (int i = 0; i < job->ask->n; i++) {
    g_autofree char *seed = g_strdup_printf("%" G_GUINT64_FORMAT, job->pictures[i].result.seed);
    json_raw(j, NULL, seed);
  }
  json_close(j, ']');
}

static void add_parameters(Json *j, const Job *job) {
  const FkSettings *s = job->ask->settings;
  g_autofree char *seed = g_strdup_printf("%" G_GUINT64_FORMAT, job->pictures[0].result.seed);
  const char *negative = fk_settings_get(s, "negative-prompt");
  json_text(j, "prompt", fk_settings_get(s, "prompt"));
  json_text(j, "negative_prompt", negative ? negative : "");
  json_raw(j, "seed", seed);
  json_raw(j, "steps", fk_settings_decided(s, "steps"));
  json_raw(j, "cfg_scale", fk_settings_get(s, "true-cfg-scale"));
  json_raw(j, "distilled_cfg_scale", fk_settings_get(s, "guidance"));
  json_text(j, "sampler_name", fk_settings_decided(s, "scheduler"));
  json_count(j, "width", job->pictures[0].width);
  json_count(j, "height", job->pictures[0].height);
  json_count(j, "batch_size", job->ask->n);
}

/* A JSON object as a text. */
static char *info(const Job *job, const char *ignored) {
  GString *text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  g_auto(GStrv) names = g_strsplit(ignored, " ", -1);
  json_open(&j, NULL, '{');
  add_parameters(&j, job);
  add_seeds(&j, job);
  json_open(&j, "infotexts", '[');
  for (int i = 0; i < job->ask->n; i++) json_text(&j, NULL, fk_settings_get(job->ask->settings, "prompt"));
  json_close(&j, ']');
  json_open(&j, "ignored", '[');
  for (char **name = names; *name; name++) json_text(&j, NULL, *name);
  json_close(&j, ']');
  json_close(&j, '}');
  return g_string_free(text, FALSE);
}

static void answer(Exchange *x, const Job *job) {
  g_autoptr(GString) text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  g_autofree char *about = info(job, x->data);
  json_open(&j, NULL, '{');
  json_open(&j, "images", '[');
  for (int i = 0; i < job->ask->n; i++) edits_base64(&j, NULL, "", job->pictures[i].file);
  json_close(&j, ']');
  json_open(&j, "parameters", '{');
  add_parameters(&j, job);
  json_close(&j, '}');
  json_text(&j, "info", about);
  json_close(&j, '}');
  exchange_json(x, 200, text->str);
}

static void on_job(Exchange *x, Job *job, guint index, bool ended) {
  (void)index;
  if (ended) exchange_conclude(x, job, answer);
}

void a1111_img2img(Exchange *x) {
  g_auto(Form) form = {0};
  g_auto(Failure) f = {0};
  g_autoptr(Ask) ask = ask_new(x->server->defaults);
  g_autoptr(GString) ignored = g_string_new(NULL);
  g_autoptr(Job) job = NULL;
  if (exchange_form(x, &form, &f) && read_form(&form, ask, ignored, &f))
    job = exchange_submit(x, g_steal_pointer(&ask), "a1111", &f);
  if (!job) {
    exchange_fail(x, &f);
    return;
  }
  x->data = g_strdup(ignored->str);
  exchange_follow(x, job, on_job);
  if (job_ended(job)) on_job(x, job, 0, true);
}

/* ---- What its clients ask besides ---- */

void a1111_options(Exchange *x) {
  g_autoptr(GString) text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  json_open(&j, NULL, '{');
  json_text(&j, "sd_model_checkpoint", x->server->model);
  json_text(&j, "samples_format", "png");
  json_close(&j, '}');
  exchange_json(x, 200, text->str);
}

void a1111_set_options(Exchange *x) {
  g_auto(Form) form = {0};
  g_auto(Failure) f = {0};
  const char *model =
      exchange_form(x, &form, &f) ? form_text(&form, "sd_model_checkpoint", x->server->model, &f) : NULL;
  if (model && strcmp(model, x->server->model))
    fail(&f, 400, "unsupported", "sd_model_checkpoint", "this server has one model: %s", x->server->model);
  if (f.status)
    exchange_fail(x, &f);
  else
    exchange_json(x, 200, "null");
}

void a1111_models(Exchange *x) {
  g_autoptr(GString) text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  json_open(&j, NULL, '[');
  json_open(&j, NULL, '{');
  json_text(&j, "title", x->server->model);
  json_text(&j, "model_name", x->server->model);
  json_raw(&j, "hash", "null");
  json_raw(&j, "sha256", "null");
  json_text(&j, "filename", x->server->model);
  json_raw(&j, "config", "null");
  json_close(&j, '}');
  json_close(&j, ']');
  exchange_json(x, 200, text->str);
}

void a1111_samplers(Exchange *x) {
  g_autoptr(GString) text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  json_open(&j, NULL, '[');
  for (guint i = 0; i < G_N_ELEMENTS(samplers); i++) {
    json_open(&j, NULL, '{');
    json_text(&j, "name", samplers[i].name);
    json_raw(&j, "aliases", "[]");
    json_raw(&j, "options", "{}");
    json_close(&j, '}');
  }
  json_close(&j, ']');
  exchange_json(x, 200, text->str);
}

void a1111_progress(Exchange *x) {
  g_autoptr(GString) text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  const Job *job = queue_current(x->server->queue);
  const bool steps = job && !g_strcmp0(job->stage, "step") && job->total;
  const gint64 eta = job ? job_eta_ms(job) : 0;
  json_open(&j, NULL, '{');
  json_number(&j, "progress", steps ? (double)job->current / (double)job->total : 0);
  json_number(&j, "eta_relative", eta > 0 ? (double)eta / 1000 : 0);
  json_open(&j, "state", '{');
  json_raw(&j, "skipped", "false");
  json_raw(&j, "interrupted", "false");
  json_text(&j, "job", job ? job->id : "");
  json_count(&j, "job_count", queue_depth(x->server->queue) + queue_running(x->server->queue));
  json_count(&j, "job_no", 0);
  json_count(&j, "sampling_step", steps ? job->current : 0);
  json_count(&j, "sampling_steps", steps ? job->total : 0);
  json_close(&j, '}');
  json_raw(&j, "current_image", "null");
  json_raw(&j, "textinfo", "null");
  json_close(&j, '}');
  exchange_json(x, 200, text->str);
}

/* Stops what came by this API; other clients' jobs are theirs. */
void a1111_interrupt(Exchange *x) {
  GHashTableIter iter;
  gpointer value;
  g_autoptr(GPtrArray) running = g_ptr_array_new();
  g_hash_table_iter_init(&iter, x->server->jobs.by_id);
  while (g_hash_table_iter_next(&iter, NULL, &value)) {
    const Job *job = value;
    if (job->state == JOB_RUNNING && !strcmp(job->api, "a1111")) g_ptr_array_add(running, value);
  }
  for (guint i = 0; i < running->len; i++)
    queue_cancel(x->server->queue, g_ptr_array_index(running, i), 409, "cancelled", "the job was interrupted");
  exchange_json(x, 200, "{}");
}
