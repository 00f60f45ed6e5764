/* SPDX-License-Identifier: Apache-2.0 */
/* Files of static scales: written from measured layers, read into a model.
 *
 * {"fluxkontext-calibration": 1, "model": SHA-256 of the model's files as a manifest has it, "edits": N,
 *  "layers": {"transformer_blocks.0.attn.to_out.0": 0.06432, ...}}: for each matrix of the transformer's blocks the
 * scale of its inputs. It is MARGIN times what the largest number of the calibration's edits would need: E4M3 has the
 * room, and a scale that is too small cuts numbers off. */
#include "calibration.h"

#include "file.h"
#include "json-scan.h"
#include "layers.h"
#include "manifest.h"

#include <math.h>
#include <string.h>

#define FORMAT 1
#define MARGIN 4.0
#define LARGEST_FILE (4u << 20)
#define LEAST_SCALE 0x1p-100 /* below, a group of numbers counts as zeros (FkOps.quantize) */
#define MOST_SCALE 0x1p100   /* above, products would leave float32 */

char *fk_calibration_path(const char *path) {
  if (g_file_test(path, G_FILE_TEST_IS_DIR)) return g_build_filename(path, FK_CALIBRATION_NAME, NULL);
  return g_strconcat(path, ".calibration.json", NULL);
}

static bool is_calibrated(const FkNamedLayer *layer) {
  return layer->role >= FK_ROLE_QKV && layer->role <= FK_ROLE_SINGLE_OUT;
}

/* ---- Reading ---- */

G_GNUC_PRINTF(4, 5)
static bool fail(GError **error, FkError code, const char *path, const char *format, ...) {
  va_list list;
  va_start(list, format);
  g_autofree char *text = g_strdup_vprintf(format, list), *shown = fk_shown_path(path);
  va_end(list);
  g_set_error(error, FK_ERROR, code, "calibration %s: %s", shown, text);
  return false;
}

/* That the file is a calibration, and this model's. sum: NULL: of a packed model, which was made with it. */
static bool check_head(const FkJsonNode *root, const char *path, const char *sum, GError **error) {
  const FkJsonNode *format = fk_json_member(root, "fluxkontext-calibration"), *model = fk_json_member(root, "model");
  const bool number = format && format->kind == FK_JSON_NUMBER && format->whole;
  if (!number || fk_json_integer(format) != FORMAT) {
    g_autofree char *found = format ? fk_json_shown(format) : g_strdup("nothing");
    return fail(error, FK_ERROR_MODEL_BAD, path, "\"fluxkontext-calibration\": expected %d, found %s", FORMAT, found);
  }
  if (!fk_json_text(model)) {
    g_autofree char *found = model ? fk_json_shown(model) : g_strdup("nothing");
    return fail(error, FK_ERROR_MODEL_BAD, path, "\"model\": expected a hash, found %s", found);
  }
  if (!sum || !strcmp(fk_json_text(model), sum)) return true;
  g_autofree char *found = fk_json_shown(model);
  return fail(error, FK_ERROR_MODEL_MISMATCH, path,
              "it is of another model: expected \"%s\", found %s; make it again with fluxkontext-calibrate", sum,
              found);
}

static bool take_layer(const FkNamedLayer *layer, const FkJsonNode *layers, const char *path, GError **error) {
  const FkJsonNode *scale = fk_json_member(layers, layer->name);
  if (!scale) return fail(error, FK_ERROR_MODEL_MISMATCH, path, "layer \"%s\" is missing", layer->name);
  const double value = scale->kind == FK_JSON_NUMBER ? fk_json_double(scale) : (double)NAN;
  if (value >= LEAST_SCALE && value <= MOST_SCALE) {
    layer->weight->x_scale = (float)value;
    return true;
  }
  g_autofree char *found = fk_json_shown(scale);
  return fail(error, FK_ERROR_MODEL_BAD, path, "layer \"%s\": expected a scale from 2^-100 to 2^100, found %s",
              layer->name, found);
}

