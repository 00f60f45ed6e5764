/* SPDX-License-Identifier: Apache-2.0 */
/* The table of properties and what it resolves to: it keeps its own rules, presets promise what their classes say,
 * explicit values win in any order, every value gets to its field, and what was decided is reported. */
#include "test-files.h"
#include "properties.h"
#include "tune.h"

static FkBackend *open_null(void) {
  char message[256] = "";
  FkFailure failure;
  FkBackend *be = fk_backend_open("null", 0, 0, &failure, message, sizeof message);
  g_assert_nonnull(be);
  return be;
}

/* What architecture.md promises of a row. */
static void table_rules(void) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
  for (size_t i = 0; i < n; i++) {
    g_assert_true(g_hash_table_add(names, (gpointer)p[i].name));
    g_assert_true(p[i].nick && *p[i].nick && p[i].help && *p[i].help);
    g_assert_cmpint(p[i].help[strlen(p[i].help) - 1], !=, '.');
    for (const char *c = p[i].name; *c; c++) g_assert_true(g_ascii_islower(*c) || g_ascii_isdigit(*c) || *c == '-');
    g_assert_true(fk_properties_find(p[i].name) == &p[i]);
    if (p[i].kind == FK_KIND_ENUM)
      g_assert_cmpuint(g_strv_length((char **)p[i].values), ==, g_strv_length((char **)p[i].meaning));
    if (p[i].controllable) g_assert_true(p[i].playing);
    if (p[i].scope == FK_SCOPE_OPTION) g_assert_false(p[i].playing);
    /* What a preset decides has a value for each, as the property takes it. */
    for (int k = 0; p[i].presets[0] && k < FK_PRESETS; k++)
      g_assert_true(fk_values_parse(&p[i], p[i].presets[k], NULL));
    if (p[i].optimization == FK_CLASS_NONE) continue;
    /* An optimization is left to the preset unless somebody says otherwise, and
     * every preset says what it is. */
    g_assert_true(fk_properties_automatic(&p[i], p[i].initial));
    for (int k = 0; k < FK_PRESETS; k++) g_assert_nonnull(p[i].presets[k]);
    if (p[i].optimization == FK_CLASS_LOSSY) g_assert_cmpstr(p[i].presets[0], ==, p[i].presets[1]);
  }
  g_assert_null(fk_properties_find("no-such-row"));
}

#define FEW 4 /* steps of preset=few-step */

static size_t field_bytes(FkKind kind) {
  switch (kind) {
  case FK_KIND_BOOL:
  case FK_KIND_SWITCH: return sizeof(bool);
  case FK_KIND_ENUM:
  case FK_KIND_INT: return sizeof(int);
  case FK_KIND_UINT64: return sizeof(uint64_t);
  case FK_KIND_DOUBLE: return sizeof(double);
  case FK_KIND_STRING: return sizeof(char *);
  }
  return 0;
}

/* Every row has a field of its own inside the struct of its scope. */
static void fields(void) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  for (int scope = FK_SCOPE_OPTION; scope <= FK_SCOPE_SETTING; scope++) {
    const size_t size = scope == FK_SCOPE_OPTION ? sizeof(FkLoadPlan) : sizeof(FkTune);
    g_autofree uint8_t *taken = g_malloc0(size);
    for (size_t i = 0; i < n; i++) {
      if (!fk_values_in_scope(&p[i], (FkScope)scope)) continue;
      for (size_t k = p[i].offset; k < p[i].offset + field_bytes(p[i].kind); k++) {
        g_assert_cmpuint(k, <, size);
        if (taken[k]++) g_error("%s shares its field", p[i].name);
      }
    }
  }
}

/* A value other than the default that stands alone; NULL: none. */
static const char *another(const FkProperty *p) {
  switch (p->kind) {
  case FK_KIND_BOOL: return !strcmp(p->initial, "true") ? "false" : "true";
  case FK_KIND_SWITCH: return p->needs ? "off" : "on";
  case FK_KIND_ENUM: return p->values[!strcmp(p->values[2], p->initial) ? 1 : 2];
  case FK_KIND_INT:
  case FK_KIND_UINT64: return "17";
  case FK_KIND_DOUBLE: return p->max <= 1 ? "0.5" : "1.25";
  case FK_KIND_STRING: return p->check ? "1x1:8" : "1"; /* a mask */
  }
  return NULL;
}

