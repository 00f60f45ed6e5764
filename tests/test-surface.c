/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures in device memory, on the CPU backend with the host's memory for it (FK_HOST_IS_DEVICE), closed to all but
 * ops: the bytes that pixels in host memory give, for every way through an edit; which engines take them, and what the
 * others say. */
#include "guarded-device.h"
#include "surface.h"
#include "surface-cases.h"
#include "test-files.h"

static FkEngine *open_engine(const char *backend, bool device) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  if (device) g_setenv("FK_HOST_IS_DEVICE", "1", TRUE);
  fk_options_set(options, "backend", backend, NULL);
  if (!strcmp(backend, "cpu")) fk_options_set(options, "model-path", FK_DEMO_MODEL, NULL);
  FkEngine *engine = fk_engine_open(options, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_unsetenv("FK_HOST_IS_DEVICE");
  return engine;
}

/* ---- Resizing by ops ---- */

static void check_resize(FkEdit *e, int sw, int sh, int dw, int dh, int channels) {
  const size_t n = (size_t)sw * (size_t)sh * (size_t)channels, m = (size_t)dw * (size_t)dh * (size_t)channels;
  g_autofree uint8_t *from = g_malloc(n), *want = g_malloc(m), *have = g_malloc(m);
  g_autoptr(GError) error = NULL;
  fill(from, n, (uint32_t)(sw * 31 + sh));
  g_assert_true(
      fk_image_resize_lanczos(want, dw, dh, (size_t)(dw * channels), from, sw, sh, (size_t)(sw * channels), channels));
  FkImage image = {from, sw, sh, channels, (size_t)(sw * channels), FK_MEMORY_DEVICE, NULL};
  FkPlanes grey = {.data = {from}, .stride = {(size_t)sw}, .depth = 8}; /* one channel as alpha of four */
  for (int i = 0; i < 4; i++) grey.sample[i].step = 1;
  if (channels == 1) image.planes = &grey, image.channels = 4;
  const size_t mark = fk_arena_mark(e->arena);
  FkTensor y = fk_arena_3d(e->arena, FK_U8, dh, dw, channels);
  g_assert_true(fk_surface_take(e, &image, (FkMaskBox){0, 0, sw, sh}, channels == 1 ? 3 : 0, y, &error));
  fk_op_download(e->be, have, y);
  g_assert_true(fk_backend_sync(e->be));
  for (size_t i = 0; i < m; i++)
    if (have[i] != want[i]) g_error("%dx%d to %dx%d, %d: byte %zu", sw, sh, dw, dh, channels, i);
  fk_arena_reset(e->arena, mark);
}

static void resizes(void) {
  static const int sizes[][4] = {{1, 1, 1, 1},      {1, 1, 16, 16},    {1, 97, 32, 16},   {97, 1, 16, 32},
                                 {33, 17, 33, 17},  {33, 17, 64, 17},  {33, 17, 33, 64},  {33, 17, 16, 48},
                                 {64, 48, 16, 16},  {17, 300, 32, 16}, {300, 17, 16, 32}, {301, 203, 64, 80},
                                 {31, 29, 128, 96}, {2, 3, 5, 7}};
  char message[256];
  FkFailure failure;
  FkBackend *be = fk_backend_open("cpu", 0, 2, &failure, message, sizeof message);
  FkArena arena;
  g_assert_true(fk_arena_open(&arena, be, 8 << 20));
  FkEdit e = {.be = be, .arena = &arena};
  static const int channels[] = {1, 3, 4};
  for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++)
    for (int c = 0; c < 3; c++) check_resize(&e, sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3], channels[c]);
  fk_arena_close(&arena);
  fk_backend_close(be);
}

/* ---- Edits ---- */

static void on_guarded(void (*check)(FkEngine *)) {
  g_autoptr(FkEngine) engine = open_engine("cpu", true);
  device_memory = guarded_memory();
  guarded_ops(engine->be);
  check(engine);
  g_clear_pointer(&device_memory, fk_backend_close);
}

static void interleaved(void) {
  on_guarded(check_all_interleaved);
}

static void planes(void) {
  on_guarded(check_all_planes);
}

/* ---- Errors ---- */

enum { SIDE = 32, ROW = SIDE * 3 };

/* One picture of a job at a time lies where it is not taken. */
static void refused(void) {
  static const char *const backends[] = {"cpu", "null"};
  static const char *const names[] = {"input image", "result image", "mask", "reference 1", "input image"};
  static uint8_t in[SIDE * ROW], out[SIDE * ROW], mask[SIDE * SIDE];
  static const FkPlanes planes;
  for (int b = 0; b < 2; b++) {
    g_autoptr(FkEngine) engine = open_engine(backends[b], false);
    g_autoptr(FkSettings) settings = fk_settings_new();
    int ordinal = -5;
    void *context = &ordinal;
    g_assert_false(fk_engine_device(engine, &ordinal, &context));
    g_assert_true(ordinal == -5 && context == &ordinal);
    for (int i = 0; i < 5; i++) {
      g_autoptr(GError) error = NULL, manifest = NULL;
      FkImage given = {mask, SIDE, SIDE, 1, SIDE}, references[2] = {{in, SIDE, SIDE, 3, ROW}, {in, SIDE, SIDE, 3, ROW}};
      FkJob job = {.in = references[0], .out = {out, SIDE, SIDE, 3, ROW}, .settings = settings};
      job.mask = &given;
      job.references = references;
      job.n_references = 2;
      FkImage *const image[] = {&job.in, &job.out, &given, &references[1], &job.in};
      image[i]->memory = i < 4 ? FK_MEMORY_DEVICE : FK_MEMORY_HOST;
      if (i == 4) job.in.planes = &planes;
      g_autofree char *what = g_strdup_printf("frame 0: %s: expected pixels in host memory, found %s", names[i],
                                              i == 4 ? "planes" : "device memory");
      g_assert_false(fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error));
      assert_error(error, FK_ERROR_OPTION_BAD, what, i == 2 ? "" : fk_engine_machine(engine));
      g_assert_null(fk_manifest(engine, &job, &manifest));
      assert_error(manifest, FK_ERROR_OPTION_BAD, what, "");
    }
  }
}

