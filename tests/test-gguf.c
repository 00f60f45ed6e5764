/* SPDX-License-Identifier: Apache-2.0 */
/* The GGUF reader: a file of every type that it takes, and files that it must refuse with one error which names the
 * file and the byte: counts and products that overflow, lengths beyond the file, places that are unaligned, outside or
 * overlapping, types and dimensions that cannot be, duplicates. */
#include "gguf.h"
#include "test-files.h"
#include "types.h"

static void put(GByteArray *b, guint64 value, int bytes) {
  for (int i = 0; i < bytes; i++) {
    const guint8 byte = (guint8)(value >> 8 * i);
    g_byte_array_append(b, &byte, 1);
  }
}

static void put_text(GByteArray *b, const char *text) {
  put(b, strlen(text), 8);
  g_byte_array_append(b, (const guint8 *)text, (guint)strlen(text));
}

static GByteArray *start(guint64 version, guint64 tensors, guint64 pairs) {
  GByteArray *b = g_byte_array_new();
  g_byte_array_append(b, (const guint8 *)"GGUF", 4);
  put(b, version, 4);
  put(b, tensors, 8);
  put(b, pairs, 8);
  return b;
}

static void put_tensor(GByteArray *b, const char *name, int rank, const guint64 *dims, guint64 type, guint64 offset) {
  put_text(b, name);
  put(b, (guint64)rank, 4);
  for (int i = 0; i < rank; i++) put(b, dims[i], 8);
  put(b, type, 4);
  put(b, offset, 8);
}

static void pad(GByteArray *b, guint alignment) {
  while (b->len % alignment) put(b, 0, 1);
}

static FkSafetensors *open_bytes(const GByteArray *b, GError **error) {
  g_autofree char *path = write_bytes("a.gguf", b->data, b->len);
  g_assert_true(fk_gguf_is(path) == (b->len >= 4 && !memcmp(b->data, "GGUF", 4)));
  return fk_gguf_open_within(path, 16 << 20, error);
}

static void refuse(GByteArray *b, const char *text) {
  g_autoptr(GError) error = NULL;
  g_assert_null(open_bytes(b, &error));
  g_test_message("%s", error->message);
  assert_error(error, FK_ERROR_MODEL_BAD, "a.gguf: at byte ", text);
  g_byte_array_unref(b);
}

/* ---- What is taken ---- */

/* Every type, and pairs of every kind, at an alignment of its own; the last shape has four sides. */
static GByteArray *whole_file(guint alignment) {
  static const guint8 kinds[] = {0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12}, bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 8, 8};
  GByteArray *b = start(3, 0, G_N_ELEMENTS(kinds) + 4);
  for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
    g_autofree char *key = g_strdup_printf("kind.%d", kinds[i]);
    put_text(b, key);
    put(b, kinds[i], 4);
    put(b, 1, bytes[i]);
  }
  put_text(b, "general.architecture"), put(b, 8, 4), put_text(b, "flux");
  put_text(b, "general.alignment"), put(b, 4, 4), put(b, alignment, 4);
  put_text(b, "words"), put(b, 9, 4), put(b, 8, 4), put(b, 2, 8), put_text(b, ""), put_text(b, "two");
  put_text(b, "numbers"), put(b, 9, 4), put(b, 5, 4), put(b, 3, 8), put(b, 7, 8), put(b, 7, 4);
  guint64 at = 0;
  int tensors = 0;
  g_autoptr(GByteArray) data = g_byte_array_new();
  for (guint32 type = 0; type < 64; type++) {
    const FkNumberType *t = fk_number_type(fk_number_type_ggml(type));
    if (!t) continue;
    const guint64 dims[4] = {(guint64)t->values * 2, 3, 1, 1};
    const guint size = (guint)t->bytes * 6;
    g_autofree char *name = g_strdup_printf("tensor.%s", t->name);
    put_tensor(b, name, tensors % 2 ? 2 : 4, dims, type, at);
    for (guint i = 0; i < size; i++) put(data, type + i, 1);
    pad(data, alignment);
    at = data->len;
    tensors++;
  }
  memcpy(b->data + 8, &tensors, 4);
  pad(b, alignment);
  g_byte_array_append(b, data->data, data->len);
  g_assert_cmpint(tensors, ==, 15);
  return b;
}

