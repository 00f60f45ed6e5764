/* SPDX-License-Identifier: Apache-2.0 */
/* Adapters in the demo checkpoint: every dialect of one set of changes gives the same weights, the kinds give the
 * numbers that their definitions say, exchanging them leaves no trace, and a malformed file is an error that names it.
 */
#include "adapters.h"
#include "test-files.h"

#include "lora-files.h"

#define RANK 4
#define D 256

static FkModel *model;

/* ---- The model ---- */

/* A word-wise sum of everything that the text encoders and the transformer hold. */
static guint64 weights_hash(void) {
  guint64 h = 0xcbf29ce484222325u;
  for (int i = 0; i < FK_PART_VAE; i++) {
    const FkStore *store = fk_binder_store(model->part[i].binder);
    const guint32 *words = store->memory;
    for (size_t k = 0; k < store->bytes / 4; k++) h = (h ^ words[k]) * 0x100000001b3u;
  }
  return h;
}

static float *weight_at(FkPart part, const char *name, int64_t *cols) {
  const FkBound *bound = fk_binder_find(model->part[part].binder, name);
  g_assert_nonnull(bound);
  *cols = bound->cols;
  return (float *)(void *)((char *)fk_binder_store(model->part[part].binder)->memory + bound->place);
}

static bool set(const char *list, GError **error) {
  bool text;
  return fk_adapters_set(model, list, &text, NULL, NULL, NULL, error);
}

static guint64 hash_with(const char *list) {
  g_autoptr(GError) error = NULL;
  set(list, &error);
  g_assert_no_error(error);
  return weights_hash();
}

/* ---- One set of changes ---- */

/* A module of the transformer, or of an encoder, and what the dialects call it. Those with one `down` are one tensor in
 * BFL's layout: `of` says how many rows that has, in units of this one's, and `first` where this one's begin. */
typedef struct {
  const char *ours, *bfl;
  int rows, cols, first, of;
  bool swap;
  int down; /* which random `down` it has */
} Module;

static const Module modules[] = {
    {"transformer_blocks.0.attn.to_q", "double_blocks.0.img_attn.qkv", D, D, 0, 3 * D, false, 0},
    {"transformer_blocks.0.attn.to_k", "double_blocks.0.img_attn.qkv", D, D, D, 3 * D, false, 0},
    {"transformer_blocks.0.attn.to_v", "double_blocks.0.img_attn.qkv", D, D, 2 * D, 3 * D, false, 0},
    {"transformer_blocks.1.attn.add_q_proj", "double_blocks.1.txt_attn.qkv", D, D, 0, 3 * D, false, 1},
    {"transformer_blocks.1.attn.add_k_proj", "double_blocks.1.txt_attn.qkv", D, D, D, 3 * D, false, 1},
    {"transformer_blocks.1.attn.add_v_proj", "double_blocks.1.txt_attn.qkv", D, D, 2 * D, 3 * D, false, 1},
    {"transformer_blocks.0.attn.to_out.0", "double_blocks.0.img_attn.proj", D, D, 0, D, false, 2},
    {"transformer_blocks.1.attn.to_add_out", "double_blocks.1.txt_attn.proj", D, D, 0, D, false, 3},
    {"transformer_blocks.0.ff.net.0.proj", "double_blocks.0.img_mlp.0", 4 * D, D, 0, 4 * D, false, 4},
    {"transformer_blocks.0.ff.net.2", "double_blocks.0.img_mlp.2", D, 4 * D, 0, D, false, 5},
    {"transformer_blocks.0.ff_context.net.2", "double_blocks.0.txt_mlp.2", D, 4 * D, 0, D, false, 6},
    {"transformer_blocks.1.norm1.linear", "double_blocks.1.img_mod.lin", 6 * D, D, 0, 6 * D, false, 7},
    {"single_transformer_blocks.4.attn.to_q", "single_blocks.4.linear1", D, D, 0, 7 * D, false, 8},
    {"single_transformer_blocks.4.attn.to_k", "single_blocks.4.linear1", D, D, D, 7 * D, false, 8},
    {"single_transformer_blocks.4.attn.to_v", "single_blocks.4.linear1", D, D, 2 * D, 7 * D, false, 8},
    {"single_transformer_blocks.4.proj_mlp", "single_blocks.4.linear1", 4 * D, D, 3 * D, 7 * D, false, 8},
    {"single_transformer_blocks.3.proj_out", "single_blocks.3.linear2", D, 5 * D, 0, D, false, 9},
    {"single_transformer_blocks.0.norm.linear", "single_blocks.0.modulation.lin", 3 * D, D, 0, 3 * D, false, 10},
    {"x_embedder", "img_in", D, 64, 0, D, false, 11},
    {"context_embedder", "txt_in", D, D, 0, D, false, 12},
    {"time_text_embed.timestep_embedder.linear_2", "time_in.out_layer", D, D, 0, D, false, 13},
    {"time_text_embed.guidance_embedder.linear_1", "guidance_in.in_layer", D, D, 0, D, false, 14},
    {"time_text_embed.text_embedder.linear_1", "vector_in.in_layer", D, 128, 0, D, false, 15},
    {"norm_out.linear", "final_layer.adaLN_modulation.1", 2 * D, D, 0, 2 * D, true, 16},
    {"proj_out", "final_layer.linear", 64, D, 0, 64, false, 17},
};

