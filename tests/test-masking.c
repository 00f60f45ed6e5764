/* SPDX-License-Identifier: Apache-2.0 */
/* Masks of frames in device memory, on the CPU backend with the host's memory for it: the ops against their
 * definitions, whole masks against those of frames in host memory, what is copied for a frame and what is allocated,
 * and memory that is refused. Edits under them: surface-cases.h. */
#include "budget.h"
#include "masking.h"
#include "ops.h"
#include "surface-cases.h"
#include "test-files.h"

#define PHOTOS FK_DEMO_PHOTOS "/"

static FkBackend *open_backend(int threads) {
  char message[256];
  FkFailure failure;
  FkBackend *be = fk_backend_open("cpu", 0, threads, &failure, message, sizeof message);
  g_assert_nonnull(be);
  return be;
}

/* ---- Ops ---- */

static int at(const uint8_t *m, int w, int h, int x, int y) {
  return m[CLAMP(y, 0, h - 1) * w + CLAMP(x, 0, w - 1)];
}

static int defined(const uint8_t *m, int w, int h, int x, int y, FkWindow window, int r, bool columns) {
  int most = 0, least = 255;
  int64_t sum = 0;
  for (int k = -r; k <= r; k++) {
    const int value = columns ? at(m, w, h, x, y + k) : at(m, w, h, x + k, y);
    most = MAX(most, value);
    least = MIN(least, value);
    sum += value;
  }
  const int mean = (int)(((double)sum / (2 * r + 1)) + 0.5); /* exact: a half has no other double */
  return window == FK_WINDOW_MOST ? most : window == FK_WINDOW_LEAST ? least : mean;
}

static void windows(void) {
  static const int sizes[][3] = {{1, 1, 3},   {1, 9, 2},   {9, 1, 2},     {33, 17, 0},
                                 {33, 17, 1}, {40, 21, 8}, {13, 11, 1000}};
  for (int threads = 1; threads <= 2; threads++) {
    FkBackend *be = open_backend(threads);
    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++)
      for (int kind = 0; kind < 6; kind++) {
        const int w = sizes[i][0], h = sizes[i][1], r = sizes[i][2];
        g_autofree uint8_t *from = g_malloc((size_t)(w * h)), *to = g_malloc((size_t)(w * h));
        fill(from, (size_t)(w * h), (uint32_t)(kind + w));
        fk_op_window(be, fk_tensor_3d(to, FK_U8, h, w, 1), fk_tensor_3d(from, FK_U8, h, w, 1), (FkWindow)(kind / 2), r,
                     kind % 2);
        for (int k = 0; k < w * h; k++)
          g_assert_cmpint(to[k], ==, defined(from, w, h, k % w, k / w, (FkWindow)(kind / 2), r, kind % 2));
      }
    fk_backend_close(be);
  }
}

static void bounds(void) {
  enum { W = 19, H = 7 };
  static const int points[][4] = {{0, 0, 0, 0}, {18, 6, 18, 6}, {3, 2, 11, 5}, {11, 2, 3, 5}, {0, 6, 18, 0}};
  FkBackend *be = open_backend(1);
  uint8_t m[W * H] = {0};
  int32_t box[4];
  fk_op_bounds(be, fk_tensor_1d(box, FK_I32, 4), fk_tensor_3d(m, FK_U8, H, W, 1));
  for (int k = 0; k < 4; k++) g_assert_cmpint(box[k], ==, 0);
  for (size_t i = 0; i < G_N_ELEMENTS(points); i++) {
    const int *p = points[i];
    memset(m, 0, sizeof m);
    m[p[1] * W + p[0]] = 1;
    m[p[3] * W + p[2]] = 255;
    fk_op_bounds(be, fk_tensor_1d(box, FK_I32, 4), fk_tensor_3d(m, FK_U8, H, W, 1));
    g_assert_cmpint(W - box[0], ==, MIN(p[0], p[2]));
    g_assert_cmpint(H - box[1], ==, MIN(p[1], p[3]));
    g_assert_cmpint(box[2] - 1, ==, MAX(p[0], p[2]));
    g_assert_cmpint(box[3] - 1, ==, MAX(p[1], p[3]));
  }
  fk_backend_close(be);
}

