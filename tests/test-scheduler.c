/* SPDX-License-Identifier: Apache-2.0 */
/* Ladders and trajectories against diffusers, and the order of convergence on a flow with a known solution. */
#include "scheduler.h"

#include <glib.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define DIM 8

static const FkSchedulerConfig KONTEXT = {.base_image_seq_len = 256,
                                          .max_image_seq_len = 4096,
                                          .num_train_timesteps = 1000,
                                          .base_shift = 0.5,
                                          .max_shift = 1.15,
                                          .shift = 3.0,
                                          .shift_terminal = NAN,
                                          .use_dynamic_shifting = true};

static const char *const SOLVERS[] = {"euler", "dpmpp-2m", "unipc", "deis", "heun"};

/* What the denoising loop keeps, for DIM elements. */
typedef struct {
  float of[FK_OPERANDS][DIM];
} State;

static void combine(State *s, FkOperand to, const FkTerm *terms, int n) {
  float sum[DIM] = {0};
  for (int k = 0; k < n; k++) {
    for (int j = 0; j < DIM; j++) sum[j] += terms[k].coef * s->of[terms[k].operand][j];
  }
  memcpy(s->of[to], sum, sizeof sum);
}

/* The loop body documented in scheduler.h, with the velocity already in place. */
static void apply(State *s, const FkSchedule *schedule, int evaluation) {
  FkSolverStep step;
  fk_schedule_step(schedule, evaluation, &step);
  if (step.n_predict) {
    memcpy(s->of[FK_OPERAND_M2], s->of[FK_OPERAND_M1], sizeof s->of[0]);
    memcpy(s->of[FK_OPERAND_M1], s->of[FK_OPERAND_M0], sizeof s->of[0]);
    combine(s, FK_OPERAND_M0, step.predict, step.n_predict);
  }
  if (step.n_correct) combine(s, FK_OPERAND_X, step.correct, step.n_correct);
  if (step.save_sample) memcpy(s->of[FK_OPERAND_SAVED], s->of[FK_OPERAND_X], sizeof s->of[0]);
  combine(s, FK_OPERAND_X, step.advance, step.n_advance);
}

static GStrv golden_lines(void) {
  g_autofree char *path = g_build_filename(FK_TEST_DATA, "schedulers.txt", NULL);
  g_autofree char *text = NULL;
  g_autoptr(GError) error = NULL;
  g_file_get_contents(path, &text, NULL, &error);
  g_assert_no_error(error);
  return g_strsplit(text, "\n", -1);
}

/* n numbers after `skip` words of a line. */
static void parse(const char *line, int skip, int n, float *out) {
  g_auto(GStrv) words = g_strsplit(line, " ", -1);
  g_assert_cmpint((int)g_strv_length(words), ==, skip + n);
  for (int i = 0; i < n; i++) out[i] = (float)g_ascii_strtod(words[skip + i], NULL);
}

static FkSchedulerConfig ladder_config(const char *name, FkSigmasKind *kind) {
  FkSchedulerConfig config = KONTEXT;
  *kind = FK_SIGMAS_FLOW;
  if (!strcmp(name, "karras")) *kind = FK_SIGMAS_KARRAS;
  if (!strcmp(name, "exponential")) *kind = FK_SIGMAS_EXPONENTIAL;
  if (!strcmp(name, "beta")) config.use_beta_sigmas = true; /* as a checkpoint would ask for it */
  if (!strcmp(name, "static") || !strcmp(name, "schnell")) config.use_dynamic_shifting = false;
  if (!strcmp(name, "schnell")) config.shift = 1.0;
  if (!strcmp(name, "linear")) config.time_shift_type = FK_TIME_SHIFT_LINEAR;
  if (!strcmp(name, "terminal")) config.shift_terminal = 0.02;
  return config;
}

/* Sigmas equal to the last bit; those that pass through pow and exp in double to one unit. */
static void test_ladders(void) {
  g_auto(GStrv) lines = golden_lines();
  int cases = 0;
  for (char **line = lines; *line; line++) {
    char name[16];
    int tokens, steps;
    float want[64];
    if (sscanf(*line, "ladder %15s %d %d", name, &tokens, &steps) != 3) continue;
    parse(*line, 4, steps + 1, want);
    FkSigmasKind kind;
    FkSchedulerConfig config = ladder_config(name, &kind);
    FkSchedule *s = fk_schedule_build(FK_SCHEDULER_EULER, kind, steps, tokens, &config);
    g_assert_cmpint(s->evaluations, ==, steps);
    bool respaced = kind != FK_SIGMAS_FLOW || config.use_beta_sigmas;
    for (int i = 0; i <= steps; i++) {
      double unit = respaced ? ldexp((double)want[i], -23) : 0.0;
      g_assert_cmpfloat(fabs((double)s->sigmas[i] - (double)want[i]), <=, unit);
      if (i < steps) g_assert_cmpfloat(s->timesteps[i], ==, s->sigmas[i] * 1000.0f);
    }
    fk_schedule_free(s);
    cases++;
  }
  g_assert_cmpint(cases, ==, 8 * 7);
}

