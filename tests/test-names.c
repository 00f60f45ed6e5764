/* SPDX-License-Identifier: Apache-2.0 */
/* Names: what a table of rows makes of a canonical name, which table a file has, and that a checkpoint of another
 * layout, with fused tensors in another order, gives the same weights as the diffusers folder. */
#include "test-weights-backend.h"
#include "test-files.h"
#include "flux.h"

/* ---- Files: tensors made of other tensors' bytes, one behind the other ---- */

typedef struct {
  GString *header;
  GByteArray *data;
} Writer;

static Writer writer_new(void) {
  return (Writer){g_string_new("{"), g_byte_array_new()};
}

static void write_tensor(Writer *w, const char *name, const int64_t *dim, int rank, const void *bytes, size_t size) {
  g_autofree char *shape = fk_st_shape_text(dim, rank);
  g_string_append_printf(w->header, "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":%s,\"data_offsets\":[%u,%u]}",
                         w->data->len ? "," : "", name, shape, w->data->len, w->data->len + (guint)size);
  g_byte_array_append(w->data, bytes, (guint)size);
}

static void writer_close(Writer *w, const char *path) {
  g_string_append_c(w->header, '}');
  g_free(write_safetensors(path, w->header->str, w->data->data, w->data->len));
  g_string_free(w->header, TRUE);
  g_byte_array_unref(w->data);
}

static FkComponent *open_scratch(const char *folder) {
  g_autofree char *path = scratch_path(folder);
  g_autoptr(GError) error = NULL;
  FkComponent *c = fk_component_open(path, "model", &error);
  g_assert_no_error(error);
  return c;
}

/* ---- Rows ---- */

static const FkNameRow rules[] = {
    {"a.*.q", "A.*.qkv", 0, 1, 3, FK_TRANSFORM_NONE},    {"a.*.k", "A.*.qkv", 1, 2, 3, FK_TRANSFORM_NONE},
    {"*.x.*.y", "Y.*.to.*", 0, 0, 0, FK_TRANSFORM_NONE}, {"tail", "head", 0, 0, 0, FK_TRANSFORM_SWAP_HALVES},
    {"strip.", "", 0, 0, 0, FK_TRANSFORM_NONE},          {"either", "first", 0, 0, 0, FK_TRANSFORM_NONE},
    {"either", "second", 0, 0, 0, FK_TRANSFORM_NONE},
};
static const char *const unused[] = {"*.ids", "v?", NULL};
static const FkNameTable ruled = {rules, G_N_ELEMENTS(rules), unused};

