/* SPDX-License-Identifier: Apache-2.0 */
/* Conditioning of the transformer (spec 6.3, 6.4): time, guidance and pooled text -> vectors -> all modulations.
 * They depend on nothing that changes inside the loop, so they are products over many evaluations at once: a quarter of
 * the model's weights is then read once per edit instead of once per step. */
#include "flux-cond.h"
#include "latent.h"

#include <glib.h>

/* Evaluations whose modulations are held at a time: bounds memory (4 bytes x mod_total each) for any number of steps.
 */
enum { CHUNK = 32, SINUSOID = 256 };

int64_t fk_flux_mod_offset(const FkFlux *f, int block) {
  const int doubles = f->config.layers;
  return f->width * (block < doubles ? 12 * block : 12 * doubles + 3 * (block - doubles));
}

void fk_flux_run_open(FkFluxRun *r, const FkFlux *f, FkBackend *be, FkArena *arena, const FkFluxShape *s) {
  const int64_t target = s->grid_h * s->grid_w, context = s->context_h * s->context_w;
  const int64_t rows = s->text + target + context, e = f->config.head_width, d = f->width;
  *r = (FkFluxRun){.flux = f, .be = be, .text = s->text, .target = target, .context = context};
  r->tokens = fk_arena_2d(arena, be->dtype, target + context, f->config.in_channels);
  r->hidden = fk_arena_2d(arena, be->dtype, rows, d);
  r->normed = fk_arena_2d(arena, be->dtype, rows, d);
  r->wide = fk_arena_2d(arena, be->dtype, rows, 7 * d);
  r->rope = fk_arena_2d(arena, FK_F32, rows, e);
  r->mod = fk_arena_1d(arena, FK_F32, f->mod_total);
  r->velocity = fk_arena_2d(arena, FK_F32, target, f->config.out_channels);
  g_autofree float *rope = g_new(float, (size_t)(rows * e));
  fk_rope_table(rope, (int)s->text, (int)s->grid_h, (int)s->grid_w, (int)s->context_h, (int)s->context_w,
                f->config.axes, 10000.0);
  fk_op_upload(be, r->rope, rope);
  if (!s->keep_context || !context) return;
  const int tensors = s->keep_context * fk_flux_blocks(f);
  r->saved_kv = g_new(FkTensor, (size_t)tensors);
  for (int i = 0; i < tensors; i++) r->saved_kv[i] = fk_arena_2d(arena, be->dtype, context, 2 * d);
}

void fk_flux_run_clear(FkFluxRun *r) {
  g_clear_pointer(&r->saved_kv, g_free);
}

static void linear(FkBackend *be, FkTensor y, FkTensor x, FkWeight w, FkTensor bias, FkEpilogue epilogue, FkAct act) {
  FkLinear l = {.x = x, .y = y, .w = w, .bias = bias, .epilogue = epilogue, .act = act};
  fk_op_linear(be, &l, 1);
}

/* sum (+)= linear_2(silu(linear_1(x))). */
static void add_mlp(FkBackend *be, FkArena *arena, FkTensor sum, FkTensor x, const FkFluxMlp *m, bool first) {
  const size_t mark = fk_arena_mark(arena);
  FkTensor h = fk_arena_2d(arena, be->dtype, fk_tensor_rows(x), m->linear_1.out);
  linear(be, h, x, m->linear_1, m->bias_1, FK_EPI_ACT, FK_ACT_SILU);
  linear(be, sum, h, m->linear_2, m->bias_2, first ? FK_EPI_ACT : FK_EPI_ADD, FK_ACT_NONE);
  fk_arena_reset(arena, mark);
}

/* Sinusoids of n values as rows in the backend's dtype. */
static FkTensor sinusoids(FkBackend *be, FkArena *arena, const float *values, int n, int step) {
  g_autofree float *host = g_new(float, (size_t)n *SINUSOID);
  for (int i = 0; i < n; i++) fk_sinusoid(host + i * SINUSOID, values[i * step]);
  FkTensor wide = fk_arena_2d(arena, FK_F32, n, SINUSOID), rows = fk_arena_2d(arena, be->dtype, n, SINUSOID);
  fk_op_upload(be, wide, host);
  fk_op_copy(be, rows, wide);
  return rows;
}

