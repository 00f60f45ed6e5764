/* SPDX-License-Identifier: Apache-2.0 */
/* An edit as the OpenAI API and the job API ask for it, and its answer. */
#ifndef EDITS_H
#define EDITS_H

#include "http.h"

typedef struct {
  bool stream, url, detached;
  int most_previews; /* that may be asked for; set before edits_read */
} EditAnswer;

/* Fields of POST /v1/images/edits; those that are taken and change nothing go into the answer's X-Fk-Ignored. */
bool edits_read(Exchange *x, Form *form, Ask *ask, EditAnswer *answer, Failure *f);
/* The body of an answer to a job that is done. (transfer full) */
char *edits_json(const Exchange *x, const Job *job, bool url);
/* {"b64_json" or "url", "fk": {...}} as members of the object that is open. */
void edits_picture(Json *j, const Exchange *x, const Job *job, int i, bool url);
/* "http://HOST/v1/files/KEY-0.png". (transfer full) */
char *edits_url(const Exchange *x, const Job *job, int i);
/* Adds "NAME": "BASE64", head ("data:image/png;base64,") in front of it. */
void edits_base64(Json *j, const char *name, const char *head, GBytes *file);

#endif
