/* SPDX-License-Identifier: Apache-2.0 */
/* Weights that arrive on the device by staging buffers: the demo transformer with quantised blocks, modulations and
 * their twins has the codes, scales and numbers that the same files give on the CPU, whether the device makes the codes
 * or the host does, or the files have them; and with adapters the bytes that the host makes of them. Environment:
 * BACKEND (default cuda; cpu tries the test itself), FK_SOURCE (the project's folder). */
#include "../adapted-reference.h"
#include "flux.h"
#include "lora.h"
#include "quantize.h"

#include <stdio.h>
#include <string.h>

typedef struct {
  FkBackend *be;
  FkOps host; /* the backend's without what it does on its side */
  FkBinder *binder;
  FkFlux flux;
} Side;

static char *checkpoint; /* the demo's folder */
static FkComponent *demo;

/* NULL: there is no such device, and the test is skipped. */
static FkBackend *open_or_skip(const char *backend) {
  char message[256];
  FkFailure failure;
  FkBackend *be = fk_backend_open(backend, 0, 0, &failure, message, sizeof message);
  if (!be) g_test_skip(message);
  return be;
}

/* on_host: the loader makes codes and adds adapters. */
static bool load_as(Side *s, const char *backend, const FkForm *form, bool on_host) {
  FkConfig config;
  g_autoptr(GError) error = NULL;
  s->be = open_or_skip(backend);
  if (!s->be) return false;
  s->host = *s->be->ops;
  s->host.commit_codes = NULL;
  s->host.commit_adapted = NULL;
  if (on_host) s->be->ops = &s->host;
  FkPrecision precision = fk_precision_uniform(s->be->dtype);
  for (int role = FK_ROLE_MODULATION; form && role <= FK_ROLE_SINGLE_OUT; role++) precision.form[role] = *form;
  size_t n;
  const FkNameTable *tables = fk_name_tables(FK_PART_FLUX, &n);
  const FkNames names = {.part[FK_PART_FLUX] = {demo, fk_names_detect(FK_PART_FLUX, demo, tables, n)}};
  s->binder = fk_binder_new(s->be, &precision, &names, FK_PART_FLUX);
  g_assert_true(fk_config_load(&config, checkpoint, &error));
  fk_flux_init(&s->flux, &config.flux, s->binder);
  g_assert_true(fk_binder_finish(s->binder, &error) && fk_binder_load(s->binder, NULL, NULL, NULL, &error));
  return true;
}

static bool load(Side *s, const char *backend, FkDtype codes, bool on_host) {
  return load_as(s, backend, &(FkForm){.dtype = codes, .scale = FK_SCALE_ROW, .twin = true}, on_host);
}

