/* SPDX-License-Identifier: Apache-2.0 */
/* The binder: what a model needs, where it goes, and whether the checkpoint has it; see weights.h. Bytes are read in
 * weights-load.c. */
#include "weights-internal.h"

#include "fk-error.h"

#include <stdarg.h>
#include <string.h>

FkBinder *fk_binder_new(FkBackend *be, const FkPrecision *precision, FkComponent *component, const char *what) {
  FkBinder *b = g_new0(FkBinder, 1);
  b->be = be;
  b->precision = precision ? *precision : fk_precision_uniform(be->dtype);
  b->component = component;
  b->what = g_strdup(what);
  b->items = g_array_new(FALSE, FALSE, sizeof(FkItem));
  b->targets = g_array_new(FALSE, FALSE, sizeof(FkTarget));
  b->known = g_hash_table_new(NULL, NULL);
  b->ignored = g_ptr_array_new_with_free_func((GDestroyNotify)g_pattern_spec_free);
  return b;
}

void fk_binder_free(FkBinder *b) {
  if (!b) return;
  if (b->memory) b->be->ops->release(b->be, b->memory);
  g_array_unref(b->items);
  g_array_unref(b->targets);
  g_hash_table_unref(b->known);
  g_ptr_array_unref(b->ignored);
  g_free(b->what);
  g_free(b->first);
  g_free(b);
}

/* Counts a problem; the first one's text is kept. */
G_GNUC_PRINTF(3, 4) static void problem(FkBinder *b, int *count, const char *format, ...) {
  (*count)++;
  if (b->first) return;
  va_list list;
  va_start(list, format);
  b->first = g_strdup_vprintf(format, list);
  va_end(list);
}

/* The first of the names separated by '|' that the checkpoint has. All of them count as asked for: a tied copy under a
 * second name is legal. */
static const FkStTensor *find(FkBinder *b, const char *names, const char *suffix, const FkSafetensors **file) {
  g_auto(GStrv) list = g_strsplit(names, "|", -1);
  const FkStTensor *found = NULL;
  for (char **name = list; *name; name++) {
    const FkSafetensors *shard;
    g_autofree char *full = g_strconcat(*name, suffix, NULL);
    const FkStTensor *tensor = fk_component_find(b->component, full, &shard);
    if (!tensor) continue;
    g_hash_table_add(b->known, (gpointer)tensor);
    if (!found) {
      found = tensor;
      *file = shard;
    }
  }
  return found;
}

/* Asks for names + suffix of shape dim[rank] and puts it at the end of the memory; taps as in FkItem. */
static void need(FkBinder *b, const char *names, const char *suffix, const int64_t *dim, int rank, FkDtype as,
                 int taps) {
  int64_t count = 1;
  for (int i = 0; i < rank; i++) {
    assert(dim[i] > 0);
    count *= dim[i]; /* config.c bounds every size: at most 10^12 * kernel^2 */
  }
  FkItem item = {.place = b->bytes, .as = as, .rows = dim[0], .cols = count / dim[0], .taps = taps};
  b->parameters += count;
  b->bytes += (size_t)count * fk_dtype_size(as);
  if (!b->component) return;
  item.source = find(b, names, suffix, &item.file);
  if (!item.source) {
    problem(b, &b->missing, "%s: tensor \"%s%s\" is missing", fk_component_folder(b->component), names, suffix);
    return;
  }
  const char *path = fk_safetensors_path(item.file), *name = item.source->name;
  if (item.source->rank != rank || memcmp(item.source->dim, dim, (size_t)rank * sizeof *dim)) {
    g_autofree char *expected = fk_st_shape_text(dim, rank);
    g_autofree char *found = fk_st_shape_text(item.source->dim, item.source->rank);
    problem(b, &b->mismatched, "%s: tensor \"%s\": expected shape %s, found %s", path, name, expected, found);
  } else if (!fk_st_type_usable(item.source, &item.from)) {
    problem(b, &b->mismatched, "%s: tensor \"%s\": expected F32, F16 or BF16, found %s", path, name,
            fk_st_type_name(item.source));
  } else {
    g_array_append_val(b->items, item);
  }
}

/* Starts a target at the next aligned place. */
static void place(FkBinder *b, FkWeight *w, FkTensor *t) {
  b->bytes = (b->bytes + FK_WEIGHT_ALIGN - 1) / FK_WEIGHT_ALIGN * FK_WEIGHT_ALIGN;
  FkTarget target = {w, t, b->bytes};
  g_array_append_val(b->targets, target);
}

