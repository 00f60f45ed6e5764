/* SPDX-License-Identifier: Apache-2.0 */
/* The safetensors reader against the format's rules (spec 1.7): files it must take, and files it must refuse with one
 * error of the right code that names the file and the place. */
#include "file.h"
#include "safetensors.h"
#include "test-files.h"
#include "test-growth.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- A pread that misbehaves: it takes the C library's place in this program ---- */

/* Not static: <unistd.h> may declare pread inline. */
enum { READ_WELL, READ_SHORT, READ_INTERRUPTED, READ_FAILS } reading;

ssize_t pread(int fd, void *to, size_t bytes, off_t offset) {
  static int calls;
  if (reading == READ_FAILS && offset > 0) return errno = EIO, -1;
  if (reading == READ_INTERRUPTED && calls++ % 3) return errno = EINTR, -1;
  if (reading != READ_WELL && bytes > 7) bytes = 7;
  return syscall(SYS_pread64, fd, to, bytes, offset);
}

/* ---- Files that must be refused ---- */

#define T(name, rest) "\"" name "\":{" rest "}"
#define ENTRY(type, shape, offsets) "\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":" offsets
#define ONE(type, shape, offsets) "{" T("x", ENTRY(type, shape, offsets)) "}"
#define TWO(a, b) "{" T("x", ENTRY("U8", "[4]", a)) "," T("y", ENTRY("U8", "[4]", b)) "}"

