/* SPDX-License-Identifier: Apache-2.0 */
/* POST /v1/images/edits and /v1/images/generations, GET /v1/models, as the OpenAI API has them. */
#include "api.h"
#include "edits.h"

#include <string.h>

static void send_completed(Exchange *x, const Job *job, int i) {
  g_autoptr(GString) text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  g_autofree char *size = g_strdup_printf("%dx%d", job->pictures[i].width, job->pictures[i].height);
  const char *name = job->ask->generate ? "image_generation.completed" : "image_edit.completed";
  json_open(&j, NULL, '{');
  json_text(&j, "type", name);
  json_count(&j, "created_at", job->created);
  json_text(&j, "size", size);
  json_text(&j, "quality", "auto");
  json_text(&j, "background", "auto");
  json_text(&j, "output_format", media_name(job->ask->format));
  json_raw(&j, "usage",
           "{\"total_tokens\": 0, \"input_tokens\": 0, \"output_tokens\": 0, "
           "\"input_tokens_details\": {\"text_tokens\": 0, \"image_tokens\": 0}}");
  edits_picture(&j, x, job, i, false);
  json_close(&j, '}');
  exchange_event(x, -1, name, text->str);
}

/* The answer to a job that has ended. */
static void answer(Exchange *x, Job *job, const EditAnswer *how) {
  if (job->state != JOB_DONE) {
    exchange_fail(x, &job->failure);
  } else if (x->streaming) {
    for (int i = 0; i < job->ask->n; i++) send_completed(x, job, i);
    exchange_stream_end(x);
  } else {
    g_autofree char *text = edits_json(x, job, how->url);
    exchange_json(x, 200, text);
  }
}

/* A preview as the API has it. */
static void send_partial(Exchange *x, const Job *job, const JobEvent *event) {
  const char *name = job->ask->generate ? "image_generation.partial_image" : "image_edit.partial_image";
  g_autoptr(JsonNode) node = json_from_string(event->data, NULL);
  JsonObject *preview = json_node_get_object(node);
  g_autoptr(GString) text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  json_open(&j, NULL, '{');
  json_text(&j, "type", name);
  json_text(&j, "b64_json", json_object_get_string_member(preview, "b64_json"));
  json_count(&j, "created_at", job->created);
  json_text(&j, "size", "auto");
  json_text(&j, "quality", "auto");
  json_text(&j, "background", "auto");
  json_text(&j, "output_format", "png");
  json_count(&j, "partial_image_index", json_object_get_int_member(preview, "index"));
  json_close(&j, '}');
  exchange_event(x, -1, name, text->str);
}

static void on_job(Exchange *x, Job *job, guint index, bool ended) {
  const JobEvent *event = index < job->events->len ? &g_array_index(job->events, JobEvent, index) : NULL;
  if (x->streaming && event && !strcmp(event->name, "preview")) send_partial(x, job, event);
  if (!ended) return;
  g_autoptr(Job) alive = job_ref(job);
  answer(x, job, x->data);
  exchange_done(x);
}

static void edit(Exchange *x, bool generate) {
  g_auto(Form) form = {0};
  g_auto(Failure) f = {0};
  g_autoptr(Ask) ask = ask_new(x->server->defaults);
  EditAnswer how = {.most_previews = 3};
  ask->generate = generate;
  if (!exchange_form(x, &form, &f) || !edits_read(x, &form, ask, &how, &f) ||
      (ask->previews && !how.stream &&
       !fail(&f, 400, "invalid_value", "partial_images", "partial_images: they come with stream=true alone"))) {
    exchange_fail(x, &f);
    return;
  }
  g_autoptr(Job) job = exchange_submit(x, g_steal_pointer(&ask), "openai", &f);
  if (!job) {
    exchange_fail(x, &f);
    return;
  }
  if (how.stream) exchange_stream(x);
  x->data = g_memdup2(&how, sizeof how);
  exchange_follow(x, job, on_job);
  if (how.stream) exchange_keep_alive(x);
  if (job_ended(job)) on_job(x, job, 0, true);
}

void openai_edits(Exchange *x) {
  edit(x, false);
}

void openai_generations(Exchange *x) {
  edit(x, true);
}

void openai_models(Exchange *x) {
  g_autoptr(GString) text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  if (x->argument && strcmp(x->argument, x->server->model)) {
    exchange_refuse(x, 404, "model_not_found", "this server has one model, which GET /v1/models names");
    return;
  }
  json_open(&j, NULL, '{');
  if (!x->argument) {
    json_text(&j, "object", "list");
    json_open(&j, "data", '[');
    json_open(&j, NULL, '{');
  }
  json_text(&j, "id", x->server->model);
  json_text(&j, "object", "model");
  json_count(&j, "created", x->server->started);
  json_text(&j, "owned_by", "local");
  if (!x->argument) {
    json_close(&j, '}');
    json_close(&j, ']');
  }
  json_close(&j, '}');
  exchange_json(x, 200, text->str);
}
