/* SPDX-License-Identifier: Apache-2.0 */
/* Reads and checks the JSON files of a checkpoint folder; see config.h. The files' own field names stand at each read.
 *
 * A Reader keeps the first error and turns later reads into no-ops, so a loader is a list of its fields.
 * Deliberately not here: tokenizer vocabularies, the tensors' shapes (weights.h). */
#include "config.h"

#include "file.h"
#include "fk-error.h"
#include "json-scan.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#define MAX_JSON_BYTES (1u << 20)
#define MAX_LAYERS 1000
#define MAX_HEADS 1024     /* of attention; published models have 12 to 64 */
#define MAX_HEAD_WIDTH 256 /* of the transformer: the table of rotary angles has a row of it for each token */
#define MAX_BUCKETS 4096   /* of T5's position bias */
#define T5_TOKENS 512      /* the model's limit, spec 1.2 */
#define SCHNELL_TOKENS 256

typedef struct {
  const char *shown; /* the file, for messages */
  FkJsonTree *tree;
  const FkJsonNode *object; /* its top */
  GError **error;
  bool failed;
} Reader;

/* ---- Fields ---- */

G_GNUC_PRINTF(4, 5) static void fail(Reader *r, FkError code, const char *name, const char *format, ...) {
  if (r->failed) return;
  va_list list;
  va_start(list, format);
  g_autofree char *text = g_strdup_vprintf(format, list);
  va_end(list);
  r->failed = true;
  g_set_error(r->error, FK_ERROR, code, "%s: field \"%s\": %s", r->shown, name, text);
}

/* "expected .., found .." with the value as the file has it, shortened. */
static void fail_value(Reader *r, FkError code, const char *name, const FkJsonNode *node, const char *expected) {
  g_autofree char *found = fk_json_shown(node);
  fail(r, code, name, "expected %s, found %s", expected, found);
}

/* The field's value; NULL after a failure, and for an absent or null field, which is a failure when it is required. */
static const FkJsonNode *get(Reader *r, const char *name, bool required) {
  if (r->failed) return NULL;
  const FkJsonNode *node = fk_json_member(r->object, name);
  if (node && node->kind != FK_JSON_NULL) return node;
  if (required) fail(r, FK_ERROR_MODEL_BAD, name, node ? "expected a value, found null" : "is missing");
  return NULL;
}

/* Sizes: a value of the wrong type is malformed, one out of range cannot be run. */
static int to_int(Reader *r, const char *name, const FkJsonNode *node, int min, int max) {
  if (node->kind != FK_JSON_NUMBER || !node->whole)
    return fail_value(r, FK_ERROR_MODEL_BAD, name, node, "a whole number"), 0;
  const int64_t value = fk_json_integer(node);
  if (value >= min && value <= max) return (int)value;
  g_autofree char *expected = g_strdup_printf(min == max ? "%d" : "%d to %d", min, max);
  return fail_value(r, FK_ERROR_MODEL_MISMATCH, name, node, expected), 0;
}

static int int_field(Reader *r, const char *name, int min, int max) {
  const FkJsonNode *node = get(r, name, true);
  return node ? to_int(r, name, node, min, max) : 0;
}

static int int_or(Reader *r, const char *name, int min, int max, int absent) {
  const FkJsonNode *node = get(r, name, false);
  return node ? to_int(r, name, node, min, max) : absent;
}

static double to_number(Reader *r, const char *name, const FkJsonNode *node, double min, double max) {
  if (node->kind != FK_JSON_NUMBER) return fail_value(r, FK_ERROR_MODEL_BAD, name, node, "a number"), 0;
  const double value = fk_json_double(node);
  if (isfinite(value) && value >= min && value <= max) return value;
  g_autofree char *expected = g_strdup_printf("%g to %g", min, max);
  return fail_value(r, FK_ERROR_MODEL_MISMATCH, name, node, expected), 0;
}

static double number_field(Reader *r, const char *name, double min, double max) {
  const FkJsonNode *node = get(r, name, true);
  return node ? to_number(r, name, node, min, max) : 0;
}

