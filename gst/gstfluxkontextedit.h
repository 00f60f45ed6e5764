/* SPDX-License-Identifier: Apache-2.0 */
/* What the plugin needs to know of its element. */
#ifndef GST_FLUX_KONTEXT_EDIT_H
#define GST_FLUX_KONTEXT_EDIT_H

#include <gst/gst.h>

GST_ELEMENT_REGISTER_DECLARE(fluxkontextedit)

#endif
