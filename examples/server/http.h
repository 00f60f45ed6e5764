/* SPDX-License-Identifier: Apache-2.0 */
/* Requests and answers over libsoup: routes, checks before the body, limits, time limits, answers in the form of each
 * API, streams of events, and clients that leave. */
#ifndef HTTP_H
#define HTTP_H

#include "../json.h"
#include "server.h"

typedef struct Exchange Exchange;

typedef enum {
  HTTP_OPEN = 1,   /* without a token */
  HTTP_WORK = 2,   /* asks for an edit: refused at once where none can be taken */
  HTTP_DETAIL = 4, /* errors are {"detail": text}, else as the OpenAI API has them */
} HttpFlags;

typedef struct {
  const char *method; /* "GET" takes HEAD too */
  const char *path;   /* one part of it may be '*' */
  void (*handler)(Exchange *x);
  int flags;
} HttpRoute;

/* Called whenever the followed job tells something, and once with `ended` last; it answers then. */
typedef void (*ExchangeFollow)(Exchange *x, Job *job, guint index, bool ended);

struct Exchange {
  Server *server;
  SoupServerMessage *msg; /* a reference while it is kept waiting */
  GSocket *socket;        /* of the connection */
  const HttpRoute *route;
  char *argument;    /* what stands for '*' in the path */
  GHashTable *query; /* nullable */
  GByteArray *body;
  gsize discarded;
  gint64 deadline_us;       /* 0: none */
  gint64 began_us, said_us; /* the request; the last event of a stream */
  guint unsent;             /* chunks */
  bool streaming, refused, gone, read;
  char *key, *form_hash; /* Idempotency-Key and what it came with; nullable */
  Job *job;              /* followed */
  ExchangeFollow follow;
  gpointer data; /* the handler's; g_free */
};

void http_start(Server *server, const HttpRoute *routes);
/* Closes what is idle and waits for what is not; then no handler is called any more. */
void http_stop(Server *server);
const char *exchange_header(const Exchange *x, const char *name);
const char *exchange_query(const Exchange *x, const char *name);
/* The body's fields. */
bool exchange_form(Exchange *x, Form *form, Failure *f);
void exchange_json(Exchange *x, guint status, const char *text);
void exchange_bytes(Exchange *x, guint status, const char *type, GBytes *bytes);
void exchange_add(Exchange *x, const char *name, const char *value);
void exchange_fail(Exchange *x, const Failure *f);
/* exchange_fail of one sentence. */
void exchange_refuse(Exchange *x, guint status, const char *code, const char *message);
/* "http://HOST", as the client calls this server. (transfer full) */
char *exchange_base(const Exchange *x);

/* Checks, counts, queues. Takes `ask`. NULL with a failure. (transfer full) */
Job *exchange_submit(Exchange *x, Ask *ask, const char *api, Failure *f);
/* The answer waits for the job. A client that leaves takes it along, unless others watch or it is detached. */
void exchange_follow(Exchange *x, Job *job, ExchangeFollow follow);
/* Follows another job in place of the one that has ended. */
void exchange_follow_next(Exchange *x, Job *job);
/* Ends following; the answer is sent. */
void exchange_done(Exchange *x);
/* Ends following a job that has ended: by `answer` where it is done, else by its failure. */
void exchange_conclude(Exchange *x, Job *job, void (*answer)(Exchange *x, const Job *job));
/* From here on the answer is a stream of events. */
void exchange_stream(Exchange *x);
/* A comment, which clients pass over; so that the head of the answer is sent. */
void exchange_keep_alive(Exchange *x);
/* id: negative for none */
void exchange_event(Exchange *x, int id, const char *name, const char *data);
void exchange_stream_end(Exchange *x);

#endif
