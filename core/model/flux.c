/* SPDX-License-Identifier: Apache-2.0 */
/* The one forward: embedders, double blocks, single blocks, output layer (spec 6). Stop "model" of the tour.
 * Not here: conditioning and modulation (flux-cond.c), names and shapes of the weights (flux-bind.c), steps and solvers
 * (denoise.c). */
#include "flux.h"

#include "expand.h"
#include "latent.h"

#include <glib.h>
#include <math.h>

int64_t fk_flux_mod_offset(const FkFlux *f, int block) {
  const int doubles = f->config.layers;
  return f->width * (block < doubles ? 12 * block : 12 * doubles + 3 * (block - doubles));
}

/* Every block has the forms of the first. */
static FkWeight a_block_weight(const FkFlux *f) {
  return f->config.single_layers ? f->singles[0].out : f->doubles[0].image.out;
}

static bool quantised(const FkFlux *f) {
  return a_block_weight(f).scale.kind != FK_SCALE_NONE;
}

/* Rotary rows of the pictures beside the frame. */
static void place_references(const FkFluxShape *s, const int *axes, float *rope, int64_t width) {
  const FkFluxReferences *r = &s->references;
  FkPlace places[1 + FK_FLUX_REFERENCES];
  int rows[1 + FK_FLUX_REFERENCES] = {(int)s->context_h}, columns[1 + FK_FLUX_REFERENCES] = {(int)s->context_w};
  for (int i = 0; i < r->n; i++) {
    rows[1 + i] = r->rows[i];
    columns[1 + i] = r->columns[i];
  }
  fk_latent_places(places, rows, columns, 1 + r->n, r->apart);
  for (int i = 1; i <= r->n; i++) {
    fk_rope_grid(rope, places[i], rows[i], columns[i], axes, 10000.0);
    rope += (int64_t)rows[i] * columns[i] * width;
  }
}

void fk_flux_run_open(FkFluxRun *r, const FkFlux *f, FkBackend *be, FkArena *arena, const FkFluxShape *s) {
  const int64_t target = s->grid_h * s->grid_w;
  const int64_t context = s->context_h * s->context_w + fk_flux_reference_tokens(&s->references);
  const int64_t rows = s->text + target + context, e = f->config.head_width, d = f->width;
  *r = (FkFluxRun){.flux = f,
                   .be = be,
                   .arena = arena,
                   .attention = s->attention,
                   .recordings = s->recordings,
                   .text = s->text,
                   .target = target,
                   .context = context};
  r->tokens = fk_arena_2d(arena, be->dtype, target + context, f->config.in_channels);
  r->hidden = fk_arena_2d(arena, be->dtype, rows, d);
  r->normed = fk_arena_2d(arena, be->dtype, rows, d);
  r->wide = fk_arena_2d(arena, be->dtype, rows, 7 * d);
  if (quantised(f)) {
    r->codes = fk_arena_2d(arena, FK_E4M3, rows, 5 * d);
    r->codes_scale = fk_arena_1d(arena, FK_F32, rows);
    r->given_scale = fk_arena_1d(arena, FK_F32, rows);
  }
  r->rope = fk_arena_2d(arena, FK_F32, rows, e);
  r->mod = fk_arena_1d(arena, FK_F32, f->mod_total);
  r->velocity = fk_arena_2d(arena, FK_F32, target, f->config.out_channels);
  g_autofree float *rope = g_new(float, (size_t)(rows * e));
  fk_rope_table(rope, (int)s->text, (int)s->grid_h, (int)s->grid_w, (int)s->context_h, (int)s->context_w,
                f->config.axes, 10000.0);
  place_references(s, f->config.axes, rope + (rows - fk_flux_reference_tokens(&s->references)) * e, e);
  fk_op_upload(be, r->rope, rope);
  if (!s->keep_context || !context) return;
  const int tensors = s->keep_context * fk_flux_blocks(f);
  r->saved_kv = g_new(FkTensor, (size_t)tensors);
  r->kept_target = s->keep_target ? target : 0;
  for (int i = 0; i < tensors; i++) r->saved_kv[i] = fk_arena_2d(arena, be->dtype, r->kept_target + context, 2 * d);
}

