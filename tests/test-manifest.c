/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests: what they say, what makes two of them differ, ids, the way back into options and settings, texts that are
 * none, and the hashes of a model's files. On the null backend, whose pixels are repeatable. */
#include "manifest.h"
#include "engine.h"
#include "hash.h"
#include "test-files.h"

#include <json-glib/json-glib.h>
#include <unistd.h>

enum { SIDE = 32, STRIDE = SIDE * 3 + 5 };

typedef struct {
  uint8_t in[SIDE * STRIDE], out[SIDE * STRIDE];
  FkJob job;
} Frame;

static FkEngine *open_null(const char *model) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "backend", "null", NULL);
  fk_options_set(options, "model-path", model, NULL);
  FkEngine *engine = fk_engine_open(options, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  return engine;
}

static FkSettings *small(void) {
  FkSettings *s = fk_settings_new();
  fk_settings_set(s, "steps", "2", NULL);
  fk_settings_set(s, "max-area", "1024", NULL);
  fk_settings_set(s, "prompt", "say \"夜\"\n\\ now", NULL);
  return s;
}

/* Pixels that depend on `salt`; what lies between the rows depends on it too and is no pixel. */
static void frame_init(Frame *f, const FkSettings *settings, int salt) {
  for (size_t i = 0; i < sizeof f->in; i++) f->in[i] = (uint8_t)((int)(i * 7) + salt * (i % STRIDE >= SIDE * 3));
  f->job = (FkJob){.in = {f->in, SIDE, SIDE, 3, STRIDE}, .out = {f->out, SIDE, SIDE, 3, STRIDE}, .settings = settings};
}

