/* SPDX-License-Identifier: Apache-2.0 */
/* Picture files, and a small cache of them for frames of a video that all have the same beside them; see pictures.h. */
#include "pictures.h"

#include "file.h"
#include "image-file.h"

#include <glib/gstdio.h>
#include <string.h>

/* Of one file; a picture of more pixels than the cache's bytes is read each time. */
enum { FILE_BYTES = 1 << 28, CACHE_BYTES = 1 << 28, CACHE_ENTRIES = 16 };

/* References are counted by GLib. */
typedef struct {
  FkImage image;
  int number;
} Box;

typedef struct {
  char *identity;
  Box *box;
} Entry;

/* Latest first. */
static GQueue cache = G_QUEUE_INIT;
static GMutex lock;
static int decoded;

/* ---- Files ---- */

bool fk_image_decode(const char *name, const guint8 *data, gsize bytes, FkImage *image, GError **error) {
  FkImageFile file = {.data = data, .bytes = bytes};
  *image = (FkImage){0};
  if (!fk_image_file_decode(&file, name, error)) return false;
  *image = (FkImage){file.pixels, file.width, file.height, file.channels, file.stride};
  return true;
}

bool fk_image_read(const char *path, FkImage *image, GError **error) {
  g_autofree char *data = NULL;
  g_autoptr(GError) problem = NULL;
  gsize bytes;
  *image = (FkImage){0};
  if (g_file_get_contents(path, &data, &bytes, &problem))
    return fk_image_decode(path, (const guint8 *)data, bytes, image, error);
  g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD, problem->message);
  return false;
}

void fk_image_clear(FkImage *image) {
  g_free(image->data);
  *image = (FkImage){0};
}

/* ---- The cache ---- */

static void clear_box(gpointer box) {
  fk_image_clear(&((Box *)box)->image);
}

static void drop(Box *box) {
  g_atomic_rc_box_release_full(box, clear_box);
}

static size_t image_bytes(const FkImage *image) {
  return image->stride * (size_t)image->height;
}

static void entry_free(Entry *entry) {
  drop(entry->box);
  g_free(entry->identity);
  g_free(entry);
}

/* NULL: it cannot be looked at; opening it says why. (transfer full) */
static char *identity_of(const char *path) {
  GStatBuf s;
  if (g_stat(path, &s)) return NULL;
  return g_strdup_printf("%ju %ju %jd %jd.%09ld %jd.%09ld %s", (uintmax_t)s.st_dev, (uintmax_t)s.st_ino,
                         (intmax_t)s.st_size, (intmax_t)s.st_mtim.tv_sec, s.st_mtim.tv_nsec, (intmax_t)s.st_ctim.tv_sec,
                         s.st_ctim.tv_nsec, path);
}

/* (transfer full, nullable) */
static Box *find(const char *identity) {
  Box *found = NULL;
  g_mutex_lock(&lock);
  for (GList *item = cache.head; item && !found; item = item->next) {
    const Entry *entry = item->data;
    if (strcmp(entry->identity, identity)) continue;
    found = g_atomic_rc_box_acquire(entry->box);
    g_queue_unlink(&cache, item);
    g_queue_push_head_link(&cache, item);
  }
  g_mutex_unlock(&lock);
  return found;
}

static void keep(const char *identity, Box *box) {
  Entry *entry = g_new(Entry, 1);
  size_t bytes = 0;
  guint n = 0;
  *entry = (Entry){g_strdup(identity), g_atomic_rc_box_acquire(box)};
  g_mutex_lock(&lock);
  g_queue_push_head(&cache, entry);
  for (GList *item = cache.head; item; item = item->next, n++) {
    bytes += image_bytes(&((const Entry *)item->data)->box->image);
    if (bytes > CACHE_BYTES || n == CACHE_ENTRIES) break;
  }
  while (cache.length > n) entry_free(g_queue_pop_tail(&cache));
  g_mutex_unlock(&lock);
}

static bool read_file(const char *path, FkImage *image, GError **error) {
  g_autoptr(GError) problem = NULL;
  g_autofree char *shown = fk_shown_path(path);
  size_t bytes;
  g_autofree char *data = fk_file_load(path, FILE_BYTES, &bytes, &problem);
  if (data) return fk_image_decode(shown, (const guint8 *)data, bytes, image, error);
  const bool memory = g_error_matches(problem, FK_ERROR, FK_ERROR_MEMORY);
  g_set_error_literal(error, FK_ERROR, memory ? FK_ERROR_MEMORY : FK_ERROR_OPTION_BAD, problem->message);
  return false;
}

/* (transfer full); NULL: an error that names setting and file. */
static Box *take(const char *setting, const char *path, GError **error) {
  g_autofree char *identity = identity_of(path);
  Box *box = identity ? find(identity) : NULL;
  FkImage image;
  if (box) return box;
  if (!read_file(path, &image, error)) {
    g_prefix_error(error, "%s: ", setting);
    return NULL;
  }
  box = g_atomic_rc_box_new0(Box);
  *box = (Box){image, g_atomic_int_add(&decoded, 1) + 1};
  g_autofree char *after = identity_of(path); /* a file that changed while it was read has no identity */
  if (identity && !g_strcmp0(identity, after)) keep(identity, box);
  return box;
}

int fk_pictures_decoded(void) {
  return g_atomic_int_get(&decoded);
}

/* ---- Of settings ---- */

char **fk_pictures_names(const char *references, GError **error) {
  return fk_file_list("references", references, FK_REFERENCES, error);
}

/* The number of the decoding; 0: an error. */
static int hold(FkPictures *p, const char *setting, const char *path, FkImage *image, GError **error) {
  Box *box = take(setting, path, error);
  if (!box) return 0;
  p->held[p->n_held++] = box;
  *image = box->image;
  return box->number;
}

bool fk_pictures_take(FkPictures *p, const char *mask_path, const char *references, GError **error) {
  *p = (FkPictures){0};
  g_auto(GStrv) names = fk_pictures_names(references, error);
  if (names && mask_path) p->mask_number = hold(p, "mask-path", mask_path, &p->mask, error);
  bool ok = names && (!mask_path || p->mask_number);
  for (char **name = names; ok && *name; name++)
    ok = hold(p, "references", *name, &p->references[p->n_references++], error);
  if (!ok) fk_pictures_drop(p);
  return ok;
}

void fk_pictures_drop(FkPictures *p) {
  for (int i = 0; i < p->n_held; i++) drop(p->held[i]);
  *p = (FkPictures){0};
}
