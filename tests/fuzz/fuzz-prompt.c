/* SPDX-License-Identifier: Apache-2.0 */
/* A prompt for both tokenizers: refused when it is not UTF-8, else ids in range of which fewer are a prefix. */
#include "fuzz.h"

#include "tokenizer.h"

enum { LONG = 512, SHORT = 24 };

/* cut: the few ids are not all, and the last of them is the end. */
static void check(const int32_t *ids, const int32_t *few, gboolean cut, int rows) {
  const gsize same = cut ? SHORT - 1 : SHORT;
  for (int i = 0; i < LONG; i++) g_assert_true(ids[i] >= 0 && ids[i] < rows);
  g_assert_cmpmem(ids, same * sizeof *ids, few, same * sizeof *few);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static FkClipTokenizer *clip;
  static FkT5Tokenizer *t5;
  if (!clip) clip = fk_clip_tokenizer_open(FK_DEMO_MODEL "/tokenizer", NULL);
  if (!t5) t5 = fk_t5_tokenizer_open(FK_DEMO_MODEL "/tokenizer_2", NULL);
  g_assert_true(clip && t5);
  g_autofree char *text = g_strndup((const char *)data, size);
  const gboolean valid = g_utf8_validate(text, -1, NULL);
  for (int i = 0; i < 2; i++) {
    g_autoptr(GError) error = NULL;
    int32_t ids[LONG], few[SHORT];
    bool cut, cut_few;
    const gboolean taken = i ? fk_t5_tokenizer_encode(t5, text, LONG, ids, &cut, &error)
                             : fk_clip_tokenizer_encode(clip, text, LONG, ids, &cut, &error);
    fuzz_check(error, taken);
    g_assert_true(taken == valid);
    if (!taken) continue;
    g_assert_true(i ? fk_t5_tokenizer_encode(t5, text, SHORT, few, &cut_few, &error)
                    : fk_clip_tokenizer_encode(clip, text, SHORT, few, &cut_few, &error));
    g_assert_true(cut_few || !cut);
    check(ids, few, cut_few, i ? fk_t5_tokenizer_rows(t5) : fk_clip_tokenizer_rows(clip));
  }
  return 0;
}
