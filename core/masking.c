/* SPDX-License-Identifier: Apache-2.0 */
/* Masks of frames in device memory; see masking.h. The order of what is done to a mask is that of extras.c, its
 * arithmetic the op line's. Not here: what an edit does with a mask (surface.c). */
#include "masking.h"

#include "job.h"
#include "surface.h"

/* Blocks that nobody uses, with masks of files or without. */
enum { KEPT = 4 };

/* What was made of a file. */
typedef struct {
  int number, width, height, dilate, feather;
  bool invert;
} Key;

struct FkMaskBlock {
  uint8_t *data;
  size_t bytes;
  int users; /* atomic */
  Key key;   /* number 0: of one frame */
  FkMaskBox box;
};

/* ---- Memory ---- */

static void release(FkMasks *m, FkBackend *be, GList *item) {
  struct FkMaskBlock *b = item->data;
  g_queue_delete_link(&m->blocks, item);
  be->ops->release(be, b->data);
  m->bytes -= b->bytes;
  g_free(b);
}

/* The oldest ones first, until no more than `kept` are free. */
static void release_free(FkMasks *m, FkBackend *be, int kept) {
  int n = 0;
  for (GList *item = m->blocks.head; item;) {
    GList *next = item->next;
    const struct FkMaskBlock *b = item->data;
    if (!g_atomic_int_get(&b->users) && n++ >= kept) release(m, be, item);
    item = next;
  }
}

/* A free block of at least so many bytes, the oldest; with the mask of a file only where there are others enough. */
static GList *find_free(FkMasks *m, size_t bytes) {
  GList *found = NULL;
  int n = 0;
  for (GList *item = m->blocks.head; item; item = item->next) {
    const struct FkMaskBlock *b = item->data;
    if (g_atomic_int_get(&b->users)) continue;
    n++;
    if (b->bytes >= bytes && (!b->key.number || n >= KEPT)) found = item;
  }
  return found;
}

static struct FkMaskBlock *use(FkMasks *m, GList *item) {
  struct FkMaskBlock *b = item->data;
  g_queue_unlink(&m->blocks, item);
  g_queue_push_head_link(&m->blocks, item);
  g_atomic_int_inc(&b->users);
  return b;
}

static struct FkMaskBlock *take(FkMasks *m, FkBackend *be, size_t bytes, GError **error) {
  GList *item = find_free(m, bytes);
  if (item) {
    struct FkMaskBlock *b = use(m, item);
    b->key = (Key){0};
    return b;
  }
  release_free(m, be, KEPT - 1);
  void *data = be->ops->alloc(be, bytes);
  if (!data) {
    release_free(m, be, 0);
    data = be->ops->alloc(be, bytes);
  }
  if (!data) {
    if (fk_job_sync(be, error)) /* else it is not for lack of memory */
      g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "mask: %zu bytes of device memory were refused", bytes);
    return NULL;
  }
  struct FkMaskBlock *b = g_new0(struct FkMaskBlock, 1);
  b->data = data;
  b->bytes = bytes;
  m->bytes += bytes;
  g_queue_push_head(&m->blocks, b);
  return use(m, m->blocks.head);
}

void fk_masking_drop(struct FkMaskBlock *b) {
  g_atomic_int_add(&b->users, -1);
}

size_t fk_masking_used(const FkMasks *m) {
  size_t bytes = 0;
  for (GList *item = m->blocks.head; item; item = item->next) {
    const struct FkMaskBlock *b = item->data;
    if (g_atomic_int_get(&b->users)) bytes += b->bytes;
  }
  return bytes;
}

void fk_masking_clear(FkMasks *m, FkBackend *be) {
  release_free(m, be, 0);
}

/* ---- A mask ---- */

static Key key_of(const FkExtras *x, const FkTune *t) {
  return (Key){x->origin.number, x->width, x->height, t->mask_dilate, t->mask_feather, x->origin.invert};
}

static struct FkMaskBlock *find_made(FkMasks *m, const Key *key) {
  for (GList *item = m->blocks.head; key->number && item; item = item->next) {
    const Key *k = &((const struct FkMaskBlock *)item->data)->key;
    if (k->number == key->number && k->width == key->width && k->height == key->height && k->dilate == key->dilate &&
        k->feather == key->feather && k->invert == key->invert)
      return use(m, item);
  }
  return NULL;
}

static bool has_size(const FkExtras *x) {
  return x->origin.image.width == x->width && x->origin.image.height == x->height;
}

/* Of the arena that a mask is made in: two pictures of its size, the box, and where it came in another size that, one
 * between the two passes and their tables. */
static size_t work_bytes(const FkExtras *x) {
  const size_t w = (size_t)x->width, h = (size_t)x->height, sw = (size_t)x->origin.image.width,
               sh = (size_t)x->origin.image.height;
  const size_t base = 2 * w * h + 16 * (size_t)256;
  if (has_size(x)) return base;
  const size_t tables = 4 * (w * (2 * (sw / w) + 7) + h * (2 * (sh / h) + 7)); /* taps: fk_image_axis_init */
  return base + sw * sh + MAX(sw * h, w * sh) + tables;
}

