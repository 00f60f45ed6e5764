/* SPDX-License-Identifier: Apache-2.0 */
/* The table itself, and its resolution: preset, backend and other switches turn `auto` into what runs.
 * Not here: storing and parsing values (values.c). Adding an optimization is adding its row, its field in FkTune, its
 * line in fk_tune_resolve and its test. */
#include "tune.h"

#include "interactions.h"
#include "values.h"

#include <math.h>
#include <string.h>

#define ALL(v)                                                                                                         \
  { v, v, v, v }
#define NICKS(...) ((const char *const[]){__VA_ARGS__, NULL})

static const FkProperty table[] = {
    {"model-path", "Model path",
     "Folder of the model in diffusers layout (FLUX.1-Kontext-dev); relative to the working "
     "directory. With backend=null none is needed",
     FK_KIND_STRING, FK_SCOPE_OPTION, .initial = NULL},
    {"backend", "Backend", "Machine that computes", FK_KIND_ENUM, FK_SCOPE_OPTION, .initial = "auto",
     .values = NICKS("auto", "cuda", "cpu", "null"),
     .meaning =
         NICKS("CUDA where a usable device is present, else the CPU if the work is small", "NVIDIA GPU, bfloat16",
               "float32 reference, any machine", "Walks shapes only; pixels are unspecified but repeatable")},
    {"cuda-device-id", "CUDA device", "Index of the GPU; -1 takes the first usable one", FK_KIND_INT, FK_SCOPE_OPTION,
     .min = -1, .max = 1023, .initial = "-1"},
    {"max-vram", "Memory limit", "Refuse to open when the plan needs more bytes of device memory; 0 = all there is",
     FK_KIND_UINT64, FK_SCOPE_OPTION, .initial = "0"},

    {"prompt", "Prompt", "What to change, in words; edited as it is", FK_KIND_STRING, FK_SCOPE_SETTING, .initial = "",
     .playing = true},
    {"negative-prompt", "Negative prompt",
     "What to avoid; true classifier-free guidance runs when this is set (\"\" is "
     "set) and true-cfg-scale is above 1",
     FK_KIND_STRING, FK_SCOPE_SETTING, .initial = NULL, .playing = true},
    {"seed", "Seed", "Seed of the noise; the same seed gives the same bytes", FK_KIND_UINT64, FK_SCOPE_SETTING,
     .initial = "0", .playing = true, .controllable = true},
    {"steps", "Steps", "Denoising steps", FK_KIND_INT, FK_SCOPE_SETTING, .min = 1, .max = 1000, .initial = "28",
     .playing = true, .controllable = true},
    {"guidance", "Guidance", "Distilled guidance scale, an input of the model", FK_KIND_DOUBLE, FK_SCOPE_SETTING,
     .min = 0, .max = 100, .initial = "2.5", .playing = true, .controllable = true},
    {"true-cfg-scale", "True CFG scale",
     "Classifier-free guidance against negative-prompt; 1 = off, else two passes per "
     "step",
     FK_KIND_DOUBLE, FK_SCOPE_SETTING, .min = 1, .max = 100, .initial = "1", .playing = true, .controllable = true},
    {"scheduler", "Scheduler", "Solver of the flow", FK_KIND_ENUM, FK_SCOPE_SETTING, .initial = "euler",
     .values = NICKS("euler", "dpmpp-2m", "unipc", "deis", "heun"),
     .meaning = NICKS("Flow-matching Euler, the model's own", "DPM-Solver++ 2M", "UniPC, order 2", "DEIS, order 2",
                      "Heun: two evaluations per step"),
     .playing = true},
    {"sigmas", "Noise levels", "Spacing of the noise levels", FK_KIND_ENUM, FK_SCOPE_SETTING, .initial = "flow",
     .values = NICKS("flow", "karras", "exponential", "beta"),
     .meaning = NICKS("Even steps, shifted by the image size", "Karras ladder between the flow's ends",
                      "Even in the logarithm", "Quantiles of Beta(0.6, 0.6)"),
     .playing = true},
    {"rng", "Noise generator", "Whose torch.randn the noise repeats", FK_KIND_ENUM, FK_SCOPE_SETTING,
     .initial = "torch-cpu", .values = NICKS("torch-cpu", "torch-cuda"),
     .meaning = NICKS("torch.Generator('cpu'), float32", "torch.Generator('cuda') of an H100 or H200"),
     .playing = true},
    {"max-sequence-length", "Text tokens",
     "T5 tokens, padding included; 0 = as the tokenizer's configuration says, at "
     "most 512",
     FK_KIND_INT, FK_SCOPE_SETTING, .min = 0, .max = 512, .initial = "0", .playing = true},

    {"task", "Task", "What to make of a frame", FK_KIND_ENUM, FK_SCOPE_SETTING, .initial = "edit",
     .values = NICKS("edit", "generate"),
     .meaning = NICKS("Edit the frame", "Text to image: the frame gives size and time only")},
    {"size-mode", "Size mode", "Size of the result", FK_KIND_ENUM, FK_SCOPE_SETTING, .initial = "input",
     .values = NICKS("input", "native"),
     .meaning = NICKS("The input's size", "The model's preferred size nearest in aspect ratio")},
    {"max-area", "Working area",
     "Pixels at which the model works; 0 = the square of its training size (1 MP for "
     "FLUX.1-Kontext-dev)",
     FK_KIND_INT, FK_SCOPE_SETTING, .min = 0, .max = 4194304, .initial = "0"},
    {"preset", "Preset", "Which optimizations `auto` turns on", FK_KIND_ENUM, FK_SCOPE_SETTING, .initial = "quality",
     .values = NICKS("exact", "quality", "balanced", "fast"),
     .meaning = NICKS("Only what leaves every bit as it is", "Rounding may differ, nothing lossy",
                      "The cheapest losses that docs/quality.md found", "As fast as the result stays usable")},

    {"prompt-cache", "Prompt cache", "Keep the encodings of the last 16 prompts", FK_KIND_SWITCH, FK_SCOPE_SETTING,
     FK_CLASS_SAME, .initial = "auto", .presets = ALL("on")},
    {"vae-tiling", "VAE tiling",
     "Autoencoder in overlapping tiles when a side exceeds its training size: less memory, "
     "other pixels",
     FK_KIND_SWITCH, FK_SCOPE_SETTING, FK_CLASS_LOSSY, .initial = "auto", .presets = ALL("off")},
    {"fused-qkv", "Fused projections",
     "Normalisation and rotation of queries and keys inside their projection, with one "
     "rounding",
     FK_KIND_SWITCH, FK_SCOPE_SETTING, FK_CLASS_ROUNDING, .initial = "auto", .presets = {"off", "on", "on", "on"}},
    {"flash-attention", "Flash attention", "The attention kernel made for this GPU instead of the general one",
     FK_KIND_SWITCH, FK_SCOPE_SETTING, FK_CLASS_ROUNDING, .initial = "auto", .presets = {"off", "on", "on", "on"}},
    {"channels-last", "Channels-last convolution",
     "Convolutions and group norms of the autoencoder by the fused kernels "
     "for channels-last maps",
     FK_KIND_SWITCH, FK_SCOPE_SETTING, FK_CLASS_ROUNDING, .initial = "auto", .presets = {"off", "on", "on", "on"}},
    {"cuda-graph", "CUDA graph", "Records one evaluation and replays it", FK_KIND_SWITCH, FK_SCOPE_SETTING,
     FK_CLASS_SAME, .initial = "auto", .presets = ALL("on")},
    {"vae-slicing", "VAE slicing",
     "Frames of a batch go through the autoencoder one at a time; this engine has no other "
     "way",
     FK_KIND_SWITCH, FK_SCOPE_SETTING, FK_CLASS_SAME, .initial = "auto", .presets = ALL("on")},

    {"step-cache", "Step cache", "Skips the middle of the model at evaluations where little has changed", FK_KIND_ENUM,
     FK_SCOPE_SETTING, FK_CLASS_LOSSY, .initial = "auto",
     .values = NICKS("auto", "none", "first-block", "dbcache", "teacache"),
     .meaning = NICKS("The preset decides", "Every evaluation is computed",
                      "By what the first block adds, against its last computed value",
                      "The same with more blocks in front, a warm-up and blocks behind",
                      "By the accumulated change of the model's modulated input"),
     .presets = {"none", "none", "teacache", "teacache"}},
    {"step-cache-threshold", "Step cache threshold",
     "Relative change of the target tokens from which an evaluation is "
     "computed; -1 = 0.08 for first-block and dbcache, 0.22 (accumulated) for teacache, 0.3 where a preset chose it",
     FK_KIND_DOUBLE, FK_SCOPE_SETTING, .min = -1, .max = 1000, .initial = "-1", .presets = {"-1", "-1", "0.3", "0.3"}},
    {"step-cache-front", "Step cache front",
     "Blocks that always run before the decision; -1 = 1 for first-block, 8 for "
     "dbcache, at most a third of the model",
     FK_KIND_INT, FK_SCOPE_SETTING, .min = -1, .max = 1000, .initial = "-1"},
    {"step-cache-back", "Step cache back", "Blocks that always run after the skipped ones", FK_KIND_INT,
     FK_SCOPE_SETTING, .min = 0, .max = 1000, .initial = "0"},
    {"step-cache-warmup", "Step cache warm-up",
     "Evaluations at the start that are always computed; -1 = 1 for "
     "first-block, 8 for dbcache, a fifth of all for teacache, 5 where preset=fast chose it",
     FK_KIND_INT, FK_SCOPE_SETTING, .min = -1, .max = 2000, .initial = "-1", .presets = {"-1", "-1", "-1", "5"}},
    {"step-cache-max", "Step cache limit", "Evaluations that may be skipped in all; -1 = any number", FK_KIND_INT,
     FK_SCOPE_SETTING, .min = -1, .max = 2000, .initial = "-1"},
    {"step-cache-last", "Step cache run",
     "Evaluations that may be skipped one after the other; -1 = any number, 3 where preset=balanced chose the cache, "
     "4 where preset=fast did",
     FK_KIND_INT, FK_SCOPE_SETTING, .min = -1, .max = 2000, .initial = "-1", .presets = {"-1", "-1", "3", "4"}},
    {"step-cache-growth", "Step cache growth",
     "Evaluations by which each run may be longer than the one before; with step-cache-last the length of the first",
     FK_KIND_INT, FK_SCOPE_SETTING, .min = 0, .max = 2000, .initial = "0"},
    {"step-cache-cooldown", "Step cache cool-down",
     "Evaluations at the end that are always computed; -1 = a tenth of all for teacache, none for the others",
     FK_KIND_INT, FK_SCOPE_SETTING, .min = -1, .max = 2000, .initial = "-1"},
    {"step-cache-forecast", "Step cache forecast", "What a skipped evaluation takes from earlier ones", FK_KIND_ENUM,
     FK_SCOPE_SETTING, FK_CLASS_LOSSY, .initial = "auto", .values = NICKS("auto", "none", "taylor", "taylor2"),
     .meaning = NICKS("The preset decides", "The last computed value", "Extrapolated, first order",
                      "Extrapolated, second order"),
     .presets = {"none", "none", "taylor", "taylor"}},
    {"step-cache-mask", "Step cache mask",
     "Replays decisions: one character for each evaluation, 1 computed, 0 skipped; "
     "empty = decide",
     FK_KIND_STRING, FK_SCOPE_SETTING, .initial = ""},
    {"context-reuse", "Context reuse",
     "Computes the reference image's tokens every N evaluations and keeps their keys "
     "and values in between; 1 = off, -1 = the preset decides",
     FK_KIND_INT, FK_SCOPE_SETTING, FK_CLASS_LOSSY, .min = -1, .max = 2000, .initial = "-1", .presets = ALL("1")},
    {"token-merge", "Token merging",
     "Share of the image tokens that are merged with a similar neighbour in the middle "
     "blocks; 0 = off, -1 = the preset decides",
     FK_KIND_DOUBLE, FK_SCOPE_SETTING, FK_CLASS_LOSSY, .min = -1, .max = 0.75, .initial = "-1", .presets = ALL("0")},
    {"trace-file", "Trace file",
     "Write the times of the last edit's ops to this file (Chrome trace JSON); off while unset", FK_KIND_STRING,
     FK_SCOPE_SETTING, .initial = NULL},
};

