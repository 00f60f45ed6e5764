/* SPDX-License-Identifier: Apache-2.0 */
/* Weights that arrive on the device by staging buffers: the demo transformer with quantised blocks and their twins has
 * the codes, scales and numbers that the same files give on the CPU. Environment: BACKEND (default
 * cuda; cpu tries the test itself), FK_SOURCE (the project's folder). */
#include "flux.h"

typedef struct {
  FkBackend *be;
  FkBinder *binder;
  FkFlux flux;
} Side;

static char *checkpoint; /* the demo's folder */
static FkComponent *demo;

static bool load(Side *s, const char *backend, FkDtype codes) {
  char message[256];
  FkFailure failure;
  FkConfig config;
  g_autoptr(GError) error = NULL;
  s->be = fk_backend_open(backend, 0, 0, &failure, message, sizeof message);
  if (!s->be) {
    g_test_skip(message);
    return false;
  }
  FkPrecision precision = fk_precision_uniform(s->be->dtype);
  for (int role = FK_ROLE_QKV; role <= FK_ROLE_SINGLE_OUT; role++)
    precision.form[role] = (FkForm){.dtype = codes, .scale = FK_SCALE_ROW, .twin = true};
  size_t n;
  const FkNameTable *tables = fk_name_tables(FK_PART_FLUX, &n);
  const FkNames names = {.part[FK_PART_FLUX] = {demo, fk_names_detect(FK_PART_FLUX, demo, tables, n)}};
  s->binder = fk_binder_new(s->be, &precision, &names, FK_PART_FLUX);
  g_assert_true(fk_config_load(&config, checkpoint, &error));
  fk_flux_init(&s->flux, &config.flux, s->binder);
  g_assert_true(fk_binder_finish(s->binder, &error) && fk_binder_load(s->binder, NULL, NULL, NULL, &error));
  return true;
}

static void clear(Side *s) {
  fk_flux_clear(&s->flux);
  fk_binder_free(s->binder);
  fk_backend_close(s->be);
}

static void *fetch(const Side *s, const void *data, size_t bytes) {
  void *host = g_malloc(bytes);
  s->be->ops->download(s->be, host, data, bytes);
  g_assert_true(fk_backend_sync(s->be));
  return host;
}

static void same_bytes(const Side *a, const void *x, const Side *b, const void *y, size_t bytes) {
  g_autofree void *left = fetch(a, x, bytes), *right = fetch(b, y, bytes);
  g_assert_cmpmem(left, bytes, right, bytes);
}

/* Codes and scales of a bound tensor's whole weight; its twin, which the files have in bfloat16, on the device only. */
static void compare(const Side *cpu, const Side *gpu, const char *name) {
  const FkWeight *a = fk_binder_find(cpu->binder, name)->weight, *b = fk_binder_find(gpu->binder, name)->weight;
  const size_t n = (size_t)(a->out * a->in);
  g_assert_cmpint(a->dtype, ==, b->dtype);
  same_bytes(cpu, a->data, gpu, b->data, n);
  same_bytes(cpu, a->scale.data, gpu, b->scale.data, (size_t)a->out * sizeof(float));
  g_assert_true(a->full && b->full);
  g_autofree uint32_t *wide = fetch(cpu, a->full->data, n * sizeof *wide);
  g_autofree uint16_t *half = fetch(gpu, b->full->data, n * fk_dtype_size(b->full->dtype));
  for (size_t i = 0; i < n && b->full->dtype == FK_BF16; i++) g_assert_cmpuint(wide[i], ==, (guint32)half[i] << 16);
}

static void quantised(gconstpointer codes) {
  static const char *const names[] = {
      "transformer_blocks.0.attn.to_q.weight",       "transformer_blocks.1.attn.add_k_proj.weight",
      "transformer_blocks.0.ff.net.2.weight",        "single_transformer_blocks.2.attn.to_v.weight",
      "single_transformer_blocks.4.proj_mlp.weight", "single_transformer_blocks.4.proj_out.weight"};
  Side cpu, gpu;
  if (!load(&gpu, g_getenv("BACKEND") ? g_getenv("BACKEND") : "cuda", (FkDtype)GPOINTER_TO_INT(codes))) return;
  g_assert_true(load(&cpu, "cpu", (FkDtype)GPOINTER_TO_INT(codes)));
  for (size_t i = 0; i < G_N_ELEMENTS(names); i++) compare(&cpu, &gpu, names[i]);
  clear(&cpu);
  clear(&gpu);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  const char *root = g_getenv("FK_SOURCE") ? g_getenv("FK_SOURCE") : FK_ROOT;
  checkpoint = g_build_filename(root, "examples", "demo-model", "checkpoint", NULL);
  g_autofree char *folder = g_build_filename(checkpoint, "transformer", NULL);
  demo = fk_component_open(folder, "diffusion_pytorch_model", NULL);
  g_test_add_data_func("/cuda-weights/e4m3", GINT_TO_POINTER(FK_E4M3), quantised);
  g_test_add_data_func("/cuda-weights/i8", GINT_TO_POINTER(FK_I8), quantised);
  const int status = g_test_run();
  fk_component_free(demo);
  g_free(checkpoint);
  return status;
}
