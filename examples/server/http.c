/* SPDX-License-Identifier: Apache-2.0 */
/* From a connection to a handler and back; see http.h. libsoup has no time limits of its own and keeps any body in
 * memory, so both are counted here. A message that waits for a job is held by a reference until it is answered or its
 * client has left. */
#include "http.h"

#include "guard.h"
#include "listen.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum { HEADERS_S = 10, BODY_S = 60, SEND_S = 60, KEEP_ALIVE_S = 15, DISCARD = 1 << 20, UNSENT = 1000, LOOK_MS = 250 };

static void limit(Exchange *x, int seconds) {
  x->deadline_us = seconds ? g_get_monotonic_time() + seconds * G_USEC_PER_SEC : 0;
}

/* ---- Answers ---- */

const char *exchange_header(const Exchange *x, const char *name) {
  return soup_message_headers_get_one(soup_server_message_get_request_headers(x->msg), name);
}

const char *exchange_query(const Exchange *x, const char *name) {
  return x->query ? g_hash_table_lookup(x->query, name) : NULL;
}

void exchange_add(Exchange *x, const char *name, const char *value) {
  soup_message_headers_replace(soup_server_message_get_response_headers(x->msg), name, value);
}

/* One request for each connection: libsoup neither tells of connections that idle between two requests nor ends them.
 */
static void common_headers(Exchange *x, const char *type) {
  exchange_add(x, "Connection", "close");
  exchange_add(x, "Content-Type", type);
  exchange_add(x, "Cache-Control", "no-store");
  exchange_add(x, "X-Content-Type-Options", "nosniff");
  if (!x->server->origin) return;
  exchange_add(x, "Access-Control-Allow-Origin", x->server->origin);
  exchange_add(x, "Access-Control-Expose-Headers", "X-Fk-Job, X-Fk-Ignored, Location, Retry-After");
  exchange_add(x, "Vary", "Origin");
}

void exchange_bytes(Exchange *x, guint status, const char *type, GBytes *bytes) {
  common_headers(x, type);
  soup_server_message_set_status(x->msg, status, NULL);
  soup_message_body_append_bytes(soup_server_message_get_response_body(x->msg), bytes);
  limit(x, SEND_S);
}

void exchange_json(Exchange *x, guint status, const char *text) {
  g_autoptr(GBytes) bytes = g_bytes_new(text, strlen(text));
  exchange_bytes(x, status, "application/json", bytes);
}

static char *failure_json(const Failure *f, bool detail) {
  GString *text = g_string_new(NULL);
  Json j = {.text = text, .line = true};
  json_open(&j, NULL, '{');
  if (detail) {
    json_text(&j, "detail", f->message);
  } else {
    json_open(&j, "error", '{');
    json_text(&j, "message", f->message);
    json_text(&j, "type", failure_type(f->status));
    if (f->param)
      json_text(&j, "param", f->param);
    else
      json_raw(&j, "param", "null");
    json_text(&j, "code", f->code);
    json_close(&j, '}');
  }
  json_close(&j, '}');
  return g_string_free(text, FALSE);
}

void exchange_fail(Exchange *x, const Failure *f) {
  g_autofree char *text = failure_json(f, x->route && (x->route->flags & HTTP_DETAIL)),
                  *retry = g_strdup_printf("%u", f->retry_s);
  if (x->streaming) {
    exchange_event(x, -1, "error", text);
    exchange_stream_end(x);
    return;
  }
  if (f->retry_s) exchange_add(x, "Retry-After", retry);
  if (f->status == 409 || (f->status >= 500 && f->status != 503)) exchange_add(x, "x-should-retry", "false");
  if (f->status == 401) exchange_add(x, "WWW-Authenticate", "Bearer");
  if (!x->job) metrics_rejected(&x->server->metrics, f);
  exchange_json(x, f->status, text);
}

void exchange_refuse(Exchange *x, guint status, const char *code, const char *message) {
  g_auto(Failure) f = {0};
  fail(&f, status, code, NULL, "%s", message);
  exchange_fail(x, &f);
}

char *exchange_base(const Exchange *x) {
  const char *host = exchange_header(x, "Host"), *scheme = exchange_header(x, "X-Forwarded-Proto");
  return g_strdup_printf("%s://%s", scheme && !strcmp(scheme, "https") ? scheme : "http", host ? host : "localhost");
}

/* ---- Streams of events ---- */

static void push(Exchange *x, const char *text, gsize bytes) {
  if (x->gone) return;
  if (!x->unsent++) limit(x, SEND_S);
  x->said_us = g_get_monotonic_time();
  soup_message_body_append(soup_server_message_get_response_body(x->msg), SOUP_MEMORY_COPY, text, bytes);
  soup_server_message_unpause(x->msg);
}

