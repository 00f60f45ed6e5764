/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes of a checkpoint into backend memory. The work is a list of chunks: whole rows, up to about 16 MiB. Readers
 * fill up to WINDOW of them at once, several one chunk where it has to be computed; the calling thread places them in
 * order, reports and looks for cancellation.
 *
 * A backend with stage and commit gets the file's own bytes in its pinned staging buffers and converts on its side. One
 * without has its memory in the host's address space (CPU): readers convert through a small buffer straight into place.
 * Either way no tensor is held twice. Four things are done by the readers for both: convolutions are transposed; rows
 * of quantised matrices become codes, for which a row's largest number must be known before its first code; codes of
 * the file become numbers (numbers.h); and adapters are added to the numbers in float32. Where none of the others is
 * to be done, a backend with commit_codes makes the codes on its side, the same bit by bit. */
#include "weights-internal.h"

#include "cpu.h" /* FK_CPU_CLONES */
#include "file.h"
#include "fk-error.h"
#include "ops.h"
#include "quantize.h"
#include "sum.h"

#include <string.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif

#define CHUNK_BYTES (16 << 20)
#define BUFFERS 8               /* staging buffers of a backend, see FkOps.stage */
#define WINDOW (BUFFERS - 1)    /* one buffer is being copied while the others are read */
#define BLOCK_BYTES (256 << 10) /* of conversion: stays in the second-level cache */
#define PROGRESS_BYTES (8 << 20)
#define PIECE_ROWS 64
#define PIECES 4 /* of a chunk that readers make: sums of adapters and codes take longer than reading */

_Static_assert(CHUNK_BYTES == FK_SUM_CHUNK, "a packed group is read in the chunks that its sums are of");

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors are little-endian, and values are taken as they lie"
#endif

typedef struct {
  const FkItem *item;
  int64_t first, rows; /* of the item */
} Chunk;

typedef struct Transfer Transfer;

/* Rows of a chunk for one reader. */
typedef struct {
  Transfer *of;
  int64_t at, rows; /* of the chunk */
} Piece;

/* A chunk under way from the file to its place. */
struct Transfer {
  FkBinder *b;
  const Chunk *chunk;
  void *to;             /* staging buffer, or the chunk's place in host memory */
  FkDtype as;           /* of `to` */
  float *scales;        /* of codes: where they go, or a buffer of the transfer's own until they are uploaded */
  bool committed_codes; /* the backend makes codes and scales of what is in `to` */
  Piece pieces[PIECES];
  int left;      /* pieces that are not there */
  GError *error; /* the first piece's that has one */
};

typedef struct {
  FkBinder *b;
  GHashTable *only; /* canonical names of what is read; NULL: everything */
  int group;        /* of the store; STAY: of all that stay in memory */
  GArray *chunks;   /* Chunk */
  int64_t total;    /* bytes of memory that they fill */
  size_t largest;   /* bytes of one chunk in a staging buffer */
  Transfer transfers[BUFFERS];
  GMutex lock;
  GCond done;
  int stop; /* atomic: readers leave what is queued */
} Loader;

