/* SPDX-License-Identifier: Apache-2.0 */
/* stepcache.c: decisions and outputs of diffusers' FirstBlockCache hook, of DBCache and of TeaCache on the same network
 * and inputs, the published check values of TaylorSeer and TeaCache, forecasts on random patterns, and the rules that
 * force a decision. */
#include "fk-error.h"
#include "flux-cond.h"
#include "latent.h"
#include "stepcache.h"
#include "test-networks.h"
#include "test-stage.h"

static FkCacheTune tune_of(FkCacheKind kind) {
  return (FkCacheTune){.kind = kind, .threshold = -1, .front = -1, .warmup = -1, .max = -1, .last = -1, .cooldown = -1};
}

static FkStepPolicy policy_of(const FkCacheTune *tune, int blocks, int evaluations) {
  g_autoptr(GError) error = NULL;
  FkStepPolicy p;
  fk_step_policy_init(&p, tune, blocks, evaluations, &error);
  g_assert_no_error(error);
  return p;
}

static const FkFluxShape alone_shape = {.text = 9, .grid_h = 6, .grid_w = 2},
                         context_shape = {.text = 9, .grid_h = 6, .grid_w = 2, .context_h = 3, .context_w = 5};

typedef struct {
  Stage stage;
  FkFlux flux;
  FkFluxRun run;
  FkFluxCond cond;
} Network;

/* stages/flux-b with the golden conditioning of all evaluations. */
static void network_open(Network *n, const Npy *states, const Npy *pooled, const Npy *sigmas, FkFluxShape shape) {
  g_autofree char *golden = g_canonicalize_filename(FK_TEST_DATA, NULL);
  g_autofree char *folder = g_build_filename(golden, "stages", "flux-b", NULL);
  const int steps = (int)sigmas->dim[0];
  g_autofree float *t = g_new(float, (size_t)steps);
  n->stage = stage_open(folder, "diffusion_pytorch_model");
  fk_flux_init(&n->flux, &flux_b, n->stage.binder);
  stage_load(&n->stage);
  fk_flux_run_open(&n->run, &n->flux, n->stage.be, &n->stage.arena, &shape);
  for (int i = 0; i < steps; i++) t[i] = fk_timestep_seen(((const float *)sigmas->data)[i] * 1000, false);
  fk_flux_condition(&n->run, &n->stage.arena, &n->cond, stage_upload(&n->stage, states->data, 9, 24),
                    stage_upload(&n->stage, pooled->data, 1, 32), t, steps, fk_guidance_seen(3.5f, false));
}

static void network_close(Network *n) {
  fk_flux_run_clear(&n->run);
  fk_flux_clear(&n->flux);
  stage_close(&n->stage);
}

/* One run of a policy on golden tokens; decisions and velocities are those of the reference. */
static void compare(const char *tokens_name, const char *result_name, FkFluxShape shape, const FkCacheTune *tune,
                    const FkFullRange *full) {
  static const char *const inputs[] = {"tokens", "states", "pooled", "sigmas"};
  Npy in[4], velocity, mask;
  Network n;
  for (int i = 0; i < 4; i++) {
    g_autofree char *name = g_strdup_printf("cache/%s-%s", tokens_name, inputs[i]);
    in[i] = npy_load(name);
  }
  g_autofree char *velocity_name = g_strdup_printf("cache/%s-velocity", result_name);
  g_autofree char *mask_name = g_strdup_printf("cache/%s-mask", result_name);
  velocity = npy_load(velocity_name);
  mask = npy_load(mask_name);
  network_open(&n, &in[1], &in[2], &in[3], shape);
  const int steps = (int)in[3].dim[0];
  const int64_t count = fk_tensor_count(n.run.velocity), read = fk_tensor_count(n.run.tokens);
  FkStepPolicy policy = policy_of(tune, fk_flux_blocks(&n.flux), steps);
  if (full) policy.full = *full;
  FkStepCache *cache = fk_stepcache_open(&policy, &n.run, &n.stage.arena, 1, 1, false);
  for (int i = 0; i < steps; i++) {
    n.stage.be->ops->upload(n.stage.be, n.run.tokens.data, (const float *)in[0].data + i * read,
                            fk_tensor_bytes(n.run.tokens));
    fk_flux_load(&n.run, &n.cond, i);
    const bool computed = fk_stepcache_forward(cache, &n.run, &(FkFluxPass){.evaluation = i}, NULL, NULL, 0, 0);
    g_assert_cmpint(computed, ==, ((const int32_t *)mask.data)[i]);
    g_autofree float *have = stage_download(&n.stage, n.run.velocity);
    assert_close(result_name, have, (const float *)velocity.data + i * count, count, 1e-5);
  }
  fk_stepcache_free(cache);
  network_close(&n);
  for (int i = 0; i < 4; i++) npy_clear(&in[i]);
  npy_clear(&velocity);
  npy_clear(&mask);
}