void exchange_stream(Exchange *x) {
  SoupMessageHeaders *headers = soup_server_message_get_response_headers(x->msg);
  const bool chunks = soup_server_message_get_http_version(x->msg) != SOUP_HTTP_1_0;
  common_headers(x, "text/event-stream");
  exchange_add(x, "X-Accel-Buffering", "no"); /* nginx passes events on as they come */
  soup_server_message_set_status(x->msg, 200, NULL);
  soup_message_headers_set_encoding(headers, chunks ? SOUP_ENCODING_CHUNKED : SOUP_ENCODING_EOF);
  soup_message_body_set_accumulate(soup_server_message_get_response_body(x->msg), FALSE);
  x->streaming = true;
}

void exchange_keep_alive(Exchange *x) {
  push(x, ": keep-alive\n\n", 14);
}

void exchange_event(Exchange *x, int id, const char *name, const char *data) {
  g_autofree char *number = id < 0 ? g_strdup("") : g_strdup_printf("id: %d\n", id);
  g_autofree char *text = g_strdup_printf("%sevent: %s\ndata: %s\n\n", number, name, data);
  push(x, text, strlen(text));
}

/* ---- Following a job ---- */

static void on_job(Job *job, guint index, gpointer data) {
  Exchange *x = data;
  x->follow(x, job, index, job_ended(job));
}

void exchange_follow(Exchange *x, Job *job, ExchangeFollow follow) {
  x->job = job_ref(job);
  x->follow = follow;
  g_object_ref(x->msg);
  soup_server_message_pause(x->msg);
  job_watch(job, on_job, x);
}

static void stop_following(Exchange *x) {
  g_autoptr(Job) job = g_steal_pointer(&x->job);
  if (job) job_unwatch(job, x);
}

void exchange_follow_next(Exchange *x, Job *job) {
  stop_following(x);
  x->job = job_ref(job);
  job_watch(job, on_job, x);
}

void exchange_done(Exchange *x) {
  SoupServerMessage *msg = x->msg;
  if (!x->job) return;
  stop_following(x);
  soup_server_message_unpause(msg);
  g_object_unref(msg);
}

void exchange_conclude(Exchange *x, Job *job, void (*answer)(Exchange *x, const Job *job)) {
  g_autoptr(Job) alive = job_ref(job);
  if (job->state == JOB_DONE)
    answer(x, job);
  else
    exchange_fail(x, &job->failure);
  exchange_done(x);
}

void exchange_stream_end(Exchange *x) {
  if (x->gone) return;
  soup_message_body_complete(soup_server_message_get_response_body(x->msg));
  if (x->job)
    exchange_done(x);
  else
    soup_server_message_unpause(x->msg);
}

/* The client is gone, or has its answer. */
static void leave(Exchange *x) {
  Server *server = x->server;
  if (x->gone) return;
  x->gone = true;
  server->bodies -= x->body->len;
  g_byte_array_set_size(x->body, 0);
  g_ptr_array_remove_fast(server->exchanges, x);
  if (!x->job) return;
  g_autoptr(Job) job = job_ref(x->job);
  stop_following(x);
  if (!job_watched(job) && !job->detached) queue_cancel(server->queue, job, 409, "client_left", "the client left");
  g_object_unref(x->msg); /* x goes with it */
}

/* ---- Before the body ---- */

/* What `*` stands for goes to *argument; (transfer full). */
static bool matches(const char *pattern, const char *path, char **argument) {
  const char *star = strchr(pattern, '*');
  if (!star) return !strcmp(pattern, path);
  const gsize before = (gsize)(star - pattern), n = strlen(path), after = strlen(star + 1);
  if (n <= before + after || strncmp(pattern, path, before) || strcmp(path + n - after, star + 1)) return false;
  if (memchr(path + before, '/', n - before - after)) return false;
  g_free(*argument);
  *argument = g_strndup(path + before, n - before - after);
  return true;
}

static const HttpRoute *routes;

static bool find_route(Exchange *x, const char *path, const char *method, Failure *f) {
  g_autoptr(GString) allow = g_string_new("OPTIONS");
  bool known = false;
  for (const HttpRoute *r = routes; r->path; r++) {
    if (!matches(r->path, path, &x->argument)) continue;
    known = true;
    if (!x->route) x->route = r; /* for the form of an error */
    g_string_append_printf(allow, ", %s", r->method);
    if (strcmp(r->method, method) && (strcmp(method, "HEAD") || strcmp(r->method, "GET"))) continue;
    x->route = r;
    return true;
  }
  if (!known) return fail(f, 404, "not_found", NULL, "%.200s: there is nothing", path);
  exchange_add(x, "Allow", allow->str);
  return fail(f, 405, "method_not_allowed", NULL, "%.20s: expected %s", method, allow->str);
}