static void test_whole(void) {
  for (guint alignment = 1; alignment <= 4096; alignment *= 8) {
    g_autoptr(GByteArray) b = whole_file(alignment);
    g_autoptr(GError) error = NULL;
    g_autoptr(FkSafetensors) st = open_bytes(b, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(fk_safetensors_count(st), ==, 15);
    int odd = 0;
    for (guint32 type = 0; type < 64; type++) {
      const FkNumberType *n = fk_number_type(fk_number_type_ggml(type));
      if (!n) continue;
      g_autofree char *name = g_strdup_printf("tensor.%s", n->name);
      const FkStTensor *t = fk_safetensors_find(st, name);
      g_autofree char *shape = fk_st_shape_text(t->dim, t->rank);
      g_autofree char *expected = g_strdup_printf(odd++ % 2 ? "[3,%d]" : "[1,1,3,%d]", n->values * 2);
      g_assert_cmpstr(shape, ==, expected);
      g_assert_cmpstr(fk_st_type_name(t), ==, n->name);
      guint8 first[2];
      g_assert_true(fk_safetensors_read(st, t, t->bytes - 2, first, 2, NULL));
      g_assert_cmpuint(first[1], ==, (type + t->bytes - 1) & 255);
    }
  }
}

/* ---- What is refused ---- */

static void test_head(void) {
  GByteArray *b = start(3, 0, 0);
  memcpy(b->data, "GGML", 4);
  refuse(b, "expected \"GGUF\"");
  refuse(start(1, 0, 0), "expected version 2 or 3, found 1");
  refuse(start(4, 0, 0), "found 4");
  refuse(start(0x03000000, 0, 0), "expected version");
  refuse(start(3, 100001, 0), "at most 100000 tensors");
  refuse(start(3, G_MAXUINT64, 0), "found 18446744073709551615");
  refuse(start(3, 0, G_MAXUINT64), "at most 100000 tensors and 100000 keys");
  refuse(start(3, 1, 0), "found the end of the file");
  refuse(start(3, 0, 1), "found the end of the file");
}

static GByteArray *pair_start(const char *key, guint64 kind) {
  GByteArray *b = start(3, 0, 1);
  put_text(b, key);
  put(b, kind, 4);
  return b;
}

static void test_pairs(void) {
  static const guint64 lengths[] = {(guint64)1 << 63, G_MAXUINT64, G_MAXUINT64 - 7, 1000};
  for (size_t i = 0; i < G_N_ELEMENTS(lengths); i++) {
    GByteArray *key = start(3, 0, 1), *value = pair_start("k", 8), *array = pair_start("k", 9),
               *words = pair_start("k", 9), *word = pair_start("k", 9);
    put(key, lengths[i], 8), put(key, 0, 8);
    refuse(key, "found the end of the file");
    put(value, lengths[i], 8), put(value, 0, 8);
    refuse(value, "found the end of the file");
    put(array, 12, 4), put(array, lengths[i], 8), put(array, 0, 8);
    refuse(array, "elements in what is left");
    put(words, 8, 4), put(words, lengths[i], 8), put(words, 0, 8);
    refuse(words, "elements in what is left");
    put(word, 8, 4), put(word, 1, 8), put(word, lengths[i], 8);
    refuse(word, "found the end of the file");
  }
  GByteArray *nested = pair_start("k", 9), *kind = pair_start("k", 9), *empty = start(3, 0, 1);
  put(nested, 9, 4), put(nested, 1, 8), put(nested, 9, 4), put(nested, 1, 8);
  refuse(nested, "an array of a plain type, found type 9");
  put(kind, 13, 4), put(kind, 1, 8);
  refuse(kind, "found type 13");
  refuse(pair_start("k", 13), "key \"k\": unknown type 13");
  refuse(pair_start("k", G_MAXUINT32), "unknown type 4294967295");
  put(empty, 0, 8), put(empty, 0, 8);
  refuse(empty, "expected a key of 1 to");
  GByteArray *twice = start(3, 0, 2);
  for (int i = 0; i < 2; i++) put_text(twice, "k"), put(twice, 0, 4), put(twice, 0, 1);
  refuse(twice, "the key \"k\" is there twice");
  static const guint64 alignments[] = {0, 3, 24, 1 << 21, 0x80000000u, G_MAXUINT32};
  for (size_t i = 0; i < G_N_ELEMENTS(alignments); i++) {
    GByteArray *b = pair_start("general.alignment", 4);
    put(b, alignments[i], 4);
    refuse(b, "expected a power of two");
  }
  GByteArray *wide = pair_start("general.alignment", 10);
  put(wide, 32, 8);
  refuse(wide, "general.alignment: expected type 4, found 10");
}

static void test_tensors(void) {
  static const struct {
    const char *name;
    int rank;
    guint64 dims[5], type, offset;
    const char *text;
  } cases[] = {
      {"x", 1, {0}, 0, 0, "product is below 2^64, found 0"},
      {"x", 2, {32, 0}, 0, 0, "found 0"},
      {"x", 1, {(guint64)1 << 63}, 0, 0, "found 9223372036854775808"},
      {"x", 2, {(guint64)1 << 32, (guint64)1 << 32}, 0, 0, "product is below 2^64"},
      {"x", 4, {65536, 65536, 65536, 65536}, 0, 0, "product is below 2^64"},
      {"x", 1, {(guint64)1 << 62}, 0, 0, "more than the file"},
      {"x", 2, {(guint64)1 << 31, (guint64)1 << 31}, 8, 0, "more than the file"},
      {"x", 5, {1, 1, 1, 1, 1}, 0, 0, "at most 4 dimensions, found 5"},
      {"x", 1, {32}, 4, 0, "type 4 (Q4_2) is not read here"},
      {"x", 1, {256}, 16, 0, "type 16 (IQ2_XXS) is not read here"},
      {"x", 1, {32}, 39, 0, "type 39 (MXFP4) is not read here"},
      {"x", 1, {32}, 41, 0, "type 41 (unknown)"},
      {"x", 1, {32}, G_MAXUINT32, 0, "(unknown)"},
      {"x", 1, {31}, 2, 0, "rows of whole blocks of 32 Q4_0 numbers, found 31"},
      {"x", 2, {128, 2}, 12, 0, "rows of whole blocks of 256 Q4_K numbers, found 128"},
      {"x", 1, {8}, 0, 1, "a multiple of 32, found 1"},
      {"x", 1, {8}, 0, 16, "a multiple of 32, found 16"},
      {"x", 1, {8}, 0, 32, "data inside the file"},
      {"x", 1, {8}, 0, (guint64)1 << 63, "data inside the file"},
      {"x", 1, {8}, 0, G_MAXUINT64 - 31, "data inside the file"},
      {"x", 1, {16}, 0, 0, "data inside the file"},
      {"", 1, {8}, 0, 0, "a tensor's name of 1 to"},
      {"\x1b[2J", 1, {8}, 0, 0, "printable UTF-8"},
      {"\xc2\x9b", 1, {8}, 0, 0, "printable UTF-8"},
      {"\xff", 1, {8}, 0, 0, "printable UTF-8"},
  };
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    GByteArray *b = start(3, 1, 0);
    put_tensor(b, cases[i].name, cases[i].rank, cases[i].dims, cases[i].type, cases[i].offset);
    pad(b, 32);
    for (int k = 0; k < 8; k++) put(b, 0, 4);
    refuse(b, cases[i].text);
  }
}

