/* SPDX-License-Identifier: Apache-2.0 */
/* The one loop. Each evaluation runs the forward for every frame of the batch, so that the frames stay in step and
 * their conditioning is shared; the solver is a short list of linear combinations (scheduler.h). Not here: the model
 * (flux.c), the schedule (scheduler.c). */
#include "denoise.h"

#include "blend.h"
#include "debug.h"
#include "draft.h"
#include "flux-cond.h"
#include "latent.h"
#include "preview.h"
#include "edited.h"
#include "stepcache.h"

#include <string.h>

G_DEFINE_AUTOPTR_CLEANUP_FUNC(FkSchedule, fk_schedule_free)
_Static_assert(FK_EDITED_TEXT == FK_REGION_TEXT, "a mask as text fits into a result");

/* Coefficients of one evaluation as they lie in backend memory. */
enum { PREDICT, CORRECT, ADVANCE, LISTS };

typedef struct {
  FkEdit *edit;
  FkSchedule *schedule; /* of this stage: the draft, or the whole picture; (transfer none) */
  int first, total;     /* evaluations before this stage, and of all */
  FkFluxRun run;
  FkFluxCond branch[2]; /* positive, negative */
  int branches;
  FkTensor coefs;     /* [evaluations, LISTS * FK_SOLVER_TERMS] float32 */
  FkTensor cfg_coefs; /* [2] float32: of the negative and the positive velocity */
  FkTensor positive;  /* [S, C] float32: the positive velocity while the negative one is computed */
  FkDenoiseFrame *frames;
  FkTensor (*operands)[FK_OPERANDS]; /* per frame */
  FkStepCache *cache;                /* NULL: every evaluation is computed */
  FkMerge *merge;                    /* NULL: no tokens are merged */
  FkBlend *blend;                    /* NULL: from pure noise, and all is edited */
  FkEdited *region;                  /* NULL: all tokens are computed */
  float *sigmas;                     /* [evaluations] */
  int *refreshed;                    /* per frame and branch: evaluation whose context is saved; -1: none yet */
  FkTensor ends_coefs;               /* draft: [4] float32: of x0 and of the noise at the last evaluation */
  FkTensor *ends;                    /* draft: per frame [2 S, C] float32: x0, then the noise; else NULL */
} Loop;

static void upload_coefs(Loop *l) {
  const int n = l->schedule->evaluations;
  const double s = l->edit->tune->true_cfg_scale;
  g_autofree float *host = g_new0(float, (size_t)n *LISTS *FK_SOLVER_TERMS);
  for (int i = 0; i < n; i++) {
    FkSolverStep step;
    float *at = host + (size_t)i * LISTS * FK_SOLVER_TERMS;
    fk_schedule_step(l->schedule, i, &step);
    for (int k = 0; k < step.n_predict; k++) at[PREDICT * FK_SOLVER_TERMS + k] = step.predict[k].coef;
    for (int k = 0; k < step.n_correct; k++) at[CORRECT * FK_SOLVER_TERMS + k] = step.correct[k].coef;
    for (int k = 0; k < step.n_advance; k++) at[ADVANCE * FK_SOLVER_TERMS + k] = step.advance[k].coef;
  }
  l->coefs = fk_arena_2d(l->edit->arena, FK_F32, n, LISTS * FK_SOLVER_TERMS);
  l->cfg_coefs = fk_arena_1d(l->edit->arena, FK_F32, 2);
  fk_op_upload(l->edit->be, l->coefs, host);
  /* neg + s (pos - neg) */
  fk_op_upload(l->edit->be, l->cfg_coefs, (const float[]){(float)(1 - s), (float)s});
}

