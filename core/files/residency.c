/* SPDX-License-Identifier: Apache-2.0 */
/* Groups of weights and the memory they are in; see residency.h. */
#include "residency.h"

#include "fk-error.h"

static void clear_group(gpointer group) {
  g_free(((FkGroup *)group)->name);
}

static size_t aligned(size_t bytes) {
  return (bytes + FK_WEIGHT_ALIGN - 1) / FK_WEIGHT_ALIGN * FK_WEIGHT_ALIGN;
}

void fk_store_init(FkStore *s, FkBackend *be) {
  FkGroup unnamed = {.name = g_strdup("")};
  *s = (FkStore){.be = be, .groups = g_array_new(FALSE, FALSE, sizeof(FkGroup))};
  g_array_set_clear_func(s->groups, clear_group);
  g_array_append_val(s->groups, unnamed);
}

void fk_store_clear(FkStore *s) {
  fk_store_release(s);
  g_clear_pointer(&s->groups, g_array_unref);
}

void fk_store_group(FkStore *s, const char *name) {
  FkGroup group = {.name = g_strdup(name), .at = aligned(s->bytes)};
  assert(!s->memory);
  if (!s->bytes) g_array_set_size(s->groups, 0); /* nothing is in the one without a name */
  g_array_append_val(s->groups, group);
}

size_t fk_store_place(FkStore *s, size_t bytes) {
  FkGroup *group = &g_array_index(s->groups, FkGroup, s->groups->len - 1);
  const size_t at = aligned(s->bytes);
  assert(!s->memory);
  s->bytes = at + bytes;
  group->bytes = s->bytes - group->at;
  return at;
}

bool fk_store_alloc(FkStore *s, const char *what, GError **error) {
  size_t free_bytes = 0, total_bytes = 0;
  assert(!s->memory);
  s->memory = s->be->ops->alloc(s->be, s->bytes);
  if (s->memory) return true;
  s->be->ops->memory(s->be, &free_bytes, &total_bytes);
  /* A limit of the process or a hole too small may refuse what there is enough of: then the number says nothing. */
  g_autofree char *have = free_bytes < s->bytes ? g_strdup_printf("; %zu are free", free_bytes) : NULL;
  g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: an allocation of %zu bytes on %s was refused%s", what, s->bytes,
              s->be->machine, have ? have : "");
  return false;
}

void fk_store_release(FkStore *s) {
  if (s->memory) s->be->ops->release(s->be, s->memory);
  s->memory = NULL;
}