/* Small whole numbers over 8, which every type holds and whose products and sums float32 holds. */
static float *numbers(guint32 seed, size_t n) {
  g_autoptr(GRand) rnd = g_rand_new_with_seed(seed);
  float *values = g_new(float, n);
  for (size_t i = 0; i < n; i++) values[i] = (float)g_rand_int_range(rnd, -3, 4) / 8;
  return values;
}

static float *down_of(const Module *m) {
  return numbers(100 + (guint32)m->down, RANK * (size_t)m->cols);
}

static float *up_of(const Module *m) {
  return numbers(500 + (guint32)(m - modules), RANK * (size_t)m->rows);
}

/* How a dialect writes. */
typedef struct {
  const char *name;
  const char *prefix;
  bool bfl, flat;
  const char *up, *down;
  const char *type;
  enum { ALPHA, METADATA, IN_UP } scale; /* where the factor 2 is */
  bool conv, sparse;                     /* shapes of 1 x 1 convolutions; one block of the rank for each of q, k, v */
} Dialect;

#define AB ".lora_B.weight", ".lora_A.weight"
#define UD ".lora_up.weight", ".lora_down.weight"
static const Dialect dialects[] = {
    {"peft", "transformer.", false, false, AB, "F32", ALPHA, false, false},
    {"peft-metadata", "transformer.", false, false, AB, "F32", METADATA, false, false},
    {"peft-no-alpha", "transformer.", false, false, AB, "F32", IN_UP, false, false},
    {"peft-lora-down", "transformer.", false, false, UD, "F32", ALPHA, false, false},
    {"peft-default", "transformer.", false, false, ".lora_B.default.weight", ".lora_A.default.weight", "F32", ALPHA,
     false, false},
    {"peft-base-model", "base_model.model.", false, false, AB, "F32", ALPHA, false, false},
    {"peft-bare", "", false, false, AB, "BF16", ALPHA, false, false},
    {"diffusers-old", "transformer.", false, false, "_lora.up.weight", "_lora.down.weight", "F32", ALPHA, false, false},
    {"diffusers-linear-layer", "transformer.", false, false, ".lora_linear_layer.up.weight",
     ".lora_linear_layer.down.weight", "F32", ALPHA, false, false},
    {"kohya", "lora_unet_", true, true, UD, "F16", ALPHA, false, false},
    {"kohya-conv", "lora_unet_", true, true, UD, "F32", ALPHA, true, false},
    {"kohya-sparse", "lora_unet_", true, true, UD, "BF16", ALPHA, false, true},
    {"kohya-fp8", "lora_unet_", true, true, UD, "F8_E4M3", ALPHA, false, false},
    {"comfy", "diffusion_model.", true, false, UD, "F32", ALPHA, false, false},
    {"comfy-ab", "diffusion_model.", true, false, AB, "F32", ALPHA, false, false},
    {"comfy-model", "model.diffusion_model.", true, false, AB, "F32", IN_UP, false, false},
    {"bfl-bare", "", true, false, AB, "F32", IN_UP, false, false},
    {"onetrainer", "lora_transformer_", false, true, UD, "BF16", ALPHA, false, false},
    {"lycoris", "lycoris_", false, true, UD, "F32", ALPHA, false, false},
    {"fal", "base_model.model.", true, false, AB, "BF16", IN_UP, false, false},
};

