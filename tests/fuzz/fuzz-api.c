/* SPDX-License-Identifier: Apache-2.0 */
/* The public interface in any order, on the null backend with the demo model. The input is lines:
 *
 *   name=value           fk_set on options and settings; "name" alone: the default
 *   o, n                 engine by the options now; released. One is kept from input to input, because opening takes
 *                        longest, unless an input begins with n
 *   l                    load with the settings now
 *   c, i, a              check, idle settings, active
 *   b                    keep the settings for a second frame, that may not match
 *   s W H                output size
 *   p W H B              plan with B bytes a value
 *   w W H, r W H         warm-up, profile
 *   e N W H C FLAGS      edit of N frames with C channels, small enough or without data; FLAGS of FAULTS
 *
 * Whatever comes, a call gives what it says or an error of the project's own. */
#include "fuzz.h"

#include "engine.h"

#include <stdio.h>
#include <string.h>

enum { FRAMES = 3, PIXELS = 1 << 16, LONGEST = 1 << 12, CALLS = 12 };

/* What an edit's call has wrong. */
enum {
  NO_IN = 1,
  NO_OUT = 2,
  SHORT_IN = 4,
  SHORT_OUT = 8,
  IN_PLACE = 16,
  SAME_OUT = 32,
  WRONG_SIZE = 64,
  OTHER_SETTINGS = 128,
  NO_SETTINGS = 256,
  CANCELLED = 512,
  STOPS = 1024
};

typedef struct {
  FkOptions *options;
  FkSettings *settings, *second;
  FkEngine *engine;
  int budget; /* of calls that walk a model */
} State;

static FkEngine *kept;

/* ---- Values ---- */

static const FkProperty *find(const char *name) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  for (size_t i = 0; i < n; i++)
    if (!strcmp(p[i].name, name)) return &p[i];
  return NULL;
}

static const char *get(const State *s, const FkProperty *p) {
  return p->scope == FK_SCOPE_OPTION ? fk_options_get(s->options, p->name) : fk_settings_get(s->settings, p->name);
}

/* What is taken reads back; what is not leaves the old value. */
static void set(State *s, const char *name, const char *value) {
  g_autoptr(GError) error = NULL;
  const FkProperty *p = find(name);
  g_autofree char *before = p ? g_strdup(get(s, p)) : NULL;
  const bool taken = fk_set(s->options, s->settings, name, value, &error);
  fuzz_check(error, taken);
  g_assert_true(!taken || p);
  if (p) g_assert_cmpstr(get(s, p), ==, !taken ? before : value ? value : p->initial);
  if (p && p->both) g_assert_cmpstr(fk_options_get(s->options, name), ==, fk_settings_get(s->settings, name));
}

/* Names in the even places, a text for each. */
static void check_pairs(char **list) {
  g_assert_cmpuint(g_strv_length(list) % 2, ==, 0);
  for (int i = 0; list[i]; i += 2) g_assert_true(*list[i] && *list[i + 1]);
  g_strfreev(list);
}

/* ---- Engine ---- */

static void open_engine(State *s) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) o = fk_options_copy(s->options);
  fk_options_set(o, "backend", "null", NULL);
  fk_options_set(o, "model-path", FK_DEMO_MODEL, NULL);
  g_clear_pointer(&s->engine, fk_engine_unref);
  s->engine = fk_engine_new(o, &error);
  fuzz_check(error, s->engine != NULL);
  if (!s->engine) g_assert_cmpint(error->code, ==, FK_ERROR_MEMORY); /* max-vram */
  if (s->engine && !kept) kept = fk_engine_ref(s->engine);
}

static void count_steps(const char *stage, int64_t current, int64_t total, void *user_data) {
  g_assert_true(stage && current >= 0 && current <= total);
  if (user_data && !strcmp(stage, "step") && current == 1) g_cancellable_cancel(user_data);
}

