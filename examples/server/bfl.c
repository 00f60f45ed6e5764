/* SPDX-License-Identifier: Apache-2.0 */
/* POST /v1/flux-kontext-pro, -max and -dev, and GET /v1/get_result, as the BFL API has them: all three are the model
 * that this server has. A seed that is not sent is random, as there. */
#include "api.h"
#include "edits.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { AREA = 1024 * 1024 };

/* "16:9": a size of one megapixel in this ratio. */
static bool read_ratio(Form *form, Ask *ask, Failure *f) {
  const char *text = form_text(form, "aspect_ratio", NULL, f);
  int a, b;
  char rest;
  if (!text) return !f->status;
  if (sscanf(text, "%3d:%3d%c", &a, &b, &rest) != 2 || a < 1 || b < 1 || a * 9 > b * 21 || b * 9 > a * 21)
    return fail(f, 400, "invalid_value", "aspect_ratio",
                "aspect_ratio: \"%.100s\" is not WIDTH:HEIGHT from 21:9 to 9:21", text);
  ask->width = (int)lrint(sqrt((double)AREA * a / b) / 16) * 16;
  ask->height = (int)lrint(sqrt((double)AREA * b / a) / 16) * 16;
  return true;
}

static bool read_images(Form *form, Ask *ask, Failure *f) {
  for (int i = 1; i <= 4; i++) {
    g_autofree char *name = i == 1 ? g_strdup("input_image") : g_strdup_printf("input_image_%d", i);
    const char *text = form_text(form, name, NULL, f);
    if (f->status || (text && !ask_add_image(ask, name, text, f))) return false;
  }
  ask->generate = !ask->images->len;
  return true;
}

static bool refuse(Form *form, const char *name, const char *why, Failure *f) {
  const FormField *field = form_take(form, name);
  if (!field || !g_strcmp0(field->text, "false") || !g_strcmp0(field->text, "")) return true;
  return fail(f, 400, "unsupported", name, "%s: %s", name, why);
}

static bool read_form(Form *form, Ask *ask, Failure *f) {
  if (!form_take(form, "seed")) {
    g_autofree char *seed = g_strdup_printf("%u", g_random_int());
    if (!ask_set(ask, "seed", seed, f)) return false;
  } else if (!ask_set(ask, "seed", form_text(form, "seed", "0", f), f)) {
    return false;
  }
  form_take(form, "safety_tolerance");
  form_take(form, "webhook_secret");
  if (!ask_prompt(ask, form, f) || !read_images(form, ask, f) || !read_ratio(form, ask, f) ||
      !refuse(form, "webhook_url", "this server calls nobody", f) ||
      !refuse(form, "prompt_upsampling", "the prompt is passed to the model as it is", f))
    return false;
  const char *format = form_text(form, "output_format", "png", f);
  return format && ask_format(ask, format, f) && ask_rest(ask, form, f);
}

static void answer(Exchange *x, Job *job) {
  g_autoptr(GString) text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  g_autofree char *base = exchange_base(x), *url = g_strdup_printf("%s/v1/get_result?id=%s", base, job->id);
  job->detached = true;
  json_open(&j, NULL, '{');
  json_text(&j, "id", job->id);
  json_text(&j, "polling_url", url);
  json_close(&j, '}');
  exchange_json(x, 200, text->str);
}

static void on_job(Exchange *x, Job *job, guint index, bool ended) {
  (void)index;
  g_autoptr(Job) alive = job_ref(job);
  if (ended && job->state != JOB_DONE)
    exchange_fail(x, &job->failure);
  else
    answer(x, job);
  exchange_done(x);
}

void bfl_edit(Exchange *x) {
  g_auto(Form) form = {0};
  g_auto(Failure) f = {0};
  g_autoptr(Ask) ask = ask_new(x->server->defaults);
  g_autoptr(Job) job = NULL;
  if (exchange_form(x, &form, &f) && read_form(&form, ask, &f))
    job = exchange_submit(x, g_steal_pointer(&ask), "bfl", &f);
  if (!job) {
    exchange_fail(x, &f);
    return;
  }
  exchange_follow(x, job, on_job);
  if (job->events->len) on_job(x, job, 0, job_ended(job));
}

/* ---- GET /v1/get_result ---- */

static double seconds_of(const Job *job, gint64 us) {
  return (double)job->created + (double)(us - job->asked_us) / G_USEC_PER_SEC;
}

static void add_result(Json *j, const Exchange *x, const Job *job) {
  g_autofree char *url = edits_url(x, job, 0);
  g_autofree char *seed = g_strdup_printf("%" G_GUINT64_FORMAT, job->pictures[0].result.seed);
  json_open(j, "result", '{');
  json_text(j, "sample", url);
  json_text(j, "prompt", fk_settings_get(job->ask->settings, "prompt"));
  json_raw(j, "seed", seed);
  json_number(j, "start_time", seconds_of(job, job->started_us));
  json_number(j, "end_time", seconds_of(job, job->ended_us));
  json_number(j, "duration", (double)(job->ended_us - job->started_us) / G_USEC_PER_SEC);
  json_close(j, '}');
}

void bfl_result(Exchange *x) {
  g_autoptr(GString) text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  const char *id = exchange_query(x, "id");
  if (!id) {
    exchange_refuse(x, 400, "missing_parameter", "id: it is required");
    return;
  }
  const Job *job = jobs_find(&x->server->jobs, id);
  const char *status = !job                     ? "Task not found"
                       : job->state == JOB_DONE ? "Ready"
                       : job_ended(job)         ? "Error"
                                                : "Pending";
  json_open(&j, NULL, '{');
  json_text(&j, "id", id);
  json_text(&j, "status", status);
  if (job && job->state == JOB_DONE)
    add_result(&j, x, job);
  else
    json_raw(&j, "result", "null");
  if (job && job->failure.status) json_text(&j, "details", job->failure.message);
  const bool steps = job && !g_strcmp0(job->stage, "step") && job->total;
  json_number(&j, "progress",
              job && job->state == JOB_DONE ? 1
              : steps                       ? (double)job->current / (double)job->total
                                            : 0);
  json_close(&j, '}');
  exchange_json(x, 200, text->str);
}
