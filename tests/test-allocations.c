/* SPDX-License-Identifier: Apache-2.0 */
/* An engine and a system that refuses memory: every allocation that core/ makes by functions that may fail, in turn,
 * while an engine is opened, loads and edits. It is an error that says so, and where the engine was there already, its
 * next edit has the right bytes. The build sends these calls through the functions below; GLib's own, which end the
 * process, are small. FK_TEST_COUNT: how many of them, evenly spread; at least their number: all. */
#include "test-count.h"

#include "fk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { SIDE = 64 };

static gint armed, calls, fail_at; /* calls since armed; the one that is refused, 0: none */

static gboolean refuse(void) {
  if (!g_atomic_int_get(&armed)) return FALSE;
  return g_atomic_int_add(&calls, 1) + 1 == fail_at;
}

/* What `--wrap` makes of the names; __real_* is the library's. */
#define WRAP(type, name, parameters, arguments, failure)                                                               \
  type __real_##name parameters;                                                                                       \
  type __wrap_##name parameters;                                                                                       \
  type __wrap_##name parameters {                                                                                      \
    return refuse() ? (failure) : __real_##name arguments;                                                             \
  }
WRAP(void *, malloc, (size_t size), (size), NULL)
WRAP(void *, calloc, (size_t n, size_t size), (n, size), NULL)
WRAP(void *, realloc, (void *memory, size_t size), (memory, size), NULL)
WRAP(int, posix_memalign, (void **memory, size_t alignment, size_t size), (memory, alignment, size), ENOMEM)
WRAP(void *, mmap64, (void *at, size_t size, int protection, int flags, int file, off_t offset),
     (at, size, protection, flags, file, offset), MAP_FAILED)
WRAP(gpointer, g_try_malloc, (gsize size), (size), NULL)
WRAP(gpointer, g_try_malloc0, (gsize size), (size), NULL)
WRAP(gpointer, g_try_malloc_n, (gsize n, gsize size), (n, size), NULL)
WRAP(gpointer, g_try_malloc0_n, (gsize n, gsize size), (n, size), NULL)
WRAP(gpointer, g_try_realloc, (gpointer memory, gsize size), (memory, size), NULL)

typedef struct {
  guint8 in[SIDE * SIDE * 3], out[SIDE * SIDE * 3];
} Pixels;

static gboolean edit(FkEngine *engine, const FkSettings *settings, Pixels *p, GError **error) {
  FkJob job = {.in = {p->in, SIDE, SIDE, 3, SIDE * 3}, .out = {p->out, SIDE, SIDE, 3, SIDE * 3}, .settings = settings};
  memset(p->out, 0, sizeof p->out);
  return fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, error);
}

/* Opens and edits; the engine, where there is one, is returned. *done: all of it worked. */
static FkEngine *run(const FkOptions *options, const FkSettings *settings, Pixels *p, gboolean *done, GError **error) {
  *done = FALSE;
  FkEngine *engine = fk_engine_new(options, error);
  if (engine) *done = fk_engine_load(engine, NULL, NULL, NULL, error) && edit(engine, settings, p, error);
  return engine;
}

static gint arm(gint k) {
  const gint before = calls;
  fail_at = k;
  calls = 0;
  g_atomic_int_set(&armed, k >= 0);
  return before;
}

/* The k-th call is refused. */
static void survive(const FkOptions *options, const FkSettings *settings, gint k, const Pixels *right) {
  g_autoptr(GError) error = NULL, second = NULL;
  g_autofree Pixels *p = g_memdup2(right, sizeof *right);
  gboolean done;
  arm(k);
  g_autoptr(FkEngine) engine = run(options, settings, p, &done, &error);
  arm(-1);
  if (!done) {
    g_assert_error(error, FK_ERROR, FK_ERROR_MEMORY);
    g_assert_cmpuint(strlen(error->message), >, 10);
  }
  if (!engine) return;
  if (!done) edit(engine, settings, p, &second);
  g_assert_no_error(second);
  g_assert_cmpmem(p->out, sizeof p->out, right->out, sizeof right->out);
}

