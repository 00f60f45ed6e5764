/* SPDX-License-Identifier: Apache-2.0 */
/* The one loop. Each evaluation runs the forward for every frame of the batch, so that the frames stay in step and
 * their conditioning is shared; the solver is a short list of linear combinations (scheduler.h). Not here: the model
 * (flux.c), the schedule (scheduler.c). */
#include "denoise.h"

#include "debug.h"
#include "flux-cond.h"
#include "latent.h"
#include "preview.h"
#include "stepcache.h"

#include <string.h>

/* Coefficients of one evaluation as they lie in backend memory. */
enum { PREDICT, CORRECT, ADVANCE, LISTS };

typedef struct {
  FkEdit *edit;
  FkSchedule *schedule;
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
  int *refreshed;                    /* per frame and branch: evaluation whose context is saved; -1: none yet */
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

/* The keys and values of the context are as old as the last evaluation that computed all blocks with its rows. */
static void forward(Loop *l, int frame, int branch, int i) {
  const int sequence = frame * l->branches + branch, every = l->edit->tune->context_reuse;
  const bool reuse = l->run.saved_kv && l->refreshed[sequence] >= 0 && i - l->refreshed[sequence] < every;
  const FkFullRange unquantised = {l->edit->tune->precision_first, l->edit->tune->precision_last};
  const FkFluxPass pass = {.evaluation = i,
                           .slot = sequence,
                           .reuse_context = reuse,
                           .full = fk_range_full(unquantised, i, l->schedule->evaluations)};
  bool computed = true;
  fk_flux_load(&l->run, &l->branch[branch], i);
  if (l->cache)
    computed = fk_stepcache_forward(l->cache, &l->run, &pass, l->merge, frame, branch);
  else if (l->merge)
    fk_merge_forward(l->merge, &l->run, &pass);
  else
    fk_flux_forward(&l->run, &pass);
  if (computed && !reuse) l->refreshed[sequence] = i;
}

/* Velocity of one frame at evaluation i, with true CFG if there is a negative branch (spec 8). */
static void evaluate(Loop *l, int f, int i) {
  FkBackend *be = l->edit->be;
  FkFluxRun *r = &l->run;
  const FkDenoiseFrame *frame = &l->frames[f];
  const double before = fk_job_flop(be);
  for (int b = 0; b < l->branches; b++) {
    fk_op_copy(be, fk_tensor_slice_rows(r->tokens, 0, r->target), frame->latent);
    if (r->context) fk_op_copy(be, fk_tensor_slice_rows(r->tokens, r->target, r->context), frame->context);
    forward(l, f, b, i);
    if (l->branches == 2 && b == 0) fk_op_copy(be, l->positive, r->velocity);
  }
  if (l->branches == 2) fk_op_combine(be, r->velocity, 2, (const FkTensor[]){r->velocity, l->positive}, l->cfg_coefs);
  l->edit->jobs[f].result.flop += fk_job_flop(be) - before;
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
    if (e->progress && !e->dry_run) e->progress("step", i, n, e->user_data);
    fk_op_range(e->be, "evaluation");
    for (int b = 0; b < l->branches; b++) fk_flux_modulate(&l->run, &l->branch[b], i);
    for (int f = 0; f < e->n; f++) {
      evaluate(l, f, i);
      if (f == 0) fk_debug_dump(e->be, "velocity", l->run.velocity);
      if (!fk_preview_show(e, f, i, n, l->frames[f].latent, l->run.velocity, fk_schedule_sigma(l->schedule, i), error))
        return false;
      solve(l, l->operands[f], i);
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
  if (e->progress && !e->dry_run) e->progress("step", n, n, e->user_data);
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
  if (e->tune->step_cache.kind == FK_CACHE_NONE) return true;
  if (!fk_step_policy_init(&policy, &e->tune->step_cache, blocks, l->schedule->evaluations, error)) return false;
  l->cache = fk_stepcache_open(&policy, &l->run, e->arena, e->n, l->branches, e->dry_run);
  return true;
}

static void write_results(const Loop *l) {
  for (int i = 0; i < l->edit->n; i++) {
    FkResult *r = &l->edit->jobs[i].result;
    r->evaluations = l->schedule->evaluations;
    memset(r->mask, 0, sizeof r->mask);
    memset(r->mask, '1', (size_t)MIN(r->evaluations, (int)sizeof r->mask - 1));
    if (!l->cache) continue;
    const FkStepState *s = fk_stepcache_state(l->cache, i);
    r->skipped = s->skipped;
    for (int k = 0; r->mask[k] && s->mask[k]; k++) r->mask[k] = s->mask[k];
  }
}

static void clear(Loop *l) {
  fk_stepcache_free(l->cache);
  fk_merge_free(l->merge);
  fk_flux_run_clear(&l->run);
  g_free(l->refreshed);
  g_free(l->operands);
  fk_schedule_free(l->schedule);
}

bool fk_denoise(FkEdit *e, const FkPrompt *positive, const FkPrompt *negative, FkDenoiseFrame *frames, GError **error) {
  const int64_t h = e->height / 16, w = e->width / 16;
  const bool context = e->tune->task == FK_TASK_EDIT;
  const size_t mark = fk_arena_mark(e->arena);
  Loop l = {.edit = e, .frames = frames, .branches = negative ? 2 : 1};
  l.schedule =
      fk_schedule_build(e->tune->scheduler, e->tune->sigmas, e->tune->steps, h * w, &e->model->config.scheduler);
  if (!l.schedule) {
    g_set_error_literal(error, FK_ERROR, FK_ERROR_MEMORY, "schedule: out of memory");
    return false;
  }
  l.operands = g_malloc0_n((size_t)e->n, sizeof *l.operands);
  const FkFluxShape shape = {.text = positive->states.dim[0],
                             .grid_h = h,
                             .grid_w = w,
                             .context_h = context ? h : 0,
                             .context_w = context ? w : 0,
                             .keep_context = e->tune->context_reuse > 1 ? e->n * l.branches : 0,
                             .attention_codes = e->tune->attention_precision == FK_ATTENTION_FP8};
  fk_flux_run_open(&l.run, &e->model->flux, e->be, e->arena, &shape);
  if (negative) l.positive = fk_arena_2d(e->arena, FK_F32, l.run.target, e->model->config.flux.out_channels);
  upload_coefs(&l);
  open_operands(&l);
  open_conditions(&l, positive, negative);
  const bool ok = open_policies(&l, &shape, error) && loop(&l, error);
  write_results(&l);
  clear(&l);
  fk_arena_reset(e->arena, mark);
  return ok;
}
