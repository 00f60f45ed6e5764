/* SPDX-License-Identifier: Apache-2.0 */
/* The schedule of the denoising loop: sigma ladders and the coefficients of five solvers.
 *
 * Euler's ladder repeats diffusers' FlowMatchEulerDiscrete in float32. The other solvers run on the same ladder, which
 * is where diffusers is wrong or incomplete for flow models: its DPM++ and DEIS start at a shifted 0.999 instead of 1,
 * truncate timesteps to integers and know no shifted Karras, exponential or beta ladder; its DEIS never reaches
 * sigma 0; its Heun shifts twice and knows no dynamic shift. Their formulas are kept (spec 7.5 - 7.8), in double.
 * The loop itself, and the memory of samples and predictions, are not here. */
#include "scheduler.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

/* Solvers in log-SNR cannot start at alpha = 0. UniPC in diffusers starts here; all multistep solvers do so here. */
#define FK_SIGMA_START (1.0f - 1e-6f)

/* ---- ladders (spec 7.1, 7.2) ---- */

/* numpy.linspace(first, last, n)[i] */
static double linspace(double first, double last, int n, int i) {
  if (n == 1) return first;
  if (i == n - 1) return last;
  return i * ((last - first) / (n - 1)) + first;
}

/* The shift of time for this many image tokens. */
static double dynamic_mu(const FkSchedulerConfig *config, int64_t target_tokens) {
  double m = (config->max_shift - config->base_shift) / (config->max_image_seq_len - config->base_image_seq_len);
  double b = config->base_shift - m * config->base_image_seq_len;
  return (double)target_tokens * m + b;
}

/* linspace(1, 1/n) shifted, every operation in float32. */
static void ladder_flow(float *sigmas, int n, int64_t target_tokens, const FkSchedulerConfig *config) {
  double mu = dynamic_mu(config, target_tokens);
  float dynamic = (float)(config->time_shift_type == FK_TIME_SHIFT_EXPONENTIAL ? exp(mu) : mu);
  float shift = (float)config->shift, shift_less_one = (float)(config->shift - 1.0);
  for (int i = 0; i < n; i++) {
    float s = (float)linspace(1.0, 1.0 / n, n, i);
    if (config->use_dynamic_shifting)
      sigmas[i] = dynamic / (dynamic + (1.0f / s - 1.0f));
    else
      sigmas[i] = shift * s / (1.0f + shift_less_one * s);
  }
  if (isnan(config->shift_terminal) || config->shift_terminal == 0.0 || sigmas[n - 1] == 1.0f) return;
  float stretch = (1.0f - sigmas[n - 1]) / (float)(1.0 - config->shift_terminal);
  for (int i = 0; i < n; i++) sigmas[i] = 1.0f - (1.0f - sigmas[i]) / stretch;
}

/* Exponents of the beta ladder: both parameters of the distribution ("Beta sampling is all you need"). */
static const double BETA_SHAPE = 0.6;

/* Distribution function of Beta(a, a) at 0 <= x <= 1/2: x^a / B(a,a) * sum of (1-a)_n / n! * x^n / (a+n). Terms fall
 * by at least 2: 60 of them reach double precision. */
static double beta_cdf_low(double x) {
  const double a = BETA_SHAPE;
  double factor = 1.0, sum = 0.0;
  for (int n = 0; n < 60; n++) {
    sum += factor / (a + n);
    factor *= (n + 1 - a) / (n + 1) * x;
  }
  return pow(x, a) * sum * tgamma(2.0 * a) / (tgamma(a) * tgamma(a));
}

/* Quantile of Beta(a, a) by halving; the distribution is symmetric about 1/2. */
static double beta_quantile(double p) {
  if (p <= 0.0) return 0.0;
  if (p > 0.5) return 1.0 - beta_quantile(1.0 - p);
  double low = 0.0, high = 0.5;
  for (int i = 0; i < 100; i++) {
    double middle = 0.5 * (low + high);
    if (beta_cdf_low(middle) < p)
      low = middle;
    else
      high = middle;
  }
  return 0.5 * (low + high);
}

