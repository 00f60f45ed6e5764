/* SPDX-License-Identifier: Apache-2.0 */
/* The matrices of a model as layers with names, for who measures them (layers.c) or brings them something
 * (calibration.c). */
#ifndef FK_LAYERS_H
#define FK_LAYERS_H

#include "engine.h"

/* A weight that products read. Tensors that lie in one weight are one layer: the beginning that their names share, then
 * the rest of each, in the order of rows. */
typedef struct {
  char name[sizeof((FkLayerRow *)0)->name];
  FkWeight *weight; /* the model's */
  FkRole role;
} FkNamedLayer;

/* FkNamedLayer of T5 and the transformer, in the model's order. (transfer full) */
GPtrArray *fk_layers_list(const FkModel *model);
/* What was measured, and how many frames of it. */
const FkEngine *fk_layers_source(const FkLayers *layers, int *edits);

#endif