/* Another text, another field; `memory` says whether that asks for another plan. Rows that others stand in the way of
 * are given what they need. */
static void every_row_arrives(void) {
  FkBackend *be = open_null();
  be->can |= FK_CAN_GRAPH;
  size_t n;
  const FkProperty *p = fk_properties(&n);
  for (size_t i = 0; i < n; i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkSettings) a = fk_settings_new();
    FkTune before, after;
    if (p[i].scope != FK_SCOPE_SETTING || !strcmp(p[i].name, "vae-slicing")) continue;
    const bool tuned = g_str_has_prefix(p[i].name, "step-cache-"), cfg = strstr(p[i].name, "negative") != NULL;
    const char *value = p[i].kind == FK_KIND_ENUM && g_strv_length((char **)p[i].values) == 2
                            ? p[i].values[!strcmp(p[i].values[0], p[i].initial)]
                            : another(&p[i]);
    if (tuned) fk_settings_set(a, "step-cache", "first-block", NULL);
    if (!strcmp(p[i].name, "region-mask")) fk_settings_set(a, "region-tokens", "1", NULL);
    if (strstr(p[i].name, "mask")) fk_settings_set(a, "steps", "1", NULL);
    if (cfg) fk_settings_set(a, "true-cfg-scale", "2", NULL);
    g_assert_true(fk_tune_resolve(a, be, &before, &error));
    if (p[i].kind == FK_KIND_SWITCH) value = *(bool *)((char *)&before + p[i].offset) ? "off" : "on";
    if (!fk_settings_set(a, p[i].name, value, &error)) g_error("%s", error->message);
    if (!fk_tune_resolve(a, be, &after, &error)) g_error("%s=%s: %s", p[i].name, value, error->message);
    if (!memcmp((char *)&before + p[i].offset, (char *)&after + p[i].offset, field_bytes(p[i].kind)))
      g_error("%s=%s did not arrive", p[i].name, value);
    g_assert_cmpint(fk_tune_same_memory(&before, &after), ==, !p[i].memory && strcmp(p[i].name, "preset"));
    g_assert_true(fk_tune_same_memory(&after, &after));
  }
  fk_backend_close(be);
}

/* A new prompt, and what a GstController drives each frame, ask for no new plan; a text that is given or not does. */
static void memory(void) {
  static const char *const free_rows[] = {
      "prompt",       "seed",   "guidance", "true-cfg-scale", "rng", "trace-file", "step-cache-threshold",
      "prompt-cache", "sigmas", "max-area"};
  for (size_t i = 0; i < G_N_ELEMENTS(free_rows); i++) g_assert_false(fk_properties_find(free_rows[i])->memory);
  FkBackend *be = open_null();
  g_autoptr(FkSettings) a = fk_settings_new(), b = fk_settings_new();
  FkTune t, u;
  fk_settings_set(a, "negative-prompt", "x", NULL);
  fk_settings_set(b, "negative-prompt", "y", NULL);
  fk_settings_set(b, "true-cfg-scale", "3", NULL);
  g_assert_true(fk_tune_resolve(a, be, &t, NULL) && fk_tune_resolve(b, be, &u, NULL));
  g_assert_false(fk_tune_same_memory(&t, &u)); /* one branch and two */
  fk_settings_set(a, "true-cfg-scale", "2", NULL);
  g_assert_true(fk_tune_resolve(a, be, &t, NULL));
  g_assert_true(fk_tune_same_memory(&t, &u));
  fk_backend_close(be);
}