static bool too_much(Exchange *x, goffset length, Failure *f) {
  const ServerLimits *l = &x->server->limits;
  if (length > (goffset)l->body) {
    fail(f, 413, "too_large", NULL, "a body of %" G_GOFFSET_FORMAT " bytes; at most %" G_GSIZE_FORMAT " are taken",
         length, l->body);
    return true;
  }
  const gsize used = x->server->jobs.held - x->server->jobs.kept + x->server->bodies;
  if (used + (gsize)length <= l->memory) return false;
  fail(f, 429, "queue_full", NULL, "all memory for requests is in use");
  f->retry_s = 1;
  return true;
}

/* May a job begin now? */
static bool may_work(Server *server, Failure *f) {
  const QueueState state = queue_state(server->queue);
  if (server->draining)
    fail(f, 503, "shutting_down", NULL, "the server is ending");
  else if (state == QUEUE_LOADING)
    fail(f, 503, "loading", NULL, "the model is being loaded");
  else if (state == QUEUE_DEAD)
    return fail(f, 500, "device_lost", NULL, "the device is lost; the server has to be restarted");
  else if (queue_depth(server->queue) >= server->limits.queue)
    fail(f, 429, "queue_full", NULL, "%u jobs wait already, which is the limit", queue_depth(server->queue));
  const gint64 eta_s = queue_eta_ms(server->queue, 1) / 1000;
  f->retry_s = f->status ? (guint)CLAMP(eta_s, 1, 600) : 0;
  return !f->status;
}

static bool check_early(Exchange *x, const char *path, Failure *f) {
  SoupMessageHeaders *headers = soup_server_message_get_request_headers(x->msg);
  const char *method = soup_server_message_get_method(x->msg);
  const bool local = g_socket_get_family(x->socket) == G_SOCKET_FAMILY_UNIX;
  if (!find_route(x, path, method, f) && strcmp(method, "OPTIONS")) return false;
  if (!guard_host(x->server, headers, local, f)) return false;
  if (!strcmp(method, "OPTIONS")) return f->status != 404;
  if (!(x->route->flags & HTTP_OPEN) && !guard_token(x->server, headers, f)) return false;
  const char *encoding = soup_message_headers_get_one(headers, "Content-Encoding");
  if (encoding && g_ascii_strcasecmp(encoding, "identity"))
    return fail(f, 415, "unsupported_media_type", NULL, "Content-Encoding: \"%.40s\" is not taken", encoding);
  if (soup_message_headers_get_encoding(headers) == SOUP_ENCODING_CONTENT_LENGTH &&
      too_much(x, soup_message_headers_get_content_length(headers), f))
    return false;
  return !(x->route->flags & HTTP_WORK) || may_work(x->server, f);
}

static Exchange *exchange_of(SoupServerMessage *msg) {
  return g_object_get_data(G_OBJECT(msg), "exchange");
}

static void on_early(SoupServer *soup, SoupServerMessage *msg, const char *path, GHashTable *query, gpointer data) {
  Exchange *x = exchange_of(msg);
  g_auto(Failure) f = {0};
  (void)soup, (void)query, (void)data;
  limit(x, BODY_S);
  soup_message_body_set_accumulate(soup_server_message_get_request_body(msg), FALSE);
  if (check_early(x, path, &f)) return;
  if (!f.status) return; /* OPTIONS */
  x->refused = true;
  exchange_fail(x, &f);
  limit(x, BODY_S); /* what is on its way still has to be read */
}

/* Ends a connection whose body is longer than it may be: libsoup would read on. */
static void cut(Exchange *x) {
  g_auto(Failure) f = {0};
  fail(&f, 413, "too_large", NULL, "the body is too large; at most %" G_GSIZE_FORMAT " bytes are taken",
       x->server->limits.body);
  g_autofree char *text = failure_json(&f, x->route && (x->route->flags & HTTP_DETAIL));
  g_autofree char *answer =
      g_strdup_printf("HTTP/1.1 413 Request Entity Too Large\r\nContent-Type: application/json\r\n"
                      "Connection: close\r\nContent-Length: %" G_GSIZE_FORMAT "\r\n\r\n%s",
                      strlen(text), text);
  g_autoptr(GIOStream) stream = soup_server_message_steal_connection(x->msg);
  if (!stream) return;
  g_output_stream_write_all(g_io_stream_get_output_stream(stream), answer, strlen(answer), NULL, NULL, NULL);
  g_io_stream_close(stream, NULL, NULL);
}

