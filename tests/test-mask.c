/* SPDX-License-Identifier: Apache-2.0 */
/* Masks: their arithmetic against what it is defined as, and edits under them against diffusers'
 * FluxKontextInpaintPipeline in float32 (tests/golden/make_inpaint.py); what lies outside has the bytes of the frame.
 */
#include "extras.h"
#include "frames.h"
#include "random.h"
#include "test-demo.h"
#include "test-files.h"
#include "test-picture.h"

#include <stdlib.h>

static FkEngine *engine;

/* ---- Arithmetic ---- */

static int at(const uint8_t *m, int w, int h, int x, int y) {
  return m[CLAMP(y, 0, h - 1) * w + CLAMP(x, 0, w - 1)];
}

static uint8_t *noisy(int w, int h, bool binary) {
  uint8_t *m = g_malloc((size_t)(w * h));
  uint32_t x = (uint32_t)(w * 65536 + h);
  for (int i = 0; i < w * h; i++) {
    x = x * 1664525 + 1013904223;
    m[i] = binary ? (x >> 29 ? 0 : 255) : (uint8_t)(x >> 24);
  }
  return m;
}

static void dilate(void) {
  static const int sizes[][3] = {{1, 1, 1}, {7, 5, 0},  {7, 5, 1},  {7, 5, 2},
                                 {7, 5, 9}, {40, 3, 4}, {3, 40, 6}, {33, 31, 5}};
  for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++)
    for (int binary = 0; binary < 2; binary++) {
      const int w = sizes[i][0], h = sizes[i][1], r = sizes[i][2];
      g_autofree uint8_t *m = noisy(w, h, binary), *have = g_memdup2(m, (gsize)(w * h));
      g_assert_true(fk_mask_dilate(have, w, h, r));
      for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
          int most = 0;
          for (int v = -r; v <= r; v++)
            for (int u = -r; u <= r; u++) most = MAX(most, at(m, w, h, x + u, y + v));
          g_assert_cmpint(have[y * w + x], ==, most);
        }
    }
}

/* Nothing outside, all of it from the width on inside, rising in between, and up to the frame's border. */
static void feather(void) {
  enum { W = 60, H = 40 };
  for (int width = 0; width <= 12; width++) {
    g_autofree uint8_t *m = g_malloc0(W * H), *fade = g_malloc(W * H);
    for (int y = 0; y < H; y++)
      for (int x = 20; x < W; x++) m[y * W + x] = 255;
    g_assert_true(fk_mask_feather(fade, m, W, H, width));
    for (int y = 0; y < H; y++)
      for (int x = 0; x < W; x++) {
        const int value = fade[y * W + x];
        if (x < 20) g_assert_cmpint(value, ==, 0);
        if (x >= 20 + width + 1) g_assert_cmpint(value, ==, 255);
        if (x > 20 && x < 20 + width) g_assert_true(value > fade[y * W + x - 1] && value < 255);
        if (x == 20 && width) g_assert_true(value > 0);
      }
    g_autofree uint8_t *odd = noisy(W, H, true);
    g_assert_true(fk_mask_feather(fade, odd, W, H, width));
    for (int i = 0; i < W * H; i++) g_assert_true(fade[i] <= odd[i]);
  }
}

static void boxes(void) {
  enum { W = 50, H = 30 };
  g_autofree uint8_t *m = g_malloc0(W * H);
  g_assert_cmpint(fk_mask_box(m, W, H).w, ==, 0);
  m[7 * W + 12] = 1;
  m[20 * W + 3] = 255;
  const FkMaskBox b = fk_mask_box(m, W, H);
  g_assert_true(b.x == 3 && b.y == 7 && b.w == 10 && b.h == 14);
  const FkMaskBox s = fk_mask_surround((FkMaskBox){500, 400, 200, 80}, 3840, 2160);
  g_assert_true(s.x == 450 && s.y == 350 && s.w == 300 && s.h == 180);
  const FkMaskBox t = fk_mask_stretch(s, 1, 1, 3840, 2160);
  g_assert_true(t.w == 300 && t.h == 300 && t.x == 450 && t.y == 290);
  const FkMaskBox edge = fk_mask_stretch((FkMaskBox){0, 0, 100, 20}, 1, 1, 120, 60);
  g_assert_true(edge.x == 0 && edge.y == 0 && edge.w == 100 && edge.h == 60);
}