/* The CPU backend may have the slots too; its memory is the host's, so chunks go straight into place. */
static bool staged(const FkBackend *be) {
  return be->ops->stage && strcmp(be->ops->name, "cpu");
}

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
static void finish_adapted(const Transfer *t, int64_t at, int64_t n, void *raw, void *work, const FkDeltaRun *run) {
  const FkItem *item = t->chunk->item;
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
static void finish_rows(const Transfer *t, int64_t at, int64_t n, void *raw, void *work) {
  const FkItem *item = t->chunk->item;
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

/* Reads a chunk whose elements are not the file's: by blocks of rows that fit a cache. */
static bool read_blocks(const Transfer *t, GError **error) {
  const Chunk *c = t->chunk;
  const FkItem *item = c->item;
  const size_t row = (size_t)item->cols * fk_dtype_size(item->from), row_work = (size_t)item->cols * sizeof(float);
  const int64_t block = MIN(c->rows, MAX(1, BLOCK_BYTES / (int64_t)row));
  g_autofree char *raw = g_try_malloc((size_t)block * row), *work = g_try_malloc((size_t)block * row_work);
  if (!raw || !work) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "an allocation of %zu bytes was refused",
                (size_t)block * (raw ? row_work : row));
    return false;
  }
  g_autoptr(FkNumbers) coded = NULL;
  if (fk_numbers_coded(&item->source)) {
    coded = fk_numbers_begin(&item->source, item->cols, c->first, c->rows, error);
    if (!coded) return false;
  }
  g_autoptr(FkDeltaRun) run = item->deltas ? fk_delta_begin(item->deltas, item->row + c->first, c->rows, error) : NULL;
  if (item->deltas && !run) return false;
  for (int64_t at = 0; at < c->rows; at += block) {
    const int64_t n = MIN(block, c->rows - at);
    const uint64_t offset = (uint64_t)(item->source.first_row + c->first + at) * row;
    if (!(coded ? fk_numbers_rows(coded, at, n, (void *)raw, error)
                : fk_safetensors_read(item->source.file, item->source.tensor, offset, raw, (size_t)n * row, error)))
      return false;
    if (run)
      finish_adapted(t, at, n, raw, work, run);
    else
      finish_rows(t, at, n, raw, work);
  }
  return true;
}

static bool read_whole(const Transfer *t, GError **error) {
  const FkItem *item = t->chunk->item;
  const size_t row = (size_t)item->cols * fk_dtype_size(item->from);
  const uint64_t offset = (uint64_t)(item->source.first_row + t->chunk->first) * row;
  const size_t bytes = (size_t)t->chunk->rows * row;
  return fk_safetensors_read(item->source.file, item->source.tensor, offset, t->to, bytes, error) &&
         (!item->sums || fk_pack_check(item->sums, offset, t->to, bytes, error));
}

/* Scales of a matrix that stays as its file has it. */
static bool read_scales(const Transfer *t, GError **error) {
  const Chunk *c = t->chunk;
  const FkItem *item = c->item;
  g_autoptr(FkNumbers) numbers = fk_numbers_begin(&item->source, item->numbers, c->first, c->rows, error);
  if (!numbers) return false;
  const FkCoded *rows = fk_numbers_scales(numbers);
  const void *from = item->kind == FK_ITEM_ROW_SCALES ? (const void *)rows->row_scale : rows->block_scale;
  memcpy(t->to, from, (size_t)(c->rows * item->cols) * fk_dtype_size(item->as));
  return true;
}

static bool read_rows(const Transfer *t, GError **error) {
  const FkItem *item = t->chunk->item;
  if (item->kind == FK_ITEM_ROW_SCALES || item->kind == FK_ITEM_BLOCK_SCALES) return read_scales(t, error);
  const bool plain = t->committed_codes || !fk_item_made_by_reader(item);
  const bool whole = t->as == item->from && item->taps == 1 && plain;
  if (t->scales) g_atomic_int_add(&t->b->coded_rows, (int)t->chunk->rows);
  return whole ? read_whole(t, error) : read_blocks(t, error);
}

static void read_piece(gpointer data, gpointer user_data) {
  const Piece *piece = data;
  Transfer *t = piece->of;
  Loader *loader = user_data;
  GError *error = NULL;
  const Chunk chunk = {t->chunk->item, t->chunk->first + piece->at, piece->rows};
  const size_t row = (size_t)chunk.item->cols * fk_dtype_size(t->as);
  const Transfer own = {.b = t->b,
                        .chunk = &chunk,
                        .to = (char *)t->to + (size_t)piece->at * row,
                        .as = t->as,
                        .scales = t->scales ? t->scales + piece->at : NULL,
                        .committed_codes = t->committed_codes};
  if (!g_atomic_int_get(&loader->stop)) read_rows(&own, &error); /* else nobody waits for this chunk any more */
  g_mutex_lock(&loader->lock);
  if (!t->error)
    t->error = error;
  else
    g_clear_error(&error);
  if (--t->left == 0) g_cond_signal(&loader->done);
  g_mutex_unlock(&loader->lock);
}