/* Without a context the target is the whole image stream, which is what diffusers' hook measures. */
static void first_block(void) {
  FkCacheTune tune = tune_of(FK_CACHE_FIRST_BLOCK);
  tune.threshold = 0.4;
  compare("first", "first", alone_shape, &tune, NULL);
}

static void dbcache(void) {
  FkCacheTune tune = tune_of(FK_CACHE_DBCACHE);
  tune.threshold = 0.4;
  tune.warmup = 2;
  tune.back = 1;
  compare("policy", "policy-dbcache", context_shape, &tune, NULL);
}

static void teacache(void) {
  FkCacheTune tune = tune_of(FK_CACHE_TEACACHE);
  tune.threshold = 0.12;
  compare("policy", "policy-teacache", context_shape, &tune, &(FkFullRange){1, 1});
}

/* Velocities of one branch under a mask. other NULL: alone; else the second of two branches, beside `other`. The golden
 * conditioning serves both; they differ in their tokens. (transfer full) [steps, count] */
static float *masked(const Npy *tokens, const Npy *other, const char *mask, const Npy *states, const Npy *pooled,
                     const Npy *sigmas) {
  FkCacheTune tune = tune_of(FK_CACHE_FIRST_BLOCK);
  Network n;
  tune.mask = mask;
  tune.forecast = 2;
  network_open(&n, states, pooled, sigmas, alone_shape);
  const int steps = (int)sigmas->dim[0], branches = other ? 2 : 1;
  const int64_t count = fk_tensor_count(n.run.velocity);
  const FkStepPolicy policy = policy_of(&tune, fk_flux_blocks(&n.flux), steps);
  FkStepCache *cache = fk_stepcache_open(&policy, &n.run, &n.stage.arena, 1, branches, false);
  float *all = g_new(float, (size_t)(steps * count));
  for (int i = 0; i < steps; i++)
    for (int b = 0; b < branches; b++) {
      const float *x = (const float *)(b < branches - 1 ? other : tokens)->data + i * count;
      n.stage.be->ops->upload(n.stage.be, n.run.tokens.data, x, fk_tensor_bytes(n.run.tokens));
      fk_flux_load(&n.run, &n.cond, i);
      fk_stepcache_forward(cache, &n.run, &(FkFluxPass){.evaluation = i}, NULL, NULL, 0, b);
      g_autofree float *have = stage_download(&n.stage, n.run.velocity);
      memcpy(all + i * count, have, (size_t)count * sizeof *have);
    }
  fk_stepcache_free(cache);
  network_close(&n);
  return all;
}

/* The second branch is what it would be alone: residuals and forecasts of the first do not reach it. */
static void branches(void) {
  g_auto(Npy) tokens = npy_load("cache/first-tokens"), other = npy_load("cache/first-tokens");
  g_auto(Npy) states = npy_load("cache/first-states"), pooled = npy_load("cache/first-pooled");
  g_auto(Npy) sigmas = npy_load("cache/first-sigmas");
  static const char mask[] = "110100100010";
  float *x = other.data;
  for (int64_t i = 0; i < npy_count(&other); i++) x[i] = 0.5f - x[i];
  g_autofree float *alone = masked(&tokens, NULL, mask, &states, &pooled, &sigmas);
  g_autofree float *beside = masked(&tokens, &other, mask, &states, &pooled, &sigmas);
  g_assert_cmpmem(alone, (size_t)npy_count(&tokens) * 4, beside, (size_t)npy_count(&tokens) * 4);
}

/* A backend with one number per tensor. */
typedef struct {
  FkBackend *be;
  FkArena arena;
  FkTensor coefs, value, zero, out;
  FkForecast f;
} Scalar;

static void scalar_open(Scalar *s, int order, int evaluations) {
  char message[256];
  FkFailure failure;
  *s = (Scalar){.be = fk_backend_open("cpu", 0, 0, &failure, message, sizeof message)};
  g_assert_nonnull(s->be);
  g_assert_true(fk_arena_open(&s->arena, s->be, 1u << 20));
  s->coefs = fk_forecast_coefs(s->be, &s->arena, evaluations);
  s->value = fk_arena_2d(&s->arena, FK_F32, 1, 1);
  s->zero = fk_arena_2d(&s->arena, FK_F32, 1, 1);
  s->out = fk_arena_2d(&s->arena, FK_F32, 1, 1);
  s->f.order = order;
  for (int i = 0; i <= order; i++) s->f.term[i] = fk_arena_2d(&s->arena, FK_F32, 1, 1);
  fk_op_upload(s->be, s->zero, (const float[]){0});
}

