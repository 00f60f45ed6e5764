/* SPDX-License-Identifier: Apache-2.0 */
/* The dialects. Names with '_' for '.' cannot be taken apart ("to_out_0", "add_q_proj"), so nothing is: each module of
 * the model is spelled in every way, and a file's names are looked up. A new dialect is a row of `spellings`, and a
 * table of names where it has its own. */
#include "lora-names.h"

#include "json-scan.h"

#include <string.h>

/* XLabs': the attention's projections alone, and of linear2 the columns that read the attention. */
#define ROWS(ours, theirs, first, count, of)                                                                           \
  { ours, theirs, first, count, of, FK_TRANSFORM_NONE }
static const FkNameRow xlabs_rows[] = {
    ROWS("transformer_blocks.*.attn.to_q", "double_blocks.*.processor.qkv_lora1", 0, 1, 3),
    ROWS("transformer_blocks.*.attn.to_k", "double_blocks.*.processor.qkv_lora1", 1, 1, 3),
    ROWS("transformer_blocks.*.attn.to_v", "double_blocks.*.processor.qkv_lora1", 2, 1, 3),
    ROWS("transformer_blocks.*.attn.add_q_proj", "double_blocks.*.processor.qkv_lora2", 0, 1, 3),
    ROWS("transformer_blocks.*.attn.add_k_proj", "double_blocks.*.processor.qkv_lora2", 1, 1, 3),
    ROWS("transformer_blocks.*.attn.add_v_proj", "double_blocks.*.processor.qkv_lora2", 2, 1, 3),
    ROWS("transformer_blocks.*.attn.to_out.0", "double_blocks.*.processor.proj_lora1", 0, 0, 0),
    ROWS("transformer_blocks.*.attn.to_add_out", "double_blocks.*.processor.proj_lora2", 0, 0, 0),
    ROWS("single_transformer_blocks.*.attn.to_q", "single_blocks.*.processor.qkv", 0, 1, 3),
    ROWS("single_transformer_blocks.*.attn.to_k", "single_blocks.*.processor.qkv", 1, 1, 3),
    ROWS("single_transformer_blocks.*.attn.to_v", "single_blocks.*.processor.qkv", 2, 1, 3),
    ROWS("single_transformer_blocks.*.proj_out", "single_blocks.*.processor.proj", 0, 0, 0),
};
static const FkNameTable xlabs = {xlabs_rows, G_N_ELEMENTS(xlabs_rows), NULL};

/* Whose names: the model's own, Black Forest Labs', XLabs'. */
typedef enum { CANONICAL, BFL, XLABS } Table;

static const FkNameTable *table_of(Table table) {
  static const FkNameTable canonical;
  size_t n;
  return table == XLABS ? &xlabs : table == BFL ? &fk_name_tables(FK_PART_FLUX, &n)[FK_NAMES_BFL] : &canonical;
}

static const struct {
  FkPart part;
  Table table;
  const char *prefix;
  bool flat; /* '_' for '.' */
  const char *dialect;
} spellings[] = {
    {FK_PART_FLUX, CANONICAL, "transformer.", false, "peft"},
    {FK_PART_FLUX, CANONICAL, "base_model.model.", false, "peft"},
    {FK_PART_FLUX, CANONICAL, "", false, "peft"},
    {FK_PART_FLUX, CANONICAL, "diffusion_model.", false, "comfy"},
    {FK_PART_FLUX, CANONICAL, "lora_transformer_", true, "onetrainer"},
    {FK_PART_FLUX, CANONICAL, "lycoris_", true, "lycoris"},
    {FK_PART_FLUX, CANONICAL, "lora_unet_", true, "kohya"},
    {FK_PART_FLUX, BFL, "lora_unet_", true, "kohya"},
    {FK_PART_FLUX, BFL, "lora_transformer_", true, "onetrainer"},
    {FK_PART_FLUX, BFL, "lycoris_", true, "lycoris"},
    {FK_PART_FLUX, BFL, "diffusion_model.", false, "comfy"},
    {FK_PART_FLUX, BFL, "model.diffusion_model.", false, "comfy"},
    {FK_PART_FLUX, BFL, "transformer.", false, "comfy"},
    {FK_PART_FLUX, BFL, "base_model.model.", false, "fal"},
    {FK_PART_FLUX, BFL, "", false, "comfy"},
    {FK_PART_FLUX, XLABS, "", false, "xlabs"},
    {FK_PART_FLUX, XLABS, "diffusion_model.", false, "xlabs"},
    {FK_PART_CLIP, CANONICAL, "text_encoder.", false, "peft"},
    {FK_PART_CLIP, CANONICAL, "text_encoders.clip_l.transformer.", false, "comfy"},
    {FK_PART_CLIP, CANONICAL, "lora_te1_", true, "kohya"},
    {FK_PART_CLIP, CANONICAL, "lora_te_", true, "kohya"},
    {FK_PART_T5, CANONICAL, "text_encoder_2.", false, "peft"},
    {FK_PART_T5, CANONICAL, "text_encoders.t5xxl.transformer.", false, "comfy"},
    {FK_PART_T5, CANONICAL, "lora_te3_", true, "kohya"},
    {FK_PART_T5, CANONICAL, "lora_te2_", true, "onetrainer"},
};

