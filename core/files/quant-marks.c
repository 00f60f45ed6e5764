/* SPDX-License-Identifier: Apache-2.0 */
/* Formats of quantised layers by name; see quant-marks.h. Which scales a layer has is in its tensors (numbers.c); here
 * are refused those whose tensors look like a format that is read and mean something else. */
#include "quant-marks.h"

#include "file.h"
#include "fk-error.h"
#include "json-scan.h"

#include <string.h>

#define MAX_MARK 4096 /* bytes of one layer's mark */

static bool mismatch(const char *file, const char *layer, const char *expected, const char *found, GError **error) {
  g_autofree char *shown = fk_shown_name(layer), *what = fk_shown_name(found);
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_MISMATCH, "%s: layer \"%s\": expected %s, found \"%s\"", file, shown,
              expected, what);
  return false;
}

/* {"format": "..", ..} of a layer. */
static bool check_layer(const char *file, const char *layer, const FkJsonNode *mark, GError **error) {
  static const char *const known[] = {"float8_e4m3fn", "float8_e5m2", "mxfp8", "nvfp4", "int8_tensorwise", NULL};
  const char *format = fk_json_text(fk_json_member(mark, "format"));
  if (!format || !g_strv_contains(known, format))
    return mismatch(file, layer, "format float8_e4m3fn, float8_e5m2, mxfp8, nvfp4 or int8_tensorwise",
                    format ? format : "none", error);
  const FkJsonNode *rotated = fk_json_member(mark, "convrot");
  if (rotated && rotated->kind != FK_JSON_FALSE && rotated->kind != FK_JSON_NULL)
    return mismatch(file, layer, "weights that are not rotated", "convrot", error);
  return true;
}

static bool check_mark(const FkSafetensors *file, const FkStTensor *t, GError **error) {
  const char *path = fk_safetensors_path(file);
  if (t->bytes > MAX_MARK) return mismatch(path, t->name, "a mark of at most 4096 bytes", "more", error);
  g_autofree char *text = g_malloc0(t->bytes + 1);
  if (!fk_safetensors_read(file, t, 0, text, t->bytes, error)) return false;
  g_autofree char *what = g_strdup_printf("%s: %s", path, t->name);
  g_autoptr(FkJsonTree) tree = fk_json_parse(text, what, error);
  return tree && check_layer(path, t->name, fk_json_root(tree), error);
}

static bool check_metadata(const FkSafetensors *file, GError **error) {
  const char *text = fk_safetensors_metadata(file, "_quantization_metadata"), *path = fk_safetensors_path(file);
  if (!text) return true;
  g_autofree char *what = g_strdup_printf("%s: _quantization_metadata", path);
  g_autoptr(FkJsonTree) tree = fk_json_parse(text, what, error);
  if (!tree) return false;
  const FkJsonNode *layers = fk_json_member(fk_json_root(tree), "layers");
  for (const FkJsonNode *it = layers ? fk_json_first(layers) : NULL; it; it = fk_json_after(layers, it))
    if (!check_layer(path, it->key ? it->key : "?", it, error)) return false;
  return true;
}

bool fk_quant_marks_check(const FkComponent *component, GError **error) {
  for (size_t s = 0; s < fk_component_shards(component); s++) {
    const FkSafetensors *file = fk_component_shard(component, s);
    if (!check_metadata(file, error)) return false;
    for (size_t i = 0; i < fk_safetensors_count(file); i++) {
      const FkStTensor *t = fk_safetensors_at(file, i);
      if (g_str_has_suffix(t->name, ".comfy_quant") && !check_mark(file, t, error)) return false;
      if (g_str_has_suffix(t->name, ".pre_quant_scale"))
        return mismatch(fk_safetensors_path(file), t->name, "weights that are not smoothed", "pre_quant_scale", error);
    }
  }
  return true;
}
