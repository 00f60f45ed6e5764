/* SPDX-License-Identifier: Apache-2.0 */
/* The start of an engine's backend. Private to engine.c. */
#ifndef FK_OPENING_H
#define FK_OPENING_H

#include "engine.h"

/* A backend that is being opened by a thread of its own: a driver starts for longer than it takes to read what of a
 * model's files needs no backend. */
typedef struct {
  const FkOptions *options; /* (transfer none) unchanged until fk_backend_started */
  const char *name;
  GThread *thread; /* NULL: it is open, or has failed */
  FkBackend *be;
  GError *error;
  double ms;
} FkBackendStart;

void fk_backend_start(FkBackendStart *start, const FkOptions *options);
/* Waits for it. (transfer full): NULL with the error; e->why says what was decided. path: of the model. */
FkBackend *fk_backend_started(FkEngine *e, FkBackendStart *start, const char *path, GError **error);

#endif