static void on_chunk(SoupServerMessage *msg, GBytes *bytes, gpointer data) {
  Exchange *x = data;
  gsize n;
  const guint8 *p = g_bytes_get_data(bytes, &n);
  g_auto(Failure) f = {0};
  if (x->gone) return;
  if (!x->refused && !too_much(x, (goffset)(x->body->len + n), &f)) {
    g_byte_array_append(x->body, p, (guint)n);
    x->server->bodies += n;
    return;
  }
  x->discarded += n;
  if (f.status != 413 && x->discarded <= DISCARD) {
    if (!x->refused) exchange_fail(x, &f);
    x->refused = true;
    return;
  }
  g_object_ref(msg);
  cut(x);
  leave(x);
  g_object_unref(msg);
}

/* ---- The request ---- */

static void options(Exchange *x) {
  exchange_add(x, "Access-Control-Allow-Methods", "GET, POST, DELETE");
  exchange_add(x, "Access-Control-Allow-Headers",
               "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer");
  exchange_add(x, "Access-Control-Max-Age", "600");
  exchange_add(x, "Connection", "close");
  if (x->server->origin) exchange_add(x, "Access-Control-Allow-Origin", x->server->origin);
  soup_server_message_set_status(x->msg, 204, NULL);
}

static void on_request(SoupServer *soup, SoupServerMessage *msg, const char *path, GHashTable *query, gpointer data) {
  Exchange *x = exchange_of(msg);
  (void)soup, (void)path, (void)data;
  if (x->gone || x->refused) return;
  x->query = query ? g_hash_table_ref(query) : NULL;
  x->read = true;
  limit(x, 0);
  if (!strcmp(soup_server_message_get_method(msg), "OPTIONS"))
    options(x);
  else
    x->route->handler(x);
}

bool exchange_form(Exchange *x, Form *form, Failure *f) {
  g_autoptr(GBytes) body = g_bytes_new_take(x->body->data, x->body->len);
  x->server->bodies -= x->body->len;
  g_byte_array_steal(x->body, NULL);
  const char *key = exchange_header(x, "Idempotency-Key");
  if (!form_parse(exchange_header(x, "Content-Type"), body, form, f)) return false;
  if (!key) return true;
  if (!*key || strlen(key) > 255)
    return fail(f, 400, "invalid_value", "Idempotency-Key", "Idempotency-Key: expected 1 to 255 characters");
  x->key = g_strconcat(x->route->path, " ", key, NULL);
  x->form_hash = form_hash(form);
  return true;
}

static bool size_of_result(Server *server, Ask *ask, Failure *f) {
  const int w = ask->width ? ask->width : ask->image_width, h = ask->width ? ask->height : ask->image_height;
  int width, height;
  GError *error = NULL;
  if (fk_engine_output_size(queue_engine(server->queue), ask->settings, w, h, &width, &height, &error)) return true;
  return fail_error(f, error);
}

static bool fits_memory(Server *server, const Ask *ask, gsize bytes, Failure *f) {
  const gsize used = server->jobs.held - server->jobs.kept + server->bodies;
  if (bytes > server->limits.memory)
    return fail(f, 413, "too_large", NULL,
                "%d pictures of this size take %" G_GSIZE_FORMAT " bytes; the limit is %" G_GSIZE_FORMAT, ask->n, bytes,
                server->limits.memory);
  if (used + bytes <= server->limits.memory) return true;
  fail(f, 429, "queue_full", NULL, "all memory for pictures is in use");
  f->retry_s = (guint)CLAMP(queue_eta_ms(server->queue, 1) / 1000, 1, 600);
  return false;
}

Job *exchange_submit(Exchange *x, Ask *taken, const char *api, Failure *f) {
  Server *server = x->server;
  g_autoptr(Ask) ask = taken;
  Job *before = x->key ? jobs_find_idempotent(&server->jobs, x->key, x->form_hash, f) : NULL;
  if (f->status) return NULL;
  if (before) {
    exchange_add(x, "X-Fk-Job", before->id);
    return job_ref(before);
  }
  const gsize bytes = ask_check(ask, server->limits.pixels, f) ? queue_bytes(ask) : 0;
  if (f->status || !size_of_result(server, ask, f) || !may_work(server, f) || !fits_memory(server, ask, bytes, f))
    return NULL;
  if (server->log_prompts) g_printerr("prompt: %s\n", fk_settings_get(ask->settings, "prompt"));
  Job *job = jobs_add(&server->jobs, g_steal_pointer(&ask), api);
  jobs_hold(&server->jobs, job, bytes);
  if (x->key) jobs_set_idempotent(&server->jobs, job, x->key, x->form_hash);
  exchange_add(x, "X-Fk-Job", job->id);
  queue_submit(server->queue, job);
  return job;
}