/* torch: interpolate(binarised mask, nearest), repeated over channels and packed. */
static void tokens(void) {
  enum { W = 48, H = 32, C = 16 };
  g_autofree uint8_t *m = noisy(W, H, false);
  g_autofree float *have = g_new0(float, W / 16 * H / 16 * C * 4);
  fk_mask_tokens(have, m, W, H, C);
  for (int c = 0; c < C; c++)
    for (int y = 0; y < H / 8; y++)
      for (int x = 0; x < W / 8; x++)
        g_assert_cmpfloat(have[(y / 2 * (W / 16) + x / 2) * C * 4 + c * 4 + y % 2 * 2 + x % 2], ==,
                          m[y * 8 * W + x * 8] >= 128 ? 1 : 0);
}

static void mix(void) {
  uint8_t to[4] = {0, 255, 100, 7}, fade[4] = {0, 255, 128, 0}, from[4] = {9, 9, 200, 8};
  fk_mask_mix(to, from, fade, 4, 1);
  g_assert_true(to[0] == 9 && to[1] == 255 && to[2] == 150 && to[3] == 8);
}

/* ---- Edits ---- */

static FkImage golden(const char *name) {
  g_autofree char *path = g_build_filename(FK_TEST_DATA, "inpaint", name, NULL);
  return read_png(path);
}

static FkImage mask_of(const char *name) {
  FkImage rgb = golden(name),
          m = {g_malloc((size_t)(rgb.width * rgb.height)), rgb.width, rgb.height, 1, (size_t)rgb.width};
  for (int i = 0; i < rgb.width * rgb.height; i++) m.data[i] = rgb.data[3 * i];
  g_free(rgb.data);
  return m;
}

/* "name=value,name=value" beside what all edits have. (transfer full) */
static FkSettings *settings_of(const char *pairs) {
  g_autoptr(GError) error = NULL;
  FkSettings *s = fk_settings_new();
  g_autofree char *all = g_strconcat("steps=8,guidance=2.5,max-area=17920,prompt=invert the colors,seed=5",
                                     *pairs ? "," : "", pairs, NULL);
  g_auto(GStrv) list = g_strsplit(all, ",", -1);
  for (char **p = list; *p; p++) {
    char *value = strchr(*p, '=');
    *value = 0;
    fk_settings_set(s, *p, value + 1, &error);
    g_assert_no_error(error);
  }
  return s;
}

/* (transfer full) pixels */
static FkImage edit(const FkImage *in, const FkImage *mask, const char *pairs, FkResult *result) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) s = settings_of(pairs);
  FkImage out = *in;
  out.data = g_malloc0(in->stride * (size_t)in->height);
  FkJob job = {.in = *in, .out = out, .settings = s, .mask = mask};
  fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  if (result) *result = job.result;
  return out;
}

/* Of the pixels where the mask is 255; where it is 0 `have` is `in` to the byte. */
static double inside_db(const FkImage *have, const FkImage *want, const FkImage *in, const FkImage *mask) {
  double sum = 0;
  int64_t n = 0;
  for (int i = 0; i < have->width * have->height; i++)
    for (int c = 0; c < 3; c++) {
      const int p = 3 * i + c;
      if (!mask->data[i]) g_assert_cmpint(have->data[p], ==, in->data[p]);
      if (mask->data[i] < 255) continue;
      const double d = have->data[p] - want->data[p];
      sum += d * d;
      n++;
    }
  return sum > 0 ? 10 * log10(255.0 * 255.0 * (double)n / sum) : 999;
}

