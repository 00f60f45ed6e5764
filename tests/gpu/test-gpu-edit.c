/* SPDX-License-Identifier: Apache-2.0 */
/* Whole edits of the demo checkpoint on the GPU, through fk.h alone: pixels against diffusers' float32 pipeline, the
 * same bytes whatever happens around an edit, every switch's class, 8-bit blocks, cancelling, and refusals.
 *
 * Environment: BACKEND (default cuda; cpu runs the same checks with fewer repetitions), FK_SOURCE (the project's root,
 * default: where this was built). Without a usable device everything counts as skipped.
 * Other modes, for run-on-gpu.sh, on any checkpoint:
 *   test-gpu-edit --hash MODEL WIDTHxHEIGHT RUNS [PROPERTY=VALUE ...]    one line with the hash that all runs have
 *   test-gpu-edit --cancel MODEL WIDTHxHEIGHT RUNS [PROPERTY=VALUE ...]  times from cancelling to return
 * Not here: single ops (test-cuda-ops.c, test-cuda-moves.c) and stages of the full model (compare_full.py). */
#include "../test-picture.h"

#include <stdlib.h>
#include <string.h>

/* Decibels to the float32 reference. diffusers' own bfloat16 reaches 42 to 53 on named edits and 33 to 51 on vague
 * ones, whose many answers lie close together, so that rounding decides; 2 dB less is allowed. */
enum { NAMED_DB = 40, VAGUE_DB = 31 };
/* Decibels between two results that differ by rounding alone; both are about 50 from the reference on a named edit. */
enum { ROUNDING_DB = 40 };
/* Decibels between a named edit with 8-bit weights and inputs in the blocks, and the same without (51 on the CPU). */
enum { QUANTISED_DB = 38 };
/* Milliseconds over one evaluation that returning from a cancelled edit may take: waking threads on a busy host. */
enum { CANCEL_MARGIN_MS = 20 };

static const char *backend, *root;
static bool gpu;

/* ---- Pictures ---- */

static FkImage picture(const char *folder, const char *name) {
  g_autofree char *path = g_build_filename(root, folder, name, NULL);
  return read_png(path);
}

static FkImage golden(const char *name) {
  return picture("tests/golden/edits", name);
}
static FkImage photo(const char *name) {
  return picture("examples/demo-model/photos", name);
}

static FkImage blank(int width, int height) {
  return (FkImage){g_malloc0((size_t)width * (size_t)height * 3), width, height, 3, (size_t)width * 3};
}

/* Gradients and noise, for sizes of which there is no photograph. */
static FkImage made_up(int width, int height) {
  FkImage image = blank(width, height);
  uint32_t state = 1;
  for (int i = 0; i < width * height * 3; i++) {
    state = state * 1664525u + 1013904223u;
    image.data[i] = (uint8_t)((i / 3 % width) * 160 / width + (i / 3 / width) * 60 / height + (int)(state >> 27));
  }
  return image;
}

static char *hash(const FkImage *image) {
  return g_compute_checksum_for_data(G_CHECKSUM_SHA256, image->data, image->stride * (size_t)image->height);
}

/* ---- Engines and edits ---- */

/* `name` NULL: nothing but model and backend is set. (transfer full) */
static FkOptions *options_of(const char *model, const char *name, const char *value) {
  FkOptions *options = fk_options_new();
  fk_options_set(options, "model-path", model, NULL);
  fk_options_set(options, "backend", backend, NULL);
  if (name) fk_options_set(options, name, value, NULL);
  return options;
}

/* (transfer full, nullable) */
static FkEngine *open_with(const char *model, const char *name, const char *value, GError **error) {
  g_autoptr(FkOptions) options = options_of(model, name, value);
  return fk_engine_open(options, NULL, NULL, NULL, error);
}

static char *demo(void) {
  return g_build_filename(root, "examples", "demo-model", "checkpoint", NULL);
}