/* What the backend cannot do is off, refused when asked for, and reported; what is off is not used. */
static void needs(void) {
  static const struct {
    const char *name;
    uint32_t needs;
  } rows[] = {{"fused-qkv", FK_CAN_FUSED_QKV},     {"flash-attention", FK_CAN_FLASH},
              {"fused-codes", FK_CAN_FUSED_CODES}, {"channels-last", FK_CAN_FUSED_CONV | FK_CAN_FUSED_GROUP_NORM},
              {"cuda-graph", FK_CAN_GRAPH},        {"expand-ahead", FK_CAN_EXPAND_AHEAD}};
  FkBackend *be = open_null();
  for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
    const FkProperty *p = fk_properties_find(rows[i].name);
    g_autoptr(GError) error = NULL;
    g_autoptr(FkSettings) s = fk_settings_new();
    FkTune t;
    g_assert_cmphex(p->needs, ==, rows[i].needs);
    be->can = ~0u & ~(p->needs & -p->needs); /* without its lowest bit */
    g_assert_true(fk_tune_resolve(s, be, &t, NULL));
    g_assert_false(*(bool *)((char *)&t + p->offset));
    fk_tune_apply(&t, be);
    g_assert_cmphex(be->use, ==, be->can & ~(p->needs | FK_CAN_EXPAND_AHEAD)); /* which is off by itself */
    fk_settings_set(s, p->name, "on", NULL);
    g_assert_false(fk_tune_resolve(s, be, &t, &error));
    assert_error(error, FK_ERROR_OPTION_BAD, p->name, "null");
    be->can = ~0u;
    g_assert_true(fk_tune_resolve(s, be, &t, NULL));
    g_assert_true(*(bool *)((char *)&t + p->offset));
    fk_settings_set(s, p->name, "off", NULL);
    g_assert_true(fk_tune_resolve(s, be, &t, NULL));
    fk_tune_apply(&t, be);
    g_assert_cmphex(be->use, ==, ~(p->needs | FK_CAN_EXPAND_AHEAD));
  }
  fk_backend_close(be);
}

/* Codes that the backend has no products for are refused, by the option's name; of others there are the forms. */
static void codes(void) {
  static const struct {
    const char *name, *value, *said;
    uint32_t can;
    FkRole first, last;
  } rows[] = {
      {"quantization", "fp8", "no 8-bit products", FK_CAN_FP8, FK_ROLE_QKV, FK_ROLE_SINGLE_OUT},
      {"quantization", "fp8-static", "no codes under scales", FK_CAN_GIVEN_SCALE, FK_ROLE_QKV, FK_ROLE_SINGLE_OUT},
      {"text-quantization", "fp8", "no 8-bit products", FK_CAN_FP8, FK_ROLE_T5, FK_ROLE_T5},
      {"modulation-quantization", "fp8", "no products of numbers and codes", FK_CAN_WEIGHT_CODES, FK_ROLE_MODULATION,
       FK_ROLE_MODULATION}};
  FkBackend *be = open_null();
  for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
    g_autoptr(FkOptions) o = fk_options_new();
    g_autoptr(GError) error = NULL;
    FkLoadPlan plan;
    fk_options_set(o, rows[i].name, rows[i].value, NULL);
    be->can = ~rows[i].can;
    g_assert_false(fk_load_resolve(o, be, &plan, &error));
    assert_error(error, FK_ERROR_OPTION_BAD, rows[i].name, rows[i].said);
    be->can = ~0u;
    g_assert_true(fk_load_resolve(o, be, &plan, NULL));
    for (FkRole role = 0; role < FK_ROLES; role++)
      g_assert_true((plan.precision.form[role].dtype == FK_E4M3) == (role >= rows[i].first && role <= rows[i].last));
  }
  fk_backend_close(be);
}

