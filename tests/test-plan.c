/* SPDX-License-Identifier: Apache-2.0 */
/* Plans of the published configuration against counts made from its formulas (diffusers' meta-device parameter counts,
 * and 2 per multiply-add over the layers written out here), and of the demo checkpoint against a real edit. */
#include "backend.h"
#include "test-files.h"

#include <math.h>

static FkPlan plan_of(const char *model, int width, int height, const char *name, const char *value) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) s = fk_settings_new();
  FkPlan p;
  if (name) g_assert_true(fk_settings_set(s, name, value, NULL));
  fk_plan(model, NULL, s, width, height, 2, &p, &error);
  g_assert_no_error(error);
  return p;
}

/* FLOP of one evaluation: per token the matrix products, per pair of tokens the attention; `last` rows in the last
 * block go through query, MLP and output, the others only through key and value. */
static double step_flop(double text, double image, double out_rows, double target) {
  const double d = 3072, rows = text + image, mlp = 4 * d, layers = 19, singles = 38;
  double flop = 2 * image * 64 * d + 2 * target * d * 64;                   /* x_embedder, proj_out */
  flop += layers * rows * 2 * (4 * d * d + 2 * d * mlp);                    /* qkv, out, both MLP products */
  flop += (singles - 1) * rows * 2 * (3 * d * d + d * mlp + (d + mlp) * d); /* in, out */
  flop += (layers + singles - 1) * 4 * rows * rows * d;                     /* q k^T and p v */
  flop += rows * 2 * 2 * d * d + out_rows * 2 * (d * d + d * mlp + (d + mlp) * d) + 4 * out_rows * rows * d;
  return flop;
}

static void kontext_dev(void) {
  const FkPlan p = plan_of("kontext-dev", 1024, 1024, NULL, NULL);
  g_assert_cmpint(p.width, ==, 1024);
  g_assert_cmpint(p.text_tokens, ==, 512);
  g_assert_cmpint(p.target_tokens, ==, 4096);
  g_assert_cmpint(p.context_tokens, ==, 4096);
  g_assert_cmpint(p.evaluations, ==, 28);
  /* sum of p.numel() of diffusers' and transformers' modules on the meta device */
  g_assert_cmpint(p.stage[0].parameters, ==, 123060480);
  g_assert_cmpint(p.stage[1].parameters, ==, 4762310656);
  g_assert_cmpint(p.stage[2].parameters, ==, 34274208);
  g_assert_cmpint(p.stage[3].parameters, ==, 11901408320);
  g_assert_cmpint(p.stage[4].parameters, ==, 49545475);
  const double whole = step_flop(512, 8192, 8704, 4096), run = step_flop(512, 8192, 4096, 4096);
  g_test_message("step %.3f TFLOP (formula %.3f), whole %.3f (formula %.3f)", p.stage[3].flop / 1e12, run / 1e12,
                 p.whole_step_flop / 1e12, whole / 1e12);
  /* What the formula leaves out (modulation, embedders of time and text, once per edit) is under 2e-3. */
  g_assert_cmpfloat(fabs(p.whole_step_flop / whole - 1), <, 2e-3);
  g_assert_cmpfloat(fabs(p.stage[3].flop / run - 1), <, 2e-3);
  g_assert_cmpfloat(fabs(p.whole_step_flop / 1e12 - 165.4), <, 0.05);
  double sum = 0;
  for (int i = 0; i < FK_PLAN_STAGES; i++) sum += p.stage[i].flop * (i == 3 ? p.evaluations : 1);
  g_assert_cmpfloat(fabs(p.flop / sum - 1), <, 1e-9);
  g_assert_cmpfloat(p.weight_bytes, >=, 2.0 * (double)p.parameters);
  g_assert_cmpfloat(p.weight_bytes, <, 2.01 * (double)p.parameters);
}

/* Sizes, steps, guidance twice, no context. */
static void settings_count(void) {
  const FkPlan base = plan_of("kontext-dev", 1024, 1024, NULL, NULL);
  const FkPlan steps = plan_of("kontext-dev", 1024, 1024, "steps", "4");
  g_assert_cmpint(steps.evaluations, ==, 4);
  g_assert_cmpfloat(steps.flop, <, base.flop / 6);
  const FkPlan heun = plan_of("kontext-dev", 1024, 1024, "scheduler", "heun");
  g_assert_cmpint(heun.evaluations, ==, 55);
  const FkPlan small = plan_of("kontext-dev", 1024, 1024, "max-area", "262144");
  g_assert_cmpint(small.width, ==, 512);
  g_assert_cmpint(small.target_tokens, ==, 1024);
  const FkPlan wide = plan_of("kontext-dev", 1280, 720, NULL, NULL);
  g_assert_cmpint(wide.width, ==, 1280);
  g_assert_cmpint(wide.height, ==, 720);
  const FkPlan generate = plan_of("kontext-dev", 1024, 1024, "task", "generate");
  g_assert_cmpint(generate.context_tokens, ==, 0);
  g_assert_cmpfloat(generate.stage[3].flop, <, base.stage[3].flop / 1.8);
  const FkPlan reuse = plan_of("kontext-dev", 1024, 1024, "context-reuse", "4");
  g_assert_cmpfloat(reuse.flop, <, base.flop * 0.75);
}

