/* SPDX-License-Identifier: Apache-2.0 */
/* What can be edited: sizes and the setting that is in the way, images that are not there or lie on each other. */
#include "frames.h"
#include "test-files.h"

typedef struct {
  FkBackend *be;
  FkModel *model;
  FkTune tune;
  FkSettings *settings;
} Rig;

static Rig open_rig(const char *model, const char *name, const char *value) {
  char message[256] = "";
  FkFailure failure;
  g_autoptr(GError) error = NULL;
  Rig r = {.be = fk_backend_open("null", 0, 0, &failure, message, sizeof message), .settings = fk_settings_new()};
  r.model = fk_model_open(model, r.be, NULL, false, &error);
  if (name) fk_settings_set(r.settings, name, value, &error);
  fk_tune_resolve(r.settings, r.be, &r.tune, &error);
  g_assert_no_error(error);
  return r;
}

static void close_rig(Rig *r) {
  fk_settings_free(r->settings);
  fk_model_free(r->model);
  fk_backend_close(r->be);
}

/* The error names the setting that is in the way, and else the image. */
static void sizes(void) {
  static const struct {
    const char *name, *value;
    int w, h;
    int mw, mh;       /* 0: refused */
    const char *word; /* of the error: OPTION_BAD of a setting, else SHAPE */
  } cases[] = {{NULL, NULL, 1024, 1024, 1024, 1024, NULL},
               {NULL, NULL, 65535, 65535, 1024, 1024, NULL},
               {NULL, NULL, 1, 1, 1024, 1024, NULL},
               {"max-area", "128", 256, 256, 16, 16, NULL},
               {"max-area", "127", 256, 256, 0, 0, "max-area=127: the model works at 256 pixels"},
               {"max-area", "1", 64, 64, 0, 0, "max-area=1: the model works at 256 pixels"},
               {"max-area", "4096", 4, 4000, 0, 0, "image 4x4000: its aspect ratio cannot be edited at max-area=4096"},
               {NULL, NULL, 4, 4000, 0, 0, "image 4x4000: its aspect ratio cannot be edited at 1048576 pixels"},
               {"size-mode", "native", 4, 4000, 672, 1568, NULL},
               {NULL, NULL, 0, 5, 0, 0, "image 0x5: sides go from 1 to 65535"},
               {NULL, NULL, 5, 65536, 0, 0, "image 5x65536: sides go from 1 to 65535"},
               {NULL, NULL, G_MININT, G_MAXINT, 0, 0, "sides go from 1 to 65535"}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    Rig r = open_rig("kontext-dev", cases[i].name, cases[i].value);
    g_autoptr(GError) error = NULL;
    FkFrameSize s;
    const bool ok = fk_frames_size(r.model, &r.tune, cases[i].w, cases[i].h, &s, &error);
    g_assert_cmpint(ok, ==, cases[i].mw > 0);
    if (ok) g_assert_cmpint(s.width * 100000 + s.height, ==, cases[i].mw * 100000 + cases[i].mh);
    const int code = !ok && g_str_has_prefix(cases[i].word, "max-area") ? FK_ERROR_OPTION_BAD : FK_ERROR_SHAPE;
    if (!ok) assert_error(error, code, cases[i].word, "");
    close_rig(&r);
  }
}

static void tasks(void) {
  for (int k = 0; k < 4; k++) {
    Rig r = open_rig(k & 1 ? "schnell" : "kontext-dev", "task", k & 2 ? "generate" : "edit");
    g_autoptr(GError) error = NULL;
    g_assert_cmpint(fk_frames_task(r.model, &r.tune, &error), ==, k != 1);
    if (k == 1) assert_error(error, FK_ERROR_OPTION_BAD, "task=edit", "task=generate");
    close_rig(&r);
  }
}

enum { SIDE = 32, CHANNELS = 4, ROW = SIDE * CHANNELS };