/* Spec 7.2, mu 1.15, printed to seven digits. */
static void test_ladder_vectors(void) {
  static const float four[5] = {1.0f, 0.9045307636f, 0.7595109344f, 0.5128441453f, 0.0f};
  static const double karras[3] = {0.8714623, 0.4883794, 0.2597584}, beta[3] = {0.9651407, 0.57301, 0.2597584};
  static const int rung[3] = {1, 5, 9};
  FkSchedule *s = fk_schedule_build(FK_SCHEDULER_EULER, FK_SIGMAS_FLOW, 4, 4096, &KONTEXT);
  for (int i = 0; i < 5; i++) g_assert_cmpfloat(s->sigmas[i], ==, four[i]);
  fk_schedule_free(s);
  s = fk_schedule_build(FK_SCHEDULER_EULER, FK_SIGMAS_KARRAS, 10, 4096, &KONTEXT);
  for (int i = 0; i < 3; i++) g_assert_cmpfloat_with_epsilon((double)s->sigmas[rung[i]], karras[i], 1e-7);
  fk_schedule_free(s);
  s = fk_schedule_build(FK_SCHEDULER_EULER, FK_SIGMAS_BETA, 10, 4096, &KONTEXT);
  for (int i = 0; i < 3; i++) g_assert_cmpfloat_with_epsilon((double)s->sigmas[rung[i]], beta[i], 1e-7);
  fk_schedule_free(s);
}

/* What every schedule promises, whatever its ladder: it starts at the noise, falls, and ends exactly at x0. */
static void test_defaults(void) {
  for (int kind = FK_SCHEDULER_EULER; kind < FK_SCHEDULERS; kind++) {
    for (int sigmas = FK_SIGMAS_FLOW; sigmas <= FK_SIGMAS_BETA; sigmas++) {
      for (int steps = 1; steps <= 50; steps += steps < 6 ? 1 : 11) {
        FkSchedule *s = fk_schedule_build((FkSchedulerKind)kind, (FkSigmasKind)sigmas, steps, 208, &KONTEXT);
        g_assert_cmpint(s->evaluations, ==, fk_schedule_evaluations((FkSchedulerKind)kind, steps));
        g_assert_cmpfloat(s->timesteps[0], ==, 1000.0f);
        g_assert_cmpfloat(s->sigmas[steps], ==, 0.0f);
        for (int i = 0; i < steps; i++) g_assert_cmpfloat(s->sigmas[i + 1], <, s->sigmas[i]);
        State state = {0};
        for (int i = 0; i < s->evaluations; i++) {
          g_assert_cmpfloat_with_epsilon(s->timesteps[i], 1000.0f * fk_schedule_sigma(s, i), 0.0011f);
          for (int j = 0; j < DIM; j++) {
            state.of[FK_OPERAND_V][j] = sinf(state.of[FK_OPERAND_X][j] + (float)(i + j));
          }
          State before = state;
          apply(&state, s, i);
          for (int j = 0; j < DIM; j++) g_assert_true(isfinite(state.of[FK_OPERAND_X][j]));
          if (i < s->evaluations - 1) continue;
          float sigma = fk_schedule_sigma(s, i);
          for (int j = 0; j < DIM; j++)
            g_assert_cmpfloat(state.of[FK_OPERAND_X][j], ==,
                              before.of[FK_OPERAND_X][j] + -sigma * before.of[FK_OPERAND_V][j]);
        }
        fk_schedule_free(s);
      }
    }
  }
}

static int solver_of(const char *name) {
  if (!strcmp(name, "deis-double")) return FK_SCHEDULER_DEIS;
  for (int i = 0; i < (int)G_N_ELEMENTS(SOLVERS); i++) {
    if (!strcmp(SOLVERS[i], name)) return i;
  }
  g_assert_not_reached();
}

/* Schedule of the case that starts at `line` with the reference's own arrays. */
static FkSchedule *case_schedule(char **line, int kind, int steps) {
  float sigmas[64], times[64];
  parse(line[1], 1, steps + 1, sigmas);
  parse(line[2], 1, fk_schedule_evaluations((FkSchedulerKind)kind, steps), times);
  return fk_schedule_build_explicit((FkSchedulerKind)kind, steps, sigmas, times);
}

static double relative_error(const float *a, const float *b) {
  double difference = 0, norm = 0;
  for (int j = 0; j < DIM; j++) {
    difference += pow((double)a[j] - (double)b[j], 2);
    norm += pow((double)b[j], 2);
  }
  return sqrt(difference / norm);
}