/* Respaces n sigmas between their first and last. */
static void ladder_respace(float *sigmas, int n, FkSigmasKind kind) {
  const double rho = 7.0; /* Karras et al. 2022 */
  const double max = (double)sigmas[0], min = (double)sigmas[n - 1];
  const double max_root = pow(max, 1.0 / rho), min_root = pow(min, 1.0 / rho);
  for (int i = 0; i < n; i++) {
    double ramp = linspace(0.0, 1.0, n, i);
    if (kind == FK_SIGMAS_KARRAS)
      sigmas[i] = (float)pow(max_root + ramp * (min_root - max_root), rho);
    else if (kind == FK_SIGMAS_EXPONENTIAL)
      sigmas[i] = (float)exp(linspace(log(max), log(min), n, i));
    else
      sigmas[i] = (float)(min + beta_quantile(1.0 - ramp) * (max - min));
  }
}

static FkSigmasKind ladder_kind(FkSigmasKind asked, const FkSchedulerConfig *config) {
  if (asked != FK_SIGMAS_FLOW) return asked;
  if (config->use_karras_sigmas) return FK_SIGMAS_KARRAS;
  if (config->use_exponential_sigmas) return FK_SIGMAS_EXPONENTIAL;
  return config->use_beta_sigmas ? FK_SIGMAS_BETA : FK_SIGMAS_FLOW;
}

/* ---- schedules ---- */

int fk_schedule_evaluations(FkSchedulerKind kind, int steps) {
  return kind == FK_SCHEDULER_HEUN ? 2 * steps - 1 : steps;
}

static FkSchedule *schedule_new(FkSchedulerKind kind, int steps) {
  assert(steps >= 1);
  int evaluations = fk_schedule_evaluations(kind, steps);
  FkSchedule *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  *s = (FkSchedule){.kind = kind,
                    .steps = steps,
                    .evaluations = evaluations,
                    .sigmas = calloc((size_t)steps + 1, sizeof(float)),
                    .timesteps = calloc((size_t)evaluations, sizeof(float))};
  if (s->sigmas && s->timesteps) return s;
  fk_schedule_free(s);
  return NULL;
}

void fk_schedule_free(FkSchedule *schedule) {
  if (!schedule) return;
  free(schedule->sigmas);
  free(schedule->timesteps);
  free(schedule);
}

/* Rung of the ladder on which evaluation i stands. Heun: 0, 1, 1, 2, 2, ... */
static int rung_of(const FkSchedule *s, int evaluation) {
  return s->kind == FK_SCHEDULER_HEUN ? (evaluation + 1) / 2 : evaluation;
}

FkSchedule *fk_schedule_build(FkSchedulerKind kind, FkSigmasKind sigmas_kind, int steps, int64_t target_tokens,
                              const FkSchedulerConfig *config) {
  FkSchedule *s = schedule_new(kind, steps);
  if (!s) return NULL;
  sigmas_kind = ladder_kind(sigmas_kind, config);
  ladder_flow(s->sigmas, steps, target_tokens, config);
  if (sigmas_kind != FK_SIGMAS_FLOW) ladder_respace(s->sigmas, steps, sigmas_kind);
  s->sigmas[steps] = 0.0f;
  for (int i = 0; i < s->evaluations; i++)
    s->timesteps[i] = s->sigmas[rung_of(s, i)] * (float)config->num_train_timesteps;
  bool multistep = kind != FK_SCHEDULER_EULER && kind != FK_SCHEDULER_HEUN;
  if (multistep && s->sigmas[0] > FK_SIGMA_START) s->sigmas[0] = FK_SIGMA_START;
  return s;
}

FkSchedule *fk_schedule_build_explicit(FkSchedulerKind kind, int steps, const float *sigmas, const float *timesteps) {
  FkSchedule *s = schedule_new(kind, steps);
  if (!s) return NULL;
  memcpy(s->sigmas, sigmas, ((size_t)steps + 1) * sizeof *sigmas);
  memcpy(s->timesteps, timesteps, (size_t)s->evaluations * sizeof *timesteps);
  return s;
}

int fk_schedule_left_out(int steps, double strength) {
  const double run = steps * strength;
  const int left_out = (int)(steps - (run < steps ? run : steps));
  return left_out < steps ? left_out : steps - 1;
}

FkSchedule *fk_schedule_from(const FkSchedule *s, int first) {
  const int evaluations = s->kind == FK_SCHEDULER_HEUN ? 2 * first : first;
  return fk_schedule_build_explicit(s->kind, s->steps - first, s->sigmas + first, s->timesteps + evaluations);
}