static void test_rows(void) {
  static const char *const there[] = {"A.7.qkv.weight", "A.10.qkv.bias", "Y.p.to.3", "head", "word.weight",
                                      "second.weight",  "same",          "a.1.qx",   "first"};
  static const struct {
    const char *canonical, *found; /* NULL: not there */
    int64_t first_row, rows;
    FkTransform transform;
  } cases[] = {
      {"a.7.q.weight", "A.7.qkv.weight", 0, 2, FK_TRANSFORM_NONE},
      {"a.7.k.weight", "A.7.qkv.weight", 2, 4, FK_TRANSFORM_NONE},
      {"a.10.q.bias", "A.10.qkv.bias", 0, 2, FK_TRANSFORM_NONE},
      {"a.10.q.weight", NULL, 0, 0, FK_TRANSFORM_NONE},
      {"p.x.3.y", "Y.p.to.3", 0, 6, FK_TRANSFORM_NONE},
      {"p.x.4.y", NULL, 0, 0, FK_TRANSFORM_NONE},
      {"tail", "head", 0, 6, FK_TRANSFORM_SWAP_HALVES},
      {"tails", NULL, 0, 0, FK_TRANSFORM_NONE},       /* a row ends where a name's word ends */
      {"a.1.qx", "a.1.qx", 0, 6, FK_TRANSFORM_NONE},  /* so this is no "q", and the file calls it the same */
      {"a.1.2.q", NULL, 0, 0, FK_TRANSFORM_NONE},     /* a '*' stands for one word */
      {"a..q.weight", NULL, 0, 0, FK_TRANSFORM_NONE}, /* that has letters */
      {"strip.word.weight", "word.weight", 0, 6, FK_TRANSFORM_NONE},
      {"either.weight", "second.weight", 0, 6, FK_TRANSFORM_NONE},
      {"either", "first", 0, 6, FK_TRANSFORM_NONE},
      {"same", "same", 0, 6, FK_TRANSFORM_NONE},
      {"head", "head", 0, 6, FK_TRANSFORM_NONE},
      {"", NULL, 0, 0, FK_TRANSFORM_NONE},
  };
  static const uint16_t zeros[6] = {0};
  Writer w = writer_new();
  for (size_t i = 0; i < G_N_ELEMENTS(there); i++) write_tensor(&w, there[i], (int64_t[]){6}, 1, zeros, sizeof zeros);
  writer_close(&w, "rows/model.safetensors");
  g_autoptr(FkComponent) c = open_scratch("rows");
  const FkNames names = {.part[FK_PART_VAE] = {c, &ruled}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    FkSource s;
    g_test_message("%s", cases[i].canonical);
    g_assert_cmpint(fk_names_find(&names, FK_PART_VAE, cases[i].canonical, &s), ==, cases[i].found != NULL);
    if (!cases[i].found) continue;
    g_assert_cmpstr(s.tensor->name, ==, cases[i].found);
    g_assert_true(s.file == fk_component_shard(c, 0));
    g_assert_cmpint(s.first_row, ==, cases[i].first_row);
    g_assert_cmpint(s.rows, ==, cases[i].rows);
    g_assert_cmpint((int)s.transform, ==, (int)cases[i].transform);
  }
  g_autofree char *mapped = fk_names_expected(&names, FK_PART_VAE, "either.bias");
  g_autofree char *same = fk_names_expected(&names, FK_PART_VAE, "norm.bias");
  g_assert_cmpstr(mapped, ==, "first.bias");
  g_assert_cmpstr(same, ==, "norm.bias");
  g_assert_true(fk_names_ignored(&names, FK_PART_VAE, "x.ids"));
  g_assert_true(fk_names_ignored(&names, FK_PART_VAE, "v1"));
  g_assert_false(fk_names_ignored(&names, FK_PART_VAE, "v12"));
}

/* ---- A transformer as Black Forest Labs' own code names and fuses it ---- */

/* The program's own tables: of diffusers' names and of these. */
static const FkNameTable *tables, *fused;

enum { DOUBLES = 2, SINGLES = 5 };

static FkComponent *demo_part(FkPart part, const char *stem) {
  g_autofree char *folder = g_build_filename(FK_DEMO_MODEL, fk_part_name(part), NULL);
  g_autoptr(GError) error = NULL;
  FkComponent *c = fk_component_open(folder, stem, &error);
  g_assert_no_error(error);
  return c;
}

/* Appends `name`: the demo's tensors of `list` (separated by spaces) below each other; swap: the second half first. */
static void fuse(Writer *w, const FkComponent *demo, const char *name, bool swap, const char *list) {
  g_auto(GStrv) parts = g_strsplit(list, " ", -1);
  g_autoptr(GByteArray) bytes = g_byte_array_new();
  int64_t dim[2] = {0};
  int rank = 0;
  for (char **part = parts; *part; part++) {
    const FkSafetensors *file;
    const FkStTensor *t = fk_component_find(demo, *part, &file);
    g_assert_nonnull(t);
    const guint at = bytes->len;
    g_byte_array_set_size(bytes, at + (guint)t->bytes);
    g_assert_true(fk_safetensors_read(file, t, 0, bytes->data + at, t->bytes, NULL));
    rank = t->rank;
    dim[0] += t->dim[0];
    dim[1] = rank > 1 ? t->dim[1] : 0;
  }
  if (swap) {
    const guint half = bytes->len / 2;
    g_autofree guint8 *first = g_memdup2(bytes->data, half);
    memmove(bytes->data, bytes->data + half, half);
    memcpy(bytes->data + half, first, half);
  }
  write_tensor(w, name, dim, rank, bytes->data, bytes->len);
}

