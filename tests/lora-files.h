/* SPDX-License-Identifier: Apache-2.0 */
/* Adapters' files for tests: tensors put together by name and written as safetensors. Include test-files.h first. */
#ifndef FK_LORA_FILES_H
#define FK_LORA_FILES_H

#include "number.h"

typedef struct {
  GString *header;
  GByteArray *data;
  const char *type; /* of tensors from now on: "F32", "F16", "BF16", "F8_E4M3" */
} LoraFile;

static inline LoraFile lora_file_new(void) {
  return (LoraFile){g_string_new("{"), g_byte_array_new(), "F32"};
}

static inline void lora_put_number(LoraFile *f, float value) {
  if (!strcmp(f->type, "F32")) {
    g_byte_array_append(f->data, (const guint8 *)&value, sizeof value);
  } else if (!strcmp(f->type, "F8_E4M3")) {
    const guint8 code = fk_f32_to_e4m3(value);
    g_byte_array_append(f->data, &code, 1);
  } else {
    const guint16 half = strcmp(f->type, "F16") ? fk_f32_to_bf16(value) : fk_f32_to_f16(value);
    g_byte_array_append(f->data, (const guint8 *)&half, sizeof half);
  }
}

/* shape: "[4,256]" */
static inline void lora_put(LoraFile *f, const char *name, const char *shape, const float *values, size_t n) {
  const guint begin = f->data->len;
  for (size_t i = 0; i < n; i++) lora_put_number(f, values[i]);
  g_string_append_printf(f->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%u,%u]}",
                         f->header->len > 1 ? "," : "", name, f->type, shape, begin, f->data->len);
}

/* (transfer full): the path. Frees the parts. */
static inline char *lora_write(LoraFile *f, const char *name) {
  g_string_append_c(f->header, '}');
  char *path = write_safetensors(name, f->header->str, f->data->data, f->data->len);
  g_string_free(f->header, TRUE);
  g_byte_array_unref(f->data);
  return path;
}

#endif
