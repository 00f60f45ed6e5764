/* SPDX-License-Identifier: Apache-2.0 */
/* The safetensors container: 8 bytes of length, a JSON header of one fixed form, tensors without gaps; see
 * safetensors.h.
 *
 * The header may hold a million entries, so it is scanned without a tree: names point into its text, decoded in place.
 * Deliberately not here: what the texts of `__metadata__` say. Keys the format does not define are refused. */
#define _POSIX_C_SOURCE 200809L
#include "safetensors-internal.h"

#include "file.h"
#include "fk-error.h"
#include "json-scan.h"
#include "types.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LENGTH_BYTES 8u /* of the header's length, little-endian, before it */

typedef struct {
  FkSafetensors *st;
  FkJson json;
} Scan;

G_GNUC_PRINTF(4, 5)
static bool fail_tensor(const FkSafetensors *st, const char *name, GError **error, const char *format, ...) {
  va_list list;
  va_start(list, format);
  g_autofree char *text = g_strdup_vprintf(format, list);
  va_end(list);
  g_autofree char *shown = fk_shown_name(name);
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: tensor \"%s\": %s", st->shown, shown, text);
  return false;
}

/* ---- The header ---- */

/* A problem of one tensor's entry, which `text` (nullable) is a part of. */
static bool fail_entry(FkJson *j, const char *name, const char *problem, const char *text) {
  g_autofree char *shown = fk_shown_name(name), *part = fk_shown_name(text ? text : "");
  const char *quote = text ? "\"" : "";
  return fk_json_fail(j, "tensor \"%s\": %s%s%s%s", shown, problem, quote, part, quote);
}

/* At most `most` numbers in brackets; *count: how many. */
static bool scan_numbers(FkJson *j, uint64_t *values, int most, int *count) {
  *count = 0;
  char c = fk_json_open(j, "[]");
  for (; c == ','; c = fk_json_next(j, "[]")) {
    uint64_t value = 0;
    if (!fk_json_whole(j, &value)) return false;
    if (*count == most) return fk_json_fail(j, "more than %d numbers", most);
    values[(*count)++] = value;
  }
  return c;
}

/* "dtype": the row of the table of types. */
static bool scan_type(FkJson *j, const char *name, uint8_t *type) {
  char *text;
  if (!fk_json_string(j, &text)) return false;
  const int row = fk_number_type_named(text);
  *type = (uint8_t)row;
  return row >= 0 || fail_entry(j, name, "unknown dtype ", text);
}

/* {"dtype": .., "shape": [..], "data_offsets": [begin, end]} with its keys in any order, each once. */
static bool scan_tensor(Scan *s, const char *name) {
  enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
  FkJson *j = &s->json;
  uint64_t shape[FK_ST_MAX_RANK], offsets[2];
  FkStTensor t = {.name = name};
  int seen = 0, rank = 0, n = 0;
  char c = fk_json_open(j, "{}");
  for (; c == ','; c = fk_json_next(j, "{}")) {
    char *key;
    if (!fk_json_key(j, &key)) return false;
    int which = !strcmp(key, "dtype")          ? DTYPE
                : !strcmp(key, "shape")        ? SHAPE
                : !strcmp(key, "data_offsets") ? OFFSETS
                                               : 0;
    if (!which) return fail_entry(j, name, "unknown key ", key);
    if (seen & which) return fail_entry(j, name, "twice the key ", key);
    seen |= which;
    if (which == DTYPE && !scan_type(j, name, &t.type)) return false;
    if (which == SHAPE && !scan_numbers(j, shape, FK_ST_MAX_RANK, &rank)) return false;
    if (which == OFFSETS && !scan_numbers(j, offsets, 2, &n)) return false;
  }
  if (!c) return false;
  if (seen != (DTYPE | SHAPE | OFFSETS) || n != 2)
    return fail_entry(j, name, "expected dtype, shape and two data_offsets", NULL);
  if (offsets[0] > offsets[1]) return fail_entry(j, name, "data_offsets are reversed", NULL);
  t.rank = (uint8_t)rank;
  t.begin = offsets[0];
  t.bytes = offsets[1] - offsets[0];
  g_array_append_vals(s->st->tensors, &t, 1);
  g_array_append_vals(s->st->dims, shape, (guint)rank); /* below 2^63 */
  return true;
}

