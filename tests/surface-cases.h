/* SPDX-License-Identifier: Apache-2.0 */
/* Edits of pictures in device memory beside the same edits in host memory, for a backend whose device is the host
 * (test-surface.c) and for a GPU (gpu/test-gpu-frames.c): interleaved rows and planes, sizes, alpha, masks, regions,
 * references, batches. All bytes are compared, those between rows too. */
#ifndef SURFACE_CASES_H
#define SURFACE_CASES_H

#include "counted-backend.h"
#include "engine.h"
#include "frame.h"

#include <glib.h>
#include <string.h>

/* Another backend of the device, for its memory; NULL: device memory is the host's. */
static FkBackend *device_memory;
/* What "mask-path" with the value "" stands for. */
static const char *mask_file;

/* Device memory with these bytes; freed by device_get. */
static uint8_t *device_put(const uint8_t *host, size_t bytes) {
  if (!device_memory) return g_memdup2(host, bytes);
  uint8_t *data = device_memory->ops->alloc(device_memory, bytes);
  g_assert_nonnull(data);
  device_memory->ops->upload(device_memory, data, host, bytes);
  g_assert_true(fk_backend_sync(device_memory));
  return data;
}

static void device_get(uint8_t *host, uint8_t *data, size_t bytes) {
  if (!device_memory) {
    memcpy(host, data, bytes);
    g_free(data);
    return;
  }
  device_memory->ops->download(device_memory, host, data, bytes);
  device_memory->ops->release(device_memory, data);
  g_assert_true(fk_backend_sync(device_memory));
}

static void fill(uint8_t *data, size_t n, uint32_t x) {
  for (size_t i = 0; i < n; i++) {
    x = x * 1664525u + 1013904223u;
    data[i] = (uint8_t)(x >> 24);
  }
}

/* ---- Edits ---- */

/* A picture whose rows have a gap. */
static inline FkImage picture(int width, int height, int channels, uint32_t seed) {
  const size_t stride = (size_t)(width * channels + 5);
  FkImage i = {g_malloc(stride * (size_t)height), width, height, channels, stride, FK_MEMORY_HOST, NULL};
  fill(i.data, stride * (size_t)height, seed);
  return i;
}

typedef struct {
  const char *name;
  int w, h, channels, n; /* n: frames of the batch */
  const char *set[8];    /* names and values */
  int mask;              /* 0: none; 1: a rectangle; 2: nothing is edited; 3: noise of another size; 4: that, on the
                            device where the frame is */
  int references;
} EditCase;

static const EditCase edits[] = {
    {"rgb", 64, 64, 3, 1, {NULL}, 0, 0},
    {"odd", 33, 17, 3, 1, {NULL}, 0, 0},
    {"alpha", 71, 45, 4, 1, {NULL}, 0, 0},
    {"one pixel", 1, 1, 4, 1, {NULL}, 0, 0},
    {"batch", 50, 70, 3, 3, {NULL}, 0, 0},
    {"native", 61, 30, 4, 1, {"size-mode", "native", NULL}, 0, 0},
    {"generate", 48, 48, 4, 1, {"task", "generate", NULL}, 0, 0},
    {"mask", 71, 45, 3, 1, {"mask-feather", "6", NULL}, 1, 0},
    {"mask, alpha, batch", 71, 45, 4, 2, {"mask-invert", "true", NULL}, 1, 0},
    {"mask of alpha", 40, 40, 4, 1, {"mask", "alpha", NULL}, 0, 0},
    {"mask of alpha, batch", 71, 45, 4, 3, {"mask", "alpha", "mask-dilate", "3", "mask-feather", "5", NULL}, 0, 0},
    {"mask of alpha, crop", 150, 130, 4, 1, {"mask", "alpha", "mask-invert", "true", "region", "crop", NULL}, 0, 0},
    {"mask of a file", 97, 61, 3, 2, {"mask-path", "", "mask-dilate", "7", "mask-feather", "9", NULL}, 0, 0},
    {"mask of a file, crop", 151, 131, 4, 1, {"mask-path", "", "mask-feather", "12", "region", "crop", NULL}, 0, 0},
    {"mask of another size", 71, 45, 3, 1, {"mask-dilate", "1", "mask-feather", "4", NULL}, 3, 0},
    {"mask on the device", 71, 45, 3, 2, {"mask-invert", "true", "mask-feather", "2", NULL}, 4, 0},
    {"wide windows", 40, 30, 4, 1, {"mask", "alpha", "mask-dilate", "50", "mask-feather", "99", NULL}, 0, 0},
    {"crop", 150, 130, 3, 1, {"region", "crop", NULL}, 1, 0},
    {"crop, alpha", 151, 131, 4, 2, {"region", "crop", "mask-feather", "4", NULL}, 1, 0},
    {"nothing", 33, 17, 4, 1, {NULL}, 2, 0},
    {"references", 64, 48, 3, 1, {NULL}, 0, 2},
    {"kept tokens", 70, 50, 4, 1, {"region-tokens", "100", "region-warmup", "2", "region-keep", "true", NULL}, 0, 0},
    {"kept, mask", 70, 50, 3, 1, {"region-tokens", "100", "region-warmup", "2", "region-keep", "true", NULL}, 1, 0},
    {"draft", 128, 128, 3, 1, {"draft", "2", "steps", "2", NULL}, 0, 0},
};

