/* SPDX-License-Identifier: Apache-2.0 */
/* One component of a checkpoint as its safetensors files; see component.h. The shards decide which tensors there are;
 * the index must agree with them on every name. */
#include "component.h"

#include "file.h"
#include "fk-error.h"
#include "gguf.h"
#include "json-scan.h"

#include <stdarg.h>
#include <string.h>

#define MAX_INDEX_BYTES (16u << 20) /* the large model's has 0.1 MB */

struct FkComponent {
  char *folder;                 /* or file; for messages */
  GPtrArray *shards;            /* FkSafetensors */
  size_t header_bytes, tensors; /* of all shards */
};

/* A shard's name must be that of a file in the folder itself. */
static bool plain_name(const char *name) {
  return *name && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, "..");
}

G_GNUC_PRINTF(4, 5)
static bool fail_tensor(const char *index, const char *name, GError **error, const char *format, ...) {
  va_list list;
  va_start(list, format);
  g_autofree char *text = g_strdup_vprintf(format, list), *shown = fk_shown_name(name);
  va_end(list);
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: tensor \"%s\": %s", index, shown, text);
  return false;
}

/* Adds a file to the component, all of whose files together must keep the limits. */
static FkSafetensors *add_shard(FkComponent *c, const char *path, GError **error) {
  g_autoptr(FkSafetensors) shard = fk_gguf_is(path) ? fk_gguf_open_within(path, FK_COMPONENT_MAX_HEADER, error)
                                                    : fk_safetensors_open_within(path, FK_COMPONENT_MAX_HEADER, error);
  if (!shard) return NULL;
  c->header_bytes += fk_safetensors_header_bytes(shard);
  c->tensors += fk_safetensors_count(shard);
  const struct {
    const char *what;
    size_t most, found;
  } limits[] = {{"files", FK_COMPONENT_MAX_SHARDS, (size_t)c->shards->len + 1},
                {"tensors", FK_COMPONENT_MAX_TENSORS, c->tensors},
                {"bytes of headers", FK_COMPONENT_MAX_HEADER, c->header_bytes}};
  for (size_t i = 0; i < G_N_ELEMENTS(limits); i++) {
    if (limits[i].found <= limits[i].most) continue;
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD,
                "%s: expected at most %" G_GSIZE_FORMAT " %s in all files, found %" G_GSIZE_FORMAT, c->folder,
                limits[i].most, limits[i].what, limits[i].found);
    return NULL;
  }
  g_ptr_array_add(c->shards, shard);
  return g_steal_pointer(&shard);
}

/* The index while it is compared with the shards. */
typedef struct {
  char *shown;           /* its path */
  const FkJsonNode *map; /* names and files */
  GHashTable *file_of;   /* tensor name -> file name */
  GHashTable *opened;    /* file name -> FkSafetensors */
} Index;

/* Opens each file of the map once. */
static bool open_shards(FkComponent *c, const char *folder, Index *index, GError **error) {
  for (const FkJsonNode *it = fk_json_first(index->map); it; it = fk_json_after(index->map, it)) {
    const char *file = fk_json_text(it);
    if (!file || !plain_name(file)) {
      g_autofree char *found = fk_json_shown(it);
      return fail_tensor(index->shown, it->key, error, "expected the name of a file in the same folder, found %s",
                         found);
    }
    g_hash_table_insert(index->file_of, (gpointer)it->key, (gpointer)file);
    if (g_hash_table_contains(index->opened, file)) continue;
    g_autofree char *path = g_build_filename(folder, file, NULL);
    FkSafetensors *shard = add_shard(c, path, error);
    if (!shard) {
      g_autofree char *name = fk_shown_name(it->key);
      g_prefix_error(error, "%s: shard of tensor \"%s\": ", index->shown, name);
      return false;
    }
    g_hash_table_insert(index->opened, (gpointer)file, shard);
  }
  return true;
}

