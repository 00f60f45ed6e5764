/* SPDX-License-Identifier: Apache-2.0 */
/* Results as lines of JSON; see quality-results.h. */
#include "quality-results.h"

#include "json.h"
#include "quality-metrics.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <json-glib/json-glib.h>
#include <stdio.h>
#include <string.h>

/* The numbers of a row by their names in the file. */
typedef struct {
  const char *name;
  size_t offset;
} Field;

#define FIELD(name)                                                                                                    \
  { #name, G_STRUCT_OFFSET(QualityRow, name) }
static const Field reals[] = {FIELD(psnr), FIELD(ssim), FIELD(edges),      FIELD(answer),
                              FIELD(ms),   FIELD(flop), FIELD(model_flop), FIELD(changed)};
static const Field counts[] = {FIELD(success), FIELD(evaluations), FIELD(skipped)};

void quality_row_free(gpointer data) {
  QualityRow *row = data;
  if (!row) return;
  g_free(row->setting);
  g_free(row->text);
  g_free(row->id);
  g_free(row);
}

QualityRow *quality_row_copy(const QualityRow *row, const QualitySetting *setting) {
  QualityRow *copy = g_memdup2(row, sizeof *row);
  copy->setting = g_strdup(setting->name);
  copy->text = g_strdup(setting->text);
  copy->id = g_strdup(row->id);
  return copy;
}

bool quality_success(double answer, double ceiling) {
  return answer > ceiling - 6 || answer > 26;
}

bool quality_fixed_flop(const char *model, const FkSettings *settings, const FkImage *in, double *flop,
                        GError **error) {
  FkPlan plan;
  if (!fk_plan(model, NULL, settings, in->width, in->height, 4, &plan, error)) return false;
  *flop = 0;
  for (int i = 0; i < FK_PLAN_STAGES; i++)
    if (strcmp(plan.stage[i].stage, "step")) *flop += plan.stage[i].flop;
  return true;
}

bool quality_row_measure(QualityRow *row, const QualityCase *c, const FkImage *image, const FkImage *exact,
                         GError **error) {
  row->psnr = quality_psnr(image->data, exact->data, exact->width, exact->height);
  row->ssim = quality_ssim(image->data, exact->data, exact->width, exact->height);
  row->edges = quality_edges(image->data, exact->data, exact->width, exact->height);
  row->answer = row->success = -1;
  FkImage input, target;
  if (!quality_picture_read(c->input, &input, error)) return false;
  row->changed = quality_changed(exact->data, input.data, input.width, input.height);
  g_free(input.data);
  if (!c->target) return true;
  if (!quality_picture_read(c->target, &target, error)) return false;
  const bool fits = target.width == exact->width && target.height == exact->height;
  if (fits) {
    row->answer = quality_psnr(image->data, target.data, target.width, target.height);
    row->success = quality_success(row->answer, c->ceiling);
  } else {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: not of the input's size", c->target);
  }
  g_free(target.data);
  return fits;
}

char *quality_row_to_json(const QualityRow *row) {
  Json j = {.text = g_string_new(NULL), .line = TRUE};
  json_open(&j, NULL, '{');
  json_text(&j, "setting", row->setting);
  json_text(&j, "text", row->text);
  json_text(&j, "case", row->id);
  json_text(&j, "tier", quality_tier_names[row->tier]);
  json_text(&j, "mask", row->mask);
  for (size_t i = 0; i < G_N_ELEMENTS(reals); i++)
    json_number(&j, reals[i].name, G_STRUCT_MEMBER(double, row, reals[i].offset));
  for (size_t i = 0; i < G_N_ELEMENTS(counts); i++)
    json_count(&j, counts[i].name, G_STRUCT_MEMBER(int, row, counts[i].offset));
  json_close(&j, '}');
  return g_string_free(j.text, FALSE);
}

QualityRow *quality_row_from_json(const char *line) {
  g_autoptr(JsonParser) parser = json_parser_new();
  if (!json_parser_load_from_data(parser, line, -1, NULL)) return NULL;
  JsonNode *root = json_parser_get_root(parser);
  JsonObject *o = root && JSON_NODE_HOLDS_OBJECT(root) ? json_node_get_object(root) : NULL;
  const char *const needed[] = {"setting", "text", "case", "tier", "mask"};
  for (size_t i = 0; i < G_N_ELEMENTS(needed); i++)
    if (!o || !json_object_get_string_member_with_default(o, needed[i], NULL)) return NULL;
  QualityRow *row = g_new0(QualityRow, 1);
  row->setting = g_strdup(json_object_get_string_member(o, "setting"));
  row->text = g_strdup(json_object_get_string_member(o, "text"));
  row->id = g_strdup(json_object_get_string_member(o, "case"));
  g_strlcpy(row->mask, json_object_get_string_member(o, "mask"), sizeof row->mask);
  for (int i = 0; i < QUALITY_TIERS; i++)
    if (!strcmp(quality_tier_names[i], json_object_get_string_member(o, "tier"))) row->tier = (QualityTier)i;
  for (size_t i = 0; i < G_N_ELEMENTS(reals); i++)
    G_STRUCT_MEMBER(double, row, reals[i].offset) = json_object_get_double_member_with_default(o, reals[i].name, 0);
  row->changed = json_object_get_double_member_with_default(o, "changed", -1);
  for (size_t i = 0; i < G_N_ELEMENTS(counts); i++)
    G_STRUCT_MEMBER(int, row, counts[i].offset) = (int)json_object_get_int_member_with_default(o, counts[i].name, 0);
  return row;
}

GPtrArray *quality_rows_load(const char *path, GError **error) {
  g_autoptr(GPtrArray) rows = g_ptr_array_new_with_free_func(quality_row_free);
  g_autofree char *text = NULL;
  if (!g_file_test(path, G_FILE_TEST_EXISTS)) return g_steal_pointer(&rows);
  if (!g_file_get_contents(path, &text, NULL, error)) return NULL;
  g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
  for (int i = 0; lines[i]; i++) {
    QualityRow *row = *lines[i] ? quality_row_from_json(lines[i]) : NULL;
    if (row) g_ptr_array_add(rows, row);
    if (row || !*lines[i] || !lines[i + 1]) continue;
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: line %d is no result", path, i + 1);
    return NULL;
  }
  return g_steal_pointer(&rows);
}

#define FILES "results*.jsonl"

GPtrArray *quality_rows_load_folder(const char *folder, GError **error) {
  g_autoptr(GPtrArray) rows = g_ptr_array_new_with_free_func(quality_row_free);
  g_autoptr(GDir) dir = g_dir_open(folder, 0, error);
  if (!dir) return NULL;
  for (const char *file; (file = g_dir_read_name(dir));) {
    if (!g_pattern_match_simple(FILES, file)) continue;
    g_autofree char *path = g_build_filename(folder, file, NULL);
    GPtrArray *more = quality_rows_load(path, error);
    if (!more) return NULL;
    g_ptr_array_extend_and_steal(rows, more);
  }
  return g_steal_pointer(&rows);
}

void quality_rows_forget(const char *folder) {
  g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
  for (const char *file; dir && (file = g_dir_read_name(dir));) {
    g_autofree char *path = g_build_filename(folder, file, NULL);
    if (g_pattern_match_simple(FILES, file)) g_remove(path);
  }
}

/* Cuts what follows the last end of line: the rest of a write that did not finish. */
static bool cut_unfinished(const char *path, GError **error) {
  g_autofree char *text = NULL;
  gsize length = 0;
  if (!g_file_test(path, G_FILE_TEST_EXISTS)) return true;
  if (!g_file_get_contents(path, &text, &length, error)) return false;
  if (!length || text[length - 1] == '\n') return true;
  const char *end = g_strrstr_len(text, (gssize)length, "\n");
  return fk_file_write(path, text, end ? (gsize)(end - text + 1) : 0, error);
}

bool quality_rows_append(const char *path, const QualityRow *row, GError **error) {
  g_autofree char *line = quality_row_to_json(row);
  if (!cut_unfinished(path, error)) return false;
  FILE *file = fopen(path, "a");
  const bool written = file && fprintf(file, "%s\n", line) > 0;
  if (file && !fclose(file) && written) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: %s", path, g_strerror(errno));
  return false;
}

const QualityRow *quality_rows_find(const GPtrArray *rows, const char *text, const char *id) {
  for (guint i = 0; i < rows->len; i++) {
    const QualityRow *row = rows->pdata[i];
    if (!strcmp(row->text, text) && !strcmp(row->id, id)) return row;
  }
  return NULL;
}