/* To the readers, whole or in pieces of whole groups of rows. */
static void push_pieces(GThreadPool *pool, Transfer *t) {
  const int64_t rows = t->chunk->rows;
  const bool made = fk_item_made_by_reader(t->chunk->item) && !t->committed_codes;
  const bool cut = made && rows >= PIECES * PIECE_ROWS;
  const int64_t each = cut ? (rows / PIECES + PIECE_ROWS - 1) / PIECE_ROWS * PIECE_ROWS : rows;
  int n = 0;
  for (int64_t at = 0; at < rows; at += each) t->pieces[n++] = (Piece){t, at, MIN(each, rows - at)};
  t->left = n; /* nobody looks at it before the first is pushed */
  for (int i = 0; i < n; i++) g_thread_pool_push(pool, &t->pieces[i], NULL);
}

/* ---- The calling thread ---- */

enum { STAY = -1 };

/* Items are read in passes: of what stays, and of each group that has a slot. */
static bool in_pass(const Loader *loader, const FkItem *item) {
  const FkStore *s = &loader->b->store;
  if (loader->only && !g_hash_table_contains(loader->only, item->name)) return false;
  if (!fk_store_streams(s)) return true;
  const int group = fk_store_group_at(s, item->place);
  return loader->group == STAY ? fk_store_at(s, group)->slot < 0 : group == loader->group;
}

static void cut_chunks(Loader *loader) {
  for (guint i = 0; i < loader->b->items->len; i++) {
    const FkItem *item = &g_array_index(loader->b->items, FkItem, i);
    if (!in_pass(loader, item)) continue;
    const FkDtype wider = fk_dtype_size(item->from) > fk_dtype_size(item->as) ? item->from : item->as;
    const int64_t row = item->cols * (int64_t)fk_dtype_size(wider), most = MAX(1, CHUNK_BYTES / row);
    for (int64_t first = 0; first < item->rows; first += most) {
      Chunk chunk = {item, first, MIN(most, item->rows - first)};
      g_array_append_val(loader->chunks, chunk);
      loader->total += chunk.rows * item->cols * (int64_t)fk_dtype_size(item->as);
      loader->largest = MAX(loader->largest, (size_t)(chunk.rows * row));
    }
  }
}

static char *chunk_place(const Loader *loader, const Chunk *c) {
  return (char *)fk_store_address(&loader->b->store, c->item->place) +
         (size_t)(c->first * c->item->cols) * fk_dtype_size(c->item->as);
}

static float *scales_place(const Loader *loader, const Chunk *c) {
  return (float *)fk_store_address(&loader->b->store, c->item->scale) + c->first;
}

/* Hands a chunk to the readers. False when there is no buffer for it; *error or the backend says why. */
static bool start_chunk(Loader *loader, GThreadPool *pool, guint index, GError **error) {
  FkBackend *be = loader->b->be;
  Transfer *t = &loader->transfers[index % BUFFERS];
  const Chunk *c = &g_array_index(loader->chunks, Chunk, index);
  const bool codes = fk_item_quantised(c->item);
  *t = (Transfer){.b = loader->b, .chunk = c, .to = chunk_place(loader, c), .as = c->item->as};
  if (!staged(be)) {
    t->scales = codes ? scales_place(loader, c) : NULL;
    return push_pieces(pool, t), true;
  }
  t->committed_codes = codes && fk_item_commits_codes(be, c->item);
  t->as = fk_item_made_by_reader(c->item) && !t->committed_codes ? c->item->as : c->item->from;
  /* Always the largest size, so that a buffer is made once. */
  t->to = be->ops->stage(be, (int)(index % BUFFERS), loader->largest);
  if (!t->to || be->failure) return false;
  const bool made = codes && !t->committed_codes;
  t->scales = made ? g_try_new(float, (gsize)c->rows) : NULL;
  if (made && !t->scales) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: an allocation of %zu bytes was refused",
                fk_part_name(loader->b->part), (size_t)c->rows * sizeof(float));
    return false;
  }
  return push_pieces(pool, t), true;
}

