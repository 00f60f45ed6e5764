/* SPDX-License-Identifier: Apache-2.0 */
/* t5.c against transformers' T5EncoderModel in float32, and the position buckets of spec 4.2. */
#include "t5.h"
#include "test-stage.h"

static void states(void) {
  FkT5 t5;
  FkConfig config;
  g_autoptr(GError) error = NULL;
  g_auto(Npy) ids = npy_load("stages/demo-t5-ids"), want = npy_load("stages/demo-states");
  fk_config_load(&config, FK_DEMO_MODEL, &error);
  g_assert_no_error(error);
  Stage s = stage_open("text_encoder_2", "model");
  fk_t5_init(&t5, &config.t5, s.binder);
  stage_load(&s);
  g_assert_true(fk_t5_prepare(&t5, s.be, NULL));
  FkTensor out = fk_arena_2d(&s.arena, FK_F32, 64, config.t5.width);
  fk_t5_encode(&t5, s.be, &s.arena, ids.data, 64, out);
  g_autofree float *have = stage_download(&s, out);
  assert_close("states", have, want.data, npy_count(&want), 1e-4);
  fk_t5_clear(&t5);
  stage_close(&s);
}

static void buckets(void) {
  static const struct {
    int relative, bucket;
  } cases[] = {{1, 17},   {-1, 1},   {0, 0},    {-8, 8},    {-11, 8},  {-12, 9},  {-16, 10},
               {-22, 10}, {-23, 11}, {-31, 11}, {-32, 12},  {-45, 12}, {-46, 13}, {-63, 13},
               {-64, 14}, {-90, 14}, {-91, 15}, {-500, 15}, {500, 31}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
    g_assert_cmpint(fk_t5_bucket(cases[i].relative, 32, 128), ==, cases[i].bucket);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/t5/buckets", buckets);
  g_test_add_func("/t5/states", states);
  return g_test_run();
}
