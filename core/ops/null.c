/* SPDX-License-Identifier: Apache-2.0 */
/* The null backend: computes nothing and touches no memory, so it walks the 12 B model on any machine (memory plan,
 * FLOP) and lets an element be tested without weights. What an op costs is counted in ops.c, for every backend.
 *
 * Addresses are made up and must not be followed. download writes a fixed pattern. */

/* clang-format off */
/* For tests, read when it opens:
 *   FK_NULL_STEP_MS=n     each step takes n milliseconds: waiting for an event sleeps, once per record
 *   FK_NULL_FAIL_STEP=k   the k-th record since open or fk_backend_clear fails as a device would; k from 1
 *   FK_NULL_FAIL_ALLOC=k  the k-th allocation since open is refused */
/* clang-format on */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "backend.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct {
  long step_ms, fail_step, fail_alloc;
  long records, allocs;
  uint32_t clears;          /* FkBackend.clears that `records` counts from */
  size_t next;              /* next made-up address */
  bool recorded[FK_EVENTS]; /* and not yet waited for */
} FkNull;

/* A variable's whole number, 0 where it is not set. False with a message: it is something else. */
static bool read_setting(const char *name, long *value, char *message, size_t size) {
  const char *text = secure_getenv(name);
  char *end = NULL;
  *value = text ? strtol(text, &end, 10) : 0;
  if (!text || (end != text && *end == 0 && *value >= 0 && *value < INT_MAX)) return true;
  snprintf(message, size, "%s is '%.40s': expected a whole number from 0 to %d", name, text, INT_MAX - 1);
  return false;
}

/* bfloat16, because the model it walks is meant for a GPU; the owner may set another dtype after open. */
static bool null_open(FkBackend *be, int device, char *message, size_t size) {
  (void)device;
  FkNull *null = calloc(1, sizeof *null);
  if (!null) {
    be->failure = FK_FAIL_MEMORY;
    snprintf(message, size, "no memory for the null backend");
    return false;
  }
  if (!read_setting("FK_NULL_STEP_MS", &null->step_ms, message, size) ||
      !read_setting("FK_NULL_FAIL_STEP", &null->fail_step, message, size) ||
      !read_setting("FK_NULL_FAIL_ALLOC", &null->fail_alloc, message, size)) {
    free(null);
    return false;
  }
  null->next = 1u << 20;
  be->priv = null;
  be->dtype = FK_BF16;
  be->can = FK_CAN_FP8 | FK_CAN_QUANT_ATTENTION | FK_CAN_GIVEN_SCALE | FK_CAN_VALUE_CODES | FK_CAN_WEIGHT_CODES |
            fk_backend_host_device(be);
  snprintf(be->machine, sizeof be->machine, "null (computes nothing)");
  return true;
}

static void null_close(FkBackend *be) {
  free(be->priv);
  be->priv = NULL;
}

/* Never the limit: half of what a size can say, so that sums do not wrap. */
static void null_memory(FkBackend *be, size_t *free_bytes, size_t *total_bytes) {
  (void)be;
  *free_bytes = *total_bytes = SIZE_MAX / 2;
}

static void *null_alloc(FkBackend *be, size_t bytes) {
  FkNull *null = be->priv;
  if (++null->allocs == null->fail_alloc) return NULL;
  void *memory = (void *)(uintptr_t)null->next;
  null->next += (bytes / 256 + 1) * 256;
  return memory;
}

static void null_release(FkBackend *be, void *memory) {
  (void)be;
  (void)memory;
}

static void null_upload(FkBackend *be, void *to, const void *from, size_t bytes) {
  (void)be;
  (void)to;
  (void)from;
  (void)bytes;
}

static void null_download(FkBackend *be, void *to, const void *from, size_t bytes) {
  (void)be;
  (void)from;
  for (size_t i = 0; i < bytes; i++) ((uint8_t *)to)[i] = (uint8_t)(i * 37 + 11);
}

static void null_sync(FkBackend *be) {
  (void)be;
}

static void null_event_record(FkBackend *be, int event) {
  FkNull *null = be->priv;
  assert(event >= 0 && event < FK_EVENTS);
  if (null->clears != be->clears) null->records = 0;
  null->clears = be->clears;
  null->recorded[event] = true;
  if (++null->records == null->fail_step)
    fk_backend_fail(be, FK_FAIL_DEVICE, "null backend: failure asked for at step %ld", null->fail_step);
}

static void null_event_wait(FkBackend *be, int event) {
  FkNull *null = be->priv;
  assert(event >= 0 && event < FK_EVENTS);
  if (!null->recorded[event] || null->step_ms <= 0) return;
  null->recorded[event] = false;
  struct timespec left = {null->step_ms / 1000, null->step_ms % 1000 * 1000000};
  while (nanosleep(&left, &left) != 0) continue; /* interrupted by a signal: sleep the rest */
}

static double null_elapsed_ms(FkBackend *be, int from, int to) {
  const FkNull *null = be->priv;
  return (double)null->step_ms * (to - from);
}

static void null_stream_copy(FkBackend *be, int slot, void *to, const void *from, size_t bytes) {
  (void)be;
  (void)slot;
  (void)to;
  (void)from;
  (void)bytes;
}

static void null_stream_expand(FkBackend *be, int slot, FkTensor y, const FkCoded *x) {
  (void)be;
  (void)slot;
  (void)y;
  (void)x;
}

static void null_stream_mark(FkBackend *be, int slot) {
  (void)be;
  (void)slot;
}

