/* SPDX-License-Identifier: Apache-2.0 */
/* The demo checkpoint's transformer and T5 in other forms of numbers, as coded-model.py writes them. Include
 * test-files.h first. */
#ifndef FK_CODED_FILES_H
#define FK_CODED_FILES_H

static char *coded_folder; /* coded_make .. coded_clear, within scratch_open .. scratch_close */

static inline void coded_make(const char *const *forms, size_t n) {
  g_autoptr(GPtrArray) command = g_ptr_array_new();
  coded_folder = scratch_path("made");
  const char *const words[] = {"python3", FK_CODED_MODEL, FK_DEMO_MODEL, coded_folder};
  for (size_t i = 0; i < G_N_ELEMENTS(words); i++) g_ptr_array_add(command, (gpointer)words[i]);
  for (size_t i = 0; i < n; i++) g_ptr_array_add(command, (gpointer)forms[i]);
  g_ptr_array_add(command, NULL);
  int status = 1;
  if (!g_spawn_sync(NULL, (char **)command->pdata, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, &status, NULL) ||
      status)
    g_error("coded-model.py failed");
}

static inline void coded_clear(void) {
  g_clear_pointer(&coded_folder, g_free);
}

/* FORM-PART in whichever container it was written. (transfer full) */
static inline char *coded_file(const char *form, const char *part) {
  char *path = g_strdup_printf("%s/%s-%s.gguf", coded_folder, form, part);
  if (g_file_test(path, G_FILE_TEST_EXISTS)) return path;
  g_free(path);
  return g_strdup_printf("%s/%s-%s.safetensors", coded_folder, form, part);
}

/* On the CPU unless pairs, name and value after each other up to NULL, say otherwise; NULL: none. (transfer full) */
static inline FkOptions *coded_options(const char *form, const char *const *pairs) {
  FkOptions *options = fk_options_new();
  g_autofree char *flux = coded_file(form, "flux"), *t5 = coded_file(form, "t5");
  fk_options_set(options, "backend", "cpu", NULL);
  g_assert_true(fk_options_set(options, "model-path", flux, NULL));
  g_assert_true(fk_options_set(options, "t5-path", t5, NULL));
  fk_options_set(options, "clip-path", FK_DEMO_MODEL, NULL);
  fk_options_set(options, "vae-path", FK_DEMO_MODEL, NULL);
  fk_options_set(options, "tokenizer-path", FK_DEMO_MODEL, NULL);
  for (; pairs && *pairs; pairs += 2) g_assert_true(fk_options_set(options, pairs[0], pairs[1], NULL));
  return options;
}

#endif