/* ---- Connections ---- */

static void shut(Exchange *x) {
  g_socket_shutdown(x->socket, TRUE, TRUE, NULL);
}

static void exchange_free(gpointer data) {
  Exchange *x = data;
  leave(x);
  g_object_unref(x->socket);
  g_free(x->argument);
  g_free(x->key);
  g_free(x->form_hash);
  if (x->query) g_hash_table_unref(x->query);
  g_byte_array_unref(x->body);
  g_free(x->data);
  g_free(x);
}

static void on_written(SoupServerMessage *msg, gpointer data) {
  Exchange *x = data;
  (void)msg;
  if (x->unsent) x->unsent--;
  limit(x, x->streaming && !x->unsent ? 0 : SEND_S);
}

static void on_sent(SoupServerMessage *msg, guint bytes, gpointer data) {
  (void)msg, (void)bytes;
  Exchange *x = data;
  if (!x->streaming) limit(x, SEND_S);
}

static void on_gone(SoupServerMessage *msg, gpointer data) {
  (void)msg;
  leave(data);
}

static void on_started(SoupServer *soup, SoupServerMessage *msg, gpointer data) {
  Server *server = data;
  Exchange *x = g_new0(Exchange, 1);
  (void)soup;
  x->server = server;
  x->msg = msg;
  x->socket = g_object_ref(listen_socket(msg));
  x->body = g_byte_array_new();
  x->began_us = g_get_monotonic_time();
  limit(x, HEADERS_S);
  g_ptr_array_add(server->exchanges, x);
  g_object_set_data_full(G_OBJECT(msg), "exchange", x, exchange_free);
  g_signal_connect(msg, "got-chunk", G_CALLBACK(on_chunk), x);
  g_signal_connect(msg, "wrote-chunk", G_CALLBACK(on_written), x);
  g_signal_connect(msg, "wrote-body-data", G_CALLBACK(on_sent), x);
  g_signal_connect(msg, "finished", G_CALLBACK(on_gone), x);
  g_signal_connect(msg, "disconnected", G_CALLBACK(on_gone), x);
  if (server->exchanges->len > server->limits.connections) shut(x);
}

/* libsoup does not look at a connection while its answer is kept waiting. */
static bool has_left(const Exchange *x) {
  char byte;
  if (!x->read) return false;
  const ssize_t n = recv(g_socket_get_fd(x->socket), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return !n || (n < 0 && errno != EAGAIN && errno != EINTR);
}

/* A message that is kept waiting would keep its connection. */
static void abandon(Exchange *x) {
  g_autoptr(SoupServerMessage) msg = g_object_ref(x->msg);
  g_autoptr(GIOStream) stream = soup_server_message_steal_connection(msg);
  if (stream) g_io_stream_close(stream, NULL, NULL);
  leave(x);
}

static gboolean on_look(gpointer data) {
  Server *server = data;
  const gint64 now = g_get_monotonic_time();
  for (guint i = server->exchanges->len; i-- > 0;) {
    Exchange *x = g_ptr_array_index(server->exchanges, i);
    if (x->streaming && now - x->said_us > KEEP_ALIVE_S * G_USEC_PER_SEC) exchange_keep_alive(x);
    if (x->job && has_left(x)) {
      abandon(x);
      continue;
    }
    if ((x->deadline_us && now > x->deadline_us) || x->unsent > UNSENT) shut(x);
  }
  return G_SOURCE_CONTINUE;
}

void http_start(Server *server, const HttpRoute *table) {
  routes = table;
  server->exchanges = g_ptr_array_new();
  server->soup = soup_server_new("server-header", "fluxkontext", NULL);
  soup_server_add_early_handler(server->soup, NULL, on_early, server, NULL);
  soup_server_add_handler(server->soup, NULL, on_request, server, NULL);
  g_signal_connect(server->soup, "request-started", G_CALLBACK(on_started), server);
  g_timeout_add(LOOK_MS, on_look, server);
}

void http_stop(Server *server) {
  soup_server_disconnect(server->soup);
  g_clear_object(&server->soup);
  g_ptr_array_unref(server->exchanges);
}
