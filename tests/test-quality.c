/* SPDX-License-Identifier: Apache-2.0 */
/* The quality lab: metrics against scikit-image and numpy, results that survive
 * a broken write, settings files, and the comparison with the rival. What it
 * says of the model is docs/quality.md, not a test. */
#include "json.h"
#include "quality-metrics.h"
#include "quality-search.h"
#include "quality-table.h"

#include <glib/gstdio.h>
#include <math.h>
#include <string.h>

static char *golden(const char *name) {
  return g_build_filename(FK_GOLDEN, "quality", name, NULL);
}

static FkImage picture(const char *name) {
  g_autofree char *file = g_strconcat(name, ".png", NULL), *path = golden(file);
  g_autoptr(GError) error = NULL;
  FkImage image;
  quality_picture_read(path, &image, &error);
  g_assert_no_error(error);
  return image;
}

/* metrics.txt has nine decimals. */
static void metrics(void) {
  g_autofree char *path = golden("metrics.txt"), *text = NULL;
  g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
  g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
  const FkImage a = picture("a");
  int seen = 0;
  for (char **line = lines; *line; line++) {
    g_auto(GStrv) word = g_strsplit(*line, " ", -1);
    if (**line == '#' || g_strv_length(word) != 4) continue;
    const FkImage b = picture(word[0]);
    const double want[] = {g_ascii_strtod(word[1], NULL), g_ascii_strtod(word[2], NULL), g_ascii_strtod(word[3], NULL)};
    g_assert_cmpfloat_with_epsilon(quality_psnr(a.data, b.data, a.width, a.height), want[0], 2e-9);
    g_assert_cmpfloat_with_epsilon(quality_ssim(a.data, b.data, a.width, a.height), want[1], 2e-9);
    g_assert_cmpfloat_with_epsilon(quality_edges(a.data, b.data, a.width, a.height), want[2], 2e-9);
    g_free(b.data);
    seen++;
  }
  g_assert_cmpint(seen, ==, 4);
  g_free(a.data);
}

static void identical(void) {
  const FkImage a = picture("a");
  g_assert_cmpfloat(quality_psnr(a.data, a.data, a.width, a.height), ==, QUALITY_IDENTICAL);
  g_assert_cmpfloat(quality_edges(a.data, a.data, a.width, a.height), ==, QUALITY_IDENTICAL);
  g_assert_cmpfloat_with_epsilon(quality_ssim(a.data, a.data, a.width, a.height), 1, 1e-12);
  g_free(a.data);
}

/* A block counts from a mean of more than 12, whole or cut off by an edge; detail alone does not. */
static void changed(void) {
  enum { WIDTH = 20, HEIGHT = 12 };
  uint8_t a[WIDTH * HEIGHT * 3], b[sizeof a];
  memset(a, 100, sizeof a);
  memcpy(b, a, sizeof a);
  g_assert_cmpfloat(quality_changed(a, b, WIDTH, HEIGHT), ==, 0);
  for (int y = 0; y < 8; y++)
    for (int x = 8; x < 16; x++) b[(y * WIDTH + x) * 3 + 1] = 112;
  g_assert_cmpfloat(quality_changed(a, b, WIDTH, HEIGHT), ==, 0);
  b[9 * 3 + 1] = 113;
  g_assert_cmpfloat_with_epsilon(quality_changed(a, b, WIDTH, HEIGHT), 64.0 / (WIDTH * HEIGHT), 1e-12);
  for (int y = 8; y < 12; y++)
    for (int x = 16; x < 20; x++) b[(y * WIDTH + x) * 3 + 2] = 60;
  g_assert_cmpfloat_with_epsilon(quality_changed(a, b, WIDTH, HEIGHT), 80.0 / (WIDTH * HEIGHT), 1e-12);
  for (int y = 0; y < 8; y++)
    for (int x = 0; x < 8; x++) b[(y * WIDTH + x) * 3] = x % 2 ? 200 : 0;
  g_assert_cmpfloat_with_epsilon(quality_changed(a, b, WIDTH, HEIGHT), 80.0 / (WIDTH * HEIGHT), 1e-12);
}

static void success(void) {
  g_assert_true(quality_success(26.1, 40));
  g_assert_false(quality_success(26, 40));
  g_assert_true(quality_success(16.2, 22));
  g_assert_false(quality_success(16, 22));
}

