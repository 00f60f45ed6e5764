/* SPDX-License-Identifier: Apache-2.0 */
/* The autoencoder: encoder and decoder as written in the paper's order, resnet and attention blocks shared by both.
 * Stops "VAE encode" and "VAE decode" of the tour. Not here: tiles and their blending (vae-tiles.c), latent scaling
 * (pack and unpack of the op line), pixels (image.c). */
#include "vae-half.h"

#include <glib.h>
#include <math.h>

static const float gn_eps = 1e-6f; /* spec 5 */

static void bind_norm(FkBinder *b, FkTensor *weight, FkTensor *bias, int64_t n, const char *name) {
  fk_bind_vector(b, weight, n, "%s.weight", name);
  fk_bind_vector(b, bias, n, "%s.bias", name);
}

static void bind_conv(FkBinder *b, FkWeight *w, FkTensor *bias, int64_t out, int64_t in, int kernel, const char *name) {
  fk_bind_conv(b, w, out, in, kernel, "%s.weight", name);
  fk_bind_vector(b, bias, out, "%s.bias", name);
}

static void bind_resnet(FkBinder *b, FkVaeResnet *r, int64_t in, int64_t out, const char *name) {
  g_autofree char *norm1 = g_strconcat(name, ".norm1", NULL), *conv1 = g_strconcat(name, ".conv1", NULL);
  g_autofree char *norm2 = g_strconcat(name, ".norm2", NULL), *conv2 = g_strconcat(name, ".conv2", NULL);
  g_autofree char *shortcut = g_strconcat(name, ".conv_shortcut", NULL);
  bind_norm(b, &r->norm1, &r->norm1_bias, in, norm1);
  bind_conv(b, &r->conv1, &r->conv1_bias, out, in, 3, conv1);
  bind_norm(b, &r->norm2, &r->norm2_bias, out, norm2);
  bind_conv(b, &r->conv2, &r->conv2_bias, out, out, 3, conv2);
  if (in != out) bind_conv(b, &r->shortcut, &r->shortcut_bias, out, in, 1, shortcut);
}

static void bind_middle(FkBinder *b, FkVaeHalf *h, int64_t d, const char *half) {
  g_autofree char *first = g_strconcat(half, ".mid_block.resnets.0", NULL);
  g_autofree char *second = g_strconcat(half, ".mid_block.resnets.1", NULL);
  g_autofree char *norm = g_strconcat(half, ".mid_block.attentions.0.group_norm", NULL);
  g_autofree char *q = g_strconcat(half, ".mid_block.attentions.0.to_q", NULL);
  g_autofree char *k = g_strconcat(half, ".mid_block.attentions.0.to_k", NULL);
  g_autofree char *v = g_strconcat(half, ".mid_block.attentions.0.to_v", NULL);
  bind_resnet(b, &h->mid[0], d, d, first);
  bind_resnet(b, &h->mid[1], d, d, second);
  bind_norm(b, &h->attention.norm, &h->attention.norm_bias, d, norm);
  fk_bind_stack(b, &h->attention.qkv, &h->attention.qkv_bias, FK_ROLE_CONV, d, 3, (int64_t[]){d, d, d},
                (const char *const[]){q, k, v});
  fk_bind_matrix(b, &h->attention.out, FK_ROLE_CONV, d, d, "%s.mid_block.attentions.0.to_out.0.weight", half);
  fk_bind_vector(b, &h->attention.out_bias, d, "%s.mid_block.attentions.0.to_out.0.bias", half);
}

static void bind_encoder(FkBinder *b, FkVaeHalf *h, const FkVaeConfig *c) {
  h->levels = c->n_levels;
  h->resnets = c->layers_per_block;
  bind_conv(b, &h->conv_in, &h->conv_in_bias, c->channels[0], c->in_channels, 3, "encoder.conv_in");
  int64_t in = c->channels[0];
  for (int i = 0; i < c->n_levels; i++) {
    h->channels[i] = c->channels[i];
    for (int j = 0; j < h->resnets; j++) {
      g_autofree char *name = g_strdup_printf("encoder.down_blocks.%d.resnets.%d", i, j);
      bind_resnet(b, &h->resnet[i][j], in, c->channels[i], name);
      in = c->channels[i];
    }
    if (i == c->n_levels - 1) break;
    g_autofree char *name = g_strdup_printf("encoder.down_blocks.%d.downsamplers.0.conv", i);
    bind_conv(b, &h->resample[i], &h->resample_bias[i], in, in, 3, name);
  }
  bind_middle(b, h, in, "encoder");
  bind_norm(b, &h->norm_out, &h->norm_out_bias, in, "encoder.conv_norm_out");
  bind_conv(b, &h->conv_out, &h->conv_out_bias, 2 * c->latent_channels, in, 3, "encoder.conv_out");
}

