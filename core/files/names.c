/* SPDX-License-Identifier: Apache-2.0 */
/* Canonical names and the tables of what files call them; see names.h. A new layout is a table here, with the part that
 * it is for; how to add one is in CONTRIBUTING.md. */
#include "names.h"

#include "file.h"
#include "fk-error.h"

#include <string.h>

#define MAX_STARS 4
#define MAX_MARKS 4

static const struct {
  const char *name;
  const char *marks[MAX_MARKS]; /* canonical names by which layouts are told apart: every model of the part has them */
} parts[FK_PARTS] = {
    [FK_PART_CLIP] = {"text_encoder",
                      {"text_model.embeddings.token_embedding.weight",
                       "text_model.encoder.layers.0.self_attn.q_proj.weight", "text_model.final_layer_norm.weight"}},
    [FK_PART_T5] = {"text_encoder_2",
                    {"shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight",
                     "encoder.final_layer_norm.weight"}},
    [FK_PART_FLUX] = {"transformer",
                      {"x_embedder.weight", "context_embedder.weight", "time_text_embed.text_embedder.linear_1.weight",
                       "norm_out.linear.weight"}},
    [FK_PART_VAE] = {"vae",
                     {"encoder.mid_block.resnets.0.conv1.weight", "decoder.mid_block.resnets.0.conv1.weight",
                      "encoder.conv_norm_out.weight"}},
};

#define MAX_PREFIXES 4
/* What files that hold more than the part, or come from a training of it, put before its names. */
static const char *const prefixes[FK_PARTS][MAX_PREFIXES] = {
    [FK_PART_CLIP] = {"text_encoders.clip_l.transformer.", "clip_l.transformer.", "clip_l."},
    [FK_PART_T5] = {"text_encoders.t5xxl.transformer.", "t5xxl.transformer.", "t5xxl."},
    [FK_PART_FLUX] = {"model.diffusion_model.", "diffusion_model.", "transformer."},
    [FK_PART_VAE] = {"vae.", "first_stage_model."},
};

const char *fk_part_name(FkPart part) {
  return parts[part].name;
}

/* ---- The layouts ---- */

#define COPY(ours, theirs)                                                                                             \
  { ours, theirs, 0, 0, 0, FK_TRANSFORM_NONE }
#define ROWS(ours, theirs, first, count, of)                                                                           \
  { ours, theirs, first, count, of, FK_TRANSFORM_NONE }
#define POINT(ours, theirs)                                                                                            \
  { ours, theirs, 0, 0, 0, FK_TRANSFORM_POINT }

/* Of a whole CLIP model; the second is its text tower saved by itself. */
static const char *const clip_ignored[] = {"*position_ids", "text_projection.weight", "logit_scale", NULL};
static const FkNameRow clip_tower[] = {COPY("text_model.", "")};
static const FkNameTable clip_tables[] = {
    {NULL, 0, clip_ignored, "transformers'"},
    {clip_tower, G_N_ELEMENTS(clip_tower), clip_ignored, "transformers', the text tower alone"}};

