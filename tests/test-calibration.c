/* SPDX-License-Identifier: Apache-2.0 */
/* Static scales: a file made from one edit serves the next ones, what it cuts off is counted, its hash is in the
 * record; files of others, or that somebody wrote by hand, are refused with what is wrong in them. */
#include "fk.h"

#include "test-picture.h"

#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

typedef struct {
  char *folder, *path; /* a link to the model, and its calibration */
  char *text;
} Fixture;

/* fk_engine_new, or with its weights. */
static FkEngine *open_with(const char *model, const char *quantization, const char *path, bool load, GError **error) {
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "model-path", model, NULL);
  fk_options_set(options, "backend", "cpu", NULL);
  fk_options_set(options, "quantization", quantization, NULL);
  fk_options_set(options, "calibration-path", path, NULL);
  return load ? fk_engine_open(options, NULL, NULL, NULL, error) : fk_engine_new(options, error);
}

static FkSettings *settings_of(const char *steps) {
  FkSettings *s = fk_settings_new();
  fk_settings_set(s, "prompt", "make it night", NULL);
  fk_settings_set(s, "steps", steps, NULL);
  return s;
}

static FkImage photo(void) {
  g_autofree char *path = g_build_filename(FK_DEMO_PHOTOS, "coffee_256.png", NULL);
  return read_png(path);
}

static FkImage edit(FkEngine *engine, const FkImage *in, const char *steps, FkResult *result, char **manifest) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) settings = settings_of(steps);
  FkJob job = {.in = *in, .out = *in, .settings = settings};
  job.out.data = g_malloc0(in->stride * (size_t)in->height);
  fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  *result = job.result;
  if (manifest) *manifest = fk_manifest(engine, &job, &error);
  g_assert_no_error(error);
  return job.out;
}

/* The scales of one edit of two steps. (transfer full) */
static char *calibrate(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) engine = open_with(FK_DEMO_MODEL, "none", NULL, true, &error);
  g_autoptr(FkLayers) layers = fk_layers_new(engine, &error);
  g_autoptr(FkSettings) settings = settings_of("2");
  FkImage in = photo();
  FkJob job = {.in = in, .out = in, .settings = settings};
  g_assert_no_error(error);
  g_assert_null(fk_layers_calibration(layers, &error)); /* nothing was edited */
  g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
  g_clear_error(&error);
  job.out.data = g_malloc0(in.stride * (size_t)in.height);
  fk_layers_edit(layers, &job, 1, NULL, &error);
  g_assert_no_error(error);
  g_free(in.data);
  g_free(job.out.data);
  char *text = fk_layers_calibration(layers, &error);
  g_assert_no_error(error);
  return text;
}

static char *scales; /* calibrate's, for all cases */

static void set_up(Fixture *f, gconstpointer unused) {
  g_autoptr(GError) error = NULL;
  (void)unused;
  f->text = g_strdup(scales);
  f->folder = g_dir_make_tmp("calibration-XXXXXX", &error);
  f->path = g_build_filename(f->folder, "c.json", NULL);
  g_file_set_contents(f->path, f->text, -1, &error);
  g_assert_no_error(error);
}

static void tear_down(Fixture *f, gconstpointer unused) {
  (void)unused;
  g_remove(f->path);
  g_rmdir(f->folder);
  g_free(f->path);
  g_free(f->folder);
  g_free(f->text);
}

/* Every scale times `factor`. (transfer full) */
static char *scaled(const char *text, double factor) {
  g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
  for (char **p = lines; *p; p++) {
    char *colon = strstr(*p, "\": "), digits[G_ASCII_DTOSTR_BUF_SIZE];
    if (!g_str_has_prefix(*p, "  \"") || !colon) continue;
    char *rest = NULL;
    const double value = g_ascii_strtod(colon + 3, &rest) * factor;
    char *line =
        g_strdup_printf("%.*s\": %s%s", (int)(colon - *p), *p, g_ascii_dtostr(digits, sizeof digits, value), rest);
    g_free(*p);
    *p = line;
  }
  return g_strjoinv("\n", lines);
}

/* As near as scales that are measured (test-quantization.c has where the bounds come from), and nothing is cut off.
 * Scales eight times larger cost nothing either; 256 times smaller, numbers are cut off and the picture with them. */
