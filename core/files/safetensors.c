/* SPDX-License-Identifier: Apache-2.0 */
/* The safetensors container: 8 bytes of length, a JSON header of one fixed form, tensors without gaps; see
 * safetensors.h.
 *
 * The header has its own scanner and does not go through a JSON library: it may hold a million entries, its numbers
 * need all 64 bits, duplicates must be seen, and a nested bomb must not reach a recursive parser. The form has three
 * levels, so the scanner has three functions and no recursion. Strings are decoded in place: names point into the
 * header. Deliberately not here: `__metadata__` is checked and dropped, keys the format does not define are refused. */
#define _POSIX_C_SOURCE 200809L
#include "safetensors.h"

#include "file.h"
#include "fk-error.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_HEADER 100000000u /* bytes; the format's limit */
#define LENGTH_BYTES 8u       /* of the header's length, little-endian, before it */

struct FkSafetensors {
  int fd;
  char *path, *shown; /* as given; as UTF-8 for messages */
  uint64_t size;      /* of the file */
  char *header;       /* decoded in place; names point into it */
  size_t header_bytes;
  GArray *tensors;     /* FkStTensor, by begin */
  GArray *dims;        /* int64_t of all shapes */
  GHashTable *by_name; /* FkStTensor as a set */
};

/* All types of the format; weights can be made of those with `usable`. */
static const struct {
  const char *name;
  int bits;
  bool usable;
  FkDtype dtype;
} types[] = {
    {"F32", 32, true, FK_F32},     {"F16", 16, true, FK_F16},         {"BF16", 16, true, FK_BF16},
    {"F64", 64, false, FK_F32},    {"I64", 64, false, FK_F32},        {"I32", 32, false, FK_F32},
    {"I16", 16, false, FK_F32},    {"I8", 8, false, FK_F32},          {"U64", 64, false, FK_F32},
    {"U32", 32, false, FK_F32},    {"U16", 16, false, FK_F32},        {"U8", 8, false, FK_F32},
    {"BOOL", 8, false, FK_F32},    {"F8_E4M3", 8, false, FK_F32},     {"F8_E5M2", 8, false, FK_F32},
    {"F8_E8M0", 8, false, FK_F32}, {"F8_E4M3FNUZ", 8, false, FK_F32}, {"F8_E5M2FNUZ", 8, false, FK_F32},
    {"F4", 4, false, FK_F32},      {"F6_E2M3", 6, false, FK_F32},     {"F6_E3M2", 6, false, FK_F32},
    {"C64", 64, false, FK_F32},
};

typedef struct {
  FkSafetensors *st;
  char *at, *end; /* the unread rest of the header; *end is a NUL */
  GError **error;
} Scan;

/* A name as it may stand in a message: short, and without control characters. (transfer full) */
static char *shown_name(const char *name) {
  size_t bytes = strlen(name);
  bool cut = bytes > 120;
  g_autofree char *head = g_strndup(name, cut ? 120 : bytes);
  char *shown = g_utf8_make_valid(head, -1);
  for (char *c = shown; *c; c++)
    if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
  if (!cut) return shown;
  char *longer = g_strconcat(shown, "...", NULL);
  g_free(shown);
  return longer;
}

G_GNUC_PRINTF(2, 3) static bool fail_header(Scan *s, const char *format, ...) {
  va_list list;
  va_start(list, format);
  g_autofree char *text = g_strdup_vprintf(format, list);
  va_end(list);
  g_set_error(s->error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: byte %" G_GSIZE_FORMAT " of the file: %s", s->st->shown,
              (size_t)(s->at - s->st->header) + LENGTH_BYTES, text);
  return false;
}

G_GNUC_PRINTF(4, 5)
static bool fail_tensor(const FkSafetensors *st, const char *name, GError **error, const char *format, ...) {
  va_list list;
  va_start(list, format);
  g_autofree char *text = g_strdup_vprintf(format, list);
  va_end(list);
  g_autofree char *shown = shown_name(name);
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: tensor \"%s\": %s", st->shown, shown, text);
  return false;
}