static char *manifest_of(FkEngine *engine, Frame *f) {
  g_autoptr(GError) error = NULL;
  fk_engine_edit(engine, &f->job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  char *text = fk_manifest(engine, &f->job, &error);
  g_assert_no_error(error);
  return text;
}

static char *id_of(FkEngine *engine, Frame *f) {
  g_autoptr(GError) error = NULL;
  char *id = fk_manifest_id(engine, &f->job, &error);
  g_assert_no_error(error);
  g_assert_cmpuint(strlen(id), ==, 64);
  return id;
}

static JsonObject *object_in(JsonParser *parser, const char *text) {
  g_autoptr(GError) error = NULL;
  json_parser_load_from_data(parser, text, -1, &error);
  g_assert_no_error(error);
  return json_node_get_object(json_parser_get_root(parser));
}

static void says(void) {
  static const char *const members[] = {"fluxkontext-manifest",
                                        "id",
                                        "input",
                                        "result",
                                        "settings",
                                        "options",
                                        "asked",
                                        "switches",
                                        "ran",
                                        "model",
                                        "loras",
                                        "class",
                                        "device",
                                        "versions",
                                        "times"};
  g_autoptr(FkEngine) engine = open_null(NULL);
  g_autoptr(FkSettings) settings = small();
  g_autofree Frame *f = g_new(Frame, 1);
  frame_init(f, settings, 0);
  g_autofree char *text = manifest_of(engine, f), *id = id_of(engine, f), *class = fk_engine_class(engine);
  g_autoptr(JsonParser) parser = json_parser_new();
  JsonObject *o = object_in(parser, text), *in = json_object_get_object_member(o, "input"),
             *set = json_object_get_object_member(o, "settings"), *ran = json_object_get_object_member(o, "ran");
  g_autoptr(GList) names = json_object_get_members(o);
  GList *name = names;
  for (size_t i = 0; i < G_N_ELEMENTS(members); i++, name = name->next) g_assert_cmpstr(name->data, ==, members[i]);
  g_assert_null(name);
  g_assert_cmpstr(json_object_get_string_member(o, "id"), ==, id);
  g_assert_cmpstr(json_object_get_string_member(o, "class"), ==, class);
  g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
  for (int y = 0; y < SIDE; y++) g_checksum_update(sum, f->in + (size_t)y * STRIDE, SIDE * 3);
  g_assert_cmpstr(json_object_get_string_member(in, "sha256"), ==, g_checksum_get_string(sum));
  g_assert_cmpint(json_object_get_int_member(in, "width"), ==, SIDE);
  g_assert_cmpstr(json_object_get_string_member(set, "prompt"), ==, fk_settings_get(settings, "prompt"));
  g_assert_true(json_object_get_null_member(set, "negative-prompt"));
  g_assert_cmpstr(json_object_get_string_member(set, "step-cache"), ==, "none");
  g_assert_false(json_object_has_member(set, "trace-file"));
  g_assert_cmpint(json_object_get_int_member(ran, "evaluations"), ==, 2);
  g_assert_cmpstr(json_object_get_string_member(ran, "mask"), ==, "11");
  g_assert_cmpstr(json_object_get_string_member(json_object_get_object_member(o, "options"), "backend"), ==, "null");
  size_t n;
  const FkProperty *p = fk_properties(&n);
  for (size_t i = 0; i < n; i++)
    if (p[i].scope == FK_SCOPE_SETTING && strcmp(p[i].name, "trace-file"))
      g_assert_true(json_object_has_member(set, p[i].name));
}

/* What lay beside the picture is part of the record. */
static void says_beside(void) {
  uint8_t bytes[2 * 3] = {255, 0, 7, 8, 9, 10};
  const FkImage mask = {bytes, 2, 1, 1, 2}, references[2] = {{bytes, 2, 1, 3, 6}, {bytes, 1, 2, 3, 3}};
  g_autoptr(FkEngine) engine = open_null(NULL);
  g_autoptr(FkSettings) settings = small();
  g_autofree Frame *f = g_new(Frame, 1);
  frame_init(f, settings, 0);
  f->job.mask = &mask;
  f->job.references = references;
  f->job.n_references = 2;
  g_autofree char *text = manifest_of(engine, f), *sum = fk_manifest_pixels(&references[1]);
  g_autoptr(JsonParser) parser = json_parser_new();
  JsonObject *o = object_in(parser, text), *m = json_object_get_object_member(o, "mask");
  JsonArray *list = json_object_get_array_member(o, "references");
  g_assert_cmpint(json_object_get_int_member(m, "channels"), ==, 1);
  g_assert_cmpint(json_array_get_length(list), ==, 2);
  g_assert_cmpint(json_object_get_int_member(json_array_get_object_element(list, 1), "height"), ==, 2);
  g_assert_cmpstr(json_object_get_string_member(json_array_get_object_element(list, 1), "sha256"), ==, sum);
}

/* Two runs differ in "times" alone, whatever lies between the rows of the images. */
static void repeats(void) {
  g_autoptr(FkEngine) engine = open_null(NULL);
  g_autoptr(FkSettings) settings = small();
  g_autofree Frame *a = g_new(Frame, 1), *b = g_new(Frame, 1);
  frame_init(a, settings, 0);
  frame_init(b, settings, 1);
  g_autofree char *one = manifest_of(engine, a), *two = manifest_of(engine, b);
  *strstr(one, "\"times\"") = *strstr(two, "\"times\"") = 0;
  g_assert_cmpstr(one, ==, two);
}

static void ids(void) {
  static const struct {
    const char *name, *value;
    bool same;
  } cases[] = {{"seed", "1", false},          {"prompt", "other", false},    {"guidance", "3", false},
               {"guidance", "2.50", true},    {"preset", "exact", false},    {"preset", "fast", false},
               {"prompt-cache", "off", true}, {"trace-file", "/x", true},    {"negative-prompt", "", false},
               {"step-cache", "none", true},  {"true-cfg-scale", "2", false}};
  g_autoptr(FkEngine) engine = open_null(NULL);
  g_autoptr(FkSettings) settings = small();
  g_autofree Frame *f = g_new(Frame, 1);
  frame_init(f, settings, 0);
  fk_settings_set(settings, "preset", "quality", NULL);
  g_autofree char *first = id_of(engine, f);
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(FkSettings) other = fk_settings_copy(settings);
    fk_settings_set(other, cases[i].name, cases[i].value, NULL);
    f->job.settings = other;
    g_autofree char *id = id_of(engine, f);
    if (g_str_equal(id, first) != cases[i].same) g_error("%s=%s", cases[i].name, cases[i].value);
  }
  f->job.settings = settings;
  f->in[STRIDE + 1] ^= 1;
  g_autofree char *pixel = id_of(engine, f);
  g_assert_cmpstr(pixel, !=, first);
  f->job.in = (FkImage){NULL, SIDE, SIDE, 3, 0};
  g_autofree char *none = id_of(engine, f);
  g_assert_cmpstr(none, !=, pixel);
  uint8_t bytes[2] = {0, 255};
  const FkImage mask = {bytes, 2, 1, 1, 2};
  f->job.mask = &mask;
  g_autofree char *masked = id_of(engine, f);
  bytes[0] = 9;
  g_autofree char *other = id_of(engine, f);
  g_assert_cmpstr(masked, !=, none);
  g_assert_cmpstr(masked, !=, other);
}

