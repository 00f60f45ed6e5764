/* SPDX-License-Identifier: Apache-2.0 */
/* The binder: what a model needs, where it goes, and whether the checkpoint has it; see weights.h. Bytes are read in
 * weights-load.c. */
#include "weights-internal.h"

#include "file.h"
#include "fk-error.h"
#include "numbers.h"

#include <stdarg.h>
#include <string.h>

static void free_bound(gpointer bound) {
  g_free(((FkBound *)bound)->name);
  g_free(bound);
}

FkBinder *fk_binder_new(FkBackend *be, const FkPrecision *precision, const FkNames *names, FkPart part) {
  FkBinder *b = g_new0(FkBinder, 1);
  b->be = be;
  b->precision = precision ? *precision : fk_precision_uniform(be->dtype);
  if (names) b->names = *names;
  b->part = part;
  b->component = b->names.part[part].component;
  fk_store_init(&b->store, be);
  b->items = g_array_new(FALSE, FALSE, sizeof(FkItem));
  b->targets = g_array_new(FALSE, FALSE, sizeof(FkTarget));
  b->owned = g_ptr_array_new_with_free_func(g_free);
  b->changed = g_ptr_array_new();
  b->problems = g_string_new(NULL);
  b->bound = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, free_bound);
  b->known = g_hash_table_new(NULL, NULL);
  return b;
}

void fk_binder_forms_only(FkBinder *b) {
  b->component = NULL;
}

void fk_binder_expand(FkBinder *b, GHashTable *names) {
  GHashTableIter it;
  gpointer name;
  if (!names) return;
  b->apart = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  g_hash_table_iter_init(&it, names);
  while (g_hash_table_iter_next(&it, &name, NULL)) g_hash_table_add(b->apart, g_strdup(name));
}

void fk_binder_free(FkBinder *b) {
  if (!b) return;
  fk_coded_release_operands(b);
  g_ptr_array_unref(b->changed);
  fk_store_clear(&b->store);
  g_array_unref(b->items);
  g_array_unref(b->targets);
  g_ptr_array_unref(b->owned);
  if (b->apart) g_hash_table_unref(b->apart);
  g_hash_table_unref(b->bound);
  g_hash_table_unref(b->known);
  g_string_free(b->problems, TRUE);
  g_free(b);
}

#define MAX_PROBLEMS 1200 /* bytes of text; the rest is counted */

/* Counts a problem and lists it behind those before, as far as there is room. */
G_GNUC_PRINTF(3, 4) static void problem(FkBinder *b, int *count, const char *format, ...) {
  GString *s = b->problems;
  (*count)++;
  if (b->full) return;
  va_list list;
  va_start(list, format);
  g_autofree char *text = g_strdup_vprintf(format, list);
  va_end(list);
  b->full = s->len && s->len + strlen(text) > MAX_PROBLEMS;
  g_string_append_printf(s, "%s%s", s->len ? "; " : "", b->full ? "..." : text);
}

/* ---- Places ---- */

size_t fk_binder_place(FkBinder *b, int role, size_t bytes) {
  const size_t before = b->store.bytes, at = fk_store_place(&b->store, bytes);
  b->share[role].bytes += b->store.bytes - before;
  return at;
}

FkTarget *fk_binder_target(FkBinder *b, FkTarget target) {
  g_array_append_val(b->targets, target);
  return &g_array_index(b->targets, FkTarget, b->targets->len - 1);
}

static size_t matrix_bytes(FkDtype dtype, int64_t out, int64_t in) {
  return (size_t)out * (size_t)in * fk_dtype_size(dtype); /* config.c bounds every size: at most 10^12 * kernel^2 */
}

/* The same codes once more. */
static void place_odd(FkBinder *b, FkWeight *w, FkTarget *t) {
  t->odd = g_memdup2(w, sizeof *w);
  t->odd_place = fk_binder_place(b, t->role, matrix_bytes(w->dtype, w->out, w->in));
  t->odd_scale = fk_binder_place(b, t->role, (size_t)w->out * sizeof(float));
  g_ptr_array_add(b->owned, t->odd);
  w->odd = t->odd;
}