static const struct {
  const char *header;
  size_t data;
  const char *text; /* in the message, beside the file's name */
} bad[] = {
    /* not the one form of header */
    {"[]", 0, "first byte"},
    {"\xef\xbb\xbf{}", 0, "first byte"},
    {" {}", 0, "first byte"},
    {"{ ", 0, "found the end"},
    {"{}x", 0, "follows"},
    {"{}{}", 0, "follows"},
    {"{\"", 0, "without an end"},
    {"{\"x", 0, "without an end"},
    {"{\"x\\", 0, "escape"},
    {"{'x':1}", 0, "expected '\"'"},
    {"{x:1}", 0, "expected '\"'"},
    {"{\"x\"}", 0, "expected ':'"},
    {"{\"x\":null}", 0, "expected '{'"},
    {"{\"x\":5}", 0, "expected '{'"},
    {"{\"x\":\"y\"}", 0, "expected '{'"},
    {"{\"x\":[[[[]]]]}", 0, "expected '{'"},
    {"{\"x\":{}}", 0, "\"x\": expected dtype"},
    {"{" T("x", ENTRY("U8", "[1]", "[0,1]")) ",}", 1, "expected '\"'"},
    {"{" T("x", ENTRY("U8", "[1]", "[0,1]") ",") "}", 1, "expected '\"'"},
    {"{" T("x", ENTRY("U8", "[1]", "[0,1]")) " " T("y", "") "}", 1, "expected '}'"},
    {"{" T("x", ENTRY("U8", "[1]", "[0,1]")), 1, "found the end"},
    {"{/**/}", 0, "expected '\"'"},
    /* strings */
    {"{\"x\xff\":{}}", 0, "UTF-8"},
    {"{\"\xc0\xaf\":{}}", 0, "UTF-8"},
    {"{\"\xed\xa0\x80\":{}}", 0, "UTF-8"},
    {"{\"\xf4\x90\x80\x80\":{}}", 0, "UTF-8"},
    {"{\"x\n\":{}}", 0, "control character"},
    {"{\"\\x41\":{}}", 0, "escape"},
    {"{\"\\u12\":{}}", 0, "hexadecimal"},
    {"{\"\\u12g4\":{}}", 0, "hexadecimal"},
    {"{\"\\ud800\":{}}", 0, "surrogate"},
    {"{\"\\udc00\":{}}", 0, "surrogate"},
    {"{\"\\ud800\\u0041\":{}}", 0, "surrogate"},
    {"{\"\\ud800\\ud800\":{}}", 0, "surrogate"},
    {"{\"x\\u0000y\":{}}", 0, "NUL"},
    {"{" T("x\\u001b[2J", ENTRY("U8", "[1]", "[0,1]")) "}", 1, "\"x\\u001b[2J\": the name has a control character"},
    {"{" T("\xc2\x9b", ENTRY("U8", "[1]", "[0,1]")) "}", 1, "\"\\u009b\": the name has a control character"},
    /* the keys of a tensor */
    {"{" T("x", "\"shape\":[1],\"data_offsets\":[0,1]") "}", 1, "\"x\""},
    {"{" T("x", "\"dtype\":\"U8\",\"data_offsets\":[0,1]") "}", 1, "\"x\""},
    {"{" T("x", "\"dtype\":\"U8\",\"shape\":[1]") "}", 1, "\"x\""},
    {"{" T("x", ENTRY("U8", "[1]", "[0,1]") ",\"dtype\":\"U8\"") "}", 1, "twice"},
    {"{" T("x", ENTRY("U8", "[1]", "[0,1]") ",\"shape\":[1]") "}", 1, "twice"},
    {"{" T("x", ENTRY("U8", "[1]", "[0,1]") ",\"scale\":1") "}", 1, "unknown key \"scale\""},
    /* types */
    {ONE("f32", "[1]", "[0,4]"), 4, "unknown dtype \"f32\""},
    {ONE("FLOAT", "[1]", "[0,4]"), 4, "unknown dtype \"FLOAT\""},
    {ONE("", "[1]", "[0,4]"), 4, "unknown dtype \"\""},
    {"{\"x\":{\"dtype\":0}}", 4, "expected '\"'"},
    /* shapes */
    {ONE("U8", "1", "[0,1]"), 1, "expected '['"},
    {ONE("U8", "{}", "[0,1]"), 1, "expected '['"},
    {ONE("U8", "[-1]", "[0,1]"), 1, "whole number"},
    {ONE("U8", "[+1]", "[0,1]"), 1, "whole number"},
    {ONE("U8", "[1.0]", "[0,1]"), 1, "whole number"},
    {ONE("U8", "[1e0]", "[0,1]"), 1, "whole number"},
    {ONE("U8", "[1e999]", "[0,1]"), 1, "whole number"},
    {ONE("U8", "[01]", "[0,1]"), 1, "whole number"},
    {ONE("U8", "[\"1\"]", "[0,1]"), 1, "whole number"},
    {ONE("U8", "[[1]]", "[0,1]"), 1, "whole number"},
    {ONE("U8", "[1,]", "[0,1]"), 1, "whole number"},
    {ONE("U8", "[,1]", "[0,1]"), 1, "whole number"},
    {ONE("U8", "[1 1]", "[0,1]"), 1, "expected ']'"},
    {ONE("U8", "[9223372036854775808]", "[0,1]"), 1, "2^63"},
    {ONE("U8", "[99999999999999999999999]", "[0,1]"), 1, "2^63"},
    {ONE("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1, "more than 8"},
    {ONE("U8", "[4294967296,4294967296]", "[0,0]"), 0, "\"x\": shape [4294967296,4294967296] overflows"},
    {ONE("F64", "[2305843009213693952]", "[0,0]"), 0, "overflows"},
    {ONE("F32", "[4398046511105,4194304]", "[0,16]"), 16, "overflows"},
    {ONE("F32", "[2,2]", "[0,15]"), 15, "\"x\": F32 of shape [2,2]: expected 16 bytes, found 15"},
    {ONE("BF16", "[2,2]", "[0,16]"), 16, "expected 8 bytes, found 16"},
    {ONE("F32", "[]", "[0,0]"), 0, "expected 4 bytes, found 0"},
    {ONE("U8", "[0]", "[0,1]"), 1, "expected 0 bytes, found 1"},
    {ONE("F4", "[3]", "[0,2]"), 2, "inside a byte"},
    {ONE("F6_E2M3", "[2]", "[0,2]"), 2, "inside a byte"},
    /* places */
    {ONE("U8", "[4]", "[4,0]"), 4, "reversed"},
    {ONE("U8", "[4]", "[0]"), 4, "two data_offsets"},
    {ONE("U8", "[4]", "[]"), 4, "two data_offsets"},
    {ONE("U8", "[4]", "[0,4,4]"), 4, "more than 2"},
    {ONE("U8", "[4]", "[-4,0]"), 4, "whole number"},
    {ONE("U8", "[4]", "[18446744073709551612,18446744073709551616]"), 4, "2^63"},
    {ONE("U8", "[4]", "[0,4]"), 3, "\"x\": expected data up to"},
    {ONE("U8", "[4]", "[0,4]"), 0, "\"x\": expected data up to"},
    {ONE("U8", "[9223372036854775807]", "[0,9223372036854775807]"), 4, "overflows"},
    {ONE("U8", "[4]", "[0,4]"), 5, "expected a file of"},
    {"{}", 1, "expected a file of"},
    {ONE("U8", "[4]", "[1,5]"), 5, "\"x\": expected data_offsets from 0, found 1 (hole)"},
    {TWO("[0,4]", "[5,9]"), 9, "\"y\": expected data_offsets from 4, found 5 (hole)"},
    {TWO("[0,4]", "[3,7]"), 7, "\"y\": expected data_offsets from 4, found 3 (overlap)"},
    {TWO("[0,4]", "[0,4]"), 4, "overlap"},
    {TWO("[4,8]", "[4,8]"), 8, "hole"},
    {"{" T("x", ENTRY("U8", "[4]", "[0,4]")) "," T("y", ENTRY("U8", "[0]", "[2,2]")) "}", 4, "overlap"},
    {"{" T("x", ENTRY("U8", "[0]", "[3,3]")) "}", 0, "hole"},
    /* names twice */
    {"{" T("x", ENTRY("U8", "[1]", "[0,1]")) "," T("x", ENTRY("U8", "[1]", "[1,2]")) "}", 2, "\"x\": the name"},
    {"{" T("x", ENTRY("U8", "[1]", "[0,1]")) "," T("\\u0078", ENTRY("U8", "[1]", "[1,2]")) "}", 2, "\"x\": the name"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "twice"},
    {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "twice"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "expected '\"'"},
    {"{\"__metadata__\":{\"a\":null}}", 0, "expected '\"'"},
    {"{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}", 0, "expected '\"'"},
    {"{\"__metadata__\":[\"a\"]}", 0, "expected '{'"},
    {"{\"__metadata__\":{\"a\":\"b\",}}", 0, "expected '\"'"},
};

static void refuse(const char *path, FkError code, const char *text) {
  g_autoptr(GError) error = NULL;
  FkSafetensors *st = fk_safetensors_open(path, &error);
  if (st) g_error("%s was taken; expected \"%s\"", path, text);
  g_autofree char *name = g_path_get_basename(path);
  g_autofree char *shown = fk_shown_path(name);
  assert_error(error, (int)code, shown, text);
}

static void test_bad_headers(void) {
  g_assert_cmpuint(G_N_ELEMENTS(bad), >=, 60);
  static const char zeros[16];
  for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
    g_autofree char *name = g_strdup_printf("bad-%zu.safetensors", i);
    g_autofree char *path = write_safetensors(name, bad[i].header, zeros, bad[i].data);
    refuse(path, FK_ERROR_MODEL_BAD, bad[i].text);
  }
}

static void test_bad_lengths(void) {
  static const struct {
    guint64 length;
    size_t size;
    const char *text;
  } cases[] = {
      {0, 0, "at least 8 bytes, found 0"},
      {0, 7, "at least 8 bytes, found 7"},
      {0, 8, "found 0"},
      {1, 9, "found 1"},
      {3, 10, "a file of at least 11 bytes by the length of its header, found 10"},
      {15686, 8, "a file of at least 15694 bytes by the length of its header, found 8"},
      {(guint64)1 << 63, 64, "found more"},
      {G_MAXUINT64, 64, "header of"},
      {G_MAXUINT64 - 7, 64, "header of"},
      {100000001, 64, "header of"},
  };
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    char bytes[64] = {0};
    guint64 length = GUINT64_TO_LE(cases[i].length);
    memcpy(bytes, &length, MIN(sizeof length, cases[i].size));
    g_autofree char *path = write_bytes("length.safetensors", bytes, cases[i].size);
    refuse(path, FK_ERROR_MODEL_BAD, cases[i].text);
  }
  /* A file that is long enough, but no header may be. */
  guint64 length = GUINT64_TO_LE((guint64)100000001);
  g_autofree char *path = write_bytes("long.safetensors", &length, sizeof length);
  g_assert_cmpint(truncate(path, 100000100), ==, 0);
  refuse(path, FK_ERROR_MODEL_BAD, "2 to 100000000 bytes, found more");
}

