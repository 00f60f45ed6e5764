/* SPDX-License-Identifier: Apache-2.0 */
/* Plans of a list; see dry.h. */
#include "dry.h"

#include <stdio.h>
#include <string.h>

typedef struct {
  const char *model;
  const FkOptions *options;
  int bytes_per_value;
  double flop, weights, arena; /* arena: the largest */
  guint failures, done;
  FkPlan last; /* of the works before, most of which are alike */
  Work *last_work;
  int width, height;
} Dry;

static void plan_of(Dry *d, Work *w, int width, int height, GError **error) {
  if (d->last_work && d->width == width && d->height == height &&
      fk_settings_batchable(d->last_work->settings, w->settings))
    return;
  d->last_work = NULL;
  if (!fk_plan(d->model, d->options, w->settings, width, height, d->bytes_per_value, &d->last, error)) return;
  d->last_work = w;
  d->width = width;
  d->height = height;
}

static void dry_one(Dry *d, Work *w, FkEngine *engine, const WorkRules *rules, bool resume) {
  g_autoptr(GError) error = NULL;
  g_autofree char *in = g_filename_display_name(w->input), *out = g_filename_display_name(w->output), *id = NULL;
  int width = 0, height = 0;
  bool ok = photo_check_name(out, false, &error) && work_read(w, rules, &error);
  if (ok && resume) id = work_id(w, engine, rules, &error);
  if (id && work_is_done(w, id)) {
    printf("%s -> %s: done before\n", in, out);
    d->done++;
    return;
  }
  if (ok && !error) {
    gsize bytes;
    const guint8 *data = g_bytes_get_data(w->bytes, &bytes);
    ok = photo_size(in, data, bytes, &width, &height, &error);
    if (ok) plan_of(d, w, width, height, &error);
  }
  g_clear_pointer(&w->bytes, g_bytes_unref);
  if (error) {
    printf("%s\n", error->message);
    d->failures++;
    return;
  }
  printf("%s -> %s: %dx%d at %dx%d, %d evaluations, %.3g TFLOP\n", in, out, width, height, d->last.width,
         d->last.height, d->last.evaluations, d->last.flop / 1e12);
  d->flop += d->last.flop;
  d->weights = d->last.weight_bytes + d->last.cache_bytes;
  d->arena = MAX(d->arena, d->last.arena_bytes);
}

/* Seconds at the machine's best rate; the edits need more, by what docs/speed.md says of each machine. */
static void tell_time(const Dry *d, FkEngine *const *engines, const char *backend, int device) {
  FkMachine machine = {0};
  guint n = 0;
  while (engines[n]) n++;
  if (!strcmp(backend, "null") || !d->flop || !fk_machine(backend, device, true, &machine, NULL) || !machine.tflops)
    return;
  printf("time: at least %.1f s on %u x %s, whose peak is %.3g TFLOP/s\n", d->flop / 1e12 / machine.tflops / n, n,
         fk_engine_machine(engines[0]), machine.tflops);
}

bool dry_run(FkEngine *const *engines, const FkOptions *options, const GPtrArray *works, const WorkRules *rules,
             bool resume) {
  g_auto(GStrv) active = NULL;
  g_autoptr(FkSettings) settings = fk_settings_new();
  active = fk_engine_active(engines[0], settings); /* "backend", "cpu (...": what it became */
  g_autofree char *backend = g_strndup(active[1], strcspn(active[1], " "));
  const char *model = fk_options_get(options, "model-path");
  Dry d = {.model = model && *model ? model : "kontext-dev",
           .options = options,
           .bytes_per_value = strcmp(backend, "cuda") ? 4 : 2};
  for (guint i = 0; i < works->len; i++) dry_one(&d, works->pdata[i], engines[0], rules, resume);
  printf(
      "%u to edit, %u done before, %u that cannot be edited: %.3g TFLOP, memory for weights %.0f MB and work %.0f MB "
      "on each device\n",
      works->len - d.done - d.failures, d.done, d.failures, d.flop / 1e12, d.weights / 1e6, d.arena / 1e6);
  tell_time(&d, engines, backend, (int)g_ascii_strtoll(fk_options_get(options, "cuda-device-id"), NULL, 10));
  return !d.failures;
}
