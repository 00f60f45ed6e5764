/* SPDX-License-Identifier: Apache-2.0 */
/* Request pads for reference pictures; see gstfluxkontextreference.h.
 *
 * A pad keeps the latest picture that came, and its end does not take it away: a still image serves all frames. Frames
 * take the pictures when they enter, as they do their settings. A pad's chain never waits for an edit; branches of one
 * source need a queue each, as everywhere. */
#include "gstfluxkontextreference.h"

#include "gstfluxkontextcancel.h"
#include "gstfluxkontextcuda.h"
#include "gstfluxkontextdevice.h"
#include "gstfluxkontextpixels.h"
#include "gstfluxkontextreport.h"

#include <string.h>

#define GST_CAT_DEFAULT gst_flux_kontext_edit_debug

/* In a box of references counted by GLib. */
typedef struct {
  FkImage image;
  GstFluxKontextPicture picture; /* of a buffer in CUDA memory; else none */
} Picture;

typedef struct {
  guint number;
  GstFluxKontextFormat format; /* of the pad's stream lock; empty before caps */
  Picture *latest;             /* of `lock`, as `ended`; NULL: none yet */
  gboolean ended;
} Reference;

static Reference *reference_of(GstPad *pad) {
  return gst_pad_get_element_private(pad);
}

static void clear_picture(gpointer data) {
  Picture *picture = data;
  gst_flux_kontext_image_clear(&picture->image);
  gst_flux_kontext_picture_clear(&picture->picture);
}

static void drop_picture(Picture *picture) {
  if (picture) g_atomic_rc_box_release_full(picture, clear_picture);
}

static void reference_free(gpointer data) {
  Reference *reference = data;
  drop_picture(reference->latest);
  gst_flux_kontext_format_clear(&reference->format);
  g_free(reference);
}

/* Takes the picture, NULL: none. */
static void replace(GstFluxKontextEdit *self, Reference *reference, Picture *picture, gboolean ended) {
  g_mutex_lock(&self->lock);
  Picture *old = picture || !ended ? g_steal_pointer(&reference->latest) : NULL;
  if (picture || !ended) reference->latest = picture;
  reference->ended = ended;
  g_cond_broadcast(&self->changed);
  g_mutex_unlock(&self->lock);
  drop_picture(old);
}

/* ---- A pad's stream ---- */

/* A record of a result needs its pictures on the CPU. */
static gboolean stays_on_device(GstFluxKontextEdit *self, const GstFluxKontextFormat *format) {
  GST_OBJECT_LOCK(self);
  gboolean recorded = self->props.manifest_path && *self->props.manifest_path;
  GST_OBJECT_UNLOCK(self);
  return format->cuda && gst_flux_kontext_device_is_open(self) && !recorded &&
         gst_flux_kontext_pixels_planes(&format->info, NULL);
}

static gboolean read_picture(GstFluxKontextEdit *self, const GstFluxKontextFormat *format, GstBuffer *buffer,
                             Picture *picture, GError **error) {
  if (!stays_on_device(self, format)) return gst_flux_kontext_format_read(format, buffer, &picture->image, error);
  return gst_flux_kontext_picture_open(&picture->picture, &format->info, buffer, gst_flux_kontext_device_home(self),
                                       FALSE, &picture->image, error);
}

static GstFlowReturn chain(GstPad *pad, GstObject *parent, GstBuffer *taken) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(parent);
  Reference *reference = reference_of(pad);
  g_autoptr(GstBuffer) buffer = taken;
  g_autoptr(GError) error = NULL;
  if (reference->format.info.width == 0) return GST_FLOW_NOT_NEGOTIATED;
  Picture *picture = g_atomic_rc_box_new0(Picture);
  if (read_picture(self, &reference->format, buffer, picture, &error)) {
    replace(self, reference, picture, FALSE);
    return GST_FLOW_OK;
  }
  drop_picture(picture);
  gst_flux_kontext_edit_post_error(self, error, GST_PAD_NAME(pad));
  return GST_FLOW_ERROR;
}

static gboolean set_caps(Reference *reference, GstEvent *event) {
  GstCaps *caps;
  GstVideoInfo info;
  gst_event_parse_caps(event, &caps);
  gst_flux_kontext_format_clear(&reference->format);
  if (!gst_video_info_from_caps(&info, caps) || GST_VIDEO_INFO_IS_INTERLACED(&info) ||
      !gst_flux_kontext_format_init(&reference->format, &info))
    return FALSE;
  reference->format.cuda = gst_flux_kontext_cuda_is(gst_caps_get_features(caps, 0));
  return TRUE;
}

/* Nothing of a reference's stream goes downstream: times, tags and its end are its own. */
static gboolean handle_event(GstPad *pad, GstObject *parent, GstEvent *taken) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(parent);
  g_autoptr(GstEvent) event = taken;
  if (GST_EVENT_TYPE(event) == GST_EVENT_CAPS) return set_caps(reference_of(pad), event);
  if (GST_EVENT_TYPE(event) == GST_EVENT_EOS) replace(self, reference_of(pad), NULL, TRUE);
  return TRUE;
}

static gboolean answer_caps(GstFluxKontextEdit *self, GstPad *pad, GstQuery *query) {
  GstCaps *filter;
  gst_query_parse_caps(query, &filter);
  g_autoptr(GstCaps) all = gst_flux_kontext_device_possible(self, gst_pad_get_pad_template_caps(pad));
  g_autoptr(GstCaps) some = filter ? gst_caps_intersect_full(filter, all, GST_CAPS_INTERSECT_FIRST) : NULL;
  gst_query_set_caps_result(query, some ? some : all);
  return TRUE;
}

