/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes of a checkpoint into backend memory. The work is a list of chunks: whole rows, up to about 16 MiB. Readers
 * (weights-read.c) fill up to WINDOW of them at once, several a large chunk, because one copies slower than a device
 * takes; the calling thread places them in order, reports and looks for cancellation.
 *
 * A backend with stage and commit gets the file's own bytes in its pinned staging buffers and converts on its side. One
 * without has its memory in the host's address space (CPU): readers convert through a small buffer straight into place.
 * Either way no tensor is held twice. What follows from rows as a whole is done by the readers for both, but for two
 * things that a backend may do on its side, the same bit by bit: codes of the file's own numbers (commit_codes), and
 * the sum of the products of adapters (commit_adapted), which needs no more than these where memory has the numbers. */
#include "weights-internal.h"

#include "file.h"
#include "fk-error.h"
#include "ops.h"
#include "pack.h"

#include <string.h>

#define CHUNK_BYTES (16 << 20)
#define BUFFERS FK_STAGING
#define WINDOW (BUFFERS - 1) /* one buffer is being copied while the others are read */
#define PROGRESS_BYTES (8 << 20)
#define PIECE_ROWS 64
#define PIECE_BYTES (1 << 20)
#define PIECES 4 /* of a chunk */

_Static_assert(CHUNK_BYTES == PIECES * FK_SUM_CHUNK, "a chunk of a packed group has one sum for each reader");

typedef struct {
  const FkItem *item;
  int64_t first, rows; /* of the item */
} Chunk;

typedef struct Transfer Transfer;

/* Rows of a chunk for one reader, or what a backend needs of adapters for all of them. */
typedef struct {
  Transfer *of;
  int64_t at, rows; /* of the chunk; rows 0: of adapters */
} Piece;

/* A chunk under way from the file to its place. */
struct Transfer {
  FkBinder *b;
  const Chunk *chunk;
  FkReading reading;  /* of the chunk; scales: where they go, or a buffer until they are uploaded */
  bool commits_codes; /* the backend makes codes and scales */
  bool adds;          /* the backend adds adapters: */
  FkAdapted adapted;
  Piece pieces[PIECES + 1];
  int left;      /* pieces that are not there */
  GError *error; /* the first piece's that has one */
};