/* A weight at the next aligned place; behind it its scales, and its twin where there are to be two. */
static const FkTarget *place_weight(FkBinder *b, FkWeight *w, int role, FkForm form, int64_t out, int64_t in) {
  const bool codes = form.dtype == FK_E4M3 || form.dtype == FK_I8;
  assert(form.scale == (codes ? FK_SCALE_ROW : FK_SCALE_NONE) && form.layout == FK_LAYOUT_ROWS);
  *w = (FkWeight){.dtype = form.dtype, .layout = form.layout, .out = out, .in = in, .scale.kind = form.scale};
  FkTarget *t = fk_binder_target(b, (FkTarget){.weight = w, .role = role});
  t->place = fk_binder_place(b, role, matrix_bytes(form.dtype, out, in));
  if (!codes) return t;
  b->makes_codes = true;
  w->scale.dtype = FK_F32;
  t->scale = fk_binder_place(b, role, (size_t)out * sizeof(float));
  t->mx = form.mx;
  if (form.dither) place_odd(b, w, t);
  if (!form.twin) return t;
  t->full = g_new(FkWeight, 1);
  *t->full = (FkWeight){.dtype = b->be->dtype, .out = out, .in = in};
  t->full_place = fk_binder_place(b, role, matrix_bytes(b->be->dtype, out, in));
  g_ptr_array_add(b->owned, t->full);
  w->full = t->full;
  return t;
}

static const FkTarget *place_vector(FkBinder *b, FkTensor *t, int64_t n) {
  *t = fk_tensor_1d(NULL, FK_F32, n);
  const size_t at = fk_binder_place(b, FK_ROLES, (size_t)n * sizeof(float));
  return fk_binder_target(b, (FkTarget){.tensor = t, .role = FK_ROLES, .place = at});
}

/* ---- Needs ---- */

bool fk_binder_source(const FkBinder *b, const FkNeed *n, FkSource *s, char **problem) {
  int64_t dim[FK_NEED_RANK];
  *problem = NULL;
  if (!fk_names_find(&b->names, b->part, n->name, s)) return false;
  memcpy(dim, n->dim, sizeof dim);
  if (s->of) dim[0] = dim[0] * s->of / s->count; /* of the tensor that has other rows too */
  *problem = fk_numbers_check(s, dim, n->rank);
  return !*problem;
}

bool fk_item_adds(const FkBackend *be, const FkItem *item, FkAdapted *m) {
  const bool numbers = item->kind == FK_ITEM_NUMBERS && !fk_item_quantised(item) && item->taps == 1;
  if (!be->ops->commit_adapted || !item->deltas || !numbers || !fk_delta_terms(item->deltas, m)) return false;
  if (fk_adapted_right(m) > FK_ADAPTED_RIGHT) return false;
  if ((size_t)(m->cols + fk_adapted_ranks(m)) * sizeof(float) > FK_ADAPTED_ROW) return false;
  m->from = item->from;
  m->in_place = item->in_place && item->from == item->as;
  return true;
}

/* The need's source, else false with its problem counted, once a tensor. *from: its type as the reader finds it. */
static bool find_source(FkBinder *b, const FkNeed *n, FkSource *s, FkDtype *from) {
  g_autofree char *found = NULL;
  const bool fits = fk_binder_source(b, n, s, &found);
  if (!fits && !found) {
    g_autofree char *name = fk_names_expected(&b->names, b->part, n->name);
    g_autofree char *ours = strcmp(name, n->name) ? g_strdup_printf(" (%s of the model)", n->name) : NULL;
    problem(b, &b->missing, "%s: tensor \"%s\"%s is missing", fk_component_folder(b->component), name,
            ours ? ours : "");
    return false;
  }
  g_hash_table_add(b->known, (gpointer)s->tensor);
  if (s->scale) g_hash_table_add(b->known, (gpointer)s->scale);
  if (s->scale2) g_hash_table_add(b->known, (gpointer)s->scale2);
  if (fits && fk_numbers_coded(s)) return *from = FK_F32, true;
  if (fits && fk_st_type_usable(s->tensor, from)) return true;
  if (s->tensor == b->wrong) return false;
  b->wrong = s->tensor;
  problem(b, &b->mismatched, "%s: tensor \"%s\": %s", fk_safetensors_path(s->file), s->tensor->name, found);
  return false;
}