static double number_or(Reader *r, const char *name, double min, double max, double absent) {
  const FkJsonNode *node = get(r, name, false);
  return node ? to_number(r, name, node, min, max) : absent;
}

static bool to_bool(Reader *r, const char *name, const FkJsonNode *node) {
  if (node->kind == FK_JSON_TRUE || node->kind == FK_JSON_FALSE) return node->kind == FK_JSON_TRUE;
  return fail_value(r, FK_ERROR_MODEL_BAD, name, node, "true or false"), false;
}

static bool bool_field(Reader *r, const char *name) {
  const FkJsonNode *node = get(r, name, true);
  return node && to_bool(r, name, node);
}

static bool bool_or(Reader *r, const char *name, bool absent) {
  const FkJsonNode *node = get(r, name, false);
  return node ? to_bool(r, name, node) : absent;
}

/* A flag that only runs with one value. */
static void flag_is(Reader *r, const char *name, bool absent, bool wanted) {
  bool value = bool_or(r, name, absent);
  if (!r->failed && value != wanted)
    fail(r, FK_ERROR_MODEL_MISMATCH, name, "expected %s, found %s%s", wanted ? "true" : "false",
         value ? "true" : "false", fk_json_member(r->object, name) ? "" : " (the default of an absent field)");
}

/* The field's text as an index into the NULL-terminated `choices`. absent NULL: required. */
static int choice(Reader *r, const char *name, const char *const *choices, const char *absent) {
  const FkJsonNode *node = get(r, name, !absent);
  if (r->failed) return 0;
  const char *text = node ? fk_json_text(node) : absent;
  if (!text) return fail_value(r, FK_ERROR_MODEL_BAD, name, node, "a string"), 0;
  for (int i = 0; choices[i]; i++)
    if (!strcmp(text, choices[i])) return i;
  g_autofree char *expected = g_strjoinv("\" or \"", (char **)choices), *found = fk_shown_name(text);
  fail(r, FK_ERROR_MODEL_MISMATCH, name, "expected \"%s\", found \"%s\"%s", expected, found,
       node ? "" : " (the default of an absent field)");
  return 0;
}

/* A list of min_n to max_n elements; NULL after a failure and for an absent field that is not required. */
static const FkJsonNode *list_field(Reader *r, const char *name, int min_n, int max_n, bool required) {
  const FkJsonNode *node = get(r, name, required);
  if (!node) return NULL;
  if (node->kind != FK_JSON_LIST) return fail_value(r, FK_ERROR_MODEL_BAD, name, node, "a list"), NULL;
  const int n = (int)node->count;
  if (n >= min_n && n <= max_n) return node;
  fail(r, FK_ERROR_MODEL_MISMATCH, name, "expected %d to %d elements, found %d", min_n, max_n, n);
  return NULL;
}

/* Opens model_path/folder/file for reading fields; close frees what it took. */
static bool open_reader(Reader *r, const char *model_path, const char *folder, const char *file, GError **error) {
  g_autofree char *path = g_build_filename(model_path, folder, file, NULL);
  *r = (Reader){.error = error};
  r->tree = fk_json_load(path, MAX_JSON_BYTES, NULL, error);
  r->object = r->tree ? fk_json_root(r->tree) : NULL;
  r->failed = !r->tree;
  r->shown = fk_shown_path(path);
  return !r->failed;
}

static bool close_reader(Reader *r) {
  fk_json_free(r->tree);
  g_free((char *)r->shown);
  return !r->failed;
}

/* ---- One loader for each file ---- */

/* A component of model_index.json: ["library", "Class"], or null or [null, null] when the pipeline has none. */
static const char *component_class(Reader *r, const char *name, const FkJsonNode *node) {
  if (node->kind == FK_JSON_NULL) return NULL;
  const bool pair = node->kind == FK_JSON_LIST && node->count == 2;
  const FkJsonNode *second = pair ? fk_json_after(node, fk_json_first(node)) : NULL;
  if (second && second->kind == FK_JSON_NULL) return NULL;
  if (fk_json_text(second)) return fk_json_text(second);
  fail_value(r, FK_ERROR_MODEL_BAD, name, node, "[\"library\", \"class\"]");
  return NULL;
}

