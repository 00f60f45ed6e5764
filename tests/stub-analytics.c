/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for libgstanalytics-1.0.so.0, under whose name it is built; see stub-analytics.h. */
#include "stub-analytics.h"

enum { MAX_MTDS = 8, MAX_VALUES = 8 };
enum { OBJECT = 1, CLASSES, SEGMENTATION };

typedef struct {
  GstAnalyticsMtdType type;
  gint x, y, w, h;
  gsize n;
  guint values[MAX_VALUES]; /* of an object its type; classes; ids of regions */
  GstBuffer *regions;
} Entry;

struct _GstAnalyticsRelationMeta {
  GstMeta meta;
  guint length;
  Entry entries[MAX_MTDS];
  gint relations[MAX_MTDS][MAX_MTDS];
};

static gboolean meta_init(GstMeta *meta, gpointer params, GstBuffer *buffer) {
  GstAnalyticsRelationMeta *self = (GstAnalyticsRelationMeta *)meta;
  (void)params;
  (void)buffer;
  self->length = 0;
  memset(self->relations, 0, sizeof self->relations);
  return TRUE;
}

static void meta_free(GstMeta *meta, GstBuffer *buffer) {
  GstAnalyticsRelationMeta *self = (GstAnalyticsRelationMeta *)meta;
  (void)buffer;
  for (guint i = 0; i < self->length; i++) gst_clear_buffer(&self->entries[i].regions);
}

static GType api_type(void) {
  static const gchar *tags[] = {NULL};
  static gsize type;
  if (g_once_init_enter(&type))
    g_once_init_leave(&type, gst_meta_api_type_register("GstAnalyticsRelationMetaAPI", tags));
  return type;
}

static const GstMetaInfo *meta_info(void) {
  static gsize info;
  if (g_once_init_enter(&info)) {
    const GstMetaInfo *made = gst_meta_register(api_type(), "GstAnalyticsRelationMeta",
                                                sizeof(GstAnalyticsRelationMeta), meta_init, meta_free, NULL);
    g_once_init_leave(&info, GPOINTER_TO_SIZE(made));
  }
  return GSIZE_TO_POINTER(info);
}

GstAnalyticsRelationMeta *gst_buffer_add_analytics_relation_meta(GstBuffer *buffer) {
  GstAnalyticsRelationMeta *meta = gst_buffer_get_analytics_relation_meta(buffer);
  return meta ? meta : (GstAnalyticsRelationMeta *)gst_buffer_add_meta(buffer, meta_info(), NULL);
}

GstAnalyticsRelationMeta *gst_buffer_get_analytics_relation_meta(GstBuffer *buffer) {
  return (GstAnalyticsRelationMeta *)gst_buffer_get_meta(buffer, api_type());
}

static Entry *add_entry(GstAnalyticsRelationMeta *meta, GstAnalyticsMtdType type, GstAnalyticsMtd *mtd) {
  g_assert_cmpuint(meta->length, <, MAX_MTDS);
  *mtd = (GstAnalyticsMtd){meta->length++, meta};
  meta->entries[mtd->id] = (Entry){.type = type};
  return &meta->entries[mtd->id];
}

static const Entry *entry_of(const GstAnalyticsMtd *mtd, GstAnalyticsMtdType type) {
  const Entry *entry = &mtd->meta->entries[mtd->id];
  g_assert_cmpuint(mtd->id, <, mtd->meta->length);
  g_assert_cmpuint(entry->type, ==, type);
  return entry;
}

gboolean gst_analytics_relation_meta_set_relation(GstAnalyticsRelationMeta *meta, GstAnalyticsRelTypes type,
                                                  guint an_meta_first_id, guint an_meta_second_id) {
  meta->relations[an_meta_first_id][an_meta_second_id] = type;
  return TRUE;
}

gboolean gst_analytics_relation_meta_add_od_mtd(GstAnalyticsRelationMeta *instance, GQuark type, gint x, gint y, gint w,
                                                gint h, gfloat loc_conf_lvl, GstAnalyticsODMtd *od_mtd) {
  Entry *entry = add_entry(instance, OBJECT, od_mtd);
  (void)loc_conf_lvl;
  entry->x = x;
  entry->y = y;
  entry->w = w;
  entry->h = h;
  entry->values[entry->n++] = type;
  return TRUE;
}

static void set_values(Entry *entry, const guint *values, gsize n) {
  g_assert_cmpuint(n, <=, MAX_VALUES);
  entry->n = n;
  memcpy(entry->values, values, n * sizeof *values);
}