/* Nesting is refused at its first level, however deep it goes; over-long names and padding with zeros too. */
static void test_bad_long(void) {
  g_autoptr(GString) deep = g_string_new("{\"x\":");
  for (int i = 0; i < 1000000; i++) g_string_append_c(deep, i % 2 ? '[' : '{');
  g_autofree char *deep_path = write_safetensors("deep.safetensors", deep->str, NULL, 0);
  refuse(deep_path, FK_ERROR_MODEL_BAD, "expected '\"'");
  g_autofree char *name = g_strnfill(65536, 'n');
  g_autofree char *header = g_strdup_printf("{\"%s\":{" ENTRY("U8", "[1]", "[0,1]") "}}", name);
  g_autofree char *name_path = write_safetensors("name.safetensors", header, "x", 1);
  refuse(name_path, FK_ERROR_MODEL_BAD, "at most 4096 bytes, found 65536");
  g_autoptr(GByteArray) zeros = safetensors_bytes("{}\0\0\0\0\0\0", 8, NULL, 0);
  g_autofree char *zeros_path = write_bytes("zeros.safetensors", zeros->data, zeros->len);
  refuse(zeros_path, FK_ERROR_MODEL_BAD, "UTF-8");
}

/* ---- Files that are no files ---- */

static void test_bad_files(void) {
  g_autofree char *missing = scratch_path("none.safetensors"), *folder = scratch_path("folder.safetensors");
  g_autofree char *pipe_path = scratch_path("pipe.safetensors"), *loop = scratch_path("loop.safetensors");
  g_autofree char *under = scratch_path("good.safetensors/x.safetensors");
  g_free(write_safetensors("good.safetensors", "{}", NULL, 0));
  refuse(missing, FK_ERROR_MODEL_MISSING, "No such file");
  refuse(under, FK_ERROR_MODEL_MISSING, "to be a folder or a packed model, found another file");
  g_assert_cmpint(g_mkdir(folder, 0700), ==, 0);
  refuse(folder, FK_ERROR_MODEL_BAD, "found a folder");
  g_assert_cmpint(mkfifo(pipe_path, 0600), ==, 0);
  refuse(pipe_path, FK_ERROR_MODEL_BAD, "regular file");
  g_assert_cmpint(symlink("loop.safetensors", loop), ==, 0);
  refuse(loop, FK_ERROR_MODEL_BAD, "symbolic links");
  refuse("/dev/zero", FK_ERROR_MODEL_BAD, "regular file");
  g_autofree char *strange = write_safetensors("not-utf8-\xff.safetensors", "[]", NULL, 0);
  refuse(strange, FK_ERROR_MODEL_BAD, "first byte");
  g_autofree char *secret = write_safetensors("secret.safetensors", "{}", NULL, 0);
  g_assert_cmpint(g_chmod(secret, 0), ==, 0);
  if (geteuid() != 0) refuse(secret, FK_ERROR_MODEL_DENIED, "denied"); /* root may read everything */
}