/* What a caller may get wrong, on an engine that takes them. */
static void wrong(void) {
  static const char *const words[] = {"input image: has no data",
                                      "input image: plane 0: stride 95 does not fit 32 rows of 96 bytes",
                                      "input image: plane 0: stride 18446744073709551615 does not fit",
                                      "input image: expected sides from 1 to 65535",
                                      "result image: expected it in the memory of its input",
                                      "result image: its planes are laid out otherwise",
                                      "input image: planes: sample 1: expected a plane from 0 to 3",
                                      "input image: planes: sample 0: expected",
                                      "input image: planes: expected 8 bits for R G B, found 10",
                                      "input image: planes: kr and kb",
                                      "input image: planes: chroma up and down",
                                      "input image: plane 1 has no data",
                                      "input image: plane 1: stride 31 does not fit 16 rows of 32 bytes",
                                      "result image overlaps the input image",
                                      "input image: planes: sample 3",
                                      "mask: expected sides from 1 to 65535 and 1 channel, found 32x32 with 3",
                                      "mask: expected pixels in host memory, found device memory: its frame is there",
                                      "mask: plane 0: stride 31 does not fit 32 rows of 32 bytes"};
  g_autoptr(FkEngine) engine = open_engine("cpu", true);
  g_autoptr(FkSettings) settings = fk_settings_new();
  int ordinal = -5;
  void *context = &ordinal;
  g_assert_true(fk_engine_device(engine, &ordinal, &context));
  g_assert_true(ordinal == 0 && context == NULL);
  for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
    g_autoptr(GError) error = NULL;
    FkImage in = picture(SIDE, SIDE, 3, 1), out = picture(SIDE, SIDE, 3, 2);
    Video a = video(NV12, SIDE, SIDE, 3), b = video(NV12, SIDE, SIDE, 4);
    in.memory = out.memory = FK_MEMORY_DEVICE;
    uint8_t *const owned[] = {in.data, out.data, a.data, b.data};
    if (i == 0) in.data = NULL;
    if (i == 1) in.stride = ROW - 1;
    if (i == 2) in.stride = SIZE_MAX;
    if (i == 3) in.width = 0;
    if (i == 4) out.memory = FK_MEMORY_HOST;
    if (i >= 5) in.planes = &a.planes;
    if (i >= 6) out.planes = &b.planes;
    if (i == 6) a.planes.sample[1].plane = 4;
    if (i == 7) a.planes.sample[0].shift_x = 1;
    if (i == 8)
      a.planes.ycbcr = false, a.planes.depth = 10, a.planes.sample[1] = a.planes.sample[2] = a.planes.sample[0];
    if (i == 9) a.planes.kr = 1;
    if (i == 10) a.planes.up = (FkChroma)7;
    if (i == 11) a.planes.data[1] = NULL;
    if (i == 12) a.planes.stride[1] = 31;
    if (i == 13) b.planes.data[0] = a.planes.data[1] + 40;
    if (i == 14) in.channels = out.channels = 4;
    FkImage mask = in;
    if (i >= 16) mask.channels = 1;
    if (i == 16) in.memory = out.memory = FK_MEMORY_HOST;
    if (i == 17) mask.stride = 31;
    if (i >= 15) in.planes = out.planes = mask.planes = NULL;
    const FkJob job = {.in = in, .out = out, .settings = settings, .mask = i >= 15 ? &mask : NULL};
    g_assert_false(fk_engine_edit(engine, (FkJob[]){job}, 1, NULL, NULL, NULL, &error));
    assert_error(error, FK_ERROR_OPTION_BAD, words[i], "");
    for (int k = 0; k < 4; k++) g_free(owned[k]);
  }
}

/* The null backend's results are a pattern, written where they belong. */
static void null_results(void) {
  g_autoptr(FkEngine) engine = open_engine("null", true);
  static const EditCase c = {"null", 33, 17, 3, 1, {NULL}, 0, 0};
  Rig r;
  rig_init(&r, engine, &c);
  Video from = video(NV12, c.w, c.h, 5), to = video(NV12, c.w, c.h, 6), same = video(NV12, c.w, c.h, 6);
  FkJob job = r.jobs[0];
  job.in = (FkImage){NULL, c.w, c.h, 3, 0, FK_MEMORY_DEVICE, &from.planes};
  job.out = (FkImage){NULL, c.w, c.h, 3, 0, FK_MEMORY_DEVICE, &to.planes};
  run(engine, &job, 1);
  job.mask = &r.mask; /* whose box nobody has computed: it is all of the frame */
  fk_settings_set(r.settings, "region", "crop", NULL);
  run(engine, &job, 1);
  g_assert_true(memcmp(to.data, same.data, to.bytes) != 0);
  g_assert_cmpint(to.data[c.w], ==, same.data[c.w]); /* between rows */
  rig_clear(&r, 1);
  g_free(from.data);
  g_free(to.data);
  g_free(same.data);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  mask_file = FK_DEMO_PHOTOS "/shapes_256.png";
  g_test_add_func("/surface/resize", resizes);
  g_test_add_func("/surface/interleaved", interleaved);
  g_test_add_func("/surface/planes", planes);
  g_test_add_func("/surface/refused", refused);
  g_test_add_func("/surface/wrong", wrong);
  g_test_add_func("/surface/null", null_results);
  return g_test_run();
}