/* Options resolved: by the backend that is open, not by what was asked for. */
static void load_plan(void) {
  FkBackend *be = open_null();
  g_autoptr(FkOptions) a = fk_options_new(), b = fk_options_new();
  FkLoadPlan p, q;
  fk_options_set(b, "backend", "null", NULL);
  fk_options_set(b, "cuda-device-id", "3", NULL);
  fk_options_set(b, "max-vram", "12345678901234", NULL);
  fk_options_set(b, "preset", "exact", NULL);
  fk_options_set(b, "threads", "2", NULL);
  g_assert_true(fk_load_resolve(a, be, &p, NULL) && fk_load_resolve(b, be, &q, NULL));
  g_assert_cmpint(p.backend, ==, FK_ENGINE_NULL);
  g_assert_cmpint(p.device, ==, -1);
  g_assert_cmpuint(q.max_vram, ==, 12345678901234);
  g_assert_cmpint(q.preset, ==, FK_PRESET_EXACT);
  g_assert_cmpint(q.precision.form[FK_ROLE_QKV].dtype, ==, FK_BF16);
  g_autofree char *one = fk_load_identity(&p), *same = fk_load_identity(&q);
  g_assert_cmpstr(one, ==, same);
  g_autofree char *spelled = fk_load_spelling(a), *otherwise = fk_load_spelling(b);
  g_assert_cmpstr(spelled, !=, otherwise);
  q.device = 1;
  g_autofree char *other = fk_load_identity(&q);
  g_assert_cmpstr(one, !=, other);
  g_auto(GStrv) list = fk_load_report(a, &p, be, "a reason");
  g_assert_cmpstr(list[0], ==, "backend");
  g_assert_cmpstr(list[1], ==, "null (auto; a reason)");
  g_assert_cmpstr(list[2], ==, "precision");
  g_assert_cmpstr(list[3], ==, "bfloat16 (auto; what backend null computes in)");
  p.precision.form[FK_ROLE_QKV].dtype = FK_E4M3;
  g_auto(GStrv) mixed = fk_load_report(a, &p, be, "a reason");
  g_assert_true(g_str_has_prefix(mixed[3], "bfloat16, e4m3 ("));
  fk_backend_close(be);
}

/* Nothing lossy under exact and quality: all lossy rows are at their "off". */
static void presets_keep_their_word(void) {
  static const char *const presets[] = {"exact", "quality", "few-step"}; /* steps aside */
  FkBackend *be = open_null();
  for (size_t i = 0; i < G_N_ELEMENTS(presets); i++) {
    FkTune t;
    g_autoptr(GError) error = NULL;
    g_autoptr(FkSettings) s = fk_settings_new();
    fk_settings_set(s, "preset", presets[i], NULL);
    fk_tune_resolve(s, be, &t, &error);
    g_assert_no_error(error);
    g_assert_cmpint(t.step_cache.kind, ==, FK_CACHE_NONE);
    g_assert_cmpint(t.step_cache.forecast, ==, 0);
    g_assert_cmpint(t.context_reuse, ==, 1);
    g_assert_cmpfloat(t.token_merge, ==, 0);
    g_assert_false(t.vae_tiling);
    g_assert_true(t.prompt_cache);
  }
  fk_backend_close(be);
}

static void defaults(void) {
  FkBackend *be = open_null();
  FkTune t;
  g_autoptr(FkSettings) s = fk_settings_new();
  g_assert_true(fk_tune_resolve(s, be, &t, NULL));
  g_assert_cmpstr(t.prompt, ==, "");
  g_assert_null(t.negative_prompt);
  g_assert_cmpint(t.steps, ==, 28);
  g_assert_cmpfloat(t.guidance, ==, 2.5);
  g_assert_cmpint(t.scheduler, ==, 0);
  g_assert_cmpint(t.max_area, ==, 0);
  g_assert_cmpint(t.task, ==, FK_TASK_EDIT);
  g_assert_cmpint(t.size_mode, ==, FK_SIZE_INPUT);
  g_assert_cmpint(t.preset, ==, FK_PRESET_QUALITY);
  g_assert_null(t.step_cache.mask);
  g_assert_null(t.trace_file);
  fk_backend_close(be);
}

