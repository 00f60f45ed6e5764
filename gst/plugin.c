/* SPDX-License-Identifier: Apache-2.0 */
/* Entry of the plugin. It registers and does nothing else: the registry's scanner runs it in a forked process, on
 * machines without a GPU, a driver or a model. */
#include "gstfluxkontextedit.h"

#include "fk.h"

/* Editors compare a property with its default, and write those that differ. */
static gint compare_engines(const GValue *a, const GValue *b) {
  return g_value_get_boxed(a) == g_value_get_boxed(b) ? GST_VALUE_EQUAL : GST_VALUE_UNORDERED;
}

static gboolean plugin_init(GstPlugin *plugin) {
  const GstValueTable engines = {.type = FK_TYPE_ENGINE, .compare = compare_engines};
  gst_value_register(&engines);
  return GST_ELEMENT_REGISTER(fluxkontextedit, plugin);
}

GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, fluxkontext, "Edits video frames with FLUX.1-Kontext",
                  plugin_init, PACKAGE_VERSION, "Apache 2.0", PACKAGE, "fluxkontext")
