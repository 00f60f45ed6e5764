/* SPDX-License-Identifier: Apache-2.0 */
/* A GGUF file: refused, or all of its tensors can be found, read and made numbers. */
#include "fuzz.h"

#include "component.h"
#include "numbers.h"

/* As the loader would read a weight of this name and shape. */
static void expand(const FkComponent *c, const FkStTensor *t) {
  size_t n;
  const FkNames names = {.part[FK_PART_VAE] = {c, fk_name_tables(FK_PART_VAE, &n), NULL}};
  FkSource s;
  int64_t cols = 1;
  if (!t->rank || !fk_names_find(&names, FK_PART_VAE, t->name, &s)) return;
  for (int i = 1; i < t->rank; i++) cols *= t->dim[i];
  g_autofree char *problem = fk_numbers_check(&s, t->dim, t->rank);
  if (problem || !fk_numbers_coded(&s) || cols > 1 << 20) return;
  g_autoptr(GError) error = NULL;
  g_autoptr(FkNumbers) numbers = fk_numbers_begin(&s, cols, 0, t->dim[0], &error);
  g_autofree float *row = g_new(float, (gsize)cols);
  if (numbers) fk_numbers_rows(numbers, t->dim[0] - 1, 1, row, &error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static FuzzFile file;
  if (!file.path) file = fuzz_file(fuzz_folder(), "m.gguf");
  fuzz_write(&file, data, size);
  g_autoptr(GError) error = NULL;
  g_autoptr(FkComponent) component = fk_component_open_file(file.path, &error);
  fuzz_check(error, component != NULL);
  if (!component) return 0;
  const FkSafetensors *shard = fk_component_shard(component, 0);
  for (size_t i = 0; i < fk_safetensors_count(shard); i++) {
    const FkStTensor *t = fk_safetensors_at(shard, i);
    g_assert_true(fk_safetensors_find(shard, t->name) == t);
    g_assert_true(t->begin <= size && t->bytes <= size - t->begin);
    g_autofree char *bytes = g_malloc(t->bytes + 1);
    g_assert_true(fk_safetensors_read(shard, t, 0, bytes, t->bytes, &error));
    expand(component, t);
  }
  return 0;
}
