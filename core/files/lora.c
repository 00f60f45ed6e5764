/* SPDX-License-Identifier: Apache-2.0 */
/* A list of adapters and what it changes; see lora.h. One file is lora-file.c. */
#include "lora.h"

#include "file.h"
#include "fk-error.h"
#include "hash.h"
#include "lora-file.h"

#include <glib/gstdio.h>
#include <math.h>
#include <string.h>

typedef struct {
  char *path;
  double weight;
} Entry;

typedef struct {
  Entry entry;
  FkLoraFile *file;
} Adapter;

struct FkLoras {
  GArray *adapters;              /* Adapter */
  GHashTable *changed[FK_PARTS]; /* canonical name -> FkDeltas, both owned */
  GPtrArray *norms;              /* float, of FkDelta.norm */
};

/* ---- The list ---- */

static void clear_entry(gpointer entry) {
  g_free(((Entry *)entry)->path);
}

static bool bad_list(GError **error, const char *entry, const char *text) {
  g_autofree char *shown = fk_shown_path(entry);
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "loras: \"%s\": %s", shown, text);
  return false;
}

/* "path" or "path:weight": what stands behind the last ':' is a weight where it begins as a number does. */
static bool parse_entry(const char *text, Entry *entry, GError **error) {
  const char *colon = strrchr(text, ':');
  *entry = (Entry){.weight = 1};
  if (colon && (strspn(colon + 1, "+-.0123456789") || !colon[1])) {
    if (!fk_decimal(colon + 1, &entry->weight) || fabs(entry->weight) > FK_LORA_MAX_WEIGHT)
      return bad_list(error, text, "expected a weight from -1000 to 1000 behind the last ':'");
  } else {
    colon = NULL;
  }
  g_autofree char *path = colon ? g_strndup(text, (gsize)(colon - text)) : g_strdup(text);
  if (!*g_strstrip(path)) return bad_list(error, text, "expected a path");
  entry->path = g_steal_pointer(&path);
  return true;
}

/* (transfer full) of Entry */
static GArray *parse_list(const char *list, GError **error) {
  g_autoptr(GArray) entries = g_array_new(FALSE, FALSE, sizeof(Entry));
  g_array_set_clear_func(entries, clear_entry);
  g_auto(GStrv) texts = fk_file_list("loras", list, FK_LORA_MAX_FILES, error);
  for (int i = 0; texts && texts[i]; i++) {
    Entry entry;
    if (!parse_entry(texts[i], &entry, error)) return NULL;
    g_array_append_val(entries, entry);
  }
  return texts ? g_steal_pointer(&entries) : NULL;
}

bool fk_loras_check(const char *list, GError **error) {
  g_autoptr(GArray) entries = parse_list(list, error);
  return entries != NULL;
}