static FkSettings *settings_of(const EditCase *c) {
  g_autoptr(GError) error = NULL;
  FkSettings *s = fk_settings_new();
  fk_settings_set(s, "prompt", "make it night", NULL);
  fk_settings_set(s, "steps", strncmp(c->name, "kept", 4) ? "1" : "3", NULL);
  fk_settings_set(s, "max-area", strcmp(c->name, "draft") ? "4096" : "16384", NULL);
  for (int i = 0; c->set[i]; i += 2) {
    fk_settings_set(s, c->set[i], *c->set[i + 1] ? c->set[i + 1] : mask_file, &error);
    g_assert_no_error(error);
  }
  return s;
}

typedef struct {
  FkJob jobs[3];
  FkImage mask, references[2];
  FkSettings *settings;
} Rig;

static void rig_init(Rig *r, FkEngine *engine, const EditCase *c) {
  int ow, oh;
  r->settings = settings_of(c);
  g_assert_true(fk_engine_output_size(engine, r->settings, c->w, c->h, &ow, &oh, NULL));
  r->mask = c->mask > 2 ? picture(c->w * 2 / 3, c->h / 2, 1, 77) : picture(c->w, c->h, 1, 0);
  if (c->mask <= 2) memset(r->mask.data, 0, r->mask.stride * (size_t)c->h);
  for (int y = c->h / 3; c->mask == 1 && y < c->h / 2; y++)
    memset(r->mask.data + (size_t)y * r->mask.stride + c->w / 4, 255, (size_t)c->w / 3);
  for (int k = 0; k < 2; k++) r->references[k] = picture(40 + 13 * k, 56 - 7 * k, 3 + k, 88 + (uint32_t)k);
  for (int i = 0; i < c->n; i++)
    r->jobs[i] = (FkJob){.in = picture(c->w, c->h, c->channels, 7 + (uint32_t)i),
                         .out = picture(ow, oh, c->channels, 900),
                         .settings = r->settings,
                         .mask = c->mask ? &r->mask : NULL,
                         .references = r->references,
                         .n_references = c->references};
}

static void rig_clear(Rig *r, int n) {
  for (int i = 0; i < n; i++) {
    g_free(r->jobs[i].in.data);
    g_free(r->jobs[i].out.data);
  }
  for (int k = 0; k < 2; k++) g_free(r->references[k].data);
  g_free(r->mask.data);
  fk_settings_free(r->settings);
}