/* Two tensors of 32 bytes: in one place, by halves in one, of one name. */
static void test_pairs_of_tensors(void) {
  static const struct {
    const char *second;
    guint64 dims, offset;
    const char *text;
  } cases[] = {
      {"y", 8, 0, "\"x\" and \"y\" overlap"}, {"y", 16, 0, "overlap"}, {"x", 8, 32, "the name is there twice"}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    GByteArray *b = start(3, 2, 0);
    put_tensor(b, "x", 1, (guint64[]){8}, 0, 0);
    put_tensor(b, cases[i].second, 1, &cases[i].dims, 0, cases[i].offset);
    pad(b, 32);
    for (int k = 0; k < 16; k++) put(b, 0, 4);
    g_autoptr(GError) error = NULL;
    g_assert_null(open_bytes(b, &error));
    assert_error(error, FK_ERROR_MODEL_BAD, "a.gguf", cases[i].text);
    g_byte_array_unref(b);
  }
}

/* No beginning of a good file is one, but where only the padding of the last tensor is gone. */
static void test_truncation(void) {
  g_autoptr(GByteArray) b = whole_file(32);
  int taken = 0;
  for (guint size = 0; size < b->len; size += size < 1400 ? 1 : 41) { /* every byte of the header */
    const GByteArray cut = {b->data, size};
    g_autoptr(GError) error = NULL;
    g_autoptr(FkSafetensors) st = open_bytes(&cut, &error);
    taken += st != NULL;
    if (!st) g_assert_error(error, FK_ERROR, FK_ERROR_MODEL_BAD);
  }
  g_assert_cmpint(taken, <, 32);
}