/* The flat object of strings under "__metadata__". */
static bool scan_metadata(FkJson *j, GHashTable *metadata) {
  char c = fk_json_open(j, "{}");
  for (; c == ','; c = fk_json_next(j, "{}")) {
    char *key, *value;
    if (!fk_json_key(j, &key) || !fk_json_string(j, &value)) return false;
    if (!g_hash_table_insert(metadata, key, value)) return fk_json_fail(j, "a key of __metadata__ is there twice");
  }
  return c;
}

/* C0, DEL and C1: no program gives a tensor such a name, and messages would carry it to a terminal. */
static bool has_control(const char *name) {
  for (const unsigned char *c = (const unsigned char *)name; *c; c++)
    if (*c < 0x20 || *c == 0x7f || (*c == 0xc2 && c[1] < 0xa0)) return true;
  return false;
}

static bool scan_header(Scan *s) {
  FkJson *j = &s->json;
  bool metadata = false;
  if (*j->at != '{') return fk_json_fail(j, "expected '{' as the first byte of the header");
  char c = fk_json_open(j, "{}");
  for (; c == ','; c = fk_json_next(j, "{}")) {
    char *name;
    if (!fk_json_key(j, &name)) return false;
    const size_t bytes = strlen(name);
    if (bytes > FK_ST_MAX_NAME)
      return fk_json_fail(j, "expected a tensor's name of at most %d bytes, found %" G_GSIZE_FORMAT, FK_ST_MAX_NAME,
                          bytes);
    if (has_control(name)) return fail_entry(j, name, "the name has a control character", NULL);
    bool is_metadata = !strcmp(name, "__metadata__");
    if (is_metadata && metadata) return fk_json_fail(j, "__metadata__ is there twice");
    metadata |= is_metadata;
    if (!(is_metadata ? scan_metadata(j, s->st->metadata) : scan_tensor(s, name))) return false;
  }
  return c && fk_json_finish(j);
}

/* ---- Checks ---- */

static guint tensor_hash(const void *tensor) {
  return fk_text_hash(((const FkStTensor *)tensor)->name);
}

static gboolean tensor_equal(const void *a, const void *b) {
  return !strcmp(((const FkStTensor *)a)->name, ((const FkStTensor *)b)->name);
}

/* bytes == itemsize * product(shape), without overflow. */
static bool check_size(const FkSafetensors *st, const FkStTensor *t, GError **error) {
  const FkNumberType *type = fk_number_type(t->type);
  guint64 bits = 8 * (guint64)type->bytes / (guint64)type->values;
  bool fits = true;
  for (int i = 0; i < t->rank; i++) fits = fits && g_uint64_checked_mul(&bits, bits, (guint64)t->dim[i]);
  g_autofree char *shape = fits && bits % 8 == 0 && bits / 8 == t->bytes ? NULL : fk_st_shape_text(t->dim, t->rank);
  if (!shape) return true;
  if (!fits) return fail_tensor(st, t->name, error, "shape %s overflows", shape);
  if (bits % 8) return fail_tensor(st, t->name, error, "%s of shape %s ends inside a byte", type->name, shape);
  return fail_tensor(st, t->name, error,
                     "%s of shape %s: expected %" G_GUINT64_FORMAT " bytes, found %" G_GUINT64_FORMAT, type->name,
                     shape, bits / 8, (guint64)t->bytes);
}

static int compare_places(const void *a, const void *b) {
  const FkStTensor *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* empty ones first: they lie between two others */
}