/* The same velocities give the reference's sample after every evaluation. */
static void test_trajectories(void) {
  g_auto(GStrv) lines = golden_lines();
  int cases = 0;
  for (char **line = lines; *line; line++) {
    char name[16];
    int steps;
    if (sscanf(*line, "case %15s %d", name, &steps) != 2) continue;
    int kind = solver_of(name);
    FkSchedule *s = case_schedule(line, kind, steps);
    State state = {0};
    parse(line[3], 1, DIM, state.of[FK_OPERAND_X]);
    double worst = 0;
    for (int i = 0; i < s->evaluations; i++) {
      float want[DIM];
      parse(line[4 + 2 * i], 1, DIM, state.of[FK_OPERAND_V]);
      parse(line[5 + 2 * i], 1, DIM, want);
      apply(&state, s, i);
      worst = fmax(worst, relative_error(state.of[FK_OPERAND_X], want));
    }
    g_test_message("%-11s %2d steps: largest relative error %.1e", name, steps, worst);
    /* The reference's DEIS loses up to 1e-4 to cancellation in float32; in double it is as near as the others. */
    g_assert_cmpfloat(worst, <=, !strcmp(name, "deis") ? 1e-4 : 1e-5);
    fk_schedule_free(s);
    cases++;
  }
  g_assert_cmpint(cases, ==, 6 * 4);
}

/* UniPC's own ladder is the one of diffusers with the pipeline's sigmas (shifted there in double: one unit), seen at
 * times that are not cut to integers. */
static void test_unipc_ladder(void) {
  g_auto(GStrv) lines = golden_lines();
  int cases = 0;
  for (char **line = lines; *line; line++) {
    int steps;
    if (sscanf(*line, "case unipc %d", &steps) != 1) continue;
    FkSchedule *want = case_schedule(line, FK_SCHEDULER_UNIPC, steps);
    FkSchedule *got = fk_schedule_build(FK_SCHEDULER_UNIPC, FK_SIGMAS_FLOW, steps, 4096, &KONTEXT);
    for (int i = 0; i <= steps; i++) {
      double unit = ldexp((double)want->sigmas[i], -23);
      g_assert_cmpfloat(fabs((double)got->sigmas[i] - (double)want->sigmas[i]), <=, unit);
    }
    for (int i = 0; i < steps; i++) g_assert_cmpfloat_with_epsilon(got->timesteps[i], want->timesteps[i] + 0.5f, 0.51f);
    fk_schedule_free(want);
    fk_schedule_free(got);
    cases++;
  }
  g_assert_cmpint(cases, ==, 4);
}

/* Spec 13.3: x = (1, -0.5), v = sin x + t/1000 on the reference's arrays. */
static void test_vectors(void) {
  static const struct {
    const char *name;
    int steps;
    double x[2], tolerance;
  } cases[] = {{"euler", 10, {0.0261574, -0.5164183}, 1e-6},
               {"dpmpp-2m", 10, {0.0776939, -0.4863474}, 1e-6},
               {"dpmpp-2m", 20, {0.1124889, -0.4677314}, 2e-6},
               {"unipc", 10, {0.0795808, -0.4851836}, 1e-6},
               {"deis", 10, {0.176695, -0.566407}, 2e-5} /* the reference's own float32 */};
  g_auto(GStrv) lines = golden_lines();
  for (gsize c = 0; c < G_N_ELEMENTS(cases); c++) {
    g_autofree char *head = g_strdup_printf("case %s %d", cases[c].name, cases[c].steps);
    char **line = lines;
    while (*line && strcmp(*line, head)) line++;
    g_assert_nonnull(*line);
    FkSchedule *s = case_schedule(line, solver_of(cases[c].name), cases[c].steps);
    State state = {0};
    state.of[FK_OPERAND_X][0] = 1.0f;
    state.of[FK_OPERAND_X][1] = -0.5f;
    for (int i = 0; i < s->evaluations; i++) {
      for (int j = 0; j < 2; j++)
        state.of[FK_OPERAND_V][j] = sinf(state.of[FK_OPERAND_X][j]) + s->timesteps[i] / 1000.0f;
      apply(&state, s, i);
    }
    for (int j = 0; j < 2; j++)
      g_assert_cmpfloat_with_epsilon((double)state.of[FK_OPERAND_X][j], cases[c].x[j], cases[c].tolerance);
    fk_schedule_free(s);
  }
}

/* Data N(DATA_MEAN, DATA_DEVIATION^2): with var = alpha^2 deviation^2 + sigma^2 the flow's velocity is linear in x and
 * its paths are x(sigma) = alpha mean + sqrt(var) z. */
#define DATA_MEAN 0.7
#define DATA_DEVIATION 0.5

