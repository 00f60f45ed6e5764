/* SPDX-License-Identifier: Apache-2.0 */
/* Whether pictures of a call are where they may be, and whether what a caller says of planes holds together: a kernel
 * that follows a wrong address ends the process' use of the device. */
#include "surface.h"

#include <math.h>
#include <string.h>

enum { LAST_SIDE = 65535 };

/* ---- Spans ---- */

static int across(int pixels, int shift) {
  return (pixels + (1 << shift) - 1) >> shift;
}

/* Grown by one sample. */
static void reach_sample(const FkImage *i, const FkSample *s, FkSpan *span) {
  const FkPlanes *p = i->planes;
  const size_t bytes = p->depth > 8 ? 2 : 1;
  const size_t row = (size_t)(across(i->width, s->shift_x) - 1) * (size_t)s->step + (size_t)s->offset + bytes;
  span->data = p->data[s->plane];
  span->stride = p->stride[s->plane];
  span->row = MAX(span->row, row);
  span->rows = MAX(span->rows, across(i->height, s->shift_y));
}

static bool sample_fits(const FkImage *i, int k) {
  const FkSample *s = &i->planes->sample[k];
  const bool chroma = i->planes->ycbcr && (k == 1 || k == 2);
  const int shift = chroma ? 1 : 0;
  if (s->step == 0) return k == 3 && i->channels == 3;
  return s->plane >= 0 && s->plane < 4 && s->offset >= 0 && s->offset <= 256 && s->step >= 1 && s->step <= 256 &&
         s->shift_x >= 0 && s->shift_x <= shift && s->shift_y >= 0 && s->shift_y <= shift;
}

int fk_surface_spans(const FkImage *i, FkSpan span[4]) {
  if (i->width < 1 || i->height < 1 || i->width > LAST_SIDE || i->height > LAST_SIDE) return 0;
  memset(span, 0, 4 * sizeof *span);
  if (!i->planes) {
    span[0] = (FkSpan){i->data, i->stride, (size_t)i->width * (size_t)i->channels, i->height};
    return i->data ? 1 : 0;
  }
  FkSpan all[4] = {0};
  for (int k = 0; k < 4; k++) {
    if (!sample_fits(i, k)) return 0;
    if (i->planes->sample[k].step) reach_sample(i, &i->planes->sample[k], &all[i->planes->sample[k].plane]);
  }
  int n = 0;
  for (int k = 0; k < 4; k++)
    if (all[k].rows) span[n++] = all[k];
  return n;
}

/* ---- Checks ---- */

typedef struct {
  FkBackend *be;
  int frame;
  const char *name;
  char reference[24];
  GError **error;
} Place;

static bool refuse(const Place *p, const char *format, ...) G_GNUC_PRINTF(2, 3);
static bool refuse(const Place *p, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  g_autofree char *text = g_strdup_vprintf(format, arguments);
  va_end(arguments);
  g_set_error(p->error, FK_ERROR, FK_ERROR_OPTION_BAD, "frame %d: %s: %s", p->frame, p->name, text);
  return false;
}

static bool check_planes(const Place *p, const FkImage *i) {
  const FkPlanes *q = i->planes;
  for (int k = 0; k < 4; k++) {
    const FkSample *s = &q->sample[k];
    if (!sample_fits(i, k))
      return refuse(p,
                    "planes: sample %d: expected a plane from 0 to 3, offset from 0 and step from 1 to 256, and one "
                    "value for each pixel, or for two of chroma; found plane %d, offset %d, step %d, shifts %d and %d",
                    k, s->plane, s->offset, s->step, s->shift_x, s->shift_y);
  }
  if (q->depth < 8 || q->depth > (q->ycbcr ? 16 : 8))
    return refuse(p, "planes: expected %s, found %d", q->ycbcr ? "8 to 16 bits" : "8 bits for R G B", q->depth);
  if (q->ycbcr && !(q->kr > 0 && q->kb > 0 && q->kr + q->kb < 1))
    return refuse(p, "planes: kr and kb: expected above 0 and together below 1, found %g and %g", q->kr, q->kb);
  if ((unsigned)q->up > FK_CHROMA_BLOCK || (unsigned)q->down > FK_CHROMA_BLOCK)
    return refuse(p, "planes: chroma up and down: expected LINEAR or BLOCK, found %d and %d", (int)q->up, (int)q->down);
  return true;
}

