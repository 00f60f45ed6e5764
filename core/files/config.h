/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON files of a checkpoint folder as plain structs: every value that changes arithmetic (spec 1.2).
 *
 * Values are read, never assumed: a missing field is an error unless the class that wrote the file (diffusers,
 * transformers) documents a default for files without it. Values that no code here implements are errors that name the
 * field. */
#ifndef FK_CONFIG_H
#define FK_CONFIG_H

#include "names.h"

#include <glib.h>
#include <stdbool.h>

#define FK_MAX_DIM 1000000 /* every size in a configuration is at most this */
#define FK_VAE_MAX_LEVELS 8
#define FK_VAE_MAX_RESNETS 8 /* of a level; the decoder has layers_per_block + 1 */

typedef enum {
  FK_PIPELINE_KONTEXT, /* FluxKontextPipeline */
  FK_PIPELINE_FLUX     /* FluxPipeline: no context image */
} FkPipelineKind;

typedef struct {
  int patch_size;                /* 1 */
  int in_channels, out_channels; /* of one token: 4 * latent channels */
  int layers, single_layers;     /* double-stream and single-stream blocks */
  int heads, head_width;         /* model width = heads * head_width */
  int joint_width, pooled_width; /* of the T5 and the CLIP vectors */
  bool guidance_embeds;
  int axes[3]; /* head channels per position axis; their sum is head_width */
} FkFluxConfig;

/* With attention in the middle and without the two quant convolutions: other kinds are refused. */
typedef struct {
  int in_channels, out_channels; /* 3 */
  int n_levels;
  int channels[FK_VAE_MAX_LEVELS]; /* per level, full resolution first */
  int layers_per_block; /* residual blocks per encoder level, at most FK_VAE_MAX_RESNETS - 1; the decoder has one more
                         */
  int latent_channels;
  int norm_groups;
  int sample_size; /* pixels of a side it was trained at */
  double scaling_factor, shift_factor;
} FkVaeConfig;

typedef struct {
  int vocab, width, intermediate, layers, heads, positions;
  bool quick_gelu; /* false: gelu by tanh */
  float eps;
  int eos_token_id; /* 2: the pooled row is the highest id's, not the first eos (spec 4.1) */
  int max_tokens;   /* model_max_length of its tokenizer, at most `positions` */
} FkClipConfig;

typedef struct {
  int vocab, width, kv, ff, heads, layers; /* kv: width of one head; heads * kv need not be width */
  float eps;
  int buckets, max_distance; /* of the relative position bias */
  int max_tokens;            /* model_max_length of its tokenizer, at most 512 */
} FkT5Config;

typedef enum { FK_TIME_SHIFT_EXPONENTIAL, FK_TIME_SHIFT_LINEAR } FkTimeShift;

/* scheduler/scheduler_config.json, under the file's field names. */
typedef struct {
  int base_image_seq_len, max_image_seq_len, num_train_timesteps;
  double base_shift, max_shift, shift;
  double shift_terminal; /* NAN: none */
  bool use_dynamic_shifting, use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas;
  FkTimeShift time_shift_type;
} FkSchedulerConfig;

typedef struct {
  FkPipelineKind pipeline;
  FkFluxConfig flux;
  FkVaeConfig vae;
  FkClipConfig clip;
  FkT5Config t5;
  FkSchedulerConfig scheduler;
} FkConfig;

/* Reads and checks all configurations of the folder `model_path`. FK_ERROR_MODEL_MISSING or _DENIED; _BAD for malformed
 * files and missing or mistyped fields; _MISMATCH for values that cannot be run and files that contradict each other.
 * The message has file, field, expected and found value. */
bool fk_config_load(FkConfig *config, const char *model_path, GError **error);
/* The same in pieces, for models whose files are in several places. part: the configuration in `folder`/config.json.
 * tokenizers: lengths, from `folder`/tokenizer and tokenizer_2. pipeline: kind and schedule, of a model's folder.
 * agree: the parts with each other; `path` is for the message. */
bool fk_config_load_part(FkConfig *config, FkPart part, const char *folder, GError **error);
bool fk_config_load_tokenizers(FkConfig *config, const char *folder, GError **error);
bool fk_config_load_pipeline(FkConfig *config, const char *folder, GError **error);
bool fk_config_agree(const FkConfig *config, const char *path, GError **error);
/* The text of one of the folder's files, by its name below it, that is read to the same configuration:
 * model_index.json, config.json of a part, scheduler/scheduler_config.json; NULL for others. (transfer full) */
char *fk_config_text(const FkConfig *config, const char *file);
/* Published configurations without any file: "kontext-dev", "dev", "schnell". False for other names. */
bool fk_config_preset(FkConfig *config, const char *name);

#endif