static void put_2d(LoraFile *f, const char *stem, const char *end, int64_t rows, int64_t cols, bool conv,
                   const float *values) {
  g_autofree char *name = g_strconcat(stem, end, NULL);
  g_autofree char *shape = g_strdup_printf(conv ? "[%" G_GINT64_FORMAT ",%" G_GINT64_FORMAT ",1,1]"
                                                : "[%" G_GINT64_FORMAT ",%" G_GINT64_FORMAT "]",
                                           rows, cols);
  lora_put(f, name, shape, values, (size_t)(rows * cols));
}

static void put_alpha(LoraFile *f, const char *stem, float alpha) {
  const char *type = f->type;
  g_autofree char *name = g_strconcat(stem, ".alpha", NULL);
  if (!strcmp(type, "F8_E4M3")) f->type = "F32";
  lora_put(f, name, "[]", &alpha, 1);
  f->type = type;
}

/* Modules first..first+n, which are one in this dialect. */
static void put_module(LoraFile *f, const Dialect *d, const Module *first, int n) {
  const int64_t rank = d->sparse ? RANK * n : RANK, rows = d->bfl ? first->of : first->rows;
  g_autofree char *stem = g_strconcat(d->prefix, d->bfl ? first->bfl : first->ours, NULL);
  g_autofree float *down = g_new0(float, (size_t)(rank * first->cols)), *up = g_new0(float, (size_t)(rank * rows));
  if (d->flat)
    for (char *c = stem + strlen(d->prefix); *c; c++)
      if (*c == '.') *c = '_';
  for (int i = 0; i < n; i++) {
    const Module *m = first + i;
    g_autofree float *one_down = down_of(m), *one_up = up_of(m);
    const int at = d->sparse ? RANK * i : 0;
    memcpy(down + at * m->cols, one_down, sizeof(float) * RANK * (size_t)m->cols);
    for (int r = 0; r < m->rows; r++) {
      const int row = m->swap && d->bfl ? (r + m->rows / 2) % m->rows : r + (d->bfl ? m->first : 0);
      for (int k = 0; k < RANK; k++) up[row * rank + at + k] = one_up[r * RANK + k] * (d->scale == IN_UP ? 2.0f : 1.0f);
    }
  }
  put_2d(f, stem, d->down, rank, first->cols, d->conv, down);
  put_2d(f, stem, d->up, rows, rank, d->conv, up);
  if (d->scale == ALPHA) put_alpha(f, stem, 2.0f * (float)rank);
}

static int together(const Dialect *d, size_t i) {
  int n = 1;
  while (d->bfl && i + (size_t)n < G_N_ELEMENTS(modules) && !strcmp(modules[i].bfl, modules[i + (size_t)n].bfl)) n++;
  return n;
}

