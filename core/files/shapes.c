/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes of a network from its tensors; see shapes.h. Whether all tensors then have the shapes that follow is checked
 * where they are bound. */
#include "shapes.h"

#include "file.h"
#include "fk-error.h"

#include <string.h>

#define MAX_LAYERS 1000
#define HEAD_WIDTH 128 /* of the transformer */
#define CLIP_HEAD 64

typedef struct {
  const FkNames *names;
  FkPart part;
  GError **error;
  bool failed;
} Shapes;

static bool there(const Shapes *s, const char *canonical) {
  FkSource source;
  return fk_names_find(s->names, s->part, canonical, &source);
}

/* Rows (axis 0) or another side of a tensor, from 1 to FK_MAX_DIM. */
static int side(Shapes *s, const char *canonical, int axis) {
  FkSource source;
  if (s->failed) return 1;
  const bool found = fk_names_find(s->names, s->part, canonical, &source);
  int64_t n = !found ? 0 : axis == 0 ? source.rows : source.tensor->rank > axis ? source.tensor->dim[axis] : 0;
  /* Two of its numbers are in a byte. */
  if (found && axis == 1 && source.scale2 && !strcmp(fk_st_type_name(source.tensor), "U8")) n *= 2;
  if (n >= 1 && n <= FK_MAX_DIM) return (int)n;
  s->failed = true;
  g_autofree char *name = fk_names_expected(s->names, s->part, canonical);
  const char *file = fk_component_folder(s->names->part[s->part].component);
  if (!found)
    g_set_error(s->error, FK_ERROR, FK_ERROR_MODEL_MISMATCH, "%s: tensor \"%s\" of %s is missing", file, name,
                fk_part_name(s->part));
  else
    g_set_error(s->error, FK_ERROR, FK_ERROR_MODEL_MISMATCH,
                "%s: tensor \"%s\": expected sides of 1 to %d, found %" G_GINT64_FORMAT, file, name, FK_MAX_DIM,
                (gint64)n);
  return 1;
}

/* Numbers from 0 on for which the name, a printf format of one int, is there. */
static int count(const Shapes *s, const char *format, int most) {
  int n = 0;
  for (; n < most; n++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    g_autofree char *name = g_strdup_printf(format, n);
#pragma GCC diagnostic pop
    if (!there(s, name)) return n;
  }
  return n;
}

static void expect(Shapes *s, const char *what, bool ok, const char *expected, int found) {
  if (ok || s->failed) return;
  s->failed = true;
  g_set_error(s->error, FK_ERROR, FK_ERROR_MODEL_MISMATCH, "%s: %s of %s: expected %s, found %d",
              fk_component_folder(s->names->part[s->part].component), what, fk_part_name(s->part), expected, found);
}

static void flux_shapes(Shapes *s, FkFluxConfig *c) {
  const int width = side(s, "x_embedder.weight", 0);
  c->in_channels = side(s, "x_embedder.weight", 1);
  c->out_channels = side(s, "proj_out.weight", 0);
  c->joint_width = side(s, "context_embedder.weight", 1);
  c->pooled_width = side(s, "time_text_embed.text_embedder.linear_1.weight", 1);
  c->head_width = side(s, "transformer_blocks.0.attn.norm_q.weight", 0);
  c->layers = count(s, "transformer_blocks.%d.attn.norm_q.weight", MAX_LAYERS);
  c->single_layers = count(s, "single_transformer_blocks.%d.attn.norm_q.weight", MAX_LAYERS);
  c->guidance_embeds = there(s, "time_text_embed.guidance_embedder.linear_1.weight");
  c->heads = width / c->head_width;
  expect(s, "width of a head", c->head_width == HEAD_WIDTH, "128 in a file without a configuration", c->head_width);
  expect(s, "width", width % c->head_width == 0, "a multiple of 128", width);
  expect(s, "single-stream blocks", c->single_layers > 0, "at least 1", c->single_layers);
}

static void vae_shapes(Shapes *s, FkVaeConfig *c) {
  c->n_levels = count(s, "encoder.down_blocks.%d.resnets.0.conv1.weight", FK_VAE_MAX_LEVELS);
  c->layers_per_block = count(s, "encoder.down_blocks.0.resnets.%d.conv1.weight", FK_VAE_MAX_RESNETS - 1);
  c->latent_channels = side(s, "decoder.conv_in.weight", 1);
  expect(s, "levels", c->n_levels > 0, "at least 1", c->n_levels);
  for (int i = 0; i < c->n_levels; i++) {
    g_autofree char *name = g_strdup_printf("encoder.down_blocks.%d.resnets.0.conv1.weight", i);
    c->channels[i] = side(s, name, 0);
    expect(s, "channels", c->channels[i] % c->norm_groups == 0, "a multiple of 32", c->channels[i]);
  }
}

static void clip_shapes(Shapes *s, FkClipConfig *c) {
  c->vocab = side(s, "text_model.embeddings.token_embedding.weight", 0);
  c->width = side(s, "text_model.embeddings.token_embedding.weight", 1);
  c->positions = side(s, "text_model.embeddings.position_embedding.weight", 0);
  c->intermediate = side(s, "text_model.encoder.layers.0.mlp.fc1.weight", 0);
  c->layers = count(s, "text_model.encoder.layers.%d.self_attn.q_proj.weight", MAX_LAYERS);
  c->heads = c->width / CLIP_HEAD;
  expect(s, "width", c->width % CLIP_HEAD == 0, "a multiple of 64", c->width);
  expect(s, "positions", c->positions >= 2, "at least 2", c->positions);
}

static void t5_shapes(Shapes *s, FkT5Config *c) {
  const char *bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
  c->vocab = side(s, "shared.weight", 0);
  c->width = side(s, "shared.weight", 1);
  c->buckets = side(s, bias, 0);
  c->heads = side(s, bias, 1);
  const int inner = side(s, "encoder.block.0.layer.0.SelfAttention.q.weight", 0);
  c->kv = inner / c->heads;
  c->ff = side(s, "encoder.block.0.layer.1.DenseReluDense.wi_0.weight", 0);
  c->layers = count(s, "encoder.block.%d.layer.0.SelfAttention.q.weight", MAX_LAYERS);
  expect(s, "width of the heads", inner % c->heads == 0, "a multiple of the number of heads", inner);
  expect(s, "buckets of positions", c->buckets == 32, "32 in a file without a configuration", c->buckets);
  expect(s, "heads", c->heads <= 1024, "at most 1024", c->heads);
}

bool fk_shapes_config(FkConfig *config, const FkNames *names, FkPart part, GError **error) {
  Shapes s = {names, part, error, false};
  FkConfig published;
  fk_config_preset(&published, "kontext-dev");
  switch (part) {
  case FK_PART_CLIP: config->clip = published.clip, clip_shapes(&s, &config->clip); break;
  case FK_PART_T5: config->t5 = published.t5, t5_shapes(&s, &config->t5); break;
  case FK_PART_FLUX: config->flux = published.flux, flux_shapes(&s, &config->flux); break;
  default: config->vae = published.vae, vae_shapes(&s, &config->vae); break;
  }
  return !s.failed;
}