/* Memory for what the solver remembers; Euler remembers nothing. */
static void open_operands(Loop *l) {
  FkArena *a = l->edit->arena;
  bool history = false, saved = false;
  for (int i = 0; i < l->schedule->evaluations; i++) {
    FkSolverStep step;
    fk_schedule_step(l->schedule, i, &step);
    history |= step.n_predict > 0;
    saved |= step.save_sample;
  }
  for (int f = 0; f < l->edit->n; f++) {
    FkTensor *o = l->operands[f], x = l->frames[f].latent;
    o[FK_OPERAND_X] = x;
    o[FK_OPERAND_V] = l->run.velocity;
    if (saved) o[FK_OPERAND_SAVED] = fk_arena_2d(a, FK_F32, x.dim[0], x.dim[1]);
    for (int k = FK_OPERAND_M0; history && k <= FK_OPERAND_M2; k++) o[k] = fk_arena_2d(a, FK_F32, x.dim[0], x.dim[1]);
  }
}

static void open_conditions(Loop *l, const FkPrompt *positive, const FkPrompt *negative) {
  const FkEdit *e = l->edit;
  const FkSchedule *s = l->schedule;
  const bool bf16 = e->be->dtype == FK_BF16;
  const FkPrompt *const prompts[2] = {positive, negative};
  g_autofree float *t = g_new(float, (size_t)s->evaluations);
  for (int i = 0; i < s->evaluations; i++) t[i] = fk_timestep_seen(s->timesteps[i], bf16);
  for (int i = 0; i < l->branches; i++)
    fk_flux_condition(&l->run, e->arena, &l->branch[i], prompts[i]->states, prompts[i]->pooled, t, s->evaluations,
                      fk_guidance_seen((float)e->tune->guidance, bf16));
}

/* y = sum of terms, coefficients from list `list` of evaluation i. */
static void combine(const Loop *l, const FkTensor *o, FkOperand y, const FkTerm *terms, int n, int i, int list) {
  FkTensor x[FK_SOLVER_TERMS];
  for (int k = 0; k < n; k++) x[k] = o[terms[k].operand];
  fk_op_combine(l->edit->be, o[y], n, x, fk_tensor_slice(fk_tensor_row(l->coefs, i), list * FK_SOLVER_TERMS, n));
}

static void solve(const Loop *l, FkTensor *o, int i) {
  FkSolverStep s;
  fk_schedule_step(l->schedule, i, &s);
  if (s.n_predict) {
    const FkTensor oldest = o[FK_OPERAND_M2];
    o[FK_OPERAND_M2] = o[FK_OPERAND_M1];
    o[FK_OPERAND_M1] = o[FK_OPERAND_M0];
    o[FK_OPERAND_M0] = oldest;
    combine(l, o, FK_OPERAND_M0, s.predict, s.n_predict, i, PREDICT);
  }
  if (s.n_correct) combine(l, o, FK_OPERAND_X, s.correct, s.n_correct, i, CORRECT);
  if (s.save_sample) fk_op_copy(l->edit->be, o[FK_OPERAND_SAVED], o[FK_OPERAND_X]);
  combine(l, o, FK_OPERAND_X, s.advance, s.n_advance, i, ADVANCE);
}

/* The edited tokens alone, and the straight lines of the others; or, where it is time and the blocks run, all tokens.
 * True in that case. */
static bool forward_edited(Loop *l, FkFluxPass pass, int frame, int branch) {
  const int i = pass.evaluation;
  const FkDenoiseFrame *f = &l->frames[frame];
  const bool due = fk_edited_due(l->region, frame, i);
  FkFluxRun *sub = fk_edited_begin(l->region, &l->run, &l->branch[branch], frame, i);
  const FkStepWhole whole = {&l->run, fk_edited_places(l->region, frame)};
  bool computed = true;
  pass.reuse_context = l->cache || !due;
  if (due) fk_flux_load(&l->run, &l->branch[branch], i);
  if (l->cache)
    computed = fk_stepcache_forward(l->cache, sub, &pass, NULL, due ? &whole : NULL, frame, branch);
  else
    fk_flux_forward(due ? &l->run : sub, &pass);
  if (due && computed) return true;
  fk_edited_end(l->region, &l->run, f->latent, f->context, frame, i);
  return false;
}

/* True where all rows were computed. The keys and values of the context are as old as the last evaluation that computed
 * all blocks with its rows. */