/* Each fault alone, for editing and for generating, which reads no input. */
static void images(void) {
  static uint8_t in[2][SIDE * ROW], out[2][SIDE * ROW];
  static const struct {
    const char *word; /* NULL: fine */
    bool generates;   /* fine with task=generate */
  } cases[] = {{NULL, true},
               {"frame 1: the input image has no data", true},
               {"frame 1: the result image has no data", false},
               {"frame 1: input image: stride 127", true},
               {"frame 1: result image: stride 127", false},
               {"frame 1: result image: stride 18446744073709551615", false},
               {"frame 1: result image: expected 32x32 with 4 channels", false},
               {"frame 1 of the batch", false},
               {"frame 1: its result image overlaps the input image of frame 0", true},
               {"frame 1: its result image overlaps the input image of frame 1", true},
               {"frame 0: its result image overlaps the result image of frame 1", false},
               {"with 5", false}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
    for (int generate = 0; generate < 2; generate++) {
      Rig r = open_rig("kontext-dev", "task", generate ? "generate" : "edit");
      r.tune.max_area = SIDE * SIDE;
      g_autoptr(GError) error = NULL;
      FkFrameSize s;
      FkJob jobs[2];
      for (int k = 0; k < 2; k++)
        jobs[k] = (FkJob){.in = {in[k], SIDE, SIDE, CHANNELS, ROW},
                          .out = {out[k], SIDE, SIDE, CHANNELS, ROW},
                          .settings = r.settings};
      FkJob *j = &jobs[1];
      switch (i) {
      case 1: j->in.data = NULL; break;
      case 2: j->out.data = NULL; break;
      case 3: j->in.stride = ROW - 1; break;
      case 4: j->out.stride = ROW - 1; break;
      case 5: j->out.stride = SIZE_MAX; break;
      case 6: j->out.width = SIDE - 1; break;
      case 7: j->in.width = SIDE - 1; break;
      case 8: j->out.data = in[0] + ROW * (SIDE - 1) + ROW - 1; break;
      case 9: j->out.data = in[1]; break;
      case 10: j->out.data = out[0]; break;
      case 11: j->in.channels = j->out.channels = 5; break;
      default: break;
      }
      const bool right = !cases[i].word || (generate && cases[i].generates);
      g_assert_cmpint(fk_frames_check(r.model, &r.tune, jobs, 2, &s, &error), ==, right);
      if (!right) assert_error(error, FK_ERROR_OPTION_BAD, cases[i].word, "");
      close_rig(&r);
    }
}

/* Input and result as parts of one canvas: `x`, `y` of the result's corner relative to the input's. */
static void parts(void) {
  static const struct {
    int x, y;
    bool apart;
  } cases[] = {{SIDE, 0, true},
               {-SIDE, 0, true},
               {0, SIDE, true},
               {0, -SIDE, true},
               {SIDE - 1, 0, false},
               {1 - SIDE, 0, false},
               {0, SIDE - 1, false},
               {SIDE, SIDE, true},
               {-SIDE, 1, true},
               {1 - SIDE, 1, false},
               {SIDE - 1, SIDE - 1, false},
               {0, 0, false},
               {-SIDE, -SIDE, true},
               {SIDE, -1, true},
               {SIDE - 1, 1 - SIDE, false}};
  enum { CANVAS = 4 * ROW };
  static uint8_t canvas[CANVAS * 4 * SIDE];
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    Rig r = open_rig("kontext-dev", "max-area", "1024");
    g_autoptr(GError) error = NULL;
    FkFrameSize s;
    uint8_t *at = canvas + 3 * SIDE / 2 * CANVAS + 3 * ROW / 2;
    FkJob job = {.in = {at, SIDE, SIDE, CHANNELS, CANVAS},
                 .out = {at + cases[i].y * CANVAS + cases[i].x * CHANNELS, SIDE, SIDE, CHANNELS, CANVAS},
                 .settings = r.settings};
    g_assert_cmpint(fk_frames_check(r.model, &r.tune, &job, 1, &s, &error), ==, cases[i].apart);
    if (!cases[i].apart) assert_error(error, FK_ERROR_OPTION_BAD, "overlaps", "");
    close_rig(&r);
  }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/frames/sizes", sizes);
  g_test_add_func("/frames/tasks", tasks);
  g_test_add_func("/frames/images", images);
  g_test_add_func("/frames/parts", parts);
  return g_test_run();
}