/* Where weights are and in which form they wait makes no other bytes, and so no other id; nor is it applied. */
static void places(void) {
  static const struct {
    const char *name, *value;
    bool same;
  } cases[] = {{"offload", "sequential", true},
               {"weight-storage", "file", true},
               {"max-vram", "30000000000", true},
               {"quantization", "fp8", false}};
  g_autoptr(FkSettings) settings = small();
  g_autofree Frame *f = g_new(Frame, 1);
  g_autofree char *first = NULL;
  frame_init(f, settings, 0);
  for (int i = -1; i < (int)G_N_ELEMENTS(cases); i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkOptions) options = fk_options_new(), back = fk_options_new();
    fk_options_set(options, "backend", "null", NULL);
    if (i >= 0) g_assert_true(fk_options_set(options, cases[i].name, cases[i].value, NULL));
    g_autoptr(FkEngine) engine = fk_engine_open(options, NULL, NULL, NULL, &error);
    g_assert_no_error(error);
    g_autofree char *id = id_of(engine, f), *text = manifest_of(engine, f);
    if (!first) first = g_strdup(id);
    if (i >= 0 && g_str_equal(id, first) != cases[i].same) g_error("%s=%s", cases[i].name, cases[i].value);
    g_assert_true(fk_manifest_apply(text, back, NULL, &error));
    g_assert_cmpstr(fk_options_get(back, "offload"), ==, "auto");
    g_assert_cmpstr(fk_options_get(back, "weight-storage"), ==, "auto");
  }
}

