/* SPDX-License-Identifier: Apache-2.0 */
/* Step caches: decisions (host), forecasts and residuals (backend). See stepcache.h.
 * Not here: blocks (flux.c), when evaluations happen (denoise.c), defaults of the switches (tune.c). */
#include "stepcache.h"

#include "fk-error.h"

#include <math.h>
#include <string.h>

/* Blocks are recorded in pieces; the middle takes up to three (merge.h). */
enum { PART_FRONT = 1, PART_MIDDLE = 2, PART_BACK = PART_MIDDLE + FK_MERGE_PARTS };

/* Published for FLUX.1-Kontext (spec 10.3): the change of block 0's input to that of the model's output. */
static const double kontext_polynomial[5] = {-1046.55119, 312.563399, -16.9500694, 0.410995971, 0.0374537863};

/* What `auto` means for each policy (spec 10.1 - 10.3). front: clipped to a third of the model. */
static const struct {
  double threshold;
  int front, warmup;
} defaults[] = {
    [FK_CACHE_FIRST_BLOCK] = {0.08, 1, 0},
    [FK_CACHE_DBCACHE] = {0.08, 8, 8},
    [FK_CACHE_TEACACHE] = {0.22, 0, 0},
};

/* Computed whatever the signal says. TeaCache for Kontext is active between 20 % and 90 % of the schedule. */
static FkFullRange full_range(const FkCacheTune *t, int evaluations) {
  const bool tea = t->kind == FK_CACHE_TEACACHE;
  const int first = tea ? (evaluations + 4) / 5 : defaults[t->kind].warmup;
  const int last = tea ? MAX(1, evaluations - 1 - evaluations * 9 / 10) : 0;
  return (FkFullRange){MAX(1, t->warmup < 0 ? first : t->warmup), t->cooldown < 0 ? last : t->cooldown};
}

bool fk_step_policy_init(FkStepPolicy *p, const FkCacheTune *t, int blocks, int evaluations, GError **error) {
  const int front = MIN(defaults[t->kind].front, MAX(1, blocks / 3));
  *p = (FkStepPolicy){.kind = t->kind,
                      .evaluations = evaluations,
                      .threshold = t->threshold < 0 ? defaults[t->kind].threshold : t->threshold,
                      .front = t->front < 0 ? front : t->front,
                      .back = t->back,
                      .full = full_range(t, evaluations),
                      .max_skipped = t->max,
                      .max_run = t->last,
                      .growth = t->growth,
                      .order = t->forecast,
                      .mask = t->mask && *t->mask ? t->mask : NULL};
  memcpy(p->polynomial, kontext_polynomial, sizeof p->polynomial);
  if (p->kind == FK_CACHE_TEACACHE) p->front = p->back = 0;
  if (p->front + p->back < blocks) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
              "step-cache-front %d and step-cache-back %d leave none of the "
              "model's %d blocks between them",
              p->front, p->back, blocks);
  return false;
}

int fk_step_forced(const FkStepPolicy *p, const FkStepState *s, int i) {
  if (p->mask) return p->mask[i] == '1';
  if (i == 0 || fk_range_full(p->full, i, p->evaluations)) return 1;
  if (p->max_skipped >= 0 && s->skipped >= p->max_skipped) return 1;
  return p->max_run >= 0 && s->run >= p->max_run + p->growth * s->runs ? 1 : -1;
}

/* A change that is not a number counts as a large one. */
static bool similar(const FkStepPolicy *p, FkStepState *s, double change) {
  if (p->kind != FK_CACHE_TEACACHE) return (p->kind == FK_CACHE_DBCACHE && p->threshold >= 1) || change < p->threshold;
  double value = 0;
  for (int i = 0; i < 5; i++) value = value * change + p->polynomial[i];
  s->sum += value;
  return s->sum < p->threshold;
}

bool fk_step_decide(const FkStepPolicy *p, FkStepState *s, int i, double change) {
  const int forced = fk_step_forced(p, s, i);
  s->compute = forced < 0 ? !similar(p, s, change) : forced;
  s->runs += s->compute && s->run > 0;
  s->run = s->compute ? 0 : s->run + 1;
  s->skipped += !s->compute;
  if (s->compute) s->sum = 0;
  if (i < (int)sizeof s->mask - 1) s->mask[i] = s->compute ? '1' : '0';
  return s->compute;
}

FkTensor fk_forecast_coefs(FkBackend *be, FkArena *arena, int evaluations) {
  FkTensor t = fk_arena_2d(arena, FK_F32, evaluations, FK_FORECAST_COEFS);
  g_autofree float *host = g_new(float, (size_t)evaluations *FK_FORECAST_COEFS);
  for (int i = 0; i < evaluations; i++) {
    const float k = (float)(i + 1), row[FK_FORECAST_COEFS] = {1, 1, k, k * k / 2, 1 / k, -1 / k};
    memcpy(host + i * FK_FORECAST_COEFS, row, sizeof row);
  }
  fk_op_upload(be, t, host);
  return t;
}