void fk_flux_run_clear(FkFluxRun *r) {
  g_clear_pointer(&r->saved_kv, g_free);
}

/* Rows that take part, and which of them only serve as keys and values. */
typedef struct {
  const FkFluxRun *run;
  const FkTensor *saved_kv;   /* [blocks], the slot's; NULL: no context reuse */
  bool full;                  /* weights in full precision where they have a twin */
  bool odd;                   /* else their other codes, where they have some */
  int64_t text, active, rows; /* active: rows computed; rows: active and reused context */
} Rows;

/* Which of two recordings, where codes alternate. */
static bool is_odd(const FkFlux *f, const FkFluxPass *pass) {
  return pass->evaluation % 2 && a_block_weight(f).odd;
}

static Rows rows_of(const FkFluxRun *r, const FkFluxPass *pass) {
  const FkTensor *saved = r->saved_kv ? r->saved_kv + (size_t)pass->slot * (size_t)fk_flux_blocks(r->flux) : NULL;
  return (Rows){
      r, saved, pass->full, is_odd(r->flux, pass), r->text, fk_flux_active(r, pass), r->text + r->target + r->context};
}

static FkTensor mod_chunk(const FkFluxRun *r, int64_t offset, int chunk) {
  return fk_tensor_slice(r->mod, offset + chunk * r->flux->width, r->flux->width);
}

static FkLayerNorm modulated(const FkFluxRun *r, int64_t first, int64_t n, int64_t offset, int shift) {
  return (FkLayerNorm){.x = fk_tensor_slice_rows(r->hidden, first, n),
                       .y = fk_tensor_slice_rows(r->normed, first, n),
                       .shift = mod_chunk(r, offset, shift),
                       .scale = mod_chunk(r, offset, shift + 1),
                       .eps = 1e-6f};
}

/* The weight as this evaluation uses it. */
static FkWeight weight(const Rows *rows, FkWeight w) {
  return rows->full ? fk_weight_full(w) : rows->odd ? fk_weight_odd(w) : w;
}

static bool takes_codes(FkWeight w) {
  return w.dtype == FK_E4M3 || w.dtype == FK_I8;
}

/* The scale of the inputs of products with w, where it is known beforehand; else 0. */
static float given_scale(const Rows *rows, FkWeight w) {
  w = weight(rows, w);
  return takes_codes(w) ? w.x_scale : 0;
}

/* Columns first..first+columns of rows from..from+n of the codes; their scales, one a row. */
static FkTensor codes(const FkFluxRun *r, int64_t from, int64_t n, int64_t first, int64_t columns) {
  return fk_tensor_slice_cols(fk_tensor_slice_rows(r->codes, from, n), first, columns);
}

static FkTensor codes_scale(const FkFluxRun *r, int64_t first, int64_t n) {
  return fk_tensor_slice(r->codes_scale, first, n);
}

/* Modulated norm of rows first..first+n as the operand of products with w: numbers in `normed`, or codes. */
static FkLayerNorm norm_for(const Rows *rows, FkWeight w, int64_t first, int64_t n, int64_t offset, int shift) {
  const FkFluxRun *r = rows->run;
  FkLayerNorm norm = modulated(r, first, n, offset, shift);
  w = weight(rows, w);
  if (!takes_codes(w)) return norm;
  norm.given = w.x_scale;
  norm.y = codes(r, first, n, 0, r->flux->width);
  norm.y_scale = codes_scale(r, first, n);
  return norm;
}

/* Columns first..first+n of rows from..from+count of the wide buffer. */
static FkTensor wide(const FkFluxRun *r, int64_t from, int64_t count, int64_t first, int64_t n) {
  return fk_tensor_slice_cols(fk_tensor_slice_rows(r->wide, from, count), first, n);
}