/* Waits for a chunk and places it. */
static bool finish_chunk(Loader *loader, guint index, GError **error) {
  FkBackend *be = loader->b->be;
  Transfer *t = &loader->transfers[index % BUFFERS];
  const Chunk *c = t->chunk;
  g_mutex_lock(&loader->lock);
  while (t->left) g_cond_wait(&loader->done, &loader->lock);
  g_mutex_unlock(&loader->lock);
  if (t->error) {
    g_autofree char *shown = fk_shown_name(c->item->source.tensor->name);
    g_propagate_prefixed_error(error, g_steal_pointer(&t->error), "%s: tensor \"%s\": ", fk_part_name(loader->b->part),
                               shown);
    return false;
  }
  if (!staged(be)) return true;
  if (t->committed_codes) {
    be->ops->commit_codes(be, (int)(index % BUFFERS), chunk_place(loader, c), scales_place(loader, c), t->as, c->rows,
                          c->item->cols);
    g_atomic_int_add(&loader->b->coded_rows, (int)c->rows);
    return be->failure == FK_FAIL_NONE;
  }
  be->ops->commit(be, (int)(index % BUFFERS), chunk_place(loader, c), c->item->as, t->as,
                  (size_t)(c->rows * c->item->cols));
  if (t->scales && !be->failure)
    be->ops->upload(be, scales_place(loader, c), t->scales, (size_t)c->rows * sizeof(float));
  g_clear_pointer(&t->scales, g_free);
  return be->failure == FK_FAIL_NONE;
}

/* False with *error, or without it when the backend has failed. */
static bool run_chunks(Loader *loader, GThreadPool *pool, GCancellable *cancellable, FkLoadProgress progress,
                       void *user_data, GError **error) {
  const guint n = loader->chunks->len;
  const int64_t total = loader->total;
  int64_t done = 0, reported = 0;
  if (progress) progress(n ? 0 : total, total, user_data);
  for (guint started = 0, finished = 0;;) {
    if (g_cancellable_is_cancelled(cancellable)) {
      g_set_error(error, FK_ERROR, FK_ERROR_CANCELLED, "%s: loading was cancelled", fk_part_name(loader->b->part));
      return false;
    }
    if (finished == n) return true;
    for (; started < n && started - finished < WINDOW; started++)
      if (!start_chunk(loader, pool, started, error)) return false;
    if (!finish_chunk(loader, finished, error)) return false;
    const Chunk *c = &g_array_index(loader->chunks, Chunk, finished++);
    /* The last chunk also accounts for scales and the gaps of alignment. */
    done = finished == n ? total : done + c->rows * c->item->cols * (int64_t)fk_dtype_size(c->item->as);
    if (!progress || (done - reported < PROGRESS_BYTES && finished < n)) continue;
    progress(done, total, user_data);
    reported = done;
  }
}

/* The backend's own failure as an error. */
static void take_failure(FkBinder *b, GError **error) {
  FkBackend *be = b->be;
  FkError code = be->dead ? FK_ERROR_DEVICE_LOST : be->failure == FK_FAIL_MEMORY ? FK_ERROR_MEMORY : FK_ERROR_DEVICE;
  g_set_error(error, FK_ERROR, code, "%s: loading: %s", fk_part_name(b->part),
              be->failure ? be->message : "the backend has no buffer");
}

static void clear_transfers(Loader *loader) {
  for (int i = 0; i < BUFFERS; i++) {
    Transfer *t = &loader->transfers[i];
    g_clear_error(&t->error);
    if (staged(loader->b->be)) g_free(t->scales);
  }
}

