/* SPDX-License-Identifier: Apache-2.0 */
/* The op line (ops.h): checks, counts, and the compositions that define the fused ops. Decides nothing about the model
 * and knows no backend but its table. libc only.
 *
 * What a kernel or a composition needs beside its operands comes from the arena that the caller passes, and is given
 * back at once: plans see it, and no op allocates. */
#include "op.h"

#include "expand.h"

#include <string.h>

/* Scales as quantize makes them. */
static bool is_any_scale(FkTensor scale, FkTensor codes) {
  if (is_scale(scale, codes)) return true;
  const int64_t block = scale.rank == 2 && scale.dim[1] > 0 ? fk_tensor_cols(codes) / scale.dim[1] : 0;
  return is_block_scale(scale, codes, 1, block) || is_block_scale(scale, codes, FK_QUANT_BLOCK, block);
}

/* A weight of codes and the scales beside it; with x_scale, x is codes of the same type. */
static bool is_quantised_pair(const FkLinear *l) {
  const FkScale *s = &l->w.scale;
  const int64_t block = s->kind == FK_SCALE_BLOCK ? s->block : FK_QUANT_BLOCK;
  if ((l->w.dtype != FK_E4M3 && l->w.dtype != FK_I8) || (s->dtype != FK_F32 && s->dtype != FK_E8M0)) return false;
  if (block <= 0 || (FK_QUANT_PROMOTE % block && block % FK_QUANT_PROMOTE)) return false;
  if (s->kind == FK_SCALE_BLOCK && l->w.in % block) return false;
  return fk_tensor_given(l->x_scale)
             ? is_scale(l->x_scale, l->x) && l->x.dtype == l->w.dtype && l->w.in <= FK_QUANT_MAX_K
             : l->x.dtype != FK_E4M3 && l->x.dtype != FK_I8;
}

/* Shapes and types of one group, as backend.h has them at FkLinear. */
static void check_linear(const FkBackend *be, const FkLinear *l) {
  int64_t m = fk_tensor_rows(l->x), n = l->w.out;
  assert(fk_tensor_cols(l->x) == l->w.in && fk_tensor_rows(l->y) == m && fk_tensor_cols(l->y) == n);
  assert(is_optional_vector(l->bias, n));
  assert(l->w.scale.kind == FK_SCALE_NONE ? !fk_tensor_given(l->x_scale) : is_quantised_pair(l));
  assert(!fk_tensor_given(l->y_codes) ||
         (is_coded(l->y_codes, l->y_scale, l->y) && is_given(be, l->y_codes, l->given)));
  assert(!fk_tensor_given(l->y_codes) || fk_tensor_cols(l->y_codes) == (l->epilogue == FK_EPI_ACT   ? n
                                                                        : l->epilogue == FK_EPI_QKV ? n - 3 * l->width
                                                                                                    : 0));
  assert(l->epilogue != FK_EPI_GATE || is_vector(l->gate, n));
  if (l->epilogue != FK_EPI_QKV) return;
  assert(l->width > 0 && (n == 2 * l->width || n >= 3 * l->width)); /* keys and values only, or all */
  assert(l->q_norm.rank == 1 && is_vector(l->q_norm, l->q_norm.dim[0]));
  assert(is_vector(l->k_norm, l->q_norm.dim[0]) && l->width % l->q_norm.dim[0] == 0);
  assert(l->rope.dtype == FK_F32 && fk_tensor_rows(l->rope) == m && fk_tensor_cols(l->rope) == l->q_norm.dim[0]);
  (void)be;
  (void)m;
  (void)n;
}

