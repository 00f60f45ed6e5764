/* SPDX-License-Identifier: Apache-2.0 */
/* Weights as their files have them to numbers, in order and ahead; see expand.h. */
#include "expand.h"

static size_t numbers_bytes(FkWeight w) {
  const size_t bytes = (size_t)w.out * (size_t)w.in * fk_dtype_size(w.dtype);
  return w.coded ? (bytes + 255) / 256 * 256 : 0;
}

/* Rows of w in its parts; slot -1: in order. */
static void expand(FkBackend *be, int slot, void *to, FkWeight w) {
  const FkTensor y = fk_tensor_2d(to, w.dtype, w.out, w.in);
  int64_t at = 0; /* row of the parts */
  for (const FkCoded *c = w.coded; at < w.first + w.out; at += c++->rows) {
    const int64_t from = w.first > at ? w.first - at : 0, end = w.first + w.out - at;
    const int64_t n = (end < c->rows ? end : c->rows) - from;
    if (n <= 0) continue;
    const FkCoded rows = fk_coded_slice(*c, from, n);
    const FkTensor part = fk_tensor_slice_rows(y, at + from - w.first, n);
    if (slot < 0)
      fk_op_expand(be, part, &rows);
    else
      fk_op_stream_expand(be, slot, part, &rows);
  }
}

static int slot_of(int use) {
  return FK_RING_SLOTS + use % FK_AHEAD_SLOTS;
}

static void list(FkAhead *a, FkLinear *l, int groups) {
  FkAheadUse *u = &a->use[a->n++];
  size_t bytes = 0;
  assert(a->n <= a->room);
  *u = (FkAheadUse){.groups = groups, .apart = a->apart};
  for (int i = 0; i < groups; i++) {
    u->w[i] = l[i].w;
    bytes += numbers_bytes(l[i].w);
    l[i].w.coded = NULL;
  }
  a->apart = false;
  if (bytes > a->bytes) a->bytes = bytes;
}

static void *put(void *half, size_t offset) {
  return half ? (char *)half + offset : NULL;
}

static void begin_use(FkBackend *be, FkAhead *a) {
  const FkAheadUse *u = &a->use[a->begun];
  size_t offset = 0;
  for (int i = 0; i < u->groups; i++) {
    if (u->w[i].coded) expand(be, slot_of(a->begun), put(a->half[a->begun % FK_AHEAD_SLOTS], offset), u->w[i]);
    offset += numbers_bytes(u->w[i]);
  }
  a->begun++;
}

/* Also after a failure: then nothing is enqueued, and the place in the list is kept. */
static int take(FkBackend *be, FkAhead *a, FkLinear *l, int groups) {
  const FkAheadUse *u = &a->use[a->at];
  const int slot = slot_of(a->at);
  size_t offset = 0;
  assert(a->at < a->n && u->groups == groups);
  if (a->begun == a->at) { /* not before what has been enqueued so far */
    if (a->at) fk_op_stream_done(be, slot);
    begin_use(be, a);
  }
  if (a->begun < a->n && !a->use[a->begun].apart) begin_use(be, a);
  fk_op_stream_wait(be, slot);
  for (int i = 0; i < groups; i++) {
    assert(u->w[i].coded == l[i].w.coded && u->w[i].first == l[i].w.first && u->w[i].out == l[i].w.out);
    if (!u->w[i].coded) continue;
    l[i].w.data = put(a->half[a->at % FK_AHEAD_SLOTS], offset);
    l[i].w.coded = NULL;
    offset += numbers_bytes(u->w[i]);
  }
  a->at++;
  return slot;
}

int fk_expand_operands(FkBackend *be, FkArena *arena, FkLinear *l, int groups) {
  bool coded = false;
  for (int i = 0; i < groups; i++) coded |= l[i].w.coded != NULL;
  if (!coded) return -1;
  if (be->ahead && be->ahead->listed) return take(be, be->ahead, l, groups);
  if (be->ahead) list(be->ahead, l, groups);
  for (int i = 0; i < groups; i++) {
    if (!l[i].w.coded) continue;
    void *data = fk_arena_alloc(arena, numbers_bytes(l[i].w));
    expand(be, -1, data, l[i].w);
    l[i].w.data = data;
    l[i].w.coded = NULL;
  }
  return -1;
}

void fk_ahead_begin(FkAhead *a, FkBackend *be, FkArena *arena) {
  for (int i = 0; i < FK_AHEAD_SLOTS; i++) {
    a->half[i] = fk_arena_alloc(arena, a->bytes);
    fk_op_stream_done(be, FK_RING_SLOTS + i); /* whoever had this memory before; and a recording begins with it */
  }
  a->listed = true;
  be->ahead = a;
}

void fk_ahead_end(FkBackend *be) {
  assert(be->ahead && be->ahead->at == be->ahead->n && be->ahead->begun == be->ahead->n);
  be->ahead = NULL;
}
