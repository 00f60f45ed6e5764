/* SPDX-License-Identifier: Apache-2.0 */
/* Which frames of a call run together, and with what; see given.h. Not here: masks and pictures (extras.c), the queue
 * and memory (engine.c). */
#include "given.h"

#include <string.h>

typedef struct {
  const FkEdit *all;
  const FkFrameSize *size;
  const FkGivenEngine *engine;
} Call;

static bool run(const Call *c, FkEdit *edit, const FkFrameSize *size, GError **error) {
  return c->engine->run(c->engine->data, edit, size, error);
}

static void copy_frame(const FkJob *job) {
  const size_t row = (size_t)job->in.width * (size_t)job->in.channels;
  for (int y = 0; y < job->in.height; y++)
    memcpy(job->out.data + (size_t)y * job->out.stride, job->in.data + (size_t)y * job->in.stride, row);
}

static bool leave(const Call *c, FkJob *job, GError **error) {
  FkEdit edit = *c->all;
  edit.jobs = job;
  edit.n = 1;
  edit.leave = true;
  if (job->in.memory == FK_MEMORY_DEVICE && !run(c, &edit, c->size, error)) return false;
  if (job->in.memory == FK_MEMORY_HOST) copy_frame(job);
  job->result = (FkResult){.seed = g_ascii_strtoull(fk_settings_get(job->settings, "seed"), NULL, 10),
                           .width = c->size->width,
                           .height = c->size->height};
  return true;
}

static FkImage part(const FkImage *image, FkMaskBox r) {
  const size_t at = (size_t)r.y * image->stride + (size_t)r.x * (size_t)image->channels;
  return (FkImage){image->data + at, r.w, r.h, image->channels, image->stride};
}

/* The part is edited as a frame of its own, and its result lies in the whole one's. */
static bool edit_region(const Call *c, FkJob *job, const FkExtras *extras, GError **error) {
  FkEdit edit = *c->all;
  FkFrameSize size;
  edit.region = extras->box;
  if (!fk_frames_region(edit.model, edit.tune, job->in.width, job->in.height, &edit.region, &size, error) ||
      !fk_extras_references(extras, edit.model, edit.tune, &edit.references, error))
    return false;
  FkJob inner = *job;
  if (job->in.memory == FK_MEMORY_HOST) {
    inner.in = part(&job->in, edit.region);
    inner.out = part(&job->out, edit.region);
    copy_frame(job);
  }
  edit.jobs = &inner;
  edit.n = 1;
  edit.extras = extras;
  edit.masked = true;
  const bool ok = run(c, &edit, &size, error);
  job->result = inner.result;
  return ok;
}

/* Frames that may differ only in their pixels. */
static bool edit_together(const Call *c, FkJob *jobs, const FkExtras *extras, int n, GError **error) {
  FkEdit edit = *c->all;
  edit.jobs = jobs;
  edit.extras = extras;
  edit.n = n;
  edit.region = (FkMaskBox){0, 0, extras->width, extras->height};
  for (int i = 0; i < n; i++) edit.masked |= extras[i].mask != NULL;
  return fk_extras_references(extras, edit.model, edit.tune, &edit.references, error) && run(c, &edit, c->size, error);
}

static bool same_sizes(const FkExtras *a, const FkExtras *b) {
  bool same = a->n_references == b->n_references;
  for (int i = 0; same && i < a->n_references; i++)
    same = a->references[i].width == b->references[i].width && a->references[i].height == b->references[i].height;
  return same;
}

/* Frames with a region or with sizes of references of their own are edited alone. */
static bool edit_sorted(const Call *c, const FkExtras *extras, GError **error) {
  const size_t all = (size_t)c->all->n;
  g_autofree FkJob *jobs = g_new(FkJob, all);
  g_autofree FkExtras *theirs = g_new(FkExtras, all);
  g_autofree int *from = g_new(int, all);
  int n = 0;
  for (int i = 0; i < c->all->n; i++) {
    FkJob *job = &c->all->jobs[i];
    const FkExtras *x = &extras[i];
    if (x->mask && !x->box.w) {
      if (!leave(c, job, error)) return false;
    } else if (x->mask && c->all->tune->region == FK_REGION_CROP) {
      if (!edit_region(c, job, x, error)) return false;
    } else if (n && !same_sizes(x, theirs)) {
      if (!edit_together(c, job, x, 1, error)) return false;
    } else {
      theirs[n] = *x;
      jobs[n] = *job;
      from[n++] = i;
    }
  }
  if (n && !edit_together(c, jobs, theirs, n, error)) return false;
  for (int i = 0; i < n; i++) c->all->jobs[from[i]].result = jobs[i].result;
  return true;
}

static bool make_masks(const Call *c, FkExtras *extras, GError **error) {
  bool any = false;
  for (int i = 0; i < c->all->n; i++) any |= extras[i].origin.image.width > 0;
  return !any || c->engine->masks(c->engine->data, c->all, extras, error);
}

bool fk_given_edit(const FkEdit *all, const FkFrameSize *size, const FkGivenEngine *engine, GError **error) {
  const Call call = {all, size, engine};
  FkPictures files;
  if (!fk_pictures_take(&files, all->tune->mask_path, all->tune->references, error)) return false;
  g_autofree FkExtras *extras = g_new0(FkExtras, (size_t)all->n);
  bool ok = true;
  for (int i = 0; ok && i < all->n; i++) ok = fk_extras_init(&extras[i], all->tune, &files, &all->jobs[i], i, error);
  ok = ok && make_masks(&call, extras, error) && edit_sorted(&call, extras, error);
  for (int i = 0; i < all->n; i++) fk_extras_clear(&extras[i]);
  fk_pictures_drop(&files);
  return ok;
}

bool fk_given_foresee(FkEdit *edit, int width, int height, FkFrameSize *size, GError **error) {
  const FkTune *t = edit->tune;
  const bool crop = t->mask == FK_MASK_PATH && t->region == FK_REGION_CROP;
  FkTune known = *t;
  FkPictures files;
  FkExtras x;
  const FkJob job = {.in = {NULL, width, height, 3, 0}};
  edit->masked = t->mask != FK_MASK_NONE;
  if (!crop) known.mask = FK_MASK_NONE; /* another mask changes no size */
  if (!fk_pictures_take(&files, t->mask_path, t->references, error)) return false;
  bool ok = fk_extras_init(&x, &known, &files, &job, 0, error);
  if (ok && crop && x.box.w) {
    edit->region = x.box;
    ok = fk_frames_region(edit->model, t, width, height, &edit->region, size, error);
  }
  ok = ok && fk_extras_references(&x, edit->model, t, &edit->references, error);
  fk_extras_clear(&x);
  fk_pictures_drop(&files);
  return ok;
}