/* FK_EPI_QKV after the plain product: norm and rotation of K and Q, gelu of the MLP columns. */
static void compose_qkv(FkBackend *be, const FkLinear *l) {
  int64_t d = l->width, rest = l->w.out - 3 * d, heads = d / l->q_norm.dim[0];
  FkTensor k = fk_tensor_slice_cols(l->y, 0, d);
  be->ops->rms_norm(be, k, k, l->k_norm, 1e-6f);
  be->ops->rope(be, k, l->rope, heads);
  if (rest < 0) return;
  FkTensor q = fk_tensor_slice_cols(l->y, 2 * d, d);
  be->ops->rms_norm(be, q, q, l->q_norm, 1e-6f);
  be->ops->rope(be, q, l->rope, heads);
  if (rest == 0) return;
  FkTensor mlp = fk_tensor_slice_cols(l->y, 3 * d, rest);
  be->ops->act(be, mlp, mlp, FK_ACT_GELU_TANH);
}

/* `l` as a plain product, then what its epilogue adds. */
static void compose_linear(FkBackend *be, FkArena *arena, const FkLinear *l) {
  FkLinear plain = {.x = l->x, .x_scale = l->x_scale, .y = l->y, .bias = l->bias, .w = l->w, .scratch = l->scratch};
  const size_t mark = fk_arena_mark(arena);
  if (l->epilogue == FK_EPI_GATE || l->epilogue == FK_EPI_ADD)
    plain.y = fk_arena_2d(arena, l->y.dtype, fk_tensor_rows(l->y), fk_tensor_cols(l->y));
  if (be->failure == FK_FAIL_NONE) be->ops->linear(be, &plain);
  if (l->epilogue == FK_EPI_GATE)
    be->ops->gate_add(be, fk_tensor_flat(l->y), plain.y, l->gate);
  else if (l->epilogue == FK_EPI_ADD)
    be->ops->add(be, fk_tensor_flat(l->y), fk_tensor_flat(l->y), plain.y);
  else if (l->epilogue == FK_EPI_QKV)
    compose_qkv(be, l);
  else if (l->act != FK_ACT_NONE)
    be->ops->act(be, plain.y, plain.y, l->act);
  fk_arena_reset(arena, mark);
}

/* Groups whose results are numbers. A plain product is basic: the fused slot is not asked for it. */
static void run_linear(FkBackend *be, FkArena *arena, const FkLinear *l, int groups, bool fused) {
  const bool plain = groups == 1 && l->epilogue == FK_EPI_ACT && l->act == FK_ACT_NONE;
  if (!plain && fused && be->ops->linear_fused(be, l, groups)) return;
  for (int i = 0; i < groups && be->failure == FK_FAIL_NONE; i++) compose_linear(be, arena, &l[i]);
}

/* Groups whose results are codes: from their kernel, or made from the numbers. */
static void run_coded(FkBackend *be, FkArena *arena, const FkLinear *l, int groups, bool fused) {
  FkLinear numbers[FK_MAX_GROUPS];
  if (fused && fk_backend_uses(be, FK_CAN_FUSED_CODES) && be->ops->linear_fused(be, l, groups)) return;
  for (int i = 0; i < groups; i++) {
    numbers[i] = l[i];
    numbers[i].y_codes = numbers[i].y_scale = fk_tensor_none();
  }
  run_linear(be, arena, numbers, groups, fused);
  for (int i = 0; i < groups && be->failure == FK_FAIL_NONE; i++) {
    const int64_t n = fk_tensor_cols(l[i].y_codes), first = l[i].w.out - n;
    be->ops->quantize(be, l[i].y_codes, l[i].y_scale, fk_tensor_slice_cols(l[i].y, first, n), l[i].given);
  }
}

/* Kernel scratch of this case in all its groups. False: no memory, marked. A plan asks the backend that will run. */
static bool take_scratch(FkBackend *be, FkArena *arena, FkLinear *l, int groups) {
  const FkBackend *real = be->real ? be->real : be;
  const size_t bytes = real->ops->scratch ? real->ops->scratch(real, l, groups) : 0;
  if (bytes) l->scratch = fk_arena_alloc(arena, bytes);
  for (int i = 1; i < groups; i++) l[i].scratch = l->scratch;
  return be->failure == FK_FAIL_NONE;
}

static inline bool is_expansion(FkTensor y, const FkCoded *x) {
  return fk_tensor_rows(y) == x->rows && fk_tensor_cols(y) == x->cols && (y.dtype == FK_F32 || y.dtype == FK_BF16);
}

