/* SPDX-License-Identifier: Apache-2.0 */
/* vae.c and vae-tiles.c against diffusers' AutoencoderKL in float32: the demo checkpoint and a random network with two
 * blocks a level, other widths and a size that is not square. */
#include "vae.h"
#include "test-stage.h"

#include <sys/resource.h>

typedef struct {
  Stage s;
  FkVae vae;
} Case;

static void open_demo(Case *c) {
  FkConfig config;
  g_autoptr(GError) error = NULL;
  fk_config_load(&config, FK_DEMO_MODEL, &error);
  g_assert_no_error(error);
  c->s = stage_open("vae", "diffusion_pytorch_model");
  fk_vae_init(&c->vae, &config.vae, c->s.binder);
  stage_load(&c->s);
}

static void open_random(Case *c) {
  const FkVaeConfig config = {.in_channels = 3,
                              .out_channels = 3,
                              .n_levels = 4,
                              .channels = {8, 8, 16, 24},
                              .layers_per_block = 2,
                              .latent_channels = 4,
                              .norm_groups = 4,
                              .sample_size = 64,
                              .scaling_factor = 1,
                              .shift_factor = 0};
  g_autofree char *path = g_build_filename(FK_TEST_DATA, "stages/vae-a", NULL);
  g_autofree char *absolute = g_canonicalize_filename(path, NULL);
  c->s = stage_open(absolute, "diffusion_pytorch_model");
  fk_vae_init(&c->vae, &config, c->s.binder);
  stage_load(&c->s);
}

/* Runs one half on `in` [C, H, W] and compares with `want` [C', H', W']. */
static void half(Case *c, bool decode, bool tiling, const Npy *in, const float *chw, const Npy *want,
                 const char *what) {
  const int64_t ci = in->dim[0], h = in->dim[1], w = in->dim[2];
  g_autofree float *hwc = to_channels_last(chw, ci, h, w);
  g_autofree float *expected = to_channels_last(want->data, want->dim[0], want->dim[1], want->dim[2]);
  FkTensor x = stage_upload(&c->s, hwc, h * w, ci);
  x = fk_tensor_3d(x.data, FK_F32, h, w, ci);
  FkTensor y = fk_arena_3d(&c->s.arena, FK_F32, want->dim[1], want->dim[2], want->dim[0]);
  (decode ? fk_vae_decode : fk_vae_encode)(&c->vae, c->s.be, &c->s.arena, x, y, tiling);
  g_autofree float *have = stage_download(&c->s, y);
  assert_close(what, have, expected, npy_count(want), 1e-4);
}

/* The demo's pixels as [3, H, W] in -1..1. */
static float *pixels(const Npy *u8, Npy *shape) {
  const int64_t h = u8->dim[0], w = u8->dim[1];
  float *out = g_new(float, (size_t)(3 * h * w));
  for (int64_t i = 0; i < h * w; i++)
    for (int k = 0; k < 3; k++) out[k * h * w + i] = (float)((uint8_t *)u8->data)[i * 3 + k] / 255.0f * 2 - 1;
  *shape = (Npy){.rank = 3, .dim = {3, h, w, 0}};
  return out;
}

static void demo(void) {
  Case c;
  Npy shape;
  open_demo(&c);
  g_auto(Npy) u8 = npy_load("stages/demo-pixels"), moments = npy_load("stages/demo-moments");
  g_auto(Npy) latent = npy_load("stages/demo-latent"), decoded = npy_load("stages/demo-decoded");
  g_autofree float *image = pixels(&u8, &shape);
  half(&c, false, false, &shape, image, &moments, "encode");
  half(&c, true, false, &latent, latent.data, &decoded, "decode");
  stage_close(&c.s);
}

static void demo_tiled(gconstpointer size) {
  Case c;
  Npy shape;
  open_demo(&c);
  c.vae.config.sample_size = GPOINTER_TO_INT(size);
  g_auto(Npy) u8 = npy_load("stages/demo-pixels"), moments = npy_load("stages/demo-tiled-moments");
  g_auto(Npy) latent = npy_load("stages/demo-latent"), decoded = npy_load("stages/demo-tiled-decoded");
  g_autofree float *image = pixels(&u8, &shape);
  half(&c, false, true, &shape, image, &moments, "tiled encode");
  half(&c, true, true, &latent, latent.data, &decoded, "tiled decode");
  stage_close(&c.s);
}

/* What a walk without memory of the backend costs on the host is no matter of pixels: none of them is held. */
static void null_walk(void) {
  enum { SIDE = 1 << 15 }; /* 13 GB of pixels in float32 */
  Case c;
  FkArena arena;
  FkFailure failure;
  char message[256];
  open_demo(&c);
  c.vae.config.sample_size = 1024;
  FkBackend *be = fk_backend_open("null", 0, 0, &failure, message, sizeof message);
  g_assert_nonnull(be);
  g_assert_true(fk_arena_open(&arena, be, 0));
  const int latents = c.vae.config.latent_channels;
  struct rusage before, after;
  g_assert_cmpint(getrusage(RUSAGE_SELF, &before), ==, 0);
  fk_vae_encode(&c.vae, be, &arena, fk_arena_3d(&arena, be->dtype, SIDE, SIDE, 3),
                fk_arena_3d(&arena, be->dtype, SIDE / 8, SIDE / 8, 2 * latents), true);
  fk_vae_decode(&c.vae, be, &arena, fk_arena_3d(&arena, be->dtype, SIDE / 8, SIDE / 8, latents),
                fk_arena_3d(&arena, be->dtype, SIDE, SIDE, 3), true);
  g_assert_cmpint(be->failure, ==, FK_FAIL_NONE);
  g_assert_cmpint(getrusage(RUSAGE_SELF, &after), ==, 0);
  g_assert_cmpint(after.ru_maxrss - before.ru_maxrss, <, 256 << 10); /* KiB */
  fk_backend_close(be);
  stage_close(&c.s);
}

static void random_network(void) {
  Case c;
  open_random(&c);
  g_auto(Npy) image = npy_load("stages/vae-a-image"), moments = npy_load("stages/vae-a-moments");
  g_auto(Npy) latent = npy_load("stages/vae-a-latent"), decoded = npy_load("stages/vae-a-decoded");
  half(&c, false, false, &image, image.data, &moments, "encode, random network");
  half(&c, true, false, &latent, latent.data, &decoded, "decode, random network");
  stage_close(&c.s);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/vae/demo", demo);
  /* The golden's tiles have 32 pixels, and so have those of sizes that are no multiple of 32 below 64. */
  static const int sizes[] = {32, 1, 8, 12, 15, 20, 24, 31, 40, 63};
  for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
    g_autofree char *path = g_strdup_printf("/vae/tiled/%d", sizes[i]);
    g_test_add_data_func(path, GINT_TO_POINTER(sizes[i]), demo_tiled);
  }
  g_test_add_func("/vae/null-walk", null_walk);
  g_test_add_func("/vae/random", random_network);
  return g_test_run();
}
