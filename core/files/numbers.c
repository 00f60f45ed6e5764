/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of files as float32; see numbers.h. What codes and blocks mean is blocks.c; here are the scales that stand in
 * tensors of their own beside the codes. */
#include "numbers.h"

#include "file.h"
#include "fk-error.h"
#include "number.h"
#include "types.h"

#include <math.h>
#include <string.h>

#define TILE_ROWS 128 /* scales of MX and NVFP4 lie in tiles of 128 rows and 4 columns */
#define TILE_COLS 4
#define MX_BLOCK 32
#define NV_BLOCK 16

/* ---- What a source has ---- */

static const FkNumberType *type_of(const FkStTensor *t) {
  return fk_number_type(t->type);
}

static bool is_type(const FkStTensor *t, const char *name) {
  return t && !strcmp(fk_st_type_name(t), name);
}

static int64_t round_up(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}

bool fk_numbers_coded(const FkSource *s) {
  return !type_of(s->tensor)->plain;
}

/* Numbers of a scale tensor. */
static int64_t count(const FkStTensor *t) {
  int64_t n = 1; /* sizes were checked against the file's */
  for (int i = 0; i < t->rank; i++) n *= t->dim[i];
  return n;
}

/* The padded tiles of [rows, cols] scales. */
static bool is_tiled(const FkStTensor *t, int64_t rows, int64_t cols) {
  return t->rank == 2 && t->dim[0] == round_up(rows, TILE_ROWS) && t->dim[1] == round_up(cols, TILE_COLS);
}

/* A block format by the types that it is made of. */
static FkScaling scaling_of(const FkSource *s) {
  if (!s->scale) return FK_SCALING_NONE;
  if (is_type(s->tensor, "U8") && s->scale2) return FK_SCALING_NVFP4;
  if (is_type(s->tensor, "F8_E4M3") && (is_type(s->scale, "F8_E8M0") || is_type(s->scale, "U8")))
    return FK_SCALING_MXFP8;
  return count(s->scale) == 1 ? FK_SCALING_TENSOR : FK_SCALING_ROW;
}

/* NULL, or what the scales should have been. (transfer full) */
static char *check_scale(const FkSource *s, int64_t rows, int64_t cols) {
  const FkStTensor *t = s->scale;
  bool fits = false;
  const char *expected = "one F32 or one of each row";
  switch (s->scaling) {
  case FK_SCALING_NONE: return NULL;
  case FK_SCALING_TENSOR: fits = is_type(t, "F32"); break;
  case FK_SCALING_ROW: fits = is_type(t, "F32") && count(t) == rows && t->dim[0] == rows; break;
  case FK_SCALING_MXFP8:
    expected = "a scale for each 32 numbers in tiles of 128 x 4";
    fits = cols % MX_BLOCK == 0 && is_tiled(t, rows, cols / MX_BLOCK);
    break;
  case FK_SCALING_NVFP4:
    expected = "an F8_E4M3 for each 16 numbers in tiles of 128 x 4, and one F32";
    fits = cols % NV_BLOCK == 0 && is_type(t, "F8_E4M3") && is_tiled(t, rows, cols / NV_BLOCK) &&
           is_type(s->scale2, "F32") && count(s->scale2) == 1;
    break;
  }
  if (fits && fk_numbers_coded(s)) return NULL;
  g_autofree char *found = fk_st_shape_text(t->dim, t->rank), *name = fk_shown_name(t->name);
  return g_strdup_printf("its scale \"%s\": expected %s beside codes of 8 bits, found %s of shape %s beside %s", name,
                         expected, fk_st_type_name(t), found, fk_st_type_name(s->tensor));
}