static double bytes_of_coded(const FkCoded *x) {
  const double row = (double)(fk_coded_row_bytes(x->form, x->cols) + fk_coded_row_scales(x->form, x->cols));
  if (!x->adapted) return (double)x->rows * row;
  const double size = (double)fk_dtype_size(x->operands), right = (double)fk_adapted_right(x->adapted) / sizeof(float);
  return (double)x->rows * (row + size * (double)fk_adapted_ranks(x->adapted)) + size * right;
}

void fk_op_expand(FkBackend *be, FkTensor y, const FkCoded *x) {
  assert(is_expansion(y, x));
  if (BEGIN(be, bytes_of_coded(x) + bytes_of(y))) be->ops->expand(be, y, x);
}

/* Scratch is taken before the fused slot or the composition, so that a plan counts it whichever the backend would
 * choose. */
void fk_op_linear(FkBackend *be, FkArena *arena, const FkLinear *linear, int groups) {
  FkLinear l[FK_MAX_GROUPS];
  assert(groups >= 1 && groups <= FK_MAX_GROUPS);
  double bytes = 0, flop = 0;
  const size_t mark = fk_arena_mark(arena);
  memcpy(l, linear, sizeof *l * (size_t)groups);
  const int slot = fk_expand_operands(be, arena, l, groups);
  for (int i = 0; i < groups; i++) {
    check_linear(be, &l[i]);
    assert(l[i].w.out == l[0].w.out && l[i].w.in == l[0].w.in && l[i].epilogue == l[0].epilogue);
    assert(l[i].act == l[0].act && l[i].width == l[0].width);
    assert(fk_tensor_given(l[i].y_codes) == fk_tensor_given(l[0].y_codes));
    double weight = (double)l[i].w.out * (double)l[i].w.in;
    bytes +=
        bytes_of(l[i].x) + result_bytes(l[i].y, l[i].y_codes, l[i].y_scale) + weight * fk_dtype_bits(l[i].w.dtype) / 8;
    flop += 2 * (double)fk_tensor_rows(l[i].x) * weight;
  }
  if (!BEGIN(be, bytes)) {
    fk_arena_reset(arena, mark);
    return;
  }
  be->count.linear_flop += flop;
  fk_profile_sizes(be, fk_tensor_rows(l[0].x) + (groups > 1 ? fk_tensor_rows(l[1].x) : 0), l->w.out, l->w.in);
  const bool fused =
      fk_backend_uses(be, l->epilogue == FK_EPI_QKV ? FK_CAN_FUSED_LINEAR | FK_CAN_FUSED_QKV : FK_CAN_FUSED_LINEAR);
  for (int i = 0; be->observer && i < groups; i++) be->observer->linear(be->observer, be, &l[i]);
  if (!take_scratch(be, arena, l, groups)) {
    fk_arena_reset(arena, mark);
    return;
  }
  if (fk_tensor_given(l->y_codes))
    run_coded(be, arena, l, groups, fused);
  else
    run_linear(be, arena, l, groups, fused);
  if (slot >= 0) fk_op_stream_done(be, slot);
  fk_arena_reset(arena, mark);
}

void fk_op_project(FkBackend *be, FkArena *arena, FkTensor y, FkTensor x, FkWeight w, FkTensor bias,
                   FkEpilogue epilogue, FkAct act) {
  const FkLinear l = {.x = x, .y = y, .w = w, .bias = bias, .epilogue = epilogue, .act = act};
  fk_op_linear(be, arena, &l, 1);
}

/* The float32 result, then its codes: defines what a fused kernel computes from its registers. */
static void compose_layer_norm(FkBackend *be, FkArena *arena, const FkLayerNorm *n) {
  FkLayerNorm plain = *n;
  const size_t mark = fk_arena_mark(arena);
  plain.y = fk_arena_2d(arena, FK_F32, fk_tensor_rows(n->x), fk_tensor_cols(n->x));
  plain.y_scale = fk_tensor_none();
  if (be->failure == FK_FAIL_NONE) be->ops->layer_norm(be, &plain, 1);
  if (be->failure == FK_FAIL_NONE) be->ops->quantize(be, n->y, n->y_scale, plain.y, n->given);
  fk_arena_reset(arena, mark);
}

