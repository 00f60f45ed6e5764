/* SPDX-License-Identifier: Apache-2.0 */
/* One engine per identity: any file of the model that changes makes another one, a turned link too, and no other file;
 * names and aliases; and many threads that open and leave. */
#include "registry.h"
#include "test-files.h"

#include <unistd.h>
#include <utime.h>

static char *identity_of(const char *path) {
  g_autoptr(FkOptions) options = fk_options_new();
  g_assert_true(fk_options_set(options, "backend", "null", NULL));
  g_assert_true(fk_options_set(options, "model-path", path, NULL));
  return fk_registry_files(options);
}

static void assert_same(const char *a, const char *b, bool same) {
  if (g_str_equal(a, b) != same) g_error("expected %s identities:\n%s\n%s", same ? "equal" : "different", a, b);
}

/* Every file that weights or configurations come from counts. */
static void content(void) {
  static const char *const files[] = {"model_index.json",
                                      "transformer/a.safetensors",
                                      "transformer/diffusion_pytorch_model.safetensors.index.json",
                                      "vae/config.json",
                                      "tokenizer/vocab.json",
                                      "tokenizer/merges.txt",
                                      "tokenizer_2/spiece.model",
                                      "scheduler/scheduler_config.json",
                                      "text_encoder/model.safetensors",
                                      "text_encoder_2/model-00001-of-00002.safetensors"};
  for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
    g_autofree char *name = g_build_filename("content", files[i], NULL);
    g_free(write_text(name, "one"));
  }
  g_autofree char *model = scratch_path("content"), *first = identity_of(model), *again = identity_of(model);
  assert_same(first, again, true);
  for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
    g_autofree char *path = g_build_filename(model, files[i], NULL), *before = identity_of(model);
    const struct utimbuf times = {1000 + (time_t)i, 1000 + (time_t)i};
    g_assert_cmpint(g_utime(path, (struct utimbuf *)&times), ==, 0); /* same size, another time */
    g_autofree char *touched = identity_of(model);
    assert_same(before, touched, false);
    g_assert_true(g_file_set_contents(path, "longer", -1, NULL));
    g_autofree char *longer = identity_of(model);
    assert_same(touched, longer, false);
  }
  g_autofree char *none = identity_of("/nowhere"), *other = identity_of("/nowhere-else");
  assert_same(none, other, false);
}

/* Files that no engine reads, and other ways to write the path. */
static void other_files(void) {
  static const char *const files[] = {"README.md",   "transformer/README.md", "vae/notes.txt",
                                      "LICENSE.txt", "unknown/config.json",   "flux1-kontext-dev.safetensors"};
  g_free(write_text("others/model_index.json", "{}"));
  g_autofree char *model = scratch_path("others"), *first = identity_of(model);
  for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
    g_autofree char *name = g_build_filename("others", files[i], NULL);
    g_free(write_text(name, "text"));
    g_autofree char *now = identity_of(model);
    assert_same(first, now, true);
  }
  static const char *const forms[] = {"%s/", "%s/.", "%s/transformer/..", "%s//"};
  for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
    g_autoptr(GString) path = g_string_new(forms[i]);
    g_string_replace(path, "%s", model, 1);
    g_autofree char *now = identity_of(path->str);
    assert_same(first, now, true);
  }
}

static char *identity_with(const char *model, const char *vae) {
  g_autoptr(FkOptions) options = fk_options_new();
  g_assert_true(fk_options_set(options, "model-path", model, NULL));
  g_assert_true(fk_options_set(options, "vae-path", vae, NULL));
  return fk_registry_files(options);
}

/* A part that comes from elsewhere is not the model's, and nothing else of that folder is. */
static void replaced(void) {
  static const char *const files[] = {"a/model_index.json", "a/vae/x.safetensors", "a/vae/config.json",
                                      "b/model_index.json", "b/vae/x.safetensors", "b/transformer/x.safetensors"};
  for (size_t i = 0; i < G_N_ELEMENTS(files); i++) g_free(write_text(files[i], "one"));
  g_autofree char *model = scratch_path("a"), *folder = scratch_path("b"), *file = scratch_path("b/vae/x.safetensors");
  const struct {
    const char *vae;
    bool counts[G_N_ELEMENTS(files)];
  } cases[] = {{folder, {true, false, false, false, true, false}}, {file, {true, false, true, false, true, false}}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
    for (size_t k = 0; k < G_N_ELEMENTS(files); k++) {
      g_autofree char *before = identity_with(model, cases[i].vae), *text = g_strnfill(4 + i, 'x');
      g_free(write_text(files[k], text));
      g_autofree char *after = identity_with(model, cases[i].vae);
      assert_same(before, after, !cases[i].counts[k]);
    }
}

static void never(FkShared *shared) {
  g_error("%p freed", (void *)shared);
}

/* The first owner of a name keeps it; the last reference takes all names along. */
static void names(void) {
  FkShared a = {1}, b = {1};
  g_assert_true(fk_registry_add(&a, "a", never) == &a);
  g_assert_true(fk_registry_add(&b, "b", never) == &b);
  fk_registry_alias(&a, "other");
  fk_registry_alias(&b, "other");
  fk_registry_alias(&b, "b");
  g_assert_true(fk_registry_find("other") == &a);
  g_assert_true(fk_registry_find("b") == &b);
  g_assert_null(fk_registry_find("nobody"));
  g_assert_false(fk_registry_drop(&a));
  g_assert_true(fk_registry_drop(&a));
  g_assert_null(fk_registry_find("a"));
  g_assert_null(fk_registry_find("other"));
  g_assert_false(fk_registry_drop(&b));
  g_assert_true(fk_registry_drop(&b));
  g_assert_null(fk_registry_find("b"));
}

/* The identity holds the resolved path, so that a link that is turned to another folder is another model. */
static void links(void) {
  g_free(write_text("links/a/model_index.json", "x"));
  g_free(write_text("links/b/model_index.json", "x"));
  g_autofree char *link = scratch_path("links/now");
  g_assert_cmpint(symlink("a", link), ==, 0);
  g_autofree char *first = identity_of(link);
  g_assert_cmpint(g_remove(link), ==, 0);
  g_assert_cmpint(symlink("b", link), ==, 0);
  g_autofree char *second = identity_of(link);
  assert_same(first, second, false);
}

static gpointer open_and_leave(gpointer data) {
  (void)data;
  for (int i = 0; i < 20; i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkOptions) options = fk_options_new();
    fk_options_set(options, "backend", "null", NULL);
    g_autoptr(FkEngine) engine = fk_engine_new(options, &error);
    g_assert_no_error(error);
    g_autoptr(FkEngine) same = fk_engine_new(options, &error);
    g_assert_true(same == engine); /* while somebody holds it there is one */
  }
  return NULL;
}

static void threads(void) {
  GThread *t[6];
  for (int i = 0; i < 6; i++) t[i] = g_thread_new("opener", open_and_leave, NULL);
  for (int i = 0; i < 6; i++) g_thread_join(t[i]);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  g_test_add_func("/registry/content", content);
  g_test_add_func("/registry/other-files", other_files);
  g_test_add_func("/registry/replaced", replaced);
  g_test_add_func("/registry/names", names);
  g_test_add_func("/registry/links", links);
  g_test_add_func("/registry/threads", threads);
  const int status = g_test_run();
  scratch_close();
  return status;
}
