/* SPDX-License-Identifier: Apache-2.0 */
/* A safetensors file: refused, or all of its tensors can be found and read. */
#include "fuzz.h"

#include "component.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static FuzzFile file;
  if (!file.path) file = fuzz_file(fuzz_folder(), "m.safetensors");
  fuzz_write(&file, data, size);
  g_autoptr(GError) error = NULL;
  g_autoptr(FkComponent) component = fk_component_open(fuzz_folder(), "m", &error);
  fuzz_check(error, component != NULL);
  if (!component) return 0;
  const FkSafetensors *shard = fk_component_shard(component, 0), *found_in = NULL;
  for (size_t i = 0; i < fk_safetensors_count(shard); i++) {
    const FkStTensor *t = fk_safetensors_at(shard, i);
    g_assert_true(fk_component_find(component, t->name, &found_in) == t && found_in == shard);
    g_assert_true(t->begin <= size && t->bytes <= size - t->begin);
    g_autofree char *bytes = g_malloc(t->bytes + 1);
    g_autofree char *shape = fk_st_shape_text(t->dim, t->rank);
    g_assert_cmpuint(strlen(shape), <=, 200);
    g_assert_true(fk_safetensors_read(shard, t, 0, bytes, t->bytes, &error));
  }
  return 0;
}
