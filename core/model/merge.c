/* SPDX-License-Identifier: Apache-2.0 */
/* Token merging around a stretch of blocks; see merge.h. The cosines are an op, the choice among them is a host sort,
 * so that it is the same on every machine. Not here: blocks (flux.c). */
#include "merge.h"

#include <math.h>
#include <string.h>

enum { CELL = 2, GRIDS = 2 + FK_FLUX_REFERENCES };

/* ---- The choice ---- */

void fk_merge_plan_init(FkMergePlan *p, int h, int w, double ratio) {
  const int tokens = h * w, destinations = ((h + CELL - 1) / CELL) * ((w + CELL - 1) / CELL);
  *p = (FkMergePlan){.tokens = tokens, .destinations = destinations, .sources = tokens - destinations};
  p->kept = tokens - MIN((int)floor(tokens * ratio), p->sources);
  p->source = g_new(int32_t, (size_t)p->sources + 1);
  p->destination = g_new(int32_t, (size_t)destinations + 1);
  p->first = g_new0(int32_t, (size_t)p->kept + 1);
  p->index = g_new0(int32_t, (size_t)tokens + 1);
  p->owner = g_new0(int32_t, (size_t)p->kept + 1);
  p->group = g_new0(int32_t, (size_t)tokens + 1);
  for (int t = 0, s = 0, d = 0; t < tokens; t++) {
    if (t / w % CELL == 0 && t % w % CELL == 0)
      p->destination[d++] = t;
    else
      p->source[s++] = t;
  }
}

void fk_merge_plan_clear(FkMergePlan *p) {
  g_free(p->source);
  g_free(p->destination);
  g_free(p->first);
  g_free(p->index);
  g_free(p->owner);
  g_free(p->group);
  *p = (FkMergePlan){0};
}

typedef struct {
  float score;
  int32_t source; /* index into FkMergePlan.source */
} Candidate;

/* Best first; equal scores by index; what is not a number last. */
static int by_score(const void *a, const void *b) {
  const Candidate *x = a, *y = b;
  if (x->score > y->score || (isnan(y->score) && !isnan(x->score))) return -1;
  if (x->score < y->score || (isnan(x->score) && !isnan(y->score))) return 1;
  return x->source < y->source ? -1 : x->source > y->source;
}

void fk_merge_plan_match(FkMergePlan *p, const int32_t *best, const float *score) {
  g_autofree Candidate *list = g_new(Candidate, (size_t)p->sources + 1);
  g_autofree int32_t *into = g_new(int32_t, (size_t)p->tokens + 1); /* the token that each one joins; itself: none */
  g_autofree int32_t *fill = g_new(int32_t, (size_t)p->kept + 1);
  for (int i = 0; i < p->sources; i++) list[i] = (Candidate){score[i], i};
  qsort(list, (size_t)p->sources, sizeof *list, by_score);
  for (int t = 0; t < p->tokens; t++) into[t] = t;
  for (int i = 0; i < p->tokens - p->kept; i++) {
    const int32_t s = list[i].source, d = best[s];
    into[p->source[s]] = p->destination[CLAMP(d, 0, p->destinations - 1)];
  }
  int groups = 0;
  for (int t = 0; t < p->tokens; t++) {
    if (into[t] != t) continue;
    p->owner[groups] = t;
    p->group[t] = groups++;
  }
  memset(p->first, 0, ((size_t)p->kept + 1) * sizeof *p->first);
  for (int t = 0; t < p->tokens; t++) p->first[1 + (p->group[t] = p->group[into[t]])]++;
  for (int g = 0; g < groups; g++) {
    p->first[g + 1] += p->first[g];
    fill[g] = p->first[g];
    p->index[fill[g]++] = p->owner[g];
  }
  for (int t = 0; t < p->tokens; t++)
    if (into[t] != t) p->index[fill[p->group[t]]++] = t;
}

/* ---- Around the blocks ---- */

typedef struct {
  FkMergePlan plan;
  int64_t from, merged_from;           /* first row in the full and in the merged sequence */
  FkTensor source, destination;        /* int32 */
  FkTensor best, score;                /* [sources] */
  FkTensor first, index, owner, group; /* int32, one behind the other in `lists` */
  FkTensor lists;
} Grid;