static bool check_span(const Place *p, const FkSpan *s, int number) {
  size_t bytes;
  if (!s->data) return refuse(p, "plane %d has no data", number);
  if (s->stride < s->row || !g_size_checked_mul(&bytes, (size_t)s->rows - 1, s->stride) ||
      !g_size_checked_add(&bytes, bytes, s->row) || bytes > UINTPTR_MAX - (uintptr_t)s->data)
    return refuse(p, "plane %d: stride %zu does not fit %d rows of %zu bytes", number, s->stride, s->rows, s->row);
  if (!p->be->ops->reach(p->be, s->data, bytes))
    return refuse(p, "plane %d: %zu bytes at %p are no memory of device %d (%s) in the engine's context", number, bytes,
                  (void *)s->data, p->be->device, p->be->machine);
  return true;
}

/* host: why it has to be there; NULL: it may be anywhere. */
static bool check(const Place *p, const FkImage *i, const char *host, bool mask) {
  FkSpan span[4];
  const bool channels = mask ? i->channels == 1 && !i->planes : i->channels == 3 || i->channels == 4;
  if (i->memory == FK_MEMORY_HOST && !i->planes) return true;
  if (host || i->memory != FK_MEMORY_DEVICE)
    return refuse(p, "expected pixels in host memory, found %s: %s",
                  i->memory == FK_MEMORY_DEVICE ? "device memory" : "planes",
                  host ? host : "planes are described of device memory alone");
  if (i->width < 1 || i->height < 1 || i->width > LAST_SIDE || i->height > LAST_SIDE || !channels)
    return refuse(p, "expected sides from 1 to %d and %s, found %dx%d with %d%s", LAST_SIDE,
                  mask ? "1 channel" : "3 or 4 channels", i->width, i->height, i->channels,
                  i->planes ? " in planes" : "");
  if (i->planes && !check_planes(p, i)) return false;
  const int n = fk_surface_spans(i, span);
  if (!n) return refuse(p, "has no data");
  for (int k = 0; k < n; k++)
    if (!check_span(p, &span[k], k)) return false;
  return true;
}

static bool same_layout(const FkImage *a, const FkImage *b) {
  const FkPlanes *p = a->planes, *q = b->planes;
  if (!p || !q) return p == q;
  bool same = p->depth == q->depth && p->ycbcr == q->ycbcr;
  for (int k = 0; k < 4; k++) {
    const FkSample *s = &p->sample[k], *t = &q->sample[k];
    same &= s->plane == t->plane && s->offset == t->offset && s->step == t->step && s->shift_x == t->shift_x &&
            s->shift_y == t->shift_y;
  }
  return same;
}

static bool check_job(Place *p, const FkJob *job, bool reads, const char *host) {
  p->name = "input image";
  if (reads && !check(p, &job->in, host, false)) return false;
  p->name = "result image";
  if (!check(p, &job->out, host, false)) return false;
  if (reads && job->in.memory != job->out.memory)
    return refuse(p, "expected it in the memory of its input, found one in device and one in host memory");
  if (reads && !same_layout(&job->in, &job->out))
    return refuse(p, "its planes are laid out otherwise than its input's");
  p->name = "mask";
  if (job->mask && !check(p, job->mask, host || job->in.memory ? host : "its frame is there", true)) return false;
  if (job->n_references > FK_REFERENCES) return true; /* refused later: their array may be shorter */
  for (int k = 0; job->references && k < job->n_references; k++) {
    g_snprintf(p->reference, sizeof p->reference, "reference %d", k);
    p->name = p->reference;
    if (!check(p, &job->references[k], host, false)) return false;
  }
  return true;
}

bool fk_surface_check(FkBackend *be, const FkJob *jobs, int n, bool reads, GError **error) {
  g_autofree char *machine = be ? g_strdup_printf("the engine runs on %s", be->machine) : NULL;
  const char *host = !be ? "a manifest is of those" : be->can & FK_CAN_DEVICE_IMAGES ? NULL : machine;
  Place p = {.be = be, .error = error};
  for (int i = 0; i < n; i++) {
    p.frame = i;
    if (!check_job(&p, &jobs[i], reads, host)) return false;
  }
  return true;
}
