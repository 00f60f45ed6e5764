/* SPDX-License-Identifier: Apache-2.0 */
/* Fewer and cheaper steps on the GPU, on the demo checkpoint through fk.h alone: every scheduler, step cache, forecast,
 * context reuse and token merging, and combinations of them. Each must give the same bytes in every run, with
 * recordings and without, in a batch and alone, and from its own decisions replayed; and be as near to the CPU's
 * float32 result under the same setting and the same decisions as rounding lets it.
 *
 * Environment as for test-gpu-edit.c: BACKEND (default cuda; cpu runs the same checks with fewer steps and
 * repetitions), FK_SOURCE. Without a usable device everything counts as skipped. Not here: what a setting costs in
 * quality (docs/quality.md), the policies themselves (tests/test-denoise.c). */
#include "../test-picture.h"

#include <string.h>

/* What bfloat16 may be off, in dB, where nothing hangs on a comparison: diffusers' own reaches 49 to 54 on this edit,
 * these settings 51.5 to 53 on an H200. A wrong row, coefficient or kept tensor is below 30. */
enum { ROUNDING_DB = 46 };
/* Weights of the attention near the middle between two codes fall to one side or the other: what test-gpu-edit.c allows
 * between two edits with 8-bit blocks. */
enum { CODES_DB = 38 };
/* Token merging chooses by the largest cosine: rounding makes other pairs of near-equal neighbours, and the CPU's
 * choice cannot be replayed (measured: 43 and more). */
enum { MERGE_DB = 36 };

/* Settings; the second column is the least that is asked against the CPU. Thresholds are such that eight evaluations
 * have both kinds. */
static const struct {
  const char *name, *pairs;
  int db;
} settings[] = {
    {"dpmpp-2m", "scheduler=dpmpp-2m", ROUNDING_DB},
    {"unipc", "scheduler=unipc", ROUNDING_DB},
    {"deis", "scheduler=deis", ROUNDING_DB},
    {"heun", "scheduler=heun", ROUNDING_DB},
    {"karras", "sigmas=karras", ROUNDING_DB},
    {"exponential", "sigmas=exponential", ROUNDING_DB},
    {"beta", "scheduler=unipc sigmas=beta", ROUNDING_DB},
    {"first-block", "step-cache=first-block step-cache-threshold=0.2", ROUNDING_DB},
    {"first-block-taylor", "step-cache=first-block step-cache-threshold=0.2 step-cache-forecast=taylor", ROUNDING_DB},
    {"first-block-taylor2", "step-cache=first-block step-cache-threshold=0.2 step-cache-forecast=taylor2", ROUNDING_DB},
    {"dbcache", "step-cache=dbcache step-cache-warmup=3 step-cache-threshold=0.3", ROUNDING_DB},
    {"dbcache-back-taylor",
     "step-cache=dbcache step-cache-warmup=3 step-cache-threshold=0.3 step-cache-front=2 step-cache-back=1 "
     "step-cache-forecast=taylor",
     ROUNDING_DB},
    {"dbcache-taylor2",
     "step-cache=dbcache step-cache-warmup=3 step-cache-threshold=1 step-cache-last=2 step-cache-forecast=taylor2",
     ROUNDING_DB},
    {"teacache", "step-cache=teacache step-cache-threshold=0.4", ROUNDING_DB},
    {"teacache-taylor", "step-cache=teacache step-cache-threshold=0.4 step-cache-forecast=taylor", ROUNDING_DB},
    {"teacache-taylor2", "step-cache=teacache step-cache-threshold=0.4 step-cache-forecast=taylor2", ROUNDING_DB},
    {"reuse-2", "context-reuse=2", ROUNDING_DB},
    {"reuse-4", "context-reuse=4", ROUNDING_DB},
    {"merge-.25", "token-merge=0.25", MERGE_DB},
    {"merge-.6", "token-merge=0.6", MERGE_DB},
    {"teacache-reuse-unipc",
     "step-cache=teacache step-cache-threshold=0.4 step-cache-forecast=taylor context-reuse=2 scheduler=unipc "
     "sigmas=beta",
     ROUNDING_DB},
    {"first-block-reuse-dpmpp",
     "step-cache=first-block step-cache-threshold=0.2 step-cache-forecast=taylor context-reuse=3 scheduler=dpmpp-2m",
     ROUNDING_DB},
    {"dbcache-merge",
     "step-cache=dbcache step-cache-warmup=3 step-cache-threshold=0.3 step-cache-back=1 step-cache-forecast=taylor "
     "token-merge=0.25",
     MERGE_DB},
    {"heun-teacache", "scheduler=heun step-cache=teacache step-cache-threshold=0.4 step-cache-forecast=taylor",
     ROUNDING_DB},
    {"guided",
     "step-cache=first-block step-cache-threshold=0.2 step-cache-forecast=taylor context-reuse=2 true-cfg-scale=2 "
     "negative-prompt=",
     ROUNDING_DB},
    {"balanced", "preset=balanced", ROUNDING_DB},
    {"fast", "preset=fast", ROUNDING_DB},
    {"turbo", "preset=turbo", ROUNDING_DB},
    {"sprint", "steps=0 preset=sprint", ROUNDING_DB},
    {"attention-fp8", "attention-precision=fp8", CODES_DB},
    {"attention-fp8-cache",
     "attention-precision=fp8 step-cache=first-block step-cache-threshold=0.2 step-cache-forecast=taylor "
     "context-reuse=2",
     CODES_DB},
    {"region-again", "prompt=add_a_red_circle region-tokens=0.2 region-warmup=2 region-refresh=2", ROUNDING_DB},
};

