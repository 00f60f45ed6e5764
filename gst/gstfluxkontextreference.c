/* SPDX-License-Identifier: Apache-2.0 */
/* Request pads for reference pictures; see gstfluxkontextreference.h.
 *
 * A pad keeps the latest picture that came, and its end does not take it away: a still image serves all frames. Frames
 * take the pictures when they enter, as they do their settings. A pad's chain never waits for an edit; branches of one
 * source need a queue each, as everywhere. */
#include "gstfluxkontextreference.h"

#include "gstfluxkontextcancel.h"
#include "gstfluxkontextreport.h"

#include <stdio.h>

#define GST_CAT_DEFAULT gst_flux_kontext_edit_debug

typedef struct {
  guint number;
  GstFluxKontextFormat format; /* of the pad's stream lock; empty before caps */
  FkImage *latest;             /* of `lock`, as `ended`: a box of references counted by GLib; NULL: none yet */
  gboolean ended;
} Reference;

static Reference *reference_of(GstPad *pad) {
  return gst_pad_get_element_private(pad);
}

static void drop_image(FkImage *image) {
  if (image) g_atomic_rc_box_release_full(image, (GDestroyNotify)gst_flux_kontext_image_clear);
}

static void reference_free(gpointer data) {
  Reference *reference = data;
  drop_image(reference->latest);
  gst_flux_kontext_format_clear(&reference->format);
  g_free(reference);
}

/* Takes the image, NULL: none. */
static void replace(GstFluxKontextEdit *self, Reference *reference, FkImage *image, gboolean ended) {
  g_mutex_lock(&self->lock);
  FkImage *old = image || !ended ? g_steal_pointer(&reference->latest) : NULL;
  if (image || !ended) reference->latest = image;
  reference->ended = ended;
  g_cond_broadcast(&self->changed);
  g_mutex_unlock(&self->lock);
  drop_image(old);
}

/* ---- A pad's stream ---- */

static GstFlowReturn chain(GstPad *pad, GstObject *parent, GstBuffer *taken) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(parent);
  Reference *reference = reference_of(pad);
  g_autoptr(GstBuffer) buffer = taken;
  g_autoptr(GError) error = NULL;
  if (reference->format.info.width == 0) return GST_FLOW_NOT_NEGOTIATED;
  FkImage *image = g_atomic_rc_box_new0(FkImage);
  if (gst_flux_kontext_format_read(&reference->format, buffer, image, &error)) {
    replace(self, reference, image, FALSE);
    return GST_FLOW_OK;
  }
  drop_image(image);
  gst_flux_kontext_edit_post_error(self, error, GST_PAD_NAME(pad));
  return GST_FLOW_ERROR;
}

static gboolean set_caps(Reference *reference, GstEvent *event) {
  GstCaps *caps;
  GstVideoInfo info;
  gst_event_parse_caps(event, &caps);
  gst_flux_kontext_format_clear(&reference->format);
  return gst_video_info_from_caps(&info, caps) && !GST_VIDEO_INFO_IS_INTERLACED(&info) &&
         gst_flux_kontext_format_init(&reference->format, &info);
}

/* Nothing of a reference's stream goes downstream: times, tags and its end are its own. */
static gboolean handle_event(GstPad *pad, GstObject *parent, GstEvent *taken) {
  GstFluxKontextEdit *self = GST_FLUX_KONTEXT_EDIT(parent);
  g_autoptr(GstEvent) event = taken;
  if (GST_EVENT_TYPE(event) == GST_EVENT_CAPS) return set_caps(reference_of(pad), event);
  if (GST_EVENT_TYPE(event) == GST_EVENT_EOS) replace(self, reference_of(pad), NULL, TRUE);
  return TRUE;
}

/* ---- Pads come and go ---- */

static gint by_number(gconstpointer a, gconstpointer b) {
  const Reference *x = reference_of((GstPad *)a), *y = reference_of((GstPad *)b);
  return x->number < y->number ? -1 : x->number > y->number;
}

/* The number that a name asks for, or the first that is free. FALSE: it is taken, or there are too many. */
static gboolean choose_number(GstFluxKontextEdit *self, const gchar *name, guint *number) {
  gboolean asked = name && sscanf(name, "reference_%u", number) == 1;
  if (!asked) *number = 0;
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
    FkImage *latest = reference_of(item->data)->latest;
    if (!latest) continue;
    references->held[references->n] = g_atomic_rc_box_acquire(latest);
    references->images[references->n++] = *latest;
  }
  g_mutex_unlock(&self->lock);
  return cancelled ? GST_FLOW_FLUSHING : GST_FLOW_OK;
}

void gst_flux_kontext_references_clear(GstFluxKontextReferences *references) {
  for (gint i = 0; i < references->n; i++) drop_image(references->held[i]);
  *references = (GstFluxKontextReferences){0};
}

void gst_flux_kontext_reference_reset(GstFluxKontextEdit *self) {
  g_mutex_lock(&self->lock);
  g_autoptr(GPtrArray) dropped = g_ptr_array_new_with_free_func((GDestroyNotify)drop_image);
  for (const GList *item = self->references; item; item = item->next) {
    Reference *reference = reference_of(item->data);
    if (reference->latest) g_ptr_array_add(dropped, g_steal_pointer(&reference->latest));
    reference->ended = FALSE;
  }
  g_mutex_unlock(&self->lock);
}