static void bind_decoder(FkBinder *b, FkVaeHalf *h, const FkVaeConfig *c) {
  h->levels = c->n_levels;
  h->resnets = c->layers_per_block + 1;
  int64_t in = c->channels[c->n_levels - 1];
  bind_conv(b, &h->conv_in, &h->conv_in_bias, in, c->latent_channels, 3, "decoder.conv_in");
  bind_middle(b, h, in, "decoder");
  for (int i = 0; i < c->n_levels; i++) {
    h->channels[i] = c->channels[c->n_levels - 1 - i];
    for (int j = 0; j < h->resnets; j++) {
      g_autofree char *name = g_strdup_printf("decoder.up_blocks.%d.resnets.%d", i, j);
      bind_resnet(b, &h->resnet[i][j], in, h->channels[i], name);
      in = h->channels[i];
    }
    if (i == c->n_levels - 1) break;
    g_autofree char *name = g_strdup_printf("decoder.up_blocks.%d.upsamplers.0.conv", i);
    bind_conv(b, &h->resample[i], &h->resample_bias[i], in, in, 3, name);
  }
  bind_norm(b, &h->norm_out, &h->norm_out_bias, in, "decoder.conv_norm_out");
  bind_conv(b, &h->conv_out, &h->conv_out_bias, c->out_channels, in, 3, "decoder.conv_out");
}

void fk_vae_init(FkVae *vae, const FkVaeConfig *config, FkBinder *binder) {
  *vae = (FkVae){.config = *config};
  fk_bind_group(binder, FK_USE_ALWAYS, "encoder");
  bind_encoder(binder, &vae->encoder, config);
  fk_bind_group(binder, FK_USE_ALWAYS, "decoder");
  bind_decoder(binder, &vae->decoder, config);
}

int fk_vae_factor(const FkVae *vae) {
  return 1 << (vae->config.n_levels - 1);
}

/* Three buffers serve the whole half: x holds the current map, a what is made of it, each as large as the largest map;
 * b holds what is inside a resnet, which has its result's channels only (half as much at the decoder's widest map). */
typedef struct {
  FkBackend *be;
  FkArena *arena;
  void *x, *a, *b;
  int64_t h, w, c; /* of x */
  int groups;
} Maps;

static FkTensor map(const Maps *m, void *data, int64_t c) {
  return fk_tensor_3d(data, m->be->dtype, m->h, m->w, c);
}

static void swap(void **a, void **b) {
  void *t = *a;
  *a = *b;
  *b = t;
}

static void group_norm(const Maps *m, FkTensor y, FkTensor x, FkTensor weight, FkTensor bias, bool silu) {
  FkGroupNorm n = {.x = x, .y = y, .weight = weight, .bias = bias, .groups = m->groups, .eps = gn_eps, .silu = silu};
  fk_op_group_norm(m->be, &n);
}

static void conv3(const Maps *m, FkTensor y, FkTensor x, FkWeight w, FkTensor bias, FkTensor residual) {
  FkConv c = {.x = x,
              .y = y,
              .bias = bias,
              .residual = residual,
              .w = w,
              .kernel = 3,
              .stride = 1,
              .pad_before = 1,
              .pad_after = 1};
  fk_op_conv(m->be, m->arena, &c);
}

static void resnet(Maps *m, const FkVaeResnet *r) {
  const int64_t out = r->conv1.out;
  FkTensor x = map(m, m->x, m->c), b = map(m, m->b, out), a = map(m, m->a, out);
  group_norm(m, map(m, m->a, m->c), x, r->norm1, r->norm1_bias, true);
  conv3(m, b, map(m, m->a, m->c), r->conv1, r->conv1_bias, fk_tensor_none());
  group_norm(m, b, b, r->norm2, r->norm2_bias, true);
  if (!r->shortcut.out) {
    conv3(m, a, b, r->conv2, r->conv2_bias, x);
    swap(&m->x, &m->a);
    return;
  }
  FkConv c = {.x = x, .y = a, .bias = r->shortcut_bias, .w = r->shortcut, .kernel = 1, .stride = 1};
  fk_op_conv(m->be, m->arena, &c);
  conv3(m, map(m, m->x, out), b, r->conv2, r->conv2_bias, a);
  m->c = out;
}

/* Single head over all positions, head width = channels. */
static void attention(Maps *m, const FkVaeAttention *t) {
  FkTensor x = fk_tensor_flat(map(m, m->x, m->c)), normed = fk_tensor_flat(map(m, m->b, m->c));
  const size_t mark = fk_arena_mark(m->arena);
  FkTensor qkv = fk_arena_2d(m->arena, m->be->dtype, m->h * m->w, 3 * m->c);
  group_norm(m, map(m, m->b, m->c), map(m, m->x, m->c), t->norm, t->norm_bias, false);
  FkLinear in = {.x = normed, .y = qkv, .w = t->qkv, .bias = t->qkv_bias, .epilogue = FK_EPI_ACT};
  fk_op_linear(m->be, m->arena, &in, 1);
  FkTensor q = fk_tensor_slice_cols(qkv, 0, m->c);
  FkAttention a = {.q = q,
                   .k = fk_tensor_slice_cols(qkv, m->c, m->c),
                   .v = fk_tensor_slice_cols(qkv, 2 * m->c, m->c),
                   .o = q,
                   .heads = 1,
                   .scale = 1.0f / sqrtf((float)m->c)};
  fk_op_attention(m->be, &a);
  FkLinear out = {.x = q, .y = x, .w = t->out, .bias = t->out_bias, .epilogue = FK_EPI_ADD};
  fk_op_linear(m->be, m->arena, &out, 1);
  fk_arena_reset(m->arena, mark);
}

