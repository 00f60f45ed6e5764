/* SPDX-License-Identifier: Apache-2.0 */
/* Times of single ops, and the timeline that property trace-file writes: every op once, in order, with its sizes and
 * its own work; as JSON that a reader other than ours takes; the same pixels with it and without. */
#include "ops.h"
#include "print.h"
#include "profile.h"
#include "test-demo.h"
#include "test-files.h"

#include <errno.h>
#include <json-glib/json-glib.h>
#include <locale.h>
#include <math.h>

static FkBackend *open_cpu(void) {
  char message[128];
  FkFailure failure;
  FkBackend *be = fk_backend_open("cpu", 0, 0, &failure, message, sizeof message);
  if (!be || !fk_profile_start(be)) g_error("%s", message);
  return be;
}

static void product(FkBackend *be, float *data, int64_t m, int64_t n, int64_t k) {
  const FkLinear l = {.x = fk_tensor_2d(data, FK_F32, m, k),
                      .y = fk_tensor_2d(data + m * k + n * k, FK_F32, m, n),
                      .w = {.data = data + m * k, .dtype = FK_F32, .out = n, .in = k}};
  fk_op_linear(be, NULL, &l, 1);
}

/* Three products and a copy: names, sizes, work of each alone, and times that fit between the clock's readings. */
static void ops_in_order(void) {
  FkBackend *be = open_cpu();
  g_autofree float *data = g_new0(float, 3 * 64 * 64);
  const gint64 began = g_get_monotonic_time();
  be->profile->stage = "first";
  product(be, data, 8, 16, 32);
  product(be, data, 64, 48, 40);
  be->profile->stage = "second";
  fk_op_copy(be, fk_tensor_1d(data, FK_F32, 100), fk_tensor_1d(data + 100, FK_F32, 100));
  product(be, data, 1, 2, 3);
  struct FkProfile *p = fk_profile_stop(be);
  const double elapsed_ms = (double)(g_get_monotonic_time() - began) / 1000;
  double sum = 0;
  g_assert_null(be->profile);
  g_assert_cmpint(p->count, ==, 4);
  g_assert_cmpint(p->dropped, ==, 0);
  static const struct {
    const char *stage, *op;
    int m, n, k;
  } want[] = {{"first", "linear", 8, 16, 32},
              {"first", "linear", 64, 48, 40},
              {"second", "copy", 0, 0, 0},
              {"second", "linear", 1, 2, 3}};
  for (int i = 0; i < p->count; i++) {
    const FkProfileOp *o = &p->op[i];
    g_assert_cmpstr(o->stage, ==, want[i].stage);
    g_assert_cmpstr(o->op, ==, want[i].op);
    g_assert_cmpint((int)o->m, ==, want[i].m);
    g_assert_cmpint((int)o->n, ==, want[i].n);
    g_assert_cmpint((int)o->k, ==, want[i].k);
    g_assert_cmpfloat(o->flop, ==, 2.0 * want[i].m * want[i].n * want[i].k);
    g_assert_cmpfloat(o->bytes, >, 0);
    g_assert_cmpfloat(o->ms, >=, 0);
    sum += o->ms;
  }
  g_assert_cmpfloat(p->op[2].bytes, ==, 800); /* 100 numbers read and written */
  g_assert_cmpfloat(sum, <=, elapsed_ms);
  free(p);
  fk_backend_close(be);
}

