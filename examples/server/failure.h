/* SPDX-License-Identifier: Apache-2.0 */
/* Why a request is not answered with a picture: an HTTP status, a code for programs and a sentence for people. */
#ifndef FAILURE_H
#define FAILURE_H

#include <fk.h>

typedef struct {
  guint status;     /* 0: none */
  const char *code; /* literal */
  char *param;      /* the field that is wrong; nullable */
  char *message;
  guint retry_s; /* when to ask again; 0: it would not help */
} Failure;

/* Sets `f` and gives false, for `return fail(...)`. The first failure stays. param: nullable */
bool fail(Failure *f, guint status, const char *code, const char *param, const char *format, ...) G_GNUC_PRINTF(5, 6);
/* What the library says, as a failure; frees `error`. */
bool fail_error(Failure *f, GError *error);
/* A copy that owns its texts. */
Failure failure_copy(const Failure *f);
void failure_clear(Failure *f);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Failure, failure_clear)
/* "invalid_request_error" and its like, as the OpenAI API sorts errors. */
const char *failure_type(guint status);

#endif
