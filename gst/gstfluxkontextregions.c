/* SPDX-License-Identifier: Apache-2.0 */
/* Masks from metas; see gstfluxkontextregions.h. Mtd and Api are what gst/analytics/ of GStreamer 1.26 declares, by its
 * names without the prefix. */
#include "gstfluxkontextregions.h"

#include "gstfluxkontextframe.h"

#include <dlfcn.h>
#include <string.h>

#define LIBRARY "libgstanalytics-1.0.so.0"
#define ANY_RELATION G_MAXINT
/* Values of a pixel in a segmentation: of GRAY16, its largest format. */
#define MAX_REGIONS 65536

typedef struct {
  guint id;
  gpointer meta;
} Mtd;

typedef struct {
  GstMeta *(*buffer_get_analytics_relation_meta)(GstBuffer *);
  gboolean (*analytics_relation_meta_iterate)(gpointer, gpointer *, guintptr, Mtd *);
  gboolean (*analytics_relation_meta_get_direct_related)(gpointer, guint, gint, guintptr, gpointer *, Mtd *);
  guintptr (*analytics_od_mtd_get_mtd_type)(void);
  GQuark (*analytics_od_mtd_get_obj_type)(const Mtd *);
  gboolean (*analytics_od_mtd_get_location)(const Mtd *, gint *, gint *, gint *, gint *, gfloat *);
  guintptr (*analytics_cls_mtd_get_mtd_type)(void);
  gsize (*analytics_cls_mtd_get_length)(const Mtd *);
  GQuark (*analytics_cls_mtd_get_quark)(const Mtd *, gsize);
  /* Since 1.26; else NULL, and no buffer has a segmentation. */
  guintptr (*analytics_segmentation_mtd_get_mtd_type)(void);
  GstBuffer *(*analytics_segmentation_mtd_get_mask)(const Mtd *, gint *, gint *, guint *, guint *);
  gsize (*analytics_segmentation_mtd_get_region_count)(const Mtd *);
  guint (*analytics_segmentation_mtd_get_region_id)(const Mtd *, gsize);
} Api;

