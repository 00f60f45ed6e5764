/* SPDX-License-Identifier: Apache-2.0 */
/* One network on the CPU backend, with an arena, for the stage tests. */
#ifndef TEST_STAGE_H
#define TEST_STAGE_H

#include "test-npy.h"
#include "weights.h"

#include <string.h>

typedef struct {
  FkBackend *be;
  FkArena arena;
  FkComponent *component;
  FkBinder *binder;
} Stage;

/* folder: below the demo checkpoint, or an absolute path. */
static inline Stage stage_open(const char *folder, const char *stem) {
  char message[256] = "";
  FkFailure failure;
  g_autoptr(GError) error = NULL;
  g_autofree char *path = g_path_is_absolute(folder) ? g_strdup(folder) : g_build_filename(FK_DEMO_MODEL, folder, NULL);
  Stage s = {.be = fk_backend_open("cpu", 0, 0, &failure, message, sizeof message)};
  if (!s.be) g_error("%s", message);
  g_assert_true(fk_arena_open(&s.arena, s.be, 256u << 20));
  s.component = fk_component_open(path, stem, &error);
  g_assert_no_error(error);
  FkNames names = {0};
  FkPart part = strcmp(stem, "model") ? FK_PART_FLUX : strstr(folder, "_2") ? FK_PART_T5 : FK_PART_CLIP;
  size_t n;
  const FkNameTable *tables = fk_name_tables(part, &n);
  names.part[part] = (FkNamesPart){s.component, fk_names_detect(part, s.component, tables, n)};
  s.binder = fk_binder_new(s.be, NULL, &names, part);
  return s;
}

/* After the network's init. */
static inline void stage_load(Stage *s) {
  g_autoptr(GError) error = NULL;
  fk_binder_finish(s->binder, &error);
  g_assert_no_error(error);
  fk_binder_load(s->binder, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
}

static inline void stage_close(Stage *s) {
  fk_binder_free(s->binder);
  fk_component_free(s->component);
  fk_arena_close(&s->arena);
  fk_backend_close(s->be);
}

static inline FkTensor stage_upload(Stage *s, const float *data, int64_t rows, int64_t cols) {
  FkTensor t = fk_arena_2d(&s->arena, FK_F32, rows, cols);
  fk_backend_sync(s->be);
  s->be->ops->upload(s->be, t.data, data, fk_tensor_bytes(t));
  return t;
}

static inline float *stage_download(Stage *s, FkTensor t) {
  float *out = g_new(float, (size_t)fk_tensor_count(t));
  g_assert_true(fk_backend_sync(s->be));
  s->be->ops->download(s->be, out, t.data, fk_tensor_bytes(t));
  return out;
}

#endif
