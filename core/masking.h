/* SPDX-License-Identifier: Apache-2.0 */
/* Masks of frames in device memory: made there by ops, with the bytes that mask.h has for those in host memory. What
 * crosses to the host is the box of each, 16 bytes. Memory of masks is kept for later frames, as are masks of files, of
 * which each is made once for a size and its settings. */
#ifndef FK_MASKING_H
#define FK_MASKING_H

#include "extras.h"

/* An engine's; zero: none. Who has the turn owns it. */
typedef struct {
  GQueue blocks; /* of struct FkMaskBlock, latest first */
  size_t bytes;  /* of device memory */
} FkMasks;

/* extras->mask, fade and box of extras->origin, which may be in host or device memory. Waits for the backend.
 * FK_ERROR_MEMORY, and what fk_job_sync gives; the backend's failure is cleared then. */
bool fk_masking_prepare(FkMasks *masks, FkBackend *be, const FkTune *tune, FkExtras *extras, GError **error);
/* A block of extras is not used any more. Any thread; nothing under way reads it. */
void fk_masking_drop(struct FkMaskBlock *block);
/* Bytes of blocks in use; the others are there for later frames and may go. */
size_t fk_masking_used(const FkMasks *masks);
/* Gives back what is not in use. */
void fk_masking_clear(FkMasks *masks, FkBackend *be);

#endif