static void run(FkEngine *engine, FkJob *jobs, int n) {
  g_autoptr(GError) error = NULL;
  fk_engine_edit(engine, jobs, n, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
}

/* Into device memory; the bytes come back into `host`. */
static FkImage to_device(const FkImage *host) {
  FkImage image = *host;
  image.data = device_put(host->data, host->stride * (size_t)host->height);
  image.memory = FK_MEMORY_DEVICE;
  return image;
}

static void from_device(const FkImage *host, const FkImage *device) {
  device_get(host->data, device->data, host->stride * (size_t)host->height);
}

/* The arena holds what was planned: ops past its end would fail. */
static void check_interleaved(FkEngine *engine, const EditCase *c) {
  Rig host, device;
  FkJob jobs[3];
  rig_init(&host, engine, c);
  rig_init(&device, engine, c);
  run(engine, host.jobs, c->n);
  FkImage mask = device.mask;
  if (c->mask == 4) mask = to_device(&device.mask);
  for (int i = 0; i < c->n; i++) {
    jobs[i] = device.jobs[i];
    jobs[i].mask = c->mask ? &mask : NULL;
    jobs[i].in = to_device(&device.jobs[i].in);
    jobs[i].out = to_device(&device.jobs[i].out);
  }
  const FkImage second = device.references[1];
  device.references[1] = to_device(&second); /* one of them, the other stays */
  run(engine, jobs, c->n);
  from_device(&second, &device.references[1]);
  device.references[1] = second;
  if (c->mask == 4) from_device(&device.mask, &mask);
  for (int i = 0; i < c->n; i++) {
    const FkImage *have = &device.jobs[i].out, *want = &host.jobs[i].out;
    from_device(&device.jobs[i].in, &jobs[i].in);
    from_device(have, &jobs[i].out);
    for (size_t k = 0; k < want->stride * (size_t)want->height; k++)
      if (have->data[k] != want->data[k]) g_error("%s: frame %d, byte %zu", c->name, i, k);
  }
  rig_clear(&host, c->n);
  rig_clear(&device, c->n);
}

/* ---- Planes ---- */

typedef struct {
  FkPlanes planes;
  uint8_t *data;
  size_t bytes;
} Video;

enum { BGRX, GBRA, NV12, I420, P010, LAYOUTS };

static Video video(int layout, int w, int h, uint32_t seed) {
  const size_t stride = (size_t)(w * (layout == BGRX ? 4 : layout == P010 ? 2 : 1) + 9);
  Video v = {.bytes = stride * (size_t)h * 4};
  v.data = g_malloc(v.bytes);
  fill(v.data, v.bytes, seed);
  FkPlanes *p = &v.planes;
  *p = (FkPlanes){.depth = layout == P010 ? 10 : 8,
                  .ycbcr = layout >= NV12,
                  .limited = true,
                  .kr = 0.2126,
                  .kb = 0.0722,
                  .up = layout == I420 ? FK_CHROMA_BLOCK : FK_CHROMA_LINEAR,
                  .down = layout == I420 && w % 2 == 0 && h % 2 == 0 ? FK_CHROMA_BLOCK : FK_CHROMA_LINEAR,
                  .cosited_x = true};
  for (int i = 0; i < 4; i++) {
    p->data[i] = v.data + stride * (size_t)h * (size_t)i;
    p->stride[i] = stride;
  }
  const int bytes = layout == P010 ? 2 : 1;
  for (int s = 0; s < 4; s++) {
    const int chroma = s == 1 || s == 2;
    if (layout == BGRX) p->sample[s] = (FkSample){0, s < 3 ? 2 - s : 3, 4, 0, 0};
    if (layout == GBRA) p->sample[s] = (FkSample){(s + 1) % 3, 0, 1, 0, 0};
    if (layout == GBRA && s == 3) p->sample[s].plane = 3;
    if (layout >= NV12 && s < 3)
      p->sample[s] = (FkSample){chroma, s == 2 ? bytes : 0, chroma ? 2 * bytes : bytes, chroma, chroma};
    if (layout == I420 && chroma) p->sample[s] = (FkSample){s, 0, 1, 1, 1};
  }
  return v;
}

/* A frame over planes, as the op line has it. */
static FkFrame frame_of(const Video *v, int w, int h, int channels) {
  const FkPlanes *p = &v->planes;
  FkFrame f = {.width = w,
               .height = h,
               .channels = channels,
               .depth = p->depth,
               .ycbcr = p->ycbcr,
               .limited = p->limited,
               .kr = p->kr,
               .kb = p->kb,
               .block_up = p->up == FK_CHROMA_BLOCK,
               .block_down = p->down == FK_CHROMA_BLOCK,
               .cosited_x = p->cosited_x,
               .cosited_y = p->cosited_y};
  for (int i = 0; i < 4; i++) {
    const FkSample *s = &p->sample[i];
    f.data[i] = p->data[i];
    f.stride[i] = p->stride[i];
    f.sample[i] = (FkFrameSample){s->plane, s->offset, s->step, s->shift_x, s->shift_y};
  }
  return f;
}

static FkImage tight(const FkFrame *f) {
  FkImage i = {g_malloc((size_t)(f->width * f->height * f->channels)),
               f->width,
               f->height,
               f->channels,
               (size_t)(f->width * f->channels),
               FK_MEMORY_HOST,
               NULL};
  for (int k = 0; k < f->width * f->height; k++) {
    uint8_t rgba[4];
    fk_frame_read_pixel(f, k % f->width, k / f->width, 0, rgba);
    memcpy(i.data + (size_t)(k * f->channels), rgba, (size_t)f->channels);
  }
  return i;
}

/* Through R G B in host memory, and at once. */
static void check_planes(FkEngine *engine, int layout, const EditCase *c) {
  const int channels = layout == GBRA ? 4 : 3, w = c->w, h = c->h;
  Video from = video(layout, w, h, 5), to = video(layout, w, h, 6), want = video(layout, w, h, 6);
  const FkFrame in = frame_of(&from, w, h, channels), out = frame_of(&want, w, h, channels);
  FkImage before = tight(&in), after = tight(&in);
  Rig r;
  rig_init(&r, engine, c);
  FkJob job = r.jobs[0];
  job.in = before;
  job.out = after;
  run(engine, &job, 1);
  for (int k = 0; k < w * h; k++) fk_frame_write_pixel(&out, after.data, k % w, k / w);
  const bool masked = c->mask || c->channels == 4;
  for (int k = 0; masked && k < w * h; k++) fk_frame_keep_pixel(&out, &in, before.data, after.data, k % w, k / w);
  FkPlanes source = from.planes, result = to.planes;
  uint8_t *in_data = device_put(from.data, from.bytes), *out_data = device_put(to.data, to.bytes);
  for (int i = 0; i < 4; i++) {
    source.data[i] = in_data + (source.data[i] - from.data);
    result.data[i] = out_data + (result.data[i] - to.data);
  }
  job.in = (FkImage){NULL, w, h, channels, 0, FK_MEMORY_DEVICE, &source};
  job.out = (FkImage){NULL, w, h, channels, 0, FK_MEMORY_DEVICE, &result};
  run(engine, &job, 1);
  device_get(from.data, in_data, from.bytes);
  device_get(to.data, out_data, to.bytes);
  for (size_t i = 0; i < want.bytes; i++)
    if (to.data[i] != want.data[i]) g_error("layout %d, %s, %dx%d: byte %zu", layout, c->name, w, h, i);
  rig_clear(&r, 1);
  g_free(from.data);
  g_free(to.data);
  g_free(want.data);
  g_free(before.data);
  g_free(after.data);
}

static inline void check_all_planes(FkEngine *engine) {
  static const EditCase cases[] = {{"even", 64, 48, 3, 1, {NULL}, 0, 0},
                                   {"odd", 33, 17, 3, 1, {NULL}, 0, 0},
                                   {"mask", 71, 45, 3, 1, {"mask-feather", "6", NULL}, 1, 0},
                                   {"crop", 151, 131, 3, 1, {"region", "crop", NULL}, 1, 0},
                                   {"alpha", 71, 45, 4, 1, {"mask", "alpha", "mask-feather", "6", NULL}, 0, 0},
                                   {"nothing", 35, 21, 3, 1, {NULL}, 2, 0}};
  for (int layout = 0; layout < LAYOUTS; layout++)
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
      if (cases[i].channels == 3 || layout == GBRA) check_planes(engine, layout, &cases[i]);
}

static inline void check_all_interleaved(FkEngine *engine) {
  for (size_t i = 0; i < G_N_ELEMENTS(edits); i++) check_interleaved(engine, &edits[i]);
}

/* ---- What an edit copies ---- */

/* Nothing of a frame's size goes up or down, but the mask of a file: once for its size and settings. The frames are
 * larger than noise and rotary tables are at the size at which the model works. From the second frame on no memory is
 * asked for. */
static inline void check_copies(FkEngine *engine, const EditCase *c) {
  const int files = c->set[0] && !strcmp(c->set[0], "mask-path");
  count_on(engine->be, (size_t)c->w * (size_t)c->h);
  for (int frame = 0; frame < 3; frame++) {
    const int allocs = counted.allocs;
    Rig r;
    rig_init(&r, engine, c);
    FkJob job = r.jobs[0];
    job.in = to_device(&r.jobs[0].in);
    job.out = to_device(&r.jobs[0].out);
    run(engine, &job, 1);
    from_device(&r.jobs[0].in, &job.in);
    from_device(&r.jobs[0].out, &job.out);
    rig_clear(&r, 1);
    if (counted.ups != files || counted.downs)
      g_error("%s, frame %d: %d up, %d down", c->name, frame, counted.ups, counted.downs);
    if (frame == 2) g_assert_cmpint(counted.allocs, ==, allocs);
  }
  count_off(engine->be);
}

static inline void check_all_copies(FkEngine *engine) {
  static const EditCase cases[] = {
      {"alpha", 289, 201, 4, 1, {"mask", "alpha", NULL}, 0, 0},
      {"alpha, inverted", 289, 201, 4, 1, {"mask", "alpha", "mask-invert", "true", "mask-feather", "6", NULL}, 0, 0},
      {"file", 291, 203, 3, 1, {"mask-path", "", "mask-dilate", "5", "mask-feather", "8", NULL}, 0, 0},
      {"crop", 301, 203, 4, 1, {"mask", "alpha", "mask-dilate", "2", "region", "crop", NULL}, 0, 0},
      {"crop of a file", 303, 201, 3, 1, {"mask-path", "", "region", "crop", NULL}, 0, 0},
      {"kept tokens",
       291,
       203,
       3,
       1,
       {"region-tokens", "100", "region-warmup", "2", "region-keep", "true", NULL},
       0,
       0},
      {"none", 289, 201, 4, 1, {NULL}, 0, 0}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) check_copies(engine, &cases[i]);
}

#endif