struct FkMerge {
  bool plan;
  int first, last; /* blocks that may run merged */
  int grids;
  Grid grid[GRIDS];
  FkFluxRun run;    /* the merged sequence: its own hidden and rope, the other buffers shared */
  FkTensor entry;   /* merged rows as they went in */
  FkTensor unmerge; /* {1, -1, 1} */
};

static FkTensor upload_list(FkBackend *be, FkArena *arena, const int32_t *list, int n) {
  FkTensor t = fk_arena_1d(arena, FK_I32, n);
  fk_op_upload(be, t, list);
  return t;
}

static void open_grid(Grid *g, FkBackend *be, FkArena *arena, int64_t h, int64_t w, double ratio, int64_t from,
                      int64_t merged_from) {
  FkMergePlan *p = &g->plan;
  fk_merge_plan_init(p, (int)h, (int)w, ratio);
  g->from = from;
  g->merged_from = merged_from;
  g->source = upload_list(be, arena, p->source, p->sources);
  g->destination = upload_list(be, arena, p->destination, p->destinations);
  g->best = fk_arena_1d(arena, FK_I32, p->sources);
  g->score = fk_arena_1d(arena, FK_F32, p->sources);
  const int64_t kept = p->kept, tokens = p->tokens;
  g->lists = fk_arena_1d(arena, FK_I32, 2 * kept + 1 + 2 * tokens);
  g->first = fk_tensor_slice(g->lists, 0, kept + 1);
  g->index = fk_tensor_slice(g->lists, kept + 1, tokens);
  g->owner = fk_tensor_slice(g->lists, kept + 1 + tokens, kept);
  g->group = fk_tensor_slice(g->lists, 2 * kept + 1 + tokens, tokens);
}

FkMerge *fk_merge_open(const FkFluxRun *run, const FkFluxShape *s, double ratio, FkArena *arena, bool plan) {
  FkMerge *m = g_new0(FkMerge, 1);
  FkBackend *be = run->be;
  const int blocks = fk_flux_blocks(run->flux);
  m->plan = plan;
  m->first = MAX(1, run->flux->config.layers);
  m->last = blocks - MAX(1, blocks / 10);
  m->run = *run;
  m->run.context = 0;
  int64_t from = run->text, merged = run->text;
  for (int i = 0; i < (run->context ? 2 + s->references.n : 1); i++) {
    const int64_t h = i > 1 ? s->references.rows[i - 2] : i ? s->context_h : s->grid_h;
    const int64_t w = i > 1 ? s->references.columns[i - 2] : i ? s->context_w : s->grid_w;
    Grid *g = &m->grid[m->grids++];
    open_grid(g, be, arena, h, w, ratio, from, merged);
    from += g->plan.tokens;
    merged += g->plan.kept;
    if (i)
      m->run.context += g->plan.kept;
    else
      m->run.target = g->plan.kept;
  }
  const int64_t rows = m->run.text + m->run.target + m->run.context;
  m->run.hidden = fk_arena_2d(arena, be->dtype, rows, run->flux->width);
  m->run.rope = fk_arena_2d(arena, FK_F32, rows, fk_tensor_cols(run->rope));
  m->entry = fk_arena_2d(arena, be->dtype, rows, run->flux->width);
  m->unmerge = fk_arena_1d(arena, FK_F32, 3);
  fk_op_upload(be, m->unmerge, (const float[]){1, -1, 1});
  fk_op_copy(be, fk_tensor_slice_rows(m->run.rope, 0, run->text), fk_tensor_slice_rows(run->rope, 0, run->text));
  return m;
}

void fk_merge_free(FkMerge *m) {
  if (!m) return;
  for (int i = 0; i < m->grids; i++) fk_merge_plan_clear(&m->grid[i].plan);
  g_free(m);
}