static void edits(Fixture *f, gconstpointer unused) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) plain = open_with(FK_DEMO_MODEL, "none", NULL, true, &error);
  g_autoptr(FkEngine) engine = open_with(FK_DEMO_MODEL, "fp8-static", f->path, true, &error);
  FkImage in = photo();
  FkResult result;
  g_autofree char *first = NULL, *second = NULL;
  (void)unused;
  g_assert_no_error(error);
  FkImage want = edit(plain, &in, "4", &result, NULL), have = edit(engine, &in, "4", &result, &first);
  const double near = psnr(&want, &have);
  g_test_message("%.1f dB from the unquantised edit", near);
  g_assert_cmpfloat(near, >, 40);
  g_assert_cmpfloat(near, <, 62);
  g_assert_cmpint(result.saturated, ==, 0);
  g_autofree char *hash = g_compute_checksum_for_string(G_CHECKSUM_SHA256, f->text, -1);
  g_autofree char *member = g_strdup_printf("\"calibration\": \"%s\"", hash);
  g_assert_nonnull(strstr(first, member));
  g_assert_nonnull(strstr(first, "\"saturated\": 0"));
  g_free(have.data);

  g_autofree char *small = scaled(f->text, 1.0 / 256);
  g_file_set_contents(f->path, small, -1, &error);
  g_autoptr(FkEngine) cut = open_with(FK_DEMO_MODEL, "fp8-static", f->path, true, &error);
  g_assert_no_error(error);
  g_assert_true(cut != engine);
  have = edit(cut, &in, "4", &result, &second);
  g_assert_cmpint(result.saturated, >, 1000);
  g_assert_cmpfloat(psnr(&want, &have), <, near - 6);
  g_assert_cmpint(strncmp(strstr(first, "\"id\""), strstr(second, "\"id\""), 40), !=, 0);
  g_free(have.data);
  g_free(want.data);
  g_free(in.data);
}

