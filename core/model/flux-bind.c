/* SPDX-License-Identifier: Apache-2.0 */
/* clang-format off */
/* Names and shapes of the transformer's tensors. Names are diffusers' (other layouts: names.c); beside them what the
 * parts are called where the model was described (Esser et al. 2024, "MM-DiT") and in Black Forest Labs' code:
 *
 *   diffusers                               described as                                        [rows, columns]
 *   x_embedder, context_embedder            embedding of patches, of text (img_in, txt_in)      [D, 64], [D, 4096]
 *   time_text_embed.*                       MLPs of time, guidance, pooled text                 [D, 256 | 768], [D, D]
 *   transformer_blocks.N                    double_blocks: image and text with weights of their own, one attention
 *     norm1.linear, norm1_context.linear      modulation: shift, scale, gate for attention,
 *                                             then the same for the MLP (img_mod.lin, txt_mod.lin)  [6 D, D]
 *     attn.to_q, to_k, to_v                   query, key, value of the image (img_attn.qkv)     [D, D] each
 *     attn.add_q_proj, add_k_proj, add_v_proj the same of the text (txt_attn.qkv)               [D, D] each
 *     attn.norm_q, norm_k, norm_added_*       RMSNorm over each head (query_norm, key_norm)     [E]
 *     attn.to_out.0, to_add_out               attention's output (img_attn.proj, txt_attn.proj) [D, D]
 *     ff.net.0.proj, ff.net.2; ff_context     MLP (img_mlp.0, .2; txt_mlp)                      [4 D, D], [D, 4 D]
 *   single_transformer_blocks.N             single_blocks: attention and MLP side by side
 *     norm.linear                             modulation: shift, scale, gate (modulation.lin)   [3 D, D]
 *     attn.to_q, to_k, to_v, proj_mlp         linear1                                           [D, D] each, [4 D, D]
 *     proj_out                                linear2, of [attention | MLP]                     [D, 5 D]
 *   norm_out.linear                         final_layer.adaLN_modulation: scale, shift          [2 D, D]
 *   proj_out                                final_layer.linear                                  [64, D]
 *
 * Matrices that read the same rows are bound as one, one below the other: to_k is rows 0..D of it, to_v D..2D, to_q
 * 2D..3D, proj_mlp 3D..7D. K V Q MLP, and not Q K V MLP, because that is the order of columns of the buffer that their
 * product writes: attention writes its result over Q, so that it stands beside MLP as linear2 wants it, without a
 * concatenation; and the last block, whose text and context rows are keys and values only, takes the first 2 D rows. */
/* clang-format on */
#include "expand.h"
#include "flux.h"

#include <glib.h>

static void bind(FkBinder *b, FkWeight *w, FkTensor *bias, FkRole role, int64_t out, int64_t in, const char *name) {
  fk_bind_matrix(b, w, role, out, in, "%s.weight", name);
  fk_bind_vector(b, bias, out, "%s.bias", name);
}

static void bind_mlp(FkBinder *b, FkFluxMlp *m, int64_t out, int64_t in, const char *name) {
  g_autofree char *first = g_strconcat("time_text_embed.", name, ".linear_1", NULL);
  g_autofree char *second = g_strconcat("time_text_embed.", name, ".linear_2", NULL);
  bind(b, &m->linear_1, &m->bias_1, FK_ROLE_EMBED, out, in, first);
  bind(b, &m->linear_2, &m->bias_2, FK_ROLE_EMBED, out, out, second);
}

typedef struct {
  const char *mod, *k, *v, *q, *out, *q_norm, *k_norm, *ff;
} StreamNames;

static const StreamNames image_names = {"norm1.linear",  "attn.to_k",   "attn.to_v",   "attn.to_q",
                                        "attn.to_out.0", "attn.norm_q", "attn.norm_k", "ff"};
static const StreamNames text_names = {"norm1_context.linear", "attn.add_k_proj", "attn.add_v_proj",
                                       "attn.add_q_proj",      "attn.to_add_out", "attn.norm_added_q",
                                       "attn.norm_added_k",    "ff_context"};

static void bind_stream_mod(FkBinder *b, FkFluxStream *s, const StreamNames *n, int i, int64_t d) {
  g_autofree char *mod = g_strdup_printf("transformer_blocks.%d.%s", i, n->mod);
  bind(b, &s->mod, &s->mod_bias, FK_ROLE_MODULATION, 6 * d, d, mod);
}

static void bind_stream(FkBinder *b, FkFluxStream *s, const StreamNames *n, int i, int64_t d, int64_t e) {
#define NAME(part) g_strdup_printf("transformer_blocks.%d.%s", i, part)
  g_autofree char *k = NAME(n->k), *v = NAME(n->v), *q = NAME(n->q), *out = NAME(n->out);
#undef NAME
  g_autofree char *ff_in = g_strdup_printf("transformer_blocks.%d.%s.net.0.proj", i, n->ff);
  g_autofree char *ff_out = g_strdup_printf("transformer_blocks.%d.%s.net.2", i, n->ff);
  fk_bind_stack(b, &s->qkv, &s->qkv_bias, FK_ROLE_QKV, d, 3, (int64_t[]){d, d, d}, (const char *const[]){k, v, q});
  fk_bind_vector(b, &s->q_norm, e, "transformer_blocks.%d.%s.weight", i, n->q_norm);
  fk_bind_vector(b, &s->k_norm, e, "transformer_blocks.%d.%s.weight", i, n->k_norm);
  bind(b, &s->out, &s->out_bias, FK_ROLE_OUT, d, d, out);
  bind(b, &s->ff_in, &s->ff_in_bias, FK_ROLE_FF_UP, 4 * d, d, ff_in);
  bind(b, &s->ff_out, &s->ff_out_bias, FK_ROLE_FF_DOWN, d, 4 * d, ff_out);
}