/* ---- Files that must be taken ---- */

#define SMALL                                                                                                          \
  "{\"__metadata__\":{\"format\":\"pt\"}," T("scalar", ENTRY("F32", "[]", "[0,4]")) ",\n\t " T(                        \
      "b\\\"\\/\\u00e9\\ud83d\\ude00",                                                                                 \
      ENTRY("BF16", "[2,3]", "[10,22]")) "," T("half", ENTRY("F16", "[3]", "[4,10]")) "," T("empty",                   \
                                                                                            ENTRY("I64", "[0,7]",      \
                                                                                                  "[10,10]")) "}   \n"

static const char small_data[22] = {0,   0,   (char)0x80, 0x3f, 'a', 'b', 'c', 'd', 'e', 'f', 'g',
                                    'h', 'i', 'j',        'k',  'l', 'm', 'n', 'o', 'p', 'q', 'r'};

static void test_good(void) {
  g_autoptr(GError) error = NULL;
  g_autofree char *path = write_safetensors("small.safetensors", SMALL, small_data, sizeof small_data);
  for (reading = READ_WELL; reading <= READ_INTERRUPTED; reading++) {
    g_autoptr(FkSafetensors) st = fk_safetensors_open(path, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(fk_safetensors_count(st), ==, 4);
    static const char *const order[] = {"scalar", "half", "empty", "b\"/\u00e9\U0001f600"};
    for (size_t i = 0; i < 4; i++) g_assert_cmpstr(fk_safetensors_at(st, i)->name, ==, order[i]);
    const FkStTensor *t = fk_safetensors_find(st, "scalar");
    g_assert_cmpuint(t->rank, ==, 0);
    float one = 0;
    g_assert_true(fk_safetensors_read(st, t, 0, &one, sizeof one, &error));
    g_assert_cmpfloat(one, ==, 1.0f);
    t = fk_safetensors_find(st, order[3]);
    g_assert_cmpuint(t->rank, ==, 2);
    g_assert_cmpint(t->dim[0], ==, 2);
    g_assert_cmpint(t->dim[1], ==, 3);
    g_assert_cmpstr(fk_st_type_name(t), ==, "BF16");
    char some[9];
    g_assert_true(fk_safetensors_read(st, t, 2, some, sizeof some, &error));
    g_assert_cmpmem(some, sizeof some, "ijklmnopq", 9);
    t = fk_safetensors_find(st, "empty");
    g_assert_true(t && t->bytes == 0 && t->dim[0] == 0 && t->dim[1] == 7);
    g_assert_null(fk_safetensors_find(st, "format"));
    g_assert_null(fk_safetensors_find(st, "__metadata__"));
  }
  reading = READ_FAILS;
  refuse(path, FK_ERROR_MODEL_BAD, "cannot be read at byte 7: Input/output error");
  reading = READ_WELL;
}

static void test_types(void) {
  static const struct {
    const char *name;
    int bits;
  } types[] = {{"F64", 64},    {"F32", 32},        {"F16", 16},        {"BF16", 16},   {"I64", 64}, {"I32", 32},
               {"I16", 16},    {"I8", 8},          {"U64", 64},        {"U32", 32},    {"U16", 16}, {"U8", 8},
               {"BOOL", 8},    {"F8_E4M3", 8},     {"F8_E5M2", 8},     {"F8_E8M0", 8}, {"F4", 4},   {"F6_E2M3", 6},
               {"F6_E3M2", 6}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"C64", 64}};
  for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
    g_autoptr(GError) error = NULL;
    char data[64] = {0};
    g_autofree char *header = g_strdup_printf(
        "{" T("x", "\"dtype\":\"%s\",\"shape\":[4,2],\"data_offsets\":[0,%d]") "}", types[i].name, types[i].bits);
    g_autofree char *path = write_safetensors("type.safetensors", header, data, (size_t)types[i].bits);
    g_autoptr(FkSafetensors) st = fk_safetensors_open(path, &error);
    g_assert_no_error(error);
    const FkStTensor *t = fk_safetensors_find(st, "x");
    g_assert_cmpstr(fk_st_type_name(t), ==, types[i].name);
    FkDtype dtype;
    bool usable = fk_st_type_usable(t, &dtype);
    g_assert_true(usable == (strstr("F32 F16 BF16 F8_E4M3", types[i].name) != NULL));
    if (usable) g_assert_cmpuint(8 * fk_dtype_size(dtype), ==, (guint)types[i].bits);
  }
}