/* Rows with gaps too. */
static void tokens(void) {
  enum { W = 48, H = 32, N = W * H / 256, C = 3 };
  FkBackend *be = open_backend(1);
  uint8_t m[W * H], inverse[W * H];
  float want[N * 4 * C], have[N * (4 * C + 5)];
  fill(m, sizeof m, 9);
  fk_mask_tokens(want, m, W, H, C);
  FkTensor y = fk_tensor_2d(have, FK_F32, N, 4 * C);
  y.ld = 4 * C + 5;
  fk_op_mask_tokens(be, y, fk_tensor_3d(m, FK_U8, H, W, 1));
  for (int i = 0; i < N * 4 * C; i++) g_assert_true(have[i / (4 * C) * y.ld + i % (4 * C)] == want[i]);
  fk_op_invert(be, fk_tensor_3d(inverse, FK_U8, H, W, 1), fk_tensor_3d(m, FK_U8, H, W, 1));
  for (int i = 0; i < W * H; i++) g_assert_cmpint(inverse[i], ==, 255 - m[i]);
  fk_backend_close(be);
}

/* ---- Whole masks ---- */

enum { OF_ALPHA, OF_JOB, OF_DEVICE, OF_GREY_FILE, OF_COLOUR_FILE, OF_ALL };

/* A mask of one origin, from a frame in host memory and from one in device memory. */
static void check_mask(FkBackend *be, FkMasks *masks, int of, int w, int h, const FkTune *base) {
  g_autoptr(GError) error = NULL;
  FkTune tune = *base;
  FkExtras want, have;
  FkPictures files = {0};
  FkImage frame = picture(w, h, 4, (uint32_t)(w + of)), mask = picture(w / 2 + 3, h * 2 - 1, 1, 31);
  FkImage file = picture(w + 5, h + 9, of == OF_GREY_FILE ? 4 : 3, 5);
  FkJob job = {.in = frame, .mask = of == OF_JOB || of == OF_DEVICE ? &mask : NULL};
  if (of == OF_ALPHA) tune.mask = FK_MASK_ALPHA;
  if (of >= OF_GREY_FILE) tune.mask = FK_MASK_PATH, files.mask = file;
  g_assert_true(fk_extras_init(&want, &tune, &files, &job, 0, &error));
  job.in.memory = FK_MEMORY_DEVICE;
  if (of == OF_DEVICE) mask.memory = FK_MEMORY_DEVICE;
  g_assert_true(fk_extras_init(&have, &tune, &files, &job, 0, &error));
  g_assert_null(have.mask);
  g_assert_true(fk_masking_prepare(masks, be, &tune, &have, &error));
  g_assert_no_error(error);
  g_assert_cmpmem(have.mask, (size_t)(w * h), want.mask, (size_t)(w * h));
  g_assert_cmpmem(have.fade, (size_t)(w * h), want.fade, (size_t)(w * h));
  g_assert_cmpmem(&have.box, sizeof have.box, &want.box, sizeof want.box);
  fk_extras_clear(&want);
  fk_extras_clear(&have);
  g_free(frame.data);
  g_free(mask.data);
  g_free(file.data);
}

static void whole(void) {
  static const int sizes[][2] = {{1, 1}, {33, 17}, {64, 48}, {17, 90}};
  static const int edges[][2] = {{0, 0}, {1, 0}, {0, 1}, {4, 7}, {40, 60}};
  FkBackend *be = open_backend(1);
  FkMasks masks = {0};
  for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++)
    for (size_t k = 0; k < G_N_ELEMENTS(edges); k++)
      for (int of = 0; of < 2 * OF_ALL; of++) {
        const FkTune t = {.mask_dilate = edges[k][0], .mask_feather = edges[k][1], .mask_invert = of >= OF_ALL};
        check_mask(be, &masks, of % OF_ALL, sizes[i][0], sizes[i][1], &t);
      }
  fk_masking_clear(&masks, be);
  g_assert_cmpuint(masks.bytes, ==, 0);
  fk_backend_close(be);
}