/* A product with what norm_for has made of the rows from..from+n. */
static FkLinear of_norm(const Rows *rows, int64_t from, int64_t n, FkWeight w, FkTensor bias, FkTensor y) {
  const FkFluxRun *r = rows->run;
  FkLinear l = {.x = fk_tensor_slice_rows(r->normed, from, n), .y = y, .bias = bias, .w = weight(rows, w)};
  if (!takes_codes(l.w)) return l;
  l.x = codes(r, from, n, 0, r->flux->width);
  l.x_scale = codes_scale(r, from, n);
  return l;
}

/* The MLP columns of l, the last ones, as the operand of products with w, where its scale is known: they go beside
 * attention's. */
static void leave_as_codes(const Rows *rows, int64_t from, int64_t n, FkWeight w, FkLinear *l) {
  const FkFluxRun *r = rows->run;
  const int64_t d = r->flux->width;
  l->given = given_scale(rows, w);
  if (l->given <= 0) return;
  l->y_codes = codes(r, from, n, d, 4 * d);
  l->y_scale = fk_tensor_slice(r->given_scale, from, n);
}

static FkLinear project_qkv(const Rows *rows, int64_t from, int64_t n, FkWeight w, FkTensor bias, FkTensor q_norm,
                            FkTensor k_norm) {
  FkLinear l = of_norm(rows, from, n, w, bias, wide(rows->run, from, n, 0, w.out));
  l.epilogue = FK_EPI_QKV;
  l.q_norm = q_norm;
  l.k_norm = k_norm;
  l.rope = fk_tensor_slice_rows(rows->run->rope, from, n);
  l.width = rows->run->flux->width;
  return l;
}

/* hidden += gate * (wide[:, column..] W^T + b), in place. Where the weight is quantised the operand is, here or, where
 * its scale was known, by what made it. */
static FkLinear gated_out(const Rows *rows, int64_t from, int64_t n, int64_t column, FkWeight w, FkTensor bias,
                          FkTensor gate) {
  const FkFluxRun *r = rows->run;
  FkLinear l = {.x = wide(r, from, n, column, w.in),
                .y = fk_tensor_slice_rows(r->hidden, from, n),
                .bias = bias,
                .gate = gate,
                .w = weight(rows, w),
                .epilogue = FK_EPI_GATE};
  if (!takes_codes(l.w)) return l;
  const FkTensor numbers = l.x;
  l.x = codes(r, from, n, column - 2 * r->flux->width, w.in);
  l.x_scale = l.w.x_scale > 0 ? fk_tensor_slice(r->given_scale, from, n) : codes_scale(r, from, n);
  if (l.w.x_scale <= 0) fk_op_quantize(r->be, l.x, l.x_scale, numbers);
  return l;
}

/* Keys and values of rows that were computed are saved; those of context rows that were not are put in their place. */
static void keep_keys(const Rows *rows, int block) {
  const FkFluxRun *r = rows->run;
  const int64_t d = r->flux->width, context = r->text + r->target, target = r->kept_target;
  const FkTensor saved = rows->saved_kv[block], fresh = wide(r, context, r->context, 0, 2 * d);
  const bool computed = rows->active == rows->rows;
  if (fk_tensor_given(r->saved_index)) {
    fk_op_gather_rows(r->be, fresh, saved, r->saved_index);
    return;
  }
  if (!computed) fk_op_copy(r->be, fresh, fk_tensor_slice_rows(saved, target, r->context));
  const int64_t n = target + (computed ? r->context : 0);
  if (n) fk_op_copy(r->be, fk_tensor_slice_rows(saved, 0, n), wide(r, context - target, n, 0, 2 * d));
}

/* Queries of rows from..from+n against all keys; the result takes the queries' place, or is codes for products with w:
 * the first `text` rows for w[0], the others for w[1]. */