static const char *backend, *root;
static bool gpu;
static FkEngine *engine, *reference; /* of `backend`, and of the CPU; one for all tests */
static FkImage photo;
static struct Edit *plain;                              /* with everything off */
static struct Edit *references[G_N_ELEMENTS(settings)]; /* of the CPU; NULL: not there yet; under `lock` */
static GMutex lock;
static GCond ready;
static int finished; /* all tests: no more references are needed */

/* ---- Edits ---- */

static FkImage read_photo(void) {
  g_autofree char *path = g_build_filename(root, "examples", "demo-model", "photos", "coffee_256.png", NULL);
  return read_png(path);
}

/* (transfer full, nullable) */
static FkEngine *open_demo(const char *on, GError **error) {
  g_autofree char *model = g_build_filename(root, "examples", "demo-model", "checkpoint", NULL);
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "model-path", model, NULL);
  fk_options_set(options, "backend", on, NULL);
  return fk_engine_open(options, NULL, NULL, NULL, error);
}

/* "name=value ..." on top of a named edit, whose answer does not hang on rounding; "_" stands for a space of a prompt.
 * (transfer full) */
static FkSettings *settings_of(const char *pairs) {
  g_autofree char *text = g_strdup_printf("steps=8 seed=1 preset=exact %s", pairs);
  g_auto(GStrv) list = g_strsplit(text, " ", -1);
  FkSettings *s = fk_settings_new();
  fk_settings_set(s, "prompt", "make it night", NULL);
  for (char **p = list; *p; p++) {
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) pair = g_strsplit(*p, "=", 2);
    if (!strcmp(pair[0] ? pair[0] : "", "prompt")) g_strdelimit(pair[1], "_", ' ');
    if (**p) fk_settings_set(s, pair[0], pair[1], &error);
    g_assert_no_error(error);
  }
  return s;
}

typedef struct Edit {
  FkImage image;
  FkResult result;
} Edit;

static void edit_free(Edit *e) {
  g_free(e->image.data);
  g_free(e);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Edit, edit_free)

static Edit *edit_new(void) {
  Edit *e = g_new0(Edit, 1);
  e->image = photo;
  e->image.data = g_malloc0(photo.stride * (size_t)photo.height);
  return e;
}

