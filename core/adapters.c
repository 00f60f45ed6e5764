/* SPDX-License-Identifier: Apache-2.0 */
/* Adapters and the weights of an open model; see adapters.h. Nothing is ever subtracted: a weight is read from the
 * checkpoint and what is wanted is added, so that taking an adapter out gives the first bytes again. Addresses stay, so
 * that what was recorded with them stays valid. */
#include "adapters.h"

#include "file.h"
#include "fk-error.h"

#include <string.h>

/* Puts the names of one table into a set, which is made where it is needed. */
static void add_names(GHashTable **set, GHashTable *deltas) {
  GHashTableIter it;
  gpointer name;
  if (!deltas || g_hash_table_size(deltas) == 0) return;
  if (!*set) *set = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  g_hash_table_iter_init(&it, deltas);
  while (g_hash_table_iter_next(&it, &name, NULL)) g_hash_table_add(*set, g_strdup(name));
}

static GHashTable *deltas_of(const FkLoras *loras, FkPart part) {
  return loras ? fk_loras_deltas(loras, part) : NULL;
}

/* Of a packed model some may be codes. */
static bool have_numbers(const FkModel *m, const FkLoras *loras, GError **error) {
  GHashTableIter it;
  gpointer name;
  for (int i = 0; i < FK_PARTS; i++) {
    GHashTable *deltas = deltas_of(loras, (FkPart)i);
    if (!deltas) continue;
    g_hash_table_iter_init(&it, deltas);
    while (g_hash_table_iter_next(&it, &name, NULL))
      if (!fk_binder_has_numbers(m->part[i].binder, name, error)) return false;
  }
  return true;
}

/* A list has no file twice, and so has what is merged together with the list. */
static bool merged_already(const FkModel *m, const char *list, GError **error) {
  g_autofree char *hashes = fk_loras_hashes(list, error);
  g_auto(GStrv) ours = g_strsplit(hashes ? hashes : "", "\n", -1);
  g_auto(GStrv) sources = g_strsplit(fk_pack_text(m->pack, "sources"), "\n", -1);
  if (!hashes) return true;
  for (char **source = sources; *source; source++)
    for (char **our = ours; *our && **our; our++) {
      const char *name = strstr(*source, " loras=");
      if (!name || strncmp(*our, *source, strcspn(*our, " ")) || strcspn(*our, " ") != strcspn(*source, " ")) continue;
      g_autofree char *shown = fk_shown_name(name + strlen(" loras="));
      g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "loras: the packed model has %s already", shown);
      return true;
    }
  return false;
}

/* Bytes of one part's weights, seen as bytes of all that are read again. */
typedef struct {
  FkLoadProgress progress;
  void *user_data;
  int64_t before, last, total;
} Share;

static void forward_progress(int64_t done, int64_t total, void *user_data) {
  Share *s = user_data;
  (void)total;
  s->last = done;
  if (s->progress) s->progress(s->before + done, s->total, s->user_data);
}

static int64_t stale_bytes(const FkModel *m) {
  int64_t bytes = 0;
  for (int i = 0; i < FK_PARTS; i++)
    if (m->part[i].loaded) bytes += fk_binder_reload_bytes(m->part[i].binder, m->adapters.stale[i]);
  return bytes;
}

static bool refresh(FkModel *m, FkPart i, Share *share, GCancellable *cancellable, GError **error) {
  FkModelPart *p = &m->part[i];
  GHashTable **stale = &m->adapters.stale[i];
  if (p->loaded && *stale && !fk_binder_reload(p->binder, *stale, cancellable, forward_progress, share, error))
    return false;
  if (p->loaded && *stale && i == FK_PART_T5 && !fk_t5_prepare(&m->t5, m->be, error)) return false;
  share->before += share->last;
  share->last = 0;
  g_clear_pointer(stale, g_hash_table_unref);
  return true;
}

bool fk_adapters_set(FkModel *m, const char *list, bool *text_changed, GCancellable *cancellable,
                     FkLoadProgress progress, void *user_data, GError **error) {
  FkAdapters *a = &m->adapters;
  g_autofree char *identity = fk_loras_identity(list, error);
  *text_changed = false;
  if (!identity) return false;
  bool stale = false;
  for (int i = 0; i < FK_PARTS; i++) stale |= a->stale[i] != NULL;
  if (!a->identity) a->identity = g_strdup("");
  if (!stale && !strcmp(identity, a->identity)) return true;
  FkBinder *binders[FK_PARTS];
  const gint64 start = g_get_monotonic_time();
  for (int i = 0; i < FK_PARTS; i++) binders[i] = i == FK_PART_VAE ? NULL : m->part[i].binder;
  g_autoptr(FkLoras) loras = *identity ? fk_loras_open(list, binders, error) : NULL;
  if (*identity && !loras) return false;
  a->files_ms = (double)(g_get_monotonic_time() - start) / 1000;
  if (!have_numbers(m, loras, error) || (m->pack && loras && merged_already(m, list, error))) return false;
  for (int i = 0; i < FK_PARTS; i++) {
    add_names(&a->stale[i], deltas_of(a->loras, (FkPart)i));
    add_names(&a->stale[i], deltas_of(loras, (FkPart)i));
  }
  *text_changed = a->stale[FK_PART_CLIP] || a->stale[FK_PART_T5];
  fk_model_adapt(m, loras);
  fk_loras_free(a->loras);
  a->loras = g_steal_pointer(&loras);
  g_free(a->identity);
  a->identity = g_steal_pointer(&identity);
  Share share = {progress, user_data, 0, 0, stale_bytes(m)};
  for (int i = 0; i < FK_PARTS; i++) fk_binder_clear_times(m->part[i].binder);
  for (int i = 0; i < FK_PARTS; i++)
    if (!refresh(m, (FkPart)i, &share, cancellable, error)) return false;
  return true;
}