static FkEngine *open_demo(void) {
  g_autofree char *model = demo();
  g_autoptr(GError) error = NULL;
  FkEngine *engine = open_with(model, NULL, NULL, &error);
  if (!engine) g_error("%s", error->message);
  return engine;
}

/* A NULL-terminated list of names and values. */
static FkSettings *settings_of(const char *first, ...) {
  FkSettings *s = fk_settings_new();
  va_list list;
  va_start(list, first);
  for (const char *name = first; name; name = va_arg(list, const char *)) {
    g_autoptr(GError) error = NULL;
    fk_settings_set(s, name, va_arg(list, const char *), &error);
    g_assert_no_error(error);
  }
  va_end(list);
  return s;
}

static FkResult edit(FkEngine *engine, const FkImage *in, const FkImage *out, const FkSettings *settings) {
  g_autoptr(GError) error = NULL;
  FkJob job = {.in = *in, .out = *out, .settings = settings};
  memset(out->data, 0xa5, out->stride * (size_t)out->height);
  fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  return job.result;
}

static char *edit_hash(FkEngine *engine, const FkImage *in, const FkSettings *settings) {
  FkImage out = blank(in->width, in->height);
  edit(engine, in, &out, settings);
  char *h = hash(&out);
  g_free(out.data);
  return h;
}

/* Steps of the edits whose pixels are only compared with each other. */
static const char *short_steps(void) {
  return gpu ? "28" : "2";
}

/* ---- Against the reference ---- */

static void compare(const char *name, const FkImage *have, int limit) {
  FkImage want = golden(name);
  const double db = psnr(have, &want);
  g_test_message("edit %s %.2f dB (limit %d)", name, db, limit);
  g_assert_cmpfloat(db, >=, limit);
  g_free(want.data);
}

/* The seed of each is its place. */
static const struct {
  const char *prompt;
  int limit;
} cases[] = {{"make it black and white", NAMED_DB},
             {"make it night", NAMED_DB},
             {"turn it upside down", NAMED_DB},
             {"add a shape", VAGUE_DB},
             {"", VAGUE_DB}};

static void reference_edits(void) {
  static const char *const shapes[2] = {"square", "wide"};
  g_autoptr(FkEngine) engine = open_demo();
  FkImage inputs[2] = {photo("coffee_256.png"), golden("rocket_304x208.png")};
  for (int i = 0; i < (int)G_N_ELEMENTS(cases); i++)
    for (int k = 0; k < 2; k++) {
      g_autofree char *name = g_strdup_printf("%s-%d.png", shapes[k], i), *seed = g_strdup_printf("%d", i);
      g_autoptr(FkSettings) s = settings_of("prompt", cases[i].prompt, "seed", seed, NULL);
      FkImage have = blank(inputs[k].width, inputs[k].height);
      const FkResult r = edit(engine, &inputs[k], &have, s);
      g_assert_cmpint(r.width, ==, inputs[k].width);
      g_assert_cmpint(r.evaluations, ==, 28);
      compare(name, &have, cases[i].limit);
      g_free(have.data);
    }
  g_free(inputs[0].data);
  g_free(inputs[1].data);
}

static void true_cfg(void) {
  g_autoptr(FkEngine) engine = open_demo();
  g_autoptr(FkSettings) s = settings_of("prompt", "make it night", "negative-prompt", "make it brighter",
                                        "true-cfg-scale", "2", "steps", "8", "seed", "6", NULL);
  FkImage in = photo("coffee_256.png"), have = blank(in.width, in.height);
  edit(engine, &in, &have, s);
  compare("cfg.png", &have, NAMED_DB);
  g_free(in.data);
  g_free(have.data);
}

/* ---- The same bytes ---- */

/* A vague edit: what shows a single changed bit of noise best. */
static FkSettings *vague(const char *seed) {
  return settings_of("prompt", "add a shape", "steps", short_steps(), "seed", seed, NULL);
}