/* Every value arrives where it is read. */
static void values_arrive(void) {
  FkBackend *be = open_null();
  FkTune t;
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) s = fk_settings_new();
  static const char *const pairs[][2] = {{"prompt", "p"},
                                         {"negative-prompt", "n"},
                                         {"seed", "18446744073709551615"},
                                         {"steps", "7"},
                                         {"guidance", "4.25"},
                                         {"true-cfg-scale", "1.5"},
                                         {"scheduler", "deis"},
                                         {"sigmas", "beta"},
                                         {"rng", "torch-cuda"},
                                         {"max-sequence-length", "99"},
                                         {"task", "generate"},
                                         {"size-mode", "native"},
                                         {"max-area", "262144"},
                                         {"prompt-cache", "off"},
                                         {"vae-tiling", "on"},
                                         {"step-cache", "dbcache"},
                                         {"step-cache-threshold", "0.5"},
                                         {"step-cache-front", "3"},
                                         {"step-cache-back", "2"},
                                         {"step-cache-warmup", "5"},
                                         {"step-cache-max", "6"},
                                         {"step-cache-last", "4"},
                                         {"step-cache-growth", "2"},
                                         {"step-cache-cooldown", "3"},
                                         {"step-cache-forecast", "taylor2"},
                                         {"token-merge", "0.25"}};
  for (size_t i = 0; i < G_N_ELEMENTS(pairs); i++)
    if (!fk_settings_set(s, pairs[i][0], pairs[i][1], &error)) g_error("%s", error->message);
  fk_tune_resolve(s, be, &t, &error);
  g_assert_no_error(error);
  g_assert_cmpstr(t.negative_prompt, ==, "n");
  g_assert_cmpuint(t.seed, ==, G_MAXUINT64);
  g_assert_cmpint(t.steps, ==, 7);
  g_assert_cmpfloat(t.guidance, ==, 4.25);
  g_assert_cmpfloat(t.true_cfg_scale, ==, 1.5);
  g_assert_cmpint(t.scheduler, ==, FK_SCHEDULER_DEIS);
  g_assert_cmpint(t.sigmas, ==, FK_SIGMAS_BETA);
  g_assert_cmpint(t.rng, ==, FK_RNG_TORCH_CUDA);
  g_assert_cmpint(t.max_sequence_length, ==, 99);
  g_assert_cmpint(t.task, ==, FK_TASK_GENERATE);
  g_assert_cmpint(t.size_mode, ==, FK_SIZE_NATIVE);
  g_assert_true(t.vae_tiling && !t.prompt_cache);
  g_assert_cmpint(t.max_area, ==, 262144);
  g_assert_cmpint(t.step_cache.kind, ==, FK_CACHE_DBCACHE);
  g_assert_cmpfloat(t.step_cache.threshold, ==, 0.5);
  g_assert_cmpint(t.step_cache.front * 1000 + t.step_cache.back * 100 + t.step_cache.warmup * 10 + t.step_cache.max, ==,
                  3256);
  g_assert_cmpint(t.step_cache.last, ==, 4);
  g_assert_cmpint(t.step_cache.growth * 10 + t.step_cache.cooldown, ==, 23);
  g_assert_cmpint(t.step_cache.forecast, ==, 2);
  g_assert_cmpfloat(t.token_merge, ==, 0.25);
  fk_backend_close(be);
}

/* True CFG needs both: a negative prompt (empty is one) and a scale above 1. */
static void true_cfg(void) {
  FkBackend *be = open_null();
  FkTune t;
  g_autoptr(FkSettings) s = fk_settings_new();
  fk_settings_set(s, "negative-prompt", "", NULL);
  g_assert_true(fk_tune_resolve(s, be, &t, NULL));
  g_assert_null(t.negative_prompt);
  fk_settings_set(s, "true-cfg-scale", "2", NULL);
  g_assert_true(fk_tune_resolve(s, be, &t, NULL));
  g_assert_cmpstr(t.negative_prompt, ==, "");
  fk_settings_set(s, "negative-prompt", NULL, NULL);
  g_assert_true(fk_tune_resolve(s, be, &t, NULL));
  g_assert_null(t.negative_prompt);
  fk_backend_close(be);
}

/* preset before or after: the explicit value is what runs, and preset rewrites
 * no other property. */
