/* SPDX-License-Identifier: Apache-2.0 */
/* Preprocessing of frames: at which size to work, and the resize to that size.
 *
 * The resize is Pillow's two-pass fixed-point convolution, byte for byte. Both passes run the same inner loop, a
 * weighted sum of byte vectors: the vertical pass sums whole rows, the horizontal pass sums columns of a strip that was
 * transposed so that its rows lie side by side. Conversion to tensors is the op line's (from_u8, to_u8). */
#include "image.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define FK_INLINE static inline __attribute__((always_inline))
#define FK_WITH_AVX2 __attribute__((target("avx2")))
#define FK_HAVE_AVX2 __builtin_cpu_supports("avx2")
#else
#define FK_INLINE static inline
#define FK_WITH_AVX2
#define FK_HAVE_AVX2 0
#endif

static const double PI = 3.14159265358979323846;

/* ---- sizes ---- */

static int floor_side(double side) {
  int multiple = (int)(side / FK_SIZE_MULTIPLE);
  return multiple < 1 ? FK_SIZE_MULTIPLE : multiple * FK_SIZE_MULTIPLE;
}

void fk_size_target(int w, int h, int64_t max_area, int *tw, int *th) {
  assert(w > 0 && h > 0 && max_area > 0);
  double aspect = (double)w / h, area = (double)max_area;
  *tw = floor_side(rint(sqrt(area * aspect))); /* rint: half to even, as Python's round */
  *th = floor_side(rint(sqrt(area / aspect)));
}

void fk_size_preferred(int w, int h, int64_t model_area, int *tw, int *th) {
  /* diffusers, pipeline_flux_kontext.py; by width, so a tie goes to the smaller one. */
  static const int sizes[][2] = {{672, 1568}, {688, 1504}, {720, 1456},  {752, 1392}, {800, 1328}, {832, 1248},
                                 {880, 1184}, {944, 1104}, {1024, 1024}, {1104, 944}, {1184, 880}, {1248, 832},
                                 {1328, 800}, {1392, 752}, {1456, 720},  {1504, 688}, {1568, 672}};
  assert(w > 0 && h > 0 && model_area > 0);
  if (model_area != FK_SIZE_PREFERRED_AREA) {
    *tw = *th = floor_side(sqrt((double)model_area));
    return;
  }
  /* The aspect is taken from the sides cut to multiples of 16; a side below 16 counts as 16. */
  double aspect = (double)floor_side(w) / floor_side(h), best = INFINITY;
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    double distance = fabs(aspect - (double)sizes[i][0] / sizes[i][1]);
    if (distance >= best) continue;
    best = distance;
    *tw = sizes[i][0];
    *th = sizes[i][1];
  }
}

void fk_size_plan(FkSizeMode mode, int w, int h, int64_t max_area, int *mw, int *mh) {
  if (mode == FK_SIZE_NATIVE) {
    fk_size_preferred(w, h, max_area, mw, mh);
    return;
  }
  int64_t area = (int64_t)w * h;
  bool fits = w % FK_SIZE_MULTIPLE == 0 && h % FK_SIZE_MULTIPLE == 0;
  if (fits && 2 * area >= max_area && 10 * area <= 11 * max_area) {
    *mw = w;
    *mh = h;
    return;
  }
  fk_size_target(w, h, max_area, mw, mh);
}

/* ---- coefficients of one axis ---- */

#define PRECISION_BITS 22

void fk_image_axis_clear(FkImageAxis *axis) {
  free(axis->first);
  free(axis->count);
  free(axis->weight);
  *axis = (FkImageAxis){0};
}

static double sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= PI;
  return sin(x) / x;
}

static double lanczos(double x) {
  return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0;
}

static double triangle(double x) {
  return x > -1.0 && x < 1.0 ? 1.0 - fabs(x) : 0.0;
}

typedef struct {
  double (*weight)(double x);
  double support;
} Filter;

static const Filter filters[] = {[FK_FILTER_LANCZOS] = {lanczos, 3.0}, [FK_FILTER_TRIANGLE] = {triangle, 1.0}};