static char *write_dialect(const Dialect *d) {
  LoraFile f = lora_file_new();
  f.type = d->type;
  if (d->scale == METADATA)
    g_string_append(f.header,
                    "\"__metadata__\":{\"lora_adapter_metadata\":\"{\\\"transformer.r\\\": 4, "
                    "\\\"transformer.lora_alpha\\\": 4, \\\"transformer.alpha_pattern\\\": {\\\"to_q\\\": 8, "
                    "\\\"linear\\\": 8, \\\"0\\\": 8, \\\"2\\\": 8, \\\"^proj_out\\\": 8, \\\"proj_out\\\": 8, "
                    "\\\"to_k\\\": 8, \\\"to_v\\\": 8, \\\"add_q_proj\\\": 8, \\\"add_k_proj\\\": 8, "
                    "\\\"add_v_proj\\\": 8, \\\"to_add_out\\\": 8, \\\"proj\\\": 8, \\\"proj_mlp\\\": 8, "
                    "\\\"x_embedder\\\": 8, \\\"context_embedder\\\": 8, \\\"linear_1\\\": 8, "
                    "\\\"linear_2\\\": 8}}\"}");
  for (size_t i = 0; i < G_N_ELEMENTS(modules);) {
    const int n = together(d, i);
    put_module(&f, d, &modules[i], n);
    i += (size_t)n;
  }
  return lora_write(&f, d->name);
}

static void all_dialects(void) {
  guint64 first = 0;
  const guint64 plain = hash_with(NULL);
  for (size_t i = 0; i < G_N_ELEMENTS(dialects); i++) {
    g_autofree char *path = write_dialect(&dialects[i]);
    const guint64 hash = hash_with(path);
    g_test_message("%-24s %016" G_GINT64_MODIFIER "x", dialects[i].name, hash);
    if (i == 0) first = hash;
    g_assert_cmpuint(hash, ==, first);
    g_assert_cmpint(fk_loras_unmatched(model->adapters.loras), ==, 0);
  }
  g_assert_cmpuint(first, !=, plain);
  g_assert_cmpuint(hash_with(NULL), ==, plain);
}

/* XLabs' files have the attention's projections alone, no alpha, and of linear2 the columns that read the attention. */
static void xlabs(void) {
  static const struct {
    const char *stem;
    int modules[3], n;
  } names[] = {
      {"double_blocks.0.processor.qkv_lora1", {0, 1, 2}, 3},   {"double_blocks.1.processor.qkv_lora2", {3, 4, 5}, 3},
      {"double_blocks.0.processor.proj_lora1", {6}, 1},        {"double_blocks.1.processor.proj_lora2", {7}, 1},
      {"single_blocks.4.processor.qkv_lora", {12, 13, 14}, 3},
  };
  guint64 hashes[3];
  for (int k = 0; k < 3; k++) { /* peft, XLabs, the same with its prefix */
    LoraFile f = lora_file_new();
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
      g_autofree float *down = down_of(&modules[names[i].modules[0]]), *ups = g_new(float, 3 * RANK * D);
      for (int j = 0; j < names[i].n; j++) {
        const Module *m = &modules[names[i].modules[j]];
        g_autofree float *up = up_of(m), *same = down_of(m);
        g_autofree char *stem = g_strconcat("transformer.", m->ours, NULL);
        memcpy(ups + j * RANK * D, up, sizeof(float) * RANK * D);
        if (k == 0) put_2d(&f, stem, ".lora_B.weight", D, RANK, false, up);
        if (k == 0) put_2d(&f, stem, ".lora_A.weight", RANK, D, false, same);
      }
      g_autofree char *stem = g_strconcat(k == 2 ? "diffusion_model." : "", names[i].stem, NULL);
      if (k) put_2d(&f, stem, ".up.weight", names[i].n * D, RANK, false, ups);
      if (k) put_2d(&f, stem, ".down.weight", RANK, D, false, down);
    }
    g_autofree float *narrow = numbers(7, RANK * D), *wide = g_new0(float, RANK * 5 * D), *up = numbers(8, RANK * D);
    for (int r = 0; r < RANK; r++) memcpy(wide + r * 5 * D, narrow + r * D, sizeof(float) * D);
    g_autofree char *stem = g_strconcat(k == 2 ? "diffusion_model." : "", "single_blocks.3.processor.proj_lora", NULL);
    const char *proj = k ? stem : "transformer.single_transformer_blocks.3.proj_out";
    put_2d(&f, proj, k ? ".up.weight" : ".lora_B.weight", D, RANK, false, up);
    put_2d(&f, proj, k ? ".down.weight" : ".lora_A.weight", RANK, k ? D : 5 * D, false, k ? narrow : wide);
    g_autofree char *path = lora_write(&f, k ? "xlabs" : "xlabs-peft");
    hashes[k] = hash_with(path);
    g_test_message("%-24s %016" G_GINT64_MODIFIER "x", k ? "xlabs" : "peft of the same", hashes[k]);
    g_assert_cmpint(fk_loras_unmatched(model->adapters.loras), ==, 0);
    g_assert_cmpuint(hashes[k], ==, hashes[0]);
  }
}