typedef struct {
  FkBinder *b;
  GHashTable *only; /* canonical names of what is read; NULL: everything */
  bool again;       /* of everything: what adapters change of a packed model, over what was read */
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

/* ---- Readers ---- */

static bool read_rows(const Transfer *t, const Piece *piece, int64_t *sum_us, GError **error) {
  FkReading r = t->reading;
  r.sum_us = sum_us;
  r.first += piece->at;
  r.rows = piece->rows;
  r.to = (char *)r.to + (size_t)(piece->at * r.item->cols) * fk_dtype_size(r.as);
  if (r.scales) r.scales += piece->at;
  if (r.scales && !fk_item_takes_codes(r.item)) g_atomic_int_add(&t->b->coded_rows, (int)r.rows);
  return fk_reading_run(&r, error);
}

static bool read_operands(const Transfer *t, GError **error) {
  const FkItem *item = t->chunk->item;
  float *to = (float *)(void *)((char *)t->reading.to + fk_adapted_begin(&t->adapted));
  return fk_delta_operands(item->deltas, &t->adapted, item->row + t->chunk->first, to, error);
}

static void read_piece(gpointer data, gpointer user_data) {
  const Piece *piece = data;
  Transfer *t = piece->of;
  Loader *loader = user_data;
  GError *error = NULL;
  const bool stopped = g_atomic_int_get(&loader->stop); /* nobody waits for this chunk any more */
  const gint64 start = g_get_monotonic_time();
  int64_t sum_us = 0;
  if (!stopped && piece->rows)
    read_rows(t, piece, &sum_us, &error);
  else if (!stopped)
    read_operands(t, &error);
  const gint64 took = g_get_monotonic_time() - start;
  g_mutex_lock(&loader->lock);
  if (!t->error)
    t->error = error;
  else
    g_clear_error(&error);
  loader->b->times.reading_ms += (double)(took - sum_us) / 1000;
  loader->b->times.checking_ms += (double)sum_us / 1000;
  if (--t->left == 0) g_cond_signal(&loader->done);
  g_mutex_unlock(&loader->lock);
}

/* To the readers, whole or in pieces of whole groups of rows. */
static void push_pieces(GThreadPool *pool, Transfer *t) {
  const FkItem *item = t->chunk->item;
  const int64_t rows = t->adds && t->adapted.in_place ? 0 : t->chunk->rows;
  const bool made = fk_item_made_by_reader(item) && !t->reading.raw;
  const bool large = rows * item->cols * (int64_t)fk_dtype_size(item->from) >= PIECES * PIECE_BYTES;
  const bool cut = (made || large) && rows >= PIECES * PIECE_ROWS && !item->again; /* which reads whole sums' chunks */
  const int64_t even = cut ? (rows / PIECES + PIECE_ROWS - 1) / PIECE_ROWS * PIECE_ROWS : rows;
  const int64_t each = fk_item_whole_group(item) ? FK_SUM_CHUNK : even; /* its rows are bytes */
  int n = 0;
  if (t->adds) t->pieces[n++] = (Piece){t, 0, 0};
  for (int64_t at = 0; at < rows; at += each) t->pieces[n++] = (Piece){t, at, MIN(each, rows - at)};
  t->left = n; /* nobody looks at it before the first is pushed */
  for (int i = 0; i < n; i++) g_thread_pool_push(pool, &t->pieces[i], NULL);
}

/* ---- The calling thread ---- */

enum { STAY = -1 };

/* Items are read in passes: of what stays, and of each group that has a slot. */
static bool in_pass(const Loader *loader, const FkItem *item) {
  const FkStore *s = &loader->b->store;
  if (loader->only ? !fk_item_reloads(item, loader->only) : item->again != loader->again) return false;
  if (loader->again && !item->deltas) return false;
  if (!fk_store_streams(s)) return true;
  const int group = fk_store_group_at(s, item->place);
  return loader->group == STAY ? fk_store_at(s, group)->slot < 0 : group == loader->group;
}

/* The most rows of an item that a chunk has; *row and *fixed: bytes of a row, and of what comes with any number of
 * them, in a staging buffer. */
static int64_t chunk_rows(const Loader *loader, const FkItem *item, size_t *row, size_t *fixed) {
  const bool widened = fk_dtype_size(item->from) > fk_dtype_size(item->as) && !fk_item_takes_codes(item);
  const FkDtype wider = widened ? item->from : item->as;
  const size_t numbers = (size_t)item->cols * fk_dtype_size(wider);
  FkAdapted m;
  *row = numbers;
  *fixed = 0;
  if (staged(loader->b->be) && fk_item_adds(loader->b->be, item, &m)) {
    *row = (m.in_place ? 0 : numbers) + (size_t)fk_adapted_ranks(&m) * sizeof(float);
    *fixed = 256 + fk_adapted_right(&m); /* 256: fk_adapted_begin */
  }
  return MAX(1, (int64_t)((CHUNK_BYTES - *fixed) / MAX(*row, numbers)));
}

static void cut_chunks(Loader *loader) {
  for (guint i = 0; i < loader->b->items->len; i++) {
    const FkItem *item = &g_array_index(loader->b->items, FkItem, i);
    size_t row, fixed;
    if (!in_pass(loader, item)) continue;
    const int64_t most = chunk_rows(loader, item, &row, &fixed);
    for (int64_t first = 0; first < item->rows; first += most) {
      Chunk chunk = {item, first, MIN(most, item->rows - first)};
      g_array_append_val(loader->chunks, chunk);
      loader->total += chunk.rows * item->cols * (int64_t)fk_dtype_size(item->as);
      loader->largest = MAX(loader->largest, fixed + (size_t)chunk.rows * row);
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

/* What of the chunk the backend does, and what the readers put into its buffer. */
static void divide(Transfer *t, const FkBackend *be) {
  const FkItem *item = t->chunk->item;
  t->commits_codes = fk_item_quantised(item) && fk_item_commits_codes(be, item);
  t->adds = fk_item_adds(be, item, &t->adapted);
  t->adapted.rows = t->chunk->rows;
  t->reading.raw = t->commits_codes || t->adds;
  t->reading.as = fk_item_made_by_reader(item) && !t->reading.raw ? item->as : item->from;
}

/* Hands a chunk to the readers. False when there is no buffer for it; *error or the backend says why. */
static bool start_chunk(Loader *loader, GThreadPool *pool, guint index, GError **error) {
  FkBackend *be = loader->b->be;
  Transfer *t = &loader->transfers[index % BUFFERS];
  const Chunk *c = &g_array_index(loader->chunks, Chunk, index);
  const bool codes = fk_item_quantised(c->item);
  *t = (Transfer){.b = loader->b, .chunk = c, .reading = {c->item, c->first, c->rows, .as = c->item->as}};
  if (!staged(be)) {
    t->reading.to = chunk_place(loader, c);
    t->reading.scales = codes ? scales_place(loader, c) : NULL;
    return push_pieces(pool, t), true;
  }
  divide(t, be);
  /* Always the largest size, so that a buffer is made once. */
  const gint64 start = g_get_monotonic_time();
  t->reading.to = be->ops->stage(be, (int)(index % BUFFERS), loader->largest);
  loader->b->times.buffers_ms += (double)(g_get_monotonic_time() - start) / 1000;
  if (!t->reading.to || be->failure) return false;
  const bool made = codes && !t->commits_codes;
  t->reading.scales = made ? g_try_new(float, (gsize)c->rows) : NULL;
  if (made && !t->reading.scales) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: an allocation of %zu bytes was refused",
                fk_part_name(loader->b->part), (size_t)c->rows * sizeof(float));
    return false;
  }
  return push_pieces(pool, t), true;
}

/* From the buffer to the chunk's place. */
static void commit_chunk(const Loader *loader, int buffer, Transfer *t) {
  FkBackend *be = loader->b->be;
  const Chunk *c = t->chunk;
  char *to = chunk_place(loader, c);
  if (t->adds) {
    be->ops->commit_adapted(be, buffer, to, c->item->as, &t->adapted);
    return;
  }
  if (t->commits_codes) {
    be->ops->commit_codes(be, buffer, to, scales_place(loader, c), t->reading.as, c->rows, c->item->cols);
    g_atomic_int_add(&loader->b->coded_rows, (int)c->rows);
    return;
  }
  be->ops->commit(be, buffer, to, c->item->as, t->reading.as, (size_t)(c->rows * c->item->cols));
  if (t->reading.scales && !be->failure)
    be->ops->upload(be, scales_place(loader, c), t->reading.scales, (size_t)c->rows * sizeof(float));
  g_clear_pointer(&t->reading.scales, g_free);
}

/* Waits for a chunk and places it. */
static bool finish_chunk(Loader *loader, guint index, GError **error) {
  FkBackend *be = loader->b->be;
  Transfer *t = &loader->transfers[index % BUFFERS];
  const gint64 start = g_get_monotonic_time();
  g_mutex_lock(&loader->lock);
  while (t->left) g_cond_wait(&loader->done, &loader->lock);
  loader->b->times.readers_ms += (double)(g_get_monotonic_time() - start) / 1000;
  g_mutex_unlock(&loader->lock);
  if (t->error) {
    g_autofree char *shown = fk_shown_name(t->chunk->item->source.tensor->name);
    g_propagate_prefixed_error(error, g_steal_pointer(&t->error), "%s: tensor \"%s\": ", fk_part_name(loader->b->part),
                               shown);
    return false;
  }
  if (staged(be)) commit_chunk(loader, (int)(index % BUFFERS), t);
  return !staged(be) || be->failure == FK_FAIL_NONE;
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
    if (staged(loader->b->be)) g_free(t->reading.scales);
  }
}

/* One pass. only: canonical names; NULL: all of it, in two passes. */
static bool read_once(FkBinder *b, int group, bool again, GHashTable *only, GCancellable *cancellable,
                      FkLoadProgress progress, void *user_data, GError **error) {
  Loader loader = {.b = b, .only = only, .again = again, .group = group};
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
  const gint64 start = g_get_monotonic_time();
  g_atomic_int_set(&loader.stop, 1);
  g_thread_pool_free(pool, FALSE, TRUE); /* waits: readers hold buffers and the loader */
  clear_transfers(&loader);
  g_array_unref(loader.chunks);
  g_mutex_clear(&loader.lock);
  g_cond_clear(&loader.done);
  /* Copies may still be under way into memory that a failure gives back. */
  bool synced = !staged(b->be) || fk_backend_sync(b->be);
  b->times.end_ms += (double)(g_get_monotonic_time() - start) / 1000;
  b->times.bytes += loader.total;
  b->times.readers = threads;
  if (local)
    g_propagate_error(error, g_steal_pointer(&local));
  else if (!ok || !synced)
    take_failure(b, error);
  return ok && synced;
}

static bool read_pass(FkBinder *b, int group, GHashTable *only, GCancellable *cancellable, FkLoadProgress progress,
                      void *user_data, GError **error) {
  return read_once(b, group, false, only, cancellable, progress, user_data, error) &&
         (!b->packed || !b->adapted || only || read_once(b, group, true, NULL, cancellable, NULL, NULL, error));
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

/* What memory has of the items that are read: uncertain until all are there, and then with adapters or without. */
static void mark(FkBinder *b, GHashTable *only, bool there) {
  for (guint i = 0; i < b->items->len; i++) {
    FkItem *item = &g_array_index(b->items, FkItem, i);
    if (only && !fk_item_reloads(item, only)) continue;
    item->in_place = !there && only && item->plain;
    item->plain = there && !item->deltas;
  }
}

/* only: canonical names; NULL: all. */
static bool read_all(FkBinder *b, GHashTable *only, GCancellable *cancellable, FkLoadProgress progress, void *user_data,
                     GError **error) {
  FkStore *s = &b->store;
  const bool kept = !only && fk_store_restore(s);
  if (only) s->kept_filled = false;
  mark(b, only, false);
  Passes passes = {progress, user_data, 0, 0, only ? fk_binder_reload_bytes(b, only) : (int64_t)s->bytes};
  if (!kept && !read_pass(b, STAY, only, cancellable, forward, &passes, error)) return false;
  passes.before = passes.last;
  passes.last = 0;
  if (fk_store_streams(s) && (only || !s->host_filled)) {
    if (!fk_store_alloc_host(s, fk_part_name(b->part), error)) return false;
    if (!read_ring(b, only, cancellable, &passes, error)) return false;
    s->host_filled = true;
  }
  mark(b, only, true);
  if (progress) progress(passes.total, passes.total, user_data);
  return true;
}

bool fk_binder_load(FkBinder *b, GCancellable *cancellable, FkLoadProgress progress, void *user_data, GError **error) {
  assert(!b->problems->len);
  if (!b->component && !b->packed) return true;
  const gint64 start = g_get_monotonic_time();
  if (!fk_store_alloc(&b->store, fk_part_name(b->part), error)) return false;
  b->times.memory_ms += (double)(g_get_monotonic_time() - start) / 1000;
  if (read_all(b, NULL, cancellable, progress, user_data, error) && fk_binder_load_operands(b, cancellable, error)) {
    fk_binder_set_targets(b);
    return true;
  }
  fk_store_release(&b->store);
  return false;
}

bool fk_binder_load_operands(FkBinder *b, GCancellable *cancellable, GError **error) {
  g_autoptr(GError) local = NULL;
  if (fk_coded_load_operands(b, cancellable, &local)) return true;
  if (local)
    g_propagate_error(error, g_steal_pointer(&local));
  else
    take_failure(b, error);
  return false;
}

void fk_binder_release(FkBinder *b) {
  fk_coded_release_operands(b);
  fk_store_release(&b->store);
  fk_binder_set_targets(b);
}

bool fk_binder_reload(FkBinder *b, GHashTable *names, GCancellable *cancellable, FkLoadProgress progress,
                      void *user_data, GError **error) {
  if ((!b->component && !b->packed) || !b->store.memory || g_hash_table_size(names) == 0) return true;
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
  if (!fk_binder_has_numbers(b, canonical, error)) return false;
  if (!b->component && !b->packed) memset(to, 0, (size_t)(rows * bound->cols) * sizeof *to);
  int64_t left = rows; /* a tensor may be in several items, and its twin in as many more */
  for (guint i = 0; i < b->items->len && left > 0; i++) {
    FkItem item = g_array_index(b->items, FkItem, i);
    const int64_t begin = MAX(first, item.row), end = MIN(first + rows, item.row + item.rows);
    if (item.name != bound->name || begin >= end || item.kind > FK_ITEM_CODES) continue;
    if (item.kind == FK_ITEM_CODES) as_numbers(&item);
    item.deltas = NULL;
    item.as = FK_F32;
    const FkReading reading = {.item = &item,
                               .first = begin - item.row,
                               .rows = end - begin,
                               .to = to + (begin - first) * item.cols,
                               .as = FK_F32};
    if (!fk_reading_run(&reading, error)) return false;
    left -= end - begin;
  }
  return true;
}