static void middle(Maps *m, const FkVaeHalf *h) {
  resnet(m, &h->mid[0]);
  attention(m, &h->attention);
  resnet(m, &h->mid[1]);
}

/* Elements of the largest map that the half passes through for an input of rows x cols; `inside`: inside its resnets.
 */
static int64_t largest_map(const FkVaeHalf *h, int64_t rows, int64_t cols, bool up, bool inside) {
  int64_t best = rows * cols * h->conv_in.out, in = h->conv_in.out;
  for (int i = 0; i < h->levels; i++) {
    const int64_t c = inside ? h->channels[i] : MAX(h->channels[i], in);
    best = MAX(best, rows * cols * c);
    in = h->channels[i];
    if (!h->resample[i].out) break;
    rows = up ? rows * 2 : rows / 2;
    cols = up ? cols * 2 : cols / 2;
    if (!inside) best = MAX(best, rows * cols * in);
  }
  return best;
}

static Maps maps_new(const FkVae *vae, const FkVaeHalf *half, FkBackend *be, FkArena *arena, FkTensor in, bool up) {
  Maps m = {.be = be,
            .arena = arena,
            .h = in.dim[0],
            .w = in.dim[1],
            .c = half->conv_in.out,
            .groups = vae->config.norm_groups};
  const int64_t n = largest_map(half, m.h, m.w, up, false);
  m.x = fk_arena_1d(arena, be->dtype, n).data;
  m.a = fk_arena_1d(arena, be->dtype, n).data;
  m.b = fk_arena_1d(arena, be->dtype, largest_map(half, m.h, m.w, up, true)).data;
  conv3(&m, map(&m, m.x, m.c), in, half->conv_in, half->conv_in_bias, fk_tensor_none());
  return m;
}

static void finish(Maps *m, const FkVaeHalf *h, FkTensor out) {
  FkTensor a = map(m, m->a, m->c);
  group_norm(m, a, map(m, m->x, m->c), h->norm_out, h->norm_out_bias, true);
  conv3(m, out, a, h->conv_out, h->conv_out_bias, fk_tensor_none());
}

void fk_vae_encode_tile(const FkVae *vae, FkBackend *be, FkArena *arena, FkTensor image, FkTensor moments) {
  const FkVaeHalf *h = &vae->encoder;
  const size_t mark = fk_arena_mark(arena);
  Maps m = maps_new(vae, h, be, arena, image, false);
  for (int i = 0; i < h->levels; i++) {
    for (int j = 0; j < h->resnets; j++) resnet(&m, &h->resnet[i][j]);
    if (!h->resample[i].out) break;
    FkTensor x = map(&m, m.x, m.c);
    m.h /= 2;
    m.w /= 2;
    /* Zeros to the right and below only (spec 5.1, Downsample). */
    FkConv c = {.x = x,
                .y = map(&m, m.a, m.c),
                .bias = h->resample_bias[i],
                .w = h->resample[i],
                .kernel = 3,
                .stride = 2,
                .pad_before = 0,
                .pad_after = 1};
    fk_op_conv(be, arena, &c);
    swap(&m.x, &m.a);
  }
  middle(&m, h);
  finish(&m, h, moments);
  fk_arena_reset(arena, mark);
}

void fk_vae_decode_tile(const FkVae *vae, FkBackend *be, FkArena *arena, FkTensor latent, FkTensor image) {
  const FkVaeHalf *h = &vae->decoder;
  const size_t mark = fk_arena_mark(arena);
  Maps m = maps_new(vae, h, be, arena, latent, true);
  middle(&m, h);
  for (int i = 0; i < h->levels; i++) {
    for (int j = 0; j < h->resnets; j++) resnet(&m, &h->resnet[i][j]);
    if (!h->resample[i].out) break;
    FkTensor x = map(&m, m.x, m.c);
    m.h *= 2;
    m.w *= 2;
    FkConv c = {.x = x,
                .y = map(&m, m.a, m.c),
                .bias = h->resample_bias[i],
                .w = h->resample[i],
                .kernel = 3,
                .stride = 1,
                .pad_before = 1,
                .pad_after = 1,
                .upsample = true};
    fk_op_conv(be, arena, &c);
    swap(&m.x, &m.a);
  }
  finish(&m, h, image);
  fk_arena_reset(arena, mark);
}
