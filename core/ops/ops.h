/* SPDX-License-Identifier: Apache-2.0 */
/* The op line: one function per tensor operation, checked here, executed by a backend. libc only.
 *
 * Wrong shapes are assertions (our bug, never a user's). Every function returns at once when the backend has failed.
 * A fused op is defined by the composition of basic ops that this file's .c runs where a backend has no kernel for it.
 */
#ifndef FK_OPS_H
#define FK_OPS_H

#include "backend.h"

/* What each op computes, its types and its order of sums stand at the slot of its name in FkOps (backend.h), what a
 * struct means at the struct. Here: shapes, and who gives memory. "As x" is any tensor of as many rows and columns;
 * views with holes between rows are allowed but for vectors, indices and scales. */

/* FkLinear: 1 or 2 groups of one shape [N, K], epilogue and activation. Kernel scratch, what compositions keep and
 * matrices that are expanded for this op come from `arena` and are given back; arena NULL where none is needed. */
void fk_op_linear(FkBackend *be, FkArena *arena, const FkLinear *l, int groups);
/* One product with the epilogue ACT or ADD: y [M, N], x [M, K], bias [N] or none. */
void fk_op_project(FkBackend *be, FkArena *arena, FkTensor y, FkTensor x, FkWeight w, FkTensor bias,
                   FkEpilogue epilogue, FkAct act);
/* FkLayerNorm: 1 or 2 groups of as many columns. `arena` only with y_scale, for the composition. */
void fk_op_layer_norm(FkBackend *be, FkArena *arena, const FkLayerNorm *n, int groups);
/* y as x [S, N*E], weight [E]; y may be x. */
void fk_op_rms_norm(FkBackend *be, FkTensor y, FkTensor x, FkTensor weight, float eps);
/* x [S, N*E] in place, table [S, E] float32: cosine and sine of each pair of channels. */
void fk_op_rope(FkBackend *be, FkTensor x, FkTensor table, int64_t heads);
/* FkAttention without scales. */
void fk_op_attention(FkBackend *be, const FkAttention *a);
/* FkAttention of numbers whose queries, keys and values become codes; room for these lies in `arena` meanwhile. No
 * bias, not causal. The backend has FK_CAN_QUANT_ATTENTION. */
void fk_op_attention_quantized(FkBackend *be, FkArena *arena, const FkAttention *a);
/* FkAttention of numbers whose values become codes; room for these lies in `arena` meanwhile. No bias, not causal. The
 * backend has FK_CAN_VALUE_CODES. */
