/* SPDX-License-Identifier: Apache-2.0 */
/* The measure is of integers alone and the same on every machine: luma (77 R + 150 G + 29 B) / 256, averaged over
 * squares until the picture has about the model's area, and in each cell of 16x16 of it the sum of absolute
 * differences. The worst cell decides, so that a small thing that moves in a large still picture is seen. The reference
 * is the last frame that was edited, not the last one that came: slow changes add up and are seen. */
#include "gstfluxkontextsimilar.h"

#include <stdlib.h>
#include <string.h>

#define AREA (1024 * 1024)
#define CELL 16

void gst_flux_kontext_similar_clear(GstFluxKontextSimilar *s) {
  g_free(s->luma);
  fk_settings_free(s->settings);
  g_free(s->result.data);
  g_clear_pointer(&s->meta, gst_structure_free);
  memset(s, 0, sizeof(*s));
}

gboolean gst_flux_kontext_similar_parse(const gchar *text, gdouble *threshold, GError **error) {
  gchar *end = NULL;
  *threshold = -1;
  if (!text || g_str_equal(text, "off")) return TRUE;
  *threshold = GST_FLUX_KONTEXT_SIMILAR_AUTO;
  if (g_str_equal(text, "auto")) return TRUE;
  *threshold = g_ascii_strtod(text, &end);
  gboolean plain = *text && !text[strspn(text, "0123456789.")]; /* no hexadecimal, no nan */
  if (plain && !*end && *threshold >= 0 && *threshold <= 255) return TRUE;
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "similar-frame: expected off, auto or 0 to 255, found \"%s\"",
              text);
  return FALSE;
}

/* Pixels of a side that are averaged. */
static gint factor(gint width, gint height) {
  gint k = 1;
  while ((gint64)(width / (k + 1)) * (height / (k + 1)) >= AREA) k++;
  return k;
}

/* (transfer full, nullable) */
static guint8 *luma_of(const FkImage *image, gint k, gint width, gint height) {
  guint8 *luma = g_try_malloc((gsize)width * (gsize)height);
  for (gint y = 0; luma && y < height; y++)
    for (gint x = 0; x < width; x++) {
      guint64 sum = 0;
      for (gint j = 0; j < k; j++) {
        const guint8 *p = image->data + (gsize)(y * k + j) * image->stride + (gsize)(x * k) * (gsize)image->channels;
        for (gint i = 0; i < k; i++, p += image->channels) sum += 77u * p[0] + 150u * p[1] + 29u * p[2];
      }
      luma[(gsize)y * (gsize)width + (gsize)x] = (guint8)(sum / ((guint64)k * (guint64)k * 256));
    }
  return luma;
}

static gdouble worst_cell(const guint8 *a, const guint8 *b, gint width, gint height) {
  gdouble worst = 0;
  for (gint top = 0; top < height; top += CELL)
    for (gint left = 0; left < width; left += CELL) {
      gint h = MIN(CELL, height - top), w = MIN(CELL, width - left), sum = 0;
      for (gint y = top; y < top + h; y++)
        for (gint x = left; x < left + w; x++) {
          gsize at = (gsize)y * (gsize)width + (gsize)x;
          sum += abs(a[at] - b[at]);
        }
      worst = MAX(worst, (gdouble)sum / (w * h));
    }
  return worst;
}

static gboolean same_settings(const FkSettings *a, const FkSettings *b) {
  return fk_settings_batchable(a, b) && g_strcmp0(fk_settings_get(a, "seed"), fk_settings_get(b, "seed")) == 0;
}

gdouble gst_flux_kontext_similar_measure(const GstFluxKontextSimilar *s, const FkImage *image,
                                         const FkSettings *settings, guint8 **luma) {
  gint k = factor(image->width, image->height), width = image->width / k, height = image->height / k;
  *luma = luma_of(image, k, width, height);
  if (!*luma || !s->luma || s->in_width != image->width || s->in_height != image->height ||
      !same_settings(s->settings, settings))
    return 256;
  return worst_cell(s->luma, *luma, width, height);
}

void gst_flux_kontext_similar_start(GstFluxKontextSimilar *s, const FkImage *image, const FkSettings *settings,
                                    guint8 *luma) {
  gst_flux_kontext_similar_clear(s);
  s->in_width = image->width;
  s->in_height = image->height;
  s->luma = luma;
  s->settings = fk_settings_copy(settings);
}

static FkImage copy_image(const FkImage *image) {
  FkImage copy = *image;
  gsize bytes = image->stride * (gsize)image->height;
  copy.data = g_try_malloc(bytes);
  if (!copy.data) return (FkImage){0};
  memcpy(copy.data, image->data, bytes);
  return copy;
}

void gst_flux_kontext_similar_keep(GstFluxKontextSimilar *s, const FkImage *result, const GstStructure *meta) {
  if (!s->luma) return;
  g_free(s->result.data);
  g_clear_pointer(&s->meta, gst_structure_free);
  s->result = copy_image(result);
  if (!s->result.data) return;
  s->meta = gst_structure_copy(meta);
  gst_structure_set(s->meta, "repeated", G_TYPE_BOOLEAN, TRUE, NULL);
}

FkImage gst_flux_kontext_similar_copy(const GstFluxKontextSimilar *s) {
  return s->result.data ? copy_image(&s->result) : (FkImage){0};
}
