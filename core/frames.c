/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of frames before any work on them; see frames.h. Not here: resizing (image.c), settings (tune.c). */
#include "frames.h"

#include "image.h"
#include "surface.h"

enum {
  LAST_SIDE = 65535,                 /* of an input */
  MAX_SIDE = 256 * FK_SIZE_MULTIPLE, /* of the model: 256 tokens, four times the largest side it was trained on */
  MIN_AREA = FK_SIZE_MULTIPLE * FK_SIZE_MULTIPLE
};

#define refuse(error, ...) (g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, __VA_ARGS__), false)
#define refuse_shape(error, ...) (g_set_error(error, FK_ERROR, FK_ERROR_SHAPE, __VA_ARGS__), false)

/* ---- Sizes ---- */

/* A very long or narrow frame has no size near the asked area whose sides are at least 16. */
static bool check_size(const FkTune *t, int64_t area, int width, int height, const FkFrameSize *s, GError **error) {
  const bool asked = t->size_mode == FK_SIZE_INPUT && t->max_area;
  if (s->width <= MAX_SIDE && s->height <= MAX_SIDE && (int64_t)s->width * s->height <= 2 * area) return true;
  if (asked && 2 * area < MIN_AREA)
    return refuse(error, "max-area=%d: the model works at %d pixels (%dx%d) or more", t->max_area, MIN_AREA,
                  FK_SIZE_MULTIPLE, FK_SIZE_MULTIPLE);
  return refuse_shape(error,
                      "image %dx%d: its aspect ratio cannot be edited at %s%" G_GINT64_FORMAT
                      " pixels: the model would work at %dx%d, and can at %d a side and %" G_GINT64_FORMAT " pixels",
                      width, height, asked ? "max-area=" : "", area, s->width, s->height, MAX_SIDE, 2 * area);
}

bool fk_frames_size(const FkModel *m, const FkTune *t, int width, int height, FkFrameSize *s, GError **error) {
  const bool native = t->size_mode == FK_SIZE_NATIVE;
  const int64_t area = native || !t->max_area ? fk_model_area(m) : t->max_area;
  if (width < 1 || height < 1 || width > LAST_SIDE || height > LAST_SIDE)
    return refuse_shape(error, "image %dx%d: sides go from 1 to %d", width, height, LAST_SIDE);
  fk_size_plan(t->size_mode, width, height, area, &s->width, &s->height);
  s->out_width = native ? s->width : width;
  s->out_height = native ? s->height : height;
  return check_size(t, area, width, height, s, error);
}

bool fk_frames_region(const FkModel *m, const FkTune *t, int width, int height, FkMaskBox *box, FkFrameSize *s,
                      GError **error) {
  const int64_t area = t->max_area ? t->max_area : fk_model_area(m);
  *box = fk_mask_surround(*box, width, height);
  for (int pass = 0; pass < 2; pass++) { /* a frame's edge may leave the box another shape */
    if (t->max_area)
      fk_size_target(box->w, box->h, area, &s->width, &s->height);
    else
      fk_size_preferred(box->w, box->h, area, &s->width, &s->height);
    if (!pass) *box = fk_mask_stretch(*box, s->width, s->height, width, height);
  }
  s->out_width = box->w;
  s->out_height = box->h;
  return check_size(t, area, box->w, box->h, s, error);
}

bool fk_frames_reference(const FkModel *m, int width, int height, int *w, int *h, GError **error) {
  const bool list = fk_model_area(m) == FK_SIZE_PREFERRED_AREA;
  const FkTune own = {.size_mode = list ? FK_SIZE_NATIVE : FK_SIZE_INPUT};
  FkFrameSize s;
  if (!fk_frames_size(m, &own, width, height, &s, error)) return false;
  *w = s.width;
  *h = s.height;
  return true;
}

/* ---- Images ---- */

/* Bytes from the first to behind the last pixel. False: more than memory has. */
static bool extent(const FkImage *i, size_t *bytes) {
  return g_size_checked_mul(bytes, (size_t)i->height - 1, i->stride) &&
         g_size_checked_add(bytes, *bytes, (size_t)i->width * (size_t)i->channels) &&
         *bytes <= UINTPTR_MAX - (uintptr_t)i->data;
}