static void place_weight(FkBinder *b, FkWeight *w, FkForm form, int64_t out, int64_t in) {
  assert(form.scale == FK_SCALE_NONE);
  *w = (FkWeight){.dtype = form.dtype, .layout = form.layout, .out = out, .in = in};
  place(b, w, NULL);
}

static void place_vector(FkBinder *b, FkTensor *t, int64_t n) {
  *t = fk_tensor_1d(NULL, FK_F32, n);
  place(b, NULL, t);
}

#define FORMATTED(names, format)                                                                                       \
  va_list list;                                                                                                        \
  va_start(list, format);                                                                                              \
  g_autofree char *names = g_strdup_vprintf(format, list);                                                             \
  va_end(list)

void fk_bind_matrix(FkBinder *b, FkWeight *w, FkRole role, int64_t out, int64_t in, const char *format, ...) {
  FORMATTED(names, format);
  place_weight(b, w, b->precision.form[role], out, in);
  need(b, names, "", (int64_t[]){out, in}, 2, w->dtype, 1);
}

void fk_bind_table(FkBinder *b, FkWeight *w, int64_t rows, int64_t cols, const char *format, ...) {
  FORMATTED(names, format);
  place_weight(b, w, (FkForm){.dtype = b->be->dtype}, rows, cols);
  need(b, names, "", (int64_t[]){rows, cols}, 2, w->dtype, 1);
}

void fk_bind_conv(FkBinder *b, FkWeight *w, int64_t out, int64_t in, int kernel, const char *format, ...) {
  FORMATTED(names, format);
  place_weight(b, w, b->precision.form[FK_ROLE_CONV], out, in * kernel * kernel);
  need(b, names, "", (int64_t[]){out, in, kernel, kernel}, 4, w->dtype, kernel * kernel);
}

void fk_bind_vector(FkBinder *b, FkTensor *t, int64_t n, const char *format, ...) {
  FORMATTED(names, format);
  place_vector(b, t, n);
  need(b, names, "", &n, 1, FK_F32, 1);
}

void fk_bind_stack(FkBinder *b, FkWeight *w, FkTensor *bias, FkRole role, int64_t in, int n, const int64_t *outs,
                   const char *const *names) {
  int64_t out = 0;
  for (int i = 0; i < n; i++) out += outs[i];
  place_weight(b, w, b->precision.form[role], out, in);
  for (int i = 0; i < n; i++) need(b, names[i], ".weight", (int64_t[]){outs[i], in}, 2, w->dtype, 1);
  if (!bias) return;
  place_vector(b, bias, out);
  for (int i = 0; i < n; i++) need(b, names[i], ".bias", &outs[i], 1, FK_F32, 1);
}

void fk_bind_ignore(FkBinder *b, const char *pattern) {
  g_ptr_array_add(b->ignored, g_pattern_spec_new(pattern));
}

static bool is_ignored(const FkBinder *b, const char *name) {
  for (guint i = 0; i < b->ignored->len; i++)
    if (g_pattern_spec_match_string(g_ptr_array_index(b->ignored, i), name)) return true;
  return false;
}

/* Tensors that nobody asked for: of another model, or of a variant whose result would be wrong without them. */
static void count_extra(FkBinder *b) {
  for (size_t s = 0; s < fk_component_shards(b->component); s++) {
    const FkSafetensors *file = fk_component_shard(b->component, s);
    for (size_t i = 0; i < fk_safetensors_count(file); i++) {
      const FkStTensor *t = fk_safetensors_at(file, i);
      if (g_hash_table_contains(b->known, t) || is_ignored(b, t->name)) continue;
      g_autofree char *shape = fk_st_shape_text(t->dim, t->rank);
      problem(b, &b->extra, "%s: tensor \"%.120s\" of shape %s is not part of the model", fk_safetensors_path(file),
              t->name, shape);
    }
  }
}

bool fk_binder_finish(FkBinder *b, GError **error) {
  if (!b->component) return true;
  count_extra(b);
  if (!b->first) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_MISMATCH,
              "%s: %s (in all %d missing, %d of another shape or type, %d unknown)", b->what, b->first, b->missing,
              b->mismatched, b->extra);
  return false;
}

int64_t fk_binder_parameters(const FkBinder *b) {
  return b->parameters;
}
size_t fk_binder_bytes(const FkBinder *b) {
  return b->bytes;
}

void *fk_binder_take_memory(FkBinder *b) {
  return g_steal_pointer(&b->memory);
}