static Edit *edit_with(FkEngine *on, const FkSettings *s) {
  g_autoptr(GError) error = NULL;
  Edit *e = edit_new();
  FkJob job = {.in = photo, .out = e->image, .settings = s};
  fk_engine_edit(on, &job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  e->result = job.result;
  return e;
}

/* `more` may be NULL. */
static Edit *edit(FkEngine *on, const char *pairs, const char *more) {
  g_autofree char *text = g_strjoin(" ", pairs, more, NULL);
  g_autoptr(FkSettings) s = settings_of(text);
  return edit_with(on, s);
}

static bool same(const Edit *a, const Edit *b) {
  return !memcmp(a->image.data, b->image.data, photo.stride * (size_t)photo.height) &&
         !strcmp(a->result.mask, b->result.mask);
}

/* ---- One setting ---- */

/* Frames of a batch have the bytes and decisions that each has alone. */
static void check_batch(const char *pairs, int n) {
  g_autofree FkJob *jobs = g_new0(FkJob, (size_t)n);
  g_autoptr(GPtrArray) own = g_ptr_array_new_with_free_func((GDestroyNotify)fk_settings_free);
  g_autoptr(GPtrArray) out = g_ptr_array_new_with_free_func((GDestroyNotify)edit_free);
  g_autoptr(GError) error = NULL;
  int different = 0;
  for (int i = 0; i < n; i++) {
    g_autofree char *text = g_strdup_printf("%s seed=%d", pairs, 20 + i);
    Edit *e = edit_new();
    g_ptr_array_add(own, settings_of(text));
    g_ptr_array_add(out, e);
    jobs[i] = (FkJob){.in = photo, .out = e->image, .settings = own->pdata[i]};
  }
  fk_engine_edit(engine, jobs, n, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  for (int i = 0; i < n; i++) {
    g_autoptr(Edit) alone = edit_with(engine, own->pdata[i]);
    Edit *e = out->pdata[i];
    e->result = jobs[i].result;
    different += !same(alone, e);
  }
  g_assert_cmpint(different, ==, 0);
}

/* The CPU's results are made in order while the GPU is tested. */
static gpointer make_references(gpointer unused) {
  for (int i = 0; i < (int)G_N_ELEMENTS(settings) && !g_atomic_int_get(&finished); i++) {
    Edit *e = edit(reference, settings[i].pairs, NULL);
    g_mutex_lock(&lock);
    references[i] = e;
    g_cond_broadcast(&ready);
    g_mutex_unlock(&lock);
  }
  return unused;
}

/* (transfer none) */
static const Edit *reference_of(int index) {
  g_mutex_lock(&lock);
  while (!references[index]) g_cond_wait(&ready, &lock);
  g_mutex_unlock(&lock);
  return references[index];
}

/* Near the CPU's result. Rounding may move a decision across its threshold: the CPU's decisions are replayed. */
static void check_near(int index, const Edit *own) {
  const char *pairs = settings[index].pairs;
  const Edit *cpu = reference_of(index);
  g_autofree char *mask = g_strconcat("step-cache-mask=", cpu->result.mask, NULL);
  g_autoptr(Edit) followed = edit(engine, pairs, cpu->result.skipped ? mask : NULL);
  const double db = psnr(&cpu->image, &followed->image);
  g_test_message("near %s: %.1f dB (limit %d), decisions %s, the CPU's %s", settings[index].name, db,
                 settings[index].db, own->result.mask, cpu->result.mask);
  g_assert_cmpfloat(db, >=, settings[index].db);
  g_assert_cmpstr(followed->result.mask, ==, cpu->result.mask);
}

static void setting(gconstpointer data) {
  const int index = GPOINTER_TO_INT(data), runs = gpu ? 20 : 1;
  const char *pairs = settings[index].pairs;
  g_autoptr(Edit) first = edit(engine, pairs, NULL);
  g_autoptr(FkSettings) s = settings_of(pairs);
  int different = 0;
  g_assert_cmpfloat(psnr(&first->image, &plain->image), <, 999); /* else nothing is tested */
  if (strstr(pairs, "step-cache=")) g_assert_cmpint(first->result.skipped, >, 0);
  for (int i = 0; i < runs; i++) {
    g_autoptr(Edit) again = edit_with(engine, s);
    different += !same(first, again) || again->result.skipped != first->result.skipped;
  }
  g_assert_cmpint(different, ==, 0);
  if (gpu) {
    g_autoptr(Edit) unrecorded = edit(engine, pairs, "cuda-graph=off");
    g_assert_true(same(first, unrecorded));
    g_assert_cmpfloat(unrecorded->result.flop, >, 0);
  }
  if (first->result.skipped) {
    g_autofree char *mask = g_strconcat("step-cache-threshold=0 step-cache-mask=", first->result.mask, NULL);
    g_autoptr(Edit) replayed = edit(engine, pairs, mask);
    g_assert_true(same(first, replayed));
  }
  check_batch(pairs, gpu ? 4 : 2);
  check_near(index, first);
}

/* ---- Values that mean off ---- */

static void off(void) {
  static const char *const list[] = {"step-cache=none step-cache-forecast=taylor2",
                                     "context-reuse=1",
                                     "token-merge=0",
                                     "step-cache=first-block step-cache-threshold=0",
                                     "step-cache=first-block step-cache-threshold=0 step-cache-forecast=taylor",
                                     "step-cache=dbcache step-cache-back=1 step-cache-max=0",
                                     "step-cache=teacache step-cache-last=0",
                                     "step-cache=teacache step-cache-mask=11111111",
                                     "scheduler=euler sigmas=flow"};
  for (size_t i = 0; i < G_N_ELEMENTS(list); i++)
    for (int k = 0; k < 3; k++) { /* issued, recorded, replayed */
      g_autoptr(Edit) e = edit(engine, list[i], NULL);
      if (!same(plain, e)) g_test_message("off: %s differs: %.1f dB", list[i], psnr(&plain->image, &e->image));
      g_assert_true(same(plain, e));
    }
}

/* More recordings than are kept: nine frames with two branches, each fresh and reusing its context, in two pieces, are
 * 72; those beyond 64 are issued op by op. */
static void many_recordings(void) {
  static const char pairs[] = "step-cache=first-block step-cache-threshold=0.2 step-cache-forecast=taylor "
                              "context-reuse=2 true-cfg-scale=2 negative-prompt=";
  for (int i = 0; i < 2; i++) check_batch(pairs, gpu ? 9 : 2);
}

int main(int argc, char **argv) {
  g_autoptr(GError) error = NULL;
  backend = g_getenv("BACKEND") ? g_getenv("BACKEND") : "cuda";
  root = g_getenv("FK_SOURCE") ? g_getenv("FK_SOURCE") : FK_ROOT;
  gpu = !strcmp(backend, "cuda");
  g_test_init(&argc, &argv, NULL);
  g_test_set_nonfatal_assertions();
  if (!(engine = open_demo(backend, &error))) {
    printf("1..0 # SKIP %s\n", error->message);
    return 0;
  }
  if (!(reference = open_demo("cpu", &error))) g_error("%s", error->message);
  photo = read_photo();
  plain = edit(engine, "", NULL);
  for (int i = 0; i < (int)G_N_ELEMENTS(settings); i++) {
    g_autofree char *path = g_strconcat("/gpu-steps/", settings[i].name, NULL);
    g_test_add_data_func(path, GINT_TO_POINTER(i), setting);
  }
  g_test_add_func("/gpu-steps/off", off);
  g_test_add_func("/gpu-steps/many-recordings", many_recordings);
  GThread *thread = g_thread_new("references", make_references, NULL);
  const int status = g_test_run();
  g_atomic_int_set(&finished, 1);
  g_thread_join(thread);
  for (int i = 0; i < (int)G_N_ELEMENTS(settings); i++) g_clear_pointer(&references[i], edit_free);
  edit_free(plain);
  g_free(photo.data);
  fk_engine_unref(engine);
  fk_engine_unref(reference);
  return status;
}
