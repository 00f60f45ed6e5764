/* SPDX-License-Identifier: Apache-2.0 */
/* The running estimate of a result as a small picture: a linear map from latents to colours, fitted to the model's own
 * autoencoder. Only downloads are asked of the backend: nothing that the edit computes changes. */
#ifndef FK_PREVIEW_H
#define FK_PREVIEW_H

#include "job.h"

/* Zero-initialised is not fitted. The engine owns it; who has the turn uses it. */
typedef struct FkPreviewMap {
  int width, height; /* of the picture it was fitted to; 0: none */
  int channels;      /* of the latents, C */
  double *coef;      /* [3, C + 1]: colour in 0..255 = sum of coef * latent, and a constant last */
} FkPreviewMap;

void fk_preview_map_clear(FkPreviewMap *map);

/* Does a job of this edit ask for previews. */
bool fk_preview_wanted(const FkEdit *edit);
/* Fits edit->previews where that has not been done for this size. Before the frames' tensors are taken from the arena:
 * it needs at most what encoding one frame of the edit takes. */
bool fk_preview_fit(FkEdit *edit, GError **error);
/* Calls job `frame` back where its turn is after evaluation i of n: x and v are the sample and the velocity at sigma.
 */
bool fk_preview_show(const FkEdit *edit, int frame, int i, int n, FkTensor x, FkTensor v, float sigma, GError **error);

#endif
