/* SPDX-License-Identifier: Apache-2.0 */
/* merge.c: the choice of tokens against an independent one with a stable order (features with exact ties), the ops that
 * feed it, a whole forward with a merged block, and ratio 0. */
#include "flux-cond.h"
#include "latent.h"
#include "merge.h"
#include "test-networks.h"
#include "test-stage.h"

typedef struct {
  const char *name;
  int h, w;
  double ratio;
} Case;

static const Case cases[] = {{"merge-a", 6, 8, 0.4}, {"merge-b", 5, 7, 0.75}, {"merge-c", 9, 4, 0.1}};

static Npy part(const char *name, const char *what) {
  g_autofree char *path = g_strdup_printf("cache/%s-%s", name, what);
  return npy_load(path);
}

/* Groups are whole, rising, led by their owners, and as golden `into` says. */
static void check_plan(const FkMergePlan *p, const int32_t *into) {
  for (int g = 0; g < p->kept; g++) {
    g_assert_cmpint(p->index[p->first[g]], ==, p->owner[g]);
    g_assert_true(g == 0 || p->owner[g] > p->owner[g - 1]);
    for (int k = p->first[g] + 1; k < p->first[g + 1]; k++)
      g_assert_true(k == p->first[g] + 1 || p->index[k] > p->index[k - 1]);
  }
  g_assert_cmpint(p->first[p->kept], ==, p->tokens);
  for (int t = 0; t < p->tokens; t++) g_assert_cmpint(p->owner[p->group[t]], ==, into[t]);
}

static void choice(gconstpointer data) {
  const Case *c = data;
  g_auto(Npy) best = part(c->name, "best"), score = part(c->name, "score"), into = part(c->name, "into");
  FkMergePlan p;
  fk_merge_plan_init(&p, c->h, c->w, c->ratio);
  g_assert_cmpint(p.sources, ==, npy_count(&best));
  fk_merge_plan_match(&p, best.data, score.data);
  check_plan(&p, into.data);
  fk_merge_plan_match(&p, best.data, score.data); /* the lists are written anew */
  check_plan(&p, into.data);
  fk_merge_plan_clear(&p);
}

/* The same from the features: gather, match and mean on the backend. */
static void features(gconstpointer data) {
  const Case *c = data;
  g_auto(Npy) x = part(c->name, "x"), into = part(c->name, "into"), mean = part(c->name, "mean");
  char message[256];
  FkFailure failure;
  FkArena arena;
  FkMergePlan p;
  FkBackend *be = fk_backend_open("cpu", 0, 0, &failure, message, sizeof message);
  g_assert_true(be && fk_arena_open(&arena, be, 1u << 20));
  fk_merge_plan_init(&p, c->h, c->w, c->ratio);
  FkTensor rows = fk_arena_2d(&arena, FK_F32, p.tokens, 8), merged = fk_arena_2d(&arena, FK_F32, p.kept, 8);
  FkTensor source = fk_arena_2d(&arena, FK_F32, p.sources, 8),
           destination = fk_arena_2d(&arena, FK_F32, p.destinations, 8);
  FkTensor si = fk_arena_1d(&arena, FK_I32, p.sources), di = fk_arena_1d(&arena, FK_I32, p.destinations);
  FkTensor best = fk_arena_1d(&arena, FK_I32, p.sources), score = fk_arena_1d(&arena, FK_F32, p.sources);
  FkTensor first = fk_arena_1d(&arena, FK_I32, p.kept + 1), index = fk_arena_1d(&arena, FK_I32, p.tokens);
  fk_op_upload(be, rows, x.data);
  fk_op_upload(be, si, p.source);
  fk_op_upload(be, di, p.destination);
  fk_op_gather_rows(be, source, rows, si);
  fk_op_gather_rows(be, destination, rows, di);
  fk_op_match(be, best, score, source, destination);
  g_autofree int32_t *b = g_new(int32_t, (size_t)p.sources);
  g_autofree float *s = g_new(float, (size_t)p.sources), *have = g_new(float, (size_t)p.kept * 8);
  fk_op_download(be, b, best);
  fk_op_download(be, s, score);
  fk_merge_plan_match(&p, b, s);
  check_plan(&p, into.data);
  fk_op_upload(be, first, p.first);
  fk_op_upload(be, index, p.index);
  fk_op_mean_rows(be, merged, rows, first, index);
  fk_op_download(be, have, merged);
  for (int i = 0; i < p.kept * 8; i++) g_assert_cmpfloat_with_epsilon(have[i], ((const float *)mean.data)[i], 1e-5);
  fk_merge_plan_clear(&p);
  fk_arena_close(&arena);
  fk_backend_close(be);
}

/* Scores that are no numbers, and partners out of range, still give a whole choice: the worst first to stay. */
static void nonsense(void) {
  FkMergePlan p;
  fk_merge_plan_init(&p, 4, 4, 0.5);
  g_autofree int32_t *best = g_new(int32_t, 12);
  g_autofree float *score = g_new(float, 12);
  for (int i = 0; i < 12; i++) {
    best[i] = i % 2 ? -5 : 1000000;
    score[i] = i < 6 ? NAN : 0.5f;
  }
  fk_merge_plan_match(&p, best, score);
  int merged = 0;
  for (int t = 0; t < 16; t++) merged += p.owner[p.group[t]] != t;
  g_assert_cmpint(merged, ==, 8);
  for (int i = 6; i < 12; i++) g_assert_cmpint(p.owner[p.group[p.source[i]]], !=, p.source[i]);
  fk_merge_plan_clear(&p);
}

