/* SPDX-License-Identifier: Apache-2.0 */
/* Attention on the op line (ops.h): of numbers, and of numbers that become codes, all or the values alone; results in
 * numbers, or in codes that a kernel gives or that are made of the numbers. libc only. */
#include "op.h"

/* Shapes that numbers and codes have in common. */
static void check_attention(const FkAttention *a) {
  const int64_t rows = fk_tensor_rows(a->q), keys = fk_tensor_rows(a->k), cols = fk_tensor_cols(a->q);
  assert(a->heads > 0 && cols % a->heads == 0 && keys > 0);
  assert(same_shape(a->q, a->o) && same_shape(a->k, a->v) && fk_tensor_cols(a->k) == cols);
  assert(!fk_tensor_given(a->o_codes) || (is_coded(a->o_codes, a->o_scale, a->o) && same_shape(a->o_codes, a->o)));
  assert(!fk_tensor_given(a->o_codes) || (a->given_rows >= 0 && a->given_rows <= rows));
  assert(!fk_tensor_given(a->bias) || a->bias.dtype == FK_F32);
  assert(!fk_tensor_given(a->bias) ||
         (fk_tensor_rows(a->bias) == a->heads && fk_tensor_cols(a->bias) == rows + keys - 1));
  (void)rows;
  (void)keys;
  (void)cols;
}

/* 2 FLOP for each product of scores and of values. */
static void count_attention(FkBackend *be, const FkAttention *a) {
  const int64_t rows = fk_tensor_rows(a->q), keys = fk_tensor_rows(a->k), cols = fk_tensor_cols(a->q);
  double pairs = (double)rows * (double)keys;
  if (a->causal) { /* query i meets the keys 0..i */
    const double met = (double)(rows < keys ? rows : keys);
    pairs = met * (met + 1) / 2 + ((double)rows - met) * (double)keys;
  }
  be->count.attention_flop += 4 * pairs * (double)cols;
  fk_profile_sizes(be, rows, keys, cols / a->heads);
}

/* The codes of a result in numbers. */
static void code_rows(FkBackend *be, const FkAttention *a) {
  const int64_t end[3] = {0, a->given_rows, fk_tensor_rows(a->o)};
  for (int i = 0; i < 2; i++) {
    const int64_t from = end[i], n = end[i + 1] - from;
    const FkTensor scale =
        a->o_scale.rank == 1 ? fk_tensor_slice(a->o_scale, from, n) : fk_tensor_slice_rows(a->o_scale, from, n);
    if (n == 0 || be->failure != FK_FAIL_NONE) continue;
    assert(is_given(be, a->o_codes, a->given[i]));
    be->ops->quantize(be, fk_tensor_slice_rows(a->o_codes, from, n), scale, fk_tensor_slice_rows(a->o, from, n),
                      a->given[i]);
  }
}

/* flash: what the fused slot needs for the result in numbers; 0: the basic slot has it. */
static void run_attention(FkBackend *be, const FkAttention *a, uint32_t flash) {
  FkAttention numbers = *a;
  const bool codes = fk_tensor_given(a->o_codes);
  if (codes && fk_backend_uses(be, flash | FK_CAN_FUSED_CODES) && be->ops->flash_attention(be, a)) return;
  numbers.o_codes = numbers.o_scale = fk_tensor_none();
  if (!flash || !fk_backend_uses(be, flash) || !be->ops->flash_attention(be, &numbers))
    be->ops->attention(be, &numbers);
  if (codes) code_rows(be, a);
}

static double attention_bytes(const FkAttention *a) {
  return bytes_of(a->q) + bytes_of(a->k) + bytes_of(a->v) + result_bytes(a->o, a->o_codes, a->o_scale);
}

void fk_op_attention(FkBackend *be, const FkAttention *a) {
  check_attention(a);
  assert(!fk_tensor_given(a->k_codes) && !fk_tensor_given(a->v_codes));
  if (!BEGIN(be, attention_bytes(a))) return;
  count_attention(be, a);
  run_attention(be, a, FK_CAN_FLASH);
}

/* With room for the codes of v and, where `keys`, of k. */
static void run_coded(FkBackend *be, FkArena *arena, const FkAttention *attention, bool keys) {
  FkAttention a = *attention;
  const size_t mark = fk_arena_mark(arena);
  const int64_t rows = fk_tensor_rows(a.k), cols = fk_tensor_cols(a.k);
  const int64_t tiles = (rows + FK_QUANT_BLOCK - 1) / FK_QUANT_BLOCK;
  check_attention(&a);
  assert(!fk_tensor_given(a.bias) && !a.causal && cols / a.heads <= FK_QUANT_HEAD);
  a.v_codes = fk_arena_2d(arena, FK_E4M3, tiles * FK_QUANT_BLOCK, cols);
  a.v_scale = fk_arena_2d(arena, FK_F32, keys ? (rows + FK_QUANT_VALUES - 1) / FK_QUANT_VALUES : tiles, a.heads);
  double codes = bytes_of(a.v_codes);
  if (keys) {
    a.k_codes = fk_arena_2d(arena, FK_I8, rows, cols);
    a.k_scale = fk_arena_2d(arena, FK_F32, tiles, a.heads);
    a.v_mean = fk_arena_1d(arena, FK_F32, cols);
    codes += bytes_of(a.k_codes);
  }
  if (begin_op(be, keys ? "attention_quantized" : "attention_value_codes", attention_bytes(&a) + 2 * codes)) {
    count_attention(be, &a);
    run_attention(be, &a, 0);
  }
  fk_arena_reset(arena, mark);
}

void fk_op_attention_quantized(FkBackend *be, FkArena *arena, const FkAttention *a) {
  assert(be->can & FK_CAN_QUANT_ATTENTION);
  run_coded(be, arena, a, true);
}

void fk_op_attention_value_codes(FkBackend *be, FkArena *arena, const FkAttention *a) {
  assert(be->can & FK_CAN_VALUE_CODES);
  run_coded(be, arena, a, false);
}