static bool check_image(const FkImage *i, int frame, const char *which, GError **error) {
  size_t bytes;
  if (i->memory == FK_MEMORY_DEVICE) return true; /* fk_surface_check */
  if (!i->data) return refuse(error, "frame %d: the %s image has no data", frame, which);
  if (i->stride < (size_t)i->width * (size_t)i->channels || !extent(i, &bytes))
    return refuse(error, "frame %d: %s image: stride %zu does not fit %d pixels of %d channels in %d rows", frame,
                  which, i->stride, i->width, i->channels, i->height);
  return true;
}

/* Whether two planes share a byte. Two parts of one larger picture have equal strides and may lie in each other's range
 * without that. */
static bool spans_overlap(const FkSpan *a, const FkSpan *b) {
  const uintptr_t at = (uintptr_t)a->data, bt = (uintptr_t)b->data;
  const size_t a_bytes = ((size_t)a->rows - 1) * a->stride + a->row,
               b_bytes = ((size_t)b->rows - 1) * b->stride + b->row;
  if (at + a_bytes <= bt || bt + b_bytes <= at) return false;
  if (a->stride != b->stride) return true;
  /* The first row of the later one lies `column` bytes behind the start of a row of the earlier one. */
  const size_t column = (at < bt ? bt - at : at - bt) % a->stride, first = at < bt ? a->row : b->row;
  return column < first || column + (at < bt ? b->row : a->row) > a->stride;
}

static bool overlap(const FkImage *a, const FkImage *b) {
  FkSpan s[4], t[4];
  const int n = fk_surface_spans(a, s), m = fk_surface_spans(b, t);
  for (int i = 0; i < n; i++)
    for (int k = 0; k < m; k++)
      if (spans_overlap(&s[i], &t[k])) return true;
  return false;
}

/* What is written may not be what another image of the batch is or is written to: frames are read and written in an
 * order that is nobody's business. */
static bool check_overlap(const FkJob *jobs, int n, bool reads, GError **error) {
  for (int i = 0; i < n; i++)
    for (int k = 0; k < n; k++) {
      if (reads && overlap(&jobs[i].out, &jobs[k].in))
        return refuse(error, "frame %d: its result image overlaps the input image of frame %d", i, k);
      if (k > i && overlap(&jobs[i].out, &jobs[k].out))
        return refuse(error, "frame %d: its result image overlaps the result image of frame %d", i, k);
    }
  return true;
}

static bool check_frame(const FkJob *job, int i, const FkFrameSize *s, bool reads, GError **error) {
  const FkImage *in = &job->in, *out = &job->out;
  if (out->width != s->out_width || out->height != s->out_height || out->channels != in->channels ||
      (in->channels != 3 && in->channels != 4))
    return refuse(error, "frame %d: result image: expected %dx%d with %d channels (3 or 4), found %dx%d with %d", i,
                  s->out_width, s->out_height, in->channels, out->width, out->height, out->channels);
  return (!reads || check_image(in, i, "input", error)) && check_image(out, i, "result", error);
}

static bool same_batch(const FkJob *a, const FkJob *b) {
  return a->in.width == b->in.width && a->in.height == b->in.height && fk_settings_batchable(a->settings, b->settings);
}

bool fk_frames_task(const FkModel *m, const FkTune *t, GError **error) {
  if (m->config.pipeline == FK_PIPELINE_KONTEXT || t->task == FK_TASK_GENERATE) return true;
  return refuse(error, "task=edit: this model makes images from text alone (FluxPipeline); it runs with task=generate");
}

bool fk_frames_check(const FkModel *m, const FkTune *t, const FkJob *jobs, int n, FkFrameSize *s, GError **error) {
  const bool reads = t->task == FK_TASK_EDIT;
  if (!fk_frames_task(m, t, error) || !fk_frames_size(m, t, jobs->in.width, jobs->in.height, s, error)) return false;
  for (int i = 0; i < n; i++) {
    if (!same_batch(&jobs[0], &jobs[i]))
      return refuse(error, "frame %d of the batch differs from the first in size or settings", i);
    if (!check_frame(&jobs[i], i, s, reads, error)) return false;
  }
  return check_overlap(jobs, n, reads, error);
}
