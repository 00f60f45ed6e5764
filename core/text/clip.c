/* SPDX-License-Identifier: Apache-2.0 */
/* CLIP text tower: embeddings, pre-norm blocks with causal attention, final norm, pooled row. Stop "prompt" of the
 * tour. Not here: the tokenizer (tokenizer-clip.c) and the text projection, which this pipeline does not use. */
#include "clip.h"

#include <glib.h>
#include <math.h>

static void bind_layer(FkClipLayer *l, const FkClipConfig *c, FkBinder *b, int i) {
  const int64_t d = c->width, ff = c->intermediate;
  g_autofree char *p = g_strdup_printf("text_model.encoder.layers.%d", i);
  g_autofree char *q = g_strconcat(p, ".self_attn.q_proj", NULL), *k = g_strconcat(p, ".self_attn.k_proj", NULL);
  g_autofree char *v = g_strconcat(p, ".self_attn.v_proj", NULL);
  fk_bind_group(b, FK_USE_ALWAYS, "%s", p);
  fk_bind_vector(b, &l->norm1, d, "%s.layer_norm1.weight", p);
  fk_bind_vector(b, &l->norm1_bias, d, "%s.layer_norm1.bias", p);
  fk_bind_vector(b, &l->norm2, d, "%s.layer_norm2.weight", p);
  fk_bind_vector(b, &l->norm2_bias, d, "%s.layer_norm2.bias", p);
  fk_bind_stack(b, &l->qkv, &l->qkv_bias, FK_ROLE_CLIP, d, 3, (int64_t[]){d, d, d}, (const char *const[]){q, k, v});
  fk_bind_matrix(b, &l->out, FK_ROLE_CLIP, d, d, "%s.self_attn.out_proj.weight", p);
  fk_bind_vector(b, &l->out_bias, d, "%s.self_attn.out_proj.bias", p);
  fk_bind_matrix(b, &l->fc1, FK_ROLE_CLIP, ff, d, "%s.mlp.fc1.weight", p);
  fk_bind_vector(b, &l->fc1_bias, ff, "%s.mlp.fc1.bias", p);
  fk_bind_matrix(b, &l->fc2, FK_ROLE_CLIP, d, ff, "%s.mlp.fc2.weight", p);
  fk_bind_vector(b, &l->fc2_bias, d, "%s.mlp.fc2.bias", p);
}

void fk_clip_init(FkClip *clip, const FkClipConfig *config, FkBinder *b) {
  const int64_t d = config->width;
  *clip = (FkClip){.config = *config, .layers = g_new0(FkClipLayer, config->layers)};
  fk_bind_group(b, FK_USE_ALWAYS, "embeddings");
  fk_bind_table(b, &clip->token_embedding, config->vocab, d, "text_model.embeddings.token_embedding.weight");
  fk_bind_table(b, &clip->position_embedding, config->positions, d, "text_model.embeddings.position_embedding.weight");
  for (int i = 0; i < config->layers; i++) bind_layer(&clip->layers[i], config, b, i);
  fk_bind_group(b, FK_USE_ALWAYS, "final_layer_norm");
  fk_bind_vector(b, &clip->final_norm, d, "text_model.final_layer_norm.weight");
  fk_bind_vector(b, &clip->final_norm_bias, d, "text_model.final_layer_norm.bias");
}

void fk_clip_clear(FkClip *clip) {
  g_clear_pointer(&clip->layers, g_free);
}

static void norm(FkBackend *be, FkTensor y, FkTensor x, FkTensor weight, FkTensor bias, float eps) {
  FkLayerNorm n = {.x = x, .y = y, .weight = weight, .bias = bias, .eps = eps};
  fk_op_layer_norm(be, NULL, &n, 1);
}

static void layer(const FkClip *clip, const FkClipLayer *l, FkBackend *be, FkArena *arena, FkTensor x, FkTensor normed,
                  FkTensor wide) {
  const FkClipConfig *c = &clip->config;
  const int64_t d = c->width;
  norm(be, normed, x, l->norm1, l->norm1_bias, c->eps);
  FkTensor qkv = fk_tensor_slice_cols(wide, 0, 3 * d);
  fk_op_project(be, arena, qkv, normed, l->qkv, l->qkv_bias, FK_EPI_ACT, FK_ACT_NONE);
  FkTensor q = fk_tensor_slice_cols(qkv, 0, d);
  const int64_t head = d / c->heads;
  FkAttention a = {.q = q,
                   .k = fk_tensor_slice_cols(qkv, d, d),
                   .v = fk_tensor_slice_cols(qkv, 2 * d, d),
                   .o = q,
                   .heads = c->heads,
                   .scale = 1.0f / sqrtf((float)head),
                   .causal = true};
  fk_op_attention(be, &a);
  fk_op_project(be, arena, x, q, l->out, l->out_bias, FK_EPI_ADD, FK_ACT_NONE);
  norm(be, normed, x, l->norm2, l->norm2_bias, c->eps);
  FkTensor hidden = fk_tensor_slice_cols(wide, 0, c->intermediate);
  fk_op_project(be, arena, hidden, normed, l->fc1, l->fc1_bias, FK_EPI_ACT,
                c->quick_gelu ? FK_ACT_QUICK_GELU : FK_ACT_GELU_TANH);
  fk_op_project(be, arena, x, hidden, l->fc2, l->fc2_bias, FK_EPI_ADD, FK_ACT_NONE);
}

/* Position of the pooled row: legacy configurations (eos_token_id 2) take the largest id, others the first eos. */
static int pooled_position(const FkClipConfig *c, const int32_t *ids, int length) {
  int best = 0;
  for (int i = 0; i < length; i++) {
    if (c->eos_token_id != 2 && ids[i] == c->eos_token_id) return i;
    if (c->eos_token_id == 2 && ids[i] > ids[best]) best = i;
  }
  return best;
}

void fk_clip_encode(const FkClip *clip, FkBackend *be, FkArena *arena, const int32_t *ids, int length,
                    FkTensor pooled) {
  const FkClipConfig *c = &clip->config;
  const size_t mark = fk_arena_mark(arena);
  /* Attention is causal, so rows after the pooled one cannot reach it. */
  const int rows = pooled_position(c, ids, length) + 1;
  const int64_t wide_cols = 3 * c->width > c->intermediate ? 3 * c->width : c->intermediate;
  FkTensor id = fk_arena_1d(arena, FK_I32, rows);
  FkTensor x = fk_arena_2d(arena, be->dtype, rows, c->width), normed = fk_arena_2d(arena, be->dtype, rows, c->width);
  FkTensor wide = fk_arena_2d(arena, be->dtype, rows, wide_cols);
  fk_op_upload(be, id, ids);
  fk_op_embed(be, x, clip->token_embedding, id);
  FkWeight p = clip->position_embedding;
  fk_op_add(be, x, x, fk_tensor_2d((void *)p.data, p.dtype, rows, p.in));
  for (int i = 0; i < c->layers; i++) layer(clip, &clip->layers[i], be, arena, x, normed, wide);
  norm(be, pooled, fk_tensor_slice_rows(x, rows - 1, 1), clip->final_norm, clip->final_norm_bias, c->eps);
  fk_arena_reset(arena, mark);
}
