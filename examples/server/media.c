/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures in memory; see media.h. */
#include "media.h"

#include "../picture-formats.h"
#include "../picture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifdef FK_WEBP
#include <webp/decode.h>
#include <webp/encode.h>
#endif

static const char *const names[] = {"", "png", "jpeg", "webp"};
static const char *const types[] = {"", "image/png", "image/jpeg", "image/webp"};

MediaFormat media_format(const char *name) {
#ifdef FK_WEBP
  if (!strcmp(name, "webp")) return MEDIA_WEBP;
#endif
  return !strcmp(name, "png") ? MEDIA_PNG : !strcmp(name, "jpeg") || !strcmp(name, "jpg") ? MEDIA_JPEG : MEDIA_NONE;
}

const char *media_name(MediaFormat format) {
  return names[format];
}

const char *media_type(MediaFormat format) {
  return types[format];
}

static MediaFormat sniff(const guint8 *p, gsize n) {
  if (n >= 24 && !memcmp(p, "\x89PNG\r\n\x1a\n", 8)) return MEDIA_PNG;
  if (n >= 4 && !memcmp(p, "\xff\xd8\xff", 3)) return MEDIA_JPEG;
  if (n >= 16 && !memcmp(p, "RIFF", 4) && !memcmp(p + 8, "WEBP", 4)) return MEDIA_WEBP;
  return MEDIA_NONE;
}

/* ---- Headers ---- */

static guint big(const guint8 *p, int bytes) {
  guint value = 0;
  for (int i = 0; i < bytes; i++) value = value << 8 | p[i];
  return value;
}

/* Walks the segments up to a start of frame: SOF0 to SOF15 but for DHT, JPG and DAC. */
static bool jpeg_size(const guint8 *p, gsize n, guint *width, guint *height) {
  for (gsize at = 2; at + 9 < n;) {
    if (p[at] != 0xff) return false;
    const guint8 marker = p[at + 1];
    if (marker == 0xff) {
      at++;
      continue;
    }
    const bool frame = marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
    if (frame) {
      *height = big(p + at + 5, 2);
      *width = big(p + at + 7, 2);
      return true;
    }
    const bool alone = marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8);
    if (marker == 0xda || marker == 0xd9) return false;
    const guint length = big(p + at + 2, 2);
    if (!alone && length < 2) return false;
    at += alone ? 2 : 2 + (gsize)length;
  }
  return false;
}

static bool webp_size(const guint8 *p, gsize n, guint *width, guint *height) {
#ifdef FK_WEBP
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(p, n, &features) != VP8_STATUS_OK || features.has_animation) return false;
  *width = (guint)features.width;
  *height = (guint)features.height;
  return true;
#else
  (void)p, (void)n, (void)width, (void)height;
  return false;
#endif
}

static bool header_size(MediaFormat format, const guint8 *p, gsize n, guint *width, guint *height) {
  if (format == MEDIA_JPEG) return jpeg_size(p, n, width, height);
  if (format == MEDIA_WEBP) return webp_size(p, n, width, height);
  *width = big(p + 16, 4);
  *height = big(p + 20, 4);
  return !memcmp(p + 12, "IHDR", 4);
}

bool media_probe(GBytes *file, const char *param, gint64 max_pixels, int *width, int *height, Failure *f) {
  gsize n;
  const guint8 *p = g_bytes_get_data(file, &n);
  const MediaFormat format = p ? sniff(p, n) : MEDIA_NONE;
  guint w = 0, h = 0;
  if (!format || (format == MEDIA_WEBP && !media_format("webp")))
    return fail(f, 400, "invalid_image", param, "%s: %" G_GSIZE_FORMAT " bytes that are not %s", param, n,
                media_format("webp") ? "PNG, JPEG or WebP" : "PNG or JPEG");
  if (!header_size(format, p, n, &w, &h))
    return fail(f, 400, "invalid_image", param, "%s: a damaged %s header", param, names[format]);
  if (!w || !h || w > MEDIA_SIDE || h > MEDIA_SIDE || (gint64)w * h > max_pixels)
    return fail(f, 400, "invalid_image", param,
                "%s: %ux%u; expected sides from 1 to %d and at most %" G_GINT64_FORMAT " pixels", param, w, h,
                MEDIA_SIDE, max_pixels);
  *width = (int)w;
  *height = (int)h;
  return true;
}

/* ---- Pixels ---- */

#ifdef FK_WEBP
static bool webp_decode(const guint8 *p, gsize n, FkImage *image) {
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(p, n, &features) != VP8_STATUS_OK) return false;
  *image = (FkImage){.width = features.width, .height = features.height, .channels = features.has_alpha ? 4 : 3};
  image->stride = (size_t)image->width * (size_t)image->channels;
  const size_t bytes = image->stride * (size_t)image->height;
  image->data = g_try_malloc(bytes);
  if (!image->data) return false;
  const guint8 *done = features.has_alpha ? WebPDecodeRGBAInto(p, n, image->data, bytes, (int)image->stride)
                                          : WebPDecodeRGBInto(p, n, image->data, bytes, (int)image->stride);
  if (!done) g_clear_pointer(&image->data, g_free);
  return done;
}