static void skip_space(Scan *s) {
  while (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t') s->at++;
}

/* The next character that is not a space, which must be one of `wanted`; 0 when it is not. */
static char scan_one_of(Scan *s, const char *wanted) {
  skip_space(s);
  char c = *s->at;
  if (c && strchr(wanted, c)) {
    s->at++;
    return c;
  }
  if (s->at == s->end)
    fail_header(s, "expected '%c', found the end of the header", *wanted);
  else
    fail_header(s, "expected '%c', found byte 0x%02x", *wanted, (unsigned char)c);
  return 0;
}

/* Four hexadecimal digits; -1 when they are not. */
static int32_t scan_hex4(Scan *s) {
  int32_t value = 0;
  for (int i = 0; i < 4; i++) {
    int digit = g_ascii_xdigit_value(s->at[i]); /* the NUL at the end is no digit */
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  s->at += 4;
  return value;
}

/* What follows a backslash and a u: one or two UTF-16 units. Writes UTF-8 to *to, which trails the reading. */
static bool scan_unicode(Scan *s, char **to) {
  int32_t unit = scan_hex4(s);
  if (unit < 0) return fail_header(s, "expected four hexadecimal digits after \\u");
  gunichar c = (gunichar)unit;
  if (unit >= 0xd800 && unit < 0xdc00 && s->at[0] == '\\' && s->at[1] == 'u') {
    s->at += 2;
    int32_t low = scan_hex4(s);
    if (low < 0xdc00 || low > 0xdfff) return fail_header(s, "a surrogate without its other half");
    c = 0x10000 + (((gunichar)unit - 0xd800) << 10) + ((gunichar)low - 0xdc00);
  }
  if (c >= 0xd800 && c < 0xe000) return fail_header(s, "a surrogate without its other half");
  if (c == 0) return fail_header(s, "a string with a NUL in it");
  *to += g_unichar_to_utf8(c, *to); /* at most 4 bytes for the 6 or 12 read */
  return true;
}

/* A JSON string, decoded in place and ended by a NUL (over its closing quote or before). */
static bool scan_string(Scan *s, char **string) {
  if (!scan_one_of(s, "\"")) return false;
  char *to = *string = s->at;
  while (*s->at != '"') {
    unsigned char c = (unsigned char)*s->at;
    if (s->at == s->end) return fail_header(s, "a string without an end");
    if (c < 0x20) return fail_header(s, "control character 0x%02x in a string", c);
    s->at++;
    if (c != '\\') {
      *to++ = (char)c;
      continue;
    }
    static const char escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    char kind = *s->at;
    const char *found = kind ? strchr(escapes, kind) : NULL;
    if (!found && kind != 'u') return fail_header(s, "an escape that JSON does not have");
    s->at++;
    if (found)
      *to++ = meant[found - escapes];
    else if (!scan_unicode(s, &to))
      return false;
  }
  s->at++;
  *to = 0;
  return true;
}

/* A non-negative integer below 2^63; JSON's other numbers have no meaning in this header. */
static bool scan_number(Scan *s, uint64_t *value) {
  skip_space(s);
  const char *first = s->at;
  uint64_t v = 0;
  for (; g_ascii_isdigit(*s->at); s->at++) {
    unsigned digit = (unsigned)(*s->at - '0');
    if (v > ((uint64_t)INT64_MAX - digit) / 10) return fail_header(s, "a number of 2^63 or more");
    v = v * 10 + digit;
  }
  bool whole = s->at > first && *s->at != '.' && *s->at != 'e' && *s->at != 'E';
  if (!whole || (*first == '0' && s->at > first + 1)) return fail_header(s, "expected a whole number, 0 or more");
  *value = v;
  return true;
}

/* At most `most` numbers in brackets; *count: how many. */
static bool scan_numbers(Scan *s, uint64_t *values, int most, int *count) {
  *count = 0;
  if (!scan_one_of(s, "[")) return false;
  skip_space(s);
  if (*s->at == ']') return s->at++, true;
  for (char c = ','; c == ',';) {
    uint64_t value = 0;
    if (!scan_number(s, &value)) return false;
    if (*count == most) return fail_header(s, "more than %d numbers", most);
    values[(*count)++] = value;
    c = scan_one_of(s, "],");
    if (!c) return false;
    if (c == ']') return true;
  }
  return false;
}

/* "dtype": the row of the table of types. */
static bool scan_type(Scan *s, const char *name, uint8_t *type) {
  char *text;
  if (!scan_string(s, &text)) return false;
  for (size_t i = 0; i < G_N_ELEMENTS(types); i++)
    if (!strcmp(text, types[i].name)) {
      *type = (uint8_t)i;
      return true;
    }
  g_autofree char *shown = shown_name(text);
  return fail_tensor(s->st, name, s->error, "unknown dtype \"%s\"", shown);
}

/* {"dtype": .., "shape": [..], "data_offsets": [begin, end]} with its keys in any order, each once. */
static bool scan_tensor(Scan *s, const char *name) {
  enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
  uint64_t shape[FK_ST_MAX_RANK], offsets[2];
  FkStTensor t = {.name = name};
  int seen = 0, rank = 0, n = 0;
  if (!scan_one_of(s, "{")) return false;
  for (char c = ','; c == ',';) {
    char *key;
    if (!scan_string(s, &key) || !scan_one_of(s, ":")) return false;
    int which = !strcmp(key, "dtype")          ? DTYPE
                : !strcmp(key, "shape")        ? SHAPE
                : !strcmp(key, "data_offsets") ? OFFSETS
                                               : 0;
    g_autofree char *shown = which ? NULL : shown_name(key);
    if (!which) return fail_tensor(s->st, name, s->error, "unknown key \"%s\"", shown);
    if (seen & which) return fail_tensor(s->st, name, s->error, "key \"%s\" is there twice", key);
    seen |= which;
    if (which == DTYPE && !scan_type(s, name, &t.type)) return false;
    if (which == SHAPE && !scan_numbers(s, shape, FK_ST_MAX_RANK, &rank)) return false;
    if (which == OFFSETS && !scan_numbers(s, offsets, 2, &n)) return false;
    c = scan_one_of(s, "},");
    if (!c) return false;
    if (c == '}') break;
  }
  if (seen != (DTYPE | SHAPE | OFFSETS) || n != 2)
    return fail_tensor(s->st, name, s->error, "expected dtype, shape and two data_offsets");
  if (offsets[0] > offsets[1])
    return fail_tensor(s->st, name, s->error,
                       "data_offsets are reversed: [%" G_GUINT64_FORMAT ",%" G_GUINT64_FORMAT "]", (guint64)offsets[0],
                       (guint64)offsets[1]);
  t.rank = (uint8_t)rank;
  t.begin = offsets[0];
  t.bytes = offsets[1] - offsets[0];
  g_array_append_vals(s->st->tensors, &t, 1);
  g_array_append_vals(s->st->dims, shape, (guint)rank); /* scan_number keeps them below 2^63 */
  return true;
}

/* Names are hashed with a key of this process, so that no file can be made whose names all collide. */
static guint text_hash(const void *text) {
  static gsize key;
  if (g_once_init_enter(&key)) g_once_init_leave(&key, ((gsize)g_random_int() << 1) | 1);
  uint64_t h = key;
  const char *c = text;
  for (; *c; c++) h = (h ^ (unsigned char)*c) * 0x9e3779b97f4a7c15u;
  return (guint)(h >> 32) ^ (guint)h;
}

static guint tensor_hash(const void *tensor) {
  return text_hash(((const FkStTensor *)tensor)->name);
}

static gboolean tensor_equal(const void *a, const void *b) {
  return !strcmp(((const FkStTensor *)a)->name, ((const FkStTensor *)b)->name);
}

/* The flat object of strings under "__metadata__". */
static bool scan_metadata(Scan *s) {
  g_autoptr(GHashTable) keys = g_hash_table_new(text_hash, g_str_equal);
  if (!scan_one_of(s, "{")) return false;
  skip_space(s);
  if (*s->at == '}') return s->at++, true;
  for (;;) {
    char *key, *value;
    if (!scan_string(s, &key) || !scan_one_of(s, ":") || !scan_string(s, &value)) return false;
    if (!g_hash_table_add(keys, key)) return fail_header(s, "a key of __metadata__ is there twice");
    char c = scan_one_of(s, "},");
    if (c != ',') return c == '}';
  }
}

static bool scan_header(Scan *s) {
  bool metadata = false;
  if (*s->at != '{')
    return fail_header(s, "expected '{' as the first byte of the header, found 0x%02x", (guchar)*s->at);
  s->at++;
  skip_space(s);
  for (char c = *s->at == '}' ? *s->at++ : ','; c == ',';) {
    char *name;
    if (!scan_string(s, &name) || !scan_one_of(s, ":")) return false;
    if (strlen(name) > FK_ST_MAX_NAME)
      return fail_tensor(s->st, name, s->error, "expected a name of at most %d bytes, found %" G_GSIZE_FORMAT,
                         FK_ST_MAX_NAME, strlen(name));
    bool is_metadata = !strcmp(name, "__metadata__");
    if (is_metadata && metadata) return fail_header(s, "__metadata__ is there twice");
    metadata |= is_metadata;
    if (!(is_metadata ? scan_metadata(s) : scan_tensor(s, name))) return false;
    c = scan_one_of(s, "},");
    if (!c) return false;
  }
  skip_space(s);
  return s->at == s->end || fail_header(s, "something follows the header's '}'");
}

/* bytes == itemsize * product(shape), without overflow. */
static bool check_size(const FkSafetensors *st, const FkStTensor *t, GError **error) {
  guint64 bits = (guint64)types[t->type].bits;
  bool fits = true;
  for (int i = 0; i < t->rank; i++) fits = fits && g_uint64_checked_mul(&bits, bits, (guint64)t->dim[i]);
  g_autofree char *shape = fits && bits % 8 == 0 && bits / 8 == t->bytes ? NULL : fk_st_shape_text(t->dim, t->rank);
  if (!shape) return true;
  if (!fits) return fail_tensor(st, t->name, error, "shape %s overflows", shape);
  if (bits % 8) return fail_tensor(st, t->name, error, "%s of shape %s ends inside a byte", types[t->type].name, shape);
  return fail_tensor(st, t->name, error,
                     "%s of shape %s: expected %" G_GUINT64_FORMAT " bytes, found %" G_GUINT64_FORMAT,
                     types[t->type].name, shape, bits / 8, (guint64)t->bytes);
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
  if (!check_places(st, error)) return false;
  st->by_name = g_hash_table_new(tensor_hash, tensor_equal);
  for (guint i = 0; i < st->tensors->len; i++) {
    FkStTensor *t = &g_array_index(st->tensors, FkStTensor, i);
    if (!g_hash_table_add(st->by_name, t)) return fail_tensor(st, t->name, error, "the name is there twice");
  }
  return true;
}

/* Reads the length and the header's bytes, which are UTF-8 throughout. */
static bool read_header(FkSafetensors *st, GError **error) {
  unsigned char length[LENGTH_BYTES];
  if (st->size < sizeof length) {
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: expected at least 8 bytes, found %" G_GUINT64_FORMAT,
                st->shown, (guint64)st->size);
    return false;
  }
  if (!fk_file_read(st->fd, st->path, 0, length, sizeof length, error)) return false;
  uint64_t n = 0;
  for (int i = LENGTH_BYTES - 1; i >= 0; i--) n = n << 8 | length[i];
  if (n > MAX_HEADER || n > st->size - LENGTH_BYTES || n < 2) {
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD,
                "%s: expected a header of 2 to %" G_GUINT64_FORMAT " bytes, found %" G_GUINT64_FORMAT, st->shown,
                (guint64)MIN(MAX_HEADER, st->size - LENGTH_BYTES), (guint64)n);
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
  const char *bad;
  if (g_utf8_validate_len(st->header, n, &bad)) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: byte %" G_GSIZE_FORMAT " of the file: the header is not UTF-8",
              st->shown, (size_t)(bad - st->header) + LENGTH_BYTES);
  return false;
}