/* Finds the groups of one grid from its hidden rows. Scratch: `normed` and the wide buffer, free between blocks. */
static void match(const FkMerge *m, Grid *g, const FkFluxRun *r) {
  FkMergePlan *p = &g->plan;
  const int64_t d = r->flux->width;
  FkTensor x = fk_tensor_slice_rows(r->normed, g->from, p->tokens);
  FkTensor source = fk_tensor_slice_cols(fk_tensor_slice_rows(r->wide, 0, p->sources), 0, d);
  FkTensor destination = fk_tensor_slice_cols(fk_tensor_slice_rows(r->wide, 0, p->destinations), d, d);
  FkLayerNorm norm = {.x = fk_tensor_slice_rows(r->hidden, g->from, p->tokens), .y = x, .eps = 1e-6f};
  if (p->sources > 0) {
    fk_op_layer_norm(r->be, NULL, &norm, 1);
    fk_op_gather_rows(r->be, source, x, g->source);
    fk_op_gather_rows(r->be, destination, x, g->destination);
    fk_op_match(r->be, g->best, g->score, source, destination);
  }
  if (m->plan) return;
  g_autofree int32_t *best = g_new(int32_t, (size_t)p->sources + 1);
  g_autofree float *score = g_new(float, (size_t)p->sources + 1);
  g_autofree int32_t *lists = g_new(int32_t, (size_t)g->lists.dim[0]);
  if (p->sources > 0) {
    fk_op_download(r->be, best, g->best);
    fk_op_download(r->be, score, g->score);
  }
  fk_merge_plan_match(p, best, score);
  const size_t kept = (size_t)p->kept, tokens = (size_t)p->tokens, size = sizeof *lists;
  memcpy(lists, p->first, (kept + 1) * size);
  memcpy(lists + kept + 1, p->index, tokens * size);
  memcpy(lists + kept + 1 + tokens, p->owner, kept * size);
  memcpy(lists + 2 * kept + 1 + tokens, p->group, tokens * size);
  fk_op_upload(r->be, g->lists, lists);
}

static void reduce(FkMerge *m, const FkFluxRun *r) {
  FkBackend *be = r->be;
  fk_op_copy(be, fk_tensor_slice_rows(m->run.hidden, 0, r->text), fk_tensor_slice_rows(r->hidden, 0, r->text));
  for (int i = 0; i < m->grids; i++) {
    Grid *g = &m->grid[i];
    const FkMergePlan *p = &g->plan;
    FkTensor merged = fk_tensor_slice_rows(m->run.hidden, g->merged_from, p->kept);
    match(m, g, r);
    fk_op_mean_rows(be, merged, fk_tensor_slice_rows(r->hidden, g->from, p->tokens), g->first, g->index);
    fk_op_gather_rows(be, fk_tensor_slice_rows(m->run.rope, g->merged_from, p->kept),
                      fk_tensor_slice_rows(r->rope, g->from, p->tokens), g->owner);
    fk_op_copy(be, fk_tensor_slice_rows(m->entry, g->merged_from, p->kept), merged);
  }
}

static void expand(const FkMerge *m, const FkFluxRun *r) {
  FkBackend *be = r->be;
  fk_op_copy(be, fk_tensor_slice_rows(r->hidden, 0, r->text), fk_tensor_slice_rows(m->run.hidden, 0, r->text));
  for (int i = 0; i < m->grids; i++) {
    const Grid *g = &m->grid[i];
    const FkMergePlan *p = &g->plan;
    FkTensor x = fk_tensor_slice_rows(r->hidden, g->from, p->tokens);
    FkTensor in = fk_tensor_slice_rows(r->normed, g->from, p->tokens);
    FkTensor out = fk_tensor_slice_cols(fk_tensor_slice_rows(r->wide, g->from, p->tokens), 0, r->flux->width);
    fk_op_gather_rows(be, in, fk_tensor_slice_rows(m->entry, g->merged_from, p->kept), g->group);
    fk_op_gather_rows(be, out, fk_tensor_slice_rows(m->run.hidden, g->merged_from, p->kept), g->group);
    fk_op_combine(be, x, 3, (const FkTensor[]){x, in, out}, m->unmerge);
  }
}

void fk_merge_run_blocks(FkMerge *m, FkFluxRun *run, const FkFluxPass *pass, int part, int first, int last) {
  const int a = m ? MAX(first, m->first) : last, b = m ? MIN(last, m->last) : last;
  if (a >= b) {
    fk_flux_run_blocks(run, pass, part, first, last);
    return;
  }
  fk_flux_run_blocks(run, pass, part, first, a);
  reduce(m, run);
  fk_flux_run_blocks(&m->run, pass, part + 1, a, b);
  expand(m, run);
  fk_flux_run_blocks(run, pass, part + 2, b, last);
}

void fk_merge_forward(FkMerge *m, FkFluxRun *run, const FkFluxPass *pass) {
  fk_flux_embed(run, pass);
  fk_merge_run_blocks(m, run, pass, 1, 0, fk_flux_blocks(run->flux));
  fk_flux_output(run);
}