/* The components that are implemented; a class may have a second name. */
static const struct {
  const char *name, *class_name, *other;
} components[] = {
    {"scheduler", "FlowMatchEulerDiscreteScheduler", NULL},
    {"text_encoder", "CLIPTextModel", NULL},
    {"text_encoder_2", "T5EncoderModel", NULL},
    {"tokenizer", "CLIPTokenizer", "CLIPTokenizerFast"},
    {"tokenizer_2", "T5TokenizerFast", "T5Tokenizer"},
    {"transformer", "FluxTransformer2DModel", NULL},
    {"vae", "AutoencoderKL", NULL},
};

/* A component that is present must be one of `components`: any other would change the result and is not implemented. */
static void check_component(Reader *r, const char *name, const FkJsonNode *node) {
  const char *class_name = component_class(r, name, node);
  if (!class_name) return;
  g_autofree char *found = fk_shown_name(class_name);
  for (size_t i = 0; i < G_N_ELEMENTS(components); i++) {
    if (strcmp(name, components[i].name)) continue;
    if (!g_strcmp0(class_name, components[i].class_name) || !g_strcmp0(class_name, components[i].other)) return;
    fail(r, FK_ERROR_MODEL_MISMATCH, name, "expected class %s, found %s", components[i].class_name, found);
  }
  fail(r, FK_ERROR_MODEL_MISMATCH, name, "expected no such component, found class %s", found);
}

static void load_index(Reader *r, FkPipelineKind *kind) {
  static const char *const classes[] = {"FluxKontextPipeline", "FluxPipeline", NULL};
  *kind = choice(r, "_class_name", classes, NULL) ? FK_PIPELINE_FLUX : FK_PIPELINE_KONTEXT;
  for (size_t i = 0; i < G_N_ELEMENTS(components); i++) {
    const FkJsonNode *node = get(r, components[i].name, true);
    if (node && !component_class(r, components[i].name, node))
      fail(r, FK_ERROR_MODEL_MISMATCH, components[i].name, "expected class %s, found none", components[i].class_name);
  }
  for (const FkJsonNode *it = fk_json_first(r->object); it && !r->failed; it = fk_json_after(r->object, it))
    if (*it->key != '_' && (it->kind == FK_JSON_LIST || it->kind == FK_JSON_OBJECT)) /* plain values are notes */
      check_component(r, it->key, it);
}

static void load_flux(Reader *r, FkFluxConfig *c) {
  c->patch_size = int_or(r, "patch_size", 1, 1, 1);
  c->in_channels = int_field(r, "in_channels", 1, FK_MAX_DIM);
  c->out_channels = int_or(r, "out_channels", 1, FK_MAX_DIM, c->in_channels);
  c->layers = int_field(r, "num_layers", 1, MAX_LAYERS);
  c->single_layers = int_field(r, "num_single_layers", 1, MAX_LAYERS);
  c->heads = int_field(r, "num_attention_heads", 1, MAX_HEADS);
  c->head_width = int_field(r, "attention_head_dim", 1, MAX_HEAD_WIDTH);
  c->joint_width = int_field(r, "joint_attention_dim", 1, FK_MAX_DIM);
  c->pooled_width = int_field(r, "pooled_projection_dim", 1, FK_MAX_DIM);
  c->guidance_embeds = bool_field(r, "guidance_embeds");
  /* FluxTransformer2DModel's default; files older than the field do not have it. */
  static const int axes[3] = {16, 56, 56};
  memcpy(c->axes, axes, sizeof axes);
  const FkJsonNode *list = list_field(r, "axes_dims_rope", 3, 3, false), *it = list ? fk_json_first(list) : NULL;
  int sum = 0;
  for (int i = 0; i < 3; i++) {
    if (list) c->axes[i] = to_int(r, "axes_dims_rope", it, 2, MAX_HEAD_WIDTH);
    if (list) it = fk_json_after(list, it);
    if (c->axes[i] % 2) fail(r, FK_ERROR_MODEL_MISMATCH, "axes_dims_rope", "expected even sizes, found %d", c->axes[i]);
    sum += c->axes[i];
  }
  if (r->failed) return;
  if (c->head_width % 2)
    fail(r, FK_ERROR_MODEL_MISMATCH, "attention_head_dim", "expected an even number, found %d", c->head_width);
  if (sum != c->head_width)
    fail(r, FK_ERROR_MODEL_MISMATCH, "axes_dims_rope", "expected a sum of %d (attention_head_dim), found %d",
         c->head_width, sum);
  if ((gint64)c->heads * c->head_width > FK_MAX_DIM)
    fail(r, FK_ERROR_MODEL_MISMATCH, "num_attention_heads", "expected a width of at most %d, found %d x %d", FK_MAX_DIM,
         c->heads, c->head_width);
}

