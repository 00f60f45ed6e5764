/* SPDX-License-Identifier: Apache-2.0 */
/* The demo checkpoint, opened and loaded. */
#ifndef TEST_DEMO_H
#define TEST_DEMO_H

#include "fk.h"

/* backend: "cpu", "null". (transfer full) */
static inline FkEngine *demo_engine(const char *backend) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "model-path", FK_DEMO_MODEL, NULL);
  fk_options_set(options, "backend", backend, NULL);
  FkEngine *engine = fk_engine_open(options, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  return engine;
}

#endif
