/* SPDX-License-Identifier: Apache-2.0 */
/* Which frames can be edited: working sizes, and the checks of what a caller hands in. */
#ifndef FK_FRAMES_H
#define FK_FRAMES_H

#include "mask.h"
#include "model.h"
#include "tune.h"

typedef struct {
  int width, height;         /* at which the model works; multiples of 16 */
  int out_width, out_height; /* of the result */
} FkFrameSize;

/* Sizes for an input of width x height. FK_ERROR_SHAPE: a side is not 1 to 65535, or no size near the working area has
 * sides that the model can work at. FK_ERROR_OPTION_BAD: a working area that has no size at all. */
bool fk_frames_size(const FkModel *model, const FkTune *tune, int width, int height, FkFrameSize *size, GError **error);
/* The part of a frame that is edited for a mask's box (region=crop): with surroundings, in the shape of the size at
 * which the model works, the best one for it. Errors as fk_frames_size. */
bool fk_frames_region(const FkModel *model, const FkTune *tune, int width, int height, FkMaskBox *box,
                      FkFrameSize *size, GError **error);
/* Size of a picture beside the frame: a preferred one of the 1 MP model, the picture's aspect at other models' area.
 * FK_ERROR_SHAPE */
bool fk_frames_reference(const FkModel *model, int width, int height, int *w, int *h, GError **error);
/* FK_ERROR_OPTION_BAD: the model cannot do the task. */
bool fk_frames_task(const FkModel *model, const FkTune *tune, GError **error);
/* A batch: sizes, channels, strides, memory that is there and does not overlap, one size and one set of settings. n
 * from 1 to FK_FRAMES. FK_ERROR_OPTION_BAD, FK_ERROR_SHAPE. */
bool fk_frames_check(const FkModel *model, const FkTune *tune, const FkJob *jobs, int n, FkFrameSize *size,
                     GError **error);

#endif