/* The item's rows from..from+rows of the source, at row `to` of the item's tensor, which is at row `first` of its
 * place. */
static void add_rows(FkBinder *b, FkItem item, int64_t from, int64_t rows, int64_t to, int64_t first) {
  item.source.first_row += from;
  item.rows = rows;
  item.row = to;
  to += first;
  item.place += (size_t)(to * item.cols) * fk_dtype_size(item.as);
  item.scale += (size_t)to * sizeof(float);
  g_array_append_val(b->items, item);
}

void fk_binder_add_item(FkBinder *b, FkItem item, int64_t first) {
  const int64_t half = item.rows / 2;
  if (item.source.transform != FK_TRANSFORM_SWAP_HALVES) {
    add_rows(b, item, 0, item.rows, 0, first);
    return;
  }
  add_rows(b, item, item.rows - half, half, 0, first);
  add_rows(b, item, 0, item.rows - half, half, first);
}

static const char *add_bound(FkBinder *b, const FkNeed *n, const FkTarget *t, int64_t cols, size_t element) {
  FkBound *bound = g_new(FkBound, 1);
  *bound =
      (FkBound){.name = g_strdup(n->name),
                .weight = t->weight,
                .tensor = t->tensor,
                .first = n->first,
                .rows = n->dim[0],
                .cols = cols,
                .role = t->role,
                .group = (int)b->store.groups->len - 1,
                .place = t->coded ? t->coded_place[n->part].codes : t->place + (size_t)(n->first * cols) * element};
  const bool first = g_hash_table_insert(b->bound, bound->name, bound);
  assert(first); /* a model names each tensor once */
  (void)first;
  return bound->name;
}

/* Asks for a tensor, for the target and its twin. */
static void need(FkBinder *b, const FkTarget *t, const FkNeed *n) {
  int64_t count = 1;
  for (int i = 0; i < n->rank; i++) count *= n->dim[i];
  assert(count > 0);
  const FkDtype as = t->weight ? t->weight->dtype : FK_F32;
  FkItem item = {.as = as,
                 .rows = n->dim[0],
                 .cols = count / n->dim[0],
                 .taps = n->taps,
                 .place = t->place,
                 .scale = t->scale,
                 .mx = t->mx};
  item.numbers = item.cols;
  b->parameters += count;
  b->share[t->role].parameters += count;
  item.name = add_bound(b, n, t, item.cols, fk_dtype_size(as));
  if (t->coded) t->coded_place[n->part].name = item.name;
  if (!b->component || !find_source(b, n, &item.source, &item.from)) return;
  if (t->coded) {
    fk_coded_items(b, t, item, n->part);
    return;
  }
  fk_binder_add_item(b, item, n->first);
  if (t->odd) {
    FkItem odd = item;
    odd.odd = true;
    odd.place = t->odd_place;
    odd.scale = t->odd_scale;
    fk_binder_add_item(b, odd, n->first);
  }
  if (!t->full) return;
  item.as = t->full->dtype;
  item.mx = FK_MX_NONE;
  item.place = t->full_place;
  fk_binder_add_item(b, item, n->first);
}

#define FORMATTED(name, format)                                                                                        \
  va_list list;                                                                                                        \
  va_start(list, format);                                                                                              \
  g_autofree char *name = g_strdup_vprintf(format, list);                                                              \
  va_end(list)

void fk_bind_group(FkBinder *b, FkUse use, const char *format, ...) {
  FORMATTED(name, format);
  fk_store_group(&b->store, name, use);
}

/* n needs below each other as one matrix. */
static void bind_rows(FkBinder *b, FkWeight *w, FkRole role, int64_t out, int64_t in, const FkNeed *needs, int n) {
  const FkTarget *t = fk_coded_place(b, w, (int)role, out, in, needs, n);
  if (!t) t = place_weight(b, w, (int)role, b->precision.form[role], out, in);
  for (int i = 0; i < n; i++) need(b, t, &needs[i]);
}