/* The same for .weight and .bias. */
static void fuse_layer(Writer *w, const FkComponent *demo, const char *name, bool swap, const char *list) {
  static const char *const suffixes[] = {".weight", ".bias"};
  g_auto(GStrv) parts = g_strsplit(list, " ", -1);
  for (int i = 0; i < 2; i++) {
    g_autofree char *joint = g_strconcat(suffixes[i], " ", NULL), *all = g_strjoinv(joint, parts);
    g_autofree char *full = g_strconcat(name, suffixes[i], NULL), *from = g_strconcat(all, suffixes[i], NULL);
    fuse(w, demo, full, swap, from);
  }
}

static void fuse_stream(Writer *w, const FkComponent *demo, int i, bool image) {
  const char *side = image ? "img" : "txt", *added = image ? "" : "added_";
  g_autofree char *block = g_strdup_printf("transformer_blocks.%d", i);
  const struct {
    const char *name, *list;
  } layers[] = {
      {"mod.lin", image ? "$.norm1.linear" : "$.norm1_context.linear"},
      {"attn.qkv",
       image ? "$.attn.to_q $.attn.to_k $.attn.to_v" : "$.attn.add_q_proj $.attn.add_k_proj $.attn.add_v_proj"},
      {"attn.proj", image ? "$.attn.to_out.0" : "$.attn.to_add_out"},
      {"mlp.0", image ? "$.ff.net.0.proj" : "$.ff_context.net.0.proj"},
      {"mlp.2", image ? "$.ff.net.2" : "$.ff_context.net.2"},
  };
  for (size_t l = 0; l < G_N_ELEMENTS(layers); l++) {
    g_auto(GStrv) words = g_strsplit(layers[l].list, "$", -1);
    g_autofree char *list = g_strjoinv(block, words);
    g_autofree char *name = g_strdup_printf("double_blocks.%d.%s_%s", i, side, layers[l].name);
    fuse_layer(w, demo, name, false, list);
  }
  for (int k = 0; k < 2; k++) {
    g_autofree char *name =
        g_strdup_printf("double_blocks.%d.%s_attn.norm.%s_norm.scale", i, side, k ? "key" : "query");
    g_autofree char *from = g_strdup_printf("%s.attn.norm_%s%s.weight", block, added, k ? "k" : "q");
    fuse(w, demo, name, false, from);
  }
}

static void fuse_single(Writer *w, const FkComponent *demo, int i) {
  g_autofree char *block = g_strdup_printf("single_transformer_blocks.%d", i);
  g_autofree char *in =
      g_strdup_printf("%s.attn.to_q %s.attn.to_k %s.attn.to_v %s.proj_mlp", block, block, block, block);
  g_autofree char *out = g_strconcat(block, ".proj_out", NULL), *mod = g_strconcat(block, ".norm.linear", NULL);
  g_autofree char *linear1 = g_strdup_printf("single_blocks.%d.linear1", i);
  g_autofree char *linear2 = g_strdup_printf("single_blocks.%d.linear2", i);
  g_autofree char *modulation = g_strdup_printf("single_blocks.%d.modulation.lin", i);
  fuse_layer(w, demo, linear1, false, in);
  fuse_layer(w, demo, linear2, false, out);
  fuse_layer(w, demo, modulation, false, mod);
  for (int k = 0; k < 2; k++) {
    g_autofree char *name = g_strdup_printf("single_blocks.%d.norm.%s_norm.scale", i, k ? "key" : "query");
    g_autofree char *from = g_strdup_printf("%s.attn.norm_%s.weight", block, k ? "k" : "q");
    fuse(w, demo, name, false, from);
  }
}

static void write_fused(const char *path, const FkComponent *demo) {
  static const char *const plain[][2] = {{"img_in", "x_embedder"},
                                         {"txt_in", "context_embedder"},
                                         {"time_in.in_layer", "time_text_embed.timestep_embedder.linear_1"},
                                         {"time_in.out_layer", "time_text_embed.timestep_embedder.linear_2"},
                                         {"vector_in.in_layer", "time_text_embed.text_embedder.linear_1"},
                                         {"vector_in.out_layer", "time_text_embed.text_embedder.linear_2"},
                                         {"guidance_in.in_layer", "time_text_embed.guidance_embedder.linear_1"},
                                         {"guidance_in.out_layer", "time_text_embed.guidance_embedder.linear_2"},
                                         {"final_layer.linear", "proj_out"}};
  Writer w = writer_new();
  for (size_t i = 0; i < G_N_ELEMENTS(plain); i++) fuse_layer(&w, demo, plain[i][0], false, plain[i][1]);
  for (int i = 0; i < 2 * DOUBLES; i++) fuse_stream(&w, demo, i / 2, i % 2);
  for (int i = 0; i < SINGLES; i++) fuse_single(&w, demo, i);
  fuse_layer(&w, demo, "final_layer.adaLN_modulation.1", true, "norm_out.linear");
  writer_close(&w, path);
}

