/* SPDX-License-Identifier: Apache-2.0 */
/* Caps, sizes, pools and metas: virtual functions of the base class. */
#ifndef GST_FLUX_KONTEXT_CAPS_H
#define GST_FLUX_KONTEXT_CAPS_H

#include "gstfluxkontextinstance.h"

G_BEGIN_DECLS

void gst_flux_kontext_edit_caps_class_init(GstBaseTransformClass *klass);

G_END_DECLS

#endif