void fk_flux_condition(const FkFluxRun *r, FkArena *arena, FkFluxCond *c, FkTensor text_states, FkTensor pooled,
                       const float *t, int n, float guidance) {
  const FkFlux *f = r->flux;
  FkBackend *be = r->be;
  *c = (FkFluxCond){.text = fk_arena_2d(arena, be->dtype, r->text, f->width),
                    .temb = fk_arena_2d(arena, be->dtype, n, f->width),
                    .mod = fk_arena_2d(arena, FK_F32, MIN(n, CHUNK), f->mod_total)};
  const size_t mark = fk_arena_mark(arena);
  linear(be, c->text, text_states, f->context_embedder, f->context_embedder_bias, FK_EPI_ACT, FK_ACT_NONE);
  add_mlp(be, arena, c->temb, sinusoids(be, arena, t, n, 1), &f->time, true);
  if (f->config.guidance_embeds)
    add_mlp(be, arena, c->temb, sinusoids(be, arena, &guidance, n, 0), &f->guidance, false);
  FkTensor repeated = fk_arena_2d(arena, be->dtype, n, fk_tensor_cols(pooled));
  for (int i = 0; i < n; i++) fk_op_copy(be, fk_tensor_slice_rows(repeated, i, 1), pooled);
  add_mlp(be, arena, c->temb, repeated, &f->pooled, false);
  fk_op_act(be, c->temb, c->temb, FK_ACT_SILU);
  fk_arena_reset(arena, mark);
}

/* Modulations of as many evaluations as fit, from `first` on. */
static void modulate(const FkFluxRun *r, FkFluxCond *c, int first) {
  const FkFlux *f = r->flux;
  c->first = first;
  c->rows = (int)MIN(fk_tensor_rows(c->temb) - first, fk_tensor_rows(c->mod));
  FkTensor x = fk_tensor_slice_rows(c->temb, first, c->rows), mod = fk_tensor_slice_rows(c->mod, 0, c->rows);
  for (int i = 0; i < f->config.layers; i++) {
    const int64_t at = fk_flux_mod_offset(f, i);
    const FkFluxStream *const image = &f->doubles[i].image, *const text = &f->doubles[i].text;
    linear(r->be, fk_tensor_slice_cols(mod, at, 6 * f->width), x, image->mod, image->mod_bias, FK_EPI_ACT, FK_ACT_NONE);
    linear(r->be, fk_tensor_slice_cols(mod, at + 6 * f->width, 6 * f->width), x, text->mod, text->mod_bias, FK_EPI_ACT,
           FK_ACT_NONE);
  }
  for (int i = 0; i < f->config.single_layers; i++) {
    const FkFluxSingle *s = &f->singles[i];
    linear(r->be, fk_tensor_slice_cols(mod, fk_flux_mod_offset(f, f->config.layers + i), 3 * f->width), x, s->mod,
           s->mod_bias, FK_EPI_ACT, FK_ACT_NONE);
  }
  linear(r->be, fk_tensor_slice_cols(mod, fk_flux_mod_offset(f, fk_flux_blocks(f)), 2 * f->width), x, f->norm_out,
         f->norm_out_bias, FK_EPI_ACT, FK_ACT_NONE);
}

void fk_flux_modulate(const FkFluxRun *r, FkFluxCond *c, int evaluation) {
  if (c->rows == 0 || evaluation < c->first || evaluation >= c->first + c->rows) modulate(r, c, evaluation);
}

void fk_flux_load(FkFluxRun *r, FkFluxCond *c, int evaluation) {
  fk_flux_modulate(r, c, evaluation);
  fk_op_copy(r->be, r->mod, fk_tensor_row(c->mod, evaluation - c->first));
  fk_op_copy(r->be, fk_tensor_slice_rows(r->hidden, 0, r->text), c->text);
}
