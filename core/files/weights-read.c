/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of a checkpoint as they will be in memory, made by any thread; see weights-internal.h. Plain numbers are
 * converted, convolutions transposed, rows of quantised matrices become codes, for which a row's largest number must be
 * known before its first code; codes of the file become numbers (numbers.h) unless they are what is wanted; and
 * adapters are added to the numbers in float32. */
#include "weights-internal.h"

#include "cpu.h" /* FK_CPU_CLONES */
#include "fk-error.h"
#include "ops.h"
#include "pack.h"
#include "quantize.h"

#include <string.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif

#define BLOCK_BYTES (256 << 10) /* of conversion: stays in the second-level cache */

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors are little-endian, and values are taken as they lie"
#endif

/* ---- Numbers ---- */

/* n elements; `to` and `from` do not overlap and are aligned to their types. */
FK_CPU_CLONES static void convert(void *restrict to, FkDtype as, const void *restrict from, FkDtype dtype, int64_t n) {
  const uint16_t *half = from;
  assert(as == FK_F32 || as == FK_BF16);
  if (as == FK_F32) {
    float *out = to;
    for (int64_t i = 0; dtype == FK_F16 && i < n; i++) out[i] = fk_f16_to_f32(half[i]);
    uint32_t *bits = to;
    for (int64_t i = 0; dtype == FK_BF16 && i < n; i++) bits[i] = (uint32_t)half[i] << 16;
    return;
  }
  uint16_t *out = to;
  const float *wide = from;
  for (int64_t i = 0; dtype == FK_F16 && i < n; i++) out[i] = fk_f32_to_bf16(fk_f16_to_f32(half[i]));
  for (int64_t i = 0; dtype == FK_F32 && i < n; i++) out[i] = fk_f32_to_bf16(wide[i]);
}

/* A row [channels, taps] becomes [taps, channels]. */
static void transpose_row(void *to, const void *from, int64_t channels, int taps, size_t element) {
  if (element == 4) {
    uint32_t *out = to;
    const uint32_t *in = from;
    for (int t = 0; t < taps; t++)
      for (int64_t c = 0; c < channels; c++) *out++ = in[c * taps + t];
    return;
  }
  uint16_t *out = to;
  const uint16_t *in = from;
  for (int t = 0; t < taps; t++)
    for (int64_t c = 0; c < channels; c++) *out++ = in[c * taps + t];
}

/* ---- Readers ---- */

/* n elements as float32: in `raw` itself where they are. */
static float *widen(void *raw, FkDtype from, int64_t n, float *work) {
  if (from == FK_F32) return raw;
  convert(work, FK_F32, raw, from, n);
  return work;
}

/* Scale and codes of a row; MX changes it. */
static float quantise(const FkItem *item, uint8_t *to, float *row) {
  const bool mx = item->mx || (item->source.scaling == FK_SCALING_MXFP8 && !item->deltas);
  if (item->mx) fk_quant_mx(row, item->mx, item->cols);
  if (mx && item->as == FK_E4M3) return fk_quant_row_power(to, row, item->cols);
  return fk_quant_row(to, item->as, row, item->cols);
}

/* A row as the item has it. Odd codes are of what the first ones left over, once more added: the mean of both is nearer
 * than either. */
static float quantise_row(const FkItem *item, uint8_t *to, float *row) {
  if (!item->odd) return quantise(item, to, row);
  g_autofree float *first = g_memdup2(row, (gsize)item->cols * sizeof *row);
  const float scale = quantise(item, to, first);
  for (int64_t i = 0; i < item->cols; i++) row[i] = 2 * row[i] - fk_e4m3_to_f32(to[i]) * scale;
  return quantise(item, to, row);
}

/* The same as finish_rows for rows that adapters change; never of kernels. */
static void finish_adapted(const FkReading *t, int64_t at, int64_t n, void *raw, void *work, const FkDeltaRun *run) {
  const FkItem *item = t->item;
  const int64_t cols = item->cols;
  char *to = (char *)t->to + (size_t)(at * cols) * fk_dtype_size(t->as);
  float *wide = widen(raw, item->from, n * cols, work);
  fk_delta_rows(run, at, n, wide);
  for (int64_t r = 0; t->scales && r < n; r++)
    t->scales[at + r] = quantise_row(item, (uint8_t *)to + r * cols, wide + r * cols);
  if (t->scales) return;
  if (t->as == FK_F32)
    memcpy(to, wide, (size_t)(n * cols) * sizeof *wide);
  else
    convert(to, t->as, wide, FK_F32, n * cols);
}

/* Rows at..at+n of the chunk from `raw`, as the file has them, to their place. `work`: for n rows in between. */
static void finish_rows(const FkReading *t, int64_t at, int64_t n, void *raw, void *work) {
  const FkItem *item = t->item;
  const size_t size = fk_dtype_size(t->as);
  const int64_t cols = item->cols;
  char *to = (char *)t->to + (size_t)(at * cols) * size;
  const FkDtype numbers = t->scales ? FK_F32 : t->as;
  const bool last = !t->scales && item->taps == 1; /* nothing follows the conversion */
  if (item->from != numbers) {
    convert(last ? to : work, numbers, raw, item->from, n * cols);
    raw = work;
  } else if (last) {
    memcpy(to, raw, (size_t)(n * cols) * size); /* what numbers.h has made */
  }
  if (last) return;
  for (int64_t r = 0; r < n; r++)
    if (t->scales)
      t->scales[at + r] = quantise_row(item, (uint8_t *)to + r * cols, (float *)raw + r * cols);
    else
      transpose_row(to + (size_t)(r * cols) * size, (const char *)raw + (size_t)(r * cols) * size, cols / item->taps,
                    item->taps, size);
}

