/* SPDX-License-Identifier: Apache-2.0 */
/* One part of a checkpoint in one file or in shards: which file has a tensor, and everything that index and shards can
 * disagree about. */
#include "component.h"
#include "test-files.h"

#include <unistd.h>

static char *folder_of(const char *name) {
  g_autofree char *keep = g_build_filename(name, "keep", NULL);
  g_free(write_text(keep, ""));
  return scratch_path(name);
}

/* A shard with the one tensor `tensor`. */
static void shard(const char *folder, const char *file, const char *tensor) {
  const float value = 1;
  g_autofree char *name = g_build_filename(folder, file, NULL);
  g_autofree char *header =
      g_strdup_printf("{\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", tensor);
  g_free(write_safetensors(name, header, &value, sizeof value));
}

static void write_index(const char *folder, const char *map) {
  g_autofree char *name = g_build_filename(folder, "m.safetensors.index.json", NULL);
  g_autofree char *text = g_strdup_printf("{\"metadata\":{},\"weight_map\":%s}", map);
  g_free(write_text(name, text));
}

static void refused(const char *folder, int code, const char *word, const char *other) {
  g_autoptr(GError) error = NULL;
  g_autofree char *path = scratch_path(folder);
  g_autoptr(FkComponent) c = fk_component_open(path, "m", &error);
  g_assert_null(c);
  g_test_message("%s", error->message);
  assert_error(error, code, word, other);
}

static void single(void) {
  g_autoptr(GError) error = NULL;
  g_autofree char *path = folder_of("single");
  refused("single", FK_ERROR_MODEL_MISSING, "m.safetensors", "");
  shard("single", "m.safetensors", "a");
  g_autoptr(FkComponent) c = fk_component_open(path, "m", &error);
  g_assert_no_error(error);
  const FkSafetensors *where = NULL;
  g_assert_cmpuint(fk_component_shards(c), ==, 1);
  g_assert_nonnull(fk_component_find(c, "a", &where));
  g_assert_true(where == fk_component_shard(c, 0));
  g_assert_null(fk_component_find(c, "b", &where));
  g_assert_null(where);
  g_assert_cmpstr(fk_component_folder(c), ==, path);
}

static void sharded(void) {
  g_autoptr(GError) error = NULL;
  g_autofree char *path = folder_of("sharded");
  shard("sharded", "m-1.safetensors", "a");
  shard("sharded", "m-2.safetensors", "b");
  shard("sharded", "m.safetensors", "c"); /* beside an index a single file does not count */
  write_index("sharded", "{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}");
  g_autoptr(FkComponent) c = fk_component_open(path, "m", &error);
  g_assert_no_error(error);
  const FkSafetensors *one, *two;
  g_assert_cmpuint(fk_component_shards(c), ==, 2);
  g_assert_nonnull(fk_component_find(c, "a", &one));
  g_assert_nonnull(fk_component_find(c, "b", &two));
  g_assert_true(one != two);
  g_assert_null(fk_component_find(c, "c", &one));
}

static void disagreements(void) {
  static const struct {
    const char *map;
    int code;
    const char *word, *other;
  } cases[] = {
      {"{}", FK_ERROR_MODEL_BAD, "weight_map", ""},
      {"[]", FK_ERROR_MODEL_BAD, "weight_map", ""},
      {"{\"a\":1,\"b\":\"m-2.safetensors\"}", FK_ERROR_MODEL_BAD, "index.json", "a"},
      {"{\"a\":\"m-3.safetensors\",\"b\":\"m-2.safetensors\"}", FK_ERROR_MODEL_MISSING, "m-3.safetensors", ""},
      {"{\"a\":\"../x/m-1.safetensors\",\"b\":\"m-2.safetensors\"}", FK_ERROR_MODEL_BAD, "../x", ""},
      {"{\"a\":\"/m-1.safetensors\",\"b\":\"m-2.safetensors\"}", FK_ERROR_MODEL_BAD, "/m-1", ""},
      {"{\"a\":\"m-2.safetensors\",\"b\":\"m-1.safetensors\"}", FK_ERROR_MODEL_BAD, "index.json", ""},
      {"{\"a\":\"m-1.safetensors\",\"z\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}", FK_ERROR_MODEL_BAD, "z", ""},
      {"{\"z\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}", FK_ERROR_MODEL_BAD, "m-1", ""},
  };
  g_free(folder_of("bad"));
  shard("bad", "m-1.safetensors", "a");
  shard("bad", "m-2.safetensors", "b");
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    write_index("bad", cases[i].map);
    refused("bad", cases[i].code, cases[i].word, cases[i].other);
  }
}

/* The same tensor in two shards: which one would be meant? */
static void twice(void) {
  g_free(folder_of("twice"));
  shard("twice", "m-1.safetensors", "a");
  shard("twice", "m-2.safetensors", "a");
  write_index("twice", "{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}");
  refused("twice", FK_ERROR_MODEL_BAD, "a", "");
}

/* An index that cannot be followed is told, and no single file is taken in its place. */
static void dangling(void) {
  g_autofree char *link = scratch_path("dangling/m.safetensors.index.json");
  shard("dangling", "m.safetensors", "a"); /* makes the folder */
  g_assert_cmpint(symlink("nothing", link), ==, 0);
  refused("dangling", FK_ERROR_MODEL_MISSING, "index.json", "");
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  g_test_add_func("/component/single", single);
  g_test_add_func("/component/sharded", sharded);
  g_test_add_func("/component/disagreements", disagreements);
  g_test_add_func("/component/twice", twice);
  g_test_add_func("/component/dangling", dangling);
  const int status = g_test_run();
  scratch_close();
  return status;
}
