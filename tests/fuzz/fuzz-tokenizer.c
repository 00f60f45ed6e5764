/* SPDX-License-Identifier: Apache-2.0 */
/* The files of the two tokenizer folders. The first byte says which one changes; the others are the demo checkpoint's,
 * but for a small spiece.model beside T5's JSON files. What is taken encodes prompts to ids in range. */
#include "fuzz.h"

#include "tokenizer.h"

static const struct {
  gboolean clip;
  const char *name;
} files[] = {{TRUE, "vocab.json"},
             {TRUE, "merges.txt"},
             {TRUE, "tokenizer_config.json"},
             {TRUE, "special_tokens_map.json"},
             {TRUE, "tokenizer.json"},
             {FALSE, "spiece.model"},
             {FALSE, "tokenizer_config.json"},
             {FALSE, "special_tokens_map.json"},
             {FALSE, "tokenizer.json"}};
enum { FILES = G_N_ELEMENTS(files) };

static struct {
  char *folder[FILES];
  FuzzFile file[FILES];
} all;

static void open_all(void) {
  static const char *const clip[] = {"vocab.json", "merges.txt"};
  for (int i = 0; i < FILES; i++) {
    g_autofree char *number = g_strdup_printf("%d", i);
    all.folder[i] = g_build_filename(fuzz_folder(), number, NULL);
    all.file[i] = fuzz_file(all.folder[i], files[i].name);
    for (guint k = 0; files[i].clip && k < G_N_ELEMENTS(clip); k++) {
      g_autofree char *demo = g_build_filename(FK_DEMO_MODEL, "tokenizer", clip[k], NULL);
      if (strcmp(files[i].name, clip[k])) fuzz_link(all.folder[i], clip[k], demo);
    }
    if (!files[i].clip && strcmp(files[i].name, "spiece.model"))
      fuzz_link(all.folder[i], "spiece.model", FK_FUZZ_DATA "/small-spiece.model");
  }
}

static const char *const prompts[] = {"", "Make it ²́ night, don't ＜pad＞ été 日本! <|endoftext|></s><extra_id_0>",
                                      "aaaaaaaaaa"};
enum { LENGTH = 24 };

static void check_ids(const int32_t *ids, int rows) {
  for (int i = 0; i < LENGTH; i++) g_assert_true(ids[i] >= -1 && ids[i] < rows);
}

static void try_clip(const char *folder) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkClipTokenizer) tokenizer = fk_clip_tokenizer_open(folder, &error);
  fuzz_check(error, tokenizer != NULL);
  for (guint i = 0; tokenizer && i < G_N_ELEMENTS(prompts); i++) {
    int32_t ids[LENGTH];
    g_assert_true(fk_clip_tokenizer_encode(tokenizer, prompts[i], LENGTH, ids, NULL, &error));
    check_ids(ids, fk_clip_tokenizer_rows(tokenizer));
  }
}

static void try_t5(const char *folder) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkT5Tokenizer) tokenizer = fk_t5_tokenizer_open(folder, &error);
  fuzz_check(error, tokenizer != NULL);
  for (guint i = 0; tokenizer && i < G_N_ELEMENTS(prompts); i++) {
    int32_t ids[LENGTH];
    g_assert_true(fk_t5_tokenizer_encode(tokenizer, prompts[i], LENGTH, ids, NULL, &error));
    check_ids(ids, fk_t5_tokenizer_rows(tokenizer));
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1) return 0;
  if (!all.folder[0]) open_all();
  const unsigned which = data[0] % FILES;
  fuzz_write(&all.file[which], data + 1, size - 1);
  (files[which].clip ? try_clip : try_t5)(all.folder[which]);
  return 0;
}
