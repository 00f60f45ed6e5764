/* SPDX-License-Identifier: Apache-2.0 */
/* Resolution of options and settings: preset, backend and the other values turn `auto` into what runs. Each row of the
 * table says in which field its value goes; one loop fills them all, and what follows are the few that depend on
 * another. Not here: the table (properties.c), stored values (values.c). */
#include "tune.h"

#include "draft.h"
#include "interactions.h"
#include "lora.h"
#include "pictures.h"
#include "properties.h"

#include <math.h>
#include <string.h>

/* ---- From text to field ---- */

static bool has_auto(const FkProperty *p) {
  return !strcmp(p->values[0], "auto");
}

/* Position among the values, `auto` not counted: -1. */
static int position(const FkProperty *p, const char *value) {
  int i = 0;
  while (p->values[i] && strcmp(p->values[i], value)) i++;
  return i - has_auto(p);
}

static const char *get(const FkValues *v, const char *name) {
  return fk_values_get(v, fk_properties_find(name));
}

/* A text that says something. */
static bool is_given(const FkValues *v, const char *name) {
  const char *text = get(v, name);
  return text && *text;
}

/* Column of the preset in force. Options and settings have the row each for itself. */
static int preset_of(const FkValues *v) {
  const FkProperty *p = fk_properties_find("preset");
  return position(p, fk_values_get(v, p));
}

/* Rows of the step cache without a class say how the preset's own one is tuned. A cache that was asked for by
 * name has another signal or was asked for as it is: none of these numbers is meant for it. */
static bool tunes_another_cache(const FkValues *v, const FkProperty *p) {
  return g_str_has_prefix(p->name, "step-cache-") && p->optimization == FK_CLASS_NONE &&
         strcmp(get(v, "step-cache"), "auto");
}

/* The explicit value wins whatever the order of setting. A preset's choice gives way to explicit settings that it
 * cannot be combined with; its `exact` column is "off". A file of a mask is a mask. */
const char *fk_tune_decided(const FkValues *v, const FkProperty *p) {
  const char *asked = fk_values_get(v, p);
  if (!strcmp(p->name, "mask") && !strcmp(asked, "none") && is_given(v, "mask-path")) return "path";
  if (!asked || !p->presets[0] || !fk_properties_automatic(p, asked)) return asked;
  if (tunes_another_cache(v, p)) return p->presets[0];
  const char *preset = p->presets[preset_of(v)];
  return fk_interactions_yield(v, p->name, preset) ? p->presets[0] : preset;
}

const char *fk_settings_decided(const FkSettings *settings, const char *name) {
  const FkProperty *p = fk_properties_find(name);
  const FkValues *v = fk_settings_values(settings);
  return p && fk_values_in_scope(p, FK_SCOPE_SETTING) ? fk_tune_decided(v, p) : NULL;
}

/* Whether the backend has what a switch turns on. */
static bool available(const FkProperty *p, const FkBackend *be) {
  return (be->can & p->needs) == p->needs;
}

const char *fk_tune_ran(const FkValues *v, const FkProperty *p, const FkBackend *be) {
  return p->kind == FK_KIND_SWITCH && !available(p, be) ? "off" : fk_tune_decided(v, p);
}

/* `text` as the row's field of `to`. */
static void fill(void *to, const FkProperty *p, const char *text, const FkBackend *be) {
  void *field = (char *)to + p->offset;
  switch (p->kind) {
  case FK_KIND_BOOL: *(bool *)field = !strcmp(text, "true"); break;
  case FK_KIND_SWITCH: *(bool *)field = available(p, be) && !strcmp(text, "on"); break;
  case FK_KIND_ENUM: *(int *)field = position(p, text); break;
  case FK_KIND_INT: *(int *)field = (int)g_ascii_strtod(text, NULL); break;
  case FK_KIND_UINT64: *(uint64_t *)field = g_ascii_strtoull(text, NULL, 10); break;
  case FK_KIND_DOUBLE: *(double *)field = g_ascii_strtod(text, NULL); break;
  case FK_KIND_STRING: *(const char **)field = text; break;
  }
}

static void fill_all(void *to, const FkValues *v, FkScope scope, const FkBackend *be) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  for (size_t i = 0; i < n; i++)
    if (fk_values_in_scope(&p[i], scope)) fill(to, &p[i], fk_tune_decided(v, &p[i]), be);
}

