/* SPDX-License-Identifier: Apache-2.0 */
/* Resolution of the settings: preset, backend and other switches turn `auto` into what runs. Not here: the table
 * (properties.c), stored values (values.c). */
#include "tune.h"

#include "interactions.h"
#include "properties.h"
#include "values.h"

#include <math.h>
#include <string.h>

static int nick_index(const FkProperty *p, const char *value) {
  for (int i = 0; p->values[i]; i++)
    if (!strcmp(p->values[i], value)) return i;
  return 0;
}

/* Index of an enumeration's value. */
static int choice(const FkSettings *s, const char *name) {
  return nick_index(fk_properties_find(name), fk_settings_get(s, name));
}

/* Rows with presets and without a class say how the preset's own step cache is tuned. A cache that was asked for by
 * name has another signal or was asked for as it is: none of these numbers is meant for it. */
static bool tunes_another_cache(const FkSettings *s, const FkProperty *p) {
  return p->optimization == FK_CLASS_NONE && strcmp(fk_settings_get(s, "step-cache"), "auto");
}

/* The explicit value wins whatever the order of setting. A preset's choice gives way to explicit settings that it
 * cannot be combined with; its `exact` column is "off". */
const char *fk_tune_decided(const FkSettings *s, const FkProperty *p) {
  const char *asked = fk_settings_get(s, p->name);
  if (!asked || !p->presets[0] || !fk_properties_automatic(p, asked)) return asked;
  if (tunes_another_cache(s, p)) return p->presets[0];
  const char *preset = p->presets[choice(s, "preset")];
  return fk_interactions_yield(s, p->name, preset) ? p->presets[0] : preset;
}

/* Whether the backend has what a switch turns on. */
static bool available(const FkProperty *p, const FkBackend *be) {
  static const struct {
    const char *name;
    uint32_t needs;
  } needs[] = {{"fused-qkv", FK_CAN_FUSED_QKV},
               {"flash-attention", FK_CAN_FLASH},
               {"channels-last", FK_CAN_FUSED_CONV | FK_CAN_FUSED_GROUP_NORM},
               {"cuda-graph", FK_CAN_GRAPH}};
  for (size_t i = 0; i < G_N_ELEMENTS(needs); i++)
    if (!strcmp(p->name, needs[i].name)) return (be->can & needs[i].needs) == needs[i].needs;
  return true;
}

/* A machine switch as it will run. */
static bool machine_on(const FkSettings *s, const FkBackend *be, const char *name) {
  const FkProperty *p = fk_properties_find(name);
  return available(p, be) && !strcmp(fk_tune_decided(s, p), "on");
}

/* `on` that cannot be had, and `off` of what has no other way (rule 7). */
static bool check_machine(const FkSettings *s, const FkBackend *be, GError **error) {
  size_t n;
  const FkProperty *table = fk_properties(&n);
  for (size_t i = 0; i < n; i++) {
    const FkProperty *p = &table[i];
    if (p->kind != FK_KIND_SWITCH || available(p, be) || strcmp(fk_settings_get(s, p->name), "on")) continue;
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s=on: backend %s has no kernel for it", p->name, be->ops->name);
    return false;
  }
  if (strcmp(fk_settings_get(s, "vae-slicing"), "off")) return true;
  g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                      "vae-slicing=off: frames always go through the autoencoder "
                      "one at a time");
  return false;
}

void fk_tune_apply(const FkTune *t, FkBackend *be) {
  const uint32_t off = (t->fused_qkv ? 0u : FK_CAN_FUSED_QKV) | (t->flash_attention ? 0u : FK_CAN_FLASH) |
                       (t->channels_last ? 0u : FK_CAN_FUSED_CONV | FK_CAN_FUSED_GROUP_NORM) |
                       (t->cuda_graph ? 0u : FK_CAN_GRAPH);
  be->use = be->can & ~off;
}

static bool on(const FkSettings *s, const char *name) {
  return !strcmp(fk_tune_decided(s, fk_properties_find(name)), "on");
}

static double number(const FkSettings *s, const char *name) {
  return g_ascii_strtod(fk_tune_decided(s, fk_properties_find(name)), NULL);
}

/* Index of a decided enumeration among its values, `auto` not counted. */
static int decided_choice(const FkSettings *s, const char *name) {
  const FkProperty *p = fk_properties_find(name);
  return nick_index(p, fk_tune_decided(s, p)) - 1;
}

bool fk_tune_check_mask(const FkSettings *s, GError **error) {
  const char *mask = fk_settings_get(s, "step-cache-mask");
  const int n = fk_schedule_evaluations((FkSchedulerKind)choice(s, "scheduler"), (int)number(s, "steps"));
  if (!mask || !*mask) return true;
  const size_t length = strlen(mask), good = strspn(mask, "01");
  if (good < length)
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "step-cache-mask: character %zu is neither 0 nor 1", good + 1);
  else if (length != (size_t)n)
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "step-cache-mask: %zu characters for %d evaluations", length, n);
  else if (*mask == '0')
    g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                        "step-cache-mask: the first evaluation cannot be skipped");
  return good == length && length == (size_t)n && *mask == '1';
}

