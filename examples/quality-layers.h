/* SPDX-License-Identifier: Apache-2.0 */
/* fluxkontext-quality --layers: what the matrix products of edits see. */
#ifndef QUALITY_LAYERS_H
#define QUALITY_LAYERS_H

#include "quality-cases.h"

/* Edits the cases exactly and prints a line for each layer, or one JSON object. */
bool quality_layers(const char *model, const char *backend, const GPtrArray *cases, bool json, GError **error);

#endif
