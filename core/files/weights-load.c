/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes of a checkpoint into backend memory. The work is a list of pieces of at most 16 MiB of file; readers fill up to
 * WINDOW of them at once, the calling thread places them in order, reports and looks for cancellation.
 *
 * A backend with stage and commit gets the file's own bytes in its pinned buffers and converts on its side. One without
 * has its memory in the host's address space (CPU): readers convert through a small buffer straight into place. Either
 * way no tensor is held twice. Convolutions are transposed by the reader, as both sides then want the same order. */
#include "weights-internal.h"

#include "fk-error.h"
#include "number.h"

#include <string.h>

#define PIECE_BYTES (16 << 20)
#define BUFFERS 8               /* stage buffers of a backend, see FkOps.stage */
#define WINDOW (BUFFERS - 1)    /* one buffer is being copied while the others are read */
#define CHUNK_BYTES (256 << 10) /* of conversion: stays in the second-level cache */
#define PROGRESS_BYTES (16 << 20)

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors are little-endian, and values are taken as they lie"
#endif

typedef struct {
  const FkItem *item;
  int64_t first, count; /* elements of the item; whole rows if it is transposed */
} Piece;

typedef struct {
  const Piece *piece;
  void *to;   /* stage buffer, or the piece's place in host memory */
  FkDtype as; /* of `to` */
  bool ready;
  GError *error;
} Slot;

typedef struct {
  FkBinder *b;
  GArray *pieces; /* Piece */
  size_t largest; /* bytes of file of one piece */
  Slot slots[BUFFERS];
  GMutex lock;
  GCond done;
  int stop; /* atomic: readers leave what is queued */
} Loader;

/* ---- Numbers ---- */