/* What ran comes back as it ran, whatever preset it came from. */
static void applied(void) {
  static const char *const sets[][4] = {{"preset", "exact"},
                                        {"preset", "quality"},
                                        {"preset", "balanced"},
                                        {"preset", "fast"},
                                        {"preset", "few-step", "steps", "0"},
                                        {"preset", "sprint", "steps", "0"},
                                        {"preset", "fast", "step-cache", "dbcache"},
                                        {"preset", "fast", "token-merge", "0.5"},
                                        {"seed", "18446744073709551615", "negative-prompt", ""},
                                        {"step-cache", "first-block", "step-cache-threshold", "0.125"}};
  g_autoptr(FkEngine) engine = open_null(NULL);
  g_autofree Frame *f = g_new(Frame, 1);
  for (size_t i = 0; i < G_N_ELEMENTS(sets); i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkSettings) settings = small(), back = fk_settings_new();
    g_autoptr(FkOptions) options = fk_options_new();
    fk_settings_set(settings, "steps", "10", NULL);
    for (int k = 0; k < 4 && sets[i][k]; k += 2) {
      fk_settings_set(settings, sets[i][k], sets[i][k + 1], &error);
      g_assert_no_error(error);
    }
    frame_init(f, settings, 0);
    g_autofree char *text = manifest_of(engine, f);
    fk_settings_set(back, "trace-file", "mine", NULL);
    fk_manifest_apply(text, options, back, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(fk_settings_get(back, "trace-file"), ==, "mine");
    g_assert_cmpstr(fk_options_get(options, "backend"), ==, "null");
    fk_settings_set(back, "trace-file", NULL, NULL);
    FkTune a, b;
    g_assert_true(fk_tune_resolve(settings, engine->be, &a, NULL) && fk_tune_resolve(back, engine->be, &b, NULL));
    g_assert_cmpstr(a.prompt, ==, b.prompt);
    g_assert_cmpstr(a.negative_prompt, ==, b.negative_prompt);
    g_assert_cmpstr(a.step_cache.mask, ==, b.step_cache.mask);
    g_assert_cmpstr(a.edited.mask, ==, b.edited.mask);
    a.prompt = b.prompt = a.negative_prompt = b.negative_prompt = a.step_cache.mask = b.step_cache.mask = NULL;
    a.edited.mask = b.edited.mask = NULL;
    g_assert_cmpmem(&a, sizeof a, &b, sizeof b);
  }
}

/* Files, a device and limits of the machine that ran are not another machine's. */
static void not_applied(void) {
  static const char text[] = "{\"fluxkontext-manifest\": 1, \"settings\": {\"trace-file\": \"/etc/passwd\", "
                             "\"loras\": \"/etc/passwd\"}, \"options\": {\"model-path\": \"/etc\", \"threads\": \"7\", "
                             "\"cuda-device-id\": \"3\", \"max-vram\": \"1\"}}";
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(FkSettings) settings = fk_settings_new();
  fk_manifest_apply(text, options, settings, &error);
  g_assert_no_error(error);
  g_assert_null(fk_settings_get(settings, "trace-file"));
  g_assert_null(fk_settings_get(settings, "loras"));
  g_assert_null(fk_options_get(options, "model-path"));
  g_assert_cmpstr(fk_options_get(options, "threads"), ==, "0");
  g_assert_cmpstr(fk_options_get(options, "cuda-device-id"), ==, "-1");
  g_assert_cmpstr(fk_options_get(options, "max-vram"), ==, "0");
}

static void refused(void) {
  static const char *const cases[][2] = {
      {"", "manifest"},
      {"[1]", "manifest"},
      {"{\"a\": 1", "manifest"},
      {"{}", "fluxkontext-manifest"},
      {"{\"fluxkontext-manifest\": 2}", "form 2; this version reads 1"},
      {"{\"fluxkontext-manifest\": \"1\"}", "with a number"},
      {"{\"fluxkontext-manifest\": 1}", "options"},
      {"{\"fluxkontext-manifest\": 1, \"options\": [], \"settings\": {}}", "options"},
      {"{\"fluxkontext-manifest\": 1, \"options\": {}, \"settings\": {\"steps\": 4}}", "steps: expected a text"},
      {"{\"fluxkontext-manifest\": 1, \"options\": {}, \"settings\": {\"steps\": \"no\"}}", "steps: \"no\""},
      {"{\"fluxkontext-manifest\": 1, \"options\": {}, \"settings\": {\"warp\": \"9\"}}", "\"warp\""},
      {"{\"fluxkontext-manifest\": 1, \"options\": {\"steps\": \"4\"}, \"settings\": {}}", "no option is called"}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkOptions) options = fk_options_new();
    g_autoptr(FkSettings) settings = fk_settings_new();
    g_assert_false(fk_manifest_apply(cases[i][0], options, settings, &error));
    g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
    if (!strstr(error->message, cases[i][1])) g_error("%s: %s", cases[i][0], error->message);
  }
}