/* ---- What cannot be had ---- */

/* `on` that cannot be had, and `off` of what has no other way (rule 7). */
static bool check_machine(const FkValues *v, FkScope scope, const FkBackend *be, GError **error) {
  size_t n;
  const FkProperty *table = fk_properties(&n);
  for (size_t i = 0; i < n; i++) {
    const FkProperty *p = &table[i];
    if (p->scope != scope || p->kind != FK_KIND_SWITCH || available(p, be) || strcmp(fk_values_get(v, p), "on"))
      continue;
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s=on: backend %s has no kernel for it", p->name, be->ops->name);
    return false;
  }
  return true;
}

static int steps_of(const FkValues *v) {
  return (int)g_ascii_strtod(fk_tune_decided(v, fk_properties_find("steps")), NULL);
}

/* Those that `strength` leaves; a picture from text alone has nothing else to begin from. */
static int steps_to_run(const FkValues *v) {
  const int steps = steps_of(v);
  const bool edits = !strcmp(get(v, "task"), "edit");
  return edits ? steps - fk_schedule_left_out(steps, g_ascii_strtod(get(v, "strength"), NULL)) : steps;
}

bool fk_tune_check_mask(const FkSettings *settings, GError **error) {
  const FkValues *v = fk_settings_values(settings);
  const char *mask = get(v, "step-cache-mask");
  const FkProperty *scheduler = fk_properties_find("scheduler");
  const int n =
      fk_schedule_evaluations((FkSchedulerKind)position(scheduler, fk_tune_decided(v, scheduler)), steps_to_run(v));
  if (!mask || !*mask) return true;
  const size_t length = strlen(mask), good = strspn(mask, "01");
  const char *draft = fk_tune_decided(v, fk_properties_find("draft"));
  const int computed =
      1 + fk_draft_steps(steps_of(v), (int)g_ascii_strtod(draft, NULL), g_ascii_strtod(get(v, "draft-share"), NULL));
  const size_t first = strspn(mask, "1");
  if (good < length)
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "step-cache-mask: character %zu is neither 0 nor 1", good + 1);
  else if (length != (size_t)n)
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "step-cache-mask: %zu characters for %d evaluations", length, n);
  else if (*mask == '0')
    g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                        "step-cache-mask: the first evaluation cannot be skipped");
  else if (first < (size_t)computed)
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                "step-cache-mask: evaluation %zu is skipped, and with this draft the first %d are computed", first + 1,
                computed);
  return good == length && length == (size_t)n && first >= (size_t)computed;
}

/* Two decided values that cannot be combined. */
static bool check_interactions(const FkValues *v, GError **error) {
  size_t n;
  const FkInteraction *table = fk_interactions(&n);
  for (size_t i = 0; i < n; i++) {
    const FkInteraction *t = &table[i];
    const char *a = fk_tune_decided(v, fk_properties_find(t->a)), *b = fk_tune_decided(v, fk_properties_find(t->b));
    if (!fk_interactions_holds(t->a_when, a) || !fk_interactions_holds(t->b_when, b)) continue;
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s=%s and %s=%s cannot be combined: %s", t->a, a, t->b, b,
                t->reason);
    return false;
  }
  return true;
}

/* Guidance that is asked for runs at least once. */
static bool check_guidance(const FkValues *v, GError **error) {
  const char *start = get(v, "guidance-start"), *end = get(v, "guidance-end");
  if (g_ascii_strtod(start, NULL) < g_ascii_strtod(end, NULL)) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
              "guidance-start=%s: no evaluation lies between it and guidance-end=%s", start, end);
  return false;
}

/* Several masks have several decisions. */
static bool check_region_mask(const FkValues *v, GError **error) {
  const char *mask = get(v, "region-mask");
  if (!mask || !fk_edited_several(mask) || strcmp(get(v, "region-refresh"), "0")) return true;
  g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                      "region-mask: masks of several decisions, and with region-refresh=0 there is one");
  return false;
}

/* A mask from a file has a file, and lists of files are such. */
static bool check_files(const FkValues *v, GError **error) {
  g_auto(GStrv) names = fk_pictures_names(get(v, "references"), error);
  if (!names || !fk_loras_check(get(v, "loras"), error)) return false;
  if (strcmp(get(v, "mask"), "path") || is_given(v, "mask-path")) return true;
  g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD, "mask=path: mask-path is not set");
  return false;
}

