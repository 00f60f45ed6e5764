/* SPDX-License-Identifier: Apache-2.0 */
/* The estimate is x0 = x - sigma * v. The map is the least squares solution over the latents of one synthetic picture
 * and its pixels, averaged over the 8x8 that a latent covers: computed, because every checkpoint brings its own
 * autoencoder, and from the encoder, because that costs one pass. */
#include "preview.h"

#include "vae.h"

#include <math.h>
#include <string.h>

enum { SIDE = 256, CELL = 8, SHAPES = 600 };

/* Weight of the penalty on coefficients, per channel and relative to the channel's energy. */
#define RIDGE 1e-3

void fk_preview_map_clear(FkPreviewMap *map) {
  g_clear_pointer(&map->coef, g_free);
  map->width = map->height = 0;
}

bool fk_preview_wanted(const FkEdit *e) {
  for (int i = 0; i < e->n && !e->dry_run; i++)
    if (e->jobs[i].preview && e->jobs[i].preview_every > 0) return true;
  return false;
}

static bool no_memory(GError **error, size_t bytes) {
  g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "preview: %zu bytes of host memory could not be had", bytes);
  return false;
}

static uint32_t draw(uint64_t *state, uint32_t below) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(*state >> 33) % below;
}

/* Discs and boxes of all sizes and colours one above the other, shaded: edges and areas as photographs have them. */
static void paint(uint8_t *pixels, int width, int height) {
  uint64_t state = 1;
  memset(pixels, 128, (size_t)width * (size_t)height * 3);
  for (int k = 0; k < SHAPES; k++) {
    const int r = 4 + (int)(draw(&state, 28) * draw(&state, 28)) / 12, box = (int)draw(&state, 2);
    const int cx = (int)draw(&state, (uint32_t)width), cy = (int)draw(&state, (uint32_t)height);
    const int slope = (int)draw(&state, 5) - 2;
    int colour[3];
    for (int c = 0; c < 3; c++) colour[c] = (int)draw(&state, 256);
    for (int y = MAX(0, cy - r); y < MIN(height, cy + r); y++)
      for (int x = MAX(0, cx - r); x < MIN(width, cx + r); x++) {
        if (!box && (x - cx) * (x - cx) + (y - cy) * (y - cy) >= r * r) continue;
        for (int c = 0; c < 3; c++) {
          const int value = colour[c] + slope * (x - cx);
          pixels[(y * width + x) * 3 + c] = (uint8_t)CLAMP(value, 0, 255);
        }
      }
  }
}

/* Normalised latents of the picture as tokens, float32. */
static bool encode(const FkEdit *e, const uint8_t *pixels, int width, int height, float *tokens, GError **error) {
  const FkVaeConfig *c = &e->model->config.vae;
  const size_t mark = fk_arena_mark(e->arena);
  const int64_t rows = (int64_t)(height / 16) * (width / 16), cols = 4 * (int64_t)c->latent_channels;
  FkTensor packed = fk_arena_2d(e->arena, e->be->dtype, rows, cols), wide = fk_arena_2d(e->arena, FK_F32, rows, cols);
  FkTensor bytes = fk_arena_3d(e->arena, FK_U8, height, width, 3);
  FkTensor image = fk_arena_3d(e->arena, e->be->dtype, height, width, 3);
  FkTensor moments = fk_arena_3d(e->arena, e->be->dtype, height / CELL, width / CELL, 2 * c->latent_channels);
  fk_op_upload(e->be, bytes, pixels);
  fk_op_from_u8(e->be, image, bytes);
  fk_vae_encode(&e->model->vae, e->be, e->arena, image, moments, e->tune->vae_tiling);
  FkTensor mean = moments; /* the first half of the channels */
  mean.dim[2] = c->latent_channels;
  fk_op_pack(e->be, packed, mean, (float)c->scaling_factor, (float)c->shift_factor);
  fk_op_copy(e->be, wide, packed);
  fk_op_download(e->be, tokens, wide);
  fk_arena_reset(e->arena, mark);
  return fk_job_sync(e->be, error);
}

/* Latent (y, x) of a map `across` latents wide in its tokens: element 4c of channel c from there on. */
static size_t latent_at(int channels, int across, int y, int x) {
  const size_t token = (size_t)(y / 2) * (size_t)(across / 2) + (size_t)(x / 2);
  return token * 4 * (size_t)channels + (size_t)(y % 2 * 2 + x % 2);
}

/* Adds one latent and its colours to the normal equations: a [n, n] and b [3, n], n = C + 1. */
static void accumulate(double *a, double *b, const float *latent, const double colour[3], int channels) {
  const int n = channels + 1;
  for (int i = 0; i < n; i++) {
    const double u = i < channels ? (double)latent[4 * i] : 1;
    for (int j = 0; j <= i; j++) a[i * n + j] += u * (j < channels ? (double)latent[4 * j] : 1);
    for (int c = 0; c < 3; c++) b[c * n + i] += u * colour[c];
  }
}

