/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces of flux.c that policies use: kept keys and values of the context against diffusers with the same ones put in,
 * slots that do not disturb each other, FLOP saved exactly, and the forward in pieces equal to the whole. */
#include "flux-cond.h"
#include "latent.h"
#include "test-networks.h"
#include "test-stage.h"

enum { TEXT = 7, TARGET = 15, CONTEXT = 20, SLOTS = 3 };

typedef struct {
  Stage stage;
  FkFlux flux;
  FkFluxRun run;
  FkFluxCond cond;
} Network;

/* Evaluation 0 at sigma 0.9, evaluation 1 at 0.7. */
static Network *network_open(void) {
  g_auto(Npy) states = npy_load("stages/flux-a-states"), pooled = npy_load("stages/flux-a-pooled");
  g_autofree char *golden = g_canonicalize_filename(FK_TEST_DATA, NULL);
  g_autofree char *folder = g_build_filename(golden, "stages", "flux-a", NULL);
  const float t[2] = {fk_timestep_seen(900, false), fk_timestep_seen(700, false)};
  const FkFluxShape shape = {
      .text = TEXT, .grid_h = 3, .grid_w = 5, .context_h = 5, .context_w = 4, .keep_context = SLOTS};
  Network *n = g_new0(Network, 1);
  n->stage = stage_open(folder, "diffusion_pytorch_model");
  fk_flux_init(&n->flux, &flux_a, n->stage.binder);
  stage_load(&n->stage);
  fk_flux_run_open(&n->run, &n->flux, n->stage.be, &n->stage.arena, &shape);
  fk_flux_condition(&n->run, &n->stage.arena, &n->cond, stage_upload(&n->stage, states.data, TEXT, 40),
                    stage_upload(&n->stage, pooled.data, 1, 24), t, 2, 0);
  return n;
}

static void network_close(Network *n) {
  fk_flux_run_clear(&n->run);
  fk_flux_clear(&n->flux);
  stage_close(&n->stage);
  g_free(n);
}

/* (transfer full) velocity */
static float *forward(Network *n, const char *tokens, FkFluxPass pass) {
  g_auto(Npy) x = npy_load(tokens);
  n->stage.be->ops->upload(n->stage.be, n->run.tokens.data, x.data, fk_tensor_bytes(n->run.tokens));
  fk_flux_load(&n->run, &n->cond, pass.evaluation);
  fk_flux_forward(&n->run, &pass);
  return stage_download(&n->stage, n->run.velocity);
}

static const char first[] = "stages/flux-a-tokens", later[] = "cache/reuse-tokens";

static void reference(void) {
  g_auto(Npy) want = npy_load("cache/reuse-velocity");
  Network *n = network_open();
  g_free(forward(n, first, (FkFluxPass){.evaluation = 0, .slot = 1}));
  g_autofree float *have = forward(n, later, (FkFluxPass){.evaluation = 1, .slot = 1, .reuse_context = true});
  assert_close("kept context", have, want.data, TARGET * 16, 1e-5);
  g_autofree float *full = forward(n, later, (FkFluxPass){.evaluation = 1, .slot = 1});
  g_assert_cmpfloat(relative_error(full, want.data, TARGET * 16), >, 1e-3);
  network_close(n);
}

/* Nothing changed: what is kept is what would be computed, whatever other slots did in between. Not to the bit: the
 * BLAS may sum products of fewer rows in another order. */
static void slots(void) {
  Network *n = network_open();
  g_autofree float *a = forward(n, first, (FkFluxPass){.slot = 0});
  g_autofree float *b = forward(n, later, (FkFluxPass){.slot = 2});
  g_free(forward(n, later, (FkFluxPass){.evaluation = 1, .slot = 1}));
  g_autofree float *a2 = forward(n, first, (FkFluxPass){.slot = 0, .reuse_context = true});
  g_autofree float *b2 = forward(n, later, (FkFluxPass){.slot = 2, .reuse_context = true});
  assert_close("slot 0", a2, a, TARGET * 16, 1e-6);
  assert_close("slot 2", b2, b, TARGET * 16, 1e-6);
  g_assert_cmpfloat(relative_error(a, b, TARGET * 16), >, 1e-2);
  network_close(n);
}

static FkCount cost(Network *n, bool reuse) {
  n->stage.be->count = (FkCount){0};
  g_free(forward(n, first, (FkFluxPass){.slot = 0, .reuse_context = reuse}));
  return n->stage.be->count;
}

/* Per context row: 12 D^2 multiply-adds in each block, 2 D^2 in the last one (keys and values), the embedder; and its
 * queries against all keys, except in the last block. */
static void saved_flop(void) {
  Network *n = network_open();
  const double d = 48, rows = TEXT + TARGET + CONTEXT, blocks = 3;
  g_free(forward(n, first, (FkFluxPass){0})); /* the modulations are made once */
  const FkCount full = cost(n, false), reused = cost(n, true);
  g_assert_cmpfloat(full.linear_flop - reused.linear_flop, ==,
                    2 * CONTEXT * (12 * d * d * (blocks - 1) + 2 * d * d + 16 * d));
  g_assert_cmpfloat(full.attention_flop - reused.attention_flop, ==, 4 * CONTEXT * rows * d * (blocks - 1));
  network_close(n);
}

static void pieces(void) {
  g_auto(Npy) x = npy_load(first);
  Network *n = network_open();
  const FkFluxPass pass = {.evaluation = 1};
  g_autofree float *whole = forward(n, first, pass);
  for (int cut = 0; cut <= 3; cut++) {
    n->stage.be->ops->upload(n->stage.be, n->run.tokens.data, x.data, fk_tensor_bytes(n->run.tokens));
    fk_flux_load(&n->run, &n->cond, 1);
    fk_flux_embed(&n->run, &pass);
    fk_flux_run_blocks(&n->run, &pass, 1, 0, cut);
    fk_flux_run_blocks(&n->run, &pass, 2, cut, 3);
    fk_flux_output(&n->run);
    g_autofree float *have = stage_download(&n->stage, n->run.velocity);
    g_assert_cmpmem(whole, TARGET * 64, have, TARGET * 64);
  }
  network_close(n);
}

/* A replayed recording issues nothing and is counted all the same. */
static bool replay(FkBackend *be, int key) {
  (void)be;
  (void)key;
  return false;
}

static void replays_counted(void) {
  Network *n = network_open();
  g_free(forward(n, first, (FkFluxPass){0}));
  const FkCount issued = cost(n, true);
  const FkOps *plain = n->stage.be->ops;
  FkOps recording = *plain;
  recording.graph_begin = replay;
  n->stage.be->ops = &recording;
  n->stage.be->use |= FK_CAN_GRAPH;
  const FkCount replayed = cost(n, true);
  n->stage.be->ops = plain;
  n->stage.be->use = n->stage.be->can;
  g_assert_cmpfloat(issued.linear_flop, ==, replayed.linear_flop);
  g_assert_cmpfloat(issued.attention_flop, ==, replayed.attention_flop);
  g_assert_cmpint(issued.ops, ==, replayed.ops);
  network_close(n);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/flux-reuse/reference", reference);
  g_test_add_func("/flux-reuse/slots", slots);
  g_test_add_func("/flux-reuse/saved-flop", saved_flop);
  g_test_add_func("/flux-reuse/pieces", pieces);
  g_test_add_func("/flux-reuse/replays-counted", replays_counted);
  return g_test_run();
}