bool fk_settings_check(const FkSettings *settings, GError **error) {
  return fk_tune_check_mask(settings, error) && check_guidance(fk_settings_values(settings), error) &&
         check_files(fk_settings_values(settings), error) && check_region_mask(fk_settings_values(settings), error) &&
         check_interactions(fk_settings_values(settings), error);
}

/* ---- What has no effect ---- */

/* Not its default, numbers by value. */
static bool is_set(const FkProperty *p, const char *value) {
  if (p->kind == FK_KIND_INT || p->kind == FK_KIND_DOUBLE)
    return g_ascii_strtod(value, NULL) < g_ascii_strtod(p->initial, NULL) ||
           g_ascii_strtod(value, NULL) > g_ascii_strtod(p->initial, NULL);
  return g_strcmp0(value, p->initial) != 0;
}

char **fk_settings_idle(const FkSettings *settings) {
  const FkValues *v = fk_settings_values(settings);
  GPtrArray *list = g_ptr_array_new();
  size_t n;
  const FkInteraction *table = fk_interactions_idle(&n);
  for (size_t i = 0; i < n; i++) {
    const FkInteraction *t = &table[i];
    const FkProperty *p = fk_properties_find(t->a);
    const char *value = fk_values_get(v, p);
    bool known = false; /* a setting has one reason */
    for (guint k = 0; k < list->len; k += 2) known |= !strcmp(list->pdata[k], t->a);
    if (known || !(t->a_when ? fk_interactions_holds(t->a_when, value) : is_set(p, value))) continue;
    if (t->b && !fk_interactions_holds(t->b_when, fk_tune_decided(v, fk_properties_find(t->b)))) continue;
    g_ptr_array_add(list, g_strdup(t->a));
    g_ptr_array_add(list, g_strdup(t->reason));
  }
  g_ptr_array_add(list, NULL);
  return (char **)g_ptr_array_free(list, FALSE);
}

/* ---- Resolution ---- */

static bool check_attention(FkAttentionPrecision precision, const FkBackend *be, GError **error) {
  static const uint32_t needs[FK_ATTENTION_PRECISIONS] = {
      [FK_ATTENTION_FP8] = FK_CAN_QUANT_ATTENTION, [FK_ATTENTION_FP8_VALUES] = FK_CAN_VALUE_CODES};
  if (!(needs[precision] & ~be->can)) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "attention-precision=%s: backend %s on %s has no kernel for it",
              fk_properties_find("attention-precision")->values[1 + precision], be->ops->name, be->machine);
  return false;
}

bool fk_tune_resolve(const FkSettings *settings, const FkBackend *be, FkTune *t, GError **error) {
  const FkValues *v = fk_settings_values(settings);
  if (!fk_settings_check(settings, error) || !check_machine(v, FK_SCOPE_SETTING, be, error)) return false;
  *t = (FkTune){0};
  fill_all(t, v, FK_SCOPE_SETTING, be);
  if (!t->vae_slicing) {
    g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                        "vae-slicing=off: frames always go through the autoencoder one at a time");
    return false;
  }
  if (!check_attention(t->attention_precision, be, error)) return false;
  if (t->true_cfg_scale <= 1) t->negative_prompt = NULL;
  if (t->mask != FK_MASK_PATH) t->mask_path = NULL;
  if (t->task == FK_TASK_GENERATE) t->strength = 1;
  if (!*t->step_cache.mask) t->step_cache.mask = NULL;
  t->context_reuse = MAX(1, t->context_reuse);
  t->draft = MAX(1, t->draft);
  t->step_cache.growth = MAX(0, t->step_cache.growth);
  t->edited.threshold = MAX(0, t->edited.threshold);
  return true;
}

/* The forms of roles from..to as the option `name` has them, where the backend has `products`. Of the blocks' matrices
 * there may be a twin and other codes. */