/* As it came, at its own size. */
static bool read_source(const FkEdit *e, const FkMaskOrigin *s, FkTensor y, GError **error) {
  const FkImage *i = &s->image;
  if (i->memory == FK_MEMORY_DEVICE)
    return fk_surface_take(e, i, (FkMaskBox){0, 0, i->width, i->height}, s->channel, y, error);
  g_autofree uint8_t *plane = fk_extras_plane(i, s->channel);
  if (!plane) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "mask: %zu bytes of host memory could not be had",
                fk_tensor_bytes(y));
    return false;
  }
  fk_op_upload(e->be, y, plane);
  return true;
}

static bool source(const FkEdit *e, const FkExtras *x, FkTensor y, GError **error) {
  const FkImage *i = &x->origin.image;
  FkTensor own = has_size(x) ? y : fk_arena_3d(e->arena, FK_U8, i->height, i->width, 1);
  if (!read_source(e, &x->origin, own, error)) return false;
  if (!has_size(x) && !fk_surface_resize(e, FK_FILTER_TRIANGLE, y, own, error)) return false;
  if (x->origin.invert) fk_op_invert(e->be, y, y);
  return true;
}

/* Rows, then columns; y is not x. */
static void windows(const FkEdit *e, FkTensor y, FkTensor x, FkTensor between, FkWindow window, int radius) {
  fk_op_window(e->be, between, x, window, radius, false);
  fk_op_window(e->be, y, between, window, radius, true);
}

/* As fk_mask_dilate and fk_mask_feather. box: of `fade`, as the op has it. */
static bool make(const FkEdit *e, const FkExtras *x, const FkTune *t, int32_t box[4], GError **error) {
  FkTensor mask = fk_tensor_3d(x->mask, FK_U8, x->height, x->width, 1), fade = mask;
  FkTensor a = fk_arena_3d(e->arena, FK_U8, x->height, x->width, 1), b = a, bounds;
  const int r = (t->mask_feather + 1) / 2;
  fade.data = x->fade;
  b = fk_arena_3d(e->arena, FK_U8, x->height, x->width, 1);
  bounds = fk_arena_1d(e->arena, FK_I32, 4);
  if (!source(e, x, t->mask_dilate ? a : mask, error)) return false;
  if (t->mask_dilate) windows(e, mask, a, b, FK_WINDOW_MOST, t->mask_dilate);
  if (r) {
    windows(e, a, mask, b, FK_WINDOW_LEAST, r);
    windows(e, fade, a, b, FK_WINDOW_MEAN, r);
  } else {
    fk_op_copy(e->be, fk_tensor_flat(fade), fk_tensor_flat(mask));
  }
  fk_op_bounds(e->be, bounds, fade);
  fk_op_download(e->be, box, bounds);
  return fk_job_sync(e->be, error);
}

/* All of the frame where a backend computes nothing. */
static FkMaskBox box_of(const FkExtras *x, const int32_t v[4]) {
  const FkMaskBox b = {x->width - v[0], x->height - v[1], v[2] - (x->width - v[0]), v[3] - (x->height - v[1])};
  if (!v[0] && !v[1] && !v[2] && !v[3]) return (FkMaskBox){0};
  const bool inside = v[0] > 0 && v[0] <= x->width && v[1] > 0 && v[1] <= x->height && v[2] > b.x && v[2] <= x->width &&
                      v[3] > b.y && v[3] <= x->height;
  return inside ? b : (FkMaskBox){0, 0, x->width, x->height};
}

static bool make_in(FkMasks *m, FkBackend *be, const FkTune *t, FkExtras *x, GError **error) {
  const size_t bytes = work_bytes(x);
  struct FkMaskBlock *work = take(m, be, bytes, error);
  if (!work) return false;
  FkArena arena = {.be = be, .base = (char *)work->data, .size = work->bytes};
  const FkEdit e = {.be = be, .arena = &arena, .tune = t};
  int32_t box[4];
  const bool ok = make(&e, x, t, box, error);
  fk_masking_drop(work);
  if (ok) x->box = box_of(x, box);
  return ok;
}

/* The next edit begins anew. */
static bool give_up(FkBackend *be) {
  fk_backend_sync(be);
  fk_backend_clear(be);
  return false;
}

bool fk_masking_prepare(FkMasks *m, FkBackend *be, const FkTune *t, FkExtras *x, GError **error) {
  const Key key = key_of(x, t);
  const size_t n = (size_t)x->width * (size_t)x->height;
  struct FkMaskBlock *made = find_made(m, &key);
  x->block = made ? made : take(m, be, 2 * n, error);
  if (!x->block) return give_up(be);
  x->mask = x->block->data;
  x->fade = x->mask + n;
  if (made) {
    x->box = made->box;
    return true;
  }
  if (!make_in(m, be, t, x, error)) return give_up(be);
  x->block->key = key;
  x->block->box = x->box;
  return true;
}