static void attend(const Rows *rows, int block, int64_t from, int64_t n, int64_t text, const FkWeight *const w[2]) {
  const FkFluxRun *r = rows->run;
  const int64_t d = r->flux->width;
  const FkAttentionPrecision precision = rows->full ? FK_ATTENTION_BF16 : r->attention;
  if (rows->saved_kv) keep_keys(rows, block);
  FkTensor q = wide(r, from, n, 2 * d, d);
  FkAttention a = {.q = q,
                   .k = wide(r, 0, rows->rows, 0, d),
                   .v = wide(r, 0, rows->rows, d, d),
                   .o = q,
                   .heads = r->flux->config.heads,
                   .scale = 1.0f / sqrtf((float)r->flux->config.head_width),
                   .given = {given_scale(rows, *w[0]), given_scale(rows, *w[1])},
                   .given_rows = text};
  if (a.given[0] > 0) {
    a.o_codes = codes(r, from, n, 0, d);
    a.o_scale = fk_tensor_slice(r->given_scale, from, n);
  }
  if (precision == FK_ATTENTION_FP8)
    fk_op_attention_quantized(r->be, r->arena, &a);
  else if (precision == FK_ATTENTION_FP8_VALUES)
    fk_op_attention_value_codes(r->be, r->arena, &a);
  else
    fk_op_attention(r->be, &a);
}

/* Spec 6.5. Modulation chunks: shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp. */
static void double_block(const Rows *rows, int i) {
  const FkFluxRun *r = rows->run;
  const FkFluxDouble *b = &r->flux->doubles[i];
  const int64_t d = r->flux->width, t = rows->text, n = rows->active - t;
  const int64_t image = fk_flux_mod_offset(r->flux, i), text = image + 6 * d;
  const FkFluxStream *const x = &b->image, *const c = &b->text;

  FkLayerNorm norm1[2] = {norm_for(rows, c->qkv, 0, t, text, 0), norm_for(rows, x->qkv, t, n, image, 0)};
  fk_op_layer_norm(r->be, r->arena, norm1, 2);
  FkLinear qkv[2] = {project_qkv(rows, 0, t, c->qkv, c->qkv_bias, c->q_norm, c->k_norm),
                     project_qkv(rows, t, n, x->qkv, x->qkv_bias, x->q_norm, x->k_norm)};
  fk_op_linear(r->be, r->arena, qkv, 2);
  attend(rows, i, 0, rows->active, t, (const FkWeight *[]){&c->out, &x->out});
  FkLinear out[2] = {gated_out(rows, 0, t, 2 * d, c->out, c->out_bias, mod_chunk(r, text, 2)),
                     gated_out(rows, t, n, 2 * d, x->out, x->out_bias, mod_chunk(r, image, 2))};
  fk_op_linear(r->be, r->arena, out, 2);

  FkLayerNorm norm2[2] = {norm_for(rows, c->ff_in, 0, t, text, 3), norm_for(rows, x->ff_in, t, n, image, 3)};
  fk_op_layer_norm(r->be, r->arena, norm2, 2);
  FkLinear up[2] = {of_norm(rows, 0, t, c->ff_in, c->ff_in_bias, wide(r, 0, t, 3 * d, 4 * d)),
                    of_norm(rows, t, n, x->ff_in, x->ff_in_bias, wide(r, t, n, 3 * d, 4 * d))};
  for (int g = 0; g < 2; g++) {
    up[g].epilogue = FK_EPI_ACT;
    up[g].act = FK_ACT_GELU_TANH;
  }
  leave_as_codes(rows, 0, t, c->ff_out, &up[0]);
  leave_as_codes(rows, t, n, x->ff_out, &up[1]);
  fk_op_linear(r->be, r->arena, up, 2);
  FkLinear down[2] = {gated_out(rows, 0, t, 3 * d, c->ff_out, c->ff_out_bias, mod_chunk(r, text, 5)),
                      gated_out(rows, t, n, 3 * d, x->ff_out, x->ff_out_bias, mod_chunk(r, image, 5))};
  fk_op_linear(r->be, r->arena, down, 2);
}