/* Memory of frames that come and go, of sizes that change, with masks of files among them, is bounded. */
static void kept(void) {
  FkBackend *be = open_backend(1);
  FkMasks masks = {0};
  uint8_t pixels[64 * 64 * 3];
  size_t most = 0;
  fill(pixels, sizeof pixels, 3);
  count_on(be, SIZE_MAX);
  for (int i = 0; i < 400; i++) {
    FkExtras x[3];
    for (int k = 0; k < 3; k++) {
      x[k] = (FkExtras){.width = 16 + i / 40 * 4 + (i % 2) * 8, .height = 32};
      x[k].origin = (FkMaskOrigin){{pixels, 64, 64, 3, 192, FK_MEMORY_HOST, NULL}, -1, false, k == 2 ? i / 10 + 1 : 0};
      g_assert_true(fk_masking_prepare(&masks, be, &(FkTune){0}, &x[k], NULL));
    }
    most = MAX(most, masks.bytes);
    for (int k = 0; k < 3; k++) fk_extras_clear(&x[k]);
  }
  g_assert_cmpuint(masks.blocks.length, <=, 8);
  g_assert_cmpuint(most, <, 8 * (64 * 64 * 4 + 8192));
  g_assert_cmpint(counted.allocs, <, 100);
  fk_masking_clear(&masks, be);
  g_assert_cmpint(counted.releases, ==, counted.allocs);
  count_off(be);
  fk_backend_close(be);
}

/* ---- What an edit copies ---- */

static FkEngine *engine;

typedef struct {
  const char *name;
  int w, h, channels;
  const char *set[10];
} CopyCase;

static FkJob job_of(const CopyCase *c, const FkSettings *settings, uint32_t seed) {
  FkJob job = {.in = picture(c->w, c->h, c->channels, seed), .out = picture(c->w, c->h, c->channels, 1)};
  job.in.memory = job.out.memory = FK_MEMORY_DEVICE;
  job.settings = settings;
  return job;
}

static void edit(FkJob *job) {
  run(engine, job, 1);
  g_free(job->in.data);
  g_free(job->out.data);
}

static FkSettings *settings_for(const CopyCase *c) {
  FkSettings *s = fk_settings_new();
  fk_settings_set(s, "steps", "1", NULL);
  fk_settings_set(s, "max-area", "4096", NULL);
  for (int i = 0; c->set[i]; i += 2) g_assert_true(fk_settings_set(s, c->set[i], c->set[i + 1], NULL));
  return s;
}

static void copies(void) {
  check_all_copies(engine);
}

/* Another file under the same name, other settings and another size make another mask. */
static void replaced(void) {
  CopyCase c = {"file", 40, 30, 3, {NULL}};
  g_autoptr(FkSettings) settings = settings_for(&c);
  g_autofree char *path = NULL;
  uint8_t *before = NULL;
  scratch_open();
  path = scratch_path("mask.png");
  g_assert_true(fk_settings_set(settings, "mask-path", path, NULL));
  for (int i = 0; i < 2; i++) {
    g_autofree char *source = g_strdup_printf("%s%s", PHOTOS, i ? "rocket_256.png" : "shapes_256.png"), *data = NULL;
    gsize bytes;
    g_assert_true(g_file_get_contents(source, &data, &bytes, NULL) &&
                  g_file_set_contents(path, data, (gssize)bytes, NULL));
    FkJob job = job_of(&c, settings, 3);
    run(engine, &job, 1);
    FkJob host = job;
    host.in.memory = host.out.memory = FK_MEMORY_HOST;
    host.out = picture(c.w, c.h, c.channels, 1);
    run(engine, &host, 1);
    const size_t n = job.out.stride * (size_t)c.h;
    g_assert_cmpmem(job.out.data, n, host.out.data, n);
    if (i) g_assert_cmpint(memcmp(before, job.out.data, n), !=, 0);
    g_free(before);
    before = g_memdup2(job.out.data, n);
    g_free(job.in.data);
    g_free(job.out.data);
    g_free(host.out.data);
  }
  g_free(before);
  scratch_close();
}

/* One that is refused is asked for again, when what is kept has been given back; where all are it is MEMORY, and the
 * next edit is right. */