void fk_op_layer_norm(FkBackend *be, FkArena *arena, const FkLayerNorm *n, int groups) {
  assert(groups >= 1 && groups <= FK_MAX_GROUPS);
  double bytes = 0;
  for (int i = 0; i < groups; i++) {
    int64_t cols = fk_tensor_cols(n[i].x);
    assert(same_shape(n[i].x, n[i].y) && cols == fk_tensor_cols(n[0].x));
    assert(is_optional_vector(n[i].weight, cols) && is_optional_vector(n[i].bias, cols));
    assert(is_optional_vector(n[i].scale, cols) && is_optional_vector(n[i].shift, cols));
    assert(!fk_tensor_given(n[i].weight) || !fk_tensor_given(n[i].scale));
    assert(!fk_tensor_given(n[i].y_scale) || is_scale(n[i].y_scale, n[i].y));
    assert(fk_tensor_given(n[i].y_scale) == fk_tensor_given(n[0].y_scale));
    assert(is_given(be, n[i].y, n[i].given));
    bytes += bytes_of(n[i].x) + bytes_of(n[i].y) + bytes_of(n[i].y_scale);
    (void)cols;
  }
  if (!BEGIN(be, bytes)) return;
  if (!fk_tensor_given(n->y_scale))
    be->ops->layer_norm(be, n, groups);
  else if (!be->ops->layer_norm_quantized || !be->ops->layer_norm_quantized(be, n, groups))
    for (int i = 0; i < groups; i++) compose_layer_norm(be, arena, &n[i]);
}

void fk_op_rms_norm(FkBackend *be, FkTensor y, FkTensor x, FkTensor weight, float eps) {
  assert(same_shape(x, y) && weight.rank == 1 && is_vector(weight, weight.dim[0]));
  assert(fk_tensor_cols(x) % weight.dim[0] == 0);
  if (BEGIN(be, bytes_of(x) + bytes_of(y))) be->ops->rms_norm(be, y, x, weight, eps);
}

void fk_op_rope(FkBackend *be, FkTensor x, FkTensor table, int64_t heads) {
  assert(table.dtype == FK_F32 && fk_tensor_rows(table) == fk_tensor_rows(x) && fk_tensor_cols(table) % 2 == 0);
  assert(heads > 0 && fk_tensor_cols(x) == heads * fk_tensor_cols(table));
  if (BEGIN(be, 2 * bytes_of(x) + bytes_of(table))) be->ops->rope(be, x, table, heads);
}

void fk_op_act(FkBackend *be, FkTensor y, FkTensor x, FkAct act) {
  assert(same_shape(x, y) && x.dtype == y.dtype);
  if (BEGIN(be, bytes_of(x) + bytes_of(y))) be->ops->act(be, y, x, act);
}

void fk_op_add(FkBackend *be, FkTensor y, FkTensor a, FkTensor b) {
  assert(same_shape(a, y) && same_shape(b, y) && a.dtype == y.dtype && b.dtype == y.dtype);
  if (BEGIN(be, bytes_of(y) + bytes_of(a) + bytes_of(b))) be->ops->add(be, y, a, b);
}

void fk_op_mul(FkBackend *be, FkTensor y, FkTensor a, FkTensor b) {
  assert(same_shape(a, y) && same_shape(b, y) && a.dtype == y.dtype && b.dtype == y.dtype);
  if (BEGIN(be, bytes_of(y) + bytes_of(a) + bytes_of(b))) be->ops->mul(be, y, a, b);
}

void fk_op_gate_add(FkBackend *be, FkTensor y, FkTensor x, FkTensor gate) {
  assert(same_shape(x, y) && x.dtype == y.dtype && is_vector(gate, fk_tensor_cols(y)));
  if (BEGIN(be, 2 * bytes_of(y) + bytes_of(x))) be->ops->gate_add(be, y, x, gate);
}