void fk_op_attention_value_codes(FkBackend *be, FkArena *arena, const FkAttention *a);
/* y as x and of its type; y may be x, here and in the three below. */
void fk_op_act(FkBackend *be, FkTensor y, FkTensor x, FkAct act);
/* y, a and b alike. */
void fk_op_add(FkBackend *be, FkTensor y, FkTensor a, FkTensor b);
void fk_op_mul(FkBackend *be, FkTensor y, FkTensor a, FkTensor b);
/* y [S, D] += gate [D] * x [S, D]. */
void fk_op_gate_add(FkBackend *be, FkTensor y, FkTensor x, FkTensor gate);
/* y as x, types may differ. */
void fk_op_copy(FkBackend *be, FkTensor y, FkTensor x);
/* y [rows, cols] codes as x; y_scale [rows], [rows, cols / C] or [ceil(rows / 128), cols / C]. */
void fk_op_quantize(FkBackend *be, FkTensor y, FkTensor y_scale, FkTensor x);
/* given not 0: E4M3 codes under this scale, with FK_CAN_GIVEN_SCALE. */
void fk_op_quantize_given(FkBackend *be, FkTensor y, FkTensor y_scale, FkTensor x, float given);
/* y as [rows, cols] of x. */
void fk_op_expand(FkBackend *be, FkTensor y, const FkCoded *x);
/* y [S, D], table [words, D] without scales, ids [S] int32. */
void fk_op_embed(FkBackend *be, FkTensor y, FkWeight table, FkTensor ids);
/* y [A, D], x [B, D], index [A] int32. */
void fk_op_gather_rows(FkBackend *be, FkTensor y, FkTensor x, FkTensor index);
/* FkConv. Scratch for the composition (doubled input) comes from `arena` and is given back. */
void fk_op_conv(FkBackend *be, FkArena *arena, const FkConv *c);
/* FkGroupNorm. */
void fk_op_group_norm(FkBackend *be, const FkGroupNorm *n);
/* tokens [(H/2)*(W/2), 4C], latent [H, W, C or more]. */
void fk_op_pack(FkBackend *be, FkTensor tokens, FkTensor latent, float scale, float shift);
void fk_op_unpack(FkBackend *be, FkTensor latent, FkTensor tokens, float scale, float shift);
/* Pixels: one of the two is FK_U8, y as x. */
void fk_op_from_u8(FkBackend *be, FkTensor y, FkTensor x);
void fk_op_to_u8(FkBackend *be, FkTensor y, FkTensor x);
/* FkResize. */
void fk_op_resize(FkBackend *be, const FkResize *r);
/* y [H, W, n] inside f from left, top; x, before, after [height, width, channels] of f. */
void fk_op_frame_read(FkBackend *be, FkTensor y, const FkFrame *f, int left, int top, int first);
void fk_op_frame_write(FkBackend *be, const FkFrame *f, FkTensor x);
void fk_op_frame_keep(FkBackend *be, const FkFrame *to, const FkFrame *from, FkTensor before, FkTensor after);
/* y, x alike, bytes; fade [rows of y]. */
void fk_op_mix(FkBackend *be, FkTensor y, FkTensor x, FkTensor fade);
/* x [H, W, 1] bytes; y alike, [4] int32, [(H/16)(W/16), 4 C] float32. */
void fk_op_invert(FkBackend *be, FkTensor y, FkTensor x);
void fk_op_window(FkBackend *be, FkTensor y, FkTensor x, FkWindow window, int radius, bool columns);
void fk_op_bounds(FkBackend *be, FkTensor y, FkTensor x);
void fk_op_mask_tokens(FkBackend *be, FkTensor y, FkTensor x);
/* x[0..n), all as y; coef [n or more] float32 in backend memory; n up to FK_MAX_TERMS. */
void fk_op_combine(FkBackend *be, FkTensor y, int n, const FkTensor *x, FkTensor coef);
/* out [2] float32 in backend memory, a as b. */
void fk_op_distance(FkBackend *be, FkTensor out, FkTensor a, FkTensor b);
/* x of any shape; `stage` is a string literal. */
void fk_op_check(FkBackend *be, FkTensor x, const char *stage);
/* src [A, D], dst [B, D], best [A] int32, score [A] float32. */
void fk_op_match(FkBackend *be, FkTensor best, FkTensor score, FkTensor src, FkTensor dst);
/* y [A, D], x [B, D], first [A + 1] and index int32. */
void fk_op_mean_rows(FkBackend *be, FkTensor y, FkTensor x, FkTensor first, FkTensor index);

/* The whole of a tensor without holes from or to host memory. */
void fk_op_upload(FkBackend *be, FkTensor to, const void *from);
void fk_op_download(FkBackend *be, void *to, FkTensor from);
/* Events 0..FK_LOOP_EVENTS-1. */
void fk_op_event_record(FkBackend *be, int event);
void fk_op_event_wait(FkBackend *be, int event);
/* Ranges of a profiler's timeline nest; name NULL closes the last. Also after a failure: they must stay paired. */
void fk_op_range(FkBackend *be, const char *name);
/* Weights that come while ops run; see FkOps.stream_copy. */
void fk_op_stream_copy(FkBackend *be, int slot, void *to, const void *from, size_t bytes);
void fk_op_stream_expand(FkBackend *be, int slot, FkTensor y, const FkCoded *x); /* as fk_op_expand */
void fk_op_stream_wait(FkBackend *be, int slot);
void fk_op_stream_done(FkBackend *be, int slot);
/* Record or replay what is enqueued between begin and end; see FkOps.graph_begin. */
bool fk_op_graph_begin(FkBackend *be, int key);
void fk_op_graph_end(FkBackend *be, int key);

#endif
