/* SPDX-License-Identifier: Apache-2.0 */
/* Packed models: the bytes of an edit are those of the folder it was made of, in every form; every damaged byte and
 * every shorter file is told; one of other forms is refused with what is wrong. */
#include "backend.h"
#include "model.h"
#include "pack.h"
#include "sum.h"
#include "test-files.h"

static char *packed(const char *name, int bytes_per_value, const char *const *pairs) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  char *path = scratch_path(name);
  fk_options_set(options, "model-path", FK_DEMO_MODEL, NULL);
  for (; pairs && *pairs; pairs += 2) g_assert_true(fk_options_set(options, pairs[0], pairs[1], NULL));
  fk_pack(options, bytes_per_value, path, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_autofree char *part = g_strconcat(path, ".part", NULL);
  g_assert_false(g_file_test(part, G_FILE_TEST_EXISTS));
  return path;
}

static FkEngine *open_engine(const char *model, const char *const *pairs, GError **error) {
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "model-path", model, NULL);
  fk_options_set(options, "backend", "cpu", NULL);
  for (; pairs && *pairs; pairs += 2) g_assert_true(fk_options_set(options, pairs[0], pairs[1], NULL));
  return fk_engine_open(options, NULL, NULL, NULL, error);
}

/* SHA-256 of an edit. (transfer full) */
static char *edited(const char *model, const char *const *pairs) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkEngine) engine = open_engine(model, pairs, &error);
  g_assert_no_error(error);
  g_autoptr(FkSettings) s = fk_settings_new();
  static uint8_t in[64 * 64 * 3], out[64 * 64 * 3];
  fk_settings_set(s, "prompt", "make it night", NULL);
  fk_settings_set(s, "steps", "2", NULL);
  fk_settings_set(s, "max-area", "4096", NULL);
  for (size_t i = 0; i < sizeof in; i++) in[i] = (uint8_t)(i * 7 + i / 191);
  FkJob job = {.in = {in, 64, 64, 3, 192}, .out = {out, 64, 64, 3, 192}, .settings = s};
  fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  return g_compute_checksum_for_data(G_CHECKSUM_SHA256, out, sizeof out);
}

static const char *const fp8[] = {"quantization", "fp8", "text-quantization", "fp8", NULL};
static const char *const modulations[] = {"modulation-quantization", "fp8", NULL};
static const char *const dithered[] = {"quantization", "mxfp4", "weight-dither", "on", NULL};
static const char *const twins[] = {"quantization", "fp8", "precision-first", "1", NULL};

/* What it was made with need not be said again; it may be. */
static void same_bytes(void) {
  static const struct {
    const char *name, *const *pairs;
  } forms[] = {{"plain", NULL}, {"fp8", fp8}, {"modulations", modulations}, {"dithered", dithered}, {"twins", twins}};
  for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
    g_autofree char *path = packed(forms[i].name, 4, forms[i].pairs);
    g_autofree char *folder = edited(FK_DEMO_MODEL, forms[i].pairs), *file = edited(path, forms[i].pairs);
    g_autofree char *silent = edited(path, NULL);
    g_test_message("%s: %s", forms[i].name, folder);
    g_assert_cmpstr(file, ==, folder);
    if (forms[i].pairs != twins) g_assert_cmpstr(silent, ==, folder);
  }
}

/* Two files of one model are equal; the header has what it was made of. */
static void stable(void) {
  g_autofree char *a = packed("a", 2, NULL), *b = packed("b", 2, NULL), *x = NULL, *y = NULL;
  gsize n = 0, m = 0;
  g_assert_true(g_file_get_contents(a, &x, &n, NULL) && g_file_get_contents(b, &y, &m, NULL));
  g_assert_cmpmem(x, n, y, m);
  g_autoptr(FkPack) pack = fk_pack_open(a, NULL);
  g_assert_nonnull(pack);
  g_assert_nonnull(strstr(fk_pack_text(pack, "sources"), " transformer/config.json\n"));
  g_assert_cmpstr(fk_pack_text(pack, "values"), ==, "bfloat16");
  g_assert_cmpstr(fk_pack_text(pack, "options"), ==, "quantization=none\ntext-quantization=none\n");
  g_assert_cmpstr(fk_pack_text(pack, "nothing"), ==, "");
}

