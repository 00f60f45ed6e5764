/* SPDX-License-Identifier: Apache-2.0 */
/* The part of GstAnalytics (GStreamer 1.26) that test-element-analytics.c uses, with its names and prototypes, for
 * machines that do not have it. What the functions do is documented in gst/analytics/. */
#ifndef STUB_ANALYTICS_H
#define STUB_ANALYTICS_H

#include <gst/video/video.h>

G_BEGIN_DECLS

typedef guintptr GstAnalyticsMtdType;
typedef struct _GstAnalyticsRelationMeta GstAnalyticsRelationMeta;
typedef struct {
  guint id;
  GstAnalyticsRelationMeta *meta;
} GstAnalyticsMtd;
typedef GstAnalyticsMtd GstAnalyticsODMtd, GstAnalyticsClsMtd, GstAnalyticsSegmentationMtd;
typedef enum {
  GST_ANALYTICS_REL_TYPE_CONTAIN = 1 << 2,
  GST_ANALYTICS_REL_TYPE_RELATE_TO = 1 << 3,
  GST_ANALYTICS_REL_TYPE_N_TO_N = 1 << 4
} GstAnalyticsRelTypes;
typedef enum { GST_SEGMENTATION_TYPE_SEMANTIC, GST_SEGMENTATION_TYPE_INSTANCE } GstSegmentationType;

/* What a program that makes metas calls. */
GstAnalyticsRelationMeta *gst_buffer_add_analytics_relation_meta(GstBuffer *buffer);
gboolean gst_analytics_relation_meta_set_relation(GstAnalyticsRelationMeta *meta, GstAnalyticsRelTypes type,
                                                  guint an_meta_first_id, guint an_meta_second_id);
gboolean gst_analytics_relation_meta_add_od_mtd(GstAnalyticsRelationMeta *instance, GQuark type, gint x, gint y, gint w,
                                                gint h, gfloat loc_conf_lvl, GstAnalyticsODMtd *od_mtd);
gboolean gst_analytics_relation_meta_add_cls_mtd(GstAnalyticsRelationMeta *instance, gsize length,
                                                 gfloat *confidence_levels, GQuark *class_quarks,
                                                 GstAnalyticsClsMtd *cls_mtd);
/* Takes the buffer. */
gboolean gst_analytics_relation_meta_add_segmentation_mtd(GstAnalyticsRelationMeta *instance, GstBuffer *buffer,
                                                          GstSegmentationType segmentation_type, gsize region_count,
                                                          guint *region_ids, gint masks_loc_x, gint masks_loc_y,
                                                          guint masks_loc_w, guint masks_loc_h,
                                                          GstAnalyticsSegmentationMtd *segmentation_mtd);

/* What the element calls. */
GstAnalyticsRelationMeta *gst_buffer_get_analytics_relation_meta(GstBuffer *buffer);
gboolean gst_analytics_relation_meta_iterate(GstAnalyticsRelationMeta *meta, gpointer *state, GstAnalyticsMtdType type,
                                             GstAnalyticsMtd *rlt_mtd);
gboolean gst_analytics_relation_meta_get_direct_related(GstAnalyticsRelationMeta *meta, guint an_meta_id,
                                                        GstAnalyticsRelTypes relation_type, GstAnalyticsMtdType type,
                                                        gpointer *state, GstAnalyticsMtd *rlt_mtd);
GstAnalyticsMtdType gst_analytics_od_mtd_get_mtd_type(void);
GQuark gst_analytics_od_mtd_get_obj_type(const GstAnalyticsODMtd *handle);
gboolean gst_analytics_od_mtd_get_location(const GstAnalyticsODMtd *instance, gint *x, gint *y, gint *w, gint *h,
                                           gfloat *loc_conf_lvl);
GstAnalyticsMtdType gst_analytics_cls_mtd_get_mtd_type(void);
gsize gst_analytics_cls_mtd_get_length(const GstAnalyticsClsMtd *handle);
GQuark gst_analytics_cls_mtd_get_quark(const GstAnalyticsClsMtd *handle, gsize index);
GstAnalyticsMtdType gst_analytics_segmentation_mtd_get_mtd_type(void);
GstBuffer *gst_analytics_segmentation_mtd_get_mask(const GstAnalyticsSegmentationMtd *handle, gint *masks_loc_x,
                                                   gint *masks_loc_y, guint *masks_loc_w, guint *masks_loc_h);
gsize gst_analytics_segmentation_mtd_get_region_count(const GstAnalyticsSegmentationMtd *handle);
guint gst_analytics_segmentation_mtd_get_region_id(const GstAnalyticsSegmentationMtd *handle, gsize index);

G_END_DECLS

#endif