/* Inode, size and time tell contents apart without reading them; NULL: not there, which opening it says better. */
static char *file_identity(const char *path) {
  GStatBuf st;
  if (g_stat(path, &st)) return NULL;
  return g_strdup_printf("%ju %ju %jd %jd.%09ld", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino, (intmax_t)st.st_size,
                         (intmax_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

char *fk_loras_identity(const char *list, GError **error) {
  g_autoptr(GArray) entries = parse_list(list, error);
  if (!entries) return NULL;
  GString *s = g_string_new(NULL);
  for (guint i = 0; i < entries->len; i++) {
    const Entry *e = &g_array_index(entries, Entry, i);
    g_autofree char *file = file_identity(e->path);
    char weight[G_ASCII_DTOSTR_BUF_SIZE];
    g_string_append_printf(s, "%s %s\n", file ? file : e->path, g_ascii_dtostr(weight, sizeof weight, e->weight));
  }
  return g_string_free(s, FALSE);
}

char *fk_loras_hashes(const char *list, GError **error) {
  g_autoptr(GArray) entries = parse_list(list, error);
  g_autoptr(GString) s = g_string_new(NULL);
  for (guint i = 0; entries && i < entries->len; i++) {
    const Entry *e = &g_array_index(entries, Entry, i);
    uint64_t bytes;
    bool sampled;
    char weight[G_ASCII_DTOSTR_BUF_SIZE];
    g_autofree char *hash = fk_hash_file(e->path, &bytes, &sampled, error);
    if (!hash) return NULL;
    g_string_append_printf(s, "%s %s\n", hash, g_ascii_dtostr(weight, sizeof weight, e->weight));
  }
  return entries ? g_strdup(s->str) : NULL;
}

char *fk_loras_sources(const char *list, const char *before, GError **error) {
  g_autoptr(GArray) entries = parse_list(list, error);
  g_autoptr(GString) s = g_string_new(NULL);
  for (guint i = 0; entries && i < entries->len; i++) {
    const Entry *e = &g_array_index(entries, Entry, i);
    uint64_t bytes;
    bool sampled;
    char weight[G_ASCII_DTOSTR_BUF_SIZE];
    g_autofree char *hash = fk_hash_file(e->path, &bytes, &sampled, error), *base = g_path_get_basename(e->path);
    if (!hash) return NULL;
    g_autofree char *shown = fk_shown_path(base);
    g_string_append_printf(s, "%s%s %s%s:%s\n", hash, sampled ? " sampled" : "", before, shown,
                           g_ascii_formatd(weight, sizeof weight, "%g", e->weight));
  }
  return entries ? g_strdup(s->str) : NULL;
}

/* ---- What is changed ---- */

static void free_deltas(gpointer deltas) {
  g_array_unref(deltas);
}

static FkDeltas *deltas_of(FkLoras *l, FkPart part, const char *canonical) {
  FkDeltas *deltas = g_hash_table_lookup(l->changed[part], canonical);
  if (deltas) return deltas;
  deltas = g_array_new(FALSE, TRUE, sizeof(FkDelta));
  g_hash_table_insert(l->changed[part], g_strdup(canonical), deltas);
  return deltas;
}

static FkDelta piece_delta(const FkLoraModule *m, int k, const FkDelta *of, double weight) {
  FkDelta d = *of;
  d.first = m->first[k];
  d.swap = m->swap;
  d.weight = weight;
  return d;
}

/* The norms of the columns of V = W + scale * D over the rows of all pieces of the module, [cols]. (transfer full) */
static float *column_norms(const FkBinder *b, const FkLoraGroup *g, GError **error) {
  const FkLoraModule *m = g->module;
  const int64_t cols = m->cols, most = MAX(1, (1 << 20) / cols);
  g_autofree double *squares = g_try_new0(double, (gsize)cols);
  g_autofree float *rows = g_try_new0(float, (gsize)(cols * most)), *norms = g_try_new(float, (gsize)cols);
  g_autoptr(GArray) deltas = g_array_new(FALSE, TRUE, sizeof(FkDelta));
  g_array_set_size(deltas, 1);
  if (!squares || !rows || !norms) {
    g_set_error_literal(error, FK_ERROR, FK_ERROR_MEMORY, "an adapter: no memory for the norms of a matrix");
    return NULL;
  }
  for (int k = 0; k < m->n; k++) {
    FkDelta d = piece_delta(m, k, &g->weight, 1);
    d.magnitude = NULL;
    g_array_index(deltas, FkDelta, 0) = d;
    for (int64_t at = 0; at < m->piece[k]->rows; at += most) {
      const int64_t n = MIN(most, m->piece[k]->rows - at);
      if (!fk_binder_read(b, m->piece[k]->name, at, n, rows, error)) return NULL;
      g_autoptr(FkDeltaRun) run = fk_delta_begin(deltas, at, n, error);
      if (!run) return NULL;
      fk_delta_rows(run, 0, n, rows);
      for (int64_t i = 0; i < n * cols; i++) squares[i % cols] += (double)rows[i] * rows[i];
    }
  }
  for (int64_t j = 0; j < cols; j++) norms[j] = (float)sqrt(squares[j]);
  return g_steal_pointer(&norms);
}

/* A bias is bound beside its weight. */
static const FkBound *bias_of(const FkBinder *b, const FkBound *weight) {
  g_autofree char *name = g_strndup(weight->name, strlen(weight->name) - strlen("weight"));
  g_autofree char *bias = g_strconcat(name, "bias", NULL);
  return fk_binder_find(b, bias);
}

static bool add_bias(FkLoras *l, const Adapter *a, const FkBinder *b, const FkLoraGroup *g, GError **error) {
  for (int k = 0; k < g->module->n; k++) {
    const FkBound *bias = bias_of(b, g->module->piece[k]);
    if (!bias) {
      g_autofree char *stem = fk_shown_name(g->stem);
      g_set_error(error, FK_ERROR, FK_ERROR_MODEL_MISMATCH, "%s: \"%s\": changes a bias, and the module has none",
                  fk_safetensors_path(a->file->file), stem);
      return false;
    }
    const FkDelta d = piece_delta(g->module, k, &g->bias, a->entry.weight);
    g_array_append_val(deltas_of(l, g->module->part, bias->name), d);
  }
  return true;
}

static bool add_group(FkLoras *l, const Adapter *a, const FkBinder *b, const FkLoraGroup *g, GError **error) {
  if (g->changes_bias && !add_bias(l, a, b, g, error)) return false;
  if (!g->changes_weight) return true;
  FkDelta whole = g->weight;
  const FkStTensor *m = whole.magnitude;
  if (m && m->rank > 1 && m->dim[0] == 1 && m->dim[1] == whole.cols && whole.cols > 1) {
    float *norms = column_norms(b, g, error);
    if (!norms) return false;
    g_ptr_array_add(l->norms, norms);
    whole.norm = norms;
  }
  for (int k = 0; k < g->module->n; k++) {
    const FkDelta d = piece_delta(g->module, k, &whole, a->entry.weight);
    g_array_append_val(deltas_of(l, g->module->part, g->module->piece[k]->name), d);
  }
  return true;
}

/* ---- Files ---- */

static void clear_adapter(gpointer adapter) {
  Adapter *a = adapter;
  g_free(a->entry.path);
  fk_lora_file_free(a->file);
}

/* Takes the entry's path. A weight of 0 changes nothing, but its file is checked. */
static bool add_file(FkLoras *l, Entry *entry, const FkLoraNames *names, FkBinder *const binders[FK_PARTS],
                     GError **error) {
  Adapter a = {{g_steal_pointer(&entry->path), entry->weight}, NULL};
  a.file = fk_lora_file_open(a.entry.path, names, error);
  g_array_append_val(l->adapters, a);
  if (!a.file) return false;
  for (guint i = 0; a.entry.weight != 0 && i < a.file->groups->len; i++) {
    const FkLoraGroup *g = a.file->groups->pdata[i];
    if (!add_group(l, &a, binders[g->module->part], g, error)) return false;
  }
  return true;
}

static bool check_different(const GArray *entries, GError **error) {
  g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  for (guint i = 0; i < entries->len; i++) {
    const char *path = g_array_index(entries, Entry, i).path;
    char *identity = file_identity(path);
    if (identity && !g_hash_table_add(seen, identity)) return bad_list(error, path, "the same file twice");
  }
  return true;
}

FkLoras *fk_loras_open(const char *list, FkBinder *const binders[FK_PARTS], GError **error) {
  g_autoptr(GArray) entries = parse_list(list, error);
  if (!entries || !check_different(entries, error)) return NULL;
  g_autoptr(FkLoraNames) names = fk_lora_names_new(binders);
  g_autoptr(FkLoras) l = g_new0(FkLoras, 1);
  l->adapters = g_array_new(FALSE, FALSE, sizeof(Adapter));
  g_array_set_clear_func(l->adapters, clear_adapter);
  l->norms = g_ptr_array_new_with_free_func(g_free);
  for (int i = 0; i < FK_PARTS; i++)
    l->changed[i] = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, free_deltas);
  for (guint i = 0; i < entries->len; i++)
    if (!add_file(l, &g_array_index(entries, Entry, i), names, binders, error)) {
      g_prefix_error(error, "loras: ");
      return NULL;
    }
  return g_steal_pointer(&l);
}

void fk_loras_free(FkLoras *l) {
  if (!l) return;
  for (int i = 0; i < FK_PARTS; i++) g_hash_table_unref(l->changed[i]);
  g_array_unref(l->adapters);
  g_ptr_array_unref(l->norms);
  g_free(l);
}

GHashTable *fk_loras_deltas(const FkLoras *l, FkPart part) {
  return l->changed[part];
}

int fk_loras_unmatched(const FkLoras *l) {
  int n = 0;
  for (guint i = 0; i < l->adapters->len; i++) n += g_array_index(l->adapters, Adapter, i).file->unmatched;
  return n;
}

char *fk_loras_text(const FkLoras *l) {
  GString *s = g_string_new(NULL);
  for (guint i = 0; i < l->adapters->len; i++) {
    const Adapter *a = &g_array_index(l->adapters, Adapter, i);
    const FkLoraFile *f = a->file;
    g_autofree char *base = g_path_get_basename(a->entry.path), *shown = fk_shown_name(base);
    char weight[G_ASCII_DTOSTR_BUF_SIZE];
    g_string_append_printf(s, "%s%s:%s (%s, %u modules", i ? ", " : "", shown,
                           g_ascii_formatd(weight, sizeof weight, "%g", a->entry.weight), f->dialect, f->groups->len);
    if (f->unmatched) g_string_append_printf(s, "; %d tensors have no place in this model: ", f->unmatched);
    for (int k = 0; k < MIN(f->unmatched, FK_LORA_SHOWN); k++)
      g_string_append_printf(s, "%s%s", k ? ", " : "", f->shown[k]);
    g_string_append(s, f->unmatched > FK_LORA_SHOWN ? ", ...)" : ")");
  }
  return g_string_free(s, FALSE);
}
