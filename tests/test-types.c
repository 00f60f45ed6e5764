/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of files: blocks against the gguf package, scales in tiles against comfy-kitchen, both bit for bit; codes of
 * 8 bits with scales of every kind; what does not fit. */
#include "numbers.h"
#include "number-reference.h"
#include "test-files.h"
#include "types.h"

static GByteArray *from_hex(const char *hex) {
  GByteArray *bytes = g_byte_array_new();
  for (; hex[0] && hex[1]; hex += 2) {
    const guint8 byte = (guint8)(g_ascii_xdigit_value(hex[0]) << 4 | g_ascii_xdigit_value(hex[1]));
    g_byte_array_append(bytes, &byte, 1);
  }
  return bytes;
}

/* ---- Files of a matrix "x.weight" and what stands beside it ---- */

typedef struct {
  const char *name, *type, *shape;
  const void *bytes;
  size_t size;
} Part;

static FkComponent *open_parts(const Part *parts, size_t n) {
  GString *header = g_string_new("{");
  g_autoptr(GByteArray) data = g_byte_array_new();
  for (size_t i = 0; i < n; i++) {
    g_string_append_printf(header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%u,%u]}", i ? "," : "",
                           parts[i].name, parts[i].type, parts[i].shape, data->len, data->len + (guint)parts[i].size);
    g_byte_array_append(data, parts[i].bytes, (guint)parts[i].size);
  }
  g_string_append_c(header, '}');
  g_free(write_safetensors("types/model.safetensors", header->str, data->data, data->len));
  g_string_free(header, TRUE);
  g_autofree char *folder = scratch_path("types");
  g_autoptr(GError) error = NULL;
  FkComponent *c = fk_component_open(folder, "model", &error);
  g_assert_no_error(error);
  return c;
}

/* NULL: checked and read into `to` [rows, cols]; else the problem. (transfer full) */
static char *read_matrix(const FkComponent *c, int64_t rows, int64_t cols, float *to) {
  size_t n;
  const FkNames names = {.part[FK_PART_FLUX] = {c, fk_name_tables(FK_PART_FLUX, &n), NULL}};
  FkSource s;
  g_autoptr(GError) error = NULL;
  g_assert_true(fk_names_find(&names, FK_PART_FLUX, "x.weight", &s));
  char *problem = fk_numbers_check(&s, (int64_t[]){rows, cols}, 2);
  if (problem) return problem;
  g_assert_true(fk_numbers_coded(&s));
  /* In pieces, as the loader does: from a row in the middle on, and the rows before it. */
  for (int half = 0; half < 2; half++) {
    const int64_t first = half ? rows / 3 : 0, count = half ? rows - first : rows / 3;
    g_autoptr(FkNumbers) numbers = fk_numbers_begin(&s, cols, first, count, &error);
    for (int64_t at = 0; numbers && at < count && !error; at += 2)
      fk_numbers_rows(numbers, at, MIN(2, count - at), to + (first + at) * cols, &error);
    if (error) return g_strdup(error->message);
  }
  return NULL;
}

/* ---- Against the packages ---- */

static char **golden_lines(void) {
  g_autofree char *text = NULL;
  g_assert_true(g_file_get_contents(FK_GOLDEN "/types.txt", &text, NULL, NULL));
  return g_strsplit(g_strstrip(text), "\n", -1);
}

static int row_of_ggml(const char *name) {
  for (uint32_t i = 0; i < 64; i++)
    if (!g_strcmp0(fk_ggml_type_name(i), name)) return fk_number_type_ggml(i);
  return -1;
}

static void test_blocks(void) {
  g_auto(GStrv) lines = golden_lines();
  int blocks = 0;
  for (char **line = lines; *line; line++) {
    g_auto(GStrv) word = g_strsplit(*line, " ", -1);
    if (strcmp(word[0], "block")) continue;
    const FkNumberType *type = fk_number_type(row_of_ggml(word[1]));
    g_assert_nonnull(type);
    g_assert_cmpstr(type->name, ==, word[1]);
    g_autoptr(GByteArray) bytes = from_hex(word[2]), numbers = from_hex(word[3]);
    g_assert_cmpint((int)bytes->len, ==, type->bytes);
    float found[256];
    g_assert_cmpint(fk_code_values(type->code), ==, type->values);
    g_assert_cmpint(fk_code_bytes(type->code), ==, type->bytes);
    const FkCoded coded = {.form = {.code = type->code}, .rows = 1, .cols = type->values, .codes = bytes->data};
    fk_coded_expand(&coded, found);
    g_assert_cmpmem(found, (size_t)type->values * sizeof(float), numbers->data, numbers->len);
    blocks++;
  }
  g_assert_cmpint(blocks, ==, 12 * 6);
}

