/* SPDX-License-Identifier: Apache-2.0 */
/* Caps, sizes, pools and metas. The format passes through; so does the size with size-mode=input. With size-mode=native
 * the engine decides the size, and the pixel aspect ratio is set to keep the display aspect ratio.
 * Not here: pixels. */
#include "gstfluxkontextcaps.h"

#include "gstfluxkontextcancel.h"
#include "gstfluxkontextcuda.h"
#include "gstfluxkontextdevice.h"
#include "gstfluxkontextflow.h"
#include "gstfluxkontextreport.h"

#define GST_CAT_DEFAULT gst_flux_kontext_edit_debug

/* The settings of the running stream; (transfer full). Caps are asked for from any thread, before the first start too.
 */
static GstFluxKontextSettings *live_settings(GstFluxKontextEdit *self) {
  GST_OBJECT_LOCK(self);
  GstFluxKontextSettings *settings = gst_flux_kontext_props_live(&self->props);
  GST_OBJECT_UNLOCK(self);
  return settings;
}

static gboolean is_native(GstFluxKontextEdit *self) {
  g_autoptr(GstFluxKontextSettings) settings = live_settings(self);
  return g_strcmp0(fk_settings_get(settings->values, "size-mode"), "native") == 0;
}

/* Same caps on both sides, in either memory; with size-mode=native any size and pixel aspect ratio may stand on the
 * other. */
static GstCaps *transform_caps(GstBaseTransform *trans, GstPadDirection direction, GstCaps *caps, GstCaps *filter) {
  (void)direction;
  gboolean native = is_native(GST_FLUX_KONTEXT_EDIT(trans));
  GstCaps *other = native ? gst_caps_copy(caps) : gst_caps_ref(caps);
  for (guint i = 0; native && i < gst_caps_get_size(other); i++) {
    GstStructure *structure = gst_caps_get_structure(other, i);
    gst_structure_set(structure, "width", GST_TYPE_INT_RANGE, 1, G_MAXINT, "height", GST_TYPE_INT_RANGE, 1, G_MAXINT,
                      NULL);
    if (gst_structure_has_field(structure, "pixel-aspect-ratio"))
      gst_structure_set(structure, "pixel-aspect-ratio", GST_TYPE_FRACTION_RANGE, 1, G_MAXINT, G_MAXINT, 1, NULL);
  }
  other = gst_flux_kontext_device_both(GST_FLUX_KONTEXT_EDIT(trans), other);
  if (!filter) return other;
  GstCaps *both = gst_caps_intersect_full(filter, other, GST_CAPS_INTERSECT_FIRST);
  gst_caps_unref(other);
  return both;
}

/* The pixel aspect ratio at which width x height has the display aspect ratio of `from`. FALSE: no such fraction. */
static gboolean keep_aspect(const GstVideoInfo *from, gint width, gint height, gint *par_n, gint *par_d) {
  gint dar_n, dar_d;
  return gst_util_fraction_multiply(from->width, from->height, from->par_n, from->par_d, &dar_n, &dar_d) &&
         gst_util_fraction_multiply(dar_n, dar_d, height, width, par_n, par_d);
}

/* native: the engine's size nearest to what downstream takes. set_caps refuses another, with a message. */
static void fixate_native(GstFluxKontextEdit *self, GstCaps *caps, GstStructure *out) {
  g_autoptr(FkEngine) engine = gst_flux_kontext_edit_ref_engine(self);
  g_autoptr(GstFluxKontextSettings) settings = live_settings(self);
  GstVideoInfo info;
  gint width, height, par_n, par_d;
  if (!engine || !gst_video_info_from_caps(&info, caps)) return;
  if (!fk_engine_output_size(engine, settings->values, info.width, info.height, &width, &height, NULL)) {
    width = info.width; /* frames that cannot be edited pass at their size, if at all */
    height = info.height;
  }
  gst_structure_fixate_field_nearest_int(out, "width", width);
  gst_structure_fixate_field_nearest_int(out, "height", height);
  if (!keep_aspect(&info, width, height, &par_n, &par_d)) return;
  if (gst_structure_has_field(out, "pixel-aspect-ratio"))
    gst_structure_fixate_field_nearest_fraction(out, "pixel-aspect-ratio", par_n, par_d);
  else if (par_n != par_d)
    gst_structure_set(out, "pixel-aspect-ratio", GST_TYPE_FRACTION, par_n, par_d, NULL);
}

/* Only the output is chosen: as an input any size is accepted. */
static GstCaps *fixate_caps(GstBaseTransform *trans, GstPadDirection direction, GstCaps *caps, GstCaps *other) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(trans);
  other = gst_caps_make_writable(gst_caps_truncate(other));
  if (direction == GST_PAD_SINK && is_native(self)) fixate_native(self, caps, gst_caps_get_structure(other, 0));
  return gst_caps_fixate(other);
}

