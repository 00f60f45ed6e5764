/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON files of a checkpoint folder. The first byte says which one: a configuration, of which the other seven are
 * the demo checkpoint's, or the index of a part in two files. What is taken is planned, tiles included, so that every
 * number meets the shapes that follow from it. */
#include "fuzz.h"

#include "component.h"
#include "config.h"
#include "fk.h"

static const char *const names[] = {"model_index.json",
                                    "transformer/config.json",
                                    "vae/config.json",
                                    "text_encoder/config.json",
                                    "text_encoder_2/config.json",
                                    "scheduler/scheduler_config.json",
                                    "tokenizer/tokenizer_config.json",
                                    "tokenizer_2/tokenizer_config.json"};
enum { CONFIGS = G_N_ELEMENTS(names) };

static struct {
  char *folder[CONFIGS + 1];
  FuzzFile file[CONFIGS + 1]; /* the one that changes in each folder */
} all;

static void write_shard(const char *folder, const char *name, const char *tensor) {
  g_autofree char *header = g_strdup_printf("{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", tensor);
  g_autoptr(GByteArray) bytes = g_byte_array_new();
  const guint64 length = GUINT64_TO_LE((guint64)strlen(header));
  g_byte_array_append(bytes, (const guint8 *)&length, sizeof length);
  g_byte_array_append(bytes, (const guint8 *)header, (guint)strlen(header) + 1); /* the NUL is the data */
  const FuzzFile file = fuzz_file(folder, name);
  fuzz_write(&file, bytes->data, bytes->len);
  g_free(file.path);
}

static void open_all(void) {
  for (int i = 0; i < CONFIGS; i++) {
    g_autofree char *number = g_strdup_printf("%d", i);
    all.folder[i] = g_build_filename(fuzz_folder(), number, NULL);
    for (int k = 0; k < CONFIGS; k++) {
      g_autofree char *demo = g_build_filename(FK_DEMO_MODEL, names[k], NULL);
      if (k != i) fuzz_link(all.folder[i], names[k], demo);
    }
    all.file[i] = fuzz_file(all.folder[i], names[i]);
  }
  all.folder[CONFIGS] = g_build_filename(fuzz_folder(), "part", NULL);
  all.file[CONFIGS] = fuzz_file(all.folder[CONFIGS], "m.safetensors.index.json");
  write_shard(all.folder[CONFIGS], "1", "a");
  write_shard(all.folder[CONFIGS], "2", "b");
}

static void try_index(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkComponent) component = fk_component_open(all.folder[CONFIGS], "m", &error);
  fuzz_check(error, component != NULL);
  g_assert_true(!component || fk_component_shards(component) == 2 || fk_component_shards(component) == 1);
}

static void try_config(const char *folder) {
  FkConfig c;
  FkPlan plan;
  g_autoptr(GError) error = NULL;
  const gboolean taken = fk_config_load(&c, folder, &error);
  fuzz_check(error, taken);
  if (!taken) return;
  g_assert_true(c.vae.layers_per_block >= 1 && c.vae.layers_per_block < FK_VAE_MAX_RESNETS);
  g_assert_true(c.clip.max_tokens >= 2 && c.clip.max_tokens <= c.clip.positions && c.t5.max_tokens >= 2);
  FkSettings *settings = fk_settings_new();
  g_assert_true(fk_settings_set(settings, "steps", "1", NULL) && fk_settings_set(settings, "vae-tiling", "on", NULL) &&
                fk_settings_set(settings, "max-area", "12288", NULL));
  const gboolean planned = fk_plan(folder, NULL, settings, 96, 128, 4, &plan, &error);
  fuzz_check(error, planned);
  fk_settings_free(settings);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1) return 0;
  if (!all.folder[0]) open_all();
  const unsigned which = data[0] % (CONFIGS + 1u);
  fuzz_write(&all.file[which], data + 1, size - 1);
  if (which == CONFIGS)
    try_index();
  else
    try_config(all.folder[which]);
  return 0;
}