gboolean gst_analytics_relation_meta_add_cls_mtd(GstAnalyticsRelationMeta *instance, gsize length,
                                                 gfloat *confidence_levels, GQuark *class_quarks,
                                                 GstAnalyticsClsMtd *cls_mtd) {
  (void)confidence_levels;
  set_values(add_entry(instance, CLASSES, cls_mtd), class_quarks, length);
  return TRUE;
}

gboolean gst_analytics_relation_meta_add_segmentation_mtd(GstAnalyticsRelationMeta *instance, GstBuffer *buffer,
                                                          GstSegmentationType segmentation_type, gsize region_count,
                                                          guint *region_ids, gint masks_loc_x, gint masks_loc_y,
                                                          guint masks_loc_w, guint masks_loc_h,
                                                          GstAnalyticsSegmentationMtd *segmentation_mtd) {
  Entry *entry = add_entry(instance, SEGMENTATION, segmentation_mtd);
  (void)segmentation_type;
  entry->x = masks_loc_x;
  entry->y = masks_loc_y;
  entry->w = (gint)masks_loc_w;
  entry->h = (gint)masks_loc_h;
  entry->regions = buffer;
  set_values(entry, region_ids, region_count);
  return TRUE;
}

gboolean gst_analytics_relation_meta_iterate(GstAnalyticsRelationMeta *meta, gpointer *state, GstAnalyticsMtdType type,
                                             GstAnalyticsMtd *rlt_mtd) {
  for (guint i = GPOINTER_TO_UINT(*state); i < meta->length; i++) {
    if (type && meta->entries[i].type != type) continue;
    *rlt_mtd = (GstAnalyticsMtd){i, meta};
    *state = GUINT_TO_POINTER(i + 1);
    return TRUE;
  }
  return FALSE;
}

gboolean gst_analytics_relation_meta_get_direct_related(GstAnalyticsRelationMeta *meta, guint an_meta_id,
                                                        GstAnalyticsRelTypes relation_type, GstAnalyticsMtdType type,
                                                        gpointer *state, GstAnalyticsMtd *rlt_mtd) {
  g_assert_null(state);
  for (guint i = 0; i < meta->length; i++) {
    if (meta->entries[i].type != type || !(meta->relations[an_meta_id][i] & (gint)relation_type)) continue;
    *rlt_mtd = (GstAnalyticsMtd){i, meta};
    return TRUE;
  }
  return FALSE;
}

GstAnalyticsMtdType gst_analytics_od_mtd_get_mtd_type(void) {
  return OBJECT;
}

GQuark gst_analytics_od_mtd_get_obj_type(const GstAnalyticsODMtd *handle) {
  return entry_of(handle, OBJECT)->values[0];
}

gboolean gst_analytics_od_mtd_get_location(const GstAnalyticsODMtd *instance, gint *x, gint *y, gint *w, gint *h,
                                           gfloat *loc_conf_lvl) {
  const Entry *entry = entry_of(instance, OBJECT);
  g_assert_null(loc_conf_lvl);
  *x = entry->x;
  *y = entry->y;
  *w = entry->w;
  *h = entry->h;
  return TRUE;
}

GstAnalyticsMtdType gst_analytics_cls_mtd_get_mtd_type(void) {
  return CLASSES;
}

gsize gst_analytics_cls_mtd_get_length(const GstAnalyticsClsMtd *handle) {
  return entry_of(handle, CLASSES)->n;
}

GQuark gst_analytics_cls_mtd_get_quark(const GstAnalyticsClsMtd *handle, gsize index) {
  g_assert_cmpuint(index, <, entry_of(handle, CLASSES)->n);
  return entry_of(handle, CLASSES)->values[index];
}

GstAnalyticsMtdType gst_analytics_segmentation_mtd_get_mtd_type(void) {
  return SEGMENTATION;
}

GstBuffer *gst_analytics_segmentation_mtd_get_mask(const GstAnalyticsSegmentationMtd *handle, gint *masks_loc_x,
                                                   gint *masks_loc_y, guint *masks_loc_w, guint *masks_loc_h) {
  const Entry *entry = entry_of(handle, SEGMENTATION);
  *masks_loc_x = entry->x;
  *masks_loc_y = entry->y;
  *masks_loc_w = (guint)entry->w;
  *masks_loc_h = (guint)entry->h;
  return gst_buffer_ref(entry->regions);
}

gsize gst_analytics_segmentation_mtd_get_region_count(const GstAnalyticsSegmentationMtd *handle) {
  return entry_of(handle, SEGMENTATION)->n;
}

guint gst_analytics_segmentation_mtd_get_region_id(const GstAnalyticsSegmentationMtd *handle, gsize index) {
  g_assert_cmpuint(index, <, entry_of(handle, SEGMENTATION)->n);
  return entry_of(handle, SEGMENTATION)->values[index];
}