static void explicit_wins(void) {
  FkBackend *be = open_null();
  for (int order = 0; order < 2; order++) {
    FkTune t;
    g_autoptr(FkSettings) s = fk_settings_new();
    if (order) fk_settings_set(s, "preset", "exact", NULL);
    fk_settings_set(s, "vae-tiling", "on", NULL);
    if (!order) fk_settings_set(s, "preset", "exact", NULL);
    g_assert_true(fk_tune_resolve(s, be, &t, NULL));
    g_assert_true(t.vae_tiling);
    g_assert_cmpstr(fk_settings_get(s, "step-cache"), ==, "auto");
  }
  fk_backend_close(be);
}

static int steps_of(FkBackend *be, const char *first[2], const char *second[2]) {
  g_autoptr(FkSettings) s = fk_settings_new();
  FkTune t;
  g_assert_true(fk_settings_set(s, first[0], first[1], NULL) && fk_settings_set(s, second[0], second[1], NULL));
  g_assert_true(fk_tune_resolve(s, be, &t, NULL));
  const bool sprint = !strcmp(fk_settings_get(s, "preset"), "sprint");
  g_assert_cmpint(t.scheduler, ==, sprint ? FK_SCHEDULER_UNIPC : FK_SCHEDULER_EULER);
  g_assert_cmpint(t.sigmas, ==, sprint ? FK_SIGMAS_BETA : FK_SIGMAS_FLOW);
  g_autofree char *decided = g_strdup_printf("%d", t.steps);
  g_assert_cmpstr(fk_settings_decided(s, "steps"), ==, decided);
  g_assert_cmpstr(fk_settings_decided(s, "scheduler"), ==, sprint ? "unipc" : "euler");
  return t.steps;
}

/* A preset has steps of its own; those that somebody asked for win, were they the default's, in any order. */
static void preset_steps(void) {
  static const struct {
    const char *preset, *steps;
    int want;
  } cases[] = {{"quality", "0", 28},   {"turbo", "0", 28},     {"few-step", "0", FEW}, {"sprint", "0", 12},
               {"sprint", "28", 28},   {"few-step", "28", 28}, {"few-step", "1", 1},   {"exact", "28", 28},
               {"balanced", "14", 14}, {"fast", "0", 28},      {"few-step", "8", 8},   {"few-step", "1000", 1000}};
  FkBackend *be = open_null();
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    const char *preset[] = {"preset", cases[i].preset}, *steps[] = {"steps", cases[i].steps};
    g_assert_cmpint(steps_of(be, preset, steps), ==, cases[i].want);
    g_assert_cmpint(steps_of(be, steps, preset), ==, cases[i].want);
  }
  g_autoptr(FkSettings) mixed = fk_settings_new();
  FkTune t;
  fk_settings_set(mixed, "scheduler", "euler", NULL); /* each by itself */
  fk_settings_set(mixed, "preset", "sprint", NULL);
  g_assert_true(fk_tune_resolve(mixed, be, &t, NULL));
  g_assert_cmpint(t.scheduler, ==, FK_SCHEDULER_EULER);
  g_assert_cmpint(t.sigmas, ==, FK_SIGMAS_BETA);
  g_assert_cmpint(t.steps, ==, 12);
  g_autoptr(FkSettings) s = fk_settings_new();
  g_assert_cmpstr(fk_settings_decided(s, "step-cache"), ==, "none");
  g_assert_cmpstr(fk_settings_decided(s, "guidance"), ==, "2.5");
  g_assert_null(fk_settings_decided(s, "negative-prompt"));
  g_assert_null(fk_settings_decided(s, "threads"));
  g_assert_null(fk_settings_decided(s, "no-such-row"));
  fk_backend_close(be);
}

/* A cache that was asked for by name takes no numbers of the preset's, and leaves the preset its steps. */
static void preset_steps_stay(void) {
  FkBackend *be = open_null();
  const char *preset[] = {"preset", "few-step"}, *cache[] = {"step-cache", "first-block"};
  g_assert_cmpint(steps_of(be, preset, cache), ==, FEW);
  g_autoptr(FkSettings) s = fk_settings_new();
  g_autoptr(GError) error = NULL;
  fk_settings_set(s, "preset", "few-step", NULL);
  fk_settings_set(s, "step-cache", "dbcache", NULL);
  fk_settings_set(s, "step-cache-mask", "111", NULL);
  g_assert_false(fk_settings_check(s, &error)); /* a mask is as long as the preset's steps */
  assert_error(error, FK_ERROR_OPTION_BAD, "step-cache-mask", "3 characters for " G_STRINGIFY(FEW));
  fk_backend_close(be);
}