/* Keys and values only, for the rows of the last block whose result nobody reads. */
static void keys_and_values(const Rows *rows, const FkFluxSingle *b) {
  const FkFluxRun *r = rows->run;
  const int64_t d = r->flux->width, after = rows->text + r->target;
  const FkWeight w = fk_weight_rows(b->in, 0, 2 * d);
  const FkTensor bias = fk_tensor_slice(b->in_bias, 0, 2 * d);
  FkLinear kv[2] = {project_qkv(rows, 0, rows->text, w, bias, b->q_norm, b->k_norm)};
  if (rows->active > after) kv[1] = project_qkv(rows, after, rows->active - after, w, bias, b->q_norm, b->k_norm);
  fk_op_linear(r->be, r->arena, kv, rows->active > after ? 2 : 1);
}

/* Spec 6.6. Modulation chunks: shift, scale, gate. In the last block only the target rows go on (spec 6.7). */
static void single_block(const Rows *rows, int i, bool last) {
  const FkFluxRun *r = rows->run;
  const FkFluxSingle *b = &r->flux->singles[i];
  const int64_t d = r->flux->width, mod = fk_flux_mod_offset(r->flux, r->flux->config.layers + i);
  const int64_t from = last ? rows->text : 0, n = last ? r->target : rows->active;

  FkLayerNorm norm = norm_for(rows, b->in, 0, rows->active, mod, 0);
  fk_op_layer_norm(r->be, r->arena, &norm, 1);
  if (last) keys_and_values(rows, b);
  FkLinear in = project_qkv(rows, from, n, b->in, b->in_bias, b->q_norm, b->k_norm);
  leave_as_codes(rows, from, n, b->out, &in);
  fk_op_linear(r->be, r->arena, &in, 1);
  attend(rows, r->flux->config.layers + i, from, n, n, (const FkWeight *[]){&b->out, &b->out});
  FkLinear out = gated_out(rows, from, n, 2 * d, b->out, b->out_bias, mod_chunk(r, mod, 2));
  fk_op_linear(r->be, r->arena, &out, 1);
}

/* Blocks first..last of the list [double blocks, single blocks]. */
static void run_blocks(const Rows *rows, int first, int last) {
  const FkFlux *f = rows->run->flux;
  const int doubles = f->config.layers, all = fk_flux_blocks(f);
  for (int i = first; i < last; i++) {
    fk_flux_need(f, rows->run->be, i, false);
    if (i < doubles)
      double_block(rows, i);
    else
      single_block(rows, i - doubles, i == all - 1 && !f->whole_last_block);
    fk_flux_done(f, rows->run->be, i, false);
  }
}

/* tokens -> hidden rows of the image; the text rows are there already. */
static void embed_tokens(const Rows *rows) {
  const FkFluxRun *r = rows->run;
  const int64_t n = rows->active - rows->text;
  FkLinear l = {.x = fk_tensor_slice_rows(r->tokens, 0, n),
                .y = fk_tensor_slice_rows(r->hidden, rows->text, n),
                .bias = r->flux->x_embedder_bias,
                .w = r->flux->x_embedder,
                .epilogue = FK_EPI_ACT};
  fk_op_linear(r->be, r->arena, &l, 1);
}

/* norm_out and proj_out on the target rows. Modulation chunks: scale, shift. */
static void output_layer(const Rows *rows) {
  const FkFluxRun *r = rows->run;
  const int64_t mod = fk_flux_mod_offset(r->flux, fk_flux_blocks(r->flux));
  FkLayerNorm n = {.x = fk_tensor_slice_rows(r->hidden, rows->text, r->target),
                   .y = fk_tensor_slice_rows(r->normed, rows->text, r->target),
                   .scale = mod_chunk(r, mod, 0),
                   .shift = mod_chunk(r, mod, 1),
                   .eps = 1e-6f};
  fk_op_layer_norm(r->be, r->arena, &n, 1);
  FkLinear l = {.x = n.y, .y = r->velocity, .w = r->flux->proj_out, .bias = r->flux->proj_out_bias};
  fk_op_linear(r->be, r->arena, &l, 1);
}

/* One recorded piece of the forward; whole: with embedders and output layer. */
typedef struct {
  int first, last;
  bool whole;
} Piece;

static void issue(const FkFluxRun *run, const FkFluxPass *pass, const Piece *p) {
  const Rows rows = rows_of(run, pass);
  if (p->whole) embed_tokens(&rows);
  run_blocks(&rows, p->first, p->last);
  if (p->whole) output_layer(&rows);
}