static void schnell(void) {
  const FkPlan p = plan_of("schnell", 1024, 1024, "task", "generate");
  g_assert_cmpint(p.text_tokens, ==, 256);
  g_assert_cmpint(p.stage[3].parameters, ==, 11891178560); /* without the guidance embedder */
}

/* The plan of a folder is what an edit with it spends and needs. */
static void folder(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(FkSettings) s = fk_settings_new();
  FkPlan p;
  fk_options_set(options, "model-path", FK_DEMO_MODEL, NULL);
  fk_options_set(options, "backend", "cpu", NULL);
  fk_settings_set(s, "steps", "2", NULL);
  fk_plan(FK_DEMO_MODEL, NULL, s, 64, 64, 4, &p, &error);
  g_assert_no_error(error);
  g_assert_cmpint(p.parameters, ==, 16793475); /* of the demo model's README */
  fk_settings_set(s, "max-area", "4096", NULL);
  fk_plan(FK_DEMO_MODEL, NULL, s, 64, 64, 4, &p, &error);
  g_assert_no_error(error);
  g_autoptr(FkEngine) engine = fk_engine_open(options, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_autofree uint8_t *in = g_malloc0(64 * 64 * 3), *out = g_malloc0(64 * 64 * 3);
  FkJob job = {.in = {in, 64, 64, 3, 192}, .out = {out, 64, 64, 3, 192}, .settings = s};
  fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_assert_cmpint(job.result.width, ==, p.width);
  /* CLIP stops at the end of the text, which a plan does not know. */
  g_assert_cmpfloat(job.result.flop, <=, p.flop);
  g_assert_cmpfloat(job.result.flop, >, p.flop - p.stage[0].flop);
}

/* Weights by role: unquantised ones as ever, matrices of the blocks at a byte each with a scale a row; twins on top. */
static void quantised(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(FkSettings) s = fk_settings_new();
  const FkPlan plain = plan_of("kontext-dev", 1024, 1024, NULL, NULL);
  FkPlan p;
  g_assert_true(fk_options_set(options, "quantization", "fp8", NULL));
  fk_plan("kontext-dev", options, s, 1024, 1024, 2, &p, &error);
  g_assert_no_error(error);
  double sum = 0, sum_plain = 0, saved = 0;
  int64_t parameters = 0;
  for (int i = 0; i < FK_PLAN_ROLES; i++) {
    const bool codes = g_str_has_prefix(p.weights[i].form, "e4m3");
    const double values = (double)p.weights[i].parameters;
    g_assert_cmpstr(p.weights[i].role, ==, plain.weights[i].role);
    g_assert_cmpint(p.weights[i].parameters, ==, plain.weights[i].parameters);
    if (codes) g_assert_cmpfloat(p.weights[i].bytes, >, values);
    if (codes) g_assert_cmpfloat(p.weights[i].bytes, <, 1.01 * values);
    if (!codes) g_assert_cmpfloat(p.weights[i].bytes, ==, plain.weights[i].bytes);
    saved += codes ? values : 0;
    sum += p.weights[i].bytes;
    sum_plain += plain.weights[i].bytes;
    parameters += p.weights[i].parameters;
  }
  g_assert_cmpint(parameters, ==, p.parameters);
  g_assert_cmpfloat(sum, ==, p.weight_bytes);
  g_assert_cmpfloat(sum_plain, ==, plain.weight_bytes);
  /* D = 3072: 19 double blocks of 2 streams of 12 D^2, 38 single ones of 12 D^2 */
  g_assert_cmpfloat(saved, ==, 3072.0 * 3072.0 * 12 * (19 * 2 + 38));
  g_assert_cmpfloat(plain.weight_bytes - p.weight_bytes, >, 0.99 * saved);
  g_assert_true(fk_options_set(options, "text-quantization", "fp8", NULL));
  const double before = p.weight_bytes;
  fk_plan("kontext-dev", options, s, 1024, 1024, 2, &p, &error);
  g_assert_no_error(error);
  g_assert_cmpfloat(p.weight_bytes, <, before - 4.5e9);
  g_assert_true(fk_options_set(options, "modulation-quantization", "fp8", NULL));
  const double wide = p.weight_bytes;
  fk_plan("kontext-dev", options, s, 1024, 1024, 2, &p, &error);
  g_assert_no_error(error);
  /* 19 blocks of 2 streams of 6 D, 38 of 3 D, and 2 D at the end; a scale for each row */
  const double modulations = (19 * 2 * 6 + 38 * 3 + 2) * 3072.0;
  g_assert_cmpfloat(wide - p.weight_bytes, >, 0.999 * modulations * (3072 - 4));
  g_assert_cmpfloat(wide - p.weight_bytes, <=, modulations * (3072 - 4));
  g_test_message("with fp8, text fp8 and modulations fp8: %.2f GB",
                 (p.placed_bytes + p.cache_bytes + p.arena_bytes) / 1e9);
  g_assert_true(fk_options_set(options, "modulation-quantization", "none", NULL));
  g_assert_true(fk_options_set(options, "weight-dither", "on", NULL));
  fk_plan("kontext-dev", options, s, 1024, 1024, 2, &p, &error);
  g_assert_no_error(error);
  g_assert_cmpfloat(p.weight_bytes - wide, >, saved); /* 8.6 GB of codes, and their scales */
  g_assert_cmpfloat(p.weight_bytes - wide, <, 1.01 * saved);
  g_assert_true(fk_options_set(options, "weight-dither", "off", NULL));
  g_assert_true(fk_options_set(options, "precision-first", "2", NULL));
  fk_plan("kontext-dev", options, s, 1024, 1024, 2, &p, &error);
  g_assert_no_error(error);
  g_assert_cmpfloat(p.weight_bytes, >, before - 4.8e9 + 2 * saved);
}

/* An engine's limit counts what the plan says, to the byte. */
static void limit(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) s = fk_settings_new();
  static const char *const forms[] = {"none", "fp8"};
  for (size_t i = 0; i < G_N_ELEMENTS(forms); i++)
    for (int less = 0; less < 2; less++) {
      g_autoptr(FkOptions) options = fk_options_new();
      FkPlan p;
      fk_options_set(options, "backend", "null", NULL);
      fk_options_set(options, "offload", "none", NULL);
      fk_options_set(options, "quantization", forms[i], NULL);
      fk_plan("kontext-dev", options, s, 1024, 1024, 2, &p, &error);
      g_assert_no_error(error);
      const double need = p.weight_bytes + p.cache_bytes + p.arena_bytes;
      g_autofree char *bytes = g_strdup_printf("%.0f", need - less);
      fk_options_set(options, "max-vram", bytes, NULL);
      g_autoptr(FkEngine) engine = fk_engine_open(options, NULL, NULL, NULL, &error);
      if (!less) g_assert_no_error(error);
      if (!less) continue;
      assert_error(error, FK_ERROR_MEMORY, "max-vram", bytes);
    }
}