static void repeated(void) {
  g_autoptr(FkEngine) engine = open_demo();
  g_autoptr(FkSettings) s = vague("3");
  FkImage in = photo("coffee_256.png");
  g_autofree char *first = edit_hash(engine, &in, s);
  g_test_message("hash %s", first);
  for (int i = 1; i < (gpu ? 100 : 4); i++) {
    g_autofree char *now = edit_hash(engine, &in, s);
    g_assert_cmpstr(now, ==, first);
  }
  g_free(in.data);
}

/* Frames of another size, prompt, number of steps and picture before it; and an engine that was closed in between. */
static void among_others(void) {
  g_autofree char *first = NULL;
  g_autoptr(FkSettings) s = vague("3"), t = settings_of("prompt", "make it night", "steps", "3", NULL);
  FkImage in = photo("coffee_256.png"), wide = golden("rocket_304x208.png"), same = photo("rocket_256.png");
  for (int i = 0; i < 3; i++) {
    g_autoptr(FkEngine) engine = open_demo();
    for (int k = 0; k < 3; k++) {
      g_autofree char *now = edit_hash(engine, &in, s);
      if (!first) first = g_strdup(now);
      g_assert_cmpstr(now, ==, first);
      g_autofree char *other = edit_hash(engine, k ? &wide : &same, k == 2 ? s : t);
      g_assert_cmpstr(other, !=, first);
    }
  }
  g_free(in.data);
  g_free(wide.data);
  g_free(same.data);
}

/* Each of four frames (two pictures, four seeds) alone, and at its place in batches of 2 and 4. */
static void check_batches(FkEngine *engine) {
  FkImage in[4], out[4];
  FkSettings *s[4];
  char *alone[4];
  for (int i = 0; i < 4; i++) {
    g_autofree char *seed = g_strdup_printf("%d", i + 20);
    in[i] = photo(i % 2 ? "rocket_256.png" : "coffee_256.png");
    out[i] = blank(in[i].width, in[i].height);
    s[i] = vague(seed);
    alone[i] = edit_hash(engine, &in[i], s[i]);
  }
  for (int n = 2; n <= 4; n += 2)
    for (int first = 0; first < 4; first += n) {
      FkJob jobs[4];
      g_autoptr(GError) error = NULL;
      for (int i = 0; i < n; i++)
        jobs[i] = (FkJob){.in = in[first + i], .out = out[first + i], .settings = s[first + i]};
      fk_engine_edit(engine, jobs, n, NULL, NULL, NULL, &error);
      g_assert_no_error(error);
      for (int i = first; i < first + n; i++) {
        g_autofree char *now = hash(&out[i]);
        g_assert_cmpstr(now, ==, alone[i]);
      }
    }
  g_assert_cmpstr(alone[0], !=, alone[2]);
  for (int i = 0; i < 4; i++) {
    g_free(in[i].data);
    g_free(out[i].data);
    g_free(alone[i]);
    fk_settings_free(s[i]);
  }
}

static void batches(void) {
  g_autoptr(FkEngine) engine = open_demo();
  check_batches(engine);
}

/* ---- Switches ---- */

/* On CUDA every machine switch must have run as `on`, else the comparison says nothing. */
static void assert_active(FkEngine *engine, const FkSettings *settings, const char *name, const char *value) {
  g_auto(GStrv) active = fk_engine_active(engine, settings);
  for (int i = 0; active[i]; i += 2)
    if (!strcmp(active[i], name) && !g_str_has_prefix(active[i + 1], value)) {
      g_test_message("%s: %s", name, active[i + 1]);
      g_test_fail();
    }
}