const FkProperty *fk_properties(size_t *count) {
  *count = G_N_ELEMENTS(table);
  return table;
}

const FkProperty *fk_tune_find(const char *name) {
  for (size_t i = 0; i < G_N_ELEMENTS(table); i++)
    if (!strcmp(table[i].name, name)) return &table[i];
  return NULL;
}

static int nick_index(const FkProperty *p, const char *value) {
  for (int i = 0; p->values[i]; i++)
    if (!strcmp(p->values[i], value)) return i;
  return 0;
}

/* Index of an enumeration's value. */
static int choice(const FkSettings *s, const char *name) {
  return nick_index(fk_tune_find(name), fk_settings_get(s, name));
}

bool fk_tune_automatic(const FkProperty *p, const char *value) {
  if (p->kind == FK_KIND_SWITCH || p->kind == FK_KIND_ENUM) return !strcmp(value, "auto");
  return (p->kind == FK_KIND_INT || p->kind == FK_KIND_DOUBLE) && p->min < 0 && g_ascii_strtod(value, NULL) < 0;
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
  if (!asked || !p->presets[0] || !fk_tune_automatic(p, asked)) return asked;
  if (tunes_another_cache(s, p)) return p->presets[0];
  const char *preset = p->presets[choice(s, "preset")];
  return fk_interactions_yield(s, p->name, preset) ? p->presets[0] : preset;
}

