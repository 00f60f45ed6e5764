/* SPDX-License-Identifier: Apache-2.0 */
/* The GGUF container: counts, key-value pairs, a table of tensors, their data at multiples of an alignment; see gguf.h.
 *
 * Everything is little-endian and untrusted. The header has no length, so it is read as it is scanned, by a window that
 * grows up to the limit; names are copied. Every count is checked against the bytes that its elements need at least,
 * before anything is allocated or skipped. */
#define _POSIX_C_SOURCE 200809L
#include "gguf.h"

#include "file.h"
#include "fk-error.h"
#include "json-scan.h"
#include "safetensors-internal.h"
#include "types.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#define MAX_TENSORS 100000
#define MAX_PAIRS 100000
#define MAX_GGUF_RANK 4
#define MAX_ALIGNMENT (1u << 20)
#define STEP (1u << 20) /* bytes by which the window grows */

typedef struct {
  FkSafetensors *st;
  size_t limit; /* of the header */
  GByteArray *window;
  size_t at;      /* in the window, and in the file */
  GString *names; /* all, each ended by a NUL */
  uint32_t alignment;
  GError **error;
} Scan;

enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64, KINDS };
static const uint8_t kind_bytes[KINDS] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8}; /* of a string or array: at least */

G_GNUC_PRINTF(2, 3) static bool fail(Scan *s, const char *format, ...) {
  va_list list;
  va_start(list, format);
  g_autofree char *text = g_strdup_vprintf(format, list);
  va_end(list);
  g_set_error(s->error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: at byte %zu: %s", s->st->shown, s->at, text);
  return false;
}

/* The next `bytes` bytes are in the window. */
static bool need(Scan *s, uint64_t bytes) {
  const uint64_t left = s->st->size - s->at; /* the window never goes beyond the file */
  if (bytes > left) return fail(s, "expected %" G_GUINT64_FORMAT " more bytes, found the end of the file", bytes);
  if (bytes > s->limit - MIN(s->at, s->limit)) return fail(s, "expected a header of at most %zu bytes", s->limit);
  const size_t end = s->at + (size_t)bytes, have = s->window->len;
  if (end <= have) return true;
  const size_t most = (size_t)MIN((uint64_t)s->limit, s->st->size), want = MIN(MAX(end, have + STEP), most);
  g_byte_array_set_size(s->window, (guint)want);
  return fk_file_read(s->st->fd, s->st->path, have, s->window->data + have, want - have, s->error);
}

static bool whole(Scan *s, int bytes, uint64_t *value) {
  if (!need(s, (uint64_t)bytes)) return false;
  *value = 0;
  for (int i = bytes - 1; i >= 0; i--) *value = *value << 8 | s->window->data[s->at + (size_t)i];
  s->at += (size_t)bytes;
  return true;
}

static bool string(Scan *s, const char **text, uint64_t *bytes) {
  if (!whole(s, 8, bytes)) return false;
  if (!need(s, *bytes)) return false;
  *text = (const char *)s->window->data + s->at; /* until the window grows */
  s->at += (size_t)*bytes;
  return true;
}

/* ---- Key-value pairs ---- */

static bool skip_strings(Scan *s, uint64_t n) {
  for (; n; n--) {
    const char *text;
    uint64_t bytes;
    if (!string(s, &text, &bytes)) return false;
  }
  return true;
}

static bool skip_value(Scan *s, uint64_t kind) {
  const char *text;
  uint64_t bytes, n, of;
  if (kind == STRING) return string(s, &text, &bytes);
  if (kind != ARRAY) return need(s, kind_bytes[kind]) && (s->at += kind_bytes[kind], true);
  if (!whole(s, 4, &of) || !whole(s, 8, &n)) return false;
  if (of >= KINDS || of == ARRAY) return fail(s, "expected an array of a plain type, found type %u", (unsigned)of);
  const uint64_t left = s->st->size - s->at;
  if (n > left / kind_bytes[of])
    return fail(s,
                "expected an array of at most %" G_GUINT64_FORMAT " elements in what is left, found %" G_GUINT64_FORMAT,
                left / kind_bytes[of], n);
  if (of == STRING) return skip_strings(s, n);
  return need(s, n * kind_bytes[of]) && (s->at += (size_t)(n * kind_bytes[of]), true);
}

static bool scan_pair(Scan *s, GHashTable *keys) {
  const char *text;
  uint64_t bytes, kind, value;
  if (!string(s, &text, &bytes)) return false;
  if (!bytes || bytes > FK_ST_MAX_NAME)
    return fail(s, "expected a key of 1 to %d bytes, found %" G_GUINT64_FORMAT, FK_ST_MAX_NAME, bytes);
  g_autofree char *key = g_strndup(text, (gsize)bytes);
  if (!whole(s, 4, &kind)) return false;
  g_autofree char *shown = fk_shown_name(key);
  if (kind >= KINDS) return fail(s, "key \"%s\": unknown type %u", shown, (unsigned)kind);
  const bool alignment = !strcmp(key, "general.alignment");
  if (!g_hash_table_add(keys, g_steal_pointer(&key))) return fail(s, "the key \"%s\" is there twice", shown);
  if (!alignment) return skip_value(s, kind);
  if (kind != U32) return fail(s, "general.alignment: expected type %d, found %u", U32, (unsigned)kind);
  if (!whole(s, 4, &value)) return false;
  if (!value || value > MAX_ALIGNMENT || value & (value - 1))
    return fail(s, "general.alignment: expected a power of two up to %u, found %u", MAX_ALIGNMENT, (unsigned)value);
  s->alignment = (uint32_t)value;
  return true;
}

/* ---- Tensors ---- */

static bool bad_name(const char *name, size_t bytes) {
  if (!bytes || bytes > FK_ST_MAX_NAME || memchr(name, 0, bytes) || !g_utf8_validate(name, (gssize)bytes, NULL))
    return true;
  for (size_t i = 0; i < bytes; i++) {
    const unsigned char c = (unsigned char)name[i];
    if (c < 0x20 || c == 0x7f || (c == 0xc2 && i + 1 < bytes && (unsigned char)name[i + 1] < 0xa0)) return true;
  }
  return false;
}

/* Shape, type and bytes of the tensor whose name has been read. */
static bool scan_shape(Scan *s, const char *shown, FkStTensor *t, int64_t *dim) {
  uint64_t rank, value, number;
  guint64 elements = 1;
  if (!whole(s, 4, &rank)) return false;
  if (rank > MAX_GGUF_RANK)
    return fail(s, "tensor \"%s\": expected at most %d dimensions, found %u", shown, MAX_GGUF_RANK, (unsigned)rank);
  for (uint64_t i = 0; i < rank; i++) {
    if (!whole(s, 8, &value)) return false;
    if (!value || value > INT64_MAX || !g_uint64_checked_mul(&elements, elements, value))
      return fail(s, "tensor \"%s\": expected dimensions whose product is below 2^64, found %" G_GUINT64_FORMAT, shown,
                  value);
    dim[rank - 1 - i] = (int64_t)value;
  }
  if (!whole(s, 4, &number) || !whole(s, 8, &t->begin)) return false;
  const int row = fk_number_type_ggml((uint32_t)number);
  const char *known = fk_ggml_type_name((uint32_t)number);
  if (row < 0)
    return fail(s, "tensor \"%s\": type %u (%s) is not read here", shown, (unsigned)number, known ? known : "unknown");
  const FkNumberType *type = fk_number_type(row);
  const int64_t cols = rank ? dim[rank - 1] : 1;
  if (cols % type->values)
    return fail(s, "tensor \"%s\": expected rows of whole blocks of %d %s numbers, found %" G_GINT64_FORMAT, shown,
                type->values, type->name, (gint64)cols);
  if (!g_uint64_checked_mul(&elements, elements / (guint64)type->values, (guint64)type->bytes) ||
      elements > s->st->size)
    return fail(s, "tensor \"%s\": its numbers would be more than the file", shown);
  t->bytes = elements;
  t->type = (uint8_t)row;
  t->rank = (uint8_t)rank;
  return true;
}

static bool scan_tensor(Scan *s) {
  const char *text;
  uint64_t bytes;
  int64_t dim[MAX_GGUF_RANK];
  if (!string(s, &text, &bytes)) return false;
  if (bad_name(text, (size_t)bytes))
    return fail(s, "expected a tensor's name of 1 to %d bytes of printable UTF-8", FK_ST_MAX_NAME);
  FkStTensor t = {.name = GSIZE_TO_POINTER(s->names->len)}; /* until all names are there */
  g_string_append_len(s->names, text, (gssize)bytes);
  g_string_append_c(s->names, 0);
  g_autofree char *name = g_strndup(text, (gsize)bytes), *shown = fk_shown_name(name);
  if (!scan_shape(s, shown, &t, dim)) return false;
  if (t.begin % s->alignment)
    return fail(s, "tensor \"%s\": expected an offset of a multiple of %u, found %" G_GUINT64_FORMAT, shown,
                s->alignment, t.begin);
  g_array_append_val(s->st->tensors, t);
  g_array_append_vals(s->st->dims, dim, t.rank);
  return true;
}

static int compare_begins(gconstpointer a, gconstpointer b) {
  const FkStTensor *x = a, *y = b;
  return x->begin < y->begin ? -1 : x->begin > y->begin;
}

/* Data inside the file and nothing twice; then positions become positions in the file. */
static bool check_places(Scan *s) {
  GArray *tensors = s->st->tensors;
  const int64_t *dim = (const int64_t *)(void *)s->st->dims->data;
  const uint64_t data = ((uint64_t)s->at + s->alignment - 1) / s->alignment * s->alignment;
  s->st->header = g_string_free(g_steal_pointer(&s->names), FALSE);
  for (guint i = 0; i < tensors->len; i++) {
    FkStTensor *t = &g_array_index(tensors, FkStTensor, i);
    t->name = s->st->header + GPOINTER_TO_SIZE(t->name);
    t->dim = dim;
    if (t->rank) dim += t->rank;
    g_autofree char *shown = fk_shown_name(t->name);
    if (data > s->st->size || t->begin > s->st->size - data || t->bytes > s->st->size - data - t->begin)
      return fail(s,
                  "tensor \"%s\": expected data inside the file of %" G_GUINT64_FORMAT
                  " bytes, found %" G_GUINT64_FORMAT " bytes at %" G_GUINT64_FORMAT " of its data",
                  shown, s->st->size, t->bytes, t->begin);
    t->begin += data;
  }
  g_array_sort(tensors, compare_begins);
  for (guint i = 1; i < tensors->len; i++) {
    const FkStTensor *a = &g_array_index(tensors, FkStTensor, i - 1), *b = a + 1;
    if (a->bytes <= b->begin - a->begin) continue;
    g_autofree char *x = fk_shown_name(a->name), *y = fk_shown_name(b->name);
    return fail(s, "tensors \"%s\" and \"%s\" overlap", x, y);
  }
  return true;
}

static bool scan_header(Scan *s) {
  uint64_t magic, version, tensors, pairs;
  if (!whole(s, 4, &magic) || !whole(s, 4, &version)) return false;
  if (magic != 0x46554747) return fail(s, "expected \"GGUF\"");
  if (version != 2 && version != 3) return fail(s, "expected version 2 or 3, found %u", (unsigned)version);
  if (!whole(s, 8, &tensors) || !whole(s, 8, &pairs)) return false;
  if (tensors > MAX_TENSORS || pairs > MAX_PAIRS)
    return fail(s, "expected at most %d tensors and %d keys, found %" G_GUINT64_FORMAT " and %" G_GUINT64_FORMAT,
                MAX_TENSORS, MAX_PAIRS, tensors, pairs);
  g_autoptr(GHashTable) keys = g_hash_table_new_full(fk_text_hash, g_str_equal, g_free, NULL);
  for (; pairs; pairs--)
    if (!scan_pair(s, keys)) return false;
  for (; tensors; tensors--)
    if (!scan_tensor(s)) return false;
  s->st->header_bytes = s->at;
  return check_places(s);
}

bool fk_gguf_is(const char *path) {
  char magic[4] = "";
  uint64_t size;
  const int fd = fk_file_open(path, &size, NULL);
  const bool is = fd >= 0 && size >= sizeof magic && fk_file_read(fd, path, 0, magic, sizeof magic, NULL) &&
                  !memcmp(magic, "GGUF", sizeof magic);
  if (fd >= 0) close(fd);
  return is;
}

FkSafetensors *fk_gguf_open_within(const char *path, size_t limit, GError **error) {
  g_autoptr(FkSafetensors) st = fk_safetensors_create(path, error);
  if (!st) return NULL;
  g_autoptr(GByteArray) window = g_byte_array_new();
  Scan s = {.st = st, .limit = limit, .window = window, .names = g_string_new(NULL), .alignment = 32, .error = error};
  const bool ok = scan_header(&s) && fk_safetensors_index(st, error);
  if (s.names) g_string_free(s.names, TRUE);
  return ok ? g_steal_pointer(&st) : NULL;
}
