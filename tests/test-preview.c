/* SPDX-License-Identifier: Apache-2.0 */
/* Previews of an edit: when they come, that they look like what becomes of them, and that they change nothing. */
#include "test-demo.h"
#include "test-picture.h"

#include <string.h>

typedef struct {
  FkImage last; /* a copy */
  int calls, evaluation[64], evaluations;
  GCancellable *cancel; /* (nullable) on the second call */
} Seen;

static void see(int evaluation, int evaluations, const FkImage *image, void *user_data) {
  Seen *s = user_data;
  g_assert_cmpint(image->channels, ==, 3);
  g_assert_cmpuint(image->stride, >=, (size_t)image->width * 3);
  g_free(s->last.data);
  s->last = *image;
  s->last.data = g_memdup2(image->data, image->stride * (size_t)image->height);
  s->evaluations = evaluations;
  s->evaluation[s->calls++] = evaluation;
  if (s->cancel && s->calls == 2) g_cancellable_cancel(s->cancel);
}

typedef struct {
  FkImage in, out;
  FkSettings *settings;
  FkJob job;
} Frame;

static Frame *frame_new(const char *steps) {
  g_autofree char *path = g_build_filename(FK_DEMO_PHOTOS, "coffee_256.png", NULL);
  Frame *f = g_new0(Frame, 1);
  f->in = read_png(path);
  f->out = f->in;
  f->out.data = g_malloc0(f->in.stride * (size_t)f->in.height);
  f->settings = fk_settings_new();
  fk_settings_set(f->settings, "steps", steps, NULL);
  fk_settings_set(f->settings, "seed", "3", NULL);
  fk_settings_set(f->settings, "prompt", "make it night", NULL);
  f->job = (FkJob){.in = f->in, .out = f->out, .settings = f->settings};
  return f;
}

static void frame_free(Frame *f) {
  fk_settings_free(f->settings);
  g_free(f->in.data);
  g_free(f->out.data);
  g_free(f);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Frame, frame_free)

static void edit(FkEngine *engine, Frame *f, Seen *seen, int every) {
  g_autoptr(GError) error = NULL;
  f->job.preview = seen ? see : NULL;
  f->job.preview_data = seen;
  f->job.preview_every = every;
  fk_engine_edit(engine, &f->job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
}

static void cadence(void) {
  static const struct {
    const char *scheduler, *steps;
    int every, calls, first, evaluations;
  } cases[] = {{"euler", "7", 2, 3, 2, 7}, {"euler", "6", 2, 2, 2, 6}, {"euler", "3", 1, 2, 1, 3},
               {"euler", "1", 1, 0, 0, 0}, {"euler", "4", 9, 0, 0, 0}, {"euler", "4", 0, 0, 0, 0},
               {"heun", "4", 3, 2, 3, 7}};
  g_autoptr(FkEngine) engine = demo_engine("null");
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(Frame) f = frame_new(cases[i].steps);
    Seen seen = {0};
    fk_settings_set(f->settings, "scheduler", cases[i].scheduler, NULL);
    edit(engine, f, &seen, cases[i].every);
    g_assert_cmpint(seen.calls, ==, cases[i].calls);
    g_assert_cmpint(seen.evaluations, ==, cases[i].evaluations);
    for (int k = 0; k < seen.calls; k++) g_assert_cmpint(seen.evaluation[k], ==, cases[i].first * (k + 1));
    g_free(seen.last.data);
  }
}