typedef struct {
  FkBinder *binder;
  FkFlux flux;
} Network;

static void network_open(Network *n, TestBackend *t, const FkComponent *c, const FkNameTable *table) {
  g_autoptr(GError) error = NULL;
  FkConfig config;
  const FkNames names = {.part[FK_PART_FLUX] = {c, table}};
  g_assert_true(fk_config_load(&config, FK_DEMO_MODEL, &error));
  g_assert_cmpint(config.flux.layers, ==, DOUBLES);
  g_assert_cmpint(config.flux.single_layers, ==, SINGLES);
  n->binder = fk_binder_new(&t->be, NULL, &names, FK_PART_FLUX);
  fk_flux_init(&n->flux, &config.flux, n->binder);
}

static void network_close(Network *n) {
  fk_binder_free(n->binder);
  fk_flux_clear(&n->flux);
}

/* Both by the same binds, so places are equal and the whole memory can be compared; gaps hold what test_alloc wrote. */
static void test_fused(gconstpointer device) {
  g_autoptr(FkComponent) demo = demo_part(FK_PART_FLUX, "diffusion_pytorch_model");
  write_fused("fused/model.safetensors", demo);
  g_autoptr(FkComponent) c = open_scratch("fused");
  g_assert_true(fk_names_detect(FK_PART_FLUX, demo, tables, 2) == &tables[0]);
  g_assert_true(fk_names_detect(FK_PART_FLUX, c, tables, 2) == fused);
  TestBackend *t = backend_new(device != NULL);
  Network a, b;
  g_autoptr(GError) error = NULL;
  network_open(&a, t, demo, &tables[0]);
  network_open(&b, t, c, fused);
  g_assert_true(fk_binder_finish(b.binder, &error));
  g_assert_no_error(error);
  g_assert_true(fk_binder_finish(a.binder, NULL) && fk_binder_load(a.binder, NULL, NULL, NULL, NULL));
  g_assert_true(fk_binder_load(b.binder, NULL, NULL, NULL, &error));
  g_assert_no_error(error);
  g_assert_cmpmem(fk_binder_store(a.binder)->memory, fk_binder_bytes(a.binder), fk_binder_store(b.binder)->memory,
                  fk_binder_bytes(b.binder));
  network_close(&a);
  network_close(&b);
  backend_free(t);
}

/* What does not fit is told in the file's words, with the model's beside them, and counted by the model's tensors. */
static void test_fused_mismatch(void) {
  g_autoptr(FkComponent) demo = demo_part(FK_PART_FLUX, "diffusion_pytorch_model");
  for (int missing = 0; missing < 2; missing++) {
    write_fused("fused-bad/model.safetensors", demo);
    g_autofree char *path = scratch_path("fused-bad/model.safetensors"), *bytes = NULL;
    gsize size;
    g_assert_true(g_file_get_contents(path, &bytes, &size, NULL));
    const char *from = missing ? "\"single_blocks.4.linear1.weight\"" : "\"shape\":[1792,256]";
    const char *to = missing ? "\"single_blocks.4.linear9.weight\"" : "\"shape\":[896,512] ";
    char *at = g_strstr_len(bytes + 8, (gssize)size - 8, from); /* behind the length */
    g_assert_nonnull(at);
    memcpy(at, to, strlen(to));
    g_free(write_bytes("fused-bad/model.safetensors", bytes, size));
    g_autoptr(FkComponent) c = open_scratch("fused-bad");
    TestBackend *t = backend_new(false);
    Network n;
    g_autoptr(GError) error = NULL;
    network_open(&n, t, c, fused);
    g_assert_false(fk_binder_finish(n.binder, &error));
    g_test_message("%s", error->message);
    if (missing)
      assert_error(error, FK_ERROR_MODEL_MISMATCH,
                   "tensor \"single_blocks.4.linear1.weight\" (single_transformer_blocks.4",
                   "(in all 4 missing, 0 of another shape or type, 1 unknown)");
    else
      assert_error(error, FK_ERROR_MODEL_MISMATCH, "linear1.weight\": expected shape [1792,256], found [896,512]",
                   "found [896,512] (in all 0 missing, 1 of another");
    network_close(&n);
    backend_free(t);
  }
}