/* Two decided values that cannot be combined. */
static bool check_interactions(const FkSettings *s, GError **error) {
  size_t n;
  const FkInteraction *table = fk_interactions(&n);
  for (size_t i = 0; i < n; i++) {
    const FkInteraction *t = &table[i];
    const char *a = fk_tune_decided(s, fk_properties_find(t->a)), *b = fk_tune_decided(s, fk_properties_find(t->b));
    if (!fk_interactions_holds(t->a_when, a) || !fk_interactions_holds(t->b_when, b)) continue;
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s=%s and %s=%s cannot be combined: %s", t->a, a, t->b, b,
                t->reason);
    return false;
  }
  return true;
}

bool fk_settings_check(const FkSettings *settings, GError **error) {
  static const char *const text[] = {"prompt", "negative-prompt"};
  for (size_t i = 0; i < G_N_ELEMENTS(text); i++) {
    const char *value = fk_settings_get(settings, text[i]);
    if (value && !fk_values_parse(fk_properties_find(text[i]), value, error)) return false;
  }
  return fk_tune_check_mask(settings, error) && check_interactions(settings, error);
}

bool fk_tune_resolve(const FkSettings *s, const FkBackend *be, FkTune *t, GError **error) {
  if (!fk_settings_check(s, error) || !check_machine(s, be, error)) return false;
  *t = (FkTune){.prompt = fk_settings_get(s, "prompt"),
                .seed = g_ascii_strtoull(fk_settings_get(s, "seed"), NULL, 10),
                .steps = (int)number(s, "steps"),
                .max_sequence_length = (int)number(s, "max-sequence-length"),
                .guidance = number(s, "guidance"),
                .true_cfg_scale = number(s, "true-cfg-scale"),
                .scheduler = (FkSchedulerKind)choice(s, "scheduler"),
                .sigmas = (FkSigmasKind)choice(s, "sigmas"),
                .rng = (FkRng)choice(s, "rng"),
                .task = (FkTask)choice(s, "task"),
                .native_size = choice(s, "size-mode") == 1,
                .max_area = (int64_t)number(s, "max-area"),
                .trace_file = fk_settings_get(s, "trace-file"),
                .fused_qkv = machine_on(s, be, "fused-qkv"),
                .flash_attention = machine_on(s, be, "flash-attention"),
                .channels_last = machine_on(s, be, "channels-last"),
                .cuda_graph = machine_on(s, be, "cuda-graph"),
                .prompt_cache = on(s, "prompt-cache"),
                .vae_tiling = on(s, "vae-tiling"),
                .step_cache.kind = (FkCacheKind)decided_choice(s, "step-cache"),
                .step_cache.threshold = number(s, "step-cache-threshold"),
                .step_cache.front = (int)number(s, "step-cache-front"),
                .step_cache.back = (int)number(s, "step-cache-back"),
                .step_cache.warmup = (int)number(s, "step-cache-warmup"),
                .step_cache.max = (int)number(s, "step-cache-max"),
                .step_cache.last = (int)number(s, "step-cache-last"),
                .step_cache.growth = (int)number(s, "step-cache-growth"),
                .step_cache.cooldown = (int)number(s, "step-cache-cooldown"),
                .step_cache.forecast = decided_choice(s, "step-cache-forecast"),
                .step_cache.mask = fk_settings_get(s, "step-cache-mask"),
                .context_reuse = MAX(1, (int)number(s, "context-reuse")),
                .token_merge = number(s, "token-merge")};
  if (t->true_cfg_scale > 1) t->negative_prompt = fk_settings_get(s, "negative-prompt");
  return true;
}

char **fk_tune_report(const FkSettings *s, const FkBackend *be) {
  GPtrArray *list = g_ptr_array_new();
  const char *preset = fk_settings_get(s, "preset");
  size_t n;
  const FkProperty *table = fk_properties(&n);
  for (size_t i = 0; i < n; i++) {
    const FkProperty *p = &table[i];
    if (p->optimization == FK_CLASS_NONE) continue;
    const char *asked = fk_settings_get(s, p->name), *now = fk_tune_decided(s, p);
    const char *chosen = now == asked ? NULL : p->presets[choice(s, "preset")];
    const char *forbidden = chosen ? fk_interactions_yield(s, p->name, chosen) : NULL;
    g_autofree char *why =
        now == asked ? g_strdup("asked for")
                     : g_strdup_printf("preset %s%s%s", preset, forbidden ? ", but " : "", forbidden ? forbidden : "");
    if (!available(p, be)) {
      now = "off";
      g_free(why);
      why = g_strdup_printf("backend %s has no kernel for it", be->ops->name);
    }
    g_ptr_array_add(list, g_strdup(p->name));
    g_ptr_array_add(list, g_strdup_printf("%s (%s; %s)", now, asked, why));
  }
  g_ptr_array_add(list, NULL);
  return (char **)g_ptr_array_free(list, FALSE);
}