static void reference(void) {
  static const struct { const char *pairs, *name; } cases[] = {{"", "mask-1.png"}, {"strength=0.7", "mask-7.png"}};
  FkImage in = golden("source.png"), mask = mask_of("mask.png");
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    FkImage want = golden(cases[i].name), have = edit(&in, &mask, cases[i].pairs, NULL);
    const double db = inside_db(&have, &want, &in, &mask);
    g_test_message("%s: %.1f dB inside", cases[i].name, db);
    g_assert_cmpfloat(db, >=, 60);
    g_free(want.data);
    g_free(have.data);
  }
  g_free(in.data);
  g_free(mask.data);
}

/* ---- What is kept, and combinations ---- */

enum { W = 96, H = 64 };

/* A frame of 4 channels with gaps between its rows, which are to stay as they are, and alpha that opens a hole. */
typedef struct {
  FkImage in, out;
} Pair;

static Pair pair_new(int shift) {
  Pair p;
  for (int k = 0; k < 2; k++) {
    FkImage *i = k ? &p.out : &p.in;
    *i = (FkImage){.width = W, .height = H, .channels = 4, .stride = W * 4 + 12};
    i->data = g_malloc(i->stride * H);
    memset(i->data, 0xcd, i->stride * H);
  }
  for (int y = 0; y < H; y++)
    for (int x = 0; x < W; x++) {
      uint8_t *v = p.in.data + (size_t)y * p.in.stride + (size_t)x * 4;
      v[0] = (uint8_t)(2 * x + shift);
      v[1] = (uint8_t)(3 * y);
      v[2] = x + y > 70 ? 200 : 50;
      v[3] = x > 30 + shift / 4 && x < 71 && y > 9 && y < 49 ? 0 : 255;
    }
  return p;
}

static void pair_free(Pair *p) {
  g_free(p->in.data);
  g_free(p->out.data);
}

static const char small[] = "steps=3,max-area=6144,mask=alpha";

/* Kept pixels are the frame's, gaps are untouched, and something is edited. */
static void assert_kept(const Pair *p) {
  int changed = 0;
  for (int y = 0; y < H; y++) {
    const uint8_t *a = p->in.data + (size_t)y * p->in.stride, *b = p->out.data + (size_t)y * p->out.stride;
    for (int x = 0; x < W; x++) {
      if (a[4 * x + 3] == 255) g_assert_cmpint(memcmp(a + 4 * x, b + 4 * x, 4), ==, 0);
      g_assert_cmpint(a[4 * x + 3], ==, b[4 * x + 3]);
      changed += memcmp(a + 4 * x, b + 4 * x, 3) != 0;
    }
    for (size_t k = W * 4; k < p->out.stride; k++) g_assert_cmpint(b[k], ==, 0xcd);
  }
  g_assert_cmpint(changed, >, 500);
}