/* The table of token embeddings is tied: a file has it under one name or under both. */
static const char *const t5_ignored[] = {"encoder.embed_tokens.weight", "spiece_model", NULL};
static const FkNameRow t5_rows[] = {
    COPY("shared.weight", "shared.weight"),
    COPY("shared.weight", "encoder.embed_tokens.weight"),
};
/* llama.cpp's names, as GGUF files have them. */
#define T5_LAYER(ours, theirs) COPY("encoder.block.*.layer." ours, "enc.blk.*." theirs)
static const FkNameRow t5_gguf[] = {
    COPY("shared", "token_embd"),
    COPY("encoder.final_layer_norm", "enc.output_norm"),
    T5_LAYER("0.SelfAttention.q", "attn_q"),
    T5_LAYER("0.SelfAttention.k", "attn_k"),
    T5_LAYER("0.SelfAttention.v", "attn_v"),
    T5_LAYER("0.SelfAttention.o", "attn_o"),
    T5_LAYER("0.SelfAttention.relative_attention_bias", "attn_rel_b"),
    T5_LAYER("0.layer_norm", "attn_norm"),
    T5_LAYER("1.DenseReluDense.wi_0", "ffn_gate"),
    T5_LAYER("1.DenseReluDense.wi_1", "ffn_up"),
    T5_LAYER("1.DenseReluDense.wo", "ffn_down"),
    T5_LAYER("1.layer_norm", "ffn_norm"),
};
static const FkNameTable t5_tables[] = {{t5_rows, G_N_ELEMENTS(t5_rows), t5_ignored, "transformers'"},
                                        {t5_gguf, G_N_ELEMENTS(t5_gguf), NULL, "llama.cpp's"}};

/* Black Forest Labs' names: what reads the same rows is fused, and the last modulation is (shift, scale). */
#define EMBEDDER(ours, theirs)                                                                                         \
  COPY("time_text_embed." ours ".linear_1", theirs ".in_layer"),                                                       \
      COPY("time_text_embed." ours ".linear_2", theirs ".out_layer")
/* A norm's numbers are "scale"; some files have "weight". */
#define NORM(ours, theirs) COPY(ours ".weight", theirs ".scale"), COPY(ours ".weight", theirs ".weight")
#define STREAM(side, mod, q, k, v, out, norm_q, norm_k, ff)                                                            \
  COPY("transformer_blocks.*." mod, "double_blocks.*." side "_mod.lin"),                                               \
      ROWS("transformer_blocks.*.attn." q, "double_blocks.*." side "_attn.qkv", 0, 1, 3),                              \
      ROWS("transformer_blocks.*.attn." k, "double_blocks.*." side "_attn.qkv", 1, 1, 3),                              \
      ROWS("transformer_blocks.*.attn." v, "double_blocks.*." side "_attn.qkv", 2, 1, 3),                              \
      COPY("transformer_blocks.*.attn." out, "double_blocks.*." side "_attn.proj"),                                    \
      NORM("transformer_blocks.*.attn." norm_q, "double_blocks.*." side "_attn.norm.query_norm"),                      \
      NORM("transformer_blocks.*.attn." norm_k, "double_blocks.*." side "_attn.norm.key_norm"),                        \
      COPY("transformer_blocks.*." ff ".net.0.proj", "double_blocks.*." side "_mlp.0"),                                \
      COPY("transformer_blocks.*." ff ".net.2", "double_blocks.*." side "_mlp.2")
static const FkNameRow flux_bfl[] = {
    COPY("x_embedder", "img_in"),
    COPY("context_embedder", "txt_in"),
    EMBEDDER("timestep_embedder", "time_in"),
    EMBEDDER("text_embedder", "vector_in"),
    EMBEDDER("guidance_embedder", "guidance_in"),
    STREAM("img", "norm1.linear", "to_q", "to_k", "to_v", "to_out.0", "norm_q", "norm_k", "ff"),
    STREAM("txt", "norm1_context.linear", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "norm_added_q",
           "norm_added_k", "ff_context"),
    ROWS("single_transformer_blocks.*.attn.to_q", "single_blocks.*.linear1", 0, 1, 7),
    ROWS("single_transformer_blocks.*.attn.to_k", "single_blocks.*.linear1", 1, 1, 7),
    ROWS("single_transformer_blocks.*.attn.to_v", "single_blocks.*.linear1", 2, 1, 7),
    ROWS("single_transformer_blocks.*.proj_mlp", "single_blocks.*.linear1", 3, 4, 7),
    COPY("single_transformer_blocks.*.proj_out", "single_blocks.*.linear2"),
    NORM("single_transformer_blocks.*.attn.norm_q", "single_blocks.*.norm.query_norm"),
    NORM("single_transformer_blocks.*.attn.norm_k", "single_blocks.*.norm.key_norm"),
    COPY("single_transformer_blocks.*.norm.linear", "single_blocks.*.modulation.lin"),
    COPY("proj_out", "final_layer.linear"),
    {"norm_out.linear", "final_layer.adaLN_modulation.1", 0, 0, 0, FK_TRANSFORM_SWAP_HALVES},
};
static const FkNameTable flux_tables[] = {
    {NULL, 0, NULL, "diffusers'"}, [FK_NAMES_BFL] = {flux_bfl, G_N_ELEMENTS(flux_bfl), NULL, "Black Forest Labs'"}};

