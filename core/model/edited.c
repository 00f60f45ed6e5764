/* SPDX-License-Identifier: Apache-2.0 */
/* Edited tokens around the blocks; see edited.h. Not here: which tokens they are (edited-mask.c), blocks (flux.c). */
#include "edited.h"

#include "fk-error.h"

#include <string.h>

typedef struct {
  int count;       /* edited tokens; 0: all are computed */
  int decided;     /* evaluation of the last decision */
  FkTensor lists;  /* int32: rows [S] | kept [S + context] | back [S] | last [S] | known [S] | places [S] */
  uint8_t *edited; /* [S]; NULL: not decided yet */
  char text[FK_EDITED_TEXT];
} Frame;

struct FkEdited {
  FkEditedTune tune;
  bool plan;
  int h, w, frames;
  FkBackend *be;
  FkFluxRun sub; /* the edited rows, as many as the frame at hand has */
  FkTensor hidden, rope, tokens;
  FkTensor both;     /* [2 S, C] float32: the edited tokens' velocity, then the straight lines' */
  FkTensor lines;    /* [evaluations, 2] float32: 1 / sigma, -1 / sigma */
  FkTensor ends;     /* [2] float32: 1, -sigma */
  FkTensor estimate; /* [S, C] float32 */
  Frame *frame;
  const float *sigmas; /* (transfer none) */
};

static int64_t tokens_of(const FkEdited *r) {
  return (int64_t)r->h * r->w;
}

static int64_t context_of(const FkEdited *r) {
  return r->frame[0].lists.dim[0] - 6 * tokens_of(r);
}

/* How many keys come from the last evaluation of all rows. */
static int64_t kept_of(const FkEdited *r, int64_t count) {
  const int64_t rest = tokens_of(r) - count;
  if (r->tune.keys == FK_EDITED_KEYS_REFERENCE) return context_of(r);
  return r->tune.keys == FK_EDITED_KEYS_TARGET ? rest + count + context_of(r) - tokens_of(r) : rest + context_of(r);
}

static FkTensor list(const Frame *f, int64_t first, int64_t n) {
  return fk_tensor_slice(f->lists, first, n);
}

/* The run of the edited rows of one frame. */
static void set_run(FkEdited *r, const FkFluxRun *run, const Frame *f, int count) {
  const int64_t s = tokens_of(r);
  r->sub = *run;
  r->sub.target = count;
  r->sub.context = kept_of(r, count);
  r->sub.kept_target = 0;
  r->sub.saved_index = list(f, s, r->sub.context);
  r->sub.hidden = r->hidden;
  r->sub.rope = r->rope;
  r->sub.tokens = r->tokens;
  r->sub.velocity = fk_tensor_slice_rows(r->both, 0, count);
  r->sub.recordings = FK_RECORDINGS_REGION + count / fk_edited_bucket(1, (int)s);
}

/* Kernels take scratch by shape: every number of edited tokens is walked once, and not counted as work. */
static void plan_sizes(FkEdited *r, const FkFluxRun *run) {
  const FkCount before = r->be->count;
  const FkFluxPass pass = {.reuse_context = true};
  for (int i = 1; i < FK_EDITED_BUCKETS; i++) {
    const int count = fk_edited_bucket(i, (int)tokens_of(r));
    if (count >= tokens_of(r)) break;
    set_run(r, run, &r->frame[0], count);
    fk_flux_forward(&r->sub, &pass);
  }
  r->be->count = before;
}

FkEdited *fk_edited_open(const FkFluxRun *run, const FkFluxShape *shape, const FkEditedTune *tune, FkArena *a,
                         const float *sigmas, int evaluations, int frames, bool plan) {
  FkEdited *r = g_new0(FkEdited, 1);
  FkBackend *be = run->be;
  const int64_t rows = run->text + run->target + run->context, s = run->target;
  g_autofree float *lines = g_new(float, (size_t)evaluations * 2);
  *r = (FkEdited){.tune = *tune,
                  .plan = plan,
                  .h = (int)shape->grid_h,
                  .w = (int)shape->grid_w,
                  .frames = frames,
                  .be = be,
                  .frame = g_new0(Frame, (size_t)frames),
                  .sigmas = sigmas};
  r->hidden = fk_arena_2d(a, be->dtype, rows, run->flux->width);
  r->rope = fk_arena_2d(a, FK_F32, rows, fk_tensor_cols(run->rope));
  r->tokens = fk_arena_2d(a, be->dtype, s, fk_tensor_cols(run->tokens));
  r->both = fk_arena_2d(a, FK_F32, 2 * s, fk_tensor_cols(run->velocity));
  r->estimate = fk_arena_2d(a, FK_F32, s, fk_tensor_cols(run->velocity));
  r->lines = fk_arena_2d(a, FK_F32, evaluations, 2);
  r->ends = fk_arena_1d(a, FK_F32, 2);
  for (int i = 0; i < evaluations; i++) {
    lines[2 * i] = 1 / sigmas[i];
    lines[2 * i + 1] = -1 / sigmas[i];
  }
  fk_op_upload(be, r->lines, lines);
  for (int i = 0; i < frames; i++) r->frame[i].lists = fk_arena_1d(a, FK_I32, 6 * s + run->context);
  if (plan) plan_sizes(r, run);
  return r;
}