/* CLIP and T5, and a bias. */
static void text_encoders(void) {
  static const char *const dialects_of[][3] = {
      {"peft", "text_encoder.text_model.encoder.layers.1.mlp.fc1",
       "text_encoder_2.encoder.block.2.layer.1.DenseReluDense.wi_1"},
      {"kohya", "lora_te1_text_model_encoder_layers_1_mlp_fc1", "lora_te3_encoder_block_2_layer_1_DenseReluDense_wi_1"},
      {"kohya-te", "lora_te_text_model_encoder_layers_1_mlp_fc1",
       "lora_te3_encoder_block_2_layer_1_DenseReluDense_wi_1"},
      {"onetrainer", "lora_te1_text_model_encoder_layers_1_mlp_fc1",
       "lora_te2_encoder_block_2_layer_1_DenseReluDense_wi_1"},
      {"comfy", "text_encoders.clip_l.transformer.text_model.encoder.layers.1.mlp.fc1",
       "text_encoders.t5xxl.transformer.encoder.block.2.layer.1.DenseReluDense.wi_1"}};
  g_autofree float *down = numbers(1, 2 * D), *up = numbers(2, 2 * 512), *bias = numbers(3, 512);
  const guint64 plain = hash_with(NULL);
  guint64 first = 0;
  for (size_t i = 0; i < G_N_ELEMENTS(dialects_of); i++) {
    const char *clip = dialects_of[i][1], *t5 = dialects_of[i][2], *a = i ? ".lora_down.weight" : ".lora_A.weight",
               *b = i ? ".lora_up.weight" : ".lora_B.weight";
    g_autofree char *bias_name = g_strconcat(clip, ".diff_b", NULL);
    LoraFile f = lora_file_new();
    put_2d(&f, clip, a, 2, 128, false, down);
    put_2d(&f, clip, b, 512, 2, false, up);
    lora_put(&f, bias_name, "[512]", bias, 512);
    put_2d(&f, t5, a, 2, D, false, down);
    put_2d(&f, t5, b, 512, 2, false, up);
    g_autofree char *path = lora_write(&f, dialects_of[i][0]);
    const guint64 hash = hash_with(path);
    g_test_message("%-24s %016" G_GINT64_MODIFIER "x", dialects_of[i][0], hash);
    if (!i) first = hash;
    g_assert_cmpuint(hash, ==, first);
    g_assert_cmpint(fk_loras_unmatched(model->adapters.loras), ==, 0);
  }
  g_assert_cmpuint(first, !=, plain);
}

/* W + 2 up down, by its definition. */
static void numbers_of_product(void) {
  const Module *m = &modules[1]; /* rows 256.. of a fused tensor */
  int64_t cols;
  hash_with("");
  float *w = weight_at(FK_PART_FLUX, "transformer_blocks.0.attn.to_k.weight", &cols);
  g_autofree float *before = g_memdup2(w, sizeof(float) * D * D), *up = up_of(m), *down = down_of(m);
  g_autofree char *path = write_dialect(&dialects[9]), *list = g_strdup_printf(" %s:-0.5 ", path);
  hash_with(list);
  for (int i = 0; i < D; i++)
    for (int j = 0; j < D; j++) {
      float sum = 0;
      for (int k = 0; k < RANK; k++) sum += up[i * RANK + k] * down[k * D + j];
      g_assert_cmpfloat(w[i * D + j], ==, before[i * D + j] + -1.0f * sum);
    }
}

