/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of files as float32; see numbers.h. Types and blocks are types.c; here are the scales that stand in tensors
 * of their own beside the codes. */
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
  const char *expected = "one F32";
  switch (s->scaling) {
  case FK_SCALING_NONE: return NULL;
  case FK_SCALING_TENSOR: fits = is_type(t, "F32"); break;
  case FK_SCALING_ROW:
    expected = is_type(s->tensor, "I8") ? "one F32 or one of each row" : "one F32";
    fits = is_type(s->tensor, "I8") && is_type(t, "F32") && count(t) == rows && t->dim[0] == rows;
    break;
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
  if (s->scaling != FK_SCALING_NVFP4 && !type->plain && !type->expand)
    return g_strdup_printf("expected F32, F16, BF16 or F8_E4M3 or another type of weights, found %s", type->name);
  if (cols % type->values)
    return g_strdup_printf("expected rows of whole blocks of %d %s numbers, found %" G_GINT64_FORMAT, type->values,
                           type->name, (gint64)cols);
  return check_scale(s, dim[0], cols);
}

/* ---- Reading ---- */

struct FkNumbers {
  const FkSource *source;
  int64_t cols, first, n; /* first: row of the file's tensor */
  uint8_t *raw;           /* of the rows under way; `size` bytes */
  size_t size, row;       /* bytes of a row in the file */
  float scale;            /* of all numbers */
  float *row_scales;      /* [n]; NULL: none */
  uint8_t *tiles;         /* scales of blocks: whole tiles from row `tiles_first` of the tensor on; NULL: none */
  int64_t tiles_first, tiles_cols;
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

static bool read_one(const FkSafetensors *file, const FkStTensor *t, float *scale, GError **error) {
  if (!fk_safetensors_read(file, t, 0, scale, sizeof *scale, error)) return false;
  return (*scale > 0 && isfinite(*scale)) || bad_scale(t, *scale, error);
}

/* A row of zeros has the scale 0. */
static bool read_row_scales(FkNumbers *r, GError **error) {
  const FkSource *s = r->source;
  r->row_scales = numbers_alloc((size_t)r->n * sizeof(float), error);
  if (!r->row_scales || !fk_safetensors_read(s->scale_file, s->scale, (uint64_t)r->first * sizeof(float), r->row_scales,
                                             (size_t)r->n * sizeof(float), error))
    return false;
  for (int64_t i = 0; i < r->n; i++)
    if (!(r->row_scales[i] >= 0 && isfinite(r->row_scales[i]))) return bad_scale(s->scale, r->row_scales[i], error);
  return true;
}

static bool read_tiles(FkNumbers *r, int block, GError **error) {
  const FkSource *s = r->source;
  r->tiles_first = r->first / TILE_ROWS * TILE_ROWS;
  r->tiles_cols = round_up(r->cols / block, TILE_COLS);
  const int64_t rows = round_up(r->first + r->n, TILE_ROWS) - r->tiles_first;
  const size_t bytes = (size_t)(rows * r->tiles_cols);
  r->tiles = numbers_alloc(bytes, error);
  return r->tiles && fk_safetensors_read(s->scale_file, s->scale, (uint64_t)(r->tiles_first * r->tiles_cols), r->tiles,
                                         bytes, error);
}

static bool read_scales(FkNumbers *r, GError **error) {
  const FkSource *s = r->source;
  switch (s->scaling) {
  case FK_SCALING_NONE: return true;
  case FK_SCALING_TENSOR: return read_one(s->scale_file, s->scale, &r->scale, error);
  case FK_SCALING_ROW: return read_row_scales(r, error);
  case FK_SCALING_MXFP8: return read_tiles(r, MX_BLOCK, error);
  case FK_SCALING_NVFP4: return read_one(s->scale2_file, s->scale2, &r->scale, error) && read_tiles(r, NV_BLOCK, error);
  }
  return false;
}

FkNumbers *fk_numbers_begin(const FkSource *source, int64_t cols, int64_t first, int64_t n, GError **error) {
  const FkNumberType *type = type_of(source->tensor);
  g_autoptr(FkNumbers) r = g_new0(FkNumbers, 1);
  *r = (FkNumbers){.source = source, .cols = cols, .first = source->first_row + first, .n = n, .scale = 1};
  r->row = source->scaling == FK_SCALING_NVFP4 ? (size_t)cols / 2 : (size_t)(cols / type->values) * (size_t)type->bytes;
  return read_scales(r, error) ? g_steal_pointer(&r) : NULL;
}

void fk_numbers_end(FkNumbers *r) {
  if (!r) return;
  g_free(r->raw);
  g_free(r->row_scales);
  g_free(r->tiles);
  g_free(r);
}

/* The scale's code of block `block` of row `row` of the tensor. */
static uint8_t tile_at(const FkNumbers *r, int64_t row, int64_t block) {
  const int64_t at = row - r->tiles_first, tile = at / TILE_ROWS * (r->tiles_cols / TILE_COLS) + block / TILE_COLS;
  const int64_t in = at % TILE_ROWS;
  return r->tiles[tile * TILE_ROWS * TILE_COLS + in % 32 * 16 + in / 32 * TILE_COLS + block % TILE_COLS];
}

static bool expand_mxfp8(const FkNumbers *r, int64_t row, const uint8_t *raw, float *to, GError **error) {
  for (int64_t block = 0; block < r->cols / MX_BLOCK; block++) {
    const float scale = fk_e8m0_to_f32(tile_at(r, row, block));
    if (isnan(scale)) return bad_scale(r->source->scale, scale, error);
    for (int i = 0; i < MX_BLOCK; i++) to[block * MX_BLOCK + i] = fk_e4m3_to_f32(raw[block * MX_BLOCK + i]) * scale;
  }
  return true;
}

/* Two numbers in a byte, the first in its upper half. */
static bool expand_nvfp4(const FkNumbers *r, int64_t row, const uint8_t *raw, float *to, GError **error) {
  static const float e2m1[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                 -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
  for (int64_t block = 0; block < r->cols / NV_BLOCK; block++) {
    const float code = fk_e4m3_to_f32(tile_at(r, row, block));
    if (!(code >= 0)) return bad_scale(r->source->scale, code, error);
    const float scale = r->scale * code;
    for (int i = 0; i < NV_BLOCK; i++) {
      const uint8_t pair = raw[(block * NV_BLOCK + i) / 2];
      to[block * NV_BLOCK + i] = e2m1[i % 2 ? pair & 15 : pair >> 4] * scale;
    }
  }
  return true;
}

bool fk_numbers_rows(FkNumbers *r, int64_t at, int64_t n, float *to, GError **error) {
  const FkSource *s = r->source;
  const FkNumberType *type = type_of(s->tensor);
  const size_t bytes = (size_t)n * r->row;
  assert(at >= 0 && n >= 0 && at + n <= r->n);
  if (bytes > r->size) {
    g_free(r->raw);
    r->size = 0;
    r->raw = numbers_alloc(bytes, error);
    if (!r->raw) return false;
    r->size = bytes;
  }
  if (!fk_safetensors_read(s->file, s->tensor, (uint64_t)(r->first + at) * r->row, r->raw, bytes, error)) return false;
  if (r->tiles) {
    for (int64_t i = 0; i < n; i++) {
      const uint8_t *raw = r->raw + (size_t)i * r->row;
      const bool ok = s->scaling == FK_SCALING_MXFP8 ? expand_mxfp8(r, r->first + at + i, raw, to + i * r->cols, error)
                                                     : expand_nvfp4(r, r->first + at + i, raw, to + i * r->cols, error);
      if (!ok) return false;
    }
    return true;
  }
  type->expand(to, r->raw, n * r->cols / type->values);
  if (s->scaling == FK_SCALING_TENSOR)
    for (int64_t i = 0; i < n * r->cols; i++) to[i] *= r->scale;
  for (int64_t i = 0; r->row_scales && i < n; i++)
    for (int64_t c = 0; c < r->cols; c++) to[i * r->cols + c] *= r->row_scales[at + i];
  return true;
}
