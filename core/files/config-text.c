/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON files of a checkpoint folder from a configuration; see config.h. Field names are those of config.c, numbers
 * have all the digits that give the same number when they are read. */
#include "config.h"

#include <math.h>
#include <string.h>

static void name(GString *s, const char *field) {
  g_string_append_printf(s, "%s\n  \"%s\": ", s->str[s->len - 1] == '{' ? "" : ",", field);
}

static void integer(GString *s, const char *field, int value) {
  name(s, field);
  g_string_append_printf(s, "%d", value);
}

static void number(GString *s, const char *field, double value) {
  char digits[G_ASCII_DTOSTR_BUF_SIZE];
  name(s, field);
  g_string_append(s, g_ascii_dtostr(digits, sizeof digits, value));
}

static void flag(GString *s, const char *field, bool value) {
  name(s, field);
  g_string_append(s, value ? "true" : "false");
}

static void text(GString *s, const char *field, const char *value) {
  name(s, field);
  g_string_append_printf(s, "\"%s\"", value);
}

static void integers(GString *s, const char *field, const int *values, int n) {
  name(s, field);
  for (int i = 0; i < n; i++) g_string_append_printf(s, "%s%d", i ? ", " : "[", values[i]);
  g_string_append_c(s, ']');
}

static void texts(GString *s, const char *field, const char *value, int n) {
  name(s, field);
  for (int i = 0; i < n; i++) g_string_append_printf(s, "%s\"%s\"", i ? ", " : "[", value);
  g_string_append_c(s, ']');
}

static void write_index(GString *s, const FkConfig *c) {
  static const struct {
    const char *part, *library, *class_name;
  } parts[] = {{"scheduler", "diffusers", "FlowMatchEulerDiscreteScheduler"},
               {"text_encoder", "transformers", "CLIPTextModel"},
               {"text_encoder_2", "transformers", "T5EncoderModel"},
               {"tokenizer", "transformers", "CLIPTokenizer"},
               {"tokenizer_2", "transformers", "T5TokenizerFast"},
               {"transformer", "diffusers", "FluxTransformer2DModel"},
               {"vae", "diffusers", "AutoencoderKL"}};
  text(s, "_class_name", c->pipeline == FK_PIPELINE_FLUX ? "FluxPipeline" : "FluxKontextPipeline");
  for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
    name(s, parts[i].part);
    g_string_append_printf(s, "[\"%s\", \"%s\"]", parts[i].library, parts[i].class_name);
  }
}

static void write_flux(GString *s, const FkFluxConfig *c) {
  text(s, "_class_name", "FluxTransformer2DModel");
  integer(s, "patch_size", c->patch_size);
  integer(s, "in_channels", c->in_channels);
  integer(s, "out_channels", c->out_channels);
  integer(s, "num_layers", c->layers);
  integer(s, "num_single_layers", c->single_layers);
  integer(s, "num_attention_heads", c->heads);
  integer(s, "attention_head_dim", c->head_width);
  integer(s, "joint_attention_dim", c->joint_width);
  integer(s, "pooled_projection_dim", c->pooled_width);
  flag(s, "guidance_embeds", c->guidance_embeds);
  integers(s, "axes_dims_rope", c->axes, 3);
}

static void write_vae(GString *s, const FkVaeConfig *c) {
  text(s, "_class_name", "AutoencoderKL");
  integer(s, "in_channels", c->in_channels);
  integer(s, "out_channels", c->out_channels);
  integers(s, "block_out_channels", c->channels, c->n_levels);
  texts(s, "down_block_types", "DownEncoderBlock2D", c->n_levels);
  texts(s, "up_block_types", "UpDecoderBlock2D", c->n_levels);
  integer(s, "layers_per_block", c->layers_per_block);
  text(s, "act_fn", "silu");
  integer(s, "latent_channels", c->latent_channels);
  integer(s, "norm_num_groups", c->norm_groups);
  integer(s, "sample_size", c->sample_size);
  number(s, "scaling_factor", c->scaling_factor);
  number(s, "shift_factor", c->shift_factor);
  flag(s, "mid_block_add_attention", true);
  flag(s, "use_quant_conv", false);
  flag(s, "use_post_quant_conv", false);
}

static void write_clip(GString *s, const FkClipConfig *c) {
  integer(s, "vocab_size", c->vocab);
  integer(s, "hidden_size", c->width);
  integer(s, "intermediate_size", c->intermediate);
  integer(s, "num_hidden_layers", c->layers);
  integer(s, "num_attention_heads", c->heads);
  integer(s, "max_position_embeddings", c->positions);
  text(s, "hidden_act", c->quick_gelu ? "quick_gelu" : "gelu_new");
  number(s, "layer_norm_eps", (double)c->eps);
  integer(s, "eos_token_id", c->eos_token_id);
}

static void write_t5(GString *s, const FkT5Config *c) {
  integer(s, "vocab_size", c->vocab);
  integer(s, "d_model", c->width);
  integer(s, "d_kv", c->kv);
  integer(s, "d_ff", c->ff);
  integer(s, "num_heads", c->heads);
  integer(s, "num_layers", c->layers);
  text(s, "feed_forward_proj", "gated-gelu");
  number(s, "layer_norm_epsilon", (double)c->eps);
  integer(s, "relative_attention_num_buckets", c->buckets);
  integer(s, "relative_attention_max_distance", c->max_distance);
}

static void write_scheduler(GString *s, const FkSchedulerConfig *c) {
  text(s, "_class_name", "FlowMatchEulerDiscreteScheduler");
  integer(s, "base_image_seq_len", c->base_image_seq_len);
  integer(s, "max_image_seq_len", c->max_image_seq_len);
  integer(s, "num_train_timesteps", c->num_train_timesteps);
  number(s, "base_shift", c->base_shift);
  number(s, "max_shift", c->max_shift);
  number(s, "shift", c->shift);
  if (!isnan(c->shift_terminal)) number(s, "shift_terminal", c->shift_terminal);
  flag(s, "use_dynamic_shifting", c->use_dynamic_shifting);
  flag(s, "use_karras_sigmas", c->use_karras_sigmas);
  flag(s, "use_exponential_sigmas", c->use_exponential_sigmas);
  flag(s, "use_beta_sigmas", c->use_beta_sigmas);
  text(s, "time_shift_type", c->time_shift_type == FK_TIME_SHIFT_LINEAR ? "linear" : "exponential");
}

char *fk_config_text(const FkConfig *c, const char *file) {
  GString *s = g_string_new("{");
  if (!strcmp(file, "model_index.json"))
    write_index(s, c);
  else if (!strcmp(file, "transformer/config.json"))
    write_flux(s, &c->flux);
  else if (!strcmp(file, "vae/config.json"))
    write_vae(s, &c->vae);
  else if (!strcmp(file, "text_encoder/config.json"))
    write_clip(s, &c->clip);
  else if (!strcmp(file, "text_encoder_2/config.json"))
    write_t5(s, &c->t5);
  else if (!strcmp(file, "scheduler/scheduler_config.json"))
    write_scheduler(s, &c->scheduler);
  if (s->len == 1) return g_string_free(s, TRUE), NULL;
  g_string_append(s, "\n}\n");
  return g_string_free(s, FALSE);
}