/* (transfer full) */
static float *random_numbers(int64_t n) {
  float *numbers = g_new(float, (gsize)n);
  for (int64_t i = 0; i < n; i++) numbers[i] = (float)g_test_rand_double_range(-1, 1);
  return numbers;
}

/* What a run gives to rows at..at+n of a [p, q] product in rows of `cols` numbers: the definition, one rounding for
 * each product and each sum, in the order of the rank, whatever the rows come with and however wide vectors are. */
static void bytes_of_product(void) {
  static const struct {
    int64_t p, q, cols, rank, at, n;
  } sizes[] = {{9, 7, 7, 1, 0, 9},
               {16, 300, 300, 5, 0, 16},
               {21, 129, 131, 32, 2, 18},
               {8, 64, 64, 3, 1, 7},
               {13, 1040, 1040, 8, 0, 13}};
  for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
    const int64_t p = sizes[i].p, q = sizes[i].q, cols = sizes[i].cols, rank = sizes[i].rank, n = sizes[i].n;
    g_autoptr(GError) error = NULL;
    g_autofree float *up = random_numbers(p * rank), *down = random_numbers(rank * q);
    g_autofree float *values = random_numbers(n * cols),
                     *expected = g_memdup2(values, (gsize)(n * cols) * sizeof(float));
    g_autofree char *high = g_strdup_printf("[%d,%d]", (int)p, (int)rank),
                    *low = g_strdup_printf("[%d,%d]", (int)rank, (int)q);
    LoraFile f = lora_file_new();
    lora_put(&f, "up", high, up, (size_t)(p * rank));
    lora_put(&f, "down", low, down, (size_t)(rank * q));
    g_autofree char *path = lora_write(&f, "product.safetensors");
    g_autoptr(FkSafetensors) file = fk_safetensors_open(path, &error);
    g_assert_no_error(error);
    const FkDelta delta = {.kind = FK_DELTA_PRODUCT,
                           .file = file,
                           .rows = p,
                           .cols = cols,
                           .weight = 0.7,
                           .scale = 1.3,
                           .part = {fk_safetensors_find(file, "up"), fk_safetensors_find(file, "down")}};
    g_autoptr(GArray) deltas = g_array_new(FALSE, FALSE, sizeof delta);
    g_array_append_val(deltas, delta);
    g_array_append_val(deltas, delta); /* one after the other */
    g_autoptr(FkDeltaRun) run = fk_delta_begin(deltas, sizes[i].at, n, &error);
    g_assert_no_error(error);
    fk_delta_rows(run, 0, n, values);
    for (int64_t k = 0; k < 2 * n * q; k++) {
      const int64_t r = k / 2 / q, j = k / 2 % q;
      volatile float sum = 0, term; /* each is rounded */
      for (int64_t l = 0; l < rank; l++) {
        term = up[(sizes[i].at + r) * rank + l] * down[l * q + j];
        sum = sum + term;
      }
      term = (float)(0.7 * 1.3) * sum;
      expected[r * cols + j] += term;
    }
    g_assert_cmpmem(values, (gsize)(n * cols) * sizeof(float), expected, (gsize)(n * cols) * sizeof(float));
  }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  char message[256];
  FkFailure failure;
  g_autoptr(GError) error = NULL;
  FkBackend *be = fk_backend_open("cpu", -1, 1, &failure, message, sizeof message);
  model = fk_model_open(FK_DEMO_MODEL, be, NULL, true, &error);
  g_assert_no_error(error);
  fk_model_load(model, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_test_add_func("/lora/dialects", all_dialects);
  g_test_add_func("/lora/xlabs", xlabs);
  g_test_add_func("/lora/text-encoders", text_encoders);
  g_test_add_func("/lora/product", numbers_of_product);
  g_test_add_func("/lora/bytes", bytes_of_product);
  const int failed = g_test_run();
  fk_model_free(model);
  fk_backend_close(be);
  scratch_close();
  return failed;
}
