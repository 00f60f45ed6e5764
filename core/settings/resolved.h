/* SPDX-License-Identifier: Apache-2.0 */
/* What options and settings resolve to: plain values, no `auto` left. Every row of the table (properties.c) names its
 * field here by offset; the values are written by one loop (tune.c). */
#ifndef FK_RESOLVED_H
#define FK_RESOLVED_H

#include "flux.h"
#include "image.h"
#include "precision.h"
#include "random.h"
#include "scheduler.h"
#include "stepcache.h"

/* The enumerations of properties that belong to no other area; each in the order of its nicks. */
typedef enum {
  FK_PRESET_EXACT,
  FK_PRESET_QUALITY,
  FK_PRESET_BALANCED,
  FK_PRESET_FAST,
  FK_PRESET_TURBO,
  FK_PRESET_SPRINT,
  FK_PRESET_FEW_STEP,
  FK_PRESETS
} FkPreset;
typedef enum { FK_TASK_EDIT, FK_TASK_GENERATE, FK_TASKS } FkTask;
typedef enum { FK_MASK_NONE, FK_MASK_ALPHA, FK_MASK_META, FK_MASK_PATH, FK_MASKS } FkMaskSource;
typedef enum { FK_REFERENCE_IDS_OFFSET, FK_REFERENCE_IDS_INDEX, FK_REFERENCE_IDS_KINDS } FkReferenceIds;
typedef enum { FK_REGION_WHOLE, FK_REGION_CROP, FK_REGIONS } FkRegion;
typedef enum {
  FK_QUANTIZATION_NONE,
  FK_QUANTIZATION_FP8,
  FK_QUANTIZATION_FP8_STATIC,
  FK_QUANTIZATION_MXFP8,
  FK_QUANTIZATION_MXFP4,
  FK_QUANTIZATIONS
} FkQuantization;
typedef enum { FK_TEXT_QUANTIZATION_NONE, FK_TEXT_QUANTIZATION_FP8, FK_TEXT_QUANTIZATIONS } FkTextQuantization;
typedef enum {
  FK_MODULATION_QUANTIZATION_NONE,
  FK_MODULATION_QUANTIZATION_FP8,
  FK_MODULATION_QUANTIZATIONS
} FkModulationQuantization;
typedef enum { FK_OFFLOAD_NONE, FK_OFFLOAD_MODEL, FK_OFFLOAD_SEQUENTIAL, FK_OFFLOADS } FkOffload;
typedef enum { FK_STORAGE_EXPANDED, FK_STORAGE_FILE, FK_STORAGES } FkStorage;
typedef enum { FK_ENGINE_CUDA, FK_ENGINE_CPU, FK_ENGINE_NULL, FK_ENGINES } FkEngineKind;

/* What an engine was opened with. Strings belong to the options and live as long as those are unchanged. */
typedef struct {
  FkPreset preset; /* first, as in FkTune: rows that both have */
  int precision_first, precision_last;
  const char *model_path;                                      /* NULL: none; the same of the others */
  const char *vae_path, *clip_path, *t5_path, *tokenizer_path; /* parts instead of the model's own */
  FkEngineKind backend;
  int device;                                       /* index of the GPU; -1: not one of several */
  int threads;                                      /* of the CPU backend; 0 on others */
  uint64_t max_vram;                                /* bytes; 0: no limit */
  int offload;                                      /* FkOffload; -1: not decided yet: by the plan of the first edit */
  int storage;                                      /* FkStorage; -1: not decided yet: by the plan of the first edit */
  bool has_forms;                                   /* storage makes a difference; for reports */
  int streamed;                                     /* blocks that stream, with FK_OFFLOAD_SEQUENTIAL; for reports */
  bool remakes;                                     /* codes are made at each return of a part; for reports */
  FkQuantization quantization;                      /* of the transformer's blocks */
  FkTextQuantization text_quantization;             /* of T5 */
  FkModulationQuantization modulation_quantization; /* of weights alone */
  const char *calibration_path;                     /* with FK_QUANTIZATION_FP8_STATIC; NULL: beside the model */
  bool weight_dither;                               /* the blocks' codes are held twice, rounded to either side */
  bool twins;                                       /* the blocks' matrices are held unquantised too */
  FkPrecision precision;                            /* of each kind of matrix; follows from the rest */
} FkLoadPlan;

/* What one edit runs with. Strings belong to the settings. */
typedef struct {
  FkPreset preset;
  int precision_first, precision_last;  /* evaluations with unquantised weights, at the start and at the end */
  const char *prompt, *negative_prompt; /* negative_prompt NULL: no true CFG */
  const char *loras;                    /* NULL or "": no adapters */
  uint64_t seed;
  int steps, max_sequence_length; /* max_sequence_length 0: the tokenizer's own */
  double guidance, true_cfg_scale;
  double guidance_start, guidance_end; /* of true CFG: shares of the evaluations */
  double strength;                     /* above 0; 1: from pure noise */
  FkSchedulerKind scheduler;
  FkSigmasKind sigmas;
  FkRng rng;
  FkTask task;
  FkSizeMode size_mode;
  FkMaskSource mask;
  const char *mask_path; /* NULL unless `mask` is FK_MASK_PATH */
  const char *mask_type; /* read by who makes a mask of metas; NULL: all */
  bool mask_invert;
  int mask_feather, mask_dilate; /* pixels of the frame */
  FkRegion region;
  const char *references; /* files, as pictures.h splits them; NULL or "": none */
  FkReferenceIds reference_ids;
  int max_area; /* pixels; 0: the square of vae.sample_size */
  bool fused_qkv, flash_attention, fused_codes, cuda_graph, channels_last, vae_tiling, vae_slicing, prompt_cache;
  bool expand_ahead;
  const char *trace_file; /* NULL: none */
  FkCacheTune step_cache;
  FkAttentionPrecision attention_precision;
  int context_reuse;        /* refresh every N evaluations; 1: off */
  int context_reuse_warmup; /* evaluations at the start that compute the context */
  double token_merge;       /* ratio; 0: off */
  int draft;                /* how many times shorter the draft's sides are; 1: none */
  double draft_share;       /* of the steps */
  FkEditedTune edited;
} FkTune;

#endif