/* All levels must be of the one kind that the VAE has here. */
static void check_levels(Reader *r, const char *name, int n, const char *kind) {
  const FkJsonNode *list = list_field(r, name, n, n, true);
  for (const FkJsonNode *it = list ? fk_json_first(list) : NULL; it; it = fk_json_after(list, it))
    if (g_strcmp0(fk_json_text(it), kind)) fail_value(r, FK_ERROR_MODEL_MISMATCH, name, it, kind);
}

static void load_vae(Reader *r, FkVaeConfig *c) {
  static const char *const acts[] = {"silu", NULL};
  c->in_channels = int_field(r, "in_channels", 3, 3);
  c->out_channels = int_field(r, "out_channels", 3, 3);
  const FkJsonNode *list = list_field(r, "block_out_channels", 1, FK_VAE_MAX_LEVELS, true);
  for (const FkJsonNode *it = list ? fk_json_first(list) : NULL; it; it = fk_json_after(list, it))
    c->channels[c->n_levels++] = to_int(r, "block_out_channels", it, 1, FK_MAX_DIM);
  check_levels(r, "down_block_types", c->n_levels, "DownEncoderBlock2D");
  check_levels(r, "up_block_types", c->n_levels, "UpDecoderBlock2D");
  c->layers_per_block = int_field(r, "layers_per_block", 1, FK_VAE_MAX_RESNETS - 1);
  choice(r, "act_fn", acts, NULL);
  c->latent_channels = int_field(r, "latent_channels", 1, FK_MAX_DIM);
  c->norm_groups = int_field(r, "norm_num_groups", 1, FK_MAX_DIM);
  c->sample_size = int_field(r, "sample_size", 1, 65536);
  c->scaling_factor = number_field(r, "scaling_factor", 1e-6, 1e6);
  c->shift_factor = number_field(r, "shift_factor", -1e6, 1e6);
  /* AutoencoderKL's defaults for files without the fields: all true. */
  flag_is(r, "mid_block_add_attention", true, true);
  flag_is(r, "use_quant_conv", true, false);
  flag_is(r, "use_post_quant_conv", true, false);
  for (int i = 0; i < c->n_levels && !r->failed; i++)
    if (c->channels[i] % c->norm_groups)
      fail(r, FK_ERROR_MODEL_MISMATCH, "block_out_channels", "expected multiples of %d (norm_num_groups), found %d",
           c->norm_groups, c->channels[i]);
}