/* ---- Which caps can be edited ---- */

/* The size of the output for these caps. FALSE sets error: STREAM/FORMAT where the picture's shape cannot be edited,
 * the engine's own where its settings are what fails. */
static gboolean output_size(GstFluxKontextEdit *self, const GstVideoInfo *in, gint *width, gint *height,
                            GError **error) {
  g_autoptr(FkEngine) engine = gst_flux_kontext_edit_ref_engine(self);
  g_autoptr(GstFluxKontextSettings) settings = live_settings(self);
  GError *failure = NULL;
  if (fk_engine_output_size(engine, settings->values, in->width, in->height, width, height, &failure)) return TRUE;
  if (g_error_matches(failure, FK_ERROR, FK_ERROR_SHAPE)) {
    failure->domain = GST_STREAM_ERROR;
    failure->code = GST_STREAM_ERROR_FORMAT;
  }
  g_propagate_error(error, failure);
  return FALSE;
}

/* Can frames of these caps be edited? FALSE sets error, as output_size(). */
static gboolean check_frames(GstFluxKontextEdit *self, const GstVideoInfo *in, gint *width, gint *height,
                             GError **error) {
  if (!GST_VIDEO_INFO_IS_INTERLACED(in)) return output_size(self, in, width, height, error);
  g_set_error_literal(error, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT,
                      "Interlaced video cannot be edited: put deinterlace before this element.");
  return FALSE;
}

/* Posts why caps cannot be used; FALSE for the caller to return. A load that still runs ends first: if it fails, its
 * error is the one message, and an error while the pipeline is still being set to PAUSED is not noticed by every
 * application (gst-launch-1.0 then waits for ever). */
static gboolean refuse(GstFluxKontextEdit *self, const GError *error, const GstVideoInfo *in, const GstVideoInfo *out) {
  g_autofree gchar *debug =
      g_strdup_printf("%dx%d %s to %dx%d", in->width, in->height, gst_video_format_to_string(GST_VIDEO_INFO_FORMAT(in)),
                      out->width, out->height);
  if (gst_flux_kontext_edit_wait(self) == GST_FLOW_OK) gst_flux_kontext_edit_post_error(self, error, debug);
  return FALSE;
}

/* ---- What an edit ignores of the caps ---- */

/* Whether values are encoded for displays of standard dynamic range, as those that the model was trained on. */
static gboolean is_standard_range(GstVideoTransferFunction transfer) {
  switch (transfer) {
  case GST_VIDEO_TRANSFER_SMPTE2084:
  case GST_VIDEO_TRANSFER_ARIB_STD_B67:
  case GST_VIDEO_TRANSFER_GAMMA10:
  case GST_VIDEO_TRANSFER_LOG100:
  case GST_VIDEO_TRANSFER_LOG316: return FALSE;
  default: return TRUE;
  }
}

/* Once for each value: a stream may change its caps often. */
static void warn_caps(GstFluxKontextEdit *self, const GstVideoInfo *in) {
  if (!is_standard_range(in->colorimetry.transfer)) {
    g_autofree gchar *colorimetry = gst_video_colorimetry_to_string(&in->colorimetry);
    g_autofree gchar *text =
        g_strdup_printf("Frames with colorimetry %s are edited as if they were sRGB, which the model does not know: "
                        "convert them to standard dynamic range before this element.",
                        colorimetry ? colorimetry : "of high dynamic range");
    gst_flux_kontext_edit_warn_once(self, text, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT, text, NULL);
  }
  if (in->par_n != in->par_d) {
    g_autofree gchar *text = g_strdup_printf(
        "Pixels with aspect ratio %d:%d are edited as if they were square, so the model sees a distorted "
        "picture: put videoscale ! video/x-raw,pixel-aspect-ratio=1/1 before this element.",
        in->par_n, in->par_d);
    gst_flux_kontext_edit_warn_once(self, text, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT, text, NULL);
  }
}

/* ---- Configuring ---- */

/* The way between buffers and images, unless frames of these caps are not edited. FALSE: there is none, and frames can
 * only be passed on or dropped; sets error where one was asked for. */
static gboolean set_formats(GstFluxKontextEdit *self, const GstVideoInfo *in, const GstVideoInfo *out, gboolean fit,
                            GError **error) {
  gst_flux_kontext_format_clear(&self->in);
  gst_flux_kontext_format_clear(&self->out);
  if (fit && gst_flux_kontext_format_init(&self->in, in) && gst_flux_kontext_format_init(&self->out, out)) return TRUE;
  gst_flux_kontext_format_clear(&self->in);
  self->in.info = *in;
  self->out.info = *out;
  if (fit)
    g_set_error(error, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT, "There is no conversion between %s of %dx%d and RGB.",
                gst_video_format_to_string(GST_VIDEO_INFO_FORMAT(in)), in->width, in->height);
  return FALSE;
}