static bool quantize_roles(FkLoadPlan *plan, const FkBackend *be, const char *name, int value, FkRole from, FkRole to,
                           uint32_t products, GError **error) {
  const char *nick = fk_properties_find(name)->values[1 + value];
  const uint32_t need = products | (strcmp(nick, "fp8-static") ? 0 : FK_CAN_GIVEN_SCALE);
  const bool blocks = from == FK_ROLE_QKV;
  if (!strcmp(nick, "none")) return true;
  if ((be->can & need) != need) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s=%s: backend %s on %s has no %s", name, nick, be->ops->name,
                be->machine,
                (be->can & products) == products  ? "codes under scales that are given"
                : products == FK_CAN_WEIGHT_CODES ? "products of numbers and codes"
                                                  : "8-bit products");
    return false;
  }
  const FkMx mx = !strcmp(nick, "mxfp8") ? FK_MX_FP8 : !strcmp(nick, "mxfp4") ? FK_MX_FP4 : FK_MX_NONE;
  for (FkRole role = from; role <= to; role++)
    plan->precision.form[role] = (FkForm){.dtype = FK_E4M3,
                                          .scale = FK_SCALE_ROW,
                                          .mx = mx,
                                          .twin = plan->twins && blocks,
                                          .dither = plan->weight_dither && blocks};
  return true;
}

bool fk_load_resolve(const FkOptions *options, const FkBackend *be, FkLoadPlan *plan, GError **error) {
  const FkValues *v = fk_options_values(options);
  if (!check_machine(v, FK_SCOPE_OPTION, be, error)) return false;
  *plan = (FkLoadPlan){0};
  fill_all(plan, v, FK_SCOPE_OPTION, be);
  plan->backend = (FkEngineKind)position(fk_properties_find("backend"), be->ops->name);
  plan->device = plan->backend == FK_ENGINE_CUDA ? be->device : -1;
  plan->threads = plan->backend == FK_ENGINE_CPU ? be->threads : 0;
  plan->precision = fk_precision_uniform(be->dtype);
  plan->precision.as_filed = plan->storage == FK_STORAGE_FILE;
  plan->precision.either = plan->storage < 0;
  plan->twins = plan->quantization != FK_QUANTIZATION_NONE && (plan->precision_first > 0 || plan->precision_last > 0);
  if (plan->weight_dither && plan->quantization == FK_QUANTIZATION_NONE) {
    g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                        "weight-dither=on: with quantization=none no weight is rounded");
    return false;
  }
  return quantize_roles(plan, be, "quantization", (int)plan->quantization, FK_ROLE_QKV, FK_ROLE_SINGLE_OUT, FK_CAN_FP8,
                        error) &&
         quantize_roles(plan, be, "text-quantization", (int)plan->text_quantization, FK_ROLE_T5, FK_ROLE_T5, FK_CAN_FP8,
                        error) &&
         quantize_roles(plan, be, "modulation-quantization", (int)plan->modulation_quantization, FK_ROLE_MODULATION,
                        FK_ROLE_MODULATION, FK_CAN_WEIGHT_CODES, error);
}

/* ---- Comparing ---- */

/* What makes two engines different; files are compared by what they are (fk_registry_files). */
static bool distinguishes(const FkProperty *p) {
  return p->scope == FK_SCOPE_OPTION && p->memory && p->kind != FK_KIND_STRING;
}

char *fk_load_spelling(const FkOptions *options) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  GString *s = g_string_new("set\n");
  for (size_t i = 0; i < n; i++)
    if (distinguishes(&p[i]))
      g_string_append_printf(s, "%s=%s\n", p[i].name, fk_tune_decided(fk_options_values(options), &p[i]));
  const FkValues *v = fk_options_values(options);
  const bool twins = strcmp(fk_tune_decided(v, fk_properties_find("precision-first")), "0") ||
                     strcmp(fk_tune_decided(v, fk_properties_find("precision-last")), "0");
  g_string_append_printf(s, "twins=%d\n", twins);
  return g_string_free(s, FALSE);
}

char *fk_load_identity(const FkLoadPlan *plan) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  GString *s = g_string_new("resolved\n");
  for (size_t i = 0; i < n; i++) {
    const void *field = (const char *)plan + p[i].offset;
    char number[G_ASCII_DTOSTR_BUF_SIZE];
    if (!distinguishes(&p[i])) continue;
    g_string_append_printf(s, "%s=", p[i].name);
    switch (p[i].kind) {
    case FK_KIND_BOOL:
    case FK_KIND_SWITCH: g_string_append_printf(s, "%d\n", *(const bool *)field); break;
    case FK_KIND_ENUM:
    case FK_KIND_INT: g_string_append_printf(s, "%d\n", *(const int *)field); break;
    case FK_KIND_UINT64: g_string_append_printf(s, "%" G_GUINT64_FORMAT "\n", *(const uint64_t *)field); break;
    case FK_KIND_DOUBLE:
      g_string_append_printf(s, "%s\n", g_ascii_dtostr(number, sizeof number, *(const double *)field));
      break;
    case FK_KIND_STRING: break;
    }
  }
  g_string_append_printf(s, "twins=%d\n", plan->twins);
  return g_string_free(s, FALSE);
}