void fk_op_copy(FkBackend *be, FkTensor y, FkTensor x) {
  assert(same_shape(x, y));
  if (BEGIN(be, bytes_of(x) + bytes_of(y))) be->ops->copy(be, y, x);
}

void fk_op_quantize(FkBackend *be, FkTensor y, FkTensor y_scale, FkTensor x) {
  fk_op_quantize_given(be, y, y_scale, x, 0);
}

void fk_op_quantize_given(FkBackend *be, FkTensor y, FkTensor y_scale, FkTensor x, float given) {
  assert(same_shape(x, y) && is_any_scale(y_scale, y) && (x.dtype == FK_F32 || x.dtype == FK_BF16));
  assert(is_given(be, y, given));
  if (begin_op(be, "quantize", bytes_of(x) + bytes_of(y) + bytes_of(y_scale)))
    be->ops->quantize(be, y, y_scale, x, given);
}

void fk_op_embed(FkBackend *be, FkTensor y, FkWeight table, FkTensor ids) {
  assert(is_index(ids, fk_tensor_rows(y)) && fk_tensor_cols(y) == table.in && table.scale.kind == FK_SCALE_NONE);
  if (BEGIN(be, 2 * bytes_of(y) + bytes_of(ids))) be->ops->embed(be, y, table, ids);
}

void fk_op_gather_rows(FkBackend *be, FkTensor y, FkTensor x, FkTensor index) {
  assert(is_index(index, fk_tensor_rows(y)) && fk_tensor_cols(x) == fk_tensor_cols(y) && x.dtype == y.dtype);
  if (BEGIN(be, 2 * bytes_of(y) + bytes_of(index))) be->ops->gather_rows(be, y, x, index);
}

/* Sizes of the result follow from the input, kernel, stride, padding and doubling. */
static void check_conv(const FkConv *c) {
  int64_t up = c->upsample ? 2 : 1, pad = c->pad_before + c->pad_after;
  assert(c->x.rank == 3 && c->y.rank == 3 && c->kernel > 0 && c->stride > 0);
  assert(c->w.in == (int64_t)c->kernel * c->kernel * c->x.dim[2] && c->w.out == c->y.dim[2]);
  assert(c->y.dim[0] == (c->x.dim[0] * up + pad - c->kernel) / c->stride + 1);
  assert(c->y.dim[1] == (c->x.dim[1] * up + pad - c->kernel) / c->stride + 1);
  assert(is_optional_vector(c->bias, c->w.out));
  assert(!fk_tensor_given(c->residual) || (same_shape(c->residual, c->y) && c->residual.dtype == c->y.dtype));
  (void)up;
  (void)pad;
}

/* The doubled input in memory, the plain convolution, then the sum with the residual. */
static void compose_conv(FkBackend *be, FkArena *arena, const FkConv *c) {
  FkConv plain = *c;
  size_t mark = fk_arena_mark(arena);
  if (c->upsample) {
    plain.x = fk_arena_3d(arena, c->x.dtype, 2 * c->x.dim[0], 2 * c->x.dim[1], c->x.dim[2]);
    plain.upsample = false;
    if (be->failure != FK_FAIL_NONE) return;
    be->ops->upsample(be, plain.x, c->x);
  }
  bool residual = fk_tensor_given(c->residual);
  if (residual && c->residual.data == c->y.data) { /* added in place: y is read after the convolution */
    plain.y = fk_arena_3d(arena, c->y.dtype, c->y.dim[0], c->y.dim[1], c->y.dim[2]);
    if (be->failure != FK_FAIL_NONE) return;
  }
  plain.residual = fk_tensor_none();
  be->ops->conv(be, &plain);
  if (residual) be->ops->add(be, c->y, plain.y, c->residual);
  fk_arena_reset(arena, mark);
}

