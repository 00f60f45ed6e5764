/* SPDX-License-Identifier: Apache-2.0 */
/* Layers of edits on the demo model: names, inputs against sums taken here by another observer, the error of 8 bits
 * against what was emulated, results that do not change, refusals. */
#include "layers.h"

#include "test-picture.h"

#include <math.h>
#include <string.h>

static FkEngine *open_with(const char *name, const char *value) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "model-path", FK_DEMO_MODEL, NULL);
  fk_options_set(options, "backend", "cpu", NULL);
  if (name) fk_options_set(options, name, value, NULL);
  FkEngine *engine = fk_engine_open(options, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  return engine;
}

/* A picture, its place for the result and settings. */
typedef struct {
  FkImage in;
  FkSettings *settings;
  FkJob job;
} Edit;

static void edit_init(Edit *e) {
  g_autofree char *path = g_build_filename(FK_DEMO_PHOTOS, "coffee_256.png", NULL);
  e->in = read_png(path);
  e->settings = fk_settings_new();
  fk_settings_set(e->settings, "steps", "2", NULL);
  fk_settings_set(e->settings, "prompt", "make it night", NULL);
  fk_settings_set(e->settings, "prompt-cache", "off", NULL);
  e->job = (FkJob){.in = e->in, .out = e->in, .settings = e->settings};
  e->job.out.data = g_malloc0(e->in.stride * (size_t)e->in.height);
}

static void edit_clear(Edit *e) {
  g_free(e->in.data);
  g_free(e->job.out.data);
  fk_settings_free(e->settings);
}

static const FkLayerRow *row_of(const FkLayerRow *rows, size_t n, const char *name) {
  for (size_t i = 0; i < n; i++)
    if (!strcmp(rows[i].name, name)) return &rows[i];
  g_error("no layer %s", name);
}

/* All inputs of one weight, as they came. */
typedef struct {
  FkObserver observer;
  const FkWeight *weight;
  GArray *numbers; /* float [rows, in] */
  int groups;      /* of any product */
} Witness;

static void witness(FkObserver *observer, FkBackend *be, const FkLinear *l) {
  Witness *w = (Witness *)observer;
  g_assert_true(be->observer == observer && !fk_backend_uses(be, FK_CAN_GRAPH));
  w->groups++;
  if (l->w.data != w->weight->data) return;
  for (gint64 r = 0; r < fk_tensor_rows(l->x); r++)
    g_array_append_vals(w->numbers, (const float *)l->x.data + r * l->x.ld, (guint)l->w.in);
}

