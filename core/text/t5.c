/* SPDX-License-Identifier: Apache-2.0 */
/* T5 encoder: RMS-normed blocks with a relative position bias shared by all blocks, gated GELU. Stop "prompt" of the
 * tour. Not here: the tokenizer (tokenizer-t5.c). The bias depends on j - i only, so it travels as one row of 2T - 1
 * values a head instead of a T x T matrix. */
#include "t5.h"

#include "fk-error.h"
#include "number.h"

#include <math.h>

static void bind_block(FkT5Block *l, const FkT5Config *c, FkBinder *b, int i) {
  const int64_t d = c->width, inner = (int64_t)c->heads * c->kv;
  fk_bind_group(b, FK_USE_EACH, "encoder.block.%d", i);
  fk_bind_vector(b, &l->norm0, d, "encoder.block.%d.layer.0.layer_norm.weight", i);
  fk_bind_vector(b, &l->norm1, d, "encoder.block.%d.layer.1.layer_norm.weight", i);
  g_autofree char *q = g_strdup_printf("encoder.block.%d.layer.0.SelfAttention.q", i);
  g_autofree char *k = g_strdup_printf("encoder.block.%d.layer.0.SelfAttention.k", i);
  g_autofree char *v = g_strdup_printf("encoder.block.%d.layer.0.SelfAttention.v", i);
  fk_bind_stack(b, &l->qkv, NULL, FK_ROLE_T5, d, 3, (int64_t[]){inner, inner, inner}, (const char *const[]){q, k, v});
  fk_bind_matrix(b, &l->o, FK_ROLE_T5, d, inner, "encoder.block.%d.layer.0.SelfAttention.o.weight", i);
  g_autofree char *wi_0 = g_strdup_printf("encoder.block.%d.layer.1.DenseReluDense.wi_0", i);
  g_autofree char *wi_1 = g_strdup_printf("encoder.block.%d.layer.1.DenseReluDense.wi_1", i);
  fk_bind_stack(b, &l->wi, NULL, FK_ROLE_T5, d, 2, (int64_t[]){c->ff, c->ff}, (const char *const[]){wi_0, wi_1});
  fk_bind_matrix(b, &l->wo, FK_ROLE_T5, d, c->ff, "encoder.block.%d.layer.1.DenseReluDense.wo.weight", i);
}

void fk_t5_init(FkT5 *t5, const FkT5Config *config, FkBinder *b) {
  *t5 = (FkT5){.config = *config, .blocks = g_new0(FkT5Block, config->layers), .store = fk_binder_store(b)};
  t5->store->once = true;
  fk_bind_group(b, FK_USE_ALWAYS, "embeddings");
  fk_bind_table(b, &t5->embedding, config->vocab, config->width, "shared.weight");
  fk_bind_table(b, &t5->relative_bias, config->buckets, config->heads,
                "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
  for (int i = 0; i < config->layers; i++) bind_block(&t5->blocks[i], config, b, i);
  fk_bind_group(b, FK_USE_ALWAYS, "final_layer_norm");
  fk_bind_vector(b, &t5->final_norm, config->width, "encoder.final_layer_norm.weight");
}

bool fk_t5_prepare(FkT5 *t5, FkBackend *be, GError **error) {
  const FkWeight w = t5->relative_bias;
  const size_t n = (size_t)(w.out * w.in);
  g_autofree uint16_t *half = g_try_new(uint16_t, n);
  g_autofree float *table = g_try_new(float, n);
  g_clear_pointer(&t5->bias_table, g_free);
  if (!half || !table) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "text_encoder_2: the position bias: %zu bytes were refused",
                n * sizeof *table);
    return false;
  }
  fk_op_download(be, w.dtype == FK_F32 ? (void *)table : half, fk_tensor_2d((void *)w.data, w.dtype, w.out, w.in));
  if (!fk_backend_sync(be)) {
    g_set_error(error, FK_ERROR, be->dead ? FK_ERROR_DEVICE_LOST : FK_ERROR_DEVICE,
                "text_encoder_2: the position bias: %s", be->message);
    return false;
  }
  for (size_t i = 0; w.dtype == FK_BF16 && i < n; i++) table[i] = fk_bf16_to_f32(half[i]);
  t5->bias_table = g_steal_pointer(&table);
  return true;
}

void fk_t5_clear(FkT5 *t5) {
  g_clear_pointer(&t5->blocks, g_free);
  g_clear_pointer(&t5->bias_table, g_free);
}

int fk_t5_bucket(int relative, int buckets, int max_distance) {
  const int half = buckets / 2, exact = half / 2, n = abs(relative), base = relative > 0 ? half : 0;
  if (n < exact) return base + n;
  /* float32, as the reference computes it: the thresholds of spec 4.2 follow. */
  const float ratio = logf((float)n / (float)exact) / (float)log((double)max_distance / exact);
  const int far = exact + (int)(ratio * (float)(half - exact));
  return base + (far < half - 1 ? far : half - 1);
}

