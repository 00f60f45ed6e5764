/* SPDX-License-Identifier: Apache-2.0 */
/* Weights that arrive on the device by staging buffers: the demo transformer with quantised blocks, modulations and
 * their twins has the codes, scales and numbers that the same files give on the CPU, whether the device makes the codes
 * or the host does. Environment: BACKEND (default
 * cuda; cpu tries the test itself), FK_SOURCE (the project's folder). */
#include "flux.h"
#include "quantize.h"

#include <string.h>

typedef struct {
  FkBackend *be;
  FkOps host_codes; /* the backend's without commit_codes */
  FkBinder *binder;
  FkFlux flux;
} Side;

static char *checkpoint; /* the demo's folder */
static FkComponent *demo;

/* on_host: the loader makes the codes. */
static bool load(Side *s, const char *backend, FkDtype codes, bool on_host) {
  char message[256];
  FkFailure failure;
  FkConfig config;
  g_autoptr(GError) error = NULL;
  s->be = fk_backend_open(backend, 0, 0, &failure, message, sizeof message);
  if (!s->be) {
    g_test_skip(message);
    return false;
  }
  s->host_codes = *s->be->ops;
  s->host_codes.commit_codes = NULL;
  if (on_host) s->be->ops = &s->host_codes;
  FkPrecision precision = fk_precision_uniform(s->be->dtype);
  for (int role = FK_ROLE_MODULATION; role <= FK_ROLE_SINGLE_OUT; role++)
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
      "transformer_blocks.1.norm1.linear.weight",    "norm_out.linear.weight",
      "transformer_blocks.0.ff.net.2.weight",        "single_transformer_blocks.2.attn.to_v.weight",
      "single_transformer_blocks.4.proj_mlp.weight", "single_transformer_blocks.4.proj_out.weight"};
  const char *backend = g_getenv("BACKEND") ? g_getenv("BACKEND") : "cuda";
  Side cpu, gpu;
  for (int on_host = 0; on_host < 2; on_host++) {
    if (!load(&gpu, backend, (FkDtype)GPOINTER_TO_INT(codes), on_host)) return;
    g_assert_true(load(&cpu, "cpu", (FkDtype)GPOINTER_TO_INT(codes), false));
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) compare(&cpu, &gpu, names[i]);
    clear(&cpu);
    clear(&gpu);
  }
}

/* Bits of bfloat16, all of them, and numbers beside them: rows with every kind of amax. */
static void fill_rows(void *to, FkDtype dtype, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < cols; c++) {
      const uint16_t any = (uint16_t)(r * 2654435761u + c * 40503u);
      const uint16_t tame = (uint16_t)(any & 0x80ff) | (uint16_t)((r % 250) << 7 & 0x7f80); /* one size of a row */
      const uint16_t bits = r % 17 == 0 ? any : r % 17 == 1 && c % 3 ? 0 : tame;
      if (dtype == FK_F32)
        ((uint32_t *)to)[r * cols + c] = (uint32_t)bits << 16 | (r % 17 ? any : 0);
      else
        ((uint16_t *)to)[r * cols + c] = bits;
    }
}

/* Codes and scales as the loader makes them, to the bit: subnormal numbers, infinities and NaN too. */
static void committed(void) {
  static const struct {
    FkDtype from;
    int64_t rows, cols;
  } cases[] = {{FK_BF16, 300, 3072},  {FK_BF16, 70, 256}, {FK_BF16, 40, 15360}, {FK_BF16, 1, 16},
               {FK_BF16, 2047, 4096}, {FK_BF16, 37, 101}, {FK_BF16, 9, 30000},  {FK_F32, 260, 1024},
               {FK_F32, 1365, 3072},  {FK_F32, 33, 77},   {FK_F16, 50, 264}};
  char message[256];
  FkFailure failure;
  FkBackend *be = fk_backend_open("cuda", 0, 0, &failure, message, sizeof message);
  if (!be) {
    g_test_skip(message);
    return;
  }
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    const int64_t rows = cases[i].rows, cols = cases[i].cols;
    const size_t size = fk_dtype_size(cases[i].from), n = (size_t)(rows * cols);
    void *buffer = be->ops->stage(be, (int)(i % 8), n * size);
    void *codes = be->ops->alloc(be, n), *scales = be->ops->alloc(be, (size_t)rows * sizeof(float));
    g_assert_true(buffer && codes && scales);
    fill_rows(buffer, cases[i].from, rows, cols);
    g_autofree void *numbers = g_memdup2(buffer, n * size);
    be->ops->commit_codes(be, (int)(i % 8), codes, scales, cases[i].from, rows, cols);
    g_autofree uint8_t *got = g_malloc(n), *want = g_malloc(n);
    g_autofree float *got_scales = g_new(float, rows), *row = g_new(float, cols);
    be->ops->download(be, got, codes, n);
    be->ops->download(be, got_scales, scales, (size_t)rows * sizeof(float));
    g_assert_true(fk_backend_sync(be));
    int64_t other = 0, other_scales = 0;
    for (int64_t r = 0; r < rows; r++) {
      for (int64_t c = 0; c < cols; c++) {
        const void *at = (char *)numbers + (size_t)(r * cols + c) * size;
        row[c] = cases[i].from == FK_F32    ? *(const float *)at
                 : cases[i].from == FK_BF16 ? fk_bf16_to_f32(*(const uint16_t *)at)
                                            : fk_f16_to_f32(*(const uint16_t *)at);
      }
      const float scale = fk_quant_row(want + r * cols, FK_E4M3, row, cols);
      other_scales += memcmp(&scale, &got_scales[r], sizeof scale) != 0;
      for (int64_t c = 0; c < cols; c++) other += want[r * cols + c] != got[r * cols + c];
    }
    g_test_message("%d x %d of type %d: %d codes, %d scales differ", (int)rows, (int)cols, (int)cases[i].from,
                   (int)other, (int)other_scales);
    g_assert_true(other == 0 && other_scales == 0);
    be->ops->release(be, codes);
    be->ops->release(be, scales);
  }
  fk_backend_close(be);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  const char *root = g_getenv("FK_SOURCE") ? g_getenv("FK_SOURCE") : FK_ROOT;
  checkpoint = g_build_filename(root, "examples", "demo-model", "checkpoint", NULL);
  g_autofree char *folder = g_build_filename(checkpoint, "transformer", NULL);
  demo = fk_component_open(folder, "diffusion_pytorch_model", NULL);
  g_test_add_data_func("/cuda-weights/e4m3", GINT_TO_POINTER(FK_E4M3), quantised);
  g_test_add_data_func("/cuda-weights/i8", GINT_TO_POINTER(FK_I8), quantised);
  g_test_add_func("/cuda-weights/committed", committed);
  const int status = g_test_run();
  fk_component_free(demo);
  g_free(checkpoint);
  return status;
}