void fk_op_conv(FkBackend *be, FkArena *arena, const FkConv *c) {
  check_conv(c);
  double weight = (double)c->w.out * (double)c->w.in;
  double bytes = bytes_of(c->x) + bytes_of(c->y) + bytes_of(c->residual) + weight * fk_dtype_bits(c->w.dtype) / 8;
  if (!BEGIN(be, bytes)) return;
  be->count.conv_flop += 2 * (double)fk_tensor_rows(c->y) * weight;
  fk_profile_sizes(be, fk_tensor_rows(c->y), c->w.out, c->w.in);
  if (fk_backend_uses(be, FK_CAN_FUSED_CONV) && be->ops->conv_fused(be, c)) return;
  compose_conv(be, arena, c);
}

/* Bytes: x is read twice, for its statistics and for the result. */
void fk_op_group_norm(FkBackend *be, const FkGroupNorm *n) {
  int64_t cols = fk_tensor_cols(n->x);
  assert(same_shape(n->x, n->y) && n->groups > 0 && cols % n->groups == 0);
  assert(is_optional_vector(n->weight, cols) && is_optional_vector(n->bias, cols));
  if (!BEGIN(be, 2 * bytes_of(n->x) + bytes_of(n->y))) return;
  (void)cols;
  if (n->silu && fk_backend_uses(be, FK_CAN_FUSED_GROUP_NORM) && be->ops->group_norm_silu(be, n)) return;
  be->ops->group_norm(be, n);
  if (n->silu) be->ops->act(be, n->y, n->y, FK_ACT_SILU);
}

/* Token and latent of one pack: C channels of the latent may be more than the tokens hold. */
static void check_pack(FkTensor tokens, FkTensor latent) {
  assert(latent.rank == 3 && latent.dim[0] % 2 == 0 && latent.dim[1] % 2 == 0);
  assert(fk_tensor_rows(tokens) == latent.dim[0] * latent.dim[1] / 4);
  assert(fk_tensor_cols(tokens) % 4 == 0 && fk_tensor_cols(tokens) / 4 <= latent.dim[2]);
  (void)tokens;
  (void)latent;
}

void fk_op_pack(FkBackend *be, FkTensor tokens, FkTensor latent, float scale, float shift) {
  check_pack(tokens, latent);
  if (BEGIN(be, 2 * bytes_of(tokens))) be->ops->pack(be, tokens, latent, scale, shift);
}

void fk_op_unpack(FkBackend *be, FkTensor latent, FkTensor tokens, float scale, float shift) {
  check_pack(tokens, latent);
  if (BEGIN(be, 2 * bytes_of(tokens))) be->ops->unpack(be, latent, tokens, scale, shift);
}

void fk_op_from_u8(FkBackend *be, FkTensor y, FkTensor x) {
  assert(same_shape(x, y) && x.dtype == FK_U8 && y.dtype != FK_U8);
  if (BEGIN(be, bytes_of(x) + bytes_of(y))) be->ops->from_u8(be, y, x);
}

void fk_op_to_u8(FkBackend *be, FkTensor y, FkTensor x) {
  assert(same_shape(x, y) && y.dtype == FK_U8 && x.dtype != FK_U8);
  if (BEGIN(be, bytes_of(x) + bytes_of(y))) be->ops->to_u8(be, y, x);
}

void fk_op_combine(FkBackend *be, FkTensor y, int n, const FkTensor *x, FkTensor coef) {
  assert(n >= 1 && n <= FK_MAX_TERMS && coef.dtype == FK_F32 && coef.rank == 1 && coef.dim[0] >= n);
  double bytes = bytes_of(y);
  for (int i = 0; i < n; i++) {
    assert(same_shape(x[i], y));
    bytes += bytes_of(x[i]);
  }
  if (BEGIN(be, bytes)) be->ops->combine(be, y, n, x, coef);
}

void fk_op_distance(FkBackend *be, FkTensor out, FkTensor a, FkTensor b) {
  assert(same_shape(a, b) && is_vector(out, 2));
  if (BEGIN(be, bytes_of(a) + bytes_of(b))) be->ops->distance(be, out, a, b);
}