static void bind_single(FkBinder *b, FkFluxSingle *s, int i, int64_t d, int64_t e) {
#define NAME(part) g_strdup_printf("single_transformer_blocks.%d." part, i)
  g_autofree char *mod = NAME("norm.linear"), *out = NAME("proj_out"), *mlp = NAME("proj_mlp");
  g_autofree char *k = NAME("attn.to_k"), *v = NAME("attn.to_v"), *q = NAME("attn.to_q");
#undef NAME
  fk_bind_group(b, FK_USE_BEFORE, "single_transformer_blocks.%d.modulation", i);
  bind(b, &s->mod, &s->mod_bias, FK_ROLE_MODULATION, 3 * d, d, mod);
  fk_bind_group(b, FK_USE_EACH, "single_transformer_blocks.%d", i);
  fk_bind_stack(b, &s->in, &s->in_bias, FK_ROLE_SINGLE_IN, d, 4, (int64_t[]){d, d, d, 4 * d},
                (const char *const[]){k, v, q, mlp});
  fk_bind_vector(b, &s->q_norm, e, "single_transformer_blocks.%d.attn.norm_q.weight", i);
  fk_bind_vector(b, &s->k_norm, e, "single_transformer_blocks.%d.attn.norm_k.weight", i);
  bind(b, &s->out, &s->out_bias, FK_ROLE_SINGLE_OUT, d, 5 * d, out);
}

void fk_flux_init(FkFlux *f, const FkFluxConfig *c, FkBinder *b) {
  const int64_t e = c->head_width, d = c->heads * e;
  *f = (FkFlux){.config = *c,
                .width = d,
                .mod_total = (12 * (int64_t)c->layers + 3 * (int64_t)c->single_layers + 2) * d,
                .doubles = g_new0(FkFluxDouble, (size_t)c->layers),
                .singles = g_new0(FkFluxSingle, (size_t)c->single_layers),
                .store = fk_binder_store(b)};
  fk_bind_group(b, FK_USE_ALWAYS, "embedders");
  bind(b, &f->x_embedder, &f->x_embedder_bias, FK_ROLE_EMBED, d, c->in_channels, "x_embedder");
  bind(b, &f->context_embedder, &f->context_embedder_bias, FK_ROLE_EMBED, d, c->joint_width, "context_embedder");
  bind_mlp(b, &f->time, d, 256, "timestep_embedder");
  if (c->guidance_embeds) bind_mlp(b, &f->guidance, d, 256, "guidance_embedder");
  bind_mlp(b, &f->pooled, d, c->pooled_width, "text_embedder");
  for (int i = 0; i < c->layers; i++) {
    fk_bind_group(b, FK_USE_BEFORE, "transformer_blocks.%d.modulation", i);
    bind_stream_mod(b, &f->doubles[i].image, &image_names, i, d);
    bind_stream_mod(b, &f->doubles[i].text, &text_names, i, d);
    fk_bind_group(b, FK_USE_EACH, "transformer_blocks.%d", i);
    bind_stream(b, &f->doubles[i].image, &image_names, i, d, e);
    bind_stream(b, &f->doubles[i].text, &text_names, i, d, e);
  }
  for (int i = 0; i < c->single_layers; i++) bind_single(b, &f->singles[i], i, d, e);
  fk_bind_group(b, FK_USE_ALWAYS, "output");
  bind(b, &f->norm_out, &f->norm_out_bias, FK_ROLE_MODULATION, 2 * d, d, "norm_out.linear");
  bind(b, &f->proj_out, &f->proj_out_bias, FK_ROLE_FINAL, c->out_channels, d, "proj_out");
}

/* A walk on another backend than the weights' uses none. */
static FkStore *streaming(const FkFlux *f, const FkBackend *be) {
  return fk_store_streams(f->store) && f->store->be == be ? f->store : NULL;
}

/* In the order of fk_flux_init: embedders, then two groups a block. */
static int group_of(int block, bool modulation) {
  return 1 + 2 * block + !modulation;
}

void fk_flux_need(const FkFlux *f, const FkBackend *be, int block, bool modulation) {
  FkStore *s = streaming(f, be);
  if (s) fk_store_need(s, group_of(block, modulation));
  if (be->ahead && fk_store_at(f->store, group_of(block, modulation))->slot >= 0) be->ahead->apart = true;
}

void fk_flux_done(const FkFlux *f, const FkBackend *be, int block, bool modulation) {
  FkStore *s = streaming(f, be);
  if (s) fk_store_done(s, group_of(block, modulation));
}

void fk_flux_clear(FkFlux *f) {
  g_clear_pointer(&f->doubles, g_free);
  g_clear_pointer(&f->singles, g_free);
}