void fk_bind_matrix(FkBinder *b, FkWeight *w, FkRole role, int64_t out, int64_t in, const char *format, ...) {
  FORMATTED(name, format);
  bind_rows(b, w, role, out, in, &(FkNeed){name, {out, in}, 2, 1, 0, 0}, 1);
}

void fk_bind_table(FkBinder *b, FkWeight *w, int64_t rows, int64_t cols, const char *format, ...) {
  FORMATTED(name, format);
  const FkTarget *t = place_weight(b, w, FK_ROLES, (FkForm){.dtype = b->be->dtype}, rows, cols);
  need(b, t, &(FkNeed){name, {rows, cols}, 2, 1, 0, 0});
}

void fk_bind_conv(FkBinder *b, FkWeight *w, int64_t out, int64_t in, int kernel, const char *format, ...) {
  FORMATTED(name, format);
  const FkForm form = b->precision.form[FK_ROLE_CONV];
  assert(form.scale == FK_SCALE_NONE);
  need(b, place_weight(b, w, FK_ROLE_CONV, form, out, in * kernel * kernel),
       &(FkNeed){name, {out, in, kernel, kernel}, 4, kernel * kernel, 0, 0});
}

void fk_bind_vector(FkBinder *b, FkTensor *t, int64_t n, const char *format, ...) {
  FORMATTED(name, format);
  need(b, place_vector(b, t, n), &(FkNeed){name, {n}, 1, 1, 0, 0});
}

void fk_bind_stack(FkBinder *b, FkWeight *w, FkTensor *bias, FkRole role, int64_t in, int n, const int64_t *outs,
                   const char *const *names) {
  int64_t out = 0, first = 0;
  for (int i = 0; i < n; i++) out += outs[i];
  g_autofree FkNeed *needs = g_new0(FkNeed, (size_t)n);
  g_autoptr(GPtrArray) weights = g_ptr_array_new_with_free_func(g_free);
  for (int i = 0; i < n; first += outs[i++]) {
    g_ptr_array_add(weights, g_strconcat(names[i], ".weight", NULL));
    needs[i] = (FkNeed){weights->pdata[i], {outs[i], in}, 2, 1, first, i};
  }
  bind_rows(b, w, role, out, in, needs, n);
  if (!bias) return;
  const FkTarget *t = place_vector(b, bias, out);
  first = 0;
  for (int i = 0; i < n; first += outs[i++]) {
    g_autofree char *name = g_strconcat(names[i], ".bias", NULL);
    need(b, t, &(FkNeed){name, {outs[i]}, 1, 1, first, i});
  }
}

/* ---- The checkpoint as a whole ---- */

/* Tensors that nobody asked for: of another model, or of a variant whose result would be wrong without them. */
static void count_extra(FkBinder *b) {
  for (size_t s = 0; s < fk_component_shards(b->component); s++) {
    const FkSafetensors *file = fk_component_shard(b->component, s);
    for (size_t i = 0; i < fk_safetensors_count(file); i++) {
      const FkStTensor *t = fk_safetensors_at(file, i);
      if (g_hash_table_contains(b->known, t) || fk_names_ignored(&b->names, b->part, t->name)) continue;
      g_autofree char *shape = fk_st_shape_text(t->dim, t->rank), *shown = fk_shown_name(t->name);
      problem(b, &b->extra, "%s: tensor \"%s\" of shape %s is not part of the model", fk_safetensors_path(file), shown,
              shape);
    }
  }
}

bool fk_binder_finish(FkBinder *b, GError **error) {
  if (!b->component) return true;
  count_extra(b);
  if (!b->problems->len) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_MISMATCH,
              "%s: %s (in all %d missing, %d of another shape or type, %d unknown)", fk_part_name(b->part),
              b->problems->str, b->missing, b->mismatched, b->extra);
  return false;
}

int64_t fk_binder_parameters(const FkBinder *b) {
  return b->parameters;
}
/* ---- Packed ---- */