/* No prefix of a good file is a good file. */
static void test_truncation(void) {
  g_autoptr(GByteArray) file = safetensors_bytes(SMALL, strlen(SMALL), small_data, sizeof small_data);
  for (guint size = 0; size < file->len; size++) {
    g_autofree char *path = write_bytes("cut.safetensors", file->data, size);
    refuse(path, FK_ERROR_MODEL_BAD, "cut.safetensors");
  }
}

/* An error, or a file whose tensors can all be read. */
static void test_bit_flips(void) {
  g_autoptr(GByteArray) file = safetensors_bytes(SMALL, strlen(SMALL), small_data, sizeof small_data);
  g_autoptr(GRand) random = g_rand_new_with_seed(20);
  int taken = 0;
  for (int i = 0; i < 10000; i++) {
    g_autofree guint8 *copy = g_memdup2(file->data, file->len);
    for (int flips = g_rand_int_range(random, 1, 4); flips > 0; flips--)
      copy[g_rand_int_range(random, 0, (gint32)file->len)] ^= (guint8)(1u << g_rand_int_range(random, 0, 8));
    g_autofree char *path = write_bytes("flip.safetensors", copy, file->len);
    g_autoptr(GError) error = NULL;
    g_autoptr(FkSafetensors) st = fk_safetensors_open(path, &error);
    if (!st) {
      assert_error(error, FK_ERROR_MODEL_BAD, "flip.safetensors", "");
      continue;
    }
    taken++;
    uint64_t sum = 0;
    for (size_t t = 0; t < fk_safetensors_count(st); t++) {
      const FkStTensor *tensor = fk_safetensors_at(st, t);
      char data[sizeof small_data];
      g_assert_cmpuint(tensor->bytes, <=, sizeof data);
      g_assert_true(fk_safetensors_read(st, tensor, 0, data, tensor->bytes, NULL));
      sum += tensor->bytes;
    }
    g_assert_cmpuint(sum, ==, sizeof small_data);
  }
  g_assert_cmpint(taken, >, 100); /* flips in data and in names are no error */
}