static void test_flips(void) {
  g_autoptr(GByteArray) b = whole_file(32);
  g_autoptr(GRand) random = g_rand_new_with_seed(3);
  int taken = 0;
  for (int i = 0; i < 3000; i++) {
    g_autofree guint8 *copy = g_memdup2(b->data, b->len);
    for (int k = 0; k < 3; k++)
      copy[g_rand_int_range(random, 0, 1400)] ^= (guint8)(1 << g_rand_int_range(random, 0, 8));
    const GByteArray flipped = {copy, b->len};
    g_autoptr(GError) error = NULL;
    g_autoptr(FkSafetensors) st = open_bytes(&flipped, &error);
    taken += st != NULL;
    if (!st) g_assert_error(error, FK_ERROR, FK_ERROR_MODEL_BAD);
    for (size_t t = 0; st && t < fk_safetensors_count(st); t++) {
      const FkStTensor *tensor = fk_safetensors_at(st, t);
      g_autofree char *bytes = g_malloc(tensor->bytes + 1);
      g_assert_true(fk_safetensors_read(st, tensor, 0, bytes, tensor->bytes, NULL));
    }
  }
  g_test_message("%d of 3000 taken", taken);
}

/* A header beyond the limit is refused before it is read. */
static void test_limit(void) {
  g_autoptr(GByteArray) b = whole_file(32);
  g_autofree char *path = write_bytes("limit.gguf", b->data, b->len);
  g_autoptr(GError) error = NULL;
  g_assert_null(fk_gguf_open_within(path, 256, &error));
  assert_error(error, FK_ERROR_MODEL_BAD, "limit.gguf", "expected a header of at most 256 bytes");
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  g_test_add_func("/gguf/whole", test_whole);
  g_test_add_func("/gguf/head", test_head);
  g_test_add_func("/gguf/pairs", test_pairs);
  g_test_add_func("/gguf/tensors", test_tensors);
  g_test_add_func("/gguf/two", test_pairs_of_tensors);
  g_test_add_func("/gguf/truncation", test_truncation);
  g_test_add_func("/gguf/flips", test_flips);
  g_test_add_func("/gguf/limit", test_limit);
  const int status = g_test_run();
  scratch_close();
  return status;
}
