/* SPDX-License-Identifier: Apache-2.0 */
/* /health, /livez, /readyz and /metrics. */
#include "api.h"
#include "guard.h"

#include <string.h>

static void add_queue(Json *j, const Server *server) {
  json_open(j, "queue", '{');
  json_count(j, "depth", queue_depth(server->queue));
  json_count(j, "limit", server->limits.queue);
  json_count(j, "running", queue_running(server->queue));
  json_close(j, '}');
}

static void add_active(Json *j, const Server *server) {
  g_auto(GStrv) active = queue_active(server->queue, server->defaults);
  json_open(j, "active", '[');
  for (char **pair = active; pair && *pair; pair += 2) {
    g_autofree char *text = g_strdup_printf("%s: %s", pair[0], pair[1]);
    json_text(j, NULL, text);
  }
  json_close(j, ']');
}

static const char *state_name(const Server *server) {
  static const char *const names[] = {"loading", "ready", "dead"};
  return server->draining ? "ending" : names[queue_state(server->queue)];
}

static guint state_code(const Server *server) {
  return !server->draining && queue_state(server->queue) == QUEUE_READY ? 200 : 503;
}

/* What runs and why names folders of this machine: for those who know the token, where there is one. */
static bool trusted(const Exchange *x) {
  g_auto(Failure) f = {0};
  return guard_token(x->server, soup_server_message_get_request_headers(x->msg), &f);
}

void status_health(Exchange *x) {
  g_autoptr(GString) text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  gint64 done, total;
  queue_loaded(x->server->queue, &done, &total);
  json_open(&j, NULL, '{');
  json_text(&j, "status", state_name(x->server));
  json_text(&j, "model", x->server->model);
  json_text(&j, "device", fk_engine_machine(queue_engine(x->server->queue)));
  if (total) json_number(&j, "loaded", (double)done / (double)total);
  add_queue(&j, x->server);
  if (trusted(x)) add_active(&j, x->server);
  json_text(&j, "version", FK_VERSION);
  json_close(&j, '}');
  exchange_json(x, state_code(x->server), text->str);
}

void status_live(Exchange *x) {
  exchange_json(x, 200, "{\"status\": \"alive\"}");
}

void status_ready(Exchange *x) {
  g_autofree char *text = g_strdup_printf("{\"status\": \"%s\"}", state_name(x->server));
  exchange_json(x, state_code(x->server), text);
}

void status_metrics(Exchange *x) {
  const Server *s = x->server;
  const MetricsNow now = {.version = FK_VERSION,
                          .backend = fk_options_get(s->options[0], "backend"),
                          .device = fk_engine_machine(queue_engine(s->queue)),
                          .ready = state_code(s) == 200,
                          .depth = queue_depth(s->queue),
                          .limit = s->limits.queue,
                          .running = queue_running(s->queue)};
  g_autofree char *text = metrics_text(&s->metrics, &now);
  g_autoptr(GBytes) bytes = g_bytes_new(text, strlen(text));
  exchange_bytes(x, 200, "text/plain; version=0.0.4; charset=utf-8", bytes);
}