/* ---- The program's own tables ---- */

/* The text tower saved by itself has no "text_model." before its names; one tensor less does not hide that. */
static void test_tower(void) {
  g_autoptr(FkComponent) demo = demo_part(FK_PART_CLIP, "model");
  size_t n;
  const FkNameTable *own = fk_name_tables(FK_PART_CLIP, &n);
  for (int less = 0; less < 2; less++) {
    Writer w = writer_new();
    const FkSafetensors *file = fk_component_shard(demo, 0);
    for (size_t i = 0; i < fk_safetensors_count(file); i++) {
      const FkStTensor *t = fk_safetensors_at(file, i);
      if (less && g_str_has_suffix(t->name, "final_layer_norm.weight")) continue;
      fuse(&w, demo, t->name + strlen("text_model."), false, t->name);
    }
    writer_close(&w, "tower/model.safetensors");
    g_autoptr(FkComponent) c = open_scratch("tower");
    const FkNames names = {.part[FK_PART_CLIP] = {c, fk_names_detect(FK_PART_CLIP, c, own, n)}};
    FkSource s;
    g_assert_true(fk_names_detect(FK_PART_CLIP, demo, own, n) == &own[0]);
    g_assert_true(names.part[FK_PART_CLIP].table == &own[1]);
    g_assert_true(fk_names_find(&names, FK_PART_CLIP, "text_model.encoder.layers.1.mlp.fc1.bias", &s));
    g_assert_cmpstr(s.tensor->name, ==, "encoder.layers.1.mlp.fc1.bias");
    g_assert_cmpint(fk_names_find(&names, FK_PART_CLIP, "text_model.final_layer_norm.weight", &s), ==, !less);
  }
}

/* T5's tied table under its other name, and under both. */
static void test_tied(void) {
  static const uint16_t zeros[4] = {0};
  size_t n;
  const FkNameTable *own = fk_name_tables(FK_PART_T5, &n);
  for (int both = 0; both < 2; both++) {
    Writer w = writer_new();
    write_tensor(&w, "encoder.embed_tokens.weight", (int64_t[]){2, 2}, 2, zeros, sizeof zeros);
    if (both) write_tensor(&w, "shared.weight", (int64_t[]){2, 2}, 2, zeros, sizeof zeros);
    writer_close(&w, "tied/model.safetensors");
    g_autoptr(FkComponent) c = open_scratch("tied");
    const FkNames names = {.part[FK_PART_T5] = {c, fk_names_detect(FK_PART_T5, c, own, n)}};
    FkSource s;
    g_assert_true(fk_names_find(&names, FK_PART_T5, "shared.weight", &s));
    g_assert_cmpstr(s.tensor->name, ==, both ? "shared.weight" : "encoder.embed_tokens.weight");
    g_assert_true(fk_names_ignored(&names, FK_PART_T5, "encoder.embed_tokens.weight"));
  }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  size_t n;
  tables = fk_name_tables(FK_PART_FLUX, &n);
  fused = &tables[n - 1];
  scratch_open();
  g_test_add_func("/names/rows", test_rows);
  g_test_add_data_func("/names/fused/host", NULL, test_fused);
  g_test_add_data_func("/names/fused/device", "", test_fused);
  g_test_add_func("/names/fused/mismatch", test_fused_mismatch);
  g_test_add_func("/names/tower", test_tower);
  g_test_add_func("/names/tied", test_tied);
  int status = g_test_run();
  scratch_close();
  return status;
}