/* The judge's list: as many photographs for each of its tiers, all there and of the size that the model knows. */
static void judge_cases(void) {
  g_autofree char *path = g_build_filename(FK_GOLDEN, "..", "quality", "judge", "cases.json", NULL);
  g_autoptr(GError) error = NULL;
  g_autoptr(GPtrArray) cases = quality_cases_read(path, &error);
  g_assert_no_error(error);
  int count[QUALITY_TIERS] = {0};
  for (guint i = 0; i < cases->len; i++) {
    const QualityCase *c = cases->pdata[i];
    FkImage image;
    g_assert_true(quality_picture_read(c->input, &image, &error));
    g_assert_no_error(error);
    g_assert_cmpint(image.width, ==, 256);
    g_assert_cmpint(image.height, ==, 256);
    g_assert_null(c->target);
    g_free(image.data);
    count[c->tier]++;
  }
  g_assert_cmpint(count[QUALITY_LOCAL], ==, 24);
  g_assert_cmpint(count[QUALITY_GLOBAL], ==, 24);
  g_assert_cmpint(count[QUALITY_OPEN], ==, 24);
  g_assert_cmpuint(cases->len, ==, 72);
  g_autofree char *list = g_build_filename(FK_GOLDEN, "..", "quality", "judge", "settings.txt", NULL);
  g_autoptr(GPtrArray) settings = quality_settings_read(list, &error);
  g_assert_no_error(error);
  for (guint i = 0; i < settings->len; i++) {
    g_autoptr(FkSettings) probe = quality_settings_apply(settings->pdata[i], cases->pdata[0], &error);
    g_assert_no_error(error);
  }
}

/* ---- Results ---- */

static QualityRow *row_new(const char *setting, const char *text, const char *id, double psnr, double flop) {
  QualityRow *row = g_new0(QualityRow, 1);
  row->setting = g_strdup(setting);
  row->text = g_strdup(text);
  row->id = g_strdup(id);
  row->tier = QUALITY_OPEN;
  row->psnr = psnr;
  row->ssim = 0.1 + 0.2; /* needs all 17 digits */
  row->edges = 31.5;
  row->answer = -1;
  row->changed = 0.25;
  row->success = -1;
  row->flop = 2 * flop;
  row->model_flop = flop;
  row->evaluations = 4;
  row->skipped = 1;
  strcpy(row->mask, "1101");
  return row;
}

static char *scratch_file(const char *name) {
  g_autofree char *folder = g_dir_make_tmp("fk-quality-XXXXXX", NULL);
  return g_build_filename(folder, name, NULL);
}

static void scratch_remove(const char *path) {
  g_autofree char *folder = g_path_get_dirname(path);
  g_remove(path);
  g_rmdir(folder);
}

static void round_trip(void) {
  QualityRow *row = row_new("reuse \"2\"\n", "context-reuse=2", "open-coffee-0", 33.25, 1e11);
  g_autofree char *line = quality_row_to_json(row);
  QualityRow *again = quality_row_from_json(line);
  g_assert_null(strchr(line, '\n'));
  g_assert_nonnull(again);
  g_assert_cmpstr(again->setting, ==, row->setting);
  g_assert_cmpstr(again->text, ==, row->text);
  g_assert_cmpstr(again->id, ==, row->id);
  g_assert_cmpstr(again->mask, ==, row->mask);
  g_assert_cmpint(again->tier, ==, QUALITY_OPEN);
  g_assert_cmpfloat(again->ssim, ==, row->ssim);
  g_assert_cmpfloat(again->model_flop, ==, row->model_flop);
  g_assert_cmpint(again->success, ==, -1);
  g_assert_cmpfloat(again->changed, ==, 0.25);
  g_assert_cmpint(again->skipped, ==, 1);
  quality_row_free(row);
  quality_row_free(again);
  g_assert_null(quality_row_from_json("{\"setting\": \"a\"}"));
  g_assert_null(quality_row_from_json("[]"));
  row = quality_row_from_json(
      "{\"setting\": \"a\", \"text\": \"\", \"case\": \"b\", \"tier\": \"local\", \"mask\": \"1\"}");
  g_assert_nonnull(row);
  g_assert_cmpint(row->tier, ==, QUALITY_LOCAL);
  g_assert_cmpfloat(row->changed, ==, -1);
  quality_row_free(row);
}