void fk_tune_apply(const FkTune *t, FkBackend *be) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  be->use = be->can;
  for (size_t i = 0; i < n; i++)
    if (p[i].scope == FK_SCOPE_SETTING && p[i].needs && !*(const bool *)((const char *)t + p[i].offset))
      be->use &= ~p[i].needs;
}

/* Texts by whether they are given: what they say goes into the contents of buffers, not into their sizes. */
static bool same_value(const FkProperty *p, const void *a, const void *b) {
  switch (p->kind) {
  case FK_KIND_BOOL:
  case FK_KIND_SWITCH: return *(const bool *)a == *(const bool *)b;
  case FK_KIND_ENUM:
  case FK_KIND_INT: return *(const int *)a == *(const int *)b;
  case FK_KIND_UINT64: return *(const uint64_t *)a == *(const uint64_t *)b;
  case FK_KIND_DOUBLE: return memcmp(a, b, sizeof(double)) == 0;
  case FK_KIND_STRING: break;
  }
  return !*(const char *const *)a == !*(const char *const *)b;
}

bool fk_tune_same_memory(const FkTune *a, const FkTune *b) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  for (size_t i = 0; i < n; i++)
    if (p[i].scope == FK_SCOPE_SETTING && p[i].memory &&
        !same_value(&p[i], (const char *)a + p[i].offset, (const char *)b + p[i].offset))
      return false;
  return true;
}

/* ---- Reports ---- */

static void report(GPtrArray *list, const char *name, const char *decided, const char *asked, const char *why) {
  g_ptr_array_add(list, g_strdup(name));
  g_ptr_array_add(list, g_strdup_printf("%s (%s; %s)", decided, asked, why));
}

/* Optimizations, and what else a preset decides but the numbers of its step cache. */
static bool is_reported(const FkProperty *p) {
  return p->optimization != FK_CLASS_NONE || (p->presets[0] && !g_str_has_prefix(p->name, "step-cache-"));
}

/* What the steps that a preset chose are of no use without, though it is not set; NULL: nothing. */
static const char *lacking(const FkValues *v, const FkProperty *p) {
  size_t n;
  const FkInteraction *t = fk_interactions_idle(&n);
  for (size_t i = 0; i < n && !strcmp(p->name, "steps"); i++)
    if (!strcmp(t[i].a, "loras") && fk_interactions_holds(t[i].a_when, get(v, t[i].a)) &&
        fk_interactions_holds(t[i].b_when, get(v, t[i].b)))
      return t[i].reason;
  return NULL;
}

static void report_optimizations(GPtrArray *list, const FkValues *v, FkScope scope, const FkBackend *be) {
  const char *preset = get(v, "preset");
  size_t n;
  const FkProperty *table = fk_properties(&n);
  for (size_t i = 0; i < n; i++) {
    const FkProperty *p = &table[i];
    if (!is_reported(p) || p->scope != scope) continue;
    const char *asked = fk_values_get(v, p), *now = fk_tune_decided(v, p);
    const char *chosen = now == asked ? NULL : p->presets[preset_of(v)];
    const char *but = chosen ? fk_interactions_yield(v, p->name, chosen) : NULL;
    if (chosen && !but) but = lacking(v, p);
    g_autofree char *why = !available(p, be) ? g_strdup_printf("backend %s has no kernel for it", be->ops->name)
                           : now == asked
                               ? g_strdup("asked for")
                               : g_strdup_printf("preset %s%s%s", preset, but ? ", but " : "", but ? but : "");
    report(list, p->name, available(p, be) ? now : "off", asked, why);
  }
}

char **fk_tune_report(const FkSettings *settings, const FkBackend *be) {
  GPtrArray *list = g_ptr_array_new();
  report_optimizations(list, fk_settings_values(settings), FK_SCOPE_SETTING, be);
  g_ptr_array_add(list, NULL);
  return (char **)g_ptr_array_free(list, FALSE);
}

