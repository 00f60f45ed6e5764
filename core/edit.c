/* SPDX-License-Identifier: Apache-2.0 */
/* One batch, stage by stage: text, VAE encode, tokens and noise, the loop, VAE decode, pixels.
 * Not here: the loop (denoise.c), sharing, queues and plans (engine.c). */
#include "edit.h"

#include "debug.h"
#include "denoise.h"
#include "draft.h"
#include "extras.h"
#include "image.h"
#include "latent.h"
#include "preview.h"
#include "profile.h"
#include "surface.h"

#include <string.h>

/* Stage boundaries wait for the backend: four waits an edit, so that times, failures and peaks belong to their stage.
 */
typedef struct {
  FkEdit *edit;
  FkStage stage;
  int64_t start_us;
  double flop;
} StageClock;

static StageClock stage_begin(FkEdit *e, FkStage stage) {
  static const char *const names[FK_STAGES] = {"text", "encode", "denoise", "decode"};
  if (e->be->profile) e->be->profile->stage = names[stage];
  e->arena->peak = e->arena->used;
  fk_op_range(e->be, names[stage]);
  return (StageClock){e, stage, g_get_monotonic_time(), fk_job_flop(e->be)};
}

/* However the stage was left. */
static void stage_clear(StageClock *c) {
  fk_op_range(c->edit->be, NULL);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(StageClock, stage_clear)

static bool stage_end(const StageClock *c, GError **error) {
  FkEdit *e = c->edit;
  const bool ok = fk_job_sync(e->be, error);
  e->cost[c->stage] = (FkStageCost){(double)(g_get_monotonic_time() - c->start_us) / 1000.0,
                                    fk_job_flop(e->be) - c->flop, e->arena->peak};
  return ok && !fk_job_cancelled(e->cancellable, error);
}

static void report(const FkEdit *e, const char *stage, int64_t current, int64_t total) {
  if (e->progress) e->progress(stage, current, total, e->user_data);
}

static bool no_memory(GError **error, const char *what, size_t bytes) {
  g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: %zu bytes of host memory could not be had", what, bytes);
  return false;
}

/* `count` of an image's channels from `first` on (colour 0..2, alpha 3) to or from packed rows. */
static void copy_channels(const FkImage *image, int first, int count, uint8_t *packed, bool take) {
  const size_t step = (size_t)image->channels, n = (size_t)image->width;
  for (int y = 0; y < image->height; y++) {
    uint8_t *at = image->data + (size_t)y * image->stride + first, *row = packed + (size_t)y * n * (size_t)count;
    if (image->channels == count) {
      memcpy(take ? row : at, take ? at : row, n * step);
      continue;
    }
    for (size_t x = 0; x < n; x++)
      for (int c = 0; c < count; c++) {
        uint8_t *pixel = at + x * step + c, *value = row + x * (size_t)count + c;
        if (take)
          *value = *pixel;
        else
          *pixel = *value;
      }
  }
}

/* channels first..first+count of `in` at width x height, packed; (transfer full). */
static uint8_t *resized(const FkImage *in, int first, int count, int width, int height, GError **error) {
  const size_t n = (size_t)in->width * (size_t)in->height * (size_t)count;
  const size_t m = (size_t)width * (size_t)height * (size_t)count;
  g_autofree uint8_t *packed = g_try_malloc(n);
  if (!packed) return no_memory(error, "resize", n), NULL;
  copy_channels(in, first, count, packed, true);
  if (in->width == width && in->height == height) return g_steal_pointer(&packed);
  g_autofree uint8_t *out = g_try_malloc(m);
  if (!out || !fk_image_resize_lanczos(out, width, height, (size_t)width * (size_t)count, packed, in->width, in->height,
                                       (size_t)in->width * (size_t)count, count))
    return no_memory(error, "resize", n + m), NULL;
  return g_steal_pointer(&out);
}

/* A picture's colours at the size of `bytes`. region: of a picture in device memory what is taken; of others it is what
 * their pixels are. NULL: all. */
static bool take_pixels(const FkEdit *e, const FkImage *in, const FkMaskBox *region, FkTensor bytes, GError **error) {
  if (in && in->memory == FK_MEMORY_DEVICE)
    return fk_surface_take(e, in, region && region->w ? *region : (FkMaskBox){0, 0, in->width, in->height}, 0, bytes,
                           error);
  g_autofree uint8_t *pixels = e->dry_run ? NULL : resized(in, 0, 3, (int)bytes.dim[1], (int)bytes.dim[0], error);
  if (!pixels && !e->dry_run) return false;
  fk_op_upload(e->be, bytes, pixels);
  return true;
}

/* Pixels -> normalised, packed context tokens of a picture of this size. */
static bool encode_frame(const FkEdit *e, const FkImage *in, const FkMaskBox *region, int width, int height,
                         FkTensor tokens, GError **error) {
  const FkVaeConfig *c = &e->model->config.vae;
  const size_t mark = fk_arena_mark(e->arena);
  FkTensor bytes = fk_arena_3d(e->arena, FK_U8, height, width, 3);
  FkTensor image = fk_arena_3d(e->arena, e->be->dtype, height, width, 3);
  FkTensor moments = fk_arena_3d(e->arena, e->be->dtype, height / 8, width / 8, 2 * c->latent_channels);
  if (!take_pixels(e, in, region, bytes, error)) return false;
  fk_op_from_u8(e->be, image, bytes);
  fk_vae_encode(&e->model->vae, e->be, e->arena, image, moments, e->tune->vae_tiling);
  FkTensor mean = moments; /* the first half of the channels */
  mean.dim[2] = c->latent_channels;
  fk_op_pack(e->be, tokens, mean, (float)c->scaling_factor, (float)c->shift_factor);
  fk_op_check(e->be, tokens, "context latents");
  fk_debug_dump(e->be, "input", image);
  fk_debug_dump(e->be, "context", tokens);
  fk_arena_reset(e->arena, mark);
  return true;
}

/* The input's alpha; a generated picture has none and is opaque. */
static bool write_alpha(const FkEdit *e, const FkJob *job, GError **error) {
  const FkImage *out = &job->out;
  if (e->tune->task == FK_TASK_GENERATE) {
    for (int y = 0; y < out->height; y++)
      for (int x = 0; x < out->width; x++) out->data[(size_t)y * out->stride + (size_t)x * 4 + 3] = 255;
    return true;
  }
  g_autofree uint8_t *alpha = resized(&job->in, 3, 1, out->width, out->height, error);
  if (alpha) copy_channels(out, 3, 1, alpha, false);
  return alpha != NULL;
}

/* Denoised tokens -> pixels of the result's size. */
static bool decode_frame(const FkEdit *e, FkTensor latent, FkJob *job, GError **error) {
  const FkVaeConfig *c = &e->model->config.vae;
  const size_t n = (size_t)e->width * (size_t)e->height * 3, mark = fk_arena_mark(e->arena);
  FkTensor map = fk_arena_3d(e->arena, e->be->dtype, e->height / 8, e->width / 8, c->latent_channels);
  FkTensor image = fk_arena_3d(e->arena, e->be->dtype, e->height, e->width, 3);
  FkTensor bytes = fk_arena_3d(e->arena, FK_U8, e->height, e->width, 3);
  const bool device = job->out.memory == FK_MEMORY_DEVICE;
  g_autofree uint8_t *pixels = e->dry_run || device ? NULL : g_try_malloc(n);
  if (!pixels && !e->dry_run && !device) return no_memory(error, "decode", n);
  fk_op_check(e->be, latent, "latents");
  fk_op_unpack(e->be, map, latent, (float)c->scaling_factor, (float)c->shift_factor);
  fk_vae_decode(&e->model->vae, e->be, e->arena, map, image, e->tune->vae_tiling);
  fk_op_check(e->be, image, "decoded image");
  fk_op_to_u8(e->be, bytes, image);
  if (device && !fk_surface_give(e, job, bytes, error)) return false;
  if (pixels) fk_op_download(e->be, pixels, bytes);
  fk_debug_dump(e->be, "final_latents", map);
  fk_debug_dump(e->be, "decoded", image);
  fk_arena_reset(e->arena, mark);
  if (!pixels || !fk_job_sync(e->be, error)) return !pixels;

  const FkImage model = {pixels, e->width, e->height, 3, (size_t)e->width * 3};
  g_autofree uint8_t *sized = resized(&model, 0, 3, job->out.width, job->out.height, error);
  if (!sized) return false;
  copy_channels(&job->out, 0, 3, sized, false);
  if (job->out.channels == 4 && !write_alpha(e, job, error)) return false;
  const FkExtras *extras = e->extras ? &e->extras[job - e->jobs] : NULL;
  if (e->tune->edited.keep &&
      !fk_extras_keep(job->result.region, e->height / 16, e->width / 16, &job->in, &job->out, error))
    return false;
  if (extras && extras->mask) fk_extras_mix(extras, e->region, &job->in, &job->out);
  return true;
}

/* torch.randn of shape [C, H/8, W/8], packed. */
static bool draw_noise(const FkEdit *e, uint64_t seed, FkTensor latent, GError **error) {
  const int c = e->model->config.vae.latent_channels, h = e->height / 8, w = e->width / 8;
  const size_t n = (size_t)c * (size_t)h * (size_t)w;
  if (e->dry_run) return true;
  g_autofree float *chw = g_try_new(float, n), *tokens = g_try_new(float, n);
  if (!chw || !tokens) return no_memory(error, "noise", 2 * n * sizeof(float));
  fk_noise_normal(chw, (int64_t)n, seed, e->tune->rng);
  fk_latent_pack_host(tokens, chw, c, h, w);
  fk_op_upload(e->be, latent, tokens);
  fk_debug_dump(e->be, "noise", latent);
  return true;
}

/* The stage before was waited for. */
static bool bring(const FkEdit *e, bool text, GError **error) {
  return !e->bring || e->bring(e->owner, text, e->cancellable, error);
}

static bool encode_text(FkEdit *e, FkPrompt *positive, FkPrompt *negative, GError **error) {
  g_auto(StageClock) clock = stage_begin(e, FK_STAGE_TEXT);
  const int length = fk_prompt_length(e->model, e->tune->max_sequence_length);
  const char *const text[2] = {e->tune->prompt, e->tune->negative_prompt};
  FkPrompt *const prompt[2] = {positive, negative};
  FkPromptCache *cache = e->tune->prompt_cache ? e->cache : NULL;
  bool ok = true;
  report(e, "text", 0, 1);
  for (int i = 0; ok && i < 2 && text[i]; i++)
    ok = fk_prompt_cached(e->model, cache, text[i], length) || bring(e, true, error);
  for (int i = 0; ok && i < 2 && text[i]; i++)
    ok = fk_prompt_encode(e->model, e->be, e->arena, cache, text[i], length, prompt[i], error);
  fk_debug_dump(e->be, "pooled", positive->pooled);
  fk_debug_dump(e->be, "text", positive->states);
  ok = ok && stage_end(&clock, error);
  if (cache) fk_prompt_cache_settle(cache, ok);
  return ok;
}

/* The context with the frame at the draft's size, where there is a draft. */
static bool encode_draft(const FkEdit *e, const FkImage *in, FkTensor context, FkTensor *tokens, GError **error) {
  if (!fk_draft_steps(e->tune->steps, e->tune->draft, e->tune->draft_share)) return true;
  const FkDraftGrid g = fk_draft_grid(e->height / 16, e->width / 16, e->tune->draft);
  const int64_t own = (int64_t)g.small_h * g.small_w, others = fk_flux_reference_tokens(&e->references);
  *tokens = fk_arena_2d(e->arena, e->be->dtype, own + others, e->model->config.flux.in_channels);
  if (others)
    fk_op_copy(e->be, fk_tensor_slice_rows(*tokens, own, others),
               fk_tensor_slice_rows(context, fk_tensor_rows(context) - others, others));
  return encode_frame(e, in, &e->region, g.small_w * 16, g.small_h * 16, fk_tensor_slice_rows(*tokens, 0, own), error);
}

/* What of a frame's latents is edited; all of it where the frame has no mask and others of its batch do. */
static bool upload_mask(const FkEdit *e, int i, FkTensor *mask, GError **error) {
  const FkExtras *extras = e->extras ? &e->extras[i] : NULL;
  if (!e->masked) return true;
  *mask = fk_arena_2d(e->arena, FK_F32, (int64_t)(e->height / 16) * (e->width / 16), e->model->config.flux.in_channels);
  if (e->jobs[i].in.memory == FK_MEMORY_DEVICE && (!extras || extras->mask))
    return fk_surface_tokens(e, &e->jobs[i], *mask, error);
  if (e->dry_run) return true;
  const size_t n = (size_t)fk_tensor_count(*mask);
  g_autofree float *host = g_try_new(float, n);
  if (!host) return no_memory(error, "mask", n * sizeof *host);
  for (size_t k = 0; k < n; k++) host[k] = 1;
  if (extras && extras->mask &&
      !fk_extras_tokens(extras, e->region, e->width, e->height, e->model->config.vae.latent_channels, host, error))
    return false;
  fk_op_upload(e->be, *mask, host);
  return true;
}

/* The context tokens of a frame: its own, then those of the pictures beside it. */
static bool encode_context(const FkEdit *e, int i, FkTensor context, GError **error) {
  const FkFluxReferences *r = &e->references;
  int64_t at = (int64_t)(e->height / 16) * (e->width / 16);
  if (!encode_frame(e, &e->jobs[i].in, &e->region, e->width, e->height, fk_tensor_slice_rows(context, 0, at), error))
    return false;
  for (int k = 0; k < r->n; k++) {
    const FkImage *image = e->extras ? &e->extras[i].references[k] : NULL; /* a plan needs no pixels */
    const int64_t n = (int64_t)r->rows[k] * r->columns[k];
    if (!encode_frame(e, image, NULL, r->columns[k] * 16, r->rows[k] * 16, fk_tensor_slice_rows(context, at, n), error))
      return false;
    at += n;
  }
  return true;
}

static bool encode_images(FkEdit *e, FkDenoiseFrame *frames, GError **error) {
  g_auto(StageClock) clock = stage_begin(e, FK_STAGE_ENCODE);
  const int64_t tokens = (int64_t)(e->height / 16) * (e->width / 16), c = e->model->config.flux.in_channels;
  if (!bring(e, false, error)) return false;
  if (fk_preview_wanted(e) && !fk_preview_fit(e, error)) return false;
  for (int i = 0; i < e->n; i++) {
    report(e, "encode", i, e->n);
    frames[i].latent = fk_arena_2d(e->arena, FK_F32, tokens, c);
    if (e->tune->task == FK_TASK_EDIT) {
      frames[i].context = fk_arena_2d(e->arena, e->be->dtype, tokens + fk_flux_reference_tokens(&e->references), c);
      if (!encode_context(e, i, frames[i].context, error) ||
          !encode_draft(e, &e->jobs[i].in, frames[i].context, &frames[i].draft, error))
        return false;
    }
    /* while a GPU still encodes */
    if (!draw_noise(e, e->jobs[i].result.seed, frames[i].latent, error) || !upload_mask(e, i, &frames[i].mask, error))
      return false;
  }
  return stage_end(&clock, error);
}

static bool decode_images(FkEdit *e, const FkDenoiseFrame *frames, GError **error) {
  g_auto(StageClock) clock = stage_begin(e, FK_STAGE_DECODE);
  for (int i = 0; i < e->n; i++) {
    report(e, "decode", i, e->n);
    if (!decode_frame(e, frames[i].latent, &e->jobs[i], error)) return false;
  }
  report(e, "decode", e->n, e->n);
  return stage_end(&clock, error);
}

static bool cut(const FkTextRead *r) {
  return r->read < r->tokens;
}

/* result.flop holds what the loop spent on each frame alone; what they share is shared. */
static void write_results(const FkEdit *e, const FkPrompt *positive, const FkPrompt *negative, int64_t saturated) {
  double shared = 0;
  for (int s = 0; s < FK_STAGES; s++) shared += e->cost[s].flop;
  for (int i = 0; i < e->n; i++) shared -= e->jobs[i].result.flop;
  for (int i = 0; i < e->n; i++) {
    FkResult *r = &e->jobs[i].result;
    r->width = e->width;
    r->height = e->height;
    r->prompt_cached = positive->cached;
    r->clip = positive->clip;
    r->t5 = positive->t5;
    r->negative_clip = negative->clip;
    r->negative_t5 = negative->t5;
    r->truncated = cut(&r->clip) || cut(&r->t5) || cut(&r->negative_clip) || cut(&r->negative_t5);
    r->text_ms = e->cost[FK_STAGE_TEXT].ms;
    r->encode_ms = e->cost[FK_STAGE_ENCODE].ms;
    r->denoise_ms = e->cost[FK_STAGE_DENOISE].ms;
    r->decode_ms = e->cost[FK_STAGE_DECODE].ms;
    r->edit_ms = r->text_ms + r->encode_ms + r->denoise_ms + r->decode_ms;
    r->saturated = saturated;
    r->flop += shared / e->n;
  }
}

bool fk_edit_run(FkEdit *e, GError **error) {
  const size_t mark = fk_arena_mark(e->arena);
  const int64_t before = e->be->count.saturated;
  FkPrompt positive = {0}, negative = {0};
  g_autofree FkDenoiseFrame *frames = g_try_new0(FkDenoiseFrame, (size_t)e->n);
  if (!frames) return no_memory(error, "frames", (size_t)e->n * sizeof *frames);
  bool ok = encode_text(e, &positive, &negative, error) && encode_images(e, frames, error);
  if (ok) {
    g_auto(StageClock) clock = stage_begin(e, FK_STAGE_DENOISE);
    ok = fk_denoise(e, &positive, e->tune->negative_prompt ? &negative : NULL, frames, error) &&
         stage_end(&clock, error);
  }
  ok = ok && decode_images(e, frames, error);
  if (ok) write_results(e, &positive, &negative, e->be->count.saturated - before);
  fk_arena_reset(e->arena, mark);
  return ok;
}