struct FkLoraNames {
  GPtrArray *modules;   /* FkLoraModule, owned */
  GHashTable *spelling; /* text -> FkLoraSpelling, both owned */
};

static void free_module(gpointer module) {
  g_free(((FkLoraModule *)module)->name);
  g_free(module);
}

/* Adds the tensor to the module of a name, which is made where it is not there; NULL: no room in it. */
static FkLoraModule *add_piece(FkLoraNames *names, GHashTable *by_name, FkPart part, char *name, const FkBound *bound,
                               const FkNameRow *row) {
  FkLoraModule *m = g_hash_table_lookup(by_name, name);
  if (!m) {
    m = g_new0(FkLoraModule, 1);
    *m = (FkLoraModule){.name = g_strdup(name), .part = part, .cols = bound->cols};
    g_ptr_array_add(names->modules, m);
    g_hash_table_insert(by_name, m->name, m);
  }
  if (m->n == FK_LORA_PIECES || m->cols != bound->cols) return NULL;
  m->piece[m->n] = bound;
  m->first[m->n++] = row && row->of ? bound->rows / row->count * row->first : 0;
  m->rows += bound->rows;
  m->swap = row && row->transform == FK_TRANSFORM_SWAP_HALVES;
  m->pads = g_str_has_suffix(name, ".processor.proj");
  return m;
}

/* The modules of one table: its names without ".weight". (transfer container): name -> FkLoraModule */
static GHashTable *make_modules(FkLoraNames *names, FkPart part, const GPtrArray *bounds, const FkNameTable *table) {
  GHashTable *by_name = g_hash_table_new(g_str_hash, g_str_equal);
  for (guint i = 0; i < bounds->len; i++) {
    const FkBound *bound = bounds->pdata[i];
    const FkNameRow *row = NULL;
    g_autofree char *name = table->n_rows ? fk_names_translate(table, bound->name, &row) : g_strdup(bound->name);
    if (!name || !g_str_has_suffix(name, ".weight")) continue;
    name[strlen(name) - strlen(".weight")] = 0;
    add_piece(names, by_name, part, name, bound, row);
  }
  return by_name;
}

static void spell(FkLoraNames *names, GHashTable *modules, const char *prefix, bool flat, const char *dialect) {
  GHashTableIter it;
  gpointer name, module;
  g_hash_table_iter_init(&it, modules);
  while (g_hash_table_iter_next(&it, &name, &module)) {
    g_autofree char *text = g_strconcat(prefix, name, NULL);
    if (flat) g_strdelimit(text, ".", '_');
    if (g_hash_table_contains(names->spelling, text)) continue;
    FkLoraSpelling *spelling = g_new(FkLoraSpelling, 1);
    *spelling = (FkLoraSpelling){module, dialect};
    g_hash_table_insert(names->spelling, g_steal_pointer(&text), spelling);
  }
}

FkLoraNames *fk_lora_names_new(FkBinder *const binders[FK_PARTS]) {
  FkLoraNames *names = g_new(FkLoraNames, 1);
  names->modules = g_ptr_array_new_with_free_func(free_module);
  names->spelling = g_hash_table_new_full(fk_text_hash, g_str_equal, g_free, g_free);
  for (int part = 0; part < FK_PARTS; part++) {
    g_autoptr(GPtrArray) bounds = binders[part] ? fk_binder_all(binders[part]) : g_ptr_array_new();
    const FkNameTable *last = NULL, *table;
    g_autoptr(GHashTable) modules = NULL;
    for (size_t i = 0; i < G_N_ELEMENTS(spellings); i++) {
      if ((int)spellings[i].part != part) continue;
      table = table_of(spellings[i].table);
      if (table != last) {
        g_clear_pointer(&modules, g_hash_table_unref);
        modules = make_modules(names, (FkPart)part, bounds, table);
      }
      last = table;
      spell(names, modules, spellings[i].prefix, spellings[i].flat, spellings[i].dialect);
    }
  }
  return names;
}

void fk_lora_names_free(FkLoraNames *names) {
  if (!names) return;
  g_hash_table_unref(names->spelling);
  g_ptr_array_unref(names->modules);
  g_free(names);
}

const FkLoraSpelling *fk_lora_names_find(const FkLoraNames *names, const char *spelling) {
  return g_hash_table_lookup(names->spelling, spelling);
}