static void load_clip(Reader *r, FkClipConfig *c) {
  /* "gelu" alone is the form by erf, which no operation here computes. */
  static const char *const acts[] = {"quick_gelu", "gelu_new", "gelu_pytorch_tanh", NULL};
  c->vocab = int_field(r, "vocab_size", 1, FK_MAX_DIM);
  c->width = int_field(r, "hidden_size", 1, FK_MAX_DIM);
  c->intermediate = int_field(r, "intermediate_size", 1, FK_MAX_DIM);
  c->layers = int_field(r, "num_hidden_layers", 1, MAX_LAYERS);
  c->heads = int_field(r, "num_attention_heads", 1, MAX_HEADS);
  c->positions = int_field(r, "max_position_embeddings", 2, FK_MAX_DIM);
  c->quick_gelu = choice(r, "hidden_act", acts, "quick_gelu") == 0;
  c->eps = (float)number_or(r, "layer_norm_eps", 0, 1, 1e-5);
  c->eos_token_id = int_or(r, "eos_token_id", 0, FK_MAX_DIM, 49407); /* CLIPTextConfig */
  if (!r->failed && c->width % c->heads)
    fail(r, FK_ERROR_MODEL_MISMATCH, "hidden_size", "expected a multiple of %d (num_attention_heads), found %d",
         c->heads, c->width);
}

static void load_t5(Reader *r, FkT5Config *c) {
  static const char *const feed_forward[] = {"gated-gelu", NULL};
  static const char *const acts[] = {"gelu_new", "gelu_pytorch_tanh", NULL}; /* two names of one formula */
  c->vocab = int_field(r, "vocab_size", 1, FK_MAX_DIM);
  c->width = int_field(r, "d_model", 1, FK_MAX_DIM);
  c->kv = int_field(r, "d_kv", 1, FK_MAX_DIM);
  c->ff = int_field(r, "d_ff", 1, FK_MAX_DIM);
  c->heads = int_field(r, "num_heads", 1, MAX_HEADS);
  c->layers = int_field(r, "num_layers", 1, MAX_LAYERS);
  /* T5Config's defaults; "gated-gelu" alone stands for gelu_new. */
  choice(r, "feed_forward_proj", feed_forward, "relu");
  choice(r, "dense_act_fn", acts, "gelu_new");
  flag_is(r, "is_gated_act", true, true);
  c->eps = (float)number_or(r, "layer_norm_epsilon", 0, 1, 1e-6);
  c->buckets = int_or(r, "relative_attention_num_buckets", 4, MAX_BUCKETS, 32);
  c->max_distance = int_or(r, "relative_attention_max_distance", 2, FK_MAX_DIM, 128);
  if (r->failed) return;
  if (c->buckets % 4)
    fail(r, FK_ERROR_MODEL_MISMATCH, "relative_attention_num_buckets", "expected a multiple of 4, found %d",
         c->buckets);
  if (c->max_distance <= c->buckets / 4) /* distances up to buckets / 4 have a bucket each */
    fail(r, FK_ERROR_MODEL_MISMATCH, "relative_attention_max_distance", "expected more than %d, found %d",
         c->buckets / 4, c->max_distance);
  if ((gint64)c->heads * c->kv > FK_MAX_DIM)
    fail(r, FK_ERROR_MODEL_MISMATCH, "num_heads", "expected a width of at most %d, found %d x %d", FK_MAX_DIM, c->heads,
         c->kv);
}

/* FlowMatchEulerDiscreteScheduler's defaults stand for absent fields: files are as old as the release that wrote them.
 */
static void load_scheduler(Reader *r, FkSchedulerConfig *c) {
  static const char *const shifts[] = {"exponential", "linear", NULL};
  c->base_image_seq_len = int_or(r, "base_image_seq_len", 1, FK_MAX_DIM, 256);
  c->max_image_seq_len = int_or(r, "max_image_seq_len", 1, FK_MAX_DIM, 4096);
  c->num_train_timesteps = int_or(r, "num_train_timesteps", 1, FK_MAX_DIM, 1000);
  c->base_shift = number_or(r, "base_shift", -100, 100, 0.5);
  c->max_shift = number_or(r, "max_shift", -100, 100, 1.15);
  c->shift = number_or(r, "shift", 1e-6, 1e6, 1.0);
  c->shift_terminal = number_or(r, "shift_terminal", 0, 0.999999, NAN);
  if (c->shift_terminal == 0) c->shift_terminal = NAN; /* the class takes 0 for none, too */
  c->use_dynamic_shifting = bool_or(r, "use_dynamic_shifting", false);
  c->use_karras_sigmas = bool_or(r, "use_karras_sigmas", false);
  c->use_exponential_sigmas = bool_or(r, "use_exponential_sigmas", false);
  c->use_beta_sigmas = bool_or(r, "use_beta_sigmas", false);
  c->time_shift_type =
      choice(r, "time_shift_type", shifts, "exponential") ? FK_TIME_SHIFT_LINEAR : FK_TIME_SHIFT_EXPONENTIAL;
  flag_is(r, "invert_sigmas", false, false);
  flag_is(r, "stochastic_sampling", false, false);
  if (c->use_karras_sigmas + c->use_exponential_sigmas + c->use_beta_sigmas > 1)
    fail(r, FK_ERROR_MODEL_MISMATCH, "use_karras_sigmas",
         "expected at most one of use_karras_sigmas, "
         "use_exponential_sigmas and use_beta_sigmas, found more");
  if (!r->failed && c->max_image_seq_len == c->base_image_seq_len)
    fail(r, FK_ERROR_MODEL_MISMATCH, "max_image_seq_len", "expected another number than base_image_seq_len, found %d",
         c->max_image_seq_len);
}

