/* SPDX-License-Identifier: Apache-2.0 */
/* clip.c against transformers' CLIPTextModel in float32. */
#include "clip.h"
#include "test-stage.h"

static void pooled(void) {
  FkClip clip;
  FkConfig config;
  g_autoptr(GError) error = NULL;
  g_auto(Npy) ids = npy_load("stages/demo-clip-ids"), want = npy_load("stages/demo-pooled");
  fk_config_load(&config, FK_DEMO_MODEL, &error);
  g_assert_no_error(error);
  Stage s = stage_open("text_encoder", "model");
  fk_clip_init(&clip, &config.clip, s.binder);
  stage_load(&s);
  FkTensor out = fk_arena_2d(&s.arena, FK_F32, 1, config.clip.width);
  fk_clip_encode(&clip, s.be, &s.arena, ids.data, 77, out);
  g_autofree float *have = stage_download(&s, out);
  assert_close("pooled", have, want.data, npy_count(&want), 1e-4);
  fk_clip_clear(&clip);
  stage_close(&s);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/clip/pooled", pooled);
  return g_test_run();
}