/* Solves a x = b for the three right sides, in place, by Cholesky. False: not positive definite. */
static bool solve(double *a, double *b, int n) {
  for (int i = 0; i < n; i++)
    for (int j = 0; j <= i; j++) {
      double sum = a[i * n + j];
      for (int k = 0; k < j; k++) sum -= a[i * n + k] * a[j * n + k];
      if (i == j && !(sum > 0 && isfinite(sum))) return false;
      a[i * n + j] = i == j ? sqrt(sum) : sum / a[j * n + j];
    }
  for (int c = 0; c < 3; c++) {
    double *x = b + c * n;
    for (int i = 0; i < n; i++) {
      for (int k = 0; k < i; k++) x[i] -= a[i * n + k] * x[k];
      x[i] /= a[i * n + i];
    }
    for (int i = n - 1; i >= 0; i--) {
      for (int k = i + 1; k < n; k++) x[i] -= a[k * n + i] * x[k];
      x[i] /= a[i * n + i];
    }
  }
  return true;
}

static void cell_colour(const uint8_t *pixels, int width, int y, int x, double colour[3]) {
  for (int c = 0; c < 3; c++) {
    int sum = 0;
    for (int j = 0; j < CELL; j++)
      for (int i = 0; i < CELL; i++) sum += pixels[((y * CELL + j) * width + x * CELL + i) * 3 + c];
    colour[c] = (double)sum / (CELL * CELL);
  }
}

/* The map of these pixels and their latents. One that cannot be had (latents that are no numbers) is plain grey. */
static void fit(FkPreviewMap *map, double *a, const uint8_t *pixels, const float *tokens, int width, int height) {
  const int n = map->channels + 1;
  for (int y = 0; y < height / CELL; y++)
    for (int x = 0; x < width / CELL; x++) {
      double colour[3];
      cell_colour(pixels, width, y, x, colour);
      accumulate(a, map->coef, tokens + latent_at(map->channels, width / CELL, y, x), colour, map->channels);
    }
  for (int i = 0; i < map->channels; i++) a[i * n + i] *= 1 + RIDGE;
  bool ok = solve(a, map->coef, n);
  for (int i = 0; ok && i < 3 * n; i++) ok = isfinite(map->coef[i]);
  if (ok) return;
  for (int i = 0; i < 3 * n; i++) map->coef[i] = i % n == map->channels ? 128 : 0;
}

bool fk_preview_fit(FkEdit *e, GError **error) {
  FkPreviewMap *map = e->previews;
  const int width = MIN(SIDE, e->width), height = MIN(SIDE, e->height), c = e->model->config.vae.latent_channels;
  const size_t area = (size_t)width * (size_t)height, n = (size_t)c + 1;
  if (map->width == width && map->height == height) return true;
  fk_preview_map_clear(map);
  g_autofree uint8_t *pixels = g_try_malloc(area * 3);
  g_autofree float *tokens = g_try_new(float, area / (CELL * CELL) * (size_t)c);
  g_autofree double *a = g_try_new0(double, n *n);
  map->coef = g_try_new0(double, 3 * n);
  if (!pixels || !tokens || !a || !map->coef) return no_memory(error, area * 3);
  map->channels = c;
  paint(pixels, width, height);
  if (!encode(e, pixels, width, height, tokens, error)) return false;
  fit(map, a, pixels, tokens, width, height);
  map->width = width;
  map->height = height;
  return true;
}

static uint8_t to_byte(double value) {
  return value >= 255 ? 255 : value > 0 ? (uint8_t)lrint(value) : 0; /* NaN: 0 */
}

static void colour_latents(const FkPreviewMap *map, const float *tokens, uint8_t *rgb, int width, int height) {
  const int n = map->channels + 1;
  for (int y = 0; y < height; y++)
    for (int x = 0; x < width; x++) {
      const float *latent = tokens + latent_at(map->channels, width, y, x);
      for (int c = 0; c < 3; c++) {
        const double *coef = map->coef + c * n;
        double sum = coef[map->channels];
        for (int k = 0; k < map->channels; k++) sum += coef[k] * (double)latent[4 * k];
        rgb[(y * width + x) * 3 + c] = to_byte(sum);
      }
    }
}

bool fk_preview_show(const FkEdit *e, int frame, int i, int n, FkTensor x, FkTensor v, float sigma, GError **error) {
  const FkJob *job = &e->jobs[frame];
  const int width = e->width / CELL, height = e->height / CELL;
  if (e->dry_run || !job->preview || job->preview_every <= 0 || (i + 1) % job->preview_every || i + 1 == n) return true;
  const size_t count = (size_t)fk_tensor_count(x), bytes = (size_t)width * (size_t)height * 3;
  g_autofree float *estimate = g_try_new(float, count), *velocity = g_try_new(float, count);
  g_autofree uint8_t *rgb = g_try_malloc(bytes);
  if (!estimate || !velocity || !rgb) return no_memory(error, 2 * count * sizeof(float) + bytes);
  fk_op_download(e->be, estimate, x);
  fk_op_download(e->be, velocity, v);
  if (!fk_job_sync(e->be, error)) return false;
  for (size_t k = 0; k < count; k++) estimate[k] -= sigma * velocity[k];
  colour_latents(e->previews, estimate, rgb, width, height);
  const FkImage image = {rgb, width, height, 3, (size_t)width * 3};
  job->preview(i + 1, n, &image, job->preview_data);
  return true;
}