/* Whatever stands in texts and numbers, and in whatever locale, the writer gives JSON that reads back. */
static void json(void) {
  g_autoptr(GString) text = g_string_new(NULL);
  Json j = {.text = text};
  json_open(&j, NULL, '{');
  json_text(&j, "a \"name\"\n", "\\ \x1b[31m \xff end");
  json_open(&j, "numbers", '[');
  json_number(&j, NULL, 0.5);
  json_number(&j, NULL, 0.1 + 0.2);
  json_number(&j, NULL, NAN);
  json_number(&j, NULL, -INFINITY);
  json_count(&j, NULL, G_MAXINT64);
  json_close(&j, ']');
  json_open(&j, "empty", '{');
  json_close(&j, '}');
  json_close(&j, '}');
  g_assert_cmpstr(text->str, ==,
                  "{\n \"a \\\"name\\\"\\u000a\": \"\\\\ \\u001b[31m \xef\xbf\xbd end\",\n \"numbers\": [\n  0.5,\n  "
                  "0.30000000000000004,\n  null,\n  null,\n  9223372036854775807],\n \"empty\": {}}\n");
}

/* A run that was cut off in the middle of a line: the line is lost, the others
 * stay, and what follows is whole. */
static void resume(void) {
  g_autoptr(GError) error = NULL;
  g_autofree char *path = scratch_file("results.jsonl"), *text = NULL;
  QualityRow *one = row_new("a", "steps=4", "x", 20, 1), *two = row_new("a", "steps=4", "y", 21, 1);
  g_autoptr(GPtrArray) none = quality_rows_load(path, &error);
  g_assert_cmpuint(none->len, ==, 0);
  g_assert_true(quality_rows_append(path, one, &error) && quality_rows_append(path, two, &error));
  g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
  g_assert_true(g_file_set_contents(path, text, (gssize)strlen(text) - 20, NULL));
  g_autoptr(GPtrArray) cut = quality_rows_load(path, &error);
  g_assert_no_error(error);
  g_assert_cmpuint(cut->len, ==, 1);
  g_assert_nonnull(quality_rows_find(cut, "steps=4", "x"));
  g_assert_null(quality_rows_find(cut, "steps=4", "y"));
  g_assert_null(quality_rows_find(cut, "steps=5", "x"));
  g_assert_true(quality_rows_append(path, two, &error));
  g_autoptr(GPtrArray) whole = quality_rows_load(path, &error);
  g_assert_no_error(error);
  g_assert_cmpuint(whole->len, ==, 2);
  g_assert_true(g_file_set_contents(path, "{\"bad\": 1}\n{}\n", -1, NULL));
  g_assert_null(quality_rows_load(path, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
  scratch_remove(path);
  quality_row_free(one);
  quality_row_free(two);
}

/* ---- Cases of a folder ---- */

/* Pictures in the order of their names, each with every prompt; bad folders are named. */
static void folder_of_cases(void) {
  static const struct {
    const char *name, *text;
  } files[] = {{"b.png", "x"}, {"A.JPeG", "x"}, {"notes.txt", "x"}, {"prompts.txt", " make it night \n\nadd a hat\n"}};
  g_autoptr(GError) error = NULL;
  g_autofree char *folder = g_dir_make_tmp("fk-cases-XXXXXX", NULL);
  g_assert_null(quality_cases_folder(folder, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
  g_assert_nonnull(strstr(error->message, folder));
  g_clear_error(&error);
  for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
    g_autofree char *path = g_build_filename(folder, files[i].name, NULL);
    g_assert_true(g_file_set_contents(path, files[i].text, -1, NULL));
  }
  g_autoptr(GPtrArray) cases = quality_cases_folder(folder, &error);
  g_assert_no_error(error);
  static const char *const want[] = {"A.JPeG-1", "A.JPeG-2", "b.png-1", "b.png-2"};
  g_assert_cmpuint(cases->len, ==, G_N_ELEMENTS(want));
  for (guint i = 0; i < cases->len; i++) {
    const QualityCase *c = cases->pdata[i];
    g_assert_cmpstr(c->id, ==, want[i]);
    g_assert_cmpstr(c->prompt, ==, i % 2 ? "add a hat" : "make it night");
    g_assert_cmpint(c->tier, ==, QUALITY_OPEN);
    g_assert_null(c->target);
  }
  g_autofree char *prompts = g_build_filename(folder, "prompts.txt", NULL);
  g_assert_true(g_file_set_contents(prompts, " \n", -1, NULL));
  g_assert_null(quality_cases_folder(folder, &error));
  g_assert_nonnull(strstr(error->message, "prompts.txt"));
  g_remove(prompts);
  g_autoptr(GPtrArray) usual = quality_cases_folder(folder, NULL);
  g_assert_cmpuint(usual->len, ==, 6);
  for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
    g_autofree char *path = g_build_filename(folder, files[i].name, NULL);
    g_remove(path);
  }
  g_rmdir(folder);
}

/* ---- Settings ---- */

static GPtrArray *parse(const char *text, GError **error) {
  g_autofree char *path = scratch_file("settings.txt");
  g_assert_true(g_file_set_contents(path, text, -1, NULL));
  GPtrArray *settings = quality_settings_read(path, error);
  scratch_remove(path);
  return settings;
}

static void settings_file(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(GPtrArray) s = parse("# all\na: steps=4\n[vague, open]\n b: scheduler=heun steps=3 \n", &error);
  g_assert_no_error(error);
  g_assert_cmpuint(s->len, ==, 2);
  const QualitySetting *a = s->pdata[0], *b = s->pdata[1];
  g_assert_cmpuint(a->tiers, ==, (1u << QUALITY_TIERS) - 1);
  g_assert_cmpint(a->plain_steps, ==, 4);
  g_assert_cmpuint(b->tiers, ==, 6);
  g_assert_cmpint(b->plain_steps, ==, 0);
  g_autofree char *none = quality_technique(a), *heun = quality_technique(b);
  g_assert_cmpstr(none, ==, "");
  g_assert_cmpstr(heun, ==, "heun");
  QualityCase c = {.prompt = (char *)"x", .seed = (char *)"7"};
  g_autoptr(FkSettings) applied = quality_settings_apply(b, &c, &error);
  g_assert_no_error(error);
  g_assert_cmpstr(fk_settings_get(applied, "scheduler"), ==, "heun");
  g_assert_cmpstr(fk_settings_get(applied, "preset"), ==, "exact");
  g_assert_cmpstr(fk_settings_get(applied, "seed"), ==, "7");
}

/* What opens an engine stands apart from settings; rows that are both are in both; the text keeps the file's order. */
static void settings_options(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(GPtrArray) s = parse("a: quantization=fp8 steps=4 precision-first=2 threads=1\nb: steps=4\n", &error);
  g_autoptr(FkOptions) options = fk_options_new();
  g_assert_no_error(error);
  const QualitySetting *a = s->pdata[0], *b = s->pdata[1];
  g_autofree char *pairs = g_strjoinv(" ", a->pairs);
  g_assert_cmpstr(pairs, ==, "steps=4 precision-first=2");
  g_assert_cmpstr(a->options, ==, "quantization=fp8 precision-first=2 threads=1");
  g_assert_cmpstr(a->text, ==, "quantization=fp8 steps=4 precision-first=2 threads=1");
  g_assert_cmpint(a->plain_steps, ==, 0);
  g_assert_cmpstr(b->options, ==, "");
  g_assert_true(quality_options_apply(a->options, options, &error));
  g_assert_cmpstr(fk_options_get(options, "quantization"), ==, "fp8");
  g_assert_cmpstr(fk_options_get(options, "threads"), ==, "1");
}

static void settings_errors(void) {
  const char *const bad[] = {"a steps=4",           "a: steps",      "a: stepps=4", "a: steps=-1",
                             "a: quantization=fp9", "[named, wide]", "# nothing"};
  for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
    g_autoptr(GError) error = NULL;
    g_assert_null(parse(bad[i], &error));
    g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
  }
}

/* ---- The rival ---- */

/* Plain Euler on case x: 10 dB at FLOP 1, 20 dB at 4, so 15 at 2, the middle of
 * the logarithm; on y 5 dB more. 28 steps cost 28. The technique costs 2 and
 * reaches 18 and 30. */
static void add_rows(GPtrArray *rows) {
  const char *const id[] = {"x", "y"};
  for (int i = 0; i < 2; i++) {
    g_ptr_array_add(rows, row_new("exact", "", id[i], 100, 28));
    g_ptr_array_add(rows, row_new("four", "steps=4", id[i], 20 + 5 * i, 4));
    g_ptr_array_add(rows, row_new("two", "steps=2", id[i], 10 + 5 * i, 1));
    g_ptr_array_add(rows, row_new("c", "context-reuse=2", id[i], 18 + 12 * i, 2));
  }
}

static void rival(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(GPtrArray) settings = parse("two: steps=2\nfour: steps=4\nc: context-reuse=2\nd: token-merge=0.5", &error);
  g_autoptr(GPtrArray) rows = g_ptr_array_new_with_free_func(quality_row_free);
  add_rows(rows);
  g_assert_cmpfloat_with_epsilon(quality_rival(rows, settings, "x", 2), 15, 1e-9);
  g_assert_cmpfloat_with_epsilon(quality_rival(rows, settings, "y", 16), 35, 1e-9);
  g_assert_true(isnan(quality_rival(rows, settings, "x", 0.5)));
  g_assert_true(isnan(quality_rival(rows, settings, "x", 27.9)));
  g_assert_true(isnan(quality_rival(rows, settings, "z", 2)));
  g_autoptr(GArray) all = quality_summarize(rows, settings, QUALITY_OPEN);
  g_assert_cmpuint(all->len, ==, 4); /* d has no results */
  const QualitySummary *c = &g_array_index(all, QualitySummary, 3);
  g_assert_cmpint(c->cases, ==, 2);
  g_assert_cmpfloat(c->psnr, ==, 24);
  g_assert_cmpfloat(c->worst, ==, 18);
  g_assert_cmpfloat_with_epsilon(c->gain, 6.5, 1e-9); /* between 3 and 10 */
  g_assert_cmpfloat_with_epsilon(c->skipped, 1, 1e-12);
  g_autoptr(GString) text = g_string_new(NULL);
  GArray *const tiers[QUALITY_TIERS] = {[QUALITY_OPEN] = all};
  quality_verdicts_write(text, tiers);
  g_assert_nonnull(strstr(text->str, "| context-reuse | +6.5 (c: 24.0 dB, 14.0x) | on open |"));
  g_assert_nonnull(strstr(text->str, "| open | median | none | none |"));
  g_autofree char *json = quality_summary_json(tiers, "machine", "model");
  g_assert_nonnull(strstr(json, "\"gain\": null"));
}

/* A technique's columns are those of the tiers that ran, named edits aside. */
static void tiers_that_ran(void) {
  g_autoptr(GPtrArray) settings = parse("two: steps=2\nfour: steps=4\nc: context-reuse=2", NULL);
  GArray *all[QUALITY_TIERS] = {NULL};
  const QualityTier tiers[] = {QUALITY_OPEN, QUALITY_LOCAL, QUALITY_GLOBAL};
  for (size_t k = 0; k < G_N_ELEMENTS(tiers); k++) {
    g_autoptr(GPtrArray) rows = g_ptr_array_new_with_free_func(quality_row_free);
    add_rows(rows);
    for (guint i = 0; i < rows->len; i++) ((QualityRow *)rows->pdata[i])->tier = tiers[k];
    all[tiers[k]] = quality_summarize(rows, settings, tiers[k]);
  }
  g_autoptr(GString) text = g_string_new(NULL);
  quality_verdicts_write(text, all);
  g_assert_nonnull(strstr(text->str, "| technique | best on open | best on local | best on global | earns its place"));
  g_assert_nonnull(strstr(text->str, "14.0x) | yes, on all |\n"));
  for (size_t k = 0; k < G_N_ELEMENTS(tiers); k++) g_array_unref(all[tiers[k]]);
}

/* Results lie in bands of the share that the exact edit changes; results of before there was one are in none. */
static void areas(void) {
  g_autoptr(GPtrArray) settings = parse("c: context-reuse=2\nd: token-merge=0.5", NULL);
  g_autoptr(GPtrArray) rows = g_ptr_array_new_with_free_func(quality_row_free);
  const double shares[] = {0.01, 0.3, 0.4, 0.9, -1}, psnr[] = {41, 29, 35, 25, 10};
  const char *const id[] = {"v", "w", "x", "y", "z"};
  g_autoptr(GString) text = g_string_new(NULL);
  for (size_t i = 0; i < G_N_ELEMENTS(id); i++) {
    QualityRow *exact = row_new("exact", "", id[i], 100, 28), *c = row_new("c", "context-reuse=2", id[i], psnr[i], 2);
    exact->changed = c->changed = shares[i];
    g_ptr_array_add(rows, exact);
    g_ptr_array_add(rows, c);
  }
  quality_areas_write(text, rows, settings, QUALITY_LOCAL);
  g_assert_cmpstr(text->str, ==, "");
  quality_areas_write(text, rows, settings, QUALITY_OPEN);
  g_assert_nonnull(strstr(text->str, "| setting | 0 to 5 %: 1 cases | 20 to 40 %: 2 cases | 60 to 100 %: 1 cases |\n"));
  g_assert_nonnull(strstr(text->str, "| c | 41.0, 41.0, 1/1 | 32.0, 29.0, 1/2 | 25.0, 25.0, 0/1 |\n"));
  g_assert_null(strstr(text->str, "| d |")); /* it has no results */
}

/* What another machine measured joins a setting's line where it has as many
 * cases; results above 30 dB are counted. */
static void elsewhere(void) {
  g_autoptr(GPtrArray) settings = parse("two: steps=2\nfour: steps=4\nc: context-reuse=2", NULL);
  g_autoptr(GPtrArray) here = g_ptr_array_new_with_free_func(quality_row_free);
  g_autoptr(GPtrArray) there = g_ptr_array_new_with_free_func(quality_row_free);
  add_rows(here);
  g_ptr_array_add(there, row_new("c", "context-reuse=2", "x", 40, 2));
  g_ptr_array_add(there, row_new("c", "context-reuse=2", "y", 42, 2));
  g_ptr_array_add(there, row_new("two", "steps=2", "x", 9, 1));
  g_autoptr(GArray) all = quality_summarize(here, settings, QUALITY_OPEN);
  g_autoptr(GArray) other = quality_summarize(there, settings, QUALITY_OPEN);
  quality_summaries_join(all, other);
  const QualitySummary *two = &g_array_index(all, QualitySummary, 1), *c = &g_array_index(all, QualitySummary, 3);
  g_assert_true(isnan(two->elsewhere)); /* one case of two */
  g_assert_cmpfloat(c->elsewhere, ==, 41);
  g_assert_cmpint(c->close, ==, 1);
  g_autoptr(GString) text = g_string_new(NULL);
  quality_table_write(text, all);
  g_assert_nonnull(strstr(text->str, "| c | 2 | 24.0 | 41.0, 2/2 | 18.0 | 1/2 |"));
  g_assert_nonnull(strstr(text->str, "| two | 2 | 12.5 | -- | 10.0 | 0/2 |"));
  QualityRow *copy = quality_row_copy(here->pdata[3], settings->pdata[0]);
  g_assert_cmpstr(copy->text, ==, "steps=2");
  g_assert_cmpstr(copy->id, ==, "x");
  g_assert_cmpfloat(copy->psnr, ==, 18);
  quality_row_free(copy);
}

/* ---- The search ---- */

/* A made-up model: steps cost and help, a bad setting falls in case y. Notes what was asked. */
typedef struct {
  GPtrArray *rows, *asked;
} Oracle;

static const QualityRow *oracle(void *data, const QualitySetting *s, const QualityCase *c, GError **error) {
  (void)error;
  Oracle *o = data;
  g_autoptr(GError) problem = NULL;
  g_autoptr(FkSettings) settings = quality_settings_apply(s, c, &problem);
  g_assert_no_error(problem);
  const double steps = g_ascii_strtod(fk_settings_decided(settings, "steps"), NULL);
  const bool cached = !strcmp(fk_settings_get(settings, "step-cache"), "teacache"), hard = !strcmp(c->id, "y");
  QualityRow *row = row_new(s->name, s->text, c->id, 10 + 2 * steps - (hard && cached ? 20 : 0), steps);
  row->ssim = strcmp(fk_settings_decided(settings, "scheduler"), "euler") ? 0.8 : 0.95; /* others leave noise */
  g_ptr_array_add(o->rows, row);
  g_ptr_array_add(o->asked, g_strdup_printf("%s on %s", s->text, c->id));
  return row;
}

static GPtrArray *find(Oracle *o, guint32 seed, double ssim) {
  QualityCase x = {.id = (char *)"x", .prompt = (char *)"a", .seed = (char *)"1"},
              y = {.id = (char *)"y", .prompt = (char *)"b", .seed = (char *)"2"};
  g_autoptr(GPtrArray) cases = g_ptr_array_new();
  g_ptr_array_add(cases, &x);
  g_ptr_array_add(cases, &y);
  const QualitySearch search = {cases, oracle, o, 60, seed, 22, ssim, 2, 28};
  g_autoptr(GError) error = NULL;
  o->rows = g_ptr_array_new_with_free_func(quality_row_free);
  o->asked = g_ptr_array_new_with_free_func(g_free);
  return quality_search(&search, &error);
}

static void oracle_clear(Oracle *o) {
  g_ptr_array_unref(o->rows);
  g_ptr_array_unref(o->asked);
}

/* The same seed asks the same questions and finds the same front; no setting of it fails a case or is beaten by
 * another; no question is asked twice. */
static void searches(void) {
  Oracle a, b, c;
  g_autoptr(GPtrArray) front = find(&a, 3, 0), again = find(&b, 3, 0), other = find(&c, 4, 0);
  double least = 0, worst = 0;
  g_assert_cmpuint(front->len, >=, 2);
  g_assert_cmpuint(front->len, ==, again->len);
  g_assert_cmpuint(a.asked->len, ==, b.asked->len);
  g_assert_cmpuint(a.asked->len, <, 120); /* bad ones stop at the first case */
  for (guint i = 0; i < a.asked->len; i++) {
    g_assert_cmpstr(a.asked->pdata[i], ==, b.asked->pdata[i]);
    for (guint k = 0; k < i; k++) g_assert_cmpstr(a.asked->pdata[i], !=, a.asked->pdata[k]);
  }
  for (guint i = 0; i < front->len; i++) {
    const QualitySetting *s = front->pdata[i];
    const QualityRow *x = quality_rows_find(a.rows, s->text, "x"), *y = quality_rows_find(a.rows, s->text, "y");
    g_assert_cmpstr(s->text, ==, ((const QualitySetting *)again->pdata[i])->text);
    g_assert_true(x && y && MIN(x->psnr, y->psnr) >= 22 && x->model_flop <= 14);
    g_assert_true(x->model_flop >= least && MIN(x->psnr, y->psnr) >= worst);
    least = x->model_flop;
    worst = MIN(x->psnr, y->psnr);
  }
  g_assert_nonnull(other);
  g_assert_true(a.asked->len != c.asked->len || strcmp(a.asked->pdata[9], c.asked->pdata[9]));
  oracle_clear(&a);
  oracle_clear(&b);
  oracle_clear(&c);
}

/* A floor of SSIM gives settings up that decibels let pass, and the front has neither them nor what they hid. */
static void searches_by_ssim(void) {
  Oracle a, b;
  g_autoptr(GPtrArray) all = find(&a, 3, 0), clean = find(&b, 3, 0.9);
  bool noisy = false;
  for (guint i = 0; i < a.rows->len; i++) noisy |= ((const QualityRow *)a.rows->pdata[i])->ssim < 0.9;
  g_assert_true(noisy && all->len && clean->len);
  for (guint i = 0; i < b.rows->len; i++) { /* one below the floor was asked of one case */
    const QualityRow *row = b.rows->pdata[i], *next = i + 1 < b.rows->len ? b.rows->pdata[i + 1] : NULL;
    g_assert_false(row->ssim < 0.9 && next && !strcmp(row->text, next->text));
  }
  for (guint i = 0; i < clean->len; i++) {
    const QualitySetting *s = clean->pdata[i];
    g_assert_cmpfloat(quality_rows_find(b.rows, s->text, "x")->ssim, >=, 0.9);
    g_assert_cmpfloat(quality_rows_find(b.rows, s->text, "y")->ssim, >=, 0.9);
  }
  oracle_clear(&a);
  oracle_clear(&b);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/quality/metrics", metrics);
  g_test_add_func("/quality/identical", identical);
  g_test_add_func("/quality/success", success);
  g_test_add_func("/quality/changed", changed);
  g_test_add_func("/quality/areas", areas);
  g_test_add_func("/quality/tiers", tiers_that_ran);
  g_test_add_func("/quality/judge", judge_cases);
  g_test_add_func("/quality/results/round-trip", round_trip);
  g_test_add_func("/quality/json", json);
  g_test_add_func("/quality/results/resume", resume);
  g_test_add_func("/quality/settings", settings_file);
  g_test_add_func("/quality/settings/errors", settings_errors);
  g_test_add_func("/quality/settings-options", settings_options);
  g_test_add_func("/quality/rival", rival);
  g_test_add_func("/quality/elsewhere", elsewhere);
  g_test_add_func("/quality/folder-of-cases", folder_of_cases);
  g_test_add_func("/quality/search", searches);
  g_test_add_func("/quality/search-by-ssim", searches_by_ssim);
  return g_test_run();
}
