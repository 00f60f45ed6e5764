/* SPDX-License-Identifier: Apache-2.0 */
/* Masks of frames: where they come from, and what is made of them once; see extras.h. Not here: the arithmetic of masks
 * (mask.c), the loop (blend.c). */
#include "extras.h"

#include "frames.h"
#include "image.h"
#include "masking.h"

#include <string.h>

static bool no_memory(GError **error, const char *what, size_t bytes) {
  g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: %zu bytes of host memory could not be had", what, bytes);
  return false;
}

/* ---- The mask ---- */

uint8_t *fk_extras_plane(const FkImage *image, int channel) {
  const size_t w = (size_t)image->width;
  uint8_t *plane = g_try_malloc(w * (size_t)image->height);
  for (int y = 0; plane && y < image->height; y++) {
    const uint8_t *p = image->data + (size_t)y * image->stride;
    uint8_t *to = plane + (size_t)y * w;
    for (size_t x = 0; x < w; x++, p += image->channels)
      to[x] = channel >= 0 || image->channels < 3
                  ? p[MAX(channel, 0)]
                  : (uint8_t)((p[0] * 19595 + p[1] * 38470 + p[2] * 7471 + 32768) >> 16);
  }
  return plane;
}

/* To the frame's size, with weights that have no overshoot: what is far from the mask's edge stays 0 or 255. */
static bool fit(FkExtras *x, uint8_t *plane, int width, int height, GError **error) {
  const size_t n = (size_t)x->width * (size_t)x->height;
  if (width == x->width && height == x->height) {
    x->mask = plane;
    return true;
  }
  x->mask = g_try_malloc(n);
  const bool ok = x->mask && fk_image_resize_triangle(x->mask, x->width, x->height, (size_t)x->width, plane, width,
                                                      height, (size_t)width, 1);
  g_free(plane);
  return ok || no_memory(error, "mask", n);
}

static bool refuse(GError **error, int frame, const char *what) {
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "frame %d: %s", frame, what);
  return false;
}

static bool check_mask(const FkImage *mask, int frame, GError **error) {
  if (mask->data && mask->channels == 1 && mask->width >= 1 && mask->height >= 1 && mask->width <= 65535 &&
      mask->height <= 65535 && mask->stride >= (size_t)mask->width)
    return true;
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
              "frame %d: mask: expected 1 channel, sides from 1 to 65535 and rows of at least a side, found %dx%d with "
              "%d, rows of %zu bytes%s",
              frame, mask->width, mask->height, mask->channels, mask->stride, mask->data ? "" : ", no data");
  return false;
}

/* Where the mask comes from; its picture is not given where there is none. */
static bool find_mask(FkMaskOrigin *s, const FkTune *t, const FkPictures *files, const FkJob *job, int frame,
                      GError **error) {
  *s = (FkMaskOrigin){.invert = t->mask_invert};
  if (job->mask) {
    s->image = *job->mask;
    return s->image.memory == FK_MEMORY_DEVICE || check_mask(job->mask, frame, error);
  }
  if (t->mask == FK_MASK_META) return refuse(error, frame, "mask=meta: it came without a mask of metas (FkJob.mask)");
  if (t->mask == FK_MASK_ALPHA && job->in.channels != 4)
    return refuse(error, frame, "mask=alpha: it has no alpha channel");
  if (t->mask == FK_MASK_ALPHA) *s = (FkMaskOrigin){job->in, 3, !t->mask_invert, 0};
  if (t->mask == FK_MASK_PATH) *s = (FkMaskOrigin){files->mask, -1, t->mask_invert, files->mask_number};
  return true;
}

static bool prepare(FkExtras *x, const FkMaskOrigin *s, const FkTune *t, GError **error) {
  const size_t n = (size_t)x->width * (size_t)x->height;
  uint8_t *plane = fk_extras_plane(&s->image, s->channel);
  if (!plane) return no_memory(error, "mask", (size_t)s->image.width * (size_t)s->image.height);
  if (!fit(x, plane, s->image.width, s->image.height, error)) return false;
  for (size_t i = 0; s->invert && i < n; i++) x->mask[i] = (uint8_t)(255 - x->mask[i]);
  x->fade = g_try_malloc(n);
  if (!x->fade || !fk_mask_dilate(x->mask, x->width, x->height, t->mask_dilate) ||
      !fk_mask_feather(x->fade, x->mask, x->width, x->height, t->mask_feather))
    return no_memory(error, "mask", n);
  x->box = fk_mask_box(x->fade, x->width, x->height);
  return true;
}

static bool init_mask(FkExtras *x, const FkTune *t, const FkPictures *files, const FkJob *job, int frame,
                      GError **error) {
  FkMaskOrigin s;
  if (!find_mask(&s, t, files, job, frame, error)) return false;
  if (!s.image.width) return true;
  if (t->task == FK_TASK_GENERATE) return refuse(error, frame, "mask: with task=generate there is no picture to keep");
  if (t->size_mode == FK_SIZE_NATIVE)
    return refuse(error, frame, "mask: with size-mode=native the result has another size than the frame that is kept");
  if (job->in.memory == FK_MEMORY_HOST) return prepare(x, &s, t, error);
  x->origin = s;
  return true;
}

/* ---- Pictures beside the frame ---- */

