/* SPDX-License-Identifier: Apache-2.0 */
/* The engine as applications see it, on the null backend: one object per model, order of arrival, cancelled waits,
 * failures of the device and of memory, and afterwards the next edit. */
#include "backend.h"
#include "engine.h"
#include "test-files.h"

static FkEngine *open_null(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "backend", "null", NULL);
  FkEngine *engine = fk_engine_open(options, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  return engine;
}

typedef struct {
  uint8_t in[32 * 32 * 3], out[32 * 32 * 3];
  FkSettings *settings;
  FkJob job;
} Frame;

static Frame *frame_new(const char *steps) {
  Frame *f = g_new0(Frame, 1);
  f->settings = fk_settings_new();
  fk_settings_set(f->settings, "steps", steps, NULL);
  fk_settings_set(f->settings, "max-area", "1024", NULL);
  f->job = (FkJob){.in = {f->in, 32, 32, 3, 96}, .out = {f->out, 32, 32, 3, 96}, .settings = f->settings};
  return f;
}

static void frame_free(Frame *f) {
  fk_settings_free(f->settings);
  g_free(f);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Frame, frame_free)

static void edits(FkEngine *engine) {
  g_autoptr(Frame) f = frame_new("2");
  g_autoptr(GError) error = NULL;
  fk_engine_edit(engine, &f->job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_assert_cmpint(f->job.result.evaluations, ==, 2);
}

static void shared(void) {
  g_autoptr(FkEngine) a = open_null(), b = open_null();
  g_assert_true(a == b);
  g_autoptr(FkEngine) c = fk_engine_ref(a);
  g_assert_true(c == a);
  FkEngine *boxed = g_boxed_copy(FK_TYPE_ENGINE, a);
  g_assert_true(boxed == a);
  g_boxed_free(FK_TYPE_ENGINE, boxed);
  edits(a);
  fk_engine_unref(NULL);
}

static void no_model(void) {
  static const struct {
    const char *backend, *path;
    int code;
    const char *word;
  } cases[] = {{"cpu", NULL, FK_ERROR_OPTION_BAD, "model-path"},
               {"cpu", "", FK_ERROR_OPTION_BAD, "model-path"},
               {"cpu", "/nowhere/model", FK_ERROR_MODEL_MISSING, "/nowhere/model"},
               {"auto", "/nowhere/model", FK_ERROR_MODEL_MISSING, "/nowhere/model"},
               {"cpu", FK_DEMO_PHOTOS, FK_ERROR_MODEL_MISSING, "model_index.json"}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkOptions) options = fk_options_new();
    fk_options_set(options, "backend", cases[i].backend, NULL);
    fk_options_set(options, "model-path", cases[i].path, NULL);
    g_assert_null(fk_engine_new(options, &error));
    assert_error(error, cases[i].code, cases[i].word, "");
  }
}

/* Sizes are known before loading, and one that cannot be edited is named. */
static void sizes(void) {
  static const struct {
    int w, h;
    const char *mode;
    int ow, oh; /* 0: refused */
  } cases[] = {{1280, 720, "input", 1280, 720},   {1, 1, "input", 1, 1},
               {33, 17, "input", 33, 17},         {1000, 1000, "native", 1024, 1024},
               {1920, 1080, "native", 1392, 752}, {65535, 1, "input", 0, 0},
               {1, 60000, "input", 0, 0},         {0, 5, "input", 0, 0},
               {5, -1, "native", 0, 0},           {70000, 5, "input", 0, 0},
               {8000, 320, "input", 0, 0}};
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "backend", "null", NULL);
  g_autoptr(FkEngine) engine = fk_engine_new(options, &error);
  g_assert_no_error(error);
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(FkSettings) s = fk_settings_new();
    g_autofree char *name = g_strdup_printf("%dx%d", cases[i].w, cases[i].h);
    int ow = 0, oh = 0;
    fk_settings_set(s, "size-mode", cases[i].mode, NULL);
    const bool ok = fk_engine_output_size(engine, s, cases[i].w, cases[i].h, &ow, &oh, &error);
    g_test_message("%s: %s", name, error ? error->message : "taken");
    g_assert_cmpint(ok, ==, cases[i].ow > 0);
    if (ok) g_assert_cmpint(ow * 100000 + oh, ==, cases[i].ow * 100000 + cases[i].oh);
    if (!ok) assert_error(error, FK_ERROR_OPTION_BAD, name, "");
  }
}

