/* SPDX-License-Identifier: Apache-2.0 */
/* Matrices that stay in memory as their files have them (FkPrecision.as_filed): which of them do, where codes and
 * scales go, and what is read for them. They are expanded before each use (ops.c), to the numbers that the loader would
 * make.
 *
 * A matrix of several tensors has a part for each, whose types may differ. In memory the scales beside codes lie by
 * rows: one of a whole tensor is repeated for each row, and tiles are taken apart, so that any rows are a view.
 *
 * Adapters that are sums of products are added when a matrix is expanded. Their parts are in memory of their own, so
 * that an exchange moves nothing else. */
#include "weights-internal.h"

#include "fk-error.h"

#include <string.h>

/* What a file would have of a matrix that there is no file of. */
static bool assume(const FkBinder *b, int role, int64_t in, FkCodedForm *form) {
  const FkCode code = b->precision.assumed;
  const bool block = role >= FK_ROLE_MODULATION && role <= FK_ROLE_SINGLE_OUT; /* what makers of files quantise */
  if (!code || !(block || role == FK_ROLE_T5) || in % fk_code_values(code)) return false;
  *form = (FkCodedForm){.code = code, .row_scale = code == FK_CODE_E4M3 || code == FK_CODE_I8};
  return true;
}

static bool form_of(const FkBinder *b, int role, const FkNeed *n, FkCodedForm *form) {
  g_autofree char *problem = NULL;
  FkSource source;
  if (!b->names.part[b->part].component) return assume(b, role, n->dim[1], form);
  if (!fk_binder_source(b, n, &source, &problem)) return false; /* told when the tensor is asked for */
  *form = fk_numbers_form(&source);
  return true;
}

static size_t bytes_of(FkCodedForm form, int64_t rows, int64_t in) {
  const size_t row = fk_coded_row_bytes(form, in) + fk_coded_row_scales(form, in);
  return (size_t)rows * (row + (form.row_scale ? sizeof(float) : 0));
}

const FkTarget *fk_coded_place(FkBinder *b, FkWeight *w, int role, int64_t out, int64_t in, const FkNeed *needs,
                               int n) {
  const FkForm form = b->precision.form[role];
  if (!b->precision.as_filed || form.scale != FK_SCALE_NONE || role == FK_ROLE_CONV) return NULL;
  g_autofree FkCoded *coded = g_new0(FkCoded, (size_t)n);
  size_t bytes = 0;
  for (int i = 0; i < n; i++) {
    if (b->apart && g_hash_table_contains(b->apart, needs[i].name)) return NULL;
    coded[i] = (FkCoded){.rows = needs[i].dim[0], .cols = in};
    if (!form_of(b, role, &needs[i], &coded[i].form)) return NULL;
    bytes += bytes_of(coded[i].form, coded[i].rows, in);
  }
  if (bytes >= (size_t)out * (size_t)in * fk_dtype_size(form.dtype)) return NULL;
  FkTarget *t = fk_binder_target(b, (FkTarget){.weight = w, .role = role, .parts = n});
  t->coded = g_steal_pointer(&coded);
  t->coded_place = g_new0(FkCodedPlace, (size_t)n);
  g_ptr_array_add(b->owned, t->coded);
  g_ptr_array_add(b->owned, t->coded_place);
  *w = (FkWeight){.dtype = form.dtype, .layout = form.layout, .out = out, .in = in, .coded = t->coded};
  b->share[role].coded += bytes;
  for (int i = 0; i < n; i++) {
    t->coded_place[i].coded = &t->coded[i];
    const FkCodedForm f = t->coded[i].form;
    const size_t rows = (size_t)t->coded[i].rows;
    t->coded_place[i].codes = fk_binder_place(b, role, rows * fk_coded_row_bytes(f, in));
    if (f.row_scale) t->coded_place[i].row_scale = fk_binder_place(b, role, rows * sizeof(float));
    if (f.block) t->coded_place[i].block_scale = fk_binder_place(b, role, rows * fk_coded_row_scales(f, in));
  }
  t->place = t->coded_place[0].codes;
  return t;
}

static void add(FkBinder *b, FkItem item, FkItemKind kind, FkDtype as, size_t cols, size_t place) {
  item.kind = kind;
  item.from = item.as = as;
  item.cols = (int64_t)cols;
  item.place = place;
  fk_binder_add_item(b, item, 0);
}