static void inputs(void) {
  static const char name[] = "transformer_blocks.1.ff.net.2";
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) engine = open_with(NULL, NULL);
  g_autoptr(FkLayers) layers = fk_layers_new(engine, &error);
  Edit e;
  edit_init(&e);
  g_assert_no_error(error);
  fk_engine_edit(engine, &e.job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  const size_t bytes = e.in.stride * (size_t)e.in.height;
  g_autofree guint8 *plain = g_memdup2(e.job.out.data, bytes);
  fk_layers_edit(layers, &e.job, 1, NULL, &error);
  g_assert_no_error(error);
  g_assert_cmpmem(plain, bytes, e.job.out.data, bytes);

  Witness w = {.observer.linear = witness, .weight = &engine->model->flux.doubles[1].image.ff_out};
  w.numbers = g_array_new(FALSE, FALSE, sizeof(float));
  fk_engine_edit_observed(engine, &w.observer, &e.job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_assert_null(engine->be->observer);
  size_t n;
  g_autofree FkLayerRow *rows = fk_layers_rows(layers, &n);
  const FkLayerRow *row = row_of(rows, n, name);
  const gint64 in = row->in, count = w.numbers->len / in;
  g_assert_cmpint(in, ==, 4 * row->out);
  g_assert_cmpint(row->rows, ==, count);
  g_assert_cmpint(row->evaluations, ==, 2);
  g_assert_cmpstr(row->role, ==, "mlp down");
  double amax = 0, squares = 0, peaks = 0, mean = 0, apart = 0;
  const float *x = (const float *)(void *)w.numbers->data;
  for (gint64 r = 0; r < count; r++) {
    double most = 0, own = 0;
    for (gint64 c = 0; c < in; c++) {
      most = fmax(most, fabs((double)x[r * in + c]));
      own += pow((double)x[r * in + c], 2);
    }
    amax = fmax(amax, most);
    squares += own;
    peaks += most / sqrt(own / (double)in);
  }
  for (gint64 c = 0; c < in; c++) {
    double sum = 0;
    for (gint64 r = 0; r < count; r++) sum += (double)x[r * in + c];
    mean = fmax(mean, fabs(sum / (double)count));
    for (gint64 r = 0; r < count; r++) apart += pow((double)x[r * in + c] - sum / (double)count, 2);
  }
  g_assert_cmpfloat(row->amax, ==, amax);
  g_assert_cmpfloat_with_epsilon(row->rms, sqrt(squares / (double)(count * in)), 1e-9);
  g_assert_cmpfloat_with_epsilon(row->peak, peaks / (double)count, 1e-9);
  g_assert_cmpfloat_with_epsilon(row->mean, mean / sqrt(apart / (double)(count * in)), 1e-6);
  g_assert_cmpint(w.groups, >, (int)n);
  g_array_unref(w.numbers);
  edit_clear(&e);
}

/* Emulated, products of normal and of GELU's numbers with row scales are 3.6 to 3.8 % off the exact ones; peaked and
 * offset inputs are less. A code at 448 is in each row, whose width is `in`; more are rare. */
static void codes(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) engine = open_with(NULL, NULL);
  g_autoptr(FkLayers) layers = fk_layers_new(engine, &error);
  Edit e;
  edit_init(&e);
  fk_layers_edit(layers, &e.job, 1, NULL, &error);
  g_assert_no_error(error);
  size_t n;
  g_autofree FkLayerRow *rows = fk_layers_rows(layers, &n);
  const FkFluxConfig *c = &engine->model->config.flux;
  size_t blocks = 0;
  for (size_t i = 0; i < n; i++) {
    const FkLayerRow *r = &rows[i];
    if (!g_str_has_prefix(r->name, "transformer_blocks") && !g_str_has_prefix(r->name, "single_")) continue;
    blocks++;
    g_assert_cmpfloat(r->error, >, 0.005);
    g_assert_cmpfloat(r->error, <, 0.05);
    g_assert_cmpfloat(r->saturated, >=, 0.99 / (double)r->in);
    g_assert_cmpfloat(r->peak, <=, r->peak_most);
    g_assert_cmpfloat(r->peak_block, <=, r->peak_most);
  }
  g_assert_cmpuint(blocks, ==, (size_t)(10 * c->layers + 3 * c->single_layers)); /* with modulations */
  row_of(rows, n, "transformer_blocks.0.attn.add_k_proj+add_v_proj+add_q_proj");
  row_of(rows, n, "single_transformer_blocks.0.attn.to_k+attn.to_v+attn.to_q+proj_mlp");
  row_of(rows, n, "encoder.block.0.layer.1.DenseReluDense.wo");
  g_assert_true(isnan(row_of(rows, n, "time_text_embed.guidance_embedder.linear_1")->mean)); /* one guidance */
  edit_clear(&e);
}

static void refusals(void) {
  static const char *const options[] = {"quantization", "text-quantization", "modulation-quantization"};
  for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkEngine) engine = open_with(options[i], "fp8");
    g_assert_null(fk_layers_new(engine, &error));
    g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
  }
  fk_layers_free(NULL);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/layers/inputs", inputs);
  g_test_add_func("/layers/codes", codes);
  g_test_add_func("/layers/refusals", refusals);
  return g_test_run();
}
