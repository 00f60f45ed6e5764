/* SPDX-License-Identifier: Apache-2.0 */
/* The engine as applications see it, on the null backend: one object per model however its options are spelled, order
 * of arrival, cancelled waits, failures of the device and of memory, and afterwards the next edit; plans and captured
 * graphs that last as long as memory is the same. */
#include "backend.h"
#include "engine.h"
#include "profile.h"
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

/* A list of names and values, NULL-terminated. */
static FkOptions *options_of(const char *first, ...) {
  g_autoptr(GError) error = NULL;
  FkOptions *o = fk_options_new();
  va_list list;
  va_start(list, first);
  for (const char *name = first; name; name = va_arg(list, const char *))
    fk_options_set(o, name, va_arg(list, const char *), &error);
  va_end(list);
  g_assert_no_error(error);
  return o;
}

/* Options that come to the same make one engine; those that do not make two. */
static void identity(void) {
  const char *model = FK_DEMO_MODEL;
  g_autofree char *dot = g_build_filename(model, ".", NULL), *around = g_build_filename(model, "vae", "..", NULL);
  g_autofree char *processors = NULL, *one_more = NULL;
  g_autoptr(FkOptions) first = options_of("model-path", model, "backend", "cpu", NULL);
  g_autoptr(FkEngine) engine = fk_engine_new(first, NULL);
  g_assert_nonnull(engine);
  processors = g_strdup_printf("%d", engine->plan.threads);
  one_more = g_strdup_printf("%d", engine->plan.threads + 1);
  const struct {
    const char *path, *backend, *name, *value;
    bool same;
  } cases[] = {{model, "cpu", NULL, NULL, true},
               {dot, "cpu", NULL, NULL, true},
               {around, "cpu", NULL, NULL, true},
               {model, "auto", NULL, NULL, true}, /* without a GPU */
               {model, "cpu", "cuda-device-id", "0", true},
               {model, "cpu", "max-vram", "99999999999", true},
               {model, "cpu", "preset", "fast", true},
               {model, "cpu", "threads", processors, true},
               {model, "cpu", "threads", one_more, false},
               {model, "null", NULL, NULL, false}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
    for (int again = 0; again < 2; again++) { /* by what it resolves to, and then by its spelling */
      g_autoptr(GError) error = NULL;
      g_autoptr(FkOptions) o =
          options_of("model-path", cases[i].path, "backend", cases[i].backend, cases[i].name, cases[i].value, NULL);
      g_autoptr(FkEngine) other = fk_engine_new(o, &error);
      if (!strcmp(cases[i].backend, "auto") && other && strcmp(other->be->ops->name, "cpu")) continue; /* a GPU */
      g_assert_no_error(error);
      if ((other == engine) != cases[i].same) g_error("case %zu: %s engines", i, cases[i].same ? "two" : "no two");
    }
}

/* The lowest limit of all who share an engine holds; one that is too low for the model changes nothing. */
static void shared_limit(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) none = options_of("backend", "null", "offload", "none", NULL),
                       high = options_of("backend", "null", "offload", "none", "max-vram", "50000000000", NULL),
                       low = options_of("backend", "null", "offload", "none", "max-vram", "34500000000", NULL),
                       lowest = options_of("backend", "null", "offload", "none", "max-vram", "30000000000", NULL);
  g_autoptr(FkEngine) engine = fk_engine_open(none, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_assert_cmpuint(engine->max_vram, ==, 0);
  g_assert_null(fk_engine_new(lowest, &error));
  assert_error(error, FK_ERROR_MEMORY, "the model needs 338", "what fits: offload=model (");
  g_assert_cmpuint(engine->max_vram, ==, 0);
  g_autoptr(FkEngine) a = fk_engine_new(low, &error), b = fk_engine_new(high, &error);
  g_assert_true(a == engine && b == engine);
  g_assert_cmpuint(engine->max_vram, ==, 34500000000);
  g_autoptr(FkSettings) s = fk_settings_new();
  g_assert_false(fk_engine_warmup(engine, s, 1024, 1024, NULL, &error));
  assert_error(error, FK_ERROR_MEMORY, "an edit at 1024x1024", "a smaller max-area");
  fk_settings_set(s, "max-area", "65536", NULL);
  g_assert_true(fk_engine_warmup(engine, s, 256, 256, NULL, &error));
  g_assert_no_error(error);
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
    if (!ok) assert_error(error, FK_ERROR_SHAPE, name, "");
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
  g_autoptr(GError) error = NULL;
  g_assert_false(fk_engine_edit(engine, &a->job, -1, NULL, NULL, NULL, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "-1 frames", "256");
  g_assert_false(fk_engine_edit(engine, &a->job, FK_FRAMES + 1, NULL, NULL, NULL, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "257 frames", "256");
  g_assert_false(fk_engine_edit(engine, NULL, 1, NULL, NULL, NULL, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "1 frames", "array");
  FkJob none = a->job;
  none.settings = NULL;
  g_assert_false(fk_engine_edit(engine, &none, 1, NULL, NULL, NULL, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "frame 0 has no settings", "");
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
  assert_error(error, FK_ERROR_SHAPE, "65535x1", "");
}

/* Sizes at their ends: an error, or an edit at the size at which the model works, without memory for the frame. */
static void extremes(void) {
  static const struct {
    int w, h;
    bool ok;
  } cases[] = {{65535, 65535, true}, {65536, 65536, false}, {0, 0, false}, {-1, 5, false}, {1, 1, true}};
  g_autoptr(FkEngine) engine = open_null();
  g_autoptr(Frame) f = frame_new("1");
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GError) error = NULL;
    size_t count = 1;
    g_assert_cmpint(fk_engine_warmup(engine, f->settings, cases[i].w, cases[i].h, NULL, &error), ==, cases[i].ok);
    if (!cases[i].ok) assert_error(error, FK_ERROR_SHAPE, "65535", "");
    g_autofree FkProfileRow *rows =
        fk_engine_profile(engine, f->settings, cases[i].w, cases[i].h, &count, cases[i].ok ? &error : NULL);
    g_assert_no_error(error);
    g_assert_cmpint(rows != NULL, ==, cases[i].ok);
    g_assert_cmpint(count > 0, ==, cases[i].ok);
  }
}

/* What is generated is opaque, and no input is needed. */
static void generated_alpha(void) {
  enum { SIDE = 32 };
  g_autoptr(FkEngine) engine = open_null();
  g_autoptr(Frame) f = frame_new("1");
  g_autoptr(GError) error = NULL;
  uint8_t out[SIDE * SIDE * 4] = {0};
  FkJob job = {.in = {NULL, SIDE, SIDE, 4, 0}, .out = {out, SIDE, SIDE, 4, SIDE * 4}, .settings = f->settings};
  g_assert_false(fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "frame 0: the input image has no data", "");
  fk_settings_set(f->settings, "task", "generate", NULL);
  fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  for (int i = 0; i < SIDE * SIDE; i++) g_assert_cmpint(out[i * 4 + 3], ==, 255);
}

/* Ops past the profile's room are in a row of their own. */
static void dropped_ops(void) {
  g_autoptr(FkEngine) engine = open_null();
  g_autoptr(Frame) f = frame_new("200");
  g_autoptr(GError) error = NULL;
  size_t count, ops = 0;
  g_autofree FkProfileRow *rows = fk_engine_profile(engine, f->settings, 32, 32, &count, &error);
  g_assert_no_error(error);
  for (size_t i = 0; i + 1 < count; i++) ops += (size_t)rows[i].count;
  g_assert_cmpuint(ops, ==, FK_PROFILE_MAX);
  g_assert_cmpstr(rows[count - 1].op, ==, "dropped");
  g_assert_cmpint(rows[count - 1].count, >, 0);
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
    if (!ok) assert_error(error, FK_ERROR_MEMORY, "32x32", "bytes of work memory were refused");
    fk_engine_edit(engine, &f->job, 1, NULL, NULL, NULL, &error);
    g_assert_no_error(error);
  }
}

static void max_vram(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "backend", "null", NULL);
  fk_options_set(options, "offload", "none", NULL);
  fk_options_set(options, "max-vram", "30000000000", NULL);
  g_assert_null(fk_engine_open(options, NULL, NULL, NULL, &error));
  assert_error(error, FK_ERROR_MEMORY, "30000000000", "needs 338");
}

/* ---- The null backend with what a device has: memory that ends, graphs ---- */

static struct {
  FkOps ops;
  size_t free_bytes;
  int allocations, forgotten;
  bool capturing;
  uint64_t addresses; /* hash of all operands between graph_begin and graph_end */
} device;

static void device_memory(FkBackend *be, size_t *free_bytes, size_t *total_bytes) {
  (void)be;
  *free_bytes = device.free_bytes;
  *total_bytes = SIZE_MAX / 2;
}

static void *device_alloc(FkBackend *be, size_t bytes) {
  device.allocations++;
  return fk_null_ops.alloc(be, bytes);
}

static bool device_begin(FkBackend *be, int key) {
  (void)be;
  device.capturing = true;
  device.addresses = device.addresses * 31 + (uint64_t)key;
  return true;
}

static void device_end(FkBackend *be, int key) {
  (void)be;
  (void)key;
  device.capturing = false;
}

static void device_forget(FkBackend *be) {
  (void)be;
  device.forgotten++;
}

static void note(FkTensor t) {
  if (device.capturing)
    device.addresses = device.addresses * 1000003 + (uint64_t)(uintptr_t)t.data + (uint64_t)fk_tensor_rows(t);
}

static bool device_linear(FkBackend *be, const FkLinear *l, int groups) {
  (void)be;
  for (int i = 0; i < groups; i++) {
    note(l[i].x);
    note(l[i].y);
  }
  return true;
}

static void device_norm(FkBackend *be, const FkLayerNorm *n, int groups) {
  (void)be;
  for (int i = 0; i < groups; i++) {
    note(n[i].x);
    note(n[i].scale);
    note(n[i].y);
  }
}

static bool device_attention(FkBackend *be, const FkAttention *a) {
  (void)be;
  note(a->q);
  note(a->k);
  return true;
}

/* An engine of its own on it, not loaded. */
static FkEngine *open_device(size_t free_bytes) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = options_of("backend", "null", NULL);
  FkEngine *engine = fk_engine_new(options, &error);
  g_assert_no_error(error);
  g_assert_cmpint(engine->shared.refs, ==, 1);
  memset(&device, 0, sizeof device);
  device.free_bytes = free_bytes;
  device.ops = fk_null_ops;
  device.ops.memory = device_memory;
  device.ops.alloc = device_alloc;
  device.ops.graph_begin = device_begin;
  device.ops.graph_end = device_end;
  device.ops.graph_forget = device_forget;
  device.ops.linear_fused = device_linear;
  device.ops.layer_norm = device_norm;
  device.ops.flash_attention = device_attention;
  engine->be->ops = &device.ops;
  engine->be->can |= FK_CAN_GRAPH;
  return engine;
}