static void test_tiles(void) {
  g_auto(GStrv) lines = golden_lines();
  int matrices = 0;
  for (char **line = lines; *line; line++) {
    g_auto(GStrv) word = g_strsplit(*line, " ", -1);
    if (strcmp(word[0], "scaled")) continue;
    const bool nv = !strcmp(word[1], "nvfp4");
    const int rows = atoi(word[2]), cols = atoi(word[3]), block = nv ? 16 : 32;
    g_autoptr(GByteArray) codes = from_hex(word[4]), scales = from_hex(word[5]), all = from_hex(word[6]);
    g_autofree char *shape = g_strdup_printf("[%d,%d]", rows, nv ? cols / 2 : cols);
    g_autofree char *tiles = g_strdup_printf("[%d,%d]", (rows + 127) / 128 * 128, (cols / block + 3) / 4 * 4);
    const Part parts[] = {{"x.weight", nv ? "U8" : "F8_E4M3", shape, codes->data, codes->len},
                          {"x.weight_scale",
                           nv             ? "F8_E4M3"
                           : matrices % 4 ? "F8_E8M0"
                                          : "U8",
                           tiles, scales->data, scales->len},
                          {"x.weight_scale_2", "F32", "[]", all->data, all->len}};
    g_autoptr(FkComponent) c = open_parts(parts, nv ? 3 : 2);
    const size_t bytes = (size_t)rows * (size_t)cols * sizeof(float);
    g_autofree float *found = g_malloc(bytes);
    g_assert_cmpstr(read_matrix(c, rows, cols, found), ==, NULL);
    g_autofree char *hash = g_compute_checksum_for_data(G_CHECKSUM_SHA256, (const guchar *)found, bytes);
    g_assert_cmpstr(hash, ==, word[7]);
    matrices++;
  }
  g_assert_cmpint(matrices, ==, 6);
}

/* ---- Codes of 8 bits ---- */

static void test_codes(void) {
  static const float rows_scale[4] = {0.25f, 3.1f, 0, 1e-3f};
  static const struct {
    const char *type, *name, *shape;
    int scales;
  } cases[] = {{"F8_E4M3", NULL, NULL, 0},
               {"F8_E5M2", NULL, NULL, 0},
               {"F8_E5M2", "scale_weight", "[]", 1},
               {"F8_E4M3", "weight_scale", "[1,1]", 1},
               {"F8_E4M3", "scale_weight", "[4,1]", 4},
               {"F8_E5M2", "weight_scale", "[4]", 4},
               {"I8", "weight_scale", "[]", 1},
               {"I8", "weight_scale", "[4,1]", 4},
               {"I8", "weight_scale", "[4]", 4}};
  guint8 codes[256];
  for (int i = 0; i < 256; i++) codes[i] = (guint8)(i * 7 + 3);
  for (size_t k = 0; k < G_N_ELEMENTS(cases); k++) {
    g_autofree char *name = g_strconcat("x.", cases[k].name ? cases[k].name : "", NULL);
    const Part parts[] = {{"x.weight", cases[k].type, "[4,64]", codes, sizeof codes},
                          {name, "F32", cases[k].shape, rows_scale, (size_t)cases[k].scales * sizeof(float)}};
    g_autoptr(FkComponent) c = open_parts(parts, cases[k].scales ? 2 : 1);
    float found[256];
    g_assert_cmpstr(read_matrix(c, 4, 64, found), ==, NULL);
    for (int i = 0; i < 256; i++) {
      const float scale = cases[k].scales == 0 ? 1 : rows_scale[cases[k].scales == 4 ? i / 64 : 0];
      const double code = *cases[k].type == 'I'        ? (double)(gint8)codes[i]
                          : strchr(cases[k].type, '5') ? format_value(&format_f16, (guint)codes[i] << 8)
                                                       : format_value(&format_e4m3, codes[i]);
      const float expected = (float)code * scale;
      g_assert_true(isnan(expected) ? isnan(found[i]) : found[i] == expected);
    }
  }
}