static void refused_jobs(void) {
  g_autoptr(FkEngine) engine = open_null(NULL);
  g_autoptr(FkSettings) settings = small();
  g_autofree Frame *f = g_new(Frame, 1);
  g_autoptr(GError) none = NULL, bad = NULL;
  frame_init(f, NULL, 0);
  g_assert_null(fk_manifest(engine, &f->job, &none));
  g_assert_error(none, FK_ERROR, FK_ERROR_OPTION_BAD);
  fk_settings_set(settings, "step-cache-mask", "1", NULL);
  f->job.settings = settings;
  g_assert_null(fk_manifest_id(engine, &f->job, &bad));
  g_assert_error(bad, FK_ERROR, FK_ERROR_OPTION_BAD);
}

/* The demo checkpoint by links, and one file of it that is our own. */
static char *linked_model(const char *name) {
  char *folder = scratch_path(name);
  g_auto(GStrv) files = fk_registry_checkpoint(FK_DEMO_MODEL);
  g_assert_cmpuint(g_strv_length(files), >, 10);
  for (char **file = files; *file; file++) {
    g_autofree char *from = g_build_filename(FK_DEMO_MODEL, *file, NULL), *to = g_build_filename(folder, *file, NULL),
                    *in = g_path_get_dirname(to);
    g_assert_cmpint(g_mkdir_with_parents(in, 0700), ==, 0);
    g_assert_cmpint(symlink(from, to), ==, 0);
  }
  return folder;
}

/* Each file once: a folder that gives one part is not another model. */
static void parts(void) {
  static const char *const others[] = {"vae-path", "clip-path", "t5-path", "tokenizer-path"};
  g_auto(GStrv) files = fk_registry_checkpoint(FK_DEMO_MODEL);
  for (size_t i = 0; i < G_N_ELEMENTS(others); i++) {
    g_autoptr(FkOptions) options = fk_options_new();
    g_autoptr(GError) error = NULL;
    g_assert_true(fk_options_set(options, "model-path", FK_DEMO_MODEL, NULL));
    g_assert_true(fk_options_set(options, others[i], FK_DEMO_MODEL, NULL));
    g_autofree char *opened = fk_registry_files(options);
    g_autofree char *text = fk_manifest_model(FK_DEMO_MODEL, opened, options, NULL, &error);
    g_assert_no_error(error);
    for (char **file = files; *file; file++) {
      g_autofree char *name = g_strdup_printf("\"%s\"", *file);
      const char *first = strstr(text, name);
      if (!first || strstr(first + 1, name)) g_error("%s: expected %s once in:\n%s", others[i], name, text);
    }
  }
}

static void swap_file(const char *folder, const char *end) {
  g_autofree char *path = g_build_filename(folder, "model_index.json", NULL), *text = NULL, *longer = NULL;
  g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
  longer = g_strconcat(text, end, NULL);
  g_unlink(path);
  g_assert_true(g_file_set_contents(path, longer, -1, NULL));
}

/* The same files have the same hash anywhere; another byte is another model; a file that changed under an engine is
 * an error and not a wrong hash. */