/* Rows of the file in order, held against the sums of a packed model. */
typedef struct {
  const FkReading *of;
  uint64_t at; /* byte of the source */
  FkPackReading packed;
} Rows;

static bool rows_begin(Rows *r, const FkReading *t, GError **error) {
  const FkItem *item = t->item;
  const size_t row = (size_t)item->cols * fk_dtype_size(item->from);
  r->of = t;
  r->at = item->base + (uint64_t)(item->source.first_row + t->first) * row;
  return !item->sums || fk_pack_begin(&r->packed, item->source.file, item->source.tensor, item->sums, r->at, error);
}

static bool rows_next(Rows *r, void *to, size_t bytes, GError **error) {
  const FkItem *item = r->of->item;
  if (item->sums) return fk_pack_next(&r->packed, to, bytes, error);
  r->at += bytes;
  return fk_safetensors_read(item->source.file, item->source.tensor, r->at - bytes, to, bytes, error);
}

static bool rows_end(Rows *r, GError **error) {
  if (!r->of->item->sums) return true;
  const bool ok = fk_pack_end(&r->packed, error);
  if (r->of->sum_us) *r->of->sum_us += r->packed.sum_us;
  return ok;
}

/* Reads a chunk whose elements are not the file's: by blocks of rows that fit a cache. */
static bool read_blocks(const FkReading *t, GError **error) {
  const FkItem *item = t->item;
  const size_t row = (size_t)item->cols * fk_dtype_size(item->from), row_work = (size_t)item->cols * sizeof(float);
  const int64_t block = MIN(t->rows, MAX(1, BLOCK_BYTES / (int64_t)row));
  g_autofree char *raw = g_try_malloc((size_t)block * row), *work = g_try_malloc((size_t)block * row_work);
  if (!raw || !work) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "an allocation of %zu bytes was refused",
                (size_t)block * (raw ? row_work : row));
    return false;
  }
  g_autoptr(FkNumbers) coded = NULL;
  if (fk_item_coded(item)) {
    coded = fk_numbers_begin(&item->source, item->cols, t->first, t->rows, error);
    if (!coded) return false;
  }
  const FkDeltas *deltas = t->raw ? NULL : item->deltas;
  g_autoptr(FkDeltaRun) run = deltas ? fk_delta_begin(deltas, item->row + t->first, t->rows, error) : NULL;
  Rows rows;
  if ((deltas && !run) || !rows_begin(&rows, t, error)) return false;
  for (int64_t at = 0; at < t->rows; at += block) {
    const int64_t n = MIN(block, t->rows - at);
    if (!(coded ? fk_numbers_rows(coded, at, n, (void *)raw, error) : rows_next(&rows, raw, (size_t)n * row, error)))
      return false;
    if (run)
      finish_adapted(t, at, n, raw, work, run);
    else
      finish_rows(t, at, n, raw, work);
  }
  return rows_end(&rows, error);
}

static bool read_whole(const FkReading *t, GError **error) {
  const size_t bytes = (size_t)(t->rows * t->item->cols) * fk_dtype_size(t->item->from);
  Rows rows;
  return rows_begin(&rows, t, error) && rows_next(&rows, t->to, bytes, error) && rows_end(&rows, error);
}

/* Codes and scales as the file has them. */
static bool take_codes(const FkReading *t, GError **error) {
  const FkItem *item = t->item;
  g_autoptr(FkNumbers) numbers = fk_numbers_begin(&item->source, item->cols, t->first, t->rows, error);
  return numbers && fk_numbers_take(numbers, t->to, t->scales, error);
}

/* Scales of a matrix that stays as its file has it. */
static bool read_scales(const FkReading *t, GError **error) {
  const FkItem *item = t->item;
  g_autoptr(FkNumbers) numbers = fk_numbers_begin(&item->source, item->numbers, t->first, t->rows, error);
  if (!numbers) return false;
  const FkCoded *rows = fk_numbers_scales(numbers);
  const void *from = item->kind == FK_ITEM_ROW_SCALES ? (const void *)rows->row_scale : rows->block_scale;
  memcpy(t->to, from, (size_t)(t->rows * item->cols) * fk_dtype_size(item->as));
  return true;
}

bool fk_reading_run(const FkReading *t, GError **error) {
  const FkItem *item = t->item;
  if (item->kind == FK_ITEM_ROW_SCALES || item->kind == FK_ITEM_BLOCK_SCALES) return read_scales(t, error);
  if (fk_item_takes_codes(item)) return take_codes(t, error);
  const bool as_filed = t->raw ? !fk_item_coded(item) : !fk_item_made_by_reader(item);
  const bool whole = t->as == item->from && item->taps == 1 && as_filed;
  return whole ? read_whole(t, error) : read_blocks(t, error);
}