/* n one-byte tensors, in the order of their bytes or against it. */
static char *write_entries(const char *name, int n, bool backwards) {
  g_autoptr(GString) header = g_string_sized_new((gsize)n * 84);
  for (int i = 0; i < n; i++) {
    int at = backwards ? n - 1 - i : i;
    g_string_append_printf(header, "%c\"tensor.%07d\":{" ENTRY("U8", "[1]", "[%d,%d]") "}", i ? ',' : '{', i, at,
                           at + 1);
  }
  g_string_append_c(header, '}');
  g_autofree char *data = g_malloc0((size_t)n);
  return write_safetensors(name, header->str, data, (size_t)n);
}

enum { ENTRIES = 1000000 };

static void open_entries(gpointer data, gboolean quarter) {
  char *const *paths = data;
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSafetensors) st = fk_safetensors_open(paths[quarter], &error);
  g_assert_no_error(error);
  g_assert_cmpuint(fk_safetensors_count(st), ==, (guint)(quarter ? ENTRIES / 4 : ENTRIES));
  g_assert_nonnull(fk_safetensors_find(st, quarter ? "tensor.0249999" : "tensor.0999999"));
}

/* A million entries take about four times the time of a quarter as many. */
static void test_many_entries(void) {
  for (int backwards = 0; backwards < 2; backwards++) {
    g_autofree char *whole = write_entries("many.safetensors", ENTRIES, backwards);
    g_autofree char *quarter = write_entries("quarter.safetensors", ENTRIES / 4, backwards);
    char *paths[2] = {whole, quarter};
    assert_linear(backwards ? "entries, backwards" : "entries", open_entries, paths);
    g_remove(whole);
    g_remove(quarter);
  }
}

