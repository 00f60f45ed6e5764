/* SPDX-License-Identifier: Apache-2.0 */
/* THE table of properties, and nothing but it: names, help, ranges, defaults, what each preset makes of `auto`, which
 * field the value becomes and what that field means for kernels and memory.
 * Not here: stored values (values.c), what may be combined (interactions.c), what runs (tune.c). */
#include "properties.h"

#include "backend.h"
#include "resolved.h"

#include <stddef.h>
#include <string.h>

/* ---- Enumerations: X(position, nick, meaning), where position is the value that the field gets ---- */

/* Nicks and meanings in the order of the values, and a proof that each value has one. Where the first is `auto` the
 * field's values are counted from the second on. */
#define NICK(position, nick, meaning) [position] = nick,
#define MEANING(position, nick, meaning) [position] = meaning,
#define BIT(position, nick, meaning) | 1u << (position)
#define CHOICES(name, list, count)                                                                                     \
  static const char *const name##_nicks[(count) + 1] = {list(NICK)};                                                   \
  static const char *const name##_meanings[(count) + 1] = {list(MEANING)};                                             \
  _Static_assert((0u list(BIT)) == (1u << (count)) - 1, #name ": a nick for each value and no more")
#define CHOICE(name) .values = name##_nicks, .meaning = name##_meanings

#define BACKENDS(X)                                                                                                    \
  X(0, "auto", "CUDA where a usable device is present, else the CPU if the work is small")                             \
  X(1 + FK_ENGINE_CUDA, "cuda", "NVIDIA GPU, bfloat16")                                                                \
  X(1 + FK_ENGINE_CPU, "cpu", "float32 reference, any machine")                                                        \
  X(1 + FK_ENGINE_NULL, "null", "Walks shapes only; pixels are unspecified but repeatable")
CHOICES(backend, BACKENDS, 1 + FK_ENGINES);

#define OFFLOADS(X)                                                                                                    \
  X(0, "auto", "The first of these that fits, by the plan and not by trial")                                           \
  X(1 + FK_OFFLOAD_NONE, "none", "All parts stay in memory")                                                           \
  X(1 + FK_OFFLOAD_MODEL, "model",                                                                                     \
    "Text encoders leave before the transformer and the autoencoder come; parts are read again when they are needed")  \
  X(1 + FK_OFFLOAD_SEQUENTIAL, "sequential",                                                                           \
    "As model, and blocks of T5 and of the transformer that do not fit come from a copy in host memory while others run")
CHOICES(offload, OFFLOADS, 1 + FK_OFFLOADS);

#define STORAGES(X)                                                                                                      \
  X(0, "auto", "Expanded where that fits, else as the files have them before anything is read twice or streams")         \
  X(1 + FK_STORAGE_EXPANDED, "expanded", "In the type that is computed in, or that quantization says")                   \
  X(1 + FK_STORAGE_FILE, "file",                                                                                         \
    "As the files have them (GGUF, fp8, int8, MXFP8, NVFP4, half precision) where that is smaller: expanded one by one " \
    "just before use")
CHOICES(storage, STORAGES, 1 + FK_STORAGES);

#define SCHEDULERS(X)                                                                                                  \
  X(0, "auto", "The preset decides: euler, unipc where preset=sprint")                                                 \
  X(1 + FK_SCHEDULER_EULER, "euler", "Flow-matching Euler, the model's own")                                           \
  X(1 + FK_SCHEDULER_DPMPP_2M, "dpmpp-2m", "DPM-Solver++ 2M")                                                          \
  X(1 + FK_SCHEDULER_UNIPC, "unipc", "UniPC, order 2")                                                                 \
  X(1 + FK_SCHEDULER_DEIS, "deis", "DEIS, order 2")                                                                    \
  X(1 + FK_SCHEDULER_HEUN, "heun", "Heun: two evaluations per step")
CHOICES(scheduler, SCHEDULERS, 1 + FK_SCHEDULERS);

#define SIGMAS(X)                                                                                                      \
  X(0, "auto", "The preset decides: flow, beta where preset=sprint")                                                   \
  X(1 + FK_SIGMAS_FLOW, "flow", "Even steps, shifted by the image size")                                               \
  X(1 + FK_SIGMAS_KARRAS, "karras", "Karras ladder between the flow's ends")                                           \
  X(1 + FK_SIGMAS_EXPONENTIAL, "exponential", "Even in the logarithm")                                                 \
  X(1 + FK_SIGMAS_BETA, "beta", "Quantiles of Beta(0.6, 0.6)")
CHOICES(sigmas, SIGMAS, 1 + FK_SIGMAS_KINDS);

#define RNGS(X)                                                                                                        \
  X(FK_RNG_TORCH_CPU, "torch-cpu", "torch.Generator('cpu'), float32")                                                  \
  X(FK_RNG_TORCH_CUDA, "torch-cuda", "torch.Generator('cuda') of an H100 or H200")
CHOICES(rng, RNGS, FK_RNGS);

#define TASKS(X)                                                                                                       \
  X(FK_TASK_EDIT, "edit", "Image editing: the frame is the reference image")                                           \
  X(FK_TASK_GENERATE, "generate", "Text to image: the frame gives size and time only")
CHOICES(task, TASKS, FK_TASKS);

#define SIZE_MODES(X)                                                                                                  \
  X(FK_SIZE_INPUT, "input", "The input's size")                                                                        \
  X(FK_SIZE_NATIVE, "native", "The model's preferred size nearest in aspect ratio")
CHOICES(size_mode, SIZE_MODES, FK_SIZE_MODES);

#define MASKS(X)                                                                                                       \
  X(FK_MASK_NONE, "none", "The whole frame is edited")                                                                 \
  X(FK_MASK_ALPHA, "alpha", "What is transparent is edited, what is opaque is kept")                                   \
  X(FK_MASK_META, "meta", "The regions in the metas of its buffer: of the element alone")                              \
  X(FK_MASK_PATH, "path", "What is white in the picture that mask-path names")
CHOICES(mask, MASKS, FK_MASKS);

#define REGIONS(X)                                                                                                     \
  X(FK_REGION_WHOLE, "whole", "The model sees the whole frame")                                                        \
  X(FK_REGION_CROP, "crop", "The model sees what is around the mask, at its best size: fewer tokens, more detail")
CHOICES(region, REGIONS, FK_REGIONS);

#define REFERENCE_IDS(X)                                                                                               \
  X(FK_REFERENCE_IDS_OFFSET, "offset", "Beside each other, as the released weights take them")                         \
  X(FK_REFERENCE_IDS_INDEX, "index", "Each on a level of its own")
CHOICES(reference_ids, REFERENCE_IDS, FK_REFERENCE_IDS_KINDS);

#define PRESETS(X)                                                                                                     \
  X(FK_PRESET_EXACT, "exact", "Only what leaves every bit as it is")                                                   \
  X(FK_PRESET_QUALITY, "quality", "Rounding may differ, nothing lossy")                                                \
  X(FK_PRESET_BALANCED, "balanced", "The cheapest losses that docs/quality.md found")                                  \
  X(FK_PRESET_FAST, "fast", "As fast as the result stays usable")                                                      \
  X(FK_PRESET_TURBO, "turbo", "Seven of 28 evaluations: results may be other pictures")                                \
  X(FK_PRESET_SPRINT, "sprint", "Six of 12 evaluations of a better solver: as near as turbo, with less work")          \
  X(FK_PRESET_FEW_STEP, "few-step", "As quality, in 4 steps: for an adapter (loras) or a model distilled to few steps")
CHOICES(preset, PRESETS, FK_PRESETS);
_Static_assert(FK_PRESETS == sizeof((FkProperty){0}.presets) / sizeof(char *), "a column for each preset");

#define STEP_CACHES(X)                                                                                                 \
  X(0, "auto", "The preset decides")                                                                                   \
  X(1 + FK_CACHE_NONE, "none", "Every evaluation is computed")                                                         \
  X(1 + FK_CACHE_FIRST_BLOCK, "first-block", "By what the first block adds, against its last computed value")          \
  X(1 + FK_CACHE_DBCACHE, "dbcache", "The same with more blocks in front, a warm-up and blocks behind")                \
  X(1 + FK_CACHE_TEACACHE, "teacache", "By the accumulated change of the model's modulated input")
CHOICES(step_cache, STEP_CACHES, 1 + FK_CACHES);

#define FORECASTS(X) /* the order of the extrapolation */                                                              \
  X(0, "auto", "The preset decides")                                                                                   \
  X(1, "none", "The last computed value")                                                                              \
  X(2, "taylor", "Extrapolated, first order")                                                                          \
  X(3, "taylor2", "Extrapolated, second order")
CHOICES(forecast, FORECASTS, 2 + FK_FORECAST_ORDER);

#define QUANTIZATIONS(X)                                                                                               \
  X(0, "auto", "The preset decides")                                                                                   \
  X(1 + FK_QUANTIZATION_NONE, "none", "The backend's own type")                                                        \
  X(1 + FK_QUANTIZATION_FP8, "fp8", "E4M3 weights and inputs, a scale for each row of both, measured as they come")    \
  X(1 + FK_QUANTIZATION_FP8_STATIC, "fp8-static",                                                                      \
    "The same with one scale for all inputs of a matrix, from a file of fluxkontext-calibrate")                        \
  X(1 + FK_QUANTIZATION_MXFP8, "mxfp8", "Weights rounded to MXFP8, then as fp8 with powers of two as their scales")    \
  X(1 + FK_QUANTIZATION_MXFP4, "mxfp4",                                                                                \
    "Weights rounded to MXFP4, held and computed as fp8: 4 bits' quality with 8 bits' memory and time")
CHOICES(quantization, QUANTIZATIONS, 1 + FK_QUANTIZATIONS);

#define TEXT_QUANTIZATIONS(X)                                                                                          \
  X(0, "auto", "The preset decides")                                                                                   \
  X(1 + FK_TEXT_QUANTIZATION_NONE, "none", "The backend's own type")                                                   \
  X(1 + FK_TEXT_QUANTIZATION_FP8, "fp8", "E4M3 weights and inputs, a scale for each row of both, measured as they come")
CHOICES(text_quantization, TEXT_QUANTIZATIONS, 1 + FK_TEXT_QUANTIZATIONS);

#define MODULATION_QUANTIZATIONS(X)                                                                                    \
  X(0, "auto", "The preset decides")                                                                                   \
  X(1 + FK_MODULATION_QUANTIZATION_NONE, "none", "The backend's own type")                                             \
  X(1 + FK_MODULATION_QUANTIZATION_FP8, "fp8", "E4M3 weights, a scale for each row; inputs are not quantised")
CHOICES(modulation_quantization, MODULATION_QUANTIZATIONS, 1 + FK_MODULATION_QUANTIZATIONS);

#define ATTENTION_PRECISIONS(X)                                                                                        \
  X(0, "auto", "The preset decides")                                                                                   \
  X(1 + FK_ATTENTION_BF16, "bf16", "The backend's own type: bfloat16 on a GPU, float32 on the CPU")                    \
  X(1 + FK_ATTENTION_FP8, "fp8", "Scores of 8-bit integers, probabilities and values in E4M3")                         \
  X(1 + FK_ATTENTION_FP8_VALUES, "fp8-values", "Scores of numbers, probabilities and values in E4M3")
CHOICES(attention_precision, ATTENTION_PRECISIONS, 1 + FK_ATTENTION_PRECISIONS);

#define REGION_KEYS(X)                                                                                                 \
  X(FK_EDITED_KEYS_ALL, "all", "Those of the unedited tokens and of the reference")                                    \
  X(FK_EDITED_KEYS_REFERENCE, "reference", "The reference's alone")                                                    \
  X(FK_EDITED_KEYS_TARGET, "target", "Those of the unedited tokens, and the reference's of edited places")
CHOICES(region_keys, REGION_KEYS, FK_EDITED_KEYS);

/* ---- Fields ---- */

/* A field of a type that its kind cannot fill does not compile. */
#define IS_BOOL(x) _Generic((x), bool : 1, default : -1)
#define IS_SWITCH(x) IS_BOOL(x)
#define IS_INT(x) _Generic((x), int : 1, default : -1)
#define IS_ENUM(x) _Generic((x), int : 1, unsigned : 1, default : -1)
#define IS_UINT64(x) _Generic((x), uint64_t : 1, default : -1)
#define IS_DOUBLE(x) _Generic((x), double : 1, default : -1)
#define IS_STRING(x) _Generic((x), const char * : 1, default : -1)
#define FIELD(type, name, kind_)                                                                                       \
  .kind = FK_KIND_##kind_, .offset = offsetof(type, name) + 0 * sizeof(char[IS_##kind_((((type *)0)->name))])
#define OPTION(kind_, name) FIELD(FkLoadPlan, name, kind_), .scope = FK_SCOPE_OPTION
#define SETTING(kind_, name) FIELD(FkTune, name, kind_), .scope = FK_SCOPE_SETTING
#define BOTH(name) _Static_assert(offsetof(FkLoadPlan, name) == offsetof(FkTune, name), #name ": one row fills both")
BOTH(preset);
BOTH(precision_first);
BOTH(precision_last);

#define ALL(v) .presets = {v, v, v, v, v, v, v}
#define SAME .optimization = FK_CLASS_SAME
#define ROUNDING .optimization = FK_CLASS_ROUNDING
#define LOSSY .optimization = FK_CLASS_LOSSY
#define PLAYING .playing = true
#define CONTROLLABLE .playing = true, .controllable = true
#define MEMORY .memory = true
#define A_FILE .file = true

/* clang-format off */
/* Presets. `exact` has what leaves every bit as it is; `quality` (the default) adds what rounds differently and is
 * faster; the lossy rows of `balanced` and `fast` follow from docs/quality.md, "What follows: presets":
 *   step-cache, its forecast and threshold   its lines preset-balanced and preset-fast. The published threshold of 0.22
 *                       (line teacache-.22-taylor) is no nearer for more work; first-block needs a warm-up to keep the
 *                       picture and runs its first block before it can decide
 *   step-cache-last     3 keeps the picture in every case for `balanced`; without a limit some become another picture
 *   step-cache-growth   `fast` decides by a cadence alone: 4 evaluations, then runs that grow from one by one, to the
 *                       end (line fixed-9-taylor): at least 34 dB in every case; `turbo` the same with runs of 2, 6 and
 *                       10 (line preset-turbo)
 *   context-reuse       off: with 2 some cases become another picture
 *   token-merge         off: a token is 16 x 16 pixels, and merging two shows
 *   vae-tiling          off: other pixels where tiles meet, for memory alone
 *   steps, scheduler, sigmas   `sprint`: 12 steps of unipc, sigmas=beta, and the cadence of `fast`: six of 12 (line
 *                       preset-sprint). `few-step`: 4 Euler steps, for which the adapter that docs/quality.md measured
 *                       was distilled; with more of them it is worse. All else as in `quality` */
/* clang-format on */
static const FkProperty table[] = {
    {"model-path", "Model path",
     "Folder of the model in diffusers layout (FLUX.1-Kontext-dev), or a file: the transformer alone (safetensors or "
     "GGUF), all parts, or what fluxkontext-pack has made; relative to the working directory. With backend=null none "
     "is needed",
     OPTION(STRING, model_path), .initial = NULL, A_FILE},
    {"vae-path", "Autoencoder's path", "File or folder of the autoencoder, instead of the model's own",
     OPTION(STRING, vae_path), .initial = NULL, MEMORY, A_FILE},
    {"clip-path", "CLIP's path", "File or folder of the CLIP text encoder, instead of the model's own",
     OPTION(STRING, clip_path), .initial = NULL, MEMORY, A_FILE},
    {"t5-path", "T5's path", "File or folder of the T5 text encoder, instead of the model's own",
     OPTION(STRING, t5_path), .initial = NULL, MEMORY, A_FILE},
    {"tokenizer-path", "Tokenizers' path",
     "Folder that holds tokenizer and tokenizer_2, instead of the model's own; a model in a file needs it",
     OPTION(STRING, tokenizer_path), .initial = NULL, A_FILE},
    {"backend", "Backend", "Machine that computes", OPTION(ENUM, backend), .initial = "auto", CHOICE(backend), MEMORY},
    {"cuda-device-id", "CUDA device", "Index of the GPU; -1 takes the first usable one", OPTION(INT, device), .min = -1,
     .max = 1023, .initial = "-1", MEMORY},
    {"threads", "CPU threads",
     "Threads of backend=cpu; 0 = one for each processor that the process may use. Results do not depend on it",
     OPTION(INT, threads), .min = 0, .max = 256, .initial = "0", MEMORY},
    {"max-vram", "Memory limit",
     "Upper limit of device memory in bytes; opening or editing fails above it; 0 = no limit. Where several users "
     "share an engine the lowest limit holds",
     OPTION(UINT64, max_vram), .initial = "0"},
    {"offload", "Offload",
     "Which parts of the model are in device memory at a time; auto follows from the plan and max-vram, or the "
     "device's memory. Results do not depend on it",
     OPTION(ENUM, offload), .initial = "auto", CHOICE(offload), MEMORY},
    {"weight-storage", "Storage of weights",
     "Form in which matrices stay in memory; results do not depend on it. Those to which adapters add more than "
     "products of two factors are expanded",
     OPTION(ENUM, storage), .initial = "auto", CHOICE(storage), MEMORY},
    {"quantization", "Quantisation", "Type of the weights and inputs of the transformer's blocks",
     OPTION(ENUM, quantization), LOSSY, .initial = "auto", CHOICE(quantization), ALL("none"), MEMORY},
    {"weight-dither", "Weight dithering",
     "Holds the quantised weights of the transformer a second time, rounded to the other side, for evaluations of odd "
     "number, so that their errors do not add up over the steps: takes the memory of the weights again, and no time",
     OPTION(SWITCH, weight_dither), LOSSY, .initial = "auto", ALL("off"), MEMORY},
    {"calibration-path", "Calibration's path",
     "File of fluxkontext-calibrate that quantization=fp8-static takes; unset: fluxkontext-calibration.json in the "
     "model's folder, or the model's file with .calibration.json behind its name",
     OPTION(STRING, calibration_path), .initial = NULL, MEMORY, A_FILE},
    {"text-quantization", "Quantisation of T5",
     "Type of the weights and inputs of the T5 text encoder's blocks: fp8 halves their memory",
     OPTION(ENUM, text_quantization), LOSSY, .initial = "auto", CHOICE(text_quantization), ALL("none"), MEMORY},
    {"modulation-quantization", "Quantisation of modulations",
     "Type of the weights of the transformer's modulations (adaLN), a quarter of its parameters: fp8 halves their "
     "memory",
     OPTION(ENUM, modulation_quantization), LOSSY, .initial = "auto", CHOICE(modulation_quantization), ALL("none"),
     MEMORY},

    {"prompt", "Prompt", "Edit instruction, passed to the model unchanged", SETTING(STRING, prompt), .initial = "",
     PLAYING},
    {"negative-prompt", "Negative prompt",
     "What to avoid; true classifier-free guidance runs when this is set (\"\" is set) and true-cfg-scale is above 1",
     SETTING(STRING, negative_prompt), .initial = NULL, PLAYING, MEMORY},
    {"loras", "Adapters",
     "LoRA files and their weights, \"path[:weight]; path[:weight]\", merged in this order. A change is read in before "
     "the first edit that has it",
     SETTING(STRING, loras), .initial = NULL, A_FILE, PLAYING},
    {"seed", "Seed",
     "Seed of the noise; the same seed gives the same bytes. -1 is 18446744073709551615, a seed like any other and not "
     "a random one",
     SETTING(UINT64, seed), .initial = "0", CONTROLLABLE},
    {"steps", "Steps", "Denoising steps; 0 = the preset decides: 28, 12 where preset=sprint, 4 where preset=few-step",
     SETTING(INT, steps), .min = 0, .max = 1000, .initial = "0", CONTROLLABLE,
     .presets = {"28", "28", "28", "28", "28", "12", "4"}, MEMORY},
    {"guidance", "Guidance", "Distilled guidance scale, an input of the model", SETTING(DOUBLE, guidance), .min = 0,
     .max = 100, .initial = "2.5", CONTROLLABLE},
    {"true-cfg-scale", "True CFG scale",
     "Classifier-free guidance against negative-prompt; 1 = off, else two evaluations (NFE) per step",
     SETTING(DOUBLE, true_cfg_scale), .min = 1, .max = 100, .initial = "1", CONTROLLABLE},
    {"guidance-start", "True CFG start",
     "Share of the evaluations after which true classifier-free guidance begins; before it one evaluation per step",
     SETTING(DOUBLE, guidance_start), .min = 0, .max = 1, .initial = "0", CONTROLLABLE},
    {"guidance-end", "True CFG end", "Share of the evaluations after which true classifier-free guidance ends",
     SETTING(DOUBLE, guidance_end), .min = 0, .max = 1, .initial = "1", CONTROLLABLE},
    {"strength", "Strength",
     "Share of the steps that run: below 1 the edit begins from the frame with noise instead of pure noise, and keeps "
     "more of it",
     SETTING(DOUBLE, strength), .min = 0.001, .max = 1, .initial = "1", CONTROLLABLE, MEMORY},
    {"scheduler", "Scheduler", "Solver of the flow", SETTING(ENUM, scheduler), .initial = "auto", CHOICE(scheduler),
     .presets = {"euler", "euler", "euler", "euler", "euler", "unipc", "euler"}, PLAYING, MEMORY},
    {"sigmas", "Noise levels", "Spacing of the noise levels", SETTING(ENUM, sigmas), .initial = "auto", CHOICE(sigmas),
     .presets = {"flow", "flow", "flow", "flow", "flow", "beta", "flow"}, PLAYING},
    {"rng", "Noise generator", "Whose torch.randn the noise repeats", SETTING(ENUM, rng), .initial = "torch-cpu",
     CHOICE(rng), PLAYING},
    {"max-sequence-length", "Text tokens",
     "T5 tokens, padding included; 0 = as the tokenizer's configuration says, at most 512",
     SETTING(INT, max_sequence_length), .min = 0, .max = 512, .initial = "0", PLAYING, MEMORY},

    {"task", "Task", "Edit the frame, or generate from the prompt alone", SETTING(ENUM, task), .initial = "edit",
     CHOICE(task), MEMORY},
    {"size-mode", "Size mode", "Size of the result", SETTING(ENUM, size_mode), .initial = "input", CHOICE(size_mode)},
    {"max-area", "Working area",
     "Pixels at which the model works; 0 = the square of its training size (1 MP for FLUX.1-Kontext-dev)",
     SETTING(INT, max_area), .min = 0, .max = 4194304, .initial = "0"},
    {"mask", "Mask", "What is edited; all else comes back with the bytes that it had", SETTING(ENUM, mask),
     .initial = "none", CHOICE(mask), PLAYING, MEMORY},
    {"mask-path", "Mask file",
     "PNG or JPEG of any size whose white is edited and whose black is kept; with mask=none it is taken too",
     SETTING(STRING, mask_path), .initial = NULL, A_FILE, PLAYING, MEMORY},
    {"mask-type", "Mask type", "Type or class of the regions that mask=meta takes; unset = all",
     SETTING(STRING, mask_type), .initial = NULL, PLAYING},
    {"mask-invert", "Inverted mask", "What the mask keeps is edited, and the other way round",
     SETTING(BOOL, mask_invert), .initial = "false", PLAYING},
    {"mask-dilate", "Mask growth", "Pixels of the frame by which the mask grows on each side",
     SETTING(INT, mask_dilate), .min = 0, .max = 1000, .initial = "0", CONTROLLABLE},
    {"mask-feather", "Mask feather",
     "Pixels of the frame over which the edit fades in, counted from the mask's edge inwards",
     SETTING(INT, mask_feather), .min = 0, .max = 1000, .initial = "0", CONTROLLABLE},
    {"region", "Region", "What the model sees where there is a mask", SETTING(ENUM, region), .initial = "whole",
     CHOICE(region), PLAYING},
    {"references", "Reference files",
     "PNG or JPEG files that the prompt may refer to, up to 8: \"a.png; b.jpg\". They come behind the frame and the "
     "pictures of reference pads, in this order",
     SETTING(STRING, references), .initial = NULL, A_FILE, PLAYING, MEMORY},
    {"reference-ids", "Reference positions", "Where the model sees several reference pictures",
     SETTING(ENUM, reference_ids), .initial = "offset", CHOICE(reference_ids), PLAYING},
    {"preset", "Preset", "Which optimizations `auto` turns on", SETTING(ENUM, preset), .initial = "quality",
     CHOICE(preset), .both = true},

    {"prompt-cache", "Prompt cache", "Keep the encodings of the last 16 prompts", SETTING(SWITCH, prompt_cache), SAME,
     .initial = "auto", ALL("on")},
    {"vae-tiling", "VAE tiling",
     "Autoencoder in overlapping tiles when a side exceeds its training size: less memory, other pixels",
     SETTING(SWITCH, vae_tiling), LOSSY, .initial = "auto", ALL("off"), MEMORY},
    {"fused-qkv", "Fused projections",
     "Normalisation and rotation of queries and keys inside their projection, with one rounding",
     SETTING(SWITCH, fused_qkv), ROUNDING, .initial = "auto", .presets = {"off", "on", "on", "on", "on", "on", "on"},
     .needs = FK_CAN_FUSED_QKV, MEMORY},
    {"flash-attention", "Flash attention", "The attention kernel made for this GPU instead of the general one",
     SETTING(SWITCH, flash_attention), ROUNDING, .initial = "auto",
     .presets = {"off", "on", "on", "on", "on", "on", "on"}, .needs = FK_CAN_FLASH, MEMORY},
    {"fused-codes", "Fused codes",
     "With quantization=fp8-static attention and GELU give their results as codes, instead of numbers and a pass over "
     "them",
     SETTING(SWITCH, fused_codes), SAME, .initial = "auto", ALL("on"), .needs = FK_CAN_FUSED_CODES, MEMORY},
    {"channels-last", "Channels-last convolution",
     "Convolutions and group norms of the autoencoder by the fused kernels for channels-last maps",
     SETTING(SWITCH, channels_last), ROUNDING, .initial = "auto",
     .presets = {"off", "on", "on", "on", "on", "on", "on"}, .needs = FK_CAN_FUSED_CONV | FK_CAN_FUSED_GROUP_NORM,
     MEMORY},
    {"cuda-graph", "CUDA graph", "Captures an evaluation as a CUDA graph and replays it", SETTING(SWITCH, cuda_graph),
     SAME, .initial = "auto", ALL("on"), .needs = FK_CAN_GRAPH},
    {"expand-ahead", "Expansion ahead",
     "Matrices that weight-storage keeps as their files have them are expanded on a stream of their own, while the ops "
     "before their product run: takes a second scratch",
     SETTING(SWITCH, expand_ahead), SAME, .initial = "auto", ALL("off"), .needs = FK_CAN_EXPAND_AHEAD, MEMORY},
    {"vae-slicing", "VAE slicing",
     "Frames of a batch go through the autoencoder one at a time; this engine has no other way",
     SETTING(SWITCH, vae_slicing), SAME, .initial = "auto", ALL("on")},

    {"step-cache", "Step cache", "Skips the middle of the model at evaluations where little has changed",
     SETTING(ENUM, step_cache.kind), LOSSY, .initial = "auto", CHOICE(step_cache),
     .presets = {"none", "none", "teacache", "teacache", "teacache", "teacache", "none"}, MEMORY},
    {"step-cache-threshold", "Step cache threshold",
     "Relative change of the noise (target) tokens from which an evaluation is computed; -1: automatic (first-block "
     "and dbcache 0.08, teacache 0.22 accumulated, 0.3 where "
     "preset=balanced chose it, 100, which leaves the cadence alone, where preset=fast, turbo or sprint did)",
     SETTING(DOUBLE, step_cache.threshold), .min = -1, .max = 1000, .initial = "-1",
     .presets = {"-1", "-1", "0.3", "100", "100", "100", "-1"}},
    {"step-cache-front", "Step cache front",
     "Blocks that always run before the decision; -1: automatic (first-block 1, dbcache 8, never more than a third of "
     "the blocks)",
     SETTING(INT, step_cache.front), .min = -1, .max = 1000, .initial = "-1", MEMORY},
    {"step-cache-back", "Step cache back", "Blocks that always run after the skipped ones",
     SETTING(INT, step_cache.back), .min = 0, .max = 1000, .initial = "0", MEMORY},
    {"step-cache-warmup", "Step cache warm-up",
     "Evaluations at the start that are always computed; -1: automatic (first-block 1, dbcache 8, teacache a fifth of "
     "all, 4 where preset=fast, turbo or sprint chose it)",
     SETTING(INT, step_cache.warmup), .min = -1, .max = 2000, .initial = "-1",
     .presets = {"-1", "-1", "-1", "4", "4", "4", "-1"}},
    {"step-cache-max", "Step cache limit",
     "Most evaluations that may be skipped in all (cache-dit: max_cached_steps); -1 = any number",
     SETTING(INT, step_cache.max), .min = -1, .max = 2000, .initial = "-1"},
    {"step-cache-last", "Step cache run",
     "Most evaluations that may be skipped in a row (cache-dit: max_continuous_cached_steps); -1: automatic (any "
     "number, 3 where preset=balanced chose the cache, 1 at first where preset=fast or sprint did, 2 where turbo did)",
     SETTING(INT, step_cache.last), .min = -1, .max = 2000, .initial = "-1",
     .presets = {"-1", "-1", "3", "1", "2", "1", "-1"}},
    {"step-cache-growth", "Step cache growth",
     "Evaluations by which each run may be longer than the one before; with step-cache-last the length of the first; "
     "-1: automatic (0, 1 where preset=fast or sprint chose the cache, 4 where turbo did)",
     SETTING(INT, step_cache.growth), .min = -1, .max = 2000, .initial = "-1",
     .presets = {"-1", "-1", "-1", "1", "4", "1", "-1"}},
    {"step-cache-cooldown", "Step cache cool-down",
     "Evaluations at the end that are always computed; -1: automatic (teacache a tenth of all, others none; none where "
     "preset=fast, turbo or sprint chose the cache)",
     SETTING(INT, step_cache.cooldown), .min = -1, .max = 2000, .initial = "-1",
     .presets = {"-1", "-1", "-1", "0", "0", "0", "-1"}},
    {"step-cache-forecast", "Step cache forecast", "What a skipped evaluation takes from earlier ones",
     SETTING(ENUM, step_cache.forecast), LOSSY, .initial = "auto", CHOICE(forecast),
     .presets = {"none", "none", "taylor", "taylor", "taylor", "taylor", "none"}, MEMORY},
    {"step-cache-mask", "Step cache mask",
     "Replays decisions: one character for each evaluation, 1 computed, 0 skipped; empty = decide",
     SETTING(STRING, step_cache.mask), .initial = "", MEMORY},
    {"attention-precision", "Attention precision", "Type of the attention's operands in the transformer",
     SETTING(ENUM, attention_precision), LOSSY, .initial = "auto", CHOICE(attention_precision), ALL("bf16"), MEMORY},
    {"precision-first", "Unquantised evaluations at the start",
     "Evaluations at the start with unquantised weights and attention where quantization or attention-precision is "
     "set; they choose the picture. With quantization the engine then holds both forms of the weights: also an option, "
     "to be set when the model is opened; -1 = the preset decides",
     SETTING(INT, precision_first), LOSSY, .min = -1, .max = 2000, .initial = "-1", ALL("0"), .both = true},
    {"precision-last", "Unquantised evaluations at the end", "The same at the end; -1 = the preset decides",
     SETTING(INT, precision_last), LOSSY, .min = -1, .max = 2000, .initial = "-1", ALL("0"), .both = true},
    {"context-reuse", "Context reuse",
     "Computes the reference (context) tokens every N evaluations and keeps their keys and values in between; 1 = off, "
     "-1 = the preset decides",
     SETTING(INT, context_reuse), LOSSY, .min = -1, .max = 2000, .initial = "-1", ALL("1"), MEMORY},
    {"context-reuse-warmup", "Context reuse warm-up",
     "Evaluations at the start that always compute the reference (context) tokens", SETTING(INT, context_reuse_warmup),
     .min = 0, .max = 2000, .initial = "0"},
    {"token-merge", "Token merging",
     "Share of the image tokens that are merged with a similar neighbour in the middle blocks; 0 = off, -1 = the "
     "preset decides",
     SETTING(DOUBLE, token_merge), LOSSY, .min = -1, .max = 0.75, .initial = "-1", ALL("0"), MEMORY},
    {"draft", "Draft",
     "Runs the first steps on a picture whose sides are N times shorter, and the others at full size; 1 = off, -1 = "
     "the preset decides",
     SETTING(INT, draft), LOSSY, .min = -1, .max = 64, .initial = "-1", ALL("1"), MEMORY},
    {"draft-share", "Draft share", "Share of the steps that the draft runs; one step at least is left",
     SETTING(DOUBLE, draft_share), .min = 0, .max = 0.95, .initial = "0.3", MEMORY},
    {"region-tokens", "Edited tokens",
     "After the first evaluations only the tokens that differ from the reference by more than this (mean of the "
     "latents' differences) are computed; the others become the reference's; 0 = off, -1 = the preset decides",
     SETTING(DOUBLE, edited.threshold), LOSSY, .min = -1, .max = 1000, .initial = "-1", ALL("0"), MEMORY},
    {"region-warmup", "Edited tokens warm-up",
     "Evaluations at full size that compute all tokens before the edited ones are found", SETTING(INT, edited.warmup),
     .min = 1, .max = 2000, .initial = "4"},
    {"region-refresh", "Edited tokens refresh",
     "Computes all tokens again every N evaluations, at the next one that is not skipped, and finds the edited ones again; "
     "0 = never",
     SETTING(INT, edited.refresh), .min = 0, .max = 2000, .initial = "0"},
    {"region-keys", "Edited tokens' context", "Whose keys and values stand for the tokens that are not computed",
     SETTING(ENUM, edited.keys), .initial = "all", CHOICE(region_keys), MEMORY},
    {"region-mask", "Edited tokens mask",
     "Replays FkResult.region: which tokens are edited, instead of finding them; empty = find",
     SETTING(STRING, edited.mask), .initial = "", .check = fk_edited_check},
    {"region-keep", "Unedited pixels kept",
     "Pixels whose tokens are not edited come back with the bytes that they had: chained edits do not drift there",
     SETTING(BOOL, edited.keep), .initial = "false"},
    {"trace-file", "Trace file",
     "Write the times of the last edit's ops to this file (Chrome trace JSON); off while unset",
     SETTING(STRING, trace_file), .initial = NULL, A_FILE},
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
  const bool number = p->kind == FK_KIND_INT || p->kind == FK_KIND_DOUBLE;
  return number && (p->min < 0 || p->presets[0]) && g_ascii_strtod(value, NULL) < p->min + 1;
}
