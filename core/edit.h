/* SPDX-License-Identifier: Apache-2.0 */
/* Runs one batch of frames, pixels in, pixels out, in the order of docs/architecture.md.
 * The same code runs on every backend, and on the null backend to plan memory and count work. */
#ifndef FK_EDIT_H
#define FK_EDIT_H

#include "job.h"

/* Writes results and costs. On failure the arena is as it was, and what the failure left on the backend is the
 * caller's to clear. */
bool fk_edit_run(FkEdit *edit, GError **error);

#endif
