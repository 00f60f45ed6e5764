/* SPDX-License-Identifier: Apache-2.0 */
/* Sharing: one engine per identity, found as long as somebody holds it. Not here: what an engine is (engine.c), what
 * options resolve to (tune.c). */
#include "registry.h"

#include "calibration.h"
#include "properties.h"
#include "values.h"

#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Files ---- */

/* Inode, size and time tell contents apart without reading them. A link is its target: checkpoints from a hub are
 * folders of links. */
static void append_file(GString *s, const char *path) {
  GStatBuf st;
  if (g_stat(path, &st) == 0 && S_ISREG(st.st_mode))
    g_string_append_printf(s, "%s %ju %ju %jd %jd.%09ld\n", path, (uintmax_t)st.st_dev, (uintmax_t)st.st_ino,
                           (intmax_t)st.st_size, (intmax_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

static int by_name(gconstpointer a, gconstpointer b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The files of folder/sub whose names match one of the patterns, sorted, as sub/name. */
static void list_folder(GPtrArray *list, const char *folder, const char *sub, const char *const *patterns) {
  g_autofree char *path = g_build_filename(folder, sub, NULL);
  g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
  g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
  const char *name;
  while (dir && (name = g_dir_read_name(dir)))
    for (int i = 0; patterns[i]; i++)
      if (g_pattern_match_simple(patterns[i], name)) {
        g_ptr_array_add(names, g_strdup(name));
        break;
      }
  g_ptr_array_sort(names, by_name);
  for (guint i = 0; i < names->len; i++)
    g_ptr_array_add(list, *sub ? g_build_filename(sub, names->pdata[i], NULL) : g_strdup(names->pdata[i]));
}

static const char *const top[] = {"model_index.json", NULL}, *const scheduler[] = {"scheduler_config.json", NULL},
                         *const config[] = {"config.json", NULL},
                         *const network[] = {"config.json", "*.safetensors", "*.safetensors.index.json", NULL},
                         *const tokenizer[] = {"*.json", "merges.txt", "spiece.model", NULL};

/* In the order of a manifest. property: that which names another place for it; model-path: there is no other. */
static const struct {
  const char *folder;
  const char *const *patterns;
  const char *property;
} places[] = {{"", top, "model-path"},
              {"transformer", network, "model-path"},
              {"vae", network, "vae-path"},
              {"text_encoder", network, "clip-path"},
              {"text_encoder_2", network, "t5-path"},
              {"tokenizer", tokenizer, "tokenizer-path"},
              {"tokenizer_2", tokenizer, "tokenizer-path"},
              {"scheduler", scheduler, "model-path"}};

char **fk_registry_checkpoint(const char *folder) {
  GPtrArray *found = g_ptr_array_new();
  g_autofree char *index = g_build_filename(folder, "model_index.json", NULL);
  /* The folder of one part: a model's has no weights of its own beside its parts, or none that are read. */
  if (!g_file_test(index, G_FILE_TEST_EXISTS)) list_folder(found, folder, "", network);
  for (size_t i = 0; i < G_N_ELEMENTS(places); i++) list_folder(found, folder, places[i].folder, places[i].patterns);
  g_ptr_array_add(found, NULL);
  return (char **)g_ptr_array_free(found, FALSE);
}

/* What is read of a model's place: nothing where an option names another folder, the configuration beside a file of
 * weights alone. */
static const char *const *read_of_model(const FkOptions *options, const char *property, const char *const *patterns) {
  const char *other = strcmp(property, "model-path") ? fk_options_get(options, property) : NULL;
  if (!other || !*other) return patterns;
  return patterns == network && !g_file_test(other, G_FILE_TEST_IS_DIR) ? config : NULL;
}

char **fk_registry_read(const FkOptions *options, const char *property, const char *path) {
  GPtrArray *found = g_ptr_array_new();
  for (size_t i = 0; i < G_N_ELEMENTS(places); i++) {
    const char *folder = places[i].folder;
    const char *const *patterns = places[i].patterns;
    if (!strcmp(property, "model-path")) {
      patterns = read_of_model(options, places[i].property, patterns);
    } else if (strcmp(property, places[i].property)) {
      patterns = NULL;
    } else if (patterns == network) {
      g_autofree char *below = g_build_filename(path, folder, NULL);
      if (!g_file_test(below, G_FILE_TEST_IS_DIR)) folder = "";
    }
    if (patterns) list_folder(found, path, folder, patterns);
  }
  g_ptr_array_add(found, NULL);
  return (char **)g_ptr_array_free(found, FALSE);
}

static void append_checkpoint(GString *s, const FkOptions *options, const char *property, const char *folder) {
  g_auto(GStrv) names = fk_registry_read(options, property, folder);
  for (char **name = names; *name; name++) {
    g_autofree char *path = g_build_filename(folder, *name, NULL);
    append_file(s, path);
  }
}

/* The file that is read though no option names it. */
static void append_calibration(GString *s, const FkValues *v) {
  const char *quantization = fk_values_get(v, fk_properties_find("quantization"));
  const char *model = fk_values_get(v, fk_properties_find("model-path"));
  const char *given = fk_values_get(v, fk_properties_find("calibration-path"));
  if (strcmp(quantization, "fp8-static") || !model || (given && *given)) return;
  g_autofree char *path = fk_calibration_path(model);
  g_string_append(s, "calibration ");
  append_file(s, path);
}

char *fk_registry_files(const FkOptions *options) {
  const FkValues *v = fk_options_values(options);
  size_t n;
  const FkProperty *p = fk_properties(&n);
  GString *s = g_string_new(NULL);
  for (size_t i = 0; i < n; i++) {
    const char *path = p[i].kind == FK_KIND_STRING ? fk_values_get(v, &p[i]) : NULL;
    if (!path || !*path) continue;
    char *real = realpath(path, NULL);
    g_string_append_printf(s, "%s %s\n", p[i].name, real ? real : path);
    if (real) append_file(s, real);
    if (real) append_checkpoint(s, options, p[i].name, real);
    free(real);
  }
  append_calibration(s, v);
  return g_string_free(s, FALSE);
}

/* ---- Engines ---- */

static GMutex lock;
static GHashTable *engines; /* name (owned) -> FkShared, no reference held; several names may stand for one */

FkShared *fk_registry_find(const char *name) {
  g_mutex_lock(&lock);
  FkShared *e = engines ? g_hash_table_lookup(engines, name) : NULL;
  if (e) g_atomic_int_inc(&e->refs);
  g_mutex_unlock(&lock);
  return e;
}

FkShared *fk_registry_add(FkShared *e, const char *name, void (*free_shared)(FkShared *)) {
  g_mutex_lock(&lock);
  if (!engines) engines = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  FkShared *other = g_hash_table_lookup(engines, name);
  if (other)
    g_atomic_int_inc(&other->refs);
  else
    g_hash_table_insert(engines, g_strdup(name), e);
  g_mutex_unlock(&lock);
  if (!other) return e;
  free_shared(e);
  return other;
}

void fk_registry_alias(FkShared *e, const char *name) {
  g_mutex_lock(&lock);
  if (!g_hash_table_contains(engines, name)) g_hash_table_insert(engines, g_strdup(name), e);
  g_mutex_unlock(&lock);
}

static gboolean is_engine(gpointer name, gpointer value, gpointer engine) {
  (void)name;
  return value == engine;
}

bool fk_registry_drop(FkShared *e) {
  /* Under the lock, so that nobody finds an engine whose last reference goes. */
  g_mutex_lock(&lock);
  const bool last = g_atomic_int_dec_and_test(&e->refs);
  if (last && engines) g_hash_table_foreach_remove(engines, is_engine, e);
  if (engines && g_hash_table_size(engines) == 0) g_clear_pointer(&engines, g_hash_table_destroy);
  g_mutex_unlock(&lock);
  return last;
}
