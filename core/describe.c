/* SPDX-License-Identifier: Apache-2.0 */
/* What a file of weights is: fk_describe_file of fk.h. */
#include "fk.h"
#include "file.h"
#include "lora-file.h"
#include "model.h"
#include "quant-marks.h"
#include "shapes.h"

#include <string.h>

static const char *const properties[FK_PARTS] = {"clip-path", "t5-path", "model-path", "vae-path"};

/* "BF16 (12), F32 (3)" of the part's tensors, and their bytes. */
static void append_types(GString *s, const FkNames *names, FkPart part) {
  g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
  const FkComponent *c = names->part[part].component;
  guint64 bytes = 0, n = 0;
  for (size_t shard = 0; shard < fk_component_shards(c); shard++)
    for (size_t i = 0; i < fk_safetensors_count(fk_component_shard(c, shard)); i++) {
      const FkStTensor *t = fk_safetensors_at(fk_component_shard(c, shard), i);
      if (fk_names_ignored(names, part, t->name)) continue;
      const char *type = fk_st_type_name(t);
      g_hash_table_insert(seen, (gpointer)type, GINT_TO_POINTER(GPOINTER_TO_INT(g_hash_table_lookup(seen, type)) + 1));
      bytes += t->bytes;
      n++;
    }
  g_autoptr(GList) types = g_list_sort(g_hash_table_get_keys(seen), (GCompareFunc)strcmp);
  g_string_append_printf(s, "  tensors  %" G_GUINT64_FORMAT ", %.1f MB:", n, (double)bytes / 1e6);
  for (GList *it = types; it; it = it->next)
    g_string_append_printf(s, "%s %s (%d)", it == types ? "" : ",", (const char *)it->data,
                           GPOINTER_TO_INT(g_hash_table_lookup(seen, it->data)));
  g_string_append_c(s, '\n');
}

static void append_sizes(GString *s, const FkConfig *c, FkPart part) {
  switch (part) {
  case FK_PART_CLIP:
    g_string_append_printf(s, "  sizes    %d layers of %d, %d tokens\n", c->clip.layers, c->clip.width, c->clip.vocab);
    break;
  case FK_PART_T5:
    g_string_append_printf(s, "  sizes    %d layers of %d, %d tokens\n", c->t5.layers, c->t5.width, c->t5.vocab);
    break;
  case FK_PART_FLUX:
    g_string_append_printf(s, "  sizes    %d double and %d single blocks of %d, guidance %s\n", c->flux.layers,
                           c->flux.single_layers, c->flux.heads * c->flux.head_width,
                           c->flux.guidance_embeds ? "yes" : "no");
    break;
  default:
    g_string_append_printf(s, "  sizes    %d levels, %d latent channels\n", c->vae.n_levels, c->vae.latent_channels);
    break;
  }
}

/* Asks for all tensors of the network that the shapes give. */
static void append_part(GString *s, FkModel *m, FkPart part) {
  g_autoptr(GError) error = NULL;
  const FkNamesPart *p = &m->names.part[part];
  g_string_append_printf(s, "%s (%s)\n  names    %s%s%s\n", fk_part_name(part), properties[part], p->table->title,
                         p->prefix ? " behind " : "", p->prefix ? p->prefix : "");
  append_types(s, &m->names, part);
  if (fk_shapes_config(&m->config, &m->names, part, &error)) append_sizes(s, &m->config, part);
  if (!error && fk_model_bind(m, part, NULL, &error)) {
    const double parameters = (double)m->part[part].parameters;
    g_string_append_printf(s, "  memory   %.1f MB as bfloat16 (CUDA), %.1f MB as float32 (CPU)\n", 2 * parameters / 1e6,
                           4 * parameters / 1e6);
  }
  if (error) g_string_append_printf(s, "  wrong    %s\n", error->message);
}

/* What a model of this file needs besides. */
static void append_lacks(GString *s, const FkModel *m) {
  if (!m->names.part[FK_PART_FLUX].component) return;
  g_string_append(s, "lacks    ");
  for (int i = 0; i < FK_PARTS; i++)
    if (!m->names.part[i].component) g_string_append_printf(s, "%s (%s), ", fk_part_name((FkPart)i), properties[i]);
  g_string_append(s, "tokenizers (tokenizer-path)\n");
}

/* A file, or a part's folder. */
static FkComponent *open_any(const char *path, GError **error) {
  static const char own[] = "diffusion_pytorch_model";
  if (!g_file_test(path, G_FILE_TEST_IS_DIR)) return fk_component_open_file(path, error);
  g_autofree char *file = g_strconcat(path, "/", own, ".safetensors", NULL),
                  *index = g_strconcat(file, ".index.json", NULL);
  const bool diffusers = g_file_test(file, G_FILE_TEST_EXISTS) || g_file_test(index, G_FILE_TEST_EXISTS);
  return fk_component_open(path, diffusers ? own : "model", error);
}

static size_t count_tensors(const FkComponent *c) {
  size_t n = 0;
  for (size_t i = 0; i < fk_component_shards(c); i++) n += fk_safetensors_count(fk_component_shard(c, i));
  return n;
}

char *fk_describe_file(const char *path, GError **error) {
  g_autoptr(FkComponent) component = open_any(path, error);
  if (!component || !fk_quant_marks_check(component, error)) return NULL;
  char message[256];
  FkFailure failure;
  FkBackend *be = fk_backend_open("null", -1, 0, &failure, message, sizeof message);
  if (!be) {
    g_set_error_literal(error, FK_ERROR, failure == FK_FAIL_MEMORY ? FK_ERROR_MEMORY : FK_ERROR_BACKEND_MISSING,
                        message);
    return NULL;
  }
  FkModel *m = g_new0(FkModel, 1);
  GString *s = g_string_new(NULL);
  g_string_append_printf(s, "%s: %zu tensors\n", fk_component_folder(component), count_tensors(component));
  m->be = be;
  int parts = 0;
  for (int i = 0; i < FK_PARTS; i++) {
    if (!fk_names_layout((FkPart)i, component, &m->names.part[i])) {
      m->names.part[i] = (FkNamesPart){0};
      continue;
    }
    append_part(s, m, (FkPart)i);
    parts++;
  }
  g_autofree char *adapters = parts ? NULL : fk_lora_file_describe(fk_component_shard(component, 0));
  if (adapters) g_string_append(s, adapters);
  append_lacks(s, m);
  fk_model_free(m);
  fk_backend_close(be);
  if (parts || adapters) return g_string_free(s, FALSE);
  g_string_free(s, TRUE);
  g_autofree char *shown = fk_shown_path(path);
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_MISMATCH,
              "%s: expected a part of a model that this program knows, or adapters, found %zu tensors of other names",
              shown, count_tensors(component));
  return NULL;
}
