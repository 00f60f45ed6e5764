/* SPDX-License-Identifier: Apache-2.0 */
/* One part of a checkpoint as its safetensors files; see component.h. The index is only a promise about the shards:
 * what the shards say counts, and both must agree on every name. */
#include "component.h"

#include "config.h"
#include "file.h"
#include "fk-error.h"

#include <json-glib/json-glib.h>
#include <string.h>

#define MAX_INDEX_BYTES (16u << 20) /* the large model's has 0.1 MB */

struct FkComponent {
  char *folder;      /* for messages */
  GPtrArray *shards; /* FkSafetensors */
};

/* A shard's name must be that of a file in the folder itself. */
static bool plain_name(const char *name) {
  return *name && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, "..");
}

/* Opens each file of the map once. `opened`: file name -> FkSafetensors. */
static bool open_shards(FkComponent *c, const char *folder, const char *index, JsonObject *map, GHashTable *opened,
                        GError **error) {
  JsonObjectIter iter;
  const char *name;
  JsonNode *node;
  json_object_iter_init(&iter, map);
  while (json_object_iter_next(&iter, &name, &node)) {
    bool text = JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_STRING;
    const char *file = text ? json_node_get_string(node) : "";
    if (!plain_name(file)) {
      g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD,
                  "%s: tensor \"%.120s\": expected the name of a file in the same folder, found \"%.120s\"", index,
                  name, file);
      return false;
    }
    if (g_hash_table_contains(opened, file)) continue;
    g_autofree char *path = g_build_filename(folder, file, NULL);
    FkSafetensors *shard = fk_safetensors_open(path, error);
    if (!shard) {
      g_prefix_error(error, "%s: shard of tensor \"%.120s\": ", index, name);
      return false;
    }
    g_ptr_array_add(c->shards, shard);
    g_hash_table_insert(opened, (gpointer)file, shard);
  }
  return true;
}

/* Every name of the index is in the file it gives, and every tensor of a shard is in the index with that file. */
static bool check_index(const FkComponent *c, const char *index, JsonObject *map, GHashTable *opened, GError **error) {
  JsonObjectIter iter;
  const char *name;
  JsonNode *node;
  json_object_iter_init(&iter, map);
  while (json_object_iter_next(&iter, &name, &node)) {
    const char *file = json_node_get_string(node);
    if (fk_safetensors_find(g_hash_table_lookup(opened, file), name)) continue;
    const FkSafetensors *other = NULL;
    fk_component_find(c, name, &other);
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: tensor \"%.120s\": expected in %s, found in %s", index, name,
                file, other ? fk_safetensors_path(other) : "no shard");
    return false;
  }
  GHashTableIter shards;
  gpointer file, shard;
  g_hash_table_iter_init(&shards, opened);
  while (g_hash_table_iter_next(&shards, &file, &shard))
    for (size_t i = 0; i < fk_safetensors_count(shard); i++) {
      name = fk_safetensors_at(shard, i)->name;
      const char *listed = json_object_get_string_member_with_default(map, name, "no shard");
      if (!strcmp(listed, file)) continue;
      g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: tensor \"%.120s\": expected in %s, found also in %s", index,
                  name, listed, fk_safetensors_path(shard));
      return false;
    }
  return true;
}

static bool open_indexed(FkComponent *c, const char *folder, const char *path, GError **error) {
  g_autofree char *index = g_filename_display_name(path);
  g_autoptr(JsonObject) root = fk_config_read_json(path, MAX_INDEX_BYTES, error);
  if (!root) return false;
  JsonNode *node = json_object_get_member(root, "weight_map");
  JsonObject *map = node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
  if (!map || json_object_get_size(map) == 0) {
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD,
                "%s: field \"weight_map\": expected an object of tensor and file names", index);
    return false;
  }
  g_autoptr(GHashTable) opened = g_hash_table_new(g_str_hash, g_str_equal);
  return open_shards(c, folder, index, map, opened, error) && check_index(c, index, map, opened, error);
}

FkComponent *fk_component_open(const char *folder, const char *stem, GError **error) {
  g_autoptr(FkComponent) c = g_new0(FkComponent, 1);
  c->folder = g_filename_display_name(folder);
  c->shards = g_ptr_array_new_with_free_func((GDestroyNotify)fk_safetensors_free);
  g_autofree char *name = g_strconcat(stem, ".safetensors", NULL);
  g_autofree char *single = g_build_filename(folder, name, NULL);
  g_autofree char *index = g_strconcat(single, ".index.json", NULL);
  /* A dangling or looping link counts as an index, and opening it tells what is wrong with it. */
  if (g_file_test(index, G_FILE_TEST_EXISTS) || g_file_test(index, G_FILE_TEST_IS_SYMLINK))
    return open_indexed(c, folder, index, error) ? g_steal_pointer(&c) : NULL;
  FkSafetensors *file = fk_safetensors_open(single, error);
  if (!file) return NULL;
  g_ptr_array_add(c->shards, file);
  return g_steal_pointer(&c);
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