void fk_edited_free(FkEdited *r) {
  if (!r) return;
  for (int i = 0; i < r->frames; i++) g_free(r->frame[i].edited);
  g_free(r->frame);
  g_free(r);
}

bool fk_edited_active(const FkEdited *r, int frame) {
  return r && r->frame[frame].count > 0;
}

FkTensor fk_edited_rows(const FkEdited *r, int frame) {
  const int count = r->frame[frame].count;
  return list(&r->frame[frame], 0, count ? count : tokens_of(r));
}

FkTensor fk_edited_known(const FkEdited *r, int frame) {
  const int64_t s = tokens_of(r), from = 4 * s + context_of(r), count = r->frame[frame].count;
  return list(&r->frame[frame], from, count ? count : s);
}

FkTensor fk_edited_places(const FkEdited *r, int frame) {
  const int64_t s = tokens_of(r);
  return list(&r->frame[frame], 5 * s + context_of(r), s);
}

const char *fk_edited_text(const FkEdited *r, int frame) {
  return r->frame[frame].text;
}

/* ---- The decision ---- */

/* How far the estimate of each token is from the reference. (transfer full) */
static float *changes(FkEdited *r, int i, FkTensor x, FkTensor v, FkTensor reference) {
  const size_t n = (size_t)(tokens_of(r) * fk_tensor_cols(x));
  const FkTensor terms[2] = {x, v}, first = fk_tensor_slice_rows(reference, 0, tokens_of(r));
  g_autofree float *clean = g_new(float, n), *before = g_new(float, n);
  float *change = g_new(float, (size_t)tokens_of(r));
  fk_op_upload(r->be, r->ends, (const float[]){1, -r->sigmas[i]});
  fk_op_combine(r->be, r->estimate, 2, terms, r->ends);
  fk_op_download(r->be, clean, r->estimate);
  fk_op_copy(r->be, r->estimate, first);
  fk_op_download(r->be, before, r->estimate);
  fk_edited_measure(change, clean, before, (int)tokens_of(r), (int)fk_tensor_cols(x));
  return change;
}

/* Number of edited tokens. */
static int set_back(uint8_t *edited, const uint8_t *before, int tokens) {
  int count = 0;
  for (int t = 0; t < tokens; t++) count += edited[t] = before[t];
  return count;
}

/* Gather lists in rising order, and what the run of the edited rows needs beside them. before: the mask until now. */
static void narrow(FkEdited *r, Frame *f, const uint8_t *before, int count) {
  const int s = (int)tokens_of(r), context = (int)context_of(r);
  g_autofree int32_t *lists = g_new0(int32_t, (size_t)(6 * s + context));
  int32_t *rows = lists, *kept = lists + s, *back = kept + s + context, *last = back + s, *known = last + s,
          *places = known + s;
  int n = 0, keys = 0;
  for (int t = 0; t < s; t++) {
    if (!f->edited[t] && r->tune.keys != FK_EDITED_KEYS_REFERENCE) kept[keys++] = t;
    back[t] = f->edited[t] ? n : count + t;
    last[t] = f->edited[t] ? t : s + t;
    places[t] = f->edited[t] ? n : 0;
    known[n] = before[t] ? t : s;
    if (f->edited[t]) rows[n++] = t;
  }
  for (int t = 0; t < context; t++)
    if (r->tune.keys != FK_EDITED_KEYS_TARGET || t >= s || f->edited[t]) kept[keys++] = s + t;
  f->count = count < s ? count : 0;
  fk_op_upload(r->be, f->lists, lists);
}