/* A card without room for weights and the first edit: nothing is allocated. With settings that make the edit fit, it
 * loads. */
static void full_card(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) engine = open_device(34500000000);
  g_autoptr(FkSettings) s = fk_settings_new();
  g_assert_false(fk_engine_load(engine, NULL, NULL, NULL, &error));
  assert_error(error, FK_ERROR_MEMORY, "an edit at 1024x1024 needs 3", "free are 34500000000");
  g_autoptr(Frame) f = frame_new("1");
  fk_settings_set(f->settings, "max-area", "1048576", NULL);
  g_assert_false(fk_engine_edit(engine, &f->job, 1, NULL, NULL, NULL, &error));
  assert_error(error, FK_ERROR_MEMORY, "weights 33", "a smaller max-area");
  g_assert_cmpint(device.allocations, ==, 0);
  g_assert_false(engine->model->loaded);
  fk_settings_set(s, "max-area", "65536", NULL);
  g_assert_true(fk_engine_load_for(engine, s, NULL, NULL, NULL, &error));
  g_assert_no_error(error);
  g_assert_cmpint(device.allocations, >, 0);
  edits(engine);
  fk_settings_set(s, "step-cache-mask", "1", NULL);
  g_assert_false(fk_engine_load_for(engine, s, NULL, NULL, NULL, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "step-cache-mask", "");
}