/* Every name of the index is in the file it gives, and every tensor of a shard is in the index with that file. */
static bool check_index(const FkComponent *c, const Index *index, GError **error) {
  for (const FkJsonNode *it = fk_json_first(index->map); it; it = fk_json_after(index->map, it)) {
    if (fk_safetensors_find(g_hash_table_lookup(index->opened, it->text), it->key)) continue;
    const FkSafetensors *other = NULL;
    fk_component_find(c, it->key, &other);
    g_autofree char *file = fk_shown_name(it->text);
    return fail_tensor(index->shown, it->key, error, "expected in %s, found in %s", file,
                       other ? fk_safetensors_path(other) : "no shard");
  }
  GHashTableIter shards;
  gpointer file, shard;
  g_hash_table_iter_init(&shards, index->opened);
  while (g_hash_table_iter_next(&shards, &file, &shard))
    for (size_t i = 0; i < fk_safetensors_count(shard); i++) {
      const char *name = fk_safetensors_at(shard, i)->name, *listed = g_hash_table_lookup(index->file_of, name);
      if (!g_strcmp0(listed, file)) continue;
      g_autofree char *expected = fk_shown_name(listed ? listed : "no shard");
      return fail_tensor(index->shown, name, error, "expected in %s, found also in %s", expected,
                         fk_safetensors_path(shard));
    }
  return true;
}

static bool open_indexed(FkComponent *c, const char *folder, const char *path, GError **error) {
  g_autoptr(FkJsonTree) tree = fk_json_load(path, MAX_INDEX_BYTES, "weight_map", error);
  if (!tree) return false;
  g_autofree char *shown = fk_shown_path(path);
  Index index = {.shown = shown, .map = fk_json_member(fk_json_root(tree), "weight_map")};
  if (!index.map || index.map->kind != FK_JSON_OBJECT || index.map->count == 0) {
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD,
                "%s: field \"weight_map\": expected an object of tensor and file names", shown);
    return false;
  }
  g_autoptr(GHashTable) file_of = g_hash_table_new(fk_text_hash, g_str_equal);
  g_autoptr(GHashTable) opened = g_hash_table_new(fk_text_hash, g_str_equal);
  index.file_of = file_of;
  index.opened = opened;
  return open_shards(c, folder, &index, error) && check_index(c, &index, error);
}

FkComponent *fk_component_open(const char *folder, const char *stem, GError **error) {
  g_autoptr(FkComponent) c = g_new0(FkComponent, 1);
  c->folder = fk_shown_path(folder);
  c->shards = g_ptr_array_new_with_free_func((GDestroyNotify)fk_safetensors_free);
  g_autofree char *name = g_strconcat(stem, ".safetensors", NULL);
  g_autofree char *single = g_build_filename(folder, name, NULL);
  g_autofree char *index = g_strconcat(single, ".index.json", NULL);
  /* A dangling or looping link counts as an index, and opening it gives the error. */
  if (g_file_test(index, G_FILE_TEST_EXISTS) || g_file_test(index, G_FILE_TEST_IS_SYMLINK))
    return open_indexed(c, folder, index, error) ? g_steal_pointer(&c) : NULL;
  return add_shard(c, single, error) ? g_steal_pointer(&c) : NULL;
}

FkComponent *fk_component_open_file(const char *path, GError **error) {
  g_autoptr(FkComponent) c = g_new0(FkComponent, 1);
  c->folder = fk_shown_path(path);
  c->shards = g_ptr_array_new_with_free_func((GDestroyNotify)fk_safetensors_free);
  return add_shard(c, path, error) ? g_steal_pointer(&c) : NULL;
}

void fk_component_free(FkComponent *component) {
  if (!component) return;
  g_ptr_array_unref(component->shards);
  g_free(component->folder);
  g_free(component);
}

const char *fk_component_folder(const FkComponent *component) {
  return component->folder;
}
size_t fk_component_shards(const FkComponent *component) {
  return component->shards->len;
}

const FkSafetensors *fk_component_shard(const FkComponent *component, size_t index) {
  assert(index < component->shards->len);
  return g_ptr_array_index(component->shards, index);
}

const FkStTensor *fk_component_find(const FkComponent *component, const char *name, const FkSafetensors **shard) {
  for (guint i = 0; i < component->shards->len; i++) {
    *shard = g_ptr_array_index(component->shards, i);
    const FkStTensor *tensor = fk_safetensors_find(*shard, name);
    if (tensor) return tensor;
  }
  *shard = NULL;
  return NULL;
}