/* The tokenizer's limit, at most `most`. Tokenizers that take any length lack the field, or have 10^30 in it. Two
 * tokens have room for the begin and the end of an empty prompt. */
static int token_limit(Reader *r, int most) {
  const FkJsonNode *node = get(r, "model_max_length", false);
  if (!node) return most;
  const int64_t limit = node->kind == FK_JSON_NUMBER && node->whole ? fk_json_integer(node) : 0;
  if (limit < 2) fail_value(r, FK_ERROR_MODEL_BAD, "model_max_length", node, "a whole number of at least 2");
  return (int)MIN(limit, most);
}

/* ---- All of them ---- */

/* Values of two files that must agree. */
static bool agree(const char *model_path, const char *file, const char *field, int found, const char *other_file,
                  const char *other_field, int expected, GError **error) {
  if (found == expected) return true;
  g_autofree char *shown = fk_shown_path(model_path);
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_MISMATCH, "%s: field \"%s\" of %s: expected %d by \"%s\" of %s, found %d",
              shown, field, file, expected, other_field, other_file, found);
  return false;
}

static bool check_parts_agree(const FkConfig *c, const char *path, GError **error) {
  const char *flux = "transformer/config.json", *vae = "vae/config.json";
  const int token = 4 * c->vae.latent_channels; /* a token is 2 x 2 latent pixels */
  return agree(path, flux, "in_channels", c->flux.in_channels, vae, "latent_channels", token, error) &&
         agree(path, flux, "out_channels", c->flux.out_channels, vae, "latent_channels", token, error) &&
         agree(path, flux, "pooled_projection_dim", c->flux.pooled_width, "text_encoder/config.json", "hidden_size",
               c->clip.width, error) &&
         agree(path, flux, "joint_attention_dim", c->flux.joint_width, "text_encoder_2/config.json", "d_model",
               c->t5.width, error);
}

#define LOAD(top, folder, file, ...)                                                                                   \
  do {                                                                                                                 \
    Reader r;                                                                                                          \
    if (open_reader(&r, top, folder, file, error)) __VA_ARGS__;                                                        \
    if (!close_reader(&r)) return false;                                                                               \
  } while (0)

bool fk_config_load_part(FkConfig *c, FkPart part, const char *folder, GError **error) {
  switch (part) {
  case FK_PART_CLIP:
    c->clip = (FkClipConfig){0};
    LOAD(folder, "", "config.json", load_clip(&r, &c->clip));
    return true;
  case FK_PART_T5:
    c->t5 = (FkT5Config){0};
    LOAD(folder, "", "config.json", load_t5(&r, &c->t5));
    return true;
  case FK_PART_FLUX:
    c->flux = (FkFluxConfig){0};
    LOAD(folder, "", "config.json", load_flux(&r, &c->flux));
    return true;
  default:
    c->vae = (FkVaeConfig){0};
    LOAD(folder, "", "config.json", load_vae(&r, &c->vae));
    return true;
  }
}