/* Tensors must cover the data exactly, one behind the other; then positions become positions in the file. */
static bool check_places(FkSafetensors *st, GError **error) {
  uint64_t data = LENGTH_BYTES + st->header_bytes, at = 0, end = st->size - data;
  FkStTensor *t = (FkStTensor *)(void *)st->tensors->data;
  bool sorted = true;
  for (guint i = 1; i < st->tensors->len && sorted; i++) sorted = compare_places(t + i - 1, t + i) <= 0;
  if (!sorted) qsort(t, st->tensors->len, sizeof *t, compare_places);
  for (guint i = 0; i < st->tensors->len; i++) {
    if (t[i].begin != at)
      return fail_tensor(st, t[i].name, error,
                         "expected data_offsets from %" G_GUINT64_FORMAT ", found %" G_GUINT64_FORMAT " (%s)",
                         (guint64)at, (guint64)t[i].begin, t[i].begin < at ? "overlap" : "hole");
    at += t[i].bytes; /* both below 2^63 */
    if (at > end)
      return fail_tensor(st, t[i].name, error,
                         "expected data up to %" G_GUINT64_FORMAT ", found a file of %" G_GUINT64_FORMAT " bytes",
                         (guint64)(at + data), (guint64)st->size);
    t[i].begin += data;
  }
  if (at == end) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD,
              "%s: expected a file of %" G_GUINT64_FORMAT " bytes by its header, found %" G_GUINT64_FORMAT, st->shown,
              (guint64)(at + data), (guint64)st->size);
  return false;
}

/* Shapes, sizes, places and names, after the header has been read to its end. */
static bool check_tensors(FkSafetensors *st, GError **error) {
  const int64_t *dim = (const int64_t *)(void *)st->dims->data;
  for (guint i = 0; i < st->tensors->len; i++) {
    FkStTensor *t = &g_array_index(st->tensors, FkStTensor, i);
    t->dim = dim;
    if (t->rank) dim += t->rank; /* without any dimension `dim` is NULL */
    if (!check_size(st, t, error)) return false;
  }
  return check_places(st, error) && fk_safetensors_index(st, error);
}

bool fk_safetensors_index(FkSafetensors *st, GError **error) {
  st->by_name = g_hash_table_new(tensor_hash, tensor_equal);
  for (guint i = 0; i < st->tensors->len; i++) {
    FkStTensor *t = &g_array_index(st->tensors, FkStTensor, i);
    if (!g_hash_table_add(st->by_name, t)) return fail_tensor(st, t->name, error, "the name is there twice");
  }
  return true;
}

/* ---- Opening ---- */

/* Reads the length, which may be at most `limit`, and the header's bytes. */
static bool read_header(FkSafetensors *st, size_t limit, GError **error) {
  unsigned char length[LENGTH_BYTES];
  if (st->size < sizeof length) {
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: expected at least 8 bytes, found %" G_GUINT64_FORMAT,
                st->shown, (guint64)st->size);
    return false;
  }
  if (!fk_file_read(st->fd, st->path, 0, length, sizeof length, error)) return false;
  const uint64_t most = MIN(limit, st->size - LENGTH_BYTES);
  uint64_t n = 0;
  for (int i = LENGTH_BYTES - 1; i >= 0; i--) n = n << 8 | length[i];
  if (n > most && n <= limit) {
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD,
                "%s: expected a file of at least %" G_GUINT64_FORMAT
                " bytes by the length of its header, found %" G_GUINT64_FORMAT,
                st->shown, (guint64)n + LENGTH_BYTES, (guint64)st->size);
    return false;
  }
  if (n > most || n < 2) {
    /* A number beyond the format's limit is not shown: it would be the first bytes of a file of another kind. */
    g_autofree char *found = n > FK_ST_MAX_HEADER ? g_strdup("more: is it a safetensors file?")
                                                  : g_strdup_printf("%" G_GUINT64_FORMAT, (guint64)n);
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD,
                "%s: expected a header of 2 to %" G_GUINT64_FORMAT " bytes, found %s", st->shown, (guint64)most, found);
    return false;
  }
  st->header_bytes = n;
  st->header = g_try_malloc(n + 1);
  if (!st->header) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: no memory for its header of %" G_GUINT64_FORMAT " bytes",
                st->shown, (guint64)n);
    return false;
  }
  if (!fk_file_read(st->fd, st->path, LENGTH_BYTES, st->header, n, error)) return false;
  st->header[n] = 0;
  return true;
}