static double flow_var(double sigma) {
  return (1.0 - sigma) * (1.0 - sigma) * DATA_DEVIATION * DATA_DEVIATION + sigma * sigma;
}

static double flow_path(double sigma, double z) {
  return (1.0 - sigma) * DATA_MEAN + sqrt(flow_var(sigma)) * z;
}

static double flow_velocity(double sigma, double x) {
  double alpha = 1.0 - sigma;
  double slope = (sigma - alpha * DATA_DEVIATION * DATA_DEVIATION) / flow_var(sigma);
  return slope * (x - alpha * DATA_MEAN) - DATA_MEAN;
}

/* Root mean square distance from the exact path at the schedule's end; frees the schedule. */
static double flow_error(FkSchedule *s) {
  State state = {0};
  double error = 0, first = (double)s->sigmas[0], last = (double)s->sigmas[s->steps];
  for (int j = 0; j < DIM; j++) state.of[FK_OPERAND_X][j] = (float)flow_path(first, -1.75 + 0.5 * j);
  for (int i = 0; i < s->evaluations; i++) {
    double sigma = (double)fk_schedule_sigma(s, i);
    for (int j = 0; j < DIM; j++)
      state.of[FK_OPERAND_V][j] = (float)flow_velocity(sigma, (double)state.of[FK_OPERAND_X][j]);
    apply(&state, s, i);
  }
  for (int j = 0; j < DIM; j++) error += pow((double)state.of[FK_OPERAND_X][j] - flow_path(last, -1.75 + 0.5 * j), 2);
  fk_schedule_free(s);
  return sqrt(error / DIM);
}

static const int COUNTS[] = {5, 10, 20, 40, 80};

static double report(const char *what, const double *error) {
  double slope = log2(error[2] / error[4]) / 2.0;
  g_test_message("%-20s error at 5 10 20 40 80 steps: %.2e %.2e %.2e %.2e %.2e, slope %.2f", what, error[0], error[1],
                 error[2], error[3], error[4], slope);
  return slope;
}

/* Doubling the steps divides the error by 2^order. The slope is read from 20 to 80 steps: below 15 the multistep
 * solvers end with a step of first order. Shown where the theory of all five holds, on an interval away from both ends:
 * at sigma 1 and 0 the log-SNR is infinite, and steps in it do not shrink however many there are. */
static void test_convergence(void) {
  for (int kind = FK_SCHEDULER_EULER; kind < FK_SCHEDULERS; kind++) {
    double error[5];
    for (int c = 0; c < 5; c++) {
      float sigmas[81], times[160] = {0};
      for (int i = 0; i <= COUNTS[c]; i++) sigmas[i] = 0.9f - 0.8f * (float)i / (float)COUNTS[c];
      error[c] = flow_error(fk_schedule_build_explicit((FkSchedulerKind)kind, COUNTS[c], sigmas, times));
    }
    g_assert_cmpfloat(report(SOLVERS[kind], error), >=, kind == FK_SCHEDULER_EULER ? 0.9 : 1.8);
  }
}

/* From noise to data on the ladders of an edit: every solver converges, and those of second order beat Euler. */
static void test_full_range(void) {
  static const char *const ladders[] = {"flow", "karras", "exponential", "beta"};
  for (int ladder = FK_SIGMAS_FLOW; ladder <= FK_SIGMAS_BETA; ladder++) {
    double euler = 0;
    for (int kind = FK_SCHEDULER_EULER; kind < FK_SCHEDULERS; kind++) {
      double error[5];
      for (int c = 0; c < 5; c++)
        error[c] =
            flow_error(fk_schedule_build((FkSchedulerKind)kind, (FkSigmasKind)ladder, COUNTS[c], 4096, &KONTEXT));
      g_autofree char *name = g_strdup_printf("%s %s", ladders[ladder], SOLVERS[kind]);
      report(name, error);
      if (kind == FK_SCHEDULER_EULER) euler = error[4];
      if (ladder == FK_SIGMAS_FLOW && kind != FK_SCHEDULER_EULER) g_assert_cmpfloat(error[4], <, 0.5 * euler);
      g_assert_cmpfloat(error[4], <, error[0]);
    }
  }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/scheduler/ladders", test_ladders);
  g_test_add_func("/scheduler/ladder-vectors", test_ladder_vectors);
  g_test_add_func("/scheduler/defaults", test_defaults);
  g_test_add_func("/scheduler/trajectories", test_trajectories);
  g_test_add_func("/scheduler/unipc-ladder", test_unipc_ladder);
  g_test_add_func("/scheduler/vectors", test_vectors);
  g_test_add_func("/scheduler/convergence", test_convergence);
  g_test_add_func("/scheduler/full-range", test_full_range);
  return g_test_run();
}