/* Calls that do not fit: each is an error, and the engine goes on. */
static void bad_jobs(void) {
  g_autoptr(FkEngine) engine = open_null();
  g_autoptr(Frame) a = frame_new("1"), b = frame_new("2");
  for (int k = 0; k < 5; k++) {
    g_autoptr(GError) error = NULL;
    FkJob jobs[2] = {a->job, a->job};
    if (k == 0) jobs[0].out.width = 31;
    if (k == 1) jobs[0].out.channels = 4;
    if (k == 2) jobs[0].in.channels = jobs[0].out.channels = 1;
    if (k == 3) jobs[1].settings = b->settings;
    if (k == 4) jobs[1].in.height = jobs[1].out.height = 16;
    g_assert_false(fk_engine_edit(engine, jobs, k < 3 ? 1 : 2, NULL, NULL, NULL, &error));
    assert_error(error, FK_ERROR_OPTION_BAD, k < 3 ? "expected 32x32" : "frame 1", "");
  }
  g_assert_true(fk_engine_edit(engine, NULL, 0, NULL, NULL, NULL, NULL));
  edits(engine);
}

/* A warm-up is an edit of its own; afterwards the arena has its size. */
static void warmup(void) {
  g_autoptr(FkEngine) engine = open_null();
  g_autoptr(Frame) f = frame_new("1");
  g_autoptr(GError) error = NULL;
  g_assert_true(fk_engine_warmup(engine, f->settings, 32, 32, NULL, &error));
  g_assert_no_error(error);
  g_assert_false(fk_engine_warmup(engine, f->settings, 65535, 1, NULL, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "65535x1", "");
}

/* A failure at a step is one error with the step's text; the next edit runs. */
static void device_failure(void) {
  g_setenv("FK_NULL_FAIL_STEP", "2", TRUE);
  g_autoptr(FkEngine) engine = open_null();
  g_unsetenv("FK_NULL_FAIL_STEP");
  g_autoptr(Frame) one = frame_new("1"), three = frame_new("3");
  g_autoptr(GError) error = NULL;
  g_assert_false(fk_engine_edit(engine, &three->job, 1, NULL, NULL, NULL, &error));
  assert_error(error, FK_ERROR_DEVICE, "step 2", "");
  g_assert_true(fk_engine_edit(engine, &one->job, 1, NULL, NULL, NULL, &error));
  g_assert_no_error(error);
  g_assert_false(fk_engine_dead(engine));
}

/* The null backend allocates twice: for the prompt cache, without which an edit still runs, and for the arena, whose
 * refusal is an error of memory with numbers. The same edit runs afterwards. */
static void memory_failure(void) {
  for (int k = 1; k <= 2; k++) {
    g_autofree char *text = g_strdup_printf("%d", k);
    g_autoptr(GError) error = NULL;
    g_autoptr(FkOptions) options = fk_options_new();
    fk_options_set(options, "backend", "null", NULL);
    g_setenv("FK_NULL_FAIL_ALLOC", text, TRUE);
    g_autoptr(FkEngine) engine = fk_engine_new(options, &error);
    g_unsetenv("FK_NULL_FAIL_ALLOC");
    g_assert_no_error(error);
    g_autoptr(Frame) f = frame_new("1");
    const bool ok = fk_engine_edit(engine, &f->job, 1, NULL, NULL, NULL, &error);
    g_assert_cmpint(ok, ==, k == 1);
    if (!ok) assert_error(error, FK_ERROR_MEMORY, "32x32", "bytes of work memory");
    fk_engine_edit(engine, &f->job, 1, NULL, NULL, NULL, &error);
    g_assert_no_error(error);
  }
}

static void max_vram(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "backend", "null", NULL);
  fk_options_set(options, "max-vram", "30000000000", NULL);
  g_assert_null(fk_engine_open(options, NULL, NULL, NULL, &error));
  assert_error(error, FK_ERROR_MEMORY, "30000000000", "needs 338");
}

/* ---- Order of arrival ---- */

typedef struct {
  FkEngine *engine;
  GCancellable *cancellable;
  GAsyncQueue *began, *done; /* of Worker */
  GMutex *held;              /* keeps the edit in its first step for as long as somebody has it; NULL: no wait */
  bool ok;
  int code;
} Worker;

static void on_step(const char *stage, int64_t current, int64_t total, void *user_data) {
  Worker *w = user_data;
  (void)total;
  if (strcmp(stage, "step") || current != 1) return;
  g_async_queue_push(w->began, w);
  if (!w->held) return;
  g_mutex_lock(w->held);
  g_mutex_unlock(w->held);
}