static FkTensor coefs_at(FkTensor coefs, int distance, int first, int n) {
  return fk_tensor_slice(fk_tensor_row(coefs, distance - 1), first, n);
}

static FkTensor rows_of(FkTensor t, FkTensor like) {
  return fk_tensor_slice_rows(t, 0, fk_tensor_rows(like));
}

/* y = (a - b) / distance. */
static void difference(FkBackend *be, FkTensor coefs, FkTensor y, FkTensor a, FkTensor b, int distance) {
  fk_op_combine(be, y, 2, (const FkTensor[]){a, b}, coefs_at(coefs, distance, 4, 2));
}

/* Each new term takes the memory of the old one that nobody needs any more. */
void fk_forecast_store(FkForecast *f, FkBackend *be, FkTensor coefs, FkTensor after, FkTensor before, int i) {
  const FkTensor spare = f->term[f->order];
  for (int k = f->order; k > 0; k--) f->term[k] = f->term[k - 1];
  f->term[0] = spare;
  difference(be, coefs, rows_of(f->term[0], after), after, before, 1);
  const int known = i > 1 ? MIN(f->terms, f->order) : 0; /* derivatives from evaluation 2 on, as the source */
  for (int k = 1; k <= known; k++) {
    FkTensor older = rows_of(f->term[k], after);
    difference(be, coefs, older, rows_of(f->term[k - 1], after), older, i - f->last);
  }
  f->terms = known + 1;
  f->last = i;
}

void fk_forecast_add(const FkForecast *f, FkBackend *be, FkTensor coefs, FkTensor y, int i) {
  FkTensor x[FK_FORECAST_ORDER + 2] = {y};
  for (int k = 0; k < f->terms; k++) x[k + 1] = rows_of(f->term[k], y);
  fk_op_combine(be, y, f->terms + 1, x, coefs_at(coefs, i - f->last, 0, f->terms + 1));
}

struct FkStepCache {
  FkStepPolicy policy;
  bool plan;
  int branches;
  FkTensor coefs, answer; /* answer [2]: what fk_op_distance says */
  FkTensor entry, signal; /* target rows: hidden before the front; the signal, float32 */
  FkTensor middle;        /* hidden before the middle */
  FkTensor *previous;     /* per frame: the signal that the next one is compared with */
  FkForecast *residual;   /* per frame and branch: what the middle adds */
  FkStepState *state;     /* per frame */
};

/* [rows, D]; behind them, where rows may leave and come back, one of zeros. */
static FkTensor term_open(const FkFluxRun *run, FkArena *a, int64_t rows) {
  const int64_t d = run->flux->width;
  const FkTensor t = fk_arena_2d(a, FK_F32, rows + (run->kept_target > 0), d);
  if (!run->kept_target) return t;
  g_autofree float *zeros = g_new0(float, (size_t)d);
  fk_op_upload(run->be, fk_tensor_slice_rows(t, rows, 1), zeros);
  return t;
}

FkStepCache *fk_stepcache_open(const FkStepPolicy *policy, const FkFluxRun *run, FkArena *a, int frames, int branches,
                               bool plan) {
  FkStepCache *c = g_new0(FkStepCache, 1);
  const int64_t d = run->flux->width, rows = policy->back ? run->text + run->target + run->context : run->target;
  c->policy = *policy;
  c->plan = plan;
  c->branches = branches;
  c->previous = g_new0(FkTensor, (size_t)frames);
  c->residual = g_new0(FkForecast, (size_t)(frames * branches));
  c->state = g_new0(FkStepState, (size_t)frames);
  c->coefs = fk_forecast_coefs(run->be, a, policy->evaluations);
  c->answer = fk_arena_1d(a, FK_F32, 2);
  c->middle = fk_arena_2d(a, run->be->dtype, rows, d);
  for (int i = 0; i < frames * branches; i++) {
    c->residual[i].order = policy->order;
    for (int k = 0; k <= policy->order; k++) c->residual[i].term[k] = term_open(run, a, rows);
  }
  if (policy->mask) return c;
  c->entry = fk_arena_2d(a, run->be->dtype, run->target, d);
  c->signal = fk_arena_2d(a, FK_F32, run->target, d);
  for (int i = 0; i < frames; i++) c->previous[i] = fk_arena_2d(a, FK_F32, run->target, d);
  return c;
}

void fk_stepcache_free(FkStepCache *c) {
  if (!c) return;
  g_free(c->previous);
  g_free(c->residual);
  g_free(c->state);
  g_free(c);
}

const FkStepState *fk_stepcache_state(const FkStepCache *c, int frame) {
  return &c->state[frame];
}

static FkTensor target_rows(const FkFluxRun *r) {
  return fk_tensor_slice_rows(r->hidden, r->text, r->target);
}

