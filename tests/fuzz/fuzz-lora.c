/* SPDX-License-Identifier: Apache-2.0 */
/* An adapter's file for a small model: refused, or every row that it changes can be made. An input whose first byte is
 * 'm' describes tensors, so that names, types, shapes and offsets fit each other more often than by chance; any other
 * is the file itself. */
#include "fuzz.h"

#include "lora.h"

#include <string.h>

#define D 8

static FkBinder *binders[FK_PARTS];
static FkWeight weights[16];
static FkTensor vectors[8];

static const char *const stems[] = {"transformer.transformer_blocks.0.attn.to_q",
                                    "transformer_blocks.0.attn.to_k",
                                    "lora_unet_double_blocks_0_img_attn_qkv",
                                    "diffusion_model.single_blocks.0.linear1",
                                    "base_model.model.single_blocks.0.linear2",
                                    "single_blocks.0.processor.qkv",
                                    "single_blocks.0.processor.proj",
                                    "lora_transformer_norm_out_linear",
                                    "lora_unet_final_layer_adaLN_modulation_1",
                                    "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
                                    "lora_te3_encoder_block_0_layer_0_SelfAttention_q",
                                    "transformer.x_embedder",
                                    "transformer.transformer_blocks.0.attn.norm_q",
                                    "elsewhere"};
static const char *const ends[] = {".lora_A.weight",
                                   ".lora_B.weight",
                                   ".lora_down.weight",
                                   ".lora_up.weight",
                                   "_lora.down.weight",
                                   "_lora.up.weight",
                                   ".down.weight",
                                   ".up.weight",
                                   ".alpha",
                                   ".dora_scale",
                                   ".lora_magnitude_vector",
                                   ".lora_B.bias",
                                   ".diff",
                                   ".diff_b",
                                   ".hada_w1_a",
                                   ".hada_w1_b",
                                   ".hada_w2_a",
                                   ".hada_w2_b",
                                   ".lokr_w1",
                                   ".lokr_w1_a",
                                   ".lokr_w1_b",
                                   ".lokr_w2",
                                   ".lokr_w2_a",
                                   ".lokr_w2_b",
                                   ".lora_mid.weight",
                                   ""};

static void bind_all(void) {
  char message[256];
  FkFailure failure;
  FkBackend *be = fk_backend_open("null", -1, 1, &failure, message, sizeof message);
  FkWeight *w = weights;
  for (int i = FK_PART_CLIP; i <= FK_PART_FLUX; i++) binders[i] = fk_binder_new(be, NULL, NULL, (FkPart)i);
  FkBinder *flux = binders[FK_PART_FLUX];
  fk_bind_stack(flux, w++, &vectors[0], FK_ROLE_QKV, D, 3, (int64_t[]){D, D, D},
                (const char *const[]){"transformer_blocks.0.attn.to_k", "transformer_blocks.0.attn.to_v",
                                      "transformer_blocks.0.attn.to_q"});
  fk_bind_stack(flux, w++, &vectors[1], FK_ROLE_SINGLE_IN, D, 4, (int64_t[]){D, D, D, 4 * D},
                (const char *const[]){"single_transformer_blocks.0.attn.to_k", "single_transformer_blocks.0.attn.to_v",
                                      "single_transformer_blocks.0.attn.to_q", "single_transformer_blocks.0.proj_mlp"});
  fk_bind_matrix(flux, w++, FK_ROLE_SINGLE_OUT, D, 5 * D, "single_transformer_blocks.0.proj_out.weight");
  fk_bind_matrix(flux, w++, FK_ROLE_MODULATION, 2 * D, D, "norm_out.linear.weight");
  fk_bind_matrix(flux, w++, FK_ROLE_EMBED, D, 4, "x_embedder.weight");
  fk_bind_vector(flux, &vectors[2], D, "transformer_blocks.0.attn.norm_q.weight");
  fk_bind_matrix(binders[FK_PART_CLIP], w++, FK_ROLE_EMBED, D, D,
                 "text_model.encoder.layers.0.self_attn.q_proj.weight");
  fk_bind_vector(binders[FK_PART_CLIP], &vectors[3], D, "text_model.encoder.layers.0.self_attn.q_proj.bias");
  fk_bind_matrix(binders[FK_PART_T5], w++, FK_ROLE_EMBED, D, D, "encoder.block.0.layer.0.SelfAttention.q.weight");
}