/* One pass. only: canonical names; NULL: all of it. */
static bool read_pass(FkBinder *b, int group, GHashTable *only, GCancellable *cancellable, FkLoadProgress progress,
                      void *user_data, GError **error) {
  Loader loader = {.b = b, .only = only, .group = group};
  /* Exclusive: its threads start here, and fewer will do. */
  const int threads = CLAMP((int)g_get_num_processors(), WINDOW, WINDOW * PIECES);
  GThreadPool *pool = g_thread_pool_new(read_piece, &loader, threads, TRUE, NULL);
  if (g_thread_pool_get_num_threads(pool) == 0) {
    g_thread_pool_free(pool, TRUE, FALSE);
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: no thread can be started to read the weights",
                fk_part_name(b->part));
    return false;
  }
  loader.chunks = g_array_new(FALSE, FALSE, sizeof(Chunk));
  g_mutex_init(&loader.lock);
  g_cond_init(&loader.done);
  if (strcmp(b->be->ops->name, "null")) cut_chunks(&loader); /* the null backend's addresses are made up */
  g_autoptr(GError) local = NULL;
  bool ok = run_chunks(&loader, pool, cancellable, progress, user_data, &local);
  g_atomic_int_set(&loader.stop, 1);
  g_thread_pool_free(pool, FALSE, TRUE); /* waits: readers hold buffers and the loader */
  clear_transfers(&loader);
  g_array_unref(loader.chunks);
  g_mutex_clear(&loader.lock);
  g_cond_clear(&loader.done);
  /* Copies may still be under way into memory that a failure gives back. */
  bool synced = !staged(b->be) || fk_backend_sync(b->be);
  if (local)
    g_propagate_error(error, g_steal_pointer(&local));
  else if (!ok || !synced)
    take_failure(b, error);
  return ok && synced;
}

/* Bytes of one pass, seen as bytes of all; what its chunks leave out (scales, gaps) is counted with the last pass. */
typedef struct {
  FkLoadProgress progress;
  void *user_data;
  int64_t before, last, total;
} Passes;

static void forward(int64_t done, int64_t total, void *user_data) {
  Passes *p = user_data;
  (void)total;
  p->last = done;
  if (p->progress && p->before + done < p->total) p->progress(p->before + done, p->total, p->user_data);
}

/* A group with a slot goes through it to the host copy, in the form that it has in memory. only: what is not read again
 * stays as the copy has it. */
static bool read_streamed(FkBinder *b, int group, GHashTable *only, GCancellable *cancellable, Passes *passes,
                          GError **error) {
  FkStore *s = &b->store;
  const FkGroup *g = fk_store_at(s, group);
  char *slot = (char *)s->memory + g->where, *host = (char *)s->host + g->host_at;
  const bool null = !strcmp(s->be->ops->name, "null"); /* its addresses are made up */
  if (only && !null) s->be->ops->upload(s->be, slot, host, g->bytes);
  if (!read_pass(b, group, only, cancellable, forward, passes, error)) return false;
  if (!null) s->be->ops->download(s->be, host, slot, g->bytes);
  return true;
}

/* Any item of the group is asked for. */
static bool touches(const FkBinder *b, int group, GHashTable *only) {
  const Loader loader = {.b = (FkBinder *)b, .only = only, .group = group};
  for (guint i = 0; i < b->items->len; i++)
    if (in_pass(&loader, &g_array_index(b->items, FkItem, i))) return true;
  return false;
}

static bool read_ring(FkBinder *b, GHashTable *only, GCancellable *cancellable, Passes *passes, GError **error) {
  FkStore *s = &b->store;
  bool ok = true;
  fk_store_settle(s);
  for (int g = 0; ok && g < (int)s->groups->len; g++) {
    if (fk_store_at(s, g)->slot < 0 || !touches(b, g, only)) continue;
    ok = read_streamed(b, g, only, cancellable, passes, error);
    passes->before += passes->last;
    passes->last = 0;
  }
  for (int i = 0; i < s->slots; i++) fk_op_stream_done(s->be, i);
  if (ok && s->be->failure) take_failure(b, error);
  return ok && !s->be->failure;
}

/* only: canonical names; NULL: all. */
static bool read_all(FkBinder *b, GHashTable *only, GCancellable *cancellable, FkLoadProgress progress, void *user_data,
                     GError **error) {
  FkStore *s = &b->store;
  const bool kept = !only && fk_store_restore(s);
  if (only) s->kept_filled = false;
  Passes passes = {progress, user_data, 0, 0, only ? fk_binder_reload_bytes(b, only) : (int64_t)s->bytes};
  if (!kept && !read_pass(b, STAY, only, cancellable, forward, &passes, error)) return false;
  passes.before = passes.last;
  passes.last = 0;
  if (fk_store_streams(s) && (only || !s->host_filled)) {
    if (!fk_store_alloc_host(s, fk_part_name(b->part), error)) return false;
    if (!read_ring(b, only, cancellable, &passes, error)) return false;
    s->host_filled = true;
  }
  if (progress) progress(passes.total, passes.total, user_data);
  return true;
}