bool fk_image_axis_init(FkImageAxis *axis, FkFilter which, int in, int out) {
  const Filter *filter = &filters[which];
  double scale = (double)in / out;
  double filter_scale = scale > 1.0 ? scale : 1.0;
  double support = filter->support * filter_scale, inverse = 1.0 / filter_scale;
  int taps = (int)ceil(support) * 2 + 1;
  double *exact = malloc((size_t)taps * sizeof *exact);
  *axis = (FkImageAxis){.taps = taps,
                        .first = malloc((size_t)out * sizeof(int32_t)),
                        .count = malloc((size_t)out * sizeof(int32_t)),
                        .weight = calloc((size_t)out * (size_t)taps, sizeof(int32_t))};
  if (!exact || !axis->first || !axis->count || !axis->weight) {
    free(exact);
    fk_image_axis_clear(axis);
    return false;
  }
  for (int i = 0; i < out; i++) {
    double center = (i + 0.5) * scale, sum = 0.0;
    int first = (int)(center - support + 0.5), last = (int)(center + support + 0.5);
    if (first < 0) first = 0;
    if (last > in) last = in;
    for (int k = 0; k < last - first; k++) {
      exact[k] = filter->weight((k + first - center + 0.5) * inverse);
      sum += exact[k];
    }
    for (int k = 0; k < last - first; k++) {
      double w = sum != 0.0 ? exact[k] / sum : exact[k];
      axis->weight[(size_t)i * (size_t)taps + (size_t)k] =
          (int32_t)(w * (1 << PRECISION_BITS) + (w < 0 ? -0.5 : 0.5)); /* half away from zero */
    }
    axis->first[i] = first;
    axis->count[i] = last - first;
  }
  free(exact);
  return true;
}

/* ---- the two passes ---- */

/* Rows that the horizontal pass handles together: 16 bytes widen to two 8-lane vectors of 32-bit sums. */
#define STRIP 16