size_t fk_binder_group_bytes(const FkBinder *b, int group) {
  const FkStore *s = &b->store;
  const bool last = group == (int)s->groups->len - 1;
  return (last ? s->bytes : fk_store_at(s, group + 1)->at) - fk_store_at(s, group)->at;
}

char *fk_binder_packed_name(const FkBinder *b, int group) {
  return g_strdup_printf("%s/%s", fk_part_name(b->part), fk_store_at(&b->store, group)->name);
}

void fk_binder_layout(const FkBinder *b, GString *text) {
  for (int i = 0; i < (int)b->store.groups->len; i++) {
    g_autofree char *name = fk_binder_packed_name(b, i);
    g_string_append_printf(text, "%s %zu %zu\n", name, fk_store_at(&b->store, i)->at, fk_binder_group_bytes(b, i));
  }
  for (guint i = 0; i < b->targets->len; i++) {
    const FkTarget *t = &g_array_index(b->targets, FkTarget, i);
    const FkWeight none = {0}, *w = t->weight ? t->weight : &none, *full = t->full ? t->full : &none;
    g_string_append_printf(text, "%zu %d %d %d %" G_GINT64_FORMAT "x%" G_GINT64_FORMAT " %zu %d %zu\n", t->place,
                           (int)w->dtype, (int)w->layout, (int)w->scale.kind, w->out, w->in, t->scale, (int)full->dtype,
                           t->full_place);
    if (t->mx || t->odd) g_string_append_printf(text, "mx %d odd %zu %zu\n", (int)t->mx, t->odd_place, t->odd_scale);
  }
}

/* The numbers of a tensor inside its group. */
static void add_again(FkBinder *b, const FkPack *pack, const FkBound *bound) {
  const FkGroup *g = fk_store_at(&b->store, bound->group);
  g_autofree char *name = fk_binder_packed_name(b, bound->group);
  const FkDtype dtype = bound->weight ? bound->weight->dtype : FK_F32;
  FkItem item = {.again = true, .from = dtype, .as = dtype, .rows = bound->rows, .cols = bound->cols, .taps = 1};
  item.numbers = item.cols;
  item.name = bound->name;
  item.place = bound->place;
  item.base = bound->place - g->at;
  item.source.file = fk_pack_file(pack);
  item.source.tensor = fk_pack_find(pack, name, fk_binder_group_bytes(b, bound->group), &item.sums, NULL);
  g_array_append_val(b->items, item);
}

static bool has_numbers(const FkBound *bound) {
  return !bound->weight || (bound->weight->scale.kind == FK_SCALE_NONE && bound->role != FK_ROLE_CONV);
}

bool fk_binder_has_numbers(const FkBinder *b, const char *canonical, GError **error) {
  if (!b->packed || has_numbers(fk_binder_find(b, canonical))) return true;
  g_set_error(
      error, FK_ERROR, FK_ERROR_OPTION_BAD,
      "loras: the packed model has \"%s\" of %s as codes, which nothing can be added to: open what it was packed "
      "from, or give the list to fluxkontext-pack",
      canonical, fk_part_name(b->part));
  return false;
}

bool fk_binder_take_pack(FkBinder *b, const FkPack *pack, GError **error) {
  assert(!b->component && !b->items->len);
  b->packed = true;
  for (int i = 0; i < (int)b->store.groups->len; i++) {
    const size_t bytes = fk_binder_group_bytes(b, i);
    g_autofree char *name = fk_binder_packed_name(b, i);
    FkItem item = {.from = FK_U8, .as = FK_U8, .rows = (int64_t)bytes, .cols = 1, .taps = 1};
    if (!bytes) continue;
    item.name = fk_store_at(&b->store, i)->name;
    item.place = fk_store_at(&b->store, i)->at;
    item.source.file = fk_pack_file(pack);
    item.source.tensor = fk_pack_find(pack, name, bytes, &item.sums, error);
    if (!item.source.tensor) return false;
    g_array_append_val(b->items, item);
  }
  g_autoptr(GPtrArray) all = fk_binder_all(b);
  for (guint i = 0; i < all->len; i++)
    if (has_numbers(all->pdata[i])) add_again(b, pack, all->pdata[i]);
  return true;
}