static void at_most(FkSettings *settings, const char *name, int most) {
  g_autofree char *text = g_strdup_printf("%d", most);
  const double value = g_ascii_strtod(fk_settings_get(settings, name), NULL);
  if (value > most || (value < 1 && !strcmp(name, "max-area"))) fk_settings_set(settings, name, text, NULL);
}

/* Settings under which a call writes no file and ends soon. (transfer full) */
static FkSettings *tame(const FkSettings *settings) {
  FkSettings *t = fk_settings_copy(settings);
  const char *trace = fk_settings_get(t, "trace-file");
  if (trace) fk_settings_set(t, "trace-file", *trace ? "/dev/null" : "", NULL);
  at_most(t, "steps", 24);
  at_most(t, "max-area", 16384);
  return t;
}

static void output_size(State *s, int w, int h) {
  g_autoptr(GError) error = NULL;
  int ow = -1, oh = -1;
  const bool ok = fk_engine_output_size(s->engine, s->settings, w, h, &ow, &oh, &error);
  fuzz_check(error, ok);
  g_assert_true(!ok || (ow > 0 && oh > 0 && w > 0 && h > 0));
  g_assert_true(ok || error->code == FK_ERROR_OPTION_BAD || error->code == FK_ERROR_SHAPE);
}

static void check_result(const FkResult *r) {
  const FkTextRead *reads[] = {&r->clip, &r->t5, &r->negative_clip, &r->negative_t5};
  bool cut = false;
  for (int i = 0; i < 4; i++) {
    g_assert_true(reads[i]->read <= reads[i]->tokens);
    cut |= reads[i]->read < reads[i]->tokens;
  }
  g_assert_true(r->truncated == cut);
  g_assert_true(r->width % 16 == 0 && r->height % 16 == 0 && r->evaluations > 0 && r->skipped < r->evaluations);
}

/* Frames with memory of their own, exactly as large as they say, then made wrong as `flags` asks. */
static void edit(State *s, int n, int w, int h, int channels, int flags) {
  g_autoptr(GError) error = NULL;
  g_autoptr(GPtrArray) blocks = g_ptr_array_new_with_free_func(g_free);
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  g_autoptr(FkSettings) settings = tame(s->settings);
  FkJob jobs[FRAMES] = {{{0}}};
  if (n > FRAMES && n <= FK_FRAMES) n = FRAMES;
  int ow = w, oh = h;
  if (!fk_engine_output_size(s->engine, settings, w, h, &ow, &oh, NULL)) ow = w, oh = h;
  const bool small =
      w > 0 && h > 0 && channels > 0 && channels < 8 && (int64_t)w * h <= PIXELS && (int64_t)ow * oh <= PIXELS;
  for (int i = 0; i < n && i < FRAMES; i++) {
    const size_t in = (size_t)w * (size_t)channels, out = (size_t)ow * (size_t)channels;
    jobs[i] = (FkJob){.in = {NULL, w, h, channels, in}, .out = {NULL, ow, oh, channels, out}, .settings = settings};
    if (!small) continue;
    g_ptr_array_add(blocks, jobs[i].in.data = g_malloc0(in * (size_t)h));
    g_ptr_array_add(blocks, jobs[i].out.data = g_malloc0(out * (size_t)oh));
  }
  FkJob *last = &jobs[CLAMP(n, 1, FRAMES) - 1];
  if (flags & IN_PLACE) last->out = jobs[0].in;
  if (flags & SAME_OUT && n > 1) last->out = jobs[0].out;
  if (flags & NO_IN) last->in.data = NULL;
  if (flags & NO_OUT) last->out.data = NULL;
  if (flags & SHORT_IN) last->in.stride--;
  if (flags & SHORT_OUT) last->out.stride--;
  if (flags & WRONG_SIZE) last->out.height++;
  if (flags & OTHER_SETTINGS && s->second) last->settings = s->second;
  if (flags & NO_SETTINGS) last->settings = NULL;
  if (flags & CANCELLED) g_cancellable_cancel(cancellable);
  const bool ok =
      fk_engine_edit(s->engine, jobs, n, cancellable, count_steps, flags & STOPS ? cancellable : NULL, &error);
  fuzz_check(error, ok);
  for (int i = 0; ok && i < n; i++) check_result(&jobs[i].result);
  const bool edits = !strcmp(fk_settings_get(settings, "task"), "edit");
  const bool wrong = flags & (NO_OUT | SHORT_OUT | WRONG_SIZE | NO_SETTINGS) || (flags & SAME_OUT && n > 1) ||
                     (edits && flags & (NO_IN | SHORT_IN | IN_PLACE));
  g_assert_true(!ok || n == 0 || (small && !wrong));
}