FkSafetensors *fk_safetensors_create(const char *path, GError **error) {
  g_autoptr(FkSafetensors) st = g_new0(FkSafetensors, 1);
  st->path = g_strdup(path);
  st->shown = fk_shown_path(path);
  st->tensors = g_array_new(FALSE, FALSE, sizeof(FkStTensor));
  st->dims = g_array_new(FALSE, FALSE, sizeof(int64_t));
  st->metadata = g_hash_table_new(fk_text_hash, g_str_equal);
  st->fd = fk_file_open(path, &st->size, error);
  return st->fd < 0 ? NULL : g_steal_pointer(&st);
}

FkSafetensors *fk_safetensors_open_within(const char *path, size_t limit, GError **error) {
  g_autoptr(FkSafetensors) st = fk_safetensors_create(path, error);
  if (!st || !read_header(st, MIN(limit, FK_ST_MAX_HEADER), error)) return NULL;
  Scan s = {.st = st};
  if (!fk_json_start(&s.json, st->header, st->header_bytes) || !scan_header(&s)) {
    fk_json_report(&s.json, path, LENGTH_BYTES, error);
    return NULL;
  }
  return check_tensors(st, error) ? g_steal_pointer(&st) : NULL;
}

FkSafetensors *fk_safetensors_open(const char *path, GError **error) {
  return fk_safetensors_open_within(path, FK_ST_MAX_HEADER, error);
}

void fk_safetensors_free(FkSafetensors *st) {
  if (!st) return;
  if (st->fd >= 0) close(st->fd);
  if (st->by_name) g_hash_table_unref(st->by_name);
  g_hash_table_unref(st->metadata);
  g_array_unref(st->tensors);
  g_array_unref(st->dims);
  g_free(st->header);
  g_free(st->path);
  g_free(st->shown);
  g_free(st);
}

const char *fk_safetensors_path(const FkSafetensors *st) {
  return st->shown;
}
size_t fk_safetensors_header_bytes(const FkSafetensors *st) {
  return st->header_bytes;
}
size_t fk_safetensors_count(const FkSafetensors *st) {
  return st->tensors->len;
}

const char *fk_safetensors_metadata(const FkSafetensors *st, const char *key) {
  return g_hash_table_lookup(st->metadata, key);
}

const FkStTensor *fk_safetensors_at(const FkSafetensors *st, size_t index) {
  assert(index < st->tensors->len);
  return &g_array_index(st->tensors, FkStTensor, index);
}

const FkStTensor *fk_safetensors_find(const FkSafetensors *st, const char *name) {
  FkStTensor wanted = {.name = name};
  return g_hash_table_lookup(st->by_name, &wanted);
}

bool fk_safetensors_read(const FkSafetensors *st, const FkStTensor *tensor, uint64_t offset, void *to, size_t bytes,
                         GError **error) {
  assert(offset <= tensor->bytes && bytes <= tensor->bytes - offset);
  return fk_file_read(st->fd, st->path, tensor->begin + offset, to, bytes, error);
}

const char *fk_st_type_name(const FkStTensor *tensor) {
  return fk_number_type(tensor->type)->name;
}

bool fk_st_type_usable(const FkStTensor *tensor, FkDtype *dtype) {
  const FkNumberType *type = fk_number_type(tensor->type);
  const bool e4m3 = !strcmp(type->name, "F8_E4M3");
  *dtype = e4m3 ? FK_E4M3 : type->dtype;
  return e4m3 || type->plain;
}

char *fk_st_shape_text(const int64_t *dim, int rank) {
  GString *text = g_string_new("[");
  for (int i = 0; i < rank; i++) g_string_append_printf(text, "%s%" G_GINT64_FORMAT, i ? "," : "", (gint64)dim[i]);
  return g_string_free(g_string_append_c(text, ']'), FALSE);
}
