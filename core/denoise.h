/* SPDX-License-Identifier: Apache-2.0 */
/* The loop: noise level, forward, guidance, solver step, progress, cancellation; for the frames of one batch. */
#ifndef FK_DENOISE_H
#define FK_DENOISE_H

#include "job.h"

/* One frame of the batch inside the loop. */
typedef struct {
  FkTensor context; /* [context tokens, C], the frame's first, the backend's dtype; absent for task=generate */
  FkTensor latent;  /* [target tokens, C] float32: noise on entry, result on return */
  FkTensor draft;   /* [context tokens of the draft, C]: the reference at its size; absent without a draft */
  FkTensor mask;    /* [target tokens, C] float32: 1 edited, 0 kept as the context has it; absent: all is edited */
} FkDenoiseFrame;

/* negative NULL: no true CFG. Writes evaluations, skipped and mask of each job's result. */
bool fk_denoise(FkEdit *edit, const FkPrompt *positive, const FkPrompt *negative, FkDenoiseFrame *frames,
                GError **error);

#endif