/* The names of the latent diffusion code, as in ae.safetensors; the decoder's levels count from the other end. */
#define LEVEL(ours, theirs, ours_move, theirs_move)                                                                    \
  COPY(ours ".resnets.*.conv_shortcut", theirs ".block.*.nin_shortcut"), COPY(ours ".resnets.*.", theirs ".block.*."), \
      COPY(ours "." ours_move ".0.conv", theirs "." theirs_move ".conv")
#define DOWN(n) LEVEL("encoder.down_blocks." n, "encoder.down." n, "downsamplers", "downsample")
#define UP(n, from_end) LEVEL("decoder.up_blocks." n, "decoder.up." from_end, "upsamplers", "upsample")
#define MIDDLE(half)                                                                                                   \
  COPY(half ".mid_block.resnets.0.", half ".mid.block_1."), COPY(half ".mid_block.resnets.1.", half ".mid.block_2."),  \
      COPY(half ".mid_block.attentions.0.group_norm", half ".mid.attn_1.norm"),                                        \
      POINT(half ".mid_block.attentions.0.to_q.weight", half ".mid.attn_1.q.weight"),                                  \
      POINT(half ".mid_block.attentions.0.to_k.weight", half ".mid.attn_1.k.weight"),                                  \
      POINT(half ".mid_block.attentions.0.to_v.weight", half ".mid.attn_1.v.weight"),                                  \
      POINT(half ".mid_block.attentions.0.to_out.0.weight", half ".mid.attn_1.proj_out.weight"),                       \
      COPY(half ".mid_block.attentions.0.to_q", half ".mid.attn_1.q"),                                                 \
      COPY(half ".mid_block.attentions.0.to_k", half ".mid.attn_1.k"),                                                 \
      COPY(half ".mid_block.attentions.0.to_v", half ".mid.attn_1.v"),                                                 \
      COPY(half ".mid_block.attentions.0.to_out.0", half ".mid.attn_1.proj_out"),                                      \
      COPY(half ".conv_norm_out", half ".norm_out")
static const FkNameRow vae_ldm[] = {
    MIDDLE("encoder"), MIDDLE("decoder"), DOWN("0"),    DOWN("1"),    DOWN("2"),
    DOWN("3"),         UP("0", "3"),      UP("1", "2"), UP("2", "1"), UP("3", "0"),
};
static const FkNameTable vae_tables[] = {{NULL, 0, NULL, "diffusers'"},
                                         {vae_ldm, G_N_ELEMENTS(vae_ldm), NULL, "those of latent diffusion"}};

/* Marks of how the numbers of a file are meant, which are seen where its tensors are checked, and the scales of inputs,
 * which whoever computes with expanded weights does not need. */
static const char *const always_ignored[] = {"scaled_fp8",    "*.scaled_fp8",  "*.comfy_quant",
                                             "*.scale_input", "*.input_scale", NULL};

const FkNameTable *fk_name_tables(FkPart part, size_t *n) {
  static const struct {
    const FkNameTable *tables;
    size_t n;
  } all[FK_PARTS] = {[FK_PART_CLIP] = {clip_tables, G_N_ELEMENTS(clip_tables)},
                     [FK_PART_T5] = {t5_tables, G_N_ELEMENTS(t5_tables)},
                     [FK_PART_FLUX] = {flux_tables, G_N_ELEMENTS(flux_tables)},
                     [FK_PART_VAE] = {vae_tables, G_N_ELEMENTS(vae_tables)}};
  *n = all[part].n;
  return all[part].tables;
}