static void refused(gconstpointer data) {
  const char *const *extra = data;
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(FkSettings) settings = fk_settings_new();
  g_autoptr(GError) error = NULL;
  g_autofree Pixels *right = g_new0(Pixels, 1);
  gboolean done;
  const char *const fixed[] = {"model-path",  FK_DEMO_MODEL, "backend", "cpu",      "threads", "1", "prompt",
                               "add a shape", "steps",       "1",       "max-area", "4096",    NULL};
  for (guint i = 0; fixed[i]; i += 2) g_assert_true(fk_set(options, settings, fixed[i], fixed[i + 1], NULL));
  for (guint i = 0; extra[i]; i += 2) g_assert_true(fk_set(options, settings, extra[i], extra[i + 1], NULL));
  for (guint i = 0; i < sizeof right->in; i++) right->in[i] = (guint8)(i * 7 % 251);
  arm(0);
  fk_engine_unref(run(options, settings, right, &done, &error));
  const gint n = arm(-1);
  g_assert_no_error(error);
  const gint wanted = (gint)test_count(15), step = MAX(1, n / wanted);
  gint tried = 0;
  for (gint k = 1; k <= n; k += step, tried++) survive(options, settings, k, right);
  g_test_message("%d allocations, %d of them refused in turn", n, tried);
  g_assert_cmpint(n, >, 100); /* else nothing was wrapped */
}

/* What needs no device, each allocation in turn. */
static gboolean plan(GError **error) {
  g_autoptr(FkSettings) settings = fk_settings_new();
  FkPlan p;
  return fk_plan(FK_DEMO_MODEL, NULL, settings, SIDE, SIDE, 2, &p, error);
}

static gboolean describe(GError **error) {
  g_autofree char *text = fk_describe_file(FK_DEMO_MODEL "/vae/diffusion_pytorch_model.safetensors", error);
  return text != NULL;
}

/* Headers, configurations, tokenizers. */
static gboolean open_files(GError **error) {
  g_autoptr(FkOptions) options = fk_options_new();
  g_assert_true(fk_options_set(options, "model-path", FK_DEMO_MODEL, NULL));
  g_assert_true(fk_options_set(options, "backend", "null", NULL));
  g_autoptr(FkEngine) engine = fk_engine_new(options, error);
  return engine != NULL;
}

static gboolean decode_picture(GError **error) {
  FkImage image;
  const gboolean done = fk_image_read(FK_DEMO_PHOTOS "/coffee_256.png", &image, error);
  fk_image_clear(&image);
  return done;
}

static const struct {
  const char *name;
  gboolean (*work)(GError **error);
  int code; /* of a picture that cannot be decoded there is one */
} works[] = {{"/allocations/plan", plan, FK_ERROR_MEMORY},
             {"/allocations/files", open_files, FK_ERROR_MEMORY},
             {"/allocations/describe", describe, FK_ERROR_MEMORY},
             {"/allocations/picture", decode_picture, FK_ERROR_OPTION_BAD}};

static void each(gconstpointer data) {
  const gsize w = GPOINTER_TO_SIZE(data);
  gint k = 1, failed = 0;
  for (gboolean over = FALSE; !over; k++) {
    g_autoptr(GError) error = NULL;
    arm(k);
    const gboolean done = works[w].work(&error);
    over = arm(-1) < k;
    failed += !done;
    if (done) g_assert_no_error(error);
    if (!done) g_assert_error(error, FK_ERROR, works[w].code);
    if (!done) g_assert_nonnull(strstr(error->message, "memory"));
    if (over) g_assert_true(done);
  }
  g_test_message("%d allocations, of which %d refused in turn were errors", k - 2, failed);
  g_assert_cmpint(failed, >, 0);
}

int main(int argc, char **argv) {
  static const char *const plain[] = {NULL};
  static const char *const small[] = {"quantization", "fp8", "text-quantization", "fp8", "offload", "model", NULL};
  static const char *const clever[] = {"steps",           "3", "step-cache",     "first-block", "token-merge", "0.5",
                                       "negative-prompt", "",  "true-cfg-scale", "2",           NULL};
  g_test_init(&argc, &argv, NULL);
  g_test_add_data_func("/allocations/plain", plain, refused);
  g_test_add_data_func("/allocations/quantized", small, refused);
  g_test_add_data_func("/allocations/approximated", clever, refused);
  for (gsize i = 0; i < G_N_ELEMENTS(works); i++) g_test_add_data_func(works[i].name, GSIZE_TO_POINTER(i), each);
  return g_test_run();
}
