/* SPDX-License-Identifier: Apache-2.0 */
/* One part of a checkpoint in one file or in shards: which file has a tensor, and everything that index and shards can
 * disagree about. */
#include "component.h"
#include "test-files.h"
#include "test-growth.h"

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

/* Messages carry no control character and no half of a character of a tensor's or a file's name. */
static void shown_names(void) {
  g_autoptr(GString) wide = g_string_new("{\"a");
  for (int i = 0; i < 100; i++) g_string_append(wide, "\u00e9");
  g_string_append(wide, "\":\"no\xc2\x9b\"}");
  g_free(folder_of("shown"));
  write_index("shown", wide->str);
  refused("shown", FK_ERROR_MODEL_MISSING, "\u00e9...", "no\\u009b");
  write_index("shown", "{\"\\u001b]0;title\\u0007\\u001b[2J\":\"x\"}");
  refused("shown", FK_ERROR_MODEL_MISSING, "\\u001b]0;title\\u0007", "x");
  write_index("shown", "{\"\\ud800\":\"x\"}");
  refused("shown", FK_ERROR_MODEL_BAD, "surrogate", "");
  write_index("shown", "{\"a\":\"/\\u202e\"}");
  refused("shown", FK_ERROR_MODEL_BAD, "/\\u202e", "same folder");
  shard("shown", "m-1.safetensors", "a");
  write_index("shown", "{\"a\":\"m-1.safetensors\",\"a\":\"m-1.safetensors\"}");
  refused("shown", FK_ERROR_MODEL_BAD, "key \"a\" is there twice", "");
}

/* Many names of one file with a large header, and more files, tensors and values than a part may have. */
static void limits(void) {
  g_autoptr(GString) map = g_string_new("{");
  g_autofree char *padded = g_strnfill(6 << 20, ' ');
  memcpy(padded, "{}", 2);
  g_free(write_safetensors("limits/big.st", padded, NULL, 0));
  for (int i = 0; i < 300; i++) {
    g_autofree char *link = g_strdup_printf("limits/s%d", i), *path = scratch_path(link);
    g_assert_cmpint(symlink(i < 3 ? "big.st" : "small.st", path), ==, 0);
    g_string_append_printf(map, "%s\"t%d\":\"s%d\"", i ? "," : "", i, i);
  }
  write_index("limits", "{\"a\":\"s0\",\"b\":\"s1\",\"c\":\"s2\"}");
  refused("limits", FK_ERROR_MODEL_BAD, "at most 16777216 bytes of headers in all files", "found 18874368");
  g_free(write_safetensors("limits/big.st", "{}", NULL, 0));
  g_free(write_safetensors("limits/small.st", "{}", NULL, 0));
  write_index("limits", g_string_append_c(map, '}')->str);
  refused("limits", FK_ERROR_MODEL_BAD, "at most 256 files", "found 257");
  g_string_assign(map, "{");
  for (int i = 0; i < 60000; i++)
    g_string_append_printf(map, "%s\"t%d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", i ? "," : "", i);
  g_free(write_safetensors("limits/big.st", g_string_append_c(map, '}')->str, NULL, 0));
  write_index("limits", "{\"t1\":\"s0\",\"b\":\"s1\"}");
  refused("limits", FK_ERROR_MODEL_BAD, "at most 100000 tensors", "found 120000");
  g_string_assign(map, "{\"a\":\"s0\",\"x\":[");
  for (int i = 0; i < 131073; i++) g_string_append(map, "{},");
  write_index("limits", g_string_append(map, "{}]}")->str);
  refused("limits", FK_ERROR_MODEL_BAD, "more than 131072 values", "");
}

/* Names with one hash in GLib's own function: 33 a + b is the same for both halves of each pair. */
static char *collision(int i) {
  char *name = g_new0(char, 41);
  for (int k = 0; k < 20; k++) memcpy(name + 2 * k, i >> k & 1 ? "BA" : "Ab", 2);
  return name;
}

typedef struct {
  char *name, *quarter; /* folders */
} Folders;

static void open_flood(gpointer data, gboolean quarter) {
  const Folders *f = data;
  g_autoptr(GError) error = NULL;
  g_autofree char *path = scratch_path(quarter ? f->quarter : f->name);
  g_autoptr(FkComponent) c = fk_component_open(path, "m", &error);
  g_assert_no_error(error);
  g_assert_nonnull(c);
}

/* Time does not follow from names that a file makes collide. */
static void flood(void) {
  g_assert_cmpuint(g_str_hash("Ab"), ==, g_str_hash("BA"));
  for (int quarter = 0; quarter < 2; quarter++) {
    g_autoptr(GString) map = g_string_new("{"), header = g_string_new("{");
    for (int i = 0; i < (quarter ? 10000 : 40000); i++) {
      g_autofree char *name = collision(i);
      g_string_append_printf(map, "%s\"%s\":\"x.st\"", i ? "," : "", name);
      g_string_append_printf(header, "%s\"%s\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", i ? "," : "",
                             name);
    }
    const char *folder = quarter ? "flood-quarter" : "flood";
    g_autofree char *file = g_build_filename(folder, "x.st", NULL);
    g_free(write_safetensors(file, g_string_append_c(header, '}')->str, NULL, 0));
    write_index(folder, g_string_append_c(map, '}')->str);
  }
  assert_linear("names of one hash", open_flood, &(Folders){"flood", "flood-quarter"});
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  g_test_add_func("/component/single", single);
  g_test_add_func("/component/sharded", sharded);
  g_test_add_func("/component/disagreements", disagreements);
  g_test_add_func("/component/twice", twice);
  g_test_add_func("/component/dangling", dangling);
  g_test_add_func("/component/shown-names", shown_names);
  g_test_add_func("/component/limits", limits);
  g_test_add_func("/component/flood", flood);
  const int status = g_test_run();
  scratch_close();
  return status;
}