/* ---- Looking names up ---- */

typedef struct {
  const char *text;
  size_t bytes;
} Span;

/* The rest of the name behind what `pattern` covers; NULL: it does not match. star: the texts that stand for '*'. */
static const char *match(const char *pattern, const char *name, Span star[MAX_STARS]) {
  char last = 0;
  for (int stars = 0; *pattern; last = *pattern++) {
    if (*pattern != '*') {
      if (*pattern != *name++) return NULL;
      continue;
    }
    assert(stars < MAX_STARS);
    star[stars] = (Span){name, strcspn(name, ".")};
    if (!star[stars].bytes) return NULL;
    name += star[stars++].bytes;
  }
  return last == '.' || !*name || *name == '.' ? name : NULL;
}

/* What the row calls a canonical name; NULL: the row is not about it. (transfer full) */
static char *translate(const FkNameRow *row, const char *canonical) {
  Span star[MAX_STARS];
  const char *rest = match(row->ours, canonical, star);
  if (!rest) return NULL;
  GString *name = g_string_new(NULL);
  int stars = 0;
  for (const char *c = row->theirs; *c; c++) {
    if (*c == '*') {
      g_string_append_len(name, star[stars].text, (gssize)star[stars].bytes);
      stars++;
    } else {
      g_string_append_c(name, *c);
    }
  }
  g_string_append(name, rest);
  return g_string_free(name, FALSE);
}

static const FkStTensor *find_prefixed(const FkNamesPart *p, const char *name, const FkSafetensors **file) {
  if (!p->prefix) return fk_component_find(p->component, name, file);
  g_autofree char *whole = g_strconcat(p->prefix, name, NULL);
  return fk_component_find(p->component, whole, file);
}

char *fk_names_translate(const FkNameTable *table, const char *canonical, const FkNameRow **row) {
  for (size_t i = 0; i < table->n_rows; i++) {
    char *name = translate(&table->rows[i], canonical);
    if (!name) continue;
    *row = &table->rows[i];
    return name;
  }
  return NULL;
}

/* Tries the rows that match; the first tensor that is there, with its row (NULL: named as in the model). */
static const FkStTensor *find(const FkNamesPart *p, const char *canonical, const FkSafetensors **file,
                              const FkNameRow **row) {
  bool matched = false;
  for (size_t i = 0; i < p->table->n_rows; i++) {
    g_autofree char *name = translate(&p->table->rows[i], canonical);
    if (!name) continue;
    matched = true;
    *row = &p->table->rows[i];
    const FkStTensor *tensor = find_prefixed(p, name, file);
    if (tensor) return tensor;
  }
  *row = NULL;
  return matched ? NULL : find_prefixed(p, canonical, file);
}

static int count_marks(FkPart part, const FkNamesPart *p) {
  int found = 0;
  for (int m = 0; m < MAX_MARKS && parts[part].marks[m]; m++) {
    const FkSafetensors *file;
    const FkNameRow *row;
    found += find(p, parts[part].marks[m], &file, &row) != NULL;
  }
  return found;
}

const FkNameTable *fk_names_detect(FkPart part, const FkComponent *component, const FkNameTable *tables, size_t n) {
  const FkNameTable *best = &tables[0];
  int most = 0;
  for (size_t i = 0; i < n; i++) {
    const int found = count_marks(part, &(FkNamesPart){component, &tables[i], NULL});
    if (found <= most) continue;
    most = found;
    best = &tables[i];
  }
  return best;
}