static void run(Pair *p, int n, const FkSettings *s) {
  g_autoptr(GError) error = NULL;
  FkJob jobs[3];
  for (int i = 0; i < n; i++) jobs[i] = (FkJob){.in = p[i].in, .out = p[i].out, .settings = s};
  fk_engine_edit(engine, jobs, n, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
}

static const char *const switches[] = {"",
                                       "region=crop",
                                       "mask-feather=6",
                                       "region=crop,mask-feather=9,mask-dilate=2",
                                       "strength=0.7",
                                       "scheduler=heun",
                                       "scheduler=unipc",
                                       "scheduler=dpmpp-2m",
                                       "scheduler=deis",
                                       "sigmas=karras",
                                       "negative-prompt=blur,true-cfg-scale=2",
                                       "negative-prompt=blur,true-cfg-scale=2,guidance-end=0.4",
                                       "step-cache=first-block,step-cache-threshold=0.4",
                                       "step-cache=teacache,step-cache-warmup=1,step-cache-forecast=taylor",
                                       "context-reuse=2",
                                       "token-merge=0.3",
                                       "draft=2",
                                       "vae-tiling=on",
                                       "preset=fast"};

/* The same bytes alone and in a batch of three, whatever else runs; frame 1 has nothing that is edited. */
static void batches(void) {
  for (size_t i = 0; i < G_N_ELEMENTS(switches); i++) {
    g_autofree char *text = g_strconcat(small, *switches[i] ? "," : "", switches[i], NULL);
    g_autoptr(FkSettings) s = settings_of(text);
    const bool grows = strstr(text, "dilate");
    Pair together[3] = {pair_new(0), pair_new(0), pair_new(60)}, alone[3] = {pair_new(0), pair_new(0), pair_new(60)};
    for (int k = 0; k < 2; k++)
      for (int q = 0; q < W * H; q++)
        (k ? together : alone)[1].in.data[(size_t)(q / W) * together[1].in.stride + (size_t)(q % W) * 4 + 3] = 255;
    run(together, 3, s);
    for (int k = 0; k < 3; k++) {
      run(&alone[k], 1, s);
      g_assert_cmpint(memcmp(alone[k].out.data, together[k].out.data, alone[k].out.stride * H), ==, 0);
      if (k != 1 && !grows) assert_kept(&alone[k]);
      if (k == 1) g_assert_cmpint(memcmp(alone[k].out.data, alone[k].in.data, alone[k].in.stride * (H - 1)), ==, 0);
    }
    for (int k = 0; k < 3; k++) {
      pair_free(&together[k]);
      pair_free(&alone[k]);
    }
  }
}

static FkImage filled(int w, int h, int value) {
  FkImage m = {g_malloc((size_t)(w * h)), w, h, 1, (size_t)w};
  memset(m.data, value, (size_t)(w * h));
  return m;
}

/* A mask of all is no mask, by its bytes; of nothing, no edit. */
static void ends(void) {
  FkImage in = golden("source.png"), all = filled(3, 2, 255), none = filled(160, 112, 0);
  FkResult r;
  FkImage plain = edit(&in, NULL, "steps=2", NULL), a = edit(&in, &all, "steps=2", NULL),
          b = edit(&in, &none, "steps=2", &r), c = edit(&in, &none, "steps=2,mask-invert=true", NULL);
  const size_t n = in.stride * (size_t)in.height;
  g_assert_cmpint(memcmp(plain.data, a.data, n), ==, 0);
  g_assert_cmpint(memcmp(plain.data, c.data, n), ==, 0);
  g_assert_cmpint(memcmp(in.data, b.data, n), ==, 0);
  g_assert_true(r.evaluations == 0 && r.seed == 5);
  FkImage *const list[] = {&in, &all, &none, &plain, &a, &b, &c};
  for (size_t i = 0; i < G_N_ELEMENTS(list); i++) g_free(list[i]->data);
}

/* A mask of another size keeps what is a pixel of it or more away from its edge. */
static void sizes(void) {
  FkImage in = golden("source.png"), half = filled(80, 56, 0), tall = filled(10, 700, 0);
  for (int y = 0; y < 56; y++) memset(half.data + y * 80, 255, 40);
  memset(tall.data, 255, 10 * 350);
  FkImage a = edit(&in, &half, "steps=1", NULL), b = edit(&in, &tall, "steps=1", NULL);
  for (int y = 0; y < 112; y++) {
    g_assert_cmpint(memcmp(a.data + y * 480 + 82 * 3, in.data + y * 480 + 82 * 3, 78 * 3), ==, 0);
    if (y > 57) g_assert_cmpint(memcmp(b.data + y * 480, in.data + y * 480, 480), ==, 0);
  }
  g_free(in.data);
  g_free(half.data);
  g_free(tall.data);
  g_free(a.data);
  g_free(b.data);
}

/* The part around the mask is edited as a picture of its own, with the mask's part. */
static void crop(void) {
  FkImage in = golden("source.png"), mask = filled(160, 112, 0);
  for (int y = 50; y < 60; y++) memset(mask.data + y * 160 + 70, 255, 8);
  FkResult r;
  FkImage have = edit(&in, &mask, "steps=2,max-area=4096,region=crop", &r);
  const FkTune tune = {.max_area = 4096};
  FkMaskBox box = {70, 50, 8, 10};
  FkFrameSize size;
  g_assert_true(fk_frames_region(NULL, &tune, 160, 112, &box, &size, NULL));
  g_assert_true(r.width == size.width && r.height == size.height && size.out_width == box.w);
  g_test_message("box %d,%d %dx%d at %dx%d", box.x, box.y, box.w, box.h, size.width, size.height);
  FkImage part = {in.data + box.y * 480 + box.x * 3, box.w, box.h, 3, 480}, piece = filled(box.w, box.h, 0);
  for (int y = 50; y < 60; y++) memset(piece.data + (y - box.y) * box.w + 70 - box.x, 255, 8);
  FkImage want = edit(&part, &piece, "steps=2,max-area=4096", NULL);
  int changed = 0;
  for (int y = 0; y < 112; y++)
    for (int x = 0; x < 160; x++) {
      const bool inside = x >= box.x && x < box.x + box.w && y >= box.y && y < box.y + box.h;
      const uint8_t *p = have.data + y * 480 + x * 3;
      const uint8_t *q = inside ? want.data + (y - box.y) * 480 + (x - box.x) * 3 : in.data + y * 480 + x * 3;
      g_assert_cmpint(memcmp(p, q, 3), ==, 0);
      changed += memcmp(p, in.data + y * 480 + x * 3, 3) != 0;
    }
  g_assert_true(changed > 40 && changed <= 80);
  FkImage *const list[] = {&in, &mask, &have, &piece, &want};
  for (size_t i = 0; i < G_N_ELEMENTS(list); i++) g_free(list[i]->data);
}

static void refuse(const FkImage *mask, const char *pairs, const char *a, const char *b) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) s = settings_of(pairs);
  FkImage in = golden("source.png"), out = in;
  out.data = g_malloc0(in.stride * (size_t)in.height);
  FkJob job = {.in = in, .out = out, .settings = s, .mask = mask};
  g_assert_false(fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, a, b);
  g_free(in.data);
  g_free(out.data);
}