/* n elements; `to` and `from` do not overlap and are aligned to their types. */
static void convert(void *to, FkDtype as, const void *from, FkDtype dtype, int64_t n) {
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

/* Reads a piece by chunks of whole rows (or of elements, where rows do not matter), converts, transposes. */
static bool read_chunks(const Slot *slot, GError **error) {
  const Piece *p = slot->piece;
  const FkItem *item = p->item;
  const size_t from_size = fk_dtype_size(item->from), as_size = fk_dtype_size(slot->as);
  const int64_t row = item->taps > 1 ? item->cols : 1;
  const int64_t chunk = MIN(p->count, MAX(1, CHUNK_BYTES / (int64_t)from_size / row) * row);
  g_autofree char *raw = g_malloc((size_t)chunk * from_size);
  g_autofree char *converted = item->taps > 1 ? g_malloc((size_t)chunk * as_size) : NULL;
  for (int64_t at = 0; at < p->count; at += chunk) {
    const int64_t n = MIN(chunk, p->count - at);
    char *to = (char *)slot->to + (size_t)at * as_size, *flat = converted ? converted : to;
    const uint64_t offset = (uint64_t)(p->first + at) * from_size;
    bool same = slot->as == item->from;
    if (!fk_safetensors_read(item->file, item->source, offset, same ? flat : raw, (size_t)n * from_size, error))
      return false;
    if (!same) convert(flat, slot->as, raw, item->from, n);
    for (int64_t r = 0; converted && r < n; r += row)
      transpose_row(to + (size_t)r * as_size, flat + (size_t)r * as_size, row / item->taps, item->taps, as_size);
  }
  return true;
}

static void read_piece(gpointer data, gpointer user_data) {
  Slot *slot = data;
  Loader *loader = user_data;
  const FkItem *item = slot->piece->item;
  const size_t size = fk_dtype_size(item->from);
  GError *error = NULL;
  if (g_atomic_int_get(&loader->stop)) {
    /* Nobody waits for this piece any more. */
  } else if (slot->as == item->from && item->taps == 1) {
    fk_safetensors_read(item->file, item->source, (uint64_t)slot->piece->first * size, slot->to,
                        (size_t)slot->piece->count * size, &error);
  } else {
    read_chunks(slot, &error);
  }
  g_mutex_lock(&loader->lock);
  slot->error = error;
  slot->ready = true;
  g_cond_signal(&loader->done);
  g_mutex_unlock(&loader->lock);
}

/* ---- The calling thread ---- */

/* The CPU backend may have the slots too; its memory is the host's, so pieces go straight into place. */
static bool staged(const FkBackend *be) {
  return be->ops->stage && strcmp(be->ops->name, "cpu");
}

static void cut_pieces(Loader *loader) {
  for (guint i = 0; i < loader->b->items->len; i++) {
    const FkItem *item = &g_array_index(loader->b->items, FkItem, i);
    const int64_t size = (int64_t)fk_dtype_size(item->from), total = item->rows * item->cols;
    const int64_t row = item->taps > 1 ? item->cols : 1, most = MAX(1, PIECE_BYTES / size / row) * row;
    for (int64_t first = 0; first < total; first += most) {
      Piece piece = {item, first, MIN(most, total - first)};
      g_array_append_val(loader->pieces, piece);
      loader->largest = MAX(loader->largest, (size_t)(piece.count * size));
    }
  }
}

static char *piece_place(const Loader *loader, const Piece *piece) {
  return (char *)loader->b->memory + piece->item->place + (size_t)piece->first * fk_dtype_size(piece->item->as);
}

/* Hands a piece to the readers. False when the backend has no buffer for it. */
static bool start_piece(Loader *loader, GThreadPool *pool, guint index) {
  FkBackend *be = loader->b->be;
  Slot *slot = &loader->slots[index % BUFFERS];
  const Piece *piece = &g_array_index(loader->pieces, Piece, index);
  *slot = (Slot){.piece = piece, .to = piece_place(loader, piece), .as = piece->item->as};
  if (staged(be)) {
    slot->as = piece->item->from;
    /* Always the largest size, so that a buffer is made once. */
    slot->to = be->ops->stage(be, (int)(index % BUFFERS), loader->largest);
    if (!slot->to || be->failure) return false;
  }
  return g_thread_pool_push(pool, slot, NULL), true;
}

/* Waits for a piece and places it. */
static bool finish_piece(Loader *loader, guint index, GError **error) {
  FkBackend *be = loader->b->be;
  Slot *slot = &loader->slots[index % BUFFERS];
  g_mutex_lock(&loader->lock);
  while (!slot->ready) g_cond_wait(&loader->done, &loader->lock);
  g_mutex_unlock(&loader->lock);
  if (slot->error) {
    g_propagate_prefixed_error(error, g_steal_pointer(&slot->error), "%s: tensor \"%.120s\": ", loader->b->what,
                               slot->piece->item->source->name);
    return false;
  }
  if (!staged(be)) return true;
  be->ops->commit(be, (int)(index % BUFFERS), piece_place(loader, slot->piece), slot->piece->item->as, slot->as,
                  (size_t)slot->piece->count);
  return be->failure == FK_FAIL_NONE;
}

/* False with *error, or without it when the backend has failed. */
static bool run_pieces(Loader *loader, GThreadPool *pool, GCancellable *cancellable, FkLoadProgress progress,
                       void *user_data, GError **error) {
  const guint n = loader->pieces->len;
  const int64_t total = (int64_t)loader->b->bytes;
  int64_t done = 0, told = 0;
  if (progress) progress(n ? 0 : total, total, user_data);
  for (guint started = 0, finished = 0;;) {
    if (g_cancellable_is_cancelled(cancellable)) {
      g_set_error(error, FK_ERROR, FK_ERROR_CANCELLED, "%s: loading was cancelled", loader->b->what);
      return false;
    }
    if (finished == n) return true;
    for (; started < n && started - finished < WINDOW; started++)
      if (!start_piece(loader, pool, started)) return false;
    if (!finish_piece(loader, finished, error)) return false;
    const Piece *piece = &g_array_index(loader->pieces, Piece, finished++);
    /* The last piece also accounts for the gaps of alignment. */
    done = finished == n ? total : done + piece->count * (int64_t)fk_dtype_size(piece->item->as);
    if (!progress || (done - told < PROGRESS_BYTES && finished < n)) continue;
    progress(done, total, user_data);
    told = done;
  }
}

/* The backend's own failure as an error. */
static void take_failure(FkBinder *b, GError **error) {
  FkBackend *be = b->be;
  FkError code = be->failure == FK_FAIL_MEMORY ? FK_ERROR_MEMORY : be->dead ? FK_ERROR_DEVICE_LOST : FK_ERROR_DEVICE;
  g_set_error(error, FK_ERROR, code, "%s: loading: %s", b->what,
              be->failure ? be->message : "the backend has no buffer");
}

static bool read_all(FkBinder *b, GCancellable *cancellable, FkLoadProgress progress, void *user_data, GError **error) {
  Loader loader = {.b = b};
  /* Exclusive: its threads start here, and fewer than WINDOW will do. */
  GThreadPool *pool = g_thread_pool_new(read_piece, &loader, WINDOW, TRUE, NULL);
  if (g_thread_pool_get_num_threads(pool) == 0) {
    g_thread_pool_free(pool, TRUE, FALSE);
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: no thread can be started to read the weights", b->what);
    return false;
  }
  loader.pieces = g_array_new(FALSE, FALSE, sizeof(Piece));
  g_mutex_init(&loader.lock);
  g_cond_init(&loader.done);
  if (strcmp(b->be->ops->name, "null")) cut_pieces(&loader); /* the null backend's addresses are made up */
  g_autoptr(GError) local = NULL;
  bool ok = run_pieces(&loader, pool, cancellable, progress, user_data, &local);
  g_atomic_int_set(&loader.stop, 1);
  g_thread_pool_free(pool, FALSE, TRUE); /* waits: readers hold buffers and the loader */
  for (int i = 0; i < BUFFERS; i++) g_clear_error(&loader.slots[i].error);
  g_array_unref(loader.pieces);
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

static void set_targets(FkBinder *b) {
  for (guint i = 0; i < b->targets->len; i++) {
    FkTarget *target = &g_array_index(b->targets, FkTarget, i);
    char *data = (char *)b->memory + target->place;
    if (target->weight)
      target->weight->data = data;
    else
      target->tensor->data = data;
  }
}

static bool refuse_memory(FkBinder *b, GError **error) {
  size_t free_bytes = 0, total_bytes = 0;
  if (b->be->ops->memory) b->be->ops->memory(b->be, &free_bytes, &total_bytes);
  g_set_error(error, FK_ERROR, FK_ERROR_MEMORY,
              "%s: expected %" G_GSIZE_FORMAT " bytes of memory on %s for the weights, found %" G_GSIZE_FORMAT " free",
              b->what, b->bytes, b->be->machine, free_bytes);
  return false;
}

bool fk_binder_load(FkBinder *b, GCancellable *cancellable, FkLoadProgress progress, void *user_data, GError **error) {
  assert(!b->memory && !b->first);
  if (!b->component) return true;
  b->memory = b->be->ops->alloc(b->be, b->bytes);
  if (!b->memory) return refuse_memory(b, error);
  if (read_all(b, cancellable, progress, user_data, error)) {
    set_targets(b);
    return true;
  }
  b->be->ops->release(b->be, b->memory);
  b->memory = NULL;
  return false;
}