/* Pictures in device memory have been looked at (fk_surface_check). */
static bool check_reference(const FkImage *i, int frame, int number, GError **error) {
  if (i->memory == FK_MEMORY_DEVICE) return true;
  const bool fits = i->data && (i->channels == 3 || i->channels == 4) && i->width >= 1 && i->height >= 1 &&
                    i->width <= 65535 && i->height <= 65535 && i->stride >= (size_t)i->width * (size_t)i->channels;
  if (fits) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
              "frame %d: reference %d: expected 3 or 4 channels, sides from 1 to 65535 and rows that hold them, found "
              "%dx%d with %d, rows of %zu bytes%s",
              frame, number, i->width, i->height, i->channels, i->stride, i->data ? "" : ", no data");
  return false;
}

static bool init_references(FkExtras *x, const FkTune *t, const FkPictures *files, const FkJob *job, int frame,
                            GError **error) {
  if (job->n_references < 0 || job->n_references > FK_REFERENCES || (job->n_references && !job->references)) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "frame %d: %d references: expected 0 to %d, and their array",
                frame, job->n_references, FK_REFERENCES);
    return false;
  }
  if (job->n_references + files->n_references > FK_REFERENCES) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                "frame %d: references: expected %d at most, found %d and %d files", frame, FK_REFERENCES,
                job->n_references, files->n_references);
    return false;
  }
  if (job->n_references && t->task == FK_TASK_GENERATE)
    return refuse(error, frame, "references: task=generate makes pictures from text alone");
  for (int i = 0; i < job->n_references; i++) {
    if (!check_reference(&job->references[i], frame, i, error)) return false;
    x->references[x->n_references++] = job->references[i];
  }
  for (int i = 0; i < files->n_references; i++) x->references[x->n_references++] = files->references[i];
  return true;
}

bool fk_extras_references(const FkExtras *x, const FkModel *m, const FkTune *t, FkFluxReferences *r, GError **error) {
  *r = (FkFluxReferences){.n = x->n_references, .apart = t->reference_ids == FK_REFERENCE_IDS_INDEX};
  for (int i = 0; i < r->n; i++) {
    const FkImage *image = &x->references[i];
    if (!fk_frames_reference(m, image->width, image->height, &r->columns[i], &r->rows[i], error)) return false;
    r->columns[i] /= FK_SIZE_MULTIPLE;
    r->rows[i] /= FK_SIZE_MULTIPLE;
  }
  return true;
}

bool fk_extras_init(FkExtras *x, const FkTune *t, const FkPictures *files, const FkJob *job, int frame,
                    GError **error) {
  *x = (FkExtras){.width = job->in.width, .height = job->in.height};
  if (init_mask(x, t, files, job, frame, error) && init_references(x, t, files, job, frame, error)) return true;
  fk_extras_clear(x);
  return false;
}

void fk_extras_clear(FkExtras *x) {
  if (x->block)
    fk_masking_drop(x->block);
  else
    g_free(x->mask), g_free(x->fade);
  *x = (FkExtras){0};
}

/* ---- In an edit ---- */

bool fk_extras_tokens(const FkExtras *x, FkMaskBox r, int width, int height, int channels, float *tokens,
                      GError **error) {
  const size_t n = (size_t)width * (size_t)height;
  g_autofree uint8_t *sized = g_try_malloc(n);
  const uint8_t *from = x->mask + (size_t)r.y * (size_t)x->width + (size_t)r.x;
  if (!sized || !fk_image_resize_lanczos(sized, width, height, (size_t)width, from, r.w, r.h, (size_t)x->width, 1))
    return no_memory(error, "mask", n);
  fk_mask_tokens(tokens, sized, width, height, channels);
  return true;
}

void fk_extras_mix(const FkExtras *x, FkMaskBox r, const FkImage *in, const FkImage *out) {
  const uint8_t *fade = x->fade + (size_t)r.y * (size_t)x->width + (size_t)r.x;
  for (int y = 0; y < r.h; y++)
    fk_mask_mix(out->data + (size_t)y * out->stride, in->data + (size_t)y * in->stride,
                fade + (size_t)y * (size_t)x->width, r.w, in->channels);
}

bool fk_extras_edited(const char *tokens, int rows, int columns, int width, int height, uint8_t *fade, GError **error) {
  const size_t n = (size_t)rows * (size_t)columns;
  g_autofree uint8_t *edited = g_try_malloc0(n);
  if (!edited) return no_memory(error, "region-keep", n);
  if (!fk_edited_last(tokens, edited, rows, columns)) memset(edited, 1, n);
  for (int64_t y = 0; y < height; y++) {
    const uint8_t *row = edited + y * rows / height * columns;
    for (int64_t x = 0; x < width; x++) fade[y * width + x] = row[x * columns / width] ? 255 : 0;
  }
  return true;
}

bool fk_extras_keep(const char *tokens, int rows, int columns, const FkImage *in, const FkImage *out, GError **error) {
  const size_t n = (size_t)out->width * (size_t)out->height;
  g_autofree uint8_t *fade = g_try_malloc(n);
  if (!fade) return no_memory(error, "region-keep", n);
  if (!fk_extras_edited(tokens, rows, columns, out->width, out->height, fade, error)) return false;
  for (int y = 0; y < out->height; y++)
    fk_mask_mix(out->data + (size_t)y * out->stride, in->data + (size_t)y * in->stride,
                fade + (size_t)y * (size_t)out->width, out->width, in->channels);
  return true;
}