/* ---- Places ---- */

/* Positions past 4 GiB, on a file that has holes on disk. */
static void test_far_offsets(void) {
  const guint64 far = ((guint64)5 << 30) + 3;
  g_autofree char *header =
      g_strdup_printf("{" T("big", ENTRY("U8", "[%" G_GUINT64_FORMAT "]", "[0,%" G_GUINT64_FORMAT "]")) "," T(
                          "x", ENTRY("F32", "[1]", "[%" G_GUINT64_FORMAT ",%" G_GUINT64_FORMAT "]")) "}",
                      far, far, far, far + 4);
  g_autofree char *path = write_safetensors("far.safetensors", header, NULL, 0);
  const float value = 42;
  int fd = open(path, O_WRONLY);
  ssize_t wrote = pwrite(fd, &value, sizeof value, (off_t)(8 + strlen(header) + far));
  close(fd);
  if (wrote != sizeof value) {
    g_test_skip("the scratch folder's file system has no large files");
    return;
  }
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSafetensors) st = fk_safetensors_open(path, &error);
  g_assert_no_error(error);
  float found = 0;
  g_assert_true(fk_safetensors_read(st, fk_safetensors_find(st, "x"), 0, &found, sizeof found, &error));
  g_assert_cmpfloat(found, ==, value);
  g_remove(path);
}

/* The file becomes shorter, or another, after it was opened. */
static void test_changed_file(void) {
  g_autofree char *path = write_safetensors("short.safetensors", ONE("U8", "[9]", "[0,9]"), "123456789", 9);
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSafetensors) st = fk_safetensors_open(path, &error);
  g_assert_no_error(error);
  const FkStTensor *t = fk_safetensors_find(st, "x");
  char data[9];
  g_assert_cmpint(truncate(path, (off_t)t->begin + 4), ==, 0);
  g_assert_false(fk_safetensors_read(st, t, 0, data, 9, &error));
  g_autofree char *where = g_strdup_printf("ends at byte %d, expected 5 more", (int)t->begin + 4);
  assert_error(error, FK_ERROR_MODEL_BAD, "short.safetensors", where);
  g_assert_true(fk_safetensors_read(st, t, 0, data, 4, &error));
  g_assert_cmpmem(data, 4, "1234", 4);
}

static void test_load_file(void) {
  g_autofree char *path = write_text("text.json", "hello");
  g_autoptr(GError) error = NULL;
  size_t size = 0;
  g_autofree char *text = fk_file_load(path, 5, &size, &error);
  g_assert_cmpstr(text, ==, "hello");
  g_assert_cmpuint(size, ==, 5);
  g_assert_null(fk_file_load(path, 4, &size, &error));
  assert_error(error, FK_ERROR_MODEL_BAD, "text.json", "at most 4 bytes, found 5");
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  g_test_add_func("/safetensors/bad/headers", test_bad_headers);
  g_test_add_func("/safetensors/bad/lengths", test_bad_lengths);
  g_test_add_func("/safetensors/bad/long", test_bad_long);
  g_test_add_func("/safetensors/bad/files", test_bad_files);
  g_test_add_func("/safetensors/good", test_good);
  g_test_add_func("/safetensors/types", test_types);
  g_test_add_func("/safetensors/truncation", test_truncation);
  g_test_add_func("/safetensors/bit-flips", test_bit_flips);
  g_test_add_func("/safetensors/many-entries", test_many_entries);
  g_test_add_func("/safetensors/far-offsets", test_far_offsets);
  g_test_add_func("/safetensors/changed-file", test_changed_file);
  g_test_add_func("/safetensors/load-file", test_load_file);
  int status = g_test_run();
  scratch_close();
  return status;
}