/* The ops: nothing. One function per signature. */
#define NULL_OP(name, ...)                                                                                             \
  static void null_##name(FkBackend *be, __VA_ARGS__) {                                                                \
    (void)be;                                                                                                          \
  }

#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wunused-parameter" /* that is their nature */
#endif

NULL_OP(linear, const FkLinear *l)
NULL_OP(layer_norm, const FkLayerNorm *n, int groups)
NULL_OP(rms_norm, FkTensor y, FkTensor x, FkTensor weight, float eps)
NULL_OP(rope, FkTensor x, FkTensor table, int64_t heads)
NULL_OP(attention, const FkAttention *a)
NULL_OP(act, FkTensor y, FkTensor x, FkAct act)
NULL_OP(two, FkTensor y, FkTensor x)
NULL_OP(three, FkTensor y, FkTensor a, FkTensor b)
NULL_OP(four, FkTensor a, FkTensor b, FkTensor c, FkTensor d)
NULL_OP(quantize, FkTensor y, FkTensor y_scale, FkTensor x, float given)
NULL_OP(embed, FkTensor y, FkWeight table, FkTensor ids)
NULL_OP(expand, FkTensor y, const FkCoded *x)
NULL_OP(conv, const FkConv *c)
NULL_OP(group_norm, const FkGroupNorm *n)
NULL_OP(pack, FkTensor to, FkTensor from, float scale, float shift)
NULL_OP(resize, const FkResize *r)
NULL_OP(frame_read, FkTensor y, const FkFrame *f, int left, int top, int first)
NULL_OP(frame_keep, const FkFrame *to, const FkFrame *from, FkTensor before, FkTensor after)
NULL_OP(window, FkTensor y, FkTensor x, FkWindow window, int radius, bool columns)
NULL_OP(combine, FkTensor y, int n, const FkTensor *x, FkTensor coef)
NULL_OP(check, FkTensor x, const char *stage)

/* A fixed pattern, as download. The frame of a plan has no memory, or that of the device which it plans for. */
static void null_frame_write(FkBackend *be, const FkFrame *f, FkTensor x) {
  for (int s = 0; s < 4 && (be->can & FK_CAN_DEVICE_IMAGES); s++) {
    const FkFrameSample *p = &f->sample[s];
    if (!p->step || !f->data[p->plane]) continue;
    for (int row = 0; row << p->shift_y < f->height; row++)
      for (int i = 0; i << p->shift_x < f->width; i++)
        fk_frame_put(f, s, i, row, ((i + row + s) * 37 + 11) % 256 * (f->depth > 8 ? 257 : 1));
  }
}

static bool null_reach(FkBackend *be, const void *memory, size_t bytes) {
  return memory != NULL;
}

/* Fused ops are taken, so that a plan does not count the scratch of compositions; but not layer_norm_quantized, which
 * backends have for some widths or not at all. */
static bool null_linear_fused(FkBackend *be, const FkLinear *l, int groups) {
  return true;
}
static bool null_conv_fused(FkBackend *be, const FkConv *c) {
  return true;
}
static bool null_group_norm_silu(FkBackend *be, const FkGroupNorm *n) {
  return true;
}
static bool null_flash_attention(FkBackend *be, const FkAttention *a) {
  return true;
}

/* Nothing is ever replayed: every evaluation is walked. */
static bool null_graph_begin(FkBackend *be, int key) {
  (void)be;
  (void)key;
  return true;
}

static void null_graph_end(FkBackend *be, int key) {
  (void)be;
  (void)key;
}

const FkOps fk_null_ops = {
    .abi = FK_BACKEND_ABI,
    .sizes = FK_BACKEND_SIZES,
    .name = "null",
    .open = null_open,
    .close = null_close,
    .reach = null_reach,
    .memory = null_memory,
    .alloc = null_alloc,
    .release = null_release,
    .upload = null_upload,
    .download = null_download,
    .sync = null_sync,
    .event_record = null_event_record,
    .event_wait = null_event_wait,
    .elapsed_ms = null_elapsed_ms,
    .host_alloc = null_alloc,
    .host_release = null_release,
    .stream_copy = null_stream_copy,
    .stream_wait = null_stream_mark,
    .stream_done = null_stream_mark,
    .stream_expand = null_stream_expand,
    .linear = null_linear,
    .layer_norm = null_layer_norm,
    .rms_norm = null_rms_norm,
    .rope = null_rope,
    .attention = null_attention,
    .act = null_act,
    .add = null_three,
    .mul = null_three,
    .gate_add = null_three,
    .copy = null_two,
    .embed = null_embed,
    .gather_rows = null_three,
    .quantize = null_quantize,
    .expand = null_expand,
    .conv = null_conv,
    .group_norm = null_group_norm,
    .upsample = null_two,
    .pack = null_pack,
    .unpack = null_pack,
    .from_u8 = null_two,
    .to_u8 = null_two,
    .resize = null_resize,
    .frame_read = null_frame_read,
    .frame_write = null_frame_write,
    .frame_keep = null_frame_keep,
    .mix = null_three,
    .invert = null_two,
    .window = null_window,
    .bounds = null_two,
    .mask_tokens = null_two,
    .combine = null_combine,
    .distance = null_three,
    .check = null_check,
    .match = null_four,
    .mean_rows = null_four,
    .linear_fused = null_linear_fused,
    .conv_fused = null_conv_fused,
    .group_norm_silu = null_group_norm_silu,
    .flash_attention = null_flash_attention,
    .graph_begin = null_graph_begin,
    .graph_end = null_graph_end,
};