static void refused(void) {
  const CopyCase c = {"alpha", 320, 200, 4, {"mask", "alpha", "mask-feather", "3", NULL}};
  g_autoptr(FkSettings) settings = settings_for(&c);
  FkEngine *const e = engine;
  for (int n = -1; n < 4; n++) {
    g_autoptr(GError) error = NULL;
    fk_masking_clear(&e->masks, e->be);
    count_on(e->be, SIZE_MAX);
    counted.refuse = n;
    FkJob job = job_of(&c, settings, 5);
    const bool ok = fk_engine_edit(e, &job, 1, NULL, NULL, NULL, &error);
    g_assert_cmpint(ok, ==, n >= 0);
    if (!ok) assert_error(error, FK_ERROR_MEMORY, "mask: ", "of device memory were refused");
    counted.refuse = 0;
    edit(&job);
    count_off(e->be);
  }
}

/* A device that fails where memory is asked for says so itself, and the next edit is right. */
static void failing(void) {
  const CopyCase c = {"alpha", 320, 200, 4, {"mask", "alpha", NULL}};
  g_autoptr(FkSettings) settings = settings_for(&c);
  FkEngine *const e = engine;
  static const int refusals[] = {-1, 1, 2};
  for (size_t i = 0; i < G_N_ELEMENTS(refusals); i++) {
    g_autoptr(GError) error = NULL;
    FkJob job = job_of(&c, settings, 5);
    fk_masking_clear(&e->masks, e->be);
    count_on(e->be, SIZE_MAX);
    counted.refuse = refusals[i];
    counted.fails = true;
    g_assert_false(fk_engine_edit(e, &job, 1, NULL, NULL, NULL, &error));
    g_assert_error(error, FK_ERROR, FK_ERROR_DEVICE);
    counted.refuse = 0;
    edit(&job);
    count_off(e->be);
  }
}

/* A limit counts masks too, and says so. */
static void limit(void) {
  const CopyCase c = {"alpha", 640, 400, 4, {"mask", "alpha", NULL}};
  g_autoptr(FkSettings) settings = settings_for(&c);
  g_autoptr(GError) error = NULL;
  FkJob job = job_of(&c, settings, 5);
  const uint64_t before = engine->max_vram;
  engine->max_vram = 1;
  g_assert_false(fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_MEMORY);
  g_assert_nonnull(strstr(error->message, ", masks "));
  engine->max_vram = before;
  edit(&job);
}

/* What is kept for later frames goes where it would be too much; a limit that another user has lowered holds for the
 * next edit, though it is like the last. */
static void limit_kept(void) {
  const CopyCase c = {"alpha", 640, 400, 4, {"mask", "alpha", NULL}}, none = {"none", 64, 48, 3, {NULL}};
  g_autoptr(FkSettings) settings = settings_for(&c), plain = settings_for(&none);
  FkJob job = job_of(&c, settings, 5), without = job_of(&none, plain, 5);
  const uint64_t before = engine->max_vram;
  edit(&job);
  g_assert_cmpuint(engine->masks.bytes, >, 0);
  g_assert_cmpuint(fk_masking_used(&engine->masks), ==, 0);
  const FkBudget budget = fk_budget_of(engine->model, engine->be, engine->arena.size);
  engine->max_vram = fk_budget_bytes(&budget);
  run(engine, &without, 1);
  g_assert_cmpuint(engine->masks.bytes, ==, 0);
  engine->max_vram--;
  run(engine, &without, 1);
  const FkBudget less = fk_budget_of(engine->model, engine->be, engine->arena.size);
  g_assert_cmpuint(fk_budget_bytes(&less), <=, engine->max_vram);
  engine->max_vram = before;
  edit(&without);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  g_setenv("FK_HOST_IS_DEVICE", "1", TRUE);
  fk_options_set(options, "backend", "cpu", NULL);
  fk_options_set(options, "model-path", FK_DEMO_MODEL, NULL);
  mask_file = PHOTOS "shapes_256.png";
  engine = fk_engine_open(options, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_test_add_func("/masking/windows", windows);
  g_test_add_func("/masking/bounds", bounds);
  g_test_add_func("/masking/tokens", tokens);
  g_test_add_func("/masking/whole", whole);
  g_test_add_func("/masking/kept", kept);
  g_test_add_func("/masking/copies", copies);
  g_test_add_func("/masking/replaced", replaced);
  g_test_add_func("/masking/refused", refused);
  g_test_add_func("/masking/failing", failing);
  g_test_add_func("/masking/limit", limit);
  g_test_add_func("/masking/limit-kept", limit_kept);
  const int status = g_test_run();
  fk_engine_unref(engine);
  return status;
}