static void scalar_close(Scalar *s) {
  fk_arena_close(&s->arena);
  fk_backend_close(s->be);
}

static float scalar_step(Scalar *s, float value, bool computed, int i) {
  float out = value;
  if (computed) {
    fk_op_upload(s->be, s->value, &value);
    fk_forecast_store(&s->f, s->be, s->coefs, s->value, s->zero, i);
    return out;
  }
  fk_op_upload(s->be, s->out, (const float[]){0});
  fk_forecast_add(&s->f, s->be, s->coefs, s->out, i);
  fk_op_download(s->be, &out, s->out);
  return out;
}

/* Y = t^2/2 + t, computed at 0, 1, 2, 5, 8: the class's own output. */
static void taylor_published(void) {
  static const float want[] = {0, 1.5f, 4, 6.5f, 9, 17.5f, 22.3333f, 27.8333f, 40, 48};
  Scalar s;
  scalar_open(&s, 2, 10);
  for (int t = 0; t < 10; t++) {
    const bool computed = t < 3 || t == 5 || t == 8;
    g_assert_cmpfloat_with_epsilon(scalar_step(&s, 0.5f * (float)(t * t) + (float)t, computed, t), want[t], 1e-4);
  }
  scalar_close(&s);
}

static void taylor_random(gconstpointer data) {
  const int order = GPOINTER_TO_INT(data);
  g_auto(Npy) values = npy_load("cache/taylor-values"), full = npy_load("cache/taylor-full");
  g_auto(Npy) want = npy_load(order == 1 ? "cache/taylor-order1" : "cache/taylor-order2");
  const int cases = (int)values.dim[0], length = (int)values.dim[1];
  for (int c = 0; c < cases; c++) {
    Scalar s;
    scalar_open(&s, order, length);
    for (int t = 0; t < length; t++) {
      const int at = c * length + t;
      const float expected = ((const float *)want.data)[at];
      const float have = scalar_step(&s, ((const float *)values.data)[at], ((const int32_t *)full.data)[at], t);
      g_assert_cmpfloat_with_epsilon(have, expected, 1e-5 * (1 + fabs((double)expected)));
    }
    scalar_close(&s);
  }
}

static int computed_by(const FkStepPolicy *p, double change, char mask[128]) {
  FkStepState s = {0};
  for (int i = 0; i < p->evaluations; i++) fk_step_decide(p, &s, i, change);
  memcpy(mask, s.mask, 128);
  return p->evaluations - s.skipped;
}

/* FLUX.1-dev's coefficients, 28 evaluations, a change of 0.05 at each: thresholds 0.25 0.4 0.6 0.8. */
static void teacache_published(void) {
  static const double thresholds[] = {0.25, 0.4, 0.6, 0.8},
                      flux[] = {498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861};
  static const int want[] = {15, 10, 8, 7};
  const FkCacheTune tune = tune_of(FK_CACHE_TEACACHE);
  for (int k = 0; k < 4; k++) {
    FkStepPolicy p = policy_of(&tune, 57, 28);
    char mask[128];
    memcpy(p.polynomial, flux, sizeof flux);
    p.threshold = thresholds[k];
    p.full = (FkFullRange){1, 1};
    g_assert_cmpint(computed_by(&p, 0.05, mask), ==, want[k]);
  }
}

/* What each policy is by default, on the large model and on a small one. */
static void defaults(void) {
  const FkCacheTune first = tune_of(FK_CACHE_FIRST_BLOCK), db = tune_of(FK_CACHE_DBCACHE),
                    tea = tune_of(FK_CACHE_TEACACHE);
  const FkStepPolicy a = policy_of(&first, 57, 28), b = policy_of(&db, 57, 28), c = policy_of(&tea, 57, 28);
  g_assert_cmpfloat(a.threshold, ==, 0.08);
  g_assert_true(a.front == 1 && a.back == 0 && a.full.first == 1 && a.full.last == 0);
  g_assert_true(b.threshold == 0.08 && b.front == 8 && b.back == 0 && b.full.first == 8 && b.full.last == 0);
  g_assert_true(c.threshold == 0.22 && c.front == 0 && c.full.first == 6 && c.full.last == 2); /* 20 % to 90 % */
  g_assert_cmpint(policy_of(&db, 7, 28).front, ==, 2);
  g_assert_cmpint(policy_of(&db, 2, 28).front, ==, 1);
}

