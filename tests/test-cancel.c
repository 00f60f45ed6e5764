/* SPDX-License-Identifier: Apache-2.0 */
/* An engine cancelled at random instants of each phase, by another thread: the call ends as cancelled or, where that
 * came too late, as it would have ended, and the next edit has the bytes that it would have had. Threads and open files
 * are then as many as before. FK_TEST_COUNT: instants of each phase. */
#include "test-count.h"
#include "test-demo.h"
#include "test-held.h"

#include <string.h>

enum { SIDE = 64 };

/* The thread that cancels: some time after the phase began, up to what an undisturbed one took. */
typedef struct {
  const char *phase;
  GCancellable *cancellable;
  gulong delay_us;
  GMutex mutex;
  GCond begins;
  gboolean begun, over;
} Canceller;

static gpointer cancel_later(gpointer data) {
  Canceller *c = data;
  g_mutex_lock(&c->mutex);
  while (!c->begun && !c->over) g_cond_wait(&c->begins, &c->mutex);
  g_mutex_unlock(&c->mutex);
  g_usleep(c->delay_us);
  g_cancellable_cancel(c->cancellable);
  return NULL;
}

static void set_flag(Canceller *c, gboolean *flag) {
  g_mutex_lock(&c->mutex);
  *flag = TRUE;
  g_cond_signal(&c->begins);
  g_mutex_unlock(&c->mutex);
}

static void on_progress(const char *stage, int64_t current, int64_t total, void *user_data) {
  Canceller *c = user_data;
  (void)total;
  if (current == 0 && strcmp(stage, c->phase) == 0) set_flag(c, &c->begun);
}

/* Length of a phase of an undisturbed run: up to the next one, or the end. */
typedef struct {
  const char *phase;
  gint64 began_us, took_us;
} Watch;

static void on_watch(const char *stage, int64_t current, int64_t total, void *user_data) {
  Watch *w = user_data;
  const gint64 now = g_get_monotonic_time();
  (void)total;
  const gboolean mine = strcmp(stage, w->phase) == 0;
  if (mine && !w->began_us) w->began_us = now;
  if (!mine && current == 0 && w->began_us && !w->took_us) w->took_us = now - w->began_us;
}

typedef struct {
  FkSettings *settings;
  guint8 in[SIDE * SIDE * 3], out[SIDE * SIDE * 3];
  FkJob job;
} Frame;

static Frame *frame_new(const char *prompt) {
  Frame *f = g_new0(Frame, 1);
  f->settings = fk_settings_new();
  g_assert_true(fk_settings_set(f->settings, "prompt", prompt, NULL));
  g_assert_true(fk_settings_set(f->settings, "steps", "2", NULL));
  g_assert_true(fk_settings_set(f->settings, "max-area", "4096", NULL));
  for (guint i = 0; i < sizeof f->in; i++) f->in[i] = (guint8)(i * 7 % 251);
  f->job = (FkJob){.in = {f->in, SIDE, SIDE, 3, SIDE * 3}, .out = {f->out, SIDE, SIDE, 3, SIDE * 3}};
  f->job.settings = f->settings;
  return f;
}

static void frame_free(Frame *f) {
  fk_settings_free(f->settings);
  g_free(f);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Frame, frame_free)

static char *bytes_of_edit(FkEngine *engine) {
  g_autoptr(Frame) f = frame_new("add a shape");
  g_autoptr(GError) error = NULL;
  fk_engine_edit(engine, &f->job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  return g_compute_checksum_for_data(G_CHECKSUM_SHA256, f->out, sizeof f->out);
}

static FkEngine *new_engine(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "model-path", FK_DEMO_MODEL, NULL);
  fk_options_set(options, "backend", "cpu", NULL);
  FkEngine *engine = fk_engine_new(options, &error);
  g_assert_no_error(error);
  return engine;
}

/* The phase's own call: loading, or an edit whose text was not seen before. */
static gboolean run_phase(FkEngine *engine, guint n, GCancellable *cancellable, FkProgress progress, void *data,
                          GError **error) {
  if (n == G_MAXUINT) return fk_engine_load(engine, cancellable, progress, data, error);
  g_autofree char *prompt = g_strdup_printf("add shape %u", n);
  g_autoptr(Frame) f = frame_new(prompt);
  return fk_engine_edit(engine, &f->job, 1, cancellable, progress, data, error);
}

/* TRUE: it was cancelled. */
static gboolean cancel_once(FkEngine *engine, const char *phase, guint n, gulong delay_us) {
  Canceller c = {.phase = phase, .cancellable = g_cancellable_new(), .delay_us = delay_us};
  g_autoptr(GError) error = NULL;
  g_mutex_init(&c.mutex);
  g_cond_init(&c.begins);
  GThread *thread = g_thread_new("cancel", cancel_later, &c);
  gboolean done = run_phase(engine, n, c.cancellable, on_progress, &c, &error);
  g_assert_true(c.begun);
  set_flag(&c, &c.over);
  g_thread_join(thread);
  if (!done) g_assert_error(error, FK_ERROR, FK_ERROR_CANCELLED);
  g_object_unref(c.cancellable);
  g_mutex_clear(&c.mutex);
  g_cond_clear(&c.begins);
  return !done;
}

static void phase(gconstpointer data) {
  const char *name = data;
  const gboolean open = g_str_equal(name, "open");
  guint cancelled = 0, instants = test_count(open ? 6 : 10);
  g_autoptr(GRand) random = g_rand_new_with_seed(5);
  g_autoptr(GError) error = NULL;
  FkEngine *engine = new_engine();
  Watch watch = {.phase = name};
  if (open) { /* the first one reads the files, later ones find them in memory */
    g_assert_true(run_phase(engine, G_MAXUINT, NULL, NULL, NULL, &error));
    fk_engine_unref(engine);
    engine = new_engine();
  }
  g_assert_true(run_phase(engine, open ? G_MAXUINT : 0, NULL, on_watch, &watch, &error));
  on_watch("end", 0, 0, &watch);
  g_autofree char *expected = bytes_of_edit(engine);
  const guint threads = held_threads(G_MAXUINT), files = held_files();
  for (guint n = 1; n <= instants; n++) {
    if (open) {
      fk_engine_unref(engine);
      engine = new_engine();
    }
    const gulong delay = (gulong)g_rand_double_range(random, 0, (double)watch.took_us);
    cancelled += cancel_once(engine, name, open ? G_MAXUINT : n, delay);
    g_autofree char *after = bytes_of_edit(engine);
    g_assert_cmpstr(after, ==, expected);
  }
  g_test_message("%s: %u instants within %.1f ms, %u of them in time", name, instants, (double)watch.took_us / 1000,
                 cancelled);
  g_assert_cmpuint(cancelled, >, 0);
  g_assert_cmpuint(held_threads(threads), <=, threads);
  g_assert_cmpuint(held_files(), ==, files);
  fk_engine_unref(engine);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_data_func("/cancel/open", "open", phase);
  g_test_add_data_func("/cancel/text", "text", phase);
  g_test_add_data_func("/cancel/encode", "encode", phase);
  g_test_add_data_func("/cancel/step", "step", phase);
  g_test_add_data_func("/cancel/decode", "decode", phase);
  return g_test_run();
}