static gpointer work(gpointer data) {
  Worker *w = data;
  g_autoptr(Frame) f = frame_new("1");
  g_autoptr(GError) error = NULL;
  w->ok = fk_engine_edit(w->engine, &f->job, 1, w->cancellable, on_step, w, &error);
  w->code = error ? error->code : -1;
  g_async_queue_push(w->done, w);
  return NULL;
}

/* Waits until one caller runs and `count` wait for their turn. */
static void await_queue(FkEngine *engine, guint count) {
  for (bool there = false; !there; g_usleep(1000)) {
    g_mutex_lock(&engine->lock);
    there = engine->busy && engine->waiting.length == count;
    g_mutex_unlock(&engine->lock);
  }
}

/* Four callers in turn; the second leaves the queue while the first runs; the others run in their order. */
static void queue(void) {
  g_autoptr(FkEngine) engine = open_null();
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  g_autoptr(GAsyncQueue) began = g_async_queue_new(), done = g_async_queue_new();
  GMutex held;
  g_mutex_init(&held);
  g_mutex_lock(&held);
  Worker w[4] = {{engine, NULL, began, done, &held, false, 0},
                 {engine, cancellable, began, done, NULL, false, 0},
                 {engine, NULL, began, done, NULL, false, 0},
                 {engine, NULL, began, done, NULL, false, 0}};
  GThread *threads[4];
  for (guint i = 0; i < 4; i++) {
    threads[i] = g_thread_new("worker", work, &w[i]);
    await_queue(engine, i);
  }
  g_cancellable_cancel(cancellable);
  g_assert_true(g_async_queue_pop(done) == &w[1]); /* the first is held in its step */
  g_assert_cmpint(w[1].code, ==, FK_ERROR_CANCELLED);
  g_mutex_unlock(&held);
  for (int i = 0; i < 4; i++) g_thread_join(threads[i]);
  g_assert_true(g_async_queue_pop(began) == &w[0]);
  g_assert_true(g_async_queue_pop(began) == &w[2]);
  g_assert_true(g_async_queue_pop(began) == &w[3]);
  g_assert_null(g_async_queue_try_pop(began));
  g_assert_true(w[0].ok && w[2].ok && w[3].ok);
  g_mutex_clear(&held);
}

typedef struct {
  GCancellable *cancellable;
  int steps; /* finished after the cancellation, the one at whose end it came included */
} Cancel;

static void cancel_at_third(const char *stage, int64_t current, int64_t total, void *user_data) {
  Cancel *c = user_data;
  (void)total;
  if (strcmp(stage, "step")) return;
  if (current == 3) g_cancellable_cancel(c->cancellable);
  c->steps += current >= 3;
}

/* Cancelled in its third step of a thousand, an edit ends within one step more; the next runs. */
static void cancelled_running(void) {
  g_autoptr(FkEngine) engine = open_null();
  g_autoptr(Frame) f = frame_new("1000");
  g_autoptr(GError) error = NULL;
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  Cancel c = {cancellable, 0};
  g_assert_false(fk_engine_edit(engine, &f->job, 1, cancellable, cancel_at_third, &c, &error));
  g_assert_true(g_error_matches(error, FK_ERROR, FK_ERROR_CANCELLED));
  g_assert_cmpint(c.steps, >=, 1);
  g_assert_cmpint(c.steps, <=, 2);
  edits(engine);
}

static void active(void) {
  g_autoptr(FkEngine) engine = open_null();
  g_autoptr(FkSettings) s = fk_settings_new();
  g_auto(GStrv) list = fk_engine_active(engine, s);
  g_assert_cmpstr(list[0], ==, "backend");
  g_assert_cmpstr(list[1], ==, "null (null; asked for)");
  g_assert_cmpstr(list[2], ==, "precision");
  g_assert_cmpuint(g_strv_length(list) % 2, ==, 0);
  g_assert_nonnull(strstr(fk_engine_machine(engine), "null"));
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/engine/shared", shared);
  g_test_add_func("/engine/no-model", no_model);
  g_test_add_func("/engine/sizes", sizes);
  g_test_add_func("/engine/bad-jobs", bad_jobs);
  g_test_add_func("/engine/warmup", warmup);
  g_test_add_func("/engine/device-failure", device_failure);
  g_test_add_func("/engine/memory-failure", memory_failure);
  g_test_add_func("/engine/max-vram", max_vram);
  g_test_add_func("/engine/queue", queue);
  g_test_add_func("/engine/cancelled-running", cancelled_running);
  g_test_add_func("/engine/active", active);
  return g_test_run();
}