static void refused(void) {
  uint8_t byte = 0;
  const FkImage good = {&byte, 1, 1, 1, 1}, colour = {&byte, 1, 1, 3, 3}, empty = {NULL, 1, 1, 1, 1},
                narrow = {&byte, 4, 1, 1, 3}, none = {&byte, 0, 1, 1, 1};
  refuse(&colour, "", "mask", "1x1 with 3");
  refuse(&empty, "", "mask", "no data");
  refuse(&narrow, "", "mask", "rows of 3 bytes");
  refuse(&none, "", "mask", "0x1");
  refuse(&good, "task=generate", "mask", "task=generate");
  refuse(NULL, "mask=alpha", "mask=alpha", "frame 0");
  refuse(NULL, "mask=meta", "mask=meta", "FkJob.mask");
  refuse(NULL, "mask=alpha,task=generate", "mask=alpha", "task=generate");
  refuse(NULL, "mask=alpha,size-mode=native", "mask=alpha", "size-mode=native");
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  engine = demo_engine("cpu");
  g_test_add_func("/mask/dilate", dilate);
  g_test_add_func("/mask/feather", feather);
  g_test_add_func("/mask/boxes", boxes);
  g_test_add_func("/mask/tokens", tokens);
  g_test_add_func("/mask/mix", mix);
  g_test_add_func("/mask/reference", reference);
  g_test_add_func("/mask/ends", ends);
  g_test_add_func("/mask/sizes", sizes);
  g_test_add_func("/mask/crop", crop);
  g_test_add_func("/mask/refused", refused);
  g_test_add_func("/mask/batches", batches);
  const int status = g_test_run();
  fk_engine_unref(engine);
  return status;
}