/* y = x w, added to y under FK_EPI_ADD; the operand of a quantised matrix is quantised row by row. */
static void project(FkBackend *be, FkArena *arena, FkTensor y, FkTensor x, FkWeight w, FkEpilogue epilogue) {
  FkLinear l = {.x = x, .y = y, .w = w, .epilogue = epilogue};
  const size_t mark = fk_arena_mark(arena);
  if (w.scale.kind != FK_SCALE_NONE) {
    l.x = fk_arena_2d(arena, w.dtype, fk_tensor_rows(x), w.in);
    l.x_scale = fk_arena_1d(arena, FK_F32, fk_tensor_rows(x));
    fk_op_quantize(be, l.x, l.x_scale, x);
  }
  fk_op_linear(be, arena, &l, 1);
  fk_arena_reset(arena, mark);
}

static void block(const FkT5 *t5, const FkT5Block *l, FkBackend *be, FkArena *arena, FkTensor x, FkTensor normed,
                  FkTensor wide, FkTensor bias) {
  const FkT5Config *c = &t5->config;
  const int64_t inner = (int64_t)c->heads * c->kv;
  fk_op_rms_norm(be, normed, x, l->norm0, c->eps);
  FkTensor qkv = fk_tensor_slice_cols(wide, 0, 3 * inner), q = fk_tensor_slice_cols(qkv, 0, inner);
  project(be, arena, qkv, normed, l->qkv, FK_EPI_ACT);
  FkAttention a = {.q = q,
                   .k = fk_tensor_slice_cols(qkv, inner, inner),
                   .v = fk_tensor_slice_cols(qkv, 2 * inner, inner),
                   .o = q,
                   .bias = bias,
                   .heads = c->heads,
                   .scale = 1.0f}; /* T5 folds the scale into its initialisation */
  fk_op_attention(be, &a);
  project(be, arena, x, q, l->o, FK_EPI_ADD);
  fk_op_rms_norm(be, normed, x, l->norm1, c->eps);
  FkTensor both = fk_tensor_slice_cols(wide, 0, 2 * c->ff);
  FkTensor gate = fk_tensor_slice_cols(both, 0, c->ff), value = fk_tensor_slice_cols(both, c->ff, c->ff);
  project(be, arena, both, normed, l->wi, FK_EPI_ACT);
  fk_op_act(be, gate, gate, FK_ACT_GELU_TANH);
  fk_op_mul(be, gate, gate, value);
  project(be, arena, x, gate, l->wo, FK_EPI_ADD);
}

/* [heads, 2T - 1] by j - i + T - 1. */
static FkTensor upload_bias(const FkT5 *t5, FkBackend *be, FkArena *arena, int length) {
  const FkT5Config *c = &t5->config;
  const int span = 2 * length - 1;
  FkTensor bias = fk_arena_2d(arena, FK_F32, c->heads, span);
  if (!arena->base) { /* a null walk */
    fk_op_upload(be, bias, NULL);
    return bias;
  }
  g_autofree float *host = g_try_new0(float, (size_t)c->heads *(size_t)span);
  if (!host) fk_backend_fail(be, FK_FAIL_MEMORY, "position bias of %d heads and %d tokens", c->heads, length);
  for (int i = 0; host && i < span && t5->bias_table; i++) {
    const int bucket = fk_t5_bucket(i - (length - 1), c->buckets, c->max_distance);
    for (int h = 0; h < c->heads; h++)
      host[(size_t)h * (size_t)span + (size_t)i] = t5->bias_table[bucket * c->heads + h];
  }
  fk_op_upload(be, bias, host);
  return bias;
}

void fk_t5_encode(const FkT5 *t5, FkBackend *be, FkArena *arena, const int32_t *ids, int length, FkTensor out) {
  const FkT5Config *c = &t5->config;
  const size_t mark = fk_arena_mark(arena);
  const int64_t inner = (int64_t)c->heads * c->kv, wide_cols = MAX(3 * inner, 2 * (int64_t)c->ff);
  FkTensor id = fk_arena_1d(arena, FK_I32, length), bias = upload_bias(t5, be, arena, length);
  FkTensor x = fk_arena_2d(arena, be->dtype, length, c->width),
           normed = fk_arena_2d(arena, be->dtype, length, c->width);
  FkTensor wide = fk_arena_2d(arena, be->dtype, length, wide_cols);
  fk_op_upload(be, id, ids);
  fk_op_embed(be, x, t5->embedding, id);
  /* Blocks may not stay in memory; their groups follow that of the embeddings. A walk on another backend uses none. */
  FkStore *store = fk_store_streams(t5->store) && t5->store->be == be ? t5->store : NULL;
  for (int i = 0; i < c->layers; i++) {
    if (store) fk_store_need(store, 1 + i);
    block(t5, &t5->blocks[i], be, arena, x, normed, wide, bias);
    if (store) fk_store_done(store, 1 + i);
  }
  fk_op_rms_norm(be, out, x, t5->final_norm, c->eps);
  fk_arena_reset(arena, mark);
}
