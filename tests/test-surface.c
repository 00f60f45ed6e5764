/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures in device memory, on the CPU backend with the host's memory for it (FK_HOST_IS_DEVICE): the bytes that
 * pixels in host memory give, for every way through an edit; which engines take them, and what the others say. */
#include "engine.h"
#include "surface.h"
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

static void fill(uint8_t *data, size_t n, uint32_t x) {
  for (size_t i = 0; i < n; i++) {
    x = x * 1664525u + 1013904223u;
    data[i] = (uint8_t)(x >> 24);
  }
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

/* A picture whose rows have a gap. */
static FkImage picture(int width, int height, int channels, uint32_t seed) {
  const size_t stride = (size_t)(width * channels + 5);
  FkImage i = {g_malloc(stride * (size_t)height), width, height, channels, stride, FK_MEMORY_HOST, NULL};
  fill(i.data, stride * (size_t)height, seed);
  return i;
}

typedef struct {
  const char *name;
  int w, h, channels, n; /* n: frames of the batch */
  const char *set[8];    /* names and values */
  int mask;              /* 0: none; 1: a rectangle; 2: nothing is edited */
  int references;
} EditCase;

static const EditCase edits[] = {
    {"rgb", 64, 64, 3, 1, {NULL}, 0, 0},
    {"odd", 33, 17, 3, 1, {NULL}, 0, 0},
    {"alpha", 71, 45, 4, 1, {NULL}, 0, 0},
    {"one pixel", 1, 1, 4, 1, {NULL}, 0, 0},
    {"batch", 50, 70, 3, 3, {NULL}, 0, 0},
    {"native", 61, 30, 4, 1, {"size-mode", "native", NULL}, 0, 0},
    {"generate", 48, 48, 4, 1, {"task", "generate", NULL}, 0, 0},
    {"mask", 71, 45, 3, 1, {"mask-feather", "6", NULL}, 1, 0},
    {"mask, alpha, batch", 71, 45, 4, 2, {"mask-invert", "true", NULL}, 1, 0},
    {"mask of alpha", 40, 40, 4, 1, {"mask", "alpha", NULL}, 0, 0},
    {"crop", 150, 130, 3, 1, {"region", "crop", NULL}, 1, 0},
    {"crop, alpha", 151, 131, 4, 2, {"region", "crop", "mask-feather", "4", NULL}, 1, 0},
    {"nothing", 33, 17, 4, 1, {NULL}, 2, 0},
    {"references", 64, 48, 3, 1, {NULL}, 0, 2},
    {"draft", 128, 128, 3, 1, {"draft", "2", "steps", "2", NULL}, 0, 0},
};

static FkSettings *settings_of(const EditCase *c) {
  g_autoptr(GError) error = NULL;
  FkSettings *s = fk_settings_new();
  fk_settings_set(s, "prompt", "make it night", NULL);
  fk_settings_set(s, "steps", "1", NULL);
  fk_settings_set(s, "max-area", strcmp(c->name, "draft") ? "4096" : "16384", NULL);
  for (int i = 0; c->set[i]; i += 2) {
    fk_settings_set(s, c->set[i], c->set[i + 1], &error);
    g_assert_no_error(error);
  }
  return s;
}

typedef struct {
  FkJob jobs[3];
  FkImage mask, references[2];
  FkSettings *settings;
} Rig;

static void rig_init(Rig *r, FkEngine *engine, const EditCase *c) {
  int ow, oh;
  r->settings = settings_of(c);
  g_assert_true(fk_engine_output_size(engine, r->settings, c->w, c->h, &ow, &oh, NULL));
  r->mask = picture(c->w, c->h, 1, 0);
  memset(r->mask.data, 0, r->mask.stride * (size_t)c->h);
  for (int y = c->h / 3; c->mask == 1 && y < c->h / 2; y++)
    memset(r->mask.data + (size_t)y * r->mask.stride + c->w / 4, 255, (size_t)c->w / 3);
  for (int k = 0; k < 2; k++) r->references[k] = picture(40 + 13 * k, 56 - 7 * k, 3 + k, 88 + (uint32_t)k);
  for (int i = 0; i < c->n; i++)
    r->jobs[i] = (FkJob){.in = picture(c->w, c->h, c->channels, 7 + (uint32_t)i),
                         .out = picture(ow, oh, c->channels, 900),
                         .settings = r->settings,
                         .mask = c->mask ? &r->mask : NULL,
                         .references = r->references,
                         .n_references = c->references};
}

static void rig_clear(Rig *r, int n) {
  for (int i = 0; i < n; i++) {
    g_free(r->jobs[i].in.data);
    g_free(r->jobs[i].out.data);
  }
  for (int k = 0; k < 2; k++) g_free(r->references[k].data);
  g_free(r->mask.data);
  fk_settings_free(r->settings);
}

static void run(FkEngine *engine, FkJob *jobs, int n) {
  g_autoptr(GError) error = NULL;
  fk_engine_edit(engine, jobs, n, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
}

static void assert_rows(const char *name, const FkImage *have, const FkImage *want) {
  for (int y = 0; y < want->height; y++)
    for (int i = 0; i < want->width * want->channels; i++)
      if (have->data[(size_t)y * have->stride + (size_t)i] != want->data[(size_t)y * want->stride + (size_t)i])
        g_error("%s: row %d, byte %d", name, y, i);
}

/* The arena holds what was planned: ops past its end would fail. */
static void interleaved(void) {
  g_autoptr(FkEngine) engine = open_engine("cpu", true);
  for (size_t k = 0; k < G_N_ELEMENTS(edits); k++) {
    const EditCase *c = &edits[k];
    Rig host, device;
    rig_init(&host, engine, c);
    rig_init(&device, engine, c);
    run(engine, host.jobs, c->n);
    for (int i = 0; i < c->n; i++) device.jobs[i].in.memory = device.jobs[i].out.memory = FK_MEMORY_DEVICE;
    device.references[1].memory = FK_MEMORY_DEVICE; /* one of them, the other stays */
    run(engine, device.jobs, c->n);
    for (int i = 0; i < c->n; i++) {
      assert_rows(c->name, &device.jobs[i].out, &host.jobs[i].out);
      g_assert_cmpint(device.jobs[i].out.data[device.jobs[i].out.stride - 1], ==,
                      host.jobs[i].out.data[host.jobs[i].out.stride - 1]);
    }
    rig_clear(&host, c->n);
    rig_clear(&device, c->n);
  }
}

/* ---- Planes ---- */

typedef struct {
  FkPlanes planes;
  uint8_t *data;
  size_t bytes;
} Video;

enum { BGRX, GBRA, NV12, I420, P010, LAYOUTS };

static Video video(int layout, int w, int h, uint32_t seed) {
  const size_t stride = (size_t)(w * (layout == BGRX ? 4 : layout == P010 ? 2 : 1) + 9);
  Video v = {.bytes = stride * (size_t)h * 4};
  v.data = g_malloc(v.bytes);
  fill(v.data, v.bytes, seed);
  FkPlanes *p = &v.planes;
  *p = (FkPlanes){.depth = layout == P010 ? 10 : 8,
                  .ycbcr = layout >= NV12,
                  .limited = true,
                  .kr = 0.2126,
                  .kb = 0.0722,
                  .up = layout == I420 ? FK_CHROMA_BLOCK : FK_CHROMA_LINEAR,
                  .down = layout == I420 && w % 2 == 0 && h % 2 == 0 ? FK_CHROMA_BLOCK : FK_CHROMA_LINEAR,
                  .cosited_x = true};
  for (int i = 0; i < 4; i++) {
    p->data[i] = v.data + stride * (size_t)h * (size_t)i;
    p->stride[i] = stride;
  }
  const int bytes = layout == P010 ? 2 : 1;
  for (int s = 0; s < 4; s++) {
    const int chroma = s == 1 || s == 2;
    if (layout == BGRX) p->sample[s] = (FkSample){0, s < 3 ? 2 - s : 3, 4, 0, 0};
    if (layout == GBRA) p->sample[s] = (FkSample){(s + 1) % 3, 0, 1, 0, 0};
    if (layout == GBRA && s == 3) p->sample[s].plane = 3;
    if (layout >= NV12 && s < 3)
      p->sample[s] = (FkSample){chroma, s == 2 ? bytes : 0, chroma ? 2 * bytes : bytes, chroma, chroma};
    if (layout == I420 && chroma) p->sample[s] = (FkSample){s, 0, 1, 1, 1};
  }
  return v;
}

/* A frame over planes, as the op line has it. */
static FkFrame frame_of(const Video *v, int w, int h, int channels) {
  const FkPlanes *p = &v->planes;
  FkFrame f = {.width = w,
               .height = h,
               .channels = channels,
               .depth = p->depth,
               .ycbcr = p->ycbcr,
               .limited = p->limited,
               .kr = p->kr,
               .kb = p->kb,
               .block_up = p->up == FK_CHROMA_BLOCK,
               .block_down = p->down == FK_CHROMA_BLOCK,
               .cosited_x = p->cosited_x,
               .cosited_y = p->cosited_y};
  for (int i = 0; i < 4; i++) {
    const FkSample *s = &p->sample[i];
    f.data[i] = p->data[i];
    f.stride[i] = p->stride[i];
    f.sample[i] = (FkFrameSample){s->plane, s->offset, s->step, s->shift_x, s->shift_y};
  }
  return f;
}

static FkImage tight(const FkFrame *f) {
  FkImage i = {g_malloc((size_t)(f->width * f->height * f->channels)),
               f->width,
               f->height,
               f->channels,
               (size_t)(f->width * f->channels),
               FK_MEMORY_HOST,
               NULL};
  for (int k = 0; k < f->width * f->height; k++) {
    uint8_t rgba[4];
    fk_frame_read_pixel(f, k % f->width, k / f->width, 0, rgba);
    memcpy(i.data + (size_t)(k * f->channels), rgba, (size_t)f->channels);
  }
  return i;
}

/* Through R G B in host memory, and at once. */
static void check_planes(FkEngine *engine, int layout, const EditCase *c) {
  const int channels = layout == GBRA ? 4 : 3, w = c->w, h = c->h;
  Video from = video(layout, w, h, 5), to = video(layout, w, h, 6), want = video(layout, w, h, 6);
  const FkFrame in = frame_of(&from, w, h, channels), out = frame_of(&want, w, h, channels);
  FkImage before = tight(&in), after = tight(&in);
  Rig r;
  rig_init(&r, engine, c);
  FkJob job = r.jobs[0];
  job.in = before;
  job.out = after;
  run(engine, &job, 1);
  for (int k = 0; k < w * h; k++) fk_frame_write_pixel(&out, after.data, k % w, k / w);
  for (int k = 0; c->mask && k < w * h; k++) fk_frame_keep_pixel(&out, &in, before.data, after.data, k % w, k / w);
  job.in = (FkImage){NULL, w, h, channels, 0, FK_MEMORY_DEVICE, &from.planes};
  job.out = (FkImage){NULL, w, h, channels, 0, FK_MEMORY_DEVICE, &to.planes};
  run(engine, &job, 1);
  for (size_t i = 0; i < want.bytes; i++)
    if (to.data[i] != want.data[i]) g_error("layout %d, %s, %dx%d: byte %zu", layout, c->name, w, h, i);
  rig_clear(&r, 1);
  g_free(from.data);
  g_free(to.data);
  g_free(want.data);
  g_free(before.data);
  g_free(after.data);
}

static void planes(void) {
  static const EditCase cases[] = {{"even", 64, 48, 3, 1, {NULL}, 0, 0},
                                   {"odd", 33, 17, 3, 1, {NULL}, 0, 0},
                                   {"mask", 71, 45, 3, 1, {"mask-feather", "6", NULL}, 1, 0},
                                   {"crop", 151, 131, 3, 1, {"region", "crop", NULL}, 1, 0},
                                   {"nothing", 35, 21, 3, 1, {NULL}, 2, 0}};
  g_autoptr(FkEngine) engine = open_engine("cpu", true);
  for (int layout = 0; layout < LAYOUTS; layout++)
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) check_planes(engine, layout, &cases[i]);
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
                                      "input image: planes: sample 3"};
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
    const FkJob job = {.in = in, .out = out, .settings = settings};
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
  g_assert_true(memcmp(to.data, same.data, to.bytes) != 0);
  g_assert_cmpint(to.data[c.w], ==, same.data[c.w]); /* between rows */
  rig_clear(&r, 1);
  g_free(from.data);
  g_free(to.data);
  g_free(same.data);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/surface/resize", resizes);
  g_test_add_func("/surface/interleaved", interleaved);
  g_test_add_func("/surface/planes", planes);
  g_test_add_func("/surface/refused", refused);
  g_test_add_func("/surface/wrong", wrong);
  g_test_add_func("/surface/null", null_results);
  return g_test_run();
}