/* Whether the backend has what a switch turns on. */
static bool available(const FkProperty *p, const FkBackend *be) {
  if (!strcmp(p->name, "fused-qkv")) return be->ops->linear_fused;
  if (!strcmp(p->name, "flash-attention")) return be->ops->flash_attention;
  if (!strcmp(p->name, "channels-last")) return be->ops->conv_fused && be->ops->group_norm_silu;
  if (!strcmp(p->name, "cuda-graph")) return be->ops->graph_begin;
  return true;
}

/* A machine switch as it will run. */
static bool machine_on(const FkSettings *s, const FkBackend *be, const char *name) {
  const FkProperty *p = fk_tune_find(name);
  return available(p, be) && !strcmp(fk_tune_decided(s, p), "on");
}

/* `on` that cannot be had, and `off` of what has no other way (rule 7). */
static bool check_machine(const FkSettings *s, const FkBackend *be, GError **error) {
  for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
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
  be->use_fused_qkv = t->fused_qkv;
  be->use_flash_attention = t->flash_attention;
  be->use_conv_fused = be->use_group_norm_silu = t->channels_last;
  be->use_graph = t->cuda_graph;
}

static bool on(const FkSettings *s, const char *name) {
  return !strcmp(fk_tune_decided(s, fk_tune_find(name)), "on");
}