/* One error that names the file, and what is wrong with it. */
static void refused(void) {
  g_autoptr(GError) error = NULL;
  g_autofree char *narrow = packed("narrow", 2, NULL), *coded = packed("coded", 4, fp8);
  g_assert_null(open_engine(narrow, NULL, &error));
  assert_error(error, FK_ERROR_MODEL_MISMATCH, narrow, "expected values in float32");
  static const struct {
    const char *const pairs[7], *asked;
  } others[] = {{{"quantization", "none"}, "quantization=none text-quantization=fp8, which"},
                {{"quantization", "mxfp4", "weight-dither", "on", "modulation-quantization", "fp8"},
                 "quantization=mxfp4 text-quantization=fp8 modulation-quantization=fp8 weight-dither=on, which"},
                {{"text-quantization", "none", "precision-last", "1"},
                 "quantization=fp8 text-quantization=none and precision-first or precision-last above 0, which"}};
  for (size_t i = 0; i < G_N_ELEMENTS(others); i++) {
    g_autofree char *says = g_strdup_printf("expected the memory layout of %s", others[i].asked);
    g_assert_null(open_engine(coded, others[i].pairs, &error));
    g_assert_nonnull(strstr(error->message, "found that of quantization=fp8 text-quantization=fp8, by version "));
    assert_error(error, FK_ERROR_MODEL_MISMATCH, coded, says);
  }
  g_autofree char *text = write_text("text", "no model");
  g_assert_null(open_engine(text, NULL, &error));
  assert_error(error, FK_ERROR_MODEL_BAD, text, "safetensors");
  g_autoptr(FkOptions) options = fk_options_new();
  g_assert_false(fk_pack(options, 4, "/nowhere/x", NULL, NULL, NULL, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "model-path", "folder or file");
  fk_options_set(options, "model-path", FK_DEMO_MODEL, NULL);
  g_assert_false(fk_pack(options, 3, "/nowhere/x", NULL, NULL, NULL, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "2 or 4", "found 3");
  g_assert_false(fk_pack(options, 4, "/nowhere/x", NULL, NULL, NULL, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "/nowhere/x", "cannot be made");
}

/* The model with its weights, as an engine opens and loads it. NULL with the error. */
static FkModel *load(const char *path, FkBackend *be, GError **error) {
  FkModel *m = fk_model_open(path, be, NULL, true, error);
  if (m && fk_model_load(m, NULL, NULL, NULL, error)) return m;
  fk_model_free(m);
  return NULL;
}

/* Whatever one byte becomes, wherever it is, there is an error and nothing else; a repaired file opens. */
static void damaged(void) {
  g_autofree char *path = packed("damaged", 4, NULL), *bytes = NULL;
  gsize n;
  char message[256];
  FkFailure failure;
  FkBackend *be = fk_backend_open("cpu", 0, 1, &failure, message, sizeof message);
  g_assert_true(g_file_get_contents(path, &bytes, &n, NULL));
  guint64 length = 0;
  memcpy(&length, bytes, 8);
  const gsize header = 8 + GUINT64_FROM_LE(length);
  int opened = 0;
  for (int i = 0; i < 400; i++) {
    /* Half of them in the header, of these the first forty at its begin. */
    const gsize at = i < 40    ? (gsize)i
                     : i < 200 ? (gsize)g_test_rand_int_range(0, (gint32)header)
                               : (gsize)g_test_rand_int_range((gint32)header, (gint32)n);
    const char bit = (char)(1 << g_test_rand_int_range(0, 8));
    g_autoptr(GError) error = NULL;
    FILE *file = g_fopen(path, "r+b");
    fseek(file, (long)at, SEEK_SET);
    fputc(bytes[at] ^ bit, file);
    fclose(file);
    FkModel *m = load(path, be, &error);
    /* Zeros between the parts are not read. */
    const bool gap = m != NULL && bytes[at] == 0;
    if (m && !gap) g_error("byte %zu, bit %02x: opened", at, (unsigned char)bit);
    if (!m) g_assert_true(error && error->domain == FK_ERROR && strlen(error->message) < 2000);
    opened += gap;
    fk_model_free(m);
    file = g_fopen(path, "r+b");
    fseek(file, (long)at, SEEK_SET);
    fputc(bytes[at], file);
    fclose(file);
  }
  g_test_message("%d of 400 in zeros between the parts", opened);
  g_assert_cmpint(opened, <, 60);
  g_autoptr(GError) error = NULL;
  FkModel *m = load(path, be, &error);
  g_assert_no_error(error);
  fk_model_free(m);
  fk_backend_close(be);
}

/* Every length of the beginning, and of the rest at every 997th byte and the last ones. */
static void truncated(void) {
  g_autofree char *path = packed("short", 4, NULL), *bytes = NULL;
  gsize n;
  char message[256];
  FkFailure failure;
  FkBackend *be = fk_backend_open("cpu", 0, 1, &failure, message, sizeof message);
  g_assert_true(g_file_get_contents(path, &bytes, &n, NULL));
  for (gsize size = n - 1; size > 0; size = size > n - 9 || size < 200 ? size - 1 : MAX(199, size - MIN(size, 99991))) {
    g_autoptr(GError) error = NULL;
    g_assert_cmpint(truncate(path, (off_t)size), ==, 0);
    FkModel *m = load(path, be, &error);
    g_assert_null(m);
    g_assert_true(error && error->domain == FK_ERROR);
  }
  fk_backend_close(be);
}

/* A header that says other things, with its sum made right: nothing is read beyond what there is. */
static void hostile(void) {
  static const char *const headers[] = {
      FK_PACK_BEGIN "\"" FK_PACK_FORMAT "\",\"fluxkontext.sums\":\"\"," FK_PACK_HEADER "0000000000000000\"}}",
      FK_PACK_BEGIN "\"" FK_PACK_FORMAT "\",\"fluxkontext.sums\":\"zz\"," FK_PACK_HEADER "0000000000000000\"}}",
      FK_PACK_BEGIN "\"2\",\"fluxkontext.version\":\"0.1\"," FK_PACK_HEADER "0000000000000000\"}}",
      FK_PACK_BEGIN "\"" FK_PACK_FORMAT "\"}}",
      FK_PACK_BEGIN "\"" FK_PACK_FORMAT "\"," FK_PACK_HEADER "\"}}",
      FK_PACK_BEGIN "\"" FK_PACK_FORMAT "\",\"fluxkontext.sums\":\"\"," FK_PACK_HEADER "0000000000000000\"},"
                    "\"files/model_index.json\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
      FK_PACK_BEGIN "\"" FK_PACK_FORMAT "\",\"fluxkontext.sums\":\"0123456789abcdef\"," FK_PACK_HEADER
                    "0000000000000000\"},"
                    "\"files/model_index.json\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
      FK_PACK_BEGIN "\"" FK_PACK_FORMAT "\",\"fluxkontext.sums\":\"\"," FK_PACK_HEADER "0000000000000000\"},"
                    "\"files/model_index.json\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}"};
  char message[256];
  FkFailure failure;
  FkBackend *be = fk_backend_open("cpu", 0, 1, &failure, message, sizeof message);
  for (size_t i = 0; i < G_N_ELEMENTS(headers); i++) {
    g_autoptr(GError) error = NULL;
    const bool data = strstr(headers[i], "data_offsets");
    g_autoptr(GByteArray) file = safetensors_bytes(headers[i], strlen(headers[i]), "{}{}", data ? 4 : 0);
    char *digits = g_strstr_len((char *)file->data + 8, (gssize)file->len - 8, FK_PACK_HEADER "0");
    const size_t header = 8 + strlen(headers[i]);
    g_autofree char *sum = g_strdup_printf("%016" G_GINT64_MODIFIER "x", (guint64)fk_sum(file->data, header));
    if (digits) memcpy(digits + strlen(FK_PACK_HEADER), sum, 16);
    g_autofree char *path = write_bytes("hostile", file->data, file->len);
    g_assert_null(load(path, be, &error));
    g_test_message("%s", error->message);
    g_assert_true(error->domain == FK_ERROR);
  }
  fk_backend_close(be);
}

/* A sum sees each bit, and the length, and not how its bytes were cut. */
static void sums(void) {
  static const size_t sizes[] = {0, 1, 3, 4, 5, 100, 255, 256, 257, 511, 512, 700};
  unsigned char bytes[700];
  for (size_t k = 0; k < G_N_ELEMENTS(sizes); k++) {
    const size_t n = sizes[k];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)(i * 31);
    const uint64_t sum = fk_sum(bytes, n);
    if (n) g_assert_true(fk_sum(bytes, n - 1) != sum);
    for (size_t bit = 0; bit < 8 * n; bit++) {
      bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
      g_assert_true(fk_sum(bytes, n) != sum);
      bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    for (size_t cut = 0; cut <= n; cut++) {
      FkSum s;
      fk_sum_begin(&s);
      fk_sum_add(&s, bytes, cut);
      fk_sum_add(&s, bytes + cut, (n - cut) / 2);
      fk_sum_add(&s, bytes + cut + (n - cut) / 2, n - cut - (n - cut) / 2);
      g_assert_true(fk_sum_end(&s) == sum);
    }
  }
}

/* Part of the format: written down by hand in another language. */
static void sum_values(void) {
  unsigned char bytes[1000];
  for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)(i * i >> 3);
  g_assert_cmphex(fk_sum(bytes, 0), ==, 0x83eb2e8a784af69cu);
  g_assert_cmphex(fk_sum(bytes, 256), ==, 0x19707a472676a4b3u);
  g_assert_cmphex(fk_sum(bytes, sizeof bytes), ==, 0xe6ab1cdb736fc939u);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  g_test_add_func("/pack/sums", sums);
  g_test_add_func("/pack/sum-values", sum_values);
  g_test_add_func("/pack/same-bytes", same_bytes);
  g_test_add_func("/pack/stable", stable);
  g_test_add_func("/pack/refused", refused);
  g_test_add_func("/pack/damaged", damaged);
  g_test_add_func("/pack/truncated", truncated);
  g_test_add_func("/pack/hostile", hostile);
  const int status = g_test_run();
  scratch_close();
  return status;
}