/* The numbers of a preset's step cache are for that cache alone: not for one
 * asked for by name; and each gives way. */
static void preset_cache_numbers(void) {
  static const struct {
    const char *preset, *name, *value;
    double threshold;
    int warmup, last;
  } cases[] = {{"fast", "steps", "28", 100, 4, 1},
               {"turbo", "steps", "28", 100, 4, 2},
               {"sprint", "steps", "0", 100, 4, 1},
               {"balanced", "steps", "28", 0.3, -1, 3},
               {"quality", "steps", "28", -1, -1, -1},
               {"fast", "step-cache", "first-block", -1, -1, -1},
               {"fast", "step-cache", "teacache", -1, -1, -1},
               {"fast", "step-cache-threshold", "0.5", 0.5, 4, 1},
               {"fast", "step-cache-warmup", "9", 100, 9, 1},
               {"balanced", "step-cache-last", "1", 0.3, -1, 1}};
  FkBackend *be = open_null();
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    FkTune t;
    g_autoptr(FkSettings) s = fk_settings_new();
    g_assert_true(fk_settings_set(s, "preset", cases[i].preset, NULL));
    g_assert_true(fk_settings_set(s, cases[i].name, cases[i].value, NULL));
    g_assert_true(fk_tune_resolve(s, be, &t, NULL));
    g_assert_cmpfloat(t.step_cache.threshold, ==, cases[i].threshold);
    g_assert_cmpint(t.step_cache.warmup, ==, cases[i].warmup);
    g_assert_cmpint(t.step_cache.last, ==, cases[i].last);
  }
  fk_backend_close(be);
}

/* The report has every optimization in the table's order, and says who decided.
 */
static void report(void) {
  FkBackend *be = open_null();
  size_t n, at = 0;
  const FkProperty *p = fk_properties(&n);
  g_autoptr(FkSettings) s = fk_settings_new();
  fk_settings_set(s, "vae-tiling", "on", NULL);
  fk_settings_set(s, "preset", "exact", NULL);
  fk_settings_set(s, "sigmas", "beta", NULL);
  g_auto(GStrv) list = fk_tune_report(s, be);
  for (size_t i = 0; i < n; i++) {
    const bool steps = !strcmp(p[i].name, "steps") || !strcmp(p[i].name, "scheduler") || !strcmp(p[i].name, "sigmas");
    if ((p[i].optimization == FK_CLASS_NONE && !steps) || p[i].scope != FK_SCOPE_SETTING) continue;
    g_assert_cmpstr(list[at], ==, p[i].name);
    if (!strcmp(p[i].name, "steps")) g_assert_cmpstr(list[at + 1], ==, "28 (0; preset exact)");
    if (!strcmp(p[i].name, "sigmas")) g_assert_cmpstr(list[at + 1], ==, "beta (beta; asked for)");
    if (!strcmp(p[i].name, "vae-tiling")) g_assert_true(g_str_has_prefix(list[at + 1], "on (on; asked for"));
    if (!strcmp(p[i].name, "step-cache")) g_assert_cmpstr(list[at + 1], ==, "none (auto; preset exact)");
    at += 2;
  }
  g_assert_null(list[at]);
  fk_backend_close(be);
}

/* The report says that the steps of few-step want an adapter; explicit ones and one with an adapter are silent. */
static void report_tells_of_adapters(void) {
  FkBackend *be = open_null();
  for (int i = 0; i < 4; i++) {
    g_autoptr(FkSettings) s = fk_settings_new();
    fk_settings_set(s, "preset", "few-step", NULL);
    if (i == 1) fk_settings_set(s, "loras", "few.safetensors", NULL);
    if (i == 2) fk_settings_set(s, "steps", "28", NULL);
    if (i == 3) fk_settings_set(s, "loras", "", NULL);
    g_auto(GStrv) list = fk_tune_report(s, be);
    guint at = 0;
    while (strcmp(list[at], "steps")) at += 2;
    g_assert_cmpint(strstr(list[at + 1], "no adapter") != NULL, ==, i == 0 || i == 3);
    if (i == 1) g_assert_cmpstr(list[at + 1], ==, "4 (0; preset few-step)");
  }
  fk_backend_close(be);
}