/* Every switch of class same or rounding, off against all on; on a named edit and at both sizes. */
static void switches(void) {
  g_autoptr(FkEngine) engine = open_demo();
  FkImage inputs[2] = {photo("coffee_256.png"), golden("rocket_304x208.png")};
  size_t count;
  const FkProperty *p = fk_properties(&count);
  for (int k = 0; k < 2; k++) {
    g_autoptr(FkSettings) all = settings_of("prompt", "make it night", "seed", "1", "steps", short_steps(), NULL);
    FkImage on = blank(inputs[k].width, inputs[k].height), off = blank(inputs[k].width, inputs[k].height);
    edit(engine, &inputs[k], &on, all);
    for (size_t i = 0; i < count; i++) {
      const bool same = p[i].optimization == FK_CLASS_SAME;
      if (p[i].kind != FK_KIND_SWITCH || (!same && p[i].optimization != FK_CLASS_ROUNDING)) continue;
      if (!strcmp(p[i].presets[1], "off") || !strcmp(p[i].name, "vae-slicing")) continue; /* there is no other way */
      g_autoptr(FkSettings) one = fk_settings_copy(all);
      fk_settings_set(one, p[i].name, "off", NULL);
      if (gpu) assert_active(engine, all, p[i].name, "on");
      assert_active(engine, one, p[i].name, "off");
      edit(engine, &inputs[k], &off, one);
      const double db = psnr(&on, &off);
      g_test_message("switch %s %s off: %.2f dB", k ? "wide" : "square", p[i].name, db);
      g_assert_cmpfloat(db, >=, same ? 999 : ROUNDING_DB);
    }
    g_free(on.data);
    g_free(off.data);
    g_free(inputs[k].data);
  }
}

/* Graphs on and off on the vague edit and with true CFG, where a recording holds two passes. */
static void check_graphs(FkEngine *engine) {
  FkImage in = photo("coffee_256.png");
  FkSettings *on[2] = {vague("3"), settings_of("prompt", "make it night", "negative-prompt", "", "true-cfg-scale", "2",
                                               "steps", "4", NULL)};
  for (int i = 0; i < 2; i++) {
    g_autoptr(FkSettings) off = fk_settings_copy(on[i]);
    fk_settings_set(off, "cuda-graph", "off", NULL);
    g_autofree char *a = edit_hash(engine, &in, on[i]), *b = edit_hash(engine, &in, off);
    g_autofree char *c = edit_hash(engine, &in, on[i]);
    g_assert_cmpstr(a, ==, b);
    g_assert_cmpstr(a, ==, c);
    fk_settings_free(on[i]);
  }
  g_free(in.data);
}

static void graphs(void) {
  g_autoptr(FkEngine) engine = open_demo();
  check_graphs(engine);
}

/* ---- 8 bits ---- */

/* Blocks in E4M3: the same bytes in every run, in batches and with graphs; near the edits without on named edits. */
static void quantised(void) {
  g_autofree char *model = demo(), *first = NULL;
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) plain = open_demo(), engine = open_with(model, "quantization", "fp8", &error);
  g_autoptr(FkSettings) again = vague("3");
  if (!engine) {
    g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
    g_test_skip(error ? error->message : "not opened");
    return;
  }
  FkImage inputs[2] = {photo("coffee_256.png"), golden("rocket_304x208.png")};
  for (int i = 0; i < (gpu ? 20 : 2); i++) {
    g_autofree char *now = edit_hash(engine, &inputs[0], again);
    if (!first) first = g_strdup(now);
    g_assert_cmpstr(now, ==, first);
  }
  check_batches(engine);
  check_graphs(engine);
  for (int i = 0; i < (int)G_N_ELEMENTS(cases); i++)
    for (int k = 0; k < 2 && cases[i].limit == NAMED_DB; k++) {
      g_autofree char *seed = g_strdup_printf("%d", i);
      g_autoptr(FkSettings) s = settings_of("prompt", cases[i].prompt, "seed", seed, "steps", short_steps(), NULL);
      FkImage want = blank(inputs[k].width, inputs[k].height), have = blank(inputs[k].width, inputs[k].height);
      edit(plain, &inputs[k], &want, s);
      edit(engine, &inputs[k], &have, s);
      const double db = psnr(&have, &want);
      g_test_message("fp8 %s, \"%s\": %.2f dB (limit %d)", k ? "wide" : "square", cases[i].prompt, db, QUANTISED_DB);
      g_assert_cmpfloat(db, >=, QUANTISED_DB);
      g_assert_cmpfloat(db, <, 999); /* else nothing was quantised */
      g_free(want.data);
      g_free(have.data);
    }
  g_free(inputs[0].data);
  g_free(inputs[1].data);
}