static void model(void) {
  g_autofree char *a = linked_model("a"), *b = linked_model("b"), *c = linked_model("c");
  swap_file(c, " ");
  g_autoptr(FkEngine) one = open_null(a), two = open_null(b), three = open_null(c);
  g_autoptr(FkSettings) settings = small();
  g_autoptr(GError) error = NULL;
  g_autofree Frame *f = g_new(Frame, 1);
  frame_init(f, settings, 0);
  g_autofree char *first = id_of(one, f), *text = manifest_of(one, f);
  swap_file(b, "\n");
  g_assert_null(fk_manifest_id(two, &f->job, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_MODEL_BAD);
  g_assert_nonnull(strstr(error->message, "changed since it was opened"));
  g_autofree char *third = id_of(three, f);
  g_assert_cmpstr(third, !=, first);
  g_autofree char *d = linked_model("d");
  g_autoptr(FkEngine) four = open_null(d);
  g_autofree char *fourth = id_of(four, f);
  g_assert_cmpstr(fourth, ==, first);
  /* What sha256sum prints. */
  g_autofree char *path = g_build_filename(FK_DEMO_MODEL, "vae", "config.json", NULL), *bytes = NULL;
  gsize size;
  g_assert_true(g_file_get_contents(path, &bytes, &size, NULL));
  g_autofree char *sum = g_compute_checksum_for_data(G_CHECKSUM_SHA256, (guchar *)bytes, size);
  g_assert_nonnull(strstr(text, sum));
}

/* Written at once by its first owner, then never read again. */
static void hashed_once(void) {
  g_autofree char *a = linked_model("once");
  g_autoptr(FkEngine) engine = open_null(a);
  g_autoptr(FkSettings) settings = small();
  g_autofree Frame *f = g_new(Frame, 1);
  frame_init(f, settings, 0);
  g_autofree char *first = id_of(engine, f);
  remove_tree(a);
  g_autofree char *again = id_of(engine, f);
  g_assert_cmpstr(again, ==, first);
}

static char *hash_of(const char *path, bool expect_sampled) {
  g_autoptr(GError) error = NULL;
  uint64_t bytes;
  bool sampled;
  char *hash = fk_hash_file(path, &bytes, &sampled, &error);
  g_assert_no_error(error);
  g_assert_true(sampled == expect_sampled);
  return hash;
}

static void put(const char *path, off_t at, char byte) {
  FILE *file = g_fopen(path, "r+b");
  g_assert_nonnull(file);
  fseeko(file, at, SEEK_SET);
  fputc(byte, file);
  g_assert_cmpint(fclose(file), ==, 0);
}

/* Large files: the edges whole, and the start of each MiB. */
static void large(void) {
  const off_t size = FK_HASH_WHOLE + 1000;
  static const off_t seen[] = {0, 1048575, 5 * 1048576, 5 * 1048576 + 4095, FK_HASH_WHOLE + 999, FK_HASH_WHOLE};
  g_autofree char *path = write_text("large", "x");
  g_assert_cmpint(truncate(path, FK_HASH_WHOLE), ==, 0);
  g_autofree char *whole = hash_of(path, false);
  put(path, 5 * 1048576 + 4096, 1);
  g_autofree char *other = hash_of(path, false);
  g_assert_cmpstr(whole, !=, other);
  g_assert_cmpint(truncate(path, size), ==, 0);
  g_autofree char *last = hash_of(path, true);
  for (size_t i = 0; i < G_N_ELEMENTS(seen); i++) {
    put(path, seen[i], 2);
    g_autofree char *now = hash_of(path, true);
    g_assert_cmpstr(now, !=, last);
    g_free(last);
    last = g_steal_pointer(&now);
  }
  g_assert_cmpint(truncate(path, size + 1), ==, 0);
  g_autofree char *longer = hash_of(path, true);
  g_assert_cmpstr(longer, !=, last);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  g_test_add_func("/manifest/says", says);
  g_test_add_func("/manifest/repeats", repeats);
  g_test_add_func("/manifest/ids", ids);
  g_test_add_func("/manifest/places", places);
  g_test_add_func("/manifest/applied", applied);
  g_test_add_func("/manifest/says/beside", says_beside);
  g_test_add_func("/manifest/not-applied", not_applied);
  g_test_add_func("/manifest/refused", refused);
  g_test_add_func("/manifest/refused-jobs", refused_jobs);
  g_test_add_func("/manifest/model", model);
  g_test_add_func("/manifest/parts", parts);
  g_test_add_func("/manifest/hashed-once", hashed_once);
  g_test_add_func("/manifest/large-files", large);
  const int status = g_test_run();
  scratch_close();
  return status;
}