/* ---- What there is ---- */

bool fk_binder_makes_codes(const FkBinder *b) {
  return b->makes_codes && !b->packed;
}

int fk_binder_coded_rows(const FkBinder *b) {
  return g_atomic_int_get(&b->coded_rows);
}

int64_t fk_binder_reload_bytes(const FkBinder *b, GHashTable *names) {
  int64_t bytes = 0;
  for (guint i = 0; names && i < b->items->len; i++) {
    const FkItem *item = &g_array_index(b->items, FkItem, i);
    if (fk_item_reloads(item, names)) bytes += item->rows * item->cols * (int64_t)fk_dtype_size(item->as);
  }
  return bytes;
}

const FkLoadTimes *fk_binder_times(const FkBinder *b) {
  return &b->times;
}

void fk_binder_clear_times(FkBinder *b) {
  b->times = (FkLoadTimes){0};
}

FkRoleShare fk_binder_share(const FkBinder *b, int role) {
  assert(role >= 0 && role <= FK_ROLES);
  return b->share[role];
}
size_t fk_binder_bytes(const FkBinder *b) {
  return b->store.bytes;
}
FkStore *fk_binder_store(const FkBinder *b) {
  return (FkStore *)&b->store;
}
const FkBound *fk_binder_find(const FkBinder *b, const char *canonical) {
  return g_hash_table_lookup(b->bound, canonical);
}

GPtrArray *fk_binder_all(const FkBinder *b) {
  GPtrArray *list = g_ptr_array_sized_new(g_hash_table_size(b->bound));
  GHashTableIter it;
  gpointer bound;
  g_hash_table_iter_init(&it, b->bound);
  while (g_hash_table_iter_next(&it, NULL, &bound)) g_ptr_array_add(list, bound);
  return list;
}

void fk_binder_adapt(FkBinder *b, GHashTable *deltas) {
  if (!b->store.memory) b->store.host_filled = b->store.kept_filled = false; /* else fk_binder_reload sees to it */
  b->adapted = deltas && g_hash_table_size(deltas);
  for (guint i = 0; i < b->items->len; i++) {
    FkItem *item = &g_array_index(b->items, FkItem, i);
    item->deltas = deltas && item->kind == FK_ITEM_NUMBERS ? g_hash_table_lookup(deltas, item->name) : NULL;
  }
  fk_coded_adapt(b, deltas);
}

size_t fk_binder_operand_bytes(const FkBinder *b) {
  return b->operand_bytes;
}

size_t fk_binder_held_operand_bytes(const FkBinder *b) {
  return b->operands ? b->operand_bytes : 0;
}

int fk_binder_changed(const FkBinder *b) {
  return (int)b->changed->len;
}

/* ---- Where it is ---- */

static void *address(const FkBinder *b, size_t place) {
  return fk_store_address(&b->store, place);
}

static void set_coded(const FkBinder *b, FkTarget *t) {
  t->weight->data = NULL;
  for (int i = 0; i < t->parts; i++) {
    FkCoded *c = &t->coded[i];
    c->codes = address(b, t->coded_place[i].codes);
    if (c->form.row_scale) c->row_scale = address(b, t->coded_place[i].row_scale);
    if (c->form.block) c->block_scale = address(b, t->coded_place[i].block_scale);
  }
}

void fk_binder_set_targets(FkBinder *b) {
  for (guint i = 0; i < b->targets->len; i++) {
    FkTarget *t = &g_array_index(b->targets, FkTarget, i);
    if (t->tensor) t->tensor->data = address(b, t->place);
    if (t->weight) t->weight->data = address(b, t->place);
    if (t->weight && t->weight->scale.kind) t->weight->scale.data = address(b, t->scale);
    if (t->full) t->full->data = address(b, t->full_place);
    if (t->odd) t->odd->data = address(b, t->odd_place);
    if (t->odd) t->odd->scale.data = address(b, t->odd_scale);
    if (t->weight && t->coded) set_coded(b, t);
  }
}