void fk_op_check(FkBackend *be, FkTensor x, const char *stage) {
  if (BEGIN(be, bytes_of(x))) be->ops->check(be, x, stage);
}

void fk_op_match(FkBackend *be, FkTensor best, FkTensor score, FkTensor src, FkTensor dst) {
  int64_t rows = fk_tensor_rows(src);
  assert(is_index(best, rows) && is_vector(score, rows));
  assert(fk_tensor_cols(src) == fk_tensor_cols(dst) && fk_tensor_rows(dst) > 0);
  if (!BEGIN(be, bytes_of(src) + bytes_of(dst))) return;
  be->count.linear_flop += 2 * (double)rows * (double)fk_tensor_rows(dst) * (double)fk_tensor_cols(src);
  be->ops->match(be, best, score, src, dst);
}

void fk_op_mean_rows(FkBackend *be, FkTensor y, FkTensor x, FkTensor first, FkTensor index) {
  assert(is_index(first, fk_tensor_rows(y) + 1) && index.dtype == FK_I32 && index.rank == 1);
  assert(fk_tensor_cols(x) == fk_tensor_cols(y) && x.dtype == y.dtype);
  if (BEGIN(be, bytes_of(x) + bytes_of(y) + bytes_of(index))) be->ops->mean_rows(be, y, x, first, index);
}

void fk_op_upload(FkBackend *be, FkTensor to, const void *from) {
  assert(to.rank == 1 || to.ld == fk_tensor_cols(to));
  if (be->failure == FK_FAIL_NONE) be->ops->upload(be, to.data, from, fk_tensor_bytes(to));
}

/* After a failure `to` is zeros, so that a decision taken on it is at least a defined one. */
void fk_op_download(FkBackend *be, void *to, FkTensor from) {
  assert(from.rank == 1 || from.ld == fk_tensor_cols(from));
  if (be->failure == FK_FAIL_NONE)
    be->ops->download(be, to, from.data, fk_tensor_bytes(from));
  else
    memset(to, 0, fk_tensor_bytes(from));
}

void fk_op_event_record(FkBackend *be, int event) {
  assert(event >= 0 && event < FK_LOOP_EVENTS);
  if (be->failure == FK_FAIL_NONE) be->ops->event_record(be, event);
}

void fk_op_event_wait(FkBackend *be, int event) {
  assert(event >= 0 && event < FK_LOOP_EVENTS);
  if (be->failure == FK_FAIL_NONE) be->ops->event_wait(be, event);
}

void fk_op_range(FkBackend *be, const char *name) {
  if (be->ops->range) be->ops->range(be, name);
}

/* Without the capability ops are issued as they come. After a failure as well: they then do nothing. */
void fk_op_stream_copy(FkBackend *be, int slot, void *to, const void *from, size_t bytes) {
  assert(slot >= 0 && slot < FK_RING_SLOTS);
  if (be->failure) return;
  be->count.streamed += (double)bytes;
  be->ops->stream_copy(be, slot, to, from, bytes);
}

void fk_op_stream_expand(FkBackend *be, int slot, FkTensor y, const FkCoded *x) {
  assert(slot >= 0 && slot < FK_STREAM_SLOTS && is_expansion(y, x));
  if (BEGIN(be, bytes_of_coded(x) + bytes_of(y))) be->ops->stream_expand(be, slot, y, x);
}

void fk_op_stream_wait(FkBackend *be, int slot) {
  if (!be->failure) be->ops->stream_wait(be, slot);
}

void fk_op_stream_done(FkBackend *be, int slot) {
  if (!be->failure) be->ops->stream_done(be, slot);
}

bool fk_op_graph_begin(FkBackend *be, int key) {
  if (be->failure != FK_FAIL_NONE || !fk_backend_uses(be, FK_CAN_GRAPH)) return true;
  return be->ops->graph_begin(be, key);
}

/* Also after a failure: a recording that was begun must be closed. */
void fk_op_graph_end(FkBackend *be, int key) {
  if (fk_backend_uses(be, FK_CAN_GRAPH) && be->ops->graph_end) be->ops->graph_end(be, key);
}