/* How long the first frame of a batch waits for the last, a part of the latency. */
static void set_gathering(GstFluxKontextEdit *self, const GstVideoInfo *in) {
  GST_OBJECT_LOCK(self);
  self->stats.gather = in->fps_n > 0 ? gst_util_uint64_scale((guint64)(self->batch_size - 1) * GST_SECOND,
                                                             (guint64)in->fps_d, (guint64)in->fps_n)
                                     : 0;
  GST_OBJECT_UNLOCK(self);
}

/* Whether on-error settles frames one by one instead of ending the stream. */
static gboolean drops_or_passes(GstFluxKontextEdit *self) {
  GST_OBJECT_LOCK(self);
  gboolean result = self->props.on_error != GST_FLUX_KONTEXT_ON_ERROR_FAIL;
  GST_OBJECT_UNLOCK(self);
  return result;
}

/* In which memory the frames are. */
static void set_memories(GstFluxKontextEdit *self, GstCaps *in, GstCaps *out) {
  self->in.cuda = gst_flux_kontext_cuda_is(gst_caps_get_features(in, 0));
  self->out.cuda = gst_flux_kontext_cuda_is(gst_caps_get_features(out, 0));
}

/* Everything that follows from the caps. FALSE: posted. Frames that cannot be edited are refused here with
 * on-error=fail, and one by one otherwise; settings that fail may be set right until the next frame. */
static gboolean configure(GstFluxKontextEdit *self, const GstVideoInfo *in, const GstVideoInfo *out) {
  g_autoptr(GError) error = NULL;
  gint width = out->width, height = out->height;
  gboolean fit = check_frames(self, in, &width, &height, &error) || error->domain != GST_STREAM_ERROR;
  gboolean ready = set_formats(self, in, out, fit, error ? NULL : &error);
  g_clear_error(&self->unfit);
  if (error && !drops_or_passes(self)) return refuse(self, error, in, out);
  if (!error && (width != out->width || height != out->height)) {
    g_set_error(&error, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT,
                "The result is %dx%d, but downstream asks for %dx%d: put videoscale behind this element.", width,
                height, out->width, out->height);
    return refuse(self, error, in, out);
  }
  if (ready)
    warn_caps(self, in);
  else
    self->unfit = g_steal_pointer(&error);
  set_gathering(self, in);
  gst_flux_kontext_edit_ask_warm_up(self);
  /* Cancelled is no failure of the caps: the first frame asks again. */
  return gst_flux_kontext_edit_warm_up(self) != GST_FLOW_ERROR;
}

/* Frames of the old caps leave with the old caps: the base class sends the new ones after this. After a refusal it
 * tries the same caps again with the next buffer: that is not posted a second time. */
static gboolean set_caps(GstBaseTransform *trans, GstCaps *in_caps, GstCaps *out_caps) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(trans);
  gst_flux_kontext_edit_drain_before(self);
  g_autoptr(GCancellable) flow = gst_flux_kontext_edit_ref_flow(self);
  GstVideoInfo in, out;
  if (self->refused && gst_caps_is_equal(self->refused, in_caps)) return FALSE;
  gst_video_info_init(&in);
  gst_video_info_init(&out);
  gboolean taken;
  if (gst_video_info_from_caps(&in, in_caps) && gst_video_info_from_caps(&out, out_caps)) {
    taken = configure(self, &in, &out);
    set_memories(self, in_caps, out_caps);
  } else {
    g_autoptr(GError) error = g_error_new_literal(GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT,
                                                  "These caps are of no frame that memory can hold.");
    taken = refuse(self, error, &in, &out);
  }
  gboolean posted = !taken && !g_cancellable_is_cancelled(flow);
  gst_caps_replace(&self->refused, posted ? in_caps : NULL);
  return taken;
}

/* ---- Buffers ---- */

/* Bytes of a frame of the other pad's caps. The size of a buffer says nothing: its rows and planes may be padded as its
 * GstVideoMeta says. */
static gboolean transform_size(GstBaseTransform *trans, GstPadDirection direction, GstCaps *caps, gsize size,
                               GstCaps *other, gsize *other_size) {
  (void)trans;
  (void)direction;
  (void)caps;
  (void)size;
  GstVideoInfo info;
  if (!gst_video_info_from_caps(&info, other)) return FALSE;
  *other_size = GST_VIDEO_INFO_SIZE(&info);
  return TRUE;
}

