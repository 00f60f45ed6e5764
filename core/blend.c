/* SPDX-License-Identifier: Apache-2.0 */
/* Beginning from the noised picture and keeping what lies outside a mask; see blend.h. The mask is 0 or 1, so that what
 * is kept has no rounding of what is edited. Not here: masks as pixels (mask.c), sigmas (scheduler.c). */
#include "blend.h"

typedef struct {
  FkTensor x, noise, image; /* float32; image: the context in it */
  FkTensor mask, kept;      /* m and 1 - m; absent: no mask */
} Frame;

struct FkBlend {
  FkBackend *be;
  FkTensor coefs; /* [evaluations + 1, 2] float32: of noise and picture at the sigma of each evaluation, then at 0 */
  FkTensor scratch;
  Frame *frames;
};

static void upload_coefs(FkBlend *b, FkArena *arena, const FkSchedule *s) {
  const int n = s->evaluations;
  g_autofree float *host = g_new(float, 2 * ((size_t)n + 1));
  for (int i = 0; i <= n; i++) {
    const float sigma = i < n ? fk_schedule_sigma(s, i) : 0;
    host[2 * i] = sigma;
    host[2 * i + 1] = 1 - sigma;
  }
  b->coefs = fk_arena_2d(arena, FK_F32, n + 1, 2);
  fk_op_upload(b->be, b->coefs, host);
}

/* y = the picture with the noise of this row of coefficients. */
static void noised(const FkBlend *b, const Frame *f, FkTensor y, int row) {
  fk_op_combine(b->be, y, 2, (const FkTensor[]){f->noise, f->image}, fk_tensor_row(b->coefs, row));
}

static FkTensor like(FkArena *arena, FkTensor x) {
  return fk_arena_2d(arena, FK_F32, x.dim[0], x.dim[1]);
}

/* One row goes up. */
static FkTensor ones_like(FkBlend *b, FkArena *arena, FkTensor x) {
  const int64_t rows = fk_tensor_rows(x), cols = fk_tensor_cols(x);
  FkTensor ones = like(arena, x), row = fk_arena_2d(arena, FK_F32, 1, cols), index = fk_arena_1d(arena, FK_I32, rows);
  g_autofree int32_t *first = g_new0(int32_t, (size_t)rows);
  g_autofree float *host = g_new(float, (size_t)cols);
  for (int64_t i = 0; i < cols; i++) host[i] = 1;
  fk_op_upload(b->be, row, host);
  fk_op_upload(b->be, index, first);
  fk_op_gather_rows(b->be, ones, row, index);
  return ones;
}

static void open_mask(FkBlend *b, FkArena *arena, Frame *f, FkTensor mask) {
  FkTensor one_less = fk_arena_1d(arena, FK_F32, 2), ones = ones_like(b, arena, mask);
  fk_op_upload(b->be, one_less, (const float[]){1, -1});
  f->mask = mask;
  f->kept = ones;
  fk_op_combine(b->be, f->kept, 2, (const FkTensor[]){ones, mask}, one_less);
}

FkBlend *fk_blend_open(const FkEdit *e, const FkDenoiseFrame *frames, const FkSchedule *schedule, bool start) {
  bool masked = false;
  for (int i = 0; i < e->n; i++) masked |= frames[i].mask.rank > 0;
  if (!start && !masked) return NULL;
  FkBlend *b = g_new0(FkBlend, 1);
  b->be = e->be;
  b->frames = g_new0(Frame, (size_t)e->n);
  b->scratch = like(e->arena, frames[0].latent);
  upload_coefs(b, e->arena, schedule);
  for (int i = 0; i < e->n; i++) {
    Frame *f = &b->frames[i];
    f->x = frames[i].latent;
    f->noise = like(e->arena, f->x);
    f->image = like(e->arena, f->x);
    fk_op_copy(b->be, f->noise, f->x);
    fk_op_copy(b->be, f->image, fk_tensor_slice_rows(frames[i].context, 0, f->x.dim[0]));
    if (frames[i].mask.rank) open_mask(b, e->arena, f, frames[i].mask);
    if (start) noised(b, f, f->x, 0);
  }
  return b;
}

void fk_blend_free(FkBlend *b) {
  if (!b) return;
  g_free(b->frames);
  g_free(b);
}

void fk_blend_step(const FkBlend *b, int frame, int i) {
  const Frame *f = &b->frames[frame];
  if (!f->mask.rank) return;
  noised(b, f, b->scratch, i + 1);
  fk_op_mul(b->be, b->scratch, b->scratch, f->kept);
  fk_op_mul(b->be, f->x, f->x, f->mask);
  fk_op_add(b->be, f->x, f->x, b->scratch);
}