static bool forward(Loop *l, int frame, int branch, int i) {
  const int sequence = frame * l->branches + branch, every = l->edit->tune->context_reuse;
  const bool reuse = l->run.saved_kv && l->refreshed[sequence] >= 0 && i - l->refreshed[sequence] < every &&
                     l->first + i >= l->edit->tune->context_reuse_warmup;
  const FkFullRange unquantised = {l->edit->tune->precision_first, l->edit->tune->precision_last};
  const FkFluxPass pass = {.evaluation = i,
                           .slot = sequence,
                           .reuse_context = reuse,
                           .full = fk_range_full(unquantised, l->first + i, l->total)};
  bool computed = true;
  if (fk_edited_active(l->region, frame)) return forward_edited(l, pass, frame, branch);
  fk_flux_load(&l->run, &l->branch[branch], i);
  if (l->cache)
    computed = fk_stepcache_forward(l->cache, &l->run, &pass, l->merge, NULL, frame, branch);
  else if (l->merge)
    fk_merge_forward(l->merge, &l->run, &pass);
  else
    fk_flux_forward(&l->run, &pass);
  if (computed && !reuse) l->refreshed[sequence] = i;
  return computed;
}

/* Branches of evaluation i: guidance-start and -end as diffusers' control_guidance_start and _end. */
static int branches_at(const Loop *l, int i) {
  const FkTune *t = l->edit->tune;
  const double n = l->total, k = l->first + i;
  return k / n < t->guidance_start || (k + 1) / n > t->guidance_end ? 1 : l->branches;
}

/* Velocity of one frame at evaluation i, with true CFG if there is a negative branch (spec 8). True where all rows were
 * computed, of both. */
static bool evaluate(Loop *l, int f, int i) {
  FkBackend *be = l->edit->be;
  FkFluxRun *r = &l->run;
  const FkDenoiseFrame *frame = &l->frames[f];
  const double before = fk_job_flop(be);
  const int branches = branches_at(l, i);
  bool whole = true;
  for (int b = 0; b < branches; b++) {
    fk_op_copy(be, fk_tensor_slice_rows(r->tokens, 0, r->target), frame->latent);
    if (r->context) fk_op_copy(be, fk_tensor_slice_rows(r->tokens, r->target, r->context), frame->context);
    whole &= forward(l, f, b, i);
    if (branches == 2 && b == 0) fk_op_copy(be, l->positive, r->velocity);
  }
  if (branches == 2) fk_op_combine(be, r->velocity, 2, (const FkTensor[]){r->velocity, l->positive}, l->cfg_coefs);
  l->edit->jobs[f].result.flop += fk_job_flop(be) - before;
  return whole;
}

/* A preview of the picture's own size: none while a draft runs. */
static bool show(const Loop *l, int f, int i, GError **error) {
  return l->ends || fk_preview_show(l->edit, f, l->first + i, l->total, l->frames[f].latent, l->run.velocity,
                                    fk_schedule_sigma(l->schedule, i), error);
}

/* After evaluation i, where it is time: which tokens go on. whole: it computed all rows. */
static bool decide_region(Loop *l, int f, int i, bool whole, GError **error) {
  const FkDenoiseFrame *frame = &l->frames[f];
  bool narrowed;
  if (!l->region) return true;
  if (!fk_edited_decide(l->region, f, i, frame->latent, l->run.velocity, frame->context, whole, &narrowed, error))
    return false;
  if (narrowed && l->cache)
    fk_stepcache_narrow(l->cache, l->edit->be, l->edit->arena, f, fk_edited_rows(l->region, f),
                        fk_edited_known(l->region, f));
  return true;
}

/* Both ends of the line through x along v: x0 = x - sigma v and the noise x + (1 - sigma) v (draft.h). */
static void find_ends(const Loop *l, int f) {
  const FkTensor x[2] = {l->operands[f][FK_OPERAND_X], l->run.velocity};
  for (int k = 0; k < 2; k++)
    fk_op_combine(l->edit->be, fk_tensor_slice_rows(l->ends[f], k * l->run.target, l->run.target), 2, x,
                  fk_tensor_slice(l->ends_coefs, 2 * k, 2));
}

/* Slow evaluations run one at a time, so that a cancellation waits for the rest of one; the gap between two costs
 * microseconds. Fast ones are enqueued one ahead, which hides the gap. */
