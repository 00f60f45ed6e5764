/* SPDX-License-Identifier: Apache-2.0 */
/* A packed model whose header has a sum that is right: refused, or every byte of it is held against a sum, in any order
 * of pieces, and files inside are files. */
#include "fuzz.h"

#include "file.h"
#include "pack.h"
#include "packing.h"

/* The digits that the header would have been written with. */
static void mend(uint8_t *bytes, size_t size) {
  uint64_t length = 0;
  char digits[17];
  if (size < 8) return;
  memcpy(&length, bytes, 8);
  length = GUINT64_FROM_LE(length);
  if (length > size - 8) return;
  char *found = g_strstr_len((char *)bytes + 8, (gssize)length, FK_PACK_HEADER);
  if (!found || (size_t)(found - (char *)bytes) + strlen(FK_PACK_HEADER) + 16 > length + 8) return;
  memset(found + strlen(FK_PACK_HEADER), '0', 16);
  g_snprintf(digits, sizeof digits, "%016" G_GINT64_MODIFIER "x", (guint64)fk_sum(bytes, 8 + length));
  memcpy(found + strlen(FK_PACK_HEADER), digits, 16);
}

/* True: read to the end. */
static bool read_tensor(const FkPack *pack, const FkStTensor *t, const uint64_t *sums, uint64_t from, size_t piece) {
  g_autoptr(GError) error = NULL;
  g_autofree char *bytes = g_malloc(t->bytes + 1);
  FkPackReading r;
  bool ok = fk_pack_begin(&r, fk_pack_file(pack), t, sums, from, &error);
  for (uint64_t at = from; ok && at < t->bytes; at += piece)
    ok = fk_pack_next(&r, bytes + at, MIN(piece, t->bytes - at), &error);
  ok = ok && fk_pack_end(&r, &error);
  fuzz_check(error, ok);
  return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char *const names[] = {"model_index.json", "vae/config.json", "", "../x"};
  static FuzzFile file;
  if (!file.path) file = fuzz_file(fuzz_folder(), "m.pack");
  g_autofree uint8_t *bytes = g_memdup2(data, size + !size);
  if (size) mend(bytes, size);
  fuzz_write(&file, bytes, size);
  g_autoptr(FkOptions) options = fk_options_new();
  fk_packing_adopt(options, file.path);
  for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
    g_autoptr(GError) error = NULL;
    g_autofree char *path = g_strconcat(file.path, "/", names[i], NULL);
    size_t n;
    g_autofree char *text = fk_file_load(path, FK_PACK_LARGEST_FILE, &n, &error);
    fuzz_check(error, text != NULL);
  }
  g_autoptr(GError) error = NULL;
  g_autoptr(FkPack) pack = fk_pack_open(file.path, &error);
  fuzz_check(error, pack != NULL);
  if (!pack) return 0;
  for (size_t i = 0; i < fk_safetensors_count(fk_pack_file(pack)); i++) {
    const FkStTensor *t = fk_safetensors_at(fk_pack_file(pack), i);
    const uint64_t *sums;
    g_autoptr(GError) other = NULL;
    if (!fk_pack_find(pack, t->name, t->bytes, &sums, &other)) continue; /* not of bytes */
    const bool whole = read_tensor(pack, t, sums, 0, t->bytes + 1);
    g_assert_true(read_tensor(pack, t, sums, t->bytes / 3, 1 + t->bytes / 5) == whole || !t->bytes);
  }
  return 0;
}
