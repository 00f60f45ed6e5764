/* SPDX-License-Identifier: Apache-2.0 */
/* Entry of the plugin. It registers and does nothing else: the registry's scanner runs it in a forked process, on
 * machines without a GPU, a driver or a model. */
#include "gstfluxkontextedit.h"

static gboolean plugin_init(GstPlugin *plugin) {
  return GST_ELEMENT_REGISTER(fluxkontextedit, plugin);
}

GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, fluxkontext, "Edits video frames with FLUX.1-Kontext",
                  plugin_init, PACKAGE_VERSION, "Apache 2.0", PACKAGE, "fluxkontext")