/* Types of the matrices, each once: "bfloat16" or "bfloat16, e4m3". (transfer full) */
static char *precision_text(const FkPrecision *p) {
  static const char *const names[FK_DTYPES] = {
      [FK_F32] = "float32", [FK_BF16] = "bfloat16", [FK_F16] = "float16", [FK_I32] = "int32", [FK_U8] = "uint8",
      [FK_I8] = "int8",     [FK_E4M3] = "e4m3",     [FK_E8M0] = "e8m0",   [FK_E2M1] = "e2m1"};
  GString *s = g_string_new(NULL);
  for (int dtype = 0; dtype < FK_DTYPES; dtype++)
    for (int role = 0; role < FK_ROLES; role++) {
      if (p->form[role].dtype != (FkDtype)dtype) continue;
      g_string_append_printf(s, "%s%s", s->len ? ", " : "", names[dtype]);
      break;
    }
  return g_string_free(s, FALSE);
}

static void report_offload(GPtrArray *list, const FkLoadPlan *plan, const char *asked) {
  static const char *const names[] = {"none", "model", "sequential"};
  const bool sequential = plan->offload == FK_OFFLOAD_SEQUENTIAL;
  const char *why = strcmp(asked, "auto")               ? "asked for"
                    : plan->offload == FK_OFFLOAD_MODEL ? "all parts are more than max-vram, or the device's memory"
                    : sequential                        ? "a part is more than max-vram, or the device's memory"
                                                        : "all parts fit, or no edit was planned yet";
  g_autofree char *blocks = g_strdup_printf("%s; %d blocks stream%s", why, plan->streamed,
                                            plan->streamed ? ", so evaluations are not recorded as graphs" : "");
  g_autofree char *all = g_strconcat(sequential ? blocks : why,
                                     plan->remakes ? "; the host has no memory for copies of codes, which are made at "
                                                     "each return: fluxkontext-pack makes a file that has them"
                                                   : "",
                                     NULL);
  report(list, "offload", names[MAX(plan->offload, 0)], asked, all);
}

static void report_storage(GPtrArray *list, const FkLoadPlan *plan, const char *asked) {
  const bool file = plan->storage == FK_STORAGE_FILE;
  const char *why = !plan->has_forms        ? "the files have no form that takes fewer bytes"
                    : strcmp(asked, "auto") ? "asked for"
                    : file                  ? "expanded weights are more than max-vram, or the device's memory"
                                            : "expanded weights fit, or no edit was planned yet";
  report(list, "weight-storage", file && plan->has_forms ? "file" : "expanded", asked, why);
}

char **fk_load_report(const FkOptions *options, const FkLoadPlan *plan, const FkBackend *be, const char *why) {
  const FkValues *v = fk_options_values(options);
  GPtrArray *list = g_ptr_array_new();
  g_autofree char *precision = precision_text(&plan->precision), *precision_why = NULL;
  report(list, "backend", be->ops->name, get(v, "backend"), why);
  const char *quantization = fk_tune_decided(v, fk_properties_find("quantization"));
  precision_why =
      g_str_has_prefix(quantization, "mx")
          ? g_strdup_printf(
                "weights rounded to %s, held and computed in fp8: %s has no %s units, so that it is no faster "
                "and no smaller than fp8",
                quantization, be->machine, quantization)
          : g_strdup_printf("what backend %s computes in", be->ops->name);
  report(list, "precision", precision, "auto", precision_why);
  if (plan->backend == FK_ENGINE_CUDA) {
    g_autofree char *device = g_strdup_printf("%d", plan->device);
    const char *asked = get(v, "cuda-device-id");
    report(list, "cuda-device-id", device, asked, *asked == '-' ? "the first usable one" : "asked for");
  }
  if (plan->backend == FK_ENGINE_CPU) {
    g_autofree char *threads = g_strdup_printf("%d", plan->threads);
    const char *asked = get(v, "threads");
    report(list, "threads", threads, asked, strcmp(asked, "0") ? "asked for" : "as many as there are processors");
  }
  const char *offload = get(v, "offload");
  report_offload(list, plan, offload);
  report_storage(list, plan, get(v, "weight-storage"));
  report_optimizations(list, v, FK_SCOPE_OPTION, be);
  g_ptr_array_add(list, NULL);
  return (char **)g_ptr_array_free(list, FALSE);
}