/* Warm-up, limits, runs, masks and numbers that are none. */
static void rules(void) {
  FkCacheTune tune = tune_of(FK_CACHE_FIRST_BLOCK);
  FkStepPolicy p = policy_of(&tune, 7, 10);
  char mask[128];
  computed_by(&p, 0.01, mask);
  g_assert_cmpstr(mask, ==, "1000000000");
  computed_by(&p, 0.08, mask); /* strict */
  g_assert_cmpstr(mask, ==, "1111111111");
  computed_by(&p, (double)NAN, mask);
  g_assert_cmpstr(mask, ==, "1111111111");
  p.full = (FkFullRange){3, 2};
  computed_by(&p, 0.01, mask);
  g_assert_cmpstr(mask, ==, "1110000011");
  p.max_run = 2;
  computed_by(&p, 0.01, mask);
  g_assert_cmpstr(mask, ==, "1110010011");
  p.max_run = -1;
  p.max_skipped = 3;
  computed_by(&p, 0.01, mask);
  g_assert_cmpstr(mask, ==, "1110001111");
  p.mask = "1011011101";
  computed_by(&p, 0.01, mask);
  g_assert_cmpstr(mask, ==, p.mask);
  FkCacheTune always = tune_of(FK_CACHE_DBCACHE);
  always.threshold = 1;
  always.warmup = 2;
  p = policy_of(&always, 7, 6);
  computed_by(&p, 50, mask);
  g_assert_cmpstr(mask, ==, "110000");
}

/* Runs that may grow: the cadence that the quality table has as the hand-written mask fixed-9, for any number of
 * evaluations; and a signal that ends runs before they reach their length. */
static void growing_runs(void) {
  FkCacheTune tune = tune_of(FK_CACHE_TEACACHE);
  char mask[128];
  tune.threshold = 100;
  tune.warmup = 4;
  tune.cooldown = 0;
  tune.last = tune.growth = 1;
  FkStepPolicy p = policy_of(&tune, 7, 28);
  computed_by(&p, 0.01, mask);
  g_assert_cmpstr(mask, ==, "1111010010001000010000010000");
  p = policy_of(&tune, 7, 10);
  computed_by(&p, 0.01, mask);
  g_assert_cmpstr(mask, ==, "1111010010");
  tune.growth = 2;
  tune.cooldown = 3;
  p = policy_of(&tune, 7, 20);
  computed_by(&p, 0.01, mask);
  g_assert_cmpstr(mask, ==, "11110100010000010111");
  p.threshold = 0; /* the signal decides first */
  computed_by(&p, 0.01, mask);
  g_assert_cmpstr(mask, ==, "11111111111111111111");
}

/* Longer runs than the mask holds are decided all the same. */
static void long_run(void) {
  const FkCacheTune tune = tune_of(FK_CACHE_FIRST_BLOCK);
  const FkStepPolicy p = policy_of(&tune, 7, 1999);
  char mask[128];
  g_assert_cmpint(computed_by(&p, 0.01, mask), ==, 1);
  g_assert_cmpint((int)strlen(mask), ==, 127);
}

static void nothing_between(void) {
  FkCacheTune tune = tune_of(FK_CACHE_DBCACHE);
  g_autoptr(GError) error = NULL;
  FkStepPolicy p;
  tune.front = 4;
  tune.back = 3;
  g_assert_false(fk_step_policy_init(&p, &tune, 7, 28, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
  g_assert_nonnull(strstr(error->message, "step-cache-front 4"));
  g_assert_nonnull(strstr(error->message, "7 blocks"));
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/stepcache/first-block", first_block);
  g_test_add_func("/stepcache/dbcache", dbcache);
  g_test_add_func("/stepcache/teacache", teacache);
  g_test_add_func("/stepcache/branches", branches);
  g_test_add_func("/stepcache/taylor-published", taylor_published);
  g_test_add_data_func("/stepcache/taylor-random-1", GINT_TO_POINTER(1), taylor_random);
  g_test_add_data_func("/stepcache/taylor-random-2", GINT_TO_POINTER(2), taylor_random);
  g_test_add_func("/stepcache/teacache-published", teacache_published);
  g_test_add_func("/stepcache/defaults", defaults);
  g_test_add_func("/stepcache/rules", rules);
  g_test_add_func("/stepcache/growing-runs", growing_runs);
  g_test_add_func("/stepcache/long-run", long_run);
  g_test_add_func("/stepcache/nothing-between", nothing_between);
  return g_test_run();
}