/* What does not fit is one row of its own, with its time and work; what fits is not touched by it. */
static void too_many(void) {
  FkBackend *be = open_cpu();
  g_autofree float *data = g_new0(float, 3 * 96 * 96);
  be->profile->stage = "denoise";
  for (int i = 0; i < FK_PROFILE_MAX; i++)
    fk_op_copy(be, fk_tensor_1d(data, FK_F32, 1), fk_tensor_1d(data + 1, FK_F32, 1));
  product(be, data, 96, 96, 96);
  be->profile->stage = "decode";
  product(be, data, 96, 96, 96);
  fk_op_copy(be, fk_tensor_1d(data, FK_F32, 100), fk_tensor_1d(data + 100, FK_F32, 100));
  struct FkProfile *p = fk_profile_stop(be);
  g_assert_cmpint(p->count, ==, FK_PROFILE_MAX + 1);
  g_assert_cmpint(p->dropped, ==, 3);
  const FkProfileOp *last = &p->op[FK_PROFILE_MAX - 1], *rest = last + 1;
  g_assert_cmpstr(last->op, ==, "copy");
  g_assert_cmpstr(last->stage, ==, "denoise");
  g_assert_cmpfloat(last->bytes, ==, 8);
  g_assert_cmpfloat(last->flop, ==, 0);
  g_assert_cmpstr(rest->op, ==, "dropped");
  g_assert_cmpint((int)rest->m, ==, 0); /* sizes of one op say nothing about several */
  g_assert_cmpfloat(rest->flop, ==, 2 * 2.0 * 96 * 96 * 96);
  g_assert_cmpfloat(rest->bytes, ==, 2 * 3 * 4.0 * 96 * 96 + 800);
  g_assert_cmpfloat(rest->ms, >, 0);
  g_assert_cmpfloat(p->op[0].bytes, ==, 8);
  free(p);
  fk_backend_close(be);
}

/* A place that takes nothing: told. */
static void write_errors(void) {
  FkBackend *be = open_cpu();
  float data[2] = {0};
  for (int rows = 1; rows <= 5000; rows += 4999) { /* more and less than a buffer of the C library */
    if (!be->profile) g_assert_true(fk_profile_start(be));
    for (int i = 0; i < rows; i++) fk_op_copy(be, fk_tensor_1d(data, FK_F32, 1), fk_tensor_1d(data + 1, FK_F32, 1));
    struct FkProfile *p = fk_profile_stop(be);
    FILE *full = fopen("/dev/full", "w");
    const bool written = fk_profile_write_trace(p, full);
    errno = 0;
    g_assert_false(fclose(full) == 0 && written);
    g_assert_true(errno == ENOSPC || !written);
    free(p);
  }
  fk_backend_close(be);
}

static void numbers(void) {
  static const struct {
    double value;
    int decimals;
    const char *text;
  } rows[] = {{0, 3, "0.000"},
              {1.5, 3, "1.500"},
              {-1.5, 1, "-1.5"},
              {0.0004, 3, "0.000"},
              {-0.0004, 3, "0.000"},
              {0.0005, 3, "0.001"},
              {9.9996, 3, "10.000"},
              {123456789.25, 2, "123456789.25"},
              {2.5, 0, "3"},
              {1e300, 1, "1000000000000000.0"},
              {-INFINITY, 0, "-1000000000000000"},
              {NAN, 2, "0.00"}};
  char text[32];
  for (guint i = 0; i < G_N_ELEMENTS(rows); i++)
    g_assert_cmpstr(fk_print_number(text, sizeof text, rows[i].value, rows[i].decimals), ==, rows[i].text);
}

static uint8_t *edit(FkEngine *engine, const char *trace, GError **error) {
  enum { SIDE = 64 };
  g_autofree uint8_t *in = g_malloc(SIDE * SIDE * 3);
  uint8_t *out = g_malloc0(SIDE * SIDE * 3);
  for (int i = 0; i < SIDE * SIDE * 3; i++) in[i] = (uint8_t)(i * 7);
  g_autoptr(FkSettings) s = fk_settings_new();
  fk_settings_set(s, "prompt", "make it night", NULL);
  fk_settings_set(s, "steps", "2", NULL);
  if (trace) fk_settings_set(s, "trace-file", trace, NULL);
  FkJob job = {.in = {in, SIDE, SIDE, 3, SIDE * 3}, .out = {out, SIDE, SIDE, 3, SIDE * 3}, .settings = s};
  if (fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, error)) return out;
  g_free(out);
  return NULL;
}

/* A locale whose decimal point is a comma, made in a folder of ours. FALSE: this machine cannot. */
static gboolean comma_locale(void) {
  g_autofree char *target = g_build_filename(scratch, "de_DE.UTF-8", NULL);
  const char *command[] = {"localedef", "-i", "de_DE", "-f", "UTF-8", target, NULL};
  if (!g_spawn_sync(NULL, (char **)command, NULL,
                    G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, NULL,
                    NULL, NULL, NULL))
    return FALSE;
  g_setenv("LOCPATH", scratch, TRUE);
  return setlocale(LC_ALL, "de_DE.UTF-8") && !strcmp(localeconv()->decimal_point, ",");
}