/* One scalar read-back, and only where the decision hangs on it. */
static bool decide(FkStepCache *c, FkFluxRun *run, int frame, int i) {
  FkStepState *s = &c->state[frame];
  const FkTensor now = c->signal, before = c->previous[frame], like = target_rows(run);
  float mean[2] = {0, 0};
  if (c->plan && !c->policy.mask) return s->compute = true;
  if (fk_step_forced(&c->policy, s, i) < 0) {
    fk_op_distance(run->be, c->answer, rows_of(now, like), rows_of(before, like));
    fk_op_download(run->be, mean, c->answer);
  }
  fk_step_decide(&c->policy, s, i, (double)mean[0] / (double)mean[1]);
  if (c->policy.kind != FK_CACHE_TEACACHE && !s->compute) return false;
  c->signal = before; /* they change places: this one is what the next is compared with */
  c->previous[frame] = now;
  return s->compute;
}

static void keep(const FkFluxRun *run, FkTensor t, FkTensor rows) {
  fk_op_copy(run->be, rows_of(t, rows), rows);
}

/* signal: what the decision looks at; NULL: nobody asks. */
static void run_front(FkStepCache *c, FkFluxRun *run, const FkFluxPass *pass, const FkTensor *signal) {
  const FkStepPolicy *p = &c->policy;
  const FkTensor target = target_rows(run);
  fk_flux_embed(run, pass);
  if (signal && p->kind == FK_CACHE_TEACACHE) keep(run, *signal, fk_flux_probe(run));
  if (signal && p->kind != FK_CACHE_TEACACHE) keep(run, c->entry, target_rows(run));
  fk_flux_run_blocks(run, pass, PART_FRONT, 0, p->front);
  if (signal && p->kind != FK_CACHE_TEACACHE)
    difference(run->be, c->coefs, rows_of(*signal, target), target, rows_of(c->entry, target), 1);
}

/* ---- Fewer rows, and all of them again ---- */

static void pick(FkBackend *be, FkTensor t, FkTensor scratch, FkTensor rows) {
  fk_op_gather_rows(be, scratch, t, rows);
  fk_op_copy(be, rows_of(t, scratch), scratch);
}

void fk_stepcache_narrow(FkStepCache *c, FkBackend *be, FkArena *arena, int frame, FkTensor rows, FkTensor known) {
  const size_t mark = fk_arena_mark(arena);
  const FkForecast *first = &c->residual[frame * c->branches];
  const FkTensor scratch = fk_arena_2d(arena, FK_F32, rows.dim[0], fk_tensor_cols(first->term[0]));
  for (int b = 0; b < c->branches; b++)
    for (int k = 0; k < first[b].terms; k++) pick(be, first[b].term[k], scratch, k ? known : rows);
  if (!c->policy.mask) pick(be, c->previous[frame], scratch, rows);
  fk_arena_reset(arena, mark);
}

/* The front of all rows; what is remembered is brought to their places. */
static FkFluxRun *widen(FkStepCache *c, const FkStepWhole *whole, const FkFluxPass *pass, int frame, int branch) {
  FkFluxRun *run = whole->run;
  const size_t mark = fk_arena_mark(run->arena);
  const FkForecast *f = &c->residual[frame * c->branches + branch];
  const FkTensor scratch = fk_arena_2d(run->arena, FK_F32, run->target, fk_tensor_cols(f->term[0]));
  for (int k = 0; k < f->terms; k++) pick(run->be, f->term[k], scratch, whole->places);
  fk_arena_reset(run->arena, mark);
  run_front(c, run, pass, branch == 0 && !c->policy.mask ? &c->previous[frame] : NULL);
  return run;
}

bool fk_stepcache_forward(FkStepCache *c, FkFluxRun *run, const FkFluxPass *given, FkMerge *merge,
                          const FkStepWhole *whole, int frame, int branch) {
  const FkStepPolicy *p = &c->policy;
  const int blocks = fk_flux_blocks(run->flux), i = given->evaluation;
  FkForecast *residual = &c->residual[frame * c->branches + branch];
  FkFluxPass pass = *given;
  run_front(c, run, &pass, branch == 0 && !p->mask ? &c->signal : NULL);
  const bool decided = branch == 0 ? decide(c, run, frame, i) : c->state[frame].compute;
  /* A branch that joins late (guidance-start) has nothing yet to take the middle from. */
  const bool compute = decided || residual->terms == 0;
  if (compute && whole) {
    pass.reuse_context = false;
    run = widen(c, whole, &pass, frame, branch);
  }
  const FkTensor hidden = p->back ? fk_tensor_slice_rows(run->hidden, 0, fk_flux_active(run, &pass)) : target_rows(run);
  const FkTensor middle = rows_of(c->middle, hidden);
  if (compute) {
    fk_op_copy(run->be, middle, hidden);
    fk_merge_run_blocks(merge, run, &pass, PART_MIDDLE, p->front, blocks - p->back);
    fk_forecast_store(residual, run->be, c->coefs, hidden, middle, i);
  } else {
    fk_forecast_add(residual, run->be, c->coefs, hidden, i);
  }
  fk_flux_run_blocks(run, &pass, PART_BACK, blocks - p->back, blocks);
  fk_flux_output(run);
  return compute;
}
