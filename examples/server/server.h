/* SPDX-License-Identifier: Apache-2.0 */
/* The server as a whole. */
#ifndef SERVER_H
#define SERVER_H

#include "queue.h"

#include <libsoup/soup.h>

typedef struct {
  gsize body, memory, keep_bytes; /* of one request; of all requests and jobs; of results that are kept */
  gint64 pixels;                  /* of one picture */
  guint queue, batch, connections;
  guint time_s, keep_s, drain_s,
      idle_s; /* of one job; of results; of the end; without jobs before the end, 0: no end */
} ServerLimits;

typedef struct {
  ServerLimits limits;
  char *model;          /* as clients see it */
  char *source;         /* the folder; nullable */
  FkOptions **options;  /* NULL-terminated: one for each device */
  FkSettings *defaults; /* of edits */
  char *token;          /* NULL: none is asked for */
  char **hosts;         /* further names in Host, NULL-terminated; nullable */
  char *origin;         /* that may read answers in a browser; NULL: none */
  char *output_dir;     /* nullable */
  bool log_prompts;
  SoupServer *soup;
  GSocketService *service; /* what it listens on; NULL: not yet */
  GMainLoop *loop;
  Jobs jobs;
  Queue *queue;
  Metrics metrics;
  gsize bodies;         /* bytes of requests that are being read */
  GPtrArray *exchanges; /* of Exchange: one for each connection */
  bool draining;
  gint64 started, drain_until_us, busy_us; /* seconds since 1970; monotonic */
  int status;
} Server;

#endif