static gboolean handle_query(GstPad *pad, GstObject *parent, GstQuery *query) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(parent);
  if (GST_QUERY_TYPE(query) == GST_QUERY_CAPS) return answer_caps(self, pad, query);
  if (GST_QUERY_TYPE(query) == GST_QUERY_CONTEXT && gst_flux_kontext_device_answer_context(self, query)) return TRUE;
  return gst_pad_query_default(pad, parent, query);
}

/* ---- Pads come and go ---- */

static gint by_number(gconstpointer a, gconstpointer b) {
  const Reference *x = reference_of((GstPad *)a), *y = reference_of((GstPad *)b);
  return x->number < y->number ? -1 : x->number > y->number;
}

/* The number that a name asks for, or the first that is free. FALSE: it is taken, or there are too many. */
static gboolean choose_number(GstFluxKontextEdit *self, const gchar *name, guint *number) {
  const gchar *digits = name && g_str_has_prefix(name, "reference_") ? name + strlen("reference_") : "";
  guint64 value = 0;
  gboolean asked = g_ascii_string_to_unsigned(digits, 10, 0, G_MAXUINT, &value, NULL);
  *number = asked ? (guint)value : 0;
  if (g_list_length(self->references) >= FK_REFERENCES) return FALSE;
  for (const GList *item = self->references; item; item = item->next) {
    if (reference_of(item->data)->number != *number) continue;
    if (asked) return FALSE;
    ++*number; /* the list is sorted */
  }
  return TRUE;
}

static GstPad *request_new_pad(GstElement *element, GstPadTemplate *template, const gchar *name, const GstCaps *caps) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(element);
  guint number;
  (void)caps;
  g_mutex_lock(&self->lock);
  gboolean room = choose_number(self, name, &number);
  g_autofree gchar *own = room ? g_strdup_printf("reference_%u", number) : NULL;
  GstPad *pad = room ? gst_pad_new_from_template(template, own) : NULL;
  if (pad) {
    Reference *reference = g_new0(Reference, 1);
    reference->number = number;
    g_object_set_data_full(G_OBJECT(pad), "reference", reference, reference_free);
    gst_pad_set_element_private(pad, reference);
    gst_pad_set_chain_function(pad, chain);
    gst_pad_set_event_function(pad, handle_event);
    gst_pad_set_query_function(pad, handle_query);
    self->references = g_list_insert_sorted(self->references, pad, by_number);
  }
  g_mutex_unlock(&self->lock);
  if (!pad) return NULL;
  gst_pad_set_active(pad, TRUE);
  gst_element_add_pad(element, pad);
  return pad;
}

static void release_pad(GstElement *element, GstPad *pad) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(element);
  gst_pad_set_active(pad, FALSE);
  g_mutex_lock(&self->lock);
  self->references = g_list_remove(self->references, pad);
  g_cond_broadcast(&self->changed);
  g_mutex_unlock(&self->lock);
  gst_element_remove_pad(element, pad);
}

void gst_flux_kontext_reference_class_init(GstElementClass *klass, GstCaps *caps) {
  gst_element_class_add_pad_template(klass, gst_pad_template_new("reference_%u", GST_PAD_SINK, GST_PAD_REQUEST, caps));
  klass->request_new_pad = GST_DEBUG_FUNCPTR(request_new_pad);
  klass->release_pad = GST_DEBUG_FUNCPTR(release_pad);
}

/* ---- Frames ---- */

/* Every linked pad has a picture or its end. Under `lock`. */
static gboolean complete(GstFluxKontextEdit *self) {
  for (const GList *item = self->references; item; item = item->next) {
    const Reference *reference = reference_of(item->data);
    if (!reference->latest && !reference->ended && gst_pad_is_linked(item->data)) return FALSE;
  }
  return TRUE;
}

GstFlowReturn gst_flux_kontext_reference_take(GstFluxKontextEdit *self, GstFluxKontextReferences *references) {
  *references = (GstFluxKontextReferences){0};
  g_mutex_lock(&self->lock);
  while (!complete(self) && !g_cancellable_is_cancelled(self->flow)) g_cond_wait(&self->changed, &self->lock);
  gboolean cancelled = !complete(self);
  for (const GList *item = self->references; item && !cancelled; item = item->next) {
    Picture *latest = reference_of(item->data)->latest;
    if (!latest) continue;
    references->held[references->n] = g_atomic_rc_box_acquire(latest);
    references->images[references->n++] = latest->image;
  }
  g_mutex_unlock(&self->lock);
  return cancelled ? GST_FLOW_FLUSHING : GST_FLOW_OK;
}

void gst_flux_kontext_references_clear(GstFluxKontextReferences *references) {
  for (gint i = 0; i < references->n; i++) drop_picture(references->held[i]);
  *references = (GstFluxKontextReferences){0};
}

void gst_flux_kontext_reference_reset(GstFluxKontextEdit *self) {
  g_mutex_lock(&self->lock);
  g_autoptr(GPtrArray) dropped = g_ptr_array_new_with_free_func((GDestroyNotify)drop_picture);
  for (const GList *item = self->references; item; item = item->next) {
    Reference *reference = reference_of(item->data);
    if (reference->latest) g_ptr_array_add(dropped, g_steal_pointer(&reference->latest));
    reference->ended = FALSE;
  }
  g_mutex_unlock(&self->lock);
}