float fk_schedule_sigma(const FkSchedule *schedule, int evaluation) {
  return schedule->sigmas[rung_of(schedule, evaluation)];
}

/* ---- solvers ---- */

static void put(FkTerm *terms, int *n, FkOperand operand, double coef) {
  assert(*n < FK_SOLVER_TERMS);
  terms[(*n)++] = (FkTerm){operand, (float)coef};
}

static void predict(FkSolverStep *step, FkOperand operand, double coef) {
  put(step->predict, &step->n_predict, operand, coef);
}

static void correct(FkSolverStep *step, FkOperand operand, double coef) {
  put(step->correct, &step->n_correct, operand, coef);
}

static void advance(FkSolverStep *step, FkOperand operand, double coef) {
  put(step->advance, &step->n_advance, operand, coef);
}

/* Half the log signal-to-noise ratio; +infinity at sigma 0. */
static double lambda_at(const FkSchedule *s, int rung) {
  double sigma = (double)s->sigmas[rung];
  return log1p(-sigma) - log(sigma);
}

/* Order of a multistep solver for the interval from `rung`: 1 without history and into the last rung, which takes the
 * predicted x0 as it is. A last sigma above 0 comes only from explicit schedules; the reference's rules decide then. */
static int multistep_order(const FkSchedule *s, int rung) {
  if (rung == 0) return 1;
  if (rung < s->steps - 1) return 2;
  return s->sigmas[s->steps] == 0.0f || s->steps < 15 || s->kind == FK_SCHEDULER_UNIPC ? 1 : 2;
}

/* x + (sigma' - sigma) v, the difference taken in float32 as the reference does. */
static void step_euler(const FkSchedule *s, int rung, FkSolverStep *step) {
  advance(step, FK_OPERAND_X, 1.0);
  advance(step, FK_OPERAND_V, (double)(s->sigmas[rung + 1] - s->sigmas[rung]));
}

/* Spec 7.8: an Euler step, then from the saved sample with the mean of both slopes; the last interval is Euler's. */
static void step_heun(const FkSchedule *s, int evaluation, FkSolverStep *step) {
  int rung = evaluation / 2; /* of the interval's start */
  bool second = evaluation % 2 == 1;
  if (!second) {
    if (rung < s->steps - 1) {
      step->save_sample = true;
      predict(step, FK_OPERAND_V, 1.0);
    }
    step_euler(s, rung, step);
    return;
  }
  double half = 0.5 * (double)(s->sigmas[rung + 1] - s->sigmas[rung]);
  advance(step, FK_OPERAND_SAVED, 1.0);
  advance(step, FK_OPERAND_M0, half);
  advance(step, FK_OPERAND_V, half);
}

/* Spec 7.5 (2M midpoint) and the predictor of 7.6 (order 2, bh2), which are one formula in flow form: with
 * r = sigma'/sigma, alpha' (1 - e^-h) = 1 - r, so x' = r x + (1 - r) (m0 + (m0 - m1) h / (2 h0)). */
static void advance_data(const FkSchedule *s, int rung, int order, FkSolverStep *step) {
  double ratio = (double)s->sigmas[rung + 1] / (double)s->sigmas[rung];
  double slope = 0.0;
  if (order == 2) {
    double now = lambda_at(s, rung);
    slope = 0.5 * (lambda_at(s, rung + 1) - now) / (now - lambda_at(s, rung - 1));
  }
  if (ratio != 0.0) advance(step, FK_OPERAND_X, ratio);
  advance(step, FK_OPERAND_M0, (1.0 - ratio) * (1.0 + slope));
  if (order == 2) advance(step, FK_OPERAND_M1, -(1.0 - ratio) * slope);
}

static void predict_data(const FkSchedule *s, int rung, FkSolverStep *step) {
  predict(step, FK_OPERAND_X, 1.0);
  predict(step, FK_OPERAND_V, -(double)s->sigmas[rung]);
}

static void step_dpmpp(const FkSchedule *s, int rung, FkSolverStep *step) {
  predict_data(s, rung, step);
  advance_data(s, rung, multistep_order(s, rung), step);
}

/* Corrector of spec 7.6 over the interval that ends at `rung`, of the order its predictor had: m0 is the new
 * prediction, m1 and m2 those of the two rungs before. */