static void masks(void) {
  static const struct {
    const char *mask, *steps, *word;
  } bad[] = {{"0111", "4", "first"},
             {"111", "4", "3 characters for 4"},
             {"1121", "4", "character 3"},
             {"11111", "4", "5 characters for 4"},
             {"1 11", "4", "character 2"}};
  for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkSettings) s = fk_settings_new();
    fk_settings_set(s, "step-cache", "dbcache", NULL);
    fk_settings_set(s, "steps", bad[i].steps, NULL);
    fk_settings_set(s, "step-cache-mask", bad[i].mask, NULL);
    g_assert_false(fk_settings_check(s, &error));
    assert_error(error, FK_ERROR_OPTION_BAD, "step-cache-mask", bad[i].word);
  }
  g_autoptr(FkSettings) s = fk_settings_new();
  fk_settings_set(s, "step-cache", "dbcache", NULL);
  fk_settings_set(s, "steps", "4", NULL);
  fk_settings_set(s, "step-cache-mask", "1010", NULL);
  g_assert_true(fk_settings_check(s, NULL));
  fk_settings_set(s, "scheduler", "heun", NULL); /* seven evaluations for four steps */
  g_assert_false(fk_settings_check(s, NULL));
  fk_settings_set(s, "step-cache-mask", "1010101", NULL);
  g_assert_true(fk_settings_check(s, NULL));
}

/* One rule for lists of files, told before a model is opened. */
static void lists(void) {
  static const char *const names[] = {"loras", "references"},
                           *const bad[][2] = {{";", "1"}, {"a; b;", "3"}, {"a;;b", "2"}, {" ", "1"}},
                           *const good[] = {"", "a", " a ; b "};
  for (size_t k = 0; k < G_N_ELEMENTS(names); k++) {
    g_autoptr(FkSettings) s = fk_settings_new();
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
      g_autoptr(GError) error = NULL;
      g_autofree char *says =
          g_strdup_printf("%s: expected a file between semicolons, entry %s is empty", names[k], bad[i][1]);
      g_assert_true(fk_settings_set(s, names[k], bad[i][0], NULL));
      g_assert_false(fk_settings_check(s, &error));
      assert_error(error, FK_ERROR_OPTION_BAD, says, "");
    }
    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
      g_assert_true(fk_settings_set(s, names[k], good[i], NULL));
      g_assert_true(fk_settings_check(s, NULL));
    }
  }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/tune/table", table_rules);
  g_test_add_func("/tune/fields", fields);
  g_test_add_func("/tune/every-row-arrives", every_row_arrives);
  g_test_add_func("/tune/memory", memory);
  g_test_add_func("/tune/needs", needs);
  g_test_add_func("/tune/codes", codes);
  g_test_add_func("/tune/load-plan", load_plan);
  g_test_add_func("/tune/presets", presets_keep_their_word);
  g_test_add_func("/tune/defaults", defaults);
  g_test_add_func("/tune/values-arrive", values_arrive);
  g_test_add_func("/tune/true-cfg", true_cfg);
  g_test_add_func("/tune/explicit-wins", explicit_wins);
  g_test_add_func("/tune/preset-cache-numbers", preset_cache_numbers);
  g_test_add_func("/tune/preset-steps", preset_steps);
  g_test_add_func("/tune/preset-steps-stay", preset_steps_stay);
  g_test_add_func("/tune/report", report);
  g_test_add_func("/tune/report-tells-of-adapters", report_tells_of_adapters);
  g_test_add_func("/tune/masks", masks);
  g_test_add_func("/tune/lists", lists);
  return g_test_run();
}