/* One edit: how many plans it made, graphs it dropped, and which addresses graphs would have captured. */
typedef struct {
  int plans, forgotten;
  uint64_t addresses;
} Cost;

static Cost edit_once(FkEngine *engine, Frame *f) {
  g_autoptr(GError) error = NULL;
  const int plans = engine->plans, forgotten = device.forgotten;
  device.addresses = 0;
  fk_engine_edit(engine, &f->job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  return (Cost){engine->plans - plans, device.forgotten - forgotten, device.addresses};
}

/* A new prompt, encoded or from the cache, and a controlled guidance neither plan again nor drop graphs, and graphs
 * find every operand where it was. Settings that change memory do. */
static void plans(void) {
  static const struct {
    const char *name, *value;
    bool plans;
  } rows[] = {{"prompt", "make it night", false}, {"prompt", "", false},          {"prompt", "make it night", false},
              {"guidance", "3.5", false},         {"prompt-cache", "off", false}, {"prompt", "other", false},
              {"prompt-cache", "auto", false},    {"seed", "9", false},           {"sigmas", "karras", false},
              {"true-cfg-scale", "2", false},     {"negative-prompt", "x", true}, {"negative-prompt", "y", false},
              {"true-cfg-scale", "3", false},     {"steps", "3", true},           {"flash-attention", "off", true},
              {"cuda-graph", "off", false},       {"scheduler", "heun", true}};
  g_autoptr(FkEngine) engine = open_device(SIZE_MAX / 2);
  g_autoptr(Frame) f = frame_new("2");
  Cost last = edit_once(engine, f);
  g_assert_cmpint(last.plans, ==, 1);
  g_assert_true(last.addresses);
  for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
    fk_settings_set(f->settings, rows[i].name, rows[i].value, NULL);
    const Cost now = edit_once(engine, f);
    if (now.plans != rows[i].plans || now.forgotten != rows[i].plans)
      g_error("%s=%s: %d plans, graphs dropped %d times", rows[i].name, rows[i].value, now.plans, now.forgotten);
    if (!rows[i].plans && now.addresses && now.addresses != last.addresses)
      g_error("%s=%s: operands have moved", rows[i].name, rows[i].value);
    last = now.addresses ? now : last;
  }
}