/* Sizes: a row, a column, one token, and the ratio's cap. */
static void sizes(void) {
  static const struct {
    int h, w;
    double ratio;
    int kept, destinations;
  } list[] = {{1, 1, 0.75, 1, 1}, {1, 5, 0.5, 3, 3}, {7, 1, 0.75, 4, 4},
              {4, 4, 0.75, 4, 4}, {4, 4, 0, 16, 4},  {3, 3, 0.75, 4, 4}};
  for (size_t i = 0; i < G_N_ELEMENTS(list); i++) {
    FkMergePlan p;
    fk_merge_plan_init(&p, list[i].h, list[i].w, list[i].ratio);
    g_assert_cmpint(p.kept, ==, list[i].kept);
    g_assert_cmpint(p.destinations, ==, list[i].destinations);
    fk_merge_plan_clear(&p);
  }
}

static Npy stage_input(const char *name, const char *what) {
  g_autofree char *path = g_strdup_printf("stages/%s-%s", name, what);
  return npy_load(path);
}

/* One forward at sigma 0.7, merged by `ratio` (below 0: without merge.c). (transfer full) velocity */
static float *forward(const char *name, const FkFluxConfig *config, const FkFluxShape *shape, double ratio,
                      double *flop) {
  g_auto(Npy) tokens = stage_input(name, "tokens"), states = stage_input(name, "states");
  g_auto(Npy) pooled = stage_input(name, "pooled");
  g_autofree char *golden = g_canonicalize_filename(FK_TEST_DATA, NULL);
  g_autofree char *folder = g_build_filename(golden, "stages", name, NULL);
  const float t = fk_timestep_seen(700, false);
  Stage s = stage_open(strcmp(name, "demo-flux") ? folder : "transformer", "diffusion_pytorch_model");
  FkFlux flux;
  FkFluxRun run;
  FkFluxCond cond;
  fk_flux_init(&flux, config, s.binder);
  stage_load(&s);
  fk_flux_run_open(&run, &flux, s.be, &s.arena, shape);
  FkMerge *merge = ratio < 0 ? NULL : fk_merge_open(&run, shape, ratio, &s.arena, false);
  s.be->ops->upload(s.be, run.tokens.data, tokens.data, fk_tensor_bytes(run.tokens));
  fk_flux_condition(&run, &s.arena, &cond, stage_upload(&s, states.data, states.dim[0], states.dim[1]),
                    stage_upload(&s, pooled.data, 1, pooled.dim[1]), &t, 1, fk_guidance_seen(2.5f, false));
  s.be->count = (FkCount){0};
  fk_flux_load(&run, &cond, 0);
  if (merge)
    fk_merge_forward(merge, &run, &(FkFluxPass){0});
  else
    fk_flux_forward(&run, &(FkFluxPass){0});
  *flop = s.be->count.linear_flop + s.be->count.attention_flop;
  float *velocity = stage_download(&s, run.velocity);
  fk_merge_free(merge);
  fk_flux_run_clear(&run);
  fk_flux_clear(&flux);
  stage_close(&s);
  return velocity;
}

/* Merging nothing: every group is one token, so pooling, positions and giving back must leave every bit. */
static void identity(void) {
  double plain_flop, merged_flop, less_flop;
  const FkFluxShape shape = {.text = 64, .grid_h = 4, .grid_w = 6, .context_h = 4, .context_w = 6};
  g_autofree float *plain = forward("demo-flux", &demo_flux, &shape, -1, &plain_flop);
  g_autofree float *merged = forward("demo-flux", &demo_flux, &shape, 0, &merged_flop);
  g_autofree float *less = forward("demo-flux", &demo_flux, &shape, 0.5, &less_flop);
  g_assert_cmpmem(plain, 24 * 64 * 4, merged, 24 * 64 * 4);
  g_assert_cmpint(memcmp(plain, less, 24 * 64 * 4), !=, 0);
  g_assert_cmpfloat(less_flop, <, 0.9 * plain_flop);
  for (int i = 0; i < 24 * 64; i++) g_assert_true(isfinite(less[i]));
}

/* flux-a has one block that may run merged; the reference runs it on means and hands out their gains. */
static void reference(void) {
  const FkFluxShape shape = {.text = 7, .grid_h = 3, .grid_w = 5, .context_h = 5, .context_w = 4};
  g_auto(Npy) want = npy_load("cache/merged-velocity");
  double flop;
  g_autofree float *have = forward("flux-a", &flux_a, &shape, 0.4, &flop);
  assert_close("merged", have, want.data, 15 * 16, 1e-5);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autofree char *a = g_strconcat("/merge/choice/", cases[i].name, NULL);
    g_autofree char *b = g_strconcat("/merge/features/", cases[i].name, NULL);
    g_test_add_data_func(a, &cases[i], choice);
    g_test_add_data_func(b, &cases[i], features);
  }
  g_test_add_func("/merge/nonsense", nonsense);
  g_test_add_func("/merge/sizes", sizes);
  g_test_add_func("/merge/identity", identity);
  g_test_add_func("/merge/reference", reference);
  return g_test_run();
}