/* The piece on a backend that only counts. ahead: the list of its products with weights that have to be expanded; NULL:
 * of no interest. */
static FkCount walk(const FkFluxRun *run, const FkFluxPass *pass, const Piece *p, FkAhead *ahead) {
  FkBackend counter = {.ops = &fk_null_ops,
                       .can = run->be->can,
                       .dtype = run->be->dtype,
                       .use = FK_CAN_FUSED_LINEAR | FK_CAN_FUSED_QKV | FK_CAN_FLASH | FK_CAN_FUSED_CODES,
                       .ahead = ahead};
  FkFluxRun shadow = *run;
  shadow.be = &counter;
  issue(&shadow, pass, p);
  return counter.count;
}

/* With weights expanded ahead, where there are such and single ops are not timed: times would be those of two. */
static void issue_ahead(const FkFluxRun *run, const FkFluxPass *pass, const Piece *p) {
  enum { PRODUCTS = 4, ENDS = 2 }; /* of a block, and of embedders and output */
  FkAhead ahead = {.room = PRODUCTS * fk_flux_blocks(run->flux) + ENDS};
  const bool wanted = fk_backend_uses(run->be, FK_CAN_EXPAND_AHEAD) && !run->be->profile;
  g_autofree FkAheadUse *use = wanted ? g_new(FkAheadUse, (size_t)ahead.room) : NULL;
  const size_t mark = fk_arena_mark(run->arena);
  ahead.use = use;
  if (wanted) walk(run, pass, p, &ahead);
  if (ahead.n) fk_ahead_begin(&ahead, run->be, run->arena);
  issue(run, pass, p);
  if (ahead.n) fk_ahead_end(run->be);
  fk_arena_reset(run->arena, mark);
}

/* A replayed recording issues no ops, so what it spends is counted. */
static void count_replay(const FkFluxRun *run, const FkFluxPass *pass, const Piece *p) {
  const FkCount counted = walk(run, pass, p, NULL);
  FkCount *sum = &run->be->count;
  sum->linear_flop += counted.linear_flop;
  sum->attention_flop += counted.attention_flop;
  sum->bytes += counted.bytes;
  sum->ops += counted.ops;
}

/* More than a call has frames and branches (FK_FRAMES). */
enum { SLOTS = 1024 };

/* The slot is part of a recording's key only where addresses depend on it. */
static void run_piece(const FkFluxRun *run, const FkFluxPass *pass, int part, const Piece *p) {
  const int slot = run->recordings * SLOTS + (run->saved_kv ? pass->slot : 0);
  const int variant = pass->full ? 1 : is_odd(run->flux, pass) ? 2 : 0;
  const int key = ((slot * 2 + pass->reuse_context) * 3 + variant) * 8 + part;
  if (fk_op_graph_begin(run->be, key))
    issue_ahead(run, pass, p);
  else
    count_replay(run, pass, p);
  fk_op_graph_end(run->be, key);
}

void fk_flux_embed(FkFluxRun *run, const FkFluxPass *pass) {
  const Rows rows = rows_of(run, pass);
  embed_tokens(&rows);
}

void fk_flux_run_blocks(FkFluxRun *run, const FkFluxPass *pass, int part, int first, int last) {
  if (first < last) run_piece(run, pass, part, &(Piece){first, last, false});
}

void fk_flux_output(FkFluxRun *run) {
  const Rows rows = rows_of(run, &(FkFluxPass){0});
  output_layer(&rows);
}

FkTensor fk_flux_probe(FkFluxRun *run) {
  FkLayerNorm norm = modulated(run, run->text, run->target, fk_flux_mod_offset(run->flux, 0), 0);
  fk_op_layer_norm(run->be, run->arena, &norm, 1);
  return norm.y;
}

void fk_flux_forward(FkFluxRun *run, const FkFluxPass *pass) {
  run_piece(run, pass, 0, &(Piece){0, fk_flux_blocks(run->flux), true});
}