static void refused(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) s = fk_settings_new();
  FkPlan p;
  g_assert_false(fk_plan("/nowhere", NULL, s, 64, 64, 2, &p, &error));
  assert_error(error, FK_ERROR_MODEL_MISSING, "/nowhere", "model_index.json");
  static const struct {
    int w, h, bytes;
    const char *word;
  } cases[] = {{0, 256, 2, "0x256"},      {256, -1, 2, "256x-1"},   {65536, 64, 2, "65536x64"},
               {G_MAXINT, 1, 2, "65535"}, {64, 64, 0, "found 0"},   {64, 64, 3, "found 3"},
               {65535, 1, 2, "65535x1"},  {64, 64, -2, "found -2"}, {1, 8000, 4, "aspect ratio"}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_assert_false(fk_plan("kontext-dev", NULL, s, cases[i].w, cases[i].h, cases[i].bytes, &p, &error));
    const int code = strstr(cases[i].word, "found") ? FK_ERROR_OPTION_BAD : FK_ERROR_SHAPE;
    assert_error(error, code, cases[i].word, "");
    g_assert_cmpint(p.width, ==, 0);
  }
  fk_settings_set(s, "step-cache-mask", "1", NULL);
  g_assert_false(fk_plan("kontext-dev", NULL, s, 64, 64, 2, &p, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "step-cache-mask", "");
}

/* A plan is for a device that can do what is asked for. */
static void switches(void) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  int planned = 0;
  for (size_t i = 0; i < n; i++)
    if (p[i].kind == FK_KIND_SWITCH && p[i].scope == FK_SCOPE_SETTING) {
      const FkPlan on = plan_of("kontext-dev", 512, 512, p[i].name, "on");
      g_assert_cmpfloat(on.flop, >, 0);
      planned++;
    }
  g_assert_cmpint(planned, >=, 5);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/plan/kontext-dev", kontext_dev);
  g_test_add_func("/plan/settings", settings_count);
  g_test_add_func("/plan/schnell", schnell);
  g_test_add_func("/plan/folder", folder);
  g_test_add_func("/plan/quantised", quantised);
  g_test_add_func("/plan/switches", switches);
  g_test_add_func("/plan/limit", limit);
  g_test_add_func("/plan/refused", refused);
  return g_test_run();
}
