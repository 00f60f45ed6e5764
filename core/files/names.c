/* SPDX-License-Identifier: Apache-2.0 */
/* Canonical names and the tables of what files call them; see names.h. A new layout is a table here, with the part that
 * it is for; how to add one is in CONTRIBUTING.md. */
#include "names.h"

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

const char *fk_part_name(FkPart part) {
  return parts[part].name;
}

/* ---- The layouts ---- */

/* Of a whole CLIP model; the second is its text tower saved by itself. */
static const char *const clip_ignored[] = {"*position_ids", "text_projection.weight", NULL};
static const FkNameRow clip_tower[] = {{"text_model.", "", 0, 0, 0, FK_TRANSFORM_NONE}};
static const FkNameTable clip_tables[] = {{NULL, 0, clip_ignored},
                                          {clip_tower, G_N_ELEMENTS(clip_tower), clip_ignored}};

/* The table of token embeddings is tied: a file has it under one name or under both. */
static const char *const t5_ignored[] = {"encoder.embed_tokens.weight", NULL};
static const FkNameRow t5_rows[] = {
    {"shared.weight", "shared.weight", 0, 0, 0, FK_TRANSFORM_NONE},
    {"shared.weight", "encoder.embed_tokens.weight", 0, 0, 0, FK_TRANSFORM_NONE},
};
static const FkNameTable t5_tables[] = {{t5_rows, G_N_ELEMENTS(t5_rows), t5_ignored}};

static const FkNameTable flux_tables[] = {{NULL, 0, NULL}};
static const FkNameTable vae_tables[] = {{NULL, 0, NULL}};

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

/* Tries the rows that match; the first tensor that is there, with its row (NULL: named as in the model). */
static const FkStTensor *find(const FkNameTable *table, const FkComponent *component, const char *canonical,
                              const FkSafetensors **file, const FkNameRow **row) {
  bool matched = false;
  for (size_t i = 0; i < table->n_rows; i++) {
    g_autofree char *name = translate(&table->rows[i], canonical);
    if (!name) continue;
    matched = true;
    *row = &table->rows[i];
    const FkStTensor *tensor = fk_component_find(component, name, file);
    if (tensor) return tensor;
  }
  *row = NULL;
  return matched ? NULL : fk_component_find(component, canonical, file);
}

const FkNameTable *fk_names_detect(FkPart part, const FkComponent *component, const FkNameTable *tables, size_t n) {
  const FkNameTable *best = &tables[0];
  int most = 0;
  for (size_t i = 0; i < n; i++) {
    int found = 0;
    for (int m = 0; m < MAX_MARKS && parts[part].marks[m]; m++) {
      const FkSafetensors *file;
      const FkNameRow *row;
      found += find(&tables[i], component, parts[part].marks[m], &file, &row) != NULL;
    }
    if (found <= most) continue;
    most = found;
    best = &tables[i];
  }
  return best;
}

/* Of the file's tensor `name`. */
static const FkStTensor *find_scale(const FkNamesPart *p, const char *name, const FkSafetensors **file) {
  const size_t bytes = strlen(name), stem = bytes - strlen("weight");
  if (!p->table->scale || !g_str_has_suffix(name, ".weight")) return NULL;
  g_autofree char *scale = g_strdup_printf("%.*s%s", (int)stem, name, p->table->scale);
  return fk_component_find(p->component, scale, file);
}

bool fk_names_find(const FkNames *names, FkPart part, const char *canonical, FkSource *out) {
  const FkNamesPart *p = &names->part[part];
  const FkNameRow *row = NULL;
  *out = (FkSource){0};
  out->tensor = find(p->table, p->component, canonical, &out->file, &row);
  if (!out->tensor) return false;
  out->scale = find_scale(p, out->tensor->name, &out->scale_file);
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
  const FkNameTable *table = names->part[part].table;
  for (size_t i = 0; i < table->n_rows; i++) {
    char *name = translate(&table->rows[i], canonical);
    if (name) return name;
  }
  return g_strdup(canonical);
}

bool fk_names_ignored(const FkNames *names, FkPart part, const char *tensor) {
  const char *const *pattern = names->part[part].table->ignored;
  for (; pattern && *pattern; pattern++)
    if (g_pattern_match_simple(*pattern, tensor)) return true;
  return false;
}