static GBytes *webp_encode(const FkImage *i, int compression) {
  guint8 *out = NULL;
  const float quality = (float)compression;
  const int stride = (int)i->stride;
  size_t n;
  if (compression < 0)
    n = i->channels == 4 ? WebPEncodeLosslessRGBA(i->data, i->width, i->height, stride, &out)
                         : WebPEncodeLosslessRGB(i->data, i->width, i->height, stride, &out);
  else
    n = i->channels == 4 ? WebPEncodeRGBA(i->data, i->width, i->height, stride, quality, &out)
                         : WebPEncodeRGB(i->data, i->width, i->height, stride, quality, &out);
  GBytes *bytes = n ? g_bytes_new(out, n) : NULL;
  WebPFree(out);
  return bytes;
}
#else
static bool webp_decode(const guint8 *p, gsize n, FkImage *image) {
  (void)p, (void)n, (void)image;
  return false;
}

static GBytes *webp_encode(const FkImage *i, int compression) {
  (void)i, (void)compression;
  return NULL;
}
#endif

bool media_decode(GBytes *file, const char *param, FkImage *image, Failure *f) {
  gsize n;
  const guint8 *p = g_bytes_get_data(file, &n);
  g_autoptr(GError) error = NULL;
  *image = (FkImage){0};
  if (sniff(p, n) == MEDIA_WEBP)
    return webp_decode(p, n, image) || fail(f, 400, "invalid_image", param, "%s: a damaged WebP file", param);
  if (fk_image_decode(param, p, n, image, &error)) return true;
  return fail(f, 400, "invalid_image", param, "%s", error->message);
}

GBytes *media_encode(const FkImage *image, MediaFormat format, int compression, Failure *f) {
  char message[PICTURE_MESSAGE] = "the picture cannot be written";
  guint8 *data = NULL;
  gsize n = 0;
  GBytes *bytes = NULL;
  if (format == MEDIA_WEBP)
    bytes = webp_encode(image, compression);
  else if (format == MEDIA_JPEG
               ? picture_jpeg_write(image, compression < 0 ? PICTURE_QUALITY : compression, &data, &n, message)
               : picture_png_write(image, &data, &n, message))
    bytes = g_bytes_new(data, n);
  free(data);
  if (!bytes) fail(f, 500, "encoding_failed", "output_format", "%s: %s", names[format], message);
  return bytes;
}

/* ---- Another size ---- */

/* One line of n values `from_step` apart to `count` values: each is the mean of those below a triangle. `offset` and
 * `length`: the part of the line that is used. */
static void scale_line(const float *from, size_t from_step, double offset, double length, int n, float *to,
                       size_t to_step, int count) {
  const double scale = length / count, support = MAX(scale, 1.0);
  for (int i = 0; i < count; i++) {
    const double center = offset + (i + 0.5) * scale;
    const int first = MAX(0, (int)floor(center - support)), last = MIN(n - 1, (int)ceil(center + support));
    double sum = 0, weights = 0;
    for (int k = first; k <= last; k++) {
      const double weight = MAX(0.0, 1 - fabs(k + 0.5 - center) / support);
      sum += weight * (double)from[(size_t)k * from_step];
      weights += weight;
    }
    to[(size_t)i * to_step] = (float)(sum / weights);
  }
}

bool media_fit(FkImage *image, int width, int height, MediaFit fit, Failure *f) {
  const int w = image->width, h = image->height, c = image->channels;
  if (w == width && h == height) return true;
  const double ratio = fit == MEDIA_CROP ? MIN((double)w / width, (double)h / height) : 0;
  const double used_w = ratio > 0 ? ratio * width : w, used_h = ratio > 0 ? ratio * height : h;
  const size_t row = (size_t)w * (size_t)c, out_row = (size_t)width * (size_t)c;
  g_autofree float *line = g_try_new(float, row), *wide = g_try_new(float, out_row *(size_t)h),
                   *column = g_try_new(float, (size_t)height);
  uint8_t *out = g_try_malloc(out_row * (size_t)height);
  if (!line || !wide || !column || !out) {
    g_free(out);
    return fail(f, 500, "out_of_memory", "size", "size: no memory for %dx%d", width, height);
  }
  for (int y = 0; y < h; y++) {
    for (size_t x = 0; x < row; x++) line[x] = image->data[(size_t)y * image->stride + x];
    for (int k = 0; k < c; k++)
      scale_line(line + k, (size_t)c, (w - used_w) / 2, used_w, w, wide + (size_t)y * out_row + k, (size_t)c, width);
  }
  for (size_t x = 0; x < out_row; x++) {
    scale_line(wide + x, out_row, (h - used_h) / 2, used_h, h, column, 1, height);
    for (int y = 0; y < height; y++) out[(size_t)y * out_row + x] = (uint8_t)CLAMP(lrintf(column[y]), 0, 255);
  }
  g_free(image->data);
  *image = (FkImage){.data = out, .width = width, .height = height, .channels = c, .stride = out_row};
  return true;
}

char *media_hash(const FkImage *image) {
  g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
  for (int y = 0; y < image->height; y++)
    g_checksum_update(sum, image->data + (size_t)y * image->stride, (gssize)image->width * image->channels);
  return g_strdup(g_checksum_get_string(sum));
}

GBytes *media_from_base64(const char *text) {
  if (g_str_has_prefix(text, "data:")) {
    const char *comma = strchr(text, ',');
    if (!comma || comma - text < 7 || strncmp(comma - 7, ";base64", 7)) return NULL;
    text = comma + 1;
  }
  const gsize length = strlen(text);
  if (!length || strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\r\n") != length)
    return NULL;
  gsize n;
  guchar *data = g_base64_decode(text, &n);
  return g_bytes_new_take(data, n);
}