/* (transfer full): eight bytes a tensor: stem, end, type, rank, dimensions; what is left is repeated as data. */
static GByteArray *describe(const uint8_t *data, size_t size) {
  static const char *const types[] = {"F32", "F16", "BF16", "F8_E4M3", "I8", "F64"};
  static const int bytes[] = {4, 2, 2, 1, 1, 8}, sizes[] = {1, 2, 3, 4, 8, 16, 24, 32, 40, 56, 0, 2000};
  g_autoptr(GString) header = g_string_new("{\"__metadata__\":{\"lora_adapter_metadata\":\"");
  size_t n = MIN(size ? data[0] % 12u : 0u, size / 8), total = 0;
  g_string_append_printf(header, "{\\\"transformer.lora_alpha\\\": %d}\"}", size ? data[0] / 12 : 1);
  for (size_t i = 0; i < n; i++) {
    const uint8_t *t = data + 8 * i;
    const int type = t[3] % 6, rank = t[4] % 5;
    size_t count = (size_t)bytes[type];
    g_string_append_printf(header, ",\"%s%s\":{\"dtype\":\"%s\",\"shape\":[", stems[t[1] % G_N_ELEMENTS(stems)],
                           ends[t[2] % G_N_ELEMENTS(ends)], types[type]);
    for (int k = 0; k < rank; k++) {
      const int dim = k < 2 ? sizes[t[5 + k] % G_N_ELEMENTS(sizes)] : t[7] ? 1 : 2;
      g_string_append_printf(header, "%s%d", k ? "," : "", dim);
      count *= (size_t)dim;
    }
    g_string_append_printf(header, "],\"data_offsets\":[%zu,%zu]}", total, total + count);
    total += count;
    if (total > 1u << 20) return NULL;
  }
  g_string_append_c(header, '}');
  GByteArray *file = g_byte_array_new();
  const guint64 length = GUINT64_TO_LE((guint64)header->len);
  g_byte_array_append(file, (const guint8 *)&length, sizeof length);
  g_byte_array_append(file, (const guint8 *)header->str, (guint)header->len);
  const guint at = file->len;
  g_byte_array_set_size(file, at + (guint)total);
  for (size_t i = 0; i < total; i++) file->data[at + i] = size > 8 * n ? data[8 * n + i % (size - 8 * n)] : 0;
  return file;
}

static void make_rows(FkPart part, const char *name, const FkDeltas *deltas) {
  const FkBound *bound = fk_binder_find(binders[part], name);
  g_autoptr(GError) error = NULL;
  g_assert_nonnull(bound);
  for (int64_t at = 0; at < bound->rows; at += 5) { /* rows that do not begin where the file's halves and thirds do */
    const int64_t n = MIN(5, bound->rows - at);
    g_autofree float *rows = g_new0(float, (gsize)(n * bound->cols));
    g_autoptr(FkDeltaRun) run = fk_delta_begin(deltas, at, n, &error);
    g_assert_no_error(error);
    fk_delta_rows(run, 0, n, rows);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static FuzzFile file;
  if (!file.path) {
    file = fuzz_file(fuzz_folder(), "a.safetensors");
    bind_all();
  }
  g_autoptr(GByteArray) made = size && data[0] == 'm' ? describe(data + 1, size - 1) : NULL;
  fuzz_write(&file, made ? made->data : data, made ? made->len : size);
  g_autoptr(GError) error = NULL;
  g_autofree char *list = g_strconcat(file.path, ":0.5", NULL);
  g_autoptr(FkLoras) loras = fk_loras_open(list, binders, &error);
  fuzz_check(error, loras != NULL);
  if (!loras) return 0;
  g_autofree char *text = fk_loras_text(loras);
  g_assert_true(g_utf8_validate(text, -1, NULL));
  for (int part = 0; part < FK_PARTS; part++) {
    GHashTableIter it;
    gpointer name, deltas;
    g_hash_table_iter_init(&it, fk_loras_deltas(loras, (FkPart)part));
    while (g_hash_table_iter_next(&it, &name, &deltas)) make_rows((FkPart)part, name, deltas);
  }
  return 0;
}