/* Every matrix once, and nothing else. */
static bool take_layers(FkModel *model, const FkJsonNode *layers, const char *path, GError **error) {
  if (!layers || layers->kind != FK_JSON_OBJECT)
    return fail(error, FK_ERROR_MODEL_BAD, path, "\"layers\": expected an object of scales");
  g_autoptr(GPtrArray) list = fk_layers_list(model);
  g_autoptr(GHashTable) known = g_hash_table_new(fk_text_hash, g_str_equal);
  for (guint i = 0; i < list->len; i++) {
    const FkNamedLayer *layer = list->pdata[i];
    if (!is_calibrated(layer)) continue;
    if (!take_layer(layer, layers, path, error)) return false;
    g_hash_table_add(known, (gpointer)layer->name);
  }
  for (const FkJsonNode *it = fk_json_first(layers); it; it = fk_json_after(layers, it)) {
    if (g_hash_table_remove(known, it->key)) continue;
    g_autofree char *shown = fk_shown_name(it->key);
    return fail(error, FK_ERROR_MODEL_MISMATCH, path, "layer \"%s\" is none of the model, or is there twice", shown);
  }
  return true;
}

bool fk_calibration_apply(FkModel *model, const char *path, const char *opened, const FkOptions *options, char **hashes,
                          char **hash, GError **error) {
  const bool given = path && *path;
  if (model->pack && given)
    return fail(error, FK_ERROR_MODEL_MISMATCH, path, "expected none beside a packed model, which has its own inside");
  g_autofree char *own = given         ? NULL
                         : model->pack ? g_build_filename(model->path, FK_CALIBRATION_NAME, NULL)
                                       : fk_calibration_path(model->path);
  const char *file = given ? path : own;
  size_t bytes;
  g_autofree char *text = fk_file_load(file, LARGEST_FILE, &bytes, error);
  if (!text) {
    g_prefix_error(error, "quantization=fp8-static needs a file of fluxkontext-calibrate: ");
    return false;
  }
  if (strlen(text) != bytes) return fail(error, FK_ERROR_MODEL_BAD, file, "a byte 0 is no JSON");
  g_autofree char *sum = NULL;
  g_autoptr(FkJsonTree) tree = fk_json_parse(text, file, error);
  if (!tree || (!model->pack && !(*hashes = fk_manifest_model(model->path, opened, options, &sum, error))) ||
      !check_head(fk_json_root(tree), file, sum, error) ||
      !take_layers(model, fk_json_member(fk_json_root(tree), "layers"), file, error))
    return false;
  *hash = g_compute_checksum_for_data(G_CHECKSUM_SHA256, (const guchar *)text, bytes);
  return true;
}

/* ---- Writing ---- */

/* The scale of a layer by its measured row; 0: it was not used. */
static double scale_of(const FkNamedLayer *layer, const FkLayerRow *rows, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (!strcmp(rows[i].name, layer->name)) return rows[i].amax > 0 ? fmax(MARGIN * rows[i].amax / 448, 0x1p-99) : 1;
  return 0;
}

char *fk_layers_calibration(const FkLayers *layers, GError **error) {
  int edits;
  const FkEngine *e = fk_layers_source(layers, &edits);
  g_autofree char *sum = NULL;
  if (e->model->pack) {
    g_set_error_literal(
        error, FK_ERROR, FK_ERROR_OPTION_BAD,
        "calibration: scales are of a model's own files, and this model is packed: calibrate what it was "
        "made of, and pack that with quantization=fp8-static");
    return NULL;
  }
  g_autofree char *hashes = fk_manifest_model(e->model->path, e->files, e->options, &sum, error);
  if (!hashes) return NULL;
  size_t n;
  g_autofree FkLayerRow *rows = fk_layers_rows(layers, &n);
  g_autoptr(GPtrArray) list = fk_layers_list(e->model);
  g_autoptr(GString) s = g_string_new(NULL);
  g_string_append_printf(s, "{\"fluxkontext-calibration\": %d,\n \"model\": \"%s\",\n \"edits\": %d,\n \"layers\": {",
                         FORMAT, sum, edits);
  bool more = false;
  for (guint i = 0; i < list->len; i++) {
    const FkNamedLayer *layer = list->pdata[i];
    char digits[G_ASCII_DTOSTR_BUF_SIZE];
    if (!is_calibrated(layer)) continue;
    const double scale = scale_of(layer, rows, n);
    if (!(scale > 0 && scale <= MOST_SCALE)) {
      g_set_error(error, FK_ERROR, scale > 0 ? FK_ERROR_NONFINITE : FK_ERROR_OPTION_BAD,
                  "calibration: layer \"%s\": %s", layer->name,
                  scale > 0 ? "its inputs have no largest number" : "no edit was measured");
      return NULL;
    }
    g_string_append_printf(s, "%s\n  \"%s\": %s", more ? "," : "", layer->name,
                           g_ascii_formatd(digits, sizeof digits, "%.9g", scale));
    more = true;
  }
  g_string_append(s, "}}\n");
  return g_string_free(g_steal_pointer(&s), FALSE);
}
