/* SPDX-License-Identifier: Apache-2.0 */
/* Tiling of the autoencoder (spec 5.5, diffusers autoencoder_kl.py): large images go through the network in overlapping
 * tiles, each with its own statistics, and are blended on the host, where the last tile of a row meets its neighbours.
 * Without tiling, or where one tile covers everything, this passes straight through. Where the arena only counts, tiles
 * take no host memory and nothing is blended. */
#include "vae-half.h"

#include <glib.h>

typedef struct {
  float *data; /* [h, w, c]; NULL in a null walk */
  int64_t h, w, c;
} Tile;

typedef struct {
  int64_t tile, stride; /* of the input */
  int64_t extent, keep; /* of the output: rows blended, rows kept of each tile */
} Grid;

/* b's first rows fade in over a's last ones. */
static void blend_v(const Tile *a, Tile *b, int64_t extent) {
  const int64_t e = MIN(MIN(a->h, b->h), extent), w = MIN(a->w, b->w);
  for (int64_t y = 0; y < e; y++) {
    const float t = (float)y / (float)e;
    const float *from = a->data + (a->h - e + y) * a->w * a->c;
    float *to = b->data + y * b->w * b->c;
    for (int64_t i = 0; i < w * b->c; i++) to[i] = from[i] * (1 - t) + to[i] * t;
  }
}

static void blend_h(const Tile *a, Tile *b, int64_t extent) {
  const int64_t e = MIN(MIN(a->w, b->w), extent), h = MIN(a->h, b->h);
  for (int64_t y = 0; y < h; y++)
    for (int64_t x = 0; x < e; x++) {
      const float t = (float)x / (float)e;
      const float *from = a->data + (y * a->w + a->w - e + x) * a->c;
      float *to = b->data + (y * b->w + x) * b->c;
      for (int64_t i = 0; i < b->c; i++) to[i] = from[i] * (1 - t) + to[i] * t;
    }
}

typedef struct {
  const FkVae *vae;
  FkBackend *be;
  FkArena *arena;
  FkTensor in, out;
  bool decode;
} Job;

/* n zeros of host memory; NULL in a null walk, and with a failure of the backend when there is no memory. */
static float *host_floats(const Job *j, int64_t n) {
  float *data = j->arena->base ? g_try_new0(float, (size_t)n) : NULL;
  if (j->arena->base && !data)
    fk_backend_fail(j->be, FK_FAIL_MEMORY, "blending of tiles: %lld bytes of host memory could not be had",
                    (long long)n * 4);
  return data;
}

/* Runs the tile whose corner is (y, x) and brings its result to the host. */
static Tile run_tile(const Job *j, const Grid *g, int64_t y, int64_t x) {
  const int64_t h = MIN(g->tile, j->in.dim[0] - y), w = MIN(g->tile, j->in.dim[1] - x), c = j->in.dim[2];
  const int f = fk_vae_factor(j->vae);
  const size_t mark = fk_arena_mark(j->arena);
  FkTensor in = fk_arena_3d(j->arena, j->be->dtype, h, w, c);
  for (int64_t i = 0; i < h; i++)
    fk_op_copy(j->be, fk_tensor_slice_rows(in, i * w, w), fk_tensor_slice_rows(j->in, (y + i) * j->in.dim[1] + x, w));
  Tile t = {NULL, j->decode ? h * f : h / f, j->decode ? w * f : w / f, j->out.dim[2]};
  FkTensor out = fk_arena_3d(j->arena, j->be->dtype, t.h, t.w, t.c);
  FkTensor wide = fk_arena_3d(j->arena, FK_F32, t.h, t.w, t.c);
  (j->decode ? fk_vae_decode_tile : fk_vae_encode_tile)(j->vae, j->be, j->arena, in, out);
  fk_op_copy(j->be, wide, out);
  t.data = host_floats(j, t.h * t.w * t.c);
  if (t.data) fk_op_download(j->be, t.data, wide);
  fk_arena_reset(j->arena, mark);
  return t;
}

/* Tiles in raster order; each blends with its already blended neighbours above and to the left, as the reference does.
 */
static void blend(const Job *j, const Grid *g, Tile *tiles, int64_t n, int64_t cols, float *whole) {
  const int64_t h = j->out.dim[0], w = j->out.dim[1], c = j->out.dim[2];
  for (int64_t i = 0; i < n; i++) {
    Tile *t = &tiles[i];
    if (i >= cols) blend_v(&tiles[i - cols], t, g->extent);
    if (i % cols) blend_h(&tiles[i - 1], t, g->extent);
    const int64_t top = i / cols * g->keep, left = i % cols * g->keep;
    const int64_t kept = MIN(MIN(g->keep, t->w), w - left);
    for (int64_t y = 0; y < MIN(g->keep, t->h) && top + y < h; y++)
      for (int64_t k = 0; k < kept * c; k++) whole[((top + y) * w + left) * c + k] = t->data[y * t->w * c + k];
  }
}

static void run(const Job *j, const Grid *g) {
  const int64_t rows = (j->in.dim[0] + g->stride - 1) / g->stride, cols = (j->in.dim[1] + g->stride - 1) / g->stride;
  g_autofree Tile *tiles = g_new0(Tile, (size_t)(rows * cols));
  for (int64_t i = 0; i < rows * cols; i++) tiles[i] = run_tile(j, g, i / cols * g->stride, i % cols * g->stride);
  g_autofree float *whole = host_floats(j, j->out.dim[0] * j->out.dim[1] * j->out.dim[2]);
  if (j->be->failure == FK_FAIL_NONE && whole) blend(j, g, tiles, rows * cols, cols, whole);
  for (int64_t i = 0; i < rows * cols; i++) g_free(tiles[i].data);
  const size_t mark = fk_arena_mark(j->arena);
  FkTensor wide = fk_arena_3d(j->arena, FK_F32, j->out.dim[0], j->out.dim[1], j->out.dim[2]);
  fk_op_upload(j->be, wide, whole);
  fk_op_copy(j->be, j->out, wide);
  fk_arena_reset(j->arena, mark);
}

/* Pixels of a tile's side: the size the network was trained at, down to a multiple of what makes a quarter of a tile,
 * the overlap, whole latents. */
static int64_t tile_side(const FkVae *vae) {
  const int64_t unit = 4 * (int64_t)fk_vae_factor(vae);
  return MAX(unit, vae->config.sample_size / unit * unit);
}

void fk_vae_encode(const FkVae *vae, FkBackend *be, FkArena *arena, FkTensor image, FkTensor moments, bool tiling) {
  const int64_t tile = tile_side(vae), latent = tile / fk_vae_factor(vae);
  if (!tiling || (image.dim[0] <= tile && image.dim[1] <= tile)) {
    fk_vae_encode_tile(vae, be, arena, image, moments);
    return;
  }
  /* overlap 0.25 */
  run(&(Job){vae, be, arena, image, moments, false}, &(Grid){tile, tile * 3 / 4, latent / 4, latent - latent / 4});
}

void fk_vae_decode(const FkVae *vae, FkBackend *be, FkArena *arena, FkTensor latent, FkTensor image, bool tiling) {
  const int64_t tile = tile_side(vae), small = tile / fk_vae_factor(vae);
  if (!tiling || (latent.dim[0] <= small && latent.dim[1] <= small)) {
    fk_vae_decode_tile(vae, be, arena, latent, image);
    return;
  }
  run(&(Job){vae, be, arena, latent, image, true}, &(Grid){small, small * 3 / 4, tile / 4, tile - tile / 4});
}
