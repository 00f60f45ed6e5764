/* SPDX-License-Identifier: Apache-2.0 */
/* Sharing: one engine per identity, found as long as somebody holds it. Not here: what an engine is (engine.c). */
#include "registry.h"

#include "values.h"

#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>

static GMutex lock;
static GHashTable *engines; /* identity (owned by the engine) -> engine, no reference held */

static int by_name(gconstpointer a, gconstpointer b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names of the weight and configuration files of one folder, sorted, with what identifies their content cheaply. */
static void append_folder(GString *s, const char *folder) {
  g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
  g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
  const char *name;
  while (dir && (name = g_dir_read_name(dir))) g_ptr_array_add(names, g_strdup(name));
  g_ptr_array_sort(names, by_name);
  for (guint i = 0; i < names->len; i++) {
    GStatBuf st;
    g_autofree char *path = g_build_filename(folder, names->pdata[i], NULL);
    if (g_stat(path, &st) == 0 && S_ISREG(st.st_mode))
      g_string_append_printf(s, "%s %ju %jd %jd.%09ld\n", path, (uintmax_t)st.st_ino, (intmax_t)st.st_size,
                             (intmax_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
  }
}

char *fk_registry_identity(const FkOptions *options) {
  static const char *const folders[] = {"",          "transformer", "vae",      "text_encoder", "text_encoder_2",
                                        "tokenizer", "tokenizer_2", "scheduler"};
  g_autofree char *values = fk_options_identity(options);
  const char *model = fk_options_get(options, "model-path");
  char *real = model ? realpath(model, NULL) : NULL;
  GString *s = g_string_new(values);
  g_string_append_printf(s, "real %s\n", real ? real : "");
  for (size_t i = 0; real && i < G_N_ELEMENTS(folders); i++) {
    g_autofree char *folder = g_build_filename(real, folders[i], NULL);
    append_folder(s, folder);
  }
  free(real);
  return g_string_free(s, FALSE);
}

FkShared *fk_registry_find(const char *identity) {
  g_mutex_lock(&lock);
  FkShared *e = engines ? g_hash_table_lookup(engines, identity) : NULL;
  if (e) g_atomic_int_inc(&e->refs);
  g_mutex_unlock(&lock);
  return e;
}

FkShared *fk_registry_add(FkShared *e, void (*free_shared)(FkShared *)) {
  g_mutex_lock(&lock);
  if (!engines) engines = g_hash_table_new(g_str_hash, g_str_equal);
  FkShared *other = g_hash_table_lookup(engines, e->identity);
  if (other)
    g_atomic_int_inc(&other->refs);
  else
    g_hash_table_insert(engines, e->identity, e);
  g_mutex_unlock(&lock);
  if (!other) return e;
  free_shared(e);
  return other;
}

bool fk_registry_drop(FkShared *e) {
  /* Under the lock, so that nobody finds an engine whose last reference goes. */
  g_mutex_lock(&lock);
  const bool last = g_atomic_int_dec_and_test(&e->refs);
  if (last) g_hash_table_remove(engines, e->identity);
  if (last && g_hash_table_size(engines) == 0) g_clear_pointer(&engines, g_hash_table_destroy);
  g_mutex_unlock(&lock);
  return last;
}