static bool load_plain(Side *s, const char *backend, bool on_host) {
  return load_as(s, backend, NULL, on_host);
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
  FkBackend *be = open_or_skip("cuda");
  if (!be) return;
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

/* Numbers of one size, with some that are subnormal, -0 or large among them. */
static float made(uint32_t *state, int64_t i) {
  *state = *state * 1664525u + 1013904223u;
  const float value = (float)(int32_t)*state * 0x1p-31f;
  return i % 61 == 7 ? 0x1p-130f * value : i % 97 == 3 ? -0.0f : i % 89 == 5 ? 1e20f * value : value;
}

static void put(void *to, FkDtype dtype, int64_t i, float value) {
  if (dtype == FK_F32)
    ((float *)to)[i] = value;
  else
    ((uint16_t *)to)[i] = dtype == FK_BF16 ? fk_f32_to_bf16(value) : fk_f32_to_f16(value > 60000 ? 60000 : value);
}

/* Numbers with adapters, to the bit, in place and from the buffer: ranks behind 64, fewer columns than the matrix has,
 * sizes that no tile divides, and rows that take several launches. */
static void adapted(void) {
  static const struct {
    FkDtype as, from;
    bool in_place;
    int64_t rows, cols;
    int n;
    int64_t rank[3], q[3];
  } cases[] = {{FK_BF16, FK_BF16, true, 600, 3072, 1, {32}, {3072}},
               {FK_BF16, FK_BF16, false, 600, 3072, 1, {32}, {3072}},
               {FK_BF16, FK_BF16, true, 60, 15360, 1, {128}, {15360}},
               {FK_BF16, FK_F32, false, 60, 15360, 1, {128}, {15360}},
               {FK_BF16, FK_F32, false, 900, 3072, 2, {16, 64}, {3072, 3072}},
               {FK_BF16, FK_F16, false, 777, 1000, 3, {1, 65, 130}, {1000, 64, 999}},
               {FK_BF16, FK_BF16, true, 37, 101, 2, {3, 200}, {101, 1}},
               {FK_F32, FK_F32, true, 1, 16, 1, {4}, {16}},
               {FK_F32, FK_BF16, false, 300, 257, 1, {7}, {257}}};
  FkBackend *be = open_or_skip("cuda");
  if (!be) return;
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    const int64_t rows = cases[i].rows, cols = cases[i].cols;
    const size_t n = (size_t)(rows * cols), bytes = n * fk_dtype_size(cases[i].as);
    FkAdapted m = {.rows = rows, .cols = cols, .from = cases[i].from, .in_place = cases[i].in_place, .n = cases[i].n};
    for (int t = 0; t < m.n; t++) {
      m.term[t].rank = cases[i].rank[t];
      m.term[t].q = cases[i].q[t];
      m.term[t].scale = 0.37f + (float)t;
    }
    const size_t begin = fk_adapted_begin(&m),
                 operands = fk_adapted_right(&m) / 4 + (size_t)(rows * fk_adapted_ranks(&m));
    void *buffer = be->ops->stage(be, (int)(i % 8), begin + operands * 4), *to = be->ops->alloc(be, bytes);
    g_assert_true(buffer && to);
    g_autofree void *want = g_malloc0(bytes), *got = g_malloc(bytes);
    uint32_t state = (uint32_t)i;
    for (size_t k = 0; k < n; k++) put(m.in_place ? want : buffer, m.from, (int64_t)k, made(&state, (int64_t)k));
    for (size_t k = 0; k < operands; k++)
      ((float *)(void *)((char *)buffer + begin))[k] = made(&state, (int64_t)k + 11);
    be->ops->upload(be, to, want, bytes);
    be->ops->commit_adapted(be, (int)(i % 8), to, cases[i].as, &m);
    adapted_reference(want, cases[i].as, buffer, &m);
    be->ops->download(be, got, to, bytes);
    g_assert_true(fk_backend_sync(be));
    int64_t other = 0, none = 0;
    for (size_t k = 0; k < n; k++) {
      const float a = adapted_number(want, cases[i].as, (int64_t)k), b = adapted_number(got, cases[i].as, (int64_t)k);
      none += a != a;
      other += a != a ? b == b : memcmp(&a, &b, sizeof a) != 0;
    }
    g_test_message("%d x %d, %d terms: %d numbers differ, %d are none", (int)rows, (int)cols, m.n, (int)other,
                   (int)none);
    g_assert_cmpint(other, ==, 0);
    be->ops->release(be, to);
  }
  fk_backend_close(be);
}

/* ---- Adapters of files ---- */

static void adapt(Side *s, const char *list) {
  g_autoptr(GError) error = NULL;
  FkBinder *binders[FK_PARTS] = {[FK_PART_FLUX] = s->binder};
  g_autoptr(FkLoras) loras = *list ? fk_loras_open(list, binders, &error) : NULL;
  g_assert_no_error(error);
  g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
  g_autoptr(GPtrArray) all = fk_binder_all(s->binder);
  for (guint i = 0; i < all->len; i++) g_hash_table_add(names, ((FkBound *)all->pdata[i])->name);
  fk_binder_adapt(s->binder, loras ? fk_loras_deltas(loras, FK_PART_FLUX) : NULL);
  g_assert_true(fk_binder_reload(s->binder, names, NULL, NULL, NULL, &error));
  fk_binder_adapt(s->binder, NULL);
}

static void same_bound(const Side *a, const Side *b, const FkBound *bound) {
  const size_t size = fk_dtype_size(bound->weight ? bound->weight->dtype : FK_F32);
  same_bytes(a, (char *)fk_binder_store(a->binder)->memory + bound->place, b,
             (char *)fk_binder_store(b->binder)->memory + bound->place, (size_t)(bound->rows * bound->cols) * size);
}

/* The demo's adapter, another scale of it, two files, kinds that the device does not add, and none, from each other:
 * the whole transformer has the bytes that the same device has where the host adds. */