/* ---- What does not fit ---- */

static void test_mismatch(void) {
  static const guint8 zeros[65536];
  static const struct {
    const char *type, *shape;
    size_t size;
    const char *name, *scale_type, *scale_shape;
    size_t scale_size;
    const char *text;
  } cases[] = {
      {"U8", "[4,64]", 256, "x.other", "U8", "[1]", 1, "another type of weights, found U8"},
      {"I64", "[4,64]", 2048, "x.other", "U8", "[1]", 1, "found I64"},
      {"F8_E4M3", "[64,4]", 256, "x.other", "U8", "[1]", 1, "expected shape [4,64], found [64,4]"},
      {"F8_E4M3", "[4,64]", 256, "x.weight_scale", "F32", "[2,2]", 16, "one F32 or one of each row"},
      {"F8_E4M3", "[4,64]", 256, "x.weight_scale", "F16", "[]", 2, "expected one F32 or one of each row beside codes"},
      {"BF16", "[4,64]", 512, "x.weight_scale", "F32", "[]", 4, "found F32 of shape [] beside BF16"},
      {"I8", "[4,64]", 256, "x.weight_scale", "F32", "[4,2]", 32, "one F32 or one of each row"},
      {"I8", "[4,64]", 256, "x.weight_scale", "F32", "[64]", 256, "one F32 or one of each row"},
      {"I8", "[4,64]", 256, "x.weight_scale", "F32", "[2,2]", 16, "one F32 or one of each row"},
      {"F8_E4M3", "[4,64]", 256, "x.weight_scale", "F8_E8M0", "[4,2]", 8, "in tiles of 128 x 4"},
      {"F8_E4M3", "[4,64]", 256, "x.weight_scale", "U8", "[256,4]", 1024, "in tiles of 128 x 4"},
      {"F8_E4M3", "[4,64]", 256, "x.weight_scale", "U8", "[512]", 512, "in tiles of 128 x 4"},
      {"F8_E4M3", "[4,64]", 256, "x.weight_scale", "F32", "[]", 4, "expected a positive number, found 0"},
      {"F32", "[4,64]", 1024, "x.weight_scale", "F32", "[0]", 0, "of shape [0] beside F32"},
  };
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    const Part parts[] = {{"x.weight", cases[i].type, cases[i].shape, zeros, cases[i].size},
                          {cases[i].name, cases[i].scale_type, cases[i].scale_shape, zeros, cases[i].scale_size}};
    g_autoptr(FkComponent) c = open_parts(parts, 2);
    float found[256];
    g_autofree char *problem = read_matrix(c, 4, 64, found);
    g_assert_nonnull(problem);
    if (!strstr(problem, cases[i].text)) g_error("case %zu: %s", i, problem);
  }
}

/* A scale that is no number. */
static void test_bad_tiles(void) {
  guint8 codes[256] = {0}, scales[512];
  memset(scales, 0xff, sizeof scales);
  const float one = 1, zero = 0;
  const Part mx[] = {{"x.weight", "F8_E4M3", "[4,64]", codes, 256}, {"x.weight_scale", "U8", "[128,4]", scales, 512}};
  Part nv[] = {{"x.weight", "U8", "[4,32]", codes, 128},
               {"x.weight_scale", "F8_E4M3", "[128,4]", scales, 512},
               {"x.weight_scale_2", "F32", "[]", &one, 4}};
  float found[256];
  for (int i = 0; i < 3; i++) {
    if (i == 2) nv[2].bytes = &zero;
    g_autoptr(FkComponent) c = i ? open_parts(nv, 3) : open_parts(mx, 2);
    g_autofree char *problem = read_matrix(c, 4, 64, found);
    g_assert_true(problem && strstr(problem, "expected a positive number, found"));
  }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  g_test_add_func("/types/blocks", test_blocks);
  g_test_add_func("/types/tiles", test_tiles);
  g_test_add_func("/types/codes", test_codes);
  g_test_add_func("/types/mismatch", test_mismatch);
  g_test_add_func("/types/bad-tiles", test_bad_tiles);
  const int status = g_test_run();
  scratch_close();
  return status;
}
