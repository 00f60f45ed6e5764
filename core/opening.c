/* SPDX-License-Identifier: Apache-2.0 */
/* Which backend an engine gets, opened beside the reading of its model's files; see opening.h. */
#include "opening.h"

#include "plan.h"

#include <stdlib.h>
#include <string.h>

static int option_number(const FkOptions *options, const char *name) {
  return (int)g_ascii_strtoll(fk_options_get(options, name), NULL, 10);
}

static FkBackend *open_backend(const FkOptions *options, const char *name, GError **error) {
  char message[256] = "";
  FkFailure failure = FK_FAIL_NONE;
  FkBackend *be = fk_backend_open(name, option_number(options, "cuda-device-id"), option_number(options, "threads"),
                                  &failure, message, sizeof message);
  if (!be)
    g_set_error(error, FK_ERROR, failure == FK_FAIL_MEMORY ? FK_ERROR_MEMORY : FK_ERROR_BACKEND_MISSING,
                "backend=%s: %s", name, message);
  return be;
}

static gpointer run_start(gpointer data) {
  FkBackendStart *s = data;
  const gint64 start = g_get_monotonic_time();
  s->be = open_backend(s->options, s->name, &s->error);
  s->ms = (double)(g_get_monotonic_time() - start) / 1000;
  return NULL;
}

void fk_backend_start(FkBackendStart *s, const FkOptions *options) {
  const char *name = fk_options_get(options, "backend");
  *s = (FkBackendStart){.options = options, .name = strcmp(name, "auto") ? name : "cuda"};
  /* Others open in no time. */
  if (!strcmp(s->name, "cuda")) s->thread = g_thread_try_new("fk-backend", run_start, s, NULL);
  if (!s->thread) run_start(s);
}

/* backend=auto: CUDA, else the CPU where one edit with default settings is at most 20 TFLOP, else a sentence that says
 * what is missing. */
static FkBackend *choose_backend(FkEngine *e, const FkBackendStart *s, const char *path, GError **error) {
  if (s->be) {
    e->why = g_strdup("a usable device is present");
    return s->be;
  }
  g_autoptr(FkSettings) settings = fk_settings_new();
  FkPlan plan;
  if (!fk_plan(path, e->options, settings, 1024, 1024, 4, &plan, error)) return NULL;
  if (plan.flop > 20e12) {
    g_set_error(
        error, FK_ERROR, FK_ERROR_BACKEND_MISSING,
        "no usable GPU (%s), and one edit of this model is %.0f TFLOP: more than the 20 that backend=auto gives "
        "to the CPU",
        s->error->message, plan.flop / 1e12);
    return NULL;
  }
  e->why = g_strdup_printf("no usable GPU (%s)", s->error->message);
  return open_backend(e->options, "cpu", error);
}

FkBackend *fk_backend_started(FkEngine *e, FkBackendStart *s, const char *path, GError **error) {
  if (s->thread) g_thread_join(s->thread);
  e->opening.backend_ms = s->ms;
  if (!strcmp(fk_options_get(e->options, "backend"), "auto")) {
    FkBackend *be = choose_backend(e, s, path, error);
    g_clear_error(&s->error);
    return be;
  }
  e->why = g_strdup("asked for");
  if (s->error) g_propagate_error(error, s->error);
  return s->be;
}