static void *address(const FkBinder *b, size_t place) {
  return fk_store_address(&b->store, place);
}

static void set_coded(const FkBinder *b, FkTarget *t) {
  t->weight->data = NULL;
  for (int i = 0; i < t->parts; i++) {
    FkCoded *c = &t->coded[i];
    c->codes = address(b, t->coded_place[i].codes);
    if (c->form.row_scale) c->row_scale = address(b, t->coded_place[i].row_scale);
    if (c->form.block) c->block_scale = address(b, t->coded_place[i].block_scale);
  }
}

/* To where the weights are now, or to NULL. */
static void set_targets(FkBinder *b) {
  for (guint i = 0; i < b->targets->len; i++) {
    FkTarget *t = &g_array_index(b->targets, FkTarget, i);
    if (t->tensor) t->tensor->data = address(b, t->place);
    if (t->weight) t->weight->data = address(b, t->place);
    if (t->weight && t->weight->scale.kind) t->weight->scale.data = address(b, t->scale);
    if (t->full) t->full->data = address(b, t->full_place);
    if (t->odd) t->odd->data = address(b, t->odd_place);
    if (t->odd) t->odd->scale.data = address(b, t->odd_scale);
    if (t->coded) set_coded(b, t);
  }
}

bool fk_binder_load(FkBinder *b, GCancellable *cancellable, FkLoadProgress progress, void *user_data, GError **error) {
  assert(!b->problems->len);
  if (!b->component && !b->packed) return true;
  if (!fk_store_alloc(&b->store, fk_part_name(b->part), error)) return false;
  if (read_all(b, NULL, cancellable, progress, user_data, error)) {
    set_targets(b);
    return true;
  }
  fk_store_release(&b->store);
  return false;
}

void fk_binder_release(FkBinder *b) {
  fk_store_release(&b->store);
  set_targets(b);
}

bool fk_binder_reload(FkBinder *b, GHashTable *names, GCancellable *cancellable, FkLoadProgress progress,
                      void *user_data, GError **error) {
  if (!b->component || !b->store.memory || g_hash_table_size(names) == 0) return true;
  return read_all(b, names, cancellable, progress, user_data, error);
}

/* An item of codes as one of the numbers that they are. */
static void as_numbers(FkItem *item) {
  item->kind = FK_ITEM_NUMBERS;
  item->cols = item->numbers;
  if (fk_numbers_coded(&item->source) || !fk_st_type_usable(item->source.tensor, &item->from)) item->from = FK_F32;
}

bool fk_binder_read(const FkBinder *b, const char *canonical, int64_t first, int64_t rows, float *to, GError **error) {
  const FkBound *bound = fk_binder_find(b, canonical);
  if (b->packed) {
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: a packed model has no tensors, and \"%s\" is asked for",
                fk_part_name(b->part), canonical);
    return false;
  }
  int64_t left = rows; /* a tensor may be in several items, and its twin in as many more */
  for (guint i = 0; i < b->items->len && left > 0; i++) {
    FkItem item = g_array_index(b->items, FkItem, i);
    const int64_t begin = MAX(first, item.row), end = MIN(first + rows, item.row + item.rows);
    if (item.name != bound->name || begin >= end || item.kind > FK_ITEM_CODES) continue;
    if (item.kind == FK_ITEM_CODES) as_numbers(&item);
    item.deltas = NULL;
    item.as = FK_F32;
    const Chunk chunk = {&item, begin - item.row, end - begin};
    const Transfer t = {.chunk = &chunk, .to = to + (begin - first) * item.cols, .as = FK_F32};
    if (!read_rows(&t, error)) return false;
    left -= end - begin;
  }
  return true;
}
