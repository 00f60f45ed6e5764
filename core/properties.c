/* SPDX-License-Identifier: Apache-2.0 */
/* THE table of properties, and nothing but it: names, help, ranges, defaults, and what each preset makes of `auto`.
 * Not here: stored values (values.c), what may be combined (interactions.c), what runs (tune.c). */
#include "properties.h"

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

const FkProperty *fk_properties_find(const char *name) {
  for (size_t i = 0; i < G_N_ELEMENTS(table); i++)
    if (!strcmp(table[i].name, name)) return &table[i];
  return NULL;
}

bool fk_properties_automatic(const FkProperty *p, const char *value) {
  if (p->kind == FK_KIND_SWITCH || p->kind == FK_KIND_ENUM) return !strcmp(value, "auto");
  return (p->kind == FK_KIND_INT || p->kind == FK_KIND_DOUBLE) && p->min < 0 && g_ascii_strtod(value, NULL) < 0;
}
