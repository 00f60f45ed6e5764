/* SPDX-License-Identifier: Apache-2.0 */
/* Runs one batch of frames, pixels in, pixels out, in the order of docs/architecture.md.
 * The same code runs on every backend, and on the null backend to plan memory and count work. */
#ifndef FK_EDIT_H
#define FK_EDIT_H

#include "job.h"

/* Size at which the model works on an input of this size, and the size of the result. */
void fk_edit_sizes(const FkModel *model, const FkTune *tune, int width, int height, int *model_width, int *model_height,
                   int *out_width, int *out_height);
bool fk_edit_run(FkEdit *edit, GError **error);
#endif