static void correct_unipc(const FkSchedule *s, int rung, FkSolverStep *step) {
  double ratio = (double)s->sigmas[rung] / (double)s->sigmas[rung - 1];
  double newest = 0.5, oldest = 0.0; /* weights of m0 - m1 and of m2 - m1 */
  if (multistep_order(s, rung - 1) == 2) {
    double from = lambda_at(s, rung - 1), h = lambda_at(s, rung) - from;
    double r1 = (lambda_at(s, rung - 2) - from) / h;
    double b = expm1(-h), c1 = b / -h - 1.0, c2 = c1 / -h - 0.5;
    double rho1 = (2.0 * c2 / b - c1 / b) / (r1 - 1.0); /* from rho1 + rho2 = c1/b, r1 rho1 + rho2 = 2 c2/b */
    newest = c1 / b - rho1;
    oldest = rho1 / r1;
  }
  correct(step, FK_OPERAND_SAVED, ratio);
  correct(step, FK_OPERAND_M0, (1.0 - ratio) * newest);
  correct(step, FK_OPERAND_M1, (1.0 - ratio) * (1.0 - newest - oldest));
  if (oldest != 0.0) correct(step, FK_OPERAND_M2, (1.0 - ratio) * oldest);
}

static void step_unipc(const FkSchedule *s, int rung, FkSolverStep *step) {
  predict_data(s, rung, step);
  /* The step to sigma 0 takes the prediction alone: a corrected sample would not be read. */
  if (rung > 0 && s->sigmas[rung + 1] != 0.0f) correct_unipc(s, rung, step);
  step->save_sample = true;
  advance_data(s, rung, multistep_order(s, rung), step);
}

/* Integral of the first Lagrange polynomial on ln(rho) nodes b, c. */
static double deis_integral(double t, double b, double c) {
  return t * (log(t) - log(c) - 1.0) / (log(b) - log(c));
}

/* Spec 7.7, order 2: x' = alpha' (x / alpha + c1 e0 + c2 e1), e = x + alpha v the noise prediction and rho = sigma /
 * alpha. e0 is put in terms of x and v before rounding: near alpha = 0 both of its coefficients are large and cancel.
 */
static void step_deis(const FkSchedule *s, int rung, FkSolverStep *step) {
  double alpha = 1.0 - (double)s->sigmas[rung];
  predict(step, FK_OPERAND_X, 1.0);
  predict(step, FK_OPERAND_V, alpha);
  if (multistep_order(s, rung) == 1) {
    step_euler(s, rung, step); /* order 1 in any of these forms is Euler's step */
    return;
  }
  double alpha_before = 1.0 - (double)s->sigmas[rung - 1], alpha_after = 1.0 - (double)s->sigmas[rung + 1];
  double before = (double)s->sigmas[rung - 1] / alpha_before, now = (double)s->sigmas[rung] / alpha;
  double after = (double)s->sigmas[rung + 1] / alpha_after;
  double c1 = deis_integral(after, now, before) - deis_integral(now, now, before);
  double c2 = deis_integral(after, before, now) - deis_integral(now, before, now);
  advance(step, FK_OPERAND_X, alpha_after * (1.0 / alpha + c1));
  advance(step, FK_OPERAND_V, alpha_after * c1 * alpha);
  advance(step, FK_OPERAND_M1, alpha_after * c2);
}

/* By kind; a kind without a row does not compile. */
static void (*const solvers[])(const FkSchedule *, int, FkSolverStep *) = {[FK_SCHEDULER_EULER] = step_euler,
                                                                           [FK_SCHEDULER_DPMPP_2M] = step_dpmpp,
                                                                           [FK_SCHEDULER_UNIPC] = step_unipc,
                                                                           [FK_SCHEDULER_DEIS] = step_deis,
                                                                           [FK_SCHEDULER_HEUN] = step_heun};
_Static_assert(sizeof solvers / sizeof *solvers == FK_SCHEDULERS, "one solver for each kind of scheduler");

void fk_schedule_step(const FkSchedule *schedule, int evaluation, FkSolverStep *step) {
  assert(evaluation >= 0 && evaluation < schedule->evaluations);
  *step = (FkSolverStep){0};
  solvers[schedule->kind](schedule, evaluation, step);
}