/* Codes that alternate between evaluations are two recordings, and MX is made while weights are read; those of
 * modulations are weights alone: batches and graphs give the same bytes. */
static void other_codes(void) {
  static const char *const forms[][3] = {
      {"quantization", "fp8", "on"}, {"quantization", "mxfp4", "off"}, {"modulation-quantization", "fp8", "off"}};
  g_autofree char *model = demo();
  if (!gpu) {
    g_test_skip("the CPU's are in test-quantization");
    return;
  }
  for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkOptions) options = options_of(model, forms[i][0], forms[i][1]);
    fk_options_set(options, "weight-dither", forms[i][2], NULL);
    g_autoptr(FkEngine) engine = fk_engine_open(options, NULL, NULL, NULL, &error);
    if (!engine) {
      g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
      g_test_skip(error ? error->message : "not opened");
      return;
    }
    check_batches(engine);
    check_graphs(engine);
  }
}

/* ---- Cancelling ---- */

typedef struct {
  GCancellable *cancellable;
  double after_ms;
  gint64 at; /* when it was cancelled, microseconds */
} Stop;

static gpointer stop_later(gpointer data) {
  Stop *s = data;
  g_usleep((gulong)(s->after_ms * 1000));
  s->at = g_get_monotonic_time();
  g_cancellable_cancel(s->cancellable);
  return NULL;
}

/* One edit cancelled after `after_ms`: milliseconds from cancelling to return, below 0 if it had ended before. */
static double cancelled_edit(FkEngine *engine, const FkImage *in, const FkSettings *settings, double after_ms) {
  FkImage out = blank(in->width, in->height);
  g_autoptr(GError) error = NULL;
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  FkJob job = {.in = *in, .out = out, .settings = settings};
  Stop stop = {cancellable, after_ms, 0};
  GThread *thread = g_thread_new("stop", stop_later, &stop);
  const bool done = fk_engine_edit(engine, &job, 1, cancellable, NULL, NULL, &error);
  const gint64 returned = g_get_monotonic_time();
  g_thread_join(thread);
  g_free(out.data);
  if (!done) g_assert_error(error, FK_ERROR, FK_ERROR_CANCELLED);
  return done ? -1 : (double)(returned - stop.at) / 1000;
}

/* `runs` edits cancelled at random instants: each returns within one evaluation (or the one other stage that runs) and
 * the margin, and the edit after it has the bytes it would have had. */
static void cancel_at_random(FkEngine *engine, const FkImage *in, const FkSettings *settings, int runs) {
  FkImage out = blank(in->width, in->height);
  edit(engine, in, &out, settings); /* recordings are made here */
  const FkResult r = edit(engine, in, &out, settings);
  g_autofree char *before = hash(&out);
  const double step = r.denoise_ms / r.evaluations;
  const double unit = MAX(MAX(step, r.encode_ms), MAX(r.decode_ms, r.text_ms)), limit = unit + CANCEL_MARGIN_MS;
  g_autofree double *ms = g_new0(double, (size_t)runs);
  int ended = 0;
  g_test_message("edit %.1f ms, evaluation %.2f ms, longest unit of work %.2f ms; limit %.1f ms", r.edit_ms, step, unit,
                 limit);
  for (int i = 0; i < runs; i++) {
    const double after = g_random_double_range(0, r.edit_ms);
    const double took = cancelled_edit(engine, in, settings, after);
    ended += took < 0;
    ms[i] = took;
    g_test_message("cancelled after %.2f ms: returned in %.2f ms", after, took);
    g_assert_cmpfloat(took, <=, limit);
    if (i % 5 && i < runs - 1) continue;
    edit(engine, in, &out, settings);
    g_autofree char *now = hash(&out);
    g_assert_cmpstr(now, ==, before);
  }
  g_assert_cmpint(ended, <, runs / 4 + 1);
  g_free(out.data);
}