static void merged(void) {
  const char *backend = g_getenv("BACKEND") ? g_getenv("BACKEND") : "cuda";
  const char *root = g_getenv("FK_SOURCE") ? g_getenv("FK_SOURCE") : FK_ROOT;
  g_autofree char *one = g_build_filename(root, "examples", "demo-model", "cyanotype.safetensors", NULL);
  g_autofree char *two = g_build_filename(root, "tests", "golden", "lora", "second.safetensors", NULL);
  g_autofree char *kinds = g_build_filename(root, "tests", "golden", "lora", "kinds.safetensors", NULL);
  g_autofree char *both = g_strdup_printf("%s:0.5;%s", two, one), *mixed = g_strdup_printf("%s;%s:-0.25", kinds, one);
  const char *const lists[] = {one, both, "", mixed, "", two, one, ""};
  Side host, device;
  if (!load_plain(&device, backend, false)) return;
  g_assert_true(load_plain(&host, backend, true));
  for (size_t i = 0; i < G_N_ELEMENTS(lists); i++) {
    adapt(&host, lists[i]);
    adapt(&device, lists[i]);
    g_autoptr(GPtrArray) all = fk_binder_all(host.binder);
    for (guint k = 0; k < all->len; k++) same_bound(&host, &device, all->pdata[k]);
  }
  clear(&host);
  clear(&device);
}

/* ---- Codes of files ---- */

static void same_codes(const Side *a, const Side *b) {
  g_autoptr(GPtrArray) all = fk_binder_all(a->binder);
  for (guint i = 0; i < all->len; i++) {
    const FkBound *bound = all->pdata[i], *other = fk_binder_find(b->binder, bound->name);
    const FkWeight *x = bound->weight, *y = other->weight;
    if (!x || x->dtype != FK_E4M3) continue;
    same_bytes(a, (char *)x->data + bound->first * x->in, b, (char *)y->data + other->first * y->in,
               (size_t)(bound->rows * x->in));
    same_bytes(a, (float *)x->scale.data + bound->first, b, (float *)y->scale.data + other->first,
               (size_t)bound->rows * sizeof(float));
  }
}

/* A file of E4M3, of which some matrices are bfloat16: the host's bytes, before, with and after an adapter. */
static void of_files(void) {
  static const char *const forms[] = {"fp8", "fp8-rows", "fp8-mixed", "F8_E4M3"};
  const char *backend = g_getenv("BACKEND") ? g_getenv("BACKEND") : "cuda";
  const char *root = g_getenv("FK_SOURCE") ? g_getenv("FK_SOURCE") : FK_ROOT;
  g_autofree char *script = g_build_filename(root, "tests", "coded-model.py", NULL);
  g_autofree char *adapter = g_build_filename(root, "examples", "demo-model", "cyanotype.safetensors", NULL);
  g_autofree char *made = g_dir_make_tmp("fk-codes-XXXXXX", NULL);
  const FkForm form = {.dtype = FK_E4M3, .scale = FK_SCALE_ROW};
  FkComponent *plain = demo;
  for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
    const char *const command[] = {"python3", script, checkpoint, made, forms[i], NULL};
    g_autofree char *flux = g_strdup_printf("%s/%s-flux.safetensors", made, forms[i]);
    g_autofree char *t5 = g_strdup_printf("%s/%s-t5.safetensors", made, forms[i]);
    int status = 1;
    g_assert_true(
        g_spawn_sync(NULL, (char **)command, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, &status, NULL));
    g_assert_cmpint(status, ==, 0);
    demo = fk_component_open_file(flux, NULL);
    Side cpu, gpu;
    const bool there = load_as(&gpu, backend, &form, false);
    for (int turn = 0; there && turn < 3; turn++) {
      if (!turn) g_assert_true(load_as(&cpu, "cpu", &form, false));
      if (turn) adapt(&cpu, turn == 1 ? adapter : "");
      if (turn) adapt(&gpu, turn == 1 ? adapter : "");
      same_codes(&cpu, &gpu);
    }
    if (there) clear(&cpu);
    if (there) clear(&gpu);
    fk_component_free(demo);
    remove(flux);
    remove(t5);
  }
  remove(made);
  demo = plain;
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
  g_test_add_func("/cuda-weights/adapted", adapted);
  g_test_add_func("/cuda-weights/merged", merged);
  g_test_add_func("/cuda-weights/of-files", of_files);
  const int status = g_test_run();
  fk_component_free(demo);
  g_free(checkpoint);
  return status;
}