static double number(const FkSettings *s, const char *name) {
  return g_ascii_strtod(fk_tune_decided(s, fk_tune_find(name)), NULL);
}

/* Index of a decided enumeration among its values, `auto` not counted. */
static int decided_choice(const FkSettings *s, const char *name) {
  const FkProperty *p = fk_tune_find(name);
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
                .step_cache = (FkCacheKind)decided_choice(s, "step-cache"),
                .step_cache_threshold = number(s, "step-cache-threshold"),
                .step_cache_front = (int)number(s, "step-cache-front"),
                .step_cache_back = (int)number(s, "step-cache-back"),
                .step_cache_warmup = (int)number(s, "step-cache-warmup"),
                .step_cache_max = (int)number(s, "step-cache-max"),
                .step_cache_last = (int)number(s, "step-cache-last"),
                .step_cache_growth = (int)number(s, "step-cache-growth"),
                .step_cache_cooldown = (int)number(s, "step-cache-cooldown"),
                .step_cache_forecast = decided_choice(s, "step-cache-forecast"),
                .step_cache_mask = fk_settings_get(s, "step-cache-mask"),
                .context_reuse = MAX(1, (int)number(s, "context-reuse")),
                .token_merge = number(s, "token-merge")};
  if (t->true_cfg_scale > 1) t->negative_prompt = fk_settings_get(s, "negative-prompt");
  return true;
}

char **fk_tune_report(const FkSettings *s, const FkBackend *be) {
  GPtrArray *list = g_ptr_array_new();
  const char *preset = fk_settings_get(s, "preset");
  for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
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