static const struct {
  const gchar *name;
  gsize offset;
  gboolean optional;
} functions[] = {
#define NEEDED(name)                                                                                                   \
  { "gst_" #name, offsetof(Api, name), FALSE }
#define OPTIONAL(name)                                                                                                 \
  { "gst_" #name, offsetof(Api, name), TRUE }
    NEEDED(buffer_get_analytics_relation_meta),
    NEEDED(analytics_relation_meta_iterate),
    NEEDED(analytics_relation_meta_get_direct_related),
    NEEDED(analytics_od_mtd_get_mtd_type),
    NEEDED(analytics_od_mtd_get_obj_type),
    NEEDED(analytics_od_mtd_get_location),
    NEEDED(analytics_cls_mtd_get_mtd_type),
    NEEDED(analytics_cls_mtd_get_length),
    NEEDED(analytics_cls_mtd_get_quark),
    OPTIONAL(analytics_segmentation_mtd_get_mtd_type),
    OPTIONAL(analytics_segmentation_mtd_get_mask),
    OPTIONAL(analytics_segmentation_mtd_get_region_count),
    OPTIONAL(analytics_segmentation_mtd_get_region_id),
};

/* The library's functions, NULL where one that is needed is missing. In a program that has GStreamer in itself they are
 * among its own. */
static Api *find_api(void) {
  gpointer library = dlopen(LIBRARY, RTLD_LAZY | RTLD_NOLOAD);
  g_autofree Api *api = g_new0(Api, 1);
  for (guint i = 0; i < G_N_ELEMENTS(functions); i++) {
    gpointer function = dlsym(library ? library : RTLD_DEFAULT, functions[i].name);
    if (!function && !functions[i].optional) return NULL;
    memcpy((guint8 *)api + functions[i].offset, &function, sizeof function);
  }
  if (!api->analytics_segmentation_mtd_get_mask || !api->analytics_segmentation_mtd_get_region_count ||
      !api->analytics_segmentation_mtd_get_region_id)
    api->analytics_segmentation_mtd_get_mtd_type = NULL;
  return g_steal_pointer(&api);
}

/* NULL until somebody made the first meta of the kind. */
static const Api *analytics(void) {
  static Api *api;
  static gsize found;
  if (!g_type_from_name("GstAnalyticsRelationMetaAPI")) return NULL;
  if (g_once_init_enter(&found)) {
    api = find_api();
    g_once_init_leave(&found, 1);
  }
  return api;
}

/* Sets a rectangle to 255, cut at the mask's ends. */
static void draw_box(FkImage *mask, gint64 x, gint64 y, gint64 w, gint64 h) {
  gint64 right = MIN(x + w, mask->width), bottom = MIN(y + h, mask->height), left = MAX(x, 0);
  for (gint64 row = MAX(y, 0); row < bottom && left < right; row++)
    memset(mask->data + (gsize)row * mask->stride + (gsize)left, 255, (gsize)(right - left));
}

/* ---- Segmentations ---- */

/* Which values of pixels belong to the mask: of a class, of all regions but 0. */
static gboolean take_regions(const Api *api, const Mtd *segmentation, GQuark wanted, guint8 *take) {
  Mtd classes;
  gsize n = api->analytics_segmentation_mtd_get_region_count(segmentation), n_classes = 0;
  gboolean any = FALSE;
  if (wanted && api->analytics_relation_meta_get_direct_related(segmentation->meta, segmentation->id, ANY_RELATION,
                                                                api->analytics_cls_mtd_get_mtd_type(), NULL, &classes))
    n_classes = api->analytics_cls_mtd_get_length(&classes);
  for (gsize i = 0; i < n; i++) {
    guint id = api->analytics_segmentation_mtd_get_region_id(segmentation, i);
    if (id >= MAX_REGIONS) continue;
    take[id] = wanted ? i < n_classes && api->analytics_cls_mtd_get_quark(&classes, i) == wanted : id != 0;
    any |= take[id];
  }
  return any;
}

static guint value_at(const GstVideoInfo *info, const guint8 *pixels, guint x, guint y) {
  const guint8 *row = pixels + (gsize)y * (gsize)GST_VIDEO_INFO_PLANE_STRIDE(info, 0);
  switch (GST_VIDEO_INFO_FORMAT(info)) {
  case GST_VIDEO_FORMAT_GRAY16_LE: return GST_READ_UINT16_LE(row + 2 * (gsize)x);
  case GST_VIDEO_FORMAT_GRAY16_BE: return GST_READ_UINT16_BE(row + 2 * (gsize)x);
  default: return row[x];
  }
}

/* The pixels of a segmentation's buffer, laid out as *info. NULL: no GRAY8 or GRAY16 with a GstVideoMeta. */
static guint8 *region_pixels(GstBuffer *regions, GstVideoInfo *info, GError **error) {
  const GstVideoMeta *meta = gst_buffer_get_video_meta(regions);
  GstVideoFormat format = meta ? meta->format : GST_VIDEO_FORMAT_UNKNOWN;
  if ((format != GST_VIDEO_FORMAT_GRAY8 && format != GST_VIDEO_FORMAT_GRAY16_LE &&
       format != GST_VIDEO_FORMAT_GRAY16_BE) ||
      meta->width == 0 || meta->height == 0 || !gst_video_info_set_format(info, format, meta->width, meta->height)) {
    g_set_error(error, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT,
                "A segmentation of the frame has %s, %ux%u; expected GRAY8 or GRAY16 with a size.",
                meta ? gst_video_format_to_string(format) : "no video meta", meta ? meta->width : 0,
                meta ? meta->height : 0);
    return NULL;
  }
  guint8 *pixels = gst_flux_kontext_frame_bytes(info, regions, error);
  if (!pixels) g_prefix_error(error, "A segmentation of the frame: ");
  return pixels;
}

/* The regions' picture lies over x, y, w, h of the frame, whatever its own size: a pixel of the frame takes the value
 * that its upper left corner falls on, as GstAnalytics' own consumers do. */
static gboolean draw_segmentation(const Api *api, const Mtd *segmentation, GQuark wanted, FkImage *mask,
                                  GError **error) {
  g_autofree guint8 *take = g_malloc0(MAX_REGIONS);
  if (!take_regions(api, segmentation, wanted, take)) return TRUE;
  gint x0 = 0, y0 = 0;
  guint w = 0, h = 0;
  GstVideoInfo info;
  g_autoptr(GstBuffer) regions = api->analytics_segmentation_mtd_get_mask(segmentation, &x0, &y0, &w, &h);
  if (!regions) return TRUE;
  g_autofree guint8 *pixels = region_pixels(regions, &info, error);
  if (!pixels) return FALSE;
  gint64 right = MIN((gint64)x0 + w, mask->width), bottom = MIN((gint64)y0 + h, mask->height);
  for (gint64 y = MAX(y0, 0); y < bottom; y++)
    for (gint64 x = MAX(x0, 0); x < right; x++) {
      guint column = (guint)((x - x0) * info.width / w), row = (guint)((y - y0) * info.height / h);
      if (take[value_at(&info, pixels, column, row)]) mask->data[(gsize)y * mask->stride + (gsize)x] = 255;
    }
  return TRUE;
}

/* ---- Objects ---- */

static gboolean draw_object(const Api *api, const Mtd *object, GQuark wanted, FkImage *mask, GError **error) {
  gint x, y, w, h;
  Mtd segmentation;
  if (wanted && api->analytics_od_mtd_get_obj_type(object) != wanted) return TRUE;
  if (api->analytics_segmentation_mtd_get_mtd_type &&
      api->analytics_relation_meta_get_direct_related(
          object->meta, object->id, ANY_RELATION, api->analytics_segmentation_mtd_get_mtd_type(), NULL, &segmentation))
    return draw_segmentation(api, &segmentation, 0, mask, error);
  if (api->analytics_od_mtd_get_location(object, &x, &y, &w, &h, NULL)) draw_box(mask, x, y, w, h);
  return TRUE;
}

static gboolean draw_analytics(GstBuffer *buffer, GQuark wanted, FkImage *mask, GError **error) {
  const Api *api = analytics();
  gpointer meta = api ? api->buffer_get_analytics_relation_meta(buffer) : NULL, state = NULL;
  Mtd mtd;
  if (!meta) return TRUE;
  while (api->analytics_relation_meta_iterate(meta, &state, api->analytics_od_mtd_get_mtd_type(), &mtd))
    if (!draw_object(api, &mtd, wanted, mask, error)) return FALSE;
  state = NULL;
  while (api->analytics_segmentation_mtd_get_mtd_type &&
         api->analytics_relation_meta_iterate(meta, &state, api->analytics_segmentation_mtd_get_mtd_type(), &mtd))
    if (!draw_segmentation(api, &mtd, wanted, mask, error)) return FALSE;
  return TRUE;
}

/* ---- All metas ---- */

gboolean gst_flux_kontext_regions_mask(const FkSettings *settings, const GstVideoInfo *info, GstBuffer *buffer,
                                       FkImage *mask, GError **error) {
  const char *type = fk_settings_get(settings, "mask-type");
  GQuark wanted = type && *type ? g_quark_from_string(type) : 0;
  gpointer state = NULL;
  GstMeta *meta;
  *mask = (FkImage){0};
  if (g_strcmp0(fk_settings_get(settings, "mask"), "meta")) return TRUE;
  *mask = (FkImage){.width = info->width, .height = info->height, .channels = 1, .stride = (size_t)info->width};
  mask->data = g_try_malloc0((gsize)info->width * (gsize)info->height);
  if (!mask->data) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "No memory for a mask of %dx%d.", info->width, info->height);
    return FALSE;
  }
  while ((meta = gst_buffer_iterate_meta_filtered(buffer, &state, GST_VIDEO_REGION_OF_INTEREST_META_API_TYPE))) {
    const GstVideoRegionOfInterestMeta *roi = (GstVideoRegionOfInterestMeta *)meta;
    if (!wanted || roi->roi_type == wanted) draw_box(mask, roi->x, roi->y, roi->w, roi->h);
  }
  return draw_analytics(buffer, wanted, mask, error);
}
