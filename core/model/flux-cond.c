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

/* sum (+)= linear_2(silu(linear_1(x))). */
static void add_mlp(FkBackend *be, FkArena *arena, FkTensor sum, FkTensor x, const FkFluxMlp *m, bool first) {
  const size_t mark = fk_arena_mark(arena);
  FkTensor h = fk_arena_2d(arena, be->dtype, fk_tensor_rows(x), m->linear_1.out);
  fk_op_project(be, arena, h, x, m->linear_1, m->bias_1, FK_EPI_ACT, FK_ACT_SILU);
  fk_op_project(be, arena, sum, h, m->linear_2, m->bias_2, first ? FK_EPI_ACT : FK_EPI_ADD, FK_ACT_NONE);
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
  fk_op_project(be, arena, c->text, text_states, f->context_embedder, f->context_embedder_bias, FK_EPI_ACT,
                FK_ACT_NONE);
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
    fk_flux_need(f, r->be, i, true);
    fk_op_project(r->be, r->arena, fk_tensor_slice_cols(mod, at, 6 * f->width), x, image->mod, image->mod_bias,
                  FK_EPI_ACT, FK_ACT_NONE);
    fk_op_project(r->be, r->arena, fk_tensor_slice_cols(mod, at + 6 * f->width, 6 * f->width), x, text->mod,
                  text->mod_bias, FK_EPI_ACT, FK_ACT_NONE);
    fk_flux_done(f, r->be, i, true);
  }
  for (int i = 0; i < f->config.single_layers; i++) {
    const FkFluxSingle *s = &f->singles[i];
    fk_flux_need(f, r->be, f->config.layers + i, true);
    fk_op_project(r->be, r->arena, fk_tensor_slice_cols(mod, fk_flux_mod_offset(f, f->config.layers + i), 3 * f->width),
                  x, s->mod, s->mod_bias, FK_EPI_ACT, FK_ACT_NONE);
    fk_flux_done(f, r->be, f->config.layers + i, true);
  }
  fk_op_project(r->be, r->arena, fk_tensor_slice_cols(mod, fk_flux_mod_offset(f, fk_flux_blocks(f)), 2 * f->width), x,
                f->norm_out, f->norm_out_bias, FK_EPI_ACT, FK_ACT_NONE);
}

void fk_flux_modulate(const FkFluxRun *r, FkFluxCond *c, int evaluation) {
  if (c->rows == 0 || evaluation < c->first || evaluation >= c->first + c->rows) modulate(r, c, evaluation);
}

void fk_flux_load(FkFluxRun *r, FkFluxCond *c, int evaluation) {
  fk_flux_modulate(r, c, evaluation);
  fk_op_copy(r->be, r->mod, fk_tensor_row(c->mod, evaluation - c->first));
  fk_op_copy(r->be, fk_tensor_slice_rows(r->hidden, 0, r->text), c->text);
}