/* The file is JSON whatever the locale. */
static void locales(void) {
  if (!comma_locale()) {
    g_test_skip("no locale with a comma can be made here");
    return;
  }
  FkBackend *be = open_cpu();
  g_autofree float *data = g_new0(float, 3 * 96 * 96);
  product(be, data, 96, 96, 96);
  product(be, data, 96, 96, 96);
  struct FkProfile *p = fk_profile_stop(be);
  g_autofree char *path = g_build_filename(scratch, "comma.json", NULL);
  FILE *file = fopen(path, "w");
  g_assert_true(fk_profile_write_trace(p, file));
  g_assert_cmpint(fclose(file), ==, 0);
  setlocale(LC_ALL, "C");
  g_unsetenv("LOCPATH");
  g_autoptr(JsonParser) parser = json_parser_new();
  g_autoptr(GError) error = NULL;
  json_parser_load_from_file(parser, path, &error);
  g_assert_no_error(error);
  JsonArray *events = json_object_get_array_member(json_node_get_object(json_parser_get_root(parser)), "traceEvents");
  g_assert_cmpuint(json_array_get_length(events), ==, 2);
  JsonObject *args = json_object_get_object_member(json_array_get_object_element(events, 1), "args");
  g_assert_cmpfloat(json_object_get_double_member(args, "mb"), ==, 0.111); /* 3 * 96 * 96 * 4 bytes */
  free(p);
  fk_backend_close(be);
}

/* Events of an edit: one after the other without a gap, each stage's together, in the stages' order. */
static void check_timeline(const char *path) {
  static const char *const stages[] = {"text", "encode", "denoise", "decode"};
  g_autoptr(JsonParser) parser = json_parser_new();
  g_autoptr(GError) error = NULL;
  json_parser_load_from_file(parser, path, &error);
  g_assert_no_error(error);
  JsonObject *root = json_node_get_object(json_parser_get_root(parser));
  JsonArray *events = json_object_get_array_member(root, "traceEvents");
  int stage = 0;
  double at = 0;
  g_assert_cmpuint(json_array_get_length(events), >, 100);
  for (guint i = 0; i < json_array_get_length(events); i++) {
    JsonObject *e = json_array_get_object_element(events, i);
    const char *category = json_object_get_string_member(e, "cat");
    while (stage < 4 && strcmp(category, stages[stage])) stage++;
    if (stage == 4) g_error("event %u of stage %s is out of order", i, category);
    g_assert_cmpstr(json_object_get_string_member(e, "ph"), ==, "X");
    g_assert_cmpfloat(fabs(json_object_get_double_member(e, "ts") - at), <, 0.1); /* microseconds, printed to 0.001 */
    at = json_object_get_double_member(e, "ts") + json_object_get_double_member(e, "dur");
    JsonObject *args = json_object_get_object_member(e, "args");
    if (!strcmp(json_object_get_string_member(e, "name"), "linear"))
      g_assert_cmpint(json_object_get_int_member(args, "k"), >, 0);
  }
  g_assert_cmpint(stage, ==, 3);
}

static void trace_file(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) engine = demo_engine("cpu");
  g_autofree char *path = g_build_filename(scratch, "trace.json", NULL);
  g_autofree uint8_t *without = edit(engine, NULL, &error), *with = edit(engine, path, &error);
  g_assert_no_error(error);
  g_assert_cmpmem(with, 64 * 64 * 3, without, 64 * 64 * 3);
  check_timeline(path);
  uint8_t *nowhere = edit(engine, "/nowhere/at/all.json", &error);
  g_assert_null(nowhere);
  g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
  g_assert_nonnull(strstr(error->message, "/nowhere/at/all.json"));
  g_clear_error(&error);
  g_autofree uint8_t *after = edit(engine, NULL, &error); /* nothing of it stays */
  g_assert_no_error(error);
  g_assert_cmpmem(after, 64 * 64 * 3, without, 64 * 64 * 3);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  g_test_add_func("/profile/ops", ops_in_order);
  g_test_add_func("/profile/too-many", too_many);
  g_test_add_func("/profile/write-errors", write_errors);
  g_test_add_func("/profile/numbers", numbers);
  g_test_add_func("/profile/locales", locales);
  g_test_add_func("/profile/trace-file", trace_file);
  const int status = g_test_run();
  scratch_close();
  return status;
}