FkSafetensors *fk_safetensors_open(const char *path, GError **error) {
  g_autoptr(FkSafetensors) st = g_new0(FkSafetensors, 1);
  st->path = g_strdup(path);
  st->shown = g_filename_display_name(path);
  st->tensors = g_array_new(FALSE, FALSE, sizeof(FkStTensor));
  st->dims = g_array_new(FALSE, FALSE, sizeof(int64_t));
  st->fd = fk_file_open(path, &st->size, error);
  if (st->fd < 0 || !read_header(st, error)) return NULL;
  Scan s = {st, st->header, st->header + st->header_bytes, error};
  if (!scan_header(&s) || !check_tensors(st, error)) return NULL;
  return g_steal_pointer(&st);
}

void fk_safetensors_free(FkSafetensors *st) {
  if (!st) return;
  if (st->fd >= 0) close(st->fd);
  if (st->by_name) g_hash_table_unref(st->by_name);
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
size_t fk_safetensors_count(const FkSafetensors *st) {
  return st->tensors->len;
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
  return types[tensor->type].name;
}

bool fk_st_type_usable(const FkStTensor *tensor, FkDtype *dtype) {
  *dtype = types[tensor->type].dtype;
  return types[tensor->type].usable;
}

char *fk_st_shape_text(const int64_t *dim, int rank) {
  GString *text = g_string_new("[");
  for (int i = 0; i < rank; i++) g_string_append_printf(text, "%s%" G_GINT64_FORMAT, i ? "," : "", (gint64)dim[i]);
  return g_string_free(g_string_append_c(text, ']'), FALSE);
}