/* Without a path it is looked for beside the model. */
static void beside(Fixture *f, gconstpointer unused) {
  g_autoptr(GError) error = NULL;
  g_autoptr(GDir) dir = g_dir_open(FK_DEMO_MODEL, 0, &error);
  g_autoptr(GPtrArray) links = g_ptr_array_new_with_free_func(g_free);
  (void)unused;
  g_assert_no_error(error);
  for (const char *name; (name = g_dir_read_name(dir));) {
    g_autofree char *target = g_build_filename(FK_DEMO_MODEL, name, NULL);
    char *link = g_build_filename(f->folder, name, NULL);
    g_assert_cmpint(symlink(target, link), ==, 0);
    g_ptr_array_add(links, link);
  }
  g_assert_null(open_with(f->folder, "fp8-static", NULL, false, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_MODEL_MISSING);
  g_assert_nonnull(strstr(error->message, "fluxkontext-calibrate"));
  g_clear_error(&error);
  g_autofree char *path = fk_calibration_path(f->folder), *file = fk_calibration_path("a/model.gguf");
  g_assert_cmpstr(file, ==, "a/model.gguf.calibration.json");
  g_file_set_contents(path, f->text, -1, &error);
  g_autoptr(FkEngine) engine = open_with(f->folder, "fp8-static", NULL, false, &error);
  g_assert_no_error(error);
  g_autoptr(FkEngine) same = open_with(f->folder, "fp8-static", NULL, false, &error);
  g_assert_true(same == engine);
  g_remove(path);
  g_file_set_contents(path, f->text, -1, &error); /* another file */
  g_autoptr(FkEngine) other = open_with(f->folder, "fp8-static", NULL, false, &error);
  g_assert_no_error(error);
  g_assert_true(other != engine);
  g_remove(path);
  for (guint i = 0; i < links->len; i++) g_remove(links->pdata[i]);
}

#define LAYER "transformer_blocks.0.attn.to_out.0"

/* The line of LAYER replaced; NULL: left out. (transfer full) */
static char *with_layer(const char *text, const char *line) {
  g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
  g_autoptr(GString) s = g_string_new(NULL);
  for (char **p = lines; *p; p++) {
    const bool it = g_str_has_prefix(*p, "  \"" LAYER "\"");
    if (!it || line) g_string_append_printf(s, "%s\n", it ? line : *p);
  }
  return g_string_free(g_steal_pointer(&s), FALSE);
}

static void refused(const Fixture *f, const char *text, FkError code, const char *what) {
  g_autoptr(GError) error = NULL;
  g_file_set_contents(f->path, text, -1, &error);
  g_assert_no_error(error);
  FkEngine *engine = open_with(FK_DEMO_MODEL, "fp8-static", f->path, false, &error);
  g_assert_null(engine);
  g_assert_error(error, FK_ERROR, (int)code);
  if (!strstr(error->message, what) || !strstr(error->message, "c.json"))
    g_error("\"%s\" lacks \"%s\" or the file's name", error->message, what);
}

static void refusals(Fixture *f, gconstpointer unused) {
  static const struct {
    const char *line, *what;
  } lines[] = {{"  \"" LAYER "\": 0,", "found 0"},
               {"  \"" LAYER "\": -1.5,", "found -1.5"},
               {"  \"" LAYER "\": 1e300,", "found 1e300"},
               {"  \"" LAYER "\": 1e999,", "found 1e999"},
               {"  \"" LAYER "\": \"0.1\",", "found \"0.1\""},
               {"  \"" LAYER "\": [0.1],", LAYER},
               {"  \"" LAYER "\": null,", "found null"},
               {"  \"" LAYER "\": NaN,", "c.json"},
               {"  \"" LAYER "\": 0.1, \"" LAYER "\": 0.1,", "c.json"},
               {"  \"" LAYER "\": 0.1, \"other\": 0.1,", "\"other\""}};
  g_autofree char *without = with_layer(f->text, NULL);
  (void)unused;
  refused(f, without, FK_ERROR_MODEL_MISMATCH, "layer \"" LAYER "\" is missing");
  for (size_t i = 0; i < G_N_ELEMENTS(lines); i++) {
    g_autofree char *text = with_layer(f->text, lines[i].line);
    refused(f, text, strstr(lines[i].line, "other") ? FK_ERROR_MODEL_MISMATCH : FK_ERROR_MODEL_BAD, lines[i].what);
  }
  g_autofree char *other = g_strdup(f->text), *version = g_strdup(f->text), *kind = g_strdup(f->text);
  char *hash = strstr(other, "\"model\": \"") + strlen("\"model\": \"");
  *hash = *hash == '0' ? '1' : '0';
  refused(f, other, FK_ERROR_MODEL_MISMATCH, "of another model");
  *strstr(version, ": 1,") = ' ';
  refused(f, version, FK_ERROR_MODEL_BAD, "c.json");
  memcpy(strstr(kind, "layers"), "LAYERS", 6);
  refused(f, kind, FK_ERROR_MODEL_BAD, "\"layers\"");
  g_autoptr(GString) deep = g_string_new("{\"layers\": ");
  for (int i = 0; i < 100000; i++) g_string_append_c(deep, '[');
  refused(f, deep->str, FK_ERROR_MODEL_BAD, "c.json");
  refused(f, "", FK_ERROR_MODEL_BAD, "c.json");
  refused(f, "[]", FK_ERROR_MODEL_BAD, "c.json");
  refused(f, "{}", FK_ERROR_MODEL_BAD, "expected 1, found nothing");
}

/* A packed model has the scales inside, and its edits have the bytes of the files with them. */
static void packed(Fixture *f, gconstpointer unused) {
  (void)unused;
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  g_autofree char *path = g_build_filename(f->folder, "packed.safetensors", NULL);
  fk_options_set(options, "model-path", FK_DEMO_MODEL, NULL);
  fk_options_set(options, "quantization", "fp8-static", NULL);
  g_assert_false(fk_pack(options, 4, path, NULL, NULL, NULL, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_MODEL_MISSING);
  g_clear_error(&error);
  fk_options_set(options, "calibration-path", f->path, NULL);
  fk_pack(options, 4, path, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  FkImage in = photo();
  FkResult expected, found;
  g_autoptr(FkEngine) engine = open_with(FK_DEMO_MODEL, "fp8-static", f->path, true, &error);
  g_autoptr(FkEngine) other = open_with(path, "auto", NULL, true, &error);
  g_assert_no_error(error);
  FkImage a = edit(engine, &in, "2", &expected, NULL), b = edit(other, &in, "2", &found, NULL);
  g_assert_cmpmem(a.data, a.stride * (size_t)a.height, b.data, b.stride * (size_t)b.height);
  g_assert_cmpint(found.saturated, ==, expected.saturated);
  g_assert_null(open_with(path, "fp8-static", f->path, false, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_MODEL_MISMATCH);
  g_clear_error(&error);
  g_autoptr(FkLayers) layers = fk_layers_new(other, &error);
  g_assert_null(layers ? fk_layers_calibration(layers, &error) : NULL);
  g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
  g_free(a.data);
  g_free(b.data);
  g_free(in.data);
  g_unlink(path);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scales = calibrate();
  g_test_add("/calibration/edits", Fixture, NULL, set_up, edits, tear_down);
  g_test_add("/calibration/beside", Fixture, NULL, set_up, beside, tear_down);
  g_test_add("/calibration/packed", Fixture, NULL, set_up, packed, tear_down);
  g_test_add("/calibration/refusals", Fixture, NULL, set_up, refusals, tear_down);
  const int status = g_test_run();
  g_free(scales);
  return status;
}