static void refused(void) {
  g_autoptr(FkEngine) engine = demo_engine("null");
  g_autoptr(Frame) f = frame_new("2");
  g_autoptr(GError) error = NULL;
  f->job.preview_every = -1;
  g_assert_false(fk_engine_edit(engine, &f->job, 1, NULL, NULL, NULL, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
  g_assert_nonnull(strstr(error->message, "found -1"));
}

/* Each pixel the mean of 8x8 of the image's. (transfer full) */
static FkImage shrunk(const FkImage *image) {
  FkImage small = {NULL, image->width / 8, image->height / 8, 3, (size_t)image->width / 8 * 3};
  small.data = g_malloc(small.stride * (size_t)small.height);
  for (int y = 0; y < small.height; y++)
    for (int x = 0; x < small.width * 3; x++) {
      int sum = 0;
      for (int k = 0; k < 64; k++)
        sum += image->data[(size_t)(y * 8 + k / 8) * image->stride + (size_t)(x / 3 * 24 + k % 8 * 3 + x % 3)];
      small.data[(size_t)y * small.stride + (size_t)x] = (uint8_t)((sum + 32) / 64);
    }
  return small;
}

/* The last preview is within one small step of the result. */
static void alike(void) {
  g_autoptr(FkEngine) engine = demo_engine("cpu");
  g_autoptr(Frame) plain = frame_new("6"), f = frame_new("6"), again = frame_new("6");
  const size_t bytes = f->in.stride * (size_t)f->in.height;
  Seen seen = {0}, twice = {0};
  edit(engine, plain, NULL, 0);
  edit(engine, f, &seen, 1);
  edit(engine, again, &twice, 5);
  g_assert_cmpint(seen.calls, ==, 5);
  g_assert_cmpint(twice.calls, ==, 1);
  g_assert_cmpmem(plain->out.data, bytes, f->out.data, bytes);
  g_assert_cmpmem(plain->out.data, bytes, again->out.data, bytes);
  g_assert_cmpmem(seen.last.data, seen.last.stride * (size_t)seen.last.height, twice.last.data,
                  twice.last.stride * (size_t)twice.last.height);
  g_assert_cmpint(seen.last.width, ==, 32);
  FkImage want = shrunk(&f->out), before = shrunk(&f->in);
  const double db = psnr(&seen.last, &want), other = psnr(&seen.last, &before);
  g_test_message("the last preview against the result: %.1f dB, against the input: %.1f dB", db, other);
  g_assert_cmpfloat(db, >=, 20);
  g_assert_cmpfloat(db, >, other);
  g_free(want.data);
  g_free(before.data);
  g_free(seen.last.data);
  g_free(twice.last.data);
}

/* Of a batch only the frame that asked; small and odd sizes; cancelled from within; the engine works on. */
static void batch(void) {
  g_autoptr(FkEngine) engine = demo_engine("cpu");
  g_autoptr(Frame) a = frame_new("3"), b = frame_new("3");
  g_autoptr(GError) error = NULL;
  g_autoptr(GCancellable) cancel = g_cancellable_new();
  Seen seen = {0}, stopped = {.cancel = cancel};
  FkJob jobs[2] = {a->job, b->job};
  fk_settings_set(a->settings, "max-area", "2304", NULL);
  fk_settings_set(b->settings, "max-area", "2304", NULL);
  jobs[1].preview = see;
  jobs[1].preview_every = 1;
  jobs[1].preview_data = &seen;
  fk_engine_edit(engine, jobs, 2, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_assert_cmpint(seen.calls, ==, 2);
  g_assert_cmpint(seen.last.width, ==, 6);
  jobs[0].preview = see;
  jobs[0].preview_every = 1;
  jobs[0].preview_data = &stopped;
  g_assert_false(fk_engine_edit(engine, jobs, 1, cancel, NULL, NULL, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_CANCELLED);
  edit(engine, a, NULL, 0);
  g_free(seen.last.data);
  g_free(stopped.last.data);
}

/* Without an encoding the fit runs in the memory that the decoder needs. */
static void generated(void) {
  static const char *const areas[] = {"256", "2304", "65536"};
  g_autoptr(FkEngine) engine = demo_engine("cpu");
  for (size_t i = 0; i < G_N_ELEMENTS(areas); i++) {
    g_autoptr(Frame) f = frame_new("2");
    Seen seen = {0};
    fk_settings_set(f->settings, "task", "generate", NULL);
    fk_settings_set(f->settings, "max-area", areas[i], NULL);
    edit(engine, f, &seen, 1);
    g_assert_cmpint(seen.calls, ==, 1);
    g_free(seen.last.data);
  }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/preview/cadence", cadence);
  g_test_add_func("/preview/refused", refused);
  g_test_add_func("/preview/alike", alike);
  g_test_add_func("/preview/batch", batch);
  g_test_add_func("/preview/generated", generated);
  return g_test_run();
}
