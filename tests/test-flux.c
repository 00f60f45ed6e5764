/* SPDX-License-Identifier: Apache-2.0 */
/* flux.c against diffusers' FluxTransformer2DModel in float32: the demo checkpoint, and random networks without
 * guidance embedding, with other head counts and widths, with a context of another size and with none. */
#include "flux-cond.h"
#include "latent.h"
#include "test-networks.h"
#include "test-stage.h"

typedef struct {
  const char *name, *folder;
  const FkFluxConfig *config;
  FkFluxShape shape;
  float timestep, guidance; /* sigma times 1000, as the scheduler gives it */
} Case;

static void forward(gconstpointer data) {
  const Case *c = data;
  FkFlux flux;
  FkFluxRun run;
  FkFluxCond cond;
  g_autofree char *prefix = g_strconcat("stages/", c->name, NULL);
#define LOAD(part) npy_load(part##_path)
  g_autofree char *tokens_path = g_strconcat(prefix, "-tokens", NULL),
                  *states_path = g_strconcat(prefix, "-states", NULL);
  g_autofree char *pooled_path = g_strconcat(prefix, "-pooled", NULL),
                  *want_path = g_strconcat(prefix, "-velocity", NULL);
  g_auto(Npy) tokens = LOAD(tokens), states = LOAD(states), pooled = LOAD(pooled), want = LOAD(want);
#undef LOAD
  g_autofree char *golden = g_canonicalize_filename(FK_TEST_DATA, NULL);
  g_autofree char *folder = c->folder ? g_strdup(c->folder) : g_build_filename(golden, "stages", c->name, NULL);
  Stage s = stage_open(folder, "diffusion_pytorch_model");
  fk_flux_init(&flux, c->config, s.binder);
  stage_load(&s);
  fk_flux_run_open(&run, &flux, s.be, &s.arena, &c->shape);
  s.be->ops->upload(s.be, run.tokens.data, tokens.data, fk_tensor_bytes(run.tokens));
  const float t = fk_timestep_seen(c->timestep, false);
  fk_flux_condition(&run, &s.arena, &cond, stage_upload(&s, states.data, states.dim[0], states.dim[1]),
                    stage_upload(&s, pooled.data, 1, pooled.dim[1]), &t, 1, fk_guidance_seen(c->guidance, false));
  fk_flux_load(&run, &cond, 0);
  fk_flux_forward(&run, &(FkFluxPass){.evaluation = 0});
  g_autofree float *have = stage_download(&s, run.velocity);
  assert_close(c->name, have, want.data, fk_tensor_count(run.velocity), 1e-4);
  fk_flux_run_clear(&run);
  fk_flux_clear(&flux);
  stage_close(&s);
}

static const Case cases[] = {
    {"demo-flux",
     "transformer",
     &demo_flux,
     {.text = 64, .grid_h = 4, .grid_w = 6, .context_h = 4, .context_w = 6},
     750,
     2.5f},
    {"flux-a", NULL, &flux_a, {.text = 7, .grid_h = 3, .grid_w = 5, .context_h = 5, .context_w = 4}, 988.408625f, 1},
    {"flux-b", NULL, &flux_b, {.text = 9, .grid_h = 6, .grid_w = 2}, 104.720898f, 3.5f}};

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autofree char *path = g_strconcat("/flux/", cases[i].name, NULL);
    g_test_add_data_func(path, &cases[i], forward);
  }
  return g_test_run();
}