static void cancel(void) {
  g_autoptr(FkEngine) engine = open_demo();
  FkImage in = photo("coffee_256.png");
  g_autoptr(FkSettings) s = settings_of("prompt", "add a shape", "seed", "3", "steps", gpu ? "1000" : "6", NULL);
  cancel_at_random(engine, &in, s, gpu ? 20 : 3);
  g_free(in.data);
}

/* ---- Refusals ---- */

/* Bytes that a refusal says are needed. */
static uint64_t needed(const GError *error, const char *limit) {
  g_assert_error(error, FK_ERROR, FK_ERROR_MEMORY);
  const char *needs = error ? strstr(error->message, "needs ") : NULL;
  g_test_message("%s", error ? error->message : "no error");
  g_assert_true(needs && strstr(needs, limit));
  return needs ? g_ascii_strtoull(needs + 6, NULL, 10) : 0;
}

/* Nothing leaves memory to fit. */
static FkEngine *open_limited(const char *model, const char *limit, GError **error) {
  g_autoptr(FkOptions) options = options_of(model, "max-vram", limit);
  return fk_options_set(options, "offload", "none", error) ? fk_engine_open(options, NULL, NULL, NULL, error) : NULL;
}

/* A limit is refused with the plan's bytes: below the model, with room for the model and none for an edit, one byte
 * short of an edit. What the plan says is enough. */
static void memory_limit(void) {
  g_autofree char *model = demo(), *model_alone = NULL, *short_of = NULL, *enough = NULL;
  g_autoptr(GError) first = NULL, second = NULL, third = NULL, error = NULL;
  g_autoptr(FkSettings) s = vague("1");
  g_assert_null(open_limited(model, "1000003", &first));
  model_alone = g_strdup_printf("%" G_GUINT64_FORMAT, needed(first, "max-vram is 1000003 bytes"));
  g_assert_null(open_limited(model, model_alone, &second));
  const uint64_t whole = needed(second, model_alone);
  short_of = g_strdup_printf("%" G_GUINT64_FORMAT, whole - 1);
  enough = g_strdup_printf("%" G_GUINT64_FORMAT, whole);
  g_assert_null(open_limited(model, short_of, &third));
  g_assert_cmpuint(needed(third, short_of), ==, whole);
  g_autoptr(FkEngine) engine = open_limited(model, enough, &error);
  g_assert_no_error(error);
  FkImage in = photo("coffee_256.png"), out = blank(in.width, in.height);
  FkJob job = {.in = in, .out = out, .settings = s};
  if (engine) fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_free(in.data);
  g_free(out.data);
}

static void devices(void) {
  g_autofree char *model = demo();
  g_autoptr(GError) error = NULL;
  if (!gpu) {
    g_test_skip("cuda-device-id concerns CUDA alone");
    return;
  }
  g_autoptr(FkEngine) wrong = open_with(model, "cuda-device-id", "99", &error);
  g_assert_null(wrong);
  g_assert_error(error, FK_ERROR, FK_ERROR_BACKEND_MISSING);
  g_assert_true(error && strstr(error->message, "99"));
  g_test_message("%s", error ? error->message : "no error");
  g_autoptr(FkEngine) automatic = open_with(model, "cuda-device-id", "-1", NULL);
  g_autoptr(FkEngine) first = open_with(model, "cuda-device-id", "0", NULL);
  g_assert_nonnull(automatic);
  g_assert_true(automatic == first); /* one device, one engine, however it is spelled */
}

/* ---- Modes for the script ---- */

static struct {
  const char *model, *size, **pairs;
  int runs;
  bool cancel;
} mode;