enum { FK_SLOW_EVALUATION_US = 20000 };

/* At most one evaluation is in flight beyond the one being enqueued: cancellation and progress are that exact. */
static bool loop(Loop *l, GError **error) {
  const FkEdit *e = l->edit;
  const int n = l->schedule->evaluations;
  int64_t evaluation_us = FK_SLOW_EVALUATION_US; /* of the last one; the first counts as slow */
  for (int i = 0; i < n; i++) {
    const int64_t start_us = g_get_monotonic_time();
    if (fk_job_cancelled(e->cancellable, error)) return false;
    if (e->progress && !e->dry_run) e->progress("step", l->first + i, l->total, e->user_data);
    fk_op_range(e->be, "evaluation");
    for (int b = 0; b < branches_at(l, i); b++) fk_flux_modulate(&l->run, &l->branch[b], i);
    for (int f = 0; f < e->n; f++) {
      const bool whole = evaluate(l, f, i);
      if (f == 0) fk_debug_dump(e->be, "velocity", l->run.velocity);
      if (l->ends && i == n - 1)
        find_ends(l, f);
      else if (show(l, f, i, error) && decide_region(l, f, i, whole, error))
        solve(l, l->operands[f], i);
      else
        return false;
      if (l->blend) fk_blend_step(l->blend, f, i);
    }
    fk_op_range(e->be, NULL);
    if (e->dry_run) continue;
    fk_op_event_record(e->be, i & 1);
    const int awaited = evaluation_us >= FK_SLOW_EVALUATION_US ? i : i - 1;
    if (awaited >= 0) fk_op_event_wait(e->be, awaited & 1);
    evaluation_us = g_get_monotonic_time() - start_us;
    if (e->be->failure) break;
  }
  if (!e->dry_run) fk_op_event_wait(e->be, (n - 1) & 1);
  if (!fk_job_sync(e->be, error)) return false;
  if (e->progress && !e->dry_run && l->first + n == l->total) e->progress("step", l->total, l->total, e->user_data);
  return true;
}

/* What is saved between evaluations, and who skips what. */
static bool open_policies(Loop *l, const FkFluxShape *shape, GError **error) {
  const FkEdit *e = l->edit;
  const int blocks = fk_flux_blocks(&e->model->flux), sequences = e->n * l->branches;
  FkStepPolicy policy;
  l->refreshed = g_new(int, (size_t)sequences);
  for (int i = 0; i < sequences; i++) l->refreshed[i] = -1;
  if (e->tune->token_merge > 0) l->merge = fk_merge_open(&l->run, shape, e->tune->token_merge, e->arena, e->dry_run);
  l->sigmas = g_new(float, (size_t)l->schedule->evaluations);
  for (int i = 0; i < l->schedule->evaluations; i++) l->sigmas[i] = fk_schedule_sigma(l->schedule, i);
  if (shape->keep_target)
    l->region = fk_edited_open(&l->run, shape, &e->tune->edited, e->arena, l->sigmas, l->schedule->evaluations, e->n,
                               e->dry_run);
  if (l->ends || e->tune->step_cache.kind == FK_CACHE_NONE) return true;
  FkCacheTune tune = e->tune->step_cache;
  if (tune.mask && *tune.mask) tune.mask += l->first;
  if (!fk_step_policy_init(&policy, &tune, blocks, l->schedule->evaluations, error)) return false;
  l->cache = fk_stepcache_open(&policy, &l->run, e->arena, e->n, l->branches, e->dry_run);
  if (l->region && e->dry_run) { /* what fk_stepcache_narrow will take */
    const size_t mark = fk_arena_mark(e->arena);
    fk_arena_2d(e->arena, FK_F32, l->run.target, e->model->flux.width);
    fk_arena_reset(e->arena, mark);
  }
  return true;
}