bool fk_config_load_tokenizers(FkConfig *c, const char *folder, GError **error) {
  LOAD(folder, "tokenizer", "tokenizer_config.json", c->clip.max_tokens = token_limit(&r, c->clip.positions));
  LOAD(folder, "tokenizer_2", "tokenizer_config.json", c->t5.max_tokens = token_limit(&r, T5_TOKENS));
  return true;
}

bool fk_config_load_pipeline(FkConfig *c, const char *folder, GError **error) {
  LOAD(folder, "", "model_index.json", load_index(&r, &c->pipeline));
  LOAD(folder, "scheduler", "scheduler_config.json", load_scheduler(&r, &c->scheduler));
  return true;
}
#undef LOAD

bool fk_config_agree(const FkConfig *c, const char *path, GError **error) {
  return check_parts_agree(c, path, error);
}

bool fk_config_load(FkConfig *config, const char *model_path, GError **error) {
  FkConfig c = {0};
  if (!fk_config_load_pipeline(&c, model_path, error)) return false;
  static const FkPart order[] = {FK_PART_FLUX, FK_PART_VAE, FK_PART_CLIP, FK_PART_T5};
  for (size_t i = 0; i < G_N_ELEMENTS(order); i++) {
    g_autofree char *folder = g_build_filename(model_path, fk_part_name(order[i]), NULL);
    if (!fk_config_load_part(&c, order[i], folder, error)) return false;
  }
  if (!fk_config_load_tokenizers(&c, model_path, error) || !check_parts_agree(&c, model_path, error)) return false;
  *config = c;
  return true;
}

/* The values of spec 1.2. */
static const FkConfig kontext_dev = {
    .pipeline = FK_PIPELINE_KONTEXT,
    .flux = {.patch_size = 1,
             .in_channels = 64,
             .out_channels = 64,
             .layers = 19,
             .single_layers = 38,
             .heads = 24,
             .head_width = 128,
             .joint_width = 4096,
             .pooled_width = 768,
             .guidance_embeds = true,
             .axes = {16, 56, 56}},
    .vae = {.in_channels = 3,
            .out_channels = 3,
            .n_levels = 4,
            .channels = {128, 256, 512, 512},
            .layers_per_block = 2,
            .latent_channels = 16,
            .norm_groups = 32,
            .sample_size = 1024,
            .scaling_factor = 0.3611,
            .shift_factor = 0.1159},
    .clip = {.vocab = 49408,
             .width = 768,
             .intermediate = 3072,
             .layers = 12,
             .heads = 12,
             .positions = 77,
             .quick_gelu = true,
             .eps = 1e-5f,
             .eos_token_id = 2,
             .max_tokens = 77},
    .t5 = {.vocab = 32128,
           .width = 4096,
           .kv = 64,
           .ff = 10240,
           .heads = 64,
           .layers = 24,
           .eps = 1e-6f,
           .buckets = 32,
           .max_distance = 128,
           .max_tokens = T5_TOKENS},
    .scheduler = {.base_image_seq_len = 256,
                  .max_image_seq_len = 4096,
                  .num_train_timesteps = 1000,
                  .base_shift = 0.5,
                  .max_shift = 1.15,
                  .shift = 3.0,
                  .shift_terminal = NAN,
                  .use_dynamic_shifting = true,
                  .time_shift_type = FK_TIME_SHIFT_EXPONENTIAL},
};

bool fk_config_preset(FkConfig *config, const char *name) {
  const bool schnell = !strcmp(name, "schnell"), kontext = !strcmp(name, "kontext-dev");
  if (!schnell && !kontext && strcmp(name, "dev")) return false;
  *config = kontext_dev;
  if (!kontext) config->pipeline = FK_PIPELINE_FLUX;
  if (!schnell) return true;
  /* The distilled model: no guidance input, a fixed schedule, 256 text tokens. */
  config->flux.guidance_embeds = false;
  config->t5.max_tokens = SCHNELL_TOKENS;
  config->scheduler.shift = 1.0;
  config->scheduler.use_dynamic_shifting = false;
  return true;
}