char *fk_numbers_check(FkSource *s, const int64_t *dim, int rank) {
  const FkNumberType *type = type_of(s->tensor);
  int64_t want[FK_ST_MAX_RANK], cols = 1;
  int n = rank;
  memcpy(want, dim, (size_t)rank * sizeof *dim);
  for (int i = 1; i < rank; i++) cols *= dim[i];
  s->scaling = scaling_of(s);
  if (s->scaling == FK_SCALING_NVFP4 && rank == 2) want[1] = dim[1] / 2;
  if (s->transform == FK_TRANSFORM_POINT)
    while (n < 4) want[n++] = 1;
  if (s->tensor->rank != n || memcmp(s->tensor->dim, want, (size_t)n * sizeof *want)) {
    g_autofree char *expected = fk_st_shape_text(want, n);
    g_autofree char *found = fk_st_shape_text(s->tensor->dim, s->tensor->rank);
    return g_strdup_printf("expected shape %s, found %s", expected, found);
  }
  if (s->scaling != FK_SCALING_NVFP4 && !type->code)
    return g_strdup_printf("expected F32, F16, BF16 or F8_E4M3 or another type of weights, found %s", type->name);
  if (cols % type->values)
    return g_strdup_printf("expected rows of whole blocks of %d %s numbers, found %" G_GINT64_FORMAT, type->values,
                           type->name, (gint64)cols);
  return check_scale(s, dim[0], cols);
}

FkCodedForm fk_numbers_form(const FkSource *s) {
  FkCodedForm form = {.code = type_of(s->tensor)->code};
  switch (s->scaling) {
  case FK_SCALING_NONE: break;
  case FK_SCALING_TENSOR:
  case FK_SCALING_ROW: form.row_scale = true; break;
  case FK_SCALING_MXFP8:
    form.block = MX_BLOCK;
    form.block_dtype = FK_E8M0;
    break;
  case FK_SCALING_NVFP4:
    form = (FkCodedForm){.code = FK_CODE_E2M1, .row_scale = true, .block = NV_BLOCK, .block_dtype = FK_E4M3};
    break;
  }
  return form;
}

bool fk_numbers_by_rows(const FkSource *s) {
  const FkCodedForm form = fk_numbers_form(s);
  return form.code == FK_CODE_E4M3 && !form.block;
}

/* ---- Reading ---- */

struct FkNumbers {
  const FkSource *source;
  int64_t first; /* row of the file's tensor */
  size_t size;   /* of the codes under way, bytes */
  void *codes;
  FkCoded rows; /* those that it was begun for; codes: NULL */
};

static void *numbers_alloc(size_t bytes, GError **error) {
  void *p = g_try_malloc(MAX(bytes, 1));
  if (!p) g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "an allocation of %zu bytes was refused", bytes);
  return p;
}

static bool bad_scale(const FkStTensor *t, float found, GError **error) {
  g_autofree char *name = fk_shown_name(t->name);
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "its scale \"%s\": expected a positive number, found %g", name,
              (double)found);
  return false;
}

/* One for all rows, as one for each. */
static bool read_one(const FkNumbers *r, float *to, const FkSafetensors *file, const FkStTensor *t, GError **error) {
  float scale;
  if (!fk_safetensors_read(file, t, 0, &scale, sizeof scale, error)) return false;
  if (!(scale > 0 && isfinite(scale))) return bad_scale(t, scale, error);
  for (int64_t i = 0; i < r->rows.rows; i++) to[i] = scale;
  return true;
}

/* A row of zeros has the scale 0. */
static bool read_row_scales(const FkNumbers *r, float *to, GError **error) {
  const FkSource *s = r->source;
  const int64_t n = r->rows.rows;
  if (s->scaling == FK_SCALING_TENSOR) return read_one(r, to, s->scale_file, s->scale, error);
  if (s->scaling == FK_SCALING_NVFP4) return read_one(r, to, s->scale2_file, s->scale2, error);
  if (!fk_safetensors_read(s->scale_file, s->scale, (uint64_t)r->first * sizeof *to, to, (size_t)n * sizeof *to, error))
    return false;
  for (int64_t i = 0; i < n; i++)
    if (!(to[i] >= 0 && isfinite(to[i]))) return bad_scale(s->scale, to[i], error);
  return true;
}