/* The mask after evaluation i, filled up to a bucket; `edited` holds the one before, decided at `last` (-1: none). */
static bool find(FkEdited *r, int i, int last, FkTensor x, FkTensor v, FkTensor reference, uint8_t *edited, int *count,
                 GError **error) {
  const int s = (int)tokens_of(r);
  g_autofree float *change = NULL;
  const char *mask = r->tune.mask;
  const bool first = last < 0;
  if (mask && *mask) {
    if (first && !fk_edited_read(mask, edited, r->h, r->w, error)) return false;
    if (!first && !fk_edited_follow(mask, last, i, edited, s, error)) return false;
  } else {
    change = changes(r, i, x, v, reference);
    fk_edited_find(edited, change, r->h, r->w, r->tune.threshold);
  }
  *count = fk_edited_fill(edited, change, s);
  return true;
}

bool fk_edited_decide(FkEdited *r, int frame, int i, FkTensor x, FkTensor v, FkTensor reference, bool whole,
                      bool *narrowed, GError **error) {
  Frame *f = &r->frame[frame];
  const int s = (int)tokens_of(r);
  const bool first = !f->edited;
  int count;
  *narrowed = false;
  if (r->plan || (first ? i + 1 < r->tune.warmup : !whole || !fk_edited_due(r, frame, i))) return true;
  g_autofree uint8_t *before = first ? g_malloc((size_t)s) : g_memdup2(f->edited, (size_t)s);
  if (first) {
    memset(before, 1, (size_t)s);
    f->edited = g_new0(uint8_t, (size_t)s);
  }
  if (!find(r, i, first ? -1 : f->decided, x, v, reference, f->edited, &count, error)) return false;
  if (first)
    fk_edited_write(f->text, f->edited, r->h, r->w);
  else if (!fk_edited_append(f->text, i, before, f->edited, s))
    count = set_back(f->edited, before, s);
  f->decided = i;
  const bool was_all = !f->count;
  if (!was_all || count < s) narrow(r, f, before, count);
  *narrowed = !was_all || count < s;
  return true;
}

/* ---- One evaluation ---- */

bool fk_edited_due(const FkEdited *r, int frame, int i) {
  return r->tune.refresh > 0 && i - r->frame[frame].decided >= r->tune.refresh;
}

FkFluxRun *fk_edited_begin(FkEdited *r, FkFluxRun *run, FkFluxCond *cond, int frame, int i) {
  Frame *f = &r->frame[frame];
  const FkTensor rows = fk_edited_rows(r, frame);
  set_run(r, run, f, f->count);
  fk_flux_load(&r->sub, cond, i);
  fk_op_copy(r->be, fk_tensor_slice_rows(r->rope, 0, run->text), fk_tensor_slice_rows(run->rope, 0, run->text));
  fk_op_gather_rows(r->be, fk_tensor_slice_rows(r->rope, run->text, f->count),
                    fk_tensor_slice_rows(run->rope, run->text, run->target), rows);
  fk_op_gather_rows(r->be, fk_tensor_slice_rows(r->tokens, 0, f->count),
                    fk_tensor_slice_rows(run->tokens, 0, run->target), rows);
  return &r->sub;
}

void fk_edited_end(FkEdited *r, FkFluxRun *run, FkTensor x, FkTensor reference, int frame, int i) {
  const Frame *f = &r->frame[frame];
  const int64_t s = tokens_of(r), back = s + context_of(r) + s;
  const FkTensor terms[2] = {x, fk_tensor_slice_rows(reference, 0, s)};
  fk_op_combine(r->be, fk_tensor_slice_rows(r->both, f->count, s), 2, terms, fk_tensor_row(r->lines, i));
  fk_op_gather_rows(r->be, run->velocity, r->both, list(f, back, s));
}

void fk_edited_finish(FkEdited *r, int frame, FkTensor x, FkTensor reference) {
  const Frame *f = &r->frame[frame];
  const int64_t s = tokens_of(r), last = s + context_of(r) + 2 * s;
  fk_op_copy(r->be, fk_tensor_slice_rows(r->both, 0, s), x);
  fk_op_copy(r->be, fk_tensor_slice_rows(r->both, s, s), fk_tensor_slice_rows(reference, 0, s));
  fk_op_gather_rows(r->be, x, r->both, list(f, last, s));
}