/* --hash and --cancel: `pairs` are settings and options. */
static void run_mode(void) {
  int width = 0, height = 0, different = 0;
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) s = settings_of("prompt", "add a shape", "seed", "3", NULL);
  g_autoptr(FkOptions) options = options_of(mode.model, NULL, NULL);
  g_autofree char *first = NULL;
  bool ok = sscanf(mode.size, "%dx%d", &width, &height) == 2 && mode.runs > 0;
  for (const char **p = mode.pairs; ok && *p; p++) {
    g_auto(GStrv) pair = g_strsplit(*p, "=", 2);
    ok = pair[0] && pair[1] &&
         (fk_options_set(options, pair[0], pair[1], NULL) || fk_settings_set(s, pair[0], pair[1], &error));
  }
  g_autoptr(FkEngine) engine = ok ? fk_engine_open(options, NULL, NULL, NULL, &error) : NULL;
  if (!engine) {
    g_test_message("not opened: %s", error ? error->message : "bad arguments");
    if (g_error_matches(error, FK_ERROR, FK_ERROR_BACKEND_MISSING))
      g_test_skip("no usable device");
    else
      g_test_fail();
    return;
  }
  FkImage in = made_up(width, height);
  if (mode.cancel) cancel_at_random(engine, &in, s, mode.runs);
  for (int i = 0; !mode.cancel && i < mode.runs; i++) {
    g_autofree char *now = edit_hash(engine, &in, s);
    if (!first) first = g_strdup(now);
    different += strcmp(now, first) != 0;
  }
  if (first) g_test_message("%dx%d, %d runs, %d differ: %s", width, height, mode.runs, different, first);
  g_assert_cmpint(different, ==, 0);
  g_free(in.data);
}

/* NULL: usable. (transfer full) */
static char *why_not(void) {
  g_autofree char *model = demo();
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) engine = open_with(model, NULL, NULL, &error);
  return engine ? NULL : g_strdup(error->message);
}

int main(int argc, char **argv) {
  const bool special = argc >= 5 && (!strcmp(argv[1], "--hash") || !strcmp(argv[1], "--cancel"));
  backend = g_getenv("BACKEND") ? g_getenv("BACKEND") : "cuda";
  root = g_getenv("FK_SOURCE") ? g_getenv("FK_SOURCE") : FK_ROOT;
  gpu = !strcmp(backend, "cuda");
  if (special) {
    char *own[] = {argv[0], "--tap", NULL}, **arguments = own;
    int count = 2;
    mode.cancel = !strcmp(argv[1], "--cancel");
    mode.model = argv[2];
    mode.size = argv[3];
    mode.runs = atoi(argv[4]);
    mode.pairs = (const char **)argv + 5;
    g_test_init(&count, &arguments, NULL);
    g_test_set_nonfatal_assertions();
    g_test_add_func(mode.cancel ? "/gpu-edit/cancel-at-random" : "/gpu-edit/one-hash", run_mode);
    return g_test_run();
  }
  g_test_init(&argc, &argv, NULL);
  g_test_set_nonfatal_assertions();
  g_autofree char *reason = why_not();
  if (reason) {
    printf("1..0 # SKIP %s\n", reason);
    return 0;
  }
  g_test_add_func("/gpu-edit/reference", reference_edits);
  g_test_add_func("/gpu-edit/true-cfg", true_cfg);
  g_test_add_func("/gpu-edit/repeated", repeated);
  g_test_add_func("/gpu-edit/among-others", among_others);
  g_test_add_func("/gpu-edit/batches", batches);
  g_test_add_func("/gpu-edit/switches", switches);
  g_test_add_func("/gpu-edit/graphs", graphs);
  g_test_add_func("/gpu-edit/quantised", quantised);
  g_test_add_func("/gpu-edit/other-codes", other_codes);
  g_test_add_func("/gpu-edit/cancel", cancel);
  g_test_add_func("/gpu-edit/memory-limit", memory_limit);
  g_test_add_func("/gpu-edit/devices", devices);
  return g_test_run();
}