/* Out of tiles of 128 rows and 4 columns. */
static bool read_block_scales(const FkNumbers *r, uint8_t *to, GError **error) {
  const FkSource *s = r->source;
  const bool power = r->rows.form.block_dtype == FK_E8M0;
  const int64_t begin = r->first / TILE_ROWS * TILE_ROWS, end = round_up(r->first + r->rows.rows, TILE_ROWS);
  const int64_t blocks = r->rows.cols / r->rows.form.block, across = round_up(blocks, TILE_COLS);
  const size_t bytes = (size_t)((end - begin) * across);
  g_autofree uint8_t *tiles = numbers_alloc(bytes, error);
  if (!tiles || !fk_safetensors_read(s->scale_file, s->scale, (uint64_t)(begin * across), tiles, bytes, error))
    return false;
  for (int64_t i = 0; i < r->rows.rows; i++)
    for (int64_t b = 0; b < blocks; b++) {
      const int64_t at = r->first + i - begin, in = at % TILE_ROWS;
      const int64_t tile = at / TILE_ROWS * (across / TILE_COLS) + b / TILE_COLS;
      const uint8_t code = tiles[tile * TILE_ROWS * TILE_COLS + in % 32 * 16 + in / 32 * TILE_COLS + b % TILE_COLS];
      const float scale = power ? fk_e8m0_to_f32(code) : fk_e4m3_to_f32(code);
      if (!(scale >= 0)) return bad_scale(s->scale, scale, error);
      to[i * blocks + b] = code;
    }
  return true;
}

static bool read_scales(FkNumbers *r, GError **error) {
  const FkCodedForm form = r->rows.form;
  const size_t n = (size_t)r->rows.rows;
  if (form.row_scale && (!(r->rows.row_scale = numbers_alloc(n * sizeof(float), error)) ||
                         !read_row_scales(r, (float *)r->rows.row_scale, error)))
    return false;
  return !form.block || ((r->rows.block_scale = numbers_alloc(n * fk_coded_row_scales(form, r->rows.cols), error)) &&
                         read_block_scales(r, (uint8_t *)r->rows.block_scale, error));
}

FkNumbers *fk_numbers_begin(const FkSource *source, int64_t cols, int64_t first, int64_t n, GError **error) {
  g_autoptr(FkNumbers) r = g_new0(FkNumbers, 1);
  *r = (FkNumbers){.source = source, .first = source->first_row + first};
  r->rows = (FkCoded){.form = fk_numbers_form(source), .rows = n, .cols = cols};
  return read_scales(r, error) ? g_steal_pointer(&r) : NULL;
}

void fk_numbers_end(FkNumbers *r) {
  if (!r) return;
  g_free(r->codes);
  g_free((float *)r->rows.row_scale);
  g_free((uint8_t *)r->rows.block_scale);
  g_free(r);
}

const FkCoded *fk_numbers_scales(const FkNumbers *r) {
  return &r->rows;
}

bool fk_numbers_take(const FkNumbers *r, uint8_t *codes, float *scales, GError **error) {
  const FkSource *s = r->source;
  const size_t row = fk_coded_row_bytes(r->rows.form, r->rows.cols);
  for (int64_t i = 0; i < r->rows.rows; i++) scales[i] = r->rows.row_scale ? r->rows.row_scale[i] : 1.0f;
  return fk_safetensors_read(s->file, s->tensor, (uint64_t)r->first * row, codes, (size_t)r->rows.rows * row, error);
}

bool fk_numbers_rows(FkNumbers *r, int64_t at, int64_t n, float *to, GError **error) {
  const FkSource *s = r->source;
  const size_t row = fk_coded_row_bytes(r->rows.form, r->rows.cols), bytes = (size_t)n * row;
  if (bytes > r->size) {
    g_free(r->codes);
    r->size = 0;
    r->codes = numbers_alloc(bytes, error);
    if (!r->codes) return false;
    r->size = bytes;
  }
  if (!fk_safetensors_read(s->file, s->tensor, (uint64_t)(r->first + at) * row, r->codes, bytes, error)) return false;
  FkCoded rows = fk_coded_slice(r->rows, at, n);
  rows.codes = r->codes;
  fk_coded_expand(&rows, to);
  return true;
}