/* The second edit with another prompt costs its own walk and no other. */
static void second_prompt(void) {
  g_autoptr(FkEngine) engine = open_null();
  g_autofree uint8_t *in = g_malloc0(1024 * 1024 * 3), *out = g_malloc0(1024 * 1024 * 3);
  g_autoptr(FkSettings) s = fk_settings_new();
  FkJob job = {.in = {in, 1024, 1024, 3, 3072}, .out = {out, 1024, 1024, 3, 3072}, .settings = s};
  const int before = engine->plans;
  for (int i = 0; i < 6; i++) {
    g_autofree char *prompt = g_strdup_printf("prompt %d", i / 2);
    const int64_t start = g_get_monotonic_time();
    fk_settings_set(s, "prompt", prompt, NULL);
    g_assert_true(fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, NULL));
    g_test_message("%s prompt: %.2f ms, %d plans", i % 2 ? "same" : "new",
                   (double)(g_get_monotonic_time() - start) / 1e3, engine->plans - before);
    g_assert_cmpint(engine->plans - before, ==, 1);
  }
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
  g_test_add_func("/engine/identity", identity);
  g_test_add_func("/engine/shared-limit", shared_limit);
  g_test_add_func("/engine/full-card", full_card);
  g_test_add_func("/engine/plans", plans);
  g_test_add_func("/engine/second-prompt", second_prompt);
  g_test_add_func("/engine/extremes", extremes);
  g_test_add_func("/engine/generated-alpha", generated_alpha);
  g_test_add_func("/engine/dropped-ops", dropped_ops);
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