/* Strides are read from GstVideoMeta; a batch holds as many buffers of upstream. */
static gboolean propose_allocation(GstBaseTransform *trans, GstQuery *decide, GstQuery *query) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(trans);
  GstBaseTransformClass *parent = g_type_class_peek(GST_TYPE_BASE_TRANSFORM);
  if (!parent->propose_allocation(trans, decide, query)) return FALSE;
  GstCaps *caps;
  GstVideoInfo info;
  gst_query_parse_allocation(query, &caps, NULL);
  if (caps && gst_flux_kontext_cuda_is(gst_caps_get_features(caps, 0))) {
    if (!gst_flux_kontext_device_propose(self, query, caps)) return FALSE;
  } else if (self->batch_size > 1 && caps && gst_video_info_from_caps(&info, caps)) {
    gst_query_add_allocation_pool(query, NULL, (guint)GST_VIDEO_INFO_SIZE(&info), (guint)self->batch_size, 0);
  }
  gst_query_add_allocation_meta(query, GST_VIDEO_META_API_TYPE, NULL);
  return TRUE;
}

/* The base class sets up the pool that is chosen. */
static gboolean decide_allocation(GstBaseTransform *trans, GstQuery *query) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(trans);
  GstBaseTransformClass *parent = g_type_class_peek(GST_TYPE_BASE_TRANSFORM);
  GstCaps *caps;
  gst_query_parse_allocation(query, &caps, NULL);
  if (gst_flux_kontext_cuda_is(gst_caps_get_features(caps, 0)) && !gst_flux_kontext_device_decide(self, query, caps)) {
    g_autoptr(GError) error = g_error_new(FK_ERROR, FK_ERROR_MEMORY, "No pool for frames of %dx%d in CUDA memory.",
                                          self->out.info.width, self->out.info.height);
    gst_flux_kontext_edit_post_error(self, error, "decide_allocation");
    return FALSE;
  }
  return parent->decide_allocation(trans, query);
}

/* A crop meta would have to be applied before the edit; without support upstream crops for itself. */
static gboolean filter_meta(GstBaseTransform *trans, GstQuery *query, GType api, const GstStructure *params) {
  (void)trans;
  (void)query;
  (void)params;
  return api != GST_VIDEO_CROP_META_API_TYPE;
}

/* Metas about the picture as such stay; those tied to its size are scaled when the size changes; those of other kinds
 * are for the base class to judge. The format never changes, so colorspace metas stay. */
static gboolean transform_meta(GstBaseTransform *trans, GstBuffer *out, GstMeta *meta, GstBuffer *in) {
  static const gchar *const known[] = {GST_META_TAG_VIDEO_STR, GST_META_TAG_VIDEO_ORIENTATION_STR,
                                       GST_META_TAG_VIDEO_SIZE_STR, GST_META_TAG_VIDEO_COLORSPACE_STR, NULL};
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(trans);
  const gchar *const *tags = gst_meta_api_type_get_tags(meta->info->api);
  for (guint i = 0; tags && tags[i]; i++)
    if (!g_strv_contains(known, tags[i])) {
      GstBaseTransformClass *parent = g_type_class_peek(GST_TYPE_BASE_TRANSFORM);
      return parent->transform_meta(trans, out, meta, in);
    }
  gboolean same_size = self->in.info.width == self->out.info.width && self->in.info.height == self->out.info.height;
  if (same_size || !tags || !gst_meta_api_type_has_tag(meta->info->api, g_quark_from_static_string("size")))
    return TRUE;
  GstVideoMetaTransform scale = {&self->in.info, &self->out.info};
  if (meta->info->transform_func)
    meta->info->transform_func(out, meta, in, gst_video_meta_transform_scale_get_quark(), &scale);
  return FALSE;
}

void gst_flux_kontext_edit_caps_class_init(GstBaseTransformClass *klass) {
  klass->transform_caps = GST_DEBUG_FUNCPTR(transform_caps);
  klass->fixate_caps = GST_DEBUG_FUNCPTR(fixate_caps);
  klass->set_caps = GST_DEBUG_FUNCPTR(set_caps);
  klass->transform_size = GST_DEBUG_FUNCPTR(transform_size);
  klass->propose_allocation = GST_DEBUG_FUNCPTR(propose_allocation);
  klass->decide_allocation = GST_DEBUG_FUNCPTR(decide_allocation);
  klass->filter_meta = GST_DEBUG_FUNCPTR(filter_meta);
  klass->transform_meta = GST_DEBUG_FUNCPTR(transform_meta);
  klass->passthrough_on_same_caps = FALSE;
}