/* Appends what this stage did. A draft computes every evaluation. */
static void write_results(const Loop *l) {
  for (int i = 0; i < l->edit->n; i++) {
    FkResult *r = &l->edit->jobs[i].result;
    const int from = MIN(l->first, (int)sizeof r->mask - 1), room = (int)sizeof r->mask - 1 - from;
    r->evaluations = l->total;
    memset(r->mask + from, 0, sizeof r->mask - (size_t)from);
    memset(r->mask + from, '1', (size_t)MIN(l->schedule->evaluations, room));
    if (l->first == 0) r->skipped = 0;
    g_strlcpy(r->region, l->region ? fk_edited_text(l->region, i) : "", sizeof r->region);
    if (!l->cache) continue;
    const FkStepState *s = fk_stepcache_state(l->cache, i);
    r->skipped += s->skipped;
    for (int k = 0; k < room && r->mask[from + k] && s->mask[k]; k++) r->mask[from + k] = s->mask[k];
  }
}

static void clear(Loop *l) {
  fk_stepcache_free(l->cache);
  fk_merge_free(l->merge);
  fk_edited_free(l->region);
  g_free(l->sigmas);
  fk_flux_run_clear(&l->run);
  g_free(l->refreshed);
  g_free(l->operands);
}

/* The evaluations of one schedule on one size. shape: all but the text and what the settings say. The caller gives the
 * arena back, and reads l->ends first. */
static bool run_stage(Loop *l, FkFluxShape shape, const FkPrompt *positive, const FkPrompt *negative, GError **error) {
  FkEdit *e = l->edit;
  const FkFluxConfig *config = &e->model->config.flux;
  l->branches = negative ? 2 : 1;
  l->operands = g_malloc0_n((size_t)e->n, sizeof *l->operands);
  shape.text = positive->states.dim[0];
  shape.keep_target = e->tune->edited.threshold > 0 && !l->ends;
  shape.keep_context = e->tune->context_reuse > 1 || shape.keep_target ? e->n * l->branches : 0;
  shape.attention = e->tune->attention_precision;
  if (e->tune->task != FK_TASK_EDIT) shape.context_h = shape.context_w = 0;
  shape.references = e->references;
  fk_flux_run_open(&l->run, &e->model->flux, e->be, e->arena, &shape);
  if (negative) l->positive = fk_arena_2d(e->arena, FK_F32, l->run.target, config->out_channels);
  upload_coefs(l);
  open_operands(l);
  open_conditions(l, positive, negative);
  const bool ok = open_policies(l, &shape, error) && loop(l, error);
  for (int i = 0; ok && i < e->n; i++)
    if (fk_edited_active(l->region, i)) fk_edited_finish(l->region, i, l->frames[i].latent, l->frames[i].context);
  write_results(l);
  clear(l);
  return ok;
}

/* ---- The draft ---- */

static bool no_memory(GError **error, const char *what) {
  g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: out of memory", what);
  return false;
}

/* Noise of the draft's size from the edit's own. */
static bool start_draft(const FkEdit *e, const FkDraftGrid *g, FkTensor noise, FkTensor small, GError **error) {
  g_autofree float *full = g_try_malloc(fk_tensor_bytes(noise)), *shrunk = g_try_malloc(fk_tensor_bytes(small));
  if (!full || !shrunk) return no_memory(error, "draft");
  fk_op_download(e->be, full, noise);
  if (!fk_draft_shrink(g, e->model->config.vae.latent_channels, full, shrunk)) return no_memory(error, "draft");
  fk_op_upload(e->be, small, shrunk);
  return true;
}

/* latent: the edit's noise, and what the rest of the edit starts from. */
static bool finish_draft(const FkEdit *e, const FkDraftGrid *g, FkTensor ends, float sigma, FkTensor latent,
                         GError **error) {
  const size_t half = (size_t)(fk_tensor_rows(ends) / 2 * fk_tensor_cols(ends));
  g_autofree float *small = g_try_malloc(fk_tensor_bytes(ends)), *full = g_try_malloc(fk_tensor_bytes(latent));
  if (!small || !full) return no_memory(error, "draft");
  fk_op_download(e->be, small, ends);
  fk_op_download(e->be, full, latent);
  if (!fk_draft_lift(g, e->model->config.vae.latent_channels, small, small + half, sigma, full))
    return no_memory(error, "draft");
  fk_op_upload(e->be, latent, full);
  return true;
}