/* ---- Lines ---- */

/* Calls that walk the model. */
static void walk(State *s, char command, const int v[5]) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) settings = tame(s->settings);
  FkPlan plan;
  size_t count = 0;
  bool ok = true;
  if (s->budget-- <= 0) return;
  if (command == 'p') ok = fk_plan(FK_DEMO_MODEL, s->options, settings, v[0], v[1], v[2], &plan, &error);
  if (command == 'p' && ok) g_assert_true(plan.evaluations > 0 && plan.arena_bytes > 0);
  if (command == 'e' && s->engine) edit(s, v[0], v[1], v[2], v[3], v[4]);
  if (command == 'w' && s->engine) ok = fk_engine_warmup(s->engine, settings, v[0], v[1], NULL, &error);
  if (command == 'l' && s->engine) ok = fk_engine_load_for(s->engine, settings, NULL, count_steps, NULL, &error);
  if (command == 'r' && s->engine) {
    g_autofree FkProfileRow *rows = fk_engine_profile(s->engine, settings, v[0], v[1], &count, &error);
    ok = rows != NULL;
    g_assert_true(ok == (count > 0));
  }
  fuzz_check(error, ok);
}

static void command(State *s, char *line) {
  g_autoptr(GError) error = NULL;
  int v[5] = {0};
  char *equals = strchr(line, '=');
  if (equals) {
    *equals = 0;
    set(s, line, equals + 1);
    return;
  }
  sscanf(line + (*line != 0), "%9d %9d %9d %9d %9d", &v[0], &v[1], &v[2], &v[3], &v[4]);
  switch (*line) {
  case 'o': open_engine(s); break;
  case 'n': g_clear_pointer(&s->engine, fk_engine_unref); break;
  case 'i': check_pairs(fk_settings_idle(s->settings)); break;
  case 'b':
    g_clear_pointer(&s->second, fk_settings_free);
    s->second = tame(s->settings);
    g_assert_true(fk_settings_batchable(s->second, s->second));
    break;
  case 'c': {
    const bool ok = fk_settings_check(s->settings, &error);
    fuzz_check(error, ok);
    break;
  }
  case 's':
    if (s->engine) output_size(s, v[0], v[1]);
    break;
  case 'a':
    if (s->engine) check_pairs(fk_engine_active(s->engine, s->settings));
    break;
  case 'l':
  case 'p':
  case 'e':
  case 'w':
  case 'r': walk(s, *line, v); break;
  default: set(s, line, NULL);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size > LONGEST) return -1;
  g_autofree char *text = g_strndup((const char *)data, size);
  g_auto(GStrv) lines = g_strsplit(text, "\n", 0);
  State s = {.options = fk_options_new(), .settings = fk_settings_new(), .budget = CALLS};
  fk_settings_set(s.settings, "steps", "2", NULL);
  fk_settings_set(s.settings, "max-area", "4096", NULL);
  if (kept) kept->max_vram = 0; /* the limits of one input are not the next one's */
  if (*text == 'n') g_clear_pointer(&kept, fk_engine_unref);
  for (int i = 0; lines[i]; i++) command(&s, lines[i]);
  g_clear_pointer(&s.engine, fk_engine_unref);
  g_clear_pointer(&s.second, fk_settings_free);
  fk_settings_free(s.settings);
  fk_options_free(s.options);
  return 0;
}