int fk_names_layout(FkPart part, const FkComponent *component, FkNamesPart *out) {
  size_t n;
  const FkNameTable *tables = fk_name_tables(part, &n);
  int most = 0;
  *out = (FkNamesPart){component, &tables[0], NULL};
  for (int p = -1; p < MAX_PREFIXES && (p < 0 || prefixes[part][p]); p++)
    for (size_t i = 0; i < n; i++) {
      const FkNamesPart tried = {component, &tables[i], p < 0 ? NULL : prefixes[part][p]};
      const int found = count_marks(part, &tried);
      if (found <= most) continue;
      most = found;
      *out = tried;
    }
  return most;
}

/* What stands beside the file's tensor `name` (X.weight) as X and `suffix`. */
static const FkStTensor *find_beside(const FkNamesPart *p, const char *name, const char *suffix,
                                     const FkSafetensors **file) {
  if (!g_str_has_suffix(name, ".weight")) return NULL;
  g_autofree char *beside = g_strdup_printf("%.*s%s", (int)(strlen(name) - strlen("weight")), name, suffix);
  return fk_component_find(p->component, beside, file);
}

bool fk_names_find(const FkNames *names, FkPart part, const char *canonical, FkSource *out) {
  const FkNamesPart *p = &names->part[part];
  const FkNameRow *row = NULL;
  *out = (FkSource){0};
  out->tensor = find(p, canonical, &out->file, &row);
  if (!out->tensor) return false;
  out->scale = find_beside(p, out->tensor->name, "scale_weight", &out->scale_file);
  if (!out->scale) out->scale = find_beside(p, out->tensor->name, "weight_scale", &out->scale_file);
  out->scale2 = find_beside(p, out->tensor->name, "weight_scale_2", &out->scale2_file);
  out->rows = out->tensor->rank ? out->tensor->dim[0] : 1;
  if (!row) return true;
  out->transform = row->transform;
  if (!row->of) return true;
  out->of = row->of;
  out->count = row->count;
  out->first_row = out->rows / row->of * row->first;
  out->rows = out->rows / row->of * row->count;
  return true;
}

char *fk_names_expected(const FkNames *names, FkPart part, const char *canonical) {
  const FkNamesPart *p = &names->part[part];
  const FkNameRow *row;
  g_autofree char *name = fk_names_translate(p->table, canonical, &row);
  return g_strconcat(p->prefix ? p->prefix : "", name ? name : canonical, NULL);
}

static bool matches(const char *const *patterns, const char *name) {
  for (; patterns && *patterns; patterns++)
    if (g_pattern_match_simple(*patterns, name)) return true;
  return false;
}

bool fk_names_ignored(const FkNames *names, FkPart part, const char *tensor) {
  const FkNamesPart *p = &names->part[part];
  if (p->prefix && !g_str_has_prefix(tensor, p->prefix)) return true;
  const char *name = p->prefix ? tensor + strlen(p->prefix) : tensor;
  return matches(p->table->ignored, name) || matches(always_ignored, name);
}

bool fk_names_claim(const FkNames *names, const FkSafetensors *file, GError **error) {
  static const char *const useless[] = {"*.logit_scale", "*.spiece_model", "model_ema.*", NULL};
  g_autofree char *first = NULL;
  int unknown = 0;
  for (size_t i = 0; i < fk_safetensors_count(file); i++) {
    const char *name = fk_safetensors_at(file, i)->name;
    bool claimed = matches(useless, name) || matches(always_ignored, name);
    for (int part = 0; part < FK_PARTS && !claimed; part++) {
      const FkNamesPart *p = &names->part[part];
      claimed = p->component && (!p->prefix || g_str_has_prefix(name, p->prefix));
    }
    if (claimed) continue;
    unknown++;
    if (!first) first = fk_shown_name(name);
  }
  if (!unknown) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_MISMATCH, "%s: tensor \"%s\" is of no part of a model (%d such)",
              fk_safetensors_path(file), first, unknown);
  return false;
}