/* The first `steps` of the schedule at the draft's size; sigma: where the rest goes on. */
static bool run_draft(FkEdit *e, const FkPrompt *positive, const FkPrompt *negative, const FkDenoiseFrame *frames,
                      int steps, int total, float sigma, GError **error) {
  const FkDraftGrid g = fk_draft_grid(e->height / 16, e->width / 16, e->tune->draft);
  const int64_t rows = (int64_t)g.small_h * g.small_w, columns = e->model->config.flux.in_channels;
  const FkTune *t = e->tune;
  g_autofree FkDenoiseFrame *small = g_new0(FkDenoiseFrame, (size_t)e->n);
  g_autofree FkTensor *ends = g_new0(FkTensor, (size_t)e->n);
  g_autoptr(FkSchedule) whole = fk_schedule_build(t->scheduler, t->sigmas, t->steps, rows, &e->model->config.scheduler);
  g_autoptr(FkSchedule) schedule =
      whole ? fk_schedule_build_explicit(t->scheduler, steps, whole->sigmas, whole->timesteps) : NULL;
  if (!schedule) return no_memory(error, "schedule");
  const float last = fk_schedule_sigma(schedule, schedule->evaluations - 1);
  Loop l = {.edit = e, .schedule = schedule, .total = total, .frames = small, .ends = ends};
  bool ok = true;
  l.ends_coefs = fk_arena_1d(e->arena, FK_F32, 4);
  fk_op_upload(e->be, l.ends_coefs, (const float[]){1, -last, 1, 1 - last});
  for (int i = 0; ok && i < e->n; i++) {
    small[i] = (FkDenoiseFrame){frames[i].draft, fk_arena_2d(e->arena, FK_F32, rows, columns), {0}, {0}};
    ends[i] = fk_arena_2d(e->arena, FK_F32, 2 * rows, columns);
    ok = e->dry_run || start_draft(e, &g, frames[i].latent, small[i].latent, error);
  }
  const FkFluxShape shape = {.grid_h = g.small_h,
                             .grid_w = g.small_w,
                             .context_h = g.small_h,
                             .context_w = g.small_w,
                             .recordings = FK_RECORDINGS_DRAFT};
  ok = ok && run_stage(&l, shape, positive, negative, error);
  for (int i = 0; ok && i < e->n && !e->dry_run; i++) ok = finish_draft(e, &g, ends[i], sigma, frames[i].latent, error);
  return ok;
}

bool fk_denoise(FkEdit *e, const FkPrompt *positive, const FkPrompt *negative, FkDenoiseFrame *frames, GError **error) {
  const int64_t h = e->height / 16, w = e->width / 16;
  const size_t start = fk_arena_mark(e->arena);
  const FkTune *t = e->tune;
  const int draft = fk_draft_steps(t->steps, t->draft, t->draft_share);
  const int left_out = fk_schedule_left_out(t->steps, t->strength), from = draft + left_out; /* one of them is 0 */
  const int total = fk_schedule_evaluations(t->scheduler, t->steps - left_out);
  g_autoptr(FkSchedule) whole =
      fk_schedule_build(t->scheduler, t->sigmas, t->steps, h * w, &e->model->config.scheduler);
  g_autoptr(FkSchedule) rest = whole ? fk_schedule_from(whole, from) : NULL;
  if (!rest) return no_memory(error, "schedule");
  FkBlend *blend = fk_blend_open(e, frames, rest, left_out > 0);
  const size_t mark = fk_arena_mark(e->arena);
  bool ok = !draft || run_draft(e, positive, negative, frames, draft, total, whole->sigmas[draft], error);
  fk_arena_reset(e->arena, mark);
  if (ok) {
    const FkFluxShape shape = {.grid_h = h, .grid_w = w, .context_h = h, .context_w = w};
    Loop l = {.edit = e, .schedule = rest, .first = draft, .total = total, .frames = frames, .blend = blend};
    ok = run_stage(&l, shape, positive, negative, error);
  }
  fk_blend_free(blend);
  fk_arena_reset(e->arena, start);
  return ok;
}