FK_INLINE uint8_t round_clip(int32_t sum) {
  int32_t v = sum >> PRECISION_BITS;
  return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* STRIP sums at once: dst[j] = sum over k of w[k] * src[k * step + j]. */
FK_INLINE void weigh_strip(uint8_t *dst, const uint8_t *src, size_t step, const int32_t *w, int count) {
  int32_t sum[STRIP];
  for (int j = 0; j < STRIP; j++) sum[j] = 1 << (PRECISION_BITS - 1);
  for (int k = 0; k < count; k++, src += step) {
    for (int j = 0; j < STRIP; j++) sum[j] += w[k] * src[j];
  }
  for (int j = 0; j < STRIP; j++) dst[j] = round_clip(sum[j]);
}

/* Everything one resize needs; `strip` holds STRIP transposed rows of input and of output of the horizontal pass. */
typedef struct {
  FkImageAxis x, y;
  uint8_t *middle, *strip_in, *strip_out;
} Resize;

/* dst [height rows of x.out pixels] from src [height rows]. */
FK_INLINE void pass_horizontal(const Resize *r, uint8_t *dst, size_t dst_stride, int dw, const uint8_t *src,
                               size_t src_stride, int sw, int height, int channels) {
  const size_t in_bytes = (size_t)sw * (size_t)channels, out_bytes = (size_t)dw * (size_t)channels;
  for (int top = 0; top < height; top += STRIP) {
    int rows = height - top < STRIP ? height - top : STRIP;
    for (int j = 0; j < rows; j++) {
      const uint8_t *row = src + (size_t)(top + j) * src_stride;
      for (size_t b = 0; b < in_bytes; b++) r->strip_in[b * STRIP + (size_t)j] = row[b];
    }
    for (int x = 0; x < dw; x++) {
      const int32_t *w = r->x.weight + (size_t)x * (size_t)r->x.taps;
      for (int c = 0; c < channels; c++) {
        const uint8_t *from = r->strip_in + ((size_t)r->x.first[x] * (size_t)channels + (size_t)c) * STRIP;
        uint8_t *to = r->strip_out + ((size_t)x * (size_t)channels + (size_t)c) * STRIP;
        weigh_strip(to, from, (size_t)channels * STRIP, w, r->x.count[x]);
      }
    }
    for (int j = 0; j < rows; j++) {
      uint8_t *row = dst + (size_t)(top + j) * dst_stride;
      for (size_t b = 0; b < out_bytes; b++) row[b] = r->strip_out[b * STRIP + (size_t)j];
    }
  }
}

/* dst [dh rows] from src, both rows of `bytes` bytes. */
FK_INLINE void pass_vertical(const Resize *r, uint8_t *dst, size_t dst_stride, int dh, const uint8_t *src,
                             size_t src_stride, size_t bytes) {
  for (int y = 0; y < dh; y++) {
    const int32_t *w = r->y.weight + (size_t)y * (size_t)r->y.taps;
    const uint8_t *from = src + (size_t)r->y.first[y] * src_stride;
    uint8_t *to = dst + (size_t)y * dst_stride;
    size_t b = 0;
    for (; b + STRIP <= bytes; b += STRIP) weigh_strip(to + b, from + b, src_stride, w, r->y.count[y]);
    for (; b < bytes; b++) {
      int32_t sum = 1 << (PRECISION_BITS - 1);
      for (int k = 0; k < r->y.count[y]; k++) sum += w[k] * from[b + (size_t)k * src_stride];
      to[b] = round_clip(sum);
    }
  }
}

typedef struct {
  uint8_t *data;
  size_t stride;
  int w, h;
} Plane;

FK_INLINE void passes_body(const Resize *r, Plane d, const uint8_t *src, size_t src_stride, int sw, int sh,
                           int channels, bool vertical_first) {
  const size_t dst_bytes = (size_t)d.w * (size_t)channels, src_bytes = (size_t)sw * (size_t)channels;
  if (sh == d.h) {
    pass_horizontal(r, d.data, d.stride, d.w, src, src_stride, sw, sh, channels);
  } else if (sw == d.w) {
    pass_vertical(r, d.data, d.stride, d.h, src, src_stride, src_bytes);
  } else if (vertical_first) {
    pass_vertical(r, r->middle, src_bytes, d.h, src, src_stride, src_bytes);
    pass_horizontal(r, d.data, d.stride, d.w, r->middle, src_bytes, sw, d.h, channels);
  } else {
    pass_horizontal(r, r->middle, dst_bytes, d.w, src, src_stride, sw, sh, channels);
    pass_vertical(r, d.data, d.stride, d.h, r->middle, dst_bytes, dst_bytes);
  }
}

static void passes_generic(const Resize *r, Plane d, const uint8_t *src, size_t src_stride, int sw, int sh,
                           int channels, bool vertical_first) {
  passes_body(r, d, src, src_stride, sw, sh, channels, vertical_first);
}

FK_WITH_AVX2 static void passes_avx2(const Resize *r, Plane d, const uint8_t *src, size_t src_stride, int sw, int sh,
                                     int channels, bool vertical_first) {
  passes_body(r, d, src, src_stride, sw, sh, channels, vertical_first);
}

static void passes(const Resize *r, Plane d, const uint8_t *src, size_t src_stride, int sw, int sh, int channels,
                   bool vertical_first) {
  if (FK_HAVE_AVX2)
    passes_avx2(r, d, src, src_stride, sw, sh, channels, vertical_first);
  else
    passes_generic(r, d, src, src_stride, sw, sh, channels, vertical_first);
}

static void resize_clear(Resize *r) {
  fk_image_axis_clear(&r->x);
  fk_image_axis_clear(&r->y);
  free(r->middle);
  free(r->strip_in);
  free(r->strip_out);
}

/* Only what the passes that will run need. */
static bool resize_init(Resize *r, FkFilter filter, int dw, int dh, int sw, int sh, int channels, bool vertical_first) {
  *r = (Resize){0};
  if (sw != dw) {
    r->strip_in = calloc((size_t)sw * (size_t)channels, STRIP); /* cleared: a last strip may have fewer rows */
    r->strip_out = malloc((size_t)dw * (size_t)channels * STRIP);
    if (!r->strip_in || !r->strip_out || !fk_image_axis_init(&r->x, filter, sw, dw)) return false;
  }
  if (sh != dh && !fk_image_axis_init(&r->y, filter, sh, dh)) return false;
  if (sw == dw || sh == dh) return true;
  size_t pixels = vertical_first ? (size_t)sw * (size_t)dh : (size_t)dw * (size_t)sh;
  r->middle = malloc(pixels * (size_t)channels);
  return r->middle != NULL;
}

/* The intermediate image is rounded to bytes, so the order of the passes shows in the result. */
bool fk_image_rows_first(int dw, int dh, int sw, int sh) {
  return sh > dh && sh - dh > 2 * (int64_t)(sw - dw);
}

static bool resize(FkFilter filter, uint8_t *dst, int dw, int dh, size_t dst_stride, const uint8_t *src, int sw, int sh,
                   size_t src_stride, int channels) {
  assert(dw > 0 && dh > 0 && sw > 0 && sh > 0 && (channels == 1 || channels == 3 || channels == 4));
  if (sw == dw && sh == dh) {
    for (int y = 0; y < dh; y++)
      memcpy(dst + (size_t)y * dst_stride, src + (size_t)y * src_stride, (size_t)dw * (size_t)channels);
    return true;
  }
  bool vertical_first = fk_image_rows_first(dw, dh, sw, sh);
  Resize r;
  bool ok = resize_init(&r, filter, dw, dh, sw, sh, channels, vertical_first);
  if (ok) passes(&r, (Plane){dst, dst_stride, dw, dh}, src, src_stride, sw, sh, channels, vertical_first);
  resize_clear(&r);
  return ok;
}

bool fk_image_resize_lanczos(uint8_t *dst, int dw, int dh, size_t dst_stride, const uint8_t *src, int sw, int sh,
                             size_t src_stride, int channels) {
  return resize(FK_FILTER_LANCZOS, dst, dw, dh, dst_stride, src, sw, sh, src_stride, channels);
}

bool fk_image_resize_triangle(uint8_t *dst, int dw, int dh, size_t dst_stride, const uint8_t *src, int sw, int sh,
                              size_t src_stride, int channels) {
  return resize(FK_FILTER_TRIANGLE, dst, dw, dh, dst_stride, src, sw, sh, src_stride, channels);
}