void fk_coded_items(FkBinder *b, const FkTarget *t, FkItem item, int part) {
  const FkCodedForm form = t->coded[part].form;
  const FkCodedPlace *place = &t->coded_place[part];
  add(b, item, FK_ITEM_CODES, FK_U8, fk_coded_row_bytes(form, item.numbers), place->codes);
  if (form.row_scale) add(b, item, FK_ITEM_ROW_SCALES, FK_F32, 1, place->row_scale);
  if (form.block)
    add(b, item, FK_ITEM_BLOCK_SCALES, FK_U8, fk_coded_row_scales(form, item.numbers), place->block_scale);
}

/* ---- Adapters ---- */

static void adapt(FkBinder *b, FkCodedPlace *p, const FkDeltas *deltas) {
  FkCoded *c = p->coded;
  p->deltas = deltas;
  c->adapted = NULL;
  if (!deltas) return;
  const bool adds = fk_delta_terms(deltas, &p->adapted);
  assert(adds); /* others: fk_binder_expand */
  (void)adds;
  p->adapted.rows = c->rows;
  c->adapted = &p->adapted;
  c->operands = fk_delta_type(deltas);
  p->operands = b->operand_bytes;
  const size_t end = p->operands + fk_delta_operand_numbers(&p->adapted) * fk_dtype_size(c->operands);
  b->operand_bytes = (end + FK_WEIGHT_ALIGN - 1) / FK_WEIGHT_ALIGN * FK_WEIGHT_ALIGN;
  g_ptr_array_add(b->changed, p);
}

void fk_coded_adapt(FkBinder *b, GHashTable *deltas) {
  fk_coded_release_operands(b);
  g_ptr_array_set_size(b->changed, 0);
  b->operand_bytes = 0;
  for (guint i = 0; i < b->targets->len; i++) {
    const FkTarget *t = &g_array_index(b->targets, FkTarget, i);
    for (int k = 0; k < t->parts; k++) {
      FkCodedPlace *p = &t->coded_place[k];
      adapt(b, p, deltas ? g_hash_table_lookup(deltas, p->name) : NULL);
    }
  }
}

static void set_operands(FkBinder *b) {
  for (guint i = 0; i < b->changed->len; i++) {
    const FkCodedPlace *p = b->changed->pdata[i];
    FkCoded *c = p->coded;
    char *at = b->operands ? (char *)b->operands + p->operands : NULL;
    c->right = at;
    c->left = at ? at + fk_adapted_right(&p->adapted) / sizeof(float) * fk_dtype_size(c->operands) : NULL;
  }
}

static bool load_part(FkBinder *b, const FkCodedPlace *p, GError **error) {
  const FkDtype type = p->coded->operands;
  const size_t bytes = fk_delta_operand_numbers(&p->adapted) * fk_dtype_size(type);
  g_autofree void *from = g_try_malloc(bytes);
  if (!from) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "an adapter: an allocation of %zu bytes was refused", bytes);
    return false;
  }
  if (!fk_delta_operands_as(p->deltas, &p->adapted, type, from, error)) return false;
  b->be->ops->upload(b->be, (char *)b->operands + p->operands, from, bytes);
  return !b->be->failure;
}

bool fk_coded_load_operands(FkBinder *b, GCancellable *cancellable, GError **error) {
  if (b->operands || !b->operand_bytes) return true;
  b->operands = b->be->ops->alloc(b->be, b->operand_bytes);
  if (!b->operands) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: adapters: an allocation of %zu bytes on %s was refused",
                fk_part_name(b->part), b->operand_bytes, b->be->machine);
    return false;
  }
  set_operands(b);
  const bool null = !strcmp(b->be->ops->name, "null"); /* its addresses are made up */
  bool ok = true;
  for (guint i = 0; ok && !null && i < b->changed->len; i++) {
    ok = load_part(b, b->changed->pdata[i], error);
    if (!ok || !g_cancellable_is_cancelled(cancellable)) continue;
    g_set_error(error, FK_ERROR, FK_ERROR_CANCELLED, "%s: loading was cancelled", fk_part_name(b->part));
    ok = false;
  }
  if (!ok) fk_coded_release_operands(b);
  return ok;
}

void fk_coded_release_operands(FkBinder *b) {
  if (b->operands) b->be->ops->release(b->be, b->operands);
  b->operands = NULL;
  set_operands(b);
}
